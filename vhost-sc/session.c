/* SPDX-License-Identifier: BSD-3-Clause */
/* session.c - window slots and sessions; see session.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blob.h"
#include "broker.h"
#include "log.h"

int session_init(struct broker *b)
{
	struct sessions *ss = &b->sessions;

	ss->slots = calloc(b->cfg->channels + 1, sizeof(*ss->slots));
	if (!ss->slots)
		return -ENOMEM;
	for (uint32_t i = 0; i <= b->cfg->channels; i++) {
		ss->slots[i].n = i;
		ss->slots[i].ch = CHANNEL_NONE;
		ss->slots[i].deadline = LOOP_NEVER;
	}
	return 0;
}

const char *session_state_name(enum slot_state state)
{
	static const char *const names[] = {
	    [SLOT_FREE] = "free", [SLOT_POOL] = "pool",		  [SLOT_ATTACHING] = "attaching",
	    [SLOT_LIVE] = "live", [SLOT_DETACHING] = "detaching",
	};

	return names[state];
}

uint32_t session_count_user(const struct broker *b, uid_t uid)
{
	uint32_t n = 0;

	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		const struct slot *s = &b->sessions.slots[i];

		n += (s->state == SLOT_ATTACHING || s->state == SLOT_LIVE) && s->uid == uid;
	}
	return n;
}

bool session_all_served(const struct broker *b)
{
	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		const struct slot *s = &b->sessions.slots[i];

		if (s->state == SLOT_LIVE && !s->served && !s->failed)
			return false;
	}
	return true;
}

static void set_deadline(struct broker *b, struct slot *s, uint64_t ms)
{
	s->deadline = loop_now() + ms;
	loop_at(&b->loop, s->deadline);
}

/* Makes the memory of a FREE slot, which becomes POOL. Returns 0 or -errno. */
static int make_channel(struct broker *b, struct slot *s)
{
	int err = channel_create(&s->ch, &b->cfg->layout, b->cfg->memory);

	if (err)
		return err;
	s->state = SLOT_POOL;
	return 0;
}

/* The slot is FREE again: its memory goes, whoever may still have it mapped. */
static void free_slot(struct broker *b, struct slot *s)
{
	channel_close(&s->ch);
	b->tr->slot_free(b, s->n);
	s->state = SLOT_FREE;
	s->map = MAP_NONE;
	s->session = 0;
	s->deadline = LOOP_NEVER;
	s->announced = false;
	s->served = false;
	s->freed_at = loop_now();
	session_fill_pool(b);
	client_serve_waiting(b);
}

/* Begins to map the slot's memory, if it is to be mapped and is not. */
static void want_mapped(struct broker *b, struct slot *s)
{
	int ret;

	if (s->map != MAP_NONE || !b->dom.link)
		return;
	s->map = MAP_PENDING;
	ret = b->tr->map(b, s->n, s->ch.memfd, s->n * b->cfg->slot_size, b->cfg->layout.size);
	if (ret)
		session_mapped(b, s, ret < 0 ? ret : 0);
}

/* Unmaps, then frees. */
static void let_go(struct broker *b, struct slot *s)
{
	int ret;

	s->state = SLOT_DETACHING;
	if (s->map == MAP_PENDING || s->map == MAP_UNPENDING)
		return; /* goes on when that is answered */
	if (s->map == MAP_NONE) {
		free_slot(b, s);
		return;
	}
	s->map = MAP_UNPENDING;
	set_deadline(b, s, SESSION_UNMAP_MS);
	ret = b->tr->unmap(b, s->n, s->n * b->cfg->slot_size, b->cfg->layout.size);
	if (ret)
		session_unmapped(b, s, ret < 0 ? ret : 0);
}

/* Lower is better; see session.h. */
static unsigned rank(const struct slot *s, uid_t uid)
{
	unsigned r = s->state == SLOT_POOL ? 0 : 1;

	if (s->used_before && s->last_uid != uid)
		r += 2;
	return r;
}

static struct slot *choose(struct broker *b, uid_t uid)
{
	struct slot *best = NULL;

	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		struct slot *s = &b->sessions.slots[i];

		if (s->state != SLOT_FREE && s->state != SLOT_POOL)
			continue;
		if (!best || rank(s, uid) < rank(best, uid) ||
		    (rank(s, uid) == rank(best, uid) && s->freed_at < best->freed_at))
			best = s;
	}
	return best;
}

static bool any_detaching(const struct broker *b)
{
	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		if (b->sessions.slots[i].state == SLOT_DETACHING)
			return true;
	}
	return false;
}

