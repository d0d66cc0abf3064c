# SPDX-License-Identifier: BSD-3-Clause
# what: sendfile, splice, tee, copy_file_range between files, pipes, sockets and directories; positions, offsets, signals
# needs: python3
set -u
cd "$D" || exit 1
python3 - <<'EOT'
import errno, fcntl, hashlib, os, signal, socket, threading, time
L = os.open("/dev/null", os.O_RDWR)

def attempt(what, f):
    try:
        print(what, f(), flush=True)
    except OSError as e:
        print(what, errno.errorcode[e.errno], flush=True)

def pos(fd):
    return os.lseek(fd, 0, os.SEEK_CUR)

def digest(name):
    return hashlib.sha256(open(name, "rb").read()).hexdigest()[:12]

data = bytes((i * 7 + i // 251) % 256 for i in range(1_000_003))
open("a", "wb").write(data)
rd, wr, both, app, d, path = (os.open("a", os.O_RDONLY), os.open("b", os.O_WRONLY | os.O_CREAT), os.open("c", os.O_RDWR | os.O_CREAT),
                              os.open("app", os.O_WRONLY | os.O_APPEND | os.O_CREAT), os.open(".", os.O_RDONLY), os.open("a", os.O_PATH))
r, w = os.pipe()

# sendfile
attempt("to file", lambda: (os.sendfile(wr, rd, None, 1 << 20), pos(rd), pos(wr), digest("b") == digest("a")))
attempt("at end", lambda: os.sendfile(wr, rd, None, 10))
attempt("offset", lambda: (os.sendfile(both, rd, 1000, 5000), pos(rd), pos(both), digest("c")))
attempt("to pipe", lambda: (os.sendfile(w, rd, 7, 100), os.read(r, 200) == data[7:107], pos(rd)))
os.lseek(rd, 3, 0)
attempt("to pipe at position", lambda: (os.sendfile(w, rd, None, 100), os.read(r, 200) == data[3:103], pos(rd)))
n = os.sendfile(w, rd, 0, 1 << 20)
print("fills the pipe", n == fcntl.fcntl(w, 1032), os.read(r, 1 << 20) == data[:n])
os.set_blocking(w, False)
attempt("nonblocking", lambda: os.sendfile(w, rd, 0, 1 << 20) > 0)
attempt("full", lambda: os.sendfile(w, rd, 0, 1 << 20))
print("still", len(os.read(r, 1 << 20)) > 0)
os.set_blocking(w, True)
attempt("to append", lambda: os.sendfile(app, rd, 0, 10))
attempt("from write-only", lambda: os.sendfile(both, wr, 0, 10))
attempt("to read-only", lambda: os.sendfile(rd, both, 0, 10))
attempt("from directory", lambda: os.sendfile(both, d, 0, 10))
attempt("from path", lambda: os.sendfile(both, path, 0, 10))
attempt("from pipe", lambda: os.sendfile(both, r, None, 10))
attempt("negative", lambda: os.sendfile(both, rd, -5, 10))
attempt("bad", lambda: os.sendfile(999, rd, 0, 10))
attempt("zero", lambda: os.sendfile(both, rd, 0, 0))
attempt("to null", lambda: os.sendfile(L, rd, 0, 1 << 21))
a, b = socket.socketpair()
got = bytearray()

def drain():
    while len(got) < len(data):
        chunk = b.recv(65536)
        if not chunk:
            return
        got.extend(chunk)

t = threading.Thread(target=drain)
t.start()
sent = 0
while sent < len(data):
    sent += os.sendfile(a.fileno(), rd, sent, len(data) - sent)
t.join()
print("to socket", sent, got == data)
b.close()
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
attempt("to closed socket", lambda: os.sendfile(a.fileno(), rd, 0, 100))
with open("/tmp/sc-e2e-splice.%d" % os.getpid(), "w+b") as local:
    os.unlink(local.name)
    l = local.fileno()
    attempt("to local", lambda: (os.sendfile(l, rd, 0, 1 << 21), os.pread(l, 1 << 21, 0) == data, pos(l)))
    os.lseek(l, 100, 0)
    os.ftruncate(both, 0); os.lseek(both, 0, 0)
    attempt("from local", lambda: (os.sendfile(both, l, None, 1 << 21), pos(l), pos(both), digest("c")))
    attempt("from local at", lambda: (os.sendfile(both, l, 999_999, 1 << 21), pos(l), pos(both), digest("c")))

# splice
os.lseek(rd, 0, 0)
attempt("file to pipe", lambda: (os.splice(rd, w, 1000), os.read(r, 2000) == data[:1000], pos(rd)))
attempt("file to pipe at", lambda: (os.splice(rd, w, 1000, offset_src=555), os.read(r, 2000) == data[555:1555], pos(rd)))
os.ftruncate(both, 0); os.lseek(both, 0, 0)
os.write(w, b"0123456789")
attempt("pipe to file", lambda: (os.splice(r, both, 6), pos(both), os.pread(both, 100, 0)))
attempt("pipe to file at", lambda: (os.splice(r, both, 100, offset_dst=2), pos(both), os.pread(both, 100, 0)))
attempt("empty, not waiting", lambda: os.splice(r, both, 100, flags=os.SPLICE_F_NONBLOCK))
attempt("to append", lambda: os.splice(r, app, 100, flags=os.SPLICE_F_NONBLOCK))
attempt("no pipe", lambda: os.splice(rd, both, 100))
attempt("pipe offset", lambda: os.splice(rd, w, 100, offset_dst=5))
attempt("from directory", lambda: os.splice(d, w, 100))
attempt("from path", lambda: os.splice(path, w, 100))
attempt("to read-only", lambda: os.splice(r, rd, 100))
attempt("bad", lambda: os.splice(999, both, 100))
attempt("flags", lambda: os.splice(rd, w, 100, flags=0x100))
attempt("nothing", lambda: os.splice(rd, w, 0))
n = os.splice(rd, w, 1 << 20, offset_src=0)
print("fills the pipe", n == fcntl.fcntl(w, 1032))
attempt("full, not waiting", lambda: os.splice(rd, w, 100, flags=os.SPLICE_F_NONBLOCK))
t = threading.Timer(0.2, lambda: os.read(r, n))
t.start()
attempt("full, waiting", lambda: os.splice(rd, w, 100, offset_src=5) == 100)
t.join()
print(os.read(r, 200) == data[5:105])
t = threading.Timer(0.2, lambda: os.write(w, b"late"))
t.start()
attempt("empty, waiting", lambda: os.splice(r, both, 100, offset_dst=0))
t.join()
r2, w2 = os.pipe()
os.close(w2)
attempt("end of pipe", lambda: os.splice(r2, both, 100))
fired = []
signal.signal(signal.SIGALRM, lambda *a: fired.append(os.write(w, b"from the handler")))
signal.setitimer(signal.ITIMER_REAL, 0.2)
attempt("interrupted", lambda: (os.splice(r, both, 100, offset_dst=0), fired))

class Stop(Exception):
    pass

def stop(*args):
    raise Stop

signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    os.splice(r, both, 100)
except Stop:
    print("stopped")

# copy_file_range
os.ftruncate(both, 0); os.lseek(both, 0, 0); os.lseek(rd, 0, 0)
attempt("copy", lambda: (os.copy_file_range(rd, both, 5000), pos(rd), pos(both), digest("c")))
attempt("copy at", lambda: (os.copy_file_range(rd, both, 5000, 100, 7), pos(rd), pos(both), digest("c")))
attempt("copy beyond", lambda: os.copy_file_range(rd, both, 5000, 2_000_000, 7))
attempt("copy in itself", lambda: (os.copy_file_range(both, both, 100, 0, 4000), digest("c")))
attempt("copy over itself", lambda: os.copy_file_range(both, both, 100, 0, 50))
attempt("copy to append", lambda: os.copy_file_range(rd, app, 100, 0))
attempt("copy to read-only", lambda: os.copy_file_range(both, rd, 100, 0))
attempt("copy from directory", lambda: os.copy_file_range(d, both, 100))
attempt("copy from pipe", lambda: os.copy_file_range(r, both, 100))
attempt("copy from path", lambda: os.copy_file_range(path, both, 100))
attempt("copy from bad", lambda: os.copy_file_range(999, both, 100))
attempt("copy nothing", lambda: os.copy_file_range(rd, both, 0))
EOT
