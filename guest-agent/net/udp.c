/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * udp.c - datagram sockets between their rings of records and lwIP.
 *
 * A record of the send ring is given to lwIP where it lies and freed when the call returns: by then it is on its way, or was copied
 * (waiting for a neighbour's address), or is lost. What arrives and finds no room in the receive ring is dropped and counted,
 * as in the kernel.
 */
#include "kept.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <lwip/ip.h>

#define LARGEST 65507u
#define BURST	32u /* datagrams of one socket a round */

static void broken(struct nsock *s, const char *what)
{
	sock_complain(s, what);
	udp_sock_close(s);
	sock_set_error(s, ECONNRESET);
	sock_set_state(s, SC_SOCK_CLOSED);
}

static void note_names(struct nsock *s)
{
	struct sc_sockaddr local;

	addr_to(&s->udp->local_ip, s->udp->local_port, s->family, &local);
	sock_set_names(s, &local, &s->peer);
}

/* ---- receiving ---- */

static void on_recv(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *from,
		    u16_t port)
{
	struct nsock *s = arg;
	struct sc_dgram d = {.len = p->tot_len, .ifindex = 1};
	struct sc_sockaddr local;
	uint32_t head = __atomic_load_n(&s->sh->rx_head, __ATOMIC_ACQUIRE);
	uint32_t used = s->rx_tail - head, at = s->rx_tail + (uint32_t)sizeof(d);

	if (used > s->rx_tail - s->rx_head) {
		pbuf_free(p);
		broken(s, "impossible index of the receive ring");
		return;
	}
	s->rx_head = head;
	if (s->flags & SC_SOCK_F_RX_EOF || sc_dgram_space(d.len) > s->rx_size - used) {
		s->rx_dropped++;
		pbuf_free(p);
		return;
	}
	addr_to(from, port, s->family, &d.addr);
	addr_to(ip_current_dest_addr(), 0, AF_INET6, &local);
	if (IP_IS_V4(ip_current_dest_addr())) {
		d.local_family = AF_INET;
		memcpy(d.local, &ip_2_ip4(ip_current_dest_addr())->addr, 4);
		d.ttl = IPH_TTL(ip4_current_header());
		d.tos = IPH_TOS(ip4_current_header());
	} else {
		d.local_family = AF_INET6;
		memcpy(d.local, local.addr6, 16);
		d.ttl = IP6H_HOPLIM(ip6_current_header());
		d.tos = IP6H_TC(ip6_current_header());
	}
	ring_write(s->rx, s->rx_size, s->rx_tail, &d, sizeof(d));
	for (struct pbuf *q = p; q; q = q->next) {
		ring_write(s->rx, s->rx_size, at, q->payload, q->len);
		at += q->len;
	}
	s->net->bytes_in += d.len;
	s->rx_tail += sc_dgram_space(d.len);
	/* Release: the record before the index. */
	__atomic_store_n(&s->sh->rx_tail, s->rx_tail, __ATOMIC_RELEASE);
	sock_changed(s, CHANGED_STATE);
	pbuf_free(p);
}

/* ---- sending ---- */

/* The bytes of a record as a chain that points at them. NULL: no memory. */
static struct pbuf *point_at(struct nsock *s, uint32_t at, uint32_t len)
{
	uint32_t off = at & (s->tx_size - 1),
		 first = len < s->tx_size - off ? len : s->tx_size - off;
	struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)first, PBUF_REF), *q;

	if (!p)
		return NULL;
	p->payload = s->tx + off;
	if (first == len)
		return p;
	q = pbuf_alloc(PBUF_RAW, (u16_t)(len - first), PBUF_REF);
	if (!q) {
		pbuf_free(p);
		return NULL;
	}
	q->payload = s->tx;
	pbuf_cat(p, q);
	return p;
}

/* 0 or errno. */
static int send_record(struct nsock *s, const struct sc_dgram *d, uint32_t at)
{
	struct pbuf *p;
	ip_addr_t to;
	uint16_t port;
	err_t err;

	if (d->addr.family) {
		int bad = addr_from(&d->addr, s->family, &to, &port);

		if (bad)
			return -bad;
		if (addr_is_loopback(&to))
			return ENETUNREACH;
	} else if (s->state != SC_SOCK_CONNECTED) {
		return EDESTADDRREQ;
	}
	if (!s->udp->local_port) { /* the port must be known before the peer learns it */
		if (udp_bind(s->udp, &s->udp->local_ip, 0) != ERR_OK)
			return EAGAIN;
		note_names(s);
		kept_sock(s);
	}
	p = point_at(s, at, d->len);
	if (!p)
		return ENOBUFS;
	err = d->addr.family ? udp_sendto(s->udp, p, &to, port) : udp_send(s->udp, p);
	pbuf_free(p);
	return net_errno(err);
}

