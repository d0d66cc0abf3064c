/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tcp.c - stream sockets between their rings and lwIP.
 *
 * Sending: lwIP is given the bytes where they lie, in the send ring (tcp_write() without copy), and keeps pointing at them until
 * they are acknowledged; only then does tx_head move. A process that changes bytes after it has published them spoils its
 * own connection, and nothing else.
 *
 * Receiving: bytes are copied into the receive ring; the window is opened again (tcp_recved()) when the process has taken them.
 * No window is larger than the ring's room (kept.h says why that matters, and how a SYN's is made so). What lwIP delivers beyond it
 * all the same waits in `pending`, and is not acknowledged.
 *
 * Ends: lwIP frees a pcb by itself in three cases: after an error (err callback), from LAST_ACK (err callback, ERR_CLSD), and from
 * TIME-WAIT (no callback). So a pcb is let go of (detach()) when both FINs are on their way and all our bytes are acknowledged: it
 * goes on alone. tcp_close() is never called on a connection: it would send RST because our windows are not its default.
 */
#include "kept-priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <lwip/etharp.h>
#include <lwip/ip.h>
#include <lwip/prot/ethernet.h>
#include <lwip/prot/ip4.h>
#include <lwip/prot/ip6.h>
#include <lwip/prot/tcp.h>
#include <lwip/priv/tcp_priv.h>

#define CHUNK 65535u /* lwIP counts in 16 bits */
/* connections in TIME-WAIT that are kept; Linux, too, has a bound */
#define TIME_WAITS 4096u
#define PLACES_SPARE \
	16u /* connections for which there is memory before processes are asked for more */
#define HOLD_NS 200000000
/* RFC 5681, 4.1: after a pause a connection begins anew with its initial window, which is that of RFC 6928 */
#define RESTART_SEGMENTS 10u
#define NEIGHBOUR_NS \
	3000000000ll /* connecting fails if nobody has answered ARP for so long, as with Linux */
#define POLL_TICKS 2 /* of half a second: tries again what failed for want of memory */

int net_errno(err_t err)
{
	switch (err) {
	case ERR_OK:
		return 0;
	case ERR_MEM:
	case ERR_BUF:
		return ENOBUFS;
	case ERR_TIMEOUT:
	case ERR_ABRT:
		return ETIMEDOUT;
	case ERR_RTE:
		return ENETUNREACH;
	case ERR_INPROGRESS:
		return EINPROGRESS;
	case ERR_USE:
		return EADDRINUSE;
	case ERR_ALREADY:
		return EALREADY;
	case ERR_ISCONN:
		return EISCONN;
	case ERR_CONN:
	case ERR_CLSD:
		return ENOTCONN;
	case ERR_RST:
		return ECONNRESET;
	default:
		return EINVAL;
	}
}

/* ---- letting go ---- */

/* The pcb is lwIP's alone from now on. */
static void forget(struct nsock *s)
{
	struct tcp_pcb *pcb = s->tcp;

	s->tcp = NULL;
	if (!pcb)
		return;
	tcp_arg(pcb, NULL);
	if (pcb->state == LISTEN)
		return;
	tcp_recv(pcb, NULL);
	tcp_sent(pcb, NULL);
	tcp_err(pcb, NULL);
	tcp_poll(pcb, NULL, 0);
}

/* The end of a connection as the process sees it. */
static void over(struct nsock *s, uint32_t flags)
{
	if (s->pending) {
		pbuf_free(s->pending);
		s->pending = NULL;
	}
	sock_set_flags(s, SC_SOCK_F_RX_EOF | SC_SOCK_F_TX_CLOSED | flags);
	sock_set_state(s, SC_SOCK_CLOSED);
}

static bool all_acknowledged(const struct nsock *s)
{
	return s->fin_queued && s->tx_head == s->fin_at;
}

/* Lets go of the pcb when nothing of ours is in it any more. True if it did. */
static bool detach(struct nsock *s)
{
	struct tcp_pcb *pcb = s->tcp;

	if (!pcb || !all_acknowledged(s) || !(s->host_gone || (s->eof && !s->pending)))
		return false;
	forget(s);
	/* Data that still comes is answered by RST, and FIN-WAIT-2 does not last for ever. */
	if (pcb->state != TIME_WAIT)
		tcp_shutdown(pcb, 1, 0);
	over(s, 0);
	kept_alone(pcb);
	return true;
}

/* Leaves the group of those that share a port. The pcb, of which there is one, goes to another. */
static void leave_group(struct nsock *s)
{
	struct nsock *before = s->group, *heir = s->group;

	if (!heir)
		return;
	while (before->group != s)
		before = before->group;
	before->group = before == heir ? NULL : heir;
	if (before == heir)
		heir->group = NULL;
	s->group = NULL;
	if (s->tcp) {
		heir->tcp = s->tcp;
		tcp_arg(heir->tcp, heir);
		s->tcp = NULL;
	}
}

void tcp_sock_abort(struct nsock *s)
{
	struct tcp_pcb *pcb;

	leave_group(s);
	pcb = s->tcp;
	if (!pcb) {
		if (s->state == SC_SOCK_LISTEN)
			over(s, SC_SOCK_F_RESET);
		return;
	}
	forget(s);
	if (pcb->state == LISTEN)
		tcp_close(pcb);
	else
		tcp_abort(pcb);
	over(s, SC_SOCK_F_RESET);
}

