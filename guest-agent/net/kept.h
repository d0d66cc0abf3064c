/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kept.h - what the network service keeps in the host's memory (vhost-sc/netkeep.h), and how a later incarnation goes on from it.
 *
 * TCP. A connection is two streams and a few numbers. The streams' bytes lie in the rings, in segments of the host's, from the
 * moment at which they were sent by the process, or received for it, until they are acknowledged, or taken. An index of a ring and
 * a sequence number differ by a constant (iss, irs). So what has to be kept besides the rings is little, and each of it is one
 * word, stored at the right moment:
 *
 *   rcv_nxt    = irs + rx_tail, + 1 after the peer's FIN. Bytes are copied into the ring, then rx_tail is stored, and only then an
 *                ACK leaves: what was acknowledged is there. lwIP has one case in which it sends an ACK before we have the
 *                bytes (with SACK blocks): kept_leaves() lowers its number. rx_tail cannot lag behind an ACK, and if the crash
 *                comes between it and the ACK, the peer sends once more what we have, and is told so. No window is announced
 *                that the ring has no room for, not even in a SYN.
 *   snd_una    = iss + tx_head. It may lag: then bytes are sent that the peer has already, and drops.
 *   snd_nxt    all that is in the ring is given to lwIP as not sent yet, and is sent from snd_una on, as after a retransmission
 *                time-out. But the peer may acknowledge what the last incarnation has sent. `edge` is beyond all of that: the
 *                right edge of the largest window that the peer has announced so far, stored before a segment leaves. snd_nxt
 *                begins there, or at the end of what there is to send.
 *   windows    rcv_wnd is the room in the ring. snd_wnd may be old: a window that became smaller is learnt by the peer's answer,
 *                one that became larger by its next segment, or by the probe of an empty one.
 *   FIN        ours: `fin_at`, then a bit, before it leaves; it is sent again. The peer's: a bit, before its ACK leaves.
 *   constant   addresses, iss, MSS, scales, SACK: one entry, made before SYN|ACK leaves, or, for our own connect, before SYN
 *                leaves, and a second time when the answer has come. Until the handshake is over, it is repeated with the same
 *                numbers, for the peer may believe already that it is.
 *   not kept   RTT estimate, congestion window (begin anew, as after a pause), segments that came out of order (never acknowledged;
 *                SACK blocks only say that they came: RFC 2018 lets us forget them), times (keepalive begins anew).
 *
 * A pcb points at its entry (lwIP's "ext args"), which is freed with it. When only FINs are to be exchanged, the pcb outlives its
 * socket, and its entry says ALONE: una and rcv_nxt are then kept as they are. TIME-WAIT is not kept: its purpose is served by
 * initial sequence numbers that go on (kept_isn()): the secret that makes them is kept. A connection whose bytes had to be taken
 * out of the host's memory (its segment went with its process) cannot go on; it is marked LOST, and the next incarnation
 * resets it.
 *
 * Listeners. What waits to be accepted are sockets with entries of their own, that name their listener and their place in its
 * ring. A connection enters in the order: socket, connection, ring, rx_tail: one that is not in the ring yet is entered again.
 *
 * UDP. Rings and indices are the host's; a datagram may be sent twice.
 *
 * Recovery. kept_read(), before sessions are attached, checks the tables and takes hold of the segments in which sockets lie, so that
 * they stay when their tickets have no holder any more. kept_restore(), in the poller, when all sessions that live are
 * attached, makes memory, sockets, listeners, connections again, in this order, kicks each of them, and tells each process. Until then
 * the poller looks at no frame (an unknown connection would be answered by RST) and begins no operation.
 * Damaged tables are begun anew: sockets of before are gone, and what processes do with them fails; peers get RST.
 *
 * All but kept_read() in the poller's thread.
 */
#ifndef SC_NET_KEPT_H
#define SC_NET_KEPT_H

#include "net.h"
#include "vhost-sc/netkeep.h"

/* ---- while it goes on ---- */

/* Nothing of this does anything if there is no memory to keep things in (a broker without SC_F_RECOVERY). */

void kept_area(struct nsession *ns, uint32_t off);
void kept_area_gone(struct nsession *ns);
/* ns has given the memory; slot i of ns->memory. */
void kept_use(struct nsession *ns, uint32_t i);
void kept_use_gone(struct nsession *ns, uint32_t i);
/* The ticket's memory is known, or is no longer. */
void kept_memory(struct memory *m);
void kept_memory_gone(struct memory *m);

/* The socket as it is now; made, or changed. */
void kept_sock(struct nsock *s);
void kept_sock_gone(struct nsock *s);
/* A session that may use the socket; what is returned is passed to kept_grant_gone(). */
void *kept_grant(const struct nsock *s, const struct nsession *ns);
void kept_grant_gone(void *grant);
/* A group was joined (change = 1) or left (-1). */
void kept_group(bool six, const void *addr, int change);
/* DHCP gave address, mask, gateway. */
void kept_lease(const uint32_t addr[3]);

/* The connection is established and s->tcp is its pcb: constants are final. */
void kept_established(struct nsock *s);
void kept_eof(struct nsock *s);
void kept_fin(struct nsock *s);
/* n bytes were dropped instead of being put into the ring. */
void kept_dropped(struct nsock *s, uint32_t n);
/* The pcb goes on without socket. */
void kept_alone(struct tcp_pcb *pcb);
void kept_lost(struct nsock *s);
/* Entries of connections that are in TIME-WAIT by now are freed. */
void kept_tick(void);

/* ---- afterwards ---- */

/* service->recover. False: no memory. */
bool kept_read(struct net *n);
/* Makes again what was, once. */
void kept_restore(struct net *n);
/* Nothing of what was is known: calls that pended then cannot be begun again. Any thread, once kept_read() is through. */
bool kept_lost_all(void);
/* The call was executed by an earlier incarnation, on this socket: its result. */
bool kept_result(const struct nsock *s, const struct call *c, int64_t *res);
/* Notes it, for kept_result(); the entry is written by kept_sock(). */
void kept_by(struct nsock *s, const struct call *c, int64_t res);

#endif
