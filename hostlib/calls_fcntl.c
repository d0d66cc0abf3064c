// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_fcntl.c - fcntl, flock, and locks.
 *
 * What concerns the descriptor alone (F_GETFD, F_SETFD, F_SETOWN...) runs natively, on the ticket
 * that is at its number. Locks live where the file is. A wait for one is interrupted by signals as
 * the kernel's is: the request is cancelled in the domain and the call restarted if the handler has
 * SA_RESTART.
 *
 * Not as on a local file: leases (F_SETLEASE: EINVAL, as on file systems that have none) and
 * directory notification (F_NOTIFY: EINVAL, as on kernels without it). F_CREATED_QUERY: EINVAL, as
 * before Linux 6.12.
 */
#include <sys/file.h>

#include "calls.h"

/* Commands that the headers of our libc do not have. */
#define CMD_DUPFD_QUERY 1027
#define CMD_GET_RW_HINT 1035
#define CMD_SET_RW_HINT 1036
#define RW_HINT_MAX	5  /* RWH_WRITE_LIFE_EXTREME */
#define AUX_RW_HINT	0  /* of sc_file.aux */
#define FLOCK_MAND	32 /* LOCK_MAND: warned about and ignored since Linux 5.15 */
#define SETFL_MASK	(O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME)

#ifndef F_OFD_GETLK
#define F_OFD_GETLK  36
#define F_OFD_SETLK  37
#define F_OFD_SETLKW 38
#endif

/* F_GETFL. Another process that has the same open file may have changed its flags: then the agent
 * knows. */
static long get_flags(struct sc_thread *t, struct sc_file *f)
{
	struct sc_opx x = {.op = SC_OP_GETFL};

	if (sc_is_path(f) || !(__atomic_load_n(&f->flags, __ATOMIC_RELAXED) & SC_FILE_SHARED))
		return (long)sc_oflags(f);
	return sc_file_call(t, f, &x);
}

long sc_set_file_flags(struct sc_thread *t, struct sc_file *f, uint32_t flags)
{
	struct sc_opx x = {.op = SC_OP_SETFL, .arg0 = flags & SETFL_MASK};
	long res = sc_file_call(t, f, &x);

	if (res < 0)
		return res;
	__atomic_store_n(&f->oflags, (sc_oflags(f) & ~(uint32_t)SETFL_MASK) | (flags & SETFL_MASK),
			 __ATOMIC_RELAXED);
	return 0;
}

static uint32_t lock_command(int cmd)
{
	switch (cmd) {
	case F_GETLK:
		return SC_LK_GET;
	case F_SETLK:
		return SC_LK_SET;
	case F_SETLKW:
		return SC_LK_SETW;
	case F_OFD_GETLK:
		return SC_LK_OFD_GET;
	case F_OFD_SETLK:
		return SC_LK_OFD_SET;
	default:
		return SC_LK_OFD_SETW;
	}
}

static bool is_ofd(int cmd)
{
	return cmd == F_OFD_GETLK || cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW;
}

static bool is_getlk(int cmd)
{
	return cmd == F_GETLK || cmd == F_OFD_GETLK;
}

/* A range counted from the file's start that cannot be. Of ranges counted from elsewhere the agent
 * finds that out. */
static long range_error(const struct flock *u)
{
	if (u->l_whence != SEEK_SET)
		return 0;
	if (u->l_start < 0 || (u->l_len < 0 && u->l_start + u->l_len < 0))
		return -EINVAL;
	return u->l_len > 0 && u->l_len - 1 > INT64_MAX - u->l_start ? -EOVERFLOW : 0;
}

/* What the kernel refuses before it looks for other locks, in its order. */
static long lock_error(const struct sc_file *f, int cmd, const struct flock *u)
{
	long err;

	if (cmd == F_GETLK && u->l_type != F_RDLCK && u->l_type != F_WRLCK)
		return -EINVAL;
	if (u->l_whence != SEEK_SET && u->l_whence != SEEK_CUR && u->l_whence != SEEK_END)
		return -EINVAL;
	err = range_error(u);
	if (err)
		return err;
	if (u->l_type != F_RDLCK && u->l_type != F_WRLCK && u->l_type != F_UNLCK)
		return -EINVAL;
	if (!is_getlk(cmd) && u->l_type == F_RDLCK && !sc_may_read(f))
		return -EBADF;
	if (!is_getlk(cmd) && u->l_type == F_WRLCK && !sc_may_write(f))
		return -EBADF;
	return is_ofd(cmd) && u->l_pid != 0 ? -EINVAL : 0;
}

/* F_GETLK's answer. If nothing is in the way, the kernel changes the type alone. */
static void lock_answer(struct flock *u, const struct sc_lock *lk)
{
	u->l_type = (short)lk->type;
	if (u->l_type == F_UNLCK)
		return;
	u->l_whence = SEEK_SET;
	u->l_start = lk->start;
	u->l_len = lk->len;
	u->l_pid = (pid_t)lk->pid;
}

