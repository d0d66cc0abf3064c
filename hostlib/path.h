/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * path.h - who serves a path.
 *
 * Routes say which host directories stand for exports of domains; the longest prefix wins. A path is looked at in this
 * order, cheapest first:
 *
 *  1. absolute, without ".." before the end of a route's prefix: compared as text ("//" and "/./" skipped). The rest of
 *     the path goes to the agent as it is.
 *  2. relative to a remote working directory or a remote directory descriptor: goes to the agent with that base.
 *  3. relative to a local working directory that is an ancestor of a route: joined, then as 1.
 *  4. /proc/self/fd/N, /dev/fd/N and /proc/self/cwd that name something remote.
 *  5. all other: runs natively. Only if it then fails in a way that a symbolic link (or "..") into a remote tree could
 *     explain, the path is walked here, component by component, and served remotely if it leads there.
 *
 * A path may leave a remote tree again (absolute symbolic link, ".." above the root): the agent says how it goes on
 * (struct sc_cross), and it is looked at anew from the host's root. After 40 crossings: ELOOP.
 */
#ifndef HOSTLIB_PATH_H
#define HOSTLIB_PATH_H

#include <stdbool.h>
#include <stdint.h>

#include "intercept.h"
#include "chan.h"
#include "dispatch.h"
#include "fdtable.h"

#define SC_MAX_ROUTES  16u
#define SC_MAX_CROSSES 40u

struct sc_route {
	struct sc_dom *dom;
	uint32_t index;
	uint32_t len; /* of prefix, without NUL */
	char prefix
	    /* normalised absolute host path without trailing slash; "" stands for "/" */
	    [SC_PATH_BUF];
	char export[SC_PATH_BUF]; /* below the domain's root, "" for the root itself */
	bool shadows;		  /* the host has something at this path, too */
};

extern struct sc_route *sc_routes; /* longest prefix first; constant after start */
extern uint32_t sc_nroutes;

/* Adds "NAME:HOSTPATH[=EXPORT]" (already unescaped). 0 or -EINVAL, -E2BIG. Used at start only. */
int sc_route_add(const char *spec, uint32_t len);
/* After the last sc_route_add(): sorts. */
void sc_routes_ready(void);

/* Compares an absolute path as text with the routes. Returns the route and in *rest the offset in path where the part
 * below it starts (leading slashes skipped), or NULL. *dotdot is set if a ".." stood in the way of a certain answer. */
const struct sc_route *sc_route_match(const char *path, uint32_t *rest, bool *dotdot);

/* Normalises an absolute path in place ("//", "/./", trailing slash, and ".." as text). Returns the new length. */
uint32_t sc_path_normalise(char *path);

/* A place that a domain serves: base and rest. */
struct sc_at {
	struct sc_dom *dom;
	const struct sc_route *route; /* whose export the path is below */
	struct sc_file *file;	      /* base: an open file, or NULL: the route's root */
	uint32_t len;		      /* of path */
	uint32_t crosses;	      /* so far */
	char path
	    [SC_PATH_BUF]; /* relative to base, NUL-terminated; "." for the root itself; may be "" only if an
					 empty path was allowed */
};

#define SC_AT_NOFOLLOW (1u << 0) /* a final symbolic link is not followed */
#define SC_AT_EMPTY    (1u << 1) /* AT_EMPTY_PATH was given: "" names dirfd */
#define SC_AT_CREATE   (1u << 2) /* the last component need not exist */

/*
 * Finds out who serves (dirfd, path). Returns 0: *at says where. SC_NATIVE or SC_NATIVE_CHANGED: return that from the
 * handler at once (path_arg, the index of the path among the call's arguments, was used to set up t->native). -errno:
 * likewise (ENAMETOOLONG, EFAULT, ENOENT for "").
 */
long sc_at_get(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
	       uint32_t flags, struct sc_at *at);

/* What describes a path call. */
struct sc_pathop {
	struct sc_opx x;	       /* d1 unused; handle and buf/len come from the path */
	int dirfd;		       /* AT_FDCWD for calls that have none */
	uint8_t path_arg;	       /* index of the path among c->a */
	uint32_t at_flags;	       /* SC_AT_* */
	const struct sc_dom **dom_out; /* NULL, or is told which domain answered */
};

/*
 * Serves a call with one path: finds who serves it; if remote, runs p->x there (with handle, buf and len set from the path)
 * and follows crossings. An empty path (SC_AT_EMPTY) is sent with len = 0; the caller has set AT_EMPTY_PATH where the
 * operation wants it. Returns the result, -errno, SC_NATIVE or SC_NATIVE_CHANGED.
 */
long sc_path_call(struct sc_thread *t, const struct sc_call *c, struct sc_pathop *p);

/*
 * The same for calls with two paths (rename, link): the second one's base goes to arg1 and its path to buf2. Local to
 * remote and domain to domain are EXDEV, after the errors that the kernel finds before it notices (path2.c).
 */
struct sc_pathop2 {
	struct sc_opx x; /* d1, d2, arg1 unused */
	int dirfd[2];
	uint8_t path_arg[2];
	uint32_t at_flags[2];
};
long sc_path2_call(struct sc_thread *t, const struct sc_call *c, struct sc_pathop2 *p);

/*
 * The lower level, for callers that need more: after sc_at_get() returned 0, sc_at_slot() fills handle, buf and len of *s
 * (writes the path to the lane's SC_LB_PATH1 or 2), granting the base if need be. After a completion with
 * SC_CQE_F_CROSS, sc_at_cross() reads where the path goes on and looks anew: 0 (remote again: at is changed), or what to
 * return from the handler.
 */
long sc_at_slot(struct sc_thread *t, struct sc_hlane *l, struct sc_at *at, struct sc_slot *s,
		int which);
long sc_at_cross(struct sc_thread *t, const struct sc_call *c, struct sc_hlane *l, int which,
		 int path_arg, uint32_t flags, struct sc_at *at);

/* The handle of a route's root in the present session (made at first use). 0 or -errno. */
long sc_route_root(struct sc_thread *t, struct sc_hlane *l, const struct sc_route *r,
		   uint64_t *handle);

/* The remote file that /proc/self/fd/N, /dev/fd/N, /proc/self/cwd and the like name, or NULL. path has 32 readable bytes at
 * least. */
struct sc_file *sc_path_magic(struct sc_thread *t, const char *path);

/* Does (dirfd, path) begin in a remote tree, symbolic links followed? */
bool sc_path_is_remote(struct sc_thread *t, int dirfd, const char *path);

/* The second look at a call that ran natively (struct sc_thread's native.after), and chdir's. */
long sc_path_after(struct sc_thread *t, long result);
long sc_chdir_after(struct sc_thread *t, long result);

/* Is it /proc/self/exe or the same by number? path has 32 readable bytes at least. */
bool sc_path_is_exe(const char *path);

/* Host path of an open remote file: the route's prefix and SC_OP_GETPATH. Length without NUL, or -errno. */
long sc_file_path(struct sc_thread *t, struct sc_file *f, char *out, uint32_t size);

/* Fills the program's struct stat / struct statx from what the domain said (for other calls_*.c too). */
struct sc_kstat; /* kstat.h */
struct statx;	 /* linux/stat.h */
void sc_stat_to_stat(const struct sc_dom *d, const struct sc_stat *in, struct sc_kstat *out);
void sc_stat_to_statx(const struct sc_dom *d, const struct sc_stat *in, struct statx *out);

#endif
