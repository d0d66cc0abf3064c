/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * attach.h (broker) - processes: the connections of attach.sock (protocol:
 * include/vhost-sc/attach.h).
 *
 * One connection, one session. The connection is accepted from anybody whom the socket's mode lets
 * in; what a client may do is decided when it asks, from the credentials that the kernel reports. A
 * client never makes the broker wait: what cannot be sent at once ends the connection, except
 * events, which are remembered (only the latest counts) and sent when there is room.
 */
#ifndef VHOST_SC_BROKER_ATTACH_H
#define VHOST_SC_BROKER_ATTACH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vhost-sc/attach.h>
#include <vhost-sc/control.h>

#include "loop.h"

struct broker;
struct slot;
struct blob_out;
struct blob_in;

#define CLIENT_IDLE_MS	   10000 /* a connection without a session may stay so long */
#define CLIENT_MAX_WAIT_MS 600000
#define CLIENT_MAX_UNUSED \
	256 /* connections without a session that one user may have; root: no limit */

enum client_state {
	CLIENT_NEW,	  /* has not asked, or was refused */
	CLIENT_WAITING,	  /* asked; the domain is starting, or a slot is being freed */
	CLIENT_ATTACHING, /* session.c is at it */
	CLIENT_LIVE,
};

struct client {
	struct source src;
	struct broker *b;
	struct client *next;
	struct client *prev;
	enum client_state state;
	uint64_t deadline; /* of NEW and WAITING */

	/* from the kernel, at accept */
	pid_t pid; /* 0: in a pid namespace that the broker does not see */
	uid_t uid;
	gid_t gid;
	uint32_t ngroups; /* UINT32_MAX: more than SC_MAX_GROUPS */
	gid_t groups[SC_MAX_GROUPS];
	int pidfd; /* of the peer, where the kernel gives it (6.5); -1: none, or given to process.c
		    */
	uint64_t accepted; /* CLOCK_BOOTTIME, ns */

	/* the request */
	uint32_t seq;
	uint32_t tickets;
	uint64_t features;
	uint64_t wait_end; /* it is willing to wait for the domain until then */

	uint32_t process;  /* index in broker.procs, from ATTACHING on */
	struct slot *slot; /* from ATTACHING on */
	bool event_due;	   /* an event could not be sent yet */
};

struct clients {
	struct source listener;
	struct client *head;
	uint32_t count;
	uint64_t refused; /* attaches ever refused */
};

/* Makes attach.sock, or takes over its descriptor (listen_fd >= 0). Returns 0 or -errno. */
int client_init(struct broker *b, int listen_fd);

/* Ends a connection and its session; `why` (or NULL) is logged. */
void client_drop(struct client *c, const char *why);

/* Sends a message that the client has asked for. A client that leaves no room for it is not
 * reading, and is dropped. Returns false if the client is gone. */
bool client_reply(struct client *c, const void *msg, size_t len, const int *fds, unsigned nfds);

/* From session.c: the channel is ready, or is not to be had. */
void client_attached(struct client *c);
void client_attach_failed(struct client *c, uint32_t status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* From session.c: the agent ended during the attach. The client waits for the next one, if it is
 * willing to. */
void client_attach_again(struct client *c);

/* Tells the process which incarnation serves, and its doorbells. */
void client_event(struct client *c);

/* The domain's state changed, or a slot was freed: looks at those who wait. */
void client_serve_waiting(struct broker *b);

/* Acts on deadlines, names the next. */
void client_tick(struct broker *b, uint64_t now);

void client_save(const struct broker *b, struct blob_out *out);
int client_load(struct broker *b, struct blob_in *in);
void client_close_all(struct broker *b);

#endif