static long record_lock(struct sc_thread *t, const struct sc_call *c, int cmd)
{
	struct flock u;
	struct sc_lock lk;
	struct sc_opx x = {.op = SC_OP_LOCK,
			   .arg0 = lock_command(cmd),
			   .d1 = {.p = &lk, .len = sizeof(lk), .in = 1, .out = 1}};
	long res;

	if (sc_copy_from_user(&u, (const void *)c->a[2], sizeof(u)))
		return -EFAULT;
	res = lock_error(c->file, cmd, &u);
	if (res)
		return res;
	lk = (struct sc_lock){.type = (uint32_t)u.l_type,
			      .whence = (uint32_t)u.l_whence,
			      .start = u.l_start,
			      .len = u.l_len};
	if (cmd == F_SETLK || cmd == F_SETLKW)
		__atomic_store_n(&t->proc->posix_locks, 1, __ATOMIC_RELAXED);
	if (cmd == F_SETLKW || cmd == F_OFD_SETLKW)
		x.wait_flags = SC_WAIT_INTERRUPTIBLE;
	res = sc_file_call(t, c->file, &x);
	if (res < 0 || !is_getlk(cmd))
		return res;
	lock_answer(&u, &lk);
	return sc_copy_to_user((void *)c->a[2], &u, sizeof(u));
}

/* A hint for devices: kept here, and used by nobody. */
static long rw_hint(const struct sc_call *c, int cmd)
{
	uint64_t hint = __atomic_load_n(&c->file->aux[AUX_RW_HINT], __ATOMIC_RELAXED);

	if (cmd == CMD_GET_RW_HINT)
		return sc_copy_to_user((void *)c->a[2], &hint, sizeof(hint));
	if (sc_copy_from_user(&hint, (const void *)c->a[2], sizeof(hint)))
		return -EFAULT;
	if (hint > RW_HINT_MAX)
		return -EINVAL;
	__atomic_store_n(&c->file->aux[AUX_RW_HINT], hint, __ATOMIC_RELAXED);
	return 0;
}

/* Do two descriptors name the same open file? */
static long dup_query(struct sc_thread *t, const struct sc_call *c)
{
	int other = sc_int(c->a[2]);

	if (sc_fd_file(t, other))
		return sc_fd_file(t, other) == c->file;
	return sc_sys2(__NR_fcntl, other, F_GETFD) < 0 ? -EBADF : 0;
}

/* Commands for files that are more than a name (O_PATH). */
static long open_file_command(struct sc_thread *t, const struct sc_call *c, int cmd)
{
	switch (cmd) {
	case F_SETFL:
		return sc_set_file_flags(t, c->file, (uint32_t)c->a[2]);
	case F_GETLK:
	case F_SETLK:
	case F_SETLKW:
	case F_OFD_GETLK:
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
		return record_lock(t, c, cmd);
	case F_GETOWN:
	case F_SETOWN:
	case F_GETOWN_EX:
	case F_SETOWN_EX:
	case F_GETSIG:
	case F_SETSIG:
		return SC_NATIVE;
	case F_GETLEASE:
		return F_UNLCK;
	case F_NOTIFY:
		return c->file->type == S_IFDIR ? -EINVAL : -ENOTDIR;
	case F_GETPIPE_SZ:
	case F_SETPIPE_SZ:
		return -EBADF;
	case F_ADD_SEALS:
		return sc_may_write(c->file) ? -EINVAL : -EPERM;
	case CMD_GET_RW_HINT:
	case CMD_SET_RW_HINT:
		return rw_hint(c, cmd);
	default: /* F_SETLEASE, F_GET_SEALS, and what nobody knows */
		return -EINVAL;
	}
}

long call_fcntl(struct sc_thread *t, const struct sc_call *c)
{
	int cmd = sc_int(c->a[1]);

	switch (cmd) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		return sc_fd_dup(t, sc_int(c->a[0]), sc_int(c->a[2]), cmd == F_DUPFD_CLOEXEC);
	case F_GETFD:
	case F_SETFD:
		return SC_NATIVE;
	case F_GETFL:
		return get_flags(t, c->file);
	case CMD_DUPFD_QUERY:
		return dup_query(t, c);
	default:
		return sc_is_path(c->file) ? -EBADF : open_file_command(t, c, cmd);
	}
}

long call_flock(struct sc_thread *t, const struct sc_call *c)
{
	uint32_t how = (uint32_t)c->a[1];
	uint32_t type = how & ~(uint32_t)LOCK_NB;
	struct sc_opx x = {.op = SC_OP_FLOCK, .arg0 = how, .wait_flags = SC_WAIT_INTERRUPTIBLE};

	if (how & FLOCK_MAND)
		return 0;
	if (type != LOCK_SH && type != LOCK_EX && type != LOCK_UN)
		return -EINVAL;
	if (sc_is_path(c->file))
		return -EBADF;
	if (type != LOCK_UN && !sc_may_read(c->file) && !sc_may_write(c->file))
		return -EBADF;
	return sc_file_call(t, c->file, &x);
}
