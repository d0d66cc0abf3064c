/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blob.h - the form in which a broker hands its state to the next one (reexec.h).
 *
 * A sequence of numbers, byte strings and descriptors, each in the order in which it is read.
 * Writing cannot fail before the end: errors stick and are asked for once. The same holds for
 * reading: past the end all numbers are 0 and all descriptors -1.
 */
#ifndef VHOST_SC_BLOB_H
#define VHOST_SC_BLOB_H

#include <stddef.h>
#include <stdint.h>

struct blob_out {
	unsigned char *data; /* owned */
	size_t len;
	size_t cap;
	int err;  /* 0 or -errno, the first */
	int *fds; /* descriptors written, so that their close-on-exec flag can be cleared; owned */
	size_t nfds;
	size_t fdcap;
};

void blob_put_u32(struct blob_out *o, uint32_t v);
void blob_put_u64(struct blob_out *o, uint64_t v);
void blob_put_bytes(struct blob_out *o, const void *p, size_t len);
void blob_put_string(struct blob_out *o, const char *s);

/* fd = -1 is written as such. The descriptor stays open and will be inherited. */
void blob_put_fd(struct blob_out *o, int fd);

/* Clears (or sets again) close-on-exec on all descriptors written. Returns 0 or -errno. */
int blob_inherit_fds(const struct blob_out *o, int inherit);

void blob_out_free(struct blob_out *o);

struct blob_in {
	const unsigned char *data; /* the caller's */
	size_t len;
	size_t pos;
	int err; /* 0, or -EBADMSG */
};

uint32_t blob_get_u32(struct blob_in *in);
uint64_t blob_get_u64(struct blob_in *in);

/* Fills exactly len bytes. */
void blob_get_bytes(struct blob_in *in, void *p, size_t len);

/* A string into buf (cap > 0 bytes, always NUL-terminated). */
void blob_get_string(struct blob_in *in, char *buf, size_t cap);

/* A descriptor, close-on-exec again; the caller's from now on. -1 if there is none. */
int blob_get_fd(struct blob_in *in);

#endif
