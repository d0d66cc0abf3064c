/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port.h - the NIC as the stack sees it: an ops table with two implementations.
 *
 *   tun    /dev/net/tun, a tap device of the host's kernel: loopback domains (port_tun.c)
 *   dpdk   a NIC that DPDK drives through VFIO: the guest (port_dpdk.c)
 *
 * All functions but open are called by the one poller that runs the stack.
 */
#ifndef SC_NET_PORT_H
#define SC_NET_PORT_H

#include <stdbool.h>
#include <stdint.h>

struct pbuf;
struct port;

/* Takes one received frame, which it owns from now on. */
typedef void (*port_input_fn)(void *arg, struct pbuf *p);

struct port_ops {
	const char *name;
	/* Passes up to `budget` received frames to input(). Returns how many. */
	uint32_t (*receive)(struct port *t, uint32_t budget, port_input_fn input, void *arg);
	/* Sends the frame that the chain p holds; p stays the caller's, and its bytes are not used after the return. False: no room, it
	 * is lost (TCP sends it again). */
	bool (*send)(struct port *t, const struct pbuf *p);
	/* Ends a burst of send()s: what was kept goes out. */
	void (*flush)(struct port *t);
	bool (*link_up)(struct port *t);
	/* Prepares for sleep: a descriptor that becomes readable when a frame comes is watched already (fd). Returns true if there
	 * may be frames that it would not tell of. May be NULL. */
	bool (*arm)(struct port *t);
	/* The domain ends: what was made for it goes. Main thread. May be NULL. */
	void (*end)(struct port *t);
};

struct port {
	const struct port_ops *ops;
	int fd; /* readable when frames may have come; -1: poll */
	uint8_t mac[6];
	uint16_t mtu;
	/* The device was made by this agent, or by one before it (restore.c): it outlives an agent that is killed, and goes with one
	 * that ends. */
	bool made;
	/* counters, the poller's */
	uint64_t rx_frames, rx_bytes, rx_dropped;
	uint64_t tx_frames, tx_bytes, tx_dropped;
};

/* Opens the tap `name`, which is made if the caller may. NULL after a log message. */
struct port *port_open_tun(const char *name, uint16_t mtu);
/* Opens the only (or the named) NIC that is bound to vfio-pci. NULL after a log message. */
struct port *port_open_dpdk(const char *pci, uint16_t mtu);

#endif
