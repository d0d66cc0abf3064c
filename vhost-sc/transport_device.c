/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transport_device.c - the agent in a VM, reached through its virtio-sc device (virtio_sc.h,
 * vhost_user.h).
 *
 * controlq and eventq carry messages, one in a buffer. controlq is emptied whenever the guest kicks
 * it, at most one ringful at a time; what waits for eventq goes out whenever the guest has put
 * buffers there. The link is up while both run and the back-end channel is there.
 *
 * Doorbell queues carry nothing: their eventfds are handed to processes.
 *
 * The guest can do with the rings what it likes. A broken ring or message has the agent cut off:
 * from then on only a hello is heard, and the host does not suffer.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blob.h"
#include "broker.h"
#include "log.h"
#include "msgq.h"
#include "vhost_user.h"

struct device {
	struct broker *b;
	struct vhost_user vu;
	struct source kick[2]; /* controlq's and eventq's */
	struct msgq queue;     /* for eventq */
	bool more;	       /* controlq was not emptied: go on when the loop comes round */
	bool cut;	       /* only HELLO is heard */
	bool broken;	       /* to be cut off when the loop comes round */
	char why[128];
};

#define CONTROLQ VIRTIO_SC_VQ_CONTROL
#define EVENTQ	 VIRTIO_SC_VQ_EVENT

static struct device *device_of(struct vhost_user *vu)
{
	return vu->owner;
}

static bool runs(const struct virtqueue *q)
{
	return q->started && q->enabled;
}

static void device_drop(struct broker *b, const char *why)
{
	struct device *d = b->transport;

	if (d->broken || d->cut)
		return;
	d->broken = true;
	snprintf(d->why, sizeof(d->why), "%s", why);
	loop_at(&b->loop, 0);
}

/* Sends what waits, as far as the guest has buffers. */
static void flush(struct device *d)
{
	struct virtqueue *q = &d->vu.q[EVENTQ];
	struct virtq_buffer buf;
	bool sent = false;
	int ret = 0;

	while (d->queue.head && (ret = virtq_take(q, &d->vu.mem, &buf)) > 0) {
		struct msg *m = d->queue.head;

		if (!virtq_write(&buf, &d->vu.mem, m->data, m->len)) {
			q->broken = "a buffer that is too short for a message, or not in memory";
			ret = -1;
			break;
		}
		virtq_give(q, &d->vu.mem, &buf, m->len);
		msgq_pop(&d->queue);
		sent = true;
	}
	if (sent)
		virtq_notify(q, &d->vu.mem);
	if (ret < 0)
		device_drop(d->b, q->broken);
}

/* Takes messages from controlq. */
static void drain(struct device *d)
{
	struct virtqueue *q = &d->vu.q[CONTROLQ];
	union agent_msg msg;
	struct virtq_buffer buf;
	uint32_t budget = q->num;
	bool taken = false;
	int ret = 0;

	while (budget && (ret = virtq_take(q, &d->vu.mem, &buf)) > 0) {
		long len = virtq_read(&buf, &d->vu.mem, &msg, sizeof(msg));

		virtq_give(q, &d->vu.mem, &buf, 0);
		taken = true;
		budget--;
		if (d->cut && len == (long)sizeof(msg.hello) && msg.h.type == SC_MSG_HELLO)
			d->cut = false;
		if (d->cut || d->broken)
			continue;
		if (len < 0)
			device_drop(d->b, "a message that is too long, or not in memory");
		else
			domain_message(d->b, &msg, (size_t)len);
	}
	if (taken)
		virtq_notify(q, &d->vu.mem);
	if (ret < 0)
		device_drop(d->b, q->broken);
	d->more = !budget;
	if (d->more)
		loop_at(&d->b->loop, 0);
}

static void on_control_kick(struct source *src, uint32_t events)
{
	struct device *d = container_of(src, struct device, kick[CONTROLQ]);
	eventfd_t unused;

	eventfd_read(src->fd, &unused);
	drain(d);
}

