/* SPDX-License-Identifier: BSD-3-Clause */
/* control.c - see control.h. */
#include "control.h"

#include "log.h"
#include "poller.h"
#include "sandbox.h"
#include "segments.h"
#include "service.h"
#include "session.h"
#include "transport.h"
#include "workers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define START_WAIT_MS	10000 /* for the broker's answer to HELLO */
#define HEARTBEAT_MS	500
#define QUIESCE_WAIT_MS 15000 /* for calls to finish; sc-init gives 20 s in all */
#define OWN_WAIT_MS	30000 /* for the own segments that START promised */

enum recovery {
	R_SEGMENTS, /* not all own segments are there */
	R_RUNNING,  /* a thread rebuilds what they keep */
	R_SERVING,
};

enum quiesce {
	Q_NONE,
	Q_RUNNING, /* a thread waits for the pollers and syncs */
	Q_DONE,
};

struct control {
	struct agent *agent;
	struct transport *tr;
	int signal_fd;
	uint32_t seq;	 /* of our own messages */
	int64_t beat_at; /* next heartbeat, ns */
	struct mapping state_map;
	struct channel *slots[VIRTIO_SC_MAX_CHANNELS + 1]; /* by window slot */
	bool slot_ending[VIRTIO_SC_MAX_CHANNELS + 1];
	uint32_t nslots_ending;
	uint32_t quiesce_seq; /* of the QUIESCE to be answered */
	bool answer_quiesce;
	bool end_after_quiesce;
	enum recovery recovery;
	uint32_t
	    own_wanted; /* own segments that START promised and that have not come: bit i for kind i */
	int64_t own_by; /* when they must be there, ns */
	uint32_t
	    last_own; /* number and seq of the last one, which is answered when all is rebuilt; 0: none */
	uint32_t last_own_seq;
	_Atomic bool recover_over; /* set by the recovering thread */
	bool recover_ok;
	pthread_t recover_thread;
	enum quiesce quiesce;
	_Atomic bool quiesce_over; /* set by the quiescing thread */
	_Atomic int quiesce_status;
	pthread_t quiesce_thread;
	int exit_status;
	bool running;
};

/* ---- sending ---- */

static int send_msg(struct control *ct, struct sc_msg_hdr *h, uint16_t type, uint32_t len,
		    uint32_t slot, uint32_t seq)
{
	int err;

	*h = (struct sc_msg_hdr){.type = type, .len = len, .slot = slot, .seq = seq};
	err = ct->tr->ops->send(ct->tr, h, len);
	if (err)
		log_info("cannot send message %u to the broker: %s", type, strerror(-err));
	return err;
}

static void send_status(struct control *ct, uint16_t type, uint32_t slot, uint32_t session,
			int status, uint32_t seq)
{
	struct sc_msg_status m = {.status = status, .session = session};

	send_msg(ct, &m.h, type, sizeof(m), slot, seq);
}

/* Loaded modules, as "name name ...", for people. */
static void list_modules(char *to, size_t size)
{
	FILE *f = fopen("/proc/modules", "re");
	char line[512], name[64];
	size_t n = 0;

	to[0] = '\0';
	if (!f)
		return;
	while (fgets(line, sizeof(line), f) && sscanf(line, "%63s", name) == 1) {
		if (n + strlen(name) + 2 > size)
			break;
		n += (size_t)snprintf(to + n, size - n, "%s%s", n ? " " : "", name);
	}
	fclose(f);
}

static int send_hello(struct control *ct)
{
	struct sc_msg_hello m = {
	    .abi = SC_ABI_VERSION,
	    .role = ct->agent->service->role,
	    .features = SC_FEATURES,
	    .num_channels = ct->tr->num_channels,
	    .npollers = ct->agent->opt.npollers,
	    .slot_size = ct->tr->slot_size,
	    .version = SC_VERSION,
	};
	struct utsname u;

	if (uname(&u) == 0)
		snprintf(m.kernel, sizeof(m.kernel), "%.63s", u.release);
	list_modules(m.modules, sizeof(m.modules));
	return send_msg(ct, &m.h, SC_MSG_HELLO, sizeof(m), 0, ++ct->seq);
}

static void send_logs(struct control *ct)
{
	struct sc_msg_log m = {0};

	while (log_take(&m.level, m.text, sizeof(m.text))) {
		uint32_t len = (uint32_t)(offsetof(struct sc_msg_log, text) + strlen(m.text) + 1);

		if (send_msg(ct, &m.h, SC_MSG_LOG, len, 0, ++ct->seq))
			return;
	}
}

