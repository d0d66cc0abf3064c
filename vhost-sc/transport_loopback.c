/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transport_loopback.c - an agent that is a plain process of the host (agent.sock).
 *
 * For tests, sanitizers and measuring: nothing isolates this agent. It gets the channels' memfds
 * and the doorbells by SCM_RIGHTS, so there is nothing to map or unmap. Doorbells are eventfds that
 * the broker makes for each session; they outlive the agent. One agent at a time.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blob.h"
#include "broker.h"
#include "log.h"
#include "msgq.h"
#include "sock.h"

struct bells {
	int call;
	int kick;
};

struct loopback {
	struct broker *b;
	struct source listener;
	struct source conn; /* fd -1: no agent */
	struct msgq queue;
	struct bells *bells; /* [0..channels]; -1: none */
	bool broken;	     /* to be cut off when the loop comes round */
	char why[128];
};

static void disconnect(struct loopback *t)
{
	int fd = t->conn.fd;

	if (fd < 0)
		return;
	loop_del(&t->b->loop, &t->conn);
	close(fd);
	msgq_clear(&t->queue);
	t->broken = false;
	domain_peer(t->b, false);
}

static void loopback_drop(struct broker *b, const char *why)
{
	struct loopback *t = b->transport;

	if (t->conn.fd < 0 || t->broken)
		return;
	t->broken = true;
	snprintf(t->why, sizeof(t->why), "%s", why);
	loop_at(&b->loop, 0);
}

static void loopback_tick(struct broker *b, uint64_t now)
{
	struct loopback *t = b->transport;

	if (!t->broken)
		return;
	domain_broken(b, t->why);
	disconnect(t);
}

static void flush(struct loopback *t)
{
	while (t->queue.head) {
		struct msg *m = t->queue.head;
		ssize_t n = sock_send(t->conn.fd, m->data, m->len, m->fds, m->nfds);

		if (n < 0) {
			if (n != -EAGAIN)
				loopback_drop(t->b, strerror((int)-n));
			break;
		}
		msgq_pop(&t->queue);
	}
	loop_want(&t->b->loop, &t->conn, EPOLLIN | (t->queue.head ? EPOLLOUT : 0u));
}

static int loopback_send(struct broker *b, const struct sc_msg_hdr *msg, const int *fds,
			 unsigned nfds)
{
	struct loopback *t = b->transport;
	int err;

	if (t->conn.fd < 0 || t->broken)
		return -ENOTCONN;
	err = msgq_put(&t->queue, msg, fds, nfds);
	if (err)
		loopback_drop(b,
			      err == -ENOBUFS ? "it does not take its messages" : strerror(-err));
	else
		flush(t);
	return err;
}

static void on_agent(struct source *src, uint32_t events)
{
	struct loopback *t = container_of(src, struct loopback, conn);
	union agent_msg msg;
	int fds[SOCK_MAX_FDS];
	unsigned nfds;
	ssize_t n;

	if (t->broken)
		return;
	if (events & EPOLLOUT)
		flush(t);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = sock_recv(src->fd, &msg, sizeof(msg), fds, &nfds);
	sock_close_fds(fds, nfds); /* an agent has none to send */
	if (n == -EAGAIN)
		return;
	if (n > 0)
		domain_message(t->b, &msg, (size_t)n);
	else if (n == -EMSGSIZE)
		loopback_drop(t->b, "message too long");
	else
		disconnect(t);
}

static bool hung_up(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0;
}

static void on_accept(struct source *src, uint32_t events)
{
	struct loopback *t = container_of(src, struct loopback, listener);
	int fd = sock_accept(src->fd, &t->b->spare_fd);

	if (fd < 0)
		return;
	/* The end of the agent before may not have been seen yet. */
	if (t->conn.fd >= 0 && hung_up(t->conn.fd))
		disconnect(t);
	if (t->conn.fd >= 0) {
		log_warn("a second agent connected and was turned away");
		close(fd);
		return;
	}
	if (loop_add(&t->b->loop, &t->conn, fd, EPOLLIN, on_agent)) {
		close(fd);
		return;
	}
	domain_peer(t->b, true);
	domain_link(t->b, true);
}

