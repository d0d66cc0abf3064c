/* SPDX-License-Identifier: BSD-3-Clause */
/* segment.c - memory that belongs to tickets; see segment.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blob.h"
#include "broker.h"
#include "log.h"
#include "sock.h"

static const struct segment SEGMENT_FREE = {.memfd = -1, .deadline = LOOP_NEVER};

static uint64_t slots_end(const struct broker *b)
{
	return (b->cfg->channels + 1) * b->cfg->slot_size;
}

uint64_t segment_area(const struct broker *b)
{
	uint64_t end = slots_end(b);

	if (b->cfg->loopback)
		return SEGMENT_LOOPBACK;
	return b->cfg->window_size > end ? b->cfg->window_size - end : 0;
}

/* The end of what segments may lie in. A loopback domain has room for its agent's own besides: twice, since a place is a
 * multiple of the size. */
static uint64_t area_end(const struct broker *b)
{
	uint64_t own = b->cfg->loopback ? 2 * (b->cfg->state_size + b->cfg->retain_size) : 0;

	return slots_end(b) + segment_area(b) + own;
}

static uint32_t index_of(const struct broker *b, const struct segment *s)
{
	return (uint32_t)(s - b->segments.v);
}

static void set_deadline(struct broker *b, struct segment *s, uint64_t ms)
{
	s->deadline = loop_now() + ms;
	loop_at(&b->loop, s->deadline);
}

/* ---- the table, and places ---- */

static struct segment *find(struct broker *b, uint32_t number)
{
	for (uint32_t i = 0; number && i < b->segments.cap; i++) {
		if (b->segments.v[i].number == number)
			return &b->segments.v[i];
	}
	return NULL;
}

static struct segment *find_ticket(struct broker *b, uint64_t ticket)
{
	for (uint32_t i = 0; ticket && i < b->segments.cap; i++) {
		struct segment *s = &b->segments.v[i];

		if (s->number && !s->ending && s->ticket == ticket)
			return s;
	}
	return NULL;
}

struct segment *segment_own(struct broker *b, uint32_t kind)
{
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		struct segment *s = &b->segments.v[i];

		if (s->number && s->own == kind + 1 && !s->ending)
			return s;
	}
	return NULL;
}

bool segment_own_taken(const struct broker *b)
{
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		const struct segment *s = &b->segments.v[i];

		if (s->number && s->own && !s->ending && !s->served)
			return false;
	}
	return true;
}

/* A free entry, or NULL: no memory. Entries may move. */
static struct segment *take_entry(struct segments *ss)
{
	uint32_t old = ss->cap;
	uint32_t cap = old ? old * 2 : 64;
	struct segment *bigger;

	for (uint32_t i = 0; i < ss->cap; i++) {
		if (!ss->v[i].number)
			return &ss->v[i];
	}
	bigger = realloc(ss->v, cap * sizeof(*ss->v));
	if (!bigger)
		return NULL;
	ss->v = bigger;
	for (uint32_t i = old; i < cap; i++)
		ss->v[i] = SEGMENT_FREE;
	ss->cap = cap;
	return &ss->v[old];
}

/* The end of a segment that overlaps [at, at + size), or 0: the place is free. */
static uint64_t in_the_way(const struct segments *ss, uint64_t at, uint64_t size)
{
	for (uint32_t i = 0; i < ss->cap; i++) {
		const struct segment *s = &ss->v[i];

		if (s->number && s->offset < at + size && at < s->offset + s->size)
			return s->offset + s->size;
	}
	return 0;
}

/* The lowest place for `size` bytes, or 0: none. (Place 0 is the state region's.) */
static uint64_t find_place(const struct broker *b, uint64_t size)
{
	uint64_t end = area_end(b);
	uint64_t at = (slots_end(b) + size - 1) & ~(size - 1);

	while (at + size <= end) {
		uint64_t next = in_the_way(&b->segments, at, size);

		if (!next)
			return at;
		at = (next + size - 1) & ~(size - 1);
	}
	return 0;
}

static uint64_t held_by_user(const struct broker *b, uid_t uid)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < b->segments.cap; i++) {
		const struct segment *s = &b->segments.v[i];

		if (s->number && s->ticket && s->uid == uid)
			bytes += s->size;
	}
	return bytes;
}

