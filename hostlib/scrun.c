/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scrun.c - runs a program with paths served by service domains.
 *
 * Theory of operation: everything is done by libhostsc.so, which the dynamic loader puts into the program (LD_PRELOAD)
 * and which finds its routes in the environment (exec.h). scrun checks beforehand what would otherwise fail late or
 * silently: that each domain answers and takes this user, and that the program is one that the loader can put a library
 * into (a static or set-uid program would run without us and without a word). Then it becomes the program, so that exit
 * status, signals, terminal and process id are the program's own.
 *
 * A program that a domain serves cannot be seen from here. Then scrun first becomes itself once more, with the library and
 * without routes of its own (serve_ourselves()): there the same checks and the same exec work on the domain's files.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>

#include <vhost-sc/attach.h>
#include <vhost-sc/control.h>

#ifndef SC_LIBDIR
#define SC_LIBDIR "/usr/lib/x86_64-linux-gnu"
#endif
#ifndef SC_VERSION
#define SC_VERSION "0"
#endif

#define RUNDIR	    "/run/vhost-sc"
#define LIB_NAME    "libhostsc.so.0"
#define MAX_ROUTES  8	  /* of the library's 16: each may become two */
#define MAX_NETS    16	  /* as many as the library takes */
#define MAX_SCRIPTS 4	  /* interpreters of interpreters, as the kernel follows them */
#define REPLY_MS    20000 /* for the broker's answer, beyond --wait */
#define STARTING_S \
	60 /* without --wait: so long for a domain that is starting; a VM boots in less */

/* Exit codes, as env(1) and timeout(1) use them. */
#define EXIT_OURS     125
#define EXIT_NO_EXEC  126
#define EXIT_NO_FOUND 127

struct options {
	const char *routes[MAX_ROUTES]; /* NAME:HOSTPATH[=EXPORT] as given */
	int nroutes;
	char *hosts
	    [2 *
	     MAX_ROUTES]; /* the directories that are served: as given, and without symbolic links */
	int nhosts;
	char **program;		    /* PROGRAM and its arguments */
	const char *nets[MAX_NETS]; /* NAME[=CIDR] as given */
	int nnets;
	int wait_s;	      /* --wait, or -1 */
	const char *recovery; /* --recovery-timeout, or NULL */
	bool stats;
	const char *trace; /* NULL: no; "-": to standard error; else a file */
	bool verbose;
};

static void usage(FILE *to)
{
	fputs(
	    "usage: scrun [--storage NAME:HOSTPATH[=EXPORT]]... [--network NAME[=CIDR]]... "
	    "[options]\n"
	    "             [--] PROGRAM [ARGUMENT]...\n"
	    "Runs PROGRAM with paths and sockets served by service domains.\n"
	    "\n"
	    "  --storage NAME:HOSTPATH[=EXPORT]  paths below HOSTPATH (which need not exist on "
	    "the host) are\n"
	    "                                    served from EXPORT, a directory of domain NAME "
	    "(default: its\n"
	    "                                    root); may be repeated, the longest HOSTPATH "
	    "wins\n"
	    "  --network NAME[=CIDR]             sockets that talk to addresses within CIDR "
	    "(default: "
	    "to all) are\n"
	    "                                    served by network domain NAME; may be repeated, "
	    "the "
	    "first that\n"
	    "                                    matches wins. Loopback addresses stay on the "
	    "host\n"
	    "  --wait SECONDS                    wait so long for a domain that is down or "
	    "starting\n"
	    "                                    (default: 60 for one that is starting, 0 if it is "
	    "down)\n"
	    "  --recovery-timeout SECONDS        calls wait so long for a domain that has gone to "
	    "come "
	    "back, then\n"
	    "                                    they fail; 0: they fail at once (default: as its "
	    "broker says)\n"
	    "  --stats                           print at exit of each process what was served "
	    "where\n"
	    "  --trace[=FILE]                    print each call that a domain serves: arguments, "
	    "result, time,\n"
	    "                                    domain and lane; to FILE, or to standard error\n"
	    "  --verbose                         say which domains serve, and how isolated they "
	    "are\n"
	    "  --help, --version\n"
	    "\n"
	    "Exit status: PROGRAM's; 125 scrun itself failed, 126 PROGRAM cannot be run, 127 it "
	    "was not found.\n",
	    to);
}