bool session_begin(struct broker *b, struct client *c)
{
	struct slot *s = choose(b, c->uid);
	int err;

	if (!s) {
		process_leave(b, c->process);
		if (any_detaching(b))
			return false;
		client_attach_failed(
		    c, SC_ATTACH_FULL,
		    "domain %s has no free channel: all %u are in use; end a program that "
		    "uses it, or start its broker with more --channels",
		    b->cfg->name, b->cfg->channels);
		return true;
	}
	err = s->state == SLOT_FREE ? make_channel(b, s) : 0;
	if (err) {
		process_leave(b, c->process);
		client_attach_failed(
		    c, SC_ATTACH_ERROR, "cannot make a channel of %u MiB: %s%s",
		    b->cfg->layout.size >> 20, strerror(-err),
		    b->cfg->memory.huge ? " (raise vm.nr_hugepages, or leave out --huge)" : "");
		return true;
	}
	s->state = SLOT_ATTACHING;
	s->session = ++b->sessions.last_session;
	s->process = c->process;
	s->uid = c->uid;
	s->gid = c->gid;
	s->ngroups = c->ngroups;
	memcpy(s->groups, c->groups, c->ngroups * sizeof(*c->groups));
	s->features = c->features;
	s->last_ticket = 0;
	s->failed = false;
	s->client = c;
	s->used_before = true;
	s->last_uid = c->uid;
	c->slot = s;
	channel_label(&s->ch, s->session, s->n);
	set_deadline(b, s, SESSION_ATTACH_MS);
	b->sessions.live++;
	b->sessions.begun++;
	session_advance(b, s);
	return true;
}

static void announce(struct broker *b, struct slot *s, int call, int kick)
{
	struct process *p = &b->procs.v[s->process];
	struct sc_msg_attach m = {
	    .h = {.type = SC_MSG_ATTACH, .len = sizeof(m), .slot = s->n},
	    .layout = b->cfg->layout,
	    .session = s->session,
	    .process = p->number,
	    .pid = (uint32_t)p->pid,
	    .uid = s->uid,
	    .gid = s->gid,
	    .ngroups = s->ngroups,
	    .features = s->features,
	};
	int fds[] = {s->ch.memfd, call, kick};

	memcpy(m.groups, s->groups, s->ngroups * sizeof(*s->groups));
	/* Before sending: if the link breaks in it, session_agent_gone() takes this back. */
	s->announced = true;
	domain_send(b, &m.h, fds, 3);
}

/* Ends an attach that did not get to its reply. */
static void fail_attach(struct broker *b, struct slot *s, const char *why)
{
	struct client *c = s->client;

	session_end(b, s);
	if (c)
		client_attach_failed(c, SC_ATTACH_ERROR, "domain %s: %s", b->cfg->name, why);
}

void session_advance(struct broker *b, struct slot *s)
{
	int call;
	int kick;
	int err;

	if (s->state == SLOT_POOL)
		want_mapped(b, s);
	if (s->state != SLOT_ATTACHING && s->state != SLOT_LIVE)
		return;
	want_mapped(b, s);
	/* want_mapped() may have been answered at once, in which case this was called already. */
	if (s->map != MAP_DONE || s->announced || !b->dom.incarnation || b->dom.recovering)
		return;
	err = b->tr->doorbell(b, s->n, &call, &kick);
	if (!err)
		announce(b, s, call, kick);
	else if (err != -EAGAIN && s->state == SLOT_ATTACHING)
		fail_attach(b, s, "its broker is out of descriptors (raise its LimitNOFILE)");
}

void session_advance_all(struct broker *b)
{
	for (uint32_t i = 1; i <= b->cfg->channels; i++)
		session_advance(b, &b->sessions.slots[i]);
}

void session_mapped(struct broker *b, struct slot *s, int status)
{
	if (s->map != MAP_PENDING)
		return;
	s->map = status ? MAP_NONE : MAP_DONE;
	if (s->state == SLOT_DETACHING) {
		let_go(b, s);
		return;
	}
	if (!status) {
		session_advance(b, s);
		return;
	}
	log_error("slot %u: cannot map the channel into the window: %s", s->n, strerror(-status));
	if (s->state == SLOT_ATTACHING) {
		fail_attach(b, s, "its VM could not map the channel; see the broker's log");
	} else if (s->state == SLOT_POOL) {
		channel_close(&s->ch);
		s->state = SLOT_FREE;
	}
}

