/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * locks.c - see locks.h.
 *
 * One struct file per file that has locks or waiters. Its locks are a plain list: a file with more than a few locks is
 * rare, and one process may have at most LOCKS_PER_PROCESS of them, which bounds a search. A request that cannot be
 * answered yet is a struct waiter, in one of two states: blocked (in its file's queue) or syncing (until the broker has
 * reported what was closed).
 *
 * Each lock has an entry among what is kept (keep.h). What it says of a lock does not change: a lock that gets other bounds gets
 * another entry, and the old one is free after that. So an agent that dies at any moment leaves no range of an owner's less locked than it
 * was told, though perhaps twice.
 */
#include "locks.h"

#include "handles.h"
#include "keep.h"
#include "log.h"
#include "poller.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUCKETS		  4096u
#define LOCKS_PER_PROCESS 8192u
#define DEADLOCK_STEPS \
	4096u /* locks and waiters that a search for a cycle looks at before it gives up */
#define LOCK_END INT64_MAX

enum kind {
	KIND_FLOCK,
	KIND_POSIX,
	KIND_OFD,
};

enum action {
	ACT_SET,
	ACT_SET_WAIT,
	ACT_GET,
};

/* Who counts for the limit: a process of the host, as the broker numbers it. */
struct holder {
	struct holder *next;
	uint32_t process;
	uint32_t nlocks;
};

struct lock {
	struct lock *next;
	enum kind kind;
	int type;	  /* F_RDLCK (shared) or F_WRLCK (exclusive) */
	uint64_t owner;	  /* POSIX: process; otherwise the handle's name */
	uint64_t through; /* the handle through which it was set */
	int64_t start;
	int64_t end;  /* inclusive */
	uint32_t pid; /* on the host */
	struct holder *holder;
	struct sc_fid fid;
	uint32_t kept; /* its entry + 1; 0: it is not kept */
};

struct waiter {
	struct waiter *next; /* in the file's queue, or in the list of the syncing */
	struct waiter *all_next, **all_link; /* in the list of all the blocked */
	struct file *file;		     /* whose queue it is in; NULL: it is syncing */
	struct call *call;
	struct lock want;
	enum action action;
	bool retry; /* has been through a SYNC */
	bool sent;  /* its SYNC has been sent, with... */
	uint32_t seq;
	int64_t deadline; /* when the SYNC is given up, ns */
};

struct file {
	struct file *next;
	uint64_t dev;
	uint64_t ino;
	struct lock *flocks;
	struct lock *records;
	struct waiter *queue; /* the blocked, first come first */
};

struct locks {
	struct agent *agent;
	pthread_mutex_t lock; /* guards everything below */
	struct file *files[BUCKETS];
	struct holder *holders[BUCKETS];
	struct waiter *blocked; /* all, newest first */
	struct waiter *syncing;
	bool keeping;
	uint32_t spare; /* an entry: keep_bounds() */
};

struct locks *locks_new(struct agent *agent)
{
	struct locks *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->agent = agent;
	pthread_mutex_init(&l->lock, NULL);
	return l;
}

/* ---- files and holders ---- */

static struct file **file_link(struct locks *l, uint64_t dev, uint64_t ino)
{
	struct file **link = &l->files[(ino * 0x9e3779b97f4a7c15ull ^ dev) >> 20 & (BUCKETS - 1)];

	while (*link && ((*link)->dev != dev || (*link)->ino != ino))
		link = &(*link)->next;
	return link;
}

static struct file *file_get(struct locks *l, const struct handle *h)
{
	struct file **link = file_link(l, h->dev, h->ino);

	if (!*link) {
		*link = calloc(1, sizeof(**link));
		if (*link) {
			(*link)->dev = h->dev;
			(*link)->ino = h->ino;
		}
	}
	return *link;
}

/* Frees a file that has nothing any more. */
static void file_forget(struct locks *l, struct file *f)
{
	struct file **link;

	if (f->flocks || f->records || f->queue)
		return;
	link = file_link(l, f->dev, f->ino);
	*link = f->next;
	free(f);
}

