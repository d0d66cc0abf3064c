/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * restore.c - what an earlier incarnation kept is made again; see kept.h.
 *
 * kept_read() runs in the recovering thread, before any session is attached: it looks through the tables, drops what is double, and
 * takes hold of segments. kept_restore() runs in the poller and does the rest. In between nobody changes the tables.
 */
#include "kept-priv.h"

#include "../log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <lwip/igmp.h>
#include <lwip/mld6.h>
#include <lwip/priv/tcp_priv.h>

#define SEGMENT_WAIT_MS \
	300 /* after the last one that came: the broker announces them one after the other */
#define SEGMENTS_MS 5000  /* for all of them */
#define SESSIONS_MS 40000 /* the broker waits for 30 s */

/* A ticket's segment that is held until sockets lie in it. */
struct hold {
	uint64_t ticket;
	struct segment *segment; /* NULL: did not come */
};

struct restore {
	struct hold *holds;
	uint32_t nholds;
};

/* ---- reading ---- */

#define each(t, i, entry, kind)                             \
	for (uint32_t i = 0; (i) < (t)->count; (i)++)       \
		for (struct kind *entry = kept_entry(t, i); \
		     (entry) && (entry)->state == SC_KEPT_LIVE; (entry) = NULL)

static struct kept_table *socks(void)
{
	return &kept.table[SC_TABLE_HANDLES];
}

static struct kept_table *conns(void)
{
	return &kept.table[SC_TABLE_NET_CONNS];
}

static struct kept_table *memories(void)
{
	return &kept.table[SC_TABLE_NET_MEMORY];
}

static bool same_conn(const struct sc_kept_conn *a, const struct sc_kept_conn *b)
{
	return !memcmp(&a->local, &b->local, sizeof(a->local)) &&
	       !memcmp(&a->peer, &b->peer, sizeof(a->peer));
}

static int by_addresses(const void *a, const void *b)
{
	const struct sc_kept_conn *c = *(struct sc_kept_conn *const *)a;
	const struct sc_kept_conn *d = *(struct sc_kept_conn *const *)b;

	return memcmp(&c->local, &d->local, 2 * sizeof(c->local));
}

/* Of two versions of a connection the newer one counts. */
static bool drop_old_conns(void)
{
	struct sc_kept_conn **all = calloc(conns()->count + 1, sizeof(struct sc_kept_conn *));
	uint32_t n = 0;

	if (!all)
		return false;
	each(conns(), i, c, sc_kept_conn) all[n++] = c;
	qsort(all, n, sizeof(struct sc_kept_conn *), by_addresses);
	for (uint32_t i = 1; i < n; i++) {
		bool newer = (int32_t)(all[i]->version - all[i - 1]->version) > 0;

		if (!same_conn(all[i], all[i - 1]))
			continue;
		kept_entry_free(conns(), newer ? all[i - 1] : all[i]);
		if (!newer)
			all[i] = all[i - 1];
	}
	for (uint32_t i = 0; i < n; i++)
		if ((int32_t)(all[i]->version - kept.conn_version) > 0)
			kept.conn_version = all[i]->version;
	free(all);
	return true;
}

/* Likewise of sockets. */
static bool drop_old_socks(void)
{
	struct sc_kept_sock **at = calloc(SC_NET_SOCKETS, sizeof(struct sc_kept_sock *));

	if (!at)
		return false;
	each(socks(), i, k, sc_kept_sock)
	{
		struct sc_kept_sock **place = &at[(uint32_t)k->name % SC_NET_SOCKETS];
		struct sc_kept_sock *old = *place;

		if (k->version > kept.version)
			kept.version = k->version;
		*place = !old || k->version > old->version ? k : old;
		if (old)
			kept_entry_free(socks(), *place == k ? old : k);
	}
	free(at);
	return true;
}

static void drop_old_miscs(void)
{
	struct kept_table *t = &kept.table[SC_TABLE_NET_MISC];

	each(t, i, k, sc_kept_misc)
	{
		if (k->version > kept.version)
			kept.version = k->version;
		each(t, j, o, sc_kept_misc) if (o != k && o->kind == k->kind &&
						!memcmp(o->addr, k->addr, sizeof(o->addr)) &&
						o->version < k->version) kept_entry_free(t, o);
	}
}

