/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * storage_path.c - operations on paths.
 *
 * Three ways to the object, none of which lets the kernel resolve anything outside of the export:
 *
 *   target   what is looked at or changed: an O_PATH descriptor of it (walk_open), or the base handle itself. System calls
 *            without AT_EMPTY_PATH reach it as /proc/self/fd/N, which leads to that very inode
 *   place    what is made, removed or renamed: one name in an opened directory (walk_place)
 *   name     a base and a single component without slashes, for calls that do not follow links
 */
#include "keep.h"
#include "names.h"
#include "objects.h"
#include "orphans.h"
#include "retain.h"
#include "numbers.h"
#include "storage_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PROC_PATH 32 /* bytes for "/proc/self/fd/N" */

/* The object of an operation. */
struct target {
	int fd;
	bool own;  /* to be closed */
	bool base; /* the base handle itself: opened by the caller, perhaps not O_PATH */
};

static void target_close(struct target *t)
{
	if (t->own)
		close(t->fd);
}

/* errno or 0 as the result of a call. */
static int64_t result(long n)
{
	return n < 0 ? -errno : n;
}

/*
 * Finds the call's first path: the base itself for an empty one with AT_EMPTY_PATH, otherwise what it leads to. Of `flags`
 * AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH count. 0 or -errno.
 */
static int64_t find_target(struct actor *a, struct call *c, uint64_t flags, bool cached,
			   struct target *t)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC};
	struct walk_from from = {.agent = a->agent,
				 .root = c->h->root,
				 .base = c->h->fd,
				 .path = a->path,
				 .cached = cached};
	int len = fetch_text(c, c->s.buf, c->s.len, a->path);
	struct walk_cross x;

	*t = (struct target){.fd = c->h->fd};
	if (len < 0)
		return len;
	if (names_own_dir(a->path))
		return -ENOENT;
	if (!len) {
		t->base = true;
		return flags & AT_EMPTY_PATH ? 0 : -ENOENT;
	}
	if (flags & AT_SYMLINK_NOFOLLOW)
		how.flags |= O_NOFOLLOW;
	t->fd = walk_open(&from, &how, &x);
	if (t->fd == -EXDEV)
		return tell_cross(c, 1, &x);
	t->own = t->fd >= 0;
	return t->fd < 0 ? t->fd : 0;
}

/* Finds the place that the call's first (which = 1) or second path names. `text` holds the path. 0 or -errno. */
static int64_t find_place(struct actor *a, struct call *c, int which, struct place *place)
{
	struct handle *h = which == 1 ? c->h : c->h2;
	char *text = which == 1 ? a->path : a->path2;
	int len = which == 1 ? fetch_text(c, c->s.buf, c->s.len, text)
			     : fetch_text(c, c->s.buf2, c->s.len2, text);
	struct walk_from from = {.agent = a->agent, .root = h->root, .base = h->fd, .path = text};
	struct walk_cross x;
	int err;

	if (len <= 0)
		return len ? len : -ENOENT;
	if (names_own_dir(text))
		return -ENOENT;
	err = walk_place(&from, place, &x);
	return err == -EXDEV ? tell_cross(c, which, &x) : err;
}

static void proc_path(char *to, int fd)
{
	snprintf(to, PROC_PATH, "/proc/self/fd/%d", fd);
}

/* ---- looking ---- */

int stat_at(int fd, const char *path, int flags, uint32_t mask, struct sc_stat *to)
{
	struct statx x;

	if (statx(fd, path, flags, mask, &x) < 0)
		return -errno;
	*to = (struct sc_stat){
	    .mask = x.stx_mask,
	    .mode = x.stx_mode,
	    .ino = x.stx_ino,
	    .size = x.stx_size,
	    .blocks = x.stx_blocks,
	    .nlink = x.stx_nlink,
	    .blksize = x.stx_blksize,
	    .uid = x.stx_uid,
	    .gid = x.stx_gid,
	    .dev_major = x.stx_dev_major,
	    .dev_minor = x.stx_dev_minor,
	    .rdev_major = x.stx_rdev_major,
	    .rdev_minor = x.stx_rdev_minor,
	    .attributes = x.stx_attributes,
	    .attributes_mask = x.stx_attributes_mask,
	    .atime_sec = x.stx_atime.tv_sec,
	    .mtime_sec = x.stx_mtime.tv_sec,
	    .ctime_sec = x.stx_ctime.tv_sec,
	    .btime_sec = x.stx_btime.tv_sec,
	    .atime_nsec = x.stx_atime.tv_nsec,
	    .mtime_nsec = x.stx_mtime.tv_nsec,
	    .ctime_nsec = x.stx_ctime.tv_nsec,
	    .btime_nsec = x.stx_btime.tv_nsec,
	    .mnt_id = x.stx_mnt_id,
	    .dio_mem_align = x.stx_dio_mem_align,
	    .dio_offset_align = x.stx_dio_offset_align,
	};
	return 0;
}

