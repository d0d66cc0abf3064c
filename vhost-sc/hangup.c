/* SPDX-License-Identifier: BSD-3-Clause */
/* hangup.c - ends of tickets and processes; see hangup.h. */
#include <errno.h>
#include <unistd.h>

#include "broker.h"

#define BATCH 64

static void on_ready(struct source *s, uint32_t events)
{
	hangup_sweep(container_of(s, struct broker, hangups.src));
}

int hangup_init(struct broker *b)
{
	int err;

	b->hangups.epfd = epoll_create1(EPOLL_CLOEXEC);
	if (b->hangups.epfd < 0)
		return -errno;
	err = loop_add(&b->loop, &b->hangups.src, b->hangups.epfd, EPOLLIN, on_ready);
	if (err)
		hangup_close(b);
	return err;
}

void hangup_close(struct broker *b)
{
	loop_del(&b->loop, &b->hangups.src);
	if (b->hangups.epfd >= 0)
		close(b->hangups.epfd);
	b->hangups.epfd = -1;
}

int hangup_watch(struct broker *b, enum hangup_kind kind, uint32_t index, int fd)
{
	/* A ticket is asked for its hang-up alone, which epoll always reports. */
	struct epoll_event ev = {.events = kind == HANGUP_PROCESS ? EPOLLIN : 0,
				 .data.u64 = (uint64_t)kind << 32 | index};

	return epoll_ctl(b->hangups.epfd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

void hangup_unwatch(struct broker *b, int fd)
{
	epoll_ctl(b->hangups.epfd, EPOLL_CTL_DEL, fd, NULL);
}

void hangup_sweep(struct broker *b)
{
	struct epoll_event ev[BATCH];
	int n;

	/* Ends are finite: every event handled removes its object. */
	while ((n = epoll_wait(b->hangups.epfd, ev, BATCH, 0)) > 0) {
		for (int i = 0; i < n; i++) {
			uint32_t index = (uint32_t)ev[i].data.u64;

			if (ev[i].data.u64 >> 32 == HANGUP_TICKET)
				ticket_hangup(b, index);
			else
				process_exited(b, index);
		}
	}
	domain_flush_ends(b);
	segment_flush_ends(b);
}
