/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ops.h - the operations that a service domain executes, and what each reads from its slot and writes to its buffers.
 *
 * Numbers are ours: stable, portable, never reused. Constants inside arguments (open flags, AT_*, errno, file modes,
 * F_RDLCK, SEEK_*, XATTR_*, RENAME_*, FALLOC_*, ST_*) are Linux's for x86-64.
 *
 * Handles. An open file is named by a 64-bit handle that the agent chooses: index in the low 32 bits, generation in the
 * high. The agent checks on every call that the session may use it. A session may use what it opened, and what it was
 * granted (SC_OP_GRANT, with the secret that the opener chose). A handle lives until
 * SC_OP_CLOSE, or the release of its ticket (attach.h), or, without a ticket, until its session ends.
 *
 * Paths. A path operation has a base: a handle of a directory (O_PATH is enough), or of a root made by SC_OP_ROOT. The
 * path (buf, len; not NUL-terminated in the slot's count, and never containing NUL) is resolved below the base's export
 * root, never outside it. An empty path with AT_EMPTY_PATH names the base itself. If the path leads out of the export (an
 * absolute symbolic link, or ".." above the root) or to a place only the host can resolve, the completion has res =
 * -EXDEV and SC_CQE_F_CROSS, and the path's buffer (which the host must have made SC_PATH_BUF bytes long; `len` may be
 * shorter) holds a struct sc_cross: how to go on from the host's root. A path that is too long for its buffer: -ENAMETOOLONG.
 * All path operations act with the session's uid, gid and groups. A "mode" is 16 bits, type and permissions; what creates
 * (OPEN, MKDIR, MKNOD) finds the caller's umask in the 9 bits above it, for the kernel there to apply, or not, as the
 * directory's default ACL demands.
 *
 * Buffers. buf/len and buf2/len2 name ranges of the arena. "in" is read by the agent, "out" is written. The host may not
 * touch them before the completion.
 *
 * Completion: res >= 0 as each operation says, or -errno. Waiting operations (locks) complete late, and can be
 * cancelled (SC_OP_CANCEL): then -EINTR.
 */
#ifndef VHOST_SC_OPS_H
#define VHOST_SC_OPS_H

#include <assert.h>
#include <stdint.h>

#define SC_PATH_BUF 4096u /* bytes of every path buffer, PATH_MAX with its NUL */
/* most bytes that one operation moves; longer calls are split by the host */
#define SC_MAX_IO (4u * 1024u * 1024u)

/* Hints of SC_OP_READ. Others are ignored. */
#define SC_READ_COPIED \
	1u /* the caller's CPU will copy the data out at once, and did so with what was there before */

enum sc_op {
	/* Nothing. res = arg0. Answered by the poller itself: the null call of the benchmarks. */
	SC_OP_NOP = 0,

	/* Makes a root: buf/len in: path of the export directory below the domain's root ("/" or "" is the root
	 * itself). res = handle. ENOENT, ENOTDIR, EACCES (search permission). Needs no ticket; ends with the session. */
	SC_OP_ROOT = 1,

	/* openat2: handle = base; buf/len in: path; arg0 = flags (low 32) | mode | umask << 16 (high 32); arg1 = ticket or 0;
	 * arg2 = secret (non-zero; chosen by the host at random). res = handle; cqe.flags carries the file's type
	 * (SC_CQE_TYPE). buf2/len2 out (optional): struct sc_stat of the opened file. An empty path opens the base once
	 * more, with the caller's rights, as open("/proc/self/fd/N") does. */
	SC_OP_OPEN = 2,
	/* handle. Drops it at once, if no other session was granted it; otherwise -EBUSY, and it ends by its ticket. */
	SC_OP_CLOSE = 3,
	/* handle; arg2 = its secret: from now on this session may use the handle too. cqe.flags: type. EACCES. */
	SC_OP_GRANT = 4,

