/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * exec.c - the library's affairs across execve; exec.h lists the variables.
 *
 * Theory of operation: before an exec a new array of environment pointers is built in memory of our own: the program's
 * variables without ours, then ours with what is true now. Descriptors that are not close-on-exec survive in the kernel as
 * what they are, tickets; the variables say what they name. The new image checks that each still is that socket, and has
 * the handle granted to its own session at first use. If the program is static or set-uid nothing reads the variables:
 * it runs as it would without us.
 *
 * In the new image the variables are taken out of the environment before main() runs, so that a program that prints its
 * environment prints what it would print natively.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>

#include "chan-priv.h"
#include "exec.h"
#include "kstat.h"
#include "libfd.h"
#include "net.h"
#include "process.h"

#define S_IFMT_BITS   0170000u
#define S_IFSOCK_BITS 0140000u
#define ENV_MAX	      (1u << 20) /* pointers that we copy at most */
#define TEXT_MAX      (1u << 20) /* bytes of our own variables */
#define FD_LINE	      192u

static char lib_path[SC_PATH_BUF]; /* of the library, for LD_PRELOAD; "" if not known */
static char *routes_text;	   /* as it came, to be handed on; "" if there are none */
static char *net_text;		   /* VHOST_SC_NET, likewise; NULL if there is none */
static bool trace_wanted;
static char *exe_path; /* of this program, if it is remote; NULL */
static bool stats_wanted;
static int stats_fd = -1; /* a copy of standard error: programs close theirs at exit */

/* ---- reading ---- */

/* The value of `name` ("X=" included) in the environment, or NULL. */
static char *env_get(char **envp, const char *name)
{
	size_t n = strlen(name);

	for (; *envp; envp++)
		if (sc_strnlen(*envp, n) == n && memcmp(*envp, name, n) == 0)
			return *envp + n;
	return NULL;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* One line with %XX resolved; returns its length. out has room for in_len + 1. */
static uint32_t unescape(const char *in, uint32_t in_len, char *out)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < in_len; i++) {
		int hi = i + 2 < in_len + 0u && in[i] == '%' ? hex_digit(in[i + 1]) : -1;
		int lo = hi >= 0 ? hex_digit(in[i + 2]) : -1;

		if (lo >= 0) {
			out[n++] = (char)(hi * 16 + lo);
			i += 2;
		} else {
			out[n++] = in[i];
		}
	}
	out[n] = '\0';
	return n;
}

static uint32_t line_len(const char *s)
{
	uint32_t n = 0;

	while (s[n] && s[n] != '\n')
		n++;
	return n;
}

static char *copy_text(const char *text)
{
	char *copy = sc_map(strlen(text) + 1);

	if (copy)
		memcpy(copy, text, strlen(text) + 1);
	return copy;
}

static void add_routes(const char *text)
{
	uint32_t n;

	for (; *text; text += n + (text[n] == '\n')) {
		char line[2 * SC_PATH_BUF];

		n = line_len(text);
		if (n < sizeof(line))
			sc_route_add(line, unescape(text, n, line));
	}
	sc_routes_ready();
}

static void add_netroutes(const char *text)
{
	uint32_t n;

	for (; *text; text += n + (text[n] == '\n')) {
		n = line_len(text);
		sc_netroute_add(text, n);
	}
}

bool sc_env_routes(char **envp)
{
	char *text = env_get(envp, "VHOST_SC_ROUTES="), *dir = env_get(envp, "VHOST_SC_AT=");
	char *lib = env_get(envp, "VHOST_SC_LIB="), *stats = env_get(envp, "VHOST_SC_STATS=");
	char *net = env_get(envp, "VHOST_SC_NET="), *trace = env_get(envp, "VHOST_SC_TRACE=");

	if (!dir)
		dir = env_get(envp, "VHOST_SC_RUNDIR=");
	if (dir)
		sc_chan_set_rundir(dir); /* the C API needs it without routes, too */
	if ((!text || !*text) && (!net || !*net))
		return false;
	routes_text = copy_text(text ? text : "");
	net_text = net && *net ? copy_text(net) : NULL;
	if (!routes_text)
		return false;
	if (lib && strlen(lib) < sizeof(lib_path))
		memcpy(lib_path, lib, strlen(lib) + 1);
	stats_wanted = stats && *stats == '1';
	trace_wanted = trace && *trace == '1';
	add_routes(routes_text);
	if (net_text)
		add_netroutes(net_text);
	return sc_nroutes || sc_nnetroutes;
}

