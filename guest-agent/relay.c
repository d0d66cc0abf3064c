/* SPDX-License-Identifier: BSD-3-Clause */
/* relay.c - see relay.h. */
#include "relay.h"

#include "log.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WATCH_NS \
	1000000 /* between looks of the stand-by: a call of more than one to two of these is slow */
#define WATCH_IDLE  64 /* looks without a call after which it sleeps */
#define REST_FACTOR 4  /* after a slow call, no others for so many times its duration */
#define REST_MAX_NS 200000000
#define BLOCKED_TICKS \
	1000000 /* of the TSC, 0.3 to 1 ms: a call that took so long has waited for something */
#define BLOCKED_REST_NS 2000000 /* and so long no others are made */
#define WATCH_ASLEEP	0u	/* values of `watch`: the stand-by sleeps until it is woken */
#define WATCH_AWAKE	1u
#define WATCH_STOPPED	2u

/* Sleeps while r->watch is `value`, at most ns (0: no limit). */
static void watch_wait(struct relay *r, uint32_t value, long ns)
{
	struct timespec ts = {.tv_nsec = ns};

	syscall(SYS_futex, &r->watch, FUTEX_WAIT_PRIVATE, value, ns ? &ts : NULL, NULL, 0);
}

static void watch_wake(struct relay *r)
{
	syscall(SYS_futex, &r->watch, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- the stand-by ---- */

/* Lies down until the runner's next call, unless that has begun: `turn` is what was seen last. */
static void watch_sleep(struct relay *r, uint32_t turn)
{
	uint32_t awake = WATCH_AWAKE;

	/* Sequentially consistent, like relay_enter(): either we see its turn here or it sees us asleep there. */
	if (!atomic_compare_exchange_strong(&r->watch, &awake, WATCH_ASLEEP))
		return;
	if (atomic_load(&r->turn) == turn)
		watch_wait(r, WATCH_ASLEEP, 0);
	awake = WATCH_ASLEEP;
	atomic_compare_exchange_strong(&r->watch, &awake, WATCH_AWAKE);
}

/* Watches the runner. True: the poller is ours now. False: the end. */
static bool stand_by(struct runner *me)
{
	struct relay *r = me->relay;
	uint32_t seen = atomic_load_explicit(&r->turn, memory_order_relaxed), turn, idle = 0;

	atomic_store_explicit(&r->standing_by, true, memory_order_release);
	while (!atomic_load_explicit(&r->stopping, memory_order_acquire)) {
		if (idle < WATCH_IDLE)
			watch_wait(r, WATCH_AWAKE, WATCH_NS);
		else
			watch_sleep(r, seen);
		turn = atomic_load_explicit(&r->turn, memory_order_relaxed);
		idle = turn == seen && idle < WATCH_IDLE ? idle + 1 : 0;
		if (turn != seen || !(turn & 1)) {
			seen = turn;
			continue;
		}
		/* Acquire: everything that the runner did until it began its call. */
		if (!atomic_compare_exchange_strong_explicit(
			&r->turn, &turn, turn + 1, memory_order_acq_rel, memory_order_relaxed))
			continue;
		atomic_store_explicit(&r->taken_at, now_ns(), memory_order_relaxed);
		atomic_store_explicit(&r->standing_by, false, memory_order_relaxed);
		atomic_fetch_add_explicit(&r->takeovers, 1, memory_order_relaxed);
		r->now = me;
		return true;
	}
	return false;
}

/* The old runner, back from its slow call. */
static void rest(struct relay *r)
{
	int64_t now = now_ns();
	int64_t began = atomic_load_explicit(&r->taken_at, memory_order_relaxed) - WATCH_NS;
	int64_t ns = (now - began) * REST_FACTOR;

	atomic_store_explicit(&r->rest_until, now + (ns < REST_MAX_NS ? ns : REST_MAX_NS),
			      memory_order_relaxed);
}

static void *runner_main(void *arg)
{
	struct runner *me = arg;
	struct relay *r = me->relay;

	r->ready(&me->actor);
	/* Comes back with 1 from relay_stand_by(). No local variable changes, so none can be stale then. */
	if (setjmp(me->home))
		rest(r);
	else if (me == &r->runners[0])
		r->loop(r->arg); /* the first turn */
	if (stand_by(me))
		r->loop(r->arg);
	return NULL;
}

/* ---- the runner ---- */

/* True while a slow call is not long ago. */
static bool resting(struct relay *r)
{
	int64_t until = atomic_load_explicit(&r->rest_until, memory_order_relaxed);

	if (!until)
		return false;
	if (now_ns() < until)
		return true;
	atomic_store_explicit(&r->rest_until, 0, memory_order_relaxed);
	return false;
}

bool relay_may_enter(struct relay *r)
{
	return atomic_load_explicit(&r->standing_by, memory_order_acquire) && !resting(r);
}

uint32_t relay_enter(struct relay *r)
{
	uint32_t token = atomic_load_explicit(&r->turn, memory_order_relaxed) + 1;
	uint32_t asleep = WATCH_ASLEEP;

	r->entered = __builtin_ia32_rdtsc();
	/* An exchange, not a store: what is below must not be looked at before. Release: for who takes over. */
	atomic_exchange(&r->turn, token);
	if (atomic_load(&r->watch) == WATCH_ASLEEP &&
	    atomic_compare_exchange_strong(&r->watch, &asleep, WATCH_AWAKE))
		watch_wake(r);
	return token;
}

bool relay_leave(struct relay *r, uint32_t token)
{
	if (!atomic_compare_exchange_strong_explicit(&r->turn, &token, token + 1,
						     memory_order_acq_rel, memory_order_relaxed))
		return false;
	if (__builtin_ia32_rdtsc() - r->entered > BLOCKED_TICKS)
		atomic_store_explicit(&r->rest_until, now_ns() + BLOCKED_REST_NS,
				      memory_order_relaxed);
	return true;
}

_Noreturn void relay_stand_by(struct runner *me)
{
	longjmp(me->home, 1);
}

/* ---- start and stop ---- */

bool relay_start(struct relay *r, struct agent *agent, bool second, void (*ready)(struct actor *a),
		 void (*loop)(void *arg), void *arg)
{
	r->loop = loop;
	r->ready = ready;
	r->arg = arg;
	r->now = &r->runners[0];
	atomic_store_explicit(&r->watch, WATCH_AWAKE, memory_order_relaxed);
	for (int i = 0; i < (second ? 2 : 1); i++) {
		struct runner *me = &r->runners[i];

		me->relay = r;
		me->actor.agent = agent;
		me->actor.wardrobe.privileged = agent->privileged;
		me->started = !pthread_create(&me->thread, NULL, runner_main, me);
	}
	return r->runners[0].started;
}

void relay_stop(struct relay *r)
{
	atomic_store_explicit(&r->stopping, true, memory_order_release);
	atomic_store(&r->watch, WATCH_STOPPED); /* which nobody overwrites */
	watch_wake(r);
	for (int i = 0; i < 2; i++)
		if (r->runners[i].started)
			pthread_join(r->runners[i].thread, NULL);
}

int relay_pin(struct relay *r, size_t size, const cpu_set_t *set)
{
	int err = 0;

	for (int i = 0; i < 2 && !err; i++)
		if (r->runners[i].started)
			err = pthread_setaffinity_np(r->runners[i].thread, size, set);
	return err;
}

uint64_t relay_cpu_ns(struct relay *r)
{
	uint64_t sum = 0;

	for (int i = 0; i < 2; i++) {
		struct timespec ts;
		clockid_t clock;

		if (r->runners[i].started && !pthread_getcpuclockid(r->runners[i].thread, &clock) &&
		    !clock_gettime(clock, &ts))
			sum += (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	}
	return sum;
}
