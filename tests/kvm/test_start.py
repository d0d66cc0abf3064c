#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of kvm/start.py: what a VM is made of (no QEMU runs), and its life (QEMU runs, with a kernel that does nothing)."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "kvm"))
import start  # noqa: E402

QEMU = os.environ.get("VHOST_SC_QEMU") or os.path.join(TOP, ".cache/qemu/current/bin/qemu-system-x86_64")


class VmCase(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        for name in ("vmlinux", "vmlinuz", "initramfs.img", "disk"):
            self.make(name)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def make(self, name, data=b"\0" * 4096):
        with open(self.path(name), "wb") as f:
            f.write(data)

    def vm(self, **changes):
        fields = {
            "name": "s",
            "qemu": QEMU,
            "image": self.dir.name,
            "disk": self.path("disk"),
            "broker_socket": self.path("broker"),
            "pid_file": self.path("pid"),
            "qmp_socket": self.path("qmp"),
        }
        return start.Vm(**dict(fields, **changes))


class Command(VmCase):
    def after(self, argv, option):
        """The values of an option that may be given more than once."""
        return [argv[i + 1] for i, word in enumerate(argv) if word == option]

    def test_accelerators(self):
        kvm, tcg = start.command(self.vm(), "kvm"), start.command(self.vm(), "tcg")
        self.assertEqual(self.after(kvm, "-cpu"), ["host"])
        self.assertEqual(self.after(kvm, "-kernel"), [self.path("vmlinuz")])
        self.assertEqual(self.after(tcg, "-accel"), ["tcg,thread=multi"])
        self.assertEqual(self.after(tcg, "-cpu"), ["max,-erms,-fsrm"])
        self.assertEqual(self.after(tcg, "-kernel"), [self.path("vmlinux")])
        self.assertIn("mitigations=off", self.after(tcg, "-append")[0])
        self.assertNotIn("mitigations", self.after(kvm, "-append")[0])

    def test_image_without_vmlinux(self):
        os.unlink(self.path("vmlinux"))
        self.assertEqual(start.image_files(self.dir.name, "tcg")[0], self.path("vmlinuz"))
        os.unlink(self.path("initramfs.img"))
        with self.assertRaisesRegex(start.Failure, "build-image"):
            start.image_files(self.dir.name, "tcg")

    def test_own_kernel(self):
        argv = start.command(self.vm(kernel="/k", initrd="/i", image="/none"), "kvm")
        self.assertEqual(self.after(argv, "-kernel") + self.after(argv, "-initrd"), ["/k", "/i"])

    def test_device(self):
        argv = start.device_args(self.vm(num_channels=3, window_bytes=1 << 20, broker_socket="/run/a,b"))
        self.assertIn("path=/run/a,,b,", argv[1])
        self.assertIn("reconnect=1", argv[1])
        self.assertIn("num-channels=3,window-size=1048576", argv[3])

    def test_memory(self):
        self.assertIn("share=on", " ".join(start.memory_args(self.vm())))
        self.assertIn("hugetlb=on,hugetlbsize=2M,prealloc=on", " ".join(start.memory_args(self.vm(hugepages="2M"))))
        self.assertNotIn("host-nodes", " ".join(start.memory_args(self.vm())))
        self.assertTrue(start.memory_args(self.vm(node=1))[-1].endswith(",host-nodes=1,policy=preferred"))

    def test_pinning(self):
        """vCPUs and I/O thread by QEMU's answers; every other thread of the process to the emulator's CPUs."""
        answers = {"query-cpus-fast": [{"cpu-index": 1, "thread-id": 12}, {"cpu-index": 0, "thread-id": 11}],
                   "query-iothreads": [{"thread-id": 13}]}
        qmp = mock.Mock(execute=answers.get)
        vm = self.vm(vcpus=2, cpus=[4, 5], io_cpus=[1], emulator_cpus=[0, 1])
        with mock.patch("os.sched_setaffinity") as affinity, mock.patch("os.listdir", return_value=["10", "11", "13"]):
            start.pin(vm, qmp, 10)
        final = {call.args[0]: call.args[1] for call in affinity.call_args_list}
        self.assertEqual(final, {10: [0, 1], 11: [4], 12: [5], 13: [1]})

    def test_disk(self):
        argv = " ".join(start.disk_args(self.vm()))
        self.assertIn("iothread=disk-io", argv)
        with mock.patch("start.takes_direct_io", return_value=False), mock.patch("start.host_has_io_uring", return_value=False):
            argv = " ".join(start.disk_args(self.vm()))
        self.assertIn("cache.direct=off,aio=threads", argv)
        with mock.patch("start.takes_direct_io", return_value=True), mock.patch("start.host_has_io_uring", return_value=False):
            self.assertIn("cache.direct=on,aio=native", " ".join(start.disk_args(self.vm())))
        with self.assertRaisesRegex(start.Failure, "disk /none"):
            start.disk_args(self.vm(disk="/none"))

    def test_kernel_command_line(self):
        words = start.cmdline(self.vm(fsopts="noatime", pollers=2, append="x=y", on_agent_exit="halt"), "kvm").split()
        for word in ("sc.name=s", "sc.disk=/dev/vda", "sc.fsopts=noatime", "sc.pollers=2", "x=y", "sc.on_agent_exit=halt", "panic=1"):
            self.assertIn(word, words)

    def test_json(self):
        self.assertEqual(start.Vm.from_dict({"name": "a", "qemu": "/q"}).memory_mib, 512)
        with self.assertRaisesRegex(start.Failure, "memroy"):
            start.Vm.from_dict({"name": "a", "qemu": "/q", "memroy": 1})
        with self.assertRaisesRegex(start.Failure, "qemu"):
            start.Vm.from_dict({"name": "a"})


class Refusals(VmCase):
    def test_refusals(self):
        cases = (
            ({"qemu": "/none"}, "patched QEMU"),
            ({"disk": "/none"}, "disk /none"),
            ({}, "start vhost-scd"),
            ({"broker_socket": "", "cpus": [0, 1]}, "pin"),
            ({"pid_file": ""}, "pid_file"),
        )
        for changes, text in cases:
            with self.subTest(text), self.assertRaisesRegex(start.Failure, text):
                start.start(self.vm(**changes))

    def test_qemu_that_ends_is_quoted(self):
        with self.assertRaisesRegex(start.Failure, "(?s)ended at once.*nonsense"):
            start.start(self.vm(broker_socket="", accel="tcg", extra_args=["-nonsense"]))


class Life(VmCase):
    """The kernel is 4 KiB of zeros as firmware would see it: the VM idles in SeaBIOS."""

    def test_life(self):
        vm = self.vm(broker_socket="", accel="tcg", kernel="/dev/null", initrd="/dev/null", cpus=[0], io_cpus=[0],
                     console_log=self.path("log"), qemu_log=self.path("qemu.log"))
        argv = start.command
        # Without a kernel QEMU starts the firmware alone.
        with mock.patch("start.command", lambda v, a: [w for w in without_kernel(argv(v, a))]):
            pid, choice = start.start(vm)
        try:
            self.assertEqual(choice.accel, "tcg")
            status = start.status(vm)
            self.assertEqual((status["running"], status["pid"], status["state"]), (True, pid, "running"))
            self.assertEqual(status["vcpus"][0]["cpus"], [0])
            with self.assertRaisesRegex(start.Failure, "running already"):
                start.start(vm)
        finally:
            # Nobody in it answers the power button.
            self.assertEqual(start.stop(vm, 0.2), "killed")
        self.assertEqual(start.stop(vm), "not running")
        self.assertFalse(start.status(vm)["running"])

    def test_stale_pid_file(self):
        with open(self.path("pid"), "w", encoding="ascii") as f:
            f.write(str(os.getpid()))
        self.assertEqual(start.running_pid(self.vm()), 0)

    def test_program(self):
        config = self.path("vm.json")
        with open(config, "w", encoding="ascii") as f:
            json.dump({"name": "a", "qemu": "/q", "image": self.dir.name, "accel": "tcg"}, f)
        program = os.path.join(TOP, "kvm/start.py")
        out = subprocess.run([program, "command", config], capture_output=True, text=True, check=True).stdout
        self.assertTrue(out.startswith("/q "))
        done = subprocess.run([program, "status", "/none"], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (1, "start: /none: No such file or directory\n"))


def without_kernel(argv):
    skip = False
    for word in argv:
        if skip or word in ("-kernel", "-initrd", "-append"):
            skip = not skip
            continue
        yield word


if __name__ == "__main__":
    unittest.main()
