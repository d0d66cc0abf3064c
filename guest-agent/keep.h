/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * keep.h - what is open outlives the agent (storage): the tables of SC_OWN_STATE, written as things happen, and read once, by
 * the next incarnation.
 *
 * An open file is kept under the index of its handle: entry i of SC_TABLE_HANDLES is that of handle i, so that the name by
 * which its callers know it stays right. It is written before its caller learns the name, and cleared before its caller learns that
 * it is closed. The file itself is found again by its identity (name_to_handle_at(2), open_by_handle_at(2)), whatever its name
 * is then; what lies on another file system than the root's, or where the agent lacks CAP_DAC_READ_SEARCH, is not kept.
 *
 * Sessions are not kept: the broker attaches those that are alive. Until then their handles belong to sessions without
 * channel (session_expect()); when all are attached (SC_MSG_RESUMED), those that are left have ended.
 *
 * Calls that pended when the last agent died are executed again (poller.c finds them), but for those that had been executed already
 * and were not answered: keep_settled() knows opens (by `born`) and operations at the position (by `by`), retain.h all other
 * changes.
 *
 * Locks that are held are kept likewise; one that is waited for is just a call that pends.
 *
 * The position of a regular file is the agent's (handle.pos), not its kernel's descriptor's: an operation at the position names
 * the place, and moves the position when it has its result (keep_moved()), before its completion is published. Only then may the
 * next one have the position; so no more than one executed operation of a handle can be unanswered. Directories have the
 * kernel's position, a copy of which is kept.
 */
#ifndef SC_AGENT_KEEP_H
#define SC_AGENT_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "agent.h"

/* Makes agent->keep, which keeps nothing yet. False: no memory. */
bool keep_init(struct agent *agent);

/* service->recover: finds the tables, opens again what was open. False after a log message: cannot serve. */
bool keep_recover(struct agent *agent);

/* service->resumed: those who have not come are gone. Main thread. */
void keep_resumed(struct agent *agent);

/* The identity of an open file; len 0: it cannot be kept. Any thread. */
void keep_identify(const struct agent *agent, int fd, struct sc_fid *fid);
/* The same for a name in a directory, which is not followed. */
void keep_identify_at(const struct agent *agent, int dir, const char *name, struct sc_fid *fid);
/* Opens a file by its identity, with rights of the agent's own. A descriptor or -errno; -ESTALE: it is no more. */
int keep_open_fid(const struct agent *agent, const struct sc_fid *fid, int flags);

/* c has opened h, whose name will be `name`; nobody else knows it yet. h->fid is set by this. */
void keep_opened(struct agent *agent, const struct call *c, struct handle *h, uint64_t name);
/* h is closed: nobody finds it any more. Before its caller is told. */
void keep_closed(struct agent *agent, struct handle *h);
/* h has these status flags now. */
void keep_status(struct handle *h, uint32_t status);
/* Session `id` may use the handle `name`: the number of the entry + 1; 0: there is no room, or nothing is kept. */
uint32_t keep_granted(struct agent *agent, uint64_t name, uint32_t id);
/* Takes back what keep_granted() returned. */
void keep_ungranted(struct agent *agent, uint32_t entry);

/*
 * Room for a lock: the number of an entry + 1; 0: there is none, or nothing is kept (keep_is_on()). keep_lock() fills it with *lock
 * (all but state and check), keep_unlock() takes the lock back but not the room, keep_lock_free() both. Under the lock manager's lock.
 */
uint32_t keep_lock_room(struct agent *agent);
void keep_lock(struct agent *agent, uint32_t entry, const struct sc_kept_lock *lock);
void keep_unlock(struct agent *agent, uint32_t entry);
void keep_lock_free(struct agent *agent, uint32_t entry);

/* True if what is opened is kept. After recover(). */
bool keep_is_on(const struct agent *agent);

/*
 * A file object (objects.h) that is made and filled: *o says what it is (all but state and check). The number of its entry + 1; 0:
 * there is no room, or it is not kept. Its size and whether anybody may store change; keep_object_gone() takes it back.
 */
uint32_t keep_object(struct agent *agent, const struct sc_kept_object *o);
void keep_object_size(struct agent *agent, uint32_t entry, uint64_t size);
void keep_object_stored(struct agent *agent, uint32_t entry);
void keep_object_gone(struct agent *agent, uint32_t entry);

/* c, which holds the position of h, has its result `res`, and leaves the position at `pos`. In c's poller, before c is
 * answered. */
void keep_moved(struct handle *h, uint64_t pos, int64_t res, const struct call *c);

/* c pended when the last agent died. True if it was executed then: its result is set. c has its handles and positions.
 * In its poller. */
bool keep_settled(struct agent *agent, struct call *c);

/* True if what pended when this agent started cannot be known: it ends with -EIO. After recover(). */
bool keep_is_lost(const struct agent *agent);

/* The tables, for who has one of them but not the handles: numbers.h. After they were found. */
struct tables;
const struct tables *keep_tables(const struct agent *agent);

/* The identity of a call. */
struct sc_call_id call_id(const struct call *c);

#endif
