/* SPDX-License-Identifier: BSD-3-Clause */
/* orphans.c - see orphans.h. */
#include "orphans.h"

#include "creds.h"
#include "fault.h"
#include "handles.h"
#include "log.h"
#include "replay.h"
#include "storage_ops.h"
#include "workers.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BUCKETS	     1024u
#define DIRENT_BYTES 4096

struct bucket {
	pthread_mutex_t lock; /* guards what follows; never held across a system call */
	pthread_cond_t calm;  /* nobody takes names away */
	struct handle *first;
	uint32_t taking; /* threads that do */
};

struct orphans {
	int fd; /* of the directory */
	struct bucket bucket[BUCKETS];
};

/* An orphan whose last handle is gone. */
struct drop {
	struct job job;
	struct sc_fid fid;
};

static struct bucket *bucket_of(struct orphans *t, const struct sc_fid *fid)
{
	uint64_t sum = 0, word;

	for (size_t i = 0; i < sizeof(*fid); i += sizeof(word)) {
		memcpy(&word, (const uint8_t *)fid + i, sizeof(word));
		sum = (sum ^ word) * 0x9e3779b97f4a7c15ull;
		sum ^= sum >> 32;
	}
	return &t->bucket[sum % BUCKETS];
}

static bool same(const struct sc_fid *a, const struct sc_fid *b)
{
	return !memcmp(a, b, sizeof(*a));
}

/* An open file with this identity. With the bucket's lock held. */
static struct handle *find(const struct bucket *b, const struct sc_fid *fid)
{
	struct handle *h = b->first;

	while (h && !same(&h->fid, fid))
		h = h->same_next;
	return h;
}

/* Marks all handles of the file. With the bucket's lock held. False: there is none. */
static bool mark(struct bucket *b, const struct sc_fid *fid, enum orphan what)
{
	bool any = false;

	for (struct handle *h = b->first; h; h = h->same_next) {
		if (!same(&h->fid, fid))
			continue;
		atomic_store_explicit(&h->orphan, what, memory_order_relaxed);
		any = true;
	}
	return any;
}

static void remove_orphan(const struct orphans *t, const struct sc_fid *fid)
{
	char name[REPLAY_ORPHAN_NAME];

	replay_orphan_name(fid, name);
	if (unlinkat(t->fd, name, 0) < 0 && errno != ENOENT)
		log_error("cannot remove %s/%s/%s: %m", SC_OWN_DIR, SC_OWN_ORPHANS, name);
}

/* ---- start ---- */

