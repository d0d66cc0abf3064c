/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sockopt.c - socket options: one table. What applies to the pcb is put there by tcp_sock_apply() and udp_sock_apply(), which also run
 * when the pcb is made. Groups (multicast) and TCP_INFO are not plain values and have functions of their own.
 */
#include "kept.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <lwip/igmp.h>
#include <lwip/mld6.h>
#include <lwip/priv/tcp_priv.h>

/* Linux's; <linux/tcp.h> and <netinet/tcp.h> clash with lwIP's names. */
#define LX_TCP_NODELAY	     1
#define LX_TCP_MAXSEG	     2
#define LX_TCP_CORK	     3
#define LX_TCP_KEEPIDLE	     4
#define LX_TCP_KEEPINTVL     5
#define LX_TCP_KEEPCNT	     6
#define LX_TCP_SYNCNT	     7
#define LX_TCP_LINGER2	     8
#define LX_TCP_DEFER_ACCEPT  9
#define LX_TCP_INFO	     11
#define LX_TCP_QUICKACK	     12
#define LX_TCP_CONGESTION    13
#define LX_TCP_USER_TIMEOUT  18
#define LX_TCP_FASTOPEN	     23
#define LX_TCP_NOTSENT_LOWAT 25

enum kind { FLAG, BYTE, WORD };

struct known {
	uint32_t level, name;
	uint8_t kind;
	uint8_t type; /* SOCK_*, 0: any */
	uint32_t min, max;
	size_t at; /* in struct nsock_options; NOWHERE: taken, without effect */
};

#define NOWHERE	   ((size_t)-1)
#define IN(member) offsetof(struct nsock_options, member)

static const struct known known[] = {
    {SOL_SOCKET, SO_REUSEADDR, FLAG, 0, 0, 0, IN(reuseaddr)},
    {SOL_SOCKET, SO_REUSEPORT, FLAG, 0, 0, 0, IN(reuseport)},
    {SOL_SOCKET, SO_KEEPALIVE, FLAG, 0, 0, 0, IN(keepalive)},
    {SOL_SOCKET, SO_BROADCAST, FLAG, 0, 0, 0, IN(broadcast)},
    {SOL_SOCKET, SO_PRIORITY, WORD, 0, 0, 6, NOWHERE},
    {SOL_SOCKET, SO_DONTROUTE, FLAG, 0, 0, 0, NOWHERE},
    {SOL_SOCKET, SO_OOBINLINE, FLAG, 0, 0, 0, NOWHERE},
    {IPPROTO_TCP, LX_TCP_NODELAY, FLAG, SOCK_STREAM, 0, 0, IN(nodelay)},
    {IPPROTO_TCP, LX_TCP_CORK, FLAG, SOCK_STREAM, 0, 0, IN(cork)},
    {IPPROTO_TCP, LX_TCP_KEEPIDLE, WORD, SOCK_STREAM, 1, 32767, IN(keep_idle_s)},
    {IPPROTO_TCP, LX_TCP_KEEPINTVL, WORD, SOCK_STREAM, 1, 32767, IN(keep_intvl_s)},
    {IPPROTO_TCP, LX_TCP_KEEPCNT, WORD, SOCK_STREAM, 1, 127, IN(keep_cnt)},
    {IPPROTO_TCP, LX_TCP_DEFER_ACCEPT, WORD, SOCK_STREAM, 0, INT32_MAX, IN(defer_accept_s)},
    {IPPROTO_TCP, LX_TCP_USER_TIMEOUT, WORD, SOCK_STREAM, 0, INT32_MAX, IN(user_timeout_ms)},
    {IPPROTO_TCP, LX_TCP_QUICKACK, FLAG, SOCK_STREAM, 0, 0, NOWHERE},
    {IPPROTO_TCP, LX_TCP_SYNCNT, WORD, SOCK_STREAM, 1, 127, NOWHERE},
    {IPPROTO_TCP, LX_TCP_LINGER2, WORD, SOCK_STREAM, 0, INT32_MAX, NOWHERE},
    {IPPROTO_TCP, LX_TCP_NOTSENT_LOWAT, WORD, SOCK_STREAM, 0, UINT32_MAX, NOWHERE},
    {IPPROTO_IP, IP_TTL, BYTE, 0, 1, 255, IN(ttl)},
    {IPPROTO_IP, IP_TOS, BYTE, 0, 0, 255, IN(tos)},
    {IPPROTO_IP, IP_PKTINFO, FLAG, 0, 0, 0, IN(pktinfo)},
    {IPPROTO_IP, IP_RECVERR, FLAG, 0, 0, 0, NOWHERE},
    {IPPROTO_IP, IP_MTU_DISCOVER, WORD, 0, 0, 5, NOWHERE},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, FLAG, 0, 0, 0, NOWHERE},
    {IPPROTO_IP, IP_MULTICAST_TTL, BYTE, SOCK_DGRAM, 0, 255, IN(mcast_ttl)},
    {IPPROTO_IP, IP_MULTICAST_LOOP, FLAG, SOCK_DGRAM, 0, 0, IN(mcast_loop)},
    {IPPROTO_IPV6, IPV6_V6ONLY, FLAG, 0, 0, 0, IN(v6only)},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, BYTE, 0, 1, 255, IN(ttl)},
    {IPPROTO_IPV6, IPV6_TCLASS, BYTE, 0, 0, 255, IN(tos)},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, FLAG, 0, 0, 0, IN(pktinfo)},
    {IPPROTO_IPV6, IPV6_RECVERR, FLAG, 0, 0, 0, NOWHERE},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, WORD, 0, 0, 5, NOWHERE},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, BYTE, SOCK_DGRAM, 0, 255, IN(mcast_ttl)},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, FLAG, SOCK_DGRAM, 0, 0, IN(mcast_loop)},
};

