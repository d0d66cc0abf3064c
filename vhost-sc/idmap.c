/* SPDX-License-Identifier: BSD-3-Clause */
/* idmap.c - a hash table of 64-bit keys; see idmap.h. */
#include <errno.h>
#include <stdlib.h>

#include "idmap.h"

/* Keys are chosen by the kernel (cookies) or by ourselves (ticket numbers), never by a peer: a
 * multiplicative hash is enough. */
static uint32_t home(const struct idmap *m, uint64_t key)
{
	return (uint32_t)((key * 0x9e3779b97f4a7c15ull) >> 32) & (m->cap - 1);
}

static void place(struct idmap *m, uint64_t key, uint32_t value)
{
	uint32_t i = home(m, key);

	while (m->v[i].key)
		i = (i + 1) & (m->cap - 1);
	m->v[i] = (struct idmap_entry){key, value};
}

static int grow(struct idmap *m)
{
	struct idmap bigger = {.cap = m->cap ? m->cap * 2 : 64, .used = m->used};

	bigger.v = calloc(bigger.cap, sizeof(*bigger.v));
	if (!bigger.v)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->cap; i++) {
		if (m->v[i].key)
			place(&bigger, m->v[i].key, m->v[i].value);
	}
	free(m->v);
	*m = bigger;
	return 0;
}

int idmap_put(struct idmap *m, uint64_t key, uint32_t value)
{
	if (m->used >= m->cap / 4 * 3 && grow(m))
		return -ENOMEM;
	place(m, key, value);
	m->used++;
	return 0;
}

static bool find(const struct idmap *m, uint64_t key, uint32_t *at)
{
	if (!m->cap || !key)
		return false;
	for (uint32_t i = home(m, key); m->v[i].key; i = (i + 1) & (m->cap - 1)) {
		if (m->v[i].key == key) {
			*at = i;
			return true;
		}
	}
	return false;
}

bool idmap_get(const struct idmap *m, uint64_t key, uint32_t *value)
{
	uint32_t at;

	if (!find(m, key, &at))
		return false;
	*value = m->v[at].value;
	return true;
}

void idmap_del(struct idmap *m, uint64_t key)
{
	uint32_t hole;

	if (!find(m, key, &hole))
		return;
	m->used--;
	for (uint32_t i = (hole + 1) & (m->cap - 1); m->v[i].key; i = (i + 1) & (m->cap - 1)) {
		/* An entry may move back into the hole unless its home lies after the hole. */
		uint32_t distance = (i - home(m, m->v[i].key)) & (m->cap - 1);

		if (distance < ((i - hole) & (m->cap - 1)))
			continue;
		m->v[hole] = m->v[i];
		hole = i;
	}
	m->v[hole].key = 0;
}

void idmap_free(struct idmap *m)
{
	free(m->v);
	*m = (struct idmap){0};
}
