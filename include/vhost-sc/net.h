/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net.h - sockets of a network domain: the memory in which their bytes lie, and the operations on them.
 *
 * A socket is made, bound, connected, configured and closed by operations in a lane (ops.h's slots, numbers 64..). Its
 * bytes take no such way: each socket has a *socket object* in shared memory, with a ring for each direction. To send is
 * to copy into one ring and to move an index; to receive is to copy out of the other one. A listening socket's receive
 * ring holds connections that wait to be accepted.
 *
 * Three kinds of memory:
 *
 *   segment        memory in which the agent places socket objects: a part of the session's own channel (its sockets end with
 *                  the session), or a segment of a ticket (attach.h, control.h), which several processes can map, so that
 *                  their sockets are inherited like any descriptor
 *   socket object  struct sc_sock, then the send ring, then the receive ring
 *   net area       struct sc_net_area, in each session's channel: which sockets changed, and who sleeps
 *
 * The agent carves objects out of the segments that a session gave it, and keeps a private copy of where each lies. The host
 * learns the place from struct sc_sock_loc, checks it with sc_sock_loc_valid(), and keeps a private copy, too. Neither
 * side ever reads a place or a size from shared memory again.
 *
 * Every index is a free-running 32-bit counter of bytes; the place in the ring is index mod size; sizes are powers of two. A
 * side that reads the other's index checks that tail - head <= size, and treats anything else as a broken socket
 * (the host: ECONNRESET; the agent: it resets the connection).
 *
 * Publication: data first, then the index by a store-release; the reader loads it with acquire order. Who then may have to be
 * told is decided by a word that the reader wrote before it looked for the last time:
 *
 *   host to agent:  after tx_tail (or rx_head): full fence; load tx_want (rx_want). If set: set bit `index` in the area's
 *                   kick[], bit index / 64 in kick_sum[] (both fetch-or, in this order; not needed if kick[] had the bit
 *                   already); load channel guest.asleep (fetch-or is a full fence); if set, write the call eventfd.
 *   agent to host:  after any change in its lines: full fence; load sock.watch (for room in the send ring: tx_wait). If
 *                   set: set bit `index` in event[], then in event_sum[] of every session that may use the socket; at
 *                   the end of its round, for each session of which it set bits: full fence; load area.arm; if it is not
 *                   what it was when the agent rang this session last, ring its doorbell.
 *   taking bits:    exchange the sum's word with 0, then each word of bits it names, then look at the sockets.
 *
 * Trust: the host believes nothing that the agent writes beyond the data itself, and the other way round. A process that
 * maps a segment can spoil all sockets in it, and no others.
 *
 * All fields are little-endian unless they are a part of an address, which is as Linux's sockaddr_in/in6 has it.
 */
#ifndef VHOST_SC_NET_H
#define VHOST_SC_NET_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "channel.h"

/* ---- operations ---- */

/*
 * Besides these, a network domain executes SC_OP_NOP, SC_OP_GRANT (with buf2/len2 out: struct sc_sock_loc; -EOPNOTSUPP
 * for a socket in another session's channel), SC_OP_CLOSE and SC_OP_CANCEL as in ops.h; all others: -ENOSYS.
 *
 * Handles: as in ops.h. Their low 32 bits are the socket's index, below SC_NET_SOCKETS; a closed socket's index is used
 * again with another generation. Tickets and secrets: as with SC_OP_OPEN.
 *
 * Addresses in buffers are struct sc_sockaddr. Options and their values are Linux's for x86-64.
 */
