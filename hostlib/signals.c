/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * signals.c - signals of a program whose calls are caught.
 *
 * Every handler of the program is replaced, in the kernel, by sc_signal_entry, with the program's
 * own flags and mask, and kept in a table from which queries are answered. The wrapper decides by
 * where the thread was:
 *
 *   in the program, or in a native call   the handler runs at once, entered by a jump with
 * registers and stack as the kernel made them. An address within a slot is shown as the site's. in
 * a dispatched call                  the signal is put away and stays blocked; at the call's end it
 * is given back to the kernel, which then delivers it by all its rules (sc_deliver_c). on the last
 * stretch of the way back   the call is completed on paper, then as in the first case.
 *
 * SIGSYS, SIGSEGV and SIGBUS are ours always: the first brings the calls, the others are how a bad
 * pointer of the program shows in our copies. The kernel kills a thread in which a forced signal is
 * blocked, so these three are never blocked in the kernel: what the program believes is its mask of
 * them is kept in virt_mask, and uc_sigmask shows it to handlers.
 */
#include "intercept-priv.h"

#define SA_RESTORER  0x04000000UL
#define SA_ONSTACK   0x08000000UL
#define SA_RESTART   0x10000000UL
#define SA_NODEFER   0x40000000UL
#define SA_RESETHAND 0x80000000UL
#define SA_SIGINFO   4UL
/* What the kernel keeps of sa_flags; it clears the others, and programs probe for that. */
#define SA_KNOWN \
	(SA_RESTORER | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND | SA_SIGINFO | 0x803UL)

#define SIG_DFL 0UL
#define SIG_IGN 1UL

#define SIGBUS	    7
#define SIGKILL	    9
#define SIGSEGV	    11
#define SIGSTOP	    19
#define SIGSYS	    31
#define SIGRT_FIRST 32 /* the kernel's, not libc's */

#define SIG_BLOCK   0
#define SIG_UNBLOCK 1
#define SIG_SETMASK 2

#define SS_ONSTACK    1
#define SS_DISABLE    2
#define SS_AUTODISARM ((int32_t)0x80000000)

#define SYS_SECCOMP	  1 /* si_code */
#define SYS_USER_DISPATCH 2
#define AUDIT_ARCH_X86_64 0xc000003eU

#define ARITH_FLAGS 0x8d5UL /* carry, parity, adjust, zero, sign, overflow */

struct sc_sighand sc_main_sighand;

static const int virt_signal[3] = {SIGBUS, SIGSEGV, SIGSYS};

static long set_mask(int how, uint64_t set, uint64_t *old)
{
	return sc_raw4(__NR_rt_sigprocmask, how, &set, old, sizeof(set));
}

static int is_virt(int sig)
{
	return (SC_BIT(sig) & SC_VIRT_SIGNALS) != 0;
}

/* ---- delivery ---- */

static void requeue(struct sc_thread_priv *t, const struct sc_siginfo *info)
{
	long pid = sc_raw0(__NR_getpid);

	/* To ourselves the kernel allows any si_code. It may refuse if too many realtime signals
	 * are queued. */
	if (sc_raw4(__NR_rt_tgsigqueueinfo, pid, t->pub.tid, info->signo, info))
		sc_raw3(__NR_tgkill, pid, t->pub.tid, info->signo);
}

/*
 * Realtime signals of one number are delivered in the order in which they were sent. Those that the
 * kernel holds, because we had blocked their number, are younger than what was put away: they have
 * to come after it.
 */
static void collect_younger(struct sc_thread_priv *t)
{
	static const uint64_t no_time[2];
	uint64_t set = t->deferred_set & ~(SC_BIT(SIGRT_FIRST) - 1);

	while (set && t->deferred < SC_DEFER_MAX) {
		if (sc_raw4(__NR_rt_sigtimedwait, &set, &t->defer[t->deferred], no_time, 8) <= 0)
			return;
		t->deferred++;
	}
}

/* Gives all that was put away back to the kernel; all signals are blocked. Returns the set we had
 * blocked for it. */
