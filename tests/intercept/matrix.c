/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * matrix.c - what programs do with signals, threads and processes, one case per function. Each
 * prints what it saw; nothing that differs from run to run. run.py runs every case natively and
 * intercepted and compares output and exit status.
 *
 *   matrix              names of all cases
 *   matrix CASE         runs one
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

extern char **environ;

static const char *self_path;
static volatile sig_atomic_t hits;
static sigjmp_buf jump;
static char alternate[65536];
static volatile int *volatile nowhere = (volatile int *)8; /* opaque to the compiler */

static void count(int sig)
{
	hits++;
}

static void on(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = {.sa_handler = handler, .sa_flags = flags};

	assert(!sigaction(sig, &sa, NULL));
}

static void on_info(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};

	assert(!sigaction(sig, &sa, NULL));
}

static void tick(int usec)
{
	struct itimerval it = {{0, usec}, {0, usec}};

	assert(!setitimer(ITIMER_REAL, &it, NULL));
}

static void show_status(const char *what, int status)
{
	if (WIFEXITED(status))
		printf("%s: exited %d\n", what, WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		printf("%s: signal %d\n", what, WTERMSIG(status));
	else
		printf("%s: status %x\n", what, status);
	fflush(stdout);
}

/* Runs f in a forked child and shows how it ended. */
static void in_child(const char *what, void (*f)(void))
{
	struct rlimit none = {0, 0};
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		setrlimit(RLIMIT_CORE, &none);
		f();
		fflush(stdout);
		_exit(0);
	}
	assert(waitpid(pid, &status, 0) == pid);
	show_status(what, status);
}

/* Code that no analysis has seen: a system call in a page made at run time. mov %edi,%eax; syscall;
 * ret */
static long generated_call(long nr)
{
	static const uint8_t code[] = {0x89, 0xf8, 0x0f, 0x05, 0xc3};
	static long (*f)(long);

	if (!f) {
		void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		memcpy(p, code, sizeof(code));
		f = (long (*)(long))p;
	}
	return f(nr);
}

static long asm_call(long nr, long a, long b, long c)
{
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return r;
}

/* ---- blocking calls and signals ---- */

static void delayed_signal_and_byte(int fd, int sig)
{
	pid_t parent = getpid();

	if (fork())
		return;
	usleep(30000);
	kill(parent, sig);
	usleep(30000);
	if (fd >= 0)
		assert(write(fd, "x", 1) == 1);
	_exit(0);
}

static void case_restart(void)
{
	int p[2];
	char c = 0;

	assert(!pipe(p));
	on(SIGUSR1, count, SA_RESTART);
	for (int i = 0; i < 5; i++) {
		delayed_signal_and_byte(p[1], SIGUSR1);
		printf("%zd %c %d\n", read(p[0], &c, 1), c, hits);
		wait(NULL);
	}
}

static void case_eintr(void)
{
	struct timespec ts = {5, 0};
	struct timespec left;
	struct pollfd pfd;
	int p[2];
	char c;

	assert(!pipe(p));
	on(SIGUSR1, count, 0);
	delayed_signal_and_byte(-1, SIGUSR1);
	printf("read %zd %s\n", read(p[0], &c, 1), strerror(errno));
	delayed_signal_and_byte(-1, SIGUSR1);
	printf("nanosleep %d %s left %d\n", nanosleep(&ts, &left), strerror(errno),
	       left.tv_sec == 4);
	pfd = (struct pollfd){.fd = p[0], .events = POLLIN};
	delayed_signal_and_byte(-1, SIGUSR1);
	printf("poll %d %s\n", poll(&pfd, 1, 5000), strerror(errno));
	delayed_signal_and_byte(-1, SIGUSR1);
	printf("generated pause %ld\n", generated_call(SYS_pause));
	delayed_signal_and_byte(-1, SIGUSR1);
	printf("asm read %ld\n", asm_call(SYS_read, p[0], (long)&c, 1));
	printf("hits %d\n", hits);
	while (wait(NULL) > 0)
		;
}

static void jump_out(int sig)
{
	siglongjmp(jump, 1);
}

static void case_longjmp(void)
{
	volatile int out = 0;
	int p[2];
	char c;

	assert(!pipe(p));
	on(SIGALRM, jump_out, 0);
	for (volatile int i = 0; i < 300; i++) {
		struct itimerval it = {{0, 0}, {0, 200}};

		if (sigsetjmp(jump, 1)) {
			out++;
			continue;
		}
		setitimer(ITIMER_REAL, &it, NULL);
		if (i % 3 == 0)
			(void)!read(p[0], &c, 1);
		else if (i % 3 == 1)
			asm_call(SYS_read, p[0], (long)&c, 1);
		else
			generated_call(SYS_pause);
		printf("came back\n");
	}
	printf("out %d\n", out);
}

static void case_stop_cont(void)
{
	struct timespec ts = {0, 300000000};
	struct timespec before, after;
	pid_t parent = getpid();
	struct pollfd pfd = {.fd = -1};
	long ms;

	clock_gettime(CLOCK_MONOTONIC, &before);
	if (!fork()) {
		usleep(50000);
		kill(parent, SIGSTOP);
		usleep(50000);
		kill(parent, SIGCONT);
		usleep(200000);
		kill(parent, SIGSTOP);
		usleep(20000);
		kill(parent, SIGCONT);
		_exit(0);
	}
	printf("nanosleep %d\n", nanosleep(&ts, NULL));
	printf("poll %d\n", poll(&pfd, 1, 200));
	clock_gettime(CLOCK_MONOTONIC, &after);
	ms = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
	printf("time %d\n", ms >= 500 && ms < 1500);
	wait(NULL);
}

/* ---- masks ---- */

static void show_mask(const char *what)
{
	sigset_t now;
	uint64_t bits;

	sigprocmask(SIG_BLOCK, NULL, &now);
	memcpy(&bits, &now, sizeof(bits));
	printf("%s %016lx\n", what, bits);
}

static void masks_in_handler(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint64_t bits;

	memcpy(&bits, &uc->uc_sigmask, sizeof(bits));
	printf("handler %d code %d uc %016lx\n", sig, info->si_code, bits);
	show_mask("in handler");
	generated_call(SYS_getppid);
}

