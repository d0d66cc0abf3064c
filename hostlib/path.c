/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * path.c - who serves a path; see path.h for the order in which that is found out.
 *
 * The walk (step 5) follows a path the way the kernel does, with readlink for each component: `cur` is always a path
 * without symbolic links, `todo` is what is left. As soon as `cur` is a route's prefix, the rest is the domain's. It is
 * needed only where text cannot decide (a symbolic link, or ".." behind one), and only after the kernel has failed; a
 * probe with RESOLVE_NO_SYMLINKS tells cheaply that no link is involved. If the host has something of its own at a
 * route's path ("shadows"), the kernel would not fail but find that: then the probe comes first.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>

#include "chan-priv.h"
#include "path-priv.h"
#include "path.h"
#include "process.h"

#define LINK_LIMIT 40u

struct sc_route *sc_routes;
uint32_t sc_nroutes;
static bool any_shadow;

/* ---- routes ---- */

uint32_t sc_path_normalise(char *path)
{
	uint32_t in = 0, out = 0;

	while (path[in]) {
		uint32_t start, len;

		while (path[in] == '/')
			in++;
		start = in;
		while (path[in] && path[in] != '/')
			in++;
		len = in - start;
		if (len == 0 || (len == 1 && path[start] == '.'))
			continue;
		if (len == 2 && path[start] == '.' && path[start + 1] == '.') {
			while (out && path[--out] != '/')
				;
			continue;
		}
		path[out++] = '/';
		memmove(path + out, path + start, len);
		out += len;
	}
	if (out == 0)
		path[out++] = '/';
	path[out] = '\0';
	return out;
}

static int route_set(struct sc_route *r, const char *host, uint32_t hlen, const char *export,
		     uint32_t elen)
{
	struct stat st;

	if (hlen == 0 || host[0] != '/' || hlen >= SC_PATH_BUF - 256 || elen >= SC_PATH_BUF)
		return -EINVAL;
	memcpy(r->prefix, host, hlen);
	r->prefix[hlen] = '\0';
	r->len = sc_path_normalise(r->prefix);
	if (r->len == 1)
		return -EINVAL; /* "/" itself: the program's own libraries come from there */
	memcpy(r->export, export, elen);
	r->export[elen] = '\0';
	r->shadows = sc_sys4(__NR_newfstatat, AT_FDCWD, r->prefix, &st, AT_SYMLINK_NOFOLLOW) == 0;
	return 0;
}

int sc_route_add(const char *spec, uint32_t len)
{
	uint32_t colon = 0, equal;
	struct sc_route *r;
	int err;

	if (!sc_routes)
		sc_routes = sc_map(SC_MAX_ROUTES * sizeof(*sc_routes));
	if (!sc_routes)
		return -ENOMEM;
	if (sc_nroutes == SC_MAX_ROUTES)
		return -E2BIG;
	while (colon < len && spec[colon] != ':')
		colon++;
	if (colon == len)
		return -EINVAL;
	equal = colon + 1;
	while (equal < len && spec[equal] != '=')
		equal++;
	r = &sc_routes[sc_nroutes];
	r->dom = sc_dom_named(spec, colon);
	if (!r->dom)
		return -EINVAL;
	err = route_set(r, spec + colon + 1, equal - colon - 1, spec + equal + 1,
			equal < len ? len - equal - 1 : 0);
	if (err)
		return err;
	sc_nroutes++;
	return 0;
}

static void route_swap(struct sc_route *a, struct sc_route *b)
{
	uint64_t *x = (uint64_t *)a, *y = (uint64_t *)b;

	for (size_t i = 0; i < sizeof(*a) / sizeof(*x); i++) {
		uint64_t v = x[i];

		x[i] = y[i];
		y[i] = v;
	}
}

void sc_routes_ready(void)
{
	for (uint32_t i = 0; i < sc_nroutes; i++)
		for (uint32_t j = i + 1; j < sc_nroutes; j++)
			if (sc_routes[j].len > sc_routes[i].len)
				route_swap(&sc_routes[i], &sc_routes[j]);
	for (uint32_t i = 0; i < sc_nroutes; i++) {
		sc_routes[i].index = i;
		any_shadow |= sc_routes[i].shadows;
	}
}

