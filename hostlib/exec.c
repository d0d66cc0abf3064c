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
#include <elf.h>
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
#include "text.h"
#include "trace.h"

#define S_IFMT_BITS   0170000u
#define S_IFSOCK_BITS 0140000u
#define ENV_MAX	      (1u << 20) /* pointers that we copy at most */
#define TEXT_MAX      (1u << 20) /* bytes of our own variables */
#define FD_LINE	      192u

static char lib_path[SC_PATH_BUF]; /* of the library, for LD_PRELOAD; "" if not known */
static char *routes_text;	   /* as it came, to be handed on; "" if there are none */
static char *net_text;		   /* VHOST_SC_NET, likewise; NULL if there is none */
static char *exe_path;		   /* of this program, if it is remote; NULL */

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
	char *lib = env_get(envp, "VHOST_SC_LIB=");
	char *net = env_get(envp, "VHOST_SC_NET=");
	char *recovery = env_get(envp, "VHOST_SC_RECOVERY_TIMEOUT=");

	if (!dir)
		dir = env_get(envp, "VHOST_SC_RUNDIR=");
	if (dir)
		sc_chan_set_rundir(dir); /* the C API needs it without routes, too */
	if (recovery)
		sc_chan_set_recovery(recovery);
	if ((!text || !*text) && (!net || !*net))
		return false;
	routes_text = copy_text(text ? text : "");
	net_text = net && *net ? copy_text(net) : NULL;
	if (!routes_text)
		return false;
	if (lib && strlen(lib) < sizeof(lib_path))
		memcpy(lib_path, lib, strlen(lib) + 1);
	sc_report_setup(env_get(envp, "VHOST_SC_TRACE="), env_get(envp, "VHOST_SC_STATS="));
	add_routes(routes_text);
	if (net_text)
		add_netroutes(net_text);
	for (uint32_t i = 0; i < sc_ndoms; i++)
		sc_doms[i].known = true; /* scrun has seen them */
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
	static const char *const names[] = {
	    "VHOST_SC_LIB=",   "VHOST_SC_ROUTES=", "VHOST_SC_FDS=", "VHOST_SC_CWD=",
	    "VHOST_SC_LOCKS=", "VHOST_SC_AT=",	   "VHOST_SC_EXE=", "VHOST_SC_TRACE=",
	    "VHOST_SC_LIBS=",  "VHOST_SC_PAD=",	   "VHOST_SC_NET=", "VHOST_SC_SEGS="};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t n = strlen(names[i]);

		if (sc_strnlen(var, n) == n && memcmp(var, names[i], n) == 0)
			return true;
	}
	return false;
}

#define PRELOAD "LD_PRELOAD="
#define AUDIT	"LD_AUDIT="
#define LIBRARY "LD_LIBRARY_PATH="

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

/* LD_AUDIT with the library alone: what we put there. */
static bool is_our_audit(const char *var)
{
	size_t name = sizeof(AUDIT) - 1, lib = strlen(lib_path);

	return lib && sc_strnlen(var, name + lib + 1) == name + lib &&
	       memcmp(var, AUDIT, name) == 0 && memcmp(var + name, lib_path, lib) == 0;
}

/* Takes `added` off the end of LD_LIBRARY_PATH, which the loader has read. True: nothing is left. */
static bool restore_libs(char *var, const char *added)
{
	size_t name = sizeof(LIBRARY) - 1, n = strlen(added), len;

	if (sc_strnlen(var, name) < name || memcmp(var, LIBRARY, name))
		return false;
	len = strlen(var);
	if (len < name + n || memcmp(var + len - n, added, n))
		return false;
	len -= n;
	if (len == name)
		return true;
	var[len - 1] = '\0'; /* the colon before it */
	return false;
}

/*
 * Behind the environment's NULL lies the kernel's auxiliary vector, and there are programs (Go's) that look for it there. So
 * the slots that become free are made to look like entries of it that say nothing. Such an entry takes two slots.
 */
static void fill_auxv(char **from, char **to)
{
	for (; to - from >= 2; from += 2) {
		from[0] = (char *)AT_IGNORE;
		from[1] = NULL;
	}
}

/* Is the variable one that the program is not to see? Takes our part out of others. */
static bool is_hidden(char *var, const char *libs)
{
	size_t part = preload_part(var), name = sizeof(PRELOAD) - 1;

	if ((libs && restore_libs(var, libs)) || is_ours(var) || is_our_audit(var) ||
	    (part && var[name + part] == '\0'))
		return true;
	if (part)
		memmove(var + name, var + name + part, strlen(var + name + part) + 1);
	return false;
}

