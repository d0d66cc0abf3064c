/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * calls_sock.c - sockets of network domains: making, naming, connecting, accepting, and what is neither sending (calls_sockio.c)
 * nor an option (calls_sockopt.c).
 *
 * Which domain serves a socket is decided by the first address that it is given (net.h, net_route.c); here stand the calls
 * that give one. Each of them meets four kinds of descriptors: a file (ENOTSOCK), a socket of a domain, a fresh one, and one
 * that the kernel serves.
 */
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#include "calls.h"
#include "net.h"

#define NAME_TRIES   64 /* looks at a name that the agent is changing */
#define SIN6_LEN_MIN 24 /* sockaddr_in6 without its scope, as old programs pass it */
#define ACCEPT_FLAGS (SOCK_CLOEXEC | SOCK_NONBLOCK)
#define LISTEN_BYTES (8u << 20) /* of memory for a listener's connections, to begin with */
#define TYPE_MASK    0xf

static uint32_t kind_of(const struct sc_file *f)
{
	return f ? __atomic_load_n(&f->kind, __ATOMIC_ACQUIRE) : ~0u;
}

/* A socket call on something that is not one. (The ticket at a file's number is a socket: it must not be reached.) */
static long not_socket(const struct sc_file *f)
{
	return sc_is_path(f) ? -EBADF : -ENOTSOCK;
}

/* ---- addresses ---- */

long sc_addr_get(const void *user, long len, struct sc_sockaddr *out)
{
	*out = (struct sc_sockaddr){0};
	if (len < 0 || len > 128)
		return -EINVAL;
	if (len > (long)sizeof(*out))
		len = sizeof(*out);
	if (sc_copy_from_user(out, user, (size_t)len))
		return -EFAULT;
	if (len < (long)sizeof(out->family))
		return -EINVAL;
	if (out->family == AF_INET) {
		if (len < (long)sizeof(struct sockaddr_in))
			return -EINVAL;
		memset(out->addr6, 0, sizeof(out->addr6));
		out->scope = 0;
	}
	return out->family == AF_INET6 && len < SIN6_LEN_MIN ? -EINVAL : 0;
}

long sc_addr_put(const struct sc_sockaddr *a, void *user, void *user_len)
{
	struct sc_sockaddr copy = *a;
	int full = a->family == AF_INET6 ? (int)sizeof(struct sockaddr_in6)
					 : (int)sizeof(struct sockaddr_in);
	int room;

	if (sc_copy_from_user(&room, user_len, sizeof(room)))
		return -EFAULT;
	if (room < 0)
		return -EINVAL;
	if (a->family == AF_INET)
		memset(copy.addr6, 0, sizeof(copy.addr6));
	if (sc_copy_to_user(user, &copy, (size_t)(room < full ? room : full)))
		return -EFAULT;
	return sc_copy_to_user(user_len, &full, sizeof(full));
}

/* Reads one of the names that the agent keeps ready. */
static void read_name(struct sc_nsock *s, bool peer, struct sc_sockaddr *out)
{
	const struct sc_sockaddr *from = peer ? &s->sh->peer : &s->sh->local;
	uint32_t before;

	for (int i = 0; i < NAME_TRIES; i++) {
		before = __atomic_load_n(&s->sh->name_seq, __ATOMIC_ACQUIRE);
		memcpy(out, from, sizeof(*out));
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (!(before & 1) && __atomic_load_n(&s->sh->name_seq, __ATOMIC_RELAXED) == before)
			return;
		__builtin_ia32_pause();
	}
}

/* ---- socket ---- */

static long socket_made(struct sc_thread *t, long fd)
{
	int type = (int)t->native.a[1] & TYPE_MASK;
	int family = (int)t->native.a[0];

	if (fd >= 0 && (type == SOCK_STREAM || type == SOCK_DGRAM))
		sc_net_fresh(t, (int)fd, family, type, (int)t->native.a[2]);
	return fd;
}

long call_socket(struct sc_thread *t, const struct sc_call *c)
{
	int family = sc_int(c->a[0]);

	if (family != AF_INET && family != AF_INET6)
		return SC_NATIVE;
	return sc_native_changed(t, c, socket_made);
}

/* ---- bind ---- */

/* An operation with an address. */
static long addr_op(struct sc_thread *t, struct sc_file *f, uint16_t op, struct sc_sockaddr *a)
{
	struct sc_opx x = {.op = op, .d1 = {.p = a, .len = sizeof(*a), .in = 1}};

	return sc_net_call(t, f, &x);
}

