/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_sock.c - sockets' life in this process: fresh ones, moving to a domain, accepting, sessions, segments.
 *
 * Theory of operation
 *
 * socket() is the kernel's. If routes exist, the descriptor gets an entry of kind FRESH, so that what is done with it before
 * its address is known can be done again in a domain: options are kept in a list, places in epoll sets stay known. The move
 * makes a socket in the domain, sets the options there, and puts the ticket at the descriptor's number (dup3), where the
 * kernel's socket was. Other descriptors of the same socket in this process move, too; those of other processes do not.
 *
 * A session must be granted a socket before it may kick it or be told of its events. That is done when a process first
 * uses the socket (sc_net_enter()): after a fork, an exec, or when the session changed. The mapping of a segment, though, is
 * inherited by fork, so that the rings are where they were.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "libfd.h"
#include "net.h"
#include "process.h"

#define SLAB_BYTES    65536u
#define SEGMENT_TRIES 4u
#define MAP_BYTES     (SC_NET_SOCKETS * sizeof(void *))

static SC_FORK_DATA struct sc_mutex slab_lock;
static struct sc_nsock *slab_free;	       /* through `items` of a free one */
static SC_FORK_DATA struct sc_mutex chan_lock; /* making of a channel's net part */

/* ---- objects ---- */

static struct sc_nsock *nsock_new(void)
{
	struct sc_nsock *s;

	sc_mutex_lock(&slab_lock);
	if (!slab_free) {
		s = sc_map(SLAB_BYTES);
		for (uint32_t i = 0; s && i < SLAB_BYTES / sizeof(*s); i++) {
			s[i].items = (struct sc_epitem *)slab_free;
			slab_free = s + i;
		}
	}
	s = slab_free;
	if (s)
		slab_free = (struct sc_nsock *)s->items;
	sc_mutex_unlock(&slab_lock);
	if (!s)
		return NULL;
	memset(s, 0, sizeof(*s));
	s->refs = 1;
	s->holds = 1;
	return s;
}

static void opts_free(struct sc_nsock *s)
{
	while (s->opts) {
		struct sc_sockopt *o = s->opts;

		s->opts = o->next;
		sc_unmap(o, sizeof(*o) + o->len);
	}
}

static void nsock_free(struct sc_nsock *s)
{
	opts_free(s);
	sc_mutex_lock(&slab_lock);
	s->items = (struct sc_epitem *)slab_free;
	slab_free = s;
	sc_mutex_unlock(&slab_lock);
}

void sc_net_ref(struct sc_file *f)
{
	if (f->kind == SC_KIND_EPOLL)
		sc_epoll_ref(f->net);
	else
		__atomic_fetch_add(&sc_nsock_of(f)->refs, 1, __ATOMIC_RELAXED);
}

/* The socket's index leads nowhere any more. */
static void unmap_index(struct sc_dom *d, struct sc_nsock *s)
{
	struct sc_chan *c = __atomic_load_n(&d->chan, __ATOMIC_ACQUIRE);
	struct sc_netchan *nc = c ? __atomic_load_n(&c->net, __ATOMIC_ACQUIRE) : NULL;

	if (!nc)
		return;
	sc_mutex_lock(&nc->lock);
	if (nc->map[s->index] == s)
		nc->map[s->index] = NULL;
	sc_mutex_unlock(&nc->lock);
}

void sc_net_unref(struct sc_file *f)
{
	struct sc_nsock *s;

	if (f->kind == SC_KIND_EPOLL) {
		sc_epoll_unref(f->net);
		return;
	}
	s = sc_nsock_of(f);
	if (__atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL))
		return;
	sc_epoll_forget(s);
	if (f->dom)
		unmap_index(f->dom, s);
	sc_nsock_put(s);
}

void sc_nsock_hold(struct sc_nsock *s)
{
	__atomic_fetch_add(&s->holds, 1, __ATOMIC_RELAXED);
}

void sc_nsock_put(struct sc_nsock *s)
{
	if (__atomic_sub_fetch(&s->holds, 1, __ATOMIC_ACQ_REL) == 0)
		nsock_free(s);
}

/* ---- the channel's side ---- */

