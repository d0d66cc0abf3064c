/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tables.h - the tables of SC_OWN_STATE (vhost-sc/state.h): finding them as another incarnation left them, or making them.
 *
 * Where the tables are is read once, checked, and kept here; nothing of it is read from the segment later. What is in the
 * entries is the affair of whoever has the table: keep.c for storage.
 */
#ifndef SC_AGENT_TABLES_H
#define SC_AGENT_TABLES_H

#include <stdint.h>

#include "agent.h"

/* A table to be made: entries of `size` bytes (a multiple of 64) in `share` 64ths of the segment; 0: there is none. */
struct table_kind {
	uint32_t size;
	uint32_t share;
};

enum tables_found {
	TABLES_NONE, /* there is no segment, or one that is too small: nothing is kept */
	TABLES_NEW,  /* made just now: no incarnation has used the segment before */
	TABLES_KEPT, /* as another incarnation left them */
	TABLES_LOST, /* there were some, and they are of no use: made anew. The reason is in the log */
};

/* Private to whoever has it; constant after tables_open(). */
struct tables {
	struct sc_tables *shared;
	struct {
		uint8_t *at;
		uint32_t size;
		uint32_t count;
	} table[SC_TABLE_KINDS];
};

/*
 * Finds or makes the tables in the segment. For TABLES_KEPT the attempt counts (sc_tables.tries) until
 * tables_rebuilt(): after SC_TABLES_TRIES attempts that did not get there they are TABLES_LOST. Main's or the recovering thread.
 */
enum tables_found tables_open(struct tables *t, const struct own *own, uint64_t epoch,
			      uint32_t incarnation, const struct table_kind kinds[SC_TABLE_KINDS]);

/* What they hold is impossible: clears all, and says why. */
void tables_give_up(struct tables *t, const char *why);

/* What they hold is in service again. */
void tables_rebuilt(struct tables *t);

static inline uint32_t table_count(const struct tables *t, enum sc_table kind)
{
	return t->table[kind].count;
}

/* Entry i < table_count(). */
static inline void *table_at(const struct tables *t, enum sc_table kind, uint32_t i)
{
	return t->table[kind].at + (uint64_t)t->table[kind].size * i;
}

#endif
