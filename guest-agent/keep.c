/* SPDX-License-Identifier: BSD-3-Clause */
/* keep.c - see keep.h. */
#include "keep.h"

#include "crc32c.h"
#include "handles.h"
#include "locks.h"
#include "log.h"
#include "objects.h"
#include "orphans.h"
#include "poller.h"
#include "retain.h"
#include "service.h"
#include "session.h"
#include "storage_ops.h"
#include "tables.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Shares of the segment, in 64ths. */
static const struct table_kind kinds[SC_TABLE_KINDS] = {
    [SC_TABLE_HANDLES] = {sizeof(struct sc_kept_handle), 46},
    [SC_TABLE_GRANTS] = {sizeof(struct sc_kept_grant), 4},
    [SC_TABLE_LOCKS] = {sizeof(struct sc_kept_lock), 6},
    [SC_TABLE_OBJECTS] = {sizeof(struct sc_kept_object), 2},
    [SC_TABLE_INODES] = {sizeof(struct sc_kept_inode), 4},
};

/* Flags of an open file that opening it again must not repeat. */
#define ONCE_FLAGS (O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY)
/* Those that F_SETFL changes, but for O_NONBLOCK, which never is on a descriptor of ours. */
#define STATUS_OF_FD (O_APPEND | O_DIRECT | O_NOATIME)

/* The free entries of a table. Guarded by keep.lock. */
struct free_list {
	uint32_t *v;
	uint32_t n;
};

struct keep {
	bool on;      /* what is opened is kept */
	bool lost;    /* what was before cannot be known */
	int mount_id; /* of the root: what lies elsewhere is not kept */
	struct tables t;
	pthread_mutex_t lock;
	struct free_list grants;
	struct free_list locks;
	struct free_list objects;
};

/* name_to_handle_at()'s structure with room. */
union raw_fid {
	struct file_handle fh;
	char room[sizeof(struct file_handle) + SC_FID_MAX];
};

bool keep_init(struct agent *agent)
{
	struct keep *k = calloc(1, sizeof(*k));

	if (!k)
		return false;
	pthread_mutex_init(&k->lock, NULL);
	k->lost = true;
	agent->keep = k;
	return true;
}

bool keep_is_on(const struct agent *agent)
{
	return agent->keep->on;
}

bool keep_is_lost(const struct agent *agent)
{
	return agent->keep->lost;
}

struct sc_call_id call_id(const struct call *c)
{
	return (struct sc_call_id){
	    .session = channel_session(c->ch)->id, .lane = c->lane, .tag = c->s.tag};
}

static bool same_call(const struct sc_call_id *a, const struct sc_call_id *b)
{
	return a->session == b->session && a->lane == b->lane && a->tag == b->tag;
}

/* ---- files ---- */

/* 0, or -errno. */
static int identify(int fd, const char *name, struct sc_fid *fid, int *mount_id)
{
	union raw_fid raw = {.fh = {.handle_bytes = SC_FID_MAX}};

	memset(fid, 0, sizeof(*fid));
	if (name_to_handle_at(fd, name, &raw.fh, mount_id, *name ? 0 : AT_EMPTY_PATH) < 0)
		return -errno;
	if (raw.fh.handle_type < 0 || raw.fh.handle_type > UINT8_MAX || !raw.fh.handle_bytes)
		return -EOVERFLOW;
	fid->type = (uint8_t)raw.fh.handle_type;
	fid->len = (uint8_t)raw.fh.handle_bytes;
	memcpy(fid->bytes, raw.fh.f_handle, fid->len);
	return 0;
}

void keep_identify_at(const struct agent *agent, int dir, const char *name, struct sc_fid *fid)
{
	int mount_id;

	if (!agent->keep->on || identify(dir, name, fid, &mount_id) ||
	    mount_id != agent->keep->mount_id)
		memset(fid, 0, sizeof(*fid));
}

void keep_identify(const struct agent *agent, int fd, struct sc_fid *fid)
{
	keep_identify_at(agent, fd, "", fid);
}

