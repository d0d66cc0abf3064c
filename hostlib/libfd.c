/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libfd.c - the library's own descriptors, kept out of the program's way.
 *
 * Theory of operation: tickets, attach sockets and eventfds live at numbers that a program does not reach by opening
 * files: just above its soft RLIMIT_NOFILE, where the kernel's lowest-number rule never takes it. To put a descriptor
 * there the soft limit is raised towards the hard one for the moment of the dup and restored at once; descriptors above
 * the limit stay valid. Where soft equals hard the highest numbers below the limit are used. Limits above LIBFD_BASE_MAX
 * are treated as LIBFD_BASE_MAX, because the kernel's table (copied by each fork) grows with the highest number in use.
 *
 * One bit per number says that it is ours. close, close_range, dup2 and dup3 consult it (calls_open.c): a program that
 * closes everything it finds must not close our side. The bitmap belongs to the memory image; changes are atomic.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

#include "fdtable.h"
#include "libfd.h"
#include "process.h"

#define LIBFD_BASE_MAX 1024u
#define LIBFD_ROOM     128u /* numbers below the hard limit, where it equals the soft one */

static uint64_t libfd_bits[SC_FD_MAX / 64];
static uint32_t libfd_high; /* no bit at or above; only grows */

static void libfd_set(int fd)
{
	uint32_t high = __atomic_load_n(&libfd_high, __ATOMIC_RELAXED);

	__atomic_fetch_or(&libfd_bits[fd / 64], 1ull << (fd % 64), __ATOMIC_RELAXED);
	while (high <= (uint32_t)fd &&
	       !__atomic_compare_exchange_n(&libfd_high, &high, (uint32_t)fd + 1, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

SC_HOT_TEXT void sc_libfd_forget(int fd)
{
	if (fd >= 0 && (uint32_t)fd < SC_FD_MAX)
		__atomic_fetch_and(&libfd_bits[fd / 64], ~(1ull << (fd % 64)), __ATOMIC_RELAXED);
}

SC_HOT_TEXT bool sc_libfd_is(int fd)
{
	if (fd < 0 || (uint32_t)fd >= __atomic_load_n(&libfd_high, __ATOMIC_RELAXED))
		return false;
	return __atomic_load_n(&libfd_bits[fd / 64], __ATOMIC_RELAXED) >> (fd % 64) & 1;
}

uint32_t sc_libfd_limit_raise(struct sc_limit *l)
{
	struct rlimit lim, more;

	l->raised = false;
	if (sc_sys4(__NR_prlimit64, 0, RLIMIT_NOFILE, 0, &lim))
		return 64;
	l->soft = lim.rlim_cur;
	l->hard = lim.rlim_max;
	if (lim.rlim_cur > LIBFD_BASE_MAX)
		return LIBFD_BASE_MAX;
	if (lim.rlim_cur == lim.rlim_max)
		return lim.rlim_cur > 2 * LIBFD_ROOM ? (uint32_t)lim.rlim_cur - LIBFD_ROOM
						     : (uint32_t)lim.rlim_cur / 2;
	more.rlim_max = lim.rlim_max;
	more.rlim_cur = lim.rlim_cur + SC_MAX_TICKETS;
	if (more.rlim_cur > lim.rlim_max)
		more.rlim_cur = lim.rlim_max;
	l->raised = sc_sys4(__NR_prlimit64, 0, RLIMIT_NOFILE, &more, 0) == 0;
	return (uint32_t)lim.rlim_cur;
}

void sc_libfd_limit_restore(const struct sc_limit *l)
{
	struct rlimit lim = {.rlim_cur = l->soft, .rlim_max = l->hard};

	if (l->raised)
		sc_sys4(__NR_prlimit64, 0, RLIMIT_NOFILE, &lim, 0);
}

/* Dups fd to a number at or above base, or, if there is none, as high as there is one. */
static int libfd_dup_high(int fd, uint32_t base)
{
	long new = sc_sys3(__NR_fcntl, fd, F_DUPFD_CLOEXEC, base);

	while (new < 0 && base > 16) {
		base -= base > 128 ? 64 : 8;
		new = sc_sys3(__NR_fcntl, fd, F_DUPFD_CLOEXEC, base);
	}
	if (new >= 0 && (uint32_t) new >= SC_FD_MAX) {
		sc_sys1(__NR_close, new);
		return -EMFILE;
	}
	return (int)new;
}

int sc_libfd_move_raised(int fd, uint32_t base)
{
	int new = libfd_dup_high(fd, base);

	sc_sys1(__NR_close, fd);
	if (new >= 0)
		libfd_set(new);
	return new;
}

int sc_libfd_move(int fd)
{
	struct sc_limit lim;
	int new;

	new = sc_libfd_move_raised(fd, sc_libfd_limit_raise(&lim));
	sc_libfd_limit_restore(&lim);
	return new;
}

void sc_libfd_adopt(int fd)
{
	libfd_set(fd);
}

void sc_libfd_close(int fd)
{
	if (fd < 0)
		return;
	sc_libfd_forget(fd);
	sc_sys1(__NR_close, fd);
}

SC_HOT_TEXT int sc_libfd_next(int from)
{
	uint32_t high = __atomic_load_n(&libfd_high, __ATOMIC_RELAXED);

	for (uint32_t fd = (uint32_t)from; fd < high; fd++) {
		if (fd % 64 == 0 && !libfd_bits[fd / 64]) {
			fd += 63;
			continue;
		}
		if (sc_libfd_is((int)fd))
			return (int)fd;
	}
	return -1;
}

static bool is_among(int fd, const int *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (v[i] == fd)
			return true;
	return false;
}

SC_HOT_TEXT void sc_libfd_close_all(const int *keep, uint32_t n)
{
	for (int fd = sc_libfd_next(0); fd >= 0; fd = sc_libfd_next(fd + 1)) {
		int last = fd;

		if (is_among(fd, keep, n))
			continue;
		while (sc_libfd_is(last + 1) && !is_among(last + 1, keep, n))
			last++;
		sc_sys3(__NR_close_range, fd, last, 0);
		for (int i = fd; i <= last; i++)
			sc_libfd_forget(i);
		fd = last;
	}
}
