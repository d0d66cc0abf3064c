/* SPDX-License-Identifier: BSD-3-Clause */
/* poller.c - see poller.h. */
#include "poller.h"

#include "fault.h"
#include "log.h"
#include "relay.h"
#include "service.h"
#include "session.h"
#include "workers.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RING_ENTRIES  512
#define RING_CQ	      4096
#define RING_MAX      2048     /* requests in the ring: fewer than completions fit */
#define CALLS_CHUNK   256      /* calls allocated together */
#define BEAT_NS	      50000000 /* between heartbeats; the contract says 100 ms */
#define BEAT_ROUNDS   4096     /* busy rounds between looks at the clock */
#define IDLE_SLEEP_MS 1000
#define MIN_SPIN_NS   2000
#define CHANNEL_BUDGET \
	256 /* work that a channel may bring into one round; a NOP is 1, all others: */
#define CALL_COST     4
#define PUBLISH_EVERY 8 /* completions that may wait for each other within one lane's turn */
#define FETCH_AHEAD   8 /* slots whose lines are under way while one is looked at */

/* What the poller knows of a lane: nothing here is read back from shared memory. */
struct lane {
	struct sc_lane *shared;
	struct sc_slot *slots;
	struct sc_cqe *cqes;
	uint32_t head; /* fetched */
	uint32_t done; /* completed; published by publish_lanes() */
	uint32_t mask; /* depth - 1 */
	uint32_t life; /* counts activations */
	struct lane *dirty_next;
	uint16_t index;
	bool active; /* its bit is set, and its depth is right */
	bool broken; /* broke the rules: ignored until it is activated anew */
	bool dirty;  /* in the list of lanes with unpublished completions */
	bool seen;   /* was active before */
	/* Bit i: slot i pended when this agent started, and is to be begun again. No others are fetched before. */
	uint64_t again[SC_MAX_ENTRIES / 64];
	uint32_t nagain; /* of these */
};

struct channel {
	struct poller *poller;
	struct session *session;
	struct mapping map;
	struct sc_layout layout;
	struct sc_channel_host *host;	/* shared, read only */
	struct sc_channel_guest *guest; /* shared, written only */
	uint32_t lanes_gen;
	uint32_t nactive;
	uint32_t inflight;
	uint32_t nagain;   /* of all lanes */
	int32_t budget;	   /* what is left of this round's */
	uint32_t turn;	   /* index into active: who is first in the next round */
	uint32_t position; /* in the poller's table */
	bool reread;	   /* read the bitmap even if lanes_gen is the same */
	bool ending;
	bool complained; /* the log has its one line about this session */
	uint64_t kicked; /* number of the publication that rang last */
	_Atomic bool ended;
	struct work_queue work;
	struct job end_job;
	struct channel *mail_next; /* the mailbox's list; guarded by its lock, like the next two */
	bool mailed;		   /* in the list */
	bool mail_detach;
	bool adopted; /* in the poller's table */
	uint16_t active[SC_MAX_LANES];
	struct lane lanes[];
};

struct poller {
	struct relay relay; /* the threads */
	struct agent *agent;
	const struct service *service; /* agent's */
	uint32_t index;
	bool was_ready;
	struct channel *channels[VIRTIO_SC_MAX_CHANNELS];
	uint32_t nchannels;
	struct call *free_calls;
	struct call *back;    /* taken out of the inbox, not looked at yet */
	struct lane *dirty;   /* lanes of all channels with unpublished completions */
	uint64_t publication; /* counts publish_lanes() */
	uint32_t logged[2];   /* call.logged of what is finished and not published */
	struct io_uring ring;
	bool has_ring;
	uint32_t unsubmitted;
	uint32_t in_ring;
	uint32_t at_workers; /* calls that workers have, or have had and returned to the inbox */
	uint32_t inflight;
	uint32_t round;	       /* requests started in this round */
	uint16_t *personality; /* by cred index: number + 1; 0: not registered yet */
	int event_fd;
	int epoll_fd;
	int64_t spin_ns;
	int64_t max_spin_ns;
	int64_t last_beat;
	uint32_t rounds;
	bool was_quiet;
	_Atomic uint32_t changing[2]; /* of the role, not of the thread that has it */
	struct poller_stats stats;
	/* Written by others: lines of their own. */
	_Alignas(SC_LINE) _Atomic(struct call *) inbox; /* newest first */
	_Alignas(SC_LINE) _Atomic bool asleep;
	_Alignas(SC_LINE) _Atomic bool mail; /* mailbox is not empty */
	_Atomic bool stopping;
	_Atomic bool quiet;
	_Atomic uint32_t waiting;  /* calls in the lock manager's queues */
	_Atomic uint32_t assigned; /* channels, as main counts them */
	pthread_mutex_t mail_lock;
	struct channel *mailbox;
};

static inline void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- calls ---- */

static struct call *call_alloc(struct poller *p)
{
	struct call *c = p->free_calls;

	if (!c) {
		struct call *chunk =
		    calloc(CALLS_CHUNK, sizeof(*chunk)); /* kept until the poller ends */

		if (!chunk)
			return NULL;
		for (uint32_t i = 0; i < CALLS_CHUNK; i++) {
			chunk[i].next = p->free_calls;
			p->free_calls = &chunk[i];
		}
		c = p->free_calls;
	}
	p->free_calls = c->next;
	return c;
}

