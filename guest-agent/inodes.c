/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inodes.c - see inodes.h.
 *
 * With P the permutation before (real to shown) and S the one that takes the number a file has now to the one it had when it
 * was lost, the new permutation is P after S: what is called now_ino is shown as what was_ino was. S is made complete along
 * its chains: numbers that were left and not taken go to those that were taken and not left.
 */
#include "inodes.h"

#include "crc32c.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>

static size_t place_of(const struct inodes *t, uint64_t real)
{
	size_t i = (real * 0x9e3779b97f4a7c15ull >> 20) & (t->room - 1);

	while (t->pairs[i].real && t->pairs[i].real != real)
		i = (i + 1) & (t->room - 1);
	return i;
}

uint64_t inodes_find(const struct inodes *t, uint64_t real)
{
	size_t i = place_of(t, real);

	return t->pairs[i].real ? t->pairs[i].shown : real;
}

static uint64_t shown_by(const struct inodes *t, uint64_t real)
{
	return t->pairs ? inodes_find(t, real) : real;
}

static bool grow(struct inodes *t)
{
	struct inodes bigger = {.dev = t->dev, .room = t->room ? t->room * 2 : 64};

	bigger.pairs = calloc(bigger.room, sizeof(*bigger.pairs));
	if (!bigger.pairs)
		return false;
	for (size_t i = 0; i < t->room; i++)
		if (t->pairs[i].real)
			bigger.pairs[place_of(&bigger, t->pairs[i].real)] = t->pairs[i];
	bigger.used = t->used;
	free(t->pairs);
	*t = bigger;
	return true;
}

static bool put(struct inodes *t, uint64_t real, uint64_t shown)
{
	size_t i;

	if (!t->room || t->used * 2 >= t->room)
		if (!grow(t))
			return false;
	i = place_of(t, real);
	t->used += !t->pairs[i].real;
	t->pairs[i] = (struct inode_pair){real, shown};
	return true;
}

void inodes_free(struct inodes *t)
{
	free(t->pairs);
	t->pairs = NULL;
	t->room = t->used = 0;
}

/* True if every number that is shown is one that is real, once. */
static bool is_permutation(const struct inodes *t)
{
	struct inodes back = {0};
	bool ok = true;

	for (size_t i = 0; i < t->room && ok; i++) {
		const struct inode_pair *p = &t->pairs[i];

		if (!p->real)
			continue;
		ok = p->shown && t->pairs[place_of(t, p->shown)].real &&
		     shown_by(&back, p->shown) == p->shown && put(&back, p->shown, p->real);
		if (ok && p->shown != p->real)
			continue;
		/* One that shows itself is in `back` as itself, too: its double would not be noticed. Nobody writes such. */
		ok = false;
	}
	inodes_free(&back);
	return ok;
}

static uint32_t entry_check(const struct sc_kept_inode *e)
{
	return crc32c(0, &e->real, 24);
}

bool inodes_load(struct inodes *t, struct sc_kept_inode *kept, size_t count, uint64_t synced)
{
	bool ok = true;

	for (size_t i = 0; i < count; i++) {
		struct sc_kept_inode *e = &kept[i];

		if (e->state != SC_KEPT_LIVE)
			continue;
		ok = ok && e->check == entry_check(e) && e->real;
		if (e->from > synced || (e->until && e->until <= synced)) {
			__atomic_store_n(&e->state, SC_KEPT_FREE, __ATOMIC_RELEASE);
			continue;
		}
		e->until = 0; /* of an attempt that did not come to its end */
		ok = ok && put(t, e->real, e->shown);
	}
	if (ok && is_permutation(t))
		return true;
	inodes_free(t);
	log_error(
	    "the table of inode numbers is damaged: files may have other numbers than before");
	return false;
}

