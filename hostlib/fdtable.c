/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fdtable.c - remote descriptors and open files; see fdtable.h for the theory.
 *
 * Order of steps, so that no other thread ever sees a descriptor name the wrong file: opening makes the kernel's
 * descriptor first and the table's entry second (in between the number names a ticket nobody knows of); closing clears
 * the entry first and closes the kernel's descriptor second. Both are done under proc->fd_lock, which a fork takes too, so
 * that a child's table agrees with its descriptors.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "chan-priv.h"
#include "fdtable.h"
#include "libfd.h"
#include "net.h"
#include "process.h"

#define ENTRY_OPENING 0xffffffffu /* the number is reserved; not open yet */
#define RETRY_MIN_MS  1u
#define RETRY_MAX_MS  20u

int sc_fdtab_init(struct sc_fdtab *f)
{
	f->idx = sc_map(SC_FD_MAX * sizeof(*f->idx));
	f->files = sc_map(SC_FILE_MAX * sizeof(*f->files));
	f->file_high = 1;
	return f->idx && f->files ? 0 : -ENOMEM;
}

/* Counts of what files other than files refer to. */
static void count_nets(struct sc_fdtab *f, void (*count)(struct sc_file *))
{
	for (uint32_t i = 1; f->files && i < f->file_high; i++)
		if (f->files[i].net)
			count(&f->files[i]);
}

void sc_fdtab_free(struct sc_fdtab *f)
{
	count_nets(f, sc_net_unref);
	if (f->idx)
		sc_unmap(f->idx, SC_FD_MAX * sizeof(*f->idx));
	if (f->files)
		sc_unmap(f->files, SC_FILE_MAX * sizeof(*f->files));
}

int sc_fdtab_copy(struct sc_fdtab *to, const struct sc_fdtab *from)
{
	if (sc_fdtab_init(to))
		return -ENOMEM;
	memcpy(to->idx, from->idx, from->fd_high * sizeof(*to->idx));
	memcpy(to->files, from->files, from->file_high * sizeof(*to->files));
	to->fd_high = from->fd_high;
	to->file_high = from->file_high;
	to->free_head = from->free_head;
	count_nets(to, sc_net_ref);
	return 0;
}

struct sc_file *sc_fd_any(struct sc_thread *t, int fd)
{
	struct sc_fdtab *f = &t->proc->fds;
	uint32_t i;

	if (fd < 0 || (uint32_t)fd >= __atomic_load_n(&f->fd_high, __ATOMIC_RELAXED))
		return NULL;
	/* acquire: the file's fields are visible before its index */
	i = __atomic_load_n(&f->idx[fd], __ATOMIC_ACQUIRE);
	return i == 0 || i == ENTRY_OPENING ? NULL : &f->files[i];
}

struct sc_file *sc_fd_file(struct sc_thread *t, int fd)
{
	struct sc_file *f = sc_fd_any(t, fd);

	return f && __atomic_load_n(&f->kind, __ATOMIC_RELAXED) == SC_KIND_FILE ? f : NULL;
}

/* ---- under fd_lock ---- */

static uint32_t file_alloc(struct sc_fdtab *f)
{
	uint32_t i = f->free_head;

	if (i) {
		f->free_head = f->files[i].refs;
		f->files[i].refs = 0;
		return i;
	}
	if (f->file_high == SC_FILE_MAX)
		return 0;
	return f->file_high++;
}

static void file_free(struct sc_fdtab *f, uint32_t i)
{
	f->files[i].refs = f->free_head;
	f->files[i].dom = NULL;
	f->files[i].kind = SC_KIND_FILE;
	f->files[i].net = NULL;
	f->free_head = i;
}

static void entry_set(struct sc_fdtab *f, int fd, uint32_t value)
{
	if ((uint32_t)fd >= f->fd_high)
		__atomic_store_n(&f->fd_high, (uint32_t)fd + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&f->idx[fd], value, __ATOMIC_RELEASE);
}

/* ---- operations on an open file ---- */

static bool too_long(const struct sc_opx *x)
{
	return x->d1.len > SC_POOL_BLOCK || x->d2.len > SC_POOL_BLOCK || x->d3.len > SC_POOL_BLOCK;
}

