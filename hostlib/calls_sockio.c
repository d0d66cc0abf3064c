/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * calls_sockio.c - sending and receiving on sockets of network domains.
 *
 * Theory of operation: both are a copy and an index, under the object's lock for that direction (net_ring.c). A stream's
 * sender takes what room there is, publishes it, and, if the call may wait and bytes are left, waits for more room; a
 * receiver takes what is there, and waits only for the first bytes (MSG_WAITALL: for all). Nobody waits with the lock
 * held. Datagrams are records, taken and published whole.
 *
 * The order in which a stream's state is looked at is the kernel's: data before errors, errors before the end.
 */
#include <netinet/in.h>
#include <signal.h>
#include <sys/uio.h>

#include "calls.h"
#include "net.h"

#define IOV_LIMIT    1024
#define IO_MAX	     0x7ffff000ul
#define UDP_MAX	     65507u
#define CONTROL_MAX  1024u
#define SEND_UNKNOWN MSG_OOB /* urgent data: refused */

static uint32_t kind_of(const struct sc_file *f)
{
	return __atomic_load_n(&f->kind, __ATOMIC_ACQUIRE);
}

static long not_socket(const struct sc_file *f)
{
	return sc_is_path(f) ? -EBADF : -ENOTSOCK;
}

/* ---- the program's memory in pieces ---- */

struct vec {
	const struct iovec *iov;
	uint32_t n;
	uint32_t at;   /* piece */
	uint64_t off;  /* within it */
	uint64_t left; /* bytes in all */
};

static void vec_one(struct vec *v, struct iovec *iov, const void *p, uint64_t len)
{
	*iov = (struct iovec){.iov_base = (void *)p, .iov_len = len < IO_MAX ? len : IO_MAX};
	*v = (struct vec){.iov = iov, .n = 1, .left = iov->iov_len};
}

/* Takes the program's array (into iov, IOV_LIMIT entries). 0 or -errno. */
static long vec_get(struct vec *v, struct iovec *iov, const void *user, uint64_t n)
{
	*v = (struct vec){.iov = iov, .n = (uint32_t)n};
	if (n > IOV_LIMIT)
		return -EINVAL;
	if (n && sc_copy_from_user(iov, user, n * sizeof(*iov)))
		return -EFAULT;
	for (uint32_t i = 0; i < n; i++) {
		if ((int64_t)iov[i].iov_len < 0)
			return -EINVAL;
		if (!sc_user_range(iov[i].iov_base, iov[i].iov_len))
			return -EFAULT;
		if (iov[i].iov_len > IO_MAX - v->left)
			iov[i].iov_len = IO_MAX - v->left;
		v->left += iov[i].iov_len;
	}
	return 0;
}

/* Moves up to len bytes between the pieces and a ring at index `at`. Bytes moved; fewer only after a fault. */
static uint32_t vec_move(struct vec *v, uint8_t *ring, uint32_t size, uint32_t at, uint32_t len,
			 bool in)
{
	uint32_t done = 0;

	while (done < len) {
		const struct iovec *p = &v->iov[v->at];
		uint64_t there = p->iov_len - v->off;
		uint32_t n = there < len - done ? (uint32_t)there : len - done;
		uint8_t *user = (uint8_t *)p->iov_base + v->off;

		if (n && (in ? sc_ring_put(ring, size, at + done, user, n)
			     : sc_ring_get(ring, size, at + done, user, n)))
			break;
		v->off += n;
		v->left -= n;
		done += n;
		if (v->off == p->iov_len && v->at + 1 < v->n) {
			v->at++;
			v->off = 0;
		} else if (v->off == p->iov_len) {
			break;
		}
	}
	return done;
}

/* ---- one transfer ---- */

struct io {
	struct sc_thread *t;
	struct sc_file *f;
	struct sc_nsock *s;
	struct sc_netchan *nc;
	struct vec v;
	int flags;	   /* MSG_* */
	bool started;	   /* deadline is known */
	uint64_t us;	   /* SO_RCVTIMEO or SO_SNDTIMEO */
	uint64_t deadline; /* SC_NET_FOREVER: none */
};

static long io_begin(struct io *io, struct sc_thread *t, struct sc_file *f, int flags)
{
	io->t = t;
	io->f = f;
	io->s = sc_nsock_of(f);
	io->flags = flags;
	io->started = false;
	return sc_net_enter(t, f, &io->nc);
}

