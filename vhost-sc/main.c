/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - vhost-scd, the broker of one service domain.
 *
 * It makes the memory that processes and the domain's guest share, hands it to both, and takes it
 * back when either ends. It is the vhost-user back end of the VM's virtio-sc device and the place
 * where processes attach. It is never on a call's path. broker.h has the plan of the parts; this
 * file reads the command line, takes the lock that makes a broker its domain's only one, and runs
 * the loop.
 *
 * It runs as root in general: to read any process's start time, to open pidfds of other users'
 * processes, and because it has to be trusted with all users' data anyway.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker.h"
#include "closer.h"
#include "log.h"
#include "sandbox.h"
#include "sock.h"

#include <vhost-sc/wire.h>

static const char usage[] =
    "usage: vhost-scd --name NAME --role storage|network [options]\n"
    "\n"
    "The broker of one service domain: QEMU connects to its vhost-user socket,\n"
    "programs attach to it.\n"
    "\n"
    "  --name NAME           the domain's name\n"
    "  --role ROLE           storage or network\n"
    "  --rundir DIR          sockets go to DIR/NAME (default: $VHOST_SC_RUNDIR or /run/vhost-sc)\n"
    "  --vhost-socket PATH   the vhost-user socket (default: DIR/NAME/vhost.sock)\n"
    "  --loopback            serve a local agent (agent.sock) instead of a VM: not isolated\n"
    "\n"
    "  --channels N          processes that can attach, 1 to 254 (default: 127)\n"
    "  --window-size BYTES   the device's shared memory, with suffix K, M or G (default: 2304M)\n"
    "  --channel-size BYTES  if given, must be what window and channels make (16M by default)\n"
    "  --lanes N             lanes per channel (default: 128)\n"
    "  --entries N           requests per lane, a power of two (default: 256)\n"
    "  --huge 2M             channels on 2 MiB huge pages\n"
    "  --numa-node N         channels in the memory of NUMA node N, as far as it has room\n"
    "\n"
    "  --allow-user U,...    users who may attach (default: everybody)\n"
    "  --allow-group G,...   groups whose members may attach\n"
    "  --max-per-user N      channels that one user may have; root is not limited\n"
    "                        (default: three quarters of all)\n"
    "  --socket-mode MODE    permissions of attach.sock, octal (default: 0666)\n"
    "  --deadline-ms N       callers of a domain that is gone or silent get EIO after N ms\n"
    "                        (default: 300000)\n"
    "  --hang-ms N           an agent hangs that is silent for N ms with calls pending (default: "
    "1000; 0: do not look)\n"
    "  --detach-ms N         the agent may use the memory of a process that ended for N ms\n"
    "                        more, to finish what it has begun (default: 30000)\n"
    "  --state BYTES         memory that keeps what is open while the VM is gone: 1M to 1G, "
    "rounded\n"
    "                        up to a power of two (default: 16M, enough for 50000 files)\n"
    "  --retain BYTES        storage: memory that keeps changes which the VM has not yet on its\n"
    "                        disk, likewise (default: 64M; 0: none are kept, and what the guest\n"
    "                        had not written dies with it)\n"
    "\n"
    "  --log FILE            log to FILE (default: standard error)\n"
    "  --log-level LEVEL     error, warn, info or debug (default: info)\n"
    "  --foreground          stay in the foreground (default)\n"
    "  --daemonize           go to the background once everything is ready\n"
    "  --pidfile FILE        write the process id to FILE\n"
    "  --help, --version\n"
    "\n"
    "Signals: TERM ends it, HUP opens the log again, USR2 replaces it by a new run of the\n"
    "program without disturbing anybody.\n";

