/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * api.c - the C API, include/hostsc.h: rings of asynchronous requests.
 *
 * Theory of operation: a ring is a lane of its own (lane.c) with as many slots as the program asked for, and two private
 * arrays: entries, one for each request from hsc_get_sqe() until its completion is seen, and completions that the program has
 * not seen. There are as many entries as slots, so slots, the agent's completion ring and the private arrays can never
 * overflow. Slots are used in order, from hsc_get_sqe() until the completion comes; if the next one is still busy (completions
 * come in any order), hsc_get_sqe() gives nothing although others are free. Entries are used last in, first out: a program
 * with few requests under way touches few lines of memory, however large its ring is.
 *
 * A tag is its request's index in the lane (channel.h), whose low bits are the slot. A completion whose tag is not that of a busy slot is dropped.
 *
 * Buffers come from the channel's pool in runs of blocks, cut into pages, one bit each.
 *
 * No lock is held while the program runs. Functions that take the library's locks (making and freeing rings and buffers)
 * block signals meanwhile, because a handler might make a call that is served by the same library.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <string.h>

#define HSC_API __attribute__((visibility("default")))
#include <hostsc.h>

#include "chan-priv.h"
#include "libfd.h"
#include "process.h"

#define RING_MAX    256u
#define NOBODY	    UINT16_MAX
#define REGIONS_MAX 64u
#define PAGE	    4096u
#define PAGES	    (16u * SC_POOL_BLOCK / PAGE) /* of the largest region */
#define SPIN_US	    50u
#define SLEEP_MS    250u
#define PUBLISH_EVERY \
	16u /* requests of a batch that wait for each other before the agent sees them */

static_assert(sizeof(((struct hsc_sqe *)0)->slot) == sizeof(struct sc_slot), "room for a slot");

/* A run of pool blocks. */
struct region {
	uint32_t off; /* channel offset; 0: unused entry */
	uint32_t nblocks;
	uint32_t npages;
	uint64_t used[PAGES / 64];
	uint64_t first[PAGES / 64]; /* bit: a buffer begins at this page */
};

enum entry_state { ENTRY_FREE, ENTRY_PREPARED, ENTRY_FLYING, ENTRY_DONE };

struct entry {
	struct hsc_sqe sqe;
	struct hsc_cqe cqe;
	uint32_t tag;
	uint8_t state; /* enum entry_state */
	bool internal; /* of hsc_open() and the like: its completion is not shown */
};

struct hsc_ring {
	struct sc_hlane *lane;
	struct sc_thread *thread;
	uint64_t root;
	uint64_t bytes; /* of this mapping */
	uint32_t depth;
	uint32_t prepared; /* entries from lane->tail on */
	uint32_t flying;
	uint32_t shown_head; /* completions to be seen: shown[head..tail) */
	uint32_t shown_tail;
	struct sc_life life; /* for the deadline */
	struct region *regions;
	uint32_t nfree;
	uint16_t shown[RING_MAX];
	/* Free entries: the one freed last is taken first, since its lines are in the cache. */
	uint16_t unused[RING_MAX];
	/* By slot: the entry prepared for it or under way in it, or NOBODY. */
	uint16_t owner[RING_MAX];
	struct entry entries[];
};

/* ---- signals around our locks ---- */

static void signals_block(uint64_t *old)
{
	uint64_t all = ~0ull;

	sc_sys4(__NR_rt_sigprocmask, 2, &all, old, 8);
}

static void signals_restore(const uint64_t *old)
{
	sc_sys4(__NR_rt_sigprocmask, 2, old, 0, 8);
}

/* ---- buffers ---- */

static bool page_used(const struct region *r, uint32_t i)
{
	return r->used[i / 64] >> (i % 64) & 1;
}

static void page_mark(struct region *r, uint32_t i, bool used)
{
	if (used)
		r->used[i / 64] |= 1ull << (i % 64);
	else
		r->used[i / 64] &= ~(1ull << (i % 64));
}