void session_unmapped(struct broker *b, struct slot *s, int status)
{
	if (s->map != MAP_UNPENDING)
		return;
	if (status)
		log_warn("slot %u: the window could not be unmapped: %s", s->n, strerror(-status));
	s->map = MAP_NONE;
	if (s->state == SLOT_DETACHING)
		free_slot(b, s);
}

void session_attached(struct broker *b, struct slot *s, int status)
{
	if (!s->announced || s->served || (s->state != SLOT_ATTACHING && s->state != SLOT_LIVE))
		return;
	if (status) {
		log_warn("slot %u: the agent could not attach session %u: %s", s->n, s->session,
			 strerror(-status));
		if (s->state == SLOT_ATTACHING)
			fail_attach(b, s,
				    "its agent could not take the channel; see the broker's log");
		else
			s->failed = true;
		domain_look(b);
		return;
	}
	s->served = true;
	channel_set_incarnation(&s->ch, b->dom.incarnation);
	if (s->state == SLOT_LIVE) {
		client_event(s->client);
		domain_look(b);
		return;
	}
	s->state = SLOT_LIVE;
	s->deadline = LOOP_NEVER;
	client_attached(s->client);
	session_fill_pool(b);
}

void session_doorbell(struct broker *b, struct slot *s)
{
	session_advance(b, s);
	if (s->state == SLOT_LIVE && s->served)
		client_event(s->client);
}

void session_end(struct broker *b, struct slot *s)
{
	struct sc_msg_detach m = {
	    .h = {.type = SC_MSG_DETACH, .len = sizeof(m), .slot = s->n},
	    .session = s->session,
	};

	if (s->state != SLOT_ATTACHING && s->state != SLOT_LIVE)
		return;
	b->sessions.live--;
	object_session_gone(b, s->session);
	process_leave(b, s->process);
	if (s->client)
		s->client->slot = NULL;
	s->client = NULL;
	s->state = SLOT_DETACHING;
	s->deadline = LOOP_NEVER;
	if (s->announced) {
		set_deadline(b, s, b->cfg->detach_ms);
		domain_send(b, &m.h, NULL, 0);
	} else {
		let_go(b, s);
	}
	domain_look(b);
}

void session_end_process(struct broker *b, uint32_t process)
{
	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		struct slot *s = &b->sessions.slots[i];

		if ((s->state == SLOT_ATTACHING || s->state == SLOT_LIVE) && s->process == process)
			client_drop(s->client, NULL);
	}
}

void session_detached(struct broker *b, struct slot *s)
{
	if (s->state != SLOT_DETACHING || !s->announced)
		return;
	s->announced = false;
	let_go(b, s);
}

void session_agent_gone(struct broker *b)
{
	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		struct slot *s = &b->sessions.slots[i];
		struct client *c = s->client;
		bool announced = s->announced;

		s->announced = false;
		s->served = false;
		s->failed = false;
		if (s->state == SLOT_ATTACHING) {
			session_end(b, s);
			client_attach_again(c);
		} else if (s->state == SLOT_DETACHING && announced) {
			let_go(b, s);
		} else if (s->state == SLOT_LIVE) {
			channel_set_incarnation(&s->ch, 0);
			client_event(s->client);
		}
	}
}

void session_memory_gone(struct broker *b)
{
	for (uint32_t i = 0; i <= b->cfg->channels; i++) {
		struct slot *s = &b->sessions.slots[i];

		s->map = MAP_NONE;
		if (s->state == SLOT_DETACHING && !s->announced)
			free_slot(b, s);
	}
}

void session_fill_pool(struct broker *b)
{
	uint32_t have = 0;
	int err;

	for (uint32_t i = 1; i <= b->cfg->channels; i++)
		have += b->sessions.slots[i].state == SLOT_POOL;
	/* Huge pages are scarce: they are taken when they are needed. */
	while (have < SESSION_POOL && !b->cfg->memory.huge) {
		struct slot *best = NULL;

		for (uint32_t i = 1; i <= b->cfg->channels; i++) {
			struct slot *s = &b->sessions.slots[i];

			if (s->state == SLOT_FREE && (!best || s->freed_at < best->freed_at))
				best = s;
		}
		if (!best)
			return;
		err = make_channel(b, best);
		if (err) {
			log_peer(LOG_LEVEL_WARN, "cannot make a channel ahead: %s", strerror(-err));
			return;
		}
		have++;
		session_advance(b, best);
	}
}