/* Tells the agent where this session's net area is. */
static long area_tell(struct sc_thread *t, struct sc_hlane *l, const struct sc_netchan *nc,
		      bool asks)
{
	struct sc_slot s = {.op = SC_OP_NET_ATTACH,
			    .buf = (uint32_t)((uint8_t *)nc->area - l->chan->base),
			    .len = sizeof(struct sc_net_area),
			    .arg0 = asks};

	return sc_lane_call(t, l, &s, NULL, 0);
}

static uint32_t incarnation(const struct sc_chan *c)
{
	return __atomic_load_n(&c->host->incarnation, __ATOMIC_ACQUIRE);
}

static long area_attach(struct sc_thread *t, struct sc_hlane *l, struct sc_netchan *nc)
{
	uint32_t got, off = sc_pool_get(l->chan, 1, &got, true);

	if (!off)
		return -ENOBUFS; /* otherwise the block is never given back */
	nc->area = (struct sc_net_area *)sc_chan_ptr(l->chan, off);
	memset(nc->area, 0, sizeof(*nc->area));
	nc->incarnation = incarnation(l->chan);
	return area_tell(t, l, nc, false);
}

/* With chan_lock. */
static void ask_again(struct sc_thread *t, struct sc_hlane *l, struct sc_netchan *nc)
{
	uint32_t now = incarnation(l->chan);
	long res = now == nc->incarnation ? -EIO : area_tell(t, l, nc, true);

	if (res < 0 && res != -EEXIST)
		return; /* it has not changed, or has gone again */
	if (!res) {
		sc_netmem_abandon(l->chan->dom);
		sc_net_lose(nc, true);
	}
	__atomic_store_n(&nc->incarnation, now, __ATOMIC_RELAXED);
}

void sc_net_resume(struct sc_thread *t, struct sc_netchan *nc)
{
	struct sc_hlane *l;

	if (sc_lane_get(t, nc->chan->dom, &l))
		return;
	sc_mutex_lock(&chan_lock);
	if (l->chan == nc->chan)
		ask_again(t, l, nc);
	sc_mutex_unlock(&chan_lock);
	sc_lane_put(t, l);
}

static long netchan_make(struct sc_thread *t, struct sc_hlane *l)
{
	struct sc_netchan *nc = sc_map(sizeof(*nc));
	long err = -ENOMEM;

	if (!nc)
		return err;
	nc->chan = l->chan;
	nc->map = sc_map(MAP_BYTES);
	if (nc->map)
		err = area_attach(t, l, nc);
	if (err < 0) {
		sc_netchan_free(nc);
		return err;
	}
	sc_chan_hold(l->chan); /* sockets lie in it: it stays mapped */
	__atomic_store_n(&l->chan->net, nc, __ATOMIC_RELEASE);
	sc_netmem_known(t, l);
	return 0;
}

static long netchan_get(struct sc_thread *t, struct sc_hlane *l, struct sc_netchan **nc)
{
	long err = 0;

	sc_mutex_lock(&chan_lock);
	if (!l->chan->net)
		err = netchan_make(t, l);
	*nc = l->chan->net;
	sc_mutex_unlock(&chan_lock);
	return err;
}

void sc_netchan_free(struct sc_netchan *nc)
{
	if (!nc)
		return;
	if (nc->map)
		sc_unmap(nc->map, MAP_BYTES);
	sc_unmap(nc, sizeof(*nc));
}

/* ---- where a socket's object lies ---- */

static long place(struct sc_thread *t, struct sc_nsock *s, struct sc_chan *c,
		  const struct sc_sock_loc *loc, uint64_t handle)
{
	uint32_t start = loc->segment ? 0 : c->lay.arena_off;
	uint64_t size = c->lay.size;
	uint8_t *base = loc->segment ? sc_netmem_base(t, loc->segment, &size) : c->base;

	if (!base || size > UINT32_MAX || !sc_sock_loc_valid(loc, start, (uint32_t)size))
		return -EIO;
	if ((uint32_t)handle >= SC_NET_SOCKETS)
		return -EIO;
	s->index = (uint32_t)handle;
	s->family = loc->family;
	s->type = loc->type;
	s->protocol = loc->protocol;
	s->segment = loc->segment;
	s->tx_size = 1u << loc->tx_log2;
	s->rx_size = 1u << loc->rx_log2;
	s->tx = base + loc->off + sizeof(struct sc_sock);
	s->rx = s->tx + s->tx_size;
	/* release: whoever sees the object sees the rest */
	__atomic_store_n(&s->sh, (struct sc_sock *)(base + loc->off), __ATOMIC_RELEASE);
	return 0;
}

