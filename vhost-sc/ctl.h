/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ctl.h - ctl.sock: what the broker tells an operator, and his orders.
 *
 * A stream socket, mode 0600. A request is one line, a JSON object with a member "cmd"; the answer
 * is one line, a JSON object with a member "ok", and "error" (text) if that is false. Connections
 * may send several. Names and meanings are in vhost-scd(8).
 */
#ifndef VHOST_SC_CTL_H
#define VHOST_SC_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"
#include "loop.h"

struct broker;

#define CTL_MAX_REQUEST 4096
#define CTL_MAX_CLIENTS 16

struct ctl_client {
	struct source src;
	struct broker *b;
	struct ctl_client *next;
	char in[CTL_MAX_REQUEST];
	size_t in_len;
	struct json out; /* answers not sent yet */
	size_t out_sent;
	bool watching; /* is told of each change */
	bool late;     /* of one it was not told yet */
};

/* What watchers were told last. */
struct ctl_seen {
	const char *state;
	uint32_t incarnation;
	bool connected;
};

struct ctl {
	struct source listener;
	struct ctl_client *head;
	uint32_t count;
	struct ctl_seen seen;
};

/* Makes ctl.sock, or takes over its descriptor (listen_fd >= 0). Returns 0 or -errno. */
int ctl_init(struct broker *b, int listen_fd);

/* Writes the status object, without "ok". */
void ctl_status(struct broker *b, struct json *j);
/* The order "net": a network domain's interface, counters and sockets. NULL, or why there is nothing to tell (ctl_net.c). */
const char *ctl_net(struct broker *b, struct json *j);

/* Tells watchers (the order "watch") if the domain's state has changed. Called when the loop comes round. */
void ctl_look(struct broker *b);

void ctl_close(struct broker *b);

#endif
