/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * relay.h - two threads that take turns at being a poller, so that the poller may make system calls that could block.
 *
 * Handing a call to a worker costs two wake-ups, several times what most changes to a file or directory take. So the poller
 * makes such calls itself. One that turns out to be slow must not keep the poller's other lanes waiting, though. So each
 * poller has a second thread:
 *
 *   the runner     is the poller: it runs the poller's loop. Around a call that may block it says so (relay_enter(),
 *                  relay_leave())
 *   the stand-by   looks once per WATCH_NS whether the runner is still in the same call as before. If so, it takes the
 *                  poller over and becomes the runner: its loop starts at the next round, with everything as it was when the
 *                  call began. The old runner finds at the end of its call that it lost the poller, gives the call back as
 *                  a worker would, touches nothing else of the poller, and becomes the stand-by
 *
 * Both sides decide by one compare-and-exchange of `turn`, which is odd during a call: whoever moves it to the next even number
 * has the poller. While there is no stand-by (it has just taken over), relay_may_enter() refuses and workers do the work; so it
 * does for a while after a call that blocked, be it shorter than the stand-by's looks: such calls come in groups (a cold cache, a
 * full journal, throttled writers), and several workers wait for the disk together.
 *
 * While no such calls are made, the stand-by sleeps without a time-out, and the next call wakes it.
 */
#ifndef SC_AGENT_RELAY_H
#define SC_AGENT_RELAY_H

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent.h"

struct relay;

/* One of the two threads. */
struct runner {
	struct actor actor; /* first: what the operations see */
	struct relay *relay;
	pthread_t thread;
	bool started;
	jmp_buf home; /* the bottom of the thread's stack: where one that lost the poller goes */
};

struct relay {
	struct runner runners[2];
	struct runner *now;		/* who runs; for the runner alone, like the next one */
	uint64_t entered;		/* TSC when its present or last call began */
	void (*loop)(void *arg);	/* the poller's; returns when it is to stop */
	void (*ready)(struct actor *a); /* what each thread does first, with its actor */
	void *arg;
	/* Written by both threads: a line of its own. */
	_Alignas(SC_LINE) _Atomic uint32_t turn; /* odd: the runner is in a call that may block */
	_Atomic uint32_t watch;			 /* futex word: WATCH_* of relay.c */
	_Atomic bool standing_by;
	_Atomic bool stopping;
	_Atomic int64_t taken_at;   /* CLOCK_MONOTONIC ns, when the poller was taken over last */
	_Atomic int64_t rest_until; /* likewise; 0: no rest */
	_Atomic uint32_t takeovers; /* so far */
};

/*
 * Starts the runner, and with `second` the stand-by. ready is called first by each thread, with its actor; loop is called by
 * whoever runs, possibly several times in turn by both. False: no thread could be started.
 */
bool relay_start(struct relay *r, struct agent *agent, bool second, void (*ready)(struct actor *a),
		 void (*loop)(void *arg), void *arg);
/* The loop has been told to return: ends both threads. */
void relay_stop(struct relay *r);
/* CPUs on which both may run. 0 or an errno. */
int relay_pin(struct relay *r, size_t size, const cpu_set_t *set);
/* CPU time of both, nanoseconds. */
uint64_t relay_cpu_ns(struct relay *r);

/* Runner: may it make calls that may block now? */
bool relay_may_enter(struct relay *r);
/* Such a call begins. All that the next round needs must be in memory, for another thread may run it. Returns a token. */
uint32_t relay_enter(struct relay *r);
/* The call is over. True: this thread is still the runner. False: it may only give the call back and relay_stand_by(). */
bool relay_leave(struct relay *r, uint32_t token);
/* Leaves the loop, wherever it is, for the stand-by's. Nothing on the stack may need an end. */
_Noreturn void relay_stand_by(struct runner *me);

#endif
