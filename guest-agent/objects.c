/* SPDX-License-Identifier: BSD-3-Clause */
/* objects.c - see objects.h. */
#include "objects.h"

#include "log.h"
#include "poller.h"
#include "retain.h"
#include "keep.h"
#include "segments.h"
#include "session.h"
#include "storage_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS	      256u
#define CHUNKS_MAX    64u
#define ANSWER_WAIT_S 30	   /* for the broker */
#define OWN_WAIT_MS   5000	   /* for the own segment, after the start */
#define GRACE_WAIT_MS 20000	   /* for changes that began before an object */
#define FLUSH_NS      5000000000ll /* between two write-backs of a file */
#define FLUSH_SHARE   20	   /* of the time that one takes, if that is longer */
#define PAGE_MASK     (~(uint64_t)(SC_PAGE - 1))
#define END_OF_FILE   ((uint64_t)INT64_MAX)

struct object {
	struct object *next; /* in its bucket */
	uint64_t number;
	uint64_t token;
	uint64_t dev;
	uint64_t ino;
	struct job idle_job;
	struct job flush_job;
	/* guarded by the table's lock */
	uint32_t refs;	  /* the table's own is one */
	bool idle_queued; /* one of the jobs, with a reference */
	bool flush_queued;
	int64_t flush_at;   /* next write-back, ns */
	uint64_t idle_seen; /* grants at which the broker said that it is idle */
	bool waits;	    /* for changes that began before it; others may still begin */
	uint32_t early;	    /* those others */
	/* guarded by `lock` */
	pthread_mutex_t lock;
	bool made;     /* the broker has it, and it is filled */
	bool dead;     /* out of the table */
	bool stored;   /* somebody may store, or might have */
	bool writable; /* fd is */
	bool borrowed; /* fd shares its position and flags with a caller's */
	int fd;	       /* of our own */
	uint64_t size; /* the object's, bytes */
	uint64_t grants;
	int failed;    /* last write-back: 0 or -errno */
	uint32_t kept; /* keep_object() */
};

/* A request that waits for the broker's answer. */
struct request {
	struct request *next;
	uint32_t seq;
	bool done;
	int64_t res;
	uint64_t off;
	pthread_cond_t cond;
};

struct objects {
	bool usable; /* membarrier works */
	int64_t
	    own_wait_end; /* the own segment is announced soon after the start, or there is none */
	pthread_mutex_t lock;
	struct object *bucket[BUCKETS];
	struct request *requests;
	uint32_t seq;
	struct segment *own; /* NULL: not seen yet */
	uint32_t nchunks;
	uint64_t chunks; /* bit i: chunk i is in use */
	pthread_cond_t chunk_free;
	pthread_mutex_t grace_lock; /* one who closes the gate at a time */
};

struct objects *objects_new(struct agent *agent)
{
	struct objects *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	pthread_mutex_init(&t->lock, NULL);
	pthread_mutex_init(&t->grace_lock, NULL);
	pthread_cond_init(&t->chunk_free, NULL);
	t->own_wait_end = now_ns() + OWN_WAIT_MS * 1000000ll;
	t->usable = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
	if (!t->usable)
		log_warning("this kernel has no membarrier: files are mapped as copies");
	return t;
}

/* ---- the broker ---- */

/* The agent's own segment; waits for it for a moment after the start. NULL: there is none. */
static struct segment *own_segment(struct agent *agent)
{
	const struct timespec tick = {.tv_nsec = 10000000};
	struct objects *t = agent->objects;
	struct segment *s;

	for (;;) {
		pthread_mutex_lock(&t->lock);
		if (!t->own)
			t->own = segment_find(agent->segments, SC_OWN_IO); /* never put: it stays */
		s = t->own;
		if (s && !t->nchunks) {
			t->nchunks = (uint32_t)(s->map.size / SC_OBJECT_IO_MAX);
			if (t->nchunks > CHUNKS_MAX)
				t->nchunks = CHUNKS_MAX;
		}
		pthread_mutex_unlock(&t->lock);
		if (s)
			return t->nchunks ? s : NULL;
		if (now_ns() >= t->own_wait_end)
			return NULL;
		nanosleep(&tick, NULL);
	}
}

/* A piece of the own segment, SC_OBJECT_IO_MAX bytes: its offset. Waits if all are in use. */
static uint32_t chunk_get(struct objects *t)
{
	uint32_t i;

	pthread_mutex_lock(&t->lock);
	for (;;) {
		for (i = 0; i < t->nchunks && t->chunks >> i & 1;)
			i++;
		if (i < t->nchunks)
			break;
		pthread_cond_wait(&t->chunk_free, &t->lock);
	}
	t->chunks |= 1ull << i;
	pthread_mutex_unlock(&t->lock);
	return i * SC_OBJECT_IO_MAX;
}

