/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hangup.h - ends: of the last copy of a ticket, and of processes.
 *
 * Both are kernel events on a descriptor (EPOLLHUP of a socket pair, EPOLLIN of a pidfd). They are
 * kept in an epoll instance of their own, inside the loop's, so that "have all ends been seen?"
 * (SC_MSG_SYNC) can be answered: the kernel posts a hang-up before close() or exit returns, so what
 * is not in the set after a sweep has not happened yet. The kernel's tag is an index, not a
 * pointer: an event of a batch whose object an earlier one freed is recognised.
 */
#ifndef VHOST_SC_HANGUP_H
#define VHOST_SC_HANGUP_H

#include <stdint.h>

#include "loop.h"

struct broker;

enum hangup_kind {
	HANGUP_TICKET = 1,
	HANGUP_PROCESS = 2,
};

struct hangups {
	int epfd;
	struct source src; /* of epfd, in the loop */
};

/* Sets up. Returns 0 or -errno. */
int hangup_init(struct broker *b);
void hangup_close(struct broker *b);

/* Watches fd: a ticket's broker end or a pidfd. `index` is passed to ticket_hangup() or
 * process_exited(). Returns 0 or -errno. */
int hangup_watch(struct broker *b, enum hangup_kind kind, uint32_t index, int fd);

/* Stops watching (before fd is closed). */
void hangup_unwatch(struct broker *b, int fd);

/* Handles all ends that have happened, and tells the agent. */
void hangup_sweep(struct broker *b);

#endif
