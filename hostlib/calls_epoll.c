/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * calls_epoll.c - epoll instances that have sockets of domains in them.
 *
 * Theory of operation
 *
 * The epoll instance is the kernel's, and local descriptors are in it as ever. Places of sockets of domains are kept here
 * (struct sc_epitem), on two lists: the socket's, and, when something may have happened, the instance's ready list. Nothing is
 * ever scanned but the ready list. An item comes onto it when it is added or changed, and when the agent has marked its
 * socket; it is looked at by the next wait, reported if the socket is ready indeed, and stays there only if it is level-
 * triggered and was reported. That is the kernel's own algorithm.
 *
 * To wait is the kernel's epoll_wait on the real instance, in which three descriptors of ours are, edge-triggered: the
 * instance's bell, which is rung when an item comes onto the ready list while somebody waits, the channel's doorbell
 * (EPOLLEXCLUSIVE, so that of several instances one is awakened), since nobody else may be there to take the agent's marks, and the
 * broker's socket, by which it tells that the domain has gone, or has come back with new doorbells. What they report is not shown
 * to the program. While a domain is absent, sleeps are short.
 *
 * Places are private memory of the process: after a fork, parent and child have the same ones, and changes of one are not
 * the other's. An exec forgets them. Sockets that the kernel still has (fresh ones) are in both places; when such a socket
 * moves to a domain, its places move.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "calls.h"
#include "libfd.h"
#include "net.h"

#define BUCKETS	     1024u
#define BATCH	     256u /* most events that one wait returns */
#define PRIVATE_BITS (EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE)
#define SIGSET_SIZE  8u

struct sc_epitem {
	struct sc_epitem *next_sock; /* on sock->items; sock->lock */
	struct sc_epitem *next_hash; /* ep->lock, like all below */
	struct sc_epitem *next_ready, *prev_ready;
	bool ready;  /* on the ready list */
	bool native; /* the kernel has it: a fresh socket */
	int fd;
	uint32_t events; /* 0: a one-shot that was reported */
	uint64_t data;
	struct sc_nsock *sock;
	struct sc_epoll *ep;
};

struct sc_epoll {
	struct sc_mutex lock;
	uint32_t refs;	  /* struct sc_file objects; atomic */
	uint32_t waiting; /* threads in the kernel's wait; atomic */
	int fd;		  /* a descriptor of it, as the program used last */
	int bell;
	uint32_t kicks[SC_MAX_DOMAINS]; /* kick_gen of the doorbell that is in it; 0: none */
	uint32_t socks[SC_MAX_DOMAINS]; /* gen of the channel whose broker's socket is in it */
	struct sc_epitem *ready_first, *ready_last;
	struct sc_epitem *bucket[BUCKETS];
};

static uint64_t mark; /* the data of our own descriptors */
static struct sc_mutex item_lock;
static struct sc_epitem *item_free; /* through next_hash */

/* ---- items ---- */

static struct sc_epitem *item_new(void)
{
	struct sc_epitem *i;

	sc_mutex_lock(&item_lock);
	if (!item_free) {
		i = sc_map(65536);
		for (uint32_t k = 0; i && k < 65536 / sizeof(*i); k++) {
			i[k].next_hash = item_free;
			item_free = i + k;
		}
	}
	i = item_free;
	if (i)
		item_free = i->next_hash;
	sc_mutex_unlock(&item_lock);
	if (i)
		memset(i, 0, sizeof(*i));
	return i;
}

static void item_put(struct sc_epitem *i)
{
	sc_mutex_lock(&item_lock);
	i->next_hash = item_free;
	item_free = i;
	sc_mutex_unlock(&item_lock);
}

static struct sc_epitem **bucket_of(struct sc_epoll *e, int fd)
{
	return &e->bucket[(uint32_t)fd % BUCKETS];
}

static struct sc_epitem *item_find(struct sc_epoll *e, int fd, const struct sc_nsock *s)
{
	struct sc_epitem *i = *bucket_of(e, fd);

