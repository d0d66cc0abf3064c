/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay_names.c - every name that the log touches comes to hold what it has to.
 *
 * Directories are held open by replay_dir(), a few at a time, and files are opened by their identity when they are needed, so that
 * descriptors never run out. Nothing is looked up but single names in such directories, without following links.
 */
#include "replay_priv.h"

#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef FILEID_BTRFS_WITHOUT_PARENT
#define FILEID_BTRFS_WITHOUT_PARENT 0x4d
#endif
#define FILEID_INO32  1
#define FILEID_XFS_64 0x81

#define DIR_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

struct kernel_fid {
	struct file_handle h;
	uint8_t bytes[SC_FID_MAX + 2];
};

/* The identity of what `name` in dir is, no link followed; "" : of dir itself. 0 or -errno; -EXDEV: something is mounted there. */
static int identify(const struct sim *s, int dir, const char *name, struct sc_fid *fid)
{
	struct kernel_fid k = {.h.handle_bytes = SC_FID_MAX};
	int mount_id;

	if (name_to_handle_at(dir, name, &k.h, &mount_id, name[0] ? 0 : AT_EMPTY_PATH) < 0)
		return -errno;
	if (mount_id != s->mount_id)
		return -EXDEV;
	memset(fid, 0, sizeof(*fid));
	fid->type = (uint8_t)k.h.handle_type;
	fid->len = (uint8_t)k.h.handle_bytes;
	memcpy(fid->bytes, k.h.f_handle, fid->len);
	return (unsigned int)k.h.handle_type > UINT8_MAX ? -EOVERFLOW : 0;
}

int replay_open(const struct sim *s, const struct sc_fid *fid, int flags)
{
	struct kernel_fid k = {.h = {.handle_bytes = fid->len, .handle_type = fid->type}};

	memcpy(k.h.f_handle, fid->bytes, fid->len);
	return open_by_handle_at(s->mount, &k.h, flags | O_NOFOLLOW | O_CLOEXEC);
}

static bool same_fid(const struct sc_fid *a, const struct sc_fid *b)
{
	return a->len == b->len && a->type == b->type && !memcmp(a->bytes, b->bytes, a->len);
}

uint64_t replay_number_of(const struct sc_fid *fid)
{
	uint64_t n = 0;

	if (fid->type == FILEID_INO32 && fid->len >= 4)
		memcpy(&n, fid->bytes, 4);
	else if ((fid->type == FILEID_XFS_64 || fid->type == FILEID_BTRFS_WITHOUT_PARENT) &&
		 fid->len >= 8)
		memcpy(&n, fid->bytes, 8);
	return n;
}

/* The name with a NUL, for the kernel. `to` has 256 bytes: names were checked. */
static const char *text_of(const struct name *n, char *to)
{
	memcpy(to, n->text, n->len);
	to[n->len] = '\0';
	return to;
}

static bool fail_name(struct sim *s, const struct name *n, const char *what)
{
	char shown[64];
	int err = errno;

	replay_show(n->text, n->len, shown);
	return replay_fail_at(s, n->rec, "%s \"%s\": %s", what, shown, strerror(err));
}

/* ---- directories ---- */

/* True if the directory is the root or below it. */
static bool is_inside(const struct sim *s, int fd)
{
	struct stat st, up;
	int at = fcntl(fd, F_DUPFD_CLOEXEC, 0), next;

	if (at < 0 || fstat(at, &st) < 0) {
		if (at >= 0)
			close(at);
		return false;
	}
	for (;;) {
		if (st.st_dev == s->dev && st.st_ino == s->ino)
			break;
		next = st.st_dev == s->dev ? openat(at, "..", DIR_FLAGS) : -1;
		close(at);
		at = next;
		if (at < 0 || fstat(at, &up) < 0 ||
		    (up.st_ino == st.st_ino && up.st_dev == st.st_dev)) {
			if (at >= 0)
				close(at);
			return false;
		}
		st = up;
	}
	close(at);
	return true;
}

