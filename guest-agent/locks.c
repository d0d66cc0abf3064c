/* SPDX-License-Identifier: BSD-3-Clause */
/* locks.c - see locks.h. */
#include "locks.h"

#include <errno.h>
#include <stdlib.h>

struct locks {
	int dummy;
};
struct locks *locks_new(struct agent *agent) { return calloc(1, sizeof(struct locks)); }
void locks_free(struct locks *l) { free(l); }
enum step locks_flock(struct locks *l, struct call *c) { c->res = -ENOSYS; return STEP_DONE; }
enum step locks_record(struct locks *l, struct call *c) { c->res = -ENOSYS; return STEP_DONE; }
void locks_unlock_all(struct locks *l, const struct handle *h, uint32_t process) {}
void locks_handle_closed(struct locks *l, const struct handle *h) {}
void locks_process_gone(struct locks *l, uint32_t process) {}
int locks_cancel(struct locks *l, const struct channel *ch, uint32_t lane, uint32_t tag) { return -ENOENT; }
void locks_cancel_session(struct locks *l, uint32_t session) {}
uint32_t locks_waiting(struct locks *l) { return 0; }
bool locks_sync_wanted(struct locks *l, uint32_t seq) { return false; }
void locks_synced(struct locks *l, uint32_t seq) {}
int64_t locks_expire(struct locks *l, int64_t now) { return -1; }
