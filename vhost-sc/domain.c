/* SPDX-License-Identifier: BSD-3-Clause */
/* domain.c - the agent and its messages; see domain.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "blob.h"
#include "broker.h"
#include "log.h"

#define DOMAIN_ENDS_KEPT 4096u	/* ends that were told and are kept, of each kind */
#define DOMAIN_RESUME_MS 30000u /* for a new agent to attach the sessions that there are */

int domain_init(struct broker *b)
{
	struct domain *d = &b->dom;

	snprintf(d->why, sizeof(d->why), "it has not been started");
	d->resume_by = LOOP_NEVER;
	if (getrandom(&d->epoch, sizeof(d->epoch), 0) != sizeof(d->epoch))
		return -EIO;
	d->state_fd = memfd_sealed("vhost-sc-state", SC_STATE_DEFAULT,
				   (struct memory_kind){.node = b->cfg->memory.node});
	return d->state_fd < 0 ? d->state_fd : 0;
}

void domain_close(struct broker *b)
{
	struct domain *d = &b->dom;

	if (d->state_fd >= 0)
		close(d->state_fd);
	d->state_fd = -1;
	free(d->releases);
	free(d->exits);
	free(d->info);
	d->releases = NULL;
	d->exits = NULL;
	d->info = NULL;
}

const char *domain_state_name(const struct domain *d)
{
	static const char *const names[] = {
	    [DOM_DOWN] = "down",
	    [DOM_STARTING] = "starting",
	    [DOM_READY] = "ready",
	    [DOM_QUIESCING] = "quiescing",
	};

	return d->hang.hung ? "hung" : names[d->state];
}

static void set_why(struct domain *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void set_why(struct domain *d, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d->why, sizeof(d->why), fmt, ap);
	va_end(ap);
}

/* Sends regardless of the state; the first messages go out before anybody serves. */
static void send_now(struct broker *b, struct sc_msg_hdr *msg, const int *fds, unsigned nfds)
{
	int err;

	msg->seq = ++b->dom.seq;
	err = b->tr->send(b, msg, fds, nfds);
	if (err)
		log_warn("message %u to the agent was lost: %s", msg->type, strerror(-err));
}

void domain_send(struct broker *b, struct sc_msg_hdr *msg, const int *fds, unsigned nfds)
{
	if (b->dom.incarnation)
		send_now(b, msg, fds, nfds);
}

/* The incarnation is over, if there was one. The next state is set by the caller, before. */
static void end_incarnation(struct broker *b)
{
	struct domain *d = &b->dom;

	d->greeted = false;
	d->quiesced = false;
	d->recovering = false;
	d->resuming = false;
	d->resume_by = LOOP_NEVER;
	hang_forget(b);
	if (!d->incarnation)
		return;
	log_info("incarnation %u is over: %s", d->incarnation, d->why);
	d->incarnation = 0;
	d->told_releases = d->told_exits = 0;
	d->ready_since = 0;
	object_agent_gone(b);
	segment_agent_gone(b);
	session_agent_gone(b);
}

void domain_peer(struct broker *b, bool there)
{
	struct domain *d = &b->dom;

	if (d->peer == there)
		return;
	d->peer = there;
	d->refused = false;
	if (there) {
		d->peer_since = loop_now();
		d->state = DOM_STARTING;
		set_why(d, "its agent has not reported yet");
		log_info("%s connected", b->tr->name);
		return;
	}
	d->link = false;
	d->state = DOM_DOWN;
	set_why(d, "the VM is not running");
	log_info("%s disconnected", b->tr->name);
	segment_memory_gone(b);
	session_memory_gone(b);
	end_incarnation(b);
	client_serve_waiting(b);
}

static void map_state_region(struct broker *b)
{
	struct slot *s = &b->sessions.slots[0];
	int ret;

	s->map = MAP_PENDING;
	ret = b->tr->map(b, 0, b->dom.state_fd, 0, SC_STATE_DEFAULT);
	if (ret)
		domain_mapped(b, 0, ret < 0 ? ret : 0);
}

