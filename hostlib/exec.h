/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * exec.h - what one program image tells the next: routes, remote descriptors, working directory, through environment
 * variables that the library adds at exec and takes away again before the new program's main() runs.
 *
 *   LD_PRELOAD         the library first, then what the program had there
 *   LD_AUDIT           the library, instead of LD_PRELOAD: then it is there before the dynamic loader looks for the program's
 *                      libraries, which may thus lie in a domain. Used when they may (wants_audit(), exec.c)
 *   VHOST_SC_LIB       path of the library
 *   VHOST_SC_ROUTES    NAME:HOSTPATH[=EXPORT], one a line; newline, '%' (and, inside parts, ':' and '=') as %XX
 *   VHOST_SC_NET       NAME[=CIDR], one a line: which network domain serves which addresses
 *   VHOST_SC_SEGS      fd:domain:ticket:inode, one a line: segments in which sockets lie (net_mem.c)
 *   VHOST_SC_AT        where the brokers' sockets are: $VHOST_SC_RUNDIR as the first program had it
 *   VHOST_SC_FDS       fd:domain:ticket:handle:secret:flags:type:inode:route, in hexadecimal but the domain, one a line.
 *                      A socket's line has type << 32 | family << 16 | protocol instead of a route.
 *                      inode is that of the ticket's socket: a descriptor that is something else by now is left alone
 *   VHOST_SC_CWD       the same for the working directory, whose fd is a descriptor of the library
 *   VHOST_SC_EXE       path of the program, if it is remote: what /proc/self/exe is to say
 *   VHOST_SC_LIBS      what was added to LD_LIBRARY_PATH for a remote program
 *   VHOST_SC_PAD       nothing: makes the number of variables that are taken away even (exec.c: fill_auxv())
 *   VHOST_SC_LOCKS     1: the process has POSIX locks on remote files
 *   VHOST_SC_TRACE     path of the file that --trace appends to, or "-": standard error
 *   VHOST_SC_STATS     1: print counters at exit (stays visible)
 */
#ifndef HOSTLIB_EXEC_H
#define HOSTLIB_EXEC_H

#include <stdbool.h>

/* Takes routes from the environment. False: there are none. */
bool sc_env_routes(char **envp);
/* Takes over descriptors and working directory. After the tables' initialisation. */
void sc_env_files(char **envp);
/* Removes our variables from the environment. */
void sc_env_clean(char **envp);

/* Frees what an exec under way pointed to: it failed, or the vfork child that made it has gone. */
struct sc_serve_thread;
void sc_exec_forget(struct sc_serve_thread *s);

/*
 * exec_remote.c: if what *x names is remote, changes *x to what the kernel can execute. 0 or -errno. What it keeps until the
 * exec has happened goes with forget (close: in the process that made it; not for a vfork child that is gone).
 */
struct sc_exec;
struct sc_thread;
long sc_exec_remote(struct sc_thread *t, struct sc_exec *x);
void sc_exec_remote_forget(struct sc_serve_thread *s, bool close);
/* Directories for the loader to look for its libraries in, or NULL. */
const char *sc_exec_remote_libs(const struct sc_serve_thread *s);
/* Host path of the remote program that is about to be executed, or NULL. */
const char *sc_exec_remote_path(const struct sc_serve_thread *s);

/* Host path of the remote program that this is, or NULL. */
const char *sc_exe_path(void);

#endif
