/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * state.h - what a domain keeps in the host's memory, from one incarnation of its VM to the next.
 *
 * Three of a domain's segments belong to no ticket but to the domain itself ("own segments"; enum sc_own, which takes the
 * ticket's place in SC_MSG_SEGMENT). The broker makes them once, keeps them as long as the domain, and announces them to
 * each new incarnation before anything else; the agent answers SC_MSG_SEGMENT_TAKEN for the last of them when it has
 * rebuilt from them what was, and only then do SC_MSG_ATTACH messages come. SC_MSG_RESUMED follows when every session that
 * is alive was attached.
 *
 *   SC_OWN_IO      data of file objects on its way (control.h). Nothing that is kept
 *   SC_OWN_STATE   tables: what is open, and how it is locked. Constant-size entries, one owner each
 *   SC_OWN_LOG     storage: the changes that were made but may not be on the guest's disk yet, with their data
 *
 * Who writes: the agent alone, and it alone relies on what it reads there. Yet it reads what another incarnation wrote, which
 * may have been killed at any store, or have gone mad before it died. So: whatever has more than one word is written before
 * the word that makes it count, which is stored with release order; each entry carries a checksum of what does not change
 * during its life; and everything is checked when it is read. A crash of the VM loses no store that its CPU has executed:
 * the memory is the host's.
 *
 * If tables are damaged (magic, version, checksums, impossible values), nothing of them is used: handles of former incarnations
 * are -EIO then, pending calls end so, and the domain begins anew.
 *
 * Identity of files. A file is named by what name_to_handle_at(2) says of it, struct sc_fid: it survives renames, and names no other
 * file later. Which file system is not in it: all that is kept lies on the one that the export's root is on.
 */
#ifndef VHOST_SC_STATE_H
#define VHOST_SC_STATE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* Own segments: what SC_MSG_SEGMENT has in place of a ticket (whose numbers are above 2^32). */
enum sc_own {
	SC_OWN_IO = 0,
	SC_OWN_STATE = 1,
	SC_OWN_LOG = 2,
	SC_OWN_MAX = 3,
};

#define SC_OWN_SEGMENT_MAX (1ull << 30) /* bytes; a power of two like all segments */

/* A call, as both incarnations know it: it stays in its slot until it is completed. */
struct sc_call_id {
	uint32_t session; /* 0: no call */
	uint32_t lane;
	uint32_t tag;
	uint32_t reserved;
};
static_assert(sizeof(struct sc_call_id) == 16, "kept");

/* A file, as name_to_handle_at(2) names it. */
#define SC_FID_MAX 30u
struct sc_fid {
	uint8_t type; /* of the handle; file systems that are served use small numbers */
	uint8_t len;  /* bytes; 0: no file */
	uint8_t bytes[SC_FID_MAX];
};
static_assert(sizeof(struct sc_fid) == 32, "kept");

/* ---- SC_OWN_STATE ---- */

#define SC_TABLES_MAGIC	  0x31425453u /* "STB1" */
#define SC_TABLES_VERSION 1u

/* The kinds of tables. Each has entries of one size. */
enum sc_table {
	SC_TABLE_HANDLES = 0, /* storage: struct sc_kept_handle; network: of net.h */
	SC_TABLE_GRANTS = 1,  /* struct sc_kept_grant */
	SC_TABLE_LOCKS = 2,   /* struct sc_kept_lock */
	SC_TABLE_OBJECTS = 3, /* struct sc_kept_object */
	SC_TABLE_INODES = 4,  /* struct sc_kept_inode */
	SC_TABLE_KINDS = 8,
};

/* Page 0 of the segment. */
struct sc_tables {
	uint32_t magic;	  /* stored last when the tables are made */
	uint32_t version; /* SC_TABLES_VERSION */
	uint64_t epoch;	  /* of SC_MSG_START */
	struct {
		uint32_t off;	/* bytes, a multiple of 64 */
		uint32_t size;	/* of an entry, bytes, a multiple of 64 */
		uint32_t count; /* entries; 0: there is no such table */
	} table[SC_TABLE_KINDS];
	uint32_t check; /* CRC-32C of all before it */
	/* Incarnations in a row that began to rebuild and did not finish. The agent gives the tables up when there were
	 * SC_TABLES_TRIES: what kills one agent would kill the next. Changed by the agent alone. */
	uint32_t tries;
	uint32_t incarnation; /* that wrote last */
};
#define SC_TABLES_TRIES 16u   /* agents may also be killed by others just then, again and again */
#define SC_TABLES_BEGIN 4096u /* where the first table may be */

