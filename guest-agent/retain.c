/* SPDX-License-Identifier: BSD-3-Clause */
/* retain.c - see retain.h. */
#include "retain.h"

#include "fault.h"
#include "keep.h"
#include "log.h"
#include "numbers.h"
#include "logrec.h"
#include "poller.h"
#include "replay.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STRIPES	      256u
#define CHECKPOINT_NS 5000000000ll  /* age of the oldest record at which the log is emptied */
#define LOOK_NS	      500000000	    /* between looks at that age */
#define TICK_NS	      200000	    /* between looks at calls that are being answered */
#define RETRY_NS      100000000	    /* after a sync that failed */
#define GIVE_UP_NS    30000000000ll /* of failing, after which writers are told */
#define SETTLE_NS     5000000000ll  /* after RESUMED, for pending calls to be answered */
#define SLACK_SHARE   16u	    /* of the ring: for what must not wait, one of so many parts */

struct stripe {
	_Alignas(64) pthread_mutex_t lock;
};

struct retain {
	struct agent *agent;
	struct sc_log *log; /* shared; written, never read back */
	uint8_t *ring;
	uint64_t size; /* of the ring */
	int sync_fd;   /* of our own: each descriptor is told of a failed write-back once */
	pthread_t thread;
	pthread_cond_t room; /* the log has been emptied, or nobody can */
	pthread_cond_t due;  /* the checkpoint has something to do */
	pthread_cond_t over; /* a checkpoint is over */
	pthread_mutex_t lock;
	/* guarded by `lock` */
	uint64_t head;
	uint64_t tail;
	uint64_t hold;	  /* head stays below this: records of pending calls. UINT64_MAX: none */
	uint64_t syncing; /* the tail that the checkpoint under way has noted */
	uint32_t phase;
	uint32_t waiting;    /* for room */
	int64_t first;	     /* when the oldest record that is not synced was made, ns; 0: none */
	int64_t failing;     /* since when syncs fail; 0: they do not */
	int64_t resumed;     /* when all sessions were attached; 0: not yet */
	uint64_t wanted;     /* checkpoints asked for: they begin after the question */
	uint64_t begun;	     /* of those, answered by the present one, or one before */
	uint64_t done;	     /* likewise, over */
	int status;	     /* of the last one */
	_Atomic bool broken; /* syncs go on failing */
	_Alignas(64) _Atomic uint32_t pending[2]; /* records by phase, of calls not answered */
	/* set at recovery, constant afterwards */
	struct retained *found;
	uint32_t nfound;
	struct stripe stripes[STRIPES];
};

static int64_t coarse_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- stripes ---- */

static uint32_t stripe_of(const struct sc_fid *fid)
{
	uint64_t sum = 0, word;

	for (size_t i = 0; i < sizeof(*fid); i += sizeof(word)) {
		memcpy(&word, (const uint8_t *)fid + i, sizeof(word));
		sum = (sum ^ word) * 0x9e3779b97f4a7c15ull;
		sum ^= sum >> 32;
	}
	return (uint32_t)sum % STRIPES;
}

/* Adds a stripe in its place, once. */
static void add_stripe(struct record *r, uint32_t stripe)
{
	uint32_t i = r->nstripes;

	for (uint32_t j = 0; j < r->nstripes; j++)
		if (r->stripe[j] == stripe)
			return;
	for (; i && r->stripe[i - 1] > stripe; i--)
		r->stripe[i] = r->stripe[i - 1];
	r->stripe[i] = (uint16_t)stripe;
	r->nstripes++;
}

void record_enter(struct agent *agent, struct record *r, const struct sc_fid *a,
		  const struct sc_fid *b, const struct sc_fid *d)
{
	const struct sc_fid *all[] = {a, b, d};

	r->t = agent->retain;
	r->rec = NULL;
	r->counted = false;
	r->more = false;
	r->nstripes = 0;
	for (size_t i = 0; r->t && i < sizeof(all) / sizeof(all[0]); i++) {
		if (!all[i])
			continue;
		if (!all[i]->len)
			r->t = NULL;
		else
			add_stripe(r, stripe_of(all[i]));
	}
	if (!r->t)
		r->nstripes = 0;
	for (uint32_t i = 0; i < r->nstripes; i++)
		pthread_mutex_lock(&r->t->stripes[r->stripe[i]].lock);
}

