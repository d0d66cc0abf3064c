#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""test_device - vhost-user-sc-pci as guest and broker see it, without either.

The test plays both: it drives the device through qtest as a driver would, and is the back end on the socket. No guest
code runs, so a run takes seconds, and what the broker could do wrong can be done here on purpose.

    tests/qemu/test_device.py [QEMU]        default: .cache/qemu/current/bin/qemu-system-x86_64

Exit status 77: there is no such QEMU (qemu-patches/build-qemu.sh makes it).
"""

import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import vhost_user as vu  # noqa: E402
from vm import Qemu, VirtioPci  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QEMU = os.path.join(TOP, ".cache/qemu/current/bin/qemu-system-x86_64")

KIB, MIB = 1 << 10, 1 << 20
CHANNELS = 5
QUEUES = CHANNELS + 2
WINDOW = 6 * MIB
SLOT = MIB
DEVICE = f"num-channels={CHANNELS},window-size={WINDOW}"
DEVICE_ID = 0x1040 + 63


class Case(unittest.TestCase):
    """A fresh QEMU and back end, connected; `dev` is the device, not yet started."""

    device = DEVICE
    window = WINDOW

    def setUp(self):
        self.work = tempfile.mkdtemp(prefix="sc-qemu-")
        self.addCleanup(shutil.rmtree, self.work)
        self.backend = vu.Backend(os.path.join(self.work, "sc.sock"), self.window)
        self.addCleanup(self.backend.close)
        self.qemu = Qemu(QEMU, self.work, self.device)
        self.addCleanup(self.qemu.close)
        self.addCleanup(self.check_alive)
        self.qemu.connect()
        self.backend.wait_connected(1)
        self.dev = VirtioPci(self.qemu, DEVICE_ID)
        self.dev.enable()

    def check_alive(self):
        if self.qemu.process.poll() is not None:
            self.fail(f"QEMU ended with {self.qemu.process.returncode}: {self.qemu.log()[-2000:]}")

    def start(self, queues=QUEUES):
        self.dev.start(queues, vu.F_VERSION_1)
        self.backend.wait_started(queues)
        for vring in self.backend.vrings.values():
            self.rung(vring.kick, 0)  # QEMU rings each once, in case that something had been queued before

    def channel(self, size=SLOT, fill=0):
        channel = vu.Channel(size, fill)
        self.addCleanup(channel.close)
        return channel

    def qemu_mappings(self):
        """Where QEMU has mapped channels in its own address space."""
        with open(f"/proc/{self.qemu.process.pid}/maps", encoding="ascii") as maps:
            return [line.split()[0] for line in maps if "/memfd:channel" in line]

    def window_read(self, offset, length=8):
        return self.qemu.read(self.dev.WINDOW_BAR + offset, length)

    def window_write(self, offset, data):
        self.qemu.write(self.dev.WINDOW_BAR + offset, data)

    def mappings(self):
        """Offsets of the mappings in the flat view, as the memory core sees them."""
        view = self.qemu.hmp("info mtree -f")
        return sorted({int(at, 16) for at in re.findall(r"virtio-shmem-map@(0x[0-9a-f]+)", view)})

    @staticmethod
    def rung(fd, timeout=5):
        """Waits for an eventfd and takes its count."""
        if not select.select([fd], [], [], timeout)[0]:
            return 0
        return int.from_bytes(os.read(fd, 8), "little")


class Build(unittest.TestCase):
    """What qemu-patches/build-qemu.sh left beside the program."""

    def installed(self, name):
        with open(os.path.join(os.path.dirname(os.path.dirname(QEMU)), "share/qemu", name), encoding="utf-8") as f:
            return f.read()

    def test_patches_are_clean(self):
        """QEMU's own checkpatch has nothing to say of the series."""
        self.assertEqual(self.installed("vhost-sc-checkpatch"), "")

    def test_numa(self):
        """Guest memory can be asked from a NUMA node, with the sandbox that kvm/start.py asks for."""
        done = subprocess.run([QEMU, "-machine", "none", "-nodefaults", "-display", "none", "-monitor", "stdio", "-sandbox",
                               "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", "-object",
                               "memory-backend-memfd,id=m,size=2M,host-nodes=0,policy=preferred"], input="quit\n", capture_output=True,
                              text=True, timeout=30, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)


