/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * work_pollute.c - what a call does to the caches and the TLB of its caller.
 *
 * Command (with its COUNT):
 *	pollute SHAPE NODES CALL [FILE]
 *
 * A walk follows a chain of NODES pointers in random order, each read from a cache line of its own.
 * SHAPE "lines": the lines are next to each other, so that 512 nodes fill a first-level cache of
 * 32 KiB and 16384 one of 1 MiB. SHAPE "pages": each line is in a page of its own, so that what is
 * filled is the TLB. After each walk comes one CALL ("none" for the walk alone). Only walks are in
 * the time: what they take longer than those without calls is what the call, or who carried it out
 * on this CPU, has pushed out. (A call's direct cost is other workloads' business.)
 *
 * Where the machine shows hardware counters, extras l1d_misses and dtlb_misses are those of the
 * walks, per walk, in user mode; counters_errno says why there are none.
 */
#include "work.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINE	  64u
#define PAGE	  4096u
#define NODES_MAX (1u << 20)

/* A line of the working set. */
struct node {
	struct node *next;
};

/* ---- hardware counters ---- */

#define EVENTS 2

static const struct {
	const char *name;
	uint64_t config;
} events[EVENTS] = {
    {"l1d_misses", PERF_COUNT_HW_CACHE_L1D | PERF_COUNT_HW_CACHE_OP_READ << 8 |
		       PERF_COUNT_HW_CACHE_RESULT_MISS << 16},
    {"dtlb_misses", PERF_COUNT_HW_CACHE_DTLB | PERF_COUNT_HW_CACHE_OP_READ << 8 |
			PERF_COUNT_HW_CACHE_RESULT_MISS << 16},
};

/* Opens a stopped counter of this thread in user mode. A descriptor or -errno. */
static int counter_open(uint64_t config)
{
	struct perf_event_attr attr = {
	    .size = sizeof(attr),
	    .type = PERF_TYPE_HW_CACHE,
	    .config = config,
	    .disabled = 1,
	    .exclude_kernel = 1,
	    .exclude_hv = 1,
	};
	long fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : (int)fd;
}

static void counters_switch(const int *fds, bool on)
{
	for (int i = 0; i < EVENTS; i++)
		if (fds[i] >= 0)
			ioctl(fds[i], on ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_DISABLE, 0);
}

static void counters_report(const int *fds, uint64_t walks)
{
	for (int i = 0; i < EVENTS; i++) {
		uint64_t value;

		if (fds[i] < 0)
			measure_extra("counters_errno", -fds[i]);
		else if (read(fds[i], &value, sizeof(value)) == sizeof(value))
			measure_extra(events[i].name, (double)value / (double)walks);
		if (fds[i] >= 0)
			close(fds[i]);
	}
}

/* ---- the working set ---- */

static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 33);
}

/* Address of node i. In pages, lines differ from page to page, so that they fill all sets of a cache. */
static struct node *node_at(char *set, uint32_t i, bool pages)
{
	return (struct node *)(pages ? set + (size_t)i * PAGE + i % (PAGE / LINE) * LINE
				     : set + (size_t)i * LINE);
}

/* Links all nodes into one ring in random order. 0 or -ENOMEM. */
static int link_nodes(char *set, uint32_t n, bool pages)
{
	uint32_t *order = malloc(n * sizeof(*order));
	uint64_t state = 1;

	if (!order)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	for (uint32_t i = n - 1; i > 0; i--) {
		uint32_t j = next_random(&state) % (i + 1), saved = order[i];

		order[i] = order[j];
		order[j] = saved;
	}
	for (uint32_t i = 0; i < n; i++)
		node_at(set, order[i], pages)->next = node_at(set, order[(i + 1) % n], pages);
	free(order);
	return 0;
}

static struct node *walk(struct node *at, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		at = *(struct node *volatile *)&at->next;
	return at;
}

static int run_walks(uint64_t count, struct node *at, uint32_t n, const struct call *c)
{
	int fds[EVENTS], err = 0;
	int64_t spent = 0;

	for (int i = 0; i < EVENTS; i++)
		fds[i] = counter_open(events[i].config);
	at = walk(at, n);
	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++) {
		int64_t start;

		err = call_once(c);
		counters_switch(fds, true);
		start = measure_now();
		at = walk(at, n);
		spent += measure_now() - start;
		counters_switch(fds, false);
	}
	measure_end();
	measure_set_ns(spent);
	counters_report(fds, count);
	return err;
}

int run_pollute(uint64_t count, int argc, char **argv)
{
	bool pages = !strcmp(argv[0], "pages");
	uint32_t n = (uint32_t)strtoul(argv[1], NULL, 10);
	size_t bytes = (size_t)n * (pages ? PAGE : LINE);
	struct call c;
	char *set;
	int err;

	if (n < 2 || n > NODES_MAX || (!pages && strcmp(argv[0], "lines")))
		return -EINVAL;
	err = call_start(&c, argc - 2, argv + 2);
	if (err)
		return err;
	set = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (set == MAP_FAILED) {
		err = -errno;
		call_end(&c);
		return err;
	}
	/* Small pages: with huge ones there would be no TLB to fill. */
	madvise(set, bytes, MADV_NOHUGEPAGE);
	err = link_nodes(set, n, pages);
	if (!err)
		err = run_walks(count, node_at(set, 0, pages), n, &c);
	munmap(set, bytes);
	call_end(&c);
	return err;
}