void session_tick(struct broker *b, uint64_t now)
{
	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		struct slot *s = &b->sessions.slots[i];

		if (s->deadline > now) {
			loop_at(&b->loop, s->deadline);
			continue;
		}
		s->deadline = LOOP_NEVER;
		if (s->state == SLOT_ATTACHING) {
			fail_attach(b, s,
				    s->map != MAP_DONE ? "its VM did not map the channel in time"
				    : !s->announced
					? "its guest has set up no doorbell for the slot"
					: "its agent did not answer in time");
		} else if (s->state == SLOT_DETACHING && s->announced) {
			log_warn(
			    "slot %u: the agent did not detach session %u in %u ms; its memory is "
			    "taken away",
			    s->n, s->session, b->cfg->detach_ms);
			s->announced = false;
			let_go(b, s);
		} else if (s->state == SLOT_DETACHING) {
			log_warn(
			    "slot %u: not unmapped in %u ms; the slot is out of use until the VM "
			    "reconnects",
			    s->n, SESSION_UNMAP_MS);
		}
	}
}

bool session_busy(const struct broker *b)
{
	for (uint32_t i = 0; i <= b->cfg->channels; i++) {
		const struct slot *s = &b->sessions.slots[i];

		if (s->state == SLOT_ATTACHING || s->map == MAP_PENDING || s->map == MAP_UNPENDING)
			return true;
	}
	return false;
}

void session_save(const struct broker *b, struct blob_out *out)
{
	const struct sessions *ss = &b->sessions;

	blob_put_u32(out, ss->last_session);
	blob_put_u64(out, ss->begun);
	for (uint32_t i = 0; i <= b->cfg->channels; i++) {
		const struct slot *s = &ss->slots[i];

		blob_put_u32(out, s->state);
		blob_put_u32(out, s->map);
		blob_put_fd(out, s->ch.memfd);
		blob_put_u32(out, s->used_before);
		blob_put_u32(out, s->last_uid);
		blob_put_u64(out, s->freed_at);
		blob_put_u32(out, s->session);
		blob_put_u32(out, s->announced);
		blob_put_u64(out, s->deadline);
		if (s->state != SLOT_LIVE)
			continue;
		blob_put_u32(out, s->process);
		blob_put_u32(out, s->uid);
		blob_put_u32(out, s->gid);
		blob_put_u32(out, s->ngroups);
		blob_put_bytes(out, s->groups, s->ngroups * sizeof(*s->groups));
		blob_put_u64(out, s->features);
		blob_put_u32(out, s->last_ticket);
		blob_put_u32(out, s->served);
		blob_put_u32(out, s->failed);
	}
}

static int load_slot(struct broker *b, struct slot *s, struct blob_in *in)
{
	int memfd;
	int err;

	s->state = blob_get_u32(in);
	s->map = blob_get_u32(in);
	memfd = blob_get_fd(in);
	s->used_before = blob_get_u32(in);
	s->last_uid = blob_get_u32(in);
	s->freed_at = blob_get_u64(in);
	s->session = blob_get_u32(in);
	s->announced = blob_get_u32(in);
	s->deadline = blob_get_u64(in);
	loop_at(&b->loop, s->deadline);
	if (in->err || s->state > SLOT_DETACHING)
		return -EBADMSG;
	if (memfd >= 0) {
		err = channel_adopt(&s->ch, memfd, &b->cfg->layout, b->cfg->memory.huge);
		if (err)
			return err;
	}
	if (s->state != SLOT_LIVE)
		return 0;
	b->sessions.live++;
	s->process = blob_get_u32(in);
	s->uid = blob_get_u32(in);
	s->gid = blob_get_u32(in);
	s->ngroups = blob_get_u32(in);
	if (s->ngroups > SC_MAX_GROUPS || s->process >= b->procs.cap)
		return -EBADMSG;
	blob_get_bytes(in, s->groups, s->ngroups * sizeof(*s->groups));
	s->features = blob_get_u64(in);
	s->last_ticket = blob_get_u32(in);
	s->served = blob_get_u32(in);
	s->failed = blob_get_u32(in);
	return in->err;
}

int session_load(struct broker *b, struct blob_in *in)
{
	struct sessions *ss = &b->sessions;
	int err = 0;

	ss->last_session = blob_get_u32(in);
	ss->begun = blob_get_u64(in);
	for (uint32_t i = 0; i <= b->cfg->channels && !err; i++)
		err = load_slot(b, &ss->slots[i], in);
	return err;
}

void session_close_all(struct broker *b)
{
	struct sessions *ss = &b->sessions;

	for (uint32_t i = 1; ss->slots && i <= b->cfg->channels; i++)
		channel_close(&ss->slots[i].ch);
	free(ss->slots);
	ss->slots = NULL;
}
