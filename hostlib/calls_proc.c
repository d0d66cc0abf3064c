/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * calls_proc.c - working directory, umask, credentials.
 *
 * A remote working directory is an O_PATH handle in the domain (struct sc_proc.cwd), held by a ticket of its own. The
 * kernel's working directory stays where it was; nothing resolves against it while cwd is set.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "chan-priv.h"
#include "dispatch.h"
#include "process.h"

/* Makes f (NULL: none) the working directory and lets go of the old one. */
static void cwd_set(struct sc_thread *t, struct sc_file *f)
{
	struct sc_proc *p = t->proc;
	struct sc_file *old;

	sc_mutex_lock(&p->fd_lock);
	old = p->cwd;
	p->cwd = f;
	p->cwd_known = false;
	sc_mutex_unlock(&p->fd_lock);
	if (old)
		sc_file_unref(t, old);
}

/* The kernel's working directory changed (or could not be). */
static long cwd_after(struct sc_thread *t, long result)
{
	if (result >= 0)
		cwd_set(t, NULL);
	return result;
}

/* May the caller search this directory? */
static long may_search(struct sc_thread *t, struct sc_hlane *l, uint64_t handle)
{
	struct sc_slot s = {.op = SC_OP_ACCESS,
			    .handle = handle,
			    .buf = sc_lane_off(l, SC_LB_PATH1),
			    .arg0 = AT_EMPTY_PATH | AT_EACCESS,
			    .arg1 = X_OK};

	return sc_lane_call(t, l, &s, NULL, 0);
}

/* One attempt; *crossed as in calls_open.c. On success the directory is set. */
static long chdir_at(struct sc_thread *t, const struct sc_call *c, struct sc_at *at, bool *crossed)
{
	struct sc_slot s = {.op = SC_OP_OPEN};
	struct sc_opening o = {.route = at->route};
	struct sc_hlane *l;
	uint32_t flags = 0;
	long res = sc_open_begin(t, at->dom, false, true, &o), err = 0;

	*crossed = false;
	if (res)
		return res;
	res = sc_lane_get(t, at->dom, &l);
	if (res) {
		sc_open_undo(t, &o);
		return res;
	}
	res = sc_at_slot(t, l, at, &s, 0);
	if (!res) {
		s.arg0 = O_PATH | O_DIRECTORY;
		s.arg1 = o.ticket;
		s.arg2 = o.secret;
		res = sc_lane_call(t, l, &s, &flags, 0);
		if (res >= 0)
			err = may_search(t, l, (uint64_t)res);
	}
	if (res == -EXDEV && (flags & SC_CQE_F_CROSS)) {
		*crossed = true;
		res = sc_at_cross(t, c, l, 0, 0, 0, at);
	}
	sc_lane_put(t, l);
	if (*crossed || res < 0) {
		sc_open_undo(t, &o);
		return res;
	}
	o.route = at->route;
	if (err) {
		sc_file_unref(
		    t, sc_open_done_nofd(t, &o, (uint64_t)res, O_PATH | O_DIRECTORY, S_IFDIR));
		return err;
	}
	cwd_set(t, sc_open_done_nofd(t, &o, (uint64_t)res, O_PATH | O_DIRECTORY, S_IFDIR));
	return 0;
}

long call_chdir(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_at at;
	bool crossed;
	long res = sc_at_get(t, c, AT_FDCWD, 0, 0, &at);

	while (res == 0) {
		res = chdir_at(t, c, &at, &crossed);
		if (!crossed)
			return res;
	}
	if (res == SC_NATIVE)
		return sc_native_changed(t, c, cwd_after);
	if (res == SC_NATIVE_CHANGED)
		t->native.after = t->native.after ? sc_chdir_after : cwd_after;
	return res;
}

/* After a chdir that may have failed because it leads to a remote place. */
long sc_chdir_after(struct sc_thread *t, long result)
{
	if (result >= 0)
		return cwd_after(t, result);
	return sc_path_after(t, result);
}

long call_fchdir(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_file *f = sc_fd_file(t, (int)c->a[0]);
	struct sc_opx x = {.op = SC_OP_ACCESS, .arg0 = AT_EMPTY_PATH | AT_EACCESS, .arg1 = X_OK};
	long res;

	if (!f)
		return sc_native_changed(t, c, cwd_after);
	if (f->type != S_IFDIR)
		return -ENOTDIR;
	res = sc_file_call(t, f, &x);
	if (res)
		return res;
	res = sc_file_hold_ticket(t, f, (int)c->a[0]);
	if (res)
		return res;
	sc_file_ref(t, f);
	cwd_set(t, f);
	return 0;
}

long call_getcwd(struct sc_thread *t, const struct sc_call *c)
{
	static const char deleted[] = " (deleted)";
	struct sc_file *f = t->proc->cwd;
	char path[SC_PATH_BUF];
	size_t del = sizeof(deleted) - 1;
	long n;

	if (!f)
		return SC_NATIVE;
	n = sc_file_path(t, f, path, sizeof(path));
	if (n < 0)
		return n;
	if ((size_t)n > del && memcmp(path + n - del, deleted, del) == 0)
		return -ENOENT;
	if ((unsigned long)c->a[1] < (unsigned long)n + 1)
		return -ERANGE;
	return sc_copy_to_user((void *)c->a[0], path, (size_t)n + 1) ? -EFAULT : n + 1;
}

long call_umask(struct sc_thread *t, const struct sc_call *c)
{
	__atomic_store_n(&t->proc->umask, (uint32_t)c->a[0] & 0777, __ATOMIC_RELAXED);
	return SC_NATIVE;
}

/* New credentials need a new session: the agent knows those that the broker saw at attach. */
static long ids_after(struct sc_thread *t, long result)
{
	if (result < 0)
		return result;
	for (uint32_t i = 0; i < sc_ndoms; i++) {
		sc_lane_drop(t, &sc_doms[i]);
		if (t->proc->vforked)
			sc_vchan_drop(t->proc, i);
		else
			sc_dom_drop(&sc_doms[i]);
	}
	return result;
}

long call_setids(struct sc_thread *t, const struct sc_call *c)
{
	return sc_native_changed(t, c, ids_after);
}

/* Routes are paths of the host's root: inside another root they mean nothing that we could tell. */
long call_chroot(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_at at;
	long res = sc_at_get(t, c, AT_FDCWD, 0, 0, &at);

	return res ? res : -EPERM;
}