static uint64_t requeue_deferred(struct sc_thread_priv *t)
{
	uint64_t set = t->deferred_set;
	uint32_t n;

	collect_younger(t);
	n = t->deferred < SC_DEFER_MAX ? t->deferred : SC_DEFER_MAX;
	for (uint32_t i = 0; i < n; i++)
		requeue(t, &t->defer[i]);
	for (uint32_t i = 0; i < 3; i++) {
		if (!(t->virt_held & (1u << i)) || (t->virt_mask & SC_BIT(virt_signal[i])))
			continue;
		t->virt_held &= ~(1u << i);
		requeue(t, &t->held[i]);
	}
	t->deferred = 0;
	t->deferred_set = 0;
	t->pub.signal_pending = 0;
	return set;
}

void sc_block_all(struct sc_thread_priv *t)
{
	if (t->pub.flags & SC_T_HAVE_MASK)
		return;
	set_mask(SIG_SETMASK, ~0UL, &t->mask);
	t->pub.flags |= SC_T_HAVE_MASK;
	t->pub.signal_pending = 1; /* takes the call's end to sc_deliver_c */
}

/* At a call's end, called from entry.S, which then sets the mask that this leaves in t->mask. */
void sc_deliver_c(struct sc_thread_priv *t)
{
	sc_block_all(t);
	t->pub.flags &= ~SC_T_HAVE_MASK;
	t->mask &= ~requeue_deferred(t);
}

static void defer(struct sc_thread_priv *t, const struct sc_siginfo *info, struct sc_ucontext *uc)
{
	uint32_t i = __atomic_fetch_add(&t->deferred, 1, __ATOMIC_RELAXED);

	if (i < SC_DEFER_MAX)
		t->defer[i] = *info;
	__atomic_fetch_or(&t->deferred_set, SC_BIT(info->signo), __ATOMIC_RELAXED);
	uc->sigmask |= t->deferred_set;
	t->pub.signal_pending = 1;
	__atomic_fetch_add(&sc_stats.signals_deferred, 1, __ATOMIC_RELAXED);
	if (uc->rip >= (uint64_t)sc_intr_start && uc->rip <= (uint64_t)sc_intr_syscall)
		uc->rip = (uint64_t)sc_intr_abort;
	if (uc->rip >= (uint64_t)sc_again_start && uc->rip <= (uint64_t)sc_again_syscall)
		uc->rip = (uint64_t)sc_again_abort;
}

static uint64_t frame_flags(const struct sc_frame *f)
{
	uint64_t low = (f->arith >> 8) & 0xff;
	uint64_t overflow = (f->arith & 1) << 11;

	return (f->rflags & ~ARITH_FLAGS) | (low & ARITH_FLAGS) | overflow;
}

/* The rest of the way back from a call, done in the interrupted context. */
static void roll_forward(struct sc_thread_priv *t, struct sc_ucontext *uc)
{
	const struct sc_frame *f = &t->frame;

	uc->rax = f->rax;
	uc->rdi = f->rdi;
	uc->rsi = f->rsi;
	uc->rdx = f->rdx;
	uc->r10 = f->r10;
	uc->r8 = f->r8;
	uc->r9 = f->r9;
	uc->rbx = f->rbx;
	uc->rbp = f->rbp;
	uc->r12 = f->r12;
	uc->r13 = f->r13;
	uc->r14 = f->r14;
	uc->r15 = f->r15;
	uc->rsp = f->rsp;
	uc->rip = f->rip;
	uc->rcx = f->rip;
	uc->rflags = frame_flags(f);
	uc->r11 = uc->rflags;
	__atomic_store_n(&t->pub.in_call, 0, __ATOMIC_RELEASE);
}

/* A changed native call that has not begun, or is to be restarted: back to the site, as it was. */
static void roll_back_changed(struct sc_ucontext *uc)
{
	const struct sc_changed *block = (const struct sc_changed *)uc->rsp;
	const struct sc_frame *f = &block->frame;

	uc->rax = f->nr;
	uc->rdi = f->rdi;
	uc->rsi = f->rsi;
	uc->rdx = f->rdx;
	uc->r10 = f->r10;
	uc->r8 = f->r8;
	uc->r9 = f->r9;
	uc->rsp = f->rsp;
	uc->rip = f->ret - 2;
}

