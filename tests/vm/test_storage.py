#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What only a virtual machine can show: the storage domain through libvirt, on a real guest with a real disk.

Programs' outcomes are compared by tests/e2e (which check.py runs on a VM, too); here are the VM's own affairs: what it
boots, that the files are the guest's, orderly shutdown, sudden death, limits, full disks, the broker's restart.
"""

import argparse
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vmtest import BUILD, SCRUN, TOP, Domain, run, scctl, scrun, spawn, status, until, virsh  # noqa: E402


class Storage(unittest.TestCase):
    """One domain for the tests that leave it running."""

    @classmethod
    def setUpClass(cls):
        cls.d = Domain("sctest", "--size", "1G", "--deadline-ms", "4000", "--channels", "15")
        cls.addClassCleanup(cls.d.close)
        cls.d.start()

    def test_stock_kernel(self):
        """The guest runs the distribution's kernel, unchanged, and says which modules it loaded."""
        s = status(self.d.name)
        image = os.path.dirname(re.search(r"<kernel>(.*)</kernel>", virsh("dumpxml", self.d.name).stdout).group(1))
        with open(os.path.join(image, "manifest.json"), encoding="utf-8") as f:
            manifest = json.load(f)
        text = json.dumps(manifest)
        with open(os.path.join(image, "vmlinuz"), "rb") as f:
            self.assertIn(hashlib.sha256(f.read()).hexdigest(), text)
        self.assertIn("virtio_sc", json.dumps(s))
        self.assertRegex(json.dumps(s), r"6\.1\.\d")

    def test_sqlite_in_the_guest(self):
        """sqlite3 writes; the host has nothing at that path; another process reads it back."""
        db = self.d.path("app.db")
        out = self.d.run("sqlite3", db, "create table t(x); insert into t values(1); select * from t;").stdout
        self.assertEqual(out, "1\n")
        self.assertFalse(os.path.exists(self.d.mount))
        self.assertEqual(self.d.run("sqlite3", db, "select count(*) from t;").stdout, "1\n")

    def test_direct_io(self):
        """O_DIRECT goes between disk and arena: what was written so reads back the same both ways."""
        self.d.sh("head -c 4194304 /dev/urandom > /tmp/sc-direct.$$ && dd if=/tmp/sc-direct.$$ of=%s bs=256k oflag=direct 2>/dev/null && "
                  "dd if=%s bs=1M iflag=direct 2>/dev/null | cmp - /tmp/sc-direct.$$ && cmp %s /tmp/sc-direct.$$; "
                  "s=$?; rm -f /tmp/sc-direct.$$; exit $s" % ((self.d.path("direct"),) * 3))

    def test_status_and_signals(self):
        """Exit status and signals pass through scrun."""
        self.assertEqual(self.d.sh("exit 37", check=False).returncode, 37)
        self.assertEqual(self.d.sh("kill -TERM $$", check=False).returncode, -signal.SIGTERM)
        self.assertEqual(self.d.run("/nonexistent", check=False).returncode, 127)
        self.assertEqual(self.d.run("/etc/passwd", check=False).returncode, 126)

    def test_killed_process_leaves_nothing(self):
        """kill -9 with files open and locked: channel, files and locks are free soon."""
        before = status(self.d.name)
        p = spawn(self.d.route, "python3", "-c", "import fcntl,time\nf=open('%s','w')\nfcntl.flock(f,fcntl.LOCK_EX)\nprint('locked',flush=True)\n"
                  "time.sleep(600)" % self.d.path("killed"))
        self.assertEqual(p.stdout.readline(), "locked\n")
        self.assertEqual(len(status(self.d.name)["channels"]), len(before["channels"]) + 1)
        p.kill()
        p.wait()
        p.stdout.close()
        until("the channel of the killed process is gone",
              lambda: len(status(self.d.name)["channels"]) <= len(before["channels"]))
        self.d.run("flock", "-n", self.d.path("killed"), "true")

    def test_many_processes_full(self):
        """More processes than channels: a clear refusal; those attached go on; room again afterwards."""
        held = []
        try:
            for _ in range(20):
                p = spawn(self.d.route, "python3", "-c", "import time\nf=open('%s','w')\nprint('ok',flush=True)\ntime.sleep(600)"
                          % self.d.path("held"))
                held.append(p)
                line = p.stdout.readline()
                if line != "ok\n":
                    break
            else:
                self.fail("20 processes attached to a domain with 15 channels")
            self.assertEqual(len(held), 16)
            self.assertRegex(line + p.stdout.read(), "channel")
        finally:
            for p in held:
                p.kill()
                p.wait()
                p.stdout.close()
        until("channels are free again", lambda: self.d.run("cat", "/dev/null", check=False).returncode == 0)

    def test_unprivileged(self):
        """An ordinary user uses a domain, with his own rights and no more."""
        self.d.sh("mkdir -p %s && chown nobody %s && echo secret > %s && chmod 600 %s" % ((self.d.path("nob"),) * 2 + (self.d.path("rootfile"),) * 2))
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", SCRUN, "--storage", self.d.route, "--"]
        run(as_nobody + ["sh", "-c", "echo mine > %s" % self.d.path("nob", "f")], cwd="/")
        self.assertEqual(self.d.run("stat", "-c", "%u:%g", self.d.path("nob", "f")).stdout, "65534:65534\n")
        self.assertIn("Permission denied", run(as_nobody + ["cat", self.d.path("rootfile")], check=False, cwd="/").stdout)

    def test_broker_restart_under_load(self):
        """The broker replaces itself while a program works: no call fails, new programs attach."""
        p = spawn(self.d.route, os.path.join(BUILD, "tests", "fsx", "scfsx"), "--dir", self.d.mount, "--ops", "1500", "--seed", str(SEED),
                  "--max-size", "100000")
        for _ in range(3):
            time.sleep(1)
            scctl("broker", "restart", self.d.name)
            self.assertEqual(self.d.run("sh", "-c", "echo again").stdout, "again\n")
            self.d.run("stat", self.d.mount)
        out, _ = p.communicate(timeout=300)
        self.assertEqual(p.returncode, 0, out)

    def test_full_disk(self):
        """A full disk is ENOSPC, and what was written before is whole."""
        out = self.d.sh("cd %s && mkdir full && cd full && echo kept > kept && dd if=/dev/zero of=big bs=1M count=2000; echo status $?; "
                        "cat kept; rm big; echo after > after; cat after" % self.d.mount, timeout=600).stdout
        self.assertIn("No space left on device", out)
        self.assertTrue(out.endswith("kept\nafter\n"), out)

    def test_clear_errors(self):
        """One line for each thing that can be wrong before a program starts."""
        for route, argv, words in (
                ("nosuch:/sc", ["true"], "nosuch"),
                ("sctest", ["true"], "NAME:"),
                ("sctest:", ["true"], "NAME:"),
                (self.d.route, ["/bin/nosuch"], "nosuch"),
        ):
            p = scrun(route, *argv, check=False)
            self.assertEqual(p.returncode, 127 if "nosuch" in argv[0] else 125, p.stdout)
            self.assertRegex(p.stdout, words)
            self.assertEqual(p.stdout.count("\n"), 1, p.stdout)


