#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Datagram sockets, socket options, and what else the domain answers, against the kernel's stack."""
import errno
import os
import socket
import struct
import subprocess
import time
import unittest

from netproc import CONNECTED, DOMAIN, DOMAIN6, KERNEL, KERNEL6, TAP, own_namespace, wait_for_ipv6
from test_tcp import Base

TCP_USER_TIMEOUT, TCP_INFO, IP_RECVTTL = 18, 11, 12


def kernel(family=socket.AF_INET, addr=KERNEL):
    k = socket.socket(family, socket.SOCK_DGRAM)
    k.bind((addr, 0))
    k.settimeout(10)
    return k


class Datagrams(Base):
    def udp(self, **kw):
        return self.p.socket(kind=socket.SOCK_DGRAM, **kw)

    def test_both_ways(self):
        k = kernel()
        s = self.udp()
        for size in 0, 1, 63, 64, 65, 1472, 1473, 9000, 65507:  # up to the largest, in fragments
            data = os.urandom(size)
            s.sendto(data, k.getsockname())
            got, peer = k.recvfrom(1 << 17)
            self.assertTrue(got == data)
            self.assertEqual(peer[0], DOMAIN)
            k.sendto(data, peer)
            got, addr, head = s.recvfrom()
            self.assertTrue(got == data)
            self.assertEqual(addr, k.getsockname())
            self.assertEqual(head[36:40], socket.inet_aton(DOMAIN))
        self.assertEqual(s.error(), 0)
        k.close()

    def test_rings_wrap(self):
        k = kernel()
        s = self.udp(logs=(12, 12))
        for i in range(300):
            data = os.urandom(i % 777)
            s.sendto(data, k.getsockname())
            got, peer = k.recvfrom(2000)
            self.assertTrue(got == data)
            k.sendto(data[::-1], peer)
            self.assertTrue(s.recvfrom()[0] == data[::-1])
        k.close()

    def test_no_room_is_loss(self):
        k = kernel()
        s = self.udp(logs=(12, 12))
        s.bind((DOMAIN, 0))
        for i in range(50):
            k.sendto(b"%04d" % i * 100, s.local)
        time.sleep(0.2)
        self.assertLess(s.ready(), 4097)
        got = []
        while s.ready():
            got.append(s.recvfrom()[0])
        self.assertEqual(got, [b"%04d" % i * 100 for i in range(len(got))])
        self.assertGreater(len(got), 5)
        k.sendto(b"again", s.local)
        self.assertEqual(s.recvfrom()[0], b"again")
        k.close()

    def test_connected(self):
        a, b = kernel(), kernel()
        s = self.udp()
        s.connect(a.getsockname())
        self.assertEqual((s.state, s.peer, s.local[0]), (CONNECTED, a.getsockname(), DOMAIN))
        s.sendto(b"one")
        self.assertEqual(a.recvfrom(10), (b"one", s.local))
        b.sendto(b"stranger", s.local)
        a.sendto(b"friend", s.local)
        self.assertEqual(s.recvfrom()[0], b"friend")
        s.op("CONNECT", **self.p.data(bytes(16)))  # AF_UNSPEC
        self.assertEqual(s.peer, None)
        s.sendto(b"nobody")
        s.wait(lambda: s.line(396) != s.line(136))
        self.assertEqual(s.error(), errno.EDESTADDRREQ)
        b.sendto(b"anyone", s.local)
        self.assertEqual(s.recvfrom()[0], b"anyone")
        a.close()
        b.close()

    def test_ipv6(self):
        wait_for_ipv6()
        k = kernel(socket.AF_INET6, KERNEL6)
        s = self.udp(family=socket.AF_INET6)
        s.bind(("::", 0))
        s.sendto(b"six", k.getsockname()[:2])
        data, peer = k.recvfrom(10)
        self.assertEqual((data, peer[:2]), (b"six", (DOMAIN6, s.local[1])))
        four = kernel()
        four.sendto(b"four", (DOMAIN, s.local[1]))
        data, addr, head = s.recvfrom()
        self.assertEqual((data, addr), (b"four", ("::ffff:" + KERNEL, four.getsockname()[1])))
        s.sendto(b"back", addr)
        self.assertEqual(four.recv(10), b"back")
        four.close()
        k.close()

    def test_closing_sends_what_is_there(self):
        k = kernel()
        s = self.udp()
        for i in range(20):
            s.sendto(b"%d" % i, k.getsockname())
        s.close()
        self.assertEqual([k.recv(10) for _ in range(20)], [b"%d" % i for i in range(20)])
        k.close()

    def test_multicast(self):
        s = self.udp()
        s.bind(("0.0.0.0", 5007))
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + socket.inet_aton("0.0.0.0"))
        k = kernel()
        k.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(KERNEL))
        k.sendto(b"to all", ("239.1.2.3", 5007))
        self.assertEqual(s.recvfrom()[0], b"to all")
        self.fails(errno.EINVAL, s.setsockopt, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                   socket.inet_aton("10.1.2.3") + socket.inet_aton("0.0.0.0"))
        k.close()

    def test_hostile_records(self):
        keep = self.udp()
        k = kernel()
        for spoil in (lambda s: s.set_line(0, 4097), lambda s: s.set_line(0, 1), lambda s: s.set_line(0, 1 << 31),
                      lambda s: (s.put(s.tx, s.tx_size, 0, struct.pack("<II", 1 << 20, 0) + bytes(56)), s.set_line(0, 64)),
                      lambda s: (s.put(s.tx, s.tx_size, 0, struct.pack("<II", 0xffffffff, 0) + bytes(56)), s.set_line(0, 64)),
                      lambda s: (s.put(s.tx, s.tx_size, 0, struct.pack("<II", 100, 0) + bytes(56)), s.set_line(0, 64))):
            s = self.udp(logs=(12, 12))
            s.bind((DOMAIN, 0))
            spoil(s)
            self.p.kick(s.index)
            s.wait(lambda: s.state == 5)
            self.assertEqual(s.error(), errno.ECONNRESET)
        keep.sendto(b"alive", k.getsockname())
        self.assertEqual(k.recv(10), b"alive")
        k.close()


