/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scbench-ring - null calls and reads through the C API (hostsc.h), for scbench. See measure.h for
 * how it is spoken to.
 *
 *	scbench-ring [--cpu N] [--sleepy] [measure.h's options] DOMAIN
 *
 * Commands:
 *	null COUNT                       one call at a time
 *	batch COUNT DEPTH                DEPTH calls submitted together, all awaited, and again
 *	pause COUNT MICROSECONDS         one call at a time, each after a pause in which the agent
 *	                                 falls asleep; the pauses are not in the time, but what they
 *	                                 cost is in the CPU times
 *	read, write COUNT SIZE DEPTH END PATH [direct]   reads of a file below the export root into shared
 *	                                 buffers, DEPTH under way, over again at END
 *	threads COUNT N                  N threads with a ring each, COUNT null calls together
 *	idle COUNT                       COUNT milliseconds of doing nothing
 *
 * --sleepy: moves to the CPU before it attaches. The library does not spin when it may run on one
 * CPU only, so that every wait of such a process sleeps. Without it the process attaches first, sees
 * all CPUs, and spins as it would.
 */
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <hostsc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEPTH_MAX   256u
#define THREADS_MAX 256u
#define WAIT_MS	    30000u

static struct hsc_ring *ring;
static unsigned int ring_depth;
static const char *domain;

/* Takes one completion and returns its result. */
static int64_t take(struct hsc_ring *r)
{
	struct hsc_cqe *cqe;
	int64_t res;
	int err = hsc_wait_cqe_timeout(r, &cqe, WAIT_MS);

	if (err)
		return err;
	res = cqe->res;
	hsc_cqe_seen(r, cqe);
	return res;
}

static int null_on(struct hsc_ring *r)
{
	struct hsc_sqe *sqe = hsc_get_sqe(r);
	int n;

	if (!sqe)
		return -EBUSY;
	hsc_prep_nop(sqe, 0);
	n = hsc_submit(r);
	return n < 0 ? n : (int)take(r);
}

/*
 * Sees to it that the ring has room for what a command has under way, and for no more: each slot is a line of memory that
 * both sides use in turn, and keep in their caches between times. To be called outside of the time.
 */
static int ring_for(unsigned int depth)
{
	struct hsc_ring *made;
	int err;

	if (ring_depth == depth)
		return 0;
	/* The new one first: without any, the process would let go of its channel. */
	err = hsc_queue_init(domain, depth < 2 ? 2 : depth, 0, &made);
	if (err)
		return err;
	if (ring)
		hsc_queue_exit(ring);
	ring = made;
	ring_depth = depth;
	return null_on(ring); /* whatever is done once, is done now */
}

static int null_once(void)
{
	return null_on(ring);
}

static int run_null(uint64_t count, int argc, char **argv)
{
	int err = ring_for(1);

	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++)
		err = null_once();
	measure_end();
	return err;
}

/* Submits `n` null calls together and takes their completions. */
static int null_batch(unsigned int n)
{
	struct hsc_cqe *cqes[DEPTH_MAX];
	unsigned int got, left = n;
	int err;

	for (unsigned int i = 0; i < n; i++) {
		struct hsc_sqe *sqe = hsc_get_sqe(ring);

		if (!sqe)
			return -EBUSY;
		hsc_prep_nop(sqe, i);
	}
	err = hsc_submit(ring);
	if (err < 0)
		return err;
	while (left) {
		got = hsc_peek_batch_cqe(ring, cqes, left);
		if (!got) {
			err = hsc_wait_cqe_timeout(ring, cqes, WAIT_MS);
			if (err)
				return err;
			continue;
		}
		hsc_cq_advance(ring, got);
		left -= got;
	}
	return 0;
}