static void case_masks(void)
{
	struct sigaction sa = {.sa_sigaction = masks_in_handler, .sa_flags = SA_SIGINFO};
	struct sigaction old;
	sigset_t all, some;

	sigfillset(&all);
	sigemptyset(&some);
	sigaddset(&some, SIGUSR2);
	sigaddset(&some, SIGSEGV);
	show_mask("start");
	for (int round = 0; round < 3; round++) {
		sigprocmask(SIG_BLOCK, &some, NULL);
		show_mask("some");
		sa.sa_mask = round == 0 ? all : round == 1 ? some : (sigset_t){0};
		sigaction(SIGUSR1, &sa, NULL);
		sigaction(SIGUSR1, NULL, &old);
		printf("query %d flags %x\n", old.sa_sigaction == masks_in_handler,
		       old.sa_flags & ~0x04000000);
		raise(SIGUSR1);
		show_mask("after");
		sigprocmask(SIG_SETMASK, &all, NULL);
		show_mask("all");
		generated_call(SYS_getppid);
		sigprocmask(SIG_UNBLOCK, &some, NULL);
		show_mask("unblocked some");
		sigprocmask(SIG_UNBLOCK, &all, NULL);
		show_mask("none");
	}
	printf("bad how %d", sigprocmask(99, &all, NULL));
	printf(" %s\n", strerror(errno));
	printf("bad pointer %ld\n", syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8, NULL, 8));
	printf("bad size %ld\n", syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, 4));
}

static void fill_uc_mask(int sig, siginfo_t *info, void *context)
{
	sigfillset(&((ucontext_t *)context)->uc_sigmask);
}

static void empty_uc_mask(int sig, siginfo_t *info, void *context)
{
	sigemptyset(&((ucontext_t *)context)->uc_sigmask);
}

static void case_uc_mask(void)
{
	on_info(SIGUSR1, fill_uc_mask, 0);
	raise(SIGUSR1);
	show_mask("filled");
	generated_call(SYS_getppid);
	printf("alive\n");
	sigset_t one;

	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	on_info(SIGUSR1, empty_uc_mask, 0);
	raise(SIGUSR1);
	sigprocmask(SIG_UNBLOCK, &one, NULL);
	show_mask("emptied");
}

static void call_in_handler(int sig)
{
	hits++;
	generated_call(SYS_getppid);
	asm_call(SYS_getppid, 0, 0, 0);
}

static void case_wait_masks(void)
{
	sigset_t all, old;
	struct timespec ts = {2, 0};
	struct epoll_event ev;
	int ep = epoll_create1(0);
	struct timespec zero = {0, 10000000};

	sigfillset(&all);
	on(SIGUSR1, call_in_handler, 0);
	sigprocmask(SIG_SETMASK, &all, &old);
	sigdelset(&all, SIGUSR1);
	delayed_signal_and_byte(-1, SIGUSR1);
	printf("ppoll %d %s\n", ppoll(NULL, 0, &ts, &all), strerror(errno));
	delayed_signal_and_byte(-1, SIGUSR1);
	printf("pselect %d %s\n", pselect(0, NULL, NULL, NULL, &ts, &all), strerror(errno));
	delayed_signal_and_byte(-1, SIGUSR1);
	printf("epoll_pwait %d %s\n", epoll_pwait(ep, &ev, 1, 2000, &all), strerror(errno));
	delayed_signal_and_byte(-1, SIGUSR1);
	printf("sigsuspend %d %s\n", sigsuspend(&all), strerror(errno));
	show_mask("still");
	printf("hits %d\n", hits);
	sigfillset(&all);
	printf("ppoll, all blocked %d\n", ppoll(NULL, 0, &zero, &all));
	sigprocmask(SIG_SETMASK, &old, NULL);
	while (wait(NULL) > 0)
		;
}

static void case_sigaction(void)
{
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} k = {0}, q;
	int handlers = 0;

	for (int sig = 1; sig <= 64; sig++) {
		struct sigaction old;

		if (!sigaction(sig, NULL, &old) && old.sa_handler != SIG_DFL)
			handlers++;
	}
	printf("not default at start %d\n", handlers);
	k.handler = (void *)count;
	k.flags = 0xdead0fffUL | 0x04000000;
	k.restorer = (void *)0x1234;
	k.mask = ~0UL;
	for (int sig = 1; sig <= 65; sig++) {
		long r = syscall(SYS_rt_sigaction, sig, &k, NULL, 8);

		memset(&q, 0, sizeof(q));
		if (!r)
			r = syscall(SYS_rt_sigaction, sig, NULL, &q, 8);
		printf("%d: %ld %d %lx %lx %lx\n", sig, r, q.handler == k.handler, q.flags,
		       (unsigned long)q.restorer, q.mask);
	}
	k.handler = (void *)SIG_IGN;
	printf("%ld\n", syscall(SYS_rt_sigaction, SIGSEGV, &k, &q, 8));
	printf("was %d\n", q.handler == (void *)count);
	syscall(SYS_rt_sigaction, SIGSEGV, NULL, &q, 8);
	printf("is %p\n", q.handler);
	printf("%ld %ld %ld\n", syscall(SYS_rt_sigaction, 10, 8, NULL, 8),
	       syscall(SYS_rt_sigaction, 10, NULL, 8, 8),
	       syscall(SYS_rt_sigaction, 10, &k, NULL, 4));
}

static void case_resethand(void)
{
	struct sigaction q;

	on(SIGUSR1, count, SA_RESETHAND);
	raise(SIGUSR1);
	sigaction(SIGUSR1, NULL, &q);
	printf("hits %d default %d flags %x\n", hits, q.sa_handler == SIG_DFL,
	       q.sa_flags & ~0x04000000);
	on(SIGSEGV, count, SA_RESETHAND);
	raise(SIGSEGV);
	sigaction(SIGSEGV, NULL, &q);
	printf("hits %d default %d\n", hits, q.sa_handler == SIG_DFL);
}

/* ---- alternate stacks ---- */

static volatile int off_stack;

static void where(int sig)
{
	char here;

	hits++;
	if ((uintptr_t)&here - (uintptr_t)alternate >= sizeof(alternate))
		off_stack++;
}

static void slow_where(int sig)
{
	stack_t ss;
	volatile uint64_t canary[64];

	for (int i = 0; i < 64; i++)
		canary[i] = 0x1234567 * (uint64_t)i;
	where(sig);
	for (int i = 0; i < 40; i++) {
		asm_call(SYS_getppid, 0, 0, 0);
		getppid();
		generated_call(SYS_getuid);
		sigaltstack(NULL, &ss);
		if (ss.ss_flags != SS_ONSTACK)
			off_stack += 1000;
	}
	ss.ss_flags = 0;
	if (sigaltstack(&ss, NULL) != -1 || errno != EPERM)
		off_stack += 100000;
	for (int i = 0; i < 64; i++)
		if (canary[i] != 0x1234567 * (uint64_t)i)
			off_stack += 10000000;
}

