/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * service_net.c - the network agent: options, the ops table of service.h, and the operations of vhost-sc/net.h.
 *
 * All operations are executed at once by the poller, but for a CLOSE that lingers.
 */
#include "kept.h"

#include "../log.h"
#include "../service.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <lwip/timeouts.h>

#define MAX_VALUE    256u /* bytes of an option's value */
#define LIST_MAX     64u  /* sockets that one NET_SOCKETS tells */
#define DEFAULT_MTU  1500
#define SESSIONS_MAX 1000000u

struct net net_instance;

/* ---- options ---- */

static const char usage[] =
    "Usage: sc-agent-net (--device PATH | --loopback SOCKET) (--tap NAME | --pci ADDRESS) "
    "[options]\n"
    "Serves the sockets of a network domain: in its guest through /dev/sc, or as a process of the\n"
    "host (a loopback domain: no isolation).\n"
    "\n"
    "  --device PATH      the guest driver's device, /dev/sc\n"
    "  --loopback SOCKET  the broker's agent.sock\n"
    "  --tap NAME         the NIC is this tap device of the kernel (made if need be)\n"
    "  --pci ADDRESS      the NIC is this one, driven by DPDK; auto: the only one (in a guest)\n"
    "  --addr ADDR/PREFIX IPv4 address\n"
    "  --gw ADDR          IPv4 gateway\n"
    "  --addr6 ADDR/PREFIX  IPv6 address, up to 4 times (default: link-local alone)\n"
    "  --slaac            IPv6 addresses as routers announce them, too\n"
    "  --dhcp             IPv4 address and gateway by DHCP\n"
    "  --dns ADDR         name server that programs are to ask, up to 3 times\n"
    "  --mtu N            576..9000 (default 1500)\n"
    "  --role network     what is served (default: network)\n"
    "  --pollers 1        one poller runs the stack\n"
    "  --pin CPU          its CPU (default: not pinned)\n"
    "  --max-spin-us N    longest spin of a poller without work, 1..10000 (default: the broker's, "
    "or "
    "50)\n"
    "  --log-level LEVEL  error, warning, info (default) or debug\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 told to end; 1 a problem, which stderr names; 2 wrong usage.\n";

enum { OPT_TAP = 1, OPT_PCI, OPT_ADDR, OPT_GW, OPT_ADDR6, OPT_SLAAC, OPT_DHCP, OPT_DNS, OPT_MTU };

static const struct option options[] = {
    {"tap", required_argument, NULL, OPT_TAP},
#ifdef SC_HAVE_DPDK
    {"pci", required_argument, NULL, OPT_PCI},
#endif
    {"addr", required_argument, NULL, OPT_ADDR},   {"gw", required_argument, NULL, OPT_GW},
    {"addr6", required_argument, NULL, OPT_ADDR6}, {"slaac", no_argument, NULL, OPT_SLAAC},
    {"dhcp", no_argument, NULL, OPT_DHCP},	   {"dns", required_argument, NULL, OPT_DNS},
    {"mtu", required_argument, NULL, OPT_MTU},	   {NULL, 0, NULL, 0},
};

