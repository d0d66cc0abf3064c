/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inodes.h - the numbers by which callers know files that a replay has made once more (sc_kept_inode in vhost-sc/state.h).
 *
 * A permutation of inode numbers, empty in nearly all domains' lives. It is made at recovery, before any call is served, and
 * is constant from then on: look-ups need no lock. Numbers of one file system only, the one that the export's root is on.
 */
#ifndef SC_AGENT_INODES_H
#define SC_AGENT_INODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replay.h"
#include "vhost-sc/state.h"

struct inodes {
	uint64_t dev; /* st_dev, of the files that are meant */
	struct inode_pair {
		uint64_t real;
		uint64_t shown;
	} * pairs; /* a hash table of `room` (a power of two) places; real 0: free. NULL: nothing is exchanged */
	size_t room;
	size_t used;
};

/* Takes over what `count` kept entries say, those that count when the log has come to `synced`; clears entries of
 * attempts that did not come to their end. What is no permutation is not used: false, with a message in the log. */
bool inodes_load(struct inodes *t, struct sc_kept_inode *kept, size_t count, uint64_t synced);

/*
 * What r has made once more keeps its number: adds to *t, and to `kept` so that it counts from r->synced on. Before
 * replay_commit(). False, with a message in the log, if there is no room: then numbers may have changed.
 */
bool inodes_moved(struct inodes *t, struct sc_kept_inode *kept, size_t count,
		  const struct replay *r);

/* After replay_commit(): frees the entries that count no more. */
void inodes_committed(struct sc_kept_inode *kept, size_t count, uint64_t synced);

void inodes_free(struct inodes *t);

uint64_t inodes_find(const struct inodes *t, uint64_t real);

/* The number that callers see, of the file that has `real` on the disk. */
static inline uint64_t inode_shown(const struct inodes *t, uint64_t dev, uint64_t real)
{
	return __builtin_expect(!t->pairs, 1) || dev != t->dev ? real : inodes_find(t, real);
}

#endif
