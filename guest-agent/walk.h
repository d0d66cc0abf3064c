/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * walk.h - paths, confined to an export.
 *
 * All path resolution goes through here. Two ways:
 *
 *   fast  the kernel resolves the path below the base in one openat2() with RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS and
 *         RESOLVE_NO_XDEV. Almost every path takes it.
 *   slow  when the kernel says EXDEV (the path goes above the base by "..", or has an absolute symbolic link, or enters
 *         another file system), the path is walked component by component: each step is one openat() of a single name
 *         with O_PATH and O_NOFOLLOW, links are read and followed by the walker, ".." is refused at the export's root
 *         (and at the domain's), and what leaves the export is told to the host (struct sc_cross), which knows what lies
 *         there. Steps are taken with the caller's credentials, so errors are those of a native walk.
 *
 * Operations then act on one name in one directory, which the kernel never resolves further (struct place), or on an
 * O_PATH descriptor.
 */
#ifndef SC_AGENT_WALK_H
#define SC_AGENT_WALK_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/openat2.h>

#include "agent.h"

struct root;

#define WALK_MAX_LINKS 40    /* as the kernel's MAXSYMLINKS */
#define WALK_TEXT      16384 /* bytes that a path may grow to by links that are followed */

/* From where and what. */
struct walk_from {
	const struct agent *agent;
	const struct root *root; /* the export */
	int base;		 /* O_PATH or better */
	const char *path;	 /* NUL-terminated, not empty */
	/* do not block: -EAGAIN if it is not all in memory. The fast way only */
	bool cached;
};

/* How a path leaves the export; filled when a function returns -EXDEV. kind 0: it does not, the error is the file
 * system's own. */
struct walk_cross {
	uint32_t kind; /* SC_CROSS_* */
	uint32_t len;
	char rest[SC_PATH_BUF];
};

/* One name in a directory. */
struct place {
	int dir;  /* the directory */
	bool own; /* dir is to be closed by place_close() */
	const char *
	    name; /* one component, perhaps with slashes behind it. It may be "." or "..": calls that create,
			      remove or rename refuse these, but a look-up would follow them */
	char text[SC_PATH_BUF]; /* room for name */
};

/* Opens a path as openat2() would with `how` (whose resolve is set here). A descriptor or -errno. */
int walk_open(const struct walk_from *from, struct open_how *how, struct walk_cross *cross);

/*
 * Finds the directory in which the path's last component is to be created, removed or looked at. The last component is
 * not followed and need not exist. 0 or -errno.
 */
int walk_place(const struct walk_from *from, struct place *place, struct walk_cross *cross);
/* The same, but a link at the end is followed, to a place where there is none. */
int walk_place_followed(const struct walk_from *from, struct place *place,
			struct walk_cross *cross);
void place_close(struct place *place);

/* Opens once more what `fd` names, with the caller's rights (a thread may look into its own /proc/self/fd). A descriptor or
 * -errno. */
int walk_reopen(int fd, const struct open_how *how);

/* Opens a path with the directory `top` as its "/": for export roots, which the operator names. A descriptor or -errno. */
int walk_in_root(int top, const char *path, struct open_how *how);

/*
 * Where the file of a descriptor is below the export's root: begins with "/", not NUL-terminated; " (deleted)" behind it
 * as the kernel says it. Returns its length, -ENOENT if it is not below the root any more, -ERANGE if `size` is too small.
 */
int walk_getpath(const struct root *root, int fd, char *to, size_t size);

#endif
