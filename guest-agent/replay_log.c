/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay_log.c - the log, checked and simulated: which objects and names it touches, and what has become of them.
 *
 * All records are read, in order. One that is DONE changes the simulation; an INTENT only says what was there. Nothing of the disk
 * is looked at here, and nothing is changed.
 */
#include "replay_priv.h"

#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK (1u << 20) /* bytes of memory taken at once */

struct block {
	struct block *next;
	size_t used;
	uint8_t bytes[BLOCK];
};

/* Zeroed memory that lives as long as the simulation. NULL: none left, and the replay has failed. */
static void *take(struct sim *s, size_t size)
{
	struct block *b = s->blocks;
	void *at;

	if (!b || BLOCK - b->used < size) {
		b = calloc(1, sizeof(*b));
		if (!b) {
			replay_fail(s, "no memory for the log's replay");
			return NULL;
		}
		b->next = s->blocks;
		s->blocks = b;
	}
	at = b->bytes + b->used;
	b->used += (size + 15) & ~(size_t)15;
	return at;
}

void replay_forget(struct sim *s)
{
	while (s->blocks) {
		struct block *b = s->blocks;

		s->blocks = b->next;
		free(b);
	}
	free(s->by_fid);
	free(s->by_now);
	free(s->by_name);
}

static size_t mix(size_t h, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (; len; p++, len--)
		h = (h ^ *p) * 0x100000001b3ull;
	return h;
}

static size_t fid_place(const struct sim *s, const struct sc_fid *fid)
{
	size_t h = mix(0xcbf29ce484222325ull, fid, 2u + fid->len);

	return (h ^ h >> 29) & (s->room - 1);
}

static bool same_fid(const struct sc_fid *a, const struct sc_fid *b)
{
	return a->type == b->type && a->len == b->len && !memcmp(a->bytes, b->bytes, a->len);
}

/* The object with this identity, known from now on. */
static struct object *object_of(struct sim *s, const struct sc_fid *fid)
{
	size_t at = fid_place(s, fid);
	struct object *o;

	for (o = s->by_fid[at]; o; o = o->same_fid)
		if (same_fid(&o->fid, fid))
			return o;
	o = take(s, sizeof(*o));
	if (!o)
		return NULL;
	/* Only what counts of it, so that it can be compared as it is. */
	o->fid.type = fid->type;
	o->fid.len = fid->len;
	memcpy(o->fid.bytes, fid->bytes, fid->len);
	o->same_fid = s->by_fid[at];
	s->by_fid[at] = o;
	*s->objects_end = o;
	s->objects_end = &o->next;
	s->nobjects++;
	return o;
}

void replay_index_now(struct sim *s, struct object *o)
{
	size_t at = fid_place(s, &o->now);

	o->same_now = s->by_now[at];
	s->by_now[at] = o;
}

struct object *replay_by_now(const struct sim *s, const struct sc_fid *fid)
{
	struct object *o = s->by_now[fid_place(s, fid)];

	while (o && !same_fid(&o->now, fid))
		o = o->same_now;
	return o;
}

/* The name in the directory, known from now on; `was` is what it held if it was not known. */
static struct name *name_of(struct sim *s, const struct sc_fid *dir, struct sc_log_rec *rec,
			    const uint8_t *text, uint16_t len, struct object *was)
{
	struct object *d = object_of(s, dir);
	struct name *n;
	size_t at;

	if (!d)
		return NULL;
	d->is_dir = d->is_parent = true;
	at = (mix((size_t)d >> 4, text, len) * 0x9e3779b97f4a7c15ull >> 24) & (s->room - 1);
	for (n = s->by_name[at]; n; n = n->same)
		if (n->dir == d && n->len == len && !memcmp(n->text, text, len))
			return n;
	n = take(s, sizeof(*n));
	if (!n)
		return NULL;
	*n = (struct name){.dir = d, .text = text, .len = len, .rec = rec, .holds = was};
	n->same = s->by_name[at];
	s->by_name[at] = n;
	*s->names_end = n;
	s->names_end = &n->next;
	s->nnames++;
	return n;
}

static struct name *first_name(struct sim *s, struct sc_log_rec *rec, struct object *was)
{
	return name_of(s, &rec->dir, rec, rec->body, rec->name_len, was);
}