/* ---- state region ---- */

static void write_stats(struct agent *agent)
{
	struct sc_state_header *st = agent->state;
	struct sc_state_header sum = {0};

	if (!st)
		return;
	for (uint32_t i = 0; i < agent->npollers; i++) {
		const struct poller_stats *s = poller_stats(agent->pollers[i]);

		for (uint32_t op = 0; op < SC_OP_MAX; op++) {
			sum.ops[op] += atomic_load_explicit(&s->ops[op], memory_order_relaxed);
			sum.errors[op] +=
			    atomic_load_explicit(&s->errors[op], memory_order_relaxed);
		}
		sum.bytes_read += atomic_load_explicit(&s->bytes_read, memory_order_relaxed);
		sum.bytes_written += atomic_load_explicit(&s->bytes_written, memory_order_relaxed);
		sum.polls_spun += atomic_load_explicit(&s->spun, memory_order_relaxed);
		sum.polls_slept += atomic_load_explicit(&s->slept, memory_order_relaxed);
		sum.doorbells += atomic_load_explicit(&s->kicks, memory_order_relaxed);
		sum.poller_ns += poller_cpu_ns(agent->pollers[i]);
	}
	if (agent->workers)
		sum.worker_ns = workers_cpu_ns(agent->workers);
	if (agent->service->count_open)
		sum.open_files = agent->service->count_open(agent);
	sum.sessions = sessions_count(agent->sessions);
	for (size_t at = offsetof(struct sc_state_header, ops); at < sizeof(sum);
	     at += sizeof(uint64_t))
		__atomic_store_n((uint64_t *)((char *)st + at), *(uint64_t *)((char *)&sum + at),
				 __ATOMIC_RELAXED);
}

static void heartbeat(struct control *ct)
{
	struct sc_state_header *st = ct->agent->state;

	ct->beat_at = now_ns() + HEARTBEAT_MS * 1000000ll;
	write_stats(ct->agent);
	if (ct->agent->service->beat)
		ct->agent->service->beat(ct->agent);
	__atomic_store_n(&st->heartbeat, __atomic_load_n(&st->heartbeat, __ATOMIC_RELAXED) + 1,
			 __ATOMIC_RELAXED);
}

/* Fills the state region: from now on the domain is in service. */
static void announce(struct control *ct)
{
	struct sc_state_header *st = ct->agent->state;
	struct timespec boot;

	clock_gettime(CLOCK_BOOTTIME, &boot);
	st->magic = SC_STATE_MAGIC;
	st->abi = SC_ABI_VERSION;
	st->epoch = ct->agent->epoch;
	st->npollers = ct->agent->npollers;
	__atomic_store_n(&st->ready_ns,
			 (uint64_t)boot.tv_sec * 1000000000u + (uint64_t)boot.tv_nsec,
			 __ATOMIC_RELAXED);
	heartbeat(ct);
	/* Release: who sees the incarnation sees the rest. */
	__atomic_store_n(&st->incarnation, ct->agent->incarnation, __ATOMIC_RELEASE);
}

/* ---- start ---- */

static bool start_threads(struct agent *agent)
{
	if (agent->service->work) {
		agent->workers = workers_start(agent, agent->opt.nworkers);
		if (!agent->workers)
			return false;
	}
	for (; agent->npollers < agent->opt.npollers; agent->npollers++) {
		agent->pollers[agent->npollers] = poller_start(agent, agent->npollers);
		if (!agent->pollers[agent->npollers])
			return false;
	}
	return true;
}

/* Makes tables and threads, as START says. */
static bool start_service(struct control *ct, const struct sc_msg_start *m,
			  struct transport_fds *fds)
{
	struct agent *agent = ct->agent;
	int err;