static void call_free(struct poller *p, struct call *c)
{
	c->next = p->free_calls;
	p->free_calls = c;
}

/* ---- lanes ---- */

static void complain(struct channel *ch, const char *what, uint32_t lane)
{
	if (ch->complained)
		return;
	ch->complained = true;
	log_warning("session %u (pid %u): lane %u %s; ignoring the lane", ch->session->id,
		    ch->session->pid, lane, what);
}

/* Writes a completion into the ring of the lane; publish_lanes() makes it visible. */
static inline void lane_complete(struct poller *p, struct lane *ln, uint32_t tag, uint32_t flags,
				 int64_t res)
{
	struct sc_cqe *cqe = &ln->cqes[ln->done & ln->mask];

	cqe->tag = tag;
	cqe->flags = flags;
	cqe->res = res;
	ln->done++;
	if (ln->dirty)
		return;
	ln->dirty = true;
	ln->dirty_next = p->dirty;
	p->dirty = ln;
}

/* Rings a channel in which a thread sleeps; once, however many of its lanes are in the list from `ln` on. */
static void kick_sleeper(struct poller *p, struct channel *ch)
{
	if (ch->kicked == p->publication)
		return;
	ch->kicked = p->publication;
	count(&p->stats.kicks, 1);
	p->agent->tr->ops->kick(p->agent->tr, &ch->map);
}

static inline struct channel *lane_channel(struct lane *ln)
{
	return (struct channel *)((char *)(ln - ln->index) - offsetof(struct channel, lanes));
}

/* All finished calls are published: says so of those that had records. */
static inline void note_published(struct poller *p)
{
	if (!(p->logged[0] | p->logged[1]))
		return;
	p->service->published(p->agent, p->logged);
	p->logged[0] = p->logged[1] = 0;
}

/* Makes completions visible, and wakes who sleeps for them. */
static void publish_lanes(struct poller *p)
{
	struct lane *first = p->dirty;

	if (!first) {
		note_published(p); /* of lanes that nobody looks at any more */
		return;
	}
	SC_FAULT_POINT("poller:publish");
	p->publication++;
	/* Release: who sees the index sees the completions and the data. */
	for (struct lane *ln = first; ln; ln = ln->dirty_next)
		__atomic_store_n(&ln->shared->done, ln->done, __ATOMIC_RELEASE);
	/* The stores above before the loads below; the host does the reverse: one of us sees the other. */
	full_fence();
	for (struct lane *ln = first; ln; ln = ln->dirty_next) {
		ln->dirty = false;
		if (__atomic_load_n(&ln->shared->host_asleep, __ATOMIC_RELAXED))
			kick_sleeper(p, lane_channel(ln));
	}
	p->dirty = NULL;
	note_published(p);
}

/* The end of a call: results to its lane, if that is still the lane that asked. */
static void call_finish(struct poller *p, struct call *c)
{
	struct channel *ch = c->ch;
	struct lane *ln = &ch->lanes[c->lane];

	bool pos = c->has_pos || c->has_pos2;

	if (pos && !c->settled)
		p->service->moved(p, c);
	p->logged[0] += c->logged[0];
	p->logged[1] += c->logged[1];
	if (ln->life == c->lane_life && !ln->broken)
		lane_complete(p, ln, c->s.tag, c->cqe_flags, c->res);
	if (pos)
		publish_lanes(p); /* before the next one has the position: keep.h */
	p->service->finish(p, c);
	count(&p->stats.ops[c->s.op % SC_OP_MAX], 1);
	if (c->res < 0)
		count(&p->stats.errors[c->s.op % SC_OP_MAX], 1);
	ch->inflight--;
	p->inflight--;
	call_free(p, c);
}

static void call_step(struct poller *p, struct call *c, enum step step)
{
	switch (step) {
	case STEP_DONE:
		call_finish(p, c);
		break;
	case STEP_WORK:
		c->at_worker = true;
		p->at_workers++;
		workers_push(p->agent->workers, c);
		break;
	case STEP_RING:
	case STEP_AWAY:
		break;
	}
}

/* A call for a request of the lane. NULL: no memory. */
static struct call *call_new(struct poller *p, struct channel *ch, const struct lane *ln,
			     const struct sc_slot *s)
{
	struct call *c = call_alloc(p);

	if (!c)
		return NULL;
	memset(c, 0, sizeof(*c));
	c->ch = ch;
	c->poller = p;
	c->s = *s;
	c->lane = ln->index;
	c->lane_life = ln->life;
	ch->inflight++;
	p->inflight++;
	p->round++;
	return c;
}

bool poller_may_run_here(struct poller *p)
{
	/* What the ring completes, it does in the thread that asked: that must not be stuck then. */
	return !p->in_ring && relay_may_enter(&p->relay);
}