/* First page of n free ones, or -1. */
static int region_find(const struct region *r, uint32_t n)
{
	uint32_t len = 0;

	for (uint32_t i = 0; i < r->npages; i++) {
		len = page_used(r, i) ? 0 : len + 1;
		if (len == n)
			return (int)(i + 1 - n);
	}
	return -1;
}

static struct region *region_new(struct hsc_ring *ring, uint32_t pages)
{
	uint32_t want = (pages * PAGE + SC_POOL_BLOCK - 1) / SC_POOL_BLOCK, got;
	struct sc_chan *c = ring->lane->chan;

	for (uint32_t i = 0; i < REGIONS_MAX; i++) {
		struct region *r = &ring->regions[i];
		uint32_t off;

		if (r->off)
			continue;
		off = sc_pool_get(c, want, &got, false);
		if (off && got < want) {
			sc_pool_put(c, off, got);
			off = 0;
		}
		if (!off)
			return NULL;
		memset(r, 0, sizeof(*r));
		r->off = off;
		r->nblocks = got;
		r->npages = got * SC_POOL_BLOCK / PAGE;
		return r;
	}
	return NULL;
}

static void *region_take(struct hsc_ring *ring, struct region *r, int at, uint32_t pages)
{
	r->first[at / 64] |= 1ull << (at % 64);
	for (uint32_t i = 0; i < pages; i++)
		page_mark(r, (uint32_t)at + i, true);
	return sc_chan_ptr(ring->lane->chan, r->off + (uint32_t)at * PAGE);
}

HSC_API void *hsc_buf_alloc(struct hsc_ring *ring, size_t size)
{
	uint32_t pages = (uint32_t)((size + PAGE - 1) / PAGE);
	struct region *r;
	uint64_t mask;
	int at;

	if (size == 0 || size > 16ull * SC_POOL_BLOCK)
		return NULL;
	for (uint32_t i = 0; i < REGIONS_MAX; i++) {
		r = &ring->regions[i];
		at = r->off ? region_find(r, pages) : -1;
		if (at >= 0)
			return region_take(ring, r, at, pages);
	}
	signals_block(&mask);
	r = region_new(ring, pages);
	signals_restore(&mask);
	return r ? region_take(ring, r, 0, pages) : NULL;
}

/* The region that holds this channel offset, or NULL. */
static struct region *region_of(struct hsc_ring *ring, uint64_t off)
{
	for (uint32_t i = 0; i < REGIONS_MAX; i++) {
		struct region *r = &ring->regions[i];

		if (r->off && off >= r->off && off < r->off + r->nblocks * SC_POOL_BLOCK)
			return r;
	}
	return NULL;
}

HSC_API void hsc_buf_free(struct hsc_ring *ring, void *buf)
{
	uint64_t off = (uint64_t)((uint8_t *)buf - ring->lane->chan->base);
	struct region *r = buf ? region_of(ring, off) : NULL;
	uint32_t i;

	if (!r || (off - r->off) % PAGE)
		return;
	i = (uint32_t)(off - r->off) / PAGE;
	if (!(r->first[i / 64] >> (i % 64) & 1))
		return;
	r->first[i / 64] &= ~(1ull << (i % 64));
	do
		page_mark(r, i++, false);
	while (i < r->npages && page_used(r, i) && !(r->first[i / 64] >> (i % 64) & 1));
}

/* Channel offset of the program's buffer, or 0 if it is not one of the ring's. */
static uint32_t buf_off(struct hsc_ring *ring, const void *buf, uint32_t len)
{
	uint64_t off = (uint64_t)((const uint8_t *)buf - ring->lane->chan->base);
	struct region *r = region_of(ring, off);

	return r && len <= r->off + r->nblocks * SC_POOL_BLOCK - off ? (uint32_t)off : 0;
}

/* ---- rings ---- */

/* A child of fork() that did not go through the library's own hooks: forget the parent's channel. */
static void forget_parents(struct sc_thread *t)
{
	static uint32_t owner;
	uint32_t pid = (uint32_t)sc_sys0(__NR_getpid);

	if (owner && owner != pid && !sc_nroutes) {
		t->serve = NULL;
		sc_libfd_close_all(NULL, 0);
		for (uint32_t i = 0; i < sc_ndoms; i++)
			sc_dom_after_fork_child(&sc_doms[i]);
	}
	owner = pid;
}

