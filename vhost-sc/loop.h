/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loop.h - the broker's one thread: descriptors that become ready, and one nearest deadline.
 *
 * A source is embedded in the object that owns the descriptor. Events are taken from the kernel one
 * at a time: a callback may then remove any source, its own included, and free the object around
 * it, without a list of the dead. The broker handles hundreds of events a second at most (it is
 * never on a call's path), and epoll itself is fair between ready descriptors.
 */
#ifndef VHOST_SC_LOOP_H
#define VHOST_SC_LOOP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

struct source;

/* Called when the source is ready; `events` are EPOLL*. */
typedef void source_fn(struct source *s, uint32_t events);

struct source {
	int fd; /* the owner's; -1 while not in the loop */
	source_fn *fn;
	uint32_t events; /* asked for */
};

#define LOOP_NEVER UINT64_MAX

struct loop {
	int epfd;
	uint64_t deadline; /* the nearest, in loop_now() terms, or LOOP_NEVER */
};

/* Makes the loop. Returns 0 or -errno. */
int loop_init(struct loop *l);

/* Frees it. Sources are their owners' affair. */
void loop_close(struct loop *l);

/* Watches fd for `events` (EPOLLHUP and EPOLLERR are always reported). Returns 0 or -errno; on
 * failure the source is not in the loop. */
int loop_add(struct loop *l, struct source *s, int fd, uint32_t events, source_fn *fn);

/* Changes what a source is watched for. */
void loop_want(struct loop *l, struct source *s, uint32_t events);

/* Stops watching. The descriptor stays open. Does nothing for a source that is not in the loop. */
void loop_del(struct loop *l, struct source *s);

/* Milliseconds of CLOCK_MONOTONIC. */
uint64_t loop_now(void);

/* Makes loop_run() return no later than at `when`. */
void loop_at(struct loop *l, uint64_t when);

/* Waits for one event and handles it, or returns at the deadline. */
void loop_run(struct loop *l);

#endif
