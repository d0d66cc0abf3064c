/* SPDX-License-Identifier: BSD-3-Clause */
/* object.c - file objects; see object.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blob.h"
#include "broker.h"
#include "channel.h"
#include "log.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u /* Linux 6.3 */
#endif

static const struct object OBJECT_FREE = {.fd = -1, .watch = -1};

/* ---- memory ---- */

static void fd_path(int fd, char *path, size_t size)
{
	snprintf(path, size, "/proc/self/fd/%d", fd);
}

/* A new open of the same file. Returns it, or -errno. */
static int reopen(int fd, int flags)
{
	char path[32];
	int new;

	fd_path(fd, path, sizeof(path));
	/* Without waiting for a lease that somebody of our own user id could have taken. */
	new = open(path, flags | O_CLOEXEC | O_NONBLOCK);
	return new < 0 ? -errno : new;
}

/* An empty memfd, open once, that nobody else can open anew or seal. Returns it, or -errno. */
static int make_memory(uint64_t size)
{
	int fd = memfd_create("vhost-sc-file", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	int own = -1;

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("vhost-sc-file", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	/* Opened anew at once: only opens by name are counted, which object_held() relies on. */
	if (fchmod(fd, 0600) || fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL) || ftruncate(fd, (off_t)size))
		own = -errno;
	else
		own = reopen(fd, O_RDWR);
	close(fd);
	return own;
}

/* True if anybody but us has the object open or mapped. */
static bool held(const struct object *o)
{
	if (fcntl(o->fd, F_SETLEASE, F_WRLCK))
		return true;
	fcntl(o->fd, F_SETLEASE, F_UNLCK);
	return false;
}

/* ---- the table ---- */

static struct object *find(struct broker *b, uint64_t number)
{
	uint32_t index;

	if (!number || !idmap_get(&b->objects.by_number, number, &index))
		return NULL;
	return &b->objects.v[index];
}

static uint32_t index_of(const struct broker *b, const struct object *o)
{
	return (uint32_t)(o - b->objects.v);
}

/* What all objects may take: half of the machine's memory. */
static uint64_t bytes_limit(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) / 2 * SC_PAGE;
}

/* May this user have so many more bytes, and an object more? */
static bool may_have(const struct broker *b, uid_t uid, uint64_t bytes, bool one_more)
{
	uint64_t limit = bytes_limit();
	uint64_t mine = 0;
	uint32_t count = 0;

	if (!b->objects.v || bytes > limit || b->objects.bytes + bytes > limit)
		return false;
	for (uint32_t i = 0; uid && i < OBJECT_MAX; i++) {
		const struct object *o = &b->objects.v[i];

		if (!o->number || o->uid != uid)
			continue;
		mine += o->size;
		count++;
	}
	/* Another than root leaves a quarter to the others. */
	return !uid || (mine + bytes <= limit / 4 * 3 && count + one_more <= OBJECT_PER_USER);
}

static struct object *take_entry(struct objects *os)
{
	for (uint32_t i = 0; i < OBJECT_MAX; i++) {
		if (!os->v[i].number)
			return &os->v[i];
	}
	return NULL;
}

/* Puts an object into the tables and under watch. Returns 0 or -errno. */
static int enter(struct broker *b, struct object *o)
{
	char path[32];
	int err = 0;

	fd_path(o->fd, path, sizeof(path));
	o->watch = inotify_add_watch(b->objects.src.fd, path, IN_CLOSE);
	if (o->watch < 0)
		return -errno;
	err = idmap_put(&b->objects.by_watch, (uint64_t)o->watch, index_of(b, o));
	if (!err && !o->orphan) {
		err = idmap_put(&b->objects.by_number, o->number, index_of(b, o));
		if (err)
			idmap_del(&b->objects.by_watch, (uint64_t)o->watch);
	}
	if (err) {
		inotify_rm_watch(b->objects.src.fd, o->watch);
		return err;
	}
	b->objects.used++;
	b->objects.bytes += o->size;
	return 0;
}

static void free_grants(struct object *o)
{
	while (o->open_grants) {
		struct object_grant *g = o->open_grants;

		o->open_grants = g->next;
		free(g);
	}
}

static void free_object(struct broker *b, struct object *o)
{
	idmap_del(&b->objects.by_watch, (uint64_t)o->watch);
	if (!o->orphan)
		idmap_del(&b->objects.by_number, o->number);
	inotify_rm_watch(b->objects.src.fd, o->watch);
	close(o->fd);
	free_grants(o);
	b->objects.used--;
	b->objects.bytes -= o->size;
	*o = OBJECT_FREE;
}

/* ---- ends ---- */

