/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay_redo.c - what was done to files is done once more: data and attributes, in the log's order, object by object.
 *
 * An object is reached as /proc/self/fd/N of an O_PATH descriptor, as elsewhere in the agent (storage_path.c), and opened for writing only
 * where data are to be written. Inode flags come last, after times: they may forbid all else.
 */
#include "replay_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SECOND	  1000000000ull
#define NEAR_NS	  20000000ull /* what the log's clock and the kernel's, which ticks, may differ by */
#define FORBIDDEN (FS_IMMUTABLE_FL | FS_APPEND_FL)
/* Inode flags that callers set; others are the file system's own. */
#define SETTABLE (FS_FL_USER_MODIFIABLE | FS_NOCOW_FL | FS_DAX_FL | FS_PROJINHERIT_FL)

/* fallocate()'s modes that do not move data */
#define FALLOC_MODES                                                         \
	(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | \
	 FALLOC_FL_UNSHARE_RANGE)

/* An object that is being redone. */
struct redo {
	struct sim *s;
	struct object *o;
	int path; /* O_PATH */
	int data; /* for writing, or -1: not needed so far */
	char proc[32];
};

static bool fail_redo(struct redo *d, const struct sc_log_rec *rec)
{
	return replay_fail_at(d->s, rec, "cannot be repeated: %s", strerror(errno));
}

static bool is_data(const struct sc_log_rec *rec)
{
	return rec->kind == SC_LOG_WRITE || rec->kind == SC_LOG_TRUNCATE ||
	       rec->kind == SC_LOG_FALLOCATE;
}

/* Opens for writing, once. */
static bool open_data(struct redo *d, const struct sc_log_rec *rec)
{
	if (d->data >= 0)
		return true;
	if (!S_ISREG(d->o->type))
		return replay_fail_at(d->s, rec, "changes the data of what is no regular file");
	d->data = replay_open(d->s, &d->o->now, O_WRONLY | O_NONBLOCK);
	return d->data >= 0 || fail_redo(d, rec);
}

