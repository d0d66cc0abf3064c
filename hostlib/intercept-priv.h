/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * intercept-priv.h - what the files of the interception layer share. Nobody else includes it.
 *
 * How a call travels
 * ------------------
 *   site     a `syscall` instruction of the program. Either it still traps (Syscall User Dispatch
 * raises SIGSYS, whose handler sends the thread on to an entry below), or the one instruction
 * before it was replaced by a jump to a trampoline (rewrite.c), which does what that instruction
 * did and goes to the entry. The `syscall` itself always stays in place. slot     8 bytes of our
 * own text, one per site: `syscall; jmp *return address`. A native call runs in its slot, with
 * every register, the stack pointer included, as the program left it: a signal's handler, an
 *            unwinder, EINTR, restart and cancellation meet what they would meet without us. No
 * stack is used, and no state of ours is alive, so a handler may leave it by siglongjmp. entry
 * entry.S: gets the number in %rax and the slot in %rcx (a register that `syscall` destroys
 * anyway). Calls whose number needs no look go to the slot at once. Others are in_call from there
 * on: registers go into the thread's frame, the stack becomes the thread's dispatch stack, and C
 * code runs. finish   the way back from the frame. From the instruction that restores the program's
 * stack pointer on, a signal's handler need not wait any more: the wrapper (signals.c) completes
 * the rest of the way on paper
 *            ("roll forward") and runs the handler as if the call had returned already.
 *
 * Signals are in signals.c, new threads and processes in clone.c.
 */
#ifndef HOSTLIB_INTERCEPT_PRIV_H
#define HOSTLIB_INTERCEPT_PRIV_H

#include <asm/unistd_64.h>
#include <errno.h>

#include "intercept-offsets.h"
#include "intercept.h"

#define SC_HIDDEN __attribute__((visibility("hidden")))

#define SC_PAGE 4096UL
/*
 * The dispatch stack: 64 KiB by the contract with the serving layer, the rest for the frames of
 * signals that are being deferred, up to one of each number (3.5 KiB with AVX-512). Address space
 * until it is touched.
 */
#define SC_STACK_SIZE (320UL * 1024)
#define SC_NSIG	      64
#define SC_TABLE_SIZE 65536 /* of sc_call_table: every number that fits 16 bits */
/*
 * Signals that can be deferred within one call. Each number is blocked once deferred, so 64 would
 * do but for those that arrive while another one is being put away; those past the end are lost,
 * and counted.
 */
#define SC_DEFER_MAX 96

#define SC_BIT(sig) (1UL << ((sig)-1))

/* Flags of struct sc_thread (its `flags`). */
#define SC_T_VFORK	  1u /* lives in another process's memory (CLONE_VM without CLONE_THREAD) */
#define SC_T_API_ONLY	  2u /* made by sc_thread_ensure() in a program that is not intercepted */
#define SC_T_HAVE_MASK	  4u /* all signals are blocked, and `mask` is what to go back to */
#define SC_T_PARENT_FREES 16u /* with SC_T_VFORK: the parent waits, and gives the block back */
#define SC_T_ALT_OFF	  8u  /* the program's alternate stack is switched off during this call */

/* What the kernel takes for a signal's action on x86-64. */
struct sc_ksigaction {
	uint64_t handler; /* 0: SIG_DFL, 1: SIG_IGN */
	uint64_t flags;
	uint64_t restorer;
	uint64_t mask;
};

/* One signal as the program set it. */
struct sc_action {
	struct sc_ksigaction act; /* what the program asked for, and gets back on a query */
	uint64_t handler; /* last real handler: still runs for a signal that was on its way when act
			     changed */
	uint32_t ours;	  /* the kernel calls our wrapper for it, and act is valid */
	uint32_t pad;
};

/* The actions of a process, or of several that share them (CLONE_SIGHAND). */
struct sc_sighand {
	uint32_t lock;
	uint32_t pad;
	struct sc_action action[SC_NSIG + 1];
};