static struct holder **holder_link(struct locks *l, uint32_t process)
{
	struct holder **link = &l->holders[process % BUCKETS];

	while (*link && (*link)->process != process)
		link = &(*link)->next;
	return link;
}

/* A copy of *like that counts for the process. `spare`: may exceed the limit by one, for a moment. */
static struct lock *lock_alloc(struct locks *l, const struct lock *like, uint32_t process,
			       bool spare)
{
	struct holder **link = holder_link(l, process);
	struct lock *k = malloc(sizeof(*k));

	if (!k)
		return NULL;
	if (!*link) {
		*link = calloc(1, sizeof(**link));
		if (*link)
			(*link)->process = process;
	}
	if (!*link || (*link)->nlocks >= LOCKS_PER_PROCESS + spare) {
		free(k);
		return NULL;
	}
	*k = *like;
	k->holder = *link;
	k->holder->nlocks++;
	k->kept = 0;
	return k;
}

static void lock_free(struct locks *l, struct lock *k)
{
	struct holder *h = k->holder;

	keep_lock_free(l->agent, k->kept);
	free(k);
	if (--h->nlocks)
		return;
	*holder_link(l, h->process) = h->next;
	free(h);
}

/* lock_alloc() with room among what is kept, for a lock of a file that is kept. */
static struct lock *lock_alloc_kept(struct locks *l, const struct lock *like, uint32_t process,
				    bool spare)
{
	struct lock *k = lock_alloc(l, like, process, spare);

	if (!k || !l->keeping || !like->fid.len)
		return k;
	k->kept = keep_lock_room(l->agent);
	if (k->kept)
		return k;
	lock_free(l, k);
	return NULL;
}

/* Writes down that k is held, with its present bounds, if it is kept; what was written of it before goes then. */
static void keep_bounds(struct locks *l, struct lock *k)
{
	struct sc_kept_lock e = {.kind = k->kind,
				 .type = (uint32_t)k->type,
				 .owner = k->owner,
				 .through = k->through,
				 .start = k->start,
				 .end = k->end,
				 .process = k->holder->process,
				 .pid = k->pid,
				 .fid = k->fid};
	uint32_t old = k->kept;

	if (!old)
		return;
	keep_lock(l->agent, l->spare, &e);
	keep_unlock(l->agent, old);
	k->kept = l->spare;
	l->spare = old;
}

