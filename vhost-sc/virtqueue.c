/* SPDX-License-Identifier: BSD-3-Clause */
/* virtqueue.c - the device's side of a split virtqueue; see virtqueue.h. */
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "virtqueue.h"

/* The parts of a ring in our memory. */
struct parts {
	const volatile struct vring_desc *desc;
	volatile struct vring_avail *avail;
	volatile struct vring_used *used;
};

static bool aligned(const volatile void *p, uintptr_t to)
{
	return p && ((uintptr_t)p & (to - 1)) == 0;
}

/* Finds the parts anew: the memory may have changed since the last time. */
static bool find_parts(struct virtqueue *q, struct guestmem *m, struct parts *p)
{
	if (!q->num || q->broken)
		return false;
	p->desc = guestmem_front_end(m, q->desc, 16ull * q->num);
	p->avail = guestmem_front_end(m, q->avail, 6 + 2ull * q->num);
	p->used = guestmem_front_end(m, q->used, 6 + 8ull * q->num);
	if (aligned(p->desc, 16) && aligned(p->avail, 2) && aligned(p->used, 4))
		return true;
	q->broken = "its rings are not in the guest's memory";
	return false;
}

static int broken(struct virtqueue *q, const char *why)
{
	q->broken = why;
	return -1;
}

/* Collects the descriptors of the chain that starts at buf->head. */
static int walk(struct virtqueue *q, const struct parts *p, struct virtq_buffer *buf)
{
	uint16_t at = buf->head;

	for (buf->nsegs = 0; buf->nsegs < VIRTQ_MAX_SEGS; buf->nsegs++) {
		struct vring_desc d;

		if (at >= q->num)
			return broken(q, "a descriptor's number is out of range");
		d.addr = p->desc[at].addr;
		d.len = p->desc[at].len;
		d.flags = p->desc[at].flags;
		d.next = p->desc[at].next;
		if (d.flags & VRING_DESC_F_INDIRECT)
			return broken(q, "an indirect descriptor, which was not negotiated");
		buf->seg[buf->nsegs].gpa = d.addr;
		buf->seg[buf->nsegs].len = d.len;
		buf->seg[buf->nsegs].writable = d.flags & VRING_DESC_F_WRITE;
		if (!(d.flags & VRING_DESC_F_NEXT)) {
			buf->nsegs++;
			return 1;
		}
		at = d.next;
	}
	return broken(q, "a buffer of too many pieces, or a loop of descriptors");
}

int virtq_take(struct virtqueue *q, struct guestmem *m, struct virtq_buffer *buf)
{
	struct parts p;
	uint16_t idx;
	int ret;

	if (!q->started || !q->enabled || q->broken)
		return 0;
	if (!find_parts(q, m, &p))
		return q->broken ? -1 : 0;
	/* Acquire: entries and buffers were written before the index. */
	idx =
	    atomic_load_explicit((volatile _Atomic uint16_t *)&p.avail->idx, memory_order_acquire);
	if (idx == q->index)
		return 0;
	if ((uint16_t)(idx - q->index) > q->num)
		return broken(q, "more buffers are available than there are entries");
	buf->head = p.avail->ring[q->index & (q->num - 1)];
	ret = walk(q, &p, buf);
	return ret;
}

long virtq_read(const struct virtq_buffer *buf, struct guestmem *m, void *to, size_t cap)
{
	unsigned char *at = to;
	size_t total = 0;

	for (unsigned i = 0; i < buf->nsegs; i++) {
		if (buf->seg[i].writable)
			continue;
		if (buf->seg[i].len > cap - total)
			return -1;
		if (!guestmem_read(m, buf->seg[i].gpa, at + total, buf->seg[i].len))
			return -1;
		total += buf->seg[i].len;
	}
	return (long)total;
}

bool virtq_write(const struct virtq_buffer *buf, struct guestmem *m, const void *from, size_t len)
{
	const unsigned char *at = from;

	for (unsigned i = 0; i < buf->nsegs && len; i++) {
		size_t n = buf->seg[i].len < len ? buf->seg[i].len : len;

		if (!buf->seg[i].writable)
			continue;
		if (!guestmem_write(m, buf->seg[i].gpa, at, n))
			return false;
		at += n;
		len -= n;
	}
	return len == 0;
}

void virtq_give(struct virtqueue *q, struct guestmem *m, const struct virtq_buffer *buf,
		uint32_t len)
{
	struct parts p;
	uint16_t at = q->index & (uint16_t)(q->num - 1);

	if (!find_parts(q, m, &p))
		return;
	p.used->ring[at].id = buf->head;
	p.used->ring[at].len = len;
	q->index++;
	/* Release: whoever sees the index sees the entry and the buffer. */
	atomic_store_explicit((volatile _Atomic uint16_t *)&p.used->idx, q->index,
			      memory_order_release);
}

void virtq_notify(struct virtqueue *q, struct guestmem *m)
{
	struct parts p;

	if (q->call < 0 || !find_parts(q, m, &p))
		return;
	/* Full fence: the driver sets its flag and then looks at the index; we do it the other way
	 * round. */
	atomic_thread_fence(memory_order_seq_cst);
	if (p.avail->flags & VRING_AVAIL_F_NO_INTERRUPT)
		return;
	eventfd_write(q->call, 1);
}

void virtq_reset(struct virtqueue *q)
{
	if (q->kick >= 0)
		close(q->kick);
	if (q->call >= 0)
		close(q->call);
	*q = (struct virtqueue){.kick = -1, .call = -1};
}