static bool may_wait(const struct io *io)
{
	return !(io->flags & MSG_DONTWAIT) &&
	       !__atomic_load_n(&sc_sock_host(io->s)->nonblock, __ATOMIC_RELAXED);
}

/* Waits, if the call may. 0: look again. */
static long io_wait(struct io *io, uint32_t events)
{
	struct sc_sock_host *h = sc_sock_host(io->s);
	long res;

	if (!may_wait(io)) {
		/* who does not wait will ask for events: the agent is to know, and a last look be taken */
		if (events & POLLOUT)
			return sc_net_events(io->s, events, true) & events ? 0 : -EAGAIN;
		return -EAGAIN;
	}
	if (!io->started) {
		io->us = __atomic_load_n(events & POLLOUT ? &h->sndtimeo_us : &h->rcvtimeo_us,
					 __ATOMIC_RELAXED);
		io->deadline = io->us ? sc_net_deadline(io->us) : SC_NET_FOREVER;
		io->started = true;
	}
	res = sc_net_wait(io->t, io->nc, io->s, events, io->deadline);
	return res == -SC_ERESTART && io->us ? -EINTR : res;
}

static uint32_t state_of(const struct sc_nsock *s)
{
	return __atomic_load_n(&s->sh->state, __ATOMIC_ACQUIRE);
}

static uint32_t flags_of(const struct sc_nsock *s)
{
	return __atomic_load_n(&s->sh->flags, __ATOMIC_ACQUIRE);
}

static long broken_pipe(const struct io *io)
{
	uint32_t err = sc_net_take_error(io->s);

	if (err)
		return -(long)err;
	if (!(io->flags & MSG_NOSIGNAL))
		sc_sys3(__NR_tgkill, sc_sys0(__NR_getpid), io->t->tid, SIGPIPE);
	return -EPIPE;
}

/* ---- streams ---- */

/* May it send? 0; -errno. Waits for a connection that is being made. */
static long send_state(struct io *io)
{
	long err;

	while (state_of(io->s) == SC_SOCK_CONNECTING) {
		err = io_wait(io, POLLOUT);
		if (err)
			return err;
	}
	if (state_of(io->s) != SC_SOCK_CONNECTED || flags_of(io->s) & SC_SOCK_F_TX_CLOSED)
		return broken_pipe(io);
	err = (long)sc_net_take_error(io->s);
	return -err;
}

/* Puts what fits into the ring. Bytes; 0: it is full; -errno. */
static long stream_put(struct io *io)
{
	struct sc_nsock *s = io->s;
	uint32_t *lock = &sc_sock_host(s)->tx_lock, tail, n;
	long used;

	sc_ring_lock(io->t, lock);
	tail = __atomic_load_n(&s->sh->tx_tail, __ATOMIC_RELAXED);
	/* acquire: what the agent freed it does not read any more */
	used = sc_ring_used(tail, __atomic_load_n(&s->sh->tx_head, __ATOMIC_ACQUIRE), s->tx_size);
	if (used < 0 || (uint32_t)used == s->tx_size) {
		sc_ring_unlock(io->t, lock);
		return used < 0 ? used : 0;
	}
	n = s->tx_size - (uint32_t)used;
	if (io->v.left < n)
		n = (uint32_t)io->v.left;
	used = vec_move(&io->v, s->tx, s->tx_size, tail, n, true);
	if (used && sc_ring_mine(io->t, lock)) {
		/* release: the bytes are visible before the index */
		__atomic_store_n(&s->sh->tx_more, io->flags & MSG_MORE ? 1 : 0, __ATOMIC_RELAXED);
		__atomic_store_n(&s->sh->tx_tail, tail + (uint32_t)used, __ATOMIC_RELEASE);
	} else if (used) {
		used = -EIO;
	}
	sc_ring_unlock(io->t, lock);
	if (used > 0)
		sc_net_kick(io->nc, s, &s->sh->tx_want);
	return used ? used : -EFAULT;
}

static long stream_send(struct io *io)
{
	uint64_t done = 0;
	long res = send_state(io);

	if (res || !io->v.left)
		return res;
	for (;;) {
		res = stream_put(io);
		if (res > 0)
			done += (uint64_t)res;
		if (res < 0 || !io->v.left)
			break;
		if (res == 0)
			res = io_wait(io, POLLOUT);
		if (res >= 0)
			res = send_state(io);
		if (res < 0)
			break;
	}
	if (done && (res == -EPIPE || res == -EFAULT || res == -EAGAIN || res < 0))
		return (long)done;
	return done ? (long)done : res;
}

