/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - sc-agent: the program that serves a service domain's calls. Options, and what has to be set up before the
 * conversation with the broker begins (control.c).
 */
#include "agent.h"
#include "control.h"
#include "log.h"
#include "transport.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "Usage: sc-agent (--device PATH | --loopback SOCKET) --root DIR [options]\n"
    "Serves the calls of a service domain: in its guest through /dev/sc, or as a process of the "
    "host\n"
    "(a loopback domain: no isolation).\n"
    "\n"
    "  --device PATH      the guest driver's device, /dev/sc\n"
    "  --loopback SOCKET  the broker's agent.sock\n"
    "  --root DIR         directory that is served\n"
    "  --role storage     what is served (default: storage)\n"
    "  --pollers N        threads that poll for requests, 1..16 (default: 1)\n"
    "  --pin CPU[,CPU..]  CPU of each poller (default: not pinned)\n"
    "  --workers N        threads for calls that may block, 1..64 (default: 8)\n"
    "  --max-spin-us N    longest spin of a poller without work, 1..10000 (default: the broker's, "
    "or 50)\n"
    "  --log-level LEVEL  error, warning, info (default) or debug\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 told to end, and all is synced; 1 a problem, which stderr names; 2 wrong "
    "usage.\n";

enum option_id {
	OPT_DEVICE = 1,
	OPT_LOOPBACK,
	OPT_ROOT,
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

static const struct option long_options[] = {
    {"device", required_argument, NULL, OPT_DEVICE},
    {"loopback", required_argument, NULL, OPT_LOOPBACK},
    {"root", required_argument, NULL, OPT_ROOT},
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
	fprintf(stderr, "sc-agent: %s: %s\nTry sc-agent --help.\n", what, value);
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
	switch (id) {
	case OPT_DEVICE:
		o->device = value;
		break;
	case OPT_LOOPBACK:
		o->loopback = value;
		break;
	case OPT_ROOT:
		o->root = value;
		break;
	case OPT_ROLE:
		if (strcmp(value, "storage"))
			bad_usage("--role: this agent serves storage only", value);
		break;
	case OPT_POLLERS:
		o->npollers = parse_number(value, "--pollers: not a number from 1 to 16", 1,
					   AGENT_MAX_POLLERS);
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
		fputs(usage, stdout);
		exit(0);
	case OPT_VERSION:
		printf("sc-agent %s (protocol version %d)\n", SC_VERSION, SC_ABI_VERSION);
		exit(0);
	default:
		fputs("Try sc-agent --help.\n", stderr);
		exit(EXIT_USAGE);
	}
}

static void parse_options(struct options *o, int argc, char **argv)
{
	int id;

	*o = (struct options){.npollers = 1,
			      .nworkers = AGENT_DEFAULT_WORKERS,
			      .sandbox = true,
			      .log_level = LOG_INFO};
	while ((id = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		parse_option(o, id, optarg);
	if (optind < argc)
		bad_usage("unexpected argument", argv[optind]);
	if (!o->device == !o->loopback)
		bad_usage("needed", "one of --device and --loopback");
	if (!o->root)
		bad_usage("needed", "--root DIR");
}

/* The kernel's setting of this name below /proc/sys is not 0. */
static bool sysctl_is_set(const char *name)
{
	char path[128], value = '0';
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, &value, 1) != 1)
		value = '0';
	close(fd);
	return value != '0';
}

/* Opens what is served, and learns what this process may and the machine has. */
static bool prepare(struct agent *agent)
{
	struct stat st;
	cpu_set_t cpus;

	agent->root_fd = open(agent->opt.root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	agent->sync_fd = open(agent->opt.root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (agent->root_fd < 0 || agent->sync_fd < 0 || fstat(agent->root_fd, &st) < 0) {
		log_error("cannot open the root directory %s: %m", agent->opt.root);
		return false;
	}
	agent->root_dev = st.st_dev;
	agent->root_ino = st.st_ino;
	if (access("/proc/self/fd", X_OK) < 0) {
		log_error("/proc is needed and not mounted: %m");
		return false;
	}
	agent->protected_links = sysctl_is_set("fs/protected_symlinks");
	agent->privileged = geteuid() == 0;
	agent->ncpus_online = 1;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		agent->ncpus_online = (uint32_t)CPU_COUNT(&cpus);
	agent->main_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (agent->main_event < 0) {
		log_error("eventfd: %m");
		return false;
	}
	return true;
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
