/* SPDX-License-Identifier: BSD-3-Clause */
/* names.c - see names.h. */
#include "names.h"

#include "keep.h"
#include "log.h"
#include "logrec.h"
#include "orphans.h"
#include "retain.h"
#include "session.h"
#include "storage_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

/* One name, as the log has it. */
struct name {
	const char *text; /* `len` bytes, without the slashes behind it */
	uint32_t len;
	struct sc_fid dir; /* len 0: changes there are not recorded */
	char bare[256];	   /* the text with a NUL */
};

static int64_t errno_or(long n)
{
	return n < 0 ? -errno : n;
}

/* What the log calls a place. */
static void describe(const struct agent *agent, const struct place *at, struct name *n)
{
	n->text = at->name;
	n->len = (uint32_t)strlen(at->name);
	while (n->len && n->text[n->len - 1] == '/')
		n->len--;
	memset(&n->dir, 0, sizeof(n->dir));
	n->bare[0] = '\0';
	/* What cannot be a name is refused by the kernel: nothing will change. */
	if (!logrec_name_ok((const uint8_t *)n->text, n->len))
		return;
	memcpy(n->bare, n->text, n->len);
	n->bare[n->len] = '\0';
	keep_identify(agent, at->dir, &n->dir);
}

static void identify(const struct agent *agent, const struct place *at, const struct name *n,
		     struct sc_fid *fid)
{
	retain_identify(agent, at->dir, n->bare, fid);
}

/*
 * A new object has been made: notes what it is. What cannot be known cannot be recorded; so it goes to the disk at once.
 */
static void note_made(struct agent *agent, struct record *r, int dir, const char *name,
		      const struct sc_fid *fid)
{
	struct stat st;

	if (fid->len &&
	    fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH)) == 0) {
		record_became(r, fid, st.st_mode, st.st_uid, st.st_gid);
		record_end(r, 0);
		return;
	}
	log_warning("a new file cannot be recorded: syncing instead");
	syncfs(agent->sync_fd);
	record_end(r, -EIO);
}

static void fill_owner(const struct call *c, struct record_what *w)
{
	const struct cred *cred = channel_session(c->ch)->cred;

	w->uid = cred->uid;
	w->gid = cred->gid;
}

/* ---- making ---- */

#define ACL_ACCESS  "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define ACL_BYTES   8192

/* Records an attribute that the new object `proc` has from the start, if it has it. */
static void note_attribute(struct record *r, const struct sc_fid *fid, const char *proc,
			   const char *attr)
{
	char value[ACL_BYTES];
	ssize_t n = getxattr(proc, attr, value, sizeof(value));
	struct record_what w = {.kind = SC_LOG_SETXATTR,
				.name = attr,
				.name_len = (uint32_t)strlen(attr),
				.data = value,
				.data_len = n > 0 ? (uint32_t)n : 0,
				.obj = fid};

	if (n <= 0)
		return;
	if (record_intent(r, NULL, &w) == 0)
		record_end(r, 0);
}

