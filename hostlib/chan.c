/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * chan.c - attaching to domains, and what comes with an attachment: the channel's mapping, tickets, the broker's messages.
 *
 * Theory of operation
 *
 * Domains named by routes are known from the start; a channel is asked for at the first remote call (scrun has checked
 * before that the domain can be reached, and said so if not). A channel's structure counts its users: the domain itself
 * while it is the current one, each lane held, each vfork child. The last one unmaps it. Whoever finds that the current
 * channel is not the one whose lane it holds takes a lane of the new one (lane.c).
 *
 * The mapping is excluded from fork (MADV_DONTFORK); the child forgets it, closes the library's descriptors, and attaches
 * for itself when it makes its first call. A vfork child uses its parent's channel; if there is none yet it attaches one
 * of its own, which the parent gives up afterwards, because the descriptors that belong to it were in the child's table.
 *
 * Everything received on the attach socket is from the broker, which runs with privileges and is trusted as far as the
 * layout goes; lengths and counts are checked all the same.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "chan-priv.h"
#include "kstat.h"
#include "libfd.h"
#include "net.h"
#include "process.h"

#include <vhost-sc/wire.h>

#define RUNDIR		"/run/vhost-sc"
#define ATTACH_WAIT_MS	10000u /* for a domain that is starting */
#define REPLY_MS	20000u /* for an answer of the broker, beyond that */
#define TICKETS_FIRST	4u
#define SPIN_MAX_US	60u
#define DEADLINE_MIN_MS 50u
#define DEADLINE_MAX_MS 600000u
#define GONE_MS		300000u /* so long may a domain be gone whose broker has not told */
#define RETRY_MS	100u	/* between looks for it */
#define RECOVERY_MAX_S	86400u

SC_FORK_DATA struct sc_dom sc_doms[SC_MAX_DOMAINS];
uint32_t sc_ndoms;

static uint32_t chan_gen; /* atomic */
static char rundir[96] = RUNDIR;
static uint32_t recovery_ms =
    UINT32_MAX; /* VHOST_SC_RECOVERY_TIMEOUT; UINT32_MAX: not given. Constant after the start */

void sc_chan_set_recovery(const char *seconds)
{
	uint32_t s = 0;
	const char *p = seconds;

	for (; *p >= '0' && *p <= '9' && s <= RECOVERY_MAX_S; p++)
		s = s * 10 + (uint32_t)(*p - '0');
	if (p != seconds && !*p)
		recovery_ms = (s < RECOVERY_MAX_S ? s : RECOVERY_MAX_S) * 1000;
}

/* So long may the domain be gone before calls fail. */
static uint32_t gone_ms(const struct sc_dom *d)
{
	if (recovery_ms != UINT32_MAX)
		return recovery_ms;
	return d->deadline_ms ? d->deadline_ms : GONE_MS;
}

void sc_chan_set_rundir(const char *dir)
{
	size_t n = strlen(dir);

	if (n && n < sizeof(rundir))
		memcpy(rundir, dir, n + 1);
}

const char *sc_chan_rundir(void)
{
	return rundir;
}

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

struct sc_dom *sc_dom_named(const char *name, uint32_t len)
{
	struct sc_dom *d;

	if (len == 0 || len >= sizeof(d->name) || name[0] == '.')
		return NULL;
	for (uint32_t i = 0; i < len; i++)
		if (!name_char(name[i]))
			return NULL;
	for (uint32_t i = 0; i < sc_ndoms; i++)
		if (strlen(sc_doms[i].name) == len && memcmp(sc_doms[i].name, name, len) == 0)
			return &sc_doms[i];
	if (sc_ndoms == SC_MAX_DOMAINS)
		return NULL;
	d = &sc_doms[sc_ndoms];
	memcpy(d->name, name, len);
	d->index = sc_ndoms++;
	return d;
}

struct sc_chan *sc_chan_of(struct sc_thread *t, struct sc_dom *d)
{
	struct sc_proc *p = t->proc;

	if (p && p->vforked)
		return p->vchan[d->index];
	return __atomic_load_n(&d->chan, __ATOMIC_ACQUIRE);
}

/* ---- messages ---- */