/* Room for the data of one request: in the lane's buffer, or one of it in a block. */
struct room {
	uint32_t off[3];
	uint32_t block; /* pool offset, 0: none */
	uint32_t nblocks;
};

static long room_get(struct sc_hlane *l, const struct sc_opx *x, struct room *r)
{
	const struct sc_data *d[3] = {&x->d1, &x->d2, &x->d3};
	uint32_t at = SC_LB_DATA;

	memset(r, 0, sizeof(*r));
	for (int i = 0; i < 3; i++) {
		uint32_t need = (d[i]->len + 63) & ~63u;

		if (!d[i]->p)
			continue;
		if (at + need <= SC_LANE_BUF_SIZE) {
			r->off[i] = sc_lane_off(l, at);
			at += need;
			continue;
		}
		if (r->block)
			return -EINVAL;
		r->block = sc_pool_get(l->chan, 1, &r->nblocks, true);
		if (!r->block)
			return -ENOMEM;
		r->off[i] = r->block;
	}
	return 0;
}

static long data_in(struct sc_hlane *l, const struct sc_data *d, uint32_t off)
{
	uint8_t *at = sc_chan_ptr(l->chan, off);

	if (!d->p || !d->in)
		return 0;
	if (d->user)
		return sc_copy_from_user(at, d->p, d->len);
	memcpy(at, d->p, d->len);
	return 0;
}

static long data_out(struct sc_hlane *l, const struct sc_data *d, uint32_t off, long res)
{
	uint8_t *at = sc_chan_ptr(l->chan, off);
	uint32_t len = d->len;

	if (!d->p || !d->out)
		return 0;
	if (d->by_res) {
		if (res > (long)len)
			return -EIO;
		len = (uint32_t)res;
	}
	if (d->user)
		return sc_copy_to_user(d->p, at, len);
	memcpy(d->p, at, len);
	return 0;
}

/* True for a request that may wait for other processes for long. */
static bool waits_for_others(const struct sc_slot *s)
{
	if (s->op == SC_OP_FLOCK)
		return !(s->arg0 & LOCK_NB) && !(s->arg0 & LOCK_UN);
	return s->op == SC_OP_LOCK && (s->arg0 == SC_LK_SETW || s->arg0 == SC_LK_OFD_SETW);
}

/* The form of such a request that does not wait. */
static void make_nonblocking(struct sc_slot *s)
{
	if (s->op == SC_OP_FLOCK)
		s->arg0 |= LOCK_NB;
	else
		s->arg0 = s->arg0 == SC_LK_SETW ? SC_LK_SET : SC_LK_OFD_SET;
}

/*
 * A shared lane must not be held while its user waits for a lock that another user of the lane may hold. So there the
 * lock is tried again and again, the lane given back in between.
 */
static long lock_by_retry(struct sc_thread *t, struct sc_hlane *l, struct sc_slot *s,
			  uint32_t *flags)
{
	uint32_t ms = RETRY_MIN_MS;
	long res;

	make_nonblocking(s);
	for (;;) {
		struct timespec ts = {.tv_nsec = ms * 1000000l};

		res = sc_lane_call(t, l, s, flags, 0);
		if (res != -EAGAIN && res != -EACCES)
			return res;
		sc_mutex_unlock(&l->busy);
		res = sc_raw_syscall_interruptible(__NR_nanosleep, (long)&ts, 0, 0, 0, 0, 0);
		sc_mutex_lock(&l->busy);
		if (res == -EINTR && sc_signal_waits(t))
			return -SC_ERESTART;
		if (l->dead)
			return -EIO;
		ms = ms * 2 < RETRY_MAX_MS ? ms * 2 : RETRY_MAX_MS;
	}
}