/* ADDR/PREFIX. False: it is not. */
static bool parse_prefix(const char *text, int family, void *addr, uint32_t *prefix)
{
	char copy[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	char *rest;

	if (!slash || (size_t)(slash - text) >= sizeof(copy))
		return false;
	memcpy(copy, text, (size_t)(slash - text));
	copy[slash - text] = '\0';
	*prefix = (uint32_t)strtoul(slash + 1, &rest, 10);
	return inet_pton(family, copy, addr) == 1 && rest != slash + 1 && !*rest && *prefix >= 1 &&
	       *prefix <= (family == AF_INET ? 32 : 128);
}

static const char *take_dns(struct net_options *n, const char *value)
{
	for (size_t i = 0; i < 3; i++)
		if (!n->dns4[i])
			return inet_pton(AF_INET, value, &n->dns4[i]) == 1
				   ? NULL
				   : "--dns: not an IPv4 address";
	return "--dns: at most three";
}

static const char *take_option(struct options *o, int val, char *value)
{
	struct net_options *n = &net_instance.opt;
	unsigned long mtu;

	switch (val) {
	case OPT_TAP:
		n->tap = value;
		return NULL;
	case OPT_PCI:
		n->pci = value;
		return NULL;
	case OPT_ADDR:
		return parse_prefix(value, AF_INET, &n->addr4, &n->prefix4)
			   ? NULL
			   : "--addr: not ADDRESS/PREFIX";
	case OPT_GW:
		return inet_pton(AF_INET, value, &n->gw4) == 1 ? NULL : "--gw: not an IPv4 address";
	case OPT_ADDR6:
		if (n->naddr6 == NET_MAX_ADDR6)
			return "--addr6: at most four";
		if (!parse_prefix(value, AF_INET6, n->addr6[n->naddr6].addr,
				  &n->addr6[n->naddr6].prefix))
			return "--addr6: not ADDRESS/PREFIX";
		n->naddr6++;
		return NULL;
	case OPT_SLAAC:
		n->autoconf = true;
		return NULL;
	case OPT_DHCP:
		n->dhcp = true;
		return NULL;
	case OPT_DNS:
		return take_dns(n, value);
	case OPT_MTU:
		mtu = strtoul(value, NULL, 10);
		if (mtu < 576 || mtu > 9000)
			return "--mtu: not from 576 to 9000";
		n->mtu = (uint16_t)mtu;
		return NULL;
	default:
		return "unknown option";
	}
}

static const char *check_options(const struct options *o)
{
	const struct net_options *n = &net_instance.opt;

	if (!n->tap == !n->pci)
		return "one of --tap and --pci";
	return n->addr4 || n->dhcp || n->naddr6 || n->autoconf ? NULL
							       : "--addr ADDRESS/PREFIX, or --dhcp";
}

/* ---- start ---- */

static bool prepare(struct agent *agent)
{
	struct net *n = &net_instance;
	uint16_t mtu = n->opt.mtu ? n->opt.mtu : DEFAULT_MTU;

	n->agent = agent;
	agent->net = n;
#ifdef SC_HAVE_DPDK
	n->port = n->opt.pci ? port_open_dpdk(n->opt.pci, mtu) : port_open_tun(n->opt.tap, mtu);
#else
	n->port = port_open_tun(n->opt.tap, mtu);
#endif
	return n->port != NULL;
}

static bool make_tables(struct agent *agent)
{
	struct net *n = agent->net;

	pthread_mutex_init(&n->lock, NULL);
	for (uint32_t i = 0; i < SC_NET_SOCKETS; i++) {
		n->free_index[i] = (uint16_t)(SC_NET_SOCKETS - 1 - i);
		/* Names of an earlier incarnation do not come again soon. */
		n->generation[i] = agent->incarnation << 20;
	}
	n->nfree = SC_NET_SOCKETS;
	agent->sessions = sessions_new(SESSIONS_MAX);
	if (!agent->sessions)
		log_error("not enough memory for the tables");
	return agent->sessions != NULL;
}

static void describe(const struct agent *agent, char *text, size_t size)
{
	const struct net_options *o = &agent->net->opt;
	char addr[INET_ADDRSTRLEN] = "no IPv4 address";

	if (o->addr4)
		inet_ntop(AF_INET, &o->addr4, addr, sizeof(addr));
	snprintf(text, size, "sockets on %s %s, %s%s", agent->net->port->ops->name,
		 o->tap ? o->tap : "", addr, o->dhcp ? ", DHCP" : "");
}

static bool poller_ready(struct poller *p)
{
	struct net *n = poller_agent(p)->net;

	n->poller = p;
	if (!iface_start(n))
		return false;
	if (n->port->fd >= 0 && !poller_watch(p, n->port->fd)) {
		log_error("cannot wait for frames: %m");
		return false;
	}
	n->ready = true;
	return true;
}

/* ---- operations ---- */

struct operation {
	const char *name;
	int64_t (*run)(struct net *n, struct nsession *ns, struct call *c);
	bool on_socket; /* c->s.handle is a socket that the session may use */
	bool changes;	/* that socket: what it is now is kept */
};

/* The socket of the call; it was found by op_start(). */
static struct nsock *sock_of(struct net *n, const struct call *c)
{
	return n->sock[(uint32_t)c->s.handle];
}

static int64_t op_nop(struct net *n, struct nsession *ns, struct call *c)
{
	return (int64_t)c->s.arg0;
}

static bool in_arena(const struct call *c, uint32_t buf, uint32_t len)
{
	return sc_layout_in_arena(channel_layout(c->ch), buf, len);
}

/* Tells where a socket's object lies, if the process wants to know. */
static void tell_place(struct call *c, const struct nsock *s)
{
	if (c->s.len2 >= sizeof(s->loc))
		memcpy(channel_at(c->ch, c->s.buf2), &s->loc, sizeof(s->loc));
	c->cqe_flags = (uint32_t)(S_IFSOCK >> 12) << SC_CQE_TYPE_SHIFT;
}

static int64_t op_attach(struct net *n, struct nsession *ns, struct call *c)
{
	struct session *session = channel_session(c->ch);
	struct sc_net_conf conf;

	/* A first attach that pended may have been executed; a question has the same answer each time. */
	if (ns && !(c->again && !c->s.arg0 && ns->area == channel_at(c->ch, c->s.buf)))
		return -EEXIST;
	if (c->s.len != sizeof(struct sc_net_area) || c->s.buf % SC_LINE)
		return -EINVAL;
	if (!ns) {
		ns = calloc(1, sizeof(*ns));
		if (!ns)
			return -ENOMEM;
		ns->session = session;
		ns->ch = c->ch;
		ns->area = channel_at(c->ch, c->s.buf);
		ns->next = n->sessions;
		n->sessions = ns;
		session->service = ns;
		kept_area(ns, c->s.buf);
	}
	if (c->s.len2 >= sizeof(conf)) {
		iface_conf(n, &conf);
		memcpy(channel_at(c->ch, c->s.buf2), &conf, sizeof(conf));
	}
	return 0;
}

static int give_segment(struct nsession *ns, const struct call *c)
{
	if (c->s.arg0)
		return memory_of_ticket(ns, c->s.arg0, c->s.arg1);
	if (!c->s.len || c->s.buf % SC_PAGE)
		return -EINVAL;
	for (uint32_t i = 0; c->again && i < ns->nmemory; i++)
		if (ns->memory[i]->session == ns->session->id && ns->memory[i]->start == c->s.buf)
			return 0; /* an earlier incarnation has taken it */
	return memory_of_channel(ns, c->s.buf, c->s.buf + c->s.len);
}

static int64_t op_segment(struct net *n, struct nsession *ns, struct call *c)
{
	int err = give_segment(ns, c);

	if (!err)
		tcp_socks_room(n);
	return err;
}

static bool ring_log2(uint64_t value, uint32_t standard, uint32_t *log2)
{
	*log2 = value & 0xff ? (uint32_t)(value & 0xff) : standard;
	return *log2 >= SC_RING_MIN_LOG2 && *log2 <= SC_RING_MAX_LOG2;
}

static int check_kind(const struct nsession *ns, uint32_t family, uint32_t type, uint32_t protocol)
{
	if (family != AF_INET && family != AF_INET6)
		return -EAFNOSUPPORT;
	if (type == SOCK_STREAM)
		return protocol == 0 || protocol == IPPROTO_TCP ? 0 : -EPROTONOSUPPORT;
	if (type == SOCK_DGRAM)
		return protocol == 0 || protocol == IPPROTO_UDP ? 0 : -EPROTONOSUPPORT;
	if (type == SOCK_RAW)
		return ns->session->cred->uid ? -EPERM : -EPROTONOSUPPORT;
	return -ESOCKTNOSUPPORT;
}

/* Makes the session the socket's owner, under a ticket. 0 or -errno; then the socket is as before. */
static int own(struct nsock *s, struct nsession *ns, uint64_t ticket, uint64_t secret)
{
	int err = ticket_begin(ns->session, ticket);

	if (err)
		return err;
	if (!sock_add_user(s, ns)) {
		ticket_end(ns->session, ticket, TICKET_FREE);
		return -ENOMEM;
	}
	s->owner = ns->session;
	atomic_fetch_add_explicit(&ns->session->refs, 1, memory_order_relaxed);
	ns->nsocks++;
	s->uid = ns->session->cred->uid;
	s->pid = ns->session->pid;
	s->secret = secret;
	err = ticket_end(ns->session, ticket, s->handle);
	if (!err)
		s->ticket = ticket;
	return err;
}

/* The socket that the ticket has already, because an earlier incarnation executed the same call. */
static struct nsock *find_made(struct net *n, const struct nsession *ns, const struct call *c)
{
	struct nsock *s = n->all;

	if (!c->again || !c->s.arg1)
		return NULL;
	while (s && !(s->restored && s->ticket == c->s.arg1 && s->secret == c->s.arg2 &&
		      s->owner == ns->session))
		s = s->next;
	return s;
}

static int64_t op_socket(struct net *n, struct nsession *ns, struct call *c)
{
	uint32_t family = c->s.arg0 & 0xffff, type = c->s.arg0 >> 16 & 0xffff;
	uint32_t tx_log2, rx_log2;
	struct nsock *s;
	int err = check_kind(ns, family, type, (uint32_t)(c->s.arg0 >> 32));

	if (err)
		return err;
	if (!ring_log2(c->s.off, SC_RING_DEFAULT_LOG2, &tx_log2) ||
	    !ring_log2(c->s.off >> 8, SC_RING_DEFAULT_LOG2, &rx_log2) || !c->s.arg2)
		return -EINVAL;
	s = find_made(n, ns, c);
	if (s) {
		tell_place(c, s);
		return (int64_t)s->handle;
	}
	s = sock_new(n, ns, (int)family, (int)type, tx_log2, rx_log2, c->s.off & SC_SOCKET_F_SHARED,
		     &err);
	if (!s)
		return err;
	s->loc.protocol = type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
	s->child_tx_log2 = s->child_rx_log2 = SC_RING_CHILD_LOG2;
	err = own(s, ns, c->s.arg1, c->s.arg2);
	if (!err && type == SOCK_DGRAM)
		err = udp_sock_make(s);
	if (err) {
		sock_gone(s);
		return err;
	}
	kept_sock(s);
	tell_place(c, s);
	return (int64_t)s->handle;
}

static bool take_address(struct call *c, struct sc_sockaddr *a)
{
	/* A sockaddr_in is shorter. */
	if (c->s.len < 16)
		return false;
	memset(a, 0, sizeof(*a));
	channel_read(c->ch, c->s.buf, a, c->s.len < sizeof(*a) ? c->s.len : sizeof(*a));
	return a->family != AF_INET6 || c->s.len >= 24;
}

static int64_t op_bind(struct net *n, struct nsession *ns, struct call *c)
{
	struct nsock *s = sock_of(n, c);
	struct sc_sockaddr a;
	ip_addr_t ip;
	uint16_t port;
	int err;

	if (!take_address(c, &a))
		return -EINVAL;
	err = addr_from(&a, s->family, &ip, &port);
	if (err)
		return err;
	if (port && port < 1024 && ns->session->cred->uid)
		return -EACCES;
	if (ip_addr_isany(&ip)) {
		if (s->family == AF_INET6 && !s->opt.v6only)
			ip = (ip_addr_t)IPADDR_ANY_TYPE_INIT;
	} else if (!iface_has(n, &ip) && !(s->type == SOCK_DGRAM && ip_addr_ismulticast(&ip))) {
		return -EADDRNOTAVAIL;
	}
	return s->type == SOCK_STREAM ? tcp_sock_bind(s, &ip, port) : udp_sock_bind(s, &ip, port);
}

static int64_t op_listen(struct net *n, struct nsession *ns, struct call *c)
{
	struct nsock *s = sock_of(n, c);
	uint32_t tx_log2, rx_log2;

	if (s->type != SOCK_STREAM)
		return -EOPNOTSUPP;
	if (!ring_log2(c->s.arg1, s->child_tx_log2, &tx_log2) ||
	    !ring_log2(c->s.arg1 >> 8, s->child_rx_log2, &rx_log2))
		return -EINVAL;
	s->child_tx_log2 = (uint8_t)tx_log2;
	s->child_rx_log2 = (uint8_t)rx_log2;
	return tcp_sock_listen(s, c->s.arg0 > INT32_MAX ? INT32_MAX : (uint32_t)c->s.arg0);
}

static int64_t op_connect(struct net *n, struct nsession *ns, struct call *c)
{
	struct nsock *s = sock_of(n, c);
	struct sc_sockaddr a;

	if (s->type == SOCK_DGRAM && c->s.len >= 2 && c->s.len < 16) {
		memset(&a, 0, sizeof(a));
		channel_read(c->ch, c->s.buf, &a, 2);
		return a.family == AF_UNSPEC ? udp_sock_connect(s, &a) : -EINVAL;
	}
	if (!take_address(c, &a))
		return -EINVAL;
	return s->type == SOCK_STREAM ? tcp_sock_connect(s, &a) : udp_sock_connect(s, &a);
}

static int64_t op_adopt(struct net *n, struct nsession *ns, struct call *c)
{
	struct nsock *l = sock_of(n, c), *s;
	int64_t res;
	int err;

	if (l->state != SC_SOCK_LISTEN || !c->s.arg2)
		return -EINVAL;
	tcp_sock_look_at_taken(l);
	s = sock_get(ns, c->s.arg0, &err);
	if (!s)
		return err;
	if (kept_result(s, c, &res)) {
		tell_place(c, s);
		return res;
	}
	if (s->listener != l || !s->taken)
		return -EINVAL;
	err = sock_settle(s, ns);
	if (err)
		return err;
	err = own(s, ns, c->s.arg1, c->s.arg2);
	if (s->owner)
		sock_unlink_child(s);
	kept_by(s, c, err);
	if (!err)
		kept_sock(s);
	if (err && s->owner)
		sock_gone(s); /* its ticket is dead: so is who would use it */
	else if (!err)
		tell_place(c, s);
	return err;
}

static int64_t op_shutdown(struct net *n, struct nsession *ns, struct call *c)
{
	struct nsock *s = sock_of(n, c);

	if (c->s.arg0 > SHUT_RDWR)
		return -EINVAL;
	if (s->type == SOCK_STREAM)
		return tcp_sock_shutdown(s, (int)c->s.arg0);
	if (s->state != SC_SOCK_CONNECTED)
		return -ENOTCONN;
	sock_set_flags(s, (c->s.arg0 != SHUT_WR ? SC_SOCK_F_RX_EOF : 0) |
			      (c->s.arg0 != SHUT_RD ? SC_SOCK_F_TX_CLOSED : 0));
	return 0;
}

static int64_t op_setsockopt(struct net *n, struct nsession *ns, struct call *c)
{
	uint8_t value[MAX_VALUE];

	if (c->s.len > sizeof(value))
		return -EINVAL;
	channel_read(c->ch, c->s.buf, value, c->s.len);
	return sockopt_set(sock_of(n, c), (uint32_t)c->s.arg0, (uint32_t)c->s.arg1, value,
			   c->s.len);
}

static int64_t op_getsockopt(struct net *n, struct nsession *ns, struct call *c)
{
	uint8_t value[MAX_VALUE];
	int64_t len = sockopt_get(sock_of(n, c), (uint32_t)c->s.arg0, (uint32_t)c->s.arg1, value,
				  c->s.len < sizeof(value) ? c->s.len : (uint32_t)sizeof(value));

	if (len > 0)
		memcpy(channel_at(c->ch, c->s.buf), value, (size_t)len);
	return len;
}

static int64_t op_sockets(struct net *n, struct nsession *ns, struct call *c)
{
	struct sc_sock_info info[LIST_MAX];
	uint32_t room = c->s.len / (uint32_t)sizeof(info[0]), count;

	if (!room || c->s.off >= SC_NET_SOCKETS)
		return room ? 0 : -EINVAL;
	count = socks_list(n, (uint32_t)c->s.off, info, room < LIST_MAX ? room : LIST_MAX);
	memcpy(channel_at(c->ch, c->s.buf), info, count * sizeof(info[0]));
	return (int64_t)(count * sizeof(info[0]));
}

static int64_t op_grant(struct net *n, struct nsession *ns, struct call *c)
{
	uint32_t index = (uint32_t)c->s.handle;
	struct nsock *s = index < SC_NET_SOCKETS ? n->sock[index] : NULL;

	if (!s || s->handle != c->s.handle || s->host_gone)
		return -EBADF;
	if (!sock_may_use(s, ns)) {
		if (!s->secret || s->secret != c->s.arg2)
			return -EACCES;
		if (!s->loc.segment)
			return -EOPNOTSUPP;
		if (!sock_add_user(s, ns))
			return -ENOMEM;
	}
	tell_place(c, s);
	return 0;
}

static int64_t op_close(struct net *n, struct nsession *ns, struct call *c)
{
	struct nsock *s = sock_of(n, c);
	bool linger = s->opt.linger_on && s->opt.linger_s && s->state == SC_SOCK_CONNECTED;

	if (s->nusers > 1)
		return -EBUSY;
	if (linger) {
		s->closing = c;
		s->closing_until = n->now + (int64_t)s->opt.linger_s * 1000000000;
	}
	sock_gone(s);
	return linger ? -EINPROGRESS : 0;
}

static const struct operation operations[SC_OP_MAX] = {
    [SC_OP_NOP] = {"NOP", op_nop, false},
    [SC_OP_CLOSE] = {"CLOSE", op_close, true},
    [SC_OP_GRANT] = {"GRANT", op_grant, false},
    [SC_OP_NET_ATTACH] = {"NET_ATTACH", op_attach, false},
    [SC_OP_NET_SEGMENT] = {"NET_SEGMENT", op_segment, false},
    [SC_OP_SOCKET] = {"SOCKET", op_socket, false},
    [SC_OP_BIND] = {"BIND", op_bind, true, true},
    [SC_OP_LISTEN] = {"LISTEN", op_listen, true, true},
    [SC_OP_CONNECT] = {"CONNECT", op_connect, true, true},
    [SC_OP_ADOPT] = {"ADOPT", op_adopt, true},
    [SC_OP_SHUTDOWN] = {"SHUTDOWN", op_shutdown, true, true},
    [SC_OP_SETSOCKOPT] = {"SETSOCKOPT", op_setsockopt, true, true},
    [SC_OP_GETSOCKOPT] = {"GETSOCKOPT", op_getsockopt, true},
    [SC_OP_NET_SOCKETS] = {"NET_SOCKETS", op_sockets, false},
};

static int64_t execute(struct net *n, struct call *c)
{
	const struct operation *o = &operations[c->s.op];
	struct nsession *ns = channel_session(c->ch)->service;
	struct nsock *s;
	int64_t res;
	int err;

	if (!in_arena(c, c->s.buf, c->s.len) || !in_arena(c, c->s.buf2, c->s.len2))
		return -EINVAL;
	if (!ns && c->s.op != SC_OP_NET_ATTACH && c->s.op != SC_OP_NOP)
		return -EINVAL;
	if (o->on_socket && !sock_get(ns, c->s.handle, &err))
		/* An earlier incarnation may have closed it, and not have come to say so. */
		return c->again && c->s.op == SC_OP_CLOSE && err == -EBADF ? 0 : err;
	if (!o->changes)
		return o->run(n, ns, c);
	s = sock_of(n, c);
	if (kept_result(s, c, &res))
		return res;
	res = o->run(n, ns, c);
	kept_by(s, c, res);
	kept_sock(s);
	return res;
}

static enum step begin(struct poller *p, struct call *c)
{
	struct net *n = poller_agent(p)->net;

	if (c->s.op >= SC_OP_MAX || !operations[c->s.op].run) {
		c->res = -ENOSYS;
		return STEP_DONE;
	}
	if (c->s.flags) {
		c->res = -EINVAL;
		return STEP_DONE;
	}
	if (atomic_load_explicit(&n->stage, memory_order_relaxed) != NET_RESTORED) {
		c->next = n->parked;
		n->parked = c;
		return STEP_AWAY;
	}
	n->now = now_ns();
	c->res = execute(n, c);
	return c->s.op == SC_OP_CLOSE && c->res == -EINPROGRESS ? STEP_AWAY : STEP_DONE;
}

static void finish(struct poller *p, struct call *c)
{
}

/* ---- the poller's own work ---- */

/* What an earlier incarnation had is there again: operations that came meanwhile are begun. */
static void go_on(struct net *n)
{
	kept_restore(n);
	atomic_store_explicit(&n->stage, NET_RESTORED, memory_order_relaxed);
	while (n->parked) {
		struct call *c = n->parked;

		n->parked = c->next;
		poller_return(c, CALL_RESTART);
	}
}

/* True if the service may work. */
static bool come_so_far(struct net *n)
{
	/* Acquire: what kept_read() has found. */
	switch (atomic_load_explicit(&n->stage, memory_order_acquire)) {
	case NET_RESTORED:
		return true;
	case NET_WAITING:
		if (n->now > n->restore_by)
			atomic_store_explicit(&n->stage, NET_RESTORING, memory_order_relaxed);
		return false;
	case NET_RESTORING:
		/* Its channels were attached before it was said, and perhaps looked at by this poller after the round began: next
		 * time all are there. */
		if (n->seen_resumed)
			go_on(n);
		n->seen_resumed = true;
		return n->found == NULL;
	default:
		return false;
	}
}

static uint32_t poll_net(struct poller *p)
{
	struct net *n = poller_agent(p)->net;
	uint32_t count;

	if (!n->ready)
		return 0;
	n->now = now_ns();
	if (!come_so_far(n))
		return n->seen_resumed;
	count = socks_take_released(n);
	count += socks_take_kicks(n);
	if (n->held)
		tcp_release_held(n);
	count += iface_poll(n);
	count += socks_tell(n);
	return count;
}

static bool anything(struct poller *p)
{
	struct net *n = poller_agent(p)->net;

	if (atomic_load_explicit(&n->stage, memory_order_relaxed) != NET_RESTORED)
		return atomic_load_explicit(&n->stage, memory_order_relaxed) == NET_RESTORING;
	return socks_anything(n) || (n->ready && n->port->ops->arm && n->port->ops->arm(n->port));
}

static int sleep_ms(struct poller *p)
{
	struct net *n = poller_agent(p)->net;

	return n->ready ? iface_sleep_ms(n) : -1;
}

static bool recover(struct agent *agent)
{
	return kept_read(agent->net);
}

static void resumed(struct agent *agent)
{
	struct net *n = agent->net;
	int waiting = NET_WAITING;

	/* Release: the sessions are attached. */
	atomic_compare_exchange_strong_explicit(&n->stage, &waiting, NET_RESTORING,
						memory_order_release, memory_order_relaxed);
	poller_wake(n->agent->pollers[0]); /* n->poller is the poller's own */
}

static bool pending_lost(const struct agent *agent)
{
	return kept_lost_all();
}

static void ended(struct agent *agent)
{
	struct port *t = agent->net->port;

	if (t->ops->end)
		t->ops->end(t);
}

static void cancel_session(struct agent *agent, struct session *s)
{
	if (s->service)
		session_cancel(agent->net, s->service);
}

static void end_session(struct agent *agent, struct session *s)
{
	if (s->service)
		session_end(agent->net, s->service);
}

static void release(struct agent *agent, const uint64_t *tickets, uint32_t n)
{
	socks_release(agent->net, tickets, n);
}

static uint32_t count_open(struct agent *agent)
{
	return atomic_load_explicit(&agent->net->nsocks, memory_order_relaxed);
}

static const int syscalls[] = {SYS_writev, SYS_readv, -1};

const struct service agent_service = {
    .program = "sc-agent-net",
    .syscalls = syscalls,
    .usage = usage,
    .role = SC_ROLE_NETWORK,
    .max_pollers = 1,
    .options = options,
    .option = take_option,
    .check_options = check_options,
    .prepare = prepare,
    .make_tables = make_tables,
    .recover = recover,
    .resumed = resumed,
    .pending_lost = pending_lost,
    .ended = ended,
    .describe = describe,
    .begin = begin,
    .finish = finish,
    .cancel_session = cancel_session,
    .end_session = end_session,
    .end_in_poller = true,
    .release = release,
    .count_open = count_open,
    .poller_ready = poller_ready,
    .poll = poll_net,
    .anything = anything,
    .sleep_ms = sleep_ms,
};
