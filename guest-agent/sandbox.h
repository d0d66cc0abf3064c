/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sandbox.h - the system calls that the agent may make from the moment it serves.
 *
 * Whoever takes the agent over through a bug keeps what it is there for (files below its root, under any uid of its
 * callers), but runs no other program, mounts nothing, loads nothing into the kernel, traces nobody and opens no socket.
 */
#ifndef SC_AGENT_SANDBOX_H
#define SC_AGENT_SANDBOX_H

#include <stdbool.h>

/*
 * Installs the filter, with the calls of `more` (ended by -1; or NULL) besides, for all threads of the process, running ones included. Rings must have been made before (with
 * io_uring a filter sees nothing: each ring carries restrictions of its own, poller.c). Calls that are not in the list fail with ENOSYS.
 * False after a log message: the kernel or the build has no seccomp; the agent goes on without.
 */
bool sandbox_enter(const int *more);

#endif