/* Takes what is there. Bytes; 0: it is empty; -errno. `peek_at`: bytes to skip, with MSG_PEEK. */
static long stream_get(struct io *io, uint32_t peek_at)
{
	struct sc_nsock *s = io->s;
	uint32_t *lock = &sc_sock_host(s)->rx_lock, head, n;
	bool peek = io->flags & MSG_PEEK;
	long used;

	sc_ring_lock(io->t, lock);
	head = __atomic_load_n(&s->sh->rx_head, __ATOMIC_RELAXED);
	/* acquire: the bytes are visible that the index says are there */
	used = sc_ring_used(__atomic_load_n(&s->sh->rx_tail, __ATOMIC_ACQUIRE), head, s->rx_size);
	if (used <= (long)peek_at) {
		sc_ring_unlock(io->t, lock);
		return used < 0 ? used : 0;
	}
	n = (uint32_t)used - peek_at;
	if (io->v.left < n)
		n = (uint32_t)io->v.left;
	if ((io->flags & MSG_TRUNC) && !peek) {
		io->v.left -= n; /* the bytes are thrown away */
		used = n;
	} else {
		used = vec_move(&io->v, s->rx, s->rx_size, head + peek_at, n, false);
	}
	if (used && !peek) {
		if (sc_ring_mine(io->t, lock))
			__atomic_store_n(&s->sh->rx_head, head + (uint32_t)used, __ATOMIC_RELEASE);
		else
			used = -EIO;
	}
	sc_ring_unlock(io->t, lock);
	if (used > 0 && !peek)
		sc_net_kick(io->nc, s, &s->sh->rx_want);
	return used ? used : -EFAULT;
}

/* Nothing is there: 0: it may come; 1: it is the end; -errno. */
static long recv_state(struct io *io, uint32_t flags)
{
	uint32_t state = state_of(io->s), err;

	if (state == SC_SOCK_NEW || state == SC_SOCK_BOUND || state == SC_SOCK_LISTEN)
		return -ENOTCONN;
	err = sc_net_take_error(io->s);
	if (err)
		return -(long)err;
	return flags & SC_SOCK_F_RX_EOF || state == SC_SOCK_CLOSED;
}

static long stream_recv(struct io *io)
{
	uint32_t low = __atomic_load_n(&sc_sock_host(io->s)->rcvlowat, __ATOMIC_RELAXED);
	uint64_t done = 0, target = io->flags & MSG_WAITALL ? io->v.left : low ? low : 1;
	long res = 0;

	if (io->flags & MSG_OOB)
		return -EINVAL;
	if (target > io->v.left)
		target = io->v.left;
	while (io->v.left) {
		/* the flags before the index: bytes that came before the end are seen before it */
		uint32_t flags = flags_of(io->s);

		res = stream_get(io, io->flags & MSG_PEEK ? (uint32_t)done : 0);
		if (res > 0)
			done += (uint64_t)res;
		if (res < 0 || (res > 0 && done >= target))
			break;
		if (res > 0)
			continue;
		if (done >= target && done)
			break;
		res = done ? 0 : recv_state(io, flags);
		if (done && (flags & SC_SOCK_F_RX_EOF || state_of(io->s) == SC_SOCK_CLOSED))
			break;
		if (res)
			break;
		res = io_wait(io, POLLIN);
		if (res)
			break;
	}
	if (done)
		return (long)done;
	return res > 0 ? 0 : res;
}

/* ---- datagrams ---- */

/* What goes with a message besides its bytes. */
struct with {
	struct sc_sockaddr addr; /* family 0: none */
	uint8_t local[16];
	uint16_t local_family;
	uint32_t ifindex;
	uint8_t tos, ttl;
	uint32_t msg_flags; /* out */
};

