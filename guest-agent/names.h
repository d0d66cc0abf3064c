/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * names.h - changes of names in directories, recorded (retain.h) where changes are. With the caller's rights, which the thread
 * wears. All return 0 or -errno unless they say otherwise; all may block.
 */
#ifndef SC_AGENT_NAMES_H
#define SC_AGENT_NAMES_H

#include <stdint.h>
#include <sys/types.h>
#include <linux/openat2.h>

#include "agent.h"
#include "walk.h"

/* Makes a directory, a node, or a symbolic link (then `text` is what it says), by the type in mode. */
int64_t name_make(struct actor *a, struct call *c, const struct place *at, mode_t mode,
		  unsigned int rdev, const char *text);
/* unlinkat(2). */
int64_t name_remove(struct actor *a, struct call *c, const struct place *at, int flags);
/* renameat2(2). */
int64_t name_move(struct actor *a, struct call *c, const struct place *from, const struct place *to,
		  unsigned int flags);
/* Links the file of `fd`, which make_link() does: 0 or -1 with errno. */
int64_t name_link(struct actor *a, struct call *c, int fd, const struct place *to,
		  int (*make_link)(int fd, const struct place *to, bool base), bool base);

/*
 * Makes and opens a file at the place: openat2(2) with O_CREAT. A descriptor or -errno. *made: it was made, and is `fid`
 * (len 0: not known). -EAGAIN, without O_EXCL: there is something, perhaps a link.
 */
int name_open(struct actor *a, struct call *c, const struct place *at, struct open_how *how,
	      bool *made, struct sc_fid *fid);
/* Opens a new file without a name (O_TMPFILE) in the directory `dir`. A descriptor or -errno. */
int name_anonymous(struct actor *a, struct call *c, int dir, struct open_how *how,
		   struct sc_fid *fid);

#endif
