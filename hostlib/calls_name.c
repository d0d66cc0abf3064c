// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_name.c - calls that make, remove and rename names: mkdir, rmdir, unlink, rename, link,
 * symlink, mknod and their
 * ...at forms.
 *
 * What the kernel checks before it looks at a path is checked here before anybody asks who serves
 * the path: the answer is the same. All else is left to the kernel that has the file.
 */
#include <linux/fs.h>

#include "calls.h"

/* A mode and the umask, as ops.h packs them. */
static uint64_t packed_mode(struct sc_thread *t, uint32_t mode)
{
	return mode | (uint64_t)sc_umask(t->proc) << 16;
}

static long make_dir(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
		     long mode)
{
	struct sc_opx x = {.op = SC_OP_MKDIR, .arg0 = packed_mode(t, (uint32_t)mode & 01777)};

	return sc_path_op(t, c, dirfd, path_arg, SC_AT_NOFOLLOW | SC_AT_CREATE, &x);
}

long call_mkdir(struct sc_thread *t, const struct sc_call *c)
{
	return make_dir(t, c, AT_FDCWD, 0, c->a[1]);
}

long call_mkdirat(struct sc_thread *t, const struct sc_call *c)
{
	return make_dir(t, c, sc_int(c->a[0]), 1, c->a[2]);
}

/* The kernel's may_mknod(): which types there are. */
static long mknod_type_error(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case 0:
	case S_IFREG:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return 0;
	case S_IFDIR:
		return -EPERM;
	default:
		return -EINVAL;
	}
}

static long make_node(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg)
{
	uint32_t mode = (uint32_t)c->a[path_arg + 1] & 0xffff;
	struct sc_opx x = {
	    .op = SC_OP_MKNOD, .arg0 = packed_mode(t, mode), .arg1 = (uint32_t)c->a[path_arg + 2]};
	long err = mknod_type_error(mode);

	if (err)
		return err;
	return sc_path_op(t, c, dirfd, path_arg, SC_AT_NOFOLLOW | SC_AT_CREATE, &x);
}

long call_mknod(struct sc_thread *t, const struct sc_call *c)
{
	return make_node(t, c, AT_FDCWD, 0);
}

long call_mknodat(struct sc_thread *t, const struct sc_call *c)
{
	return make_node(t, c, sc_int(c->a[0]), 1);
}

static long remove_name(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
			uint64_t flags)
{
	struct sc_opx x = {.op = SC_OP_UNLINK, .arg0 = flags};

	return sc_path_op(t, c, dirfd, path_arg, SC_AT_NOFOLLOW, &x);
}

long call_rmdir(struct sc_thread *t, const struct sc_call *c)
{
	return remove_name(t, c, AT_FDCWD, 0, AT_REMOVEDIR);
}

long call_unlink(struct sc_thread *t, const struct sc_call *c)
{
	return remove_name(t, c, AT_FDCWD, 0, 0);
}

long call_unlinkat(struct sc_thread *t, const struct sc_call *c)
{
	if (sc_int(c->a[2]) & ~AT_REMOVEDIR)
		return -EINVAL;
	return remove_name(t, c, sc_int(c->a[0]), 1, (uint64_t)c->a[2] & AT_REMOVEDIR);
}

static long make_symlink(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg)
{
	void *target = (void *)c->a[0];
	long len = sc_strnlen_user(target, SC_PATH_BUF);
	struct sc_opx x = {.op = SC_OP_SYMLINK,
			   .d2 = {.p = target, .len = (uint32_t)len, .in = 1, .user = 1}};

	if (len < 0)
		return len;
	if (len == 0)
		return -ENOENT;
	if (len == SC_PATH_BUF)
		return -ENAMETOOLONG;
	return sc_path_op(t, c, dirfd, path_arg, SC_AT_NOFOLLOW | SC_AT_CREATE, &x);
}

long call_symlink(struct sc_thread *t, const struct sc_call *c)
{
	return make_symlink(t, c, AT_FDCWD, 1);
}

long call_symlinkat(struct sc_thread *t, const struct sc_call *c)
{
	return make_symlink(t, c, sc_int(c->a[1]), 2);
}

static long move_name(struct sc_thread *t, const struct sc_call *c, const struct sc_pathop2 *where,
		      uint32_t flags)
{
	struct sc_pathop2 p = *where;

	if (flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if ((flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)) && (flags & RENAME_EXCHANGE))
		return -EINVAL;
	p.x = (struct sc_opx){.op = SC_OP_RENAME, .arg0 = flags};
	p.at_flags[0] = SC_AT_NOFOLLOW;
	p.at_flags[1] = SC_AT_NOFOLLOW | SC_AT_CREATE;
	return sc_path2_call(t, c, &p);
}

long call_rename(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_pathop2 p = {.dirfd = {AT_FDCWD, AT_FDCWD}, .path_arg = {0, 1}};

	return move_name(t, c, &p, 0);
}

long call_renameat(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_pathop2 p = {.dirfd = {sc_int(c->a[0]), sc_int(c->a[2])}, .path_arg = {1, 3}};

	return move_name(t, c, &p, c->nr == __NR_renameat2 ? (uint32_t)c->a[4] : 0);
}

long call_link(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_pathop2 p = {.x = {.op = SC_OP_LINK},
			       .dirfd = {AT_FDCWD, AT_FDCWD},
			       .path_arg = {0, 1},
			       .at_flags = {SC_AT_NOFOLLOW, SC_AT_NOFOLLOW | SC_AT_CREATE}};

	return sc_path2_call(t, c, &p);
}

long call_linkat(struct sc_thread *t, const struct sc_call *c)
{
	uint32_t flags = (uint32_t)c->a[4];
	struct sc_pathop2 p = {.x = {.op = SC_OP_LINK, .arg0 = flags},
			       .dirfd = {sc_int(c->a[0]), sc_int(c->a[2])},
			       .path_arg = {1, 3},
			       .at_flags = {0, SC_AT_NOFOLLOW | SC_AT_CREATE}};

	if (flags & ~(uint32_t)(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	p.at_flags[0] = (flags & AT_SYMLINK_FOLLOW ? 0 : SC_AT_NOFOLLOW) |
			(flags & AT_EMPTY_PATH ? SC_AT_EMPTY : 0);
	return sc_path2_call(t, c, &p);
}
