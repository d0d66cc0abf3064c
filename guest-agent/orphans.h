/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * orphans.h - files that are open and have no name any more, and the agent's own directory, in which they outlive its VM.
 *
 * The kernel frees a file without a name when its last descriptor goes, at the latest when the file system is mounted again. So
 * before the last name of an open file goes, the file gets one more: in SC_OWN_DIR/SC_OWN_ORPHANS, where no caller comes. That
 * name goes with the last handle; what is left after a crash and belongs to no kept handle goes at the start. Callers see one
 * link less than there are.
 *
 * Which files are open is known by the chains of handles here, by identity. Whoever takes a name away says so before he looks
 * at the chain (victim_begin(), victim_end()); whoever opens, adds his handle, waits for those who had begun before, and then
 * looks whether the file still has a name: either the one sees the handle or the other the loss (and opens by the name once more, as
 * if he had come later).
 *
 * Directories and what lies on other file systems have no part in this. Nor has anything if nothing is retained (retain.h).
 */
#ifndef SC_AGENT_ORPHANS_H
#define SC_AGENT_ORPHANS_H

#include <stdbool.h>
#include <stdint.h>

#include "agent.h"
#include "vhost-sc/state.h"

struct orphans;
struct place;

/* What handle.orphan may be. */
enum orphan {
	ORPHAN_NOT = 0,
	ORPHAN_UNLINKED = 1,
	ORPHAN_ANON = 2, /* O_TMPFILE without O_EXCL: may yet get a name */
};

/* Makes the own directory, and agent->orphans. Recovering thread, before handles. Where it cannot be made (a file system
 * that is read-only), which the log says, nothing is kept without a name. */
void orphans_init(struct agent *agent);
/* All handles of before are in the chains: marks those whose files are orphans, removes the others' orphans. */
void orphans_sweep(struct agent *agent);

/*
 * A handle with an identity, of a regular file, is about to be published. False: somebody is taking a name away that may be this
 * file's, and with `wait` false the caller must not wait. Ends with orphan_closed() in any case of true.
 */
bool orphan_opened(struct agent *agent, struct handle *h, bool wait);
/* True if the file lost its last name before it was known to be open: to be opened by name once more. */
bool orphan_is_too_late(const struct handle *h);
/* Nobody uses h any more. Does not block. */
void orphan_closed(struct agent *agent, struct handle *h);
/* A new file without a name (O_TMPFILE), before anything else: names it here. With the agent's own rights. 0 or -errno. */
int orphan_adopt(struct agent *agent, int fd, const struct sc_fid *fid);
/* An ORPHAN_ANON file got a name. With the agent's own rights. */
void orphan_named(struct agent *agent, const struct sc_fid *fid);
/* What an open file with this identity is: enum orphan. */
enum orphan orphan_state(struct agent *agent, const struct sc_fid *fid);

/* A file that is about to lose a name. */
struct victim {
	struct sc_fid fid;
	struct orphans *t; /* NULL: none */
	bool kept;	   /* it is open, and this is its last name: it is among the orphans now */
};
/* The name in the directory, which is fid's. The thread comes back wearing what it wore. May block. */
void victim_begin(struct actor *a, struct victim *v, const struct sc_fid *fid, int dir,
		  const char *name);
/* It has lost it, or not. */
void victim_end(struct actor *a, struct victim *v, bool gone);

/* True if a path has a component that is the own directory's name: callers may not use it. */
bool names_own_dir(const char *path);

#endif
