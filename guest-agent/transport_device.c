/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transport_device.c - the agent in a guest: /dev/sc.
 *
 * The window is mapped slot by slot, so that a slot which main has let go of cannot be touched by accident. Doorbells
 * of all channels of a poller are bound to that poller's one eventfd: it looks at all its lanes anyway when it wakes.
 */
#include "transport.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define OPEN_WAIT_MS 10000
#define SEND_WAIT_MS 5000

static int device_recv(struct transport *t, void *msg, size_t size, struct transport_fds *fds)
{
	ssize_t n = read(t->fd, msg, size);

	fds->n = 0;
	if (n >= 0)
		return (int)n;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	return errno == ENODEV || errno == EIO ? -EPIPE : -errno;
}

static int device_send(struct transport *t, const void *msg, size_t len)
{
	struct pollfd p = {.fd = t->fd, .events = POLLOUT};

	for (;;) {
		if (write(t->fd, msg, len) == (ssize_t)len)
			return 0;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (poll(&p, 1, SEND_WAIT_MS) == 0)
			return -ETIMEDOUT;
	}
}

static int device_map(struct transport *t, uint32_t slot, size_t size, struct transport_fds *fds,
		      struct mapping *m)
{
	if (slot > t->num_channels || size > t->slot_size)
		return -EINVAL;
	*m = (struct mapping){.size = size, .slot = slot, .bell_fd = -1, .kick_fd = -1};
	m->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd,
		       (off_t)(slot * t->slot_size));
	if (m->base == MAP_FAILED)
		return -errno;
	return 0;
}

static int device_map_segment(struct transport *t, uint64_t offset, size_t size,
			      struct transport_fds *fds, struct mapping *m)
{
	uint64_t slots = (t->num_channels + 1) * t->slot_size;

	if (offset < slots || offset > t->window_size || size > t->window_size - offset ||
	    offset % SC_PAGE)
		return -EINVAL;
	*m = (struct mapping){.size = size, .bell_fd = -1, .kick_fd = -1};
	m->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd, (off_t)offset);
	return m->base == MAP_FAILED ? -errno : 0;
}

static int device_bind(struct transport *t, struct mapping *m, int poller_event)
{
	struct sc_dev_doorbell bell = {.slot = m->slot, .fd = poller_event};

	return ioctl(t->fd, SC_IOC_DOORBELL, &bell) < 0 ? -errno : 0;
}

static void device_unmap(struct transport *t, struct mapping *m)
{
	struct sc_dev_doorbell bell = {.slot = m->slot, .fd = -1};

	if (m->slot && ioctl(t->fd, SC_IOC_DOORBELL, &bell) < 0)
		log_debug("unbinding doorbell %u: %s", m->slot, strerror(errno));
	munmap(m->base, m->size);
	m->base = NULL;
}

static void device_kick(struct transport *t, const struct mapping *m)
{
	if (ioctl(t->fd, SC_IOC_KICK, (unsigned long)m->slot) < 0)
		log_debug("ringing slot %u: %s", m->slot, strerror(errno));
}

static void device_close(struct transport *t)
{
	close(t->fd);
	free(t);
}

static const struct transport_ops device_ops = {
    .name = "device",
    .recv = device_recv,
    .send = device_send,
    .map = device_map,
    .map_segment = device_map_segment,
    .bind = device_bind,
    .unmap = device_unmap,
    .kick = device_kick,
    .close = device_close,
};

/* Opens the device node, which may appear a little after the agent starts. */
static int open_waiting(const char *path)
{
	const struct timespec tick = {.tv_nsec = 10000000};

	for (int ms = 0; ms < OPEN_WAIT_MS; ms += 10) {
		int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);

		if (fd >= 0 || (errno != ENOENT && errno != ENODEV))
			return fd;
		nanosleep(&tick, NULL);
	}
	return -1;
}

struct transport *transport_open_device(const char *path)
{
	struct transport *t = calloc(1, sizeof(*t));
	struct sc_dev_info info;

	if (!t)
		return NULL;
	t->ops = &device_ops;
	t->fd = open_waiting(path);
	if (t->fd < 0) {
		log_error("cannot open %s: %s; is the virtio_sc module loaded, and no other agent "
			  "running?",
			  path, strerror(errno));
		free(t);
		return NULL;
	}
	if (ioctl(t->fd, SC_IOC_INFO, &info) < 0) {
		log_error("%s is not a virtio-sc device: %s", path, strerror(errno));
		device_close(t);
		return NULL;
	}
	t->num_channels = info.num_channels;
	t->slot_size = info.slot_size;
	t->window_size = info.window_size;
	return t;
}
