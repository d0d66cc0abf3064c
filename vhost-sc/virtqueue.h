/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtqueue.h - the device's side of a split virtqueue (virtio 1.2, 2.7) whose driver is not
 * trusted.
 *
 * Indirect descriptors, event indices and packed rings are not offered. Each index, descriptor and
 * length is read from the guest's memory once, checked, and used from the copy. A queue in which
 * something impossible was found is broken: it is left alone until the driver resets the device.
 *
 * The broker takes a buffer and gives it back in the same step, so what is taken and what is given
 * back is always the same number, and one index describes the queue when it moves to another
 * broker.
 */
#ifndef VHOST_SC_VIRTQUEUE_H
#define VHOST_SC_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guestmem.h"

#define VIRTQ_MAX_SIZE 1024
#define VIRTQ_MAX_SEGS 16 /* descriptors in one buffer; messages have one or two */

struct virtqueue {
	uint32_t num;  /* entries, a power of two; 0: not set up */
	uint64_t desc; /* the front end's addresses of the ring's parts */
	uint64_t avail;
	uint64_t used;
	uint16_t index; /* next entry to take, and to give back */
	bool started;
	bool enabled;
	const char *broken; /* why, or NULL */
	int kick;	    /* eventfds, owned; -1: none */
	int call;
};

/* A buffer that the driver made available. */
struct virtq_buffer {
	uint16_t head;
	unsigned nsegs;
	struct {
		uint64_t gpa;
		uint32_t len;
		bool writable; /* by the device */
	} seg[VIRTQ_MAX_SEGS];
};

/* Takes the next buffer. Returns 1; 0: there is none, or the queue is not running; -1: the queue is
 * broken. */
int virtq_take(struct virtqueue *q, struct guestmem *m, struct virtq_buffer *buf);

/* Copies what the driver put into the buffer. Returns its length, or -1 if it is longer than cap or
 * not in memory. */
long virtq_read(const struct virtq_buffer *buf, struct guestmem *m, void *to, size_t cap);

/* Fills the buffer. Returns false if it has no room for len bytes, or is not in memory. */
bool virtq_write(const struct virtq_buffer *buf, struct guestmem *m, const void *from, size_t len);

/* Gives the taken buffer back; `len` bytes of it were written. */
void virtq_give(struct virtqueue *q, struct guestmem *m, const struct virtq_buffer *buf,
		uint32_t len);

/* Interrupts the driver, unless it does not want to be. */
void virtq_notify(struct virtqueue *q, struct guestmem *m);

/* Closes the eventfds and forgets everything. */
void virtq_reset(struct virtqueue *q);

#endif
