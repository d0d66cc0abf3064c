/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dispatch.c - the table behind call-list.h, and sc_dispatch().
 */
#include <asm/unistd.h>
#include <errno.h>
#include <string.h>

#include "dispatch.h"
#include "fdtable.h"
#include "net.h"
#include "process.h"
#include "trace.h"

#define TABLE_SIZE 512

struct entry {
	sc_handler *handler;
	enum sc_kind kind;
	bool net; /* looked at only if there are network routes */
};

#define SC_CALL(number, k, h)	  [number] = {.handler = (h), .kind = (k)},
#define SC_CALL_NET(number, k, h) [number] = {.handler = (h), .kind = (k), .net = true},
static const struct entry table[TABLE_SIZE] = {
#include "call-list.h"
};
#undef SC_CALL
#undef SC_CALL_NET

uint64_t sc_dispatch_bitmap[8];

void sc_dispatch_init(void)
{
	for (int nr = 0; nr < TABLE_SIZE; nr++)
		if (table[nr].handler && (!table[nr].net || sc_nnetroutes))
			sc_dispatch_bitmap[nr / 64] |= 1ull << (nr % 64);
}

sc_handler *sc_handler_of(long nr)
{
	return nr >= 0 && nr < TABLE_SIZE ? table[nr].handler : NULL;
}

long sc_native_changed(struct sc_thread *t, const struct sc_call *c,
		       long (*after)(struct sc_thread *t, long result))
{
	t->native.nr = c->nr;
	memcpy(t->native.a, c->a, sizeof(t->native.a));
	t->native.after = after;
	return SC_NATIVE_CHANGED;
}

static long traced(struct sc_thread *t, const struct sc_call *c, sc_handler *handler)
{
	struct sc_trace tr;
	long res;

	sc_trace_begin(t, &tr);
	res = handler(t, c);
	sc_trace_end(t, &tr, c, res);
	return res;
}

long sc_dispatch(struct sc_thread *t, long nr, long a0, long a1, long a2, long a3, long a4, long a5)
{
	struct sc_call c = {.nr = nr, .a = {a0, a1, a2, a3, a4, a5}};
	const struct entry *e;

	if (nr < 0 || nr >= TABLE_SIZE)
		return SC_NATIVE;
	e = &table[nr];
	switch (e->kind) {
	case SC_K_NONE:
		return SC_NATIVE;
	case SC_K_FD:
	case SC_K_FD1:
		c.file = sc_fd_any(t, (int)(e->kind == SC_K_FD ? a0 : a1));
		if (!c.file)
			return SC_NATIVE;
		if (__atomic_load_n(&c.file->kind, __ATOMIC_RELAXED) != SC_KIND_FILE)
			return sc_net_dispatch(t, &c);
		break;
	case SC_K_ANY:
		break;
	}
	if (__builtin_expect(sc_tracing, false))
		return traced(t, &c, e->handler);
	return e->handler(t, &c);
}
