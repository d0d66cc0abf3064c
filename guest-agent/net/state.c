/* SPDX-License-Identifier: BSD-3-Clause */
/* state.c - what `scctl net` shows: struct sc_net_state in the state region, written once a second. */
#include "net.h"

#include <lwip/stats.h>
#include <string.h>

#define EVERY_NS 1000000000

static struct sc_net_count count_of(const struct stats_proto *p)
{
	return (struct sc_net_count){.in = p->recv,
				     .out = p->xmit,
				     .dropped = p->drop + p->memerr + p->rterr,
				     .errors =
					 p->chkerr + p->lenerr + p->proterr + p->opterr + p->err};
}

void net_state_write(struct net *n)
{
	struct sc_net_state *st =
	    (struct sc_net_state *)((uint8_t *)n->agent->state + SC_STATE_TABLES_OFF);
	size_t room = n->agent->state_size - SC_STATE_TABLES_OFF;

	n->state_at = n->now + EVERY_NS;
	if (room < sizeof(*st))
		return;
	room = (room - sizeof(*st)) / sizeof(st->socks[0]);
	/* Odd while it is written. */
	__atomic_store_n(&st->seq, ++n->state_seq, __ATOMIC_RELAXED);
	release_fence();
	st->magic = SC_NET_STATE_MAGIC;
	iface_conf(n, &st->conf);
	st->rx_bytes = n->port->rx_bytes;
	st->tx_bytes = n->port->tx_bytes;
	st->frames = (struct sc_net_count){.in = n->port->rx_frames,
					   .out = n->port->tx_frames,
					   .dropped = n->port->rx_dropped + n->port->tx_dropped};
	st->arp = count_of(&lwip_stats.etharp);
	st->ip4 = count_of(&lwip_stats.ip);
	st->ip6 = count_of(&lwip_stats.ip6);
	st->icmp = count_of(&lwip_stats.icmp);
	st->udp = count_of(&lwip_stats.udp);
	st->tcp = count_of(&lwip_stats.tcp);
	st->rings_in = n->bytes_in;
	st->rings_out = n->bytes_out;
	st->nsocks = n->nsocks;
	st->listed = socks_list(n, 0, st->socks, (uint32_t)room);
	__atomic_store_n(&st->seq, ++n->state_seq, __ATOMIC_RELEASE);
}