/* A descriptor of a directory that is there; stays the simulation's. -1: the replay has failed. */
static int dir_of(struct sim *s, struct object *dir)
{
	size_t at = ((size_t)dir >> 6) % REPLAY_FDS;
	int fd;

	if (s->fds[at].dir == dir)
		return s->fds[at].fd;
	fd = replay_open(s, &dir->now, DIR_FLAGS);
	if (fd < 0) {
		replay_fail(s, "opening a directory by its identity: %s", strerror(errno));
		return -1;
	}
	if (!dir->inside && !is_inside(s, fd)) {
		close(fd);
		replay_fail(s, "the log is damaged: it names a directory outside of the export");
		return -1;
	}
	dir->inside = true;
	if (s->fds[at].dir)
		close(s->fds[at].fd);
	s->fds[at].dir = dir;
	s->fds[at].fd = fd;
	return fd;
}

void replay_close_all(struct sim *s)
{
	for (size_t i = 0; i < REPLAY_FDS; i++)
		if (s->fds[i].dir)
			close(s->fds[i].fd);
	if (s->own >= 0)
		close(s->own);
	if (s->stage >= 0)
		close(s->stage);
	if (s->orphans >= 0)
		close(s->orphans);
	if (s->mount >= 0)
		close(s->mount);
}

/* Opens a directory of ours, made if it is not there. -1: failed. */
static int own_dir(struct sim *s, int in, const char *name)
{
	int fd;

	if (mkdirat(in, name, 0700) < 0 && errno != EEXIST) {
		replay_fail(s, "making the directory %s: %s", name, strerror(errno));
		return -1;
	}
	fd = openat(in, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		replay_fail(s, "opening the directory %s: %s", name, strerror(errno));
	return fd;
}

bool replay_set_up(struct sim *s)
{
	struct kernel_fid k = {.h.handle_bytes = SC_FID_MAX};
	struct stat st;

	s->mount = openat(s->r->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->mount < 0 || fstat(s->mount, &st) < 0)
		return replay_fail(s, "opening the export's root: %s", strerror(errno));
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	if (name_to_handle_at(s->mount, "", &k.h, &s->mount_id, AT_EMPTY_PATH) < 0)
		return replay_fail(s, "the file system gives its files no identities: %s",
				   strerror(errno));
	s->own = own_dir(s, s->mount, SC_OWN_DIR);
	if (s->own < 0)
		return false;
	s->stage = own_dir(s, s->own, SC_OWN_STAGE);
	s->orphans = s->stage < 0 ? -1 : own_dir(s, s->own, SC_OWN_ORPHANS);
	if (s->orphans < 0)
		return false;
	if (identify(s, s->mount, "", &s->root_fid) || identify(s, s->own, "", &s->own_fid) ||
	    identify(s, s->stage, "", &s->stage_fid))
		return replay_fail(s, "the directory " SC_OWN_DIR
				      " is not on the file system of the export's root");
	return true;
}

/* ---- resolve ---- */

/* True if `fd` can be what the record made. (A number that was given away again may name something else.) */
static bool is_as_made(int fd, const struct sc_log_rec *create, const struct statx *st)
{
	char text[4096];
	ssize_t n;

	if ((st->stx_mode & S_IFMT) != (create->mode & S_IFMT))
		return false;
	if (S_ISCHR(st->stx_mode) || S_ISBLK(st->stx_mode))
		return makedev(st->stx_rdev_major, st->stx_rdev_minor) == create->rdev;
	if (!S_ISLNK(st->stx_mode))
		return true;
	n = readlinkat(fd, "", text, sizeof(text));
	return n == (ssize_t)create->data_len &&
	       !memcmp(text, (const uint8_t *)create + SC_LOG_DATA(create), (size_t)n);
}

/* Looks whether the object is there as `fid`; notes what is known of it. False: the replay has failed. */
static bool look(struct sim *s, struct object *o, const struct sc_fid *fid)
{
	struct statx st;
	int fd = replay_open(s, fid, O_PATH);

	if (fd < 0)
		return errno == ESTALE || errno == ENOENT || errno == EINVAL ||
		       replay_fail(s, "opening a file by its identity: %s", strerror(errno));
	if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) < 0) {
		close(fd);
		return replay_fail(s, "looking at a file: %s", strerror(errno));
	}
	if (st.stx_nlink && (!o->create || is_as_made(fd, o->create, &st))) {
		o->now = *fid;
		o->type = st.stx_mode & S_IFMT;
		o->disk_mode = st.stx_mode;
		o->disk_uid = st.stx_uid;
		o->disk_gid = st.stx_gid;
		o->disk_mtime = (uint64_t)st.stx_mtime.tv_sec * 1000000000u + st.stx_mtime.tv_nsec;
		if (st.stx_attributes & (STATX_ATTR_APPEND | STATX_ATTR_IMMUTABLE))
			o->has_flags = true; /* what is to come may need them away */
	}
	close(fd);
	if (o->type && o->is_dir && !S_ISDIR(o->type))
		return replay_fail(s, "the log is damaged: what it says is a directory is none");
	if (S_ISDIR(o->type))
		o->is_dir =
		    true; /* the log says so of what it moves, but not of what is exchanged */
	return true;
}