/* ---- segments ---- */

static struct hold *find_hold(struct restore *r, uint64_t ticket)
{
	for (uint32_t i = 0; i < r->nholds; i++)
		if (r->holds[i].ticket == ticket)
			return &r->holds[i];
	return NULL;
}

static uint32_t look_for_segments(struct net *n, struct restore *r)
{
	uint32_t missing = 0;

	for (uint32_t i = 0; i < r->nholds; i++) {
		struct hold *h = &r->holds[i];

		if (!h->segment)
			h->segment = segment_find(n->agent->segments, h->ticket);
		missing += !h->segment;
	}
	return missing;
}

/*
 * Takes hold of the segments in which sockets lie. Main receives them meanwhile. Not before this is over will the broker tell of those
 * that end. A segment whose ticket was given back while there was no agent does not come: so it is not waited for
 * when others have ceased to come.
 */
static void hold_segments(struct net *n, struct restore *r)
{
	const struct timespec tick = {.tv_nsec = 1000000};
	uint32_t missing, before = UINT32_MAX;

	for (int ms = 0, still = 0; ms < SEGMENTS_MS && still < SEGMENT_WAIT_MS; ms++, still++) {
		missing = look_for_segments(n, r);
		if (!missing)
			return;
		if (missing != before)
			still = 0;
		before = missing;
		nanosleep(&tick, NULL);
	}
	log_info("%u of %u segments of sockets are gone", before, r->nholds);
}

static struct restore *find_segments(struct net *n)
{
	struct restore *r = calloc(1, sizeof(*r));

	if (r)
		r->holds = calloc(memories()->count, sizeof(*r->holds));
	if (!r || !r->holds) {
		free(r);
		return NULL;
	}
	each(memories(), i, k, sc_kept_memory) if (k->kind == SC_KEPT_HELD)
	{
		if (find_hold(r, k->ticket))
			kept_entry_free(memories(), k);
		else
			r->holds[r->nholds++].ticket = k->ticket;
	}
	hold_segments(n, r);
	return r;
}

bool kept_read(struct net *n)
{
	int found = kept_open(n->agent);

	/* Tries are counted while we look at what was found, and not while we wait: what ends an agent then is not in there. */
	if (found > 0) {
		bool ok;

		drop_old_miscs();
		ok = drop_old_conns() && drop_old_socks();
		kept.tables.shared->tries--;
		if (ok)
			n->found = find_segments(n);
	}
	if (found < 0 || (found > 0 && !n->found)) {
		log_error("not enough memory for what earlier incarnations kept");
		return false;
	}
	kept_secret();
	kept_device(n->port);
	n->restore_by = now_ns() + SESSIONS_MS * 1000000ll;
	/* Release: the poller goes on from here. */
	atomic_store_explicit(&n->stage, n->found ? NET_WAITING : NET_RESTORED,
			      memory_order_release);
	poller_wake(n->agent->pollers[0]); /* n->poller is the poller's own */
	return true;
}

/* ---- sessions and memory ---- */

static struct nsession *session_of(const struct net *n, uint32_t id)
{
	struct nsession *ns = n->sessions;

	while (ns && ns->session->id != id)
		ns = ns->next;
	return ns;
}

static bool restore_session(struct net *n, struct sc_kept_memory *k)
{
	struct channel *ch = poller_channel(n->poller, k->session);
	struct nsession *ns;

	if (!ch || channel_session(ch)->service || k->start % SC_LINE ||
	    !sc_layout_in_arena(channel_layout(ch), k->start, sizeof(struct sc_net_area)))
		return false;
	ns = calloc(1, sizeof(*ns));
	if (!ns)
		return false;
	ns->session = channel_session(ch);
	ns->ch = ch;
	ns->area = channel_at(ch, k->start);
	ns->kept_area = k;
	ns->next = n->sessions;
	n->sessions = ns;
	ns->session->service = ns;
	return true;
}

static struct memory *memory_of(const struct net *n, uint64_t ticket, uint32_t session,
				uint32_t off)
{
	struct memory *m = n->memories;

	while (m && (ticket ? m->ticket != ticket
			    : m->session != session || off < m->start || off >= m->end))
		m = m->next;
	return m;
}