enum sc_net_op {
	/* First of all, once per session: buf/len in: where in the arena the session's net area is, zeroed; SC_LINE-aligned,
	 * len = sizeof(struct sc_net_area). buf2/len2 out (optional): struct sc_net_conf. -EEXIST: was done already. arg0 = 1: a process
	 * that sees a new incarnation asks whether it knows the session (-EEXIST: yes, its sockets go on); if not, this begins anew, and
	 * sockets of before are over. */
	SC_OP_NET_ATTACH = 64,
	/* Gives memory for sockets. Either arg0 = a ticket that has a segment (attach.h), arg1 = a secret, not 0: the first time by the
	 * ticket's own session, which fixes the secret; later by any session that knows it (the first SC_SEGMENT_HOST bytes of a
	 * segment are the host's own: a place to keep it). Or arg0 = 0 and buf/len: a range of the arena, SC_PAGE-aligned, which is
	 * the agent's until the session ends. The session of every process that is to make sockets there, or whose
	 * listeners' connections are to lie there, gives it; a ticket given twice is no error. A listener in a ticket's segment has its
	 * connections in such segments, too. -EINVAL, -ENOENT (no such segment), -EACCES (wrong secret, or not the ticket's session),
	 * -EEXIST (the range overlaps one that was given), -ENOSPC (too many).
	 * A segment lives as long as its ticket; when that is released, sockets in it that are still held are reset. */
	SC_OP_NET_SEGMENT = 65,
	/* arg0 = family | type << 16 | protocol << 32 (type without SOCK_NONBLOCK, SOCK_CLOEXEC); arg1 = ticket or 0; arg2 =
	 * secret; off = log2 of the send ring's size | log2 of the receive ring's << 8 (0: default) | SC_SOCKET_F_*.
	 * buf2/len2 out: struct sc_sock_loc. res = handle. -ENOBUFS: no memory left in the session's segments: give one, and
	 * try again. -EAFNOSUPPORT, -EPROTONOSUPPORT, -ESOCKTNOSUPPORT, -EPERM (raw), -ENFILE. */
	SC_OP_SOCKET = 66,
	SC_OP_BIND =
	    67, /* handle; buf/len in: address. -EADDRINUSE, -EADDRNOTAVAIL, -EACCES (port < 1024), -EINVAL */
	/* handle; arg0 = backlog; arg1 = log2 of send and receive ring of its children, as off in SOCKET. The receive
	 * ring of the listener now holds struct sc_accept. */
	SC_OP_LISTEN = 68,
	/* handle; buf/len in: address. Datagrams: 0; family AF_UNSPEC dissolves. Streams: -EINPROGRESS at once: the outcome
	 * is told by state and error. -EISCONN, -EALREADY, -ENETUNREACH, -EADDRNOTAVAIL. */
	SC_OP_CONNECT = 69,
	/* handle = listener; arg0 = handle from a struct sc_accept that this session's process took out of its ring; arg1 =
	 * ticket or 0; arg2 = secret. From now on the session owns the socket. Until then all sessions that may use the
	 * listener may use it. What was taken and not adopted within SC_ADOPT_MS, or is not taken when the listener ends, is reset. The requests of one session that name the
	 * accepted socket must come after this one's completion. buf2/len2 out: struct sc_sock_loc. A connection that lies in memory
	 * which this session has not given (another process that uses the listener did) moves into memory that it has, and the place
	 * differs from sc_accept's; otherwise its rings may be used at once. -ENOBUFS: no room there: give a segment, and try again. */
	SC_OP_ADOPT = 70,
	/* handle; arg0 = 0 (SHUT_RD), 1 (SHUT_WR: after all that is published in the send ring), 2. -ENOTCONN. */
	SC_OP_SHUTDOWN = 71,
	SC_OP_SETSOCKOPT =
	    72, /* handle; arg0 = level; arg1 = name; buf/len in: value. -ENOPROTOOPT, -EINVAL */
	SC_OP_GETSOCKOPT = 73, /* likewise; buf/len out; res = length of the value */
	/* buf/len out: struct sc_sock_info of the sockets with indices from off on (of all users; as /proc/net/tcp). res =
	 * bytes; 0: no more. */
	SC_OP_NET_SOCKETS = 74,

	SC_OP_NET_END,
};

#define SC_SEGMENT_HOST \
	4096u /* bytes at the start of a ticket's segment that the agent does not use */
#define SC_SOCKET_F_SHARED (1ull << 32) /* not in the channel: it will be inherited */