/* A descriptor, or -errno. */
int keep_open_fid(const struct agent *agent, const struct sc_fid *fid, int flags)
{
	union raw_fid raw = {.fh = {.handle_bytes = fid->len, .handle_type = fid->type}};
	int fd;

	memcpy(raw.fh.f_handle, fid->bytes, fid->len);
	fd = open_by_handle_at(agent->sync_fd, &raw.fh, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* ---- entries of tables that are not indexed by handles ---- */

static uint32_t take_free(struct keep *k, struct free_list *list)
{
	uint32_t i = 0;

	pthread_mutex_lock(&k->lock);
	if (list->n)
		i = list->v[--list->n] + 1;
	pthread_mutex_unlock(&k->lock);
	return i;
}

static void give_free(struct keep *k, struct free_list *list, uint32_t entry)
{
	pthread_mutex_lock(&k->lock);
	list->v[list->n++] = entry - 1;
	pthread_mutex_unlock(&k->lock);
}

/* Collects the entries that are free, the lowest to be taken first. The state is each entry's first word. */
static bool find_free(struct keep *k, enum sc_table kind, struct free_list *list)
{
	uint32_t n = table_count(&k->t, kind);

	list->v = malloc((n + 1) * sizeof(*list->v));
	if (!list->v)
		return false;
	while (n--) {
		const uint32_t *state = table_at(&k->t, kind, n);

		if (*state == SC_KEPT_FREE)
			list->v[list->n++] = n;
	}
	return true;
}

/* ---- handles, as things happen ---- */

#define CHECKED_AT offsetof(struct sc_kept_handle, name)

static uint32_t handle_check(const struct sc_kept_handle *e)
{
	return crc32c(0, (const uint8_t *)e + CHECKED_AT,
		      offsetof(struct sc_kept_handle, status) - CHECKED_AT);
}

void keep_opened(struct agent *agent, const struct call *c, struct handle *h, uint64_t name)
{
	struct keep *k = agent->keep;
	struct sc_kept_handle *e, fresh;

	h->kept = NULL;
	if (!h->fid.len)
		keep_identify(agent, h->fd, &h->fid);
	if (!h->fid.len || !h->root->fid.len ||
	    (uint32_t)name >= table_count(&k->t, SC_TABLE_HANDLES))
		return;
	fresh = (struct sc_kept_handle){
	    .name = name,
	    .secret = h->secret,
	    .ticket = h->ticket,
	    .session = h->owner,
	    .uid = channel_session(c->ch)->cred->uid,
	    .flags = h->flags,
	    .type = h->type,
	    .fid = h->fid,
	    .root = h->root->fid,
	    .born = call_id(c),
	    .dev = h->dev,
	    .ino = h->ino,
	    .status = atomic_load_explicit(&h->status, memory_order_relaxed),
	};
	fresh.check = handle_check(&fresh);
	e = table_at(&k->t, SC_TABLE_HANDLES, (uint32_t)name);
	memcpy((uint8_t *)e + sizeof(e->state), (uint8_t *)&fresh + sizeof(e->state),
	       sizeof(fresh) - sizeof(e->state));
	/* Release: who finds it live finds the rest. */
	__atomic_store_n(&e->state, SC_KEPT_LIVE, __ATOMIC_RELEASE);
	h->kept = e;
	h->pos_now = 0;
}

void keep_closed(struct agent *agent, struct handle *h)
{
	if (!h->kept)
		return;
	__atomic_store_n(&h->kept->state, SC_KEPT_FREE, __ATOMIC_RELEASE);
	pthread_mutex_lock(&h->lock);
	for (uint32_t i = 0; i < atomic_load_explicit(&h->ngrants, memory_order_relaxed); i++) {
		keep_ungranted(agent, h->grants[i].kept);
		h->grants[i].kept = 0;
	}
	pthread_mutex_unlock(&h->lock);
}

void keep_status(struct handle *h, uint32_t status)
{
	if (h->kept)
		__atomic_store_n(&h->kept->status, status, __ATOMIC_RELEASE);
}

void keep_moved(struct handle *h, uint64_t pos, int64_t res, const struct call *c)
{
	uint32_t other = 1 - h->pos_now;

	__atomic_store_n(&h->pos, pos,
			 __ATOMIC_RELAXED); /* locks.c looks without having the position */
	if (!h->kept)
		return;
	h->kept->pos[other] = (struct sc_kept_pos){.pos = pos, .res = res, .by = call_id(c)};
	/* Release: who finds the index finds what it names. */
	__atomic_store_n(&h->kept->pos_now, other, __ATOMIC_RELEASE);
	h->pos_now = other;
}

static uint32_t grant_check(const struct sc_kept_grant *e)
{
	return crc32c(0, &e->name, 24 - offsetof(struct sc_kept_grant, name));
}

uint32_t keep_granted(struct agent *agent, uint64_t name, uint32_t id)
{
	struct keep *k = agent->keep;
	uint32_t entry = k->on ? take_free(k, &k->grants) : 0;
	struct sc_kept_grant *e;

	if (!entry)
		return 0;
	e = table_at(&k->t, SC_TABLE_GRANTS, entry - 1);
	e->name = name;
	e->session = id;
	e->reserved[0] = 0;
	e->check = grant_check(e);
	__atomic_store_n(&e->state, SC_KEPT_LIVE, __ATOMIC_RELEASE);
	return entry;
}

void keep_ungranted(struct agent *agent, uint32_t entry)
{
	struct keep *k = agent->keep;
	struct sc_kept_grant *e;

	if (!entry)
		return;
	e = table_at(&k->t, SC_TABLE_GRANTS, entry - 1);
	__atomic_store_n(&e->state, SC_KEPT_FREE, __ATOMIC_RELEASE);
	give_free(k, &k->grants, entry);
}

/* ---- locks ---- */

static uint32_t lock_check(const struct sc_kept_lock *e)
{
	return crc32c(0, &e->kind, 96 - offsetof(struct sc_kept_lock, kind));
}

uint32_t keep_lock_room(struct agent *agent)
{
	return agent->keep->on ? take_free(agent->keep, &agent->keep->locks) : 0;
}

void keep_lock(struct agent *agent, uint32_t entry, const struct sc_kept_lock *lock)
{
	struct sc_kept_lock *e = table_at(&agent->keep->t, SC_TABLE_LOCKS, entry - 1);
	struct sc_kept_lock fresh = *lock;

	fresh.check = lock_check(&fresh);
	memcpy((uint8_t *)e + sizeof(e->state), (uint8_t *)&fresh + sizeof(e->state),
	       sizeof(fresh) - sizeof(e->state));
	/* Release: who finds it live finds the rest. */
	__atomic_store_n(&e->state, SC_KEPT_LIVE, __ATOMIC_RELEASE);
}

void keep_unlock(struct agent *agent, uint32_t entry)
{
	struct sc_kept_lock *e = table_at(&agent->keep->t, SC_TABLE_LOCKS, entry - 1);

	__atomic_store_n(&e->state, SC_KEPT_FREE, __ATOMIC_RELEASE);
}

void keep_lock_free(struct agent *agent, uint32_t entry)
{
	if (!entry)
		return;
	keep_unlock(agent, entry);
	give_free(agent->keep, &agent->keep->locks, entry);
}

/* ---- file objects ---- */

static uint32_t object_check(const struct sc_kept_object *e)
{
	return crc32c(0, &e->object,
		      offsetof(struct sc_kept_object, size) -
			  offsetof(struct sc_kept_object, object));
}

uint32_t keep_object(struct agent *agent, const struct sc_kept_object *o)
{
	struct keep *k = agent->keep;
	uint32_t entry = k->on && o->fid.len ? take_free(k, &k->objects) : 0;
	struct sc_kept_object *e, fresh = *o;

	if (!entry)
		return 0;
	fresh.check = object_check(&fresh);
	e = table_at(&k->t, SC_TABLE_OBJECTS, entry - 1);
	memcpy((uint8_t *)e + sizeof(e->state), (uint8_t *)&fresh + sizeof(e->state),
	       sizeof(fresh) - sizeof(e->state));
	/* Release: who finds it live finds the rest. */
	__atomic_store_n(&e->state, SC_KEPT_LIVE, __ATOMIC_RELEASE);
	return entry;
}

void keep_object_size(struct agent *agent, uint32_t entry, uint64_t size)
{
	struct sc_kept_object *e;

	if (!entry)
		return;
	e = table_at(&agent->keep->t, SC_TABLE_OBJECTS, entry - 1);
	__atomic_store_n(&e->size, size, __ATOMIC_RELEASE);
}

void keep_object_stored(struct agent *agent, uint32_t entry)
{
	struct sc_kept_object *e;

	if (!entry)
		return;
	e = table_at(&agent->keep->t, SC_TABLE_OBJECTS, entry - 1);
	__atomic_store_n(&e->stored, 1, __ATOMIC_RELEASE);
}

void keep_object_gone(struct agent *agent, uint32_t entry)
{
	struct sc_kept_object *e;

	if (!entry)
		return;
	e = table_at(&agent->keep->t, SC_TABLE_OBJECTS, entry - 1);
	__atomic_store_n(&e->state, SC_KEPT_FREE, __ATOMIC_RELEASE);
	give_free(agent->keep, &agent->keep->objects, entry);
}

/* ---- recovery ---- */

/* What recovery needs for its own time. */
struct rebuild {
	struct agent *agent;
	struct root **roots; /* one reference each; found by fid */
	uint32_t nroots;
	uint32_t restored;
	uint32_t locks;
	uint32_t objects;
	uint32_t gone; /* files that are no more, or cannot be opened */
	int err;       /* of the last of those */
};

/* The root with this identity, without a reference for the caller. NULL: it is no more. */
static struct root *root_by_fid(struct rebuild *r, const struct sc_fid *fid)
{
	struct root **more;
	struct root *root;
	int fd;

	for (uint32_t i = 0; i < r->nroots; i++)
		if (!memcmp(&r->roots[i]->fid, fid, sizeof(*fid)))
			return r->roots[i];
	fd = keep_open_fid(r->agent, fid, O_PATH | O_DIRECTORY);
	if (fd < 0) {
		r->err = fd;
		return NULL;
	}
	more = realloc(r->roots, (r->nroots + 1) * sizeof(struct root *));
	if (more)
		r->roots = more;
	root = more ? root_new(fd) : NULL;
	if (!root) {
		if (!more)
			close(fd);
		r->err = -ENOMEM;
		return NULL;
	}
	root->fid = *fid;
	r->roots[r->nroots++] = root;
	return root;
}

/* Why an entry is impossible, or NULL. */
static const char *judge_handle(const struct sc_kept_handle *e, uint32_t index)
{
	if (e->state != SC_KEPT_LIVE)
		return "an open file is in no known state";
	if (e->check != handle_check(e))
		return "an open file's checksum is wrong";
	if ((uint32_t)e->name != index || !(e->name >> 32) || !e->session || e->type > 15 ||
	    !e->fid.len || e->fid.len > SC_FID_MAX || !e->root.len || e->root.len > SC_FID_MAX)
		return "an open file is impossible";
	if (e->pos_now > 1 || e->pos[e->pos_now].pos > INT64_MAX)
		return "an open file's position is impossible";
	return NULL;
}

/* Why a lock is impossible, or NULL. */
static const char *judge_lock(const struct sc_kept_lock *e)
{
	if (e->state != SC_KEPT_LIVE)
		return "a lock is in no known state";
	if (e->check != lock_check(e))
		return "a lock's checksum is wrong";
	if (e->kind > 2 || (e->type != F_RDLCK && e->type != F_WRLCK) || e->start < 0 ||
	    e->end < e->start)
		return "a lock is impossible";
	return NULL;
}

/* Why an object is impossible, or NULL. */
static const char *judge_object(const struct sc_kept_object *e)
{
	if (e->state != SC_KEPT_LIVE)
		return "a mapped file is in no known state";
	if (e->check != object_check(e))
		return "a mapped file's checksum is wrong";
	if (!e->object || !e->fid.len || e->fid.len > SC_FID_MAX || e->stored > 1 ||
	    e->size > INT64_MAX)
		return "a mapped file is impossible";
	return NULL;
}

/* Opens the file again as it was. A descriptor, or -errno. */
static int reopen(const struct agent *agent, const struct sc_kept_handle *e)
{
	int flags = (int)(e->flags & ~(uint32_t)ONCE_FLAGS);
	struct stat st;
	int fd;

	if ((flags & O_TMPFILE) == O_TMPFILE)
		flags &= ~O_TMPFILE;
	if (e->flags & O_PATH)
		flags = O_PATH | O_NOFOLLOW;
	else
		flags |= O_NONBLOCK;
	fd = keep_open_fid(agent, &e->fid, flags);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || (st.st_mode & S_IFMT) >> 12 != e->type) {
		close(fd);
		return -ESTALE;
	}
	if (!(e->flags & O_PATH) && e->type == TYPE_REG)
		fcntl(fd, F_SETFL, e->status & STATUS_OF_FD);
	if (!(e->flags & O_PATH) && e->type == TYPE_DIR)
		lseek(fd, (off_t)e->pos[e->pos_now].pos, SEEK_SET);
	return fd;
}

/* What the file is called now: a replay may have made it once more. */
static const struct sc_fid *fid_now(const struct agent *agent, const struct sc_kept_handle *e)
{
	const struct sc_log *log = agent->own[SC_OWN_LOG].base;
	uint64_t at = __atomic_load_n(&e->moved_at, __ATOMIC_ACQUIRE);

	return log && at && at <= __atomic_load_n(&log->synced, __ATOMIC_ACQUIRE) ? &e->moved
										  : &e->fid;
}

/* Makes the handle of a checked entry. False: r->err. */
static bool restore_handle(struct rebuild *r, const struct sc_kept_handle *e)
{
	struct agent *agent = r->agent;
	struct root *root = root_by_fid(r, &e->root);
	struct session *s;
	struct stat st;
	struct handle *h;
	int fd;

	if (!root)
		return false;
	fd = reopen(agent, e);
	if (fd < 0) {
		r->err = fd;
		return false;
	}
	s = session_expect(agent->sessions, e->session);
	h = s ? handle_restore(agent->handles, e->name, fd, s, root) : NULL;
	if (!h) {
		close(fd);
		if (s)
			session_put(s);
		r->err = -ENOMEM;
		return false;
	}
	fstat(fd, &st);
	h->type = e->type;
	h->flags = e->flags;
	atomic_store_explicit(&h->status, e->status, memory_order_relaxed);
	h->secret = e->secret;
	h->ticket = e->ticket;
	h->fid = e->fid;
	h->dev = (uint64_t)major(st.st_dev) << 32 | minor(st.st_dev);
	h->ino = st.st_ino;
	h->pos = e->pos[e->pos_now].pos;
	h->pos_now = e->pos_now;
	h->kept = table_at(&agent->keep->t, SC_TABLE_HANDLES, (uint32_t)e->name);
	orphan_opened(agent, h, true);
	if (e->ticket)
		ticket_restore(s, e->ticket, e->name);
	session_put(s); /* the handle has its own reference */
	return true;
}

/* Checks all entries, then restores them: nothing is used of tables of which anything is wrong. False: damaged. */
static bool restore_handles(struct rebuild *r)
{
	struct tables *t = &r->agent->keep->t;
	struct sc_kept_handle e;

	for (uint32_t i = 0; i < table_count(t, SC_TABLE_HANDLES); i++) {
		const char *why;

		memcpy(&e, table_at(t, SC_TABLE_HANDLES, i), sizeof(e));
		why = e.state == SC_KEPT_FREE ? NULL : judge_handle(&e, i);
		if (why) {
			tables_give_up(t, why);
			return false;
		}
	}
	for (uint32_t i = 0; i < table_count(t, SC_TABLE_LOCKS); i++) {
		struct sc_kept_lock lock;
		const char *why;

		memcpy(&lock, table_at(t, SC_TABLE_LOCKS, i), sizeof(lock));
		why = lock.state == SC_KEPT_FREE ? NULL : judge_lock(&lock);
		if (why) {
			tables_give_up(t, why);
			return false;
		}
	}
	for (uint32_t i = 0; i < table_count(t, SC_TABLE_OBJECTS); i++) {
		struct sc_kept_object object;
		const char *why;

		memcpy(&object, table_at(t, SC_TABLE_OBJECTS, i), sizeof(object));
		why = object.state == SC_KEPT_FREE ? NULL : judge_object(&object);
		if (why) {
			tables_give_up(t, why);
			return false;
		}
	}
	for (uint32_t i = 0; i < table_count(t, SC_TABLE_HANDLES); i++) {
		struct sc_kept_handle *shared = table_at(t, SC_TABLE_HANDLES, i);

		memcpy(&e, shared, sizeof(e));
		if (e.state == SC_KEPT_FREE)
			continue;
		e.fid = *fid_now(r->agent, shared);
		if (restore_handle(r, &e)) {
			r->restored++;
			continue;
		}
		__atomic_store_n(&shared->state, SC_KEPT_FREE, __ATOMIC_RELEASE);
		r->gone++;
	}
	return true;
}

/* Gives sessions the handles of others back that they were granted. */
static void restore_grants(struct rebuild *r)
{
	struct agent *agent = r->agent;
	struct tables *t = &agent->keep->t;

	for (uint32_t i = 0; i < table_count(t, SC_TABLE_GRANTS); i++) {
		struct sc_kept_grant *shared = table_at(t, SC_TABLE_GRANTS, i), e = *shared;
		struct session *s = NULL;
		struct handle *h = NULL;
		bool ok = false;

		if (e.state == SC_KEPT_FREE)
			continue;
		if (e.state == SC_KEPT_LIVE && e.check == grant_check(&e) && e.session)
			h = handle_restored(agent->handles, e.name);
		if (h)
			s = session_expect(agent->sessions, e.session);
		if (s) {
			ok = handle_add_grant(h, e.session, i + 1) && session_add_grant(s, e.name);
			session_put(s);
		}
		if (!ok)
			__atomic_store_n(&shared->state, SC_KEPT_FREE, __ATOMIC_RELEASE);
	}
}

/* Locks of files that are open again. */
static void restore_locks(struct rebuild *r)
{
	struct agent *agent = r->agent;
	struct tables *t = &agent->keep->t;

	for (uint32_t i = 0; i < table_count(t, SC_TABLE_LOCKS); i++) {
		struct sc_kept_lock *shared = table_at(t, SC_TABLE_LOCKS, i), e = *shared;
		struct handle *h;

		if (e.state == SC_KEPT_FREE)
			continue;
		h = handle_restored(agent->handles, e.through);
		if (h && locks_restore(agent->locks, h, &e, i + 1))
			r->locks++;
		else
			__atomic_store_n(&shared->state, SC_KEPT_FREE, __ATOMIC_RELEASE);
	}
}

/* Files that are mapped, by processes whose mappings have not noticed anything. */
static void restore_objects(struct rebuild *r)
{
	struct agent *agent = r->agent;
	struct tables *t = &agent->keep->t;

	for (uint32_t i = 0; i < table_count(t, SC_TABLE_OBJECTS); i++) {
		struct sc_kept_object *shared = table_at(t, SC_TABLE_OBJECTS, i), e = *shared;
		bool writable = true;
		int fd;

		if (e.state == SC_KEPT_FREE)
			continue;
		fd = keep_open_fid(agent, &e.fid, O_RDWR);
		if (fd < 0) {
			writable = false;
			fd = keep_open_fid(agent, &e.fid, O_RDONLY);
		}
		if (fd >= 0 && objects_restore(agent, fd, writable, &e, i + 1)) {
			r->objects++;
			continue;
		}
		/* (objects_restore() has closed it.) What was stored and is not in the file is lost with the file. */
		__atomic_store_n(&shared->state, SC_KEPT_FREE, __ATOMIC_RELEASE);
	}
}

/* True if files can be opened by their identity; says why not. */
static bool can_reopen(struct agent *agent)
{
	struct sc_fid fid;
	int err = identify(agent->sync_fd, "", &fid, &agent->keep->mount_id);
	int fd = err ? err : keep_open_fid(agent, &fid, O_PATH);

	if (fd >= 0)
		close(fd);
	if (fd == -EPERM)
		log_warning("without the capability DAC_READ_SEARCH open files cannot be opened "
			    "again: they do not outlive this agent");
	else if (fd < 0)
		log_warning("the file system of %s has no file handles (%s): open files do not "
			    "outlive this agent",
			    agent->opt.root, strerror(-fd));
	return fd >= 0;
}

static void restore(struct agent *agent)
{
	struct rebuild r = {.agent = agent};
	int64_t start = now_ns();

	if (!restore_handles(&r)) {
		agent->keep->lost = true;
	} else {
		restore_grants(&r);
		restore_locks(&r);
		restore_objects(&r);
		log_info("took over %u open files, %u locks and %u mapped files in %lld us",
			 r.restored, r.locks, r.objects, (long long)((now_ns() - start) / 1000));
	}
	if (r.gone)
		log_error("%u open files of before are lost: %s", r.gone, strerror(-r.err));
	for (uint32_t i = 0; i < r.nroots; i++)
		root_put(r.roots[i]);
	free(r.roots);
}

/* ---- files that were changed ---- */

static bool has_fid(const struct agent *agent, const struct sc_kept_handle *e,
		    const struct sc_fid *fid)
{
	return __atomic_load_n(&e->state, __ATOMIC_RELAXED) == SC_KEPT_LIVE &&
	       !memcmp(fid_now(agent, e), fid, sizeof(*fid));
}

/* For replay.h. */
static bool is_open(void *arg, const struct sc_fid *fid)
{
	const struct agent *agent = arg;
	const struct tables *t = &agent->keep->t;

	for (uint32_t i = 0; i < table_count(t, SC_TABLE_HANDLES); i++)
		if (has_fid(agent, table_at(t, SC_TABLE_HANDLES, i), fid))
			return true;
	return false;
}

/* For retain.h. */
static void moved(void *arg, const struct sc_fid *was, const struct sc_fid *now, uint64_t synced)
{
	const struct agent *agent = arg;
	const struct tables *t = &agent->keep->t;

	for (uint32_t i = 0; i < table_count(t, SC_TABLE_HANDLES); i++) {
		struct sc_kept_handle *e = table_at(t, SC_TABLE_HANDLES, i);

		if (!has_fid(agent, e, was))
			continue;
		e->moved = *now;
		__atomic_store_n(&e->moved_at, synced, __ATOMIC_RELEASE);
	}
}

bool keep_recover(struct agent *agent)
{
	struct keep *k = agent->keep;
	enum tables_found found =
	    tables_open(&k->t, &agent->own[SC_OWN_STATE], agent->epoch, agent->incarnation, kinds);

	if (found == TABLES_NONE)
		return true;
	k->on = can_reopen(agent);
	k->lost = found != TABLES_KEPT || !k->on;
	if (!k->on) {
		if (found == TABLES_KEPT)
			tables_give_up(&k->t, "nobody can open the files again");
		return true;
	}
	handles_limit(agent->handles, table_count(&k->t, SC_TABLE_HANDLES));
	if (!retain_recover(agent, is_open, moved, agent) && found == TABLES_KEPT) {
		tables_give_up(&k->t, "what was changed could not be restored");
		found = TABLES_LOST;
		k->lost = true;
	}
	if (retain_is_on(agent))
		orphans_init(agent);
	if (found == TABLES_KEPT)
		restore(agent);
	orphans_sweep(agent);
	if (!find_free(k, SC_TABLE_GRANTS, &k->grants) ||
	    !find_free(k, SC_TABLE_LOCKS, &k->locks) ||
	    !find_free(k, SC_TABLE_OBJECTS, &k->objects) || !locks_kept(agent->locks)) {
		log_error("not enough memory for the tables");
		return false;
	}
	tables_rebuilt(&k->t);
	return true;
}

void keep_resumed(struct agent *agent)
{
	struct session *s;

	while ((s = sessions_take_expected(agent->sessions))) {
		agent->service->end_session(agent, s);
		session_put(s);
	}
}

/* ---- calls that pended ---- */

/* The handle that was opened by this call, with a user added; NULL: none. */
static struct handle *find_born(struct agent *agent, const struct sc_call_id *id)
{
	struct tables *t = &agent->keep->t;

	for (uint32_t i = 0; i < table_count(t, SC_TABLE_HANDLES); i++) {
		const struct sc_kept_handle *e = table_at(t, SC_TABLE_HANDLES, i);
		struct sc_call_id born = e->born;
		struct handle *h;

		if (__atomic_load_n(&e->state, __ATOMIC_ACQUIRE) != SC_KEPT_LIVE ||
		    !same_call(&born, id))
			continue;
		h = handle_restored(agent->handles, e->name);
		if (h && h->owner == id->session && handle_hold_live(h))
			return h;
	}
	return NULL;
}

const struct tables *keep_tables(const struct agent *agent)
{
	return &agent->keep->t;
}

/* OPEN, ROOT: true if it had made its handle. */
static bool opened_before(struct agent *agent, struct call *c)
{
	struct sc_call_id id = call_id(c);
	struct sc_stat st;

	c->h2 = find_born(agent, &id);
	if (!c->h2)
		return false;
	c->res = (int64_t)handle_id(agent->handles, c->h2);
	c->cqe_flags |= c->h2->type << SC_CQE_TYPE_SHIFT;
	if (c->s.op == SC_OP_OPEN && c->s.len2 >= sizeof(st) &&
	    !stat_at(c->h2->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st)) {
		show_number(agent, &st);
		memcpy(channel_at(c->ch, c->s.buf2), &st, sizeof(st));
	}
	return true;
}

/* True if the call was what moved the position last. */
static bool moved_before(const struct handle *h, const struct sc_call_id *id, int64_t *res)
{
	struct sc_kept_pos last;

	if (!h || !h->kept)
		return false;
	last = h->kept->pos[h->pos_now];
	if (!same_call(&last.by, id))
		return false;
	*res = last.res;
	return true;
}

bool keep_settled(struct agent *agent, struct call *c)
{
	struct sc_call_id id = call_id(c);
	bool first, second;

	if (c->s.op == SC_OP_OPEN || c->s.op == SC_OP_ROOT)
		return opened_before(agent, c);
	if (!c->has_pos && !c->has_pos2)
		return false;
	first = c->has_pos && moved_before(c->h, &id, &c->res);
	second = c->has_pos2 && moved_before(c->h2, &id, &c->res);
	/* A copy that had moved one of its positions moves the other now. */
	if (second && c->has_pos && !first)
		keep_moved(c->h, c->h->pos + (uint64_t)c->res, c->res, c);
	if (first && c->has_pos2 && !second)
		keep_moved(c->h2, c->h2->pos + (uint64_t)c->res, c->res, c);
	c->settled = first || second;
	return c->settled;
}