static bool restore_held(struct net *n, struct sc_kept_memory *k)
{
	struct hold *h = find_hold(n->found, k->ticket);
	struct memory *m;

	if (!h || !h->segment || h->segment->map.size > UINT32_MAX)
		return false;
	m = memory_again(n, h->segment, h->segment->map.base, SC_SEGMENT_HOST,
			 (uint32_t)h->segment->map.size);
	if (!m)
		return false;
	h->segment = NULL; /* the memory's from now on */
	m->ticket = k->ticket;
	m->secret = k->secret;
	m->kept = k;
	return true;
}

/* The session has the memory in its list, and in this a reference. */
static bool add_use(struct nsession *ns, struct memory *m, struct sc_kept_memory *k)
{
	if (ns->nmemory == NET_MAX_SEGMENTS)
		return false;
	m->refs++;
	ns->memory[ns->nmemory] = m;
	ns->kept_use[ns->nmemory++] = k;
	return true;
}

static bool restore_range(struct net *n, struct sc_kept_memory *k)
{
	struct nsession *ns = session_of(n, k->session);
	struct memory *m;

	if (!ns || k->end <= k->start ||
	    !sc_layout_in_arena(channel_layout(ns->ch), k->start, k->end - k->start))
		return false;
	m = memory_again(n, NULL, channel_at(ns->ch, 0), k->start, k->end);
	if (!m)
		return false;
	m->session = k->session;
	return add_use(ns, m, k);
}

static bool restore_use(struct net *n, struct sc_kept_memory *k)
{
	struct nsession *ns = session_of(n, k->session);
	struct memory *m = memory_of(n, k->ticket, 0, 0);

	return ns && m && m->secret == k->secret && add_use(ns, m, k);
}

static void restore_memory(struct net *n, uint32_t kind,
			   bool (*restore)(struct net *n, struct sc_kept_memory *k))
{
	each(memories(), i, k, sc_kept_memory) if (k->kind == kind && !restore(n, k))
	    kept_entry_free(memories(), k);
}

/* ---- sockets ---- */

/* The owner, who may be gone while others hold the socket. A reference, or NULL. */
static struct session *owner_of(struct net *n, const struct sc_kept_sock *k)
{
	struct session *s = session_find(n->agent->sessions, k->session);

	return s ? s : session_new(n->agent->sessions, k->session, 0, k->pid, NULL);
}

static void restore_owner(struct net *n, struct nsock *s, const struct sc_kept_sock *k)
{
	if (!k->session)
		return;
	s->owner = owner_of(n, k);
	if (!s->owner)
		return;
	if (s->owner->service)
		((struct nsession *)s->owner->service)->nsocks++;
	if (s->ticket && !ticket_begin(s->owner, s->ticket))
		ticket_end(s->owner, s->ticket, s->handle);
}

static void restore_socks(struct net *n)
{
	uint32_t lost = 0;

	each(socks(), i, k, sc_kept_sock)
	{
		struct memory *m = memory_of(n, k->loc.segment, k->place, k->loc.off);
		struct nsock *s = m ? sock_again(n, m, k) : NULL;

		if (s) {
			restore_owner(n, s, k);
			continue;
		}
		kept_entry_free(socks(), k);
		lost++;
	}
	if (lost)
		log_info("%u sockets went with the memory in which they were", lost);
	n->nfree = 0;
	for (uint32_t i = SC_NET_SOCKETS; i--;)
		if (!n->sock[i])
			n->free_index[n->nfree++] = (uint16_t)i;
}

static struct nsock *sock_named(const struct net *n, uint64_t name)
{
	struct nsock *s = (uint32_t)name < SC_NET_SOCKETS ? n->sock[(uint32_t)name] : NULL;

	return s && s->handle == name ? s : NULL;
}

static void restore_grants(struct net *n)
{
	struct kept_table *t = &kept.table[SC_TABLE_GRANTS];

	/* Entries are made anew with each user. */
	each(t, i, k, sc_kept_grant)
	{
		uint64_t name = k->name;
		uint32_t session = k->session;
		struct nsock *s = sock_named(n, name);
		struct nsession *ns = session_of(n, session);

		kept_entry_free(t, k);
		if (s && ns && !s->host_gone)
			sock_add_user(s, ns);
	}
}