enum option_code {
	OPT_NAME = 256,
	OPT_ROLE,
	OPT_RUNDIR,
	OPT_VHOST_SOCKET,
	OPT_LOOPBACK,
	OPT_CHANNELS,
	OPT_WINDOW_SIZE,
	OPT_CHANNEL_SIZE,
	OPT_LANES,
	OPT_ENTRIES,
	OPT_HUGE,
	OPT_NUMA_NODE,
	OPT_ALLOW_USER,
	OPT_ALLOW_GROUP,
	OPT_MAX_PER_USER,
	OPT_SOCKET_MODE,
	OPT_DEADLINE_MS,
	OPT_DETACH_MS,
	OPT_STATE,
	OPT_RETAIN,
	OPT_HANG,
	OPT_LOG,
	OPT_LOG_LEVEL,
	OPT_FOREGROUND,
	OPT_DAEMONIZE,
	OPT_PIDFILE,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option options[] = {
    {"name", required_argument, NULL, OPT_NAME},
    {"role", required_argument, NULL, OPT_ROLE},
    {"rundir", required_argument, NULL, OPT_RUNDIR},
    {"vhost-socket", required_argument, NULL, OPT_VHOST_SOCKET},
    {"loopback", no_argument, NULL, OPT_LOOPBACK},
    {"channels", required_argument, NULL, OPT_CHANNELS},
    {"window-size", required_argument, NULL, OPT_WINDOW_SIZE},
    {"channel-size", required_argument, NULL, OPT_CHANNEL_SIZE},
    {"lanes", required_argument, NULL, OPT_LANES},
    {"entries", required_argument, NULL, OPT_ENTRIES},
    {"huge", required_argument, NULL, OPT_HUGE},
    {"numa-node", required_argument, NULL, OPT_NUMA_NODE},
    {"allow-user", required_argument, NULL, OPT_ALLOW_USER},
    {"allow-group", required_argument, NULL, OPT_ALLOW_GROUP},
    {"max-per-user", required_argument, NULL, OPT_MAX_PER_USER},
    {"socket-mode", required_argument, NULL, OPT_SOCKET_MODE},
    {"deadline-ms", required_argument, NULL, OPT_DEADLINE_MS},
    {"detach-ms", required_argument, NULL, OPT_DETACH_MS},
    {"state", required_argument, NULL, OPT_STATE},
    {"retain", required_argument, NULL, OPT_RETAIN},
    {"hang-ms", required_argument, NULL, OPT_HANG},
    {"log", required_argument, NULL, OPT_LOG},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"foreground", no_argument, NULL, OPT_FOREGROUND},
    {"daemonize", no_argument, NULL, OPT_DAEMONIZE},
    {"pidfile", required_argument, NULL, OPT_PIDFILE},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {0},
};

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
	va_list ap;

	fputs("vhost-scd: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

/* A number between min and max, with a suffix K, M or G if `suffix`. */
static uint64_t number(const char *option, const char *text, uint64_t min, uint64_t max,
		       bool suffix)
{
	unsigned shift = 0;
	uint64_t v;
	char *end;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (suffix && *end && strchr("KMG", *end)) {
		shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 30;
		end++;
	}
	if (errno || end == text || *end || *text == '-' || v > max >> shift || v << shift < min)
		die("--%s %s: expected a number from %llu to %llu", option, text,
		    (unsigned long long)min, (unsigned long long)max);
	return v << shift;
}

/* The smallest power of two that is not below `size`; 0 stays 0. */
static uint64_t power_of_two(uint64_t size)
{
	uint64_t up = 1;

	while (size && up < size)
		up *= 2;
	return size ? up : 0;
}

static uid_t parse_user(const char *name)
{
	struct passwd *pw = getpwnam(name);
	char *end;
	unsigned long v;

	if (pw)
		return pw->pw_uid;
	v = strtoul(name, &end, 10);
	if (!*name || *end || v > UINT32_MAX - 1)
		die("--allow-user: there is no user %s", name);
	return (uid_t)v;
}

static gid_t parse_group(const char *name)
{
	struct group *gr = getgrnam(name);
	char *end;
	unsigned long v;

	if (gr)
		return gr->gr_gid;
	v = strtoul(name, &end, 10);
	if (!*name || *end || v > UINT32_MAX - 1)
		die("--allow-group: there is no group %s", name);
	return (gid_t)v;
}

static_assert(sizeof(uid_t) == sizeof(uint32_t) && sizeof(gid_t) == sizeof(uint32_t), "ids");

/* Adds the ids in a comma-separated list to *ids. */
static void parse_ids(const char *list, uint32_t (*parse)(const char *), uint32_t **ids, size_t *n)
{
	char *copy = strdup(list);
	char *rest = copy;
	char *name;

	if (!copy)
		die("out of memory");
	while ((name = strsep(&rest, ","))) {
		*ids = realloc(*ids, (*n + 1) * sizeof(**ids));
		if (!*ids)
			die("out of memory");
		(*ids)[(*n)++] = parse(name);
	}
	free(copy);
}

static mode_t parse_mode(const char *text)
{
	char *end;
	unsigned long v = strtoul(text, &end, 8);

	if (!*text || *end || v > 0777)
		die("--socket-mode %s: expected permissions in octal, like 0660", text);
	return (mode_t)v;
}

static uint32_t parse_role(const char *text)
{
	if (strcmp(text, "storage") == 0)
		return SC_ROLE_STORAGE;
	if (strcmp(text, "network") == 0)
		return SC_ROLE_NETWORK;
	die("--role %s: expected storage or network", text);
}

/* What the command line says but struct config does not keep. */
struct arguments {
	const char *rundir;
	uint32_t lanes;
	uint32_t entries;
	uint64_t channel_size; /* 0: not given */
};

static void parse_option(struct config *cfg, struct arguments *a, int code)
{
	switch (code) {
	case OPT_NAME:
		cfg->name = optarg;
		break;
	case OPT_ROLE:
		cfg->role = parse_role(optarg);
		break;
	case OPT_RUNDIR:
		a->rundir = optarg;
		break;
	case OPT_VHOST_SOCKET:
		cfg->vhost_socket = optarg;
		break;
	case OPT_LOOPBACK:
		cfg->loopback = true;
		break;
	case OPT_CHANNELS:
		cfg->channels = (uint32_t)number("channels", optarg, 1, SCD_MAX_CHANNELS, false);
		break;
	case OPT_WINDOW_SIZE:
		cfg->window_size = number("window-size", optarg, 1 << 20, 1ull << 40, true);
		break;
	case OPT_CHANNEL_SIZE:
		a->channel_size = number("channel-size", optarg, 1, 1ull << 40, true);
		break;
	case OPT_LANES:
		a->lanes = (uint32_t)number("lanes", optarg, 1, SC_MAX_LANES, false);
		break;
	case OPT_ENTRIES:
		a->entries = (uint32_t)number("entries", optarg, 2, SC_MAX_ENTRIES, false);
		break;
	case OPT_HUGE:
		if (strcmp(optarg, "2M") != 0)
			die("--huge %s: 2M is the only size", optarg);
		cfg->memory.huge = true;
		break;
	case OPT_NUMA_NODE:
		cfg->memory.node = (int)number("numa-node", optarg, 0, SCD_MAX_NODES - 1, false);
		break;
	case OPT_ALLOW_USER:
		parse_ids(optarg, parse_user, &cfg->allow_users, &cfg->nallow_users);
		break;
	case OPT_ALLOW_GROUP:
		parse_ids(optarg, parse_group, &cfg->allow_groups, &cfg->nallow_groups);
		break;
	case OPT_MAX_PER_USER:
		cfg->max_per_user =
		    (uint32_t)number("max-per-user", optarg, 1, SCD_MAX_CHANNELS, false);
		break;
	case OPT_SOCKET_MODE:
		cfg->socket_mode = parse_mode(optarg);
		break;
	case OPT_DEADLINE_MS:
		cfg->deadline_ms = (uint32_t)number("deadline-ms", optarg, 1, UINT32_MAX, false);
		break;
	case OPT_HANG:
		cfg->hang_ms = (uint32_t)number("hang-ms", optarg, 0, 3600000, false);
		break;
	case OPT_DETACH_MS:
		cfg->detach_ms = (uint32_t)number("detach-ms", optarg, 1, 3600000, false);
		break;
	case OPT_STATE:
		cfg->state_size = power_of_two(
		    number("state", optarg, SEGMENT_KEPT_MIN, SC_OWN_SEGMENT_MAX, true));
		break;
	case OPT_RETAIN:
		cfg->retain_size = number("retain", optarg, 0, SC_OWN_SEGMENT_MAX, true);
		if (cfg->retain_size && cfg->retain_size < SEGMENT_KEPT_MIN)
			die("--retain %s: expected 0, or 1M or more", optarg);
		cfg->retain_size = power_of_two(cfg->retain_size);
		break;
	case OPT_LOG:
		cfg->log_file = optarg;
		break;
	case OPT_LOG_LEVEL:
		if (log_level_parse(optarg) < 0)
			die("--log-level %s: expected error, warn, info or debug", optarg);
		log_set_level((enum log_level)log_level_parse(optarg));
		break;
	case OPT_FOREGROUND:
		cfg->daemonize = false;
		break;
	case OPT_DAEMONIZE:
		cfg->daemonize = true;
		break;
	case OPT_PIDFILE:
		cfg->pidfile = optarg;
		break;
	case OPT_HELP:
		fputs(usage, stdout);
		exit(0);
	case OPT_VERSION:
		printf("vhost-scd %s (abi %d)\n", SCD_VERSION, SC_ABI_VERSION);
		exit(0);
	default:
		fputs("vhost-scd: see vhost-scd --help\n", stderr);
		exit(2);
	}
}

static void check_name(const char *name)
{
	size_t len =
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	if (!len || name[len] || len > 64 || name[0] == '.' || name[0] == '-')
		die("--name %s: letters, digits, '.', '_' and '-' make a name, at most 64 of them",
		    name);
}

/* Slots, channel layout and limits that follow from the options. */
static void derive(struct config *cfg, const struct arguments *a)
{
	uint64_t slot = 1;

	while (slot * 2 <= cfg->window_size / (cfg->channels + 1))
		slot *= 2;
	cfg->slot_size = slot;
	if (a->channel_size && a->channel_size != slot)
		die("--channel-size %llu: a window of %llu bytes for %u channels has slots of %llu "
		    "bytes, and a channel fills its slot; change --window-size or --channels",
		    (unsigned long long)a->channel_size, (unsigned long long)cfg->window_size,
		    cfg->channels, (unsigned long long)slot);
	if (slot > SC_MAX_CHANNEL_SIZE ||
	    sc_layout_init(&cfg->layout, (uint32_t)slot, a->lanes, a->entries))
		die("a channel of %llu bytes cannot hold %u lanes of %u entries: take fewer "
		    "--lanes or "
		    "--entries, or a larger --window-size",
		    (unsigned long long)slot, a->lanes, a->entries);
	if (!cfg->max_per_user)
		cfg->max_per_user = cfg->channels - cfg->channels / 4;
}

static void parse_arguments(struct config *cfg, int argc, char **argv)
{
	struct arguments a = {
	    .rundir = getenv("VHOST_SC_RUNDIR"),
	    .lanes = SC_DEFAULT_LANES,
	    .entries = SC_DEFAULT_ENTRIES,
	};
	ssize_t n;
	int code;

	while ((code = getopt_long(argc, argv, "", options, NULL)) != -1)
		parse_option(cfg, &a, code);
	if (optind < argc)
		die("%s: not an option; see vhost-scd --help", argv[optind]);
	if (!cfg->name || !cfg->role)
		die("--name and --role are needed; see vhost-scd --help");
	check_name(cfg->name);
	derive(cfg, &a);
	n = snprintf(cfg->dir, sizeof(cfg->dir), "%s/%s", a.rundir ? a.rundir : "/run/vhost-sc",
		     cfg->name);
	if (n + sizeof("/attach.sock") > sizeof(((struct sockaddr_un *)0)->sun_path))
		die("%s is too long for the path of a socket: choose a shorter --rundir", cfg->dir);
	cfg->argv = argv;
	n = readlink("/proc/self/exe", cfg->exe, sizeof(cfg->exe) - 1);
	if (n <= 0)
		die("cannot read /proc/self/exe: %s", strerror(errno));
	cfg->exe[n] = '\0';
}

/* Makes the directory with those above it. Returns 0 or -errno. */
static int make_dir(const char *dir)
{
	char path[256];
	mode_t old_mask = umask(022);
	int err = 0;

	snprintf(path, sizeof(path), "%s", dir);
	for (char *p = path + 1; !err; p++) {
		if (*p && *p != '/')
			continue;
		char end = *p;

		*p = '\0';
		if (mkdir(path, 0755) && errno != EEXIST)
			err = -errno;
		*p = end;
		if (!end)
			break;
	}
	umask(old_mask);
	return err;
}

/* Takes the domain's lock. Returns its descriptor, or -errno after logging. */
static int take_lock(const struct config *cfg)
{
	char path[300];
	char text[32] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/lock", cfg->dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0) {
		log_error("cannot open %s: %s", path, strerror(errno));
		return -errno;
	}
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

		if (n > 0)
			text[strcspn(text, "\n")] = '\0';
		log_error("domain %s has a broker already (process %s)", cfg->name,
			  n > 0 ? text : "?");
		close(fd);
		return -EBUSY;
	}
	return fd;
}

