/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * closer.c - see closer.h.
 *
 * State shared with the threads, under one lock: a ring of descriptors, and for each thread since
 * when it has been at its present one. The threads never touch anything else of the broker.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "closer.h"
#include "log.h"
#include "loop.h"

#define STACK_SIZE (64u << 10)

struct worker {
	pthread_t thread;
	uint64_t since; /* loop_now() when it began its present close; 0: it is idle */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work;
	int *ring; /* cap entries, a power of two */
	uint32_t cap;
	uint32_t head;
	uint32_t tail;
	uint32_t idle;
	uint32_t nworkers;
	struct worker workers[CLOSER_THREADS];
} closer = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};

static void on_signal(int sig)
{
}

void closer_init(void)
{
	/* No SA_RESTART: the point of the signal is that close() returns. */
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGUSR1, &sa, NULL);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	pthread_mutex_lock(&closer.lock);
	for (;;) {
		int fd;

		closer.idle++;
		while (closer.head == closer.tail)
			pthread_cond_wait(&closer.work, &closer.lock);
		closer.idle--;
		fd = closer.ring[closer.head++ & (closer.cap - 1)];
		w->since = loop_now();
		pthread_mutex_unlock(&closer.lock);
		close(fd);
		pthread_mutex_lock(&closer.lock);
		w->since = 0;
	}
	return NULL;
}

/* One thread more; with the lock held. */
static void hire(void)
{
	struct worker *w = &closer.workers[closer.nworkers];
	pthread_attr_t attr;
	sigset_t all_but;
	sigset_t old;
	int err;

	if (closer.nworkers == CLOSER_THREADS)
		return;
	/* Signals of the process are the loop's. */
	sigfillset(&all_but);
	sigdelset(&all_but, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &all_but, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = pthread_create(&w->thread, &attr, work, w);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		log_error("cannot start a thread: %s", strerror(err));
	else
		closer.nworkers++;
}

/* Room for one more; with the lock held. Returns false if there is no memory. */
static bool reserve(void)
{
	uint32_t used = closer.tail - closer.head;
	uint32_t cap = closer.cap ? closer.cap * 2 : 256;
	int *bigger;

	if (used < closer.cap)
		return true;
	bigger = malloc(cap * sizeof(*bigger));
	if (!bigger)
		return false;
	for (uint32_t i = 0; i < used; i++)
		bigger[i] = closer.ring[(closer.head + i) & (closer.cap - 1)];
	free(closer.ring);
	closer.ring = bigger;
	closer.cap = cap;
	closer.head = 0;
	closer.tail = used;
	return true;
}

void closer_close(int fd)
{
	pthread_mutex_lock(&closer.lock);
	if (reserve()) {
		closer.ring[closer.tail++ & (closer.cap - 1)] = fd;
		if (!closer.nworkers)
			hire();
		pthread_cond_signal(&closer.work);
	}
	pthread_mutex_unlock(&closer.lock);
}

bool closer_tick(uint64_t now)
{
	uint32_t stuck = 0;
	bool waiting;

	pthread_mutex_lock(&closer.lock);
	for (uint32_t i = 0; i < closer.nworkers; i++) {
		if (!closer.workers[i].since || closer.workers[i].since + CLOSER_STUCK_MS > now)
			continue;
		pthread_kill(closer.workers[i].thread, SIGUSR1);
		stuck++;
	}
	waiting = closer.head != closer.tail;
	if (waiting && !closer.idle && stuck == closer.nworkers) {
		log_peer(LOG_LEVEL_WARN, "%u descriptors that clients sent are held up in close()",
			 stuck);
		hire();
	}
	pthread_mutex_unlock(&closer.lock);
	return waiting || stuck;
}