class Layout(Case):
    def test_capabilities(self):
        bar, offset, length, size = self.dev.shm[0]
        self.assertEqual((bar, offset, length, size), (2, 0, WINDOW, 24))
        size, flags = self.dev.bar_size(2)
        self.assertEqual(flags, 0xc)  # 64-bit, prefetchable
        self.assertEqual(size, 2 << 30)  # so that it cannot be below 4 GiB
        self.assertEqual(self.dev.vectors(), QUEUES + 1)

    def test_queues_and_config(self):
        self.assertEqual(self.dev.num_queues(), QUEUES)
        self.assertEqual([self.dev.queue_size(q) for q in range(QUEUES)], [64, 64] + [2] * CHANNELS)
        config = CHANNELS.to_bytes(4, "little") + bytes(4) + SLOT.to_bytes(8, "little")
        self.assertEqual(self.dev.device_config(16), config)
        self.dev.write_device_config(b"\xff" * 16)
        self.assertEqual(self.dev.device_config(16), config)

    def test_negotiation(self):
        self.assertEqual(self.backend.acked_protocol, self.backend.protocol & ~vu.PF_DEVICE_STATE)
        self.assertFalse(self.dev.features() & vu.F_RING_RESET)
        self.start()
        self.assertTrue(self.backend.acked & vu.F_VERSION_1)
        self.backend.wait(lambda b: b.status == 0xf)  # ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK
        self.assertEqual(self.backend.vrings[0].num, 64)
        self.assertEqual(self.backend.vrings[QUEUES - 1].num, 2)
        # The doorbells' rings are in RAM, so the back end was told about it.
        self.assertTrue(any(start <= self.dev.RINGS < start + size for start, size, _, _ in self.backend.regions))

    def test_introspection(self):
        self.start()
        path = next(d["path"] for d in self.qemu.qmp("x-query-virtio") if d["name"] == "virtio-sc")
        status = self.qemu.qmp("x-query-virtio-status", path=path)
        protocols = " ".join(status["vhost-dev"]["protocol-features"]["protocols"])
        self.assertIn("VHOST_USER_PROTOCOL_F_SHMEM", protocols)