#define STAT_FLAGS (AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE)

#define LOOK_ELSEWHERE 1

/*
 * The commonest case: the path is a name in the base directory, and no link that is to be followed. It cannot lead out of the
 * export, so the kernel may look it up, which saves opening it. LOOK_ELSEWHERE: it is something else. Otherwise 0 or -errno.
 */
static int64_t stat_name(struct actor *a, const struct call *c, struct sc_stat *st)
{
	const struct root *root = c->h->root;
	int len = fetch_text(c, c->s.buf, c->s.len, a->path);
	int flags = (int)c->s.arg0 & (AT_STATX_SYNC_TYPE | AT_NO_AUTOMOUNT);
	int err;

	if (len > 0 && names_own_dir(a->path))
		return -ENOENT;
	if (len <= 0 || strchr(a->path, '/') || !strcmp(a->path, ".") || !strcmp(a->path, ".."))
		return LOOK_ELSEWHERE;
	err = stat_at(c->h->fd, a->path, AT_SYMLINK_NOFOLLOW | flags,
		      (uint32_t)c->s.arg1 | STATX_TYPE, st);
	if (err)
		return err;
	/* stat_at() has filled it; the analyzer cannot see it from here. */
	/* NOLINTNEXTLINE(clang-analyzer-core.*) */
	if (S_ISLNK(st->mode) && !(c->s.arg0 & AT_SYMLINK_NOFOLLOW))
		return LOOK_ELSEWHERE;
	/* Something is mounted there. */
	if (makedev(st->dev_major, st->dev_minor) != root->dev)
		return LOOK_ELSEWHERE;
	return 0;
}

void show_number(const struct agent *agent, struct sc_stat *st)
{
	/* *st is filled; the analyzer cannot see it from here. */
	/* NOLINTNEXTLINE(clang-analyzer-core.*) */
	st->ino = numbers_shown(agent, makedev(st->dev_major, st->dev_minor), st->ino);
}

void hide_orphan(const struct handle *h, struct sc_stat *st)
{
	/* *st is filled; the analyzer cannot see it from here. */
	/* NOLINTNEXTLINE(clang-analyzer-core.*) */
	if (atomic_load_explicit(&((struct handle *)h)->orphan, memory_order_relaxed) && st->nlink)
		st->nlink--;
}

int64_t work_stat(struct actor *a, struct call *c, bool cached)
{
	struct sc_stat st;
	struct target t;
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)STAT_FLAGS || c->s.arg1 > UINT32_MAX || c->s.len2 < sizeof(st))
		return -EINVAL;
	err = cached ? LOOK_ELSEWHERE : stat_name(a, c, &st);
	if (err == LOOK_ELSEWHERE) {
		err = find_target(a, c, c->s.arg0, cached, &t);
		if (err)
			return err;
		err = stat_at(t.fd, "", AT_EMPTY_PATH | (int)(c->s.arg0 & AT_STATX_SYNC_TYPE),
			      (uint32_t)c->s.arg1, &st);
		if (!err && t.base)
			hide_orphan(c->h, &st);
		target_close(&t);
	}
	if (!err) {
		show_number(a->agent, &st);
		memcpy(channel_at(c->ch, c->s.buf2), &st, sizeof(st));
	}
	return err;
}

int64_t work_access(struct actor *a, struct call *c, bool cached)
{
	struct target t;
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) ||
	    c->s.arg1 & ~(uint64_t)(R_OK | W_OK | X_OK))
		return -EINVAL;
	err = find_target(a, c, c->s.arg0, cached, &t);
	if (err)
		return err;
	/* The effective ids are the caller's, the real ones the agent's: so always AT_EACCESS. */
	err = result(syscall(SYS_faccessat2, t.fd, "", (int)c->s.arg1, AT_EACCESS | AT_EMPTY_PATH));
	target_close(&t);
	return err;
}

