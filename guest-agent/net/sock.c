/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sock.c - sockets apart from their protocols: segments and the objects in them, who may use which, what processes are told,
 * and how sockets end.
 *
 * A socket's life: sock_new() carves an object and takes an index. It ends when nobody holds it: by CLOSE, by the release of its
 * ticket, with its session (without ticket), or with its listener (never adopted): sock_gone(). Bytes that were sent and not yet
 * acknowledged keep it alive as an orphan until the stack has done with them; sock_free() gives object and index back.
 */
#include "kept.h"

#include "../log.h"
#include "../segments.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define COMPLAIN_NS 1000000000

/* A freed object's place, outside of shared memory. */
struct hole {
	struct hole *next;
	uint32_t off;
};

/* ---- rings ---- */

/* Not to be inlined: the compiler would be free to read shared memory again in place of the copy. */
__attribute__((noipa)) void ring_read(const uint8_t *ring, uint32_t size, uint32_t at, void *to,
				      uint32_t n)
{
	uint32_t off = at & (size - 1);
	uint32_t first = n < size - off ? n : size - off;

	memcpy(to, ring + off, first);
	memcpy((uint8_t *)to + first, ring, n - first);
}

void ring_write(uint8_t *ring, uint32_t size, uint32_t at, const void *from, uint32_t n)
{
	uint32_t off = at & (size - 1);
	uint32_t first = n < size - off ? n : size - off;

	memcpy(ring + off, from, first);
	memcpy(ring, (const uint8_t *)from + first, n - first);
}

/* ---- memory ---- */

static struct memory *memory_new(struct net *n, uint8_t *base, uint32_t start, uint32_t end)
{
	struct memory *m;

	if (start % SC_LINE || end <= start ||
	    end - start < sc_sock_size(SC_RING_MIN_LOG2, SC_RING_MIN_LOG2))
		return NULL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	m->base = base;
	m->start = m->fresh = start;
	m->end = end;
	m->next = n->memories;
	n->memories = m;
	return m;
}

/* After the last use of an ended segment main unmaps it. */
static void segment_let_go(struct net *n, struct memory *m)
{
	uint64_t one = 1;
	bool last = segment_put(m->segment);

	m->segment = NULL;
	kept_memory_gone(m);
	if (last && write(n->agent->main_event, &one, sizeof(one)) < 0)
		log_error("waking main: %m");
}

static void drop_holes(struct memory *m)
{
	for (uint32_t i = 0; i < NET_CLASSES; i++)
		while (m->holes[i]) {
			struct hole *h = m->holes[i];

			m->holes[i] = h->next;
			m->nholes[i]--;
			free(h);
		}
}

static void memory_put(struct net *n, struct memory *m)
{
	struct memory **link = &n->memories;

	if (--m->refs)
		return;
	while (*link != m)
		link = &(*link)->next;
	*link = m->next;
	drop_holes(m);
	if (m->segment)
		segment_let_go(n, m);
	free(m);
}

int memory_of_channel(struct nsession *ns, uint32_t start, uint32_t end)
{
	struct memory *m;

	for (uint32_t i = 0; i < ns->nmemory; i++)
		if (!ns->memory[i]->ticket && start < ns->memory[i]->end &&
		    ns->memory[i]->start < end)
			return -EEXIST;
	if (ns->nmemory == NET_MAX_SEGMENTS)
		return -ENOSPC;
	m = memory_new(&net_instance, channel_at(ns->ch, 0), start, end);
	if (!m)
		return -EINVAL;
	m->refs = 1;
	m->session = ns->session->id;
	ns->memory[ns->nmemory++] = m;
	kept_use(ns, ns->nmemory - 1);
	return 0;
}

/* The ticket's segment as memory, known already or new. NULL: *err. */
static struct memory *find_ticket(struct nsession *ns, uint64_t ticket, uint64_t secret, int *err)
{
	struct net *n = &net_instance;
	struct segment *s;
	struct memory *m = n->memories;

	while (m && m->ticket != ticket)
		m = m->next;
	*err = -EACCES;
	if (m)
		return m->secret == secret && !m->ended ? m : NULL;
	if (ticket >> 32 != ns->session->id)
		return NULL;
	s = segment_find(n->agent->segments, ticket);
	*err = -ENOENT;
	if (!s)
		return NULL;
	*err = -EINVAL;
	m = s->map.size <= UINT32_MAX
		? memory_new(n, s->map.base, SC_SEGMENT_HOST, (uint32_t)s->map.size)
		: NULL;
	if (!m) {
		segment_put(s); /* it has not ended: its ticket is alive */
		return NULL;
	}
	m->segment = s;
	m->ticket = ticket;
	m->secret = secret;
	kept_memory(m);
	return m;
}