static uint64_t slot_ret(uint64_t at)
{
	return sc_slot_ret[(at - (uint64_t)sc_slots) >> SC_SLOT_SHIFT];
}

/* What the program's handler, an unwinder, or a cancellation point's check should see instead of
 * our addresses. */
static void show_site(struct sc_ucontext *uc, struct sc_siginfo *info)
{
	uint64_t was = uc->rip;

	if (uc->rip == (uint64_t)sc_changed_stub)
		roll_back_changed(uc);
	if (uc->rip == (uint64_t)sc_leave_1 || uc->rip == (uint64_t)sc_leave_2)
		uc->rip = uc->rcx;
	if (uc->rip == (uint64_t)sc_entry_dispatch && sc_within(uc->rcx, sc_slots, sc_slots_end))
		uc->rip = uc->rcx; /* on its way in; the number is still in %rax */
	if (sc_within(uc->rip, sc_slots, sc_slots_end)) {
		bool begun = uc->rip & ((1 << SC_SLOT_SHIFT) - 1);

		uc->rip = begun ? slot_ret(uc->rip) : slot_ret(uc->rip) - 2;
	}
	if (info->signo == SIGSYS && info->code == SYS_SECCOMP && info->address == was)
		info->address = uc->rip; /* programs check that these two agree */
}

/* The kernel does by default what the signal does by default. A synchronous fault simply happens
 * again. */
static void *take_default(struct sc_thread_priv *t, int sig, const struct sc_siginfo *info,
			  struct sc_ucontext *uc, bool again)
{
	struct sc_ksigaction act = {.handler = SIG_DFL};

	sc_raw4(__NR_rt_sigaction, sig, &act, 0, 8);
	uc->sigmask &= ~SC_BIT(sig);
	if (!again)
		requeue(t, info);
	return NULL;
}

static void hold(struct sc_thread_priv *t, int sig, const struct sc_siginfo *info)
{
	for (uint32_t i = 0; i < 3; i++) {
		if (virt_signal[i] != sig || (t->virt_held & (1u << i)))
			continue;
		t->held[i] = *info;
		t->virt_held |= 1u << i;
	}
}

/* A signal that reached the program: returns the handler to run, or NULL. */
static void *run_handler(struct sc_thread_priv *t, int sig, const struct sc_siginfo *info,
			 struct sc_ucontext *uc)
{
	struct sc_action *a = &t->sighand->action[sig];
	uint64_t handler = __atomic_load_n(&a->act.handler, __ATOMIC_ACQUIRE);
	bool forced = is_virt(sig) && info->code > 0;
	uint64_t virt = t->virt_mask;

	if (virt & SC_BIT(sig)) {
		if (forced)
			return take_default(t, sig, info, uc, sig != SIGSYS);
		hold(t, sig, info);
		return NULL;
	}
	if (is_virt(sig) && (handler == SIG_DFL || (handler == SIG_IGN && forced)))
		return take_default(t, sig, info, uc, forced && sig != SIGSYS);
	if (is_virt(sig) && handler == SIG_IGN)
		return NULL;
	if (handler == SIG_DFL || handler == SIG_IGN)
		handler = a->handler; /* it was on its way when the action changed */

