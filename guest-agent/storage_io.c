/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * storage_io.c - data: reading, writing, positions, syncing, directories, copies, ioctls.
 *
 * Data goes between the file and the arena in place: the arena is mapped here, and its addresses are handed to the
 * kernel. (But see copy.h for reads whose data the host copies at once.) Who executes what:
 *
 *   a read          the poller itself, with RWF_NOWAIT, which takes what is in the page cache and never waits for a disk;
 *                   the rest (or all of it, for O_DIRECT) by the ring. Large reads by a worker: copying megabytes would
 *                   keep the poller from other lanes
 *   a write         the ring for O_DIRECT. Otherwise the poller, where another thread can take over from it (relay.h): ext4's
 *                   buffered writes may wait for a page or a journal, though they hardly ever do. Large ones, and those that
 *                   are to be on the disk when they return, by a worker. Not by the ring: it would pass them on to a kernel
 *                   thread, which costs more than our own
 *   syncs, fallocate, fadvise   the ring
 *
 * Everything that the ring does has a worker's version, for kernels that refuse io_uring.
 */
#include "hot.h"
#include "keep.h"
#include "objects.h"
#include "retain.h"
#include "storage.h"
#include "numbers.h"
#include "storage_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#define RWF_ALL	      (RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND)
#define INLINE_MAX    (128u * 1024u) /* largest read that the poller copies itself */
#define ALONE_MAX     (512u * 1024u) /* largest when nobody else has anything under way */
#define HERE_MAX      (256u * 1024u) /* likewise for a write */
#define DIRENTS_MAX   32768	     /* bytes of directory records read at a time */
#define IOCTL_ARG_MAX 64

/* As getdents64() fills it. */
struct linux_dirent64 {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

static bool is_direct(const struct handle *h)
{
	return atomic_load_explicit(&((struct handle *)h)->status, memory_order_relaxed) & O_DIRECT;
}

/*
 * The position of the next byte that READ or WRITE is to move: the call's, or the handle's. A write that goes to the file's end
 * is given -1, the descriptor's own position, which tells afterwards where that was.
 */
static off_t next_pos(const struct call *c)
{
	if (c->appends)
		return -1;
	return (off_t)((c->s.flags & SC_SLOT_F_CURPOS ? c->h->pos : c->s.off) + c->moved);
}

static struct iovec next_iov(const struct call *c)
{
	return (struct iovec){.iov_base = channel_at(c->ch, c->s.buf + (uint32_t)c->moved),
			      .iov_len = c->s.len - c->moved};
}

/* Limits and flags of READ and WRITE. 0 or -errno. */
static int check_io(const struct call *c)
{
	if (c->h->flags & O_PATH)
		return -EBADF;
	if (c->s.len > SC_MAX_IO)
		return -EINVAL;
	if (!(c->s.flags & SC_SLOT_F_CURPOS) &&
	    (c->s.off > INT64_MAX || c->s.off + c->s.len > INT64_MAX))
		return -EINVAL;
	return c->s.arg0 & ~(uint64_t)RWF_ALL ? -EOPNOTSUPP : 0;
}

/* Adds `n` to what was moved; the call's result so far. */
static int64_t add_moved(struct call *c, ssize_t n)
{
	if (n > 0)
		c->moved += (uint64_t)n;
	return n < 0 && !c->moved ? n : (int64_t)c->moved;
}

/* ---- READ, WRITE ---- */

/* Has the ring read or write what is left. STEP_WORK if there is no room in it. */
static enum step ring_io(struct poller *p, struct call *c, bool write)
{
	struct iovec v = next_iov(c);
	struct io_uring_sqe *sqe;