static void case_altstack(void)
{
	stack_t ss = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	stack_t old;

	assert(!sigaltstack(&ss, NULL));
	sigaltstack(NULL, &old);
	printf("%d %zu %d\n", old.ss_sp == alternate, old.ss_size, old.ss_flags);
	on(SIGUSR1, slow_where, SA_ONSTACK);
	on(SIGALRM, where, SA_ONSTACK);
	tick(150);
	for (int i = 0; i < 300; i++)
		raise(SIGUSR1);
	tick(0);
	printf("hit %d off %d\n", hits > 300, off_stack);
	ss.ss_flags = SS_DISABLE;
	sigaltstack(&ss, NULL);
	sigaltstack(NULL, &old);
	printf("off %d\n", old.ss_flags);
	ss.ss_size = 100;
	ss.ss_flags = 0;
	printf("%d", sigaltstack(&ss, NULL));
	printf(" %s\n", strerror(errno));
}

static void case_autodisarm(void)
{
	stack_t ss = {
	    .ss_sp = alternate, .ss_size = sizeof(alternate), .ss_flags = (int)(1U << 31)};
	stack_t old;

	assert(!sigaltstack(&ss, NULL));
	on(SIGUSR1, where, SA_ONSTACK);
	on(SIGALRM, where, SA_ONSTACK);
	tick(100);
	for (int i = 0; i < 1000; i++)
		raise(SIGUSR1);
	tick(0);
	sigaltstack(NULL, &old);
	printf("hit %d off %d flags %x\n", hits >= 1000, off_stack, old.ss_flags);
}

/* ---- faults ---- */

static void fault_jump(int sig, siginfo_t *info, void *context)
{
	hits++;
	siglongjmp(jump, 1);
}

static int __attribute__((noinline)) overflow(volatile int n)
{
	volatile char big[4096];

	big[0] = (char)n;
	return n < 0 ? 0 : overflow(n + 1) + big[0];
}

static void skip_insn(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	hits++;
	printf("fault at %p code %d\n", info->si_addr, info->si_code);
	uc->uc_mcontext.gregs[REG_RIP] += 3; /* mov (%rax),%rcx */
	uc->uc_mcontext.gregs[REG_RCX] = 77;
}

static void case_segv_handler(void)
{
	stack_t ss = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	long got;

	on_info(SIGSEGV, skip_insn, 0);
	__asm__ volatile("mov (%%rax),%%rcx" : "=c"(got) : "a"(16L));
	printf("got %ld\n", got);
	sigaltstack(&ss, NULL);
	on_info(SIGSEGV, fault_jump, SA_ONSTACK);
	on_info(SIGBUS, fault_jump, SA_ONSTACK);
	for (volatile int i = 0; i < 20; i++) {
		if (!sigsetjmp(jump, 1))
			overflow(0);
		if (!sigsetjmp(jump, 1))
			*nowhere = 1;
		if (!sigsetjmp(jump, 1))
			*(volatile int *)0x8000000000000000UL = 1;
	}
	printf("hits %d\n", hits);
	show_mask("after");
}

static void fault(void)
{
	*nowhere = 1;
}

static void fault_ignored(void)
{
	signal(SIGSEGV, SIG_IGN);
	kill(getpid(), SIGSEGV);
	printf("sent one is ignored\n");
	fflush(stdout);
	fault();
}

static void fault_blocked(void)
{
	sigset_t all;

	sigfillset(&all);
	on(SIGSEGV, count, 0);
	sigprocmask(SIG_SETMASK, &all, NULL);
	fault();
}

static void fault_in_handler(int sig)
{
	if (hits++ > 3)
		_exit(9);
	fault();
}

static void fault_nested(void)
{
	on(SIGSEGV, fault_in_handler, 0);
	fault();
}

static void fault_nodefer(void)
{
	on(SIGSEGV, fault_in_handler, SA_NODEFER);
	fault();
}

static void fault_reset(void)
{
	on(SIGSEGV, count, SA_RESETHAND);
	fault();
}

static void segv_sent(void)
{
	raise(SIGSEGV);
}

static void bus(void)
{
	FILE *f = tmpfile();
	char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(f), 0);

	printf("%d", p[0]);
}

static void abort_it(void)
{
	abort();
}

static void sys_sent(void)
{
	raise(SIGSYS);
}

static void case_segv_default(void)
{
	in_child("fault", fault);
	in_child("ignored", fault_ignored);
	in_child("blocked", fault_blocked);
	in_child("nested", fault_nested);
	in_child("nodefer", fault_nodefer);
	in_child("reset", fault_reset);
	in_child("sent", segv_sent);
	in_child("bus", bus);
	in_child("abort", abort_it);
	in_child("sys", sys_sent);
}

static void case_segv_pending(void)
{
	sigset_t set, pending;

	sigemptyset(&set);
	sigaddset(&set, SIGSEGV);
	sigaddset(&set, SIGSYS);
	on(SIGSEGV, count, 0);
	on(SIGSYS, count, 0);
	sigprocmask(SIG_BLOCK, &set, NULL);
	kill(getpid(), SIGSEGV);
	raise(SIGSYS);
	raise(SIGSYS);
	sigpending(&pending);
	printf("hits %d pending %d %d\n", hits, sigismember(&pending, SIGSEGV),
	       sigismember(&pending, SIGSYS));
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	sigpending(&pending);
	printf("hits %d pending %d\n", hits, sigismember(&pending, SIGSEGV));
}

static void case_efault(void)
{
	int p[2];

	assert(!pipe(p));
	printf("%ld %ld %ld\n", asm_call(SYS_write, p[1], 8, 10), asm_call(SYS_read, -1, 8, 10),
	       asm_call(SYS_openat, AT_FDCWD, 8, 0));
	printf("%ld\n", asm_call(SYS_execve, 8, 0, 0));
	printf("%ld %ld\n", asm_call(SYS_sigaltstack, 8, 0, 0), asm_call(SYS_clone3, 8, 88, 0));
}

/* ---- registers ---- */

