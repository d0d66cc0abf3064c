/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shim.c - what the interception layer provides to the serving layer (intercept.h), in terms of libc: lets the serving
 * layer's files be linked into an ordinary test program and be run under sanitizers.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "intercept.h"

static _Thread_local struct sc_thread shim_thread;

long sc_raw_syscall(long nr, long a0, long a1, long a2, long a3, long a4, long a5)
{
	long res = syscall(nr, a0, a1, a2, a3, a4, a5);

	return res == -1 ? -errno : res;
}

long sc_raw_syscall_interruptible(long nr, long a0, long a1, long a2, long a3, long a4, long a5)
{
	return sc_raw_syscall(nr, a0, a1, a2, a3, a4, a5);
}

/* Address 1 stands for memory that faults. */
long sc_copy_from_user(void *dst, const void *user_src, size_t len)
{
	if (user_src == (const void *)1)
		return -EFAULT;
	memcpy(dst, user_src, len);
	return 0;
}

long sc_copy_to_arena(void *arena, const void *user_src, size_t len)
{
	return sc_copy_from_user(arena, user_src, len);
}

long sc_copy_to_user(void *user_dst, const void *src, size_t len)
{
	if (user_dst == (void *)1)
		return -EFAULT;
	memcpy(user_dst, src, len);
	return 0;
}

long sc_strnlen_user(const char *user, size_t max)
{
	if (user == (const char *)1)
		return -EFAULT;
	return (long)strnlen(user, max);
}

void sc_wait_mask_begin(struct sc_thread *t, struct sc_wait_mask *m, uint64_t mask)
{
	(void)t;
	m->now = mask;
	m->other = 0;
}

void sc_wait_mask_end(struct sc_thread *t, const struct sc_wait_mask *m, long result)
{
	(void)t;
	(void)m;
	(void)result;
}

struct sc_thread *sc_thread_ensure(void)
{
	shim_thread.self = &shim_thread;
	shim_thread.tid = (uint32_t)gettid();
	return &shim_thread;
}

void sc_intercept_get_stats(struct sc_intercept_stats *out)
{
	memset(out, 0, sizeof(*out));
}