	if (m->abi != SC_ABI_VERSION) {
		log_error("the broker speaks version %u, this agent version %u: use the same "
			  "release of both",
			  m->abi, SC_ABI_VERSION);
		return false;
	}
	if (m->state_size < SC_STATE_TABLES_OFF || m->state_size % SC_PAGE ||
	    m->state_size > SC_MAX_CHANNEL_SIZE) {
		log_error("the broker's state region of %u bytes is of no use", m->state_size);
		return false;
	}
	err = ct->tr->ops->map(ct->tr, 0, m->state_size, fds, &ct->state_map);
	if (err) {
		log_error("cannot map the state region: %s", strerror(-err));
		return false;
	}
	agent->state = ct->state_map.base;
	agent->state_size = m->state_size;
	agent->incarnation = m->incarnation;
	agent->epoch = m->epoch;
	agent->max_spin_us = AGENT_DEFAULT_SPIN_US;
	if (m->max_spin_us)
		agent->max_spin_us = m->max_spin_us;
	if (agent->opt.max_spin_us)
		agent->max_spin_us = agent->opt.max_spin_us;
	agent->segments = segments_new(agent->tr);
	if (!agent->segments) {
		log_error("not enough memory for the tables");
		return false;
	}
	if (!agent->service->make_tables(agent))
		return false;
	if (!start_threads(agent))
		return false;
	if (agent->opt.sandbox)
		sandbox_enter(agent->service->syscalls);
	ct->own_wanted = m->own;
	ct->own_by = now_ns() + OWN_WAIT_MS * 1000000ll;
	return true;
}

/* Receives the answer to HELLO. */
static bool receive_start(struct control *ct)
{
	union {
		struct sc_msg_hdr h;
		struct sc_msg_start start;
		struct sc_msg_log refuse;
		uint8_t bytes[SC_MSG_MAX];
	} m;
	struct pollfd p = {.fd = ct->tr->fd, .events = POLLIN};
	struct transport_fds fds = {.n = 0};
	bool ok = false;
	int n;

	if (poll(&p, 1, START_WAIT_MS) <= 0) {
		log_error("the broker did not answer within %d s", START_WAIT_MS / 1000);
		return false;
	}
	memset(&m, 0, sizeof(m));
	n = ct->tr->ops->recv(ct->tr, &m, sizeof(m) - 1, &fds);
	if (n < (int)sizeof(m.h))
		log_error("no answer from the broker: %s",
			  n < 0 ? strerror(-n) : "message too short");
	else if (m.h.type == SC_MSG_REFUSE)
		log_error("the broker refuses this agent: %.*s", (int)sizeof(m.refuse.text),
			  m.refuse.text);
	else if (m.h.type != SC_MSG_START || n != (int)sizeof(m.start) ||
		 m.h.len != sizeof(m.start))
		log_error("the broker's answer is no START message (type %u, %d bytes)", m.h.type,
			  n);
	else
		ok = start_service(ct, &m.start, &fds);
	transport_fds_close(&fds);
	return ok;
}

/* ---- channels ---- */

/* The poller with the fewest channels. */
static struct poller *pick_poller(struct agent *agent)
{
	struct poller *best = agent->pollers[0];

	for (uint32_t i = 1; i < agent->npollers; i++)
		if (poller_channels(agent->pollers[i]) < poller_channels(best))
			best = agent->pollers[i];
	return best;
}

/* May this agent act for these ids? */
static bool may_serve(const struct agent *agent, const struct sc_msg_attach *m)
{
	return agent->privileged || (m->uid == geteuid() && m->gid == getegid());
}

/* Makes a session and its channel on a mapping. 0 or -errno; the mapping remains the caller's on failure. */
static int make_channel(struct control *ct, const struct sc_msg_attach *m, struct mapping *map)
{
	struct agent *agent = ct->agent;
	struct poller *p = pick_poller(agent);
	const struct cred *cred = creds_get(m->uid, m->gid, m->groups, m->ngroups);
	struct session *s = NULL;
	struct channel *ch = NULL;
	int err;

	if (!cred)
		return -ENOMEM;
	err = ct->tr->ops->bind(ct->tr, map, poller_event(p));
	if (err)
		return err;
	s = session_new(agent->sessions, m->session, m->process, m->pid, cred);
	if (!s)
		return -EEXIST;
	ch = poller_attach(p, s, map, &m->layout);
	if (!ch) {
		session_put(s);
		return -ENOMEM;
	}
	ct->slots[m->h.slot] = ch;
	return 0;
}

