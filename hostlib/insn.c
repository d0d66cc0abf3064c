/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * insn.c - a length decoder for x86-64, by tables of two bits per opcode: has it a ModRM byte, and
 * which immediate follows. It does not check that an instruction is valid beyond what it needs for
 * its length. tests/intercept compares it with Zydis over every instruction of libc, the dynamic
 * loader and other libraries.
 */
#include "insn.h"

/* What follows an opcode, and what it is. */
#define M    1	 /* ModRM */
#define I1   2	 /* 1 byte immediate */
#define I2   4	 /* 2 bytes */
#define IZ   8	 /* 4 bytes, 2 with an operand-size prefix */
#define R1   16	 /* 1 byte relative target */
#define R4   32	 /* 4 bytes relative target */
#define BAD  64	 /* none, or a prefix handled before */
#define SPEC 128 /* see special_immediate() */

static const uint8_t one_byte[256] = {
#define ARITH M, M, M, M, I1, IZ, BAD, BAD
    ARITH,
    ARITH,
    ARITH,
    ARITH,
    ARITH,
    ARITH,
    ARITH,
    ARITH,
    /* 40: REX */ BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    /* 50 */ 0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    /* 60 */ BAD,
    BAD,
    BAD,
    M,
    BAD,
    BAD,
    BAD,
    BAD,
    IZ,
    M | IZ,
    I1,
    M | I1,
    0,
    0,
    0,
    0,
    /* 70 */ R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    R1,
    /* 80 */ M | I1,
    M | IZ,
    BAD,
    M | I1,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    /* 90 */ 0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    BAD,
    0,
    0,
    0,
    0,
    0,
    /* A0 */ SPEC,
    SPEC,
    SPEC,
    SPEC,
    0,
    0,
    0,
    0,
    I1,
    IZ,
    0,
    0,
    0,
    0,
    0,
    0,
    /* B0 */ I1,
    I1,
    I1,
    I1,
    I1,
    I1,
    I1,
    I1,
    /* B8 */ SPEC,
    SPEC,
    SPEC,
    SPEC,
    SPEC,
    SPEC,
    SPEC,
    SPEC,
    /* C0 */ M | I1,
    M | I1,
    I2,
    0,
    BAD,
    BAD,
    M | I1,
    M | IZ,
    I1 | I2,
    0,
    I2,
    0,
    0,
    I1,
    BAD,
    0,
    /* D0 */ M,
    M,
    M,
    M,
    BAD,
    BAD,
    BAD,
    0,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    /* E0 */ R1,
    R1,
    R1,
    R1,
    I1,
    I1,
    I1,
    I1,
    R4,
    R4,
    BAD,
    R1,
    0,
    0,
    0,
    0,
    /* F0 */ BAD,
    0,
    BAD,
    BAD,
    0,
    0,
    M | SPEC,
    M | SPEC,
    0,
    0,
    0,
    0,
    0,
    0,
    M,
    M,
#undef ARITH
};

static const uint8_t two_byte[256] = {
    /* 00 */ M,
    M,
    M,
    M,
    BAD,
    0,
    0,
    0,
    0,
    0,
    BAD,
    0,
    BAD,
    M,
    0,
    M | I1,
    /* 10 */ M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    /* 20 */ M,
    M,
    M,
    M,
    BAD,
    BAD,
    BAD,
    BAD,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    /* 30 */ 0,
    0,
    0,
    0,
    0,
    0,
    BAD,
    0,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    BAD,
    /* 40 */ M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    /* 50 */ M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    /* 60 */ M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    /* 70 */ M | I1,
    M | I1,
    M | I1,
    M | I1,
    M,
    M,
    M,
    0,
    M,
    M,
    BAD,
    BAD,
    M,
    M,
    M,
    M,
    /* 80 */ R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    R4,
    /* 90 */ M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    /* A0 */ 0,
    0,
    0,
    M,
    M | I1,
    M,
    M,
    M,
    0,
    0,
    0,
    M,
    M | I1,
    M,
    M,
    M,
    /* B0 */ M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M | I1,
    M,
    M,
    M,
    M,
    M,
    /* C0 */ M,
    M,
    M | I1,
    M,
    M | I1,
    M | I1,
    M | I1,
    M,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    /* D0 */ M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    /* E0 */ M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    /* F0 */ M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
    M,
};

/* The decoder's state: where it reads, and what prefixes said. */
struct cursor {
	const uint8_t *code;
	size_t room; /* at most 15 */
	size_t at;
	uint8_t opsize16, addr32, rex_w;
	uint8_t map; /* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A, others by VEX, EVEX and XOP */
	uint8_t vex;
	uint8_t opcode, modrm;
	enum sc_insn_kind kind; /* by opcode alone */
};

static int byte_at(const struct cursor *c, size_t at)
{
	return at < c->room ? c->code[at] : -1;
}

