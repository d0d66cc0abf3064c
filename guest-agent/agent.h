/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * agent.h - what all parts of sc-agent share: the options, the one context, and the life of a call.
 *
 * Threads:
 *
 *   main      control messages, sessions coming and going, heartbeat, statistics (main.c)
 *   pollers   one per --pollers, pinned: fetch requests from lanes, answer at once what does not block, publish all
 *             completions (poller.c)
 *   workers   execute what may block (workers.c); each wears the caller's credentials while it does
 *
 * A call (struct call) is born when a poller copies its slot out of shared memory, belongs to that poller until its
 * completion is published, and is lent meanwhile to the ring, to a worker, to the queue of a handle's position, or to
 * the lock manager. Whoever has it hands it back with poller_return(). So no lock guards a call or a lane.
 *
 * Lock order: session->lock, then handles' table lock, then handle->lock, then lock manager; none is held across a
 * system call that may block, and none is needed by SC_OP_NOP.
 */
#ifndef SC_AGENT_H
#define SC_AGENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "copy.h"
#include "creds.h"
#include "vhost-sc/channel.h"
#include "vhost-sc/control.h"
#include "vhost-sc/ops.h"

struct channel;
struct handle;
struct handles;
struct inodes;
struct keep;
struct locks;
struct net;
struct objects;
struct orphans;
struct poller;
struct retain;
struct segments;
struct service;
struct session;
struct sessions;
struct transport;
struct workers;

/* Limits. Each is what one hostile session can take from the others. */
#define AGENT_MAX_POLLERS 16u
#define AGENT_MAX_WORKERS 64u
/* calls of one channel in execution; further ones stay in their lanes */
#define AGENT_MAX_INFLIGHT 1024u
/* requests fetched from one lane before the next lane has its turn */
#define AGENT_LANE_BUDGET 64u
/* open handles of one session: all tickets and some roots */
#define AGENT_SESSION_HANDLES 66000u
#define AGENT_DEFAULT_SPIN_US 50u
#define AGENT_DEFAULT_WORKERS 8u
#define AGENT_SYNC_TIMEOUT_NS 1000000000ll /* longest wait for the broker's SYNCED */

struct options {
	const char *device;   /* path of /dev/sc, or NULL */
	const char *loopback; /* path of the broker's agent.sock, or NULL */
	const char *root;     /* storage: directory that the domain serves */
	void *service;	      /* of the service's own, or NULL */
	uint32_t npollers;
	uint32_t nworkers;
	uint32_t max_spin_us;		  /* 0: the broker's, or AGENT_DEFAULT_SPIN_US */
	bool sandbox;			  /* filter system calls */
	int log_level;			  /* as syslog: 3 errors .. 7 debug */
	uint32_t ncpus;			  /* entries of cpus; 0: no pinning */
	uint16_t cpus[AGENT_MAX_POLLERS]; /* the CPU of each poller */
};

/* Tells which files may have objects; see objects.h. Written under the table's lock. */
struct gate {
	_Atomic uint32_t any;	  /* objects there are */
	_Atomic uint32_t phase;	  /* low bit: where changes are counted that begin now */
	_Atomic uint32_t slow[2]; /* changes that workers count themselves */
	_Atomic uint16_t covered[256];
	_Atomic uint16_t stored[256];
};

/* One of the agent's own segments, mapped for good. base NULL: there is none. */
struct own {
	void *base;
	uint64_t size; /* bytes */
};

