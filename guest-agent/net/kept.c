/* SPDX-License-Identifier: BSD-3-Clause */
/* kept.c - see kept.h: the tables, and what is written into them while all goes well. restore.c reads them. */
#include "kept-priv.h"

#include "../log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include <lwip/def.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/prot/tcp.h>
#include <lwiphooks.h>

/* Shares of the segment: as many entries for connections and uses of sockets as for sockets. */
static const struct table_kind kinds[SC_TABLE_KINDS] = {
    [SC_TABLE_HANDLES] = {sizeof(struct sc_kept_sock), 32},
    [SC_TABLE_GRANTS] = {sizeof(struct sc_kept_grant), 8},
    [SC_TABLE_NET_CONNS] = {sizeof(struct sc_kept_conn), 16},
    [SC_TABLE_NET_MEMORY] = {sizeof(struct sc_kept_memory), 3},
    [SC_TABLE_NET_MISC] = {sizeof(struct sc_kept_misc), 1},
};

/* Bytes of an entry that its checksum covers, from its start (the first 8 are not). */
static const uint32_t entry_checked[SC_TABLE_KINDS] = {
    [SC_TABLE_HANDLES] = sizeof(struct sc_kept_sock),
    [SC_TABLE_GRANTS] = 24,
    [SC_TABLE_NET_CONNS] = offsetof(struct sc_kept_conn, name),
    [SC_TABLE_NET_MEMORY] = sizeof(struct sc_kept_memory),
    [SC_TABLE_NET_MISC] = sizeof(struct sc_kept_misc),
};

struct kept kept;

/* ---- entries ---- */

static uint32_t kind_of(const struct kept_table *t)
{
	return (uint32_t)(t - kept.table);
}

void *kept_entry(const struct kept_table *t, uint32_t i)
{
	return t->base + (size_t)i * kinds[kind_of(t)].size;
}

bool kept_entry_valid(const struct kept_table *t, const void *entry)
{
	const struct kept_head *h = entry;

	return h->check == crc32c(0, (const uint8_t *)entry + sizeof(*h),
				  entry_checked[kind_of(t)] - sizeof(*h));
}

void kept_entry_free(struct kept_table *t, void *entry)
{
	struct kept_head *h = entry;

	if (!entry)
		return;
	__atomic_store_n(&h->state, SC_KEPT_FREE, __ATOMIC_RELEASE);
	t->free[t->nfree++] = (uint32_t)(((uint8_t *)entry - t->base) / kinds[kind_of(t)].size);
}

/*
 * Writes `content` into a free entry, makes it count, and frees the one that it replaces. NULL: no room; then what there was
 * remains. One entry is always left for changes.
 */
static void *entry_put(struct kept_table *t, void *old, const void *content)
{
	uint32_t kind = kind_of(t);
	struct kept_head *h;

	if (!kept.on)
		return NULL;
	if (t->nfree < (old ? 1u : 2u)) {
		if (!t->full)
			log_warning("no room to keep more of table %u: what is made now will not "
				    "outlive this agent (see --state)",
				    kind);
		t->full = true;
		return old;
	}
	h = kept_entry(t, t->free[--t->nfree]);
	memcpy(h + 1, (const uint8_t *)content + sizeof(*h), kinds[kind].size - sizeof(*h));
	h->check = crc32c(0, h + 1, entry_checked[kind] - sizeof(*h));
	/* Release: the entry is whole before it counts. */
	__atomic_store_n(&h->state, SC_KEPT_LIVE, __ATOMIC_RELEASE);
	kept_entry_free(t, old);
	return h;
}

/* ---- opening ---- */

static bool make_lists(void)
{
	for (uint32_t kind = 0; kind < SC_TABLE_KINDS; kind++) {
		struct kept_table *t = &kept.table[kind];

		t->count = table_count(&kept.tables, kind);
		t->nfree = 0;
		if (!t->count)
			continue;
		t->base = table_at(&kept.tables, kind, 0);
		free(t->free);
		t->free = calloc(t->count, sizeof(*t->free));
		if (!t->free)
			return false;
		for (uint32_t i = t->count; i--;) /* the first are taken first */
			if (((struct kept_head *)kept_entry(t, i))->state == SC_KEPT_FREE)
				t->free[t->nfree++] = i;
	}
	return true;
}

