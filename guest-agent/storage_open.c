/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * storage_open.c - roots, opening and closing, and what belongs to a descriptor.
 *
 * What is opened: regular files, directories, and anything as O_PATH. A FIFO would block a worker until a peer came, and
 * a device would be the guest's: both are refused (EOPNOTSUPP, EACCES); the guest mounts its disk nodev besides. To find
 * that out without blocking, files are opened with O_NONBLOCK, which is taken back for regular files.
 */
#include "keep.h"
#include "locks.h"
#include "log.h"
#include "names.h"
#include "objects.h"
#include "orphans.h"
#include "retain.h"
#include "storage_ops.h"
#include "workers.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What open(2) knows, and what of it goes with O_PATH. */
#define OPEN_FLAGS                                                                               \
	(O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_DSYNC |   \
	 O_ASYNC | O_DIRECT | 0100000 /* O_LARGEFILE */ | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | \
	 O_CLOEXEC | O_SYNC | O_PATH | O_TMPFILE)
#define PATH_FLAGS  (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define SETFL_FLAGS (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME)

/* Makes the file `fd` a handle of the call's session. Returns the entry, unpublished, or NULL with *err. */
static struct handle *new_handle(struct actor *a, struct call *c, int fd, struct root *root,
				 const struct sc_stat *st, int *err)
{
	struct handle *h = handle_new(a->agent->handles, fd, channel_session(c->ch), root, err);

	if (!h)
		return NULL;
	/* Every successful open has filled *st; the analyzer cannot see it from here. */
	/* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
	h->type = (st->mode & S_IFMT) >> 12;
	h->dev = (uint64_t)st->dev_major << 32 | st->dev_minor;
	h->ino = st->ino;
	c->cqe_flags |= h->type << SC_CQE_TYPE_SHIFT;
	return h;
}

/* Publishes a handle whose session holds it under `ticket`. Returns its name or -EBADF. */
static int64_t publish(struct actor *a, struct call *c, struct handle *h)
{
	struct agent *agent = a->agent;
	int64_t name;

	keep_opened(agent, c, h, handle_next_id(agent->handles, h));
	handle_publish(agent->handles, h);
	c->h2 = h; /* the caller's user is dropped when the call is finished */
	name = (int64_t)handle_id(agent->handles, h);
	if (!ticket_end(channel_session(c->ch), h->ticket, (uint64_t)name))
		return name;
	close_handle(agent, h);
	return -EBADF;
}

/*
 * The name of the root that this session has for the directory already: a process asks again when its domain has a new
 * incarnation, which may know it or not. 0: none. (Handles that were opened by name are no roots: their root is another file.)
 */
static uint64_t root_again(struct agent *agent, struct session *s, const struct sc_stat *st,
			   struct call *c)
{
	uint64_t dev = (uint64_t)st->dev_major << 32 | st->dev_minor, name = 0;

	pthread_mutex_lock(&s->lock);
	for (struct handle *h = s->handles; h && !name; h = h->own_next)
		if (handle_is_live(h) && h->flags == O_PATH && !h->ticket && !h->secret &&
		    h->dev == dev && h->ino == st->ino && h->root->ino == st->ino)
			name = handle_id(agent->handles, h);
	pthread_mutex_unlock(&s->lock);
	if (name)
		c->cqe_flags |= TYPE_DIR << SC_CQE_TYPE_SHIFT;
	return name;
}

int64_t work_root(struct actor *a, struct call *c, bool cached)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	int len = fetch_text(c, c->s.buf, c->s.len, a->path);
	struct sc_stat st;
	struct handle *h;
	struct root *root;
	uint64_t name;
	int fd, own, err;

	if (len < 0)
		return len;
	fd = walk_in_root(a->agent->root_fd, len ? a->path : "/", &how);
	if (fd < 0)
		return fd;
	err = stat_at(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st);
	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (err || own < 0) {
		err = err ? err : -errno;
		close(fd);
		if (own >= 0)
			close(own);
		return err;
	}
	name = root_again(a->agent, channel_session(c->ch), &st, c);
	if (name) {
		close(fd);
		close(own);
		return (int64_t)name;
	}
	root = root_new(own);
	if (!root) {
		close(fd);
		return -ENOMEM;
	}
	keep_identify(a->agent, own, &root->fid);
	h = new_handle(a, c, fd, root, &st, &err);
	root_put(root); /* the handle has its own reference */
	if (!h)
		return err;
	h->flags = O_PATH;
	return publish(a, c, h);
}

