/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libfd.h - moving the library's descriptors where the program does not meet them; the rest of the interface stands in
 * chan.h (sc_libfd_*).
 */
#ifndef HOSTLIB_LIBFD_H
#define HOSTLIB_LIBFD_H

#include <stdbool.h>
#include <stdint.h>

/* A raised RLIMIT_NOFILE, to be restored. */
struct sc_limit {
	bool raised;
	uint64_t soft;
	uint64_t hard;
};

/* Raises the soft limit as far as needed and returns the lowest number for our descriptors. */
uint32_t sc_libfd_limit_raise(struct sc_limit *l);
void sc_libfd_limit_restore(const struct sc_limit *l);

/* sc_libfd_move() for callers that have raised the limit themselves. */
int sc_libfd_move_raised(int fd, uint32_t base);

/* Registers a descriptor that already is where it shall be. */
void sc_libfd_adopt(int fd);

/* Unregisters without closing (its descriptor is gone, or was another process's). */
void sc_libfd_forget(int fd);

/* The first of our descriptors at or above `from`, or -1. */
int sc_libfd_next(int from);

/* Closes and unregisters all of ours but the n that are in `keep` (-1: none); in a forked child. */
void sc_libfd_close_all(const int *keep, uint32_t n);

#endif