void record_leave(struct record *r)
{
	for (uint32_t i = r->nstripes; i--;)
		pthread_mutex_unlock(&r->t->stripes[r->stripe[i]].lock);
	r->nstripes = 0;
}

/* ---- the ring ---- */

static struct sc_log_rec *at(const struct retain *t, uint64_t off)
{
	return (struct sc_log_rec *)(t->ring + off % t->size);
}

/* Begins a record at the tail: of it, only what says where the next one is. With the lock held. */
static struct sc_log_rec *push(struct retain *t, uint32_t len, uint16_t kind)
{
	struct sc_log_rec *rec = at(t, t->tail);

	rec->seq = t->tail;
	rec->len = len;
	rec->kind = kind;
	rec->state = SC_LOG_EMPTY;
	t->tail += len;
	/* Release: who finds the tail finds the header. */
	__atomic_store_n(&t->log->tail, t->tail, __ATOMIC_RELEASE);
	return rec;
}

/* Bytes that a record of `len` takes, with what is left over before the ring's end. */
static uint64_t takes(const struct retain *t, uint32_t len)
{
	uint64_t left = t->size - t->tail % t->size;

	return left < len ? left + len : len;
}

/* Waits for the next checkpoint. With the lock held. */
static void wait_for_room(struct retain *t)
{
	t->waiting++;
	pthread_cond_signal(&t->due);
	pthread_cond_wait(&t->room, &t->lock);
	t->waiting--;
}

/* A record of `len` bytes; waits for room. With `more` it need not leave the slack: it is not the call's first. NULL: the disk
 * takes nothing. */
static struct sc_log_rec *reserve(struct retain *t, struct record *r, uint32_t len, uint16_t kind,
				  bool more)
{
	uint64_t room = more ? t->size : t->size - t->size / SLACK_SHARE;
	struct sc_log_rec *rec;
	uint64_t left;

	pthread_mutex_lock(&t->lock);
	while (t->tail + takes(t, len) - t->head > room) {
		if (atomic_load_explicit(&t->broken, memory_order_relaxed)) {
			pthread_mutex_unlock(&t->lock);
			return NULL;
		}
		wait_for_room(t);
	}
	if (!t->first)
		t->first = coarse_ns(CLOCK_MONOTONIC_COARSE);
	left = t->size - t->tail % t->size;
	if (left < len)
		push(t, (uint32_t)left, SC_LOG_PAD);
	rec = push(t, len, kind);
	r->phase = (uint8_t)t->phase;
	atomic_fetch_add_explicit(&t->pending[t->phase], 1, memory_order_relaxed);
	if (t->tail - t->head > t->size / 4 && t->syncing <= t->head)
		pthread_cond_signal(&t->due);
	pthread_mutex_unlock(&t->lock);
	return rec;
}

static void copy_fid(struct sc_fid *to, const struct sc_fid *from)
{
	if (from)
		*to = *from;
	else
		memset(to, 0, sizeof(*to));
}

/* Fills all but what push() has. */
static void fill(struct sc_log_rec *rec, const struct record_what *w, const struct sc_call_id *call)
{
	rec->call = *call;
	rec->res = 0;
	rec->when = (uint64_t)coarse_ns(CLOCK_REALTIME_COARSE);
	rec->flags = w->flags;
	rec->off = w->off;
	rec->size = w->size;
	rec->mode = w->mode;
	rec->uid = w->uid;
	rec->gid = w->gid;
	rec->rdev = w->rdev;
	rec->name_len = (uint16_t)w->name_len;
	rec->name2_len = (uint16_t)w->name2_len;
	rec->data_len = w->data_len;
	rec->done_check = 0;
	rec->again_check = 0;
	copy_fid(&rec->obj, w->obj);
	copy_fid(&rec->dir, w->dir);
	copy_fid(&rec->obj2, w->obj2);
	copy_fid(&rec->dir2, w->dir2);
	if (w->name_len)
		memcpy(rec->body, w->name, w->name_len);
	if (w->name2_len)
		memcpy(rec->body + w->name_len, w->name2, w->name2_len);
	if (w->data_len)
		memcpy((uint8_t *)rec + SC_LOG_DATA(rec), w->data, w->data_len);
	rec->check = logrec_check(rec);
}

