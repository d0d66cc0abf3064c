/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * calls_stat.c - the stat family, access, readlink.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <string.h>

#include "dispatch.h"
#include "exec.h"
#include "kstat.h"
#include "path.h"
#include "process.h"

#define STATX_WANTED STATX_BASIC_STATS

void sc_stat_to_stat(const struct sc_dom *d, const struct sc_stat *in, struct sc_kstat *out)
{
	memset(out, 0, sizeof(*out));
	out->dev = sc_dom_dev(d, in->dev_major, in->dev_minor);
	out->ino = in->ino;
	out->nlink = in->nlink;
	out->mode = in->mode;
	out->uid = in->uid;
	out->gid = in->gid;
	out->rdev = sc_makedev(in->rdev_major, in->rdev_minor);
	out->size = (int64_t)in->size;
	out->blksize = in->blksize;
	out->blocks = (int64_t)in->blocks;
	out->atime = in->atime_sec;
	out->atime_nsec = in->atime_nsec;
	out->mtime = in->mtime_sec;
	out->mtime_nsec = in->mtime_nsec;
	out->ctime = in->ctime_sec;
	out->ctime_nsec = in->ctime_nsec;
}

void sc_stat_to_statx(const struct sc_dom *d, const struct sc_stat *in, struct statx *out)
{
	memset(out, 0, sizeof(*out));
	out->stx_mask = in->mask;
	out->stx_blksize = in->blksize;
	out->stx_attributes = in->attributes;
	out->stx_nlink = in->nlink;
	out->stx_uid = in->uid;
	out->stx_gid = in->gid;
	out->stx_mode = (uint16_t)in->mode;
	out->stx_ino = in->ino;
	out->stx_size = in->size;
	out->stx_blocks = in->blocks;
	out->stx_attributes_mask = in->attributes_mask;
	out->stx_atime.tv_sec = in->atime_sec;
	out->stx_atime.tv_nsec = in->atime_nsec;
	out->stx_btime.tv_sec = in->btime_sec;
	out->stx_btime.tv_nsec = in->btime_nsec;
	out->stx_ctime.tv_sec = in->ctime_sec;
	out->stx_ctime.tv_nsec = in->ctime_nsec;
	out->stx_mtime.tv_sec = in->mtime_sec;
	out->stx_mtime.tv_nsec = in->mtime_nsec;
	out->stx_rdev_major = in->rdev_major;
	out->stx_rdev_minor = in->rdev_minor;
	sc_dom_dev_split(d, in->dev_major, in->dev_minor, &out->stx_dev_major, &out->stx_dev_minor);
	out->stx_mnt_id = in->mnt_id;
	out->stx_dio_mem_align = in->dio_mem_align;
	out->stx_dio_offset_align = in->dio_offset_align;
}

/* The domain whose file a path call was about: the one that at last answered it. */
struct stat_call {
	struct sc_pathop p;
	struct sc_stat st;
	const struct sc_dom *dom;
};

/* Runs SC_OP_STAT for a path. 0: q->st and q->dom are valid; else what to return. */
static long stat_path(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
		      uint32_t flags, uint32_t mask, struct stat_call *q)
{
	long res;

	memset(&q->p, 0, sizeof(q->p));
	q->p.x.op = SC_OP_STAT;
	q->p.x.arg0 = flags;
	q->p.x.arg1 = mask;
	q->p.x.d2 = (struct sc_data){.p = &q->st, .len = sizeof(q->st), .out = 1};
	q->p.dirfd = dirfd;
	q->p.path_arg = (uint8_t)path_arg;
	q->p.at_flags = (flags & AT_SYMLINK_NOFOLLOW ? SC_AT_NOFOLLOW : 0) |
			(flags & AT_EMPTY_PATH ? SC_AT_EMPTY : 0);
	q->p.dom_out = &q->dom;
	res = sc_path_call(t, c, &q->p);
	return res > 0 ? 0 : res;
}

static long give_stat(const struct sc_dom *d, const struct sc_stat *st, long user)
{
	struct sc_kstat out;

	sc_stat_to_stat(d, st, &out);
	return sc_copy_to_user((void *)user, &out, sizeof(out)) ? -EFAULT : 0;
}

static long stat_common(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
			uint32_t flags)
{
	struct stat_call q;
	long res = stat_path(t, c, dirfd, path_arg, flags, STATX_WANTED, &q);

	return res ? res : give_stat(q.dom, &q.st, c->a[path_arg + 1]);
}

long call_stat(struct sc_thread *t, const struct sc_call *c)
{
	return stat_common(t, c, AT_FDCWD, 0, 0);
}

long call_lstat(struct sc_thread *t, const struct sc_call *c)
{
	return stat_common(t, c, AT_FDCWD, 0, AT_SYMLINK_NOFOLLOW);
}

/* SC_OP_STAT of an open file. */
static long stat_file(struct sc_thread *t, struct sc_file *f, uint32_t flags, uint32_t mask,
		      struct sc_stat *st)
{
	struct sc_opx x = {
	    .op = SC_OP_STAT,
	    .arg0 = AT_EMPTY_PATH | flags,
	    .arg1 = mask,
	    .d2 = {.p = st, .len = sizeof(*st), .out = 1},
	};
	long res = sc_file_call(t, f, &x);

	return res > 0 ? 0 : res;
}

long call_fstat(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_stat st;
	long res = stat_file(t, c->file, 0, STATX_WANTED, &st);

	return res ? res : give_stat(c->file->dom, &st, c->a[1]);
}