/* May a socket of that family have such an address? */
static long family_error(const struct sc_nsock *s, const struct sc_sockaddr *a)
{
	return a->family == s->family ? 0 : -EAFNOSUPPORT;
}

static long bind_sock(struct sc_thread *t, struct sc_file *f, struct sc_sockaddr *a)
{
	long err;

	if (a->family == AF_UNSPEC && sc_nsock_of(f)->family == AF_INET && !a->flow)
		a->family = AF_INET;
	err = family_error(sc_nsock_of(f), a);
	return err ? err : addr_op(t, f, SC_OP_BIND, a);
}

static long bind_fresh(struct sc_thread *t, int fd, struct sc_file *f, struct sc_sockaddr *a)
{
	struct sc_dom *d = a->family == sc_nsock_of(f)->family ? sc_netroute_to(a, true) : NULL;
	long err;

	if (!d) {
		sc_fd_uninstall(t, f); /* bound here, it stays here */
		return SC_NATIVE;
	}
	err = sc_net_move(t, fd, f, d);
	return err ? err : bind_sock(t, f, a);
}

/* Does a Unix socket's address name a remote path? */
static bool remote_path(struct sc_thread *t, const void *user, long len)
{
	struct sockaddr_un un;
	uint32_t rest;
	bool dotdot;

	if (len <= (long)sizeof(un.sun_family) || len > (long)sizeof(un))
		return false;
	memset(&un, 0, sizeof(un));
	if (sc_copy_from_user(&un, user, (size_t)len) || un.sun_family != AF_UNIX)
		return false;
	if (!un.sun_path[0])
		return false; /* abstract, or unnamed */
	un.sun_path[sizeof(un.sun_path) - 1] = 0;
	if (un.sun_path[0] != '/')
		return t->proc->cwd != NULL;
	return sc_route_match(un.sun_path, &rest, &dotdot) != NULL;
}

/* A descriptor that we do not know, and an address of a domain: is it a socket that may move there? */
static struct sc_file *unknown(struct sc_thread *t, int fd, const struct sc_sockaddr *a, bool local)
{
	return sc_nnetroutes && sc_netroute_to(a, local) ? sc_net_refresh(t, fd) : NULL;
}

/* Unix sockets meet in the host's kernel and cannot have their name in a storage domain. */
long call_bind(struct sc_thread *t, const struct sc_call *c)
{
	int fd = sc_int(c->a[0]);
	struct sc_file *f = sc_fd_any(t, fd);
	struct sc_sockaddr a;
	long err;

	if (kind_of(f) == SC_KIND_FILE)
		return not_socket(f);
	if (!f && remote_path(t, (const void *)c->a[1], sc_int(c->a[2])))
		return -EPERM;
	if (!f && !sc_nnetroutes)
		return SC_NATIVE;
	err = sc_addr_get((const void *)c->a[1], sc_int(c->a[2]), &a);
	if (!f && !err)
		f = unknown(t, fd, &a, true);
	if (!f || kind_of(f) == SC_KIND_EPOLL || (err && kind_of(f) == SC_KIND_FRESH))
		return SC_NATIVE;
	if (err)
		return err;
	return kind_of(f) == SC_KIND_FRESH ? bind_fresh(t, fd, f, &a) : bind_sock(t, f, &a);
}

/* ---- connect ---- */

uint32_t sc_net_take_error(struct sc_nsock *s)
{
	/* acquire: the error was written before its number */
	uint32_t seq = __atomic_load_n(&s->sh->err_seq, __ATOMIC_ACQUIRE);
	uint32_t err;

	if (seq == __atomic_load_n(&s->sh->err_taken, __ATOMIC_RELAXED))
		return 0;
	err = __atomic_load_n(&s->sh->error, __ATOMIC_RELAXED);
	__atomic_store_n(&s->sh->err_taken, seq, __ATOMIC_RELAXED);
	return err && err < 4096 ? err : EIO;
}

static bool nonblocking(const struct sc_nsock *s)
{
	return __atomic_load_n(&sc_sock_host(s)->nonblock, __ATOMIC_RELAXED) != 0;
}

/* How connecting went, once it is over. */
static long connect_outcome(struct sc_nsock *s)
{
	uint32_t err = sc_net_take_error(s);

	if (__atomic_load_n(&s->sh->state, __ATOMIC_ACQUIRE) == SC_SOCK_CONNECTED) {
		s->connect = SC_CONNECT_DONE;
		return 0;
	}
	s->connect = SC_CONNECT_NOT;
	return err ? -(long)err : -ECONNABORTED;
}

