/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * control.h - the main thread: the agent's side of the conversation with the broker.
 *
 * HELLO and START first; when the own segments that START promises have come, what they keep is rebuilt, in a thread of its own.
 * Then, or rather all the while, one loop over the transport, signals, and the mailbox eventfd by which other threads tell
 * that something is to be done here: a channel has ended, a line is to be logged at the broker, a lock request wants the
 * broker's SYNC, the quiescing is over. Besides, once in a while, heartbeat and statistics into the state region.
 */
#ifndef SC_AGENT_CONTROL_H
#define SC_AGENT_CONTROL_H

#include "agent.h"

/* Exit statuses of the agent. */
#define EXIT_ENDED   0 /* told to end, by SIGTERM or SHUTDOWN: all is synced */
#define EXIT_PROBLEM 1 /* could not start, or lost its broker */
#define EXIT_USAGE   2

/* Says hello, serves, and ends in order. Signals must be blocked in the calling thread. Returns an exit status. */
int control_run(struct agent *agent);

#endif