	/* The kernel's ring does not move a descriptor's position when a direct transfer ends asynchronously. */
	if (c->appends)
		return STEP_WORK;
	sqe = poller_sqe(p, c);
	if (!sqe)
		return STEP_WORK;
	if (write)
		io_uring_prep_write(sqe, c->h->fd, v.iov_base, (unsigned int)v.iov_len,
				    (uint64_t)next_pos(c));
	else
		io_uring_prep_read(sqe, c->h->fd, v.iov_base, (unsigned int)v.iov_len,
				   (uint64_t)next_pos(c));
	sqe->rw_flags =
	    (int)(c->s.arg0 & ~(uint64_t)RWF_HIPRI); /* a hint; this ring does not poll */
	/* A write by another than root clears set-user-id bits, and may not use the disk's last blocks. */
	if (write)
		sqe->personality = poller_personality(p, channel_session(c->ch)->cred);
	io_uring_sqe_set_data(sqe, c);
	return STEP_RING;
}

/* True for a read that a mapping can serve. */
static bool is_hot_read(const struct call *c)
{
	return !c->moved && !c->s.arg0 && !(c->s.flags & SC_SLOT_F_CURPOS) &&
	       hot_covers(c->h, c->s.off, c->s.len) && !is_direct(c->h);
}

bool is_short_read(struct poller *p, const struct call *c)
{
	if (c->s.len > INLINE_MAX && !(c->s.len <= ALONE_MAX && poller_is_alone(p)))
		return false;
	return is_hot_read(c) && !gate_is_stored(poller_actor(p)->agent, c->h);
}

static bool goes_past_cache(const struct actor *a, const struct call *c)
{
	return (c->s.arg1 & SC_READ_COPIED) && c->s.len >= COPY_MIN && a->agent->copy_pays;
}

/* Reads some of what is left: preadv2() with `flags`, less at a time. */
static ssize_t read_some(struct actor *a, const struct call *c, int flags)
{
	struct iovec v = next_iov(c);
	void *to = v.iov_base;
	ssize_t n;

	if (!goes_past_cache(a, c) || is_direct(c->h))
		return preadv2(c->h->fd, &v, 1, next_pos(c), flags);
	v.iov_base = a->piece;
	if (v.iov_len > sizeof(a->piece))
		v.iov_len = sizeof(a->piece);
	n = preadv2(c->h->fd, &v, 1, next_pos(c), flags);
	if (n > 0)
		copy_to_arena(to, a->piece, (size_t)n);
	return n;
}

enum step start_read(struct poller *p, struct call *c)
{
	struct actor *a = poller_actor(p);
	int err = check_io(c);

	if (err)
		return done(c, err);
	if (c->h->type == TYPE_DIR)
		return done(c, -EISDIR);
	if ((c->h->flags & O_ACCMODE) == O_WRONLY)
		return done(c, -EBADF);
	if (gate_is_stored(poller_actor(p)->agent, c->h))
		return STEP_WORK;
	if (is_direct(c->h))
		return ring_io(p, c, false);
	if (is_short_read(p, c) && poller_may_run_here(p))
		return STEP_WORK; /* which will be run here */
	if (c->s.len > INLINE_MAX && !(c->s.len <= ALONE_MAX && poller_is_alone(p)))
		return STEP_WORK;
	for (;;) {
		ssize_t n = read_some(a, c, (int)c->s.arg0 | RWF_NOWAIT);

		if (n > 0 && (c->moved += (uint64_t)n) < c->s.len)
			continue; /* end of file, or the rest is not cached: the next turn tells */
		if (n > 0 && !(c->s.flags & SC_SLOT_F_CURPOS))
			hot_note(c->h);
		if (n >= 0 || (c->s.arg0 & RWF_NOWAIT))
			return done(c, add_moved(c, n < 0 ? -errno : 0));
		if (errno == EAGAIN)
			return ring_io(p, c, false);
		/* EOPNOTSUPP: a file system without RWF_NOWAIT. */
		return errno == EOPNOTSUPP ? STEP_WORK : done(c, add_moved(c, -errno));
	}
}

/* True if the write goes to the file's end, wherever that is. */
static bool goes_to_end(const struct call *c)
{
	return c->s.arg0 & RWF_APPEND ||
	       atomic_load_explicit(&c->h->status, memory_order_relaxed) & O_APPEND;
}

bool is_short_write(const struct call *c)
{
	return c->s.len <= HERE_MAX && !is_direct(c->h) && !(c->h->flags & (O_SYNC | O_DSYNC)) &&
	       !(c->s.arg0 & (RWF_SYNC | RWF_DSYNC));
}

enum step start_write(struct poller *p, struct call *c)
{
	int err = check_io(c);