/* As many bytes as the kernel's siginfo_t. */
struct sc_siginfo {
	int32_t signo;
	int32_t err;
	int32_t code;
	int32_t pad;
	union {
		uint64_t
		    address; /* SIGSEGV, SIGBUS: faulting address; SIGSYS: where the call was */
		uint64_t rest[14];
	};
};

/* stack_t */
struct sc_stack {
	uint64_t sp;
	int32_t flags;
	int32_t pad;
	uint64_t size;
};

/* The kernel's struct ucontext on x86-64, as far as we look into it. */
struct sc_ucontext {
	uint64_t flags;
	uint64_t link;
	struct sc_stack stack;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags;
	uint64_t segments, err, trapno, oldmask, cr2;
	uint64_t fpstate;
	uint64_t reserved[8];
	uint64_t sigmask;
};

/* The program's registers while a call of it is dispatched. Offsets are known to entry.S. */
struct sc_frame {
	uint64_t rax; /* on the way in the number, on the way out what the program gets */
	uint64_t rdi, rsi, rdx, r10, r8, r9;
	uint64_t rbx, rbp, r12, r13, r14, r15;
	uint64_t rsp;
	uint64_t rip;	 /* where finish jumps to: the slot (a native call) or the return address */
	uint64_t rflags; /* arithmetic flags in it are not valid: see arith */
	uint64_t arith;	 /* byte 1: lahf's image, byte 0: overflow */
	uint64_t slot;
	uint64_t nr;  /* rax on the way in */
	uint64_t ret; /* the site's return address: just behind its `syscall` */
};

struct sc_thread_priv {
	union {
		struct sc_thread pub;
		uint8_t room[T_FRAME]; /* so that what follows stays in place when that grows */
	};
	struct sc_frame frame;
	uint64_t stack_top; /* of the dispatch stack */
	uint64_t alt_sp;    /* the program's alternate signal stack; size 0: none */
	uint64_t alt_size;
	uint64_t mask;	    /* kernel's mask to go back to at the call's end, with SC_T_HAVE_MASK */
	uint64_t virt_mask; /* of SC_VIRT_SIGNALS, those that the program believes blocked */
	struct sc_thread_priv *next_free;

	struct sc_sighand *sighand; /* shared between the threads of a process */
	/* List of all blocks, under intercept.c's lock. */
	struct sc_thread_priv *next, *prev;
	uint32_t in_use;	/* 0: on the free list */
	uint32_t clear_sighand; /* a new child: the kernel reset its handlers */
	/* SC_T_API_ONLY: libc's thread control block of this thread. */
	uint64_t tcb;
	/* Return address of a site to be rewritten at the next occasion; 0: none. */
	uint64_t rewrite;
	struct sc_proc *parent_proc;	/* SC_T_VFORK: of the process that made it */
	struct sc_sighand *own_sighand; /* a vfork child's private copy, NULL if it needs none */

	uint64_t deferred_set; /* signals we blocked because we deferred them */
	/* Delivered although the program blocks them, since a wait's mask let them through: what each handler's return is
	 * to block again, and of that, whose handlers have not begun yet. */
	uint64_t reblock;
	uint64_t reblock_left;
	uint32_t deferred; /* entries of defer[] in use */
	/* Of SC_VIRT_SIGNALS, those that wait in held[]: bit 0 SIGBUS, 1 SIGSEGV, 2 SIGSYS. */
	uint32_t virt_held;
	struct sc_siginfo held[3];
	struct sc_siginfo defer[SC_DEFER_MAX];
};

/* Saved on the program's stack, below its red zone, while a native call with a changed signal mask
 * runs. */
struct sc_changed {
	struct sc_frame frame; /* as it was on the way in */
	long (*after)(struct sc_thread *t, long result);
	uint64_t mask;	      /* a signal mask without SC_VIRT_SIGNALS, if the call needed that */
	uint64_t mask_arg[2]; /* pselect6's pair of pointer and size */
};

