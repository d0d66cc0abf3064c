/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * calls_open.c - the open family, close, dup.
 *
 * Opening: a ticket is taken, the agent opens the file under it, and the ticket is dup'ed to the lowest free number, as the
 * kernel would choose. If opening changes anything (O_CREAT, O_TRUNC) the number is reserved first, so that EMFILE means
 * that nothing happened. The library's own descriptors look closed to close, close_range and dup2.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <string.h>

#include "chan-priv.h"
#include "dispatch.h"
#include "libfd.h"
#include "process.h"

#define KERNEL_O_LARGEFILE 0100000u
#define KERNEL_O_TMPFILE   020000000u /* without O_DIRECTORY */

/* What open() and openat() know; they ignore the rest. */
#define OPEN_FLAGS                                                                                 \
	(O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC |      \
	 O_DSYNC | FASYNC | O_DIRECT | KERNEL_O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | \
	 O_CLOEXEC | O_PATH | KERNEL_O_TMPFILE)
#define PATH_FLAGS (O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC)

struct open_req {
	int dirfd;
	uint8_t path_arg;
	uint32_t flags;
	uint32_t mode;
};

/* One attempt at a known place. >= 0: the descriptor; -errno; *crossed: see sc_at_cross(). */
static long open_at(struct sc_thread *t, const struct sc_call *c, const struct open_req *q,
		    struct sc_at *at, uint32_t at_flags, bool *crossed)
{
	bool cloexec = q->flags & O_CLOEXEC;
	uint32_t wire = q->flags & ~(O_CLOEXEC | KERNEL_O_LARGEFILE), flags = 0;
	struct sc_slot s = {.op = SC_OP_OPEN};
	struct sc_opening o = {.route = at->route};
	struct sc_hlane *l;
	long res = sc_open_begin(t, at->dom, q->flags & (O_CREAT | O_TRUNC), cloexec, &o);

	*crossed = false;
	if (res)
		return res;
	res = sc_lane_get(t, at->dom, &l);
	if (res) {
		sc_open_undo(t, &o);
		return res;
	}
	res = sc_at_slot(t, l, at, &s, 0);
	if (!res) {
		s.arg0 = wire | (uint64_t)q->mode << 32;
		s.arg1 = o.ticket;
		s.arg2 = o.secret;
		res = sc_lane_call(t, l, &s, &flags, 0);
	}
	if (res == -EXDEV && (flags & SC_CQE_F_CROSS)) {
		*crossed = true;
		res = sc_at_cross(t, c, l, 0, q->path_arg, at_flags, at);
	}
	sc_lane_put(t, l);
	if (res >= 0 && !*crossed) {
		uint32_t keep = q->flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC);

		if (!(keep & O_PATH))
			keep |= KERNEL_O_LARGEFILE;
		o.route = at->route;
		return sc_open_done(t, &o, (uint64_t)res, keep, SC_CQE_TYPE(flags) << 12, cloexec);
	}
	sc_open_undo(t, &o);
	return res;
}

