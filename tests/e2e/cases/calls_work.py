# SPDX-License-Identifier: BSD-3-Clause
"""What case calls.sh runs: calls that programs seldom make, with their results and errors."""

import array
import ctypes
import errno
import fcntl
import os
import resource
import stat
import struct

libc = ctypes.CDLL(None, use_errno=True)
CWD, NOFOLLOW, EMPTY = -100, 0x100, 0x1000
BAD = ctypes.c_void_p(8)


def sys(nr, *args):
    """A raw system call: its result, or the name of its error."""
    ctypes.set_errno(0)
    r = libc.syscall(nr, *[a.encode() if isinstance(a, str) else ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return errno.errorcode[ctypes.get_errno()] if r == -1 else r


def attempt(what, f):
    try:
        print(what, f(), flush=True)
    except OSError as e:
        print(what, errno.errorcode[e.errno], flush=True)


os.mkdir("d")
open("f", "w").write("content")
os.symlink("f", "l")
rd, wr, rw, dfd, path = (os.open("f", os.O_RDONLY), os.open("f", os.O_WRONLY | os.O_APPEND), os.open("f", os.O_RDWR | os.O_NONBLOCK),
                         os.open("d", os.O_RDONLY), os.open("f", os.O_PATH))
fds = {"rd": rd, "wr": wr, "rw": rw, "d": dfd, "path": path}

print("== fcntl")
for name, fd in fds.items():
    attempt(name + " flags", lambda: oct(fcntl.fcntl(fd, fcntl.F_GETFL)))
    attempt(name + " fd", lambda: fcntl.fcntl(fd, fcntl.F_GETFD))
    for cmd in (1032, 1031, 1034, 1033, 8, 9, 10, 11, 12345):
        attempt("%s command %d" % (name, cmd), lambda: fcntl.fcntl(fd, cmd, 0))
    attempt(name + " lease", lambda: fcntl.fcntl(fd, fcntl.F_GETLEASE))
    for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK, 9):
        for cmd in (fcntl.F_GETLK, fcntl.F_SETLK, 36, 37):
            if (kind, cmd) == (fcntl.F_UNLCK, 36):
                continue  # says what it does only since Linux 6.4
            for whence, start, length, pid in ((0, 0, 0, 0), (1, 2, -1, 0), (2, -3, 2, 0), (0, -1, 1, 0), (7, 0, 0, 0), (0, 0, 0, 5),
                                               (0, 1, 2**63 - 1, 0), (0, 0, -1, 0)):
                attempt("%s lock %d %d %s" % (name, kind, cmd, (whence, start, length, pid)), lambda: [
                    "me" if x == os.getpid() else x for x in struct.unpack("hhqqi4x", fcntl.fcntl(
                        fd, cmd, struct.pack("hhqqi4x", kind, whence, start, length, pid)))])
    attempt(name + " dup", lambda: fcntl.fcntl(fd, fcntl.F_DUPFD, 100) >= 100)
    attempt(name + " dup too far", lambda: fcntl.fcntl(fd, fcntl.F_DUPFD, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    attempt(name + " setfl", lambda: (fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND | os.O_NOATIME), oct(
        fcntl.fcntl(fd, fcntl.F_GETFL)), fcntl.fcntl(fd, fcntl.F_SETFL, 0), oct(fcntl.fcntl(fd, fcntl.F_GETFL))))
    print(name, "query", sys(72, fd, 1027, fd), sys(72, fd, 1027, 0), sys(72, fd, 1027, 999), sys(72, fd, 1027, os.dup(fd)))
for hint in (3, 30):
    attempt("set hint", lambda: fcntl.fcntl(rd, 1036, struct.pack("Q", hint)))
    attempt("hint", lambda: fcntl.fcntl(rd, 1035, b"\xff" * 8))  # of the file natively, of the open file for us
print(sys(72, path, 1035, BAD), sys(72, rd, fcntl.F_GETLK, BAD), sys(72, rd, fcntl.F_SETLK, BAD), sys(72, rd, 1035, BAD))

print("== flags at work")
x = os.open("app", os.O_RDWR | os.O_CREAT)
os.write(x, b"12345")
os.lseek(x, 0, 0)
fcntl.fcntl(x, fcntl.F_SETFL, os.O_APPEND)
os.write(x, b"67")
print(open("app").read(), oct(fcntl.fcntl(x, fcntl.F_GETFL)))
pid = os.fork()
if pid == 0:
    fcntl.fcntl(x, fcntl.F_SETFL, 0)
    os._exit(0)
os.waitpid(pid, 0)
print(oct(fcntl.fcntl(x, fcntl.F_GETFL)))
os.lseek(x, 0, 0)
os.write(x, b"AB")
print(open("app").read())

print("== ioctl")
for name, fd in fds.items():
    for what, cmd in (("FIONREAD", 0x541B), ("FIONBIO", 0x5421), ("FIOQSIZE", 0x5460), ("FIGETBSZ", 2), ("TCGETS", 0x5401),
                      ("TIOCGWINSZ", 0x5413), ("SIOCGIFCONF", 0x8912), ("nothing", 0x12345678), ("FIOASYNC", 0x5452)):
        buf = array.array("b", b"\0" * 64)
        attempt("%s %s" % (name, what), lambda: (fcntl.ioctl(fd, cmd, buf),) + ((buf[:8].tolist(),) if what != "FIOQSIZE" else ()))
    attempt(name + " cloexec", lambda: (sys(16, fd, 0x5451, 0), fcntl.fcntl(fd, 1), sys(16, fd, 0x5450, 0), fcntl.fcntl(fd, 1)))
    print(name, sys(16, fd, 0x541B, BAD), sys(16, fd, 0x80086601, BAD), sys(16, fd, 0x5421, BAD), os.isatty(fd))
os.lseek(rd, 3, 0)
buf = array.array("i", [0])
fcntl.ioctl(rd, 0x541B, buf)
print("left", buf[0])
attempt("clone", lambda: fcntl.ioctl(rw, 0x40049409, rd))
attempt("clone bad", lambda: fcntl.ioctl(rw, 0x40049409, 999))

print("== times")


def times(name="f"):
    s = os.stat(name, follow_symlinks=False)
    return s.st_atime_ns, s.st_mtime_ns


NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
ts = lambda a, b, c, d: struct.pack("qqqq", a, b, c, d)
print(sys(132, "f", struct.pack("qq", 11, 12)), times())
print(sys(235, "f", struct.pack("qqqq", 21, 22, 23, 24)), times())
print(sys(235, "f", struct.pack("qqqq", 21, 1000000, 23, 24)), sys(235, "f", BAD), sys(132, "f", BAD))
print(sys(261, CWD, "f", struct.pack("qqqq", 31, 32, 33, 34)), times())
print(sys(261, rd, None, struct.pack("qqqq", 41, 42, 43, 44)), times(), sys(261, CWD, None, None))
print(sys(280, CWD, "f", ts(51, 52, 53, 54), 0), times())
print(sys(280, CWD, "f", ts(61, OMIT, 63, 64), 0), times(), sys(280, CWD, "f", ts(0, OMIT, 0, OMIT), 0), times())
print(sys(280, CWD, "nothing", ts(0, OMIT, 0, OMIT), 0), sys(280, CWD, "nothing", ts(0, 0, 0, 0), 0))
print(sys(280, CWD, "f", ts(0, NOW, 71, 72), 0), times()[0] > 10**18, times()[1])
print(sys(280, CWD, "f", ts(0, 10**9, 71, 72), 0), sys(280, CWD, "f", ts(0, -1, 71, 72), 0), sys(280, CWD, "f", ts(0, 0, 0, 0), 8))
print(sys(280, rd, None, ts(81, 82, 83, 84), 0), times(), sys(280, rd, None, ts(81, 82, 83, 84), NOFOLLOW), sys(280, path, None, None, 0))
print(sys(280, CWD, "l", ts(91, 92, 93, 94), NOFOLLOW), times("l"), times())
print(sys(280, rd, "", ts(1, 2, 3, 4), EMPTY), times(), sys(280, path, "", ts(5, 6, 7, 8), EMPTY), times())
print(sys(280, CWD, BAD, None, 0), sys(280, 999, "f", None, 0), sys(280, rd, "f", None, 0), sys(280, 999, None, None, 0))
print(sys(280, CWD, "f", ts(-5, 6, 2**33, 8), 0), times())

print("== modes and owners")
mode = lambda n: oct(os.lstat(n).st_mode)
print(sys(90, "f", 0o100640), mode("f"), sys(268, CWD, "l", 0o600), mode("f"), mode("l"), sys(91, rd, 0o604), mode("f"))
print(sys(91, path, 0o600), sys(452, CWD, "f", 0o640, 99), sys(268, dfd, "f", 0o600), sys(268, rd, "f", 0o600))
print(sys(452, path, "", 0o640, EMPTY), mode("f"), sys(452, CWD, "l", 0o640, NOFOLLOW), mode("l"))
own = lambda n: (os.lstat(n).st_uid, os.lstat(n).st_gid)
print(sys(92, "f", 3, 4), own("f"), sys(94, "l", 5, 6), own("l"), own("f"), sys(93, rd, 7, -1), own("f"), sys(93, rd, -1, 8), own("f"))
print(sys(260, CWD, "l", 9, 10, NOFOLLOW), own("l"), sys(260, path, "", 11, 12, EMPTY), own("f"), sys(260, CWD, "f", 0, 0, 0x200))
print(sys(93, path, 0, 0), sys(93, 999, 0, 0), sys(260, 999, "", 0, 0, EMPTY), sys(260, CWD, "f", 0, 0, 0), own("f"))

print("== rename and link")
for n in ("r1", "r2"):
    open(n, "w").write(n)
ren = lambda a, b, flags: sys(316, CWD, a, CWD, b, flags)
print(ren("r1", "r2", 1), ren("r1", "r3", 1), ren("r3", "r2", 2), open("r2").read(), ren("r3", "none", 2), ren("r3", "r2", 3))
print(ren("r3", "d", 2), stat.S_ISDIR(os.stat("r3").st_mode), ren("r3", "d", 2), ren("r3", "d/r3", 0), sorted(os.listdir("d")))
print(ren("d/r3", "wh", 4), stat.S_ISCHR(os.lstat("d/r3").st_mode), os.lstat("d/r3").st_rdev, ren("wh", "r2", 5), ren("wh", "r2", 8))
os.unlink("d/r3") if os.path.lexists("d/r3") else None
print(ren("d", "d/x", 0), ren("f", "f", 0), ren("f", "l", 2), os.path.islink("f"), ren("f", "l", 2), ren("d/.", "e", 0), ren("f", "g/", 0))
print(sys(264, dfd, "none", CWD, "x"), sys(264, 999, "none", CWD, "x"), sys(264, rd, "f", CWD, "x"), sys(264, rd, "/nonexistent/f", CWD, "x"))
print(sys(265, CWD, "l", CWD, "l2", 0), os.path.islink("l2"), sys(265, CWD, "l", CWD, "l3", 0x400), os.path.islink("l3"))
print(sys(265, CWD, "d", CWD, "d2", 0), sys(265, CWD, "f", CWD, "f", 0), sys(265, CWD, "f", CWD, "n/n", 0), sys(265, CWD, "f", dfd, "hard", 0))
print(sys(263, dfd, "hard", 0), sys(263, CWD, "d", 0), sys(263, CWD, "f", 0x200), sys(263, CWD, "f", 1), sys(263, CWD, "none", 0x200))
print(sys(266, "", CWD, "s"), sys(266, "x" * 4095, CWD, "s"), sys(266, "x" * 4096, CWD, "s"), sys(266, BAD, CWD, "s"), sys(266, "y", dfd, "s"))
print(os.readlink("d/s"), sys(88, "y", "d/s"), sys(88, "y", "d/"), sys(88, "y", ""), sys(88, "y", "none/s"))
for m in (0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFLNK, 0o30000):
    print(oct(m), sys(259, CWD, "node", m | 0o666, 0x103), mode("node") if os.path.lexists("node") else "")
    if os.path.lexists("node"):
        os.unlink("node")
print(sys(83, "d/new", 0o7777), mode("d/new"), sys(84, "d/new"), sys(83, "d", 0o700), sys(83, "", 0o700), sys(258, dfd, "n/", 0o700), sys(84, "d/n/."))
os.umask(0)
print(sys(83, "m1", 0o7777), mode("m1"), sys(133, "m2", 0o7777, 0), mode("m2"))
os.umask(0o77)
print(sys(83, "m3", 0o777), mode("m3"), sys(133, "m4", 0o666, 0), mode("m4"), os.close(os.open("m5", os.O_CREAT, 0o666)), mode("m5"))

print("== lengths")
print(sys(76, "f", -1), sys(76, "d", 5), sys(76, "none", 5), sys(76, "none", -5), sys(76, "", 5), sys(77, rd, 5), sys(77, dfd, 5), sys(77, path, 5))
print(sys(77, rw, -5), sys(77, rw, 1 << 62), sys(76, "f", 9), os.stat("f").st_size, sys(76, "l", 12), os.stat("f").st_size)
print([sys(285, fd, m, 0, 5) for fd in (rd, rw, dfd, path) for m in (0, 1, 2, 3, 0x40)], os.stat("f").st_size)
print([sys(285, rw, 0, a, b) for a, b in ((0, 0), (-1, 1), (1, -1), (1 << 62, 1 << 62), (2**63 - 1, 5))])
print([sys(221, fd, 0, 0, a) for fd in (rd, wr, dfd, path) for a in range(8)], sys(221, rd, 0, -1, 0))
print([sys(187, fd, 0, 10) for fd in (rd, wr, dfd, path)])
print([sys(nr, fd) for nr in (74, 75, 306) for fd in (rd, wr, dfd, path, 999)])
print([sys(277, fd, 0, 5, a) for fd in (rd, wr, dfd, path) for a in (0, 2, 8)], sys(277, rd, -1, 5, 2), sys(162))

print("== directories")
os.mkdir("list")
for i in range(40):
    open("list/n%03d" % i, "w").close()
lfd = os.open("list", os.O_RDONLY)
for size in (0, 10, 23, 24, 31, 32, 40, 64, 200, 279, 280, 300, 1000, 4096):
    os.lseek(lfd, 0, 0)
    b, total, names, calls = ctypes.create_string_buffer(max(size, 1)), 0, [], 0
    while True:
        r = sys(217, lfd, b, size)
        if isinstance(r, str) or r == 0:
            break
        calls, at = calls + 1, 0
        while at < r:
            ino, off, reclen, kind = struct.unpack_from("=QqHB", b.raw, at)
            names.append(b.raw[at + 19:b.raw.index(b"\0", at + 19)].decode())
            at += reclen
        total += r
    print(size, r, total, len(set(names)), len(names), names and sorted(names)[-1])
for size in (20, 24, 100, 4096):
    os.lseek(lfd, 0, 0)
    b = ctypes.create_string_buffer(size)
    total = 0
    while True:
        r = sys(78, lfd, b, size)
        if isinstance(r, str) or r == 0:
            break
        total += r
    print("old", size, r, total)
os.lseek(lfd, 0, 0)
print(sys(217, rd, b, 100), sys(217, path, b, 100), sys(217, 999, b, 100), sys(217, lfd, BAD, 4096))
gone = os.open("d/n", os.O_RDONLY) if os.path.isdir("d/n") else None
if gone is not None:
    os.rmdir("d/n")
    print(sys(217, gone, b, 100), sys(258, gone, "x", 0o700), sys(5, gone, ctypes.create_string_buffer(144)))
os.lseek(lfd, 0, 0)
first = os.listdir(lfd)
os.unlink("list/n005")
open("list/new", "w").close()
print(sorted(set(os.listdir(lfd)) ^ set(first)))

print("== extended attributes")
get = lambda fd, n, size: sys(193, fd, n, ctypes.create_string_buffer(max(size, 1)), size)
print(sys(190, rd, "user.a", b"12345", 5, 0), get(rd, "user.a", 0), get(rd, "user.a", 4), get(rd, "user.a", 5), get(rd, "user.a", 70000))
print(sys(190, rd, "user.a", b"1", 1, 1), sys(190, rd, "user.b", b"1", 1, 2), sys(190, rd, "user.a", b"1", 1, 2), sys(190, rd, "user.a", b"1", 1, 4))
print(sys(190, rd, "user." + "n" * 250, b"1", 1, 0), sys(190, rd, "user." + "n" * 251, b"1", 1, 0), sys(190, rd, "", b"1", 1, 0), sys(190, rd, "user.", b"1", 1, 0))
print(sys(190, rd, "user.big", b"x" * 65536, 65536, 0), sys(190, rd, "user.big", b"x" * 65537, 65537, 0), sys(190, rd, "user.e", None, 0, 0))
print(sys(190, rd, "user.c", BAD, 5, 0), sys(193, rd, "user.a", BAD, 5), sys(190, rd, BAD, b"1", 1, 0), sys(190, path, "user.c", b"1", 1, 0))
print(sys(188, "l", "user.v", b"v", 1, 0), sys(189, "l", "user.v", b"v", 1, 0), sys(191, "l", "user.v", None, 0), sys(192, "l", "user.v", None, 0))
print(sys(196, rd, None, 0) > 0, sys(196, rd, ctypes.create_string_buffer(5), 5), sys(194, "none", None, 0), sys(196, path, None, 0), sys(195, "l", None, 0))
print(sys(199, rd, "user.v"), sys(199, rd, "user.v"), sys(197, "f", "user.none"), sys(198, "l", "user.none"), sys(199, path, "user.a"), sorted(os.listxattr("f"))[:2])

print("== file systems, sockets")
print(type(sys(137, "f", ctypes.create_string_buffer(120))), sys(137, "none", b"\0" * 120), sys(137, "f", BAD), sys(138, path, ctypes.create_string_buffer(120)))
b = ctypes.create_string_buffer(64)
print([sys(nr, fd, b, 16, 0, 0, 0) for nr in (41 + 1, 49, 50, 43, 288, 51, 52, 54, 55, 48, 45, 47) for fd in (rd, path)])
print(sys(44, rd, b, 5, 0, None, 0), sys(46, rd, b, 0))