static uint64_t time_limit(uint64_t us)
{
	return us ? sc_net_deadline(us) : SC_NET_FOREVER;
}

static long connect_wait(struct sc_thread *t, struct sc_file *f)
{
	struct sc_nsock *s = sc_nsock_of(f);
	uint64_t us = __atomic_load_n(&sc_sock_host(s)->sndtimeo_us, __ATOMIC_RELAXED);
	uint64_t deadline = time_limit(us);
	struct sc_netchan *nc;
	long err = sc_net_enter(t, f, &nc);

	while (!err && __atomic_load_n(&s->sh->state, __ATOMIC_ACQUIRE) == SC_SOCK_CONNECTING)
		err = sc_net_wait(t, nc, s, POLLOUT | POLLIN, deadline);
	if (err == -SC_ERESTART && us)
		return -EINTR;
	if (err == -EAGAIN)
		return -EINPROGRESS;
	return err ? err : connect_outcome(s);
}

/* A stream socket. */
static long connect_stream(struct sc_thread *t, struct sc_file *f, struct sc_sockaddr *a)
{
	struct sc_nsock *s = sc_nsock_of(f);
	uint32_t state = __atomic_load_n(&s->sh->state, __ATOMIC_ACQUIRE);
	long res;

	if (s->connect == SC_CONNECT_DONE || state == SC_SOCK_LISTEN)
		return -EISCONN;
	if (s->connect == SC_CONNECT_BEGUN || state == SC_SOCK_CONNECTING) {
		if (state != SC_SOCK_CONNECTING)
			return connect_outcome(s);
		return nonblocking(s) ? -EALREADY : connect_wait(t, f);
	}
	res = addr_op(t, f, SC_OP_CONNECT, a);
	if (res != -EINPROGRESS) {
		s->connect = res ? SC_CONNECT_NOT : SC_CONNECT_DONE;
		return res;
	}
	s->connect = SC_CONNECT_BEGUN;
	return nonblocking(s) ? res : connect_wait(t, f);
}

static long connect_sock(struct sc_thread *t, struct sc_file *f, struct sc_sockaddr *a)
{
	struct sc_nsock *s = sc_nsock_of(f);
	struct sc_netchan *nc;
	long res = sc_net_enter(t, f, &nc);

	if (!res && a->family != AF_UNSPEC)
		res = family_error(s, a);
	if (res)
		return res;
	if (s->type == SOCK_STREAM && a->family != AF_UNSPEC)
		return connect_stream(t, f, a);
	s->connect = SC_CONNECT_NOT;
	return addr_op(t, f, SC_OP_CONNECT, a);
}

static long connect_fresh(struct sc_thread *t, int fd, struct sc_file *f, struct sc_sockaddr *a)
{
	struct sc_dom *d = a->family == sc_nsock_of(f)->family ? sc_netroute_to(a, false) : NULL;
	long err;

	if (!d) {
		if (a->family != AF_UNSPEC)
			sc_net_leave(t, fd, f);
		return SC_NATIVE;
	}
	err = sc_net_move(t, fd, f, d);
	return err ? err : connect_sock(t, f, a);
}

long call_connect(struct sc_thread *t, const struct sc_call *c)
{
	int fd = sc_int(c->a[0]);
	struct sc_file *f = sc_fd_any(t, fd);
	struct sc_sockaddr a;
	long err;

	if (kind_of(f) == SC_KIND_FILE)
		return not_socket(f);
	if (!f && remote_path(t, (const void *)c->a[1], sc_int(c->a[2])))
		return -ECONNREFUSED;
	if (!f && !sc_nnetroutes)
		return SC_NATIVE;
	err = sc_addr_get((const void *)c->a[1], sc_int(c->a[2]), &a);
	if (!f && !err)
		f = unknown(t, fd, &a, false);
	if (!f || kind_of(f) == SC_KIND_EPOLL || (err && kind_of(f) == SC_KIND_FRESH))
		return SC_NATIVE;
	if (err)
		return err;
	return kind_of(f) == SC_KIND_FRESH ? connect_fresh(t, fd, f, &a) : connect_sock(t, f, &a);
}

/* ---- listen, accept ---- */