static inline struct sc_thread_priv *sc_priv(void)
{
	return (struct sc_thread_priv *)sc_self();
}

/* intercept.c */
extern uint64_t sc_text_start SC_HIDDEN,
    sc_text_end SC_HIDDEN;			       /* what Syscall User Dispatch lets pass */
extern uint8_t sc_call_table[SC_TABLE_SIZE] SC_HIDDEN; /* 1: by C code; 0: native at once */
extern uint32_t sc_have_fsgsbase SC_HIDDEN;
extern uint32_t sc_no_rewriting
    SC_HIDDEN; /* the program has a seccomp filter: no calls of our own */
extern struct sc_intercept_stats sc_stats SC_HIDDEN;
extern struct sc_sighand sc_main_sighand SC_HIDDEN;

struct sc_thread_priv *sc_thread_alloc(void) SC_HIDDEN;
void sc_thread_free(struct sc_thread_priv *t) SC_HIDDEN; /* by another thread than t itself */
bool sc_threads_alone(void) SC_HIDDEN; /* is the caller the only thread in this memory? */
void sc_threads_before_fork(void) SC_HIDDEN;
void sc_threads_after_fork(void) SC_HIDDEN;		      /* in the parent */
void sc_threads_in_child(struct sc_thread_priv *t) SC_HIDDEN; /* frees all but t */
long sc_arm(void) SC_HIDDEN;				      /* Syscall User Dispatch on */
void sc_die(const char *why) SC_HIDDEN __attribute__((noreturn));

void sc_entry_c(struct sc_thread_priv *t) SC_HIDDEN;
void sc_changed_done_c(struct sc_thread_priv *t, struct sc_changed *block) SC_HIDDEN;
void sc_restart(
    struct sc_thread_priv *t) SC_HIDDEN; /* the call is made again, after signals that wait */

/* signals.c */
long sc_signals_init(struct sc_thread_priv *t) SC_HIDDEN;
void sc_signals_reinstall(struct sc_thread_priv *t) SC_HIDDEN; /* after CLONE_CLEAR_SIGHAND */
long sc_rt_sigaction(struct sc_thread_priv *t) SC_HIDDEN;
long sc_rt_sigprocmask(struct sc_thread_priv *t) SC_HIDDEN;
long sc_rt_sigpending(struct sc_thread_priv *t) SC_HIDDEN;
long sc_sigaltstack(struct sc_thread_priv *t) SC_HIDDEN;
void sc_fix_sigreturn(struct sc_ucontext *uc) SC_HIDDEN;
void *sc_signal_c(int sig, struct sc_siginfo *info, struct sc_ucontext *uc) SC_HIDDEN;
void sc_deliver_c(struct sc_thread_priv *t) SC_HIDDEN;
void sc_alt_enter_c(struct sc_thread_priv *t) SC_HIDDEN;
void sc_alt_leave(struct sc_thread_priv *t) SC_HIDDEN;
void sc_alt_restore(struct sc_thread_priv *t) SC_HIDDEN; /* in the kernel, from t */
void sc_block_all(struct sc_thread_priv *t) SC_HIDDEN;	 /* until the call's end */
/* Around an execve: the kernel's state becomes what the program believes it to be, and back. */
void sc_signals_before_exec(struct sc_thread_priv *t) SC_HIDDEN;
void sc_signals_exec_failed(struct sc_thread_priv *t) SC_HIDDEN;

/* clone.c */
long sc_clone(struct sc_thread_priv *t) SC_HIDDEN;
long sc_exec(struct sc_thread_priv *t) SC_HIDDEN;
void sc_exit(struct sc_thread_priv *t) SC_HIDDEN; /* returns only if a signal comes first */
void sc_child_start_c(struct sc_thread_priv *t) SC_HIDDEN;

/* rewrite.c */
uint64_t sc_slot_for(
    uint64_t ret) SC_HIDDEN; /* address of the slot, or of sc_slot_on_stack if all are taken */
