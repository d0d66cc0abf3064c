#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""./demo, the first thing that a stranger runs: killed in the middle, then run again to its end.

It has a domain and a disk of its own here (SC_DEMO_NAME, SC_DEMO_DISK, SC_DEMO_PATH), and shows all that it promises.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vmtest import TOP, run, scctl, virsh  # noqa: E402

NAME = "scdemo"


class Demo(unittest.TestCase):

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sc-demo.")
        os.chmod(self.dir, 0o755)
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.addCleanup(scctl, "undefine", NAME, check=False)
        self.addCleanup(virsh, "destroy", NAME, check=False)
        self.addCleanup(scctl, "undefine", NAME + "-net", check=False)
        self.addCleanup(virsh, "destroy", NAME + "-net", check=False)
        self.disk = os.path.join(self.dir, "demo.img")
        self.env = dict(os.environ, SC_DEMO_NAME=NAME, SC_DEMO_DISK=self.disk, SC_DEMO_PATH="/scdemo")
        self.demo = os.path.join(TOP, "demo")

    def test_interrupted_and_run_again(self):
        """Killed when the VM has just been started: the next run takes away what is left, and shows the whole story."""
        p = subprocess.Popen([self.demo], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env,
                             start_new_session=True)
        seen = ""
        for line in p.stdout:
            seen += line
            if "Domain '%s' started" % NAME in line:
                break
        else:
            self.fail("the first run did not come as far as its VM:\n" + seen)
        os.killpg(p.pid, signal.SIGKILL)
        p.stdout.close()
        p.wait()
        self.assertIn(NAME, virsh("list", "--name").stdout)

        text = re.sub("\x1b\\[\\d*m", "", run([self.demo], timeout=600, env=self.env).stdout)
        self.assertIn("taking away what an interrupted run left", text)
        story = [
            r"\$ scctl define %s --role storage" % NAME, r"\$ virsh start %s" % NAME, r"the agent serves \(\d+\.\d s\)", r"%s +running" % NAME,
            r"\$ scrun .*sqlite3.*\n1\n", r"16777216 bytes .*copied", r"hostlib", r"\w+ demo\n", r"there is nothing at /scdemo on this host",
            r"in a transaction: 1\n", r"\$ virsh destroy %s\n" % NAME, r"Domain '%s' started" % NAME, r"\n2\nok\n",
            r"\$ scctl define %s-net --role network" % NAME, r"\$ virsh destroy %s-net\n" % NAME, r"Domain '%s-net' started" % NAME,
            r"([0-9a-f]{64})  \S+/file\n\1  \S+/got\n", r"storage domain, ready", r"calls: \d+", r"write +\d+", r"\$ dumpe2fs", r"Filesystem state: +clean", r"app\.db",
            r"packages +\d+\.\d s", r"agent ready +\d+\.\d s", r"git +\d+\.\d s", r"killed and started: sqlite3 +\d+\.\d s", r"killed and started: curl +\d+\.\d s", r"all +\d+ s", r"demo: sqlite3, dd, tar and git ran unmodified",
        ]
        at = 0
        for pattern in story:
            found = re.compile(pattern).search(text, at)
            self.assertTrue(found, "%s is missing, or not in its place:\n%s" % (pattern, text))
            at = found.start()
        self.assertFalse(os.path.exists(self.disk))
        self.assertNotIn(NAME, virsh("list", "--all", "--name").stdout)
        self.assertFalse(os.path.exists("/sys/class/net/sc-" + NAME))

    def test_name_in_use(self):
        """A domain of the user's that has the demo's name is left alone."""
        xml = os.path.join(self.dir, "x.xml")
        with open(xml, "w", encoding="ascii") as f:
            f.write("<domain type='qemu'><name>%s</name><memory unit='MiB'>64</memory><os><type arch='x86_64'>hvm</type></os></domain>" % NAME)
        virsh("define", xml)
        self.addCleanup(virsh, "undefine", NAME, check=False)
        p = run([self.demo], check=False, env=self.env)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("'%s' exists already" % NAME, p.stdout)
        self.assertIn(NAME, virsh("list", "--all", "--name").stdout)


if __name__ == "__main__":
    if "--seed" in sys.argv:
        # For all tests of this directory; this one has no use for it.
        at = sys.argv.index("--seed")
        del sys.argv[at : at + 2]
    unittest.main()