	while (i && (i->fd != fd || i->sock != s))
		i = i->next_hash;
	return i;
}

static void ready_add(struct sc_epoll *e, struct sc_epitem *i)
{
	if (i->ready)
		return;
	i->ready = true;
	i->next_ready = NULL;
	i->prev_ready = e->ready_last;
	if (e->ready_last)
		e->ready_last->next_ready = i;
	else
		e->ready_first = i;
	e->ready_last = i;
}

static void ready_del(struct sc_epoll *e, struct sc_epitem *i)
{
	if (!i->ready)
		return;
	i->ready = false;
	if (i->prev_ready)
		i->prev_ready->next_ready = i->next_ready;
	else
		e->ready_first = i->next_ready;
	if (i->next_ready)
		i->next_ready->prev_ready = i->prev_ready;
	else
		e->ready_last = i->prev_ready;
}

/* Takes it off the instance; ep->lock held. */
static void item_unlink(struct sc_epoll *e, struct sc_epitem *i)
{
	struct sc_epitem **at = bucket_of(e, i->fd);

	while (*at && *at != i)
		at = &(*at)->next_hash;
	if (*at)
		*at = i->next_hash;
	ready_del(e, i);
}

/* Takes it off the socket; sock->lock held. */
static void item_leave_sock(struct sc_epitem *i)
{
	struct sc_epitem **at = &i->sock->items;

	while (*at && *at != i)
		at = &(*at)->next_sock;
	if (*at)
		*at = i->next_sock;
}

static void wake(struct sc_epoll *e)
{
	uint64_t one = 1;

	if (__atomic_load_n(&e->waiting, __ATOMIC_SEQ_CST))
		sc_sys3(__NR_write, e->bell, &one, sizeof(one));
}

void sc_epoll_notify(struct sc_nsock *s)
{
	for (struct sc_epitem *i = s->items; i; i = i->next_sock) {
		if (i->native)
			continue;
		sc_mutex_lock(&i->ep->lock);
		if (i->events)
			ready_add(i->ep, i);
		sc_mutex_unlock(&i->ep->lock);
		wake(i->ep);
	}
}

void sc_epoll_forget(struct sc_nsock *s)
{
	sc_mutex_lock(&s->lock);
	while (s->items) {
		struct sc_epitem *i = s->items;

		s->items = i->next_sock;
		sc_mutex_lock(&i->ep->lock);
		item_unlink(i->ep, i);
		sc_mutex_unlock(&i->ep->lock);
		item_put(i);
	}
	sc_mutex_unlock(&s->lock);
}

void sc_epoll_migrate(struct sc_thread *t, struct sc_nsock *s)
{
	(void)t;
	sc_mutex_lock(&s->lock);
	for (struct sc_epitem *i = s->items; i; i = i->next_sock) {
		if (!i->native)
			continue;
		sc_sys4(__NR_epoll_ctl, i->ep->fd, EPOLL_CTL_DEL, i->fd, NULL);
		sc_mutex_lock(&i->ep->lock);
		i->native = false;
		sc_net_watch(s);
		ready_add(i->ep, i);
		sc_mutex_unlock(&i->ep->lock);
		wake(i->ep);
	}
	sc_mutex_unlock(&s->lock);
}

/* ---- instances ---- */

void sc_epoll_ref(struct sc_epoll *e)
{
	__atomic_fetch_add(&e->refs, 1, __ATOMIC_RELAXED);
}

void sc_epoll_unref(struct sc_epoll *e)
{
	if (__atomic_sub_fetch(&e->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (uint32_t b = 0; b < BUCKETS; b++) {
		while (e->bucket[b]) {
			struct sc_epitem *i = e->bucket[b];

			sc_mutex_lock(&i->sock->lock);
			item_leave_sock(i);
			e->bucket[b] = i->next_hash;
			sc_mutex_unlock(&i->sock->lock);
			item_put(i);
		}
	}
	sc_libfd_close(e->bell);
	sc_unmap(e, sizeof(*e));
}

static long add_own(int epfd, int fd, uint32_t flags)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET | flags, .data.u64 = mark};

	return sc_sys4(__NR_epoll_ctl, epfd, EPOLL_CTL_ADD, fd, &ev);
}