/* Writes our process id to a file. Returns 0 or -errno. */
static int write_pid(int fd)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
		return -errno;
	return 0;
}

static int write_pidfile(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	int err = fd < 0 ? -errno : write_pid(fd);

	if (fd >= 0)
		close(fd);
	if (err)
		log_error("cannot write %s: %s", path, strerror(-err));
	return err;
}

/* As many descriptors as we can get: a ticket is one. */
static uint64_t raise_fd_limit(void)
{
	unsigned long long nr_open = 0;
	struct rlimit r;
	FILE *f;

	f = fopen("/proc/sys/fs/nr_open", "re");
	if (f) {
		if (fscanf(f, "%llu", &nr_open) != 1)
			nr_open = 0;
		fclose(f);
	}
	if (getrlimit(RLIMIT_NOFILE, &r))
		return 1024;
	if (nr_open > r.rlim_max) {
		struct rlimit more = {nr_open, nr_open};

		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			return nr_open;
	}
	r.rlim_cur = r.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &r))
		getrlimit(RLIMIT_NOFILE, &r);
	return r.rlim_cur;
}

static void on_signal(struct source *src, uint32_t events)
{
	struct broker *b = container_of(src, struct broker, signals);
	struct signalfd_siginfo info;

	if (read(src->fd, &info, sizeof(info)) != sizeof(info))
		return;
	switch (info.ssi_signo) {
	case SIGHUP:
		log_reopen();
		break;
	case SIGUSR2:
		reexec_request(b);
		break;
	default:
		log_info("ending on signal %u", info.ssi_signo);
		b->stop = true;
	}
}