/* Sets all registers, makes a call, looks at them again. Returns how much is wrong. */
static int registers(int rounds)
{
	static struct {
		uint64_t in[16], out[16], flags_in, flags_out;
		uint8_t xmm_in[16][16], xmm_out[16][16];
	} s;
	register void *base __asm__("r15") = &s;
	int bad = 0;

	for (int i = 0; i < 16; i++)
		for (int j = 0; j < 16; j++)
			s.xmm_in[i][j] = (uint8_t)(i * 16 + j);
	for (int round = 0; round < rounds; round++) {
		s.flags_in = 0x202 | (round & 1) | (round & 2 ? 0x40 : 0) | (round & 4 ? 0x80 : 0) |
			     (round & 8 ? 0x800 : 0) | (round & 16 ? 0x10 : 0) |
			     (round & 32 ? 0x400 : 0);
		__asm__ volatile(
		    "push %%rbp\n push %%rbx\n"
		    "lea -256(%%rsp),%%rsp\n" /* no red zone of the compiler's to fear */
		    "movq $0x5aa5,-8(%%rsp)\n movq $0x6bb6,-128(%%rsp)\n"
		    ".set i,0\n .irp x,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
		    "movdqu 272+i*16(%%r15),%%xmm\\x\n .set i,i+1\n .endr\n"
		    "mov $1,%%rdi\n mov $2,%%rsi\n mov $3,%%rdx\n mov $4,%%r10\n mov $5,%%r8\n"
		    "mov $6,%%r9\n mov $7,%%rbx\n mov $8,%%rbp\n mov $9,%%r12\n mov $10,%%r13\n"
		    "mov $11,%%r14\n"
		    "pushq 256(%%r15)\n popfq\n"
		    "mov $110,%%eax\n syscall\n"
		    "pushfq\n popq 264(%%r15)\n cld\n"
		    "mov %%rdi,128(%%r15)\n mov %%rsi,136(%%r15)\n mov %%rdx,144(%%r15)\n"
		    "mov %%r10,152(%%r15)\n mov %%r8,160(%%r15)\n mov %%r9,168(%%r15)\n"
		    "mov %%rbx,176(%%r15)\n mov %%rbp,184(%%r15)\n mov %%r12,192(%%r15)\n"
		    "mov %%r13,200(%%r15)\n mov %%r14,208(%%r15)\n"
		    "mov -128(%%rsp),%%rax\n mov %%rax,216(%%r15)\n" /* -8 held the flags */
		    ".set i,0\n .irp x,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
		    "movdqu %%xmm\\x,528+i*16(%%r15)\n .set i,i+1\n .endr\n"
		    "lea 256(%%rsp),%%rsp\n pop %%rbx\n pop %%rbp\n"
		    :
		    : "r"(base)
		    : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
		      "r14", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
		      "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
		for (uint64_t i = 0; i < 11; i++)
			bad += s.out[i] != i + 1;
		bad += s.out[11] != 0x6bb6;
		bad += s.flags_out != s.flags_in ? 100 : 0;
		bad += memcmp(s.xmm_in, s.xmm_out, sizeof(s.xmm_in)) ? 10000 : 0;
	}
	return bad;
}

static void spoil(int sig)
{
	hits++;
	asm_call(SYS_getppid, 0, 0, 0);
	getppid();
	__asm__ volatile("pxor %%xmm0,%%xmm0\n pxor %%xmm15,%%xmm15\n" : : : "xmm0", "xmm15");
}

static void case_registers(void)
{
	int bad = registers(64);

	on(SIGALRM, spoil, SA_RESTART);
	tick(70);
	for (int i = 0; i < 1000 && hits < 3000; i++)
		bad += registers(64);
	tick(0);
	printf("bad %d hits %d\n", bad, hits > 10);
}

static long on_small_stack(void *top, long nr)
{
	long r;

	__asm__ volatile("mov %%rsp,%%rbx\n mov %[top],%%rsp\n syscall\n mov %%rbx,%%rsp\n"
			 : "=a"(r)
			 : "a"(nr), "D"(-1), "S"(0), "d"(0), [top] "r"(top)
			 : "rbx", "rcx", "r11", "memory");
	return r;
}

/* A stack with no room for a signal's frame: all there is goes to the alternate one. Below it lies
 * what must stay. */
static void case_small_stack(void)
{
	static uint64_t stack[1024];
	stack_t ss = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	int spoilt = 0;

	for (int i = 0; i < 1024; i++)
		stack[i] = 0x5a5a;
	sigaltstack(&ss, NULL);
	on(SIGALRM, spoil, SA_RESTART | SA_ONSTACK);
	tick(100);
	for (int i = 0; i < 20000; i++) {
		if (on_small_stack(&stack[1023], SYS_getppid) != getppid())
			spoilt += 10000;
		if (on_small_stack(&stack[1023], SYS_fsync) != -EBADF)
			spoilt += 10000;
	}
	tick(0);
	for (int i = 0; i < 1024; i++)
		spoilt += stack[i] != 0x5a5a;
	printf("spoilt %d\n", spoilt);
}

static void case_numbers(void)
{
	printf("%ld %ld %ld\n", asm_call(-1, 0, 0, 0), asm_call(9999, 0, 0, 0),
	       asm_call(100000, 0, 0, 0));
	printf("%d\n", asm_call(0x40000000 + 39, 0, 0, 0) > 0);
	printf("high half %d\n",
	       asm_call((long)(0xffff00000000UL | SYS_getpid), 0, 0, 0) == getpid());
	printf("%ld %s\n", syscall(-1), strerror(errno));
	printf("generated %d\n", generated_call(SYS_getppid) == getppid());
}

static void case_int80(void)
{
	long r;

	__asm__ volatile("int $0x80"
			 : "=a"(r)
			 : "a"(20L)
			 : "memory"); /* getpid of the 32-bit table */
	printf("%d\n", r == getpid());
}

/* ---- signal storm ---- */

#ifndef STORM_USEC
#define STORM_USEC 60
#endif
static volatile sig_atomic_t depth;

/* Interrupts itself, where SA_NODEFER allows it; on a slow machine for ever, if it did not stop at
 * some depth. */
static void storm_handler(int sig)
{
	hits++;
	if (depth > 20)
		return;
	depth++;
	asm_call(SYS_getppid, 0, 0, 0);
	getppid();
	if (hits % 16 == 0)
		raise(SIGUSR2);
	depth--;
}

static void case_storm(void)
{
	struct timespec end, now;
	long bad = 0;
	int fd = open("/dev/zero", O_RDONLY);
	pid_t ppid = getppid();
	char buf[300];

	on(SIGALRM, storm_handler, SA_RESTART);
	on(SIGUSR2, storm_handler, SA_RESTART | SA_NODEFER);
	tick(STORM_USEC);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += 2;
	do {
		for (int i = 0; i < 50; i++) {
			bad += asm_call(SYS_getppid, 0, 0, 0) != ppid;
			bad += getppid() != ppid;
			bad += generated_call(SYS_getppid) != ppid;
			bad += read(fd, buf, sizeof(buf)) != sizeof(buf);
			sigset_t s;

			sigemptyset(&s);
			sigaddset(&s, SIGALRM);
			bad += sigprocmask(SIG_BLOCK, &s, NULL) != 0;
			bad += sigprocmask(SIG_UNBLOCK, &s, NULL) != 0;
			on(SIGALRM, storm_handler, i & 1 ? SA_RESTART : SA_RESTART | SA_NODEFER);
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec ||
		 (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
	tick(0);
	printf("bad %ld hits %d\n", bad, hits > 100);
}

static void storm_jump(int sig)
{
	hits++;
	siglongjmp(jump, 1);
}

static void case_storm_longjmp(void)
{
	volatile long rounds = 0;
	volatile long bad = 0;
	pid_t ppid = getppid();
	struct timespec end, now;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += 1;
	on(SIGALRM, storm_jump, 0);
	sigsetjmp(jump, 1);
	clock_gettime(CLOCK_MONOTONIC, &now);
	tick(150);
	while (now.tv_sec < end.tv_sec) {
		for (int i = 0; i < 20; i++) {
			bad += asm_call(SYS_getppid, 0, 0, 0) != ppid;
			bad += getppid() != ppid;
			bad += generated_call(SYS_getppid) != ppid;
		}
		rounds++;
		clock_gettime(CLOCK_MONOTONIC, &now);
	}
	signal(SIGALRM, SIG_IGN);
	tick(0);
	printf("bad %ld rounds %d hits %d\n", bad, rounds > 10, hits > 10);
}

static void queue_order(int sig, siginfo_t *info, void *context)
{
	static int next;

	if (info->si_value.sival_int != next++)
		hits += 1000;
	hits++;
}

static void case_rt_queue(void)
{
	on_info(SIGRTMIN + 3, queue_order, SA_RESTART);
	fflush(stdout);
	if (!fork()) {
		for (int i = 0; i < 2000; i++)
			while (sigqueue(getppid(), SIGRTMIN + 3, (union sigval){.sival_int = i}))
				usleep(100);
		_exit(0);
	}
	while (wait(NULL) < 0)
		;
	for (int i = 0; i < 1000 && hits < 2000; i++)
		usleep(1000);
	printf("hits %d\n", hits);
}

static void case_sigwait(void)
{
	sigset_t set;
	siginfo_t info;
	struct timespec ts = {2, 0};
	struct signalfd_siginfo si;
	int fd;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, 0);
	raise(SIGUSR1);
	sigwait(&set, &sig);
	printf("sigwait %d\n", sig);
	sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 5});
	printf("timedwait %d", sigtimedwait(&set, &info, &ts));
	printf(" value %d\n", info.si_value.sival_int);
	raise(SIGUSR1);
	printf("signalfd %zd %d\n", read(fd, &si, sizeof(si)), si.ssi_signo);
	ts.tv_sec = 0;
	printf("none %d\n", sigtimedwait(&set, &info, &ts));
}

/* ---- threads ---- */

static void *thread_calls(void *arg)
{
	long bad = 0;
	pid_t ppid = getppid();

	for (int i = 0; i < 200; i++) {
		bad += getppid() != ppid;
		bad += asm_call(SYS_getppid, 0, 0, 0) != ppid;
		bad += syscall(SYS_gettid) != (long)gettid();
	}
	return (void *)bad;
}

static long maps_lines(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	long n = 0;

	for (int c; (c = getc(f)) != EOF;)
		n += c == '\n';
	fclose(f);
	return n;
}

static void case_threads(void)
{
	long bad = 0;
	long before = 0;
	long after;

	for (int round = 0; round < 60; round++) {
		pthread_t t[40];

		for (int i = 0; i < 40; i++)
			assert(!pthread_create(&t[i], NULL, thread_calls, NULL));
		for (int i = 0; i < 40; i++) {
			void *r;

			pthread_join(t[i], &r);
			bad += (long)r;
		}
		if (round == 5)
			before = maps_lines();
	}
	after = maps_lines();
	printf("bad %ld grown %d\n", bad, after > before + 300);
}

static pthread_barrier_t barrier;

static void *thread_waits(void *arg)
{
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return NULL;
}

static void case_many_threads(void)
{
	enum { N = 500 };
	static pthread_t t[N];
	pthread_attr_t a;
	long before;
	long after;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 16384 * 2);
	before = maps_lines();
	for (int round = 0; round < 4; round++) {
		pthread_barrier_init(&barrier, NULL, N + 1);
		for (int i = 0; i < N; i++)
			assert(!pthread_create(&t[i], &a, thread_waits, NULL));
		pthread_barrier_wait(&barrier);
		pthread_barrier_wait(&barrier);
		for (int i = 0; i < N; i++)
			pthread_join(t[i], NULL);
	}
	after = maps_lines();
	printf("grown %d\n", after > before + 800);
}

