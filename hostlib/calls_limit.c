// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_limit.c - RLIMIT_FSIZE, the one resource limit that the kernel checks where files are
 * written: the domain does not know a program's limits, so they are kept here.
 *
 * The limit is read when the first write asks, and again after the program changed it (setrlimit,
 * prlimit64). A change by another process (prlimit --pid) is not seen. Without a limit, which is
 * the rule, a write costs one comparison more. Between the look at a file's size and the write
 * another process may make it longer: then the limit can be passed by what that one added.
 */
#include "calls.h"

#include <signal.h>
#include <sys/resource.h>

static uint64_t limit_now(struct sc_thread *t)
{
	struct sc_proc *p = t->proc;
	struct rlimit rl;

	if (__atomic_load_n(&p->fsize_known, __ATOMIC_ACQUIRE))
		return __atomic_load_n(&p->fsize, __ATOMIC_RELAXED);
	if (sc_sys4(__NR_prlimit64, 0, RLIMIT_FSIZE, NULL, &rl))
		return RLIM_INFINITY;
	__atomic_store_n(&p->fsize, rl.rlim_cur, __ATOMIC_RELAXED);
	__atomic_store_n(&p->fsize_known, true, __ATOMIC_RELEASE);
	return rl.rlim_cur;
}

/* What the kernel does with a write that the limit forbids wholly. */
static long too_big(void)
{
	sc_sys3(__NR_tgkill, sc_sys0(__NR_getpid), sc_sys0(__NR_gettid), SIGXFSZ);
	return -EFBIG;
}

static long file_size(struct sc_thread *t, struct sc_file *f, uint64_t *size)
{
	struct sc_stat st = {0};
	struct sc_opx x = {.op = SC_OP_STAT,
			   .arg0 = AT_EMPTY_PATH,
			   .arg1 = STATX_SIZE,
			   .d2 = {.p = &st, .len = sizeof(st), .out = 1}};
	long res = sc_file_call(t, f, &x);

	*size = st.size;
	return res < 0 ? res : 0;
}

static long file_pos(struct sc_thread *t, struct sc_file *f, uint64_t *pos)
{
	struct sc_opx x = {.op = SC_OP_SEEK, .arg0 = SEEK_CUR};
	long res = sc_file_call(t, f, &x);

	*pos = (uint64_t)res;
	return res < 0 ? res : 0;
}

long sc_limit_write(struct sc_thread *t, struct sc_file *f, const uint64_t *at, bool append,
		    uint64_t *len)
{
	uint64_t limit = limit_now(t);
	uint64_t pos;
	long err = 0;

	if (limit == RLIM_INFINITY || f->type != S_IFREG || !*len)
		return 0;
	if (append || (sc_oflags(f) & O_APPEND))
		err = file_size(t, f, &pos);
	else if (at)
		pos = *at;
	else
		err = file_pos(t, f, &pos);
	if (err)
		return err;
	if (pos >= limit)
		return too_big();
	if (*len > limit - pos)
		*len = limit - pos;
	return 0;
}

long sc_limit_size(struct sc_thread *t, struct sc_file *f, uint64_t size)
{
	uint64_t now;

	if (size <= limit_now(t) || f->type != S_IFREG)
		return 0;
	if (file_size(t, f, &now) || size <= now)
		return 0;
	return too_big();
}

long sc_limit_path(struct sc_thread *t, const struct sc_call *c, int path_arg, uint64_t size)
{
	struct sc_stat st = {0};
	struct sc_opx x = {.op = SC_OP_STAT,
			   .arg1 = STATX_SIZE | STATX_TYPE,
			   .d2 = {.p = &st, .len = sizeof(st), .out = 1}};
	long res;

	if (size <= limit_now(t))
		return 0;
	res = sc_path_op(t, c, AT_FDCWD, path_arg, 0, &x);
	if (res || !S_ISREG(st.mode) || size <= st.size)
		return res;
	return too_big();
}

/* setrlimit, prlimit64: done here, and the limit is read anew at the next write. */
long call_setrlimit(struct sc_thread *t, const struct sc_call *c)
{
	int what = sc_int(c->nr == __NR_setrlimit ? c->a[0] : c->a[1]);
	long res;

	if (what != RLIMIT_FSIZE)
		return SC_NATIVE;
	res = sc_sys4(c->nr, c->a[0], c->a[1], c->a[2], c->a[3]);
	__atomic_store_n(&t->proc->fsize_known, false, __ATOMIC_RELEASE);
	return res;
}