/* Offset of the next component at or after j: skips slashes and "." components. */
static uint32_t skip_to_name(const char *path, uint32_t j)
{
	for (;;) {
		if (path[j] == '/')
			j++;
		else if (path[j] == '.' && path[j + 1] == '/')
			j++;
		else
			return j;
	}
}

static bool is_dotdot(const char *p)
{
	return p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0');
}

static bool dotdot_follows(const char *path)
{
	for (; *path; path++)
		if (*path == '/' && is_dotdot(path + 1))
			return true;
	return false;
}

static bool match_one(const struct sc_route *r, const char *path, uint32_t *rest, bool *dotdot)
{
	uint32_t i = 0, j = 0;

	while (i < r->len) {
		i++; /* the prefix's slash */
		j = skip_to_name(path, j);
		while (i < r->len && r->prefix[i] != '/' && r->prefix[i] == path[j]) {
			i++;
			j++;
		}
		if ((i < r->len && r->prefix[i] != '/') || (path[j] && path[j] != '/')) {
			/* a ".." here or later may lead to the route all the same */
			*dotdot |= is_dotdot(path + j) || dotdot_follows(path + j);
			return false;
		}
	}
	while (path[j] == '/')
		j++;
	*rest = j;
	return true;
}

const struct sc_route *sc_route_match(const char *path, uint32_t *rest, bool *dotdot)
{
	*dotdot = false;
	for (uint32_t i = 0; i < sc_nroutes; i++)
		if (match_one(&sc_routes[i], path, rest, dotdot))
			return &sc_routes[i];
	return NULL;
}

/* ---- filling struct sc_at ---- */

static void at_route(struct sc_at *at, const struct sc_route *r, const char *rest)
{
	uint32_t len = (uint32_t)strlen(rest);

	at->dom = r->dom;
	at->route = r;
	at->file = NULL;
	if (len == 0) {
		at->path[0] = '.';
		at->path[1] = '\0';
		at->len = 1;
		return;
	}
	memmove(at->path, rest, len + 1);
	at->len = len;
}

static void at_file(struct sc_at *at, struct sc_file *f, const char *rest)
{
	uint32_t len = (uint32_t)strlen(rest);

	at->dom = f->dom;
	at->route = f->route;
	at->file = f;
	memmove(at->path, rest, len + 1);
	at->len = len;
}

/* ---- names in /proc ---- */

/* Reads a decimal number; returns the characters used, 0: none. */
static uint32_t number(const char *s, uint32_t *out)
{
	uint32_t n = 0;

	*out = 0;
	while (s[n] >= '0' && s[n] <= '9' && n < 9)
		*out = *out * 10 + (uint32_t)(s[n++] - '0');
	return n;
}

static bool starts(const char *s, const char *with, uint32_t *len)
{
	*len = (uint32_t)strlen(with);
	return memcmp(s, with, *len) == 0;
}

/* Length of "/proc/self/" and its likes at the start of path, or 0. path has at least 32 readable bytes. */
static uint32_t proc_self(const char *path)
{
	uint32_t n, pid;

	if (starts(path, "/proc/self/", &n) || starts(path, "/proc/thread-self/", &n))
		return n;
	if (!starts(path, "/proc/", &n))
		return 0;
	pid = 0;
	n += number(path + n, &pid);
	if (pid == 0 || path[n] != '/' || pid != (uint32_t)sc_sys0(__NR_getpid))
		return 0;
	return n + 1;
}

/*
 * If path is /proc/self/fd/N..., /dev/fd/N..., /dev/std*, or /proc/self/cwd... of something remote: the file, and in *rest
 * the offset of what follows (slashes skipped).
 */
static struct sc_file *magic(struct sc_thread *t, const char *path, uint32_t *rest)
{
	struct sc_file *f = NULL;
	uint32_t n, m, fd;

	if (path[0] != '/' || (path[1] != 'p' && path[1] != 'd'))
		return NULL;
	if (starts(path, "/dev/stdin", &n))
		f = sc_fd_file(t, 0);
	else if (starts(path, "/dev/stdout", &n))
		f = sc_fd_file(t, 1);
	else if (starts(path, "/dev/stderr", &n))
		f = sc_fd_file(t, 2);
	else if (starts(path, "/dev/fd/", &n) || (n = proc_self(path)) != 0) {
		if (path[1] == 'p' && starts(path + n, "cwd", &m)) {
			n += m;
			f = t->proc->cwd;
		} else if (path[1] == 'd' || (starts(path + n, "fd/", &m) && (n += m) != 0)) {
			m = number(path + n, &fd);
			n += m;
			f = m ? sc_fd_file(t, (int)fd) : NULL;
		}
	}
	if (!f || (path[n] && path[n] != '/'))
		return NULL;
	while (path[n] == '/')
		n++;
	*rest = n;
	return f;
}