static long bell_make(struct sc_epoll *e, int epfd)
{
	long fd = sc_sys2(__NR_eventfd2, 0, EFD_NONBLOCK | EFD_CLOEXEC);

	if (fd >= 0)
		fd = sc_libfd_move((int)fd);
	if (fd < 0)
		return fd;
	e->bell = (int)fd;
	return add_own(epfd, e->bell, 0);
}

int *sc_epoll_bell(struct sc_epoll *e)
{
	return &e->bell;
}

void sc_epoll_after_fork(struct sc_epoll *e)
{
	sc_mutex_reset(&e->lock);
	sc_mutex_reset(&item_lock);
	e->waiting = 0;
	e->bell = -1; /* the parent's; made anew when the child waits */
	memset(e->kicks, 0, sizeof(e->kicks));
	memset(e->socks, 0, sizeof(e->socks));
}

/* The instance at descriptor epfd, made known if need be. */
static long instance(struct sc_thread *t, int epfd, struct sc_epoll **out)
{
	struct sc_file *f = sc_fd_any(t, epfd);
	struct sc_epoll *e;
	long err;

	if (f) {
		*out = f->net;
		return f->kind == SC_KIND_EPOLL ? 0 : -EINVAL;
	}
	e = sc_map(sizeof(*e));
	if (!e)
		return -ENOMEM;
	if (!mark)
		mark = sc_random();
	e->refs = 1;
	err = bell_make(e, epfd);
	if (!err)
		err = sc_fd_install(t, epfd, SC_KIND_EPOLL, e);
	if (err) {
		if (e->bell > 0)
			sc_libfd_close(e->bell);
		sc_unmap(e, sizeof(*e));
		return err;
	}
	*out = e;
	return 0;
}

static long channel_in(struct sc_epoll *e, int epfd, struct sc_chan *c, uint32_t i)
{
	uint32_t kick = __atomic_load_n(&c->kick_gen, __ATOMIC_ACQUIRE);
	long err = 0;

	if (e->kicks[i] != kick)
		err = add_own(epfd, c->kick, EPOLLEXCLUSIVE);
	if (err && err != -EEXIST)
		return err;
	e->kicks[i] = kick;
	if (e->socks[i] == c->gen)
		return 0;
	err = add_own(epfd, c->sock, 0);
	if (err && err != -EEXIST)
		return err;
	e->socks[i] = c->gen;
	return 0;
}

/* The doorbell of each channel, its broker's socket, and the instance's bell, are in the kernel's instance. */
static long bells_in(struct sc_thread *t, struct sc_epoll *e, int epfd)
{
	long err = e->bell < 0 ? bell_make(e, epfd) : 0;

	for (uint32_t i = 0; i < sc_ndoms && !err; i++) {
		struct sc_chan *c = sc_chan_of(t, &sc_doms[i]);

		if (c && c->net)
			err = channel_in(e, epfd, c, i);
	}
	return err;
}

/* Known from the start: a thread may wait before the first socket of a domain is added. */
static long epoll_made(struct sc_thread *t, long fd)
{
	struct sc_epoll *e;

	if (fd >= 0)
		instance(t, (int)fd, &e);
	return fd;
}

long call_epoll_create(struct sc_thread *t, const struct sc_call *c)
{
	return sc_native_changed(t, c, epoll_made);
}

/* ---- epoll_ctl ---- */

static void item_set(struct sc_epoll *e, struct sc_epitem *i, const struct epoll_event *ev)
{
	i->events = ev->events | EPOLLERR | EPOLLHUP;
	i->data = ev->data.u64;
	if (!i->native) {
		sc_net_watch(i->sock);
		ready_add(e, i);
	}
}