static long opx_run(struct sc_thread *t, struct sc_hlane *l, struct sc_slot *s, struct sc_opx *x,
		    const struct room *r)
{
	long res, err;

	err = data_in(l, &x->d1, r->off[0]);
	if (!err)
		err = data_in(l, &x->d2, r->off[1]);
	if (!err)
		err = data_in(l, &x->d3, r->off[2]);
	if (err)
		return err;
	if (l->shared && waits_for_others(s))
		res = lock_by_retry(t, l, s, &x->cqe_flags);
	else
		res = sc_lane_call(t, l, s, &x->cqe_flags, x->wait_flags);
	if (res < 0)
		return res;
	err = data_out(l, &x->d1, r->off[0], res);
	if (!err)
		err = data_out(l, &x->d2, r->off[1], res);
	if (!err)
		err = data_out(l, &x->d3, r->off[2], res);
	return err ? err : res;
}

long sc_lane_opx(struct sc_thread *t, struct sc_hlane *l, struct sc_slot *s, struct sc_opx *x)
{
	struct room r;
	long res;

	if (too_long(x))
		return -EINVAL;
	s->op = x->op;
	s->flags = x->slot_flags;
	s->off = x->off;
	s->arg0 = x->arg0;
	s->arg1 = x->arg1;
	s->arg2 = x->arg2;
	res = room_get(l, x, &r);
	if (res)
		return res;
	if (x->d1.p) {
		s->buf = r.off[0];
		s->len = x->d1.len;
	}
	if (x->d2.p) {
		s->buf2 = r.off[1];
		s->len2 = x->d2.len;
	}
	if (x->d3.p) {
		s->off = r.off[2];
		s->arg1 = x->d3.len;
	}
	res = opx_run(t, l, s, x, &r);
	/* the block of a call that was given up may still be written to */
	if (r.block && !l->dead)
		sc_pool_put(l->chan, r.block, r.nblocks);
	return res;
}

long sc_file_grant(struct sc_thread *t, struct sc_hlane *l, struct sc_file *f)
{
	struct sc_slot s = {.op = SC_OP_GRANT, .handle = f->handle, .arg2 = f->secret};
	long res;

	if (__atomic_load_n(&f->gen, __ATOMIC_RELAXED) == l->chan->gen)
		return 0;
	res = sc_lane_call(t, l, &s, NULL, 0);
	if (res < 0)
		return -EIO;
	__atomic_store_n(&f->gen, l->chan->gen, __ATOMIC_RELAXED);
	return 0;
}

long sc_file_call(struct sc_thread *t, struct sc_file *f, struct sc_opx *x)
{
	struct sc_slot s = {0};
	struct sc_hlane *l;
	long res = sc_lane_get(t, f->dom, &l);

	if (res)
		return res;
	s.handle = f->handle;
	res = sc_file_grant(t, l, f);
	if (!res)
		res = sc_lane_opx(t, l, &s, x);
	sc_lane_put(t, l);
	return res;
}

/* ---- opening ---- */

long sc_open_begin(struct sc_thread *t, struct sc_dom *d, bool reserve, bool cloexec,
		   struct sc_opening *o)
{
	struct sc_proc *p = t->proc;
	long err = sc_ticket_get(t, d, &o->ticket, &o->ticket_fd);
	long fd = -1;

