/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hang.h - an agent that is there and does nothing: seen by its heartbeat.
 *
 * A poller of the agent counts up sc_channel_guest.heartbeat of its channels at least every 100 ms while calls pend
 * (channel.h). A channel in whose lanes something pends and whose heartbeat stands still for --hang-ms belongs to an agent that
 * hangs, or to a guest that does; the domain is "hung" then. Somebody else has to act on that (scctl watch); it is the domain's
 * state, and ctl's "watch" tells of it.
 *
 * No false alarm:
 *
 *   an idle poller beats every second only     a channel that is silent for half the time is rung for: who lives, wakes and beats.
 *                                              (So nobody can make a domain look hung by announcing calls that are none.)
 *   the host is loaded                         what is counted is not time, but the time that the guest could use: each tick counts
 *                                              in the proportion in which the threads of its process ran, of the time that they
 *                                              wanted to (/proc/PID/task/TID/schedstat). A process all of whose threads
 *                                              sleep could have run: such a tick counts whole. The kernel adds to what a thread has
 *                                              waited when it gets its CPU; so a process that has a runnable thread
 *                                              and has not run at all was starved: such a tick does not count
 *   the host, or this broker, stood still      a tick that comes late does not count
 *   QEMU was stopped (SIGSTOP, a debugger)     such a tick does not count
 *   the VM was paused (virsh suspend)          its device goes on, but its CPUs' threads do not run at all, while even an idle guest takes
 *                                              timer interrupts, at least one in 4 s. (QEMU itself may stir a CPU's thread when
 *                                              the channel is rung for: the tick after that is no proof.) A guest that halted for good
 *                                              with interrupts off looks the same, and is never called hung
 *
 * Nothing here is believed: an agent that beats and does nothing otherwise is told by the deadlines of its callers. One that does
 * not beat harms itself. What a process writes into its channel can make a tick cost a few reads more.
 */
#ifndef VHOST_SC_HANG_H
#define VHOST_SC_HANG_H

#include <stdbool.h>
#include <stdint.h>

#define HANG_DEFAULT_MS 1000u

struct broker;
struct slot;

struct hang {
	bool hung;
	uint64_t since; /* loop_now() when that was found */
	uint64_t next;	/* tick */
	uint64_t last;
	uint64_t
	    ran; /* of all threads of the guest's process, ns, at the last tick that asked; 0: not asked */
	uint64_t waited;
	uint64_t vcpu_ran; /* of `ran`: by the threads that are a VM's CPUs */
	bool rung;	   /* at the last tick: what ran since may have run for that */
	bool
	    vcpu_runs; /* the VM's CPUs have run in this silence, and not because they were rung for */
	/* the agent's main thread, while no channel is served: it rebuilds */
	uint64_t main_beat;
	uint64_t main_silent;
};

/* Acts if it is time to, and names the next tick. */
void hang_tick(struct broker *b, uint64_t now);

/* The incarnation is over: forgets what was counted. */
void hang_forget(struct broker *b);

#endif
