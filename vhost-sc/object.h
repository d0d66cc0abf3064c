/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * object.h - file objects: memory that stands for files which are mapped (protocol: vhost-sc/attach.h, control.h).
 *
 * The agent has objects made, moves their data through its own segment, and says which session may fetch one with which
 * rights. A process gets a descriptor of its own (a new open of the memfd, through /proc/self/fd), for reading only or for
 * reading and writing, maps it and closes it.
 *
 * Who holds an object? The kernel counts for us: a write lease is given only on a file that nobody else has open, and
 * mappings count as opens (each holds its struct file), through fork, munmap, exec and kill -9 alike. So nothing is held
 * beside the mapping, and no process can hide one or lose one. When to ask: inotify tells each last close of an open.
 *
 * Data is moved by pread and pwrite, never through a mapping: whoever may write to the file may shrink the memfd under
 * us, and gets short counts for it.
 *
 * Objects outlive incarnations as their mappings do, but no later agent knows them: they are freed when nobody holds them.
 */
#ifndef VHOST_SC_OBJECT_H
#define VHOST_SC_OBJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vhost-sc/control.h>

#include "idmap.h"
#include "loop.h"

struct broker;
struct client;
struct blob_out;
struct blob_in;
struct sc_attach_object;

#define OBJECT_MAX	1024 /* objects of a domain: each takes a descriptor */
#define OBJECT_PER_USER 512  /* and of a user other than root */

/* A right that has not been used yet. */
struct object_grant {
	struct object_grant *next;
	uint32_t session;
	uint32_t rights; /* SC_OBJECT_* */
};

struct object {
	uint64_t number; /* the agent's; 0: this entry is free */
	int fd;		 /* our own open, for reading and writing */
	int watch;	 /* inotify's */
	uid_t uid;	 /* at whose expense */
	uint64_t size;	 /* as the agent set it */
	uint64_t grants; /* ever */
	struct object_grant *open_grants;
	bool waiting; /* its agent is gone; the next one may adopt it */
	bool orphan;  /* of an earlier incarnation */
};

struct objects {
	struct source src; /* inotify */
	struct object *v;  /* OBJECT_MAX; owned */
	uint32_t used;
	uint64_t bytes;		/* sizes of all */
	struct idmap by_number; /* not orphans */
	struct idmap by_watch;
	void *window; /* the agent's own segment, mapped here; NULL: not yet */
	uint64_t window_size;
};

/* Sets up. Returns 0 or -errno. */
int object_init(struct broker *b);

/* SC_MSG_OBJECT. */
void object_message(struct broker *b, const struct sc_msg_object *m);

/* SC_ATTACH_OBJECT. */
void object_fetch(struct client *c, const struct sc_attach_object *m);

/* A session is over: what it was granted and has not fetched is void. */
void object_session_gone(struct broker *b, uint32_t session);

/* The agent is gone: its objects wait for the next one. */
void object_agent_gone(struct broker *b);
/* A new agent has adopted what it knows. */
void object_agent_ready(struct broker *b);

/* Looks which objects nobody holds; after a restart, whose ends were not watched. */
void object_look_all(struct broker *b);

void object_save(const struct broker *b, struct blob_out *out);
int object_load(struct broker *b, struct blob_in *in);
void object_close_all(struct broker *b);

#endif
