/* SPDX-License-Identifier: BSD-3-Clause */
/* hang.c - agents that hang; see hang.h. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker.h"
#include "hang.h"
#include "log.h"

/* Looks in the time after which an agent counts as hung. */
#define HANG_LOOKS 4u
#define HANG_MIN   20u /* ms between two looks */
/* The agent's main thread beats every 500 ms: it may be silent so long while it rebuilds. */
#define HANG_MAIN_MS 4000u

static uint64_t period(const struct broker *b)
{
	uint64_t ms = b->cfg->hang_ms / HANG_LOOKS;

	return ms < HANG_MIN ? HANG_MIN : ms;
}

static uint64_t read_word(int fd, uint64_t off)
{
	uint64_t word = 0;

	return pread(fd, &word, sizeof(word), (off_t)off) == sizeof(word) ? word : 0;
}

/* True if a lane that is in use has requests without completions. */
static bool pends(const struct broker *b, const struct slot *s)
{
	uint64_t lanes[SC_MAX_LANES / 64];
	struct sc_lane lane;

	if (pread(s->ch.memfd, lanes, sizeof(lanes), offsetof(struct sc_channel_host, lanes)) !=
	    sizeof(lanes))
		return false;
	for (uint32_t i = 0; i < b->cfg->layout.nlanes; i++) {
		uint64_t at = b->cfg->layout.lanes_off + (uint64_t)i * sizeof(lane);

		if (!(lanes[i / 64] >> (i % 64) & 1))
			continue;
		if (pread(s->ch.memfd, &lane, sizeof(lane), (off_t)at) == sizeof(lane) &&
		    lane.tail != lane.done)
			return true;
	}
	return false;
}

/* ---- what the guest could run ---- */

/* The process at the other end: QEMU, or a loopback agent. 0: not known. */
static pid_t peer(struct broker *b)
{
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	int fd = b->tr->connection(b);

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 ? cred.pid : 0;
}

/* True for a process that was stopped. */
static bool is_stopped(pid_t pid)
{
	char path[64], text[512];
	const char *at;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	at = strrchr(text, ')');
	return at && (at[1] == ' ') && (at[2] == 'T' || at[2] == 't');
}

/* Adds up how long the process's threads ran, and how long they waited for a processor, in ns. False: cannot be told. */
static bool ran_and_waited(pid_t pid, uint64_t *ran, uint64_t *waited)
{
	char path[64];
	struct dirent *e;
	DIR *d;

	*ran = 0;
	*waited = 0;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	if (!d)
		return false;
	while ((e = readdir(d))) {
		char file[96 + sizeof(e->d_name)];
		uint64_t r, w;
		FILE *f;

		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "/proc/%d/task/%s/schedstat", (int)pid, e->d_name);
		f = fopen(file, "re");
		if (f && fscanf(f, "%" SCNu64 " %" SCNu64, &r, &w) == 2) {
			*ran += r;
			*waited += w;
		}
		if (f)
			fclose(f);
	}
	closedir(d);
	return true;
}

/* What of the last `elapsed` ms the guest could use. */
static uint64_t usable(struct broker *b, uint64_t elapsed)
{
	struct hang *h = &b->dom.hang;
	uint64_t before_ran = h->ran, before_waited = h->waited, ran, waited;
	pid_t pid = peer(b);

	if (elapsed > 2 * period(b))
		return 0; /* we did not run ourselves */
	if (!pid)
		return elapsed;
	if (is_stopped(pid))
		return 0;
	if (!ran_and_waited(pid, &h->ran, &h->waited))
		return elapsed;
	if (!before_ran && !before_waited)
		return 0; /* nothing to compare with */
	/* A thread that has ended takes its share away. */
	ran = h->ran > before_ran ? h->ran - before_ran : 0;
	waited = h->waited > before_waited ? h->waited - before_waited : 0;
	if (ran + waited < 1000000) /* less than a millisecond: they slept */
		return elapsed;
	return elapsed * ran / (ran + waited);
}

