/* SPDX-License-Identifier: BSD-3-Clause */
/* storage.c - see storage.h. */
#include "storage.h"

#include "keep.h"
#include "locks.h"
#include "log.h"
#include "objects.h"
#include "retain.h"
#include "storage_ops.h"
#include "workers.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>

/* What an operation needs. */
#define OP_HANDLE  (1u << 0) /* `handle` is a handle */
#define OP_HANDLE2 (1u << 1) /* so is arg1 */
#define OP_POS	   (1u << 2) /* always uses the handle's position */
#define OP_CURPOS  (1u << 3) /* may be told to use it: SC_SLOT_F_CURPOS */
#define OP_CURPOS2 (1u << 4) /* likewise for arg1's handle */
#define OP_CACHED  (1u << 5) /* the poller tries `work` first, with `cached` */
#define OP_HERE	   (1u << 6) /* as a rule so short that the poller executes `work` itself, if it may */

struct op {
	uint32_t needs;
	op_start start; /* in the poller, or NULL: STEP_WORK (after trying, with OP_CACHED) */
	op_work work;	/* in a worker, or NULL: start ends every call */
};

static enum step start_flock(struct poller *p, struct call *c)
{
	return locks_flock(poller_actor(p)->agent->locks, c);
}

static enum step start_lock(struct poller *p, struct call *c)
{
	return locks_record(poller_actor(p)->agent->locks, c);
}

static enum step start_unlock_all(struct poller *p, struct call *c)
{
	locks_unlock_all(poller_actor(p)->agent->locks, c->h, channel_session(c->ch)->process);
	return done(c, 0);
}

static enum step start_cancel(struct poller *p, struct call *c)
{
	uint32_t lane = (uint32_t)c->s.arg0, tag = (uint32_t)c->s.arg1;

	return done(c, locks_cancel(poller_actor(p)->agent->locks, c->ch, lane, tag));
}

static const struct op ops[SC_OP_STORAGE_END] = {
    [SC_OP_ROOT] = {OP_HERE, NULL, work_root},
    [SC_OP_OPEN] = {OP_HANDLE | OP_CACHED | OP_HERE, NULL, work_open},
    [SC_OP_CLOSE] = {OP_HANDLE | OP_HERE, start_close, work_close},
    [SC_OP_GRANT] = {0, start_grant, NULL},
    [SC_OP_READ] = {OP_HANDLE | OP_CURPOS | OP_HERE, start_read, work_read},
    [SC_OP_WRITE] = {OP_HANDLE | OP_CURPOS | OP_HERE, start_write, work_write},
    [SC_OP_SEEK] = {OP_HANDLE | OP_POS | OP_HERE, start_seek, work_seek},
    [SC_OP_READDIR] = {OP_HANDLE | OP_POS | OP_HERE, NULL, work_readdir},
    [SC_OP_STAT] = {OP_HANDLE | OP_CACHED | OP_HERE, NULL, work_stat},
    [SC_OP_ACCESS] = {OP_HANDLE | OP_CACHED | OP_HERE, NULL, work_access},
    [SC_OP_READLINK] = {OP_HANDLE | OP_CACHED | OP_HERE, NULL, work_readlink},
    [SC_OP_MKDIR] = {OP_HANDLE | OP_HERE, NULL, work_mkdir},
    [SC_OP_MKNOD] = {OP_HANDLE | OP_HERE, NULL, work_mknod},
    [SC_OP_UNLINK] = {OP_HANDLE | OP_HERE, NULL, work_unlink},
    [SC_OP_SYMLINK] = {OP_HANDLE | OP_HERE, NULL, work_symlink},
    [SC_OP_RENAME] = {OP_HANDLE | OP_HANDLE2 | OP_HERE, NULL, work_rename},
    [SC_OP_LINK] = {OP_HANDLE | OP_HANDLE2 | OP_HERE, NULL, work_link},
    [SC_OP_TRUNCATE] = {OP_HANDLE | OP_HERE, NULL, work_truncate},
    [SC_OP_CHMOD] = {OP_HANDLE | OP_HERE, NULL, work_chmod},
    [SC_OP_CHOWN] = {OP_HANDLE | OP_HERE, NULL, work_chown},
    [SC_OP_UTIMENS] = {OP_HANDLE | OP_HERE, NULL, work_utimens},
    [SC_OP_GETXATTR] = {OP_HANDLE | OP_HERE, NULL, work_getxattr},
    [SC_OP_SETXATTR] = {OP_HANDLE | OP_HERE, NULL, work_setxattr},
    [SC_OP_LISTXATTR] = {OP_HANDLE | OP_HERE, NULL, work_listxattr},
    [SC_OP_REMOVEXATTR] = {OP_HANDLE | OP_HERE, NULL, work_removexattr},
    [SC_OP_STATFS] = {OP_HANDLE | OP_HERE, NULL, work_statfs},
    [SC_OP_FALLOCATE] = {OP_HANDLE, start_fallocate, work_fallocate},
    [SC_OP_SYNC] = {OP_HANDLE, start_sync, work_sync},
    [SC_OP_FADVISE] = {OP_HANDLE, start_fadvise, work_fadvise},
    [SC_OP_SETFL] = {OP_HANDLE | OP_HERE, NULL, work_setfl},
    [SC_OP_GETFL] = {OP_HANDLE, start_getfl, NULL},
    [SC_OP_FLOCK] = {OP_HANDLE, start_flock, NULL},
    [SC_OP_LOCK] = {OP_HANDLE, start_lock, NULL},
    [SC_OP_UNLOCK_ALL] = {OP_HANDLE, start_unlock_all, NULL},
    [SC_OP_CANCEL] = {0, start_cancel, NULL},
    [SC_OP_COPY] = {OP_HANDLE | OP_HANDLE2 | OP_CURPOS | OP_CURPOS2, NULL, work_copy},
    [SC_OP_GETPATH] = {OP_HANDLE | OP_HERE, NULL, work_getpath},
    [SC_OP_IOCTL] = {OP_HANDLE | OP_HERE, NULL, work_ioctl},
    [SC_OP_SYNCALL] = {0, NULL, work_syncall},
    [SC_OP_MAP] = {OP_HANDLE, NULL, work_map},
    [SC_OP_MAP_WRITE] = {0, NULL, work_map_write},
    [SC_OP_MSYNC] = {0, NULL, work_msync},
};