bool poller_run_here(struct poller *p, struct call *c)
{
	struct runner *me = p->relay.now;
	uint32_t token;

	if (!poller_may_run_here(p))
		return false;
	/* Completions not yet published wait for a few short calls, or for the new runner's first round. */
	token = relay_enter(&p->relay);
	p->service->work(&me->actor, c);
	if (relay_leave(&p->relay, token))
		return true;
	poller_return(c, CALL_DONE);
	relay_stand_by(me);
}

/* Copies a request out of shared memory: the one time that it is read. */
static inline void slot_fetch(struct sc_slot *to, const struct sc_slot *from)
{
	memcpy(to, from, sizeof(*to));
	/* The compiler knows nothing of the copy from here on, so it cannot read the original in its place. */
	__asm__ volatile("" : "+m"(*to) : : "memory");
}

/* Fetches and begins what the lane announces. Returns how many requests that were. */
static inline uint32_t lane_serve(struct poller *p, struct channel *ch, struct lane *ln)
{
	/* Acquire: the slots before this index are written. */
	uint32_t tail = __atomic_load_n(&ln->shared->tail, __ATOMIC_ACQUIRE);
	uint32_t n = tail - ln->head, slow = 0, i, nops = 0;

	if (!n)
		return 0;
	if (ln->nagain)
		return 0; /* first things first: channel_again() */
	if (tail - ln->done > ln->mask + 1) {
		ln->broken = true;
		ch->reread = true;
		complain(ch, "announces more requests than it has room for", ln->index);
		return 0;
	}
	if (n > AGENT_LANE_BUDGET)
		n = AGENT_LANE_BUDGET;
	for (i = 1; i < n && i < FETCH_AHEAD; i++)
		__builtin_prefetch(&ln->slots[(ln->head + i) & ln->mask]);
	for (i = 0; i < n; i++) {
		struct sc_slot s;
		struct call *c;

		if (ch->inflight >= AGENT_MAX_INFLIGHT)
			break;
		slot_fetch(&s, &ln->slots[ln->head & ln->mask]);
		if (i + FETCH_AHEAD < n)
			__builtin_prefetch(&ln->slots[(ln->head + FETCH_AHEAD) & ln->mask]);
		if (s.op == SC_OP_NOP) {
			lane_complete(p, ln, s.tag, 0, (int64_t)s.arg0);
			/* The caller may begin to look; whether it sleeps is asked once, when the turn ends. */
			if (++nops % PUBLISH_EVERY == 0)
				__atomic_store_n(&ln->shared->done, ln->done, __ATOMIC_RELEASE);
			ln->head++;
			continue;
		}
		c = call_new(p, ch, ln, &s);
		if (!c)
			break;
		/* Before the call begins: if it is executed here and is slow, another thread goes on with the lane. */
		ln->head++;
		__atomic_store_n(&ln->shared->head, ln->head, __ATOMIC_RELAXED);
		call_step(p, c, p->service->begin(p, c));
		if (ln->dirty && ++slow % PUBLISH_EVERY == 0)
			publish_lanes(p);
	}
	__atomic_store_n(&ln->shared->head, ln->head, __ATOMIC_RELAXED);
	publish_lanes(p);
	ch->budget -= (int32_t)(nops + CALL_COST * (i - nops));
	if (nops)
		count(&p->stats.ops[SC_OP_NOP], nops);
	return i;
}

/*
 * True if the request with this index pends: channel.h has the rule. `done`: completions of before; those in [tail - depth, done)
 * say what does not. Older ones were taken, and the last agent may have written others over them that it never published.
 */
static bool is_pending(const struct lane *ln, uint32_t index, uint32_t tail, uint32_t done)
{
	const struct sc_slot *s = &ln->slots[index & ln->mask];
	uint32_t n = ln->mask + 1 - (tail - done);

	n = done < n ? done : n;

	if (__atomic_load_n(&s->tag, __ATOMIC_RELAXED) != index ||
	    __atomic_load_n(&s->op, __ATOMIC_RELAXED) == SC_SLOT_TAKEN)
		return false;
	for (uint32_t i = done - n; i != done; i++)
		if (ln->cqes[i & ln->mask].tag == index)
			return false;
	return true;
}

/*
 * First sight of a lane: takes its indices over, as an earlier incarnation left them, and finds what pends. What that one had
 * begun is begun again, or, if nothing is known of it, ends with -EIO. False: the lane breaks the rules.
 */
static bool lane_take_over(struct poller *p, struct channel *ch, struct lane *ln)
{
	/* Acquire: the slots before this index are written. */
	uint32_t tail = __atomic_load_n(&ln->shared->tail, __ATOMIC_ACQUIRE);
	uint32_t done = __atomic_load_n(&ln->shared->done, __ATOMIC_RELAXED);
	uint32_t head = __atomic_load_n(&ln->shared->head, __ATOMIC_RELAXED);
	bool lost = !p->service->pending_lost || p->service->pending_lost(p->agent);

	ln->done = done;
	ln->head = done;
	if (tail - done > ln->mask + 1)
		return false;
	if (head == done)
		return true; /* nothing had been begun and not ended */
	ln->head = tail;
	for (uint32_t i = tail - ln->mask - 1; i != tail; i++) {
		if (!is_pending(ln, i, tail, done))
			continue;
		if (lost && (int32_t)(i - head) < 0) {
			lane_complete(p, ln, i, 0, -EIO);
			continue;
		}
		ln->again[(i & ln->mask) / 64] |= 1ull << (i & ln->mask) % 64;
		ln->nagain++;
	}
	ch->nagain += ln->nagain;
	return ln->nagain == tail - ln->done;
}

