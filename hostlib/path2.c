// SPDX-License-Identifier: BSD-3-Clause
/*
 * path2.c - calls with two paths: rename and link.
 *
 * Both remote, in one domain: one request. Both local: native. What is left fails with EXDEV, but
 * with the errors that the kernel finds before it notices that: for rename those of the two
 * directories; for link, those of the old path, of the new one's directory, and EEXIST.
 *
 * A path may turn out to be on the other side only when it is followed: the agent says so
 * (SC_CQE_F_CROSS), or the look-up of its directory does. Then everything is looked at again with
 * what is known now; each such turn counts as a crossing, so there is an end.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "path-priv.h"
#include "path.h"
#include "process.h"

#define AGAIN 1L /* a path changed sides */

/* One of the two paths. */
struct side {
	struct sc_at at; /* local: only at.path, relative to dirfd, and at.crosses are valid */
	int dirfd;
	int path_arg;
	uint32_t flags; /* SC_AT_* */
	bool local;
	bool changed; /* local, and not by the path that the program gave */
};

/* What the kernel says of a path argument before it looks anything up; 0: it is one. */
static long bad_path(long user, uint32_t flags)
{
	long n = sc_strnlen_user((const char *)user, SC_PATH_BUF);

	if (n < 0)
		return -EFAULT;
	if (n == SC_PATH_BUF)
		return -ENAMETOOLONG;
	return n == 0 && !(flags & SC_AT_EMPTY) ? -ENOENT : 0;
}

static bool is_native(long r)
{
	return r == SC_NATIVE || r == SC_NATIVE_CHANGED;
}

/* Finds out who serves a side, by text alone or (`follow`) by walking it. 0, with side->local set,
 * or -errno. */
static long get_side(struct sc_thread *t, const struct sc_call *c, struct side *s, bool follow)
{
	struct sc_serve_thread *st = sc_serve_of(t);
	bool before = st->force_walk;
	long res;

	st->force_walk = before || follow;
	res = sc_at_get(t, c, s->dirfd, s->path_arg, s->flags, &s->at);
	st->force_walk = before;
	s->local = is_native(res);
	return s->local ? 0 : res;
}

/* The agent says that the side's path leads out: at->path is where. 0 or -errno. */
static long cross_side(struct sc_thread *t, const struct sc_call *c, struct side *s)
{
	struct sc_serve_thread *st = sc_serve_of(t);
	bool before = st->force_walk;
	long res;

	if (++s->at.crosses > SC_MAX_CROSSES)
		return -ELOOP;
	st->force_walk = true;
	res = sc_look_absolute(t, c, s->flags, &s->at);
	st->force_walk = before;
	s->local = is_native(res);
	s->changed = s->local;
	return s->local ? 0 : res;
}

/* SC_OP_STAT of a remote path. *crossed: it leads out, at->path says where to. */
static long stat_remote(struct sc_thread *t, struct sc_at *at, uint32_t at_flags, bool *crossed)
{
	struct sc_stat st;
	struct sc_slot slot = {0};
	struct sc_opx x = {.op = SC_OP_STAT,
			   .arg0 = at_flags | (at->len ? 0u : (uint32_t)AT_EMPTY_PATH),
			   .arg1 = STATX_TYPE,
			   .d2 = {.p = &st, .len = sizeof(st), .out = 1}};
	struct sc_hlane *l;
	long res = sc_lane_get(t, at->dom, &l);

	*crossed = false;
	if (res)
		return res;
	res = sc_at_slot(t, l, at, &slot, 0);
	if (!res)
		res = sc_lane_opx(t, l, &slot, &x);
	*crossed = res == -EXDEV && (x.cqe_flags & SC_CQE_F_CROSS);
	if (*crossed)
		res = sc_read_cross(l, 0, at_flags & AT_SYMLINK_NOFOLLOW ? SC_AT_NOFOLLOW : 0, at);
	sc_lane_put(t, l);
	return res;
}

/* Looks the side's path up, going on where it crosses. 0 or -errno. */
static long look_up(struct sc_thread *t, const struct sc_call *c, struct side *s, uint32_t at_flags)
{
	bool crossed;
	struct stat st;
	long res;

	for (;;) {
		if (s->local)
			return sc_sys4(__NR_newfstatat, s->dirfd, s->at.path, &st, at_flags);
		res = stat_remote(t, &s->at, at_flags, &crossed);
		if (res || !crossed)
			return res;
		res = cross_side(t, c, s);
		if (res)
			return res;
	}
}

/* Splits a path into directory (in place) and last component with the slashes behind it. */
static void cut(char *path, char *last)
{
	uint32_t end = (uint32_t)strlen(path);
	uint32_t at = end;

	while (at && path[at - 1] == '/')
		at--;
	while (at && path[at - 1] != '/')
		at--;
	memcpy(last, path + at, end - at + 1);
	path[at] = '\0'; /* with a slash, which asks for a directory; or empty */
	if (at == 0)
		memcpy(path, ".", 2);
}

static long join(struct sc_at *at, const char *last)
{
	uint32_t n = (uint32_t)strlen(at->path);
	uint32_t m = (uint32_t)strlen(last);

	if (n + 1 + m >= SC_PATH_BUF)
		return -ENAMETOOLONG;
	if (n && at->path[n - 1] != '/')
		at->path[n++] = '/';
	memcpy(at->path + n, last, m + 1);
	at->len = n + m;
	return 0;
}

