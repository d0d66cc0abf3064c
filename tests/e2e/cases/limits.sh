# SPDX-License-Identifier: BSD-3-Clause
# what: limits: file size (SIGXFSZ, EFBIG), descriptors (EMFILE), large files, long names and paths
# needs: python3
# filter: s/line [0-9]+: +[0-9]+ File/File/
set -u
cd "$D" || exit 1
(ulimit -f 8; head -c 20000 /dev/zero > big; echo "status $?"); stat -c %s big
python3 - <<'EOT'
import errno, os, resource, signal

def attempt(what, f):
    try:
        print(what, f(), flush=True)
    except OSError as e:
        print(what, errno.errorcode[e.errno], flush=True)

signal.signal(signal.SIGXFSZ, lambda *a: print("SIGXFSZ", flush=True))
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, resource.RLIM_INFINITY))
f = os.open("limited", os.O_RDWR | os.O_CREAT)
attempt("write", lambda: os.write(f, b"x" * 9000))
attempt("write over", lambda: os.write(f, b"x" * 9000))
attempt("write at the limit", lambda: os.write(f, b"x"))
attempt("pwrite beyond", lambda: os.pwrite(f, b"x", 20000))
attempt("pwrite below", lambda: os.pwrite(f, b"x", 9999))
attempt("writev", lambda: os.writev(f, [b"x", b"y"]))
attempt("truncate", lambda: os.ftruncate(f, 20000))
attempt("truncate by name", lambda: os.truncate("limited", 20000))
attempt("truncate below", lambda: os.ftruncate(f, 5000))
attempt("fallocate", lambda: os.posix_fallocate(f, 0, 20000))
attempt("append", lambda: os.write(os.open("limited", os.O_WRONLY | os.O_APPEND), b"z" * 9000))
print(os.fstat(f).st_size)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
n, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
got = []
while True:
    try:
        got.append(os.open("limited", os.O_RDONLY))
    except OSError as e:
        print(errno.errorcode[e.errno], max(got), flush=True)
        break
attempt("dup", lambda: os.dup(f))
attempt("creating", lambda: os.open("not made", os.O_WRONLY | os.O_CREAT))
print(os.path.exists("not made"))
for fd in got:
    os.close(fd)
print(os.open("limited", os.O_RDONLY) == got[0])
attempt("dup2 beyond", lambda: os.dup2(f, 40))
attempt("dup2 last", lambda: os.dup2(f, 39))
os.close(39)
resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))
h = os.open("huge", os.O_RDWR | os.O_CREAT)
attempt("far", lambda: (os.pwrite(h, b"end", 5 << 30), os.fstat(h).st_size, os.pread(h, 3, 5 << 30), os.pread(h, 3, 1 << 32)))
attempt("seek", lambda: (os.lseek(h, 1 << 33, 0), os.read(h, 1), os.lseek(h, -3, 2), os.read(h, 5)))
attempt("data", lambda: (os.lseek(h, 0, os.SEEK_DATA), os.lseek(h, 0, os.SEEK_HOLE), os.lseek(h, 5 << 30, os.SEEK_HOLE)))
attempt("too far", lambda: os.pwrite(h, b"x", (1 << 63) - 1))
attempt("truncate too far", lambda: os.ftruncate(h, (1 << 63) - 1))
attempt("truncate", lambda: (os.ftruncate(h, 3 << 30), os.fstat(h).st_size))
os.unlink("huge")
many = [os.open("limited", os.O_RDONLY) for i in range(500)]
print(len(set(many)), all(os.read(fd, 1) == b"x" for fd in many))
many2 = [os.dup(fd) for fd in many[:300]]
print(all(os.read(fd, 1) == b"x" for fd in many2), os.lseek(many[0], 0, 1))
os.closerange(many[0], many2[-1] + 1)
attempt("closed", lambda: os.read(many[10], 1))
name = "n" * 255
os.mkdir(name)
attempt("long name", lambda: sorted(os.listdir()))
attempt("longer name", lambda: os.mkdir(name + "n"))
depth = 0
for i in range(10):
    os.mkdir(name) if i else None
    os.chdir(name)
    depth += 1
attempt("deep", lambda: len(os.getcwd()) > 2500)
open("bottom", "w").write("x")
attempt("deep file", lambda: open("./bottom").read())
for i in range(depth):
    os.chdir("..")
attempt("back", lambda: os.path.exists("limited"))
EOT
(ulimit -n 32; cat limited | wc -c; ls | wc -l; cp limited c; cmp limited c && echo same); rm -rf nnn*; ls
