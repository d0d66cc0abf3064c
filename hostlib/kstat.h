/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kstat.h - the kernel's struct stat on x86-64, under our own name: the kernel's header and libc's cannot both be included.
 */
#ifndef HOSTLIB_KSTAT_H
#define HOSTLIB_KSTAT_H

#include <assert.h>
#include <stdint.h>

struct sc_kstat {
	uint64_t dev;
	uint64_t ino;
	uint64_t nlink;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint32_t pad0;
	uint64_t rdev;
	int64_t size;
	int64_t blksize;
	int64_t blocks;
	uint64_t atime;
	uint64_t atime_nsec;
	uint64_t mtime;
	uint64_t mtime_nsec;
	uint64_t ctime;
	uint64_t ctime_nsec;
	int64_t unused[3];
};
static_assert(sizeof(struct sc_kstat) == 144, "the kernel's");

/* A device number as struct stat has it. */
static inline uint64_t sc_makedev(uint32_t major, uint32_t minor)
{
	return (uint64_t)(minor & 0xff) | (uint64_t)(major & 0xfff) << 8 |
	       (uint64_t)(minor & ~0xffu) << 12 | (uint64_t)(major & ~0xfffu) << 32;
}

#endif
