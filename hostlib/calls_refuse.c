// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_refuse.c - calls that a remote file or path cannot serve, refused with an errno that
 * programs know how to take; docs/compatibility.md says why each.
 *
 * Where a path is given, it is looked up first, so that a missing file is ENOENT as it always was.
 * Calls that the kernel grants to root alone are EPERM for all others.
 */
#include "calls.h"

#include <sys/inotify.h>

/* -errno `what` if the path is remote and exists; SC_NATIVE if local. */
static long refuse_path(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
			uint32_t at_flags, long what)
{
	struct sc_stat st;
	struct sc_opx x = {.op = SC_OP_STAT,
			   .arg0 = (at_flags & SC_AT_EMPTY ? AT_EMPTY_PATH : 0u) |
				   (at_flags & SC_AT_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0u),
			   .arg1 = STATX_TYPE,
			   .d2 = {.p = &st, .len = sizeof(st), .out = 1}};
	long res = sc_path_op(t, c, dirfd, path_arg, at_flags, &x);

	return res == 0 ? what : res;
}

static bool is_root(void)
{
	return sc_sys0(__NR_geteuid) == 0;
}

/* The same for what only root may do. */
static long refuse_root(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
			long what)
{
	return refuse_path(t, c, dirfd, path_arg, 0, is_root() ? what : -EPERM);
}

/* ENOSPC, "no watch to be had": programs fall back to looking now and then. */
long call_inotify_add_watch(struct sc_thread *t, const struct sc_call *c)
{
	uint32_t flags = (uint32_t)c->a[2] & IN_DONT_FOLLOW ? SC_AT_NOFOLLOW : 0;

	return refuse_path(t, c, AT_FDCWD, 1, flags, -ENOSPC);
}

/* A NULL path means the descriptor itself. */
long call_fanotify_mark(struct sc_thread *t, const struct sc_call *c)
{
	if (!c->a[4])
		return sc_fd_file(t, sc_int(c->a[3])) ? -EOPNOTSUPP : SC_NATIVE;
	return refuse_path(t, c, sc_int(c->a[3]), 4, 0, -EOPNOTSUPP);
}

long call_swapon(struct sc_thread *t, const struct sc_call *c)
{
	return refuse_root(t, c, AT_FDCWD, 0, -EINVAL);
}

long call_mount(struct sc_thread *t, const struct sc_call *c)
{
	return refuse_root(t, c, AT_FDCWD, 1, -EINVAL);
}

long call_umount2(struct sc_thread *t, const struct sc_call *c)
{
	return refuse_root(t, c, AT_FDCWD, 0, -EINVAL);
}

long call_pivot_root(struct sc_thread *t, const struct sc_call *c)
{
	long res = refuse_root(t, c, AT_FDCWD, 0, -EINVAL);

	return res == SC_NATIVE ? refuse_root(t, c, AT_FDCWD, 1, -EINVAL) : res;
}

/* NULL switches accounting off. */
long call_acct(struct sc_thread *t, const struct sc_call *c)
{
	return c->a[0] ? refuse_root(t, c, AT_FDCWD, 0, -EACCES) : SC_NATIVE;
}

/* The second argument names a block device, or NULL. */
long call_quotactl(struct sc_thread *t, const struct sc_call *c)
{
	return c->a[1] ? refuse_path(t, c, AT_FDCWD, 1, 0, -ENOTBLK) : SC_NATIVE;
}

long call_name_to_handle_at(struct sc_thread *t, const struct sc_call *c)
{
	uint32_t flags = (uint32_t)c->a[4];

	return refuse_path(t, c, sc_int(c->a[0]), 1,
			   (flags & AT_SYMLINK_FOLLOW ? 0 : SC_AT_NOFOLLOW) |
			       (flags & AT_EMPTY_PATH ? SC_AT_EMPTY : 0),
			   -EOPNOTSUPP);
}

long call_open_by_handle_at(struct sc_thread *t, const struct sc_call *c)
{
	return is_root() ? -ESTALE : -EPERM;
}

/* The newer mount calls: open_tree, fspick, mount_setattr (path second), move_mount (two of them).
 */
long call_open_tree(struct sc_thread *t, const struct sc_call *c)
{
	return refuse_path(t, c, sc_int(c->a[0]), 1, sc_at_flags(c->a[2]),
			   is_root() ? -EINVAL : -EPERM);
}

long call_move_mount(struct sc_thread *t, const struct sc_call *c)
{
	long res = refuse_root(t, c, sc_int(c->a[0]), 1, -EINVAL);

	return res == SC_NATIVE ? refuse_root(t, c, sc_int(c->a[2]), 3, -EINVAL) : res;
}

long call_file_attr(struct sc_thread *t, const struct sc_call *c)
{
	return refuse_path(t, c, sc_int(c->a[0]), 1, sc_at_flags(c->a[4]), -EOPNOTSUPP);
}

long call_cachestat(struct sc_thread *t, const struct sc_call *c)
{
	return sc_is_path(c->file) ? -EBADF : -EOPNOTSUPP;
}

/*
 * io_uring and libaio hand descriptors to the kernel where we do not see them. As if this kernel
 * had neither: programs then use plain calls.
 */
long call_no_async(struct sc_thread *t, const struct sc_call *c)
{
	return -ENOSYS;
}
