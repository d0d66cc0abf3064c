/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sandbox.h - the broker gives up what it never needs, before it reads anything that a peer wrote.
 *
 * It runs as root and parses messages of users and guests. Should one of them get to run code in it,
 * the kernel refuses from then on: new privileges through exec, other processes' memory, mounts and
 * namespaces, modules, BPF and other system calls that reach around file permissions. What the broker
 * may do is left open on purpose: a new C library, or a name service, that uses another system call
 * for the same thing must not stop it.
 *
 * Without libseccomp only the part about privileges is in force. The filter is inherited by a
 * restarted broker, which adds none of its own.
 */
#ifndef VHOST_SC_SANDBOX_H
#define VHOST_SC_SANDBOX_H

/* Returns 0 or -errno. Not to be called by a program with a sanitizer that uses ptrace. */
int sandbox_enter(void);

#endif
