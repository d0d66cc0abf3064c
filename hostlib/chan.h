/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * chan.h - a domain as this process sees it: attaching, the channel, lanes, requests, waiting, the arena, tickets.
 *
 * A process attaches to a domain at its first remote call there. The channel stays until the process ends, forks (the
 * child attaches anew), changes its credentials, or loses the broker. Whoever makes a call first gets a lane:
 *
 *	struct sc_hlane *l;
 *	long err = sc_lane_get(t, dom, &l);           // attaches, picks this thread's lane or borrows one
 *	if (err)
 *		return err;
 *	struct sc_slot s = {.op = SC_OP_SEEK, .handle = h, ...};
 *	long res = sc_lane_call(t, l, &s, &flags, 0); // publishes, waits
 *	sc_lane_put(t, l);
 *
 * Most handlers use the two functions above that, sc_file_call() (fdtable.h) and sc_path_call() (path.h), which also do
 * the copying and make sure that this session may use the handle.
 *
 * Several requests may be under way on a lane at once (sc_lane_submit(), sc_lane_wait()), up to SC_SYNC_DEPTH.
 *
 * Trust: everything read from the channel is read once, then checked. A completion whose tag is not under way is dropped;
 * a result that is larger than was asked for becomes -EIO in the copying helpers.
 */
#ifndef HOSTLIB_CHAN_H
#define HOSTLIB_CHAN_H

#include <stdbool.h>
#include <stdint.h>

#include "intercept.h"
#include "lock.h"
#include <vhost-sc/attach.h>
#include <vhost-sc/channel.h>
#include <vhost-sc/ops.h>

#define SC_MAX_DOMAINS	   8u
#define SC_SYNC_DEPTH_LOG2 3u
#define SC_SYNC_DEPTH	   (1u << SC_SYNC_DEPTH_LOG2)
#define SC_POOL_BLOCK	   (256u * 1024u) /* bytes */
#define SC_POOL_BLOCKS	   4096u	  /* most blocks that a channel's pool can have */

/* A lane's buffer of SC_LANE_BUF_SIZE bytes is divided so by the helpers: */
#define SC_LB_PATH1	0u		   /* SC_PATH_BUF bytes */
#define SC_LB_PATH2	SC_PATH_BUF	   /* SC_PATH_BUF bytes */
#define SC_LB_DATA	(2u * SC_PATH_BUF) /* the rest: stat, link text, names and values */
#define SC_LB_DATA_SIZE (SC_LANE_BUF_SIZE - SC_LB_DATA)

struct sc_chan;

/* Operation classes, for the adaptive spin: what takes alike long is learned together. */
enum sc_spin_class {
	SC_SPIN_QUICK, /* answered from the guest's caches: stat, seek, small read */
	SC_SPIN_DATA,  /* larger data */
	SC_SPIN_META,  /* changes to directories, modes */
	SC_SPIN_SLOW,  /* sync, locks */
	SC_SPIN_CLASSES,
};

/* The host's private side of a lane. Used by one thread at a time. */
struct sc_hlane {
	struct sc_chan *chan;
	uint32_t index;
	uint32_t depth;	    /* slots in use, a power of two */
	struct sc_lane *sh; /* shared; hostile from `done` on */
	struct sc_slot *slots;
	struct sc_cqe *cqes;
	uint8_t *buf;	  /* SC_LANE_BUF_SIZE bytes of the arena, ours */
	uint32_t buf_off; /* its offset from the channel's start */
	uint32_t tail;	  /* published */
	uint32_t done;	  /* completions taken */
	uint32_t pending; /* bit i: slot i is under way */
	uint32_t ready;	  /* bit i: slot i is complete, result not yet fetched */
	uint32_t
	    forget; /* bit i: nobody will fetch slot i (cancellations): freed when it is ready */
	uint32_t waiting;     /* private flag: a thread sleeps for this lane (leader/follower) */
	uint32_t wake;	      /* futex word of that thread */
	struct sc_mutex busy; /* held by the thread that uses a shared lane now */
	uint32_t shared;      /* several threads use it: get and put take `busy` */
	uint32_t dead;	      /* abandoned: a call may still complete there */
	uint32_t tags[SC_SYNC_DEPTH];
	int64_t res[SC_SYNC_DEPTH];
	uint32_t flags[SC_SYNC_DEPTH];
} __attribute__((aligned(64)));

