// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_ioctl.c - ioctl on remote files.
 *
 * Few numbers mean something on a file of a disk file system: those of do_vfs_ioctl(), and the
 * attribute calls. They are answered here or by the agent (SC_OP_IOCTL); for all others ENOTTY, as
 * the kernel says of a number that a file does not know. FIEMAP and deduplication are EOPNOTSUPP,
 * freezing EPERM.
 */
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "calls.h"

#define CLONE_RANGE_LEN sizeof(struct file_clone_range)

static long set_nonblock(struct sc_thread *t, const struct sc_call *c)
{
	uint32_t flags = sc_oflags(c->file);
	int on;

	if (sc_copy_from_user(&on, (const void *)c->a[2], sizeof(on)))
		return -EFAULT;
	return sc_set_file_flags(t, c->file,
				 on ? flags | O_NONBLOCK : flags & ~(uint32_t)O_NONBLOCK);
}

/* No signals come from files: it can be switched off, which it is. */
static long set_async(const struct sc_call *c)
{
	int on;

	if (sc_copy_from_user(&on, (const void *)c->a[2], sizeof(on)))
		return -EFAULT;
	return on ? -ENOTTY : 0;
}

/* Bytes that the file occupies. */
static long occupied(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_stat st = {0};
	struct sc_opx x = {
	    .op = SC_OP_STAT, .arg1 = STATX_BLOCKS, .d2 = {.p = &st, .len = sizeof(st), .out = 1}};
	uint64_t bytes;
	long res;

	if (c->file->type != S_IFREG && c->file->type != S_IFDIR)
		return -ENOTTY;
	res = sc_self_op(t, c, &x);
	if (res < 0)
		return res;
	bytes = st.blocks * 512;
	return sc_copy_to_user((void *)c->a[2], &bytes, sizeof(bytes));
}

static long block_size(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_statfs fs = {0};
	struct sc_opx x = {.op = SC_OP_STATFS, .d2 = {.p = &fs, .len = sizeof(fs), .out = 1}};
	long res = sc_self_op(t, c, &x);
	int size;

	if (res < 0)
		return res;
	size = (int)fs.bsize;
	return sc_copy_to_user((void *)c->a[2], &size, sizeof(size));
}

/* An argument of `len` bytes that goes to the agent and comes back. */
static long agent_ioctl(struct sc_thread *t, const struct sc_call *c, uint32_t len)
{
	struct sc_opx x = {.op = SC_OP_IOCTL,
			   .arg0 = (uint32_t)c->a[1],
			   .d1 = {.p = (void *)c->a[2], .len = len, .user = 1}};

	x.d1.in = (_IOC_DIR(c->a[1]) & _IOC_WRITE) != 0;
	x.d1.out = !x.d1.in;
	return sc_file_call(t, c->file, &x);
}

/*
 * FS_IOC_GETFLAGS and FS_IOC_SETFLAGS: their numbers say long, but what is passed is an int.
 * FS_IOC_FSSETXATTR's number says that it is written to the kernel, FS_IOC_FSGETXATTR's that it is
 * read.
 */
static long attributes(struct sc_thread *t, const struct sc_call *c, uint32_t cmd)
{
	bool flags = cmd == FS_IOC_GETFLAGS || cmd == FS_IOC_SETFLAGS;

	return agent_ioctl(t, c, flags ? sizeof(int) : sizeof(struct fsxattr));
}

/* FIONREAD's number says nothing; it is an int that comes back. */
static long bytes_ahead(struct sc_thread *t, const struct sc_call *c)
{
	return c->file->type == S_IFREG ? agent_ioctl(t, c, sizeof(int)) : -ENOTTY;
}

/* FICLONE and FICLONERANGE: both files must be in the same domain. */
static long clone_file(struct sc_thread *t, const struct sc_call *c, uint32_t cmd)
{
	struct file_clone_range range = {.src_fd = sc_int(c->a[2])};
	struct sc_opx x = {.op = SC_OP_IOCTL, .arg0 = cmd};
	struct sc_hlane *l;
	struct sc_file *src;
	long err;

	if (cmd == FICLONERANGE && sc_copy_from_user(&range, (const void *)c->a[2], sizeof(range)))
		return -EFAULT;
	src = sc_fd_file(t, (int)range.src_fd);
	if (!src)
		return sc_sys2(__NR_fcntl, range.src_fd, F_GETFD) < 0 ? -EBADF : -EXDEV;
	if (sc_is_path(src))
		return -EBADF;
	if (src->dom != c->file->dom)
		return -EXDEV;
	err = sc_lane_get(t, src->dom, &l);
	if (err)
		return err;
	err = sc_file_grant(t, l, src);
	sc_lane_put(t, l);
	if (err)
		return err;
	x.arg1 = src->handle;
	if (cmd == FICLONERANGE)
		x.d1 = (struct sc_data){.p = &range, .len = CLONE_RANGE_LEN, .in = 1};
	return sc_file_call(t, c->file, &x);
}

long call_ioctl(struct sc_thread *t, const struct sc_call *c)
{
	uint32_t cmd = (uint32_t)c->a[1];

	if (sc_is_path(c->file))
		return -EBADF;
	switch (cmd) {
	case FIOCLEX:
	case FIONCLEX:
		return SC_NATIVE; /* the ticket's descriptor is the one that exec closes */
	case FIONBIO:
		return set_nonblock(t, c);
	case FIOASYNC:
		return set_async(c);
	case FIOQSIZE:
		return occupied(t, c);
	case FIGETBSZ:
		return block_size(t, c);
	case FIONREAD:
		return bytes_ahead(t, c);
	case FS_IOC_GETFLAGS:
	case FS_IOC_SETFLAGS:
	case FS_IOC_FSGETXATTR:
	case FS_IOC_FSSETXATTR:
		return attributes(t, c, cmd);
	case FICLONE:
	case FICLONERANGE:
		return clone_file(t, c, cmd);
	case FS_IOC_FIEMAP:
	case FIDEDUPERANGE:
		return -EOPNOTSUPP;
	case FIFREEZE:
	case FITHAW:
		return -EPERM;
	default:
		return -ENOTTY;
	}
}
