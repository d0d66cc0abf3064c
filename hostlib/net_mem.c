/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_mem.c - the memory in which the agent places sockets.
 *
 * Theory of operation: a process asks the broker for a segment (attach.h), which belongs to a ticket that is taken for that purpose
 * alone, maps it, and gives it to the agent. The mapping is inherited by fork, and so is the ticket's descriptor, at a number of
 * the library's: so the segment is there as long as one process of the family is. An exec'd program gets the descriptor
 * by number (VHOST_SC_SEGS), and maps the segment when it first meets a socket in it. Each session gives the segments that
 * its process knows to the agent anew.
 *
 * Segments double in size from SEG_FIRST to SEG_LAST, so that a process with one connection takes little. If the broker has none
 * to give, sockets lie in the channel: they then end with the process.
 *
 * Segments are never given back while the process lives: sockets come and go, their memory is used again by the agent.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "exec.h"
#include "libfd.h"
#include "net.h"
#include "process.h"

#define SEGS_MAX     64u
#define SEG_FIRST    (1u << 20) /* bytes */
#define SEG_LAST     SC_SEGMENT_MAX
#define RETRY_MS     1000u /* after the broker had none */
#define GRANT_BLOCKS 4u /* pool blocks given to the agent at a time, where there are no segments */

struct netseg {
	struct sc_dom *dom;
	uint64_t ticket;
	uint64_t secret; /* gives it to other sessions; 0: not read yet */
	int fd;		 /* the ticket's descriptor, one of the library's */
	uint32_t given;	 /* generation of the channel whose session gave it last */
	uint8_t *base;	 /* NULL: not mapped yet (after an exec); hostile; inherited by fork */
	uint64_t size;
	bool abandoned; /* dead sockets lie in it: nobody is to make others there; mem_lock */
};

static struct netseg segs[SEGS_MAX + 1]; /* filled in order; mem_lock; entries never go */
static uint32_t nsegs;			 /* atomic, release */
static SC_FORK_DATA struct sc_mutex mem_lock;
static uint64_t
    next_try_ms[SC_MAX_DOMAINS]; /* by domain: no segment is asked for before; mem_lock */

/* ---- giving ---- */

static long map(struct sc_thread *t, struct netseg *s, uint64_t size)
{
	struct sc_segment seg;
	long err = sc_segment_get(t, s->dom, s->fd, size, &seg);

	if (err)
		return err;
	sc_sys3(__NR_madvise, seg.base, seg.size, MADV_DOFORK);
	/* the first page is ours: whoever maps the segment finds there with what it may be given */
	if (s->secret)
		memcpy(seg.base, &s->secret, sizeof(s->secret));
	else
		memcpy(&s->secret, seg.base, sizeof(s->secret));
	s->size = seg.size;
	s->base = seg.base;
	return 0;
}

static long give(struct sc_thread *t, struct sc_hlane *l, struct netseg *s)
{
	struct sc_slot slot = {.op = SC_OP_NET_SEGMENT, .arg0 = s->ticket};
	long res = s->base ? 0 : map(t, s, 0);

	slot.arg1 = s->secret;
	if (!res)
		res = sc_lane_call(t, l, &slot, NULL, 0);
	if (res >= 0)
		s->given = l->chan->gen;
	return res;
}

static long give_pool(struct sc_thread *t, struct sc_hlane *l)
{
	struct sc_slot s = {.op = SC_OP_NET_SEGMENT};
	uint32_t got;

	s.buf = sc_pool_get(l->chan, GRANT_BLOCKS, &got, false);
	if (!s.buf)
		return -ENOBUFS;
	s.len = got * SC_POOL_BLOCK;
	return sc_lane_call(t, l, &s, NULL, 0);
}

/* Has a new segment made. mem_lock held. */
static long make(struct sc_thread *t, struct sc_dom *d, struct netseg *s, uint64_t min)
{
	uint64_t size = SEG_FIRST;
	long err;

	for (uint32_t i = 0; i < nsegs; i++)
		if (segs[i].dom == d && size < SEG_LAST)
			size *= 2;
	if (size < min)
		size = min;
	if (nsegs == SEGS_MAX || sc_now_ms() < next_try_ms[d->index])
		return -ENOBUFS;
	*s = (struct netseg){.dom = d, .secret = sc_random()};
	err = sc_ticket_get(t, d, &s->ticket, &s->fd);
	if (err)
		return err;
	while ((err = map(t, s, size)) == -ENOBUFS && size > SC_SEGMENT_MIN)
		size /= 2;
	if (err) {
		sc_ticket_put(d, s->ticket, s->fd);
		/* anything but "none left now" will be the same the next time */
		next_try_ms[d->index] = err == -ENOBUFS ? sc_now_ms() + RETRY_MS : UINT64_MAX;
	}
	return err;
}

