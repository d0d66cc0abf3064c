// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_poll.c - poll, ppoll, select, pselect6, epoll_ctl with remote descriptors among others.
 *
 * A file is always ready for reading and writing. So a call that asks for that of a remote one does
 * not wait: the other descriptors are polled without waiting and the answers merged. If it asks a
 * remote one for nothing that a file ever reports (exceptions, urgent data), the native call may
 * wait as long as it likes: the tickets at the remote numbers report no such thing either.
 */
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/time.h>

#include "calls.h"

#define READY	     (POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM) /* the kernel's DEFAULT_POLLMASK */
#define SIGSET_SIZE  8u
#define NSEC_PER_SEC 1000000000L
#define SET_BITS     64u

/* ---- poll, ppoll ---- */

static short remote_events(const struct sc_file *f, short asked)
{
	return sc_is_path(f) ? POLLNVAL : (short)(asked & READY);
}

/* Does any of the entries (a copy of the program's) name a remote file that is ready? */
static bool any_ready(struct sc_thread *t, const struct pollfd *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct sc_file *f = p[i].fd < 0 ? NULL : sc_fd_file(t, p[i].fd);

		if (f && remote_events(f, p[i].events))
			return true;
	}
	return false;
}

/* Polls without waiting: remote entries by ourselves, the rest natively. Fills revents. Number of
 * entries with events. */
static long poll_now(struct sc_thread *t, struct pollfd *p, uint32_t n)
{
	long ready;
	long more = 0;

	for (uint32_t i = 0; i < n; i++)
		if (p[i].fd >= 0 && sc_fd_file(t, p[i].fd))
			p[i].fd = ~p[i].fd; /* negative: the kernel leaves it alone */
	ready = sc_sys3(__NR_poll, p, n, 0);
	if (ready == -EINTR)
		ready = 0;
	if (ready < 0)
		return ready;
	for (uint32_t i = 0; i < n; i++) {
		struct sc_file *f = p[i].fd < 0 ? sc_fd_file(t, ~p[i].fd) : NULL;

		if (!f)
			continue;
		p[i].revents = remote_events(f, p[i].events);
		more += p[i].revents != 0;
	}
	return ready + more;
}

static long put_revents(struct pollfd *user, const struct pollfd *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (sc_copy_to_user(&user[i].revents, &p[i].revents, sizeof(p[i].revents)))
			return -EFAULT;
	return 0;
}

static long poll_copy(struct sc_thread *t, void *user, struct pollfd *p, uint32_t n)
{
	long ready;

	if (sc_copy_from_user(p, user, n * sizeof(*p)))
		return -EFAULT;
	if (!any_ready(t, p, n))
		return SC_NATIVE;
	ready = poll_now(t, p, n);
	if (ready > 0 && put_revents(user, p, n))
		return -EFAULT;
	return ready;
}

static long poll_any(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_serve_thread *st = sc_serve_of(t);
	uint32_t n = (uint32_t)c->a[1];
	uint64_t bytes = (uint64_t)n * sizeof(struct pollfd);
	struct pollfd *p;
	long res;

	if (!st)
		return -ENOMEM;
	if (n > SC_FD_MAX)
		return SC_NATIVE; /* EINVAL, unless somebody may have that many */
	if (bytes <= sizeof(st->scratch))
		return poll_copy(t, (void *)c->a[0], (struct pollfd *)st->scratch, n);
	p = sc_map(bytes);
	if (!p)
		return -ENOMEM;
	res = poll_copy(t, (void *)c->a[0], p, n);
	sc_unmap(p, bytes);
	return res;
}

long call_poll(struct sc_thread *t, const struct sc_call *c)
{
	return sc_any_remote(t) ? poll_any(t, c) : SC_NATIVE;
}

/* The checks of a timeout that will not be waited for, and of a signal mask that will not be set.
 */
static long timespec_error(const void *user)
{
	struct timespec ts;

	if (!user)
		return 0;
	if (sc_copy_from_user(&ts, user, sizeof(ts)))
		return -EFAULT;
	return ts.tv_sec < 0 || ts.tv_nsec < 0 || ts.tv_nsec >= NSEC_PER_SEC ? -EINVAL : 0;
}

static long sigmask_error(const void *user, uint64_t size)
{
	uint64_t set;

	if (!user)
		return 0;
	if (size != SIGSET_SIZE)
		return -EINVAL;
	return sc_copy_from_user(&set, user, sizeof(set));
}

long call_ppoll(struct sc_thread *t, const struct sc_call *c)
{
	long err;

	if (!sc_any_remote(t))
		return SC_NATIVE;
	err = timespec_error((const void *)c->a[2]);
	if (!err)
		err = sigmask_error((const void *)c->a[3], (uint64_t)c->a[4]);
	return err ? err : poll_any(t, c);
}

/* ---- select, pselect6 ---- */

/* The three sets of a select, as words of 64 descriptors; NULL: not given. */
struct sets {
	uint32_t n;	/* descriptors */
	uint32_t words; /* of each set */
	uint64_t *user[3];
	uint64_t *in[3];
	uint64_t *remote[3]; /* the remote ones of `in` that are ready */
};

static long read_sets(struct sets *s)
{
	for (int k = 0; k < 3; k++)
		if (s->user[k] &&
		    sc_copy_from_user(s->in[k], s->user[k], s->words * sizeof(uint64_t)))
			return -EFAULT;
	return 0;
}