static long ctl_locked(struct sc_epoll *e, struct sc_nsock *s, int op, int fd,
		       const struct epoll_event *ev, bool native)
{
	struct sc_epitem *i = item_find(e, fd, s);

	switch (op) {
	case EPOLL_CTL_ADD:
		if (i)
			return -EEXIST;
		i = item_new();
		if (!i)
			return -ENOMEM;
		i->fd = fd;
		i->ep = e;
		i->sock = s;
		i->native = native;
		i->next_sock = s->items;
		s->items = i;
		i->next_hash = *bucket_of(e, fd);
		*bucket_of(e, fd) = i;
		item_set(e, i, ev);
		return 0;
	case EPOLL_CTL_MOD:
		if (!i)
			return -ENOENT;
		if (i->events & EPOLLEXCLUSIVE)
			return -EINVAL;
		item_set(e, i, ev);
		return 0;
	case EPOLL_CTL_DEL:
		if (!i)
			return -ENOENT;
		item_unlink(e, i);
		item_leave_sock(i);
		item_put(i);
		return 0;
	default:
		return -EINVAL;
	}
}

static long ctl_sock(struct sc_thread *t, int epfd, int op, int fd, struct sc_file *f,
		     const struct epoll_event *ev)
{
	struct sc_nsock *s = sc_nsock_of(f);
	struct sc_netchan *nc;
	struct sc_epoll *e;
	bool native = f->kind == SC_KIND_FRESH;
	long err = native ? 0 : sc_net_enter(t, f, &nc);

	if (!err)
		err = instance(t, epfd, &e);
	if (err)
		return err;
	e->fd = epfd;
	err = bells_in(t, e, epfd);
	if (err)
		return err;
	sc_mutex_lock(&s->lock);
	sc_mutex_lock(&e->lock);
	err = ctl_locked(e, s, op, fd, ev, native);
	sc_mutex_unlock(&e->lock);
	sc_mutex_unlock(&s->lock);
	if (!native && !err)
		wake(e);
	return err;
}

/* A fresh socket goes into the kernel's instance, and is remembered. */
static long ctl_fresh(struct sc_thread *t, const struct sc_call *c, struct sc_file *f,
		      const struct epoll_event *ev)
{
	long res = sc_sys4(__NR_epoll_ctl, c->a[0], c->a[1], c->a[2], ev), err;

	if (res)
		return res;
	err = ctl_sock(t, sc_int(c->a[0]), sc_int(c->a[1]), sc_int(c->a[2]), f, ev);
	return err == -ENOMEM ? err : 0;
}

static long exclusive_error(int op, const struct epoll_event *ev)
{
	if (!(ev->events & EPOLLEXCLUSIVE))
		return 0;
	if (op == EPOLL_CTL_MOD)
		return -EINVAL;
	return ev->events & ~(uint32_t)(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP |
					EPOLLET | EPOLLEXCLUSIVE)
		   ? -EINVAL
		   : 0;
}

/* A file cannot be watched: EPERM, after the checks that the kernel makes before. */
long call_epoll_ctl(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_file *f = sc_fd_any(t, sc_int(c->a[2])), *e;
	struct epoll_event ev = {0};
	int op = sc_int(c->a[1]);
	long err;

	if (!f || f->kind == SC_KIND_EPOLL)
		return SC_NATIVE;
	if (op != EPOLL_CTL_DEL && sc_copy_from_user(&ev, (const void *)c->a[3], sizeof(ev)))
		return -EFAULT;
	if (sc_sys2(__NR_fcntl, sc_int(c->a[0]), F_GETFD) < 0)
		return -EBADF;
	if (f->kind == SC_KIND_FILE)
		return sc_is_path(f) ? -EBADF : -EPERM;
	e = sc_fd_any(t, sc_int(c->a[0]));
	if (e && e->kind != SC_KIND_EPOLL)
		return -EINVAL;
	if (!e && sc_sys4(__NR_epoll_ctl, c->a[0], EPOLL_CTL_DEL, c->a[0], NULL) != -EINVAL)
		return -EINVAL; /* (of an epoll instance and itself: EINVAL) */
	err = exclusive_error(op, &ev);
	if (err)
		return err;
	if (f->kind == SC_KIND_FRESH)
		return ctl_fresh(t, c, f, &ev);
	return ctl_sock(t, sc_int(c->a[0]), op, sc_int(c->a[2]), f, &ev);
}