static int attach(struct control *ct, const struct sc_msg_attach *m, struct transport_fds *fds)
{
	struct mapping map;
	int err;

	if (m->h.slot < 1 || m->h.slot > VIRTIO_SC_MAX_CHANNELS || !sc_layout_valid(&m->layout) ||
	    m->ngroups > SC_MAX_GROUPS)
		return -EINVAL;
	if (ct->slots[m->h.slot])
		return -EBUSY;
	if (ct->quiesce != Q_NONE)
		return -ESHUTDOWN;
	if (!may_serve(ct->agent, m)) {
		log_warning(
		    "uid %u refused: this agent runs as uid %u and can act for that user alone",
		    m->uid, geteuid());
		return -EPERM;
	}
	err = ct->tr->ops->map(ct->tr, m->h.slot, m->layout.size, fds, &map);
	if (err)
		return err;
	err = make_channel(ct, m, &map);
	if (err)
		ct->tr->ops->unmap(ct->tr, &map);
	return err;
}

static void on_attach(struct control *ct, const struct sc_msg_attach *m, struct transport_fds *fds)
{
	int err = attach(ct, m, fds);

	if (err)
		log_warning("cannot attach session %u (pid %u) at slot %u: %s", m->session, m->pid,
			    m->h.slot, strerror(-err));
	else
		log_debug("session %u: pid %u, uid %u, slot %u", m->session, m->pid, m->uid,
			  m->h.slot);
	send_status(ct, SC_MSG_ATTACHED, m->h.slot, m->session, err, m->h.seq);
}

static void on_detach(struct control *ct, const struct sc_msg_detach *m)
{
	uint32_t slot = m->h.slot;
	struct channel *ch = slot <= VIRTIO_SC_MAX_CHANNELS ? ct->slots[slot] : NULL;

	if (!ch || channel_session(ch)->id != m->session) {
		send_status(ct, SC_MSG_DETACHED, slot, m->session, -ENOENT, m->h.seq);
		return;
	}
	if (ct->slot_ending[slot])
		return; /* one answer is on its way */
	ct->slot_ending[slot] = true;
	ct->nslots_ending++;
	poller_detach(ch);
}

/* Lets go of channels that have ended. */
static void collect_ended(struct control *ct)
{
	for (uint32_t slot = 1; slot <= VIRTIO_SC_MAX_CHANNELS && ct->nslots_ending; slot++) {
		struct channel *ch = ct->slots[slot];
		uint32_t session;

		if (!ct->slot_ending[slot] || !channel_ended(ch))
			continue;
		session = channel_session(ch)->id;
		ct->slots[slot] = NULL;
		ct->slot_ending[slot] = false;
		ct->nslots_ending--;
		ct->tr->ops->unmap(ct->tr, channel_mapping(ch));
		channel_free(ch);
		log_debug("session %u: slot %u is free", session, slot);
		send_status(ct, SC_MSG_DETACHED, slot, session, 0, ++ct->seq);
	}
}

/* ---- segments ---- */

static void send_segment_status(struct control *ct, uint16_t type, uint32_t number, int status,
				uint32_t seq)
{
	struct sc_msg_segment_status m = {.status = status, .number = number};

	send_msg(ct, &m.h, type, sizeof(m), 0, seq);
}

/* One of our own was mapped, or could not be. True: it is the last, whose answer waits until all is rebuilt. */
static bool note_own(struct control *ct, const struct sc_msg_segment *m, int err)
{
	struct segment *s = err ? NULL : segment_find(ct->agent->segments, m->ticket);

	if (s) /* never put: it stays */
		ct->agent->own[m->ticket] = (struct own){.base = s->map.base, .size = s->map.size};
	if (!(ct->own_wanted & 1u << m->ticket))
		return false;
	ct->own_wanted &= ~(1u << m->ticket);
	if (ct->own_wanted || err)
		return false;
	ct->last_own = m->number;
	ct->last_own_seq = m->h.seq;
	return true;
}

static void on_segment(struct control *ct, const struct sc_msg_segment *m,
		       struct transport_fds *fds)
{
	int err = segments_add(ct->agent->segments, m, fds);

	if (err)
		log_warning("cannot map segment %u of %llu bytes: %s", m->number,
			    (unsigned long long)m->size, strerror(-err));
	if (m->ticket < SC_OWN_MAX && note_own(ct, m, err))
		return;
	send_segment_status(ct, SC_MSG_SEGMENT_TAKEN, m->number, err, m->h.seq);
}

static void collect_segments(struct control *ct)
{
	uint32_t number;

	while ((number = segments_collect(ct->agent->segments)))
		send_segment_status(ct, SC_MSG_SEGMENT_ENDED, number, 0, ++ct->seq);
}

