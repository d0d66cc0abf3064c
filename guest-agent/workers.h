/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * workers.h - the pool of threads that execute what may block.
 *
 * Each channel has a queue of its own, and workers serve the queues in turn, one call each: a channel that asks for much
 * makes itself wait, not the others. At most half of the workers (at least one) are busy for one channel, so that one
 * channel's slow calls leave workers for the others. The queues need no bound of their own: a channel has at most
 * AGENT_MAX_INFLIGHT calls.
 *
 * Jobs are the agent's own housekeeping (closing files, ending sessions); they come before calls.
 *
 * A worker that finds nothing to do spins a little before it sleeps, if there are CPUs to spare: waking a sleeper costs
 * its poller a system call.
 */
#ifndef SC_AGENT_WORKERS_H
#define SC_AGENT_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

struct agent;
struct call;
struct workers;

struct job {
	struct job *next;
	void (*run)(struct agent *agent,
		    struct job *job); /* in a worker, with the agent's own credentials */
};

/* A channel's part in the pool. Zeroed at start; guarded by the pool's lock. */
struct work_queue {
	struct work_queue *next; /* in the ring of queues that have something and may run */
	struct call *first, *last;
	uint32_t running; /* workers that are busy for it */
	bool listed;
};

/* Starts n threads. NULL after a log message. */
struct workers *workers_start(struct agent *agent, uint32_t n);

/* Hands a call over; it comes back to its poller by poller_return(). Any thread. */
void workers_push(struct workers *w, struct call *c);
void workers_push_job(struct workers *w, struct job *job);

/* Waits until the queues are empty, ends all threads, and frees the pool. */
void workers_stop(struct workers *w);

/* CPU time that all workers used so far, in nanoseconds. */
uint64_t workers_cpu_ns(struct workers *w);

#endif
