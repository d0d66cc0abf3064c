#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The broker seen from attach.sock and agent.sock: sessions, tickets, ends, limits, malformed messages."""

import errno
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

import objects
import peers
import segments
from peers import Agent, Broker, Client, Closed, attach_pair, wait_for

NOBODY = 65534


def as_user(uid, func, gid=None, groups=()):
    """Runs func() in a child with other credentials; returns its result (text)."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(r)
            os.setgroups(list(groups))
            os.setgid(uid if gid is None else gid)
            os.setuid(uid)
            os.write(w, str(func()).encode())
            code = 0
        except BaseException as e:  # pylint: disable=broad-except
            os.write(w, ("exception %r" % e).encode())
        finally:
            os._exit(code)
    os.close(w)
    out = b""
    while True:
        piece = os.read(r, 65536)
        if not piece:
            break
        out += piece
    os.close(r)
    os.waitpid(pid, 0)
    return out.decode()


def memory_policy(memfd):
    """The kernel's word for the NUMA policy of a channel's memory, as a page of it is touched that nobody touched before."""
    with mmap.mmap(memfd, 1 << 20) as m:
        m[500000] = 1
        with open("/proc/self/numa_maps", encoding="ascii") as f:
            return next(line for line in f if "vhost-sc-channel" in line).split()[1]


class Case(unittest.TestCase):
    options = ()

    def setUp(self):
        self.broker = Broker(*self.options)
        self.addCleanup(self.broker.stop)

    def agent(self, **kw):
        a = Agent(self.broker, **kw)
        self.addCleanup(a.close)
        return a

    def client(self):
        c = Client(self.broker)
        self.addCleanup(c.close)
        return c

    def pair(self, agent, **kw):
        c, ch = attach_pair(self.broker, agent, **kw)
        self.addCleanup(c.close)
        return c, ch


class Node(Case):
    options = ("--numa-node", "0")

    def test_memory_of_a_node(self):
        """The kernel asks this node for a channel's pages, whoever touches them first."""
        c, _ = self.pair(self.agent())
        self.assertEqual(memory_policy(c.fds[0]), "prefer:0")
        self.assertEqual(self.broker.status()["limits"]["numa_node"], 0)


class AbsentNode(Case):
    options = ("--numa-node", "999")

    def test_does_without(self):
        c, _ = self.pair(self.agent())
        self.assertEqual(memory_policy(c.fds[0]), "default")
        self.assertIn("NUMA node 999", self.broker.read_log())


class Objects(objects.ObjectTests, Case):
    def agent_anew(self, old):
        old.close()


class Segments(segments.SegmentTests, Case):
    def agent_anew(self, old):
        old.close()
        return self.agent(hello=False)

    def test_old_agent(self):
        c, _ = self.pair(self.agent(), tickets=1)
        self.assertEqual(self.ask(c, list(c.tickets.values())[0], 65536), errno.EIO)

    def test_share_of_a_user(self):
        a, _, _ = self.start()

        def user():
            c = Client(self.broker)
            c.attach(tickets=20)
            sizes = []
            for fd in c.tickets.values():
                c.ask_segment(fd, 16 << 20)
                status = c.segment()[0]
                if status:
                    return "%d %d" % (len(sizes), status)
                sizes.append(fd)
            return len(sizes)

        def serve():
            a.expect_attach()
            while True:
                try:
                    m = a.recv()
                except (Closed, OSError):
                    return
                if m[0] == peers.SEGMENT:
                    a.send(peers.SEGMENT_TAKEN, struct.pack("<i", 0) + m[3][:4], seq=m[1])
                elif m[0] in (peers.DETACH, peers.SEGMENT_END):
                    return

        t = threading.Thread(target=serve)
        t.start()
        got = as_user(NOBODY, user)
        t.join()
        # Three quarters of 256 MiB.
        self.assertEqual(got, "12 %d" % errno.ENOBUFS)