/* False: an entry is damaged. */
static bool all_valid(void)
{
	for (uint32_t kind = 0; kind < SC_TABLE_KINDS; kind++)
		for (uint32_t i = 0; i < kept.table[kind].count; i++) {
			struct kept_head *h = kept_entry(&kept.table[kind], i);

			if (h->state != SC_KEPT_FREE &&
			    (h->state != SC_KEPT_LIVE || !kept_entry_valid(&kept.table[kind], h)))
				return false;
		}
	return true;
}

int kept_open(struct agent *agent)
{
	enum tables_found found = tables_open(&kept.tables, &agent->own[SC_OWN_STATE], agent->epoch,
					      agent->incarnation, kinds);

	if (found == TABLES_NONE)
		return 0;
	if (!make_lists())
		return -ENOMEM;
	if (found == TABLES_KEPT && !all_valid()) {
		tables_give_up(&kept.tables, "an entry's checksum is wrong");
		found = TABLES_LOST;
		if (!make_lists())
			return -ENOMEM;
	}
	kept.on = true;
	kept.lost = found == TABLES_LOST;
	return found == TABLES_KEPT;
}

bool kept_lost_all(void)
{
	return kept.lost || !kept.on;
}

/* ---- sessions and memory ---- */

void kept_area(struct nsession *ns, uint32_t off)
{
	const struct sc_kept_memory k = {
	    .kind = SC_KEPT_AREA, .session = ns->session->id, .start = off};

	ns->kept_area = entry_put(&kept.table[SC_TABLE_NET_MEMORY], ns->kept_area, &k);
}

void kept_area_gone(struct nsession *ns)
{
	kept_entry_free(&kept.table[SC_TABLE_NET_MEMORY], ns->kept_area);
	ns->kept_area = NULL;
}

void kept_use(struct nsession *ns, uint32_t i)
{
	const struct memory *m = ns->memory[i];
	const struct sc_kept_memory k = {.kind = m->ticket ? SC_KEPT_USE : SC_KEPT_RANGE,
					 .session = ns->session->id,
					 .ticket = m->ticket,
					 .secret = m->secret,
					 .start = m->start,
					 .end = m->end};

	ns->kept_use[i] = entry_put(&kept.table[SC_TABLE_NET_MEMORY], NULL, &k);
}

void kept_use_gone(struct nsession *ns, uint32_t i)
{
	kept_entry_free(&kept.table[SC_TABLE_NET_MEMORY], ns->kept_use[i]);
	ns->kept_use[i] = NULL;
}

void kept_memory(struct memory *m)
{
	const struct sc_kept_memory k = {
	    .kind = SC_KEPT_HELD, .ticket = m->ticket, .secret = m->secret};

	m->kept = entry_put(&kept.table[SC_TABLE_NET_MEMORY], m->kept, &k);
}

void kept_memory_gone(struct memory *m)
{
	kept_entry_free(&kept.table[SC_TABLE_NET_MEMORY], m->kept);
	m->kept = NULL;
}

void *kept_grant(const struct nsock *s, const struct nsession *ns)
{
	const struct sc_kept_grant k = {.name = s->handle, .session = ns->session->id};

	return entry_put(&kept.table[SC_TABLE_GRANTS], NULL, &k);
}

void kept_grant_gone(void *grant)
{
	kept_entry_free(&kept.table[SC_TABLE_GRANTS], grant);
}

/* ---- sockets ---- */

static uint32_t option_bits(const struct nsock_options *o)
{
	const bool bits[] = {o->reuseaddr, o->reuseport, o->keepalive, o->broadcast, o->nodelay,
			     o->cork,	   o->v6only,	 o->linger_on, o->pktinfo,   o->mcast_loop};
	uint32_t v = 0;

	for (uint32_t i = 0; i < sizeof(bits); i++)
		v |= (uint32_t)bits[i] << i;
	return v;
}