/* The flags for openat2(), which is stricter than open(): -EINVAL for what neither knows. */
static int64_t open_flags(uint64_t arg0)
{
	uint32_t flags = (uint32_t)arg0;

	if (flags & ~(uint32_t)OPEN_FLAGS)
		return -EINVAL;
	if (flags & O_PATH)
		return (flags & PATH_FLAGS) | O_CLOEXEC;
	flags &= ~(uint32_t)O_ASYNC;
	return flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
}

/* What was opened is something that may be: 0, or -errno. Takes O_NONBLOCK back. */
static int accept_file(int fd, uint32_t flags, const struct sc_stat *st)
{
	if (flags & O_PATH)
		return 0;
	switch (st->mode & S_IFMT) {
	case S_IFREG: /* F_SETFL sets SETFL_FLAGS and no others */
		return fcntl(fd, F_SETFL, flags & SETFL_FLAGS & ~(uint32_t)O_NONBLOCK) < 0 ? -errno
											   : 0;
	case S_IFDIR:
		return 0;
	case S_IFCHR:
	case S_IFBLK:
		return -EACCES;
	default:
		return -EOPNOTSUPP;
	}
}

/* An empty path: opens the base once more. */
static int reopen_base(const struct call *c, struct open_how how)
{
	how.flags &= ~(uint64_t)(O_CREAT | O_EXCL);
	return walk_reopen(c->h->fd, &how);
}

/* An open under way. */
struct opening {
	uint32_t flags;
	struct open_how how;
	bool makes;	/* may make a file */
	bool truncates; /* what is there */
	bool by_kernel; /* in the same call as it is opened */
	bool made;	/* it has been made just now */
	enum orphan orphan;
	struct sc_fid fid; /* of what was made */
};

/* Truncates the open file: 0 or -errno. One that is open for reading alone, the kernel has to open once more. */
static int64_t cut(int fd, uint32_t flags)
{
	struct open_how how = {.flags = O_RDONLY | O_TRUNC | O_CLOEXEC | O_NONBLOCK};
	int again;

	if ((flags & O_ACCMODE) != O_RDONLY)
		return ftruncate(fd, 0) < 0 ? -errno : 0;
	again = walk_reopen(fd, &how);
	if (again >= 0)
		close(again);
	return again < 0 ? again : 0;
}

/*
 * O_TRUNC of a file that is mapped: its mappings have to follow, with the object locked. So where there are objects, or changes
 * are recorded, files are opened without it, and truncated here. Where there are none, and for O_RDONLY where nothing is recorded,
 * the kernel has done it. 0 or -errno.
 */
static int truncate_opened(struct actor *a, struct call *c, int fd, const struct opening *o,
			   struct sc_stat *st)
{
	struct record_what w = {.kind = SC_LOG_TRUNCATE};
	struct change ch;
	struct record r;
	struct sc_fid fid = {0};
	int64_t err = 0;

	if ((st->mode & S_IFMT) != S_IFREG || o->made)
		return 0;
	if (retain_is_on(a->agent))
		keep_identify(a->agent, fd, &fid);
	w.obj = &fid;
	change_begin_fd(a->agent, fd, &ch);
	record_enter(a->agent, &r, &fid, NULL, NULL);
	if (!o->by_kernel) {
		err = record_intent(&r, c, &w);
		if (!err)
			err = cut(fd, o->flags);
		record_end(&r, err);
	}
	record_leave(&r);
	if (!err && ch.o)
		object_changed(a->agent, ch.o, 0, INT64_MAX);
	change_end(a->agent, &ch);
	return err ? (int)err : stat_at(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, st);
}