	if (t->deferred) { /* others came while the last stretch was being completed */
		uint64_t mask;
		uint64_t set;

		set_mask(SIG_SETMASK, ~0UL, &mask);
		set = requeue_deferred(t);
		uc->sigmask &= ~set;
		set_mask(SIG_SETMASK, mask & ~set, NULL); /* their handlers run here */
	}
	if (t->reblock) {
		uc->sigmask |= t->reblock;
		t->reblock_left &= ~SC_BIT(sig);
		if (!t->reblock_left)
			t->reblock = 0;
	}
	uc->sigmask |= virt;
	t->virt_mask = virt | (a->act.mask & SC_VIRT_SIGNALS);
	if (is_virt(sig) && !(a->act.flags & SA_NODEFER))
		t->virt_mask |= SC_BIT(sig);
	if (a->act.flags & SA_RESETHAND) {
		__atomic_store_n(&a->act.handler, SIG_DFL, __ATOMIC_RELEASE);
		if (!is_virt(sig)) {
			struct sc_ksigaction act = {.handler = SIG_DFL,
						    .flags = a->act.flags,
						    .restorer = a->act.restorer,
						    .mask = a->act.mask};

			__atomic_store_n(&a->ours, 0, __ATOMIC_RELEASE);
			sc_raw4(__NR_rt_sigaction, sig, &act, 0, 8);
		}
	}
	/* Not left to the kernel: a signal that came again and again while it is deferred would
	 * fill our stack. */
	if ((a->act.flags & SA_NODEFER) && !is_virt(sig) && !(a->act.mask & SC_BIT(sig)))
		set_mask(SIG_UNBLOCK, SC_BIT(sig), NULL);
	return (void *)handler;
}

/* ---- waits with another mask ---- */

void sc_wait_mask_begin(struct sc_thread *pub, struct sc_wait_mask *m, uint64_t mask)
{
	(void)pub;
	m->now = mask & ~(uint64_t)SC_VIRT_SIGNALS;
	m->other = 0;
	sc_raw4(__NR_rt_sigprocmask, SIG_BLOCK, NULL, &m->other, sizeof(m->other));
}

void sc_wait_mask_end(struct sc_thread *pub, const struct sc_wait_mask *m, long result)
{
	struct sc_thread_priv *t = (struct sc_thread_priv *)pub;
	uint64_t both = t->deferred_set & m->other & ~m->now;

	if (result != -EINTR || !both)
		return;
	t->reblock |= both;
	t->reblock_left |= both;
}

/* ---- calls that come by SIGSYS ---- */

static void push_return(struct sc_ucontext *uc)
{
	uint64_t ret = uc->rip;

	uc->rsp -= 136; /* 128 of red zone, 8 of return address: `ret $128` undoes it */
	*(uint64_t *)uc->rsp = ret;
}

/* Sends the thread from the trap on to where a rewritten site would have gone. */
static void trap(struct sc_thread_priv *t, const struct sc_siginfo *info, struct sc_ucontext *uc)
{
	uint32_t arch = (uint32_t)(info->rest[1] >> 32);
	uint32_t nr = (uint32_t)uc->rax;
	uint64_t slot;

	__atomic_fetch_add(&sc_stats.traps, 1, __ATOMIC_RELAXED);
	if (t->pub.in_call)
		sc_die(
		    "libhostsc: a system call from outside of the library during a call (a bug)\n");
	if (arch != AUDIT_ARCH_X86_64) {
		push_return(uc); /* int $0x80: the 32-bit table is not ours; it runs locally */
		uc->rip = (uint64_t)sc_int80_on_stack;
		return;
	}
	slot = sc_slot_for(uc->rip);
	if (slot == (uint64_t)sc_slot_on_stack)
		push_return(uc);
	else if (sc_page_hot(uc->rip, slot))
		t->rewrite = uc->rip;
	uc->rcx = slot;
	if (t->rewrite || nr >= SC_TABLE_SIZE || sc_call_table[nr])
		uc->rip = (uint64_t)sc_entry_dispatch;
	else
		uc->rip = slot;
}

/* Called by sc_signal_entry for every signal. Returns the program's handler, or NULL. */
void *sc_signal_c(int sig, struct sc_siginfo *info, struct sc_ucontext *uc)
{
	struct sc_thread_priv *t = sc_priv();
	bool fault = (sig == SIGSEGV || sig == SIGBUS) && info->code > 0;

	if (sig == SIGSYS && info->code == SYS_USER_DISPATCH) {
		trap(t, info, uc);
		return NULL;
	}
	if (fault && sc_within(uc->rip, sc_uaccess_start, sc_uaccess_end)) {
		uc->rip = (uint64_t)sc_uaccess_fault;
		return NULL;
	}
	if (t->pub.in_call) {
		if (fault)
			return take_default(t, sig, info, uc, true);
		if (!sc_within(uc->rip, sc_forward_start, sc_forward_end) &&
		    uc->rip != (uint64_t)sc_delivered) {
			defer(t, info, uc);
			return NULL;
		}
		roll_forward(t, uc);
	}
	show_site(uc, info);
	return run_handler(t, sig, info, uc);
}

