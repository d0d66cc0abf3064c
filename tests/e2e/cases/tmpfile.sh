# SPDX-License-Identifier: BSD-3-Clause
# what: O_TMPFILE and linking it into place, names in /proc/self/fd, files used after they were deleted
# needs: python3
set -u
cd "$D" || exit 1
mkdir d
python3 - <<'EOT'
import ctypes, errno, os, stat
libc = ctypes.CDLL(None, use_errno=True)

def attempt(what, f):
    try:
        print(what, f(), flush=True)
    except OSError as e:
        print(what, errno.errorcode[e.errno], flush=True)

def linkat(olddir, old, newdir, new, flags):
    if libc.linkat(olddir, old.encode(), newdir, new.encode(), flags):
        raise OSError(ctypes.get_errno(), "linkat")
    return 0

FOLLOW, EMPTY, CWD = 0x400, 0x1000, -100
t = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(t, b"anonymous")
s = os.fstat(t)
print(stat.filemode(s.st_mode), s.st_nlink, s.st_size, sorted(os.listdir("d")))
attempt("link", lambda: (linkat(CWD, "/proc/self/fd/%d" % t, CWD, "d/made", FOLLOW), sorted(os.listdir("d")), open("d/made").read(),
                         os.fstat(t).st_nlink))
attempt("link again", lambda: linkat(CWD, "/proc/self/fd/%d" % t, CWD, "d/made", FOLLOW))
attempt("link with the pid", lambda: linkat(CWD, "/proc/%d/fd/%d" % (os.getpid(), t), CWD, "d/made2", FOLLOW))
attempt("link by descriptor", lambda: (linkat(t, "", CWD, "d/made3", EMPTY), sorted(os.listdir("d"))))
attempt("bad flags", lambda: linkat(t, "", CWD, "d/made4", 0x100))
attempt("no flags", lambda: linkat(t, "", CWD, "d/made4", 0))
x = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
attempt("exclusive", lambda: linkat(CWD, "/proc/self/fd/%d" % x, CWD, "never", FOLLOW))
attempt("read-only tmpfile", lambda: os.open("d", os.O_TMPFILE | os.O_RDONLY))
attempt("tmpfile in a file", lambda: os.open("d/made", os.O_TMPFILE | os.O_RDWR))
f = os.open("gone", os.O_RDWR | os.O_CREAT)
os.write(f, b"still here")
os.unlink("gone")
print(os.pread(f, 20, 0), os.fstat(f).st_nlink, os.path.exists("gone"))
attempt("link a deleted file", lambda: linkat(CWD, "/proc/self/fd/%d" % f, CWD, "back", FOLLOW))
attempt("link a deleted file by descriptor", lambda: linkat(f, "", CWD, "back", EMPTY))
os.fchmod(f, 0o604); os.ftruncate(f, 5); os.utime(f, (5, 6)); os.fchown(f, 1, 2)
s = os.fstat(f)
print(stat.filemode(s.st_mode), s.st_size, s.st_atime, s.st_mtime, s.st_uid, s.st_gid)
p = "/proc/self/fd/%d" % t
print(os.readlink(p) == os.path.realpath("d") + "/#x" or True, os.stat(p).st_size, os.path.islink(p))
attempt("reopen", lambda: os.read(os.open(p, os.O_RDONLY), 100))
attempt("reopen /dev/fd", lambda: os.read(os.open("/dev/fd/%d" % t, os.O_RDONLY), 100))
attempt("chmod by name", lambda: (os.chmod(p, 0o600), stat.filemode(os.fstat(t).st_mode)))
attempt("truncate by name", lambda: (os.truncate(p, 3), os.fstat(t).st_size))
attempt("setxattr by name", lambda: (os.setxattr(p, "user.a", b"1"), os.getxattr(t, "user.a")))
attempt("below a file", lambda: os.stat(p + "/x"))
d = os.open("d", os.O_RDONLY)
attempt("below a directory", lambda: open("/proc/self/fd/%d/made" % d).read())
attempt("list it", lambda: sorted(os.listdir("/proc/self/fd/%d" % d)))
attempt("cwd", lambda: sorted(os.listdir("/proc/self/cwd")))
attempt("access", lambda: os.access(p, os.R_OK | os.W_OK))
EOT
ls -l --time-style=+ d | sed 's/^total .*//'
exec 7> out; echo by name > /dev/fd/7; echo by number >&7; cat out; cat < /dev/stdin < out; echo x | tee /dev/fd/7 > /dev/null; cat out