class Attach(Case):
    def test_attach_and_end(self):
        a = self.agent()
        self.assertEqual(a.incarnation, 1)
        c, ch = self.pair(a)
        self.assertEqual(c.rep["incarnation"], 1)
        self.assertEqual(c.rep["loopback"], 1)
        self.assertEqual(c.rep["deadline_ms"], 300000)
        self.assertEqual((ch["pid"], ch["uid"], ch["gid"]), (os.getpid(), 0, 0))
        self.assertEqual(ch["layout"], c.rep["layout"])
        self.assertEqual(c.host_page(), (0x31484353, 2, c.rep["session"], c.rep["slot"], 1))
        # The doorbells are two, and connect the two sides.
        os.eventfd_write(c.fds[1], 1)
        self.assertEqual(os.eventfd_read(ch["fds"][1]), 1)
        os.eventfd_write(ch["fds"][2], 1)
        self.assertEqual(os.eventfd_read(c.fds[2]), 1)
        st = self.broker.status()
        self.assertEqual(st["state"], "ready")
        self.assertEqual(st["channels"][0]["pid"], os.getpid())
        c.close()
        self.assertEqual(a.expect_detach(), ch["session"])
        self.broker.wait_status(channels_used=0, channels=[])

    def test_memory_is_sealed(self):
        c, _ = self.pair(self.agent())
        with self.assertRaises(PermissionError):
            os.ftruncate(c.fds[0], 4096)
        with self.assertRaises(PermissionError):
            os.ftruncate(c.fds[0], 64 << 20)
        import fcntl
        seals = fcntl.fcntl(c.fds[0], fcntl.F_GET_SEALS)
        want = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
        self.assertEqual(seals & want, want)

    def test_memory_of_no_node(self):
        c, _ = self.pair(self.agent())
        self.assertEqual(memory_policy(c.fds[0]), "default")
        self.assertNotIn("numa_node", self.broker.status()["limits"])

    def test_memory_is_never_reused(self):
        a = self.agent()
        c, ch = self.pair(a)
        inode = os.fstat(c.fds[0]).st_ino
        os.pwrite(c.fds[0], b"secret", 65536)
        c.close()
        a.expect_detach()
        for _ in range(2 * peers.CHANNELS):
            c, ch2 = self.pair(a)
            self.assertNotEqual(ch2["session"], ch["session"])
            self.assertNotEqual(os.fstat(c.fds[0]).st_ino, inode)
            self.assertEqual(os.pread(c.fds[0], 6, 65536), bytes(6))
            c.close()
            a.expect_detach()

    def test_down_and_starting(self):
        c = self.client()
        self.assertEqual(c.attach()["status"], peers.DOWN)
        a = self.agent(hello=False)
        self.broker.wait_status(state="starting")
        self.assertEqual(c.attach()["status"], peers.STARTING)
        t0 = time.monotonic()
        self.assertEqual(c.attach(wait_ms=300)["status"], peers.STARTING)
        self.assertGreater(time.monotonic() - t0, 0.28)
        c.request(wait_ms=20000)
        a.hello()
        a.expect_start()
        a.expect_attach()
        self.assertEqual(c.reply()["status"], peers.OK)

    def test_versions_and_roles(self):
        a = self.agent()
        c = self.client()
        rep = c.attach(abi_min=3, abi_max=4)
        self.assertEqual(rep["status"], peers.VERSION)
        self.assertIn("versions 3 to 4", rep["text"])
        self.assertEqual(c.attach(role=2)["status"], peers.ROLE)
        # A refused client may ask again.
        c.request(role=1)
        a.expect_attach()
        self.assertEqual(c.reply()["status"], peers.OK)

    def test_full(self):
        a = self.agent()
        clients = [self.pair(a)[0] for _ in range(peers.CHANNELS)]
        c = self.client()
        rep = c.attach()
        self.assertEqual(rep["status"], peers.FULL)
        self.assertIn("--channels", rep["text"])
        # While one is being given back, the next waits for it.
        clients[0].close()
        wait_for(lambda: self.broker.status()["channels_used"] == peers.CHANNELS - 1)
        c.request()
        a.expect_detach()
        a.expect_attach()
        self.assertEqual(c.reply()["status"], peers.OK)

    def test_agent_refuses_channel(self):
        a = self.agent()
        c = self.client()
        c.request()
        a.expect_attach(status=-errno.ENOMEM)
        self.assertEqual(c.reply()["status"], peers.ERROR)
        a.expect_detach()
        self.broker.wait_status(channels_used=0)

    def test_agent_silent(self):
        a = self.agent()
        c = self.client()
        c.request()
        a.expect_attach(answer=False)
        rep = c.reply(20)
        self.assertEqual(rep["status"], peers.ERROR)
        self.assertIn("did not answer", rep["text"])
        # It does not detach either: the slot comes back nevertheless.
        a.expect_detach(answer=False)
        wait_for(lambda: not self.broker.status()["channels"])

    def test_client_dies_while_attaching(self):
        a = self.agent()
        c = self.client()
        c.request()
        a.expect_attach(answer=False)
        c.close()
        a.expect_detach()
        self.broker.wait_status(channels_used=0, connections=0)

    def test_latency(self):
        a = self.agent()
        best = 1e9
        for _ in range(20):
            t0 = time.monotonic()
            c, _ = self.pair(a, tickets=8)
            best = min(best, time.monotonic() - t0)
            c.close()
            a.collect(peers.DETACH, peers.RELEASE)
            a.sync()
        print("attach with 8 tickets, agent and program in Python: best of 20: %.0f us" % (best * 1e6))
        self.assertLess(best, 0.5)


class Users(Case):
    options = ("--allow-user", "65534", "--allow-group", "4711", "--max-per-user", "2")

    def ask(self):
        c = Client(self.broker)
        rep = c.attach()
        return rep["status"], rep["text"]

    def test_allowed(self):
        a = self.agent()

        def attach():
            c = Client(self.broker)
            c.request()
            return c.reply()["status"]

        for uid, gid, groups, allowed in ((NOBODY, NOBODY, (), True), (1000, 1000, (), False),
                                          (1000, 1000, (5, 4711), True), (1000, 4711, (), True),
                                          (0, 0, (), True)):
            if not allowed:
                self.assertIn("user 1000 is not allowed", as_user(uid, self.ask, gid, groups))
                continue
            pid = os.fork()
            if pid == 0:
                os.setgroups(list(groups))
                os.setgid(gid)
                os.setuid(uid)
                os._exit(attach())
            ch = a.expect_attach()
            self.assertEqual((ch["uid"], ch["gid"], tuple(ch["groups"])), (uid, gid, groups))
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), peers.OK)
            a.expect_detach()
            a.expect(peers.PROC_EXIT)

    def test_limit(self):
        a = self.agent()

        def three():
            cs = [Client(self.broker) for _ in range(3)]
            return [c.attach()["status"] for c in cs] + [cs[2].rep["text"]]

        pid = os.fork()
        if pid == 0:
            for _ in range(2):
                a.expect_attach()
            os._exit(0)
        out = as_user(NOBODY, three)
        os.waitpid(pid, 0)
        self.assertIn("[0, 0, 6, 'user 65534 has 2 channels", out)
        self.assertIn("--max-per-user", out)

    def test_groups(self):
        self.agent()
        out = as_user(NOBODY, self.ask, groups=range(1, 300))
        self.assertIn("(8, ", out)


