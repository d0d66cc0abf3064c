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
#include <sys/time.h>

#include "calls.h"
#include "net.h"

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

/* How long a call waits, and with which mask, if it concerns sockets of domains. */
struct limits {
	uint64_t deadline; /* 0: not at all; SC_NET_FOREVER */
	const struct sc_wait_mask *mask;
};

static long poll_copy(struct sc_thread *t, void *user, struct pollfd *p, uint32_t n,
		      const struct limits *w)
{
	long ready;

	if (sc_copy_from_user(p, user, n * sizeof(*p)))
		return -EFAULT;
	if (sc_nnetroutes && sc_net_concerns(t, p, n)) {
		ready = sc_net_poll(t, p, n, w->deadline, w->mask);
		return ready >= 0 && put_revents(user, p, n) ? -EFAULT : ready;
	}
	if (!any_ready(t, p, n))
		return SC_NATIVE;
	ready = poll_now(t, p, n);
	if (ready > 0 && put_revents(user, p, n))
		return -EFAULT;
	return ready;
}

static long poll_any(struct sc_thread *t, const struct sc_call *c, const struct limits *w)
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
		return poll_copy(t, (void *)c->a[0], (struct pollfd *)st->scratch, n, w);
	p = sc_map(bytes);
	if (!p)
		return -ENOMEM;
	res = poll_copy(t, (void *)c->a[0], p, n, w);
	sc_unmap(p, bytes);
	return res;
}

long call_poll(struct sc_thread *t, const struct sc_call *c)
{
	int ms = sc_int(c->a[2]);
	struct limits w = {.deadline = SC_NET_FOREVER};

	if (!sc_any_remote(t))
		return SC_NATIVE;
	if (sc_nnetroutes && ms >= 0)
		w.deadline = ms ? sc_net_deadline((uint64_t)ms * 1000) : 0;
	return poll_any(t, c, &w);
}

/* A timeout and a signal mask as ppoll and pselect6 take them: checked, and made ready for sc_net_poll(). */
static long limits_get(struct limits *w, const void *user)
{
	struct timespec ts;

	w->deadline = SC_NET_FOREVER;
	w->mask = NULL;
	if (!user)
		return 0;
	if (sc_copy_from_user(&ts, user, sizeof(ts)))
		return -EFAULT;
	if (ts.tv_sec < 0 || ts.tv_nsec < 0 || ts.tv_nsec >= NSEC_PER_SEC)
		return -EINVAL;
	w->deadline = 0;
	if (ts.tv_sec || ts.tv_nsec)
		w->deadline = sc_nnetroutes ? sc_net_deadline((uint64_t)ts.tv_sec * 1000000 +
							      ((uint64_t)ts.tv_nsec + 999) / 1000)
					    : SC_NET_FOREVER;
	return 0;
}

/* What is left of the timeout goes back to the program, as the kernel does it. */
static void limits_left(const struct limits *w, void *user)
{
	uint64_t now;
	uint64_t us;
	struct timespec ts;

	if (!user || !w->deadline || w->deadline == SC_NET_FOREVER)
		return;
	now = sc_now_us();
	us = now < w->deadline ? w->deadline - now : 0;
	ts = (struct timespec){.tv_sec = (long)(us / 1000000),
			       .tv_nsec = (long)(us % 1000000) * 1000};
	sc_copy_to_user(user, &ts, sizeof(ts));
}

static long mask_get(struct sc_thread *t, struct limits *w, struct sc_wait_mask *m,
		     const void *user, uint64_t size)
{
	uint64_t set;

	if (!user)
		return 0;
	if (size != SIGSET_SIZE)
		return -EINVAL;
	if (sc_copy_from_user(&set, user, sizeof(set)))
		return -EFAULT;
	if (sc_nnetroutes) {
		sc_wait_mask_begin(t, m, set);
		w->mask = m;
	}
	return 0;
}

long call_ppoll(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_wait_mask m;
	struct limits w;
	long res;

	if (!sc_any_remote(t))
		return SC_NATIVE;
	res = limits_get(&w, (const void *)c->a[2]);
	if (!res)
		res = mask_get(t, &w, &m, (const void *)c->a[3], (uint64_t)c->a[4]);
	if (res)
		return res;
	res = poll_any(t, c, &w);
	if (res == SC_NATIVE)
		return res;
	if (w.mask)
		sc_wait_mask_end(t, w.mask, res);
	limits_left(&w, (void *)c->a[2]);
	return res;
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

/* What each set asks of a descriptor, and which events put it into the answer: the kernel's POLLIN_SET and the like. */
static const short set_asks[3] = {POLLIN | POLLRDNORM | POLLRDBAND,
				  POLLOUT | POLLWRNORM | POLLWRBAND, POLLPRI};
static const short set_takes[3] = {POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR,
				   POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR, POLLPRI};

/* The sets' descriptors as poll's entries. Their number. */
static uint32_t sets_to_poll(const struct sets *s, struct pollfd *p)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->n; i++) {
		uint32_t w = i / SET_BITS;
		short asked = 0;

		for (int k = 0; k < 3; k++)
			if (s->in[k][w] >> i % SET_BITS & 1)
				asked = (short)(asked | set_asks[k]);
		if (asked)
			p[n++] = (struct pollfd){.fd = (int)i, .events = asked};
	}
	return n;
}

