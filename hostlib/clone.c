/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * clone.c - new threads and processes, and execve.
 *
 * The kernel starts a clone's child with Syscall User Dispatch off and with the parent's %gs. So
 * whatever the flavour, we make the call ourselves, with all signals blocked, and without the new
 * stack that the program named: the child begins in our code, is set up, and then leaves through
 * sc_finish, where its frame, a copy of the parent's with %rax 0 and the new stack pointer, brings
 * it to where the program expects it.
 *
 *   fork      (no CLONE_VM)              everything is a copy, the dispatch stack too: the child
 * returns like the parent thread    (CLONE_VM, CLONE_THREAD)   a block of its own vfork, (CLONE_VM
 * alone)           a block of its own, a struct sc_proc from the serving layer, and, since it has
 *   posix_spawn                          its own handlers in the kernel, a copy of the table of
 * actions
 */
#include "intercept-priv.h"

#define CLONE_VM	    0x00000100UL
#define CLONE_SIGHAND	    0x00000800UL
#define CLONE_VFORK	    0x00004000UL
#define CLONE_THREAD	    0x00010000UL
#define CLONE_CLEAR_SIGHAND 0x100000000UL

#define SIGCHLD	 17
#define AT_FDCWD (-100)

#define PROT_READ_WRITE	      3
#define MAP_PRIVATE_ANONYMOUS 0x22

/* The kernel's struct clone_args with room for what later kernels add. */
struct clone3_args {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
	uint64_t more[24];
};
#define CLONE3_MIN 64

struct request {
	uint64_t flags;
	bool alone;  /* the caller is the only thread */
	uint64_t sp; /* the child's stack pointer, 0: the parent's */
	long nr;     /* clone or clone3 */
	long args[5];
	struct clone3_args args3;
};

static long parse_clone3(struct sc_thread_priv *t, struct request *q)
{
	size_t size = t->frame.rsi;

	if (size > sizeof(q->args3))
		return -E2BIG;
	if (size < CLONE3_MIN)
		return -EINVAL;
	if (sc_copy_from_user(&q->args3, (const void *)t->frame.rdi, size))
		return -EFAULT;
	if (!q->args3.stack != !q->args3.stack_size)
		return -EINVAL;
	q->flags = q->args3.flags;
	q->sp = q->args3.stack ? q->args3.stack + q->args3.stack_size : 0;
	q->args3.stack = 0;
	q->args3.stack_size = 0;
	q->nr = __NR_clone3;
	q->args[0] = (long)&q->args3;
	q->args[1] = (long)size;
	return 0;
}

static long parse(struct sc_thread_priv *t, struct request *q)
{
	const struct sc_frame *f = &t->frame;

	q->nr = __NR_clone;
	switch (f->nr) {
	case __NR_clone3:
		return parse_clone3(t, q);
	case __NR_fork:
		q->flags = SIGCHLD;
		break;
	case __NR_vfork:
		q->flags = CLONE_VFORK | CLONE_VM | SIGCHLD;
		break;
	default:
		q->flags = f->rdi;
		q->sp = f->rsi;
		q->args[2] = (long)f->rdx;
		q->args[3] = (long)f->r10;
		q->args[4] = (long)f->r8;
	}
	q->args[0] = (long)q->flags;
	return 0;
}

/* ---- fork ---- */

static long fork_child(struct sc_thread_priv *t, const struct request *q)
{
	t->pub.tid = (uint32_t)sc_raw0(__NR_gettid);
	t->deferred = 0; /* nothing waits in a new process; deferred_set is still to be unblocked */
	t->virt_held = 0;
	if (!q->alone) {
		t->sighand->lock = 0;
		sc_rewrite_after_fork();
	}
	sc_threads_in_child(t);
	if (q->flags & CLONE_CLEAR_SIGHAND)
		sc_signals_reinstall(t);
	if (q->sp)
		t->frame.rsp = q->sp;
	if (sc_arm())
		sc_die("libhostsc: cannot switch Syscall User Dispatch on in a forked child\n");
	sc_serve_after_fork_child(&t->pub);
	return 0;
}

static long do_fork(struct sc_thread_priv *t, struct request *q)
{
	long r;

	q->alone = sc_threads_alone();
	r = sc_serve_before_fork(&t->pub, q->alone);
	if (r)
		return r;
	if (!q->alone) {
		sc_spin_lock(&t->sighand->lock);
		sc_threads_before_fork();
		sc_rewrite_before_fork();
	}
	r = sc_clone_raw(NULL, q->nr, q->args);
	if (!r)
		return fork_child(t, q);
	if (!q->alone) {
		sc_rewrite_after_fork();
		sc_threads_after_fork();
		sc_spin_unlock(&t->sighand->lock);
	}
	sc_serve_after_fork_parent(&t->pub, q->alone, r);
	return r;
}

/* ---- threads and vfork ---- */

