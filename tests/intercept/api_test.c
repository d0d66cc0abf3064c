/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * api_test.c - a program that uses the library without interception (SCI_MODE=none): threads become
 * known at their first call, stay the same afterwards, differ from each other, and the state of
 * ended ones is used again.
 */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ROUNDS = 200, AT_ONCE = 8 };

struct sc_thread;
struct sc_thread *sci_ensure(void);

static pthread_barrier_t barrier;

static void *thread(void *arg)
{
	struct sc_thread *t = sci_ensure();

	assert(t && sci_ensure() == t);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return t;
}

/* Threads that are alive at once have different states. Returns how many states were new. */
static int one_round(void **seen, int *nr_seen)
{
	pthread_t threads[AT_ONCE];
	void *t[AT_ONCE];
	int fresh = 0;

	pthread_barrier_init(&barrier, NULL, AT_ONCE + 1);
	for (int i = 0; i < AT_ONCE; i++)
		assert(!pthread_create(&threads[i], NULL, thread, NULL));
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < AT_ONCE; i++) {
		int known = 0;

		assert(!pthread_join(threads[i], &t[i]));
		for (int j = 0; j < i; j++)
			assert(t[i] != t[j]);
		for (int j = 0; j < *nr_seen; j++)
			known |= seen[j] == t[i];
		if (known)
			continue;
		seen[(*nr_seen)++] = t[i];
		fresh++;
	}
	return fresh;
}

int main(void)
{
	static void *seen[ROUNDS * AT_ONCE];
	struct sigaction sa;
	int nr_seen = 0;
	int fresh = 0;

	assert(!sigaction(SIGSYS, NULL, &sa) && sa.sa_handler == SIG_DFL);
	assert(sci_ensure() == sci_ensure());
	for (int i = 0; i < ROUNDS; i++)
		fresh += one_round(seen, &nr_seen);
	printf("%d states for %d threads\n", fresh, ROUNDS * AT_ONCE);
	return fresh > 4 * AT_ONCE;
}
