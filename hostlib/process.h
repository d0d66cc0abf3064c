/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * process.h - what the library knows of its process, and of each thread.
 *
 * Domains and channels belong to the memory image (chan.h): a vfork child uses its parent's. Descriptors, working
 * directory and umask belong to the process: a vfork child has a struct sc_proc of its own.
 */
#ifndef HOSTLIB_PROCESS_H
#define HOSTLIB_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "intercept.h"
#include "fdtable.h"
#include "lock.h"
#include "path.h"

struct sc_proc {
	struct sc_fdtab fds;
	struct sc_mutex fd_lock; /* changes to fds and cwd */
	struct sc_file *cwd;	 /* remote working directory, or NULL: the kernel's counts */
	uint32_t umask;	  /* as the kernel has it, or SC_UMASK_UNKNOWN; atomic. See sc_umask() */
	uint64_t fsize;	  /* RLIMIT_FSIZE as last read (calls_limit.c); atomic */
	bool fsize_known; /* fsize is valid; atomic */
	uint32_t
	    posix_locks; /* non-zero once this process has set a POSIX lock on any remote file: from then on
				    closing a remote descriptor sends SC_OP_UNLOCK_ALL. Set by the lock calls */
	bool cwd_known;		/* cwd_above is valid */
	bool cwd_above;		/* the (local) working directory is an ancestor of a route */
	bool vforked;		/* this is a vfork child's copy */
	struct sc_proc *parent; /* of a vfork child */
	struct sc_chan
	    *vchan[SC_MAX_DOMAINS];	/* a vfork child's channels: its parent's, or its own */
	struct sc_serve_thread *vserve; /* a vfork child's thread state, freed with it */
};

extern struct sc_proc sc_main_proc;

#define SC_UMASK_UNKNOWN UINT32_MAX

/* The process's umask: read from the kernel when it is first needed, since that takes a while. */
uint32_t sc_umask(struct sc_proc *p);

/* A vfork child gives up its channel of domain i. */
void sc_vchan_drop(struct sc_proc *p, uint32_t i);

/* Starts what the C API needs in a program that is not intercepted. Any thread, any number of times. */
bool sc_serve_init_api(void);

/* Counters for scrun --stats, per thread, so that no line is written by two. */
struct sc_serve_counts {
	uint64_t remote[SC_OP_MAX];  /* requests by enum sc_op */
	uint64_t at[SC_MAX_DOMAINS]; /* requests by domain */
	uint64_t spins;		     /* waits that spinning ended */
	uint64_t sleeps;	     /* waits that slept */
};

/* Per thread, made at its first remote call. */
struct sc_serve_thread {
	struct {
		struct sc_chan *chan;
		struct sc_hlane *lane; /* owned, or NULL */
	} dom[SC_MAX_DOMAINS];
	int bell;		      /* net_wait.c: eventfd of the thread; 0: none yet */
	struct sc_serve_thread *next; /* free list, or NULL */
	bool force_walk;   /* path.c: the call is looked at again after it failed natively */
	void *exec_mem;	   /* exec.c: what an exec under way points to */
	void *exec_remote; /* exec_remote.c: likewise */
	/* list of all that were ever made; they are never unmapped */
	struct sc_serve_thread *all;
	struct sc_serve_counts counts; /* of all threads that had this structure */
	uint32_t last_dom;	       /* of the last request: domain and lane */
	uint32_t last_lane;
	char path[2][SC_PATH_BUF]; /* paths that t->native points to */
	uint8_t scratch[16384];	   /* for one handler at a time: iovecs and the like */
};

/* The thread's serving state, allocated if need be. NULL: no memory. */
struct sc_serve_thread *sc_serve_of(struct sc_thread *t);

/* Adds up all threads' counters, roughly while they run. */
void sc_counts_sum(struct sc_serve_counts *out);

/* Random 64 bits, never 0; from getrandom. */
uint64_t sc_random(void);

/* Memory from the kernel, zeroed, page-granular; NULL if there is none. */
void *sc_map(uint64_t bytes);
void sc_unmap(void *p, uint64_t bytes);

static inline size_t sc_strnlen(const char *s, size_t max)
{
	size_t n = 0;

	while (n < max && s[n])
		n++;
	return n;
}

/* System calls by their arguments; the kernel's raw result. */
#define sc_sys0(nr)	     sc_raw_syscall((nr), 0, 0, 0, 0, 0, 0)
#define sc_sys1(nr, a)	     sc_raw_syscall((nr), (long)(a), 0, 0, 0, 0, 0)
#define sc_sys2(nr, a, b)    sc_raw_syscall((nr), (long)(a), (long)(b), 0, 0, 0, 0)
#define sc_sys3(nr, a, b, c) sc_raw_syscall((nr), (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define sc_sys4(nr, a, b, c, d) \
	sc_raw_syscall((nr), (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define sc_sys6(nr, a, b, c, d, e, f) \
	sc_raw_syscall((nr), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#endif
