/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * work_many.c - the same call by many threads, or many processes, at once.
 *
 * Commands (each with its COUNT, the calls of all together):
 *	threads N CALL [FILE]     N threads of this process
 *	procs N CALL [FILE]       N processes, forked for the occasion; each has an open file of its
 *	                          own, and under scrun a channel of its own
 *
 * All workers get ready (each makes one call, so that it is attached), meet at a barrier, make their
 * share of the calls, and meet again: starting and ending them is not in the time. Every eighth
 * call of a worker is timed by itself and goes into a histogram with eight steps to each power of
 * two, from which come the extras p50_ns, p99_ns and p999_ns (upper bounds of their steps).
 */
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORKERS 256
#define TIMED_MASK  7 /* one call in eight is timed */

/* ---- the call ---- */

enum { CALL_NONE, CALL_GETPPID, CALL_LSEEK, CALL_READS, CALL_OPEN };

int call_start(struct call *c, int argc, char **argv)
{
	static const char *const names[] = {"none", "getppid", "lseek", "read", "open"};
	int kind = 0;

	*c = (struct call){.fd = -1};
	while (kind <= CALL_OPEN && strcmp(argv[0], names[kind]))
		kind++;
	if (kind > CALL_OPEN || (kind >= CALL_LSEEK && argc < 2))
		return -EINVAL;
	c->kind = kind;
	if (kind < CALL_LSEEK)
		return 0;
	c->path = argv[1];
	if (kind == CALL_OPEN)
		return 0;
	c->fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (c->fd < 0)
		return -errno;
	c->data = aligned_alloc(4096, CALL_READ);
	if (c->data)
		return 0;
	call_end(c);
	return -ENOMEM;
}

int call_once(const struct call *c)
{
	ssize_t n;
	int fd;

	switch (c->kind) {
	case CALL_GETPPID:
		syscall(SYS_getppid);
		return 0;
	case CALL_LSEEK:
		return lseek(c->fd, 0, SEEK_CUR) < 0 ? -errno : 0;
	case CALL_READS:
		n = pread(c->fd, c->data, CALL_READ, 0);
		return n == CALL_READ ? 0 : n < 0 ? -errno : -EIO;
	case CALL_OPEN:
		fd = open(c->path, O_RDONLY | O_CLOEXEC);
		return fd < 0 || close(fd) ? -errno : 0;
	default:
		return 0;
	}
}

void call_end(struct call *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->data);
}

/* ---- durations ---- */

/* The step of a duration: eight to each power of two. */
static unsigned int step_of(uint64_t ns)
{
	unsigned int log;

	if (ns < 8)
		return (unsigned int)ns;
	log = 63u - (unsigned int)__builtin_clzll(ns);
	return (log - 2) * 8 + (unsigned int)(ns >> (log - 3) & 7);
}

/* The largest duration of a step. */
static double step_end(unsigned int step)
{
	if (step < 8)
		return step;
	return (double)(((uint64_t)(8 + step % 8 + 1) << (step / 8 - 1)) - 1);
}

void latency_add(struct latencies *l, int64_t ns)
{
	l->steps[step_of((uint64_t)ns)]++;
}

/* A percentile of all, 0 <= share < 1. */
static double percentile(const uint64_t *steps, uint64_t total, double share)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < LATENCY_STEPS; i++) {
		sum += steps[i];
		if ((double)sum > share * (double)total)
			return step_end(i);
	}
	return 0;
}

void latency_report(const struct latencies *l, unsigned int n)
{
	uint64_t steps[LATENCY_STEPS] = {0}, total = 0;

	for (unsigned int i = 0; i < n; i++)
		for (unsigned int j = 0; j < LATENCY_STEPS; j++) {
			steps[j] += l[i].steps[j];
			total += l[i].steps[j];
		}
	measure_extra("p50_ns", percentile(steps, total, 0.5));
	measure_extra("p99_ns", percentile(steps, total, 0.99));
	measure_extra("p999_ns", percentile(steps, total, 0.999));
}

/* ---- the workers ---- */

/* One worker's part. Written by it alone, read after the second barrier. */
struct worker {
	_Alignas(64) struct many *many;
	uint64_t count;
	int64_t cpu_ns;
	int64_t began, ended; /* its share of the calls, by the monotonic clock */
	int err;
};

