# SPDX-License-Identifier: BSD-3-Clause
"""File objects: memory that the agent has made, filled and granted, and that processes map."""

import errno
import fcntl
import mmap
import os
import signal
import struct

import peers
from peers import F_OBJECTS, F_SEGMENTS, wait_for
from segments import SegmentTests

NEW, GET, PUT, RESIZE, ZERO, GRANT, DROP = range(1, 8)
READ, WRITE = 1, 3
SIZE = 3 * 4096 + 100


class ObjectTests:
    take = SegmentTests.take

    def begin(self):
        """An agent with its own segment, an attached process, and an object of SIZE bytes."""
        a = self.agent(features=F_SEGMENTS | F_OBJECTS)
        self.own = self.take(a)[4]
        self.c, ch = self.pair(a)
        self.session = ch["session"]
        self.a = a
        self.assertEqual(self.ask(NEW, 77, length=SIZE, session=self.session), 0)

    def ask(self, op, number=77, off=0, length=0, arg=0, buf=0, session=0):
        """A request of the agent's: its result; self.off is the answer's."""
        seq = self.a.send(peers.OBJECT, peers.MSG_OBJECT.pack(op, session, number, off, length, arg, buf, 0))
        _, got, _, body, _ = self.a.expect(peers.OBJECT_DONE)
        self.assertEqual(got, seq)
        res, self.off = struct.unpack("<qQ", body)
        return res

    def put(self, data, off):
        os.pwrite(self.own, data, 8192)
        return self.ask(PUT, off=off, length=len(data), buf=8192)

    def get(self, off, length, skip=0):
        n = self.ask(GET, off=off, length=length, arg=skip, buf=16384)
        return os.pread(self.own, n, 16384) if n >= 0 else n

    def grant(self, rights, client=None, session=None):
        """Grants and fetches; (errno, fd)."""
        c = client or self.c
        self.assertGreater(self.ask(GRANT, arg=rights, session=session or self.session), 0)
        return c.fetch_object(77, rights)

    def map(self, rights=WRITE):
        err, fd = self.grant(rights)
        self.assertEqual(err, 0)
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if rights == WRITE else 0)
        m = mmap.mmap(fd, SIZE, mmap.MAP_SHARED, prot)
        os.close(fd)
        return m

    def expect_idle(self):
        _, _, _, body, _ = self.a.expect(peers.OBJECT_IDLE)
        return struct.unpack("<QQ", body)

    def objects(self):
        return self.broker.status()["objects"]

    def test_data(self):
        self.begin()
        self.assertEqual(self.get(0, 10), bytes(10))
        self.assertEqual(self.put(b"hello", 4096), 5)
        self.assertEqual(self.get(4090, 20), bytes(6) + b"hello" + bytes(9))
        self.assertEqual(self.get(SIZE - 3, 100), bytes(3))
        self.assertEqual(self.get(SIZE, 100), b"")
        # Holes are passed over.
        self.assertEqual((self.get(0, 10, skip=1), self.off), (b"hello" + bytes(5), 4096))
        self.assertEqual(self.get(8192, 10, skip=1), b"")
        self.assertEqual(self.ask(ZERO, off=4097, length=2), 0)
        self.assertEqual(self.get(4096, 5), b"h\0\0lo")
        self.assertEqual(self.ask(RESIZE, length=4098), 0)
        self.assertEqual(self.get(4096, 5), b"h\0")
        self.assertEqual(self.ask(RESIZE, length=SIZE), 0)
        self.assertEqual(self.get(4096, 5), b"h\0\0\0\0")

    def test_wrong_requests(self):
        self.begin()
        big = (1 << 64) - 1
        for op, kw, want in [
                (GET, {"length": (256 << 10) + 1}, errno.EINVAL), (GET, {"length": 1, "buf": 4 << 20}, errno.EINVAL),
                (GET, {"length": 4096, "buf": (4 << 20) - 1}, errno.EINVAL), (GET, {"off": big, "length": 1}, errno.EINVAL),
                (PUT, {"off": SIZE - 1, "length": 2}, errno.EINVAL), (PUT, {"off": big, "length": 2}, errno.EINVAL),
                (RESIZE, {"length": big}, errno.EINVAL), (RESIZE, {"length": 1 << 62}, errno.ENOMEM),
                (ZERO, {"length": 0}, errno.EINVAL), (ZERO, {"off": big, "length": 1}, errno.EINVAL),
                (GRANT, {"arg": 2, "session": 1}, errno.EINVAL), (GRANT, {"arg": 5, "session": 1}, errno.EINVAL),
                (GRANT, {"arg": 1, "session": 999}, errno.ESRCH), (GET, {"number": 78, "length": 1}, errno.ENOENT),
                (NEW, {"length": 1, "session": 1}, errno.EEXIST), (NEW, {"number": 0, "session": 1}, errno.EINVAL),
                (NEW, {"number": 5, "session": 999}, errno.ESRCH), (NEW, {"number": 5, "length": big, "session": 1}, errno.EINVAL),
                (NEW, {"number": 5, "length": 1 << 60, "session": 1}, errno.ENOMEM), (99, {}, errno.EINVAL)]:
            with self.subTest(op=op, kw=kw):
                self.assertEqual(self.ask(op, **kw), -want)
        self.assertEqual(self.objects(), 1)

    def test_shared(self):
        self.begin()
        self.put(b"from the file", 0)
        m, r = self.map(), self.map(READ)
        self.assertEqual(m[:13], b"from the file")
        m[0:4] = b"FROM"
        self.assertEqual((r[:4], self.get(0, 4)), (b"FROM", b"FROM"))
        self.put(b"THE", 5)
        self.assertEqual(m[:13], b"FROM THE file")
        m.close()
        r.close()
        self.expect_idle()

    def test_rights(self):
        self.begin()
        # Nothing without a grant, once for each, not more than was granted, not for another session.
        self.assertEqual(self.c.fetch_object(77, READ)[0], errno.EACCES)
        self.assertGreater(self.ask(GRANT, arg=READ, session=self.session), 0)
        self.assertEqual(self.c.fetch_object(77, WRITE)[0], errno.EACCES)
        other, ch = self.pair(self.a)
        self.assertEqual(other.fetch_object(77, READ)[0], errno.EACCES)
        err, fd = self.c.fetch_object(77, READ)
        self.assertEqual(err, 0)
        self.assertEqual(self.c.fetch_object(77, READ)[0], errno.EACCES)
        # Whoever may read can do nothing else.
        for wrong in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0),
                      lambda: mmap.mmap(fd, SIZE, mmap.MAP_SHARED, mmap.PROT_WRITE)):
            with self.assertRaises(OSError):
                wrong()
        if os.geteuid() == 0:
            pid = os.fork()
            if pid == 0:
                os.setuid(65534)
                try:
                    os.open("/proc/self/fd/%d" % fd, os.O_RDWR)
                    os._exit(1)
                except PermissionError:
                    os._exit(0)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
        os.close(fd)
        self.expect_idle()
        # Who may write may do what he may do with the file, but no seals.
        err, fd = self.grant(WRITE)
        self.assertEqual(err, 0)
        with self.assertRaises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        os.ftruncate(fd, 10)
        self.assertEqual(self.get(0, 100), bytes(10))
        self.assertEqual(self.ask(RESIZE, length=SIZE), 0)
        os.close(fd)
        self.assertEqual(self.expect_idle(), (77, 2))

    def test_held_by_mappings_alone(self):
        self.begin()
        m = self.map()
        self.assertEqual(self.ask(DROP, arg=1), -errno.EBUSY)
        pid = os.fork()
        if pid == 0:
            m.close()
            m = None
            signal.pause()
        m[0] = 1
        # A child that keeps its copy.
        keeper = os.fork()
        if keeper == 0:
            signal.pause()
        m.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.assertEqual(self.a.sync(), [])
        self.assertEqual(self.ask(DROP, arg=1), -errno.EBUSY)
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        self.assertEqual(self.expect_idle(), (77, 1))
        self.assertEqual(self.get(0, 1), b"\1")
        self.assertEqual(self.ask(DROP, arg=0), -errno.EBUSY)
        self.assertEqual(self.ask(DROP, arg=1), 0)
        self.assertEqual(self.objects(), 0)
        self.assertEqual(self.ask(GET, length=1), -errno.ENOENT)

    def test_grant_that_is_never_used(self):
        self.begin()
        self.assertEqual(self.ask(GRANT, arg=READ, session=self.session), 1)
        self.assertEqual(self.ask(DROP, arg=1), -errno.EBUSY)
        self.c.close()
        self.assertEqual(self.expect_after_detach(), (77, 1))

    def expect_after_detach(self):
        """The session's end and the object's come in either order."""
        idle = None
        for _ in range(2):
            m = self.a.recv()
            if m[0] == peers.OBJECT_IDLE:
                idle = struct.unpack("<QQ", m[3])
        return idle

    def test_agent_goes(self):
        self.begin()
        m = self.map()
        m[0] = 7
        self.assertEqual(self.ask(NEW, 78, length=10, session=self.session), 0)
        self.assertEqual(self.objects(), 2)
        self.agent_anew(self.a)
        wait_for(lambda: self.objects() == 1)  # the one that nobody maps is gone
        self.assertEqual(m[0], 7)
        m.close()
        wait_for(lambda: self.objects() == 0)

    def test_restart_of_the_broker(self):
        self.begin()
        m = self.map()
        self.put(b"kept", 0)
        self.assertEqual(self.ask(NEW, 78, length=10, session=self.session), 0)
        self.assertGreater(self.ask(GRANT, 78, arg=READ, session=self.session), 0)
        self.assertTrue(self.broker.ctl("restart")["ok"])
        wait_for(lambda: self.broker.answers() and self.broker.status()["broker"]["restarts"] == 1)
        self.assertEqual((self.objects(), self.get(0, 4), m[:4]), (2, b"kept", b"kept"))
        err, fd = self.c.fetch_object(78, READ)
        self.assertEqual(err, 0)
        os.close(fd)
        self.assertEqual(self.expect_idle(), (78, 1))
        m.close()
        self.assertEqual(self.expect_idle(), (77, 1))
