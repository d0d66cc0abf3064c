/* SPDX-License-Identifier: BSD-3-Clause */
/* msgq.c - messages that wait for the agent; see msgq.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "msgq.h"
#include "sock.h"

static void append(struct msgq *q, struct msg *m)
{
	if (!q->head)
		q->tail = &q->head;
	m->next = NULL;
	*q->tail = m;
	q->tail = &m->next;
	q->count++;
}

int msgq_put(struct msgq *q, const struct sc_msg_hdr *msg, const int *fds, unsigned nfds)
{
	struct msg *m;

	if (q->count >= TRANSPORT_QUEUE_MAX)
		return -ENOBUFS;
	m = malloc(sizeof(*m) + msg->len);
	if (!m)
		return -ENOMEM;
	m->len = msg->len;
	memcpy(m->data, msg, msg->len);
	for (m->nfds = 0; m->nfds < nfds; m->nfds++) {
		int fd = fcntl(fds[m->nfds], F_DUPFD_CLOEXEC, 3);

		if (fd < 0) {
			sock_close_fds(m->fds, m->nfds);
			free(m);
			return -EMFILE;
		}
		m->fds[m->nfds] = fd;
	}
	append(q, m);
	return 0;
}

void msgq_pop(struct msgq *q)
{
	struct msg *m = q->head;

	if (!m)
		return;
	q->head = m->next;
	q->count--;
	sock_close_fds(m->fds, m->nfds);
	free(m);
}

void msgq_clear(struct msgq *q)
{
	while (q->head)
		msgq_pop(q);
}

void msgq_save(const struct msgq *q, struct blob_out *out)
{
	blob_put_u32(out, q->count);
	for (const struct msg *m = q->head; m; m = m->next) {
		blob_put_u32(out, m->len);
		blob_put_bytes(out, m->data, m->len);
		blob_put_u32(out, m->nfds);
		for (unsigned i = 0; i < m->nfds; i++)
			blob_put_fd(out, m->fds[i]);
	}
}

int msgq_load(struct msgq *q, struct blob_in *in)
{
	uint32_t count = blob_get_u32(in);

	for (uint32_t i = 0; i < count && !in->err; i++) {
		uint32_t len = blob_get_u32(in);
		struct msg *m;

		if (len > SC_MSG_MAX)
			return -EBADMSG;
		m = malloc(sizeof(*m) + len);
		if (!m)
			return -ENOMEM;
		m->len = len;
		blob_get_bytes(in, m->data, len);
		m->nfds = blob_get_u32(in);
		if (m->nfds > TRANSPORT_MAX_FDS) {
			free(m);
			return -EBADMSG;
		}
		for (unsigned f = 0; f < m->nfds; f++)
			m->fds[f] = blob_get_fd(in);
		append(q, m);
	}
	return in->err;
}