int64_t work_readlink(struct actor *a, struct call *c, bool cached)
{
	char text[SC_PATH_BUF];
	struct target t;
	int64_t n;

	if (!c->s.len2)
		return -EINVAL;
	n = find_target(a, c, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, cached, &t);
	if (n)
		return n;
	n = readlinkat(t.fd, "", text, c->s.len2 < sizeof(text) ? c->s.len2 : sizeof(text));
	if (n < 0)
		n = errno == ENOENT && !t.base
			? -EINVAL
			: -errno; /* not a link: ENOENT is for an empty path */
	target_close(&t);
	if (n > 0)
		memcpy(channel_at(c->ch, c->s.buf2), text, (size_t)n);
	return n;
}

int64_t work_statfs(struct actor *a, struct call *c, bool cached)
{
	struct sc_statfs out;
	struct statfs fs;
	struct target t;
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)AT_EMPTY_PATH || c->s.len2 < sizeof(out))
		return -EINVAL;
	err = find_target(a, c, c->s.arg0, cached, &t);
	if (err)
		return err;
	err = result(fstatfs(t.fd, &fs));
	target_close(&t);
	if (err)
		return err;
	out = (struct sc_statfs){
	    .type = (uint64_t)fs.f_type,
	    .bsize = (uint64_t)fs.f_bsize,
	    .blocks = fs.f_blocks,
	    .bfree = fs.f_bfree,
	    .bavail = fs.f_bavail,
	    .files = fs.f_files,
	    .ffree = fs.f_ffree,
	    .namelen = (uint64_t)fs.f_namelen,
	    .frsize = (uint64_t)fs.f_frsize,
	    .flags = (uint64_t)fs.f_flags,
	};
	memcpy(&out.fsid, &fs.f_fsid, sizeof(out.fsid));
	memcpy(channel_at(c->ch, c->s.buf2), &out, sizeof(out));
	return 0;
}

/* ---- making and removing names ---- */

int64_t work_mkdir(struct actor *a, struct call *c, bool cached)
{
	struct place at;
	int64_t err = find_place(a, c, 1, &at);

	if (err)
		return err;
	err = name_make(a, c, &at, S_IFDIR | (mode_to_create(a, c->s.arg0) & 07777), 0, NULL);
	place_close(&at);
	return err;
}

/* What mknod(2) says to a type before it looks at the path. */
static int check_type(uint64_t mode)
{
	switch (mode & S_IFMT) {
	case 0:
	case S_IFREG:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return 0;
	case S_IFDIR:
		return -EPERM;
	default:
		return -EINVAL;
	}
}

int64_t work_mknod(struct actor *a, struct call *c, bool cached)
{
	struct place at;
	int64_t err = check_type(c->s.arg0);

	if (!err)
		err = find_place(a, c, 1, &at);
	if (err)
		return err;
	err = name_make(a, c, &at, mode_to_create(a, c->s.arg0), (unsigned int)c->s.arg1, NULL);
	place_close(&at);
	return err;
}

int64_t work_unlink(struct actor *a, struct call *c, bool cached)
{
	struct place at;
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)AT_REMOVEDIR)
		return -EINVAL;
	err = find_place(a, c, 1, &at);
	if (err)
		return err;
	err = name_remove(a, c, &at, (int)c->s.arg0);
	place_close(&at);
	return err;
}

int64_t work_symlink(struct actor *a, struct call *c, bool cached)
{
	int len = fetch_text(c, c->s.buf2, c->s.len2, a->path2);
	struct place at;
	int64_t err;

	if (len <= 0)
		return len ? len : -ENOENT;
	if (names_own_dir(a->path2))
		return -EPERM; /* nothing leads there */
	err = find_place(a, c, 1, &at);
	if (err)
		return err;
	err = name_make(a, c, &at, S_IFLNK | 0777, 0, a->path2);
	place_close(&at);
	return err;
}

/*
 * The second path has failed with `err`. A native call would have searched the first one's directory before, which here is
 * left to the final call: what that says comes first.
 */
