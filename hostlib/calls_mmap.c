// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_mmap.c - mmap of remote files.
 *
 * A mapping is anonymous memory that is filled with the file's content when it is made. So it shows
 * the file as it was then, which is all that MAP_PRIVATE promises, and the address space is the
 * kernel's own affair from there on: munmap, mremap, mprotect, msync, madvise and fork do what they
 * always do. It costs the time and memory of the whole mapping at once.
 *
 *   MAP_PRIVATE              any protection; with PROT_EXEC too, so that libraries load from remote
 * paths MAP_SHARED for reading   if the file was opened for reading only: later changes of the file
 * are not seen MAP_SHARED otherwise     ENODEV: what is written here, or by write(2) on the same
 * file, would have to be seen there pages beyond the file's end read as zero rather than raise
 * SIGBUS
 *
 * MAP_FIXED replaces what was there in one step (mremap of the filled memory), so a failure leaves
 * the old mapping alone.
 */
#include <sys/mman.h>

#include "calls.h"

#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* Flags that mean something for anonymous memory, too. */
#define FLAGS_KEPT (MAP_FIXED_NOREPLACE | MAP_32BIT | MAP_NORESERVE | MAP_LOCKED | MAP_STACK)

/* The checks that the kernel makes before it looks at the kind of file. */
static long argument_error(const struct sc_file *f, uint64_t len, long flags, uint64_t off)
{
	if (off % SC_PAGE)
		return -EINVAL;
	if (sc_is_path(f))
		return -EBADF;
	if (flags & MAP_HUGETLB || len == 0)
		return -EINVAL;
	if (len > UINT64_MAX - SC_PAGE)
		return -ENOMEM;
	if (off + len < off)
		return -EOVERFLOW;
	return 0;
}

static long kind_error(const struct sc_file *f, long prot, long flags)
{
	long type = flags & MAP_TYPE;

	if (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE)
		return -EINVAL;
	if (type == MAP_SHARED_VALIDATE && flags & MAP_SYNC)
		return -EOPNOTSUPP;
	if (type != MAP_PRIVATE && prot & PROT_WRITE && !sc_may_write(f))
		return -EACCES;
	if (!sc_may_read(f))
		return -EACCES;
	if (f->type != S_IFREG)
		return -ENODEV;
	if (flags & MAP_GROWSDOWN)
		return -EINVAL;
	if (type != MAP_PRIVATE && sc_may_write(f))
		return -ENODEV;
	return 0;
}

/* Fills memory with the file's bytes from off on; what lies beyond its end stays zero. 0 or -errno.
 */
static long fill(struct sc_thread *t, struct sc_file *f, uint8_t *to, uint64_t len, uint64_t off)
{
	uint64_t done = 0;

	while (done < len) {
		uint32_t want = len - done < SC_POOL_BLOCK ? (uint32_t)(len - done) : SC_POOL_BLOCK;
		struct sc_opx x = {
		    .op = SC_OP_READ,
		    .off = off + done,
		    .d1 = {.p = to + done, .len = want, .out = 1, .user = 1, .by_res = 1}};
		long res = sc_file_call(t, f, &x);

		if (res < 0)
			return res;
		if (res == 0)
			return 0;
		done += (uint64_t)res;
		if ((uint64_t)res % SC_PAGE)
			return 0; /* the file's end; a file with O_DIRECT could not be asked again
				   */
	}
	return 0;
}

long call_mmap(struct sc_thread *t, const struct sc_call *c)
{
	uint64_t len = (uint64_t)c->a[1];
	long prot = c->a[2];
	long flags = c->a[3];
	struct sc_file *f;
	bool fixed;
	long at;
	long err;

	if (flags & MAP_ANONYMOUS)
		return SC_NATIVE;
	f = sc_fd_file(t, sc_int(c->a[4]));
	if (!f)
		return SC_NATIVE;
	err = argument_error(f, len, flags, (uint64_t)c->a[5]);
	if (!err)
		err = kind_error(f, prot, flags);
	if (err)
		return err;
	len = (len + SC_PAGE - 1) & ~(uint64_t)(SC_PAGE - 1);
	fixed = (flags & MAP_FIXED) && !(flags & MAP_FIXED_NOREPLACE);
	if (fixed && c->a[0] % SC_PAGE)
		return -EINVAL;
	at = sc_sys6(__NR_mmap, fixed ? 0 : c->a[0], len, PROT_READ | PROT_WRITE,
		     (flags & FLAGS_KEPT) | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at < 0 && at > -(long)SC_PAGE)
		return at;
	err = fill(t, f, (uint8_t *)at, len, (uint64_t)c->a[5]);
	if (!err)
		err = sc_sys3(__NR_mprotect, at, len, prot);
	if (!err && fixed) {
		err = sc_raw_syscall(__NR_mremap, at, (long)len, (long)len,
				     MREMAP_MAYMOVE | MREMAP_FIXED, c->a[0], 0);
		if (err == c->a[0])
			return err;
	}
	if (!err)
		return at;
	sc_sys2(__NR_munmap, at, len);
	return err;
}
