/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fdtable.h - which descriptors are remote, and what they name.
 *
 * A flat array, indexed by descriptor, of indices into a slab of open files (struct sc_file: one per open file
 * description of this process; dup'ed descriptors share one). 0 means: local. Looking up takes no lock: load the entry,
 * use the object. Objects are never unmapped, so a descriptor that another thread closes meanwhile yields a stale but
 * readable object, whose handle the agent then refuses. Changes take proc->fd_lock.
 *
 * At the descriptor's number in the kernel sits a dup of the file's ticket (attach.h). A file that was never shared with
 * another process ("private") is closed by SC_OP_CLOSE when its last descriptor goes, and its ticket is used again. A
 * shared one ends when the last copy of its ticket does, anywhere.
 */
#ifndef HOSTLIB_FDTABLE_H
#define HOSTLIB_FDTABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "intercept.h"
#include "chan.h"
#include "lock.h"

#define SC_FD_MAX   (1u << 20) /* descriptors at or above this are always local */
#define SC_FILE_MAX (1u << 17) /* open files per process */

/* What a descriptor's entry stands for; all but files: net.h. */
enum sc_kind_of_file {
	SC_KIND_FILE = 0,
	SC_KIND_SOCK,  /* a socket of a network domain */
	SC_KIND_FRESH, /* a socket of the kernel's that may move to a domain */
	SC_KIND_EPOLL, /* an epoll instance of the kernel's with sockets of domains in it */
};

#define SC_FILE_SHARED (1u << 0) /* another process may hold it too */
#define SC_FILE_LOCKED (1u << 1) /* flock or OFD lock was taken through it (informative) */
#define SC_FILE_NAMED  (1u << 2) /* the broker knows what its ticket holds */

struct sc_route;
struct sc_proc;

/* One open file. Fields but refs and flags are constant while it is open. */
struct sc_file {
	uint64_t handle;
	uint64_t secret;
	uint64_t ticket;
	struct sc_dom *dom;
	const struct sc_route *route; /* through which it was opened: names its host path */
	int ticket_fd;		      /* pooled copy's descriptor, or -1 */
	uint32_t gen; /* of the channel (chan-priv.h) whose session may use the handle; atomic */
	uint32_t
	    oflags; /* access mode and status flags (O_APPEND, O_NONBLOCK, O_DIRECT, O_PATH…); F_SETFL updates
			       it atomically. Other processes' changes are not seen: see SC_OP_GETFL */
	uint32_t type;	 /* S_IFMT bits */
	uint32_t refs;	 /* descriptors of this process, plus 1 if it is the working directory */
	uint32_t flags;	 /* SC_FILE_*; atomic */
	uint64_t aux[3]; /* for calls_*.c: zero when opened; not inherited through exec */
	uint32_t
	    kind;  /* enum sc_kind_of_file; atomic: a fresh socket may become one of a domain's */
	void *net; /* struct sc_nsock or struct sc_epoll, counted; NULL for files */
};

struct sc_fdtab {
	uint32_t *idx;	       /* SC_FD_MAX entries */
	struct sc_file *files; /* SC_FILE_MAX entries; 0 is never used */
	uint32_t fd_high;      /* no remote descriptor at or above this */
	uint32_t file_high;    /* no file at or above this was ever used */
	uint32_t free_head;    /* list of free files through `refs` of a free one; 0: empty */
};

/* What is at a descriptor, of any kind, or NULL: local (or not open, or being opened). No lock, any thread. */
struct sc_file *sc_fd_any(struct sc_thread *t, int fd);
/* The same for remote files alone: sockets and the like count as local. */
struct sc_file *sc_fd_file(struct sc_thread *t, int fd);

/* Makes the kernel's descriptor fd known as being of that kind, with its `net` (whose count becomes the table's). 0 or
 * -ENFILE, -EMFILE. */
long sc_fd_install(struct sc_thread *t, int fd, uint32_t kind, void *net);
/* Forgets f, which has the kernel's own descriptors: they are local from now on. */
void sc_fd_uninstall(struct sc_thread *t, struct sc_file *f);
/* A fresh socket becomes one of a domain's: the ticket takes the place of the kernel's socket at all its descriptors. */
void sc_fd_become_sock(struct sc_thread *t, struct sc_file *f);

/* Data that goes with a request, in library memory or in the program's. */
struct sc_data {
	void *p;      /* NULL: none */
	uint32_t len; /* bytes */
	uint8_t in;   /* copied to the arena before */
	uint8_t out;  /* copied back after success */
	uint8_t user; /* p is the program's: faults yield EFAULT */
	uint8_t
	    /* out: copy as many bytes as the result says (never more than len), not len */
	    by_res;
};

/*
 * One operation as sc_file_call() and sc_path_call() take it.
 *   d1: goes with buf/len (file calls; path calls put the path there).
 *   d2: goes with buf2/len2.
 *   d3: a value whose arena offset goes to `off` and whose length goes to arg1 (extended attributes).
 * All of it together may have at most SC_LB_DATA_SIZE bytes, or else one of it alone up to SC_POOL_BLOCK.
 */
struct sc_opx {
	uint16_t op;	     /* enum sc_op */
	uint16_t slot_flags; /* SC_SLOT_F_* */
	uint32_t wait_flags; /* SC_WAIT_* */
	uint64_t off;
	uint64_t arg0;
	uint64_t arg1;
	uint64_t arg2;
	struct sc_data d1;
	struct sc_data d2;
	struct sc_data d3;
	uint32_t cqe_flags; /* out */
};

/*
 * Runs an operation on an open file: gets a lane, grants the handle to this session if need be, copies data in and out,
 * waits. Returns the result or -errno. With x->op == SC_OP_COPY and the like, a second handle is the caller's affair:
 * sc_file_grant() first.
 */
long sc_file_call(struct sc_thread *t, struct sc_file *f, struct sc_opx *x);

/* The same with a lane already held: copies in, calls, copies out. */
long sc_lane_opx(struct sc_thread *t, struct sc_hlane *l, struct sc_slot *s, struct sc_opx *x);

/* Makes sure that the present session may use the file's handle. 0 or -errno. */
long sc_file_grant(struct sc_thread *t, struct sc_hlane *l, struct sc_file *f);

/* Makes a descriptor >= min that names f too. New number or -errno. Adds a reference. */
long sc_fd_dup(struct sc_thread *t, int fd, int min, bool cloexec);

/* Closes a remote descriptor: unlocks POSIX locks if there are any, closes the file with its last descriptor. 0 or
 * -errno as close(2). */
long sc_fd_close(struct sc_thread *t, int fd);

/*
 * The opening of a remote file, in the steps that the kernel takes.
 *   sc_open_begin  takes a ticket and a file object and, if `reserve`, the descriptor's number (so that EMFILE precedes
 *                  what opening does to the file). 0 or -errno.
 *   sc_open_done   the agent has opened it: sets handle, flags, type; makes the descriptor. Its number or -errno (the
 *                  remote file is closed again then).
 *   sc_open_undo   it failed.
 */
struct sc_opening {
	struct sc_dom *dom;
	const struct sc_route *route;
	uint64_t ticket;
	uint64_t secret;
	int ticket_fd;
	int fd;	       /* reserved number, or -1 */
	uint32_t file; /* index of the object */
	uint32_t kind; /* of what is opened, and its `net`: zero for files */
	void *net;
};
long sc_open_begin(struct sc_thread *t, struct sc_dom *d, bool reserve, bool cloexec,
		   struct sc_opening *o);
long sc_open_done(struct sc_thread *t, struct sc_opening *o, uint64_t handle, uint32_t oflags,
		  uint32_t type, bool cloexec);
void sc_open_undo(struct sc_thread *t, struct sc_opening *o);
/* The same as sc_open_done() for a file without a descriptor (a working directory): returns the file with one
 * reference, given back with sc_file_unref(). */
struct sc_file *sc_open_done_nofd(struct sc_thread *t, struct sc_opening *o, uint64_t handle,
				  uint32_t oflags, uint32_t type);
/* dup3(from, to, flags) where one of both is remote, or both. */
long sc_fd_dup_to(struct sc_thread *t, int from, int to, int flags);

/* The table's life: memory; a copy for a vfork child. 0 or -ENOMEM. */
int sc_fdtab_init(struct sc_fdtab *f);
void sc_fdtab_free(struct sc_fdtab *f);
int sc_fdtab_copy(struct sc_fdtab *to, const struct sc_fdtab *from);

/* Makes sure that the file has a pooled copy of its ticket, made from descriptor fd: it outlives the descriptors then. 0 or
 * -errno. */
long sc_file_hold_ticket(struct sc_thread *t, struct sc_file *f, int fd);

/* Before another process gets copies of the descriptors: all open files become shared, and only their descriptors (and the
 * working directory) hold their tickets. fd_lock held. */
void sc_files_share(struct sc_proc *p);

/* In a forked child: numbers that were being opened by another thread. */
void sc_fdtab_after_fork(struct sc_proc *p);
/* The same in a vfork child's copy, without closing: their numbers are other processes' business. */
void sc_fdtab_opening_gone(struct sc_fdtab *f);

/*
 * Before descriptor fd is sent to another process: the broker learns what it holds, and the file becomes shared. 0 (also for
 * a local descriptor), or -errno.
 */
long sc_fd_send(struct sc_thread *t, int fd);
/*
 * Descriptors that the kernel has just given to this process: those that are tickets become remote files, if the broker of
 * one of the domains that are routed to knows them. All others are left alone.
 */
void sc_fd_receive(struct sc_thread *t, const int *fds, uint32_t n);

/* Descriptor fd (or -1) names the file that *from describes, which several may. At start, or under fd_lock. */
struct sc_file *sc_fd_adopt(struct sc_thread *t, int fd, const struct sc_file *from);

void sc_file_ref(struct sc_thread *t, struct sc_file *f);
void sc_file_unref(struct sc_thread *t, struct sc_file *f);

#endif
