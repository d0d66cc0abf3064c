/* SPDX-License-Identifier: BSD-3-Clause */
/* blob.c - the form of the state at a restart; see blob.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "sock.h"

static void *reserve(struct blob_out *o, size_t len)
{
	unsigned char *at;

	if (o->err)
		return NULL;
	if (o->cap - o->len < len) {
		size_t cap = o->cap ? o->cap : 4096;
		unsigned char *bigger;

		while (cap - o->len < len)
			cap *= 2;
		bigger = realloc(o->data, cap);
		if (!bigger) {
			o->err = -ENOMEM;
			return NULL;
		}
		o->data = bigger;
		o->cap = cap;
	}
	at = o->data + o->len;
	o->len += len;
	return at;
}

static void put(struct blob_out *o, const void *p, size_t len)
{
	void *at = reserve(o, len);

	if (at && len)
		memcpy(at, p, len);
}

void blob_put_u32(struct blob_out *o, uint32_t v)
{
	put(o, &v, sizeof(v));
}

void blob_put_u64(struct blob_out *o, uint64_t v)
{
	put(o, &v, sizeof(v));
}

void blob_put_bytes(struct blob_out *o, const void *p, size_t len)
{
	put(o, p, len);
}

void blob_put_string(struct blob_out *o, const char *s)
{
	size_t len = strlen(s);

	blob_put_u32(o, (uint32_t)len);
	put(o, s, len);
}

void blob_put_fd(struct blob_out *o, int fd)
{
	blob_put_u32(o, (uint32_t)fd);
	if (fd < 0 || o->err)
		return;
	if (o->nfds == o->fdcap) {
		size_t cap = o->fdcap ? o->fdcap * 2 : 64;
		int *bigger = realloc(o->fds, cap * sizeof(int));

		if (!bigger) {
			o->err = -ENOMEM;
			return;
		}
		o->fds = bigger;
		o->fdcap = cap;
	}
	o->fds[o->nfds++] = fd;
}

int blob_inherit_fds(const struct blob_out *o, int inherit)
{
	for (size_t i = 0; i < o->nfds; i++) {
		int err = sock_set_cloexec(o->fds[i], !inherit);

		if (err)
			return err;
	}
	return 0;
}

void blob_out_free(struct blob_out *o)
{
	free(o->data);
	free(o->fds);
	*o = (struct blob_out){0};
}

void blob_get_bytes(struct blob_in *in, void *p, size_t len)
{
	if (in->err || in->len - in->pos < len) {
		in->err = -EBADMSG;
		memset(p, 0, len);
		return;
	}
	memcpy(p, in->data + in->pos, len);
	in->pos += len;
}

uint32_t blob_get_u32(struct blob_in *in)
{
	uint32_t v;

	blob_get_bytes(in, &v, sizeof(v));
	return v;
}

uint64_t blob_get_u64(struct blob_in *in)
{
	uint64_t v;

	blob_get_bytes(in, &v, sizeof(v));
	return v;
}

void blob_get_string(struct blob_in *in, char *buf, size_t cap)
{
	uint32_t len = blob_get_u32(in);

	buf[0] = '\0';
	if (len >= cap || in->len - in->pos < len) {
		in->err = -EBADMSG;
		return;
	}
	blob_get_bytes(in, buf, len);
	buf[len] = '\0';
}

int blob_get_fd(struct blob_in *in)
{
	uint32_t v = blob_get_u32(in);

	if (in->err)
		return -1;
	if (v == (uint32_t)-1)
		return -1;
	/* A descriptor that is not open means that the blob is not ours. */
	if (sock_set_cloexec((int)v, true)) {
		in->err = -EBADMSG;
		return -1;
	}
	return (int)v;
}