class Tickets(Case):
    def test_directions(self):
        """What ticket.h says of the two ends, from the app's side."""
        a = self.agent()
        c, _ = self.pair(a, tickets=1)
        (number, fd), = c.tickets.items()
        self.assertEqual(number >> 32, c.rep["session"])
        s = socket.socket(fileno=os.dup(fd))
        with self.assertRaises(BrokenPipeError):
            s.send(b"x")
        with self.assertRaises(BlockingIOError):
            s.recv(1)
        s.close()
        # No hang-up while a copy is open.
        self.assertEqual(a.sync(), [])
        copy = os.dup(fd)
        c.close_tickets()
        self.assertEqual(a.sync(), [])
        os.close(copy)
        self.assertEqual(a.expect_release(), [number])

    def test_sync_sees_every_close(self):
        a = self.agent()
        c, _ = self.pair(a, tickets=32)
        for _ in range(20):
            c.more_tickets(32)
        for i, (number, fd) in enumerate(list(c.tickets.items())):
            os.close(fd)
            del c.tickets[number]
            if i % 7 == 0:
                seen = []
            msgs = a.sync()
            for m in msgs:
                f = peers.MSG_RELEASE.unpack(m[3])
                seen += f[2:2 + f[0]]
            self.assertIn(number, seen)

    def test_batches(self):
        a = self.agent()
        c, _ = self.pair(a)
        while len(c.tickets) < 600:
            self.assertEqual(c.more_tickets(32)[0], 0)
        numbers = set(c.tickets)
        self.assertEqual(self.broker.status()["tickets"], len(numbers))
        c.close_tickets()
        got = set()
        while got != numbers:
            got.update(a.expect_release())
        self.assertEqual(self.broker.status()["tickets"], 0)

    def test_told_again(self):
        """An agent may die before it has acted on what it was told: the next is told once more, in batches, too."""
        a = self.agent()
        c, _ = self.pair(a)
        while len(c.tickets) < 600:
            self.assertEqual(c.more_tickets(32)[0], 0)
        numbers = set(c.tickets)
        c.close_tickets()
        for _ in range(2):
            got = set()
            while got != numbers:
                got.update(a.expect_release())
            a.close()
            a = self.agent()
            a.expect(peers.ATTACH)

    def test_outlive_session(self):
        a = self.agent()
        c, ch = self.pair(a, tickets=2)
        (n1, fd1), (n2, fd2) = c.tickets.items()
        c.name(n1, 0x100000001, 0xabcdef, flags=2, mode=0o100000)
        child = subprocess.Popen(["sleep", "60"], pass_fds=[fd1])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        c.close()
        self.assertEqual(a.collect(peers.DETACH, peers.RELEASE), {peers.DETACH, peers.RELEASE})
        self.assertEqual(self.broker.status()["tickets"], 1)
        child.send_signal(signal.SIGKILL)
        child.wait()
        self.assertEqual(a.expect_release(), [n1])

    def test_claim(self):
        a = self.agent()
        c, _ = self.pair(a, tickets=3)
        (n1, fd1), (n2, fd2), (n3, fd3) = c.tickets.items()
        c.name(n1, 77, 1234567, flags=0o2001, mode=0o040000)
        c.name(n2, 78, 7654321)
        d, _ = self.pair(a)
        null = os.open("/dev/null", os.O_RDONLY)
        other = socket.socketpair()
        got = d.claim([fd2, null, fd1, other[0].fileno(), fd3])
        self.assertEqual(got, [(n2, 78, 7654321, 0, 0), (0,) * 5, (n1, 77, 1234567, 0o2001, 0o040000),
                               (0,) * 5, (0,) * 5])
        os.close(null)
        # Another session cannot rename a ticket.
        d.name(n1, 666, 666)
        self.assertEqual(d.claim([fd1])[0][1], 77)
        # Whoever holds a ticket may name it, but once, and nothing else.
        d.name(n1, 666, 666, fd=fd3)
        self.assertEqual(d.claim([fd3]), [(0,) * 5])
        d.name(n3, 79, 99, fd=fd3)
        d.name(n3, 666, 666, fd=fd3)
        self.assertEqual(d.claim([fd3, fd1]), [(n3, 79, 99, 0, 0), (n1, 77, 1234567, 0o2001, 0o040000)])
        c.name(n3, 80, 100)
        self.assertEqual(c.claim([fd3])[0][1], 80)  # asked where it was named: only one connection's messages have an order
        # Claims leave nothing open in the broker: the last copy of the program still counts.
        c.close_tickets()
        got = []
        while len(got) < 3:
            got += a.expect_release()
        self.assertEqual(sorted(got), sorted([n1, n2, n3]))

    def test_kill(self):
        """kill -9 releases everything: session, tickets, process."""
        a = self.agent()
        code = ("import sys,time;sys.path.insert(0,%r);import peers\n"
                "class B: path=lambda self,s: %r+'/'+s\n"
                "c=peers.Client(B());c.attach(tickets=5);c.more_tickets(32);print('up',flush=True);"
                "time.sleep(60)" % (os.path.dirname(os.path.abspath(__file__)), self.broker.dir))
        before = self.broker.fds()
        p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        ch = a.expect_attach()
        self.assertEqual(p.stdout.readline(), b"up\n")
        self.assertEqual(ch["pid"], p.pid)
        self.assertEqual(self.broker.status()["tickets"], 37)
        p.kill()
        p.wait()
        p.stdout.close()
        released = []
        types = set()
        while len(released) < 37 or types != {peers.DETACH, peers.RELEASE, peers.PROC_EXIT}:
            m = a.recv()
            types.add(m[0])
            if m[0] == peers.RELEASE:
                f = peers.MSG_RELEASE.unpack(m[3])
                released += f[2:2 + f[0]]
            elif m[0] == peers.PROC_EXIT:
                self.assertEqual(struct.unpack("<II", m[3])[0], ch["process"])
            else:
                a.send(peers.DETACHED, struct.pack("<iI", 0, ch["session"]), slot=ch["slot"])
        self.assertEqual(len(set(released)), 37)
        self.broker.wait_status(tickets=0, channels=[], processes=0, connections=0)
        wait_for(lambda: self.broker.fds() <= before + 2)

    def test_process_number_survives_exec(self):
        a = self.agent()
        code = ("import os,sys,time;sys.path.insert(0,%r);import peers\n"
                "class B: path=lambda self,s: %r+'/'+s\n"
                "c=peers.Client(B());c.attach()\n"
                "if len(sys.argv)<2: sys.stdin.readline();os.execv(sys.executable,[sys.executable,'-c',"
                "open('/proc/self/cmdline').read().split('\\0')[2],'again'])\n"
                "sys.stdin.readline()" % (os.path.dirname(os.path.abspath(__file__)), self.broker.dir))
        p = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True)
        first = a.expect_attach()
        p.stdin.write("go\n")
        p.stdin.flush()
        a.expect_detach()
        second = a.expect_attach()
        self.assertEqual(first["process"], second["process"])
        self.assertNotEqual(first["session"], second["session"])
        p.stdin.write("go\n")
        p.stdin.close()
        p.wait()
        self.assertEqual(a.collect(peers.PROC_EXIT), {peers.DETACH, peers.PROC_EXIT})

    def test_connection_kept_by_child(self):
        """A session ends with its process, even if a child holds the connection."""
        a = self.agent()
        pid = os.fork()
        if pid == 0:
            c = Client(self.broker)
            c.attach()
            if os.fork() == 0:
                time.sleep(5)
            os._exit(0)
        a.expect_attach()
        os.waitpid(pid, 0)
        a.expect_detach()
        a.expect(peers.PROC_EXIT)

    def test_too_many(self):
        """Descriptors run out: the asker gets ENFILE, the broker stays."""
        import resource
        self.broker.stop()
        old = resource.getrlimit(resource.RLIMIT_NOFILE)
        a = None
        try:
            # The broker raises its limit if it may; as root it may, so it is limited from outside.
            self.broker = Broker()
            self.addCleanup(self.broker.stop)
            pid = self.broker.proc.pid
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (120, 120))
            a = self.agent()
            c, _ = self.pair(a)
            status = 0
            while status == 0 and len(c.tickets) < 300:
                status, _ = c.more_tickets(32)
            self.assertEqual(status, errno.ENFILE)
            # New programs are refused or turned away, not left hanging.
            for _ in range(3):
                other = self.client()
                try:
                    other.request()
                    self.assertNotEqual(other.reply(20)["status"], peers.OK)
                except (Closed, BrokenPipeError, ConnectionResetError):
                    pass
                other.close()
            c.close_tickets()
            a.collect(peers.RELEASE)
            a.sync()
            self.assertEqual(c.more_tickets(5)[0], 0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, old)