/* The identity by which a former attempt knew what it had made once more, or NULL. */
static const struct sc_fid *noted(const struct object *o)
{
	const struct sc_log_rec *rec = o->create;

	if (!rec || !rec->again_check || !rec->obj2.len || rec->obj2.len > SC_FID_MAX ||
	    rec->again_check != logrec_again_check(rec))
		return NULL;
	return &rec->obj2;
}

/* Objects that a former attempt made once more, by their notes. */
static bool resolve_noted(struct sim *s)
{
	for (struct object *o = s->objects; o; o = o->next) {
		const struct sc_fid *fid = noted(o);

		if (!fid)
			continue;
		if (!look(s, o, fid))
			return false;
		if (!o->now.len) { /* lost again: the identity may become another's */
			__atomic_store_n(&o->create->again_check, 0, __ATOMIC_RELEASE);
			continue;
		}
		o->made = true;
		replay_index_now(s, o);
	}
	return true;
}

/* An attempt gave this identity to another object: so the one that had it first was lost. Whether that one is there does not
 * matter: the number was free. */
static bool was_given_away(const struct sim *s, const struct object *o)
{
	return o->create && replay_by_now(s, &o->fid);
}

static bool resolve_rest(struct sim *s)
{
	for (struct object *o = s->objects; o; o = o->next) {
		if (o->now.len || was_given_away(s, o))
			continue;
		if (!look(s, o, &o->fid))
			return false;
		if (o->now.len)
			replay_index_now(s, o);
	}
	return true;
}

static bool has_own_name(const struct sim *s, const struct name *n)
{
	if (same_fid(&n->dir->fid, &s->own_fid) || same_fid(&n->dir->fid, &s->stage_fid))
		return true;
	return same_fid(&n->dir->fid, &s->root_fid) && n->len == strlen(SC_OWN_DIR) &&
	       !memcmp(n->text, SC_OWN_DIR, n->len);
}

static void count_done(struct sim *s, struct sc_log_rec *rec)
{
	rec->res = 0;
	__atomic_store_n(&rec->state, SC_LOG_DONE, __ATOMIC_RELEASE);
	s->r->counted_done++;
}

static bool is_gone_for_good(const struct object *o)
{
	return o && !o->create && !o->now.len;
}

/* True if a file that was made after the record has the number of the one whose name it takes: so that one was gone. (Both
 * have been seen; not both can have it.) */
static bool was_succeeded(const struct sim *s, const struct intent *i)
{
	uint64_t number = i->gone ? replay_number_of(&i->gone->fid) : 0;

	for (struct object *o = number ? s->objects : NULL; o; o = o->next)
		if (o->create && o->create->seq > i->rec->seq &&
		    replay_number_of(&o->fid) == number)
			return true;
	return false;
}

/* What nobody was told, and cannot be taken back any more, has happened. */
static void settle_intents(struct sim *s)
{
	for (struct intent *i = s->intents; i; i = i->next) {
		if (!is_gone_for_good(i->gone) && !was_succeeded(s, i))
			continue;
		i->from->holds = NULL;
		if (i->to)
			i->to->holds = i->moves;
		count_done(s, i->rec);
	}
}

/* What should be there is not, and the log does not say how to make it. */
static void drop_lost(struct sim *s)
{
	for (struct name *n = s->all_names; n; n = n->next) {
		if (!n->holds)
			continue;
		if (is_gone_for_good(n->holds))
			replay_lost(s, n, "the file is gone");
		else if (is_gone_for_good(n->dir))
			replay_lost(s, n, "its directory is gone");
		else
			continue;
		n->holds = NULL;
	}
}

