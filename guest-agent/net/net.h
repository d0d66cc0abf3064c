/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net.h - the network service of sc-agent-net: what its parts share.
 *
 *   service_net.c  options, the ops table, the operations of vhost-sc/net.h, one round of the poller
 *   sock.c         segments, socket objects, who may use which, the end of sockets, events
 *   tcp.c, udp.c   between rings and lwIP
 *   sockopt.c      socket options
 *   iface.c        the interface: addresses, DHCP, frames
 *   kept.c         what outlives this agent, in the host's memory; restore.c makes it again
 *   port_*.c       NICs
 *
 * All of it runs in one poller's thread, and so does lwIP: there are no locks. Only tickets that are released come from the main
 * thread, through a mailbox (sock.c).
 *
 * Trust: what a process writes into its segments and its net area is loaded once, checked, used. A process that breaks the rules of a
 * ring loses that socket. Places and sizes of rings are private here (struct nsock) and never read back.
 */
#ifndef SC_NET_NET_H
#define SC_NET_NET_H

#include "../agent.h"
#include "../poller.h"
#include "../session.h"
#include "port.h"
#include "vhost-sc/net.h"

#include <lwip/netif.h>
#include <lwip/pbuf.h>
#include <lwip/tcp.h>
#include <lwip/udp.h>

#define NET_MAX_SEGMENTS    64u	   /* of one session */
#define NET_SESSION_SOCKETS 20000u /* of one session, accepted ones that nobody adopted included */
#define NET_MAX_ADDR6	    4u
#define NET_RX_BUDGET	    64u	 /* frames a round */
#define NET_CLASSES	    81u	 /* sizes of objects: pairs of ring sizes */
#define NET_MAX_BACKLOG	    254u /* lwIP counts in 8 bits */
#define NET_ORPHAN_MS \
	60000 /* a closed socket's bytes are given up when nothing was acknowledged for so long */

struct nsock;

/* What the command line says of the network. */
struct net_options {
	const char *tap;
	const char *pci;
	uint32_t addr4, gw4; /* big-endian */
	uint32_t prefix4;
	bool dhcp;
	bool autoconf; /* SLAAC */
	uint32_t naddr6;
	struct {
		uint8_t addr[16];
		uint32_t prefix;
	} addr6[NET_MAX_ADDR6];
	uint8_t gw6[16];
	bool has_gw6;
	uint32_t dns4[3];
	uint16_t mtu;
};

/*
 * Memory for socket objects: [start, end) of what begins at base. Either a range of a session's channel, or a ticket's segment, which
 * several sessions may use. Referenced by the sessions that gave it and by the objects in it; freed with the last reference.
 */
struct memory {
	struct memory *next;	 /* of all */
	struct segment *segment; /* a reference, while it is mapped; NULL: a channel's */
	uint64_t ticket;	 /* 0: the channel's */
	uint64_t secret;	 /* what a session presents to use the ticket's segment */
	uint8_t *base;
	uint32_t start, end;
	uint32_t fresh; /* never used from here on */
	uint32_t used;	/* bytes in objects */
	uint32_t refs;
	uint32_t session;		 /* in whose channel it is; 0: a ticket's */
	void *kept;			 /* its entry (kept.h) */
	bool ended;			 /* its bytes are not to be touched any more */
	struct hole *holes[NET_CLASSES]; /* freed objects by size */
	uint32_t nholes[NET_CLASSES];
};

/* A session as the network service sees it. session->service. */
struct nsession {
	struct nsession *next; /* of all */
	struct session *session;
	struct channel *ch;
	struct sc_net_area *area; /* shared; NULL before NET_ATTACH */
	uint32_t rung;		  /* value of area->arm when it was rung last */
	bool dirty;		  /* event bits were set in this round */
	struct nsession *dirty_next;
	struct memory *memory[NET_MAX_SEGMENTS];
	void *kept_use[NET_MAX_SEGMENTS]; /* entries (kept.h), one for each memory */
	uint32_t nmemory;
	uint32_t nsocks; /* of which it is the owner */
	void *kept_area;
};

/* How far the agent has come with what an earlier one left; see kept.h. */
enum net_stage {
	NET_READING,   /* it is not known yet */
	NET_WAITING,   /* for the sessions to be attached */
	NET_RESTORING, /* they are: the poller does it next */
	NET_RESTORED,
};

/* Why a socket is in the list of changed ones. */
#define CHANGED_STATE 1u /* anything that `watch` asks for */
#define CHANGED_ROOM  2u /* room in the send ring: tx_wait */

