# SPDX-License-Identifier: BSD-3-Clause
# what: descriptors sent over Unix sockets: positions shared, last close, directories, many at once, sent on, inherited ones, recvmmsg
# needs: python3
set -u
cd "$D" || exit 1
cat > work.py <<'EOT'
import array, ctypes, fcntl, os, signal, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)

def child(work):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work() or 0
        except BaseException as e:
            print("child", repr(e), flush=True)
        finally:
            sys.stdout.flush()
            os._exit(status)
    return pid

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def recv(sock, size, n, flags=0):
    """As recv(), which ignores flags."""
    msg, anc, *_ = sock.recvmsg(size, socket.CMSG_LEN(4 * n), flags)
    return msg, [fd for _, _, data in anc for fd in array.array("i", data)]

a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s, r = socket.socketpair()
with open("f", "w") as f:
    f.write("0123456789" * 10)

def other():
    """Another process, which opened nothing itself: answers what it can do with what it gets."""
    a.close()
    while True:
        msg, fds = recv(b, 100, 50)
        if msg == b"end":
            return 5
        out = []
        for fd in fds:
            try:
                out.append("%r@%d" % (os.read(fd, 3), os.lseek(fd, 0, 1)))
            except OSError as e:
                out.append("%s" % e.strerror)
        if msg == b"write":
            out.append(os.write(fds[0], b"WRITTEN"))
        if msg == b"back":
            print("other", msg, out, flush=True)
            socket.send_fds(b, [b"here"], fds[:1])
        elif msg == b"keep":
            kept = fds.pop()
            out.append(os.path.basename(os.readlink("/proc/self/fd/%d" % kept)))
        elif msg == b"dir":
            out = [sorted(os.listdir(fds[0])), os.stat("f", dir_fd=fds[0]).st_size, os.path.basename(os.readlink("/proc/self/fd/%d" % fds[0]))]
            os.fchdir(fds[0])
            out.append(open("f").read(4))
        elif msg == b"lock":
            g = os.open("f", os.O_RDWR)
            try:
                fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
                out = ["another opening could be locked"]
            except OSError:
                out = ["busy"]
            fcntl.flock(fds[0], fcntl.LOCK_UN)
            fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
            out.append("unlocked through the one that was sent")
            os.close(g)
        for fd in fds:
            os.close(fd)
        if msg != b"back":
            print("other", msg, out, flush=True)
        b.send(b"done")

pid = child(other)
b.close()

def ask(what, fds, close=False):
    socket.send_fds(a, [what], fds)
    if close:
        for fd in fds:
            os.close(fd)
    got = recv(a, 100, 5)
    if what == b"back":
        print("back", got[0], [os.pread(fd, 3, 6) for fd in got[1]])
        for fd in got[1]:
            os.close(fd)
        a.recv(10)

f = os.open("f", os.O_RDWR)
ask(b"read", [f])
print("position", os.lseek(f, 0, 1))
ask(b"read", [f, f, os.dup(f)])
ask(b"write", [f])
print(os.pread(f, 30, 0))
ask(b"back", [f])
ask(b"dir", [os.open(".", os.O_RDONLY)])
ask(b"path", [os.open("f", os.O_PATH)], True)
fcntl.flock(f, fcntl.LOCK_EX)
ask(b"lock", [f])
ask(b"keep", [os.open("f", os.O_RDONLY)], True)
ask(b"many", [os.open("f", os.O_RDONLY) for _ in range(40)], True)
ask(b"mixed", [0, os.open("f", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)])
ask(b"unlinked", [os.open("gone", os.O_RDWR | os.O_CREAT)], False)
os.unlink("gone")
print("inherited", wait(child(lambda: ask(b"inherited", [f]) or 6)))
print("exec", subprocess.run([sys.executable, "-c", "import socket, sys\na = socket.socket(fileno=%d)\nsocket.send_fds(a, [b'executed'], [%d])\na.recv(10)" % (a.fileno(), f)], pass_fds=[a.fileno(), f]).returncode)
a.send(b"end")
print("ended", wait(pid))

