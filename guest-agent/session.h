/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * session.h - who calls: credentials, open files, and tickets of one attached process.
 *
 * A session begins with ATTACH and its channel ends with DETACH, but its files need not: a file that was opened with a
 * ticket lives until the ticket is released, because another process may hold a copy of it (attach.h). So a session is
 * counted: by its channel, by each of its handles, and by whoever looks it up. It leaves the table with its last reference.
 *
 * After a recovery the sessions whose handles were kept are there before they are attached: expected, with a reference in the
 * channel's place. Those that were not attached when all are have ended.
 *
 * Tickets: each of a session's 65,535 numbers is free, opening, holding a handle, or dead. RELEASE may overtake an OPEN
 * that names the ticket (they travel on different ways): then the ticket is dead when the OPEN looks, and the OPEN fails
 * with EBADF; a ticket that dies while its file is being opened has the file closed at once.
 */
#ifndef SC_AGENT_SESSION_H
#define SC_AGENT_SESSION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "creds.h"
#include "vhost-sc/attach.h"

struct handle;
struct sessions;

#define TICKETS_PER_PAGE 256u
#define TICKET_PAGES	 ((SC_MAX_TICKETS + 1) / TICKETS_PER_PAGE)

/* What a ticket stands for now: the handle's name, or one of these (a handle's name is never so small). */
#define TICKET_FREE    0ull
#define TICKET_OPENING 1ull
#define TICKET_DEAD    2ull

struct session {
	struct sessions *table;
	struct session *next; /* in the table's chain */
	_Atomic uint32_t refs;
	uint32_t id;
	uint32_t process; /* owner of POSIX locks */
	uint32_t pid;	  /* on the host */
	const struct cred *cred;
	void *service;	      /* of the network service; its poller's */
	pthread_mutex_t lock; /* guards what follows */
	bool expected;	      /* not attached yet, after a recovery; guarded by the table's lock */
	bool ended;	      /* DETACHed: opens no more */
	uint32_t nhandles;
	struct handle *handles;
	uint64_t *granted; /* names of others' handles that it was granted */
	uint32_t ngranted;
	uint32_t granted_size;
	uint64_t *tickets[TICKET_PAGES];
};

/* `max_handles`: most open files of one session. */
struct sessions *sessions_new(uint32_t max_handles);

/* A new session, or the one that was expected, with one reference (the channel's). NULL: no memory, or the id is in use. */
struct session *session_new(struct sessions *t, uint32_t id, uint32_t process, uint32_t pid,
			    const struct cred *cred);

/* The session with this id, with a reference; NULL: none. */
struct session *session_find(struct sessions *t, uint32_t id);
void session_put(struct session *s);

/* The session with this id, expected if it was not there, with a reference. NULL: no memory. For recovery. */
struct session *session_expect(struct sessions *t, uint32_t id);
/* One that is still expected, which has ended by this; the caller has the channel's reference. NULL: none is left. */
struct session *sessions_take_expected(struct sessions *t);

/* Notes the name of a handle that the session was granted. False: no memory. */
bool session_add_grant(struct session *s, uint64_t name);
/* Takes one of these; 0: none is left. */
uint64_t session_take_grant(struct session *s);

/* Sessions that are attached or still own files. */
uint32_t sessions_count(struct sessions *t);

/* Puts h into the session's list, which takes a reference. False: at its limit, or ended. */
bool session_add_handle(struct session *s, struct handle *h);
void session_remove_handle(struct session *s, struct handle *h);

/* For OPEN: the ticket is this session's and free, and is opening from now on. 0, -EBADF (foreign, dead, out of
 * range), -EBUSY (in use), -ENOMEM. Ticket 0, none, always is right. */
int ticket_begin(struct session *s, uint64_t ticket);
/* For recovery: the ticket holds the handle `name`. */
void ticket_restore(struct session *s, uint64_t ticket, uint64_t name);
/* The end of OPEN: `name` (0: the open failed, the ticket is free again). -EBADF: it died meanwhile; the caller closes
 * the file. */
int ticket_end(struct session *s, uint64_t ticket, uint64_t name);
/* For CLOSE: the ticket that held `name` is free again. Does nothing if it is dead. */
void ticket_free(struct session *s, uint64_t ticket, uint64_t name);
/* For RELEASE: the ticket is dead. Returns the handle's name that it held, or 0. */
uint64_t ticket_kill(struct session *s, uint64_t ticket);

#endif
