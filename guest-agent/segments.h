/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * segments.h - shared memory beside the channels (vhost-sc/attach.h).
 *
 * The broker announces a segment with the ticket that it belongs to; it stays mapped here until the ticket is gone and
 * its last user has put it. Whoever serves a ticket's handle finds the segment by the ticket's number. The segment's
 * bytes are the host's as much as ours: copy once, check, use. It cannot shrink: an access never faults.
 *
 * Those whose "ticket" is below SC_OWN_MAX are the agent's own (vhost-sc/state.h), and stay.
 */
#ifndef SC_AGENT_SEGMENTS_H
#define SC_AGENT_SEGMENTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "transport.h"

struct segments;

struct segment {
	struct segment *next; /* the table's */
	_Atomic uint32_t refs;
	uint32_t number;
	uint64_t ticket;
	struct mapping map; /* base and size are for everybody */
};

struct segments *segments_new(struct transport *tr);

/* SC_MSG_SEGMENT. 0 or -errno. Main thread, as all below but find and put. */
int segments_add(struct segments *t, const struct sc_msg_segment *m, struct transport_fds *fds);

/* SC_MSG_SEGMENT_END: nobody finds it any more. False: there is none with this number. */
bool segments_end(struct segments *t, uint32_t number);

/* Unmaps one that has ended and that nobody uses any more; its number, or 0: none left. */
uint32_t segments_collect(struct segments *t);

/* The ticket's segment with a reference, or NULL. Any thread. */
struct segment *segment_find(struct segments *t, uint64_t ticket);
/* Gives it back. Any thread. After the last one of an ended segment main is to be woken (agent->main_event): then this
 * returns true. */
bool segment_put(struct segment *s);

#endif