static void chunk_put(struct objects *t, uint32_t chunk)
{
	pthread_mutex_lock(&t->lock);
	t->chunks &= ~(1ull << chunk / SC_OBJECT_IO_MAX);
	pthread_cond_signal(&t->chunk_free);
	pthread_mutex_unlock(&t->lock);
}

static uint8_t *chunk_at(struct objects *t, uint32_t chunk)
{
	return (uint8_t *)t->own->map.base + chunk;
}

static void unlist(struct objects *t, struct request *r)
{
	struct request **at = &t->requests;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
}

/* Has the broker do something. Its result, or -EIO. *off (may be NULL): the answer's. */
static int64_t ask(struct agent *agent, struct sc_msg_object *m, uint64_t *off)
{
	struct objects *t = agent->objects;
	struct request r = {0};
	struct timespec end;
	int err;

	pthread_cond_init(&r.cond, NULL);
	pthread_mutex_lock(&t->lock);
	r.seq = ++t->seq;
	r.next = t->requests;
	t->requests = &r;
	pthread_mutex_unlock(&t->lock);
	m->h = (struct sc_msg_hdr){.type = SC_MSG_OBJECT, .len = sizeof(*m), .seq = r.seq};
	err = agent->tr->ops->send(agent->tr, m, sizeof(*m));
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += ANSWER_WAIT_S;
	pthread_mutex_lock(&t->lock);
	while (!err && !r.done)
		err = -pthread_cond_timedwait(&r.cond, &t->lock, &end);
	unlist(t, &r);
	pthread_mutex_unlock(&t->lock);
	pthread_cond_destroy(&r.cond);
	if (!r.done) {
		log_error("the broker did not answer a request about a mapped file: %s",
			  strerror(-err));
		return -EIO;
	}
	if (off)
		*off = r.off;
	return r.res;
}

void objects_done(struct agent *agent, const struct sc_msg_object_done *m)
{
	struct objects *t = agent->objects;

	pthread_mutex_lock(&t->lock);
	for (struct request *r = t->requests; r; r = r->next) {
		if (r->seq != m->h.seq)
			continue;
		r->res = m->res;
		r->off = m->off;
		r->done = true;
		pthread_cond_signal(&r->cond);
	}
	pthread_mutex_unlock(&t->lock);
}

/* Bytes of the object to a chunk. With `skip` *off is moved over holes. The count, or -errno. */
static int64_t get(struct agent *agent, const struct object *o, uint32_t chunk, uint64_t len,
		   uint64_t *off, bool skip)
{
	struct sc_msg_object m = {.op = SC_OBJECT_GET,
				  .object = o->number,
				  .off = *off,
				  .len = len,
				  .arg = skip,
				  .buf = chunk};
	int64_t n = ask(agent, &m, off);

	return n > (int64_t)len ? -EIO : n;
}

/* The reverse. */
static int64_t put(struct agent *agent, const struct object *o, uint32_t chunk, uint64_t len,
		   uint64_t off)
{
	struct sc_msg_object m = {
	    .op = SC_OBJECT_PUT, .object = o->number, .off = off, .len = len, .buf = chunk};
	int64_t n = ask(agent, &m, NULL);

	return n == (int64_t)len ? n : n < 0 ? n : -EIO;
}

/* A request without data. */
static int64_t order(struct agent *agent, const struct object *o, uint32_t op, uint64_t off,
		     uint64_t len, uint64_t arg, uint32_t session)
{
	struct sc_msg_object m = {
	    .op = op, .object = o->number, .off = off, .len = len, .arg = arg, .session = session};

	return ask(agent, &m, NULL);
}

/* ---- table and gate ---- */

/* With the table's lock held. */
static struct object **bucket_of(struct objects *t, uint64_t dev, uint64_t ino)
{
	return &t->bucket[gate_place(dev, ino) % BUCKETS];
}

static struct object *find(struct objects *t, uint64_t dev, uint64_t ino)
{
	struct object *o = *bucket_of(t, dev, ino);

	while (o && (o->dev != dev || o->ino != ino))
		o = o->next;
	return o;
}

static struct object *find_number(struct objects *t, uint64_t number)
{
	for (uint32_t i = 0; i < BUCKETS; i++)
		for (struct object *o = t->bucket[i]; o; o = o->next)
			if (o->number == number)
				return o;
	return NULL;
}