/* Reads one field of a line: hexadecimal, ended by ':' or the line's end. */
static uint64_t field(const char **s)
{
	uint64_t v = 0;

	while (hex_digit(**s) >= 0)
		v = v << 4 | (uint64_t)hex_digit(*(*s)++);
	if (**s == ':')
		(*s)++;
	return v;
}

/* Is this descriptor the socket with that inode number? */
static bool is_socket(int fd, uint64_t inode)
{
	struct sc_kstat st;

	return sc_sys2(__NR_fstat, fd, &st) == 0 && (st.mode & S_IFMT_BITS) == S_IFSOCK_BITS &&
	       st.ino == inode;
}

/* The socket that a line describes: of a type, with family << 16 | protocol where a file has its route. */
static struct sc_file *adopt_sock(struct sc_thread *t, int fd, struct sc_file *f, uint64_t what)
{
	struct sc_file *known;

	if (!sc_nnetroutes || !sc_net_adopt(f, (uint32_t)(what >> 16) & 0xffff,
					    (uint32_t)(what >> 32) & 0xf, (uint32_t)what & 0xffff))
		return NULL;
	known = sc_fd_adopt(t, fd, f);
	if (known && known->net != f->net)
		sc_net_unref(f); /* another descriptor of it was first */
	return known;
}

/* Takes over what one line says. Returns the file, or NULL if the line is not right (any more). */
static struct sc_file *adopt_line(const char *s, bool cwd)
{
	struct sc_thread t = {.proc = &sc_main_proc};
	struct sc_file f = {.ticket_fd = -1, .flags = SC_FILE_SHARED};
	uint64_t inode, route;
	uint32_t n = 0;
	int fd = (int)field(&s);

	while (s[n] && s[n] != ':' && s[n] != '\n')
		n++;
	f.dom = sc_dom_named(s, n);
	if (!f.dom || s[n] != ':')
		return NULL;
	s += n + 1;
	f.ticket = field(&s);
	f.handle = field(&s);
	f.secret = field(&s);
	f.oflags = (uint32_t)field(&s);
	f.type = (uint32_t)field(&s);
	inode = field(&s);
	route = field(&s);
	if (fd < 0 || (uint32_t)fd >= SC_FD_MAX || !is_socket(fd, inode))
		return NULL;
	if (f.type == S_IFSOCK_BITS && !cwd)
		return adopt_sock(&t, fd, &f, route);
	if (route >= sc_nroutes)
		return NULL;
	f.route = &sc_routes[route];
	if (!cwd)
		return sc_fd_adopt(&t, fd, &f);
	sc_sys3(__NR_fcntl, fd, F_SETFD, FD_CLOEXEC);
	sc_libfd_adopt(fd);
	sc_main_proc.cwd = sc_fd_adopt(&t, -1, &f);
	if (sc_main_proc.cwd)
		sc_main_proc.cwd->ticket_fd = fd;
	return sc_main_proc.cwd;
}

/* Segments of sockets: their tickets' descriptors, by which they can be mapped. */
static void adopt_segments(const char *s)
{
	struct sc_netmem_line line;
	uint64_t inode;
	uint32_t n;

	for (; *s; s += line_len(s) + (s[line_len(s)] == '\n')) {
		const char *at = s;

		line.fd = (int)field(&at);
		for (n = 0; at[n] && at[n] != ':' && at[n] != '\n';)
			n++;
		line.dom = sc_dom_named(at, n);
		if (!line.dom || at[n] != ':')
			continue;
		at += n + 1;
		line.ticket = field(&at);
		inode = field(&at);
		if (line.fd >= 0 && (uint32_t)line.fd < SC_FD_MAX && is_socket(line.fd, inode))
			sc_netmem_adopt(&line);
	}
}