static long listen_fresh(struct sc_thread *t, int fd, struct sc_file *f)
{
	struct sc_sockaddr any = {.family = sc_nsock_of(f)->family};
	struct sc_dom *d = sc_netroute_to(&any, true);

	if (d && sc_nsock_of(f)->type == SOCK_STREAM)
		return sc_net_move(t, fd, f, d);
	sc_fd_uninstall(t, f);
	return SC_NATIVE;
}

long call_listen(struct sc_thread *t, const struct sc_call *c)
{
	int backlog = sc_int(c->a[1]);
	struct sc_opx x = {.op = SC_OP_LISTEN, .arg0 = backlog < 0 ? 4096 : (uint64_t)backlog};
	long err = 0;

	if (kind_of(c->file) == SC_KIND_FILE)
		return not_socket(c->file);
	if (kind_of(c->file) == SC_KIND_FRESH)
		err = listen_fresh(t, sc_int(c->a[0]), c->file);
	if (err)
		return err;
	if (sc_nsock_of(c->file)->type != SOCK_STREAM)
		return -EOPNOTSUPP;
	err = sc_net_call(t, c->file, &x);
	if (!err)
		sc_net_more(t, c->file, LISTEN_BYTES); /* before it forks: all are to know it */
	return err;
}

/* Takes the oldest waiting connection out of the listener's ring. 1: one; 0: none; -errno. */
static long accept_take(struct sc_thread *t, struct sc_netchan *nc, struct sc_nsock *s,
			struct sc_accept *out)
{
	uint32_t *lock = &sc_sock_host(s)->rx_lock, head;
	long used;

	sc_ring_lock(t, lock);
	head = __atomic_load_n(&s->sh->rx_head, __ATOMIC_RELAXED);
	used = sc_ring_used(__atomic_load_n(&s->sh->rx_tail, __ATOMIC_ACQUIRE), head, s->rx_size);
	if (used >= (long)sizeof(*out) && head % sizeof(*out) == 0) {
		memcpy(out, s->rx + (head & (s->rx_size - 1)), sizeof(*out));
		used = sc_ring_mine(t, lock);
		if (used)
			__atomic_store_n(&s->sh->rx_head, head + (uint32_t)sizeof(*out),
					 __ATOMIC_RELEASE);
	} else if (used > 0) {
		used = -ECONNRESET;
	}
	sc_ring_unlock(t, lock);
	if (used == 1)
		sc_net_kick(nc, s, &s->sh->rx_want);
	return used;
}

/* One try. The new descriptor, -EAGAIN, or -errno. */
static long accept_try(struct sc_thread *t, struct sc_netchan *nc, struct sc_file *f, int flags,
		       struct sc_accept *a)
{
	struct sc_nsock *s = sc_nsock_of(f);
	struct sc_opening o;
	long res;

	if (__atomic_load_n(&s->sh->flags, __ATOMIC_RELAXED) & SC_SOCK_F_WANT_SEGMENT)
		sc_net_more(t, f, 0);
	if (!(sc_net_events(s, POLLIN, false) & POLLIN))
		return -EAGAIN;
	/* the number first: with no descriptor left the connection stays in the queue */
	res = sc_accept_begin(t, f, flags & SOCK_CLOEXEC, &o);
	if (res)
		return res;
	res = accept_take(t, nc, s, a);
	if (res == 1)
		return sc_accept_done(t, f, &o, a, flags & SOCK_NONBLOCK ? O_NONBLOCK : 0,
				      flags & SOCK_CLOEXEC);
	sc_open_undo(t, &o);
	return res ? res : -EAGAIN;
}

static long accept_any(struct sc_thread *t, const struct sc_call *c, int flags)
{
	struct sc_file *f = c->file;
	struct sc_nsock *s = sc_nsock_of(f);
	struct sc_netchan *nc;
	struct sc_accept a = {0};
	uint64_t us, deadline = 0;
	long res;

	if (kind_of(f) == SC_KIND_FILE)
		return not_socket(f);
	if (kind_of(f) == SC_KIND_FRESH)
		return SC_NATIVE;
	if (flags & ~ACCEPT_FLAGS)
		return -EINVAL;
	res = sc_net_enter(t, f, &nc);
	if (res)
		return res;
	if (s->type != SOCK_STREAM)
		return -EOPNOTSUPP;
	us = __atomic_load_n(&sc_sock_host(s)->rcvtimeo_us, __ATOMIC_RELAXED);
	for (;;) {
		if (__atomic_load_n(&s->sh->state, __ATOMIC_ACQUIRE) != SC_SOCK_LISTEN)
			return -EINVAL;
		res = accept_try(t, nc, f, flags, &a);
		if (res != -EAGAIN || nonblocking(s))
			break;
		if (!deadline)
			deadline = time_limit(us);
		res = sc_net_wait(t, nc, s, POLLIN, deadline);
		if (res)
			return res == -SC_ERESTART && us ? -EINTR : res;
	}
	if (res >= 0 && c->a[1]) {
		long err = sc_addr_put(&a.peer, (void *)c->a[1], (void *)c->a[2]);

		if (err) {
			sc_fd_close(t, (int)res);
			return err;
		}
	}
	return res;
}