static void map_index(struct sc_netchan *nc, struct sc_nsock *s)
{
	sc_mutex_lock(&nc->lock);
	nc->map[s->index] = s;
	sc_mutex_unlock(&nc->lock);
}

/* Grants the socket to this session and learns where it lies. */
static long grant(struct sc_thread *t, struct sc_hlane *l, struct sc_file *f)
{
	struct sc_nsock *s = sc_nsock_of(f);
	struct sc_slot slot = {.op = SC_OP_GRANT,
			       .handle = f->handle,
			       .buf2 = sc_lane_off(l, SC_LB_DATA),
			       .len2 = sizeof(struct sc_sock_loc),
			       .arg2 = f->secret};
	struct sc_sock_loc loc;
	long res = sc_lane_call(t, l, &slot, NULL, 0);

	if (res < 0)
		return -EIO;
	memcpy(&loc, sc_chan_ptr(l->chan, slot.buf2), sizeof(loc));
	if (!s->sh)
		return place(t, s, l->chan, &loc, f->handle);
	return 0;
}

static long enter_slow(struct sc_thread *t, struct sc_file *f, struct sc_netchan **nc)
{
	struct sc_nsock *s = sc_nsock_of(f);
	struct sc_hlane *l;
	long err = sc_lane_get(t, f->dom, &l);

	if (err)
		return err;
	err = netchan_get(t, l, nc);
	if (!err && f->gen != l->chan->gen) {
		err = grant(t, l, f);
		if (!err) {
			map_index(*nc, s);
			__atomic_store_n(&f->gen, l->chan->gen, __ATOMIC_RELEASE);
		}
	}
	sc_lane_put(t, l);
	return err;
}

long sc_net_enter(struct sc_thread *t, struct sc_file *f, struct sc_netchan **nc)
{
	struct sc_chan *c = sc_chan_of(t, f->dom);

	if (c && __atomic_load_n(&f->gen, __ATOMIC_ACQUIRE) == c->gen) {
		*nc = __atomic_load_n(&c->net, __ATOMIC_ACQUIRE);
		if (*nc && sc_net_changed(*nc))
			sc_net_resume(t, *nc);
		if (*nc)
			return 0;
	}
	return enter_slow(t, f, nc);
}

long sc_net_call(struct sc_thread *t, struct sc_file *f, struct sc_opx *x)
{
	struct sc_netchan *nc;
	long err = sc_net_enter(t, f, &nc);

	return err ? err : sc_file_call(t, f, x);
}

/* ---- fresh sockets ---- */

static struct sc_nsock *nsock_fresh(int family, int type, int protocol)
{
	struct sc_nsock *s = nsock_new();

	if (!s)
		return NULL;
	s->family = (uint16_t)family;
	s->type = (uint16_t)type;
	s->protocol = (uint16_t)protocol;
	return s;
}

void sc_net_fresh(struct sc_thread *t, int fd, int family, int type, int protocol)
{
	struct sc_nsock *s = nsock_fresh(family, type, protocol);

	if (s && sc_fd_install(t, fd, SC_KIND_FRESH, s))
		nsock_free(s);
}

static long native_int(int fd, int name)
{
	int v = -1;
	uint32_t len = sizeof(v);
	long err = sc_raw_syscall(__NR_getsockopt, fd, SOL_SOCKET, name, (long)&v, (long)&len, 0);

	return err ? err : v;
}

struct sc_file *sc_net_refresh(struct sc_thread *t, int fd)
{
	long family = native_int(fd, SO_DOMAIN), type;
	uint64_t addr[16];
	uint32_t len = sizeof(addr);

	if (family != AF_INET && family != AF_INET6)
		return NULL;
	type = native_int(fd, SO_TYPE);
	if (type != SOCK_STREAM && type != SOCK_DGRAM)
		return NULL;
	if (sc_sys3(__NR_getpeername, fd, addr, &len) != -ENOTCONN)
		return NULL;
	len = sizeof(addr);
	if (sc_sys3(__NR_getsockname, fd, addr, &len) || ((uint16_t *)addr)[1])
		return NULL; /* it has a port: somebody bound it */
	sc_net_fresh(t, fd, (int)family, (int)type, (int)native_int(fd, SO_PROTOCOL));
	return sc_fd_any(t, fd);
}

