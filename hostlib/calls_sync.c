// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_sync.c - calls about what a file occupies and what of it is on disk: fallocate, fadvise64,
 * readahead, fsync, fdatasync, sync_file_range, syncfs, sync.
 */
#include "calls.h"

long call_fallocate(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_opx x = {.op = SC_OP_FALLOCATE,
			   .off = (uint64_t)c->a[2],
			   .arg0 = (uint32_t)c->a[1],
			   .arg1 = (uint64_t)c->a[3]};

	long err;

	if (sc_is_path(c->file))
		return -EBADF;
	if (c->a[2] >= 0 && c->a[3] > 0 && !((uint32_t)c->a[1] & FALLOC_FL_KEEP_SIZE) &&
	    sc_may_write(c->file)) {
		err = sc_limit_size(t, c->file, (uint64_t)c->a[2] + (uint64_t)c->a[3]);
		if (err)
			return err;
	}
	return sc_file_call(t, c->file, &x);
}

static long advise(struct sc_thread *t, const struct sc_call *c, long off, uint64_t len, int advice)
{
	struct sc_opx x = {
	    .op = SC_OP_FADVISE, .off = (uint64_t)off, .arg0 = (uint32_t)advice, .arg1 = len};

	return sc_file_call(t, c->file, &x);
}

long call_fadvise64(struct sc_thread *t, const struct sc_call *c)
{
	if (sc_is_path(c->file))
		return -EBADF;
	return advise(t, c, c->a[1], (uint64_t)c->a[2], sc_int(c->a[3]));
}

long call_readahead(struct sc_thread *t, const struct sc_call *c)
{
	if (!sc_may_read(c->file))
		return -EBADF;
	if (c->file->type != S_IFREG && c->file->type != S_IFBLK)
		return -EINVAL;
	return advise(t, c, c->a[1], (uint64_t)c->a[2], POSIX_FADV_WILLNEED);
}

static long sync_file(struct sc_thread *t, const struct sc_call *c, struct sc_opx *x)
{
	x->op = SC_OP_SYNC;
	if (sc_is_path(c->file))
		return -EBADF;
	return sc_file_call(t, c->file, x);
}

long call_fsync(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_opx x = {.arg0 = c->nr == __NR_fdatasync ? SC_SYNC_DATA
				   : c->nr == __NR_syncfs  ? SC_SYNC_FS
							   : SC_SYNC_FULL};

	return sync_file(t, c, &x);
}

long call_sync_file_range(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_opx x = {.arg0 = SC_SYNC_RANGE,
			   .off = (uint64_t)c->a[1],
			   .arg1 = (uint64_t)c->a[2],
			   .arg2 = (uint32_t)c->a[3]};

	return sync_file(t, c, &x);
}

/* sync(2) waits for every file system: the attached domains' first, then, natively, the host's. It
 * cannot fail. */
long call_sync(struct sc_thread *t, const struct sc_call *c)
{
	for (uint32_t i = 0; i < sc_ndoms; i++) {
		struct sc_slot s = {.op = SC_OP_SYNCALL};
		struct sc_hlane *l;

		if (!__atomic_load_n(&sc_doms[i].chan, __ATOMIC_ACQUIRE))
			continue; /* nothing was written there by us */
		if (sc_lane_get(t, &sc_doms[i], &l))
			continue;
		sc_lane_call(t, l, &s, NULL, 0);
		sc_lane_put(t, l);
	}
	return SC_NATIVE;
}