static uint32_t length_of(const struct record_what *w)
{
	size_t n = (sizeof(struct sc_log_rec) + w->name_len + w->name2_len + 63) & ~(size_t)63;

	return (uint32_t)(n + ((w->data_len + 63) & ~(size_t)63));
}

uint32_t record_data_max(const struct agent *agent)
{
	uint64_t n = agent->retain ? agent->retain->size / 4 - 8192 : UINT32_MAX;

	return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

int record_intent(struct record *r, struct call *c, const struct record_what *w)
{
	struct sc_call_id nobody = {0}, id = c ? call_id(c) : nobody;
	bool more;

	if (!r->t)
		return 0;
	/* Who holds a record back from the checkpoint must not wait for it. */
	more = r->more || (c && (c->logged[0] || c->logged[1]));
	r->more = true;
	r->rec = reserve(r->t, r, length_of(w), w->kind, more);
	if (!r->rec)
		return -EIO;
	if (c)
		c->logged[r->phase]++;
	r->counted = !c;
	fill(r->rec, w, &id);
	/* Release: who finds the state finds the record whole. */
	__atomic_store_n(&r->rec->state, SC_LOG_INTENT, __ATOMIC_RELEASE);
	SC_FAULT_POINT("retain:intent");
	return 0;
}

void record_became(struct record *r, const struct sc_fid *obj, uint32_t mode, uint32_t uid,
		   uint32_t gid)
{
	if (!r->rec)
		return;
	if (obj)
		r->rec->obj = *obj;
	r->rec->mode = mode;
	if (r->rec->kind == SC_LOG_CHMOD)
		return; /* it has no owner, and its checksum says so */
	r->rec->uid = uid;
	r->rec->gid = gid;
}

void record_times(struct record *r, uint64_t atime, uint64_t mtime)
{
	if (!r->rec)
		return;
	r->rec->off = atime;
	r->rec->size = mtime;
}

void record_end(struct record *r, int64_t res)
{
	if (!r->rec)
		return;
	SC_FAULT_POINT("retain:changed");
	r->rec->res = res;
	if (res >= 0)
		r->rec->done_check = logrec_done_check(r->rec);
	__atomic_store_n(&r->rec->state, res < 0 ? SC_LOG_FAILED : SC_LOG_DONE, __ATOMIC_RELEASE);
	r->rec = NULL;
	SC_FAULT_POINT("retain:done");
	if (r->counted)
		atomic_fetch_sub_explicit(&r->t->pending[r->phase], 1, memory_order_release);
	r->counted = false;
}

void retain_published(struct agent *agent, const uint32_t logged[2])
{
	struct retain *t = agent->retain;

	/* Release: the checkpoint sees all that these calls did. */
	for (uint32_t i = 0; i < 2; i++)
		if (logged[i])
			atomic_fetch_sub_explicit(&t->pending[i], logged[i], memory_order_release);
}

void retain_identify(const struct agent *agent, int dir, const char *name, struct sc_fid *fid)
{
	keep_identify_at(agent, dir, name, fid);
}

/* ---- the checkpoint ---- */

/* True if the records of pending calls may go: those have been answered. With the lock held. */
static bool may_let_go(const struct retain *t, int64_t now)
{
	return t->hold != UINT64_MAX && t->resumed && now - t->resumed >= SETTLE_NS;
}

/* True if there is a reason. With the lock held. */
static bool is_due(const struct retain *t, int64_t now)
{
	uint64_t used = t->tail - t->head;

	if (t->wanted > t->done)
		return true;
	if (!t->first) /* nothing to sync: at most the records of pending calls are in the way */
		return t->waiting && may_let_go(t, now);
	return t->waiting || used > t->size / 4 || now - t->first >= CHECKPOINT_NS;
}

/* Waits until there is a reason. With the lock held. */
static void wait_until_due(struct retain *t)
{
	struct timespec until;

	while (!is_due(t, now_ns())) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += LOOK_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&t->due, &t->lock, &until);
	}
}

