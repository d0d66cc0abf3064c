/* SPDX-License-Identifier: BSD-3-Clause */
/* measure.c - see measure.h. */
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define COUNT_MAX 1000000000000ull

/* What the clocks showed at one moment, nanoseconds. */
struct reading {
	int64_t wall, app, agent, broker, idle;
};

int measure_cpu = -1;
int measure_peer_cpu = -1;

static pid_t agent_pid, broker_pid;
static struct reading began, ended;

static struct {
	const char *name;
	double value;
} extras[MEASURE_MAX_EXTRA];
static int nr_extras;

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	if (clock_gettime(id, &ts))
		return 0; /* a process that ended: its clock is gone */
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t measure_now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static int64_t process_ns(pid_t pid)
{
	clockid_t id;

	if (!pid || clock_getcpuclockid(pid, &id))
		return 0;
	return clock_ns(id);
}

static int64_t children_ns(void)
{
	struct rusage u;

	getrusage(RUSAGE_CHILDREN, &u);
	return ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000 +
	       ((int64_t)u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

/* What all CPUs idled since the machine started, from the first line of /proc/stat; 0 if it cannot be read. */
static int64_t idle_ns(void)
{
	char text[256];
	unsigned long long v[5] = {0};
	int fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	if (sscanf(text, "cpu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4]) != 5)
		return 0;
	return (int64_t)(v[3] + v[4]) * (1000000000 / sysconf(_SC_CLK_TCK));
}

void measure_begin(void)
{
	began.idle = idle_ns();
	began.agent = process_ns(agent_pid);
	began.broker = process_ns(broker_pid);
	began.app = clock_ns(CLOCK_PROCESS_CPUTIME_ID) + children_ns();
	began.wall = measure_now();
}

void measure_end(void)
{
	ended.wall = measure_now();
	ended.app = clock_ns(CLOCK_PROCESS_CPUTIME_ID) + children_ns();
	ended.agent = process_ns(agent_pid);
	ended.broker = process_ns(broker_pid);
	ended.idle = idle_ns();
}

void measure_set_ns(int64_t ns)
{
	ended.wall = began.wall + ns;
}

void measure_add_app_ns(int64_t ns)
{
	ended.app += ns;
}

void measure_extra(const char *name, double value)
{
	if (nr_extras == MEASURE_MAX_EXTRA)
		return;
	extras[nr_extras].name = name;
	extras[nr_extras++].value = value;
}

int measure_pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return 0;
	CPU_ZERO(&set);
	CPU_SET((unsigned int)cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

static void answer_error(const char *what)
{
	printf("{\"error\":\"%s\"}\n", what);
}

static void answer(uint64_t ops)
{
	printf("{\"ns\":%" PRId64 ",\"ops\":%" PRIu64 ",\"app_ns\":%" PRId64
	       ",\"agent_ns\":%" PRId64 ",\"broker_ns\":%" PRId64 ",\"idle_ns\":%" PRId64,
	       ended.wall - began.wall, ops, ended.app - began.app, ended.agent - began.agent,
	       ended.broker - began.broker, ended.idle - began.idle);
	for (int i = 0; i < nr_extras; i++)
		printf("%s\"%s\":%.12g", i ? "," : ",\"extra\":{", extras[i].name, extras[i].value);
	puts(nr_extras ? "}}" : "}");
}

/* Splits a line into words; returns how many, or -1 if there are too many. */
static int split(char *line, char **words, int max)
{
	char *save, *w;
	int n = 0;

	for (w = strtok_r(line, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
		if (n == max)
			return -1;
		words[n++] = w;
	}
	words[n] = NULL;
	return n;
}

static void serve_line(char *line, const struct measure_command *commands)
{
	char *words[MEASURE_MAX_ARGS + 3];
	int n = split(line, words, MEASURE_MAX_ARGS + 2), err;
	const struct measure_command *c = commands;
	uint64_t count;

	if (n < 2) {
		answer_error("a request is COMMAND COUNT [ARGUMENT]...");
		return;
	}
	while (c->name && strcmp(c->name, words[0]))
		c++;
	count = strtoull(words[1], NULL, 10);
	if (!c->name || n - 2 < c->nargs || !count || count > COUNT_MAX) {
		answer_error("no such command, or wrong arguments");
		return;
	}
	nr_extras = 0;
	err = c->run(count, n - 2, words + 2);
	if (err)
		answer_error(strerror(-err));
	else
		answer(count);
}

static int number(const char *text)
{
	char *end;
	long v = strtol(text, &end, 10);

	if (*end || end == text || v < 0 || v > INT32_MAX) {
		fprintf(stderr, "scbench helper: %s: not a number\n", text);
		exit(2);
	}
	return (int)v;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {{"cpu", required_argument, NULL, 'c'},
						{"peer-cpu", required_argument, NULL, 'p'},
						{"agent-pid", required_argument, NULL, 'a'},
						{"broker-pid", required_argument, NULL, 'b'},
						{NULL, 0, NULL, 0}};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			measure_cpu = number(optarg);
			break;
		case 'p':
			measure_peer_cpu = number(optarg);
			break;
		case 'a':
			agent_pid = number(optarg);
			break;
		case 'b':
			broker_pid = number(optarg);
			break;
		default:
			exit(2);
		}
	}
}

int measure_main(int argc, char **argv, const struct measure_command *commands,
		 int (*prepare)(int argc, char **argv))
{
	char *line = NULL;
	size_t size = 0;
	int err;

	parse(argc, argv);
	if (prepare) {
		err = prepare(argc - optind, argv + optind);
		if (err)
			return err;
	} else if (measure_pin(measure_cpu)) {
		fprintf(stderr, "scbench helper: cannot move to CPU %d\n", measure_cpu);
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (getline(&line, &size, stdin) > 0)
		serve_line(line, commands);
	free(line);
	return 0;
}
