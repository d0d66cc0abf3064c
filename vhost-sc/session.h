/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * session.h - window slots, and the sessions that use them.
 *
 * A slot's life:
 *
 *   FREE       nothing
 *   POOL       a channel made ahead and, where the transport maps, mapped ahead: attaching then
 *              costs one exchange with the agent
 *   ATTACHING  a process waits: memory is being mapped, the doorbell is awaited, or ATTACH was
 *              sent
 *   LIVE       the process has its reply
 *   DETACHING  the process is gone; the agent has been told (bounded), or memory is being
 *              unmapped
 *
 * session_advance() takes a slot as far as it can go and is called whenever something changed:
 * memory mapped, doorbell there, message answered, agent new. So the way of a slot that lives
 * through a change of the agent (mapped, announced, served again) is the same code as its first
 * attach.
 *
 * Which slot a new session gets: one that this user had last, or that nobody had, before others.
 * The doorbells of a device belong to the slot, and a former holder may keep its copies of them.
 */
#ifndef VHOST_SC_SESSION_H
#define VHOST_SC_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vhost-sc/attach.h>
#include <vhost-sc/control.h>

#include "channel.h"

struct broker;
struct client;
struct blob_out;
struct blob_in;

/* Channels made ahead. */
#define SESSION_POOL 4

/* Milliseconds: for everything between an attach's request and its reply. */
#define SESSION_ATTACH_MS 10000

/* For the VM's side to unmap; then the slot is left alone until the VM reconnects. */
#define SESSION_UNMAP_MS 30000

/* How long an attach waits for a slot that is being freed. */
#define SESSION_SLOT_MS 5000

enum slot_state {
	SLOT_FREE,
	SLOT_POOL,
	SLOT_ATTACHING,
	SLOT_LIVE,
	SLOT_DETACHING,
};

enum slot_map {
	MAP_NONE,
	MAP_PENDING,
	MAP_DONE,
	MAP_UNPENDING, /* unmapping */
};

struct slot {
	uint32_t n; /* its number; 0 is the state region's */
	enum slot_state state;
	enum slot_map map;
	struct channel ch;
	uint64_t deadline; /* of ATTACHING and DETACHING, or LOOP_NEVER */

	/* the session */
	uint32_t session; /* 0: none */
	uint32_t process; /* index in broker.procs */
	uid_t uid;
	gid_t gid;
	uint32_t ngroups;
	gid_t groups[SC_MAX_GROUPS];
	uint64_t features;
	uint32_t last_ticket;  /* ticket.c */
	struct client *client; /* NULL while DETACHING */
	bool announced;	       /* ATTACH was sent to the present agent */
	bool served;	       /* and answered */
	uint64_t beat;	       /* the channel's heartbeat, as hang.c saw it last */
	uint64_t silent;       /* ms for which it has stood still while calls pend */
	bool rung;	       /* it was rung for, in that silence */
	bool failed;	       /* answered with an error, when it was LIVE */

	/* who had it last */
	bool used_before;
	uid_t last_uid;
	uint64_t freed_at;
};

struct sessions {
	struct slot *slots; /* [0..channels] */
	uint32_t last_session;
	uint32_t live;	/* slots that are ATTACHING or LIVE */
	uint64_t begun; /* sessions ever */
};

/* Makes the slots. Returns 0 or -ENOMEM. */
int session_init(struct broker *b);

/* Starts a session for a client whose credentials have been checked and that has joined its
 * process; the session leaves it again. The outcome is told by client_attached() or
 * client_attach_failed(), possibly before this returns. Returns false if there is no slot now but
 * one is being freed: try again when session_end() is through. */
bool session_begin(struct broker *b, struct client *c);

/* True if no session that is alive waits to be attached by the present agent. */
bool session_all_served(const struct broker *b);

/* Channels that a user has. */
uint32_t session_count_user(const struct broker *b, uid_t uid);

/* The session ends, for whatever reason; its client forgets it. */
void session_end(struct broker *b, struct slot *s);

/* All sessions of a process (index in broker.procs) end; their clients are dropped. */
void session_end_process(struct broker *b, uint32_t process);

/* See above. */
void session_advance(struct broker *b, struct slot *s);
void session_advance_all(struct broker *b);

/* Answers of the other side. status: 0 or -errno. */
void session_mapped(struct broker *b, struct slot *s, int status);
void session_unmapped(struct broker *b, struct slot *s, int status);
void session_attached(struct broker *b, struct slot *s, int status);
void session_detached(struct broker *b, struct slot *s);

/* The slot's doorbells are new ones. */
void session_doorbell(struct broker *b, struct slot *s);

/* The agent that served is gone: nothing is announced or served any more. Processes are told. */
void session_agent_gone(struct broker *b);

/* What was mapped is not any more (the VM is gone or was reset). */
void session_memory_gone(struct broker *b);

/* Makes channels ahead until the pool is full. */
void session_fill_pool(struct broker *b);

/* Acts on deadlines, names the next. */
void session_tick(struct broker *b, uint64_t now);

/* True while a slot is between two lasting states. */
bool session_busy(const struct broker *b);

/* "free", "pool" and so on. */
const char *session_state_name(enum slot_state state);

void session_save(const struct broker *b, struct blob_out *out);
int session_load(struct broker *b, struct blob_in *in);
void session_close_all(struct broker *b);

#endif
