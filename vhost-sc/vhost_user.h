/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost_user.h - the vhost-user protocol, back end's side, as far as a virtio-sc device needs it.
 *
 * After QEMU's docs/interop/vhost-user.rst. One front end at a time, over a stream socket. Messages
 * are parsed as they trickle in and answered at once: the front end is never waited for, and waits
 * for us no longer than one round of the loop. What is offered:
 *
 *   device features    VERSION_1, and nothing of rings beyond split ones
 *   protocol features  MQ, REPLY_ACK, BACKEND_REQ, BACKEND_SEND_FD, CONFIGURE_MEM_SLOTS, SHMEM
 *
 * A front end that breaks the protocol is disconnected; QEMU then connects anew.
 *
 * The back-end channel carries SHMEM_MAP and SHMEM_UNMAP to the front end. Requests are queued, at
 * most VU_IN_FLIGHT of them are unanswered, and answers come in the order of requests. QEMU takes
 * them only between SET_VRING_ENABLE and GET_VRING_BASE, and forgets all mappings when the device
 * is reset, so the queue is dropped when the rings stop.
 */
#ifndef VHOST_SC_VHOST_USER_H
#define VHOST_SC_VHOST_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guestmem.h"
#include "loop.h"
#include "virtqueue.h"

struct blob_out;
struct blob_in;
struct vhost_user;

#define VU_MAX_QUEUES  256
#define VU_MAX_PAYLOAD 4096
#define VU_MAX_FDS     8
#define VU_IN_FLIGHT   16
#define VU_SHMEM_MS \
	20000 /* a front end that leaves a request unanswered so long is disconnected \
	       */
#define VU_SHMEM_REGIONS 256

struct vu_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* bytes of payload */
};

struct vu_mmap {
	uint8_t shmid;
	uint8_t padding[7];
	uint64_t fd_offset;
	uint64_t shm_offset;
	uint64_t len;
	uint64_t flags; /* 1: read and write */
};

struct vu_shmem_config {
	uint32_t nregions;
	uint32_t padding;
	uint64_t sizes[VU_SHMEM_REGIONS];
};

/* A request of ours to the front end. */
struct vu_request {
	struct vu_request *next;
	uint32_t id;  /* SHMEM_MAP or SHMEM_UNMAP */
	uint32_t tag; /* the owner's: passed to shmem_done() */
	int memfd;    /* the caller's, who keeps it open until the answer; -1 for UNMAP */
	struct vu_mmap body;
	uint64_t deadline; /* once sent */
	bool sent;
	bool forgotten; /* the owner does not want to know any more */
};

/* What the device does with events. Called from the loop; none may free the vhost_user. */
struct vu_ops {
	/* A front end connected; it is gone (its rings have been stopped before). */
	void (*connected)(struct vhost_user *vu);
	void (*disconnected)(struct vhost_user *vu);
	/* A ring was started, stopped, enabled or got other eventfds. */
	void (*ring_changed)(struct vhost_user *vu, uint32_t index);
	/* An answer to vu_shmem_map() or vu_shmem_unmap(). status: 0 or -errno. */
	void (*shmem_done)(struct vhost_user *vu, bool map, uint32_t tag, int status);
};

struct vhost_user {
	struct loop *loop;
	const struct vu_ops *ops;
	void *owner;
	int *spare_fd; /* for sock_accept() */

	uint32_t nqueues;
	uint64_t window_size;

	struct source listener;
	struct source conn;    /* fd -1: no front end */
	struct source backend; /* the back-end channel; fd -1: none */

	uint64_t features;
	uint64_t protocol;
	struct guestmem mem;
	struct virtqueue q[VU_MAX_QUEUES];

	/* the message that is being received */
	struct vu_header in;
	unsigned char in_body[VU_MAX_PAYLOAD];
	size_t in_got;
	int in_fds[VU_MAX_FDS];
	unsigned in_nfds;

	/* requests of ours, the oldest first: those sent come before those not sent */
	struct vu_request *requests;
	uint32_t in_flight;
	struct vu_header reply;
	uint64_t reply_value;
	size_t reply_got;
};

/* Prepares the structure and starts listening at `path`. The fields up to window_size have been
 * set. Returns 0 or -errno. */
int vu_open(struct vhost_user *vu, const char *path);

/* Disconnects and stops listening, without calling back. */
void vu_close(struct vhost_user *vu);

/* Ends the connection, with callbacks. */
void vu_disconnect(struct vhost_user *vu, const char *why);

/* Asks the front end to map, or unmap, [offset, offset + len) of shared memory region 0. Returns 0,
 * -ENOTCONN (no back-end channel), or -ENOMEM. */
int vu_shmem_map(struct vhost_user *vu, uint32_t tag, int memfd, uint64_t offset, uint64_t len);
int vu_shmem_unmap(struct vhost_user *vu, uint32_t tag, uint64_t offset, uint64_t len);

/* Forgets all requests: those not sent are not sent, answers are ignored. */
void vu_shmem_forget(struct vhost_user *vu);

/* Deadlines. */
void vu_tick(struct vhost_user *vu, uint64_t now);

/* True while a message is half received or a request is unanswered. */
bool vu_busy(const struct vhost_user *vu);

void vu_save(const struct vhost_user *vu, struct blob_out *out);

/* Instead of vu_open(). */
int vu_load(struct vhost_user *vu, struct blob_in *in);

#endif