	if (!err && (c->h->flags & O_ACCMODE) == O_RDONLY)
		err = -EBADF;
	if (err)
		return done(c, err);
	c->appends = c->s.flags & SC_SLOT_F_CURPOS && goes_to_end(c);
	if (!gate_enter(p, c))
		return STEP_WORK;
	/* What is recorded is made in one piece, by a thread that may wait. */
	if (retain_covers(poller_actor(p)->agent, &c->h->fid))
		return STEP_WORK;
	return is_direct(c->h) ? ring_io(p, c, true) : STEP_WORK;
}

/* ---- files that are mapped ---- */

/* Where a read or write that does not append begins. */
static uint64_t begin_pos(const struct call *c)
{
	return c->s.flags & SC_SLOT_F_CURPOS ? c->h->pos : c->s.off;
}

/* Reads from the object what somebody may have stored there. False: nobody may; the file has it all. */
static bool read_mapped(struct actor *a, struct call *c, int64_t *res)
{
	struct object *o = object_enter(a->agent, c->h->dev, c->h->ino);

	if (!o)
		return false;
	if (!object_is_stored(o)) {
		object_leave(a->agent, o);
		return false;
	}
	*res = object_read(a->agent, o, channel_at(c->ch, c->s.buf), c->s.len, begin_pos(c));
	object_leave(a->agent, o);
	return true;
}

/* Notes where a write ended that went to the file's end: where its position is then. */
static void note_end(struct call *c)
{
	off_t end = c->appends ? lseek(c->h->fd, 0, SEEK_CUR) : 0;

	c->end = end < 0 ? 0 : (uint64_t)end;
}

static int64_t put(const struct call *c, struct iovec *v)
{
	ssize_t n = pwritev2(c->h->fd, v, 1, next_pos(c), (int)c->s.arg0);

	return n < 0 ? -errno : n;
}

/* Data that no record can hold goes to the disk at once; `before` and after it, so that nothing older is written over it. */
static int64_t barrier(struct record *r, struct call *c, const struct sc_fid *fid, int fd,
		       int64_t res)
{
	struct record_what w = {.kind = SC_LOG_BARRIER, .obj = fid};
	int64_t err;

	if (!r->t)
		return 0;
	if (fsync(fd) < 0)
		return -errno;
	err = record_intent(r, c, &w);
	record_end(r, err ? err : res);
	return err;
}

/* A write larger than records can be (a small log). */
static int64_t put_through(struct record *r, struct call *c, struct iovec *v)
{
	int64_t res = barrier(r, NULL, &c->h->fid, c->h->fd, 0), err;

	if (!res)
		res = put(c, v);
	if (res <= 0)
		return res;
	err = barrier(r, c, &c->h->fid, c->h->fd, res);
	return err ? err : res;
}

/*
 * The write itself, recorded. What is recorded is what is written: the log's copy, though the caller changes his meanwhile. (It is
 * also in this CPU's cache then.) With O_DIRECT it is the caller's own memory, whose place he has chosen.
 */
static int64_t put_recorded(struct actor *a, struct call *c, struct iovec *v)
{
	struct record_what w = {.kind = SC_LOG_WRITE, .size = v->iov_len, .obj = &c->h->fid};
	bool to_end = goes_to_end(c);
	struct record r;
	struct stat st;
	int64_t res = 0;

	record_enter(a->agent, &r, &c->h->fid, NULL, NULL);
	w.off = (c->s.flags & SC_SLOT_F_CURPOS ? c->h->pos : c->s.off) + c->moved;
	if (to_end) {
		if (fstat(c->h->fd, &st) < 0)
			res = -errno;
		w.off = (uint64_t)st.st_size;
		w.flags = SC_LOG_F_APPEND;
	}
	w.data = v->iov_base;
	w.data_len = (uint32_t)v->iov_len;
	if (!res && v->iov_len > record_data_max(a->agent)) {
		res = put_through(&r, c, v);
	} else if (!res && v->iov_len) {
		res = record_intent(&r, c, &w);
		if (!res && !is_direct(c->h))
			v->iov_base = (uint8_t *)r.rec + SC_LOG_DATA(r.rec);
		if (!res)
			res = put(c, v);
		record_end(&r, res);
	} else if (!res) {
		res = put(c, v); /* of nothing: to hear what is wrong with it */
	}
	record_leave(&r);
	return res;
}

static int64_t put_any(struct actor *a, struct call *c, struct iovec *v)
{
	return retain_covers(a->agent, &c->h->fid) ? put_recorded(a, c, v) : put(c, v);
}

/* Writes to a file that may have an object, and to that. */
static int64_t write_mapped(struct actor *a, struct call *c)
{
	struct iovec v = next_iov(c);
	struct change ch;
	struct stat st;
	uint64_t pos = begin_pos(c);
	int64_t res;

	change_begin(a->agent, c->h->dev, c->h->ino, &ch);
	res = put_any(a, c, &v);
	note_end(c);
	if (res > 0 && ch.o) {
		/* With the object locked nobody else makes the file longer. */
		if (goes_to_end(c) && fstat(c->h->fd, &st) == 0)
			pos = (uint64_t)st.st_size - (uint64_t)res;
		object_written(a->agent, ch.o, next_iov(c).iov_base, (size_t)res, pos);
	}
	change_end(a->agent, &ch);
	return res;
}

/* Writes back what was stored into mappings of the file. 0 or -errno. */
static int flush_mapped(struct actor *a, const struct handle *h)
{
	struct object *o;
	int err;

	if (!gate_is_stored(a->agent, h))
		return 0;
	o = object_enter(a->agent, h->dev, h->ino);
	if (!o)
		return 0;
	err = object_flush(a->agent, o, 0, INT64_MAX);
	object_leave(a->agent, o);
	return err;
}

int64_t work_read(struct actor *a, struct call *c, bool cached)
{
	int64_t res;
	ssize_t n;

	if (!c->moved && gate_is_stored(a->agent, c->h) && read_mapped(a, c, &res))
		return res;
	if (is_hot_read(c)) {
		n = hot_read(c->h, channel_at(c->ch, c->s.buf), c->s.off, c->s.len,
			     goes_past_cache(a, c));
		if (n >= 0)
			return n;
	}
	do {
		n = read_some(a, c, (int)c->s.arg0);
		res = add_moved(c, n < 0 ? -errno : n);
	} while (n > 0 && c->moved < c->s.len);
	return res;
}

int64_t work_write(struct actor *a, struct call *c, bool cached)
{
	struct iovec v = next_iov(c);
	int64_t n;

	if (!c->gate)
		return write_mapped(a, c);
	n = put_any(a, c, &v);
	note_end(c);
	return add_moved(c, n);
}

/* ---- SEEK ---- */

/* No file system's longest file is shorter: so far a position is right whatever it is. */
#define POS_SURE (1ull << 31)

/* True if the seek needs neither disk nor lock. */
static bool seeks_fast(const struct call *c)
{
	return c->h->type == TYPE_REG && c->s.arg0 <= SEEK_END;
}

/* lseek of a regular file, whose position is ours. As a rule no system call. */
static int64_t seek_regular(const struct call *c)
{
	off_t pos = (off_t)c->s.off;
	int whence = (int)c->s.arg0;

	if (whence == SEEK_CUR) {
		if (!pos)
			return (int64_t)c->h->pos;
		if (__builtin_add_overflow((off_t)c->h->pos, pos, &pos))
			return -EINVAL;
		whence = SEEK_SET;
	}
	if (whence == SEEK_SET && pos >= 0 && (uint64_t)pos <= POS_SURE)
		return pos;
	pos = lseek(c->h->fd, pos, whence);
	return pos < 0 ? -errno : pos;
}

static int64_t seek(const struct call *c)
{
	off_t pos;

	if (c->s.arg0 > SEEK_HOLE)
		return -EINVAL;
	if (c->h->flags & O_PATH)
		return -EBADF;
	if (c->h->type == TYPE_REG)
		return seek_regular(c);
	pos = lseek(c->h->fd, (off_t)c->s.off, (int)c->s.arg0);
	return pos < 0 ? -errno : pos;
}

enum step start_seek(struct poller *p, struct call *c)
{
	return seeks_fast(c) ? done(c, seek(c)) : STEP_WORK;
}

int64_t work_seek(struct actor *a, struct call *c, bool cached)
{
	int err = flush_mapped(a, c->h); /* for holes and data to be where they were stored */

	if (err)
		return err;
	return seek(c);
}

/* ---- SYNC, FALLOCATE, FADVISE ---- */

/* A ring request for the call with the caller's rights; NULL: have a worker do it. */
static struct io_uring_sqe *caller_sqe(struct poller *p, struct call *c)
{
	/* Registering credentials may submit: first of all. */
	uint16_t who = poller_personality(p, channel_session(c->ch)->cred);
	struct io_uring_sqe *sqe = poller_sqe(p, c);

