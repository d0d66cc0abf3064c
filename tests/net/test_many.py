#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Many connections to one server under scrun: held all at once and then used; made and closed one after the other, with nothing left
behind by the last of them.

    test_many.py [--held 10000] [--churn 100000]        default: what fits into ./check
"""
import argparse
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netdomain import TOP, Domain, enter_namespaces  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
PORT = 7000
SETTLE_S = 20
MEMORY_SLACK = 8 << 20  # connections in TIME-WAIT, and what malloc keeps
sizes = argparse.Namespace(held=1000, churn=2000)


def exchange(s, data):
    s.sendall(data)
    got = b""
    while len(got) < len(data):
        part = s.recv(len(data) - len(got))
        if not part:
            raise AssertionError("closed after %r" % got)
        got += part
    return got


def connect(where):
    return socket.create_connection((where.OWN, PORT), 10)


class Many(unittest.TestCase):
    @contextlib.contextmanager
    def serve(self, where, processes):
        """The server, once it answers; ended while its domain is still there."""
        argv = where.argv([PYTHON, os.path.join(HERE, "many_work.py"), where.OWN, str(PORT), str(processes)])
        server = subprocess.Popen(argv, env=where.env(), stdin=subprocess.PIPE)
        try:
            self.until_it_answers(where)
            yield server
        finally:
            server.stdin.close()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                raise

    def until_it_answers(self, where):
        end = time.monotonic() + 20
        while True:
            try:
                with connect(where) as s:
                    self.assertEqual(exchange(s, b"ping----"), b"ping----")
                return
            except ConnectionRefusedError:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)

    def hold(self, where, count):
        """Connects that often, then uses each connection; which process answered each of them."""
        held, who = [], {}
        try:
            for _ in range(count):
                held.append(connect(where))
            for s in held:
                name = exchange(s, b"who-----")
                who[name] = who.get(name, 0) + 1
            for turn in range(2):
                for i, s in enumerate(held):
                    s.sendall(b"%08d" % (i * 2 + turn))
                for i, s in enumerate(held):
                    self.assertEqual(s.recv(8, socket.MSG_WAITALL), b"%08d" % (i * 2 + turn))
        finally:
            for s in held:
                s.close()
        return who

    def test_held(self):
        with Domain() as where, self.serve(where, 1):
            self.assertEqual(self.hold(where, sizes.held), {b"0       ": sizes.held})
            self.assertTrue(where.alive())

    def test_held_by_several_processes(self):
        """More than lie in the segment that was there before the server forked: each takes connections that lie in memory of another."""
        with Domain() as where, self.serve(where, 4):
            who = self.hold(where, 600)
            self.assertEqual(sum(who.values()), 600)
            self.assertGreater(len(who), 1, who)
            self.assertTrue(where.alive())

    @staticmethod
    def figures(where, server):
        """What would grow by a leak: (sockets of the domain, descriptors of broker, agent, server; the agent's memory)."""
        def fds(pid):
            return len(os.listdir("/proc/%d/fd" % pid))

        text = subprocess.run([sys.executable, os.path.join(TOP, "libvirt-xml", "scctl"), "net", "net0", "--json"], env=where.env(),
                              stdout=subprocess.PIPE, check=True).stdout
        with open("/proc/%d/statm" % where.agent.pid, encoding="utf-8") as f:
            memory = int(f.read().split()[1]) * resource.getpagesize()
        return (len(json.loads(text)["sockets"]), fds(where.children[0].pid), fds(where.agent.pid), fds(server.pid)), memory

    def settled(self, where, server, wanted):
        """Figures, as soon as they are what is wanted: sockets end after the last exchange, and the domain tells each second."""
        end = time.monotonic() + SETTLE_S
        while True:
            counts, memory = self.figures(where, server)
            if wanted in (None, counts) or time.monotonic() > end:
                return counts, memory
            time.sleep(0.3)

    def churn(self, where, count):
        failed = []

        def work(share):
            try:
                for i in range(share):
                    with connect(where) as s:
                        self.assertEqual(exchange(s, b"%08d" % i), b"%08d" % i)
            except (OSError, AssertionError) as e:
                failed.append(repr(e))

        threads = [threading.Thread(target=work, args=(count // 4,)) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failed, [])

    def test_churn(self):
        with Domain() as where, self.serve(where, 1) as server:
            time.sleep(1.5)
            base, _ = self.figures(where, server)
            self.churn(where, max(1000, sizes.churn // 10))  # what is kept for use again is there after this
            counts, before = self.settled(where, server, base)
            self.churn(where, sizes.churn)
            after, memory = self.settled(where, server, counts)
            self.assertEqual(after, counts)
            self.assertEqual(after[0], base[0])
            self.assertLess(memory - before, MEMORY_SLACK)
            self.assertTrue(where.alive())


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--held", type=int, default=sizes.held)
    p.add_argument("--churn", type=int, default=sizes.churn)
    enter_namespaces()
    sizes, rest = p.parse_known_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    unittest.main(argv=sys.argv[:1] + rest, verbosity=2)