/* Begins again what pended in a lane. Returns how many. */
static uint32_t lane_again(struct poller *p, struct channel *ch, struct lane *ln)
{
	uint32_t begun = 0;

	for (uint32_t i = ln->head - ln->mask - 1; i != ln->head && ln->nagain; i++) {
		uint64_t bit = 1ull << (i & ln->mask) % 64, *word = &ln->again[(i & ln->mask) / 64];
		struct sc_slot s;
		struct call *c;

		if (!(*word & bit))
			continue;
		slot_fetch(&s, &ln->slots[i & ln->mask]);
		c = ch->inflight < AGENT_MAX_INFLIGHT ? call_new(p, ch, ln, &s) : NULL;
		if (!c)
			break;
		/* Before the call begins: another thread may go on after this one. */
		*word &= ~bit;
		ln->nagain--;
		ch->nagain--;
		begun++;
		c->again = true;
		if (s.op == SC_OP_NOP) {
			c->res = (int64_t)s.arg0;
			call_step(p, c, STEP_DONE);
		} else {
			call_step(p, c, p->service->begin(p, c));
		}
	}
	return begun;
}

/*
 * A lane's bit is set. Takes its depth, and on first sight all that is there.
 */
static bool lane_activate(struct poller *p, struct channel *ch, struct lane *ln)
{
	uint32_t log2 = __atomic_load_n(&ln->shared->depth_log2, __ATOMIC_RELAXED);

	if (log2 < 1 || log2 > 8 || (1u << log2) > ch->layout.entries) {
		complain(ch, "has an impossible depth", ln->index);
		return false;
	}
	ln->mask = (1u << log2) - 1;
	ln->broken = false;
	ln->life++;
	if (ln->seen)
		return true;
	ln->seen = true;
	if (lane_take_over(p, ch, ln))
		return true;
	complain(ch, "has impossible indices", ln->index);
	ch->nagain -= ln->nagain;
	ln->nagain = 0;
	return false;
}

/* Reads the bitmap of lanes in use. */
static void channel_reread(struct poller *p, struct channel *ch, uint32_t gen)
{
	uint32_t n = 0;

	ch->lanes_gen = gen;
	ch->reread = false;
	for (uint32_t i = 0; i < ch->layout.nlanes; i++) {
		/* Acquire: the lane's depth is written before its bit. */
		uint64_t word = __atomic_load_n(&ch->host->lanes[i / 64], __ATOMIC_ACQUIRE);
		struct lane *ln = &ch->lanes[i];
		bool on = word >> (i % 64) & 1;

		if (on && !ln->active)
			ln->broken = !lane_activate(p, ch, ln);
		ln->active = on;
		if (on && !ln->broken)
			ch->active[n++] = (uint16_t)i;
	}
	ch->nactive = n;
}

static uint32_t channel_poll(struct poller *p, struct channel *ch)
{
	uint32_t gen = __atomic_load_n(&ch->host->lanes_gen, __ATOMIC_ACQUIRE);
	uint32_t n = 0, i;

	if (gen != ch->lanes_gen || ch->reread)
		channel_reread(p, ch, gen);
	for (uint32_t j = 0; ch->nagain && j < ch->nactive; j++)
		n += lane_again(p, ch, &ch->lanes[ch->active[j]]);
	ch->budget = CHANNEL_BUDGET;
	i = ch->turn < ch->nactive ? ch->turn : 0;
	for (uint32_t left = ch->nactive; left && ch->budget > 0; left--) {
		n += lane_serve(p, ch, &ch->lanes[ch->active[i]]);
		if (++i == ch->nactive)
			i = 0;
	}
	ch->turn = i; /* whoever had no turn, begins in the next round */
	return n;
}

/* ---- what comes back ---- */

void poller_return(struct call *c, enum call_state state)
{
	struct poller *p = c->poller;
	struct call *old = atomic_load_explicit(&p->inbox, memory_order_relaxed);

	c->state = (uint16_t)state;
	do {
		c->next = old;
		/* Release: the poller sees the results. From here on the call is the poller's. */
	} while (!atomic_compare_exchange_weak_explicit(&p->inbox, &old, c, memory_order_release,
							memory_order_relaxed));
	full_fence(); /* the push before the look; the poller does the reverse before it sleeps */
	if (atomic_load_explicit(&p->asleep, memory_order_relaxed))
		poller_wake(p);
}