/* Before a signal's frame is given to rt_sigreturn: the kernel must not see the program's mask of
 * our signals. */
void sc_fix_sigreturn(struct sc_ucontext *uc)
{
	struct sc_thread_priv *t = sc_priv();
	uint64_t here = (uint64_t)uc;

	t->virt_mask = uc->sigmask & SC_VIRT_SIGNALS;
	uc->sigmask &= ~(uint64_t)SC_VIRT_SIGNALS;
	for (uint32_t i = 0; i < 3; i++) {
		if (!(t->virt_held & (1u << i)) || (t->virt_mask & SC_BIT(virt_signal[i])))
			continue;
		t->virt_held &= ~(1u << i);
		requeue(t, &t->held[i]);
	}
	/* rt_sigreturn also sets the alternate stack as it was, unless it is in use. */
	if (here - t->alt_sp < t->alt_size)
		return;
	t->alt_sp = uc->stack.flags & (SS_DISABLE | SS_AUTODISARM) ? 0 : uc->stack.sp;
	t->alt_size = uc->stack.flags & (SS_DISABLE | SS_AUTODISARM) ? 0 : uc->stack.size;
}

/* ---- what the program asks for ---- */

static long install(int sig, const struct sc_ksigaction *want)
{
	struct sc_ksigaction act = {.handler = (uint64_t)sc_signal_entry,
				    .flags = (want->flags & ~(SA_RESETHAND | SA_NODEFER)) |
					     SA_RESTORER | SA_SIGINFO,
				    .restorer = (uint64_t)sc_restorer,
				    .mask = want->mask & ~(uint64_t)SC_VIRT_SIGNALS};

	if (is_virt(sig))
		act.flags |= SA_NODEFER;
	if (sig == SIGSYS || (is_virt(sig) && want->handler <= SIG_IGN))
		act.flags |= SA_ONSTACK;
	return sc_raw4(__NR_rt_sigaction, sig, &act, 0, 8);
}

static long query(int sig, const struct sc_action *a, struct sc_ksigaction *old)
{
	if (a->ours) {
		*old = a->act;
		return 0;
	}
	return sc_raw4(__NR_rt_sigaction, sig, 0, old, 8);
}

static long change(int sig, struct sc_action *a, const struct sc_ksigaction *want)
{
	if (want->handler <= SIG_IGN && !is_virt(sig)) {
		long r = sc_raw4(__NR_rt_sigaction, sig, want, 0, 8);

		if (!r)
			__atomic_store_n(&a->ours, 0, __ATOMIC_RELEASE);
		return r;
	}
	a->act.flags = want->flags & SA_KNOWN;
	a->act.restorer = want->restorer;
	a->act.mask = want->mask & ~(SC_BIT(SIGKILL) | SC_BIT(SIGSTOP));
	if (want->handler > SIG_IGN)
		__atomic_store_n(&a->handler, want->handler, __ATOMIC_RELEASE);
	__atomic_store_n(&a->act.handler, want->handler, __ATOMIC_RELEASE);
	a->ours = 1;
	return install(sig, want);
}