/* The process broke the rules of a ring. */
static void broken(struct nsock *s, const char *what)
{
	sock_complain(s, what);
	tcp_sock_abort(s);
	sock_set_error(s, ECONNRESET);
}

/* ---- sending ---- */

static void hold(struct nsock *s)
{
	if (s->held)
		return;
	s->held = true;
	s->hold_until = s->net->now + HOLD_NS;
	s->held_next = s->net->held;
	s->net->held = s;
}

/* How much of n bytes is to be sent now: whole segments only if more is to follow. */
static uint32_t without_rest(struct nsock *s, uint32_t n)
{
	uint32_t mss = tcp_mss(s->tcp);

	if (s->fin_wanted || !(s->opt.cork || __atomic_load_n(&s->sh->tx_more, __ATOMIC_RELAXED)))
		return n;
	if (s->held && s->net->now >= s->hold_until)
		return n;
	if (n % mss)
		hold(s);
	return n - n % mss;
}

static void queue_fin(struct nsock *s)
{
	if (!s->fin_wanted || s->fin_queued || s->tx_sent != s->fin_at)
		return;
	if (tcp_shutdown(s->tcp, 0, 1) == ERR_OK)
		s->fin_queued = true;
}

/* Gives lwIP what was published. False: the pcb is gone. */
static bool push(struct nsock *s)
{
	struct tcp_pcb *pcb = s->tcp;
	uint32_t tail, left;

	if (!pcb || s->state != SC_SOCK_CONNECTED || s->fin_queued)
		return pcb != NULL;
	/* Acquire: the bytes were written before the index. */
	tail = s->fin_wanted ? s->fin_at : __atomic_load_n(&s->sh->tx_tail, __ATOMIC_ACQUIRE);
	if (tail - s->tx_head > s->tx_size || tail - s->tx_head < s->tx_sent - s->tx_head) {
		broken(s, "impossible index of the send ring");
		return false;
	}
	left = without_rest(s, tail - s->tx_sent);
	while (left) {
		uint32_t off = s->tx_sent & (s->tx_size - 1), n = left;
		uint8_t flags = 0;

		if (n > s->tx_size - off)
			n = s->tx_size - off;
		if (n > CHUNK)
			n = CHUNK;
		if (n > tcp_sndbuf(pcb))
			n = tcp_sndbuf(pcb);
		if (n < left)
			flags = TCP_WRITE_FLAG_MORE;
		if (!n || tcp_write(pcb, s->tx + off, (u16_t)n, flags) != ERR_OK)
			break; /* tried again when something was acknowledged, and by the poll callback */
		s->tx_sent += n;
		s->net->bytes_out += n;
		left -= n;
	}
	queue_fin(s);
	tcp_output(pcb);
	return s->tcp != NULL;
}

static void release_held(struct nsock *s)
{
	struct nsock **link = &s->net->held;

	while (*link && *link != s)
		link = &(*link)->held_next;
	if (*link)
		*link = s->held_next;
	s->held = false;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t len)
{
	struct nsock *s = arg;

	s->progress_ns = s->net->now;
	sock_free_tx(s, len);
	if (!push(s))
		return ERR_ABRT;
	detach(s);
	return ERR_OK;
}

/* ---- receiving ---- */

/* What the process has taken. False: the pcb is gone. */
static bool note_taken(struct nsock *s)
{
	/* Acquire: its reads of the bytes are over. */
	uint32_t head = __atomic_load_n(&s->sh->rx_head, __ATOMIC_ACQUIRE);
	uint32_t taken = head - s->rx_head;

	if (taken > s->rx_tail - s->rx_head) {
		broken(s, "impossible index of the receive ring");
		return false;
	}
	s->rx_head = head;
	while (taken && s->tcp) {
		uint32_t n = taken < CHUNK ? taken : CHUNK;

		tcp_recved(s->tcp, (u16_t)n);
		taken -= n;
	}
	return s->tcp != NULL;
}

/* Moves pending bytes into the ring as far as there is room. */
static void fill(struct nsock *s)
{
	uint32_t room = s->rx_size - (s->rx_tail - s->rx_head), moved = 0;

	while (s->pending && room) {
		struct pbuf *p = s->pending;
		uint32_t n = p->len < room ? p->len : room;

		ring_write(s->rx, s->rx_size, s->rx_tail + moved, p->payload, n);
		moved += n;
		room -= n;
		s->pending = pbuf_free_header(p, (u16_t)n);
	}
	if (!moved)
		return;
	s->net->bytes_in += moved;
	s->rx_tail += moved;
	/* Release: the bytes before the index. */
	__atomic_store_n(&s->sh->rx_tail, s->rx_tail, __ATOMIC_RELEASE);
	sock_changed(s, CHANGED_STATE);
}