/* A remote program was executed by way of a memfd: it gets its own name back. */
static void name_program(const char *path)
{
	const char *name = path;
	size_t n = path ? strlen(path) : 0;

	if (!n)
		return;
	exe_path = sc_map(n + 1);
	if (!exe_path)
		return;
	memcpy(exe_path, path, n + 1);
	for (; *path; path++)
		if (*path == '/')
			name = path + 1;
	sc_sys2(__NR_prctl, PR_SET_NAME, name);
}

const char *sc_exe_path(void)
{
	return exe_path;
}

void sc_env_files(char **envp)
{
	const char *fds = env_get(envp, "VHOST_SC_FDS="), *cwd = env_get(envp, "VHOST_SC_CWD=");
	const char *segs = env_get(envp, "VHOST_SC_SEGS=");
	uint32_t n;

	if (segs && sc_nnetroutes)
		adopt_segments(segs);
	for (; fds && *fds; fds += n + (fds[n] == '\n')) {
		n = line_len(fds);
		adopt_line(fds, false);
	}
	if (cwd)
		adopt_line(cwd, true);
	name_program(env_get(envp, "VHOST_SC_EXE="));
	sc_main_proc.posix_locks = env_get(envp, "VHOST_SC_LOCKS=") != NULL;
}

static bool is_ours(const char *var)
{
	static const char *const names[] = {"VHOST_SC_LIB=", "VHOST_SC_ROUTES=", "VHOST_SC_FDS=",
					    "VHOST_SC_CWD=", "VHOST_SC_LOCKS=",	 "VHOST_SC_AT=",
					    "VHOST_SC_EXE=", "VHOST_SC_NET=",	 "VHOST_SC_SEGS="};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t n = strlen(names[i]);

		if (sc_strnlen(var, n) == n && memcmp(var, names[i], n) == 0)
			return true;
	}
	return false;
}

#define PRELOAD "LD_PRELOAD="

/* Length of our part of an LD_PRELOAD variable, separator included; 0: it is not there. */
static size_t preload_part(const char *var)
{
	size_t name = sizeof(PRELOAD) - 1, lib = strlen(lib_path);

	if (!lib || sc_strnlen(var, name + lib) < name + lib || memcmp(var, PRELOAD, name) ||
	    memcmp(var + name, lib_path, lib))
		return 0;
	if (var[name + lib] == '\0')
		return lib;
	return var[name + lib] == ':' || var[name + lib] == ' ' ? lib + 1 : 0;
}

void sc_env_clean(char **envp)
{
	char **out = envp;

	for (; *envp; envp++) {
		size_t part = preload_part(*envp), name = sizeof(PRELOAD) - 1;

		if (is_ours(*envp) || (part && (*envp)[name + part] == '\0'))
			continue;
		if (part)
			memmove(*envp + name, *envp + name + part, strlen(*envp + name + part) + 1);
		*out++ = *envp;
	}
	*out = NULL;
}

/* ---- writing ---- */

struct text {
	char *at;
	char *end;
};

static void put(struct text *x, const char *s, size_t n)
{
	if ((size_t)(x->end - x->at) <= n) {
		x->at = x->end;
		return;
	}
	memcpy(x->at, s, n);
	x->at += n;
}

static void put_str(struct text *x, const char *s)
{
	put(x, s, strlen(s));
}

static void put_hex(struct text *x, uint64_t v, char after)
{
	char digits[17];
	int n = 16;

	digits[16] = after;
	do
		digits[--n] = "0123456789abcdef"[v & 15];
	while (v >>= 4);
	put(x, digits + n, (size_t)(17 - n));
}

