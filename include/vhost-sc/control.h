/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * control.h - messages between broker and agent, and the state region.
 *
 * The same messages travel over controlq/eventq (virtio_sc.h) and, for a loopback domain, over a SOCK_SEQPACKET socket
 * (one message per packet; SC_MSG_ATTACH and SC_MSG_START then carry file descriptors). Each is a struct sc_msg_hdr
 * followed by a body that its type fixes; `len` is the whole, at most SC_MSG_MAX bytes. Receivers check len against the
 * type and drop the connection (broker) or log and ignore (agent) on a bad one. Little-endian, no pointers.
 *
 * Order: agent sends HELLO; broker answers START or REFUSE. Then come the own segments (state.h) that START names, and those of
 * tickets. The agent rebuilds what the own segments keep, and answers SEGMENT_TAKEN for the last of them only when it has; then
 * the broker sends ATTACH for each channel there is, and whatever RELEASE and PROC_EXIT are due, and, when all these channels
 * are served, RESUMED. For a request with a reply the reply carries the request's seq.
 */
#ifndef VHOST_SC_CONTROL_H
#define VHOST_SC_CONTROL_H

#include "channel.h"
#include "state.h"
#include "virtio_sc.h"

enum sc_msg_type {
	/* agent to broker */
	SC_MSG_HELLO = 1, /* struct sc_msg_hello: first message of an incarnation */
	/* struct sc_msg_status: ATTACH is done (status 0) or failed (-errno) */
	SC_MSG_ATTACHED = 2,
	/* struct sc_msg_status: the agent has let go of the slot; no access after this */
	SC_MSG_DETACHED = 3,
	SC_MSG_LOG = 4,	     /* struct sc_msg_log */
	SC_MSG_QUIESCED = 5, /* struct sc_msg_status: answer to QUIESCE */
	SC_MSG_SYNC =
	    6, /* header only: have all closed tickets been reported? Broker answers SYNCED with the
				same seq after it has looked and sent the RELEASEs due. Asked before a conflict that an
				already closed descriptor could explain is reported to a caller (locks) */
	SC_MSG_BYE =
	    7, /* header only: orderly end of the incarnation: everything is synced to disk; who runs the
				agent unmounts after it has exited */
	/* struct sc_msg_segment_status: answer to SEGMENT (status 0 or -errno) */
	SC_MSG_SEGMENT_TAKEN = 8,
	/* struct sc_msg_segment_status: answer to SEGMENT_END: no access after this */
	SC_MSG_SEGMENT_ENDED = 9,
	SC_MSG_OBJECT =
	    10, /* struct sc_msg_object: a request about a file object; answered by OBJECT_DONE */

	/* broker to agent */
	/* struct sc_msg_start: answer to HELLO. Loopback: carries the state region's memfd */
	SC_MSG_START = 33,
	SC_MSG_REFUSE = 34, /* struct sc_msg_log: text says why (versions); the agent exits */
	SC_MSG_ATTACH =
	    35, /* struct sc_msg_attach. Loopback: carries memfd, call eventfd (host to agent), kick eventfd
				(agent to host), in this order */
	/* struct sc_msg_detach: end this session: finish or cancel its calls, free what it owns */
	SC_MSG_DETACH = 36,
	/* struct sc_msg_release: these tickets have no holder left: close what they name */
	SC_MSG_RELEASE = 37,
	/* header only: finish calls, write back, sync. New calls wait in their lanes */
	SC_MSG_QUIESCE = 38,
	SC_MSG_SHUTDOWN = 39, /* header only: quiesce, unmount, power off */
	SC_MSG_SYNCED = 40,   /* header only */
	/* struct sc_msg_proc_exit: this process is gone: drop the POSIX locks it owned */
	SC_MSG_PROC_EXIT = 41,
	/* struct sc_msg_segment: memory that belongs to a ticket lies in the window. Loopback: carries the memfd */
	SC_MSG_SEGMENT = 42,
	/* struct sc_msg_segment_status: its ticket is gone (RELEASE was sent before): let go of it */
	SC_MSG_SEGMENT_END = 43,
	SC_MSG_OBJECT_DONE = 44, /* struct sc_msg_object_done: answer to OBJECT */
	SC_MSG_OBJECT_IDLE = 45, /* struct sc_msg_object_idle: nobody holds or maps it any more */
	/* header only, once in an incarnation, with SC_F_RECOVERY: all sessions that were alive when the agent started have
	 * been attached, or have ended. What belongs to others is nobody's any more */
	SC_MSG_RESUMED = 46,
};

