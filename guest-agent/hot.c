/* SPDX-License-Identifier: BSD-3-Clause */
/* hot.c - see hot.h. */
#include "hot.h"

#include "copy.h"
#include "handles.h"
#include "walk.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct hot {
	const uint8_t *base;
	uint64_t len;
	int fd; /* of its own, so that asking for the end moves nobody's position */
};

static _Atomic uint32_t nmaps;

/* Where a thread goes whose copy met the end of the file; valid while `copying`. */
static _Thread_local sigjmp_buf escape;
static _Thread_local volatile sig_atomic_t copying;

static void on_sigbus(int sig)
{
	if (copying)
		siglongjmp(escape, 1);
	signal(sig, SIG_DFL); /* not ours: it comes again, and ends the process */
}

void hot_init(void)
{
	struct sigaction sa = {.sa_handler = on_sigbus};

	sigemptyset(&sa.sa_mask);
	sigaction(SIGBUS, &sa, NULL);
}

static void hot_free(struct hot *m)
{
	munmap((void *)m->base, m->len);
	close(m->fd);
	free(m);
	atomic_fetch_sub_explicit(&nmaps, 1, memory_order_relaxed);
}

static struct hot *hot_new(const struct handle *h)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC};
	struct hot *m = malloc(sizeof(*m));
	off_t size;

	if (!m)
		return NULL;
	m->fd = walk_reopen(h->fd, &how);
	size = m->fd < 0 ? -1 : lseek(m->fd, 0, SEEK_END);
	if (size > 0 && (uint64_t)size <= HOT_MAX_BYTES) {
		m->len = (uint64_t)size;
		m->base = mmap(NULL, m->len, PROT_READ, MAP_SHARED, m->fd, 0);
		if (m->base != MAP_FAILED)
			return m;
	}
	if (m->fd >= 0)
		close(m->fd);
	free(m);
	return NULL;
}

void hot_note(struct handle *h)
{
	struct hot *m, *none = NULL;

	/* Exactly one thread sees this number; a failure is not tried again. */
	if (atomic_fetch_add_explicit(&h->cached_reads, 1, memory_order_relaxed) != HOT_AFTER)
		return;
	if (atomic_fetch_add_explicit(&nmaps, 1, memory_order_relaxed) >= HOT_MAX_MAPS ||
	    !(m = hot_new(h))) {
		atomic_fetch_sub_explicit(&nmaps, 1, memory_order_relaxed);
		return;
	}
	/* Release: whoever sees the pointer sees what it points to. */
	if (!atomic_compare_exchange_strong_explicit(&h->hot, &none, m, memory_order_release,
						     memory_order_relaxed))
		hot_free(m);
}

bool hot_covers(struct handle *h, uint64_t off, uint32_t len)
{
	const struct hot *m = atomic_load_explicit(&h->hot, memory_order_acquire);

	return m && off <= m->len && len <= m->len - off;
}

/* The handler was left without returning. (To have sigsetjmp() keep the mask would be a system call for every copy.) */
static void unblock_sigbus(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Copies, unless the file ends before: false. */
static bool guarded_copy(void *to, const void *from, size_t n, bool past_cache)
{
	if (sigsetjmp(escape, 0)) {
		copying = 0;
		unblock_sigbus();
		return false;
	}
	copying = 1;
	if (past_cache)
		copy_to_arena(to, from, n);
	else
		memcpy(to, from, n);
	copying = 0;
	return true;
}

ssize_t hot_read(struct handle *h, void *to, uint64_t off, uint32_t len, bool past_cache)
{
	const struct hot *m = atomic_load_explicit(&h->hot, memory_order_acquire);
	off_t size;

	if (atomic_fetch_add_explicit(&h->cached_reads, 1, memory_order_relaxed) % HOT_OTHERWISE ==
	    0)
		return -1;
	size = lseek(m->fd, 0, SEEK_END);
	if (size < 0 || off >= (uint64_t)size)
		return size < 0 ? -1 : 0;
	if (len > (uint64_t)size - off)
		len = (uint32_t)((uint64_t)size - off);
	return guarded_copy(to, m->base + off, len, past_cache) ? (ssize_t)len : -1;
}

void hot_drop(struct handle *h)
{
	struct hot *m = atomic_exchange_explicit(&h->hot, NULL, memory_order_acquire);

	atomic_store_explicit(&h->cached_reads, 0, memory_order_relaxed);
	if (m)
		hot_free(m);
}