	if (sqe)
		sqe->personality = who;
	return sqe;
}

enum step start_sync(struct poller *p, struct call *c)
{
	uint16_t who = poller_personality(p, channel_session(c->ch)->cred);
	struct io_uring_sqe *sqe;

	if (c->s.arg0 < SC_SYNC_FULL || c->s.arg0 > SC_SYNC_FS)
		return done(c, -EINVAL);
	if (c->h->flags & O_PATH)
		return done(c, -EBADF);
	if (gate_is_stored(poller_actor(p)->agent, c->h) ||
	    c->s.arg0 >
		SC_SYNC_DATA) /* the ring's ranges have 32-bit lengths, and it has no syncfs */
		return STEP_WORK;
	sqe = poller_sqe(p, c);
	if (!sqe)
		return STEP_WORK;
	io_uring_prep_fsync(sqe, c->h->fd, c->s.arg0 == SC_SYNC_DATA ? IORING_FSYNC_DATASYNC : 0);
	sqe->personality = who;
	io_uring_sqe_set_data(sqe, c);
	return STEP_RING;
}

int64_t work_sync(struct actor *a, struct call *c, bool cached)
{
	int fd = c->h->fd, res = -1;
	int err = c->s.arg0 == SC_SYNC_FS ? objects_flush_all(a->agent) : flush_mapped(a, c->h);

	if (err)
		return err;
	switch (c->s.arg0) {
	case SC_SYNC_FULL:
		res = fsync(fd);
		break;
	case SC_SYNC_DATA:
		res = fdatasync(fd);
		break;
	case SC_SYNC_RANGE:
		res =
		    sync_file_range(fd, (off_t)c->s.off, (off_t)c->s.arg1, (unsigned int)c->s.arg2);
		break;
	case SC_SYNC_FS:
		res = syncfs(fd);
		break;
	default:
		break;
	}
	return res < 0 ? -errno : 0;
}

enum step start_fallocate(struct poller *p, struct call *c)
{
	struct io_uring_sqe *sqe;