/* Receives what can be received, and says whether we want to hear of more room. False: the pcb is gone. */
static bool take_in(struct nsock *s)
{
	for (;;) {
		bool want;

		if (!note_taken(s))
			return false;
		fill(s);
		want = s->pending || s->tcp->rcv_wnd < s->rx_size / 2;
		if (want == s->rx_want)
			break;
		s->rx_want = want;
		__atomic_store_n(&s->sh->rx_want, want, __ATOMIC_RELAXED);
		if (!want)
			break;
		full_fence(); /* rx_want before the last look at rx_head; the process does the reverse */
	}
	if (s->eof && !s->pending)
		sock_set_flags(s, SC_SOCK_F_RX_EOF);
	return true;
}

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct nsock *s = arg;

	if (p) {
		if (s->flags & SC_SOCK_F_RX_EOF ||
		    s->host_gone) { /* SHUT_RD: dropped, as Linux does */
			kept_dropped(s, p->tot_len);
			tcp_recved(pcb, p->tot_len);
			pbuf_free(p);
			return ERR_OK;
		}
		if (s->pending)
			pbuf_cat(s->pending, p);
		else
			s->pending = p;
	} else {
		s->eof = true;
		kept_eof(s);
	}
	if (!take_in(s))
		return ERR_ABRT;
	if (s->ack_again) {
		s->ack_again = false;
		tcp_ack_now(pcb);
	}
	detach(s);
	return ERR_OK;
}

/* ---- errors ---- */

static void on_err(void *arg, err_t err)
{
	struct nsock *s = arg;
	int error = net_errno(err);

	s->tcp = NULL;	       /* freed already */
	if (err == ERR_CLSD) { /* from LAST_ACK: all is acknowledged */
		over(s, 0);
		return;
	}
	if (s->state == SC_SOCK_CONNECTING && err == ERR_RST)
		error = ECONNREFUSED;
	if (s->eof && err == ERR_RST)
		error = EPIPE;
	sock_set_error(s, error);
	over(s, SC_SOCK_F_RESET);
}

static err_t on_poll(void *arg, struct tcp_pcb *pcb)
{
	struct nsock *s = arg;

	if (!push(s))
		return ERR_ABRT;
	queue_fin(s);
	detach(s);
	return ERR_OK;
}

/* ---- making ---- */

static void set_callbacks(struct nsock *s)
{
	tcp_arg(s->tcp, s);
	tcp_recv(s->tcp, on_recv);
	tcp_sent(s->tcp, on_sent);
	tcp_err(s->tcp, on_err);
	tcp_poll(s->tcp, on_poll, POLL_TICKS);
	tcp_sock_apply(s);
}

/* The socket's pcb, made when it is needed first. */
static int need_pcb(struct nsock *s)
{
	if (s->tcp)
		return 0;
	s->tcp = tcp_new_ip_type(s->family == AF_INET ? IPADDR_TYPE_V4
				 : s->opt.v6only      ? IPADDR_TYPE_V6
						      : IPADDR_TYPE_ANY);
	if (!s->tcp)
		return -ENOBUFS;
	set_callbacks(s);
	return 0;
}

void tcp_sock_apply(struct nsock *s)
{
	struct tcp_pcb *pcb = s->tcp;

	if (!pcb)
		return;
	if (s->opt.reuseaddr)
		ip_set_option(pcb, SOF_REUSEADDR);
	else
		ip_reset_option(pcb, SOF_REUSEADDR);
	if (s->opt.keepalive)
		ip_set_option(pcb, SOF_KEEPALIVE);
	else
		ip_reset_option(pcb, SOF_KEEPALIVE);
	pcb->ttl = s->opt.ttl;
	pcb->tos = s->opt.tos;
	if (pcb->state == LISTEN)
		return;
	if (s->opt.nodelay)
		tcp_nagle_disable(pcb);
	else
		tcp_nagle_enable(pcb);
	pcb->keep_idle = s->opt.keep_idle_s * 1000;
	pcb->keep_intvl = s->opt.keep_intvl_s * 1000;
	pcb->keep_cnt = s->opt.keep_cnt;
	if (!s->opt.cork && s->held)
		s->hold_until = 0;
}

static void note_names(struct nsock *s)
{
	struct sc_sockaddr local, peer;

	addr_to(&s->tcp->local_ip, s->tcp->local_port, s->family, &local);
	addr_to(&s->tcp->remote_ip, s->tcp->remote_port, s->family, &peer);
	s->peer = peer;
	sock_set_names(s, &local, &peer);
}

/* The connection is there: windows as large as the ring. */
static void established(struct nsock *s)
{
	struct tcp_pcb *pcb = s->tcp;
	uint32_t window = s->rx_size;

	if (window > TCP_WND_MAX(pcb))
		window = TCP_WND_MAX(pcb);
	pcb->rcv_wnd = pcb->rcv_ann_wnd = window;
	pcb->rcv_ann_right_edge = pcb->rcv_nxt + window;
	s->progress_ns = s->net->now;
	kept_established(s);
	note_names(s);
	sock_set_state(s, SC_SOCK_CONNECTED);
}

/* SO_REUSEPORT: one of the same user's sockets on this port that all have the option; the one with the pcb. */
static struct nsock *find_partner(const struct nsock *s, const ip_addr_t *ip, uint16_t port)
{
	for (struct nsock *o = s->net->all; o; o = o->next)
		if (o != s && o->type == SOCK_STREAM && o->tcp && o->opt.reuseport &&
		    o->uid == s->uid && (o->state == SC_SOCK_BOUND || o->state == SC_SOCK_LISTEN) &&
		    o->tcp->local_port == port &&
		    IP_GET_TYPE(&o->tcp->local_ip) == IP_GET_TYPE(ip) &&
		    ip_addr_cmp(&o->tcp->local_ip, ip))
			return o;
	return NULL;
}

/* Joins the sockets on a port. */
static bool join_group(struct nsock *s, const ip_addr_t *ip, uint16_t port)
{
	struct nsock *o = s->opt.reuseport ? find_partner(s, ip, port) : NULL;
	struct tcp_pcb *pcb = s->tcp;

	if (!o)
		return false;
	forget(s);
	tcp_abort(pcb); /* never bound: freed */
	s->group = o->group ? o->group : o;
	o->group = s;
	return true;
}

