#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""scctl restart, upgrade and watch with a real VM under libvirt: planned, killed, panicked, destroyed, suspended."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vmtest import BUILD, SCCTL, SLOW, Domain, scctl, status, until, virsh  # noqa: E402


class Again(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.d = Domain("sctesta", "--size", "256M", "--channels", "7", "--window-size", "192M", "--debug-shell", "--append", "sc.shell=1")
        cls.addClassCleanup(cls.d.close)
        cls.d.start()

    def served(self):
        """The domain serves, and has what was written and synced."""
        self.assertEqual(self.d.run("cat", self.d.path("kept")).stdout, "kept\n")

    def incarnation(self):
        return status(self.d.name)["incarnations"]

    def test_1_restart(self):
        """In good order: what was written is there without a sync, and the broker is the same."""
        self.d.sh("echo kept > %s" % self.d.path("kept"))
        broker, before = status(self.d.name)["broker"]["pid"], self.incarnation()
        said = scctl("restart", self.d.name, timeout=300).stdout
        self.assertRegex(said, r"was restarted: finishing calls, syncing, ending \d+\.\d s, starting until it serves \d+\.\d s")
        self.served()
        self.assertEqual((status(self.d.name)["broker"]["pid"], self.incarnation()), (broker, before + 1))

    def test_2_upgrade(self):
        """A new image; and an agent that cannot run is taken back."""
        before = self.image()
        said = scctl("upgrade", self.d.name, "--agent", os.path.join(BUILD, "guest-agent/sc-agent-static"), timeout=400).stdout
        self.assertRegex(said, r"was upgraded: finishing calls, .*, exchanging \d+\.\d s, starting")
        self.served()
        bad = os.path.join(self.d.dir, "agent")
        with open(bad, "w", encoding="ascii") as f:
            f.write("#!/bin/busybox false\n")
        os.chmod(bad, 0o755)
        before = self.image()
        scctl("define", self.d.name, "--role", "storage", "--disk", self.d.disk, "--channels", "7", "--window-size", "192M", "--ready",
              str(15 * SLOW), "--debug-shell", "--append", "sc.shell=1", timeout=400)
        p = scctl("upgrade", self.d.name, "--agent", bad, timeout=400, check=False)
        self.assertEqual(p.returncode, 1, p.stdout)
        self.assertRegex(p.stdout, "going back to what it was(.*\n)*.*does not serve with what is new; it serves as before")
        self.assertEqual(self.image(), before)
        self.served()

    def image(self):
        with open("/var/lib/vhost-sc/%s/image/manifest.json" % self.d.name, encoding="utf-8") as f:
            return json.load(f)

    def watch(self):
        """Starts a watcher; returns it and a function that waits for a line of its."""
        log = os.path.join(self.d.dir, "watch.log")
        with open(log, "w", encoding="utf-8") as f:
            p = subprocess.Popen([sys.executable, SCCTL, "watch", self.d.name], stdin=subprocess.DEVNULL, stdout=f, stderr=f)
        self.addCleanup(p.wait)
        self.addCleanup(p.terminate)

        def said(pattern, seconds=90):
            def there():
                with open(log, encoding="utf-8") as f:
                    return re.search(pattern, f.read())
            until("watch: " + pattern, there, seconds)
        said("ready")
        return p, said

    def test_3_watch(self):
        """Its QEMU is killed: started again at once. Somebody destroys it: left alone. Suspended: left alone."""
        p, said = self.watch()
        with open("/run/libvirt/qemu/%s.pid" % self.d.name, encoding="ascii") as f:
            os.kill(int(f.read()), signal.SIGKILL)
        said(r"restart: its VM is gone \((crashed|failed)\)(.*\n)*.*ready")
        self.served()
        self.assertIn("running", virsh("domstate", self.d.name).stdout)
        virsh("suspend", self.d.name)
        time.sleep(4)
        self.assertIn("paused", virsh("domstate", self.d.name).stdout)
        virsh("resume", self.d.name)
        scctl("wait", self.d.name, "--timeout", str(120 * SLOW), timeout=200)
        self.served()
        self.d.destroy()
        time.sleep(4)
        self.assertIn("shut off", virsh("domstate", self.d.name).stdout)
        p.terminate()
        self.assertEqual(p.wait(20), 0)
        self.d.start()
        self.served()


if __name__ == "__main__":
    if "--seed" in sys.argv:
        # For all tests of this directory; this one has no use for it.
        at = sys.argv.index("--seed")
        del sys.argv[at : at + 2]
    unittest.main()