static int ring_root(struct hsc_ring *ring)
{
	struct sc_slot s = {.op = SC_OP_ROOT};
	struct sc_hlane *l;
	long res = sc_lane_get(ring->thread, ring->lane->chan->dom, &l);

	if (res)
		return (int)res;
	s.buf = sc_lane_off(l, SC_LB_PATH1);
	res = sc_lane_call(ring->thread, l, &s, NULL, 0);
	sc_lane_put(ring->thread, l);
	ring->root = (uint64_t)res;
	return res < 0 ? (int)res : 0;
}

static int ring_make(struct sc_thread *t, struct sc_dom *d, uint32_t log2, struct hsc_ring **out)
{
	uint64_t bytes = sizeof(struct hsc_ring) + (sizeof(struct entry) << log2);
	struct hsc_ring *ring = sc_map(bytes);
	int err;

	if (!ring)
		return -ENOMEM;
	ring->bytes = bytes;
	ring->thread = t;
	ring->regions = sc_map(REGIONS_MAX * sizeof(struct region));
	err = ring->regions ? (int)sc_hlane_acquire(t, d, log2, &ring->lane) : -ENOMEM;
	if (!err) {
		ring->depth = ring->lane->depth;
		for (uint32_t i = 0; i < ring->depth; i++) {
			ring->unused[ring->nfree++] = (uint16_t)i;
			ring->owner[i] = NOBODY;
		}
		err = ring_root(ring);
		if (!err) {
			*out = ring;
			return 0;
		}
		sc_hlane_release(ring->lane);
	}
	if (ring->regions)
		sc_unmap(ring->regions, REGIONS_MAX * sizeof(struct region));
	sc_unmap(ring, bytes);
	return err;
}

HSC_API int hsc_queue_init(const char *domain, unsigned int entries, unsigned int flags,
			   struct hsc_ring **ring)
{
	struct sc_thread *t;
	struct sc_dom *d;
	uint32_t log2 = 1;
	uint64_t mask;
	int err;

	if (!domain || !ring || flags || entries > RING_MAX)
		return -EINVAL;
	while (1u << log2 < entries)
		log2++;
	t = sc_thread_ensure();
	if (!t || !sc_serve_init_api())
		return -ENOMEM;
	signals_block(&mask);
	forget_parents(t);
	if (!t->proc)
		t->proc = &sc_main_proc;
	d = sc_dom_named(domain, (uint32_t)sc_strnlen(domain, 64));
	err = d ? ring_make(t, d, log2, ring) : -EINVAL;
	signals_restore(&mask);
	return err;
}

HSC_API const char *hsc_strerror(const char *domain)
{
	size_t n = sc_strnlen(domain, 64);

	for (uint32_t i = 0; i < sc_ndoms; i++)
		if (strlen(sc_doms[i].name) == n && memcmp(sc_doms[i].name, domain, n) == 0)
			return sc_doms[i].last_error ? sc_doms[i].text : "";
	return "no such domain";
}

/* ---- completions ---- */

static void entry_free(struct hsc_ring *ring, struct entry *e)
{
	ring->unused[ring->nfree++] = (uint16_t)e->sqe.index;
	e->state = ENTRY_FREE;
}

static void finish(struct hsc_ring *ring, struct entry *e, int64_t res, uint32_t flags)
{
	for (int i = 0; i < 2; i++)
		if (e->sqe.tmp[i])
			hsc_buf_free(ring, e->sqe.tmp[i]);
	e->cqe = (struct hsc_cqe){
	    .user_data = e->sqe.user_data, .res = res, .flags = SC_CQE_TYPE(flags)};
	e->state = ENTRY_DONE;
	if (!e->internal)
		ring->shown[ring->shown_tail++ % RING_MAX] = (uint16_t)e->sqe.index;
}