static void nap(long ns)
{
	const struct timespec tick = {.tv_nsec = ns};

	nanosleep(&tick, NULL);
}

/* The records of pending calls need not be kept any longer. With the lock held. */
static void let_go(struct retain *t)
{
	if (may_let_go(t, now_ns()))
		t->hold = UINT64_MAX;
}

/* All before `to` is on the disk, and answered. With the lock held. */
static void move_up(struct retain *t, uint64_t to)
{
	uint64_t left = t->size - t->tail % t->size;

	/* Empty: the next record goes to the ring's start. */
	if (to == t->tail && t->hold == UINT64_MAX && left != t->size) {
		push(t, (uint32_t)left, SC_LOG_PAD);
		to = t->tail;
	}
	t->head = to < t->hold ? to : t->hold;
	t->first = to == t->tail ? 0 : now_ns();
	/* In this order: head <= synced <= tail at any instant. */
	__atomic_store_n(&t->log->synced, to, __ATOMIC_RELEASE);
	__atomic_store_n(&t->log->head, t->head, __ATOMIC_RELEASE);
}

/* A sync has failed. With the lock held. */
static void note_failure(struct retain *t, int err)
{
	int64_t now = now_ns();

	if (!t->failing) {
		log_error("syncing the file system: %s; changes are kept, trying again",
			  strerror(-err));
		t->failing = now;
	}
	if (now - t->failing < GIVE_UP_NS || atomic_load_explicit(&t->broken, memory_order_relaxed))
		return;
	log_error("the file system cannot be synced: changes fail from now on once the log is "
		  "full");
	atomic_store_explicit(&t->broken, true, memory_order_relaxed);
}

/* One checkpoint. With the lock held, which it gives up meanwhile. */
static void checkpoint(struct retain *t)
{
	uint64_t to = t->tail, wanted = t->wanted;
	uint32_t old = t->phase;
	int err;

	t->syncing = to;
	t->phase = 1 - old;
	pthread_mutex_unlock(&t->lock);
	SC_FAULT_POINT("checkpoint:begun");
	/* Acquire: what these calls did is done. The other phase's were waited for by the checkpoint before. */
	while (atomic_load_explicit(&t->pending[old], memory_order_acquire))
		nap(TICK_NS);
	err = syncfs(t->sync_fd) < 0 ? -errno : 0;
	SC_FAULT_POINT("checkpoint:synced");
	if (err)
		nap(RETRY_NS);
	pthread_mutex_lock(&t->lock);
	t->syncing = 0;
	t->status = err;
	t->done = wanted;
	if (err) {
		note_failure(t, err);
	} else {
		t->failing = 0;
		atomic_store_explicit(&t->broken, false, memory_order_relaxed);
		let_go(t);
		move_up(t, to);
	}
	pthread_cond_broadcast(&t->room);
	pthread_cond_broadcast(&t->over);
}

static void *checkpoint_main(void *arg)
{
	struct retain *t = arg;

	pthread_mutex_lock(&t->lock);
	for (;;) {
		wait_until_due(t);
		checkpoint(t);
	}
	return NULL;
}

int retain_sync(struct agent *agent)
{
	struct retain *t = agent->retain;
	uint64_t mine;
	int status;

	pthread_mutex_lock(&t->lock);
	mine = ++t->wanted;
	pthread_cond_signal(&t->due);
	while (t->done < mine)
		pthread_cond_wait(&t->over, &t->lock);
	status = t->status;
	pthread_mutex_unlock(&t->lock);
	return status;
}

void retain_resumed(struct agent *agent)
{
	struct retain *t = agent->retain;

	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->resumed = now_ns();
	pthread_mutex_unlock(&t->lock);
}

/* ---- after a crash ---- */

