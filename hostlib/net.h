/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net.h - sockets that network domains serve: what the files net_*.c and calls_sock*.c share.
 *
 * A descriptor that concerns us has an entry in the descriptor table whose kind says what it is:
 *
 *   SC_KIND_SOCK     a socket in a domain. The kernel's descriptor is its ticket (attach.h), as for files.
 *   SC_KIND_FRESH    an AF_INET or AF_INET6 socket of the kernel's whose address is not known yet. bind, connect, listen or a
 *                    first datagram decides: it moves to a domain (the same descriptor number; its options are set
 *                    there, too; its places in epoll sets are kept), or it stays with the kernel and is forgotten here.
 *   SC_KIND_EPOLL    an epoll instance of the kernel's to which sockets of domains were added
 *
 * Each has a struct sc_nsock or a struct sc_epoll of its own, shared by dup'ed descriptors.
 *
 * The memory. A socket's object (net.h of include/vhost-sc) lies in a segment that all processes that hold the socket
 * map; what a process knows of it is in its struct sc_nsock. To send or receive is to copy and to move an index; nobody
 * is asked. Two threads, or two processes, that do the same thing on one socket take a lock in the object (net_ring.c).
 *
 * Waiting (net_wait.c). The agent marks a socket that changed in the session's net area, and rings the session's doorbell if
 * a thread said that it sleeps. Whoever is awakened first takes the marks and wakes those who wait for these sockets.
 */
#ifndef HOSTLIB_NET_H
#define HOSTLIB_NET_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "chan-priv.h"
#include "dispatch.h"
#include "fdtable.h"
#include "lock.h"
#include <vhost-sc/net.h>

#define SC_NET_ROUTES  16u
#define SC_NET_FOREVER (~0ull) /* a deadline that never comes */

/* ---- routes (net_route.c) ---- */

extern uint32_t sc_nnetroutes; /* 0: no socket concerns us */

/* Adds one line "NAME[=CIDR]". 0 or -EINVAL, -E2BIG. Used at start only. */
int sc_netroute_add(const char *spec, uint32_t len);

/*
 * The domain for an address, the socket's own (local) or its peer's: NULL if the kernel is to serve it (loopback addresses;
 * families other than IPv4 and IPv6; no route). The unspecified address as one's own belongs to the route without CIDR, or, if
 * there is none, to the first one; as a peer's it means loopback.
 */
struct sc_dom *sc_netroute_to(const struct sc_sockaddr *a, bool local);

/* ---- sockets (net_sock.c) ---- */

struct sc_epitem;
struct sc_waiter;

/* An option that was set while a socket was the kernel's. */
struct sc_sockopt {
	struct sc_sockopt *next;
	int level;
	int name;
	uint32_t len;
	uint8_t value[];
};

/* The last line of a socket object's host part: shared by all processes that hold it; hostile. */
struct sc_sock_host {
	uint32_t rx_lock; /* net_ring.c */
	uint32_t tx_lock;
	uint32_t nonblock;    /* O_NONBLOCK; relaxed */
	uint32_t rcvlowat;    /* SO_RCVLOWAT, 0: 1; relaxed */
	uint64_t rcvtimeo_us; /* SO_RCVTIMEO in microseconds, 0: none; relaxed */
	uint64_t sndtimeo_us; /* likewise */
	uint32_t control;     /* SC_CONTROL_*: what recvmsg is to tell; relaxed */
	uint8_t pad[28];
};
static_assert(sizeof(struct sc_sock_host) == 64, "fits struct sc_sock.host");

#define SC_CONTROL_PKTINFO  (1u << 0)
#define SC_CONTROL_PKTINFO6 (1u << 1)
#define SC_CONTROL_TOS	    (1u << 2)
#define SC_CONTROL_TTL	    (1u << 3)
#define SC_CONTROL_TCLASS   (1u << 4)
#define SC_CONTROL_HOPS	    (1u << 5)
#define SC_CONTROL_STAMP    (1u << 6) /* SO_TIMESTAMP: when recvmsg took it */

/* How far connect has come, as the kernel's struct socket knows it. */
#define SC_CONNECT_NOT	 0
#define SC_CONNECT_BEGUN 1 /* and its outcome was not told yet */
#define SC_CONNECT_DONE	 2

