/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * retain.h - what was changed and may not be on the disk yet is kept on the host's side: the writer of the log (vhost-sc/state.h has
 * its format, replay.h what is made of it after a crash).
 *
 * Each operation that changes the file system does this, in the thread that executes it:
 *
 *   record_enter()   takes the stripes of the files concerned: changes of one file's data and attributes, and of the names in
 *                    one directory, happen one at a time, in the order of their records
 *   record_intent()  reserves room in the log and writes what is going to happen, data included; waits if the log is full
 *   the change
 *   record_end()     notes the result
 *   record_leave()   gives the stripes up
 *
 * and only then is the caller told. Where nothing is retained (no LOG segment, no open files kept, another file system than the
 * root's) all of these do nothing.
 *
 * Stripes are mutexes, held across system calls that may block: threads that may block take them (workers, and pollers that can be
 * taken over: relay.h), and wait asleep. Order: an object's lock (objects.h) before stripes; of several stripes the lower first.
 * Nobody who holds one waits for main or for a poller.
 *
 * The checkpoint, a thread of its own, empties the log when a quarter of it is used, its oldest record is CHECKPOINT_NS old, or
 * somebody waits for room. It notes where the tail is, waits until all calls with records before that have been answered, syncs
 * the file system, and moves `synced` and `head` up to there. Calls are counted in one of two phases that alternate
 * (as with the gate, objects.h): one that has a record in it is counted when the record is made, and again when its completion has
 * been published. A log that is found empty begins anew at its start, where it is still in the cache.
 *
 * Calls that pended when the last agent died are executed again, but for those whose records say that they were executed
 * (retain_settled()). Those records stay in the log, before `synced`, until all sessions are attached and their calls
 * answered; so it is right as well if the next agent dies, too.
 */
#ifndef SC_AGENT_RETAIN_H
#define SC_AGENT_RETAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "agent.h"
#include "vhost-sc/state.h"

struct retain;

#define RETAIN_STRIPES 4u /* most that one change takes */

/* A change under way; on the stack of who makes it. */
struct record {
	struct retain *t;	/* NULL: not recorded */
	struct sc_log_rec *rec; /* from record_intent() to record_end() */
	uint32_t nstripes;
	uint16_t stripe[RETAIN_STRIPES];
	uint8_t phase;
	bool counted; /* the agent's own doing, which no poller counts down */
	bool
	    more; /* not the first: its call is being waited for by the checkpoint, so it must not wait */
};

/* What a record says: the fields of struct sc_log_rec, by the kind's meaning. Identities that are NULL are none. */
struct record_what {
	uint16_t kind; /* enum sc_log_kind */
	uint32_t flags;
	uint64_t off;
	uint64_t size;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint32_t rdev;
	const char *name; /* not NUL-terminated */
	const char *name2;
	uint32_t name_len;
	uint32_t name2_len;
	const void *data; /* read once */
	uint32_t data_len;
	const struct sc_fid *obj, *dir, *obj2, *dir2;
};

/* What was found of a call that pended. */
struct retained {
	struct sc_call_id call;
	uint16_t kind;
	bool append; /* WRITE that went to the end */
	int64_t res;
	uint64_t off;
	struct sc_fid obj; /* as it is called now */
};

/*
 * Part of service->recover(), when it is known that files can be opened by identity and before any handle is: brings the file
 * system to where it has to be (replay.h), and begins to retain. `is_open`, `arg`: replay.h. `moved` is called for each file that
 * was made once more, before that counts; it is called again if it does not come to that. False after a log message: the log was
 * damaged, or could not be replayed; it is begun anew, and files may lack what was acknowledged.
 */
bool retain_recover(struct agent *agent, bool (*is_open)(void *arg, const struct sc_fid *fid),
		    void (*moved)(void *arg, const struct sc_fid *was, const struct sc_fid *now,
				  uint64_t synced),
		    void *arg);

/* service->resumed(): all sessions are attached. */
void retain_resumed(struct agent *agent);

/* True if changes are recorded. */
static inline bool retain_is_on(const struct agent *agent)
{
	return agent->retain;
}

/* True if changes of a file with this identity are. */
static inline bool retain_covers(const struct agent *agent, const struct sc_fid *fid)
{
	return agent->retain && fid->len;
}

/* Takes the stripes of up to three files; those that are NULL do not count, and if one is unknown (len 0) nothing is recorded.
 * May block. Not while the thread has entered already. */
void record_enter(struct agent *agent, struct record *r, const struct sc_fid *a,
		  const struct sc_fid *b, const struct sc_fid *d);

/*
 * Writes the record. c: the call that the change answers, or NULL: the agent's own doing, or a change of a call that is not all of
 * it. May block until there is room. 0, or -EIO: the disk takes nothing any more (then the change must not be made).
 */
int record_intent(struct record *r, struct call *c, const struct record_what *w);

/* For CREATE, CHMOD, CHOWN, UTIMENS, before record_end(): how it became. */
void record_became(struct record *r, const struct sc_fid *obj, uint32_t mode, uint32_t uid,
		   uint32_t gid);
void record_times(struct record *r, uint64_t atime, uint64_t mtime);

/* The change was made (res >= 0), or was not (-errno). */
void record_end(struct record *r, int64_t res);
void record_leave(struct record *r);

/* The longest data that one record may have. */
uint32_t record_data_max(const struct agent *agent);

/* What a call that pended (c->again) had done: of all its records the one of this kind, or of any (kind SC_LOG_PAD). False: none.
 * Any thread. */
bool retain_found(const struct agent *agent, const struct call *c, uint16_t kind,
		  struct retained *found);

/* True if a call that pended had been executed: its result is set. Not for OPEN, which has other things to do. In its poller. */
bool retain_settled(struct agent *agent, struct call *c);

/* Completions of calls with so many records of each phase have been published. In a poller. */
void retain_published(struct agent *agent, const uint32_t logged[2]);

/* Syncs the file system and empties the log of what was recorded before. 0 or -errno. Any thread that may block. */
int retain_sync(struct agent *agent);

/* The identity of a name in a directory, which is not followed; len 0: there is none, or not on the root's file system. */
void retain_identify(const struct agent *agent, int dir, const char *name, struct sc_fid *fid);

#endif
