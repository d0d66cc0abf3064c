/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ctl_net.c - the order "net": what a network domain's agent tells in the state region (struct sc_net_state in vhost-sc/net.h), as
 * JSON. It is copied once, its counts are checked against what was copied, and it is only shown.
 */
#include "ctl.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker.h"
#include <vhost-sc/net.h>

#define TRIES 20 /* to find it not being written */

static void put_count(struct json *j, const char *key, const struct sc_net_count *c)
{
	json_object(j, key);
	json_u64(j, "in", c->in);
	json_u64(j, "out", c->out);
	json_u64(j, "dropped", c->dropped);
	json_u64(j, "errors", c->errors);
	json_end_object(j);
}

static void put_ip4(struct json *j, const char *key, uint32_t addr)
{
	char text[INET_ADDRSTRLEN] = "";

	inet_ntop(AF_INET, &addr, text, sizeof(text));
	json_string(j, key, text);
}

static void put_ip6(struct json *j, const char *key, const void *addr, uint32_t prefix)
{
	char text[INET6_ADDRSTRLEN + 16] = "";
	size_t n;

	inet_ntop(AF_INET6, addr, text, INET6_ADDRSTRLEN);
	n = strlen(text);
	snprintf(text + n, sizeof(text) - n, "/%u", prefix);
	json_string(j, key, text);
}

static void put_interface(struct json *j, const struct sc_net_conf *c)
{
	char text[32];

	json_object(j, "interface");
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", c->mac[0], c->mac[1],
		 c->mac[2], c->mac[3], c->mac[4], c->mac[5]);
	json_string(j, "mac", text);
	json_u64(j, "mtu", c->mtu);
	json_bool(j, "link", c->flags & 1);
	put_ip4(j, "addr", c->addr4);
	json_u64(j, "prefix", c->prefix4);
	put_ip4(j, "gw", c->gw4);
	json_array(j, "dns");
	for (size_t i = 0; i < sizeof(c->dns4) / sizeof(c->dns4[0]); i++)
		if (c->dns4[i])
			put_ip4(j, NULL, c->dns4[i]);
	json_end_array(j);
	json_array(j, "addr6");
	for (uint32_t i = 0; i < c->naddr6 && i < sizeof(c->addr6) / sizeof(c->addr6[0]); i++)
		put_ip6(j, NULL, c->addr6[i].addr, c->addr6[i].prefix);
	json_end_array(j);
	json_end_object(j);
}

static void put_address(struct json *j, const char *key, const struct sc_sockaddr *a)
{
	char text[INET6_ADDRSTRLEN] = "", both[INET6_ADDRSTRLEN + 16];

	if (a->family == AF_INET)
		inet_ntop(AF_INET, &a->flow, text, sizeof(text));
	else if (a->family == AF_INET6)
		inet_ntop(AF_INET6, a->addr6, text, sizeof(text));
	snprintf(both, sizeof(both), a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", text,
		 ntohs(a->port));
	json_string(j, key, a->family ? both : "");
}

static void put_socket(struct json *j, const struct sc_sock_info *s)
{
	static const char *const states[] = {"",	   "ESTAB",	 "SYN-SENT",  "SYN-RECV",
					     "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "UNCONN",
					     "CLOSE-WAIT", "LAST-ACK",	 "LISTEN",    "CLOSING"};

	json_object(j, NULL);
	json_string(j, "type", s->type == SOCK_DGRAM ? "udp" : "tcp");
	json_string(j, "state",
		    s->tcp_state < sizeof(states) / sizeof(states[0]) ? states[s->tcp_state] : "");
	json_u64(j, "recvq", s->recvq);
	json_u64(j, "sendq", s->sendq);
	put_address(j, "local", &s->local);
	put_address(j, "peer", &s->peer);
	json_u64(j, "uid", s->uid);
	json_u64(j, "pid", s->pid);
	json_end_object(j);
}

/* A copy of the region that was not being written meanwhile, or NULL. Its length in *len. */
static struct sc_net_state *copy_state(const struct broker *b, size_t *len)
{
	size_t room = SC_STATE_DEFAULT - SC_STATE_TABLES_OFF;
	struct sc_net_state *st = malloc(room);

	for (int i = 0; st && i < TRIES; i++) {
		ssize_t n = pread(b->dom.state_fd, st, room, SC_STATE_TABLES_OFF);
		uint32_t seq;

		if (n < (ssize_t)sizeof(*st) || st->magic != SC_NET_STATE_MAGIC)
			break;
		*len = (size_t)n;
		if (!(st->seq & 1) &&
		    pread(b->dom.state_fd, &seq, sizeof(seq),
			  SC_STATE_TABLES_OFF + offsetof(struct sc_net_state, seq)) ==
			sizeof(seq) &&
		    seq == st->seq)
			return st;
	}
	free(st);
	return NULL;
}

const char *ctl_net(struct broker *b, struct json *j)
{
	struct sc_net_state *st;
	size_t len, listed;

	if (b->cfg->role != SC_ROLE_NETWORK)
		return "this is no network domain";
	if (b->dom.state != DOM_READY)
		return "its agent does not serve";
	st = copy_state(b, &len);
	if (!st)
		return "its agent tells nothing";
	put_interface(j, &st->conf);
	json_u64(j, "rx_bytes", st->rx_bytes);
	json_u64(j, "tx_bytes", st->tx_bytes);
	put_count(j, "frames", &st->frames);
	put_count(j, "arp", &st->arp);
	put_count(j, "ip4", &st->ip4);
	put_count(j, "ip6", &st->ip6);
	put_count(j, "icmp", &st->icmp);
	put_count(j, "udp", &st->udp);
	put_count(j, "tcp", &st->tcp);
	json_u64(j, "received", st->rings_in);
	json_u64(j, "sent", st->rings_out);
	json_u64(j, "nsockets", st->nsocks);
	json_array(j, "sockets");
	listed = (len - sizeof(*st)) / sizeof(st->socks[0]);
	for (size_t i = 0; i < st->listed && i < listed; i++)
		put_socket(j, &st->socks[i]);
	json_end_array(j);
	free(st);
	return NULL;
}
