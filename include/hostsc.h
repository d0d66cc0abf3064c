/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hostsc.h - asynchronous calls to a service domain, many at a time.
 *
 * For programs that can say ahead of time what they want. The shape is liburing's: get an entry, prepare it, submit,
 * wait for completions, mark each as seen. Data lies in buffers that program and domain share, so that nothing is copied
 * between them.
 *
 *	struct hsc_ring *ring;
 *	hsc_handle h;
 *	int err = hsc_queue_init("storage", 64, 0, &ring);
 *	void *buf = hsc_buf_alloc(ring, 4096);
 *	err = hsc_open(ring, HSC_ROOT, "data/file", O_RDONLY, 0, &h);
 *
 *	struct hsc_sqe *sqe = hsc_get_sqe(ring);
 *	hsc_prep_read(sqe, h, buf, 4096, 0);
 *	hsc_sqe_set_data64(sqe, 42);
 *	hsc_submit(ring);
 *
 *	struct hsc_cqe *cqe;
 *	hsc_wait_cqe(ring, &cqe);      // cqe->res bytes, cqe->user_data == 42
 *	hsc_cqe_seen(ring, cqe);
 *
 * Link with -lhostsc (pkg-config hostsc). Works in any program, with or without scrun. No function sets errno: errors are
 * returned as negative errno numbers.
 *
 * Threads: a ring belongs to one thread at a time, as with liburing; make one per thread. Different rings are independent.
 * Signal handlers must not use a ring. After fork() the child must not touch its parent's rings; it may make its own.
 *
 * Completions may come in any order. A request is started when it is submitted; there is no order between requests that
 * are under way together.
 *
 * When the domain is gone or silent for longer than its deadline (`vhost-scd --deadline-ms`), waiting functions return -EIO
 * and the ring is of no more use: hsc_queue_exit() it and make another.
 */
#ifndef HOSTSC_H
#define HOSTSC_H

#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef HSC_API
#define HSC_API
#endif

/* An open file of the domain. Valid in the process that opened it, for all its rings of that domain. */
typedef uint64_t hsc_handle;

/* Stands for the domain's export root where a base directory is wanted. */
#define HSC_ROOT ((hsc_handle)-1)

/* A ring: up to `entries` requests under way. Opaque. */
struct hsc_ring;

/* A request being prepared: valid from hsc_get_sqe() until hsc_submit(). Its fields are the library's. */
struct hsc_sqe {
	uint64_t user_data; /* comes back in the completion; set it with hsc_sqe_set_data*() */
	struct hsc_ring *ring;
	uint32_t index;
	int32_t
	    /* set by a prep function that found its arguments wrong: the request completes with
	     * it */
	    error;
	uint64_t slot[8];
	void *tmp[2]; /* buffers that go when the request completes */
	void *stat;   /* struct statx to be filled */
};

/* A completion. */
struct hsc_cqe {
	uint64_t user_data;
	int64_t res;	/* >= 0: result; < 0: -errno */
	uint32_t flags; /* for hsc_prep_open: file type, S_IFMT >> 12 */
	uint32_t reserved;
};

/* ---- rings ---- */

/*
 * Makes a ring to `domain` with room for `entries` requests (2..256, rounded up to a power of two). Larger than needed is
 * slower: see docs/benchmarks.md, Method. flags: 0. Returns 0 and
 * sets *ring, or -EINVAL, -ENOMEM, -EACCES (the domain refuses this user), -EAGAIN (no lane left: too many rings and
 * threads), -EIO (the domain cannot be reached; hsc_strerror() says why).
 */
HSC_API int hsc_queue_init(const char *domain, unsigned int entries, unsigned int flags,
			   struct hsc_ring **ring);

/* Waits for what is under way (at most the domain's deadline), and frees ring and buffers. Open handles stay open. */
HSC_API void hsc_queue_exit(struct hsc_ring *ring);

/* One line for people: why the last hsc_queue_init() to this domain failed; "" if it did not. Valid until the next one. */
HSC_API const char *hsc_strerror(const char *domain);

/* ---- submitting ---- */

/* An entry to be prepared, or NULL if `entries` requests are prepared, under way, or completed and not yet seen. */
HSC_API struct hsc_sqe *hsc_get_sqe(struct hsc_ring *ring);

/* Number of entries that hsc_get_sqe() can still give. */
HSC_API unsigned int hsc_sq_space_left(const struct hsc_ring *ring);

/* Hands all prepared requests to the domain. Returns how many, or -EIO. Does not wait. */
HSC_API int hsc_submit(struct hsc_ring *ring);

/* The same, and waits until `wait_nr` completions can be had. Returns the number submitted, or -EIO. */
HSC_API int hsc_submit_and_wait(struct hsc_ring *ring, unsigned int wait_nr);

static inline void hsc_sqe_set_data64(struct hsc_sqe *sqe, uint64_t data)
{
	sqe->user_data = data;
}

