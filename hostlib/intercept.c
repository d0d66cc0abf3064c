/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * intercept.c - start-up of the interception layer, its threads' memory, and what becomes of a call
 * once its registers are in the thread's frame. See intercept-priv.h for the whole picture.
 *
 * Start-up: the library is preloaded and marked initfirst, so that its constructor runs before any
 * other one. It finds the kernel's auxiliary vector behind the environment, makes the first
 * thread's block, asks the serving layer whether there is anything to serve, takes its three
 * signals, and switches Syscall User Dispatch on. From then on every call traps, and sites are
 * rewritten as they turn out to be used (rewrite.c).
 *
 * A thread's block: guard page, dispatch stack, struct sc_thread_priv. Blocks of ended threads are
 * kept for the next ones.
 */
#include "intercept-priv.h"

#define AT_NULL		0
#define AT_PHDR		3
#define AT_PHENT	4
#define AT_PHNUM	5
#define AT_HWCAP2	26
#define HWCAP2_FSGSBASE 2

#define PROT_NONE     0
#define PROT_READ     1
#define PROT_WRITE    2
#define MAP_PRIVATE   2
#define MAP_ANONYMOUS 0x20
#define MAP_NORESERVE 0x4000
#define MADV_DONTNEED 4

#define PR_SET_SECCOMP		     22
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_OFF	     0
#define PR_SYS_DISPATCH_ON	     1
#define SIG_SETMASK		     2
#define PTRACE_TRACEME		     0
#define IORING_ENTER_EXT_ARG	     8
#define ARCH_SET_GS		     0x1001
#define ARCH_GET_GS		     0x1004

#define EXECUTABLE 1 /* PF_X */
#define PT_LOAD	   1

#define STATE_SIZE ((sizeof(struct sc_thread_priv) + SC_PAGE - 1) & ~(SC_PAGE - 1))
#define BLOCK_SIZE (SC_PAGE + SC_STACK_SIZE + STATE_SIZE)
/* The state ends where the block does: its beginning, which every call uses, then shares a page with the top of the stack, and
 * parent and child have one page less to copy after a fork. */
#define STATE_AT (BLOCK_SIZE - ((sizeof(struct sc_thread_priv) + 63) & ~63UL))
/* So many blocks are kept for threads to come; a thread that ends beyond that unmaps its own. */
#define KEEP_BLOCKS 64
/* What a new thread finds zeroed: all but the list of blocks in the middle, and what is written
 * before it is read. */
#define CLEARED_FROM_IN_USE                                \
	(__builtin_offsetof(struct sc_thread_priv, held) - \
	 __builtin_offsetof(struct sc_thread_priv, in_use))

