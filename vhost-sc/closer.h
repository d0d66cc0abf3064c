/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * closer.h - closes descriptors that came from a client, without waiting for it.
 *
 * A client may send any descriptor, and close() of one can take as long as its sender likes: a TCP
 * socket with SO_LINGER, a file of a FUSE file system of his own, or a Unix socket with either of
 * them in its queue; the connection itself may be such a socket. So whatever is not known to be
 * harmless is closed by a thread, the only ones that the broker has. One thread does for all,
 * unless it is held up: after CLOSER_STUCK_MS it is sent a signal, which ends a linger, and another
 * thread goes on with the rest. What cannot be interrupted (FUSE) keeps its thread; there are
 * CLOSER_THREADS at most.
 */
#ifndef VHOST_SC_CLOSER_H
#define VHOST_SC_CLOSER_H

#include <stdbool.h>
#include <stdint.h>

#define CLOSER_THREADS	64
#define CLOSER_STUCK_MS 1000

/* Installs the handler of the signal. Threads are started when there is something to close. */
void closer_init(void);

/* Closes fd, some time. */
void closer_close(int fd);

/* Sees to threads that are held up. Returns true while something waits to be closed: call again
 * after CLOSER_STUCK_MS. */
bool closer_tick(uint64_t now);

#endif
