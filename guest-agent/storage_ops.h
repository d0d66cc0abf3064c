/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * storage_ops.h - what the files of the storage service share with each other, and nobody else uses.
 *
 *   storage.c       the table of operations, handles and positions, sessions' ends
 *   storage_io.c    reading, writing, syncing: through io_uring, or directly where that does not block
 *   storage_open.c  roots, open, close, grant, descriptors' flags
 *   storage_path.c  operations on paths
 *
 * Two kinds of functions execute operations: op_start in the poller, which must not block, and op_work, which may, in a
 * worker or where the poller can be taken over (poller_run_here()). An op_work returns the result (>= 0 or -errno). With
 * `cached` it is called by the poller as it is: it must not block then, and returns -EAGAIN if it would have to.
 */
#ifndef SC_AGENT_STORAGE_OPS_H
#define SC_AGENT_STORAGE_OPS_H

#include "agent.h"
#include "handles.h"
#include "poller.h"
#include "session.h"
#include "walk.h"

#include <sys/types.h>

#define TYPE_DIR  4u /* S_IFDIR >> 12 */
#define TYPE_REG  8u /* S_IFREG >> 12 */
#define TYPE_FIFO 1u

typedef enum step (*op_start)(struct poller *p, struct call *c);
typedef int64_t (*op_work)(struct actor *a, struct call *c, bool cached);

/* storage.c */

/* Sets the result of a call that is done. */
static inline enum step done(struct call *c, int64_t res)
{
	c->res = res;
	return STEP_DONE;
}

/* Wears the caller's credentials. 0 or -errno. */
int act_as_caller(struct actor *a, const struct call *c);

/* What a file is to be created with: takes mode and umask as ops.h packs them, sets the thread's umask or, if it has none
 * of its own, applies it. Returns the mode, type included. */
mode_t mode_to_create(struct actor *a, uint64_t packed);

/* True if a range that is not among buf/buf2 lies in the arena. */
bool in_arena(const struct call *c, uint64_t off, uint64_t len);

/* Copies a path or name of `len` bytes at arena offset `buf` to `to` (SC_PATH_BUF bytes), with a NUL. Returns its length,
 * -ENAMETOOLONG, or -EINVAL if it has a NUL inside. The range was checked before (storage_start). */
int fetch_text(const struct call *c, uint32_t buf, uint32_t len, char *to);

/* Tells the host how a path leaves the export: the first (which = 1) or the second one of the call. Returns -EXDEV. */
int64_t tell_cross(struct call *c, int which, const struct walk_cross *x);

/* Closes a handle: looked up no more, locks gone, ticket free. The descriptor follows with its last user. False: somebody
 * else did so already. The caller holds a user. */
bool close_handle(struct agent *agent, struct handle *h);

/* storage_io.c */
enum step start_read(struct poller *p, struct call *c);
/* True for a read that a mapping serves, and that is not too long for the poller. */
bool is_short_read(struct poller *p, const struct call *c);
enum step start_write(struct poller *p, struct call *c);
/* False for a write that waits for the disk, or keeps a poller busy for long. */
bool is_short_write(const struct call *c);
enum step start_seek(struct poller *p, struct call *c);
enum step start_sync(struct poller *p, struct call *c);
enum step start_fallocate(struct poller *p, struct call *c);
enum step start_fadvise(struct poller *p, struct call *c);
int64_t work_read(struct actor *a, struct call *c, bool cached);
int64_t work_write(struct actor *a, struct call *c, bool cached);
int64_t work_seek(struct actor *a, struct call *c, bool cached);
int64_t work_sync(struct actor *a, struct call *c, bool cached);
int64_t work_fallocate(struct actor *a, struct call *c, bool cached);
int64_t work_fadvise(struct actor *a, struct call *c, bool cached);
int64_t work_readdir(struct actor *a, struct call *c, bool cached);
int64_t work_copy(struct actor *a, struct call *c, bool cached);
int64_t work_ioctl(struct actor *a, struct call *c, bool cached);
int64_t work_syncall(struct actor *a, struct call *c, bool cached);
/* True if the ioctl's arg1 is a handle: FICLONE, FICLONERANGE. */
bool ioctl_takes_source(uint64_t number);

/* storage_open.c */
enum step start_close(struct poller *p, struct call *c);
int64_t work_close(struct actor *a, struct call *c, bool cached);
enum step start_grant(struct poller *p, struct call *c);
enum step start_getfl(struct poller *p, struct call *c);
int64_t work_root(struct actor *a, struct call *c, bool cached);
int64_t work_open(struct actor *a, struct call *c, bool cached);
int64_t work_setfl(struct actor *a, struct call *c, bool cached);
int64_t work_getpath(struct actor *a, struct call *c, bool cached);

/* storage_path.c */

/* Fills *to from a statx of fd and path. 0 or -errno. */
int stat_at(int fd, const char *path, int flags, uint32_t mask, struct sc_stat *to);

/* Takes the link that only the agent knows of from what callers see (orphans.h). */
void hide_orphan(const struct handle *h, struct sc_stat *st);
/* Makes the inode number the one by which callers know the file (numbers.h): last of all, ours are the disk's. */
void show_number(const struct agent *agent, struct sc_stat *st);

int64_t work_stat(struct actor *a, struct call *c, bool cached);
int64_t work_access(struct actor *a, struct call *c, bool cached);
int64_t work_readlink(struct actor *a, struct call *c, bool cached);
int64_t work_mkdir(struct actor *a, struct call *c, bool cached);
int64_t work_mknod(struct actor *a, struct call *c, bool cached);
int64_t work_unlink(struct actor *a, struct call *c, bool cached);
int64_t work_symlink(struct actor *a, struct call *c, bool cached);
int64_t work_rename(struct actor *a, struct call *c, bool cached);
int64_t work_link(struct actor *a, struct call *c, bool cached);
int64_t work_truncate(struct actor *a, struct call *c, bool cached);
int64_t work_chmod(struct actor *a, struct call *c, bool cached);
int64_t work_chown(struct actor *a, struct call *c, bool cached);
int64_t work_utimens(struct actor *a, struct call *c, bool cached);
int64_t work_getxattr(struct actor *a, struct call *c, bool cached);
int64_t work_setxattr(struct actor *a, struct call *c, bool cached);
int64_t work_listxattr(struct actor *a, struct call *c, bool cached);
int64_t work_removexattr(struct actor *a, struct call *c, bool cached);
int64_t work_statfs(struct actor *a, struct call *c, bool cached);

#endif
