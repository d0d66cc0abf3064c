/* SPDX-License-Identifier: BSD-3-Clause */
/* guestmem.c - the guest's memory; see guestmem.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blob.h"
#include "guestmem.h"

/* True if [a, a + alen) and [b, b + blen) have a byte in common; neither wraps. */
static bool overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a < b + blen && b < a + alen;
}

static bool sound(uint64_t start, uint64_t size)
{
	return size && start + size > start;
}

int guestmem_add(struct guestmem *m, uint64_t gpa, uint64_t size, uint64_t uva, uint64_t offset,
		 int fd)
{
	int err = 0;

	if (!sound(gpa, size) || !sound(uva, size) || !sound(offset, size) || fd < 0)
		err = -EINVAL;
	for (unsigned i = 0; i < m->n && !err; i++) {
		if (overlap(gpa, size, m->r[i].gpa, m->r[i].size) ||
		    overlap(uva, size, m->r[i].uva, m->r[i].size))
			err = -EINVAL;
	}
	if (!err && m->n == GUESTMEM_MAX)
		err = -ENOSPC;
	if (err) {
		if (fd >= 0)
			close(fd);
		return err;
	}
	m->r[m->n++] =
	    (struct guest_region){.gpa = gpa, .size = size, .uva = uva, .offset = offset, .fd = fd};
	return 0;
}

static void release(struct guest_region *r)
{
	if (r->map)
		munmap(r->map, r->offset + r->size);
	close(r->fd);
}

int guestmem_remove(struct guestmem *m, uint64_t gpa, uint64_t size, uint64_t uva)
{
	for (unsigned i = 0; i < m->n; i++) {
		struct guest_region *r = &m->r[i];

		if (r->gpa != gpa || r->size != size || r->uva != uva)
			continue;
		release(r);
		*r = m->r[--m->n];
		return 0;
	}
	return -ENOENT;
}

void guestmem_clear(struct guestmem *m)
{
	while (m->n)
		release(&m->r[--m->n]);
}

/* The region's first byte in our memory, or NULL. */
static unsigned char *base(struct guest_region *r)
{
	void *map;

	if (!r->map) {
		/* From the file's start: an offset need not be aligned to the file's (huge) pages.
		 */
		map = mmap(NULL, r->offset + r->size, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_NORESERVE, r->fd, 0);
		if (map == MAP_FAILED)
			return NULL;
		r->map = map;
	}
	return r->map + r->offset;
}

void *guestmem_front_end(struct guestmem *m, uint64_t uva, uint64_t len)
{
	for (unsigned i = 0; i < m->n; i++) {
		struct guest_region *r = &m->r[i];
		unsigned char *at;

		if (uva < r->uva || uva - r->uva >= r->size || len > r->size - (uva - r->uva))
			continue;
		at = base(r);
		return at ? at + (uva - r->uva) : NULL;
	}
	return NULL;
}

/* Copies piece by piece: a range may go over from one region into the next. */
static bool copy(struct guestmem *m, uint64_t gpa, unsigned char *ours, size_t len, bool to_guest)
{
	while (len) {
		struct guest_region *r = NULL;
		unsigned char *at;
		uint64_t n;

		for (unsigned i = 0; i < m->n && !r; i++) {
			if (gpa >= m->r[i].gpa && gpa - m->r[i].gpa < m->r[i].size)
				r = &m->r[i];
		}
		at = r ? base(r) : NULL;
		if (!at)
			return false;
		at += gpa - r->gpa;
		n = r->size - (gpa - r->gpa);
		if (n > len)
			n = len;
		if (to_guest)
			memcpy(at, ours, n);
		else
			memcpy(ours, at, n);
		ours += n;
		gpa += n;
		len -= n;
	}
	return true;
}

bool guestmem_read(struct guestmem *m, uint64_t gpa, void *to, size_t len)
{
	return copy(m, gpa, to, len, false);
}

bool guestmem_write(struct guestmem *m, uint64_t gpa, const void *from, size_t len)
{
	return copy(m, gpa, (unsigned char *)(uintptr_t)from, len, true);
}

void guestmem_save(const struct guestmem *m, struct blob_out *out)
{
	blob_put_u32(out, m->n);
	for (unsigned i = 0; i < m->n; i++) {
		blob_put_u64(out, m->r[i].gpa);
		blob_put_u64(out, m->r[i].size);
		blob_put_u64(out, m->r[i].uva);
		blob_put_u64(out, m->r[i].offset);
		blob_put_fd(out, m->r[i].fd);
	}
}

int guestmem_load(struct guestmem *m, struct blob_in *in)
{
	uint32_t n = blob_get_u32(in);

	for (uint32_t i = 0; i < n && !in->err; i++) {
		uint64_t gpa = blob_get_u64(in);
		uint64_t size = blob_get_u64(in);
		uint64_t uva = blob_get_u64(in);
		uint64_t offset = blob_get_u64(in);
		int err = guestmem_add(m, gpa, size, uva, offset, blob_get_fd(in));

		if (err)
			return err;
	}
	return in->err;
}
