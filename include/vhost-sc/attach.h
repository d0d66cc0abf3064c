/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * attach.h - how a process gets a channel from a domain's broker.
 *
 * Over the SOCK_SEQPACKET socket RUNDIR/NAME/attach.sock (RUNDIR: $VHOST_SC_RUNDIR or /run/vhost-sc), one message a
 * packet. Credentials (uid, gid, supplementary groups, pid) are taken by the broker from the socket, never from a
 * message. The connection stays open for the life of the channel: its end, or the process's (watched by pidfd), ends the
 * session. File descriptors travel as SCM_RIGHTS.
 *
 * Tickets. A file that is open in a domain needs a descriptor number on the host, and must be closed when the last
 * process that holds it is gone, however it went. Both are done by a ticket: one end of a socket pair whose other end
 * the broker keeps. The process puts the ticket at the descriptor's number; dup, fork, exec, SCM_RIGHTS and kill -9 then
 * are the kernel's affair, and when the last copy is closed the broker sees a hang-up and has the agent release the
 * open file. The app end of a ticket cannot be written to (EPIPE) or read from (EAGAIN) by anyone who mistakes it
 * for a descriptor of his own. A ticket's number is (session << 32 | n) with n = 1..SC_MAX_TICKETS. It may be used again
 * by its session after an explicit SC_OP_CLOSE of the file that it held.
 *
 * Segments. Memory that a process shares with the agent beside its channel, for what outlives the channel: it belongs to
 * a ticket (one ticket has one segment at most), is mapped into the domain's window, and is there for every process that
 * holds the ticket (through fork, exec, SCM_RIGHTS): each asks with SC_ATTACH_SEGMENT and the ticket's descriptor, and gets
 * the memfd. When the ticket's last copy is closed, anywhere, the agent lets go of it and it is freed. The memfd is sealed
 * against any change of size.
 *
 * File objects. The memory that stands for a file which is mapped somewhere: a memfd as long as the file, shared by all who
 * map it. Only the agent decides who gets one (SC_OP_MAP: it checks the open file's rights); the process then fetches it
 * with SC_ATTACH_OBJECT, once per SC_OP_MAP, maps it and closes the descriptor. Nothing else holds it: the broker sees by
 * the file's own counts when the last descriptor and the last mapping of it are gone, anywhere and in whatever way. Who may
 * write to the file may do with the memfd what he could do with the file, shrink it included; who may only read gets a
 * descriptor that can only be read.
 */
#ifndef VHOST_SC_ATTACH_H
#define VHOST_SC_ATTACH_H

#include "channel.h"

#define SC_ATTACH_MAGIC 0x31415343u /* "CSA1" */

#define SC_MAX_TICKETS	 65535u
#define SC_TICKETS_BATCH 32u /* most that one message carries */

enum sc_attach_type {
	SC_ATTACH_REQ = 1, /* struct sc_attach_req */
	SC_ATTACH_REP =
	    2, /* struct sc_attach_rep; on success fds: memfd, call eventfd (the process writes it to
				  wake the agent), kick eventfd (the process waits for it), then ntickets tickets */
	SC_ATTACH_TICKETS = 3,	   /* struct sc_attach_tickets: asks for `count` more */
	SC_ATTACH_TICKETS_REP = 4, /* struct sc_attach_tickets with fds */
	SC_ATTACH_CLAIM =
	    5, /* struct sc_attach_claim with 1..SC_TICKETS_BATCH fds: "which files are these?" The
				      way for a process that holds tickets (through exec or SCM_RIGHTS) to learn what they
				      name. Possession is the right to use */
	SC_ATTACH_CLAIM_REP = 6, /* struct sc_attach_claim */
	SC_ATTACH_NAME =
	    7, /* struct sc_attach_name: the process tells what file a ticket holds, so that a claim can be
				      answered. No reply. Without a descriptor: a ticket of its own session. With one: the ticket
				      itself, whoever's session made it (a forked child passes on what it inherited); it then gets
				      its name only if it has none */
	SC_ATTACH_EVENT =
	    8, /* struct sc_attach_event, from the broker, unasked: the domain went or came back; with
				      a new incarnation: fds call and kick eventfd, which replace the old ones */
	SC_ATTACH_SEGMENT =
	    9, /* struct sc_attach_segment with one fd, a ticket: makes the ticket's segment, or asks for it */
	SC_ATTACH_SEGMENT_REP =
	    10, /* struct sc_attach_segment; on success fd: the segment's memfd */
	SC_ATTACH_OBJECT =
	    11, /* struct sc_attach_object: fetches an object that the agent has granted */
	SC_ATTACH_OBJECT_REP = 12, /* struct sc_attach_object; on success fd: the object's memfd */
};

struct sc_attach_hdr {
	uint32_t magic; /* SC_ATTACH_MAGIC */
	uint16_t type;	/* enum sc_attach_type */
	uint16_t flags; /* zero */
	uint32_t seq;	/* echoed in replies */
	uint32_t len;	/* bytes, header included */
};
static_assert(sizeof(struct sc_attach_hdr) == 16, "wire");

struct sc_attach_req {
	struct sc_attach_hdr h;
	uint32_t abi_min; /* versions that the process speaks */
	uint32_t abi_max;
	uint64_t features; /* bits it can use */
	uint32_t role;	   /* SC_ROLE_* it needs; 0: any */
	uint32_t wait_ms;  /* wait so long for a domain that is starting; 0: answer at once */
	uint32_t tickets;  /* wanted with the reply, at most SC_TICKETS_BATCH */
	uint32_t reserved;
};

enum sc_attach_status {
	SC_ATTACH_OK = 0,
	SC_ATTACH_DENIED = 1,	/* user or group not allowed */
	SC_ATTACH_VERSION = 2,	/* no version in common */
	SC_ATTACH_DOWN = 3,	/* the VM is not running */
	SC_ATTACH_STARTING = 4, /* it is, but its agent has not reported yet (after wait_ms) */
	SC_ATTACH_FULL = 5,	/* no channel left in the domain */
	SC_ATTACH_LIMIT = 6,	/* this user has as many as he may */
	SC_ATTACH_ROLE = 7,	/* the domain has another role */
	SC_ATTACH_GROUPS = 8,	/* more than SC_MAX_GROUPS supplementary groups */
	SC_ATTACH_ERROR = 9,	/* text says what */
};

struct sc_attach_rep {
	struct sc_attach_hdr h;
	uint32_t status; /* enum sc_attach_status */
	uint32_t abi;	 /* chosen */
	uint64_t features;
	struct sc_layout layout;
	uint32_t session;
	uint32_t slot;
	uint32_t incarnation;
	/* a call that waits longer for a domain that is gone or silent returns EIO, unless the program wants it otherwise;
	 * told with a refusal, too */
	uint32_t deadline_ms;
	uint32_t loopback; /* 1: a loopback domain: not isolated */
	uint32_t ntickets;
	uint64_t tickets[SC_TICKETS_BATCH];
	char text[256]; /* one line for people: the reason and the remedy; NUL-terminated */
};

struct sc_attach_tickets {
	struct sc_attach_hdr h;
	uint32_t status; /* in the reply: 0 or errno (ENFILE: no more) */
	uint32_t count;
	uint64_t tickets[SC_TICKETS_BATCH];
};

/* What a ticket's file is, as the process that opened it says; opaque to the broker, kept per ticket. */
struct sc_ticket_name {
	uint64_t ticket;
	uint64_t handle; /* the agent's handle (ops.h) */
	uint64_t secret; /* grants it to another session (SC_OP_GRANT) */
	uint32_t flags;	 /* open flags (O_ACCMODE and status flags at open), for fcntl(F_GETFL) */
	uint32_t
	    mode; /* S_IFMT bits; bits 16..31: what the export's name hashes to (host library) */
};

struct sc_attach_name {
	struct sc_attach_hdr h;
	struct sc_ticket_name name;
};

struct sc_attach_claim {
	struct sc_attach_hdr h;
	uint32_t status;
	uint32_t count;
	struct sc_ticket_name names
	    [SC_TICKETS_BATCH]; /* in the reply, in the order of the fds; ticket = 0: not one of
							  this domain's tickets, or not named */
};

struct sc_attach_event {
	struct sc_attach_hdr h;
	uint32_t incarnation; /* 0: the domain is down */
	uint32_t nfds;	      /* 0 or 2 */
};

#define SC_SEGMENT_MIN (64u << 10) /* bytes */
#define SC_SEGMENT_MAX (16u << 20)

struct sc_attach_segment {
	struct sc_attach_hdr h;
	/* In the reply: 0 or errno. EBADF: the descriptor is no ticket of this domain. ENOENT: it has no segment, and `size`
	 * is 0. EINVAL: size. ENOBUFS: the window, or the user's share of it, is full. EAGAIN: another process is having it
	 * made. EIO: the domain does not serve, or did not take it */
	uint32_t status;
	uint32_t reserved;
	/* In the request: a power of two, SC_SEGMENT_MIN to SC_SEGMENT_MAX: make it if there is none (one that is there is
	 * answered with, whatever its size); 0: do not make one. In the reply: its size */
	uint64_t size;
	uint64_t ticket; /* in the reply: the ticket's number */
};

#define SC_OBJECT_READ	1u
#define SC_OBJECT_WRITE 2u

struct sc_attach_object {
	struct sc_attach_hdr h;
	/* In the reply: 0 or errno. EACCES: not granted to this session (any more); EMFILE */
	uint32_t status;
	uint32_t rights; /* SC_OBJECT_READ, or with SC_OBJECT_WRITE; not more than was granted */
	uint64_t object; /* its number, from SC_OP_MAP */
};

#define SC_ATTACH_MSG_MAX 4096

#endif