/* ---- epoll_wait ---- */

/* The events of an item now; if there are none, the agent knows that somebody waits for them. */
static uint32_t item_look(const struct sc_epitem *i)
{
	uint32_t now = sc_net_events(i->sock, i->events, false) & i->events;

	return now ? now : sc_net_events(i->sock, i->events, true) & i->events;
}

/* Takes up to max events from the ready list. */
static uint32_t collect(struct sc_epoll *e, struct epoll_event *out, uint32_t max)
{
	struct sc_epitem *i, *last;
	uint32_t n = 0;

	sc_mutex_lock(&e->lock);
	last = e->ready_last;
	while (n < max && (i = e->ready_first)) {
		uint32_t now;

		ready_del(e, i);
		now = i->events ? item_look(i) : 0;
		if (now) {
			out[n].events = now;
			out[n++].data.u64 = i->data;
			if (i->events & EPOLLONESHOT)
				i->events = 0;
			else if (!(i->events & EPOLLET))
				ready_add(e, i);
			else if (i->events & EPOLLOUT && !(now & EPOLLOUT))
				sc_net_events(i->sock, EPOLLOUT, true);
		}
		if (i == last)
			break;
	}
	sc_mutex_unlock(&e->lock);
	return n;
}

bool sc_epoll_ready(struct sc_epoll *e)
{
	bool ready = false;

	sc_mutex_lock(&e->lock);
	for (struct sc_epitem *i = e->ready_first; i && !ready; i = i->next_ready)
		ready = i->events && item_look(i);
	sc_mutex_unlock(&e->lock);
	return ready;
}

/* Takes our own descriptors' events out. Returns how many are left. */
static long filter(struct epoll_event *ev, long n)
{
	long kept = 0;

	for (long i = 0; i < n; i++)
		if (ev[i].data.u64 != mark)
			ev[kept++] = ev[i];
	return kept;
}

static long native_wait(int epfd, struct epoll_event *ev, uint32_t max, uint64_t deadline,
			const struct sc_wait_mask *mask)
{
	uint64_t now;
	long ms = -1;

	if (deadline == 0) {
		ms = 0;
	} else if (deadline != SC_NET_FOREVER) {
		now = sc_now_us();
		ms = now < deadline ? (long)((deadline - now + 999) / 1000) : 0;
	}
	return sc_raw_syscall_interruptible(__NR_epoll_pwait, epfd, (long)ev, max, ms,
					    (long)(mask ? &mask->now : NULL), SIGSET_SIZE);
}

/* What is ready now, without waiting. */
static long wait_now(struct sc_thread *t, struct sc_epoll *e, int epfd, struct epoll_event *ev,
		     uint32_t max)
{
	long n, native;

	sc_net_pump_all(t);
	sc_net_feed(t);
	n = collect(e, ev, max);
	if ((uint32_t)n == max)
		return n;
	native = sc_sys4(__NR_epoll_wait, epfd, ev + n, max - n, 0);
	if (native < 0)
		return n ? n : native == -EINTR ? 0 : native;
	return n + filter(ev + n, native);
}

static void each_chan(struct sc_thread *t, void (*what)(struct sc_thread *, struct sc_netchan *))
{
	for (uint32_t i = 0; i < sc_ndoms; i++) {
		struct sc_chan *c = sc_chan_of(t, &sc_doms[i]);

		if (c && c->net)
			what(t, c->net);
	}
}