/* Directories hand ACLs on to what is made in them. */
static void note_acls(struct record *r, const struct place *at, const char *name,
		      const struct sc_fid *fid)
{
	char proc[32];
	int fd;

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", at->dir);
	if (!r->t || !fid->len || getxattr(proc, ACL_DEFAULT, NULL, 0) <= 0)
		return;
	fd = openat(at->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	note_attribute(r, fid, proc, ACL_ACCESS);
	note_attribute(r, fid, proc, ACL_DEFAULT);
	close(fd);
}

static int64_t make(const struct place *at, mode_t mode, unsigned int rdev, const char *text)
{
	if (S_ISDIR(mode))
		return errno_or(mkdirat(at->dir, at->name, mode & 07777));
	if (text)
		return errno_or(symlinkat(text, at->dir, at->name));
	/* The raw call, so that the device number goes through as the caller's kernel encodes it. */
	return errno_or(syscall(SYS_mknodat, at->dir, at->name, mode, rdev));
}

int64_t name_make(struct actor *a, struct call *c, const struct place *at, mode_t mode,
		  unsigned int rdev, const char *text)
{
	struct record_what w = {.kind = SC_LOG_CREATE, .mode = mode, .rdev = rdev};
	struct record r;
	struct sc_fid fid;
	struct name n;
	int64_t err;

	if (!retain_is_on(a->agent))
		return make(at, mode, rdev, text);
	describe(a->agent, at, &n);
	record_enter(a->agent, &r, &n.dir, NULL, NULL);
	w.name = n.text;
	w.name_len = n.len;
	w.dir = &n.dir;
	w.data = text;
	w.data_len = text ? (uint32_t)strlen(text) : 0;
	if (!(mode & S_IFMT))
		w.mode |= S_IFREG;
	if (S_ISDIR(mode))
		w.flags = SC_LOG_F_DIR;
	fill_owner(c, &w);
	err = record_intent(&r, c, &w);
	if (!err) {
		err = make(at, mode, rdev, text);
		if (!err && r.rec) {
			identify(a->agent, at, &n, &fid);
			note_made(a->agent, &r, at->dir, n.bare, &fid);
			if (!S_ISLNK(mode))
				note_acls(&r, at, n.bare, &fid);
		} else {
			record_end(&r, err);
		}
	}
	record_leave(&r);
	return err;
}

int name_open(struct actor *a, struct call *c, const struct place *at, struct open_how *how,
	      bool *made, struct sc_fid *fid)
{
	struct record_what w = {.kind = SC_LOG_CREATE, .mode = S_IFREG | (uint32_t)how->mode};
	struct record r;
	struct name n;
	int64_t fd;

	*made = false;
	fid->len = 0;
	describe(a->agent, at, &n);
	record_enter(a->agent, &r, &n.dir, NULL, NULL);
	if (n.dir.len)
		identify(a->agent, at, &n, fid);
	w.name = n.text;
	w.name_len = n.len;
	w.dir = &n.dir;
	fill_owner(c, &w);
	if (!n.dir.len || fid->len) { /* what is there will not be made */
		fd = fid->len && !(how->flags & O_EXCL)
			 ? -EAGAIN
			 : errno_or(syscall(SYS_openat2, at->dir, at->name, how, sizeof(*how)));
		record_leave(&r);
		return (int)fd;
	}
	fd = record_intent(&r, c, &w);
	if (!fd) {
		struct open_how excl = *how;

		excl.flags |= O_EXCL;
		fd = errno_or(syscall(SYS_openat2, at->dir, at->name, &excl, sizeof(excl)));
		*made = fd >= 0;
		if (*made && r.rec) {
			keep_identify(a->agent, (int)fd, fid);
			note_made(a->agent, &r, (int)fd, "", fid);
			note_acls(&r, at, n.bare, fid);
		} else {
			record_end(&r, fd);
		}
	}
	record_leave(&r);
	return (int)fd;
}

int name_anonymous(struct actor *a, struct call *c, int dir, struct open_how *how,
		   struct sc_fid *fid)
{
	struct record_what w = {.kind = SC_LOG_CREATE,
				.mode = S_IFREG | (uint32_t)how->mode,
				.flags = SC_LOG_F_ANON | SC_LOG_F_KEPT};
	const struct cred *worn = a->wardrobe.now;
	struct sc_fid in;
	struct record r;
	int64_t fd;

	/* Its one name will be among the orphans: name_link() knows who may have another one. */
	how->flags &= ~(uint64_t)O_EXCL;
	memset(fid, 0, sizeof(*fid));
	keep_identify(a->agent, dir, &in);
	record_enter(a->agent, &r, &in, NULL, NULL);
	w.dir = &in;
	fill_owner(c, &w);
	fd = record_intent(&r, NULL, &w);
	if (!fd) {
		fd = errno_or(syscall(SYS_openat2, dir, ".", how, sizeof(*how)));
		if (fd >= 0 && r.rec) {
			keep_identify(a->agent, (int)fd, fid);
			creds_wear(&a->wardrobe, NULL);
			if (fid->len && a->agent->orphans)
				orphan_adopt(a->agent, (int)fd, fid);
			creds_wear(&a->wardrobe, worn);
			note_made(a->agent, &r, (int)fd, "", fid);
		} else {
			record_end(&r, fd);
		}
	}
	record_leave(&r);
	return (int)fd;
}

/* ---- removing, moving, linking ---- */

int64_t name_remove(struct actor *a, struct call *c, const struct place *at, int flags)
{
	struct record_what w = {.kind = SC_LOG_UNLINK};
	struct sc_fid fid = {0};
	struct victim v;
	struct record r;
	struct name n;
	int64_t err;

	if (!retain_is_on(a->agent))
		return errno_or(unlinkat(at->dir, at->name, flags));
	describe(a->agent, at, &n);
	record_enter(a->agent, &r, &n.dir, NULL, NULL);
	if (n.dir.len)
		identify(a->agent, at, &n, &fid);
	if (!fid.len) { /* there is nothing to be removed, or it is not on this file system */
		err = errno_or(unlinkat(at->dir, at->name, flags));
		record_leave(&r);
		return err;
	}
	victim_begin(a, &v, &fid, at->dir, n.bare);
	w.flags = (flags & AT_REMOVEDIR ? SC_LOG_F_DIR : 0u) | (v.kept ? SC_LOG_F_KEPT : 0u);
	w.name = n.text;
	w.name_len = n.len;
	w.dir = &n.dir;
	w.obj = &fid;
	err = record_intent(&r, c, &w);
	if (!err)
		err = errno_or(unlinkat(at->dir, at->name, flags));
	record_end(&r, err);
	victim_end(a, &v, !err);
	record_leave(&r);
	return err;
}

/* With RENAME_WHITEOUT a device remains at the old name. */
static void note_whiteout(struct actor *a, const struct place *from, const struct name *n)
{
	struct record_what w = {.kind = SC_LOG_CREATE,
				.mode = S_IFCHR,
				.name = n->text,
				.name_len = n->len,
				.dir = &n->dir};
	struct record r = {.t = a->agent->retain};
	struct sc_fid fid;

	/* The stripes are the rename's, which has not left. */
	r.more = true;
	if (record_intent(&r, NULL, &w))
		return;
	identify(a->agent, from, n, &fid);
	note_made(a->agent, &r, from->dir, n->bare, &fid);
}

/* The rename's flags in the log. */
static uint32_t move_flags(unsigned int flags, const struct sc_fid *obj, const struct place *from,
			   const struct name *n, const struct victim *v)
{
	uint32_t out = flags & RENAME_EXCHANGE ? SC_LOG_F_EXCHANGE : 0;
	struct stat st;

	if (obj->len && fstatat(from->dir, n->bare, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISDIR(st.st_mode))
		out |= SC_LOG_F_DIR;
	return out | (v->kept ? SC_LOG_F_KEPT : 0u);
}

int64_t name_move(struct actor *a, struct call *c, const struct place *from, const struct place *to,
		  unsigned int flags)
{
	struct record_what w = {.kind = SC_LOG_RENAME};
	struct sc_fid obj = {0}, other = {0};
	struct victim v = {0};
	struct record r;
	struct name n, m;
	int64_t err = 0;

	if (!retain_is_on(a->agent))
		return errno_or(
		    syscall(SYS_renameat2, from->dir, from->name, to->dir, to->name, flags));
	describe(a->agent, from, &n);
	describe(a->agent, to, &m);
	record_enter(a->agent, &r, &n.dir, &m.dir, NULL);
	if (r.t) {
		identify(a->agent, from, &n, &obj);
		identify(a->agent, to, &m, &other);
	}
	/* Two names of one file: the kernel leaves both as they are. */
	if (obj.len && memcmp(&obj, &other, sizeof(obj)) != 0) {
		if (other.len && !(flags & (RENAME_EXCHANGE | RENAME_NOREPLACE)))
			victim_begin(a, &v, &other, to->dir, m.bare);
		w.flags = move_flags(flags, &obj, from, &n, &v);
		w.name = n.text;
		w.name_len = n.len;
		w.name2 = m.text;
		w.name2_len = m.len;
		w.dir = &n.dir;
		w.dir2 = &m.dir;
		w.obj = &obj;
		w.obj2 = other.len ? &other : NULL;
		err = record_intent(&r, c, &w);
	}
	if (!err)
		err = errno_or(
		    syscall(SYS_renameat2, from->dir, from->name, to->dir, to->name, flags));
	if (r.rec && !err && flags & RENAME_WHITEOUT) {
		record_end(&r, err);
		note_whiteout(a, from, &n);
	}
	record_end(&r, err);
	victim_end(a, &v, !err);
	record_leave(&r);
	return err;
}

int64_t name_link(struct actor *a, struct call *c, int fd, const struct place *to,
		  int (*make_link)(int fd, const struct place *to, bool base), bool base)
{
	struct record_what w = {.kind = SC_LOG_LINK};
	const struct cred *worn = a->wardrobe.now;
	enum orphan orphan;
	struct record r;
	struct sc_fid fid;
	struct name n;
	int64_t err;

	if (!retain_is_on(a->agent))
		return errno_or(make_link(fd, to, base));
	keep_identify(a->agent, fd, &fid);
	if (!fid.len) /* of another file system: the kernel refuses it */
		return errno_or(make_link(fd, to, base));
	orphan = orphan_state(a->agent, &fid);
	if (orphan == ORPHAN_UNLINKED)
		return -ENOENT; /* as the kernel says to a file without a name */
	describe(a->agent, to, &n);
	record_enter(a->agent, &r, &n.dir, NULL, NULL);
	w.name = n.text;
	w.name_len = n.len;
	w.dir = &n.dir;
	w.obj = &fid;
	err = record_intent(&r, c, &w);
	if (!err)
		err = errno_or(make_link(fd, to, base));
	record_end(&r, err);
	if (!err && orphan == ORPHAN_ANON) {
		creds_wear(&a->wardrobe, NULL);
		orphan_named(a->agent, &fid);
		creds_wear(&a->wardrobe, worn);
	}
	record_leave(&r);
	return err;
}
