/* SPDX-License-Identifier: BSD-3-Clause */
/* ctl.c - status and orders; see ctl.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker.h"
#include "log.h"
#include "opnames.h"
#include "sock.h"

static void status_agent(const struct domain *d, struct json *j)
{
	if (!d->last_incarnation)
		return;
	json_object(j, "agent");
	json_string(j, "version", d->agent.version);
	json_u64(j, "abi", d->agent.abi);
	json_string(j, "kernel", d->agent.kernel);
	json_string(j, "modules", d->agent.modules);
	json_u64(j, "pollers", d->agent.npollers);
	json_end_object(j);
}

static void status_channels(const struct broker *b, struct json *j)
{
	json_array(j, "channels");
	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		const struct slot *s = &b->sessions.slots[i];
		const struct process *p;

		if (s->state == SLOT_FREE || s->state == SLOT_POOL)
			continue;
		json_object(j, NULL);
		json_u64(j, "slot", s->n);
		json_string(j, "state", session_state_name(s->state));
		json_u64(j, "session", s->session);
		json_u64(j, "uid", s->uid);
		json_bool(j, "served", s->served);
		if (s->state != SLOT_DETACHING) {
			p = &b->procs.v[s->process];
			json_u64(j, "process", p->number);
			json_i64(j, "pid", p->pid);
			json_string(j, "comm", p->comm);
		}
		json_end_object(j);
	}
	json_end_array(j);
}

static void status_by_op(struct json *j, const char *key, const uint64_t *counts)
{
	char number[16];

	json_object(j, key);
	for (uint32_t op = 0; op < 128; op++) {
		const char *name = op_name(op);

		if (!counts[op])
			continue;
		snprintf(number, sizeof(number), "op%u", op);
		json_u64(j, name ? name : number, counts[op]);
	}
	json_end_object(j);
}

/* What the agent counts in the state region. It is read once and only shown. */
static void status_counters(const struct broker *b, struct json *j)
{
	struct sc_state_header h;
	ssize_t n = pread(b->dom.state_fd, &h, sizeof(h), 0);
	bool valid = n == (ssize_t)sizeof(h) && h.magic == SC_STATE_MAGIC &&
		     h.incarnation == b->dom.last_incarnation && h.incarnation;

	if (!valid)
		memset(&h, 0, sizeof(h));
	json_u64(j, "ready_ns", h.ready_ns);
	json_u64(j, "heartbeat", h.heartbeat);
	status_by_op(j, "calls", h.ops);
	status_by_op(j, "errors", h.errors);
	json_u64(j, "bytes_read", h.bytes_read);
	json_u64(j, "bytes_written", h.bytes_written);
	json_object(j, "pollers");
	json_u64(j, "count", h.npollers);
	json_u64(j, "spun", h.polls_spun);
	json_u64(j, "slept", h.polls_slept);
	json_u64(j, "doorbells", h.doorbells);
	json_u64(j, "cpu_ns", h.poller_ns);
	json_u64(j, "worker_cpu_ns", h.worker_ns);
	json_end_object(j);
	json_u64(j, "open_files", h.open_files);
	json_u64(j, "agent_sessions", h.sessions);
}

static void status_limits(const struct broker *b, struct json *j)
{
	const struct config *cfg = b->cfg;

	json_object(j, "limits");
	json_u64(j, "channels", cfg->channels);
	json_u64(j, "max_per_user", cfg->max_per_user);
	json_u64(j, "window_size", cfg->window_size);
	json_u64(j, "slot_size", cfg->slot_size);
	json_u64(j, "lanes", cfg->layout.nlanes);
	json_u64(j, "entries", cfg->layout.entries);
	json_u64(j, "deadline_ms", cfg->deadline_ms);
	json_u64(j, "tickets", b->tickets.limit);
	json_u64(j, "segment_bytes", segment_area(b));
	json_u64(j, "files", b->fd_limit);
	json_bool(j, "huge", cfg->memory.huge);
	if (cfg->memory.node >= 0)
		json_u64(j, "numa_node", (uint64_t)cfg->memory.node);
	json_end_object(j);
}

static void status_broker(const struct broker *b, struct json *j)
{
	json_object(j, "broker");
	json_i64(j, "pid", getpid());
	json_string(j, "version", SCD_VERSION);
	json_u64(j, "uptime_ms", loop_now() - b->started);
	json_u64(j, "restarts", b->restarts);
	json_string(j, "log_level", log_level_name(log_get_level()));
	json_end_object(j);
}

