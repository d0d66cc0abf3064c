/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * intercept-offsets.h - where the fields of struct sc_thread_priv lie, for the assembly files.
 * Static asserts in intercept.c hold each of them against the C declaration in intercept-priv.h.
 */
#ifndef HOSTLIB_INTERCEPT_OFFSETS_H
#define HOSTLIB_INTERCEPT_OFFSETS_H

#define T_SELF		 0
#define T_IN_CALL	 16
#define T_SIGNAL_PENDING 20

#define T_FRAME	    256
#define T_RAX	    (T_FRAME + 0)
#define T_RDI	    (T_FRAME + 8)
#define T_RSI	    (T_FRAME + 16)
#define T_RDX	    (T_FRAME + 24)
#define T_R10	    (T_FRAME + 32)
#define T_R8	    (T_FRAME + 40)
#define T_R9	    (T_FRAME + 48)
#define T_RBX	    (T_FRAME + 56)
#define T_RBP	    (T_FRAME + 64)
#define T_R12	    (T_FRAME + 72)
#define T_R13	    (T_FRAME + 80)
#define T_R14	    (T_FRAME + 88)
#define T_R15	    (T_FRAME + 96)
#define T_RSP	    (T_FRAME + 104)
#define T_RIP	    (T_FRAME + 112)
#define T_RFLAGS    (T_FRAME + 120)
#define T_ARITH	    (T_FRAME + 128)
#define T_SLOT	    (T_FRAME + 136)
#define T_NR	    (T_FRAME + 144)
#define T_RET	    (T_FRAME + 152)
#define T_STACK_TOP (T_FRAME + 160)
#define T_ALT_SP    (T_FRAME + 168)
#define T_ALT_SIZE  (T_FRAME + 176)
#define T_MASK	    (T_FRAME + 184)
#define T_VIRT_MASK (T_FRAME + 192)
#define T_NEXT_FREE (T_FRAME + 200)

/* A result like SC_NATIVE, within this layer: the call is to be made again, after the signals that
 * wait. */
#define SC_AGAIN -0x10002

/* Number of call slots (entry.S), a power of two; 8 bytes of text and 8 of data each. */
#define SC_SLOTS      4096
#define SC_SLOT_SHIFT 3

/* The signals that the kernel must never hold back from us: SIGBUS 7, SIGSEGV 11, SIGSYS 31. */
#define SC_VIRT_SIGNALS 0x40000440

/* Offsets in the kernel's signal frame, from its struct ucontext. */
#define UC_SS_SP   16
#define UC_SIGMASK 296

#endif