struct sc_file *sc_path_magic(struct sc_thread *t, const char *path)
{
	uint32_t rest;
	struct sc_file *f = magic(t, path, &rest);

	return f && path[rest] == '\0' && path[rest - 1] != '/' ? f : NULL;
}

bool sc_path_is_exe(const char *path)
{
	uint32_t n = path[0] == '/' ? proc_self(path) : 0;

	return n && memcmp(path + n, "exe", 4) == 0;
}

/* ---- the walk ---- */

struct walk {
	char cur[SC_PATH_BUF];	/* canonical, "" stands for "/" */
	char todo[SC_PATH_BUF]; /* what is left, from `at` on */
	char link[SC_PATH_BUF];
	uint32_t cur_len;
	uint32_t at;
	uint32_t links;
};

/* Where a relative path starts: the kernel's working directory or a local directory descriptor. Length or -errno. */
static long base_path(int dirfd, char *out, uint32_t size)
{
	char name[32] = "/proc/self/fd/";
	uint32_t n = 14, div = 1;
	long len;

	if (dirfd == AT_FDCWD) {
		len = sc_sys2(__NR_getcwd, out, size);
		return len > 0 ? len - 1 : len;
	}
	if (dirfd < 0)
		return -EBADF;
	while ((uint32_t)dirfd / div >= 10)
		div *= 10;
	for (; div; div /= 10)
		name[n++] = (char)('0' + (uint32_t)dirfd / div % 10);
	name[n] = '\0';
	len = sc_sys4(__NR_readlinkat, AT_FDCWD, name, out, size - 1);
	if (len < 0)
		return len;
	out[len] = '\0';
	return out[0] == '/' ? len : -ENOTDIR;
}

static uint32_t component(const char *s)
{
	uint32_t n = 0;

	while (s[n] && s[n] != '/')
		n++;
	return n;
}

/* Puts the text of the link before what is left. */
static long splice_link(struct walk *w, uint32_t link_len)
{
	uint32_t left = (uint32_t)strlen(w->todo + w->at);

	if (++w->links > LINK_LIMIT)
		return -ELOOP;
	if (link_len + 1 + left >= SC_PATH_BUF)
		return -ENAMETOOLONG;
	memmove(w->todo + link_len, w->todo + w->at, left + 1);
	memcpy(w->todo, w->link, link_len);
	w->at = 0;
	if (w->link[0] == '/')
		w->cur_len = 0;
	w->cur[w->cur_len] = '\0';
	return 0;
}

/* Takes the component at w->at, which there is. 0 or -errno. */
static long walk_step(struct walk *w, bool nofollow)
{
	uint32_t len = component(w->todo + w->at), old = w->cur_len;
	bool dotdot = is_dotdot(w->todo + w->at);
	long n;

	if (dotdot || (len == 1 && w->todo[w->at] == '.')) {
		while (dotdot && w->cur_len && w->cur[--w->cur_len] != '/')
			;
		w->cur[w->cur_len] = '\0';
		w->at += len;
		return 0;
	}
	if (w->cur_len + 1 + len >= SC_PATH_BUF)
		return -ENAMETOOLONG;
	w->cur[w->cur_len++] = '/';
	memcpy(w->cur + w->cur_len, w->todo + w->at, len);
	w->cur_len += len;
	w->cur[w->cur_len] = '\0';
	w->at += len;
	if (nofollow && w->todo[w->at] == '\0')
		return 0;
	n = sc_sys4(__NR_readlinkat, AT_FDCWD, w->cur, w->link, SC_PATH_BUF - 1);
	if (n < 0)
		return 0; /* no link; or nothing at all, and then the prefix alone decides */
	w->cur_len = old;
	return splice_link(w, (uint32_t)n);
}

/* The walk has come to a route: what is left of the path is the domain's. */
static long walk_arrived(struct walk *w, const struct sc_route *r, const char *below,
			 struct sc_at *at)
{
	uint32_t n = (uint32_t)strlen(below), left;

