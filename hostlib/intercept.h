/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * intercept.h - the border between catching system calls (intercept*.c, entry.S) and serving them (the rest of
 * hostlib/).
 *
 * Below this border: how a call is caught (Syscall User Dispatch and rewritten sites), on which stack it runs, threads,
 * clone/fork/vfork/exec mechanics, signal deferral, and safe access to the caller's memory. Above it: which domain serves
 * the call. Neither knows the other's insides.
 *
 * The whole library is compiled with -mgeneral-regs-only and calls no libc function (libc's own system-call sites are
 * what we rewrite, and a caller's vector registers are live across a system call). It has its own mem*() (hidden) and
 * its own raw system calls, whose instructions lie in the library's text: the range that Syscall User Dispatch lets pass.
 */
#ifndef HOSTLIB_INTERCEPT_H
#define HOSTLIB_INTERCEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sc_proc; /* process.h: everything that is per process: descriptors, routes, channels */

/*
 * One per thread. Reached through %gs:0 (the thread's GS base points at its struct sc_thread, whose first word is its
 * own address), so it works before and after libc's thread-local storage exists, and in threads libc knows nothing of.
 * Allocated by the interception layer when a thread starts (or, for a program that links the library without
 * interception, at its first API call); freed after the thread is gone.
 */
struct sc_thread {
	struct sc_thread *self;
	struct sc_proc *proc; /* a vfork child has a private copy until it execs or exits */
	uint32_t in_call;     /* depth of dispatch; while non-zero, caught signals are deferred */
	volatile uint32_t
	    signal_pending; /* a deferred signal waits; interruptible waits return EINTR when they see it.
					     Written by the signal handler on this same thread */
	void *
	    /* the serving layer's per-thread state (lanes); NULL until its first remote call */
	    serve;
	uint32_t tid;
	uint32_t flags;
	struct {
		long nr;
		long a[6];
		/* NULL, or called once after the call with its raw result; returns the program's result. Not called
		 * if a handler left the call by siglongjmp. */
		long (*after)(struct sc_thread *t, long result);
		/* see SC_NATIVE_CHANGED; reset by the interception layer before each dispatch */
	} native;
	/* The interception layer's own fields follow in intercept-priv.h's struct. */
};

static inline struct sc_thread *sc_self(void)
{
	struct sc_thread *t;

	__asm__("mov %%gs:0, %0" : "=r"(t));
	return t;
}

/*
 * A fork costs a page fault for each page of code and of data that the child touches. What every fork, and every call, runs
 * through lies together; and so do the variables that a child changes.
 */
#define SC_HOT_TEXT  __attribute__((section(".text.hot.sc")))
#define SC_FORK_DATA __attribute__((section(".data.sc_fork")))

/* ---- provided by the serving layer, called by the interception layer ---- */

/*
 * Executes one system call of the program: nr as in <asm/unistd_64.h>, six arguments. Returns what the kernel would
 * return in %rax (a value, or -errno). Runs on the thread's private dispatch stack (64 KiB) with in_call = 1; may
 * be preempted by signals' handlers only through the deferral above. clone, clone3, fork, vfork, execve, execveat,
 * rt_sigaction, rt_sigreturn, rt_sigprocmask, sigaltstack, prctl(PR_SET_SYSCALL_USER_DISPATCH), arch_prctl(GS), exit and
 * exit_group are taken by the interception layer before this is called (which calls the hooks below for them).
 */
long sc_dispatch(struct sc_thread *t, long nr, long a0, long a1, long a2, long a3, long a4,
		 long a5);

/*
 * What sc_dispatch() returns to say: this call is local after all; run it natively. With SC_NATIVE the call runs with the
 * caller's own number and arguments, outside of the library (in_call == 0), so that a blocking one is interrupted, restarted
 * and cancelled exactly as without us: sc_dispatch() must not run a local call that may block by itself.
 * With SC_NATIVE_CHANGED it runs with number and arguments that sc_dispatch() left in t->native. If a signal's handler is to
 * run before it begins, or the kernel restarts it after a handler, the call comes to sc_dispatch() once more from the
 * start, so pointers in t->native need to be valid until the thread's next dispatch only. With t->native.after set, that
 * function is called with the result, in_call == 1, and what it returns goes to the program; it is not called if
 * the call is dispatched once more, or if a handler leaves it for good. Both values lie outside the kernel's range of results.
 */
#define SC_NATIVE	  (-0x10000L)
#define SC_NATIVE_CHANGED (-0x10001L)

/*
 * True if the call certainly needs no look by the serving layer, decided from the number alone: the entry code then runs
 * it at once. A bitmap indexed by number (bit set: must be dispatched), 512 bits; constant after sc_serve_init().
 */
extern uint64_t sc_dispatch_bitmap[8];

/* Called once, from the constructor, before any site is rewritten. envp is the program's. Returns false if there is
 * nothing to serve (no routes): then nothing is intercepted. */
bool sc_serve_init(char **envp);

void sc_serve_thread_start(
    struct sc_thread *t); /* in the new thread, before it returns to the program */
void sc_serve_thread_exit(
    struct sc_thread *t); /* last thing before the thread's exit system call */
void sc_serve_process_exit(struct sc_thread *t); /* before exit_group */

/* Around a fork (a clone without CLONE_VM). before: in the parent, may refuse with -errno. after_*: result. The child's
 * hook runs in the child before anything else, on its only thread. alone: the parent has no other thread, so no lock need
 * be held across the fork (each store to memory that parent and child share costs both a page fault). */
long sc_serve_before_fork(struct sc_thread *t, bool alone);
void sc_serve_after_fork_parent(struct sc_thread *t, bool alone, long pid_or_error);
void sc_serve_after_fork_child(struct sc_thread *t);

/*
 * vfork and posix_spawn (CLONE_VM without CLONE_THREAD): the child shares memory, not descriptors. The child gets a
 * struct sc_proc of its own from enter (NULL: no memory, the call fails with ENOMEM); leave gives it back, in the
 * parent, when the child has exec'd or exited. A child that runs beside its parent (no CLONE_VFORK) calls leave itself
 * before it exits, with proc being the parent's; if it execs instead, leave is not called (nobody learns of it).
 * sc_serve_thread_start is called in the child; sc_serve_thread_exit is not.
 */
struct sc_proc *sc_serve_vfork_enter(struct sc_thread *parent);
void sc_serve_vfork_leave(struct sc_thread *parent, struct sc_proc *child);

/*
 * Before execve/execveat: the serving layer may rewrite what is executed (a program on a remote path, the
 * environment that carries routing and descriptors to the new image). It returns 0 and fills *x, or -errno. All that x
 * points to stays valid until sc_serve_exec_failed(), which is called if the kernel refused.
 */
struct sc_exec {
	int dirfd;
	const char *path;
	char *const *argv;
	char *const *envp;
	int flags;
};
long sc_serve_before_exec(struct sc_thread *t, struct sc_exec *x);
void sc_serve_exec_failed(struct sc_thread *t, struct sc_exec *x);

/* ---- provided by the interception layer, called by the serving layer ---- */

/* A system call from the library's own text: never caught again. Returns the kernel's raw result. */
long sc_raw_syscall(long nr, long a0, long a1, long a2, long a3, long a4, long a5);

/*
 * The same for a call that may block (futex, ppoll, ...): returns -EINTR instead of blocking if a signal with a handler
 * waits for delivery already, and when one arrives while it blocks, whatever SA_RESTART says. There is no gap between
 * the look and the wait, so "if (sc_signal_waits(t)) ...; sc_raw_syscall(futex wait)" is wrong and this is right.
 */
long sc_raw_syscall_interruptible(long nr, long a0, long a1, long a2, long a3, long a4, long a5);

/*
 * A wait with another signal mask (ppoll, pselect6, epoll_pwait), made with sc_raw_syscall_interruptible() and `now` as the call's
 * mask. begin takes the mask that the program gave; end is called after the wait with its result: a signal that
 * the mask let through, and that the program blocks otherwise, is delivered once at the call's end and is blocked again then.
 */
struct sc_wait_mask {
	uint64_t now;	/* for the system call */
	uint64_t other; /* the program's own */
};
void sc_wait_mask_begin(struct sc_thread *t, struct sc_wait_mask *m, uint64_t mask);
void sc_wait_mask_end(struct sc_thread *t, const struct sc_wait_mask *m, long result);

/*
 * Copies between the library and memory named by the program. A fault yields -EFAULT (negative), as the kernel's
 * copy_from_user would; 0 means all was copied. Uses rep movsb for large and general registers for small copies.
 */
long sc_copy_from_user(void *dst, const void *user_src, size_t len);
long sc_copy_to_user(void *user_dst, const void *src, size_t len);
/* sc_copy_from_user() for data that the agent will read: past the cache, if it is much. */
long sc_copy_to_arena(void *arena, const void *user_src, size_t len);
/* Length of a NUL-terminated string in the program's memory, at most max (returns max if no NUL seen), or -EFAULT. */
long sc_strnlen_user(const char *user, size_t max);

/*
 * May a blocking wait be interrupted? Returns true if a signal with a handler waits for delivery to this thread. The
 * caller then ends its wait and returns -EINTR (or -SC_ERESTART so that the interception layer restarts the call when
 * the handler has SA_RESTART, as the kernel's ERESTARTSYS).
 */
static inline bool sc_signal_waits(const struct sc_thread *t)
{
	return t->signal_pending != 0;
}
#define SC_ERESTART 512 /* never seen by the program */

/* Makes the calling thread known to the library if it is not (programs that use hostsc.h without interception).
 * Returns the thread, or NULL if out of memory. */
struct sc_thread *sc_thread_ensure(void);

/* What interception did, for scrun --stats. Monotonic counters, relaxed. */
struct sc_intercept_stats {
	uint64_t sites_rewritten; /* system-call instructions replaced by a jump */
	uint64_t sites_left;	  /* seen but left to Syscall User Dispatch */
	uint64_t traps;		  /* calls that came by SIGSYS */
	uint64_t signals_deferred;
};
void sc_intercept_get_stats(struct sc_intercept_stats *out);

#endif
