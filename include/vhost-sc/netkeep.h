/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * netkeep.h - what a network domain keeps in SC_OWN_STATE (state.h): its sockets, connections, and who may use what.
 *
 * The bytes of sockets are in segments of the host's, and stay there by themselves, and so do the indices of the rings. What is
 * kept here is the rest: what a socket is, whose, where its object lies, and of each TCP connection what the peer must find
 * again (guest-agent/net/kept.h says in which order).
 *
 * Every entry begins as state.h says: `state` (enum sc_kept_state), then `check`, CRC-32C of what follows up to a place that its
 * comment names. An entry is never changed in what is checked: a new version is written into a free entry, made LIVE, and then the
 * old one is freed. So two entries may be LIVE for one thing; the one with the higher `version` counts.
 */
#ifndef VHOST_SC_NETKEEP_H
#define VHOST_SC_NETKEEP_H

#include "net.h"
#include "state.h"

/* Tables of a network domain, besides SC_TABLE_HANDLES (struct sc_kept_sock) and SC_TABLE_GRANTS (struct sc_kept_grant). */
enum sc_net_table {
	SC_TABLE_NET_CONNS = 5,	 /* struct sc_kept_conn */
	SC_TABLE_NET_MEMORY = 6, /* struct sc_kept_memory */
	SC_TABLE_NET_MISC = 7,	 /* struct sc_kept_misc */
};

/* sc_kept_sock.flags */
#define SC_KEPT_SOCK_BOUND  1u
#define SC_KEPT_SOCK_GONE   2u /* nobody holds it: its last bytes are on their way */
#define SC_KEPT_SOCK_SHARES 4u /* its port with others (SO_REUSEPORT) */

/* A socket. Checked: to its end. */
struct sc_kept_sock {
	uint32_t state;
	uint32_t check;
	uint64_t version;
	uint64_t name; /* the handle */
	uint64_t secret;
	uint64_t ticket; /* or 0 */
	struct sc_sock_loc loc;
	uint32_t session; /* its owner's; 0: nobody adopted it yet, or nobody holds it */
	uint32_t place;	  /* loc.segment is 0: the session in whose channel the object lies */
	uint32_t uid;
	uint32_t pid;
	uint64_t
	    listener; /* of a connection that nobody adopted yet: its listener's handle; otherwise 0 */
	uint32_t accept_at; /* and its place in that one's ring */
	uint32_t backlog;
	struct sc_call_id by; /* the call that changed it last, and its result */
	int64_t by_res;
	struct sc_sockaddr local; /* bound to; family 0: not bound */
	struct sc_sockaddr peer;
	uint16_t sock_state; /* enum sc_sock_state */
	uint8_t child_tx_log2;
	uint8_t child_rx_log2;
	uint32_t flags;
	uint32_t options; /* bits in the order of struct nsock_options */
	uint32_t linger_s, keep_idle_s, keep_intvl_s, keep_cnt, user_timeout_ms, defer_accept_s;
	uint32_t mcast_if;
	uint8_t ttl, tos, mcast_ttl;
	uint8_t pad[37];
};
static_assert(sizeof(struct sc_kept_sock) == 256, "kept");

/* sc_kept_conn.status: bits are only ever set */
#define SC_KEPT_CONN_EST  1u /* the handshake is over; otherwise: SYN or SYN|ACK is on its way */
#define SC_KEPT_CONN_EOF  2u /* the peer's FIN has come: rcv_nxt is one more */
#define SC_KEPT_CONN_FIN  4u /* our FIN follows the byte before fin_at */
#define SC_KEPT_CONN_LOST 8u /* its bytes are not in the host's memory: to be reset */

/* sc_kept_conn.name of a connection without socket: only FINs are still to be exchanged. */
#define SC_KEPT_CONN_ALONE (~0ull)

#define SC_KEPT_CONN_SCALE 1u /* options: window scaling was agreed on */
#define SC_KEPT_CONN_SACK  2u

/* A TCP connection. Checked: to `name`. What follows are words that are stored one by one; every state between is right. */
struct sc_kept_conn {
	uint32_t state;
	uint32_t check;
	struct sc_sockaddr local;
	struct sc_sockaddr peer;
	uint32_t iss;	  /* sequence number of index 0 of the send ring */
	uint32_t version; /* wraps around */
	uint16_t mss;
	uint8_t snd_scale;
	uint8_t rcv_scale;
	uint32_t options; /* SC_KEPT_CONN_SCALE, ... */
	/* words that change */
	uint64_t name;	      /* its socket; 0: of none yet (SYN|ACK is on its way); release */
	uint32_t irs;	      /* sequence number of index 0 of the receive ring */
	uint32_t edge;	      /* nothing from here on was ever sent */
	uint32_t snd_wnd;     /* about; bytes */
	uint32_t snd_wnd_max; /* about */
	uint32_t una;	  /* ALONE: first byte that is not acknowledged; otherwise tx_head tells */
	uint32_t rcv_nxt; /* ALONE; otherwise rx_tail tells */
	uint32_t fin_at;  /* index; before SC_KEPT_CONN_FIN */
	uint32_t status;  /* release */
	uint32_t reserved[2];
};
static_assert(sizeof(struct sc_kept_conn) == 128, "kept");
static_assert(offsetof(struct sc_kept_conn, name) == 80, "kept");

enum sc_kept_memory_kind {
	SC_KEPT_AREA = 1,  /* session has attached with its net area at `start` */
	SC_KEPT_RANGE = 2, /* session has given [start, end) of its channel */
	SC_KEPT_USE = 3,   /* session uses the segment of `ticket`, whose secret is `secret` */
	SC_KEPT_HELD = 4,  /* sockets lie in the segment of `ticket`, used or not; session is 0 */
};

/* Memory for sockets, and who gave it. Checked: to its end. */
struct sc_kept_memory {
	uint32_t state;
	uint32_t check;
	uint32_t kind; /* enum sc_kept_memory_kind */
	uint32_t session;
	uint64_t ticket;
	uint64_t secret;
	uint32_t start, end;
	uint32_t reserved[6];
};
static_assert(sizeof(struct sc_kept_memory) == 64, "kept");

enum sc_kept_misc_kind {
	SC_KEPT_DOMAIN = 1, /* addr: 16 bytes that make initial sequence numbers */
	SC_KEPT_LEASE =
	    2, /* the IPv4 address that DHCP gave: addr: address, mask, gateway, 4 bytes each */
	SC_KEPT_GROUP4 =
	    3, /* a multicast group that was joined, `count` times more than it was left */
	SC_KEPT_GROUP6 = 4,
	SC_KEPT_TAP = 5, /* the tap was made by the agent, and goes with it */
};

/* The rest. Checked: to its end. */
struct sc_kept_misc {
	uint32_t state;
	uint32_t check;
	uint64_t version;
	uint32_t kind; /* enum sc_kept_misc_kind */
	uint32_t count;
	uint8_t addr[16];
	uint32_t reserved[6];
};
static_assert(sizeof(struct sc_kept_misc) == 64, "kept");

#endif