	/* handle; buf/len out: data; off = position, or with SC_SLOT_F_CURPOS the handle's own (advanced by what was
	 * read); arg0 = RWF_* flags of preadv2; arg1 = SC_READ_* hints. res = bytes, 0 at end of file. */
	SC_OP_READ = 5,
	/* handle; buf/len in: data; off, CURPOS, arg0 likewise. res = bytes. Appends if the handle is O_APPEND. */
	SC_OP_WRITE = 6,
	/* handle; off (signed) and arg0 = SEEK_SET/CUR/END/DATA/HOLE. res = new position. */
	SC_OP_SEEK = 7,
	/* handle; buf/len out: struct sc_dirent records from the handle's position on. res = bytes filled, 0 at the
	 * end; EINVAL if not one record fits. SC_OP_SEEK with a d_off as SEEK_SET goes back there. */
	SC_OP_READDIR = 8,

	/* Base, path; arg0 = AT_* flags (AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, AT_STATX_*); arg1 = STATX_* mask;
	 * buf2/len2 out: struct sc_stat. */
	SC_OP_STAT = 9,
	/* Base, path; arg0 = AT_* flags (also AT_EACCESS); arg1 = R_OK|W_OK|X_OK. */
	SC_OP_ACCESS = 10,
	/* Base, path (may be empty: the base, opened O_PATH|O_NOFOLLOW, is the link); buf2/len2 out: the text. res = its
	 * length. */
	SC_OP_READLINK = 11,
	SC_OP_MKDIR = 12, /* base, path; arg0 = mode | umask << 16 */
	/* base, path; arg0 = mode with type | umask << 16; arg1 = dev (devices: EPERM unless uid
	 * 0) */
	SC_OP_MKNOD = 13,
	SC_OP_UNLINK = 14,  /* base, path; arg0 = 0 or AT_REMOVEDIR */
	SC_OP_SYMLINK = 15, /* base, path: the new link; buf2/len2 in: its text */
	/* handle/buf: old; arg1 = base and buf2/len2 in: new; arg0 = RENAME_* flags. */
	SC_OP_RENAME = 16,
	/* The same; arg0 = AT_SYMLINK_FOLLOW, AT_EMPTY_PATH (which needs the right that the kernel asks for). */
	SC_OP_LINK = 17,
	/* Base, path, or the handle itself with AT_EMPTY_PATH in arg0; off = new length. */
	SC_OP_TRUNCATE = 18,
	SC_OP_CHMOD = 19, /* base, path; arg0 = AT_* flags; arg1 = mode */
	/* base, path; arg0 = AT_* flags; arg1 = uid (low 32) | gid (high 32), ~0: unchanged */
	SC_OP_CHOWN = 20,
	/* base, path; arg0 = AT_* flags; buf2/len2 in: struct sc_times, or len2 = 0: both now. */
	SC_OP_UTIMENS = 21,
	/* Extended attributes: base, path; arg0 = AT_* flags. buf2 in: name (not NUL-terminated, len2 bytes).
	 * GET: value to off = arena offset, arg1 = its capacity (0: only ask the size). res = size.
	 * SET: value from off = arena offset, arg1 = its size; arg2 = XATTR_CREATE/REPLACE.
	 * LIST: list to buf2/len2 (len2 = 0: only ask). res = size. REMOVE: name. */
	SC_OP_GETXATTR = 22,
	SC_OP_SETXATTR = 23,
	SC_OP_LISTXATTR = 24,
	SC_OP_REMOVEXATTR = 25,
	/* base, path or AT_EMPTY_PATH in arg0; buf2/len2 out: struct sc_statfs */
	SC_OP_STATFS = 26,
	SC_OP_FALLOCATE = 27, /* handle; off = offset; arg1 = length; arg0 = FALLOC_FL_* */
	/* handle; arg0 = SC_SYNC_*; off, arg1 = offset and length, arg2 = flags for SC_SYNC_RANGE. */
	SC_OP_SYNC = 28,
	SC_OP_FADVISE = 29, /* handle; off, arg1 = length; arg0 = POSIX_FADV_* */
	/* handle: new status flags (O_APPEND, O_NONBLOCK, O_DIRECT, O_NOATIME), as F_SETFL. arg0 = flags. */
	SC_OP_SETFL = 30,
	SC_OP_GETFL = 31, /* handle. res = access mode and status flags, as F_GETFL */
	/* flock: handle; arg0 = LOCK_SH/EX/UN | LOCK_NB. Waits without LOCK_NB. */
	SC_OP_FLOCK = 32,
	/* fcntl locks: handle; arg0 = SC_LK_* command; buf/len in and out: struct sc_lock. Owner: the session's process
	 * for POSIX locks, the handle for OFD locks. */
	SC_OP_LOCK = 33,
	/* The session's process closes a descriptor of this file: its POSIX locks on the file go (handle). Sent by the
	 * host only when it has set any there. */
	SC_OP_UNLOCK_ALL = 34,
	/* Cancels the waiting operation of this session whose lane is arg0 and tag is arg1. res = 0, ENOENT. It completes
	 * with -EINTR (or as it would have, if that came first). */
	SC_OP_CANCEL = 35,
	/* copy_file_range inside the domain: handle: from, off: position (or CURPOS); arg1 = handle: to, arg2 = position
	 * (or SC_SLOT_F_CURPOS2); arg0 = bytes. res = bytes. */
	SC_OP_COPY = 36,
	/* handle; buf2/len2 out: its present path below the export root, beginning with "/" (" (deleted)" appended as
	 * /proc does). res = length. For getcwd, /proc/self/fd, fchdir. */
	SC_OP_GETPATH = 37,
	/* handle; arg0 = ioctl number, one of FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FIONREAD,
	 * FICLONE/FICLONERANGE (arg1 = source handle); buf/len in and out: the argument. ENOTTY for all others. */
	SC_OP_IOCTL = 38,
	SC_OP_SYNCALL = 39, /* sync(2) for the domain */