static long dgram_put(struct io *io, const struct with *w)
{
	struct sc_nsock *s = io->s;
	uint32_t *lock = &sc_sock_host(s)->tx_lock, tail, len = (uint32_t)io->v.left;
	struct sc_dgram d = {
	    .len = len, .addr = w->addr, .ifindex = w->ifindex, .local_family = w->local_family};
	long used;

	memcpy(d.local, w->local, sizeof(d.local));
	sc_ring_lock(io->t, lock);
	tail = __atomic_load_n(&s->sh->tx_tail, __ATOMIC_RELAXED);
	used = sc_ring_used(tail, __atomic_load_n(&s->sh->tx_head, __ATOMIC_ACQUIRE), s->tx_size);
	if (used < 0 || tail % SC_DGRAM_ALIGN ||
	    s->tx_size - (uint32_t)used < sc_dgram_space(len)) {
		sc_ring_unlock(io->t, lock);
		return used < 0 || tail % SC_DGRAM_ALIGN ? -EIO : 1;
	}
	memcpy(s->tx + (tail & (s->tx_size - 1)), &d, sizeof(d));
	used = 0;
	if (vec_move(&io->v, s->tx, s->tx_size, tail + (uint32_t)sizeof(d), len, true) != len)
		used = -EFAULT;
	else if (!sc_ring_mine(io->t, lock))
		used = -EIO;
	else
		__atomic_store_n(&s->sh->tx_tail, tail + sc_dgram_space(len), __ATOMIC_RELEASE);
	sc_ring_unlock(io->t, lock);
	if (!used)
		sc_net_kick(io->nc, s, &s->sh->tx_want);
	return used;
}

static bool has_peer(const struct sc_nsock *s)
{
	return __atomic_load_n(&s->sh->peer.family, __ATOMIC_RELAXED) != 0;
}

static long dgram_send(struct io *io, const struct with *w)
{
	uint64_t len = io->v.left;
	uint32_t err = sc_net_take_error(io->s);
	long res;

	if (err)
		return -(long)err;
	if (flags_of(io->s) & SC_SOCK_F_TX_CLOSED)
		return broken_pipe(io);
	if (!w->addr.family && !has_peer(io->s))
		return -EDESTADDRREQ;
	if (len > UDP_MAX || sc_dgram_space((uint32_t)len) > io->s->tx_size)
		return -EMSGSIZE;
	for (;;) {
		res = dgram_put(io, w);
		if (res != 1)
			return res ? res : (long)len;
		res = io_wait(io, POLLOUT);
		if (res)
			return res;
	}
}

/* Takes the oldest datagram. Its bytes as the program sees them, 0x80000000 | ... no: -EAGAIN if there is none. */
static long dgram_get(struct io *io, struct with *w)
{
	struct sc_nsock *s = io->s;
	uint32_t *lock = &sc_sock_host(s)->rx_lock, head, n = 0;
	struct sc_dgram d;
	long used;

	sc_ring_lock(io->t, lock);
	head = __atomic_load_n(&s->sh->rx_head, __ATOMIC_RELAXED);
	used = sc_ring_used(__atomic_load_n(&s->sh->rx_tail, __ATOMIC_ACQUIRE), head, s->rx_size);
	if (used <= 0) {
		sc_ring_unlock(io->t, lock);
		return used ? -EIO : -EAGAIN;
	}
	memcpy(&d, s->rx + (head & (s->rx_size - 1) & ~(SC_DGRAM_ALIGN - 1)), sizeof(d));
	if (head % SC_DGRAM_ALIGN || d.len > s->rx_size || sc_dgram_space(d.len) > (uint32_t)used) {
		sc_ring_unlock(io->t, lock);
		return -EIO; /* the agent lies */
	}
	n = io->v.left < d.len ? (uint32_t)io->v.left : d.len;
	used = n;
	if (n && vec_move(&io->v, s->rx, s->rx_size, head + (uint32_t)sizeof(d), n, false) != n)
		used = -EFAULT;
	if (!(io->flags & MSG_PEEK) && sc_ring_mine(io->t, lock))
		__atomic_store_n(&s->sh->rx_head, head + sc_dgram_space(d.len), __ATOMIC_RELEASE);
	sc_ring_unlock(io->t, lock);
	if (!(io->flags & MSG_PEEK))
		sc_net_kick(io->nc, s, &s->sh->rx_want);
	w->addr = d.addr;
	memcpy(w->local, d.local, sizeof(w->local));
	w->local_family = d.local_family;
	w->ifindex = d.ifindex;
	w->tos = d.tos;
	w->ttl = d.ttl;
	w->msg_flags = n < d.len ? MSG_TRUNC : 0;
	return used == (long)n && io->flags & MSG_TRUNC ? (long)d.len : used;
}

