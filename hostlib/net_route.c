/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_route.c - which domain serves an address.
 *
 * Routes are looked at in the order in which they were given, those with a CIDR first, the one without as the last. Loopback
 * addresses are always the host's: a program's own helpers (a resolver, a debugger, an X server) are reached by them.
 */
#include <errno.h>
#include <string.h>

#include "net.h"

#define AF_INET_BITS  32u
#define AF_INET6_BITS 128u

struct netroute {
	struct sc_dom *dom;
	uint16_t family; /* 0: any address */
	uint32_t bits;
	uint8_t addr[16];
};

static struct netroute routes[SC_NET_ROUTES];
uint32_t sc_nnetroutes;

/* ---- reading CIDRs ---- */

static bool number(const char **s, const char *end, uint32_t max, uint32_t *out)
{
	const char *begin = *s;
	uint32_t v = 0;

	for (; *s < end && **s >= '0' && **s <= '9'; (*s)++) {
		v = v * 10 + (uint32_t)(**s - '0');
		if (v > max)
			return false;
	}
	*out = v;
	return *s != begin;
}

static bool parse4(const char **s, const char *end, uint8_t *addr)
{
	for (int i = 0; i < 4; i++) {
		uint32_t v;

		if (i && (*s == end || *(*s)++ != '.'))
			return false;
		if (!number(s, end, 255, &v))
			return false;
		addr[i] = (uint8_t)v;
	}
	return true;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Groups of hexadecimal digits; "::" once. */
static bool parse6(const char **s, const char *end, uint8_t *addr)
{
	uint32_t n = 0, gap = 16;

	memset(addr, 0, 16);
	while (*s < end && **s != '/') {
		uint32_t v = 0, digits = 0;

		if (**s == ':' && *s + 1 < end && (*s)[1] == ':') {
			if (gap != 16)
				return false;
			gap = n;
			*s += 2;
			continue;
		}
		if (**s == ':' && n)
			(*s)++;
		for (; *s < end && hex(**s) >= 0; (*s)++, digits++)
			v = v << 4 | (uint32_t)hex(**s);
		if (!digits || digits > 4 || n > 14)
			return false;
		addr[n++] = (uint8_t)(v >> 8);
		addr[n++] = (uint8_t)v;
	}
	if (gap == 16)
		return n == 16;
	for (uint32_t i = 0; i < n - gap; i++) {
		addr[15 - i] = addr[n - 1 - i];
		if (n - 1 - i < 16 - (n - gap))
			addr[n - 1 - i] = 0;
	}
	return n < 16;
}

static bool parse_cidr(const char *s, const char *end, struct netroute *r)
{
	const char *at = s;
	uint32_t max = AF_INET_BITS;

	r->family = AF_INET;
	if (!parse4(&at, end, r->addr) || (at < end && *at != '/')) {
		at = s;
		max = AF_INET6_BITS;
		r->family = AF_INET6;
		if (!parse6(&at, end, r->addr))
			return false;
	}
	r->bits = max;
	if (at == end)
		return true;
	at++;
	return number(&at, end, max, &r->bits) && at == end;
}

int sc_netroute_add(const char *spec, uint32_t len)
{
	struct netroute r = {0};
	uint32_t name = 0;

	while (name < len && spec[name] != '=')
		name++;
	if (sc_nnetroutes == SC_NET_ROUTES)
		return -E2BIG;
	if (name < len && !parse_cidr(spec + name + 1, spec + len, &r))
		return -EINVAL;
	r.dom = sc_dom_named(spec, name);
	if (!r.dom)
		return -EINVAL;
	routes[sc_nnetroutes++] = r;
	return 0;
}

/* ---- looking up ---- */

static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

/* The bytes of an address, IPv4-mapped ones as IPv4. */
static uint16_t address(const struct sc_sockaddr *a, const uint8_t **bytes)
{
	if (a->family == AF_INET) {
		*bytes = (const uint8_t *)&a->flow;
		return AF_INET;
	}
	*bytes = a->addr6;
	if (memcmp(a->addr6, v4_mapped, sizeof(v4_mapped)))
		return AF_INET6;
	*bytes += sizeof(v4_mapped);
	return AF_INET;
}

static bool all_zero(const uint8_t *p, uint32_t n)
{
	while (n--)
		if (*p++)
			return false;
	return true;
}

static bool is_loopback(uint16_t family, const uint8_t *b)
{
	return family == AF_INET ? b[0] == 127 : all_zero(b, 15) && b[15] == 1;
}

static bool matches(const struct netroute *r, uint16_t family, const uint8_t *b)
{
	uint32_t whole = r->bits / 8, rest = r->bits % 8;
	uint8_t mask = (uint8_t)(0xff00u >> rest);

	if (r->family != family || memcmp(r->addr, b, whole))
		return false;
	return !rest || ((r->addr[whole] ^ b[whole]) & mask) == 0;
}

static struct sc_dom *default_route(bool any)
{
	for (uint32_t i = 0; i < sc_nnetroutes; i++)
		if (!routes[i].family)
			return routes[i].dom;
	return any && sc_nnetroutes ? routes[0].dom : NULL;
}

struct sc_dom *sc_netroute_to(const struct sc_sockaddr *a, bool local)
{
	const uint8_t *b;
	uint16_t family;

	if (a->family != AF_INET && a->family != AF_INET6)
		return NULL;
	family = address(a, &b);
	if (is_loopback(family, b))
		return NULL;
	if (all_zero(b, family == AF_INET ? 4 : 16))
		return local ? default_route(true) : NULL;
	for (uint32_t i = 0; i < sc_nnetroutes; i++)
		if (routes[i].family && matches(&routes[i], family, b))
			return routes[i].dom;
	return default_route(false);
}
