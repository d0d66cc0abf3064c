/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scbench-uring - the host kernel's own calls without exceptions, for scbench: io_uring with a kernel
 * thread that polls for submissions (SQPOLL), on the CPU that is the domain's otherwise. A peer: it
 * has the same two CPUs and may spin as we do, but crosses to no other kernel. See measure.h for how
 * it is spoken to; its CPU time includes the polling thread's, which belongs to this process.
 *
 * Commands (each with its COUNT):
 *	null                             one request that does nothing at a time
 *	batch DEPTH                      DEPTH of them submitted together, all awaited, and again
 *	read SIZE DEPTH END FILE [direct]   reads in file order, DEPTH under way, over again at END
 *
 * Completions are awaited by looking, as our library does while it spins.
 */
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEPTH_MAX 256u
/* Entries of the ring. The polling thread gives entries back after it has completed them: a batch finds room beside the last. */
#define ENTRIES (2 * DEPTH_MAX)
/* The polling thread goes to sleep after so long: it must not spin into the next side's sample. */
#define IDLE_MS	   1
#define PATIENCE   10000000000ll /* ns without any completion after which we give up */
#define LOOKS_MASK 0xfffff

static struct io_uring ring;

/* Looks for completions until there is one. How many there are, or -ETIME. */
static int await_some(struct io_uring_cqe **cqes)
{
	int64_t end = 0;

	for (uint64_t i = 1;; i++) {
		unsigned int n = io_uring_peek_batch_cqe(&ring, cqes, DEPTH_MAX);

		if (n)
			return (int)n;
		if (i & LOOKS_MASK)
			continue;
		if (!end)
			end = measure_now() + PATIENCE;
		else if (measure_now() > end)
			return -ETIME;
	}
}

static int batch_once(unsigned int n)
{
	struct io_uring_cqe *cqes[DEPTH_MAX];
	int got;

	for (unsigned int i = 0; i < n; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

		if (!sqe)
			return -EBUSY;
		io_uring_prep_nop(sqe);
	}
	got = io_uring_submit(&ring);
	if (got < 0)
		return got;
	while (n) {
		got = await_some(cqes);
		if (got < 0)
			return got;
		io_uring_cq_advance(&ring, (unsigned int)got);
		n -= (unsigned int)got;
	}
	return 0;
}

static int batches(uint64_t count, unsigned int depth)
{
	int err = 0;

	if (depth < 1 || depth > DEPTH_MAX)
		return -EINVAL;
	measure_begin();
	for (uint64_t left = count; left && !err; left -= left < depth ? left : depth)
		err = batch_once(left < depth ? (unsigned int)left : depth);
	measure_end();
	return err;
}

static int run_null(uint64_t count, int argc, char **argv)
{
	return batches(count, 1);
}

static int run_batch(uint64_t count, int argc, char **argv)
{
	return batches(count, (unsigned int)strtoul(argv[0], NULL, 10));
}

/* A file being read with several requests under way. */
struct reader {
	int fd;
	char *buf; /* depth buffers of size bytes */
	unsigned int size, depth;
	uint64_t pos, end; /* of the file; reading starts over at its end */
};

static int reader_ask(struct reader *r, unsigned int i)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe)
		return -EBUSY;
	if (r->pos + r->size > r->end)
		r->pos = 0;
	io_uring_prep_read(sqe, r->fd, r->buf + (size_t)i * r->size, r->size, r->pos);
	io_uring_sqe_set_data64(sqe, i);
	r->pos += r->size;
	return 0;
}

/* Takes what has completed, and asks for as many again while `left` requests are to be made. */
static int reader_turn(struct reader *r, uint64_t *left, uint64_t *taken)
{
	struct io_uring_cqe *cqes[DEPTH_MAX];
	unsigned int again[DEPTH_MAX], n = 0;
	int got = await_some(cqes), err = 0;

	if (got < 0)
		return got;
	for (int i = 0; i < got; i++) {
		if (cqes[i]->res != (int)r->size)
			err = cqes[i]->res < 0 ? cqes[i]->res : -EIO;
		again[n++] = (unsigned int)cqes[i]->user_data;
	}
	io_uring_cq_advance(&ring, (unsigned int)got);
	*taken += (unsigned int)got;
	for (unsigned int i = 0; i < n && *left && !err; i++, (*left)--)
		err = reader_ask(r, again[i]);
	if (!err)
		err = io_uring_submit(&ring);
	return err < 0 ? err : 0;
}

static int reader_loop(struct reader *r, uint64_t count)
{
	uint64_t left = count, taken = 0;
	int err = 0;

	for (unsigned int i = 0; i < r->depth && left && !err; i++, left--)
		err = reader_ask(r, i);
	if (!err)
		err = io_uring_submit(&ring);
	if (err < 0)
		return err;
	err = 0;
	while (taken < count && !err)
		err = reader_turn(r, &left, &taken);
	return err;
}

static int run_read(uint64_t count, int argc, char **argv)
{
	struct reader r = {.size = (unsigned int)strtoul(argv[0], NULL, 10),
			   .depth = (unsigned int)strtoul(argv[1], NULL, 10),
			   .end = strtoull(argv[2], NULL, 10)};
	bool direct = argc > 4 && !strcmp(argv[4], "direct");
	int err;

	if (!r.size || r.depth < 1 || r.depth > DEPTH_MAX || r.end < r.size)
		return -EINVAL;
	r.fd = open(argv[3], O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
	if (r.fd < 0)
		return -errno;
	r.buf = aligned_alloc(4096, ((size_t)r.size * r.depth + 4095) / 4096 * 4096);
	if (!r.buf) {
		close(r.fd);
		return -ENOMEM;
	}
	measure_begin();
	err = reader_loop(&r, count);
	measure_end();
	/* After an error requests may be under way, and write into the buffers: leave those alone. */
	if (!err)
		free(r.buf);
	close(r.fd);
	return err;
}

static const struct measure_command commands[] = {
    {"null", run_null, 0}, {"batch", run_batch, 1}, {"read", run_read, 4}, {NULL, NULL, 0}};

static int make_ring(int argc, char **argv)
{
	struct io_uring_params p = {.flags = IORING_SETUP_SQPOLL, .sq_thread_idle = IDLE_MS};
	int err;

	if (measure_peer_cpu >= 0) {
		p.flags |= IORING_SETUP_SQ_AFF;
		p.sq_thread_cpu = (unsigned int)measure_peer_cpu;
	}
	err = io_uring_queue_init_params(ENTRIES, &ring, &p);
	if (err) {
		fprintf(stderr, "scbench-uring: no io_uring with SQPOLL here: %s\n",
			strerror(-err));
		return 1;
	}
	err = measure_pin(measure_cpu);
	if (err)
		fprintf(stderr, "scbench-uring: cannot move to CPU %d\n", measure_cpu);
	return err ? 1 : 0;
}

int main(int argc, char **argv)
{
	return measure_main(argc, argv, commands, make_ring);
}