/* Makes a segment. Returns 0 or -errno. */
static int make(struct broker *b, uint64_t ticket, uid_t uid, uint64_t size, struct segment **out)
{
	uint64_t share = segment_area(b) / 4 * 3;
	uint64_t place = find_place(b, size);
	struct segment *s;
	int fd;

	/* root, and the agent, are limited by the area alone */
	if (!place || (ticket && uid && held_by_user(b, uid) + size > share))
		return -ENOBUFS;
	s = take_entry(&b->segments);
	if (!s)
		return -ENOMEM;
	fd = memfd_sealed("vhost-sc-segment", size,
			  (struct memory_kind){.node = b->cfg->memory.node});
	if (fd < 0)
		return fd;
	*s = (struct segment){
	    .number = ++b->segments.last_number,
	    .ticket = ticket,
	    .uid = uid,
	    .memfd = fd,
	    .offset = place,
	    .size = size,
	    .deadline = LOOP_NEVER,
	};
	b->segments.used++;
	b->segments.bytes += size;
	*out = s;
	return 0;
}

static void free_segment(struct broker *b, struct segment *s)
{
	close(s->memfd);
	b->segments.used--;
	b->segments.bytes -= s->size;
	*s = SEGMENT_FREE;
}

/* ---- the client ---- */

static void answer(struct client *c, uint32_t seq, const struct segment *s, int err)
{
	struct sc_attach_segment r = {
	    .h = {.magic = SC_ATTACH_MAGIC,
		  .type = SC_ATTACH_SEGMENT_REP,
		  .seq = seq,
		  .len = sizeof(r)},
	    .status = (uint32_t)-err,
	    .size = err ? 0 : s->size,
	    .ticket = err ? 0 : s->ticket,
	};

	client_reply(c, &r, sizeof(r), err ? NULL : &s->memfd, err ? 0 : 1);
}

/* Answers the client that waits for the segment, if one does. */
static void answer_waiting(struct segment *s, int err)
{
	struct client *c = s->client;

	s->client = NULL;
	s->deadline = LOOP_NEVER;
	if (c)
		answer(c, s->seq, s, err);
}

void segment_client_gone(struct broker *b, const struct client *c)
{
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		if (b->segments.v[i].client == c)
			b->segments.v[i].client = NULL;
	}
}

static bool size_ok(uint64_t size)
{
	return size >= SC_SEGMENT_MIN && size <= SC_SEGMENT_MAX && !(size & (size - 1));
}

/* ---- its way into the window, and out ---- */

/* Begins to map the memory, if it is to be mapped and is not. */
static void want_mapped(struct broker *b, struct segment *s)
{
	uint32_t index = index_of(b, s);
	int ret;

	if (s->map != MAP_NONE || !b->dom.link)
		return;
	s->map = MAP_PENDING;
	ret = b->tr->map(b, SEGMENT_TAG + index, s->memfd, s->offset, s->size);
	if (ret)
		segment_mapped(b, index, ret < 0 ? ret : 0);
}

static void announce(struct broker *b, struct segment *s)
{
	struct sc_msg_segment m = {
	    .h = {.type = SC_MSG_SEGMENT, .len = sizeof(m)},
	    .number = s->number,
	    .ticket = s->own ? s->own - 1 : s->ticket,
	    .offset = s->offset,
	    .size = s->size,
	};

	s->announced = true;
	domain_send(b, &m.h, &s->memfd, 1);
}

static void advance(struct broker *b, struct segment *s)
{
	uint32_t number = s->number;

	if (s->ending)
		return;
	want_mapped(b, s);
	/* want_mapped() may have been answered at once, in which case this was done already. */
	if (s->number != number || s->map != MAP_DONE || s->announced || !b->dom.incarnation ||
	    !(b->dom.agent.features & SC_F_SEGMENTS))
		return;
	announce(b, s);
}

/* Unmaps, then frees. */
static void let_go(struct broker *b, struct segment *s)
{
	uint32_t index = index_of(b, s);
	int ret;

	if (s->map == MAP_PENDING || s->map == MAP_UNPENDING)
		return; /* goes on when that is answered */
	if (s->map == MAP_NONE) {
		free_segment(b, s);
		return;
	}
	s->map = MAP_UNPENDING;
	s->deadline = LOOP_NEVER;
	ret = b->tr->unmap(b, SEGMENT_TAG + index, s->offset, s->size);
	if (ret)
		segment_unmapped(b, index, ret < 0 ? ret : 0);
}

/* Ends a segment whose ticket is gone, or that could not be made. */
static void end(struct broker *b, struct segment *s)
{
	struct sc_msg_segment_status m = {
	    .h = {.type = SC_MSG_SEGMENT_END, .len = sizeof(m)},
	    .number = s->number,
	};

	s->ending = true;
	s->ticket = 0;
	answer_waiting(s, -EIO);
	if (!s->announced) {
		let_go(b, s);
		domain_look(b);
		return;
	}
	set_deadline(b, s, b->cfg->detach_ms);
	domain_send(b, &m.h, NULL, 0);
	domain_look(b);
}

