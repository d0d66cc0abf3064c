#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Stream sockets of a network domain against the kernel's stack: data both ways by content, ends, errors, listeners."""
import errno
import os
import random
import socket
import struct
import threading
import time
import unittest

from netproc import (BOUND, CLOSED, CONNECTED, DOMAIN, DOMAIN6, KERNEL, KERNEL6, LISTEN, NEW, Process, RESET, RX_EOF, Segment, TX_CLOSED,
                     WANT_SEGMENT, Sock, domain, own_namespace, sockaddr, wait_for_ipv6)

BIG = os.urandom(1 << 20) * 3 + b"the end"


def server(family=socket.AF_INET, addr=KERNEL):
    s = socket.create_server((addr, 0), family=family)
    s.settimeout(20)
    return s, s.getsockname()[1]


def read_all(sock):
    out = b""
    while True:
        data = sock.recv(1 << 16)
        if not data:
            return out
        out += data


class Background(threading.Thread):
    """Runs a function; join() gives its result."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args, self.result = function, args, None
        self.start()

    def run(self):
        self.result = self.function(*self.args)

    def get(self, timeout=30):
        self.join(timeout)
        assert not self.is_alive(), "the other side does not end"
        return self.result


class Base(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.agent = domain().__enter__()
        cls.addClassCleanup(cls.agent.__exit__, None, None, None)

    def setUp(self):
        self.p = Process(self.agent)

    def tearDown(self):
        self.p.end()
        self.p = None

    def fails(self, err, function, *args, **kw):
        with self.assertRaises(OSError) as e:
            function(*args, **kw)
        self.assertEqual(errno.errorcode[e.exception.errno], errno.errorcode[err])

    def connected(self, logs=(0, 0)):
        """A socket of the domain that is connected to one of the kernel."""
        srv, port = server()
        s = self.p.socket(logs=logs)
        s.connect((KERNEL, port))
        c, _ = srv.accept()
        c.settimeout(20)
        srv.close()
        self.addCleanup(c.close)
        return s, c


class Data(Base):
    def test_names(self):
        srv, port = server()
        s = self.p.socket()
        self.assertEqual(s.state, NEW)
        s.connect((KERNEL, port))
        c, peer = srv.accept()
        self.assertEqual((s.peer, s.local, s.local[0]), ((KERNEL, port), peer, DOMAIN))
        self.assertEqual(s.state, CONNECTED)
        c.close()
        srv.close()

    def test_much_out(self):
        for logs in (12, 12), (14, 12), (17, 17):
            s, c = self.connected(logs)
            other = Background(read_all, c)
            s.send(BIG)
            s.shutdown(socket.SHUT_WR)
            self.assertTrue(other.get() == BIG)
            self.assertEqual(s.flags & TX_CLOSED, TX_CLOSED)
            s.close()

    def test_much_in(self):
        for logs in (12, 12), (12, 14), (17, 17):
            s, c = self.connected(logs)
            other = Background(lambda c=c: (c.sendall(BIG), c.shutdown(socket.SHUT_WR)))
            self.assertTrue(s.recv_all() == BIG)
            other.get()
            self.assertEqual((s.flags, s.state), (RX_EOF, CONNECTED))
            s.send(b"still open")
            self.assertEqual(c.recv(100), b"still open")
            s.close()
            self.assertEqual(c.recv(100), b"")

    def test_both_ways(self):
        s, c = self.connected((13, 13))
        out = Background(c.sendall, BIG)
        back = Background(lambda: b"".join(iter(lambda: c.recv(1 << 16), b"")))
        got, sent = b"", 0
        end = time.monotonic() + 60
        while (len(got) < len(BIG) or sent < len(BIG)) and time.monotonic() < end:
            sent += s.send_some(BIG[sent:sent + 65536])
            if s.ready():
                got += s.recv()
        s.shutdown(socket.SHUT_WR)
        out.get()
        self.assertTrue(got == BIG and back.get() == BIG)

    def test_window_closes_and_opens(self):
        s, c = self.connected((12, 12))
        c.setblocking(False)
        sent, quiet = 0, 0
        while quiet < 20:  # until the kernel can send no more
            try:
                sent += c.send(BIG[sent:sent + 8192])
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.01)
        self.assertGreater(sent, 4096)  # the rest is in the kernel's buffer: no window was larger than the ring
        self.assertTrue(2048 < s.ready() <= 4096, s.ready())
        c.settimeout(20)
        self.assertTrue(s.recv_all(sent) == BIG[:sent])
        c.sendall(b"more")
        self.assertEqual(s.recv(), b"more")

    def test_more_holds_and_lets_go(self):
        s, c = self.connected()
        s.set_line(4, 1)  # tx_more
        s.send(b"head ")
        c.setblocking(False)
        time.sleep(0.05)
        self.assertRaises(BlockingIOError, c.recv, 100)
        c.settimeout(10)
        self.assertEqual(c.recv(100), b"head ")  # after a while all the same
        s.send(b"head ")
        s.set_line(4, 0)
        s.send(b"tail")
        self.assertEqual(c.recv(100), b"head tail")

    def test_ipv6(self):
        wait_for_ipv6()
        srv, port = server(socket.AF_INET6, KERNEL6)
        s = self.p.socket(socket.AF_INET6)
        s.connect((KERNEL6, port))
        c, peer = srv.accept()
        self.assertEqual(s.local, peer[:2])
        s.send(b"six")
        self.assertEqual(c.recv(10), b"six")
        c.close()
        srv.close()
        l = self.p.socket(socket.AF_INET6)
        l.bind(("::", 8006))
        l.listen()
        for addr, seen in ((DOMAIN6, KERNEL6), (DOMAIN, "::ffff:" + KERNEL)):
            k = socket.create_connection((addr, 8006), timeout=10)
            x = l.accept()
            self.assertEqual(x.peer, (seen, k.getsockname()[1]))
            k.sendall(b"to both")
            self.assertEqual(x.recv(), b"to both")
            k.close()
            x.close()
        l.close()


class Ends(Base):
    def test_refused(self):
        srv, port = server()
        srv.close()
        s = self.p.socket()
        self.fails(errno.ECONNREFUSED, s.connect, (KERNEL, port))
        self.assertEqual((s.state, s.flags & 3), (CLOSED, 3))
        srv = socket.create_server((KERNEL, port))
        s.connect((KERNEL, port))  # and again, as Linux allows
        self.assertEqual((s.state, s.flags), (CONNECTED, 0))
        srv.close()

    def test_reset(self):
        s, c = self.connected()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.close()
        s.wait(lambda: s.state == CLOSED)
        self.assertEqual((s.error(), s.error()), (errno.ECONNRESET, 0))
        self.assertEqual(s.flags, RX_EOF | TX_CLOSED | RESET)

    def test_unread_is_told(self):
        s, c = self.connected()
        c.sendall(b"never read")
        s.wait(s.ready)
        s.close()
        self.assertRaises(ConnectionResetError, c.recv, 10)

    def test_linger_zero(self):
        s, c = self.connected()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        self.assertRaises(ConnectionResetError, c.recv, 10)

    def test_linger_waits(self):
        s, c = self.connected((17, 12))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sent = 0
        while s.room():
            sent += s.send_some(BIG[sent:sent + 65536])
            time.sleep(0.002)
            if sent > 8 << 20:
                self.fail("the kernel takes all")
        call = s.p.ch.submit("CLOSE", handle=s.handle)
        time.sleep(0.1)
        self.assertFalse(call.done())
        got = read_all(c)
        self.assertEqual(call.wait(), 0)
        self.assertTrue(got == BIG[:sent])

    def test_what_was_sent_arrives_after_the_end(self):
        """The process ends with bytes in its ring that the peer has no room for yet: they lie in its channel, which goes."""
        p = Process(self.agent)
        srv = socket.socket()
        srv.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        srv.bind((KERNEL, 0))
        srv.listen()
        s = p.socket(logs=(20, 12))
        s.connect((KERNEL, srv.getsockname()[1]))
        c, _ = srv.accept()
        data = BIG[:1 << 20]
        s.send(data)
        self.assertGreater(s.tx_tail, s.tx_head)
        p.end()
        c.settimeout(20)
        self.assertTrue(read_all(c) == data)
        c.close()
        srv.close()

    def test_fin_both_sides(self):
        s, c = self.connected()
        s.shutdown(socket.SHUT_WR)
        self.assertEqual(c.recv(1), b"")
        c.sendall(b"last words")
        c.close()
        self.assertEqual(s.recv_all(), b"last words")
        s.wait(lambda: s.state == CLOSED)
        self.assertEqual(s.error(), 0)
        self.fails(errno.ENOTCONN, s.shutdown, socket.SHUT_WR)

    def test_not_connected(self):
        s = self.p.socket()
        self.fails(errno.ENOTCONN, s.shutdown, socket.SHUT_RDWR)
        s.close()
        self.fails(errno.EBADF, s.shutdown, socket.SHUT_RDWR)

    def test_loopback_is_the_hosts(self):
        self.fails(errno.ENETUNREACH, self.p.socket().connect, ("127.0.0.1", 80))


class Listeners(Base):
    def listener(self, port=0, backlog=16, **kw):
        l = self.p.socket(**kw)
        l.bind((DOMAIN, port))
        self.assertEqual(l.state, BOUND)
        l.listen(backlog)
        self.assertEqual((l.state, l.local[0]), (LISTEN, DOMAIN))
        return l

    def test_accept(self):
        l = self.listener()
        peers = [socket.create_connection(l.local, timeout=10) for _ in range(5)]
        for k in peers:
            k.sendall(b"%d" % k.getsockname()[1])
        for k in peers:
            s = l.accept()
            self.assertEqual(s.peer, k.getsockname())
            self.assertEqual(s.recv(), b"%d" % s.peer[1])
            s.send(b"back")
            self.assertEqual(k.recv(10), b"back")
            s.close()
            self.assertEqual(k.recv(10), b"")
            k.close()

    def test_backlog(self):
        l = self.listener(backlog=4)
        ks = [socket.socket() for _ in range(12)]
        for k in ks:
            k.setblocking(False)
            k.connect_ex(l.local)
        l.wait(lambda: l.ready() // 64 >= 4)
        time.sleep(0.1)
        self.assertEqual(l.ready() // 64, 4)
        for _ in ks:  # the others come when there is room: the kernel tries again
            l.accept(timeout=20).close()
        for k in ks:
            k.close()

    def test_closed_listener_resets_who_waits(self):
        l = self.listener()
        k = socket.create_connection(l.local, timeout=10)
        l.wait(l.ready)
        l.close()
        self.assertRaises(ConnectionResetError, k.recv, 1)
        k.close()

    def test_taken_and_not_adopted(self):
        l = self.listener()
        k = socket.create_connection(l.local, timeout=10)
        handle, loc, _ = l.accept_entry()
        s = Sock(self.p, handle, loc)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the listener's users may
        s.send(b"x")
        self.assertEqual(k.recv(1), b"x")
        l.close()
        self.assertRaises(ConnectionResetError, k.recv, 1)
        k.close()

    def test_names_taken(self):
        l = self.listener()
        self.fails(errno.EADDRINUSE, self.p.socket().bind, l.local)
        self.fails(errno.EADDRINUSE, self.p.socket().bind, ("0.0.0.0", l.local[1]))
        self.fails(errno.EADDRNOTAVAIL, self.p.socket().bind, (KERNEL, 0))
        self.fails(errno.EADDRNOTAVAIL, self.p.socket().bind, ("127.0.0.1", 0))
        self.fails(errno.EINVAL, l.bind, (DOMAIN, 0))

    def test_reuseport(self):
        """Several listeners on a port share its connections; the others go on when one, also the first, closes."""
        ls = []
        port = 0
        for _ in range(3):
            l = self.p.socket()
            l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            l.bind((DOMAIN, port))
            port = l.local[1]
            l.listen()
            ls.append(l)
        self.fails(errno.EADDRINUSE, self.p.socket().bind, (DOMAIN, port))
        while ls:
            ks = []
            for _ in range(12):
                ks.append(socket.create_connection((DOMAIN, port), timeout=10))
            shares = [0] * len(ls)
            end = time.monotonic() + 10
            while sum(shares) < 12 and time.monotonic() < end:
                for i, l in enumerate(ls):
                    if l.ready():
                        l.accept().close()
                        shares[i] += 1
            self.assertEqual(sum(shares), 12)
            if len(ls) == 3:
                self.assertGreater(sorted(shares)[1], 0, shares)  # all three, but for one run in forty
            for k in ks:
                k.close()
            ls.pop(0).close()
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((DOMAIN, port), timeout=10)

    @unittest.skipUnless(os.geteuid() == 0, "needs root to attach for others")
    def test_reuseport_of_others(self):
        user = Process(self.agent, uid=1000, gid=1000)
        l, o = self.p.socket(), user.socket()
        for s in l, o:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        l.bind((DOMAIN, 0))
        self.fails(errno.EADDRINUSE, o.bind, l.local)
        user.end()

    def test_reuse_after_connections(self):
        port = 0
        for _ in range(3):
            l = self.p.socket()
            l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            l.bind((DOMAIN, port))
            l.listen()
            port = l.local[1]
            k = socket.create_connection(l.local, timeout=10)
            s = l.accept()
            s.close()  # ours is the side with TIME-WAIT
            self.assertEqual(k.recv(1), b"")
            k.close()
            l.close()

    def test_time_wait_makes_way(self):
        """The kernel comes again from the same port while our side is in TIME-WAIT."""
        l = self.listener()
        for _ in range(5):
            k = socket.socket()
            k.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            k.bind((KERNEL, 45678))
            k.settimeout(10)
            end = time.monotonic() + 5
            while True:
                try:
                    k.connect(l.local)
                    break
                except OSError as e:  # the kernel's own end of the last one is not over yet
                    self.assertEqual((e.errno, time.monotonic() < end), (errno.EADDRNOTAVAIL, True))
            l.accept().close()
            self.assertEqual(k.recv(1), b"")
            k.close()

    def test_many(self):
        """Many connections at a time, all used, and the memory comes back."""
        p = Process(self.agent, memory=7 << 20, nlanes=16)
        l = p.socket(logs=(12, 16))
        l.bind((DOMAIN, 0))
        l.listen(200)
        for _ in range(2):
            ks, ss = [], []
            for _ in range(600):
                ks.append(socket.create_connection(l.local, timeout=20))
                ss.append(l.accept())
            for i, k in enumerate(ks):
                k.sendall(b"%d" % i)
            for i, s in enumerate(ss):
                self.assertEqual(s.recv(), b"%d" % i)
            for s in ss:
                s.close()
            for k in ks:
                self.assertEqual(k.recv(1), b"")
                k.close()
            self.assertEqual(len(p.sockets()), 1)
        p.end()


class Rights(Base):
    def test_sessions_are_apart(self):
        a, b = Process(self.agent), Process(self.agent)
        s = a.socket(secret=77)
        for op in ("BIND", "LISTEN", "CONNECT", "SHUTDOWN", "CLOSE", "SETSOCKOPT", "GETSOCKOPT", "ADOPT"):
            self.fails(errno.EACCES, b.call, op, handle=s.handle, **b.data(bytes(28)))
        self.fails(errno.EACCES, b.call, "GRANT", handle=s.handle, arg2=78)
        self.fails(errno.EOPNOTSUPP, b.call, "GRANT", handle=s.handle, arg2=77)
        a.end()
        b.end()

    @unittest.skipUnless(os.geteuid() == 0, "needs root to attach for others")
    def test_low_ports(self):
        user = Process(self.agent, uid=1000, gid=1000)
        self.fails(errno.EACCES, user.socket().bind, (DOMAIN, 80))
        self.fails(errno.EPERM, user.socket, kind=socket.SOCK_RAW)
        l = self.p.socket()
        l.bind((DOMAIN, 80))
        l.listen()
        user.end()

    def test_tickets(self):
        srv, port = server()
        s = self.p.socket(ticket=self.p.ch.ticket())
        s.connect((KERNEL, port))
        c, _ = srv.accept()
        self.agent.release(self.p.ch.session << 32 | 1)
        c.settimeout(10)
        self.assertEqual(c.recv(1), b"")
        self.fails(errno.EBADF, s.shutdown, socket.SHUT_RDWR)
        self.fails(errno.EBADF, self.p.socket, ticket=self.p.ch.session << 32 | 1)
        self.fails(errno.EBADF, self.p.socket, ticket=(self.p.ch.session + 1) << 32 | 1)
        c.close()
        srv.close()

    def test_listing(self):
        l = self.p.socket()
        l.bind((DOMAIN, 0))
        l.listen(7)
        k = socket.create_connection(l.local, timeout=10)
        l.wait(l.ready)
        mine = {e["state"]: e for e in self.p.sockets()}
        self.assertEqual((mine[10]["local"], mine[10]["recvq"], mine[10]["sendq"]), (l.local, 1, 7))
        self.assertEqual((mine[1]["local"], mine[1]["peer"]), (l.local, k.getsockname()))
        k.close()


class Segments(Base):
    """Sockets in a ticket's segment: they outlive the session that made them, and several processes use them."""

    def setUp(self):
        super().setUp()
        self.ticket = self.p.ch.ticket()
        self.seg = Segment(self.agent, self.ticket, 1 << 20)
        self.gone = False

    def tearDown(self):
        if not self.gone:
            self.seg.end()
        super().tearDown()

    def make(self, **kw):
        srv, port = server()
        s = self.p.socket(shared=True, **kw)
        self.assertEqual(s.segment, self.ticket)
        s.connect((KERNEL, port))
        c, _ = srv.accept()
        c.settimeout(20)
        srv.close()
        self.addCleanup(c.close)
        return s, c

    def test_who_may_give_it(self):
        other = Process(self.agent)
        self.fails(errno.ENOBUFS, self.p.socket, shared=True)
        self.fails(errno.EACCES, other.segment, self.seg)  # not its ticket
        self.fails(errno.EINVAL, self.p.segment, self.seg, 0)
        self.fails(errno.ENOENT, self.p.call, "NET_SEGMENT", arg0=self.ticket + 1, arg1=1)
        self.p.segment(self.seg)
        self.p.segment(self.seg)
        self.fails(errno.EACCES, other.segment, self.seg, 98)
        other.segment(self.seg)
        self.assertEqual(other.socket(shared=True).segment, self.ticket)
        other.end()

    def test_another_process_goes_on_with_it(self):
        maker = Process(self.agent)
        ticket = maker.ch.ticket()
        self.p.segment(self.seg)
        maker.segment(self.seg)
        srv, port = server()
        s = maker.socket(shared=True, ticket=ticket, secret=7)
        s.connect((KERNEL, port))
        c, _ = srv.accept()
        c.settimeout(20)
        self.fails(errno.EACCES, self.p.grant, s, 8)
        t = self.p.grant(s, 7)
        self.fails(errno.EBUSY, s.close)  # held by two: the ticket decides
        s.send(b"one ")
        maker.end()
        t.send(b"two")
        got = b""
        while len(got) < 7:
            got += c.recv(10)
        self.assertEqual(got, b"one two")
        c.sendall(b"back")
        self.assertEqual(t.recv(), b"back")
        t.set_line(128, 1)
        c.sendall(b"again")
        t.wait(lambda: self.p.event(t.index))
        self.assertEqual(t.recv(), b"again")
        self.agent.release(ticket)
        self.assertEqual(c.recv(1), b"")
        c.close()
        srv.close()

    def test_children_follow_their_listener(self):
        self.p.segment(self.seg)
        l = self.p.socket(shared=True, logs=(12, 12))
        l.bind((DOMAIN, 0))
        l.listen(50)
        worker = Process(self.agent)
        worker.segment(self.seg)
        lw = worker.grant(l)
        ks = [socket.create_connection(l.local, timeout=10) for _ in range(4)]
        for i, k in enumerate(ks):
            s = (l, lw)[i % 2].accept()
            self.assertEqual(s.segment, self.ticket)
            k.sendall(b"hello")
            self.assertEqual(s.recv(), b"hello")
            k.close()
        worker.end()

    def test_full_is_told(self):
        self.p.segment(self.seg)
        l = self.p.socket(shared=True, logs=(12, 16))
        l.bind((DOMAIN, 0))
        l.listen(200, logs=(14, 15))
        ks = []
        while not l.flags & WANT_SEGMENT:
            ks.append(socket.create_connection(l.local, timeout=10))
            self.assertLess(len(ks), 100)
            l.accept()
        for k in ks:
            k.close()

    def test_its_end(self):
        """The ticket goes while sockets in the segment are in use, and others have unacknowledged bytes."""
        self.p.segment(self.seg)
        held, c = self.make()
        closed, d = self.make(logs=(17, 12))
        d.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        data = BIG[:1 << 17]
        sent = closed.send_some(data)
        self.assertGreater(closed.tx_tail, closed.tx_head)
        closed.close()
        self.gone = True
        self.seg.end()
        self.assertRaises(ConnectionResetError, c.recv, 1)
        self.assertTrue(read_all(d) == data[:sent])
        self.fails(errno.EBADF, held.shutdown, socket.SHUT_RDWR)
        self.fails(errno.ENOBUFS, self.p.socket, shared=True)


