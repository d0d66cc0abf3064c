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
#include "objects.h"
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

/*
 * O_TRUNC of a file that is mapped: its mappings have to follow, with the object locked. So where there are objects files
 * are opened without it, and truncated here. (One that is empty was perhaps just made, and keeps the mode that it was made
 * with.) Where there are none, and for O_RDONLY, the kernel has done it. 0 or -errno.
 */
static int truncate_opened(struct actor *a, int fd, bool by_kernel, struct sc_stat *st)
{
	struct change ch;
	int err = 0;

	if ((st->mode & S_IFMT) != S_IFREG || (!by_kernel && st->size == 0))
		return 0;
	change_begin_fd(a->agent, fd, &ch);
	if (!by_kernel && ftruncate(fd, 0) < 0)
		err = -errno;
	else if (ch.o)
		object_changed(a->agent, ch.o, 0, INT64_MAX);
	change_end(a->agent, &ch);
	return err ? err : stat_at(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, st);
}

/* Opens the call's path. A descriptor that the caller owns, or -errno. */
static int64_t open_file(struct actor *a, struct call *c, bool cached, uint32_t flags,
			 struct sc_stat *st)
{
	struct walk_from from = {.agent = a->agent,
				 .root = c->h->root,
				 .base = c->h->fd,
				 .path = a->path,
				 .cached = cached};
	bool makes = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
	bool objects = atomic_load(&a->agent->gate.any);
	bool by_kernel = !objects || (flags & O_ACCMODE) == O_RDONLY;
	bool truncates = flags & O_TRUNC && !(flags & O_PATH);
	struct change ch = {0};
	struct open_how how = {.flags =
				   truncates && !by_kernel ? flags & ~(uint32_t)O_TRUNC : flags};
	struct walk_cross x;
	int fd, err;

	if (cached && (!a->path[0] || makes || flags & O_TRUNC))
		return -EAGAIN; /* the kernel has no way to say "unless it blocks" here */
	if (makes)
		how.mode = mode_to_create(a, c->s.arg0 >> 32) & 07777;
	if (truncates)
		change_begin(a->agent, 0, 0, &ch); /* of we do not know which file: counted */
	fd = a->path[0] ? walk_open(&from, &how, &x) : reopen_base(c, how);
	if (truncates)
		change_end(a->agent, &ch);
	if (fd == -EXDEV && a->path[0])
		return tell_cross(c, 1, &x);
	if (fd < 0)
		return fd;
	err = stat_at(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, st);
	if (!err)
		err = accept_file(fd, flags, st);
	if (!err && truncates && (objects || atomic_load(&a->agent->gate.any)))
		err = truncate_opened(a, fd, by_kernel, st);
	if (!err)
		return fd;
	close(fd);
	return err;
}

/* Opens and makes the handle, for a ticket that is opening. Its name or -errno. */
static int64_t open_handle(struct actor *a, struct call *c, bool cached, uint32_t flags)
{
	struct handle *h;
	struct sc_stat st;
	int64_t fd = open_file(a, c, cached, flags, &st);
	int err;

	if (fd < 0)
		return fd;
	h = new_handle(a, c, (int)fd, c->h->root, &st, &err);
	if (!h)
		return err;
	h->flags = flags & ~(uint32_t)O_NONBLOCK;
	atomic_store_explicit(&h->status, (uint32_t)c->s.arg0 & SETFL_FLAGS, memory_order_relaxed);
	h->secret = c->s.arg2;
	h->ticket = c->s.arg1;
	if (c->s.len2)
		memcpy(channel_at(c->ch, c->s.buf2), &st, sizeof(st));
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
	res = open_handle(a, c, cached, (uint32_t)flags);
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