/* Receives one message, with at most max descriptors, which go to fds. Returns its length, or -errno. */
static long msg_recv(int sock, void *buf, size_t size, int *fds, uint32_t max, uint32_t *nfds,
		     int flags)
{
	union {
		char room[CMSG_SPACE((SC_TICKETS_BATCH + 3) * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	long n = sc_sys3(__NR_recvmsg, sock, &m, MSG_CMSG_CLOEXEC | flags);

	*nfds = 0;
	if (n <= 0)
		return n ? n : -EPIPE;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		uint32_t count = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (uint32_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (*nfds < max)
				fds[(*nfds)++] = fd;
			else
				sc_sys1(__NR_close, fd);
		}
	}
	return n;
}

static void close_fds(const int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		sc_sys1(__NR_close, fds[i]);
}

/* Moves descriptors out of the program's way; on failure all are closed. */
static long move_fds(int *fds, uint32_t n, uint32_t base)
{
	long err = 0;

	for (uint32_t i = 0; i < n; i++) {
		fds[i] = sc_libfd_move_raised(fds[i], base);
		if (fds[i] < 0)
			err = fds[i];
	}
	if (!err)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		sc_libfd_close(fds[i]);
	return err;
}

static long wait_readable(int sock, uint32_t ms)
{
	uint64_t end = sc_now_ms() + ms;

	for (;;) {
		uint64_t now = sc_now_ms();
		uint64_t left = now < end ? end - now : 0;
		struct timespec ts = {.tv_sec = (long)(left / 1000),
				      .tv_nsec = (long)(left % 1000) * 1000000l};
		struct pollfd p = {.fd = sock, .events = POLLIN};
		long n = sc_sys6(__NR_ppoll, &p, 1, &ts, 0, 8, 0);

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (n != -EINTR)
			return n;
	}
}

/* An event replaces the eventfds in place, so that sleeping and ringing threads need not know. */
static void take_event(struct sc_chan *c, const struct sc_attach_event *e, int *fds, uint32_t nfds)
{
	if (e->nfds == 2 && nfds == 2) {
		sc_sys3(__NR_dup3, fds[0], c->call, O_CLOEXEC);
		sc_sys3(__NR_dup3, fds[1], c->kick, O_CLOEXEC);
		/* release: whoever sees the number uses the new one */
		__atomic_store_n(&c->kick_gen, __atomic_add_fetch(&chan_gen, 1, __ATOMIC_RELAXED),
				 __ATOMIC_RELEASE);
	}
	close_fds(fds, nfds);
}

/* Receives messages until one of `type` with `seq` comes (type 0: until none is left). dom->lock held. */
static long await_msg(struct sc_chan *c, uint32_t type, uint32_t seq, void *buf, int *fds,
		      uint32_t max, uint32_t *nfds)
{
	struct sc_attach_hdr *h = buf;
	long n;

	for (;;) {
		if (type) {
			n = wait_readable(c->sock, REPLY_MS);
			if (n)
				return n;
		}
		n = msg_recv(c->sock, buf, SC_ATTACH_MSG_MAX, fds, max, nfds, MSG_DONTWAIT);
		if (n == -EINTR)
			continue;
		if (n == -EAGAIN && type)
			continue;
		if (n < 0) {
			c->orphan = n != -EAGAIN;
			return n;
		}
		if ((size_t)n < sizeof(*h) || h->magic != SC_ATTACH_MAGIC) {
			close_fds(fds, *nfds);
			return -EPROTO;
		}
		if (h->type == SC_ATTACH_EVENT && (size_t)n >= sizeof(struct sc_attach_event))
			take_event(c, buf, fds, *nfds);
		else if (type && h->type == type && h->seq == seq)
			return n;
		else
			close_fds(fds, *nfds);
	}
}

/* With the domain's lock. */
static void take_events(struct sc_chan *c)
{
	uint64_t buf[SC_ATTACH_MSG_MAX / 8];
	int fds[2];
	uint32_t nfds;

	if (!c->orphan)
		await_msg(c, 0, 0, buf, fds, 2, &nfds);
}

void sc_chan_events(struct sc_chan *c)
{
	if (!sc_mutex_trylock(&c->dom->lock))
		return;
	take_events(c);
	sc_mutex_unlock(&c->dom->lock);
}

void sc_chan_events_now(struct sc_chan *c)
{
	sc_mutex_lock(&c->dom->lock);
	take_events(c);
	sc_mutex_unlock(&c->dom->lock);
}

/* ---- attaching ---- */

static void set_text(struct sc_dom *d, const char *text)
{
	size_t n = sc_strnlen(text, sizeof(d->text) - 1);

	memcpy(d->text, text, n);
	d->text[n] = '\0';
}

static long dom_connect(struct sc_dom *d)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t dir = strlen(rundir), name = strlen(d->name);
	static const char last[] = "/attach.sock";
	struct timeval tv = {.tv_sec = REPLY_MS / 1000};
	long sock, err;

	if (dir + 1 + name + sizeof(last) > sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, rundir, dir);
	a.sun_path[dir] = '/';
	memcpy(a.sun_path + dir + 1, d->name, name);
	memcpy(a.sun_path + dir + 1 + name, last, sizeof(last));
	sock = sc_sys3(__NR_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return sock;
	sc_raw_syscall(__NR_setsockopt, sock, SOL_SOCKET, SO_SNDTIMEO, (long)&tv, sizeof(tv), 0);
	do
		err = sc_sys3(__NR_connect, sock, &a, sizeof(a));
	while (err == -EINTR);
	if (!err)
		return sock;
	sc_sys1(__NR_close, sock);
	set_text(d, "the domain's broker cannot be reached");
	return err;
}

static long status_errno(uint32_t status)
{
	switch (status) {
	case SC_ATTACH_DENIED:
	case SC_ATTACH_GROUPS:
		return -EACCES;
	case SC_ATTACH_FULL:
	case SC_ATTACH_LIMIT:
		return -ENFILE;
	case SC_ATTACH_DOWN:
	case SC_ATTACH_STARTING:
		return -EHOSTDOWN;
	default:
		return -EIO;
	}
}

/* Sends the request; receives the reply and its descriptors (3 and tickets). */
static long dom_ask(struct sc_dom *d, int sock, struct sc_attach_rep *rep, int *fds, uint32_t *nfds)
{
	struct sc_attach_req req = {
	    .h = {.magic = SC_ATTACH_MAGIC, .type = SC_ATTACH_REQ, .seq = 1, .len = sizeof(req)},
	    .abi_min = SC_ABI_VERSION,
	    .abi_max = SC_ABI_VERSION,
	    .features = SC_FEATURES,
	    .wait_ms = ATTACH_WAIT_MS,
	    .tickets = TICKETS_FIRST,
	};
	long n = sc_sys6(__NR_sendto, sock, &req, sizeof(req), MSG_NOSIGNAL, 0, 0);

	if (n < 0)
		return n;
	n = wait_readable(sock, ATTACH_WAIT_MS + REPLY_MS);
	if (n)
		return n;
	n = msg_recv(sock, rep, sizeof(*rep), fds, 3 + SC_TICKETS_BATCH, nfds, 0);
	if (n < 0)
		return n;
	rep->text[sizeof(rep->text) - 1] = '\0';
	if ((size_t)n < sizeof(*rep) || rep->h.magic != SC_ATTACH_MAGIC ||
	    rep->h.type != SC_ATTACH_REP)
		return -EPROTO;
	d->deadline_ms = rep->deadline_ms < DEADLINE_MIN_MS   ? DEADLINE_MIN_MS
			 : rep->deadline_ms > DEADLINE_MAX_MS ? DEADLINE_MAX_MS
							      : rep->deadline_ms;
	if (rep->status != SC_ATTACH_OK) {
		set_text(d, rep->text);
		return status_errno(rep->status);
	}
	if (rep->abi != SC_ABI_VERSION || !sc_layout_valid(&rep->layout) || *nfds < 3 ||
	    rep->ntickets != *nfds - 3)
		return -EPROTO;
	return 0;
}

static uint32_t cpus(void)
{
	uint64_t mask[16] = {0};
	uint32_t n = 0;

	if (sc_sys3(__NR_sched_getaffinity, 0, sizeof(mask), mask) <= 0)
		return 1;
	for (int i = 0; i < 16; i++)
		for (uint64_t m = mask[i]; m; m &= m - 1)
			n++;
	return n;
}

/* TSC ticks per microsecond, measured over what time the attachment took. */
static uint32_t tick_rate(uint64_t tsc0, const struct timespec *t0)
{
	struct timespec t1;
	uint64_t ns, dt;

	sc_sys2(__NR_clock_gettime, CLOCK_MONOTONIC, &t1);
	dt = __builtin_ia32_rdtsc() - tsc0;
	ns = (uint64_t)(t1.tv_sec - t0->tv_sec) * 1000000000ull + (uint64_t)t1.tv_nsec -
	     (uint64_t)t0->tv_nsec;
	if (ns < 20000 || dt / (ns / 1000) == 0 || dt / (ns / 1000) > 20000)
		return 2000;
	return (uint32_t)(dt / (ns / 1000));
}

static void lanes_init(struct sc_chan *c)
{
	c->nshared = c->lay.nlanes / 8 ? c->lay.nlanes / 8 : 1;
	for (uint32_t i = 0; i < c->lay.nlanes; i++) {
		struct sc_hlane *l = &c->lanes[i];
		uint64_t first = (uint64_t)i * c->lay.entries;

		l->chan = c;
		l->index = i;
		l->shared = i < c->nshared;
		l->sh = (struct sc_lane *)(c->base + c->lay.lanes_off) + i;
		l->slots = (struct sc_slot *)(c->base + c->lay.slots_off) + first;
		l->cqes = (struct sc_cqe *)(c->base + c->lay.cqes_off) + first;
		l->buf_off = c->lay.arena_off + i * SC_LANE_BUF_SIZE;
		l->buf = c->base + l->buf_off;
	}
}

/* Makes the structure of a channel from the broker's answer. fds have been moved. NULL: no memory. */
static struct sc_chan *chan_make(struct sc_dom *d, const struct sc_attach_rep *rep, const int *fds,
				 int sock)
{
	uint64_t bytes = sizeof(struct sc_chan) + rep->layout.nlanes * sizeof(struct sc_hlane);
	struct sc_chan *c = sc_map(bytes);
	long base;

	if (!c)
		return NULL;
	base = sc_raw_syscall(__NR_mmap, 0, rep->layout.size, PROT_READ | PROT_WRITE, MAP_SHARED,
			      fds[0], 0);
	if (base < 0) {
		sc_unmap(c, bytes);
		return NULL;
	}
	sc_sys3(__NR_madvise, base, rep->layout.size, MADV_DONTFORK);
	sc_sys3(__NR_madvise, base, rep->layout.size, MADV_DONTDUMP);
	c->dom = d;
	c->gen = c->kick_gen = __atomic_add_fetch(&chan_gen, 1, __ATOMIC_RELAXED);
	c->users = 1;
	c->base = (uint8_t *)base;
	c->lay = rep->layout;
	c->host = (struct sc_channel_host *)base;
	c->guest = (struct sc_channel_guest *)(base + SC_PAGE);
	c->sock = sock;
	c->call = fds[1];
	c->kick = fds[2];
	c->session = rep->session;
	c->deadline_ms = gone_ms(d);
	c->silence_ms = d->deadline_ms;
	c->seq = 2;
	c->pool_blocks = (c->lay.size - c->lay.pool_off) / SC_POOL_BLOCK;
	c->map_bytes = bytes;
	lanes_init(c);
	for (uint32_t i = 0; i < rep->ntickets; i++)
		c->spare[c->nspare++] =
		    (struct sc_spare){.ticket = rep->tickets[i], .fd = fds[3 + i]};
	return c;
}

/* One attempt, dom->lock held. */
static long attach_locked(struct sc_dom *d, struct sc_chan **out)
{
	struct sc_attach_rep rep;
	struct sc_limit lim;
	struct timespec t0;
	uint64_t tsc0 = __builtin_ia32_rdtsc();
	int fds[3 + SC_TICKETS_BATCH];
	uint32_t nfds = 0, base;
	long err, sock;

	sc_sys2(__NR_clock_gettime, CLOCK_MONOTONIC, &t0);
	base = sc_libfd_limit_raise(&lim);
	sock = dom_connect(d);
	if (sock >= 0)
		sock = sc_libfd_move_raised((int)sock, base);
	err = sock < 0 ? sock : dom_ask(d, (int)sock, &rep, fds, &nfds);
	if (err)
		close_fds(fds, nfds);
	else
		err = move_fds(fds, nfds, base);
	sc_libfd_limit_restore(&lim);
	if (err) {
		if (sock >= 0)
			sc_libfd_close((int)sock);
		return err;
	}
	*out = chan_make(d, &rep, fds, (int)sock);
	sc_libfd_close(fds[0]);
	if (!*out) {
		for (uint32_t i = 1; i < nfds; i++)
			sc_libfd_close(fds[i]);
		sc_libfd_close((int)sock);
		return -ENOMEM;
	}
	(*out)->ticks_per_us = tick_rate(tsc0, &t0);
	(*out)->spin_max = cpus() > 1 ? SPIN_MAX_US * (*out)->ticks_per_us : 0;
	for (int i = 0; i < SC_SPIN_CLASSES; i++)
		(*out)->spin[i].limit = (*out)->spin_max;
	return 0;
}

/* What the program sees of a failed attachment: the kernel's errors of a failing device, not those of sockets. */
static long attach_error(long err)
{
	switch (err) {
	case -EACCES:
	case -EPERM:
		return -EACCES;
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
		return err;
	default:
		return -EIO;
	}
}

/* True for errors of a domain that is not there now, and may be later. */
static bool is_absent(long err)
{
	return err == -EHOSTDOWN || err == -ECONNREFUSED || err == -ENOENT || err == -EPIPE ||
	       err == -ECONNRESET;
}

/* One attempt, if there is no channel. 0 or -errno. */
static long attach_once(struct sc_thread *t, struct sc_dom *d)
{
	struct sc_chan *c = NULL;
	long err = 0;

	sc_mutex_lock(&d->lock);
	if (!sc_chan_of(t, d)) {
		err = attach_locked(d, &c);
		d->last_error = (int)err;
		if (c && t->proc && t->proc->vforked) {
			c->vfork_private = true;
			t->proc->vchan[d->index] = c;
		} else if (c) {
			__atomic_store_n(&d->chan, c, __ATOMIC_RELEASE);
		}
		d->known |= !err;
	}
	sc_mutex_unlock(&d->lock);
	return err;
}

long sc_dom_attach(struct sc_thread *t, struct sc_dom *d)
{
	const struct timespec nap = {.tv_nsec = RETRY_MS * 1000000l};
	uint64_t start = 0;
	long err;

	while (is_absent(err = attach_once(t, d)) && d->known) {
		uint64_t now = sc_now_ms();

		if (!start)
			start = now;
		if (now - start >= gone_ms(d))
			break;
		sc_sys2(__NR_nanosleep, &nap, NULL);
	}
	return err ? attach_error(err) : 0;
}

/* ---- letting go ---- */

/* Unmaps and closes; nobody uses it any more. */
static void chan_free(struct sc_chan *c, bool fds_too)
{
	sc_netchan_free(c->net);
	sc_sys2(__NR_munmap, c->base, c->lay.size);
	if (fds_too) {
		for (uint32_t i = 0; i < c->nspare; i++)
			sc_libfd_close(c->spare[i].fd);
		sc_libfd_close(c->call);
		sc_libfd_close(c->kick);
		sc_libfd_close(c->sock);
	}
	sc_unmap(c, c->map_bytes);
}

void sc_chan_hold(struct sc_chan *c)
{
	sc_mutex_lock(&c->dom->lock);
	c->users++;
	sc_mutex_unlock(&c->dom->lock);
}

void sc_chan_release(struct sc_chan *c)
{
	struct sc_dom *d = c->dom;
	bool last;

	sc_mutex_lock(&d->lock);
	last = --c->users == 0;
	sc_mutex_unlock(&d->lock);
	if (last)
		chan_free(c, !c->vfork_private);
}

static void drop_if(struct sc_dom *d, struct sc_chan *only)
{
	struct sc_chan *c;

	sc_mutex_lock(&d->lock);
	c = d->chan;
	if (c && (!only || c == only))
		__atomic_store_n(&d->chan, NULL, __ATOMIC_RELEASE);
	else
		c = NULL;
	sc_mutex_unlock(&d->lock);
	if (c)
		sc_chan_release(c);
}

void sc_dom_drop(struct sc_dom *d)
{
	drop_if(d, NULL);
}

void sc_dom_lost(struct sc_chan *c)
{
	if (c->orphan && !c->vfork_private)
		drop_if(c->dom, c);
}

SC_HOT_TEXT void sc_dom_after_fork_child(struct sc_dom *d)
{
	struct sc_chan *c = d->chan;

	sc_mutex_reset(&d->lock);
	if (!c)
		return;
	d->chan = NULL;
	if (c->net)
		sc_netchan_free(c->net);
	sc_unmap(c, c->map_bytes);
}

/* ---- tickets ---- */

/* Asks the broker for more. dom->lock held. */
static long tickets_more(struct sc_chan *c)
{
	union {
		struct sc_attach_tickets msg;
		uint64_t room[SC_ATTACH_MSG_MAX / 8];
	} u = {0};
	struct sc_limit lim;
	int fds[SC_TICKETS_BATCH];
	uint32_t nfds = 0, seq = c->seq++, base;
	long n;

	u.msg.h = (struct sc_attach_hdr){
	    .magic = SC_ATTACH_MAGIC, .type = SC_ATTACH_TICKETS, .seq = seq, .len = sizeof(u.msg)};
	u.msg.count = SC_TICKETS_BATCH;
	if (c->orphan)
		return -EIO;
	n = sc_sys6(__NR_sendto, c->sock, &u, sizeof(u.msg), MSG_NOSIGNAL, 0, 0);
	if (n < 0) {
		c->orphan = true;
		return -EIO;
	}
	base = sc_libfd_limit_raise(&lim);
	n = await_msg(c, SC_ATTACH_TICKETS_REP, seq, &u, fds, SC_TICKETS_BATCH, &nfds);
	if (n >= 0 &&
	    ((size_t)n < sizeof(u.msg) || u.msg.status || u.msg.count != nfds || nfds == 0)) {
		close_fds(fds, nfds);
		n = u.msg.status ? -ENFILE : -EIO;
	} else if (n >= 0) {
		n = move_fds(fds, nfds, base);
	}
	sc_libfd_limit_restore(&lim);
	if (n < 0)
		return n == -EMFILE || n == -ENFILE ? n : -EIO;
	for (uint32_t i = 0; i < nfds; i++)
		c->spare[c->nspare++] = (struct sc_spare){.ticket = u.msg.tickets[i], .fd = fds[i]};
	return 0;
}

long sc_ticket_get(struct sc_thread *t, struct sc_dom *d, uint64_t *ticket, int *fd)
{
	struct sc_chan *c;
	long err;

	for (int tries = 0; tries < 2; tries++) {
		err = sc_dom_attach(t, d);
		if (err)
			return err;
		sc_mutex_lock(&d->lock);
		c = sc_chan_of(t, d);
		err = !c ? -EIO : c->nspare ? 0 : tickets_more(c);
		if (!err) {
			c->nspare--;
			*ticket = c->spare[c->nspare].ticket;
			*fd = c->spare[c->nspare].fd;
		}
		sc_mutex_unlock(&d->lock);
		if (!err)
			return 0;
		if (c)
			sc_dom_lost(
			    c); /* a broker that hung up: try once more with a new channel */
	}
	return err;
}

/* Sends a message with descriptors to the broker. dom->lock held. */
static long msg_send(struct sc_chan *c, const void *msg, size_t len, const int *fds, uint32_t n)
{
	union {
		char room[CMSG_SPACE(SC_TICKETS_BATCH * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = (void *)msg, .iov_len = len};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *head = &control.align;
	long res;

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(head), fds, n * sizeof(int));
	do
		res = sc_sys3(__NR_sendmsg, c->sock, &m, MSG_NOSIGNAL);
	while (res == -EINTR);
	if (res >= 0)
		return 0;
	c->orphan = res == -EPIPE || res == -ECONNRESET;
	return -EIO;
}

/* dom->lock held. */
static long claim(struct sc_chan *c, const int *fds, uint32_t n, struct sc_ticket_name *names)
{
	union {
		struct sc_attach_claim msg;
		uint64_t room[SC_ATTACH_MSG_MAX / 8];
	} u = {0};
	int none[SC_TICKETS_BATCH];
	uint32_t nfds = 0, seq = c->seq++;
	long res;

	u.msg.h = (struct sc_attach_hdr){
	    .magic = SC_ATTACH_MAGIC, .type = SC_ATTACH_CLAIM, .seq = seq, .len = sizeof(u.msg)};
	u.msg.count = n;
	res = msg_send(c, &u.msg, sizeof(u.msg), fds, n);
	if (res)
		return res;
	res = await_msg(c, SC_ATTACH_CLAIM_REP, seq, &u, none, SC_TICKETS_BATCH, &nfds);
	if (res < 0)
		return -EIO;
	close_fds(none, nfds);
	if ((size_t)res < sizeof(u.msg) || u.msg.count != n)
		return -EIO;
	memcpy(names, u.msg.names, n * sizeof(*names));
	return 0;
}

/* Tells a name, if there is one, and asks for names. */
static long tell_and_ask(struct sc_thread *t, struct sc_dom *d, const int *fds, uint32_t n,
			 const struct sc_attach_name *tell, struct sc_ticket_name *names)
{
	struct sc_chan *c;
	long err;

	for (int tries = 0; tries < 2; tries++) {
		err = sc_dom_attach(t, d);
		if (err)
			return err;
		sc_mutex_lock(&d->lock);
		c = sc_chan_of(t, d);
		err = c && !c->orphan ? 0 : -EIO;
		if (!err && tell)
			err = msg_send(c, tell, sizeof(*tell), fds, 1);
		if (!err)
			err = claim(c, fds, n, names);
		sc_mutex_unlock(&d->lock);
		if (!err)
			return 0;
		if (c)
			sc_dom_lost(c);
	}
	return err;
}

long sc_ticket_tell(struct sc_thread *t, struct sc_dom *d, int fd,
		    const struct sc_ticket_name *name)
{
	struct sc_attach_name msg = {
	    .h = {.magic = SC_ATTACH_MAGIC, .type = SC_ATTACH_NAME, .len = sizeof(msg)},
	    .name = *name};
	struct sc_ticket_name known;
	/* The name has no reply; the answer to a question behind it says that it has arrived. */
	long err = tell_and_ask(t, d, &fd, 1, &msg, &known);

	return err ? err : known.ticket == name->ticket ? 0 : -EIO;
}

long sc_ticket_ask(struct sc_thread *t, struct sc_dom *d, const int *fds, uint32_t n,
		   struct sc_ticket_name *names)
{
	return tell_and_ask(t, d, fds, n, NULL, names);
}

void sc_ticket_put(struct sc_dom *d, uint64_t ticket, int fd)
{
	struct sc_chan *c;
	bool kept = false;

	sc_mutex_lock(&d->lock);
	c = d->chan;
	if (c && ticket >> 32 == c->session && c->nspare < SC_SPARE_MAX) {
		c->spare[c->nspare++] = (struct sc_spare){.ticket = ticket, .fd = fd};
		kept = true;
	}
	sc_mutex_unlock(&d->lock);
	if (!kept)
		sc_libfd_close(fd);
}

/* ---- segments and objects ---- */

static long send_with_fd(int sock, const void *msg, size_t len, int fd)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = len};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	if (fd < 0)
		return sc_sys6(__NR_sendto, sock, msg, len, MSG_NOSIGNAL, 0, 0);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return sc_sys3(__NR_sendmsg, sock, &m, MSG_NOSIGNAL);
}

/* A message of the broker's, by which it answers with one descriptor or none. */
union answer {
	struct sc_attach_hdr h;
	struct sc_attach_segment segment;
	struct sc_attach_object object;
	uint64_t room[SC_ATTACH_MSG_MAX / 8];
};

/* Asks (u: the request, its header without magic and seq), and waits for the answer (u) of type `type` and the same
 * length. 0, and in *got a descriptor that is moved out of the way, or -1; or -errno. dom->lock held. */
static long ask_broker(struct sc_chan *c, union answer *u, int fd, uint32_t type, int *got)
{
	struct sc_limit lim;
	uint32_t len = u->h.len, seq = c->seq++, nfds = 0, base;
	long n;

	*got = -1;
	u->h.magic = SC_ATTACH_MAGIC;
	u->h.seq = seq;
	if (c->orphan || send_with_fd(c->sock, u, len, fd) < 0) {
		c->orphan = true;
		return -EIO;
	}
	base = sc_libfd_limit_raise(&lim);
	n = await_msg(c, type, seq, u, got, 1, &nfds);
	if (n >= 0 && nfds)
		*got = sc_libfd_move_raised(*got, base);
	else
		*got = -1;
	sc_libfd_limit_restore(&lim);
	if (n < 0)
		return -EIO;
	if (nfds && *got < 0)
		return *got;
	if ((uint32_t)n == len)
		return 0;
	sc_libfd_close(*got);
	return -EIO;
}

long sc_object_fetch(struct sc_chan *c, uint64_t object, uint32_t rights)
{
	union answer u = {.object = {.h = {.type = SC_ATTACH_OBJECT, .len = sizeof(u.object)},
				     .rights = rights,
				     .object = object}};
	long err;
	int fd;

	sc_mutex_lock(&c->dom->lock);
	err = ask_broker(c, &u, -1, SC_ATTACH_OBJECT_REP, &fd);
	sc_mutex_unlock(&c->dom->lock);
	if (err)
		return err;
	if (u.object.status || fd < 0) {
		sc_libfd_close(fd);
		return u.object.status > 0 && u.object.status < SC_PAGE ? -(long)u.object.status
									: -EIO;
	}
	return fd;
}

/* Maps what the broker answered with. */
static long map_segment(const struct sc_attach_segment *m, int fd, struct sc_segment *out)
{
	long base;

	if (m->size < SC_SEGMENT_MIN || m->size > SC_SEGMENT_MAX || fd < 0)
		return -EIO;
	base = sc_sys6(__NR_mmap, 0, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base < 0 && base > -(long)SC_PAGE)
		return base;
	sc_sys3(__NR_madvise, base, m->size, MADV_DONTFORK);
	*out = (struct sc_segment){.base = (uint8_t *)base, .size = m->size, .ticket = m->ticket};
	return 0;
}

long sc_segment_get(struct sc_thread *t, struct sc_dom *d, int ticket_fd, uint64_t size,
		    struct sc_segment *out)
{
	union answer u = {
	    .segment = {.h = {.type = SC_ATTACH_SEGMENT, .len = sizeof(u.segment)}, .size = size}};
	struct sc_chan *c;
	long err = sc_dom_attach(t, d);
	int fd = -1;

	if (err)
		return err;
	sc_mutex_lock(&d->lock);
	c = sc_chan_of(t, d);
	err = c ? ask_broker(c, &u, ticket_fd, SC_ATTACH_SEGMENT_REP, &fd) : -EIO;
	sc_mutex_unlock(&d->lock);
	if (!err && u.segment.status)
		err = u.segment.status < SC_PAGE ? -(long)u.segment.status : -EIO;
	if (!err)
		err = map_segment(&u.segment, fd, out);
	sc_libfd_close(fd);
	return err;
}

/* ---- device numbers ---- */

/* FNV-1a. */
static uint32_t hash(const char *s)
{
	uint32_t h = 2166136261u;

	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 16777619u;
	return h;
}

/*
 * Majors from 2048 on: Linux hands out none above 511, and anonymous devices have major 0. The minor mixes the guest's
 * numbers; both are the same in every process.
 */
void sc_dom_dev_split(const struct sc_dom *d, uint32_t guest_major, uint32_t guest_minor,
		      uint32_t *major, uint32_t *minor)
{
	uint32_t h = hash(d->name);

	*major = 2048 + ((h ^ h >> 11 ^ h >> 22) & 2047);
	*minor = (guest_major * 40503u + guest_minor) & 0xfffff;
}

uint64_t sc_dom_dev(const struct sc_dom *d, uint32_t guest_major, uint32_t guest_minor)
{
	uint32_t major, minor;

	sc_dom_dev_split(d, guest_major, guest_minor, &major, &minor);
	return sc_makedev(major, minor);
}
