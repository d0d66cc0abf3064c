/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * handles.h - the table of open files: what a 64-bit handle names, and who may use it.
 *
 * A handle is index (low 32 bits) and generation (high 32 bits). The generation's top 8 bits are those of the incarnation that
 * made it, so that one of an earlier boot that was lost is known for what it is (-EIO); the others count the index's reuse.
 * Handles outlive the agent (keep.h), names and all.
 * Entries live in one array that is reserved at start and never moves, so a look-up needs no lock: the entry's `ref` word
 * holds generation, a live bit and a count of users; handle_get() adds a user only if generation and live bit agree.
 * When a handle is closed its live bit goes; when the last user is gone the descriptor is closed and the index is free.
 *
 * Rights: the session that opened it, and sessions that named its secret (handle_grant()).
 *
 * Position: operations at the handle's own position execute one at a time, in the order of their coming
 * (handle_pos_take(), handle_pos_drop()). A regular file's position is kept here, not by the kernel with the descriptor (keep.h).
 */
#ifndef SC_AGENT_HANDLES_H
#define SC_AGENT_HANDLES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vhost-sc/state.h"
#include "workers.h"

struct agent;
struct call;
struct handles;
struct hot;
struct session;

/* An export's root: what no path of its handles leaves. Counted by the handles that were opened below it. */
struct root {
	_Atomic uint32_t refs;
	int fd; /* O_PATH */
	uint64_t dev;
	uint64_t ino;
	struct sc_fid fid; /* len 0: not known */
};

/* A session that was granted a handle. */
struct grant {
	uint32_t id;
	uint32_t kept; /* keep_granted() */
};

struct handle {
	_Atomic uint64_t ref; /* generation << 32 | live << 31 | users */
	int fd;
	uint32_t owner; /* id of the session that opened it */
	uint32_t type;	/* S_IFMT >> 12 */
	uint32_t flags; /* O_* at open; access mode and O_PATH do not change */
	_Atomic uint32_t
	    status; /* O_APPEND, O_NONBLOCK, O_DIRECT, O_NOATIME as set last. O_NONBLOCK is kept here alone: on
				    the descriptor it would make the ring give up instead of waiting for the disk */
	_Atomic(struct hot *) hot;     /* a mapping of the file, or NULL: hot.h */
	_Atomic uint32_t cached_reads; /* counts reads that did not wait */
	_Atomic uint32_t ngrants;      /* sessions in `grants` */
	struct root *root;
	struct session *session; /* the owner; holds a reference */
	uint64_t secret;
	uint64_t ticket; /* or 0 */
	uint64_t dev;	 /* identity of the file, for locks */
	uint64_t ino;
	struct sc_fid fid; /* len 0: not kept */
	struct sc_kept_handle
	    *kept;    /* where it is kept, or NULL. Written here, never read back but by keep.c */
	uint64_t pos; /* regular files: who has the position may look, and move it */
	uint32_t pos_now; /* keep.c's */
	/* orphans.c's: the chain of open files by identity, and enum orphan; same_prev NULL: in none */
	struct handle *same_next, **same_prev;
	_Atomic uint32_t orphan;
	_Atomic uint32_t lock_owner; /* 1 once a lock was asked for through this handle */
	uint32_t next_free;
	struct job reap;      /* closes the descriptor where that may block */
	pthread_mutex_t lock; /* guards what follows */
	struct grant *grants;
	uint32_t grants_size;
	bool pos_taken;
	struct call *pos_first, *pos_last;  /* waiting for the position */
	struct handle *own_next, *own_prev; /* the owner's list; guarded by the session's lock */
};

#define HANDLE_LIVE  0x80000000ull
#define HANDLE_USERS 0x7fffffffull

/* Makes a table of `max` handles. NULL: no memory. */
struct handles *handles_new(uint32_t max, uint32_t incarnation);
void handles_free(struct handles *t);
/* Whose handles they are; needed once orphan_opened() was called with one. */
void handles_serve(struct handles *t, struct agent *agent);

/*
 * Adds an open descriptor; the table owns it from now on (it is closed on failure, too). `root` gains a reference if it
 * is not NULL; the session gains a handle. Returns an entry that nobody can look up yet, or NULL with *err = -EMFILE
 * (the session's limit) or -ENFILE. The caller fills type, flags, secret, ticket, dev and ino, and publishes it: then it
 * has two users, the openness itself and the caller.
 */
struct handle *handle_new(struct handles *t, int fd, struct session *s, struct root *root,
			  int *err);

void handle_publish(struct handles *t, struct handle *h);

/* The name that handle_publish() will give it. */
uint64_t handle_next_id(const struct handles *t, const struct handle *h);

/* The 64-bit name. */
uint64_t handle_id(const struct handles *t, const struct handle *h);

/* Looks up and adds a user, if session `id` may use it. NULL with *err = -EBADF, or -EIO for a handle of an earlier
 * incarnation. No lock, no system call. */
struct handle *handle_get(struct handles *t, uint64_t name, uint32_t id, int *err);

/* The same for anyone who knows the secret. -EACCES: wrong secret. *fresh: session `id` may not use it yet: handle_add_grant()
 * lets it. */
struct handle *handle_grant(struct handles *t, uint64_t name, uint64_t secret, uint32_t id,
			    bool *fresh, int *err);
/* Session `id` may use the handle; `kept`: keep_granted(). False: no memory. */
bool handle_add_grant(struct handle *h, uint32_t id, uint32_t kept);
/* It may not any more. Returns `kept`. The caller has a user. */
uint32_t handle_drop_grant(struct handle *h, uint32_t id);

/* For recovery, before anything is served: the handle with this name, alive, with its openness for a user; fd is the table's
 * from then on. The caller fills the rest. NULL: no memory, or no such handle is possible (fd is the caller's then). */
struct handle *handle_restore(struct handles *t, uint64_t name, int fd, struct session *s,
			      struct root *root);
/* The one that is alive under this name, without a user; NULL: none. For recovery. */
struct handle *handle_restored(struct handles *t, uint64_t name);
/* No more than `max` handles from now on, if it is less than before. Before anything is served. */
void handles_limit(struct handles *t, uint32_t max);

/* Takes away the openness, once: nobody can look it up any more. False if somebody else did already. The caller must
 * hold a user of its own. */
bool handle_kill(struct handle *h);

/* False once it was killed. */
bool handle_is_live(const struct handle *h);

/* Drops a user. True if it was the last one: then the caller must call handle_reap(), which closes the descriptor (may
 * block), from a thread that may. */
bool handle_put(struct handle *h);
void handle_reap(struct handles *t, struct handle *h);

/* Adds a user to a handle that the caller found in a list, if it is alive still. */
bool handle_hold_live(struct handle *h);

/* Takes the position for c. False: c is queued, and comes back by poller_return() with CALL_RESTART. */
bool handle_pos_take(struct handle *h, struct call *c);
/* Gives it up, and to the next in the queue, which is returned (NULL: nobody): the caller must poller_return() it. */
struct call *handle_pos_drop(struct handle *h);

/* Handles in use now. */
uint32_t handles_count(struct handles *t);

/* A root around fd (owned by it from now on), with one reference. NULL: no memory, or fstat failed. */
struct root *root_new(int fd);
void root_put(struct root *r);

#endif
