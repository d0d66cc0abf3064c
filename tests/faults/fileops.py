#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""fileops.py - one file operation, described by a dictionary and executed by system calls.

The same code runs on both sides of a comparison: as a worker under scrun, where the calls go to the domain that is being killed
(commands come and results go by pipes, which are the host kernel's), and inside the checker, natively on a shadow tree, which
is what the domain's files have to be like. Whatever a call does on Linux, the shadow does; there is no other model.

usage: fileops.py ROOT CHANNEL (a descriptor of a Unix socket for descriptors, one datagram each), commands on standard input
"""
import array
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import random
import socket
import stat
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
F_OFD_SETLK = 37
STATUS_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK
XATTRS_MAX = 1 << 16


def data(seed, size):
    return random.Random(seed).randbytes(size)


def digest(b):
    return [len(b), hashlib.sha1(b).hexdigest()]


class Side:
    """A root directory, and descriptors by name (slot)."""

    def __init__(self, root):
        self.root, self.fds = root, {}
        self.channel = None  # the two ends of the socket for descriptors; None: the checker's side

    def where(self, op, path="path", at="at"):
        """(path, dir_fd) for a call of the *at family."""
        if op.get(at):
            return op[path], self.fds[op[at]]
        return os.path.join(self.root, op[path]), None


def check(r):
    if r < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return r


def attributes(st):
    """What has to be alike on both sides."""
    kind = stat.S_IFMT(st.st_mode)
    size = st.st_size if kind in (stat.S_IFREG, stat.S_IFLNK) else 0
    old = st.st_mtime_ns if st.st_mtime_ns < 1_100_000_000 * 10**9 else 0  # set by utimens here, and not changed since
    return [st.st_mode, st.st_nlink, st.st_uid, st.st_gid, size, old]


def identity(st):
    return st.st_ino


def op_open(side, op):
    path, dirfd = side.where(op)
    fd = os.open(path, op["flags"] | os.O_NOFOLLOW | os.O_CLOEXEC, op.get("mode", 0o644), dir_fd=dirfd)
    side.fds[op["slot"]] = fd
    return attributes(os.fstat(fd))


def op_close(side, op):
    os.close(side.fds.pop(op["slot"]))


def op_dup(side, op):
    side.fds[op["slot2"]] = os.dup(side.fds[op["slot"]])


def op_read(side, op):
    fd, n = side.fds[op["slot"]], op["n"]
    return digest(os.read(fd, n) if op["off"] is None else os.pread(fd, n, op["off"]))


def op_write(side, op):
    fd, b = side.fds[op["slot"]], data(op["seed"], op["n"])
    return os.write(fd, b) if op["off"] is None else os.pwrite(fd, b, op["off"])


def op_lseek(side, op):
    return os.lseek(side.fds[op["slot"]], op["off"], op["whence"])


def op_ftruncate(side, op):
    os.ftruncate(side.fds[op["slot"]], op["size"])


def op_truncate(side, op):
    os.truncate(side.where(op)[0], op["size"])


def op_fallocate(side, op):
    check(LIBC.fallocate(side.fds[op["slot"]], op["mode"], ctypes.c_long(op["off"]), ctypes.c_long(op["n"])))


def op_copy(side, op):
    return os.copy_file_range(side.fds[op["slot"]], side.fds[op["slot2"]], op["n"], op["off"], op["off2"])


def op_fsync(side, op):
    (os.fdatasync if op["data"] else os.fsync)(side.fds[op["slot"]])


def op_setfl(side, op):
    fcntl.fcntl(side.fds[op["slot"]], fcntl.F_SETFL, op["flags"])


def op_flock(side, op):
    fcntl.flock(side.fds[op["slot"]], op["how"] | fcntl.LOCK_NB)


def op_ofd(side, op):
    fcntl.fcntl(side.fds[op["slot"]], F_OFD_SETLK, struct.pack("hhqqi4x", op["type"], 0, op["off"], op["n"], 0))


def op_mkdir(side, op):
    path, dirfd = side.where(op)
    os.mkdir(path, op["mode"], dir_fd=dirfd)


def op_rmdir(side, op):
    path, dirfd = side.where(op)
    os.rmdir(path, dir_fd=dirfd)


def op_unlink(side, op):
    path, dirfd = side.where(op)
    os.unlink(path, dir_fd=dirfd)


def op_mknod(side, op):
    path, dirfd = side.where(op)
    os.mknod(path, op["mode"], dir_fd=dirfd)


def op_symlink(side, op):
    path, dirfd = side.where(op)
    os.symlink(op["text"], path, dir_fd=dirfd)


def op_link(side, op):
    path, dirfd = side.where(op)
    path2, dirfd2 = side.where(op, "path2", "at2")
    os.link(path, path2, src_dir_fd=dirfd, dst_dir_fd=dirfd2, follow_symlinks=False)


def op_linkfd(side, op):
    """Gives a name to a file of O_TMPFILE."""
    os.link("/proc/self/fd/%d" % side.fds[op["slot"]], side.where(op)[0], follow_symlinks=True, src_dir_fd=None)


def op_rename(side, op):
    path, dirfd = side.where(op)
    path2, dirfd2 = side.where(op, "path2", "at2")
    check(LIBC.renameat2(AT_FDCWD if dirfd is None else dirfd, os.fsencode(path), AT_FDCWD if dirfd2 is None else dirfd2,
                         os.fsencode(path2), op["flags"]))


def op_chmod(side, op):
    if "slot" in op:
        os.fchmod(side.fds[op["slot"]], op["mode"])
    else:
        os.chmod(side.where(op)[0], op["mode"])


def op_chown(side, op):
    path, dirfd = side.where(op)
    os.chown(path, op["uid"], op["gid"], dir_fd=dirfd, follow_symlinks=False)


def op_utimens(side, op):
    path, dirfd = side.where(op)
    os.utime(path, ns=(op["when"], op["when"]), dir_fd=dirfd, follow_symlinks=False)


def op_setxattr(side, op):
    os.setxattr(side.where(op)[0], op["name"], data(op["seed"], op["n"]), op["flags"], follow_symlinks=False)


def op_removexattr(side, op):
    os.removexattr(side.where(op)[0], op["name"], follow_symlinks=False)


def op_stat(side, op):
    if "slot" in op:
        st = os.fstat(side.fds[op["slot"]])
    else:
        path, dirfd = side.where(op)
        st = os.stat(path, dir_fd=dirfd, follow_symlinks=False)
    return attributes(st), identity(st), st.st_mtime_ns


def op_readlink(side, op):
    path, dirfd = side.where(op)
    return os.readlink(path, dir_fd=dirfd)


def op_readdir(side, op):
    return sorted(os.listdir(side.fds[op["slot"]] if "slot" in op else side.where(op)[0]))


def op_sync(side, op):
    os.sync()


def op_sendfd(side, op):
    """Slot travels through the socket to whoever says recvfd next. In the checker: a dup."""
    if side.channel is None:
        side.fds[op["slot2"]] = os.dup(side.fds[op["slot"]])
    else:
        side.channel[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [side.fds[op["slot"]]]))])


def op_recvfd(side, op):
    if side.channel is None:
        return
    fds = array.array("i")
    _, anc, _, _ = side.channel[1].recvmsg(16, socket.CMSG_SPACE(4))
    fds.frombytes(anc[0][2])
    side.fds[op["slot2"]] = fds[0]


def content(fd):
    h, at = hashlib.sha1(), 0
    while True:
        b = os.pread(fd, 1 << 20, at)
        if not b:
            return h.hexdigest()
        h.update(b)
        at += len(b)


def op_walk(side, op):
    """All that is below the root: [path, attributes, content or text, xattrs], identities and times beside them."""
    out, meta = [], []
    todo = [""]
    while todo:
        rel = todo.pop()
        path = os.path.join(side.root, rel) if rel else side.root
        st = os.lstat(path)
        what = None
        if stat.S_ISDIR(st.st_mode):
            what = sorted(os.listdir(path))
            todo += [os.path.join(rel, n) for n in reversed(what)]
        elif stat.S_ISLNK(st.st_mode):
            what = os.readlink(path)
        elif stat.S_ISREG(st.st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
            what = content(fd)
            os.close(fd)
        names = sorted(os.listxattr(path, follow_symlinks=False))
        attrs = [[n, digest(os.getxattr(path, n, follow_symlinks=False))] for n in names]
        out.append([rel, attributes(st), what, attrs])
        meta.append([identity(st), st.st_mtime_ns])
    return out, meta


def op_fds(side, op):
    """All descriptors named in op["slots"]: [slot, attributes, position, flags, content], and identities."""
    out, meta = [], []
    for slot in op["slots"]:
        fd = side.fds[slot]
        st = os.fstat(fd)
        regular = stat.S_ISREG(st.st_mode)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL) & STATUS_FLAGS
        readable = regular and flags & os.O_ACCMODE != os.O_WRONLY
        out.append([slot, attributes(st), os.lseek(fd, 0, os.SEEK_CUR) if regular else None, flags, content(fd) if readable else None])
        meta.append([identity(st), st.st_mtime_ns])
    return out, meta


def perform(side, op):
    """["ok", result] or ["err", name of errno]."""
    try:
        return ["ok", globals()["op_" + op["op"]](side, op)]
    except OSError as e:
        return ["err", errno.errorcode.get(e.errno, e.errno)]


def main():
    os.umask(0)
    side = Side(sys.argv[1])
    side.channel = [socket.socket(fileno=int(fd)) for fd in sys.argv[2].split(",")]
    out = sys.stdout
    for line in sys.stdin:
        op = json.loads(line)
        out.write(json.dumps([op["id"], perform(side, op)]) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