	if (c->h->type == TYPE_REG && !gate_enter(p, c))
		return STEP_WORK;
	if (retain_covers(poller_actor(p)->agent, &c->h->fid))
		return STEP_WORK;
	sqe = caller_sqe(p, c);
	if (!sqe)
		return STEP_WORK;
	io_uring_prep_fallocate(sqe, c->h->fd, (int)c->s.arg0, (off_t)c->s.off, (off_t)c->s.arg1);
	io_uring_sqe_set_data(sqe, c);
	return STEP_RING;
}

#define MOVES_DATA (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)

static int64_t fall(const struct call *c)
{
	return fallocate(c->h->fd, (int)c->s.arg0, (off_t)c->s.off, (off_t)c->s.arg1) < 0 ? -errno
											  : 0;
}

/* What moves data cannot be repeated: it is on the disk when it returns. */
static int64_t move_data(struct record *r, struct call *c)
{
	int64_t err = barrier(r, NULL, &c->h->fid, c->h->fd, 0);

	if (!err)
		err = fall(c);
	return err ? err : barrier(r, c, &c->h->fid, c->h->fd, 0);
}

static int64_t allocate_recorded(struct actor *a, struct call *c)
{
	struct record_what w = {.kind = SC_LOG_FALLOCATE,
				.off = c->s.off,
				.size = c->s.arg1,
				.mode = (uint32_t)c->s.arg0,
				.obj = &c->h->fid};
	struct record r;
	int64_t err;

	if (!retain_covers(a->agent, &c->h->fid) || c->s.off > INT64_MAX ||
	    c->s.arg1 > INT64_MAX - c->s.off || c->h->type != TYPE_REG)
		return fall(c);
	record_enter(a->agent, &r, &c->h->fid, NULL, NULL);
	if (c->s.arg0 & MOVES_DATA) {
		err = move_data(&r, c);
	} else {
		err = record_intent(&r, c, &w);
		if (!err)
			err = fall(c);
		record_end(&r, err);
	}
	record_leave(&r);
	return err;
}

/* fallocate; of a file with an object, after what was stored is written back: ranges may move. */
static int64_t allocate(struct actor *a, struct call *c, struct object *o)
{
	int64_t err = o ? object_flush(a->agent, o, 0, INT64_MAX) : 0;

	if (!err)
		err = allocate_recorded(a, c);
	if (err)
		return err;
	if (o)
		object_changed(a->agent, o,
			       c->s.arg0 & ~(uint64_t)FALLOC_FL_KEEP_SIZE ? c->s.off : INT64_MAX,
			       INT64_MAX);
	return 0;
}

int64_t work_fallocate(struct actor *a, struct call *c, bool cached)
{
	struct change ch;
	int64_t res;

	if (c->gate)
		return allocate(a, c, NULL);
	change_begin(a->agent, c->h->dev, c->h->ino, &ch);
	res = allocate(a, c, ch.o);
	change_end(a->agent, &ch);
	return res;
}

enum step start_fadvise(struct poller *p, struct call *c)
{
	/* The ring's length has 32 bits. */
	struct io_uring_sqe *sqe = c->s.arg1 > UINT32_MAX ? NULL : poller_sqe(p, c);