static void destroyed(const char **what)
{
	printf("destroyed %s\n", *what);
}

static void cleanup(void *arg)
{
	printf("cleanup %s\n", (char *)arg);
}

static int cancel_pipe[2];

static void *cancel_me(void *arg)
{
	const char *what __attribute__((cleanup(destroyed))) =
	    arg; /* by the unwinder, through our frames */
	char c;

	pthread_cleanup_push(cleanup, arg);
	for (;;) {
		if (!strcmp(arg, "sleep"))
			sleep(1);
		else if (!strcmp(arg, "pause"))
			pause();
		else
			(void)!read(cancel_pipe[0], &c, 1);
	}
	pthread_cleanup_pop(0);
	return NULL;
}

/* Where it is cancelled is a matter of chance, so it has nothing to clean up. */
static void *cancel_any_time(void *arg)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (;;)
		getppid();
	return NULL;
}

static void case_cancel(void)
{
	static const char *const how[] = {"read", "sleep", "pause", "async"};

	assert(!pipe(cancel_pipe));
	for (int i = 0; i < 4 * 8; i++) {
		pthread_t t;
		void *r;

		pthread_create(&t, NULL, i % 4 == 3 ? cancel_any_time : cancel_me,
			       (void *)how[i % 4]);
		usleep(i < 16 ? 3000 : 0);
		pthread_cancel(t);
		pthread_join(t, &r);
		printf("%s %d\n", how[i % 4], r == PTHREAD_CANCELED);
	}
}

static atomic_int stop;

static void *kill_others(void *arg)
{
	pthread_t *t = arg;

	while (!stop) {
		for (int i = 0; i < 4; i++)
			pthread_kill(t[i], SIGUSR1);
		usleep(100);
	}
	return NULL;
}

static void thread_handler(int sig)
{
	getppid();
	generated_call(SYS_gettid);
}

static void *busy_calls(void *arg)
{
	long bad = 0;
	pid_t ppid = getppid();
	int fd = eventfd(0, EFD_NONBLOCK);
	uint64_t v;

	while (!stop) {
		pthread_t t;

		bad += getppid() != ppid;
		bad += generated_call(SYS_getppid) != ppid;
		v = 1;
		bad += write(fd, &v, 8) != 8;
		bad += read(fd, &v, 8) != 8;
		pthread_create(&t, NULL, thread_calls, NULL);
		pthread_join(t, (void **)&v);
		bad += (long)v;
	}
	close(fd);
	return (void *)bad;
}

