/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * numbers.h - inode numbers as callers see them: those of files that a replay made once more (inodes.h), in the agent. Kept in
 * SC_TABLE_INODES; known when the first call is served, constant from then on.
 */
#ifndef SC_AGENT_NUMBERS_H
#define SC_AGENT_NUMBERS_H

#include <stdint.h>

#include "agent.h"

struct replay;

/* Before the log is replayed: what former incarnations exchanged. In the recovering thread, as all but numbers_shown(). */
void numbers_load(struct agent *agent);
/* Before what was replayed counts. */
void numbers_moved(struct agent *agent, const struct replay *r);
/* When it does. */
void numbers_committed(struct agent *agent);

/* The number by which callers know a file. dev: st_dev. Any thread. */
uint64_t numbers_shown(const struct agent *agent, uint64_t dev, uint64_t real);

#endif