	if (!sqe)
		return STEP_WORK;
	io_uring_prep_fadvise(sqe, c->h->fd, c->s.off, (off_t)c->s.arg1, (int)c->s.arg0);
	io_uring_sqe_set_data(sqe, c);
	return STEP_RING;
}

int64_t work_fadvise(struct actor *a, struct call *c, bool cached)
{
	return -posix_fadvise(c->h->fd, (off_t)c->s.off, (off_t)c->s.arg1, (int)c->s.arg0);
}

enum step storage_ring_done(struct poller *p, struct call *c, int res)
{
	bool moves = c->s.op == SC_OP_READ || c->s.op == SC_OP_WRITE;

	/* EAGAIN: the file system cannot do it asynchronously. EINTR, ECANCELED: the ring was disturbed. */
	if ((res == -EAGAIN && !(moves && (c->s.arg0 & RWF_NOWAIT))) || res == -EINTR ||
	    res == -ECANCELED)
		return STEP_WORK;
	return done(c, moves ? add_moved(c, res) : res);
}

/* ---- READDIR ---- */

/* Writes one record. Returns its length, or 0 if it does not fit into `room` bytes. */
static uint32_t put_dirent(uint8_t *to, uint32_t room, const struct linux_dirent64 *d, uint64_t ino)
{
	size_t namelen = strlen(d->name);
	size_t reclen = (sizeof(struct sc_dirent) + namelen + 1 + 7) & ~(size_t)7;
	struct sc_dirent out = {.ino = ino,
				.off = (uint64_t)d->off,
				.reclen = (uint16_t)reclen,
				.namelen = (uint16_t)namelen,
				.type = d->type};

	if (reclen > room)
		return 0;
	memset(to + reclen - 8, 0, 8);
	memcpy(to, &out, offsetof(struct sc_dirent, name));
	memcpy(to + offsetof(struct sc_dirent, name), d->name, namelen);
	to[offsetof(struct sc_dirent, name) + namelen] = '\0';
	return (uint32_t)reclen;
}

int64_t work_readdir(struct actor *a, struct call *c, bool cached)
{
	_Alignas(8) uint8_t buf[DIRENTS_MAX];
	/* Our records are at most a third longer than the kernel's: so all that it gives fits. */
	size_t ask = c->s.len - c->s.len / 4;
	uint8_t *to = channel_at(c->ch, c->s.buf);
	uint64_t dev = makedev((uint32_t)(c->h->dev >> 32), (uint32_t)c->h->dev);
	uint32_t filled = 0;
	long n;

	if (c->s.buf & 7 || (c->h->flags & O_PATH))
		return c->s.buf & 7 ? -EINVAL : -EBADF;
	c->end = c->h->pos;
	do { /* again if there was nothing but what is not shown */
		n = syscall(SYS_getdents64, c->h->fd, buf, ask < sizeof(buf) ? ask : sizeof(buf));
		if (n < 0)
			return -errno;
		for (long at = 0; at < n;) {
			const struct linux_dirent64 *d = (const struct linux_dirent64 *)(buf + at);
			bool shown = strcmp(d->name, SC_OWN_DIR) != 0;
			uint32_t len = shown ? put_dirent(to + filled, c->s.len - filled, d,
							  numbers_shown(a->agent, dev, d->ino))
					     : 0;

			if (shown && !len)
				return -EINVAL;
			filled += len;
			at += d->reclen;
			c->end = (uint64_t)d->off;
		}
	} while (!filled && n > 0);
	return filled;
}

/* ---- COPY, IOCTL, SYNCALL ---- */

int64_t work_copy(struct actor *a, struct call *c, bool cached)
{
	off_t from = (off_t)(c->s.flags & SC_SLOT_F_CURPOS ? c->h->pos : c->s.off);
	off_t to = (off_t)(c->s.flags & SC_SLOT_F_CURPOS2 ? c->h2->pos : c->s.arg2);
	struct change ch;
	struct record r;
	int err = flush_mapped(a, c->h);
	int64_t n;

	if (c->s.arg0 > INT64_MAX)
		return -EINVAL;
	if (err)
		return err;
	change_begin(a->agent, c->h2->dev, c->h2->ino, &ch);
	record_enter(a->agent, &r, &c->h2->fid, NULL, NULL);
	n = barrier(&r, NULL, &c->h2->fid, c->h2->fd, 0);
	if (!n) {
		n = copy_file_range(c->h->fd, &from, c->h2->fd, &to, (size_t)c->s.arg0, 0);
		n = n < 0 ? -errno : n;
	}
	if (n > 0) {
		int64_t failed = barrier(&r, c, &c->h2->fid, c->h2->fd, n);

		n = failed ? failed : n;
	}
	record_leave(&r);
	if (n > 0 && ch.o) /* `to` was moved by the call */
		object_changed(a->agent, ch.o, (uint64_t)(to - n), (uint64_t)to);
	change_end(a->agent, &ch);
	return n;
}

bool ioctl_takes_source(uint64_t number)
{
	return number == FICLONE || number == FICLONERANGE;
}

/* Bytes of the argument that an ioctl reads and writes; 0: not one of those that are served. */
static uint32_t ioctl_size(uint64_t number)
{
	switch (number) {
	case FS_IOC_GETFLAGS:
	case FS_IOC_SETFLAGS: /* an int, whatever the number says */
	case FIONREAD:
		return sizeof(int);
	case FS_IOC_FSGETXATTR:
	case FS_IOC_FSSETXATTR:
		return sizeof(struct fsxattr);
	case FICLONERANGE:
		return sizeof(struct file_clone_range);
	default:
		return 0;
	}
}

/* FICLONE, FICLONERANGE. */
static int64_t clone_file(struct actor *a, struct call *c, unsigned long number, void *arg)
{
	struct change ch;
	struct record r;
	int64_t err = flush_mapped(a, c->h2);

	if (err)
		return err;
	change_begin(a->agent, c->h->dev, c->h->ino, &ch);
	record_enter(a->agent, &r, &c->h->fid, NULL, NULL);
	err = barrier(&r, NULL, &c->h->fid, c->h->fd, 0);
	if (!err && ioctl(c->h->fd, number, arg) < 0)
		err = -errno;
	if (!err)
		err = barrier(&r, c, &c->h->fid, c->h->fd, 0);
	record_leave(&r);
	if (!err && ch.o)
		object_changed(a->agent, ch.o, 0, INT64_MAX);
	change_end(a->agent, &ch);
	return err;
}

/* FIONREAD of a regular file, which the kernel cuts to an int, too. */
static int left_from_pos(const struct handle *h)
{
	struct stat st;

	return fstat(h->fd, &st) < 0
		   ? 0
		   : (int)(st.st_size - (off_t)__atomic_load_n(&h->pos, __ATOMIC_RELAXED));
}

/* FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR. */
static int64_t set_flags(struct actor *a, struct call *c, void *arg, uint32_t size)
{
	bool flags = c->s.arg0 == FS_IOC_SETFLAGS;
	struct record_what w = {.kind = flags ? SC_LOG_SETFLAGS : SC_LOG_FSSETXATTR,
				.obj = &c->h->fid};
	struct record r;
	int64_t err;

	if (flags)
		memcpy(&w.mode, arg, sizeof(w.mode));
	w.data = flags ? NULL : arg;
	w.data_len = flags ? 0 : size;
	record_enter(a->agent, &r, &c->h->fid, NULL, NULL);
	err = record_intent(&r, c, &w);
	if (!err && ioctl(c->h->fd, (unsigned long)c->s.arg0, arg) < 0)
		err = -errno;
	record_end(&r, err);
	record_leave(&r);
	return err;
}

int64_t work_ioctl(struct actor *a, struct call *c, bool cached)
{
	_Alignas(8) uint8_t arg[IOCTL_ARG_MAX] = {0};
	uint32_t size = ioctl_size(c->s.arg0);
	int64_t fd;

	if (c->s.arg0 == FICLONE)
		return clone_file(a, c, FICLONE, (void *)(uintptr_t)c->h2->fd);
	if (!size)
		return -ENOTTY;
	if (c->s.len < size)
		return -EINVAL;
	channel_read(c->ch, c->s.buf, arg, size);
	if (c->s.arg0 == FICLONERANGE) {
		fd = c->h2->fd; /* in place of the caller's idea of it */
		memcpy(arg + offsetof(struct file_clone_range, src_fd), &fd, sizeof(fd));
	}
	if (c->s.arg0 == FICLONERANGE)
		return clone_file(a, c, FICLONERANGE, arg);
	if (c->s.arg0 == FS_IOC_SETFLAGS || c->s.arg0 == FS_IOC_FSSETXATTR)
		return set_flags(a, c, arg, size);
	if (ioctl(c->h->fd, (unsigned long)c->s.arg0, arg) < 0)
		return -errno;
	if (c->s.arg0 == FIONREAD && c->h->type == TYPE_REG) {
		/* The kernel has counted from the descriptor's position on, which is not the handle's. */
		int left = left_from_pos(c->h);

		memcpy(arg, &left, sizeof(left));
	}
	memcpy(channel_at(c->ch, c->s.buf), arg, size);
	return 0;
}

int64_t work_syncall(struct actor *a, struct call *c, bool cached)
{
	int err = objects_flush_all(a->agent);

	return syncfs(a->agent->sync_fd) < 0 ? -errno : err;
}