/* What this process knows of a socket. Made with the first descriptor, gone with the last. */
struct sc_nsock {
	struct sc_sock *
	    sh; /* the object, or NULL: not mapped yet (after an exec), or a fresh socket; hostile */
	uint8_t *tx;
	uint8_t *rx;
	uint32_t tx_size; /* bytes, powers of two */
	uint32_t rx_size;
	uint32_t index; /* low half of the handle */
	uint32_t refs;	/* struct sc_file objects of this memory image; atomic */
	uint32_t holds; /* threads that wait for it, and 1 for all refs together; atomic */
	uint16_t family;
	uint16_t type;
	uint16_t protocol;
	uint8_t connect;	   /* SC_CONNECT_* */
	bool bound;		   /* a fresh datagram socket that stays with the kernel for good */
	uint64_t segment;	   /* ticket whose segment it lies in; 0: the channel */
	struct sc_mutex lock;	   /* waiters, items, opts */
	struct sc_waiter *waiters; /* threads that sleep for it */
	struct sc_epitem *items;   /* its places in epoll sets */
	struct sc_sockopt *opts; /* SC_KIND_FRESH: to be set in the domain as well, oldest first */
};

static inline struct sc_nsock *sc_nsock_of(const struct sc_file *f)
{
	return f->net;
}

static inline struct sc_sock_host *sc_sock_host(const struct sc_nsock *s)
{
	return (struct sc_sock_host *)s->sh->host;
}

/* A domain's sockets as a channel's holder sees them; hangs on the channel. */
struct sc_netchan {
	struct sc_chan *chan;
	struct sc_net_area *area; /* shared; event bits are hostile, and only hints */
	struct sc_mutex lock;	  /* map, sleepers */
	struct sc_nsock **map;	  /* SC_NET_SOCKETS entries, by index */
	struct sc_waiter
	    *sleepers;	 /* threads asleep for any socket of this channel; leaders among them */
	uint32_t nsleep; /* threads asleep for events, in epoll too; atomic */
	uint32_t wants;	 /* 1: a listener lacks memory for connections; atomic */
	uint32_t incarnation; /* of the agent that knows the area; atomic */
	uint64_t absent_us; /* since when the domain is seen to be absent; 0: it is there; atomic */
};

/*
 * Before anything is done with a socket: this session may use it, its object is mapped, its net area is known. 0 and the
 * channel's side in *nc, or -errno. Fast if all is so already. The pointer is good for the length of the call.
 */
long sc_net_enter(struct sc_thread *t, struct sc_file *f, struct sc_netchan **nc);

/* Runs an operation on a socket: like sc_file_call(), with enter. */
long sc_net_call(struct sc_thread *t, struct sc_file *f, struct sc_opx *x);

/* Makes a socket in the domain for what was a kernel's at descriptor fd (its file: f, SC_KIND_FRESH). After that f is an
 * SC_KIND_SOCK. 0 or -errno. */
long sc_net_move(struct sc_thread *t, int fd, struct sc_file *f, struct sc_dom *d);

/* Makes a fresh socket known: the kernel's descriptor fd. Errors leave it to the kernel. */
void sc_net_fresh(struct sc_thread *t, int fd, int family, int type, int protocol);

/* The kernel's descriptor as a fresh socket, if it is an unconnected socket of IPv4 or IPv6 that we do not know: after an
 * exec, or from another process. NULL: it is not. */
struct sc_file *sc_net_refresh(struct sc_thread *t, int fd);

/* A fresh socket stays with the kernel: forgets it. */
void sc_net_leave(struct sc_thread *t, int fd, struct sc_file *f);

/*
 * Accepting: begin reserves the descriptor (0 or -errno; sc_open_undo() gives it back), done makes it name a connection that
 * was taken out of the listener's ring: its number or -errno; on error the connection is over.
 */
long sc_accept_begin(struct sc_thread *t, struct sc_file *listener, bool cloexec,
		     struct sc_opening *o);
long sc_accept_done(struct sc_thread *t, struct sc_file *listener, struct sc_opening *o,
		    const struct sc_accept *a, uint32_t oflags, bool cloexec);

/* Gives the agent more memory for connections. */
void sc_net_more(struct sc_thread *t, struct sc_file *f, uint64_t min);

/* Keeps the object in memory while a thread waits for it, its descriptors closed or not. */
void sc_nsock_hold(struct sc_nsock *s);
void sc_nsock_put(struct sc_nsock *s);

/* A file object of kind SOCK, FRESH or EPOLL is copied for a vfork child, or freed: counts. fd_lock held. */
void sc_net_ref(struct sc_file *f);
void sc_net_unref(struct sc_file *f);

/* After an exec: the socket that a line of VHOST_SC_FDS describes. */
bool sc_net_adopt(struct sc_file *f, uint32_t family, uint32_t type, uint32_t protocol);

/* Around a fork; the child's hook runs before it has a channel. */
void sc_net_before_fork(void);
void sc_net_after_fork_parent(void);
void sc_net_after_fork_child(struct sc_proc *p);

/* The channel goes: so does what hangs on it. */
void sc_netchan_free(struct sc_netchan *nc);

