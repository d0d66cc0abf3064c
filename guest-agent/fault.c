/* SPDX-License-Identifier: BSD-3-Clause */
/* fault.c - see fault.h. Linked into sc-agent-fault alone. */
#include "fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char where[64]; /* empty: nowhere */
static _Atomic long left;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_environment(void)
{
	const char *text = getenv("SC_FAULT"), *number;

	if (!text || strlen(text) >= sizeof(where))
		return;
	strcpy(where, text);
	atomic_init(&left, 1);
	number = strrchr(text, ':');
	if (!number || number[1] < '0' || number[1] > '9')
		return;
	atomic_init(&left, strtol(number + 1, NULL, 10));
	where[number - text] = '\0';
}

void fault_point(const char *name)
{
	pthread_once(&once, read_environment);
	if (!where[0] || strcmp(where, name) || atomic_fetch_sub(&left, 1) != 1)
		return;
	/* The sandbox lets threads send signals to each other. SIGKILL is for all of them. */
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGKILL);
	for (;;)
		pause();
}
