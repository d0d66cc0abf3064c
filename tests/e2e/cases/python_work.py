# SPDX-License-Identifier: BSD-3-Clause
"""What case python.sh runs: the standard library's file work; prints only what must be the same everywhere."""

import errno
import fcntl
import filecmp
import glob
import hashlib
import io
import mmap
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile

top = pathlib.Path.cwd()


def tree(p):
    return sorted(str(q.relative_to(p)) for q in p.rglob("*"))


def attempt(what, f):
    try:
        print(what, f())
    except OSError as e:
        print(what, errno.errorcode[e.errno])


(top / "t/u/v").mkdir(parents=True)
for i in range(50):
    (top / "t/u" / ("f%02d" % i)).write_text("text %d\n" % i * i)
shutil.copytree("t", "t2", symlinks=True)
print(tree(top / "t2"), filecmp.dircmp("t", "t2").diff_files)
shutil.move("t2/u", "moved")
shutil.rmtree("t2")
print(sorted(os.listdir()), len(glob.glob("moved/f4*")), [e.name for e in sorted(os.scandir("t"), key=lambda e: e.name)])
with zipfile.ZipFile("z.zip", "w", zipfile.ZIP_DEFLATED) as z:
    for p in sorted(glob.glob("moved/*")):
        z.write(p)
with zipfile.ZipFile("z.zip") as z:
    print(z.testzip(), len(z.namelist()))
    z.extractall("unz")
os.remove("z.zip")
with tarfile.open("x.tar.gz", "w:gz") as t:
    t.add("moved")
with tarfile.open("x.tar.gz") as t:
    t.extractall("untar")
os.remove("x.tar.gz")
print(tree(top / "untar") == tree(top / "unz"))
with tempfile.TemporaryDirectory(dir=".") as d, tempfile.TemporaryFile(dir=d) as f, \
        tempfile.NamedTemporaryFile(dir=d) as n:
    f.write(b"x" * 100000)
    f.seek(50)
    print(len(f.read()), os.path.exists(n.name), os.fstat(f.fileno()).st_nlink)
with open("rw", "w+b", buffering=0) as f:
    print(f.write(b"0123456789"), f.seek(3), f.read(2), f.truncate(6), f.seek(0, 2), os.pread(f.fileno(), 3, 1))
    print(os.pwrite(f.fileno(), b"AB", 2), os.preadv(f.fileno(), [bytearray(2), bytearray(9)], 0),
          os.writev(f.fileno(), [b"cd", b"", b"ef"]))
    m = bytearray(4)
    print(os.preadv(f.fileno(), [m], 4), bytes(m), fcntl.fcntl(f, fcntl.F_GETFL) & os.O_ACCMODE)
    dup = os.dup(f.fileno())
    os.lseek(dup, 1, os.SEEK_SET)
    print(f.read(3), os.get_inheritable(dup))
    os.close(dup)
with open("moved/f49", "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mm:
    print(len(mm), hashlib.sha256(mm).hexdigest()[:16], mm.find(b"49"))
st = os.stat("rw")
print(stat.filemode(st.st_mode), st.st_size, st.st_nlink, os.path.samefile("rw", "./rw"), os.stat("moved").st_dev == st.st_dev)
os.utime("rw", ns=(10**18 + 123456789, 10**18 + 987654321))
print(os.stat("rw").st_mtime_ns, os.stat("rw").st_atime_ns)
os.chmod("rw", 0o640)
os.link("rw", "rw2")
os.symlink("rw", "ln")
print(os.readlink("ln"), os.lstat("ln").st_size, os.stat("ln").st_nlink, oct(os.stat("rw2").st_mode))
os.replace("rw2", "rw3")
os.rename("rw3", "rw")
print(sorted(os.listdir()))
attempt("rmdir", lambda: os.rmdir("moved"))
attempt("open dir", lambda: os.open("moved", os.O_WRONLY))
attempt("excl", lambda: os.open("rw", os.O_CREAT | os.O_EXCL))
attempt("notdir", lambda: os.stat("rw/x"))
attempt("nolink", lambda: os.readlink("rw"))
attempt("long", lambda: os.stat("n" * 300))
attempt("longpath", lambda: os.stat("n/" * 3000))
attempt("seek", lambda: os.lseek(os.open("rw", os.O_RDONLY), -1, os.SEEK_SET))
attempt("read wronly", lambda: os.read(os.open("rw", os.O_WRONLY), 1))
attempt("write rdonly", lambda: os.write(os.open("rw", os.O_RDONLY), b"x"))
attempt("isatty", lambda: os.isatty(os.open("rw", os.O_RDONLY)))
attempt("setxattr", lambda: os.setxattr("rw", "user.a", b"value"))
attempt("getxattr", lambda: (os.getxattr("rw", "user.a"), os.listxattr("rw")))
attempt("noxattr", lambda: os.getxattr("rw", "user.b"))
attempt("statvfs", lambda: os.statvfs("rw").f_bsize)
attempt("copy_file_range", lambda: os.copy_file_range(os.open("moved/f20", os.O_RDONLY),
                                                      os.open("cfr", os.O_CREAT | os.O_WRONLY), 100))


def copied():
    r, w = os.pipe()
    n = os.sendfile(w, os.open("moved/f40", os.O_RDONLY), 0, 100)
    return n, os.read(r, 100)


attempt("sendfile", copied)
with open("lock", "w") as f:
    fcntl.flock(f, fcntl.LOCK_EX)
    code = "import fcntl,sys\nf=open('lock','r+')\ntry:\n fcntl.flock(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\n print('got')\n" \
           "except BlockingIOError:\n print('busy')\n"
    print(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout)
    fcntl.flock(f, fcntl.LOCK_UN)
    print(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout)
    fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
    code = code.replace("flock(f,fcntl.LOCK_EX|fcntl.LOCK_NB)", "lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,%s)")
    for region in ("3,0", "3,14", "0,20", "5,0"):
        print(region, subprocess.run([sys.executable, "-c", code % region], stdout=subprocess.PIPE, text=True,
                                     check=True).stdout.strip())
with open("sub", "w") as f:
    subprocess.run(["echo", "to a remote file"], stdout=f, check=True)
    f.flush()
    subprocess.run(["sh", "-c", "echo appended"], stdout=f, check=True)
print(open("sub").read(), subprocess.run(["cat"], stdin=open("sub"), stdout=subprocess.PIPE, check=True).stdout)
results = [None] * 8


def thread(i):
    with open("thread%d" % i, "w+") as f:
        for j in range(300):
            f.write("%d %d\n" % (i, j))
        f.seek(0)
        results[i] = sum(int(line.split()[1]) for line in f)


threads = [threading.Thread(target=thread, args=(i,)) for i in range(8)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(results)
pid = os.fork()
if pid == 0:
    with open("child", "w") as f:
        f.write("from the child\n")
    os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), open("child").read())
buf = io.open("text", "w", encoding="utf-16")
buf.write("áéí\n" * 1000)
buf.close()
print(os.path.getsize("text"), len(open("text", encoding="utf-16").read()))