int memory_of_ticket(struct nsession *ns, uint64_t ticket, uint64_t secret)
{
	struct memory *m;
	int err;

	if (!secret)
		return -EINVAL;
	if (ns->nmemory == NET_MAX_SEGMENTS)
		return -ENOSPC;
	m = find_ticket(ns, ticket, secret, &err);
	if (!m)
		return err;
	for (uint32_t i = 0; i < ns->nmemory; i++)
		if (ns->memory[i] == m)
			return 0;
	m->refs++;
	ns->memory[ns->nmemory++] = m;
	kept_use(ns, ns->nmemory - 1);
	return 0;
}

static uint32_t size_class(uint32_t tx_log2, uint32_t rx_log2)
{
	return (tx_log2 - SC_RING_MIN_LOG2) * (SC_RING_MAX_LOG2 - SC_RING_MIN_LOG2 + 1) + rx_log2 -
	       SC_RING_MIN_LOG2;
}

static bool has_memory(const struct nsession *ns, const struct memory *m)
{
	for (uint32_t i = 0; i < ns->nmemory; i++)
		if (ns->memory[i] == m)
			return true;
	return false;
}

/* Some session that may use the socket has given the memory. */
static bool users_have(const struct nsock *s, const struct memory *m)
{
	for (uint32_t i = 0; i < s->nusers; i++)
		if (has_memory(s->users[i], m))
			return true;
	return false;
}

uint32_t sock_places(const struct nsock *s)
{
	uint32_t class = size_class(s->child_tx_log2, s->child_rx_log2), n = 0;
	uint32_t size = sc_sock_size(s->child_tx_log2, s->child_rx_log2);

	for (const struct memory *m = s->net->memories; m; m = m->next)
		if (!m->ended && (m->ticket || !s->loc.segment) && users_have(s, m))
			n += m->nholes[class] + (m->end - m->fresh) / size;
	return n;
}

/* A place for an object, which references the memory. False: no room. */
static bool memory_carve(struct memory *m, uint32_t tx_log2, uint32_t rx_log2, uint32_t *off)
{
	uint32_t size = sc_sock_size(tx_log2, rx_log2), class = size_class(tx_log2, rx_log2);
	struct hole **holes = &m->holes[class];
	struct hole *h = *holes;

	if (m->ended)
		return false;
	if (h) {
		*off = h->off;
		*holes = h->next;
		m->nholes[class]--;
		free(h);
	} else if (m->end - m->fresh >= size) {
		*off = m->fresh;
		m->fresh += size;
	} else {
		return false;
	}
	m->used += size;
	m->refs++;
	return true;
}

static bool add_hole(struct memory *m, uint32_t class, uint32_t off)
{
	struct hole *h = malloc(sizeof(*h));

	if (!h)
		return false;
	*h = (struct hole){.next = m->holes[class], .off = off};
	m->holes[class] = h;
	m->nholes[class]++;
	return true;
}

static void memory_return(struct net *n, struct memory *m, const struct sc_sock_loc *l)
{
	m->used -= sc_sock_size(l->tx_log2, l->rx_log2);
	if (!m->used) { /* all of one piece again */
		drop_holes(m);
		m->fresh = m->start;
	} else { /* without memory for it the place is lost until the memory ends */
		add_hole(m, size_class(l->tx_log2, l->rx_log2), l->off);
	}
	memory_put(n, m);
}

/* A place in one of the session's memories, in tickets' segments only if `shared`. NULL: no room. */
static struct memory *session_carve(struct nsession *ns, uint32_t tx_log2, uint32_t rx_log2,
				    bool shared, uint32_t *off)
{
	for (uint32_t i = 0; i < ns->nmemory; i++)
		if ((!shared || ns->memory[i]->ticket) &&
		    memory_carve(ns->memory[i], tx_log2, rx_log2, off))
			return ns->memory[i];
	return NULL;
}

/* ---- making ---- */

/* Points the socket at its object. */
static void object_at(struct nsock *s, struct memory *m, uint32_t off)
{
	s->mem = m;
	s->loc.segment = m->ticket;
	s->loc.off = off;
	s->sh = (struct sc_sock *)(m->base + off);
	s->tx = (uint8_t *)(s->sh + 1);
	s->tx_size = 1u << s->loc.tx_log2;
	s->rx = s->tx + s->tx_size;
	s->rx_size = 1u << s->loc.rx_log2;
}

/* Zeroes the object's lines and tells what never changes. */
static void object_init(struct nsock *s)
{
	memset(s->sh, 0, sizeof(*s->sh));
	s->sh->index = s->index;
	/* Nearly always all that was published is taken up at once: to be told of more is what we want. */
	__atomic_store_n(&s->sh->tx_want, 1, __ATOMIC_RELAXED);
}

static void link_sock(struct net *n, struct nsock *s)
{
	s->next = n->all;
	s->link = &n->all;
	if (n->all)
		n->all->link = &s->next;
	n->all = s;
	n->sock[s->index] = s;
	atomic_store_explicit(&n->nsocks, n->nsocks + 1, memory_order_relaxed);
}