/* S: moved->now_ino to moved->was_ino, made complete. False: no memory. */
static bool complete(struct inodes *s, const struct replay *r)
{
	struct inodes back = {0};
	bool ok = true;

	for (size_t i = 0; i < r->nmoved && ok; i++) {
		const struct replay_moved *m = &r->moved[i];

		if (!m->was_ino || !m->now_ino || m->was_ino == m->now_ino)
			continue;
		ok = put(s, m->now_ino, m->was_ino) && put(&back, m->was_ino, m->now_ino);
	}
	/* A chain x1 -> x2 -> ... -> xn, where no file is called xn now, and none was called x1: xn -> x1. */
	for (size_t i = 0; i < r->nmoved && ok; i++) {
		uint64_t x = r->moved[i].was_ino, y = r->moved[i].now_ino;

		if (!x || !y || x == y || s->pairs[place_of(s, x)].real)
			continue;
		while (back.pairs[place_of(&back, y)].real)
			y = back.pairs[place_of(&back, y)].shown;
		ok = put(s, x, y);
	}
	inodes_free(&back);
	return ok;
}

/* The new permutation: P after S. */
static bool compose(struct inodes *to, const struct inodes *p, const struct inodes *s)
{
	bool ok = true;

	to->dev = p->dev;
	for (size_t i = 0; i < s->room && ok; i++) {
		uint64_t real = s->pairs[i].real, shown = shown_by(p, s->pairs[i].shown);

		if (real && real != shown)
			ok = put(to, real, shown);
	}
	for (size_t i = 0; i < p->room && ok; i++)
		if (p->pairs[i].real && shown_by(s, p->pairs[i].real) == p->pairs[i].real)
			ok = put(to, p->pairs[i].real, p->pairs[i].shown);
	return ok;
}

/* Brings `kept` from what it says to what `to` says, with effect from `at` on. */
static bool write_entries(struct sc_kept_inode *kept, size_t count, const struct inodes *to,
			  uint64_t at)
{
	struct inodes have = {0};
	size_t free_at = 0;
	bool ok = true;

	for (size_t i = 0; i < count && ok; i++) {
		struct sc_kept_inode *e = &kept[i];

		if (e->state != SC_KEPT_LIVE)
			continue;
		if (shown_by(to, e->real) == e->shown)
			ok = put(&have, e->real, e->shown);
		else
			e->until = at;
	}
	for (size_t i = 0; i < to->room && ok; i++) {
		const struct inode_pair *p = &to->pairs[i];

		if (!p->real || (have.pairs && have.pairs[place_of(&have, p->real)].real))
			continue;
		while (free_at < count && kept[free_at].state != SC_KEPT_FREE)
			free_at++;
		ok = free_at < count;
		if (!ok)
			break;
		kept[free_at].real = p->real;
		kept[free_at].shown = p->shown;
		kept[free_at].from = at;
		kept[free_at].until = 0;
		kept[free_at].check = entry_check(&kept[free_at]);
		__atomic_store_n(&kept[free_at].state, SC_KEPT_LIVE, __ATOMIC_RELEASE);
	}
	inodes_free(&have);
	return ok;
}

/* Takes back what write_entries() did for `at`. */
static void unwrite_entries(struct sc_kept_inode *kept, size_t count, uint64_t at)
{
	for (size_t i = 0; i < count; i++) {
		if (kept[i].state != SC_KEPT_LIVE)
			continue;
		if (kept[i].from == at)
			__atomic_store_n(&kept[i].state, SC_KEPT_FREE, __ATOMIC_RELEASE);
		else if (kept[i].until == at)
			kept[i].until = 0;
	}
}

bool inodes_moved(struct inodes *t, struct sc_kept_inode *kept, size_t count,
		  const struct replay *r)
{
	struct inodes s = {0}, to = {0};
	bool ok = complete(&s, r);

	if (ok && !s.pairs)
		return true;
	ok = ok && compose(&to, t, &s);
	inodes_free(&s);
	if (ok && !write_entries(kept, count, &to, r->synced)) {
		unwrite_entries(kept, count, r->synced);
		ok = false;
	}
	if (!ok) {
		inodes_free(&to);
		log_warning("no room to keep inode numbers: files that were made once more have "
			    "others than before");
		return false;
	}
	inodes_free(t);
	*t = to;
	return true;
}

void inodes_committed(struct sc_kept_inode *kept, size_t count, uint64_t synced)
{
	for (size_t i = 0; i < count; i++)
		if (kept[i].state == SC_KEPT_LIVE && kept[i].until && kept[i].until <= synced)
			__atomic_store_n(&kept[i].state, SC_KEPT_FREE, __ATOMIC_RELEASE);
}