long call_accept(struct sc_thread *t, const struct sc_call *c)
{
	return accept_any(t, c, 0);
}

long call_accept4(struct sc_thread *t, const struct sc_call *c)
{
	return accept_any(t, c, sc_int(c->a[3]));
}

/* ---- names ---- */

long call_getsockname(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_sockaddr a = {0};
	struct sc_netchan *nc;
	long err;

	if (kind_of(c->file) != SC_KIND_SOCK)
		return kind_of(c->file) == SC_KIND_FILE ? not_socket(c->file) : SC_NATIVE;
	err = sc_net_enter(t, c->file, &nc);
	if (err)
		return err;
	read_name(sc_nsock_of(c->file), false, &a);
	a.family = sc_nsock_of(c->file)->family;
	return sc_addr_put(&a, (void *)c->a[1], (void *)c->a[2]);
}

long call_getpeername(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_sockaddr a = {0};
	struct sc_nsock *s = sc_nsock_of(c->file);
	struct sc_netchan *nc;
	long err;

	if (kind_of(c->file) != SC_KIND_SOCK)
		return kind_of(c->file) == SC_KIND_FILE ? not_socket(c->file) : SC_NATIVE;
	err = sc_net_enter(t, c->file, &nc);
	if (err)
		return err;
	if (s->type == SOCK_STREAM &&
	    __atomic_load_n(&s->sh->state, __ATOMIC_ACQUIRE) != SC_SOCK_CONNECTED)
		return -ENOTCONN;
	read_name(s, true, &a);
	if (!a.family)
		return -ENOTCONN;
	a.family = s->family;
	return sc_addr_put(&a, (void *)c->a[1], (void *)c->a[2]);
}

long call_shutdown(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_opx x = {.op = SC_OP_SHUTDOWN, .arg0 = (uint32_t)c->a[1]};

	if (kind_of(c->file) != SC_KIND_SOCK)
		return kind_of(c->file) == SC_KIND_FILE ? not_socket(c->file) : SC_NATIVE;
	if (x.arg0 > SHUT_RDWR)
		return -EINVAL;
	return sc_net_call(t, c->file, &x);
}

/* ---- fcntl, ioctl ---- */

static void set_nonblock(struct sc_nsock *s, bool on)
{
	__atomic_store_n(&sc_sock_host(s)->nonblock, on ? 1 : 0, __ATOMIC_RELAXED);
}

static long sock_fcntl(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_netchan *nc;
	int cmd = sc_int(c->a[1]);
	long err;

	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
		return sc_fd_dup(t, sc_int(c->a[0]), sc_int(c->a[2]), cmd == F_DUPFD_CLOEXEC);
	if (cmd != F_GETFL && cmd != F_SETFL)
		return SC_NATIVE; /* the ticket's own: close-on-exec, owner */
	err = sc_net_enter(t, c->file, &nc);
	if (err)
		return err;
	if (cmd == F_GETFL)
		return O_RDWR | (nonblocking(sc_nsock_of(c->file)) ? O_NONBLOCK : 0);
	set_nonblock(sc_nsock_of(c->file), c->a[2] & O_NONBLOCK);
	return 0;
}

/* Bytes that the next read gets: of a stream all, of datagrams the first one's. */
static long bytes_in(struct sc_nsock *s)
{
	uint32_t head = __atomic_load_n(&s->sh->rx_head, __ATOMIC_RELAXED);
	long n = sc_ring_used(__atomic_load_n(&s->sh->rx_tail, __ATOMIC_ACQUIRE), head, s->rx_size);
	struct sc_dgram d;

	if (n <= 0 || s->type == SOCK_STREAM)
		return n < 0 ? 0 : n;
	memcpy(&d, s->rx + (head & (s->rx_size - 1) & ~(SC_DGRAM_ALIGN - 1)), sizeof(d));
	return d.len <= s->rx_size ? (long)d.len : 0;
}