class Ends(unittest.TestCase):
    """How a domain ends, and what is left."""

    def setUp(self):
        self.d = Domain("sctest2", "--size", "512M", "--deadline-ms", "3000")
        self.addCleanup(self.d.close)

    def test_shutdown_is_clean(self):
        """virsh shutdown: the file system is unmounted clean, and the files are on the disk."""
        self.d.start()
        self.d.sh("cd %s && echo hello > f && mkdir dir && seq 1 10000 > dir/numbers" % self.d.mount)
        self.d.shutdown()
        head = run(["dumpe2fs", "-h", self.d.disk]).stdout
        self.assertRegex(head, r"Filesystem state:\s+clean")
        self.assertNotIn("needs_recovery", head)
        self.assertEqual(run(["debugfs", "-R", "cat /f", self.d.disk]).stdout.splitlines()[-1], "hello")
        run(["e2fsck", "-fn", self.d.disk])
        p = self.d.run("true", check=False)
        self.assertEqual(p.returncode, 125, p.stdout)
        self.assertRegex(p.stdout, "not running|down")
        self.assertEqual(p.stdout.count("\n"), 1)
        self.d.start()
        self.assertEqual(self.d.sh("tail -n 1 %s" % self.d.path("dir", "numbers")).stdout, "10000\n")

    def test_shutdown_under_load(self):
        """virsh shutdown in the middle of calls: whatever a program was told is written is on the disk, without any fsync."""
        self.d.start()
        p = spawn(self.d.route, "python3", "-c", "import os,sys\nfd=os.open(sys.argv[1],os.O_CREAT|os.O_WRONLY)\nprint('go',flush=True)\nn=0\n"
                  "try:\n while 1:\n  n+=os.write(fd,b'%07d\\n'%(n//8))\nexcept OSError as e: print(n,e.errno)", self.d.path("log"))
        self.assertEqual(p.stdout.readline(), "go\n")
        time.sleep(1)
        self.d.shutdown()
        acknowledged, error = map(int, p.communicate(timeout=60)[0].split())
        self.assertEqual(error, errno.EIO)
        self.assertGreater(acknowledged, 1000)
        run(["e2fsck", "-fn", self.d.disk])
        text = run(["debugfs", "-R", "cat /log", self.d.disk]).stdout.split("\n", 1)[1]  # after debugfs's own first line
        self.assertGreaterEqual(len(text), acknowledged)
        self.assertEqual(text, "".join("%07d\n" % i for i in range(len(text) // 8)))

    def test_destroy_under_load(self):
        """virsh destroy in the middle of calls: EIO after the deadline, no hang; what was fsync'd is there after start."""
        self.d.start()
        self.d.sh("echo synced > %s && sync %s" % ((self.d.path("synced"),) * 2))
        p = spawn(self.d.route, "sh", "-c", "exec 3>%s; echo go; while echo x >&3; do :; done; echo ended" % self.d.path("loop"))
        self.assertEqual(p.stdout.readline(), "go\n")
        time.sleep(1)
        self.d.destroy()
        out, _ = p.communicate(timeout=60)
        self.assertRegex(out, "Input/output error|I/O error")  # dash has words of its own
        self.assertTrue(out.endswith("ended\n"), out)
        self.d.start()
        self.assertEqual(self.d.run("cat", self.d.path("synced")).stdout, "synced\n")
        self.assertEqual(status(self.d.name)["state"], "ready")


class Direct(unittest.TestCase):
    """The same domain without libvirt."""

    def test_direct(self):
        d = Domain("sctest3", "--size", "512M")
        self.addCleanup(d.close)
        scctl("start", d.name, "--direct", timeout=300)
        self.addCleanup(scctl, "stop", d.name, check=False)
        self.assertEqual(d.sh("echo direct > %s; cat %s" % ((d.path("f"),) * 2)).stdout, "direct\n")
        p = scctl("start", d.name, "--direct", check=False)
        self.assertNotEqual(p.returncode, 0)
        scctl("stop", d.name)
        self.assertRegex(run(["dumpe2fs", "-h", d.disk]).stdout, r"Filesystem state:\s+clean")


parser = argparse.ArgumentParser(add_help=False)
parser.add_argument("--seed", type=int, default=1)
args, rest = parser.parse_known_args()
SEED = args.seed

if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + rest)