static void case_thread_storm(void)
{
	pthread_t t[4];
	pthread_t killer;
	long bad = 0;

	generated_call(SYS_getppid);
	on(SIGUSR1, thread_handler, SA_RESTART);
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, busy_calls, NULL);
	pthread_create(&killer, NULL, kill_others, t);
	sleep(2);
	stop = 1;
	pthread_join(killer, NULL);
	for (int i = 0; i < 4; i++) {
		void *r;

		pthread_join(t[i], &r);
		bad += (long)r;
	}
	printf("bad %ld\n", bad);
}

/* Many threads meet fresh sites, all at once, while pages are being replaced. */
static void *fresh_sites(void *arg)
{
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 4000; i++) {
		struct rlimit r;
		struct timespec ts;
		char buf[8];

		switch (((unsigned long)arg + (unsigned long)i) % 6) {
		case 0:
			getuid();
			geteuid();
			break;
		case 1:
			getgid();
			getegid();
			break;
		case 2:
			getpgrp();
			break;
		case 3:
			gettid();
			break;
		default:
			sched_yield();
		}
		getrlimit(RLIMIT_CORE, &r);
		clock_getres(CLOCK_MONOTONIC, &ts);
		(void)!read(-1, buf, 1);
		(void)!write(-1, buf, 1);
		lseek(-1, 0, 0);
		(void)!access("/nonexistent", 0);
		madvise(NULL, 0, 0);
		sched_getscheduler(0);
	}
	return NULL;
}

static void case_fresh_sites(void)
{
	pthread_t t[8];

	pthread_barrier_init(&barrier, NULL, 8);
	for (unsigned long i = 0; i < 8; i++)
		pthread_create(&t[i], NULL, fresh_sites, (void *)i);
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	printf("done\n");
}

static void *main_gone(void *arg)
{
	usleep(50000);
	printf("main is gone\n");
	fflush(stdout);
	exit(4);
}

static void case_main_exits(void)
{
	pthread_t t;

	pthread_create(&t, NULL, main_gone, NULL);
	pthread_exit(NULL);
}

static void *idle(void *arg)
{
	for (;;)
		pause();
	return NULL;
}

static void case_setxid(void)
{
	pthread_t t;

	for (int i = 0; i < 5; i++)
		pthread_create(&t, NULL, idle, NULL);
	printf("%d\n", setgid(getgid()));
	printf("%d\n", setuid(getuid()));
}

static void case_exec_from_thread_helper(void)
{
	execl("/bin/echo", "echo", "replaced", (char *)NULL);
	_exit(1);
}

static void *exec_thread(void *arg)
{
	case_exec_from_thread_helper();
	return NULL;
}

static void case_exec_from_thread(void)
{
	pthread_t t;

	for (int i = 0; i < 5; i++)
		pthread_create(&t, NULL, idle, NULL);
	pthread_create(&t, NULL, exec_thread, NULL);
	pthread_join(t, NULL);
}

static void *fork_thread(void *arg)
{
	int bad = 0;

	for (int i = 0; i < 30; i++) {
		int status;
		pid_t p = fork();

		if (!p) {
			pthread_t t;

			getppid();
			pthread_create(&t, NULL, thread_calls, NULL);
			pthread_join(t, NULL);
			_exit(7);
		}
		bad +=
		    waitpid(p, &status, 0) != p || !WIFEXITED(status) || WEXITSTATUS(status) != 7;
	}
	return (void *)(long)bad;
}

static void case_fork_threads(void)
{
	pthread_t t[4];
	long bad = 0;

	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, fork_thread, NULL);
	for (int i = 0; i < 4; i++) {
		void *r;

		pthread_join(t[i], &r);
		bad += (long)r;
	}
	printf("bad %ld\n", bad);
}

/* ---- processes ---- */

/* What programs do after vfork is what is tested. */
/* NOLINTBEGIN(clang-analyzer-security.insecureAPI.vfork,clang-analyzer-unix.Vfork) */
static void case_vfork(void)
{
	volatile int i;
	int status;
	struct sigaction q;

	on(SIGUSR1, count, 0);
	for (i = 0; i < 100; i++) {
		pid_t p = vfork();

		if (!p) {
			signal(SIGUSR1, SIG_IGN);
			signal(SIGSEGV, SIG_DFL);
			if (i % 2)
				_exit(i);
			execl("/bin/sh", "sh", "-c", "exit 5", (char *)NULL);
			_exit(1);
		}
		assert(waitpid(p, &status, 0) == p);
		if (i < 4)
			show_status("vfork", status);
	}
	sigaction(SIGUSR1, NULL, &q);
	printf("handler kept %d\n", q.sa_handler == count);
	raise(SIGUSR1);
	printf("hits %d\n", hits);
}

static void case_spawn(void)
{
	char *argv[] = {(char *)self_path, "--state", NULL};
	char *bad[] = {"/nonexistent", NULL};
	posix_spawnattr_t a;
	sigset_t set;
	pid_t p;
	int status;

	on(SIGUSR1, count, 0);
	signal(SIGUSR2, SIG_IGN);
	signal(SIGSEGV, SIG_IGN);
	signal(SIGSYS, SIG_IGN);
	for (int i = 0; i < 3; i++) {
		posix_spawnattr_init(&a);
		if (i) {
			sigfillset(&set);
			posix_spawnattr_setsigmask(&a, &set);
			if (i == 2)
				posix_spawnattr_setsigdefault(&a, &set);
			posix_spawnattr_setflags(&a, i == 2 ? POSIX_SPAWN_SETSIGMASK |
								  POSIX_SPAWN_SETSIGDEF
							    : POSIX_SPAWN_SETSIGMASK);
		}
		fflush(stdout);
		assert(!posix_spawn(&p, self_path, NULL, &a, argv, environ));
		waitpid(p, &status, 0);
		show_status("spawned", status);
	}
	printf("no such %d\n", posix_spawn(&p, bad[0], NULL, NULL, bad, environ));
	raise(SIGUSR1);
	printf("hits %d\n", hits);
	printf("system %d\n", system("exit 3"));
	fflush(stdout);
	FILE *f = popen("echo from popen", "r");
	char line[64];

	printf("%s", fgets(line, sizeof(line), f));
	printf("%d\n", pclose(f));
}

static void case_exec_state(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGSEGV);
	sigaddset(&set, SIGSYS);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGUSR2, SIG_IGN);
	signal(SIGBUS, SIG_IGN);
	raise(SIGUSR1);
	execl("/nonexistent", "x", (char *)NULL);
	show_mask("exec failed");
	execl(self_path, self_path, "--state", (char *)NULL);
}