static void __attribute__((noreturn, format(printf, 2, 3))) fail(int code, const char *fmt, ...)
{
	va_list ap;

	fputs("scrun: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(code);
}

static char *format(const char *fmt, ...)
{
	char *s;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		fail(EXIT_OURS, "out of memory");
	va_end(ap);
	return s;
}

/* ---- options ---- */

/* --trace's FILE, if there is one. */
static const char *trace_to(const char *file)
{
	return file ? file : "-";
}

static void parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {{"storage", required_argument, NULL, 's'},
					      {"network", required_argument, NULL, 'n'},
					      {"trace", optional_argument, NULL, 't'},
					      {"wait", required_argument, NULL, 'w'},
					      {"recovery-timeout", required_argument, NULL, 'r'},
					      {"stats", no_argument, NULL, 'S'},
					      {"verbose", no_argument, NULL, 'v'},
					      {"help", no_argument, NULL, 'h'},
					      {"version", no_argument, NULL, 'V'},
					      {0}};
	char *end;
	int c;

	while ((c = getopt_long(argc, argv, "+hvV", longs, NULL)) != -1) {
		switch (c) {
		case 's':
			if (o->nroutes == MAX_ROUTES)
				fail(EXIT_OURS, "more than %d --storage options", MAX_ROUTES);
			o->routes[o->nroutes++] = optarg;
			break;
		case 'n':
			if (o->nnets == MAX_NETS)
				fail(EXIT_OURS, "more than %d --network options", MAX_NETS);
			o->nets[o->nnets++] = optarg;
			break;
		case 'w':
			o->wait_s = (int)strtol(optarg, &end, 10);
			if (*end || end == optarg || o->wait_s < 0 || o->wait_s > 3600)
				fail(EXIT_OURS, "--wait takes 0 to 3600 seconds, not '%s'", optarg);
			break;
		case 'r':
			if (strtol(optarg, &end, 10) < 0 || *end || end == optarg ||
			    strlen(optarg) > 5)
				fail(EXIT_OURS,
				     "--recovery-timeout takes 0 to 86400 seconds, not '%s'",
				     optarg);
			o->recovery = optarg;
			break;
		case 'S':
			o->stats = true;
			break;
		case 't':
			o->trace = trace_to(optarg);
			break;
		case 'v':
			o->verbose = true;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		case 'V':
			printf("scrun (vhost-sc) %s, channel version %d\n", SC_VERSION,
			       SC_ABI_VERSION);
			exit(0);
		default:
			usage(stderr);
			exit(EXIT_OURS);
		}
	}
	if (optind == argc) {
		usage(stderr);
		exit(EXIT_OURS);
	}
	o->program = argv + optind;
}

/* ---- domains ---- */

static const char *rundir(void)
{
	const char *dir = getenv("VHOST_SC_RUNDIR");

	return dir && *dir ? dir : RUNDIR;
}

static long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Connects to the domain's broker. -1: not there (errno says how). */
static int try_connect(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s/attach.sock", rundir(), name);
	int sock;

	if (n < 0 || (size_t)n >= sizeof(a.sun_path))
		fail(EXIT_OURS, "domain '%s': the path of its socket below %s is too long", name,
		     rundir());
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		fail(EXIT_OURS, "cannot make a socket: %s", strerror(errno));
	if (connect(sock, (struct sockaddr *)&a, sizeof(a)) == 0)
		return sock;
	n = errno;
	close(sock);
	errno = n;
	return -1;
}

