/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * idmap.h - a hash table from 64-bit keys to 32-bit indices.
 *
 * Open addressing with linear probing; removal moves followers back, so that there are no
 * tombstones and a table that lives for weeks does not rot. Grows by doubling at three quarters;
 * never shrinks. Keys are not 0.
 */
#ifndef VHOST_SC_IDMAP_H
#define VHOST_SC_IDMAP_H

#include <stdbool.h>
#include <stdint.h>

struct idmap_entry {
	uint64_t key; /* 0: empty */
	uint32_t value;
};

struct idmap {
	struct idmap_entry *v; /* cap entries; owned */
	uint32_t cap;	       /* a power of two, or 0 */
	uint32_t used;
};

/* Adds key (not 0, not in the table). Returns 0, or -ENOMEM. */
int idmap_put(struct idmap *m, uint64_t key, uint32_t value);

/* True and *value if the key is there. */
bool idmap_get(const struct idmap *m, uint64_t key, uint32_t *value);

/* Removes the key, if it is there. */
void idmap_del(struct idmap *m, uint64_t key);

/* Frees the table; it is empty afterwards. */
void idmap_free(struct idmap *m);

#endif
