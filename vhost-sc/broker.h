/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * broker.h - the one context that everything in the broker hangs from.
 *
 * The parts, and who calls whom:
 *
 *   main.c       options, sockets, signals, the loop
 *   attach.c     processes: attach.sock; asks session.c for channels and ticket.c for tickets
 *   session.c    window slots: channels made ahead, sessions from attach to detach
 *   segment.c    memory beside the channels, which belongs to tickets
 *   object.c     memory that stands for mapped files
 *   process.c    host processes: numbers, and their end through a pidfd
 *   ticket.c     tickets: numbers, and the hang-up of the last copy
 *   hangup.c     the one place where ends are looked for, so that they can be swept (SC_MSG_SYNC)
 *   domain.c     the agent: hello, incarnations, messages of control.h
 *   hang.c       agents that hang
 *   transport_*  how messages and memory get there (transport.h)
 *   vhost_user.c, virtqueue.c, guestmem.c
 *                what the device's transport is made of
 *   ctl.c        ctl.sock: status and orders
 *   reexec.c     the broker replaces itself
 *   closer.c     closes what clients sent, in threads of its own
 *
 * One thread does everything else, and nothing in it waits: every peer may be slow or hostile. What
 * takes more than one event is a state in a struct and, where the peer could keep it forever, a
 * deadline (broker_tick()).
 */
#ifndef VHOST_SC_BROKER_H
#define VHOST_SC_BROKER_H

#include <stdbool.h>
#include <stdint.h>

#include "attach.h"
#include "config.h"
#include "ctl.h"
#include "domain.h"
#include "hangup.h"
#include "loop.h"
#include "object.h"
#include "process.h"
#include "reexec.h"
#include "segment.h"
#include "session.h"
#include "ticket.h"
#include "transport.h"

struct broker {
	struct config *cfg;
	struct loop loop;
	int lock_fd;	   /* RUNDIR/NAME/lock, locked */
	int spare_fd;	   /* for sock_accept() */
	uint64_t fd_limit; /* RLIMIT_NOFILE in force */
	uint64_t started;  /* loop_now() when the domain's broker first started */

	struct source signals; /* a signalfd */
	struct hangups hangups;
	struct sessions sessions;
	struct processes procs;
	struct tickets tickets;
	struct segments segments;
	struct objects objects;
	struct domain dom;
	struct clients clients;
	struct ctl ctl;
	const struct transport_ops *tr;
	void *transport; /* its own, from open() to close() */

	bool stop;	      /* leave the loop */
	bool restart;	      /* replace the process once nothing is half done (reexec.h) */
	uint64_t restart_due; /* or give that up at this time */
	uint32_t restarts;
};

/* Acts on all deadlines that have passed, and finds the next. */
void broker_tick(struct broker *b);

#endif