/* What the socket is bound to, as op_bind() would have it. */
static bool bound_to(const struct nsock *s, ip_addr_t *ip, uint16_t *port)
{
	if (addr_from(&s->local, s->family, ip, port))
		return false;
	if (ip_addr_isany(ip) && s->family == AF_INET6 && !s->opt.v6only)
		*ip = (ip_addr_t)IPADDR_ANY_TYPE_INIT;
	return true;
}

static bool restore_bound(struct nsock *s, enum sc_sock_state state)
{
	ip_addr_t ip;
	uint16_t port;

	s->bound = false;
	s->state = SC_SOCK_NEW;
	if (!bound_to(s, &ip, &port) || tcp_sock_bind(s, &ip, port))
		return false;
	return state != SC_SOCK_LISTEN || !tcp_sock_listen(s, s->backlog);
}

static bool restore_dgram(struct nsock *s)
{
	enum sc_sock_state state = s->state;
	bool bound = s->bound;
	ip_addr_t ip;
	uint16_t port;

	s->state = SC_SOCK_NEW;
	if (udp_sock_make(s))
		return false;
	s->bound = false;
	if (s->local.port && (!bound_to(s, &ip, &port) || udp_sock_bind(s, &ip, port)))
		return false;
	s->bound = bound;
	s->state = state;
	return state != SC_SOCK_CONNECTED || !udp_sock_connect(s, &s->peer);
}

static void lose(struct nsock *s)
{
	if (s->type == SOCK_STREAM) {
		tcp_sock_lose(s);
		return;
	}
	udp_sock_close(s);
	sock_set_error(s, ECONNRESET);
	sock_set_state(s, SC_SOCK_CLOSED);
}

/* What has an address of its own, before connections come that share it. */
static void restore_addresses(struct net *n)
{
	for (struct nsock *s = n->all; s; s = s->next) {
		enum sc_sock_state state = s->state;
		bool ok = true;

		if (s->host_gone || state == SC_SOCK_CLOSED)
			continue;
		if (s->type == SOCK_DGRAM)
			ok = restore_dgram(s);
		else if (state == SC_SOCK_BOUND || state == SC_SOCK_LISTEN)
			ok = restore_bound(s, state);
		if (!ok)
			lose(s);
	}
}

/* ---- connections ---- */

static void drop_conn(struct sc_kept_conn *c, bool reset, uint32_t una, uint32_t rcv_nxt)
{
	if (reset)
		tcp_reset_again(c, una, rcv_nxt);
	kept_entry_free(conns(), c);
}

/* True: it lives again, in one way or another. False: its entry is of no use. */
static bool restore_conn(struct net *n, struct sc_kept_conn *c)
{
	struct nsock *s = sock_named(n, c->name);
	uint32_t flags;

	if (c->name == SC_KEPT_CONN_ALONE)
		return tcp_alone_again(c);
	if (!c->name)
		return tcp_handshake_again(c);
	if (!s || s->tcp || c->status & SC_KEPT_CONN_LOST)
		return false;
	if (!(c->status & SC_KEPT_CONN_EST))
		return s->state == SC_SOCK_CONNECTING && tcp_connect_again(s, c);
	if (s->state != SC_SOCK_CLOSED)
		return tcp_sock_again(s, c);
	/* The end was told already. */
	flags = __atomic_load_n(&s->sh->flags, __ATOMIC_RELAXED);
	return c->status & SC_KEPT_CONN_FIN && !(flags & SC_SOCK_F_RESET) && tcp_alone_again(c);
}

static void restore_conns(struct net *n)
{
	each(conns(), i, c, sc_kept_conn)
	{
		struct nsock *s = sock_named(n, c->name);

		if (restore_conn(n, c))
			continue;
		if (s && s->tcp)
			tcp_sock_abort(s); /* and with it the entry */
		else
			drop_conn(c, c->status & SC_KEPT_CONN_EST, c->una, c->rcv_nxt);
	}
}