static bool redo_write(struct redo *d, const struct sc_log_rec *rec)
{
	const uint8_t *from = (const uint8_t *)rec + SC_LOG_DATA(rec);
	uint64_t left = rec->res < 0 ? 0 : (uint64_t)rec->res, off = rec->off;

	if (left > rec->size)
		left = rec->size;
	while (left) {
		ssize_t n = pwrite(d->data, from, left, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail_redo(d, rec);
		from += n;
		off += (uint64_t)n;
		left -= (uint64_t)n;
		d->s->r->bytes += (uint64_t)n;
	}
	return true;
}

static bool redo_data(struct redo *d, const struct sc_log_rec *rec)
{
	if (!open_data(d, rec))
		return false;
	switch (rec->kind) {
	case SC_LOG_WRITE:
		return redo_write(d, rec);
	case SC_LOG_TRUNCATE:
		return ftruncate(d->data, (off_t)rec->size) == 0 || fail_redo(d, rec);
	default:
		if (rec->mode & ~(uint32_t)FALLOC_MODES)
			return replay_fail_at(d->s, rec, "moves data");
		return fallocate(d->data, (int)rec->mode, (off_t)rec->off, (off_t)rec->size) == 0 ||
		       fail_redo(d, rec);
	}
}

static bool set_mode(struct redo *d, const struct sc_log_rec *rec)
{
	if (S_ISLNK(d->o->type))
		return true; /* links have none */
	return chmod(d->proc, rec->mode & 07777) == 0 || fail_redo(d, rec);
}

static bool set_owner(struct redo *d, const struct sc_log_rec *rec)
{
	if (fchownat(d->path, "", rec->uid, rec->gid, AT_EMPTY_PATH) < 0)
		return fail_redo(d, rec);
	return set_mode(d, rec); /* which bits it has taken away, or not */
}

/* The attribute's name with a NUL. `to` has 256 bytes. */
static const char *attribute(const struct sc_log_rec *rec, char *to)
{
	memcpy(to, rec->body, rec->name_len);
	to[rec->name_len] = '\0';
	return to;
}

static bool set_attribute(struct redo *d, const struct item *i)
{
	const struct sc_log_rec *rec = i->rec;
	char name[256];

	if (i->done)
		return setxattr(d->proc, attribute(rec, name),
				(const uint8_t *)rec + SC_LOG_DATA(rec), rec->data_len, 0) == 0 ||
		       fail_redo(d, rec);
	if (rec->flags & SC_LOG_F_WAS)
		return true; /* its value may be the new one, or the old one */
	return removexattr(d->proc, attribute(rec, name)) == 0 || errno == ENODATA ||
	       fail_redo(d, rec);
}

static bool remove_attribute(struct redo *d, const struct item *i)
{
	struct sc_log_rec *rec = i->rec;
	char name[256];

	if (i->done)
		return removexattr(d->proc, attribute(rec, name)) == 0 || errno == ENODATA ||
		       fail_redo(d, rec);
	/* It had one, which has gone. Where it had none, executing it again says what was wrong. */
	if (rec->flags & SC_LOG_F_WAS && getxattr(d->proc, attribute(rec, name), NULL, 0) < 0 &&
	    errno == ENODATA) {
		rec->res = 0;
		__atomic_store_n(&rec->state, SC_LOG_DONE, __ATOMIC_RELEASE);
		d->s->r->counted_done++;
	}
	return true;
}

static bool redo_item(struct redo *d, const struct item *i)
{
	switch (i->rec->kind) {
	case SC_LOG_CHMOD:
		return !i->done || set_mode(d, i->rec);
	case SC_LOG_CHOWN:
		return !i->done || set_owner(d, i->rec);
	case SC_LOG_SETXATTR:
		return set_attribute(d, i);
	case SC_LOG_REMOVEXATTR:
		return remove_attribute(d, i);
	default:
		return true; /* data, times, flags: elsewhere */
	}
}

/* The last barrier's successor, or all. */
static const struct item *after_barrier(const struct object *o)
{
	const struct item *from = o->first;

	for (const struct item *i = o->first; i; i = i->next)
		if (i->done && i->rec->kind == SC_LOG_BARRIER)
			from = i->next;
	return from;
}

static bool redo_all_data(struct redo *d)
{
	const struct sc_log_rec *last = NULL;
	struct stat st;

	for (const struct item *i = after_barrier(d->o); i; i = i->next) {
		if (!i->done || !is_data(i->rec))
			continue;
		last = i->rec;
		if (!redo_data(d, last))
			return false;
	}
	/* What an unfinished write has appended goes. */
	if (!d->o->has_size || !S_ISREG(d->o->type))
		return true;
	if (!last)
		last = d->o->last ? d->o->last->rec : d->o->create;
	if (fstat(d->path, &st) == 0 && (uint64_t)st.st_size == d->o->size)
		return true;
	return truncate(d->proc, (off_t)d->o->size) == 0 || fail_redo(d, last);
}

/* What the log made begins with the owner and mode that its record says. */
static bool redo_create(struct redo *d)
{
	const struct sc_log_rec *rec = d->o->create;
	struct stat st;

	if (!rec)
		return true;
	if (fstat(d->path, &st) < 0)
		return fail_redo(d, rec);
	if (st.st_uid != rec->uid || st.st_gid != rec->gid)
		return set_owner(d, rec);
	return (st.st_mode & 07777) == (rec->mode & 07777) || set_mode(d, rec);
}

static bool open_redo(struct redo *d, struct sim *s, struct object *o)
{
	*d = (struct redo){.s = s, .o = o, .data = -1};
	d->path = replay_open(s, &o->now, O_PATH);
	if (d->path < 0)
		return replay_fail(s, "opening a file by its identity: %s", strerror(errno));
	snprintf(d->proc, sizeof(d->proc), "/proc/self/fd/%d", d->path);
	return true;
}

static void close_redo(struct redo *d)
{
	if (d->data >= 0)
		close(d->data);
	close(d->path);
}

/* Nothing is left to be done to what nobody can reach: what has lost its last name just now is not there any more. */
static bool matters(const struct sim *s, struct object *o)
{
	int fd;

	if (!o->now.len || o->nnames || o->opens)
		return o->now.len;
	fd = o->create ? -1 : replay_open(s, &o->now, O_PATH);
	if (fd < 0)
		o->now.len = 0;
	else
		close(fd);
	return fd >= 0;
}

/* What is set of a time: it is, or the disk's stays. */
static struct timespec time_to_set(const struct moment *m, uint64_t disk)
{
	uint64_t ns = m->ns;

	if (m->how == TIME_AS_IT_IS)
		return (struct timespec){.tv_nsec = UTIME_OMIT};
	if (m->how == TIME_ABOUT && (disk > ns ? disk - ns : ns - disk) <= NEAR_NS)
		ns = disk;
	return (struct timespec){.tv_sec = (time_t)((int64_t)ns / (int64_t)SECOND),
				 .tv_nsec = (long)((int64_t)ns % (int64_t)SECOND)};
}

static bool set_times(struct redo *d)
{
	struct object *o = d->o;
	struct timespec ts[2];

	/* What we have done to a directory is nobody's change. */
	if ((o->is_parent || o->aside) && o->mtime.how == TIME_AS_IT_IS && o->disk_mtime)
		o->mtime = (struct moment){o->disk_mtime, TIME_EXACT};
	if (!o->made && o->atime.how == TIME_ABOUT)
		o->atime.how = TIME_AS_IT_IS;
	ts[0] = time_to_set(&o->atime, o->atime.ns);
	ts[1] = time_to_set(&o->mtime, o->disk_mtime);
	for (int i = 0; i < 2; i++) /* before 1970 */
		if (ts[i].tv_nsec < 0) {
			ts[i].tv_sec--;
			ts[i].tv_nsec += (long)SECOND;
		}
	if (ts[0].tv_nsec == UTIME_OMIT && ts[1].tv_nsec == UTIME_OMIT)
		return true;
	/* The raw call: libc refuses an empty path here. */
	return syscall(SYS_utimensat, d->path, "", ts, AT_EMPTY_PATH) == 0 ||
	       replay_fail(d->s, "setting a file's times: %s", strerror(errno));
}

static bool redo_object(struct sim *s, struct object *o)
{
	struct redo d;
	bool ok;

	if (!open_redo(&d, s, o))
		return false;
	ok = redo_create(&d) && redo_all_data(&d);
	for (const struct item *i = o->first; ok && i; i = i->next)
		ok = redo_item(&d, i);
	if (ok && !o->is_parent)
		ok = set_times(&d);
	close_redo(&d);
	return ok;
}

/* It is there, nothing was done to it since it was made, and it is as it was made. */
static bool is_untouched(const struct object *o)
{
	const struct sc_log_rec *rec = o->create;
	struct timespec m = time_to_set(&o->mtime, o->disk_mtime);

	if (!rec)
		return !o->first;
	return !o->first && !o->made && o->disk_uid == rec->uid && o->disk_gid == rec->gid &&
	       o->disk_mode == rec->mode &&
	       (m.tv_nsec == UTIME_OMIT || o->is_parent ||
		(uint64_t)m.tv_sec * SECOND + (uint64_t)m.tv_nsec == o->disk_mtime);
}

bool replay_redo(struct sim *s)
{
	for (struct object *o = s->objects; o; o = o->next)
		if (!is_untouched(o) && matters(s, o) && !redo_object(s, o))
			return false;
	return true;
}

/* ---- flags ---- */

/* Opens for its flags. */
static int open_flags(const struct sim *s, const struct object *o)
{
	return replay_open(s, &o->now, O_RDONLY | O_NONBLOCK);
}

bool replay_unlock(struct sim *s)
{
	for (struct object *o = s->objects; o; o = o->next) {
		int fd, flags, err = 0;

		if (!o->has_flags || !o->now.len || (o->type != S_IFREG && o->type != S_IFDIR))
			continue;
		fd = open_flags(s, o);
		if (fd < 0)
			return replay_fail(s, "opening a file for its flags: %s", strerror(errno));
		if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0) {
			err = errno;
		} else {
			o->flags = (uint32_t)flags;
			flags &= ~FORBIDDEN;
			if (o->flags & FORBIDDEN && ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0)
				err = errno;
		}
		close(fd);
		if (err)
			return replay_fail(s, "a file's flags: %s", strerror(err));
	}
	return true;
}