struct nsock *sock_new(struct net *n, struct nsession *ns, int family, int type, uint32_t tx_log2,
		       uint32_t rx_log2, bool shared, int *err)
{
	struct memory *m;
	struct nsock *s;
	uint32_t off;

	*err = -ENFILE;
	if (!n->nfree || ns->nsocks >= NET_SESSION_SOCKETS)
		return NULL;
	*err = -ENOBUFS;
	m = session_carve(ns, tx_log2, rx_log2, shared, &off);
	if (!m)
		return NULL;
	s = calloc(1, sizeof(*s));
	*err = -ENOMEM;
	if (!s) {
		const struct sc_sock_loc l = {
		    .off = off, .tx_log2 = (uint8_t)tx_log2, .rx_log2 = (uint8_t)rx_log2};

		memory_return(n, m, &l);
		return NULL;
	}
	s->net = n;
	s->loc = (struct sc_sock_loc){.tx_log2 = (uint8_t)tx_log2,
				      .rx_log2 = (uint8_t)rx_log2,
				      .family = (uint16_t)family,
				      .type = (uint16_t)type};
	object_at(s, m, off);
	s->index = n->free_index[--n->nfree];
	s->handle = (uint64_t)++n->generation[s->index] << 32 | s->index;
	s->family = (uint16_t)family;
	s->type = (uint8_t)type;
	s->opt = (struct nsock_options){.ttl = 64,
					.mcast_ttl = 1,
					.mcast_loop = true,
					.keep_idle_s = 7200,
					.keep_intvl_s = 75,
					.keep_cnt = 9};
	s->progress_ns = n->now;
	object_init(s);
	link_sock(n, s);
	return s;
}

int sock_settle(struct nsock *s, struct nsession *ns)
{
	struct sc_sock_loc old = s->loc;
	struct memory *from = s->mem, *m;
	uint32_t off;

	if (has_memory(ns, from))
		return 0;
	m = from ? session_carve(ns, old.tx_log2, old.rx_log2, old.segment != 0, &off) : NULL;
	if (!m)
		return -ENOBUFS;
	/* Indices and places that count are private: what a process does to the bytes meanwhile is its own loss. */
	memcpy(m->base + off, s->sh, sc_sock_size(old.tx_log2, old.rx_log2));
	if (s->tcp)
		tcp_sock_move(s, m->base + off + sizeof(struct sc_sock));
	object_at(s, m, off);
	kept_sock(s); /* before anything else can lie in the old place */
	memory_return(s->net, from, &old);
	return 0;
}

/* ---- what was ---- */

struct memory *memory_again(struct net *n, struct segment *segment, uint8_t *base, uint32_t start,
			    uint32_t end)
{
	struct memory *m = memory_new(n, base, start, end);

	if (!m)
		return NULL;
	m->segment = segment;
	m->refs = 1;
	return m;
}

/* What the object says of itself. Written by the last incarnation, and by whoever maps it: it spoils itself alone. */
static void take_object(struct nsock *s)
{
	struct sc_sock *sh = s->sh;
	uint32_t state = __atomic_load_n(&sh->state, __ATOMIC_RELAXED);

	s->rx_tail = __atomic_load_n(&sh->rx_tail, __ATOMIC_RELAXED);
	s->rx_head = __atomic_load_n(&sh->rx_head, __ATOMIC_RELAXED);
	/* Everything relies on the ring holding no more than its size. Where it seems to, the next look finds the process's index
	 * impossible, and ends the socket. */
	if (s->rx_tail - s->rx_head > s->rx_size)
		s->rx_head = s->rx_tail;
	s->tx_head = s->tx_sent = __atomic_load_n(&sh->tx_head, __ATOMIC_RELAXED);
	s->flags = __atomic_load_n(&sh->flags, __ATOMIC_RELAXED);
	s->err_seq = __atomic_load_n(&sh->err_seq, __ATOMIC_RELAXED);
	s->changes = __atomic_load_n(&sh->changes, __ATOMIC_RELAXED);
	s->name_seq = __atomic_load_n(&sh->name_seq, __ATOMIC_RELAXED);
	if (s->name_seq & 1) { /* written just then */
		s->name_seq--;
		sock_set_names(s, &s->local, &s->peer);
	}
	if (state == SC_SOCK_CLOSED)
		s->state = SC_SOCK_CLOSED;
	__atomic_store_n(&sh->tx_want, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&sh->rx_want, 0, __ATOMIC_RELAXED);
}

