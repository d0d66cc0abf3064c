/* SPDX-License-Identifier: BSD-3-Clause */
/* vhost_user.c - the vhost-user protocol, back end's side; see vhost_user.h. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blob.h"
#include "log.h"
#include "sock.h"
#include "vhost_user.h"

static_assert(sizeof(struct vu_header) == 12, "wire");
static_assert(sizeof(struct vu_mmap) == 40, "wire");
static_assert(sizeof(struct vu_shmem_config) == 2056, "wire");

#define VERSION_MASK 3u
#define VERSION	     1u
#define F_REPLY	     (1u << 2)
#define F_NEED_REPLY (1u << 3)

#define VIRTIO_F_VERSION_1	       32
#define VHOST_USER_F_PROTOCOL_FEATURES 30

#define FEATURES (1ull << VIRTIO_F_VERSION_1 | 1ull << VHOST_USER_F_PROTOCOL_FEATURES)

enum protocol_feature {
	PROTOCOL_MQ = 0,
	PROTOCOL_REPLY_ACK = 3,
	PROTOCOL_BACKEND_REQ = 5,
	PROTOCOL_BACKEND_SEND_FD = 10,
	PROTOCOL_CONFIGURE_MEM_SLOTS = 15,
	PROTOCOL_SHMEM = 22,
};

#define PROTOCOL                                                                           \
	(1ull << PROTOCOL_MQ | 1ull << PROTOCOL_REPLY_ACK | 1ull << PROTOCOL_BACKEND_REQ | \
	 1ull << PROTOCOL_BACKEND_SEND_FD | 1ull << PROTOCOL_CONFIGURE_MEM_SLOTS |         \
	 1ull << PROTOCOL_SHMEM)

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	RESET_OWNER = 4,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	GET_QUEUE_NUM = 17,
	SET_VRING_ENABLE = 18,
	SET_BACKEND_REQ_FD = 21,
	GET_MAX_MEM_SLOTS = 36,
	ADD_MEM_REG = 37,
	REM_MEM_REG = 38,
	GET_SHMEM_CONFIG = 44,
};

enum backend_request {
	SHMEM_MAP = 9,
	SHMEM_UNMAP = 10,
};

/* Payloads. */
struct vring_state {
	uint32_t index;
	uint32_t num;
};
struct vring_addr {
	uint32_t index;
	uint32_t flags;
	uint64_t desc;
	uint64_t used;
	uint64_t avail;
	uint64_t log;
};
struct mem_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t uva;
	uint64_t offset;
};
struct mem_table {
	uint32_t n;
	uint32_t padding;
	struct mem_region r[VU_MAX_FDS];
};
struct mem_single {
	uint64_t padding;
	struct mem_region r;
};

#define RING_INDEX_MASK 0xffu
#define RING_NO_FD	0x100u

static void on_front_end(struct source *src, uint32_t events);
static void on_backend(struct source *src, uint32_t events);

static bool reply(struct vhost_user *vu, const void *payload, uint32_t size)
{
	unsigned char msg[sizeof(struct vu_header) + sizeof(struct vu_shmem_config)];
	struct vu_header h = {vu->in.request, VERSION | F_REPLY, size};

	memcpy(msg, &h, sizeof(h));
	memcpy(msg + sizeof(h), payload, size);
	/* A front end waits for each reply before it says more: there is room for it. */
	return sock_send(vu->conn.fd, msg, sizeof(h) + size, NULL, 0) ==
	       (ssize_t)(sizeof(h) + size);
}

static bool reply_u64(struct vhost_user *vu, uint64_t v)
{
	return reply(vu, &v, sizeof(v));
}

static void take_ring_fd(struct vhost_user *vu, int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	if (vu->in_nfds) {
		*fd = vu->in_fds[0];
		/* Neither reading a kick nor sounding a call may block. */
		fcntl(*fd, F_SETFL, fcntl(*fd, F_GETFL) | O_NONBLOCK);
		vu->in_nfds = 0;
	}
}