class Malformed(Case):
    def expect_drop(self, c):
        with self.assertRaises((Closed, BrokenPipeError, ConnectionResetError)):
            for _ in range(3):
                c.recv(peers.REP, 5)

    def test_clients(self):
        a = self.agent()
        before = self.broker.fds()
        null = os.open("/dev/null", os.O_RDONLY)
        cases = [
            lambda c: c.sock.sendall(b"x"),
            lambda c: c.sock.sendall(b"\0" * 16),
            lambda c: c.send(peers.REQ, b""),
            lambda c: c.send(peers.REQ, bytes(33)),
            lambda c: c.send(peers.REQ, bytes(32), magic=1),
            lambda c: c.send(peers.REQ, bytes(32), length=47),
            lambda c: c.send(peers.REQ, bytes(32), fds=[null]),
            lambda c: c.request(tickets=33),
            lambda c: c.send(99),
            lambda c: c.send(peers.REP, bytes(100)),
            lambda c: c.sock.sendall(bytes(8000)),
            lambda c: c.send(peers.TICKETS, bytes(8 + 256)),
            lambda c: c.send(peers.NAME, bytes(peers.TICKET_NAME.size)),
            lambda c: c.send(peers.CLAIM, bytes(8 + 32 * peers.TICKET_NAME.size), fds=[null]),
            lambda c: c.send(peers.REQ, bytes(32), fds=[null] * 60),
            lambda c: c.send(peers.REQ, bytes(32), fds=[null] * 100),
        ]
        for n, case in enumerate(cases):
            with self.subTest(n):
                c = self.client()
                case(c)
                self.expect_drop(c)
        attached = [
            lambda c: c.request(),
            lambda c: c.send(peers.TICKETS, peers.TICKETS_MSG.pack(0, 33, *([0] * 32))),
            lambda c: c.send(peers.CLAIM, bytes(8 + 32 * peers.TICKET_NAME.size)),
            lambda c: c.send(peers.CLAIM, bytes(8 + 32 * peers.TICKET_NAME.size), fds=[null] * 33),
            lambda c: c.send(peers.NAME, bytes(3)),
            lambda c: c.send(peers.NAME, bytes(peers.TICKET_NAME.size), fds=[null] * 2),
            lambda c: c.send(peers.EVENT, bytes(8)),
        ]
        for n, case in enumerate(attached):
            with self.subTest(100 + n):
                c, _ = self.pair(a)
                case(c)
                self.expect_drop(c)
                a.expect_detach()
        os.close(null)
        self.broker.wait_status(channels=[], connections=0)
        wait_for(lambda: self.broker.fds() <= before + 3)

    def test_client_that_does_not_read(self):
        a = self.agent()
        c, _ = self.pair(a)
        with self.assertRaises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100000):
                c.send(peers.TICKETS, peers.TICKETS_MSG.pack(0, 0, *([0] * 32)))
        a.expect_detach()

    def test_names_out_of_range(self):
        a = self.agent()
        c, _ = self.pair(a, tickets=1)
        for ticket in (0, 1, 2**64 - 1, c.rep["session"] << 32, (c.rep["session"] << 32) + 65536):
            c.name(ticket, 1, 1)
        self.assertEqual(c.claim([list(c.tickets.values())[0]])[0][0], 0)

    def test_descriptors_that_do_not_close(self):
        """A TCP socket with data nobody takes and a linger of an hour: its close() would hold the broker up."""
        self.agent()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        self.addCleanup(listener.close)

        def sticky():
            s = socket.create_connection(listener.getsockname())
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
            s.setblocking(False)
            try:
                while True:
                    s.send(bytes(65536))
            except BlockingIOError:
                return s

        def attack(how):
            s = sticky()
            c = Client(self.broker)
            if how == 0:  # sent in a message that is in order but for its descriptor
                c.send(peers.REQ, bytes(32), fds=[s.fileno()])
            elif how == 1:  # in a socket that is sent
                a, b = socket.socketpair()
                socket.send_fds(a, [b"x"], [s.fileno()])
                c.send(99, fds=[b.fileno()])
            else:  # left in the queue of the connection
                c.sock.sendall(b"bad")
                c.send(99, fds=[s.fileno()])
            os._exit(0)  # here, where nothing has been closed yet

        before = self.broker.fds()
        for how in range(3):
            # In a process that ends: then nothing lingers but what the broker has.
            pid = os.fork()
            if pid == 0:
                try:
                    attack(how)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
            t0 = time.monotonic()
            self.broker.status()
            self.client()
            self.assertLess(time.monotonic() - t0, 0.5)
        wait_for(lambda: self.broker.fds() <= before + 6, 20)  # three clients, each with a pidfd

    def test_flood_of_connections(self):
        self.agent()

        def flood():
            socks = []
            for _ in range(400):
                s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                s.connect(self.broker.path("attach.sock"))
                socks.append(s)
            time.sleep(0.3)
            dead = 0
            for s in socks:
                s.setblocking(False)
                try:
                    dead += s.recv(1) == b""
                except BlockingIOError:
                    pass
            return dead

        self.assertGreater(int(as_user(NOBODY, flood)), 100)
        self.broker.wait_status(connections=0)

    def test_agents(self):
        cases = [
            lambda a: a.sock.sendall(b"x"),
            lambda a: a.sock.sendall(bytes(16)),
            lambda a: a.send(peers.HELLO, bytes(3)),
            lambda a: a.send(peers.ATTACHED, bytes(8), length=23),
            lambda a: a.send(200, b""),
            lambda a: a.send(peers.START, bytes(32)),
            lambda a: a.send(peers.LOG, b""),
            lambda a: a.send(peers.LOG, bytes(4)),
            lambda a: a.sock.sendall(bytes(6000)),
        ]
        for n, case in enumerate(cases):
            with self.subTest(n):
                a = Agent(self.broker)
                case(a)
                with self.assertRaises(Closed):
                    a.recv()
                a.close()
                self.broker.wait_status(state="down")

    def test_agent_lies(self):
        """Answers about slots and sessions that are not."""
        a = self.agent()
        c, ch = self.pair(a)
        for mtype in (peers.ATTACHED, peers.DETACHED, peers.QUIESCED):
            for slot in (0, 1, ch["slot"], peers.CHANNELS + 1, 2**32 - 1):
                for session in (0, ch["session"], 2**32 - 1):
                    for status in (0, -5, 5, -2**31):
                        a.send(mtype, struct.pack("<iI", status, session), slot=slot)
        a.send(peers.LOG, struct.pack("<I", 3) + b"evil \x1b[31m text" + b"x" * 1000)
        self.assertEqual(a.sync(), [])
        self.assertEqual(c.more_tickets(1)[0], 0)
        self.assertNotIn("\x1b", self.broker.read_log())

    def test_refused_agents(self):
        for fields, text in (({"abi": 7}, b"version 7"), ({"role": 2}, b"role 2"),
                             ({"channels": 99}, b"99 channels"), ({"slot_size": 1 << 24}, b"16777216")):
            a = Agent(self.broker, hello=False)
            a.hello(**fields)
            msg = a.expect(peers.REFUSE)
            self.assertIn(text, msg[3])
            # Nobody waits for such an agent, and everybody is told.
            self.assertTrue(self.broker.status()["refused"])
            rep = self.client().attach(wait_ms=20000)
            self.assertEqual(rep["status"], peers.STARTING)
            self.assertIn(text.decode(), rep["text"])
            # It is not heard after that.
            a.send(peers.SYNC)
            with self.assertRaises(TimeoutError):
                a.recv(0.1)
            self.assertEqual(self.broker.status()["state"], "starting")
            a.close()
            self.broker.wait_status(state="down", refused=False)

    def test_refusal_ends_waits(self):
        """Who waits for a domain that is starting hears at once that its agent was refused; the next agent serves again."""
        a = Agent(self.broker, hello=False)
        self.broker.wait_status(state="starting")
        c = self.client()
        c.request(wait_ms=30000)
        a.hello(abi=3)
        a.expect(peers.REFUSE)
        self.assertIn("agent speaks version 3", c.reply(5)["text"])
        a.close()
        self.broker.wait_status(state="down")
        self.pair(self.agent())

    def test_hello_of_another_version(self):
        """Its HELLO may be longer or shorter than ours."""
        whole = peers.MSG_HELLO.pack(9, 1, 0, 8, 1, 1 << 20, b"", b"", b"")
        for body in (whole + bytes(64), whole[:100], struct.pack("<I", 9)):
            a = Agent(self.broker, hello=False)
            a.send(peers.HELLO, body)
            self.assertIn(b"agent speaks version 9, broker 2", a.expect(peers.REFUSE)[3])
            a.close()
            self.broker.wait_status(state="down")

    def test_second_agent(self):
        a = self.agent()
        b = Agent(self.broker, hello=False)
        with self.assertRaises((Closed, BrokenPipeError)):
            b.recv()
        b.close()
        self.assertEqual(a.sync(), [])

    def test_agent_that_does_not_read(self):
        a = self.agent()
        c, _ = self.pair(a)
        for _ in range(20):
            c.more_tickets(32)
        c.close()
        self.broker.wait_status(channels=[])
        self.assertEqual(self.broker.status()["state"], "ready")