/* Options that are the socket's own and apply before and after it has a pcb. */
struct nsock_options {
	bool reuseaddr, reuseport, keepalive, broadcast, nodelay, cork, v6only, linger_on, pktinfo,
	    mcast_loop;
	uint32_t linger_s;
	uint32_t keep_idle_s, keep_intvl_s, keep_cnt;
	uint32_t user_timeout_ms;
	uint32_t defer_accept_s;
	uint8_t ttl, tos, mcast_ttl;
	uint32_t mcast_if;
};

struct nsock {
	struct net *net;
	uint64_t handle;
	uint32_t index;
	uint16_t family;
	uint8_t type; /* SOCK_STREAM or SOCK_DGRAM */
	uint8_t state;
	/* the object */
	struct memory *mem; /* NULL: evacuated, memory is `own` */
	struct sc_sock_loc loc;
	struct sc_sock *sh;
	uint8_t *tx, *rx;
	uint32_t tx_size, rx_size;
	void *own;
	/* who */
	struct session *owner; /* a reference; NULL: not adopted */
	struct nsession **users;
	void **grants; /* entries (kept.h), one for each user */
	uint32_t nusers, users_room;
	uint64_t ticket, secret;
	uint32_t uid, pid;
	/* indices: private copies */
	uint32_t tx_head; /* free up to here */
	uint32_t tx_sent; /* given to the stack up to here */
	uint32_t rx_head; /* the host's, as last seen */
	uint32_t rx_tail;
	uint32_t flags, err_seq;
	uint32_t changes;
	uint32_t name_seq;
	/* kept.h */
	void *kept;
	struct sc_call_id by; /* call that changed it last, and its result */
	int64_t by_res;
	bool restored;	   /* an earlier incarnation made it */
	bool ack_again;	   /* an ACK left with a lower number than lwIP meant */
	uint32_t iss, irs; /* sequence numbers of index 0 of the rings */
	/* the stack */
	struct tcp_pcb *tcp; /* connection or listener (struct tcp_pcb_listen) */
	struct udp_pcb *udp;
	struct pbuf *pending; /* received, and no room in the ring */
	struct sc_sockaddr local, peer;
	bool bound;
	bool rx_want;	 /* what sh->rx_want says */
	bool eof;	 /* FIN received; RX_EOF is told when pending is empty */
	bool fin_wanted; /* SHUT_WR: FIN after fin_at */
	bool fin_queued;
	uint32_t fin_at;
	bool host_gone;	     /* nobody holds it */
	int64_t progress_ns; /* last acknowledgement, for orphans and TCP_USER_TIMEOUT */
	int64_t hold_until;  /* corked bytes go out */
	struct nsock *held_next;
	bool held;
	struct call *closing; /* a CLOSE that lingers */
	int64_t closing_until;
	/* listeners and their children */
	struct nsock *listener; /* until adopted */
	struct nsock *children; /* not adopted, newest first */
	struct nsock *sibling, **sibling_link;
	struct nsock *group; /* SO_REUSEPORT: the next one on this port, in a ring; NULL: alone */
	uint32_t backlog;
	uint32_t queued; /* children in the ring */
	uint8_t child_tx_log2, child_rx_log2;
	uint32_t accept_at; /* child: its place in the listener's ring (index) */
	bool taken;
	int64_t taken_ns;
	struct nsock_options opt;
	/* lists */
	uint8_t changed;
	struct nsock *changed_next;
	struct nsock *next, **link; /* all sockets */
	uint64_t rx_dropped;
};

struct net {
	struct agent *agent;
	struct poller *poller;
	struct net_options opt;
	struct port *port;
	struct netif netif;
	struct nsession *sessions;
	struct memory *memories;
	struct nsession *dirty;
	struct nsock *all;
	struct nsock *changed;
	struct nsock *held;
	struct nsock *sock[SC_NET_SOCKETS];
	uint32_t generation[SC_NET_SOCKETS];
	uint16_t free_index[SC_NET_SOCKETS];
	uint32_t nfree;
	_Atomic uint32_t nsocks;
	uint32_t last_ms;
	int64_t now; /* of this round, ns */
	int64_t tick_at;
	int64_t state_at; /* when the state region is written next */
	uint32_t state_seq;
	bool sent; /* frames since the last flush */
	bool ready;
	_Atomic int stage;     /* enum net_stage */
	bool seen_resumed;     /* by the poller */
	int64_t restore_by;    /* not to wait longer for the sessions; ns */
	struct call *parked;   /* came before all was restored; newest first */
	struct restore *found; /* what kept_read() found */
	/* mailbox: tickets without holder; guarded by lock */
	pthread_mutex_t lock;
	_Atomic bool mail;
	uint64_t *released;
	uint32_t nreleased, released_room;
	int64_t complained_at;
	uint64_t bytes_in, bytes_out;
};

