/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * calls_rw.c - reading, writing, seeking.
 *
 * Theory of operation: a call of up to SC_LANE_BUF_SIZE bytes is one request through the lane's own buffer. A longer one
 * goes in chunks through blocks of the pool, two at a time: while the agent works on one, the other is copied from or to
 * the program's memory. Reads of a given position and all reads in a row may have two requests under way, since reading
 * too much does no harm (a file position that went too far is set back); writes are strictly in sequence, so that the
 * count of a write that fails half-way is right. A write to an O_APPEND file is one request as long as the pool has
 * room, so that it stays in one piece.
 *
 * The agent's count is believed as far as it is not more than was asked for.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "calls.h"
#include "chan-priv.h"

#define IOV_LIMIT 1024
#define RW_MAX	  0x7ffff000ul /* what the kernel moves at most in one call */
#define RWF_KNOWN 0x1fu	       /* RWF_HIPRI, DSYNC, SYNC, NOWAIT, APPEND */

/* The program's memory as a sequence of pieces, and how far we are. */
struct pieces {
	const struct iovec *iov;
	uint32_t n;
	uint32_t at;	/* piece */
	uint64_t off;	/* within it */
	uint64_t total; /* bytes in all */
};

/* Copies len bytes between the arena and the pieces. 0, or -EFAULT; *done: bytes copied before the fault. */
static long pieces_copy(struct pieces *p, uint8_t *arena, uint32_t len, bool to_user,
			uint32_t *done)
{
	*done = 0;
	while (len) {
		const struct iovec *v = &p->iov[p->at];
		uint64_t left = v->iov_len - p->off;
		uint32_t n = left < len ? (uint32_t)left : len;
		uint8_t *user = (uint8_t *)v->iov_base + p->off;
		long err = 0;

		if (n)
			err = to_user ? sc_copy_to_user(user, arena, n)
				      : sc_copy_to_arena(arena, user, n);
		if (err)
			return -EFAULT;
		p->off += n;
		arena += n;
		len -= n;
		*done += n;
		if (p->off == v->iov_len) {
			p->at++;
			p->off = 0;
		}
	}
	return 0;
}

/* One transfer. */
struct rw {
	struct sc_file *f;
	struct pieces p;
	bool write;
	bool curpos;  /* at the file's own position */
	uint64_t off; /* else here */
	uint32_t rwf;
};

static void rw_slot(struct sc_slot *s, const struct rw *q, uint64_t done, uint32_t buf,
		    uint32_t len)
{
	*s = (struct sc_slot){
	    .op = q->write ? SC_OP_WRITE : SC_OP_READ,
	    .flags = q->curpos ? SC_SLOT_F_CURPOS : 0,
	    .handle = q->f->handle,
	    .off = q->curpos ? 0 : q->off + done,
	    .buf = buf,
	    .len = len,
	    .arg0 = q->rwf,
	    .arg1 = q->write ? 0 : SC_READ_COPIED,
	};
}

/* The agent took (or gave) more than the program's memory let us have: the position goes back. */
static void step_back(struct sc_thread *t, struct sc_hlane *l, const struct rw *q, uint64_t n)
{
	struct sc_slot s = {.op = SC_OP_SEEK,
			    .handle = q->f->handle,
			    .off = (uint64_t) - (int64_t)n,
			    .arg0 = SEEK_CUR};

	if (n && q->curpos)
		sc_lane_call(t, l, &s, NULL, 0);
}

/* All of it in one request, in the lane's buffer or a run of blocks at `buf`. */
static long rw_once(struct sc_thread *t, struct sc_hlane *l, struct rw *q, uint32_t buf,
		    uint32_t len)
{
	uint8_t *mem = sc_chan_ptr(l->chan, buf);
	struct sc_slot s;
	uint32_t copied;
	long res;

	if (q->write) {
		res = pieces_copy(&q->p, mem, len, false, &copied);
		if (res && copied == 0)
			return res;
		len = copied;
	}
	rw_slot(&s, q, 0, buf, len);
	res = sc_lane_call(t, l, &s, NULL, 0);
	if (res > (long)len)
		return -EIO;
	if (q->write || res <= 0)
		return res;
	if (pieces_copy(&q->p, mem, (uint32_t)res, true, &copied) == 0)
		return res;
	step_back(t, l, q, (uint64_t)res - copied);
	return copied ? (long)copied : -EFAULT;
}