static void take(struct hsc_ring *ring, uint32_t tag, int64_t res, uint32_t flags)
{
	uint16_t *owner = &ring->owner[tag & (ring->depth - 1)];
	const struct sc_slot *s;
	struct entry *e;

	if (*owner == NOBODY)
		return;
	e = &ring->entries[*owner];
	if (e->state != ENTRY_FLYING || e->tag != tag)
		return;
	s = (const struct sc_slot *)e->sqe.slot;
	*owner = NOBODY;
	ring->flying--;
	sc_slot_taken(ring->lane, tag);
	/* more than was asked for is no answer */
	if (res < -4095 || ((s->op == SC_OP_READ || s->op == SC_OP_WRITE) && res > (int64_t)s->len))
		res = -EIO;
	if (e->sqe.stat && res >= 0) {
		struct sc_stat st;

		memcpy(&st, sc_chan_ptr(ring->lane->chan, s->buf2), sizeof(st));
		sc_stat_to_statx(ring->lane->chan->dom, &st, e->sqe.stat);
	}
	finish(ring, e, res, flags);
}

/* Takes what is completed. 0, or -EIO if the agent's index is impossible. */
static int harvest(struct hsc_ring *ring)
{
	struct sc_hlane *l = ring->lane;
	/* acquire: pairs with the agent's release store of done */
	uint32_t done = __atomic_load_n(&l->sh->done, __ATOMIC_ACQUIRE);

	if (l->dead || done - l->done > l->tail - l->done) {
		l->dead = 1;
		return -EIO;
	}
	for (; l->done != done; __atomic_store_n(&l->done, l->done + 1, __ATOMIC_RELAXED)) {
		const volatile struct sc_cqe *c = &l->cqes[l->done & (l->depth - 1)];
		uint32_t tag = c->tag, flags = c->flags;
		int64_t res = c->res;

		take(ring, tag, res, flags);
	}
	return 0;
}

/*
 * Spins, then sleeps, until the lane moves; at most ms from when it first had to sleep. *end is 0 before, and then when that
 * time is over: the clock is a system call, which a wait that spinning ends must not pay for. 0, -ETIME, -EIO.
 */
static int await_move(struct hsc_ring *ring, uint32_t ms, uint64_t *end)
{
	struct sc_hlane *l = ring->lane;
	uint64_t start = __builtin_ia32_rdtsc();
	uint32_t spin = l->chan->spin_max ? SPIN_US * l->chan->ticks_per_us : 0;

	if (sc_lane_spin(l, l->done, start, spin))
		return 0;
	ring->life = (struct sc_life){0};
	for (;;) {
		uint64_t now = sc_now_ms(), left;

		if (!*end)
			*end = now + ms;
		left = now < *end ? *end - now : 0;
		if (sc_lane_sleep(l, l->done, left < SLEEP_MS ? (uint32_t)left : SLEEP_MS, 0))
			return 0;
		if (sc_past_deadline(l->chan, &ring->life)) {
			l->dead = 1;
			return -EIO;
		}
		if (sc_now_ms() >= *end)
			return -ETIME;
	}
}

static uint32_t shown(const struct hsc_ring *ring)
{
	return ring->shown_tail - ring->shown_head;
}

static int wait_shown(struct hsc_ring *ring, uint32_t n, uint32_t ms)
{
	uint64_t end = 0;
	int err = harvest(ring);

	while (!err && shown(ring) < n) {
		if (!ring->flying)
			return -EINVAL;
		err = await_move(ring, ms, &end);
		if (!err)
			err = harvest(ring);
	}
	return err;
}

HSC_API int hsc_peek_cqe(struct hsc_ring *ring, struct hsc_cqe **cqe)
{
	return hsc_peek_batch_cqe(ring, cqe, 1) ? 0 : ring->lane->dead ? -EIO : -EAGAIN;
}

HSC_API unsigned int hsc_peek_batch_cqe(struct hsc_ring *ring, struct hsc_cqe **cqes,
					unsigned int count)
{
	uint32_t n;

	if (shown(ring) < count)
		harvest(ring);
	n = shown(ring) < count ? shown(ring) : count;
	for (uint32_t i = 0; i < n; i++)
		cqes[i] = &ring->entries[ring->shown[(ring->shown_head + i) % RING_MAX]].cqe;
	return n;
}

