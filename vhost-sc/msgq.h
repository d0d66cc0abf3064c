/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * msgq.h - messages to the agent that wait until it takes them. First in, first out, bounded.
 */
#ifndef VHOST_SC_MSGQ_H
#define VHOST_SC_MSGQ_H

#include <stdint.h>

#include "transport.h"

struct blob_out;
struct blob_in;

struct msg {
	struct msg *next;
	uint32_t len;
	unsigned nfds;
	int fds[TRANSPORT_MAX_FDS]; /* owned */
	unsigned char data[];	    /* len bytes */
};

struct msgq {
	struct msg *head;
	struct msg **tail; /* NULL in a queue that was never used */
	uint32_t count;
};

/* Appends a copy of the message and duplicates of the descriptors. Returns 0, -ENOMEM, -EMFILE, or
 * -ENOBUFS if TRANSPORT_QUEUE_MAX messages wait already. */
int msgq_put(struct msgq *q, const struct sc_msg_hdr *msg, const int *fds, unsigned nfds);

/* Removes and frees the first message. */
void msgq_pop(struct msgq *q);

/* Removes all. */
void msgq_clear(struct msgq *q);

/* Restart of the broker. */
void msgq_save(const struct msgq *q, struct blob_out *out);
int msgq_load(struct msgq *q, struct blob_in *in);

#endif