/* Takes the record at tx_head, if there is one. False: there is none, or the socket is broken. */
static bool take_record(struct nsock *s)
{
	/* Acquire: the record was written before the index. */
	uint32_t tail = __atomic_load_n(&s->sh->tx_tail, __ATOMIC_ACQUIRE);
	uint32_t used = tail - s->tx_head;
	struct sc_dgram d;
	int err;

	if (!used)
		return false;
	if (used > s->tx_size || used < sizeof(d) || tail % SC_DGRAM_ALIGN) {
		broken(s, "impossible index of the send ring");
		return false;
	}
	ring_read(s->tx, s->tx_size, s->tx_head, &d, sizeof(d));
	if (d.len > s->tx_size || sc_dgram_space(d.len) > used) {
		broken(s, "impossible length of a datagram");
		return false;
	}
	err = d.len > LARGEST ? EMSGSIZE : send_record(s, &d, s->tx_head + (uint32_t)sizeof(d));
	if (err)
		sock_set_error(s, err);
	else
		s->net->bytes_out += d.len;
	s->tx_sent = s->tx_head + sc_dgram_space(d.len);
	sock_free_tx(s, sc_dgram_space(d.len));
	return true;
}

void udp_sock_kick(struct nsock *s)
{
	uint32_t n = 0;

	while (s->udp && n < BURST && take_record(s))
		n++;
	if (n < BURST || !s->udp)
		return;
	/* More next round, after the others had their turn. */
	if (!s->held) {
		s->held = true;
		s->hold_until = 0;
		s->held_next = s->net->held;
		s->net->held = s;
	}
}

/* ---- names ---- */

int udp_sock_make(struct nsock *s)
{
	s->udp = udp_new_ip_type(s->family == AF_INET ? IPADDR_TYPE_V4
				 : s->opt.v6only      ? IPADDR_TYPE_V6
						      : IPADDR_TYPE_ANY);
	if (!s->udp)
		return -ENOBUFS;
	udp_recv(s->udp, on_recv, s);
	udp_sock_apply(s);
	return 0;
}

void udp_sock_apply(struct nsock *s)
{
	if (!s->udp)
		return;
	if (s->opt.reuseaddr || s->opt.reuseport)
		ip_set_option(s->udp, SOF_REUSEADDR);
	else
		ip_reset_option(s->udp, SOF_REUSEADDR);
	if (s->opt.broadcast)
		ip_set_option(s->udp, SOF_BROADCAST);
	else
		ip_reset_option(s->udp, SOF_BROADCAST);
	s->udp->ttl = s->opt.ttl;
	s->udp->tos = s->opt.tos;
	udp_set_multicast_ttl(s->udp, s->opt.mcast_ttl);
	if (s->opt.mcast_loop)
		udp_set_flags(s->udp, UDP_FLAGS_MULTICAST_LOOP);
	else
		udp_clear_flags(s->udp, UDP_FLAGS_MULTICAST_LOOP);
}

int udp_sock_bind(struct nsock *s, const ip_addr_t *ip, uint16_t port)
{
	int err;

	if (s->bound)
		return -EINVAL;
	err = -net_errno(udp_bind(s->udp, ip, port));
	if (err)
		return err;
	s->bound = true;
	note_names(s);
	if (s->state == SC_SOCK_NEW)
		sock_set_state(s, SC_SOCK_BOUND);
	return 0;
}

int udp_sock_connect(struct nsock *s, const struct sc_sockaddr *to)
{
	ip_addr_t ip;
	uint16_t port;
	struct netif *netif;
	const ip_addr_t *local;
	int err;

	if (to->family == AF_UNSPEC) {
		udp_disconnect(s->udp);
		memset(&s->peer, 0, sizeof(s->peer));
		note_names(s);
		sock_set_state(s, s->bound ? SC_SOCK_BOUND : SC_SOCK_NEW);
		return 0;
	}
	err = addr_from(to, s->family, &ip, &port);
	if (err)
		return err;
	netif = addr_is_loopback(&ip) ? NULL : ip_route(&s->udp->local_ip, &ip);
	if (!netif)
		return -ENETUNREACH;
	err = -net_errno(udp_connect(s->udp, &ip, port));
	if (err)
		return err;
	local = ip_netif_get_local_ip(netif, &ip);
	if (ip_addr_isany(&s->udp->local_ip) && local)
		ip_addr_copy(s->udp->local_ip, *local);
	addr_to(&ip, port, s->family, &s->peer);
	s->bound = true;
	note_names(s);
	sock_set_state(s, SC_SOCK_CONNECTED);
	return 0;
}

void udp_sock_close(struct nsock *s)
{
	struct nsock **link = &s->net->held;

	if (!s->udp)
		return;
	while (s->host_gone && take_record(s) && s->udp)
		; /* what was sent before the close goes out: bounded by the ring */
	if (s->udp)
		udp_remove(s->udp);
	s->udp = NULL;
	while (*link && *link != s)
		link = &(*link)->held_next;
	if (*link)
		*link = s->held_next;
	s->held = false;
}