struct sc_msg_hdr {
	uint16_t type;	/* enum sc_msg_type */
	uint16_t flags; /* zero */
	uint32_t len;	/* bytes, header included */
	uint32_t seq;	/* the sender's counter, or the request's seq in a reply */
	uint32_t slot;	/* window slot the message is about, or 0 */
};
static_assert(sizeof(struct sc_msg_hdr) == 16, "wire");

#define SC_ROLE_STORAGE 1
#define SC_ROLE_NETWORK 2

struct sc_msg_hello {
	struct sc_msg_hdr h;
	uint32_t abi;  /* SC_ABI_VERSION */
	uint32_t role; /* SC_ROLE_* */
	uint64_t features;
	uint32_t
	    num_channels; /* as the agent sees the device; 0: it has none (loopback), and takes any */
	uint32_t npollers;
	uint64_t slot_size; /* bytes */
	char version[64];   /* text: agent's version, for people */
	char kernel[64];    /* text: uname -r of the guest */
	char modules[1024]; /* text: loaded modules, for people (claims row 1) */
};
static_assert(sizeof(struct sc_msg_hello) == 16 + 32 + 64 + 64 + 1024, "wire");

struct sc_msg_status {
	struct sc_msg_hdr h;
	int32_t status; /* 0 or -errno */
	uint32_t session;
};

struct sc_msg_log {
	struct sc_msg_hdr h;
	uint32_t level;	 /* 3 error, 4 warning, 6 info, 7 debug, as syslog */
	char text[1024]; /* NUL-terminated within len */
};

struct sc_msg_start {
	struct sc_msg_hdr h;
	uint32_t incarnation; /* this boot's number, >= 1 */
	uint32_t abi;	      /* the broker's */
	uint64_t features;    /* accepted */
	uint64_t epoch;	      /* random; constant for the life of the domain's state region */
	/* bytes of the state region, a multiple of SC_PAGE, at most slot_size */
	uint32_t state_size;
	uint32_t max_spin_us; /* upper bound for a poller's spin without work; 0: default */
	/* Bit i: the own segment i (enum sc_own) will be announced before any ATTACH. With SC_F_RECOVERY */
	uint32_t own;
	uint32_t reserved;
};

/* Most supplementary groups that a caller may have; attach refuses more. */
#define SC_MAX_GROUPS 256

struct sc_msg_attach {
	struct sc_msg_hdr h; /* slot: the window slot */
	struct sc_layout layout;
	uint32_t session; /* never reused */
	uint32_t
	    process; /* the host process, as the broker numbers it (not a pid); survives exec; owner of POSIX
			     locks. Never reused */
	uint32_t pid; /* host pid, for messages and for F_GETLK's l_pid */
	uint32_t uid; /* from the socket's credentials */
	uint32_t gid;
	uint32_t ngroups; /* <= SC_MAX_GROUPS */
	uint64_t features;
	uint32_t groups[SC_MAX_GROUPS];
};
static_assert(sizeof(struct sc_msg_attach) <= SC_MSG_MAX, "fits");

struct sc_msg_detach {
	struct sc_msg_hdr h;
	uint32_t session;
	uint32_t reserved;
};

struct sc_msg_proc_exit {
	struct sc_msg_hdr h;
	uint32_t process;
	uint32_t reserved;
};

struct sc_msg_release {
	struct sc_msg_hdr h;
	uint32_t count; /* 1..SC_RELEASE_MAX */
	uint32_t reserved;
	uint64_t tickets[256];
};
#define SC_RELEASE_MAX 256
static_assert(sizeof(struct sc_msg_release) <= SC_MSG_MAX, "fits");

/*
 * A segment (attach.h). Announced once it is mapped, and to each new incarnation after START. Those whose ticket is one of
 * enum sc_own are the agent's own: they come first, and stay as long as the domain. Data of file objects travels through
 * SC_OWN_IO.
 */
struct sc_msg_segment {
	struct sc_msg_hdr h;
	uint32_t number; /* never reused in a domain's life */
	uint32_t reserved;
	uint64_t ticket; /* whose it is; below SC_OWN_MAX: the agent's own, enum sc_own */
	uint64_t offset; /* from the window's start, bytes; a multiple of size */
	/* bytes, a power of two from SC_SEGMENT_MIN to SC_SEGMENT_MAX; own ones up to SC_OWN_SEGMENT_MAX */
	uint64_t size;
};

