#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The same random path operations natively in one tree and through the agent in another: errno, results and the trees
that come out must be the same.

    test_paths.py [--seed N] [--steps N]

The seed is printed; a failure names the step and what was done. Needs root: operations are done as several users, and native
ones in a chroot, so that a path which climbs out of the tree does no harm. Where
the agent says that a path leaves the export (SC_CQE_F_CROSS), it is checked that it does and leads to where the agent
says; then the operation is done natively in the agent's tree as well, as the host library would.
"""
import argparse
import ctypes
import errno
import multiprocessing
import os
import random
import stat
import struct
import sys
import tempfile

from harness import (Agent, AT_EMPTY_PATH, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, CQE_CROSS, CQE_CROSS2,
                     CROSS_ABS, CROSS_UP)

SYS = dict(openat=257, mkdirat=258, mknodat=259, fchownat=260, newfstatat=262, unlinkat=263, linkat=265, symlinkat=266,
           readlinkat=267, fchmodat=268, utimensat=280, renameat2=316, faccessat2=439, close=3, fchdir=81, truncate=76,
           setxattr=188, lsetxattr=189, getxattr=191, lgetxattr=192, listxattr=194, llistxattr=195, removexattr=197,
           lremovexattr=198, statx=332, write=1, pread64=17, statfs=137)
LIBC = ctypes.CDLL(None, use_errno=True)


def native(name, *args):
    """A raw system call: its result or -errno. bytes become strings, bytearrays buffers."""
    conv, keep = [], []
    for a in args:
        if isinstance(a, bytearray):
            b = (ctypes.c_char * len(a)).from_buffer(a)
            keep.append(b)
            conv.append(b)
        elif isinstance(a, bytes):
            conv.append(ctypes.c_char_p(a))
        else:
            conv.append(ctypes.c_long(a))
    r = LIBC.syscall(ctypes.c_long(SYS[name]), *conv)
    return -ctypes.get_errno() if r == -1 else r


class Executor:
    """A process with some user's credentials that makes system calls. It sees `tree` as its "/": however far the random
    paths climb, they end there."""

    def __init__(self, tree, uid, gid, groups):
        self.pipe, child = multiprocessing.Pipe()
        self.pid = os.fork()
        if not self.pid:
            self.pipe.close()
            os.umask(0)
            os.chroot(tree)
            os.chdir("/")
            if uid:
                os.setgroups(groups)
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
            self.serve(child)
            os._exit(0)
        child.close()

    @staticmethod
    def serve(pipe):
        while True:
            order = pipe.recv()
            if not order:
                return
            name, args, outs = order
            args = [bytearray(a[1]) if isinstance(a, tuple) else a for a in args]
            r = native(name, *args)
            pipe.send((r, [bytes(args[i]) for i in outs]))

    def __call__(self, name, *args):
        """A tuple ("out", n) among the arguments is a buffer that comes back: then returns (result, bytes)."""
        outs = [i for i, a in enumerate(args) if isinstance(a, tuple)]
        self.pipe.send((name, args, outs))
        r, bufs = self.pipe.recv()
        return (r, bufs[0]) if outs else r

    def end(self):
        self.pipe.send(None)
        os.waitpid(self.pid, 0)
        self.pipe.close()


class Side:
    """One user's native view of a tree."""

    def __init__(self, user, tree, top):
        self.top = top
        self.run = Executor(tree, *user)
        self.bases = [self.run("openat", -100, os.fsencode(top), os.O_PATH | os.O_DIRECTORY, 0)]


class Failure(Exception):
    pass


NAMES = ["a", "b", "c", "d", "dir", "sub", "f", "l"]
FLAGS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR]


