/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * poller.h - threads that serve lanes.
 *
 * A poller owns channels; nobody else touches their lanes. One round: fetch what the lanes' tails announce, submit what
 * became ring requests (one system call for all), collect completions of the ring and of workers, publish. A round that
 * does nothing is followed by another one, until the poller has spun long enough; then it sleeps (channel.h tells how
 * both sides agree on that) on one epoll set: its own eventfd, the ring, and in loopback each channel's bell.
 *
 * How long to spin is learned: a sleep that turned out shorter than the longest spin allowed doubles the spin, one much
 * longer halves it, and work found while spinning keeps it. Where there is no CPU for others while a poller spins, the
 * spin is very short.
 */
#ifndef SC_AGENT_POLLER_H
#define SC_AGENT_POLLER_H

#include <stdbool.h>
#include <stdint.h>

#include "agent.h"
#include "transport.h"

struct io_uring_sqe;
struct work_queue;

/* Counters of one poller; written by it alone, read by main (relaxed). */
struct poller_stats {
	_Atomic uint64_t ops[SC_OP_MAX];
	_Atomic uint64_t errors[SC_OP_MAX];
	_Atomic uint64_t bytes_read;
	_Atomic uint64_t bytes_written;
	_Atomic uint64_t spun;
	_Atomic uint64_t slept;
	_Atomic uint64_t kicks;
};

/* Starts poller `index`. NULL after a log message. */
struct poller *poller_start(struct agent *agent, uint32_t index);
/* Ends the thread, which must have no channels any more or be quiesced, and frees it. */
void poller_stop(struct poller *p);

/*
 * Makes a channel for a session on this poller: it takes the mapping and the session's reference. Lanes are served from
 * now on. NULL: no memory (mapping and session remain the caller's). Main thread.
 */
struct channel *poller_attach(struct poller *p, struct session *s, const struct mapping *m,
			      const struct sc_layout *layout);
/*
 * Ends a channel: no fetching; waiting locks are cancelled; when the last call is finished and the session's files
 * without tickets are closed, channel_ended() tells. Main thread, once per channel.
 */
void poller_detach(struct channel *ch);
/* True once nothing of the channel is in use: the caller unmaps channel_mapping() and calls channel_free(). */
bool channel_ended(const struct channel *ch);
struct mapping *channel_mapping(struct channel *ch);
void channel_free(struct channel *ch);

struct session *channel_session(const struct channel *ch);
struct work_queue *channel_work_queue(struct channel *ch);
const struct sc_layout *channel_layout(const struct channel *ch);
/* Copies n bytes out of the arena, once: what was copied and checked is what is used, though a process changes the original
 * meanwhile. The caller has checked the range. */
void channel_read(const struct channel *ch, uint32_t off, void *to, size_t n);
/* Address of arena offset `off`; the caller has checked the range. */
void *channel_at(const struct channel *ch, uint32_t off);

/* Gives a call back to its poller. Any thread; the call is the poller's from then on. */
void poller_return(struct call *c, enum call_state state);

/*
 * For operations, in their poller's thread: a request for the ring, filled by the caller; its completion becomes c->res
 * and is passed to storage_ring_done(). NULL: no ring, or too much in it: have a worker do it.
 */
struct io_uring_sqe *poller_sqe(struct poller *p, struct call *c);
/*
 * Executes the call by service->work in the poller's own thread although that may block (relay.h). True: done, the result is
 * there. False: not now, let a worker do it. If it was slow, this does not return: the call has come back like a worker's, and
 * another thread is the poller. So nothing may wait on the stack or be half done when this is called.
 */
bool poller_run_here(struct poller *p, struct call *c);
/* Whether it would; nothing can change that meanwhile but a slow call. */
bool poller_may_run_here(struct poller *p);
/* The ring's number for the session's credentials, 0: the agent's own. */
uint16_t poller_personality(struct poller *p, const struct cred *cred);
/* The thread's that is the poller now. */
struct actor *poller_actor(struct poller *p);
/* Changes of files under way, by the gate's phase (objects.h): two words, written by whoever is the poller now. */
_Atomic uint32_t *poller_changing(struct poller *p);
/* True if the call that is looked at is the only one that this poller has. */
bool poller_is_alone(const struct poller *p);
/* Requests seen in the present round so far: a lone one is worth a direct system call, several share one. */
uint32_t poller_round(const struct poller *p);

/* For services, in the poller: wakes it when fd is readable; rings the process of a channel; whose poller it is. */
bool poller_watch(struct poller *p, int fd);
void poller_kick(struct poller *p, struct channel *ch);
/* The channel of the session with this id that is attached here and does not end, or NULL. In the poller. */
struct channel *poller_channel(const struct poller *p, uint32_t session);
struct agent *poller_agent(struct poller *p);

/* For the lock manager, with its lock held: so many calls of the poller more (or less) wait for locks. Any thread. */
void poller_note_waiting(struct poller *p, int change);

/* True if nothing is in execution but calls that wait for locks. For QUIESCE. */
bool poller_is_quiet(const struct poller *p);
void poller_wake(struct poller *p);
int poller_event(const struct poller *p); /* its eventfd, for doorbells */
/* Counts bytes that a call moved. In the poller. */
void poller_moved(struct poller *p, uint64_t read, uint64_t written);
uint32_t poller_channels(const struct poller *p); /* main's count, for spreading */
const struct poller_stats *poller_stats(const struct poller *p);
uint64_t poller_cpu_ns(const struct poller *p);

#endif
