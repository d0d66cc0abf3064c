/* SPDX-License-Identifier: BSD-3-Clause */
/* attach.c - connections of attach.sock; see attach.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "blob.h"
#include "broker.h"
#include "closer.h"
#include "log.h"
#include "sock.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

static_assert(SC_TICKETS_BATCH + 3 <= SOCK_MAX_FDS, "a reply carries memfd, doorbells and tickets");

/* A message of a client. */
union client_msg {
	struct sc_attach_hdr h;
	struct sc_attach_req req;
	struct sc_attach_tickets tickets;
	struct sc_attach_claim claim;
	struct sc_attach_name name;
	struct sc_attach_segment segment;
	struct sc_attach_object object;
	unsigned char bytes[SC_ATTACH_MSG_MAX];
};

static void on_client(struct source *src, uint32_t events);

/* Closes a descriptor of a client's, which may take its time. */
static void close_later(struct broker *b, int fd)
{
	closer_close(fd);
	loop_at(&b->loop, loop_now() + CLOSER_STUCK_MS);
}

static void free_client(struct client *c)
{
	struct broker *b = c->b;

	if (c->prev)
		c->prev->next = c->next;
	else
		b->clients.head = c->next;
	if (c->next)
		c->next->prev = c->prev;
	b->clients.count--;
	if (c->pidfd >= 0)
		close(c->pidfd);
	free(c);
}

void client_drop(struct client *c, const char *why)
{
	struct broker *b = c->b;
	int fd = c->src.fd;

	if (why)
		log_peer(LOG_LEVEL_WARN, "client with pid %d, uid %u is dropped: %s", (int)c->pid,
			 c->uid, why);
	loop_del(&b->loop, &c->src);
	segment_client_gone(b, c);
	if (c->slot)
		session_end(b, c->slot);
	close_later(b, fd); /* descriptors may be in its queue */
	free_client(c);
}

bool client_reply(struct client *c, const void *msg, size_t len, const int *fds, unsigned nfds)
{
	ssize_t n = sock_send(c->src.fd, msg, len, fds, nfds);

	if (n == (ssize_t)len)
		return true;
	client_drop(c, n == -EAGAIN ? "it does not read its replies" : strerror((int)-n));
	return false;
}

static void state_new(struct client *c)
{
	c->state = CLIENT_NEW;
	c->deadline = loop_now() + CLIENT_IDLE_MS;
	loop_at(&c->b->loop, c->deadline);
}

void client_attach_failed(struct client *c, uint32_t status, const char *fmt, ...)
{
	struct sc_attach_rep r = {
	    .h = {.magic = SC_ATTACH_MAGIC, .type = SC_ATTACH_REP, .seq = c->seq, .len = sizeof(r)},
	    .status = status,
	    .abi = SC_ABI_VERSION,
	    .deadline_ms = c->b->cfg->deadline_ms,
	};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r.text, sizeof(r.text), fmt, ap);
	va_end(ap);
	c->b->clients.refused++;
	log_peer(LOG_LEVEL_INFO, "attach of pid %d, uid %u refused: %s", (int)c->pid, c->uid,
		 r.text);
	state_new(c);
	client_reply(c, &r, sizeof(r), NULL, 0);
}

void client_attached(struct client *c)
{
	struct broker *b = c->b;
	struct slot *s = c->slot;
	struct sc_attach_rep r = {
	    .h = {.magic = SC_ATTACH_MAGIC, .type = SC_ATTACH_REP, .seq = c->seq, .len = sizeof(r)},
	    .status = SC_ATTACH_OK,
	    .abi = SC_ABI_VERSION,
	    .features = s->features,
	    .layout = b->cfg->layout,
	    .session = s->session,
	    .slot = s->n,
	    .incarnation = b->dom.incarnation,
	    .deadline_ms = b->cfg->deadline_ms,
	    .loopback = b->cfg->loopback,
	};
	int fds[3 + SC_TICKETS_BATCH];
	uint32_t made;

	fds[0] = s->ch.memfd;
	if (b->tr->doorbell(b, s->n, &fds[1], &fds[2])) {
		/* The guest took its doorbell away in this moment: an agent that starts anew. */
		session_end(b, s);
		client_attach_failed(c, SC_ATTACH_ERROR,
				     "domain %s: its doorbell is gone; try again", b->cfg->name);
		return;
	}
	c->state = CLIENT_LIVE;
	made = ticket_make(b, s, c->tickets, r.tickets, fds + 3);
	r.ntickets = made;
	if (!client_reply(c, &r, sizeof(r), fds, 3 + made))
		ticket_unmake(b, r.tickets, made);
	sock_close_fds(fds + 3, made);
}

