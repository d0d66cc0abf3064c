/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay.h - after a crash: the file system becomes what its callers were told that it is. The log (vhost-sc/state.h) is the input.
 *
 * What is found. The guest's kernel has mounted the file system and replayed its journal. The metadata are then those after some
 * prefix of the changes that were made since `synced` (ext4, xfs and btrfs order them), data any mix of old and new within what the
 * sizes on the disk let see, never another file's. All that was before `synced` is there. An fsync may carry single files
 * further (ext4's fast commits), which is harmless as long as no file is without a name that way. With btrfs's log tree that
 * happens: linked elsewhere, removed, and the directory that it was removed from fsynced, a file is gone after a crash. So btrfs is to be
 * mounted with -o notreelog.
 *
 * What is done. The prefix is not looked for. The log is simulated: it says what each name that it touches held at first and
 * has to hold in the end, which objects it made, and what was done to each object. Then that is made so, whatever is there:
 *
 *   1 resolve   objects are opened by their identity. Those that the log made, that live, and are not there were lost
 *   2 clear     every touched name that holds something else than it has to is freed. What lives on goes to the stage directory
 *               (renamed: never without a name), directories do in any case; what does not is unlinked
 *   3 make      lost objects are made once more, each where it has to be, and what it is called now is noted in its CREATE
 *               record. (One that is there by an identity that another one got this way counts as lost: numbers of lost files
 *               are given away again, by xfs and btrfs with the same generation.)
 *   4 place     names get their objects: linkat for files, renameat for directories; what is open without a name gets one among
 *               the orphans
 *   5 redo      data of each file, in the log's order, after its last BARRIER; one that the log made begins empty. Then owner,
 *               mode, attributes, flags as they were last; times at the very end
 *   6 sync      the stage is emptied, the file system synced. replay_commit() then moves `synced` up to the tail
 *
 * Everything goes by descriptors of directories and single names in them, so the order in which directories come to their places
 * does not matter, and no link and no ".." is ever followed.
 *
 * Why that is right. Of a touched name the last DONE record says what it holds; names in one directory are changed one at a time,
 * so that this is what it held at the crash. An untouched name is as at `synced`, hence on the disk. A byte of a file differs from
 * what it was at `synced` only if a record says so; the last such record gives it its value, and replayed in order it comes last.
 * An object that the log did not make was on the disk at `synced`; if it is gone then its last name went, and a record says so.
 *
 * INTENT records (nobody was told) are left out: what they have made is in a name that has to hold something else, and goes. So the
 * call can be executed again. Only what cannot be had back (the last name of a file older than `synced` is gone; or the
 * file's number has been another's since) is counted as done: the record becomes DONE with result 0. Of unfinished calls that only change data or attributes nothing is taken back: they
 * are executed again or never heard of; but an attribute that an unfinished SETXATTR made is taken away.
 *
 * A crash in the middle of it, of the agent or the whole guest, is harmless: the log is as it was, but for notes of what was made
 * once more (host memory, as durable as the log), and INTENTs that became DONE for what the disk lost for good. The next attempt
 * opens objects by these notes first. What was made and not noted is nobody's: it is at a touched name or in the stage, where it
 * is removed. What was in the stage and lives is found there by its identity. The one store of `synced` ends it.
 *
 * What is not right: access times of reads are not recorded; change times are those of the replay; modification times of what
 * is redone are as exact as the log's clock (the disk's are kept where they agree). A file system that lost what it had synced is
 * damaged: what is missing is reported and left out.
 *
 * The log is hostile: a mad agent may have written it. Every record is checked before the first is used; files are named by
 * identity and lie on the root's file system by construction, and a directory in which names are changed must be below the root;
 * what does not make sense ends the replay with an error that names it.
 */
#ifndef SC_AGENT_REPLAY_H
#define SC_AGENT_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vhost-sc/state.h"

/* An object that was lost with its VM and made once more. */
struct replay_moved {
	struct sc_fid was; /* in the log, and in tables of older incarnations */
	struct sc_fid now;
	uint64_t was_ino; /* its number as `was` has it; 0: not known how to tell */
	uint64_t now_ino;
};

struct replay {
	/* in */
	struct sc_log
	    *log;      /* the segment: SC_LOG_BEGIN bytes and the ring. Notes are written to it */
	uint64_t size; /* of the segment, bytes */
	int root;      /* the export's root, O_PATH will do; not consumed */
	/* Whether an open file has this identity (sc_kept_handle.fid, or .moved where that counts): then it lives without a
	 * name, too, if the log says that it was kept. NULL: none is. */
	bool (*is_open)(void *arg, const struct sc_fid *fid);
	void *arg;

	/* out */
	struct replay_moved *moved; /* in the order of `was`; freed by replay_free() */
	size_t nmoved;
	uint64_t records;      /* replayed */
	uint64_t bytes;	       /* of data */
	uint64_t names;	       /* that were not as they have to be */
	uint64_t counted_done; /* INTENT records that became DONE */
	uint64_t
	    lost; /* objects or names that should be there and could not be had back; in the agent's log */
	uint64_t synced; /* for replay_commit() */
	char error[200]; /* empty, or why it has failed: the object, and what to do */
};

/*
 * Does all of the above, but for the commit. May take seconds: call it where nothing waits for the thread. Needs root's
 * rights (CAP_DAC_READ_SEARCH and what the changes take); nobody else may use the file system meanwhile. False: it failed, the
 * reason is in `error`; may be tried again. What is found damaged before the first change to the disk has changed nothing.
 */
bool replay_run(struct replay *r);

/*
 * What `fid` is called now: true if it was made once more, in this replay or an earlier attempt. After a successful run, for
 * handles: write `moved` with moved_at = r->synced, then replay_commit(), in this order; inode numbers likewise (inodes.h).
 */
bool replay_moved(const struct replay *r, const struct sc_fid *fid, struct sc_fid *now);

/* The end: nothing of the log is to be replayed any more, and all that was written with `synced` counts. */
void replay_commit(struct replay *r);

void replay_free(struct replay *r);

/* The name of a file among the orphans: hexadecimal digits of type, len and bytes; `to` has REPLAY_ORPHAN_NAME bytes. */
#define REPLAY_ORPHAN_NAME (2 * (2 + SC_FID_MAX) + 1)
void replay_orphan_name(const struct sc_fid *fid, char *to);

#endif