static inline void hsc_sqe_set_data(struct hsc_sqe *sqe, void *data)
{
	sqe->user_data = (uint64_t)(uintptr_t)data;
}

static inline void *hsc_cqe_get_data(const struct hsc_cqe *cqe)
{
	return (void *)(uintptr_t)cqe->user_data;
}

/* ---- completions ---- */

/* The oldest completion not yet seen: 0 and *cqe, or -EAGAIN if there is none now. */
HSC_API int hsc_peek_cqe(struct hsc_ring *ring, struct hsc_cqe **cqe);

/* Up to `count` completions at once; returns how many. Mark them with hsc_cq_advance(). */
HSC_API unsigned int hsc_peek_batch_cqe(struct hsc_ring *ring, struct hsc_cqe **cqes,
					unsigned int count);

/* Waits for one. 0, -EIO, or -EINVAL if nothing is under way. */
HSC_API int hsc_wait_cqe(struct hsc_ring *ring, struct hsc_cqe **cqe);

/* The same for at most `timeout_ms` milliseconds; then -ETIME. */
HSC_API int hsc_wait_cqe_timeout(struct hsc_ring *ring, struct hsc_cqe **cqe,
				 unsigned int timeout_ms);

/* The program is done with the oldest completion: its entry can be used again. */
HSC_API void hsc_cqe_seen(struct hsc_ring *ring, struct hsc_cqe *cqe);
HSC_API void hsc_cq_advance(struct hsc_ring *ring, unsigned int count);

/* ---- shared buffers ---- */

/*
 * Memory that the domain can reach: 1 byte to 4 MiB, page-aligned; NULL if the channel has no such room left. Everything
 * that is read or written must lie in such a buffer of the same ring. The domain may change it at any time while a
 * request that names it is under way: copy first, then check.
 */
HSC_API void *hsc_buf_alloc(struct hsc_ring *ring, size_t size);
HSC_API void hsc_buf_free(struct hsc_ring *ring, void *buf);

/* ---- preparing ---- */

/* Nothing; completes with res = value. */
HSC_API void hsc_prep_nop(struct hsc_sqe *sqe, uint32_t value);

/* pread and pwrite of `len` bytes (at most 4 MiB) at `off`; off = -1: at the file's own position. A buffer that is not the
 * ring's completes with -EFAULT. */
HSC_API void hsc_prep_read(struct hsc_sqe *sqe, hsc_handle h, void *buf, unsigned int len,
			   uint64_t off);
HSC_API void hsc_prep_write(struct hsc_sqe *sqe, hsc_handle h, const void *buf, unsigned int len,
			    uint64_t off);

/* fsync, or with HSC_FSYNC_DATASYNC fdatasync. */
#define HSC_FSYNC_DATASYNC 1u
HSC_API void hsc_prep_fsync(struct hsc_sqe *sqe, hsc_handle h, unsigned int flags);
HSC_API void hsc_prep_fallocate(struct hsc_sqe *sqe, hsc_handle h, int mode, uint64_t off,
				uint64_t len);
HSC_API void hsc_prep_ftruncate(struct hsc_sqe *sqe, hsc_handle h, uint64_t len);

/*
 * openat: `base` is an open directory or HSC_ROOT; the path stays below the export root. mode is final: no umask is
 * applied. res: the handle, to be closed with hsc_prep_close() or hsc_close(); open handles go with the process's
 * attachment to the domain.
 */
HSC_API void hsc_prep_open(struct hsc_sqe *sqe, hsc_handle base, const char *path, int flags,
			   mode_t mode);
HSC_API void hsc_prep_close(struct hsc_sqe *sqe, hsc_handle h);

/* statx: fills *stx, which must stay valid until the completion is taken. flags: AT_*. */
struct statx;
HSC_API void hsc_prep_statx(struct hsc_sqe *sqe, hsc_handle base, const char *path, int flags,
			    unsigned int mask, struct statx *stx);
HSC_API void hsc_prep_mkdir(struct hsc_sqe *sqe, hsc_handle base, const char *path, mode_t mode);
HSC_API void hsc_prep_unlink(struct hsc_sqe *sqe, hsc_handle base, const char *path, int flags);
HSC_API void hsc_prep_rename(struct hsc_sqe *sqe, hsc_handle old_base, const char *old_path,
			     hsc_handle new_base, const char *new_path, unsigned int flags);

/* ---- one call at a time ---- */

/* Open and close, waiting. 0 or -errno. Completions of other requests that come meanwhile are kept. */
HSC_API int hsc_open(struct hsc_ring *ring, hsc_handle base, const char *path, int flags,
		     mode_t mode, hsc_handle *h);
HSC_API int hsc_close(struct hsc_ring *ring, hsc_handle h);

#ifdef __cplusplus
}
#endif

#endif