class Options(Base):
    def test_values(self):
        s = self.p.socket()
        u = self.p.socket(kind=socket.SOCK_DGRAM)
        tcp = socket.IPPROTO_TCP
        for sock, level, name, default, value, seen in (
                (s, socket.SOL_SOCKET, socket.SO_REUSEADDR, 0, 1, 1), (s, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0, 5, 1),
                (u, socket.SOL_SOCKET, socket.SO_BROADCAST, 0, 1, 1), (s, tcp, socket.TCP_NODELAY, 0, 1, 1),
                (s, tcp, socket.TCP_CORK, 0, 1, 1), (s, tcp, socket.TCP_KEEPIDLE, 7200, 10, 10),
                (s, tcp, socket.TCP_KEEPINTVL, 75, 3, 3), (s, tcp, socket.TCP_KEEPCNT, 9, 4, 4),
                (s, tcp, TCP_USER_TIMEOUT, 0, 1234, 1234), (s, tcp, socket.TCP_DEFER_ACCEPT, 0, 1, 1),
                (s, socket.IPPROTO_IP, socket.IP_TTL, 64, 7, 7), (u, socket.IPPROTO_IP, socket.IP_TOS, 0, 0x10, 0x10),
                (u, socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1, 3, 3)):
            self.assertEqual(sock.getsockopt(level, name), default, (level, name))
            sock.setsockopt(level, name, value)
            self.assertEqual(sock.getsockopt(level, name), seen, (level, name))
        self.fails(errno.EINVAL, s.setsockopt, tcp, socket.TCP_KEEPCNT, 0)
        self.fails(errno.EINVAL, s.setsockopt, socket.IPPROTO_IP, socket.IP_TTL, 0)
        self.fails(errno.EINVAL, s.setsockopt, tcp, socket.TCP_NODELAY, b"\1")
        self.fails(errno.ENOPROTOOPT, u.setsockopt, tcp, socket.TCP_NODELAY, 1)
        self.fails(errno.ENOPROTOOPT, s.setsockopt, tcp, 999, 1)
        self.fails(errno.ENOPROTOOPT, s.getsockopt, 999, 1)

    def test_kinds(self):
        for err, kw in ((errno.EAFNOSUPPORT, {"family": socket.AF_UNIX}), (errno.EPROTONOSUPPORT, {"proto": 17}),
                        (errno.ESOCKTNOSUPPORT, {"kind": 5}), (errno.EPROTONOSUPPORT, {"kind": 2, "proto": 6})):
            self.fails(err, self.p.socket, **kw)
        self.fails(errno.ENOBUFS, self.p.socket, shared=True)
        self.fails(errno.EINVAL, self.p.socket, logs=(21, 12))

    def test_info_and_ttl(self):
        k = socket.create_server((KERNEL, 0))
        s = self.p.socket()
        s.connect(k.getsockname())
        info = s.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 104)
        self.assertEqual((len(info), info[0]), (104, 1))
        self.assertEqual(struct.unpack_from("<I", info, 16)[0], 1460)  # snd_mss
        k.close()
        u, r = self.p.socket(kind=socket.SOCK_DGRAM), kernel()
        u.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 9)
        r.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        u.sendto(b"x", r.getsockname())
        _, anc, _, _ = r.recvmsg(10, 100)
        self.assertEqual(struct.unpack("<i", anc[0][2])[0], 9)
        r.close()

    def test_keepalive_finds_a_dead_peer(self):
        k = socket.create_server((KERNEL, 0))
        s = self.p.socket()
        for name, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2)):
            s.setsockopt(socket.IPPROTO_TCP, name, value)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        s.connect(k.getsockname())
        subprocess.run(["ip", "addr", "del", KERNEL + "/24", "dev", TAP], check=True)
        try:
            s.wait(lambda: s.state == 5, 30)
            self.assertEqual(s.error(), errno.ETIMEDOUT)
        finally:
            subprocess.run(["ip", "addr", "add", KERNEL + "/24", "dev", TAP], check=True)
        k.close()

    def test_user_timeout(self):
        k = socket.create_server((KERNEL, 0))
        s = self.p.socket()
        s.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 1000)
        s.connect(k.getsockname())
        subprocess.run(["ip", "addr", "del", KERNEL + "/24", "dev", TAP], check=True)
        try:
            s.send(b"into the void")
            s.wait(lambda: s.state == 5, 30)
            self.assertEqual(s.error(), errno.ETIMEDOUT)
        finally:
            subprocess.run(["ip", "addr", "add", KERNEL + "/24", "dev", TAP], check=True)
        k.close()


if __name__ == "__main__":
    own_namespace()
    unittest.main()