static long poll_to_sets(struct sets *s, const struct pollfd *p, uint32_t n)
{
	long ready = 0;

	for (uint32_t i = 0; i < n; i++)
		if (p[i].revents & POLLNVAL)
			return -EBADF;
	for (int k = 0; k < 3; k++)
		memset(s->remote[k], 0, s->words * sizeof(uint64_t));
	for (uint32_t i = 0; i < n; i++) {
		uint32_t fd = (uint32_t)p[i].fd;
		uint32_t w = fd / SET_BITS;
		uint64_t bit = 1ull << fd % SET_BITS;

		for (int k = 0; k < 3; k++) {
			if (!(s->in[k][w] & bit) || !(p[i].revents & set_takes[k]))
				continue;
			s->remote[k][w] |= bit;
			ready++;
		}
	}
	for (int k = 0; k < 3; k++)
		if (s->user[k] &&
		    sc_copy_to_user(s->user[k], s->remote[k], s->words * sizeof(uint64_t)))
			return -EFAULT;
	return ready;
}

/* With sockets of domains among them: as a poll. SC_NATIVE if there are none. */
static long select_net(struct sc_thread *t, struct sets *s, const struct limits *w)
{
	uint64_t bytes = s->n * sizeof(struct pollfd);
	struct pollfd *p = sc_map(bytes);
	uint32_t n;
	long res = SC_NATIVE;

	if (!p)
		return -ENOMEM;
	n = sets_to_poll(s, p);
	if (sc_net_concerns(t, p, n)) {
		res = sc_net_poll(t, p, n, w->deadline, w->mask);
		if (res >= 0)
			res = poll_to_sets(s, p, n);
	}
	sc_unmap(p, bytes);
	return res;
}

static bool any_socket(struct sc_thread *t, const struct sets *s)
{
	for (uint32_t i = 0; i < s->n; i++) {
		uint32_t w = i / SET_BITS;
		struct pollfd p = {.fd = (int)i};

		if ((s->in[0][w] | s->in[1][w] | s->in[2][w]) >> i % SET_BITS & 1 &&
		    sc_net_concerns(t, &p, 1))
			return true;
	}
	return false;
}

static long select_copy(struct sc_thread *t, struct sets *s, uint64_t *mem, const struct limits *w)
{
	long ready;

	for (int k = 0; k < 3; k++) {
		s->in[k] = mem + (uint32_t)k * s->words;
		s->remote[k] = mem + (3u + (uint32_t)k) * s->words;
	}
	memset(mem, 0, 6ul * s->words * sizeof(uint64_t));
	if (read_sets(s))
		return -EFAULT;
	if (sc_nnetroutes && any_socket(t, s))
		return select_net(t, s, w);
	ready = find_remote(t, s);
	return ready ? select_now(t, s, ready) : SC_NATIVE;
}

static long select_any(struct sc_thread *t, const struct sc_call *c, const struct limits *w)
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
		return select_copy(t, &s, (uint64_t *)st->scratch, w);
	mem = sc_map(bytes);
	if (!mem)
		return -ENOMEM;
	res = select_copy(t, &s, mem, w);
	sc_unmap(mem, bytes);
	return res;
}

long call_select(struct sc_thread *t, const struct sc_call *c)
{
	struct limits w = {.deadline = SC_NET_FOREVER};
	struct timeval tv;
	long res;

	if (!sc_any_remote(t))
		return SC_NATIVE;
	if (c->a[4]) {
		if (sc_copy_from_user(&tv, (const void *)c->a[4], sizeof(tv)))
			return -EFAULT;
		if (tv.tv_sec < 0 || tv.tv_usec < 0)
			return -EINVAL;
		w.deadline = 0;
		if (sc_nnetroutes && (tv.tv_sec || tv.tv_usec))
			w.deadline =
			    sc_net_deadline((uint64_t)tv.tv_sec * 1000000 + (uint64_t)tv.tv_usec);
	}
	res = select_any(t, c, &w);
	if (res != SC_NATIVE && c->a[4] && w.deadline) {
		uint64_t now = sc_now_us();
		uint64_t us = now < w.deadline ? w.deadline - now : 0;

		tv = (struct timeval){.tv_sec = (long)(us / 1000000),
				      .tv_usec = (long)(us % 1000000)};
		sc_copy_to_user((void *)c->a[4], &tv, sizeof(tv));
	}
	return res;
}

long call_pselect6(struct sc_thread *t, const struct sc_call *c)
{
	struct {
		const void *set;
		uint64_t size;
	} mask = {NULL, 0};
	struct sc_wait_mask m;
	struct limits w;
	long res;

	if (!sc_any_remote(t))
		return SC_NATIVE;
	if (c->a[5] && sc_copy_from_user(&mask, (const void *)c->a[5], sizeof(mask)))
		return -EFAULT;
	res = limits_get(&w, (const void *)c->a[4]);
	if (!res)
		res = mask_get(t, &w, &m, mask.set, mask.size);
	if (res)
		return res;
	res = select_any(t, c, &w);
	if (res == SC_NATIVE)
		return res;
	if (w.mask)
		sc_wait_mask_end(t, w.mask, res);
	limits_left(&w, (void *)c->a[4]);
	return res;
}