void poller_wake(struct poller *p)
{
	uint64_t one = 1;

	if (write(p->event_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error("waking poller %u: %m", p->index);
}

static uint32_t take_inbox(struct poller *p)
{
	struct call *c = NULL;
	uint32_t n = 0;

	if (atomic_load_explicit(&p->inbox, memory_order_relaxed))
		c = atomic_exchange_explicit(&p->inbox, NULL, memory_order_acquire);
	while (c) { /* into the order of their coming */
		struct call *next = c->next;

		c->next = p->back;
		p->back = c;
		c = next;
	}
	for (; p->back; n++) {
		c = p->back;
		p->back = c->next;
		p->at_workers -= c->at_worker;
		c->at_worker = false;
		call_step(p, c, c->state == CALL_RESTART ? p->service->begin(p, c) : STEP_DONE);
	}
	return n;
}

static uint32_t take_ring(struct poller *p)
{
	struct io_uring_cqe *cqes[64];
	uint32_t n;

	if (!p->in_ring)
		return 0;
	n = io_uring_peek_batch_cqe(&p->ring, cqes, 64);
	for (uint32_t i = 0; i < n; i++) {
		struct call *c = io_uring_cqe_get_data(cqes[i]);

		p->in_ring--;
		call_step(p, c, p->service->ring_done(p, c, cqes[i]->res));
	}
	if (n)
		io_uring_cq_advance(&p->ring, n);
	return n;
}

static void submit_ring(struct poller *p)
{
	int n;

	if (!p->unsubmitted)
		return;
	n = io_uring_submit(&p->ring);
	if (n > 0)
		p->unsubmitted -= (uint32_t)n < p->unsubmitted ? (uint32_t)n : p->unsubmitted;
	else if (n != -EBUSY && n != -EAGAIN && n != -EINTR)
		log_error("poller %u: io_uring_submit: %s", p->index, strerror(-n));
}

struct io_uring_sqe *poller_sqe(struct poller *p, struct call *c)
{
	struct io_uring_sqe *sqe;

	if (!p->has_ring || p->in_ring >= RING_MAX)
		return NULL;
	sqe = io_uring_get_sqe(&p->ring);
	if (!sqe) {
		submit_ring(p);
		sqe = io_uring_get_sqe(&p->ring);
	}
	if (!sqe)
		return NULL;
	memset(sqe, 0, sizeof(*sqe));
	io_uring_sqe_set_data(sqe, c);
	p->in_ring++;
	p->unsubmitted++;
	return sqe;
}

uint16_t poller_personality(struct poller *p, const struct cred *cred)
{
	int id;

	if (!p->has_ring || !p->relay.now->actor.wardrobe.privileged)
		return 0;
	if (p->personality[cred->index])
		return (uint16_t)(p->personality[cred->index] - 1);
	if (creds_wear(&p->relay.now->actor.wardrobe, cred) < 0)
		return 0;
	id = io_uring_register_personality(&p->ring);
	if (id <= 0) {
		log_error("poller %u: cannot register credentials: %s", p->index, strerror(-id));
		return 0;
	}
	p->personality[cred->index] = (uint16_t)(id + 1);
	return (uint16_t)id;
}

/* ---- channels come and go ---- */

/* In a worker or in the poller, as the service wants: the session's files, then main is told. */
static void end_channel(struct agent *agent, struct job *job)
{
	struct channel *ch = (struct channel *)((char *)job - offsetof(struct channel, end_job));
	uint64_t one = 1;

	agent->service->end_session(agent, ch->session);
	atomic_store_explicit(&ch->ended, true, memory_order_release);
	if (write(agent->main_event, &one, sizeof(one)) < 0)
		log_error("waking main: %m");
}

/* Takes the channel out of the table once nothing of it is in execution. */
static void try_end(struct poller *p, struct channel *ch)
{
	if (ch->inflight)
		return;
	publish_lanes(p);
	p->channels[ch->position] = p->channels[--p->nchannels];
	p->channels[ch->position]->position = ch->position;
	if (ch->map.bell_fd >= 0)
		epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, ch->map.bell_fd, NULL);
	ch->end_job.run = end_channel;
	if (p->service->end_in_poller)
		end_channel(p->agent, &ch->end_job);
	else
		workers_push_job(p->agent->workers, &ch->end_job);
}

static void adopt(struct poller *p, struct channel *ch)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};

	ch->adopted = true;
	ch->position = p->nchannels;
	p->channels[p->nchannels++] = ch;
	if (ch->map.bell_fd >= 0 && epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, ch->map.bell_fd, &ev) < 0)
		log_error("poller %u: cannot wait for the doorbell of slot %u: %m", p->index,
			  ch->map.slot);
	__atomic_store_n(&ch->guest->asleep, 0, __ATOMIC_RELAXED);
}

static uint32_t take_mail(struct poller *p)
{
	struct channel *ch, *next;
	uint32_t n = 0;

	if (!atomic_load_explicit(&p->mail, memory_order_relaxed))
		return 0;
	pthread_mutex_lock(&p->mail_lock);
	for (ch = p->mailbox; ch; ch = next, n++) {
		next = ch->mail_next;
		ch->mailed = false;
		if (!ch->adopted)
			adopt(p, ch);
		if (ch->mail_detach) {
			ch->ending = true;
			if (p->service->cancel_session)
				p->service->cancel_session(p->agent, ch->session);
		}
	}
	p->mailbox = NULL;
	atomic_store_explicit(&p->mail, false, memory_order_relaxed);
	pthread_mutex_unlock(&p->mail_lock);
	return n;
}

