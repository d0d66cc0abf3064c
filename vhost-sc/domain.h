/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * domain.h - the agent's side of the broker: who serves, since when, and the messages of control.h.
 *
 *   DOWN       nobody there: no VM connected, or no loopback agent
 *   STARTING   a VM is connected; its agent has not said hello, was refused or cut off, or has been told START and rebuilds
 *              what its own segments keep (`recovering`)
 *   READY      it has; channels are being announced or are served
 *   QUIESCING  told to quiesce or to shut down: no new sessions
 *
 * An agent's hello starts an incarnation, whatever was before: the old one, if there is one, is
 * over. What ended while nobody served (tickets, processes) is kept, and told to the next.
 */
#ifndef VHOST_SC_DOMAIN_H
#define VHOST_SC_DOMAIN_H

#include <stdbool.h>
#include <stdint.h>

#include <vhost-sc/control.h>

#include "hang.h"

struct broker;
struct blob_out;
struct blob_in;

/* A message of the agent, copied out of its reach. */
union agent_msg {
	struct sc_msg_hdr h;
	struct sc_msg_hello hello;
	struct sc_msg_status status;
	struct sc_msg_log log;
	struct sc_msg_segment_status segment;
	struct sc_msg_object object;
	unsigned char bytes[SC_MSG_MAX];
};

enum domain_state {
	DOM_DOWN,
	DOM_STARTING,
	DOM_READY,
	DOM_QUIESCING,
};

struct domain {
	enum domain_state state;
	struct hang hang;
	bool peer;	    /* a VM or a loopback agent is connected */
	bool link;	    /* messages can pass */
	bool greeted;	    /* HELLO was accepted; START waits for the state region to be mapped */
	bool quiesced;	    /* QUIESCED was received */
	bool orderly;	    /* the last incarnation ended with BYE */
	bool recovering;    /* START was sent; the agent has not taken all of its own segments */
	bool resuming;	    /* RESUMED is due when all sessions are served ... */
	uint64_t resume_by; /* ... or then, all the same */
	char why[160];	    /* why there is no service, for people; "" if there is */
	bool
	    refused; /* why says why the last agent was refused: so will the next be, as long as the VM is this one */

	uint32_t incarnation; /* that serves; 0: none */
	uint32_t last_incarnation;
	uint32_t seq; /* of messages sent */
	struct sc_msg_hello
	    agent; /* of the last HELLO accepted; strings terminated and printable */

	int state_fd; /* the state region */
	uint64_t epoch;

	uint64_t peer_since; /* loop_now() terms; 0: never */
	uint64_t ready_since;

	/* Ends; owned. The first `told` of them the present incarnation knows. They are kept for a while, because it may die before it
	 * has acted on them: then the next is told again, to which those that it knows are nothing new. */
	uint64_t *releases;
	uint32_t nreleases;
	uint32_t cap_releases;
	uint32_t told_releases;
	uint32_t *exits;
	uint32_t nexits;
	uint32_t cap_exits;
	uint32_t told_exits;

	char *info; /* JSON object from ctl's set-info, or NULL; owned */
};

/* Makes the state region. Returns 0 or -errno. */
int domain_init(struct broker *b);
void domain_close(struct broker *b);

/* Sends a message to the agent (h.type, h.len, h.slot set by the caller; h.seq by this). Dropped if
 * nobody serves. */
void domain_send(struct broker *b, struct sc_msg_hdr *msg, const int *fds, unsigned nfds);

/* A ticket's last holder is gone; a process has ended. Sent by domain_flush_ends(), in batches. */
void domain_release(struct broker *b, uint64_t ticket);
void domain_process_exit(struct broker *b, uint32_t process);
void domain_flush_ends(struct broker *b);

/* Looks whether the agent has taken its own segments, and whether all sessions are served, and goes on then. */
void domain_look(struct broker *b);
void domain_tick(struct broker *b, uint64_t now);

/* Orders of the operator. Return NULL, or why not. */
const char *domain_quiesce(struct broker *b);
const char *domain_shutdown(struct broker *b);

/* "down", "starting", "ready", "quiescing"; "hung" for an agent that is there and does nothing. */
const char *domain_state_name(const struct domain *d);

/* Called by the transport. */

/* A VM (or loopback agent) connected, or is gone. */
void domain_peer(struct broker *b, bool there);
/* Messages can pass from now on, and no memory is mapped yet; or they cannot any more. */
void domain_link(struct broker *b, bool up);
/* The link leads to an agent that has said hello to a broker that is gone. It has to begin anew. */
void domain_stranger(struct broker *b);
/* A message, in private memory; len is what was received. */
void domain_message(struct broker *b, const union agent_msg *msg, size_t len);
/* The agent broke the protocol and has been cut off. */
void domain_broken(struct broker *b, const char *why);
/* A map or unmap is done. status: 0 or -errno. tag: as it was given to transport_ops.map(). */
void domain_mapped(struct broker *b, uint32_t tag, int status);
void domain_unmapped(struct broker *b, uint32_t tag, int status);
/* The doorbells of a slot were set up or replaced. */
void domain_doorbell(struct broker *b, uint32_t slot);

void domain_save(const struct broker *b, struct blob_out *out);
int domain_load(struct broker *b, struct blob_in *in);

#endif