static void __attribute__((noreturn)) explain_unreachable(const char *name, int err)
{
	char *dir = format("%s/%s", rundir(), name);
	struct stat st;

	if (err == EACCES)
		fail(EXIT_OURS,
		     "domain '%s': you may not use it (%s does not let you in); ask its owner, who "
		     "names users with 'scctl define %s --allow-user'",
		     name, dir, name);
	if (err == ENOENT && stat(dir, &st))
		fail(EXIT_OURS,
		     "domain '%s' is unknown here (there is no %s); 'scctl status' lists domains, "
		     "'scctl define %s "
		     "--role storage' makes it",
		     name, dir, name);
	if (err == ENOENT || err == ECONNREFUSED)
		fail(EXIT_OURS,
		     "domain '%s' is not running; start it with 'virsh start %s' or 'scctl start "
		     "%s'",
		     name, name, name);
	fail(EXIT_OURS, "domain '%s': cannot reach its broker at %s: %s", name, dir, strerror(err));
}

/* The broker's words, which name the domain as we do; of one that is down it does not say who starts it. */
static void __attribute__((noreturn))
explain_refusal(const char *name, const struct sc_attach_rep *rep)
{
	const char *text = rep->text[0] ? rep->text : "refused, without a reason";
	char *start = format("domain %s is ", name), *said;

	if (strncmp(text, start, strlen(start)) == 0)
		said = format("domain '%s' is %s", name, text + strlen(start));
	else
		said = format("domain '%s': %s", name, text);
	if (rep->status == SC_ATTACH_DOWN)
		fail(EXIT_OURS, "%s; start it with 'virsh start %s' or 'scctl start %s'", said,
		     name, name);
	fail(EXIT_OURS, "%s", said);
}

static int connect_broker(const char *name, long until)
{
	struct timespec pause = {.tv_nsec = 50000000};
	int sock;

	while ((sock = try_connect(name)) < 0) {
		if (now_ms() >= until || (errno != ENOENT && errno != ECONNREFUSED))
			explain_unreachable(name, errno);
		nanosleep(&pause, NULL);
	}
	return sock;
}

/* Receives the answer; the descriptors that come with it are closed at once. */
static ssize_t receive(int sock, struct sc_attach_rep *rep)
{
	char control[CMSG_SPACE((SC_TICKETS_BATCH + 3) * sizeof(int))];
	struct iovec iov = {.iov_base = rep, .iov_len = sizeof(*rep)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);

	for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fd;

		for (size_t i = 0; c->cmsg_type == SCM_RIGHTS && i < count; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			close(fd);
		}
	}
	return n;
}

/*
 * Asks the domain for a channel, as the library will, and gives it back. Ends with a message if there is none. False: the
 * domain is down, and may be waited for.
 */
static bool ask_domain(const char *name, uint32_t role, const struct options *o, long begun)
{
	long until = begun + (o->wait_s > 0 ? o->wait_s : 0) * 1000l, left;
	int sock = connect_broker(name, until);
	struct sc_attach_rep rep = {0};
	struct sc_attach_req req = {
	    .h = {.magic = SC_ATTACH_MAGIC, .type = SC_ATTACH_REQ, .seq = 1, .len = sizeof(req)},
	    .abi_min = SC_ABI_VERSION,
	    .abi_max = SC_ABI_VERSION,
	    .features = SC_FEATURES,
	    .role = role,
	};
	struct pollfd p = {.fd = sock, .events = POLLIN};
	ssize_t n;

	/* Without --wait only a domain that is starting is waited for: the broker answers at once if it is down. */
	left = (o->wait_s < 0 ? begun + STARTING_S * 1000l : until) - now_ms();
	req.wait_ms = left > 0 ? (uint32_t)left : 0;
	if (send(sock, &req, sizeof(req), MSG_NOSIGNAL) != sizeof(req))
		fail(EXIT_OURS, "domain '%s': its broker hung up: %s", name, strerror(errno));
	if (poll(&p, 1, (int)req.wait_ms + REPLY_MS) != 1)
		fail(EXIT_OURS,
		     "domain '%s': its broker does not answer; see its log, or restart vhost-scd",
		     name);
	n = receive(sock, &rep);
	if (n < (ssize_t)sizeof(rep) || rep.h.magic != SC_ATTACH_MAGIC ||
	    rep.h.type != SC_ATTACH_REP)
		fail(EXIT_OURS,
		     "domain '%s': its broker speaks another protocol; scrun and vhost-scd must be "
		     "of one "
		     "version",
		     name);
	rep.text[sizeof(rep.text) - 1] = '\0';
	if (rep.status == SC_ATTACH_DOWN && now_ms() < until) {
		close(sock);
		return false;
	}
	if (rep.status != SC_ATTACH_OK)
		explain_refusal(name, &rep);
	if (rep.abi != SC_ABI_VERSION)
		fail(EXIT_OURS,
		     "domain '%s': has channel version %u, this scrun %d; install one version of "
		     "both",
		     name, rep.abi, SC_ABI_VERSION);
	if (o->verbose)
		fprintf(stderr, "scrun: domain '%s' serves%s\n", name,
			rep.loopback ? " (loopback: no isolation)" : "");
	close(sock);
	return true;
}