struct sc_msg_segment_status {
	struct sc_msg_hdr h;
	int32_t status; /* 0 or -errno */
	uint32_t number;
};

/*
 * File objects (attach.h). The broker owns the memory and moves data for the agent between an object and the agent's own
 * segment: an object can be shrunk by those who may write to the file, so it must not be mapped where a fault would
 * be the VM's end; and plain reads and writes of a memfd have no faults.
 */
enum sc_object_op {
	/* A new object `object` (the agent's number; not 0) of `len` bytes, all zero. `session`: at whose user's expense.
	 * res: 0, -ENOMEM (limits), -EEXIST */
	SC_OBJECT_NEW = 1,
	/* [off, off + len) of the object to the own segment at `buf`. With `arg` 1 leading holes are skipped: `off` in the
	 * answer tells where the data begins. res: bytes, short at the end; 0: nothing (any more) */
	SC_OBJECT_GET = 2,
	/* From the own segment at `buf`; never beyond the size that the agent gave it. res: bytes */
	SC_OBJECT_PUT = 3,
	SC_OBJECT_RESIZE = 4, /* to `len` bytes. res: 0, -ENOMEM */
	SC_OBJECT_ZERO = 5,   /* [off, off + len) becomes a hole. res: 0 */
	/* `session` may fetch it once, with rights `arg`. res: how many grants it has had, this one included */
	SC_OBJECT_GRANT = 6,
	/* Forget it, if it has had exactly `arg` grants and nobody holds it. res: 0, -EBUSY */
	SC_OBJECT_DROP = 7,
	/* Of an earlier incarnation: this one has it from now on. While the own segments are taken (control.h, SC_MSG_START). res:
	 * how many grants it has had; -ENOENT. What nobody has adopted by then is forgotten when nobody maps it any more */
	SC_OBJECT_ADOPT = 8,
};

#define SC_OBJECT_IO_MAX (256u << 10) /* bytes that one GET or PUT moves at most */

struct sc_msg_object {
	struct sc_msg_hdr h;
	uint32_t op; /* enum sc_object_op */
	uint32_t session;
	uint64_t object;
	uint64_t off;
	uint64_t len;
	uint64_t arg;
	uint32_t buf; /* offset in the own segment */
	uint32_t reserved;
};

struct sc_msg_object_done {
	struct sc_msg_hdr h; /* seq: the request's */
	int64_t res;	     /* >= 0 or -errno */
	uint64_t off;
};

struct sc_msg_object_idle {
	struct sc_msg_hdr h;
	uint64_t object;
	uint64_t grants; /* that it has had by now */
};

/*
 * The state region: window slot 0. A memfd that the broker makes once per domain and that outlives incarnations. Page 0
 * is for counting and watching. (What recovery keeps is in the own segments.) Written by the agent, read by broker and tools,
 * which believe nothing in it.
 */
#define SC_STATE_MAGIC	    0x31545353u /* "SST1" */
#define SC_STATE_TABLES_OFF 8192u
#define SC_STATE_DEFAULT    (1u << 20)

struct sc_state_header {
	uint32_t magic;
	uint32_t abi;
	uint64_t epoch;
	uint32_t incarnation; /* stored (release) by the agent when it serves */
	uint32_t npollers;
	uint64_t heartbeat; /* relaxed, at least every second, by the agent's main thread */
	/* guest CLOCK_BOOTTIME when the agent was ready, nanoseconds: boot time */
	uint64_t ready_ns;
	uint64_t pad[3];
	/* counters since this incarnation's start; relaxed stores by pollers */
	uint64_t ops[128];    /* by enum sc_op */
	uint64_t errors[128]; /* completions with res < 0, by enum sc_op */
	uint64_t bytes_read;
	uint64_t bytes_written;
	uint64_t polls_spun;  /* times a poller found work while spinning */
	uint64_t polls_slept; /* times it went to sleep */
	uint64_t doorbells;   /* guest-to-host rings */
	uint64_t poller_ns;   /* CPU time of pollers, nanoseconds */
	uint64_t worker_ns;   /* CPU time of workers */
	uint64_t open_files;
	uint64_t sessions;
};
static_assert(sizeof(struct sc_state_header) <= SC_STATE_TABLES_OFF, "fits");

#endif