/* The stack has no context of its own: one net per program. */
extern struct net net_instance;

/* ---- iface.c ---- */

bool iface_start(struct net *n);
/* One round: frames in, timers. Returns how much it did. */
uint32_t iface_poll(struct net *n);
void iface_conf(const struct net *n, struct sc_net_conf *conf);
/* True if the address is one of the interface's. */
bool iface_has(const struct net *n, const ip_addr_t *a);
int iface_sleep_ms(struct net *n);
/* Frames that wait for a neighbour's address are dropped: they may point into memory that goes. */
void iface_drop_queues(struct net *n);
/* The addresses are as they were: without asking whether anybody else has them, and DHCP's before it answers. */
void iface_resume(struct net *n, const uint32_t lease[3]);

/* ---- sock.c ---- */

/* Gives the session [start, end) of its channel, or a ticket's segment, for its sockets. 0 or -errno. */
int memory_of_channel(struct nsession *ns, uint32_t start, uint32_t end);
int memory_of_ticket(struct nsession *ns, uint64_t ticket, uint64_t secret);
/* How many more connections of a listener find a place, in memory of any session that may use it. */
uint32_t sock_places(const struct nsock *s);
/* What an earlier incarnation had (restore.c): memory, with one reference, the caller's; and a socket in it, as its entry and its
 * object say. NULL: no memory, or impossible. */
struct memory *memory_again(struct net *n, struct segment *segment, uint8_t *base, uint32_t start,
			    uint32_t end);
struct sc_kept_sock;
struct nsock *sock_again(struct net *n, struct memory *m, const struct sc_kept_sock *k);
/* All sockets are there: what is free in the memory is found out, and the caller's reference put. */
void memory_settle(struct net *n, struct memory *m);
/* All users of all sockets are told that everything may have changed. */
void socks_tell_all(struct net *n);
/* A new socket with its object in a segment of `ns` (`shared`: not the channel). NULL: *err. */
struct nsock *sock_new(struct net *n, struct nsession *ns, int family, int type, uint32_t tx_log2,
		       uint32_t rx_log2, bool shared, int *err);
/* Has the socket lie in memory that the session gave: moves it there if it does not. Nobody else may be using its rings: it was taken
 * out of a listener's ring just now. 0 or -ENOBUFS. */
int sock_settle(struct nsock *s, struct nsession *ns);
/* The socket of this name that the session may use, or NULL with *err. */
struct nsock *sock_get(struct nsession *ns, uint64_t handle, int *err);
bool sock_add_user(struct nsock *s, struct nsession *ns);
bool sock_may_use(const struct nsock *s, const struct nsession *ns);
/* Nobody holds it any more: closes in order, and frees when the stack has done with it. */
void sock_gone(struct nsock *s);
/* Frees the object of a socket that has no pcb. */
void sock_free(struct nsock *s);
void sock_changed(struct nsock *s, unsigned why);
void sock_set_state(struct nsock *s, enum sc_sock_state state);
void sock_set_flags(struct nsock *s, uint32_t flags);
void sock_clear_flags(struct nsock *s, uint32_t flags);
void sock_set_error(struct nsock *s, int err);
void sock_set_names(struct nsock *s, const struct sc_sockaddr *local,
		    const struct sc_sockaddr *peer);
/* A process broke the rules of a socket's ring: a line in the log, of which there are few however many it breaks. */
void sock_complain(struct nsock *s, const char *what);
/* Tells processes what changed in this round. Returns how many sockets that were. */
uint32_t socks_tell(struct net *n);
/* Looks at what processes published. Returns how many sockets that were. */
uint32_t socks_take_kicks(struct net *n);
/* The same, whatever the sums say: once, after a recovery. */
void socks_take_all_kicks(struct net *n);
bool socks_anything(struct net *n);
/* Ends what the session owns without ticket, and its channel's segment. */
void session_end(struct net *n, struct nsession *ns);
/* Its calls that wait end. */
void session_cancel(struct net *n, struct nsession *ns);
void sock_end_closing(struct nsock *s);
/* Takes a child out of its listener's list: adopted, or over. */
void sock_unlink_child(struct nsock *s);
void socks_tick(struct net *n);
uint32_t socks_take_released(struct net *n);
void socks_release(struct net *n, const uint64_t *tickets, uint32_t count);
uint32_t socks_list(struct net *n, uint32_t from, struct sc_sock_info *to, uint32_t room);
/* Has the process publish room in its send ring known: index, and event. */
void sock_free_tx(struct nsock *s, uint32_t bytes);
/* Copies between ring and memory, around the end. */
void ring_read(const uint8_t *ring, uint32_t size, uint32_t at, void *to, uint32_t n);
void ring_write(uint8_t *ring, uint32_t size, uint32_t at, const void *from, uint32_t n);