static void check_domain(const char *name, uint32_t role, const struct options *o)
{
	struct timespec pause = {.tv_nsec = 50000000};
	long begun = now_ms();

	while (!ask_domain(name, role, o, begun))
		nanosleep(&pause, NULL);
}

/* The path without symbolic links in that part of it that exists. */
static char *canonical(const char *path)
{
	char *head = strdup(path), *real, *slash, *out;

	if (!head)
		fail(EXIT_OURS, "out of memory");
	for (;;) {
		real = realpath(*head ? head : "/", NULL);
		if (real)
			break;
		slash = strrchr(head, '/');
		if (!slash)
			break;
		*slash = '\0';
	}
	out = real ? format("%s%s", strcmp(real, "/") ? real : "", path + strlen(head))
		   : format("%s", path);
	free(real);
	free(head);
	return out;
}

/* One line of VHOST_SC_ROUTES, escaped. */
static char *route_line(const char *name, const char *host, const char *rest)
{
	char *full = format("%s:%s%s", name, host, rest), *out = malloc(3 * strlen(full) + 1),
	     *w = out;

	if (!out)
		fail(EXIT_OURS, "out of memory");
	for (const char *c = full; *c; c++) {
		if (*c == '\n' || *c == '%')
			w += sprintf(w, "%%%02X", (unsigned int)*c);
		else
			*w++ = *c;
	}
	*w = '\0';
	free(full);
	return out;
}

/*
 * Checks NAME:HOSTPATH[=EXPORT] and returns it as the library wants it: with an absolute HOSTPATH; and if that leads
 * through symbolic links, once more without them, since programs may use either.
 */
