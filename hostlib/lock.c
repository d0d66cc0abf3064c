/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lock.c - the slow half of lock.h: waiting for a mutex and waking who waits.
 */
#include <asm/unistd.h>
#include <linux/futex.h>

#include "lock.h"
#include "process.h"

#define LOCK_SPINS 100

void sc_mutex_slow_lock(struct sc_mutex *m)
{
	for (int i = 0; i < LOCK_SPINS; i++) {
		if (__atomic_load_n(&m->word, __ATOMIC_RELAXED) == 0 && sc_mutex_trylock(m))
			return;
		__builtin_ia32_pause();
	}
	while (__atomic_exchange_n(&m->word, 2, __ATOMIC_ACQUIRE) != 0)
		sc_sys4(__NR_futex, &m->word, FUTEX_WAIT_PRIVATE, 2, 0);
}

void sc_mutex_slow_unlock(struct sc_mutex *m)
{
	sc_sys3(__NR_futex, &m->word, FUTEX_WAKE_PRIVATE, 1);
}