static void on_segment_end(struct control *ct, const struct sc_msg_segment_status *m)
{
	if (!segments_end(ct->agent->segments, m->number))
		send_segment_status(ct, SC_MSG_SEGMENT_ENDED, m->number, -ENOENT, m->h.seq);
	collect_segments(ct);
}

/* ---- recovery ---- */

static void *recover_main(void *arg)
{
	struct control *ct = arg;
	uint64_t one = 1;

	ct->recover_ok = !ct->agent->service->recover || ct->agent->service->recover(ct->agent);
	atomic_store(&ct->recover_over, true);
	if (write(ct->agent->main_event, &one, sizeof(one)) < 0)
		log_error("waking main: %m");
	return NULL;
}

static void end_with_problem(struct control *ct)
{
	ct->exit_status = EXIT_PROBLEM;
	ct->running = false;
}

/* What was is there again: in service. */
static void recovered(struct control *ct)
{
	struct agent *agent = ct->agent;
	char what[128];

	announce(ct);
	agent->service->describe(agent, what, sizeof(what));
	log_info("serving %s as incarnation %u: %u pollers, %u workers, transport %s", what,
		 agent->incarnation, agent->npollers, agent->workers ? agent->opt.nworkers : 0,
		 ct->tr->ops->name);
	if (ct->last_own)
		send_segment_status(ct, SC_MSG_SEGMENT_TAKEN, ct->last_own, 0, ct->last_own_seq);
}

/* Begins to rebuild when all own segments are there; goes into service when that is done. */
static void look_at_recovery(struct control *ct)
{
	if (ct->recovery == R_SEGMENTS && !ct->own_wanted) {
		ct->recovery = R_RUNNING;
		if (pthread_create(&ct->recover_thread, NULL, recover_main, ct)) {
			log_error("cannot start a thread");
			end_with_problem(ct);
		}
	} else if (ct->recovery == R_SEGMENTS && now_ns() > ct->own_by) {
		log_error("the broker has not announced the memory that it promised within %d s",
			  OWN_WAIT_MS / 1000);
		end_with_problem(ct);
	} else if (ct->recovery == R_RUNNING && atomic_load(&ct->recover_over)) {
		pthread_join(ct->recover_thread, NULL);
		ct->recovery = R_SERVING;
		if (ct->recover_ok)
			recovered(ct);
		else
			end_with_problem(ct);
	}
}

/* ---- quiescing ---- */

static bool all_quiet(const struct agent *agent)
{
	for (uint32_t i = 0; i < agent->npollers; i++)
		if (!poller_is_quiet(agent->pollers[i]))
			return false;
	return true;
}

/* Waits for calls to finish and has all written back: in a thread of its own, for main must go on beating. */
static void *quiesce_main(void *arg)
{
	const struct timespec tick = {.tv_nsec = 1000000};
	struct control *ct = arg;
	struct agent *agent = ct->agent;
	uint64_t one = 1;
	int ms, status = 0;

	for (ms = 0; ms < QUIESCE_WAIT_MS && !all_quiet(agent); ms++)
		nanosleep(&tick, NULL);
	if (ms == QUIESCE_WAIT_MS) {
		log_warning("calls are still in execution after %d s: syncing without them",
			    QUIESCE_WAIT_MS / 1000);
		status = -ETIMEDOUT;
	}
	if (agent->service->sync) {
		int err = agent->service->sync(agent);

		status = err ? err : status;
	}
	atomic_store(&ct->quiesce_status, status);
	atomic_store(&ct->quiesce_over, true);
	if (write(agent->main_event, &one, sizeof(one)) < 0)
		log_error("waking main: %m");
	return NULL;
}

static void begin_quiesce(struct control *ct)
{
	if (ct->quiesce != Q_NONE)
		return;
	atomic_store_explicit(&ct->agent->quiescing, true, memory_order_release);
	for (uint32_t i = 0; i < ct->agent->npollers; i++)
		poller_wake(ct->agent->pollers[i]);
	ct->quiesce = Q_RUNNING;
	if (pthread_create(&ct->quiesce_thread, NULL, quiesce_main, ct)) {
		log_error("cannot start a thread: syncing at once");
		atomic_store(&ct->quiesce_status,
			     ct->agent->service->sync ? ct->agent->service->sync(ct->agent) : 0);
		ct->quiesce = Q_DONE;
	}
}