/* Notes what the record says of its call. False: no memory. */
static bool note_found(struct retain *t, const struct sc_log_rec *rec, const struct replay *rp)
{
	struct retained *more, *f;

	if (!rec->call.session || rec->state != SC_LOG_DONE)
		return true;
	if (!(t->nfound & (t->nfound - 1))) {
		more = realloc(t->found, (t->nfound ? 2 * t->nfound : 64) * sizeof(*more));
		if (!more)
			return false;
		t->found = more;
	}
	f = &t->found[t->nfound++];
	*f = (struct retained){.call = rec->call,
			       .kind = rec->kind,
			       .append = rec->kind == SC_LOG_WRITE && rec->flags & SC_LOG_F_APPEND,
			       .res = rec->res,
			       .off = rec->off,
			       .obj = rec->obj};
	if (rec->kind == SC_LOG_CREATE && rec->again_check == logrec_again_check(rec))
		f->obj = rec->obj2;
	else
		replay_moved(rp, &rec->obj, &f->obj);
	return true;
}

/* An append that did not come to its end is made undone: others may append before it is executed again. */
static bool take_back(const struct retain *t, const struct sc_log_rec *rec, const struct replay *rp)
{
	struct sc_fid fid = rec->obj;
	int fd, err = 0;

	if (rec->kind != SC_LOG_WRITE || rec->state != SC_LOG_INTENT ||
	    !(rec->flags & SC_LOG_F_APPEND))
		return true;
	replay_moved(rp, &rec->obj, &fid);
	fd = keep_open_fid(t->agent, &fid, O_WRONLY);
	if (fd == -ESTALE)
		return true; /* gone, with all its data */
	if (fd < 0)
		err = fd;
	else if (lseek(fd, 0, SEEK_END) > (off_t)rec->off && ftruncate(fd, (off_t)rec->off) < 0)
		err = -errno;
	if (fd >= 0)
		close(fd);
	if (err)
		log_error("an append that was interrupted cannot be taken back: %s",
			  strerror(-err));
	return !err;
}

/* Reads what there is: results of calls. False after a log message. */
static bool read_records(struct retain *t, const struct replay *rp, uint64_t head, uint64_t tail)
{
	const char *wrong;

	while (head < tail) {
		const struct sc_log_rec *rec = logrec_at(t->log, head, tail, &wrong);

		if (!rec) {
			log_error("the log of changes is damaged: %s", wrong);
			return false;
		}
		if (rec->kind != SC_LOG_PAD && rec->state != SC_LOG_EMPTY) {
			if (head >= rp->synced && !take_back(t, rec, rp))
				return false;
			if (!note_found(t, rec, rp)) {
				log_error("not enough memory for the log of changes");
				return false;
			}
		}
		head += rec->len;
	}
	return true;
}

/* Takes over what the last agent left. False after a log message. */
static bool take_over(struct retain *t, uint64_t size,
		      bool (*is_open)(void *arg, const struct sc_fid *fid),
		      void (*moved)(void *arg, const struct sc_fid *was, const struct sc_fid *now,
				    uint64_t synced),
		      void *arg)
{
	struct replay rp = {
	    .log = t->log, .size = size, .root = t->agent->sync_fd, .is_open = is_open, .arg = arg};
	int64_t start = now_ns();
	uint64_t head, synced, tail;
	const char *wrong = logrec_header(t->log, size, &head, &synced, &tail);
	bool ok;

	if (wrong) {
		log_error("the log of changes is damaged: %s", wrong);
		return false;
	}
	ok = replay_run(&rp);
	if (!ok)
		log_error("what was changed before the crash could not be restored: %s", rp.error);
	ok = ok && read_records(t, &rp, head, tail);
	if (ok) {
		for (size_t i = 0; i < rp.nmoved; i++)
			moved(arg, &rp.moved[i].was, &rp.moved[i].now, rp.synced);
		numbers_moved(t->agent, &rp);
		SC_FAULT_POINT("recovery:replayed");
		replay_commit(&rp);
		numbers_committed(t->agent);
		SC_FAULT_POINT("recovery:committed");
		t->head = head;
		t->tail = tail;
		t->hold = head;
		log_info("the log of changes: %llu records replayed (%llu bytes, %llu names, %llu "
			 "lost) in %lld us",
			 (unsigned long long)rp.records, (unsigned long long)rp.bytes,
			 (unsigned long long)rp.names, (unsigned long long)rp.lost,
			 (long long)((now_ns() - start) / 1000));
	}
	replay_free(&rp);
	return ok;
}