static int make_dir(int at, const char *name)
{
	if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
		return -1;
	return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

void orphans_init(struct agent *agent)
{
	struct orphans *t = calloc(1, sizeof(*t));
	int own;

	if (!t) {
		log_error("not enough memory for the table of open files");
		return;
	}
	own = make_dir(agent->root_fd, SC_OWN_DIR);
	t->fd = own < 0 ? -1 : make_dir(own, SC_OWN_ORPHANS);
	if (t->fd < 0)
		log_warning("cannot make %s/%s in %s: %m", SC_OWN_DIR, SC_OWN_ORPHANS,
			    agent->opt.root);
	if (own >= 0)
		close(own);
	if (t->fd < 0) {
		free(t);
		return;
	}
	for (uint32_t i = 0; i < BUCKETS; i++) {
		pthread_mutex_init(&t->bucket[i].lock, NULL);
		pthread_cond_init(&t->bucket[i].calm, NULL);
	}
	agent->orphans = t;
}

/* The identity that a name says; false: it is none. */
static bool parse_name(const char *name, struct sc_fid *fid)
{
	uint8_t raw[2 + SC_FID_MAX] = {0};
	size_t n = strlen(name) / 2;

	if (strlen(name) % 2 || n < 2 || n > sizeof(raw))
		return false;
	for (size_t i = 0; i < n; i++) {
		unsigned int byte;

		if (sscanf(name + 2 * i, "%2x", &byte) != 1)
			return false;
		raw[i] = (uint8_t)byte;
	}
	memset(fid, 0, sizeof(*fid));
	fid->type = raw[0];
	fid->len = raw[1];
	memcpy(fid->bytes, raw + 2, n - 2);
	return n - 2 == fid->len;
}

static void sweep_one(struct orphans *t, const char *name)
{
	struct sc_fid fid;
	struct bucket *b;
	bool open = false;

	if (parse_name(name, &fid)) {
		b = bucket_of(t, &fid);
		pthread_mutex_lock(&b->lock);
		open = mark(b, &fid, ORPHAN_UNLINKED);
		pthread_mutex_unlock(&b->lock);
	}
	if (!open && unlinkat(t->fd, name, 0) < 0)
		log_warning("cannot remove %s/%s/%s: %m", SC_OWN_DIR, SC_OWN_ORPHANS, name);
}

void orphans_sweep(struct agent *agent)
{
	struct orphans *t = agent->orphans;
	_Alignas(8) char buf[DIRENT_BYTES];
	long n;

	if (!t)
		return;
	lseek(t->fd, 0, SEEK_SET);
	while ((n = syscall(SYS_getdents64, t->fd, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n;) {
			/* reclen is at 16, the name at 19. */
			uint16_t len;
			const char *name = buf + at + 19;

			memcpy(&len, buf + at + 16, sizeof(len));
			if (strcmp(name, ".") && strcmp(name, ".."))
				sweep_one(t, name);
			at += len;
		}
	}
}

/* ---- open files ---- */

bool orphan_opened(struct agent *agent, struct handle *h, bool wait)
{
	struct orphans *t = agent->orphans;
	struct bucket *b;
	struct handle *other;

	if (!t || h->type != TYPE_REG || !h->fid.len)
		return true;
	b = bucket_of(t, &h->fid);
	pthread_mutex_lock(&b->lock);
	if (b->taking && !wait) {
		pthread_mutex_unlock(&b->lock);
		return false;
	}
	other = find(b, &h->fid);
	atomic_store_explicit(&h->orphan,
			      other ? atomic_load_explicit(&other->orphan, memory_order_relaxed)
				    : ORPHAN_NOT,
			      memory_order_relaxed);
	h->same_next = b->first;
	__atomic_store_n(&h->same_prev, &b->first, __ATOMIC_RELAXED);
	if (b->first)
		__atomic_store_n(&b->first->same_prev, &h->same_next, __ATOMIC_RELAXED);
	b->first = h;
	while (b->taking)
		pthread_cond_wait(&b->calm, &b->lock);
	pthread_mutex_unlock(&b->lock);
	return true;
}

bool orphan_is_too_late(const struct handle *h)
{
	struct stat st;

	return __atomic_load_n(&h->same_prev, __ATOMIC_RELAXED) &&
	       !atomic_load_explicit(&h->orphan, memory_order_relaxed) && fstat(h->fd, &st) == 0 &&
	       st.st_nlink == 0;
}

static void run_drop(struct agent *agent, struct job *job)
{
	struct drop *d = (struct drop *)job;

	remove_orphan(agent->orphans, &d->fid);
	free(d);
}

void orphan_closed(struct agent *agent, struct handle *h)
{
	struct orphans *t = agent->orphans;
	struct bucket *b;
	struct drop *d = NULL;

	if (!__atomic_load_n(&h->same_prev, __ATOMIC_RELAXED))
		return;
	b = bucket_of(t, &h->fid);
	pthread_mutex_lock(&b->lock);
	*h->same_prev = h->same_next;
	if (h->same_next)
		__atomic_store_n(&h->same_next->same_prev, h->same_prev, __ATOMIC_RELAXED);
	__atomic_store_n(&h->same_prev, NULL, __ATOMIC_RELAXED);
	if (atomic_load_explicit(&h->orphan, memory_order_relaxed) && !find(b, &h->fid))
		d = malloc(sizeof(*d)); /* without memory it stays until the next start */
	pthread_mutex_unlock(&b->lock);
	if (!d)
		return;
	d->fid = h->fid;
	d->job.run = run_drop;
	workers_push_job(agent->workers, &d->job);
}

int orphan_adopt(struct agent *agent, int fd, const struct sc_fid *fid)
{
	char name[REPLAY_ORPHAN_NAME], proc[32];

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	replay_orphan_name(fid, name);
	return linkat(AT_FDCWD, proc, agent->orphans->fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

void orphan_named(struct agent *agent, const struct sc_fid *fid)
{
	struct bucket *b = bucket_of(agent->orphans, fid);

	pthread_mutex_lock(&b->lock);
	mark(b, fid, ORPHAN_NOT);
	pthread_mutex_unlock(&b->lock);
	remove_orphan(agent->orphans, fid);
}

enum orphan orphan_state(struct agent *agent, const struct sc_fid *fid)
{
	enum orphan what = ORPHAN_NOT;
	struct bucket *b;
	struct handle *h;

	if (!agent->orphans || !fid->len)
		return what;
	b = bucket_of(agent->orphans, fid);
	pthread_mutex_lock(&b->lock);
	h = find(b, fid);
	if (h)
		what = (enum orphan)atomic_load_explicit(&h->orphan, memory_order_relaxed);
	pthread_mutex_unlock(&b->lock);
	return what;
}

/* ---- names that go ---- */

/* Gives the file a name among the orphans if this is its last one. */
static bool keep_victim(const struct orphans *t, const struct sc_fid *fid, int dir,
			const char *name)
{
	char to[REPLAY_ORPHAN_NAME];
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) ||
	    st.st_nlink != 1)
		return false;
	replay_orphan_name(fid, to);
	if (linkat(dir, name, t->fd, to, 0) == 0 || errno == EEXIST)
		return true;
	log_error("an open file that is being removed cannot be kept: %m");
	return false;
}

void victim_begin(struct actor *a, struct victim *v, const struct sc_fid *fid, int dir,
		  const char *name)
{
	const struct cred *worn = a->wardrobe.now;
	struct bucket *b;
	bool open;

	v->t = a->agent->orphans;
	v->kept = false;
	if (!v->t || !fid->len) {
		v->t = NULL;
		return;
	}
	v->fid = *fid;
	b = bucket_of(v->t, fid);
	pthread_mutex_lock(&b->lock);
	b->taking++;
	open = find(b, fid);
	pthread_mutex_unlock(&b->lock);
	if (!open)
		return;
	creds_wear(&a->wardrobe, NULL);
	v->kept = keep_victim(v->t, fid, dir, name);
	creds_wear(&a->wardrobe, worn);
	SC_FAULT_POINT("orphan:kept");
}

void victim_end(struct actor *a, struct victim *v, bool gone)
{
	const struct cred *worn = a->wardrobe.now;
	struct bucket *b;
	bool drop = false;

	if (!v->t)
		return;
	b = bucket_of(v->t, &v->fid);
	pthread_mutex_lock(&b->lock);
	if (v->kept)
		drop = !gone || !mark(b, &v->fid, ORPHAN_UNLINKED);
	if (--b->taking == 0)
		pthread_cond_broadcast(&b->calm);
	pthread_mutex_unlock(&b->lock);
	if (!drop)
		return;
	creds_wear(&a->wardrobe, NULL);
	remove_orphan(v->t, &v->fid);
	creds_wear(&a->wardrobe, worn);
}

bool names_own_dir(const char *path)
{
	const size_t n = sizeof(SC_OWN_DIR) - 1;
	const char *at = path;

	while ((at = strstr(at, SC_OWN_DIR))) {
		if ((at == path || at[-1] == '/') && (at[n] == '/' || !at[n]))
			return true;
		at += n;
	}
	return false;
}