	if (err)
		return err;
	o->dom = d;
	o->secret = sc_random();
	sc_mutex_lock(&p->fd_lock);
	o->file = file_alloc(&p->fds);
	if (o->file && reserve) {
		fd = sc_sys3(__NR_fcntl, o->ticket_fd, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
		if (fd >= 0)
			entry_set(&p->fds, (int)fd, ENTRY_OPENING);
		else
			file_free(&p->fds, o->file);
	}
	sc_mutex_unlock(&p->fd_lock);
	o->fd = (int)fd;
	if (o->file && (!reserve || fd >= 0))
		return 0;
	sc_ticket_put(d, o->ticket, o->ticket_fd);
	return o->file ? fd : -ENFILE;
}

/* Under fd_lock: fills the object. */
static struct sc_file *file_fill(struct sc_thread *t, const struct sc_opening *o, uint64_t handle,
				 uint32_t oflags, uint32_t type)
{
	struct sc_file *f = &t->proc->fds.files[o->file];
	struct sc_chan *c = sc_chan_of(t, o->dom);

	memset(f, 0, sizeof(*f));
	f->handle = handle;
	f->secret = o->secret;
	f->ticket = o->ticket;
	f->dom = o->dom;
	f->route = o->route;
	f->ticket_fd = o->ticket_fd;
	/* the channel may have been exchanged since the agent opened it: then it is granted at first use */
	f->gen = c && c->session == o->ticket >> 32 ? c->gen : 0;
	f->oflags = oflags;
	f->type = type;
	f->refs = 1;
	f->kind = o->kind;
	f->net = o->net;
	return f;
}

/* May this session close it? A socket that was never granted to it is left to its ticket. */
static bool remote_close_now(struct sc_thread *t, const struct sc_file *f)
{
	struct sc_chan *c = f->kind == SC_KIND_FILE ? NULL : sc_chan_of(t, f->dom);

	return f->kind == SC_KIND_FILE || (c && f->gen == c->gen);
}

/* Tells the agent that nobody needs the handle any more, and gives the ticket back. */
static void remote_close(struct sc_thread *t, struct sc_file *f)
{
	struct sc_opx x = {.op = SC_OP_CLOSE};

	if (remote_close_now(t, f) && sc_file_call(t, f, &x) == 0)
		sc_ticket_put(f->dom, f->ticket, f->ticket_fd);
	else
		sc_libfd_close(f->ticket_fd); /* the broker will see it and have it released */
}

long sc_open_done(struct sc_thread *t, struct sc_opening *o, uint64_t handle, uint32_t oflags,
		  uint32_t type, bool cloexec)
{
	struct sc_proc *p = t->proc;
	struct sc_file copy, *f;
	long fd = o->fd;

	sc_mutex_lock(&p->fd_lock);
	f = file_fill(t, o, handle, oflags, type);
	if (fd < 0)
		fd = sc_sys3(__NR_fcntl, o->ticket_fd, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (fd >= (long)SC_FD_MAX) {
		sc_sys1(__NR_close, fd);
		fd = -EMFILE;
	}
	if (fd >= 0) {
		entry_set(&p->fds, (int)fd, o->file);
	} else {
		copy = *f;
		file_free(&p->fds, o->file);
	}
	sc_mutex_unlock(&p->fd_lock);
	if (fd < 0)
		remote_close(t, &copy);
	return fd;
}

struct sc_file *sc_open_done_nofd(struct sc_thread *t, struct sc_opening *o, uint64_t handle,
				  uint32_t oflags, uint32_t type)
{
	struct sc_file *f;

	sc_mutex_lock(&t->proc->fd_lock);
	f = file_fill(t, o, handle, oflags, type);
	sc_mutex_unlock(&t->proc->fd_lock);
	return f;
}

void sc_open_undo(struct sc_thread *t, struct sc_opening *o)
{
	struct sc_proc *p = t->proc;

	sc_mutex_lock(&p->fd_lock);
	if (o->fd >= 0) {
		entry_set(&p->fds, o->fd, 0);
		sc_sys1(__NR_close, o->fd);
	}
	file_free(&p->fds, o->file);
	sc_mutex_unlock(&p->fd_lock);
	sc_ticket_put(o->dom, o->ticket, o->ticket_fd);
}

/* ---- references ---- */

/* Under fd_lock: drops one. With the last, frees the object and returns true: *last is what is left to be done. */
static bool unref_locked(struct sc_proc *p, struct sc_file *f, struct sc_file *last)
{
	if (--f->refs)
		return false;
	*last = *f;
	file_free(&p->fds, (uint32_t)(f - p->fds.files));
	return true;
}

/* The last descriptor of this process is gone. */
static void last_close(struct sc_thread *t, struct sc_file *f)
{
	if (f->net)
		sc_net_unref(f);
	if (!f->dom)
		return; /* the kernel's own */
	if (f->flags & SC_FILE_SHARED)
		sc_libfd_close(f->ticket_fd);
	else
		remote_close(t, f);
}

void sc_file_ref(struct sc_thread *t, struct sc_file *f)
{
	sc_mutex_lock(&t->proc->fd_lock);
	f->refs++;
	sc_mutex_unlock(&t->proc->fd_lock);
}

void sc_file_unref(struct sc_thread *t, struct sc_file *f)
{
	struct sc_file last;
	bool gone;

	sc_mutex_lock(&t->proc->fd_lock);
	gone = unref_locked(t->proc, f, &last);
	sc_mutex_unlock(&t->proc->fd_lock);
	if (gone)
		last_close(t, &last);
}

static void unlock_posix(struct sc_thread *t, struct sc_file *f)
{
	struct sc_opx x = {.op = SC_OP_UNLOCK_ALL};

	if (__atomic_load_n(&t->proc->posix_locks, __ATOMIC_RELAXED) && !(f->oflags & O_PATH) &&
	    f->kind == SC_KIND_FILE)
		sc_file_call(t, f, &x);
}

long sc_fd_close(struct sc_thread *t, int fd)
{
	struct sc_proc *p = t->proc;
	struct sc_file *f = sc_fd_any(t, fd), last;
	bool gone = false;
	long res;

	if (!f)
		return -EBADF;
	unlock_posix(t, f);
	sc_mutex_lock(&p->fd_lock);
	if (sc_fd_any(t, fd) != f) { /* another thread closed it */
		sc_mutex_unlock(&p->fd_lock);
		return -EBADF;
	}
	entry_set(&p->fds, fd, 0);
	gone = unref_locked(p, f, &last);
	res = sc_sys1(__NR_close, fd);
	sc_mutex_unlock(&p->fd_lock);
	if (gone)
		last_close(t, &last);
	return res;
}

long sc_fd_dup(struct sc_thread *t, int fd, int min, bool cloexec)
{
	struct sc_proc *p = t->proc;
	struct sc_file *f;
	long new;

	sc_mutex_lock(&p->fd_lock);
	f = sc_fd_any(t, fd);
	new = !f ? -EBADF : sc_sys3(__NR_fcntl, fd, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, min);
	if (new >= (long)SC_FD_MAX) {
		sc_sys1(__NR_close, new);
		new = -EMFILE;
	}
	if (new >= 0) {
		f->refs++;
		entry_set(&p->fds, (int)new, (uint32_t)(f - p->fds.files));
	}
	sc_mutex_unlock(&p->fd_lock);
	return new;
}

long sc_fd_dup_to(struct sc_thread *t, int from, int to, int flags)
{
	struct sc_proc *p = t->proc;
	struct sc_file *f, *old, last;
	bool gone = false;
	long res;

	old = sc_fd_any(t, to);
	if (old)
		unlock_posix(t, old);
	sc_mutex_lock(&p->fd_lock);
	f = sc_fd_any(t, from);
	res = (uint32_t)to >= SC_FD_MAX && f ? -EBADF : sc_sys3(__NR_dup3, from, to, flags);
	if (res >= 0) {
		old = sc_fd_any(t, to);
		if (f)
			f->refs++;
		if (f || old)
			entry_set(&p->fds, to, f ? (uint32_t)(f - p->fds.files) : 0);
		if (old)
			gone = unref_locked(p, old, &last);
	}
	sc_mutex_unlock(&p->fd_lock);
	if (gone)
		last_close(t, &last);
	return res;
}

long sc_file_hold_ticket(struct sc_thread *t, struct sc_file *f, int fd)
{
	struct sc_proc *p = t->proc;
	long res = 0;

	sc_mutex_lock(&p->fd_lock);
	if (sc_fd_file(t, fd) != f) {
		res = -EBADF;
		/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): callers have a file */
	} else if (f->ticket_fd < 0) {
		res = sc_sys3(__NR_fcntl, fd, F_DUPFD_CLOEXEC, 0);
		if (res >= 0)
			res = sc_libfd_move((int)res);
		if (res >= 0)
			f->ticket_fd = (int)res;
	}
	sc_mutex_unlock(&p->fd_lock);
	return res < 0 ? res : 0;
}

/* ---- sockets and the like ---- */

long sc_fd_install(struct sc_thread *t, int fd, uint32_t kind, void *net)
{
	struct sc_proc *p = t->proc;
	uint32_t i = 0;

	if (fd < 0 || (uint32_t)fd >= SC_FD_MAX)
		return -EMFILE;
	sc_mutex_lock(&p->fd_lock);
	i = file_alloc(&p->fds);
	if (i) {
		p->fds.files[i] =
		    (struct sc_file){.ticket_fd = -1, .refs = 1, .kind = kind, .net = net};
		entry_set(&p->fds, fd, i);
	}
	sc_mutex_unlock(&p->fd_lock);
	return i ? 0 : -ENFILE;
}

void sc_fd_uninstall(struct sc_thread *t, struct sc_file *f)
{
	struct sc_proc *p = t->proc;
	struct sc_file copy;
	uint32_t i = (uint32_t)(f - p->fds.files);

	sc_mutex_lock(&p->fd_lock);
	for (uint32_t fd = 0; f->refs && fd < p->fds.fd_high; fd++) {
		if (p->fds.idx[fd] != i)
			continue;
		entry_set(&p->fds, (int)fd, 0);
		f->refs--;
	}
	copy = *f;
	file_free(&p->fds, i);
	sc_mutex_unlock(&p->fd_lock);
	sc_net_unref(&copy);
}

/* Puts the ticket at a number, close-on-exec or not as it was. */
static void replace(int ticket_fd, int fd)
{
	long flags = sc_sys2(__NR_fcntl, fd, F_GETFD);

	sc_sys3(__NR_dup3, ticket_fd, fd, flags > 0 && flags & FD_CLOEXEC ? O_CLOEXEC : 0);
}

void sc_fd_become_sock(struct sc_thread *t, struct sc_file *f)
{
	struct sc_proc *p = t->proc;
	uint32_t i = (uint32_t)(f - p->fds.files), left;

	sc_mutex_lock(&p->fd_lock);
	left = f->refs;
	for (uint32_t fd = 0; left && fd < p->fds.fd_high; fd++) {
		if (p->fds.idx[fd] != i)
			continue;
		replace(f->ticket_fd, (int)fd);
		left--;
	}
	/* release: its other fields are visible before */
	__atomic_store_n(&f->kind, SC_KIND_SOCK, __ATOMIC_RELEASE);
	sc_mutex_unlock(&p->fd_lock);
}

/* ---- sharing with other processes ---- */

void sc_files_share(struct sc_proc *p)
{
	for (uint32_t i = 1; i < p->fds.file_high; i++) {
		struct sc_file *f = &p->fds.files[i];

		if (!f->dom)
			continue;
		if (!(__atomic_load_n(&f->flags, __ATOMIC_RELAXED) & SC_FILE_SHARED))
			__atomic_fetch_or(&f->flags, SC_FILE_SHARED, __ATOMIC_RELAXED);
		if (f == p->cwd || f->ticket_fd < 0)
			continue; /* the working directory's ticket may have no other descriptor */
		sc_libfd_close(f->ticket_fd);
		f->ticket_fd = -1;
	}
}

/* What stands for the export that a file was opened below, in the upper half of a name's mode. */
static uint32_t export_hash(const struct sc_route *r)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (const char *s = r->export; *s; s++)
		h = (h ^ (uint8_t)*s) * 16777619u;
	return (h ^ h >> 16) << 16;
}