/* ---- state.c ---- */

/* Tells tools, in the state region, what goes on. */
void net_state_write(struct net *n);

/* ---- addresses (iface.c) ---- */

/* 0 or -EAFNOSUPPORT, -EINVAL. AF_INET6 with a mapped address becomes IPv4. */
int addr_from(const struct sc_sockaddr *a, int family, ip_addr_t *ip, uint16_t *port);
void addr_to(const ip_addr_t *ip, uint16_t port, int family, struct sc_sockaddr *a);
bool addr_is_loopback(const ip_addr_t *ip);

/* ---- tcp.c ---- */

int tcp_sock_bind(struct nsock *s, const ip_addr_t *ip, uint16_t port);
int tcp_sock_listen(struct nsock *s, uint32_t backlog);
int tcp_sock_connect(struct nsock *s, const struct sc_sockaddr *to);
int tcp_sock_shutdown(struct nsock *s, int how);
/* The process published something, or took something. */
void tcp_sock_kick(struct nsock *s);
/* Ends the connection in order (or by RST if bytes were not read). The pcb may be gone after it. */
void tcp_sock_close(struct nsock *s);
void tcp_sock_abort(struct nsock *s);
/* Children that were taken out of a listener's ring. */
void tcp_sock_look_at_taken(struct nsock *listener);
/* Memory was given: listeners that asked for it do so no longer, if there is enough. */
void tcp_socks_room(struct net *n);
/* Options into the pcb. */
void tcp_sock_apply(struct nsock *s);
/* The send ring's bytes lie in `to` now: what the stack has queued is made to point there. */
void tcp_sock_move(struct nsock *s, uint8_t *to);
uint32_t tcp_sock_state(const struct nsock *s);
void tcp_sock_tick(struct nsock *s);
void tcp_release_held(struct net *n);
/* A frame is about to be received: a new connection in the place of one that is in TIME-WAIT gets it; one for which a listener has no
 * memory is not begun. */
void tcp_make_way(const struct pbuf *p);
/* Bounds the number of connections in TIME-WAIT. */
void tcp_bound_time_wait(void);
/* The connection of the entry is the socket's again; or, without socket, its FINs are exchanged; or its handshake. False: it cannot
 * be. Before any frame is received. */
struct sc_kept_conn;
bool tcp_sock_again(struct nsock *s, struct sc_kept_conn *c);
bool tcp_connect_again(struct nsock *s, struct sc_kept_conn *c);
bool tcp_alone_again(struct sc_kept_conn *c);
bool tcp_handshake_again(struct sc_kept_conn *c);
/* The peer is told that it is over. */
void tcp_reset_again(const struct sc_kept_conn *c, uint32_t una, uint32_t rcv_nxt);
/* The connection is lost, as if the peer had reset it. */
void tcp_sock_lose(struct nsock *s);
/* A connection that nobody adopted is its listener's again; and is entered into its ring if it was not. False: it is over already,
 * and nobody has heard of it. */
bool tcp_enqueue_again(struct nsock *l, struct nsock *s);
void tcp_adopt_again(struct nsock *l, struct nsock *s);

/* ---- udp.c ---- */

int udp_sock_make(struct nsock *s);
int udp_sock_bind(struct nsock *s, const ip_addr_t *ip, uint16_t port);
int udp_sock_connect(struct nsock *s, const struct sc_sockaddr *to);
void udp_sock_kick(struct nsock *s);
void udp_sock_close(struct nsock *s);
void udp_sock_apply(struct nsock *s);

/* ---- sockopt.c ---- */

int64_t sockopt_set(struct nsock *s, uint32_t level, uint32_t name, const void *value,
		    uint32_t len);
/* Bytes written to `value` (at most len), or -errno. */
int64_t sockopt_get(struct nsock *s, uint32_t level, uint32_t name, void *value, uint32_t len);

/* errno for an error of lwIP. */
int net_errno(err_t err);

#endif