static void on_event_kick(struct source *src, uint32_t events)
{
	struct device *d = container_of(src, struct device, kick[EVENTQ]);
	eventfd_t unused;

	eventfd_read(src->fd, &unused);
	flush(d);
}

/* Watches the kick of controlq or eventq while the ring runs. */
static void watch_kick(struct device *d, uint32_t index)
{
	struct virtqueue *q = &d->vu.q[index];
	source_fn *fn = index == CONTROLQ ? on_control_kick : on_event_kick;

	loop_del(&d->b->loop, &d->kick[index]);
	if (runs(q) && q->kick >= 0 && loop_add(&d->b->loop, &d->kick[index], q->kick, EPOLLIN, fn))
		log_error("vhost-user: a kick that is no eventfd");
}

static void update_link(struct device *d)
{
	struct broker *b = d->b;
	bool up = runs(&d->vu.q[CONTROLQ]) && runs(&d->vu.q[EVENTQ]) && d->vu.backend.fd >= 0;
	/* A driver that has used the ring before we came: QEMU has reconnected to a running guest.
	 */
	bool resumed = d->vu.q[CONTROLQ].index != 0;

	if (up == b->dom.link)
		return;
	if (!up) {
		vu_shmem_forget(&d->vu);
		msgq_clear(&d->queue);
		d->more = false;
		d->broken = false;
		d->cut = false;
		domain_link(b, false);
		return;
	}
	domain_link(b, true);
	if (resumed)
		domain_stranger(b);
	drain(d);
	flush(d);
}

static void on_connected(struct vhost_user *vu)
{
	domain_peer(device_of(vu)->b, true);
}

static void on_disconnected(struct vhost_user *vu)
{
	domain_peer(device_of(vu)->b, false);
}

static void on_ring_changed(struct vhost_user *vu, uint32_t index)
{
	struct device *d = device_of(vu);

	if (index >= VIRTIO_SC_VQ_DOORBELL_BASE) {
		domain_doorbell(d->b, index - VIRTIO_SC_VQ_DOORBELL_BASE + 1);
		return;
	}
	watch_kick(d, index);
	update_link(d);
}

static void on_shmem_done(struct vhost_user *vu, bool map, uint32_t tag, int status)
{
	struct broker *b = device_of(vu)->b;

	if (map)
		domain_mapped(b, tag, status);
	else
		domain_unmapped(b, tag, status);
}

static const struct vu_ops vu_ops = {
    .connected = on_connected,
    .disconnected = on_disconnected,
    .ring_changed = on_ring_changed,
    .shmem_done = on_shmem_done,
};

static struct device *new_device(struct broker *b)
{
	struct device *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->b = b;
	d->kick[CONTROLQ].fd = -1;
	d->kick[EVENTQ].fd = -1;
	d->vu.loop = &b->loop;
	d->vu.ops = &vu_ops;
	d->vu.owner = d;
	d->vu.spare_fd = &b->spare_fd;
	d->vu.nqueues = VIRTIO_SC_VQ_DOORBELL_BASE + b->cfg->channels;
	d->vu.window_size = b->cfg->window_size;
	b->transport = d;
	return d;
}

static int device_open(struct broker *b)
{
	struct device *d = new_device(b);
	char path[300];
	int err;

	if (!d)
		return -ENOMEM;
	snprintf(path, sizeof(path), "%s/vhost.sock", b->cfg->dir);
	err = vu_open(&d->vu, b->cfg->vhost_socket ? b->cfg->vhost_socket : path);
	if (err)
		log_error("cannot listen at %s: %s",
			  b->cfg->vhost_socket ? b->cfg->vhost_socket : path, strerror(-err));
	return err;
}

static void device_close(struct broker *b)
{
	struct device *d = b->transport;

	if (!d)
		return;
	loop_del(&b->loop, &d->kick[CONTROLQ]);
	loop_del(&b->loop, &d->kick[EVENTQ]);
	vu_close(&d->vu);
	msgq_clear(&d->queue);
	free(d);
	b->transport = NULL;
}