bool replay_resolve(struct sim *s)
{
	for (struct name *n = s->all_names; n; n = n->next)
		if (has_own_name(s, n))
			return replay_fail_at(s, n->rec, "is about the agent's own directory");
	if (!replay_count_names(s) || !resolve_noted(s) || !resolve_rest(s))
		return false;
	settle_intents(s);
	drop_lost(s);
	for (struct object *o = s->objects; o; o = o->next)
		o->opens = o->kept && s->r->is_open && s->r->is_open(s->r->arg, &o->fid);
	return replay_count_names(s);
}

/* ---- clear ---- */

static const char *stage_name(uint32_t number, char *to)
{
	sprintf(to, "%08x", number);
	return to;
}

/* A stage of a former attempt: what of it lives is known, the rest is nobody's. */
static bool enter_stage(struct sim *s)
{
	int fd = fcntl(s->stage, F_DUPFD_CLOEXEC, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return replay_fail(s, "reading the stage: %s", strerror(errno));
	}
	rewinddir(d);
	while ((e = readdir(d))) {
		uint32_t number = (uint32_t)strtoul(e->d_name, NULL, 16);
		struct object *o;
		struct sc_fid fid;
		char mine[16];

		if (strcmp(e->d_name, stage_name(number, mine)) != 0 || !number)
			continue;
		if (number > s->stage_last)
			s->stage_last = number;
		o = identify(s, s->stage, e->d_name, &fid) ? NULL : replay_by_now(s, &fid);
		if (o)
			o->stage = number;
	}
	closedir(d);
	return true;
}

static bool lives(const struct object *o)
{
	return o && (o->nnames || o->opens);
}

/* What is there has to go: kept in the stage if it lives, or is a directory (which may hold what lives). */
static bool displace(struct sim *s, int dir, const struct name *n, const char *text,
		     struct object *o)
{
	char stage[16];
	struct stat st;
	bool is_dir = o && o->is_dir;

