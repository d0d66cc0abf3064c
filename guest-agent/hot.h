/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hot.h - reads of files that are in the page cache, from a mapping of it: one cheap system call instead of a read.
 *
 * A handle from which the poller has read HOT_AFTER times without having to wait gets a mapping of its file. From then on
 * positioned reads copy from there. A mapping shows what the page cache has, like read(2), at every moment; what it
 * does not tell is where the file ends, so that is asked first. What can go wrong:
 *
 *   the file is cut off meanwhile    SIGBUS, which ends the copy; the read is done the ordinary way then
 *   the pages have left the cache    the copy waits for the disk: so it is done only where a poller may block (relay.h)
 *   the file has grown               what lies behind the mapping's end is read the ordinary way
 *   the time of access               is not kept by mappings: every HOT_OTHERWISEth read is an ordinary one
 */
#ifndef SC_AGENT_HOT_H
#define SC_AGENT_HOT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct handle;

#define HOT_AFTER     16u
#define HOT_OTHERWISE 256u
#define HOT_MAX_BYTES (64ull << 30) /* larger files are not mapped */
#define HOT_MAX_MAPS  1024u	    /* of all handles: each takes a descriptor and a mapping */

struct hot;

/* Once, before threads: SIGBUS in hot_read() ends that copy. */
void hot_init(void);

/* A read was served from the page cache. Maps the file when it is time to. Any thread that holds a user of h. */
void hot_note(struct handle *h);

/* Is there a mapping that holds len bytes from `off` on? */
bool hot_covers(struct handle *h, uint64_t off, uint32_t len);

/*
 * Reads as pread(2) would into the arena; `past_cache` as copy.h has it. Returns the count, or -1: read it the ordinary way. May
 * block. Only if hot_covers().
 */
ssize_t hot_read(struct handle *h, void *to, uint64_t off, uint32_t len, bool past_cache);

/* Takes the mapping away. For handle_reap(): nobody uses h. */
void hot_drop(struct handle *h);

#endif