/* Tells the agent if nobody holds the object any more, or will. */
static void look(struct broker *b, struct object *o)
{
	struct sc_msg_object_idle m = {
	    .h = {.type = SC_MSG_OBJECT_IDLE, .len = sizeof(m)},
	    .object = o->number,
	    .grants = o->grants,
	};

	if (o->waiting || !o->grants || o->open_grants || held(o))
		return;
	if (o->orphan)
		free_object(b, o);
	else
		domain_send(b, &m.h, NULL, 0);
}

static void on_inotify(struct source *src, uint32_t events)
{
	struct broker *b = container_of(src, struct broker, objects.src);
	_Alignas(struct inotify_event) char buf[4096];
	ssize_t n = read(src->fd, buf, sizeof(buf));

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *e = (const struct inotify_event *)(buf + at);
		uint32_t index;

		at += (ssize_t)(sizeof(*e) + e->len);
		if (e->mask & IN_Q_OVERFLOW)
			object_look_all(b);
		else if (e->wd > 0 && idmap_get(&b->objects.by_watch, (uint64_t)e->wd, &index))
			look(b, &b->objects.v[index]);
	}
}

void object_session_gone(struct broker *b, uint32_t session)
{
	for (uint32_t i = 0; b->objects.used && i < OBJECT_MAX; i++) {
		struct object *o = &b->objects.v[i];
		struct object_grant **at = &o->open_grants;
		bool had = false;

		while (o->number && *at) {
			struct object_grant *g = *at;

			if (g->session != session) {
				at = &g->next;
				continue;
			}
			*at = g->next;
			free(g);
			had = true;
		}
		if (had)
			look(b, o);
	}
}

/* No agent knows it any more: it lives as long as somebody has it open or mapped. */
static void make_orphan(struct broker *b, struct object *o)
{
	idmap_del(&b->objects.by_number, o->number);
	o->orphan = true;
	o->waiting = false;
	free_grants(o);
	if (!held(o))
		free_object(b, o);
}

void object_agent_gone(struct broker *b)
{
	/* The next agent finds in its tables which there are. What was stored there and is not in the file is nowhere else. */
	bool kept = b->dom.agent.features & SC_F_RECOVERY && segment_own(b, SC_OWN_STATE);

	for (uint32_t i = 0; b->objects.used && i < OBJECT_MAX; i++) {
		struct object *o = &b->objects.v[i];

		if (!o->number || o->orphan)
			continue;
		if (kept)
			o->waiting = true;
		else
			make_orphan(b, o);
	}
}

void object_agent_ready(struct broker *b)
{
	for (uint32_t i = 0; b->objects.used && i < OBJECT_MAX; i++) {
		struct object *o = &b->objects.v[i];

		if (o->number && o->waiting)
			make_orphan(b, o);
		else if (o->number)
			look(b, o);
	}
}

/* ---- the agent's requests ---- */

/* The session's user. Returns false if there is no such session. */
static bool user_of(const struct broker *b, uint32_t session, uid_t *uid)
{
	for (uint32_t i = 1; session && i <= b->cfg->channels; i++) {
		const struct slot *s = &b->sessions.slots[i];

		if (s->session == session && s->state == SLOT_LIVE) {
			*uid = s->uid;
			return true;
		}
	}
	return false;
}

static int64_t do_new(struct broker *b, const struct sc_msg_object *m)
{
	struct object *o = take_entry(&b->objects);
	uid_t uid;
	int err;

	if (!m->object || m->len > INT64_MAX)
		return -EINVAL;
	if (find(b, m->object))
		return -EEXIST;
	if (!user_of(b, m->session, &uid))
		return -ESRCH;
	if (!o || !may_have(b, uid, m->len, true))
		return -ENOMEM;
	*o = OBJECT_FREE;
	o->fd = make_memory(m->len);
	if (o->fd < 0)
		return o->fd;
	o->number = m->object;
	o->uid = uid;
	o->size = m->len;
	err = enter(b, o);
	if (err) {
		close(o->fd);
		*o = OBJECT_FREE;
	}
	return err;
}

/* The agent's own segment as it is mapped here, or NULL. */
static void *own_segment(struct broker *b)
{
	const struct segment *s = segment_own(b, SC_OWN_IO);
	void *p;

	if (b->objects.window || !s)
		return b->objects.window;
	p = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, s->memfd, 0);
	if (p == MAP_FAILED)
		return NULL;
	b->objects.window = p;
	b->objects.window_size = s->size;
	return p;
}