/* Two halves of a block, or of the lane's buffer if there is no pool. */
struct halves {
	uint32_t off[2];
	uint32_t size;
	uint32_t block;
};

static void halves_get(struct sc_hlane *l, struct halves *h)
{
	uint32_t got;

	h->block = sc_pool_get(l->chan, 1, &got, true);
	h->off[0] = h->block ? h->block : l->buf_off;
	h->size = (h->block ? SC_POOL_BLOCK : SC_LANE_BUF_SIZE) / 2;
	h->off[1] = h->off[0] + h->size;
}

static void halves_put(struct sc_hlane *l, const struct halves *h)
{
	/* a call that was given up may still write there */
	if (h->block && !l->dead)
		sc_pool_put(l->chan, h->block, 1);
}

static uint32_t chunk(const struct rw *q, uint64_t done, uint32_t size)
{
	uint64_t left = q->p.total - done;

	return left < size ? (uint32_t)left : size;
}

/*
 * Long reads: while chunk i is copied out, chunk i+1 is read. The next one is asked for only after a full chunk, so the
 * end of the file costs nothing extra.
 */
static long rw_read_long(struct sc_thread *t, struct sc_hlane *l, struct rw *q,
			 const struct halves *h)
{
	uint64_t asked = 0, done = 0;
	uint32_t len[2], copied;
	struct sc_slot s;
	int index, turn = 0;
	long res;

	len[0] = chunk(q, 0, h->size);
	rw_slot(&s, q, 0, h->off[0], len[0]);
	index = sc_lane_submit(t, l, &s);
	asked = len[0];
	for (;;) {
		uint32_t mine = len[turn];
		bool more;

		res = index < 0 ? -EIO : sc_lane_wait(t, l, index, NULL, 0);
		if (res > (long)mine)
			res = -EIO;
		if (res <= 0)
			return done ? (long)done : res;
		more = (uint32_t)res == mine && asked < q->p.total;
		if (more) {
			len[!turn] = chunk(q, asked, h->size);
			rw_slot(&s, q, asked, h->off[!turn], len[!turn]);
			index = sc_lane_submit(t, l, &s);
			asked += len[!turn];
		}
		if (pieces_copy(&q->p, sc_chan_ptr(l->chan, h->off[turn]), (uint32_t)res, true,
				&copied)) {
			uint64_t ahead = (uint64_t)res - copied;

			res = more && index >= 0 ? sc_lane_wait(t, l, index, NULL, 0) : 0;
			step_back(t, l, q, ahead + (res > 0 ? (uint64_t)res : 0));
			done += copied;
			return done ? (long)done : -EFAULT;
		}
		done += (uint64_t)res;
		if (!more)
			return (long)done;
		turn = !turn;
	}
}