class Mapping(Case):
    def setUp(self):
        super().setUp()
        self.start()

    def test_map_is_shared_both_ways(self):
        channel = self.channel()
        self.assertEqual(self.backend.map(channel.fd, 2 * SLOT, SLOT), 0)
        self.window_write(2 * SLOT + 4096, b"to host!")
        self.assertEqual(channel.map[4096:4104], b"to host!")
        channel.map[SLOT - 8:SLOT] = b"to guest"
        self.assertEqual(self.window_read(3 * SLOT - 8), b"to guest")
        self.assertEqual(self.mappings(), [2 * SLOT])

    def test_part_of_a_file(self):
        channel = self.channel()
        channel.map[64 * KIB:64 * KIB + 8] = b"the part"
        self.assertEqual(self.backend.map(channel.fd, 0, 64 * KIB, fd_offset=64 * KIB), 0)
        self.assertEqual(self.window_read(0), b"the part")
        # The rest of the slot is a hole.
        self.window_write(64 * KIB, b"lost....")
        self.assertNotIn(b"lost....", channel.map[:])

    def test_read_only(self):
        channel = self.channel(fill=0x55)
        self.assertEqual(self.backend.map(channel.fd, 0, SLOT, flags=0), 0)
        self.assertEqual(self.window_read(0), b"\x55" * 8)
        self.window_write(0, b"\xaa" * 8)
        self.assertEqual(channel.map[:8], b"\x55" * 8)

    def test_unmap(self):
        channel = self.channel(fill=0x55)
        self.assertEqual(self.backend.map(channel.fd, SLOT, SLOT), 0)
        self.assertEqual(self.backend.unmap(SLOT, SLOT), 0)
        self.assertNotEqual(self.window_read(SLOT), b"\x55" * 8)
        self.assertEqual(self.mappings(), [])
        self.assertNotEqual(self.backend.unmap(SLOT, SLOT), 0)
        self.assertEqual(self.backend.map(channel.fd, SLOT, SLOT), 0)
        self.assertEqual(self.window_read(SLOT), b"\x55" * 8)

    def test_all_slots(self):
        channels = [self.channel(fill=i + 1) for i in range(CHANNELS + 1)]
        for i, channel in enumerate(channels):
            self.assertEqual(self.backend.map(channel.fd, i * SLOT, SLOT), 0)
        for i in range(CHANNELS + 1):
            self.assertEqual(self.window_read(i * SLOT), bytes([i + 1]) * 8)

    def test_own_mappings_are_not_reported_back(self):
        regions, sent = self.backend.regions, self.backend.log.count(vu.SET_MEM_TABLE)
        for i in range(CHANNELS):
            self.assertEqual(self.backend.map(self.channel().fd, i * SLOT, SLOT), 0)
        time.sleep(0.1)
        self.assertEqual((self.backend.regions, self.backend.log.count(vu.SET_MEM_TABLE)), (regions, sent))

    def test_refused(self):
        channel = self.channel()
        fd = channel.fd
        self.assertEqual(self.backend.map(fd, SLOT, SLOT), 0)
        huge = 1 << 64
        pipe = os.pipe()
        self.addCleanup(lambda: [os.close(end) for end in pipe])
        refused = {
            "same place": (fd, SLOT, SLOT, 0),
            "overlap at its end": (fd, SLOT - 4096, 8192, 0),
            "overlap within": (fd, SLOT + 4096, 4096, 0),
            "overlap around": (fd, 0, SLOT, 0, {"over": 3 * SLOT}),
            "beyond the window": (fd, WINDOW - 4096, 8192, 0),
            "behind the window": (fd, WINDOW, 4096, 0),
            "wraps around": (fd, huge - 4096, 8192, 0),
            "huge length": (fd, 0, huge - 4096, 0),
            "nothing": (fd, 0, 0, 0),
            "offset not aligned": (fd, 2 * SLOT + 512, 4096, 0),
            "length not aligned": (fd, 2 * SLOT, 4095, 0),
            "file offset not aligned": (fd, 2 * SLOT, 4096, 100),
            "beyond the file": (fd, 2 * SLOT, SLOT, 4096),
            "file offset beyond the file": (fd, 2 * SLOT, 4096, 1 << 40),
            "file offset wraps": (fd, 2 * SLOT, 8192, huge - 4096),
            "no descriptor": (None, 2 * SLOT, 4096, 0),
            "not a file": (pipe[0], 2 * SLOT, 4096, 0),
        }
        for name, (what, shm, length, offset, *_) in refused.items():
            with self.subTest(name):
                if name == "overlap around":
                    big = self.channel(3 * SLOT)
                    self.assertNotEqual(self.backend.map(big.fd, 0, 3 * SLOT), 0)
                else:
                    self.assertNotEqual(self.backend.map(what, shm, length, offset), 0)
        with self.subTest("no such region"):
            self.assertNotEqual(self.backend.map(fd, 2 * SLOT, SLOT, shmid=1), 0)
        with self.subTest("unknown flags"):
            self.assertNotEqual(self.backend.map(fd, 2 * SLOT, SLOT, flags=3), 0)
        with self.subTest("writable mapping of a read-only descriptor"):
            read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
            self.assertNotEqual(self.backend.map(read_only, 2 * SLOT, SLOT), 0)
            os.close(read_only)
        with self.subTest("payload too short"):
            self.assertNotEqual(self.backend.request(vu.SHMEM_MAP, bytes(16), (fd,)), 0)
        for name, args in {"no such mapping": (2 * SLOT, SLOT), "part of a mapping": (SLOT, 4096),
                           "more than a mapping": (SLOT, 2 * SLOT), "wraps": (huge - 4096, 8192)}.items():
            with self.subTest(f"unmap: {name}"):
                self.assertNotEqual(self.backend.unmap(*args), 0)
        with self.subTest("unmap: no such region"):
            self.assertNotEqual(self.backend.unmap(SLOT, SLOT, shmid=200), 0)
        self.assertEqual(self.mappings(), [SLOT])
        self.assertEqual(self.backend.map(fd, 2 * SLOT, SLOT), 0)

    def test_without_reply(self):
        channel = self.channel(fill=0x55)
        payload = vu.MMAP.pack(0, 0, 0, SLOT, 1)
        self.assertIsNone(self.backend.request(vu.SHMEM_MAP, payload, (channel.fd,), flags=0))
        # In order: the answer to a later request shows that the earlier one is done.
        self.assertNotEqual(self.backend.unmap(SLOT, SLOT), 0)
        self.assertEqual(self.window_read(0), b"\x55" * 8)

    def test_no_descriptors_leak(self):
        def count():
            return len(os.listdir(f"/proc/{self.qemu.process.pid}/fd"))

        channel = self.channel()
        before = count()
        for _ in range(50):
            self.assertEqual(self.backend.map(channel.fd, 0, SLOT), 0)
            self.assertNotEqual(self.backend.map(channel.fd, 0, SLOT), 0)
            self.assertEqual(self.backend.unmap(0, SLOT), 0)
        end = time.monotonic() + 5
        while count() > before and time.monotonic() < end:
            time.sleep(0.05)  # freed after an RCU grace period
        self.assertLessEqual(count(), before)