/* The pcb of the socket, or of its group. */
static struct tcp_pcb *pcb_of(const struct nsock *s)
{
	const struct nsock *o = s;

	while (!o->tcp && o->group && o->group != s)
		o = o->group;
	return o->tcp;
}

int tcp_sock_bind(struct nsock *s, const ip_addr_t *ip, uint16_t port)
{
	struct sc_sockaddr local;
	int err = need_pcb(s);

	if (err)
		return err;
	if (s->bound || s->state != SC_SOCK_NEW)
		return -EINVAL;
	err = -net_errno(tcp_bind(s->tcp, ip, port));
	if (err && !(err == -EADDRINUSE && join_group(s, ip, port)))
		return err == -ENOBUFS ? -EADDRINUSE : err;
	s->bound = true;
	addr_to(ip, pcb_of(s)->local_port, s->family, &local);
	sock_set_names(s, &local, NULL);
	sock_set_state(s, SC_SOCK_BOUND);
	return 0;
}

/* ---- listening ---- */

/* Children that were taken out of the ring since the last look. */
void tcp_sock_look_at_taken(struct nsock *l)
{
	uint32_t head = __atomic_load_n(&l->sh->rx_head, __ATOMIC_ACQUIRE);

	if (head - l->rx_head > l->rx_tail - l->rx_head || head % sizeof(struct sc_accept)) {
		if (l->state == SC_SOCK_LISTEN)
			broken(l, "impossible index of the accept ring");
		return;
	}
	if (head == l->rx_head)
		return;
	for (struct nsock *s = l->children; s; s = s->sibling) {
		if (s->taken || head - s->accept_at > l->rx_size || head == s->accept_at)
			continue;
		s->taken = true;
		s->taken_ns = l->net->now;
		l->queued--;
		if (s->tcp)
			tcp_backlog_accepted(s->tcp);
	}
	l->rx_head = head;
}

static void adopt_child(struct nsock *l, struct nsock *s)
{
	s->listener = l;
	s->sibling = l->children;
	s->sibling_link = &l->children;
	if (l->children)
		l->children->sibling_link = &s->sibling;
	l->children = s;
	s->uid = l->uid;
	s->pid = l->pid;
	s->opt = l->opt;
}

/* Enters the child into its listener's ring. */
static void enqueue(struct nsock *l, struct nsock *s)
{
	struct sc_accept a = {.handle = s->handle, .loc = s->loc, .peer = s->peer};

	s->accept_at = l->rx_tail;
	ring_write(l->rx, l->rx_size, l->rx_tail, &a, sizeof(a));
	l->rx_tail += (uint32_t)sizeof(a);
	l->queued++;
	__atomic_store_n(&l->sh->rx_tail, l->rx_tail, __ATOMIC_RELEASE);
	sock_changed(l, CHANGED_STATE);
}

/* A session whose segments have room for one more child. */
static struct nsock *new_child(struct nsock *l)
{
	int err;

	for (uint32_t i = 0; i < l->nusers; i++) {
		struct nsock *s =
		    sock_new(l->net, l->users[i], l->family, SOCK_STREAM, l->child_tx_log2,
			     l->child_rx_log2, l->loc.segment != 0, &err);

		if (s)
			return s;
	}
	return NULL;
}

/* Tells the processes in time when the segments of a listener's users fill up. */
static void look_at_room(struct nsock *l)
{
	if (sock_places(l) < PLACES_SPARE) {
		sock_set_flags(l, SC_SOCK_F_WANT_SEGMENT);
		sock_changed(l, CHANGED_STATE); /* again: a process may have had none to give */
	} else if (l->flags & SC_SOCK_F_WANT_SEGMENT) {
		sock_clear_flags(l, SC_SOCK_F_WANT_SEGMENT);
	}
}

void tcp_socks_room(struct net *n)
{
	for (struct nsock *s = n->all; s; s = s->next)
		if (s->flags & SC_SOCK_F_WANT_SEGMENT && s->state == SC_SOCK_LISTEN)
			look_at_room(s);
}

/* Which of the listeners on a port gets a connection: by its peer's address, as Linux does. */
static struct nsock *pick_listener(struct nsock *l, const struct tcp_pcb *pcb)
{
	uint32_t hash = pcb->remote_port * 2654435761u, n = 0;
	struct nsock *o = l;

	if (!l->group)
		return l;
	hash ^= (IP_IS_V6_VAL(pcb->remote_ip) ? ip_2_ip6(&pcb->remote_ip)->addr[3]
					      : ip_2_ip4(&pcb->remote_ip)->addr) *
		0x9e3779b1u;
	do {
		n += o->state == SC_SOCK_LISTEN;
		o = o->group;
	} while (o != l);
	for (n = n ? (hash >> 8) % n : 0;; o = o->group)
		if (o->state == SC_SOCK_LISTEN && n-- == 0)
			return o;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct nsock *l = arg, *s;