static void look_at_quiesce(struct control *ct)
{
	if (ct->quiesce == Q_RUNNING && atomic_load(&ct->quiesce_over)) {
		pthread_join(ct->quiesce_thread, NULL);
		ct->quiesce = Q_DONE;
	}
	if (ct->quiesce != Q_DONE)
		return;
	if (ct->answer_quiesce)
		send_status(ct, SC_MSG_QUIESCED, 0, 0, atomic_load(&ct->quiesce_status),
			    ct->quiesce_seq);
	ct->answer_quiesce = false;
	if (!ct->end_after_quiesce)
		return;
	ct->running = false;
	ct->exit_status = EXIT_ENDED;
}

static void begin_end(struct control *ct, const char *why)
{
	log_info("%s: finishing calls and syncing", why);
	ct->end_after_quiesce = true;
	begin_quiesce(ct);
}

/* ---- receiving ---- */

/* True if a message of this type may have this length. */
static bool right_length(const struct sc_msg_hdr *h, uint32_t n)
{
	if (n < sizeof(*h) || h->len != n)
		return false;
	switch (h->type) {
	case SC_MSG_ATTACH:
		return n == sizeof(struct sc_msg_attach);
	case SC_MSG_DETACH:
		return n == sizeof(struct sc_msg_detach);
	case SC_MSG_PROC_EXIT:
		return n == sizeof(struct sc_msg_proc_exit);
	case SC_MSG_RELEASE:
		return n >= offsetof(struct sc_msg_release, tickets) &&
		       n <= sizeof(struct sc_msg_release) &&
		       ((const struct sc_msg_release *)h)->count <=
			   (n - offsetof(struct sc_msg_release, tickets)) / sizeof(uint64_t);
	case SC_MSG_SEGMENT:
		return n == sizeof(struct sc_msg_segment);
	case SC_MSG_OBJECT_DONE:
		return n == sizeof(struct sc_msg_object_done);
	case SC_MSG_OBJECT_IDLE:
		return n == sizeof(struct sc_msg_object_idle);
	case SC_MSG_SEGMENT_END:
		return n == sizeof(struct sc_msg_segment_status);
	case SC_MSG_REFUSE:
		return n == sizeof(struct sc_msg_log);
	case SC_MSG_QUIESCE:
	case SC_MSG_SHUTDOWN:
	case SC_MSG_SYNCED:
	case SC_MSG_RESUMED:
		return n == sizeof(*h);
	default:
		return false;
	}
}

static void on_message(struct control *ct, const void *msg, struct transport_fds *fds)
{
	const struct sc_msg_hdr *h = msg;
	const struct sc_msg_release *release = msg;
	const struct service *svc = ct->agent->service;

	switch (h->type) {
	case SC_MSG_ATTACH:
		on_attach(ct, msg, fds);
		break;
	case SC_MSG_DETACH:
		on_detach(ct, msg);
		break;
	case SC_MSG_RELEASE:
		svc->release(ct->agent, release->tickets, release->count);
		break;
	case SC_MSG_PROC_EXIT:
		if (svc->process_gone)
			svc->process_gone(ct->agent,
					  ((const struct sc_msg_proc_exit *)msg)->process);
		break;
	case SC_MSG_SEGMENT:
		on_segment(ct, msg, fds);
		break;
	case SC_MSG_OBJECT_DONE:
		if (svc->object_done)
			svc->object_done(ct->agent, msg);
		break;
	case SC_MSG_OBJECT_IDLE:
		if (svc->object_idle)
			svc->object_idle(ct->agent, msg);
		break;
	case SC_MSG_SEGMENT_END:
		on_segment_end(ct, msg);
		break;
	case SC_MSG_SYNCED:
		if (svc->synced)
			svc->synced(ct->agent, h->seq);
		break;
	case SC_MSG_RESUMED:
		if (svc->resumed)
			svc->resumed(ct->agent);
		break;
	case SC_MSG_QUIESCE:
		ct->answer_quiesce = true;
		ct->quiesce_seq = h->seq;
		begin_quiesce(ct);
		break;
	case SC_MSG_SHUTDOWN:
		begin_end(ct, "told to shut down");
		break;
	case SC_MSG_REFUSE:
		/* From a broker that came after the one that started us: it does not know our channels. */
		log_error("the broker was replaced and refuses this agent; ending");
		end_with_problem(ct);
		break;
	default:
		break;
	}
}