/* Where a request's data is, or NULL: nowhere. */
static void *data_of(struct broker *b, const struct sc_msg_object *m)
{
	unsigned char *window = own_segment(b);

	if (!window || m->len > SC_OBJECT_IO_MAX || m->buf > b->objects.window_size ||
	    m->len > b->objects.window_size - m->buf || m->off > (uint64_t)INT64_MAX - m->len)
		return NULL;
	return window + m->buf;
}

/* Bytes, or -errno. *off: where they begin. */
static int64_t do_get(struct broker *b, struct object *o, const struct sc_msg_object *m,
		      uint64_t *off)
{
	void *data = data_of(b, m);
	off_t at = (off_t)m->off;
	ssize_t n;

	if (!data)
		return -EINVAL;
	if (m->arg & 1) {
		at = lseek(o->fd, at, SEEK_DATA);
		if (at < 0)
			return errno == ENXIO ? 0 : -errno;
	}
	*off = (uint64_t)at;
	n = pread(o->fd, data, m->len, at);
	return n < 0 ? -errno : n;
}

static int64_t do_put(struct broker *b, struct object *o, const struct sc_msg_object *m)
{
	const void *data = data_of(b, m);
	ssize_t n;

	if (!data || m->off > o->size || m->len > o->size - m->off)
		return -EINVAL;
	n = pwrite(o->fd, data, m->len, (off_t)m->off);
	return n < 0 ? -errno : n;
}

static int64_t do_resize(struct broker *b, struct object *o, uint64_t size)
{
	if (size > INT64_MAX)
		return -EINVAL;
	if (size > o->size && !may_have(b, o->uid, size - o->size, false))
		return -ENOMEM;
	if (ftruncate(o->fd, (off_t)size))
		return -errno;
	b->objects.bytes = b->objects.bytes - o->size + size;
	o->size = size;
	return 0;
}

static int64_t do_zero(struct object *o, uint64_t off, uint64_t len)
{
	if (!len || off > INT64_MAX || len > (uint64_t)INT64_MAX - off)
		return -EINVAL;
	return fallocate(o->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len)
		   ? -errno
		   : 0;
}

static int64_t do_grant(struct broker *b, struct object *o, uint32_t session, uint64_t rights)
{
	struct object_grant *g;
	uid_t unused;

	if (!(rights & SC_OBJECT_READ) || rights & ~(uint64_t)(SC_OBJECT_READ | SC_OBJECT_WRITE))
		return -EINVAL;
	if (!user_of(b, session, &unused))
		return -ESRCH;
	g = malloc(sizeof(*g));
	if (!g)
		return -ENOMEM;
	*g = (struct object_grant){
	    .next = o->open_grants, .session = session, .rights = (uint32_t)rights};
	o->open_grants = g;
	return (int64_t)++o->grants;
}

static int64_t do_drop(struct broker *b, struct object *o, uint64_t grants)
{
	if (o->grants != grants || o->open_grants || held(o))
		return -EBUSY;
	free_object(b, o);
	return 0;
}

static int64_t execute(struct broker *b, const struct sc_msg_object *m, uint64_t *off)
{
	struct object *o = find(b, m->object);

	if (m->op == SC_OBJECT_NEW)
		return do_new(b, m);
	if (!o)
		return -ENOENT;
	switch (m->op) {
	case SC_OBJECT_GET:
		return do_get(b, o, m, off);
	case SC_OBJECT_PUT:
		return do_put(b, o, m);
	case SC_OBJECT_RESIZE:
		return do_resize(b, o, m->len);
	case SC_OBJECT_ZERO:
		return do_zero(o, m->off, m->len);
	case SC_OBJECT_GRANT:
		return do_grant(b, o, m->session, m->arg);
	case SC_OBJECT_DROP:
		return do_drop(b, o, m->arg);
	case SC_OBJECT_ADOPT:
		o->waiting = false;
		return (int64_t)o->grants;
	default:
		return -EINVAL;
	}
}

void object_message(struct broker *b, const struct sc_msg_object *m)
{
	struct sc_msg_object_done r = {
	    .h = {.type = SC_MSG_OBJECT_DONE, .len = sizeof(r), .seq = m->h.seq},
	    .off = m->off,
	};

	r.res = execute(b, m, &r.off);
	if (b->dom.incarnation)
		b->tr->send(b, &r.h, NULL, 0);
}

/* ---- the process's request ---- */

/* Uses up a grant that covers these rights. */
static bool use_grant(struct object *o, uint32_t session, uint32_t rights)
{
	for (struct object_grant **at = &o->open_grants; *at; at = &(*at)->next) {
		struct object_grant *g = *at;

		if (g->session != session || rights & ~g->rights)
			continue;
		*at = g->next;
		free(g);
		return true;
	}
	return false;
}