#define MAKE_TRIES 16 /* names that come and go while we look */

/* True if what is there is a directory, which O_CREAT does not open. */
static bool is_directory(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

/* True for a last component that names a directory which is there. */
static bool is_dots(const char *name)
{
	size_t n = strcspn(name, "/");

	return n >= 1 && n <= 2 && name[0] == '.' && (n == 1 || name[1] == '.');
}

/*
 * O_CREAT where changes are recorded: what is there is opened, as if it had not been asked for; otherwise it is made in a
 * directory and under a name that are known before. A descriptor or -errno.
 */
static int open_or_make(struct actor *a, struct call *c, const struct walk_from *from,
			struct opening *o, struct walk_cross *x)
{
	struct open_how there = {.flags = o->how.flags & ~(uint64_t)O_CREAT};
	bool excl = o->how.flags & O_EXCL;
	struct place place;
	int fd, err;

	for (int i = 0; i < MAKE_TRIES; i++) {
		fd = excl ? -ENOENT : walk_open(from, &there, x);
		if (fd >= 0 && is_directory(fd)) {
			close(fd);
			return -EISDIR;
		}
		if (fd != -ENOENT)
			return fd;
		/* The second time it may be a link to where there is nothing. */
		err =
		    i && !excl ? walk_place_followed(from, &place, x) : walk_place(from, &place, x);
		if (err)
			return err;
		if (is_dots(place.name)) { /* nothing will be made: the kernel says why */
			place_close(&place);
			return walk_open(from, &o->how, x);
		}
		o->how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
		fd = name_open(a, c, &place, &o->how, &o->made, &o->fid);
		place_close(&place);
		if (fd != -EAGAIN)
			return fd;
	}
	return -ENOENT;
}

/* O_TMPFILE, likewise. */
static int open_anonymous(struct actor *a, struct call *c, const struct walk_from *from,
			  struct opening *o, struct walk_cross *x)
{
	struct open_how how = {.flags =
				   O_PATH | O_DIRECTORY | O_CLOEXEC | (o->how.flags & O_NOFOLLOW)};
	int dir = a->path[0] ? walk_open(from, &how, x) : c->h->fd, fd;

	if (dir < 0) /* the kernel has its own words for what is wrong with the path */
		return dir == -EXDEV ? dir : walk_open(from, &o->how, x);
	o->how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
	o->orphan = o->how.flags & O_EXCL ? ORPHAN_UNLINKED : ORPHAN_ANON;
	fd = name_anonymous(a, c, dir, &o->how, &o->fid);
	if (a->path[0])
		close(dir);
	if (!o->fid.len)
		o->orphan = ORPHAN_NOT;
	o->made = true;
	return fd;
}

/* A call that pended had made its file, and did not come to open it: opens it, whatever its mode is. False: it had not. */
static bool open_made(struct actor *a, const struct call *c, struct opening *o, int *fd)
{
	const struct cred *worn = a->wardrobe.now;
	struct retained found;

	if (!c->again || !retain_found(a->agent, c, SC_LOG_CREATE, &found))
		return false;
	creds_wear(&a->wardrobe, NULL);
	*fd = keep_open_fid(a->agent, &found.obj,
			    (int)(o->flags & ~(uint32_t)(O_CREAT | O_EXCL | O_TRUNC)));
	creds_wear(&a->wardrobe, worn);
	o->made = true;
	return *fd >= 0;
}

/* Opens what the call names, by the way that its flags need. A descriptor or -errno. */
static int open_path(struct actor *a, struct call *c, const struct walk_from *from,
		     struct opening *o, struct walk_cross *x)
{
	bool records = retain_is_on(a->agent);
	int fd;

	x->kind = 0;
	if (records && open_made(a, c, o, &fd))
		return fd;
	if (records && (o->flags & O_TMPFILE) == O_TMPFILE)
		return open_anonymous(a, c, from, o, x);
	/* O_DIRECTORY with it makes nothing, in kernels that are not too old. */
	if (records && (o->flags & (O_CREAT | O_DIRECTORY)) == O_CREAT && a->path[0])
		return open_or_make(a, c, from, o, x);
	return a->path[0] ? walk_open(from, &o->how, x) : reopen_base(c, o->how);
}

/* How to open, by the call's flags. */
static void plan(struct actor *a, const struct call *c, uint32_t flags, struct opening *o)
{
	bool records = retain_is_on(a->agent);
	bool objects = atomic_load(&a->agent->gate.any);
	struct retained found;

	*o = (struct opening){.flags = flags, .how = {.flags = flags}};
	o->makes = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
	o->truncates = flags & O_TRUNC && !(flags & O_PATH);
	o->by_kernel = !records && (!objects || (flags & O_ACCMODE) == O_RDONLY);
	/* Done before, and perhaps written to by others since. */
	if (o->truncates && c->again && retain_found(a->agent, c, SC_LOG_TRUNCATE, &found))
		o->truncates = false;
	if (!o->by_kernel)
		o->how.flags &= ~(uint64_t)O_TRUNC;
	if (o->makes)
		o->how.mode = mode_to_create(a, c->s.arg0 >> 32) & 07777;
}

/* Opens the call's path. A descriptor that the caller owns, or -errno. */
static int64_t open_file(struct actor *a, struct call *c, bool cached, uint32_t flags,
			 struct sc_stat *st, enum orphan *orphan)
{
	struct walk_from from = {.agent = a->agent,
				 .root = c->h->root,
				 .base = c->h->fd,
				 .path = a->path,
				 .cached = cached};
	struct change ch = {0};
	struct walk_cross x;
	struct opening o;
	int fd, err;

	plan(a, c, flags, &o);
	if (cached && (!a->path[0] || o.makes || flags & O_TRUNC))
		return -EAGAIN; /* the kernel has no way to say "unless it blocks" here */
	if (names_own_dir(a->path))
		return -ENOENT;
	if (o.truncates)
		change_begin(a->agent, 0, 0, &ch); /* of we do not know which file: counted */
	fd = open_path(a, c, &from, &o, &x);
	if (o.truncates)
		change_end(a->agent, &ch);
	if (fd == -EXDEV && a->path[0])
		return tell_cross(c, 1, &x);
	if (fd < 0)
		return fd;
	err = stat_at(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, st);
	if (!err)
		err = accept_file(fd, flags, st);
	if (!err && o.truncates && (!o.by_kernel || atomic_load(&a->agent->gate.any)))
		err = truncate_opened(a, c, fd, &o, st);
	*orphan = o.orphan;
	if (!err)
		return fd;
	close(fd);
	return err;
}

#define OPEN_ONCE_MORE 0 /* no handle is */

/* Opens and makes the handle, for a ticket that is opening. Its name or -errno. */
static int64_t open_handle(struct actor *a, struct call *c, bool cached, uint32_t flags)
{
	enum orphan orphan = ORPHAN_NOT;
	struct handle *h;
	struct sc_stat st;
	int64_t fd = open_file(a, c, cached, flags, &st, &orphan);
	int err;

	if (fd < 0)
		return fd;
	h = new_handle(a, c, (int)fd, c->h->root, &st, &err);
	if (!h)
		return err;
	keep_identify(a->agent, h->fd, &h->fid);
	if (!orphan_opened(a->agent, h, !cached) ||
	    (!orphan && a->path[0] && orphan_is_too_late(h))) {
		handle_reap(a->agent->handles, h);
		return cached ? -EAGAIN : OPEN_ONCE_MORE;
	}
	if (orphan)
		atomic_store_explicit(&h->orphan, orphan, memory_order_relaxed);
	hide_orphan(h, &st);
	h->flags = flags & ~(uint32_t)O_NONBLOCK;
	atomic_store_explicit(&h->status, (uint32_t)c->s.arg0 & SETFL_FLAGS, memory_order_relaxed);
	h->secret = c->s.arg2;
	h->ticket = c->s.arg1;
	if (c->s.len2) {
		show_number(a->agent, &st);
		memcpy(channel_at(c->ch, c->s.buf2), &st, sizeof(st));
	}
	return publish(a, c, h);
}

int64_t work_open(struct actor *a, struct call *c, bool cached)
{
	struct session *s = channel_session(c->ch);
	int64_t flags = open_flags(c->s.arg0), res;
	int len = fetch_text(c, c->s.buf, c->s.len, a->path);

	if (len < 0)
		return len;
	if (flags < 0 || !c->s.arg2 || (c->s.len2 && c->s.len2 < sizeof(struct sc_stat)))
		return -EINVAL;
	res = ticket_begin(s, c->s.arg1);
	if (res)
		return res;
	do {
		res = open_handle(a, c, cached, (uint32_t)flags);
	} while (res == OPEN_ONCE_MORE);
	if (res < 0)
		ticket_end(s, c->s.arg1, TICKET_FREE);
	return res;
}

enum step start_close(struct poller *p, struct call *c)
{
	uint32_t granted = atomic_load_explicit(&c->h->ngrants, memory_order_relaxed);

	if (c->h->owner != channel_session(c->ch)->id || granted)
		return done(c, -EBUSY);
	if (!close_handle(poller_actor(p)->agent, c->h))
		return done(c, -EBADF);
	/* The descriptor is closed with the handle's last user, which may be this call: here if that may be slow. */
	return poller_may_run_here(p) ? STEP_WORK : done(c, 0);
}

int64_t work_close(struct actor *a, struct call *c, bool cached)
{
	struct handle *h = c->h;

	c->h = NULL;
	if (handle_put(h))
		handle_reap(a->agent->handles, h);
	return 0;
}

/* Lets the session use the handle, also after a recovery. False: no room for one more. */
static bool grant(struct agent *agent, struct handle *h, struct session *s)
{
	uint64_t name = handle_id(agent->handles, h);
	uint32_t kept = h->kept ? keep_granted(agent, name, s->id) : 0;

	if ((!h->kept || kept) && session_add_grant(s, name) && handle_add_grant(h, s->id, kept))
		return true;
	keep_ungranted(agent, kept);
	return false;
}

enum step start_grant(struct poller *p, struct call *c)
{
	struct agent *agent = poller_actor(p)->agent;
	struct session *s = channel_session(c->ch);
	bool fresh;
	int err;

	c->h = handle_grant(agent->handles, c->s.handle, c->s.arg2, s->id, &fresh, &err);
	if (!c->h)
		return done(c, err);
	if (fresh && !grant(agent, c->h, s))
		return done(c, -ENOMEM);
	c->cqe_flags |= c->h->type << SC_CQE_TYPE_SHIFT;
	return done(c, 0);
}

enum step start_getfl(struct poller *p, struct call *c)
{
	int fl = fcntl(c->h->fd, F_GETFL);

	if (fl < 0)
		return done(c, -errno);
	/* Directories keep the O_NONBLOCK that they were opened with here. */
	return done(
	    c, (fl & ~O_NONBLOCK) |
		   (int)(atomic_load_explicit(&c->h->status, memory_order_relaxed) & O_NONBLOCK));
}

int64_t work_setfl(struct actor *a, struct call *c, bool cached)
{
	uint32_t flags = (uint32_t)c->s.arg0 & SETFL_FLAGS; /* as F_SETFL: others are ignored */

	/* Asks for the right to O_NOATIME with the caller's credentials, which this thread wears. */
	if (fcntl(c->h->fd, F_SETFL, flags & ~(uint32_t)O_NONBLOCK) < 0)
		return -errno;
	atomic_store_explicit(&c->h->status, flags, memory_order_relaxed);
	keep_status(c->h, flags);
	return 0;
}

int64_t work_getpath(struct actor *a, struct call *c, bool cached)
{
	return walk_getpath(c->h->root, c->h->fd, channel_at(c->ch, c->s.buf2), c->s.len2);
}
