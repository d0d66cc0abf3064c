/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port_tun.c - a tap device of the host's kernel as NIC, for loopback domains: each read is one frame, each write too.
 *
 * A device that did not exist is made so that it stays when the agent is killed: with it the kernel's addresses and routes on it
 * would go, which the next incarnation's peers need. An agent that ends in order takes it away.
 */
#include "port.h"

#include "../log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <lwip/pbuf.h>

#define HEADER 14u /* Ethernet */
#define TAG    4u  /* VLAN */
#define MAX_PIECES \
	272 /* the answer to an echo request that came in as many fragments as are taken together */

struct tun {
	struct port port; /* first */
	struct pbuf *spare;
};

static_assert(MAX_PIECES > IP_REASS_MAX_PBUFS, "an echo reply has its request's pieces");

static uint32_t tun_receive(struct port *t, uint32_t budget, port_input_fn input, void *arg)
{
	struct tun *tun = (struct tun *)t;
	uint32_t n;

	for (n = 0; n < budget; n++) {
		ssize_t len;

		if (!tun->spare)
			tun->spare = pbuf_alloc(PBUF_RAW, (u16_t)(t->mtu + HEADER + TAG), PBUF_RAM);
		if (!tun->spare)
			break; /* no memory: the frames wait in the kernel's queue, or are lost there */
		len = read(t->fd, tun->spare->payload, tun->spare->len);
		if (len <= 0)
			break;
		pbuf_realloc(tun->spare, (u16_t)len);
		t->rx_frames++;
		t->rx_bytes += (uint64_t)len;
		input(arg, tun->spare);
		tun->spare = NULL;
	}
	return n;
}

static bool tun_send(struct port *t, const struct pbuf *p)
{
	struct iovec iov[MAX_PIECES];
	int n = 0;

	for (; p && n < MAX_PIECES; p = p->next)
		iov[n++] = (struct iovec){p->payload, p->len};
	if (p || writev(t->fd, iov, n) < 0) {
		t->tx_dropped++;
		return false;
	}
	t->tx_frames++;
	for (int i = 0; i < n; i++)
		t->tx_bytes += iov[i].iov_len;
	return true;
}

static void tun_flush(struct port *t)
{
}

static bool tun_link_up(struct port *t)
{
	return true; /* while we hold the descriptor, there is carrier */
}

static void tun_end(struct port *t)
{
	if (t->made && ioctl(t->fd, TUNSETPERSIST, 0) < 0)
		log_warning("the tap stays: %s", strerror(errno));
}

static const struct port_ops tun_ops = {
    .name = "tun",
    .receive = tun_receive,
    .send = tun_send,
    .flush = tun_flush,
    .link_up = tun_link_up,
    .end = tun_end,
};

/* An address of our own, the same at each start: locally administered, from the device's name. */
static void make_mac(uint8_t mac[6], const char *name)
{
	uint32_t hash = 2166136261u;

	for (; *name; name++)
		hash = (hash ^ (uint8_t)*name) * 16777619u;
	mac[0] = 0x02;
	mac[1] = 0x5c;
	memcpy(mac + 2, &hash, sizeof(hash));
}

struct port *port_open_tun(const char *name, uint16_t mtu)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	struct tun *tun = calloc(1, sizeof(*tun));

	if (!tun)
		return NULL;
	if (strlen(name) >= sizeof(ifr.ifr_name)) {
		log_error("--tap %s: a device's name has at most %zu characters", name,
			  sizeof(ifr.ifr_name) - 1);
		free(tun);
		return NULL;
	}
	strcpy(ifr.ifr_name, name);
	tun->port.ops = &tun_ops;
	tun->port.mtu = mtu;
	make_mac(tun->port.mac, name);
	tun->port.fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tun->port.fd < 0 || ioctl(tun->port.fd, TUNSETIFF, &ifr) < 0) {
		log_error("cannot open tap %s: %s%s", name, strerror(errno),
			  errno == EPERM || errno == EACCES
			      ? "; run as root, or have root make it: ip "
				"tuntap add NAME mode tap user USER"
			  : errno == EBUSY ? "; another domain uses it"
					   : "");
		if (tun->port.fd >= 0)
			close(tun->port.fd);
		free(tun);
		return NULL;
	}
	if (!ioctl(tun->port.fd, TUNGETIFF, &ifr) && !(ifr.ifr_flags & IFF_PERSIST))
		tun->port.made = !ioctl(tun->port.fd, TUNSETPERSIST, 1);
	return &tun->port;
}