static const struct known *find(const struct nsock *s, uint32_t level, uint32_t name)
{
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].level == level && known[i].name == name &&
		    (!known[i].type || known[i].type == s->type))
			return &known[i];
	return NULL;
}

static void apply(struct nsock *s)
{
	if (s->type == SOCK_STREAM)
		tcp_sock_apply(s);
	else
		udp_sock_apply(s);
}

static int64_t set_linger(struct nsock *s, const void *value, uint32_t len)
{
	struct linger l;

	if (len < sizeof(l))
		return -EINVAL;
	memcpy(&l, value, sizeof(l));
	s->opt.linger_on = l.l_onoff != 0;
	s->opt.linger_s = l.l_linger < 0 ? 0 : (uint32_t)l.l_linger;
	return 0;
}

/* SO_RCVBUF, SO_SNDBUF: a wish for a listener's children: the ring that holds what the kernel would account twice. */
static int64_t set_buffer(struct nsock *s, uint8_t *log2, const void *value, uint32_t len)
{
	uint32_t want, n = SC_RING_MIN_LOG2;

	if (len < sizeof(want))
		return -EINVAL;
	memcpy(&want, value, sizeof(want));
	while (n < SC_RING_MAX_LOG2 && (1u << n) < want)
		n++;
	*log2 = (uint8_t)n;
	return 0;
}

static int64_t set_membership(struct nsock *s, uint32_t name, const void *value, uint32_t len)
{
	struct ip_mreqn m = {0};
	ip4_addr_t group;
	err_t err;

	if (s->type != SOCK_DGRAM || len < sizeof(struct ip_mreq))
		return -EINVAL;
	memcpy(&m, value, len < sizeof(m) ? len : sizeof(m));
	group.addr = m.imr_multiaddr.s_addr;
	if (!ip4_addr_ismulticast(&group))
		return -EINVAL;
	if (name == IP_ADD_MEMBERSHIP)
		err = igmp_joingroup_netif(&s->net->netif, &group);
	else
		err = igmp_leavegroup_netif(&s->net->netif, &group);
	if (err == ERR_OK)
		kept_group(false, &group.addr, name == IP_ADD_MEMBERSHIP ? 1 : -1);
	return err == ERR_OK ? 0 : name == IP_ADD_MEMBERSHIP ? -ENOBUFS : -EADDRNOTAVAIL;
}