static long open_common(struct sc_thread *t, const struct sc_call *c, struct open_req *q)
{
	uint32_t at_flags = 0;
	struct sc_at at;
	bool crossed;
	long res;

	if ((q->flags & O_NOFOLLOW) || (q->flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
		at_flags |= SC_AT_NOFOLLOW;
	if (q->flags & O_CREAT)
		at_flags |= SC_AT_CREATE;
	res = sc_at_get(t, c, q->dirfd, q->path_arg, at_flags, &at);
	while (res == 0) {
		res = open_at(t, c, q, &at, at_flags, &crossed);
		if (!crossed)
			return res;
	}
	return res;
}

/* Mode and umask, as ops.h packs them. */
static uint32_t packed_mode(struct sc_thread *t, uint32_t mode)
{
	return mode | sc_umask(t->proc) << 16;
}

/* open and openat: unknown flags do not count, the mode counts only when something may be created. */
static long open_old(struct sc_thread *t, const struct sc_call *c, int dirfd, uint8_t path_arg,
		     uint32_t flags, uint32_t mode)
{
	struct open_req q = {.dirfd = dirfd, .path_arg = path_arg, .flags = flags & OPEN_FLAGS};

	if (q.flags & O_PATH)
		q.flags &= PATH_FLAGS;
	if (q.flags & (O_CREAT | KERNEL_O_TMPFILE))
		q.mode = packed_mode(t, mode & 07777);
	return open_common(t, c, &q);
}

long call_open(struct sc_thread *t, const struct sc_call *c)
{
	return open_old(t, c, AT_FDCWD, 0, (uint32_t)c->a[1], (uint32_t)c->a[2]);
}

long call_creat(struct sc_thread *t, const struct sc_call *c)
{
	return open_old(t, c, AT_FDCWD, 0, O_CREAT | O_WRONLY | O_TRUNC, (uint32_t)c->a[1]);
}

long call_openat(struct sc_thread *t, const struct sc_call *c)
{
	return open_old(t, c, (int)c->a[0], 1, (uint32_t)c->a[2], (uint32_t)c->a[3]);
}

/*
 * openat2 checks what it gets; the domain's kernel does that for us. RESOLVE_* restrictions other than those that our
 * resolution obeys anyway are answered with ENOSYS, the answer of a kernel without openat2, for which callers have a
 * fallback.
 */
long call_openat2(struct sc_thread *t, const struct sc_call *c)
{
	struct open_how how;
	struct open_req q = {.dirfd = (int)c->a[0], .path_arg = 1};
	struct sc_at at;
	long res;

	if (c->a[3] != sizeof(how) || sc_copy_from_user(&how, (const void *)c->a[2], sizeof(how)))
		return SC_NATIVE;
	res = sc_at_get(t, c, q.dirfd, 1, 0, &at);
	if (res)
		return res;
	if (how.resolve & ~(uint64_t)RESOLVE_NO_MAGICLINKS)
		return -ENOSYS;
	if ((how.flags & ~(uint64_t)OPEN_FLAGS) || (how.mode & ~07777ull))
		return -EINVAL;
	if (how.mode && !(how.flags & (O_CREAT | KERNEL_O_TMPFILE)))
		return -EINVAL;
	if ((how.flags & O_PATH) && (how.flags & ~(uint64_t)(PATH_FLAGS | KERNEL_O_LARGEFILE)))
		return -EINVAL;
	q.flags = (uint32_t)how.flags;
	q.mode = packed_mode(t, (uint32_t)how.mode);
	return open_common(t, c, &q);
}

long call_close(struct sc_thread *t, const struct sc_call *c)
{
	int fd = (int)c->a[0];

	if (sc_fd_any(t, fd))
		return sc_fd_close(t, fd);
	return sc_libfd_is(fd) ? -EBADF : SC_NATIVE;
}

/* Closes first..last but what is the library's. */
static long close_around(uint32_t first, uint32_t last, uint32_t flags)
{
	long res = 0;

	while (first <= last && !res) {
		int ours = first < SC_FD_MAX ? sc_libfd_next((int)first) : -1;
		uint32_t end = ours >= 0 && (uint32_t)ours <= last ? (uint32_t)ours : last + 1;

		if (end != first)
			res = sc_sys3(__NR_close_range, first, end - 1, flags);
		if (end > last || end == 0)
			break;
		first = end + 1;
	}
	return res;
}

long call_close_range(struct sc_thread *t, const struct sc_call *c)
{
	uint32_t first = (uint32_t)c->a[0], last = (uint32_t)c->a[1], flags = (uint32_t)c->a[2];
	uint32_t high = __atomic_load_n(&t->proc->fds.fd_high, __ATOMIC_RELAXED);
	int ours;

	if (first > last || (flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)))
		return SC_NATIVE; /* EINVAL */
	if (flags & CLOSE_RANGE_CLOEXEC)
		return SC_NATIVE; /* ours are so already */
	for (uint32_t fd = first; fd <= last && fd < high; fd++)
		if (sc_fd_any(t, (int)fd))
			sc_fd_close(t, (int)fd);
	ours = first < SC_FD_MAX ? sc_libfd_next((int)first) : -1;
	if (ours < 0 || (uint32_t)ours > last)
		return SC_NATIVE;
	return close_around(first, last, flags);
}

long call_dup(struct sc_thread *t, const struct sc_call *c)
{
	return sc_fd_dup(t, (int)c->a[0], 0, false);
}

static long dup_to(struct sc_thread *t, const struct sc_call *c, int flags)
{
	int from = (int)c->a[0], to = (int)c->a[1];
	long err;

	if (sc_libfd_is(from))
		return -EBADF;
	if (sc_libfd_is(to)) {
		err = sc_libfd_evict(to);
		if (err)
			return err;
	}
	if (!sc_fd_any(t, from) && !sc_fd_any(t, to))
		return SC_NATIVE;
	return sc_fd_dup_to(t, from, to, flags);
}

long call_dup2(struct sc_thread *t, const struct sc_call *c)
{
	if ((int)c->a[0] == (int)c->a[1])
		return SC_NATIVE;
	return dup_to(t, c, 0);
}

long call_dup3(struct sc_thread *t, const struct sc_call *c)
{
	int flags = (int)c->a[2];

	if ((int)c->a[0] == (int)c->a[1] || (flags & ~O_CLOEXEC))
		return SC_NATIVE; /* EINVAL */
	return dup_to(t, c, flags);
}