void object_fetch(struct client *c, const struct sc_attach_object *m)
{
	struct broker *b = c->b;
	struct object *o = find(b, m->object);
	struct sc_attach_object r = {
	    .h = {.magic = SC_ATTACH_MAGIC,
		  .type = SC_ATTACH_OBJECT_REP,
		  .seq = m->h.seq,
		  .len = sizeof(r)},
	    .rights = m->rights,
	    .object = m->object,
	};
	int fd = -1;

	if (!o || !(m->rights & SC_OBJECT_READ) || !use_grant(o, c->slot->session, m->rights)) {
		r.status = EACCES;
	} else {
		fd = reopen(o->fd, m->rights & SC_OBJECT_WRITE ? O_RDWR : O_RDONLY);
		r.status = fd < 0 ? (uint32_t)-fd : 0;
	}
	client_reply(c, &r, sizeof(r), &fd, fd < 0 ? 0 : 1);
	if (fd >= 0)
		close(
		    fd); /* if it did not get there, this close is the last one, and told as such */
	else if (o)
		look(b, o);
}

/* ---- its life ---- */

int object_init(struct broker *b)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int err;

	if (fd < 0)
		return -errno;
	b->objects.v = calloc(OBJECT_MAX, sizeof(*b->objects.v));
	err = b->objects.v ? loop_add(&b->loop, &b->objects.src, fd, EPOLLIN, on_inotify) : -ENOMEM;
	if (err) {
		close(fd);
		return err;
	}
	for (uint32_t i = 0; i < OBJECT_MAX; i++)
		b->objects.v[i] = OBJECT_FREE;
	return 0;
}

void object_save(const struct broker *b, struct blob_out *out)
{
	blob_put_u32(out, b->objects.used);
	for (uint32_t i = 0; i < OBJECT_MAX; i++) {
		const struct object *o = &b->objects.v[i];
		uint32_t n = 0;

		if (!o->number)
			continue;
		blob_put_u64(out, o->number);
		blob_put_fd(out, o->fd);
		blob_put_u32(out, o->uid);
		blob_put_u64(out, o->size);
		blob_put_u64(out, o->grants);
		blob_put_u32(out, o->orphan);
		blob_put_u32(out, o->waiting);
		for (const struct object_grant *g = o->open_grants; g; g = g->next)
			n++;
		blob_put_u32(out, n);
		for (const struct object_grant *g = o->open_grants; g; g = g->next) {
			blob_put_u32(out, g->session);
			blob_put_u32(out, g->rights);
		}
	}
}

static int load_object(struct broker *b, struct object *o, struct blob_in *in)
{
	uint32_t n;

	o->number = blob_get_u64(in);
	o->fd = blob_get_fd(in);
	o->uid = blob_get_u32(in);
	o->size = blob_get_u64(in);
	o->grants = blob_get_u64(in);
	o->orphan = blob_get_u32(in);
	o->waiting = blob_get_u32(in);
	n = blob_get_u32(in);
	for (uint32_t i = 0; i < n && !in->err; i++) {
		struct object_grant *g = malloc(sizeof(*g));

		if (!g)
			return -ENOMEM;
		g->next = o->open_grants;
		g->session = blob_get_u32(in);
		g->rights = blob_get_u32(in);
		o->open_grants = g;
	}
	if (in->err || !o->number || o->fd < 0)
		return -EBADMSG;
	return enter(b, o);
}

int object_load(struct broker *b, struct blob_in *in)
{
	uint32_t count = blob_get_u32(in);
	int err;

	for (uint32_t i = 0; i < count && !in->err; i++) {
		struct object *o = take_entry(&b->objects);

		if (!o)
			return -EBADMSG;
		err = load_object(b, o, in);
		if (err)
			return err;
	}
	return in->err;
}

void object_look_all(struct broker *b)
{
	for (uint32_t i = 0; i < OBJECT_MAX; i++) {
		if (b->objects.v[i].number)
			look(b, &b->objects.v[i]);
	}
}

void object_close_all(struct broker *b)
{
	int fd = b->objects.src.fd;

	for (uint32_t i = 0; b->objects.v && i < OBJECT_MAX; i++) {
		struct object *o = &b->objects.v[i];

		if (o->number)
			close(o->fd);
		free_grants(o);
	}
	free(b->objects.v);
	b->objects.v = NULL;
	idmap_free(&b->objects.by_number);
	idmap_free(&b->objects.by_watch);
	if (b->objects.window)
		munmap(b->objects.window, b->objects.window_size);
	loop_del(&b->loop, &b->objects.src);
	if (fd >= 0)
		close(fd);
}