void kept_sock(struct nsock *s)
{
	const struct nsock_options *o = &s->opt;
	struct sc_kept_sock k = {.version = ++kept.version,
				 .name = s->handle,
				 .secret = s->secret,
				 .ticket = s->ticket,
				 .loc = s->loc,
				 .session = s->owner ? s->owner->id : 0,
				 .place = s->mem ? s->mem->session : 0,
				 .uid = s->uid,
				 .pid = s->pid,
				 .listener = s->listener ? s->listener->handle : 0,
				 .accept_at = s->accept_at,
				 .backlog = s->backlog,
				 .by = s->by,
				 .by_res = s->by_res,
				 .local = s->local,
				 .peer = s->peer,
				 .sock_state = s->state,
				 .child_tx_log2 = s->child_tx_log2,
				 .child_rx_log2 = s->child_rx_log2,
				 .flags = (s->bound ? SC_KEPT_SOCK_BOUND : 0) |
					  (s->host_gone ? SC_KEPT_SOCK_GONE : 0),
				 .options = option_bits(o),
				 .linger_s = o->linger_s,
				 .keep_idle_s = o->keep_idle_s,
				 .keep_intvl_s = o->keep_intvl_s,
				 .keep_cnt = o->keep_cnt,
				 .user_timeout_ms = o->user_timeout_ms,
				 .defer_accept_s = o->defer_accept_s,
				 .mcast_if = o->mcast_if,
				 .ttl = o->ttl,
				 .tos = o->tos,
				 .mcast_ttl = o->mcast_ttl};

	if (kept.on && s->mem)
		s->kept = entry_put(&kept.table[SC_TABLE_HANDLES], s->kept, &k);
}

void kept_sock_gone(struct nsock *s)
{
	kept_entry_free(&kept.table[SC_TABLE_HANDLES], s->kept);
	s->kept = NULL;
}

void kept_by(struct nsock *s, const struct call *c, int64_t res)
{
	s->by = (struct sc_call_id){
	    .session = channel_session(c->ch)->id, .lane = c->lane, .tag = c->s.tag};
	s->by_res = res;
}

bool kept_result(const struct nsock *s, const struct call *c, int64_t *res)
{
	/* Calls of this incarnation come once: their results need not be looked for. */
	if (!c->again || !s->restored || s->by.session != channel_session(c->ch)->id ||
	    s->by.lane != c->lane || s->by.tag != c->s.tag)
		return false;
	*res = s->by_res;
	return true;
}

/* ---- connections ---- */

static struct sc_kept_conn *conn_of(const struct tcp_pcb *pcb)
{
	return pcb ? pcb->ext_args[0].data : NULL;
}

static void conn_destroyed(u8_t id, void *data)
{
	kept_entry_free(&kept.table[SC_TABLE_NET_CONNS], data);
}

void kept_hang(struct tcp_pcb *pcb, void *conn)
{
	static const struct tcp_ext_arg_callbacks callbacks = {.destroy = conn_destroyed};

	pcb->ext_args[0].callbacks = &callbacks;
	pcb->ext_args[0].data = conn;
}

/* The pcb's constants, and its words as they are at its beginning. */
static void conn_put(struct tcp_pcb *pcb, uint64_t name, uint32_t iss, uint32_t status)
{
	struct sc_kept_conn *old = conn_of(pcb);
	struct sc_kept_conn k = {.iss = iss,
				 .version = ++kept.conn_version,
				 .mss = pcb->mss,
				 .snd_scale = pcb->snd_scale,
				 .rcv_scale = pcb->rcv_scale,
				 .options = (pcb->flags & TF_WND_SCALE ? SC_KEPT_CONN_SCALE : 0) |
					    (pcb->flags & TF_SACK ? SC_KEPT_CONN_SACK : 0),
				 .name = name,
				 .irs = pcb->rcv_nxt,
				 .edge = iss,
				 .snd_wnd = pcb->snd_wnd,
				 .snd_wnd_max = pcb->snd_wnd_max,
				 .una = iss,
				 .rcv_nxt = pcb->rcv_nxt,
				 .status = status};

	addr_to(&pcb->local_ip, pcb->local_port, AF_INET6, &k.local);
	addr_to(&pcb->remote_ip, pcb->remote_port, AF_INET6, &k.peer);
	kept_hang(pcb, entry_put(&kept.table[SC_TABLE_NET_CONNS], old, &k));
}