static int watch_signals(struct broker *b)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	channel_guard_init();
	closer_init();
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	return loop_add(&b->loop, &b->signals, fd, EPOLLIN, on_signal);
}

void broker_tick(struct broker *b)
{
	uint64_t now = loop_now();

	if (now < b->loop.deadline)
		return;
	b->loop.deadline = LOOP_NEVER;
	if (closer_tick(now))
		loop_at(&b->loop, now + CLOSER_STUCK_MS);
	b->tr->tick(b, now);
	session_tick(b, now);
	segment_tick(b, now);
	domain_tick(b, now);
	hang_tick(b, now);
	client_tick(b, now);
}

/* Makes everything new. Returns 0 or -errno. */
static int start_new(struct broker *b)
{
	int err = make_dir(b->cfg->dir);

	if (err) {
		log_error("cannot make %s: %s (choose another --rundir, or run as root)",
			  b->cfg->dir, strerror(-err));
		return err;
	}
	b->lock_fd = take_lock(b->cfg);
	if (b->lock_fd < 0)
		return b->lock_fd;
	err = write_pid(b->lock_fd);
	if (!err)
		err = domain_init(b);
	if (!err)
		err = b->tr->open(b);
	if (!err)
		err = client_init(b, -1);
	if (!err)
		err = ctl_init(b, -1);
	if (!err)
		session_fill_pool(b);
	return err;
}

