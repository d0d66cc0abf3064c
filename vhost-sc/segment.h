/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * segment.h - shared memory beside the channels (protocol: include/vhost-sc/attach.h, control.h).
 *
 * A segment belongs to a ticket and lies in the part of the window that the channels' slots leave.
 * Its way is a slot's (session.h): made, mapped into the window, announced to the agent, answered;
 * only then does the process get its memfd. When the ticket hangs up, the agent is told to let go
 * (bounded), the memory is unmapped and freed. A segment that lives through a change of the agent is
 * mapped and announced anew by the same code.
 *
 * Some have no ticket: the agent's own (vhost-sc/state.h), made when the first agent that wants them starts, for good.
 *
 * Places are multiples of a segment's size, the lowest free one first.
 */
#ifndef VHOST_SC_SEGMENT_H
#define VHOST_SC_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "session.h"

struct broker;
struct client;
struct blob_out;
struct blob_in;

/* What transport_ops.map() calls segments by: this and their index. Slots are below. */
#define SEGMENT_TAG 0x10000u

/* Bytes of the agent's own segments: of the first if the area has room for so much, of the others unless told otherwise, and at
 * least. */
#define SEGMENT_IO	      (4ull << 20)
#define SEGMENT_STATE_DEFAULT (16ull << 20)
#define SEGMENT_LOG_DEFAULT   (64ull << 20)
#define SEGMENT_KEPT_MIN      (1ull << 20)

/* Bytes that a loopback domain, which has no window, may have in segments besides the agent's own. */
#define SEGMENT_LOOPBACK (256ull << 20)

struct segment {
	uint32_t number; /* 0: this entry is free */
	uint32_t own;	 /* enum sc_own + 1: the agent's own; 0: a ticket's */
	uint64_t ticket; /* 0: the agent's own, or the ticket is gone (`ending`) */
	uid_t uid;
	int memfd;
	uint64_t offset; /* in the window */
	uint64_t size;
	enum slot_map map;
	bool announced;	       /* SEGMENT was sent to the present agent */
	bool served;	       /* and answered */
	bool ending;	       /* its ticket is gone */
	uint64_t deadline;     /* of being made and of ending, or LOOP_NEVER */
	struct client *client; /* who waits for it, or NULL */
	uint32_t seq;	       /* of his request */
};

struct segments {
	struct segment *v; /* owned */
	uint32_t cap;
	uint32_t used;
	uint32_t last_number;
	uint64_t bytes; /* of all */
};

/* Bytes of the area that segments lie in. */
uint64_t segment_area(const struct broker *b);

/* A client asks for the segment of the ticket `fd`; answers now or later. */
void segment_request(struct client *c, const struct sc_attach_segment *m, int fd);

/* The client is going. */
void segment_client_gone(struct broker *b, const struct client *c);

/* A ticket hung up; its RELEASE is queued for the agent. */
void segment_ticket_gone(struct broker *b, uint64_t ticket);
/* After all RELEASEs were sent: tells the agent of segments that end. */
void segment_flush_ends(struct broker *b);

/* The link came up, an agent was started: maps and announces what is there. */
void segment_advance_all(struct broker *b);

/* As session_agent_gone() and session_memory_gone(). */
void segment_agent_gone(struct broker *b);
void segment_memory_gone(struct broker *b);

/* Answers of the other side; index as in the tag. */
void segment_mapped(struct broker *b, uint32_t index, int status);
void segment_unmapped(struct broker *b, uint32_t index, int status);
void segment_taken(struct broker *b, uint32_t number, int status);
void segment_ended(struct broker *b, uint32_t number);

/* The agent's own of this kind (enum sc_own), or NULL. */
struct segment *segment_own(struct broker *b, uint32_t kind);
/* Makes those that the agent can use and that are not there. Returns what there is: bit i for kind i. */
uint32_t segment_make_own(struct broker *b);
/* True once the agent has taken all of its own. */
bool segment_own_taken(const struct broker *b);

void segment_tick(struct broker *b, uint64_t now);
bool segment_busy(const struct broker *b);
void segment_save(const struct broker *b, struct blob_out *out);
int segment_load(struct broker *b, struct blob_in *in);
void segment_close_all(struct broker *b);

#endif
