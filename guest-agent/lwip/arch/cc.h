/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cc.h - what lwIP asks of its platform: gcc and libc. A broken invariant ends the agent (its domain is restarted) rather than letting it
 * go on with spoiled tables.
 */
#ifndef SC_LWIP_CC_H
#define SC_LWIP_CC_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>
#include <errno.h>

#define LWIP_ERRNO_INCLUDE   <errno.h>
#define LWIP_TIMEVAL_PRIVATE 0
#define LWIP_NO_UNISTD_H     0
#define BYTE_ORDER	     LITTLE_ENDIAN

_Noreturn void net_stack_broken(const char *what, const char *file, int line);
uint32_t net_stack_random(void);

#define LWIP_PLATFORM_DIAG(x)
#define LWIP_PLATFORM_ASSERT(x) net_stack_broken(x, __FILE__, __LINE__)
#define LWIP_RAND()		net_stack_random()

#endif