/* Long writes: while chunk i is written, chunk i+1 is copied in; it is sent only after i is written wholly. */
static long rw_write_long(struct sc_thread *t, struct sc_hlane *l, struct rw *q,
			  const struct halves *h)
{
	uint64_t done = 0, taken = 0;
	uint32_t len[2] = {0}, copied;
	struct sc_slot s;
	int index, turn = 0;
	long res, fault;

	len[0] = chunk(q, 0, h->size);
	fault = pieces_copy(&q->p, sc_chan_ptr(l->chan, h->off[0]), len[0], false, &copied);
	len[0] = copied;
	if (copied == 0)
		return fault;
	for (;;) {
		rw_slot(&s, q, done, h->off[turn], len[turn]);
		index = sc_lane_submit(t, l, &s);
		taken += len[turn];
		len[!turn] = 0;
		if (!fault && taken < q->p.total) {
			len[!turn] = chunk(q, taken, h->size);
			fault = pieces_copy(&q->p, sc_chan_ptr(l->chan, h->off[!turn]), len[!turn],
					    false, &copied);
			len[!turn] = copied;
		}
		res = index < 0 ? -EIO : sc_lane_wait(t, l, index, NULL, 0);
		if (res > (long)len[turn])
			res = -EIO;
		if (res < 0)
			return done ? (long)done : res;
		done += (uint64_t)res;
		if ((uint32_t)res < len[turn] || len[!turn] == 0)
			return (long)done;
		turn = !turn;
	}
}

/* An O_APPEND write in one piece, as far as the pool allows. */
static long rw_append(struct sc_thread *t, struct sc_hlane *l, struct rw *q)
{
	uint32_t want = q->p.total > SC_MAX_IO ? SC_MAX_IO : (uint32_t)q->p.total, got, off;
	uint64_t done = 0;
	long res = 0;

	while (done < q->p.total) {
		uint32_t len = chunk(q, done, want);

		off = sc_pool_get(l->chan, (len + SC_POOL_BLOCK - 1) / SC_POOL_BLOCK, &got, true);
		if (!off)
			return done ? (long)done : -ENOMEM;
		if (len > got * SC_POOL_BLOCK)
			len = got * SC_POOL_BLOCK;
		res = rw_once(t, l, q, off, len);
		if (!l->dead)
			sc_pool_put(l->chan, off, got);
		if (res <= 0)
			break;
		done += (uint64_t)res;
		if (res < (long)len)
			break;
	}
	return done ? (long)done : res;
}

static long rw_long(struct sc_thread *t, struct sc_hlane *l, struct rw *q)
{
	struct halves h;
	long res;

	if (q->write && (sc_oflags(q->f) & O_APPEND) && l->chan->pool_blocks)
		return rw_append(t, l, q);
	halves_get(l, &h);
	res = q->write ? rw_write_long(t, l, q, &h) : rw_read_long(t, l, q, &h);
	halves_put(l, &h);
	return res;
}

static long rw_run(struct sc_thread *t, struct rw *q)
{
	struct sc_hlane *l;
	long res;

	if (q->write ? !sc_may_write(q->f) : !sc_may_read(q->f))
		return -EBADF;
	if (!q->write && q->f->type == S_IFDIR)
		return -EISDIR;
	if (q->p.total > RW_MAX)
		q->p.total = RW_MAX;
	res = q->write ? sc_limit_write(t, q->f, q->curpos ? NULL : &q->off, q->rwf & RWF_APPEND,
					&q->p.total)
		       : 0;
	if (res)
		return res;
	res = sc_lane_get(t, q->f->dom, &l);
	if (res)
		return res;
	res = sc_file_grant(t, l, q->f);
	if (!res && q->p.total <= SC_LANE_BUF_SIZE)
		res = rw_once(t, l, q, l->buf_off, (uint32_t)q->p.total);
	else if (!res)
		res = rw_long(t, l, q);
	sc_lane_put(t, l);
	return res == -EBADF ? -EIO : res;
}

/* ---- the calls ---- */

static long rw_simple(struct sc_thread *t, const struct sc_call *c, bool write, bool curpos,
		      long off)
{
	struct iovec v = {.iov_base = (void *)c->a[1], .iov_len = (size_t)c->a[2]};
	struct rw q = {
	    .f = c->file,
	    .p = {.iov = &v, .n = 1, .total = v.iov_len},
	    .write = write,
	    .curpos = curpos,
	    .off = (uint64_t)off,
	};

	if (!curpos && off < 0)
		return -EINVAL;
	if (write ? !sc_may_write(q.f) : !sc_may_read(q.f))
		return -EBADF;
	if (!sc_user_range(v.iov_base, v.iov_len))
		return -EFAULT;
	return rw_run(t, &q);
}