static int64_t first_error(struct call *c, const struct place *first, int64_t err)
{
	struct stat st;

	if (fstat(first->dir, &st) == 0 && !S_ISDIR(st.st_mode))
		errno = ENOTDIR;
	else if (syscall(SYS_faccessat2, first->dir, "", X_OK, AT_EACCESS | AT_EMPTY_PATH) == 0)
		return err;
	c->cqe_flags &= ~(uint32_t)SC_CQE_F_CROSS2;
	return -errno;
}

int64_t work_rename(struct actor *a, struct call *c, bool cached)
{
	struct place from, to;
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	err = find_place(a, c, 1, &from);
	if (err)
		return err;
	err = find_place(a, c, 2, &to);
	if (err) {
		err = first_error(c, &from, err);
	} else {
		err = name_move(a, c, &from, &to, (unsigned int)c->s.arg0);
		place_close(&to);
	}
	place_close(&from);
	return err;
}

/* AT_EMPTY_PATH alone asks for a right that few have; with AT_SYMLINK_FOLLOW it stands for the program's "/proc/self/fd/N",
 * which anyone may link. */
static int make_link(int fd, const struct place *to, bool base)
{
	char proc[PROC_PATH];

	proc_path(proc, fd);
	return base ? linkat(fd, "", to->dir, to->name, AT_EMPTY_PATH)
		    : linkat(AT_FDCWD, proc, to->dir, to->name, AT_SYMLINK_FOLLOW);
}

int64_t work_link(struct actor *a, struct call *c, bool cached)
{
	struct target t;
	struct place to;
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	err = find_target(a, c,
			  (c->s.arg0 & AT_SYMLINK_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW) |
			      (c->s.arg0 & AT_EMPTY_PATH),
			  cached, &t);
	if (err)
		return err;
	err = find_place(a, c, 2, &to);
	if (err) {
		target_close(&t);
		return err;
	}
	err = name_link(a, c, t.fd, &to, make_link, t.base && !(c->s.arg0 & AT_SYMLINK_FOLLOW));
	place_close(&to);
	target_close(&t);
	return err;
}

/* ---- changing ---- */

/* Begins a recorded change of the target, whose identity it finds. 0 or -errno; record_end() and record_leave() in any case. */
static int64_t enter_target(struct actor *a, struct call *c, const struct target *t,
			    struct record *r, struct sc_fid *fid, struct record_what *w)
{
	memset(fid, 0, sizeof(*fid));
	if (retain_is_on(a->agent))
		keep_identify(a->agent, t->fd, fid);
	w->obj = fid;
	record_enter(a->agent, r, fid, NULL, NULL);
	return record_intent(r, c, w);
}

/* The end of a change of mode or owner: notes what became of them. */
static void end_changed(const struct target *t, struct record *r, int64_t res)
{
	struct stat st;

	if (r->rec && !res && fstat(t->fd, &st) == 0)
		record_became(r, NULL, st.st_mode, st.st_uid, st.st_gid);
	record_end(r, res);
	record_leave(r);
}

static uint64_t nanoseconds(const struct timespec *ts)
{
	return (uint64_t)ts->tv_sec * 1000000000u + (uint64_t)ts->tv_nsec;
}

int64_t work_truncate(struct actor *a, struct call *c, bool cached)
{
	struct record_what w = {.kind = SC_LOG_TRUNCATE, .size = c->s.off};
	char proc[PROC_PATH];
	struct change ch;
	struct record r;
	struct target t;
	struct sc_fid fid;
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)AT_EMPTY_PATH)
		return -EINVAL;
	if ((int64_t)c->s.off < 0)
		return -EINVAL;
	err = find_target(a, c, c->s.arg0, cached, &t);
	if (err)
		return err;
	proc_path(proc, t.fd);
	change_begin_fd(a->agent, t.fd, &ch);
	err = enter_target(a, c, &t, &r, &fid, &w);
	if (!err)
		err = result(t.base ? ftruncate(t.fd, (off_t)c->s.off)
				    : truncate(proc, (off_t)c->s.off));
	record_end(&r, err);
	record_leave(&r);
	if (!err && ch.o)
		object_changed(a->agent, ch.o, INT64_MAX, INT64_MAX);
	change_end(a->agent, &ch);
	target_close(&t);
	return err;
}

