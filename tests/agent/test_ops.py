#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Operations of the storage service one by one; handles, tickets and grants; credentials; the life of sessions."""
import errno
import fcntl
import os
import random
import signal
import stat
import struct
import tempfile
import time
import unittest

from harness import (Agent, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW, BYE, CROSS_ABS, F_CURPOS, F_CURPOS2, LANE_BUF, Lost,
                     OBJ_GET, OBJ_GRANT, OBJ_NEW, OBJ_PUT, OBJ_RESIZE, OBJECT_IDLE, QUIESCE, QUIESCED, SEGMENT, SEGMENT_END, SEGMENT_ENDED, SEGMENT_TAKEN, SHUTDOWN, memfd)

SYNC_FULL, SYNC_DATA, SYNC_RANGE, SYNC_FS = 1, 2, 3, 4
FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR, FIONREAD, TCGETS = 0x80086601, 0x801c581f, 0x541b, 0x5401
RWF_NOWAIT, RWF_APPEND = 8, 16


class Base(unittest.TestCase):
    POLLERS = 1

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(dir=os.environ.get("SC_TEST_DIR"))
        self.dir = self.tmp.name
        os.chmod(self.dir, 0o777)
        self.agent = Agent(self.dir, pollers=self.POLLERS)
        self.agent.__enter__()
        self.ch = self.agent.attach()
        self.root = self.ch.root()

    def tearDown(self):
        self.agent.__exit__(None, None, None)
        self.tmp.cleanup()

    def create(self, name, data=b"", flags=os.O_RDWR):
        h = self.ch.open(self.root, name, flags | os.O_CREAT, 0o644)
        self.assertGreater(h, 0)
        if data:
            self.assertEqual(self.ch.write(h, data, 0), len(data))
        return h

    def err(self, value, name):
        self.assertEqual(value, -getattr(errno, name), os.strerror(-value) if isinstance(value, int) else value)


class Segments(Base):
    """Memory that belongs to tickets: what the broker announces is taken or refused, and let go of."""

    def announce(self, number, size, seals=True, ticket=1 << 32 | 7):
        fd = memfd("segment", size) if seals else os.memfd_create("segment")
        os.ftruncate(fd, size)
        seq = self.agent.send(SEGMENT, struct.pack("<IIQQQ", number, 0, ticket, 0, size), fds=[fd])
        os.close(fd)
        _, got, _, body = self.agent.expect(SEGMENT_TAKEN)
        status, which = struct.unpack("<iI", body)
        self.assertEqual((got, which), (seq, number))
        return status

    def end(self, number):
        self.agent.send(SEGMENT_END, struct.pack("<iI", 0, number))
        status, which = struct.unpack("<iI", self.agent.expect(SEGMENT_ENDED)[3])
        self.assertEqual(which, number)
        return status

    def mapped(self):
        with open("/proc/%d/maps" % self.agent.proc.pid, encoding="utf-8") as f:
            return sum("/memfd:segment" in line for line in f)

    def test_taken_and_ended(self):
        self.assertEqual([self.announce(n, 1 << 16 + n) for n in (1, 2, 3)], [0, 0, 0])
        self.assertEqual(self.mapped(), 3)
        self.assertEqual(self.end(2), 0)
        self.assertEqual(self.mapped(), 2)
        self.err(self.end(2), "ENOENT")
        self.assertEqual((self.end(1), self.end(3), self.mapped()), (0, 0, 0))

    def test_refused(self):
        self.err(self.announce(1, 1 << 16, seals=False), "EPERM")  # its maker could take the memory away
        self.err(self.announce(1, 1 << 15), "EINVAL")
        self.err(self.announce(1, 3 << 16), "EINVAL")
        self.err(self.announce(0, 1 << 16), "EINVAL")
        self.assertEqual(self.mapped(), 0)
        self.assertEqual(self.ch.call("NOP", arg0=1), 1)