static void sleep_begins(struct sc_thread *t, struct sc_netchan *nc)
{
	(void)t;
	__atomic_fetch_add(&nc->nsleep, 1, __ATOMIC_SEQ_CST);
	sc_net_arm(nc);
}

/* Is any mark set? A look that takes no lock. */
static bool marks(struct sc_thread *t)
{
	for (uint32_t d = 0; d < sc_ndoms; d++) {
		struct sc_chan *c = sc_chan_of(t, &sc_doms[d]);

		for (uint32_t i = 0; c && c->net && i < SC_NET_SUMS; i++)
			if (__atomic_load_n(&c->net->area->event_sum[i], __ATOMIC_RELAXED))
				return true;
	}
	return false;
}

/* Takes what the broker says of each domain. Is one absent? */
static bool look_at_domains(struct sc_thread *t, bool told)
{
	bool absent = false;

	for (uint32_t i = 0; i < sc_ndoms; i++) {
		struct sc_chan *c = sc_chan_of(t, &sc_doms[i]);

		if (!c || !c->net)
			continue;
		if (told)
			sc_chan_events_now(c);
		absent |= sc_net_absent(c->net);
	}
	return absent;
}

/* One sleep in the kernel. Events of local descriptors, 0, or -errno. */
static long nap(struct sc_thread *t, struct sc_epoll *e, int epfd, struct epoll_event *ev,
		uint32_t max, uint64_t deadline, const struct sc_wait_mask *mask)
{
	long n = 0;

	if (look_at_domains(t, false) && deadline > sc_net_deadline(SC_NET_ABSENT_US))
		deadline = sc_net_deadline(SC_NET_ABSENT_US);
	__atomic_fetch_add(&e->waiting, 1, __ATOMIC_SEQ_CST);
	each_chan(t, sleep_begins);
	sc_net_pump_all(t);
	sc_net_feed(t);
	if (!sc_epoll_ready(e))
		n = native_wait(epfd, ev, max, deadline, mask);
	each_chan(t, sc_net_disarm);
	__atomic_fetch_sub(&e->waiting, 1, __ATOMIC_SEQ_CST);
	return n > 0 ? filter(ev, n) : n;
}

/* ticks that a wait spins for marks before it sleeps; relaxed, a hint */
static uint32_t spin_limit;

static bool spin(struct sc_thread *t)
{
	uint64_t start = __builtin_ia32_rdtsc();
	uint32_t limit = __atomic_load_n(&spin_limit, __ATOMIC_RELAXED);

	do {
		if (marks(t))
			return true;
		for (int i = 0; i < 8; i++)
			__builtin_ia32_pause();
	} while (__builtin_ia32_rdtsc() - start < limit);
	return false;
}

static void spin_learn(struct sc_thread *t, uint64_t took)
{
	uint32_t limit = __atomic_load_n(&spin_limit, __ATOMIC_RELAXED), max = 0;

	for (uint32_t i = 0; i < sc_ndoms; i++) {
		struct sc_chan *c = sc_chan_of(t, &sc_doms[i]);

		if (c && c->net)
			max = c->spin_max;
	}
	if (took > 8ull * max)
		limit /= 2;
	else
		limit = limit < max / 8 ? max / 8 : 2 * limit < max ? 2 * limit : max;
	__atomic_store_n(&spin_limit, limit, __ATOMIC_RELAXED);
}