int act_as_caller(struct actor *a, const struct call *c)
{
	return creds_wear(&a->wardrobe, channel_session(c->ch)->cred);
}

mode_t mode_to_create(struct actor *a, uint64_t packed)
{
	mode_t mode = packed & (S_IFMT | 07777), mask = (packed >> 16) & 0777;

	if (!a->own_umask)
		return mode & ~mask;
	if (a->umask != mask)
		umask(mask);
	a->umask = mask;
	return mode;
}

void actor_own_umask(struct actor *a)
{
	a->own_umask = unshare(CLONE_FS) == 0;
}

bool in_arena(const struct call *c, uint64_t off, uint64_t len)
{
	return off <= UINT32_MAX && len <= UINT32_MAX &&
	       sc_layout_in_arena(channel_layout(c->ch), (uint32_t)off, (uint32_t)len);
}

int fetch_text(const struct call *c, uint32_t buf, uint32_t len, char *to)
{
	if (len >= SC_PATH_BUF)
		return -ENAMETOOLONG;
	if (len)
		channel_read(c->ch, buf, to, len);
	to[len] = '\0';
	return memchr(to, '\0', len) ? -EINVAL : (int)len;
}

int64_t tell_cross(struct call *c, int which, const struct walk_cross *x)
{
	uint32_t buf = which == 1 ? c->s.buf : c->s.buf2;
	struct sc_cross head = {.kind = x->kind, .len = x->len};

	if (!x->kind || !in_arena(c, buf, SC_PATH_BUF))
		return -EXDEV;
	memcpy(channel_at(c->ch, buf), &head, sizeof(head));
	memcpy(channel_at(c->ch, buf + (uint32_t)sizeof(head)), x->rest, x->len);
	c->cqe_flags |= which == 1 ? SC_CQE_F_CROSS : SC_CQE_F_CROSS2;
	return -EXDEV;
}

/* ---- handles and positions of a call ---- */

/* True if arg1 names a second handle. */
static bool takes_second(const struct op *op, const struct sc_slot *s)
{
	return (op->needs & OP_HANDLE2) || (s->op == SC_OP_IOCTL && ioctl_takes_source(s->arg0));
}

/* Looks the call's handles up, once. 0 or -errno. */
static int take_handles(struct agent *agent, const struct op *op, struct call *c)
{
	uint32_t id = channel_session(c->ch)->id;
	int err = 0;

	if ((op->needs & OP_HANDLE) && !c->h)
		c->h = handle_get(agent->handles, c->s.handle, id, &err);
	if ((op->needs & OP_HANDLE) && !c->h)
		return err;
	if (takes_second(op, &c->s) && !c->h2)
		c->h2 = handle_get(agent->handles, c->s.arg1, id, &err);
	if (takes_second(op, &c->s) && !c->h2)
		return err;
	return 0;
}