/* Has the poller look at a channel that is new, or to be detached. */
static void post(struct poller *p, struct channel *ch, bool detach)
{
	pthread_mutex_lock(&p->mail_lock);
	ch->mail_detach |= detach;
	if (!ch->mailed) {
		ch->mailed = true;
		ch->mail_next = p->mailbox;
		p->mailbox = ch;
	}
	atomic_store_explicit(&p->mail, true, memory_order_relaxed);
	pthread_mutex_unlock(&p->mail_lock);
	poller_wake(p);
}

struct channel *poller_attach(struct poller *p, struct session *s, const struct mapping *m,
			      const struct sc_layout *layout)
{
	struct channel *ch = calloc(1, sizeof(*ch) + layout->nlanes * sizeof(struct lane));
	uint8_t *base = m->base;

	if (!ch)
		return NULL;
	ch->poller = p;
	ch->session = s;
	ch->map = *m;
	ch->layout = *layout;
	ch->host = (struct sc_channel_host *)base;
	ch->guest = (struct sc_channel_guest *)(base + SC_PAGE);
	ch->reread = true;
	for (uint32_t i = 0; i < layout->nlanes; i++) {
		struct lane *ln = &ch->lanes[i];

		ln->index = (uint16_t)i;
		ln->shared = (struct sc_lane *)(base + layout->lanes_off) + i;
		ln->slots =
		    (struct sc_slot *)(base + layout->slots_off) + (size_t)i * layout->entries;
		ln->cqes = (struct sc_cqe *)(base + layout->cqes_off) + (size_t)i * layout->entries;
	}
	/* Until the poller has adopted it, the first request rings the doorbell. */
	__atomic_store_n(&ch->guest->asleep, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&ch->guest->incarnation, p->agent->incarnation, __ATOMIC_RELAXED);
	atomic_fetch_add_explicit(&p->assigned, 1, memory_order_relaxed);
	post(p, ch, false);
	return ch;
}

void poller_detach(struct channel *ch)
{
	pthread_mutex_lock(&ch->session->lock);
	ch->session->ended = true;
	pthread_mutex_unlock(&ch->session->lock);
	post(ch->poller, ch, true);
}

bool channel_ended(const struct channel *ch)
{
	return atomic_load_explicit(&ch->ended, memory_order_acquire);
}

struct mapping *channel_mapping(struct channel *ch)
{
	return &ch->map;
}

void channel_free(struct channel *ch)
{
	atomic_fetch_sub_explicit(&ch->poller->assigned, 1, memory_order_relaxed);
	session_put(ch->session);
	free(ch);
}

struct session *channel_session(const struct channel *ch)
{
	return ch->session;
}

struct work_queue *channel_work_queue(struct channel *ch)
{
	return &ch->work;
}

const struct sc_layout *channel_layout(const struct channel *ch)
{
	return &ch->layout;
}

/* Not to be inlined: the compiler would be free to read the original again in place of the copy. */
__attribute__((noipa)) void channel_read(const struct channel *ch, uint32_t off, void *to, size_t n)
{
	memcpy(to, (const uint8_t *)ch->map.base + off, n);
}

void *channel_at(const struct channel *ch, uint32_t off)
{
	return (uint8_t *)ch->map.base + off;
}

/* ---- sleeping ---- */

/* Channels in which calls pend get a heartbeat. */
static void beat(struct poller *p, int64_t now)
{
	if (now - p->last_beat < BEAT_NS)
		return;
	p->last_beat = now;
	for (uint32_t i = 0; i < p->nchannels; i++) {
		struct sc_channel_guest *g = p->channels[i]->guest;

		/* The count is ours alone; a host that spoils it confuses itself. */
		__atomic_store_n(&g->heartbeat,
				 __atomic_load_n(&g->heartbeat, __ATOMIC_RELAXED) + 1,
				 __ATOMIC_RELAXED);
	}
}

/* True if something came since the last round. */
static bool anything(struct poller *p)
{
	if (p->back || atomic_load_explicit(&p->inbox, memory_order_relaxed) ||
	    atomic_load_explicit(&p->mail, memory_order_relaxed) ||
	    atomic_load_explicit(&p->stopping, memory_order_relaxed))
		return true;
	if (p->in_ring && io_uring_cq_ready(&p->ring))
		return true;
	if (p->service->anything && p->service->anything(p))
		return true;
	if (atomic_load_explicit(&p->agent->quiescing, memory_order_relaxed))
		return false;
	for (uint32_t i = 0; i < p->nchannels; i++) {
		struct channel *ch = p->channels[i];

		if (ch->ending)
			continue;
		if (__atomic_load_n(&ch->host->lanes_gen, __ATOMIC_ACQUIRE) != ch->lanes_gen)
			return true;
		if (ch->inflight >= AGENT_MAX_INFLIGHT)
			continue; /* its requests wait for its completions */
		for (uint32_t j = 0; j < ch->nactive; j++) {
			struct lane *ln = &ch->lanes[ch->active[j]];

			if (!ln->broken &&
			    __atomic_load_n(&ln->shared->tail, __ATOMIC_RELAXED) != ln->head)
				return true;
		}
	}
	return false;
}