static long sock_ioctl(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_nsock *s = sc_nsock_of(c->file);
	struct sc_netchan *nc;
	int value = 0;
	long err = sc_net_enter(t, c->file, &nc);

	if (err)
		return err;
	switch ((uint32_t)c->a[1]) {
	case FIONBIO:
		if (sc_copy_from_user(&value, (const void *)c->a[2], sizeof(value)))
			return -EFAULT;
		set_nonblock(s, value);
		return 0;
	case FIONREAD: /* and SIOCINQ */
		if (__atomic_load_n(&s->sh->state, __ATOMIC_RELAXED) == SC_SOCK_LISTEN)
			return -EINVAL;
		value = (int)bytes_in(s);
		break;
	case TIOCOUTQ: /* and SIOCOUTQ */
		err = sc_ring_used(__atomic_load_n(&s->sh->tx_tail, __ATOMIC_RELAXED),
				   __atomic_load_n(&s->sh->tx_head, __ATOMIC_ACQUIRE), s->tx_size);
		value = err < 0 ? 0 : (int)err;
		break;
	case SIOCATMARK:
		break;
	default:
		return SC_NATIVE; /* FIOCLEX and the like, and the host's interfaces */
	}
	return sc_copy_to_user((void *)c->a[2], &value, sizeof(value));
}

/* ---- who does what ---- */

static long dispatch_sock(struct sc_thread *t, const struct sc_call *c)
{
	switch (c->nr) {
	case __NR_read:
		return sc_sock_read(t, c);
	case __NR_write:
		return sc_sock_write(t, c);
	case __NR_readv:
		return sc_sock_readv(t, c);
	case __NR_writev:
		return sc_sock_writev(t, c);
	case __NR_preadv2:
		return c->a[3] == -1 ? sc_sock_readv(t, c) : SC_NATIVE;
	case __NR_pwritev2:
		return c->a[3] == -1 ? sc_sock_writev(t, c) : SC_NATIVE;
	case __NR_fcntl:
		return sock_fcntl(t, c);
	case __NR_ioctl:
		return sock_ioctl(t, c);
	case __NR_dup:
		return sc_fd_dup(t, sc_int(c->a[0]), 0, false);
	case __NR_listen:
	case __NR_accept:
	case __NR_accept4:
	case __NR_getsockname:
	case __NR_getpeername:
	case __NR_shutdown:
	case __NR_getsockopt:
	case __NR_setsockopt:
	case __NR_sendto:
	case __NR_recvfrom:
	case __NR_sendmsg:
	case __NR_recvmsg:
	case __NR_sendmmsg:
	case __NR_recvmmsg:
		return sc_handler_of(c->nr)(t, c);
	default:
		return SC_NATIVE; /* what the kernel says of the ticket, a socket too, is what it says of one */
	}
}

/* What is the kernel's and known to us: numbers are made known, some calls are looked at, all else is native. */
static long dispatch_local(struct sc_thread *t, const struct sc_call *c, uint32_t kind)
{
	int cmd = sc_int(c->a[1]);

	switch (c->nr) {
	case __NR_dup:
		return sc_fd_dup(t, sc_int(c->a[0]), 0, false);
	case __NR_fcntl:
		if (cmd != F_DUPFD && cmd != F_DUPFD_CLOEXEC)
			return SC_NATIVE;
		return sc_fd_dup(t, sc_int(c->a[0]), sc_int(c->a[2]), cmd == F_DUPFD_CLOEXEC);
	case __NR_epoll_wait:
	case __NR_epoll_pwait:
	case __NR_epoll_pwait2:
		return kind == SC_KIND_EPOLL ? sc_handler_of(c->nr)(t, c) : SC_NATIVE;
	case __NR_listen:
	case __NR_setsockopt:
	case __NR_sendto:
	case __NR_sendmsg:
	case __NR_sendmmsg:
		return kind == SC_KIND_FRESH ? sc_handler_of(c->nr)(t, c) : SC_NATIVE;
	default:
		return SC_NATIVE;
	}
}

long sc_net_dispatch(struct sc_thread *t, const struct sc_call *c)
{
	uint32_t kind = kind_of(c->file);

	return kind == SC_KIND_SOCK ? dispatch_sock(t, c) : dispatch_local(t, c, kind);
}