	if (!l || !pcb || err != ERR_OK)
		return ERR_VAL;
	l = pick_listener(l, pcb);
	tcp_sock_look_at_taken(l);
	if (l->state != SC_SOCK_LISTEN ||
	    l->rx_tail - l->rx_head + sizeof(struct sc_accept) > l->rx_size)
		return ERR_MEM; /* reset by lwIP */
	s = new_child(l);
	look_at_room(l);
	if (!s)
		return ERR_MEM;
	tcp_backlog_delayed(pcb);
	s->tcp = pcb;
	adopt_child(l, s);
	set_callbacks(s);
	s->accept_at = l->rx_tail;
	s->bound = true;
	note_names(s);
	kept_sock(s);
	established(s);
	enqueue(l, s);
	return ERR_OK;
}

/* Has the port listen: the socket's own pcb, or its group's. 0 or -errno. */
static int listen_port(struct nsock *s)
{
	struct nsock *o = s;
	struct tcp_pcb *l;
	err_t e;

	while (!o->tcp)
		o = o->group;
	if (o->tcp->state == LISTEN) {
		if (!s->group)
			tcp_backlog_set(o->tcp, (u8_t)s->backlog);
		return 0;
	}
	l = tcp_listen_with_backlog_and_err(o->tcp, s->group ? NET_MAX_BACKLOG : (u8_t)s->backlog,
					    &e);
	if (!l)
		return -net_errno(e);
	o->tcp = l;
	tcp_arg(l, o);
	tcp_accept(l, on_accept);
	return 0;
}

int tcp_sock_listen(struct nsock *s, uint32_t backlog)
{
	uint32_t entries = s->rx_size / (uint32_t)sizeof(struct sc_accept);
	int err = s->group ? 0 : need_pcb(s);

	if (err)
		return err;
	if (s->state != SC_SOCK_NEW && s->state != SC_SOCK_BOUND && s->state != SC_SOCK_LISTEN)
		return -EINVAL;
	if (backlog < 1)
		backlog = 1;
	if (backlog > NET_MAX_BACKLOG)
		backlog = NET_MAX_BACKLOG;
	s->backlog = backlog < entries ? backlog : entries;
	if (!s->bound) {
		err = tcp_sock_bind(s, s->family == AF_INET ? IP4_ADDR_ANY : IP_ANY_TYPE, 0);
		if (err)
			return err;
	}
	err = listen_port(s);
	if (!err && s->state != SC_SOCK_LISTEN)
		sock_set_state(s, SC_SOCK_LISTEN);
	return err;
}

/* ---- connecting ---- */

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct nsock *s = arg;

	established(s);
	return push(s) ? ERR_OK : ERR_ABRT;
}

int tcp_sock_connect(struct nsock *s, const struct sc_sockaddr *to)
{
	ip_addr_t ip;
	uint16_t port;
	int err = addr_from(to, s->family, &ip, &port);

	if (err)
		return err;
	switch (s->state) {
	case SC_SOCK_CONNECTING:
		return -EALREADY;
	case SC_SOCK_CONNECTED:
		return -EISCONN;
	case SC_SOCK_LISTEN:
		return -EISCONN;
	default:
		break;
	}
	if (addr_is_loopback(&ip))
		return -ENETUNREACH;
	leave_group(s);			  /* who shares a port and connects: on a port of its own */
	if (s->state == SC_SOCK_CLOSED) { /* connecting failed, and is tried again */
		if (s->rx_tail != s->rx_head || s->tx_head)
			return -EISCONN;
		s->flags = 0;
		s->eof = s->fin_wanted = s->fin_queued = s->bound = false;
		__atomic_store_n(&s->sh->flags, 0, __ATOMIC_RELEASE);
	}
	err = need_pcb(s);
	if (err)
		return err;
	err = -net_errno(tcp_connect(s->tcp, &ip, port, on_connected));
	if (err == -EINVAL)
		err = -EADDRNOTAVAIL;
	if (err)
		return err == -ENOBUFS ? -EADDRNOTAVAIL : err;
	note_names(s);
	s->bound = true;
	s->progress_ns = s->net->now;
	sock_set_state(s, SC_SOCK_CONNECTING);
	return -EINPROGRESS;
}

/* ---- the process's side ---- */

void tcp_sock_kick(struct nsock *s)
{
	if (s->state == SC_SOCK_LISTEN) {
		tcp_sock_look_at_taken(s);
		return;
	}
	if (s->state != SC_SOCK_CONNECTED || !s->tcp)
		return;
	if (push(s) && take_in(s))
		detach(s);
}

int tcp_sock_shutdown(struct nsock *s, int how)
{
	if (s->state == SC_SOCK_LISTEN && how != SHUT_WR) {
		tcp_sock_abort(s);
		sock_set_state(s, SC_SOCK_NEW);
		return 0;
	}
	if (s->state != SC_SOCK_CONNECTED)
		return -ENOTCONN;
	if (how != SHUT_RD && !s->fin_wanted) {
		s->fin_at = __atomic_load_n(&s->sh->tx_tail, __ATOMIC_ACQUIRE);
		if (s->fin_at - s->tx_head > s->tx_size) {
			broken(s, "impossible index of the send ring");
			return 0;
		}
		s->fin_wanted = true;
		kept_fin(s);
		sock_set_flags(s, SC_SOCK_F_TX_CLOSED);
		if (!push(s))
			return 0;
	}
	if (how != SHUT_WR)
		sock_set_flags(s, SC_SOCK_F_RX_EOF);
	detach(s);
	return 0;
}

