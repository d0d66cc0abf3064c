/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fake.c - see fake.h. Two threads: the broker accepts one process at a time and gives it a channel and tickets, the agent
 * looks at all lanes every few microseconds, publishes what fake_agent says, and rings always.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "chan.h"
#include "fake.h"

struct fake_channel fake;
fake_answer *_Atomic fake_agent = fake_good;
_Atomic uint32_t fake_attached;
_Atomic uint32_t fake_status;
_Atomic uint32_t fake_silent;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t heads[SC_MAX_LANES];
static int listener;
static _Atomic int peer = -1;
static int ticket_peers[4096];
static uint32_t ntickets;

static void die(const char *what)
{
	perror(what);
	abort();
}

int fake_good(const struct sc_slot *s, struct sc_cqe *c, struct sc_lane *lane, uint32_t index)
{
	(void)lane;
	(void)index;
	switch (s->op) {
	case SC_OP_OPEN:
		c->res = 5;
		c->flags = 8u << SC_CQE_TYPE_SHIFT;
		break;
	case SC_OP_ROOT:
		c->res = 1;
		break;
	case SC_OP_READ:
		memset(fake.base + s->buf, 'r', s->len);
		c->res = s->len;
		break;
	case SC_OP_WRITE:
		c->res = s->len;
		break;
	case SC_OP_NOP:
		c->res = (int64_t)s->arg0;
		break;
	default:
		c->res = 0;
	}
	return 1;
}

static void lane_look(uint32_t i)
{
	struct sc_lane *l = (struct sc_lane *)(fake.base + fake.lay.lanes_off) + i;
	uint32_t tail = __atomic_load_n(&l->tail, __ATOMIC_ACQUIRE),
		 depth = 1u << (l->depth_log2 & 15);
	uint64_t one = 1;

	for (; heads[i] != tail; heads[i]++) {
		uint32_t at = i * fake.lay.entries;
		struct sc_slot s =
		    ((struct sc_slot *)(fake.base +
					fake.lay.slots_off))[at + (heads[i] & (depth - 1))];
		struct sc_cqe c = {.tag = s.tag};

		if (!fake_agent(&s, &c, l, i))
			continue;
		((struct sc_cqe *)(fake.base + fake.lay.cqes_off))[at + (l->done & (depth - 1))] =
		    c;
		__atomic_store_n(&l->done, l->done + 1, __ATOMIC_SEQ_CST);
		if (write(fake.kick, &one, sizeof(one)) < 0)
			die("kick");
	}
}

static void *agent(void *arg)
{
	(void)arg;
	for (;;) {
		pthread_mutex_lock(&lock);
		if (fake.base) {
			if (!fake_silent)
				__atomic_fetch_add(&fake.guest->heartbeat, 1, __ATOMIC_RELAXED);
			for (uint32_t i = 0; i < fake.lay.nlanes; i++)
				if (__atomic_load_n(&fake.host->lanes[i / 64], __ATOMIC_ACQUIRE) >>
					(i % 64) &
				    1)
					lane_look(i);
		}
		pthread_mutex_unlock(&lock);
		usleep(20);
	}
	return NULL;
}

