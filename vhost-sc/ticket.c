/* SPDX-License-Identifier: BSD-3-Clause */
/* ticket.c - tickets; see ticket.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blob.h"
#include "broker.h"
#include "log.h"

/* Descriptors that are kept for everything but tickets: sockets, and per channel memfd, connection,
 * pidfd, eventfds and regions of the guest's memory. */
#define FDS_RESERVED	 256
#define FDS_PER_CHANNEL	 8
#define TICKETS_PER_USER 4 /* a user other than root gets one part in so many of all tickets */

void ticket_init(struct broker *b)
{
	uint64_t reserved = FDS_RESERVED + (uint64_t)FDS_PER_CHANNEL * b->cfg->channels;

	b->tickets.free = TICKET_NONE;
	if (b->fd_limit < 2 * reserved)
		reserved = b->fd_limit / 2;
	b->tickets.limit = (uint32_t)(b->fd_limit - reserved);
}

static uint32_t take_entry(struct tickets *ts)
{
	struct ticket *bigger;
	uint32_t index = ts->free;
	uint32_t cap;

	if (index != TICKET_NONE) {
		ts->free = ts->v[index].next_free;
		return index;
	}
	cap = ts->cap ? ts->cap * 2 : 256;
	bigger = realloc(ts->v, cap * sizeof(*ts->v));
	if (!bigger)
		return TICKET_NONE;
	ts->v = bigger;
	for (uint32_t i = cap; i-- > ts->cap;) {
		ts->v[i] = (struct ticket){.next_free = ts->free};
		ts->free = i;
	}
	ts->cap = cap;
	return take_entry(ts);
}

static void free_entry(struct tickets *ts, uint32_t index)
{
	ts->v[index] = (struct ticket){.next_free = ts->free};
	ts->free = index;
}

/* The next number of the session, or 0 if all are held. */
static uint64_t next_number(const struct tickets *ts, struct slot *s)
{
	uint32_t unused;

	for (uint32_t i = 0; i < SC_MAX_TICKETS; i++) {
		uint64_t number;

		s->last_ticket = s->last_ticket % SC_MAX_TICKETS + 1;
		number = (uint64_t)s->session << 32 | s->last_ticket;
		if (!idmap_get(&ts->by_number, number, &unused))
			return number;
	}
	return 0;
}

/* A pair: *broker_end and *app_end with its cookie. Returns 0 or -errno. */
static int make_pair(int *broker_end, int *app_end, uint64_t *cookie)
{
	socklen_t len = sizeof(*cookie);
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return -errno;
	if (shutdown(pair[0], SHUT_RD) ||
	    getsockopt(pair[1], SOL_SOCKET, SO_COOKIE, cookie, &len)) {
		int err = -errno;

		close(pair[0]);
		close(pair[1]);
		return err;
	}
	*broker_end = pair[0];
	*app_end = pair[1];
	return 0;
}

/* Puts a ticket into the tables and under watch. Returns 0 or -errno. */
static int enter(struct broker *b, const struct ticket *t, uint32_t *where)
{
	struct tickets *ts = &b->tickets;
	uint32_t index = take_entry(ts);
	int err;

	if (index == TICKET_NONE)
		return -ENOMEM;
	err = idmap_put(&ts->by_number, t->number, index);
	if (err)
		goto fail_entry;
	err = idmap_put(&ts->by_cookie, t->cookie, index);
	if (err)
		goto fail_number;
	err = hangup_watch(b, HANGUP_TICKET, index, t->fd);
	if (err)
		goto fail_cookie;
	ts->v[index] = *t;
	ts->used++;
	*where = index;
	return 0;

fail_cookie:
	idmap_del(&ts->by_cookie, t->cookie);
fail_number:
	idmap_del(&ts->by_number, t->number);
fail_entry:
	free_entry(ts, index);
	return err;
}

static void forget(struct broker *b, uint32_t index)
{
	struct tickets *ts = &b->tickets;
	struct ticket *t = &ts->v[index];

	hangup_unwatch(b, t->fd);
	close(t->fd);
	idmap_del(&ts->by_number, t->number);
	idmap_del(&ts->by_cookie, t->cookie);
	ts->used--;
	free_entry(ts, index);
}

static uint32_t held_by_user(const struct tickets *ts, uid_t uid)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < ts->cap; i++)
		n += ts->v[i].number && ts->v[i].uid == uid;
	return n;
}

/* How many of `count` more tickets the limits allow this user. */
static uint32_t allowed(const struct tickets *ts, uid_t uid, uint32_t count)
{
	uint32_t room = ts->limit > ts->used ? ts->limit - ts->used : 0;
	uint32_t share = ts->limit / TICKETS_PER_USER;

	/* Counting is needed only when the user could be near his share. */
	if (uid && ts->used + count > share) {
		uint32_t held = held_by_user(ts, uid);

		if (share < held + count)
			count = share > held ? share - held : 0;
	}
	return count < room ? count : room;
}