static void set_asleep(struct poller *p, uint32_t value)
{
	for (uint32_t i = 0; i < p->nchannels; i++)
		__atomic_store_n(&p->channels[i]->guest->asleep, value, __ATOMIC_RELAXED);
	atomic_store_explicit(&p->asleep, value, memory_order_relaxed);
}

/* Learns from how long a sleep was. */
static void learn(struct poller *p, int64_t slept)
{
	if (slept < p->max_spin_ns)
		p->spin_ns = 2 * p->spin_ns < p->max_spin_ns ? 2 * p->spin_ns : p->max_spin_ns;
	else if (slept > 4 * p->max_spin_ns)
		p->spin_ns = p->spin_ns / 2 > MIN_SPIN_NS ? p->spin_ns / 2 : MIN_SPIN_NS;
}

/* How long the poller may sleep at most, in milliseconds. */
static int sleep_ms(struct poller *p)
{
	int ms = p->inflight ? BEAT_NS / 1000000 : IDLE_SLEEP_MS;
	int due = p->service->sleep_ms ? p->service->sleep_ms(p) : -1;

	return due >= 0 && due < ms ? due : ms;
}

/* Sleeps until a bell rings, something comes back, or it is time for a heartbeat. */
static void poller_sleep(struct poller *p)
{
	struct epoll_event ev[8];
	int64_t start = now_ns();
	int n;

	set_asleep(p, 1);
	full_fence(); /* "asleep" before the last look */
	if (anything(p)) {
		set_asleep(p, 0);
		return;
	}
	count(&p->stats.slept, 1);
	n = epoll_wait(p->epoll_fd, ev, 8, sleep_ms(p));
	set_asleep(p, 0);
	if (n < 0 && errno != EINTR)
		log_error("poller %u: epoll_wait: %m", p->index);
	if (n > 0)
		learn(p, now_ns() - start);
	for (uint32_t i = 0; i < p->nchannels; i++)
		p->channels[i]->reread = true; /* a bell may tell of a new lane */
	beat(p, now_ns());
}

/* One round. Returns how much it did. */
static uint32_t poller_round_once(struct poller *p)
{
	bool fetch = !atomic_load_explicit(&p->agent->quiescing, memory_order_relaxed);
	uint32_t n = take_mail(p);

	p->round = 0;
	n += take_inbox(p);
	for (uint32_t i = 0; i < p->nchannels; i++) {
		struct channel *ch = p->channels[i];

		if (!ch->ending && fetch)
			n += channel_poll(p, ch);
		else if (ch->ending && !ch->inflight) {
			try_end(p, ch);
			i--;
		}
	}
	submit_ring(p);
	n += take_ring(p);
	if (p->service->poll)
		n += p->service->poll(p);
	publish_lanes(p);
	return n;
}

/* Spins until a round does something or the time is over. True: it did. */
static bool poller_spin(struct poller *p)
{
	int64_t start = now_ns(), now;

	do {
		for (int i = 0; i < 32; i++) {
			/* A worker may be waiting for this very CPU. Without one this costs less than the worker. */
			if (p->at_workers)
				sched_yield();
			else
				__builtin_ia32_pause();
			if (poller_round_once(p)) {
				count(&p->stats.spun, 1);
				return true;
			}
		}
		now = now_ns();
	} while (now - start < p->spin_ns);
	beat(p, now);
	return false;
}

/* For QUIESCE: tells main whether anything but waiting for locks goes on here. */
static void note_quiet(struct poller *p)
{
	bool quiet = atomic_load_explicit(&p->agent->quiescing, memory_order_acquire) &&
		     p->inflight <= atomic_load_explicit(&p->waiting, memory_order_relaxed);

	atomic_store_explicit(&p->quiet, quiet, memory_order_release);
}

/* The life of a poller, or the part of it that one of its threads leads. */
static void poller_loop(void *arg)
{
	struct poller *p = arg;

	if (!p->was_ready && p->service->poller_ready && !p->service->poller_ready(p))
		log_error("poller %u cannot serve", p->index);
	p->was_ready = true;
	while (!atomic_load_explicit(&p->stopping, memory_order_relaxed)) {
		if (poller_round_once(p)) {
			if (++p->rounds % BEAT_ROUNDS == 0)
				beat(p, now_ns());
			continue;
		}
		note_quiet(p);
		if (!poller_spin(p))
			poller_sleep(p);
	}
}

/* ---- start and stop ---- */

/* What the ring is for, and nothing else: a system call filter does not see what goes through it. */
static int restrict_ring(struct io_uring *ring)
{
	static const uint8_t sqes[] = {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC,
				       IORING_OP_FALLOCATE, IORING_OP_FADVISE};
	struct io_uring_restriction r[sizeof(sqes) + 1] = {0};

	for (size_t i = 0; i < sizeof(sqes); i++) {
		r[i].opcode = IORING_RESTRICTION_SQE_OP;
		r[i].sqe_op = sqes[i];
	}
	r[sizeof(sqes)].opcode = IORING_RESTRICTION_REGISTER_OP;
	r[sizeof(sqes)].register_op = IORING_REGISTER_PERSONALITY;
	/* Raw calls: Debian 12's liburing does not export its functions for these. */
	if (syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, r,
		    sizeof(sqes) + 1) < 0)
		return -errno;
	return syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL,
		       0) < 0
		   ? -errno
		   : 0;
}

