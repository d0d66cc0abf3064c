/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * locks.h - flock, POSIX record locks and open-file-description locks between the callers of a domain.
 *
 * The kernel's own locks would belong to the agent's threads and descriptors, not to the callers. So the agent keeps
 * them itself, by file (device and inode number):
 *
 *   flock        owner: the handle. Whole file, shared or exclusive; upgrade drops the old lock first, as Linux does
 *   POSIX        owner: the host process. Byte ranges; split and merge; deadlock between processes is found (EDEADLK)
 *   OFD          owner: the handle. Byte ranges, in one space with POSIX locks
 *
 * flock and record locks do not see each other. When something is released, the waiters of that file look again in the
 * order of their coming, and each that can have its lock now takes it.
 *
 * A lock may still be held for an owner that is gone already, when the closing of its last descriptor has not been
 * reported yet. So before a conflict is told to a caller that does not wait, main asks the broker (SC_MSG_SYNC), and the
 * request is tried once more after the answer, or after AGENT_SYNC_TIMEOUT_NS.
 *
 * Everything is behind one lock of its own: locks are rare beside reads and writes, and operations on them short.
 */
#ifndef SC_AGENT_LOCKS_H
#define SC_AGENT_LOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "agent.h"

struct locks *locks_new(struct agent *agent);
void locks_free(struct locks *l);

/* For recovery, before anything is served: from now on locks are kept (keep.h). False: there is no room for any. */
bool locks_kept(struct locks *l);
/* For recovery: a lock that was held, in its entry, through h. False: no memory. */
bool locks_restore(struct locks *l, struct handle *h, const struct sc_kept_lock *kept,
		   uint32_t entry);

/* SC_OP_FLOCK and SC_OP_LOCK. STEP_DONE with c->res set, or STEP_AWAY: c comes back by poller_return(), CALL_DONE. */
enum step locks_flock(struct locks *l, struct call *c);
enum step locks_record(struct locks *l, struct call *c);

/* SC_OP_UNLOCK_ALL: the process's POSIX locks on the handle's file go. */
void locks_unlock_all(struct locks *l, const struct handle *h, uint32_t process);
/* A handle is closed: its flock and OFD locks go, and POSIX locks that were set through it; who waits through it gets
 * -EBADF. */
void locks_handle_closed(struct locks *l, const struct handle *h);
/* A process is gone. */
void locks_process_gone(struct locks *l, uint32_t process);

/* SC_OP_CANCEL. 0, or -ENOENT: no such call waits. */
int locks_cancel(struct locks *l, const struct channel *ch, uint32_t lane, uint32_t tag);
/* All waiters of a session get -EINTR. */
void locks_cancel_session(struct locks *l, uint32_t session);

/* Main: true if a SYNC is to be sent, and its seq is *seq. */
bool locks_sync_wanted(struct locks *l, uint32_t seq);
/* Main: the broker's SYNCED with this seq came: retry those who waited for it. */
void locks_synced(struct locks *l, uint32_t seq);
/* Main: gives those up who waited too long. Returns nanoseconds until the next one is due, or -1. */
int64_t locks_expire(struct locks *l, int64_t now);

#endif