class Telling(Base):
    def arm(self):
        off = self.p.area + 256 + 2 * 8192
        self.p.ch.set_u32(off, self.p.ch.u32(off) + 1)

    def rung(self, timeout):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                os.eventfd_read(self.p.ch.kick_fd)
                return True
            except BlockingIOError:
                time.sleep(0.002)
        return False

    def test_events_and_bells(self):
        s, c = self.connected()
        c.sendall(b"unwatched")
        s.wait(lambda: s.ready() == 9)
        self.assertFalse(self.p.event(s.index))
        s.set_line(128, 1)  # watch
        self.rung(0)
        for i in range(3):  # each arrival anew, although the ring is not empty
            self.p.clear_event(s.index)
            c.sendall(b"more")
            s.wait(lambda: self.p.event(s.index))
        self.assertFalse(self.rung(0.1))
        self.arm()
        c.sendall(b"more")
        self.assertTrue(self.rung(10))
        c.sendall(b"more")
        self.assertFalse(self.rung(0.2))  # once for each arming
        self.arm()
        self.p.clear_event(s.index)
        c.close()
        self.assertTrue(self.rung(10))
        self.assertTrue(self.p.event(s.index))

    def test_room(self):
        s, c = self.connected((12, 12))
        s.set_line(128, 1)
        s.set_line(132, 1)  # tx_wait
        c.setblocking(False)
        sent, quiet = 0, 0
        while quiet < 20:
            n = s.send_some(BIG[:4096])
            sent += n
            quiet = 0 if n else quiet + 1
            time.sleep(0.01 if not n else 0)
        self.p.clear_event(s.index)
        self.arm()
        self.rung(0)
        c.settimeout(20)
        got = 0
        while got < sent:
            got += len(c.recv(65536))
        self.assertTrue(self.rung(10))
        self.assertTrue(self.p.event(s.index))