class Incarnations(Case):
    def test_agent_restarts(self):
        a = self.agent()
        c, ch = self.pair(a, tickets=3)
        (n1, fd1), (n2, fd2), (n3, fd3) = c.tickets.items()
        a.close()
        self.assertEqual(c.event(), (0, []))
        self.assertEqual(c.host_page()[4], 0)
        st = self.broker.status()
        self.assertEqual((st["state"], st["incarnation"], st["channels_used"]), ("down", 0, 1))
        # What ends meanwhile is told to the next one.
        os.close(c.tickets.pop(n1))
        b = self.agent()
        self.assertEqual(b.incarnation, 2)
        ch2 = b.expect_attach()
        self.assertEqual((ch2["session"], ch2["slot"], ch2["process"]),
                         (ch["session"], ch["slot"], ch["process"]))
        incarnation, fds = c.event()
        self.assertEqual((incarnation, len(fds)), (2, 2))
        for fd in fds:
            os.close(fd)
        self.assertEqual(c.host_page()[4], 2)
        self.assertEqual(b.expect_release(), [n1])
        os.close(c.tickets.pop(n2))
        self.assertEqual(b.expect_release(), [n2])
        self.assertEqual(c.more_tickets(4)[0], 0)

    def test_hello_again(self):
        a = self.agent()
        c, ch = self.pair(a)
        a.hello()
        a.expect_start()
        self.assertEqual(a.incarnation, 2)
        self.assertEqual(a.expect_attach()["session"], ch["session"])
        self.assertEqual(c.event()[0], 0)
        self.assertEqual(c.event()[0], 2)

    def test_state_region_outlives(self):
        a = self.agent()
        os.pwrite(a.state_fd, b"kept", 8192)
        a.close()
        b = self.agent()
        self.assertEqual(os.pread(b.state_fd, 4, 8192), b"kept")

    def test_bye(self):
        a = self.agent()
        c, _ = self.pair(a)
        a.send(peers.BYE)
        self.assertEqual(c.event()[0], 0)
        self.assertEqual(self.client().attach()["status"], peers.STARTING)
        self.assertIn("good order", self.broker.status()["why"])

    def test_client_ends_while_down(self):
        a = self.agent()
        c, _ = self.pair(a)
        a.close()
        self.broker.wait_status(state="down")
        c.close()
        self.broker.wait_status(channels=[], channels_used=0)
        b = self.agent()
        self.assertEqual(b.sync(), [])

    def test_agent_dies_during_attach(self):
        a = self.agent()
        c = self.client()
        c.request()
        a.expect_attach(answer=False)
        a.close()
        self.assertEqual(c.reply()["status"], peers.DOWN)

    def test_agent_restarts_during_attach(self):
        """A program that is willing to wait gets its channel from the next incarnation."""
        a = self.agent()
        c = self.client()
        c.request(wait_ms=20000)
        a.expect_attach(answer=False)
        a.hello()
        a.expect_start()
        a.expect_attach()
        self.assertEqual(c.reply()["incarnation"], 2)

    def test_quiesce_and_shutdown(self):
        a = self.agent()
        self.assertTrue(self.broker.ctl("quiesce")["ok"])
        a.expect(peers.QUIESCE)
        self.assertEqual(self.broker.status()["state"], "quiescing")
        self.assertEqual(self.client().attach()["status"], peers.DOWN)
        a.send(peers.QUIESCED, struct.pack("<iI", 0, 0))
        self.broker.wait_status(quiesced=True)
        self.assertTrue(self.broker.ctl("shutdown")["ok"])
        a.expect(peers.SHUTDOWN)
        a.send(peers.BYE)
        a.close()
        self.broker.wait_status(state="down")
        self.assertFalse(self.broker.ctl("quiesce")["ok"])


