/* SPDX-License-Identifier: BSD-3-Clause */
/* numbers.c - see numbers.h. */
#include "numbers.h"

#include "inodes.h"
#include "keep.h"
#include "log.h"
#include "tables.h"

#include <stdlib.h>

/* The kept entries, *count of them. NULL: there are none. */
static struct sc_kept_inode *kept(const struct agent *agent, uint32_t *count)
{
	const struct tables *t = keep_tables(agent);

	*count = table_count(t, SC_TABLE_INODES);
	return *count ? table_at(t, SC_TABLE_INODES, 0) : NULL;
}

static uint64_t synced(const struct agent *agent)
{
	const struct sc_log *log = agent->own[SC_OWN_LOG].base;

	return __atomic_load_n(&log->synced, __ATOMIC_ACQUIRE);
}

void numbers_load(struct agent *agent)
{
	uint32_t count;
	struct sc_kept_inode *entries = kept(agent, &count);
	struct inodes *t = entries ? calloc(1, sizeof(*t)) : NULL;

	if (!t)
		return;
	t->dev = agent->root_dev;
	inodes_load(t, entries, count, synced(agent));
	agent->inodes = t;
}

void numbers_moved(struct agent *agent, const struct replay *r)
{
	uint32_t count;
	struct sc_kept_inode *entries = kept(agent, &count);

	if (agent->inodes)
		inodes_moved(agent->inodes, entries, count, r);
	else if (r->nmoved)
		log_warning("no room to keep inode numbers: files that were made once more have "
			    "others than before");
}

void numbers_committed(struct agent *agent)
{
	uint32_t count;
	struct sc_kept_inode *entries = kept(agent, &count);

	if (agent->inodes)
		inodes_committed(entries, count, synced(agent));
}

uint64_t numbers_shown(const struct agent *agent, uint64_t dev, uint64_t real)
{
	return agent->inodes ? inode_shown(agent->inodes, dev, real) : real;
}
