#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""scctl restart and scctl watch, with real brokers and agents: loopback domains in directories of their own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCCTL = [sys.executable, os.path.join(TOP, "libvirt-xml", "scctl")]


class Again(unittest.TestCase):

    def setUp(self):
        tmp = tempfile.TemporaryDirectory(prefix="sc-again.")
        self.addCleanup(tmp.cleanup)
        self.dir = tmp.name
        self.env = dict(os.environ, VHOST_SC_RUNDIR=self.path("run"), VHOST_SC_STATEDIR=self.path("state"), VHOST_SC_CONFDIR=self.path("conf"))
        os.mkdir(self.path("root"))
        self.scctl("start", "d", "--loopback", "--root", self.path("root"))
        self.addCleanup(self.scctl, "stop", "d", check=False)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def scctl(self, *argv, check=True):
        p = subprocess.run(SCCTL + list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           env=self.env, timeout=60, check=False)
        if check:
            self.assertEqual(p.returncode, 0, p.stdout)
        return p

    def agent(self, name="d"):
        with open(self.path("run", name, "agent.pid"), encoding="ascii") as f:
            return int(f.read().split()[0])

    def watch(self, *options, names=("d",)):
        """Starts a watcher; its lines are in the hook's file, one for each event."""
        hook = self.path("hook.sh")
        with open(hook, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\necho \"$1 $2 $3\" >> %s\n" % self.path("events"))
        os.chmod(hook, 0o755)
        p = subprocess.Popen(SCCTL + ["watch", *names, "--hook", hook] + list(options), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True, env=self.env)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        self.until_event("d ready ", 1)
        return p

    def events(self):
        try:
            with open(self.path("events"), encoding="utf-8") as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def until_event(self, what, count):
        end = time.monotonic() + 30
        while sum(line.startswith(what) for line in self.events()) < count:
            self.assertLess(time.monotonic(), end, "no %d times \"%s\" in %s" % (count, what, self.events()))
            time.sleep(0.05)

    def test_restart(self):
        """The same agent's arguments, another agent; the broker stays."""
        before, broker = self.agent(), self.scctl("status", "d", "--json").stdout
        said = self.scctl("restart", "d").stdout
        self.assertRegex(said, r"domain d was restarted: finishing calls, syncing, ending \d+\.\d s, starting until it serves \d+\.\d s; .* in all")
        self.assertNotEqual(self.agent(), before)
        self.assertEqual(broker.partition('"pid"')[2].split(",")[0],
                         self.scctl("status", "d", "--json").stdout.partition('"pid"')[2].split(",")[0])
        self.scctl("stop", "d")
        p = self.scctl("restart", "d", check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn("is not running: scctl start d", p.stdout)

    def test_watch(self):
        """A killed agent comes back, but not more often than it may; what was ended in good order stays down."""
        p = self.watch("--limit", "2", "--within", "60")
        for n in (1, 2):
            before = self.agent()
            os.kill(before, signal.SIGKILL)
            self.until_event("d restart its agent is gone", n)
            self.until_event("d ready ", n + 1)
            self.assertNotEqual(self.agent(), before)
        os.kill(self.agent(), signal.SIGKILL)
        self.assertEqual(p.wait(30), 1)
        self.until_event("d gave-up its agent is gone; it was started 2 times within 60 s", 1)

    def test_orderly(self):
        p = self.watch()
        self.scctl("stop", "d", "--keep-broker")
        self.until_event("d down", 1)
        time.sleep(2.5)  # it looks every second
        self.assertFalse([line for line in self.events() if "restart" in line])
        self.scctl("start", "d", "--loopback", "--root", self.path("root"))
        self.until_event("d ready ", 2)
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(10), 0)

    def test_two(self):
        """Each of two domains by itself."""
        self.scctl("start", "e", "--loopback", "--root", self.path("root"))
        self.addCleanup(self.scctl, "stop", "e", check=False)
        self.watch(names=("d", "e"))
        self.until_event("e ready ", 1)
        for name in ("d", "e"):
            os.kill(self.agent(name), signal.SIGKILL)
        for name in ("d", "e"):
            self.until_event(name + " restart its agent is gone", 1)
            self.until_event(name + " ready ", 2)

    def test_broker_dies(self):
        """Without its broker a domain cannot serve: both are started anew. (The agent, which ends as well, may be missed first.)"""
        self.watch()

        def pid():
            with open(self.path("run", "d", "broker.pid"), encoding="ascii") as f:
                return int(f.read())
        before = pid()
        os.kill(before, signal.SIGKILL)
        self.until_event("d restart ", 1)
        self.until_event("d ready ", 2)
        self.assertNotEqual(pid(), before)

    def test_always(self):
        self.watch("--always")
        self.scctl("stop", "d", "--keep-broker")
        self.until_event("d ready ", 2)

    def test_unknown(self):
        p = self.scctl("watch", "nobody", check=False)
        self.assertEqual((p.returncode, p.stdout), (1, 'scctl: no domain "nobody" is defined, nor ever ran: scctl list shows those that are\n'))


if __name__ == "__main__":
    unittest.main()
