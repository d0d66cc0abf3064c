/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel.h (broker) - the memory of one channel: a sealed memfd and the broker's view of its first
 * page.
 *
 * The memfd cannot change its size (so that nobody who maps it gets SIGBUS by another's doing),
 * cannot be executed where the kernel can forbid that, and its seals are final. It is given to one
 * process and one domain and never used again: a channel is freed, never cleaned.
 */
#ifndef VHOST_SC_BROKER_CHANNEL_H
#define VHOST_SC_BROKER_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include <vhost-sc/channel.h>

struct channel {
	int memfd; /* -1: none */
	struct sc_channel_host *host;
	size_t mapped; /* bytes at `host` */
};

/* A channel that is none. */
#define CHANNEL_NONE ((struct channel){.memfd = -1})

/* What memory is taken from. */
struct memory_kind {
	bool huge; /* 2 MiB pages */
	int node; /* the NUMA node that is asked first, whoever touches a page first; -1: the toucher's */
};

/* Makes a sealed memfd of `size` bytes. Returns it, or -errno (huge: -ENOMEM if there are no 2 MiB
 * pages). A node that cannot be asked is logged, and does without. */
int memfd_sealed(const char *name, uint64_t size, struct memory_kind kind);

/* Makes a channel with this layout. Returns 0, or -errno; on failure *c is CHANNEL_NONE. */
int channel_create(struct channel *c, const struct sc_layout *l, struct memory_kind kind);

/* Takes over a channel's memfd after a restart of the broker. Returns 0 or -errno. */
int channel_adopt(struct channel *c, int memfd, const struct sc_layout *l, bool huge);

/* Writes the numbers that people and tools find in the host page. */
void channel_label(struct channel *c, uint32_t session, uint32_t slot);

/* Tells the process's threads which incarnation serves; 0: none. */
void channel_set_incarnation(struct channel *c, uint32_t incarnation);

/* Unmaps and closes. */
void channel_close(struct channel *c);

/* Has SIGBUS on any page mapped here answered with a page of zeros: a process can take pages out of
 * its memfd (hole punching), and if none is left to put back, the broker must not be the one that
 * dies. */
void channel_guard_init(void);

#endif