void locks_free(struct locks *l)
{
	for (uint32_t i = 0; i < BUCKETS; i++) {
		while (l->files[i]) {
			struct file *f = l->files[i];

			l->files[i] = f->next;
			while (f->flocks) {
				struct lock *k = f->flocks;

				f->flocks = k->next;
				lock_free(l, k);
			}
			while (f->records) {
				struct lock *k = f->records;

				f->records = k->next;
				lock_free(l, k);
			}
			free(f);
		}
	}
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* ---- conflicts ---- */

static bool same_owner(const struct lock *a, const struct lock *b)
{
	return a->kind == b->kind && a->owner == b->owner;
}

static struct lock **list_of(struct file *f, enum kind kind)
{
	return kind == KIND_FLOCK ? &f->flocks : &f->records;
}

static bool conflicts(const struct lock *have, const struct lock *want)
{
	return !same_owner(have, want) && (have->type == F_WRLCK || want->type == F_WRLCK) &&
	       have->start <= want->end && want->start <= have->end;
}

/* The first lock that keeps `want` from being set; NULL: none. */
static struct lock *find_conflict(struct file *f, const struct lock *want)
{
	struct lock *k;

	if (want->type == F_UNLCK)
		return NULL;
	for (k = *list_of(f, want->kind); k; k = k->next)
		if (conflicts(k, want))
			return k;
	return NULL;
}

/*
 * True if `process` waits, itself or through others, for a lock of `target`. POSIX locks alone: their owners are what
 * waits. Gives up after *steps looks: a cycle so long is left to its makers.
 */
static bool waits_for(struct locks *l, uint32_t process, uint32_t target, uint32_t depth,
		      uint32_t *steps)
{
	if (depth > 16)
		return false;
	for (struct waiter *w = l->blocked; w; w = w->all_next) {
		if (!*steps || !--*steps)
			return false;
		if (w->want.kind != KIND_POSIX || w->want.owner != process)
			continue;
		for (struct lock *k = w->file->records; k && *steps; k = k->next, --*steps) {
			if (k->kind != KIND_POSIX || !conflicts(k, &w->want))
				continue;
			if (k->owner == target ||
			    waits_for(l, (uint32_t)k->owner, target, depth + 1, steps))
				return true;
		}
	}
	return false;
}

/* Would waiting for what holds `want` up close a cycle? */
static bool would_deadlock(struct locks *l, struct file *f, const struct lock *want)
{
	uint32_t steps = DEADLOCK_STEPS;

	if (want->kind != KIND_POSIX)
		return false;
	for (struct lock *k = f->records; k && steps; k = k->next, steps--)
		if (k->kind == KIND_POSIX && conflicts(k, want) &&
		    waits_for(l, (uint32_t)k->owner, (uint32_t)want->owner, 0, &steps))
			return true;
	return false;
}

/* ---- setting and clearing ---- */

static void push(struct lock **list, struct lock *k)
{
	k->next = *list;
	*list = k;
}

/*
 * Sets or clears a record lock, which conflicts with none: the owner's other locks are cut where it lies, and those of the
 * same type that touch it become one with it. 0 or -ENOLCK, with nothing changed.
 */
static int apply_record(struct locks *l, struct file *f, const struct lock *want, uint32_t process)
{
	struct lock *fresh = NULL, *split = NULL, *merged = NULL, **link = &f->records, *k;
	int64_t start = want->start, end = want->end;
	bool full = false;

	/* At most one new lock for the range, and one more where an old one is cut in two. */
	if (want->type != F_UNLCK && !(fresh = lock_alloc_kept(l, want, process, false)))
		return -ENOLCK;
	split = lock_alloc_kept(l, want, process, true);
	if (!split) {
		if (fresh)
			lock_free(l, fresh);
		return -ENOLCK;
	}
	if (fresh)
		keep_bounds(l, fresh); /* before others give way to it */
	while ((k = *link)) {
		bool touches = same_owner(k, want) &&
			       k->start <= (end == LOCK_END ? end : end + 1) &&
			       (k->end == LOCK_END ? k->end : k->end + 1) >= start;

		if (touches && k->type == want->type) { /* one lock instead of two */
			start = k->start < start ? k->start : start;
			end = k->end > end ? k->end : end;
		} else if (!touches || k->start > want->end || k->end < want->start) {
			link = &k->next;
			continue;
		} else if (k->start < want->start && k->end > want->end) { /* cut in two */
			struct holder *holder = split->holder;
			uint32_t room;

			if (holder->nlocks > LOCKS_PER_PROCESS) {
				full =
				    true; /* and nothing has changed: no other lock lies in the range */
				break;
			}
			room = split->kept;
			*split = *k;
			split->holder = holder;
			split->kept = room;
			split->start = want->end + 1;
			k->end = want->start - 1;
			keep_bounds(l, split);
			keep_bounds(l, k);
			push(&f->records, split);
			split = NULL;
			break; /* this owner's other locks lie elsewhere */
		} else if (k->start < want->start) {
			k->end = want->start - 1;
			keep_bounds(l, k);
			link = &k->next;
			continue;
		} else if (k->end > want->end) {
			k->start = want->end + 1;
			keep_bounds(l, k);
			link = &k->next;
			continue;
		}
		*link = k->next;
		push(&merged, k); /* freed when what takes its place is written down */
	}
	if (fresh && full) {
		lock_free(l, fresh);
	} else if (fresh) {
		fresh->start = start;
		fresh->end = end;
		keep_bounds(l, fresh);
		push(&f->records, fresh);
	}
	while ((k = merged)) {
		merged = k->next;
		lock_free(l, k);
	}
	if (split)
		lock_free(l, split);
	return full ? -ENOLCK : 0;
}

/* Removes all locks of a list for which `match` is true. True if there was one. */
static bool remove_if(struct locks *l, struct lock **link,
		      bool (*match)(const struct lock *k, uint64_t arg), uint64_t arg)
{
	bool any = false;
	struct lock *k;

	while ((k = *link)) {
		if (!match(k, arg)) {
			link = &k->next;
			continue;
		}
		*link = k->next;
		lock_free(l, k);
		any = true;
	}
	return any;
}

static bool owned_by(const struct lock *k, uint64_t owner)
{
	return k->owner == owner;
}

/* flock: the handle's lock, if it has another one, goes before the new one is tried for, as in Linux. True: it had the
 * very same, and nothing is to be done. */
static bool drop_other_flock(struct locks *l, struct file *f, const struct lock *want,
			     bool *dropped)
{
	for (struct lock *k = f->flocks; k; k = k->next)
		if (k->owner == want->owner && k->type == want->type)
			return true;
	*dropped = remove_if(l, &f->flocks, owned_by, want->owner);
	return false;
}

static int apply_flock(struct locks *l, struct file *f, const struct lock *want, uint32_t process)
{
	struct lock *k;

	if (want->type == F_UNLCK)
		return 0;
	k = lock_alloc_kept(l, want, process, false);
	if (!k)
		return -ENOLCK;
	keep_bounds(l, k);
	push(&f->flocks, k);
	return 0;
}

/* ---- recovery ---- */

bool locks_kept(struct locks *l)
{
	l->keeping = keep_is_on(l->agent);
	l->spare = keep_lock_room(l->agent);
	return !l->keeping || l->spare;
}

bool locks_restore(struct locks *l, struct handle *h, const struct sc_kept_lock *kept,
		   uint32_t entry)
{
	struct lock like = {.kind = (enum kind)kept->kind,
			    .type = (int)kept->type,
			    .owner = kept->owner,
			    .through = kept->through,
			    .start = kept->start,
			    .end = kept->end,
			    .pid = kept->pid,
			    .fid = kept->fid};
	struct file *f = file_get(l, h);
	struct lock *k = f ? lock_alloc(l, &like, kept->process, true) : NULL;

	if (k) {
		k->kept = entry;
		push(list_of(f, like.kind), k);
		atomic_store_explicit(&h->lock_owner, 1, memory_order_relaxed);
	} else if (f) {
		file_forget(l, f);
	}
	return k;
}

/* ---- requests ---- */

static uint32_t process_of(const struct call *c)
{
	return channel_session(c->ch)->process;
}

/* For GET: writes what is in the way, or that nothing is. */
static void tell_conflict(struct call *c, const struct lock *k)
{
	struct sc_lock out;

	channel_read(c->ch, c->s.buf, &out, sizeof(out));
	if (!k) {
		out.type = F_UNLCK;
	} else {
		out.type = (uint32_t)k->type;
		out.whence = SEEK_SET;
		out.start = k->start;
		out.len = k->end == LOCK_END ? 0 : k->end - k->start + 1;
		out.pid = k->kind == KIND_OFD ? ~0u : k->pid;
	}
	memcpy(channel_at(c->ch, c->s.buf), &out, sizeof(out));
}

static void wake_file(struct locks *l, struct file *f);

/* Notes that the call waits: for QUIESCE it does not count as work. */
static struct waiter *make_waiter(struct call *c, const struct lock *want, enum action action)
{
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->call = c;
	w->want = *want;
	w->action = action;
	poller_note_waiting(c->poller, 1);
	return w;
}

/* Ends a wait, however it went. */
static void end_wait(struct waiter *w, int64_t res)
{
	struct call *c = w->call;

	free(w);
	c->res = res;
	poller_note_waiting(c->poller, -1);
	poller_return(c, CALL_DONE);
}

/* Not to be told yet: asks for a SYNC first. */
static void ask_sync(struct locks *l, struct waiter *w)
{
	uint64_t one = 1;

	w->deadline = now_ns() + AGENT_SYNC_TIMEOUT_NS;
	w->next = l->syncing;
	l->syncing = w;
	if (write(l->agent->main_event, &one, sizeof(one)) < 0)
		log_error("waking main: %m");
}

/* Puts a waiter last into its file's queue. */
static void block(struct locks *l, struct file *f, struct waiter *w)
{
	struct waiter **link = &f->queue;

	while (*link)
		link = &(*link)->next;
	w->next = NULL;
	*link = w;
	w->file = f;
	w->all_next = l->blocked;
	w->all_link = &l->blocked;
	if (l->blocked)
		l->blocked->all_link = &w->all_next;
	l->blocked = w;
}

/* Takes it out of the queue of f, its file, again. */
static void unblock(struct file *f, struct waiter *w)
{
	struct waiter **link = &f->queue;

	while (*link != w)
		link = &(*link)->next;
	*link = w->next;
	w->file = NULL;
	*w->all_link = w->all_next;
	if (w->all_next)
		w->all_next->all_link = w->all_link;
}

#define STILL_WAITING 1

/*
 * Tries a request: 0 or -errno if that ends it, STILL_WAITING if it conflicts, with *k the lock in its way. With the lock
 * held.
 */
static int64_t attempt(struct locks *l, struct file *f, struct call *c, const struct lock *want,
		       enum action action, struct lock **k)
{
	bool dropped = false;
	int err;

	/* Whoever closes a handle takes its live bit first and its locks then: so none is set behind his back. */
	if (!handle_is_live(c->h))
		return -EBADF;
	if (want->kind == KIND_FLOCK && drop_other_flock(l, f, want, &dropped))
		return 0;
	*k = find_conflict(f, want);
	if (*k) {
		if (dropped)
			wake_file(l, f);
		return STILL_WAITING;
	}
	if (action == ACT_GET) {
		tell_conflict(c, NULL);
		return 0;
	}
	err = want->kind == KIND_FLOCK ? apply_flock(l, f, want, process_of(c))
				       : apply_record(l, f, want, process_of(c));
	if (!err && (dropped || want->kind != KIND_FLOCK))
		wake_file(l, f); /* a lock may have shrunk, or gone from exclusive to shared */
	return err;
}

/*
 * What is answered to a request that conflicts with *k. STILL_WAITING: it is to wait, or (if it has not yet) to have the
 * broker asked, which *sync tells.
 */
static int64_t answer_conflict(struct locks *l, struct file *f, struct call *c,
			       const struct lock *want, enum action action, bool retry,
			       const struct lock *k, bool *sync)
{
	bool deadlock = action == ACT_SET_WAIT && would_deadlock(l, f, want);

	*sync = !retry && (action != ACT_SET_WAIT || deadlock);
	if (*sync || (action == ACT_SET_WAIT && !deadlock))
		return STILL_WAITING;
	if (deadlock)
		return -EDEADLK;
	if (action == ACT_SET)
		return -EAGAIN;
	tell_conflict(c, k);
	return 0;
}

/* A request from its poller. */
static enum step submit(struct locks *l, struct call *c, const struct lock *want,
			enum action action)
{
	struct waiter *w;
	struct file *f;
	struct lock *k = NULL;
	bool sync = false;
	int64_t res;

	atomic_store_explicit(&c->h->lock_owner, 1, memory_order_relaxed);
	pthread_mutex_lock(&l->lock);
	f = file_get(l, c->h);
	res = f ? attempt(l, f, c, want, action, &k) : -ENOLCK;
	if (res == STILL_WAITING)
		res = answer_conflict(l, f, c, want, action, false, k, &sync);
	if (res == STILL_WAITING) {
		w = make_waiter(c, want, action);
		if (!w)
			res = -ENOLCK;
		else if (sync)
			ask_sync(l, w);
		else
			block(l, f, w);
	}
	if (f)
		file_forget(l, f);
	pthread_mutex_unlock(&l->lock);
	if (res == STILL_WAITING)
		return STEP_AWAY;
	c->res = res;
	return STEP_DONE;
}

/* A request whose SYNC is over. With the lock held; w is in no list. */
static void retry(struct locks *l, struct waiter *w)
{
	struct file *f = file_get(l, w->call->h);
	struct lock *k = NULL;
	int64_t res = -ENOLCK;
	bool sync;

	if (f)
		res = attempt(l, f, w->call, &w->want, w->action, &k);
	if (res == STILL_WAITING)
		res = answer_conflict(l, f, w->call, &w->want, w->action, true, k, &sync);
	if (res == STILL_WAITING)
		block(l, f, w);
	else
		end_wait(w, res);
	if (f)
		file_forget(l, f);
}

/* Something was released: who can have its lock now, takes it, in the order of their coming. */
static void wake_file(struct locks *l, struct file *f)
{
	struct waiter *w = f->queue;

	while (w) {
		struct call *c = w->call;
		int64_t res;

		if (!handle_is_live(c->h)) {
			res = -EBADF;
		} else if (find_conflict(f, &w->want)) {
			w = w->next;
			continue;
		} else {
			res = w->want.kind == KIND_FLOCK
				  ? apply_flock(l, f, &w->want, process_of(c))
				  : apply_record(l, f, &w->want, process_of(c));
		}
		unblock(f, w);
		end_wait(w, res);
		/* Setting a lock may have shrunk another of the same owner (or merged): those before may go on now. */
		w = f->queue;
	}
}

/* ---- entry points of operations ---- */

enum step locks_flock(struct locks *l, struct call *c)
{
	struct lock want = {.kind = KIND_FLOCK, .start = 0, .end = LOCK_END};
	enum action action = c->s.arg0 & LOCK_NB ? ACT_SET : ACT_SET_WAIT;

	c->res = -EBADF;
	if (c->h->flags & O_PATH)
		return STEP_DONE;
	switch (c->s.arg0 & ~(uint64_t)LOCK_NB) {
	case LOCK_SH:
		want.type = F_RDLCK;
		break;
	case LOCK_EX:
		want.type = F_WRLCK;
		break;
	case LOCK_UN:
		want.type = F_UNLCK;
		break;
	default:
		c->res = -EINVAL;
		return STEP_DONE;
	}
	want.owner = want.through = handle_id(l->agent->handles, c->h);
	want.pid = channel_session(c->ch)->pid;
	want.fid = c->h->fid;
	return submit(l, c, &want, action);
}

/* Makes absolute bounds of what the caller gave, as Linux does. 0 or -errno. */
static int lock_range(const struct handle *h, const struct sc_lock *in, struct lock *want)
{
	struct stat st;
	int64_t start = 0;

	switch (in->whence) {
	case SEEK_SET:
		break;
	case SEEK_CUR:
		start = (int64_t)__atomic_load_n(&h->pos, __ATOMIC_RELAXED);
		break;
	case SEEK_END:
		start = fstat(h->fd, &st) < 0 ? -1 : st.st_size;
		break;
	default:
		return -EINVAL;
	}
	if (start < 0)
		return -EINVAL;
	if (in->start > INT64_MAX - start)
		return -EOVERFLOW;
	start += in->start;
	if (start < 0)
		return -EINVAL;
	want->start = start;
	want->end = LOCK_END;
	if (in->len > 0) {
		if (in->len - 1 > INT64_MAX - start)
			return -EOVERFLOW;
		want->end = start + in->len - 1;
	} else if (in->len < 0) {
		if (in->len < -start)
			return -EINVAL;
		want->end = start - 1;
		want->start = start + in->len;
	}
	return 0;
}

/* May the handle have a lock of this type? */
static bool mode_allows(const struct handle *h, uint32_t type)
{
	uint32_t mode = h->flags & O_ACCMODE;

	if (type == F_RDLCK)
		return mode != O_WRONLY;
	return type != F_WRLCK || mode != O_RDONLY;
}

/* Checks a record lock's request and fills *want and *action. 0 or -errno. */
static int parse_record(struct locks *l, struct call *c, struct lock *want, enum action *action)
{
	bool ofd = c->s.arg0 >= SC_LK_OFD_GET;
	struct sc_lock in;
	int err;

	if (c->h->flags & O_PATH)
		return -EBADF;
	if (c->s.arg0 < SC_LK_GET || c->s.arg0 > SC_LK_OFD_SETW || c->s.len < sizeof(in))
		return -EINVAL;
	channel_read(c->ch, c->s.buf, &in, sizeof(in));
	*action = c->s.arg0 == SC_LK_GET || c->s.arg0 == SC_LK_OFD_GET	 ? ACT_GET
		  : c->s.arg0 == SC_LK_SET || c->s.arg0 == SC_LK_OFD_SET ? ACT_SET
									 : ACT_SET_WAIT;
	if (ofd && in.pid)
		return -EINVAL;
	if (*action == ACT_GET && in.type != F_RDLCK && in.type != F_WRLCK)
		return -EINVAL;
	err = lock_range(c->h, &in, want);
	if (err)
		return err;
	if (in.type != F_RDLCK && in.type != F_WRLCK && in.type != F_UNLCK)
		return -EINVAL;
	if (*action != ACT_GET && !mode_allows(c->h, in.type))
		return -EBADF;
	want->kind = ofd ? KIND_OFD : KIND_POSIX;
	want->type = (int)in.type;
	want->through = handle_id(l->agent->handles, c->h);
	want->owner = ofd ? want->through : process_of(c);
	want->pid = channel_session(c->ch)->pid;
	want->fid = c->h->fid;
	return 0;
}

enum step locks_record(struct locks *l, struct call *c)
{
	struct lock want = {0};
	enum action action;
	int err = parse_record(l, c, &want, &action);

	if (!err)
		return submit(l, c, &want, action);
	c->res = err;
	return STEP_DONE;
}

/* ---- releases ---- */

static bool posix_of(const struct lock *k, uint64_t process)
{
	return k->kind == KIND_POSIX && k->owner == process;
}

static bool set_through(const struct lock *k, uint64_t handle)
{
	return k->through == handle;
}

void locks_unlock_all(struct locks *l, const struct handle *h, uint32_t process)
{
	struct file *f;

	pthread_mutex_lock(&l->lock);
	f = *file_link(l, h->dev, h->ino);
	if (f) {
		if (remove_if(l, &f->records, posix_of, process))
			wake_file(l, f);
		file_forget(l, f);
	}
	pthread_mutex_unlock(&l->lock);
}

void locks_handle_closed(struct locks *l, const struct handle *h)
{
	uint64_t name = handle_id(l->agent->handles, h);
	struct file *f;

	if (!atomic_load_explicit(&h->lock_owner, memory_order_relaxed))
		return;
	pthread_mutex_lock(&l->lock);
	f = *file_link(l, h->dev, h->ino);
	if (f) {
		remove_if(l, &f->flocks, set_through, name);
		remove_if(l, &f->records, set_through, name);
		wake_file(l,
			  f); /* also ends the waits through this handle: it is not live any more */
		file_forget(l, f);
	}
	pthread_mutex_unlock(&l->lock);
}

void locks_process_gone(struct locks *l, uint32_t process)
{
	pthread_mutex_lock(&l->lock);
	for (uint32_t b = 0; b < BUCKETS; b++) {
		struct file *f, *next;

		for (f = l->files[b]; f; f = next) {
			next = f->next;
			if (remove_if(l, &f->records, posix_of, process))
				wake_file(l, f);
			file_forget(l, f);
		}
	}
	pthread_mutex_unlock(&l->lock);
}

/* ---- cancelling ---- */

struct victim {
	const struct channel *ch; /* with lane and tag; or NULL: */
	uint32_t lane, tag;
	uint32_t session; /* all of this session */
};

static bool is_victim(const struct waiter *w, const struct victim *v)
{
	const struct call *c = w->call;

	if (!v->ch)
		return channel_session(c->ch)->id == v->session;
	return c->ch == v->ch && c->lane == v->lane && c->s.tag == v->tag;
}

/* Ends the waits of the syncing that match. Returns how many. */
static uint32_t cancel_syncing(struct locks *l, const struct victim *v)
{
	struct waiter **link = &l->syncing, *w;
	uint32_t n = 0;

	while ((w = *link)) {
		if (!is_victim(w, v)) {
			link = &w->next;
			continue;
		}
		*link = w->next;
		end_wait(w, -EINTR);
		n++;
	}
	return n;
}

static uint32_t cancel(struct locks *l, const struct victim *v)
{
	struct waiter *w, *next;
	uint32_t n;

	pthread_mutex_lock(&l->lock);
	n = cancel_syncing(l, v);
	for (w = l->blocked; w; w = next) {
		struct file *f = w->file;

		next = w->all_next;
		if (!is_victim(w, v))
			continue;
		unblock(f, w);
		end_wait(w, -EINTR);
		file_forget(l, f);
		n++;
	}
	pthread_mutex_unlock(&l->lock);
	return n;
}

int locks_cancel(struct locks *l, const struct channel *ch, uint32_t lane, uint32_t tag)
{
	struct victim v = {.ch = ch, .lane = lane, .tag = tag};

	return cancel(l, &v) ? 0 : -ENOENT;
}

void locks_cancel_session(struct locks *l, uint32_t session)
{
	struct victim v = {.session = session};

	cancel(l, &v);
}

/* ---- SYNC ---- */

bool locks_sync_wanted(struct locks *l, uint32_t seq)
{
	bool any = false;

	pthread_mutex_lock(&l->lock);
	for (struct waiter *w = l->syncing; w; w = w->next) {
		if (w->sent)
			continue;
		w->sent = true;
		w->seq = seq;
		any = true;
	}
	pthread_mutex_unlock(&l->lock);
	return any;
}

/* Takes those out of the syncing for which `due` holds, and retries them, oldest first. With the lock held. */
static void retry_due(struct locks *l, bool (*due)(const struct waiter *w, int64_t arg),
		      int64_t arg)
{
	struct waiter **link = &l->syncing, *w, *ready = NULL;

	while ((w = *link)) {
		if (!due(w, arg)) {
			link = &w->next;
			continue;
		}
		*link = w->next;
		w->next = ready; /* the list is newest first: this turns it round */
		ready = w;
	}
	while ((w = ready)) {
		ready = w->next;
		retry(l, w);
	}
}

static bool is_answered(const struct waiter *w, int64_t seq)
{
	return w->sent && (int32_t)((uint32_t)seq - w->seq) >= 0;
}

static bool is_late(const struct waiter *w, int64_t now)
{
	return w->deadline <= now;
}

void locks_synced(struct locks *l, uint32_t seq)
{
	pthread_mutex_lock(&l->lock);
	retry_due(l, is_answered, seq);
	pthread_mutex_unlock(&l->lock);
}

int64_t locks_expire(struct locks *l, int64_t now)
{
	int64_t first = -1;

	pthread_mutex_lock(&l->lock);
	retry_due(l, is_late, now);
	for (struct waiter *w = l->syncing; w; w = w->next)
		if (first < 0 || w->deadline - now < first)
			first = w->deadline - now;
	pthread_mutex_unlock(&l->lock);
	return first;
}