long sc_rt_sigaction(struct sc_thread_priv *t)
{
	int sig = (int)t->frame.rdi;
	const void *user_act = (const void *)t->frame.rsi;
	void *user_old = (void *)t->frame.rdx;
	struct sc_ksigaction act = {0};
	struct sc_ksigaction old = {0};
	struct sc_action *a;
	long r;

	if (t->frame.r10 != sizeof(uint64_t))
		return -EINVAL;
	if (user_act && sc_copy_from_user(&act, user_act, sizeof(act)))
		return -EFAULT;
	if (sig < 1 || sig > SC_NSIG || (user_act && (sig == SIGKILL || sig == SIGSTOP)))
		return -EINVAL;
	a = &t->sighand->action[sig];
	sc_spin_lock(&t->sighand->lock);
	r = query(sig, a, &old);
	if (!r && user_act)
		r = change(sig, a, &act);
	sc_spin_unlock(&t->sighand->lock);
	if (!r && user_old && sc_copy_to_user(user_old, &old, sizeof(old)))
		return -EFAULT;
	return r;
}

/* The general case, done here: our signals in the set, or signals put away. */
static long change_mask(struct sc_thread_priv *t, int how, uint64_t set, uint64_t *old)
{
	uint64_t kernel = set & ~(uint64_t)SC_VIRT_SIGNALS;
	uint64_t virt = set & SC_VIRT_SIGNALS;
	uint64_t away = t->deferred_set;
	long r;

	if (how == SIG_SETMASK)
		kernel |= away;
	if (how == SIG_UNBLOCK)
		kernel &= ~away;
	r = set_mask(how, kernel, old);
	if (r)
		return r;
	*old = (*old & ~away) | t->virt_mask;
	if (how == SIG_UNBLOCK) {
		t->virt_mask &= ~virt;
	} else {
		t->virt_mask = how == SIG_SETMASK ? virt : t->virt_mask | virt;
		/* What the program itself blocks now stays blocked when it is given back. */
		__atomic_fetch_and(&t->deferred_set, ~set, __ATOMIC_RELAXED);
	}
	if (t->virt_held)
		t->pub.signal_pending = 1;
	return 0;
}

long sc_rt_sigprocmask(struct sc_thread_priv *t)
{
	int how = (int)t->frame.rdi;
	const void *user_set = (const void *)t->frame.rsi;
	void *user_old = (void *)t->frame.rdx;
	uint64_t set = 0;
	uint64_t old = 0;
	bool plain = !t->pub.signal_pending && !t->virt_held && (!user_old || !t->virt_mask);
	long r;

	if (t->frame.r10 != sizeof(uint64_t))
		return -EINVAL;
	if (!user_set && plain)
		return SC_NATIVE;
	if (user_set && sc_copy_from_user(&set, user_set, sizeof(set)))
		return -EFAULT;
	if (user_set && (how < SIG_BLOCK || how > SIG_SETMASK))
		return -EINVAL;
	if (plain && (how == SIG_UNBLOCK || !(set & SC_VIRT_SIGNALS))) {
		/* Natively, so that signals which this lets through are delivered by the kernel
		 * right there. */
		if (how == SIG_UNBLOCK)
			t->virt_mask &= ~set;
		if (how == SIG_SETMASK)
			t->virt_mask = 0;
		return SC_NATIVE;
	}
	r = change_mask(t, user_set ? how : SIG_BLOCK, set, &old);
	if (!r && user_old && sc_copy_to_user(user_old, &old, sizeof(old)))
		return -EFAULT;
	return r;
}

long sc_rt_sigpending(struct sc_thread_priv *t)
{
	uint64_t set = 0;
	size_t size = t->frame.rsi;
	long r;

	if (!t->virt_held)
		return SC_NATIVE;
	if (size > sizeof(set))
		return -EINVAL;
	r = sc_raw2(__NR_rt_sigpending, &set, sizeof(set));
	for (uint32_t i = 0; i < 3; i++)
		if (t->virt_held & (1u << i))
			set |= SC_BIT(virt_signal[i]);
	if (!r && sc_copy_to_user((void *)t->frame.rdi, &set, size))
		return -EFAULT;
	return r;
}

/* We are not on the program's stack: whether the alternate one is in use is to be decided by the
 * program's %rsp. */
