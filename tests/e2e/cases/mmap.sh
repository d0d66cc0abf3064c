# SPDX-License-Identifier: BSD-3-Clause
# what: mmap of files: private, shared for reading, fixed places, errors; a shared library loaded from the tree
# needs: python3
set -u
cd "$D" || exit 1
cp -L "$(ldconfig -p | sed -n 's/.*libz\.so\.1 .*=> //p' | head -n 1)" ./libours.so
python3 - <<'EOT'
import ctypes, errno, hashlib, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
data = bytes((i * 13 + i // 255) % 256 for i in range(700_001))
open("f", "wb").write(data)
R, W, X, SHARED, PRIVATE, FIXED, ANON = 1, 2, 4, 1, 2, 16, 32
rd, wr, rw, d, path = (os.open("f", os.O_RDONLY), os.open("f", os.O_WRONLY), os.open("f", os.O_RDWR), os.open(".", os.O_RDONLY),
                       os.open("f", os.O_PATH))

def m(what, length, prot, flags, fd, off, at=None):
    a = libc.mmap(at, length, prot, flags, fd, off)
    if a == ctypes.c_void_p(-1).value:
        print(what, errno.errorcode[ctypes.get_errno()])
        return None
    n = min(length, max(len(data) - off, 0))
    print(what, "ok", ctypes.string_at(a, n) == data[off:off + n], at is None or a == at,
          set(ctypes.string_at(a + n, -n % 4096)) if off + length >= len(data) else "")
    return a

m("private", len(data), R, PRIVATE, rd, 0)
m("part", 5000, R, PRIVATE, rd, 8192)
m("end", 300, R, PRIVATE, rd, 700_001 // 4096 * 4096)
m("shared", 4096, R, SHARED, rd, 0)
a = m("writable copy", 8192, R | W, PRIVATE, rd, 0)
ctypes.memset(a, 0x55, 8192)
print(open("f", "rb").read() == data, ctypes.string_at(a, 3))
at = libc.mmap(None, 1 << 20, R, PRIVATE | ANON, -1, 0)
m("fixed", 8192, R, PRIVATE | FIXED, rd, 4096, at + 4096)
print(ctypes.string_at(at, 4), ctypes.string_at(at + 4096 * 3, 4))
m("in use", 4096, R, PRIVATE | 0x100000, rd, 0, at)
m("executable", 4096, R | X, PRIVATE, rd, 0)
m("populate", 4096, R, PRIVATE | 0x8000, rd, 0)
m("write-only", 4096, R, PRIVATE, wr, 0)
m("write-only shared", 4096, W, SHARED, wr, 0)
m("shared write, opened for reading", 4096, R | W, SHARED, rd, 0)
m("directory", 4096, R, PRIVATE, d, 0)
m("path", 4096, R, PRIVATE, path, 0)
m("bad", 4096, R, PRIVATE, 999, 0)
m("no length", 0, R, PRIVATE, rd, 0)
m("odd offset", 4096, R, PRIVATE, rd, 100)
m("no type", 4096, R, 0, rd, 0)
m("bad type", 4096, R, 5, rd, 0)
m("odd place", 4096, R, PRIVATE | FIXED, rd, 0, at + 5)
m("too long", 1 << 62, R, PRIVATE, rd, 0)
with open("f", "rb") as f:
    with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as x:
        print(hashlib.sha256(x).hexdigest() == hashlib.sha256(data).hexdigest(), x.find(data[600_000:600_050]))
    with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as x:
        x[5:10] = b"?????"
        print(x[:12])
open("empty", "w").close()
try:
    mmap.mmap(os.open("empty", os.O_RDONLY), 0, access=mmap.ACCESS_READ)
except (ValueError, OSError) as e:
    print("empty", e)
z = ctypes.CDLL("./libours.so")
print(z.crc32(0, b"hello", 5))
pid = os.fork()
if pid == 0:
    print("child", ctypes.string_at(a, 3), z.adler32(1, b"hello", 5), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(libc.munmap(a, 8192))
EOT
rm libours.so
