/* SPDX-License-Identifier: BSD-3-Clause */
/* handles.c - see handles.h. */
#include "handles.h"

#include "agent.h"
#include "hot.h"
#include "orphans.h"
#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NO_INDEX UINT32_MAX

struct handles {
	pthread_mutex_t lock; /* guards the free list and the counts */
	struct handle *all;
	size_t bytes; /* of it */
	uint32_t max;
	uint32_t used; /* entries that were ever in use: above it they are untouched memory */
	uint32_t first_free;
	uint32_t count;
	uint32_t incarnation; /* low 8 bits */
	struct agent *agent;  /* handles_serve() */
};

struct handles *handles_new(uint32_t max, uint32_t incarnation)
{
	struct handles *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->bytes = (size_t)max * sizeof(struct handle);
	t->all = mmap(NULL, t->bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (t->all == MAP_FAILED) {
		free(t);
		return NULL;
	}
	pthread_mutex_init(&t->lock, NULL);
	t->max = max;
	t->first_free = NO_INDEX;
	t->incarnation = incarnation & 0xff;
	return t;
}

void handles_serve(struct handles *t, struct agent *agent)
{
	t->agent = agent;
}

void handles_free(struct handles *t)
{
	munmap(t->all, t->bytes);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

/* A free entry, or NULL. */
static struct handle *take_entry(struct handles *t)
{
	struct handle *h = NULL;

	pthread_mutex_lock(&t->lock);
	if (t->first_free != NO_INDEX) {
		h = &t->all[t->first_free];
		t->first_free = h->next_free;
	} else if (t->used < t->max) {
		h = &t->all[t->used++];
		pthread_mutex_init(&h->lock, NULL);
	}
	if (h)
		t->count++;
	pthread_mutex_unlock(&t->lock);
	return h;
}

/* The generation after that of `ref`, in this incarnation. Never 0, so that no handle is 0. */
static uint64_t next_generation(const struct handles *t, uint64_t ref)
{
	uint32_t count = ((uint32_t)(ref >> 32) + 1) & 0xffffff;

	if (!count)
		count = 1;
	return (uint64_t)(t->incarnation << 24 | count) << 32;
}

struct handle *handle_new(struct handles *t, int fd, struct session *s, struct root *root, int *err)
{
	struct handle *h = take_entry(t);

	if (!h) {
		close(fd);
		*err = -ENFILE;
		return NULL;
	}
	h->fd = fd;
	h->owner = s->id;
	h->type = 0;
	h->flags = 0;
	atomic_store_explicit(&h->status, 0, memory_order_relaxed);
	h->root = root;
	h->secret = 0;
	h->ticket = 0;
	h->fid.len = 0;
	h->kept = NULL;
	__atomic_store_n(&h->same_prev, NULL, __ATOMIC_RELAXED);
	atomic_store_explicit(&h->orphan, 0, memory_order_relaxed);
	h->pos = 0;
	h->pos_now = 0;
	atomic_store_explicit(&h->lock_owner, 0, memory_order_relaxed);
	if (root)
		atomic_fetch_add_explicit(&root->refs, 1, memory_order_relaxed);
	h->session = NULL;
	if (!session_add_handle(s, h)) {
		handle_reap(t, h);
		*err = -EMFILE;
		return NULL;
	}
	return h;
}

uint64_t handle_next_id(const struct handles *t, const struct handle *h)
{
	return next_generation(t, atomic_load_explicit(&h->ref, memory_order_relaxed)) |
	       (uint64_t)(h - t->all);
}

void handle_publish(struct handles *t, struct handle *h)
{
	/* Release: whoever finds the live bit finds the rest written. */
	atomic_store_explicit(
	    &h->ref,
	    next_generation(t, atomic_load_explicit(&h->ref, memory_order_relaxed)) | HANDLE_LIVE |
		2,
	    memory_order_release);
}

uint64_t handle_id(const struct handles *t, const struct handle *h)
{
	uint64_t ref = atomic_load_explicit(&h->ref, memory_order_relaxed);

	return (ref & 0xffffffff00000000ull) | (uint64_t)(h - t->all);
}

/* Adds a user if `name` is alive. The entry may be of another session: rights are the caller's affair. */
static struct handle *look_up(struct handles *t, uint64_t name, int *err)
{
	uint32_t index = (uint32_t)name;
	struct handle *h;
	uint64_t ref;

	/* One of an earlier incarnation that is not there was lost with it. */
	*err = name >> 56 != t->incarnation && name >> 32 ? -EIO : -EBADF;
	if (index >= t->max)
		return NULL;
	h = &t->all[index];
	ref = atomic_load_explicit(&h->ref, memory_order_acquire);
	do {
		if (ref >> 32 != name >> 32 || !(ref & HANDLE_LIVE))
			return NULL;
	} while (!atomic_compare_exchange_weak_explicit(
	    &h->ref, &ref, ref + 1, memory_order_acquire, memory_order_acquire));
	return h;
}

/* True if the session was granted the handle. */
static bool is_granted(struct handle *h, uint32_t id)
{
	bool yes = false;
	uint32_t n;

	if (!atomic_load_explicit(&h->ngrants, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&h->lock);
	n = atomic_load_explicit(&h->ngrants, memory_order_relaxed);
	for (uint32_t i = 0; i < n && !yes; i++)
		yes = h->grants[i].id == id;
	pthread_mutex_unlock(&h->lock);
	return yes;
}

/* Drops a user of a handle that is known to be alive or that others may reap: a failed look-up's own. */
static void undo_look_up(struct handles *t, struct handle *h)
{
	if (handle_put(h))
		handle_reap(t, h);
}

struct handle *handle_get(struct handles *t, uint64_t name, uint32_t id, int *err)
{
	struct handle *h = look_up(t, name, err);

	if (!h || h->owner == id || is_granted(h, id))
		return h;
	undo_look_up(t, h);
	*err = -EBADF;
	return NULL;
}

bool handle_add_grant(struct handle *h, uint32_t id, uint32_t kept)
{
	bool ok = true;
	uint32_t n;

	pthread_mutex_lock(&h->lock);
	n = atomic_load_explicit(&h->ngrants, memory_order_relaxed);
	if (n == h->grants_size) {
		uint32_t size = n ? 2 * n : 4;
		struct grant *bigger = realloc(h->grants, size * sizeof(*bigger));

		if (bigger) {
			h->grants = bigger;
			h->grants_size = size;
		}
		ok = bigger;
	}
	if (ok) {
		h->grants[n] = (struct grant){.id = id, .kept = kept};
		atomic_store_explicit(&h->ngrants, n + 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&h->lock);
	return ok;
}

uint32_t handle_drop_grant(struct handle *h, uint32_t id)
{
	uint32_t kept = 0, n;

	pthread_mutex_lock(&h->lock);
	n = atomic_load_explicit(&h->ngrants, memory_order_relaxed);
	for (uint32_t i = 0; i < n; i++) {
		if (h->grants[i].id != id)
			continue;
		kept = h->grants[i].kept;
		h->grants[i] = h->grants[n - 1];
		atomic_store_explicit(&h->ngrants, n - 1, memory_order_relaxed);
		break;
	}
	pthread_mutex_unlock(&h->lock);
	return kept;
}

struct handle *handle_grant(struct handles *t, uint64_t name, uint64_t secret, uint32_t id,
			    bool *fresh, int *err)
{
	struct handle *h = look_up(t, name, err);

	if (!h)
		return NULL;
	*fresh = h->owner != id && !is_granted(h, id);
	if (h->secret && h->secret == secret)
		return h;
	*err = -EACCES;
	undo_look_up(t, h);
	return NULL;
}

struct handle *handle_restore(struct handles *t, uint64_t name, int fd, struct session *s,
			      struct root *root)
{
	uint32_t index = (uint32_t)name;
	struct handle *h;

	if (index >= t->max || index < t->used)
		return NULL;
	while (t->used <= index) {
		h = &t->all[t->used];
		pthread_mutex_init(&h->lock, NULL);
		h->next_free = t->first_free;
		t->first_free = t->used++;
	}
	h = &t->all[index];
	t->first_free = h->next_free;
	h->fd = fd;
	h->owner = s->id;
	if (!session_add_handle(s, h)) {
		t->first_free = index; /* its link is as it was */
		return NULL;
	}
	h->root = root;
	atomic_fetch_add_explicit(&root->refs, 1, memory_order_relaxed);
	pthread_mutex_lock(&t->lock); /* main shows the count meanwhile */
	t->count++;
	pthread_mutex_unlock(&t->lock);
	/* Nobody looks yet: threads that will are told of it by the broker's messages, which come later. */
	atomic_store_explicit(&h->ref, (name & 0xffffffff00000000ull) | HANDLE_LIVE | 1,
			      memory_order_release);
	return h;
}

struct handle *handle_restored(struct handles *t, uint64_t name)
{
	uint32_t index = (uint32_t)name;
	uint64_t ref;

	if (index >= t->max)
		return NULL;
	ref = atomic_load_explicit(&t->all[index].ref, memory_order_acquire);
	return ref & HANDLE_LIVE && ref >> 32 == name >> 32 ? &t->all[index] : NULL;
}

void handles_limit(struct handles *t, uint32_t max)
{
	if (max < t->max)
		t->max = max;
}

bool handle_kill(struct handle *h)
{
	uint64_t ref = atomic_load_explicit(&h->ref, memory_order_relaxed);

	do {
		if (!(ref & HANDLE_LIVE))
			return false;
		/* The openness is one user; the caller's own keeps the count above zero. */
	} while (!atomic_compare_exchange_weak_explicit(
	    &h->ref, &ref, (ref & ~HANDLE_LIVE) - 1, memory_order_acq_rel, memory_order_relaxed));
	return true;
}

bool handle_hold_live(struct handle *h)
{
	uint64_t ref = atomic_load_explicit(&h->ref, memory_order_relaxed);

	do {
		if (!(ref & HANDLE_LIVE))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
	    &h->ref, &ref, ref + 1, memory_order_acquire, memory_order_relaxed));
	return true;
}

bool handle_is_live(const struct handle *h)
{
	return atomic_load_explicit(&h->ref, memory_order_acquire) & HANDLE_LIVE;
}

bool handle_put(struct handle *h)
{
	uint64_t before = atomic_fetch_sub_explicit(&h->ref, 1, memory_order_acq_rel);

	return (before & (HANDLE_USERS | HANDLE_LIVE)) == 1;
}

void handle_reap(struct handles *t, struct handle *h)
{
	struct session *s = h->session;

	if (__atomic_load_n(&h->same_prev,
			    __ATOMIC_RELAXED)) /* neighbours may change it; never to or from NULL */
		orphan_closed(t->agent, h);
	hot_drop(h);
	close(h->fd);
	if (h->root)
		root_put(h->root);
	h->root = NULL;
	free(h->grants);
	h->grants = NULL;
	h->grants_size = 0;
	atomic_store_explicit(&h->ngrants, 0, memory_order_relaxed);
	h->session = NULL;
	if (s)
		session_remove_handle(s, h);
	pthread_mutex_lock(&t->lock);
	h->next_free = t->first_free;
	t->first_free = (uint32_t)(h - t->all);
	t->count--;
	pthread_mutex_unlock(&t->lock);
}

bool handle_pos_take(struct handle *h, struct call *c)
{
	bool mine;

	pthread_mutex_lock(&h->lock);
	mine = !h->pos_taken;
	if (mine) {
		h->pos_taken = true;
	} else {
		c->next = NULL;
		if (h->pos_last)
			h->pos_last->next = c;
		else
			h->pos_first = c;
		h->pos_last = c;
	}
	pthread_mutex_unlock(&h->lock);
	return mine;
}

struct call *handle_pos_drop(struct handle *h)
{
	struct call *c;

	pthread_mutex_lock(&h->lock);
	c = h->pos_first;
	if (c) {
		h->pos_first = c->next;
		if (!h->pos_first)
			h->pos_last = NULL;
	} else {
		h->pos_taken = false; /* otherwise it passes on to c */
	}
	pthread_mutex_unlock(&h->lock);
	return c;
}

uint32_t handles_count(struct handles *t)
{
	uint32_t n;

	pthread_mutex_lock(&t->lock);
	n = t->count;
	pthread_mutex_unlock(&t->lock);
	return n;
}

struct root *root_new(int fd)
{
	struct root *r = malloc(sizeof(*r));
	struct stat st;

	if (!r || fstat(fd, &st) < 0) {
		free(r);
		close(fd);
		return NULL;
	}
	atomic_init(&r->refs, 1);
	r->fd = fd;
	r->fid.len = 0;
	r->dev = st.st_dev;
	r->ino = st.st_ino;
	return r;
}

void root_put(struct root *r)
{
	if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
		return;
	close(r->fd);
	free(r);
}
