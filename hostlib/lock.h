/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lock.h - a mutex on a futex word, for the library's own short critical sections.
 *
 * 0: free, 1: held, 2: held and somebody waits. Safe inside a caught call only: there signals' handlers are deferred, so a
 * holder is never interrupted by code of the same thread that wants the lock. Before a fork the parent takes the locks
 * that the child will need, and the child resets them.
 */
#ifndef HOSTLIB_LOCK_H
#define HOSTLIB_LOCK_H

#include <stdint.h>

struct sc_mutex {
	uint32_t word;
};

void sc_mutex_slow_lock(struct sc_mutex *m);
void sc_mutex_slow_unlock(struct sc_mutex *m);

static inline void sc_mutex_lock(struct sc_mutex *m)
{
	uint32_t free = 0;

	if (!__atomic_compare_exchange_n(&m->word, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		sc_mutex_slow_lock(m);
}

static inline int sc_mutex_trylock(struct sc_mutex *m)
{
	uint32_t free = 0;

	return __atomic_compare_exchange_n(&m->word, &free, 1, 0, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

static inline void sc_mutex_unlock(struct sc_mutex *m)
{
	if (__atomic_exchange_n(&m->word, 0, __ATOMIC_RELEASE) == 2)
		sc_mutex_slow_unlock(m);
}

/* In a forked child: the holder does not exist here. */
static inline void sc_mutex_reset(struct sc_mutex *m)
{
	if (__atomic_load_n(&m->word, __ATOMIC_RELAXED)) /* a store costs a page fault */
		__atomic_store_n(&m->word, 0, __ATOMIC_RELEASE);
}

#endif