	while (w->todo[w->at] == '/')
		w->at++;
	left = (uint32_t)strlen(w->todo + w->at);
	if (n + 1 + left >= SC_PATH_BUF)
		return -ENAMETOOLONG;
	memmove(w->todo + n + (n != 0), w->todo + w->at, left + 1);
	memcpy(w->todo, below, n);
	if (n)
		w->todo[n] = '/';
	at_route(at, r, w->todo);
	at->crosses += w->links;
	return at->crosses > SC_MAX_CROSSES ? -ELOOP : 0;
}

/*
 * Walks (dirfd, path). 0: it leads to a remote place, *at says where (path may be at->path). SC_NATIVE: it does not.
 * -errno.
 */
static long __attribute__((noinline))
walk(int dirfd, const char *path, uint32_t flags, struct sc_at *at)
{
	struct walk w;
	const struct sc_route *r;
	uint32_t rest;
	bool dotdot;
	long n = 0;

	if (path[0] != '/') {
		n = base_path(dirfd, w.cur, sizeof(w.cur));
		if (n < 0)
			return SC_NATIVE;
	}
	w.cur_len = n > 1 ? (uint32_t)n : 0;
	w.cur[w.cur_len] = '\0';
	memcpy(w.todo, path, strlen(path) + 1);
	w.at = 0;
	w.links = 0;
	for (;;) {
		r = w.cur_len ? sc_route_match(w.cur, &rest, &dotdot) : NULL;
		if (r)
			return walk_arrived(&w, r, w.cur + rest, at);
		w.at = skip_to_name(w.todo, w.at);
		if (w.todo[w.at] == '\0' || walk_step(&w, flags & SC_AT_NOFOLLOW))
			return SC_NATIVE;
	}
}

/* Does a symbolic link take part in resolving the path? */
static bool links_involved(int dirfd, const char *path, uint32_t flags)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
	long fd;

	if (flags & SC_AT_NOFOLLOW)
		how.flags |= O_NOFOLLOW;
	fd = sc_sys4(__NR_openat2, dirfd, path, &how, sizeof(how));
	if (fd >= 0) {
		sc_sys1(__NR_close, fd);
		return false;
	}
	return fd != -ENOENT && fd != -ENOTDIR && fd != -EBADF;
}

/* Is there a ".." in it? */
static bool has_dotdot(const char *path)
{
	for (uint32_t i = 0; path[i]; i++)
		if ((i == 0 || path[i - 1] == '/') && is_dotdot(path + i))
			return true;
	return false;
}

/* Runs natively, and is looked at again if it fails. */
long sc_path_after(struct sc_thread *t, long result)
{
	struct sc_serve_thread *s = t->serve;
	struct sc_call c = {.nr = t->native.nr};
	sc_handler *h = sc_handler_of(c.nr);
	long res;

	if ((result != -ENOENT && result != -ENOTDIR) || !s || !h)
		return result;
	memcpy(c.a, t->native.a, sizeof(c.a));
	s->force_walk = true;
	t->native.after = NULL;
	res = h(t, &c);
	s->force_walk = false;
	if (res == SC_NATIVE)
		return result;
	if (res == SC_NATIVE_CHANGED)
		return sc_raw_syscall(t->native.nr, t->native.a[0], t->native.a[1], t->native.a[2],
				      t->native.a[3], t->native.a[4], t->native.a[5]);
	return res;
}

/* What a local path needs: nothing, or the second look. */
static long go_native(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_serve_thread *s = sc_serve_of(t);

	if (!s || s->force_walk)
		return SC_NATIVE;
	return sc_native_changed(t, c, sc_path_after);
}

/* A relative path below a local directory that may be an ancestor of a route. */
static bool joined_match(int dirfd, struct sc_at *at)
{
	char joined[SC_PATH_BUF];
	long n = base_path(dirfd, joined, sizeof(joined));
	const struct sc_route *r;
	uint32_t rest;
	bool dotdot;

	if (n < 0 || (uint32_t)n + 1 + at->len >= SC_PATH_BUF)
		return false;
	joined[n] = '/';
	memcpy(joined + n + 1, at->path, at->len + 1);
	r = sc_route_match(joined, &rest, &dotdot);
	if (!r)
		return false;
	at_route(at, r, joined + rest);
	return true;
}