	if (!o) {
		if (fstatat(dir, text, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return fail_name(s, n, "looking at");
		is_dir = S_ISDIR(st.st_mode);
	}
	s->r->names++;
	if (!is_dir && (!lives(o) || o->stage)) {
		if (unlinkat(dir, text, 0) < 0)
			return fail_name(s, n, "removing");
		return true;
	}
	if (renameat2(dir, text, s->stage, stage_name(++s->stage_last, stage), RENAME_NOREPLACE) <
	    0)
		return fail_name(s, n, "putting aside");
	if (o) {
		o->stage = s->stage_last;
		o->aside = o->is_dir;
	}
	return true;
}

static bool clear_name(struct sim *s, struct name *n)
{
	char text[256];
	struct sc_fid fid;
	struct object *o;
	int dir, err;

	if (!n->dir->now.len)
		return true;
	dir = dir_of(s, n->dir);
	if (dir < 0)
		return false;
	err = identify(s, dir, text_of(n, text), &fid);
	if (err == -ENOENT)
		return true;
	if (err) {
		errno = -err;
		return fail_name(s, n, "looking at");
	}
	o = replay_by_now(s, &fid);
	n->right = o && o == n->holds;
	return n->right || displace(s, dir, n, text, o);
}

bool replay_clear(struct sim *s)
{
	if (!enter_stage(s))
		return false;
	for (struct name *n = s->all_names; n; n = n->next)
		if (!clear_name(s, n))
			return false;
	return true;
}

/* ---- make ---- */

/* Makes a file as the record says. 0 or -1 with errno. */
static int make_as(int dir, const char *name, const struct sc_log_rec *rec)
{
	const uint8_t *text = (const uint8_t *)rec + SC_LOG_DATA(rec);
	char link[4096];

	switch (rec->mode & S_IFMT) {
	case S_IFDIR:
		return mkdirat(dir, name, rec->mode & 07777);
	case S_IFLNK:
		memcpy(link, text, rec->data_len);
		link[rec->data_len] = '\0';
		return symlinkat(link, dir, name);
	default:
		return mknodat(dir, name, rec->mode, rec->rdev);
	}
}

/* A name of the object whose directory is there, or NULL. */
static struct name *where_to_make(const struct object *o)
{
	struct name *n = o->names;

	while (n && !n->dir->now.len)
		n = n->more;
	return n;
}

static void note(struct object *o)
{
	o->create->obj2 = o->now;
	__atomic_store_n(&o->create->again_check, logrec_again_check(o->create), __ATOMIC_RELEASE);
}

static bool make(struct sim *s, struct object *o)
{
	struct name *n = where_to_make(o);
	int dir = n ? dir_of(s, n->dir) : s->stage;
	char text[256];
	int err;

	if (dir < 0)
		return false;
	if (n)
		text_of(n, text);
	else
		stage_name(++s->stage_last, text);
	if (make_as(dir, text, o->create) < 0)
		return replay_fail_at(s, o->create, "cannot be made once more: %s",
				      strerror(errno));
	err = identify(s, dir, text, &o->now);
	if (err) {
		o->now.len = 0;
		return replay_fail_at(s, o->create, "cannot be identified: %s", strerror(-err));
	}
	note(o);
	o->made = true;
	o->type = o->create->mode & S_IFMT;
	o->inside = o->is_dir;
	if (n)
		n->right = true;
	else
		o->stage = s->stage_last;
	s->r->names++;
	return true;
}

bool replay_make(struct sim *s)
{
	for (struct object *o = s->objects; o; o = o->next)
		if (o->create && !o->now.len && lives(o) && !make(s, o))
			return false;
	return true;
}

/* ---- place ---- */

static bool link_file(struct sim *s, const struct name *n, struct object *o, int dir)
{
	char text[256];
	int fd = replay_open(s, &o->now, O_PATH);
	int err;

	if (fd < 0)
		return fail_name(s, n, "opening what has to be");
	err = linkat(fd, "", dir, text_of(n, text), AT_EMPTY_PATH) < 0 ? errno : 0;
	close(fd);
	errno = err;
	return !err || fail_name(s, n, "linking");
}

static bool place_dir(struct sim *s, const struct name *n, struct object *o, int dir)
{
	char text[256], stage[16];

	if (!o->stage) {
		replay_lost(s, n, "the directory is at none of its names");
		return true;
	}
	if (renameat2(s->stage, stage_name(o->stage, stage), dir, text_of(n, text),
		      RENAME_NOREPLACE) < 0)
		return fail_name(s, n, "moving the directory");
	o->stage = 0;
	return true;
}

static bool place_name(struct sim *s, struct name *n)
{
	int dir;

	if (!n->dir->now.len) {
		replay_lost(s, n, "its directory is gone");
		return true;
	}
	dir = dir_of(s, n->dir);
	if (dir < 0)
		return false;
	s->r->names++;
	n->right = true;
	return n->holds->is_dir ? place_dir(s, n, n->holds, dir) : link_file(s, n, n->holds, dir);
}

/* What is open and has no name gets one among the orphans. */
static bool keep_orphan(struct sim *s, const struct object *o)
{
	char name[REPLAY_ORPHAN_NAME];
	int fd, err;

	replay_orphan_name(&o->now, name);
	fd = replay_open(s, &o->now, O_PATH);
	if (fd < 0)
		return replay_fail(s, "opening an open file without name: %s", strerror(errno));
	err = linkat(fd, "", s->orphans, name, AT_EMPTY_PATH) < 0 ? errno : 0;
	close(fd);
	return !err || err == EEXIST ||
	       replay_fail(s, "keeping an open file without name: %s", strerror(err));
}

bool replay_place(struct sim *s)
{
	for (struct name *n = s->all_names; n; n = n->next)
		if (n->holds && !n->right && !place_name(s, n))
			return false;
	for (struct object *o = s->objects; o; o = o->next)
		if (o->opens && !o->nnames && !o->is_dir && o->now.len && !keep_orphan(s, o))
			return false;
	return true;
}

/* Everything that lives has its place; what is left is dead. */
bool replay_empty_stage(struct sim *s)
{
	int fd = fcntl(s->stage, F_DUPFD_CLOEXEC, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return replay_fail(s, "reading the stage: %s", strerror(errno));
	}
	rewinddir(d);
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (!unlinkat(s->stage, e->d_name, 0) ||
		    !unlinkat(s->stage, e->d_name, AT_REMOVEDIR))
			continue;
		/* Not ours to remove. */
		s->r->lost++;
		log_warning("recovery: %s/%s/%s holds what the log does not know: left there (%m)",
			    SC_OWN_DIR, SC_OWN_STAGE, e->d_name);
	}
	closedir(d);
	return true;
}
