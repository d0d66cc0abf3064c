/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * entry.S - where calls enter and leave the library, the slots in which native calls run, the entry of signals' handlers,
 * and the library's own system calls. See intercept-priv.h for the path of a call.
 *
 * Rules here: a native call changes nothing but what `syscall` changes (%rax, %rcx, %r11), not even flags; until in_call
 * is set, nothing of ours is stored anywhere; the program's stack is not touched, nor the red zone below it.
 */
#include "intercept-offsets.h"

#define NR_rt_sigprocmask 14
#define NR_rt_sigreturn	  15
#define NR_munmap	  11
#define NR_arch_prctl	  158
#define ARCH_SET_GS	  0x1001

#define FLAG_DF 0x400
#define FLAG_AC 0x40000

.macro HIDDEN_FUNC name
	.globl \name
	.hidden \name
	.type \name, @function
\name:
.endm

.macro HIDDEN_LABEL name
	.globl \name
	.hidden \name
\name:
.endm

/*
 * Call frame information, for debuggers: without it a thread that waits in a call would show no callers. A register's
 * value lies at %rsp + offset.
 */
.macro CFI_AT_RSP reg, offset	/* DW_CFA_expression: DW_OP_breg7 offset, as a two-byte SLEB128 */
	.cfi_escape 0x10, \reg, 3, 0x77, (\offset & 0x7f) | 0x80, (\offset >> 7)
.endm

	.section .text.hot.sc, "ax", @progbits	/* SC_HOT_TEXT, intercept.h */

/*
 * The slots. Slot i belongs to the site whose return address is sc_slot_ret[i] (rewrite.c claims them). Their code never
 * changes, so they need no writable text.
 */
	.balign 64
	.cfi_startproc
	.cfi_def_cfa_offset 0	/* nothing was pushed: the caller's stack pointer is ours */
	/*
	 * The return address is where the slot's jump takes it from. S is the slot's start, %rip & -8; the jump's displacement,
	 * never negative, is at S + 4: it lies at S + 8 + displacement.
	 */
	.cfi_escape 0x10, 16, 13	/* DW_CFA_expression, %rip, length */
	.cfi_escape 0x80, 0, 0x09, 0xf8, 0x1a	/* breg16 0, const1s -8, and */
	.cfi_escape 0x12, 0x23, 4, 0x94, 4	/* dup, plus_uconst 4, deref_size 4 */
	.cfi_escape 0x22, 0x23, 8		/* plus, plus_uconst 8 */
HIDDEN_LABEL sc_slots
	.set i, 0
	.rept SC_SLOTS
	syscall
	jmp *(sc_slot_ret + i * 8)(%rip)
	.set i, i + 1
	.endr
	.cfi_endproc
HIDDEN_LABEL sc_slots_end

/*
 * For a site that got no slot, all being taken: its return address was put on the program's stack, below the red zone
 * (signals.c: trap; there the kernel has just written a whole signal frame). %rsp is 136 below what the program has.
 */
	.cfi_startproc
	.cfi_def_cfa_offset 136
	.cfi_offset 16, -136
HIDDEN_LABEL sc_slot_on_stack
	syscall
	ret $128
HIDDEN_LABEL sc_int80_on_stack
	int $0x80
	ret $128
	.cfi_endproc

/*
 * A site whose number is not known beforehand. %rax: number, %rcx: slot. Decides by sc_call_table without changing flags,
 * so jrcxz is the only branch.
 */
	.balign 16
HIDDEN_FUNC sc_entry_any
	mov %rcx, %r11
	mov %eax, %eax		/* the kernel looks at these 32 bits alone, too */
	mov %eax, %ecx
	bswap %ecx
	movzwl %cx, %ecx	/* upper 16 bits of the number */
	jrcxz 1f
	mov %r11, %rcx
	jmp sc_entry_dispatch
