// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_copy.c - copy_file_range, sendfile, splice where at least one end is remote.
 *
 * Two files of one domain: the domain copies (SC_OP_COPY), no byte comes here. All else goes
 * through a buffer of the library's own, and never through a lane's: a lane must not be held while
 * a local end blocks, for the thread that would unblock it may need that lane.
 *
 * Local ends are read and written with sc_raw_syscall_interruptible(), so that a signal ends a wait
 * as it would end the native call: with what was moved so far, or with a restart.
 *
 *   remote to a local pipe: vmsplice of a fresh buffer that is unmapped afterwards. It takes what
 * the pipe has room for, as splice does; a plain write would wait until all is in, and a program
 * that is its own reader would wait for itself. remote to any other local file: write. local to
 * remote: read, then write. What was read from a pipe and could not be written (a full disk) is
 * lost; the kernel would have left it in the pipe.
 *
 * Sockets of domains: what is sent is never more than there is room for at that moment (sc_net_room()), and what is received
 * is taken only when it went on.
 *
 * A remote position that a read has moved too far is moved back. tee and vmsplice need pipes at
 * both ends or at the one end they have; a remote file is none, and the kernel says so of the
 * ticket at its number: they stay native.
 */
#include <linux/fs.h>
#include <poll.h>
#include <sys/uio.h>

#include "calls.h"
#include "net.h"

#define CHUNK	  (256u * 1024u) /* bytes moved at once */
#define COUNT_MAX 0x7ffff000ul	 /* most bytes that the kernel moves in one call */

#ifndef SPLICE_F_NONBLOCK
#define SPLICE_F_NONBLOCK 2
#endif
#define SPLICE_KNOWN 0xful /* SPLICE_F_ALL */

/* One end of a transfer. */
struct end {
	int fd;
	struct sc_file *file; /* remote, or NULL */
	struct sc_file *sock; /* a socket of a domain, or NULL */
	bool at;	      /* at `pos` rather than at the file's own position */
	long pos;
	void *user_pos; /* where the program wants it written back, or NULL */
};

static void end_init(struct sc_thread *t, struct end *e, long fd)
{
	struct sc_file *f = sc_fd_any(t, sc_int(fd));

	*e = (struct end){.fd = sc_int(fd), .file = sc_fd_file(t, sc_int(fd))};
	if (f && f->kind == SC_KIND_SOCK)
		e->sock = f;
}

/* Are both ends the kernel's? */
static bool both_local(const struct end *a, const struct end *b)
{
	return !a->file && !b->file && !a->sock && !b->sock;
}

/* Takes an offset argument: NULL, or where a loff_t lies. */
static long end_offset(struct end *e, long user)
{
	if (!user)
		return 0;
	e->at = true;
	e->user_pos = (void *)user;
	return sc_copy_from_user(&e->pos, e->user_pos, sizeof(e->pos));
}

static long end_put_offset(const struct end *e)
{
	return e->user_pos ? sc_copy_to_user(e->user_pos, &e->pos, sizeof(e->pos)) : 0;
}

/* Status flags of either kind of file; -EBADF if it is not open. */
static long end_flags(const struct end *e)
{
	if (e->sock)
		return O_RDWR;
	return e->file ? (long)sc_oflags(e->file) : sc_sys2(__NR_fcntl, e->fd, F_GETFL);
}

/* -EBADF unless the file is open and can be read (written). */
static long end_check(const struct end *e, bool write)
{
	long fl = end_flags(e);
	long mode = fl & O_ACCMODE;

	if (fl < 0)
		return fl;
	if (fl & O_PATH || mode == O_ACCMODE || mode == (write ? O_RDONLY : O_WRONLY))
		return -EBADF;
	return 0;
}

/* S_IFMT bits; 0 if it cannot be told. */
static uint32_t end_type(const struct end *e)
{
	struct stat st;

	if (e->file || e->sock)
		return e->file ? e->file->type : S_IFSOCK;
	return sc_sys2(__NR_fstat, e->fd, &st) ? 0 : st.st_mode & S_IFMT;
}

static bool is_local_pipe(const struct end *e)
{
	return !e->file && !e->sock && sc_sys2(__NR_fcntl, e->fd, F_GETPIPE_SZ) > 0;
}

/* Sets a file's position back by n bytes. */
static void step_back(struct sc_thread *t, struct end *e, long n)
{
	struct sc_opx x = {.op = SC_OP_SEEK, .off = (uint64_t)-n, .arg0 = SEEK_CUR};

	if (e->at)
		e->pos -= n;
	else if (e->file && n)
		sc_file_call(t, e->file, &x);
	else if (n)
		sc_sys3(__NR_lseek, e->fd, -n, SEEK_CUR);
}