/*
 * Takes the positions that the call uses. False: it waits for one, and comes back. Two positions are taken in the order
 * of the handles' addresses, so that two copies in opposite directions do not wait for each other.
 */
static bool take_positions(const struct op *op, struct call *c)
{
	bool first = (op->needs & OP_POS) || (c->s.flags & SC_SLOT_F_CURPOS);
	bool second = c->s.flags & SC_SLOT_F_CURPOS2;
	bool second_is_lower = second && c->h2 < c->h;

	if (first && second && c->h == c->h2)
		second = false;
	if (second && second_is_lower && !c->has_pos2) {
		c->has_pos2 = true; /* also while it is queued: when it comes back, it has it */
		if (!handle_pos_take(c->h2, c))
			return false;
	}
	if (first && !c->has_pos) {
		c->has_pos = true;
		if (!handle_pos_take(c->h, c))
			return false;
	}
	if (second && !c->has_pos2) {
		c->has_pos2 = true;
		if (!handle_pos_take(c->h2, c))
			return false;
	}
	return true;
}

/* Ranges and flags that are checked alike for all operations. */
static int check_slot(const struct op *op, const struct call *c)
{
	const struct sc_layout *l = channel_layout(c->ch);
	uint16_t allowed = 0;

	if (op->needs & OP_CURPOS)
		allowed |= SC_SLOT_F_CURPOS;
	if (op->needs & OP_CURPOS2)
		allowed |= SC_SLOT_F_CURPOS2;
	if (c->s.flags & ~allowed)
		return -EINVAL;
	if (!sc_layout_in_arena(l, c->s.buf, c->s.len) ||
	    !sc_layout_in_arena(l, c->s.buf2, c->s.len2))
		return -EFAULT;
	return 0;
}

/*
 * True for a call that is quicker when it may block: a name without a directory is looked at in place, but only if the kernel
 * may go to the disk for it. Only this decision depends on the present look at the text.
 */
static bool better_here(struct poller *p, const struct call *c)
{
	return c->s.op == SC_OP_STAT && c->s.len && c->s.len < SC_PATH_BUF &&
	       poller_may_run_here(p) && !memchr(channel_at(c->ch, c->s.buf), '/', c->s.len);
}

/* The first steps of a call, which never block. */
static enum step begin(struct poller *p, const struct op *op, struct call *c)
{
	struct actor *a = poller_actor(p);
	int err = check_slot(op, c);

	if (!err)
		err = take_handles(a->agent, op, c);
	if (err && c->again && c->s.op == SC_OP_CLOSE)
		err = 1; /* it had been executed: the handle is gone */
	if (err)
		return done(c, err < 0 ? err : 0);
	if (!take_positions(op, c))
		return STEP_AWAY;
	if (c->again && (keep_settled(a->agent, c) || retain_settled(a->agent, c)))
		return STEP_DONE;
	if (op->start)
		return op->start(p, c);
	if (!(op->needs & OP_CACHED) || better_here(p, c) || act_as_caller(a, c) < 0)
		return STEP_WORK;
	c->res = op->work(a, c, true);
	return c->res == -EAGAIN ? STEP_WORK : STEP_DONE;
}

/* False for what keeps a poller busy for long even if it does not block, or certainly blocks. */
static bool is_short(struct poller *p, const struct call *c)
{
	switch (c->s.op) {
	case SC_OP_READ:
		return is_short_read(p, c);
	case SC_OP_WRITE:
		return is_short_write(c);
	default:
		return true;
	}
}

enum step storage_start(struct poller *p, struct call *c)
{
	const struct op *op = c->s.op < SC_OP_STORAGE_END ? &ops[c->s.op] : NULL;
	enum step step;

	if (!op || (!op->start && !op->work))
		return done(c, -ENOSYS);
	step = begin(p, op, c);
	if (step == STEP_WORK && (op->needs & OP_HERE) && is_short(p, c) && poller_run_here(p, c))
		return STEP_DONE;
	return step;
}

void storage_work(struct actor *a, struct call *c)
{
	int err = act_as_caller(a, c);

	c->res = err ? err : ops[c->s.op].work(a, c, false);
}

