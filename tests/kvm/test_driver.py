#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the guest driver virtio_sc.ko and of the boot around it, in a real VM, with a fake broker.

A guest image is built with probe_agent in the agent's place; what it prints on the console becomes one test each. The
patched QEMU is needed (VHOST_SC_QEMU, or .cache/qemu/current). VHOST_SC_TEST_KERNEL names another kernel package than the
release's own, for instance linux-image-6.12.0-amd64. VHOST_SC_TEST_IMAGE names an image with probe_agent that is there already.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, "kvm")]
import start  # noqa: E402
from fake_broker import FakeBroker  # noqa: E402

QEMU = os.environ.get("VHOST_SC_QEMU") or os.path.join(TOP, ".cache/qemu/current/bin/qemu-system-x86_64")
KERNEL = os.environ.get("VHOST_SC_TEST_KERNEL")
CHANNEL = 4 << 20
BOOT_SECONDS = 120


def pattern(seed):
    """Byte i is i * 31 + i / 4096 + seed. Made page by page: the test bed's host is slow."""
    page = bytes(i * 31 & 0xFF for i in range(256)) * 16
    add = [bytes((i + n) & 0xFF for i in range(256)) for n in range(256)]
    return b"".join(page.translate(add[(n + seed) & 0xFF]) for n in range(CHANNEL // 4096))


class Host:
    """Does what the probe asks for."""

    def __init__(self, broker, channels, window):
        self.broker, self.channels, self.window = broker, channels, window
        self.channel = os.memfd_create("channel")
        self.state = os.memfd_create("state")
        os.ftruncate(self.channel, CHANNEL)
        os.ftruncate(self.state, 1 << 20)
        os.pwrite(self.channel, pattern(1), 0)

    def attach(self):
        self.broker.map(0, self.state, 1 << 20)
        self.broker.map(1, self.channel, CHANNEL)
        # QEMU makes kick eventfds with a first kick in them.
        for slot in range(1, self.channels + 1):
            self.broker.wait_kick(slot, 0)

    def serve(self, message):
        """Carries out one message."""
        word, *values = message.decode().split()
        values = [int(v) for v in values]
        do = getattr(self, "do_" + word)
        do(*values)

    def _yes(self, yes):
        self.broker.send(b"ok" if yes else b"no")

    def do_info(self, channels, slot_size, window):
        self._yes((channels, slot_size, window) == (self.channels, self.broker.slot_size, self.window))

    def do_attach(self):
        self.attach()
        self._yes(True)

    def do_message(self, size):
        self.broker.send(bytes((i * 7 + size) & 0xFF for i in range(size)))

    def do_lie(self, claimed):
        self.broker.send(b"x", claimed=claimed)

    def do_sleep(self, ms):
        self._yes(True)
        time.sleep(ms / 1000)

    def do_noise(self):
        pass

    def do_burst(self, count):
        for i in range(count):
            self.broker.send(bytes([i]))

    def do_ring(self, slot):
        self.broker.ring(slot)
        self._yes(True)

    def do_kicked(self, slot):
        self._yes(self.broker.wait_kick(slot, 0.5) > 0)

    def do_check(self, seed):
        self._yes(os.pread(self.channel, CHANNEL, 0) == pattern(seed))


class DriverInVm(unittest.TestCase):
    """One boot; its checks are sub-tests."""

    channels, window = 7, 64 << 20
    vcpus = 1
    extra = ""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory(prefix="sc-driver-")
        cls.image = os.environ.get("VHOST_SC_TEST_IMAGE")
        if cls.image:
            return
        probe = os.path.join(cls.dir.name, "probe_agent")
        subprocess.run(["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-I" + TOP + "/include", "-o", probe,
                        os.path.join(HERE, "probe_agent.c")], check=True)
        cls.image = os.path.join(cls.dir.name, "image")
        subprocess.run([os.path.join(TOP, "kvm/build-image.sh"), "--agent", probe, "--out", cls.image,
                        *(["--package", KERNEL] if KERNEL else [])], check=True, stdout=subprocess.DEVNULL)

    @classmethod
    def tearDownClass(cls):
        cls.dir.cleanup()

    def file(self, name):
        return os.path.join(self.dir.name, name)

    def boot(self, channels, window, vcpus, name):
        """Boots, serves the probe, and returns the console's text once the VM has switched itself off."""
        disk = self.file(name + ".img")
        subprocess.run(["truncate", "-s", "64M", disk], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
        broker = FakeBroker(self.file(name + ".vhost"), window, channels)
        host = Host(broker, channels, window)
        vm = start.Vm(name=name, qemu=QEMU, image=self.image, disk=disk, memory_mib=384, vcpus=vcpus, accel="auto",
                      broker_socket=self.file(name + ".vhost"), num_channels=channels, window_bytes=window,
                      on_agent_exit="poweroff", console_log=self.file(name + ".log"), qemu_log=self.file(name + ".qemu"),
                      pid_file=self.file(name + ".pid"), qmp_socket=self.file(name + ".qmp"))
        start.start(vm)
        try:
            self.assertTrue(broker.running.wait(BOOT_SECONDS), "the driver did not start the device: " + self.console(vm))
            host.attach()
            end = time.monotonic() + BOOT_SECONDS
            while start.running_pid(vm) and time.monotonic() < end:
                try:
                    host.serve(broker.receive(0.5))
                except TimeoutError:
                    pass
        finally:
            start.stop(vm, 0)
        return self.console(vm)

    def console(self, vm):
        with open(vm.console_log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def judge(self, text):
        results = re.findall(r"^sc-agent: (ok|not ok) (.*?)\r?$", text, re.M)
        for verdict, what in results:
            with self.subTest(what):
                self.assertEqual(verdict, "ok")
        self.assertIn("sc-agent: done", text, "the probe did not come to its end")
        self.assertGreater(len(results), 60)
        self.assertNotRegex(text, r"BUG:|WARNING:|Oops|Call Trace|page allocation failure")

    def test_few_channels(self):
        self.judge(self.boot(7, 64 << 20, 1, "few"))

    def test_default_size_two_vcpus(self):
        self.judge(self.boot(127, 2304 << 20, 2, "default"))


if __name__ == "__main__":
    unittest.main()
