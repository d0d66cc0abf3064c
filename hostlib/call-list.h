/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * call-list.h - which system calls are looked at, and who serves them; included with SC_CALL(number, kind, handler) and
 * SC_CALL_NET (the same, for calls that are looked at only if there are network routes) defined (dispatch.h, dispatch.c). Kinds: see enum sc_kind. A handler may serve several numbers (it looks at c->nr).
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

/* calls_dir.c */
SC_CALL(__NR_getdents64, SC_K_FD, call_getdents64)
SC_CALL(__NR_getdents, SC_K_FD, call_getdents)

/* calls_name.c */
SC_CALL(__NR_mkdir, SC_K_ANY, call_mkdir)
SC_CALL(__NR_mkdirat, SC_K_ANY, call_mkdirat)
SC_CALL(__NR_rmdir, SC_K_ANY, call_rmdir)
SC_CALL(__NR_unlink, SC_K_ANY, call_unlink)
SC_CALL(__NR_unlinkat, SC_K_ANY, call_unlinkat)
SC_CALL(__NR_rename, SC_K_ANY, call_rename)
SC_CALL(__NR_renameat, SC_K_ANY, call_renameat)
SC_CALL(__NR_renameat2, SC_K_ANY, call_renameat)
SC_CALL(__NR_link, SC_K_ANY, call_link)
SC_CALL(__NR_linkat, SC_K_ANY, call_linkat)
SC_CALL(__NR_symlink, SC_K_ANY, call_symlink)
SC_CALL(__NR_symlinkat, SC_K_ANY, call_symlinkat)
SC_CALL(__NR_mknod, SC_K_ANY, call_mknod)
SC_CALL(__NR_mknodat, SC_K_ANY, call_mknodat)

/* calls_attr.c */
SC_CALL(__NR_truncate, SC_K_ANY, call_truncate)
SC_CALL(__NR_ftruncate, SC_K_FD, call_ftruncate)
SC_CALL(__NR_chmod, SC_K_ANY, call_chmod)
SC_CALL(__NR_fchmod, SC_K_FD, call_fchmod)
SC_CALL(__NR_fchmodat, SC_K_ANY, call_fchmodat)
SC_CALL(__NR_fchmodat2, SC_K_ANY, call_fchmodat)
SC_CALL(__NR_chown, SC_K_ANY, call_chown)
SC_CALL(__NR_lchown, SC_K_ANY, call_chown)
SC_CALL(__NR_fchown, SC_K_FD, call_fchown)
SC_CALL(__NR_fchownat, SC_K_ANY, call_fchownat)
SC_CALL(__NR_utime, SC_K_ANY, call_utime)
SC_CALL(__NR_utimes, SC_K_ANY, call_utimes)
SC_CALL(__NR_futimesat, SC_K_ANY, call_futimesat)
SC_CALL(__NR_utimensat, SC_K_ANY, call_utimensat)
SC_CALL(__NR_statfs, SC_K_ANY, call_statfs)
SC_CALL(__NR_fstatfs, SC_K_FD, call_fstatfs)

/* calls_xattr.c */
SC_CALL(__NR_getxattr, SC_K_ANY, call_getxattr)
SC_CALL(__NR_lgetxattr, SC_K_ANY, call_getxattr)
SC_CALL(__NR_fgetxattr, SC_K_FD, call_getxattr)
SC_CALL(__NR_setxattr, SC_K_ANY, call_setxattr)
SC_CALL(__NR_lsetxattr, SC_K_ANY, call_setxattr)
SC_CALL(__NR_fsetxattr, SC_K_FD, call_setxattr)
SC_CALL(__NR_listxattr, SC_K_ANY, call_listxattr)
SC_CALL(__NR_llistxattr, SC_K_ANY, call_listxattr)
SC_CALL(__NR_flistxattr, SC_K_FD, call_listxattr)
SC_CALL(__NR_removexattr, SC_K_ANY, call_removexattr)
SC_CALL(__NR_lremovexattr, SC_K_ANY, call_removexattr)
SC_CALL(__NR_fremovexattr, SC_K_FD, call_removexattr)
SC_CALL(__NR_getxattrat, SC_K_ANY, call_getxattrat)
SC_CALL(__NR_setxattrat, SC_K_ANY, call_setxattrat)
SC_CALL(__NR_listxattrat, SC_K_ANY, call_listxattrat)
SC_CALL(__NR_removexattrat, SC_K_ANY, call_removexattrat)

/* calls_sync.c */
SC_CALL(__NR_fallocate, SC_K_FD, call_fallocate)
SC_CALL(__NR_fadvise64, SC_K_FD, call_fadvise64)
SC_CALL(__NR_readahead, SC_K_FD, call_readahead)
SC_CALL(__NR_fsync, SC_K_FD, call_fsync)
SC_CALL(__NR_fdatasync, SC_K_FD, call_fsync)
SC_CALL(__NR_syncfs, SC_K_FD, call_fsync)
SC_CALL(__NR_sync_file_range, SC_K_FD, call_sync_file_range)
SC_CALL(__NR_sync, SC_K_ANY, call_sync)

/* calls_fcntl.c, calls_ioctl.c */
SC_CALL(__NR_fcntl, SC_K_FD, call_fcntl)
SC_CALL(__NR_flock, SC_K_FD, call_flock)
SC_CALL(__NR_ioctl, SC_K_FD, call_ioctl)