static void prefixes(struct cursor *c)
{
	for (;; c->at++) {
		switch (byte_at(c, c->at)) {
		case 0x66:
			c->opsize16 = 1;
			break;
		case 0x67:
			c->addr32 = 1;
			break;
		case 0xf0:
		case 0xf2:
		case 0xf3:
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x26:
		case 0x64:
		case 0x65:
			break;
		default:
			return;
		}
	}
}

/* VEX, EVEX or XOP prefix at c->at: takes it, and the map it names. Returns false if there is none.
 */
static int vector_prefix(struct cursor *c)
{
	int first = byte_at(c, c->at);
	int second = byte_at(c, c->at + 1);

	if (second < 0)
		return 0;
	if (first == 0xc5) {
		c->map = 1;
		c->at += 2;
	} else if (first == 0xc4 || (first == 0x8f && (second & 0x1f) >= 8)) {
		c->map = second & 0x1f;
		c->at += 3;
	} else if (first == 0x62) {
		c->map = second & 7;
		c->at += 4;
	} else {
		return 0;
	}
	c->vex = 1;
	return 1;
}

/* Prefixes and opcode; returns what follows it (M, I1, ...), or -1. */
static int opcode(struct cursor *c)
{
	int b;

	prefixes(c);
	if (vector_prefix(c)) {
		b = byte_at(c, c->at++);
		if (b < 0)
			return -1;
		c->opcode = (uint8_t)b;
		switch (c->map) {
		case 1:
			return b == 0x77 ? 0 : M | (two_byte[b] & I1);
		case 3:
		case 8:
			return M | I1;
		case 2:
		case 5:
		case 6:
		case 9:
			return M;
		case 10:
			c->opsize16 = 0;
			return M | IZ;
		default:
			return -1;
		}
	}
	b = byte_at(c, c->at);
	if (b >= 0x40 && b <= 0x4f) {
		c->rex_w = (b & 8) != 0;
		b = byte_at(c, ++c->at);
	}
	c->at++;
	if (b < 0)
		return -1;
	if (b != 0x0f) {
		c->opcode = (uint8_t)b;
		return one_byte[b];
	}
	b = byte_at(c, c->at++);
	if (b < 0)
		return -1;
	c->map = 1;
	c->opcode = (uint8_t)b;
	if (b != 0x38 && b != 0x3a)
		return two_byte[b];
	c->map = b == 0x38 ? 2 : 3;
	b = byte_at(c, c->at++);
	if (b < 0)
		return -1;
	c->opcode = (uint8_t)b;
	return c->map == 2 ? M : M | I1;
}

/* ModRM, SIB, displacement. Returns false if they do not fit. */
static int modrm(struct cursor *c, struct sc_insn *out)
{
	int b = byte_at(c, c->at++);
	int mod;
	int rm;

	if (b < 0)
		return 0;
	c->modrm = (uint8_t)b;
	mod = b >> 6;
	rm = b & 7;
	if (mod == 3)
		return 1;
	if (rm == 4) {
		b = byte_at(c, c->at++);
		if (b < 0)
			return 0;
		if (mod == 0 && (b & 7) == 5)
			c->at += 4;
	} else if (rm == 5 && mod == 0) {
		out->kind = c->addr32 ? SC_INSN_OTHER : SC_INSN_RIP;
		out->disp_offset = (uint8_t)c->at;
		c->at += 4;
	}
	c->at += mod == 1 ? 1 : mod == 2 ? 4 : 0;
	return 1;
}

/* Immediates whose size depends on more than the opcode. */
static size_t special_immediate(const struct cursor *c)
{
	size_t z = c->opsize16 && !c->rex_w ? 2 : 4;

	if (c->opcode >= 0xb8 && c->opcode <= 0xbf)
		return c->rex_w ? 8 : z;
	if (c->opcode >= 0xa0 && c->opcode <= 0xa3)
		return c->addr32 ? 4 : 8;
	if ((c->modrm >> 3 & 7) > 1) /* F6, F7: only `test` has one */
		return 0;
	return c->opcode == 0xf6 ? 1 : z;
}

static int64_t read_target(const struct cursor *c, size_t at, size_t size)
{
	uint32_t v = 0;

	if (size == 1)
		return (int8_t)c->code[at];
	for (size_t i = 0; i < 4; i++)
		v |= (uint32_t)c->code[at + i] << (8 * i);
	return (int32_t)v;
}

static enum sc_insn_kind kind_two_byte(const struct cursor *c)
{
	switch (c->opcode) {
	case 0x01:
		return c->modrm == 0xd5 ? SC_INSN_OTHER : SC_INSN_PLAIN; /* xend */
	case 0x05:
		return SC_INSN_SYSCALL;
	case 0x07:
	case 0x34:
	case 0x35:
		return SC_INSN_OTHER;
	case 0x0b:
		return SC_INSN_END;
	case 0x1f:
		return SC_INSN_NOP;
	default:
		return SC_INSN_PLAIN;
	}
}

