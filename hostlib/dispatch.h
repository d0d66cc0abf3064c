/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dispatch.h - from a call's number to the function that serves it.
 *
 * Every call that may concern a remote file has one line in call-list.h: its number, how the dispatcher finds out that it
 * is local, and its handler. A number that has no line there never comes to us (sc_dispatch_bitmap). To serve one more
 * call: write its handler in a calls_*.c file and add its line.
 */
#ifndef HOSTLIB_DISPATCH_H
#define HOSTLIB_DISPATCH_H

#include <stdint.h>

#include "intercept.h"
#include "syscall-nr.h"

struct sc_file;

/* One call of the program. */
struct sc_call {
	long nr;
	long a[6];
	struct sc_file *
	    file; /* SC_K_FD, SC_K_FD1: the remote file that the descriptor names; else NULL. It may be
				 closed by another thread at any time; the object stays readable (fdtable.h) */
};

/* How a call-list.h line says what is looked at before the handler is called. */
enum sc_kind {
	SC_K_NONE = 0,
	SC_K_FD,  /* a[0] is a descriptor: a local one runs natively without asking the handler */
	SC_K_FD1, /* a[1] is a descriptor, likewise (none today but sync-like calls need it) */
	SC_K_ANY, /* the handler is always asked */
};

/*
 * Serves one call. Returns the program's result (value or -errno), or SC_NATIVE / SC_NATIVE_CHANGED (intercept.h). Runs
 * with in_call == 1; must not run a local call that may block.
 */
typedef long sc_handler(struct sc_thread *t, const struct sc_call *c);

#define SC_CALL(number, kind, handler)	   sc_handler handler;
#define SC_CALL_NET(number, kind, handler) sc_handler handler;
#include "call-list.h"
#undef SC_CALL
#undef SC_CALL_NET

/* Fills sc_dispatch_bitmap from the list. */
void sc_dispatch_init(void);

/* Runs the call natively but with other arguments: fills t->native from *c (the caller then changes single arguments in
 * t->native.a) and returns SC_NATIVE_CHANGED. `after` may be NULL. */
long sc_native_changed(struct sc_thread *t, const struct sc_call *c,
		       long (*after)(struct sc_thread *t, long result));

/* The handler of a number, or NULL; for code that serves one call by way of another. */
sc_handler *sc_handler_of(long nr);

#endif