static int run_batch(uint64_t count, int argc, char **argv)
{
	unsigned int depth = (unsigned int)strtoul(argv[0], NULL, 10);
	int err = 0;

	if (depth < 1 || depth > DEPTH_MAX)
		return -EINVAL;
	err = ring_for(depth);
	measure_begin();
	for (uint64_t left = count; left && !err; left -= left < depth ? left : depth)
		err = null_batch(left < depth ? (unsigned int)left : depth);
	measure_end();
	return err;
}

static void pause_us(long us)
{
	struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	nanosleep(&ts, NULL);
}

static int run_pause(uint64_t count, int argc, char **argv)
{
	long us = strtol(argv[0], NULL, 10);
	int64_t spent = 0;
	int err = ring_for(1);

	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++) {
		int64_t start;

		pause_us(us);
		start = measure_now();
		err = null_once();
		spent += measure_now() - start;
	}
	measure_end();
	measure_set_ns(spent);
	return err;
}

static int run_idle(uint64_t count, int argc, char **argv)
{
	measure_begin();
	pause_us((long)count * 1000);
	measure_end();
	return 0;
}

/* A file being read or written with several requests under way. */
struct reader {
	hsc_handle h;
	bool out; /* written */
	void *buf[DEPTH_MAX];
	unsigned int size, depth;
	uint64_t pos, end; /* of the file; begins over at its end */
};

static int reader_ask(struct reader *r, unsigned int i)
{
	struct hsc_sqe *sqe = hsc_get_sqe(ring);

	if (!sqe)
		return -EBUSY;
	if (r->pos + r->size > r->end)
		r->pos = 0;
	if (r->out)
		hsc_prep_write(sqe, r->h, r->buf[i], r->size, r->pos);
	else
		hsc_prep_read(sqe, r->h, r->buf[i], r->size, r->pos);
	hsc_sqe_set_data64(sqe, i);
	r->pos += r->size;
	return 0;
}

/* Awaits one and returns its buffer's number, or -errno. */
static int reader_take(struct reader *r)
{
	struct hsc_cqe *cqe;
	int i = hsc_wait_cqe_timeout(ring, &cqe, WAIT_MS);

	if (i)
		return i;
	i = (int)cqe->user_data;
	if (cqe->res != (int64_t)r->size)
		i = cqe->res < 0 ? (int)cqe->res : -EIO;
	hsc_cqe_seen(ring, cqe);
	return i;
}

static int reader_loop(struct reader *r, uint64_t count)
{
	uint64_t asked = 0, taken = 0;
	int err = 0, i;

	for (; asked < count && asked < r->depth && !err; asked++)
		err = reader_ask(r, (unsigned int)asked);
	while (!err && taken < count) {
		err = hsc_submit(ring);
		if (err < 0)
			return err;
		i = reader_take(r);
		if (i < 0)
			return i;
		taken++;
		err = asked < count ? reader_ask(r, (unsigned int)i) : 0;
		asked++;
	}
	return err;
}

static int move_data(uint64_t count, int argc, char **argv, bool out)
{
	struct reader r = {.out = out,
			   .size = (unsigned int)strtoul(argv[0], NULL, 10),
			   .depth = (unsigned int)strtoul(argv[1], NULL, 10),
			   .end = strtoull(argv[2], NULL, 10)};
	bool direct = argc > 4 && !strcmp(argv[4], "direct");
	int err;

	if (!r.size || r.depth < 1 || r.depth > DEPTH_MAX || r.end < r.size)
		return -EINVAL;
	err = ring_for(DEPTH_MAX); /* slots are used in order, answers come in any */
	if (err)
		return err;
	err = hsc_open(ring, HSC_ROOT, argv[3], O_RDWR | (direct ? O_DIRECT : 0), 0, &r.h);
	if (err)
		return err;
	for (unsigned int i = 0; i < r.depth && !err; i++) {
		r.buf[i] = hsc_buf_alloc(ring, r.size);
		if (!r.buf[i])
			err = -ENOMEM;
		else
			memset(r.buf[i], 1, r.size);
	}
	measure_begin();
	if (!err)
		err = reader_loop(&r, count);
	measure_end();
	for (unsigned int i = 0; i < r.depth; i++)
		if (r.buf[i])
			hsc_buf_free(ring, r.buf[i]);
	hsc_close(ring, r.h);
	return err;
}

