/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * work.h - the parts of scbench-work: commands that live in files of their own. All are measure_fn
 * (measure.h), and used by one thread only: the one that serves commands.
 */
#ifndef SCBENCH_WORK_H
#define SCBENCH_WORK_H

#include "measure.h"

/* ---- work_io.c: data ---- */
measure_fn run_read, run_write, run_fsync, run_fill, run_io;
/* Frees what the commands above keep between requests. */
void io_end(void);

/* ---- work_many.c: many at once ---- */
measure_fn run_threads, run_procs;

/*
 * A call that some commands repeat: one of "none", "getppid", "lseek", "read" (4 KiB from the
 * beginning of a file), "open" (open and close). What it needs is prepared by call_start(), once in
 * each thread or process; `words` are the call's name and, for the last three, a file.
 */
struct call {
	int kind;
	int fd; /* or -1 */
	const char *path;
	char *data; /* CALL_READ bytes, or NULL */
};
#define CALL_READ 4096
/* 0, -EINVAL for an unknown call or a missing file, or -errno of opening it. */
int call_start(struct call *c, int argc, char **argv);
/* One call. 0 or -errno. */
int call_once(const struct call *c);
void call_end(struct call *c);

/* Durations of calls: eight steps to each power of two. Zeroed to begin with; written by one thread. */
#define LATENCY_STEPS (64 * 8)
struct latencies {
	uint32_t steps[LATENCY_STEPS];
};
void latency_add(struct latencies *l, int64_t ns);
/* Extras p50_ns, p99_ns, p999_ns of `n` of them together (upper bounds of their steps). */
void latency_report(const struct latencies *l, unsigned int n);

/* ---- work_net.c: sockets ---- */
measure_fn run_netserve, run_netrr, run_netudp, run_nettx, run_netrx, run_netconn, run_nethttp;

/* ---- work_pollute.c ---- */
measure_fn run_pollute;

/* ---- work_probe.c ---- */
measure_fn run_probe;

#endif
