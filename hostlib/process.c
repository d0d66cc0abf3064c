/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * process.c - start, threads, fork, vfork: the hooks that the interception layer calls (intercept.h). exec is in exec.c.
 *
 * Theory of operation: what belongs to the memory image (routes, domains, channels) is static; what belongs to a process
 * is in struct sc_proc, of which there is one, and one more for each vfork child that is alive.
 *
 * Fork. The parent marks its open files as shared and gives up the pooled copies of their tickets, so that from then on
 * only descriptors hold them. It forks with fd_lock and all domains' locks held, so that the child's copies of what they
 * guard are whole. The child closes what descriptors of the library it inherited, and forgets channels and threads. It
 * attaches when it makes its first remote call; files are granted to its session when it first uses them.
 *
 * vfork. The child gets a copy of the table. It uses its parent's channels, whose descriptors it inherits at the same
 * numbers, through a lane of its own.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "calls.h"
#include "chan-priv.h"
#include "dispatch.h"
#include "exec.h"
#include "libfd.h"
#include "net.h"
#include "process.h"
#include "trace.h"

#define RANDOM_BATCH 32

struct sc_proc sc_main_proc;

static SC_FORK_DATA struct sc_mutex serve_lock; /* guards free_serves */
static SC_FORK_DATA struct sc_serve_thread *free_serves;
static SC_FORK_DATA struct sc_serve_thread *all_serves; /* atomic; only grows */
static SC_FORK_DATA struct sc_serve_thread
    *left_over; /* of the parent's thread that forked; serve_lock */

static SC_FORK_DATA struct sc_mutex random_lock;
static uint64_t random_pool[RANDOM_BATCH];
static uint32_t random_left;

/* ---- memory, randomness ---- */

void *sc_map(uint64_t bytes)
{
	long p = sc_raw_syscall(__NR_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p < 0 && p > -4096 ? NULL : (void *)p;
}

SC_HOT_TEXT void sc_unmap(void *p, uint64_t bytes)
{
	sc_sys2(__NR_munmap, p, bytes);
}

uint64_t sc_random(void)
{
	uint64_t v = 0;

	sc_mutex_lock(&random_lock);
	while (!v) {
		if (random_left == 0 && sc_sys3(__NR_getrandom, random_pool, sizeof(random_pool),
						0) == sizeof(random_pool))
			random_left = RANDOM_BATCH;
		if (random_left == 0) {
			v = __builtin_ia32_rdtsc() |
			    1; /* no randomness to be had; secrets are then weak */
			break;
		}
		v = random_pool[--random_left];
		random_pool[random_left] = 0;
	}
	sc_mutex_unlock(&random_lock);
	return v;
}

/* ---- threads ---- */

/* Puts it on the list of all. */
static void serve_list(struct sc_serve_thread *s)
{
	s->all = __atomic_load_n(&all_serves, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&all_serves, &s->all, s, false, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED))
		;
}

static struct sc_serve_thread *serve_new(void)
{
	struct sc_serve_thread *s = sc_map(sizeof(*s));

	if (s)
		serve_list(s);
	return s;
}

void sc_counts_sum(struct sc_serve_counts *out)
{
	struct sc_serve_thread *s = __atomic_load_n(&all_serves, __ATOMIC_ACQUIRE);

	memset(out, 0, sizeof(*out));
	for (; s; s = s->all) {
		for (uint32_t i = 0; i < SC_OP_MAX; i++)
			out->remote[i] += __atomic_load_n(&s->counts.remote[i], __ATOMIC_RELAXED);
		for (uint32_t i = 0; i < SC_MAX_DOMAINS; i++)
			out->at[i] += __atomic_load_n(&s->counts.at[i], __ATOMIC_RELAXED);
		out->spins += __atomic_load_n(&s->counts.spins, __ATOMIC_RELAXED);
		out->sleeps += __atomic_load_n(&s->counts.sleeps, __ATOMIC_RELAXED);
	}
}

struct sc_serve_thread *sc_serve_of(struct sc_thread *t)
{
	struct sc_serve_thread *s = t->serve, *parents;