void sc_env_clean(char **envp)
{
	const char *libs = env_get(envp, "VHOST_SC_LIBS=");
	char **out = envp, *spare = NULL;

	for (; *envp; envp++) {
		if (is_ours(*envp))
			spare = *envp;
		if (!is_hidden(*envp, libs))
			*out++ = *envp;
	}
	if (((envp - out) & 1) && spare) /* VHOST_SC_PAD is there to make it even */
		*out++ = spare;
	*out = NULL;
	fill_auxv(out + 1, envp + 1);
}

/* ---- writing ---- */

static void put_file(struct sc_text *x, int fd, const struct sc_file *f)
{
	struct sc_kstat st;

	if (sc_sys2(__NR_fstat, fd, &st))
		return;
	sc_put_hex(x, (uint64_t)fd, ':');
	sc_put_str(x, f->dom->name);
	sc_put(x, ":", 1);
	sc_put_hex(x, f->ticket, ':');
	sc_put_hex(x, f->handle, ':');
	sc_put_hex(x, f->secret, ':');
	sc_put_hex(x, f->oflags, ':');
	sc_put_hex(x, f->type, ':');
	sc_put_hex(x, st.ino, ':');
	if (f->kind == SC_KIND_SOCK) {
		const struct sc_nsock *s = f->net;

		sc_put_hex(x, (uint64_t)s->type << 32 | (uint32_t)s->family << 16 | s->protocol,
			   '\n');
	} else {
		sc_put_hex(x, f->route->index, '\n');
	}
}

/* Ends a variable; returns where it began, or NULL if it did not fit. */
static char *var_end(struct sc_text *x, char *begin)
{
	sc_put(x, "", 1);
	return x->at == x->end ? NULL : begin;
}

static char *var_fds(struct sc_text *x, struct sc_thread *t)
{
	struct sc_fdtab *tab = &t->proc->fds;
	char *begin = x->at;

	sc_put_str(x, "VHOST_SC_FDS=");
	for (uint32_t fd = 0; fd < tab->fd_high; fd++) {
		struct sc_file *f = sc_fd_any(t, (int)fd);

		if (f && (f->kind == SC_KIND_FILE || f->kind == SC_KIND_SOCK) &&
		    !(sc_sys3(__NR_fcntl, fd, F_GETFD, 0) & FD_CLOEXEC))
			put_file(x, (int)fd, f);
	}
	return var_end(x, begin);
}

static char *var_segments(struct sc_text *x)
{
	struct sc_netmem_line line;
	struct sc_kstat st;
	char *begin = x->at;

	sc_put_str(x, "VHOST_SC_SEGS=");
	for (uint32_t i = 0; sc_netmem_for_exec(i, true, &line); i++) {
		if (sc_sys2(__NR_fstat, line.fd, &st))
			continue;
		sc_put_hex(x, (uint64_t)line.fd, ':');
		sc_put_str(x, line.dom->name);
		sc_put(x, ":", 1);
		sc_put_hex(x, line.ticket, ':');
		sc_put_hex(x, st.ino, '\n');
	}
	return var_end(x, begin);
}

static char *var_cwd(struct sc_text *x, struct sc_thread *t)
{
	struct sc_file *f = t->proc->cwd;
	char *begin = x->at;

	sc_sys3(__NR_fcntl, f->ticket_fd, F_SETFD, 0);
	sc_put_str(x, "VHOST_SC_CWD=");
	put_file(x, f->ticket_fd, f);
	return var_end(x, begin);
}

static char *var_simple(struct sc_text *x, const char *name, const char *value)
{
	char *begin = x->at;

	sc_put_str(x, name);
	sc_put_str(x, value);
	return var_end(x, begin);
}

/* LD_PRELOAD: ours, then the program's own (user memory, may be NULL). */
static char *var_preload(struct sc_text *x, const char *user, size_t len)
{
	char *begin = x->at;

	sc_put_str(x, PRELOAD);
	sc_put_str(x, lib_path);
	if (user && len) {
		sc_put(x, ":", 1);
		if ((size_t)(x->end - x->at) <= len || sc_copy_from_user(x->at, user, len))
			return NULL;
		x->at += len;
	}
	return var_end(x, begin);
}

/* LD_LIBRARY_PATH: the program's own (user memory, may be NULL), then ours. */
static char *var_libs(struct sc_text *x, const char *user, const char *more)
{
	char *begin = x->at;
	long n = user ? sc_strnlen_user(user, TEXT_MAX / 4) : 0;

	sc_put_str(x, LIBRARY);
	if (n > 0) {
		if (x->end - x->at <= n || sc_copy_from_user(x->at, user, (size_t)n))
			return NULL;
		x->at += n;
		sc_put(x, ":", 1);
	}
	sc_put_str(x, more);
	return var_end(x, begin);
}

