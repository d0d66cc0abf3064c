/* SPDX-License-Identifier: BSD-3-Clause */
/* iface.c - the interface: lwIP's netif on a port, its addresses, frames, timers; and addresses as the protocol has them. */
#include "kept.h"

#include "../log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <lwip/dhcp.h>
#include <lwip/etharp.h>
#include <lwip/ethip6.h>
#include <lwip/init.h>
#include <lwip/nd6.h>
#include <lwip/priv/nd6_priv.h>
#include <lwip/sys.h>
#include <lwip/timeouts.h>
#include <netif/ethernet.h>

#define LINK_CHECK_MS 500

/* ---- what lwIP asks for (arch/cc.h) ---- */

_Noreturn void net_stack_broken(const char *what, const char *file, int line)
{
	log_error("the TCP/IP stack found itself broken: %s (%s:%d)", what, file, line);
	abort();
}

uint32_t net_stack_random(void)
{
	uint32_t r = 0;

	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		return (uint32_t)now_ns();
	return r;
}

u32_t sys_now(void)
{
	return (u32_t)(net_instance.now / 1000000);
}

/* ---- frames ---- */

static err_t send_frame(struct netif *netif, struct pbuf *p)
{
	struct net *n = netif->state;

	n->sent = true;
	return n->port->ops->send(n->port, p) ? ERR_OK : ERR_BUF;
}

static void input(void *arg, struct pbuf *p)
{
	struct net *n = arg;

	tcp_make_way(p);
	if (n->netif.input(p, &n->netif) != ERR_OK)
		pbuf_free(p);
}

static err_t init_netif(struct netif *netif)
{
	struct net *n = netif->state;

	netif->name[0] = 's';
	netif->name[1] = 'c';
	netif->hostname = "vhost-sc";
	netif->output = etharp_output;
	netif->output_ip6 = ethip6_output;
	netif->linkoutput = send_frame;
	netif->mtu = n->port->mtu;
	netif->hwaddr_len = 6;
	memcpy(netif->hwaddr, n->port->mac, 6);
	netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET |
		       NETIF_FLAG_IGMP | NETIF_FLAG_MLD6;
	return ERR_OK;
}

static void add_addr6(struct net *n, const uint8_t *bytes)
{
	ip6_addr_t a = {0};
	s8_t index = -1;

	memcpy(a.addr, bytes, 16);
	ip6_addr_assign_zone(&a, IP6_UNICAST, &n->netif);
	if (netif_add_ip6_address(&n->netif, &a, &index) != ERR_OK)
		log_warning("no room for another IPv6 address");
}

static void on_status(struct netif *netif)
{
	char text[IP4ADDR_STRLEN_MAX];
	const uint32_t lease[3] = {netif_ip4_addr(netif)->addr, netif_ip4_netmask(netif)->addr,
				   netif_ip4_gw(netif)->addr};
	const struct net *n = netif->state;

	if (ip4_addr_isany_val(*netif_ip4_addr(netif)))
		return;
	if (n->opt.dhcp)
		kept_lease(lease);
	ip4addr_ntoa_r(netif_ip4_addr(netif), text, sizeof(text));
	log_info("address %s, gateway %s", text, ip4addr_ntoa(netif_ip4_gw(netif)));
}

bool iface_start(struct net *n)
{
	ip4_addr_t addr = {n->opt.addr4}, mask = {0}, gw = {n->opt.gw4};

	n->now = now_ns();
	lwip_init();
	if (n->opt.prefix4)
		mask.addr = htonl(~0u << (32 - n->opt.prefix4));
	if (!netif_add(&n->netif, &addr, &mask, &gw, n, init_netif, ethernet_input)) {
		log_error("the TCP/IP stack refuses the interface");
		return false;
	}
	netif_set_status_callback(&n->netif, on_status);
	netif_set_default(&n->netif);
	netif_create_ip6_linklocal_address(&n->netif, 1);
	netif_set_ip6_autoconfig_enabled(&n->netif, n->opt.autoconf);
	for (uint32_t i = 0; i < n->opt.naddr6; i++)
		add_addr6(n, n->opt.addr6[i].addr);
	if (n->port->ops->link_up(n->port))
		netif_set_link_up(&n->netif);
	netif_set_up(&n->netif);
	if (n->opt.dhcp && dhcp_start(&n->netif) != ERR_OK)
		log_error("cannot start DHCP");
	return true;
}

void iface_resume(struct net *n, const uint32_t lease[3])
{
	struct netif *nf = &n->netif;

	if (lease && n->opt.dhcp && ip4_addr_isany_val(*netif_ip4_addr(nf))) {
		ip4_addr_t addr = {lease[0]}, mask = {lease[1]}, gw = {lease[2]};

		netif_set_addr(nf, &addr, &mask, &gw);
	}
	for (int i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++)
		if (ip6_addr_istentative(netif_ip6_addr_state(nf, i)))
			netif_ip6_addr_set_state(nf, (s8_t)i, IP6_ADDR_PREFERRED);
}

