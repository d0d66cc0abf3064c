/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_ring.c - locks in socket objects, copying in and out of rings, and telling the agent.
 *
 * The lock. A word in the object: 0, or the holder's thread id, with LOCK_WAITERS if somebody sleeps for it. It is held
 * while bytes are copied and never while its holder waits for anything, so who finds it taken looks again a few times and
 * then sleeps for short whiles. It works between processes, and against three misfortunes: a holder that was killed (its
 * thread id is no thread's any more: taken over at once), a holder that stands still, stopped by a signal or a debugger (taken
 * over after LOCK_PATIENCE_MS; when it goes on it finds that the word is not its own, and gives up before it moves an
 * index), and an agent that scribbles (the same). Thread ids are those of the pid namespace; processes of different
 * pid namespaces that share a socket fall under the second case.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <linux/futex.h>
#include <time.h>

#include "net.h"
#include "process.h"

#define LOCK_WAITERS	 0x80000000u
#define LOCK_SPINS	 200u
#define LOCK_NAP_MS	 2u
#define LOCK_PATIENCE_MS 2000u

static bool lock_try(uint32_t *word, uint32_t *seen, uint32_t me)
{
	*seen = 0;
	return __atomic_compare_exchange_n(word, seen, me, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

static bool holder_is_gone(uint32_t word)
{
	uint32_t tid = word & ~LOCK_WAITERS;

	/* signal 0 to a thread id: ESRCH if there is no such thread. (EPERM: somebody else's.) */
	return tid == 0 || sc_sys2(__NR_tkill, tid, 0) == -ESRCH;
}

static void lock_slow(uint32_t *word, uint32_t me)
{
	static const struct timespec nap = {.tv_nsec = LOCK_NAP_MS * 1000000l};
	uint64_t until = sc_now_ms() + LOCK_PATIENCE_MS;
	uint32_t seen;

	for (uint32_t i = 0; i < LOCK_SPINS; i++) {
		if (__atomic_load_n(word, __ATOMIC_RELAXED) == 0 && lock_try(word, &seen, me))
			return;
		__builtin_ia32_pause();
	}
	/* from here on the lock is taken with the mark set: others may sleep, too */
	me |= LOCK_WAITERS;
	while (!lock_try(word, &seen, me)) {
		if (holder_is_gone(seen) || sc_now_ms() >= until) {
			if (__atomic_compare_exchange_n(word, &seen, me, false, __ATOMIC_ACQUIRE,
							__ATOMIC_RELAXED))
				return;
			continue;
		}
		if (!(seen & LOCK_WAITERS) &&
		    !__atomic_compare_exchange_n(word, &seen, seen | LOCK_WAITERS, false,
						 __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			continue;
		sc_sys4(__NR_futex, word, FUTEX_WAIT, seen | LOCK_WAITERS, &nap);
	}
}

void sc_ring_lock(struct sc_thread *t, uint32_t *word)
{
	uint32_t seen;

	if (!lock_try(word, &seen, t->tid))
		lock_slow(word, t->tid);
}

bool sc_ring_mine(struct sc_thread *t, const uint32_t *word)
{
	return (__atomic_load_n(word, __ATOMIC_RELAXED) & ~LOCK_WAITERS) == t->tid;
}

void sc_ring_unlock(struct sc_thread *t, uint32_t *word)
{
	uint32_t seen = t->tid;

	if (__atomic_compare_exchange_n(word, &seen, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		return;
	if (seen != (t->tid | LOCK_WAITERS))
		return; /* it was taken over */
	if (__atomic_compare_exchange_n(word, &seen, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		sc_sys3(__NR_futex, word, FUTEX_WAKE, 1);
}

long sc_ring_put(uint8_t *ring, uint32_t size, uint32_t at, const void *user, uint32_t len)
{
	uint32_t pos = at & (size - 1), first = size - pos < len ? size - pos : len;

	if (sc_copy_from_user(ring + pos, user, first))
		return -EFAULT;
	return first == len ? 0
			    : sc_copy_from_user(ring, (const uint8_t *)user + first, len - first);
}

long sc_ring_get(const uint8_t *ring, uint32_t size, uint32_t at, void *user, uint32_t len)
{
	uint32_t pos = at & (size - 1), first = size - pos < len ? size - pos : len;

	if (sc_copy_to_user(user, ring + pos, first))
		return -EFAULT;
	return first == len ? 0 : sc_copy_to_user((uint8_t *)user + first, ring, len - first);
}

void sc_net_kick(struct sc_netchan *nc, struct sc_nsock *s, const uint32_t *want)
{
	struct sc_net_area *a = nc->area;
	struct sc_chan *c = nc->chan;
	uint32_t w = s->index / 64;
	uint64_t bit = 1ull << (s->index % 64), one = 1;

	/* full fence: the agent stores its wish, fences, then loads the index that we have just stored */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!__atomic_load_n(want, __ATOMIC_RELAXED))
		return;
	/* seq_cst read-modify-writes order bits, sum, and the look at `asleep`: the agent exchanges the sum first */
	if (!(__atomic_fetch_or(&a->kick[w], bit, __ATOMIC_SEQ_CST) & bit))
		__atomic_fetch_or(&a->kick_sum[w / 64], 1ull << (w % 64), __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&c->guest->asleep, __ATOMIC_RELAXED))
		sc_sys3(__NR_write, c->call, &one, sizeof(one));
}