long sc_sigaltstack(struct sc_thread_priv *t)
{
	const void *user_new = (const void *)t->frame.rdi;
	void *user_old = (void *)t->frame.rsi;
	struct sc_stack want = {0};
	struct sc_stack old = {0};
	long r = 0;

	if (user_new && sc_copy_from_user(&want, user_new, sizeof(want)))
		return -EFAULT;
	if (t->pub.flags & SC_T_ALT_OFF) {
		if (user_new)
			return -EPERM;
		old = (struct sc_stack){.sp = t->alt_sp, .flags = SS_ONSTACK, .size = t->alt_size};
	} else {
		r = sc_raw2(__NR_sigaltstack, user_new ? &want : NULL, &old);
	}
	if (!r && user_new) {
		bool watch = !(want.flags & (SS_DISABLE | SS_AUTODISARM));

		t->alt_sp = watch ? want.sp : 0;
		t->alt_size = watch ? want.size : 0;
	}
	if (!r && user_old && sc_copy_to_user(user_old, &old, sizeof(old)))
		return -EFAULT;
	return r;
}

/* From entry.S: the program is on its alternate stack; all signals are blocked, t->mask is what
 * was. */
void sc_alt_enter_c(struct sc_thread_priv *t)
{
	struct sc_stack off = {.flags = SS_DISABLE};

	sc_raw2(__NR_sigaltstack, &off, 0);
	t->pub.flags |= SC_T_ALT_OFF;
	set_mask(SIG_SETMASK, t->mask, NULL);
}

void sc_alt_restore(struct sc_thread_priv *t)
{
	struct sc_stack on = {.sp = t->alt_sp, .size = t->alt_size};

	sc_raw2(__NR_sigaltstack, &on, 0);
}

void sc_alt_leave(struct sc_thread_priv *t)
{
	sc_block_all(t);
	sc_alt_restore(t);
	t->pub.flags &= ~SC_T_ALT_OFF;
}

/* ---- start, fork, exec ---- */

static long adopt(int sig)
{
	struct sc_action *a = &sc_main_sighand.action[sig];
	long r = sc_raw4(__NR_rt_sigaction, sig, 0, &a->act, 8);

	if (r)
		return r;
	a->handler = a->act.handler;
	a->ours = 1;
	return install(sig, &a->act);
}

/* Makes the three signals ours. */
long sc_signals_init(struct sc_thread_priv *t)
{
	uint64_t mask = 0;
	long r;

	t->sighand = &sc_main_sighand;
	for (uint32_t i = 0; i < 3; i++) {
		r = adopt(virt_signal[i]);
		if (r)
			return r;
	}
	r = set_mask(SIG_UNBLOCK, SC_VIRT_SIGNALS, &mask);
	t->virt_mask = mask & SC_VIRT_SIGNALS;
	return r;
}

/* The kernel reset all handlers of a child (CLONE_CLEAR_SIGHAND). */
void sc_signals_reinstall(struct sc_thread_priv *t)
{
	for (int sig = 1; sig <= SC_NSIG; sig++) {
		struct sc_action *a = &t->sighand->action[sig];

		if (!is_virt(sig)) {
			a->ours = 0;
			continue;
		}
		if (a->act.handler != SIG_IGN)
			a->act = (struct sc_ksigaction){.handler = SIG_DFL};
		install(sig, &a->act);
	}
}

/* A new image inherits what is ignored and what is blocked: let it be what the program asked for.
 */
void sc_signals_before_exec(struct sc_thread_priv *t)
{
	struct sc_ksigaction ignore = {.handler = SIG_IGN};

	for (uint32_t i = 0; i < 3; i++)
		if (t->sighand->action[virt_signal[i]].act.handler == SIG_IGN)
			sc_raw4(__NR_rt_sigaction, virt_signal[i], &ignore, 0, 8);
	if (t->virt_mask)
		set_mask(SIG_BLOCK, t->virt_mask, NULL);
}

void sc_signals_exec_failed(struct sc_thread_priv *t)
{
	for (uint32_t i = 0; i < 3; i++) {
		struct sc_action *a = &t->sighand->action[virt_signal[i]];

		if (a->act.handler == SIG_IGN)
			install(virt_signal[i], &a->act);
	}
	if (t->virt_mask)
		set_mask(SIG_UNBLOCK, t->virt_mask, NULL);
}