/* Follows the directory part of a side's path to where it ends. 0, and the side is where its last
 * component is; or -errno (no such directory). */
static long settle(struct sc_thread *t, const struct sc_call *c, struct side *s)
{
	char *last = (char *)sc_serve_of(t)->scratch;
	long res;

	cut(s->at.path, last);
	s->at.len = (uint32_t)strlen(s->at.path);
	res = look_up(t, c, s, 0);
	if (res)
		return res;
	return join(&s->at, last);
}

/* What the kernel says of the old path before it looks at the new one. */
static long old_error(struct sc_thread *t, const struct sc_call *c, const struct sc_pathop2 *p,
		      struct side *old)
{
	if (p->x.op == SC_OP_RENAME)
		return settle(t, c, old);
	return look_up(t, c, old, old->flags & SC_AT_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0);
}

/* Both paths are local after all, though the program's text did not say so. */
static long both_local(struct sc_thread *t, const struct sc_call *c, const struct side *s)
{
	struct sc_serve_thread *st = sc_serve_of(t);

	sc_native_changed(t, c, NULL);
	for (int i = 0; i < 2; i++) {
		if (!s[i].changed)
			continue;
		memcpy(st->path[i], s[i].at.path, strlen(s[i].at.path) + 1);
		t->native.a[s[i].path_arg] = (long)st->path[i];
	}
	return SC_NATIVE_CHANGED;
}

static bool together(const struct side *s)
{
	return s[0].local == s[1].local && (s[0].local || s[0].at.dom == s[1].at.dom);
}

/* The paths are on different sides. AGAIN if a closer look says that they are not; or -errno, EXDEV
 * at last. */
static long apart(struct sc_thread *t, const struct sc_call *c, const struct sc_pathop2 *p,
		  struct side *s)
{
	long res = old_error(t, c, p, &s[0]);

	if (!res)
		res = settle(t, c, &s[1]);
	if (res)
		return res;
	if (together(s))
		return AGAIN;
	if (p->x.op == SC_OP_RENAME)
		return -EXDEV;
	res = look_up(t, c, &s[1], AT_SYMLINK_NOFOLLOW);
	if (res == 0)
		return -EEXIST;
	return res == -ENOENT ? -EXDEV : res;
}

/* Both are remote: the operation itself. AGAIN if the agent says that a path leads out. */
static long run(struct sc_thread *t, const struct sc_call *c, struct sc_pathop2 *p, struct side *s)
{
	struct sc_slot slot = {0};
	struct sc_hlane *l;
	int which = -1;
	long res = sc_lane_get(t, s[0].at.dom, &l);

	if (res)
		return res;
	/* the second one first: making a root uses the first one's buffer */
	res = sc_at_slot(t, l, &s[1].at, &slot, 1);
	if (!res)
		res = sc_at_slot(t, l, &s[0].at, &slot, 0);
	if (!res) {
		if (s[0].at.len == 0 && sc_wants_empty_flag(p->x.op))
			p->x.arg0 |= AT_EMPTY_PATH;
		p->x.arg1 = slot.arg1;
		p->x.cqe_flags = 0;
		res = sc_lane_opx(t, l, &slot, &p->x);
		if (res == -EXDEV && (p->x.cqe_flags & SC_CQE_F_CROSS))
			which = 0;
		else if (res == -EXDEV && (p->x.cqe_flags & SC_CQE_F_CROSS2))
			which = 1;
	}
	if (which >= 0)
		res = sc_read_cross(l, which, p->at_flags[which], &s[which].at);
	sc_lane_put(t, l);
	if (which < 0 || res)
		return res;
	res = cross_side(t, c, &s[which]);
	return res ? res : AGAIN;
}

/* Both sides by text; if only one is remote, the other one by walking. 0, or what to return. */
static long get_both(struct sc_thread *t, const struct sc_call *c, struct sc_pathop2 *p,
		     struct side *s)
{
	long bad = bad_path(c->a[p->path_arg[0]], p->at_flags[0]);
	long res;

	if (bad)
		return bad;
	res = get_side(t, c, &s[0], false);
	if (res)
		return res;
	bad = bad_path(c->a[p->path_arg[1]], p->at_flags[1]);
	if (!bad)
		bad = get_side(t, c, &s[1], false);
	if (bad) {
		res = s[0].local ? SC_NATIVE : old_error(t, c, p, &s[0]);
		return res ? res : bad;
	}
	if (s[0].local == s[1].local)
		return 0;
	return get_side(t, c, &s[s[0].local ? 0 : 1], true);
}

long sc_path2_call(struct sc_thread *t, const struct sc_call *c, struct sc_pathop2 *p)
{
	struct side s[2];
	long res;

	if (!sc_serve_of(t))
		return -ENOMEM;
	for (int i = 0; i < 2; i++) {
		s[i].dirfd = p->dirfd[i];
		s[i].path_arg = p->path_arg[i];
		s[i].flags = p->at_flags[i];
		s[i].local = false;
		s[i].changed = false;
	}
	res = get_both(t, c, p, s);
	if (res)
		return res;
	if (s[0].local &&
	    s[1].local) /* by text: looked at again if the kernel finds nothing there */
		return sc_at_get(t, c, s[1].dirfd, s[1].path_arg, s[1].flags, &s[1].at);
	do {
		if (s[0].local && s[1].local)
			return both_local(t, c, s);
		res = together(s) ? run(t, c, p, s) : apart(t, c, p, s);
	} while (res == AGAIN);
	return res;
}
