/* SPDX-License-Identifier: BSD-3-Clause */
/* process.c - host processes and their end; see process.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blob.h"
#include "broker.h"
#include "log.h"

/* True if the process behind pidfd has ended. */
static bool ended(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, 0) != 0;
}

/* When the process with this pid started, in nanoseconds of CLOCK_BOOTTIME. Returns 0 or -ESRCH. */
static int start_time(pid_t pid, uint64_t *ns)
{
	unsigned long long ticks;
	char path[40];
	char text[1024];
	ssize_t n;
	char *p;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -ESRCH;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -ESRCH;
	text[n] = '\0';
	/* Field 22; the second is a name in parentheses that may hold anything, blanks and ")"
	 * included. */
	p = strrchr(text, ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (!p || sscanf(p, " %llu", &ticks) != 1)
		return -ESRCH;
	*ns = ticks * (1000000000ull / (unsigned long long)sysconf(_SC_CLK_TCK));
	return 0;
}

/* A pidfd of the process that connected before `since`, not of one that got its pid later. */
static int open_pidfd(pid_t pid, uint64_t since)
{
	uint64_t started;
	int fd;

	if (pid <= 0)
		return -ESRCH;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return errno == EMFILE || errno == ENFILE ? -EMFILE : -ESRCH;
	if (start_time(pid, &started) || started > since || ended(fd)) {
		close(fd);
		return -ESRCH;
	}
	return fd;
}

static void read_comm(struct process *p)
{
	char path[40];
	char text[32];
	ssize_t n;
	int fd;

	snprintf(p->comm, sizeof(p->comm), "?");
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)p->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, text, sizeof(text));
	close(fd);
	if (n > 0)
		snprintf(p->comm, sizeof(p->comm), "%.*s", (int)n - 1,
			 text); /* without its newline */
}

static uint32_t idle_of_user(const struct processes *ps, uid_t uid)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < ps->cap; i++)
		n += ps->v[i].number && ps->v[i].uid == uid && !ps->v[i].sessions;
	return n;
}

/* The living process with this pid. A pid is not given away before the pidfd has reported the end.
 */
static uint32_t find(const struct processes *ps, pid_t pid)
{
	for (uint32_t i = 0; i < ps->cap; i++) {
		if (ps->v[i].number && ps->v[i].pid == pid && !ended(ps->v[i].pidfd))
			return i;
	}
	return PROCESS_NONE;
}

static int take_entry(struct processes *ps, uint32_t *index)
{
	struct process *bigger;
	uint32_t cap;

	for (uint32_t i = 0; i < ps->cap; i++) {
		if (!ps->v[i].number) {
			*index = i;
			return 0;
		}
	}
	cap = ps->cap ? ps->cap * 2 : 64;
	bigger = realloc(ps->v, cap * sizeof(*ps->v));
	if (!bigger)
		return -ENOMEM;
	memset(bigger + ps->cap, 0, (cap - ps->cap) * sizeof(*ps->v));
	*index = ps->cap;
	ps->v = bigger;
	ps->cap = cap;
	return 0;
}

int process_join(struct broker *b, pid_t pid, uid_t uid, int pidfd, uint64_t since, uint32_t *index)
{
	struct processes *ps = &b->procs;
	struct process *p;
	int err;

	*index = find(ps, pid);
	if (*index != PROCESS_NONE) {
		if (pidfd >= 0)
			close(pidfd);
		ps->v[*index].sessions++;
		read_comm(&ps->v[*index]); /* it may have called exec */
		return 0;
	}
	if (pidfd < 0)
		pidfd = open_pidfd(pid, since);
	if (pidfd < 0)
		return pidfd;
	err = uid && idle_of_user(ps, uid) >= PROCESS_MAX_IDLE ? -EUSERS : take_entry(ps, index);
	if (!err)
		err = hangup_watch(b, HANGUP_PROCESS, *index, pidfd);
	if (err) {
		close(pidfd);
		return err;
	}
	p = &ps->v[*index];
	*p = (struct process){
	    .number = ++ps->last_number, .pid = pid, .uid = uid, .pidfd = pidfd, .sessions = 1};
	read_comm(p);
	ps->used++;
	return 0;
}

void process_leave(struct broker *b, uint32_t index)
{
	if (index < b->procs.cap && b->procs.v[index].sessions)
		b->procs.v[index].sessions--;
}

void process_exited(struct broker *b, uint32_t index)
{
	struct process *p;
	uint32_t number;

	if (index >= b->procs.cap || !b->procs.v[index].number)
		return;
	session_end_process(b, index);
	p = &b->procs.v[index];
	hangup_unwatch(b, p->pidfd);
	close(p->pidfd);
	number = p->number;
	*p = (struct process){0};
	b->procs.used--;
	domain_process_exit(b, number);
}

void process_save(const struct broker *b, struct blob_out *out)
{
	const struct processes *ps = &b->procs;

	blob_put_u32(out, ps->last_number);
	blob_put_u32(out, ps->cap);
	for (uint32_t i = 0; i < ps->cap; i++) {
		const struct process *p = &ps->v[i];

		blob_put_u32(out, p->number);
		if (!p->number)
			continue;
		blob_put_u32(out, (uint32_t)p->pid);
		blob_put_u32(out, p->uid);
		blob_put_fd(out, p->pidfd);
		blob_put_u32(out, p->sessions);
		blob_put_bytes(out, p->comm, sizeof(p->comm));
	}
}

int process_load(struct broker *b, struct blob_in *in)
{
	struct processes *ps = &b->procs;

	ps->last_number = blob_get_u32(in);
	ps->cap = blob_get_u32(in);
	if (in->err || ps->cap > 1u << 20)
		return -EBADMSG;
	ps->v = calloc(ps->cap ? ps->cap : 1, sizeof(*ps->v));
	if (!ps->v)
		return -ENOMEM;
	for (uint32_t i = 0; i < ps->cap && !in->err; i++) {
		struct process *p = &ps->v[i];
		int err;

		p->number = blob_get_u32(in);
		if (!p->number)
			continue;
		p->pid = (pid_t)blob_get_u32(in);
		p->uid = blob_get_u32(in);
		p->pidfd = blob_get_fd(in);
		p->sessions = blob_get_u32(in);
		blob_get_bytes(in, p->comm, sizeof(p->comm));
		ps->used++;
		err = hangup_watch(b, HANGUP_PROCESS, i, p->pidfd);
		if (err)
			return err;
	}
	return in->err;
}

void process_close_all(struct broker *b)
{
	for (uint32_t i = 0; i < b->procs.cap; i++) {
		if (b->procs.v[i].number)
			close(b->procs.v[i].pidfd);
	}
	free(b->procs.v);
	b->procs = (struct processes){0};
}