static void free_requests(struct vhost_user *vu)
{
	while (vu->requests) {
		struct vu_request *r = vu->requests;

		vu->requests = r->next;
		free(r);
	}
	vu->in_flight = 0;
	vu->reply_got = 0;
}

void vu_shmem_forget(struct vhost_user *vu)
{
	struct vu_request **at = &vu->requests;

	while (*at) {
		struct vu_request *r = *at;

		if (r->sent) {
			r->forgotten = true;
			at = &r->next;
			continue;
		}
		*at = r->next;
		free(r);
	}
}

static void close_backend(struct vhost_user *vu)
{
	int fd = vu->backend.fd;

	loop_del(vu->loop, &vu->backend);
	if (fd >= 0)
		close(fd);
	free_requests(vu);
}

static void stop_ring(struct vhost_user *vu, uint32_t i)
{
	/* First tell, so that nobody watches the eventfds any more, then close them. */
	if (vu->q[i].started) {
		vu->q[i].started = false;
		vu->ops->ring_changed(vu, i);
	}
	virtq_reset(&vu->q[i]);
}

/* Everything that the front end has set up goes. */
static void forget_front_end(struct vhost_user *vu)
{
	int fd = vu->conn.fd;

	loop_del(vu->loop, &vu->conn);
	if (fd >= 0)
		close(fd);
	close_backend(vu);
	guestmem_clear(&vu->mem);
	sock_close_fds(vu->in_fds, vu->in_nfds);
	vu->in_nfds = 0;
	vu->in_got = 0;
	vu->features = 0;
	vu->protocol = 0;
}

void vu_disconnect(struct vhost_user *vu, const char *why)
{
	if (vu->conn.fd < 0)
		return;
	if (why)
		log_warn("vhost-user: disconnecting the VM: %s", why);
	for (uint32_t i = 0; i < vu->nqueues; i++)
		stop_ring(vu, i);
	forget_front_end(vu);
	vu->ops->disconnected(vu);
}

/* Requests to the front end. */

static bool send_request(struct vhost_user *vu, struct vu_request *r)
{
	unsigned char msg[sizeof(struct vu_header) + sizeof(struct vu_mmap)];
	bool ack = vu->protocol & 1ull << PROTOCOL_REPLY_ACK;
	struct vu_header h = {r->id, VERSION | (ack ? F_NEED_REPLY : 0), sizeof(r->body)};
	ssize_t n;

	memcpy(msg, &h, sizeof(h));
	memcpy(msg + sizeof(h), &r->body, sizeof(r->body));
	n = sock_send(vu->backend.fd, msg, sizeof(msg), &r->memfd, r->memfd >= 0);
	if (n == (ssize_t)sizeof(msg)) {
		r->sent = true;
		r->deadline = loop_now() + VU_SHMEM_MS;
		loop_at(vu->loop, r->deadline);
		vu->in_flight++;
		return true;
	}
	/* A part of a message cannot be taken back; the deadline of the first request ends this. */
	if (n != -EAGAIN)
		loop_at(vu->loop, 0);
	return false;
}

static void send_requests(struct vhost_user *vu)
{
	struct vu_request *r = vu->requests;
	bool full = false;

	while (r && r->sent)
		r = r->next;
	for (; r && !full && vu->in_flight < VU_IN_FLIGHT; r = r->next)
		full = !send_request(vu, r);
	loop_want(vu->loop, &vu->backend, EPOLLIN | (full ? EPOLLOUT : 0u));
}

static int add_request(struct vhost_user *vu, const struct vu_request *request)
{
	struct vu_request **at = &vu->requests;
	struct vu_request *r;

	if (vu->backend.fd < 0)
		return -ENOTCONN;
	r = malloc(sizeof(*r));
	if (!r)
		return -ENOMEM;
	*r = *request;
	while (*at)
		at = &(*at)->next;
	*at = r;
	send_requests(vu);
	return 0;
}

