/* SPDX-License-Identifier: BSD-3-Clause */
/* tables.c - see tables.h. */
#include "tables.h"

#include "crc32c.h"
#include "log.h"

#include <string.h>

#define SHARES 64u

/* The header as it has to be for these kinds. */
static void describe(struct sc_tables *want, const struct own *own, uint64_t epoch,
		     const struct table_kind kinds[SC_TABLE_KINDS])
{
	uint64_t off = SC_TABLES_BEGIN;

	memset(want, 0, sizeof(*want));
	want->magic = SC_TABLES_MAGIC;
	want->version = SC_TABLES_VERSION;
	want->epoch = epoch;
	for (uint32_t i = 0; i < SC_TABLE_KINDS; i++) {
		uint64_t bytes = (own->size - SC_TABLES_BEGIN) / SHARES * kinds[i].share;

		if (!kinds[i].share)
			continue;
		want->table[i].off = (uint32_t)off;
		want->table[i].size = kinds[i].size;
		want->table[i].count = (uint32_t)(bytes / kinds[i].size);
		off += (uint64_t)want->table[i].count * kinds[i].size;
	}
	want->check = crc32c(0, want, offsetof(struct sc_tables, check));
}

static void make(struct sc_tables *to, const struct sc_tables *want, const struct own *own)
{
	/* Release: no magic, no tables, whatever part of the rest is done. */
	__atomic_store_n(&to->magic, 0, __ATOMIC_RELEASE);
	release_fence();
	memset((uint8_t *)own->base + SC_TABLES_BEGIN, 0, own->size - SC_TABLES_BEGIN);
	memcpy((uint8_t *)to + sizeof(to->magic), (const uint8_t *)want + sizeof(want->magic),
	       sizeof(*want) - sizeof(want->magic));
	__atomic_store_n(&to->magic, SC_TABLES_MAGIC, __ATOMIC_RELEASE);
}

/* Why the tables that are there are of no use, or NULL. */
static const char *judge(const struct sc_tables *have, const struct sc_tables *want)
{
	if (have->magic != SC_TABLES_MAGIC)
		return "they have no magic";
	if (have->check != crc32c(0, have, offsetof(struct sc_tables, check)))
		return "the checksum is wrong";
	if (have->version != want->version)
		return "another version made them";
	if (have->epoch != want->epoch)
		return "they are another domain's";
	if (memcmp(have, want, offsetof(struct sc_tables, check)))
		return "they are laid out otherwise";
	if (have->tries >= SC_TABLES_TRIES)
		return "several agents in a row died while they rebuilt from them";
	return NULL;
}

static bool all_zero(const struct sc_tables *have)
{
	const uint8_t *byte = (const uint8_t *)have;
	uint8_t any = 0;

	for (size_t i = 0; i < sizeof(*have); i++)
		any |= byte[i];
	return !any;
}

static enum tables_found find(struct tables *t, const struct own *own, const struct sc_tables *want,
			      uint32_t incarnation)
{
	struct sc_tables have;
	const char *why;

	memcpy(&have, t->shared, sizeof(have));
	if (all_zero(&have)) {
		make(t->shared, want, own);
		return TABLES_NEW;
	}
	why = judge(&have, want);
	if (why) {
		log_error("the kept tables are of no use, and are begun anew: %s", why);
		make(t->shared, want, own);
		return TABLES_LOST;
	}
	__atomic_store_n(&t->shared->tries, have.tries + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&t->shared->incarnation, incarnation, __ATOMIC_RELAXED);
	return TABLES_KEPT;
}

enum tables_found tables_open(struct tables *t, const struct own *own, uint64_t epoch,
			      uint32_t incarnation, const struct table_kind kinds[SC_TABLE_KINDS])
{
	struct sc_tables want;
	enum tables_found found;

	memset(t, 0, sizeof(*t));
	if (!own->base || own->size < 2 * SC_TABLES_BEGIN || own->size > SC_OWN_SEGMENT_MAX)
		return TABLES_NONE;
	t->shared = own->base;
	describe(&want, own, epoch, kinds);
	found = find(t, own, &want, incarnation);
	for (uint32_t i = 0; i < SC_TABLE_KINDS; i++) {
		t->table[i].at = (uint8_t *)own->base + want.table[i].off;
		t->table[i].size = want.table[i].size;
		t->table[i].count = want.table[i].count;
	}
	return found;
}

void tables_give_up(struct tables *t, const char *why)
{
	log_error("what is kept of open files is damaged (%s): all of it is given up", why);
	for (uint32_t i = 0; i < SC_TABLE_KINDS; i++)
		memset(t->table[i].at, 0, (uint64_t)t->table[i].size * t->table[i].count);
	tables_rebuilt(t);
}

void tables_rebuilt(struct tables *t)
{
	if (t->shared)
		__atomic_store_n(&t->shared->tries, 0, __ATOMIC_RELEASE);
}