static void take_options(struct nsock_options *o, const struct sc_kept_sock *k)
{
	bool *const bits[] = {&o->reuseaddr, &o->reuseport, &o->keepalive, &o->broadcast,
			      &o->nodelay,   &o->cork,	    &o->v6only,	   &o->linger_on,
			      &o->pktinfo,   &o->mcast_loop};

	for (uint32_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		*bits[i] = k->options >> i & 1;
	o->linger_s = k->linger_s;
	o->keep_idle_s = k->keep_idle_s;
	o->keep_intvl_s = k->keep_intvl_s;
	o->keep_cnt = k->keep_cnt;
	o->user_timeout_ms = k->user_timeout_ms;
	o->defer_accept_s = k->defer_accept_s;
	o->mcast_if = k->mcast_if;
	o->ttl = k->ttl;
	o->tos = k->tos;
	o->mcast_ttl = k->mcast_ttl;
}

struct nsock *sock_again(struct net *n, struct memory *m, const struct sc_kept_sock *k)
{
	uint32_t index = (uint32_t)k->name;
	struct nsock *s;

	if (index >= SC_NET_SOCKETS || n->sock[index] ||
	    !sc_sock_loc_valid(&k->loc, m->start, m->end))
		return NULL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->net = n;
	s->mem = m;
	m->refs++;
	m->used += sc_sock_size(k->loc.tx_log2, k->loc.rx_log2);
	s->loc = k->loc;
	s->index = index;
	s->handle = k->name;
	s->family = k->loc.family;
	s->type = (uint8_t)k->loc.type;
	s->sh = (struct sc_sock *)(m->base + k->loc.off);
	s->tx = (uint8_t *)(s->sh + 1);
	s->tx_size = 1u << k->loc.tx_log2;
	s->rx = s->tx + s->tx_size;
	s->rx_size = 1u << k->loc.rx_log2;
	take_options(&s->opt, k);
	s->secret = k->secret;
	s->ticket = k->ticket;
	s->uid = k->uid;
	s->pid = k->pid;
	s->by = k->by;
	s->by_res = k->by_res;
	s->local = k->local;
	s->peer = k->peer;
	s->state = (uint8_t)k->sock_state;
	s->bound = k->flags & SC_KEPT_SOCK_BOUND;
	s->host_gone = k->flags & SC_KEPT_SOCK_GONE;
	s->backlog = k->backlog;
	s->accept_at = k->accept_at;
	s->child_tx_log2 = k->child_tx_log2;
	s->child_rx_log2 = k->child_rx_log2;
	s->progress_ns = n->now;
	s->restored = true;
	s->kept = (void *)k;
	take_object(s);
	link_sock(n, s);
	return s;
}

/* Divides [from, to), where nothing lies, into places like the one of class `tx_log2`, `rx_log2`. */
static void add_holes(struct memory *m, uint32_t from, uint32_t to, const struct sc_sock_loc *like)
{
	uint32_t size = sc_sock_size(like->tx_log2, like->rx_log2);
	uint32_t class = size_class(like->tx_log2, like->rx_log2);

	while (to > from && to - from >= size && add_hole(m, class, from))
		from += size;
}

static int by_place(const void *a, const void *b)
{
	const struct nsock *s = *(struct nsock *const *)a, *t = *(struct nsock *const *)b;

	return s->loc.off < t->loc.off ? -1 : s->loc.off > t->loc.off;
}

/* What lies between objects was free: most likely for objects like their neighbours. */
void memory_settle(struct net *n, struct memory *m)
{
	struct nsock **in = malloc((n->nsocks + 1) * sizeof(struct nsock *));
	uint32_t count = 0, at = m->start;

	for (struct nsock *s = n->all; s && in; s = s->next)
		if (s->mem == m)
			in[count++] = s;
	if (count)
		qsort(in, count, sizeof(struct nsock *), by_place);
	for (uint32_t i = 0; i < count; i++) {
		const struct sc_sock_loc *l = &in[i]->loc;

		add_holes(m, at, l->off, l);
		at = l->off + sc_sock_size(l->tx_log2, l->rx_log2);
	}
	m->fresh = in ? at : m->end;
	free(in);
	memory_put(n, m);
}

/* ---- who may use it ---- */

static bool is_user(const struct nsock *s, const struct nsession *ns)
{
	for (uint32_t i = 0; i < s->nusers; i++)
		if (s->users[i] == ns)
			return true;
	return false;
}

bool sock_add_user(struct nsock *s, struct nsession *ns)
{
	if (is_user(s, ns))
		return true;
	if (s->nusers == s->users_room) {
		uint32_t room = s->users_room ? 2 * s->users_room : 2;
		struct nsession **users = realloc(s->users, room * sizeof(struct nsession *));
		void **grants = users ? realloc(s->grants, room * sizeof(*grants)) : NULL;

		if (users)
			s->users = users;
		if (!grants)
			return false;
		s->grants = grants;
		s->users_room = room;
	}
	s->users[s->nusers] = ns;
	s->grants[s->nusers++] = kept_grant(s, ns);
	return true;
}

bool sock_may_use(const struct nsock *s, const struct nsession *ns)
{
	/* A connection that nobody adopted yet is its listener's users'. */
	return is_user(s, ns) || (s->listener && is_user(s->listener, ns));
}

static void sock_remove_user(struct nsock *s, const struct nsession *ns)
{
	for (uint32_t i = 0; i < s->nusers; i++)
		if (s->users[i] == ns) {
			kept_grant_gone(s->grants[i]);
			s->users[i] = s->users[--s->nusers];
			s->grants[i] = s->grants[s->nusers];
			return;
		}
}

struct nsock *sock_get(struct nsession *ns, uint64_t handle, int *err)
{
	uint32_t index = (uint32_t)handle;
	struct nsock *s = index < SC_NET_SOCKETS ? net_instance.sock[index] : NULL;

	*err = -EBADF;
	if (!s || s->handle != handle || s->host_gone)
		return NULL;
	*err = -EACCES;
	return sock_may_use(s, ns) ? s : NULL;
}

/* ---- telling ---- */

void sock_changed(struct nsock *s, unsigned why)
{
	if (!s->changed) {
		s->changed_next = s->net->changed;
		s->net->changed = s;
	}
	s->changed |= (uint8_t)why;
}

void sock_set_state(struct nsock *s, enum sc_sock_state state)
{
	s->state = (uint8_t)state;
	/* Release: flags and error were written before. */
	__atomic_store_n(&s->sh->state, state, __ATOMIC_RELEASE);
	sock_changed(s, CHANGED_STATE);
}

void sock_set_flags(struct nsock *s, uint32_t flags)
{
	if ((s->flags | flags) == s->flags)
		return;
	s->flags |= flags;
	/* Release: rx_tail was written before, and RX_EOF says that nothing follows it. */
	__atomic_store_n(&s->sh->flags, s->flags, __ATOMIC_RELEASE);
	sock_changed(s, CHANGED_STATE);
}

void sock_clear_flags(struct nsock *s, uint32_t flags)
{
	s->flags &= ~flags;
	__atomic_store_n(&s->sh->flags, s->flags, __ATOMIC_RELAXED);
}

void sock_set_error(struct nsock *s, int err)
{
	__atomic_store_n(&s->sh->error, (uint32_t)err, __ATOMIC_RELAXED);
	/* Release: the error before its number. */
	__atomic_store_n(&s->sh->err_seq, ++s->err_seq, __ATOMIC_RELEASE);
	sock_changed(s, CHANGED_STATE);
}

void sock_set_names(struct nsock *s, const struct sc_sockaddr *local,
		    const struct sc_sockaddr *peer)
{
	struct sc_sock *sh = s->sh;

	/* Odd while they are written. */
	__atomic_store_n(&sh->name_seq, ++s->name_seq, __ATOMIC_RELAXED);
	release_fence();
	if (local)
		s->local = sh->local = *local;
	if (peer)
		sh->peer = *peer;
	__atomic_store_n(&sh->name_seq, ++s->name_seq, __ATOMIC_RELEASE);
}

/* Sets the socket's event bit in one session's area. */
static void set_event(struct net *n, struct nsession *ns, uint32_t index)
{
	uint64_t *word, bit = 1ull << (index % 64);

	if (!ns->area)
		return;
	word = &ns->area->event[index / 64];
	/* Release: who takes the bit sees the indices. A bit that is set already need not be set again: the process
	 * exchanges the sum first, the words then, and looks at sockets last. */
	if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
		__atomic_fetch_or(word, bit, __ATOMIC_RELEASE);
	__atomic_fetch_or(&ns->area->event_sum[index / 4096], 1ull << (index / 64 % 64),
			  __ATOMIC_RELEASE);
	if (ns->dirty)
		return;
	ns->dirty = true;
	ns->dirty_next = n->dirty;
	n->dirty = ns;
}

/* True if anybody wants to hear of it. After a full fence. */
static bool is_wanted(struct nsock *s)
{
	uint32_t room;

	if (s->changed & CHANGED_STATE && __atomic_load_n(&s->sh->watch, __ATOMIC_RELAXED))
		return true;
	if (!(s->changed & CHANGED_ROOM) || !__atomic_load_n(&s->sh->tx_wait, __ATOMIC_RELAXED))
		return false;
	/* As Linux: a sender is woken when a third of the buffer is free. */
	room = s->tx_size - (__atomic_load_n(&s->sh->tx_tail, __ATOMIC_RELAXED) - s->tx_head);
	return s->type == SOCK_DGRAM || room >= s->tx_size / 3;
}

static void tell_users(struct net *n, struct nsock *s)
{
	for (uint32_t i = 0; i < s->nusers; i++)
		set_event(n, s->users[i], s->index);
	if (s->listener)
		for (uint32_t i = 0; i < s->listener->nusers; i++)
			set_event(n, s->listener->users[i], s->index);
}

static void ring_sessions(struct net *n)
{
	full_fence(); /* the bits before the look at `arm`; the process does the reverse */
	while (n->dirty) {
		struct nsession *ns = n->dirty;
		uint32_t arm = __atomic_load_n(&ns->area->arm, __ATOMIC_RELAXED);

		n->dirty = ns->dirty_next;
		ns->dirty = false;
		if (arm == ns->rung)
			continue;
		ns->rung = arm;
		poller_kick(n->poller, ns->ch);
	}
}

uint32_t socks_tell(struct net *n)
{
	struct nsock *s = n->changed;
	uint32_t count = 0;

	if (!s)
		return 0;
	full_fence(); /* what was published before the looks at `watch` and `tx_wait` */
	n->changed = NULL;
	while (s) {
		struct nsock *next = s->changed_next;

		if (!s->host_gone && is_wanted(s)) {
			__atomic_store_n(&s->sh->changes, ++s->changes, __ATOMIC_RELEASE);
			tell_users(n, s);
		}
		s->changed = 0;
		count++;
		if (s->closing && !s->tcp)
			sock_end_closing(s);
		if (s->host_gone && !s->tcp && !s->udp)
			sock_free(s);
		s = next;
	}
	if (n->dirty)
		ring_sessions(n);
	return count;
}

void sock_free_tx(struct nsock *s, uint32_t bytes)
{
	s->tx_head += bytes;
	/* Release: our reads of the bytes are over. */
	__atomic_store_n(&s->sh->tx_head, s->tx_head, __ATOMIC_RELEASE);
	sock_changed(s, CHANGED_ROOM);
}

void sock_end_closing(struct nsock *s)
{
	struct call *c = s->closing;

	s->closing = NULL;
	c->res = 0;
	poller_return(c, CALL_DONE);
}

void sock_complain(struct nsock *s, const char *what)
{
	struct net *n = s->net;

	if (n->complained_at && n->now - n->complained_at < COMPLAIN_NS)
		return;
	n->complained_at = n->now;
	log_warning("socket %u of pid %u: %s; ending it", s->index, s->pid, what);
}

void socks_tell_all(struct net *n)
{
	for (struct nsock *s = n->all; s; s = s->next)
		sock_changed(s, CHANGED_STATE | CHANGED_ROOM);
	socks_tell(n);
	/* Anyhow: a bell may have been due when the last incarnation ended. */
	for (struct nsession *ns = n->sessions; ns; ns = ns->next)
		poller_kick(n->poller, ns->ch);
}

/* ---- being told ---- */

static void kick(struct nsession *ns, uint32_t index)
{
	struct nsock *s = net_instance.sock[index];

	if (!s || s->host_gone || !sock_may_use(s, ns))
		return;
	if (s->type == SOCK_DGRAM)
		udp_sock_kick(s);
	else
		tcp_sock_kick(s);
}

static uint32_t take_word(struct nsession *ns, uint32_t word)
{
	uint32_t count = 0;
	/* Acquire: the indices were published before the bit. */
	uint64_t bits = __atomic_exchange_n(&ns->area->kick[word], 0, __ATOMIC_ACQ_REL);

	for (; bits; bits &= bits - 1, count++)
		kick(ns, word * 64 + (uint32_t)__builtin_ctzll(bits));
	return count;
}

uint32_t socks_take_kicks(struct net *n)
{
	uint32_t count = 0;

	for (struct nsession *ns = n->sessions; ns; ns = ns->next) {
		if (!ns->area)
			continue;
		for (uint32_t i = 0; i < SC_NET_SUMS; i++) {
			uint64_t sum;

			if (!__atomic_load_n(&ns->area->kick_sum[i], __ATOMIC_RELAXED))
				continue;
			sum = __atomic_exchange_n(&ns->area->kick_sum[i], 0, __ATOMIC_ACQ_REL);
			for (; sum; sum &= sum - 1)
				count += take_word(ns, i * 64 + (uint32_t)__builtin_ctzll(sum));
		}
	}
	return count;
}

/* The last incarnation may have taken bits of a sum and not of its words: such a word would never be looked at again, since its bits are
 * set already. */
void socks_take_all_kicks(struct net *n)
{
	for (struct nsession *ns = n->sessions; ns; ns = ns->next)
		for (uint32_t word = 0; ns->area && word < SC_NET_WORDS; word++)
			take_word(ns, word);
}

bool socks_anything(struct net *n)
{
	if (atomic_load_explicit(&n->mail, memory_order_relaxed) || n->changed)
		return true;
	for (struct nsession *ns = n->sessions; ns; ns = ns->next)
		for (uint32_t i = 0; ns->area && i < SC_NET_SUMS; i++)
			if (__atomic_load_n(&ns->area->kick_sum[i], __ATOMIC_RELAXED))
				return true;
	return false;
}

/* ---- ends ---- */

void sock_unlink_child(struct nsock *s)
{
	if (!s->listener)
		return;
	*s->sibling_link = s->sibling;
	if (s->sibling)
		s->sibling->sibling_link = s->sibling_link;
	s->listener = NULL;
}

static void end_children(struct nsock *listener)
{
	while (listener->children) {
		struct nsock *child = listener->children;

		sock_unlink_child(child);
		tcp_sock_abort(child);
		sock_gone(child);
	}
}

static void drop_owner(struct nsock *s)
{
	struct nsession *ns = s->owner ? s->owner->service : NULL;

	if (ns)
		ns->nsocks--;
	if (s->owner)
		session_put(s->owner);
	s->owner = NULL;
}

void sock_gone(struct nsock *s)
{
	if (s->host_gone)
		return;
	s->host_gone = true;
	s->progress_ns = s->net->now;
	while (s->nusers)
		kept_grant_gone(s->grants[--s->nusers]);
	if (s->ticket && s->owner)
		ticket_free(s->owner, s->ticket, s->handle);
	drop_owner(s);
	sock_unlink_child(s);
	if (s->type == SOCK_DGRAM)
		udp_sock_close(s);
	else
		tcp_sock_close(s);
	end_children(s);
	/* Before anybody is told: the ticket may be used again then. */
	if (s->tcp)
		kept_sock(s);
	else
		kept_sock_gone(s);
	/* Freed at the end of the round if the stack has done with it, or when it has. */
	sock_changed(s, CHANGED_STATE);
}

void sock_free(struct nsock *s)
{
	struct net *n = s->net;

	kept_sock_gone(s); /* before another can lie in its place */
	if (s->pending)
		pbuf_free(s->pending);
	if (s->mem)
		memory_return(n, s->mem, &s->loc);
	free(s->own);
	free(s->users);
	free(s->grants);
	n->sock[s->index] = NULL;
	n->free_index[n->nfree++] = (uint16_t)s->index;
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	atomic_store_explicit(&n->nsocks, n->nsocks - 1, memory_order_relaxed);
	free(s);
}

/* Moves a socket's object into memory of our own: its segment goes, and its peer has not acknowledged all bytes yet. */
static void evacuate(struct nsock *s)
{
	static struct sc_sock nowhere; /* written, never read */
	uint8_t *own = s->tcp ? malloc(sizeof(struct sc_sock) + s->tx_size) : NULL;

	kept_lost(s);
	kept_sock_gone(s);
	if (own) {
		memcpy(own, s->sh, sizeof(struct sc_sock));
		memcpy(own + sizeof(struct sc_sock), s->tx, s->tx_size);
		tcp_sock_move(s, own + sizeof(struct sc_sock));
		s->own = own;
		s->sh = (struct sc_sock *)own;
		s->tx = own + sizeof(struct sc_sock);
	} else {
		tcp_sock_abort(s);
		udp_sock_close(s);
		s->sh = &nowhere;
	}
	s->rx = NULL;
	s->rx_size = 0;
	memory_return(s->net, s->mem, &s->loc);
	s->mem = NULL;
}

/* The memory is about to go: nothing of it is used after this. The caller has a reference, which it keeps. */
static void end_memory(struct net *n, struct memory *m)
{
	struct nsock *next;

	m->ended = true;
	for (struct nsock *s = n->all; s && m->ticket; s = s->next) {
		if (s->mem != m || s->host_gone)
			continue;
		tcp_sock_abort(s); /* its holders find it reset */
		sock_set_error(s, ECONNRESET);
	}
	socks_tell(n);
	for (struct nsock *s = n->all; s; s = next) {
		next = s->next;
		if (s->mem != m)
			continue;
		sock_gone(s);
		evacuate(s);
	}
	iface_drop_queues(n);
}

void session_cancel(struct net *n, struct nsession *ns)
{
	for (struct nsock *s = n->all; s; s = s->next)
		if (s->closing && s->closing->ch == ns->ch)
			sock_end_closing(s);
}

void session_end(struct net *n, struct nsession *ns)
{
	struct nsession **link = &n->sessions;
	struct nsock *next;

	for (struct nsock *s = n->all; s; s = next) {
		next = s->next;
		if (s->owner == ns->session && !s->ticket)
			sock_gone(s);
		else
			sock_remove_user(s, ns);
	}
	socks_tell(n);
	while (ns->nmemory) {
		struct memory *m = ns->memory[ns->nmemory - 1];

		if (!m->ticket)
			end_memory(n, m);
		kept_use_gone(ns, --ns->nmemory);
		memory_put(n, m);
	}
	socks_tell(n); /* frees what nothing keeps */
	while (*link != ns)
		link = &(*link)->next;
	*link = ns->next;
	kept_area_gone(ns);
	ns->session->service = NULL;
	free(ns);
}

/* Taken out of a ring and not adopted for too long: the taker died. */
static void look_at_taken(struct nsock *listener)
{
	struct nsock *next;

	for (struct nsock *s = listener->children; s; s = next) {
		next = s->sibling;
		if (!s->taken || listener->net->now - s->taken_ns < SC_ADOPT_MS * 1000000ll)
			continue;
		sock_unlink_child(s);
		tcp_sock_abort(s);
		sock_gone(s);
	}
}

void socks_tick(struct net *n)
{
	struct nsock *next;

	for (struct nsock *s = n->all; s; s = next) {
		next = s->next;
		if (s->children)
			look_at_taken(s);
		if (s->type == SOCK_STREAM)
			tcp_sock_tick(s);
		if (s->closing && n->now > s->closing_until)
			sock_end_closing(s);
	}
}

/* ---- tickets ---- */

void socks_release(struct net *n, const uint64_t *tickets, uint32_t count)
{
	pthread_mutex_lock(&n->lock);
	if (n->nreleased + count > n->released_room) {
		uint32_t room = 2 * (n->nreleased + count);
		uint64_t *more = realloc(n->released, room * sizeof(*more));

		if (more) {
			n->released = more;
			n->released_room = room;
		}
	}
	if (n->nreleased + count <= n->released_room) {
		memcpy(n->released + n->nreleased, tickets, count * sizeof(*tickets));
		n->nreleased += count;
		atomic_store_explicit(&n->mail, true, memory_order_relaxed);
	} else {
		log_error("no memory: %u sockets stay open until their processes end", count);
	}
	pthread_mutex_unlock(&n->lock);
	poller_wake(n->agent->pollers[0]); /* n->poller is the poller's own */
}

/* The ticket's segment goes. */
static void release_memory(struct net *n, uint64_t ticket)
{
	struct memory *m = n->memories;

	while (m && m->ticket != ticket)
		m = m->next;
	if (!m || m->ended)
		return;
	m->refs++;
	end_memory(n, m);
	for (struct nsession *ns = n->sessions; ns; ns = ns->next)
		for (uint32_t i = 0; i < ns->nmemory; i++)
			if (ns->memory[i] == m) {
				kept_use_gone(ns, i);
				ns->memory[i] = ns->memory[--ns->nmemory];
				ns->kept_use[i--] = ns->kept_use[ns->nmemory];
				m->refs--;
			}
	segment_let_go(n, m);
	memory_put(n, m);
}

static void release_one(struct net *n, uint64_t ticket)
{
	struct session *owner = session_find(n->agent->sessions, (uint32_t)(ticket >> 32));
	uint64_t name;
	uint32_t index;

	release_memory(n, ticket);
	if (!owner)
		return;
	name = ticket_kill(owner, ticket);
	index = (uint32_t)name;
	if (name && index < SC_NET_SOCKETS && n->sock[index] && n->sock[index]->handle == name) {
		n->sock[index]->ticket = 0; /* it is dead, and not to be freed */
		sock_gone(n->sock[index]);
	}
	session_put(owner);
}

uint32_t socks_take_released(struct net *n)
{
	uint64_t *tickets;
	uint32_t count;

	if (!atomic_load_explicit(&n->mail, memory_order_relaxed))
		return 0;
	pthread_mutex_lock(&n->lock);
	tickets = n->released;
	count = n->nreleased;
	n->released = NULL;
	n->nreleased = n->released_room = 0;
	atomic_store_explicit(&n->mail, false, memory_order_relaxed);
	pthread_mutex_unlock(&n->lock);
	for (uint32_t i = 0; i < count; i++)
		release_one(n, tickets[i]);
	free(tickets);
	return count;
}

/* ---- looking ---- */

static void describe(const struct nsock *s, struct sc_sock_info *info)
{
	*info = (struct sc_sock_info){.handle = s->handle,
				      .uid = s->uid,
				      .pid = s->pid,
				      .family = s->family,
				      .type = s->type,
				      .peer = s->peer,
				      .recvq = s->rx_tail - s->rx_head,
				      .sendq = s->tx_sent - s->tx_head};
	if (s->type == SOCK_STREAM) {
		info->tcp_state = tcp_sock_state(s);
		if (s->tcp)
			addr_to(&s->tcp->local_ip, s->tcp->local_port, s->family, &info->local);
		else if (s->group)
			info->local = s->local;
		if (s->state == SC_SOCK_LISTEN) {
			info->recvq = s->queued;
			info->sendq = s->backlog;
		}
		return;
	}
	info->tcp_state = s->state == SC_SOCK_CONNECTED ? 1 : 7;
	if (s->udp)
		addr_to(&s->udp->local_ip, s->udp->local_port, s->family, &info->local);
}

uint32_t socks_list(struct net *n, uint32_t from, struct sc_sock_info *to, uint32_t room)
{
	uint32_t count = 0;

	for (uint32_t i = from; i < SC_NET_SOCKETS && count < room; i++)
		if (n->sock[i])
			describe(n->sock[i], &to[count++]);
	return count;
}