static long dgram_recv(struct io *io, struct with *w)
{
	for (;;) {
		uint32_t flags = flags_of(io->s), err;
		long res;

		err = sc_net_take_error(io->s);
		if (err)
			return -(long)err;
		res = dgram_get(io, w);
		if (res != -EAGAIN)
			return res;
		if (flags & SC_SOCK_F_RX_EOF)
			return 0;
		res = io_wait(io, POLLIN);
		if (res)
			return res;
	}
}

static long io_send(struct io *io, const struct with *w)
{
	if (io->flags & SEND_UNKNOWN)
		return -EOPNOTSUPP;
	return io->s->type == SOCK_STREAM ? stream_send(io) : dgram_send(io, w);
}

static long io_recv(struct io *io, struct with *w)
{
	return io->s->type == SOCK_STREAM ? stream_recv(io) : dgram_recv(io, w);
}

long sc_net_room(struct sc_thread *t, struct sc_file *f)
{
	struct io io;
	long err = io_begin(&io, t, f, 0), used;

	if (err)
		return err;
	if (io.s->type != SOCK_STREAM)
		return io.s->tx_size;
	for (;;) {
		err = send_state(&io);
		if (err)
			return err;
		used = sc_ring_used(__atomic_load_n(&io.s->sh->tx_tail, __ATOMIC_RELAXED),
				    __atomic_load_n(&io.s->sh->tx_head, __ATOMIC_ACQUIRE),
				    io.s->tx_size);
		if (used < 0 || (uint32_t)used < io.s->tx_size)
			return used < 0 ? used : (long)io.s->tx_size - used;
		err = io_wait(&io, POLLOUT);
		if (err)
			return err;
	}
}

/* ---- read, write ---- */

static long move_one(struct sc_thread *t, struct sc_file *f, const void *p, uint64_t len, int flags,
		     bool send)
{
	struct with w = {0};
	struct iovec iov;
	struct io io;
	long err = io_begin(&io, t, f, flags);

	if (err)
		return err;
	vec_one(&io.v, &iov, p, len);
	return send ? io_send(&io, &w) : io_recv(&io, &w);
}

long sc_sock_read(struct sc_thread *t, const struct sc_call *c)
{
	return move_one(t, c->file, (void *)c->a[1], (uint64_t)c->a[2], 0, false);
}

long sc_sock_write(struct sc_thread *t, const struct sc_call *c)
{
	return move_one(t, c->file, (void *)c->a[1], (uint64_t)c->a[2], 0, true);
}

long sc_net_send(struct sc_thread *t, struct sc_file *f, const void *buf, uint32_t len, int flags)
{
	return move_one(t, f, buf, len, flags, true);
}

long sc_net_recv(struct sc_thread *t, struct sc_file *f, void *buf, uint32_t len, int flags)
{
	return move_one(t, f, buf, len, flags, false);
}

static long move_vec(struct sc_thread *t, const struct sc_call *c, bool send)
{
	struct sc_serve_thread *st = sc_serve_of(t);
	struct with w = {0};
	struct io io;
	long err = io_begin(&io, t, c->file, 0);

	if (err)
		return err;
	err = vec_get(&io.v, (struct iovec *)st->scratch, (const void *)c->a[1], (uint64_t)c->a[2]);
	if (err)
		return err;
	return send ? io_send(&io, &w) : io_recv(&io, &w);
}

long sc_sock_readv(struct sc_thread *t, const struct sc_call *c)
{
	return move_vec(t, c, false);
}

long sc_sock_writev(struct sc_thread *t, const struct sc_call *c)
{
	return move_vec(t, c, true);
}

/* ---- fresh sockets: a datagram with an address decides ---- */

/* 0: it is a domain's now; SC_NATIVE: the kernel serves it; -errno. */
static long decide(struct sc_thread *t, int fd, struct sc_file *f, const void *user, long len)
{
	struct sc_sockaddr a;
	struct sc_dom *d;

	if (sc_nsock_of(f)->type != SOCK_DGRAM || !user || sc_addr_get(user, len, &a))
		return SC_NATIVE;
	d = a.family == sc_nsock_of(f)->family ? sc_netroute_to(&a, false) : NULL;
	return d ? sc_net_move(t, fd, f, d) : SC_NATIVE;
}

/* ---- sendto, recvfrom ---- */

