/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * work_probe.c - a client that goes on calling while the domain fails and comes back.
 *
 * Command: probe COUNT PATH LOG
 *
 * For COUNT milliseconds, opens PATH, reads 4 KiB, and closes it, again and again; and besides reads
 * from a descriptor of PATH that was opened before. Writes to LOG (a path that is not served), all
 * times in nanoseconds of CLOCK_MONOTONIC:
 *
 *	B START OK FAILED        calls that ended in the BUCKET_NS from START
 *	F START END ERRNO        an open-read-close that failed
 *	G START END              one that succeeded, when none had for GAP_NS
 *	O START END ERRNO        the descriptor from before stopped to work, or (ERRNO 0) worked again
 *
 * After a failure it waits a millisecond, so as not to fill the log with failures that come at once.
 */
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define BUCKET_NS 10000000
#define GAP_NS	  5000000

struct probe {
	const char *path;
	FILE *log;
	int64_t bucket; /* its start */
	unsigned int ok, failed;
	int64_t good; /* when the last one that succeeded ended */
	int old;      /* a descriptor from before */
	int old_errno;
};

static int read_some(int fd)
{
	static char data[4096];

	return pread(fd, data, sizeof(data), 0) < 0 ? errno : 0;
}

/* open, read, close. 0 or errno. */
static int whole_call(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;

	if (fd < 0)
		return errno;
	err = read_some(fd);
	close(fd);
	return err;
}

static void count_call(struct probe *p, int64_t end, int err)
{
	while (end >= p->bucket + BUCKET_NS) {
		fprintf(p->log, "B %" PRId64 " %u %u\n", p->bucket, p->ok, p->failed);
		p->ok = p->failed = 0;
		p->bucket += BUCKET_NS;
	}
	if (err)
		p->failed++;
	else
		p->ok++;
}

static void try_whole(struct probe *p)
{
	struct timespec pause = {.tv_nsec = 1000000};
	int64_t start = measure_now(), end;
	int err = whole_call(p->path);

	end = measure_now();
	count_call(p, end, err);
	if (err) {
		fprintf(p->log, "F %" PRId64 " %" PRId64 " %d\n", start, end, err);
		nanosleep(&pause, NULL);
		return;
	}
	if (end - p->good > GAP_NS)
		fprintf(p->log, "G %" PRId64 " %" PRId64 "\n", start, end);
	p->good = end;
}

static void try_old(struct probe *p)
{
	int64_t start = measure_now();
	int err = read_some(p->old);

	if (err == p->old_errno)
		return;
	p->old_errno = err;
	fprintf(p->log, "O %" PRId64 " %" PRId64 " %d\n", start, measure_now(), err);
}

int run_probe(uint64_t count, int argc, char **argv)
{
	struct probe p = {.path = argv[0], .old = open(argv[0], O_RDONLY | O_CLOEXEC)};
	int64_t end;

	if (p.old < 0)
		return -errno;
	p.log = fopen(argv[1], "we");
	if (!p.log) {
		close(p.old);
		return -EIO;
	}
	measure_begin();
	p.bucket = p.good = measure_now();
	end = p.bucket + (int64_t)count * 1000000;
	while (measure_now() < end) {
		try_whole(&p);
		try_old(&p);
	}
	measure_end();
	close(p.old);
	return fclose(p.log) ? -EIO : 0;
}
