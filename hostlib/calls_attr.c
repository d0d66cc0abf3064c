// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_attr.c - lengths, modes, owners and times of files, and statfs.
 */
#include <sys/statfs.h>
#include <sys/time.h>
#include <utime.h>

#include "calls.h"

#define USEC_PER_SEC 1000000

long call_truncate(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_opx x = {.op = SC_OP_TRUNCATE, .off = (uint64_t)c->a[1]};
	long err;

	if (c->a[1] < 0)
		return -EINVAL;
	err = sc_limit_path(t, c, 0, (uint64_t)c->a[1]);
	return err ? err : sc_path_op(t, c, AT_FDCWD, 0, 0, &x);
}

long call_ftruncate(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_opx x = {.op = SC_OP_TRUNCATE, .off = (uint64_t)c->a[1]};
	long err;

	if (c->a[1] < 0)
		return -EINVAL;
	if (sc_is_path(c->file))
		return -EBADF;
	if (c->file->type != S_IFREG || !sc_may_write(c->file))
		return -EINVAL;
	err = sc_limit_size(t, c->file, (uint64_t)c->a[1]);
	return err ? err : sc_self_op(t, c, &x);
}

static long change_mode(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
			uint32_t flags)
{
	struct sc_opx x = {
	    .op = SC_OP_CHMOD, .arg0 = flags, .arg1 = (uint64_t)c->a[path_arg + 1] & 07777};

	if (flags & ~(uint32_t)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	return sc_path_op(t, c, dirfd, path_arg, sc_at_flags(flags), &x);
}

long call_chmod(struct sc_thread *t, const struct sc_call *c)
{
	return change_mode(t, c, AT_FDCWD, 0, 0);
}

/* fchmodat has no flags; fchmodat2 has. */
long call_fchmodat(struct sc_thread *t, const struct sc_call *c)
{
	return change_mode(t, c, sc_int(c->a[0]), 1,
			   c->nr == __NR_fchmodat2 ? (uint32_t)c->a[3] : 0);
}

long call_fchmod(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_opx x = {.op = SC_OP_CHMOD, .arg1 = (uint64_t)c->a[1] & 07777};

	if (sc_is_path(c->file))
		return -EBADF;
	return sc_self_op(t, c, &x);
}

/* uid and gid as SC_OP_CHOWN takes them; -1 (of the kernel's 32-bit uid_t): unchanged. */
static uint64_t owner(long uid, long gid)
{
	return (uint64_t)(uint32_t)uid | (uint64_t)(uint32_t)gid << 32;
}

static long change_owner(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
			 uint32_t flags)
{
	struct sc_opx x = {.op = SC_OP_CHOWN,
			   .arg0 = flags,
			   .arg1 = owner(c->a[path_arg + 1], c->a[path_arg + 2])};

	if (flags & ~(uint32_t)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	return sc_path_op(t, c, dirfd, path_arg, sc_at_flags(flags), &x);
}

long call_chown(struct sc_thread *t, const struct sc_call *c)
{
	return change_owner(t, c, AT_FDCWD, 0, c->nr == __NR_lchown ? AT_SYMLINK_NOFOLLOW : 0);
}

long call_fchownat(struct sc_thread *t, const struct sc_call *c)
{
	return change_owner(t, c, sc_int(c->a[0]), 1, (uint32_t)c->a[4]);
}

long call_fchown(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_opx x = {.op = SC_OP_CHOWN, .arg1 = owner(c->a[1], c->a[2])};

	if (sc_is_path(c->file))
		return -EBADF;
	return sc_self_op(t, c, &x);
}

/*
 * Sets times. ts == NULL: both now. Without a path (user NULL, or utimensat's way to say "this
 * descriptor") the descriptor's file is meant, as do_utimes() has it.
 */
static long set_times(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
		      const struct sc_times *ts, uint32_t flags)
{
	struct sc_times copy;
	struct sc_opx x = {.op = SC_OP_UTIMENS, .arg0 = flags};
	struct sc_file *f;

	if (ts) {
		copy = *ts;
		x.d2 = (struct sc_data){.p = &copy, .len = sizeof(copy), .in = 1};
	}
	if (!c->a[path_arg] && dirfd != AT_FDCWD) {
		f = sc_fd_file(t, dirfd);
		if (!f)
			return SC_NATIVE;
		if (flags)
			return -EINVAL;
		if (sc_is_path(f))
			return -EBADF;
		x.arg0 = AT_EMPTY_PATH;
		return sc_file_call(t, f, &x);
	}
	if (flags & ~(uint32_t)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	return sc_path_op(t, c, dirfd, path_arg, sc_at_flags(flags), &x);
}

long call_utime(struct sc_thread *t, const struct sc_call *c)
{
	struct utimbuf u;
	struct sc_times ts;

	if (!c->a[1])
		return set_times(t, c, AT_FDCWD, 0, NULL, 0);
	if (sc_copy_from_user(&u, (const void *)c->a[1], sizeof(u)))
		return -EFAULT;
	ts = (struct sc_times){.atime_sec = u.actime, .mtime_sec = u.modtime};
	return set_times(t, c, AT_FDCWD, 0, &ts, 0);
}

static long set_timevals(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg)
{
	struct timeval tv[2];
	struct sc_times ts;

	if (!c->a[path_arg + 1])
		return set_times(t, c, dirfd, path_arg, NULL, 0);
	if (sc_copy_from_user(tv, (const void *)c->a[path_arg + 1], sizeof(tv)))
		return -EFAULT;
	for (int i = 0; i < 2; i++)
		if (tv[i].tv_usec < 0 || tv[i].tv_usec >= USEC_PER_SEC)
			return -EINVAL;
	ts = (struct sc_times){.atime_sec = tv[0].tv_sec,
			       .mtime_sec = tv[1].tv_sec,
			       .atime_nsec = (uint32_t)tv[0].tv_usec * 1000,
			       .mtime_nsec = (uint32_t)tv[1].tv_usec * 1000};
	return set_times(t, c, dirfd, path_arg, &ts, 0);
}

long call_utimes(struct sc_thread *t, const struct sc_call *c)
{
	return set_timevals(t, c, AT_FDCWD, 0);
}

long call_futimesat(struct sc_thread *t, const struct sc_call *c)
{
	return set_timevals(t, c, sc_int(c->a[0]), 1);
}

/* A tv_nsec as it goes on the wire: what does not fit 32 bits is as wrong as what does not fit a
 * second. */
static uint32_t wire_nsec(long nsec)
{
	return nsec < 0 || nsec > UINT32_MAX ? UINT32_MAX : (uint32_t)nsec;
}

long call_utimensat(struct sc_thread *t, const struct sc_call *c)
{
	struct timespec tv[2];
	struct sc_times ts;

	if (!c->a[2])
		return set_times(t, c, sc_int(c->a[0]), 1, NULL, (uint32_t)c->a[3]);
	if (sc_copy_from_user(tv, (const void *)c->a[2], sizeof(tv)))
		return -EFAULT;
	if (tv[0].tv_nsec == UTIME_OMIT && tv[1].tv_nsec == UTIME_OMIT)
		return 0; /* the kernel does not even look at the path */
	ts = (struct sc_times){.atime_sec = tv[0].tv_sec,
			       .mtime_sec = tv[1].tv_sec,
			       .atime_nsec = wire_nsec(tv[0].tv_nsec),
			       .mtime_nsec = wire_nsec(tv[1].tv_nsec)};
	return set_times(t, c, sc_int(c->a[0]), 1, &ts, (uint32_t)c->a[3]);
}

static long put_statfs(void *user, const struct sc_statfs *in)
{
	struct statfs out = {
	    .f_type = (long)in->type,
	    .f_bsize = (long)in->bsize,
	    .f_blocks = in->blocks,
	    .f_bfree = in->bfree,
	    .f_bavail = in->bavail,
	    .f_files = in->files,
	    .f_ffree = in->ffree,
	    .f_fsid = {{(int)in->fsid, (int)(in->fsid >> 32)}},
	    .f_namelen = (long)in->namelen,
	    .f_frsize = (long)in->frsize,
	    .f_flags = (long)in->flags,
	};

	return sc_copy_to_user(user, &out, sizeof(out));
}

long call_statfs(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_statfs fs = {0};
	struct sc_opx x = {.op = SC_OP_STATFS, .d2 = {.p = &fs, .len = sizeof(fs), .out = 1}};
	long res = sc_path_op(t, c, AT_FDCWD, 0, 0, &x);

	return res == 0 ? put_statfs((void *)c->a[1], &fs) : res;
}

long call_fstatfs(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_statfs fs = {0};
	struct sc_opx x = {.op = SC_OP_STATFS, .d2 = {.p = &fs, .len = sizeof(fs), .out = 1}};
	long res = sc_self_op(t, c, &x);

	return res == 0 ? put_statfs((void *)c->a[1], &fs) : res;
}
