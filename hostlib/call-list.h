/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * call-list.h - which system calls are looked at, and who serves them; included with SC_CALL(number, kind, handler)
 * defined (dispatch.h, dispatch.c). Kinds: see enum sc_kind. A handler may serve several numbers (it looks at c->nr).
 */
/* calls_rw.c */
SC_CALL(__NR_read, SC_K_FD, call_read)
SC_CALL(__NR_write, SC_K_FD, call_write)
SC_CALL(__NR_pread64, SC_K_FD, call_pread64)
SC_CALL(__NR_pwrite64, SC_K_FD, call_pwrite64)
SC_CALL(__NR_readv, SC_K_FD, call_readv)
SC_CALL(__NR_writev, SC_K_FD, call_writev)
SC_CALL(__NR_preadv, SC_K_FD, call_preadv)
SC_CALL(__NR_pwritev, SC_K_FD, call_pwritev)
SC_CALL(__NR_preadv2, SC_K_FD, call_preadv2)
SC_CALL(__NR_pwritev2, SC_K_FD, call_pwritev2)
SC_CALL(__NR_lseek, SC_K_FD, call_lseek)

/* calls_open.c */
SC_CALL(__NR_open, SC_K_ANY, call_open)
SC_CALL(__NR_creat, SC_K_ANY, call_creat)
SC_CALL(__NR_openat, SC_K_ANY, call_openat)
SC_CALL(__NR_openat2, SC_K_ANY, call_openat2)
SC_CALL(__NR_close, SC_K_ANY, call_close)
SC_CALL(__NR_close_range, SC_K_ANY, call_close_range)
SC_CALL(__NR_dup, SC_K_FD, call_dup)
SC_CALL(__NR_dup2, SC_K_ANY, call_dup2)
SC_CALL(__NR_dup3, SC_K_ANY, call_dup3)

/* calls_stat.c */
SC_CALL(__NR_stat, SC_K_ANY, call_stat)
SC_CALL(__NR_lstat, SC_K_ANY, call_lstat)
SC_CALL(__NR_fstat, SC_K_FD, call_fstat)
SC_CALL(__NR_newfstatat, SC_K_ANY, call_newfstatat)
SC_CALL(__NR_statx, SC_K_ANY, call_statx)
SC_CALL(__NR_access, SC_K_ANY, call_access)
SC_CALL(__NR_faccessat, SC_K_ANY, call_faccessat)
SC_CALL(__NR_faccessat2, SC_K_ANY, call_faccessat2)
SC_CALL(__NR_readlink, SC_K_ANY, call_readlink)
SC_CALL(__NR_readlinkat, SC_K_ANY, call_readlinkat)

/* calls_proc.c */
SC_CALL(__NR_chdir, SC_K_ANY, call_chdir)
SC_CALL(__NR_fchdir, SC_K_ANY, call_fchdir)
SC_CALL(__NR_getcwd, SC_K_ANY, call_getcwd)
SC_CALL(__NR_umask, SC_K_ANY, call_umask)
SC_CALL(__NR_setuid, SC_K_ANY, call_setids)
SC_CALL(__NR_setgid, SC_K_ANY, call_setids)
SC_CALL(__NR_setreuid, SC_K_ANY, call_setids)
SC_CALL(__NR_setregid, SC_K_ANY, call_setids)
SC_CALL(__NR_setresuid, SC_K_ANY, call_setids)
SC_CALL(__NR_setresgid, SC_K_ANY, call_setids)
SC_CALL(__NR_setfsuid, SC_K_ANY, call_setids)
SC_CALL(__NR_setfsgid, SC_K_ANY, call_setids)
SC_CALL(__NR_setgroups, SC_K_ANY, call_setids)
SC_CALL(__NR_chroot, SC_K_ANY, call_chroot)