/* In memory that processes share. */
struct many {
	pthread_barrier_t start, end;
	int argc;
	char **argv; /* of the call; the same address in a forked process */
	bool procs;
	struct worker workers[MAX_WORKERS];
	struct latencies latencies[MAX_WORKERS]; /* each its worker's */
};

static int timed_call(struct worker *w, const struct call *c)
{
	int64_t start = measure_now();
	int err = call_once(c);

	latency_add(&w->many->latencies[w - w->many->workers], measure_now() - start);
	return err;
}

static void work(struct worker *w)
{
	struct call c;
	struct timespec before, after;
	clockid_t clock = w->many->procs ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_THREAD_CPUTIME_ID;

	w->err = call_start(&c, w->many->argc, w->many->argv);
	if (!w->err)
		w->err = call_once(&c);
	pthread_barrier_wait(&w->many->start);
	clock_gettime(clock, &before);
	w->began = measure_now();
	for (uint64_t i = 0; i < w->count && !w->err; i++)
		w->err = i & TIMED_MASK ? call_once(&c) : timed_call(w, &c);
	w->ended = measure_now();
	clock_gettime(clock, &after);
	w->cpu_ns = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
	pthread_barrier_wait(&w->many->end);
	call_end(&c);
}

static void *thread_main(void *arg)
{
	work(arg);
	return NULL;
}

static int start_worker(struct many *m, unsigned int i, pthread_t *thread, pid_t *pid)
{
	if (!m->procs)
		return -pthread_create(thread, NULL, thread_main, &m->workers[i]);
	*pid = fork();
	if (*pid < 0)
		return -errno;
	if (*pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		work(&m->workers[i]);
		_exit(0);
	}
	return 0;
}

static void end_worker(const struct many *m, pthread_t thread, pid_t pid)
{
	if (!m->procs)
		pthread_join(thread, NULL);
	else
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
}

/* From the first worker's first call to the last one's end. */
static int64_t wall_of(const struct worker *workers, unsigned int n)
{
	int64_t first = workers[0].began, last = workers[0].ended;

	for (unsigned int i = 1; i < n; i++) {
		first = workers[i].began < first ? workers[i].began : first;
		last = workers[i].ended > last ? workers[i].ended : last;
	}
	return last - first;
}

static int run_workers(struct many *m, unsigned int n)
{
	pthread_t threads[MAX_WORKERS] = {0};
	pid_t pids[MAX_WORKERS] = {0};
	int err = 0;

	for (unsigned int i = 0; i < n; i++) {
		err = start_worker(m, i, &threads[i], &pids[i]);
		if (err) {
			/* Those that were started wait at a barrier that will never open. */
			while (m->procs && i--) {
				kill(pids[i], SIGKILL);
				end_worker(m, threads[i], pids[i]);
			}
			if (!m->procs && i)
				_exit(1);
			return err;
		}
	}
	/* The CPU clocks run from before the workers do: on a busy machine this thread may come late. */
	measure_begin();
	pthread_barrier_wait(&m->start);
	pthread_barrier_wait(&m->end);
	measure_end();
	measure_set_ns(wall_of(m->workers, n));
	for (unsigned int i = 0; i < n; i++) {
		end_worker(m, threads[i], pids[i]);
		if (m->procs)
			measure_add_app_ns(m->workers[i].cpu_ns);
		if (m->workers[i].err)
			err = m->workers[i].err;
	}
	latency_report(m->latencies, n);
	return err;
}

static int many(uint64_t count, int argc, char **argv, bool procs)
{
	unsigned int n = (unsigned int)strtoul(argv[0], NULL, 10);
	pthread_barrierattr_t shared;
	struct many *m;
	int err;

	if (n < 1 || n > MAX_WORKERS)
		return -EINVAL;
	m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		return -errno;
	m->argc = argc - 1;
	m->argv = argv + 1;
	m->procs = procs;
	for (unsigned int i = 0; i < n; i++) {
		m->workers[i].many = m;
		m->workers[i].count = count / n + (i < count % n);
	}
	pthread_barrierattr_init(&shared);
	pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&m->start, &shared, n + 1);
	pthread_barrier_init(&m->end, &shared, n + 1);
	err = run_workers(m, n);
	munmap(m, sizeof(*m));
	return err;
}

int run_threads(uint64_t count, int argc, char **argv)
{
	return many(count, argc, argv, false);
}

int run_procs(uint64_t count, int argc, char **argv)
{
	return many(count, argc, argv, true);
}