void client_event(struct client *c)
{
	struct broker *b = c->b;
	struct sc_attach_event m = {
	    .h = {.magic = SC_ATTACH_MAGIC, .type = SC_ATTACH_EVENT, .len = sizeof(m)},
	};
	int fds[2];
	ssize_t n;

	if (c->state != CLIENT_LIVE)
		return;
	if (c->slot->served && b->tr->doorbell(b, c->slot->n, &fds[0], &fds[1]) == 0) {
		m.incarnation = b->dom.incarnation;
		m.nfds = 2;
	}
	n = sock_send(c->src.fd, &m, sizeof(m), fds, m.nfds);
	c->event_due = n == -EAGAIN;
	/* Another failure is the end of the connection, which the loop reports. */
	loop_want(&b->loop, &c->src, EPOLLIN | (c->event_due ? EPOLLOUT : 0u));
}

static bool user_allowed(const struct config *cfg, const struct client *c)
{
	if (!c->uid || (!cfg->nallow_users && !cfg->nallow_groups))
		return true;
	for (size_t i = 0; i < cfg->nallow_users; i++) {
		if (cfg->allow_users[i] == c->uid)
			return true;
	}
	for (size_t i = 0; i < cfg->nallow_groups; i++) {
		if (cfg->allow_groups[i] == c->gid)
			return true;
		for (uint32_t g = 0; g < c->ngroups; g++) {
			if (cfg->allow_groups[i] == c->groups[g])
				return true;
		}
	}
	return false;
}

/* What does not depend on the domain's state. Returns false after refusing. */
static bool check_request(struct client *c, const struct sc_attach_req *m)
{
	const struct config *cfg = c->b->cfg;
	const char *role = cfg->role == SC_ROLE_STORAGE ? "storage" : "network";

	if (c->ngroups == UINT32_MAX) {
		client_attach_failed(c, SC_ATTACH_GROUPS,
				     "user %u has more than %u supplementary groups", c->uid,
				     SC_MAX_GROUPS);
	} else if (!user_allowed(cfg, c)) {
		client_attach_failed(c, SC_ATTACH_DENIED,
				     "user %u is not allowed to use domain %s: its broker's "
				     "--allow-user and --allow-group name who is",
				     c->uid, cfg->name);
	} else if (m->abi_min > SC_ABI_VERSION || m->abi_max < SC_ABI_VERSION) {
		client_attach_failed(c, SC_ATTACH_VERSION,
				     "the program's library speaks versions %u to %u, domain %s "
				     "speaks %u: use parts of the same release",
				     m->abi_min, m->abi_max, cfg->name, SC_ABI_VERSION);
	} else if (m->role && m->role != cfg->role) {
		client_attach_failed(c, SC_ATTACH_ROLE, "domain %s is a %s domain", cfg->name,
				     role);
	} else if (c->pid <= 0) {
		client_attach_failed(c, SC_ATTACH_ERROR,
				     "the program runs in a pid namespace that the broker of "
				     "domain %s does not see",
				     cfg->name);
	} else {
		return true;
	}
	return false;
}