	/* Maps a file: handle (open for reading; with SC_OBJECT_WRITE: for writing, too); arg0 = SC_OBJECT_READ or with
	 * SC_OBJECT_WRITE (attach.h); buf2/len2 out: struct sc_map. The file's object exists then, and this session may fetch
	 * it once with these rights (SC_ATTACH_OBJECT). EACCES; ENODEV: the domain has no objects, or the file cannot be one;
	 * ENOMEM: limits. */
	SC_OP_MAP = 40,
	/* The same with SC_OBJECT_WRITE for an object that the process has mapped already, whatever became of the handle:
	 * arg1 = object, arg2 = its token. EACCES: wrong token; ESTALE: no such object (any more). */
	SC_OP_MAP_WRITE = 41,
	/* msync: arg1 = object; off, arg0 = range in the file. What was stored there is on the disk afterwards. ESTALE. */
	SC_OP_MSYNC = 42,

	SC_OP_STORAGE_END,

	/* 64..127: sockets: net.h */
	SC_OP_MAX = 128,
};

/* Slot flags. */
#define SC_SLOT_F_CURPOS  (1u << 0) /* at the handle's own position */
#define SC_SLOT_F_CURPOS2 (1u << 1) /* the second handle likewise */

/* Completion flags. */
/* the path leads out of the export: see struct sc_cross in its buffer */
#define SC_CQE_F_CROSS	   (1u << 0)
#define SC_CQE_F_CROSS2	   (1u << 1) /* the same for the second path (in buf2) */
#define SC_CQE_TYPE_SHIFT  16	     /* bits 16..19: S_IFMT >> 12 of the file opened or granted */
#define SC_CQE_TYPE(flags) (((flags) >> SC_CQE_TYPE_SHIFT) & 0xfu)

