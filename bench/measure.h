/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * measure.h - what the measuring helpers of scbench have in common.
 *
 * Theory of operation
 *
 * A helper is a small server: it reads commands from standard input, one a line, carries each out a
 * given number of times, and answers with one JSON line. scbench keeps the helper of the base case
 * and that of the candidate running side by side and asks them in turn, so that both meet the same
 * machine, and start-up is in no figure.
 *
 *	request:  COMMAND COUNT [ARGUMENT]...\n                (words without white space)
 *	answer:   {"ns":…,"ops":…,"app_ns":…,"agent_ns":…,"broker_ns":…,"idle_ns":…,"extra":{…}}\n
 *	or        {"error":"…"}\n
 *
 * ns is the time on the wall of COUNT operations; app_ns, agent_ns and broker_ns are the CPU time
 * that went by meanwhile in the application (this process, and children that it has reaped), in the
 * agent's process (or QEMU, whose threads the VM's CPUs are), and in the broker. The kernel keeps
 * these clocks in nanoseconds; kernel threads that work for them (write-back, network) are in none.
 * idle_ns is what the machine's CPUs idled meanwhile, all together; it moves in ticks (10 ms).
 * "extra" holds what a command has to say besides, by name: see measure_extra().
 */
#ifndef SCBENCH_MEASURE_H
#define SCBENCH_MEASURE_H

#include <stdint.h>
#include <sys/types.h>

/* The words that may follow a command and its count. */
#define MEASURE_MAX_ARGS 32

/*
 * Carries out a command `count` times (at least once) between measure_begin() and measure_end().
 * argc, argv: the words that follow the count. Returns 0, or -errno with nothing left behind.
 */
typedef int measure_fn(uint64_t count, int argc, char **argv);

/* A command of a helper. A table of them ends with name == NULL. */
struct measure_command {
	const char *name;
	measure_fn *run;
	int nargs; /* words that must follow the count, at least */
};

/* Where the threads of a measurement run: CPU numbers, or -1 for anywhere. Set by measure_main(). */
/* this process; measure_main() has moved it there unless the helper asked not to */
extern int measure_cpu;
extern int measure_peer_cpu; /* a second process that a command starts */

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t measure_now(void);

/* Starts the clocks. */
void measure_begin(void);

/* Stops the clocks. */
void measure_end(void);

/* After measure_end(): the operations took `ns` altogether; what lay between them does not count as
 * their time. */
void measure_set_ns(int64_t ns);

/* After measure_end(): the application used `ns` more, in processes that have not been reaped. */
void measure_add_app_ns(int64_t ns);

/*
 * Adds a value to this command's answer. `name` must live until then, and be a word without
 * quotes. At most MEASURE_MAX_EXTRA a command; more are dropped.
 */
#define MEASURE_MAX_EXTRA 16
void measure_extra(const char *name, double value);

/* Moves the calling thread to a CPU; -1: leaves it. 0 or -errno. */
int measure_pin(int cpu);

/*
 * Parses the options that all helpers know (--cpu N, --peer-cpu N, --agent-pid N, --broker-pid N),
 * pins, and serves commands until end of input. `prepare`, if not NULL, is called with the
 * remaining words once before; its result, if not 0, is the exit status. Returns main()'s result.
 * Not reentrant: the clocks are one set per process.
 */
int measure_main(int argc, char **argv, const struct measure_command *commands,
		 int (*prepare)(int argc, char **argv));

#endif
