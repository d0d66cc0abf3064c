/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ticket.h - tickets: how the last close of a remote file is learnt, whoever does it (attach.h).
 *
 * A ticket is a stream socket pair. The process gets one end and puts it at the number of its
 * descriptor; the broker keeps the other and waits for its hang-up.
 *
 * Which directions are shut. The kernel mirrors shutdown() to the peer of a stream pair, and
 * reports EPOLLHUP on an end once both of its directions are shut. So exactly one may be shut in
 * advance, and the broker's end is shut for reading: then a write to the app end fails (EPIPE) and
 * data cannot be lost into it, nor can the broker be made to hold any. Reading the app end cannot
 * be made to return end of file as well (that would be the second direction, and the hang-up); the
 * app end is non-blocking, so that a read fails with EAGAIN instead of waiting.
 *
 * Identity. A claim shows descriptors; SO_COOKIE, a number that the kernel gives each socket once,
 * tells which ticket one is. It cannot be forged: a socket that is not the app end has another
 * cookie.
 *
 * Numbers. n counts up and begins anew after SC_MAX_TICKETS, passing over numbers whose ticket is
 * still held: a number rests as long as possible before it is used again, because its release
 * travels to the agent on another path than the open that uses it next.
 */
#ifndef VHOST_SC_TICKET_H
#define VHOST_SC_TICKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vhost-sc/attach.h>

#include "idmap.h"

struct broker;
struct slot;
struct blob_out;
struct blob_in;

struct ticket {
	uint64_t number; /* session << 32 | n; 0: this entry is free */
	uint64_t cookie; /* of the app end */
	int fd;		 /* the broker's end */
	uid_t uid;	 /* of the session it was made for */
	uint32_t next_free;
	struct sc_ticket_name name; /* .ticket = 0: not named */
};

#define TICKET_NONE UINT32_MAX

struct tickets {
	struct ticket *v; /* owned */
	uint32_t cap;
	uint32_t used;	  /* outstanding */
	uint32_t free;	  /* first free entry, TICKET_NONE: none */
	uint32_t limit;	  /* most outstanding, from RLIMIT_NOFILE */
	uint64_t issued;  /* ever */
	uint64_t hangups; /* ever */
	struct idmap by_number;
	struct idmap by_cookie;
};

/* Sets the limit. */
void ticket_init(struct broker *b);

/* Makes up to `count` tickets for a session: numbers in numbers[], app ends in fds[] (the caller's,
 * to be sent and closed). Returns how many were made; less than count if a limit is met. */
uint32_t ticket_make(struct broker *b, struct slot *s, uint32_t count, uint64_t *numbers, int *fds);

/* Takes back tickets that could not be handed over. */
void ticket_unmake(struct broker *b, const uint64_t *numbers, uint32_t count);

/* Stores what a ticket of `session` holds. Ignores other sessions' tickets. */
void ticket_set_name(struct broker *b, uint32_t session, const struct sc_ticket_name *name);

/* Stores what the ticket that fd is holds, if it has no name yet and is the one that *name says. */
void ticket_name_held(struct broker *b, int fd, const struct sc_ticket_name *name);

/* What does fd hold? Fills *name; ticket = 0: not a ticket of this domain, or not named. Returns
 * true if it is a ticket (which can be closed without danger). */
bool ticket_claim(struct broker *b, int fd, struct sc_ticket_name *name);

/* The number of the ticket that fd is; 0: it is none of this domain's. */
uint64_t ticket_number(const struct broker *b, int fd);

/* The last app end of entry `index` was closed: the agent is to release the file. */
void ticket_hangup(struct broker *b, uint32_t index);

void ticket_save(const struct broker *b, struct blob_out *out);
int ticket_load(struct broker *b, struct blob_in *in);
void ticket_close_all(struct broker *b);

#endif