static char *check_route(const char *spec, char **name, struct options *o)
{
	const char *colon = strchr(spec, ':'), *path, *equal;
	char *host, *real, *line;

	if (!colon || colon == spec || !colon[1] || colon[1] == '=')
		fail(EXIT_OURS, "--storage takes NAME:HOSTPATH[=EXPORT], not '%s'", spec);
	*name = strndup(spec, (size_t)(colon - spec));
	if (*name &&
	    (strlen(*name) > 63 || **name == '.' ||
	     strspn(*name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
		 strlen(*name)))
		fail(EXIT_OURS,
		     "'%s' is no domain name (letters, digits, '.', '_', '-'; at most 63)", *name);
	path = colon + 1;
	equal = strchr(path, '=');
	host = strndup(path, equal ? (size_t)(equal - path) : strlen(path));
	if (host && host[0] != '/') {
		char *cwd = getcwd(NULL, 0);
		char *joined = cwd ? format("%s/%s", cwd, host) : NULL;

		free(cwd);
		free(host);
		host = joined;
	}
	if (!host || !*name)
		fail(EXIT_OURS, "out of memory");
	if (strspn(host, "/.") == strlen(host))
		fail(EXIT_OURS,
		     "'%s': the root itself cannot be served by a domain; name a directory", spec);
	line = route_line(*name, host, equal ? equal : "");
	real = canonical(host);
	o->hosts[o->nhosts++] = host;
	if (strcmp(real, host)) {
		char *more = route_line(*name, real, equal ? equal : ""),
		     *both = format("%s\n%s", line, more);

		free(more);
		free(line);
		line = both;
		o->hosts[o->nhosts++] = real;
	} else {
		free(real);
	}
	return line;
}

/* Is the path, as it is written, below a directory that a domain serves? */
static bool below_route(const char *path, const struct options *o)
{
	for (int i = 0; i < o->nhosts; i++) {
		size_t n = strlen(o->hosts[i]);

		while (n > 1 && o->hosts[i][n - 1] == '/')
			n--;
		if (strncmp(path, o->hosts[i], n) == 0 && (path[n] == '/' || !path[n]))
			return true;
	}
	return false;
}

/* Does a domain serve this path, as far as that can be seen from the host? */
static bool served(const char *path, const struct options *o)
{
	char *cwd = *path == '/' ? strdup("") : getcwd(NULL, 0), *full, *real;
	bool yes;

	if (!cwd)
		return false;
	full = format("%s%s%s", cwd, *cwd ? "/" : "", path);
	real = canonical(full);
	yes = below_route(full, o) || below_route(real, o);
	free(real);
	free(full);
	free(cwd);
	return yes;
}

/*
 * Becomes scrun once more, now served itself, to look for the program where the domains' files are. Returns if there is no
 * route, and thus nothing that could be seen differently then.
 */
static void serve_ourselves(const struct options *o)
{
	int n = 0;
	char **argv;

	if (!o->nroutes)
		return;
	while (o->program[n])
		n++;
	argv = calloc((size_t)n + 3, sizeof(*argv));
	if (!argv)
		fail(EXIT_OURS, "out of memory");
	argv[0] = (char *)"scrun";
	argv[1] = (char *)"--";
	memcpy(argv + 2, o->program, (size_t)n * sizeof(*argv));
	execv("/proc/self/exe", argv);
	fail(EXIT_OURS, "cannot run itself: %s", strerror(errno));
}

/* ---- networks ---- */

static bool valid_name(const char *name, size_t len)
{
	return len && len < 64 && name[0] != '.' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") >=
		   len;
}

/* Checks NAME[=CIDR]; returns the name. */
static char *check_net(const char *spec)
{
	const char *equal = strchrnul(spec, '=');
	char *cidr = *equal ? strdup(equal + 1) : NULL, *slash = cidr ? strchr(cidr, '/') : NULL,
	     *end;
	uint8_t addr[16];
	long bits = 0, max;

	if (!valid_name(spec, (size_t)(equal - spec)))
		fail(EXIT_OURS, "--network takes NAME[=CIDR], not '%s'", spec);
	if (slash)
		*slash = '\0';
	if (cidr) {
		max = inet_pton(AF_INET, cidr, addr) == 1    ? 32
		      : inet_pton(AF_INET6, cidr, addr) == 1 ? 128
							     : -1;
		if (slash)
			bits = strtol(slash + 1, &end, 10);
		if (max < 0 || (slash && (!slash[1] || *end || bits < 0 || bits > max)))
			fail(EXIT_OURS,
			     "--network %s: '%s' is no network (like 10.0.0.0/8 or fd00::/8)", spec,
			     equal + 1);
		free(cidr);
	}
	return format("%.*s", (int)(equal - spec), spec);
}

/* All of --network as VHOST_SC_NET; NULL if there are none. */
static char *network_routes(const struct options *o)
{
	char *text = NULL;

	for (int i = 0; i < o->nnets; i++) {
		bool checked = false;
		char *name = check_net(o->nets[i]);

		for (int k = 0; k < i && !checked; k++)
			checked = strncmp(o->nets[k], name, strlen(name)) == 0 &&
				  strchr("=", o->nets[k][strlen(name)]);
		if (!checked)
			check_domain(name, SC_ROLE_NETWORK, o);
		text = text ? format("%s\n%s", text, o->nets[i]) : format("%s", o->nets[i]);
		free(name);
	}
	return text;
}

/* ---- the program ---- */

/* Like execvp() looks for it. Ends with a message if it is not there. */
static char *find_program(const char *name, const struct options *o)
{
	const char *path = getenv("PATH"), *end;
	bool denied = false;
	struct stat st;
	char *full;

	if (strchr(name, '/')) {
		if (served(name, o))
			serve_ourselves(o);
		return strdup(name);
	}
	if (!path)
		path = "/bin:/usr/bin";
	for (;; path = end + 1) {
		end = strchrnul(path, ':');
		full =
		    end == path ? strdup(name) : format("%.*s/%s", (int)(end - path), path, name);
		if (full && served(full, o))
			serve_ourselves(o);
		if (full && stat(full, &st) == 0 && S_ISREG(st.st_mode)) {
			if (access(full, X_OK) == 0)
				return full;
			denied = true;
		}
		free(full);
		if (!*end)
			break;
	}
	if (denied)
		fail(EXIT_NO_EXEC, "cannot run '%s': permission denied", name);
	serve_ourselves(o);
	fail(EXIT_NO_FOUND, "cannot find program '%s'", name);
}

/* Is there an ELF program header that names a dynamic loader? */
static bool has_interp(int fd, const Elf64_Ehdr *e)
{
	Elf64_Phdr p;

	for (int i = 0; i < e->e_phnum; i++) {
		off_t at = (off_t)(e->e_phoff + (uint64_t)i * e->e_phentsize);

		if (pread(fd, &p, sizeof(p), at) != sizeof(p))
			return false;
		if (p.p_type == PT_INTERP)
			return true;
	}
	return false;
}

static void check_elf(const char *path, int fd, const Elf64_Ehdr *e)
{
	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_machine != EM_X86_64)
		fail(EXIT_NO_EXEC, "'%s' is not an x86-64 program; only those can be served", path);
	if (!has_interp(fd, e))
		fail(EXIT_NO_EXEC,
		     "'%s' is statically linked: its system calls cannot be caught; use a "
		     "dynamically linked "
		     "build of it",
		     path);
}