/* Spare and used tickets of a session. */
enum sc_ticket_state {
	SC_TK_NONE = 0,
	SC_TK_SPARE, /* at descriptor `fd`, names no file */
	SC_TK_USED,  /* names a file; `fd` (>= 0: the pooled copy) still held by us */
	SC_TK_LEFT,  /* names a file, pooled copy given up: ends by itself */
};

/* One domain named by a route. Lives in static memory, shared by vfork children. */
struct sc_dom {
	char name[64];
	uint32_t index;
	struct sc_mutex lock; /* attach, detach, tickets */
	struct sc_chan *chan; /* current channel or NULL; release/acquire */
	int last_error;	      /* of the last failed attach, negative errno */
	uint32_t deadline_ms; /* as its broker said last; 0: it has not yet */
	bool known; /* it has served us, or whoever started us: if it is gone, it will come back */
	char text[256]; /* what the broker said then */
};

extern struct sc_dom sc_doms[SC_MAX_DOMAINS];
extern uint32_t sc_ndoms;

/* Finds or adds a domain by name. NULL: too many, or the name is not valid ([A-Za-z0-9._-]{1,63}, no leading dot). */
struct sc_dom *sc_dom_named(const char *name, uint32_t len);

/* Attaches if there is no channel; waits for a known domain that is gone, as calls do. 0 or -errno (EIO when the domain cannot
 * be reached). Any thread. */
long sc_dom_attach(struct sc_thread *t, struct sc_dom *d);

/* So long may a domain be gone before its calls fail, in seconds (text, as VHOST_SC_RECOVERY_TIMEOUT has it); 0: not at all. At start
 * only; what is no number is ignored. Otherwise the broker's deadline holds. */
void sc_chan_set_recovery(const char *seconds);

/* Where brokers' sockets are; the default is /run/vhost-sc. Used at start only; ignores what is too long. */
void sc_chan_set_rundir(const char *dir);
const char *sc_chan_rundir(void);

/* Gives up the channel (after changed credentials): calls under way end on the old one, later ones attach anew. */
void sc_dom_drop(struct sc_dom *d);

/* In a forked child: forget channel, lanes, descriptors and tickets that belong to the parent. */
void sc_dom_after_fork_child(struct sc_dom *d);

/*
 * Gets this thread's lane in the domain, attaching if need be; if all lanes are taken, borrows one and waits for it.
 * 0 or -errno. The lane must be given back with sc_lane_put() before the thread returns to the program.
 */
long sc_lane_get(struct sc_thread *t, struct sc_dom *d, struct sc_hlane **out);
void sc_lane_put(struct sc_thread *t, struct sc_hlane *l);

/* The lane's channel offset of byte `at` of its buffer. */
static inline uint32_t sc_lane_off(const struct sc_hlane *l, uint32_t at)
{
	return l->buf_off + at;
}

/* A signal ends the wait: the request is cancelled; -SC_ERESTART if it had not ended. */
#define SC_WAIT_INTERRUPTIBLE 1u

/*
 * Publishes *s (under a tag of its own) and waits for its completion. Returns res, or -EIO after the deadline (the lane is
 * then dead; the thread gets another next time). *cqe_flags (may be NULL) gets the completion's flags. How long it spins
 * before it sleeps follows from s->op.
 */
long sc_lane_call(struct sc_thread *t, struct sc_hlane *l, struct sc_slot *s, uint32_t *cqe_flags,
		  uint32_t wait_flags);

/* The two halves of that. submit returns the request's index (for wait), or -EIO if the lane is dead; at most
 * SC_SYNC_DEPTH may be under way. Each submitted request must be waited for before sc_lane_put(). */