static int clone_fn(void *arg)
{
	*(int *)arg = 42;
	getppid();
	generated_call(SYS_getuid);
	return 11;
}

static char clone_stack[65536] __attribute__((aligned(16)));

static void case_clone(void)
{
	static int value;
	static const int flags[] = {SIGCHLD, CLONE_VM | SIGCHLD, CLONE_VM | CLONE_VFORK | SIGCHLD,
				    CLONE_VM | CLONE_SIGHAND | SIGCHLD, CLONE_FILES | SIGCHLD};

	for (int i = 0; i < 5 * 3; i++) {
		int status;
		pid_t p;

		value = 0;
		p = clone(clone_fn, clone_stack + sizeof(clone_stack), flags[i % 5], &value);
		assert(waitpid(p, &status, 0) == p);
		show_status("clone", status);
		printf("value %d\n", value);
	}
}

static void case_clone3(void)
{
	struct clone_args a = {.exit_signal = SIGCHLD, .flags = 0x100000000UL /* CLEAR_SIGHAND */};
	int status;
	long p;

	on(SIGUSR1, count, 0);
	fflush(stdout);
	for (int i = 0; i < 3; i++) {
		p = syscall(SYS_clone3, &a, sizeof(a));
		if (!p) {
			struct sigaction q;

			sigaction(SIGUSR1, NULL, &q);
			generated_call(SYS_getppid);
			_exit(q.sa_handler == SIG_DFL ? 21 : 22);
		}
		assert(waitpid((pid_t)p, &status, 0) == p);
		show_status("clone3", status);
	}
	printf("%ld", syscall(SYS_clone3, &a, 8));
	printf(" %s\n", strerror(errno));
	a.stack = 4096;
	printf("%ld", syscall(SYS_clone3, &a, sizeof(a)));
	printf(" %s\n", strerror(errno));
	a.stack = 0;
	a.flags = CLONE_THREAD;
	printf("%ld", syscall(SYS_clone3, &a, sizeof(a)));
	printf(" %s\n", strerror(errno));
	raise(SIGUSR1);
	printf("hits %d\n", hits);
}

static void fork_in_handler(int sig)
{
	if (!fork())
		_exit(0);
	hits++;
}

static void case_fork_in_handler(void)
{
	on(SIGUSR1, fork_in_handler, 0);
	for (int i = 0; i < 20; i++)
		raise(SIGUSR1);
	while (wait(NULL) > 0)
		;
	printf("hits %d\n", hits);
}

static void case_fork_storm(void)
{
	int bad = 0;

	on(SIGALRM, count, SA_RESTART);
	tick(300);
	for (int i = 0; i < 200; i++) {
		int status;
		pid_t p = i % 2 ? fork() : vfork();

		if (!p)
			_exit(i & 63);
		while (waitpid(p, &status, 0) < 0)
			;
		bad += !WIFEXITED(status) || WEXITSTATUS(status) != (i & 63);
	}
	tick(0);
	printf("bad %d\n", bad);
}

/* A debugger's start: its vfork child would stop at a trap, with nobody to wake it up. */
static void case_traceme(void)
{
	for (volatile int i = 0; i < 4; i++) {
		pid_t p = i % 2 ? vfork() : fork();
		int status;

		if (!p) {
			ptrace(PTRACE_TRACEME, 0, NULL, NULL);
			execl("/bin/true", "true", (char *)NULL);
			_exit(1);
		}
		while (waitpid(p, &status, 0) == p && WIFSTOPPED(status))
			ptrace(PTRACE_CONT, p, NULL,
			       WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
		show_status("traced", status);
	}
}

/* NOLINTEND(clang-analyzer-security.insecureAPI.vfork,clang-analyzer-unix.Vfork) */

static void case_exec_storm(void)
{
	int bad = 0;

	on(SIGALRM, count, SA_RESTART);
	for (int i = 0; i < 40; i++) {
		int status;
		pid_t p = fork();

		if (!p) {
			signal(SIGPROF, SIG_IGN);
			tick(200);
			usleep(1000);
			setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
			execl("/bin/true", "true", (char *)NULL);
			_exit(1);
		}
		waitpid(p, &status, 0);
		bad += status != 0;
	}
	printf("bad %d\n", bad);
}

/* ---- SIGSYS of the program's own ---- */

static void sys_handler(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	hits++;
	printf("SIGSYS code %d call %d arch %d\n", info->si_code, info->si_syscall,
	       info->si_arch == AUDIT_ARCH_X86_64);
	if (info->si_code == 1)
		uc->uc_mcontext.gregs[REG_RAX] = 4711;
}

static void case_seccomp(void)
{
	struct sock_filter f[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = 4, .filter = f};

	on_info(SIGSYS, sys_handler, 0);
	raise(SIGSYS);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	printf("%d\n", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
	printf("%ld\n", asm_call(SYS_getppid, 0, 0, 0));
	printf("%d\n", getppid());
	printf("%ld\n", generated_call(SYS_getppid));
	printf("hits %d\n", hits);
}

/* ---- others ---- */

/* A policy against new executable memory: nothing can be rewritten, everything traps, all still
 * works. */
static void case_deny_write_exec(void)
{
	int bad = 0;

	generated_call(SYS_getppid);
	prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0); /* a kernel without it: no matter */
	for (int i = 0; i < 100; i++) {
		bad += getppid() != generated_call(SYS_getppid);
		bad += getuid() != (uid_t)asm_call(SYS_getuid, 0, 0, 0);
		bad += access("/", F_OK) != 0;
	}
	printf("bad %d\n", bad);
}

static ucontext_t main_context, other_context;

static void other(void)
{
	for (int i = 0; i < 3; i++) {
		printf("other %d\n", i);
		getppid();
		swapcontext(&other_context, &main_context);
	}
}

static void case_swapcontext(void)
{
	getcontext(&other_context);
	other_context.uc_stack.ss_sp = clone_stack;
	other_context.uc_stack.ss_size = sizeof(clone_stack);
	other_context.uc_link = &main_context;
	makecontext(&other_context, other, 0);
	for (int i = 0; i < 4; i++)
		swapcontext(&main_context, &other_context);
	printf("back\n");
}

static atomic_int timer_hits;

static void timer_thread(union sigval v)
{
	timer_hits += v.sival_int;
}

static void case_timers(void)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD,
			      .sigev_notify_function = timer_thread,
			      .sigev_value.sival_int = 1};
	struct itimerspec its = {{0, 3000000}, {0, 3000000}};
	timer_t t;

	assert(!timer_create(CLOCK_MONOTONIC, &ev, &t));
	timer_settime(t, 0, &its, NULL);
	for (int i = 0; i < 500 && timer_hits < 10; i++)
		usleep(1000);
	timer_delete(t);
	ev.sigev_notify = SIGEV_SIGNAL;
	ev.sigev_signo = SIGUSR1;
	on(SIGUSR1, count, SA_RESTART);
	assert(!timer_create(CLOCK_MONOTONIC, &ev, &t));
	timer_settime(t, 0, &its, NULL);
	for (int i = 0; i < 500 && hits < 20; i++)
		usleep(1000);
	timer_delete(t);
	printf("%d %d\n", timer_hits >= 10, hits >= 20);
}

