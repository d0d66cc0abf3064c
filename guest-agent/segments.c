/* SPDX-License-Identifier: BSD-3-Clause */
/* segments.c - see segments.h. */
#include "segments.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define BUCKETS 256u

struct segments {
	struct transport *tr;
	pthread_mutex_t lock; /* guards the lists */
	struct segment *bucket[BUCKETS];
	struct segment *ended;
};

struct segments *segments_new(struct transport *tr)
{
	struct segments *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->tr = tr;
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

static struct segment **bucket_of(struct segments *t, uint64_t ticket)
{
	return &t->bucket[(ticket ^ ticket >> 32) % BUCKETS];
}

struct segment *segment_find(struct segments *t, uint64_t ticket)
{
	struct segment *s;

	pthread_mutex_lock(&t->lock);
	for (s = *bucket_of(t, ticket); s && s->ticket != ticket;)
		s = s->next;
	if (s)
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&t->lock);
	return s;
}

bool segment_put(struct segment *s)
{
	/* Release: what this user did is over before main unmaps. The table's own reference goes when it ends. */
	return atomic_fetch_sub_explicit(&s->refs, 1, memory_order_release) == 1;
}

int segments_add(struct segments *t, const struct sc_msg_segment *m, struct transport_fds *fds)
{
	uint64_t max = m->ticket < SC_OWN_MAX ? SC_OWN_SEGMENT_MAX : SC_SEGMENT_MAX;
	struct segment *s;
	struct segment **at;
	int err;

	if (m->size < SC_SEGMENT_MIN || m->size > max || m->size & (m->size - 1) || !m->number)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	err = t->tr->ops->map_segment(t->tr, m->offset, m->size, fds, &s->map);
	if (err) {
		free(s);
		return err;
	}
	atomic_init(&s->refs, 1);
	s->number = m->number;
	s->ticket = m->ticket;
	pthread_mutex_lock(&t->lock);
	at = bucket_of(t, s->ticket);
	s->next = *at;
	*at = s;
	pthread_mutex_unlock(&t->lock);
	return 0;
}

bool segments_end(struct segments *t, uint32_t number)
{
	struct segment *s = NULL;

	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < BUCKETS && !s; i++) {
		struct segment **at = &t->bucket[i];

		while (*at && (*at)->number != number)
			at = &(*at)->next;
		s = *at;
		if (s)
			*at = s->next;
	}
	if (s) {
		s->next = t->ended;
		t->ended = s;
		atomic_fetch_sub_explicit(&s->refs, 1, memory_order_release);
	}
	pthread_mutex_unlock(&t->lock);
	return s;
}

uint32_t segments_collect(struct segments *t)
{
	struct segment **at = &t->ended;
	struct segment *s;
	uint32_t number;

	pthread_mutex_lock(&t->lock);
	/* Acquire: pairs with segment_put(). */
	while (*at && atomic_load_explicit(&(*at)->refs, memory_order_acquire))
		at = &(*at)->next;
	s = *at;
	if (s)
		*at = s->next;
	pthread_mutex_unlock(&t->lock);
	if (!s)
		return 0;
	t->tr->ops->unmap(t->tr, &s->map);
	number = s->number;
	free(s);
	return number;
}