/* Options that the host library executes itself, since they are about waiting or about what it knows:
 * SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVLOWAT, SO_SNDLOWAT, SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN, SO_ERROR. All others are the
 * agent's. SO_SNDBUF and SO_RCVBUF are sizes of rings, which do not change after the socket was made: the agent takes them as a wish
 * for a listener's children, and answers with the rings' sizes. */

/* ---- addresses ---- */

/* sockaddr_in (its first 8 bytes: family, port, flow = address) or sockaddr_in6, as Linux lays them out. */
struct sc_sockaddr {
	uint16_t family; /* AF_INET (2), AF_INET6 (10), AF_UNSPEC (0) */
	uint16_t port;	 /* big-endian */
	uint32_t flow;	 /* AF_INET: the address, big-endian; AF_INET6: flow information */
	uint8_t addr6[16];
	uint32_t scope;
};
static_assert(sizeof(struct sc_sockaddr) == 28, "as sockaddr_in6");

/* ---- the net area of a session ---- */

#define SC_NET_SOCKETS 65536u /* indices of sockets in a domain */
#define SC_NET_WORDS   (SC_NET_SOCKETS / 64)
#define SC_NET_SUMS    (SC_NET_WORDS / 64)

struct sc_net_area {
	/* host to agent: sockets on which the host published something that the agent waits for. Polled by the agent:
	 * kick_sum, two lines. */
	uint64_t kick_sum[SC_NET_SUMS];
	uint64_t kick[SC_NET_WORDS];
	/* agent to host: sockets that changed, of those that are watched */
	uint64_t event_sum[SC_NET_SUMS];
	uint64_t event[SC_NET_WORDS];
	/* Written by the host: incremented (any thread, fetch-add) before a thread sleeps for events; then event_sum is
	 * looked at once more. */
	uint32_t arm;
	uint8_t pad[60];
};
static_assert(sizeof(struct sc_net_area) == 2 * 128 + 2 * 8192 + 64, "wire");

/* ---- socket objects ---- */

enum sc_sock_state {
	SC_SOCK_NEW =
	    0, /* neither bound nor connected (streams); datagram sockets are always ready to send */
	SC_SOCK_BOUND = 1,
	SC_SOCK_LISTEN = 2,
	SC_SOCK_CONNECTING = 3,
	SC_SOCK_CONNECTED = 4, /* also half-closed: see the flags */
	SC_SOCK_CLOSED = 5,    /* both directions are over, or connecting failed */
};

/* sc_sock.flags */
#define SC_SOCK_F_RX_EOF \
	(1u << 0) /* nothing comes after rx_tail: the peer's FIN, RST, or SHUT_RD */
#define SC_SOCK_F_TX_CLOSED \
	(1u << 1) /* nothing may be sent any more: SHUT_WR, RST, time-out: EPIPE */
#define SC_SOCK_F_RESET \
	(1u << 2) /* ended by RST or time-out: after the error was taken, reads give 0 */
/* of a listener: connections cannot be taken in, because the session's segments are full: give one (NET_SEGMENT) */
#define SC_SOCK_F_WANT_SEGMENT (1u << 3)

