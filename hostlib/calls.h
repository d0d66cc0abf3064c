/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * calls.h - what several calls_*.c files need.
 */
#ifndef HOSTLIB_CALLS_H
#define HOSTLIB_CALLS_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "chan.h"
#include "dispatch.h"
#include "fdtable.h"
#include "intercept.h"
#include "path.h"
#include "process.h"
#include "syscall-nr.h"

/* The file's access mode and status flags as this process knows them. */
static inline uint32_t sc_oflags(const struct sc_file *f)
{
	return __atomic_load_n(&f->oflags, __ATOMIC_RELAXED);
}

/* Opened with O_PATH: names a file, but nearly every call on it is EBADF. */
static inline bool sc_is_path(const struct sc_file *f)
{
	return sc_oflags(f) & O_PATH;
}

/* The kernel's FMODE_READ and FMODE_WRITE. Access mode 3 is neither. */
static inline bool sc_may_read(const struct sc_file *f)
{
	uint32_t fl = sc_oflags(f);

	return !(fl & O_PATH) && ((fl & O_ACCMODE) == O_RDONLY || (fl & O_ACCMODE) == O_RDWR);
}

static inline bool sc_may_write(const struct sc_file *f)
{
	uint32_t fl = sc_oflags(f);

	return !(fl & O_PATH) && ((fl & O_ACCMODE) == O_WRONLY || (fl & O_ACCMODE) == O_RDWR);
}

/* May any descriptor of this process be remote? */
static inline bool sc_any_remote(const struct sc_thread *t)
{
	return __atomic_load_n(&t->proc->fds.fd_high, __ATOMIC_RELAXED) != 0;
}

/* SC_AT_* of a path call from its AT_* flags. */
static inline uint32_t sc_at_flags(long at)
{
	return (at & AT_SYMLINK_NOFOLLOW ? SC_AT_NOFOLLOW : 0) |
	       (at & AT_EMPTY_PATH ? SC_AT_EMPTY : 0);
}

/* Descriptors and other int arguments come as longs of which the kernel takes the low half. */
static inline int sc_int(long arg)
{
	return (int)(uint32_t)(unsigned long)arg;
}

/* One operation with one path, for a caller whose arguments are checked. */
static inline long sc_path_op(struct sc_thread *t, const struct sc_call *c, int dirfd, int path_arg,
			      uint32_t at_flags, const struct sc_opx *x)
{
	struct sc_pathop p = {
	    .x = *x, .dirfd = dirfd, .path_arg = (uint8_t)path_arg, .at_flags = at_flags};

	return sc_path_call(t, c, &p);
}

/* An operation on the open file c->file itself, for those that take a path otherwise. */
static inline long sc_self_op(struct sc_thread *t, const struct sc_call *c, struct sc_opx *x)
{
	x->arg0 |= AT_EMPTY_PATH;
	return sc_file_call(t, c->file, x);
}

/*
 * RLIMIT_FSIZE (calls_limit.c). sc_limit_write() before a write of *len bytes at *at (NULL: the
 * file's own position; append: at its end): makes *len as small as the limit demands; 0 or -errno
 * (-EFBIG, SIGXFSZ sent). sc_limit_size() and sc_limit_path() before a file is made `size` bytes
 * long: 0, or what to return.
 */
long sc_limit_write(struct sc_thread *t, struct sc_file *f, const uint64_t *at, bool append,
		    uint64_t *len);
long sc_limit_size(struct sc_thread *t, struct sc_file *f, uint64_t size);
long sc_limit_path(struct sc_thread *t, const struct sc_call *c, int path_arg, uint64_t size);

/* May `len` bytes at a program's address be its memory at all? The kernel's access_ok(). */
static inline bool sc_user_range(const void *p, uint64_t len)
{
	uint64_t start = (uint64_t)p;
	uint64_t top = start < 1ull << 47 ? (1ull << 47) - SC_PAGE : (1ull << 56) - SC_PAGE;

	return start <= top && len <= top - start;
}

/* In a forked child (calls_mmap.c). */
void sc_mmap_after_fork_child(void);

/* F_SETFL on a remote file: O_APPEND, O_NONBLOCK, O_DIRECT and O_NOATIME become what `flags` says.
 * 0 or -errno. */
long sc_set_file_flags(struct sc_thread *t, struct sc_file *f, uint32_t flags);

/* The handlers of calls_sockio.c, which calls_msg.c calls for descriptors that are not the kernel's alone. */
sc_handler call_sendmsg, call_sendmmsg, call_recvmsg, call_recvmmsg;

#endif