long sc_fd_send(struct sc_thread *t, int fd)
{
	struct sc_proc *p = t->proc;
	struct sc_file *f = sc_fd_file(t, fd);
	struct sc_ticket_name name;
	uint32_t flags;
	long err;

	if (!f)
		return 0;
	sc_mutex_lock(&p->fd_lock);
	if (sc_fd_file(t, fd) != f) {
		sc_mutex_unlock(&p->fd_lock);
		return -EBADF;
	}
	flags = __atomic_fetch_or(&f->flags, SC_FILE_SHARED, __ATOMIC_RELAXED);
	if (f != p->cwd) { /* only descriptors hold the ticket now */
		sc_libfd_close(f->ticket_fd);
		f->ticket_fd = -1;
	}
	name = (struct sc_ticket_name){.ticket = f->ticket,
				       .handle = f->handle,
				       .secret = f->secret,
				       .flags = f->oflags,
				       .mode = f->type | export_hash(f->route)};
	sc_mutex_unlock(&p->fd_lock);
	if (flags & SC_FILE_NAMED)
		return 0;
	err = sc_ticket_tell(t, f->dom, fd, &name);
	if (!err)
		__atomic_fetch_or(&f->flags, SC_FILE_NAMED, __ATOMIC_RELAXED);
	return err;
}