/* Takes all messages there are. False: the broker is gone. */
static bool receive(struct control *ct)
{
	union {
		struct sc_msg_hdr h;
		uint64_t align;
		uint8_t bytes[SC_MSG_MAX];
	} m;
	struct transport_fds fds;

	for (;;) {
		int n = ct->tr->ops->recv(ct->tr, &m, sizeof(m), &fds);

		if (n == 0)
			return true;
		if (n == -EPIPE)
			return false;
		if (n < 0) {
			log_warning("receiving from the broker: %s", strerror(-n));
			return true;
		}
		if (right_length(&m.h, (uint32_t)n))
			on_message(ct, &m, &fds);
		else
			log_warning("ignoring a message of type %u with %d bytes from the broker",
				    m.h.type, n);
		transport_fds_close(&fds);
	}
}

/* ---- the loop ---- */

/* The broker has hung up. A new one would not know our channels: the incarnation ends. */
static void broker_gone(struct control *ct)
{
	log_error("the broker has closed the connection; ending");
	end_with_problem(ct);
}

static void take_signals(struct control *ct)
{
	struct signalfd_siginfo si;

	while (read(ct->signal_fd, &si, sizeof(si)) == sizeof(si))
		begin_end(ct, si.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
}

/* What other threads left to be done. */
static void take_mailbox(struct control *ct)
{
	uint64_t n;

	if (read(ct->agent->main_event, &n, sizeof(n)) < 0 && errno != EAGAIN)
		log_error("reading an eventfd: %m");
	collect_ended(ct);
	collect_segments(ct);
	look_at_recovery(ct);
	send_logs(ct);
	look_at_quiesce(ct);
	if (ct->agent->service->sync_wanted &&
	    ct->agent->service->sync_wanted(ct->agent, ct->seq + 1)) {
		struct sc_msg_hdr h;

		send_msg(ct, &h, SC_MSG_SYNC, sizeof(h), 0, ++ct->seq);
	}
}

/* Milliseconds until something is due. */
static int next_timeout(struct control *ct)
{
	int64_t now = now_ns();
	int64_t left = ct->beat_at - now;
	int64_t due = ct->agent->service->expire ? ct->agent->service->expire(ct->agent, now) : -1;

	if (due >= 0 && due < left)
		left = due;
	return left <= 0 ? 0 : (int)((left + 999999) / 1000000);
}

static void serve(struct control *ct)
{
	struct pollfd p[3] = {
	    {.fd = ct->tr->fd, .events = POLLIN},
	    {.fd = ct->signal_fd, .events = POLLIN},
	    {.fd = ct->agent->main_event, .events = POLLIN},
	};

	look_at_recovery(ct);
	while (ct->running) {
		if (poll(p, 3, next_timeout(ct)) < 0 && errno != EINTR)
			log_error("poll: %m");
		if (p[1].revents)
			take_signals(ct);
		/* What was sent before a hang-up is still there to be received. */
		if (p[0].revents && (!receive(ct) || p[0].revents & (POLLHUP | POLLERR | POLLNVAL)))
			broker_gone(ct);
		take_mailbox(ct);
		if (now_ns() >= ct->beat_at)
			heartbeat(ct);
	}
}

/* Signals come by descriptor; those of file sizes and dead sockets are errors of calls. */
static int make_signal_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The threads end with the process: a worker that hangs in the kernel must not hold it up. */
static int end(struct control *ct)
{
	struct sc_msg_hdr h;

	write_stats(ct->agent);
	if (ct->exit_status == EXIT_ENDED && ct->agent->service->ended)
		ct->agent->service->ended(ct->agent);
	send_logs(ct);
	if (ct->exit_status == EXIT_ENDED)
		send_msg(ct, &h, SC_MSG_BYE, sizeof(h), 0, ++ct->seq);
	return ct->exit_status;
}

int control_run(struct agent *agent)
{
	struct control *ct = calloc(1, sizeof(*ct));

	if (!ct)
		return EXIT_PROBLEM;
	ct->agent = agent;
	ct->tr = agent->tr;
	ct->signal_fd = make_signal_fd();
	ct->running = true;
	if (ct->signal_fd < 0 || send_hello(ct) || !receive_start(ct)) {
		free(ct);
		return EXIT_PROBLEM;
	}
	serve(ct);
	return end(ct);
}
