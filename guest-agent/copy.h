/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * copy.h - data into the arena, past the cache.
 *
 * The arena's lines were read last by the host's CPU. An ordinary store (the kernel's too, when read(2) is given an address in
 * the arena) waits until that CPU gives the line up, a few at a time: 2 to 6 GB/s where the copy itself would make 20. Stores
 * past the cache do not wait. So where the caller says that it copies the data out (SC_READ_COPIED), file data is read into
 * memory of the thread's own first, a piece that its cache holds, and goes from there to the arena. Where the caller does not,
 * the lines stay with this CPU, and the detour would be for nothing.
 */
#ifndef SC_AGENT_COPY_H
#define SC_AGENT_COPY_H

#include <stdbool.h>
#include <stddef.h>

#define COPY_PIECE (64u * 1024u) /* bytes read at a time on such a way */
#define COPY_MIN   (32u * 1024u) /* less stays in the caches, and is there sooner */

/* Whether the detour pays here: not where the processor is emulated and has no cache to speak of. */
bool copy_pays(void);

/* Copies n bytes to shared memory; visible before anything that this thread stores later. Any alignment. */
void copy_to_arena(void *to, const void *from, size_t n);

#endif