class Hostile(Base):
    """A process that breaks the rules of its rings loses the socket, and nobody else anything."""

    def check(self, spoil):
        s, c = self.connected((12, 12))
        other, o = self.connected()
        c.sendall(b"something")
        s.wait(s.ready)
        spoil(s)
        self.p.kick(s.index)
        s.wait(lambda: s.state == CLOSED)
        self.assertEqual(s.error(), errno.ECONNRESET)
        with self.assertRaises(ConnectionResetError):
            while c.recv(1 << 16):
                pass
        other.send(b"fine")
        self.assertEqual(o.recv(10), b"fine")

    def test_send_index(self):
        for value in 4097, 1 << 31, 0xffffffff:
            self.check(lambda s, v=value: s.set_line(0, s.tx_tail + v & 0xffffffff))

    def test_receive_index(self):
        for value in 10, 1 << 31, 0xffffffff:
            self.check(lambda s, v=value: s.set_line(64, s.rx_head + v & 0xffffffff))

    def test_everything_at_random(self):
        rng = random.Random(1)
        watcher, w = self.connected()
        for _ in range(40):
            s, c = self.connected((12, 12))
            for _ in range(20):
                off = rng.choice([0, 4, 64, 128, 132, 136] + [rng.randrange(0, 512, 4)])
                s.set_line(off, rng.choice([rng.getrandbits(32), rng.getrandbits(12), 0]))
                self.p.kick(rng.choice([s.index, rng.randrange(65536)]))
                try:
                    c.send(b"x" * rng.randrange(1, 3000))
                except OSError:
                    break
            try:
                s.close()
            except OSError:
                pass
            c.close()
        watcher.send(b"alive")
        self.assertEqual(w.recv(10), b"alive")

    def test_operations_at_random(self):
        rng = random.Random(2)
        keep, k = self.connected()
        handles = [keep.handle ^ 1 << 40] + [self.p.socket(kind=rng.choice([1, 2]), logs=(12, 12)).handle for _ in range(6)]
        for _ in range(3000):
            op = rng.choice([0, 3, 4] + list(range(64, 76)) + [rng.getrandbits(16)])
            buf = self.p.ch.arena + rng.randrange(0, 4096, 8) if rng.random() < 0.8 else rng.getrandbits(32)
            self.p.ch.put(self.p.ch.arena, rng.choice([rng.randbytes(64), sockaddr((DOMAIN, rng.randrange(65536))) * 2,
                                                       sockaddr((KERNEL, 9)), sockaddr(("0.0.0.0", 0)), bytes(64)]))
            args = {"handle": rng.choice(handles), "buf": buf, "length": rng.choice([0, 2, 4, 8, 16, 28, 88, 4096, 16768]),
                    "buf2": self.p.ch.arena + 4096, "len2": rng.choice([0, 24, 200]), "off": rng.choice([0, 0, rng.getrandbits(40)]),
                    "arg0": rng.choice([rng.randrange(4), 2 | 1 << 16, 2 | 2 << 16, rng.getrandbits(64), 1, 6, keep.handle]),
                    "arg1": rng.choice([0, rng.randrange(60), rng.getrandbits(64)]), "arg2": rng.getrandbits(3)}
            if op in (3, 70) and args["handle"] == keep.handle:
                continue
            if op == 64:
                args["length"] = 100
            call = self.p.ch.submit(op, **args)
            call.wait(20)
        keep.send(b"alive")
        self.assertEqual(k.recv(10), b"alive")


if __name__ == "__main__":
    own_namespace()
    unittest.main()