/* Sorts out remote descriptors: which are ready goes to `remote`. Number of bits set there. */
static long find_remote(struct sc_thread *t, struct sets *s)
{
	long ready = 0;

	for (uint32_t i = 0; i < s->n; i++) {
		uint64_t bit = 1ull << i % SET_BITS;
		uint32_t w = i / SET_BITS;
		uint64_t any = (s->in[0][w] | s->in[1][w] | s->in[2][w]) & bit;
		struct sc_file *f = any ? sc_fd_file(t, (int)i) : NULL;

		if (!f)
			continue;
		for (int k = 0; k < (sc_is_path(f) ? 3 : 2); k++) {
			s->remote[k][w] |= s->in[k][w] & bit;
			ready += (s->in[k][w] & bit) != 0;
		}
	}
	return ready;
}

static void take_out_remote(struct sc_thread *t, struct sets *s)
{
	for (uint32_t i = 0; i < s->n; i++) {
		uint64_t bit = 1ull << i % SET_BITS;
		uint32_t w = i / SET_BITS;

		if (!((s->in[0][w] | s->in[1][w] | s->in[2][w]) & bit) || !sc_fd_file(t, (int)i))
			continue;
		for (int k = 0; k < 3; k++)
			s->in[k][w] &= ~bit;
	}
}

static long select_now(struct sc_thread *t, struct sets *s, long remote_ready)
{
	struct timeval none = {0, 0};
	long ready;

	take_out_remote(t, s);
	ready = sc_sys6(__NR_select, s->n, s->in[0], s->in[1], s->in[2], &none, 0);
	if (ready == -EINTR) {
		ready = 0;
		for (int k = 0; k < 3; k++)
			memset(s->in[k], 0, s->words * sizeof(uint64_t));
	}
	if (ready < 0)
		return ready;
	for (int k = 0; k < 3; k++) {
		for (uint32_t w = 0; w < s->words; w++)
			s->in[k][w] |= s->remote[k][w];
		if (s->user[k] &&
		    sc_copy_to_user(s->user[k], s->in[k], s->words * sizeof(uint64_t)))
			return -EFAULT;
	}
	return ready + remote_ready;
}

static long select_copy(struct sc_thread *t, struct sets *s, uint64_t *mem)
{
	long ready;

	for (int k = 0; k < 3; k++) {
		s->in[k] = mem + (uint32_t)k * s->words;
		s->remote[k] = mem + (3u + (uint32_t)k) * s->words;
	}
	memset(mem, 0, 6ul * s->words * sizeof(uint64_t));
	if (read_sets(s))
		return -EFAULT;
	ready = find_remote(t, s);
	return ready ? select_now(t, s, ready) : SC_NATIVE;
}

static long select_any(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_serve_thread *st = sc_serve_of(t);
	int n = sc_int(c->a[0]);
	struct sets s = {.user = {(uint64_t *)c->a[1], (uint64_t *)c->a[2], (uint64_t *)c->a[3]}};
	uint64_t *mem;
	uint64_t bytes;
	long res;

	if (!st)
		return -ENOMEM;
	if (n <= 0 || n > (int)SC_FD_MAX)
		return SC_NATIVE;
	s.n = (uint32_t)n;
	s.words = (s.n + SET_BITS - 1) / SET_BITS;
	bytes = 6ul * s.words * sizeof(uint64_t);
	if (bytes <= sizeof(st->scratch))
		return select_copy(t, &s, (uint64_t *)st->scratch);
	mem = sc_map(bytes);
	if (!mem)
		return -ENOMEM;
	res = select_copy(t, &s, mem);
	sc_unmap(mem, bytes);
	return res;
}

long call_select(struct sc_thread *t, const struct sc_call *c)
{
	struct timeval tv;

	if (!sc_any_remote(t))
		return SC_NATIVE;
	if (c->a[4]) {
		if (sc_copy_from_user(&tv, (const void *)c->a[4], sizeof(tv)))
			return -EFAULT;
		if (tv.tv_sec < 0 || tv.tv_usec < 0)
			return -EINVAL;
	}
	return select_any(t, c);
}

long call_pselect6(struct sc_thread *t, const struct sc_call *c)
{
	struct {
		const void *set;
		uint64_t size;
	} mask = {NULL, 0};
	long err;

	if (!sc_any_remote(t))
		return SC_NATIVE;
	if (c->a[5] && sc_copy_from_user(&mask, (const void *)c->a[5], sizeof(mask)))
		return -EFAULT;
	err = timespec_error((const void *)c->a[4]);
	if (!err)
		err = sigmask_error(mask.set, mask.size);
	return err ? err : select_any(t, c);
}

/* ---- epoll ---- */

/* A file cannot be watched: EPERM, after the checks that the kernel makes before. */
long call_epoll_ctl(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_file *f = sc_fd_file(t, sc_int(c->a[2]));
	struct epoll_event ev;

	if (!f)
		return SC_NATIVE;
	if (sc_int(c->a[1]) != EPOLL_CTL_DEL &&
	    sc_copy_from_user(&ev, (const void *)c->a[3], sizeof(ev)))
		return -EFAULT;
	if (sc_is_path(f) || sc_sys2(__NR_fcntl, sc_int(c->a[0]), F_GETFD) < 0)
		return -EBADF;
	return -EPERM;
}