void ctl_status(struct broker *b, struct json *j)
{
	const struct domain *d = &b->dom;
	const struct sessions *ss = &b->sessions;

	json_string(j, "name", b->cfg->name);
	json_string(j, "role", b->cfg->role == SC_ROLE_STORAGE ? "storage" : "network");
	json_bool(j, "loopback", b->cfg->loopback);
	json_string(j, "state", domain_state_name(d));
	json_string(j, "why", d->why);
	if (d->hang.hung)
		json_u64(j, "hung_for_ms", loop_now() - d->hang.since);
	json_bool(j, "refused", d->refused);
	json_bool(j, "quiesced", d->quiesced);
	json_u64(j, "incarnation", d->incarnation);
	json_u64(j, "incarnations", d->last_incarnation);
	json_raw(j, "info", d->info ? d->info : "{}", d->info ? strlen(d->info) : 2);
	status_agent(d, j);
	if (d->ready_since) {
		json_u64(j, "connect_to_ready_ms", d->ready_since - d->peer_since);
		json_u64(j, "ready_for_ms", loop_now() - d->ready_since);
	}
	status_counters(b, j);
	status_channels(b, j);
	json_u64(j, "channels_used", ss->live);
	json_u64(j, "sessions_begun", ss->begun);
	json_u64(j, "attaches_refused", b->clients.refused);
	json_u64(j, "connections", b->clients.count);
	json_u64(j, "processes", b->procs.used);
	json_u64(j, "objects", b->objects.used);
	json_u64(j, "object_bytes", b->objects.bytes);
	json_u64(j, "segments", b->segments.used);
	json_u64(j, "segment_bytes", b->segments.bytes);
	json_u64(j, "tickets", b->tickets.used);
	json_u64(j, "tickets_issued", b->tickets.issued);
	json_u64(j, "tickets_released", b->tickets.hangups);
	b->tr->status(b, j);
	status_limits(b, j);
	status_broker(b, j);
}

static const char *cmd_log_level(const char *line, size_t len)
{
	struct json_slice v;
	char level[16];

	if (!json_member(line, len, "level", &v) || !json_text(&v, level, sizeof(level)) ||
	    log_level_parse(level) < 0)
		return "\"level\" must be error, warn, info or debug";
	log_set_level((enum log_level)log_level_parse(level));
	return NULL;
}

static const char *cmd_set_info(struct broker *b, const char *line, size_t len)
{
	struct json_slice v;
	char *copy;

	if (!json_member(line, len, "info", &v) || v.at[0] != '{')
		return "\"info\" must be an object";
	copy = strndup(v.at, v.len);
	if (!copy)
		return "out of memory";
	free(b->dom.info);
	b->dom.info = copy;
	return NULL;
}

/* What a watcher is told of. */
static void write_state(const struct broker *b, struct json *j)
{
	const struct domain *d = &b->dom;

	json_string(j, "event", "state");
	json_string(j, "name", b->cfg->name);
	json_string(j, "state", domain_state_name(d));
	json_bool(j, "connected", d->peer);
	json_bool(j, "orderly", d->orderly);
	json_u64(j, "incarnation", d->incarnation);
	json_string(j, "why", d->why);
}

static struct ctl_seen seen_now(const struct broker *b)
{
	return (struct ctl_seen){.state = domain_state_name(&b->dom),
				 .incarnation = b->dom.incarnation,
				 .connected = b->dom.peer};
}

static bool flush(struct ctl_client *c);

void ctl_look(struct broker *b)
{
	struct ctl_seen now = seen_now(b), *seen = &b->ctl.seen;
	struct ctl_client *next;

	if (now.state == seen->state && now.incarnation == seen->incarnation &&
	    now.connected == seen->connected)
		return;
	*seen = now;
	for (struct ctl_client *c = b->ctl.head; c; c = next) {
		next = c->next;
		/* One that does not read is told what is so when it has read. */
		c->late = c->watching && c->out.len;
		if (!c->watching || c->out.len)
			continue;
		c->out.comma = false;
		json_object(&c->out, NULL);
		write_state(b, &c->out);
		json_end_object(&c->out);
		c->out.comma = false;
		json_raw(&c->out, NULL, "\n", 1);
		flush(c);
	}
}

static const char *cmd_restart(struct broker *b)
{
	reexec_request(b);
	return NULL;
}

/* Carries out one request. Returns NULL, or what is wrong; may add members to the answer. */
static const char *command(struct ctl_client *c, const char *line, size_t len, struct json *j)
{
	struct broker *b = c->b;
	struct json_slice v;
	char cmd[32];

	if (!json_valid(line, len) || !json_member(line, len, "cmd", &v) ||
	    !json_text(&v, cmd, sizeof(cmd)))
		return "a request is one line: {\"cmd\": \"...\"}";
	if (strcmp(cmd, "status") == 0) {
		ctl_status(b, j);
		return NULL;
	}
	if (strcmp(cmd, "net") == 0)
		return ctl_net(b, j);
	if (strcmp(cmd, "watch") == 0) {
		c->watching = true;
		write_state(b, j);
		return NULL;
	}
	if (strcmp(cmd, "set-info") == 0)
		return cmd_set_info(b, line, len);
	if (strcmp(cmd, "quiesce") == 0)
		return domain_quiesce(b);
	if (strcmp(cmd, "shutdown") == 0)
		return domain_shutdown(b);
	if (strcmp(cmd, "restart") == 0)
		return cmd_restart(b);
	if (strcmp(cmd, "stop") == 0) {
		b->stop = true;
		return NULL;
	}
	if (strcmp(cmd, "log-level") == 0)
		return cmd_log_level(line, len);
	return "no such command: status, net, watch, set-info, quiesce, shutdown, restart, stop "
	       "and "
	       "log-level "
	       "are";
}