int vu_shmem_map(struct vhost_user *vu, uint32_t tag, int memfd, uint64_t offset, uint64_t len)
{
	struct vu_request r = {
	    .id = SHMEM_MAP,
	    .tag = tag,
	    .memfd = memfd,
	    .body = {.shm_offset = offset, .len = len, .flags = 1},
	};

	return add_request(vu, &r);
}

int vu_shmem_unmap(struct vhost_user *vu, uint32_t tag, uint64_t offset, uint64_t len)
{
	struct vu_request r = {
	    .id = SHMEM_UNMAP,
	    .tag = tag,
	    .memfd = -1,
	    .body = {.shm_offset = offset, .len = len},
	};

	return add_request(vu, &r);
}

/* Receives into buf until `want` bytes are there. Returns 1 if they are, 0 to go on later, -1 at
 * the end. */
static int receive(int fd, void *buf, size_t want, size_t *got, int *fds, unsigned *nfds)
{
	int new_fds[SOCK_MAX_FDS];
	unsigned n_new;
	ssize_t n;

	n = sock_recv(fd, (unsigned char *)buf + *got, want - *got, new_fds, &n_new);
	if (n == -EAGAIN)
		return 0;
	if (n <= 0 || n_new > VU_MAX_FDS - *nfds) {
		sock_close_fds(new_fds, n_new);
		return -1;
	}
	memcpy(fds + *nfds, new_fds, n_new * sizeof(int));
	*nfds += n_new;
	*got += (size_t)n;
	return *got == want;
}

/* One answer of the front end, or a part of it. */
static void on_backend(struct source *src, uint32_t events)
{
	struct vhost_user *vu = container_of(src, struct vhost_user, backend);
	struct {
		struct vu_header h;
		uint64_t value;
	} __attribute__((packed)) msg;
	struct vu_request *r = vu->requests;
	int fds[VU_MAX_FDS];
	unsigned nfds = 0;
	int ret;

	if (events & EPOLLOUT)
		send_requests(vu);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	memcpy(&msg.h, &vu->reply, sizeof(msg.h));
	memcpy(&msg.value, &vu->reply_value, sizeof(msg.value));
	ret = receive(src->fd, &msg, sizeof(msg), &vu->reply_got, fds, &nfds);
	sock_close_fds(fds, nfds);
	memcpy(&vu->reply, &msg.h, sizeof(msg.h));
	memcpy(&vu->reply_value, &msg.value, sizeof(msg.value));
	if (!ret)
		return;
	if (ret < 0 || !r || !r->sent || msg.h.request != r->id || msg.h.size != sizeof(uint64_t) ||
	    !(msg.h.flags & F_REPLY)) {
		vu_disconnect(vu, "a wrong answer on the back-end channel, or its end");
		return;
	}
	vu->reply_got = 0;
	vu->requests = r->next;
	vu->in_flight--;
	send_requests(vu);
	if (!r->forgotten)
		vu->ops->shmem_done(vu, r->id == SHMEM_MAP, r->tag, msg.value ? -EREMOTEIO : 0);
	free(r);
}

void vu_tick(struct vhost_user *vu, uint64_t now)
{
	const struct vu_request *r = vu->requests;

	if (!r || !r->sent)
		return;
	if (r->deadline <= now)
		vu_disconnect(vu, "it does not answer on the back-end channel");
	else
		loop_at(vu->loop, r->deadline);
}

/* Messages of the front end. Each handler returns NULL, or why the connection has to end. */

/* True if the payload has exactly this size. */
static bool sized(const struct vhost_user *vu, size_t size)
{
	return vu->in.size == size;
}

static uint64_t in_u64(const struct vhost_user *vu)
{
	uint64_t v;

	memcpy(&v, vu->in_body, sizeof(v));
	return v;
}

