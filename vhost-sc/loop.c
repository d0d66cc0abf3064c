/* SPDX-License-Identifier: BSD-3-Clause */
/* loop.c - the broker's event loop; see loop.h. */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"

int loop_init(struct loop *l)
{
	l->deadline = LOOP_NEVER;
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	return l->epfd < 0 ? -errno : 0;
}

void loop_close(struct loop *l)
{
	if (l->epfd >= 0)
		close(l->epfd);
	l->epfd = -1;
}

int loop_add(struct loop *l, struct source *s, int fd, uint32_t events, source_fn *fn)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	s->fd = -1;
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev))
		return -errno;
	s->fd = fd;
	s->fn = fn;
	s->events = events;
	return 0;
}

void loop_want(struct loop *l, struct source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	if (s->fd < 0 || s->events == events)
		return;
	/* Changing a registration that exists cannot fail. */
	epoll_ctl(l->epfd, EPOLL_CTL_MOD, s->fd, &ev);
	s->events = events;
}

void loop_del(struct loop *l, struct source *s)
{
	if (s->fd < 0)
		return;
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, s->fd, NULL);
	s->fd = -1;
}

uint64_t loop_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void loop_at(struct loop *l, uint64_t when)
{
	if (when < l->deadline)
		l->deadline = when;
}

void loop_run(struct loop *l)
{
	struct epoll_event ev;
	uint64_t now;
	int timeout = -1;

	if (l->deadline != LOOP_NEVER) {
		now = loop_now();
		timeout = l->deadline <= now ? 0 : (int)(l->deadline - now);
		if (l->deadline > now && l->deadline - now > 3600000)
			timeout = 3600000;
	}
	if (epoll_wait(l->epfd, &ev, 1, timeout) == 1) {
		struct source *s = ev.data.ptr;

		s->fn(s, ev.events);
	}
}
