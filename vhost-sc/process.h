/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * process.h - host processes that have, or had, a session.
 *
 * The agent knows a process by a number of the broker's: it stays the same over exec and is never
 * used again, unlike a pid. It owns POSIX locks, so a process is remembered after its last session
 * (which an exec ends) until the kernel reports its end through a pidfd; then the agent is told
 * (SC_MSG_PROC_EXIT).
 */
#ifndef VHOST_SC_PROCESS_H
#define VHOST_SC_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct broker;
struct blob_out;
struct blob_in;

#define PROCESS_NONE UINT32_MAX

/* Most processes of one user that are remembered without a session; root is not limited. */
#define PROCESS_MAX_IDLE 512

struct process {
	uint32_t number; /* the agent's name for it; 0: this entry is free */
	pid_t pid;
	uid_t uid;
	int pidfd;
	uint32_t sessions; /* that it has now */
	char comm[16];	   /* for people */
};

struct processes {
	struct process *v; /* owned */
	uint32_t cap;
	uint32_t used;
	uint32_t last_number;
};

/* Finds or makes the entry of a process. pidfd: from the socket (SO_PEERPIDFD), becomes the table's
 * or is closed; or -1: opened by pid, after which `since` (CLOCK_BOOTTIME, ns, when the socket was
 * accepted) guards against a pid that has been used again. Adds a session to the entry. Returns 0,
 * -ESRCH (it has ended), -EMFILE, -ENOMEM, or -EUSERS (PROCESS_MAX_IDLE). */
int process_join(struct broker *b, pid_t pid, uid_t uid, int pidfd, uint64_t since,
		 uint32_t *index);

/* One session less. */
void process_leave(struct broker *b, uint32_t index);

/* The kernel says that it has ended: ends its sessions, queues the news for the agent, frees the
 * entry. */
void process_exited(struct broker *b, uint32_t index);

void process_save(const struct broker *b, struct blob_out *out);
int process_load(struct broker *b, struct blob_in *in);
void process_close_all(struct broker *b);

#endif