/*
 * May this be the app end of a ticket (attach.h)? A Unix stream socket that was shut down for writing before anybody had it.
 * Sending nothing tells, and does nothing.
 */
static bool like_ticket(int fd)
{
	int domain = 0, type = 0;
	uint32_t len = sizeof(int);

	if (sc_sys6(__NR_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &len, 0) ||
	    domain != AF_UNIX)
		return false;
	if (sc_sys6(__NR_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &len, 0) ||
	    type != SOCK_STREAM)
		return false;
	return sc_sys6(__NR_sendto, fd, 0, 0, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0) == -EPIPE;
}

/* The route through which this process would have opened the file; any of the domain's if there is none. */
static const struct sc_route *route_for(const struct sc_dom *d, uint32_t hash)
{
	const struct sc_route *any = NULL;

	for (uint32_t i = 0; i < sc_nroutes; i++) {
		if (sc_routes[i].dom != d)
			continue;
		if (export_hash(&sc_routes[i]) == hash)
			return &sc_routes[i];
		any = &sc_routes[i];
	}
	return any;
}

static void receive_one(struct sc_thread *t, struct sc_dom *d, int fd,
			const struct sc_ticket_name *name)
{
	struct sc_file f = {.handle = name->handle,
			    .secret = name->secret,
			    .ticket = name->ticket,
			    .dom = d,
			    .route = route_for(d, name->mode & 0xffff0000u),
			    .ticket_fd = -1,
			    .oflags = name->flags,
			    .type = name->mode & S_IFMT,
			    .flags = SC_FILE_SHARED | SC_FILE_NAMED};

	if (!f.route || (uint32_t)fd >= SC_FD_MAX)
		return;
	sc_mutex_lock(&t->proc->fd_lock);
	if (!t->proc->fds
		 .idx[fd]) /* else another thread closed it meanwhile, and opened something there */
		sc_fd_adopt(t, fd, &f);
	sc_mutex_unlock(&t->proc->fd_lock);
}