class Hang(Case):
    """An agent that is there and does nothing (vhost-sc/hang.h)."""
    options = ("--hang-ms", "400")

    def setUp(self):
        super().setUp()
        self.a = self.agent()
        self.c, ch = self.pair(self.a)
        layout = self.c.rep["layout"]
        self.kick = ch["fds"][1]
        self.m = mmap.mmap(self.c.fds[0], layout[0])
        self.addCleanup(self.m.close)
        self.lane = layout[3]  # the first one

    def put(self, at, value):
        struct.pack_into("<I", self.m, at, value)

    def pend(self):
        """A request that nobody completes."""
        self.put(192, 1)
        self.put(self.lane, 1)

    def beat(self):
        struct.pack_into("<Q", self.m, 4096 + 64, struct.unpack_from("<Q", self.m, 4096 + 64)[0] + 1)

    def test_silent_with_calls(self):
        self.pend()
        self.broker.wait_status(state="hung")
        self.assertRegex(self.broker.read_log(), r"the agent hangs: calls of session \d+ \(pid %d\) pend" % os.getpid())
        self.assertGreaterEqual(self.broker.status()["hung_for_ms"], 0)
        self.beat()
        self.broker.wait_status(state="ready")
        self.assertIn("the agent goes on, after", self.broker.read_log())

    def test_completed(self):
        """It answered in the end: without calls that pend there is no hang."""
        self.pend()
        self.broker.wait_status(state="hung")
        self.put(self.lane + 128, 1)
        self.broker.wait_status(state="ready")

    def test_idle(self):
        """Nothing pends; or something does, but the agent beats, if only when it is rung for. No alarm, in several times the time."""
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            self.assertEqual(self.broker.status()["state"], "ready")
            time.sleep(0.02)
        self.pend()
        end, rung = time.monotonic() + 2, 0
        while time.monotonic() < end:
            try:
                os.eventfd_read(self.kick)
                rung += 1
                self.beat()
            except BlockingIOError:
                pass
            self.assertEqual(self.broker.status()["state"], "ready")
            time.sleep(0.01)
        self.assertGreater(rung, 0)

    def other_agent(self, name="", busy=False, pause=60):
        """An agent in a process of its own, which does nothing: it computes, or it wakes up once per `pause` seconds. Returns its pid."""
        self.a.close()
        self.broker.wait_status(state="down")
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            agent = Agent(self.broker)
            agent.expect_attach()
            if name:
                with open("/proc/self/comm", "w", encoding="ascii") as f:
                    f.write(name)
            os.write(w, b"x")
            end = time.monotonic() + 60
            while time.monotonic() < end:
                if not busy:
                    time.sleep(pause)
            os._exit(0)

        def end():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.broker.wait_status(state="down")
        self.addCleanup(end)
        os.close(w)
        os.read(r, 1)
        os.close(r)
        self.broker.wait_status(state="ready")
        return pid

    def stays_ready(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.assertEqual(self.broker.status()["state"], "ready")
            time.sleep(0.05)

    def test_starved(self):
        """An agent that wants to run and is given next to no time is no hang; when it is given time, it is."""
        pid = self.other_agent(busy=True)
        cpu = min(os.sched_getaffinity(0))
        os.sched_setaffinity(pid, [cpu])
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        load = subprocess.Popen([sys.executable, "-c", "import os, time\nos.sched_setaffinity(0, [%d])\nprint(flush=True)\n"
                                 "end = time.monotonic() + 20\nwhile time.monotonic() < end: pass" % cpu], stdout=subprocess.PIPE)
        try:
            load.stdout.readline()
            self.pend()
            self.stays_ready(3)
        finally:
            load.kill()
            load.wait()
            load.stdout.close()
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(pid, os.sched_getaffinity(0))
        self.broker.wait_status(state="hung")

    def test_paused_vm(self):
        """A VM none of whose CPUs' threads ever runs was paused. One whose CPUs take their timer's interrupts hangs."""
        self.other_agent(name="CPU 0/TCG")
        self.pend()
        self.stays_ready(2.5)

    def test_idle_vm_hangs(self):
        self.other_agent(name="CPU 0/TCG", pause=0.02)
        self.pend()
        self.broker.wait_status(state="hung")

    def test_stopped(self):
        """An agent whose process was stopped is no hang: it could not run. (Here the agent is this process: a child is stopped.)"""
        self.a.close()
        self.broker.wait_status(state="down")
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            agent = Agent(self.broker)
            agent.expect_attach()
            os.write(w, b"x")
            time.sleep(60)
            os._exit(0)
        try:
            os.read(r, 1)
            self.pend()
            os.kill(pid, signal.SIGSTOP)
            self.broker.wait_status(state="ready")
            end = time.monotonic() + 2
            while time.monotonic() < end:
                self.assertEqual(self.broker.status()["state"], "ready")
                time.sleep(0.05)
            os.kill(pid, signal.SIGCONT)
            self.broker.wait_status(state="hung")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(r)
            os.close(w)
        self.broker.wait_status(state="down")

    def test_watch(self):
        """Who watches is told of each change; nobody asks anything."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(peers.TIMEOUT)
            s.connect(self.broker.path("ctl.sock"))
            s.sendall(b"{\"cmd\":\"watch\"}\n")
            lines = s.makefile()

            def told():
                event = json.loads(lines.readline())
                return event["state"], event["connected"], event["orderly"]
            self.assertEqual(told(), ("ready", True, False))
            self.pend()
            self.assertEqual(told(), ("hung", True, False))
            self.beat()
            self.assertEqual(told(), ("ready", True, False))
            self.a.send(peers.BYE)
            self.assertEqual(told(), ("starting", True, True))
            self.a.close()
            self.assertEqual(told(), ("down", False, True))
            self.agent()
            states = [told()]
            while states[-1][0] != "ready":
                states.append(told())
            self.assertEqual(states[-1], ("ready", True, False))


class Operator(Case):
    def raw(self, data):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(5)
            s.connect(self.broker.path("ctl.sock"))
            s.sendall(data)
            return s.makefile().readline()

    def test_status(self):
        a = self.agent()
        ops = [0] * 128
        errors = [0] * 128
        ops[0], ops[5], errors[5] = 1000, 42, 3
        header = struct.pack("<IIQIIQQ3Q", 0x31545353, 1, 7, 1, 2, 9, 123456789, 0, 0, 0)
        header += struct.pack("<128Q128Q9Q", *ops, *errors, 4096, 8192, 5, 6, 7, 8, 9, 10, 11)
        os.pwrite(a.state_fd, header, 0)
        st = self.broker.status()
        self.assertEqual(st["calls"], {"nop": 1000, "read": 42})
        self.assertEqual(st["errors"], {"read": 3})
        self.assertEqual((st["bytes_read"], st["bytes_written"], st["ready_ns"]), (4096, 8192, 123456789))
        self.assertEqual(st["agent"]["kernel"], "6.1.0")
        self.assertEqual(st["pollers"]["cpu_ns"], 8)

    def test_set_info(self):
        self.assertTrue(self.broker.ctl("set-info", info={"accelerator": "kvm", "n": [1, {}]})["ok"])
        self.assertEqual(self.broker.status()["info"], {"accelerator": "kvm", "n": [1, {}]})
        self.assertFalse(self.broker.ctl("set-info", info=[1])["ok"])
        self.assertFalse(self.broker.ctl("set-info")["ok"])

    def test_bad_requests(self):
        for line in (b"\n", b"{}\n", b"[]\n", b"{\"cmd\": 1}\n", b"{\"cmd\": \"nope\"}\n", b"\xff\xfe\n",
                     b"{\"cmd\": \"status\"\n", b"{" * 1000 + b"\n", b"\"" * 101 + b"\n",
                     b"{\"cmd\": \"log-level\", \"level\": \"loud\"}\n", b"{\"cmd\":\"sta\\u0074us\"}\n"):
            self.assertIn("\"ok\":false", self.raw(line), line)
        try:
            self.assertEqual(self.raw(b"x" * 5000), "")
        except ConnectionResetError:
            pass
        self.assertEqual(self.raw(b"{\"cmd\": \"log-level\", \"level\": \"error\"}\n"), "{\"ok\":true}\n")
        self.assertEqual(self.raw(b" {\"x\":[1,2.5e3,null,true,\"a\\n\"], \"cmd\" : \"status\"} \n")[:10],
                         "{\"ok\":true")

    def test_many_requests_at_once(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(10)
            s.connect(self.broker.path("ctl.sock"))
            s.sendall(b"{\"cmd\":\"status\"}\n" * 100)
            f = s.makefile()
            for _ in range(100):
                self.assertIn("\"ok\":true", f.readline())

    def test_second_broker(self):
        p = subprocess.run(self.broker.args, capture_output=True, text=True, timeout=20, check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn("has a broker already (process %d)" % self.broker.proc.pid, p.stderr)
        self.agent()

    def test_stale_sockets(self):
        self.broker.proc.kill()
        self.broker.proc.wait()
        self.assertTrue(os.path.exists(self.broker.path("attach.sock")))
        self.broker.start()
        self.agent()

    def test_stop(self):
        self.assertTrue(self.broker.ctl("stop")["ok"])
        self.assertEqual(self.broker.proc.wait(10), 0)
        self.assertFalse(os.path.exists(self.broker.path("attach.sock")))

    def test_reopen_log(self):
        path = os.path.join(self.broker.tmp.name, "own.log")
        b = Broker("--log", path)
        os.rename(path, path + ".1")
        b.proc.send_signal(signal.SIGHUP)
        wait_for(lambda: os.path.exists(path))
        b.stop()


class CommandLine(unittest.TestCase):
    def run_broker(self, *args):
        return subprocess.run([peers.BROKER, *args], capture_output=True, text=True, timeout=20, check=False)

    def test_usage(self):
        self.assertEqual(self.run_broker("--help").returncode, 0)
        self.assertIn("vhost-scd", self.run_broker("--version").stdout)
        base = ["--name", "x", "--role", "storage", "--rundir", "/nonexistent"]
        for args, text in (([], "--name"), (["--name", "../x", "--role", "storage"], "--name"),
                           (["--name", "x", "--role", "disk"], "--role"),
                           (base + ["--channels", "0"], "--channels"),
                           (base + ["--channels", "255"], "--channels"),
                           (base + ["--window-size", "1X"], "--window-size"),
                           (base + ["--window-size", "-5"], "--window-size"),
                           (base + ["--channel-size", "4M"], "--channel-size"),
                           (base + ["--lanes", "512"], "--lanes"),
                           (base + ["--allow-user", "no-such-user"], "no-such-user"),
                           (base + ["--socket-mode", "999"], "--socket-mode"),
                           (base + ["--huge", "1G"], "--huge"),
                           (base + ["stray"], "stray")):
            p = self.run_broker(*args)
            self.assertEqual(p.returncode, 2, args)
            self.assertIn(text, p.stderr)

    def test_sandbox(self):
        """Privileges are given up before anything is read, and stay so over a restart."""
        b = Broker()
        def flags():
            with open("/proc/%d/status" % b.proc.pid, encoding="ascii") as f:
                return dict(line.split(":\t") for line in f.read().splitlines() if ":\t" in line)
        if flags()["NoNewPrivs"] == "1":  # a broker with a sanitizer has no sandbox
            filters = flags().get("Seccomp_filters")
            b.ctl("restart")
            wait_for(lambda: b.answers() and b.status()["broker"]["restarts"] == 1)
            self.assertEqual(flags()["NoNewPrivs"], "1")
            self.assertEqual(flags().get("Seccomp_filters"), filters)
        b.stop()

    def test_daemonize(self):
        b = Broker()
        pidfile = os.path.join(b.tmp.name, "pid")
        args = [a for a in b.args if a != "t"] + ["--name", "d", "--daemonize", "--pidfile", pidfile,
                                                  "--log", os.path.join(b.tmp.name, "d.log")]
        args.remove("--name")
        p = subprocess.run(args, timeout=20, check=False)
        self.assertEqual(p.returncode, 0)
        with open(pidfile, encoding="ascii") as f:
            pid = int(f.read())
        # It is ready when the parent ends, and a second one says so through the parent.
        self.assertTrue(os.path.exists(os.path.join(b.tmp.name, "d", "attach.sock")))
        p = subprocess.run(args, timeout=20, check=False, capture_output=True, text=True)
        self.assertEqual(p.returncode, 1)
        self.assertIn("not started", p.stderr)
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(pidfile))
        b.stop()


class Restart(Case):
    def restart(self):
        n = self.broker.status()["broker"]["restarts"]
        self.assertTrue(self.broker.ctl("restart")["ok"])
        wait_for(lambda: self.try_restarts() == n + 1)

    def try_restarts(self):
        try:
            return self.broker.status()["broker"]["restarts"]
        except (ConnectionError, ValueError):
            return -1

    def test_everything_goes_on(self):
        a = self.agent()
        c, ch = self.pair(a, tickets=4)
        d, _ = self.pair(a, tickets=1)
        (n1, fd1), (n2, fd2), *_ = c.tickets.items()
        c.name(n1, 5, 6, 7, 8)
        self.broker.ctl("set-info", info={"accelerator": "tcg"})
        pid = self.broker.proc.pid
        self.restart()
        time.sleep(0.1)
        before = self.broker.fds()
        for _ in range(3):
            self.restart()
        wait_for(lambda: self.broker.fds() <= before)
        self.assertEqual(self.broker.proc.pid, pid)
        self.assertIsNone(self.broker.proc.poll())
        st = self.broker.status()
        self.assertEqual((st["state"], st["incarnation"], st["channels_used"], st["tickets"]),
                         ("ready", 1, 2, 5))
        self.assertEqual(st["info"], {"accelerator": "tcg"})
        self.assertEqual(st["agent"]["version"], "test")
        # Old things still work: tickets, claims, names, doorbells, ends.
        self.assertEqual(d.claim([fd1, fd2])[0], (n1, 5, 6, 7, 8))
        os.close(c.tickets.pop(n2))
        self.assertEqual(a.expect_release(), [n2])
        os.eventfd_write(c.fds[1], 1)
        self.assertEqual(os.eventfd_read(ch["fds"][1]), 1)
        # New sessions and tickets do not repeat numbers.
        e, ch3 = self.pair(a, tickets=2)
        self.assertGreater(ch3["session"], 2)
        _, new = c.more_tickets(2)
        self.assertTrue(all(n & 0xffffffff > 4 for n in new))
        c.close()
        self.assertEqual(a.collect(peers.DETACH, peers.RELEASE), {peers.DETACH, peers.RELEASE})
        # The lock went along.
        p = subprocess.run(self.broker.args, capture_output=True, text=True, timeout=20, check=False)
        self.assertIn("has a broker already", p.stderr)

    def test_signal(self):
        a = self.agent()
        self.pair(a)
        self.broker.proc.send_signal(signal.SIGUSR2)
        wait_for(lambda: self.try_restarts() == 1)
        self.assertEqual(a.sync(), [])

    def test_while_attaching(self):
        """The restart waits for what is under way, and requests wait for the restart."""
        a = self.agent()
        c = self.client()
        c.request()
        ch = a.expect_attach(answer=False)
        self.assertTrue(self.broker.ctl("restart")["ok"])
        d = self.client()
        d.request()
        time.sleep(0.2)
        self.assertEqual(self.broker.status()["broker"]["restarts"], 0)
        a.attached(ch)
        self.assertEqual(c.reply()["status"], peers.OK)
        a.expect_attach()
        self.assertEqual(d.reply()["status"], peers.OK)
        self.assertEqual(self.broker.status()["broker"]["restarts"], 1)

    def test_while_detaching(self):
        """A detach goes on over the restart, whether the agent answers or not."""
        a = self.agent()
        c, ch = self.pair(a)
        d, ch2 = self.pair(a)
        c.close()
        a.expect_detach(answer=False)
        d.close()
        a.expect_detach(answer=False)
        self.restart()
        self.assertEqual([x["state"] for x in self.broker.status()["channels"]], ["detaching"] * 2)
        a.send(peers.DETACHED, struct.pack("<iI", 0, ch["session"]), slot=ch["slot"])
        wait_for(lambda: len(self.broker.status()["channels"]) == 1)
        self.broker.wait_status(channels=[])

    def test_down(self):
        self.restart()
        a = self.agent()
        c, _ = self.pair(a)
        a.close()
        self.broker.wait_status(state="down")
        c.event()
        self.restart()
        self.agent().expect_attach()
        self.assertEqual(c.event()[0], 2)

    def test_program_missing(self):
        """A broker whose program is gone stays as it is."""
        import shutil
        exe = os.path.join(self.broker.tmp.name, "vhost-scd")
        shutil.copy(shutil.which(peers.BROKER), exe)
        old, peers.BROKER = peers.BROKER, exe
        try:
            b = Broker()
        finally:
            peers.BROKER = old
        os.unlink(exe)
        a = Agent(b)
        c, _ = attach_pair(b, a)
        b.ctl("restart")
        wait_for(lambda: "given up" in b.read_log())
        self.assertEqual(c.more_tickets(1)[0], 0)
        a.close()
        c.close()
        b.stop()

    def test_process_exit_during_restart(self):
        a = self.agent()
        pid = os.fork()
        if pid == 0:
            c = Client(self.broker)
            c.attach(tickets=3)
            time.sleep(60)
            os._exit(0)
        a.expect_attach()
        wait_for(lambda: self.broker.status()["tickets"] == 3)
        self.broker.ctl("restart")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        want = {peers.DETACH, peers.RELEASE, peers.PROC_EXIT}
        self.assertEqual(a.collect(*want), want)


if __name__ == "__main__":
    unittest.main(verbosity=1)
