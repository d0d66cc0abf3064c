#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of kvm/accel.py, with files in the place of /dev/kvm and /proc/cpuinfo."""

import os
import sys
import tempfile
import unittest
from unittest import mock

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "kvm"))
import accel  # noqa: E402

INTEL = "processor\t: 0\nflags\t\t: fpu vme vmx sse4_2\n"
AMD = "processor\t: 0\nflags\t\t: fpu svm sse4_2\n"
PLAIN = "processor\t: 0\nflags\t\t: fpu vmxnet svm_lock sse4_2\nbugs\t\t: vmx\n"


class AccelTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.kvm = os.path.join(self.dir.name, "kvm")
        self.cpuinfo = os.path.join(self.dir.name, "cpuinfo")

    def host(self, cpuinfo, kvm=True):
        with open(self.cpuinfo, "w", encoding="ascii") as f:
            f.write(cpuinfo)
        if kvm:
            with open(self.kvm, "w", encoding="ascii"):
                pass

    def choose(self, wish):
        return accel.choose(wish, self.kvm, self.cpuinfo)

    def check_line(self, text):
        self.assertNotIn("\n", text)
        self.assertTrue(text)

    def test_works(self):
        for cpuinfo in (INTEL, AMD):
            self.host(cpuinfo)
            for wish in ("auto", "kvm"):
                choice = self.choose(wish)
                self.assertEqual((choice.accel, choice.kvm.state, choice.warning), ("kvm", "works", False))
                self.check_line(choice.text)
                self.assertEqual(choice.remedy, "")

    def test_absent(self):
        self.host(PLAIN, kvm=False)
        choice = self.choose("auto")
        self.assertEqual((choice.accel, choice.kvm.state), ("tcg", "absent"))
        self.assertIn("slower", choice.text)
        self.assertIn("firmware", choice.remedy)

    def test_absent_but_capable(self):
        self.host(INTEL, kvm=False)
        choice = self.choose("auto")
        self.assertEqual((choice.accel, choice.kvm.state), ("tcg", "absent"))
        self.assertIn("modprobe", choice.remedy)

    def test_forbidden(self):
        self.host(INTEL)
        with mock.patch("os.open", side_effect=PermissionError(13, "Permission denied")):
            choice = self.choose("auto")
        self.assertEqual((choice.accel, choice.kvm.state), ("tcg", "forbidden"))
        self.assertIn("group kvm", choice.remedy)

    def test_special(self):
        self.host(PLAIN)
        choice = self.choose("auto")
        self.assertEqual((choice.accel, choice.kvm.state), ("tcg", "special"))
        self.assertIn("specially built guests", choice.text)

    def test_special_as_wished(self):
        self.host(PLAIN)
        choice = self.choose("kvm")
        self.assertEqual((choice.accel, choice.warning), ("kvm", True))
        self.check_line(accel.silent_guest(choice, 60))
        self.assertIn("specially built guests", accel.silent_guest(choice, 60))

    def test_broken(self):
        self.host(INTEL)
        with mock.patch("accel._api_version", side_effect=OSError(25, "Inappropriate ioctl for device")):
            self.assertEqual(self.choose("auto").kvm.state, "broken")
        with mock.patch("accel._api_version", return_value=11):
            self.assertEqual(self.choose("auto").kvm.state, "broken")
        with mock.patch("os.open", side_effect=OSError(16, "Device or resource busy")):
            self.assertEqual(self.choose("auto").accel, "tcg")

    def test_wish_not_met(self):
        self.host(PLAIN, kvm=False)
        with self.assertRaises(accel.Unavailable) as caught:
            self.choose("kvm")
        self.check_line(str(caught.exception))
        self.assertIn("auto", str(caught.exception))

    def test_tcg_as_wished(self):
        self.host(INTEL)
        choice = self.choose("tcg")
        self.assertEqual(choice.accel, "tcg")
        self.assertIn("KVM would work", choice.text)

    def test_unknown_wish(self):
        with self.assertRaises(ValueError):
            self.choose("xen")

    def test_no_cpuinfo(self):
        self.assertFalse(accel.cpu_has_virtualization(os.path.join(self.dir.name, "none")))

    def test_this_host(self):
        self.check_line(accel.choose("auto").text)


if __name__ == "__main__":
    unittest.main()
