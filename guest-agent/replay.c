/* SPDX-License-Identifier: BSD-3-Clause */
/* replay.c - see replay.h: the order of things, and what its users see. */
#include "replay_priv.h"

#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOLD_MAX 20u /* lines about what is lost; the rest is only counted */

bool replay_fail(struct sim *s, const char *fmt, ...)
{
	va_list args;

	if (s->r->error[0])
		return false;
	va_start(args, fmt);
	vsnprintf(s->r->error, sizeof(s->r->error), fmt, args);
	va_end(args);
	return false;
}

bool replay_fail_at(struct sim *s, const struct sc_log_rec *rec, const char *fmt, ...)
{
	static const char *const kinds[SC_LOG_KINDS] = {
	    "pad",	"create",      "link",	   "unlink",	"rename", "write",
	    "truncate", "fallocate",   "barrier",  "chmod",	"chown",  "utimens",
	    "setxattr", "removexattr", "setflags", "fssetxattr"};
	char text[128];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return replay_fail(s, "log record %llu (%s): %s", (unsigned long long)rec->seq,
			   kinds[rec->kind % SC_LOG_KINDS], text);
}

const char *replay_show(const uint8_t *text, uint32_t len, char *to)
{
	uint32_t n = len < 60 ? len : 60;

	for (uint32_t i = 0; i < n; i++)
		to[i] = (char)(text[i] >= ' ' && text[i] < 127 ? text[i] : '?');
	strcpy(to + n, n < len ? "..." : "");
	return to;
}

void replay_lost(struct sim *s, const struct name *name, const char *what)
{
	char shown[64];

	if (++s->r->lost <= TOLD_MAX)
		log_error("recovery: \"%s\" (log record %llu): %s",
			  replay_show(name->text, name->len, shown),
			  (unsigned long long)name->rec->seq, what);
}

static int by_was(const void *a, const void *b)
{
	return memcmp(&((const struct replay_moved *)a)->was,
		      &((const struct replay_moved *)b)->was, sizeof(struct sc_fid));
}

/* What was made once more, for replay_moved() and inode numbers. */
static bool collect_moved(struct sim *s)
{
	struct replay *r = s->r;
	size_t n = 0;

	for (struct object *o = s->objects; o; o = o->next)
		n += o->made;
	r->moved = calloc(n + 1, sizeof(*r->moved));
	if (!r->moved)
		return replay_fail(s, "no memory for what was made once more");
	for (struct object *o = s->objects; o; o = o->next)
		if (o->made)
			r->moved[r->nmoved++] =
			    (struct replay_moved){.was = o->fid,
						  .now = o->now,
						  .was_ino = replay_number_of(&o->fid),
						  .now_ino = replay_number_of(&o->now)};
	qsort(r->moved, n, sizeof(*r->moved), by_was);
	return true;
}

static bool sync_all(struct sim *s)
{
	return syncfs(s->mount) == 0 ||
	       replay_fail(s, "writing the file system to its disk: %s", strerror(errno));
}

static bool replay_log(struct sim *s, uint64_t from, uint64_t to)
{
	return replay_read(s, from, to) && replay_set_up(s) && replay_resolve(s) &&
	       replay_unlock(s) && replay_clear(s) && replay_make(s) && replay_place(s) &&
	       replay_redo(s) && replay_empty_stage(s) && replay_finish(s) && sync_all(s) &&
	       collect_moved(s);
}

bool replay_run(struct replay *r)
{
	struct sim s = {.r = r, .mount = -1, .own = -1, .stage = -1, .orphans = -1};
	uint64_t head, from, to;
	const char *wrong = logrec_header(r->log, r->size, &head, &from, &to);
	bool ok;

	if (wrong)
		return replay_fail(&s, "the log is damaged: %s", wrong);
	r->synced = to;
	if (from == to)
		return true;
	ok = replay_log(&s, from, to);
	replay_close_all(&s);
	replay_forget(&s);
	if (!ok)
		replay_free(r);
	return ok;
}

bool replay_moved(const struct replay *r, const struct sc_fid *fid, struct sc_fid *now)
{
	const struct replay_moved key = {.was = *fid}, *m;

	m = r->nmoved ? bsearch(&key, r->moved, r->nmoved, sizeof(key), by_was) : NULL;
	if (m)
		*now = m->now;
	return m;
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