static const char *set_features(struct vhost_user *vu)
{
	uint64_t v = in_u64(vu);

	if (v & ~FEATURES)
		return "it sets device features that were not offered";
	vu->features = v;
	/* Without protocol features there is no SET_VRING_ENABLE. */
	if (!(v & 1ull << VHOST_USER_F_PROTOCOL_FEATURES)) {
		for (uint32_t i = 0; i < vu->nqueues; i++)
			vu->q[i].enabled = true;
	}
	return NULL;
}

static const char *set_protocol_features(struct vhost_user *vu)
{
	uint64_t v = in_u64(vu);

	if (v & ~PROTOCOL)
		return "it sets protocol features that were not offered";
	vu->protocol = v;
	if (!(v & 1ull << PROTOCOL_SHMEM))
		log_warn("vhost-user: this QEMU cannot map channels: use the one that "
			 "qemu-patches/ builds");
	return NULL;
}

static const char *set_mem_table(struct vhost_user *vu)
{
	struct mem_table t;
	size_t head = offsetof(struct mem_table, r);
	unsigned given = vu->in_nfds;
	int err = 0;

	memset(&t, 0, sizeof(t));
	if (vu->in.size < head || vu->in.size > sizeof(t))
		return "malformed SET_MEM_TABLE";
	memcpy(&t, vu->in_body, vu->in.size);
	if (t.n > VU_MAX_FDS || vu->in.size < head + t.n * sizeof(t.r[0]) || t.n != given)
		return "malformed SET_MEM_TABLE";
	guestmem_clear(&vu->mem);
	vu->in_nfds = 0; /* guestmem_add() takes them, also when it fails */
	for (uint32_t i = 0; i < t.n; i++) {
		int e = guestmem_add(&vu->mem, t.r[i].gpa, t.r[i].size, t.r[i].uva, t.r[i].offset,
				     vu->in_fds[i]);

		err = err ? err : e;
	}
	return err ? "impossible regions in SET_MEM_TABLE" : NULL;
}

static const char *add_mem_reg(struct vhost_user *vu)
{
	struct mem_single m;
	int fd;

	if (!sized(vu, sizeof(m)) || vu->in_nfds != 1)
		return "malformed ADD_MEM_REG";
	memcpy(&m, vu->in_body, sizeof(m));
	fd = vu->in_fds[0];
	vu->in_nfds = 0;
	if (guestmem_add(&vu->mem, m.r.gpa, m.r.size, m.r.uva, m.r.offset, fd))
		return "impossible region in ADD_MEM_REG, or too many";
	return NULL;
}

static const char *rem_mem_reg(struct vhost_user *vu)
{
	struct mem_single m;

	if (!sized(vu, sizeof(m)))
		return "malformed REM_MEM_REG";
	memcpy(&m, vu->in_body, sizeof(m));
	/* Some front ends send the descriptor again; it is closed with the message. */
	if (guestmem_remove(&vu->mem, m.r.gpa, m.r.size, m.r.uva))
		return "REM_MEM_REG for a region that is not there";
	return NULL;
}

/* The ring that a struct vring_state names, or NULL. */
static struct virtqueue *ring_of_state(struct vhost_user *vu, struct vring_state *s)
{
	if (!sized(vu, sizeof(*s)))
		return NULL;
	memcpy(s, vu->in_body, sizeof(*s));
	return s->index < vu->nqueues ? &vu->q[s->index] : NULL;
}

static const char *set_vring_num(struct vhost_user *vu)
{
	struct vring_state s;
	struct virtqueue *q = ring_of_state(vu, &s);

	if (!q || q->started || !s.num || s.num > VIRTQ_MAX_SIZE || (s.num & (s.num - 1)))
		return "malformed SET_VRING_NUM";
	q->num = s.num;
	return NULL;
}

