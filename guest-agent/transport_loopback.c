/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transport_loopback.c - the agent as a host process: the broker's agent.sock.
 *
 * Messages are packets; ATTACH brings memfd, call eventfd and kick eventfd, START the state region's memfd. A memfd is
 * used only if it is sealed against shrinking and large enough: otherwise its maker could have the agent killed by
 * SIGBUS.
 */
#include "transport.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECT_WAIT_MS 10000
#define SEND_WAIT_MS	5000

/* Takes the descriptors out of a received control message. */
static void take_fds(struct msghdr *h, struct transport_fds *fds)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (fds->n < TRANSPORT_MAX_FDS)
				fds->fd[fds->n++] = fd;
			else
				close(fd);
		}
	}
}

static int loopback_recv(struct transport *t, void *msg, size_t size, struct transport_fds *fds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(TRANSPORT_MAX_FDS * sizeof(int))];
	} ctl;
	struct iovec iov = {.iov_base = msg, .iov_len = size};
	struct msghdr h = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof(ctl)};
	ssize_t n = recvmsg(t->fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	fds->n = 0;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0
		       : errno == ECONNRESET		 ? -EPIPE
							 : -errno;
	if (n == 0)
		return -EPIPE;
	take_fds(&h, fds);
	if (h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		transport_fds_close(fds);
		return -EMSGSIZE;
	}
	return (int)n;
}

static int loopback_send(struct transport *t, const void *msg, size_t len)
{
	struct pollfd p = {.fd = t->fd, .events = POLLOUT};

	for (;;) {
		if (send(t->fd, msg, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len)
			return 0;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (poll(&p, 1, SEND_WAIT_MS) == 0)
			return -ETIMEDOUT;
	}
}

/* True if the memfd cannot shrink below what is about to be mapped. */
static bool memory_is_safe(int fd, size_t size)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &st) == 0 &&
	       st.st_size >= (off_t)size;
}

static int loopback_map(struct transport *t, uint32_t slot, size_t size, struct transport_fds *fds,
			struct mapping *m)
{
	uint32_t want = slot ? 3 : 1;

	if (fds->n != want)
		return -EBADF;
	if (!memory_is_safe(fds->fd[0], size))
		return -EPERM;
	*m = (struct mapping){.size = size, .slot = slot, .bell_fd = -1, .kick_fd = -1};
	m->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fds->fd[0], 0);
	if (m->base == MAP_FAILED)
		return -errno;
	if (!slot)
		return 0;
	m->bell_fd = fds->fd[1];
	m->kick_fd = fds->fd[2];
	fds->fd[1] = fds->fd[2] = -1;
	fcntl(m->bell_fd, F_SETFL, O_NONBLOCK);
	fcntl(m->kick_fd, F_SETFL, O_NONBLOCK);
	return 0;
}

static int loopback_map_segment(struct transport *t, uint64_t offset, size_t size,
				struct transport_fds *fds, struct mapping *m)
{
	if (fds->n != 1)
		return -EBADF;
	if (!memory_is_safe(fds->fd[0], size))
		return -EPERM;
	*m = (struct mapping){.size = size, .bell_fd = -1, .kick_fd = -1};
	m->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fds->fd[0], 0);
	return m->base == MAP_FAILED ? -errno : 0;
}

/* The poller waits on bell_fd itself. */
static int loopback_bind(struct transport *t, struct mapping *m, int poller_event)
{
	return 0;
}

static void loopback_unmap(struct transport *t, struct mapping *m)
{
	munmap(m->base, m->size);
	if (m->bell_fd >= 0)
		close(m->bell_fd);
	if (m->kick_fd >= 0)
		close(m->kick_fd);
	m->base = NULL;
}

static void loopback_kick(struct transport *t, const struct mapping *m)
{
	uint64_t one = 1;

	/* EAGAIN means that the counter is full of bells that nobody took: the host is awake, or does not care. */
	if (write(m->kick_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_debug("ringing slot %u: %s", m->slot, strerror(errno));
}

static void loopback_close(struct transport *t)
{
	close(t->fd);
	free(t);
}

static const struct transport_ops loopback_ops = {
    .name = "loopback",
    .recv = loopback_recv,
    .send = loopback_send,
    .map = loopback_map,
    .map_segment = loopback_map_segment,
    .bind = loopback_bind,
    .unmap = loopback_unmap,
    .kick = loopback_kick,
    .close = loopback_close,
};

/* Connects to the broker, which may be starting. Returns a socket or -1 with errno. */
static int connect_waiting(const struct sockaddr_un *addr)
{
	const struct timespec tick = {.tv_nsec = 20000000};
	int fd = -1, err = 0;

	for (int ms = 0; ms < CONNECT_WAIT_MS; ms += 20) {
		fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return -1;
		if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
			return fd;
		err = errno;
		close(fd);
		if (err != ENOENT && err != ECONNREFUSED && err != EAGAIN)
			break;
		nanosleep(&tick, NULL);
	}
	errno = err;
	return -1;
}

struct transport *transport_open_loopback(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct transport *t;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		log_error("socket path %s is too long: at most %zu bytes", path,
			  sizeof(addr.sun_path) - 1);
		return NULL;
	}
	memcpy(addr.sun_path, path, strlen(path));
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->ops = &loopback_ops;
	t->fd = connect_waiting(&addr);
	if (t->fd < 0) {
		log_error("cannot connect to the broker at %s: %s; is vhost-scd running?", path,
			  strerror(errno));
		free(t);
		return NULL;
	}
	return t;
}