/* The one context. Everything here is set before the first thread starts, unless it says otherwise. */
struct agent {
	struct options opt;
	const struct service *service;
	struct net *net; /* of the network service */
	struct transport *tr;
	int root_fd;	   /* O_PATH, of opt.root */
	uint64_t root_dev; /* its identity: no path walk goes above it */
	uint64_t root_ino;
	int sync_fd;	      /* of opt.root, for syncfs */
	bool protected_links; /* fs.protected_symlinks is set: see walk.c */
	bool copy_pays;	      /* copy_pays(), asked once */
	bool privileged;      /* may take on other users' credentials (uid 0) */
	uint32_t incarnation; /* from START */
	uint32_t max_spin_us; /* from START and options */
	uint32_t ncpus_online;
	struct handles *handles;
	struct keep *keep;	 /* storage */
	struct orphans *orphans; /* likewise */
	struct retain *
	    retain; /* storage; NULL: changes are not recorded. Set before any channel is attached */
	struct sessions *sessions;
	struct locks *locks;
	struct segments *segments;
	struct objects *objects;
	struct inodes *inodes; /* or NULL: numbers.h; set at recovery */
	struct gate gate;
	struct workers *workers;
	struct poller *pollers[AGENT_MAX_POLLERS];
	uint32_t npollers;
	/* By enum sc_own: set by main, each before service->recover() is called, which is before any channel is attached */
	struct own own[SC_OWN_MAX];
	uint64_t epoch;		       /* from START */
	struct sc_state_header *state; /* shared with the host: written, never read back */
	uint32_t state_size;	       /* bytes */
	_Atomic bool quiescing;	       /* set by main: pollers fetch no more */
	int main_event;		       /* eventfd: wakes main when something is in its mailbox */
};

/* How a step of a call ended, told to the poller. */
enum step {
	STEP_DONE, /* c->res is final */
	STEP_RING, /* given to io_uring; the poller submits it with its batch */
	STEP_WORK, /* to be executed by a worker */
	STEP_AWAY, /* queued elsewhere (position, locks); comes back by poller_return() */
};

/* What a returned call wants from its poller. */
enum call_state {
	CALL_DONE,    /* publish the result */
	CALL_RESTART, /* run its start function again: it has now what it waited for */
};

struct call {
	struct call *next; /* link of the one queue in which it is */
	struct channel *ch;
	struct poller *poller;
	struct sc_slot s; /* private copy of the request */
	struct handle *h; /* references held until the call is finished, or NULL */
	struct handle *h2;
	int64_t res;
	uint64_t moved; /* READ, WRITE: bytes moved by earlier steps */
	uint32_t cqe_flags;
	uint16_t lane;
	uint16_t state; /* enum call_state, meaningful in poller_return() */
	/* of the lane when fetched; another one then: nobody waits any more */
	uint32_t lane_life;
	bool at_worker; /* the poller's: a worker has it */
	bool again;	/* pended when the last agent died: may have been executed then */
	bool settled;	/* it had been: nothing is to be done but to answer */
	bool
	    appends; /* WRITE at the position that goes to the file's end instead; `end` is where it ended */
	uint64_t end;  /* the position that it leaves, where that does not follow from res */
	bool has_pos;  /* holds h's position */
	bool has_pos2; /* holds h2's position */
	/* records of changes that were made for it, by the checkpoint's phase (retain.h) */
	uint8_t logged[2];
	uint8_t gate; /* counted as a change in phase `gate` - 1; 0: not counted */
};

/* Whoever executes operations: a poller or a worker. Its own thread alone uses it. */
struct actor {
	struct agent *agent;
	struct wardrobe wardrobe; /* the credentials that the thread wears */
	bool own_umask;		  /* the thread's umask is its own, see actor_own_umask() */
	uint32_t umask;		  /* and is this */
	char path[SC_PATH_BUF];	  /* private copies of paths, NUL-terminated */
	char path2[SC_PATH_BUF];
	uint8_t piece[COPY_PIECE]; /* file data on its way to the arena: copy.h */
};

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t now_ns(void);

/* A full fence: orders an earlier store before a later load, the one order that x86 does not keep by itself. */
static inline void full_fence(void)
{
#ifdef __SANITIZE_THREAD__
	static _Atomic int dummy;

	atomic_fetch_add(&dummy, 1); /* ThreadSanitizer knows no fences */
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Orders earlier stores before later ones, as x86 does; the compiler is told to. */
static inline void release_fence(void)
{
#ifdef __SANITIZE_THREAD__
	full_fence();
#else
	atomic_thread_fence(memory_order_release);
#endif
}

#endif
