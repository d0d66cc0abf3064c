#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Locks between the sessions of one agent: flock, POSIX and OFD records, waiting, deadlock, owners that are gone."""
import errno
import fcntl
import os
import struct
import tempfile
import time
import unittest

from harness import (Agent, LK_GET, LK_OFD_GET, LK_OFD_SET, LK_OFD_SETW, LK_SET, LK_SETW, OP, SYNC, SYNCED)

RD, WR, UN = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK


class Locks(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.agent = Agent(self.dir.name, pollers=2)
        self.agent.__enter__()
        self.a, self.b = self.agent.attach(), self.agent.attach()
        self.ra, self.rb = self.a.root(), self.b.root()
        self.fa = self.a.open(self.ra, "f", os.O_RDWR | os.O_CREAT, 0o600, ticket=self.a.ticket())
        self.fb = self.b.open(self.rb, "f", os.O_RDWR, ticket=self.b.ticket())

    def tearDown(self):
        self.agent.__exit__(None, None, None)
        self.dir.cleanup()

    def now(self, call):
        """The result of a call that may need the broker's SYNC."""
        end = time.monotonic() + 5
        while not call.done() and time.monotonic() < end:
            self.agent.pump(0.001)
        return call.wait()

    def lock(self, ch, h, cmd, typ, start=0, length=0, lane=0, whence=0):
        return self.now(ch.lock_call(h, cmd, typ, start, length, whence, lane))

    def flock(self, ch, h, op, lane=0):
        return self.now(ch.submit("FLOCK", handle=h, arg0=op, lane=lane))

    def test_flock(self):
        sh, ex, un, nb = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB
        self.assertEqual(self.flock(self.a, self.fa, sh), 0)
        self.assertEqual(self.flock(self.b, self.fb, sh | nb), 0)
        self.assertEqual(self.flock(self.b, self.fb, ex | nb), -errno.EAGAIN)  # and has lost its shared one
        self.assertEqual(self.flock(self.a, self.fa, ex | nb), 0)
        w = self.b.submit("FLOCK", lane=1, handle=self.fb, arg0=ex)
        time.sleep(0.05)
        self.assertFalse(w.done())
        self.assertEqual(self.flock(self.a, self.fa, un), 0)
        self.assertEqual(w.wait(), 0)
        self.assertEqual(self.flock(self.a, self.fa, 77), -errno.EINVAL)
        # Two opens in one process conflict, too.
        f2 = self.b.open(self.rb, "f")
        self.assertEqual(self.flock(self.b, f2, sh | nb), -errno.EAGAIN)
        # Closing releases.
        self.assertEqual(self.b.close(self.fb), 0)
        self.assertEqual(self.flock(self.b, f2, sh | nb), 0)

    def test_posix_ranges(self):
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR, 0, 100), 0)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, UN, 40, 20), 0)  # [0,39] [60,99]
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR, 40, 20), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, RD, 39, 1), -errno.EAGAIN)
        self.assertEqual(self.lock(self.b, self.fb, LK_GET, RD, 30, 100), 0)
        typ, whence, start, length, pid, _ = self.b.lock_result()
        self.assertEqual((typ, whence, pid), (WR, os.SEEK_SET, self.a.pid))
        self.assertIn((start, length), ((0, 40), (60, 40)))
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, RD, 0, 40), 0)  # downgrade
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, RD, 0, 40), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR, 0, 40), -errno.EAGAIN)
        self.assertEqual(self.a.call("UNLOCK_ALL", handle=self.fa), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_GET, WR), 0)
        self.assertEqual(self.b.lock_result()[0], UN)

    def test_posix_same_process(self):
        """Two sessions of one process (before and after exec) are one owner."""
        c = self.agent.attach(process=self.a.process)
        fc = c.open(c.root(), "f", os.O_RDWR)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR), 0)
        self.assertEqual(self.lock(c, fc, LK_SET, WR, 10, 10), 0)
        self.agent.proc_exit(self.a.process)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR), 0)

    def test_modes_and_ranges(self):
        ro = self.a.open(self.ra, "f", os.O_RDONLY)
        wo = self.a.open(self.ra, "f", os.O_WRONLY)
        path = self.a.open(self.ra, "f", os.O_PATH)
        self.assertEqual(self.lock(self.a, ro, LK_SET, WR), -errno.EBADF)
        self.assertEqual(self.lock(self.a, wo, LK_SET, RD), -errno.EBADF)
        self.assertEqual(self.lock(self.a, path, LK_SET, RD), -errno.EBADF)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, 9), -errno.EINVAL)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR, -1, 0), -errno.EINVAL)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR, 5, -10), -errno.EINVAL)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR, 2**63 - 1, 2), -errno.EOVERFLOW)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR, 10, -10), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR, 10, 1), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR, 9, 1), -errno.EAGAIN)
        self.a.write(self.fa, b"x" * 50, off=0)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR, 0, 5, whence=os.SEEK_END), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR, 54, 1), -errno.EAGAIN)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR, 55, 1), 0)

    def test_ofd(self):
        f2 = self.a.open(self.ra, "f", os.O_RDWR)
        self.assertEqual(self.lock(self.a, self.fa, LK_OFD_SET, WR, 0, 10), 0)
        self.assertEqual(self.lock(self.a, f2, LK_OFD_SET, WR, 5, 10), -errno.EAGAIN)
        self.assertEqual(self.lock(self.a, f2, LK_SET, WR, 5, 10), -errno.EAGAIN)  # POSIX against OFD
        self.assertEqual(self.lock(self.a, f2, LK_OFD_GET, WR, 5, 10), 0)
        self.assertEqual(self.a.lock_result()[4], 0xffffffff)
        w = self.a.lock_call(f2, LK_OFD_SETW, WR, 0, 10, lane=1)
        self.assertEqual(self.a.close(self.fa), 0)
        self.assertEqual(w.wait(), 0)

    def test_wait_fifo(self):
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR), 0)
        first = self.b.lock_call(self.fb, LK_SETW, WR, 0, 10, lane=1)
        other = self.b.lock_call(self.fb, LK_SETW, RD, 100, 10, lane=2)
        time.sleep(0.05)
        self.assertFalse(first.done() or other.done())
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, UN, 50, 100), 0)
        self.assertEqual(other.wait(), 0)
        self.assertFalse(first.done())
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, UN), 0)
        self.assertEqual(first.wait(), 0)

    def test_deadlock(self):
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR, 0, 1), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR, 1, 1), 0)
        w = self.a.lock_call(self.fa, LK_SETW, WR, 1, 1, lane=1)
        time.sleep(0.05)
        self.assertEqual(self.lock(self.b, self.fb, LK_SETW, WR, 0, 1), -errno.EDEADLK)
        self.assertFalse(w.done())
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, UN), 0)
        self.assertEqual(w.wait(), 0)

    def test_cancel(self):
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR), 0)
        w = self.b.lock_call(self.fb, LK_SETW, WR, lane=1)
        time.sleep(0.02)
        self.assertEqual(self.b.call("CANCEL", arg0=1, arg1=w.tag + 1), -errno.ENOENT)
        self.assertEqual(self.a.call("CANCEL", arg0=1, arg1=w.tag), -errno.ENOENT)  # another's
        self.assertEqual(self.b.call("CANCEL", arg0=1, arg1=w.tag), 0)
        self.assertEqual(w.wait(), -errno.EINTR)

    def test_detach_while_waiting(self):
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR), 0)
        c = self.agent.attach()
        fc = c.open(c.root(), "f", os.O_RDWR)
        c.lock_call(fc, LK_SETW, WR, lane=1)
        time.sleep(0.02)
        self.assertEqual(self.agent.detach(c), 0)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, UN), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR), 0)

    def test_sync_finds_closed_owner(self):
        """A conflict is told only after the broker was asked: the owner may be closed and not reported yet."""
        ticket = self.a.ticket()
        f2 = self.a.open(self.ra, "f", os.O_RDWR, ticket=ticket)
        self.assertEqual(self.flock(self.a, f2, fcntl.LOCK_EX), 0)
        self.agent.auto_sync = False
        c = self.b.submit("FLOCK", handle=self.fb, arg0=fcntl.LOCK_EX | fcntl.LOCK_NB)
        m = self.agent.expect(SYNC)
        self.assertFalse(c.done())
        self.agent.release(ticket)
        self.agent.send(SYNCED, seq=m[1])
        self.assertEqual(c.wait(), 0)

    def test_sync_without_answer(self):
        self.assertEqual(self.flock(self.a, self.fa, fcntl.LOCK_EX), 0)
        self.agent.auto_sync = False
        t = time.monotonic()
        c = self.b.submit("FLOCK", handle=self.fb, arg0=fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.assertEqual(c.wait(), -errno.EAGAIN)
        self.assertGreater(time.monotonic() - t, 0.9)
        self.assertLess(time.monotonic() - t, 3)

    def test_release_ends_wait(self):
        """A file that is released while a call waits through it."""
        self.assertEqual(self.flock(self.a, self.fa, fcntl.LOCK_EX), 0)
        t = self.b.ticket()
        f2 = self.b.open(self.rb, "f", os.O_RDWR, ticket=t)
        w = self.b.submit("FLOCK", lane=1, handle=f2, arg0=fcntl.LOCK_EX)
        time.sleep(0.02)
        self.agent.release(t)
        self.assertEqual(w.wait(), -errno.EBADF)

    def test_many(self):
        """Every other byte: many records; then one over all."""
        for i in range(0, 2000, 2):
            self.assertEqual(self.a.lock(self.fa, LK_SET, WR, i, 1), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR, 1, 1), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR, 2, 1), -errno.EAGAIN)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, UN), 0)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR), 0)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, UN, 5, 1), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR, 5, 1), 0)

    def test_limit(self):
        """A process has an end of locks, and can still unlock then."""
        res = 0
        for i in range(0, 20000, 2):
            res = self.a.lock(self.fa, LK_SET, WR, i, 1)
            if res:
                break
        self.assertEqual(res, -errno.ENOLCK)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, UN, 0, 10), 0)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, WR, 0, 1), 0)
        self.assertEqual(self.lock(self.a, self.fa, LK_SET, UN), 0)
        self.assertEqual(self.lock(self.b, self.fb, LK_SET, WR), 0)


if __name__ == "__main__":
    unittest.main()
