#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Socket calls of an unmodified program (sock_work.py), natively and under scrun --network: the same lines.

The reference is the kernel, asked on the same machine in the same run, not a list of expected results.
"""
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netdomain import Domain, Native, enter_namespaces  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
RUN_S = 60
PARTS = ["connect", "stream", "serve", "poll", "epoll", "threads", "signals", "udp", "options", "local", "copy", "masks", "fork"]


def run_part(where, part):
    with subprocess.Popen([PYTHON, os.path.join(HERE, "sock_peer.py"), where.PEER], stdout=subprocess.PIPE, text=True) as peer:
        peer.stdout.readline()
        try:
            done = subprocess.run(where.argv([PYTHON, os.path.join(HERE, "sock_work.py"), part, where.OWN, where.PEER]),
                                  env=where.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=RUN_S, check=False)
            return "%s\nstatus %d" % (done.stdout, done.returncode)
        except subprocess.TimeoutExpired as e:
            return "%s\nout of time" % (e.stdout or b"").decode(errors="replace")
        finally:
            peer.kill()


class Sockets(unittest.TestCase):
    maxDiff = None


def add(part):
    def test(self):
        with Native() as where:
            native = run_part(where, part)
        self.assertIn("status 0", native)
        with Domain() as where:
            remote = run_part(where, part)
        self.assertEqual(remote.splitlines(), native.splitlines())
    setattr(Sockets, "test_" + part, test)


for name in PARTS:
    add(name)

if __name__ == "__main__":
    enter_namespaces()
    unittest.main(verbosity=2)