struct sc_sock {
	/* ---- written by the host ---- */
	/* line 0 */
	uint32_t tx_tail; /* bytes published in the send ring; release. Datagrams: whole records */
	uint32_t
	    tx_more; /* 1: more follows at once (MSG_MORE): do not send a short segment yet, for at most 200 ms */
	uint8_t pad0[56];
	/* line 1 */
	uint32_t rx_head; /* bytes taken from the receive ring; release */
	uint8_t pad1[60];
	/* line 2: interest */
	uint32_t watch; /* 1 once any process waits for this socket in any way; never cleared */
	/* 1: a sender, or a poll for POLLOUT, found too little room. Set by the host before its last look, cleared by it when
	 * there is room. */
	uint32_t tx_wait;
	uint32_t err_taken; /* err_seq of the error that was reported last */
	uint8_t pad2[52];
	/* line 3: the host library's own (locks, O_NONBLOCK, time-outs); the agent never looks, and zeroes it when it
	 * makes the socket */
	uint8_t host[64];
	/* ---- written by the agent ---- */
	/* line 4 */
	uint32_t rx_tail; /* bytes published in the receive ring; release */
	uint32_t
	    rx_want; /* 1: tell (kick) when rx_head has moved: data or connections wait for room, or the window is to
			     be opened */
	uint8_t pad4[56];
	/* line 5 */
	uint32_t
	    tx_head; /* bytes of the send ring that are free again: acknowledged by the peer (datagrams: sent); release */
	uint32_t
	    tx_want; /* 1: tell (kick) when tx_tail has moved: all that was published has been taken up */
	uint8_t pad5[56];
	/* line 6 */
	uint32_t state;	  /* enum sc_sock_state; release, after flags and error */
	uint32_t flags;	  /* SC_SOCK_F_*; release, after rx_tail */
	uint32_t error;	  /* errno; pending if err_seq != err_taken; written before err_seq */
	uint32_t err_seq; /* number of errors so far; release */
	uint32_t index;	  /* low half of the handle, for people */
	uint32_t changes; /* incremented (release) with each change that sets event bits */
	uint8_t pad6[40];
	/* line 7: addresses, ready for getsockname and getpeername. name_seq is odd while they are written; a reader takes them
	 * if it is even and the same before and after, and asks again at most a few times */
	uint32_t name_seq;
	struct sc_sockaddr local;
	struct sc_sockaddr peer; /* family 0: none */
	uint32_t reserved;
};
static_assert(sizeof(struct sc_sock) == 512, "wire");
static_assert(offsetof(struct sc_sock, rx_head) == 64, "wire");
static_assert(offsetof(struct sc_sock, watch) == 128, "wire");
static_assert(offsetof(struct sc_sock, host) == 192, "wire");
static_assert(offsetof(struct sc_sock, rx_tail) == 256, "wire");
static_assert(offsetof(struct sc_sock, tx_head) == 320, "wire");
static_assert(offsetof(struct sc_sock, state) == 384, "wire");
static_assert(offsetof(struct sc_sock, name_seq) == 448, "wire");

#define SC_ADOPT_MS 60000u /* see SC_OP_ADOPT */

#define SC_RING_MIN_LOG2     12u
#define SC_RING_MAX_LOG2     20u
#define SC_RING_DEFAULT_LOG2 17u /* of a socket that connects; room for the largest datagram */
#define SC_RING_CHILD_LOG2   15u /* of an accepted connection */

/* Where a socket's object lies. Made by the agent. */
struct sc_sock_loc {
	/* the ticket whose segment it is; 0: in the channel of the session that made it, and `off` counts from the channel's
	 * start */
	uint64_t segment;
	uint32_t off;	 /* of its struct sc_sock from the segment's start; a multiple of SC_LINE */
	uint8_t tx_log2; /* the send ring follows struct sc_sock */
	uint8_t rx_log2; /* the receive ring follows the send ring */
	uint16_t family;
	uint16_t type; /* SOCK_STREAM, SOCK_DGRAM */
	uint16_t protocol;
	uint32_t reserved;
};
static_assert(sizeof(struct sc_sock_loc) == 24, "wire");

/* Bytes that an object takes. */
static inline uint32_t sc_sock_size(uint32_t tx_log2, uint32_t rx_log2)
{
	return (uint32_t)sizeof(struct sc_sock) + (1u << tx_log2) + (1u << rx_log2);
}

/* True if *l is inside of [start, end) of its segment: what the host checks (start: 0, or the arena's) before it uses a private copy. */
static inline int sc_sock_loc_valid(const struct sc_sock_loc *l, uint32_t start, uint32_t end)
{
	return l->tx_log2 >= SC_RING_MIN_LOG2 && l->tx_log2 <= SC_RING_MAX_LOG2 &&
	       l->rx_log2 >= SC_RING_MIN_LOG2 && l->rx_log2 <= SC_RING_MAX_LOG2 &&
	       l->off % SC_LINE == 0 && l->off >= start && l->off < end &&
	       sc_sock_size(l->tx_log2, l->rx_log2) <= end - l->off;
}

/* ---- what rings hold ---- */