long call_sendto(struct sc_thread *t, const struct sc_call *c)
{
	struct with w = {0};
	struct iovec iov;
	struct io io;
	long err = 0;

	if (kind_of(c->file) == SC_KIND_FILE)
		return not_socket(c->file);
	if (kind_of(c->file) == SC_KIND_FRESH)
		err = decide(t, sc_int(c->a[0]), c->file, (const void *)c->a[4], sc_int(c->a[5]));
	if (!err)
		err = io_begin(&io, t, c->file, sc_int(c->a[3]));
	if (!err && c->a[4])
		err = sc_addr_get((const void *)c->a[4], sc_int(c->a[5]), &w.addr);
	if (err)
		return err;
	vec_one(&io.v, &iov, (const void *)c->a[1], (uint64_t)c->a[2]);
	return io_send(&io, &w);
}

long call_recvfrom(struct sc_thread *t, const struct sc_call *c)
{
	struct with w = {0};
	struct iovec iov;
	struct io io;
	long res;

	if (kind_of(c->file) != SC_KIND_SOCK)
		return kind_of(c->file) == SC_KIND_FILE ? not_socket(c->file) : SC_NATIVE;
	res = io_begin(&io, t, c->file, sc_int(c->a[3]));
	if (res)
		return res;
	vec_one(&io.v, &iov, (const void *)c->a[1], (uint64_t)c->a[2]);
	res = io_recv(&io, &w);
	if (res >= 0 && c->a[4] && w.addr.family) {
		long err = sc_addr_put(&w.addr, (void *)c->a[4], (void *)c->a[5]);

		return err ? err : res;
	}
	if (res >= 0 && c->a[4]) {
		int none = 0;

		if (c->a[5] && sc_copy_to_user((void *)c->a[5], &none, sizeof(none)))
			return -EFAULT;
	}
	return res;
}

/* ---- messages ---- */

struct user_msg {
	struct msghdr h; /* a copy */
	struct msghdr *user;
};

static long msg_get(struct user_msg *m, const void *user)
{
	m->user = (struct msghdr *)user;
	if (sc_copy_from_user(&m->h, user, sizeof(m->h)))
		return -EFAULT;
	if (m->h.msg_name && (int)m->h.msg_namelen < 0)
		return -EINVAL;
	return m->h.msg_iovlen > IOV_LIMIT ? -EMSGSIZE : 0;
}

/* One header of sendmsg's control data. */
static long control_in(const struct cmsghdr *h, const uint8_t *data, struct with *w)
{
	size_t len = h->cmsg_len - CMSG_LEN(0);
	struct in_pktinfo p4;
	struct in6_pktinfo p6;

	if (h->cmsg_level == SOL_SOCKET)
		return h->cmsg_type == SCM_RIGHTS || h->cmsg_type == SCM_CREDENTIALS ? 0 : -EINVAL;
	if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_PKTINFO && len >= sizeof(p4)) {
		memcpy(&p4, data, sizeof(p4));
		memcpy(w->local, &p4.ipi_spec_dst, 4);
		w->local_family = p4.ipi_spec_dst.s_addr ? AF_INET : 0;
		w->ifindex = (uint32_t)p4.ipi_ifindex;
		return 0;
	}
	if (h->cmsg_level == IPPROTO_IPV6 && h->cmsg_type == IPV6_PKTINFO && len >= sizeof(p6)) {
		memcpy(&p6, data, sizeof(p6));
		memcpy(w->local, &p6.ipi6_addr, 16);
		w->local_family = AF_INET6;
		w->ifindex = p6.ipi6_ifindex;
		return 0;
	}
	if (h->cmsg_level == IPPROTO_IP || h->cmsg_level == IPPROTO_IPV6)
		return 0; /* a type of service or a number of hops: the socket's own is used */
	return h->cmsg_level == IPPROTO_UDP ? 0 : -EINVAL;
}

static long controls_in(const struct user_msg *m, struct with *w)
{
	uint8_t buf[CONTROL_MAX];
	size_t len = m->h.msg_controllen, at = 0;
	struct cmsghdr h;

	if (!m->h.msg_control || !len)
		return 0;
	if (len > sizeof(buf))
		return -ENOBUFS;
	if (sc_copy_from_user(buf, m->h.msg_control, len))
		return -EFAULT;
	while (at + sizeof(h) <= len) {
		long err;

		memcpy(&h, buf + at, sizeof(h));
		if (h.cmsg_len < sizeof(h) || h.cmsg_len > len - at)
			return -EINVAL;
		err = control_in(&h, buf + at + CMSG_LEN(0), w);
		if (err)
			return err;
		at += CMSG_ALIGN(h.cmsg_len);
	}
	return 0;
}