enum sc_kept_state {
	SC_KEPT_FREE = 0,
	SC_KEPT_LIVE = 1,
};

/* The position of an open file, and who moved it there: see sc_kept_handle. */
struct sc_kept_pos {
	uint64_t pos;
	int64_t res; /* of that call */
	struct sc_call_id by;
};
static_assert(sizeof(struct sc_kept_pos) == 32, "kept");

/*
 * An open file (storage). Its index in the table is the handle's.
 *
 * The position belongs to the agent, not to its kernel's descriptor. An operation at the position (one at a time) moves it
 * when it has its result: it fills pos[1 - pos_now], then stores pos_now (release). A later incarnation that finds the call
 * pending and named in pos[pos_now].by knows that it was executed, and its result; its data, if it has any, is in the arena.
 */
struct sc_kept_handle {
	uint32_t
	    state; /* enum sc_kept_state: stored last (release) when made, first when it ends */
	uint32_t check; /* CRC-32C of bytes [8, offset of `status`) */
	uint64_t name;	/* the handle */
	uint64_t secret;
	uint64_t ticket;  /* or 0 */
	uint32_t session; /* its owner */
	uint32_t uid;	  /* the owner's */
	uint32_t flags;	  /* O_* at open */
	uint32_t type;	  /* S_IFMT >> 12 */
	struct sc_fid fid;
	struct sc_fid root;	/* of the export, what no path leaves */
	struct sc_call_id born; /* the call that opened it */
	uint64_t dev;		/* as the guest that opened it saw it: for people */
	uint64_t ino;		/* as callers see it */
	/* what changes */
	uint32_t status; /* O_APPEND, O_NONBLOCK, O_DIRECT, O_NOATIME; one store */
	uint32_t pos_now;
	/* Not 0 and <= synced of the log: `moved` is the file's name, not fid (a replay has made the file once more, and is
	 * through). Stored after `moved`, release. Since what a replay has made is on the disk, this happens once at most. */
	uint64_t moved_at;
	struct sc_kept_pos pos[2];
	struct sc_fid moved; /* see moved_at */
};
static_assert(sizeof(struct sc_kept_handle) == 256, "kept");
static_assert(offsetof(struct sc_kept_handle, status) == 144, "kept");
static_assert(offsetof(struct sc_kept_handle, moved) == 224, "kept");

/* A session that may use a handle it did not open. */
struct sc_kept_grant {
	uint32_t state;
	uint32_t check; /* CRC-32C of bytes [8, 24) */
	uint64_t name;
	uint32_t session;
	uint32_t reserved[11];
};
static_assert(sizeof(struct sc_kept_grant) == 64, "kept");

/*
 * A lock that is held. A change that replaces a lock by others makes these before it drops that one; so after a crash a
 * range may be locked twice by its owner, never less than it was. The call that was at it is pending, and is executed again.
 */
struct sc_kept_lock {
	uint32_t state;
	uint32_t check;	  /* CRC-32C of bytes [8, 96) */
	uint32_t kind;	  /* 0 flock, 1 POSIX, 2 OFD */
	uint32_t type;	  /* F_RDLCK, F_WRLCK */
	uint64_t owner;	  /* POSIX: process; otherwise the handle */
	uint64_t through; /* the handle through which it was set: names the file */
	int64_t start;
	int64_t end; /* inclusive */
	uint32_t process;
	uint32_t pid; /* on the host, for F_GETLK */
	struct sc_fid fid;
	uint32_t reserved[10];
};
static_assert(sizeof(struct sc_kept_lock) == 128, "kept");

/* A file that is mapped: its object lives in the broker (attach.h). */
struct sc_kept_object {
	uint32_t state;
	uint32_t check;	 /* CRC-32C of bytes [8, 56) */
	uint64_t object; /* its number */
	uint64_t token;	 /* proves the right to write */
	struct sc_fid fid;
	uint64_t size;	 /* that the object was given last; not in the check */
	uint32_t stored; /* 1 once somebody may store; never taken back; not in the check */
	uint32_t reserved[15];
};
static_assert(sizeof(struct sc_kept_object) == 128, "kept");
static_assert(offsetof(struct sc_kept_object, size) == 56, "kept");