static struct name *second_name(struct sim *s, struct sc_log_rec *rec, struct object *was)
{
	return name_of(s, &rec->dir2, rec, rec->body + rec->name_len, rec->name2_len, was);
}

/* The entries of a directory have changed. */
static void touch(struct object *dir, const struct sc_log_rec *rec)
{
	dir->mtime = (struct moment){rec->when, TIME_ABOUT};
}

static void put(struct name *n, struct object *o, const struct sc_log_rec *rec)
{
	n->holds = o;
	touch(n->dir, rec);
}

static bool add_intent(struct sim *s, struct intent what)
{
	struct intent *i = take(s, sizeof(*i));

	if (!i)
		return false;
	*i = what;
	i->next = NULL;
	*s->intents_end = i;
	s->intents_end = &i->next;
	return true;
}

static bool read_create(struct sim *s, struct sc_log_rec *rec, bool done)
{
	struct name *n = NULL;
	struct object *o;

	if (!(rec->flags & SC_LOG_F_ANON)) {
		n = first_name(s, rec, NULL);
		if (!n)
			return false;
	}
	if (!done)
		return true;
	o = object_of(s, &rec->obj);
	if (!o)
		return false;
	if (o->create || o->names || o->first || o->is_parent)
		return replay_fail_at(s, rec, "makes a file that is known already");
	switch (rec->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		break;
	default:
		return replay_fail_at(s, rec, "makes a file of no known type");
	}
	o->create = rec;
	o->is_dir = S_ISDIR(rec->mode);
	o->has_size = S_ISREG(rec->mode);
	o->mtime = o->atime = (struct moment){rec->when, TIME_ABOUT};
	o->kept = rec->flags & SC_LOG_F_ANON;
	if (n)
		put(n, o, rec);
	return true;
}

static bool read_link(struct sim *s, struct sc_log_rec *rec, bool done)
{
	struct name *n = first_name(s, rec, NULL);
	struct object *o = object_of(s, &rec->obj);

	if (!n || !o)
		return false;
	if (done)
		put(n, o, rec);
	return true;
}

static bool read_unlink(struct sim *s, struct sc_log_rec *rec, bool done)
{
	struct object *o = object_of(s, &rec->obj);
	struct name *n = o ? first_name(s, rec, o) : NULL;

	if (!n)
		return false;
	o->is_dir |= rec->flags & SC_LOG_F_DIR;
	if (!done)
		return add_intent(s, (struct intent){.rec = rec, .from = n, .gone = o});
	put(n, NULL, rec);
	o->kept |= rec->flags & SC_LOG_F_KEPT;
	return true;
}

static bool read_rename(struct sim *s, struct sc_log_rec *rec, bool done)
{
	struct object *o = object_of(s, &rec->obj);
	struct object *o2 = rec->obj2.len && o ? object_of(s, &rec->obj2) : NULL;
	struct name *from, *to;

	if (!o || (rec->obj2.len && !o2))
		return false;
	from = first_name(s, rec, o);
	to = from ? second_name(s, rec, o2) : NULL;
	if (!to)
		return false;
	o->is_dir |= rec->flags & SC_LOG_F_DIR;
	if (!done)
		return add_intent(
		    s, (struct intent){.rec = rec,
				       .from = from,
				       .to = to,
				       .moves = o,
				       .gone = rec->flags & SC_LOG_F_EXCHANGE ? NULL : o2});
	if (o == o2 || from == to)
		return true; /* names of the same file: nothing happens */
	put(from, rec->flags & SC_LOG_F_EXCHANGE ? o2 : NULL, rec);
	put(to, o, rec);
	if (o2 && rec->flags & SC_LOG_F_KEPT)
		o2->kept = true;
	return true;
}

static void extend(struct object *o, uint64_t end)
{
	if (end > o->size)
		o->size = end;
}

