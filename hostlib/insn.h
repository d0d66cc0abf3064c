/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * insn.h - just enough of x86-64's instruction encoding to walk over code: where instructions end,
 * which of them branch, and which may be moved elsewhere.
 */
#ifndef HOSTLIB_INSN_H
#define HOSTLIB_INSN_H

#include <stddef.h>
#include <stdint.h>

enum sc_insn_kind {
	SC_INSN_PLAIN, /* may be moved as it is */
	SC_INSN_RIP, /* has an operand at rip + disp32: may be moved if the displacement is adapted
		      */
	SC_INSN_NOP, /* may be moved, or dropped */
	SC_INSN_BRANCH,	 /* direct jump, conditional or call: has a target; not to be moved */
	SC_INSN_END,	 /* what follows is not reached from here: ret, jmp, ud2, hlt, int3 */
	SC_INSN_SYSCALL, /* the instruction we look for */
	SC_INSN_OTHER,	 /* indirect call and the like: valid, not to be moved */
};

struct sc_insn {
	uint8_t length;	     /* 1 to 15 */
	uint8_t disp_offset; /* SC_INSN_RIP: where the displacement is */
	uint8_t ends;	     /* direct jmp (kind SC_INSN_BRANCH) that does not fall through */
	enum sc_insn_kind kind;
	int64_t target; /* SC_INSN_BRANCH: relative to the instruction's start */
};

/*
 * Decodes the instruction at code, of which `room` bytes may be read. Returns 0, or -1 if it is
 * none that we know (then the walk has to stop). Every byte sequence that a compiler emits for user
 * space is known; hand-written oddities may not be.
 */
int sc_insn_decode(const uint8_t *code, size_t room, struct sc_insn *out);

#endif