/*
 * Streams: bytes.
 *
 * Datagrams: records, each beginning at a multiple of SC_DGRAM_ALIGN: struct sc_dgram, then `len` bytes, then a gap to the next
 * multiple. The header never wraps around the ring's end, the bytes may. The longest datagram is what fits.
 */
#define SC_DGRAM_ALIGN 64u
struct sc_dgram {
	uint32_t len;	/* bytes that follow */
	uint32_t flags; /* received: SC_DGRAM_F_* */
	/* receive ring: the sender. Send ring: the destination; family 0: where the socket is connected to */
	struct sc_sockaddr addr;
	uint8_t local
	    [16]; /* receive ring: address to which it was sent (IPv4: first 4 bytes). Send ring: source
			      (IP_PKTINFO), or zero */
	uint32_t ifindex; /* of the interface */
	uint8_t tos;
	uint8_t ttl;
	uint16_t local_family; /* of local; 0: none */
	uint32_t reserved;
};
static_assert(sizeof(struct sc_dgram) == SC_DGRAM_ALIGN, "wire");

/* Bytes that a datagram takes in a ring. `len` below 2^31. */
static inline uint32_t sc_dgram_space(uint32_t len)
{
	return (uint32_t)((sizeof(struct sc_dgram) + (uint64_t)len + SC_DGRAM_ALIGN - 1) &
			  ~(uint64_t)(SC_DGRAM_ALIGN - 1));
}

/* Listener's receive ring: connections, oldest first. Its indices count bytes like all others. */
struct sc_accept {
	uint64_t handle;
	struct sc_sock_loc loc;
	struct sc_sockaddr peer;
	uint8_t pad[4];
};
static_assert(sizeof(struct sc_accept) == 64, "wire");

/* ---- what the domain tells of itself ---- */

struct sc_net_conf {
	uint32_t mtu;
	uint32_t flags; /* 1: the link is up */
	uint8_t mac[6];
	uint16_t prefix4;
	uint32_t addr4; /* big-endian; 0: none (yet) */
	uint32_t gw4;
	uint32_t dns4[3]; /* from DHCP or the definition; 0: none */
	uint32_t naddr6;
	struct {
		uint8_t addr[16];
		uint32_t prefix;
	} addr6[4];
	uint8_t dns6[2][16];
};

struct sc_sock_info {
	uint64_t handle;
	uint32_t uid;
	uint32_t pid; /* that made it */
	uint16_t family;
	uint16_t type;
	uint32_t
	    tcp_state; /* TCP_ESTABLISHED (1) .. TCP_CLOSING (11), as Linux numbers them; datagrams: 1 or 7 */
	struct sc_sockaddr local;
	struct sc_sockaddr peer;
	uint32_t recvq; /* bytes; listeners: connections */
	uint32_t sendq; /* bytes; listeners: backlog */
};
static_assert(sizeof(struct sc_sock_info) == 88, "wire");

/* Frames or packets of one protocol, since the incarnation began. */
struct sc_net_count {
	uint64_t in;
	uint64_t out;
	uint64_t dropped; /* no memory, no room, nobody who wants it */
	uint64_t errors;  /* checksums, lengths, options */
};

/*
 * What a network domain tells tools, in the state region (control.h) from SC_STATE_TABLES_OFF on. Written by the agent every second; seq
 * is odd meanwhile. Readers copy it, check counts against the region's size, and believe nothing.
 */
#define SC_NET_STATE_MAGIC 0x314e4353u /* "SCN1" */
struct sc_net_state {
	uint32_t magic;
	uint32_t seq;
	struct sc_net_conf conf;
	uint32_t reserved;
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	struct sc_net_count frames, arp, ip4, ip6, icmp, udp, tcp;
	uint64_t rings_in;  /* bytes put into receive rings */
	uint64_t rings_out; /* bytes taken out of send rings */
	uint32_t nsocks;    /* sockets that there are */
	uint32_t listed;    /* of which follow here, by index */
	struct sc_sock_info socks[];
};
static_assert(sizeof(struct sc_net_state) % 8 == 0, "wire");

#endif