/* Makes the client a member of its process. Returns false after refusing. */
static bool join_process(struct client *c)
{
	int pidfd = c->pidfd;
	int err;

	c->pidfd = -1;
	err = process_join(c->b, c->pid, c->uid, pidfd, c->accepted, &c->process);
	if (!err)
		return true;
	client_attach_failed(c, err == -EUSERS ? SC_ATTACH_LIMIT : SC_ATTACH_ERROR,
			     "domain %s cannot watch process %d: %s%s", c->b->cfg->name,
			     (int)c->pid, strerror(-err),
			     err == -EMFILE ? " (raise its broker's LimitNOFILE)" : "");
	return false;
}

/* Tries to go on with a client that has asked. Returns false if it has to wait for a slot. */
static bool try_attach(struct client *c)
{
	struct broker *b = c->b;

	if (c->uid && session_count_user(b, c->uid) >= b->cfg->max_per_user) {
		client_attach_failed(
		    c, SC_ATTACH_LIMIT,
		    "user %u has %u channels of domain %s, as many as he may: end a "
		    "program, or start its broker with more --max-per-user",
		    c->uid, b->cfg->max_per_user, b->cfg->name);
		return true;
	}
	if (!join_process(c))
		return true;
	c->state = CLIENT_ATTACHING;
	c->deadline = LOOP_NEVER;
	return session_begin(b, c);
}

static void refuse_for_state(struct client *c)
{
	const struct domain *d = &c->b->dom;
	bool starting = d->state == DOM_STARTING;

	client_attach_failed(c, starting ? SC_ATTACH_STARTING : SC_ATTACH_DOWN,
			     "domain %s is %s: %s", c->b->cfg->name,
			     starting ? "not ready" : "not running", d->why);
}

static void wait_until(struct client *c, uint64_t when)
{
	c->state = CLIENT_WAITING;
	c->deadline = when;
	loop_at(&c->b->loop, when);
}

static void on_request(struct client *c, const struct sc_attach_req *m)
{
	struct broker *b = c->b;
	uint64_t wait = m->wait_ms < CLIENT_MAX_WAIT_MS ? m->wait_ms : CLIENT_MAX_WAIT_MS;

	c->seq = m->h.seq;
	c->tickets = m->tickets;
	c->features = m->features & SC_FEATURES;
	c->wait_end = loop_now() + wait;
	if (!check_request(c, m))
		return;
	if (b->restart)
		wait_until(c, loop_now() + RESTART_MS + SESSION_ATTACH_MS);
	else if (b->dom.state == DOM_STARTING && !b->dom.refused && wait)
		wait_until(c, c->wait_end);
	else if (b->dom.state != DOM_READY)
		refuse_for_state(c);
	else if (!try_attach(c))
		wait_until(c, loop_now() + SESSION_SLOT_MS);
}

void client_attach_again(struct client *c)
{
	if (c->wait_end > loop_now() && c->b->dom.state != DOM_DOWN)
		wait_until(c, c->wait_end);
	else
		refuse_for_state(c);
}

void client_serve_waiting(struct broker *b)
{
	struct client *next;

	if (b->restart)
		return;
	/* A new look is taken after each step: what one client gets may end another one. */
	for (struct client *c = b->clients.head; c; c = next) {
		next = c->next;
		if (c->state != CLIENT_WAITING || (b->dom.state == DOM_STARTING && !b->dom.refused))
			continue;
		if (b->dom.state != DOM_READY) {
			refuse_for_state(c);
		} else {
			uint64_t deadline = c->deadline;

			if (!try_attach(c)) {
				wait_until(c, deadline);
				return; /* no slot for the others either */
			}
		}
		next = b->clients.head;
	}
}

static void on_tickets(struct client *c, const struct sc_attach_tickets *m)
{
	struct sc_attach_tickets r = {
	    .h = {.magic = SC_ATTACH_MAGIC,
		  .type = SC_ATTACH_TICKETS_REP,
		  .seq = m->h.seq,
		  .len = sizeof(r)},
	};
	struct broker *b = c->b;
	int fds[SC_TICKETS_BATCH];

	r.count = ticket_make(b, c->slot, m->count, r.tickets, fds);
	if (!r.count && m->count)
		r.status = ENFILE;
	if (!client_reply(c, &r, sizeof(r), fds, r.count))
		ticket_unmake(b, r.tickets, r.count);
	sock_close_fds(fds, r.count);
}