/* Tries whether there are huge pages at all, so that the first user need not find out. */
static int check_huge(const struct config *cfg)
{
	struct channel c;
	int err;

	if (!cfg->memory.huge)
		return 0;
	err = channel_create(&c, &cfg->layout, cfg->memory);
	if (err)
		log_error("--huge 2M: cannot make a channel of %u MiB: %s; set vm.nr_hugepages to "
			  "%llu for "
			  "all channels, or leave out --huge",
			  cfg->layout.size >> 20, strerror(-err),
			  (unsigned long long)(cfg->layout.size >> 21) * cfg->channels);
	else
		channel_close(&c);
	return err;
}

static int start(struct broker *b)
{
	int err = loop_init(&b->loop);

	b->started = loop_now();
	b->spare_fd = sock_spare();
	b->fd_limit = raise_fd_limit();
	if (!err)
		err = watch_signals(b);
	if (!err)
		err = hangup_init(b);
	if (!err)
		err = object_init(b);
	if (!err)
		err = session_init(b);
	if (err)
		return err;
	ticket_init(b);
	if (!reexec_pending()) {
		err = check_huge(b->cfg);
		return err ? err : start_new(b);
	}
	err = reexec_load(b);
	if (err) {
		log_error("the state of the broker before cannot be taken over: %s",
			  strerror(-err));
		return err;
	}
	object_look_all(b);
	log_info("took over from the broker before: %u sessions, %u tickets", b->sessions.live,
		 b->tickets.used);
	session_fill_pool(b);
	client_serve_waiting(b);
	return 0;
}