HSC_API int hsc_wait_cqe_timeout(struct hsc_ring *ring, struct hsc_cqe **cqe,
				 unsigned int timeout_ms)
{
	int err = shown(ring) ? 0 : wait_shown(ring, 1, timeout_ms);

	return err ? err : hsc_peek_cqe(ring, cqe);
}

HSC_API int hsc_wait_cqe(struct hsc_ring *ring, struct hsc_cqe **cqe)
{
	int err;

	do
		err = hsc_wait_cqe_timeout(ring, cqe, 60000);
	while (err == -ETIME);
	return err;
}

HSC_API void hsc_cq_advance(struct hsc_ring *ring, unsigned int count)
{
	for (; count && shown(ring); count--) {
		uint16_t i = ring->shown[ring->shown_head++ % RING_MAX];

		entry_free(ring, &ring->entries[i]);
	}
}

HSC_API void hsc_cqe_seen(struct hsc_ring *ring, struct hsc_cqe *cqe)
{
	hsc_cq_advance(ring, 1);
}

/* ---- submitting ---- */

HSC_API unsigned int hsc_sq_space_left(const struct hsc_ring *ring)
{
	uint32_t n = 0;

	while (n < ring->nfree &&
	       ring->owner[(ring->lane->tail + ring->prepared + n) & (ring->depth - 1)] == NOBODY)
		n++;
	return n;
}

HSC_API struct hsc_sqe *hsc_get_sqe(struct hsc_ring *ring)
{
	uint16_t *owner = &ring->owner[(ring->lane->tail + ring->prepared) & (ring->depth - 1)];
	struct entry *e;

	if (!ring->nfree || *owner != NOBODY)
		return NULL;
	*owner = ring->unused[--ring->nfree];
	e = &ring->entries[*owner];
	e->sqe = (struct hsc_sqe){.ring = ring, .index = *owner};
	e->state = ENTRY_PREPARED;
	e->internal = false;
	ring->prepared++;
	return &e->sqe;
}

/* Puts the entry prepared for a slot into it. One whose arguments were wrong becomes a NOP with the error as its result. */
static void put_slot(struct hsc_ring *ring, uint32_t slot)
{
	struct entry *e = &ring->entries[ring->owner[slot]];
	struct sc_slot *s = (struct sc_slot *)e->sqe.slot;

	if (e->sqe.error)
		*s = (struct sc_slot){.op = SC_OP_NOP, .arg0 = (uint64_t)(int64_t)e->sqe.error};
	e->tag = ring->lane->tail;
	sc_slot_put(&ring->lane->slots[slot], s, e->tag);
	e->state = ENTRY_FLYING;
	ring->flying++;
}

HSC_API int hsc_submit(struct hsc_ring *ring)
{
	struct sc_hlane *l = ring->lane;
	uint32_t n = ring->prepared;

	if (harvest(ring))
		return -EIO;
	if (!n)
		return 0;
	ring->prepared = 0;
	for (uint32_t i = 1; i <= n; i++) {
		put_slot(ring, l->tail & (ring->depth - 1));
		l->tail++;
		/* The agent may begin on the first ones; a sleeping one is woken once, at the end. Release: the slots. */
		if (i % PUBLISH_EVERY == 0)
			__atomic_store_n(&l->sh->tail, l->tail, __ATOMIC_RELEASE);
	}
	sc_lane_publish(l);
	return (int)n;
}

HSC_API int hsc_submit_and_wait(struct hsc_ring *ring, unsigned int wait_nr)
{
	int n = hsc_submit(ring), err;

	if (n < 0)
		return n;
	do
		err = wait_shown(ring, wait_nr, 60000);
	while (err == -ETIME);
	return err == -EIO ? err : n;
}