class Differential:
    def __init__(self, seed, steps, paranoid):
        self.paranoid = paranoid
        self.rng = random.Random(seed)
        self.steps = steps
        self.log = []

    # random material

    def component(self):
        r = self.rng.random()
        if r < 0.80:
            return self.rng.choice(NAMES)
        if r < 0.87:
            return "."
        if r < 0.985:
            return ".."
        return "x" * self.rng.choice([255, 256])

    def path(self):
        r = self.rng.random()
        if r < 0.01:
            return ""
        if r < 0.015:
            return "y/" * 2040 + self.rng.choice(["z", "zzzzzzzzzzzzzzzzz"])
        p = self.rng.choice(["/", "/", "/", "//"]).join(self.component() for _ in range(self.rng.choice([1, 1, 1, 2, 2, 3, 4, 5])))
        if self.rng.random() < 0.12:
            p += self.rng.choice(["/", "//", "/."])
        return p

    def target(self):
        """Text of a symbolic link."""
        r = self.rng.random()
        if r < 0.12:
            return "/nonexistent-sc/" + self.rng.choice(NAMES)
        if r < 0.16:
            return "/"
        if r < 0.3:
            return "../" * self.rng.randint(1, 5) + self.path()
        return self.path()[:4000] or "a"

    # one operation in both trees. Each returns (native result, agent's result), after crossing

    def agent_call(self, fn):
        """Calls the agent; returns (result, crossed)."""
        r = fn()
        flags = self.ch.last.flags
        crossed = r == -errno.EXDEV and flags & (CQE_CROSS | CQE_CROSS2)
        return r, crossed

    def check_cross(self, ui, base, path, second):
        kind, rest = self.ch.cross(second=second)
        side = self.theirs[ui]
        if kind == CROSS_UP:
            where = os.path.join(os.path.dirname(side.top), rest)
        elif kind == CROSS_ABS:
            where = rest
        else:
            raise Failure("cross of kind %d for %r" % (kind, path))
        a = side.run("newfstatat", side.bases[base], os.fsencode(path), ("out", 144), 0)
        b = side.run("newfstatat", -100, os.fsencode(where) or b".", ("out", 144), 0)
        if a[0] != b[0] and not {-errno.EACCES, -errno.ENAMETOOLONG} & {a[0], b[0]}:
            raise Failure("%r: natively %d, where the agent points (%r) %d" % (path, a[0], where, b[0]))
        if a[0] == 0 and a[1][:16] != b[1][:16]:
            raise Failure("%r leads elsewhere than where the agent points (%r)" % (path, where))

    def both(self, ui, what, nat, agt, paths):
        """nat(side) natively; agt() by the agent. paths: [(base, path), ...] for crossing."""
        self.log.append("user %d: %s" % (ui, what))
        mine = nat(self.ours[ui])
        theirs, crossed = self.agent_call(agt)
        if crossed:
            second = bool(self.ch.last.flags & CQE_CROSS2)
            base, path = paths[1 if second else 0]
            self.check_cross(ui, base, path, second)
            theirs = nat(self.theirs[ui])
            self.crossings += 1
        return mine, theirs

    def same(self, a, b, what):
        if a != b:
            raise Failure("%s: natively %s, by the agent %s" % (what, name_of(a), name_of(b)))

    def op_open(self, ui, b, p):
        rng = self.rng
        p = p or "."  # an empty path has a meaning of its own in SC_OP_OPEN
        flags = rng.choice(FLAGS)
        for f, prob in ((os.O_CREAT, 0.4), (os.O_EXCL, 0.15), (os.O_TRUNC, 0.2), (os.O_APPEND, 0.1), (os.O_NOFOLLOW, 0.2),
                        (os.O_DIRECTORY, 0.15), (os.O_PATH, 0.15), (os.O_NOATIME, 0.02), (os.O_TMPFILE, 0.03)):
            if rng.random() < prob:
                flags |= f
        if flags & os.O_EXCL and not flags & os.O_CREAT:
            flags &= ~os.O_EXCL
        mode = rng.choice([0o644, 0o600, 0o666, 0o777, 0o4755, 0])
        what = "open base %d %r flags %#o mode %#o" % (b, p, flags, mode)
        got = []

        def nat(side):
            fd = side.run("openat", side.bases[b], os.fsencode(p), flags | os.O_NONBLOCK * (not flags & os.O_PATH), mode)
            if fd >= 0:
                r, st = side.run("newfstatat", fd, b"", ("out", 144), AT_EMPTY_PATH)
                got.append((side, fd))
                return struct.unpack_from("<I", st, 24)[0]
            return fd

        def agt():
            h = self.chans[ui].open(self.handles[ui][b], p, flags, mode)
            if h > 0:
                got.append((None, h))
                st = self.chans[ui].stat(h)
                self.chans[ui].last.flags = 0
                return st if isinstance(st, int) else st.mode
            return h

        mine, theirs = self.both(ui, what, nat, agt, [(b, p)])
        if theirs == -errno.EOPNOTSUPP and (mine == -errno.ENXIO or stat.S_ISFIFO(max(mine, 0))):
            theirs = mine  # a FIFO: stated to be refused
        if len(p) >= 4096 and mine == -errno.EINVAL:
            theirs = mine  # two things wrong: the kernel looks at the flags before it copies the path
        for side, fd in got:
            if side:
                side.run("close", fd)
            else:
                self.chans[ui].close(fd)
        self.same(mine, theirs, what)

    def op_write(self, ui, b, p):
        data = os.urandom(1) * self.rng.randint(1, 5000)
        p = p or "."
        what = "write %d bytes to base %d %r" % (len(data), b, p)
        got = []

        def nat(side):
            st = side.run("newfstatat", side.bases[b], os.fsencode(p), ("out", 144), 0)
            if st[0] == 0 and not stat.S_ISREG(struct.unpack_from("<I", st[1], 24)[0]):
                return "not a file"
            fd = side.run("openat", side.bases[b], os.fsencode(p), os.O_WRONLY | os.O_NONBLOCK, 0)
            if fd < 0:
                return fd
            r = side.run("write", fd, data, len(data))
            side.run("close", fd)
            return r

        def agt():
            h = self.chans[ui].open(self.handles[ui][b], p, os.O_WRONLY)
            if h < 0:
                return h
            r = self.chans[ui].write(h, data)
            self.chans[ui].close(h)
            self.chans[ui].last.flags = 0
            return r

        mine, theirs = self.both(ui, what, nat, agt, [(b, p)])
        if mine == "not a file":
            return
        self.same(mine, theirs, what)

    def simple(self, ui, b, p, what, nat, op, **kw):
        what = "%s base %d %r" % (what, b, p)
        mine, theirs = self.both(ui, what, lambda s: nat(s, s.bases[b], os.fsencode(p)),
                                 lambda: self.chans[ui].path_op(op, self.handles[ui][b], p, **kw), [(b, p)])
        self.same(mine, theirs, what)

    def op_mkdir(self, ui, b, p):
        mode = self.rng.choice([0o755, 0o777, 0o700, 0o1777, 0o2775, 0o500])
        self.simple(ui, b, p, "mkdir %#o" % mode, lambda s, fd, n: s.run("mkdirat", fd, n, mode), "MKDIR", arg0=mode)

    def op_mknod(self, ui, b, p):
        mode = self.rng.choice([stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFDIR, 0]) | 0o644
        if stat.S_ISCHR(mode) and not self.users[ui][0]:
            mode = stat.S_IFIFO | 0o600  # no devices in the test's tree
        self.simple(ui, b, p, "mknod %#o" % mode, lambda s, fd, n: s.run("mknodat", fd, n, mode, 0x103), "MKNOD",
                    arg0=mode, arg1=0x103)

    def op_unlink(self, ui, b, p):
        flag = self.rng.choice([0, 0, AT_REMOVEDIR])
        self.simple(ui, b, p, "unlink %#x" % flag, lambda s, fd, n: s.run("unlinkat", fd, n, flag), "UNLINK", arg0=flag)

    def op_symlink(self, ui, b, p):
        text = self.target()
        what = "symlink %r at base %d %r" % (text, b, p)
        ch = self.chans[ui]
        mine, theirs = self.both(ui, what, lambda s: s.run("symlinkat", os.fsencode(text), s.bases[b], os.fsencode(p)),
                                 lambda: ch.path2_op("SYMLINK", self.handles[ui][b], p, 0, text), [(b, p)])
        self.same(mine, theirs, what)

    def two(self, ui, what, op, nat, b, p, flags):
        b2, p2 = self.rng.randrange(len(self.handles[ui])), self.path()
        what = "%s base %d %r to base %d %r flags %#x" % (what, b, p, b2, p2, flags)
        hs = self.handles[ui]
        mine, theirs = self.both(
            ui, what, lambda s: s.run(nat, s.bases[b], os.fsencode(p), s.bases[b2], os.fsencode(p2), flags),
            lambda: self.chans[ui].path2_op(op, hs[b], p, hs[b2], p2, flags), [(b, p), (b2, p2)])
        self.same(mine, theirs, what)

    def op_rename(self, ui, b, p):
        self.two(ui, "rename", "RENAME", "renameat2", b, p, self.rng.choice([0, 0, 0, 1, 2]))

    def op_link(self, ui, b, p):
        self.two(ui, "link", "LINK", "linkat", b, p, self.rng.choice([0, 0, AT_SYMLINK_FOLLOW]))

    def op_stat(self, ui, b, p):
        flag = self.rng.choice([0, AT_SYMLINK_NOFOLLOW])
        what = "stat %#x base %d %r" % (flag, b, p)

        def nat(s):
            r, st = s.run("newfstatat", s.bases[b], os.fsencode(p), ("out", 144), flag)
            dev, ino, nlink, mode, uid, gid, _, rdev, size = struct.unpack_from("<QQQIIIIQq", st)
            return r if r < 0 else (mode, nlink, uid, gid, size if not stat.S_ISDIR(mode) else 0)

        def agt():
            st = self.chans[ui].stat(self.handles[ui][b], p, flag)
            return st if isinstance(st, int) else (st.mode, st.nlink, st.uid, st.gid,
                                                   st.size if not stat.S_ISDIR(st.mode) else 0)

        mine, theirs = self.both(ui, what, nat, agt, [(b, p)])
        self.same(mine, theirs, what)

    def op_access(self, ui, b, p):
        mode, flag = self.rng.randrange(8), self.rng.choice([0, AT_SYMLINK_NOFOLLOW])
        self.simple(ui, b, p, "access %d %#x" % (mode, flag), lambda s, fd, n: s.run("faccessat2", fd, n, mode, flag),
                    "ACCESS", arg0=flag, arg1=mode)

    def op_readlink(self, ui, b, p):
        what = "readlink base %d %r" % (b, p)

        def nat(s):
            r, text = s.run("readlinkat", s.bases[b], os.fsencode(p), ("out", 4096), 4096)
            return r if r < 0 else os.fsdecode(text[:r])

        mine, theirs = self.both(ui, what, nat, lambda: self.chans[ui].readlink(self.handles[ui][b], p), [(b, p)])
        if p or not isinstance(mine, int):
            self.same(mine, theirs, what)

    def op_chmod(self, ui, b, p):
        mode = self.rng.choice([0o644, 0o600, 0o755, 0o777, 0o000, 0o6755, 0o1777, 0o700, 0o711])
        self.simple(ui, b, p, "chmod %#o" % mode, lambda s, fd, n: s.run("fchmodat", fd, n, mode), "CHMOD", arg1=mode)

    def op_chown(self, ui, b, p):
        uid, gid = self.rng.choice([0xffffffff, 0, 1001, 1002]), self.rng.choice([0xffffffff, 0, 1001, 2000])
        flag = self.rng.choice([0, AT_SYMLINK_NOFOLLOW])
        self.simple(ui, b, p, "chown %d:%d %#x" % (uid, gid, flag),
                    lambda s, fd, n: s.run("fchownat", fd, n, uid, gid, flag), "CHOWN", arg0=flag, arg1=uid | gid << 32)

    def op_utimens(self, ui, b, p):
        flag = self.rng.choice([0, AT_SYMLINK_NOFOLLOW])
        nsec = self.rng.choice([0, 5, 0x3fffffff, 0x3ffffffe, 2000000000])
        ch = self.chans[ui]
        ch.put(ch.data_off(), struct.pack("<qqII", 1000, 2000, nsec, nsec))
        times = struct.pack("<qqqq", 1000, nsec, 2000, nsec)
        self.simple(ui, b, p, "utimens %#x nsec %d" % (flag, nsec),
                    lambda s, fd, n: s.run("utimensat", fd, n, times, flag), "UTIMENS", arg0=flag,
                    buf2=ch.data_off(), len2=24)

    def op_truncate(self, ui, b, p):
        n = self.rng.choice([0, 1, 1000, 10000, -1])
        self.simple(ui, b, p, "truncate %d" % n, lambda s, fd, t: self.at(s, fd, "truncate", t, n), "TRUNCATE", off=n)

    def op_statfs(self, ui, b, p):
        ch = self.chans[ui]
        self.simple(ui, b, p, "statfs", lambda s, fd, t: self.at(s, fd, "statfs", t, ("out", 200)), "STATFS",
                    buf2=ch.data_off(), len2=88)

    def at(self, s, fd, call, *args):
        """A call that knows no base: in a directory to which the process changes."""
        r = s.run("fchdir", fd)
        if r:
            raise Skip()
        r = s.run(call, *args)
        return r[0] if isinstance(r, tuple) else r

    def op_xattr(self, ui, b, p):
        rng, ch = self.rng, self.chans[ui]
        name = rng.choice([b"user.a", b"user.b", b"user." + b"n" * 251, b"trusted.t", b"security.s", b"bad", b"user."])
        flag = rng.choice([0, AT_SYMLINK_NOFOLLOW])
        l = "l" if flag else ""
        off = ch.data_off()
        ch.put(off, name)
        kind = rng.choice(["set", "set", "get", "list", "remove"])
        what = "%sxattr %r" % (kind, name)
        if kind == "set":
            value, xf = b"v" * rng.randint(0, 50), rng.choice([0, 0, 1, 2])
            ch.put(off + 512, value)
            self.simple(ui, b, p, what, lambda s, fd, t: self.at(s, fd, l + "setxattr", t, name, value, len(value), xf),
                        "SETXATTR", arg0=flag, buf2=off, len2=len(name), off=off + 512, arg1=len(value), arg2=xf)
        elif kind == "get":
            n = rng.choice([0, 3, 200])
            self.simple(ui, b, p, what, lambda s, fd, t: self.at(s, fd, l + "getxattr", t, name, ("out", 200), n),
                        "GETXATTR", arg0=flag, buf2=off, len2=len(name), off=off + 512, arg1=n)
        elif kind == "list":
            n = rng.choice([0, 3, 1000])
            self.simple(ui, b, p, what, lambda s, fd, t: self.at(s, fd, l + "listxattr", t, ("out", 1000), n),
                        "LISTXATTR", arg0=flag, buf2=off, len2=n)
        else:
            self.simple(ui, b, p, what, lambda s, fd, t: self.at(s, fd, l + "removexattr", t, name), "REMOVEXATTR",
                        arg0=flag, buf2=off, len2=len(name))

    def op_base(self, ui, b, p):
        """Opens a directory to resolve further paths from."""
        p = p or "."
        what = "base %d %r" % (b, p)
        fl = os.O_PATH | os.O_DIRECTORY
        new = []

        def nat(s):
            fd = s.run("openat", s.bases[b], os.fsencode(p), fl, 0)
            new.append((s, fd))
            return min(fd, 0)

        def agt():
            h = self.chans[ui].open(self.handles[ui][b], p, fl)
            new.append((None, h))
            return min(h, 0)

        mine, theirs = self.both(ui, what, nat, agt, [(b, p)])
        self.same(mine, theirs, what)
        if mine < 0 or len(new) != 2 or new[1][0]:
            for s, fd in new:
                if s and fd >= 0:
                    s.run("close", fd)
            return
        # The agent's tree needs a native view of the same directory, for crossings.
        fd = self.theirs[ui].run("openat", self.theirs[ui].bases[b], os.fsencode(p), fl, 0)
        if fd < 0:
            raise Failure("%s: not to be opened natively in the agent's tree: %d" % (what, fd))
        i = self.rng.randrange(1, 5)
        lists = (self.ours[ui].bases, self.theirs[ui].bases, self.handles[ui])
        if i < len(lists[0]):
            self.ours[ui].run("close", lists[0][i])
            self.theirs[ui].run("close", lists[1][i])
            self.chans[ui].close(lists[2][i])
        else:
            i = len(lists[0])
            for l in lists:
                l.append(None)
        lists[0][i], lists[1][i], lists[2][i] = new[0][1], fd, new[1][1]

    # trees

    def snapshot(self, top):
        out = {}
        for d, dirs, files in os.walk(top):
            for n in dirs + files + [""]:
                full = os.path.join(d, n)
                st = os.lstat(full)
                key = os.path.relpath(full, top)
                val = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink]
                if stat.S_ISLNK(st.st_mode):
                    val.append(os.readlink(full))
                if stat.S_ISREG(st.st_mode):
                    with open(full, "rb") as f:
                        val.append(f.read())
                if not stat.S_ISLNK(st.st_mode):
                    val.append(sorted((x, os.getxattr(full, x)) for x in os.listxattr(full)))
                out[key] = val
        return out

    def compare_trees(self):
        a, b = self.snapshot(self.dir + "/native"), self.snapshot(self.dir + "/agent")
        for k in sorted(set(a) | set(b)):
            if a.get(k) != b.get(k):
                raise Failure("trees differ at %r: natively %r, by the agent %r" % (k, a.get(k), b.get(k)))

    def prepare(self):
        for t in ("native", "agent"):
            top = os.path.join(self.dir, t, "up", "top")
            os.makedirs(top)
            os.chmod(top, 0o777)
            os.chmod(os.path.dirname(top), 0o777)
            os.makedirs(os.path.join(top, "dir", "sub"))
            os.chmod(os.path.join(top, "dir"), 0o777)
            os.symlink("../../c", os.path.join(top, "dir", "l"))
        os.chmod(self.dir, 0o755)

    def run(self):
        self.users = [(0, 0, []), (1001, 1001, [2000]), (1002, 1002, [])]
        self.crossings = 0
        with tempfile.TemporaryDirectory(prefix="sc-paths.") as self.dir:
            os.umask(0)
            self.prepare()
            self.ours = [Side(u, self.dir + "/native", "/up/top") for u in self.users]
            self.theirs = [Side(u, self.dir + "/agent", "/up/top") for u in self.users]
            # The agent serves the parent, and the export is "top": so that a walk out of it would find something.
            with Agent(self.dir + "/agent/up") as agent:
                self.chans = [agent.attach(*u) for u in self.users]
                self.handles = [[ch.root("/top")] for ch in self.chans]
                try:
                    self.steps_all()
                finally:
                    for s in self.ours + self.theirs:
                        s.run.end()
        return self.crossings

    def steps_all(self):
        ops = [getattr(self, n) for n in dir(self) if n.startswith("op_")]
        weights = [3 if o.__name__ in ("op_open", "op_mkdir", "op_symlink", "op_rename", "op_base") else 1 for o in ops]
        for step in range(self.steps):
            ui = self.rng.randrange(len(self.users))
            self.ch = self.chans[ui]
            b = self.rng.randrange(len(self.handles[ui]))
            op = self.rng.choices(ops, weights)[0]
            try:
                op(ui, b, self.path())
            except Skip:
                pass  # the native call was not made, and so neither was the agent's
            if step % 500 == 499 or step >= self.paranoid:
                self.compare_trees()
        self.compare_trees()


class Skip(Exception):
    pass


def name_of(r):
    return errno.errorcode.get(-r, r) if isinstance(r, int) and r < 0 else repr(r)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, default=int(os.environ.get("SC_SEED", random.randrange(1 << 30))))
    ap.add_argument("--steps", type=int, default=6000)
    ap.add_argument("--paranoid", type=int, default=1 << 30, help="compare the trees after each step from this one on")
    args = ap.parse_args()
    if os.geteuid():
        print("skipped: needs root, for chroot and for acting as several users")
        return 77
    print("seed %d, %d steps" % (args.seed, args.steps), flush=True)
    d = Differential(args.seed, args.steps, args.paranoid)
    try:
        n = d.run()
    except Failure as e:
        print("step %d, seed %d: %s" % (len(d.log), args.seed, e))
        print("last steps:\n  " + "\n  ".join(d.log[-15:]))
        return 1
    print("same; %d paths left the export" % n)
    return 0


if __name__ == "__main__":
    sys.exit(main())
