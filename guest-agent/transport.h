/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transport.h - how the agent reaches its broker: an ops table with two implementations.
 *
 *   device    /dev/sc of the guest driver (virtio_sc.h): messages by read and write, channels as slots of the window,
 *             doorbells as eventfds bound by ioctl
 *   loopback  the broker's agent.sock: messages as packets, channels as memfds, doorbells as eventfds, all passed with
 *             the message that announces them
 *
 * All functions but kick() and send() are called by main alone. Those two may be called by any thread, kick() for a slot
 * that is mapped.
 */
#ifndef SC_AGENT_TRANSPORT_H
#define SC_AGENT_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vhost-sc/attach.h"
#include "vhost-sc/control.h"

#define TRANSPORT_MAX_FDS 3

struct transport;

/* What came with a message: descriptors that the receiver owns (loopback); none with a device. */
struct transport_fds {
	int fd[TRANSPORT_MAX_FDS];
	uint32_t n;
};

/* A mapped channel, or the state region. */
struct mapping {
	void *base;  /* page-aligned */
	size_t size; /* bytes */
	uint32_t slot;
	int bell_fd; /* eventfd that counts the host's bells; -1 for slot 0 and where the poller's own is bound */
	int kick_fd; /* loopback: eventfd to the host; else -1 */
};

struct transport_ops {
	const char *name;
	/* Waits for nothing. Returns the message's length (at most size), 0 if there is none, -errno; -EPIPE: the
	 * other side is gone. */
	int (*recv)(struct transport *t, void *msg, size_t size, struct transport_fds *fds);
	/* Sends one whole message. 0 or -errno; waits a bounded time if the queue is full (-ETIMEDOUT). */
	int (*send)(struct transport *t, const void *msg, size_t len);
	/* Maps `size` bytes of `slot` for reading and writing. Takes the descriptors that it needs out of *fds (sets
	 * them to -1). Slot 0 is the state region: no doorbell. 0 or -errno. */
	int (*map)(struct transport *t, uint32_t slot, size_t size, struct transport_fds *fds,
		   struct mapping *m);
	/* Maps a segment of `size` bytes, which lies at `offset` of the window; unmap() undoes it. 0 or -errno. */
	int (*map_segment)(struct transport *t, uint64_t offset, size_t size,
			   struct transport_fds *fds, struct mapping *m);
	/* Directs the slot's doorbell to the poller's eventfd, where the transport can (device). 0 or -errno. */
	int (*bind)(struct transport *t, struct mapping *m, int poller_event);
	/* Undoes map and bind. */
	void (*unmap)(struct transport *t, struct mapping *m);
	/* Rings the host. Any thread. */
	void (*kick)(struct transport *t, const struct mapping *m);
	void (*close)(struct transport *t);
};

struct transport {
	const struct transport_ops *ops;
	int fd;		       /* for poll: readable when recv has something */
	uint32_t num_channels; /* for HELLO; 0: no device */
	uint64_t slot_size;    /* bytes, for HELLO */
	uint64_t window_size;  /* bytes; 0: loopback, which has none */
};

/* Opens a transport; waits up to 10 s for the device or socket to appear. Returns NULL after a log message. */
struct transport *transport_open_device(const char *path);
struct transport *transport_open_loopback(const char *path);

/* Closes what nobody took. */
void transport_fds_close(struct transport_fds *fds);

#endif