void tcp_sock_close(struct nsock *s)
{
	struct tcp_pcb *pcb;
	bool unread;

	if (s->held)
		release_held(s);
	leave_group(s);
	pcb = s->tcp;
	if (!pcb)
		return;
	if (s->state != SC_SOCK_CONNECTED) {
		forget(s);
		if (pcb->state == LISTEN)
			tcp_close(pcb);
		else
			tcp_abort(
			    pcb); /* not connected: nothing is sent but, to an open handshake, RST */
		return;
	}
	unread = s->pending || __atomic_load_n(&s->sh->rx_head, __ATOMIC_RELAXED) != s->rx_tail;
	if (unread || (s->opt.linger_on && !s->opt.linger_s)) {
		tcp_sock_abort(s);
		return;
	}
	if (!s->fin_wanted)
		tcp_sock_shutdown(s, SHUT_WR);
	detach(s);
}

void tcp_sock_move(struct nsock *s, uint8_t *to)
{
	struct tcp_seg *lists[] = {s->tcp->unacked, s->tcp->unsent};

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		for (struct tcp_seg *seg = lists[i]; seg; seg = seg->next)
			for (struct pbuf *p = seg->p; p; p = p->next) {
				uint8_t *at = p->payload;

				if (at >= s->tx && at < s->tx + s->tx_size)
					p->payload = to + (at - s->tx);
			}
}

/* ---- what was ---- */

/* A pcb for the connection, as it was before anything was received by this incarnation, except for what is to be sent. */
static struct tcp_pcb *revive(struct sc_kept_conn *c, uint32_t una, uint32_t rcv_nxt,
			      uint32_t window)
{
	struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_ANY);

	if (!pcb)
		return NULL;
	if (addr_from(&c->local, AF_INET6, &pcb->local_ip, &pcb->local_port) ||
	    addr_from(&c->peer, AF_INET6, &pcb->remote_ip, &pcb->remote_port)) {
		tcp_abort(pcb);
		return NULL;
	}
	if (c->options & SC_KEPT_CONN_SCALE)
		tcp_set_flags(pcb, TF_WND_SCALE);
	if (c->options & SC_KEPT_CONN_SACK)
		tcp_set_flags(pcb, TF_SACK);
	pcb->snd_scale = c->snd_scale;
	pcb->rcv_scale = c->rcv_scale;
	pcb->mss = c->mss;
	pcb->cwnd = RESTART_SEGMENTS * pcb->mss;
	pcb->rcv_nxt = rcv_nxt;
	pcb->rcv_wnd = pcb->rcv_ann_wnd = window < TCP_WND_MAX(pcb) ? window : TCP_WND_MAX(pcb);
	pcb->rcv_ann_right_edge = rcv_nxt + pcb->rcv_wnd;
	pcb->snd_nxt = pcb->snd_lbb = pcb->lastack = pcb->snd_wl2 = una;
	pcb->snd_wl1 = rcv_nxt - pcb->rcv_wnd - 1; /* whatever comes tells the window */
	pcb->snd_wnd = c->snd_wnd;
	pcb->snd_wnd_max = c->snd_wnd_max;
	pcb->state = c->status & SC_KEPT_CONN_EOF ? CLOSE_WAIT : ESTABLISHED;
	kept_hang(pcb, c);
	TCP_REG_ACTIVE(pcb);
	return pcb;
}

/* All that is to be sent has been queued: so much of it may have been sent before. */
static void resume_sending(struct tcp_pcb *pcb, const struct sc_kept_conn *c)
{
	uint32_t edge = c->edge + 1; /* a window's probe goes beyond it */

	if (TCP_SEQ_GT(edge, pcb->snd_lbb))
		edge = pcb->snd_lbb;
	if (TCP_SEQ_GT(edge, pcb->snd_nxt))
		pcb->snd_nxt = edge;
	tcp_ack_now(pcb);
	tcp_output(pcb);
}

bool tcp_sock_again(struct nsock *s, struct sc_kept_conn *c)
{
	uint32_t used = s->rx_tail - s->rx_head;

	s->iss = c->iss;
	s->irs = c->irs;
	s->eof = c->status & SC_KEPT_CONN_EOF;
	s->fin_wanted = c->status & SC_KEPT_CONN_FIN;
	s->fin_at = c->fin_at;
	s->tcp = revive(c, s->iss + s->tx_head, s->irs + s->rx_tail + s->eof, s->rx_size - used);
	if (!s->tcp)
		return false;
	set_callbacks(s);
	note_names(s);
	if (s->fin_wanted)
		sock_set_flags(s, SC_SOCK_F_TX_CLOSED);
	sock_set_state(s, SC_SOCK_CONNECTED);
	if (!push(s))
		return true; /* it was broken, and is over */
	resume_sending(s->tcp, c);
	if (take_in(s))
		detach(s);
	return true;
}

bool tcp_connect_again(struct nsock *s, struct sc_kept_conn *c)
{
	ip_addr_t local, peer;
	uint16_t local_port, peer_port;

	if (addr_from(&c->local, AF_INET6, &local, &local_port) ||
	    addr_from(&c->peer, AF_INET6, &peer, &peer_port) || need_pcb(s))
		return false;
	if (tcp_bind(s->tcp, &local, local_port) != ERR_OK)
		return false;
	kept_hang(s->tcp, c);
	kept.isn = c->iss;
	kept.has_isn = true;
	if (tcp_connect(s->tcp, &peer, peer_port, on_connected) != ERR_OK)
		return false;
	note_names(s);
	sock_set_state(s, SC_SOCK_CONNECTING);
	return true;
}