1:	lea sc_call_table(%rip), %rcx
	movzbl (%rcx, %rax), %ecx
	jrcxz 2f
	mov %r11, %rcx
	jmp sc_entry_dispatch
2:	jmp *%r11
	.size sc_entry_any, . - sc_entry_any

/*
 * Switches to the dispatch stack; the program's registers are in the frame already, flags excepted. If the program runs on
 * its alternate signal stack, the kernel would take it for unused once %rsp is elsewhere, and put the next signal's frame
 * on top of live ones: so it is switched off for this call, with signals blocked while neither is in place.
 */
.macro SWITCH_STACK
	lahf
	seto %al
	mov %rax, %gs:T_ARITH
	mov %rsp, %rcx
	sub %gs:T_ALT_SP, %rcx
	cmp %gs:T_ALT_SIZE, %rcx
	jae 10f
	mov $NR_rt_sigprocmask, %eax
	xor %edi, %edi		/* SIG_BLOCK */
	lea sc_all_signals(%rip), %rsi
	mov %gs:T_SELF, %rdx
	add $T_MASK, %rdx
	mov $8, %r10d
	syscall
	mov %gs:T_STACK_TOP, %rsp
	pushfq
	popq %gs:T_RFLAGS
	cld
	mov %gs:T_SELF, %rdi
	call sc_alt_enter_c
	jmp 11f
10:	mov %gs:T_STACK_TOP, %rsp
	pushfq
	popq %gs:T_RFLAGS
	cld
11:	testl $FLAG_AC, %gs:T_RFLAGS
	jz 12f
	pushfq			/* the library makes unaligned accesses */
	andl $~FLAG_AC, (%rsp)
	popfq
12:
.endm

/* A call that C code must look at. %rax: number, %rcx: slot. */
	.balign 64
HIDDEN_FUNC sc_entry_dispatch
	movl $1, %gs:T_IN_CALL	/* from here on, signals are deferred */
	mov %rax, %gs:T_RAX
	mov %rax, %gs:T_NR
	mov %rcx, %gs:T_SLOT
	mov %rdi, %gs:T_RDI
	mov %rsi, %gs:T_RSI
	mov %rdx, %gs:T_RDX
	mov %r10, %gs:T_R10
	mov %r8, %gs:T_R8
	mov %r9, %gs:T_R9
	mov %rbx, %gs:T_RBX
	mov %rbp, %gs:T_RBP
	mov %r12, %gs:T_R12
	mov %r13, %gs:T_R13
	mov %r14, %gs:T_R14
	mov %r15, %gs:T_R15
	mov %rsp, %gs:T_RSP
	SWITCH_STACK
	mov %gs:T_SELF, %rdi
	/*
	 * While C code runs %rsp is the top of the dispatch stack, where the thread's block with the frame begins. Debuggers
	 * accept that the stack changes only at a signal's frame.
	 */
	.cfi_startproc
	.cfi_signal_frame
	.cfi_escape 0x0f, 4, 0x77, (T_RSP & 0x7f) | 0x80, T_RSP >> 7, 0x06	/* CFA = frame.rsp */
	CFI_AT_RSP 3, T_RBX
	CFI_AT_RSP 6, T_RBP
	CFI_AT_RSP 12, T_R12
	CFI_AT_RSP 13, T_R13
	CFI_AT_RSP 14, T_R14
	CFI_AT_RSP 15, T_R15
	CFI_AT_RSP 16, T_RET
	CFI_AT_RSP 7, T_RSP
	call sc_entry_c
	nop		/* the return address, too, is to lie within */
	.cfi_endproc

/* Back to the program, to frame.rip with the registers of the frame. */
HIDDEN_LABEL sc_finish
	mov %gs:T_RSP, %rsp
HIDDEN_LABEL sc_forward_start
	cmpl $0, %gs:T_SIGNAL_PENDING
	jne sc_deliver