/* Those that the process knows already, but not this session. */
static void give_known(struct sc_thread *t, struct sc_hlane *l)
{
	for (uint32_t i = 0; i < nsegs; i++)
		if (segs[i].dom == l->chan->dom && segs[i].given != l->chan->gen &&
		    !segs[i].abandoned)
			give(t, l, &segs[i]);
}

long sc_netmem_more(struct sc_thread *t, struct sc_hlane *l, uint64_t min)
{
	long res = -ENOBUFS;

	sc_mutex_lock(&mem_lock);
	/* what the process knows was given when the session began: all of it is full */
	if (make(t, l->chan->dom, &segs[nsegs], min) == 0) {
		res = give(t, l, &segs[nsegs]);
		__atomic_store_n(&nsegs, nsegs + 1, __ATOMIC_RELEASE);
	}
	sc_mutex_unlock(&mem_lock);
	return res < 0 ? give_pool(t, l) : res;
}

void sc_netmem_abandon(const struct sc_dom *d)
{
	sc_mutex_lock(&mem_lock);
	for (uint32_t i = 0; i < nsegs; i++)
		segs[i].abandoned |= segs[i].dom == d;
	sc_mutex_unlock(&mem_lock);
}

void sc_netmem_known(struct sc_thread *t, struct sc_hlane *l)
{
	sc_mutex_lock(&mem_lock);
	give_known(t, l);
	sc_mutex_unlock(&mem_lock);
}

uint8_t *sc_netmem_base(struct sc_thread *t, uint64_t ticket, uint64_t *size)
{
	uint32_t n = __atomic_load_n(&nsegs, __ATOMIC_ACQUIRE);
	struct netseg *s = NULL;
	uint8_t *base;

	for (uint32_t i = 0; i < n && !s; i++)
		if (segs[i].ticket == ticket)
			s = &segs[i];
	if (!s)
		return NULL;
	sc_mutex_lock(&mem_lock);
	if (!s->base)
		map(t, s, 0);
	base = s->base;
	*size = s->size;
	sc_mutex_unlock(&mem_lock);
	return base;
}

/* ---- processes ---- */

SC_HOT_TEXT void sc_netmem_before_fork(void)
{
	sc_mutex_lock(&mem_lock);
}

SC_HOT_TEXT void sc_netmem_after_fork(bool child)
{
	if (child)
		sc_mutex_reset(&mem_lock);
	else
		sc_mutex_unlock(&mem_lock);
	for (uint32_t i = 0; child && i < nsegs; i++)
		sc_libfd_forget(segs[i].fd); /* so that it is not closed with the parent's own */
}

SC_HOT_TEXT void sc_netmem_in_child(void)
{
	for (uint32_t i = 0; i < nsegs; i++)
		sc_libfd_adopt(segs[i].fd);
}

void sc_netmem_evict(int fd, int to)
{
	for (uint32_t i = 0; i < nsegs; i++)
		if (segs[i].fd == fd)
			__atomic_store_n(&segs[i].fd, to, __ATOMIC_RELEASE);
}

bool sc_netmem_for_exec(uint32_t i, bool inherit, struct sc_netmem_line *out)
{
	if (i >= __atomic_load_n(&nsegs, __ATOMIC_ACQUIRE))
		return false;
	sc_sys3(__NR_fcntl, segs[i].fd, F_SETFD, inherit ? 0 : FD_CLOEXEC);
	*out =
	    (struct sc_netmem_line){.dom = segs[i].dom, .ticket = segs[i].ticket, .fd = segs[i].fd};
	return true;
}

void sc_netmem_adopt(const struct sc_netmem_line *line)
{
	if (nsegs == SEGS_MAX)
		return;
	sc_sys3(__NR_fcntl, line->fd, F_SETFD, FD_CLOEXEC);
	sc_libfd_adopt(line->fd);
	segs[nsegs++] = (struct netseg){.dom = line->dom, .ticket = line->ticket, .fd = line->fd};
}