static const char *set_vring_base(struct vhost_user *vu)
{
	struct vring_state s;
	struct virtqueue *q = ring_of_state(vu, &s);

	if (!q || q->started || s.num > UINT16_MAX)
		return "malformed SET_VRING_BASE";
	q->index = (uint16_t)s.num;
	return NULL;
}

static const char *set_vring_addr(struct vhost_user *vu)
{
	struct vring_addr a;

	if (!sized(vu, sizeof(a)))
		return "malformed SET_VRING_ADDR";
	memcpy(&a, vu->in_body, sizeof(a));
	if (a.index >= vu->nqueues)
		return "SET_VRING_ADDR for a ring that does not exist";
	vu->q[a.index].desc = a.desc;
	vu->q[a.index].avail = a.avail;
	vu->q[a.index].used = a.used;
	return NULL;
}

static const char *get_vring_base(struct vhost_user *vu)
{
	struct vring_state s;
	struct virtqueue *q = ring_of_state(vu, &s);

	if (!q)
		return "malformed GET_VRING_BASE";
	s.num = q->index;
	stop_ring(vu, s.index);
	return reply(vu, &s, sizeof(s)) ? NULL : "it does not read";
}

static const char *set_vring_enable(struct vhost_user *vu)
{
	struct vring_state s;
	struct virtqueue *q = ring_of_state(vu, &s);

	if (!q || s.num > 1)
		return "malformed SET_VRING_ENABLE";
	q->enabled = s.num;
	vu->ops->ring_changed(vu, s.index);
	return NULL;
}

/* SET_VRING_KICK, _CALL and _ERR. */
static const char *set_vring_fd(struct vhost_user *vu)
{
	uint64_t v;
	uint32_t index;

	if (!sized(vu, sizeof(v)))
		return "malformed SET_VRING_KICK, _CALL or _ERR";
	v = in_u64(vu);
	index = v & RING_INDEX_MASK;
	if (index >= vu->nqueues || vu->in_nfds != !(v & RING_NO_FD))
		return "malformed SET_VRING_KICK, _CALL or _ERR";
	if (vu->in.request == SET_VRING_ERR)
		return NULL; /* errors are told by the log */
	if (vu->in.request == SET_VRING_KICK) {
		/* The owner must not watch a descriptor that is about to be closed. */
		vu->q[index].started = false;
		vu->ops->ring_changed(vu, index);
		take_ring_fd(vu, &vu->q[index].kick);
		vu->q[index].started = true;
	} else {
		take_ring_fd(vu, &vu->q[index].call);
	}
	vu->ops->ring_changed(vu, index);
	return NULL;
}

static const char *set_backend_req_fd(struct vhost_user *vu)
{
	int fd;

	if (vu->in_nfds != 1)
		return "SET_BACKEND_REQ_FD without a descriptor";
	fd = vu->in_fds[0];
	vu->in_nfds = 0;
	close_backend(vu);
	if (loop_add(vu->loop, &vu->backend, fd, EPOLLIN, on_backend)) {
		close(fd);
		return "a back-end channel that is no socket";
	}
	return NULL;
}

static const char *get_shmem_config(struct vhost_user *vu)
{
	struct vu_shmem_config c = {.nregions = 1, .sizes = {vu->window_size}};

	return reply(vu, &c, sizeof(c)) ? NULL : "it does not read";
}

static const char *answer_u64(struct vhost_user *vu, uint64_t v)
{
	return reply_u64(vu, v) ? NULL : "it does not read";
}

/* True for requests whose answer is not an acknowledgement. */
static bool has_answer(uint32_t request)
{
	return request == GET_FEATURES || request == GET_PROTOCOL_FEATURES ||
	       request == GET_QUEUE_NUM || request == GET_VRING_BASE ||
	       request == GET_MAX_MEM_SLOTS || request == GET_SHMEM_CONFIG;
}