/* Sends a message with descriptors and closes those. */
static void send_fds(int sock, const void *msg, size_t len, const int *fds, uint32_t n)
{
	char control[CMSG_SPACE(40 * sizeof(int))] = {0};
	struct iovec iov = {.iov_base = (void *)msg, .iov_len = len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	if (n) {
		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	if (sendmsg(sock, &m, MSG_NOSIGNAL) < 0 && errno != EPIPE)
		die("sendmsg");
	for (uint32_t i = 0; i < n; i++)
		close(fds[i]);
}

static uint32_t make_tickets(uint64_t *names, int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		int pair[2];

		if (ntickets == 4096 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
			return i;
		ticket_peers[ntickets++] = pair[0];
		fds[i] = pair[1];
		names[i] = (uint64_t)fake_attached << 32 | ntickets;
	}
	return n;
}

static void new_channel(struct sc_attach_rep *rep, int *fds)
{
	fds[0] = memfd_create("fake", MFD_CLOEXEC);
	if (fds[0] < 0 || ftruncate(fds[0], 4 << 20))
		die("memfd");
	pthread_mutex_lock(&lock);
	memset(&fake, 0, sizeof(fake));
	memset(heads, 0, sizeof(heads));
	if (sc_layout_init(&fake.lay, 4 << 20, 16, 32))
		abort();
	fake.base = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	fake.host = (struct sc_channel_host *)fake.base;
	fake.guest = (struct sc_channel_guest *)(fake.base + SC_PAGE);
	fake.host->incarnation = 1;
	fake.call = eventfd(0, EFD_CLOEXEC);
	fake.kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_unlock(&lock);
	fds[1] = dup(fake.call);
	fds[2] = dup(fake.kick);
	rep->layout = fake.lay;
}

static void attach(int sock, const struct sc_attach_req *req)
{
	struct sc_attach_rep rep = {
	    .h = {.magic = SC_ATTACH_MAGIC,
		  .type = SC_ATTACH_REP,
		  .seq = req->h.seq,
		  .len = sizeof(rep)},
	    .status = fake_status,
	    .abi = SC_ABI_VERSION,
	    .slot = 1,
	    .incarnation = 1,
	    .deadline_ms = FAKE_DEADLINE_MS,
	    .text = "refused by the test",
	};
	int fds[3 + SC_TICKETS_BATCH];

	if (rep.status) {
		send_fds(sock, &rep, sizeof(rep), fds, 0);
		return;
	}
	rep.session = ++fake_attached;
	new_channel(&rep, fds);
	rep.ntickets = make_tickets(rep.tickets, fds + 3, req->tickets);
	send_fds(sock, &rep, sizeof(rep), fds, 3 + rep.ntickets);
}

static void more_tickets(int sock, const struct sc_attach_tickets *q)
{
	struct sc_attach_tickets rep = {.h = {.magic = SC_ATTACH_MAGIC,
					      .type = SC_ATTACH_TICKETS_REP,
					      .seq = q->h.seq,
					      .len = sizeof(rep)}};
	int fds[SC_TICKETS_BATCH];

	rep.count = make_tickets(rep.tickets, fds, q->count);
	send_fds(sock, &rep, sizeof(rep), fds, rep.count);
}

static void no_segment(int sock, struct sc_attach_segment *q)
{
	q->h.type = SC_ATTACH_SEGMENT_REP;
	q->status = EIO;
	send_fds(sock, q, sizeof(*q), NULL, 0);
}

static void *client(void *arg)
{
	int sock = (int)(long)arg;
	uint64_t buf[SC_ATTACH_MSG_MAX / 8] = {0};
	struct sc_attach_hdr *h = (struct sc_attach_hdr *)buf;

	while (recv(sock, buf, sizeof(buf), 0) > 0) {
		if (h->type == SC_ATTACH_REQ)
			attach(sock, (struct sc_attach_req *)buf);
		else if (h->type == SC_ATTACH_TICKETS)
			more_tickets(sock, (struct sc_attach_tickets *)buf);
		else if (h->type == SC_ATTACH_SEGMENT)
			no_segment(sock, (struct sc_attach_segment *)buf);
	}
	return NULL;
}

static void *broker(void *arg)
{
	(void)arg;
	for (;;) {
		pthread_t t;

		int sock = accept(listener, NULL, NULL);

		if (sock < 0)
			die("accept");
		peer = sock;
		pthread_create(&t, NULL, client, (void *)(long)sock);
		pthread_detach(t);
	}
	return NULL;
}

void fake_hang_up(void)
{
	shutdown(peer, SHUT_RDWR);
}

void fake_start(void)
{
	static char dir[] = "/tmp/sc-fake.XXXXXX";
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	pthread_t t;

	if (!mkdtemp(dir))
		die("mkdtemp");
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/fake", dir);
	mkdir(a.sun_path, 0700);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/fake/attach.sock", dir);
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 16))
		die("listen");
	sc_chan_set_rundir(dir);
	pthread_create(&t, NULL, broker, NULL);
	pthread_create(&t, NULL, agent, NULL);
}
