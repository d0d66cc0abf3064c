/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hsc-sum - adds up the bytes of a file that a service domain holds, eight reads at a time.
 *
 *	cc hsc-sum.c $(pkg-config --cflags --libs hostsc) -o hsc-sum
 *	./hsc-sum storage data/file
 *
 * The path is below the domain's root. No scrun is needed.
 */
#include <fcntl.h>
#include <hostsc.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DEPTH 8
#define CHUNK (128 * 1024)

/* Asks for the next chunk, to be read into buffer i. */
static int ask(struct hsc_ring *ring, hsc_handle h, unsigned char *buf, unsigned int i,
	       uint64_t off)
{
	struct hsc_sqe *sqe = hsc_get_sqe(ring);

	if (!sqe)
		return -1;
	hsc_prep_read(sqe, h, buf, CHUNK, off);
	hsc_sqe_set_data64(sqe, i);
	return 0;
}

static int sum_file(struct hsc_ring *ring, hsc_handle h, uint64_t *sum, uint64_t *bytes)
{
	unsigned char *buf[DEPTH];
	unsigned int flying = 0;
	uint64_t off = 0;
	int end = 0;

	for (unsigned int i = 0; i < DEPTH; i++) {
		buf[i] = hsc_buf_alloc(ring, CHUNK);
		if (!buf[i] || ask(ring, h, buf[i], i, off))
			return -1;
		off += CHUNK;
		flying++;
	}
	while (flying) {
		struct hsc_cqe *cqe;
		unsigned int i;

		if (hsc_submit_and_wait(ring, 1) < 0 || hsc_peek_cqe(ring, &cqe) || cqe->res < 0)
			return -1;
		i = (unsigned int)cqe->user_data;
		for (int64_t k = 0; k < cqe->res; k++)
			*sum += buf[i][k];
		*bytes += (uint64_t)cqe->res;
		end |= cqe->res < CHUNK;
		hsc_cqe_seen(ring, cqe);
		flying--;
		if (end)
			continue;
		if (ask(ring, h, buf[i], i, off) == 0) {
			off += CHUNK;
			flying++;
		} else if (!flying) {
			return -1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct hsc_ring *ring;
	hsc_handle h;
	uint64_t sum = 0, bytes = 0;
	int err;

	if (argc != 3) {
		fprintf(stderr, "usage: hsc-sum DOMAIN PATH\n");
		return 2;
	}
	err = hsc_queue_init(argv[1], DEPTH, 0, &ring);
	if (err) {
		fprintf(stderr, "hsc-sum: domain %s: %s: %s\n", argv[1], strerror(-err),
			hsc_strerror(argv[1]));
		return 1;
	}
	err = hsc_open(ring, HSC_ROOT, argv[2], O_RDONLY, 0, &h);
	if (err) {
		fprintf(stderr, "hsc-sum: %s: %s\n", argv[2], strerror(-err));
		return 1;
	}
	if (sum_file(ring, h, &sum, &bytes)) {
		fprintf(stderr, "hsc-sum: cannot read %s\n", argv[2]);
		return 1;
	}
	printf("%" PRIu64 " bytes, sum %" PRIu64 "\n", bytes, sum);
	hsc_close(ring, h);
	hsc_queue_exit(ring);
	return 0;
}