/* chmod of a link itself: Linux has none. */
static int64_t refuse_link(const struct target *t)
{
	struct stat st;

	if (fstat(t->fd, &st) < 0)
		return -errno;
	return S_ISLNK(st.st_mode) ? -EOPNOTSUPP : 0;
}

int64_t work_chmod(struct actor *a, struct call *c, bool cached)
{
	struct record_what w = {.kind = SC_LOG_CHMOD, .mode = (uint32_t)c->s.arg1 & 07777};
	char proc[PROC_PATH];
	struct record r;
	struct sc_fid fid;
	struct target t;
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	err = find_target(a, c, c->s.arg0, cached, &t);
	if (err)
		return err;
	err = refuse_link(&t);
	proc_path(proc, t.fd);
	if (!err) {
		err = enter_target(a, c, &t, &r, &fid, &w);
		if (!err)
			err = result(t.base && !(c->h->flags & O_PATH)
					 ? fchmod(t.fd, (mode_t)(c->s.arg1 & 07777))
					 : chmod(proc, (mode_t)(c->s.arg1 & 07777)));
		end_changed(&t, &r, err);
	}
	target_close(&t);
	return err;
}

int64_t work_chown(struct actor *a, struct call *c, bool cached)
{
	struct record_what w = {
	    .kind = SC_LOG_CHOWN, .uid = (uint32_t)c->s.arg1, .gid = (uint32_t)(c->s.arg1 >> 32)};
	struct record r;
	struct sc_fid fid;
	struct target t;
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	err = find_target(a, c, c->s.arg0, cached, &t);
	if (err)
		return err;
	err = enter_target(a, c, &t, &r, &fid, &w);
	if (!err)
		err = result(
		    fchownat(t.fd, "", (uid_t)c->s.arg1, (gid_t)(c->s.arg1 >> 32), AT_EMPTY_PATH));
	end_changed(&t, &r, err);
	target_close(&t);
	return err;
}

int64_t work_utimens(struct actor *a, struct call *c, bool cached)
{
	struct record_what w = {.kind = SC_LOG_UTIMENS};
	struct timespec ts[2];
	struct sc_times times;
	struct record r;
	struct sc_fid fid;
	struct target t;
	struct stat st;
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) ||
	    (c->s.len2 && c->s.len2 < sizeof(times)))
		return -EINVAL;
	if (c->s.len2) {
		channel_read(c->ch, c->s.buf2, &times, sizeof(times));
		ts[0] = (struct timespec){.tv_sec = times.atime_sec, .tv_nsec = times.atime_nsec};
		ts[1] = (struct timespec){.tv_sec = times.mtime_sec, .tv_nsec = times.mtime_nsec};
		if (ts[0].tv_nsec == UTIME_OMIT && ts[1].tv_nsec == UTIME_OMIT)
			return 0; /* as Linux: nothing to do, not even to look */
	}
	err = find_target(a, c, c->s.arg0, cached, &t);
	if (err)
		return err;
	err = enter_target(a, c, &t, &r, &fid, &w);
	/* The raw call: libc refuses an empty path here. */
	if (!err)
		err =
		    result(syscall(SYS_utimensat, t.fd, "", c->s.len2 ? ts : NULL, AT_EMPTY_PATH));
	if (r.rec && !err && fstat(t.fd, &st) == 0)
		record_times(&r, nanoseconds(&st.st_atim), nanoseconds(&st.st_mtim));
	record_end(&r, err);
	record_leave(&r);
	target_close(&t);
	return err;
}

/* ---- extended attributes ---- */

/* Most bytes of an attribute's name, and of a value or list (Linux's XATTR_NAME_MAX, XATTR_SIZE_MAX). */
#define NAME_MAX_BYTES	255u
#define VALUE_MAX_BYTES 65536u

/* Copies the attribute's name, from buf2. 0 or -errno. */
static int fetch_name(struct actor *a, struct call *c)
{
	int len;

	if (!c->s.len2 || c->s.len2 > NAME_MAX_BYTES)
		return -ERANGE;
	len = fetch_text(c, c->s.buf2, c->s.len2, a->path2);
	return len < 0 ? len : 0;
}