static void on_claim(struct client *c, uint32_t seq, const int *fds, unsigned nfds)
{
	struct sc_attach_claim r = {
	    .h = {.magic = SC_ATTACH_MAGIC,
		  .type = SC_ATTACH_CLAIM_REP,
		  .seq = seq,
		  .len = sizeof(r)},
	    .count = nfds,
	};

	for (unsigned i = 0; i < nfds; i++)
		ticket_claim(c->b, fds[i], &r.names[i]);
	client_reply(c, &r, sizeof(r), NULL, 0);
}

/* Checks a message against its type and the client's state. Returns NULL if it is in order. */
static const char *bad_message(const struct client *c, const union client_msg *msg, size_t len,
			       unsigned nfds)
{
	const struct sc_attach_hdr *h = &msg->h;
	bool live = c->state == CLIENT_LIVE;

	if (len < sizeof(*h) || h->magic != SC_ATTACH_MAGIC || h->len != len || h->flags)
		return "malformed header";
	switch (h->type) {
	case SC_ATTACH_REQ:
		if (len != sizeof(struct sc_attach_req) || nfds)
			return "malformed request";
		if (msg->req.tickets > SC_TICKETS_BATCH)
			return "request for too many tickets";
		return c->state == CLIENT_NEW ? NULL : "second request";
	case SC_ATTACH_TICKETS:
		if (len != sizeof(struct sc_attach_tickets) || nfds)
			return "malformed request for tickets";
		if (msg->tickets.count > SC_TICKETS_BATCH)
			return "request for too many tickets";
		return live ? NULL : "request for tickets without a session";
	case SC_ATTACH_CLAIM:
		if (len != sizeof(struct sc_attach_claim) || !nfds || nfds > SC_TICKETS_BATCH)
			return "malformed claim";
		return live ? NULL : "claim without a session";
	case SC_ATTACH_NAME:
		if (len != sizeof(struct sc_attach_name) || nfds > 1)
			return "malformed name";
		return live ? NULL : "name without a session";
	case SC_ATTACH_SEGMENT:
		if (len != sizeof(struct sc_attach_segment) || nfds != 1)
			return "malformed request for a segment";
		return live ? NULL : "request for a segment without a session";
	case SC_ATTACH_OBJECT:
		if (len != sizeof(struct sc_attach_object) || nfds)
			return "malformed request for an object";
		return live ? NULL : "request for an object without a session";
	default:
		return "unknown message";
	}
}

/* Handles one packet. */
static void on_message(struct client *c, const union client_msg *msg, size_t len, const int *fds,
		       unsigned nfds)
{
	const char *bad = bad_message(c, msg, len, nfds);

	if (bad) {
		client_drop(c, bad);
		return;
	}
	switch (msg->h.type) {
	case SC_ATTACH_REQ:
		on_request(c, &msg->req);
		break;
	case SC_ATTACH_TICKETS:
		on_tickets(c, &msg->tickets);
		break;
	case SC_ATTACH_CLAIM:
		on_claim(c, msg->h.seq, fds, nfds);
		break;
	case SC_ATTACH_OBJECT:
		object_fetch(c, &msg->object);
		break;
	case SC_ATTACH_SEGMENT:
		segment_request(c, &msg->segment, fds[0]);
		break;
	default:
		if (nfds)
			ticket_name_held(c->b, fds[0], &msg->name.name);
		else
			ticket_set_name(c->b, c->slot->session, &msg->name.name);
	}
}

/* Closes what a client has sent. Tickets at once: a copy of ours must not delay their hang-up (and
 * their close has nothing to wait for). The rest could be anything. */
static void dispose(struct broker *b, const int *fds, unsigned nfds)
{
	struct sc_ticket_name unused;

	for (unsigned i = 0; i < nfds; i++) {
		if (ticket_claim(b, fds[i], &unused))
			close(fds[i]);
		else
			close_later(b, fds[i]);
	}
}