/*
 * Inode numbers. A file that was created and lost again with its VM is created once more from the log, and may get another
 * number then, which programs that have seen the first must not notice. So numbers are exchanged: an entry says that the file
 * whose number on the disk is `real` is shown as `shown`. The entries together are a permutation: each number that is `real`
 * in one entry is `shown` in another. What is not named is shown as it is.
 */
struct sc_kept_inode {
	uint32_t state;
	uint32_t check; /* CRC-32C of bytes [8, 32) */
	uint64_t real;
	uint64_t shown;
	/* The log's `synced` from which on the entry counts, and from which on it counts no more (0: for ever): so one store of
	 * synced makes all that a replay has exchanged valid. */
	uint64_t from;
	uint64_t until; /* not in the check */
	uint32_t reserved[6];
};
static_assert(sizeof(struct sc_kept_inode) == 64, "kept");

/* ---- SC_OWN_LOG ---- */

/*
 * The log: a ring of records, in the order in which the changes were made. What is between synced and tail may or may not be
 * on the guest's disk. Now and then, or when it fills, the agent syncs the file system, and moves synced up to where tail was
 * before, and head after it, to the oldest record whose call is not answered yet. After a crash the file system is, after its
 * journal was replayed, in a state between that at `synced` and that at `tail`, and the
 * records say what it has to become (guest-agent/replay.h).
 *
 * A record is made before its change is: it says what is about to happen, and what there was (INTENT). When that is done, its
 * result is noted (DONE, or FAILED: nothing was changed), before the caller is told. Changes of the same file's data, and of
 * names in the same directory, are made one at a time, from before the record to after the change: their order in the log is the
 * order in which they happened.
 *
 * Offsets are absolute and only grow; a record lies at log_begin + (offset mod ring), in one piece: what would not fit before
 * the ring's end is preceded by a record of kind PAD up to there.
 */
#define SC_LOG_MAGIC   0x31474c53u /* "SLG1" */
#define SC_LOG_VERSION 1u
#define SC_LOG_BEGIN \
	4096u /* the ring's place in the segment; it is as long as what follows, a multiple of 64 */

/* Page 0 of the segment. */
struct sc_log {
	uint32_t magic; /* stored last when the log is made */
	uint32_t version;
	uint64_t epoch; /* of SC_MSG_START */
	uint64_t ring;	/* bytes */
	uint32_t check; /* CRC-32C of all before it */
	uint32_t reserved[7];
	_Alignas(64) uint64_t head; /* offset of the oldest record that counts; release */
	_Alignas(64) uint64_t
	    tail; /* offset behind the newest; release, after its header (seq, len, state) */
	/* What is recorded before this offset is on the disk, or did not happen: it is not to be replayed. Records between head
	 * and here are kept only for their results, until the calls are answered. head <= synced <= tail; release. Set by the
	 * checkpoint, and by a replay that is through (that is its one commit: replay.h). */
	_Alignas(64) uint64_t synced;
};
static_assert(offsetof(struct sc_log, head) == 64, "kept");
static_assert(offsetof(struct sc_log, tail) == 128, "kept");
static_assert(offsetof(struct sc_log, synced) == 192, "kept");

enum sc_log_kind {
	SC_LOG_PAD = 0, /* nothing; skip it */
	/* obj: made as `name` in dir. mode (type included), uid, gid as they became, rdev; data: a symbolic link's text. While
	 * INTENT: obj has no file, mode, uid and gid are what was asked for. obj2 has none, until a replay that makes the file once
	 * more notes in it what the file is now (`again_check`: CRC-32C of obj2 + 1 << 32, stored last, release). What the file
	 * inherited (ACLs) is recorded as SETXATTR of its own. */
	SC_LOG_CREATE = 1,
	/* obj: got one more name, `name` in dir */
	SC_LOG_LINK = 2,
	/* obj lost `name` in dir (rmdir, too). SC_LOG_F_KEPT: it is open, and stays */
	SC_LOG_UNLINK = 3,
	/* obj: from `name` in dir to `name2` in dir2. obj2: what was there before and lost that name (SC_LOG_F_KEPT: is open, and
	 * stays), or, with SC_LOG_F_EXCHANGE, went the other way, or none */
	SC_LOG_RENAME = 4,
	/* obj: data of `size` bytes at `off` (appended or not: this is where). Once DONE, `res` of them were written.
	 * SC_LOG_F_APPEND: `off` was the file's end */
	SC_LOG_WRITE = 5,
	SC_LOG_TRUNCATE = 6,  /* obj: `size` is its length */
	SC_LOG_FALLOCATE = 7, /* obj: [off, off + size), mode: FALLOC_FL_*; none that moves data */
	/* obj's data as it is now is on the disk: data records before this one do not count. Made (after fsync) before *and*
	 * after changes that cannot be repeated (moving ranges, copies from other files) */
	SC_LOG_BARRIER = 8,
	SC_LOG_CHMOD = 9,  /* obj: mode */
	SC_LOG_CHOWN = 10, /* obj: uid, gid (~0: unchanged); mode: what became of it */
	SC_LOG_UTIMENS =
	    11, /* obj: off: atime, size: mtime, nanoseconds since 1970 as they became */
	SC_LOG_SETXATTR = 12,	 /* obj: attribute `name` is data. SC_LOG_F_WAS: it had one */
	SC_LOG_REMOVEXATTR = 13, /* obj: attribute `name` is gone. SC_LOG_F_WAS: it had one */
	SC_LOG_SETFLAGS = 14,	 /* obj: FS_IOC_SETFLAGS: mode; */
	SC_LOG_FSSETXATTR = 15,	 /* obj: FS_IOC_FSSETXATTR: data is its struct fsxattr */
	SC_LOG_KINDS = 16,
};