/* Finds the target, and what to call it in `proc`: empty if its descriptor itself serves. */
static int64_t find_attr_target(struct actor *a, struct call *c, struct target *t, char *proc)
{
	int64_t err;

	if (c->s.arg0 & ~(uint64_t)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	err = find_target(a, c, c->s.arg0, false, t);
	if (err)
		return err;
	proc[0] = '\0';
	if (!t->base || (c->h->flags & O_PATH))
		proc_path(proc, t->fd);
	return 0;
}

int64_t work_getxattr(struct actor *a, struct call *c, bool cached)
{
	char proc[PROC_PATH];
	struct target t;
	void *value;
	int64_t n = fetch_name(a, c);

	if (!in_arena(c, c->s.off, c->s.arg1))
		return -EFAULT;
	if (!n)
		n = find_attr_target(a, c, &t, proc);
	if (n)
		return n;
	value = c->s.arg1 ? channel_at(c->ch, (uint32_t)c->s.off) : NULL;
	n = result(proc[0] ? getxattr(proc, a->path2, value, c->s.arg1)
			   : fgetxattr(t.fd, a->path2, value, c->s.arg1));
	target_close(&t);
	return n;
}

/* For the log: whether the attribute was there before. */
static bool has_attribute(const struct agent *agent, const struct target *t, const char *proc,
			  const char *name)
{
	if (!retain_is_on(agent))
		return false;
	return (proc[0] ? getxattr(proc, name, NULL, 0) : fgetxattr(t->fd, name, NULL, 0)) >= 0;
}

int64_t work_setxattr(struct actor *a, struct call *c, bool cached)
{
	struct record_what w = {.kind = SC_LOG_SETXATTR, .data_len = (uint32_t)c->s.arg1};
	char proc[PROC_PATH];
	int flags = (int)c->s.arg2;
	struct record r;
	struct sc_fid fid;
	struct target t;
	void *value;
	int64_t n = fetch_name(a, c);

	if (c->s.arg2 & ~(uint64_t)(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	if (c->s.arg1 > VALUE_MAX_BYTES)
		return -E2BIG;
	if (!in_arena(c, c->s.off, c->s.arg1))
		return -EFAULT;
	if (!n)
		n = find_attr_target(a, c, &t, proc);
	if (n)
		return n;
	value = channel_at(c->ch, (uint32_t)c->s.off);
	w.data = value;
	w.name = a->path2;
	w.name_len = (uint32_t)strlen(a->path2);
	if (has_attribute(a->agent, &t, proc, a->path2))
		w.flags = SC_LOG_F_WAS;
	n = enter_target(a, c, &t, &r, &fid, &w);
	/* What was recorded is what is set, though the caller changes it meanwhile. */
	if (r.rec)
		value = (uint8_t *)r.rec + SC_LOG_DATA(r.rec);
	if (!n)
		n = result(proc[0] ? setxattr(proc, a->path2, value, c->s.arg1, flags)
				   : fsetxattr(t.fd, a->path2, value, c->s.arg1, flags));
	record_end(&r, n);
	record_leave(&r);
	target_close(&t);
	return n;
}

int64_t work_listxattr(struct actor *a, struct call *c, bool cached)
{
	char proc[PROC_PATH];
	struct target t;
	char *list = c->s.len2 ? channel_at(c->ch, c->s.buf2) : NULL;
	int64_t n = find_attr_target(a, c, &t, proc);

	if (n)
		return n;
	n = result(proc[0] ? listxattr(proc, list, c->s.len2) : flistxattr(t.fd, list, c->s.len2));
	target_close(&t);
	return n;
}

int64_t work_removexattr(struct actor *a, struct call *c, bool cached)
{
	struct record_what w = {.kind = SC_LOG_REMOVEXATTR};
	struct record r;
	struct sc_fid fid;
	char proc[PROC_PATH];
	struct target t;
	int64_t n = fetch_name(a, c);

	if (!n)
		n = find_attr_target(a, c, &t, proc);
	if (n)
		return n;
	w.name = a->path2;
	w.name_len = (uint32_t)strlen(a->path2);
	if (has_attribute(a->agent, &t, proc, a->path2))
		w.flags = SC_LOG_F_WAS;
	n = enter_target(a, c, &t, &r, &fid, &w);
	if (!n)
		n = result(proc[0] ? removexattr(proc, a->path2) : fremovexattr(t.fd, a->path2));
	record_end(&r, n);
	record_leave(&r);
	target_close(&t);
	return n;
}