void segment_request(struct client *c, const struct sc_attach_segment *m, int fd)
{
	struct broker *b = c->b;
	uint64_t ticket = ticket_number(b, fd);
	struct segment *s = find_ticket(b, ticket);
	int err = 0;

	if (!ticket)
		err = -EBADF;
	else if (s && !s->served && (s->client || !b->dom.incarnation))
		err = b->dom.incarnation ? -EAGAIN : -EIO;
	else if (!s && !m->size)
		err = -ENOENT;
	else if (!s && !size_ok(m->size))
		err = -EINVAL;
	else if (!s && (b->dom.state != DOM_READY || b->restart ||
			!(b->dom.agent.features & SC_F_SEGMENTS)))
		err = b->restart ? -EAGAIN : -EIO;
	else if (!s)
		err = make(b, ticket, c->uid, m->size, &s);
	if (err || !s || s->served) {
		answer(c, m->h.seq, s, err);
		return;
	}
	s->client = c;
	s->seq = m->h.seq;
	set_deadline(b, s, SESSION_ATTACH_MS);
	advance(b, s);
}

void segment_ticket_gone(struct broker *b, uint64_t ticket)
{
	struct segment *s = find_ticket(b, ticket);

	if (s)
		s->ending = true; /* segment_flush_ends() goes on, after the RELEASE */
}

void segment_flush_ends(struct broker *b)
{
	if (b->dom.recovering)
		return; /* their RELEASEs wait, too */
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		struct segment *s = &b->segments.v[i];

		if (s->number && s->ending && s->ticket)
			end(b, s);
	}
}

/* Makes one of the agent's own if it is not there: as large as `size`, or as there is room for, but at least `min`. */
static bool have_own(struct broker *b, uint32_t kind, uint64_t size, uint64_t min)
{
	struct segment *s = segment_own(b, kind);
	uint64_t got = size;

	if (s || !size)
		return s;
	while (got >= min && make(b, 0, 0, got, &s))
		got /= 2;
	if (s)
		s->own = kind + 1;
	if (!s)
		log_warn("no memory of %" PRIu64
			 " KiB for what the agent keeps: the window of %" PRIu64
			 " MiB has no room beside its channels (see --window-size)",
			 min >> 10, b->cfg->window_size >> 20);
	else if (got < size)
		log_warn("the agent has %" PRIu64 " KiB to keep what it must, not %" PRIu64
			 ": the window has no more room beside its channels (see --window-size)",
			 got >> 10, size >> 10);
	return s;
}

uint32_t segment_make_own(struct broker *b)
{
	uint64_t can = b->dom.agent.features;
	uint32_t have = 0;

	if (!(can & SC_F_SEGMENTS))
		return 0;
	if (have_own(b, SC_OWN_IO, SEGMENT_IO, SC_SEGMENT_MIN))
		have |= 1u << SC_OWN_IO;
	if (!(can & SC_F_RECOVERY))
		return have;
	if (have_own(b, SC_OWN_STATE, b->cfg->state_size, SEGMENT_KEPT_MIN))
		have |= 1u << SC_OWN_STATE;
	if (b->cfg->role == SC_ROLE_STORAGE &&
	    have_own(b, SC_OWN_LOG, b->cfg->retain_size, SEGMENT_KEPT_MIN))
		have |= 1u << SC_OWN_LOG;
	return have;
}

void segment_advance_all(struct broker *b)
{
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		if (b->segments.v[i].number && b->segments.v[i].own)
			advance(b, &b->segments.v[i]);
	}
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		if (b->segments.v[i].number && !b->segments.v[i].own)
			advance(b, &b->segments.v[i]);
	}
}

void segment_mapped(struct broker *b, uint32_t index, int status)
{
	struct segment *s = index < b->segments.cap ? &b->segments.v[index] : NULL;

	if (!s || !s->number || s->map != MAP_PENDING)
		return;
	s->map = status ? MAP_NONE : MAP_DONE;
	if (s->ending) {
		if (!s->ticket)
			let_go(b, s);
		return;
	}
	if (!status) {
		advance(b, s);
		return;
	}
	log_error("segment %u: cannot map it into the window: %s", s->number, strerror(-status));
	end(b, s);
}