/* Makes the state and takes over, or makes, the listening socket. */
static int init(struct broker *b, int listen_fd)
{
	struct loopback *t = calloc(1, sizeof(*t));
	char path[300];
	int err;

	if (!t)
		return -ENOMEM;
	t->b = b;
	t->conn.fd = -1;
	t->bells = malloc((b->cfg->channels + 1) * sizeof(*t->bells));
	if (!t->bells) {
		free(t);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i <= b->cfg->channels; i++)
		t->bells[i] = (struct bells){-1, -1};
	b->transport = t;
	if (listen_fd < 0) {
		snprintf(path, sizeof(path), "%s/agent.sock", b->cfg->dir);
		listen_fd = sock_listen(path, SOCK_SEQPACKET, 0600);
		if (listen_fd < 0) {
			log_error("cannot listen at %s: %s", path, strerror(-listen_fd));
			return listen_fd;
		}
	}
	err = loop_add(&b->loop, &t->listener, listen_fd, EPOLLIN, on_accept);
	if (err)
		close(listen_fd);
	return err;
}

static int loopback_open(struct broker *b)
{
	return init(b, -1);
}

static void loopback_slot_free(struct broker *b, uint32_t slot)
{
	struct loopback *t = b->transport;

	if (t->bells[slot].call >= 0)
		close(t->bells[slot].call);
	if (t->bells[slot].kick >= 0)
		close(t->bells[slot].kick);
	t->bells[slot] = (struct bells){-1, -1};
}

static void loopback_close(struct broker *b)
{
	struct loopback *t = b->transport;
	int fd;

	if (!t)
		return;
	fd = t->listener.fd;
	loop_del(&b->loop, &t->listener);
	if (fd >= 0)
		close(fd);
	fd = t->conn.fd;
	loop_del(&b->loop, &t->conn);
	if (fd >= 0)
		close(fd);
	msgq_clear(&t->queue);
	for (uint32_t i = 0; i <= b->cfg->channels; i++)
		loopback_slot_free(b, i);
	free(t->bells);
	free(t);
	b->transport = NULL;
}

static int loopback_map(struct broker *b, uint32_t tag, int memfd, uint64_t offset, uint64_t size)
{
	return 1;
}

static int loopback_unmap(struct broker *b, uint32_t tag, uint64_t offset, uint64_t size)
{
	return 1;
}

static int loopback_doorbell(struct broker *b, uint32_t slot, int *call, int *kick)
{
	struct loopback *t = b->transport;
	struct bells *bells = &t->bells[slot];

	if (bells->call < 0)
		bells->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (bells->kick < 0)
		bells->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (bells->call < 0 || bells->kick < 0)
		return -EMFILE;
	*call = bells->call;
	*kick = bells->kick;
	return 0;
}

static int loopback_connection(struct broker *b)
{
	struct loopback *t = b->transport;

	return t->conn.fd;
}

static bool loopback_busy(struct broker *b)
{
	struct loopback *t = b->transport;

	return t->broken;
}

static int loopback_save(struct broker *b, struct blob_out *out)
{
	struct loopback *t = b->transport;

	blob_put_fd(out, t->listener.fd);
	blob_put_fd(out, t->conn.fd);
	msgq_save(&t->queue, out);
	for (uint32_t i = 0; i <= b->cfg->channels; i++) {
		blob_put_fd(out, t->bells[i].call);
		blob_put_fd(out, t->bells[i].kick);
	}
	return 0;
}

static int loopback_load(struct broker *b, struct blob_in *in)
{
	struct loopback *t;
	int listener = blob_get_fd(in);
	int conn = blob_get_fd(in);
	int err;

	if (listener < 0)
		return -EBADMSG;
	err = init(b, listener);
	if (err)
		return err;
	t = b->transport;
	err = msgq_load(&t->queue, in);
	if (err)
		return err;
	for (uint32_t i = 0; i <= b->cfg->channels; i++) {
		t->bells[i].call = blob_get_fd(in);
		t->bells[i].kick = blob_get_fd(in);
	}
	if (conn < 0)
		return in->err;
	err = loop_add(&b->loop, &t->conn, conn, EPOLLIN, on_agent);
	if (err)
		return err;
	flush(t);
	return in->err;
}

static void loopback_status(struct broker *b, struct json *j)
{
}

const struct transport_ops transport_loopback = {
    .name = "loopback agent",
    .open = loopback_open,
    .close = loopback_close,
    .send = loopback_send,
    .map = loopback_map,
    .unmap = loopback_unmap,
    .doorbell = loopback_doorbell,
    .connection = loopback_connection,
    .slot_free = loopback_slot_free,
    .drop = loopback_drop,
    .tick = loopback_tick,
    .busy = loopback_busy,
    .save = loopback_save,
    .load = loopback_load,
    .status = loopback_status,
};