static int64_t set_membership6(struct nsock *s, uint32_t name, const void *value, uint32_t len)
{
	struct ipv6_mreq m;
	ip6_addr_t group = {0};
	err_t err;

	if (s->type != SOCK_DGRAM || len < sizeof(m))
		return -EINVAL;
	memcpy(&m, value, sizeof(m));
	memcpy(group.addr, &m.ipv6mr_multiaddr, 16);
	ip6_addr_assign_zone(&group, IP6_MULTICAST, &s->net->netif);
	if (!ip6_addr_ismulticast(&group))
		return -EINVAL;
	if (name == IPV6_JOIN_GROUP)
		err = mld6_joingroup_netif(&s->net->netif, &group);
	else
		err = mld6_leavegroup_netif(&s->net->netif, &group);
	if (err == ERR_OK)
		kept_group(true, group.addr, name == IPV6_JOIN_GROUP ? 1 : -1);
	return err == ERR_OK ? 0 : name == IPV6_JOIN_GROUP ? -ENOBUFS : -EADDRNOTAVAIL;
}

static int64_t set_special(struct nsock *s, uint32_t level, uint32_t name, const void *value,
			   uint32_t len)
{
	if (level == SOL_SOCKET && name == SO_LINGER)
		return set_linger(s, value, len);
	if (level == SOL_SOCKET && (name == SO_RCVBUF || name == SO_RCVBUFFORCE))
		return set_buffer(s, &s->child_rx_log2, value, len);
	if (level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_SNDBUFFORCE))
		return set_buffer(s, &s->child_tx_log2, value, len);
	if (level == IPPROTO_IP && (name == IP_ADD_MEMBERSHIP || name == IP_DROP_MEMBERSHIP))
		return set_membership(s, name, value, len);
	if (level == IPPROTO_IPV6 && (name == IPV6_JOIN_GROUP || name == IPV6_LEAVE_GROUP))
		return set_membership6(s, name, value, len);
	return -ENOPROTOOPT;
}

int64_t sockopt_set(struct nsock *s, uint32_t level, uint32_t name, const void *value, uint32_t len)
{
	const struct known *k = find(s, level, name);
	uint8_t *field;
	uint32_t v = 0;

	if (!k)
		return set_special(s, level, name, value, len);
	if (len < 1 || (len < 4 && k->kind != BYTE))
		return -EINVAL;
	memcpy(&v, value, len < 4 ? 1 : 4);
	/* -1 stands for the default. */
	if (k->kind == BYTE && v == UINT32_MAX)
		v = k->at == IN(tos) ? 0 : k->at == IN(mcast_ttl) ? 1 : 64;
	if (k->kind != FLAG && (v < k->min || v > k->max))
		return -EINVAL;
	if (k->name == IPV6_V6ONLY && k->level == IPPROTO_IPV6 &&
	    (s->family != AF_INET6 || s->bound))
		return -EINVAL;
	if (k->at == NOWHERE)
		return 0;
	field = (uint8_t *)&s->opt + k->at;
	if (k->kind == FLAG)
		*field = v != 0;
	else if (k->kind == BYTE)
		*field = (uint8_t)v;
	else
		memcpy(field, &v, sizeof(v));
	if (k->at == IN(v6only) && s->udp) {
		udp_sock_close(s);
		return udp_sock_make(s);
	}
	apply(s);
	return 0;
}