HSC_API void hsc_queue_exit(struct hsc_ring *ring)
{
	struct sc_hlane *l = ring->lane;
	uint64_t mask, end = 0;

	while (ring->flying && !harvest(ring) && ring->flying)
		if (await_move(ring, l->chan->deadline_ms, &end))
			l->dead = 1;
	signals_block(&mask);
	for (uint32_t i = 0; !l->dead && i < REGIONS_MAX; i++)
		if (ring->regions[i].off)
			sc_pool_put(l->chan, ring->regions[i].off, ring->regions[i].nblocks);
	sc_unmap(ring->regions, REGIONS_MAX * sizeof(struct region));
	l->pending = 0;
	sc_hlane_release(l);
	signals_restore(&mask);
	sc_unmap(ring, ring->bytes);
}

/* ---- preparing ---- */

static struct sc_slot *slot_of(struct hsc_sqe *sqe, uint16_t op, hsc_handle h)
{
	struct sc_slot *s = (struct sc_slot *)sqe->slot;

	s->op = op;
	s->handle = h == HSC_ROOT ? sqe->ring->root : h;
	return s;
}

HSC_API void hsc_prep_nop(struct hsc_sqe *sqe, uint32_t value)
{
	slot_of(sqe, SC_OP_NOP, 0)->arg0 = value;
}

static void prep_rw(struct hsc_sqe *sqe, uint16_t op, hsc_handle h, const void *buf,
		    unsigned int len, uint64_t off)
{
	struct sc_slot *s = slot_of(sqe, op, h);

	s->buf = buf_off(sqe->ring, buf, len);
	s->len = len;
	s->off = off;
	if (off == ~0ull) {
		s->off = 0;
		s->flags = SC_SLOT_F_CURPOS;
	}
	if (!s->buf)
		sqe->error = -EFAULT;
	else if (len > SC_MAX_IO)
		sqe->error = -EINVAL;
}

HSC_API void hsc_prep_read(struct hsc_sqe *sqe, hsc_handle h, void *buf, unsigned int len,
			   uint64_t off)
{
	prep_rw(sqe, SC_OP_READ, h, buf, len, off);
}

HSC_API void hsc_prep_write(struct hsc_sqe *sqe, hsc_handle h, const void *buf, unsigned int len,
			    uint64_t off)
{
	prep_rw(sqe, SC_OP_WRITE, h, buf, len, off);
}

HSC_API void hsc_prep_fsync(struct hsc_sqe *sqe, hsc_handle h, unsigned int flags)
{
	slot_of(sqe, SC_OP_SYNC, h)->arg0 =
	    flags & HSC_FSYNC_DATASYNC ? SC_SYNC_DATA : SC_SYNC_FULL;
}

HSC_API void hsc_prep_fallocate(struct hsc_sqe *sqe, hsc_handle h, int mode, uint64_t off,
				uint64_t len)
{
	struct sc_slot *s = slot_of(sqe, SC_OP_FALLOCATE, h);

	s->arg0 = (uint32_t)mode;
	s->off = off;
	s->arg1 = len;
}

/* Room of the ring's that goes with the request; NULL sets the entry's error. */
static void *tmp_get(struct hsc_sqe *sqe, int which, size_t size)
{
	sqe->tmp[which] = hsc_buf_alloc(sqe->ring, size);
	if (!sqe->tmp[which])
		sqe->error = -ENOMEM;
	return sqe->tmp[which];
}

/* Copies the path to such room, of which the second half page is free for other data. */
static uint8_t *prep_path(struct hsc_sqe *sqe, int which, const char *path, uint32_t *off,
			  uint32_t *len)
{
	size_t n = sc_strnlen(path, SC_PATH_BUF);
	uint8_t *room;

	if (n == SC_PATH_BUF) {
		sqe->error = -ENAMETOOLONG;
		return NULL;
	}
	room = tmp_get(sqe, which, 2 * SC_PATH_BUF);
	if (!room)
		return NULL;
	memcpy(room, path, n);
	*off = (uint32_t)(room - sqe->ring->lane->chan->base);
	*len = (uint32_t)n;
	return room;
}

HSC_API void hsc_prep_ftruncate(struct hsc_sqe *sqe, hsc_handle h, uint64_t len)
{
	struct sc_slot *s = slot_of(sqe, SC_OP_TRUNCATE, h);

	prep_path(sqe, 0, "", &s->buf, &s->len);
	s->arg0 = AT_EMPTY_PATH;
	s->off = len;
}

