# SPDX-License-Identifier: BSD-3-Clause
# what: poll, ppoll, select, pselect and epoll with files among pipes; bad descriptors, timeouts, signals
# needs: python3
set -u
cd "$D" || exit 1
python3 - <<'EOT'
import ctypes, errno, os, select, selectors, signal, struct, time
libc = ctypes.CDLL(None, use_errno=True)
f = os.open("f", os.O_RDWR | os.O_CREAT)
d = os.open(".", os.O_RDONLY)
path = os.open("f", os.O_PATH)
r, w = os.pipe()
names = {f: "file", d: "dir", path: "path", r: "r", w: "w", 999: "bad", 60: "closed"}

def show(what, got):
    print(what, [(names[a],) + tuple(b) for a, *b in sorted(got)], flush=True)

def poll(fds, timeout):
    p = select.poll()
    for fd, ev in fds:
        p.register(fd, ev)
    start = time.monotonic()
    show("poll", p.poll(timeout))
    return time.monotonic() - start

IN, OUT, PRI = select.POLLIN, select.POLLOUT, select.POLLPRI
print(poll([(f, IN), (r, IN)], 5000) < 1)
print(poll([(f, IN | OUT | PRI), (d, IN | OUT), (w, OUT), (r, IN), (path, IN)], 5000) < 1)
print(poll([(f, PRI), (r, IN)], 50) >= 0.04)
print(poll([(f, 0), (d, 0), (w, IN)], 50) >= 0.04)
print(poll([(999, IN), (f, 0)], 5000) < 1)
os.write(w, b"x")
print(poll([(f, PRI), (r, IN)], 5000) < 1, poll([(f, OUT), (r, IN)], 5000) < 1)
many = [(f, OUT)] + [(r, IN)] * 1
class P(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]
big = (P * 900)()
for i, p in enumerate(big):
    p.fd, p.events, p.revents = (f if i % 3 == 0 else r if i % 3 == 1 else -1), IN, 77
print("many", libc.poll(big, 900, 0), set(p.revents for p in big))
print("no room", libc.poll(ctypes.c_void_p(8), 3, 0), errno.errorcode[ctypes.get_errno()])
ts = struct.pack("qq", 0, 10**9)
one = (P * 1)(P(f, IN, 0))
print("ppoll", libc.syscall(271, one, 1, ts, None, 8), errno.errorcode[ctypes.get_errno()])
print("ppoll", libc.syscall(271, one, 1, struct.pack("qq", -1, 0), None, 8), errno.errorcode[ctypes.get_errno()])
print("ppoll", libc.syscall(271, one, 1, None, b"\0" * 8, 4), errno.errorcode[ctypes.get_errno()])
print("ppoll", libc.syscall(271, one, 1, None, b"\0" * 8, 8), one[0].revents)

def sel(r_, w_, x_, t):
    start = time.monotonic()
    try:
        got = select.select(r_, w_, x_, t)
        print("select", [[names[i] for i in s] for s in got], time.monotonic() - start < 1, flush=True)
    except OSError as e:
        print("select", errno.errorcode[e.errno], flush=True)

os.read(r, 1)
sel([f, r, d], [w, f], [f], 5)
sel([r], [], [f, d], 0.05)
sel([f], [60], [], 5)
sel([], [f], [], None)
sel([r, f], [], [], 0)
high = libc.fcntl(f, 0, 700)
names[high] = "high"
sel([high, r], [], [high], 5)
print("pselect", libc.syscall(270, f + 1, (1 << f).to_bytes(8, "little"), None, None, struct.pack("qq", 5, 0), None))
print("pselect", libc.syscall(270, f + 1, (1 << f).to_bytes(8, "little"), None, None, struct.pack("qq", 5, -1), None),
      errno.errorcode[ctypes.get_errno()])
e = select.epoll()
for fd in (f, d, path, 999):
    for op in (e.register, e.modify, e.unregister):
        try:
            op(fd, IN) if op != e.unregister else op(fd)
        except OSError as x:
            print("epoll", names[fd], errno.errorcode[x.errno], flush=True)
try:
    select.epoll.fromfd(os.dup(f)).register(r, IN)
except OSError as x:
    print("not epoll", errno.errorcode[x.errno])
e.register(r, IN)
os.write(w, b"y")
show("epoll", e.poll(5))
signal.signal(signal.SIGALRM, lambda *a: print("alarm", flush=True))
os.read(r, 1)
signal.setitimer(signal.ITIMER_REAL, 0.1)
print(poll([(f, PRI), (r, IN)], 300) >= 0.25)
s = selectors.SelectSelector()
s.register(f, selectors.EVENT_READ)
print([k.fd == f for k, _ in s.select(1)])
EOT
