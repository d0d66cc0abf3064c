/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * service.h - what makes an agent a storage agent or a network agent: an ops table. Main thread, pollers, workers, lanes and
 * sessions are the same for all roles; each program links exactly one service (agent_service) and calls it through this table.
 *
 * Where nothing else is said, a function may be NULL: there is nothing to do.
 */
#ifndef SC_AGENT_SERVICE_H
#define SC_AGENT_SERVICE_H

#include "agent.h"

struct option;

struct service {
	const char *program; /* name in messages */
	const char *usage;   /* text of --help */
	uint32_t role;	     /* SC_ROLE_* */
	uint32_t max_pollers;

	/* Command line: the service's own long options, ended by a zeroed one; their `val` is passed to option(). */
	const struct option *options;
	/* Takes one option. NULL, or what is wrong with the value. */
	const char *(*option)(struct options *o, int val, char *value);
	/* What is missing after all options were taken: text, or NULL. */
	const char *(*check_options)(const struct options *o);

	/* System calls that it needs besides those of sandbox.c: numbers, ended by -1. */
	const int *syscalls;

	/* Before the conversation with the broker: opens what is served. False after a log message. Must be there. */
	bool (*prepare)(struct agent *agent);
	/* After START, before threads: tables. False after a log message. Must be there. */
	bool (*make_tables)(struct agent *agent);
	/* All own segments (agent->own) are mapped, and no session is attached: rebuilds what they keep. In a thread of its
	 * own, while main beats; pollers and workers run and have nothing to do. Called once in any case, also with nothing kept.
	 * False after a log message: the agent cannot serve, and ends. */
	bool (*recover)(struct agent *agent);
	/* Main thread, once after recover(): all sessions that were alive are attached: what belongs to others can go. Not
	 * called by brokers that cannot tell. */
	void (*resumed)(struct agent *agent);
	/* The agent ends in order, and all is quiet. */
	void (*ended)(struct agent *agent);
	/* For the log, once in service: what is served. Must be there. */
	void (*describe)(const struct agent *agent, char *text, size_t size);

	/* Operations: see storage.h. begin and finish must be there; the others if begin returns STEP_WORK, STEP_RING. */
	enum step (*begin)(struct poller *p, struct call *c);
	void (*work)(struct actor *a, struct call *c);
	enum step (*ring_done)(struct poller *p, struct call *c, int res);
	/* A call that has a position has its result, and nobody knows it yet. */
	void (*moved)(struct poller *p, struct call *c);
	/* Its completion is in its lane; for a call that has a position it is published, too. */
	void (*finish)(struct poller *p, struct call *c);
	/* Completions are published of calls whose `logged` sums up to this (not both 0). In the poller. */
	void (*published)(struct agent *agent, const uint32_t logged[2]);
	/* True if calls that pended when this agent started, and that the one before had begun, end with -EIO. NULL: they do.
	 * Otherwise they begin with call.again set. */
	bool (*pending_lost)(const struct agent *agent);
	void (*start_worker)(struct actor *a);

	/* A session's channel is to be detached: cancel what waits. In the poller. */
	void (*cancel_session)(struct agent *agent, struct session *s);
	/* Nothing of the channel is in execution any more: close what ends with the session. In a worker, or, if
	 * end_in_poller is set, in the poller. Must be there. */
	void (*end_session)(struct agent *agent, struct session *s);
	bool end_in_poller;

	/* Main thread: tickets without holder; a host process is gone; the broker's SYNCED; whether to ask for it; ms until
	 * something is due (-1: nothing). release must be there. */
	void (*release)(struct agent *agent, const uint64_t *tickets, uint32_t n);
	void (*process_gone)(struct agent *agent, uint32_t process);
	void (*synced)(struct agent *agent, uint32_t seq);
	bool (*sync_wanted)(struct agent *agent, uint32_t seq);
	int64_t (*expire)(struct agent *agent, int64_t now);
	/* The broker's messages about file objects. */
	void (*object_done)(struct agent *agent, const struct sc_msg_object_done *m);
	void (*object_idle)(struct agent *agent, const struct sc_msg_object_idle *m);
	/* Writes back what is to be durable. Any thread. 0 or -errno. */
	int (*sync)(struct agent *agent);
	uint32_t (*count_open)(struct agent *agent);
	/* Main thread, with each heartbeat. */
	void (*beat)(struct agent *agent);

	/* What the service does by itself in a poller's thread. poll: one round; returns how much it did, NULL: nothing.
	 * anything: something to do (asked after the poller has said that it sleeps). sleep_ms: longest sleep, -1: any. */
	bool (*poller_ready)(struct poller *p);
	uint32_t (*poll)(struct poller *p);
	bool (*anything)(struct poller *p);
	int (*sleep_ms)(struct poller *p);
};

/* The one that this program links. */
extern const struct service agent_service;

#endif