# in flight while nobody else has it open
g = os.open("f", os.O_RDWR)
os.lseek(g, 20, 0)
fcntl.flock(g, fcntl.LOCK_EX)
socket.send_fds(s, [b"x"], [g])
os.close(g)
h = os.open("f", os.O_RDWR)
try:
    fcntl.flock(h, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("the lock went")
except OSError:
    print("still locked")
peek = recv(r, 1, 1, socket.MSG_PEEK)
got = recv(r, 1, 1)
print(peek[0], got[0], os.read(got[1][0], 3), os.read(peek[1][0], 3), got[1][0] != peek[1][0])
os.close(got[1][0])
os.close(peek[1][0])
fcntl.flock(h, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("unlocked by the last close")
# a message that nobody takes
socket.send_fds(s, [b"y"], [h])
os.close(h)
s.close()
r.close()
h = os.open("f", os.O_RDWR)
for _ in range(200):
    try:
        fcntl.flock(h, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except OSError:
        signal.sigtimedwait([], 0.05)
else:
    print("the lock of the lost message stays")
# close-on-exec as asked, and no room
s, r = socket.socketpair()
for flags in (0, socket.MSG_CMSG_CLOEXEC):
    socket.send_fds(s, [b"z"], [h])
    fd = recv(r, 1, 1, flags)[1][0]
    print("cloexec", fcntl.fcntl(fd, fcntl.F_GETFD), os.pread(fd, 2, 4), fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
    os.close(fd)
socket.send_fds(s, [b"z"], [h, h, h])
msg, anc, flags, _ = r.recvmsg(1, socket.CMSG_LEN(4))
print("truncated", len(anc[0][2]), bool(flags & socket.MSG_CTRUNC), os.pread(array.array("i", anc[0][2])[0], 2, 0))
# several messages in one call
class Iov(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
class Msg(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(Iov)), ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int), ("len", ctypes.c_uint), ("pad", ctypes.c_uint)]
s, r = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
def messages(data, rights):
    keep, v = [], (Msg * 3)()
    for i in range(3):
        d, c = ctypes.create_string_buffer(data[i], 8), ctypes.create_string_buffer(rights[i], 64)
        iov = Iov(ctypes.addressof(d), 8)
        keep += [d, c, iov]
        v[i] = Msg(None, 0, ctypes.pointer(iov), 1, ctypes.addressof(c) if rights[i] is not None else None, len(rights[i] or b""), 0, 0, 0)
    return v, keep
right = lambda fd: (20).to_bytes(8, "little") + (1).to_bytes(4, "little") * 2 + fd.to_bytes(4, "little") + bytes(4)
v, k1 = messages([b"m0", b"m1", b"m2"], [right(h), b"", right(f)])
print("sendmmsg", libc.sendmmsg(s.fileno(), v, 3, 0))
v, k2 = messages([b""] * 3, [bytes(24)] * 3)
print("recvmmsg", libc.recvmmsg(r.fileno(), v, 3, 0, None), [m.controllen for m in v])
for i in (0, 2):
    fd = int.from_bytes(k2[3 * i + 1].raw[16:20], "little")
    print(os.pread(fd, 3, 1))
for what, call in (("sendmsg", lambda: socket.socket(fileno=os.dup(f))), ("bad", lambda: socket.send_fds(s, [b"x"], [999]))):
    try:
        print(what, call())
    except OSError as e:
        print(what, e.strerror)
EOT
python3 -u work.py; echo "status $?"
python3 - <<'EOT'
# A server that opens for others, reached by name; a client that is another program.
import os, socket, subprocess, sys, tempfile
d = tempfile.mkdtemp(dir="/tmp")
l = socket.socket(socket.AF_UNIX)
l.bind(d + "/s")
l.listen()
c = subprocess.Popen([sys.executable, "-c", "import os, socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nm, fds, *_ = socket.recv_fds(s, 10, 3)\nprint(m, [os.read(f, 5) for f in fds], os.fstat(fds[0]).st_size)\nos.write(fds[1], b'from the client')\ns.send(b'k')", d + "/s"])
s, _ = l.accept()
socket.send_fds(s, [b"hello"], [os.open("f", os.O_RDONLY), os.open("new", os.O_RDWR | os.O_CREAT)])
s.recv(1)
print(c.wait(), open("new").read())
os.unlink(d + "/s")
os.rmdir(d)
EOT
rm -f gone