/* In a worker: the last user of a handle is gone. */
static void reap_handle(struct agent *agent, struct job *job)
{
	struct handle *h = (struct handle *)((char *)job - offsetof(struct handle, reap));

	handle_reap(agent->handles, h);
}

/* True if closing the descriptor cannot take long: nothing to write back or to free. */
static bool closes_fast(const struct handle *h)
{
	struct stat st;

	if (!(h->flags & O_PATH) && (h->flags & O_ACCMODE) != O_RDONLY)
		return false;
	if (atomic_load_explicit(&((struct handle *)h)->orphan, memory_order_relaxed))
		return false;
	return fstat(h->fd, &st) == 0 && st.st_nlink > 0;
}

/* Drops a user in a thread that must not block. */
static void put_handle(struct agent *agent, struct handle *h)
{
	if (!handle_put(h))
		return;
	if (closes_fast(h)) {
		handle_reap(agent->handles, h);
		return;
	}
	h->reap.run = reap_handle;
	workers_push_job(agent->workers, &h->reap);
}

/* Passes a position on. */
static void drop_position(struct handle *h)
{
	struct call *next = handle_pos_drop(h);

	if (next)
		poller_return(next, CALL_RESTART);
}

void storage_moved(struct poller *p, struct call *c)
{
	uint64_t pos;

	if (c->res < 0)
		return;
	switch (c->s.op) {
	case SC_OP_SEEK:
		keep_moved(c->h, (uint64_t)c->res, c->res, c);
		break;
	case SC_OP_READDIR:
		keep_moved(c->h, c->end, c->res, c);
		break;
	case SC_OP_COPY:
		if (c->has_pos)
			keep_moved(c->h, c->h->pos + (uint64_t)c->res, c->res, c);
		if (c->has_pos2)
			keep_moved(c->h2, c->h2->pos + (uint64_t)c->res, c->res, c);
		break;
	default: /* READ, WRITE */
		pos = c->appends ? c->end : c->h->pos + (uint64_t)c->res;
		if (c->res)
			keep_moved(c->h, pos, c->res, c);
	}
}

void storage_finish(struct poller *p, struct call *c)
{
	struct agent *agent = poller_actor(p)->agent;

	if (c->gate)
		gate_leave(p, c);
	if (c->has_pos)
		drop_position(c->h);
	if (c->has_pos2)
		drop_position(c->h2);
	if (c->h)
		put_handle(agent, c->h);
	if (c->h2)
		put_handle(agent, c->h2);
	if (c->res > 0 && c->s.op == SC_OP_READ)
		poller_moved(p, (uint64_t)c->res, 0);
	else if (c->res > 0 && c->s.op == SC_OP_WRITE)
		poller_moved(p, 0, (uint64_t)c->res);
}

/* ---- ends ---- */

bool close_handle(struct agent *agent, struct handle *h)
{
	if (!handle_kill(h))
		return false;
	keep_closed(agent, h);
	locks_handle_closed(agent->locks, h);
	ticket_free(h->session, h->ticket, handle_id(agent->handles, h));
	return true;
}

/* A handle of the session without a ticket, with a user added; NULL: none is left. */
static struct handle *next_unticketed(struct session *s)
{
	struct handle *h;

	pthread_mutex_lock(&s->lock);
	for (h = s->handles; h; h = h->own_next)
		if (!h->ticket && handle_hold_live(h))
			break;
	pthread_mutex_unlock(&s->lock);
	return h;
}

void storage_end_session(struct agent *agent, struct session *s)
{
	struct handle *h;
	uint64_t name;

	while ((name = session_take_grant(s))) {
		h = handle_restored(agent->handles, name);
		if (!h || !handle_hold_live(h))
			continue;
		keep_ungranted(agent, handle_drop_grant(h, s->id));
		if (handle_put(h))
			handle_reap(agent->handles, h);
	}

	while ((h = next_unticketed(s))) {
		close_handle(agent, h);
		if (handle_put(h))
			handle_reap(agent->handles, h);
	}
}

void storage_release(struct agent *agent, const uint64_t *tickets, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct session *s = session_find(agent->sessions, (uint32_t)(tickets[i] >> 32));
		uint64_t name;
		struct handle *h;
		int err;

		if (!s)
			continue;
		name = ticket_kill(s, tickets[i]);
		h = name ? handle_get(agent->handles, name, s->id, &err) : NULL;
		if (h) {
			close_handle(agent, h);
			put_handle(agent, h);
		}
		session_put(s);
	}
}
