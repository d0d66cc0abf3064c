/* SPDX-License-Identifier: BSD-3-Clause */
/* session.c - see session.h. */
#include "session.h"

#include "agent.h"
#include "handles.h"

#include <errno.h>
#include <stdlib.h>

#define BUCKETS 1024u

struct sessions {
	pthread_mutex_t
	    lock; /* guards chains and count; taken inside no other lock but a session's last put */
	struct session *bucket[BUCKETS];
	uint32_t count;
	uint32_t max_handles; /* of one session */
};

struct sessions *sessions_new(uint32_t max_handles)
{
	struct sessions *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	pthread_mutex_init(&t->lock, NULL);
	t->max_handles = max_handles;
	return t;
}

/* The session in its chain, without a reference. With the table's lock held. */
static struct session **find_link(struct sessions *t, uint32_t id)
{
	struct session **link = &t->bucket[id % BUCKETS];

	while (*link && (*link)->id != id)
		link = &(*link)->next;
	return link;
}

/* Makes a session with one reference at the end of its chain. NULL: no memory. With the table's lock held. */
static struct session *make(struct sessions *t, struct session **link, uint32_t id)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->table = t;
	s->id = id;
	atomic_init(&s->refs, 1);
	pthread_mutex_init(&s->lock, NULL);
	*link = s;
	t->count++;
	return s;
}

struct session *session_new(struct sessions *t, uint32_t id, uint32_t process, uint32_t pid,
			    const struct cred *cred)
{
	struct session **link;
	struct session *s;

	pthread_mutex_lock(&t->lock);
	link = find_link(t, id);
	s = *link;
	if (!s)
		s = make(t, link, id);
	else if (s->expected)
		s->expected = false;
	else
		s = NULL;
	if (s) {
		s->process = process;
		s->pid = pid;
		s->cred = cred;
	}
	pthread_mutex_unlock(&t->lock);
	return s;
}

struct session *session_expect(struct sessions *t, uint32_t id)
{
	struct session **link;
	struct session *s;

	pthread_mutex_lock(&t->lock);
	link = find_link(t, id);
	s = *link;
	if (!s) {
		s = make(t, link, id);
		if (s)
			s->expected = true;
	}
	if (s)
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&t->lock);
	return s;
}

struct session *sessions_take_expected(struct sessions *t)
{
	struct session *s = NULL;

	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < BUCKETS && !s; i++) {
		s = t->bucket[i];
		while (s && !s->expected)
			s = s->next;
	}
	if (s)
		s->expected = false;
	pthread_mutex_unlock(&t->lock);
	if (s) {
		pthread_mutex_lock(&s->lock);
		s->ended = true;
		pthread_mutex_unlock(&s->lock);
	}
	return s;
}

bool session_add_grant(struct session *s, uint64_t name)
{
	bool ok = true;

	pthread_mutex_lock(&s->lock);
	if (s->ngranted == s->granted_size) {
		uint32_t size = s->granted_size ? 2 * s->granted_size : 8;
		uint64_t *bigger = realloc(s->granted, size * sizeof(*bigger));

		if (bigger) {
			s->granted = bigger;
			s->granted_size = size;
		}
		ok = bigger;
	}
	if (ok)
		s->granted[s->ngranted++] = name;
	pthread_mutex_unlock(&s->lock);
	return ok;
}

uint64_t session_take_grant(struct session *s)
{
	uint64_t name;

	pthread_mutex_lock(&s->lock);
	name = s->ngranted ? s->granted[--s->ngranted] : 0;
	pthread_mutex_unlock(&s->lock);
	return name;
}

struct session *session_find(struct sessions *t, uint32_t id)
{
	struct session *s;

	pthread_mutex_lock(&t->lock);
	s = *find_link(t, id);
	/* In the table the count is above zero: the last put takes the lock first. */
	if (s)
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&t->lock);
	return s;
}

