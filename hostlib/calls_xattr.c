// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_xattr.c - extended attributes: get, set, list and remove, each by path, by path without
 * following a last symbolic link, by descriptor, and in the ...at form of Linux 6.13.
 *
 * Order of checks as the kernel's since 6.13: flags, name and value first, then the file.
 */
#include <linux/limits.h>
#include <sys/xattr.h>

#include "calls.h"

/* struct xattr_args of setxattrat and getxattrat. */
struct at_args {
	uint64_t value;
	uint32_t size;
	uint32_t flags;
};

/* What the forms of one call have in common, after their arguments are told apart. */
struct xattr_call {
	int dirfd;
	int path_arg; /* -1: the descriptor c->file */
	uint32_t at;  /* AT_* flags */
	void *name;   /* the program's */
	void *value;
	uint64_t size;
	uint32_t flags; /* XATTR_CREATE, XATTR_REPLACE */
};

/* Copies a name to `to` (256 bytes). Its length or -errno. */
static long get_name(char *to, const void *user)
{
	long len = sc_strnlen_user(user, XATTR_NAME_MAX + 1);

	if (len < 0)
		return len;
	if (len == 0 || len == XATTR_NAME_MAX + 1)
		return -ERANGE;
	if (sc_copy_from_user(to, user, (size_t)len))
		return -EFAULT;
	return len;
}

static long run(struct sc_thread *t, const struct sc_call *c, const struct xattr_call *a,
		struct sc_opx *x)
{
	x->arg0 = a->at;
	if (a->path_arg >= 0)
		return sc_path_op(t, c, a->dirfd, a->path_arg, sc_at_flags(a->at), x);
	if (sc_is_path(c->file))
		return -EBADF;
	return sc_self_op(t, c, x);
}

static long get_value(struct sc_thread *t, const struct sc_call *c, const struct xattr_call *a)
{
	char name[XATTR_NAME_MAX + 1];
	uint32_t size = a->size > XATTR_SIZE_MAX ? XATTR_SIZE_MAX : (uint32_t)a->size;
	struct sc_opx x = {.op = SC_OP_GETXATTR};
	long len = get_name(name, a->name);
	long res;

	if (len < 0)
		return len;
	x.d2 = (struct sc_data){.p = name, .len = (uint32_t)len, .in = 1};
	if (size)
		x.d3 =
		    (struct sc_data){.p = a->value, .len = size, .out = 1, .user = 1, .by_res = 1};
	res = run(t, c, a, &x);
	return res == -ERANGE && size == XATTR_SIZE_MAX ? -E2BIG : res;
}