static void check_ids(const char *path, const struct stat *st)
{
	if ((st->st_mode & S_ISUID) && st->st_uid != geteuid())
		fail(EXIT_NO_EXEC,
		     "'%s' is set-uid: the loader would ignore scrun; run it as that user instead",
		     path);
	if ((st->st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st->st_gid != getegid())
		fail(EXIT_NO_EXEC,
		     "'%s' is set-gid: the loader would ignore scrun; run it as that group instead",
		     path);
	if (geteuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0)
		fail(EXIT_NO_EXEC,
		     "'%s' has file capabilities: the loader would ignore scrun; run a copy "
		     "without them",
		     path);
}

/* Refuses what would run without us; follows "#!" lines. */
static void check_program(const char *path, int depth, const struct options *o)
{
	union {
		Elf64_Ehdr elf;
		char text[256];
	} head = {0};
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *interp;

	if (fd < 0 && errno == ENOENT) {
		serve_ourselves(o); /* a link, or a script's interpreter, may lead to a domain */
		fail(EXIT_NO_FOUND, "cannot run '%s': %s", path, strerror(ENOENT));
	}
	if (fd < 0 && errno == EACCES && access(path, X_OK) == 0 && stat(path, &st) == 0) {
		check_ids(path, &st); /* executable but not readable: more cannot be seen */
		return;
	}
	if (fd < 0)
		fail(EXIT_NO_EXEC, "cannot run '%s': %s", path, strerror(errno));
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
		fail(EXIT_NO_EXEC, "cannot run '%s': is a directory", path);
	if (access(path, X_OK))
		fail(EXIT_NO_EXEC, "cannot run '%s': %s", path, strerror(errno));
	check_ids(path, &st);
	if (read(fd, &head, sizeof(head) - 1) >= 4 && memcmp(head.text, ELFMAG, SELFMAG) == 0) {
		check_elf(path, fd, &head.elf);
	} else if (head.text[0] == '#' && head.text[1] == '!' && depth < MAX_SCRIPTS) {
		interp = strtok(head.text + 2, " \t\n");
		if (interp)
			check_program(interp, depth + 1, o);
	}
	close(fd);
}

/* ---- the library ---- */

static char *find_library(void)
{
	const char *given = getenv("VHOST_SC_LIB");
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *path = NULL, *slash;

	if (given && *given)
		path = realpath(given, NULL);
	if (!path && n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash) {
			*slash = '\0';
			path = format("%s/%s", self, LIB_NAME);
		}
	}
	if (!path || access(path, R_OK))
		path = strdup(SC_LIBDIR "/" LIB_NAME);
	if (!path || access(path, R_OK))
		fail(EXIT_OURS,
		     "cannot find %s (looked beside scrun and in %s); set VHOST_SC_LIB to its path",
		     LIB_NAME, SC_LIBDIR);
	if (strpbrk(path, ": "))
		fail(EXIT_OURS,
		     "the library's path '%s' has a colon or a space, which LD_PRELOAD cannot "
		     "carry; move it",
		     path);
	return path;
}