static void case_env(void)
{
	printf("%d %ld %d\n", prctl(59, 0, 0, 0, 0), syscall(SYS_arch_prctl, 0x9999, 0),
	       isatty(99));
}

/* Only intercepted: calls of testserve.c. Prints what is expected natively, too, where there is no
 * such call. */
static void case_served(void)
{
	char a[16] = "fifteen letters", b[16] = "";
	long long_string = (long)"0123456789abcdef";

	if (asm_call(405, long_string, 100, 0) != 16) {
		printf("served\n");
		return;
	}
	assert(asm_call(402, (long)a, (long)b, 0) == 0 && !strcmp(a, b));
	assert(asm_call(402, 8, (long)b, 0) == -EFAULT);
	assert(asm_call(402, (long)a, 8, 0) == -EFAULT);
	assert(asm_call(402, (long)a, (long)0x8000000000000000UL, 0) == -EFAULT);
	for (long i = 0; i < 16; i++)
		assert(asm_call(405, long_string + i, 100, 0) == 16 - i);
	assert(asm_call(405, long_string, 3, 0) == 3 && asm_call(405, long_string, 0, 0) == 0);
	assert(asm_call(405, 8, 100, 0) == -EFAULT);
	for (int flags = 0; flags < 2; flags++) {
		on(SIGUSR1, count, flags ? SA_RESTART : 0);
		hits = 0;
		for (int i = 0; i < 10; i++) {
			delayed_signal_and_byte(-1, SIGUSR1);
			assert(asm_call(400, 0, 0, 0) == -EINTR && hits == i + 1);
			wait(NULL);
		}
	}
	/* SA_RESTART: goes on after the handler; a signal without it ends the call. */
	hits = 0;
	on(SIGUSR1, count, SA_RESTART);
	on(SIGUSR2, count, 0);
	fflush(stdout);
	if (!fork()) {
		usleep(20000);
		for (int i = 0; i < 5; i++) {
			kill(getppid(), SIGUSR1);
			usleep(10000);
		}
		kill(getppid(), SIGUSR2);
		_exit(0);
	}
	assert(asm_call(401, 0, 0, 0) == -EINTR && hits == 6);
	wait(NULL);
	/* Leaving by siglongjmp. */
	on(SIGALRM, jump_out, 0);
	for (volatile int i = 0; i < 100; i++) {
		struct itimerval it = {{0, 0}, {0, 300}};

		if (sigsetjmp(jump, 1))
			continue;
		setitimer(ITIMER_REAL, &it, NULL);
		asm_call(400 + i % 2, 0, 0, 0);
		assert(i % 2 == 0);
	}
	assert(!setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL));
	assert(asm_call(404, 0, 0, 0) == 0);
	printf("served\n");
}

static void case_served_state(void)
{
	long forks;
	pthread_t t;

	if (asm_call(405, (long)"abc", 100, 0) != 3) {
		printf("served\n");
		return;
	}
	forks = asm_call(403, 0, 0, 0);
	fflush(stdout);
	assert(freopen("/dev/null", "w", stdout)); /* they print what other cases compare */
	case_vfork();
	case_clone();
	assert(freopen("/dev/fd/2", "w", stdout));
	for (int i = 0; i < 10; i++) {
		pthread_create(&t, NULL, thread_calls, NULL);
		pthread_join(t, NULL);
	}
	usleep(20000);
	assert(asm_call(404, 0, 0, 0) == 0); /* vfork children's state given back */
	assert(asm_call(406, 0, 0, 0) == 1);
	assert((asm_call(403, 0, 0, 0) & 0xff) > (forks & 0xff));
	printf("served\n");
}

/* ---- what an exec'd child sees ---- */

static int state(void)
{
	sigset_t pending;
	int ignored = 0;

	show_mask("inherited mask");
	for (int sig = 1; sig <= 64; sig++) {
		struct sigaction q;

		if (!sigaction(sig, NULL, &q) && q.sa_handler == SIG_IGN)
			ignored += sig;
		if (!sigaction(sig, NULL, &q) && q.sa_handler != SIG_IGN && q.sa_handler != SIG_DFL)
			printf("handler for %d\n", sig);
	}
	sigpending(&pending);
	printf("ignored %d, USR1 pending %d\n", ignored, sigismember(&pending, SIGUSR1));
	fflush(stdout);
	return 13;
}

#define CASE(name)                 \
	{                          \
#name, case_##name \
	}
static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
    CASE(restart),
    CASE(eintr),
    CASE(longjmp),
    CASE(stop_cont),
    CASE(masks),
    CASE(uc_mask),
    CASE(wait_masks),
    CASE(sigaction),
    CASE(resethand),
    CASE(altstack),
    CASE(autodisarm),
    CASE(segv_handler),
    CASE(segv_default),
    CASE(segv_pending),
    CASE(efault),
    CASE(small_stack),
    CASE(registers),
    CASE(numbers),
    CASE(int80),
    CASE(storm),
    CASE(storm_longjmp),
    CASE(rt_queue),
    CASE(sigwait),
    CASE(threads),
    CASE(many_threads),
    CASE(cancel),
    CASE(thread_storm),
    CASE(fresh_sites),
    CASE(main_exits),
    CASE(setxid),
    CASE(exec_from_thread),
    CASE(fork_threads),
    CASE(vfork),
    CASE(spawn),
    CASE(exec_state),
    CASE(clone),
    CASE(clone3),
    CASE(fork_in_handler),
    CASE(fork_storm),
    CASE(exec_storm),
    CASE(traceme),
    CASE(seccomp),
    CASE(deny_write_exec),
    CASE(swapcontext),
    CASE(timers),
    CASE(env),
    CASE(served),
    CASE(served_state),
};

int main(int argc, char **argv)
{
	self_path = argv[0];
	if (argc == 2 && !strcmp(argv[1], "--state"))
		return state();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (argc < 2)
			printf("%s\n", cases[i].name);
		else if (!strcmp(argv[1], cases[i].name))
			cases[i].run();
	}
	return 0;
}