/* A local result: EINTR becomes a restart, which sc_dispatch()'s caller turns into what the handler
 * asked for. */
static long local_result(long res)
{
	return res == -EINTR ? -SC_ERESTART : res;
}

/* Reads up to len bytes, advancing the position. Bytes, 0 at the end, or -errno. */
static long end_read(struct sc_thread *t, struct end *e, uint8_t *buf, uint32_t len)
{
	struct sc_opx x = {.op = SC_OP_READ,
			   .slot_flags = e->at ? 0 : SC_SLOT_F_CURPOS,
			   .off = (uint64_t)e->pos,
			   .d1 = {.p = buf, .len = len, .out = 1, .by_res = 1}};
	long res;

	if (e->file)
		res = sc_file_call(t, e->file, &x);
	else if (e->sock)
		res = sc_net_recv(t, e->sock, buf, len, 0);
	else if (e->at)
		res = local_result(sc_raw_syscall_interruptible(__NR_pread64, e->fd, (long)buf, len,
								e->pos, 0, 0));
	else
		res = local_result(
		    sc_raw_syscall_interruptible(__NR_read, e->fd, (long)buf, len, 0, 0, 0));
	if (res > 0 && e->at)
		e->pos += res;
	return res;
}

static long end_write(struct sc_thread *t, struct end *e, uint8_t *buf, uint32_t len)
{
	struct sc_opx x = {.op = SC_OP_WRITE,
			   .slot_flags = e->at ? 0 : SC_SLOT_F_CURPOS,
			   .off = (uint64_t)e->pos,
			   .d1 = {.p = buf, .len = len, .in = 1}};
	uint64_t want = len;
	uint64_t at = (uint64_t)e->pos;
	long res = e->file ? sc_limit_write(t, e->file, e->at ? &at : NULL, false, &want) : 0;

	x.d1.len = (uint32_t)want;
	if (res)
		return res;
	if (e->file)
		res = sc_file_call(t, e->file, &x);
	else if (e->sock)
		res = sc_net_send(t, e->sock, buf, len, 0);
	else if (e->at)
		res = local_result(sc_raw_syscall_interruptible(__NR_pwrite64, e->fd, (long)buf,
								len, e->pos, 0, 0));
	else
		res = local_result(
		    sc_raw_syscall_interruptible(__NR_write, e->fd, (long)buf, len, 0, 0, 0));
	if (res > 0 && e->at)
		e->pos += res;
	return res;
}

/*
 * Moves up to count bytes through a buffer: until the end of `in`, the first short write, a signal,
 * or, with `once`, one buffer's worth. Bytes, or the first error if there were none.
 */
static long pump(struct sc_thread *t, struct end *in, struct end *out, uint64_t count, bool once)
{
	uint8_t *buf = sc_map(CHUNK);
	uint64_t done = 0;
	long res = 0;

	if (!buf)
		return -ENOMEM;
	while (done < count) {
		uint32_t want = count - done < CHUNK ? (uint32_t)(count - done) : CHUNK;
		long room = out->sock ? sc_net_room(t, out->sock) : CHUNK;
		long got = room;

		if (room > 0)
			got = end_read(t, in, buf, room < (long)want ? (uint32_t)room : want);
		res = got;
		if (got <= 0)
			break;
		res = end_write(t, out, buf, (uint32_t)got);
		if (res < got)
			step_back(t, in, got - (res > 0 ? res : 0));
		if (res > 0)
			done += (uint64_t)res;
		if (res < got || once || sc_signal_waits(t))
			break;
	}
	sc_unmap(buf, CHUNK);
	return done ? (long)done : res;
}

/*
 * Remote file to local pipe. The pages go into the pipe as they are; the fresh mapping is given up
 * at once, so nobody changes them while they wait there.
 */
static long fill_pipe(struct sc_thread *t, struct end *in, struct end *out, uint64_t count,
		      long flags)
{
	uint32_t want = count < CHUNK ? (uint32_t)count : CHUNK;
	uint8_t *buf = sc_map(CHUNK);
	struct iovec v = {.iov_base = buf};
	long got;
	long put;

	if (!buf)
		return -ENOMEM;
	if (end_flags(out) & O_NONBLOCK)
		flags |= SPLICE_F_NONBLOCK;
	got = end_read(t, in, buf, want);
	put = got;
	if (got > 0) {
		v.iov_len = (size_t)got;
		put = local_result(
		    sc_raw_syscall_interruptible(__NR_vmsplice, out->fd, (long)&v, 1, flags, 0, 0));
		step_back(t, in, got - (put > 0 ? put : 0));
	}
	sc_unmap(buf, CHUNK);
	return put;
}

