#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Agents that are killed, and the next one, which goes on: open files, positions, pending calls, and what has ended meanwhile.

That a call was executed but not answered is made so: it is answered, the agent is killed, and the lane's done index is put back by
one, as if the agent had died before it published the completion. The next agent must answer it once more, and not do it again.
"""
import errno
import fcntl
import os
import random
import struct
import sys
import tempfile
import time
import unittest

from harness import LK_GET, LK_OFD_SET, LK_SET, OWN_STATE, RESUMED, Agent, Call

KEEP = 1 << 20
SEED = 0


class Recover(unittest.TestCase):
    pollers = 1

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.agent = Agent(self.dir.name, keep=KEEP, pollers=self.pollers)
        self.agent.__enter__()
        self.a = self.agent.attach()
        self.root = self.a.root()

    def tearDown(self):
        self.agent.__exit__(None, None, None)
        self.dir.cleanup()

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def put(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)

    def data(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def open(self, name, flags=os.O_RDWR | os.O_CREAT, mode=0o600, **kw):
        h = self.a.open(self.root, name, flags, mode, **kw)
        self.assertGreater(h, 0)
        return h

    def again(self, **kw):
        self.agent.crash()
        self.agent.restart(**kw)

    def unanswered(self, lane=0):
        """The agent dies, and the lane's last completion was not published. Returns that call, to be waited for."""
        ch = self.a
        self.agent.crash()
        done = ch.seen[lane] - 1
        cqe = ch.cqes_off + (lane * ch.entries + done % ch.depth[lane]) * 16
        call = Call(ch, lane, struct.unpack_from("<I", ch.mem, cqe)[0])
        struct.pack_into("<IIq", ch.mem, cqe, 0, 0, 0)
        ch.set_u32(ch.lane_off(lane) + 128, done)
        ch.seen[lane] = done
        ch.calls[lane, call.tag] = call
        self.agent.restart()
        return call

    def pos(self, h):
        return self.a.call("SEEK", handle=h, off=0, arg0=os.SEEK_CUR)

    # open files

    def test_open_files(self):
        """Handles keep their names, flags and positions, also of files that were renamed meanwhile."""
        a = self.a
        self.put("text", b"0123456789" * 10)
        os.mkdir(self.path("dir"))
        for i in range(300):
            self.put("dir/%03d" % i, b"")
        os.symlink("text", self.path("link"))
        h = self.open("text")
        ap = self.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        ro = self.open("text", os.O_RDONLY | os.O_NOATIME)
        d = self.open("dir", os.O_RDONLY | os.O_DIRECTORY)
        ln = self.open("link", os.O_PATH | os.O_NOFOLLOW)
        sync = self.open("text", os.O_RDWR | os.O_DSYNC | os.O_NOFOLLOW)
        tmp = self.open(".", os.O_RDWR | os.O_TMPFILE)
        flags = {x: a.call("GETFL", handle=x) for x in (h, ap, ro, d, sync)}
        self.assertEqual(a.read(h, 7), b"0123456")
        self.assertEqual(a.write(ap, b"one"), 3)
        self.assertEqual(a.call("SETFL", handle=h, arg0=os.O_NONBLOCK | os.O_APPEND), 0)
        flags[h] = a.call("GETFL", handle=h)
        first = a.readdir(d, 2048)
        self.assertEqual(a.write(tmp, b"no name"), 7)
        os.rename(self.path("text"), self.path("other"))
        os.rename(self.path("dir"), self.path("other dir"))
        for turn in range(3):
            self.again()
            self.assertEqual({x: a.call("GETFL", handle=x) for x in flags}, flags)
            self.assertEqual(self.pos(h), 7 + turn)
            self.assertEqual(a.read(h, 1), b"%d" % (7 + turn))
        self.assertEqual(a.write(ap, b"two", off=0), 3)
        self.assertEqual(self.data("log"), b"onetwo")
        self.assertEqual(a.read(ro, 4), b"0123")
        self.assertEqual(a.write(ro, b"x"), -errno.EBADF)
        self.assertEqual(a.readlink(ln, ""), "text")
        self.assertEqual(a.read(ln, 1), -errno.EBADF)
        self.assertEqual(a.getpath(d), "/other dir")
        names = [n for n, *_ in first]
        while True:
            more = a.readdir(d, 2048)
            if not more:
                break
            names += [n for n, *_ in more]
        self.assertEqual(sorted(names), sorted([".", ".."] + ["%03d" % i for i in range(300)]))
        self.assertEqual(self.root, a.root())  # the same root again, not another handle
        self.assertGreater(self.open("new", ticket=a.ticket()), 0)
        self.assertEqual(a.close(h), 0)
        self.again()
        self.assertEqual(a.read(h, 1), -errno.EIO)
        self.assertEqual(a.stat(sync).size, 100)

    def test_unlinked_stays_while_the_file_system_does(self):
        h = self.open("gone")
        keep = os.open(self.path("gone"), os.O_RDONLY)  # what keeps its inode while no agent does
        self.assertEqual(self.a.write(h, b"still here"), 10)
        self.assertEqual(self.a.path_op("UNLINK", self.root, "gone"), 0)
        self.again()
        self.assertEqual(self.a.read(h, 20, off=0), b"still here")
        self.assertEqual(self.a.stat(h).nlink, 0)
        os.close(keep)

    def test_lost_file(self):
        """A file that nobody can open again: its handle fails, all others go on."""
        h, other = self.open("gone"), self.open("other")
        self.agent.crash()
        os.unlink(self.path("gone"))
        self.agent.restart()
        self.assertEqual(self.a.read(h, 1), -errno.EIO)
        self.assertEqual(self.a.write(other, b"x"), 1)

    def test_tickets_and_grants(self):
        a, b = self.a, self.agent.attach()
        t1, t2 = a.ticket(), a.ticket()
        h1 = a.open(self.root, "f", os.O_RDWR | os.O_CREAT, 0o600, ticket=t1, secret=42)
        h2 = a.open(self.root, "g", os.O_RDWR | os.O_CREAT, 0o600, ticket=t2, secret=43)
        self.assertEqual(b.call("GRANT", handle=h1, arg2=42), 0)
        self.assertEqual(b.write(h1, b"from b"), 6)
        self.again()
        self.assertEqual(b.write(h1, b", twice"), 7)
        self.assertEqual(b.call("GRANT", handle=h2, arg2=44), -errno.EACCES)
        self.assertEqual(b.call("GRANT", handle=h2, arg2=43), 0)
        self.assertEqual(a.open(self.root, "f", ticket=t1), -errno.EBUSY)
        self.agent.release(t1)
        self.wait_open(2)  # a's root, and h2
        self.assertLess(b.call("READ", handle=h1), 0)
        self.again()
        self.assertEqual(b.write(h2, b"x"), 1)
        # What belongs to a ticket stays when its session ends, in an absence, too; what is granted to one that is gone does not.
        self.again(without=(a,))
        self.assertEqual(b.write(h2, b"y"), 1)
        self.wait_open(1)
        self.agent.release(t2)
        self.wait_open(0)

    def wait_open(self, n):
        end = time.monotonic() + 10
        while self.agent.counter("open_files") != n:
            self.agent.pump(0.05)
            self.assertLess(time.monotonic(), end, "%d open" % self.agent.counter("open_files"))

    def test_sessions_that_do_not_come_back(self):
        b = self.agent.attach()
        rb = b.root()
        b.open(rb, "f", os.O_RDWR | os.O_CREAT, 0o600)
        self.agent.crash()
        self.agent.restart(without=(b,), resumed=False)
        self.wait_open(3)
        self.agent.send(RESUMED)
        self.wait_open(1)

    # calls

    def test_calls_wait(self):
        """Calls that are made while no agent is there are executed by the next."""
        h = self.open("f")
        self.agent.crash()
        a = self.a
        a.put(a.data_off(0), b"late")
        calls = [a.submit("WRITE", handle=h, buf=a.data_off(0), length=4, flags=1) for _ in range(5)]
        other = a.submit("NOP", lane=3, arg0=77)
        time.sleep(0.05)
        self.assertFalse(any(c.done() for c in calls))
        self.agent.restart()
        self.assertEqual([c.wait() for c in calls], [4] * 5)
        self.assertEqual(other.wait(), 77)
        self.assertEqual(self.data("f"), b"late" * 5)

    def test_executed_once(self):
        """What was executed and not answered is answered, and not executed again."""
        a = self.a
        self.put("f", b"0123456789")
        h = self.open("f")
        self.assertEqual(a.read(h, 4), b"0123")
        c = self.unanswered()
        self.assertEqual((c.wait(), a.get(a.data_off(), 4)), (4, b"0123"))
        self.assertEqual(self.pos(h), 4)
        self.assertEqual(a.call("SEEK", handle=h, off=3, arg0=os.SEEK_CUR), 7)
        self.assertEqual(self.unanswered().wait(), 7)
        self.assertEqual(self.pos(h), 7)
        self.assertEqual(a.write(h, b"xy"), 2)
        self.assertEqual(self.unanswered().wait(), 2)
        self.assertEqual(self.pos(h), 9)
        self.assertEqual(self.data("f"), b"0123456xy9")

    def test_append_once(self):
        a = self.a
        h = self.open("f", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.assertEqual(a.write(h, b"one"), 3)
        self.assertEqual(self.unanswered().wait(), 3)
        self.assertEqual(self.data("f"), b"one")
        self.assertEqual(self.pos(h), 3)

    def test_open_once(self):
        h = self.open("new", os.O_RDWR | os.O_CREAT | os.O_EXCL, ticket=self.a.ticket())
        c = self.unanswered()
        self.assertEqual(c.wait(), h)
        self.assertEqual(c.flags >> 16 & 15, 8)
        self.assertEqual(self.a.write(h, b"x"), 1)

    def test_close_once(self):
        h = self.open("new", ticket=self.a.ticket())
        self.assertEqual(self.a.close(h), 0)
        self.assertEqual(self.unanswered().wait(), 0)

    def test_readdir_once(self):
        a = self.a
        for i in range(100):
            self.put("%02d" % i, b"")
        d = self.open(".", os.O_RDONLY)
        names = [n for n, *_ in a.readdir(d, 1024)]
        self.assertGreater(self.unanswered().wait(), 0)
        while True:
            more = [n for n, *_ in a.readdir(d, 1024)]
            if not more:
                break
            names += more
        self.assertEqual(len(names), 102)
        self.assertEqual(len(set(names)), 102)

    def test_copy_once(self):
        """A copy at both positions, of which one had been moved when the agent died."""
        a = self.a
        self.put("from", b"0123456789")
        for half in (False, True):
            f, t = self.open("from"), self.open("to", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            self.assertEqual(a.call("COPY", handle=f, arg0=4, arg1=t, flags=3), 4)
            if half:
                self.forget_last_move(t)
            self.assertEqual(self.unanswered().wait(), 4)
            self.assertEqual((self.pos(f), self.pos(t)), (4, 4))
            self.assertEqual(self.data("to"), b"0123")

    def entry(self, h):
        """Offset of a handle's entry in the tables."""
        off, size, _ = struct.unpack_from("<III", self.tables(4096), 16)
        return off + size * (h & 0xffffffff)

    def tables(self, n, off=0):
        return os.pread(self.agent.kept[OWN_STATE], n, off)

    def forget_last_move(self, h):
        """As if the agent had died before it noted the last move of the handle's position."""
        at = self.entry(h) + 148
        now = struct.unpack("<I", self.tables(4, at))[0]
        os.pwrite(self.agent.kept[OWN_STATE], struct.pack("<I", 1 - now), at)

    def test_out_of_turn(self):
        """Completions that overtake a call that waits: only that one is begun again, however many there were."""
        a, lane = self.a, 5
        b = self.agent.attach()
        rb = b.root()
        fb = b.open(rb, "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fa, h = self.open("lock"), self.open("f", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for turn in range(4):
            self.assertEqual(b.call("FLOCK", handle=fb, arg0=fcntl.LOCK_EX), 0)
            before = len(self.data("f"))
            a.use_lane(lane, 2)
            a.put(a.data_off(lane), b"abcd")
            w = a.submit("FLOCK", lane=lane, handle=fa, arg0=fcntl.LOCK_EX)
            for _ in range(3):
                c = a.submit("WRITE", lane=lane, handle=h, buf=a.data_off(lane), length=4)
                self.assertEqual(c.wait(), 4)
            for _ in range(2):
                self.again()
                time.sleep(0.02)
                self.assertFalse(w.done())
            self.assertEqual(b.call("FLOCK", handle=fb, arg0=fcntl.LOCK_UN), 0)
            self.assertEqual(w.wait(), 0)
            self.assertEqual(len(self.data("f")) - before, 12, "turn %d" % turn)
            self.assertEqual(a.call("FLOCK", handle=fa, arg0=fcntl.LOCK_UN), 0)

    # locks

    def now(self, call):
        """The result of a call before which the agent asks the broker whether locks are gone."""
        while not call.done():
            self.agent.pump(0.001)
        return call.res

    def held(self, ch, h, size):
        """What another sees of the record locks on [0, size): a string of r, w and -."""
        out = ""
        for at in range(size):
            self.assertEqual(self.now(ch.lock_call(h, LK_GET, fcntl.F_WRLCK, at, 1)), 0)
            out += {fcntl.F_UNLCK: "-", fcntl.F_WRLCK: "w", fcntl.F_RDLCK: "r"}[ch.lock_result()[0]]
        return out

    def test_record_locks(self):
        """Ranges that are set, joined, cut and cleared at random, with kills between: all is held as it was told."""
        rng = random.Random(SEED)
        b = self.agent.attach()
        fa = self.open("f")
        fb = b.open(b.root(), "f", os.O_RDWR)
        size, model = 24, ["-"] * 24
        kinds = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "-": fcntl.F_UNLCK}
        for i in range(120):
            start = rng.randrange(size)
            n = rng.randrange(1, size - start + 1)
            kind = rng.choice("rw-")
            self.assertEqual(self.a.lock(fa, LK_SET, kinds[kind], start, n), 0)
            model[start:start + n] = kind * n
            if i % 4 == 0:
                self.again()
            if i % 5 == 0:
                self.assertEqual(self.held(b, fb, size), "".join(model), "step %d" % i)
        self.agent.crash()
        self.agent.restart(without=(self.a,))
        self.agent.proc_exit(self.a.process)
        self.assertEqual(self.held(b, fb, size), "-" * size)

    def test_lock_owners(self):
        """Each kind of lock goes with its owner, after a restart as before."""
        b = self.agent.attach()
        rb = b.root()
        for kind in ("flock", "posix", "ofd"):
            fa, fb = self.open(kind, ticket=self.a.ticket()), b.open(rb, kind, os.O_RDWR | os.O_CREAT, 0o600)

            def lock(ch, h):
                if kind == "flock":
                    return self.now(ch.submit("FLOCK", handle=h, arg0=fcntl.LOCK_EX | fcntl.LOCK_NB))
                return self.now(ch.lock_call(h, LK_SET if kind == "posix" else LK_OFD_SET, fcntl.F_WRLCK))
            self.assertEqual(lock(self.a, fa), 0)
            self.again()
            self.assertEqual(lock(b, fb), -errno.EAGAIN)
            self.assertEqual(lock(self.a, fa), 0)  # its own
            self.again()
            self.assertEqual(self.a.close(fa), 0)
            self.assertEqual(lock(b, fb), 0)
            self.again()
            fa = self.open(kind)
            self.assertEqual(lock(self.a, fa), -errno.EAGAIN)

    # mapped files

    def test_mapped(self):
        """What was stored into a mapping before and while no agent was there reaches the file; writes are seen in it after that."""
        with tempfile.TemporaryDirectory() as d, Agent(d, keep=KEEP, objects=True) as agent:
            ch = agent.attach()
            h = ch.open(ch.root(), "f", os.O_RDWR | os.O_CREAT, 0o600)
            self.assertEqual(ch.write(h, b"0123456789"), 10)
            self.assertEqual(ch.call("MAP", handle=h, arg0=3, buf2=ch.data_off(), len2=24), 0)
            number, token, size = struct.unpack("<QQQ", ch.get(ch.data_off(), 24))
            mem = agent.objects[number][0]
            self.assertEqual((bytes(mem), size), (b"0123456789", 10))
            mem[2:4] = b"ab"
            agent.crash()
            mem[5:7] = b"cd"
            agent.restart()
            self.assertEqual(ch.read(h, 20, off=0), b"01ab4cd789")
            self.assertEqual(ch.write(h, b"XYZ", off=9), 3)
            self.assertEqual(bytes(mem), b"01ab4cd78XYZ")
            self.assertEqual(ch.call("MSYNC", arg1=number, arg0=12), 0)
            with open(os.path.join(d, "f"), "rb") as f:
                self.assertEqual(f.read(), b"01ab4cd78XYZ")
            agent.crash()
            agent.restart()
            self.assertEqual(ch.call("MAP_WRITE", arg1=number, arg2=token + 2), -errno.EACCES)
            self.assertEqual(ch.call("MAP_WRITE", arg1=number, arg2=token), 0)
            mem[0:1] = b"!"
            agent.idle(number)
            with open(os.path.join(d, "f"), "rb") as f:
                self.assertEqual(f.read(), b"!1ab4cd78XYZ")
            agent.crash()
            agent.restart()
            self.assertEqual(ch.read(h, 20, off=0), b"!1ab4cd78XYZ")

    def test_mapped_read_only(self):
        """A write that was cut short between the file and what its mappings show."""
        with tempfile.TemporaryDirectory() as d, Agent(d, keep=KEEP, objects=True) as agent:
            ch = agent.attach()
            h = ch.open(ch.root(), "f", os.O_RDWR | os.O_CREAT, 0o600)
            self.assertEqual(ch.write(h, b"old" * 5), 15)
            self.assertEqual(ch.call("MAP", handle=h, arg0=1, buf2=ch.data_off(), len2=24), 0)
            number = struct.unpack("<Q", ch.get(ch.data_off(), 8))[0]
            agent.crash()
            with open(os.path.join(d, "f"), "r+b") as f:
                f.write(b"new")
            agent.restart()
            self.assertEqual(bytes(agent.objects[number][0]), b"newoldoldoldold")

    # damage

    def test_damaged(self):
        """Tables with anything wrong in them are given up: old handles fail, what pended ends so, and the domain serves."""
        rng = random.Random(SEED)
        a = self.a
        for where in ("header", "entry", "state", "position"):
            self.root = a.root()
            h = self.open("f", os.O_RDWR | os.O_CREAT, ticket=a.ticket())
            self.assertEqual(a.write(h, b"text"), 4)
            wait = a.submit("WRITE", handle=h, buf=a.data_off(0), length=1, publish=False)
            self.agent.crash()
            at = {"header": rng.randrange(116), "entry": self.entry(h) + rng.randrange(4, 144), "state": self.entry(h),
                  "position": self.entry(h) + 148}[where]
            byte = self.tables(1, at)[0] ^ (1 << rng.randrange(1, 8))
            os.pwrite(self.agent.kept[OWN_STATE], bytes([byte]), at)
            a.publish(0)
            self.agent.restart()
            self.assertEqual(wait.wait(), -errno.EIO, "%s, byte %d" % (where, at))
            self.assertEqual(a.read(h, 1), -errno.EIO)
            self.assertEqual(a.read(self.root, 1), -errno.EIO)
            root = a.root()
            h = a.open(root, "f")
            self.assertEqual(a.read(h, 10), b"text")

    def test_dies_again_and_again(self):
        """Agents that die while they rebuild give way to one that begins anew."""
        h = self.open("f")
        self.assertEqual(struct.unpack("<I", self.tables(4, 116))[0], 0)
        for tries in (2, 15, 16):  # as if so many had died
            self.again()
            self.assertEqual(self.a.read(h, 1), b"")
            self.agent.crash()
            os.pwrite(self.agent.kept[OWN_STATE], struct.pack("<I", tries), 116)
            if tries < 16:
                self.agent.restart()
                self.assertEqual(struct.unpack("<I", self.tables(4, 116))[0], 0)
        self.agent.restart()
        self.assertEqual(self.a.read(h, 1), -errno.EIO)
        self.assertGreater(self.a.open(self.a.root(), "f"), 0)


class TwoPollers(Recover):
    pollers = 2


class Load(unittest.TestCase):
    def test_kills_under_load(self):
        """Many lanes of several processes with calls under way all the time, and kills at any instant."""
        rng = random.Random(SEED)
        print("# seed %d" % SEED, flush=True)
        with tempfile.TemporaryDirectory() as d, Agent(d, keep=KEEP, pollers=2) as agent:
            procs = [agent.attach() for _ in range(3)]
            users = [User(ch, lane, d, rng) for ch in procs for lane in range(4)]
            for _ in range(40):
                end = time.monotonic() + rng.uniform(0, 0.05)
                while time.monotonic() < end:
                    for u in users:
                        u.go_on()
                agent.crash()
                for u in users:
                    u.go_on()
                agent.restart()
            for u in users:
                u.finish()
            self.assertGreater(sum(u.ended for u in users), 1000)


class User:
    """One lane and a file of its own, and what must be in it. Writes and reads at the position, several under way."""

    def __init__(self, ch, lane, path, rng):
        self.ch, self.lane, self.rng = ch, lane, rng
        name = "%d.%d" % (ch.session, lane)
        self.file = os.path.join(path, name)
        self.root = ch.root(lane=lane)
        self.h = ch.open(self.root, name, os.O_RDWR | os.O_CREAT, 0o600, lane=lane)
        self.model, self.pos, self.ended = bytearray(), 0, 0
        self.under_way = []  # (call, check)

    def go_on(self):
        while self.under_way and self.under_way[0][0].done():
            call, check = self.under_way.pop(0)
            check(call)
            self.ended += 1
        while len(self.under_way) < 4:
            self.begin()

    def begin(self):
        ch, i = self.ch, self.rng.randrange(3)
        buf = ch.data_off(self.lane) + 4096 * (self.ch.tails[self.lane] % 8)
        if i == 0:
            data = self.rng.randbytes(self.rng.randrange(1, 200))
            ch.put(buf, data)
            self.model[self.pos:self.pos + len(data)] = data
            self.pos += len(data)
            self.under_way.append((ch.submit("WRITE", lane=self.lane, handle=self.h, buf=buf, length=len(data), flags=1),
                                   lambda c, n=len(data): self.same(c.res, n)))
        elif i == 1:
            want = bytes(self.model[self.pos:self.pos + 100])
            self.pos += len(want)
            self.under_way.append((ch.submit("READ", lane=self.lane, handle=self.h, buf=buf, length=100, flags=1),
                                   lambda c, at=buf, data=want: self.same((c.res, ch.get(at, len(data))), (len(data), data))))
        else:
            step = self.rng.randrange(-self.pos, 20)
            if len(self.model) < self.pos + step:
                step = len(self.model) - self.pos
            self.pos += step
            self.under_way.append((ch.submit("SEEK", lane=self.lane, handle=self.h, off=step, arg0=os.SEEK_CUR),
                                   lambda c, n=self.pos: self.same(c.res, n)))

    def same(self, got, want):
        if got != want:
            raise AssertionError("lane %d of session %d: %r, not %r" % (self.lane, self.ch.session, got, want))

    def finish(self):
        while self.under_way:
            call, check = self.under_way.pop(0)
            call.wait()
            check(call)
            self.ended += 1
        with open(self.file, "rb") as f:
            self.same(f.read(), bytes(self.model))


if __name__ == "__main__":
    if "--seed" in sys.argv:
        i = sys.argv.index("--seed")
        SEED = int(sys.argv[i + 1])
        del sys.argv[i:i + 2]
    unittest.main()
