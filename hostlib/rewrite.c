/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rewrite.c - sites: the slots of those that are known, and the rewriting of those that are used
 * often.
 *
 * What is replaced. Of a site, only the one instruction before `syscall`: by a jump to a
 * trampoline, which does what that instruction did and enters the library. The `syscall` stays, so
 * a branch straight to it still traps, and so does a thread that stood between the two. Since a
 * single instruction is replaced, nothing can branch into its middle, and no analysis of branches
 * is needed; what has to be certain is that it is an instruction, and that it may be moved. It is
 * when a walk from the start of its function, as .eh_frame states it, arrives at it.
 *   Five bytes are needed for the jump. `mov $number,%eax` has them, and so has every fifth of the
 * others. A shorter one
 * (`xor %eax,%eax` of read) gets a two-byte jump to a hole nearby: padding that nothing reaches,
 * behind a ret or a jmp, or between two functions; the hole takes the long jump.
 *
 * When. A site that has trapped a few times is rewritten, and with it all sites of the same page:
 * many processes end before a site is worth it, and looking at all of libc at each exec would cost
 * more than it saves.
 *
 * How. No page is ever writable where it is executable. A private copy of the code page is made
 * elsewhere, changed, made executable, and moved over the original by mremap, at once for all
 * threads. Each changed page has a page of trampolines of its own. Both are taken from an arena
 * near the object, of pages that are writable until they are used. Only pages of objects that the
 * dynamic loader knows are replaced. Generated code is left to Syscall User Dispatch: it may have a
 * second, writable mapping.
 */
#include "insn.h"
#include "intercept-priv.h"

#ifndef HOT
#define HOT \
	12 /* traps in a page after which it is rewritten, which costs about as much as so many */
#endif
#define PAGE_COUNTERS 1024 /* direct-mapped; pages that collide begin anew */

#define PROT_READ	    1
#define PROT_WRITE	    2
#define PROT_EXEC	    4
#define MAP_PRIVATE	    2
#define MAP_ANONYMOUS	    0x20
#define MAP_NORESERVE	    0x4000
#define MAP_FIXED_NOREPLACE 0x100000
#define MREMAP_MOVE_FIXED   3

#define PT_LOAD		1
#define PT_DYNAMIC	2
#define PT_PHDR		6
#define PT_GNU_EH_FRAME 0x6474e550
#define PF_X		1
#define PF_W		2
#define DT_DEBUG	21

#define MAX_OBJECTS    256
#define MAX_ARENAS     32
#define ARENA_SIZE     (256 * SC_PAGE)
#define MAX_SITES      96 /* in one page */
#define MAX_HOLES      64
#define MAX_FUNCTION   (1UL << 20) /* a walk gives up beyond that */
#define MAX_TRAMPOLINE 40
#define JUMP_REACH     0x7fff0000L /* of a rel32, with a margin */
#define PROBES	       16	   /* slots tried per site */