/* Both files of one domain: -EXDEV etc. if the domain's kernel cannot, which the caller takes as
 * "do it by hand". */
static long copy_inside(struct sc_thread *t, struct end *in, struct end *out, uint64_t count)
{
	struct sc_opx x = {.op = SC_OP_COPY,
			   .slot_flags =
			       (in->at ? 0 : SC_SLOT_F_CURPOS) | (out->at ? 0 : SC_SLOT_F_CURPOS2),
			   .off = (uint64_t)in->pos,
			   .arg0 = count,
			   .arg2 = (uint64_t)out->pos};
	uint64_t at = (uint64_t)out->pos;
	struct sc_hlane *l;
	long res = sc_limit_write(t, out->file, out->at ? &at : NULL, false, &x.arg0);

	if (res)
		return res;
	res = sc_lane_get(t, out->file->dom, &l);
	if (res)
		return res;
	res = sc_file_grant(t, l, out->file);
	sc_lane_put(t, l);
	if (res)
		return res;
	x.arg1 = out->file->handle;
	res = sc_file_call(t, in->file, &x);
	if (res > 0 && (uint64_t)res > x.arg0)
		return -EIO; /* more than was asked for */
	if (res > 0 && in->at)
		in->pos += res;
	if (res > 0 && out->at)
		out->pos += res;
	return res;
}

static bool same_domain(const struct end *a, const struct end *b)
{
	return a->file && b->file && a->file->dom == b->file->dom;
}

long call_copy_file_range(struct sc_thread *t, const struct sc_call *c)
{
	uint64_t count = (uint64_t)c->a[4] < COUNT_MAX ? (uint64_t)c->a[4] : COUNT_MAX;
	struct end in;
	struct end out;
	long res;

	end_init(t, &in, c->a[0]);
	end_init(t, &out, c->a[2]);
	if (!in.file && !out.file)
		return SC_NATIVE;
	if (end_flags(&in) < 0 || end_flags(&out) < 0)
		return -EBADF;
	if (end_flags(&in) & O_PATH || end_flags(&out) & O_PATH)
		return -EBADF;
	if (end_offset(&in, c->a[1]) || end_offset(&out, c->a[3]))
		return -EFAULT;
	if ((uint32_t)c->a[5])
		return -EINVAL;
	if (end_type(&in) == S_IFDIR || end_type(&out) == S_IFDIR)
		return -EISDIR;
	if (end_type(&in) != S_IFREG || end_type(&out) != S_IFREG)
		return -EINVAL;
	if (end_check(&in, false) || end_check(&out, true) || end_flags(&out) & O_APPEND)
		return -EBADF;
	if (!same_domain(&in, &out))
		return -EXDEV;
	res = copy_inside(t, &in, &out, count);
	if (res > 0 && (end_put_offset(&in) || end_put_offset(&out)))
		return -EFAULT;
	return res;
}

/* What sendfile refuses, in the kernel's order. */
static long sendfile_error(const struct end *in, const struct end *out, uint64_t count)
{
	long err = end_check(in, false);

	if (err)
		return err;
	if (in->at && (in->pos < 0 || (uint64_t)in->pos + count > INT64_MAX))
		return -EINVAL;
	if (end_check(out, true))
		return -EBADF;
	if (!in->file && sc_sys3(__NR_lseek, in->fd, 0, SEEK_CUR) < 0)
		return in->at ? -ESPIPE : -EINVAL;
	if (end_type(in) == S_IFDIR)
		return -EINVAL;
	if (end_type(out) == S_IFREG && end_flags(out) & O_APPEND)
		return -EINVAL;
	return 0;
}

static long sendfile_move(struct sc_thread *t, struct end *in, struct end *out, uint64_t count)
{
	long res;

	if (!count)
		return 0;
	if (is_local_pipe(out))
		return fill_pipe(t, in, out, count, 0);
	if (same_domain(in, out) && in->file != out->file) {
		res = copy_inside(t, in, out, count);
		if (res >= 0 || res == -ENOSPC || res == -EIO || res == -EFBIG)
			return res;
	}
	return pump(t, in, out, count, false);
}