static void set_word(uint32_t *word, uint32_t value)
{
	/* Release: what the word speaks of was stored before. */
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static void set_status(struct nsock *s, uint32_t bit)
{
	struct sc_kept_conn *c = conn_of(s->tcp);

	if (c)
		set_word(&c->status, c->status | bit);
}

void kept_established(struct nsock *s)
{
	s->iss = s->tcp->snd_lbb; /* nothing was written yet */
	s->irs = s->tcp->rcv_nxt;
	if (kept.on)
		conn_put(s->tcp, s->handle, s->iss, SC_KEPT_CONN_EST);
}

void kept_eof(struct nsock *s)
{
	set_status(s, SC_KEPT_CONN_EOF);
}

void kept_fin(struct nsock *s)
{
	struct sc_kept_conn *c = conn_of(s->tcp);

	if (!c)
		return;
	set_word(&c->fin_at, s->fin_at);
	set_status(s, SC_KEPT_CONN_FIN);
}

void kept_lost(struct nsock *s)
{
	set_status(s, SC_KEPT_CONN_LOST);
}

void kept_dropped(struct nsock *s, uint32_t n)
{
	struct sc_kept_conn *c = conn_of(s->tcp);

	s->irs += n;
	if (c)
		set_word(&c->irs, s->irs);
}

void kept_alone(struct tcp_pcb *pcb)
{
	struct sc_kept_conn *c = conn_of(pcb);

	if (!c)
		return;
	set_word(&c->una, pcb->lastack);
	set_word(&c->rcv_nxt, pcb->rcv_nxt);
	__atomic_store_n(&c->name, SC_KEPT_CONN_ALONE, __ATOMIC_RELEASE);
}

void kept_tick(void)
{
	for (struct tcp_pcb *pcb = tcp_tw_pcbs; pcb; pcb = pcb->next) {
		kept_entry_free(&kept.table[SC_TABLE_NET_CONNS], conn_of(pcb));
		pcb->ext_args[0].data = NULL;
	}
}

/* ---- segments that leave ---- */

/* The window of a connection that is being opened is that of the ring it will have. Its entry is made. */
static void opening_leaves(struct tcp_hdr *hdr, struct tcp_pcb *pcb)
{
	const struct nsock *s = pcb->callback_arg; /* itself, or its listener */
	uint32_t window;

	if (!s)
		return;
	window = pcb->state == SYN_RCVD ? 1u << s->child_rx_log2 : s->rx_size;
	if (!(TCPH_FLAGS(hdr) & TCP_SYN))
		window >>= pcb->rcv_scale;
	if (window < lwip_ntohs(hdr->wnd))
		hdr->wnd = lwip_htons((uint16_t)window);
	if (kept.on && TCPH_FLAGS(hdr) & TCP_SYN && !conn_of(pcb))
		conn_put(pcb, pcb->state == SYN_RCVD ? 0 : s->handle, lwip_ntohl(hdr->seqno) + 1,
			 0);
}

/* What is acknowledged is in the ring: see kept.h. */
static void lower_ack(struct tcp_hdr *hdr, struct nsock *s)
{
	uint32_t have = s->irs + s->rx_tail + s->eof;

	if ((int32_t)(lwip_ntohl(hdr->ackno) - have) <= 0)
		return;
	hdr->ackno = lwip_htonl(have);
	s->ack_again = true;
}

uint32_t *kept_leaves(struct tcp_hdr *hdr, const struct tcp_pcb *pcb, uint32_t *opts)
{
	struct sc_kept_conn *c;
	uint32_t edge;

	if (!pcb || pcb->state == LISTEN || pcb->state == TIME_WAIT || TCPH_FLAGS(hdr) & TCP_RST)
		return opts;
	if (pcb->state == SYN_SENT || pcb->state == SYN_RCVD) {
		opening_leaves(hdr, (struct tcp_pcb *)pcb);
		return opts;
	}
	if (pcb->callback_arg)
		lower_ack(hdr, pcb->callback_arg);
	c = conn_of(pcb);
	if (!c)
		return opts;
	edge = pcb->lastack + (pcb->snd_wnd ? pcb->snd_wnd : 1);
	if ((int32_t)(edge - c->edge) > 0)
		set_word(&c->edge, edge);
	set_word(&c->snd_wnd, pcb->snd_wnd);
	set_word(&c->snd_wnd_max, pcb->snd_wnd_max);
	set_word(&c->una, pcb->lastack);
	set_word(&c->rcv_nxt, lwip_ntohl(hdr->ackno));
	return opts;
}

/* ---- initial sequence numbers: RFC 6528 ---- */

static uint64_t rotl(uint64_t v, int n)
{
	return v << n | v >> (64 - n);
}

static void sip_rounds(uint64_t v[4], int n)
{
	while (n--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotl(v[1], 13) ^ v[0];
		v[3] = rotl(v[3], 16) ^ v[2];
		v[0] = rotl(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotl(v[1], 17) ^ v[2];
		v[3] = rotl(v[3], 21) ^ v[0];
		v[2] = rotl(v[2], 32);
	}
}

/* SipHash-2-4 of whole words. */
static uint64_t siphash(const uint64_t key[2], const uint64_t *words, uint32_t n)
{
	uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
			 key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};

	for (uint32_t i = 0; i <= n; i++) {
		uint64_t word = i < n ? words[i] : (uint64_t)n << 59;

		v[3] ^= word;
		sip_rounds(v, 2);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	sip_rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint32_t kept_isn(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *peer,
		  uint16_t peer_port)
{
	struct sc_sockaddr a[2];
	uint64_t words[8] = {0};
	struct timespec now;

	if (kept.has_isn) { /* a connection of before, once more */
		kept.has_isn = false;
		return kept.isn;
	}
	addr_to(local, local_port, AF_INET6, &a[0]);
	addr_to(peer, peer_port, AF_INET6, &a[1]);
	memcpy(words, a, sizeof(a));
	/* Not the monotonic clock: that begins anew with each guest. */
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint32_t)siphash(kept.secret, words, 8) +
	       (uint32_t)((uint64_t)now.tv_sec * 250000 + (uint64_t)now.tv_nsec / 4000);
}

/* ---- the rest ---- */

/* The entry of this kind (and address, if it is not NULL), or NULL. */
struct sc_kept_misc *kept_find_misc(uint32_t kind, const void *addr, size_t n)
{
	struct kept_table *t = &kept.table[SC_TABLE_NET_MISC];

	for (uint32_t i = 0; kept.on && i < t->count; i++) {
		struct sc_kept_misc *k = kept_entry(t, i);

		if (k->state == SC_KEPT_LIVE && k->kind == kind &&
		    (!addr || !memcmp(k->addr, addr, n)))
			return k;
	}
	return NULL;
}

static void put_misc(struct sc_kept_misc *old, uint32_t kind, uint32_t count, const void *addr,
		     size_t n)
{
	struct sc_kept_misc k = {.version = ++kept.version, .kind = kind, .count = count};

	if (n)
		memcpy(k.addr, addr, n);
	entry_put(&kept.table[SC_TABLE_NET_MISC], old, &k);
}

void kept_group(bool six, const void *addr, int change)
{
	uint32_t kind = six ? SC_KEPT_GROUP6 : SC_KEPT_GROUP4;
	size_t n = six ? 16 : 4;
	struct sc_kept_misc *k = kept_find_misc(kind, addr, n);
	uint32_t count = (k ? k->count : 0) + (uint32_t)change;

	if (count)
		put_misc(k, kind, count, addr, n);
	else
		kept_entry_free(&kept.table[SC_TABLE_NET_MISC], k);
}

void kept_lease(const uint32_t addr[3])
{
	put_misc(kept_find_misc(SC_KEPT_LEASE, NULL, 0), SC_KEPT_LEASE, 1, addr, 12);
}

/* The tap that an earlier incarnation made is ours to take away. */
void kept_device(struct port *t)
{
	if (kept_find_misc(SC_KEPT_TAP, NULL, 0))
		t->made = true;
	else if (t->made)
		put_misc(NULL, SC_KEPT_TAP, 1, NULL, 0);
}

void kept_secret(void)
{
	const struct sc_kept_misc *k = kept_find_misc(SC_KEPT_DOMAIN, NULL, 0);

	if (k) {
		memcpy(kept.secret, k->addr, sizeof(kept.secret));
		return;
	}
	if (getrandom(kept.secret, sizeof(kept.secret), 0) != sizeof(kept.secret))
		kept.secret[0] = (uint64_t)now_ns();
	put_misc(NULL, SC_KEPT_DOMAIN, 1, kept.secret, sizeof(kept.secret));
}