class Doorbell(Case):
    def setUp(self):
        super().setUp()
        self.start()

    def test_guest_rings_host(self):
        for queue in (0, 2, QUEUES - 1):
            self.dev.kick(queue)
            self.assertEqual(self.rung(self.backend.vrings[queue].kick), 1)

    def test_host_rings_guest(self):
        for queue in (1, 2, QUEUES - 1):
            os.eventfd_write(self.backend.vrings[queue].call, 1)
            self.assertEqual(self.dev.wait_message(queue + 1), 0x1000 + queue + 1)

    def test_masking_keeps_the_eventfd(self):
        """A process that holds the eventfd must get through whatever the guest does to its vector."""
        vring = self.backend.vrings[3]
        call, times = os.dup(vring.call), vring.calls_set
        self.addCleanup(os.close, call)
        self.dev.mask_vector(4, True)
        os.eventfd_write(call, 1)
        self.assertEqual(self.dev.wait_message(4, 0.3), 0)
        self.dev.mask_vector(4, False)
        self.assertEqual(self.dev.wait_message(4), 0x1004)
        os.eventfd_write(call, 1)
        self.assertEqual(self.dev.wait_message(4), 0x1004)
        self.assertEqual(vring.calls_set, times)

    def test_pause_changes_nothing(self):
        self.assertEqual(self.backend.map(self.channel(fill=0x55).fd, 0, SLOT), 0)
        times = self.backend.log.count(vu.GET_VRING_BASE)
        self.qemu.qmp("cont")
        self.qemu.qmp("stop")
        os.eventfd_write(self.backend.vrings[2].call, 1)
        self.assertEqual(self.dev.wait_message(3), 0x1003)
        self.assertEqual(self.backend.log.count(vu.GET_VRING_BASE), times)