/* ---- memory (net_mem.c) ---- */

/* (min: at least so many bytes, if they are to be had.) Gives the agent more memory for this session's sockets. 0 or -errno: there is none. */
long sc_netmem_more(struct sc_thread *t, struct sc_hlane *l, uint64_t min);
/* An agent has come that knows nothing of what lies in the domain's segments: they are not given to it. */
void sc_netmem_abandon(const struct sc_dom *d);
/* A new session: gives what the process has already. */
void sc_netmem_known(struct sc_thread *t, struct sc_hlane *l);
/* Where a segment is mapped (which may happen now), and its bytes; NULL: nobody knows it. */
uint8_t *sc_netmem_base(struct sc_thread *t, uint64_t ticket, uint64_t *size);

/* Around a fork. in_child: after the library's descriptors were closed. */
void sc_netmem_before_fork(void);
void sc_netmem_after_fork(bool child);
void sc_netmem_in_child(void);
/* The library's descriptor fd has become `to`. */
void sc_netmem_evict(int fd, int to);

/* What an exec tells the new program of a segment. */
struct sc_netmem_line {
	struct sc_dom *dom;
	uint64_t ticket;
	int fd;
};
/* Segment i, whose descriptor is inherited, or no longer (the exec failed). False: there are not so many. */
bool sc_netmem_for_exec(uint32_t i, bool inherit, struct sc_netmem_line *out);
void sc_netmem_adopt(const struct sc_netmem_line *line);

/* ---- rings (net_ring.c) ---- */

/* Takes a lock word of a socket's object. 0, or -EINTR... never waits longer than a few seconds: see net_ring.c. */
void sc_ring_lock(struct sc_thread *t, uint32_t *word);
void sc_ring_unlock(struct sc_thread *t, uint32_t *word);
/* True as long as nobody took the lock from us (because we stood still for seconds): to be asked before an index is moved. */
bool sc_ring_mine(struct sc_thread *t, const uint32_t *word);

/* Bytes between two indices, or -ECONNRESET if the other side lies. */
static inline long sc_ring_used(uint32_t tail, uint32_t head, uint32_t size)
{
	uint32_t n = tail - head;

	return n <= size ? (long)n : -104;
}

/* Copies to or from a ring at a free-running index, around its end. The program's memory: 0 or -EFAULT. */
long sc_ring_put(uint8_t *ring, uint32_t size, uint32_t at, const void *user, uint32_t len);
long sc_ring_get(const uint8_t *ring, uint32_t size, uint32_t at, void *user, uint32_t len);

/* After the host has moved tx_tail (or rx_head): tells the agent if it wants to know. */
void sc_net_kick(struct sc_netchan *nc, struct sc_nsock *s, const uint32_t *want);

/* ---- waiting (net_wait.c) ---- */

/* One socket that a thread sleeps for. */
struct sc_waiter {
	struct sc_waiter *next;
	struct sc_waiter **link;
	struct sc_nsock *sock; /* held; NULL on a list of sleepers */
	int bell;	       /* eventfd of the thread */
};

/* What poll(2) says of a socket: POLLIN, POLLOUT, POLLERR, POLLHUP, POLLRDHUP, ... With `arm` the agent is told first that
 * somebody waits for these events. */
uint32_t sc_net_events(struct sc_nsock *s, uint32_t asked, bool arm);

/* From now on the agent marks the socket whenever it changes: for who looks at it only after it was marked. */
void sc_net_watch(struct sc_nsock *s);

/* Microseconds of the monotonic clock; a deadline from now on. */
uint64_t sc_now_us(void);
uint64_t sc_net_deadline(uint64_t us);

/*
 * Waits until the socket has one of `events`, or the deadline. 0; -EAGAIN at the deadline; -SC_ERESTART for a signal. Spins
 * first, for as long as has proved useful.
 */
long sc_net_wait(struct sc_thread *t, struct sc_netchan *nc, struct sc_nsock *s, uint32_t events,
		 uint64_t deadline);

/* Takes the marks of all attached domains, and wakes those who wait for the sockets. */
void sc_net_pump(struct sc_thread *t, struct sc_netchan *nc);
void sc_net_pump_all(struct sc_thread *t);
/*
 * Is the channel's domain absent? Then who sleeps for its sockets is to look again after SC_NET_ABSENT_US: when it has been absent
 * for longer than the recovery timeout, its connections are reset, here and for whoever else holds them.
 */
#define SC_NET_ABSENT_US 100000u
bool sc_net_absent(struct sc_netchan *nc);
/* Has another agent come? Then it is asked whether it knows what the one before knew. If not, all sockets of the domain that this
 * process has are lost. Takes a lane, if so. */
