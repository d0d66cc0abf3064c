/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay_priv.h - what the files of the replay share with each other, and nobody else uses (replay.h says what it is all about).
 *
 *   replay.c        the order of the steps, and what users see
 *   replay_log.c    the log: checked, and simulated into objects and names
 *   replay_names.c  resolve, clear, make, place: every name holds what it has to
 *   replay_redo.c   data, attributes, times, flags
 *
 * One thread uses all this; nothing outlives replay_run().
 */
#ifndef SC_AGENT_REPLAY_PRIV_H
#define SC_AGENT_REPLAY_PRIV_H

#include "logrec.h"
#include "replay.h"

#include <sys/types.h>

struct name;

/* A record that changes an object's data or attributes, in the object's list, in the log's order. */
struct item {
	struct item *next;
	struct sc_log_rec *rec;
	bool done; /* otherwise INTENT */
};

/* A time that something has in the end. */
struct moment {
	uint64_t ns;
	enum {
		TIME_AS_IT_IS,
		TIME_ABOUT, /* as the log's clock said: what is on the disk is better if it is near */
		TIME_EXACT,
	} how;
};

/* A file that the log names. */
struct object {
	struct object *next;	 /* in the order in which the log names them first */
	struct object *same_fid; /* hash chains */
	struct object *same_now;
	struct sc_fid fid;	   /* in the log */
	struct sc_fid now;	   /* by which it is found; len 0: it is not there */
	struct sc_log_rec *create; /* that made it, or NULL: it is older than the log */
	struct item *first, *last;
	struct name *names; /* that it has in the end, of those that are touched */
	uint32_t nnames;
	uint32_t stage; /* its name in the stage, 0: none */
	uint32_t type;	/* S_IFMT; 0: not known yet */
	bool is_dir;	/* the log says so; type agrees, once known */
	bool is_parent; /* names in it are touched */
	bool kept;	/* lives without a name */
	bool opens;	/* somebody has it open */
	bool made;	/* made once more, in this or a former attempt */
	bool aside;	/* directory: was put aside, which some file systems count as a change */
	bool inside;	/* directory: known to be below the root */
	bool has_flags; /* its inode flags are in the log, or forbid changes */
	bool has_size;	/* `size` is what it has in the end */
	uint32_t flags; /* has_flags: inode flags that it had on the disk */
	uint64_t size;
	uint64_t disk_mtime; /* ns, before the first change of ours; so are the next three */
	uint32_t disk_mode;
	uid_t disk_uid;
	gid_t disk_gid;
	struct moment mtime;
	struct moment atime;
};

/* A name in a directory. */
struct name {
	struct name *next; /* in the order in which the log names them first */
	struct name *same; /* hash chain */
	struct name *more; /* of the same object */
	struct object *dir;
	struct object *holds; /* in the end, or NULL */
	struct sc_log_rec *rec;
	const uint8_t *text; /* in the record's body */
	uint16_t len;
	bool right; /* holds what it has to */
};

/* An INTENT record that may have taken an object's last name. */
struct intent {
	struct intent *next;
	struct sc_log_rec *rec;
	struct name *from, *to; /* of RENAME; UNLINK: to NULL */
	struct object *gone;	/* whose name is taken; may be NULL */
	struct object *moves;	/* RENAME: what goes from `from` to `to` */
};

#define REPLAY_FDS 64u /* directories held open */

struct sim {
	struct replay *r;
	struct block *blocks; /* memory */
	struct object *objects, **objects_end;
	struct name *all_names, **names_end;
	struct intent *intents, **intents_end;
	size_t nobjects, nnames;
	size_t room; /* of each of the hash tables: a power of two */
	struct object **by_fid;
	struct object **by_now;
	struct name **by_name;
	/* the file system */
	int mount; /* the root, readable: what open_by_handle_at() takes */
	int mount_id;
	uint64_t dev, ino; /* of the root */
	struct sc_fid root_fid;
	int own, stage, orphans; /* directories */
	struct sc_fid own_fid, stage_fid;
	uint32_t stage_last; /* the last name given */
	struct {
		struct object *dir;
		int fd;
	} fds[REPLAY_FDS];
};

/* Notes why it fails (the first reason counts). Returns false. */
bool replay_fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The same with "record N (kind)" before it. */
bool replay_fail_at(struct sim *s, const struct sc_log_rec *rec, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Something is not there any more that should be: noted, and told in the agent's log. */
void replay_lost(struct sim *s, const struct name *name, const char *what);

/* A name for people: what cannot be printed is '?'. `to` has 64 bytes; longer ones are cut. */
const char *replay_show(const uint8_t *text, uint32_t len, char *to);

/* replay_log.c */

/* Reads and simulates. False: damaged, nothing was changed. */
bool replay_read(struct sim *s, uint64_t from, uint64_t to);
/* Puts those objects that are there into by_now. */
void replay_index_now(struct sim *s, struct object *o);
/* The object that is found by this identity, or NULL. */
struct object *replay_by_now(const struct sim *s, const struct sc_fid *fid);
/* Links names to the objects that they hold: names, nnames. False: a directory has two. */
bool replay_count_names(struct sim *s);
void replay_forget(struct sim *s);

/* replay_names.c */

/* Opens an object that is there. -1 with errno. */
int replay_open(const struct sim *s, const struct sc_fid *fid, int flags);
/* The inode's number, as the identity has it; 0: of a file system that we do not know. */
uint64_t replay_number_of(const struct sc_fid *fid);
bool replay_set_up(struct sim *s); /* .vhost-sc and what is in it */
bool replay_resolve(struct sim *s);
bool replay_clear(struct sim *s);
bool replay_make(struct sim *s);
bool replay_place(struct sim *s);
bool replay_empty_stage(struct sim *s);
void replay_close_all(struct sim *s);

/* replay_redo.c */

/* Takes inode flags away that would forbid what is to come. */
bool replay_unlock(struct sim *s);
bool replay_redo(struct sim *s);
/* Times, then flags. */
bool replay_finish(struct sim *s);

#endif