static int device_send(struct broker *b, const struct sc_msg_hdr *msg, const int *fds,
		       unsigned nfds)
{
	struct device *d = b->transport;
	int err;

	if (!b->dom.link || d->cut || d->broken)
		return -ENOTCONN;
	err = msgq_put(&d->queue, msg, NULL, 0);
	if (err)
		device_drop(b, err == -ENOBUFS ? "it does not take its messages" : strerror(-err));
	else
		flush(d);
	return err;
}

static int device_map(struct broker *b, uint32_t tag, int memfd, uint64_t offset, uint64_t size)
{
	struct device *d = b->transport;

	return vu_shmem_map(&d->vu, tag, memfd, offset, size);
}

static int device_unmap(struct broker *b, uint32_t tag, uint64_t offset, uint64_t size)
{
	struct device *d = b->transport;

	return vu_shmem_unmap(&d->vu, tag, offset, size);
}

static int device_doorbell(struct broker *b, uint32_t slot, int *call, int *kick)
{
	struct device *d = b->transport;
	const struct virtqueue *q = &d->vu.q[VIRTIO_SC_VQ_DOORBELL(slot)];

	if (!runs(q) || q->call < 0 || q->kick < 0)
		return -EAGAIN;
	*call = q->call;
	*kick = q->kick;
	return 0;
}

static int device_connection(struct broker *b)
{
	struct device *d = b->transport;

	return d->vu.conn.fd;
}

static void device_slot_free(struct broker *b, uint32_t slot)
{
	/* Doorbells are the device's as long as it runs. */
}

static void device_tick(struct broker *b, uint64_t now)
{
	struct device *d = b->transport;

	vu_tick(&d->vu, now);
	if (d->broken) {
		d->broken = false;
		d->cut = true;
		msgq_clear(&d->queue);
		domain_broken(b, d->why);
	}
	if (d->more)
		drain(d);
}

static bool device_busy(struct broker *b)
{
	struct device *d = b->transport;

	return d->broken || vu_busy(&d->vu);
}

static int device_save(struct broker *b, struct blob_out *out)
{
	struct device *d = b->transport;

	blob_put_u32(out, d->cut);
	msgq_save(&d->queue, out);
	vu_save(&d->vu, out);
	return 0;
}

static int device_load(struct broker *b, struct blob_in *in)
{
	struct device *d = new_device(b);
	int err;

	if (!d)
		return -ENOMEM;
	d->cut = blob_get_u32(in);
	err = msgq_load(&d->queue, in);
	if (!err)
		err = vu_load(&d->vu, in);
	if (err)
		return err;
	watch_kick(d, CONTROLQ);
	watch_kick(d, EVENTQ);
	/* What came during the restart. */
	drain(d);
	flush(d);
	return 0;
}

static void device_status(struct broker *b, struct json *j)
{
	const struct device *d = b->transport;
	uint32_t rings = 0;
	uint32_t mapped = 0;

	for (uint32_t i = 0; i < d->vu.nqueues; i++)
		rings += runs(&d->vu.q[i]);
	for (uint32_t i = 0; i <= b->cfg->channels; i++)
		mapped += b->sessions.slots[i].map == MAP_DONE;
	json_object(j, "device");
	json_bool(j, "connected", d->vu.conn.fd >= 0);
	json_u64(j, "rings", rings);
	json_u64(j, "regions", d->vu.mem.n);
	json_u64(j, "mapped", mapped);
	json_end_object(j);
}

const struct transport_ops transport_device = {
    .name = "VM",
    .open = device_open,
    .close = device_close,
    .send = device_send,
    .map = device_map,
    .unmap = device_unmap,
    .doorbell = device_doorbell,
    .connection = device_connection,
    .slot_free = device_slot_free,
    .drop = device_drop,
    .tick = device_tick,
    .busy = device_busy,
    .save = device_save,
    .load = device_load,
    .status = device_status,
};
