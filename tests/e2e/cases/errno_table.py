# SPDX-License-Identifier: BSD-3-Clause
"""What case errno.sh runs: raw system calls with bad and borderline arguments; prints result or errno of each."""

import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


def call(name, *args):
    ctypes.set_errno(0)
    r = getattr(libc, name)(*[a.encode() if isinstance(a, str) else a for a in args])
    e = ctypes.get_errno()
    shown = ", ".join("NULL" if a is None else repr(a)[:40] if isinstance(a, (str, int)) else "…" for a in args)
    print("%s(%s) = %s" % (name, shown, errno.errorcode.get(e, e) if r == -1 else "ok" if name.startswith("open") else r))
    return r


buf = ctypes.create_string_buffer(4096)
os.mkdir("dir")
os.mkdir("dir/sub")
open("file", "w").write("content")
os.symlink("file", "link")
os.symlink("nowhere", "dangling")
os.symlink("self", "self")
os.mkfifo("fifo")
fd_r, fd_w, fd_d, fd_p = (os.open("file", os.O_RDONLY), os.open("file", os.O_WRONLY), os.open("dir", os.O_RDONLY),
                          os.open("file", os.O_PATH))
bad = ctypes.c_void_p(8)
names = ["", "file", "dir", "link", "dangling", "self", "missing", "file/", "dir/", "file/x", "missing/x", "dir/.", "dir/..", ".",
         "..", "dir/sub/", "link/", "dangling/", "n" * 255, "n" * 256, "x/" * 2047 + "y", "x/" * 2048 + "y"]
for n in names:
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY | os.O_NOFOLLOW,
                  os.O_PATH | os.O_NOFOLLOW, os.O_TMPFILE | os.O_RDWR, os.O_RDONLY | os.O_CREAT | os.O_DIRECTORY):
        if len(n) == 255 and flags & os.O_CREAT:
            continue
        r = call("open", n, flags, 0o644)
        if r >= 0:
            os.close(r)
            if flags & os.O_EXCL and not flags & os.O_TMPFILE == os.O_TMPFILE and n in ("missing",):
                os.unlink(n)
    for op, args in (("access", (0,)), ("readlink", (buf, 4096)), ("truncate", (7,)), ("chdir", ()), ("rmdir", ()), ("chmod", (0o755,)),
                     ("lchown", (-1, -1)), ("mkdir", (0o755,)), ("unlink", ()), ("symlink2", ()), ("statvfs", (buf,)),
                     ("getxattr", (b"user.none", buf, 10)), ("setxattr", (b"bad", buf, 1, 0)), ("utimes", (None,)), ("mkfifo", (0o600,))):
        if op == "symlink2":
            call("symlink", "target", n)
        elif op in ("rmdir", "unlink") and n in ("file", "link", "dangling", "self", "dir/sub/"):
            continue
        elif op == "chdir" and n in ("dir", "dir/", "dir/.", "dir/sub/", "..", "."):
            continue
        else:
            call(op, n, *args)
    for m in ("", "file", "dir", "missing2", "dir/sub", "file/x", "missing/x", "."):
        if (n, m) not in (("missing", "missing2"),) and m != "missing2":
            call("rename", n, m) if n not in ("file", "dir", "link", "dangling", "self", "file", "dir/sub/") else None
            call("link", n, m)
    for junk in ("missing", "missing/x"):
        if os.path.lexists(junk):
            print("left", junk)
            os.rmdir(junk) if os.path.isdir(junk) and not os.path.islink(junk) else os.unlink(junk)
for n in ("file", "dir", "dir/sub"):
    for m in ("dir", "dir/sub", "dir/sub/x", "file", "link"):
        if (n, m) != ("dir/sub", "dir/sub/x") and not (n == "file" and m == "link") and not (n == "dir" and m == "link"):
            if n == m or (n, m) in (("file", "dir"), ("dir", "file"), ("dir", "dir/sub/x"), ("file", "dir/sub"), ("dir/sub", "dir"), ("dir", "dir/sub")):
                call("rename", n, m)
                call("renameat2", AT_FDCWD, n, AT_FDCWD, m, 1)
                call("renameat2", AT_FDCWD, n, AT_FDCWD, m, 99)
for fd in (fd_r, fd_w, fd_d, fd_p, 999, -1):
    label = {fd_r: "r", fd_w: "w", fd_d: "d", fd_p: "p"}.get(fd, fd)
    print("descriptor", label)

    def f(name, *args, fd=fd):
        ctypes.set_errno(0)
        r = getattr(libc, name)(fd, *args)
        print("  %s = %s" % (name, errno.errorcode[ctypes.get_errno()] if r == -1 else r))

    f("read", buf, 3)
    f("read", buf, 0)
    f("read", bad, 3)
    f("write", b"abc", 3)
    f("write", bad, 3)
    f("pread", buf, 3, ctypes.c_long(0))
    f("pread", buf, 3, ctypes.c_long(-1))
    f("pwrite", b"abc", 3, ctypes.c_long(0))
    f("pwrite", b"abc", 3, ctypes.c_long(-5))
    f("lseek", ctypes.c_long(-1), 0)
    f("lseek", ctypes.c_long(0), 99)
    f("lseek", ctypes.c_long(1 << 62), 0)
    f("lseek", ctypes.c_long(100), 3)
    f("lseek", ctypes.c_long(0), 0)
    f("ftruncate", ctypes.c_long(-1))
    f("ftruncate", ctypes.c_long(7))
    f("fchmod", 0o644)
    f("fsync")
    f("fdatasync")
    f("fchdir") if label != "d" else None
    f("posix_fadvise", ctypes.c_long(0), ctypes.c_long(0), 99)
    f("fallocate", 0, ctypes.c_long(0), ctypes.c_long(0))
    f("fallocate", 0, ctypes.c_long(-1), ctypes.c_long(5))
    f("fallocate", 0x7000, ctypes.c_long(0), ctypes.c_long(5))
    f("flock", 99)
    f("isatty")
    f("fgetxattr", b"user.none", buf, 10)
    f("fgetxattr", b"user." + b"n" * 300, buf, 10)
    f("fsetxattr", b"user.x", b"v", 1, 99)
    f("flistxattr", buf, 0)
    f("fstatvfs", buf)
    f("fcntl", 1)
    f("fcntl", 99)
    f("dup2", -5)
    f("ioctl", 0x5401, buf)
    f("syncfs")
    f("readahead", ctypes.c_long(0), 10)
    f("unlinkat", b"missing", 0)
    f("mkdirat", b"sub", 0o755)
    f("openat", b"sub", 0)  if label != "d" else None
    f("fchownat", b"", -1, -1, 0x1000)
    f("faccessat", b"", 0, 0x1000)
for n in (None, bad):
    for op, args in (("open", (0,)), ("mkdir", (0o755,)), ("unlink", ()), ("rename", ("x",)), ("access", (0,)), ("chdir", ()), ("truncate", (0,))):
        call(op, n, *args)
print(sorted(os.listdir(".")), os.path.getsize("file"))
