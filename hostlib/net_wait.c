/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_wait.c - readiness of sockets, and waiting for it.
 *
 * Theory of operation
 *
 * Readiness is computed from the words of the socket's object: nobody is asked. To wait, a thread says so in the object
 * (`watch`, and `tx_wait` for room), hangs a waiter with its bell (an eventfd of its own) on each socket, and itself on the
 * list of each channel's sleepers; then it arms the channel's net area, takes the marks that are there, looks once more, and
 * sleeps in ppoll on its bell and whatever local descriptors the program named.
 *
 * The doorbell is one eventfd a channel. As with lanes (lane.c), one sleeper leads: it polls the doorbell, too, and when that
 * rings takes the agent's marks (pump()) and rings the bells of those who wait for the marked sockets. Leadership is shared with the
 * threads that wait for lanes. Whoever stops sleeping sees to it that another sleeper leads, and arms anew if others sleep: the agent
 * rings once per arming.
 *
 * Threads in epoll_wait lead themselves: the doorbell is in the kernel's epoll instance (calls_epoll.c).
 *
 * While the domain is absent (its incarnation is 0: the broker tells by a message on its socket, which the leader polls, too), sleeps
 * are short, and in between somebody looks whether the recovery timeout has passed.
 *
 * Marks are hints. They may be missing or too many, if the agent is hostile: then a thread wakes for nothing, or sleeps
 * until its time-out or a signal, as it would with a peer that is silent.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "libfd.h"
#include "net.h"
#include "process.h"

#define IN_BITS	    (POLLIN | POLLRDNORM)
#define OUT_BITS    (POLLOUT | POLLWRNORM)
#define DGRAM_OUT   (OUT_BITS | POLLWRBAND)
#define ALWAYS	    (POLLERR | POLLHUP)
#define SPIN_LOST   8u
#define FEW	    32u /* descriptors of a poll for which no memory is mapped */
#define EXTRA	    (1 + 2 * SC_MAX_DOMAINS) /* bell, doorbells, brokers' sockets */
#define ABSENT_TOLD 1u			     /* absent_us: for too long, and that was told */
#define POLL_SPINS  64u			     /* looks at each socket before poll sleeps */

/* ---- time ---- */