static int run_read(uint64_t count, int argc, char **argv)
{
	return move_data(count, argc, argv, false);
}

static int run_write(uint64_t count, int argc, char **argv)
{
	return move_data(count, argc, argv, true);
}

/* ---- many threads ---- */

/* One thread's part of run_threads(). */
struct worker {
	_Alignas(64) pthread_t thread;
	pthread_barrier_t *start, *end;
	uint64_t count;
	int64_t began, ended; /* its calls, by the monotonic clock */
	int err;
};

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct hsc_ring *mine = NULL;

	w->err = hsc_queue_init(domain, 2, 0, &mine);
	if (!w->err)
		w->err = null_on(mine); /* whatever is done once, is done now */
	pthread_barrier_wait(w->start);
	w->began = measure_now();
	for (uint64_t i = 0; i < w->count && !w->err; i++)
		w->err = null_on(mine);
	w->ended = measure_now();
	pthread_barrier_wait(w->end);
	if (mine)
		hsc_queue_exit(mine);
	return NULL;
}

static int run_threads(uint64_t count, int argc, char **argv)
{
	unsigned int n = (unsigned int)strtoul(argv[0], NULL, 10);
	struct worker workers[THREADS_MAX] = {0};
	pthread_barrier_t start, end;
	int64_t first, last;
	int err = 0;

	if (n < 1 || n > THREADS_MAX)
		return -EINVAL;
	pthread_barrier_init(&start, NULL, n + 1);
	pthread_barrier_init(&end, NULL, n + 1);
	for (unsigned int i = 0; i < n; i++) {
		workers[i] = (struct worker){
		    .start = &start, .end = &end, .count = count / n + (i < count % n)};
		/* Those that run already wait for this one: there is no way back. */
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]))
			exit(1);
	}
	/* The CPU clocks run from before the workers do: on a busy machine this thread may come late. */
	measure_begin();
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&end);
	measure_end();
	first = workers[0].began;
	last = workers[0].ended;
	for (unsigned int i = 0; i < n; i++) {
		pthread_join(workers[i].thread, NULL);
		first = workers[i].began < first ? workers[i].began : first;
		last = workers[i].ended > last ? workers[i].ended : last;
		if (workers[i].err)
			err = workers[i].err;
	}
	measure_set_ns(last - first);
	return err;
}

static const struct measure_command commands[] = {
    {"null", run_null, 0}, {"batch", run_batch, 1}, {"pause", run_pause, 1},
    {"read", run_read, 4}, {"write", run_write, 4}, {"threads", run_threads, 1},
    {"idle", run_idle, 0}, {NULL, NULL, 0},
};

static bool sleepy;

static int attach(int argc, char **argv)
{
	int err = sleepy ? measure_pin(measure_cpu) : 0;

	if (argc != 1) {
		fprintf(stderr, "usage: scbench-ring [options] DOMAIN\n");
		return 2;
	}
	domain = argv[0];
	if (!err)
		err = ring_for(1);
	if (err) {
		fprintf(stderr, "scbench-ring: domain %s: %s: %s\n", argv[0], strerror(-err),
			hsc_strerror(argv[0]));
		return 1;
	}
	err = measure_pin(measure_cpu);
	if (err)
		fprintf(stderr, "scbench-ring: cannot move to CPU %d\n", measure_cpu);
	return err ? 1 : 0;
}

int main(int argc, char **argv)
{
	int status;

	if (argc > 1 && !strcmp(argv[1], "--sleepy")) {
		sleepy = true;
		argv[1] = argv[0];
		argc--;
		argv++;
	}
	status = measure_main(argc, argv, commands, attach);
	if (ring)
		hsc_queue_exit(ring);
	return status;
}