class Objects(Base):
    """Files that are mapped: the agent's side, with a broker that does as it is told here."""

    R, W = 1, 3

    def setUp(self):
        super().setUp()
        self.agent.serve_objects()

    def map(self, h, rights, ch=None):
        ch = ch or self.ch
        at = ch.buf() + 32768
        res = ch.call("MAP", handle=h, arg0=rights, buf2=at, len2=24)
        if res:
            return res
        self.number, self.token, self.size = struct.unpack("<QQQ", ch.get(at, 24))
        return self.number

    def mem(self):
        return self.agent.objects[self.number][0]

    def test_rights(self):
        self.create("f", b"data")
        opened = {flags: self.ch.open(self.root, "f", flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_PATH)}
        self.assertGreater(self.map(opened[os.O_RDONLY], self.R), 0)
        self.assertEqual(self.token, 0)
        first = self.number
        self.err(self.map(opened[os.O_RDONLY], self.W), "EACCES")
        self.err(self.map(opened[os.O_WRONLY], self.R), "EACCES")
        self.err(self.map(opened[os.O_WRONLY], self.W), "EACCES")
        self.err(self.map(opened[os.O_PATH], self.R), "EBADF")
        self.assertGreater(self.map(opened[os.O_RDWR], self.R), 0)
        self.assertEqual(self.number, first)  # one file, one object
        self.assertNotEqual(self.token, 0)
        self.err(self.map(opened[os.O_RDWR], 2), "EINVAL")
        self.err(self.map(opened[os.O_RDWR], 4), "EINVAL")
        self.err(self.map(self.ch.open(self.root, ".", os.O_RDONLY | os.O_DIRECTORY), self.R), "ENODEV")
        self.err(self.map(12345, self.R), "EBADF")
        # Another session has no right to the handle, nor does the object's number give any but msync.
        other = self.agent.attach()
        self.err(self.map(opened[os.O_RDWR], self.R, other), "EBADF")
        self.err(other.call("MAP_WRITE", arg1=first, arg2=self.token ^ 1), "EACCES")
        self.err(other.call("MAP_WRITE", arg1=first, arg2=0), "EACCES")
        self.err(other.call("MAP_WRITE", arg1=first ^ 2, arg2=self.token), "ESTALE")
        self.err(other.call("MSYNC", arg1=first ^ 2), "ESTALE")
        self.assertEqual(other.call("MAP_WRITE", arg1=first, arg2=self.token), 0)
        grants = [r[5] for r in self.agent.object_requests if r[0] == OBJ_GRANT]
        self.assertEqual(grants, [self.R, self.R, self.W])

    def test_both_alike(self):
        h = self.create("f", bytes(10000))
        self.assertGreater(self.map(h, self.W), 0)
        self.assertEqual(self.ch.write(h, b"written", 5000), 7)
        self.assertEqual(bytes(self.mem()[5000:5007]), b"written")
        self.mem()[100:106] = b"stored"
        self.assertEqual(self.ch.read(h, 6, 100), b"stored")
        self.assertEqual(os.stat(self.dir + "/f").st_size, 10000)
        self.assertEqual(self.ch.call("TRUNCATE", handle=h, arg0=AT_EMPTY_PATH, off=103), 0)
        self.assertEqual((len(self.mem()), self.ch.read(h, 10, 100)), (103, b"sto"))
        with open(self.dir + "/f", "rb") as f:
            self.assertEqual(f.read()[:103], bytes(103))  # not written back yet
            self.assertEqual(self.ch.call("MSYNC", arg1=self.number, off=0, arg0=4096), 0)
            f.seek(0)
            self.assertEqual(f.read(), bytes(100) + b"sto")
        self.mem()[0:1] = b"!"
        self.agent.idle(self.number)
        with open(self.dir + "/f", "rb") as f:
            self.assertEqual(f.read(1), b"!")
        self.assertEqual(self.ch.read(h, 1, 0), b"!")

    def test_shrunk_by_a_process(self):
        """Who may write may cut the object off: the agent answers from the file, and loses nothing of that."""
        h = self.create("f", b"f" * 300000)
        self.assertGreater(self.map(h, self.W), 0)
        del self.mem()[10:]
        self.assertEqual(self.ch.read(h, 20, 0), b"f" * 20)
        self.assertEqual(self.ch.call("SYNC", handle=h, arg0=SYNC_FULL), 0)
        self.agent.idle(self.number)
        with open(self.dir + "/f", "rb") as f:
            self.assertEqual(f.read(), b"f" * 300000)

    def test_broker_refuses(self):
        h = self.create("f", b"data")
        for op, errs in ((OBJ_NEW, "ENOMEM"), (OBJ_PUT, "EIO"), (OBJ_GRANT, "ESRCH")):
            self.agent.object_faults = {op: -getattr(errno, errs)}
            self.err(self.map(h, self.R), errs)
            self.assertEqual(self.agent.objects, {})
        self.agent.object_faults = {}
        self.assertGreater(self.map(h, self.W), 0)
        self.agent.object_faults = {OBJ_GET: 1 << 40}  # more than was asked for
        self.err(self.ch.read(h, 4, 0), "EIO")
        self.agent.object_faults = {OBJ_RESIZE: -errno.ENOMEM}
        self.assertEqual(self.ch.write(h, b"longer", 2), 6)  # the file counts
        self.agent.object_faults = {}
        self.assertEqual(os.stat(self.dir + "/f").st_size, 8)

    def test_disk_that_does_not_take_it(self):
        """What cannot be written back is not dropped."""
        h = self.create("f", b"data")
        self.assertGreater(self.map(h, self.W), 0)
        self.mem()[0:1] = b"D"
        self.agent.object_faults = {OBJ_GET: -errno.EIO}
        self.err(self.ch.call("MSYNC", arg1=self.number, arg0=10), "EIO")
        self.agent.send(OBJECT_IDLE, struct.pack("<QQ", self.number, 1))
        for _ in range(10):
            self.agent.pump(0.02)
        self.assertIn(self.number, self.agent.objects)
        self.agent.object_faults = {}
        self.agent.idle(self.number)
        with open(self.dir + "/f", "rb") as f:
            self.assertEqual(f.read(), b"Data")