/* The first members of Linux's struct tcp_info; what lwIP does not count is zero. */
struct lx_tcp_info {
	uint8_t state, ca_state, retransmits, probes, backoff, options, wscale, flags;
	uint32_t rto, ato, snd_mss, rcv_mss;
	uint32_t unacked, sacked, lost, retrans, fackets;
	uint32_t last_data_sent, last_ack_sent, last_data_recv, last_ack_recv;
	uint32_t pmtu, rcv_ssthresh, rtt, rttvar, snd_ssthresh, snd_cwnd, advmss, reordering;
	uint32_t rcv_rtt, rcv_space, total_retrans;
};

static int64_t get_info(struct nsock *s, void *value, uint32_t len)
{
	struct lx_tcp_info i = {.state = (uint8_t)tcp_sock_state(s)};
	struct tcp_pcb *p = s->tcp;

	if (p && p->state != LISTEN && p->mss) {
		i.retransmits = p->nrtx;
		i.options = p->flags & TF_WND_SCALE ? 4 : 0;
		i.wscale = (uint8_t)(p->snd_scale | p->rcv_scale << 4);
		i.rto = (uint32_t)p->rto * TCP_SLOW_INTERVAL * 1000;
		i.snd_mss = i.rcv_mss = i.advmss = p->mss;
		i.unacked = (s->tx_sent - s->tx_head + p->mss - 1) / p->mss;
		i.pmtu = s->net->port->mtu;
		i.rtt = (uint32_t)(p->sa > 0 ? p->sa >> 3 : 0) * TCP_SLOW_INTERVAL * 1000;
		i.rttvar = (uint32_t)(p->sv > 0 ? p->sv : 0) * TCP_SLOW_INTERVAL * 1000;
		i.snd_ssthresh = p->ssthresh / p->mss;
		i.snd_cwnd = p->cwnd / p->mss;
		i.rcv_space = p->rcv_wnd;
	}
	if (len > sizeof(i))
		len = sizeof(i);
	memcpy(value, &i, len);
	return len;
}

static int64_t put(void *value, uint32_t len, uint32_t v)
{
	if (len > sizeof(v))
		len = sizeof(v);
	memcpy(value, &v, len);
	return len;
}

static int64_t get_special(struct nsock *s, uint32_t level, uint32_t name, void *value,
			   uint32_t len)
{
	struct linger l = {.l_onoff = s->opt.linger_on, .l_linger = (int)s->opt.linger_s};

	if (level == SOL_SOCKET && name == SO_LINGER) {
		if (len > sizeof(l))
			len = sizeof(l);
		memcpy(value, &l, len);
		return len;
	}
	if (level == SOL_SOCKET && name == SO_RCVBUF)
		return put(value, len, s->rx_size);
	if (level == SOL_SOCKET && name == SO_SNDBUF)
		return put(value, len, s->tx_size);
	if (level == IPPROTO_TCP && s->type == SOCK_STREAM && name == LX_TCP_INFO)
		return get_info(s, value, len);
	if (level == IPPROTO_TCP && s->type == SOCK_STREAM && name == LX_TCP_MAXSEG)
		return put(value, len, s->tcp && s->tcp->state != LISTEN ? tcp_mss(s->tcp) : 536);
	if (level == IPPROTO_TCP && s->type == SOCK_STREAM && name == LX_TCP_CONGESTION) {
		if (len > sizeof("reno"))
			len = sizeof("reno");
		memcpy(value, "reno", len);
		return len;
	}
	return -ENOPROTOOPT;
}

int64_t sockopt_get(struct nsock *s, uint32_t level, uint32_t name, void *value, uint32_t len)
{
	const struct known *k = find(s, level, name);
	const uint8_t *field;
	uint32_t v = 0;

	if (!k)
		return get_special(s, level, name, value, len);
	if (k->at == NOWHERE)
		return put(value, len, 0);
	field = (const uint8_t *)&s->opt + k->at;
	if (k->kind == WORD)
		memcpy(&v, field, sizeof(v));
	else
		v = *field;
	return put(value, len, v);
}
