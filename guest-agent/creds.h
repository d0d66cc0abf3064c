/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * creds.h - acting as the caller.
 *
 * Each session acts with the uid, gid and groups that the broker took from its socket. Equal sets are one struct cred,
 * kept for ever (there are as many as users of the host that ever came). A thread "wears" a set: effective ids and groups
 * of that thread alone, by raw system calls (libc's wrappers would change all threads). With an effective uid other than
 * 0 the kernel clears the thread's effective capabilities, so permission checks see an ordinary user; real and saved uid
 * stay 0, so the thread can change again. A uid of 0 keeps root's rights, within the guest.
 *
 * Rings use the same sets as io_uring personalities, registered by each poller at first use (poller.c).
 *
 * An agent without privilege (a loopback domain started by a user) serves only that user and wears nothing.
 */
#ifndef SC_AGENT_CREDS_H
#define SC_AGENT_CREDS_H

#include <stdbool.h>
#include <stdint.h>

#include "vhost-sc/control.h"

#define CREDS_MAX 4096u

struct cred {
	uint32_t index; /* 0.., dense: for tables by credentials */
	uint32_t uid;
	uint32_t gid;
	uint32_t ngroups;
	uint32_t groups[];
};

/* What one thread wears. Zeroed: the agent's own rights. */
struct wardrobe {
	const struct cred *now; /* NULL: the agent's own */
	bool privileged;	/* agent->privileged; false: wearing does nothing */
};

/* The set for these ids; makes it if it is new. Main thread alone. NULL: no memory, or more than CREDS_MAX sets. */
const struct cred *creds_get(uint32_t uid, uint32_t gid, const uint32_t *groups, uint32_t ngroups);

/* Makes the calling thread wear c (NULL: the agent's own). 0 or -errno; after a failure the thread wears its own. */
int creds_wear(struct wardrobe *w, const struct cred *c);

#endif