HSC_API void hsc_prep_open(struct hsc_sqe *sqe, hsc_handle base, const char *path, int flags,
			   mode_t mode)
{
	struct sc_slot *s = slot_of(sqe, SC_OP_OPEN, base);
	uint64_t mask;

	prep_path(sqe, 0, path, &s->buf, &s->len);
	s->arg0 = (uint32_t)(flags & ~O_CLOEXEC);
	if (flags & (O_CREAT | O_TMPFILE))
		s->arg0 |= (uint64_t)(mode & 07777) << 32;
	signals_block(&mask);
	s->arg2 = sc_random();
	signals_restore(&mask);
}

HSC_API void hsc_prep_close(struct hsc_sqe *sqe, hsc_handle h)
{
	slot_of(sqe, SC_OP_CLOSE, h);
}

HSC_API void hsc_prep_statx(struct hsc_sqe *sqe, hsc_handle base, const char *path, int flags,
			    unsigned int mask, struct statx *stx)
{
	struct sc_slot *s = slot_of(sqe, SC_OP_STAT, base);

	prep_path(sqe, 0, path, &s->buf, &s->len);
	s->arg0 = (uint32_t)flags;
	s->arg1 = mask;
	s->buf2 = s->buf + SC_PATH_BUF;
	s->len2 = sizeof(struct sc_stat);
	sqe->stat = stx;
}

HSC_API void hsc_prep_mkdir(struct hsc_sqe *sqe, hsc_handle base, const char *path, mode_t mode)
{
	struct sc_slot *s = slot_of(sqe, SC_OP_MKDIR, base);

	prep_path(sqe, 0, path, &s->buf, &s->len);
	s->arg0 = mode & 07777;
}

HSC_API void hsc_prep_unlink(struct hsc_sqe *sqe, hsc_handle base, const char *path, int flags)
{
	struct sc_slot *s = slot_of(sqe, SC_OP_UNLINK, base);

	prep_path(sqe, 0, path, &s->buf, &s->len);
	s->arg0 = (uint32_t)flags;
}

HSC_API void hsc_prep_rename(struct hsc_sqe *sqe, hsc_handle old_base, const char *old_path,
			     hsc_handle new_base, const char *new_path, unsigned int flags)
{
	struct sc_slot *s = slot_of(sqe, SC_OP_RENAME, old_base);

	prep_path(sqe, 0, old_path, &s->buf, &s->len);
	prep_path(sqe, 1, new_path, &s->buf2, &s->len2);
	s->arg1 = new_base == HSC_ROOT ? sqe->ring->root : new_base;
	s->arg0 = flags;
}

/* ---- one call at a time ---- */

/* Submits a prepared request by itself (with whatever else is prepared) and waits for its result. */
static int64_t run(struct hsc_ring *ring, struct hsc_sqe *sqe)
{
	struct entry *e = &ring->entries[sqe->index];
	int64_t res;
	int err;

	e->internal = true;
	err = hsc_submit(ring);
	if (err < 0)
		return err;
	while (e->state == ENTRY_FLYING) {
		uint64_t end = 0;

		err = await_move(ring, 60000, &end);
		if (!err)
			err = harvest(ring);
		if (err && err != -ETIME)
			return err;
	}
	res = e->cqe.res;
	entry_free(ring, e);
	return res;
}

HSC_API int hsc_open(struct hsc_ring *ring, hsc_handle base, const char *path, int flags,
		     mode_t mode, hsc_handle *h)
{
	struct hsc_sqe *sqe = hsc_get_sqe(ring);
	int64_t res;

	if (!sqe)
		return -EBUSY;
	hsc_prep_open(sqe, base, path, flags, mode);
	res = run(ring, sqe);
	if (res < 0)
		return (int)res;
	*h = (hsc_handle)res;
	return 0;
}

HSC_API int hsc_close(struct hsc_ring *ring, hsc_handle h)
{
	struct hsc_sqe *sqe = hsc_get_sqe(ring);

	if (!sqe)
		return -EBUSY;
	hsc_prep_close(sqe, h);
	return (int)run(ring, sqe);
}
