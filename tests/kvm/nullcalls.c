/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nullcalls - calls that do nothing, with marks in the kernel's trace, to see what each costs KVM.
 *
 *	nullcalls DOMAIN MARKER spin ROUNDS CALLS     rounds of CALLS calls one after the other
 *	nullcalls DOMAIN MARKER sleep CALLS PAUSE     CALLS calls, each after PAUSE milliseconds
 *	nullcalls DOMAIN MARKER bell CALLS PAUSE      no calls: the bells that a sleeping call rings, for comparison
 *
 * MARKER is the kernel's trace_marker. An interval without calls follows each interval with calls and is as long, for
 * comparison: what KVM does then (timer ticks of host and guest) is no call's doing. The marks are "sc calls ROUND",
 * "sc idle ROUND", "sc end ROUND".
 *
 * "spin": calls follow so closely that neither side goes to sleep, unless something takes its processor away; the idle
 * interval is spent spinning, within the time for which the domain's poller spins. "sleep": both sides sleep before each
 * call, and the interval lasts until they sleep again. "bell": the eventfd that wakes the agent is rung, with nothing
 * for the agent to do.
 *
 * Prints "ROUNDS rounds of CALLS calls, NS ns per call". "spin" then prints a line "BEGIN END" for each call, in nanoseconds
 * of the monotonic clock, which is the trace's: what happened during a call, and whether it was one during which its
 * caller can have given up spinning, is seen from that. Used by tests/vm/kvm_inside.py.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hostsc.h"

#define WARM_UP 3000 /* calls until both sides have learned to spin */

static struct hsc_ring *ring;
static int marker;

static void fail(const char *what, int err)
{
	fprintf(stderr, "nullcalls: %s: %s\n", what, strerror(-err));
	exit(1);
}

static void mark(const char *what, long round)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "sc %s %ld", what, round);

	if (write(marker, text, (size_t)n) != n)
		fail("trace_marker", -errno);
}

static long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static void pause_ms(long ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	nanosleep(&ts, NULL);
}

static void call(uint32_t value)
{
	struct hsc_sqe *sqe = hsc_get_sqe(ring);
	struct hsc_cqe *cqe;
	int err;

	if (!sqe)
		fail("hsc_get_sqe", -EBUSY);
	hsc_prep_nop(sqe, value);
	err = hsc_submit(ring);
	if (err < 0)
		fail("hsc_submit", err);
	err = hsc_wait_cqe(ring, &cqe);
	if (err)
		fail("hsc_wait_cqe", err);
	if (cqe->res != value)
		fail("another result than was asked for", -EIO);
	hsc_cqe_seen(ring, cqe);
}

/* Returns the nanoseconds that all calls took. times: room for begin and end of each call. */
static long spin(long rounds, long calls, long *times)
{
	long all = 0;

	for (uint32_t i = 0; i < WARM_UP; i++)
		call(i);
	for (long r = 0; r < rounds; r++) {
		long start, took;

		mark("calls", r);
		start = now_ns();
		for (long i = 0; i < calls; i++) {
			*times++ = now_ns();
			call((uint32_t)i);
			*times++ = now_ns();
		}
		took = now_ns() - start;
		mark("idle", r);
		start = now_ns();
		while (now_ns() - start < took)
			__builtin_ia32_pause();
		mark("end", r);
		all += took;
	}
	return all;
}

/* Rings whatever this process could ring: of its two eventfds one wakes the agent, the other nobody but itself. */
static void bell(void)
{
	DIR *d = opendir("/proc/self/fd");
	int rung = 0;
	struct dirent *e;

	if (!d)
		fail("/proc/self/fd", -errno);
	while ((e = readdir(d))) {
		char what[32] = "";
		uint64_t one = 1;

		if (readlinkat(dirfd(d), e->d_name, what, sizeof(what) - 1) > 0 &&
		    !strcmp(what, "anon_inode:[eventfd]"))
			rung += write(atoi(e->d_name), &one, sizeof(one)) == sizeof(one);
	}
	closedir(d);
	if (rung != 2)
		fail("another number of eventfds than 2", -EPROTO);
}

static long sleeping(long calls, long ms, int with_call)
{
	long all = 0;

	for (long i = 0; i < calls; i++) {
		long start, span;

		pause_ms(ms);
		mark("calls", i);
		start = now_ns();
		if (with_call)
			call((uint32_t)i);
		else
			bell();
		all += now_ns() - start;
		pause_ms(ms);
		span = (now_ns() - start) / 1000000;
		mark("idle", i);
		pause_ms(span);
		mark("end", i);
	}
	return all;
}

int main(int argc, char **argv)
{
	long first, second, took, *times = NULL;
	int err;

	if (argc != 6) {
		fprintf(
		    stderr,
		    "usage: nullcalls DOMAIN MARKER spin ROUNDS CALLS | sleep|bell CALLS PAUSE\n");
		return 2;
	}
	first = strtol(argv[4], NULL, 10);
	second = strtol(argv[5], NULL, 10);
	marker = open(argv[2], O_WRONLY | O_CLOEXEC);
	if (marker < 0)
		fail(argv[2], -errno);
	err = hsc_queue_init(argv[1], 2, 0, &ring);
	if (err) {
		fprintf(stderr, "nullcalls: %s\n", hsc_strerror(argv[1]));
		return 1;
	}
	if (!strcmp(argv[3], "spin")) {
		times = calloc((size_t)(first * second * 2), sizeof(*times));
		if (!times)
			fail("calloc", -ENOMEM);
		memset(times, 1,
		       (size_t)(first * second * 2) *
			   sizeof(*times)); /* no page fault between calls */
		took = spin(first, second, times);
	} else {
		took = sleeping(first, second, !strcmp(argv[3], "sleep"));
		second = 1;
	}
	printf("%ld rounds of %ld calls, %ld ns per call\n", first, second,
	       took / (first * second));
	for (long i = 0; times && i < first * second; i++)
		printf("%ld %ld\n", times[2 * i], times[2 * i + 1]);
	free(times);
	hsc_queue_exit(ring);
	return 0;
}