/* ---- the hook ---- */

#define OUR_VARS 14u

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
enum keep { KEEP, DROP, PRELOADED, LIBRARIES };

/* Is one of the paths in this list (of LD_LIBRARY_PATH's or LD_PRELOAD's kind, user memory) below a route? */
static bool lists_remote(const char *user)
{
	char path[SC_PATH_BUF];
	uint32_t n = 0, rest;
	bool dotdot;
	char c;

	do {
		if (sc_copy_from_user(&c, user++, 1))
			return false;
		if (c && c != ':' && c != ';' && c != ' ') {
			if (n + 1 < sizeof(path))
				path[n++] = c;
			continue;
		}
		path[n] = '\0';
		if (path[0] == '/' && sc_route_match(path, &rest, &dotdot))
			return true;
		n = 0;
	} while (c);
	return false;
}

/*
 * May the dynamic loader have to map something remote for the program that is executed now? So it is if the program is
 * remote itself (its RUNPATH may name a place near it), or if a variable says so. Not with an LD_AUDIT of the program's own,
 * which would see us.
 */
static bool wants_audit(struct sc_thread *t, char *const *envp, uint32_t count)
{
	bool wanted = sc_exec_remote_path(t->serve) != NULL;
	char start[20] = {0}, *v;

	for (uint32_t i = 0; i < count; i++) {
		long n;

		if (sc_copy_from_user(&v, envp + i, sizeof(v)))
			return false;
		n = sc_strnlen_user(v, sizeof(start) - 1);
		if (n < 3 || sc_copy_from_user(start, v, (size_t)n) || memcmp(start, "LD_", 3))
			continue;
		start[n] = '\0';
		if (memcmp(start, AUDIT, sizeof(AUDIT) - 1) == 0)
			return false;
		if (memcmp(start, PRELOAD, sizeof(PRELOAD) - 1) == 0)
			wanted |= lists_remote(v + sizeof(PRELOAD) - 1);
		else if (memcmp(start, "LD_LIBRARY_PATH=", 16) == 0)
			wanted |= lists_remote(v + 16);
	}
	return wanted;
}

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
	if (memcmp(start, LIBRARY, sizeof(LIBRARY) - 1) == 0)
		return LIBRARIES;
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
	struct sc_text x = {.at = (char *)(m->vars + slots), .end = (char *)m + m->bytes};
	const char *preload = NULL, *own_libs = NULL, *libs = sc_exec_remote_libs(t->serve);
	size_t preload_len = 0;
	uint32_t n = 0, kept, hidden;
	bool ok, audit = wants_audit(t, envp, count);

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
			if (audit) {
				m->vars[n++] = v;
				break;
			}
			preload = v + sizeof(PRELOAD) - 1;
			preload_len = len;
			break;
		case LIBRARIES:
			own_libs = v + sizeof(LIBRARY) - 1;
			if (!libs)
				m->vars[n++] = v;
			break;
		case DROP:
			break;
		}
	}
	kept = n;
	ok = add(m, &n,
		 audit ? var_simple(&x, AUDIT, lib_path) : var_preload(&x, preload, preload_len));
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
	if (ok && libs)
		ok = add(m, &n, var_libs(&x, own_libs, libs)) &&
		     add(m, &n, var_simple(&x, "VHOST_SC_LIBS=", libs));
	if (ok && sc_trace_target())
		ok = add(m, &n, var_simple(&x, "VHOST_SC_TRACE=", sc_trace_target()));
	/* an even number of variables is to disappear: see fill_auxv() */
	hidden = n - kept - (preload && preload_len && !audit) - (own_libs && libs);
	if (ok && hidden % 2)
		ok = add(m, &n, var_simple(&x, "VHOST_SC_PAD=", ""));
	m->vars[n] = NULL;
	return ok ? 0 : -E2BIG;
}

/* sc_exec_remote(), which is the remote part of an exec: traced. */
static long exec_remote(struct sc_thread *t, struct sc_exec *x)
{
	struct sc_call c = {.nr = __NR_execveat,
			    .a = {x->dirfd, (long)x->path, (long)x->argv, (long)x->envp, x->flags}};
	struct sc_trace tr;
	long err;

	if (!sc_tracing)
		return sc_exec_remote(t, x);
	sc_trace_begin(t, &tr);
	err = sc_exec_remote(t, x);
	sc_trace_end(t, &tr, &c, err ? err : SC_NATIVE);
	return err;
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
	err = exec_remote(t, x);
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