static void put_ref(struct objects *t, struct object *o)
{
	bool last;

	pthread_mutex_lock(&t->lock);
	last = --o->refs == 0;
	pthread_mutex_unlock(&t->lock);
	if (!last)
		return;
	if (o->fd >= 0)
		close(o->fd);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

static void gate_add(_Atomic uint16_t *place, int n)
{
	atomic_store_explicit(place,
			      (uint16_t)(atomic_load_explicit(place, memory_order_relaxed) + n),
			      memory_order_seq_cst);
}

/* Makes one for the file, locked, in the table, not made yet. NULL: no memory, or there is one now. */
static struct object *insert(struct agent *agent, uint64_t dev, uint64_t ino)
{
	struct objects *t = agent->objects;
	struct object *o = calloc(1, sizeof(*o));
	struct object **at;

	if (!o)
		return NULL;
	if (getrandom(&o->number, sizeof(o->number), 0) != sizeof(o->number) ||
	    getrandom(&o->token, sizeof(o->token), 0) != sizeof(o->token)) {
		free(o);
		return NULL;
	}
	o->number = o->number >> 1 | 1; /* a positive result, and not 0 */
	o->token |= 1;
	o->dev = dev;
	o->ino = ino;
	o->fd = -1;
	o->refs = 2;
	o->waits = true;
	pthread_mutex_init(&o->lock, NULL);
	pthread_mutex_lock(&o->lock);
	pthread_mutex_lock(&t->lock);
	if (find(t, dev, ino)) {
		pthread_mutex_unlock(&t->lock);
		pthread_mutex_unlock(&o->lock);
		pthread_mutex_destroy(&o->lock);
		free(o);
		return NULL;
	}
	at = bucket_of(t, dev, ino);
	o->next = *at;
	*at = o;
	gate_add(&agent->gate.covered[gate_place(dev, ino)], 1);
	atomic_fetch_add(&agent->gate.any, 1);
	pthread_mutex_unlock(&t->lock);
	return o;
}

/* Takes it out. With its lock held. */
static void drop(struct agent *agent, struct object *o)
{
	struct objects *t = agent->objects;
	struct object **at;

	pthread_mutex_lock(&t->lock);
	at = bucket_of(t, o->dev, o->ino);
	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	keep_object_gone(agent, o->kept);
	o->kept = 0;
	gate_add(&agent->gate.covered[gate_place(o->dev, o->ino)], -1);
	if (o->stored)
		gate_add(&agent->gate.stored[gate_place(o->dev, o->ino)], -1);
	atomic_fetch_sub(&agent->gate.any, 1);
	o->refs--; /* the table's; the caller has its own */
	pthread_mutex_unlock(&t->lock);
	o->dead = true;
}

/* All pollers' changes, and the workers' own, that are counted in this phase. */
static bool any_changing(struct agent *agent, uint32_t phase)
{
	if (atomic_load(&agent->gate.slow[phase]))
		return true;
	for (uint32_t i = 0; i < agent->npollers; i++)
		if (atomic_load_explicit(&poller_changing(agent->pollers[i])[phase],
					 memory_order_acquire))
			return true;
	return false;
}

/* Waits until all changes that were counted before are over. Two turns: a poller may have read the phase long before it
 * counts. False: they do not end. */
static bool grace(struct agent *agent)
{
	const struct timespec tick = {.tv_nsec = 200000};
	struct objects *t = agent->objects;
	int64_t end = now_ns() + GRACE_WAIT_MS * 1000000ll;
	bool ok = true;

	pthread_mutex_lock(&t->grace_lock);
	for (int turn = 0; turn < 2 && ok; turn++) {
		uint32_t old = atomic_fetch_add(&agent->gate.phase, 1) & 1;

		ok = syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
		while (ok && any_changing(agent, old)) {
			nanosleep(&tick, NULL);
			ok = now_ns() < end;
		}
	}
	pthread_mutex_unlock(&t->grace_lock);
	return ok;
}

/*
 * Waits for changes of the file that would miss the object: those that began before it, then those that began while that
 * was waited for. (These do not wait for the object's lock: they could occupy all workers, and the former need some.)
 * Changes that begin later wait for the lock. False: they do not end.
 */
static bool settle(struct agent *agent, struct object *o)
{
	const struct timespec tick = {.tv_nsec = 200000};
	struct objects *t = agent->objects;
	int64_t end = now_ns() + GRACE_WAIT_MS * 1000000ll;
	bool ok = grace(agent);
	uint32_t early;

	do {
		pthread_mutex_lock(&t->lock);
		o->waits = false;
		early = o->early;
		pthread_mutex_unlock(&t->lock);
		if (early)
			nanosleep(&tick, NULL);
	} while (early && now_ns() < end);
	return ok && !early;
}

static uint64_t dev_of(const struct stat *st)
{
	return (uint64_t)major(st->st_dev) << 32 | minor(st->st_dev);
}

/* The file's object with a reference, not locked. */
static struct object *look_up(struct objects *t, uint64_t dev, uint64_t ino)
{
	struct object *o;

	pthread_mutex_lock(&t->lock);
	o = find(t, dev, ino);
	if (o)
		o->refs++;
	pthread_mutex_unlock(&t->lock);
	return o;
}

void object_leave(struct agent *agent, struct object *o)
{
	pthread_mutex_unlock(&o->lock);
	put_ref(agent->objects, o);
}

struct object *object_enter(struct agent *agent, uint64_t dev, uint64_t ino)
{
	struct object *o;

	while ((o = look_up(agent->objects, dev, ino))) {
		pthread_mutex_lock(&o->lock);
		if (!o->dead)
			return o;
		object_leave(agent, o); /* there may be another one by now */
	}
	return NULL;
}

void change_begin(struct agent *agent, uint64_t dev, uint64_t ino, struct change *ch)
{
	struct objects *t = agent->objects;
	struct object *o;

	for (;;) {
		*ch = (struct change){.phase = atomic_load(&agent->gate.phase) & 1};
		atomic_fetch_add(&agent->gate.slow[ch->phase], 1);
		pthread_mutex_lock(&t->lock);
		o = find(t, dev, ino);
		if (o)
			o->refs++;
		if (o && o->waits) {
			o->early++;
			ch->early = o;
		}
		pthread_mutex_unlock(&t->lock);
		if (!o)
			return;
		/* Not counted while it waits for one who may be waiting for the count. */
		atomic_fetch_sub(&agent->gate.slow[ch->phase], 1);
		if (ch->early)
			return;
		pthread_mutex_lock(&o->lock);
		ch->o = o;
		if (!o->dead)
			return;
		object_leave(agent, o); /* there may be another one by now */
	}
}

void change_begin_fd(struct agent *agent, int fd, struct change *ch)
{
	struct stat st = {0};

	/* A file that cannot be asked has no object; the operation itself will say what is wrong. */
	if (fstat(fd, &st) < 0)
		st.st_ino = 0;
	change_begin(agent, dev_of(&st), st.st_ino, ch);
}

void change_end(struct agent *agent, struct change *ch)
{
	if (ch->o) {
		object_leave(agent, ch->o);
	} else if (ch->early) {
		pthread_mutex_lock(&agent->objects->lock);
		ch->early->early--;
		pthread_mutex_unlock(&agent->objects->lock);
		put_ref(agent->objects, ch->early);
	} else {
		atomic_fetch_sub(&agent->gate.slow[ch->phase], 1);
	}
}

/* ---- data ---- */

bool object_is_stored(const struct object *o)
{
	return o->stored;
}

static uint64_t file_size(const struct object *o)
{
	struct stat st;

	return fstat(o->fd, &st) < 0 ? 0 : (uint64_t)st.st_size;
}

static uint64_t at_most(uint64_t n, uint64_t max)
{
	return n < max ? n : max;
}

/* Reads as much as there is of `len` bytes. */
static ssize_t read_file(int fd, uint8_t *to, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, to + done, len - done, (off_t)(off + done));

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t object_read(struct agent *agent, struct object *o, void *to, size_t len, uint64_t off)
{
	struct objects *t = agent->objects;
	uint64_t size = file_size(o);
	uint32_t chunk;
	size_t done = 0;

	if (off >= size)
		return 0;
	len = at_most(len, size - off);
	chunk = chunk_get(t);
	while (done < len) {
		uint64_t at = off + done;
		uint64_t want = at_most(len - done, SC_OBJECT_IO_MAX);
		int64_t n = get(agent, o, chunk, want, &at, false);

		if (n > 0)
			memcpy((uint8_t *)to + done, chunk_at(t, chunk), (size_t)n);
		if (n == 0) /* somebody shrank it: the file has what was there */
			n = read_file(o->fd, (uint8_t *)to + done, want, at);
		if (n <= 0) {
			chunk_put(t, chunk);
			return n < 0 && !done ? n : (ssize_t)done;
		}
		done += (size_t)n;
	}
	chunk_put(t, chunk);
	return (ssize_t)done;
}

/* Makes the object as long as the file. */
static void take_size(struct agent *agent, struct object *o)
{
	uint64_t size = file_size(o);

	if (size == o->size)
		return;
	if (order(agent, o, SC_OBJECT_RESIZE, 0, size, 0, 0) == 0) {
		o->size = size;
		keep_object_size(agent, o->kept, size);
	} else {
		log_warning(
		    "a mapped file grew beyond what may be mapped: what is beyond cannot be "
		    "seen in its mappings");
	}
}

void object_written(struct agent *agent, struct object *o, const void *from, size_t len,
		    uint64_t off)
{
	struct objects *t = agent->objects;
	uint32_t chunk;

	take_size(agent, o);
	if (off >= o->size)
		return;
	len = at_most(len, o->size - off);
	chunk = chunk_get(t);
	for (size_t done = 0; done < len;) {
		size_t n = at_most(len - done, SC_OBJECT_IO_MAX);

		memcpy(chunk_at(t, chunk), (const uint8_t *)from + done, n);
		if (put(agent, o, chunk, n, off + done) < 0)
			break;
		done += n;
	}
	chunk_put(t, chunk);
}

/* The next range of data of the file at or after *from: [*from, *to). False: none. */
static bool next_data(const struct object *o, uint64_t *from, uint64_t *to)
{
	off_t data = o->borrowed ? -1 : lseek(o->fd, (off_t)*from, SEEK_DATA);
	off_t hole;

	if (data < 0 && !o->borrowed && errno == ENXIO)
		return false;
	if (data < 0) { /* a file system that does not know, or a position that must not be moved */
		*to = file_size(o);
		return *from < *to;
	}
	hole = lseek(o->fd, data, SEEK_HOLE);
	*from = (uint64_t)data;
	*to = hole < 0 ? file_size(o) : (uint64_t)hole;
	return *from < *to;
}

/* Copies the file's data of a range, where there is any, to the object. 0 or -errno. */
static int fill(struct agent *agent, struct object *o, uint64_t from, uint64_t to)
{
	struct objects *t = agent->objects;
	uint32_t chunk = chunk_get(t);
	uint64_t end;
	int64_t n = 0;

	to = at_most(to, o->size);
	while (from < to && n >= 0 && next_data(o, &from, &end)) {
		end = at_most(end, to);
		while (from < end && n >= 0) {
			n = read_file(o->fd, chunk_at(t, chunk),
				      at_most(end - from, SC_OBJECT_IO_MAX), from);
			if (n == 0)
				from = end; /* it became shorter */
			else if (n > 0)
				n = put(agent, o, chunk, (uint64_t)n, from);
			if (n > 0)
				from += (uint64_t)n;
		}
	}
	chunk_put(t, chunk);
	return n < 0 ? (int)n : 0;
}

void object_changed(struct agent *agent, struct object *o, uint64_t from, uint64_t to)
{
	take_size(agent, o);
	to = at_most(to, o->size);
	if (from >= to)
		return;
	order(agent, o, SC_OBJECT_ZERO, from, to - from, 0, 0);
	if (fill(agent, o, from, to))
		log_error("a mapped file could not be read: its mappings may show zeros");
}

/* Writes some bytes to the file, recorded (retain.h): once nobody maps it any more, the object is gone. 0 or -errno. */
static int write_back(struct agent *agent, const struct object *o, const uint8_t *mem, uint64_t len,
		      uint64_t off)
{
	struct record_what w = {
	    .kind = SC_LOG_WRITE, .off = off, .size = len, .data = mem, .data_len = (uint32_t)len};
	struct sc_fid fid = {0};
	struct record r;
	int64_t err;

	if (retain_is_on(agent))
		keep_identify(agent, o->fd, &fid);
	w.obj = &fid;
	record_enter(agent, &r, &fid, NULL, NULL);
	err = record_intent(&r, NULL, &w);
	for (uint64_t done = 0; !err && done < len;) {
		ssize_t n = pwrite(o->fd, mem + done, len - done, (off_t)(off + done));

		if (n < 0)
			err = -errno;
		else
			done += (uint64_t)n;
	}
	/* What failed is written again later, all of it: the object is the truth. */
	record_end(&r, err ? err : (int64_t)len);
	record_leave(&r);
	return (int)err;
}

/* Writes the pages that differ. 0 or -errno. */
static int write_differing(struct agent *agent, const struct object *o, const uint8_t *mem,
			   const uint8_t *file, uint64_t len, uint64_t off)
{
	uint64_t at = 0;
	int err = 0;

	while (at < len && !err) {
		uint64_t end = at, n;

		while (end < len &&
		       memcmp(mem + end, file + end, n = at_most(len - end, SC_PAGE)) != 0)
			end += n;
		if (end > at)
			err = write_back(agent, o, mem + at, end - at, off + at);
		at = end + SC_PAGE;
	}
	return err;
}

int object_flush(struct agent *agent, struct object *o, uint64_t from, uint64_t to)
{
	struct objects *t = agent->objects;
	uint64_t off = from & PAGE_MASK;
	uint8_t *file;
	uint32_t chunk;
	int err = 0;

	if (!o->stored)
		return 0;
	if (o->borrowed && fcntl(o->fd, F_GETFL) & O_APPEND)
		return -EACCES; /* every write would go to the end */
	file = malloc(SC_OBJECT_IO_MAX);
	if (!file)
		return -ENOMEM;
	chunk = chunk_get(t);
	to = at_most(to, file_size(o));
	while (off < to && !err) {
		int64_t n = get(agent, o, chunk, at_most(to - off, SC_OBJECT_IO_MAX), &off, true);

		if (n <= 0 || off >= to) {
			err = n < 0 ? (int)n : 0;
			break;
		}
		n = (int64_t)at_most((uint64_t)n, to - off);
		memset(file, 0, (size_t)n);
		if (read_file(o->fd, file, (size_t)n, off) < 0)
			err = -EIO;
		else
			err = write_differing(agent, o, chunk_at(t, chunk), file, (uint64_t)n, off);
		off += (uint64_t)n;
	}
	chunk_put(t, chunk);
	free(file);
	o->failed = err;
	return err;
}

/* ---- mapping ---- */

/* Opens the handle's file for us: for writing, if the handle is. The thread wears the agent's own rights. *borrowed: the
 * position is the handle's. */
static int open_own(const struct handle *h, bool write, bool *borrowed)
{
	struct open_how how = {.flags = (write ? O_RDWR : O_RDONLY) | O_CLOEXEC};
	int fd = walk_reopen(h->fd, &how);
	int fl;

	if (fd >= 0)
		return fd;
	/* Its owner may have taken his own right away by chmod; what is open stays open. But not to append. */
	fl = fcntl(h->fd, F_GETFL);
	if (fl < 0 || fl & (O_APPEND | O_DIRECT))
		return fd;
	fd = fcntl(h->fd, F_DUPFD_CLOEXEC, 0);
	*borrowed = fd >= 0;
	return fd < 0 ? -errno : fd;
}

/* Writes down that there is this object. */
static void keep(struct agent *agent, struct object *o)
{
	struct sc_kept_object e = {.object = o->number, .token = o->token, .size = o->size};

	keep_identify(agent, o->fd, &e.fid);
	o->kept = keep_object(agent, &e);
}

/* Fills a new object; with its lock held. 0 or -errno. */
static int make(struct agent *agent, struct object *o, const struct handle *h, uint32_t session,
		bool write)
{
	int64_t res;

	o->fd = open_own(h, write, &o->borrowed);
	if (o->fd < 0)
		return o->fd;
	o->writable = write;
	if (!settle(agent, o))
		return -ENOMEM; /* a change of it that does not end: no better time will come */
	o->size = file_size(o);
	res = order(agent, o, SC_OBJECT_NEW, 0, o->size, 0, session);
	if (res)
		return (int)res;
	res = fill(agent, o, 0, o->size);
	if (res) {
		order(agent, o, SC_OBJECT_DROP, 0, 0, 0, 0);
		return (int)res;
	}
	o->made = true;
	keep(agent, o);
	return 0;
}

/* Takes a descriptor for writing from a handle that has one; with the lock held. 0 or -errno. */
static int make_writable(struct object *o, const struct handle *h)
{
	bool borrowed = false;
	int fd = o->writable ? -1 : open_own(h, true, &borrowed);

	if (o->writable)
		return 0;
	if (fd < 0)
		return fd;
	close(o->fd);
	o->fd = fd;
	o->borrowed = borrowed;
	o->writable = true;
	return 0;
}

/* Somebody may store from now on; with the lock held. 0 or -errno. */
static int allow_stores(struct agent *agent, struct object *o)
{
	if (!o->writable)
		return -EACCES;
	if (o->stored)
		return 0;
	o->stored = true;
	keep_object_stored(agent, o->kept);
	pthread_mutex_lock(&agent->objects->lock);
	gate_add(&agent->gate.stored[gate_place(o->dev, o->ino)], 1);
	o->flush_at = now_ns() + FLUSH_NS;
	pthread_mutex_unlock(&agent->objects->lock);
	return 0;
}

/* Puts what of the file the object does not show into it: a change of the file may have been cut short. 0 or -errno. */
static int refresh(struct agent *agent, struct object *o)
{
	struct objects *t = agent->objects;
	uint8_t *file = malloc(SC_OBJECT_IO_MAX);
	uint32_t chunk;
	int64_t n = 1;

	if (!file)
		return -ENOMEM;
	chunk = chunk_get(t);
	for (uint64_t off = 0; off < o->size && n > 0; off += (uint64_t)n) {
		uint64_t at = off;
		ssize_t have;

		n = get(agent, o, chunk, at_most(o->size - off, SC_OBJECT_IO_MAX), &at, false);
		have = n > 0 ? read_file(o->fd, file, (size_t)n, off) : 0;
		if (have < 0)
			n = have;
		if (n <= 0 ||
		    !memcmp(file, chunk_at(t, chunk), (size_t)at_most((uint64_t)n, (uint64_t)have)))
			continue;
		memcpy(chunk_at(t, chunk), file, (size_t)have);
		if (put(agent, o, chunk, (uint64_t)have, off) < 0)
			n = -EIO;
	}
	chunk_put(t, chunk);
	free(file);
	return n < 0 ? (int)n : 0;
}

bool objects_restore(struct agent *agent, int fd, bool writable, const struct sc_kept_object *kept,
		     uint32_t entry)
{
	struct object *o = NULL;
	struct stat st;
	int64_t res;

	if (agent->objects->usable && own_segment(agent) && fstat(fd, &st) == 0)
		o = insert(agent, dev_of(&st), st.st_ino);
	if (!o) {
		close(fd);
		return false;
	}
	o->waits = false; /* nothing has begun yet */
	o->number = kept->object;
	o->token = kept->token;
	o->fd = fd;
	o->writable = writable;
	o->size = kept->size;
	o->made = true;
	res = order(agent, o, SC_OBJECT_ADOPT, 0, 0, 0, 0);
	if (!res)
		order(agent, o, SC_OBJECT_DROP, 0, 0, 0, 0); /* nobody ever learned of it */
	if (res > 0) {
		o->grants = (uint64_t)res;
		o->kept = entry;
		take_size(agent, o);
		/* Where nobody could store the file is right; otherwise what was stored is. */
		if (kept->stored)
			allow_stores(agent, o);
		else if (refresh(agent, o))
			log_error("a mapped file could not be read: its mappings may be stale");
	} else {
		drop(agent, o);
	}
	object_leave(agent, o);
	return res > 0;
}

/* The object of an open file, made if need be, locked. NULL with *err. */
static struct object *object_of(struct agent *agent, const struct handle *h, uint32_t session,
				bool write, int *err)
{
	struct object *o;

	*err = -ENOMEM;
	for (int i = 0; i < 100; i++) {
		o = object_enter(agent, h->dev, h->ino);
		if (o)
			return o;
		o = insert(agent, h->dev, h->ino);
		if (!o)
			continue;
		*err = make(agent, o, h, session, write);
		if (!*err)
			return o;
		drop(agent, o);
		object_leave(agent, o);
		return NULL;
	}
	return NULL;
}

/* Lets the session fetch the object. 0 or -errno. */
static int64_t grant(struct agent *agent, struct object *o, uint32_t session, uint64_t rights)
{
	int64_t res = order(agent, o, SC_OBJECT_GRANT, 0, 0, rights, session);

	if (res <= 0)
		return res ? res : -EIO;
	o->grants = (uint64_t)res;
	return 0;
}

static int check_map(const struct call *c)
{
	const struct handle *h = c->h;
	uint32_t mode = h->flags & O_ACCMODE;

	if (h->flags & O_PATH)
		return -EBADF;
	if (!(c->s.arg0 & SC_OBJECT_READ) ||
	    c->s.arg0 & ~(uint64_t)(SC_OBJECT_READ | SC_OBJECT_WRITE) ||
	    c->s.len2 < sizeof(struct sc_map))
		return -EINVAL;
	if (mode == O_WRONLY || (c->s.arg0 & SC_OBJECT_WRITE && mode != O_RDWR))
		return -EACCES;
	return h->type == TYPE_REG ? 0 : -ENODEV;
}

int64_t work_map(struct actor *a, struct call *c, bool cached)
{
	uint32_t session = channel_session(c->ch)->id;
	bool may_write = (c->h->flags & O_ACCMODE) == O_RDWR;
	struct agent *agent = a->agent;
	struct object *o;
	struct sc_map out;
	int64_t res;
	int err = check_map(c);

	if (err)
		return err;
	creds_wear(&a->wardrobe, NULL);
	if (!agent->objects->usable || !own_segment(agent))
		return -ENODEV;
	o = object_of(agent, c->h, session, may_write, &err);
	if (!o)
		return err;
	res = may_write ? make_writable(o, c->h) : 0;
	if (!res && c->s.arg0 & SC_OBJECT_WRITE)
		res = allow_stores(agent, o);
	if (!res)
		res = grant(agent, o, session, c->s.arg0);
	if (res && !o->grants && order(agent, o, SC_OBJECT_DROP, 0, 0, 0, 0) != -EBUSY)
		drop(agent, o); /* nobody will ever tell that it is idle */
	out = (struct sc_map){
	    .object = o->number, .token = may_write ? o->token : 0, .size = o->size};
	object_leave(agent, o);
	if (res)
		return res;
	memcpy(channel_at(c->ch, c->s.buf2), &out, sizeof(out));
	return 0;
}

/* The object with this number, locked; NULL: there is none. */
static struct object *enter_number(struct agent *agent, uint64_t number)
{
	struct objects *t = agent->objects;
	struct object *o;

	pthread_mutex_lock(&t->lock);
	o = find_number(t, number);
	if (o)
		o->refs++;
	pthread_mutex_unlock(&t->lock);
	if (!o)
		return NULL;
	pthread_mutex_lock(&o->lock);
	if (!o->dead)
		return o;
	object_leave(agent, o);
	return NULL;
}

int64_t work_map_write(struct actor *a, struct call *c, bool cached)
{
	struct agent *agent = a->agent;
	struct object *o;
	int64_t res;

	creds_wear(&a->wardrobe, NULL);
	o = enter_number(agent, c->s.arg1);
	if (!o)
		return -ESTALE;
	res = c->s.arg2 == o->token ? allow_stores(agent, o) : -EACCES;
	if (!res)
		res = grant(agent, o, channel_session(c->ch)->id, SC_OBJECT_READ | SC_OBJECT_WRITE);
	object_leave(agent, o);
	return res;
}

int64_t work_msync(struct actor *a, struct call *c, bool cached)
{
	struct agent *agent = a->agent;
	struct object *o;
	int64_t res;

	if (c->s.off > END_OF_FILE || c->s.arg0 > END_OF_FILE - c->s.off)
		return -EINVAL;
	creds_wear(&a->wardrobe, NULL);
	o = enter_number(agent, c->s.arg1);
	if (!o)
		return -ESTALE;
	res = object_flush(agent, o, c->s.off, c->s.off + c->s.arg0);
	if (!res && o->stored && fdatasync(o->fd) < 0)
		res = -errno;
	object_leave(agent, o);
	return res;
}

/* ---- writing back, and the end ---- */

/* In a worker: writes one back. */
static void run_flush(struct agent *agent, struct job *job)
{
	struct object *o = (struct object *)((char *)job - offsetof(struct object, flush_job));
	int64_t start = now_ns(), took;
	int before, err;

	pthread_mutex_lock(&o->lock);
	before = o->failed;
	err = o->dead ? 0 : object_flush(agent, o, 0, END_OF_FILE);
	if (err && err != before)
		log_error("what was stored into a mapped file cannot be written: %s; trying again",
			  strerror(-err));
	pthread_mutex_unlock(&o->lock);
	took = now_ns() - start;
	pthread_mutex_lock(&agent->objects->lock);
	o->flush_queued = false;
	o->flush_at = now_ns() + (took * FLUSH_SHARE > FLUSH_NS ? took * FLUSH_SHARE : FLUSH_NS);
	pthread_mutex_unlock(&agent->objects->lock);
	put_ref(agent->objects, o);
}

/* In a worker: nobody maps it any more, unless somebody has begun to meanwhile. */
static void run_idle(struct agent *agent, struct job *job)
{
	struct object *o = (struct object *)((char *)job - offsetof(struct object, idle_job));
	uint64_t seen;

	pthread_mutex_lock(&o->lock);
	pthread_mutex_lock(&agent->objects->lock);
	o->idle_queued = false;
	seen = o->idle_seen;
	pthread_mutex_unlock(&agent->objects->lock);
	/* What cannot be written now (a full disk) is kept; objects_tick() tries again. */
	if (!o->dead && o->grants == seen && !object_flush(agent, o, 0, END_OF_FILE) &&
	    order(agent, o, SC_OBJECT_DROP, 0, 0, seen, 0) != -EBUSY)
		drop(agent, o);
	object_leave(agent, o);
}

/* With the table's lock held. */
static void queue_idle(struct agent *agent, struct object *o)
{
	if (o->idle_queued)
		return;
	o->idle_queued = true;
	o->refs++;
	o->idle_job.run = run_idle;
	workers_push_job(agent->workers, &o->idle_job);
}

void objects_idle(struct agent *agent, const struct sc_msg_object_idle *m)
{
	struct objects *t = agent->objects;
	struct object *o;

	pthread_mutex_lock(&t->lock);
	o = find_number(t, m->object);
	if (o) {
		o->idle_seen = m->grants;
		queue_idle(agent, o);
	}
	pthread_mutex_unlock(&t->lock);
}

void objects_tick(struct agent *agent, int64_t now)
{
	struct objects *t = agent->objects;

	if (!atomic_load_explicit(&agent->gate.any, memory_order_relaxed))
		return;
	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < BUCKETS; i++) {
		for (struct object *o = t->bucket[i]; o; o = o->next) {
			if (!o->flush_at || o->flush_queued || now < o->flush_at)
				continue;
			if (o->idle_seen)
				queue_idle(agent, o); /* does nothing if it has been mapped again */
			o->flush_queued = true;
			o->refs++;
			o->flush_job.run = run_flush;
			workers_push_job(agent->workers, &o->flush_job);
		}
	}
	pthread_mutex_unlock(&t->lock);
}

/* All objects with a reference each; NULL: none, or no memory. */
static struct object **hold_all(struct objects *t, uint32_t *n)
{
	struct object **all;

	*n = 0;
	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < BUCKETS; i++)
		for (struct object *o = t->bucket[i]; o; o = o->next)
			++*n;
	all = calloc(*n ? *n : 1, sizeof(struct object *));
	*n = 0;
	for (uint32_t i = 0; all && i < BUCKETS; i++) {
		for (struct object *o = t->bucket[i]; o; o = o->next) {
			o->refs++;
			all[(*n)++] = o;
		}
	}
	pthread_mutex_unlock(&t->lock);
	return all;
}

int objects_flush_all(struct agent *agent)
{
	struct object **all;
	uint32_t n;
	int first = 0;

	if (!atomic_load(&agent->gate.any))
		return 0;
	all = hold_all(agent->objects, &n);
	if (!all)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		int err;

		pthread_mutex_lock(&all[i]->lock);
		err = all[i]->dead ? 0 : object_flush(agent, all[i], 0, END_OF_FILE);
		object_leave(agent, all[i]);
		if (!first)
			first = err;
	}
	free(all);
	return first;
}
