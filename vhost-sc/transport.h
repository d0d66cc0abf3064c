/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transport.h - how the broker reaches the agent: through the device (vhost-user) or, for a
 * loopback domain, through a socket. domain.c knows nothing of either.
 *
 * Two levels: the *peer* is there when a VM (QEMU) or a loopback agent is connected; the *link* is
 * up when messages can pass and memory can be mapped, that is from when the guest's driver has
 * started controlq and eventq until the device is reset. A VM that is paused keeps its link:
 * messages wait.
 *
 * The transport calls back domain_peer(), domain_link(), domain_stranger(), domain_message(),
 * domain_mapped(), domain_unmapped() and domain_doorbell(), never from inside one of the operations
 * below.
 */
#ifndef VHOST_SC_TRANSPORT_H
#define VHOST_SC_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <vhost-sc/control.h>

struct broker;
struct blob_out;
struct blob_in;
struct json;

#define TRANSPORT_MAX_FDS 3 /* most descriptors with one message */

/* What waits for an agent that does not take its messages, before it counts as broken. */
#define TRANSPORT_QUEUE_MAX 16384u

struct transport_ops {
	const char *name;

	/* Starts listening. Returns 0, or -errno after logging. */
	int (*open)(struct broker *b);

	/* Ends the connection and stops listening. */
	void (*close)(struct broker *b);

	/* Sends or queues a message; the descriptors stay the caller's and are ignored by a device.
	 * Returns 0; -ENOTCONN: no link; or -errno: the message is lost, and the link is dropped.
	 */
	int (*send)(struct broker *b, const struct sc_msg_hdr *msg, const int *fds, unsigned nfds);

	/* Puts a memfd into the window at `offset`. tag: a slot, or SEGMENT_TAG + index. Returns 1:
	 * done; 0: domain_mapped() will tell; or -errno. */
	int (*map)(struct broker *b, uint32_t tag, int memfd, uint64_t offset, uint64_t size);

	/* Takes it out. Returns 1, 0 (domain_unmapped() will tell), or -errno. */
	int (*unmap)(struct broker *b, uint32_t tag, uint64_t offset, uint64_t size);

	/* The doorbells of a slot; the descriptors stay the transport's. Returns 0; -EAGAIN: the guest
	 * has not set them up (yet), domain_doorbell() will tell; or -errno. */
	int (*doorbell)(struct broker *b, uint32_t slot, int *call, int *kick);

	/* The socket that leads to QEMU or to the loopback agent; -1: nobody is connected. It stays the transport's. */
	int (*connection)(struct broker *b);

	/* The slot's session is over: a loopback transport closes its doorbells. */
	void (*slot_free)(struct broker *b, uint32_t slot);

	/* The agent broke the protocol: nothing more is heard from it until it starts anew. Takes
	 * effect, and calls domain_broken(), when the loop comes round. `why` is copied. */
	void (*drop)(struct broker *b, const char *why);

	/* Deadlines: acts on those that have passed, and names the next to loop_at(). */
	void (*tick)(struct broker *b, uint64_t now);

	/* True while something is under way that a restart of the broker has to wait for. */
	bool (*busy)(struct broker *b);

	/* Restart of the broker: writes, reads all state (reexec.h). load() is called instead of
	 * open(). Returns 0 or -errno. */
	int (*save)(struct broker *b, struct blob_out *out);
	int (*load)(struct broker *b, struct blob_in *in);

	/* Adds members about itself to the status object. */
	void (*status)(struct broker *b, struct json *j);
};

extern const struct transport_ops transport_loopback;
extern const struct transport_ops transport_device;

#endif
