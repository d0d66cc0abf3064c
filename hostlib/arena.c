/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena.c - blocks of a channel's arena for data that does not fit a lane's buffer.
 *
 * Theory of operation: the part of the arena behind the lanes' buffers is divided into blocks of SC_POOL_BLOCK bytes, one
 * bit each. A caller asks for a run of blocks and gets as long a one as there is, at least one; only if there is none it
 * sleeps on a futex word until one comes back. A caller that already holds blocks never sleeps (may_wait false), so
 * holders always finish. The bits are private memory of the process; the agent has no say in who owns a block.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <linux/futex.h>
#include <time.h>

#include "chan-priv.h"
#include "process.h"

static bool block_used(const struct sc_chan *c, uint32_t i)
{
	return c->pool_used[i / 64] >> (i % 64) & 1;
}

/* Longest free run of at most n blocks; returns its first block and its length in *got (0: none). */
static uint32_t find_run(const struct sc_chan *c, uint32_t n, uint32_t *got)
{
	uint32_t best = 0, best_len = 0, len = 0;

	for (uint32_t i = 0; i < c->pool_blocks; i++) {
		len = block_used(c, i) ? 0 : len + 1;
		if (len > best_len) {
			best_len = len;
			best = i + 1 - len;
		}
		if (best_len == n)
			break;
	}
	*got = best_len;
	return best;
}

static uint32_t try_get(struct sc_chan *c, uint32_t n, uint32_t *got)
{
	uint32_t first;

	sc_mutex_lock(&c->pool_lock);
	first = find_run(c, n, got);
	for (uint32_t i = first; i < first + *got; i++)
		c->pool_used[i / 64] |= 1ull << (i % 64);
	sc_mutex_unlock(&c->pool_lock);
	return *got ? c->lay.pool_off + first * SC_POOL_BLOCK : 0;
}

uint32_t sc_pool_get(struct sc_chan *c, uint32_t n, uint32_t *got, bool may_wait)
{
	static const struct timespec second = {.tv_sec = 1};
	uint32_t off, seen;

	*got = 0;
	if (c->pool_blocks == 0)
		return 0;
	off = try_get(c, n, got);
	if (off || !may_wait)
		return off;
	__atomic_fetch_add(&c->pool_waiters, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		seen = __atomic_load_n(&c->pool_wake, __ATOMIC_ACQUIRE);
		off = try_get(c, n, got);
		if (off)
			break;
		sc_sys4(__NR_futex, &c->pool_wake, FUTEX_WAIT_PRIVATE, seen, &second);
	}
	__atomic_fetch_sub(&c->pool_waiters, 1, __ATOMIC_SEQ_CST);
	return off;
}

void sc_pool_put(struct sc_chan *c, uint32_t off, uint32_t n)
{
	uint32_t first = (off - c->lay.pool_off) / SC_POOL_BLOCK;

	sc_mutex_lock(&c->pool_lock);
	for (uint32_t i = first; i < first + n; i++)
		c->pool_used[i / 64] &= ~(1ull << (i % 64));
	sc_mutex_unlock(&c->pool_lock);
	if (__atomic_load_n(&c->pool_waiters, __ATOMIC_SEQ_CST) == 0)
		return;
	__atomic_fetch_add(&c->pool_wake, 1, __ATOMIC_RELEASE);
	sc_sys3(__NR_futex, &c->pool_wake, FUTEX_WAKE_PRIVATE, 0x7fffffff);
}

uint8_t *sc_chan_ptr(struct sc_chan *c, uint32_t off)
{
	return c->base + off;
}