	if (s)
		return s;
	sc_mutex_lock(&serve_lock);
	s = free_serves;
	parents = left_over;
	if (s)
		free_serves = s->next;
	else
		left_over = NULL;
	sc_mutex_unlock(&serve_lock);
	if (!s && parents) {
		s = parents;
		memset(s, 0, offsetof(struct sc_serve_thread, path));
		serve_list(s);
	}
	if (!s)
		s = serve_new();
	if (!s)
		return NULL;
	memset(s, 0, offsetof(struct sc_serve_thread, all));
	t->serve = s;
	if (t->proc->vforked)
		t->proc->vserve = s;
	return s;
}

static void serve_free(struct sc_serve_thread *s)
{
	sc_mutex_lock(&serve_lock);
	s->next = free_serves;
	free_serves = s;
	sc_mutex_unlock(&serve_lock);
}

/* Is the kernel's working directory hidden by a route? Then it is the remote one that the program is in. */
static void enter_hidden_cwd(struct sc_thread *t)
{
	static const char sorry[] =
	    "scrun: the working directory is served by a domain, but cannot be entered there\n";
	char cwd[SC_PATH_BUF];
	struct sc_call c = {.nr = __NR_chdir, .a = {(long)cwd}};
	uint32_t rest;
	bool dotdot;

	if (t->proc->cwd || sc_sys2(__NR_getcwd, cwd, sizeof(cwd)) <= 0 ||
	    !sc_route_match(cwd, &rest, &dotdot))
		return;
	if (call_chdir(t, &c) == 0)
		return;
	sc_sys3(__NR_write, 2, sorry, sizeof(sorry) - 1);
	sc_sys1(__NR_exit_group, 125);
}

void sc_serve_thread_start(struct sc_thread *t)
{
	static bool started;

	t->serve = NULL;
	if (!t->proc)
		t->proc = &sc_main_proc;
	if (!started && sc_nroutes)
		enter_hidden_cwd(t);
	started = true;
}

void sc_serve_thread_exit(struct sc_thread *t)
{
	struct sc_serve_thread *s = t->serve;

	if (!s || t->proc->vforked)
		return; /* a vfork child's is cleared away by its parent */
	for (uint32_t i = 0; i < sc_ndoms; i++)
		sc_lane_drop(t, &sc_doms[i]);
	if (s->bell > 0)
		sc_libfd_close(s->bell);
	t->serve = NULL;
	serve_free(s);
}

SC_HOT_TEXT void sc_serve_process_exit(struct sc_thread *t)
{
	if (sc_stats_wanted && !t->proc->vforked)
		sc_stats_at_exit();
}

/* ---- start ---- */

/* The value of "Umask:" in /proc/self/status; 022 if that cannot be read. */
static uint32_t read_umask(void)
{
	char buf[512];
	uint32_t v = 0;
	long fd = sc_sys3(__NR_open, "/proc/self/status", O_RDONLY | O_CLOEXEC, 0), n;

	if (fd < 0)
		return 022;
	n = sc_sys3(__NR_read, fd, buf, sizeof(buf) - 1);
	sc_sys1(__NR_close, fd);
	for (long i = 0; i + 7 < n; i++) {
		if (memcmp(buf + i, "Umask:\t", 7))
			continue;
		for (i += 7; i < n && buf[i] >= '0' && buf[i] <= '7'; i++)
			v = v * 8 + (uint32_t)(buf[i] - '0');
		return v;
	}
	return 022;
}

uint32_t sc_umask(struct sc_proc *p)
{
	uint32_t mask = __atomic_load_n(&p->umask, __ATOMIC_RELAXED), unknown = SC_UMASK_UNKNOWN;

	if (mask != unknown)
		return mask;
	mask = read_umask();
	/* a thread that called umask() meanwhile knows better */
	if (__atomic_compare_exchange_n(&p->umask, &unknown, mask, false, __ATOMIC_RELAXED,
					__ATOMIC_RELAXED))
		return mask;
	return unknown;
}

static bool init_common(void)
{
	if (sc_main_proc.fds.idx)
		return true;
	if (sc_fdtab_init(&sc_main_proc.fds))
		return false;
	sc_main_proc.umask = SC_UMASK_UNKNOWN;
	return true;
}