.Lload:
	mov %gs:T_RDI, %rdi
	mov %gs:T_RSI, %rsi
	mov %gs:T_RDX, %rdx
	mov %gs:T_R10, %r10
	mov %gs:T_R8, %r8
	mov %gs:T_R9, %r9
	mov %gs:T_RBX, %rbx
	mov %gs:T_RBP, %rbp
	mov %gs:T_R12, %r12
	mov %gs:T_R13, %r13
	mov %gs:T_R14, %r14
	mov %gs:T_R15, %r15
	mov %gs:T_RIP, %rcx
	mov %gs:T_RFLAGS, %r11
	testl $(FLAG_DF | FLAG_AC), %gs:T_RFLAGS
	jnz .Lrare_flags
	mov %gs:T_ARITH, %rax
	add $0x7f, %al		/* sets the overflow flag if it was set */
	sahf
	mov %gs:T_RAX, %rax
	movl $0, %gs:T_IN_CALL
HIDDEN_LABEL sc_leave_1
	jmp *%rcx

/* Direction or alignment flag set: popf, below the red zone. Hardly any program gets here. */
.Lrare_flags:
	mov %gs:T_ARITH, %rax
	movzbl %ah, %ecx
	movzbl %al, %eax
	and $1, %eax
	shl $11, %eax
	and $~0x8d5, %r11d
	or %eax, %r11d
	or %ecx, %r11d
	mov %gs:T_RIP, %rcx
	mov %gs:T_RAX, %rax
	lea -128(%rsp), %rsp
	push %r11
	popfq
	lea 128(%rsp), %rsp
	movl $0, %gs:T_IN_CALL
HIDDEN_LABEL sc_leave_2
	jmp *%rcx
HIDDEN_LABEL sc_forward_end

/*
 * Signals wait. C code gives them back to the kernel, and leaves all signals blocked; the mask is then restored here, with
 * the program's stack pointer, so that the kernel puts the handlers' frames where the program expects them.
 */
sc_deliver:
	mov %gs:T_STACK_TOP, %rsp
	mov %gs:T_SELF, %rdi
	call sc_deliver_c
	mov %gs:T_RSP, %rsp
	mov $NR_rt_sigprocmask, %eax
	mov $2, %edi		/* SIG_SETMASK */
	mov %gs:T_SELF, %rsi
	add $T_MASK, %rsi
	xor %edx, %edx
	mov $8, %r10d
	syscall
HIDDEN_LABEL sc_delivered
	jmp sc_forward_start	/* handlers run here, the rest of the way rolled forward */
	.size sc_entry_dispatch, . - sc_entry_dispatch

/*
 * A native call with a changed signal mask. It cannot run from within a call, since the signals that it lets through are
 * blocked before and after. %rsp points at struct sc_changed on the program's stack, all
 * that is needed to go on; nothing else is alive while the call runs. If a signal interrupts the call so that it is to
 * be restarted, the wrapper starts it again from the site instead.
 */
	.cfi_startproc
	.cfi_signal_frame	/* for an unwinder, the caller is what was interrupted */
	.cfi_escape 0x0f, 4, 0x77, 0xe8, 0x00, 0x06	/* CFA = *(%rsp + 104), frame.rsp */
	CFI_AT_RSP 7, 104
	CFI_AT_RSP 16, 152				/* frame.ret */
	nop
HIDDEN_FUNC sc_changed_stub
	syscall
	movl $1, %gs:T_IN_CALL
	mov %rax, %gs:T_RAX
	mov %rbx, %gs:T_RBX
	mov %rbp, %gs:T_RBP
	mov %r12, %gs:T_R12
	mov %r13, %gs:T_R13
	mov %r14, %gs:T_R14
	mov %r15, %gs:T_R15
	mov %rsp, %gs:T_RSP
	mov %rsp, %rbx
	SWITCH_STACK
	mov %gs:T_SELF, %rdi
	mov %rbx, %rsi
	call sc_changed_done_c
	jmp sc_finish
	.cfi_endproc
	.size sc_changed_stub, . - sc_changed_stub