static void put_file(struct text *x, int fd, const struct sc_file *f)
{
	struct sc_kstat st;

	if (sc_sys2(__NR_fstat, fd, &st))
		return;
	put_hex(x, (uint64_t)fd, ':');
	put_str(x, f->dom->name);
	put(x, ":", 1);
	put_hex(x, f->ticket, ':');
	put_hex(x, f->handle, ':');
	put_hex(x, f->secret, ':');
	put_hex(x, f->oflags, ':');
	put_hex(x, f->type, ':');
	put_hex(x, st.ino, ':');
	if (f->kind == SC_KIND_SOCK) {
		const struct sc_nsock *s = f->net;

		put_hex(x, (uint64_t)s->type << 32 | (uint32_t)s->family << 16 | s->protocol, '\n');
	} else {
		put_hex(x, f->route->index, '\n');
	}
}

/* Ends a variable; returns where it began, or NULL if it did not fit. */
static char *var_end(struct text *x, char *begin)
{
	put(x, "", 1);
	return x->at == x->end ? NULL : begin;
}

static char *var_fds(struct text *x, struct sc_thread *t)
{
	struct sc_fdtab *tab = &t->proc->fds;
	char *begin = x->at;

	put_str(x, "VHOST_SC_FDS=");
	for (uint32_t fd = 0; fd < tab->fd_high; fd++) {
		struct sc_file *f = sc_fd_any(t, (int)fd);

		if (f && (f->kind == SC_KIND_FILE || f->kind == SC_KIND_SOCK) &&
		    !(sc_sys3(__NR_fcntl, fd, F_GETFD, 0) & FD_CLOEXEC))
			put_file(x, (int)fd, f);
	}
	return var_end(x, begin);
}

static char *var_segments(struct text *x)
{
	struct sc_netmem_line line;
	struct sc_kstat st;
	char *begin = x->at;

	put_str(x, "VHOST_SC_SEGS=");
	for (uint32_t i = 0; sc_netmem_for_exec(i, true, &line); i++) {
		if (sc_sys2(__NR_fstat, line.fd, &st))
			continue;
		put_hex(x, (uint64_t)line.fd, ':');
		put_str(x, line.dom->name);
		put(x, ":", 1);
		put_hex(x, line.ticket, ':');
		put_hex(x, st.ino, '\n');
	}
	return var_end(x, begin);
}

static char *var_cwd(struct text *x, struct sc_thread *t)
{
	struct sc_file *f = t->proc->cwd;
	char *begin = x->at;

	sc_sys3(__NR_fcntl, f->ticket_fd, F_SETFD, 0);
	put_str(x, "VHOST_SC_CWD=");
	put_file(x, f->ticket_fd, f);
	return var_end(x, begin);
}

static char *var_simple(struct text *x, const char *name, const char *value)
{
	char *begin = x->at;

	put_str(x, name);
	put_str(x, value);
	return var_end(x, begin);
}

/* LD_PRELOAD: ours, then the program's own (user memory, may be NULL). */
static char *var_preload(struct text *x, const char *user, size_t len)
{
	char *begin = x->at;

	put_str(x, PRELOAD);
	put_str(x, lib_path);
	if (user && len) {
		put(x, ":", 1);
		if ((size_t)(x->end - x->at) <= len || sc_copy_from_user(x->at, user, len))
			return NULL;
		x->at += len;
	}
	return var_end(x, begin);
}

/* ---- the hook ---- */

#define OUR_VARS 10u

struct exec_mem {
	uint64_t bytes;
	char *vars[]; /* pointers, then text */
};

/* How many variables the program passes; -errno. */
static long env_count(char *const *envp)
{
	char *v;

	for (uint32_t n = 0; envp && n < ENV_MAX; n++) {
		if (sc_copy_from_user(&v, envp + n, sizeof(v)))
			return -EFAULT;
		if (!v)
			return n;
	}
	return envp ? -E2BIG : 0;
}