class Data(Base):
    def test_nop(self):
        for v in (0, 1, 2**63 - 1):
            self.assertEqual(self.ch.call("NOP", arg0=v), v)
        self.assertEqual(self.ch.call("NOP", arg0=-5), -5)
        self.err(self.ch.call(50), "ENOSYS")
        self.err(self.ch.call(128), "ENOSYS")
        self.err(self.ch.call(65535), "ENOSYS")

    def test_batches(self):
        """Many requests for one publication, of any kind, more than the lane's budget."""
        h = self.create("f", bytes(range(256)) * 16)
        self.ch.use_lane(5, 8)
        for turn in range(20):
            calls = []
            for i in range(256):
                if i % 3:
                    calls.append((i, self.ch.submit("NOP", lane=5, arg0=i, publish=False)))
                else:
                    calls.append((1, self.ch.submit("READ", lane=5, handle=h, off=i, buf=self.ch.data_off(5) + i, length=1,
                                                    publish=False)))
            self.ch.publish(5)
            for want, c in calls:
                self.assertEqual(c.wait(), want)
        self.assertEqual(self.ch.get(self.ch.data_off(5) + 255, 1), b"\xff")

    def test_positions(self):
        h = self.create("f")
        self.assertEqual(self.ch.write(h, b"hello "), 6)
        self.assertEqual(self.ch.write(h, b"world"), 5)
        self.assertEqual(self.ch.read(h, 10), b"")
        self.assertEqual(self.ch.call("SEEK", handle=h, off=-5, arg0=os.SEEK_CUR), 6)
        self.assertEqual(self.ch.read(h, 2), b"wo")
        self.assertEqual(self.ch.read(h, 100), b"rld")
        self.assertEqual(self.ch.read(h, 4, 1), b"ello")
        self.assertEqual(self.ch.call("SEEK", handle=h, arg0=os.SEEK_CUR), 11)
        self.err(self.ch.call("SEEK", handle=h, off=-12, arg0=os.SEEK_CUR), "EINVAL")
        self.err(self.ch.call("SEEK", handle=h, off=0, arg0=9), "EINVAL")

    def test_position_queue(self):
        """Reads at the handle's own position, all at once: each byte is read once."""
        h = self.create("f", os.urandom(4000))
        self.ch.call("SEEK", handle=h, arg0=os.SEEK_SET)
        lanes = range(1, 9)
        for lane in lanes:
            self.ch.use_lane(lane, 6)
        calls = []
        for i in range(50):
            for lane in lanes:
                buf = self.ch.data_off(lane) + i * 10
                calls.append((buf, self.ch.submit("READ", lane=lane, handle=h, buf=buf, length=10, flags=F_CURPOS,
                                                  publish=False)))
        for lane in lanes:
            self.ch.publish(lane)
        for _, c in calls:
            self.assertEqual(c.wait(), 10)
        with open(self.dir + "/f", "rb") as f:
            want = f.read()
        self.assertEqual(sorted(self.ch.get(buf, 10) for buf, _ in calls),
                         sorted(want[i:i + 10] for i in range(0, 4000, 10)))

    def test_large(self):
        h = self.create("f")
        size = 3 << 20
        data = random.Random(1).randbytes(size)
        self.ch.put(self.ch.pool, data)
        self.assertEqual(self.ch.call("WRITE", handle=h, buf=self.ch.pool, length=size, off=100), size)
        self.ch.put(self.ch.pool, bytes(size))
        self.assertEqual(self.ch.call("READ", handle=h, buf=self.ch.pool, length=size, off=100), size)
        self.assertEqual(self.ch.get(self.ch.pool, size), data)
        self.assertEqual(self.ch.call("READ", handle=h, buf=self.ch.pool, length=size, off=size), 100)
        self.err(self.ch.call("READ", handle=h, buf=self.ch.pool, length=(4 << 20) + 1, off=0), "EINVAL")

    def test_cold_read(self):
        """What is not in the page cache comes through the ring."""
        h = self.create("f", os.urandom(60000))
        self.assertEqual(self.ch.call("SYNC", handle=h, arg0=SYNC_FULL), 0)
        with open(self.dir + "/f", "rb") as f:
            want = f.read()
            for _ in range(5):
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                self.assertEqual(self.ch.read(h, 50000, 17), want[17:50017])
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                self.ch.call("SEEK", handle=h, off=5, arg0=os.SEEK_SET)
                self.assertEqual(self.ch.read(h, 50000), want[5:50005])
                self.assertEqual(self.ch.read(h, 50000), want[50005:])

    def test_direct(self):
        h = self.ch.open(self.root, "d", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
        if h == -errno.EINVAL:
            self.skipTest("no O_DIRECT on this file system")
        data = os.urandom(65536)
        self.ch.put(self.ch.pool, data)
        self.assertEqual(self.ch.call("WRITE", handle=h, buf=self.ch.pool, length=65536), 65536)
        self.ch.put(self.ch.pool, bytes(65536))
        self.assertEqual(self.ch.call("READ", handle=h, buf=self.ch.pool, length=65536), 65536)
        self.assertEqual(self.ch.get(self.ch.pool, 65536), data)
        # At the handle's own position, too.
        self.assertEqual(self.ch.call("READ", handle=h, buf=self.ch.pool, length=4096, flags=F_CURPOS), 4096)
        self.assertEqual(self.ch.call("READ", handle=h, buf=self.ch.pool, length=4096, flags=F_CURPOS), 4096)
        self.assertEqual(self.ch.get(self.ch.pool, 4096), data[4096:8192])
        self.assertTrue(self.ch.call("GETFL", handle=h) & os.O_DIRECT)

    def test_append(self):
        h = self.ch.open(self.root, "f", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for i in range(5):
            self.assertEqual(self.ch.write(h, b"%d" % i, 0 if i % 2 else None), 1)
        self.err(self.ch.read(h, 1, 0), "EBADF")
        self.assertEqual(self.ch.call("SEEK", handle=h, arg0=os.SEEK_CUR), 5)
        h2 = self.ch.open(self.root, "f")
        self.assertEqual(self.ch.read(h2, 10, 0), b"01234")
        self.err(self.ch.write(h2, b"x", 0), "EBADF")
        h3 = self.ch.open(self.root, "f", os.O_RDWR)
        self.assertEqual(self.ch.write(h3, b"5", 0, rwf=RWF_APPEND), 1)
        self.assertEqual(self.ch.read(h3, 10, 0), b"012345")
        self.err(self.ch.read(h3, 1, 0, rwf=1 << 20), "EOPNOTSUPP")

    def test_wrong_targets(self):
        d = self.ch.open(self.root, ".")
        p = self.ch.open(self.root, ".", os.O_PATH)
        h = self.create("f", b"x")
        self.err(self.ch.read(d, 1, 0), "EISDIR")
        self.err(self.ch.read(p, 1, 0), "EBADF")
        self.err(self.ch.write(d, b"1", 0), "EBADF")
        self.err(self.ch.read(self.root, 1, 0), "EBADF")
        self.err(self.ch.call("READ", handle=h, buf=self.ch.pool, length=1, off=2**63), "EINVAL")
        self.err(self.ch.call("READ", handle=h, buf=self.ch.pool, length=1, off=2**64 - 1), "EINVAL")
        self.err(self.ch.call("READ", handle=h, buf=self.ch.pool, length=1, flags=F_CURPOS2), "EINVAL")
        self.err(self.ch.call("READ", handle=h, buf=0, length=1), "EFAULT")
        self.err(self.ch.call("READ", handle=h, buf=self.ch.arena - 1, length=1), "EFAULT")
        self.err(self.ch.call("READ", handle=h, buf=self.ch.size - 1, length=2), "EFAULT")
        self.err(self.ch.call("READ", handle=h, buf=0xfffffff0, length=0x20), "EFAULT")
        self.assertEqual(self.ch.call("READ", handle=h, buf=0, length=0), 0)
        self.assertEqual(self.ch.call("READ", handle=h, buf=self.ch.size - 1, length=1), 1)
        self.err(self.ch.call("READDIR", handle=h, buf=self.ch.pool, length=4096), "ENOTDIR")

    def test_space(self):
        h = self.create("f")
        self.assertEqual(self.ch.call("FALLOCATE", handle=h, off=0, arg1=100000), 0)
        self.assertEqual(self.ch.stat(h).size, 100000)
        self.assertEqual(self.ch.call("FALLOCATE", handle=h, off=0, arg1=65536, arg0=3), 0)  # punch a hole
        self.assertEqual(self.ch.write(h, b"end", 99997), 3)
        hole = self.ch.call("SEEK", handle=h, off=0, arg0=os.SEEK_DATA)
        self.assertGreaterEqual(hole, 0)
        self.err(self.ch.call("SEEK", handle=h, off=100000, arg0=os.SEEK_DATA), "ENXIO")
        self.err(self.ch.call("FALLOCATE", handle=h, off=0, arg1=0), "EINVAL")
        self.assertEqual(self.ch.call("TRUNCATE", handle=h, off=10, arg0=AT_EMPTY_PATH), 0)
        self.assertEqual(self.ch.stat(h).size, 10)
        self.err(self.ch.call("TRUNCATE", handle=h, off=-1, arg0=AT_EMPTY_PATH), "EINVAL")
        ro = self.ch.open(self.root, "f")
        self.err(self.ch.call("TRUNCATE", handle=ro, off=1, arg0=AT_EMPTY_PATH), "EINVAL")
        self.err(self.ch.call("FALLOCATE", handle=ro, off=0, arg1=10), "EBADF")

    def test_sync(self):
        h = self.create("f", b"data")
        for kind in (SYNC_FULL, SYNC_DATA, SYNC_FS):
            self.assertEqual(self.ch.call("SYNC", handle=h, arg0=kind), 0)
        self.assertEqual(self.ch.call("SYNC", handle=h, arg0=SYNC_RANGE, off=0, arg1=0, arg2=7), 0)
        self.err(self.ch.call("SYNC", handle=h, arg0=SYNC_RANGE, off=0, arg1=0, arg2=8), "EINVAL")
        self.err(self.ch.call("SYNC", handle=h, arg0=9), "EINVAL")
        self.err(self.ch.call("SYNC", handle=self.root, arg0=SYNC_FULL), "EBADF")
        self.assertEqual(self.ch.call("SYNCALL", timeout=60), 0)
        self.assertEqual(self.ch.call("FADVISE", handle=h, off=0, arg1=0, arg0=os.POSIX_FADV_WILLNEED), 0)
        self.err(self.ch.call("FADVISE", handle=h, off=0, arg1=0, arg0=99), "EINVAL")

    def test_copy(self):
        a, b = self.create("a", b"0123456789"), self.create("b")
        self.assertEqual(self.ch.call("COPY", handle=a, off=2, arg1=b, arg2=1, arg0=5), 5)
        self.assertEqual(self.ch.read(b, 10, 0), b"\x0023456")
        self.ch.call("SEEK", handle=a, arg0=os.SEEK_SET)
        self.ch.call("SEEK", handle=b, arg0=os.SEEK_SET)
        self.assertEqual(self.ch.call("COPY", handle=a, arg1=b, arg0=4, flags=F_CURPOS | F_CURPOS2), 4)
        self.assertEqual(self.ch.call("COPY", handle=a, arg1=b, arg0=4, flags=F_CURPOS | F_CURPOS2), 4)
        self.assertEqual(self.ch.read(b, 10, 0), b"01234567")
        # Two positions, in both directions at once: no deadlock.
        calls = [self.ch.submit("COPY", lane=1 + i % 2, handle=(a, b)[i % 2], arg1=(b, a)[i % 2], arg0=1,
                                flags=F_CURPOS | F_CURPOS2) for i in range(8)]
        for c in calls:
            self.assertIn(c.wait(), (0, 1))
        self.ch.call("SEEK", handle=a, arg0=os.SEEK_SET)
        self.err(self.ch.call("COPY", handle=a, arg1=a, arg0=4, flags=F_CURPOS | F_CURPOS2), "EINVAL")

    def test_flags(self):
        h = self.ch.open(self.root, "f", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_APPEND, 0o600)
        fl = self.ch.call("GETFL", handle=h)
        self.assertEqual(fl & (os.O_ACCMODE | os.O_NONBLOCK | os.O_APPEND), os.O_RDWR | os.O_NONBLOCK | os.O_APPEND)
        self.assertEqual(self.ch.call("SETFL", handle=h, arg0=os.O_NOATIME), 0)
        fl = self.ch.call("GETFL", handle=h)
        self.assertEqual(fl & (os.O_NONBLOCK | os.O_APPEND | os.O_NOATIME), os.O_NOATIME)
        self.assertTrue(self.ch.call("GETFL", handle=self.root) & os.O_PATH)
        d = self.ch.open(self.root, ".", os.O_DIRECTORY)
        self.assertFalse(self.ch.call("GETFL", handle=d) & os.O_NONBLOCK)
        self.assertEqual(self.ch.close(d), 0)

    def test_ioctl(self):
        h = self.create("f", b"12345")
        b = self.ch.data_off()
        self.assertEqual(self.ch.call("IOCTL", handle=h, arg0=FIONREAD, buf=b, length=4), 0)
        self.assertEqual(struct.unpack("<i", self.ch.get(b, 4))[0], 5)
        r = self.ch.call("IOCTL", handle=h, arg0=FS_IOC_GETFLAGS, buf=b, length=8)
        self.assertIn(r, (0, -errno.ENOTTY))
        self.err(self.ch.call("IOCTL", handle=h, arg0=TCGETS, buf=b, length=64), "ENOTTY")
        self.err(self.ch.call("IOCTL", handle=h, arg0=FIONREAD, buf=b, length=2), "EINVAL")


class Names(Base):
    def test_readdir(self):
        names = {"n%03d" % i + "x" * (i % 200) for i in range(400)}
        for n in names:
            os.mknod(os.path.join(self.dir, n))
        h = self.ch.open(self.root, ".", os.O_RDONLY | os.O_DIRECTORY)
        seen, entries = [], []
        while True:
            part = self.ch.readdir(h, 1500)
            if not part:
                break
            entries += part
        seen = [e[0] for e in entries]
        self.assertEqual(len(seen), len(set(seen)))
        self.assertEqual(set(seen), names | {".", ".."})
        self.assertTrue(all(e[1] == 8 for e in entries if e[0] in names))
        # Back to where an entry ended, and on from there.
        i = len(entries) // 2
        self.ch.call("SEEK", handle=h, off=entries[i][3], arg0=os.SEEK_SET)
        self.assertEqual(self.ch.readdir(h, 1500)[0][0], entries[i + 1][0])
        self.ch.call("SEEK", handle=h, off=0, arg0=os.SEEK_SET)
        self.assertEqual(self.ch.readdir(h, 1500)[0][0], entries[0][0])
        self.err(self.ch.readdir(h, 16), "EINVAL")

    def test_special_files(self):
        os.mkfifo(self.dir + "/fifo")
        for fl in (os.O_RDONLY, os.O_RDWR, os.O_RDONLY | os.O_NONBLOCK):
            self.err(self.ch.open(self.root, "fifo", fl), "EOPNOTSUPP")
        self.assertIn(self.ch.open(self.root, "fifo", os.O_WRONLY), (-errno.ENXIO, -errno.EOPNOTSUPP))
        self.assertGreater(self.ch.open(self.root, "fifo", os.O_PATH), 0)
        self.assertEqual(self.ch.path_op("MKNOD", self.root, "sock", arg0=stat.S_IFSOCK | 0o600), 0)
        self.err(self.ch.open(self.root, "sock"), "ENXIO")
        if os.geteuid() == 0:
            self.assertEqual(self.ch.path_op("MKNOD", self.root, "null", arg0=stat.S_IFCHR | 0o666, arg1=0x103), 0)
            self.err(self.ch.open(self.root, "null", os.O_RDWR), "EACCES")

    def test_magic_links(self):
        """Nothing of /proc is served, even if it lies in the export."""
        with Agent("/") as agent:
            ch = agent.attach()
            root = ch.root("/")
            for p in ("proc/self/mem", "proc/1/environ", "proc/self/fd/0", "proc/self/root/etc", "proc/self/cwd", "proc/version",
                      "sys/kernel/notes", "tmp/../proc/self/maps"):
                self.assertLess(ch.open(root, p), 0, p)
            for p in ("proc/self/maps", "proc/version"):
                self.assertIn(ch.open(root, p), (-errno.EACCES, -errno.ELOOP), p)

    def test_tmpfile_and_link(self):
        h = self.ch.open(self.root, ".", os.O_RDWR | os.O_TMPFILE, 0o600)
        if h == -errno.EOPNOTSUPP:
            self.skipTest("no O_TMPFILE")
        self.ch.write(h, b"text", 0)
        b, n = self.ch.path("named", second=True)
        self.assertEqual(self.ch.call("LINK", handle=h, buf=self.ch.buf(), length=0, arg1=self.root, buf2=b, len2=n,
                                      arg0=AT_EMPTY_PATH | AT_SYMLINK_FOLLOW), 0)
        with open(self.dir + "/named") as f:
            self.assertEqual(f.read(), "text")

    def test_getpath(self):
        os.makedirs(self.dir + "/x/y")
        h = self.ch.open(self.root, "x/y", os.O_PATH)
        self.assertEqual(self.ch.getpath(h), "/x/y")
        self.assertEqual(self.ch.getpath(self.root), "/")
        os.rename(self.dir + "/x", self.dir + "/z")
        self.assertEqual(self.ch.getpath(h), "/z/y")
        os.rmdir(self.dir + "/z/y")
        self.assertEqual(self.ch.getpath(h), "/z/y (deleted)")
        self.err(self.ch.call("GETPATH", handle=h, buf2=self.ch.data_off(), len2=3), "ERANGE")
        sub = self.ch.root("z")
        self.assertEqual(self.ch.getpath(sub), "/")
        self.assertEqual(self.ch.open(sub, "../z", os.O_PATH), -errno.EXDEV)
        self.err(self.ch.root("nonexistent"), "ENOENT")
        with open(self.dir + "/f", "w"):
            pass
        self.err(self.ch.root("f"), "ENOTDIR")
        self.assertEqual(self.ch.getpath(self.ch.root("../../z/..")), "/")

    def test_cross_buffer(self):
        """A crossing is told only where the path's buffer has room for it."""
        os.symlink("/elsewhere", self.dir + "/l")
        self.err(self.ch.open(self.root, "l"), "EXDEV")
        self.assertEqual(self.ch.cross(), (CROSS_ABS, "/elsewhere"))
        off = self.ch.size - 1
        self.ch.put(off, b"l")
        self.err(self.ch.call("STAT", handle=self.root, buf=off, length=1, buf2=self.ch.data_off(), len2=144), "EXDEV")
        self.assertEqual(self.ch.last.flags & 3, 0)

    def test_bad_paths(self):
        self.err(self.ch.open(self.root, "a\0b"), "EINVAL")
        self.err(self.ch.path_op("MKDIR", self.root, "", arg0=0o755), "ENOENT")
        self.err(self.ch.path_op("STAT", self.root, "x", arg0=1 << 30, buf2=self.ch.data_off(), len2=144), "EINVAL")
        self.err(self.ch.path_op("STAT", self.root, ".", buf2=self.ch.data_off(), len2=100), "EINVAL")
        self.err(self.ch.open(self.root, "f", 1 << 30), "EINVAL")
        self.err(self.ch.open(self.root, "f", os.O_CREAT, 0o600, secret=0), "EINVAL")


class Handles(Base):
    POLLERS = 2

    def test_names(self):
        h = self.create("f", b"x")
        for bad in (0, 1, h + 1, h + (1 << 32), h ^ (1 << 31), 2**64 - 1):
            self.assertLess(self.ch.call("READ", handle=bad, buf=self.ch.pool, length=1), 0)
        self.err(self.ch.call("READ", handle=h + (1 << 56), buf=self.ch.pool, length=1), "EIO")  # another incarnation
        other = self.agent.attach()
        self.err(other.read(h, 1, 0), "EBADF")
        self.assertEqual(self.ch.close(h), 0)
        self.err(self.ch.close(h), "EBADF")

    def test_grant(self):
        other = self.agent.attach()
        h = self.ch.open(self.root, "f", os.O_RDWR | os.O_CREAT, 0o600, ticket=self.ch.ticket(), secret=77)
        self.err(other.call("GRANT", handle=h, arg2=78), "EACCES")
        self.assertEqual(other.call("GRANT", handle=h, arg2=77), 0)
        self.assertEqual(other.last.flags >> 16, 8)
        self.assertEqual(other.call("GRANT", handle=h, arg2=77), 0)
        self.assertEqual(other.write(h, b"from other"), 10)
        self.assertEqual(self.ch.write(h, b"!"), 1)  # one position
        self.assertEqual(other.read(h, 20, 0), b"from other!")
        self.err(self.ch.close(h), "EBUSY")
        self.err(other.close(h), "EBUSY")
        # The opener goes; its ticket has been handed on.
        self.assertEqual(self.agent.detach(self.ch), 0)
        self.assertEqual(other.read(h, 4, 0), b"from")
        self.agent.release(1 << 32 | 1)
        end = time.monotonic() + 5
        while other.read(h, 1, 0) != -errno.EBADF:
            self.assertLess(time.monotonic(), end)

    def test_tickets(self):
        t = self.ch.ticket()
        h = self.ch.open(self.root, "f", os.O_RDWR | os.O_CREAT, 0o600, ticket=t)
        self.err(self.ch.open(self.root, "f", ticket=t), "EBUSY")
        self.err(self.ch.open(self.root, "f", ticket=77 << 32 | 1), "EBADF")
        self.err(self.ch.open(self.root, "f", ticket=1 << 32), "EBADF")
        self.err(self.ch.open(self.root, "f", ticket=1 << 32 | 65536), "EBADF")
        self.assertEqual(self.ch.close(h), 0)
        h = self.ch.open(self.root, "f", ticket=t)  # again, after an explicit close
        self.assertGreater(h, 0)
        self.err(self.ch.open(self.root, "nonexistent", ticket=self.ch.ticket()), "ENOENT")
        self.assertGreater(self.ch.open(self.root, "f", ticket=1 << 32 | self.ch.ticket_n), 0)  # a failed open leaves it free
        self.agent.release(t)
        end = time.monotonic() + 5
        while self.ch.stat(h) != -errno.EBADF:
            self.assertLess(time.monotonic(), end)
        self.err(self.ch.open(self.root, "f", ticket=t), "EBADF")  # dead
        dead = self.ch.ticket()
        self.agent.release(dead, 99 << 32 | 5, 0)  # before its OPEN, and some that nobody knows
        time.sleep(0.05)
        self.err(self.ch.open(self.root, "f", ticket=dead), "EBADF")

    def test_session_end_closes(self):
        ch = self.agent.attach()
        root = ch.root()
        for i in range(200):
            self.assertGreater(ch.open(root, "f%d" % i, os.O_CREAT | os.O_RDWR, 0o600), 0)
        kept = ch.open(root, "kept", os.O_CREAT | os.O_RDWR, 0o600, ticket=ch.ticket())
        self.assertGreater(kept, 0)
        self.assertEqual(self.agent.detach(ch), 0)
        self.wait_counter("open_files", 2)  # the test's own root, and `kept`
        self.wait_counter("sessions", 2)
        self.agent.release(ch.session << 32 | 1)
        self.wait_counter("open_files", 1)
        self.wait_counter("sessions", 1)

    def wait_counter(self, name, want):
        end = time.monotonic() + 5
        while self.agent.counter(name) != want:
            self.assertLess(time.monotonic(), end, "%s is %d" % (name, self.agent.counter(name)))
            time.sleep(0.05)

    def test_detach_with_calls(self):
        """Calls are under way when the session ends: they finish, then the slot is free."""
        for turn in range(10):
            ch = self.agent.attach()
            root = ch.root()
            h = ch.open(root, "f", os.O_CREAT | os.O_RDWR, 0o600)
            for lane in range(1, 9):
                ch.use_lane(lane, 8)
                for i in range(100):
                    ch.submit("WRITE", lane=lane, handle=h, buf=ch.pool, length=65536, off=i * 4096, publish=False)
                ch.publish(lane)
            self.assertEqual(self.agent.detach(ch, 30), 0)
        self.assertEqual(self.ch.call("NOP", arg0=1), 1)

    def test_many_handles(self):
        """The session's limit: EMFILE; and everything still works after it."""
        hs = []
        self.ch.use_lane(1, 8)
        self.create("f")
        b, n = self.ch.path("f", 1)
        while True:
            batch = [self.ch.submit("OPEN", lane=1, handle=self.root, buf=b, length=n, arg2=1, publish=False)
                     for _ in range(250)]
            self.ch.publish(1)
            res = [c.wait() for c in batch]
            hs += [r for r in res if r > 0]
            if min(res) < 0:
                self.assertIn(min(res), (-errno.EMFILE, -errno.ENFILE))
                break
            self.assertLess(len(hs), 100000)
        other = self.agent.attach()
        r = other.root()
        self.assertTrue(r > 0 or r == -errno.ENFILE)
        self.assertEqual(self.ch.close(hs.pop()), 0)
        self.assertGreater(self.ch.open(self.root, "f"), 0)
        self.assertEqual(self.agent.detach(self.ch, 60), 0)
        self.ch = self.agent.attach()


@unittest.skipIf(os.geteuid(), "needs root")
class Credentials(Base):
    POLLERS = 2

    def setUp(self):
        super().setUp()
        self.u1 = self.agent.attach(1001, 1001, [2000, 2001])
        self.u2 = self.agent.attach(1002, 1002)
        self.r1, self.r2 = self.u1.root(), self.u2.root()

    def test_owner(self):
        self.assertEqual(self.u1.path_op("MKDIR", self.r1, "d", arg0=0o700), 0)
        st = self.u1.stat(self.r1, "d")
        self.assertEqual((st.uid, st.gid, st.mode & 0o777), (1001, 1001, 0o700))
        self.assertGreater(self.u1.open(self.r1, "d/f", os.O_CREAT | os.O_RDWR, 0o600), 0)
        self.err(self.u2.open(self.r2, "d/f"), "EACCES")
        self.err(self.u2.stat(self.r2, "d/f"), "EACCES")
        self.assertGreater(self.ch.open(self.root, "d/f"), 0)  # root may
        self.err(self.u2.path_op("CHMOD", self.r2, "d", arg1=0o777), "EPERM")
        self.err(self.u1.path_op("CHOWN", self.r1, "d", arg1=1002 | 0xffffffff << 32), "EPERM")
        self.assertEqual(self.u1.path_op("CHOWN", self.r1, "d", arg1=0xffffffff | 2000 << 32), 0)
        self.err(self.u1.path_op("MKNOD", self.r1, "dev", arg0=stat.S_IFBLK | 0o600, arg1=0x800), "EPERM")

    def test_groups(self):
        os.mkdir(self.dir + "/g")
        os.chown(self.dir + "/g", 0, 2001)
        os.chmod(self.dir + "/g", 0o770)
        self.assertGreater(self.u1.open(self.r1, "g/f", os.O_CREAT | os.O_RDWR, 0o600), 0)
        self.err(self.u2.open(self.r2, "g/f"), "EACCES")
        self.assertEqual(self.u1.path_op("ACCESS", self.r1, "g", arg1=7), 0)
        self.err(self.u2.path_op("ACCESS", self.r2, "g", arg1=1), "EACCES")

    def test_suid_is_cleared(self):
        """A write by another than root takes set-user-id away, as it does natively."""
        for who, root, want in ((self.u1, self.r1, 0o777), (self.ch, self.root, 0o4777)):
            with open(self.dir + "/s", "wb") as f:
                f.write(b"old")
            os.chmod(self.dir + "/s", 0o4777)
            h = who.open(root, "s", os.O_WRONLY)
            self.assertEqual(who.write(h, b"new", 0), 3)
            self.assertEqual(os.stat(self.dir + "/s").st_mode & 0o7777, want)

    def test_alternating(self):
        """Users in turn on the same poller and workers: nobody gets another's rights."""
        for who, root, uid in ((self.u1, self.r1, 1001), (self.u2, self.r2, 1002)):
            self.assertEqual(who.path_op("MKDIR", root, "u%d" % uid, arg0=0o700), 0)
        for i in range(100):
            for who, root, uid, no in ((self.u1, self.r1, 1001, 1002), (self.u2, self.r2, 1002, 1001)):
                a = who.submit("MKDIR", handle=root, lane=1, **self.text(who, "u%d/d%d" % (uid, i), 1), arg0=0o700)
                b = who.submit("MKDIR", handle=root, lane=2, **self.text(who, "u%d/e%d" % (no, i), 2), arg0=0o700)
                self.assertEqual((a.wait(), b.wait()), (0, -errno.EACCES))
                self.assertEqual(os.stat(self.dir + "/u%d/d%d" % (uid, i)).st_uid, uid)
                self.err(who.stat(root, "u%d/d%d" % (no, i)), "EACCES")

    @staticmethod
    def text(who, path, lane):
        b, n = who.path(path, lane)
        return {"buf": b, "length": n}

    def test_search_permission(self):
        os.mkdir(self.dir + "/closed")
        os.chmod(self.dir + "/closed", 0o700)
        self.err(self.u1.root("closed/x"), "EACCES")


class Life(Base):
    def test_quiesce(self):
        h = self.create("f", b"data")
        self.agent.send(QUIESCE)
        m = self.agent.expect(QUIESCED, 30)
        self.assertEqual(struct.unpack_from("<i", m[3])[0], 0)
        c = self.ch.submit("NOP", arg0=1)
        time.sleep(0.2)
        self.assertFalse(c.done())  # new calls wait

    def test_shutdown(self):
        self.create("f", b"data")
        self.agent.send(SHUTDOWN)
        self.assertEqual(self.agent.wait_exit(30), 0)
        self.agent.expect(BYE, 1)

    def test_sigterm_with_waiter(self):
        h = self.create("f")
        other = self.agent.attach()
        h2 = other.open(other.root(), "f")
        self.assertEqual(self.ch.call("FLOCK", handle=h, arg0=fcntl.LOCK_EX), 0)
        other.submit("FLOCK", handle=h2, arg0=fcntl.LOCK_EX)
        time.sleep(0.05)
        t = time.monotonic()
        self.agent.proc.terminate()
        self.assertEqual(self.agent.wait_exit(30), 0)
        self.assertLess(time.monotonic() - t, 10)

    def test_idle(self):
        """An idle agent uses next to no CPU: below 1 % of one."""
        for i in range(100):
            self.ch.call("NOP")
        time.sleep(1.2)
        a = self.agent.counter("poller_ns") + self.agent.counter("worker_ns")
        time.sleep(2)
        self.assertLess(self.agent.counter("poller_ns") + self.agent.counter("worker_ns") - a, 20e6)

    def test_heartbeats(self):
        h = self.create("f")
        other = self.agent.attach()
        h2 = other.open(other.root(), "f")
        self.ch.call("FLOCK", handle=h, arg0=fcntl.LOCK_EX)
        other.submit("FLOCK", handle=h2, arg0=fcntl.LOCK_EX)
        beat = lambda: struct.unpack_from("<Q", other.mem, 4096 + 64)[0]
        for _ in range(5):
            a = beat()
            time.sleep(0.2)
            self.assertGreater(beat(), a)
        a = self.agent.counter("heartbeat")
        time.sleep(1.1)
        self.assertGreater(self.agent.counter("heartbeat"), a)

    def test_hot_reads(self):
        """Reads from a mapping of the file see what read(2) would: others' writes, and the end of the file wherever it is now."""
        path = os.path.join(self.dir, "hot")
        data = bytes(random.Random(1).randrange(256) for _ in range(3 * 4096 + 100))
        with open(path, "wb") as f:
            f.write(data)
        h = self.ch.open(self.root, "hot")
        size = len(data)
        buf = self.ch.data_off()

        def read(off, n, hint):
            res = self.ch.call("READ", handle=h, off=off, buf=buf, length=n, arg1=hint)
            return self.ch.get(buf, res) if res > 0 else b"" if res == 0 else res

        for i in range(600):
            off, n = i * 37 % (size + 50), 1 + i * 101 % 8000
            self.assertEqual(read(off, n, i & 1), data[off:off + n])
        for turn in range(40):
            size = (turn * 3001) % 20000
            os.truncate(path, size)
            data = (data + bytes(20000))[:size]
            self.assertEqual(read(0, 20000, turn & 1), data)
            self.assertEqual(read(size, 10, 1), b"")
            with open(path, "r+b") as f:
                f.seek(size // 2)
                f.write(b"new%d" % turn)
                data = data[:size // 2] + b"new%d" % turn + data[size // 2 + 3 + len(str(turn)):]
            self.assertEqual(read(0, 20000, turn & 1), data)
        with open(path, "r+b") as f:  # cut off and put back again and again, in the middle of reads
            os.ftruncate(f.fileno(), 1 << 20)
            h = self.ch.open(self.root, "hot")
            for _ in range(60):
                self.assertEqual(self.ch.call("READ", handle=h, off=0, buf=15 << 20, length=512 << 10), 512 << 10)
            end = time.monotonic() + 1
            child = os.fork()
            if not child:
                while time.monotonic() < end:
                    os.ftruncate(f.fileno(), 0)
                    os.ftruncate(f.fileno(), 1 << 20)
                os._exit(0)
            while time.monotonic() < end:
                self.assertIn(self.ch.call("READ", handle=h, off=0, buf=15 << 20, length=512 << 10), range((512 << 10) + 1))
            os.waitpid(child, 0)

    def test_slow_calls_are_left_behind(self):
        """A call that blocks in the poller's own thread holds up nobody: the other thread takes the poller over, again and again.
        The calls block in truncate(2), because this process has leases on the files."""
        handler = signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the kernel tells a lease's holder
        leases, slow = [], []
        try:
            for turn in range(3):
                for i in range(2):  # the second one finds no stand-by, and goes to a worker
                    name = "slow%d" % i
                    fd = os.open(os.path.join(self.dir, name), os.O_RDONLY | os.O_CREAT, 0o644)
                    leases.append(fd)
                    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                    buf, n = self.ch.path(name, lane=1 + i)
                    slow.append(self.ch.submit("TRUNCATE", lane=1 + i, handle=self.root, buf=buf, length=n, off=10 + turn))
                    for k in range(20):
                        self.assertEqual(self.ch.call("NOP", arg0=k), k)
                        self.assertEqual(self.ch.stat(self.root, "slow0").size, 0)
                self.assertFalse(any(s.done() for s in slow))
                for fd in leases:
                    os.close(fd)
                self.assertEqual([s.wait() for s in slow], [0, 0])
                self.assertEqual(self.ch.stat(self.root, "slow1").size, 10 + turn)
                for i in range(2):
                    self.ch.path_op("UNLINK", self.root, "slow%d" % i)
                leases, slow = [], []
        finally:
            for fd in leases:
                os.close(fd)
            signal.signal(signal.SIGIO, handler)

    def test_lanes_come_and_go(self):
        for i in range(300):
            lane = i % 128
            self.ch.use_lane(lane, 1 + i % 8)
            self.assertEqual(self.ch.call("NOP", lane=lane, arg0=i), i)
            self.ch.drop_lane(lane)

    def test_earlier_incarnation(self):
        """What an earlier incarnation had fetched and not completed is answered with EIO; the rest is executed."""
        ch = self.ch
        ch.use_lane(7, 3)
        self.agent.detach_keeping(ch)
        lane = ch.lane_off(7)
        a = ch.submit("NOP", lane=7, arg0=1)
        b = ch.submit("NOP", lane=7, arg0=2)
        ch.set_u32(lane + 192, 1)  # head: one fetched, none done
        self.agent.reattach(ch)
        self.assertEqual(a.wait(), -errno.EIO)
        self.assertEqual(b.wait(), 2)


if __name__ == "__main__":
    unittest.main()