uint32_t ticket_make(struct broker *b, struct slot *s, uint32_t count, uint64_t *numbers, int *fds)
{
	uint32_t n = 0;

	count = allowed(&b->tickets, s->uid, count);
	for (; n < count; n++) {
		struct ticket t = {.uid = s->uid};
		uint32_t index;

		t.number = next_number(&b->tickets, s);
		if (!t.number || make_pair(&t.fd, &fds[n], &t.cookie))
			break;
		if (enter(b, &t, &index)) {
			close(t.fd);
			close(fds[n]);
			break;
		}
		numbers[n] = t.number;
		b->tickets.issued++;
	}
	return n;
}

void ticket_unmake(struct broker *b, const uint64_t *numbers, uint32_t count)
{
	uint32_t index;

	for (uint32_t i = 0; i < count; i++) {
		if (idmap_get(&b->tickets.by_number, numbers[i], &index))
			forget(b, index);
	}
}

void ticket_set_name(struct broker *b, uint32_t session, const struct sc_ticket_name *name)
{
	uint32_t index;

	if (name->ticket >> 32 != session)
		return;
	if (idmap_get(&b->tickets.by_number, name->ticket, &index))
		b->tickets.v[index].name = *name;
}

/* The entry of the ticket that fd is. False: it is none. */
static bool look_up(const struct broker *b, int fd, uint32_t *index)
{
	socklen_t len = sizeof(uint64_t);
	uint64_t cookie = 0;

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0 &&
	       idmap_get(&b->tickets.by_cookie, cookie, index);
}

uint64_t ticket_number(const struct broker *b, int fd)
{
	uint32_t index;

	return look_up(b, fd, &index) ? b->tickets.v[index].number : 0;
}

bool ticket_claim(struct broker *b, int fd, struct sc_ticket_name *name)
{
	uint32_t index;

	memset(name, 0, sizeof(*name));
	if (!look_up(b, fd, &index))
		return false;
	*name = b->tickets.v[index].name;
	return true;
}

void ticket_name_held(struct broker *b, int fd, const struct sc_ticket_name *name)
{
	struct ticket *t;
	uint32_t index;

	if (!look_up(b, fd, &index))
		return;
	t = &b->tickets.v[index];
	if (!t->name.ticket && t->number == name->ticket)
		t->name = *name;
}

void ticket_hangup(struct broker *b, uint32_t index)
{
	uint64_t number;

	if (index >= b->tickets.cap || !b->tickets.v[index].number)
		return;
	number = b->tickets.v[index].number;
	forget(b, index);
	b->tickets.hangups++;
	domain_release(b, number);
	segment_ticket_gone(b, number);
}

void ticket_save(const struct broker *b, struct blob_out *out)
{
	const struct tickets *ts = &b->tickets;

	blob_put_u64(out, ts->issued);
	blob_put_u64(out, ts->hangups);
	blob_put_u32(out, ts->used);
	for (uint32_t i = 0; i < ts->cap; i++) {
		const struct ticket *t = &ts->v[i];

		if (!t->number)
			continue;
		blob_put_u64(out, t->number);
		blob_put_u64(out, t->cookie);
		blob_put_fd(out, t->fd);
		blob_put_u32(out, t->uid);
		blob_put_bytes(out, &t->name, sizeof(t->name));
	}
}

int ticket_load(struct broker *b, struct blob_in *in)
{
	uint32_t count;

	b->tickets.issued = blob_get_u64(in);
	b->tickets.hangups = blob_get_u64(in);
	count = blob_get_u32(in);
	for (uint32_t i = 0; i < count && !in->err; i++) {
		struct ticket t = {0};
		uint32_t index;
		int err;

		t.number = blob_get_u64(in);
		t.cookie = blob_get_u64(in);
		t.fd = blob_get_fd(in);
		t.uid = blob_get_u32(in);
		blob_get_bytes(in, &t.name, sizeof(t.name));
		if (in->err || !t.number || !t.cookie)
			return -EBADMSG;
		err = enter(b, &t, &index);
		if (err)
			return err;
	}
	return in->err;
}

void ticket_close_all(struct broker *b)
{
	struct tickets *ts = &b->tickets;

	for (uint32_t i = 0; i < ts->cap; i++) {
		if (ts->v[i].number)
			close(ts->v[i].fd);
	}
	free(ts->v);
	idmap_free(&ts->by_number);
	idmap_free(&ts->by_cookie);
	ts->v = NULL;
	ts->cap = 0;
	ts->used = 0;
}
