#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""scctl and libvirt with a real VM: define, the hook, console, reset, ends, disks in use, start without libvirt."""

import os
import pty
import select
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vmtest import SCCTL, Domain, run, scctl, status, until, virsh  # noqa: E402


class Scctl(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.d = Domain("sctest4", "--size", "256M", "--channels", "7", "--window-size", "128M")
        cls.addClassCleanup(cls.d.close)
        cls.d.start()

    def test_who_runs_qemu(self):
        """QEMU is not root, and nobody but its user may be the VM to the broker."""
        with open("/run/libvirt/qemu/%s.pid" % self.d.name, encoding="ascii") as f:
            uid = os.stat("/proc/%s" % f.read().strip()).st_uid
        sock = os.stat("/run/vhost-sc/%s/vhost.sock" % self.d.name)
        self.assertNotEqual(uid, 0)
        self.assertEqual((sock.st_uid, sock.st_mode & 0o777), (uid, 0o600))

    def test_status_says_what_runs(self):
        s = status(self.d.name)
        self.assertEqual((s["state"], s["loopback"], s["info"]["how"]), ("ready", False, "libvirt"))
        self.assertIn(s["info"]["accelerator"], ("kvm", "tcg"))
        self.assertEqual((s["limits"]["channels"], s["limits"]["slot_size"]), (7, 16 << 20))
        text = scctl("status", self.d.name).stdout
        self.assertRegex(text, "storage domain, ready, (KVM|TCG), libvirt")
        self.assertNotIn("no isolation", text)

    def test_defined_again_while_it_runs(self):
        before = os.stat(self.d.disk)
        scctl("define", self.d.name, "--disk", self.d.disk, "--size", "256M", "--channels", "7", "--window-size", "128M")
        after = os.stat(self.d.disk)
        self.assertEqual((before.st_ino, before.st_size), (after.st_ino, after.st_size))
        self.assertEqual(status(self.d.name)["state"], "ready")

    def test_its_disk_is_not_for_others(self):
        """Neither a second domain, nor a second start, nor undefine touches the disk of a running VM."""
        for argv, words in ((("define", "sctest5", "--disk", self.d.disk), "in use|belongs to"),
                            (("start", self.d.name, "--direct"), "running already"),
                            (("start", self.d.name), "running already"),
                            (("undefine", self.d.name, "--remove-disk"), "is running")):
            p = scctl(*argv, check=False)
            self.assertIn(p.returncode, (1, 2), p.stdout)
            self.assertRegex(p.stdout, words)
        self.assertTrue(os.path.exists(self.d.disk))

    def test_reset_is_a_new_incarnation(self):
        before = status(self.d.name)["incarnation"]
        virsh("reset", self.d.name)
        until("a new incarnation", lambda: status(self.d.name)["incarnation"] > before, 120)
        self.assertEqual(self.d.run("stat", "-c", "%F", self.d.mount).stdout, "directory\n")

    def _console(self, *argv):
        """Starts a console program on a terminal, leaves it by Ctrl-], and returns what it printed."""
        master, slave = pty.openpty()
        p = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        seen, pressed, end = b"", False, time.monotonic() + 30
        while p.poll() is None and time.monotonic() < end:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    seen += os.read(master, 4096)
                except OSError:
                    break
            if not pressed and (b"Escape character" in seen or b"Ctrl-]" in seen):
                os.write(master, b"\x1d")
                pressed = True
        p.kill()
        p.wait()
        os.close(master)
        self.assertTrue(pressed, seen)

    def test_console(self):
        self._console("virsh", "console", self.d.name)
        self._console(SCCTL, "console", self.d.name)

    def test_logs(self):
        text = scctl("logs", self.d.name, "-n", "100").stdout
        self.assertIn("sc-init: service domain", text)
        self.assertIn("serves: agent", text)


class Hook(unittest.TestCase):

    def setUp(self):
        self.d = Domain("sctest6", "--size", "64M")
        self.addCleanup(self.d.close)

    def test_broker_is_found_or_started(self):
        """virsh start starts the broker; the next start finds it; a stopped one is started again."""
        self.d.start()
        pid = status(self.d.name)["broker"]["pid"]
        self.d.shutdown()
        self.assertEqual(status(self.d.name)["broker"]["pid"], pid)
        self.d.start()
        self.assertEqual((status(self.d.name)["broker"]["pid"], status(self.d.name)["incarnation"]), (pid, 2))
        scctl("stop", self.d.name)
        state = run(["ps", "-o", "stat=", "-p", str(pid)], check=False).stdout.strip()
        self.assertRegex(state, "^(Z.*)?$")  # gone, or waiting for process 1 to notice
        self.assertIn("shut off", virsh("domstate", self.d.name).stdout)
        self.d.start()
        self.assertEqual(status(self.d.name)["incarnation"], 1)

    def test_stop_while_booting(self):
        """The power button is pressed until the guest hears it."""
        scctl("start", self.d.name, "--wait", "0")
        self.assertIn("stopped", scctl("stop", self.d.name).stdout)

    def test_direct_and_libvirt_take_turns(self):
        scctl("start", self.d.name, "--direct", timeout=300)
        self.assertEqual(status(self.d.name)["info"]["how"], "direct")
        p = scctl("start", self.d.name, check=False)
        self.assertRegex(p.stdout, "running already .direct.")
        scctl("stop", self.d.name)
        scctl("start", self.d.name, timeout=300)
        self.assertEqual(status(self.d.name)["info"]["how"], "libvirt")
        scctl("stop", self.d.name)
        scctl("undefine", self.d.name, "--remove-disk")
        self.assertFalse(os.path.exists(self.d.disk))
        self.assertNotIn(self.d.name, virsh("list", "--all", "--name").stdout)
        self.assertNotEqual(run([SCCTL, "status", self.d.name], check=False).returncode, 0)


if __name__ == "__main__":
    argv = sys.argv[:]
    if "--seed" in argv:  # check.py gives every VM test one; nothing here is random
        at = argv.index("--seed")
        del argv[at:at + 2]
    unittest.main(argv=argv)