void domain_link(struct broker *b, bool up)
{
	struct domain *d = &b->dom;

	if (d->link == up)
		return;
	d->link = up;
	if (!up) {
		d->peer_since = loop_now(); /* the boot that follows is timed from here */
		d->state = DOM_STARTING;
		if (!d->refused)
			set_why(d, "the guest is starting anew");
		segment_memory_gone(b);
		session_memory_gone(b);
		end_incarnation(b);
		return;
	}
	log_debug("link to the guest is up");
	map_state_region(b);
	segment_advance_all(b);
	session_advance_all(b);
	session_fill_pool(b);
}

static void refuse(struct broker *b, bool again, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* again: the guest's next boot will bring the same agent, so that nobody needs to wait for it. */
static void refuse(struct broker *b, bool again, const char *fmt, ...)
{
	struct sc_msg_log m = {
	    .h = {.type = SC_MSG_REFUSE, .len = sizeof(m)},
	    .level = LOG_LEVEL_ERROR,
	};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	va_end(ap);
	log_error("agent refused: %s", m.text);
	set_why(&b->dom, "its agent was refused: %.120s", m.text);
	send_now(b, &m.h, NULL, 0);
	b->dom.refused = again;
	if (again)
		client_serve_waiting(b);
}

static void refuse_version(struct broker *b, uint32_t abi)
{
	refuse(b, true, "agent speaks version %u, broker %u: use parts of the same release", abi,
	       SC_ABI_VERSION);
}

void domain_stranger(struct broker *b)
{
	if (!b->dom.incarnation)
		refuse(
		    b, false,
		    "the broker of domain %s was replaced and does not know this agent: start anew",
		    b->cfg->name);
}

/* Sends START once the state region is where the agent will look for it. */
static void start_agent(struct broker *b)
{
	struct domain *d = &b->dom;
	struct sc_msg_start m = {
	    .h = {.type = SC_MSG_START, .len = sizeof(m)},
	    .abi = SC_ABI_VERSION,
	    .features = d->agent.features & SC_FEATURES,
	    .epoch = d->epoch,
	    .state_size = SC_STATE_DEFAULT,
	};

	if (!d->greeted || b->sessions.slots[0].map != MAP_DONE)
		return;
	d->greeted = false;
	d->incarnation = ++d->last_incarnation;
	d->orderly = false;
	d->refused = false;
	d->recovering = true;
	set_why(d, "its agent takes over what was open");
	m.incarnation = d->incarnation;
	m.own = segment_make_own(b);
	send_now(b, &m.h, &d->state_fd, 1);
	segment_advance_all(b);
	loop_at(&b->loop, 0); /* watched from now on: hang_tick() */
	domain_look(b);
}

/* The agent knows what was: it gets the channels, and what has ended meanwhile. */
static void ready(struct broker *b)
{
	struct domain *d = &b->dom;

	d->recovering = false;
	d->ready_since = loop_now();
	d->resuming = true;
	d->resume_by = d->ready_since + DOMAIN_RESUME_MS;
	loop_at(&b->loop, d->resume_by);
	if (d->state == DOM_STARTING) { /* not told to shut down meanwhile */
		d->state = DOM_READY;
		d->why[0] = '\0';
	}
	log_info("incarnation %u serves: agent %s, kernel %s, %u pollers, %" PRIu64
		 " ms after it connected",
		 d->incarnation, d->agent.version, d->agent.kernel, d->agent.npollers,
		 d->ready_since - d->peer_since);
	object_agent_ready(b);
	session_advance_all(b);
	domain_flush_ends(b);
	segment_flush_ends(b);
	client_serve_waiting(b);
}

static void resumed(struct broker *b)
{
	struct sc_msg_hdr m = {.type = SC_MSG_RESUMED, .len = sizeof(m)};

	b->dom.resuming = false;
	b->dom.resume_by = LOOP_NEVER;
	if (b->dom.agent.features & SC_F_RECOVERY)
		domain_send(b, &m, NULL, 0);
}

void domain_look(struct broker *b)
{
	if (b->dom.incarnation && b->dom.recovering && segment_own_taken(b))
		ready(b);
	if (b->dom.incarnation && b->dom.resuming && session_all_served(b))
		resumed(b);
}

void domain_tick(struct broker *b, uint64_t now)
{
	struct domain *d = &b->dom;

	if (!d->resuming)
		return;
	if (d->resume_by > now) {
		loop_at(&b->loop, d->resume_by);
		return;
	}
	log_warn("not all sessions were attached within %u ms: what they have open is closed",
		 DOMAIN_RESUME_MS);
	resumed(b);
}

static void terminate(char *text, size_t size)
{
	text[size - 1] = '\0';
	log_clean(text);
}

static void on_hello(struct broker *b, const struct sc_msg_hello *m)
{
	struct domain *d = &b->dom;

	d->state = DOM_STARTING;
	d->refused = false;
	set_why(d, "its agent is starting");
	end_incarnation(b);
	if (m->abi != SC_ABI_VERSION) {
		refuse_version(b, m->abi);
	} else if (m->role != b->cfg->role) {
		refuse(b, true,
		       "agent has role %u, domain %s has %u: check the guest's command line",
		       m->role, b->cfg->name, b->cfg->role);
	} else if (m->num_channels && /* 0: there is no device (a loopback agent) */
		   (m->num_channels != b->cfg->channels || m->slot_size != b->cfg->slot_size)) {
		refuse(b, true,
		       "the device has %u channels in slots of %" PRIu64 " bytes, the broker %u in "
		       "%" PRIu64 ": give both the same num-channels and window-size",
		       m->num_channels, m->slot_size, b->cfg->channels, b->cfg->slot_size);
	} else {
		d->agent = *m;
		terminate(d->agent.version, sizeof(d->agent.version));
		terminate(d->agent.kernel, sizeof(d->agent.kernel));
		terminate(d->agent.modules, sizeof(d->agent.modules));
		d->greeted = true;
		if (b->sessions.slots[0].map == MAP_NONE)
			map_state_region(b); /* it was refused before: try again */
		else
			start_agent(b);
	}
}

static void on_log(const struct sc_msg_log *m)
{
	char text[sizeof(m->text)];
	enum log_level level = LOG_LEVEL_DEBUG;

	snprintf(text, sizeof(text), "%.*s", (int)(m->h.len - offsetof(struct sc_msg_log, text)),
		 m->text);
	log_clean(text);
	if (m->level <= LOG_LEVEL_ERROR)
		level = LOG_LEVEL_ERROR;
	else if (m->level <= LOG_LEVEL_WARN)
		level = LOG_LEVEL_WARN;
	else if (m->level <= LOG_LEVEL_INFO)
		level = LOG_LEVEL_INFO;
	log_peer(level, "agent: %s", text);
}

static void on_bye(struct broker *b)
{
	b->dom.state = DOM_STARTING;
	set_why(&b->dom, "its agent has ended in good order");
	end_incarnation(b);
	b->dom.orderly = true;
}

static void on_sync(struct broker *b, uint32_t seq)
{
	struct sc_msg_hdr m = {.type = SC_MSG_SYNCED, .len = sizeof(m), .seq = seq};

	hangup_sweep(b);
	if (b->dom.incarnation)
		b->tr->send(b, &m, NULL, 0);
}

/* The slot that a status message is about, if the message is about its present session. */
static struct slot *slot_of(struct broker *b, const struct sc_msg_status *m)
{
	struct slot *s;

	if (m->h.slot < 1 || m->h.slot > b->cfg->channels)
		return NULL;
	s = &b->sessions.slots[m->h.slot];
	return s->session && s->session == m->session ? s : NULL;
}

/* A status that an agent sent: 0 or -errno, whatever it was. */
static int to_errno(int32_t status)
{
	return status > 0 || status < -4095 ? -EPROTO : status;
}

static void on_status(struct broker *b, const struct sc_msg_status *m)
{
	struct slot *s = slot_of(b, m);

	if (m->h.type == SC_MSG_QUIESCED) {
		b->dom.quiesced = b->dom.state == DOM_QUIESCING;
		log_info("the agent has quiesced (status %d)", m->status);
		return;
	}
	if (!s) {
		/* An answer that came after the deadline: nothing is waiting for it any more. */
		log_peer(LOG_LEVEL_DEBUG, "answer %u about slot %u, session %u: too late",
			 m->h.type, m->h.slot, m->session);
		return;
	}
	if (m->h.type == SC_MSG_DETACHED)
		session_detached(b, s);
	else
		session_attached(b, s, to_errno(m->status));
}

/* True if a message of this type may have this length. */
static bool length_ok(uint16_t type, size_t len)
{
	switch (type) {
	case SC_MSG_HELLO:
		return len == sizeof(struct sc_msg_hello);
	case SC_MSG_ATTACHED:
	case SC_MSG_DETACHED:
	case SC_MSG_QUIESCED:
		return len == sizeof(struct sc_msg_status);
	case SC_MSG_LOG:
		return len > offsetof(struct sc_msg_log, text) && len <= sizeof(struct sc_msg_log);
	case SC_MSG_SYNC:
	case SC_MSG_BYE:
		return len == sizeof(struct sc_msg_hdr);
	case SC_MSG_OBJECT:
		return len == sizeof(struct sc_msg_object);
	case SC_MSG_SEGMENT_TAKEN:
	case SC_MSG_SEGMENT_ENDED:
		return len == sizeof(struct sc_msg_segment_status);
	default:
		return false;
	}
}

void domain_message(struct broker *b, const union agent_msg *msg, size_t len)
{
	const struct sc_msg_hdr *h = &msg->h;
	char why[96];

	/* Another version's HELLO may be of another length. */
	if (len >= offsetof(struct sc_msg_hello, role) && h->len == len &&
	    h->type == SC_MSG_HELLO && msg->hello.abi != SC_ABI_VERSION) {
		b->dom.state = DOM_STARTING;
		end_incarnation(b);
		refuse_version(b, msg->hello.abi);
		return;
	}
	if (len < sizeof(*h) || h->len != len || !length_ok(h->type, len)) {
		snprintf(why, sizeof(why), "malformed message: type %u, %zu bytes",
			 len < sizeof(*h) ? 0u : h->type, len);
		b->tr->drop(b, why);
		return;
	}
	if (!b->dom.incarnation && h->type != SC_MSG_HELLO && h->type != SC_MSG_LOG) {
		/* Of an agent that was refused, or that a former broker started. */
		log_peer(LOG_LEVEL_DEBUG, "message %u before HELLO is ignored", h->type);
		return;
	}
	switch (h->type) {
	case SC_MSG_HELLO:
		on_hello(b, &msg->hello);
		break;
	case SC_MSG_LOG:
		on_log(&msg->log);
		break;
	case SC_MSG_SYNC:
		on_sync(b, h->seq);
		break;
	case SC_MSG_BYE:
		on_bye(b);
		break;
	case SC_MSG_OBJECT:
		object_message(b, &msg->object);
		break;
	case SC_MSG_SEGMENT_TAKEN:
		segment_taken(b, msg->segment.number, to_errno(msg->segment.status));
		break;
	case SC_MSG_SEGMENT_ENDED:
		segment_ended(b, msg->segment.number);
		break;
	default:
		on_status(b, &msg->status);
	}
}

void domain_broken(struct broker *b, const char *why)
{
	log_error("the agent is cut off: %s", why);
	b->dom.state = b->dom.peer ? DOM_STARTING : DOM_DOWN;
	set_why(&b->dom, "its agent was cut off: %.120s", why);
	end_incarnation(b);
}

void domain_mapped(struct broker *b, uint32_t tag, int status)
{
	struct slot *s;

	if (tag >= SEGMENT_TAG)
		segment_mapped(b, tag - SEGMENT_TAG, status);
	if (tag > b->cfg->channels)
		return;
	s = &b->sessions.slots[tag];
	if (tag) {
		session_mapped(b, s, status);
		return;
	}
	if (s->map != MAP_PENDING)
		return;
	s->map = status ? MAP_NONE : MAP_DONE;
	if (status) {
		log_error("cannot map the state region into the window: %s", strerror(-status));
		set_why(&b->dom, "its VM could not map the state region");
		return;
	}
	start_agent(b);
}

void domain_unmapped(struct broker *b, uint32_t tag, int status)
{
	if (tag >= SEGMENT_TAG)
		segment_unmapped(b, tag - SEGMENT_TAG, status);
	if (tag >= 1 && tag <= b->cfg->channels)
		session_unmapped(b, &b->sessions.slots[tag], status);
}

void domain_doorbell(struct broker *b, uint32_t slot)
{
	if (slot >= 1 && slot <= b->cfg->channels)
		session_doorbell(b, &b->sessions.slots[slot]);
}

void domain_release(struct broker *b, uint64_t ticket)
{
	struct domain *d = &b->dom;

	if (d->nreleases == d->cap_releases) {
		uint32_t cap = d->cap_releases ? d->cap_releases * 2 : SC_RELEASE_MAX;
		uint64_t *bigger = realloc(d->releases, cap * sizeof(*bigger));

		if (!bigger) {
			log_error("out of memory: a closed file stays open in the domain");
			return;
		}
		d->releases = bigger;
		d->cap_releases = cap;
	}
	d->releases[d->nreleases++] = ticket;
}

void domain_process_exit(struct broker *b, uint32_t process)
{
	struct domain *d = &b->dom;

	if (d->nexits == d->cap_exits) {
		uint32_t cap = d->cap_exits ? d->cap_exits * 2 : 64;
		uint32_t *bigger = realloc(d->exits, cap * sizeof(*bigger));

		if (!bigger) {
			log_error("out of memory: locks of an ended process stay in the domain");
			return;
		}
		d->exits = bigger;
		d->cap_exits = cap;
	}
	d->exits[d->nexits++] = process;
}

/* All n were told: of more than twice as many as are kept only those remain. */
static void forget_old(void *ends, size_t size, uint32_t *n)
{
	if (*n <= 2 * DOMAIN_ENDS_KEPT)
		return;
	memmove(ends, (char *)ends + (*n - DOMAIN_ENDS_KEPT) * size, DOMAIN_ENDS_KEPT * size);
	*n = DOMAIN_ENDS_KEPT;
}

void domain_flush_ends(struct broker *b)
{
	struct domain *d = &b->dom;

	if (!d->incarnation || d->recovering)
		return;
	for (uint32_t at = d->told_releases; at < d->nreleases;) {
		struct sc_msg_release m = {.h = {.type = SC_MSG_RELEASE, .len = sizeof(m)}};

		m.count = d->nreleases - at;
		if (m.count > SC_RELEASE_MAX)
			m.count = SC_RELEASE_MAX;
		memcpy(m.tickets, d->releases + at, m.count * sizeof(*m.tickets));
		at += m.count;
		domain_send(b, &m.h, NULL, 0);
	}
	forget_old(d->releases, sizeof(*d->releases), &d->nreleases);
	d->told_releases = d->nreleases;
	for (uint32_t i = d->told_exits; i < d->nexits; i++) {
		struct sc_msg_proc_exit m = {
		    .h = {.type = SC_MSG_PROC_EXIT, .len = sizeof(m)},
		    .process = d->exits[i],
		};

		domain_send(b, &m.h, NULL, 0);
	}
	forget_old(d->exits, sizeof(*d->exits), &d->nexits);
	d->told_exits = d->nexits;
}

const char *domain_quiesce(struct broker *b)
{
	struct sc_msg_hdr m = {.type = SC_MSG_QUIESCE, .len = sizeof(m)};

	if (b->dom.state != DOM_READY)
		return "no agent serves";
	b->dom.state = DOM_QUIESCING;
	set_why(&b->dom, "it is being stopped");
	domain_send(b, &m, NULL, 0);
	return NULL;
}

const char *domain_shutdown(struct broker *b)
{
	struct sc_msg_hdr m = {.type = SC_MSG_SHUTDOWN, .len = sizeof(m)};

	if (!b->dom.incarnation)
		return "no agent serves";
	b->dom.state = DOM_QUIESCING;
	set_why(&b->dom, "it is being shut down");
	domain_send(b, &m, NULL, 0);
	return NULL;
}

void domain_save(const struct broker *b, struct blob_out *out)
{
	const struct domain *d = &b->dom;

	blob_put_u32(out, d->state);
	blob_put_u32(out, d->peer);
	blob_put_u32(out, d->link);
	blob_put_u32(out, d->greeted);
	blob_put_u32(out, d->quiesced);
	blob_put_u32(out, d->orderly);
	blob_put_u32(out, d->recovering);
	blob_put_u32(out, d->resuming);
	blob_put_u64(out, d->resume_by);
	blob_put_string(out, d->why);
	blob_put_u32(out, d->incarnation);
	blob_put_u32(out, d->last_incarnation);
	blob_put_u32(out, d->seq);
	blob_put_bytes(out, &d->agent, sizeof(d->agent));
	blob_put_fd(out, d->state_fd);
	blob_put_u64(out, d->epoch);
	blob_put_u64(out, d->peer_since);
	blob_put_u64(out, d->ready_since);
	blob_put_u32(out, d->nreleases);
	for (uint32_t i = 0; i < d->nreleases; i++)
		blob_put_u64(out, d->releases[i]);
	blob_put_u32(out, d->told_releases);
	blob_put_u32(out, d->nexits);
	for (uint32_t i = 0; i < d->nexits; i++)
		blob_put_u32(out, d->exits[i]);
	blob_put_u32(out, d->told_exits);
	blob_put_string(out, d->info ? d->info : "");
}

int domain_load(struct broker *b, struct blob_in *in)
{
	struct domain *d = &b->dom;
	char info[CTL_MAX_REQUEST];
	uint32_t n;

	d->state = blob_get_u32(in);
	d->peer = blob_get_u32(in);
	d->link = blob_get_u32(in);
	d->greeted = blob_get_u32(in);
	d->quiesced = blob_get_u32(in);
	d->orderly = blob_get_u32(in);
	d->recovering = blob_get_u32(in);
	d->resuming = blob_get_u32(in);
	d->resume_by = blob_get_u64(in);
	loop_at(&b->loop, d->resume_by);
	blob_get_string(in, d->why, sizeof(d->why));
	d->incarnation = blob_get_u32(in);
	d->last_incarnation = blob_get_u32(in);
	d->seq = blob_get_u32(in);
	blob_get_bytes(in, &d->agent, sizeof(d->agent));
	d->state_fd = blob_get_fd(in);
	d->epoch = blob_get_u64(in);
	d->peer_since = blob_get_u64(in);
	d->ready_since = blob_get_u64(in);
	n = blob_get_u32(in);
	for (uint32_t i = 0; i < n && !in->err; i++)
		domain_release(b, blob_get_u64(in));
	d->told_releases = blob_get_u32(in);
	n = blob_get_u32(in);
	for (uint32_t i = 0; i < n && !in->err; i++)
		domain_process_exit(b, blob_get_u32(in));
	d->told_exits = blob_get_u32(in);
	blob_get_string(in, info, sizeof(info));
	if (info[0])
		d->info = strdup(info);
	if (in->err || d->state > DOM_QUIESCING || d->state_fd < 0 ||
	    d->told_releases > d->nreleases || d->told_exits > d->nexits)
		return -EBADMSG;
	return 0;
}