static void drop(struct broker *b, struct ctl_client *c)
{
	struct ctl_client **at;
	int fd = c->src.fd;

	for (at = &b->ctl.head; *at != c; at = &(*at)->next)
		;
	*at = c->next;
	b->ctl.count--;
	loop_del(&b->loop, &c->src);
	close(fd);
	json_free(&c->out);
	free(c);
}

/* Sends what can be sent. Returns false if the client is gone. */
static bool flush(struct ctl_client *c)
{
	while (c->out_sent < c->out.len) {
		ssize_t n = sock_send(c->src.fd, c->out.text + c->out_sent,
				      c->out.len - c->out_sent, NULL, 0);

		if (n == -EAGAIN)
			break;
		if (n < 0) {
			drop(c->b, c);
			return false;
		}
		c->out_sent += (size_t)n;
	}
	if (c->out_sent == c->out.len) {
		json_free(&c->out);
		c->out_sent = 0;
		if (c->late) { /* what changed while it did not read */
			c->late = false;
			c->b->ctl.seen = (struct ctl_seen){0};
			loop_at(&c->b->loop, 0);
		}
	}
	/* Nothing more is read while an answer waits: a client that does not read gets no second
	 * one. */
	loop_want(&c->b->loop, &c->src, c->out.len ? EPOLLOUT : EPOLLIN);
	return true;
}

static void answer(struct ctl_client *c, const char *line, size_t len)
{
	struct json members = {0};
	struct json *j = &c->out;
	const char *error = command(c, line, len, &members);

	j->comma = false;
	json_object(j, NULL);
	json_bool(j, "ok", !error);
	if (error)
		json_string(j, "error", error);
	if (members.len)
		json_raw(j, NULL, members.text, members.len);
	json_end_object(j);
	j->comma = false;
	json_raw(j, NULL, "\n", 1);
	if (members.failed)
		j->failed = true;
	json_free(&members);
}

static void on_ctl(struct source *src, uint32_t events)
{
	struct ctl_client *c = container_of(src, struct ctl_client, src);
	char *newline;
	ssize_t n;

	if ((events & EPOLLOUT) && !flush(c))
		return;
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = recv(src->fd, c->in + c->in_len, sizeof(c->in) - c->in_len, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		drop(c->b, c);
		return;
	}
	c->in_len += (size_t)n;
	while ((newline = memchr(c->in, '\n', c->in_len))) {
		size_t len = (size_t)(newline - c->in);

		answer(c, c->in, len);
		c->in_len -= len + 1;
		memmove(c->in, newline + 1, c->in_len);
	}
	if (c->out.failed || c->in_len == sizeof(c->in)) {
		drop(c->b, c);
		return;
	}
	flush(c);
}

static void on_accept(struct source *src, uint32_t events)
{
	struct broker *b = container_of(src, struct broker, ctl.listener);
	struct ucred cred = {.uid = (uid_t)-1};
	socklen_t len = sizeof(cred);
	struct ctl_client *c;
	int fd;

	fd = sock_accept(src->fd, &b->spare_fd);
	if (fd < 0)
		return;
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	c = calloc(1, sizeof(*c));
	if (!c || (cred.uid && cred.uid != geteuid()) || b->ctl.count >= CTL_MAX_CLIENTS ||
	    loop_add(&b->loop, &c->src, fd, EPOLLIN, on_ctl)) {
		close(fd);
		free(c);
		return;
	}
	c->b = b;
	c->next = b->ctl.head;
	b->ctl.head = c;
	b->ctl.count++;
}

int ctl_init(struct broker *b, int listen_fd)
{
	char path[300];
	int err;

	if (listen_fd < 0) {
		snprintf(path, sizeof(path), "%s/ctl.sock", b->cfg->dir);
		listen_fd = sock_listen(path, SOCK_STREAM, 0600);
		if (listen_fd < 0) {
			log_error("cannot listen at %s: %s", path, strerror(-listen_fd));
			return listen_fd;
		}
	}
	err = loop_add(&b->loop, &b->ctl.listener, listen_fd, EPOLLIN, on_accept);
	if (err)
		close(listen_fd);
	return err;
}

void ctl_close(struct broker *b)
{
	int fd = b->ctl.listener.fd;

	while (b->ctl.head)
		drop(b, b->ctl.head);
	loop_del(&b->loop, &b->ctl.listener);
	if (fd >= 0)
		close(fd);
}
