/* SPDX-License-Identifier: BSD-3-Clause */
/* kept-priv.h - what kept.c (writing) and restore.c (reading) share of the tables. */
#ifndef SC_NET_KEPT_PRIV_H
#define SC_NET_KEPT_PRIV_H

#include "kept.h"

#include "../crc32c.h"
#include "../segments.h"
#include "../tables.h"

/* How every entry begins. */
struct kept_head {
	uint32_t state; /* enum sc_kept_state */
	uint32_t check;
};

struct kept_table {
	uint8_t *base; /* in the segment */
	uint32_t count;
	uint32_t nfree;
	uint32_t *free; /* indices of free entries, a stack */
	bool full;	/* the log has its line */
};

struct kept {
	bool on;   /* there is memory to keep things in */
	bool lost; /* what was kept was of no use */
	struct tables tables;
	struct kept_table table[SC_TABLE_KINDS];
	uint64_t version;      /* of the entry that was written last */
	uint32_t conn_version; /* likewise, of connections */
	uint64_t secret[2];    /* of initial sequence numbers */
	bool has_isn;	       /* the next one is `isn` */
	uint32_t isn;
};

extern struct kept kept;

/* Opens the tables, or makes them. 1: there were some; 0: there is nothing to be restored; -ENOMEM. */
int kept_open(struct agent *agent);
void *kept_entry(const struct kept_table *t, uint32_t i);
bool kept_entry_valid(const struct kept_table *t, const void *entry);
void kept_entry_free(struct kept_table *t, void *entry);
/* The pcb's entry, freed with it. */
void kept_hang(struct tcp_pcb *pcb, void *conn);
void kept_device(struct port *t);
/* Takes the domain's secret, or makes one. */
void kept_secret(void);
struct sc_kept_misc *kept_find_misc(uint32_t kind, const void *addr, size_t n);

#endif