class Reset(Case):
    def test_not_started(self):
        self.assertNotEqual(self.backend.map(self.channel().fd, 0, SLOT), 0)
        self.assertNotEqual(self.backend.unmap(0, SLOT), 0)

    def again(self, reset):
        for fill in (0x55, 0x66):
            self.start()
            channel = self.channel(fill=fill)
            self.assertEqual(self.backend.map(channel.fd, SLOT, SLOT), 0)
            self.assertEqual(self.window_read(SLOT), bytes([fill]) * 8)
            reset()
            self.backend.wait_stopped()
            self.dev.enable()
            self.assertEqual(self.mappings(), [])
            self.assertNotEqual(self.backend.map(channel.fd, SLOT, SLOT), 0)
        self.assertEqual(self.backend.connections, 1)

    def test_stop_without_reset(self):
        """Not what a driver should do. The back end sees its rings stop and start as with a reset."""
        self.start()
        channel = self.channel(fill=0x55)
        self.assertEqual(self.backend.map(channel.fd, SLOT, SLOT), 0)
        self.dev.set_status(0xb)
        self.backend.wait_stopped()
        self.dev.set_status(0xf)
        self.backend.wait_started(QUEUES)
        self.assertEqual(self.backend.map(channel.fd, SLOT, SLOT), 0)
        self.assertEqual(self.window_read(SLOT), b"\x55" * 8)

    def test_driver_reset(self):
        self.again(lambda: self.dev.set_status(0))

    def test_system_reset(self):
        self.again(lambda: self.qemu.qmp("system_reset"))


class Reconnect(Case):
    def reconnect(self):
        n = self.backend.connections
        self.backend.hang_up()
        self.backend.wait_connected(n + 1)

    def test_before_start(self):
        self.reconnect()
        self.start()
        self.assertEqual(self.backend.map(self.channel().fd, 0, SLOT), 0)

    def test_while_started(self):
        self.start()
        identity = [vu.eventfd_identity(self.backend.vrings[q].call) for q in range(QUEUES)]
        call, kick = os.dup(self.backend.vrings[2].call), os.dup(self.backend.vrings[2].kick)
        self.addCleanup(os.close, call)
        self.addCleanup(os.close, kick)
        kept, replaced = self.channel(fill=0x55), self.channel(fill=0x66)
        self.assertEqual(self.backend.map(kept.fd, SLOT, SLOT), 0)
        self.assertEqual(self.backend.map(replaced.fd, 2 * SLOT, SLOT), 0)

        n = self.backend.connections
        self.backend.hang_up()
        # With no back end, the channel goes on: memory and doorbells of both directions.
        self.assertEqual(self.window_read(SLOT), b"\x55" * 8)
        os.eventfd_write(call, 1)
        self.assertEqual(self.dev.wait_message(3), 0x1003)
        self.dev.kick(2)
        self.assertEqual(self.rung(kick), 1)

        self.backend.wait_connected(n + 1)
        self.backend.wait_started(QUEUES)
        self.assertEqual([vu.eventfd_identity(self.backend.vrings[q].call) for q in range(QUEUES)], identity)
        self.assertTrue(self.backend.acked & vu.F_VERSION_1)
        self.assertTrue(self.backend.regions)
        self.assertEqual(self.backend.vrings[0].num, 64)

        # The new back end maps the same again, or something else over it.
        before = self.qemu_mappings()
        self.assertEqual(self.backend.map(kept.fd, SLOT, SLOT), 0)
        self.assertEqual(self.window_read(SLOT), b"\x55" * 8)
        self.assertEqual(self.qemu_mappings(), before)  # it is the old one still, not a new one in its place
        self.assertNotEqual(self.backend.map(kept.fd, SLOT, SLOT), 0)
        other = self.channel(4096, fill=0x77)
        self.assertEqual(self.backend.map(other.fd, 2 * SLOT + 4096, 4096), 0)
        self.assertEqual(self.window_read(2 * SLOT + 4096), b"\x77" * 8)
        self.assertNotEqual(self.window_read(2 * SLOT), b"\x66" * 8)
        os.eventfd_write(self.backend.vrings[2].call, 1)
        self.assertEqual(self.dev.wait_message(3), 0x1003)

        # Driver reset with the new back end.
        self.dev.set_status(0)
        self.assertEqual(self.mappings(), [])
        self.start()
        self.assertNotIn("ring restore failed", self.qemu.log())

    def test_reset_while_away(self):
        self.start()
        self.assertEqual(self.backend.map(self.channel().fd, SLOT, SLOT), 0)
        n = self.backend.connections
        self.backend.hang_up()
        self.dev.set_status(0)
        self.assertEqual(self.mappings(), [])
        self.dev.start(QUEUES, vu.F_VERSION_1)
        self.backend.wait_connected(n + 1)
        self.backend.wait_started(QUEUES)
        self.dev.kick(3)
        self.assertTrue(self.rung(self.backend.vrings[3].kick))

    def test_wrong_window_is_refused_until_right(self):
        self.start()
        self.backend.window = WINDOW // 2
        n = self.backend.connections
        self.backend.hang_up()
        self.backend.wait(lambda b: b.connections >= n + 2 or "window-size" in self.qemu.log())
        self.backend.window = WINDOW
        self.backend.wait_started(QUEUES)
        self.assertIn("window-size", self.qemu.log())


