/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * logrec.h - records of the log (vhost-sc/state.h), as their writer (retain.c) and their reader (replay.c) agree on them.
 * Pure functions on memory, no state; any thread.
 */
#ifndef SC_AGENT_LOGREC_H
#define SC_AGENT_LOGREC_H

#include <stdbool.h>
#include <stdint.h>

#include "vhost-sc/state.h"

/* What `check` has to be: of a record whose header and names are filled. Before it is INTENT, and ever after. */
uint32_t logrec_check(const struct sc_log_rec *rec);

/* What `done_check` has to be: of a record whose change was made, with all fields as they became. 0 for most kinds. */
uint64_t logrec_done_check(const struct sc_log_rec *rec);

/* What `again_check` has to be, with obj2 as it is. Never 0. */
uint64_t logrec_again_check(const struct sc_log_rec *rec);

/* What `check` of the log's header has to be. */
uint32_t logrec_header_check(const struct sc_log *log);

/*
 * The header of a log that lies in `size` bytes: NULL if it is sound, otherwise what is wrong with it (a text that is never
 * freed). head, synced and tail are read once, with acquire order, into what is pointed at.
 */
const char *logrec_header(const struct sc_log *log, uint64_t size, uint64_t *head, uint64_t *synced,
			  uint64_t *tail);

/*
 * The record at offset `at`, which is below `tail`, of a sound log. NULL with *wrong: it is none, or damaged. The kind is a
 * known one or PAD, the whole lies within the ring and below tail, names are single components and data are within. Of a
 * PAD or EMPTY record only seq and len are checked.
 */
struct sc_log_rec *logrec_at(struct sc_log *log, uint64_t at, uint64_t tail, const char **wrong);

/* A name that can be that of a directory's entry: 1 to 255 bytes, no '/' and no NUL, neither "." nor "..". */
bool logrec_name_ok(const uint8_t *name, uint32_t len);

#endif
