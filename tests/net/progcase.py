# SPDX-License-Identifier: BSD-3-Clause
"""progcase.py - the ground of tests of unmodified programs: each case is a function of a place (netdomain.py) that starts servers, runs
clients, and returns what came out; both() calls it natively and on a domain, and the outcomes must be equal.
"""
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import unittest

from netdomain import Domain, Native

PYTHON = "/usr/bin/python3"
RUN_S = 60


class ProgramCase(unittest.TestCase):
    """A directory with two files to serve, and programs that end with the case."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sc-netprog.")
        os.chmod(self.dir, 0o755)
        os.mkdir(self.dir + "/www")
        for name, size in (("small", 1000), ("large", 3000000)):
            with open("%s/www/%s" % (self.dir, name), "wb") as f:
                f.write(hashlib.shake_128(name.encode()).digest(size))
        self.running = []

    def tearDown(self):
        self.stop()
        shutil.rmtree(self.dir)

    def start(self, argv, env=None):
        log = open(self.dir + "/log", "a", encoding="utf-8")
        self.running.append(subprocess.Popen(argv, env=env, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        log.close()

    def stop(self):
        """Ends what was started, the youngest first; their exit codes."""
        codes = []
        for p in reversed(self.running):
            p.terminate()
            try:
                codes.append(p.wait(20))
            except subprocess.TimeoutExpired:
                p.kill()
                codes.append("killed")
        self.running = []
        return codes

    def run_it(self, argv, env=None):
        done = subprocess.run(argv, env=env, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=RUN_S, check=False)
        return done.returncode, done.stdout

    def until(self, argv, env=None):
        """Runs it until it succeeds: a server is starting."""
        end = time.monotonic() + RUN_S
        while True:
            code, out = self.run_it(argv, env)
            if code == 0 or time.monotonic() > end:
                return code, out
            time.sleep(0.1)

    def fetch(self, url, where=None):
        argv = ["curl", "-sS", "--max-time", "30", url]
        code, out = self.until(where.argv(argv) if where else argv, where.env() if where else None)
        return code, hashlib.sha1(out).hexdigest()

    def both(self, case):
        with Native() as where:
            native = case(where), self.stop()
        with Domain() as where:
            remote = case(where), self.stop()
            self.assertTrue(where.alive())
        self.assertEqual(native, remote)
        return native