/* long sc_raw_syscall(nr, a0 ... a5) */
	.balign 16
	.globl sc_raw_syscall
	.hidden sc_raw_syscall
	.type sc_raw_syscall, @function
sc_raw_syscall:
	.cfi_startproc
	mov %rdi, %rax
	mov %rsi, %rdi
	mov %rdx, %rsi
	mov %rcx, %rdx
	mov %r8, %r10
	mov %r9, %r8
	mov 8(%rsp), %r9
	syscall
	ret
	.cfi_endproc
	.size sc_raw_syscall, . - sc_raw_syscall

/* The same, but never starts to wait, or goes on waiting, while a signal waits for its handler. */
HIDDEN_FUNC sc_raw_syscall_interruptible
	.cfi_startproc
	mov %rdi, %rax
	mov %rsi, %rdi
	mov %rdx, %rsi
	mov %rcx, %rdx
	mov %r8, %r10
	mov %r9, %r8
	mov 8(%rsp), %r9
HIDDEN_LABEL sc_intr_start
	cmpl $0, %gs:T_SIGNAL_PENDING
	jne sc_intr_abort
HIDDEN_LABEL sc_intr_syscall
	syscall
	ret
HIDDEN_LABEL sc_intr_abort /* the wrapper sends a thread here from between the two labels */
	mov $-4, %rax		/* -EINTR */
	ret
	.cfi_endproc
	.size sc_raw_syscall_interruptible, . - sc_raw_syscall_interruptible

/*
 * For a native call with changed arguments, made from within a call: as the one before, but if a signal comes before it
 * began, or the kernel wants to restart it after the handler, it says SC_AGAIN; -EINTR is then the kernel's own verdict.
 */
HIDDEN_FUNC sc_raw_syscall_again
	.cfi_startproc
	mov %rdi, %rax
	mov %rsi, %rdi
	mov %rdx, %rsi
	mov %rcx, %rdx
	mov %r8, %r10
	mov %r9, %r8
	mov 8(%rsp), %r9
HIDDEN_LABEL sc_again_start
	cmpl $0, %gs:T_SIGNAL_PENDING
	jne sc_again_abort
HIDDEN_LABEL sc_again_syscall
	syscall
	ret
HIDDEN_LABEL sc_again_abort
	mov $SC_AGAIN, %rax
	ret
	.cfi_endproc
	.size sc_raw_syscall_again, . - sc_raw_syscall_again

/* long sc_clone_raw(child, nr, args[5]): the child starts on its own dispatch stack. All signals are blocked. */
HIDDEN_FUNC sc_clone_raw
	push %r12
	mov %rdi, %r12
	mov %rsi, %rax
	mov 0(%rdx), %rdi
	mov 8(%rdx), %rsi
	mov 24(%rdx), %r10
	mov 32(%rdx), %r8
	mov 16(%rdx), %rdx
	syscall
	test %rax, %rax
	jz 1f
	pop %r12
	ret
1:	test %r12, %r12		/* a forked child: everything is a copy, its stack too */
	jnz 2f
	pop %r12
	ret
2:	mov %r12, %rdi
	mov T_STACK_TOP(%r12), %rsp	/* unmapped for nobody else: the parent's stack is not touched */
	call sc_set_gs
	mov %r12, %rdi
	call sc_child_start_c
	jmp sc_finish
	.size sc_clone_raw, . - sc_clone_raw

/* void sc_set_gs(void *base) */
HIDDEN_FUNC sc_set_gs
	cmpl $0, sc_have_fsgsbase(%rip)
	je 1f
	wrgsbase %rdi
	ret
1:	mov %rdi, %rsi
	mov $ARCH_SET_GS, %edi
	mov $NR_arch_prctl, %eax
	syscall
	ret
	.size sc_set_gs, . - sc_set_gs

