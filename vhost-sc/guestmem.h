/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * guestmem.h - the guest's memory as the front end describes it.
 *
 * Regions come with a descriptor and two addresses each: the guest's (buffers) and the front end's
 * (rings). A region is mapped when something in it is first used; that is the region with the rings
 * and hardly another. What a guest names is an address and a length of its choice: both are checked
 * here, and everything that crosses into the broker is copied.
 */
#ifndef VHOST_SC_GUESTMEM_H
#define VHOST_SC_GUESTMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blob_out;
struct blob_in;

#define GUESTMEM_MAX 64 /* regions */

struct guest_region {
	uint64_t gpa;	    /* guest physical address */
	uint64_t size;	    /* bytes */
	uint64_t uva;	    /* front end's address */
	uint64_t offset;    /* in the file */
	int fd;		    /* owned */
	unsigned char *map; /* of the file from its start; NULL: not yet */
};

struct guestmem {
	struct guest_region r[GUESTMEM_MAX];
	unsigned n;
};

/* Adds a region and takes over fd (also on failure). Returns 0, -EINVAL (wraps around, overlaps, or
 * no size), or -ENOSPC. */
int guestmem_add(struct guestmem *m, uint64_t gpa, uint64_t size, uint64_t uva, uint64_t offset,
		 int fd);

/* Removes the region with these values. Returns 0 or -ENOENT. */
int guestmem_remove(struct guestmem *m, uint64_t gpa, uint64_t size, uint64_t uva);

/* Removes all. */
void guestmem_clear(struct guestmem *m);

/* Where [uva, uva + len) of the front end is in our memory, or NULL if it is not all inside one
 * region or cannot be mapped. Valid until the regions change. */
void *guestmem_front_end(struct guestmem *m, uint64_t uva, uint64_t len);

/* Copies from, to the guest's memory at gpa. Returns false, having copied any part, if the range is
 * not all memory. */
bool guestmem_read(struct guestmem *m, uint64_t gpa, void *to, size_t len);
bool guestmem_write(struct guestmem *m, uint64_t gpa, const void *from, size_t len);

void guestmem_save(const struct guestmem *m, struct blob_out *out);
int guestmem_load(struct guestmem *m, struct blob_in *in);

#endif