class Default(Case):
    """What a user gets without options."""

    device = ""
    window = 2 << 30

    def test_defaults(self):
        self.assertEqual(self.dev.num_queues(), 129)
        self.assertEqual(self.dev.vectors(), 130)
        self.assertEqual(self.dev.shm[0][2], 2 << 30)
        self.assertEqual(self.dev.device_config(16),
                         (127).to_bytes(4, "little") + bytes(4) + (16 * MIB).to_bytes(8, "little"))
        self.start(129)
        last = self.channel(16 * MIB, fill=0x55)
        self.assertEqual(self.backend.map(last.fd, 127 * 16 * MIB, 16 * MIB), 0)
        self.assertEqual(self.window_read((2 << 30) - 8), b"\x55" * 8)
        os.eventfd_write(self.backend.vrings[128].call, 1)
        self.assertEqual(self.dev.wait_message(129), 0x1000 + 129)
        self.dev.kick(128)
        self.assertEqual(self.rung(self.backend.vrings[128].kick), 1)
        begin = time.monotonic()
        self.dev.set_status(0)
        self.backend.wait_stopped()
        self.assertLess(time.monotonic() - begin, 2)

    def test_file_descriptors(self):
        """As many as README.md says: people have to set limits by it."""
        self.start(129)
        self.assertLessEqual(len(os.listdir(f"/proc/{self.qemu.process.pid}/fd")), 4 * 129 + 40)


class Refusal(unittest.TestCase):
    """Devices that cannot be: QEMU says why and ends."""

    def refused(self, device, message, protocol=~0, window=WINDOW, queues=256):
        work = tempfile.mkdtemp(prefix="sc-qemu-")
        self.addCleanup(shutil.rmtree, work)
        backend = vu.Backend(os.path.join(work, "sc.sock"), window, queues)
        self.addCleanup(backend.close)
        backend.protocol &= protocol
        qemu = Qemu(QEMU, work, device, chardev="reconnect=0")
        self.addCleanup(qemu.close)
        self.assertEqual(qemu.process.wait(10), 1, qemu.log())
        self.assertIn(message, qemu.log())

    def test_channels(self):
        self.refused("num-channels=0", "num-channels must be 1 to 254")
        self.refused("num-channels=255", "num-channels must be 1 to 254")

    def test_window(self):
        self.refused("window-size=100000", "multiple of 64K")
        self.refused("window-size=2T", "multiple of 64K, and 1T at most")
        self.refused("window-size=64K", "at least 64K for each")

    def test_backend(self):
        self.refused(DEVICE, "window-size", window=2 * WINDOW)
        self.refused(DEVICE, "VHOST_USER_PROTOCOL_F_SHMEM", protocol=~vu.PF_SHMEM)
        self.refused(DEVICE, "needs 7 queues", queues=3)


def main():
    global QEMU
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        QEMU = os.path.abspath(sys.argv.pop(1))
    if not os.access(QEMU, os.X_OK):
        print(f"{QEMU}: no such QEMU; qemu-patches/build-qemu.sh makes it", file=sys.stderr)
        sys.exit(77)
    unittest.main()


if __name__ == "__main__":
    main()
