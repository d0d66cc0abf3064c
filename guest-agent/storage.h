/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * storage.h - the storage service: what each operation of ops.h does.
 *
 * The poller calls storage_start() for each request. What cannot block is executed there and then; the rest becomes a
 * ring request or goes to a worker, which calls storage_work(). When a call is done, storage_finish() lets go of what it
 * held. The table of operations (storage.c) says for each of them which handles it takes, whether it uses the handle's
 * position, and the functions for poller and worker.
 */
#ifndef SC_AGENT_STORAGE_H
#define SC_AGENT_STORAGE_H

#include "agent.h"

/* Starts a call, or goes on with one that had to wait (position). In the poller. */
enum step storage_start(struct poller *p, struct call *c);
/* Executes a call to its end and sets c->res. In a worker. */
void storage_work(struct actor *a, struct call *c);
/* A ring request has completed with `res`. In the poller. STEP_DONE, or how the call goes on. */
enum step storage_ring_done(struct poller *p, struct call *c, int res);
/* Lets go of position and handles. In the poller, once per call, before its completion is published. */
/* A call that has a position has its result. In its poller, before the completion is published. */
void storage_moved(struct poller *p, struct call *c);
void storage_finish(struct poller *p, struct call *c);

/* Ends a session: closes its files that have no ticket, drops its waiting and held locks. In a worker. */
void storage_end_session(struct agent *agent, struct session *s);
/* These tickets have no holder left. Main thread. */
void storage_release(struct agent *agent, const uint64_t *tickets, uint32_t n);

/* Gives the calling thread a umask of its own, so that the kernel can apply callers' to what `a` creates. Where that is
 * refused, default ACLs of directories are combined with the umask, which they ought to replace. */
void actor_own_umask(struct actor *a);

#endif
