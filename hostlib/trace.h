/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * trace.h - scrun --trace: a line for each call that a domain had a part in; scrun --stats: counters at a process's end.
 */
#ifndef HOSTLIB_TRACE_H
#define HOSTLIB_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatch.h"

/* Tracing is on; constant after start. */
extern bool sc_tracing;

/* One call under way. */
struct sc_trace {
	uint64_t ns;	 /* CLOCK_REALTIME at its begin */
	uint64_t remote; /* requests of this thread so far */
};

/* Around the call: begin before it; end prints it if requests were made, or if it was answered here (`served`). */
void sc_trace_begin(struct sc_thread *t, struct sc_trace *tr);
void sc_trace_end(struct sc_thread *t, const struct sc_trace *tr, const struct sc_call *c,
		  long res);

/* While tracing: says that an option of a socket is not known. */
void sc_trace_option(const char *call, int level, int name);

/* What VHOST_SC_TRACE and VHOST_SC_STATS say (NULL: not set). At start. */
void sc_report_setup(const char *trace, const char *stats);
/* Opens what is printed to: at start. */
void sc_report_open(void);
/* In a forked child: counters begin anew, descriptors are kept (sc_report_fds()). */
void sc_report_fds(int fds[2]);
/* One of our descriptors has another number now. */
void sc_report_moved(int from, int to);
/* Prints what was served where; to be called at the end if --stats was given (sc_stats_wanted; constant after start). */
void sc_stats_at_exit(void);
extern bool sc_stats_wanted;
/* Value of VHOST_SC_TRACE for the next program, or NULL. */
const char *sc_trace_target(void);

#endif
