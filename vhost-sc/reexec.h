/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * reexec.h - the broker replaces itself by a new run of its program, and nobody notices.
 *
 * Calls do not pass through the broker, so a new program (an upgrade) may take its place while they
 * go on, if it gets everything the old one had: listening sockets, connections of processes, of the
 * agent or of QEMU, channels, tickets, pidfds. All of it goes over exec(2): descriptors stay open,
 * and a memfd says what they are. The process keeps its pid, its lock, and its parent.
 *
 * The exec is made at a moment when nothing is half done: no attach under way, no memory
 * being mapped. Requests that come meanwhile wait, and are served by the new program. If no such
 * moment comes within RESTART_MS, or the new program cannot be started, the old one goes on.
 */
#ifndef VHOST_SC_REEXEC_H
#define VHOST_SC_REEXEC_H

#include <stdbool.h>
#include <stdint.h>

struct broker;

#define RESTART_MS 40000 /* longer than an attach or an unmap may take */

/* Asks for a restart. */
void reexec_request(struct broker *b);

/* Called when the loop comes round, while a restart is asked for: makes it if the moment is right.
 * Returns only if it was not made. */
void reexec_try(struct broker *b);

/* True if this run was started by reexec_try(); the state is then loaded instead of made. */
bool reexec_pending(void);

/* Takes everything over. b has its configuration, loop and hangups. Returns 0 or -errno. */
int reexec_load(struct broker *b);

#endif
