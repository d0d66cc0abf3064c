#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tests on real KVM: the guest driver's tests (tests/kvm) in the KVM test bed, on any machine.

Under KVM a doorbell is an irqfd, a kick an ioeventfd, and the window memory slots; under TCG all that is QEMU's own.
"""

import os
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TESTBED = os.path.join(TOP, "kvm/testbed.py")


class Testbed(unittest.TestCase):
    def run_in(self, *argv, **env):
        return subprocess.run([TESTBED, "--timeout", "900", "--", *argv], cwd=TOP, capture_output=True, text=True,
                              env=dict(os.environ, **env), check=False)

    def test_kvm_works_and_status_is_passed_on(self):
        done = self.run_in("sh", "-c", "kvm/accel.py kvm; touch /usr/written; exit 7")
        self.assertEqual(done.returncode, 7, done.stdout + done.stderr)
        self.assertIn("KVM: /dev/kvm works", done.stdout)
        self.assertFalse(os.path.exists("/usr/written"))

    def test_driver(self):
        # Below the source tree: the test bed has a /tmp of its own.
        os.makedirs(os.path.join(TOP, ".cache"), exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="testbed-", dir=os.path.join(TOP, ".cache")) as work:
            probe = os.path.join(work, "probe")
            subprocess.run(["gcc", "-std=gnu17", "-O2", "-static", "-I" + TOP + "/include", "-o", probe,
                            os.path.join(TOP, "tests/kvm/probe_agent.c")], check=True)
            image = os.path.join(work, "image")
            subprocess.run([os.path.join(TOP, "kvm/build-image.sh"), "--agent", probe, "--out", image], check=True,
                           stdout=subprocess.DEVNULL)
            done = self.run_in(sys.executable, "tests/kvm/test_driver.py", "-v", "DriverInVm.test_few_channels",
                               VHOST_SC_TEST_IMAGE=image)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    if "--seed" in sys.argv:
        # For all tests of this directory; this one has no use for it.
        at = sys.argv.index("--seed")
        del sys.argv[at : at + 2]
    unittest.main()