static void set(const char *name, const char *value)
{
	if (setenv(name, value, 1))
		fail(EXIT_OURS, "out of memory");
}

/* Makes FILE of --trace, empty; its absolute path, since programs change their directory. */
static const char *trace_file(const char *file)
{
	char *path;
	int fd;

	if (!strcmp(file, "-"))
		return file;
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	path = fd < 0 ? NULL : realpath(file, NULL);
	if (!path)
		fail(EXIT_OURS, "cannot write the trace to '%s': %s", file, strerror(errno));
	close(fd);
	return path;
}

/* Is one of the paths in this list (of LD_LIBRARY_PATH's or LD_PRELOAD's kind, or NULL) served? */
static bool lists_served(const char *list, const struct options *o)
{
	char *copy = list ? strdup(list) : NULL, *save = NULL;
	bool yes = false;

	for (char *p = copy ? strtok_r(copy, ":; ", &save) : NULL; p && !yes;
	     p = strtok_r(NULL, ":; ", &save))
		yes = below_route(p, o);
	free(copy);
	return yes;
}

/* What the library needs to know, for whatever is executed next. exec.h says when it is an auditing one. */
static void set_environment(const char *routes, const char *nets, const struct options *o)
{
	char *lib = find_library();
	const char *preload = getenv("LD_PRELOAD");
	bool own = preload && *preload;
	bool audit = !getenv("LD_AUDIT") &&
		     (lists_served(getenv("LD_LIBRARY_PATH"), o) || lists_served(preload, o));
	/* variables that the library will take away again */
	int hidden = 2 + (audit || !own) + (o->trace != NULL) + (nets != NULL);

	if (audit)
		set("LD_AUDIT", lib);
	else
		set("LD_PRELOAD", own ? format("%s:%s", lib, preload) : lib);
	if (hidden % 2) /* exec.h */
		set("VHOST_SC_PAD", "");
	else
		unsetenv("VHOST_SC_PAD");
	set("VHOST_SC_LIB", lib);
	set("VHOST_SC_ROUTES", routes);
	if (nets)
		set("VHOST_SC_NET", nets);
	if (o->stats)
		set("VHOST_SC_STATS", "1");
	if (o->recovery)
		set("VHOST_SC_RECOVERY_TIMEOUT", o->recovery);
	if (o->trace)
		set("VHOST_SC_TRACE", trace_file(o->trace));
	free(lib);
}

int main(int argc, char **argv)
{
	struct options o = {.wait_s = -1};
	char *program, *routes = NULL, *nets;
	bool checked = false;

	parse(argc, argv, &o);
	for (int i = 0; i < o.nroutes; i++) {
		char *name, *route = check_route(o.routes[i], &name, &o);

		routes = routes ? format("%s\n%s", routes, route) : route;
		for (int k = 0; k < i && !checked; k++)
			checked = strncmp(o.routes[k], name, strlen(name)) == 0 &&
				  o.routes[k][strlen(name)] == ':';
		if (!checked)
			check_domain(name, SC_ROLE_STORAGE, &o);
		checked = false;
	}
	nets = network_routes(&o);
	if (routes || nets)
		set_environment(routes ? routes : "", nets, &o);
	program = find_program(*o.program, &o);
	check_program(program, 0, &o);
	execv(program, o.program);
	fail(errno == ENOENT ? EXIT_NO_FOUND : EXIT_NO_EXEC, "cannot run '%s': %s", program,
	     strerror(errno));
}
