// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_msg.c - messages on sockets: descriptors of remote files that go to other processes, and come from them.
 *
 * Theory of operation: at a remote file's descriptor the kernel has its ticket, so that is what SCM_RIGHTS carries. Before
 * a message with remote descriptors is sent, the broker is told what their tickets hold (sc_fd_send()); the file is then
 * shared, as after a fork. Whoever receives a descriptor that could be a ticket asks the brokers of the domains that he has
 * routes to (sc_fd_receive()). A receiver without routes, or not under scrun, is left with the ticket: a socket that says
 * EPIPE and EAGAIN. pidfd_getfd is a receiver, too; there the sender was not asked, so only what was sent or inherited
 * before can be claimed.
 *
 * The calls themselves run natively.
 */
#include "calls.h"

#include <sys/socket.h>

#define CONTROL_MAX \
	4096u /* bytes of control data that are looked at: more than the 253 descriptors of one message take */
#define MESSAGES_MAX 1024u /* messages of one call, as in the kernel */

/* What is to be done with the descriptors of one message. */
typedef long control_fn(struct sc_thread *t, const int *fds, uint32_t n);

static long send_all(struct sc_thread *t, const int *fds, uint32_t n)
{
	long err = 0;

	for (uint32_t i = 0; i < n && !err; i++)
		err = sc_fd_send(t, fds[i]);
	return err;
}

static long receive_all(struct sc_thread *t, const int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += SC_TICKETS_BATCH)
		sc_fd_receive(t, fds + i, n - i < SC_TICKETS_BATCH ? n - i : SC_TICKETS_BATCH);
	return 0;
}

/* Goes through a copy of the program's control data. */
static long control_walk(struct sc_thread *t, const uint8_t *data, size_t len, control_fn *each)
{
	size_t at = 0;

	while (len - at >= sizeof(struct cmsghdr)) {
		struct cmsghdr c;
		long err;

		memcpy(&c, data + at, sizeof(c));
		if (c.cmsg_len < sizeof(c) || c.cmsg_len > len - at)
			return 0; /* the kernel says what it thinks of that */
		if (c.cmsg_level == SOL_SOCKET && c.cmsg_type == SCM_RIGHTS) {
			err = each(t, (const int *)(data + at + CMSG_LEN(0)),
				   (uint32_t)((c.cmsg_len - CMSG_LEN(0)) / sizeof(int)));
			if (err)
				return err;
		}
		if (CMSG_ALIGN(c.cmsg_len) >= len - at)
			return 0;
		at += CMSG_ALIGN(c.cmsg_len);
	}
	return 0;
}

/* Where a message's control data is; 0 bytes if there is none, or the header cannot be read. */
static size_t control_of(const struct msghdr *user, const void **data)
{
	struct msghdr m;

	if (sc_copy_from_user(&m, user, sizeof(m)) || !m.msg_control)
		return 0;
	*data = m.msg_control;
	return m.msg_controllen;
}

static long message(struct sc_thread *t, const struct msghdr *user, control_fn *each)
{
	uint8_t buf[CONTROL_MAX] __attribute__((aligned(8)));
	const void *data;
	size_t len = control_of(user, &data);

	if (len > sizeof(buf))
		len = sizeof(buf);
	if (len < CMSG_LEN(sizeof(int)) || sc_copy_from_user(buf, data, len))
		return 0;
	return control_walk(t, buf, len, each);
}

/* Is the descriptor one of those? Then *res is what its handler says. */
static bool is_ours(struct sc_thread *t, const struct sc_call *c, sc_handler *handler, long *res)
{
	struct sc_call with_file = *c;

	with_file.file = sc_fd_any(t, sc_int(c->a[0]));
	if (!with_file.file)
		return false;
	*res = handler(t, &with_file);
	return true;
}

long call_sendmsg_any(struct sc_thread *t, const struct sc_call *c)
{
	long err;

	if (is_ours(t, c, call_sendmsg, &err))
		return err;
	if (!sc_any_remote(t))
		return SC_NATIVE;
	err = message(t, (const struct msghdr *)c->a[1], send_all);
	return err ? err : SC_NATIVE;
}

long call_sendmmsg_any(struct sc_thread *t, const struct sc_call *c)
{
	const struct mmsghdr *v = (const struct mmsghdr *)c->a[1];
	uint32_t n = (uint32_t)c->a[2];
	long err = 0;

	if (is_ours(t, c, call_sendmmsg, &err))
		return err;
	if (!sc_any_remote(t))
		return SC_NATIVE;
	for (uint32_t i = 0; i < n && i < MESSAGES_MAX && !err; i++)
		err = message(t, &v[i].msg_hdr, send_all);
	return err ? err : SC_NATIVE;
}

static long received(struct sc_thread *t, long result)
{
	if (result >= 0)
		message(t, (const struct msghdr *)t->native.a[1], receive_all);
	return result;
}

long call_recvmsg_any(struct sc_thread *t, const struct sc_call *c)
{
	const void *data;
	long res;

	if (is_ours(t, c, call_recvmsg, &res))
		return res;
	if (control_of((const struct msghdr *)c->a[1], &data) < CMSG_LEN(sizeof(int)))
		return SC_NATIVE;
	return sc_native_changed(t, c, received);
}

static long received_many(struct sc_thread *t, long result)
{
	const struct mmsghdr *v = (const struct mmsghdr *)t->native.a[1];

	for (long i = 0; i < result; i++)
		message(t, &v[i].msg_hdr, receive_all);
	return result;
}

long call_recvmmsg_any(struct sc_thread *t, const struct sc_call *c)
{
	const struct mmsghdr *v = (const struct mmsghdr *)c->a[1];
	uint32_t n = (uint32_t)c->a[2];
	const void *data;
	long res;

	if (is_ours(t, c, call_recvmmsg, &res))
		return res;
	for (uint32_t i = 0; i < n && i < MESSAGES_MAX; i++)
		if (control_of(&v[i].msg_hdr, &data) >= CMSG_LEN(sizeof(int)))
			return sc_native_changed(t, c, received_many);
	return SC_NATIVE;
}

static long fetched(struct sc_thread *t, long result)
{
	int fd = (int)result;

	if (result >= 0)
		sc_fd_receive(t, &fd, 1);
	return result;
}

long call_pidfd_getfd(struct sc_thread *t, const struct sc_call *c)
{
	return sc_native_changed(t, c, fetched);
}
