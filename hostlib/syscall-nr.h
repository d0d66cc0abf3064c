/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * syscall-nr.h - numbers of system calls, those too that are younger than the kernel headers we
 * compile with. A kernel that lacks one answers ENOSYS before or after us, all the same.
 */
#ifndef HOSTLIB_SYSCALL_NR_H
#define HOSTLIB_SYSCALL_NR_H

#include <asm/unistd_64.h>

#ifndef __NR_cachestat
#define __NR_cachestat 451
#endif
#ifndef __NR_fchmodat2
#define __NR_fchmodat2 452
#endif
#ifndef __NR_setxattrat
#define __NR_setxattrat	   463
#define __NR_getxattrat	   464
#define __NR_listxattrat   465
#define __NR_removexattrat 466
#endif
#ifndef __NR_open_tree_attr
#define __NR_open_tree_attr 467
#endif
#ifndef __NR_file_getattr
#define __NR_file_getattr 468
#define __NR_file_setattr 469
#endif

#endif