/* What to do with one of the program's variables. */
enum keep { KEEP, DROP, PRELOADED };

static enum keep env_look(const char *user, size_t *len)
{
	char start[32];
	long n = sc_strnlen_user(user, sizeof(start) - 1);

	if (n < 0 || sc_copy_from_user(start, user, (size_t)n))
		return KEEP; /* the kernel will say EFAULT */
	start[n] = '\0';
	if (memcmp(start, PRELOAD, sizeof(PRELOAD) - 1) == 0) {
		n = sc_strnlen_user(user, TEXT_MAX / 4);
		*len = n < 0 ? 0 : (size_t)n - (sizeof(PRELOAD) - 1);
		return PRELOADED;
	}
	return is_ours(start) ? DROP : KEEP;
}

static bool add(struct exec_mem *m, uint32_t *n, char *var)
{
	m->vars[(*n)++] = var;
	return var != NULL;
}

/* True if the program itself set up routes (scrun under scrun): then its variables stand. */
static bool nested(char *const *envp, long count)
{
	static const char name[] = "VHOST_SC_ROUTES=";
	const size_t n = sizeof(name) - 1;
	char *v, start[sizeof(name)];

	for (long i = 0; i < count; i++) {
		if (sc_copy_from_user(&v, envp + i, sizeof(v)) ||
		    sc_strnlen_user(v, n) != (long)n || sc_copy_from_user(start, v, n))
			continue;
		if (memcmp(start, name, n) == 0)
			return true;
	}
	return false;
}

static long build(struct sc_thread *t, struct exec_mem *m, char *const *envp, uint32_t count,
		  uint32_t slots)
{
	struct text x = {.at = (char *)(m->vars + slots), .end = (char *)m + m->bytes};
	const char *preload = NULL;
	size_t preload_len = 0;
	uint32_t n = 0;
	bool ok;

	for (uint32_t i = 0; i < count; i++) {
		size_t len = 0;
		char *v;

		if (sc_copy_from_user(&v, envp + i, sizeof(v)))
			return -EFAULT;
		switch (env_look(v, &len)) {
		case KEEP:
			m->vars[n++] = v;
			break;
		case PRELOADED:
			preload = v + sizeof(PRELOAD) - 1;
			preload_len = len;
			break;
		case DROP:
			break;
		}
	}
	ok = add(m, &n, var_preload(&x, preload, preload_len));
	ok = ok && add(m, &n, var_simple(&x, "VHOST_SC_LIB=", lib_path));
	ok = ok && add(m, &n, var_simple(&x, "VHOST_SC_ROUTES=", routes_text));
	if (ok && net_text)
		ok = add(m, &n, var_simple(&x, "VHOST_SC_NET=", net_text));
	ok = ok && add(m, &n, var_simple(&x, "VHOST_SC_AT=", sc_chan_rundir()));
	ok = ok && add(m, &n, var_fds(&x, t));
	if (ok && net_text)
		ok = add(m, &n, var_segments(&x));
	if (ok && t->proc->cwd)
		ok = add(m, &n, var_cwd(&x, t));
	if (ok && sc_exec_remote_path(t->serve))
		ok = add(m, &n, var_simple(&x, "VHOST_SC_EXE=", sc_exec_remote_path(t->serve)));
	if (ok && t->proc->posix_locks && !t->proc->vforked)
		ok = add(m, &n, var_simple(&x, "VHOST_SC_LOCKS=", "1"));
	m->vars[n] = NULL;
	return ok ? 0 : -E2BIG;
}

