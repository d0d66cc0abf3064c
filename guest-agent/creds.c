/* SPDX-License-Identifier: BSD-3-Clause */
/* creds.c - see creds.h. */
#include "creds.h"

#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct cred *all[CREDS_MAX];
static uint32_t nall;

const struct cred *creds_get(uint32_t uid, uint32_t gid, const uint32_t *groups, uint32_t ngroups)
{
	size_t bytes = ngroups * sizeof(groups[0]);
	struct cred *c;

	for (uint32_t i = 0; i < nall; i++) {
		c = all[i];
		if (c->uid == uid && c->gid == gid && c->ngroups == ngroups &&
		    (!bytes || !memcmp(c->groups, groups, bytes)))
			return c;
	}
	if (nall == CREDS_MAX)
		return NULL;
	c = malloc(sizeof(*c) + bytes);
	if (!c)
		return NULL;
	*c = (struct cred){.index = nall, .uid = uid, .gid = gid, .ngroups = ngroups};
	if (bytes) /* groups may be NULL then */
		memcpy(c->groups, groups, bytes);
	all[nall++] = c;
	return c;
}

/* Back to the agent's own rights: real and saved uid are still 0, which allows it. */
static int take_off(struct wardrobe *w)
{
	if (!w->now)
		return 0;
	if (syscall(SYS_setresuid, -1, 0, -1) < 0 || syscall(SYS_setresgid, -1, 0, -1) < 0 ||
	    syscall(SYS_setgroups, 0, NULL) < 0) {
		log_error("cannot take back own credentials: %m; stopping rather than acting with "
			  "wrong rights");
		abort();
	}
	w->now = NULL;
	return 0;
}

int creds_wear(struct wardrobe *w, const struct cred *c)
{
	int err;

	if (w->now == c || !w->privileged)
		return 0;
	take_off(w);
	if (!c)
		return 0;
	w->now = c; /* from here on take_off() has something to undo */
	if (syscall(SYS_setgroups, c->ngroups, c->groups) == 0 &&
	    syscall(SYS_setresgid, -1, c->gid, -1) == 0 &&
	    syscall(SYS_setresuid, -1, c->uid, -1) == 0)
		return 0;
	err = -errno;
	take_off(w);
	return err;
}