/* Could a route lie below the kernel's working directory? */
static bool cwd_is_above(struct sc_thread *t)
{
	struct sc_proc *p = t->proc;
	char cwd[SC_PATH_BUF];
	long n;

	if (p->cwd_known)
		return p->cwd_above;
	n = base_path(AT_FDCWD, cwd, sizeof(cwd));
	p->cwd_above = false;
	if (n == 1)
		n = 0;
	for (uint32_t i = 0; n >= 0 && i < sc_nroutes; i++) {
		const struct sc_route *r = &sc_routes[i];

		if ((uint32_t)n <= r->len && memcmp(r->prefix, cwd, (size_t)n) == 0 &&
		    (r->prefix[n] == '/' || r->prefix[n] == '\0'))
			p->cwd_above = true;
	}
	p->cwd_known = true;
	return p->cwd_above;
}

/* Looks at at->path (at->len bytes), absolute or relative to a local dirfd. */
static long look_local(struct sc_thread *t, const struct sc_call *c, int dirfd, uint32_t flags,
		       struct sc_at *at)
{
	struct sc_serve_thread *s = sc_serve_of(t);
	bool relative = at->path[0] != '/';

	if (!s)
		return -ENOMEM;
	if (relative && dirfd == AT_FDCWD && cwd_is_above(t) && joined_match(dirfd, at))
		return 0;
	if (s->force_walk || any_shadow) {
		if (!links_involved(dirfd, at->path, flags)) {
			if (!relative && !has_dotdot(at->path))
				return SC_NATIVE;
			if (!has_dotdot(at->path))
				return joined_match(dirfd, at) ? 0 : SC_NATIVE;
		}
		return walk(dirfd, at->path, flags, at);
	}
	return go_native(t, c);
}

long sc_look_absolute(struct sc_thread *t, const struct sc_call *c, uint32_t flags,
		      struct sc_at *at)
{
	const struct sc_route *r;
	struct sc_file *f;
	uint32_t rest;
	bool dotdot;

	r = sc_route_match(at->path, &rest, &dotdot);
	if (r) {
		at_route(at, r, at->path + rest);
		return 0;
	}
	f = magic(t, at->path, &rest);
	if (f) {
		if (at->path[rest] == '\0' && (flags & SC_AT_NOFOLLOW) && at->path[rest - 1] != '/')
			return SC_NATIVE;
		at_file(at, f, at->path + rest);
		return 0;
	}
	if (dotdot) {
		char text[SC_PATH_BUF];

		memcpy(text, at->path, at->len + 1);
		sc_path_normalise(text);
		if (sc_route_match(text, &rest, &dotdot)) {
			long res = walk(AT_FDCWD, at->path, flags, at);

			if (res != SC_NATIVE)
				return res;
		}
	}
	return look_local(t, c, AT_FDCWD, flags, at);
}

/* Copies the program's path. Its length, or -errno. */
static long copy_path(struct sc_at *at, const char *user)
{
	long n = sc_strnlen_user(user, SC_PATH_BUF);

	if (n < 0)
		return -EFAULT;
	if (n == SC_PATH_BUF)
		return -ENAMETOOLONG;
	if (sc_copy_from_user(at->path, user, (size_t)n))
		return -EFAULT;
	at->path[n] = '\0';
	/* another thread may have shortened it meanwhile */
	at->len = (uint32_t)strlen(at->path);
	return at->len;
}

long sc_at_get(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
	       uint32_t flags, struct sc_at *at)
{
	struct sc_file *base = NULL;
	long n;

	at->crosses = 0;
	n = copy_path(at, (const char *)c->a[path_arg]);
	if (dirfd == AT_FDCWD)
		base = t->proc->cwd;
	else
		base = sc_fd_file(t, dirfd);
	/* what is wrong in any case the kernel knows best how to say */
	if (n < 0 || (at->path[0] == '\0' && !(base && (flags & SC_AT_EMPTY))))
		return SC_NATIVE;
	if (at->path[0] == '/')
		return sc_look_absolute(t, c, flags, at);
	if (!base)
		return look_local(t, c, dirfd, flags, at);
	at->dom = base->dom;
	at->route = base->route;
	at->file = base;
	return 0;
}