static enum sc_insn_kind kind_one_byte(const struct cursor *c)
{
	int reg = c->modrm >> 3 & 7;

	switch (c->opcode) {
	case 0x90:
		return SC_INSN_NOP;
	case 0xc2:
	case 0xc3:
	case 0xca:
	case 0xcb:
	case 0xcf:
	case 0xcc:
	case 0xf4:
		return SC_INSN_END;
	case 0xcd:
	case 0xf1:
		return SC_INSN_OTHER;
	case 0xc6:
	case 0xc7:
		return c->modrm == 0xf8 ? SC_INSN_OTHER : SC_INSN_PLAIN; /* xabort, xbegin */
	case 0xff:
		if (reg == 4 || reg == 5)
			return SC_INSN_END;
		return reg == 2 || reg == 3 ? SC_INSN_OTHER : SC_INSN_PLAIN;
	default:
		return SC_INSN_PLAIN;
	}
}

static enum sc_insn_kind kind(const struct cursor *c)
{
	if (c->vex || c->map > 1)
		return SC_INSN_PLAIN;
	return c->map ? kind_two_byte(c) : kind_one_byte(c);
}

/* How many bytes follow a ModRM byte, its SIB byte included. */
#define ROW(rm4, rm5, other) other, other, other, other, rm4, rm5, other, other
#define ROWS(row)	     row, row, row, row, row, row, row, row
#define ROW0		     ROW(1, 4, 0)
#define ROW1		     ROW(2, 1, 1)
#define ROW2		     ROW(5, 4, 4)
#define ROW3		     ROW(0, 0, 0)
static const uint8_t after_modrm[256] = {ROWS(ROW0), ROWS(ROW1), ROWS(ROW2), ROWS(ROW3)};

/*
 * The same for what most instructions are: at most a REX prefix, no immediate whose size depends on
 * anything but the opcode, 15 bytes to read. Returns false if this is not one; then nothing is
 * decided. The cost of rewriting a page is mostly here.
 */
static int decode_common(const uint8_t *code, struct sc_insn *out)
{
	struct cursor c = {.code = code};
	const uint8_t *at = code;
	uint8_t follows;

	if ((*at & 0xf0) == 0x40)
		c.rex_w = *at++ & 8;
	c.opcode = *at++;
	follows = one_byte[c.opcode];
	if (c.opcode == 0x0f) {
		c.map = 1;
		c.opcode = *at++;
		follows = two_byte[c.opcode];
		if (c.opcode == 0x38 || c.opcode == 0x3a)
			return 0;
	}
	if (follows & (BAD | SPEC | R1 | R4 | I2))
		return 0;
	*out = (struct sc_insn){.kind = SC_INSN_PLAIN};
	if (follows & M) {
		c.modrm = *at++;
		if ((c.modrm & 0xc7) == 5) {
			out->kind = SC_INSN_RIP;
			out->disp_offset = (uint8_t)(at - code);
		}
		if ((c.modrm & 0xc7) == 4 && (*at & 7) == 5)
			at += 4;
		at += after_modrm[c.modrm];
	}
	at += (follows & I1 ? 1 : 0) + (follows & IZ ? 4 : 0);
	out->length = (uint8_t)(at - code);
	c.kind = kind(&c);
	if (c.kind != SC_INSN_PLAIN)
		out->kind = c.kind;
	return 1;
}

int sc_insn_decode(const uint8_t *code, size_t room, struct sc_insn *out)
{
	struct cursor c = {.code = code, .room = room < 15 ? room : 15};
	int follows;

	if (room >= 15 && decode_common(code, out))
		return 0;
	follows = opcode(&c);
	*out = (struct sc_insn){.kind = SC_INSN_PLAIN};
	if (follows < 0 || (follows & BAD))
		return -1;
	if ((follows & M) && !modrm(&c, out))
		return -1;
	if (follows & (R1 | R4)) {
		size_t size = follows & R1 ? 1 : 4;

		if (c.at + size > c.room)
			return -1;
		out->target = read_target(&c, c.at, size);
		c.at += size;
		out->target += (int64_t)c.at;
		out->kind = SC_INSN_BRANCH;
		out->ends = !c.map && (c.opcode == 0xe9 || c.opcode == 0xeb);
	}
	c.at += follows & I1 ? 1 : 0;
	c.at += follows & I2 ? 2 : 0;
	if (follows & IZ)
		c.at += c.opsize16 && !c.rex_w ? 2 : 4;
	if (follows & SPEC)
		c.at += special_immediate(&c);
	if (c.at > c.room)
		return -1;
	out->length = (uint8_t)c.at;
	c.kind = kind(&c);
	if (c.kind != SC_INSN_PLAIN)
		out->kind = c.kind; /* also for an indirect jump through memory at rip */
	return 0;
}
