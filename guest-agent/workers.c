/* SPDX-License-Identifier: BSD-3-Clause */
/* workers.c - see workers.h. */
#include "workers.h"

#include "agent.h"
#include "log.h"
#include "poller.h"
#include "service.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SPIN_NS 20000 /* about what a futex wake-up and a scheduling cost together */

struct worker {
	struct actor actor; /* first: what the operations see */
	struct workers *pool;
	pthread_t thread;
};

struct workers {
	struct agent *agent;
	pthread_mutex_t lock; /* guards all but `pending` and `threads` */
	pthread_cond_t wake;
	struct job *first_job, *last_job;
	struct work_queue *ring; /* the last one served; its next is first in turn */
	uint32_t sleeping;
	uint32_t per_channel; /* most workers that one channel may occupy */
	bool stopping;
	_Atomic uint32_t
	    pending; /* jobs and calls queued and allowed to run: what a spinning worker looks at */
	_Atomic uint32_t spinning;
	uint32_t nthreads;
	struct worker *threads;
};

/* Puts a queue into the ring, last in turn. With the lock held. */
static void ring_add(struct workers *w, struct work_queue *q)
{
	q->listed = true;
	if (!w->ring) {
		q->next = q;
	} else {
		q->next = w->ring->next;
		w->ring->next = q;
	}
	w->ring = q;
}

/* Takes the queue after the last one served out of the ring. With the lock held. */
static struct work_queue *ring_take(struct workers *w)
{
	struct work_queue *q = w->ring ? w->ring->next : NULL;

	if (!q)
		return NULL;
	if (q == w->ring)
		w->ring = NULL;
	else
		w->ring->next = q->next;
	q->listed = false;
	return q;
}

/* Lists the queue if it has something and may run. With the lock held. */
static void ring_consider(struct workers *w, struct work_queue *q)
{
	if (q->first && !q->listed && q->running < w->per_channel) {
		ring_add(w, q);
		atomic_fetch_add_explicit(&w->pending, 1, memory_order_relaxed);
	}
}

/* Takes a call, or NULL. With the lock held. */
static struct call *take_call(struct workers *w)
{
	struct work_queue *q = ring_take(w);
	struct call *c;

	if (!q)
		return NULL;
	atomic_fetch_sub_explicit(&w->pending, 1, memory_order_relaxed);
	c = q->first;
	q->first = c->next;
	if (!q->first)
		q->last = NULL;
	q->running++;
	ring_consider(w, q);
	return c;
}

static struct job *take_job(struct workers *w)
{
	struct job *job = w->first_job;

	if (!job)
		return NULL;
	atomic_fetch_sub_explicit(&w->pending, 1, memory_order_relaxed);
	w->first_job = job->next;
	if (!w->first_job)
		w->last_job = NULL;
	return job;
}

/* Spins until something is pending, or for SPIN_NS. */
static void spin(struct workers *w)
{
	int64_t end;

	/* One spinner is enough, and none where it would take the CPU from a poller. */
	if (w->agent->ncpus_online <= w->agent->opt.npollers)
		return;
	if (atomic_fetch_add_explicit(&w->spinning, 1, memory_order_relaxed) == 0) {
		end = now_ns() + SPIN_NS;
		do {
			sched_yield(); /* to the poller, if it waits for this CPU: it would bring the next call */
		} while (!atomic_load_explicit(&w->pending, memory_order_relaxed) &&
			 now_ns() < end);
	}
	atomic_fetch_sub_explicit(&w->spinning, 1, memory_order_relaxed);
}

/* Waits for something to do. With the lock held, also on return. */
static void wait_for_work(struct workers *w)
{
	pthread_mutex_unlock(&w->lock);
	spin(w);
	pthread_mutex_lock(&w->lock);
	while (!w->first_job && !w->ring && !w->stopping) {
		w->sleeping++;
		pthread_cond_wait(&w->wake, &w->lock);
		w->sleeping--;
	}
}

static void run_call(struct worker *me, struct call *c)
{
	struct workers *w = me->pool;
	struct work_queue *q = channel_work_queue(c->ch);

	w->agent->service->work(&me->actor, c);
	/* The queue is the channel's, which may end once its last call is returned: let go of it before. */
	pthread_mutex_lock(&w->lock);
	q->running--;
	ring_consider(w, q);
	pthread_mutex_unlock(&w->lock);
	poller_return(c, CALL_DONE);
}

static void *worker_main(void *arg)
{
	struct worker *me = arg;
	struct workers *w = me->pool;

	if (w->agent->service->start_worker)
		w->agent->service->start_worker(&me->actor);
	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct job *job = take_job(w);
		struct call *c = job ? NULL : take_call(w);

		if (!job && !c) {
			if (w->stopping)
				break;
			wait_for_work(w);
			continue;
		}
		/* Whoever pushed may have counted on this worker alone: pass the news on before getting busy. */
		if (w->sleeping && (w->first_job || w->ring))
			pthread_cond_signal(&w->wake);
		pthread_mutex_unlock(&w->lock);
		if (c) {
			run_call(me, c);
		} else {
			creds_wear(&me->actor.wardrobe, NULL);
			job->run(w->agent, job);
		}
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* Wakes a sleeper if there is one and nobody spins. With the lock held. */
static void wake_one(struct workers *w)
{
	if (w->sleeping && !atomic_load_explicit(&w->spinning, memory_order_relaxed))
		pthread_cond_signal(&w->wake);
}

void workers_push(struct workers *w, struct call *c)
{
	struct work_queue *q = channel_work_queue(c->ch);

	c->next = NULL;
	pthread_mutex_lock(&w->lock);
	if (q->last)
		q->last->next = c;
	else
		q->first = c;
	q->last = c;
	ring_consider(w, q);
	wake_one(w);
	pthread_mutex_unlock(&w->lock);
}

void workers_push_job(struct workers *w, struct job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&w->lock);
	if (w->last_job)
		w->last_job->next = job;
	else
		w->first_job = job;
	w->last_job = job;
	atomic_fetch_add_explicit(&w->pending, 1, memory_order_relaxed);
	wake_one(w);
	pthread_mutex_unlock(&w->lock);
}

struct workers *workers_start(struct agent *agent, uint32_t n)
{
	struct workers *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->agent = agent;
	w->per_channel = n > 1 ? n / 2 : 1;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	w->threads = calloc(n, sizeof(*w->threads));
	for (; w->threads && w->nthreads < n; w->nthreads++) {
		struct worker *me = &w->threads[w->nthreads];

		me->pool = w;
		me->actor.agent = agent;
		me->actor.wardrobe.privileged = agent->privileged;
		if (pthread_create(&me->thread, NULL, worker_main, me))
			break;
	}
	if (w->nthreads == n)
		return w;
	log_error("cannot start %u worker threads", n);
	workers_stop(w);
	return NULL;
}

void workers_stop(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	for (uint32_t i = 0; i < w->nthreads; i++)
		pthread_join(w->threads[i].thread, NULL);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w->threads);
	free(w);
}

uint64_t workers_cpu_ns(struct workers *w)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < w->nthreads; i++) {
		struct timespec ts;
		clockid_t clock;

		if (pthread_getcpuclockid(w->threads[i].thread, &clock) == 0 &&
		    clock_gettime(clock, &ts) == 0)
			sum += (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	}
	return sum;
}