uint64_t sc_now_us(void)
{
	struct timespec ts;

	sc_sys2(__NR_clock_gettime, CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t sc_net_deadline(uint64_t us)
{
	uint64_t now = sc_now_us();

	return us >= SC_NET_FOREVER - now ? SC_NET_FOREVER : now + us;
}

/* Microseconds until a deadline. */
static uint64_t left_us(uint64_t deadline)
{
	uint64_t now = deadline == SC_NET_FOREVER ? 0 : sc_now_us();

	return now < deadline ? deadline - now : 0;
}

/* What is left until a deadline, for ppoll; NULL: for ever. */
static struct timespec *left(uint64_t deadline, struct timespec *ts)
{
	uint64_t us = left_us(deadline);

	if (deadline == SC_NET_FOREVER)
		return NULL;
	ts->tv_sec = (long)(us / 1000000);
	ts->tv_nsec = (long)(us % 1000000) * 1000;
	return ts;
}

/* ---- readiness ---- */

static uint32_t load(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

/* Bytes in the receive ring; the whole of it if the agent lies (reading will find out). */
static uint32_t rx_bytes(const struct sc_nsock *s)
{
	uint32_t n = load(&s->sh->rx_tail) - __atomic_load_n(&s->sh->rx_head, __ATOMIC_RELAXED);

	return n <= s->rx_size ? n : s->rx_size;
}

static uint32_t tx_room(const struct sc_nsock *s)
{
	uint32_t n = __atomic_load_n(&s->sh->tx_tail, __ATOMIC_RELAXED) - load(&s->sh->tx_head);

	return n <= s->tx_size ? s->tx_size - n : s->tx_size;
}

static bool error_pends(const struct sc_nsock *s)
{
	return load(&s->sh->err_seq) != __atomic_load_n(&s->sh->err_taken, __ATOMIC_RELAXED);
}

/* As the kernel's tcp_poll(). */
static uint32_t stream_events(const struct sc_nsock *s)
{
	uint32_t state = load(&s->sh->state), flags = load(&s->sh->flags), mask = 0;
	uint32_t low = __atomic_load_n(&sc_sock_host(s)->rcvlowat, __ATOMIC_RELAXED), n;

	if (state == SC_SOCK_LISTEN)
		return rx_bytes(s) ? IN_BITS : 0;
	if (error_pends(s))
		mask |= POLLERR;
	if (state == SC_SOCK_CONNECTING)
		return mask;
	if (state != SC_SOCK_CONNECTED || (flags & (SC_SOCK_F_RX_EOF | SC_SOCK_F_TX_CLOSED)) ==
					      (SC_SOCK_F_RX_EOF | SC_SOCK_F_TX_CLOSED))
		mask |= POLLHUP;
	if (flags & SC_SOCK_F_RX_EOF)
		mask |= IN_BITS | POLLRDHUP;
	n = rx_bytes(s);
	if (n && (n >= low || n == s->rx_size))
		mask |= IN_BITS;
	if (flags & SC_SOCK_F_TX_CLOSED || tx_room(s) >= s->tx_size / 3)
		mask |= OUT_BITS;
	return mask;
}

static uint32_t dgram_events(const struct sc_nsock *s)
{
	uint32_t flags = load(&s->sh->flags), mask = 0;

	if (error_pends(s))
		mask |= POLLERR;
	if (flags & SC_SOCK_F_RX_EOF)
		mask |= IN_BITS | POLLRDHUP;
	if ((flags & (SC_SOCK_F_RX_EOF | SC_SOCK_F_TX_CLOSED)) ==
	    (SC_SOCK_F_RX_EOF | SC_SOCK_F_TX_CLOSED))
		mask |= POLLHUP;
	if (rx_bytes(s))
		mask |= IN_BITS;
	if (tx_room(s) >= s->tx_size / 2)
		mask |= DGRAM_OUT;
	return mask;
}

void sc_net_watch(struct sc_nsock *s)
{
	if (s->sh && !__atomic_load_n(&s->sh->watch, __ATOMIC_RELAXED))
		/* seq_cst: before the look that follows */
		__atomic_store_n(&s->sh->watch, 1, __ATOMIC_SEQ_CST);
}

uint32_t sc_net_events(struct sc_nsock *s, uint32_t asked, bool arm)
{
	uint32_t mask;

	if (!s->sh)
		return POLLERR | POLLHUP;
	if (arm) {
		if (!__atomic_load_n(&s->sh->watch, __ATOMIC_RELAXED))
			__atomic_store_n(&s->sh->watch, 1, __ATOMIC_RELAXED);
		if (asked & DGRAM_OUT)
			__atomic_store_n(&s->sh->tx_wait, 1, __ATOMIC_RELAXED);
		/* full fence: the agent publishes, fences, then loads watch and tx_wait */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	}
	mask = s->type == SOCK_STREAM ? stream_events(s) : dgram_events(s);
	if (arm && asked & mask & OUT_BITS)
		__atomic_store_n(&s->sh->tx_wait, 0, __ATOMIC_RELAXED);
	return mask & (asked | ALWAYS);
}

/* ---- bells and waiters ---- */

int sc_net_bell(struct sc_thread *t)
{
	struct sc_serve_thread *st = sc_serve_of(t);
	long fd;

	if (!st)
		return -ENOMEM;
	if (st->bell > 0)
		return st->bell;
	fd = sc_sys2(__NR_eventfd2, 0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd < 0)
		return (int)fd;
	fd = sc_libfd_move((int)fd);
	if (fd > 0)
		st->bell = (int)fd;
	return (int)fd;
}

static void ring(int bell)
{
	uint64_t one = 1;

	sc_sys3(__NR_write, bell, &one, sizeof(one));
}

static void waiter_add(struct sc_waiter **list, struct sc_waiter *w, int bell)
{
	w->bell = bell;
	w->next = *list;
	w->link = list;
	if (w->next)
		w->next->link = &w->next;
	*list = w;
}

static void waiter_del(struct sc_waiter *w)
{
	*w->link = w->next;
	if (w->next)
		w->next->link = w->link;
}

static void wait_on(struct sc_nsock *s, struct sc_waiter *w, int bell)
{
	w->sock = s;
	sc_nsock_hold(s);
	sc_mutex_lock(&s->lock);
	waiter_add(&s->waiters, w, bell);
	sc_mutex_unlock(&s->lock);
}

static void wait_off(struct sc_waiter *w)
{
	sc_mutex_lock(&w->sock->lock);
	waiter_del(w);
	sc_mutex_unlock(&w->sock->lock);
	sc_nsock_put(w->sock);
}

/* ---- marks ---- */

/* A marked socket: rings the bells of those who wait for it, but not one's own. */
static void notify(struct sc_nsock *s, int own_bell)
{
	sc_mutex_lock(&s->lock);
	for (struct sc_waiter *w = s->waiters; w; w = w->next)
		if (w->bell != own_bell)
			ring(w->bell);
	if (s->items)
		sc_epoll_notify(s);
	sc_mutex_unlock(&s->lock);
}

static void take_word(struct sc_netchan *nc, uint32_t w, int own_bell)
{
	/* acquire: what the agent published before it set the bits is visible */
	uint64_t bits = __atomic_exchange_n(&nc->area->event[w], 0, __ATOMIC_ACQ_REL);

	for (; bits; bits &= bits - 1) {
		struct sc_nsock *s = nc->map[w * 64 + (uint32_t)__builtin_ctzll(bits)];

		if (!s)
			continue;
		if (s->sh && load(&s->sh->state) == SC_SOCK_LISTEN &&
		    load(&s->sh->flags) & SC_SOCK_F_WANT_SEGMENT)
			__atomic_store_n(&nc->wants, 1, __ATOMIC_RELAXED);
		notify(s, own_bell);
	}
}

static void pump(struct sc_netchan *nc, int own_bell)
{
	bool locked = false;

	for (uint32_t i = 0; i < SC_NET_SUMS; i++) {
		uint64_t sum;

		if (!__atomic_load_n(&nc->area->event_sum[i], __ATOMIC_RELAXED))
			continue;
		if (!locked)
			sc_mutex_lock(&nc->lock);
		locked = true;
		sum = __atomic_exchange_n(&nc->area->event_sum[i], 0, __ATOMIC_ACQ_REL);
		for (; sum; sum &= sum - 1)
			take_word(nc, i * 64 + (uint32_t)__builtin_ctzll(sum), own_bell);
	}
	if (locked)
		sc_mutex_unlock(&nc->lock);
}

static int own_bell(const struct sc_thread *t)
{
	const struct sc_serve_thread *st = t->serve;

	return st ? st->bell : 0;
}

void sc_net_pump(struct sc_thread *t, struct sc_netchan *nc)
{
	pump(nc, own_bell(t));
}

void sc_net_pump_all(struct sc_thread *t)
{
	for (uint32_t i = 0; i < sc_ndoms; i++) {
		struct sc_chan *c = sc_chan_of(t, &sc_doms[i]);
		struct sc_netchan *nc = c ? __atomic_load_n(&c->net, __ATOMIC_ACQUIRE) : NULL;

		if (nc)
			pump(nc, own_bell(t));
	}
}

void sc_net_feed(struct sc_thread *t)
{
	for (uint32_t i = 0; i < sc_ndoms; i++) {
		struct sc_chan *c = sc_chan_of(t, &sc_doms[i]);
		struct sc_netchan *nc = c ? __atomic_load_n(&c->net, __ATOMIC_ACQUIRE) : NULL;
		struct sc_hlane *l;

		if (nc && sc_net_changed(nc))
			sc_net_resume(t, nc);
		if (!nc || !__atomic_load_n(&nc->wants, __ATOMIC_RELAXED) ||
		    !__atomic_exchange_n(&nc->wants, 0, __ATOMIC_RELAXED))
			continue;
		if (sc_lane_get(t, &sc_doms[i], &l))
			continue;
		sc_netmem_more(t, l, 0);
		sc_lane_put(t, l);
	}
}

void sc_net_kicked(struct sc_chan *c)
{
	pump(c->net, 0);
}

/* ---- absence ---- */

/*
 * Ends a socket as its agent would, which is gone: a connection is reset; others have an error, or (`all`) are over, too. Lines of
 * the agent's are written for it: a new incarnation that knows the socket finds them so, and resets the peer.
 */
static void lose(struct sc_nsock *s, bool all)
{
	struct sc_sock *sh = s->sh;
	uint32_t state = load(&sh->state);
	bool ends = all || state == SC_SOCK_CONNECTING || state == SC_SOCK_CONNECTED;

	if ((s->type == SOCK_STREAM && !ends) || state == SC_SOCK_CLOSED)
		return;
	ends = all || s->type == SOCK_STREAM;
	__atomic_store_n(&sh->error, ends ? ECONNRESET : ENETDOWN, __ATOMIC_RELAXED);
	/* release: the error before its number, flags before the state */
	__atomic_fetch_add(&sh->err_seq, 1, __ATOMIC_RELEASE);
	if (!ends)
		return;
	__atomic_fetch_or(&sh->flags, SC_SOCK_F_RX_EOF | SC_SOCK_F_TX_CLOSED | SC_SOCK_F_RESET,
			  __ATOMIC_RELEASE);
	__atomic_store_n(&sh->state, SC_SOCK_CLOSED, __ATOMIC_RELEASE);
}

void sc_net_lose(struct sc_netchan *nc, bool all)
{
	sc_mutex_lock(&nc->lock);
	for (uint32_t i = 0; i < SC_NET_SOCKETS; i++)
		if (nc->map[i] && nc->map[i]->sh) {
			lose(nc->map[i], all);
			notify(nc->map[i], 0);
		}
	sc_mutex_unlock(&nc->lock);
}

bool sc_net_absent(struct sc_netchan *nc)
{
	uint64_t since = __atomic_load_n(&nc->absent_us, __ATOMIC_RELAXED), now;

	if (__atomic_load_n(&nc->chan->host->incarnation, __ATOMIC_ACQUIRE)) {
		if (since)
			__atomic_store_n(&nc->absent_us, 0, __ATOMIC_RELAXED);
		return false;
	}
	now = sc_now_us();
	if (!since)
		__atomic_store_n(&nc->absent_us, since = now, __ATOMIC_RELAXED);
	if (since != ABSENT_TOLD && now - since >= 1000ull * nc->chan->deadline_ms) {
		__atomic_store_n(&nc->absent_us, ABSENT_TOLD, __ATOMIC_RELAXED);
		sc_net_lose(nc, false);
	}
	return true;
}

/* ---- who sleeps and who leads ---- */

void sc_net_arm(struct sc_netchan *nc)
{
	/* seq_cst: the agent sets bits, fences, then loads arm; we take the bits after this */
	__atomic_fetch_add(&nc->area->arm, 1, __ATOMIC_SEQ_CST);
}

void sc_net_pass(struct sc_chan *c)
{
	struct sc_netchan *nc = c->net;

	sc_mutex_lock(&nc->lock);
	if (nc->sleepers)
		ring(nc->sleepers->bell);
	sc_mutex_unlock(&nc->lock);
}

/* Those who sleep on need to be told of what comes from now on. */
void sc_net_disarm(struct sc_thread *t, struct sc_netchan *nc)
{
	if (__atomic_sub_fetch(&nc->nsleep, 1, __ATOMIC_SEQ_CST) == 0)
		return;
	sc_net_arm(nc);
	pump(nc, own_bell(t));
}

/* A thread that sleeps for sockets of one channel. */
struct sleeper {
	struct sc_netchan *nc;
	struct sc_waiter w; /* on nc->sleepers */
	bool leads;	    /* during one nap */
};

static void sleeper_on(struct sleeper *s, struct sc_netchan *nc, int bell)
{
	s->nc = nc;
	s->leads = false;
	__atomic_fetch_add(&nc->nsleep, 1, __ATOMIC_SEQ_CST);
	sc_mutex_lock(&nc->lock);
	waiter_add(&nc->sleepers, &s->w, bell);
	sc_mutex_unlock(&nc->lock);
}

static void sleeper_off(struct sc_thread *t, struct sleeper *s)
{
	struct sc_chan *c = s->nc->chan;

	sc_mutex_lock(&s->nc->lock);
	waiter_del(&s->w);
	sc_mutex_unlock(&s->nc->lock);
	sc_net_disarm(t, s->nc);
	if (__atomic_load_n(&c->leader, __ATOMIC_SEQ_CST) == 0) {
		sc_net_pass(c);
		sc_lane_pass(c);
	}
}

static void lead_begin(struct sleeper *s, struct pollfd *p)
{
	struct sc_chan *c = s->nc->chan;
	uint32_t nobody = 0;

	s->leads = __atomic_compare_exchange_n(&c->leader, &nobody, 1, false, __ATOMIC_SEQ_CST,
					       __ATOMIC_RELAXED);
	p[0] = (struct pollfd){.fd = s->leads ? c->kick : -1, .events = POLLIN};
	p[1] = (struct pollfd){.fd = s->leads && !c->orphan ? c->sock : -1, .events = POLLIN};
}

static void lead_end(struct sc_thread *t, struct sleeper *s, const struct pollfd *p)
{
	struct sc_chan *c = s->nc->chan;
	uint64_t count;

	if (!s->leads)
		return;
	if (p[0].revents & POLLIN) {
		sc_sys3(__NR_read, c->kick, &count, sizeof(count));
		sc_lane_wake(c);
		pump(s->nc, own_bell(t));
	}
	if (p[1].revents)
		sc_chan_events(c);
	__atomic_store_n(&c->leader, 0, __ATOMIC_SEQ_CST);
}

/*
 * One sleep. p: n entries of the program's, with room for EXTRA more. Returns what ppoll returned for the program's
 * entries (0 if only our own descriptors were ready).
 */
static long nap(struct sc_thread *t, struct sleeper *s, uint32_t ns, struct pollfd *p, uint32_t n,
		uint64_t deadline, const struct sc_wait_mask *mask)
{
	struct pollfd *own = p + n;
	struct timespec ts;
	uint64_t count;
	long res;

	own[0] = (struct pollfd){.fd = own_bell(t), .events = POLLIN};
	for (uint32_t i = 0; i < ns; i++) {
		lead_begin(&s[i], own + 1 + 2 * i);
		if (sc_net_absent(s[i].nc) && left_us(deadline) > SC_NET_ABSENT_US)
			deadline = sc_net_deadline(SC_NET_ABSENT_US);
	}
	res = sc_raw_syscall_interruptible(__NR_ppoll, (long)p, n + 1 + 2 * ns,
					   (long)left(deadline, &ts),
					   (long)(mask ? &mask->now : NULL), 8, 0);
	if (res > 0) {
		for (uint32_t i = 0; i < 1 + 2 * ns; i++)
			res -= own[i].revents != 0;
		if (own[0].revents)
			sc_sys3(__NR_read, own[0].fd, &count, sizeof(count));
	} else {
		for (uint32_t i = 0; i < 1 + 2 * ns; i++)
			own[i].revents = 0;
	}
	for (uint32_t i = 0; i < ns; i++)
		lead_end(t, &s[i], own + 1 + 2 * i);
	return res;
}

/* ---- waiting for one socket ---- */

/* How long spinning has proved useful in waits for sockets; ticks; relaxed, a hint. */
static uint32_t spin_limit;
static bool spin_known;

static bool spin_for(struct sc_chan *c, struct sc_nsock *s, uint32_t events)
{
	uint64_t start = __builtin_ia32_rdtsc();
	uint32_t limit;

	if (!spin_known) {
		spin_known = true;
		__atomic_store_n(&spin_limit, c->spin_max, __ATOMIC_RELAXED);
	}
	limit = __atomic_load_n(&spin_limit, __ATOMIC_RELAXED);
	do {
		if (sc_net_events(s, events, false))
			return true;
		for (int i = 0; i < 8; i++)
			__builtin_ia32_pause();
	} while (__builtin_ia32_rdtsc() - start < limit);
	return false;
}

static void spin_learn(struct sc_chan *c, uint64_t took)
{
	uint32_t limit = __atomic_load_n(&spin_limit, __ATOMIC_RELAXED), max = c->spin_max;

	if (took > (uint64_t)SPIN_LOST * max)
		limit /= 2;
	else
		limit = limit < max / 8 ? max / 8 : 2 * limit < max ? 2 * limit : max;
	__atomic_store_n(&spin_limit, limit, __ATOMIC_RELAXED);
}

static long sleep_for(struct sc_thread *t, struct sc_netchan *nc, struct sc_nsock *s,
		      uint32_t events, uint64_t deadline)
{
	struct pollfd p[EXTRA];
	struct sleeper sl;
	struct sc_waiter w;
	int bell = sc_net_bell(t);
	long res;

	if (bell < 0)
		return bell;
	((struct sc_serve_thread *)t->serve)->counts.sleeps++;
	wait_on(s, &w, bell);
	sleeper_on(&sl, nc, bell);
	for (;;) {
		sc_net_arm(nc);
		pump(nc, bell);
		sc_net_feed(t);
		res = 0;
		if (sc_net_events(s, events, true))
			break;
		res = -EAGAIN;
		if (deadline != SC_NET_FOREVER && sc_now_us() >= deadline)
			break;
		res = nap(t, &sl, 1, p, 0, deadline, NULL);
		if (res == -EINTR && sc_signal_waits(t)) {
			res = -SC_ERESTART;
			break;
		}
	}
	wait_off(&w);
	sleeper_off(t, &sl);
	return res;
}

long sc_net_wait(struct sc_thread *t, struct sc_netchan *nc, struct sc_nsock *s, uint32_t events,
		 uint64_t deadline)
{
	uint64_t start = __builtin_ia32_rdtsc();
	long res;

	if (spin_for(nc->chan, s, events))
		return 0;
	res = sleep_for(t, nc, s, events, deadline);
	if (res == 0)
		spin_learn(nc->chan, __builtin_ia32_rdtsc() - start);
	return res;
}

/* ---- waiting for many ---- */

/* A poll under way. */
struct many {
	struct sc_thread *t;
	struct pollfd *p;
	uint32_t n;
	struct sc_waiter *w; /* one for each entry */
	const struct sc_wait_mask *mask;
	uint32_t nsleep;
	struct sleeper sl[SC_MAX_DOMAINS];
};

/* How an entry that is not the kernel's to poll is hidden from it: negative, and not -1. Its own inverse. */
static int hidden(int fd)
{
	return -2 - fd;
}

/* What is at the descriptor of the program's entry i. */
static struct sc_file *entry(const struct many *m, uint32_t i)
{
	int fd = m->p[i].fd;

	return fd == -1 ? NULL : sc_fd_any(m->t, fd < 0 ? hidden(fd) : fd);
}

static struct sc_file *sock_entry(const struct many *m, uint32_t i)
{
	struct sc_file *f = m->p[i].fd < -1 ? entry(m, i) : NULL;

	return f && f->kind == SC_KIND_SOCK ? f : NULL;
}

/* Hides what the kernel cannot poll from it. */
static void hide(struct many *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct sc_file *f = m->p[i].fd < 0 ? NULL : sc_fd_any(m->t, m->p[i].fd);

		if (m->p[i].fd < 0)
			m->p[i].fd = -1;
		if (f && (f->kind == SC_KIND_FILE || f->kind == SC_KIND_SOCK))
			m->p[i].fd = hidden(m->p[i].fd);
	}
}

static uint32_t file_events(const struct sc_file *f, uint32_t asked)
{
	if (f->oflags & O_PATH)
		return POLLNVAL;
	return asked & (POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
}

/* Events of entries that are ours, into revents (with those the kernel found elsewhere left alone). Their number. */
static long look(struct many *m, bool arm)
{
	long ready = 0;

	for (uint32_t i = 0; i < m->n; i++) {
		struct pollfd *p = &m->p[i];
		struct sc_file *f = entry(m, i);
		uint32_t asked = (uint16_t)p->events;

		if (!f || f->kind == SC_KIND_FRESH)
			continue;
		if (f->kind == SC_KIND_EPOLL) {
			if (!p->revents && sc_epoll_ready(f->net))
				p->revents = (short)(asked & IN_BITS);
			else
				continue;
		} else if (f->kind == SC_KIND_FILE) {
			p->revents = (short)file_events(f, asked);
		} else {
			p->revents = (short)sc_net_events(sc_nsock_of(f), asked, arm);
		}
		ready += p->revents != 0;
	}
	return ready;
}

static void sleepers_on(struct many *m, int bell)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct sc_file *f = sock_entry(m, i);
		struct sc_netchan *nc;
		uint32_t k;

		m->w[i].sock = NULL;
		if (!f || sc_net_enter(m->t, f, &nc))
			continue;
		wait_on(sc_nsock_of(f), &m->w[i], bell);
		for (k = 0; k < m->nsleep && m->sl[k].nc != nc; k++)
			;
		if (k == m->nsleep)
			sleeper_on(&m->sl[m->nsleep++], nc, bell);
	}
}

static void sleepers_off(struct many *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (m->w[i].sock)
			wait_off(&m->w[i]);
	for (uint32_t k = 0; k < m->nsleep; k++)
		sleeper_off(m->t, &m->sl[k]);
}

static long sleep_many(struct many *m, uint64_t deadline)
{
	int bell = sc_net_bell(m->t);
	long ready;

	if (bell < 0)
		return bell;
	m->nsleep = 0;
	((struct sc_serve_thread *)m->t->serve)->counts.sleeps++;
	sleepers_on(m, bell);
	for (;;) {
		long native;

		for (uint32_t k = 0; k < m->nsleep; k++) {
			sc_net_arm(m->sl[k].nc);
			pump(m->sl[k].nc, bell);
		}
		sc_net_feed(m->t);
		ready = look(m, true);
		if (ready)
			break;
		native = nap(m->t, m->sl, m->nsleep, m->p, m->n, deadline, m->mask);
		ready = native;
		if (native < 0)
			break;
		ready += look(m, false);
		if (ready || (deadline != SC_NET_FOREVER && sc_now_us() >= deadline))
			break;
	}
	sleepers_off(m);
	return ready;
}

/* Without waiting. */
static long poll_now(struct many *m)
{
	long native = sc_sys3(__NR_poll, m->p, m->n, 0);

	if (native == -EINTR)
		native = 0;
	return native < 0 ? native : native + look(m, false);
}

static long poll_with(struct many *m, uint64_t deadline)
{
	long ready;

	hide(m);
	for (uint32_t i = 0; i < m->n; i++) {
		struct sc_file *f = sock_entry(m, i);
		struct sc_netchan *nc;

		if (f)
			sc_net_enter(m->t, f, &nc); /* what cannot be entered has POLLERR */
	}
	ready = poll_now(m);
	for (uint32_t k = 0; !ready && deadline && k < POLL_SPINS; k++) {
		__builtin_ia32_pause();
		ready = look(m, false);
		if (ready)
			ready = poll_now(m);
	}
	if (ready || !deadline)
		return ready;
	ready = sleep_many(m, deadline);
	return ready > 0 ? poll_now(m) : ready; /* all that is ready by now */
}

bool sc_net_concerns(struct sc_thread *t, const struct pollfd *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct sc_file *f = p[i].fd < 0 ? NULL : sc_fd_any(t, p[i].fd);

		if (f && (f->kind == SC_KIND_SOCK || f->kind == SC_KIND_EPOLL))
			return true;
	}
	return false;
}

long sc_net_poll(struct sc_thread *t, struct pollfd *p, uint32_t n, uint64_t deadline,
		 const struct sc_wait_mask *mask)
{
	struct many m = {.t = t, .n = n, .mask = mask};
	struct pollfd few_p[FEW + EXTRA];
	struct sc_waiter few_w[FEW];
	uint64_t bytes = (n + EXTRA) * sizeof(*p) + n * sizeof(struct sc_waiter);
	uint8_t *mem = n > FEW ? sc_map(bytes) : NULL;
	long res;

	if (n > FEW && !mem)
		return -ENOMEM;
	m.w = mem ? (struct sc_waiter *)mem : few_w;
	m.p = mem ? (struct pollfd *)(m.w + n) : few_p;
	memcpy(m.p, p, n * sizeof(*p));
	res = poll_with(&m, deadline);
	for (uint32_t i = 0; i < n; i++)
		p[i].revents = m.p[i].revents;
	if (mem)
		sc_unmap(mem, bytes);
	return res;
}