struct phdr {
	uint32_t type, flags;
	uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

struct link_map {
	uint64_t addr;
	const char *name;
	void *dynamic;
	struct link_map *next;
};

struct r_debug {
	int version;
	struct link_map *map;
	uint64_t brk;
	int state;
};

/* An object of the program: its code, and where its functions start. */
struct object {
	uint64_t
	    base; /* load bias, as in the link map; 0 for a program linked to a fixed address */
	uint64_t text, text_end;
	uint64_t eh_hdr; /* .eh_frame_hdr; 0: none usable */
	uint32_t functions;
};

/* One entry of .eh_frame_hdr's sorted table; both relative to the header's start. */
struct eh_entry {
	int32_t start;
	int32_t fde;
};

/*
 * Trampolines are taken from its bottom, so that they lie together (one mapping for the kernel to copy in each fork);
 * copies, which move away, from its top.
 */
struct arena {
	uint64_t base;
	uint32_t used; /* bytes of trampolines, and as many of copies */
};

/* Traps in one page of code. Updated without a lock: a lost count is no harm. */
struct page_counter {
	uint32_t page; /* low bits of its number */
	uint32_t traps;
};

struct site {
	uint16_t insn, syscall; /* offsets in the page: the instruction before, and the syscall */
	struct sc_insn decoded; /* of the instruction before */
};

struct hole {
	uint16_t at, length;
};

/* What a walk over a page finds. */
struct page_plan {
	uint64_t page;
	uint32_t nr_sites, nr_holes;
	struct site sites[MAX_SITES];
	struct hole holes[MAX_HOLES];
	uint8_t target[SC_PAGE / 8]; /* direct branches lead here */
};

uint64_t sc_slot_ret[SC_SLOTS];

static struct page_counter counters[PAGE_COUNTERS];
static uint8_t slot_seen[SC_SLOTS]; /* the slot's site was looked at: rewritten, or left for good */
static uint32_t rewrite_lock;
static struct object objects[MAX_OBJECTS];
static uint32_t nr_objects;
static struct arena arenas[MAX_ARENAS];
static uint32_t nr_arenas;
static const struct phdr *main_phdr;
static uint64_t main_phnum;

/* ---- slots ---- */

static uint64_t slot_address(uint32_t i)
{
	return (uint64_t)sc_slots + ((uint64_t)i << SC_SLOT_SHIFT);
}

static uint32_t slot_index(uint64_t slot)
{
	return (uint32_t)((slot - (uint64_t)sc_slots) >> SC_SLOT_SHIFT);
}

uint64_t sc_slot_for(uint64_t ret)
{
	uint32_t i = (uint32_t)((ret * 0x9e3779b97f4a7c15UL) >> 40);

	for (uint32_t n = 0; n < PROBES; n++) {
		uint64_t *at = &sc_slot_ret[(i + n) % SC_SLOTS];
		uint64_t seen = __atomic_load_n(at, __ATOMIC_RELAXED);

		if (!seen && __atomic_compare_exchange_n(at, &seen, ret, 0, __ATOMIC_RELAXED,
							 __ATOMIC_RELAXED))
			return slot_address((i + n) % SC_SLOTS);
		if (seen == ret)
			return slot_address((i + n) % SC_SLOTS);
	}
	return (uint64_t)sc_slot_on_stack;
}

bool sc_page_hot(uint64_t ret, uint64_t slot)
{
	uint32_t page = (uint32_t)(ret / SC_PAGE);
	struct page_counter *c = &counters[(page * 0x9e3779b1u) >> 22];

	if (sc_no_rewriting || slot_seen[slot_index(slot)])
		return false;
	if (c->page != page)
		*c = (struct page_counter){.page = page};
	if (++c->traps < HOT)
		return false;
	slot_seen[slot_index(slot)] = 1;
	return true;
}

/* ---- objects ---- */

/* The sorted table of an .eh_frame_hdr, if it is of the one kind that linkers make for x86-64. */
static void read_eh_hdr(struct object *o, uint64_t at)
{
	uint8_t head[12];

	if (sc_copy_from_user(head, (const void *)at, sizeof(head)))
		return;
	/* version, pointer to .eh_frame: pcrel sdata4, count: udata4, table: datarel sdata4 */
	if (head[0] != 1 || head[1] != 0x1b || head[2] != 0x03 || head[3] != 0x3b)
		return;
	o->eh_hdr = at;
	o->functions = *(const uint32_t *)(head + 8);
}

static void add_object(uint64_t base, const struct phdr *ph, uint64_t n)
{
	struct object o = {.base = base};
	uint64_t eh = 0;

	for (uint64_t i = 0; i < n; i++) {
		if (ph[i].type == PT_GNU_EH_FRAME)
			eh = base + ph[i].vaddr;
		if (ph[i].type != PT_LOAD || (ph[i].flags & (PF_X | PF_W)) != PF_X || o.text)
			continue;
		o.text = base + ph[i].vaddr;
		o.text_end = o.text + ph[i].filesz;
	}
	if (!o.text || o.text == sc_text_start || nr_objects == MAX_OBJECTS)
		return;
	if (eh)
		read_eh_hdr(&o, eh);
	objects[nr_objects++] = o;
}

/* A library of the link map. Its headers are read with care: another thread may be unloading it. */
static void add_library(uint64_t base)
{
	uint8_t header[64];
	struct phdr ph[16];
	uint64_t off;
	uint16_t n;

	if (sc_copy_from_user(header, (const void *)base, sizeof(header)))
		return;
	off = *(const uint64_t *)(header + 32);
	n = *(const uint16_t *)(header + 56);
	if (*(const uint32_t *)header != 0x464c457f || off > SC_PAGE || n > 16)
		return;
	if (!sc_copy_from_user(ph, (const void *)(base + off), n * sizeof(ph[0])))
		add_object(base, ph, n);
}

static uint64_t main_base(void)
{
	for (uint64_t i = 0; i < main_phnum; i++)
		if (main_phdr[i].type == PT_PHDR)
			return (uint64_t)main_phdr - main_phdr[i].vaddr;
	return 0;
}

static const struct r_debug *loader_debug(void)
{
	uint64_t base = main_base();

	for (uint64_t i = 0; i < main_phnum; i++) {
		if (main_phdr[i].type != PT_DYNAMIC)
			continue;
		for (const uint64_t *d = (const uint64_t *)(base + main_phdr[i].vaddr); d[0];
		     d += 2)
			if (d[0] == DT_DEBUG)
				return (const struct r_debug *)d[1];
	}
	return NULL;
}

/*
 * Goes through the link map: looks for one entry, or (base 0) learns all of them. Other threads may
 * change the list meanwhile; the loader says when it is in one piece, and each read may fault
 * without harm. Returns true if found.
 */
static bool walk_link_map(uint64_t base)
{
	const struct r_debug *debug = loader_debug();
	struct link_map map;

	if (!debug || debug->state) /* 0: consistent */
		return false;
	map.next = debug->map;
	for (int n = 0; map.next && n < 4 * MAX_OBJECTS; n++) {
		if (sc_copy_from_user(&map, map.next, sizeof(map)))
			return false;
		if (base && map.addr == base)
			return true;
		if (!base && map.addr && map.addr != main_base())
			add_library(map.addr);
	}
	return !base;
}

static const struct object *known_object(uint64_t address)
{
	for (uint32_t i = 0; i < nr_objects; i++)
		if (address >= objects[i].text && address < objects[i].text_end)
			return &objects[i];
	return NULL;
}

/* The object of the program that the code belongs to, or NULL. What lay there earlier may have been
 * unloaded. */
static const struct object *object_of(uint64_t address)
{
	const struct object *o = known_object(address);

	if (o && (o->base == main_base() || walk_link_map(o->base)))
		return o;
	nr_objects = 0;
	add_object(main_base(), main_phdr, main_phnum);
	walk_link_map(0);
	return known_object(address);
}

/* ---- walking ---- */

static bool in_page(const struct page_plan *p, uint64_t at)
{
	return at - p->page < SC_PAGE;
}

static void add_hole(struct page_plan *p, uint64_t at, uint64_t end)
{
	if (at < p->page)
		at = p->page;
	if (end > p->page + SC_PAGE)
		end = p->page + SC_PAGE;
	if (at >= end || end - at < 5 || p->nr_holes == MAX_HOLES)
		return;
	p->holes[p->nr_holes++] =
	    (struct hole){.at = (uint16_t)(at - p->page), .length = (uint16_t)(end - at)};
}

static void add_site(struct page_plan *p, uint64_t insn, uint64_t at, const struct sc_insn *decoded)
{
	if (!in_page(p, insn) || !in_page(p, at + 1))
		return;
	if (p->nr_sites == MAX_SITES)
		return;
	p->sites[p->nr_sites++] = (struct site){.insn = (uint16_t)(insn - p->page),
						.syscall = (uint16_t)(at - p->page),
						.decoded = *decoded};
}

/* One function, from its start to its end or to the page's. */
static void walk_function(struct page_plan *p, uint64_t at, uint64_t end)
{
	struct sc_insn insn;
	struct sc_insn before = {.kind = SC_INSN_OTHER};
	bool reached = true;
	uint64_t hole = 0;

	if (end > p->page + SC_PAGE + 16)
		end = p->page + SC_PAGE + 16;
	for (; at < end; at += insn.length, before = insn) {
		if (sc_insn_decode((const uint8_t *)at, end - at, &insn))
			break;
		if (!reached && insn.kind == SC_INSN_NOP) {
			hole = hole ? hole : at;
			continue;
		}
		if (hole)
			add_hole(p, hole, at);
		hole = 0;
		reached = true;
		if (insn.kind == SC_INSN_SYSCALL && at >= p->page && before.length)
			add_site(p, at - before.length, at, &before);
		if (insn.kind == SC_INSN_BRANCH && in_page(p, at + (uint64_t)insn.target)) {
			uint64_t t = at + (uint64_t)insn.target - p->page;

			p->target[t / 8] |= (uint8_t)(1 << (t % 8));
		}
		if (insn.kind == SC_INSN_END || insn.ends)
			reached = false;
	}
	if (hole && at >= end)
		add_hole(p, hole, end);
}

/* Bytes between two functions, if they are padding. */
static void walk_gap(struct page_plan *p, uint64_t at, uint64_t end)
{
	struct sc_insn insn;
	uint64_t start = at;

	if (end - at > 64 || at >= end)
		return;
	for (; at < end; at += insn.length)
		if (sc_insn_decode((const uint8_t *)at, end - at, &insn) ||
		    (insn.kind != SC_INSN_NOP && *(const uint8_t *)at != 0xcc))
			return;
	add_hole(p, start, end);
}

static const struct eh_entry *eh_table(const struct object *o)
{
	return (const struct eh_entry *)(o->eh_hdr + 12);
}

/* The length of a function: pc_range of its FDE, which must be encoded as usual (pcrel sdata4). 0:
 * it is not. */
static uint64_t function_length(const struct object *o, const struct eh_entry *e)
{
	const uint32_t *fde = (const uint32_t *)(o->eh_hdr + (uint64_t)(int64_t)e->fde);
	uint64_t start = o->eh_hdr + (uint64_t)(int64_t)e->start;
	uint64_t stated = (uint64_t)&fde[2] + (uint64_t)(int64_t)(int32_t)fde[2];

	if (fde[0] < 12 || fde[0] == 0xffffffff || stated != start)
		return 0;
	return fde[3];
}

/* The last function that starts at or before the address, or -1. */
static int64_t function_before(const struct object *o, uint64_t address)
{
	const struct eh_entry *t = eh_table(o);
	int64_t want = (int64_t)(address - o->eh_hdr);
	int64_t low = 0;
	int64_t high = o->functions;

	while (low < high) {
		int64_t mid = (low + high) / 2;

		if (t[mid].start <= want)
			low = mid + 1;
		else
			high = mid;
	}
	return low - 1;
}

/* Is there a byte pair 0f 05, the syscall instruction, in the part of the function that lies in the
 * page? */
static bool has_syscall(uint64_t page, uint64_t at, uint64_t end)
{
	const uint8_t *code = (const uint8_t *)page;
	uint64_t i = at < page ? 0 : at - page;
	uint64_t size = end > page + SC_PAGE ? SC_PAGE : end - page;

	for (; i + 1 < size; i++)
		/* Text is never at address 0, which the analyzer cannot know. */
		/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
		if (code[i] == 0x0f && code[i + 1] == 0x05)
			return true;
	return false;
}

/*
 * Walks over the functions that lie in the page, as .eh_frame states them: first those with system
 * calls; a second time, if holes are needed, over the others and over what lies between them.
 */
static void walk_page(const struct object *o, struct page_plan *p, bool others)
{
	const struct eh_entry *t = eh_table(o);
	int64_t i;

	if (!o->eh_hdr)
		return;
	i = function_before(o, p->page);
	for (i = i < 0 ? 0 : i; i < o->functions; i++) {
		uint64_t start = o->eh_hdr + (uint64_t)(int64_t)t[i].start;
		uint64_t length = function_length(o, &t[i]);
		uint64_t end = start + length;

		if (start >= p->page + SC_PAGE)
			return;
		if (!length || start >= o->text_end || length > o->text_end - start ||
		    (start < p->page && p->page - start > MAX_FUNCTION))
			continue;
		if (has_syscall(p->page, start, end) != others)
			walk_function(p, start, end);
		if (others && i + 1 < o->functions)
			walk_gap(p, end, o->eh_hdr + (uint64_t)(int64_t)t[i + 1].start);
	}
}

static bool needs_holes(const struct page_plan *p)
{
	for (uint32_t i = 0; i < p->nr_sites; i++)
		if (p->sites[i].decoded.length < 5)
			return true;
	return false;
}

/* The site that trapped, if no walk arrived at it: `mov $number,%eax` with the very number that it
 * trapped with. */
static void add_proven(struct page_plan *p, uint64_t ret, uint64_t nr)
{
	const uint8_t *code = (const uint8_t *)(ret - 7);
	struct sc_insn insn = {.length = 5, .kind = SC_INSN_PLAIN};

	for (uint32_t i = 0; i < p->nr_sites; i++)
		if (p->page + p->sites[i].syscall == ret - 2)
			return;
	if (!in_page(p, ret - 7) || code[0] != 0xb8 || *(const uint32_t *)(code + 1) != nr)
		return;
	add_site(p, ret - 7, ret - 2, &insn);
}

/* ---- writing ---- */

/* Maps an arena at `want`, if nothing is there. Its pages are writable until they are used, and
 * never again after. */
static bool arena_map(uint64_t want)
{
	long got =
	    sc_raw6(__NR_mmap, want, ARENA_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (got == (long)want) {
		arenas[nr_arenas++] = (struct arena){.base = want};
		return true;
	}
	if (got > 0) /* a kernel that takes the address for a hint */
		sc_raw2(__NR_munmap, got, ARENA_SIZE);
	return false;
}

static bool arena_make(uint64_t near)
{
	uint64_t base = near & ~(ARENA_SIZE - 1);

	if (nr_arenas == MAX_ARENAS)
		return false;
	/* Below the object first: above a program lies its heap, which has to grow. */
	for (uint64_t step = 1; step < 1024; step += step < 64 ? 1 : 61)
		if (base > (step + 1) * ARENA_SIZE && arena_map(base - step * ARENA_SIZE))
			return true;
	for (uint64_t step = 64; step < 1024; step += 61)
		if (arena_map(base + step * ARENA_SIZE))
			return true;
	return false;
}

/* Two fresh pages from which a jump reaches `near`, and back: *tramp and *copy. False: none. */
static bool arena_pages(uint64_t near, uint64_t *tramp, uint64_t *copy)
{
	for (uint32_t i = 0; i <= nr_arenas; i++) {
		struct arena *a = &arenas[i];
		int64_t distance;

		if (i == nr_arenas && !arena_make(near))
			return false;
		distance = (int64_t)(a->base - near);
		if (a->used == ARENA_SIZE / 2 || distance > JUMP_REACH || distance < -JUMP_REACH)
			continue;
		*tramp = a->base + a->used;
		a->used += SC_PAGE;
		*copy = a->base + ARENA_SIZE - a->used;
		return true;
	}
	return false;
}

static uint8_t *put_jump(uint8_t *out, uint64_t at, uint64_t to)
{
	int64_t distance = (int64_t)(to - (at + 5));

	if (distance < JUMP_REACH && distance > -JUMP_REACH) {
		out[0] = 0xe9;
		*(int32_t *)(out + 1) = (int32_t)distance;
		return out + 5;
	}
	out[0] = 0xff; /* jmp *0(%rip), then the address */
	out[1] = 0x25;
	*(int32_t *)(out + 2) = 0;
	*(uint64_t *)(out + 6) = to;
	return out + 14;
}

/* The number, if the instruction before the call sets it; otherwise -1. */
static int64_t constant_number(const uint8_t *code, const struct sc_insn *insn)
{
	if (insn->length == 5 && code[0] == 0xb8)
		return *(const uint32_t *)(code + 1);
	if (insn->length == 7 && code[0] == 0x48 && code[1] == 0xc7 && code[2] == 0xc0)
		return *(const uint32_t *)(code + 3);
	if (insn->length == 2 && (code[0] == 0x31 || code[0] == 0x33) && code[1] == 0xc0)
		return 0;
	return -1;
}

/* Appends the trampoline of a site to `out`, which will be executed at `at`. Returns its end, or
 * NULL if it cannot be. */
static uint8_t *put_trampoline(uint8_t *out, uint64_t at, uint64_t code_at,
			       const struct sc_insn *insn, uint64_t slot)
{
	const uint8_t *code = (const uint8_t *)code_at;
	int64_t nr = constant_number(code, insn);
	uint8_t *start = out;

	for (int i = 0; i < insn->length; i++)
		*out++ = code[i];
	if (insn->kind == SC_INSN_RIP) {
		int32_t *disp = (int32_t *)(start + insn->disp_offset);
		int64_t moved = *disp + (int64_t)(code_at - at);

		if (moved != (int32_t)moved)
			return NULL;
		*disp = (int32_t)moved;
	}
	if (nr >= 0 && nr < SC_TABLE_SIZE && !sc_call_table[nr])
		return put_jump(out, at + (uint64_t)(out - start), slot);
	*out++ = 0x48; /* movabs $slot,%rcx */
	*out++ = 0xb9;
	*(uint64_t *)out = slot;
	out += 8;
	return put_jump(out, at + (uint64_t)(out - start),
			(uint64_t)(nr >= 0 ? sc_entry_dispatch : sc_entry_any));
}

/* Does a branch lead into the five bytes? A hole is not reached from before, but might be after
 * all. */
static bool is_target(const struct page_plan *p, uint16_t at)
{
	for (uint16_t i = at; i < at + 5; i++)
		if (p->target[i / 8] & (1 << (i % 8)))
			return true;
	return false;
}

/* Five bytes of padding that a two-byte jump at `from` reaches. Returns its offset in the page, or
 * -1. */
static int take_hole(struct page_plan *p, uint16_t from)
{
	for (uint32_t i = 0; i < p->nr_holes; i++) {
		struct hole *h = &p->holes[i];
		int distance = h->at - (from + 2);

		if (h->length < 5 || distance < -128 || distance > 127 || is_target(p, h->at))
			continue;
		h->at += 5;
		h->length -= 5;
		return h->at - 5;
	}
	return -1;
}

/* Changes one site in the copy of its page. Returns false if it has to be left. */
static bool patch_site(struct page_plan *p, const struct site *s, uint8_t *copy, uint64_t to)
{
	int hole;

	if (s->decoded.length >= 5) {
		put_jump(copy + s->insn, p->page + s->insn, to);
		return true;
	}
	hole = s->decoded.length >= 2 ? take_hole(p, s->insn) : -1;
	if (hole < 0)
		return false;
	put_jump(copy + hole, p->page + (uint64_t)hole, to);
	copy[s->insn] = 0xeb;
	copy[s->insn + 1] = (uint8_t)(hole - (s->insn + 2));
	return true;
}

static bool movable(const struct sc_insn *insn)
{
	return insn->kind == SC_INSN_PLAIN || insn->kind == SC_INSN_RIP ||
	       insn->kind == SC_INSN_NOP;
}

/* Fills the copy of a page and its trampolines. Returns how many sites were changed. */
static uint32_t patch_page(struct page_plan *p, uint8_t *copy, uint8_t *tramp)
{
	uint8_t *out = tramp;
	uint32_t done = 0;

	for (uint32_t i = 0; i < p->nr_sites; i++) {
		const struct site *s = &p->sites[i];
		uint64_t slot = sc_slot_for(p->page + s->syscall + 2);
		uint8_t *end;

		if (slot == (uint64_t)sc_slot_on_stack)
			continue;
		slot_seen[slot_index(slot)] = 1;
		if (!movable(&s->decoded) || (size_t)(out - tramp) > SC_PAGE - MAX_TRAMPOLINE)
			continue;
		end = put_trampoline(out, (uint64_t)out, p->page + s->insn, &s->decoded, slot);
		if (!end || !patch_site(p, s, copy, (uint64_t)out))
			continue;
		out = end;
		done++;
	}
	return done;
}

/* Makes trampolines and copy executable and puts the copy in place. */
static bool commit(uint64_t page, uint64_t tramp, uint64_t copy)
{
	if (sc_raw3(__NR_mprotect, tramp, SC_PAGE, PROT_READ | PROT_EXEC) ||
	    sc_raw3(__NR_mprotect, copy, SC_PAGE, PROT_READ | PROT_EXEC)) {
		sc_no_rewriting = 1; /* a policy against it; all stays with Syscall User Dispatch */
		return false;
	}
	return sc_raw_syscall(__NR_mremap, (long)copy, SC_PAGE, SC_PAGE, MREMAP_MOVE_FIXED,
			      (long)page, 0) == (long)page;
}

static void rewrite_page(struct page_plan *p)
{
	uint64_t tramp, copy;
	uint32_t done = 0;

	if (arena_pages(p->page, &tramp, &copy)) {
		__builtin_memcpy((void *)copy, (const void *)p->page, SC_PAGE);
		done = patch_page(p, (uint8_t *)copy, (uint8_t *)tramp);
	}
	if (!done || !commit(p->page, tramp, copy))
		done = 0;
	__atomic_fetch_add(&sc_stats.sites_rewritten, done, __ATOMIC_RELAXED);
	__atomic_fetch_add(&sc_stats.sites_left, p->nr_sites - done, __ATOMIC_RELAXED);
}

static struct page_plan plan; /* under the lock */

static void plan_page(const struct object *o, uint64_t page)
{
	__builtin_memset(&plan, 0, sizeof(plan));
	plan.page = page;
	walk_page(o, &plan, false);
	if (needs_holes(&plan))
		walk_page(o, &plan, true);
}

/* Rewrites the site that trapped with this number, and its page's others. In a call; may be called
 * by several threads. */
void sc_rewrite(uint64_t ret, uint64_t nr)
{
	const struct object *o;

	if (sc_no_rewriting || __atomic_exchange_n(&rewrite_lock, 1, __ATOMIC_ACQUIRE))
		return;
	o = object_of(ret);
	if (o) {
		plan_page(o, (ret - 2) & ~(SC_PAGE - 1));
		add_proven(&plan, ret, nr);
		if (plan.nr_sites)
			rewrite_page(&plan);
	}
	sc_spin_unlock(&rewrite_lock);
}

/* Have all sites of the page been looked at? */
static bool all_seen(const struct page_plan *p)
{
	for (uint32_t i = 0; i < p->nr_sites; i++) {
		uint64_t slot = sc_slot_for(p->page + p->sites[i].syscall + 2);

		if (slot != (uint64_t)sc_slot_on_stack && !slot_seen[slot_index(slot)])
			return false;
	}
	return true;
}

static void rewrite_object(const struct object *o)
{
	for (uint64_t page = o->text & ~(SC_PAGE - 1); page < o->text_end; page += SC_PAGE) {
		uint64_t end = page + SC_PAGE < o->text_end ? page + SC_PAGE : o->text_end;

		if (sc_no_rewriting || !has_syscall(page, page < o->text ? o->text : page, end))
			continue;
		plan_page(o, page);
		if (!all_seen(&plan))
			rewrite_page(&plan);
	}
}

/* All sites of all objects, so that as few calls as possible trap from now on. Takes milliseconds.
 * In a call. */
void sc_rewrite_all(void)
{
	if (sc_no_rewriting)
		return;
	sc_spin_lock(&rewrite_lock);
	object_of(0); /* of none: learns all */
	for (uint32_t i = 0; i < nr_objects; i++)
		rewrite_object(&objects[i]);
	sc_spin_unlock(&rewrite_lock);
}

long sc_rewrite_init(uint64_t phdr, uint64_t phnum, uint64_t phent)
{
	if (phent == sizeof(struct phdr)) {
		main_phdr = (const struct phdr *)phdr;
		main_phnum = phnum;
	}
	return 0;
}

void sc_rewrite_before_fork(void)
{
	sc_spin_lock(&rewrite_lock);
}

void sc_rewrite_after_fork(void)
{
	sc_spin_unlock(&rewrite_lock);
}