bool sc_path_is_remote(struct sc_thread *t, int dirfd, const char *path)
{
	struct sc_call c = {.nr = __NR_openat, .a = {dirfd, (long)path}};
	struct sc_serve_thread *s = sc_serve_of(t);
	struct sc_at at;
	bool walked;
	long res;

	if (!s)
		return false;
	walked = s->force_walk;
	s->force_walk = true;
	res = sc_at_get(t, &c, dirfd, 1, 0, &at);
	s->force_walk = walked;
	return res == 0;
}

/* ---- going on after a crossing ---- */

/* Where the last component of a path without trailing slashes starts; *end: where it ends. */
static uint32_t last_component(const char *path, uint32_t len, uint32_t *end)
{
	while (len && path[len - 1] == '/')
		len--;
	*end = len;
	while (len && path[len - 1] != '/')
		len--;
	return len;
}

/*
 * May a request for at->path, which the agent says leads to `to`, lead there? The worst that a file system can do is to
 * make a symbolic link of a component that is followed. So an operation on an open file leads nowhere, and where the last
 * component is not followed it stays the last one of what remains: a hostile agent cannot pass off another file for it.
 */
static bool cross_plausible(const struct sc_at *at, uint32_t at_flags, const char *to, uint32_t len)
{
	uint32_t mine, mine_end, theirs, theirs_end;

	if (at->len == 0)
		return false;
	if (!(at_flags & SC_AT_NOFOLLOW) || at->path[at->len - 1] == '/')
		return true;
	mine = last_component(at->path, at->len, &mine_end);
	if (mine_end - mine <= 2 && memcmp(at->path + mine, "..", mine_end - mine) == 0)
		return true;
	if (mine == 0)
		return false;
	theirs = last_component(to, len, &theirs_end);
	return mine_end - mine == theirs_end - theirs &&
	       memcmp(at->path + mine, to + theirs, mine_end - mine) == 0;
}

long sc_read_cross(struct sc_hlane *l, int which, uint32_t at_flags, struct sc_at *at)
{
	char rest[SC_PATH_BUF];
	const volatile struct sc_cross *x =
	    (const void *)(l->buf + (which ? SC_LB_PATH2 : SC_LB_PATH1));
	uint32_t kind = x->kind, len = x->len, up = 0;

	if (len >= SC_PATH_BUF - sizeof(struct sc_cross))
		return -EIO;
	memcpy(rest, (const char *)x + sizeof(struct sc_cross),
	       len); /* once; checked and used from here */
	if (!cross_plausible(at, at_flags, rest, len))
		return -EIO;
	if (kind == SC_CROSS_UP) {
		up = at->route->len;
		while (up && at->route->prefix[up - 1] != '/')
			up--;
		memcpy(at->path, at->route->prefix, up);
	} else if (kind != SC_CROSS_ABS) {
		return -EIO;
	}
	if (up + len + 1 >= SC_PATH_BUF)
		return -ENAMETOOLONG;
	memcpy(at->path + up, rest, len);
	if (up && len == 0)
		at->path[up + len++] =
		    '.'; /* it was a "..", so it shall be one of the names that cannot be made */
	at->path[up + len] = '\0';
	at->len = (uint32_t)strlen(at->path);
	return at->path[0] == '/' ? 0 : -EIO;
}

long sc_at_cross(struct sc_thread *t, const struct sc_call *c, struct sc_hlane *l, int which,
		 int path_arg, uint32_t flags, struct sc_at *at)
{
	struct sc_serve_thread *s = sc_serve_of(t);
	struct sc_call local = *c;
	long err;

	if (!s)
		return -ENOMEM;
	if (++at->crosses > SC_MAX_CROSSES)
		return -ELOOP;
	err = sc_read_cross(l, which, flags, at);
	if (err)
		return err;
	/* if it stays local, it runs with this path */
	memcpy(s->path[which], at->path, at->len + 1);
	local.a[path_arg] = (long)s->path[which];
	err = sc_look_absolute(t, &local, flags, at);
	if (err == SC_NATIVE)
		return sc_native_changed(t, &local, NULL);
	return err;
}

/* ---- from a place to a request ---- */