/* What a change that is done means for size and times. */
static void simulate(struct object *o, const struct sc_log_rec *rec)
{
	uint64_t n;

	switch (rec->kind) {
	case SC_LOG_WRITE:
		n = rec->res < 0 ? 0 : (uint64_t)rec->res;
		if (!n)
			return;
		extend(o, rec->off + (n < rec->size ? n : rec->size));
		break;
	case SC_LOG_TRUNCATE:
		o->has_size = true;
		o->size = rec->size;
		break;
	case SC_LOG_FALLOCATE:
		if (!(rec->mode & FALLOC_FL_KEEP_SIZE))
			extend(o, rec->off + rec->size);
		break;
	case SC_LOG_BARRIER: /* all is on the disk, times too */
		o->has_size = false;
		o->size = 0;
		o->mtime = o->atime = (struct moment){0, TIME_AS_IT_IS};
		return;
	case SC_LOG_UTIMENS:
		o->atime = (struct moment){rec->off, TIME_EXACT};
		o->mtime = (struct moment){rec->size, TIME_EXACT};
		return;
	default:
		return;
	}
	o->mtime = (struct moment){rec->when, TIME_ABOUT};
}

static bool read_change(struct sim *s, struct sc_log_rec *rec, bool done)
{
	struct object *o = object_of(s, &rec->obj);
	struct item *i = o ? take(s, sizeof(*i)) : NULL;

	if (!i)
		return false;
	if (rec->flags & SC_LOG_F_DIR)
		o->is_dir = true;
	*i = (struct item){.rec = rec, .done = done};
	if (o->last)
		o->last->next = i;
	else
		o->first = i;
	o->last = i;
	o->has_flags |= rec->kind == SC_LOG_SETFLAGS || rec->kind == SC_LOG_FSSETXATTR;
	if (done)
		simulate(o, rec);
	if (!done && rec->kind == SC_LOG_WRITE && rec->flags & SC_LOG_F_APPEND) {
		o->has_size = true; /* the end, before */
		o->size = rec->off;
	}
	return true;
}

static bool read_record(struct sim *s, struct sc_log_rec *rec)
{
	bool done = rec->state == SC_LOG_DONE;

	if (rec->state != SC_LOG_DONE && rec->state != SC_LOG_INTENT)
		return true;
	if (!done && rec->kind != SC_LOG_CREATE && !rec->obj.len)
		return replay_fail_at(s, rec, "names no file");
	s->r->records += done;
	switch (rec->kind) {
	case SC_LOG_CREATE:
		return read_create(s, rec, done);
	case SC_LOG_LINK:
		return read_link(s, rec, done);
	case SC_LOG_UNLINK:
		return read_unlink(s, rec, done);
	case SC_LOG_RENAME:
		return read_rename(s, rec, done);
	case SC_LOG_PAD:
		return true;
	default:
		return read_change(s, rec, done);
	}
}

/* Room for the hash tables: records there can be. */
static bool make_tables(struct sim *s, uint64_t bytes)
{
	s->room = 64;
	while (s->room < bytes / sizeof(struct sc_log_rec))
		s->room *= 2;
	s->by_fid = calloc(s->room, sizeof(struct object *));
	s->by_now = calloc(s->room, sizeof(struct object *));
	s->by_name = calloc(s->room, sizeof(struct name *));
	s->objects_end = &s->objects;
	s->names_end = &s->all_names;
	s->intents_end = &s->intents;
	if (!s->by_fid || !s->by_now || !s->by_name)
		return replay_fail(s, "no memory for the log's replay");
	return true;
}

bool replay_read(struct sim *s, uint64_t from, uint64_t to)
{
	const char *wrong;

	if (!make_tables(s, to - from))
		return false;
	for (uint64_t at = from; at < to;) {
		struct sc_log_rec *rec = logrec_at(s->r->log, at, to, &wrong);

		if (!rec)
			return replay_fail(s, "the log is damaged at offset %llu: %s",
					   (unsigned long long)at, wrong);
		if (!read_record(s, rec))
			return false;
		at += rec->len;
	}
	return true;
}

bool replay_count_names(struct sim *s)
{
	for (struct object *o = s->objects; o; o = o->next) {
		o->names = NULL;
		o->nnames = 0;
	}
	for (struct name *n = s->all_names; n; n = n->next) {
		struct object *o = n->holds;

		if (!o)
			continue;
		if (o->is_dir && o->nnames)
			return replay_fail_at(s, n->rec, "gives a directory a second name");
		n->more = o->names;
		o->names = n;
		o->nnames++;
	}
	return true;
}