static void on_client(struct source *src, uint32_t events)
{
	struct client *c = container_of(src, struct client, src);
	struct broker *b = c->b;
	union client_msg msg;
	int fds[SOCK_MAX_FDS];
	unsigned nfds;
	ssize_t n;

	if ((events & EPOLLOUT) && c->event_due)
		client_event(c);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = sock_recv(src->fd, &msg, sizeof(msg), fds, &nfds);
	if (n > 0)
		on_message(c, &msg, (size_t)n, fds, nfds);
	else if (n != -EAGAIN)
		client_drop(c, n == -EMSGSIZE ? "message too long" : NULL);
	dispose(b, fds, nfds);
}

/* Reads what the kernel knows of the peer. Returns 0 or -errno. */
static int read_credentials(struct client *c, int fd)
{
	struct timespec now;
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return -errno;
	c->pid = cred.pid;
	c->uid = cred.uid;
	c->gid = cred.gid;
	len = sizeof(c->groups);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, c->groups, &len) == 0)
		c->ngroups = (uint32_t)(len / sizeof(gid_t));
	else if (errno == ERANGE)
		c->ngroups = UINT32_MAX;
	else
		return -errno;
	len = sizeof(c->pidfd);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &c->pidfd, &len))
		c->pidfd = -1;
	clock_gettime(CLOCK_BOOTTIME, &now);
	c->accepted = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	return 0;
}

/* Connections of this user that have no session. */
static uint32_t count_unused(const struct broker *b, uid_t uid)
{
	uint32_t n = 0;

	for (const struct client *c = b->clients.head; c; c = c->next)
		n += c->uid == uid && c->state != CLIENT_LIVE;
	return n;
}

static struct client *add_client(struct broker *b, int fd)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->b = b;
	c->pidfd = -1;
	c->process = PROCESS_NONE;
	if (loop_add(&b->loop, &c->src, fd, EPOLLIN, on_client)) {
		free(c);
		return NULL;
	}
	c->next = b->clients.head;
	if (c->next)
		c->next->prev = c;
	b->clients.head = c;
	b->clients.count++;
	return c;
}

static void on_accept(struct source *src, uint32_t events)
{
	struct broker *b = container_of(src, struct broker, clients.listener);
	struct client *c;
	int fd;

	fd = sock_accept(src->fd, &b->spare_fd);
	if (fd == -EMFILE)
		log_peer(LOG_LEVEL_ERROR,
			 "out of file descriptors: raise the broker's LimitNOFILE");
	if (fd < 0)
		return;
	c = add_client(b, fd);
	if (!c) {
		close_later(b, fd);
		return;
	}
	if (read_credentials(c, fd)) {
		client_drop(c, "its credentials cannot be read");
		return;
	}
	if (c->uid && count_unused(b, c->uid) > CLIENT_MAX_UNUSED) {
		client_drop(c, "its user has too many connections without a session");
		return;
	}
	state_new(c);
}

int client_init(struct broker *b, int listen_fd)
{
	char path[300];
	int err;

	if (listen_fd < 0) {
		snprintf(path, sizeof(path), "%s/attach.sock", b->cfg->dir);
		listen_fd = sock_listen(path, SOCK_SEQPACKET, b->cfg->socket_mode);
		if (listen_fd < 0) {
			log_error("cannot listen at %s: %s", path, strerror(-listen_fd));
			return listen_fd;
		}
	}
	err = loop_add(&b->loop, &b->clients.listener, listen_fd, EPOLLIN, on_accept);
	if (err)
		close(listen_fd);
	return err;
}

void client_tick(struct broker *b, uint64_t now)
{
	struct client *next;

	for (struct client *c = b->clients.head; c; c = next) {
		/* c->b is b, which the analyzer does not know: the list's head is not what was
		 * freed. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
		next = c->next;
		if (c->state != CLIENT_NEW && c->state != CLIENT_WAITING)
			continue;
		if (c->deadline > now) {
			loop_at(&b->loop, c->deadline);
			continue;
		}
		if (c->state == CLIENT_NEW)
			client_drop(c, NULL);
		else if (b->dom.state == DOM_READY)
			client_attach_failed(c, SC_ATTACH_FULL,
					     "domain %s has no free channel: all %u are in use",
					     b->cfg->name, b->cfg->channels);
		else
			refuse_for_state(c);
		/* Either may have ended others. */
		next = b->clients.head;
	}
}