/* glibc's fstat() is newfstatat(fd, "", AT_EMPTY_PATH): saves the copying of "". */
static struct sc_file *empty_path_file(struct sc_thread *t, int dirfd, long path, uint32_t flags)
{
	struct sc_file *f;
	char first;

	if (!(flags & AT_EMPTY_PATH))
		return NULL;
	f = sc_fd_file(t, dirfd);
	if (!f)
		return NULL;
	if (path && (sc_copy_from_user(&first, (const void *)path, 1) || first))
		return NULL;
	return f;
}

long call_newfstatat(struct sc_thread *t, const struct sc_call *c)
{
	uint32_t flags = (uint32_t)c->a[3];
	struct sc_file *f = empty_path_file(t, (int)c->a[0], c->a[1], flags);
	struct sc_stat st;
	long res;

	if (f) {
		res = stat_file(t, f, 0, STATX_WANTED, &st);
		return res ? res : give_stat(f->dom, &st, c->a[2]);
	}
	if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH))
		return SC_NATIVE; /* EINVAL, whatever the path is */
	return stat_common(t, c, (int)c->a[0], 1, flags);
}

long call_statx(struct sc_thread *t, const struct sc_call *c)
{
	uint32_t flags = (uint32_t)c->a[2], mask = (uint32_t)c->a[3];
	struct sc_file *f = empty_path_file(t, (int)c->a[0], c->a[1], flags);
	struct statx out;
	struct stat_call q;
	long res;

	if ((mask & STATX__RESERVED) || (flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE ||
	    (flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE)))
		return SC_NATIVE; /* EINVAL likewise */
	if (f) {
		q.dom = f->dom;
		res = stat_file(t, f, flags & AT_STATX_SYNC_TYPE, mask, &q.st);
	} else {
		res = stat_path(t, c, (int)c->a[0], 1, flags, mask, &q);
	}
	if (res)
		return res;
	sc_stat_to_statx(q.dom, &q.st, &out);
	return sc_copy_to_user((void *)c->a[4], &out, sizeof(out)) ? -EFAULT : 0;
}

static long access_common(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
			  uint32_t mode, uint32_t flags)
{
	struct sc_pathop p = {
	    .x = {.op = SC_OP_ACCESS, .arg0 = flags, .arg1 = mode},
	    .dirfd = dirfd,
	    .path_arg = (uint8_t)path_arg,
	    .at_flags = (flags & AT_SYMLINK_NOFOLLOW ? SC_AT_NOFOLLOW : 0) |
			(flags & AT_EMPTY_PATH ? SC_AT_EMPTY : 0),
	};

	if ((mode & ~7u) || (flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)))
		return SC_NATIVE; /* EINVAL */
	return sc_path_call(t, c, &p);
}

long call_access(struct sc_thread *t, const struct sc_call *c)
{
	return access_common(t, c, AT_FDCWD, 0, (uint32_t)c->a[1], 0);
}

long call_faccessat(struct sc_thread *t, const struct sc_call *c)
{
	return access_common(t, c, (int)c->a[0], 1, (uint32_t)c->a[2], 0);
}

long call_faccessat2(struct sc_thread *t, const struct sc_call *c)
{
	return access_common(t, c, (int)c->a[0], 1, (uint32_t)c->a[2], (uint32_t)c->a[3]);
}

/* readlink of /proc/self/fd/N, /proc/self/cwd, /proc/self/exe of something remote: its host path. SC_NATIVE if it is none. */
static long readlink_magic(struct sc_thread *t, const struct sc_call *c, int path_arg, long buf,
			   long size)
{
	char path[SC_PATH_BUF];
	struct sc_file *f;
	long n = sc_strnlen_user((const char *)c->a[path_arg], 64);

	if (n <= 0 || n >= 64 || sc_copy_from_user(path, (const void *)c->a[path_arg], (size_t)n))
		return SC_NATIVE;
	path[n] = '\0';
	f = sc_path_magic(t, path);
	if (f) {
		n = sc_file_path(t, f, path, sizeof(path));
		if (n < 0)
			return n;
	} else if (sc_exe_path() && sc_path_is_exe(path)) {
		n = (long)strlen(sc_exe_path());
		memcpy(path, sc_exe_path(), (size_t)n);
	} else {
		return SC_NATIVE;
	}
	if (n > size)
		n = size;
	return sc_copy_to_user((void *)buf, path, (size_t)n) ? -EFAULT : n;
}

static long readlink_common(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg)
{
	long buf = c->a[path_arg + 1], size = (int)c->a[path_arg + 2];
	struct sc_pathop p = {
	    .x = {.op = SC_OP_READLINK},
	    .dirfd = dirfd,
	    .path_arg = (uint8_t)path_arg,
	    .at_flags = SC_AT_NOFOLLOW | SC_AT_EMPTY,
	};
	long res;

	if (size <= 0)
		return SC_NATIVE; /* EINVAL */
	res = readlink_magic(t, c, path_arg, buf, size);
	if (res != SC_NATIVE)
		return res;
	p.x.d2 = (struct sc_data){.p = (void *)buf,
				  .len = size > SC_PATH_BUF ? SC_PATH_BUF : (uint32_t)size,
				  .out = 1,
				  .user = 1,
				  .by_res = 1};
	return sc_path_call(t, c, &p);
}

long call_readlink(struct sc_thread *t, const struct sc_call *c)
{
	return readlink_common(t, c, AT_FDCWD, 0);
}

long call_readlinkat(struct sc_thread *t, const struct sc_call *c)
{
	return readlink_common(t, c, (int)c->a[0], 1);
}