int sc_lane_submit(struct sc_thread *t, struct sc_hlane *l, struct sc_slot *s);
long sc_lane_wait(struct sc_thread *t, struct sc_hlane *l, int index, uint32_t *cqe_flags,
		  uint32_t wait_flags);

/*
 * Pool blocks for larger data: `n` contiguous blocks of SC_POOL_BLOCK bytes (1..16; fewer if the channel is small).
 * Waits if none are free. Returns the channel offset and how many in *got (>= 1), or 0 if the pool is too small for
 * any. Waits only if the caller holds none already (`may_wait`), so that holders never wait for each other.
 */
uint32_t sc_pool_get(struct sc_chan *c, uint32_t n, uint32_t *got, bool may_wait);
void sc_pool_put(struct sc_chan *c, uint32_t off, uint32_t n);

/* Address of a channel offset. */
uint8_t *sc_chan_ptr(struct sc_chan *c, uint32_t off);

/*
 * Takes a spare ticket of the domain's present session (asks the broker for more when none is left). 0 or -errno
 * (ENFILE, EMFILE, EIO). *ticket: its number; *fd: the descriptor that holds the pooled copy.
 */
long sc_ticket_get(struct sc_thread *t, struct sc_dom *d, uint64_t *ticket, int *fd);
/*
 * Descriptors that go to other processes, or come from them. sc_ticket_tell(): the broker learns what the ticket at fd
 * holds (it keeps the first name that it is told); returns when it knows. sc_ticket_ask(): what do these descriptors hold?
 * At most SC_TICKETS_BATCH; names[i].ticket is 0 for what is no ticket of the domain, or one without a name. Both attach if
 * need be. 0 or -errno.
 */
long sc_ticket_tell(struct sc_thread *t, struct sc_dom *d, int fd,
		    const struct sc_ticket_name *name);
long sc_ticket_ask(struct sc_thread *t, struct sc_dom *d, const int *fds, uint32_t n,
		   struct sc_ticket_name *names);
/* Gives back a ticket that names no file (any more). */
void sc_ticket_put(struct sc_dom *d, uint64_t ticket, int fd);

/* A ticket's segment (attach.h), mapped. */
struct sc_segment {
	uint8_t *base; /* hostile; excluded from fork */
	uint64_t size; /* bytes */
	uint64_t ticket;
};

/*
 * Has the segment of the ticket at `ticket_fd` mapped; with a size (a power of two, SC_SEGMENT_MIN..MAX) makes it if there
 * is none. 0 or -errno as sc_attach_segment says; sc_unmap(base, size) lets go.
 */
long sc_segment_get(struct sc_thread *t, struct sc_dom *d, int ticket_fd, uint64_t size,
		    struct sc_segment *out);

/* Fetches a file object that this channel's session was granted (SC_OP_MAP). A descriptor of the library's, to be closed
 * by sc_libfd_close(), or -errno. */
long sc_object_fetch(struct sc_chan *c, uint64_t object, uint32_t rights);

/*
 * The library's own descriptors (spare tickets, sockets, eventfds). sc_libfd_move() puts descriptor `fd` to a number out
 * of the program's way with CLOEXEC set, registers it, closes `fd`; returns the new number or -errno (fd closed then).
 * sc_libfd_is(): is this number one of ours? sc_libfd_close(): unregisters and closes.
 */
int sc_libfd_move(int fd);
bool sc_libfd_is(int fd);
void sc_libfd_close(int fd);
/* The program wants number `fd` (dup2 onto it): move ours elsewhere. 0 or -errno. */
long sc_libfd_evict(int fd);

/* st_dev for a file of domain d on the guest's device: one that no local file has. Packed as the kernel's dev_t in
 * struct stat (makedev). */
uint64_t sc_dom_dev(const struct sc_dom *d, uint32_t guest_major, uint32_t guest_minor);
void sc_dom_dev_split(const struct sc_dom *d, uint32_t guest_major, uint32_t guest_minor,
		      uint32_t *major, uint32_t *minor);

#endif