bool tcp_alone_again(struct sc_kept_conn *c)
{
	struct tcp_pcb *pcb = revive(c, c->una, c->rcv_nxt, TCP_MSS);

	if (!pcb)
		return false;
	if (c->una == c->iss + c->fin_at + 1) /* it was acknowledged */
		pcb->state = FIN_WAIT_2;
	else
		tcp_shutdown(pcb, 0, 1);
	resume_sending(pcb, c);
	tcp_shutdown(pcb, 1, 0);
	return true;
}

bool tcp_handshake_again(struct sc_kept_conn *c)
{
	struct tcp_pcb_listen *l = tcp_listen_pcbs.listen_pcbs;
	struct tcp_pcb *pcb = revive(c, c->iss - 1, c->irs, TCP_WND);

	if (!pcb)
		return false;
	while (l && !(l->local_port == pcb->local_port &&
		      (ip_addr_isany(&l->local_ip) || ip_addr_cmp(&l->local_ip, &pcb->local_ip))))
		l = l->next;
	pcb->state = SYN_RCVD;
	pcb->rcv_ann_right_edge = pcb->rcv_nxt;
	pcb->snd_wl1 = c->irs - 2;
	if (!l || tcp_enqueue_flags(pcb, TCP_SYN | TCP_ACK) != ERR_OK) {
		tcp_abort(pcb);
		return true;
	}
	pcb->listener = l;
	pcb->callback_arg = l->callback_arg;
	pcb->so_options = l->so_options & SOF_INHERITED;
	l->accepts_pending++;
	tcp_set_flags(pcb, TF_BACKLOGPEND);
	tcp_output(pcb);
	return true;
}

void tcp_reset_again(const struct sc_kept_conn *c, uint32_t una, uint32_t rcv_nxt)
{
	ip_addr_t local, peer;
	uint16_t local_port, peer_port;

	if (!addr_from(&c->local, AF_INET6, &local, &local_port) &&
	    !addr_from(&c->peer, AF_INET6, &peer, &peer_port))
		tcp_rst(NULL, una, rcv_nxt, &local, &peer, local_port, peer_port);
}

void tcp_sock_lose(struct nsock *s)
{
	tcp_sock_abort(s);
	sock_set_error(s, ECONNRESET);
	over(s, SC_SOCK_F_RESET);
}

void tcp_adopt_again(struct nsock *l, struct nsock *s)
{
	struct nsock_options opt = s->opt;
	uint32_t uid = s->uid, pid = s->pid;

	adopt_child(l, s);
	s->opt = opt;
	s->uid = uid;
	s->pid = pid;
	if (s->tcp && pcb_of(l))
		s->tcp->listener = (struct tcp_pcb_listen *)pcb_of(l);
	if (s->accept_at - l->rx_head < l->rx_tail - l->rx_head) {
		l->queued++;
		if (s->tcp)
			tcp_backlog_delayed(s->tcp);
		return;
	}
	if (s->accept_at == l->rx_tail) /* the last incarnation did not come so far */
		return;
	s->taken = true;
	s->taken_ns = l->net->now;
}

bool tcp_enqueue_again(struct nsock *l, struct nsock *s)
{
	if (s->taken || s->accept_at != l->rx_tail)
		return true;
	if (!s->tcp || l->rx_tail - l->rx_head + sizeof(struct sc_accept) > l->rx_size)
		return false;
	enqueue(l, s);
	return true;
}

/* ---- time ---- */

/* Whether packets to the peer have a station to go to. */
static bool neighbour_known(const struct nsock *s)
{
	const ip4_addr_t *to = ip_2_ip4(&s->tcp->remote_ip), *found;
	struct netif *netif;
	struct eth_addr *mac;

	if (IP_IS_V6_VAL(s->tcp->remote_ip))
		return true;
	netif = ip4_route(to);
	if (!netif || !(netif->flags & NETIF_FLAG_ETHARP) ||
	    ip4_addr_cmp(to, netif_ip4_addr(netif)))
		return true;
	if (!ip4_addr_netcmp(to, netif_ip4_addr(netif), netif_ip4_netmask(netif)))
		to = netif_ip4_gw(netif);
	return etharp_find_addr(netif, to, &mac, &found) >= 0;
}

static void give_up(struct nsock *s, int error)
{
	sock_set_error(s, error); /* before the state that says that it is over */
	tcp_sock_abort(s);
}

void tcp_sock_tick(struct nsock *s)
{
	int64_t still = s->net->now - s->progress_ns;
	bool pends = s->tcp && s->tx_sent != s->tx_head;

	if (s->state == SC_SOCK_CONNECTING && s->tcp) {
		if (still > NEIGHBOUR_NS && !neighbour_known(s))
			give_up(s, EHOSTUNREACH);
		return;
	}
	if (!pends) {
		s->progress_ns = s->net->now;
		return;
	}
	if (s->host_gone && still > NET_ORPHAN_MS * 1000000ll)
		tcp_sock_abort(s);
	else if (s->opt.user_timeout_ms && still > (int64_t)s->opt.user_timeout_ms * 1000000)
		give_up(s, ETIMEDOUT);
}

/* Sockets whose held-back bytes are due. */
void tcp_release_held(struct net *n)
{
	struct nsock **link = &n->held;

	while (*link) {
		struct nsock *s = *link;

		if (n->now < s->hold_until) {
			link = &s->held_next;
			continue;
		}
		push(s); /* with `held` still set: without_rest() lets all go */
		*link = s->held_next;
		s->held = false;
	}
}