/* Streams that were at work and found no connection. */
static void lose_the_rest(struct net *n)
{
	for (struct nsock *s = n->all; s; s = s->next)
		if (s->type == SOCK_STREAM && !s->tcp &&
		    (s->state == SC_SOCK_CONNECTING || s->state == SC_SOCK_CONNECTED))
			lose(s);
}

static int by_arrival(const void *a, const void *b)
{
	const struct nsock *s = *(struct nsock *const *)a, *t = *(struct nsock *const *)b;

	return (int32_t)(s->accept_at - t->accept_at) < 0 ? -1 : s->accept_at != t->accept_at;
}

/* Who waits to be accepted gets into its listener's list, oldest first. */
static void restore_children(struct net *n)
{
	struct nsock **all = calloc(n->nsocks + 1, sizeof(struct nsock *));
	uint32_t count = 0;

	for (struct nsock *s = n->all; s && all; s = s->next)
		if (s->kept && ((struct sc_kept_sock *)s->kept)->listener && !s->owner)
			all[count++] = s;
	if (count)
		qsort(all, count, sizeof(struct nsock *), by_arrival);
	for (uint32_t i = 0; i < count; i++) {
		struct nsock *s = all[i];
		struct nsock *l = sock_named(n, ((struct sc_kept_sock *)s->kept)->listener);

		if (!l || l->state != SC_SOCK_LISTEN) {
			tcp_sock_abort(s);
			sock_gone(s);
			continue;
		}
		tcp_adopt_again(l, s);
		if (tcp_enqueue_again(l, s))
			continue;
		sock_unlink_child(s);
		sock_gone(s);
	}
	free(all);
}

/* ---- all of it ---- */

static void restore_interface(struct net *n)
{
	const struct sc_kept_misc *lease = kept_find_misc(SC_KEPT_LEASE, NULL, 0);
	uint32_t addr[3];

	if (lease)
		memcpy(addr, lease->addr, sizeof(addr));
	iface_resume(n, lease ? addr : NULL);
	each(&kept.table[SC_TABLE_NET_MISC], i, k, sc_kept_misc)
	{
		ip6_addr_t six = {0};
		ip4_addr_t four;

		if (k->kind == SC_KEPT_GROUP4) {
			memcpy(&four, k->addr, sizeof(four));
			igmp_joingroup_netif(&n->netif, &four);
		} else if (k->kind == SC_KEPT_GROUP6) {
			memcpy(six.addr, k->addr, 16);
			ip6_addr_assign_zone(&six, IP6_MULTICAST, &n->netif);
			mld6_joingroup_netif(&n->netif, &six);
		}
	}
}

static void let_go(struct net *n)
{
	for (struct memory *m = n->memories, *next; m; m = next) {
		next = m->next;
		memory_settle(n, m);
	}
	for (uint32_t i = 0; i < n->found->nholds; i++)
		if (n->found->holds[i].segment)
			segment_put(n->found->holds[i].segment);
	free(n->found->holds);
	free(n->found);
	n->found = NULL;
}

static void kick_all(struct net *n)
{
	for (struct nsock *s = n->all, *next; s; s = next) {
		next = s->next;
		if (s->type == SOCK_DGRAM)
			udp_sock_kick(s);
		else
			tcp_sock_kick(s);
	}
}

void kept_restore(struct net *n)
{
	int64_t start = now_ns();
	uint32_t connected = 0, all = 0;

	kept.tables.shared->tries++;
	restore_interface(n);
	restore_memory(n, SC_KEPT_AREA, restore_session);
	restore_memory(n, SC_KEPT_HELD, restore_held);
	restore_memory(n, SC_KEPT_RANGE, restore_range);
	restore_memory(n, SC_KEPT_USE, restore_use);
	restore_socks(n);
	restore_grants(n);
	restore_addresses(n);
	restore_conns(n);
	lose_the_rest(n);
	restore_children(n);
	for (struct nsock *s = n->all; s; s = s->next, all++)
		connected += s->type == SOCK_STREAM && s->tcp && s->state == SC_SOCK_CONNECTED;
	let_go(n);
	socks_take_all_kicks(n);
	kick_all(n);
	socks_tell_all(n);
	tables_rebuilt(&kept.tables);
	log_info("took over %u sockets, %u connections among them, in %u ms", all, connected,
		 (uint32_t)((now_ns() - start) / 1000000));
}