/* Gives an open file those of its flags that callers set. 0 or -1 with errno. */
static int give_flags(int fd, uint32_t wanted)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
		return -1;
	wanted = ((uint32_t)flags & ~(uint32_t)SETTABLE) | (wanted & SETTABLE);
	flags = (int)wanted;
	return ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static int give_xflags(int fd, const struct sc_log_rec *rec)
{
	struct fsxattr x;

	if (rec->data_len < sizeof(x)) {
		errno = EINVAL;
		return -1;
	}
	memcpy(&x, (const uint8_t *)rec + SC_LOG_DATA(rec), sizeof(x));
	return ioctl(fd, FS_IOC_FSSETXATTR, &x);
}

/* As they were set last; what replay_unlock() has taken is given back. */
static bool set_flags(struct sim *s, const struct object *o)
{
	uint32_t flags = o->flags;
	int fd = open_flags(s, o), err = 0;

	if (fd < 0)
		return replay_fail(s, "opening a file for its flags: %s", strerror(errno));
	for (const struct item *i = o->first; i && !err; i = i->next) {
		if (i->done && i->rec->kind == SC_LOG_SETFLAGS)
			flags = i->rec->mode;
		else if (i->done && i->rec->kind == SC_LOG_FSSETXATTR)
			err = give_xflags(fd, i->rec);
		else
			continue;
		/* What is in both is what the later call has made of it. */
		if (!err && i->rec->kind == SC_LOG_FSSETXATTR)
			err = ioctl(fd, FS_IOC_GETFLAGS, &flags);
	}
	if (!err)
		err = give_flags(fd, flags);
	err = err ? errno : 0;
	close(fd);
	return !err || replay_fail(s, "setting a file's flags: %s", strerror(err));
}

bool replay_finish(struct sim *s)
{
	for (struct object *o = s->objects; o; o = o->next) {
		struct redo d;
		bool ok;

		if ((!o->is_parent && !o->aside && !o->has_flags) || !matters(s, o))
			continue;
		if (o->is_parent || o->aside) {
			if (!open_redo(&d, s, o))
				return false;
			ok = set_times(&d);
			close_redo(&d);
			if (!ok)
				return false;
		}
		if (o->has_flags && (o->type == S_IFREG || o->type == S_IFDIR) && !set_flags(s, o))
			return false;
	}
	return true;
}