void sc_fd_receive(struct sc_thread *t, const int *fds, uint32_t n)
{
	struct sc_ticket_name names[SC_TICKETS_BATCH];
	int maybe[SC_TICKETS_BATCH];
	uint32_t count = 0, left;

	for (uint32_t i = 0; i < n && count < SC_TICKETS_BATCH; i++)
		if (like_ticket(fds[i]))
			maybe[count++] = fds[i];
	for (uint32_t k = 0; k < sc_ndoms && count; k++, count = left) {
		left = 0;
		if (sc_ticket_ask(t, &sc_doms[k], maybe, count, names)) {
			left = count;
			continue;
		}
		for (uint32_t i = 0; i < count; i++) {
			if (names[i].ticket)
				receive_one(t, &sc_doms[k], maybe[i], &names[i]);
			else
				maybe[left++] = maybe[i];
		}
	}
}

SC_HOT_TEXT void sc_fdtab_after_fork(struct sc_proc *p)
{
	for (uint32_t fd = 0; fd < p->fds.fd_high; fd++) {
		if (p->fds.idx[fd] != ENTRY_OPENING)
			continue;
		p->fds.idx[fd] = 0; /* another thread of the parent was opening it */
		sc_sys1(__NR_close, fd);
	}
}

void sc_fdtab_opening_gone(struct sc_fdtab *f)
{
	for (uint32_t fd = 0; fd < f->fd_high; fd++)
		if (f->idx[fd] == ENTRY_OPENING)
			f->idx[fd] = 0;
}

struct sc_file *sc_fd_adopt(struct sc_thread *t, int fd, const struct sc_file *from)
{
	struct sc_fdtab *tab = &t->proc->fds;
	uint32_t i;

	for (i = 1; i < tab->file_high; i++)
		if (tab->files[i].dom == from->dom && tab->files[i].ticket == from->ticket)
			break;
	if (i == tab->file_high) {
		i = file_alloc(tab);
		if (!i)
			return NULL;
		tab->files[i] = *from;
		tab->files[i].refs = 0;
	}
	tab->files[i].refs++;
	if (fd >= 0)
		entry_set(tab, fd, i);
	return &tab->files[i];
}