long sc_route_root(struct sc_thread *t, struct sc_hlane *l, const struct sc_route *r,
		   uint64_t *handle)
{
	struct sc_chan *c = l->chan;
	struct sc_slot s = {.op = SC_OP_ROOT, .buf = sc_lane_off(l, SC_LB_PATH1)};
	uint32_t inc = __atomic_load_n(&c->host->incarnation, __ATOMIC_ACQUIRE);
	long res;

	if (inc && inc != __atomic_load_n(&c->roots_incarnation, __ATOMIC_RELAXED)) {
		/* a new incarnation does not know the old roots */
		__atomic_store_n(&c->roots_made, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&c->roots_incarnation, inc, __ATOMIC_RELEASE);
	}
	if (__atomic_load_n(&c->roots_made, __ATOMIC_ACQUIRE) >> r->index & 1) {
		*handle = __atomic_load_n(&c->roots[r->index], __ATOMIC_RELAXED);
		return 0;
	}
	s.len = (uint32_t)strlen(r->export);
	memcpy(l->buf + SC_LB_PATH1, r->export, s.len);
	res = sc_lane_call(t, l, &s, NULL, 0);
	if (res < 0)
		return res;
	*handle = (uint64_t)res;
	__atomic_store_n(&c->roots[r->index], *handle, __ATOMIC_RELAXED);
	__atomic_fetch_or(&c->roots_made, 1u << r->index, __ATOMIC_RELEASE);
	return 0;
}

long sc_at_slot(struct sc_thread *t, struct sc_hlane *l, struct sc_at *at, struct sc_slot *s,
		int which)
{
	uint32_t where = which ? SC_LB_PATH2 : SC_LB_PATH1;
	uint64_t handle = at->file ? at->file->handle : 0;
	long err;

	err = at->file ? sc_file_grant(t, l, at->file) : sc_route_root(t, l, at->route, &handle);
	if (err)
		return err;
	memcpy(l->buf + where, at->path, at->len);
	if (which) {
		s->arg1 = handle;
		s->buf2 = sc_lane_off(l, where);
		s->len2 = at->len;
	} else {
		s->handle = handle;
		s->buf = sc_lane_off(l, where);
		s->len = at->len;
	}
	return 0;
}

bool sc_wants_empty_flag(uint32_t op)
{
	switch (op) {
	case SC_OP_STAT:
	case SC_OP_ACCESS:
	case SC_OP_TRUNCATE:
	case SC_OP_CHMOD:
	case SC_OP_CHOWN:
	case SC_OP_UTIMENS:
	case SC_OP_GETXATTR:
	case SC_OP_SETXATTR:
	case SC_OP_LISTXATTR:
	case SC_OP_REMOVEXATTR:
	case SC_OP_STATFS:
	case SC_OP_LINK:
		return true;
	default:
		return false;
	}
}

long sc_path_call(struct sc_thread *t, const struct sc_call *c, struct sc_pathop *p)
{
	struct sc_at at;
	struct sc_hlane *l;
	bool crossed;
	long res = sc_at_get(t, c, p->dirfd, p->path_arg, p->at_flags, &at);

	while (res == 0) {
		struct sc_slot s = {0};

		res = sc_lane_get(t, at.dom, &l);
		if (res)
			return res;
		if (at.len == 0 && sc_wants_empty_flag(p->x.op))
			p->x.arg0 |= AT_EMPTY_PATH;
		p->x.cqe_flags = 0;
		res = sc_at_slot(t, l, &at, &s, 0);
		if (!res)
			res = sc_lane_opx(t, l, &s, &p->x);
		crossed = res == -EXDEV && (p->x.cqe_flags & SC_CQE_F_CROSS);
		if (crossed)
			res = sc_at_cross(t, c, l, 0, p->path_arg, p->at_flags, &at);
		sc_lane_put(t, l);
		if (p->dom_out)
			*p->dom_out = at.dom;
		if (!crossed)
			return res;
	}
	return res;
}

/* ---- names of open files, device numbers ---- */

long sc_file_path(struct sc_thread *t, struct sc_file *f, char *out, uint32_t size)
{
	const struct sc_route *r = f->route;
	struct sc_opx x = {.op = SC_OP_GETPATH};
	long n;

	if (r->len + 2 >= size)
		return -ENAMETOOLONG;
	memcpy(out, r->prefix, r->len);
	x.d2 = (struct sc_data){.p = out + r->len, .len = size - r->len - 1, .out = 1, .by_res = 1};
	n = sc_file_call(t, f, &x);
	if (n < 0)
		return n;
	if (n == 1 && out[r->len] == '/')
		n = 0; /* the root itself */
	n += r->len;
	out[n] = '\0';
	return n;
}
