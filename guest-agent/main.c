/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - the program that serves a service domain's calls: sc-agent, sc-agent-net. Options that all have, and what has to be set up
 * before the conversation with the broker begins (control.c); the rest is the service's (service.h).
 */
#include "agent.h"
#include "control.h"
#include "log.h"
#include "service.h"
#include "transport.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vhost-sc/wire.h>

enum option_id {
	OPT_DEVICE = 1000, /* the service's own are below */
	OPT_LOOPBACK,
	OPT_ROLE,
	OPT_POLLERS,
	OPT_PIN,
	OPT_WORKERS,
	OPT_SPIN,
	OPT_LEVEL,
	OPT_NO_SANDBOX,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option common_options[] = {
    {"device", required_argument, NULL, OPT_DEVICE},
    {"loopback", required_argument, NULL, OPT_LOOPBACK},
    {"role", required_argument, NULL, OPT_ROLE},
    {"pollers", required_argument, NULL, OPT_POLLERS},
    {"pin", required_argument, NULL, OPT_PIN},
    {"workers", required_argument, NULL, OPT_WORKERS},
    {"max-spin-us", required_argument, NULL, OPT_SPIN},
    {"log-level", required_argument, NULL, OPT_LEVEL},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

_Noreturn static void bad_usage(const char *what, const char *value)
{
	fprintf(stderr, "%s: %s: %s\nTry %s --help.\n", agent_service.program, what, value,
		agent_service.program);
	exit(EXIT_USAGE);
}

static uint32_t parse_number(const char *text, const char *what, uint32_t min, uint32_t max)
{
	char *rest;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &rest, 10);
	if (errno || rest == text || *rest || *text == '-' || n < min || n > max)
		bad_usage(what, text);
	return (uint32_t)n;
}

static void parse_cpus(struct options *o, char *text)
{
	char *save = NULL;

	o->ncpus = 0;
	for (char *cpu = strtok_r(text, ",", &save); cpu; cpu = strtok_r(NULL, ",", &save)) {
		if (o->ncpus == AGENT_MAX_POLLERS)
			bad_usage("--pin: too many CPUs from here on", cpu);
		o->cpus[o->ncpus++] =
		    (uint16_t)parse_number(cpu, "--pin: not a CPU number", 0, CPU_SETSIZE - 1);
	}
	if (!o->ncpus)
		bad_usage("--pin", "no CPU given");
}

static int parse_level(const char *text)
{
	static const struct {
		const char *name;
		int level;
	} levels[] = {{"error", LOG_ERROR},
		      {"warning", LOG_WARNING},
		      {"info", LOG_INFO},
		      {"debug", LOG_DEBUG}};

	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (!strcmp(text, levels[i].name))
			return levels[i].level;
	bad_usage("--log-level: not one of error, warning, info, debug", text);
}

static void parse_option(struct options *o, int id, char *value)
{
	const char *role = agent_service.role == SC_ROLE_STORAGE ? "storage" : "network";
	const char *wrong;

	switch (id) {
	case OPT_DEVICE:
		o->device = value;
		break;
	case OPT_LOOPBACK:
		o->loopback = value;
		break;
	case OPT_ROLE:
		if (strcmp(value, role))
			bad_usage("--role: this program is not for that", value);
		break;
	case OPT_POLLERS:
		o->npollers = parse_number(value, "--pollers: not a possible number", 1,
					   agent_service.max_pollers);
		break;
	case OPT_PIN:
		parse_cpus(o, value);
		break;
	case OPT_WORKERS:
		o->nworkers = parse_number(value, "--workers: not a number from 1 to 64", 1,
					   AGENT_MAX_WORKERS);
		break;
	case OPT_SPIN:
		o->max_spin_us =
		    parse_number(value, "--max-spin-us: not a number from 1 to 10000", 1, 10000);
		break;
	case OPT_LEVEL:
		o->log_level = parse_level(value);
		break;
	case OPT_NO_SANDBOX:
		o->sandbox = false;
		break;
	case OPT_HELP:
		fputs(agent_service.usage, stdout);
		exit(0);
	case OPT_VERSION:
		printf("%s %s (protocol version %d)\n", agent_service.program, SC_VERSION,
		       SC_ABI_VERSION);
		exit(0);
	case '?':
		fprintf(stderr, "Try %s --help.\n", agent_service.program);
		exit(EXIT_USAGE);
	default:
		wrong = agent_service.option(o, id, value);
		if (wrong)
			bad_usage(wrong, value);
	}
}

/* The options of this file and of the service in one table. */
static const struct option *all_options(void)
{
	static struct option all[64];
	size_t n = 0;

	for (const struct option *o = common_options; o->name; o++)
		all[n++] = *o;
	for (const struct option *o = agent_service.options; o->name; o++)
		all[n++] = *o;
	return all;
}

static void parse_options(struct options *o, int argc, char **argv)
{
	const char *missing;
	int id;

	*o = (struct options){.npollers = 1,
			      .nworkers = AGENT_DEFAULT_WORKERS,
			      .sandbox = true,
			      .log_level = LOG_INFO};
	while ((id = getopt_long(argc, argv, "", all_options(), NULL)) != -1)
		parse_option(o, id, optarg);
	if (optind < argc)
		bad_usage("unexpected argument", argv[optind]);
	if (!o->device == !o->loopback)
		bad_usage("needed", "one of --device and --loopback");
	missing = agent_service.check_options(o);
	if (missing)
		bad_usage("needed", missing);
}

/* Learns what this process may, and what the machine has; then the service opens what it serves. */
static bool prepare(struct agent *agent)
{
	cpu_set_t cpus;

	agent->service = &agent_service;
	agent->copy_pays = copy_pays();
	agent->privileged = geteuid() == 0;
	agent->ncpus_online = 1;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		agent->ncpus_online = (uint32_t)CPU_COUNT(&cpus);
	agent->main_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (agent->main_event < 0) {
		log_error("eventfd: %m");
		return false;
	}
	return agent_service.prepare(agent);
}

/* Before any thread starts, so that all inherit it. */
static void set_up_process(void)
{
	sigset_t set;

	umask(0); /* callers' count: mode_to_create() */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file too large is the call's error */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

int main(int argc, char **argv)
{
	static struct agent agent;
	int status;

	parse_options(&agent.opt, argc, argv);
	log_init(agent.opt.log_level, -1);
	set_up_process();
	if (!prepare(&agent))
		return EXIT_PROBLEM;
	log_init(agent.opt.log_level, agent.main_event);
	agent.tr = agent.opt.device ? transport_open_device(agent.opt.device)
				    : transport_open_loopback(agent.opt.loopback);
	if (!agent.tr)
		return EXIT_PROBLEM;
	status = control_run(&agent);
	fflush(NULL);
	_exit(status); /* threads may still run: they end with the process, not with its data */
}
