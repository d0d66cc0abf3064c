/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hsc - the C API against a running domain: each function, batches, errors, buffers, misuse. Prints what it did; exit
 * status 0 if all was right. Run by loopback.py with the domain's name as argument.
 */
#include <errno.h>
#include <fcntl.h>
#include <hostsc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <pthread.h>

#define DEPTH 32

static int failures;
static const char *domain;

#define CHECK(x)                                                         \
	do {                                                             \
		if (!(x)) {                                              \
			fprintf(stderr, "hsc.c:%d: %s\n", __LINE__, #x); \
			failures++;                                      \
		}                                                        \
	} while (0)

/* Submits one prepared request and returns its result. */
static int64_t one(struct hsc_ring *r, struct hsc_sqe *sqe)
{
	struct hsc_cqe *cqe;
	int64_t res;

	hsc_sqe_set_data64(sqe, 77);
	CHECK(hsc_submit(r) == 1);
	CHECK(hsc_wait_cqe(r, &cqe) == 0);
	CHECK(cqe->user_data == 77);
	res = cqe->res;
	hsc_cqe_seen(r, cqe);
	return res;
}

static void test_batch(struct hsc_ring *r)
{
	struct hsc_cqe *cqes[DEPTH];
	uint64_t seen = 0;
	unsigned int n;

	CHECK(hsc_sq_space_left(r) == DEPTH);
	for (uint64_t i = 0; i < DEPTH; i++) {
		struct hsc_sqe *sqe = hsc_get_sqe(r);

		CHECK(sqe != NULL);
		if (!sqe)
			return;
		hsc_prep_nop(sqe, (uint32_t)i);
		hsc_sqe_set_data64(sqe, i);
	}
	CHECK(hsc_get_sqe(r) == NULL);
	CHECK(hsc_submit_and_wait(r, DEPTH) == DEPTH);
	n = hsc_peek_batch_cqe(r, cqes, DEPTH);
	CHECK(n == DEPTH);
	for (unsigned int i = 0; i < n; i++) {
		CHECK(cqes[i]->res == (int64_t)cqes[i]->user_data);
		seen |= 1ull << cqes[i]->user_data;
	}
	CHECK(hsc_get_sqe(r) == NULL);
	hsc_cq_advance(r, n);
	CHECK(seen == (1ull << DEPTH) - 1);
	CHECK(hsc_sq_space_left(r) == DEPTH);
	CHECK(hsc_peek_cqe(r, cqes) == -EAGAIN);
	CHECK(hsc_wait_cqe(r, cqes) == -EINVAL);
}

static void test_file(struct hsc_ring *r)
{
	char *buf = hsc_buf_alloc(r, 10000), mine[16];
	struct hsc_sqe *sqe;
	struct statx st;
	hsc_handle h = 0;

	CHECK(buf != NULL);
	CHECK(hsc_open(r, HSC_ROOT, "hsc-file", O_RDWR | O_CREAT | O_TRUNC, 0640, &h) == 0);
	memset(buf, 'a', 10000);
	hsc_prep_write(sqe = hsc_get_sqe(r), h, buf, 10000, 0);
	CHECK(one(r, sqe) == 10000);
	memset(buf, 0, 10000);
	hsc_prep_read(sqe = hsc_get_sqe(r), h, buf, 10000, 5000);
	CHECK(one(r, sqe) == 5000);
	CHECK(buf[0] == 'a' && buf[4999] == 'a' && buf[5000] == 0);
	hsc_prep_read(sqe = hsc_get_sqe(r), h, buf, 10, ~0ull);
	CHECK(one(r, sqe) == 10);
	hsc_prep_read(sqe = hsc_get_sqe(r), h, mine, sizeof(mine), 0);
	CHECK(one(r, sqe) == -EFAULT);
	hsc_prep_fsync(sqe = hsc_get_sqe(r), h, HSC_FSYNC_DATASYNC);
	CHECK(one(r, sqe) == 0);
	hsc_prep_ftruncate(sqe = hsc_get_sqe(r), h, 123);
	CHECK(one(r, sqe) == 0);
	hsc_prep_statx(sqe = hsc_get_sqe(r), HSC_ROOT, "hsc-file", 0, STATX_BASIC_STATS, &st);
	CHECK(one(r, sqe) == 0);
	CHECK(st.stx_size == 123 && (st.stx_mode & 07777) == 0640);
	CHECK(hsc_close(r, h) == 0);
	hsc_prep_read(sqe = hsc_get_sqe(r), h, buf, 10, 0);
	CHECK(one(r, sqe) == -EBADF);
	hsc_prep_rename(sqe = hsc_get_sqe(r), HSC_ROOT, "hsc-file", HSC_ROOT, "hsc-file2", 0);
	CHECK(one(r, sqe) == 0);
	hsc_prep_mkdir(sqe = hsc_get_sqe(r), HSC_ROOT, "hsc-file2", 0700);
	CHECK(one(r, sqe) == -EEXIST);
	hsc_prep_unlink(sqe = hsc_get_sqe(r), HSC_ROOT, "hsc-file2", 0);
	CHECK(one(r, sqe) == 0);
	CHECK(hsc_open(r, HSC_ROOT, "hsc-file2", O_RDONLY, 0, &h) == -ENOENT);
	hsc_buf_free(r, buf);
}

static void test_buffers(struct hsc_ring *r)
{
	void *b[8], *big;

	for (int i = 0; i < 8; i++)
		CHECK((b[i] = hsc_buf_alloc(r, 5000)) != NULL);
	for (int i = 0; i < 8; i++)
		for (int k = 0; k < i; k++)
			CHECK(labs((char *)b[i] - (char *)b[k]) >= 8192);
	hsc_buf_free(r, b[3]);
	CHECK(hsc_buf_alloc(r, 8192) == b[3]);
	big = hsc_buf_alloc(r, 1 << 20);
	CHECK(big != NULL);
	hsc_buf_free(r, big);
	CHECK(hsc_buf_alloc(r, 0) == NULL);
	CHECK(hsc_buf_alloc(r, 5 << 20) == NULL);
	hsc_buf_free(r, NULL);
	hsc_buf_free(r, (char *)b[4] + 1);
	for (int i = 0; i < 8; i++)
		hsc_buf_free(r, b[i]);
}

static void *thread(void *arg)
{
	struct hsc_ring *r;

	(void)arg;
	CHECK(hsc_queue_init(domain, DEPTH, 0, &r) == 0);
	for (int i = 0; i < 50; i++)
		test_batch(r);
	hsc_queue_exit(r);
	return NULL;
}

int main(int argc, char **argv)
{
	struct hsc_ring *r;
	pthread_t t[4];
	int status;
	pid_t pid;

	if (argc != 2)
		return 2;
	domain = argv[1];
	CHECK(hsc_queue_init("no.such.domain", 8, 0, &r) == -EIO);
	CHECK(*hsc_strerror("no.such.domain"));
	CHECK(hsc_queue_init(".bad", 8, 0, &r) == -EINVAL);
	CHECK(hsc_queue_init(domain, 1000, 0, &r) == -EINVAL);
	CHECK(hsc_queue_init(domain, DEPTH, 0, &r) == 0);
	if (failures)
		return 1;
	test_batch(r);
	test_file(r);
	test_buffers(r);
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, thread, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	pid = fork();
	if (!pid) {
		CHECK(hsc_queue_init(domain, DEPTH, 0, &r) == 0);
		test_batch(r);
		hsc_queue_exit(r);
		_exit(failures != 0);
	}
	waitpid(pid, &status, 0);
	CHECK(status == 0);
	test_batch(r);
	hsc_queue_exit(r);
	for (int i = 0; i < 300; i++) { /* nothing is used up */
		CHECK(hsc_queue_init(domain, DEPTH, 0, &r) == 0);
		hsc_queue_exit(r);
	}
	printf("hsc: %d failures\n", failures);
	return failures != 0;
}