/* An empty log. */
static void begin_anew(struct retain *t, uint64_t size)
{
	struct sc_log *log = t->log;

	__atomic_store_n(&log->magic, 0, __ATOMIC_RELEASE);
	memset((uint8_t *)log + sizeof(log->magic), 0, sizeof(*log) - sizeof(log->magic));
	log->version = SC_LOG_VERSION;
	log->epoch = t->agent->epoch;
	log->ring = size - SC_LOG_BEGIN;
	t->head = t->tail = 0;
	t->hold = UINT64_MAX;
	free(t->found);
	t->found = NULL;
	t->nfound = 0;
	/* The check covers the magic, which comes last all the same. */
	log->check = logrec_header_check(&(struct sc_log){.magic = SC_LOG_MAGIC,
							  .version = log->version,
							  .epoch = log->epoch,
							  .ring = log->ring});
	__atomic_store_n(&log->magic, SC_LOG_MAGIC, __ATOMIC_RELEASE);
}

static bool start(struct retain *t)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&t->due, &monotonic);
	pthread_cond_init(&t->room, NULL);
	pthread_cond_init(&t->over, NULL);
	for (uint32_t i = 0; i < STRIPES; i++)
		pthread_mutex_init(&t->stripes[i].lock, NULL);
	t->sync_fd = openat(t->agent->sync_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return t->sync_fd >= 0 && pthread_create(&t->thread, NULL, checkpoint_main, t) == 0;
}

bool retain_recover(struct agent *agent, bool (*is_open)(void *arg, const struct sc_fid *fid),
		    void (*moved)(void *arg, const struct sc_fid *was, const struct sc_fid *now,
				  uint64_t synced),
		    void *arg)
{
	const struct own *own = &agent->own[SC_OWN_LOG];
	struct retain *t;
	bool ok = true;

	if (!own->base)
		return true;
	t = aligned_alloc(64, (sizeof(*t) + 63) & ~(size_t)63);
	if (!t) {
		log_error("not enough memory for the log of changes");
		return false;
	}
	memset(t, 0, sizeof(*t));
	t->agent = agent;
	t->log = own->base;
	t->ring = (uint8_t *)own->base + SC_LOG_BEGIN;
	t->size = own->size - SC_LOG_BEGIN;
	t->hold = UINT64_MAX;
	if (__atomic_load_n(&t->log->magic, __ATOMIC_ACQUIRE) && t->log->epoch == agent->epoch) {
		numbers_load(agent);
		ok = take_over(t, own->size, is_open, moved, arg);
	} else {
		ok = !t->log->magic; /* not that of another domain */
	}
	if (t->hold == UINT64_MAX)
		begin_anew(t, own->size);
	if (!start(t)) {
		log_error("cannot start the log of changes: %m");
		return false; /* not freed: the thread may run */
	}
	agent->retain = t;
	return ok;
}

bool retain_found(const struct agent *agent, const struct call *c, uint16_t kind,
		  struct retained *found)
{
	const struct retain *t = agent->retain;
	struct sc_call_id id = call_id(c);

	for (uint32_t i = t ? t->nfound : 0; i--;) {
		const struct retained *f = &t->found[i];

		if (memcmp(&f->call, &id, sizeof(id)) || (kind && f->kind != kind))
			continue;
		*found = *f;
		return true;
	}
	return false;
}

bool retain_settled(struct agent *agent, struct call *c)
{
	struct retained found;

	if (c->s.op == SC_OP_OPEN || !retain_found(agent, c, SC_LOG_PAD, &found))
		return false;
	c->res = found.res;
	/* The position has not moved yet, if it is to. */
	if (found.append && c->has_pos) {
		c->appends = true;
		c->end = found.off + (uint64_t)found.res;
	}
	return true;
}
