/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * chan-priv.h - the inside of a channel on the host's side; for chan*.c, path.c and the C API.
 */
#ifndef HOSTLIB_CHAN_PRIV_H
#define HOSTLIB_CHAN_PRIV_H

#include "chan.h"
#include "path.h"

#define SC_SPARE_MAX 128u /* spare tickets kept */

struct sc_spare {
	uint64_t ticket;
	int fd;
};

/* What the adaptive spin has learned of a class of operations. Relaxed, racy, only a hint. */
struct sc_spin {
	uint32_t limit;	 /* TSC ticks to spin before sleeping, 0..spin_max */
	uint32_t misses; /* waits in a row that spun in vain */
	uint32_t rest;	 /* waits to come that do not spin */
};

struct sc_netchan; /* net.h */

struct sc_chan {
	struct sc_dom *dom;
	uint32_t gen; /* unique in this memory image */
	uint32_t
	    users; /* lanes held, vfork children, and 1 while it is the domain's current; dom->lock */
	bool vfork_private; /* attached by a vfork child: its descriptors are not ours */
	bool orphan;	    /* the broker hung up */
	uint8_t *base;	    /* the mapping, lay.size bytes, hostile */
	struct sc_layout lay;
	struct sc_channel_host *host;
	const volatile struct sc_channel_guest *guest;
	int sock;
	int call;	   /* eventfd: rings the agent */
	int kick;	   /* eventfd: the agent rings us */
	uint32_t kick_gen; /* another one with each new kick; unique in this memory image; atomic */
	uint32_t session;
	uint32_t deadline_ms; /* so long may the domain be gone; 0: not at all */
	uint32_t silence_ms;  /* with 0: so long may it be silent */
	uint32_t seq;	      /* of messages on sock; dom->lock */
	uint32_t leader;      /* 1: a thread polls kick for all sleepers; atomic */
	uint32_t nshared;     /* lanes 0..nshared-1 are shared, the others owned by one thread */
	uint64_t lane_used[SC_MAX_LANES / 64]; /* atomic */
	uint64_t roots[SC_MAX_ROUTES];	       /* handles of route roots */
	uint32_t roots_incarnation;	       /* of the agent that made them; atomic */
	uint32_t roots_made;		       /* bit i: roots[i] is valid; atomic, release */
	struct sc_spare spare[SC_SPARE_MAX];   /* dom->lock */
	uint32_t nspare;
	struct sc_mutex pool_lock;
	uint32_t pool_blocks;
	uint32_t pool_wake; /* futex word, incremented when blocks come back and somebody waits */
	uint32_t pool_waiters; /* atomic */
	uint64_t pool_used[SC_POOL_BLOCKS / 64];
	struct sc_spin spin[SC_SPIN_CLASSES];
	uint32_t ticks_per_us;	/* TSC */
	uint32_t spin_max;	/* ticks */
	uint64_t map_bytes;	/* of this structure */
	struct sc_netchan *net; /* network domains: made with the first socket; atomic, release */
	struct sc_hlane lanes[];
};

/* This thread's channel of the domain: the current one, or a vfork child's own. NULL: none. */
struct sc_chan *sc_chan_of(struct sc_thread *t, struct sc_dom *d);

/* Exclusive lane for a C API ring of 2^depth_log2 slots; sc_hlane_release() gives it back. 0 or -errno. */
long sc_hlane_acquire(struct sc_thread *t, struct sc_dom *d, uint32_t depth_log2,
		      struct sc_hlane **out);
void sc_hlane_release(struct sc_hlane *l);

/*
 * Writes a request into its shared slot, with `tag`. The fields are read one by one as they were written: a word read across
 * two fields that were just stored has to wait until both, and every store before them, have reached the cache; among
 * these are the slots before this one, whose lines come from the agent's CPU.
 */
static inline void sc_slot_put(struct sc_slot *shared, const volatile struct sc_slot *s,
			       uint32_t tag)
{
	uint64_t __attribute__((may_alias)) *to = (uint64_t __attribute__((may_alias)) *)shared;

	to[0] = s->op | (uint64_t)s->flags << 16 | (uint64_t)tag << 32;
	to[1] = s->handle;
	to[2] = s->off;
	to[3] = s->buf | (uint64_t)s->len << 32;
	to[4] = s->buf2 | (uint64_t)s->len2 << 32;
	to[5] = s->arg0;
	to[6] = s->arg1;
	to[7] = s->arg2;
}

/* A completion with this tag, the next one of the lane, was taken (l->done does not count it yet): if it came before its turn
 * the slot is marked, so that a later incarnation does not take it for one that pends (channel.h). */
static inline void sc_slot_taken(const struct sc_hlane *l, uint32_t tag)
{
	if ((int32_t)(tag - l->done) > 0)
		__atomic_store_n(&l->slots[tag & (l->depth - 1)].op, SC_SLOT_TAKEN,
				 __ATOMIC_RELAXED);
}

/* What a wait knows of its domain's life; zero at its beginning. */
struct sc_life {
	uint64_t ms; /* when the agent last showed life, or the wait began */
	uint64_t beat;
	uint32_t incarnation; /* when the wait began */
};

/* True if the wait is to be given up. */
bool sc_past_deadline(const struct sc_chan *c, struct sc_life *life);

/* Publishes what was written up to l->tail: release store, then rings if the agent sleeps. */
void sc_lane_publish(struct sc_hlane *l);

/* Spins until the lane's done index differs from `seen`: a short look in any case, then until the TSC passes start + limit. */
bool sc_lane_spin(const struct sc_hlane *l, uint32_t seen, uint64_t start, uint32_t limit);

/* Sleeps until the lane's done index differs from `seen`, at most timeout_ms. Returns true if it does. */
bool sc_lane_sleep(struct sc_hlane *l, uint32_t seen, uint32_t timeout_ms, uint32_t wait_flags);

/* vfork: the child keeps the channel alive; in the parent, after the child, its own channel goes. */
void sc_chan_hold(struct sc_chan *c);
void sc_chan_release(struct sc_chan *c);

/* Wakes the sleepers whose lanes moved; for who has read the doorbell without waiting for a lane (net_wait.c). */
void sc_lane_wake(struct sc_chan *c);
/* A leader that waited for no lane sleeps no more: one of the sleepers is to lead. */
void sc_lane_pass(struct sc_chan *c);

/* Takes the broker's unasked messages off the socket. Any thread; does nothing if another one is at it. */
void sc_chan_events(struct sc_chan *c);
/* The same, but waits for who is at it. */
void sc_chan_events_now(struct sc_chan *c);

/* A call on this channel passed its deadline: gives the channel up if its broker is gone, so that the next call attaches
 * anew. */
void sc_dom_lost(struct sc_chan *c);

/* Gives back this thread's lane in the domain, if it has one. */
void sc_lane_drop(struct sc_thread *t, struct sc_dom *d);

/* Monotonic milliseconds. */
uint64_t sc_now_ms(void);

#endif
