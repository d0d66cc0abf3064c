/* SPDX-License-Identifier: BSD-3-Clause */
/* hang.c - agents that hang; see hang.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

/* What the threads of a process have done so far, and are doing. */
struct threads {
	uint64_t ran; /* ns, all together */
	uint64_t
	    waited; /* ns in which they wanted a CPU and had none, up to when each had one last */
	uint64_t vcpu_ran; /* of `ran`: the threads that QEMU calls "CPU N/..." */
	bool vcpus;	   /* there are such */
	bool runnable;	   /* one wants a CPU now, or has it */
	bool stopped;	   /* by a signal or a debugger */
};

/* A small file of a thread as text. False: the thread is gone, or its number is none. */
static bool read_of(int dir, const char *tid, const char *name, char *text, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	if (tid[0] < '0' || tid[0] > '9')
		return false;
	snprintf(path, sizeof(path), "%.20s/%s", tid, name);
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static void add_thread(struct threads *t, const char *stat, const char *sched)
{
	/* "TID (NAME) STATE ..."; the name may hold anything. */
	const char *name = strchr(stat, '('), *end = strrchr(stat, ')');
	uint64_t ran, waited;

	if (!name || !end || end[1] != ' ' ||
	    sscanf(sched, "%" SCNu64 " %" SCNu64, &ran, &waited) != 2)
		return;
	t->ran += ran;
	t->waited += waited;
	t->runnable |= end[2] == 'R';
	t->stopped |= end[2] == 'T' || end[2] == 't';
	if (strncmp(name, "(CPU ", 5) == 0) {
		t->vcpus = true;
		t->vcpu_ran += ran;
	}
}

/* False: cannot be told. */
static bool look_at_threads(pid_t pid, struct threads *t)
{
	char path[64], stat[512], sched[96];
	struct dirent *e;
	DIR *d;

	*t = (struct threads){0};
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	if (!d)
		return false;
	while ((e = readdir(d)))
		if (read_of(dirfd(d), e->d_name, "stat", stat, sizeof(stat)) &&
		    read_of(dirfd(d), e->d_name, "schedstat", sched, sizeof(sched)))
			add_thread(t, stat, sched);
	closedir(d);
	return true;
}

/* What of the last `elapsed` ms the guest could use. */
static uint64_t usable(struct broker *b, uint64_t elapsed)
{
	struct hang *h = &b->dom.hang;
	uint64_t before_ran = h->ran, before_waited = h->waited, before_vcpu = h->vcpu_ran;
	uint64_t ran, waited;
	pid_t pid = peer(b);
	struct threads t;

	if (elapsed > 2 * period(b))
		return 0; /* we did not run ourselves */
	if (!pid || !look_at_threads(pid, &t))
		return elapsed;
	h->ran = t.ran;
	h->waited = t.waited;
	h->vcpu_ran = t.vcpu_ran;
	if (t.stopped || (!before_ran && !before_waited))
		return 0; /* it could not run, or there is nothing to compare with */
	if (t.vcpus && t.vcpu_ran > before_vcpu && !h->rung)
		h->vcpu_runs = true;
	/* A thread that has ended takes its share away. */
	ran = h->ran > before_ran ? h->ran - before_ran : 0;
	waited = h->waited > before_waited ? h->waited - before_waited : 0;
	if (ran + waited < 1000000)		 /* less than a millisecond: they slept ... */
		return t.runnable ? 0 : elapsed; /* ... or one waits that has had no CPU yet */
	return elapsed * ran / (ran + waited);
}

/* Whether silence may be a hang at all: the CPUs of a VM that was paused never run. */
static bool may_hang(struct broker *b)
{
	struct threads t;
	pid_t pid = peer(b);

	return b->dom.hang.vcpu_runs || !pid || !look_at_threads(pid, &t) || !t.vcpus;
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
	s->rung = false;
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
	bool asked = false, mute = false, rung = false;

	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		struct slot *s = &b->sessions.slots[i];

		if (s->state != SLOT_LIVE || !s->served || !is_silent(b, s))
			continue;
		if (!asked) /* of /proc, and once */
			counted = usable(b, elapsed);
		asked = true;
		s->silent += counted;
		if (s->silent >= b->cfg->hang_ms / 2 && !s->rung) {
			ring(b, s);
			s->rung = rung = true;
		}
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
		h->vcpu_runs = false;
	}
	h->rung = rung;
	if (h->hung && !worst && !mute) {
		log_warn("the agent goes on, after %" PRIu64 " ms", now - h->since);
		h->hung = false;
	} else if (!h->hung && (worst || mute) && may_hang(b)) {
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
	for (uint32_t i = 1; i <= b->cfg->channels; i++) {
		b->sessions.slots[i].silent = 0;
		b->sessions.slots[i].rung = false;
	}
}
