/* SPDX-License-Identifier: BSD-3-Clause */
/* opnames.c - names of operations; see opnames.h. */
#include <stddef.h>

#include <vhost-sc/net.h>
#include <vhost-sc/ops.h>

#include "opnames.h"

static const char *const names[SC_OP_MAX] = {
    [SC_OP_NOP] = "nop",
    [SC_OP_ROOT] = "root",
    [SC_OP_OPEN] = "open",
    [SC_OP_CLOSE] = "close",
    [SC_OP_GRANT] = "grant",
    [SC_OP_READ] = "read",
    [SC_OP_WRITE] = "write",
    [SC_OP_SEEK] = "seek",
    [SC_OP_READDIR] = "readdir",
    [SC_OP_STAT] = "stat",
    [SC_OP_ACCESS] = "access",
    [SC_OP_READLINK] = "readlink",
    [SC_OP_MKDIR] = "mkdir",
    [SC_OP_MKNOD] = "mknod",
    [SC_OP_UNLINK] = "unlink",
    [SC_OP_SYMLINK] = "symlink",
    [SC_OP_RENAME] = "rename",
    [SC_OP_LINK] = "link",
    [SC_OP_TRUNCATE] = "truncate",
    [SC_OP_CHMOD] = "chmod",
    [SC_OP_CHOWN] = "chown",
    [SC_OP_UTIMENS] = "utimens",
    [SC_OP_GETXATTR] = "getxattr",
    [SC_OP_SETXATTR] = "setxattr",
    [SC_OP_LISTXATTR] = "listxattr",
    [SC_OP_REMOVEXATTR] = "removexattr",
    [SC_OP_STATFS] = "statfs",
    [SC_OP_FALLOCATE] = "fallocate",
    [SC_OP_SYNC] = "sync",
    [SC_OP_FADVISE] = "fadvise",
    [SC_OP_SETFL] = "setfl",
    [SC_OP_GETFL] = "getfl",
    [SC_OP_FLOCK] = "flock",
    [SC_OP_LOCK] = "lock",
    [SC_OP_UNLOCK_ALL] = "unlock_all",
    [SC_OP_CANCEL] = "cancel",
    [SC_OP_COPY] = "copy",
    [SC_OP_GETPATH] = "getpath",
    [SC_OP_IOCTL] = "ioctl",
    [SC_OP_SYNCALL] = "syncall",
    [SC_OP_MAP] = "map",
    [SC_OP_MAP_WRITE] = "map_write",
    [SC_OP_MSYNC] = "msync",
    [SC_OP_NET_ATTACH] = "net_attach",
    [SC_OP_NET_SEGMENT] = "net_segment",
    [SC_OP_SOCKET] = "socket",
    [SC_OP_BIND] = "bind",
    [SC_OP_LISTEN] = "listen",
    [SC_OP_CONNECT] = "connect",
    [SC_OP_ADOPT] = "adopt",
    [SC_OP_SHUTDOWN] = "shutdown",
    [SC_OP_SETSOCKOPT] = "setsockopt",
    [SC_OP_GETSOCKOPT] = "getsockopt",
    [SC_OP_NET_SOCKETS] = "net_sockets",
};

const char *op_name(uint32_t op)
{
	return op < SC_OP_MAX ? names[op] : NULL;
}
