/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtio_sc.h - the virtio-sc device as its guest driver, QEMU and the broker see it.
 *
 * virtio-sc is a virtio 1.2 device (non-transitional) with the following parts:
 *
 *   virtqueue 0                controlq    agent to broker, messages of control.h
 *   virtqueue 1                eventq      broker to agent, messages of control.h
 *   virtqueue 2 + (slot - 1)   doorbell    of channel slot 1..num_channels; carries no buffers, only
 *                                          notifications, in both directions
 *   shared memory region 0     the window  num_channels + 1 slots of slot_size bytes each, then the
 *                                          segment area: what is left
 *
 * Slot 0 of the window is the domain's state region (control.h), the others hold channels (channel.h).
 * In the segment area lie segments (attach.h), where SC_MSG_SEGMENT says. A slot without a channel is a hole: what a guest reads there is undefined and what it writes is lost.
 *
 * This header also declares /dev/sc, the interface between the guest driver and the agent. It is included by
 * kernel code and by user-space code, so it uses linux/types.h alone.
 *
 * Specification: docs/virtio-sc.md.
 */
#ifndef VHOST_SC_VIRTIO_SC_H
#define VHOST_SC_VIRTIO_SC_H

#include <linux/types.h>
#include <linux/ioctl.h>

/* Until OASIS assigns an id. PCI device id is 0x1040 + this. */
#define VIRTIO_ID_SC 63

#define VIRTIO_SC_VQ_CONTROL	   0
#define VIRTIO_SC_VQ_EVENT	   1
#define VIRTIO_SC_VQ_DOORBELL_BASE 2

/* The virtqueue of channel slot `slot` (1-based; slot 0 has no doorbell). */
#define VIRTIO_SC_VQ_DOORBELL(slot) (VIRTIO_SC_VQ_DOORBELL_BASE + (slot)-1)

/* Entries of each virtqueue as QEMU offers them. Doorbells need one; virtio wants a power of two. */
#define VIRTIO_SC_CONTROL_QUEUE_SIZE  64
#define VIRTIO_SC_DOORBELL_QUEUE_SIZE 2

#define VIRTIO_SC_SHMEM_WINDOW 0 /* id of the shared memory region that is the window */

/* bounded by QEMU's 1,024 virtqueues; 254 with vhost-user */
#define VIRTIO_SC_MAX_CHANNELS	   1000
#define VIRTIO_SC_DEFAULT_CHANNELS 127
/* bytes: 128 slots of 16 MiB, and 256 MiB of segments. The guest spends 64 bytes on each 4 KiB */
#define VIRTIO_SC_DEFAULT_WINDOW (2304ULL << 20)

/* Device configuration space; read-only for the driver; little-endian. */
struct virtio_sc_config {
	__le32 num_channels; /* 1..VIRTIO_SC_MAX_CHANNELS */
	__le32 reserved;     /* zero */
	__le64
	    slot_size; /* bytes; a power of two, at least 64 KiB; window size / (num_channels + 1), rounded
				down to a power of two */
};

/*
 * /dev/sc - one opener at a time (EBUSY otherwise).
 *
 *   read    takes the next event message (one whole message per call; EMSGSIZE if the buffer is too small, and the
 *           message stays; EAGAIN with O_NONBLOCK if there is none).
 *   write   queues one control message (all or nothing; at most SC_MSG_MAX bytes; EAGAIN/blocks while the queue is
 *           full).
 *   poll    EPOLLIN: a message can be read; EPOLLOUT: one can be written; EPOLLHUP: the device is gone.
 *   mmap    maps the window, write-back and with struct pages: offset = slot * slot_size + offset in the slot
 *           (or beyond all slots: the segment area),
 *           MAP_SHARED only, not beyond the window.
 *   ioctl   below.
 *
 * Closing unbinds all doorbell eventfds.
 */
struct sc_dev_info {
	__u32 num_channels;
	__u32 reserved;
	__u64 slot_size;   /* bytes */
	__u64 window_size; /* bytes */
};

/* Binds the host-to-guest doorbell of `slot` to an eventfd (fd >= 0), or unbinds it (fd = -1). Several slots may share
 * an eventfd. A bell adds
 * at least 1, and bells may merge: a hint to look, not a count. EINVAL: no such slot; EBADF: not an eventfd. */
struct sc_dev_doorbell {
	__u32 slot; /* 1..num_channels */
	__s32 fd;
};

#define SC_IOC_INFO	_IOR('s', 0x80, struct sc_dev_info)
#define SC_IOC_DOORBELL _IOW('s', 0x81, struct sc_dev_doorbell)
/* Rings the guest-to-host doorbell of the slot given as the argument. */
#define SC_IOC_KICK _IO('s', 0x82)

/* Largest message on controlq and eventq, in bytes, header included. */
#define SC_MSG_MAX 4096

#endif