static long wait_for(struct sc_thread *t, struct sc_epoll *e, int epfd, struct epoll_event *ev,
		     uint32_t max, uint64_t deadline, const struct sc_wait_mask *mask)
{
	uint64_t start = __builtin_ia32_rdtsc();
	long n = bells_in(t, e, epfd);

	if (n)
		return n;
	n = wait_now(t, e, epfd, ev, max);
	if (n || !deadline)
		return n;
	if (spin(t)) {
		n = wait_now(t, e, epfd, ev, max);
		if (n)
			return n;
	}
	((struct sc_serve_thread *)t->serve)->counts.sleeps++;
	for (;;) {
		n = nap(t, e, epfd, ev, max, deadline, mask);
		if (n < 0)
			return n;
		if ((uint32_t)n < max)
			n += collect(e, ev + n, max - (uint32_t)n);
		if (n) {
			spin_learn(t, __builtin_ia32_rdtsc() - start);
			return n;
		}
		look_at_domains(
		    t, true); /* nothing for the program: perhaps the broker has said something */
		n = bells_in(t, e, epfd);
		if (n)
			return n;
		if (deadline != SC_NET_FOREVER && sc_now_us() >= deadline)
			return 0;
		if (sc_signal_waits(t))
			return -EINTR;
	}
}

/* The checks of the kernel, then the wait, in scratch memory. */
static long epoll_wait_any(struct sc_thread *t, const struct sc_call *c, uint64_t deadline,
			   const struct sc_wait_mask *mask)
{
	struct sc_serve_thread *st = sc_serve_of(t);
	int max = sc_int(c->a[2]);
	struct epoll_event *ev;
	long n;

	if (max <= 0 || (uint32_t)max > INT32_MAX / sizeof(*ev))
		return -EINVAL;
	if (!sc_user_range((void *)c->a[1], (uint64_t)max * sizeof(*ev)))
		return -EFAULT;
	if (!st)
		return -ENOMEM;
	ev = (struct epoll_event *)st->scratch;
	n = wait_for(t, c->file->net, sc_int(c->a[0]), ev,
		     (uint32_t)max < BATCH ? (uint32_t)max : BATCH, deadline, mask);
	if (n > 0 && sc_copy_to_user((void *)c->a[1], ev, (size_t)n * sizeof(*ev)))
		return -EFAULT;
	return n;
}

static uint64_t deadline_ms(long ms)
{
	int v = sc_int(ms);

	return v < 0 ? SC_NET_FOREVER : v == 0 ? 0 : sc_net_deadline((uint64_t)v * 1000);
}

long call_epoll_wait(struct sc_thread *t, const struct sc_call *c)
{
	return epoll_wait_any(t, c, deadline_ms(c->a[3]), NULL);
}

static long with_mask(struct sc_thread *t, const struct sc_call *c, uint64_t deadline)
{
	struct sc_wait_mask m;
	uint64_t set;
	long res;

	if (!c->a[4])
		return epoll_wait_any(t, c, deadline, NULL);
	if (c->a[5] != SIGSET_SIZE)
		return -EINVAL;
	if (sc_copy_from_user(&set, (const void *)c->a[4], sizeof(set)))
		return -EFAULT;
	sc_wait_mask_begin(t, &m, set);
	res = epoll_wait_any(t, c, deadline, &m);
	sc_wait_mask_end(t, &m, res);
	return res;
}

long call_epoll_pwait(struct sc_thread *t, const struct sc_call *c)
{
	return with_mask(t, c, deadline_ms(c->a[3]));
}

long call_epoll_pwait2(struct sc_thread *t, const struct sc_call *c)
{
	uint64_t deadline = SC_NET_FOREVER;
	struct timespec ts;

	if (c->a[3]) {
		if (sc_copy_from_user(&ts, (const void *)c->a[3], sizeof(ts)))
			return -EFAULT;
		if (ts.tv_sec < 0 || ts.tv_nsec < 0 || ts.tv_nsec >= 1000000000L)
			return -EINVAL;
		deadline = ts.tv_sec || ts.tv_nsec
			       ? sc_net_deadline((uint64_t)ts.tv_sec * 1000000 +
						 ((uint64_t)ts.tv_nsec + 999) / 1000)
			       : 0;
	}
	return with_mask(t, c, deadline);
}