bool sc_serve_init_api(void)
{
	static struct sc_mutex once;
	bool ok;

	sc_mutex_lock(&once);
	ok = init_common();
	sc_mutex_unlock(&once);
	return ok;
}

bool sc_serve_init(char **envp)
{
	if (!sc_env_routes(envp) || !init_common())
		return false;
	sc_dispatch_init();
	sc_env_files(envp);
	sc_env_clean(envp);
	sc_report_open();
	return true;
}

/* ---- fork ---- */

static void lock_all(struct sc_proc *p)
{
	sc_mutex_lock(&p->fd_lock);
	sc_net_before_fork();
	for (uint32_t i = 0; i < sc_ndoms; i++)
		sc_mutex_lock(&sc_doms[i].lock);
	sc_mutex_lock(&serve_lock);
	sc_mutex_lock(&random_lock);
}

static void unlock_all(struct sc_proc *p)
{
	sc_mutex_unlock(&random_lock);
	sc_mutex_unlock(&serve_lock);
	for (uint32_t i = 0; i < sc_ndoms; i++)
		sc_mutex_unlock(&sc_doms[i].lock);
	sc_net_after_fork_parent();
	sc_mutex_unlock(&p->fd_lock);
}

static void random_forget(void)
{
	if (!random_left)
		return;
	memset(random_pool, 0, sizeof(random_pool));
	random_left = 0;
}

long sc_serve_before_fork(struct sc_thread *t, bool alone)
{
	if (!alone)
		lock_all(t->proc);
	random_forget(); /* the child's secrets are its own */
	sc_files_share(t->proc);
	return 0;
}

void sc_serve_after_fork_parent(struct sc_thread *t, bool alone, long pid_or_error)
{
	if (!alone)
		unlock_all(t->proc);
}

/*
 * Lanes and counters are the parent's; the memory of its other threads is not worth a search. This thread's is cleared at
 * its first remote call (sc_serve_of()), which most children do not come to.
 */
static void serve_in_child(struct sc_thread *t)
{
	struct sc_serve_thread *s = t->serve;

	if (free_serves)
		free_serves = NULL;
	if (all_serves)
		all_serves = NULL;
	if (s)
		left_over = s;
	t->serve = NULL;
}

SC_HOT_TEXT void sc_serve_after_fork_child(struct sc_thread *t)
{
	struct sc_proc *p = t->proc;
	int keep[3];

	/* What need not be changed is not stored to: that would cost a page fault. */
	if (p->vforked) { /* a fork by a vfork child: the child of that is an ordinary process */
		p->vforked = false;
		p->parent = NULL;
		p->vserve = NULL;
		memset(p->vchan, 0, sizeof(p->vchan));
	}
	if (p->posix_locks)
		p->posix_locks = 0; /* not inherited */
	serve_in_child(t);
	sc_mutex_reset(&p->fd_lock);
	sc_mutex_reset(&serve_lock);
	sc_mutex_reset(&random_lock);
	sc_mmap_after_fork_child();
	sc_fdtab_after_fork(p);
	sc_net_after_fork_child(p);
	sc_report_fds(keep);
	keep[2] = p->cwd ? p->cwd->ticket_fd : -1;
	sc_libfd_close_all(keep, 3);
	sc_netmem_in_child();
	for (uint32_t i = 0; i < sc_ndoms; i++)
		sc_dom_after_fork_child(&sc_doms[i]);
}

/* ---- vfork ---- */

struct sc_proc *sc_serve_vfork_enter(struct sc_thread *parent)
{
	struct sc_proc *p = parent->proc, *child = sc_map(sizeof(*child));

	if (!child)
		return NULL;
	sc_mutex_lock(&p->fd_lock);
	sc_files_share(p);
	*child = *p;
	if (sc_fdtab_copy(&child->fds, &p->fds)) {
		sc_mutex_unlock(&p->fd_lock);
		sc_fdtab_free(&child->fds);
		sc_unmap(child, sizeof(*child));
		return NULL;
	}
	if (p->cwd)
		child->cwd = child->fds.files + (p->cwd - p->fds.files);
	sc_mutex_unlock(&p->fd_lock);
	sc_mutex_reset(&child->fd_lock);
	sc_fdtab_opening_gone(&child->fds);
	child->posix_locks = 0;
	child->vserve = NULL;
	child->vforked = true;
	child->parent = p;
	for (uint32_t i = 0; i < sc_ndoms; i++) {
		sc_mutex_lock(&sc_doms[i].lock);
		child->vchan[i] = sc_chan_of(parent, &sc_doms[i]);
		if (child->vchan[i])
			child->vchan[i]->users++;
		sc_mutex_unlock(&sc_doms[i].lock);
	}
	return child;
}