void session_put(struct session *s)
{
	struct sessions *t = s->table;
	uint32_t refs = atomic_load_explicit(&s->refs, memory_order_relaxed);

	while (refs > 1)
		if (atomic_compare_exchange_weak_explicit(
			&s->refs, &refs, refs - 1, memory_order_release, memory_order_relaxed))
			return;
	/* Perhaps the last: decided under the lock, so that session_find() finds no dying session. */
	pthread_mutex_lock(&t->lock);
	if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) {
		pthread_mutex_unlock(&t->lock);
		return;
	}
	*find_link(t, s->id) = s->next;
	t->count--;
	pthread_mutex_unlock(&t->lock);
	for (uint32_t i = 0; i < TICKET_PAGES; i++)
		free(s->tickets[i]);
	free(s->granted);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

uint32_t sessions_count(struct sessions *t)
{
	uint32_t n;

	pthread_mutex_lock(&t->lock);
	n = t->count;
	pthread_mutex_unlock(&t->lock);
	return n;
}

bool session_add_handle(struct session *s, struct handle *h)
{
	bool ok;

	pthread_mutex_lock(&s->lock);
	ok = !s->ended && s->nhandles < s->table->max_handles;
	if (ok) {
		s->nhandles++;
		h->own_prev = NULL;
		h->own_next = s->handles;
		if (s->handles)
			s->handles->own_prev = h;
		s->handles = h;
		h->session = s;
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&s->lock);
	return ok;
}

void session_remove_handle(struct session *s, struct handle *h)
{
	pthread_mutex_lock(&s->lock);
	if (h->own_prev)
		h->own_prev->own_next = h->own_next;
	else
		s->handles = h->own_next;
	if (h->own_next)
		h->own_next->own_prev = h->own_prev;
	s->nhandles--;
	pthread_mutex_unlock(&s->lock);
	session_put(s);
}

/* The ticket's place, or NULL if it cannot be this session's, or (with `make` unset) was never used. With the session's
 * lock held. */
static uint64_t *ticket_place(struct session *s, uint64_t ticket, bool make)
{
	uint32_t n = (uint32_t)ticket;
	uint64_t **page;

	if (ticket >> 32 != s->id || n < 1 || n > SC_MAX_TICKETS)
		return NULL;
	page = &s->tickets[n / TICKETS_PER_PAGE];
	if (!*page && make)
		*page = calloc(TICKETS_PER_PAGE, sizeof(**page));
	return *page ? &(*page)[n % TICKETS_PER_PAGE] : NULL;
}

int ticket_begin(struct session *s, uint64_t ticket)
{
	uint64_t *place;
	int err = 0;

	if (!ticket)
		return 0;
	if (ticket >> 32 != s->id)
		return -EBADF;
	pthread_mutex_lock(&s->lock);
	place = ticket_place(s, ticket, true);
	if (!place || *place == TICKET_DEAD)
		err = -EBADF;
	else if (*place != TICKET_FREE)
		err = -EBUSY;
	else
		*place = TICKET_OPENING;
	pthread_mutex_unlock(&s->lock);
	return err;
}

void ticket_restore(struct session *s, uint64_t ticket, uint64_t name)
{
	uint64_t *place;

	pthread_mutex_lock(&s->lock);
	place = ticket_place(s, ticket, true);
	if (place)
		*place = name;
	pthread_mutex_unlock(&s->lock);
}

int ticket_end(struct session *s, uint64_t ticket, uint64_t name)
{
	uint64_t *place;
	int err = 0;

	if (!ticket)
		return 0;
	pthread_mutex_lock(&s->lock);
	place = ticket_place(s, ticket, false);
	if (*place == TICKET_DEAD)
		err = -EBADF;
	else
		*place = name;
	pthread_mutex_unlock(&s->lock);
	return err;
}

void ticket_free(struct session *s, uint64_t ticket, uint64_t name)
{
	uint64_t *place;

	if (!ticket)
		return;
	pthread_mutex_lock(&s->lock);
	place = ticket_place(s, ticket, false);
	if (place && *place == name)
		*place = TICKET_FREE;
	pthread_mutex_unlock(&s->lock);
}

uint64_t ticket_kill(struct session *s, uint64_t ticket)
{
	uint64_t *place, name = 0;

	pthread_mutex_lock(&s->lock);
	place = ticket_place(s, ticket, true);
	if (place) {
		name = *place > TICKET_DEAD ? *place : 0;
		*place = TICKET_DEAD;
	}
	pthread_mutex_unlock(&s->lock);
	return name;
}
