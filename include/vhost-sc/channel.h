/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel.h - the memory that one host process and one service domain share.
 *
 * A channel is a sealed memfd made by the broker. It holds, in this order:
 *
 *   offset 0            struct sc_channel_host     one page, written by the host side alone
 *   4096                struct sc_channel_guest    one page, written by the agent alone
 *   lanes_off           struct sc_lane[nlanes]     256 bytes each: two host lines, two guest lines
 *   slots_off           struct sc_slot[nlanes][entries]   64 bytes each, written by the host
 *   cqes_off            struct sc_cqe[nlanes][entries]    16 bytes each, written by the agent
 *   arena_off..size     the arena: bytes, written by both (who may write what follows from each operation)
 *
 * A lane is a pair of rings with one producer thread on the host and one poller in the guest:
 *
 *   host:  write slots[tail % depth], then store-release lane.tail = tail + 1
 *   agent: load-acquire lane.tail; copy slots out; check; execute; write cqes[done % depth], then store-release
 *          lane.done = done + 1. Completions may come in another order than requests; sc_cqe.tag tells which.
 *   host:  load-acquire lane.done; copy cqes out.
 *
 * Indices are free-running 32-bit counters. The host may have at most `depth` requests that are published and not yet
 * completed, and must not reuse the slot of a request that is not completed (the agent of a later incarnation finds it
 * there). A request's tag is its index: the tail before it was published.
 *
 * What pends when an agent dies the next one finds so: of the requests [tail - depth, tail) those whose slot has their tag, is
 * not marked SC_SLOT_TAKEN, and whose tag is not among the last `depth` completions. For that to be exact a host that takes
 * a completion which came before its turn (its tag is larger than its own index) marks the request's slot: it stores
 * SC_SLOT_TAKEN as its op. A completion in its turn, or after it, is still among the last `depth` as long as its request is among
 * the last `depth`. Both sides poll lines that the other side writes once per publication (tail, done), never the slots: every
 * early look at a line that is about to be written costs its writer a transfer (docs/architecture.md).
 *
 * Sleeping (event suppression as virtio's):
 *   the agent: stores guest.asleep = 1, full fence, looks at the tails once more, sleeps until its doorbell. The host,
 *     after storing a tail: full fence, load guest.asleep; if set, rings the doorbell (writes its eventfd).
 *   the host: stores lane.host_asleep = 1, full fence, looks at lane.done once more, sleeps on the eventfd. The agent,
 *     after storing done: full fence, load lane.host_asleep; if set, rings.
 *
 * Trust: the layout's numbers are told to each side by the broker (attach.h, control.h). The copies in
 * sc_channel_host are for people and tools; neither side relies on them. All fields are little-endian (x86-64 only
 * today); all reserved fields are zero when written and ignored when read.
 *
 * Versions: SC_ABI_VERSION changes when something here or in ops.h changes its meaning; what can be added compatibly has
 * a feature bit, negotiated per channel (SC_F_*).
 */
#ifndef VHOST_SC_CHANNEL_H
#define VHOST_SC_CHANNEL_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define SC_ABI_VERSION	 2
#define SC_CHANNEL_MAGIC 0x31484353u /* "SCH1" */

/* Feature bits, offered by the broker (what agent and broker can), accepted by the process. */
#define SC_F_SEGMENTS (1ull << 0) /* shared segments: SC_ATTACH_SEGMENT, SC_MSG_SEGMENT */
#define SC_F_OBJECTS  (1ull << 1) /* file objects: SC_OP_MAP, SC_ATTACH_OBJECT, SC_MSG_OBJECT */
#define SC_F_RECOVERY (1ull << 2) /* what is open outlives the agent: state.h, SC_MSG_RESUMED */
#define SC_FEATURES   (SC_F_SEGMENTS | SC_F_OBJECTS | SC_F_RECOVERY)

#define SC_LINE		   64u
#define SC_PAGE		   4096u
#define SC_MAX_LANES	   512u
#define SC_MAX_ENTRIES	   256u /* slots per lane; a power of two */
#define SC_DEFAULT_LANES   128u
#define SC_DEFAULT_ENTRIES 256u
/* bytes of arena that belong to each lane; see struct sc_layout */
#define SC_LANE_BUF_SIZE    (64u * 1024u)
#define SC_MIN_CHANNEL_SIZE (1u << 20)
#define SC_MAX_CHANNEL_SIZE (1u << 30)
#define SC_DEFAULT_CHANNEL  (16u << 20)

/*
 * Where things lie in a channel. Computed by the broker with sc_layout_init() and told to both sides. The arena starts
 * with one buffer of SC_LANE_BUF_SIZE bytes per lane (lane i: arena_off + i * SC_LANE_BUF_SIZE), for small data and
 * paths, and the rest (pool_off..size) is shared by the process as it likes. That split is the host's affair: the agent
 * accepts any range inside the arena.
 */
struct sc_layout {
	uint32_t size;	    /* bytes, whole channel; a power of two */
	uint32_t nlanes;    /* 1..SC_MAX_LANES */
	uint32_t entries;   /* slots allocated per lane; a power of two, 2..SC_MAX_ENTRIES */
	uint32_t lanes_off; /* offsets in bytes from the channel's start */
	uint32_t slots_off;
	uint32_t cqes_off;
	uint32_t arena_off;
	uint32_t pool_off;
};
static_assert(sizeof(struct sc_layout) == 32, "wire");

/* Host page. Written by broker (at creation, and `incarnation`) and process; the agent only reads. */
struct sc_channel_host {
	uint32_t magic; /* SC_CHANNEL_MAGIC */
	uint32_t abi;	/* SC_ABI_VERSION */
	struct sc_layout layout;
	uint32_t session; /* as told by the broker; never reused within a domain's life */
	uint32_t slot;	  /* window slot, 1-based */
	uint8_t pad0[16];
	/* line 1: the domain's incarnation that serves this channel now; 0: none (the VM is down). Stored (release) by
	 * the broker; waiting threads look at it (acquire) when they have spun long. */
	uint32_t incarnation;
	uint8_t pad1[60];
	/* lines 2..9: bit i set: lane i is in use and to be polled. Set (release) by the process after it has written
	 * the lane's `depth_log2`; cleared when the lane has nothing pending. The agent rereads the bitmap when a
	 * doorbell rings or `lanes_gen` changes. */
	uint32_t lanes_gen; /* line 2; incremented (release) after each change of the bitmap */
	uint8_t pad2[60];
	uint64_t lanes[SC_MAX_LANES / 64];
	uint8_t pad3[SC_PAGE - 256];
};
static_assert(sizeof(struct sc_channel_host) == SC_PAGE, "wire");
static_assert(offsetof(struct sc_channel_host, incarnation) == 64, "wire");
static_assert(offsetof(struct sc_channel_host, lanes_gen) == 128, "wire");
static_assert(offsetof(struct sc_channel_host, lanes) == 192, "wire");

/* Guest page. Written by the agent; the process only reads, and believes nothing. */
struct sc_channel_guest {
	/* line 0: 1 while the channel's poller sleeps: ring the doorbell after publishing */
	uint32_t asleep;
	uint8_t pad0[60];
	/* line 1: incremented (relaxed) by the poller at least every 100 ms while calls pend */
	uint64_t heartbeat;
	uint32_t incarnation; /* the incarnation of the agent that polls */
	uint8_t pad1[52];
	uint8_t pad2[SC_PAGE - 128];
};
static_assert(sizeof(struct sc_channel_guest) == SC_PAGE, "wire");

/* Four lines per lane: host publication, host control, guest publication, guest control. */
struct sc_lane {
	/* line 0, written by the host, polled by the agent */
	uint32_t tail; /* requests published; release/acquire */
	uint8_t pad0[60];
	/* line 1, written by the host, read by the agent when it completes */
	uint32_t host_asleep; /* 1 while a thread sleeps for this lane's done index */
	uint32_t
	    depth_log2; /* the ring's size in use, 2^1 .. entries; constant while the lane is in use. The agent
				 reads it once when it sees the lane's bit set, and checks it */
	uint8_t pad1[56];
	/* line 2, written by the agent, polled by the host */
	uint32_t done; /* completions published; release/acquire */
	uint8_t pad2[60];
	/* line 3, written by the agent: what a later incarnation needs */
	uint32_t head; /* requests fetched (relaxed) */
	uint8_t pad3[60];
};
static_assert(sizeof(struct sc_lane) == 256, "wire");
static_assert(offsetof(struct sc_lane, done) == 128, "wire");

/* A request: one cache line. What each operation reads from it stands in ops.h. */
struct sc_slot {
	uint16_t op;	 /* enum sc_op */
	uint16_t flags;	 /* SC_SLOT_F_* */
	uint32_t tag;	 /* the request's index; echoed in the completion */
	uint64_t handle; /* object, or base directory of a path */
	uint64_t off;	 /* file offset or other 64-bit argument */
	/* first buffer: offset from the channel's start; must lie in the arena */
	uint32_t buf;
	uint32_t len;  /* its length in bytes */
	uint32_t buf2; /* second buffer, likewise */
	uint32_t len2;
	uint64_t arg0;
	uint64_t arg1;
	uint64_t arg2;
};
static_assert(sizeof(struct sc_slot) == 64, "one cache line");

#define SC_SLOT_TAKEN 0xffffu /* op of a slot whose request was completed and taken */

/* A completion. */
struct sc_cqe {
	uint32_t tag;
	uint32_t flags; /* SC_CQE_F_* */
	int64_t res;	/* >= 0, or -errno (Linux numbers) */
};
static_assert(sizeof(struct sc_cqe) == 16, "four to a line");

/* Fills *l for a channel of `size` bytes. Returns 0, or -1 if the numbers do not fit (no arena left, not powers of two,
 * out of range). Pure function; used by broker and tests. */
static inline int sc_layout_init(struct sc_layout *l, uint32_t size, uint32_t nlanes,
				 uint32_t entries)
{
	uint64_t off = 2 * SC_PAGE;

	if (size < SC_MIN_CHANNEL_SIZE || size > SC_MAX_CHANNEL_SIZE || (size & (size - 1)))
		return -1;
	if (nlanes < 1 || nlanes > SC_MAX_LANES)
		return -1;
	if (entries < 2 || entries > SC_MAX_ENTRIES || (entries & (entries - 1)))
		return -1;
	l->size = size;
	l->nlanes = nlanes;
	l->entries = entries;
	l->lanes_off = (uint32_t)off;
	off += (uint64_t)nlanes * sizeof(struct sc_lane);
	off = (off + SC_PAGE - 1) & ~(uint64_t)(SC_PAGE - 1);
	l->slots_off = (uint32_t)off;
	off += (uint64_t)nlanes * entries * sizeof(struct sc_slot);
	l->cqes_off = (uint32_t)off;
	off += (uint64_t)nlanes * entries * sizeof(struct sc_cqe);
	off = (off + SC_PAGE - 1) & ~(uint64_t)(SC_PAGE - 1);
	l->arena_off = (uint32_t)off;
	off += (uint64_t)nlanes * SC_LANE_BUF_SIZE;
	if (off > size)
		return -1;
	l->pool_off = (uint32_t)off;
	return 0;
}

/* True if *l is one that sc_layout_init() makes: what a receiver checks before it uses a layout. */
static inline int sc_layout_valid(const struct sc_layout *l)
{
	struct sc_layout want;

	return sc_layout_init(&want, l->size, l->nlanes, l->entries) == 0 &&
	       want.lanes_off == l->lanes_off && want.slots_off == l->slots_off &&
	       want.cqes_off == l->cqes_off && want.arena_off == l->arena_off &&
	       want.pool_off == l->pool_off;
}

/* True if [buf, buf + len) lies inside the arena. len = 0 is always inside. */
static inline int sc_layout_in_arena(const struct sc_layout *l, uint32_t buf, uint32_t len)
{
	return len == 0 || (buf >= l->arena_off && buf < l->size && len <= l->size - buf);
}

#endif
