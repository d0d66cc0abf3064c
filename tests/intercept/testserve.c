/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * testserve.c - a serving layer for tests of interception alone: linked with the interception layer
 * into a library that is preloaded into real programs. It serves nothing, but takes calls through
 * every path there is. Environment:
 *
 *   SCI_MODE=pass      no call is dispatched but those that the interception layer looks at itself
 * (default) SCI_MODE=all       each call is dispatched, found to be local, and run natively
 *   SCI_MODE=changed   the same, with changed arguments (to the same values) and a function to be
 * called afterwards SCI_STATS=FILE     counters are appended there at each process's end
 *
 * Calls of its own, for test programs, in every mode:
 *   400 sleeps until a signal waits, then EINTR          403 returns how often fork hooks ran:
 * before | parent << 8 ... 401 the same, restarted by SA_RESTART                404 returns the
 * number of blocks of vfork children alive 402 copies 16 bytes from a0 to a1 (EFAULT)           405
 * strnlen(a0, a1) 406 returns threads alive
 */
#include "../../hostlib/intercept-priv.h"

enum mode { PASS, ALL, CHANGED };

struct sc_proc {
	uint32_t used;
	uint32_t forks_before, forks_parent, forks_child;
};

uint64_t sc_dispatch_bitmap[8];

static enum mode mode;
static const char *stats_file;
static struct sc_proc main_proc;
static struct sc_proc vfork_procs[64];
static uint32_t threads;
static uint64_t afters;

static const char *get_env(char **envp, const char *name)
{
	size_t n = __builtin_strlen(name);

	for (; *envp; envp++)
		if (!__builtin_memcmp(*envp, name, n) && (*envp)[n] == '=')
			return *envp + n + 1;
	return NULL;
}

bool sc_serve_init(char **envp)
{
	const char *m = get_env(envp, "SCI_MODE");

	stats_file = get_env(envp, "SCI_STATS");
	if (m && m[0] == 'n')
		return false;
	mode = !m || m[0] == 'p' ? PASS : m[0] == 'a' ? ALL : CHANGED;
	if (mode != PASS)
		for (int i = 0; i < 8; i++)
			sc_dispatch_bitmap[i] = ~0UL;
	sc_dispatch_bitmap[400 / 64] |= 0xffUL << (400 % 64);
	sc_self()->proc = &main_proc;
	return true;
}

static long after(struct sc_thread *t, long result)
{
	if (!t->in_call)
		sc_die("testserve: after() outside of a call\n");
	__atomic_fetch_add(&afters, 1, __ATOMIC_RELAXED);
	return result;
}

static long sleep_for_signal(struct sc_thread *t)
{
	uint32_t word = 0;
	long r = sc_raw_syscall_interruptible(__NR_futex, (long)&word, 128 /* WAIT_PRIVATE */, 0, 0,
					      0, 0);

	if (r == -EINTR && !sc_signal_waits(t))
		sc_die("testserve: interrupted, but no signal waits\n");
	return r;
}

static long copy(const void *from, void *to)
{
	char buf[16];

	if (sc_copy_from_user(buf, from, sizeof(buf)))
		return -EFAULT;
	return sc_copy_to_user(to, buf, sizeof(buf));
}

static long count_vfork_procs(void)
{
	long n = 0;

	for (int i = 0; i < 64; i++)
		n += vfork_procs[i].used;
	return n;
}

long sc_dispatch(struct sc_thread *t, long nr, long a0, long a1, long a2, long a3, long a4, long a5)
{
	long a[6] = {a0, a1, a2, a3, a4, a5};
	long r;

	if (!t->in_call || t != sc_self())
		sc_die("testserve: dispatched outside of a call\n");
	switch (nr) {
	case 400:
		return sleep_for_signal(t);
	case 401:
		r = sleep_for_signal(t);
		return r == -EINTR ? -SC_ERESTART : r;
	case 402:
		return copy((const void *)a0, (void *)a1);
	case 403:
		return t->proc->forks_before | t->proc->forks_parent << 8 |
		       t->proc->forks_child << 16;
	case 404:
		return count_vfork_procs();
	case 405:
		return sc_strnlen_user((const char *)a0, (size_t)a1);
	case 406:
		return __atomic_load_n(&threads, __ATOMIC_RELAXED);
	}
	if (nr == 407) {
		struct sc_intercept_stats s;

		sc_rewrite_all();
		sc_intercept_get_stats(&s);
		return (long)(s.sites_left | s.sites_rewritten << 32);
	}
	if (mode != CHANGED)
		return SC_NATIVE;
	t->native.nr = nr;
	__builtin_memcpy(t->native.a, a, sizeof(a));
	t->native.after = after;
	return SC_NATIVE_CHANGED;
}

void sc_serve_thread_start(struct sc_thread *t)
{
	if (!t->proc)
		sc_die("testserve: a thread without a process\n");
	if (t->proc == &main_proc)
		__atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED);
}

void sc_serve_thread_exit(struct sc_thread *t)
{
	__atomic_fetch_sub(&threads, 1, __ATOMIC_RELAXED);
}

static char *put(char *at, const char *label, uint64_t value)
{
	char digits[20];
	int n = 0;

	while (*label)
		*at++ = *label++;
	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n)
		*at++ = digits[--n];
	return at;
}

void sc_serve_process_exit(struct sc_thread *t)
{
	struct sc_intercept_stats s;
	char line[256];
	char *at = line;
	long fd;

	if (!stats_file)
		return;
	sc_intercept_get_stats(&s);
	at = put(at, "pid ", (uint64_t)sc_raw0(__NR_getpid));
	at = put(at, " traps ", s.traps);
	at = put(at, " rewritten ", s.sites_rewritten);
	at = put(at, " left ", s.sites_left);
	at = put(at, " deferred ", s.signals_deferred);
	at = put(at, " afters ", afters);
	*at++ = '\n';
	fd = sc_raw3(__NR_open, stats_file, 02001 | 0100, 0666);
	sc_raw3(__NR_write, fd, line, at - line);
	sc_raw1(__NR_close, fd);
}

long sc_serve_before_fork(struct sc_thread *t, bool alone)
{
	t->proc->forks_before++;
	return 0;
}

void sc_serve_after_fork_parent(struct sc_thread *t, bool alone, long pid_or_error)
{
	t->proc->forks_parent++;
}

void sc_serve_after_fork_child(struct sc_thread *t)
{
	t->proc->forks_child++;
}

struct sc_proc *sc_serve_vfork_enter(struct sc_thread *parent)
{
	for (int i = 0; i < 64; i++)
		if (!__atomic_exchange_n(&vfork_procs[i].used, 1, __ATOMIC_RELAXED))
			return &vfork_procs[i];
	return NULL;
}

void sc_serve_vfork_leave(struct sc_thread *parent, struct sc_proc *child)
{
	__atomic_store_n(&child->used, 0, __ATOMIC_RELAXED);
}

long sc_serve_before_exec(struct sc_thread *t, struct sc_exec *x)
{
	return 0;
}

void sc_serve_exec_failed(struct sc_thread *t, struct sc_exec *x)
{
}

/* For api_test.c, which is linked with this library and not intercepted. */
__attribute__((visibility("default"))) struct sc_thread *sci_ensure(void);

struct sc_thread *sci_ensure(void)
{
	return sc_thread_ensure();
}