static bool share_sighand(struct sc_thread_priv *t, struct sc_thread_priv *child, uint64_t flags)
{
	struct sc_sighand *copy;
	long at;

	child->sighand = t->sighand;
	if (flags & CLONE_SIGHAND)
		return true;
	at = sc_raw6(__NR_mmap, 0, sizeof(*copy), PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
	if (at <= 0)
		return false;
	copy = (struct sc_sighand *)at;
	sc_spin_lock(&t->sighand->lock);
	*copy = *t->sighand;
	sc_spin_unlock(&t->sighand->lock);
	copy->lock = 0;
	child->sighand = copy;
	child->own_sighand = copy;
	return true;
}

static void init_child(struct sc_thread_priv *t, struct sc_thread_priv *child,
		       const struct request *q)
{
	child->frame = t->frame;
	child->frame.rax = 0;
	child->frame.rip = t->frame.ret;
	if (q->sp)
		child->frame.rsp = q->sp;
	if (q->flags & CLONE_VFORK) { /* the kernel lets it keep the alternate stack */
		child->alt_sp = t->alt_sp;
		child->alt_size = t->alt_size;
	}
	child->pub.in_call = 1;
	child->pub.proc = t->pub.proc;
	child->pub.flags = SC_T_HAVE_MASK;
	child->pub.signal_pending = 1;
	child->mask = t->mask & ~t->deferred_set;
	child->virt_mask = t->virt_mask;
	child->clear_sighand = (q->flags & CLONE_CLEAR_SIGHAND) != 0;
}

/* The child's first steps, on its own dispatch stack, all signals blocked. It goes on to sc_finish.
 */
void sc_child_start_c(struct sc_thread_priv *t)
{
	t->pub.tid = (uint32_t)sc_raw0(__NR_gettid);
	if (t->clear_sighand)
		sc_signals_reinstall(t);
	if (t->alt_size)
		sc_alt_restore(t); /* it may have been off when the parent made the call */
	if (sc_arm())
		sc_die("libhostsc: cannot switch Syscall User Dispatch on in a new thread\n");
	sc_serve_thread_start(&t->pub);
}

static void drop_child(struct sc_thread_priv *t, struct sc_thread_priv *child)
{
	if (child->pub.flags & SC_T_VFORK)
		sc_serve_vfork_leave(&t->pub, child->pub.proc);
	sc_thread_free(child);
}

static long do_thread(struct sc_thread_priv *t, struct request *q)
{
	struct sc_thread_priv *child = sc_thread_alloc();
	bool vfork = !(q->flags & CLONE_THREAD);
	long r = -ENOMEM;

	if (!child)
		return r;
	init_child(t, child, q);
	if (vfork) {
		child->parent_proc = t->pub.proc;
		child->pub.proc = sc_serve_vfork_enter(&t->pub);
		if (!child->pub.proc)
			goto out;
		child->pub.flags |= SC_T_VFORK;
		if (q->flags & CLONE_VFORK)
			child->pub.flags |= SC_T_PARENT_FREES;
	}
	if (!share_sighand(t, child, q->flags))
		goto out;
	r = sc_clone_raw(child, q->nr, q->args);
	/* A thread, or a process that shares memory and runs beside us, gives its block back by
	 * itself. */
	if (r > 0 && !(q->flags & CLONE_VFORK))
		return r;
out:
	drop_child(t, child);
	return r;
}

SC_HOT_TEXT long sc_clone(struct sc_thread_priv *t)
{
	struct request q;
	long r;

	__builtin_memset(&q, 0, sizeof(q));
	r = parse(t, &q);
	if (r)
		return r;
	sc_block_all(t);
	if (t->deferred)
		return SC_AGAIN;
	return q.flags & CLONE_VM ? do_thread(t, &q) : do_fork(t, &q);
}

/* ---- exec ---- */

static long run_exec(const struct sc_exec *x)
{
	if (x->dirfd == AT_FDCWD && !x->flags)
		return sc_raw_syscall_interruptible(__NR_execve, (long)x->path, (long)x->argv,
						    (long)x->envp, 0, 0, 0);
	return sc_raw_syscall_interruptible(__NR_execveat, x->dirfd, (long)x->path, (long)x->argv,
					    (long)x->envp, x->flags, 0);
}

/* A signal that comes before the new image is there must find its handler: execve is given up for
 * it, and made again. */
long sc_exec(struct sc_thread_priv *t)
{
	const struct sc_frame *f = &t->frame;
	bool at = f->nr == __NR_execveat;
	struct sc_exec x = {.dirfd = at ? (int)f->rdi : AT_FDCWD,
			    .path = (const char *)(at ? f->rsi : f->rdi),
			    .argv = (char *const *)(at ? f->rdx : f->rsi),
			    .envp = (char *const *)(at ? f->r10 : f->rdx),
			    .flags = at ? (int)f->r8 : 0};
	long r;

	if (t->pub.signal_pending)
		return SC_AGAIN;
	r = sc_serve_before_exec(&t->pub, &x);
	if (r)
		return r;
	sc_signals_before_exec(t);
	r = run_exec(&x);
	sc_signals_exec_failed(t);
	sc_serve_exec_failed(&t->pub, &x);
	return r == -EINTR && t->deferred ? SC_AGAIN : r;
}
