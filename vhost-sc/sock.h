/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sock.h - Unix sockets with descriptors and credentials, without blocking.
 *
 * Descriptors received are close-on-exec, and never leak: whatever was received is either handed to
 * the caller or closed. Sends never wait and never raise SIGPIPE.
 */
#ifndef VHOST_SC_SOCK_H
#define VHOST_SC_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define SOCK_MAX_FDS 64 /* most descriptors that one message carries, either way */

/* Makes a listening socket of `type` (SOCK_STREAM, SOCK_SEQPACKET) at `path` with permission bits
 * `mode`; replaces what is there. Returns the descriptor (non-blocking), or -errno. */
int sock_listen(const char *path, int type, mode_t mode);

/* Accepts a connection (non-blocking, close-on-exec). When descriptors have run out, the one at
 * *spare is given up to take the connection off the queue and end it, so that the listener does not
 * stay ready forever; *spare is then made anew. Returns the descriptor, or -errno. */
int sock_accept(int listener, int *spare);

/* A descriptor for sock_accept() to give up. */
int sock_spare(void);

/* Sends one message with descriptors (nfds <= SOCK_MAX_FDS, may be 0), which stay the caller's.
 * Returns the bytes sent, or -errno (-EAGAIN: the peer does not read). */
ssize_t sock_send(int fd, const void *buf, size_t len, const int *fds, unsigned nfds);

/* Receives up to `cap` bytes. fds has room for SOCK_MAX_FDS; *nfds says how many were received,
 * which are the caller's to close, whatever is returned: the bytes, 0 at the end of the connection,
 * or -errno: -EAGAIN, -EMSGSIZE (message or descriptors did not fit; the rest of them is lost). */
ssize_t sock_recv(int fd, void *buf, size_t cap, int *fds, unsigned *nfds);

/* Closes n descriptors. */
void sock_close_fds(const int *fds, unsigned n);

/* Close-on-exec on or off. Returns 0 or -errno. */
int sock_set_cloexec(int fd, bool on);

#endif