/* How a path goes on outside of its export. Written over the path's buffer. */
struct sc_cross {
	uint32_t kind;		/* SC_CROSS_* */
	uint32_t len;		/* bytes of rest, < SC_PATH_BUF - 16 */
	uint32_t nofollow_last; /* reserved, zero */
	uint32_t reserved;
	char rest[]; /* not NUL-terminated */
};
#define SC_CROSS_ABS 1 /* rest is an absolute path of the host */
/* rest (possibly empty) is relative to the parent of the directory that the export stands for */
#define SC_CROSS_UP 2

/* As struct statx, without its padding games. */
struct sc_stat {
	uint32_t mask; /* STATX_*: valid fields */
	uint32_t mode; /* type and permissions */
	uint64_t ino;
	uint64_t size;	 /* bytes */
	uint64_t blocks; /* 512-byte units */
	uint32_t nlink;
	uint32_t blksize;
	uint32_t uid;
	uint32_t gid;
	/* of the file system, in the domain; the host maps it to a number of its own */
	uint32_t dev_major;
	uint32_t dev_minor;
	uint32_t rdev_major;
	uint32_t rdev_minor;
	uint64_t attributes; /* STATX_ATTR_* */
	uint64_t attributes_mask;
	int64_t atime_sec;
	int64_t mtime_sec;
	int64_t ctime_sec;
	int64_t btime_sec;
	uint32_t atime_nsec;
	uint32_t mtime_nsec;
	uint32_t ctime_nsec;
	uint32_t btime_nsec;
	uint64_t mnt_id;
	uint32_t dio_mem_align;
	uint32_t dio_offset_align;
};
static_assert(sizeof(struct sc_stat) == 144, "wire");

/* What SC_OP_MAP answers. */
struct sc_map {
	uint64_t object;
	uint64_t token; /* proves the right to write; 0: the handle does not give it */
	uint64_t size;	/* of the file, bytes */
};
static_assert(sizeof(struct sc_map) == 24, "wire");

struct sc_times {
	int64_t atime_sec;
	int64_t mtime_sec;
	uint32_t atime_nsec; /* or UTIME_NOW, UTIME_OMIT */
	uint32_t mtime_nsec;
};
static_assert(sizeof(struct sc_times) == 24, "wire");

struct sc_statfs {
	uint64_t type;
	uint64_t bsize;
	uint64_t blocks;
	uint64_t bfree;
	uint64_t bavail;
	uint64_t files;
	uint64_t ffree;
	uint64_t fsid;
	uint64_t namelen;
	uint64_t frsize;
	uint64_t flags; /* ST_* */
};
static_assert(sizeof(struct sc_statfs) == 88, "wire");

/* Directory record; records are 8-byte aligned. */
struct sc_dirent {
	uint64_t ino;
	uint64_t off;	  /* position of the next record, for SC_OP_SEEK */
	uint16_t reclen;  /* bytes, a multiple of 8 */
	uint16_t namelen; /* bytes, without NUL */
	uint8_t type;	  /* DT_* */
	uint8_t pad[3];
	char name[]; /* NUL-terminated */
};

struct sc_lock {
	uint32_t type;	 /* F_RDLCK, F_WRLCK, F_UNLCK */
	uint32_t whence; /* SEEK_SET, SEEK_CUR, SEEK_END */
	int64_t start;
	int64_t len;  /* 0: to the end of file */
	uint32_t pid; /* out, for GETLK: host pid of the owner, or ~0 for an OFD lock */
	uint32_t reserved;
};
static_assert(sizeof(struct sc_lock) == 32, "wire");

#define SC_LK_GET      1
#define SC_LK_SET      2
#define SC_LK_SETW     3
#define SC_LK_OFD_GET  4
#define SC_LK_OFD_SET  5
#define SC_LK_OFD_SETW 6

#define SC_SYNC_FULL  1 /* fsync */
#define SC_SYNC_DATA  2 /* fdatasync */
#define SC_SYNC_RANGE 3 /* sync_file_range */
#define SC_SYNC_FS    4 /* syncfs */

#endif