static void start_ring(struct poller *p)
{
	struct io_uring_params params = {.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
						  IORING_SETUP_R_DISABLED,
					 .cq_entries = RING_CQ};
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
	int err = io_uring_queue_init_params(RING_ENTRIES, &p->ring, &params);

	if (err < 0) {
		log_warning("poller %u: no io_uring (%s): workers do its part", p->index,
			    strerror(-err));
		return;
	}
	p->personality = calloc(CREDS_MAX, sizeof(*p->personality));
	if (!p->personality || restrict_ring(&p->ring) < 0 ||
	    epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->ring.ring_fd, &ev) < 0) {
		log_warning("poller %u: cannot set io_uring up: workers do its part", p->index);
		io_uring_queue_exit(&p->ring);
		return;
	}
	p->has_ring = true;
}

static void pin(struct poller *p)
{
	struct options *o = &p->agent->opt;
	cpu_set_t set;
	int err;

	if (!o->ncpus)
		return;
	CPU_ZERO(&set);
	CPU_SET(o->cpus[p->index % o->ncpus], &set);
	err = relay_pin(&p->relay, sizeof(set), &set);
	if (err)
		log_warning("cannot pin poller %u to CPU %u: %s", p->index,
			    o->cpus[p->index % o->ncpus], strerror(err));
}

/* What either thread of a poller does first. */
static void start_thread(struct actor *a)
{
	if (a->agent->service->start_worker)
		a->agent->service->start_worker(a);
}

struct poller *poller_start(struct agent *agent, uint32_t index)
{
	struct poller *p =
	    aligned_alloc(SC_LINE, (sizeof(*p) + SC_LINE - 1) & ~(size_t)(SC_LINE - 1));
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};

	if (!p)
		return NULL;
	memset(p, 0, sizeof(*p));
	p->agent = agent;
	p->service = agent->service;
	p->index = index;
	pthread_mutex_init(&p->mail_lock, NULL);
	p->max_spin_ns = (int64_t)agent->max_spin_us * 1000;
	/* Where pollers have no CPU to themselves, spinning takes it from those who would bring the work. */
	if (agent->ncpus_online <= 1 && p->max_spin_ns > MIN_SPIN_NS)
		p->max_spin_ns = MIN_SPIN_NS;
	p->spin_ns = p->max_spin_ns;
	p->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (p->event_fd < 0 || p->epoll_fd < 0 ||
	    epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->event_fd, &ev) < 0) {
		log_error("poller %u: cannot make its events: %m", index);
		free(p);
		return NULL;
	}
	if (agent->service->ring_done)
		start_ring(p);
	p->last_beat = now_ns();
	if (!relay_start(&p->relay, agent, agent->service->work != NULL, start_thread, poller_loop,
			 p)) {
		log_error("cannot start poller %u", index);
		free(p);
		return NULL;
	}
	pin(p);
	return p;
}

void poller_stop(struct poller *p)
{
	atomic_store_explicit(&p->stopping, true, memory_order_relaxed);
	poller_wake(p);
	relay_stop(&p->relay);
}

int poller_event(const struct poller *p)
{
	return p->event_fd;
}

bool poller_watch(struct poller *p, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN};

	return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0;
}

void poller_kick(struct poller *p, struct channel *ch)
{
	count(&p->stats.kicks, 1);
	p->agent->tr->ops->kick(p->agent->tr, &ch->map);
}

struct channel *poller_channel(const struct poller *p, uint32_t session)
{
	for (uint32_t i = 0; i < p->nchannels; i++)
		if (p->channels[i]->session->id == session && !p->channels[i]->ending)
			return p->channels[i];
	return NULL;
}

struct agent *poller_agent(struct poller *p)
{
	return p->agent;
}

_Atomic uint32_t *poller_changing(struct poller *p)
{
	return p->changing;
}

struct actor *poller_actor(struct poller *p)
{
	return &p->relay.now->actor;
}

void poller_moved(struct poller *p, uint64_t read, uint64_t written)
{
	count(&p->stats.bytes_read, read);
	count(&p->stats.bytes_written, written);
}

bool poller_is_alone(const struct poller *p)
{
	return p->inflight == 1;
}

uint32_t poller_round(const struct poller *p)
{
	return p->round;
}

bool poller_is_quiet(const struct poller *p)
{
	return atomic_load_explicit(&p->quiet, memory_order_acquire);
}

void poller_note_waiting(struct poller *p, int change)
{
	atomic_fetch_add_explicit(&p->waiting, (uint32_t)change, memory_order_relaxed);
}

uint32_t poller_channels(const struct poller *p)
{
	return atomic_load_explicit(&p->assigned, memory_order_relaxed);
}

const struct poller_stats *poller_stats(const struct poller *p)
{
	return &p->stats;
}

uint64_t poller_cpu_ns(const struct poller *p)
{
	return relay_cpu_ns(&((struct poller *)p)->relay);
}