void sc_net_leave(struct sc_thread *t, int fd, struct sc_file *f)
{
	/* A datagram socket may be connected elsewhere later: it stays known. */
	if (sc_nsock_of(f)->type == SOCK_STREAM)
		sc_fd_uninstall(t, f);
	(void)fd;
}

/* ---- moving to a domain ---- */

struct move {
	struct sc_sock_loc loc;
	uint64_t handle;
	uint64_t secret;
	uint64_t ticket;
	int ticket_fd;
	uint32_t gen;
	struct sc_netchan *nc;
};

/* Makes the socket there; gives memory as long as the agent asks for it. */
static long make_remote(struct sc_thread *t, struct sc_hlane *l, struct sc_nsock *s, struct move *m)
{
	struct sc_slot slot;
	long res = netchan_get(t, l, &m->nc);

	if (res)
		return res;
	m->secret = sc_random();
	m->gen = l->chan->gen;
	for (uint32_t tries = 0;; tries++) {
		slot = (struct sc_slot){
		    .op = SC_OP_SOCKET,
		    .buf2 = sc_lane_off(l, SC_LB_DATA),
		    .len2 = sizeof(m->loc),
		    .arg0 = s->family | (uint32_t)s->type << 16 | (uint64_t)s->protocol << 32,
		    .arg1 = m->ticket,
		    .arg2 = m->secret,
		};
		res = sc_lane_call(t, l, &slot, NULL, 0);
		if (res != -ENOBUFS || tries == SEGMENT_TRIES)
			break;
		res = sc_netmem_more(t, l, 0);
		if (res < 0)
			return res;
	}
	if (res < 0)
		return res;
	m->handle = (uint64_t)res;
	memcpy(&m->loc, sc_chan_ptr(l->chan, slot.buf2), sizeof(m->loc));
	m->loc.family = s->family;
	m->loc.type = s->type;
	m->loc.protocol = s->protocol;
	return place(t, s, l->chan, &m->loc, m->handle);
}

static void set_options(struct sc_thread *t, struct sc_file *f)
{
	struct sc_nsock *s = sc_nsock_of(f);

	for (struct sc_sockopt *o = s->opts; o; o = o->next)
		sc_sockopt_set(t, f, o->level, o->name, o->value, o->len);
	opts_free(s);
}

long sc_net_move(struct sc_thread *t, int fd, struct sc_file *f, struct sc_dom *d)
{
	struct sc_nsock *s = sc_nsock_of(f);
	struct move m = {0};
	struct sc_hlane *l;
	long flags = sc_sys2(__NR_fcntl, fd, F_GETFL);
	long err = sc_ticket_get(t, d, &m.ticket, &m.ticket_fd);

	if (err)
		return err;
	err = sc_lane_get(t, d, &l);
	if (!err) {
		err = make_remote(t, l, s, &m);
		sc_lane_put(t, l);
	}
	if (err) {
		sc_ticket_put(d, m.ticket, m.ticket_fd);
		return err == -EIO ? -ENETDOWN : err;
	}
	if (flags > 0 && flags & O_NONBLOCK)
		__atomic_store_n(&sc_sock_host(s)->nonblock, 1, __ATOMIC_RELAXED);
	f->handle = m.handle;
	f->secret = m.secret;
	f->ticket = m.ticket;
	f->ticket_fd = m.ticket_fd;
	f->dom = d;
	f->oflags = O_RDWR | (flags > 0 ? (uint32_t)flags & O_NONBLOCK : 0);
	f->type = S_IFSOCK;
	f->flags = 0;
	map_index(m.nc, s);
	__atomic_store_n(&f->gen, m.gen, __ATOMIC_RELEASE);
	sc_epoll_migrate(t, s);
	sc_fd_become_sock(t, f);
	set_options(t, f);
	return 0;
}

/* ---- accepting ---- */

long sc_accept_begin(struct sc_thread *t, struct sc_file *listener, bool cloexec,
		     struct sc_opening *o)
{
	*o = (struct sc_opening){0};
	return sc_open_begin(t, listener->dom, true, cloexec, o);
}