void segment_unmapped(struct broker *b, uint32_t index, int status)
{
	struct segment *s = index < b->segments.cap ? &b->segments.v[index] : NULL;

	if (!s || !s->number || s->map != MAP_UNPENDING)
		return;
	if (status)
		log_warn("segment %u: the window could not be unmapped: %s", s->number,
			 strerror(-status));
	s->map = MAP_NONE;
	if (s->ending)
		free_segment(b, s);
}

void segment_taken(struct broker *b, uint32_t number, int status)
{
	struct segment *s = find(b, number);

	if (!s || !s->announced || s->served || s->ending)
		return;
	if (status) {
		log_warn("segment %u: the agent could not take it: %s", number, strerror(-status));
		end(b, s);
		return;
	}
	s->served = true;
	answer_waiting(s, 0);
	domain_look(b);
}

void segment_ended(struct broker *b, uint32_t number)
{
	struct segment *s = find(b, number);

	if (!s || !s->ending || !s->announced)
		return;
	s->announced = false;
	let_go(b, s);
}

void segment_agent_gone(struct broker *b)
{
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		struct segment *s = &b->segments.v[i];
		bool announced = s->announced;

		if (!s->number)
			continue;
		s->announced = false;
		s->served = false;
		answer_waiting(s, -EIO);
		if (s->ending && announced)
			let_go(b, s);
	}
}

void segment_memory_gone(struct broker *b)
{
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		struct segment *s = &b->segments.v[i];

		if (!s->number)
			continue;
		s->map = MAP_NONE;
		if (s->ending && !s->announced && !s->ticket)
			free_segment(b, s);
	}
}

void segment_tick(struct broker *b, uint64_t now)
{
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		struct segment *s = &b->segments.v[i];

		if (!s->number)
			continue;
		if (s->deadline > now) {
			loop_at(&b->loop, s->deadline);
			continue;
		}
		s->deadline = LOOP_NEVER;
		if (!s->ending) {
			log_warn("segment %u: not mapped and taken in %u ms", s->number,
				 SESSION_ATTACH_MS);
			end(b, s);
		} else if (s->announced && !s->ticket) {
			log_warn("segment %u: the agent did not let go of it in %u ms; it is taken "
				 "away",
				 s->number, b->cfg->detach_ms);
			s->announced = false;
			let_go(b, s);
		}
	}
}

bool segment_busy(const struct broker *b)
{
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		const struct segment *s = &b->segments.v[i];

		if (s->number && (s->client || s->map == MAP_PENDING || s->map == MAP_UNPENDING))
			return true;
	}
	return false;
}

void segment_save(const struct broker *b, struct blob_out *out)
{
	blob_put_u32(out, b->segments.last_number);
	blob_put_u32(out, b->segments.used);
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		const struct segment *s = &b->segments.v[i];

		if (!s->number)
			continue;
		blob_put_u32(out, s->number);
		blob_put_u32(out, s->own);
		blob_put_u64(out, s->ticket);
		blob_put_u32(out, s->uid);
		blob_put_fd(out, s->memfd);
		blob_put_u64(out, s->offset);
		blob_put_u64(out, s->size);
		blob_put_u32(out, s->map);
		blob_put_u32(out, s->announced);
		blob_put_u32(out, s->served);
		blob_put_u32(out, s->ending);
		blob_put_u64(out, s->deadline);
	}
}

int segment_load(struct broker *b, struct blob_in *in)
{
	uint32_t count;

	b->segments.last_number = blob_get_u32(in);
	count = blob_get_u32(in);
	for (uint32_t i = 0; i < count && !in->err; i++) {
		struct segment *s = take_entry(&b->segments);

		if (!s)
			return -ENOMEM;
		*s = (struct segment){.number = blob_get_u32(in)};
		s->own = blob_get_u32(in);
		s->ticket = blob_get_u64(in);
		s->uid = blob_get_u32(in);
		s->memfd = blob_get_fd(in);
		s->offset = blob_get_u64(in);
		s->size = blob_get_u64(in);
		s->map = blob_get_u32(in);
		s->announced = blob_get_u32(in);
		s->served = blob_get_u32(in);
		s->ending = blob_get_u32(in);
		s->deadline = blob_get_u64(in);
		if (in->err || !s->number || s->memfd < 0)
			return -EBADMSG;
		b->segments.used++;
		b->segments.bytes += s->size;
		loop_at(&b->loop, s->deadline);
	}
	return in->err;
}

void segment_close_all(struct broker *b)
{
	for (uint32_t i = 0; i < b->segments.cap; i++) {
		if (b->segments.v[i].number)
			close(b->segments.v[i].memfd);
	}
	free(b->segments.v);
	b->segments = (struct segments){0};
}