long call_sendfile(struct sc_thread *t, const struct sc_call *c)
{
	uint64_t count = (uint64_t)c->a[3] < COUNT_MAX ? (uint64_t)c->a[3] : COUNT_MAX;
	struct end in;
	struct end out;
	long res;

	end_init(t, &out, c->a[0]);
	end_init(t, &in, c->a[1]);
	if (both_local(&in, &out))
		return SC_NATIVE;
	if (in.sock)
		return -EINVAL;
	if (end_offset(&in, c->a[2]))
		return -EFAULT;
	res = sendfile_error(&in, &out, count);
	if (res)
		return res;
	res = sendfile_move(t, &in, &out, count);
	if (res >= 0 && end_put_offset(&in))
		return -EFAULT;
	return res;
}

/* Local pipe to remote file. Waits for the first bytes only. */
static long drain_pipe(struct sc_thread *t, struct end *in, struct end *out, uint64_t count,
		       long flags)
{
	struct pollfd p = {.fd = in->fd, .events = POLLIN};

	if (flags & SPLICE_F_NONBLOCK && sc_sys3(__NR_poll, &p, 1, 0) == 0)
		return -EAGAIN;
	return pump(t, in, out, count, true);
}

/* Socket to local pipe: the bytes are looked at, put into the pipe, and only as many as went in are taken. */
static long sock_to_pipe(struct sc_thread *t, struct end *in, struct end *out, uint64_t count,
			 long flags)
{
	uint32_t want = count < CHUNK ? (uint32_t)count : CHUNK;
	uint8_t *buf = sc_map(CHUNK);
	struct iovec v = {.iov_base = buf};
	long got;
	long put;

	if (!buf)
		return -ENOMEM;
	if (sc_sys2(__NR_fcntl, out->fd, F_GETFL) & O_NONBLOCK)
		flags |= SPLICE_F_NONBLOCK;
	got = sc_net_recv(t, in->sock, buf, want,
			  MSG_PEEK | (flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0));
	put = got;
	if (got > 0) {
		v.iov_len = (size_t)got;
		put = local_result(
		    sc_raw_syscall_interruptible(__NR_vmsplice, out->fd, (long)&v, 1, flags, 0, 0));
	}
	if (put > 0)
		sc_net_recv(t, in->sock, NULL, (uint32_t)put, MSG_TRUNC | MSG_DONTWAIT);
	sc_unmap(buf, CHUNK);
	return put;
}

/* Local pipe to socket: no more is taken than there is room for. What was taken is sent, if need be with waiting. */
static long pipe_to_sock(struct sc_thread *t, struct end *in, struct end *out, uint64_t count,
			 long flags)
{
	struct pollfd p = {.fd = in->fd, .events = POLLIN};
	uint64_t room;
	long res = sc_net_room(t, out->sock);

	if (res <= 0)
		return res;
	room = (uint64_t)res;
	if (flags & SPLICE_F_NONBLOCK && sc_sys3(__NR_poll, &p, 1, 0) == 0)
		return -EAGAIN;
	return pump(t, in, out, count < room ? count : room, true);
}

long call_splice(struct sc_thread *t, const struct sc_call *c)
{
	uint64_t count = (uint64_t)c->a[4] < COUNT_MAX ? (uint64_t)c->a[4] : COUNT_MAX;
	long flags = (long)(uint32_t)c->a[5];
	struct end in;
	struct end out;
	long res;

	end_init(t, &in, c->a[0]);
	end_init(t, &out, c->a[2]);
	if (both_local(&in, &out))
		return SC_NATIVE;
	if (!count)
		return 0;
	if ((unsigned long)flags & ~SPLICE_KNOWN)
		return -EINVAL;
	if (end_flags(&in) < 0 || end_flags(&out) < 0)
		return -EBADF;
	if ((c->a[1] && is_local_pipe(&in)) || (c->a[3] && is_local_pipe(&out)))
		return -ESPIPE;
	if (end_offset(&out, c->a[3]) || end_offset(&in, c->a[1]))
		return -EFAULT;
	if (end_check(&in, false) || end_check(&out, true))
		return -EBADF;
	if (!is_local_pipe(&in) && !is_local_pipe(&out))
		return -EINVAL;
	if (end_type(&in) == S_IFDIR || (in.at && in.pos < 0) || (out.at && out.pos < 0))
		return -EINVAL;
	if (out.file && end_flags(&out) & O_APPEND)
		return -EINVAL;
	if ((in.sock && c->a[1]) || (out.sock && c->a[3]))
		return -EINVAL;
	if (in.sock)
		return sock_to_pipe(t, &in, &out, count, flags);
	if (out.sock)
		return pipe_to_sock(t, &in, &out, count, flags);
	res = out.file ? drain_pipe(t, &in, &out, count, flags)
		       : fill_pipe(t, &in, &out, count, flags);
	if (res > 0 && (end_put_offset(&in) || end_put_offset(&out)))
		return -EFAULT;
	return res;
}