void sc_vchan_drop(struct sc_proc *p, uint32_t i)
{
	struct sc_chan *c = p->vchan[i];

	p->vchan[i] = NULL;
	if (c)
		sc_chan_release(c);
}

/* The child took these tickets out of the pool: our copies must not keep the files open. */
static void close_childs_tickets(struct sc_proc *child)
{
	for (uint32_t i = 1; i < child->fds.file_high; i++) {
		struct sc_file *f = &child->fds.files[i];
		struct sc_chan *c = f->dom ? child->vchan[f->dom->index] : NULL;

		if (!f->dom || f->ticket_fd < 0 ||
		    (child->parent->cwd && f == child->cwd &&
		     f->ticket == child->parent->cwd->ticket))
			continue;
		if (c && c->vfork_private)
			sc_libfd_forget(f->ticket_fd);
		else
			sc_libfd_close(f->ticket_fd);
	}
}

void sc_serve_vfork_leave(struct sc_thread *parent, struct sc_proc *child)
{
	struct sc_serve_thread *s = child->vserve;

	close_childs_tickets(child);
	for (uint32_t i = 0; s && i < sc_ndoms; i++)
		if (s->dom[i].lane)
			sc_hlane_release(s->dom[i].lane);
	if (s) {
		sc_exec_remote_forget(s, false);
		sc_exec_forget(s);
		if (s->bell > 0)
			sc_libfd_forget(s->bell); /* it was in the child's table */
		serve_free(s);
	}
	for (uint32_t i = 0; i < sc_ndoms; i++)
		sc_vchan_drop(child, i);
	if (parent->proc->cwd)
		sc_libfd_adopt(parent->proc->cwd->ticket_fd); /* the child may have struck it off */
	sc_fdtab_free(&child->fds);
	sc_unmap(child, sizeof(*child));
}

/* ---- a number of ours that the program wants ---- */

static void swap_fd(int *fd, int from, int to)
{
	if (*fd == from)
		__atomic_store_n(fd, to, __ATOMIC_RELEASE);
}

long sc_libfd_evict(int fd)
{
	struct sc_proc *p = &sc_main_proc;
	long copy = sc_sys3(__NR_fcntl, fd, F_DUPFD_CLOEXEC, 0);
	int to;

	if (copy < 0)
		return copy;
	to = sc_libfd_move((int)copy);
	if (to < 0)
		return to;
	sc_mutex_lock(&p->fd_lock);
	for (uint32_t i = 1; i < p->fds.file_high; i++) {
		swap_fd(&p->fds.files[i].ticket_fd, fd, to);
		if (p->fds.files[i].kind == SC_KIND_EPOLL)
			swap_fd(sc_epoll_bell(p->fds.files[i].net), fd, to);
	}
	sc_mutex_unlock(&p->fd_lock);
	sc_netmem_evict(fd, to);
	for (struct sc_serve_thread *s = all_serves; s; s = s->all)
		swap_fd(&s->bell, fd, to);
	sc_report_moved(fd, to);
	for (uint32_t i = 0; i < sc_ndoms; i++) {
		struct sc_chan *c;

		sc_mutex_lock(&sc_doms[i].lock);
		c = sc_doms[i].chan;
		if (c) {
			swap_fd(&c->sock, fd, to);
			swap_fd(&c->call, fd, to);
			swap_fd(&c->kick, fd, to);
			for (uint32_t k = 0; k < c->nspare; k++)
				swap_fd(&c->spare[k].fd, fd, to);
		}
		sc_mutex_unlock(&sc_doms[i].lock);
	}
	sc_libfd_close(fd);
	return 0;
}