/* ---- looking ---- */

/* Has the slot's poller wake up, if it can. */
static void ring(struct broker *b, const struct slot *s)
{
	uint64_t one = 1;
	int call, kick;

	if (!b->tr->doorbell(b, s->n, &call, &kick) && write(call, &one, sizeof(one)) < 0 &&
	    errno != EAGAIN)
		log_debug("slot %u: its doorbell cannot be rung", s->n);
}

static bool is_silent(struct broker *b, struct slot *s)
{
	uint64_t beat =
	    read_word(s->ch.memfd, SC_PAGE + offsetof(struct sc_channel_guest, heartbeat));
	bool moved = beat != s->beat;

	s->beat = beat;
	if (!moved && pends(b, s))
		return true;
	s->silent = 0;
	return false;
}

static void found(struct broker *b, const struct slot *s, uint64_t now)
{
	struct hang *h = &b->dom.hang;

	h->hung = true;
	h->since = now;
	if (s)
		log_error("the agent hangs: calls of session %u (pid %d) pend, and its heartbeat "
			  "has stood still for %" PRIu64 " ms in which it could run",
			  s->session, (int)b->procs.v[s->process].pid, s->silent);
	else
		log_error(
		    "the agent hangs: it rebuilds, and its heartbeat has stood still for %" PRIu64
		    " ms in which it could run",
		    h->main_silent);
}

/* The agent rebuilds: it has no channels. True: it has been silent for too long. */
static bool main_hangs(struct broker *b, uint64_t counted)
{
	struct hang *h = &b->dom.hang;
	uint64_t beat = read_word(b->dom.state_fd, offsetof(struct sc_state_header, heartbeat));
	uint64_t most = b->cfg->hang_ms > HANG_MAIN_MS ? b->cfg->hang_ms : HANG_MAIN_MS;

	h->main_silent = beat != h->main_beat || !b->dom.recovering ? 0 : h->main_silent + counted;
	h->main_beat = beat;
	return h->main_silent >= most;
}

static void look(struct broker *b, uint64_t now, uint64_t elapsed)
{
	struct hang *h = &b->dom.hang;
	struct slot *worst = NULL;
	uint64_t counted = 0;
	bool asked = false, mute = false;

	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		struct slot *s = &b->sessions.slots[i];

		if (s->state != SLOT_LIVE || !s->served || !is_silent(b, s))
			continue;
		if (!asked) /* of /proc, and once */
			counted = usable(b, elapsed);
		asked = true;
		s->silent += counted;
		if (s->silent >= b->cfg->hang_ms / 2)
			ring(b, s);
		if (s->silent >= b->cfg->hang_ms && (!worst || s->silent > worst->silent))
			worst = s;
	}
	if (b->dom.recovering && !asked) {
		counted = usable(b, elapsed);
		asked = true;
	}
	mute = main_hangs(b, counted);
	if (!asked) {
		h->ran = 0;
		h->waited = 0;
	}
	if (h->hung && !worst && !mute) {
		log_warn("the agent goes on, after %" PRIu64 " ms", now - h->since);
		h->hung = false;
	} else if (!h->hung && (worst || mute)) {
		found(b, worst, now);
	}
}

void hang_tick(struct broker *b, uint64_t now)
{
	struct hang *h = &b->dom.hang;

	if (!b->dom.incarnation || !b->cfg->hang_ms)
		return;
	if (now >= h->next) {
		if (h->last)
			look(b, now, now - h->last);
		h->last = now;
		h->next = now + period(b);
	}
	loop_at(&b->loop, h->next);
}

void hang_forget(struct broker *b)
{
	b->dom.hang = (struct hang){0};
	for (uint32_t i = 1; i <= b->cfg->channels; i++)
		b->sessions.slots[i].silent = 0;
}
