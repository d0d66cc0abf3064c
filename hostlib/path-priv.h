/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * path-priv.h - what path.c and path2.c share.
 */
#ifndef HOSTLIB_PATH_PRIV_H
#define HOSTLIB_PATH_PRIV_H

#include "path.h"

/*
 * Who serves the absolute path in at->path? 0: remote, *at says where. SC_NATIVE: local (at->path
 * is as it was). SC_NATIVE_CHANGED: local as far as the text tells, the call is set up to be looked
 * at again (not with sc_serve_thread.force_walk). -errno.
 */
long sc_look_absolute(struct sc_thread *t, const struct sc_call *c, uint32_t flags,
		      struct sc_at *at);

/* After SC_CQE_F_CROSS: copies where path `which` goes on to at->path, as an absolute path of the
 * host. 0 or -errno. */
long sc_read_cross(struct sc_hlane *l, int which, uint32_t at_flags, struct sc_at *at);

/* Operations that want AT_EMPTY_PATH in arg0 for an empty path. */
bool sc_wants_empty_flag(uint32_t op);

#endif