/* The session owns the connection from now on. It may have lain in memory of a sister process; now it lies in ours. */
static long adopt(struct sc_thread *t, struct sc_hlane *l, struct sc_file *listener,
		  const struct sc_opening *o, const struct sc_accept *a, struct sc_nsock *s)
{
	struct sc_slot slot;
	struct sc_sock_loc loc;
	struct sc_netchan *nc;
	long res = netchan_get(t, l, &nc);

	if (res)
		return res;
	for (uint32_t tries = 0;; tries++) {
		slot = (struct sc_slot){.op = SC_OP_ADOPT,
					.handle = listener->handle,
					.arg0 = a->handle,
					.arg1 = o->ticket,
					.arg2 = o->secret,
					.buf2 = sc_lane_off(l, SC_LB_DATA),
					.len2 = sizeof(loc)};
		res = sc_lane_call(t, l, &slot, NULL, 0);
		if (res != -ENOBUFS || tries == SEGMENT_TRIES)
			break;
		res = sc_netmem_more(t, l, 0);
		if (res < 0)
			return res;
	}
	if (res < 0)
		return res;
	memcpy(&loc, sc_chan_ptr(l->chan, slot.buf2), sizeof(loc));
	res = place(t, s, l->chan, &loc, a->handle);
	if (!res)
		map_index(nc, s);
	return res;
}

long sc_accept_done(struct sc_thread *t, struct sc_file *listener, struct sc_opening *o,
		    const struct sc_accept *a, uint32_t oflags, bool cloexec)
{
	struct sc_nsock *s = nsock_new();
	struct sc_hlane *l;
	long res = s ? sc_lane_get(t, listener->dom, &l) : -ENOMEM;

	if (!res) {
		res = adopt(t, l, listener, o, a, s);
		sc_lane_put(t, l);
	}
	if (res < 0) {
		sc_open_undo(t, o);
		if (s)
			nsock_free(s);
		return res == -ENOMEM ? res : -ECONNABORTED;
	}
	s->connect = SC_CONNECT_DONE;
	__atomic_store_n(&sc_sock_host(s)->nonblock, oflags & O_NONBLOCK ? 1 : 0, __ATOMIC_RELAXED);
	o->kind = SC_KIND_SOCK;
	o->net = s;
	return sc_open_done(t, o, a->handle, O_RDWR | oflags, S_IFSOCK, cloexec);
}

void sc_net_more(struct sc_thread *t, struct sc_file *f, uint64_t min)
{
	struct sc_hlane *l;

	if (sc_lane_get(t, f->dom, &l))
		return;
	sc_netmem_more(t, l, min);
	sc_lane_put(t, l);
}

/* ---- processes ---- */

bool sc_net_adopt(struct sc_file *f, uint32_t family, uint32_t type, uint32_t protocol)
{
	struct sc_nsock *s = nsock_fresh((int)family, (int)type, (int)protocol);

	if (!s)
		return false;
	s->index = (uint32_t)f->handle & (SC_NET_SOCKETS - 1);
	f->kind = SC_KIND_SOCK;
	f->net = s;
	return true;
}

SC_HOT_TEXT void sc_net_before_fork(void)
{
	sc_mutex_lock(&chan_lock);
	sc_netmem_before_fork();
	sc_mutex_lock(&slab_lock);
}

SC_HOT_TEXT void sc_net_after_fork_parent(void)
{
	sc_mutex_unlock(&slab_lock);
	sc_netmem_after_fork(false);
	sc_mutex_unlock(&chan_lock);
}

SC_HOT_TEXT void sc_net_after_fork_child(struct sc_proc *p)
{
	sc_mutex_reset(&slab_lock);
	sc_mutex_reset(&chan_lock);
	sc_netmem_after_fork(true);
	for (uint32_t i = 1; i < p->fds.file_high; i++) {
		struct sc_file *f = &p->fds.files[i];
		struct sc_nsock *s = f->net;

		if (!f->net)
			continue;
		if (f->kind == SC_KIND_EPOLL) {
			sc_epoll_after_fork(f->net);
			continue;
		}
		sc_mutex_reset(&s->lock);
		s->waiters = NULL; /* of threads that are not here */
		if (f->kind == SC_KIND_SOCK && s->segment == 0)
			s->sh = NULL; /* it lay in the parent's channel */
	}
}