static const char *handle(struct vhost_user *vu, bool *unknown)
{
	switch (vu->in.request) {
	case GET_FEATURES:
		return answer_u64(vu, FEATURES);
	case SET_FEATURES:
		return sized(vu, 8) ? set_features(vu) : "malformed SET_FEATURES";
	case GET_PROTOCOL_FEATURES:
		return answer_u64(vu, PROTOCOL);
	case SET_PROTOCOL_FEATURES:
		return sized(vu, 8) ? set_protocol_features(vu) : "malformed SET_PROTOCOL_FEATURES";
	case SET_OWNER:
	case RESET_OWNER:
		return NULL;
	case SET_MEM_TABLE:
		return set_mem_table(vu);
	case ADD_MEM_REG:
		return add_mem_reg(vu);
	case REM_MEM_REG:
		return rem_mem_reg(vu);
	case GET_MAX_MEM_SLOTS:
		return answer_u64(vu, GUESTMEM_MAX);
	case SET_VRING_NUM:
		return set_vring_num(vu);
	case SET_VRING_BASE:
		return set_vring_base(vu);
	case SET_VRING_ADDR:
		return set_vring_addr(vu);
	case GET_VRING_BASE:
		return get_vring_base(vu);
	case SET_VRING_ENABLE:
		return set_vring_enable(vu);
	case SET_VRING_KICK:
	case SET_VRING_CALL:
	case SET_VRING_ERR:
		return set_vring_fd(vu);
	case GET_QUEUE_NUM:
		return answer_u64(vu, vu->nqueues);
	case SET_BACKEND_REQ_FD:
		return set_backend_req_fd(vu);
	case GET_SHMEM_CONFIG:
		return get_shmem_config(vu);
	default:
		*unknown = true;
		return NULL;
	}
}

/* A message is complete. */
static void on_message(struct vhost_user *vu)
{
	uint32_t flags = vu->in.flags;
	uint32_t request = vu->in.request;
	bool unknown = false;
	const char *bad;

	/* What was negotiated before this message decides whether it is acknowledged. */
	if (!(vu->protocol & 1ull << PROTOCOL_REPLY_ACK))
		flags &= ~F_NEED_REPLY;
	bad = handle(vu, &unknown);
	if (unknown)
		log_peer(LOG_LEVEL_WARN, "vhost-user: request %u is not known", request);
	if (!bad && flags & F_NEED_REPLY && !has_answer(request) && !reply_u64(vu, unknown))
		bad = "it does not read";
	sock_close_fds(vu->in_fds, vu->in_nfds); /* those that nobody took */
	vu->in_nfds = 0;
	vu->in_got = 0;
	if (bad)
		vu_disconnect(vu, bad);
}

static void on_front_end(struct source *src, uint32_t events)
{
	struct vhost_user *vu = container_of(src, struct vhost_user, conn);
	size_t head = sizeof(vu->in);
	int ret;

	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	if (vu->in_got < head) {
		ret = receive(src->fd, &vu->in, head, &vu->in_got, vu->in_fds, &vu->in_nfds);
	} else {
		size_t got = vu->in_got - head;

		ret = receive(src->fd, vu->in_body, vu->in.size, &got, vu->in_fds, &vu->in_nfds);
		vu->in_got = head + got;
	}
	if (ret < 0) {
		vu_disconnect(vu, NULL);
		return;
	}
	if (vu->in_got < head)
		return;
	if ((vu->in.flags & VERSION_MASK) != VERSION || vu->in.size > sizeof(vu->in_body)) {
		vu_disconnect(vu, "malformed header");
		return;
	}
	if (vu->in_got == head + vu->in.size)
		on_message(vu);
}

static bool hung_up(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0;
}