/* uint64_t sc_get_gs(void); needs sc_have_fsgsbase */
HIDDEN_FUNC sc_get_gs
	rdgsbase %rax
	ret
	.size sc_get_gs, . - sc_get_gs

/*
 * void sc_exit_raw(t, status, block, unmap_size, nr): gives the thread's memory back and exits. From the moment it is given
 * back another thread may use it, stack included; so registers only. All signals are blocked.
 */
HIDDEN_FUNC sc_exit_raw
	mov %rsi, %rbx
	test %rcx, %rcx
	jnz 2f
1:	mov sc_free_list(%rip), %rax
	mov %rax, T_NEXT_FREE(%rdi)
	lock cmpxchg %rdi, sc_free_list(%rip)
	jne 1b
	jmp 3f
2:	mov %rdx, %rdi
	mov %rcx, %rsi
	mov $NR_munmap, %eax
	syscall
3:	mov %rbx, %rdi
	mov %r8, %rax
	syscall
	ud2
	.size sc_exit_raw, . - sc_exit_raw

/*
 * Where the kernel starts the handler of every signal that we own. C code says which handler of the program is to run, or
 * NULL: nothing more to do. The program's handler is entered with registers and stack as the kernel left them.
 */
HIDDEN_FUNC sc_signal_entry
	.cfi_startproc
	push %rdi
	.cfi_adjust_cfa_offset 8
	push %rsi
	.cfi_adjust_cfa_offset 8
	push %rdx
	.cfi_adjust_cfa_offset 8
	call sc_signal_c
	pop %rdx
	.cfi_adjust_cfa_offset -8
	pop %rsi
	.cfi_adjust_cfa_offset -8
	pop %rdi
	.cfi_adjust_cfa_offset -8
	test %rax, %rax
	jz 1f
	mov %rax, %r11
	xor %eax, %eax
	jmp *%r11
1:	add $8, %rsp
	mov $NR_rt_sigreturn, %eax
	syscall
	.cfi_endproc
	.size sc_signal_entry, . - sc_signal_entry

/*
 * Where a program's handler returns to. Unwinders must see a signal's frame here: registers are found in the ucontext at
 * %rsp. They look one byte before a return address, hence the nop within the description.
 */
	.balign 16
	.cfi_startproc
	.cfi_signal_frame
	.cfi_escape 0x0f, 4, 0x77, 0xa0, 0x01, 0x06	/* CFA = *(%rsp + 160) */
	CFI_AT_RSP 8, 40
	CFI_AT_RSP 9, 48
	CFI_AT_RSP 10, 56
	CFI_AT_RSP 11, 64
	CFI_AT_RSP 12, 72
	CFI_AT_RSP 13, 80
	CFI_AT_RSP 14, 88
	CFI_AT_RSP 15, 96
	CFI_AT_RSP 5, 104
	CFI_AT_RSP 4, 112
	CFI_AT_RSP 6, 120
	CFI_AT_RSP 3, 128
	CFI_AT_RSP 1, 136
	CFI_AT_RSP 0, 144
	CFI_AT_RSP 2, 152
	CFI_AT_RSP 7, 160
	CFI_AT_RSP 16, 168
	nop
HIDDEN_FUNC sc_restorer
	testl $SC_VIRT_SIGNALS, UC_SIGMASK(%rsp)
	jnz 1f
	cmpq $0, %gs:T_VIRT_MASK
	jne 1f
	mov UC_SS_SP(%rsp), %rax
	cmp %gs:T_ALT_SP, %rax
	jne 1f
2:	mov $NR_rt_sigreturn, %eax
	syscall
1:	mov %rsp, %rdi
	call sc_fix_sigreturn
	jmp 2b
	.cfi_endproc
	.size sc_restorer, . - sc_restorer

	.section .rodata
	.balign 8
sc_all_signals:
	.quad -1

	.section .note.GNU-stack, "", @progbits
