/* SPDX-License-Identifier: BSD-3-Clause */
/* replay.c - see replay.h: the order of things, and what its users see. */
#include "replay.h"

#include "logrec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool replay_run(struct replay *r)
{
	uint64_t head, tail;
	const char *wrong = logrec_header(r->log, r->size, &head, &r->synced, &tail);

	if (wrong) {
		snprintf(r->error, sizeof(r->error), "the log is damaged: %s", wrong);
		return false;
	}
	if (r->synced == tail)
		return true;
	snprintf(r->error, sizeof(r->error), "this agent cannot replay a log yet");
	return false;
}

bool replay_moved(const struct replay *r, const struct sc_fid *fid, struct sc_fid *now)
{
	for (size_t i = 0; i < r->nmoved; i++)
		if (!memcmp(&r->moved[i].was, fid, sizeof(*fid))) {
			*now = r->moved[i].now;
			return true;
		}
	return false;
}

void replay_commit(struct replay *r)
{
	__atomic_store_n(&r->log->synced, r->synced, __ATOMIC_RELEASE);
}

void replay_free(struct replay *r)
{
	free(r->moved);
	r->moved = NULL;
	r->nmoved = 0;
}

void replay_orphan_name(const struct sc_fid *fid, char *to)
{
	to += sprintf(to, "%02x%02x", fid->type, fid->len);
	for (uint32_t i = 0; i < fid->len && i < SC_FID_MAX; i++)
		to += sprintf(to, "%02x", fid->bytes[i]);
}