static void look_at_link(struct net *n)
{
	bool up = n->port->ops->link_up(n->port);

	if (up == (bool)netif_is_link_up(&n->netif))
		return;
	log_info("link %s", up ? "up" : "down");
	if (up)
		netif_set_link_up(&n->netif);
	else
		netif_set_link_down(&n->netif);
}

uint32_t iface_poll(struct net *n)
{
	uint32_t count = n->port->ops->receive(n->port, NET_RX_BUDGET, input, n);
	uint32_t ms = sys_now();

	netif_poll_all();
	if (ms != n->last_ms) {
		n->last_ms = ms;
		sys_check_timeouts();
	}
	if (n->now >= n->tick_at) {
		n->tick_at = n->now + LINK_CHECK_MS * 1000000ll;
		look_at_link(n);
		socks_tick(n);
		tcp_bound_time_wait();
		kept_tick();
	}
	if (n->now >= n->state_at)
		net_state_write(n);
	if (n->sent) {
		n->sent = false;
		n->port->ops->flush(n->port);
	}
	return count;
}

int iface_sleep_ms(struct net *n)
{
	u32_t ms = sys_timeouts_sleeptime();

	if (n->held && ms > 20)
		ms = 20;
	return ms > LINK_CHECK_MS ? LINK_CHECK_MS : (int)ms;
}

void iface_drop_queues(struct net *n)
{
	etharp_cleanup_netif(&n->netif);
	nd6_cleanup_netif(&n->netif);
}

/* ---- addresses ---- */

void iface_conf(const struct net *n, struct sc_net_conf *conf)
{
	const struct netif *nf = &n->netif;

	memset(conf, 0, sizeof(*conf));
	conf->mtu = nf->mtu;
	conf->flags = netif_is_link_up(nf) ? 1 : 0;
	memcpy(conf->mac, nf->hwaddr, 6);
	conf->addr4 = netif_ip4_addr(nf)->addr;
	conf->prefix4 = (uint16_t)__builtin_popcount(netif_ip4_netmask(nf)->addr);
	conf->gw4 = netif_ip4_gw(nf)->addr;
	memcpy(conf->dns4, n->opt.dns4, sizeof(conf->dns4));
	for (int i = 0; i < LWIP_IPV6_NUM_ADDRESSES && conf->naddr6 < 4; i++) {
		if (!ip6_addr_isvalid(netif_ip6_addr_state(nf, i)))
			continue;
		memcpy(conf->addr6[conf->naddr6].addr, netif_ip6_addr(nf, i)->addr, 16);
		conf->addr6[conf->naddr6++].prefix = 64;
	}
}

bool iface_has(const struct net *n, const ip_addr_t *a)
{
	if (IP_IS_V4(a))
		return ip4_addr_cmp(ip_2_ip4(a), netif_ip4_addr(&n->netif)) &&
		       n->netif.ip_addr.u_addr.ip4.addr;
	for (int i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++)
		if (ip6_addr_isvalid(netif_ip6_addr_state(&n->netif, i)) &&
		    ip6_addr_cmp_zoneless(ip_2_ip6(a), netif_ip6_addr(&n->netif, i)))
			return true;
	return false;
}

bool addr_is_loopback(const ip_addr_t *ip)
{
	return IP_IS_V4(ip) ? ip4_addr_isloopback(ip_2_ip4(ip)) : ip6_addr_isloopback(ip_2_ip6(ip));
}

int addr_from(const struct sc_sockaddr *a, int family, ip_addr_t *ip, uint16_t *port)
{
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	if (a->family != family)
		return family == AF_INET6 && a->family != AF_UNSPEC ? -EINVAL : -EAFNOSUPPORT;
	*port = ntohs(a->port);
	memset(ip, 0, sizeof(*ip));
	if (family == AF_INET) {
		ip_addr_set_ip4_u32(ip, a->flow);
		return 0;
	}
	if (!memcmp(a->addr6, mapped, sizeof(mapped))) {
		uint32_t v4;

		memcpy(&v4, a->addr6 + 12, 4);
		ip_addr_set_ip4_u32(ip, v4);
		return 0;
	}
	IP_SET_TYPE_VAL(*ip, IPADDR_TYPE_V6);
	memcpy(ip_2_ip6(ip)->addr, a->addr6, 16);
	ip6_addr_assign_zone(ip_2_ip6(ip), IP6_UNKNOWN, &net_instance.netif);
	return 0;
}

void addr_to(const ip_addr_t *ip, uint16_t port, int family, struct sc_sockaddr *a)
{
	memset(a, 0, sizeof(*a));
	a->family = (uint16_t)family;
	a->port = htons(port);
	if (family == AF_INET) {
		a->flow = IP_IS_V4(ip) ? ip_2_ip4(ip)->addr : 0;
	} else if (IP_IS_V6(ip) || IP_IS_ANY_TYPE_VAL(*ip)) {
		memcpy(a->addr6, ip_2_ip6(ip)->addr, 16);
		if (ip6_addr_islinklocal(ip_2_ip6(ip)))
			a->scope = 1;
	} else {
		a->addr6[10] = a->addr6[11] = 0xff;
		memcpy(a->addr6 + 12, &ip_2_ip4(ip)->addr, 4);
	}
}