enum sc_log_state {
	SC_LOG_EMPTY = 0, /* being written: nothing has happened yet */
	SC_LOG_INTENT =
	    1,		 /* the record is whole (release); what it says may have happened or not */
	SC_LOG_DONE = 2, /* it has, and res is its result */
	SC_LOG_FAILED = 3, /* it has not, and will not */
};

#define SC_LOG_F_KEPT	  1u
#define SC_LOG_F_EXCHANGE 2u
#define SC_LOG_F_WAS	  4u
#define SC_LOG_F_DIR	  8u  /* obj is a directory */
#define SC_LOG_F_ANON	  16u /* CREATE: without a name (O_TMPFILE) */
#define SC_LOG_F_APPEND	  32u /* WRITE: to the file's end */

struct sc_log_rec {
	uint64_t seq;		/* its own offset: what differs is no record */
	uint32_t len;		/* bytes, a multiple of 64, this structure included */
	uint16_t kind;		/* enum sc_log_kind */
	uint16_t state;		/* enum sc_log_state; release */
	struct sc_call_id call; /* whose it is; session 0: the agent's own doing */
	int64_t res;		/* of the call, once DONE */
	uint64_t when;		/* nanoseconds since 1970, about: a time for what is replayed */
	uint32_t check;		/* CRC-32C of what `fixed` below says; stored before INTENT */
	uint32_t flags;		/* SC_LOG_F_* */
	uint64_t off;
	uint64_t size;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint32_t rdev;
	uint16_t
	    name_len; /* bytes of body: name, name2, then data from SC_LOG_DATA(rec) on; no NULs */
	uint16_t name2_len;
	uint32_t data_len;
	/* CREATE, CHMOD, CHOWN, UTIMENS, once DONE: CRC-32C of off, size, mode, uid, gid, obj; otherwise 0. Stored before DONE */
	uint64_t done_check;
	uint64_t again_check; /* of CREATE's obj2 */
	struct sc_fid obj;
	struct sc_fid dir;
	struct sc_fid obj2;
	struct sc_fid dir2;
	uint8_t body[];
};
static_assert(sizeof(struct sc_log_rec) == 240, "kept");
/* `fixed`: bytes [0, 14), call, then [flags, done_check) and [obj, names' end), with zeros for what is known later: obj, obj2, mode,
 * uid, gid of CREATE; mode of CHMOD; mode, uid, gid of CHOWN; off, size of UTIMENS. Without data, whose loss a checksum would
 * find but not mend. (guest-agent/logrec.h) */

/* Where the data begin: data of writes is copied in whole lines. */
#define SC_LOG_DATA(rec) \
	((sizeof(struct sc_log_rec) + (rec)->name_len + (rec)->name2_len + 63u) & ~(size_t)63u)

/* The agent's own directory in the root of the file system: files that are open and have no name any more ("orphans"), and
 * what is being rebuilt. Mode 0700, root's; not shown, and not to be reached by callers. */
#define SC_OWN_DIR ".vhost-sc"
#define SC_OWN_ORPHANS \
	"orphans" /* a file's name there: its fid in hexadecimal digits, type and len first */
#define SC_OWN_STAGE "stage" /* emptied after each recovery */

#endif
