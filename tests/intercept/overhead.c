/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overhead.c - nanoseconds of local calls, as the best of many short loops. With an argument, the thread first switches Syscall
 * User Dispatch on with everything allowed: what the kernel alone takes for it. overhead.py runs and compares.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LOOPS = 60, CALLS = 4000 };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void call_getppid(void)
{
	getppid();
}

static void call_syscall(void)
{
	syscall(SYS_getppid);
}

static void call_read(void)
{
	char c;

	(void)!read(-1, &c, 1);
}

static double best_of(void (*f)(void))
{
	double best = 1e9;

	for (int i = 0; i < LOOPS; i++) {
		double start = now();

		for (int j = 0; j < CALLS; j++)
			f();
		if ((now() - start) / CALLS < best)
			best = (now() - start) / CALLS;
	}
	return best;
}

int main(int argc, char **argv)
{
	static char allow;

	if (argc > 1 &&
	    prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 4096, (1UL << 47) - 8192, &allow)) {
		perror("prctl");
		return 1;
	}
	printf("%.1f %.1f %.1f\n", best_of(call_getppid), best_of(call_syscall),
	       best_of(call_read));
	return 0;
}