/* Counts a trap at a site; true when its page deserves rewriting. */
bool sc_page_hot(uint64_t ret, uint64_t slot) SC_HIDDEN;
void sc_rewrite(uint64_t ret, uint64_t nr) SC_HIDDEN;
void sc_rewrite_all(void) SC_HIDDEN;
long sc_rewrite_init(uint64_t phdr, uint64_t phnum, uint64_t phent) SC_HIDDEN;
void sc_rewrite_before_fork(void) SC_HIDDEN;
void sc_rewrite_after_fork(void) SC_HIDDEN; /* in parent and child */

/* entry.S; addresses within it matter to signals.c */
extern uint64_t sc_slot_ret[SC_SLOTS] SC_HIDDEN;
extern const char sc_slots[] SC_HIDDEN, sc_slots_end[] SC_HIDDEN;
extern const char sc_slot_on_stack[] SC_HIDDEN, sc_int80_on_stack[] SC_HIDDEN;
extern const char sc_entry_any[] SC_HIDDEN, sc_entry_dispatch[] SC_HIDDEN;
extern const char sc_forward_start[] SC_HIDDEN, sc_forward_end[] SC_HIDDEN;
extern const char sc_changed_stub[] SC_HIDDEN, sc_delivered[] SC_HIDDEN;
extern const char sc_again_start[] SC_HIDDEN, sc_again_syscall[] SC_HIDDEN,
    sc_again_abort[] SC_HIDDEN;
extern const char sc_leave_1[] SC_HIDDEN,
    sc_leave_2[] SC_HIDDEN; /* %rcx: where the program goes on */
extern const char sc_intr_start[] SC_HIDDEN, sc_intr_syscall[] SC_HIDDEN, sc_intr_abort[] SC_HIDDEN;
extern const char sc_signal_entry[] SC_HIDDEN, sc_restorer[] SC_HIDDEN;
extern const char sc_uaccess_start[] SC_HIDDEN, sc_uaccess_end[] SC_HIDDEN,
    sc_uaccess_fault[] SC_HIDDEN;
/* As sc_raw_syscall_interruptible, but SC_AGAIN if the call has to be made again after the handler.
 */
long sc_raw_syscall_again(long nr, long a0, long a1, long a2, long a3, long a4, long a5) SC_HIDDEN;
long sc_clone_raw(struct sc_thread_priv *child, long nr, const long args[5]) SC_HIDDEN;
/*
 * Ends the thread without a stack: gives t back (or unmaps it, if unmap_size is not 0) and makes
 * the call nr, which is exit or exit_group.
 */
void sc_exit_raw(struct sc_thread_priv *t, long status, void *block, size_t unmap_size,
		 long nr) SC_HIDDEN __attribute__((noreturn));
void sc_set_gs(void *base) SC_HIDDEN;
extern struct sc_thread_priv *sc_free_list SC_HIDDEN;

static inline bool sc_within(uint64_t ip, const char *start, const char *end)
{
	return ip >= (uint64_t)start && ip < (uint64_t)end;
}

#define sc_raw0(nr)		sc_raw_syscall(nr, 0, 0, 0, 0, 0, 0)
#define sc_raw1(nr, a)		sc_raw_syscall(nr, (long)(a), 0, 0, 0, 0, 0)
#define sc_raw2(nr, a, b)	sc_raw_syscall(nr, (long)(a), (long)(b), 0, 0, 0, 0)
#define sc_raw3(nr, a, b, c)	sc_raw_syscall(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define sc_raw4(nr, a, b, c, d) sc_raw_syscall(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define sc_raw6(nr, a, b, c, d, e, f) \
	sc_raw_syscall(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* A short lock of the interception layer's own. Its holder is in a call, or has all signals
 * blocked. */
static inline void sc_spin_lock(uint32_t *lock)
{
	while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE))
		sc_raw0(__NR_sched_yield);
}

static inline void sc_spin_unlock(uint32_t *lock)
{
	__atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

#endif
