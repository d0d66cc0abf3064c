#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A network domain at the end of a bad line (relay.py): streams through loss, reordering, duplication and delay are checked by hash;
floods, fragments and broken frames hurt nobody; captures are read by tshark, with no malformed packet from us.

    test_wire.py [--size BYTES] [--long] [--seed N]
"""
import argparse
import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netdomain import Domain, Native, enter_namespaces  # noqa: E402
from relay import Relay, echo_request, ipv4, syn  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
PORT = 7000
SETTINGS = argparse.Namespace(size=1 << 19, long=False, seed=int(time.time()) % 100000)
OURS = "eth.src[0:2] == 02:5c"  # as port_tun.c makes addresses
BAD = "(_ws.malformed || tcp.checksum.status == 0 || udp.checksum.status == 0 || ip.checksum.status == 0 || icmp.checksum.status == 0)"


class Wire(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sc-wire.")
        self.capture = self.dir + "/capture"

    def tearDown(self):
        shutil.rmtree(self.dir)

    def relay(self, **kw):
        return Relay(self.capture, seed=SETTINGS.seed, **kw)

    def tshark(self, select):
        argv = ["tshark", "-n", "-r", self.capture, "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o",
                "ip.check_checksum:TRUE", "-o", "tcp.desegment_tcp_streams:FALSE", "-d", "tcp.port==%d,data" % PORT, "-Y", select]
        return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True).stdout.splitlines()

    def assert_well_formed(self):
        """What the domain sent; and that there is anything to look at."""
        self.assertGreater(len(self.tshark(OURS)), 0)
        self.assertEqual(self.tshark("%s && %s" % (OURS, BAD)), [])

    def stream(self, where, pause=0):
        """SIZE bytes to a server in the domain, SIZE bytes back."""
        size = SETTINGS.size
        argv = where.argv([PYTHON, os.path.join(HERE, "wire_work.py"), "stream", where.OWN, str(PORT), str(size)])
        with subprocess.Popen(argv, env=where.env(), stdout=subprocess.PIPE, text=True) as server:
            try:
                server.stdout.readline()
                data = hashlib.shake_128(b"there").digest(size)
                with socket.create_connection((where.OWN, PORT), 60) as s:
                    s.sendall(data)
                    self.assertEqual(s.recv(20, socket.MSG_WAITALL), hashlib.sha1(data).digest())
                    time.sleep(pause)
                    back = b""
                    while part := s.recv(1 << 16):
                        back += part
                self.assertEqual(hashlib.sha1(back).digest(), hashlib.sha1(hashlib.shake_128(b"back").digest(size)).digest())
                self.assertEqual(server.wait(60), 0)
            finally:
                server.kill()

    def test_bad_line(self):
        """1 % of frames lost, repeated and out of order each, 50 ms each way."""
        with Domain() as where:
            with self.relay(loss=0.01, duplicate=0.01, reorder=0.01, delay=0.05) as relay:
                self.stream(where)
            self.assertTrue(all(relay.counts.values()), relay.counts)
            self.assertTrue(where.alive())
        self.assert_well_formed()
        handshake = self.tshark("tcp.port == %d && tcp.flags.syn == 1" % PORT)
        self.assertGreaterEqual(len(handshake), 2, handshake)

    def test_zero_window(self):
        """The outside does not read for a while."""
        with Domain() as where:
            old, SETTINGS.size = SETTINGS.size, 2 << 20  # more than the peer's buffer
            try:
                with self.relay():
                    self.stream(where, pause=3)
            finally:
                SETTINGS.size = old
        self.assert_well_formed()
        self.assertGreater(len(self.tshark("ip.dst == %s && tcp.analysis.zero_window" % Domain.OWN)), 0)
        self.assertGreater(len(self.tshark("ip.src == %s && tcp.analysis.zero_window_probe" % Domain.OWN)), 0)

    # ---- errors ----

    @staticmethod
    def work(where, *argv):
        return subprocess.run(where.argv([PYTHON, os.path.join(HERE, "wire_work.py")] + list(argv)), env=where.env(), timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout.splitlines()

    def test_errors(self):
        with Native() as where:
            native = self.work(where, "errors", where.OWN, where.PEER)
        self.assertIn("nobody there EHOSTUNREACH", native)
        with Domain() as where:
            self.assertEqual(self.work(where, "errors", where.OWN, where.PEER), native)

    def test_peer_vanishes(self):
        """Nothing passes any more: TCP_USER_TIMEOUT ends the connection as tcp(7) says."""
        with Domain() as where, self.relay() as relay, socket.create_server((where.PEER, 7300)) as listener:
            argv = where.argv([PYTHON, os.path.join(HERE, "wire_work.py"), "vanished", where.PEER])
            with subprocess.Popen(argv, env=where.env(), stdout=subprocess.PIPE, text=True) as program:
                try:
                    s, _ = listener.accept()
                    self.assertEqual(s.recv(1), b"x")
                    relay.down = True
                    s.sendall(b"x")  # lost
                    self.assertEqual(program.communicate(timeout=60)[0], "vanished ETIMEDOUT\n")
                    s.close()
                finally:
                    program.kill()

    # ---- hostile frames ----

    def ether(self):
        """The Ethernet header of frames from the outside to the domain, once each knows the other."""
        subprocess.run(["ping", "-c", "1", "-W", "5", Domain.OWN], check=True, stdout=subprocess.DEVNULL)
        text = subprocess.run(["ip", "-o", "neigh", "show", Domain.OWN], stdout=subprocess.PIPE, text=True, check=True).stdout
        mine = subprocess.run(["ip", "-o", "link", "show", "scout0"], stdout=subprocess.PIPE, text=True, check=True).stdout
        to, source = text.split("lladdr ")[1].split()[0], mine.split("link/ether ")[1].split()[0]
        return bytes.fromhex(to.replace(":", "")) + bytes.fromhex(source.replace(":", "")) + b"\x08\x00"

    def replies(self, ident):
        return len(self.tshark("ip.src == %s && icmp.type == 0 && icmp.ident == %d" % (Domain.OWN, ident)))

    def test_tiny_fragments(self):
        """An echo request in pieces of 8 bytes, in any order, is answered; pieces of which one is missing are not."""
        order = random.Random(SETTINGS.seed)
        with Domain() as where:
            with self.relay() as relay:
                ether = self.ether()
                for ident, missing in ((1001, None), (1002, 3)):
                    whole = echo_request(bytes(range(256)) * 2, ident)
                    at = list(range(0, len(whole), 8))
                    order.shuffle(at)
                    for n, off in enumerate(at):
                        if n != missing:
                            relay.inject(ipv4(ether, where.PEER, 1, whole[off:off + 8], ident, off, off + 8 < len(whole)))
                time.sleep(1)
                subprocess.run(["ping", "-c", "1", "-W", "5", Domain.OWN], check=True, stdout=subprocess.DEVNULL)
            self.assertTrue(where.alive())
        self.assert_well_formed()
        self.assertEqual((self.replies(1001), self.replies(1002)), (1, 0))

    def test_broken_frames(self):
        """Frames of a stream, changed at random, and noise: the domain goes on, and sends nothing malformed."""
        noise = random.Random(SETTINGS.seed)
        with Domain() as where:
            with self.relay() as relay:
                ether = self.ether()
                seeds = [ipv4(ether, where.PEER, 1, echo_request(b"x" * 64)), ipv4(ether, where.PEER, 6, syn(where.PEER, 1234, PORT, 1)),
                         ipv4(ether, where.PEER, 17, b"\x10\x00\x10\x01\x00\x10\x00\x00" + b"y" * 8),
                         ipv4(ether, where.PEER, 2, b"\x11" * 8), ether[:12] + b"\x08\x06" + b"\0\1\x08\0\6\4\0\1" + b"z" * 20,
                         ether[:12] + b"\x86\xdd" + b"\x60\0\0\0\0\x10\x3a\x40" + b"\xfd" * 32 + b"\x87" + b"\0" * 15]
                for _ in range(3000):
                    frame = bytearray(noise.choice(seeds))
                    for _ in range(noise.randrange(1, 6)):
                        frame[noise.randrange(12, len(frame))] = noise.randrange(256)
                    relay.inject(bytes(frame[:noise.randrange(14, len(frame) + 1)]) if noise.random() < 0.3 else bytes(frame))
                self.stream(where)
            self.assertTrue(where.alive())
        self.assert_well_formed()

    def test_syn_flood(self):
        """Half-open connections from all over: those that are there go on; with --long: new ones come again when it is over."""
        noise = random.Random(SETTINGS.seed)
        with Domain() as where:
            with self.relay() as relay:
                ether = self.ether()
                argv = where.argv(["socat", "TCP-LISTEN:%d,fork,reuseaddr,backlog=64" % PORT, "EXEC:cat"])
                server = subprocess.Popen(argv, env=where.env())
                try:
                    s = self.until_connected(where, 20)
                    for _ in range(3000):
                        source = "198.18.%d.%d" % (noise.randrange(256), noise.randrange(1, 255))
                        relay.inject(ipv4(ether, source, 6, syn(source, noise.randrange(1024, 65536), PORT, noise.randrange(1 << 32))))
                    for i in range(20):
                        s.sendall(b"%08d" % i)
                        self.assertEqual(s.recv(8, socket.MSG_WAITALL), b"%08d" % i)
                    if SETTINGS.long:  # half-open connections last 20 s
                        self.until_connected(where, 60).close()
                    s.close()
                finally:
                    server.terminate()
                    server.wait(20)
            self.assertTrue(where.alive())
        self.assert_well_formed()

    def until_connected(self, where, seconds):
        end = time.monotonic() + seconds
        while True:
            try:
                return socket.create_connection((where.OWN, PORT), max(1, end - time.monotonic()))
            except ConnectionRefusedError:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.1)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--size", type=int, default=SETTINGS.size)
    p.add_argument("--long", action="store_true")
    p.add_argument("--seed", type=int, default=SETTINGS.seed)
    enter_namespaces()
    SETTINGS, rest = p.parse_known_args()
    print("seed %d" % SETTINGS.seed, flush=True)
    unittest.main(argv=sys.argv[:1] + rest, verbosity=2)