static long set_value(struct sc_thread *t, const struct sc_call *c, const struct xattr_call *a)
{
	char name[XATTR_NAME_MAX + 1];
	struct sc_opx x = {.op = SC_OP_SETXATTR, .arg2 = a->flags};
	long len;

	if (a->flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	len = get_name(name, a->name);
	if (len < 0)
		return len;
	if (a->size > XATTR_SIZE_MAX)
		return -E2BIG;
	x.d2 = (struct sc_data){.p = name, .len = (uint32_t)len, .in = 1};
	if (a->size)
		x.d3 =
		    (struct sc_data){.p = a->value, .len = (uint32_t)a->size, .in = 1, .user = 1};
	return run(t, c, a, &x);
}

static long list_names(struct sc_thread *t, const struct sc_call *c, const struct xattr_call *a)
{
	uint32_t size = a->size > XATTR_LIST_MAX ? XATTR_LIST_MAX : (uint32_t)a->size;
	struct sc_opx x = {.op = SC_OP_LISTXATTR};
	long res;

	if (size)
		x.d2 =
		    (struct sc_data){.p = a->value, .len = size, .out = 1, .user = 1, .by_res = 1};
	res = run(t, c, a, &x);
	return res == -ERANGE && size == XATTR_LIST_MAX ? -E2BIG : res;
}

static long remove_name(struct sc_thread *t, const struct sc_call *c, const struct xattr_call *a)
{
	char name[XATTR_NAME_MAX + 1];
	struct sc_opx x = {.op = SC_OP_REMOVEXATTR};
	long len = get_name(name, a->name);

	if (len < 0)
		return len;
	x.d2 = (struct sc_data){.p = name, .len = (uint32_t)len, .in = 1};
	return run(t, c, a, &x);
}

/* The path forms and the descriptor form have their other arguments at the same places. */
static void plain_form(const struct sc_call *c, long by_fd, long no_follow, struct xattr_call *a)
{
	*a = (struct xattr_call){.dirfd = AT_FDCWD,
				 .path_arg = c->nr == by_fd ? -1 : 0,
				 .at = c->nr == no_follow ? AT_SYMLINK_NOFOLLOW : 0,
				 .name = (void *)c->a[1],
				 .value = (void *)c->a[2],
				 .size = (uint64_t)c->a[3]};
}

long call_getxattr(struct sc_thread *t, const struct sc_call *c)
{
	struct xattr_call a;

	plain_form(c, __NR_fgetxattr, __NR_lgetxattr, &a);
	return get_value(t, c, &a);
}

long call_setxattr(struct sc_thread *t, const struct sc_call *c)
{
	struct xattr_call a;

	plain_form(c, __NR_fsetxattr, __NR_lsetxattr, &a);
	a.flags = (uint32_t)c->a[4];
	return set_value(t, c, &a);
}

long call_listxattr(struct sc_thread *t, const struct sc_call *c)
{
	struct xattr_call a;

	plain_form(c, __NR_flistxattr, __NR_llistxattr, &a);
	a.value = (void *)c->a[1];
	a.size = (uint64_t)c->a[2];
	return list_names(t, c, &a);
}

long call_removexattr(struct sc_thread *t, const struct sc_call *c)
{
	struct xattr_call a;

	plain_form(c, __NR_fremovexattr, __NR_lremovexattr, &a);
	return remove_name(t, c, &a);
}

static long at_form(const struct sc_call *c, struct xattr_call *a)
{
	*a = (struct xattr_call){.dirfd = sc_int(c->a[0]),
				 .path_arg = 1,
				 .at = (uint32_t)c->a[2],
				 .name = (void *)c->a[3]};
	return a->at & ~(uint32_t)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) ? -EINVAL : 0;
}

/* The at forms of get and set take value, size and flags from a structure whose size is the last
 * argument. */
static long at_form_args(const struct sc_call *c, struct xattr_call *a)
{
	struct at_args args;
	long err = at_form(c, a);

	if (err)
		return err;
	if ((uint64_t)c->a[5] < sizeof(args))
		return -EINVAL;
	if ((uint64_t)c->a[5] > sizeof(args))
		return -E2BIG; /* a later kernel's, with fields that we cannot know */
	if (sc_copy_from_user(&args, (const void *)c->a[4], sizeof(args)))
		return -EFAULT;
	a->value = (void *)args.value;
	a->size = args.size;
	a->flags = args.flags;
	return 0;
}

long call_getxattrat(struct sc_thread *t, const struct sc_call *c)
{
	struct xattr_call a;
	long err = at_form_args(c, &a);

	if (err)
		return err;
	return a.flags ? -EINVAL : get_value(t, c, &a);
}

long call_setxattrat(struct sc_thread *t, const struct sc_call *c)
{
	struct xattr_call a;
	long err = at_form_args(c, &a);

	return err ? err : set_value(t, c, &a);
}

long call_listxattrat(struct sc_thread *t, const struct sc_call *c)
{
	struct xattr_call a;
	long err = at_form(c, &a);

	a.value = (void *)c->a[3];
	a.size = (uint64_t)c->a[4];
	return err ? err : list_names(t, c, &a);
}

long call_removexattrat(struct sc_thread *t, const struct sc_call *c)
{
	struct xattr_call a;
	long err = at_form(c, &a);

	return err ? err : remove_name(t, c, &a);
}
