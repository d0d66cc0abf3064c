/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lane.c - requests: publishing them on a lane, waiting for their completions, and who uses which lane.
 *
 * Theory of operation
 *
 * A thread owns a lane from its first remote call until it exits, so the call path takes no lock: it writes a slot,
 * stores the tail, and spins on the done index. The first few lanes of a channel are set aside as shared: threads that
 * find no lane of their own left take one of those for the length of a call, under its mutex.
 *
 * Waiting. First the thread spins, for as long as has proved useful for that class of operations (spin_learn()), at most
 * spin_max; with one CPU it never spins: the agent could not run meanwhile. Then it sets host_asleep, looks once more, and sleeps. All
 * sleepers of a process share one eventfd. One of them, the leader, polls it (and the broker's socket); when it rings, the
 * leader wakes by futex those whose lanes have moved. The others sleep on a futex word of their lane. A leader whose own
 * completion has come passes the leadership to another sleeper. All sleeps end after a while whatever happens.
 *
 * Deadline. A domain may be gone for a while: its next incarnation finds our request in its slot, and completes it (channel.h).
 * A call is given up (-EIO) when the agent has shown no sign of life (heartbeat, while we waited) and no
 * completion for deadline_ms; with 0, as soon as the incarnation is over that it was waiting for. Its lane is dead then, since
 * the call may still complete and write to the lane's buffer. A dead lane is taken into use again when all that was published on
 * it has been completed.
 *
 * The agent's side of a lane is hostile. A done index that runs ahead of what was published kills the lane. A completion
 * with an unknown tag is dropped. If all is completed but our request is not among it, it never will be: EIO.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "chan-priv.h"
#include "net.h"
#include "process.h"

#define SLEEP_MS 250u /* longest single sleep */
#define SPIN_LOST \
	8u /* a wait of more than so many times the longest spin was not worth spinning for */
#define SPIN_MISSES    4u /* so many waits in a row may spin in vain without consequence */
#define SPIN_REST_LOG2 8u /* at most 2^this waits in a row do not even try */

uint64_t sc_now_ms(void)
{
	struct timespec ts;

	sc_sys2(__NR_clock_gettime, CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint64_t ticks(void)
{
	return __builtin_ia32_rdtsc();
}

/* ---- completions ---- */

/* Takes one completion from the ring. */
static void take_cqe(struct sc_hlane *l, const struct sc_cqe *shared)
{
	const volatile struct sc_cqe *v = shared;
	uint32_t tag = v->tag, flags = v->flags;
	int64_t res = v->res;

	for (uint32_t i = 0; i < l->depth && i < SC_SYNC_DEPTH; i++) {
		if (!(l->pending >> i & 1) || l->tags[i] != tag)
			continue;
		l->pending &= ~(1u << i);
		l->ready |= 1u << i;
		sc_slot_taken(l, tag);
		l->res[i] = res;
		l->flags[i] = flags;
		return;
	}
}

/* Takes what has been completed. Returns false if the agent's index is impossible. */
static bool harvest(struct sc_hlane *l)
{
	/* acquire: pairs with the agent's release store; completions and data before it are visible */
	uint32_t done = __atomic_load_n(&l->sh->done, __ATOMIC_ACQUIRE);

	if (done - l->done > l->tail - l->done) {
		l->dead = 1;
		return false;
	}
	while (l->done != done) {
		take_cqe(l, &l->cqes[l->done & (l->depth - 1)]);
		/* relaxed: a leader looks at it, too (lane_moved()) */
		__atomic_store_n(&l->done, l->done + 1, __ATOMIC_RELAXED);
	}
	return true;
}

/* ---- sleeping ---- */

static void wake_lane(struct sc_hlane *l)
{
	__atomic_fetch_add(&l->wake, 1, __ATOMIC_RELEASE);
	sc_sys3(__NR_futex, &l->wake, FUTEX_WAKE_PRIVATE, 1);
}

static bool lane_moved(const struct sc_hlane *l)
{
	return __atomic_load_n(&l->sh->done, __ATOMIC_ACQUIRE) !=
	       __atomic_load_n(&l->done, __ATOMIC_RELAXED);
}

/* As leader: wakes the sleepers whose lanes moved; with `pass`, one more that becomes leader. */
static void wake_sleepers(struct sc_chan *c, const struct sc_hlane *me, bool pass)
{
	for (uint32_t i = 0; i < c->lay.nlanes; i++) {
		struct sc_hlane *l = &c->lanes[i];

		if (l == me || !__atomic_load_n(&l->waiting, __ATOMIC_ACQUIRE))
			continue;
		if (!lane_moved(l)) {
			if (!pass)
				continue;
			pass = false;
		}
		wake_lane(l);
	}
}

/* Who led has what it waited for: somebody else is to lead, if anybody sleeps. */
static void pass_lead(struct sc_chan *c, const struct sc_hlane *me)
{
	wake_sleepers(c, me, true);
	if (__atomic_load_n(&c->net, __ATOMIC_ACQUIRE))
		sc_net_pass(c);
}

/* sc_raw_syscall, or its interruptible variant. */
typedef long sleep_fn(long nr, long a0, long a1, long a2, long a3, long a4, long a5);

/* Polls for all sleepers until our lane moves or the time is over (one poll; the caller loops). */
static void lead(struct sc_hlane *l, uint32_t timeout_ms, sleep_fn *sleep)
{
	struct sc_chan *c = l->chan;
	struct timespec ts = {.tv_sec = timeout_ms / 1000,
			      .tv_nsec = (timeout_ms % 1000) * 1000000l};
	struct pollfd p[2] = {{.fd = c->kick, .events = POLLIN},
			      {.fd = c->orphan ? -1 : c->sock, .events = POLLIN}};
	uint64_t count;

	sleep(__NR_ppoll, (long)p, 2, (long)&ts, 0, 8, 0);
	if (p[0].revents & POLLIN)
		sc_sys3(__NR_read, c->kick, &count, sizeof(count));
	if (p[1].revents)
		sc_chan_events(c);
	wake_sleepers(c, l, false);
	if (__atomic_load_n(&c->net, __ATOMIC_ACQUIRE))
		sc_net_kicked(c);
}

void sc_lane_wake(struct sc_chan *c)
{
	wake_sleepers(c, NULL, false);
}

void sc_lane_pass(struct sc_chan *c)
{
	wake_sleepers(c, NULL, true);
}

bool sc_lane_sleep(struct sc_hlane *l, uint32_t seen, uint32_t timeout_ms, uint32_t wait_flags)
{
	struct sc_chan *c = l->chan;
	struct timespec ts = {.tv_sec = timeout_ms / 1000,
			      .tv_nsec = (timeout_ms % 1000) * 1000000l};
	sleep_fn *sleep =
	    wait_flags & SC_WAIT_INTERRUPTIBLE ? sc_raw_syscall_interruptible : sc_raw_syscall;
	uint32_t word, no_leader = 0;

	__atomic_store_n(&l->waiting, 1, __ATOMIC_SEQ_CST);
	/* seq_cst store and fence: the agent stores done, fences, then loads host_asleep */
	__atomic_store_n(&l->sh->host_asleep, 1, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	word = __atomic_load_n(&l->wake, __ATOMIC_ACQUIRE);
	if (__atomic_load_n(&l->sh->done, __ATOMIC_ACQUIRE) != seen)
		goto out;
	if (__atomic_compare_exchange_n(&c->leader, &no_leader, 1, false, __ATOMIC_ACQ_REL,
					__ATOMIC_RELAXED)) {
		lead(l, timeout_ms, sleep);
		__atomic_store_n(&c->leader, 0, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&l->sh->done, __ATOMIC_ACQUIRE) != seen)
			pass_lead(c, l);
	} else {
		sleep(__NR_futex, (long)&l->wake, FUTEX_WAIT_PRIVATE, word, (long)&ts, 0, 0);
	}
out:
	__atomic_store_n(&l->sh->host_asleep, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&l->waiting, 0, __ATOMIC_RELEASE);
	return __atomic_load_n(&l->sh->done, __ATOMIC_ACQUIRE) != seen;
}

/* ---- spinning ---- */

static enum sc_spin_class spin_class(const struct sc_slot *s)
{
	switch (s->op) {
	case SC_OP_NOP:
	case SC_OP_SEEK:
	case SC_OP_STAT:
	case SC_OP_ACCESS:
	case SC_OP_READLINK:
	case SC_OP_GRANT:
	case SC_OP_GETFL:
	case SC_OP_SETFL:
	case SC_OP_GETPATH:
		return SC_SPIN_QUICK;
	case SC_OP_READ:
	case SC_OP_WRITE:
		return s->len <= 16384 ? SC_SPIN_QUICK : SC_SPIN_DATA;
	case SC_OP_SYNC:
	case SC_OP_SYNCALL:
	case SC_OP_FLOCK:
	case SC_OP_LOCK:
	case SC_OP_MAP:
	case SC_OP_MSYNC:
		return SC_SPIN_SLOW;
	default:
		return SC_SPIN_META;
	}
}

/*
 * How long to spin is learned as the kernel's halt polling does: a wait that had to sleep although it was short says that
 * more spinning would have caught it; one that was long, that spinning was a waste.
 *
 * That rule has a trap: if the agent runs on our CPU, it answers soon, but only once we sleep. So when several waits in a row
 * spun in vain, the next ones do not spin, the more of them the longer that goes on. A look that finds the answer ends it.
 */
static void spin_learn(struct sc_spin *s, uint64_t took, uint32_t spun, uint32_t max)
{
	uint32_t limit = __atomic_load_n(&s->limit, __ATOMIC_RELAXED), misses;

	if (!spun && limit)
		return; /* it did not try */
	if (took > (uint64_t)SPIN_LOST * max)
		limit /= 2;
	else
		limit = limit < max / 8 ? max / 8 : 2 * limit < max ? 2 * limit : max;
	__atomic_store_n(&s->limit, limit, __ATOMIC_RELAXED);
	misses = __atomic_load_n(&s->misses, __ATOMIC_RELAXED) + 1;
	if (misses > SPIN_MISSES + SPIN_REST_LOG2)
		misses = SPIN_MISSES + SPIN_REST_LOG2;
	__atomic_store_n(&s->misses, misses, __ATOMIC_RELAXED);
	if (misses > SPIN_MISSES)
		__atomic_store_n(&s->rest, 1u << (misses - SPIN_MISSES), __ATOMIC_RELAXED);
}

/* How long the wait that begins now may spin; 0: it takes a short look only. */
static uint32_t spin_limit(struct sc_spin *s)
{
	uint32_t rest = __atomic_load_n(&s->rest, __ATOMIC_RELAXED);

	if (!rest)
		return __atomic_load_n(&s->limit, __ATOMIC_RELAXED);
	__atomic_store_n(&s->rest, rest - 1, __ATOMIC_RELAXED);
	return 0;
}

/* Spinning found the answer. */
static void spin_found(struct sc_spin *s)
{
	if (!__atomic_load_n(&s->misses, __ATOMIC_RELAXED))
		return; /* the usual case stores nothing: other threads read this line */
	__atomic_store_n(&s->misses, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&s->rest, 0, __ATOMIC_RELAXED);
}

bool sc_lane_spin(const struct sc_hlane *l, uint32_t seen, uint64_t start, uint32_t limit)
{
	do {
		for (int i = 0; i < 16; i++) {
			if (__atomic_load_n(&l->sh->done, __ATOMIC_ACQUIRE) != seen)
				return true;
			__builtin_ia32_pause();
		}
	} while (ticks() - start < limit);
	return false;
}

/* ---- requests ---- */

void sc_lane_publish(struct sc_hlane *l)
{
	struct sc_chan *c = l->chan;
	uint64_t one = 1;

	/* release: slots and data are visible before the tail */
	__atomic_store_n(&l->sh->tail, l->tail, __ATOMIC_RELEASE);
	/* full fence: the agent stores asleep, fences, then loads the tails */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&c->guest->asleep, __ATOMIC_RELAXED))
		sc_sys3(__NR_write, c->call, &one, sizeof(one));
}

/* Stores to the thread's own memory only. */
static void count_request(struct sc_serve_thread *s, const struct sc_hlane *l, uint32_t op)
{
	s->counts.remote[op % SC_OP_MAX]++;
	s->counts.at[l->chan->dom->index]++;
	s->last_dom = l->chan->dom->index;
	s->last_lane = l->index;
}

int sc_lane_submit(struct sc_thread *t, struct sc_hlane *l, struct sc_slot *s)
{
	uint32_t i = l->tail & (l->depth - 1), freed = l->ready & l->forget;

	l->ready &= ~freed;
	l->forget &= ~freed;
	if (l->dead || (l->pending >> i & 1) || (l->ready >> i & 1))
		return -EIO;
	l->tags[i] = l->tail;
	l->pending |= 1u << i;
	sc_slot_put(&l->slots[i], s, l->tags[i]);
	l->tail++;
	count_request(t->serve, l, s->op);
	sc_lane_publish(l);
	return (int)i;
}

static void cancel(struct sc_thread *t, struct sc_hlane *l, int index)
{
	struct sc_slot s = {.op = SC_OP_CANCEL, .arg0 = l->index, .arg1 = l->tags[index]};
	int i = sc_lane_submit(t, l, &s);

	/* Its own completion is of no interest; marked so that the slot frees itself. */
	if (i >= 0)
		l->forget |= 1u << i;
}

bool sc_past_deadline(const struct sc_chan *c, struct sc_life *life)
{
	uint64_t now = sc_now_ms(), beat = __atomic_load_n(&c->guest->heartbeat, __ATOMIC_RELAXED);
	uint32_t inc = __atomic_load_n(&c->host->incarnation, __ATOMIC_ACQUIRE);

	if (!life->ms)
		life->incarnation = inc;
	if (!c->deadline_ms && (!inc || inc != life->incarnation))
		return true;
	if (!life->ms || (inc && beat != life->beat)) {
		life->ms = now;
		life->beat = beat;
		return false;
	}
	return now - life->ms >= (c->deadline_ms ? c->deadline_ms : c->silence_ms);
}

/* Sleeps until request `index` completes. 0, or -EIO. */
static long sleep_for(struct sc_thread *t, struct sc_hlane *l, int index, uint32_t wait_flags)
{
	struct sc_life life = {0};
	bool cancelled = false;

	((struct sc_serve_thread *)t->serve)->counts.sleeps++;
	while (!(l->ready >> index & 1)) {
		if (l->done == l->tail && !lane_moved(l)) {
			l->dead = 1; /* all is completed, ours was not among it */
			return -EIO;
		}
		sc_lane_sleep(l, l->done, SLEEP_MS, cancelled ? 0 : wait_flags);
		if (!harvest(l))
			return -EIO;
		if (l->ready >> index & 1)
			return 0;
		if ((wait_flags & SC_WAIT_INTERRUPTIBLE) && !cancelled && sc_signal_waits(t)) {
			cancel(t, l, index);
			cancelled = true;
		}
		if (sc_past_deadline(l->chan, &life)) {
			l->dead = 1;
			sc_dom_lost(l->chan);
			return -EIO;
		}
	}
	return 0;
}

static long fetch(struct sc_hlane *l, int index, uint32_t *cqe_flags)
{
	l->ready &= ~(1u << index);
	if (cqe_flags)
		*cqe_flags = l->flags[index];
	/* results outside of what the kernel could return are none */
	if (l->res[index] < -4095)
		return -EIO;
	return (long)l->res[index];
}

static long wait_class(struct sc_thread *t, struct sc_hlane *l, int index, uint32_t *cqe_flags,
		       uint32_t wait_flags, enum sc_spin_class class)
{
	struct sc_chan *c = l->chan;
	struct sc_spin *learned = &c->spin[class];
	uint64_t start = ticks();
	uint32_t limit = spin_limit(learned);
	long err;

	while (!(l->ready >> index & 1)) {
		if (!sc_lane_spin(l, l->done, start, limit)) {
			err = sleep_for(t, l, index, wait_flags);
			if (err)
				return err;
			spin_learn(learned, ticks() - start, limit, c->spin_max);
			return fetch(l, index, cqe_flags);
		}
		if (!harvest(l))
			return -EIO;
	}
	((struct sc_serve_thread *)t->serve)->counts.spins++;
	spin_found(learned);
	return fetch(l, index, cqe_flags);
}

long sc_lane_wait(struct sc_thread *t, struct sc_hlane *l, int index, uint32_t *cqe_flags,
		  uint32_t wait_flags)
{
	return wait_class(t, l, index, cqe_flags, wait_flags, SC_SPIN_DATA);
}

long sc_lane_call(struct sc_thread *t, struct sc_hlane *l, struct sc_slot *s, uint32_t *cqe_flags,
		  uint32_t wait_flags)
{
	int i = sc_lane_submit(t, l, s);
	long res;

	if (i < 0)
		return -EIO;
	res = wait_class(t, l, i, cqe_flags, wait_flags, spin_class(s));
	if (res == -EINTR && (wait_flags & SC_WAIT_INTERRUPTIBLE))
		return -SC_ERESTART;
	return res;
}

/* ---- who uses which lane ---- */

/* Makes the lane known to the agent (or no longer). */
static void lane_announce(struct sc_hlane *l, bool use)
{
	struct sc_channel_host *h = l->chan->host;
	uint64_t bit = 1ull << (l->index % 64);

	/* release: depth_log2 is visible before the bit, the bit before the generation */
	if (use)
		__atomic_fetch_or(&h->lanes[l->index / 64], bit, __ATOMIC_RELEASE);
	else
		__atomic_fetch_and(&h->lanes[l->index / 64], ~bit, __ATOMIC_RELEASE);
	__atomic_fetch_add(&h->lanes_gen, 1, __ATOMIC_RELEASE);
}

/*
 * Brings a lane to life: the first time, after its release, or after its death if nothing is under way any more. Its depth
 * is fixed by the first use, because the agent may not have noticed that it was given back meanwhile.
 */
static bool lane_open(struct sc_hlane *l, uint32_t depth_log2)
{
	uint32_t done = __atomic_load_n(&l->sh->done, __ATOMIC_ACQUIRE);

	if (l->dead && done != l->tail)
		return false;
	if (l->depth && l->depth != 1u << depth_log2)
		return false;
	l->dead = 0;
	__atomic_store_n(&l->done, l->tail, __ATOMIC_RELAXED);
	l->pending = 0;
	l->ready = 0;
	l->forget = 0;
	l->depth = 1u << depth_log2;
	__atomic_store_n(&l->sh->depth_log2, depth_log2, __ATOMIC_RELAXED);
	lane_announce(l, true);
	return true;
}

static struct sc_hlane *lane_alloc(struct sc_chan *c, uint32_t depth_log2)
{
	for (uint32_t i = c->nshared; i < c->lay.nlanes; i++) {
		uint64_t bit = 1ull << (i % 64);

		if (__atomic_load_n(&c->lane_used[i / 64], __ATOMIC_RELAXED) & bit)
			continue;
		if (__atomic_fetch_or(&c->lane_used[i / 64], bit, __ATOMIC_ACQUIRE) & bit)
			continue;
		if (lane_open(&c->lanes[i], depth_log2))
			return &c->lanes[i];
		__atomic_fetch_and(&c->lane_used[i / 64], ~bit, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void lane_free(struct sc_hlane *l)
{
	struct sc_chan *c = l->chan;

	if (!l->dead)
		lane_announce(l, false);
	__atomic_fetch_and(&c->lane_used[l->index / 64], ~(1ull << (l->index % 64)),
			   __ATOMIC_RELEASE);
	sc_chan_release(c);
}

/* The channel with one more user, attached if need be. */
static long chan_take(struct sc_thread *t, struct sc_dom *d, struct sc_chan **out)
{
	long err;

	for (int tries = 0; tries < 8; tries++) {
		sc_mutex_lock(&d->lock);
		*out = sc_chan_of(t, d);
		if (*out)
			(*out)->users++;
		sc_mutex_unlock(&d->lock);
		if (*out)
			return 0;
		err = sc_dom_attach(t, d);
		if (err)
			return err;
	}
	return -EIO;
}

/* Takes a shared lane for one call. */
static long lane_borrow(struct sc_thread *t, struct sc_chan *c, struct sc_hlane **out)
{
	for (uint32_t i = 0; i < c->nshared; i++) {
		struct sc_hlane *l = &c->lanes[(t->tid + i) % c->nshared];

		sc_mutex_lock(&l->busy);
		if ((l->depth && !l->dead) || lane_open(l, SC_SYNC_DEPTH_LOG2)) {
			*out = l;
			return 0;
		}
		sc_mutex_unlock(&l->busy);
	}
	return -EIO;
}

static long lane_get_slow(struct sc_thread *t, struct sc_dom *d, struct sc_serve_thread *s,
			  struct sc_hlane **out)
{
	struct sc_chan *c;
	struct sc_hlane *l = s->dom[d->index].lane;
	long err;

	if (l) {
		s->dom[d->index].lane = NULL;
		lane_free(l);
	}
	err = chan_take(t, d, &c);
	if (err)
		return err;
	l = lane_alloc(c, SC_SYNC_DEPTH_LOG2);
	if (l) {
		s->dom[d->index].lane = l;
		*out = l;
		return 0;
	}
	err = lane_borrow(t, c, out);
	if (err)
		sc_chan_release(c);
	return err;
}

long sc_lane_get(struct sc_thread *t, struct sc_dom *d, struct sc_hlane **out)
{
	struct sc_serve_thread *s = sc_serve_of(t);
	struct sc_hlane *l;

	if (!s)
		return -ENOMEM;
	l = s->dom[d->index].lane;
	if (l && l->chan == sc_chan_of(t, d) && !l->dead) {
		*out = l;
		return 0;
	}
	return lane_get_slow(t, d, s, out);
}

void sc_lane_put(struct sc_thread *t, struct sc_hlane *l)
{
	struct sc_chan *c = l->chan;

	(void)t;
	if (!l->shared)
		return;
	sc_mutex_unlock(&l->busy);
	sc_chan_release(c);
}

void sc_lane_drop(struct sc_thread *t, struct sc_dom *d)
{
	struct sc_serve_thread *s = t->serve;
	struct sc_hlane *l = s ? s->dom[d->index].lane : NULL;

	if (!l)
		return;
	s->dom[d->index].lane = NULL;
	lane_free(l);
}

long sc_hlane_acquire(struct sc_thread *t, struct sc_dom *d, uint32_t depth_log2,
		      struct sc_hlane **out)
{
	struct sc_chan *c;
	long err = chan_take(t, d, &c);

	if (err)
		return err;
	while ((1u << depth_log2) > c->lay.entries)
		depth_log2--;
	*out = lane_alloc(c, depth_log2);
	if (*out)
		return 0;
	sc_chan_release(c);
	return -EAGAIN;
}

void sc_hlane_release(struct sc_hlane *l)
{
	lane_free(l);
}