static long send_msg(struct sc_thread *t, const struct sc_call *c, const void *user, int flags)
{
	struct sc_serve_thread *st = sc_serve_of(t);
	struct with w = {0};
	struct user_msg m;
	struct io io;
	long err = msg_get(&m, user);

	if (!st)
		return -ENOMEM;
	if (!err && kind_of(c->file) == SC_KIND_FRESH)
		err = decide(t, sc_int(c->a[0]), c->file, m.h.msg_name, (int)m.h.msg_namelen);
	if (!err)
		err = io_begin(&io, t, c->file, flags);
	if (!err && m.h.msg_name && m.h.msg_namelen && io.s->type == SOCK_DGRAM)
		err = sc_addr_get(m.h.msg_name, (int)m.h.msg_namelen, &w.addr);
	if (!err)
		err = vec_get(&io.v, (struct iovec *)st->scratch, m.h.msg_iov, m.h.msg_iovlen);
	if (!err)
		err = controls_in(&m, &w);
	return err ? err : io_send(&io, &w);
}

long call_sendmsg(struct sc_thread *t, const struct sc_call *c)
{
	if (kind_of(c->file) == SC_KIND_FILE)
		return not_socket(c->file);
	return send_msg(t, c, (const void *)c->a[1], sc_int(c->a[2]));
}

/* Control data on its way to the program. */
struct controls {
	uint8_t *user;
	size_t room;
	size_t used;
	bool truncated;
	bool fault;
};

static void control_out(struct controls *o, int level, int type, const void *data, size_t len)
{
	struct cmsghdr h = {.cmsg_len = CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type};

	if (o->room - o->used < CMSG_LEN(len)) {
		o->truncated = true;
		return;
	}
	if (sc_copy_to_user(o->user + o->used, &h, sizeof(h)) ||
	    sc_copy_to_user(o->user + o->used + CMSG_LEN(0), data, len))
		o->fault = true;
	o->used += CMSG_SPACE(len);
	if (o->used > o->room)
		o->used = o->room;
}

static void controls_out(struct controls *o, const struct sc_nsock *s, const struct with *w)
{
	uint32_t want = __atomic_load_n(&sc_sock_host(s)->control, __ATOMIC_RELAXED);
	struct in_pktinfo p4 = {.ipi_ifindex = (int)w->ifindex};
	struct in6_pktinfo p6 = {.ipi6_ifindex = w->ifindex};
	struct timeval now;
	int v;

	if (want & SC_CONTROL_STAMP) {
		sc_sys2(__NR_gettimeofday, &now, 0);
		control_out(o, SOL_SOCKET, SO_TIMESTAMP, &now, sizeof(now));
	}
	if (want & SC_CONTROL_PKTINFO && w->local_family == AF_INET) {
		memcpy(&p4.ipi_addr, w->local, 4);
		p4.ipi_spec_dst = p4.ipi_addr;
		control_out(o, IPPROTO_IP, IP_PKTINFO, &p4, sizeof(p4));
	}
	if (want & SC_CONTROL_PKTINFO6 && w->local_family == AF_INET6) {
		memcpy(&p6.ipi6_addr, w->local, 16);
		control_out(o, IPPROTO_IPV6, IPV6_PKTINFO, &p6, sizeof(p6));
	}
	v = w->ttl;
	if (want & SC_CONTROL_TTL)
		control_out(o, IPPROTO_IP, IP_TTL, &v, sizeof(v));
	if (want & SC_CONTROL_HOPS)
		control_out(o, IPPROTO_IPV6, IPV6_HOPLIMIT, &v, sizeof(v));
	v = w->tos;
	if (want & SC_CONTROL_TOS)
		control_out(o, IPPROTO_IP, IP_TOS, &w->tos, 1);
	if (want & SC_CONTROL_TCLASS)
		control_out(o, IPPROTO_IPV6, IPV6_TCLASS, &v, sizeof(v));
}

static long name_out(const struct user_msg *m, const struct with *w)
{
	struct sc_sockaddr a = w->addr;
	socklen_t full = a.family == AF_INET6  ? sizeof(struct sockaddr_in6)
			 : a.family == AF_INET ? sizeof(struct sockaddr_in)
					       : 0;
	socklen_t room = m->h.msg_namelen < full ? m->h.msg_namelen : full;

	if (a.family == AF_INET)
		memset(a.addr6, 0, sizeof(a.addr6));
	if (m->h.msg_name && room && sc_copy_to_user(m->h.msg_name, &a, room))
		return -EFAULT;
	return m->h.msg_name ? sc_copy_to_user(&m->user->msg_namelen, &full, sizeof(full)) : 0;
}