/* ---- TIME-WAIT ---- */

/* The TCP header and the addresses of a frame that holds a SYN of a new connection; NULL: it is none. */
static const struct tcp_hdr *find_syn(const struct pbuf *p, ip_addr_t *from, ip_addr_t *to)
{
	const uint8_t *f = p->payload;
	const struct tcp_hdr *tcp;
	uint32_t off = SIZEOF_ETH_HDR;

	if (p->len < SIZEOF_ETH_HDR + IP_HLEN + TCP_HLEN)
		return NULL;
	if (f[12] == 0x08 && f[13] == 0x00) {
		const struct ip_hdr *ip = (const struct ip_hdr *)(f + off);

		off += IPH_HL_BYTES(ip);
		if (IPH_PROTO(ip) != IP_PROTO_TCP || IPH_OFFSET(ip) & PP_HTONS(IP_OFFMASK) ||
		    p->len < off + TCP_HLEN)
			return NULL;
		ip_addr_copy_from_ip4(*from, ip->src);
		ip_addr_copy_from_ip4(*to, ip->dest);
	} else if (f[12] == 0x86 && f[13] == 0xdd) {
		const struct ip6_hdr *ip = (const struct ip6_hdr *)(f + off);

		off += IP6_HLEN;
		if (p->len < off + TCP_HLEN || IP6H_NEXTH(ip) != IP6_NEXTH_TCP)
			return NULL;
		ip_addr_copy_from_ip6_packed(*from, ip->src);
		ip_addr_copy_from_ip6_packed(*to, ip->dest);
	} else {
		return NULL;
	}
	tcp = (const struct tcp_hdr *)(f + off);
	return (TCPH_FLAGS(tcp) & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN ? tcp : NULL;
}

static bool same_address(const ip_addr_t *a, const ip_addr_t *b)
{
	return IP_IS_V6(a) == IP_IS_V6(b) &&
	       (IP_IS_V6(a) ? ip6_addr_cmp_zoneless(ip_2_ip6(a), ip_2_ip6(b))
			    : ip4_addr_cmp(ip_2_ip4(a), ip_2_ip4(b)));
}

/* RFC 1122, 4.2.2.13: a SYN with a higher sequence number than the last of a connection in TIME-WAIT opens a new one. lwIP
 * lets the peer try in vain until TIME-WAIT is over. */
static void make_way(const struct tcp_hdr *tcp, const ip_addr_t *from, const ip_addr_t *to)
{
	for (struct tcp_pcb *pcb = tcp_tw_pcbs; pcb; pcb = pcb->next)
		if (pcb->local_port == lwip_ntohs(tcp->dest) &&
		    pcb->remote_port == lwip_ntohs(tcp->src) &&
		    same_address(&pcb->remote_ip, from) && same_address(&pcb->local_ip, to)) {
			if (TCP_SEQ_GT(lwip_ntohl(tcp->seqno), pcb->rcv_nxt))
				tcp_abort(pcb); /* in this state it is freed, and nothing is sent */
			return;
		}
}

/* Back-pressure: handshakes are begun only for as many connections as there is memory for. lwIP drops a SYN beyond the backlog, as
 * Linux does, and the peer tries again; without memory at its end, it would have to reset the connection. */
static void bound_backlog(struct tcp_pcb_listen *pcb)
{
	struct nsock *l = pcb->callback_arg;
	uint32_t room;

	if (!l || l->state != SC_SOCK_LISTEN || l->group)
		return;
	tcp_sock_look_at_taken(l);
	if (l->state != SC_SOCK_LISTEN)
		return;
	look_at_room(l);
	room = l->queued + sock_places(l);
	pcb->backlog = (u8_t)(room < l->backlog ? room : l->backlog);
}

void tcp_make_way(const struct pbuf *p)
{
	ip_addr_t from, to;
	const struct tcp_hdr *tcp = find_syn(p, &from, &to);

	if (!tcp)
		return;
	make_way(tcp, &from, &to);
	for (struct tcp_pcb_listen *l = tcp_listen_pcbs.listen_pcbs, *next; l; l = next) {
		next = l->next;
		if (l->local_port == lwip_ntohs(tcp->dest))
			bound_backlog(l);
	}
}

void tcp_bound_time_wait(void)
{
	struct tcp_pcb *pcb = tcp_tw_pcbs;
	uint32_t n = 0;

	for (; pcb && n < TIME_WAITS; n++)
		pcb = pcb->next;
	while (pcb) { /* the oldest are last */
		struct tcp_pcb *next = pcb->next;

		tcp_abort(pcb);
		pcb = next;
	}
}

uint32_t tcp_sock_state(const struct nsock *s)
{
	/* lwIP's numbers to Linux's */
	static const uint8_t linux_state[] = {
	    [CLOSED] = 7,      [LISTEN] = 10,	 [SYN_SENT] = 2,   [SYN_RCVD] = 3,
	    [ESTABLISHED] = 1, [FIN_WAIT_1] = 4, [FIN_WAIT_2] = 5, [CLOSE_WAIT] = 8,
	    [CLOSING] = 11,    [LAST_ACK] = 9,	 [TIME_WAIT] = 6};

	return s->state == SC_SOCK_LISTEN ? 10 : s->tcp ? linux_state[s->tcp->state] : 7;
}