#define AT(field, offset) \
	_Static_assert(__builtin_offsetof(struct sc_thread_priv, field) == (offset), #field)
AT(pub.self, T_SELF);
AT(pub.in_call, T_IN_CALL);
AT(pub.signal_pending, T_SIGNAL_PENDING);
AT(frame.rax, T_RAX);
AT(frame.rdi, T_RDI);
AT(frame.r9, T_R9);
AT(frame.rbx, T_RBX);
AT(frame.r15, T_R15);
AT(frame.rsp, T_RSP);
AT(frame.rip, T_RIP);
AT(frame.rflags, T_RFLAGS);
AT(frame.arith, T_ARITH);
AT(frame.slot, T_SLOT);
AT(frame.nr, T_NR);
AT(frame.ret, T_RET);
AT(stack_top, T_STACK_TOP);
AT(alt_sp, T_ALT_SP);
AT(alt_size, T_ALT_SIZE);
AT(mask, T_MASK);
AT(virt_mask, T_VIRT_MASK);
AT(next_free, T_NEXT_FREE);
_Static_assert(sizeof(struct sc_thread) <= T_FRAME, "the public part has outgrown its room");
_Static_assert(__builtin_offsetof(struct sc_ucontext, stack.sp) == UC_SS_SP, "ucontext");
_Static_assert(__builtin_offsetof(struct sc_ucontext, sigmask) == UC_SIGMASK, "ucontext");
_Static_assert(__builtin_offsetof(struct sc_ucontext, rip) == 168, "ucontext");
_Static_assert(__builtin_offsetof(struct sc_changed, frame.rsp) == 104, "entry.S: unwinding");
_Static_assert(__builtin_offsetof(struct sc_changed, frame.ret) == 152, "entry.S: unwinding");
_Static_assert(sizeof(struct sc_siginfo) == 128, "siginfo");
_Static_assert(SC_VIRT_SIGNALS == (SC_BIT(7) | SC_BIT(11) | SC_BIT(31)), "signals that are ours");

struct phdr {
	uint32_t type, flags;
	uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

extern const char __ehdr_start[] SC_HIDDEN; /* our ELF header, by the linker */
uint64_t sc_get_gs(void) SC_HIDDEN;

uint64_t sc_text_start, sc_text_end;
uint8_t sc_call_table[SC_TABLE_SIZE];
uint32_t sc_have_fsgsbase;
uint32_t sc_no_rewriting;
struct sc_intercept_stats sc_stats;
struct sc_thread_priv *sc_free_list;

static struct sc_thread_priv *all_threads; /* every block that is mapped, in use or not */
static uint32_t threads_lock;		   /* all_threads, and taking from sc_free_list */
static bool intercepting;
static long api_pid;	   /* process in which SC_T_API_ONLY threads live */
static uint32_t nr_blocks; /* relaxed: a bound, not a count to rely on */
static uint32_t
    nr_live; /* threads that may still use anything but their own block; release/acquire */
static const uint8_t always_block = 1; /* SYSCALL_DISPATCH_FILTER_BLOCK, for all threads */

/* Numbers that this layer looks at, whatever the serving layer thinks. */
static const uint16_t own_calls[] = {
    __NR_rt_sigaction,	__NR_rt_sigprocmask, __NR_rt_sigreturn,	  __NR_rt_sigpending,
    __NR_sigaltstack,	__NR_clone,	     __NR_clone3,	  __NR_fork,
    __NR_vfork,		__NR_execve,	     __NR_execveat,	  __NR_exit,
    __NR_exit_group,	__NR_prctl,	     __NR_arch_prctl,	  __NR_seccomp,
    __NR_rt_sigsuspend, __NR_ppoll,	     __NR_pselect6,	  __NR_epoll_pwait,
    __NR_epoll_pwait2,	__NR_io_pgetevents,  __NR_io_uring_enter, __NR_ptrace,
};

void sc_die(const char *why)
{
	size_t len = 0;

	while (why[len])
		len++;
	sc_raw3(__NR_write, 2, why, len);
	sc_raw1(__NR_exit_group, 127);
	__builtin_unreachable();
}

void sc_intercept_get_stats(struct sc_intercept_stats *out)
{
	out->sites_rewritten = __atomic_load_n(&sc_stats.sites_rewritten, __ATOMIC_RELAXED);
	out->sites_left = __atomic_load_n(&sc_stats.sites_left, __ATOMIC_RELAXED);
	out->traps = __atomic_load_n(&sc_stats.traps, __ATOMIC_RELAXED);
	out->signals_deferred = __atomic_load_n(&sc_stats.signals_deferred, __ATOMIC_RELAXED);
}

/* ---- threads' memory ---- */

static struct sc_thread_priv *block_map(void)
{
	long at = sc_raw6(__NR_mmap, 0, BLOCK_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at < 0)
		return NULL;
	sc_raw3(__NR_mprotect, at, SC_PAGE, PROT_NONE);
	__atomic_fetch_add(&nr_blocks, 1, __ATOMIC_RELAXED);
	return (struct sc_thread_priv *)(at + STATE_AT);
}

static void *block_start(struct sc_thread_priv *t)
{
	return (uint8_t *)t - STATE_AT;
}

static void list_add(struct sc_thread_priv *t)
{
	t->next = all_threads;
	t->prev = NULL;
	if (t->next)
		t->next->prev = t;
	all_threads = t;
}

static void list_remove(struct sc_thread_priv *t)
{
	if (t->prev)
		t->prev->next = t->next;
	else
		all_threads = t->next;
	if (t->next)
		t->next->prev = t->prev;
}

/* Threads that exit push without the lock (sc_exit_raw); only its holder pops, so nothing can come
 * back in between. */
static struct sc_thread_priv *free_list_pop(void)
{
	struct sc_thread_priv *t = __atomic_load_n(&sc_free_list, __ATOMIC_ACQUIRE);

	while (t && !__atomic_compare_exchange_n(&sc_free_list, &t, t->next_free, false,
						 __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
		;
	return t;
}

static void free_list_push(struct sc_thread_priv *t)
{
	t->next_free = __atomic_load_n(&sc_free_list, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&sc_free_list, &t->next_free, t, false,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

/* A zeroed thread with its own address and stack filled in, or NULL. The caller is in a call, or
 * single. */
struct sc_thread_priv *sc_thread_alloc(void)
{
	struct sc_thread_priv *t;

	sc_spin_lock(&threads_lock);
	t = free_list_pop();
	if (!t) {
		t = block_map();
		if (t)
			list_add(t);
	}
	if (t) {
		__builtin_memset(t, 0, __builtin_offsetof(struct sc_thread_priv, next));
		__builtin_memset(&t->in_use, 0, CLEARED_FROM_IN_USE);
		t->in_use = 1;
		__atomic_fetch_add(&nr_live, 1, __ATOMIC_RELAXED);
		t->pub.self = &t->pub;
		t->stack_top = (uint64_t)t;
	}
	sc_spin_unlock(&threads_lock);
	return t;
}

void sc_thread_free(struct sc_thread_priv *t)
{
	if (t->own_sighand)
		sc_raw2(__NR_munmap, t->own_sighand, sizeof(*t->own_sighand));
	t->own_sighand = NULL;
	t->in_use = 0;
	free_list_push(t);
	__atomic_fetch_sub(&nr_live, 1, __ATOMIC_RELEASE);
}

/* Only a thread makes others: if there is none now but the caller, there is none until it makes one. */
bool sc_threads_alone(void)
{
	/* acquire: what threads that have gone did to shared data is seen */
	return __atomic_load_n(&nr_live, __ATOMIC_ACQUIRE) == 1;
}

void sc_threads_before_fork(void)
{
	sc_spin_lock(&threads_lock);
}

void sc_threads_after_fork(void)
{
	sc_spin_unlock(&threads_lock);
}

/* The child has one thread; the blocks of the others are free. */
SC_HOT_TEXT void sc_threads_in_child(struct sc_thread_priv *self)
{
	if (!self->next && !self->prev && !sc_free_list && !threads_lock)
		return; /* nothing to be changed: a store would cost a page fault */
	sc_free_list = NULL;
	for (struct sc_thread_priv *t = all_threads; t; t = t->next) {
		if (t == self)
			continue;
		t->in_use = 0;
		t->own_sighand = NULL;
		free_list_push(t);
	}
	nr_live = 1;
	sc_spin_unlock(&threads_lock);
}

/* The last steps of a thread. All signals are blocked; nothing of its block is used after
 * sc_exit_raw gave it back. */
static void __attribute__((noreturn)) leave(struct sc_thread_priv *t)
{
	bool keep = __atomic_load_n(&nr_blocks, __ATOMIC_RELAXED) <= KEEP_BLOCKS;
	long status = (long)t->frame.rdi;
	long nr = (long)t->frame.nr;

	if (t->pub.flags & SC_T_PARENT_FREES)
		sc_raw1(nr, status);
	if (t->pub.flags & SC_T_VFORK) { /* nobody waits for its end to do this */
		struct sc_proc *proc = t->pub.proc;

		t->pub.proc = t->parent_proc;
		sc_serve_vfork_leave(&t->pub, proc);
	}
	if (t->own_sighand)
		sc_raw2(__NR_munmap, t->own_sighand, sizeof(*t->own_sighand));
	t->own_sighand = NULL;
	t->in_use = 0;
	if (keep) {
		__atomic_fetch_sub(&nr_live, 1, __ATOMIC_RELEASE);
		sc_exit_raw(t, status, NULL, 0, nr);
	}
	__atomic_fetch_sub(&nr_blocks, 1, __ATOMIC_RELAXED);
	sc_spin_lock(&threads_lock);
	list_remove(t);
	sc_spin_unlock(&threads_lock);
	__atomic_fetch_sub(&nr_live, 1, __ATOMIC_RELEASE);
	sc_exit_raw(t, status, block_start(t), BLOCK_SIZE, nr);
}

/* exit: returns only if signals that came before have to be handled first; the call is then to be
 * made again. */
void sc_exit(struct sc_thread_priv *t)
{
	sc_block_all(t);
	if (t->deferred)
		return;
	if (!(t->pub.flags & SC_T_VFORK))
		sc_serve_thread_exit(&t->pub);
	leave(t);
}

/*
 * For a program that calls hostsc.h without interception: no hook tells us of its threads' ends, so
 * look for one that is dead, and take its block. A thread that is not known yet, but has the number
 * of a known one, follows a dead one.
 */
static struct sc_thread_priv *reclaim(uint32_t tid)
{
	long pid = sc_raw0(__NR_getpid);
	struct sc_thread_priv *t;

	sc_spin_lock(&threads_lock);
	if (pid !=
	    api_pid) /* forked: numbers of the parent's threads say nothing here, so let those be */
		for (t = all_threads; t; t = t->next)
			t->pub.flags &= ~SC_T_API_ONLY;
	api_pid = pid;
	for (t = all_threads; t; t = t->next) {
		if (!(t->pub.flags & SC_T_API_ONLY))
			continue;
		if (t->pub.tid == tid || sc_raw3(__NR_tgkill, pid, t->pub.tid, 0) == -ESRCH)
			break;
	}
	if (t)
		t->pub.tid = tid;
	sc_spin_unlock(&threads_lock);
	return t;
}

/* The address of libc's thread control block: tells threads apart that have the same %gs, which
 * clone copies. */
static uint64_t tcb(void)
{
	uint64_t p;

	__asm__("mov %%fs:0, %0" : "=r"(p));
	return p;
}

static struct sc_thread_priv *current_or_null(void)
{
	uint64_t base = 0;

	if (sc_have_fsgsbase)
		base = sc_get_gs();
	else
		sc_raw2(__NR_arch_prctl, ARCH_GET_GS, &base);
	return (struct sc_thread_priv *)base;
}

struct sc_thread *sc_thread_ensure(void)
{
	struct sc_thread_priv *t = current_or_null();
	uint32_t tid;
	uint64_t mask;
	uint64_t all = ~0UL;

	if (t && (intercepting || t->tcb == tcb()))
		return &t->pub;
	/* A handler on this thread may call the API, too. */
	sc_raw4(__NR_rt_sigprocmask, SIG_SETMASK, &all, &mask, 8);
	tid = (uint32_t)sc_raw0(__NR_gettid);
	t = reclaim(tid);
	if (t)
		sc_serve_thread_exit(&t->pub);
	else
		t = sc_thread_alloc();
	if (t) {
		t->pub.serve = NULL;
		t->pub.tid = tid;
		t->pub.flags = SC_T_API_ONLY;
		t->tcb = tcb();
		sc_set_gs(t);
	}
	sc_raw4(__NR_rt_sigprocmask, SIG_SETMASK, &mask, 0, 8);
	return t ? &t->pub : NULL;
}

/* ---- a call ---- */

void sc_restart(struct sc_thread_priv *t)
{
	t->frame.rax = t->frame.nr;
	t->frame.rip = t->frame.ret - 2;
}

/* Where the call takes a signal mask, and where that mask's size. */
static int mask_argument(long nr)
{
	switch (nr) {
	case __NR_rt_sigsuspend:
		return 0;
	case __NR_ppoll:
		return 3;
	case __NR_epoll_pwait:
	case __NR_epoll_pwait2:
	case __NR_io_uring_enter:
		return 4;
	case __NR_pselect6:
	case __NR_io_pgetevents:
		return 5;
	default:
		return -1;
	}
}

/* Does the call wait with a signal mask of its own? */
static bool has_mask(long nr, const long *a)
{
	int i = mask_argument(nr);

	return i >= 0 && a[i] && !(nr == __NR_io_uring_enter && (a[3] & IORING_ENTER_EXT_ARG));
}

/*
 * If the call waits with a mask that names signals which must not be blocked, makes it use a copy
 * of the mask that does not. `block` is where the copy will lie. Returns true if a[] was changed.
 */
static bool clean_mask(long nr, long *a, struct sc_changed *block, const struct sc_changed *at)
{
	int i = mask_argument(nr);
	uint64_t pair[2];

	if (!has_mask(nr, a))
		return false;
	if (i == 5) {
		if (sc_copy_from_user(pair, (void *)a[i], sizeof(pair)) || !pair[0])
			return false;
		if (sc_copy_from_user(&block->mask, (void *)pair[0], sizeof(block->mask)))
			return false;
		block->mask_arg[0] = (uint64_t)&at->mask;
		block->mask_arg[1] = pair[1];
	} else if (sc_copy_from_user(&block->mask, (void *)a[i], sizeof(block->mask))) {
		return false;
	}
	if (!(block->mask & SC_VIRT_SIGNALS))
		return false;
	block->mask &= ~(uint64_t)SC_VIRT_SIGNALS;
	a[i] = i == 5 ? (long)at->mask_arg : (long)&at->mask;
	return true;
}

static void run_in_slot(struct sc_thread_priv *t)
{
	t->frame.rip = t->frame.slot;
	if (t->frame.slot == (uint64_t)sc_slot_on_stack)
		t->frame.rsp -= 136;
}

/* A native call with a mask other than the program's: what is needed afterwards goes on the
 * program's stack. */
static void run_changed(struct sc_thread_priv *t, long nr, const long *a, struct sc_changed *block,
			struct sc_changed *at)
{
	struct sc_frame *f = &t->frame;

	block->frame = *f;
	if (sc_copy_to_user(at, block, sizeof(*block))) {
		f->rax = (uint64_t)-EFAULT;
		f->rip = f->ret;
		return;
	}
	f->rax = (uint64_t)nr;
	f->rdi = (uint64_t)a[0];
	f->rsi = (uint64_t)a[1];
	f->rdx = (uint64_t)a[2];
	f->r10 = (uint64_t)a[3];
	f->r8 = (uint64_t)a[4];
	f->r9 = (uint64_t)a[5];
	f->rsp = (uint64_t)at;
	f->rip = (uint64_t)sc_changed_stub;
}

static void run_native(struct sc_thread_priv *t, bool changed)
{
	struct sc_frame *f = &t->frame;
	struct sc_changed block;
	struct sc_changed *at = (void *)((f->rsp - 128 - sizeof(block)) & ~15UL);
	long nr = changed ? t->pub.native.nr : (long)f->nr;
	long a[6] = {(long)f->rdi, (long)f->rsi, (long)f->rdx,
		     (long)f->r10, (long)f->r8,	 (long)f->r9};

	if (changed)
		for (int i = 0; i < 6; i++)
			a[i] = t->pub.native.a[i];
	block.after = t->pub.native.after;
	if (clean_mask(nr, a, &block, at) || changed || block.after)
		run_changed(t, nr, a, &block, at);
	else
		run_in_slot(t);
}

/*
 * A native call with changed arguments that has no mask: made right here, on the dispatch stack.
 * The signal that interrupts it is deferred to the call's end; whether the call fails or is made
 * again is what the kernel decided.
 */
static long run_here(struct sc_thread_priv *t)
{
	const long *a = t->pub.native.a;
	long r = sc_raw_syscall_again(t->pub.native.nr, a[0], a[1], a[2], a[3], a[4], a[5]);

	return r == SC_AGAIN || !t->pub.native.after ? r : t->pub.native.after(&t->pub, r);
}

/* After a native call with a changed mask: on the dispatch stack again, in_call set. */
void sc_changed_done_c(struct sc_thread_priv *t, struct sc_changed *block)
{
	long result = (long)t->frame.rax;
	long (*after)(struct sc_thread *, long) = block->after;
	struct sc_frame *f = &t->frame;
	struct sc_frame now = *f;

	*f = block->frame;
	f->rflags = now.rflags;
	f->arith = now.arith;
	if (after)
		result = after(&t->pub, result);
	f->rax = (uint64_t)result;
	f->rip = f->ret;
	if (t->pub.flags & SC_T_ALT_OFF)
		sc_alt_leave(t);
}

static long do_prctl(struct sc_thread_priv *t)
{
	const struct sc_frame *f = &t->frame;
	int option = (int)f->rdi;

	if (option == PR_SET_SYSCALL_USER_DISPATCH && (int)f->rsi == PR_SYS_DISPATCH_OFF)
		return f->rdx || f->r10 || f->r8 ? -EINVAL
						 : 0; /* the program has none that is on */
	if (option == PR_SET_SYSCALL_USER_DISPATCH)
		return -EINVAL; /* as a kernel without it: a program that has a use for it has a
				   fallback */
	if (option == PR_SET_SECCOMP)
		sc_no_rewriting = 1;
	return SC_NATIVE;
}

static long do_arch_prctl(struct sc_thread_priv *t)
{
	uint64_t none = 0;

	if ((int)t->frame.rdi == ARCH_SET_GS)
		return -EPERM; /* %gs is ours */
	if ((int)t->frame.rdi == ARCH_GET_GS)
		return sc_copy_to_user((void *)t->frame.rsi, &none, sizeof(none));
	return SC_NATIVE;
}

static long do_sigreturn(struct sc_thread_priv *t)
{
	struct sc_ucontext *uc = (struct sc_ucontext *)t->frame.rsp;
	uint64_t mask;

	if (!sc_copy_from_user(&mask, &uc->sigmask, sizeof(mask)))
		sc_fix_sigreturn(uc);
	return SC_NATIVE;
}

static long serve(struct sc_thread_priv *t, long nr)
{
	const struct sc_frame *f = &t->frame;

	if ((uint64_t)nr >= 512)
		return (uint64_t)nr >= SC_TABLE_SIZE ? -ENOSYS : SC_NATIVE;
	if (!(sc_dispatch_bitmap[nr / 64] & (1UL << (nr % 64))))
		return SC_NATIVE;
	return sc_dispatch(&t->pub, nr, (long)f->rdi, (long)f->rsi, (long)f->rdx, (long)f->r10,
			   (long)f->r8, (long)f->r9);
}

static long call(struct sc_thread_priv *t, long nr)
{
	long r = SC_NATIVE;

	switch (nr) {
	case __NR_rt_sigaction:
		return sc_rt_sigaction(t);
	case __NR_rt_sigprocmask:
		return sc_rt_sigprocmask(t);
	case __NR_rt_sigpending:
		return sc_rt_sigpending(t);
	case __NR_rt_sigreturn:
		return do_sigreturn(t);
	case __NR_sigaltstack:
		return sc_sigaltstack(t);
	case __NR_clone:
	case __NR_clone3:
	case __NR_fork:
	case __NR_vfork:
		return sc_clone(t);
	case __NR_execve:
	case __NR_execveat:
		return sc_exec(t);
	case __NR_exit:
		sc_exit(t);
		return SC_AGAIN;
	case __NR_exit_group:
		sc_serve_process_exit(&t->pub);
		if ((t->pub.flags & (SC_T_VFORK | SC_T_PARENT_FREES)) != SC_T_VFORK)
			return SC_NATIVE;
		sc_exit(t); /* the memory outlives this process */
		return SC_AGAIN;
	case __NR_prctl:
		r = do_prctl(t);
		break;
	case __NR_arch_prctl:
		return do_arch_prctl(t);
	case __NR_seccomp:
		sc_no_rewriting = 1;
		break;
	case __NR_ptrace:
		/* Traps would now stop us. If the tracer waits for its vfork child to exec, it
		 * would never learn of them. */
		if (t->frame.rdi == PTRACE_TRACEME)
			sc_rewrite_all();
		break;
	}
	return r == SC_NATIVE ? serve(t, nr) : r;
}

/* Was the first signal that was put away to restart the call that it interrupted? */
static bool wants_restart(const struct sc_thread_priv *t)
{
	const struct sc_action *a = &t->sighand->action[t->defer[0].signo];

	return !t->deferred || (a->act.flags & 0x10000000 /* SA_RESTART */);
}

/* From entry.S: the program's registers are in t->frame; leaves there what it shall have. */
SC_HOT_TEXT void sc_entry_c(struct sc_thread_priv *t)
{
	struct sc_frame *f = &t->frame;
	long r;

	if (f->slot == (uint64_t)sc_slot_on_stack) {
		f->ret = *(uint64_t *)f->rsp;
		f->rsp += 136;
	} else {
		f->ret = sc_slot_ret[(f->slot - (uint64_t)sc_slots) >> SC_SLOT_SHIFT];
	}
	if (t->rewrite) {
		sc_rewrite(t->rewrite, f->nr);
		t->rewrite = 0;
	}
	f->nr = (uint32_t)f->nr;
	t->pub.native.after = NULL;
	r = call(t, (long)f->nr);
	if (r == SC_NATIVE_CHANGED && !has_mask(t->pub.native.nr, t->pub.native.a))
		r = run_here(t);
	if (t->pub.flags & SC_T_ALT_OFF)
		sc_alt_leave(t);
	if (r == SC_NATIVE || r == SC_NATIVE_CHANGED) {
		run_native(t, r == SC_NATIVE_CHANGED);
		return;
	}
	if (r == -SC_ERESTART && !wants_restart(t))
		r = -EINTR;
	if (r == -SC_ERESTART || r == SC_AGAIN) {
		sc_restart(t);
		return;
	}
	f->rax = (uint64_t)r;
	f->rip = f->ret;
}

/* ---- start ---- */

SC_HOT_TEXT long sc_arm(void)
{
	return sc_raw_syscall(__NR_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON,
			      (long)sc_text_start, (long)(sc_text_end - sc_text_start),
			      (long)&always_block, 0);
}

static void find_text(void)
{
	const uint8_t *elf = (const uint8_t *)__ehdr_start;
	const struct phdr *ph = (const struct phdr *)(elf + *(const uint64_t *)(elf + 32));
	uint16_t n = *(const uint16_t *)(elf + 56);

	for (uint16_t i = 0; i < n; i++) {
		if (ph[i].type != PT_LOAD || !(ph[i].flags & EXECUTABLE))
			continue;
		sc_text_start = (uint64_t)elf + ph[i].vaddr;
		sc_text_end = sc_text_start + ph[i].memsz;
	}
}

static uint64_t auxv_get(const uint64_t *auxv, uint64_t type)
{
	for (; auxv[0] != AT_NULL; auxv += 2)
		if (auxv[0] == type)
			return auxv[1];
	return 0;
}

static void find_fsgsbase(const uint64_t *auxv)
{
	sc_have_fsgsbase = (auxv_get(auxv, AT_HWCAP2) & HWCAP2_FSGSBASE) != 0;
}

static void fill_table(void)
{
	for (uint32_t nr = 0; nr < 512; nr++)
		sc_call_table[nr] = (sc_dispatch_bitmap[nr / 64] >> (nr % 64)) & 1;
	for (size_t i = 0; i < sizeof(own_calls) / sizeof(own_calls[0]); i++)
		sc_call_table[own_calls[i]] = 1;
}

static void unused_block(struct sc_thread_priv *t)
{
	sc_set_gs(NULL);
	list_remove(t);
	sc_raw2(__NR_munmap, block_start(t), BLOCK_SIZE);
}

static void start(char **envp)
{
	const uint64_t *auxv = (const uint64_t *)envp;
	struct sc_thread_priv *t;

	while (*auxv)
		auxv++;
	auxv++;
	find_fsgsbase(auxv);
	/*
	 * Another copy of this library intercepts already (LD_AUDIT brought it; this one is what the program is linked with):
	 * then we serve the C API alone, and %gs is not ours to change; arch_prctl says so.
	 */
	if (sc_have_fsgsbase && sc_get_gs()) {
		sc_have_fsgsbase = 0;
		sc_serve_init(
		    envp); /* no routes are left in the environment, but where brokers are */
		return;
	}
	find_text();
	t = sc_thread_alloc();
	if (!t)
		sc_die("libhostsc: no memory for the first thread\n");
	t->pub.tid = (uint32_t)sc_raw0(__NR_gettid);
	sc_set_gs(t);
	if (!sc_serve_init(envp)) {
		unused_block(t);
		return;
	}
	intercepting = true;
	fill_table();
	sc_rewrite_init(auxv_get(auxv, AT_PHDR), auxv_get(auxv, AT_PHNUM),
			auxv_get(auxv, AT_PHENT));
	if (sc_signals_init(t))
		sc_die("libhostsc: cannot take SIGSYS; is the program under a seccomp filter?\n");
	sc_serve_thread_start(&t->pub);
	if (sc_arm())
		sc_die(
		    "libhostsc: this kernel has no Syscall User Dispatch: Linux 5.11 or later with "
		    "CONFIG_GENERIC_ENTRY is needed\n");
}

/* What makes the library one that the loader takes from LD_AUDIT; exec.h says when it is put there. */
unsigned int la_version(unsigned int version) __attribute__((visibility("default")));

unsigned int la_version(unsigned int version)
{
	return version;
}

/* The dynamic loader passes these to constructors. */
static void __attribute__((constructor)) constructor(int argc, char **argv, char **envp)
{
	start(envp);
}
