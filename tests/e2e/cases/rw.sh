# SPDX-License-Identifier: BSD-3-Clause
# what: read and write in all their forms: vectors, positions, flags, append, shared offsets, many threads and processes
# needs: python3
set -u
cd "$D" || exit 1
for i in $(seq 1 8); do (for j in $(seq 1 50); do echo "line $i $j" >> appended; done) & done; wait; sort appended | md5sum; wc -l < appended
python3 - <<'EOT'
import ctypes, errno, hashlib, os, struct, threading
libc = ctypes.CDLL(None, use_errno=True)

def attempt(what, f):
    try:
        print(what, f(), flush=True)
    except OSError as e:
        print(what, errno.errorcode[e.errno], flush=True)

def sys(nr, *args):
    ctypes.set_errno(0)
    r = libc.syscall(nr, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return errno.errorcode[ctypes.get_errno()] if r == -1 else r

f = os.open("f", os.O_RDWR | os.O_CREAT)
print(os.writev(f, [bytes([i]) * i for i in range(200)]), os.lseek(f, 0, 1))
b = [bytearray(i) for i in range(200)]
print(os.preadv(f, b, 0), all(bytes(x) == bytes([i]) * i for i, x in enumerate(b)))
print(os.pwritev(f, [b"abc", b"", b"def"], 100), os.pread(f, 8, 99), os.lseek(f, 0, 1))
attempt("append flag", lambda: (os.pwritev(f, [b"appended"], 0, os.RWF_APPEND if hasattr(os, "RWF_APPEND") else 16), os.fstat(f).st_size))
attempt("dsync flag", lambda: os.pwritev(f, [b"x"], 5, os.RWF_DSYNC))
attempt("nowait flag", lambda: os.preadv(f, [bytearray(3)], 5, os.RWF_NOWAIT))
attempt("bad flag", lambda: os.preadv(f, [bytearray(3)], 5, 0x1000))
attempt("too many", lambda: os.writev(f, [b"x"] * 1025))
attempt("many", lambda: os.writev(f, [b"x"] * 1024))
v = lambda *pairs: b"".join(struct.pack("QQ", p, n) for p, n in pairs)
buf = ctypes.create_string_buffer(100)
a = ctypes.addressof(buf)
os.lseek(f, 300, 0)
print("second buffer bad", sys(19, f, v((a, 5), (8, 5), (a + 10, 5)), 3), os.lseek(f, 0, 1))
print("first buffer bad", sys(19, f, v((8, 5), (a, 5)), 2), sys(20, f, v((8, 5), (a, 5)), 2), sys(20, f, v((a, 5), (8, 5)), 2), os.lseek(f, 0, 1))
print("no vector", sys(19, f, ctypes.c_void_p(8), 1), sys(19, f, None, 0), sys(19, f, v((a, 5)), -1), sys(19, f, v((a, 2**63)), 1))
print("empty", sys(19, f, v((a, 0), (0, 0)), 2), sys(0, f, None, 0), sys(1, f, None, 0), sys(0, f, ctypes.c_void_p(8), 0))
print("huge count", sys(0, f, ctypes.c_void_p(a), 2**62), sys(17, f, ctypes.c_void_p(a), 2**62, 1 << 40))
print("last byte", sys(17, f, ctypes.c_void_p(a), 1, 2**63 - 1), sys(17, f, ctypes.c_void_p(a), 10, 2**63 - 5))
os.close(f)
big = os.urandom(3_333_333)
g = os.open("big", os.O_RDWR | os.O_CREAT)
print(os.write(g, big), hashlib.sha256(os.pread(g, 4_000_000, 0)).digest() == hashlib.sha256(big).digest())
for size in (1, 100, 4095, 4096, 4097, 65535, 65536, 65537, 262143, 262144, 262145, 1 << 20, 3 << 20):
    for off in (0, 1, 4095, 1 << 20):
        if os.pread(g, size, off) != big[off:off + size]:
            print("differs", size, off)
mv = [bytearray(n) for n in (1, 4096, 70000, 3, 1 << 20, 500)]
n = os.preadv(g, mv, 77)
print(n, b"".join(mv) == big[77:77 + n])
pid = os.fork()
if pid == 0:
    os.lseek(g, 0, 0)
    os.read(g, 1000)
    os._exit(0)
os.waitpid(pid, 0)
print(os.lseek(g, 0, 1))
h = os.open("records", os.O_RDWR | os.O_CREAT)
def writer(k):
    for i in range(200):
        os.pwrite(h, struct.pack("II", k, i) * 16, (i * 8 + k) * 128)
threads = [threading.Thread(target=writer, args=(k,)) for k in range(8)]
for t in threads: t.start()
for t in threads: t.join()
data = os.pread(h, 1 << 20, 0)
print(len(data), all(data[(i * 8 + k) * 128:][:128] == struct.pack("II", k, i) * 16 for i in range(200) for k in range(8)))
def appender(k):
    fd = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for i in range(100):
        os.write(fd, b"%d %03d\n" % (k, i))
    os.close(fd)
threads = [threading.Thread(target=appender, args=(k,)) for k in range(8)]
for t in threads: t.start()
for t in threads: t.join()
lines = open("log").read().split("\n")
print(len(lines), all([x for x in lines if x.startswith("%d " % k)] == ["%d %03d" % (k, i) for i in range(100)] for k in range(8)))
pids = []
for k in range(6):
    pid = os.fork()
    if pid == 0:
        for i in range(60):
            with open("p%d.%d" % (k, i), "w") as x:
                x.write("%d" % i)
            os.rename("p%d.%d" % (k, i), "q%d.%d" % (k, i))
            if i % 3 == 0:
                os.unlink("q%d.%d" % (k, i))
        os._exit(0)
    pids.append(pid)
print([os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids], len([x for x in os.listdir() if x[0] == "q"]))
EOT
rm -f big q* appended log