long call_read(struct sc_thread *t, const struct sc_call *c)
{
	return rw_simple(t, c, false, true, 0);
}

long call_write(struct sc_thread *t, const struct sc_call *c)
{
	return rw_simple(t, c, true, true, 0);
}

long call_pread64(struct sc_thread *t, const struct sc_call *c)
{
	return rw_simple(t, c, false, false, c->a[3]);
}

long call_pwrite64(struct sc_thread *t, const struct sc_call *c)
{
	return rw_simple(t, c, true, false, c->a[3]);
}

/* Copies the vector and adds it up. Bytes, or -errno. */
static long iov_get(struct sc_serve_thread *s, const struct sc_call *c, struct pieces *p)
{
	struct iovec *v = (struct iovec *)s->scratch;
	uint64_t n = (uint64_t)c->a[2];

	static_assert(sizeof(s->scratch) >= IOV_LIMIT * sizeof(*v), "room for the longest vector");
	if (n > IOV_LIMIT)
		return -EINVAL;
	if (sc_copy_from_user(v, (const void *)c->a[1], n * sizeof(*v)))
		return -EFAULT;
	p->iov = v;
	p->n = (uint32_t)n;
	for (uint32_t i = 0; i < p->n; i++) {
		if ((ssize_t)v[i].iov_len < 0)
			return -EINVAL;
		if (!sc_user_range(v[i].iov_base, v[i].iov_len))
			return -EFAULT;
		if (v[i].iov_len > RW_MAX - p->total)
			v[i].iov_len = RW_MAX - p->total;
		p->total += v[i].iov_len;
	}
	return 0;
}

static long rw_vector(struct sc_thread *t, const struct sc_call *c, bool write, bool curpos,
		      long off, uint32_t rwf)
{
	struct sc_serve_thread *s = sc_serve_of(t);
	struct rw q = {
	    .f = c->file, .write = write, .curpos = curpos, .off = (uint64_t)off, .rwf = rwf};
	long err;

	if (!s)
		return -ENOMEM;
	if (!curpos && off < 0)
		return -EINVAL;
	if (write ? !sc_may_write(q.f) : !sc_may_read(q.f))
		return -EBADF;
	err = iov_get(s, c, &q.p);
	return err ? err : rw_run(t, &q);
}

long call_readv(struct sc_thread *t, const struct sc_call *c)
{
	return rw_vector(t, c, false, true, 0, 0);
}

long call_writev(struct sc_thread *t, const struct sc_call *c)
{
	return rw_vector(t, c, true, true, 0, 0);
}

long call_preadv(struct sc_thread *t, const struct sc_call *c)
{
	return rw_vector(t, c, false, false, c->a[3], 0);
}

long call_pwritev(struct sc_thread *t, const struct sc_call *c)
{
	return rw_vector(t, c, true, false, c->a[3], 0);
}

static long rw_vector2(struct sc_thread *t, const struct sc_call *c, bool write)
{
	uint32_t rwf = (uint32_t)c->a[5];

	if (rwf & ~RWF_KNOWN)
		return -EOPNOTSUPP;
	return rw_vector(t, c, write, c->a[3] == -1, c->a[3], rwf);
}

long call_preadv2(struct sc_thread *t, const struct sc_call *c)
{
	return rw_vector2(t, c, false);
}

long call_pwritev2(struct sc_thread *t, const struct sc_call *c)
{
	return rw_vector2(t, c, true);
}

long call_lseek(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_opx x = {.op = SC_OP_SEEK, .off = (uint64_t)c->a[1], .arg0 = (uint32_t)c->a[2]};

	if (sc_is_path(c->file))
		return -EBADF;
	if ((uint32_t)c->a[2] > SEEK_HOLE)
		return -EINVAL;
	return sc_file_call(t, c->file, &x);
}