static inline bool sc_net_changed(const struct sc_netchan *nc)
{
	uint32_t now = __atomic_load_n(&nc->chan->host->incarnation, __ATOMIC_RELAXED);

	return now && now != __atomic_load_n(&nc->incarnation, __ATOMIC_RELAXED);
}
void sc_net_resume(struct sc_thread *t, struct sc_netchan *nc);
/* Ends all sockets of the channel; without `all` connections alone, datagram sockets have an error. */
void sc_net_lose(struct sc_netchan *nc, bool all);

/* A listener's connections need memory, as a mark told: gives it. Takes a lane. */
void sc_net_feed(struct sc_thread *t);
/* The doorbell rang, and a thread that waits for a lane has read it (lane.c). */
void sc_net_kicked(struct sc_chan *c);
/* Somebody who led sleeps no more: another one that sleeps for events of this channel is to lead (lane.c). */
void sc_net_pass(struct sc_chan *c);

/* Before and after a sleep for events, in any way: counts, arms. The bell is read only by its thread. */
void sc_net_arm(struct sc_netchan *nc);
void sc_net_disarm(struct sc_thread *t, struct sc_netchan *nc);
/* The thread's eventfd; -errno. */
int sc_net_bell(struct sc_thread *t);

/*
 * poll(2) on a copy of the program's array. Returns as poll(2) does, -EINTR for a signal. Kinds of descriptors are found
 * out by itself.
 */
long sc_net_poll(struct sc_thread *t, struct pollfd *p, uint32_t n, uint64_t deadline,
		 const struct sc_wait_mask *mask);
/* (mask: the signal mask to sleep with, NULL: the program's own.) */
/* Does any of the descriptors need sc_net_poll()? */
bool sc_net_concerns(struct sc_thread *t, const struct pollfd *p, uint32_t n);

/* ---- epoll (calls_epoll.c) ---- */

struct sc_epoll;

/* A socket changed: its places in epoll sets are ready to be looked at. s->lock held. */
void sc_epoll_notify(struct sc_nsock *s);
/* A fresh socket became one of a domain's: its places are taken from the kernel. Before its descriptor is replaced. */
void sc_epoll_migrate(struct sc_thread *t, struct sc_nsock *s);
/* The last descriptor of a socket is gone. */
void sc_epoll_forget(struct sc_nsock *s);
void sc_epoll_ref(struct sc_epoll *e);
void sc_epoll_unref(struct sc_epoll *e);
/* In a forked child: the thing's own eventfds are to be made anew. */
void sc_epoll_after_fork(struct sc_epoll *e);
/* Where the number of its eventfd stands, for who has to move that. */
int *sc_epoll_bell(struct sc_epoll *e);
/* Is a socket in this set ready? */
bool sc_epoll_ready(struct sc_epoll *e);

/* ---- calls ---- */

/* setsockopt on a socket of a domain, with the value in the library's memory (calls_sockopt.c). 0 or -errno. */
long sc_sockopt_set(struct sc_thread *t, struct sc_file *f, int level, int name, const void *value,
		    uint32_t len);
/* The error that is pending, taken: 0 or a positive errno. */
uint32_t sc_net_take_error(struct sc_nsock *s);

/* A call on a descriptor of kind SOCK, FRESH or EPOLL (dispatch.c). */
long sc_net_dispatch(struct sc_thread *t, const struct sc_call *c);

/* Reading and writing on a socket of a domain (calls_sockio.c). */
long sc_sock_read(struct sc_thread *t, const struct sc_call *c);
long sc_sock_write(struct sc_thread *t, const struct sc_call *c);
long sc_sock_readv(struct sc_thread *t, const struct sc_call *c);
long sc_sock_writev(struct sc_thread *t, const struct sc_call *c);

/* Sends from, or receives to, memory of the library's: for sendfile and splice (calls_copy.c). As send and recv with
 * flags. */
long sc_net_send(struct sc_thread *t, struct sc_file *f, const void *buf, uint32_t len, int flags);
long sc_net_recv(struct sc_thread *t, struct sc_file *f, void *buf, uint32_t len, int flags);

/* How many bytes a stream can take now; waits for room if the socket may. -EAGAIN, -EPIPE (with its signal), ... */
long sc_net_room(struct sc_thread *t, struct sc_file *f);

/* Reads an address of the program's. 0 or -errno (EINVAL, EFAULT). Other families come with family as it is. */
long sc_addr_get(const void *user, long len, struct sc_sockaddr *out);
/* Writes one as accept(2) and the like do: *user_len is how much room there is, and becomes the length. 0 or -errno. */
long sc_addr_put(const struct sc_sockaddr *a, void *user, void *user_len);

#endif