static void on_accept(struct source *src, uint32_t events)
{
	struct vhost_user *vu = container_of(src, struct vhost_user, listener);
	int fd = sock_accept(src->fd, vu->spare_fd);

	if (fd < 0)
		return;
	/* The end of the front end before may not have been seen yet. */
	if (vu->conn.fd >= 0 && hung_up(vu->conn.fd))
		vu_disconnect(vu, NULL);
	if (vu->conn.fd >= 0) {
		log_warn("vhost-user: a second VM connected and was turned away");
		close(fd);
		return;
	}
	if (loop_add(vu->loop, &vu->conn, fd, EPOLLIN, on_front_end)) {
		close(fd);
		return;
	}
	vu->ops->connected(vu);
}

/* Everything but the fields up to window_size. Returns 0 or -errno. */
static int init(struct vhost_user *vu, int listen_fd)
{
	int err;

	vu->listener.fd = -1;
	vu->conn.fd = -1;
	vu->backend.fd = -1;
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		vu->q[i] = (struct virtqueue){.kick = -1, .call = -1};
	err = loop_add(vu->loop, &vu->listener, listen_fd, EPOLLIN, on_accept);
	if (err)
		close(listen_fd);
	return err;
}

int vu_open(struct vhost_user *vu, const char *path)
{
	int fd = sock_listen(path, SOCK_STREAM, 0600);

	return fd < 0 ? fd : init(vu, fd);
}

void vu_close(struct vhost_user *vu)
{
	int fd = vu->listener.fd;

	forget_front_end(vu);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		virtq_reset(&vu->q[i]);
	loop_del(vu->loop, &vu->listener);
	if (fd >= 0)
		close(fd);
}

bool vu_busy(const struct vhost_user *vu)
{
	return vu->in_got || vu->requests;
}

void vu_save(const struct vhost_user *vu, struct blob_out *out)
{
	blob_put_fd(out, vu->listener.fd);
	blob_put_fd(out, vu->conn.fd);
	blob_put_fd(out, vu->backend.fd);
	blob_put_u64(out, vu->features);
	blob_put_u64(out, vu->protocol);
	guestmem_save(&vu->mem, out);
	for (uint32_t i = 0; i < vu->nqueues; i++) {
		const struct virtqueue *q = &vu->q[i];

		blob_put_u32(out, q->num);
		blob_put_u64(out, q->desc);
		blob_put_u64(out, q->avail);
		blob_put_u64(out, q->used);
		blob_put_u32(out, q->index);
		blob_put_u32(out, q->started);
		blob_put_u32(out, q->enabled);
		blob_put_u32(out, q->broken != NULL);
		blob_put_fd(out, q->kick);
		blob_put_fd(out, q->call);
	}
}

static int load_rings(struct vhost_user *vu, struct blob_in *in)
{
	for (uint32_t i = 0; i < vu->nqueues; i++) {
		struct virtqueue *q = &vu->q[i];

		q->num = blob_get_u32(in);
		q->desc = blob_get_u64(in);
		q->avail = blob_get_u64(in);
		q->used = blob_get_u64(in);
		q->index = (uint16_t)blob_get_u32(in);
		q->started = blob_get_u32(in);
		q->enabled = blob_get_u32(in);
		if (blob_get_u32(in))
			q->broken = "it was before the broker's restart";
		q->kick = blob_get_fd(in);
		q->call = blob_get_fd(in);
	}
	return in->err;
}

int vu_load(struct vhost_user *vu, struct blob_in *in)
{
	int listener = blob_get_fd(in);
	int conn = blob_get_fd(in);
	int backend = blob_get_fd(in);
	int err;

	if (listener < 0)
		return -EBADMSG;
	err = init(vu, listener);
	if (err)
		return err;
	vu->features = blob_get_u64(in);
	vu->protocol = blob_get_u64(in);
	err = guestmem_load(&vu->mem, in);
	if (!err)
		err = load_rings(vu, in);
	if (!err && conn >= 0)
		err = loop_add(vu->loop, &vu->conn, conn, EPOLLIN, on_front_end);
	if (!err && backend >= 0)
		err = loop_add(vu->loop, &vu->backend, backend, EPOLLIN, on_backend);
	return err;
}