/* calls_limit.c */
SC_CALL(__NR_setrlimit, SC_K_ANY, call_setrlimit)
SC_CALL(__NR_prlimit64, SC_K_ANY, call_setrlimit)

/* calls_copy.c */
SC_CALL(__NR_copy_file_range, SC_K_ANY, call_copy_file_range)
SC_CALL(__NR_sendfile, SC_K_ANY, call_sendfile)
SC_CALL(__NR_splice, SC_K_ANY, call_splice)

/* calls_mmap.c */
SC_CALL(__NR_mmap, SC_K_ANY, call_mmap)
SC_CALL(__NR_msync, SC_K_ANY, call_msync)
SC_CALL(__NR_mprotect, SC_K_ANY, call_mprotect)

/* calls_poll.c */
SC_CALL(__NR_poll, SC_K_ANY, call_poll)
SC_CALL(__NR_ppoll, SC_K_ANY, call_ppoll)
SC_CALL(__NR_select, SC_K_ANY, call_select)
SC_CALL(__NR_pselect6, SC_K_ANY, call_pselect6)

/* calls_epoll.c */
SC_CALL(__NR_epoll_ctl, SC_K_ANY, call_epoll_ctl)
SC_CALL_NET(__NR_epoll_create, SC_K_ANY, call_epoll_create)
SC_CALL_NET(__NR_epoll_create1, SC_K_ANY, call_epoll_create)
SC_CALL_NET(__NR_epoll_wait, SC_K_FD, call_epoll_wait)
SC_CALL_NET(__NR_epoll_pwait, SC_K_FD, call_epoll_pwait)
SC_CALL_NET(__NR_epoll_pwait2, SC_K_FD, call_epoll_pwait2)

/* calls_sock.c, calls_sockio.c, calls_sockopt.c */
SC_CALL_NET(__NR_socket, SC_K_ANY, call_socket)
SC_CALL(__NR_bind, SC_K_ANY, call_bind)
SC_CALL(__NR_connect, SC_K_ANY, call_connect)
SC_CALL(__NR_listen, SC_K_FD, call_listen)
SC_CALL(__NR_accept, SC_K_FD, call_accept)
SC_CALL(__NR_accept4, SC_K_FD, call_accept4)
SC_CALL(__NR_getsockname, SC_K_FD, call_getsockname)
SC_CALL(__NR_getpeername, SC_K_FD, call_getpeername)
SC_CALL(__NR_shutdown, SC_K_FD, call_shutdown)
SC_CALL(__NR_getsockopt, SC_K_FD, call_getsockopt)
SC_CALL(__NR_setsockopt, SC_K_FD, call_setsockopt)
SC_CALL(__NR_sendto, SC_K_FD, call_sendto)
SC_CALL(__NR_recvfrom, SC_K_FD, call_recvfrom)

/* calls_refuse.c: what a remote file or path cannot serve */
SC_CALL(__NR_inotify_add_watch, SC_K_ANY, call_inotify_add_watch)
SC_CALL(__NR_fanotify_mark, SC_K_ANY, call_fanotify_mark)
SC_CALL(__NR_swapon, SC_K_ANY, call_swapon)
SC_CALL(__NR_swapoff, SC_K_ANY, call_swapon)
SC_CALL(__NR_mount, SC_K_ANY, call_mount)
SC_CALL(__NR_umount2, SC_K_ANY, call_umount2)
SC_CALL(__NR_pivot_root, SC_K_ANY, call_pivot_root)
SC_CALL(__NR_acct, SC_K_ANY, call_acct)
SC_CALL(__NR_quotactl, SC_K_ANY, call_quotactl)
SC_CALL(__NR_name_to_handle_at, SC_K_ANY, call_name_to_handle_at)
SC_CALL(__NR_open_by_handle_at, SC_K_FD, call_open_by_handle_at)
SC_CALL(__NR_open_tree, SC_K_ANY, call_open_tree)
SC_CALL(__NR_open_tree_attr, SC_K_ANY, call_open_tree)
SC_CALL(__NR_fspick, SC_K_ANY, call_open_tree)
SC_CALL(__NR_mount_setattr, SC_K_ANY, call_open_tree)
SC_CALL(__NR_move_mount, SC_K_ANY, call_move_mount)
SC_CALL(__NR_file_getattr, SC_K_ANY, call_file_attr)
SC_CALL(__NR_file_setattr, SC_K_ANY, call_file_attr)
SC_CALL(__NR_cachestat, SC_K_FD, call_cachestat)
SC_CALL(__NR_io_uring_setup, SC_K_ANY, call_no_async)
SC_CALL(__NR_io_setup, SC_K_ANY, call_no_async)

/* calls_msg.c: descriptors that travel */
SC_CALL(__NR_sendmsg, SC_K_ANY, call_sendmsg_any)
SC_CALL(__NR_sendmmsg, SC_K_ANY, call_sendmmsg_any)
SC_CALL(__NR_recvmsg, SC_K_ANY, call_recvmsg_any)
SC_CALL(__NR_recvmmsg, SC_K_ANY, call_recvmmsg_any)
SC_CALL(__NR_pidfd_getfd, SC_K_ANY, call_pidfd_getfd)