static long recv_msg(struct sc_thread *t, const struct sc_call *c, void *user, int flags)
{
	struct sc_serve_thread *st = sc_serve_of(t);
	struct controls o = {0};
	struct with w = {0};
	struct user_msg m;
	struct io io;
	long err = msg_get(&m, user), res;
	int out;

	if (!st)
		return -ENOMEM;
	if (!err)
		err = io_begin(&io, t, c->file, flags);
	if (!err)
		err = vec_get(&io.v, (struct iovec *)st->scratch, m.h.msg_iov, m.h.msg_iovlen);
	if (err)
		return err;
	res = io_recv(&io, &w);
	if (res < 0)
		return res;
	o.user = m.h.msg_control;
	o.room = m.h.msg_control ? m.h.msg_controllen : 0;
	if (io.s->type == SOCK_DGRAM && w.addr.family)
		controls_out(&o, io.s, &w);
	out = (int)w.msg_flags | (o.truncated ? MSG_CTRUNC : 0) | (flags & MSG_CMSG_CLOEXEC);
	if (o.fault || name_out(&m, &w) ||
	    sc_copy_to_user(&m.user->msg_controllen, &o.used, sizeof(o.used)) ||
	    sc_copy_to_user(&m.user->msg_flags, &out, sizeof(out)))
		return -EFAULT;
	return res;
}

long call_recvmsg(struct sc_thread *t, const struct sc_call *c)
{
	if (kind_of(c->file) != SC_KIND_SOCK)
		return kind_of(c->file) == SC_KIND_FILE ? not_socket(c->file) : SC_NATIVE;
	return recv_msg(t, c, (void *)c->a[1], sc_int(c->a[2]));
}

long call_sendmmsg(struct sc_thread *t, const struct sc_call *c)
{
	struct mmsghdr *user = (struct mmsghdr *)c->a[1];
	uint32_t n = (uint32_t)c->a[2], i;
	long res = 0;

	if (kind_of(c->file) == SC_KIND_FILE)
		return not_socket(c->file);
	if (n > IOV_LIMIT)
		n = IOV_LIMIT;
	for (i = 0; i < n; i++) {
		uint32_t len;

		res = send_msg(t, c, &user[i].msg_hdr, sc_int(c->a[3]));
		if (res == SC_NATIVE && i == 0)
			return res;
		if (res < 0)
			break;
		len = (uint32_t)res;
		if (sc_copy_to_user(&user[i].msg_len, &len, sizeof(len)))
			return i ? (long)i : -EFAULT;
	}
	return i ? (long)i : res;
}

long call_recvmmsg(struct sc_thread *t, const struct sc_call *c)
{
	struct mmsghdr *user = (struct mmsghdr *)c->a[1];
	uint32_t n = (uint32_t)c->a[2], i;
	int flags = sc_int(c->a[3]);
	uint64_t deadline = SC_NET_FOREVER;
	struct timespec ts;
	long res = 0;

	if (kind_of(c->file) != SC_KIND_SOCK)
		return kind_of(c->file) == SC_KIND_FILE ? not_socket(c->file) : SC_NATIVE;
	if (c->a[4]) {
		if (sc_copy_from_user(&ts, (const void *)c->a[4], sizeof(ts)))
			return -EFAULT;
		if (ts.tv_sec < 0 || (unsigned long)ts.tv_nsec >= 1000000000ul)
			return -EINVAL;
		deadline =
		    sc_net_deadline((uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000);
	}
	if (n > IOV_LIMIT)
		n = IOV_LIMIT;
	for (i = 0; i < n; i++) {
		uint32_t len;

		res = recv_msg(t, c, &user[i].msg_hdr, flags & ~MSG_WAITFORONE);
		if (res < 0)
			break;
		len = (uint32_t)res;
		if (sc_copy_to_user(&user[i].msg_len, &len, sizeof(len)))
			return i ? (long)i : -EFAULT;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		/* as the kernel: looked at after each datagram only */
		if (deadline != SC_NET_FOREVER && sc_now_us() >= deadline) {
			i++;
			break;
		}
	}
	return i ? (long)i : res;
}