long sc_serve_before_exec(struct sc_thread *t, struct sc_exec *x)
{
	struct sc_serve_thread *s = sc_serve_of(t);
	long count = env_count(x->envp), err;
	uint32_t slots;
	struct exec_mem *m;
	uint64_t bytes;

	if (!s)
		return -ENOMEM;
	if (count < 0)
		return count;
	if (!lib_path[0] || nested(x->envp, count))
		return 0;
	err = sc_exec_remote(t, x);
	if (err)
		return err;
	slots = (uint32_t)count + OUR_VARS + 1;
	bytes = sizeof(*m) + slots * sizeof(char *) + TEXT_MAX;
	m = sc_map(bytes);
	if (!m) {
		sc_exec_remote_forget(s, true);
		return -ENOMEM;
	}
	m->bytes = bytes;
	err = build(t, m, x->envp, (uint32_t)count, slots);
	if (err) {
		sc_exec_remote_forget(s, true);
		sc_unmap(m, bytes);
		return err;
	}
	s->exec_mem = m;
	x->envp = m->vars;
	return 0;
}

void sc_exec_forget(struct sc_serve_thread *s)
{
	struct exec_mem *m = s->exec_mem;

	s->exec_mem = NULL;
	if (m)
		sc_unmap(m, m->bytes);
}

void sc_serve_exec_failed(struct sc_thread *t, struct sc_exec *x)
{
	struct sc_serve_thread *s = t->serve;
	struct sc_netmem_line line;

	for (uint32_t i = 0; sc_netmem_for_exec(i, false, &line); i++)
		;
	if (t->proc->cwd)
		sc_sys3(__NR_fcntl, t->proc->cwd->ticket_fd, F_SETFD, FD_CLOEXEC);
	sc_exec_remote_forget(s, true);
	sc_exec_forget(s);
}

/* ---- counters ---- */

static void put_dec(struct text *x, uint64_t v)
{
	char digits[20];
	int n = 20;

	do
		digits[--n] = (char)('0' + v % 10);
	while (v /= 10);
	put(x, digits + n, (size_t)(20 - n));
}

static void put_count(struct text *x, const char *name, uint64_t v)
{
	put_str(x, " ");
	put_str(x, name);
	put_str(x, "=");
	put_dec(x, v);
}

void sc_stats_start(void)
{
	long fd = stats_wanted || trace_wanted ? sc_sys3(__NR_fcntl, 2, F_DUPFD_CLOEXEC, 0) : -1;

	stats_fd = fd < 0 ? -1 : sc_libfd_move((int)fd);
}

void sc_trace_option(const char *call, int level, int name)
{
	char buf[160];
	struct text x = {.at = buf, .end = buf + sizeof(buf)};

	if (!trace_wanted)
		return;
	put_str(&x, "scrun: pid ");
	put_dec(&x, (uint64_t)sc_sys0(__NR_getpid));
	put_str(&x, ": ");
	put_str(&x, call);
	put_count(&x, "level", (uint32_t)level);
	put_count(&x, "name", (uint32_t)name);
	put_str(&x, ": no domain knows this option (ENOPROTOOPT)\n");
	sc_sys3(__NR_write, stats_fd, buf, x.at - buf);
}

void sc_stats_at_exit(void)
{
	struct sc_intercept_stats is;
	struct sc_serve_counts n;
	char buf[512];
	struct text x = {.at = buf, .end = buf + sizeof(buf)};
	uint64_t remote = 0;

	if (!stats_wanted)
		return;
	sc_counts_sum(&n);
	for (uint32_t i = 0; i < SC_OP_MAX; i++)
		remote += n.remote[i];
	sc_intercept_get_stats(&is);
	put_str(&x, "scrun: pid ");
	put_dec(&x, (uint64_t)sc_sys0(__NR_getpid));
	put_str(&x, ":");
	put_count(&x, "remote", remote);
	put_count(&x, "opens", n.remote[SC_OP_OPEN]);
	put_count(&x, "reads", n.remote[SC_OP_READ]);
	put_count(&x, "writes", n.remote[SC_OP_WRITE]);
	put_count(&x, "stats", n.remote[SC_OP_STAT]);
	put_count(&x, "sleeps", n.sleeps);
	put_count(&x, "sites", is.sites_rewritten);
	put_count(&x, "traps", is.traps);
	put_str(&x, "\n");
	sc_sys3(__NR_write, stats_fd, buf, x.at - buf);
}