void client_save(const struct broker *b, struct blob_out *out)
{
	blob_put_fd(out, b->clients.listener.fd);
	blob_put_u64(out, b->clients.refused);
	blob_put_u32(out, b->clients.count);
	for (const struct client *c = b->clients.head; c; c = c->next) {
		blob_put_fd(out, c->src.fd);
		blob_put_u32(out, c->state);
		blob_put_u64(out, c->deadline);
		blob_put_u32(out, (uint32_t)c->pid);
		blob_put_u32(out, c->uid);
		blob_put_u32(out, c->gid);
		blob_put_u32(out, c->ngroups);
		blob_put_bytes(out, c->groups, sizeof(c->groups));
		blob_put_fd(out, c->pidfd);
		blob_put_u64(out, c->accepted);
		blob_put_u32(out, c->seq);
		blob_put_u32(out, c->tickets);
		blob_put_u64(out, c->features);
		blob_put_u64(out, c->wait_end);
		blob_put_u32(out, c->process);
		blob_put_u32(out, c->slot ? c->slot->n : 0);
		blob_put_u32(out, c->event_due);
	}
}

static int load_client(struct broker *b, struct blob_in *in)
{
	struct client *c;
	uint32_t slot;
	int fd = blob_get_fd(in);

	if (fd < 0)
		return -EBADMSG;
	c = add_client(b, fd);
	if (!c)
		return -ENOMEM;
	c->state = blob_get_u32(in);
	c->deadline = blob_get_u64(in);
	c->pid = (pid_t)blob_get_u32(in);
	c->uid = blob_get_u32(in);
	c->gid = blob_get_u32(in);
	c->ngroups = blob_get_u32(in);
	blob_get_bytes(in, c->groups, sizeof(c->groups));
	c->pidfd = blob_get_fd(in);
	c->accepted = blob_get_u64(in);
	c->seq = blob_get_u32(in);
	c->tickets = blob_get_u32(in);
	c->features = blob_get_u64(in);
	c->wait_end = blob_get_u64(in);
	c->process = blob_get_u32(in);
	slot = blob_get_u32(in);
	c->event_due = blob_get_u32(in);
	if (in->err || slot > b->cfg->channels || (c->state == CLIENT_LIVE) != (slot != 0))
		return -EBADMSG;
	if (slot) {
		c->slot = &b->sessions.slots[slot];
		c->slot->client = c;
	}
	if (c->event_due)
		loop_want(&b->loop, &c->src, EPOLLIN | EPOLLOUT);
	loop_at(&b->loop, 0);
	return 0;
}

int client_load(struct broker *b, struct blob_in *in)
{
	int listener = blob_get_fd(in);
	uint32_t count;
	int err;

	if (listener < 0)
		return -EBADMSG;
	err = client_init(b, listener);
	b->clients.refused = blob_get_u64(in);
	count = blob_get_u32(in);
	for (uint32_t i = 0; i < count && !err && !in->err; i++)
		err = load_client(b, in);
	for (uint32_t i = 1; !err && i <= b->cfg->channels; i++) {
		const struct slot *s = &b->sessions.slots[i];

		if (s->state == SLOT_LIVE && !s->client)
			err = -EBADMSG;
	}
	return err ? err : in->err;
}

void client_close_all(struct broker *b)
{
	int fd = b->clients.listener.fd;

	while (b->clients.head) {
		struct client *c = b->clients.head;

		/* The connection is left to the end of the process, which no client can delay. */
		loop_del(&b->loop, &c->src);
		free_client(c);
	}
	loop_del(&b->loop, &b->clients.listener);
	if (fd >= 0)
		close(fd);
}