static void remove_sockets(const struct config *cfg)
{
	static const char *const names[] = {"attach.sock", "ctl.sock", "agent.sock"};
	char path[300];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", cfg->dir, names[i]);
		unlink(path);
	}
	if (cfg->pidfile)
		unlink(cfg->pidfile);
}

static void finish(struct broker *b)
{
	int fd = b->signals.fd;

	client_close_all(b);
	ctl_close(b);
	b->tr->close(b);
	session_close_all(b);
	segment_close_all(b);
	object_close_all(b);
	ticket_close_all(b);
	process_close_all(b);
	domain_close(b);
	hangup_close(b);
	loop_del(&b->loop, &b->signals);
	close(fd);
	loop_close(&b->loop);
	close(b->spare_fd);
	remove_sockets(b->cfg);
	close(b->lock_fd); /* last: now another broker may come */
}

static void run(struct broker *b)
{
	while (!b->stop) {
		loop_run(&b->loop);
		broker_tick(b);
		ctl_look(b);
		if (b->restart && !b->stop)
			reexec_try(b);
	}
}

/* Leaves the foreground. The parent ends when the child reports through *report. */
static int to_background(int *report)
{
	int pipefd[2];
	char status;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid > 0) {
		close(pipefd[1]);
		exit(read(pipefd[0], &status, 1) == 1 ? 0 : 1);
	}
	close(pipefd[0]);
	setsid();
	*report = pipefd[1];
	return 0;
}

/* Leak detection is by ptrace. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

/* The child is ready: it lets the parent end, and standard input and output go. */
static void report_ready(const struct config *cfg, int report)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		if (cfg->log_file)
			dup2(null, STDERR_FILENO);
		close(null);
	}
	if (write(report, "", 1) < 0)
		log_debug("nobody waited for the start");
	close(report);
}

int main(int argc, char **argv)
{
	struct config cfg = {
	    .channels = VIRTIO_SC_DEFAULT_CHANNELS,
	    .window_size = VIRTIO_SC_DEFAULT_WINDOW,
	    .socket_mode = 0666,
	    .deadline_ms = 300000,
	    .memory = {.node = -1},
	    .detach_ms = 30000,
	    .hang_ms = HANG_DEFAULT_MS,
	    .state_size = SEGMENT_STATE_DEFAULT,
	    .retain_size = SEGMENT_LOG_DEFAULT,
	};
	struct broker b = {.cfg = &cfg, .lock_fd = -1, .spare_fd = -1};
	int report = -1;
	int err;

	parse_arguments(&cfg, argc, argv);
	b.tr = cfg.loopback ? &transport_loopback : &transport_device;
	if (cfg.daemonize && !reexec_pending())
		err = to_background(&report);
	else
		err = 0;
	if (!err && cfg.log_file)
		err = log_open(cfg.log_file);
	if (err)
		die("%s: %s", cfg.log_file ? cfg.log_file : "cannot start", strerror(-err));
	if (!SANITIZED)
		err = sandbox_enter();
	if (err)
		die("cannot enter the sandbox: %s", strerror(-err));
	err = start(&b);
	if (!err && cfg.pidfile)
		err = write_pidfile(cfg.pidfile);
	if (err) {
		log_error("not started");
		if (cfg.log_file)
			fprintf(stderr, "vhost-scd: not started; see %s\n", cfg.log_file);
		free(b.sessions.slots);
		free(b.objects.v);
		return 1;
	}
	log_info("vhost-scd %s: domain %s, %u channels of %u MiB at %s%s", SCD_VERSION, cfg.name,
		 cfg.channels, cfg.layout.size >> 20, cfg.dir,
		 cfg.loopback ? " (loopback: no isolation)" : "");
	if (report >= 0)
		report_ready(&cfg, report);
	run(&b);
	finish(&b);
	free(cfg.allow_users);
	free(cfg.allow_groups);
	log_info("ended");
	return 0;
}
