# SPDX-License-Identifier: BSD-3-Clause
"""vm - QEMU without a guest: the test itself is firmware, bus enumeration and driver, through the qtest protocol.

`Qemu` runs the program and talks to its QMP and qtest sockets, `VirtioPci` drives one virtio 1.0 PCI device on bus 0.
"""

import json
import os
import socket
import struct
import subprocess
import time

RAM = 64 << 20


class Lines:
    """A socket as a stream of lines, with a deadline for each."""

    def __init__(self, path, timeout=10):
        end = time.monotonic() + timeout
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(path)
                break
            except OSError:
                self.sock.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self.sock.settimeout(timeout)
        self.buffer = b""

    def send(self, line):
        self.sock.sendall(line.encode() + b"\n")

    def receive(self):
        while b"\n" not in self.buffer:
            part = self.sock.recv(65536)
            if not part:
                raise ConnectionError("QEMU closed the connection")
            self.buffer += part
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()


class Qemu:
    """QEMU with q35 and shared RAM in the directory `work`, its processors stopped unless `args` say otherwise."""

    def __init__(self, program, work, device, accel="tcg", chardev="reconnect=1"):
        self.log_path = os.path.join(work, "qemu.log")
        qmp, qtest = os.path.join(work, "qmp"), os.path.join(work, "qtest")
        for path in (qmp, qtest):
            if os.path.exists(path):
                os.unlink(path)
        command = [
            program, "-nodefaults", "-display", "none", "-S", "-M", "q35", "-accel", accel, "-m", "64M",
            "-object", "memory-backend-memfd,id=ram,size=64M,share=on", "-M", "memory-backend=ram",
            "-qmp", f"unix:{qmp},server=on,wait=off", "-qtest", f"unix:{qtest},server=on,wait=off",
            "-qtest-log", "none",
            "-chardev", f"socket,id=sc,path={work}/sc.sock,{chardev}",
            "-device", f"vhost-user-sc-pci,chardev=sc,{device}",
        ]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._qmp_path, self._qtest_path = qmp, qtest
        self._qmp = self._qtest = None

    def connect(self):
        self._qmp = Lines(self._qmp_path)
        self._qmp.receive()
        self.qmp("qmp_capabilities")
        self._qtest = Lines(self._qtest_path)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for lines in (self._qmp, self._qtest):
            if lines:
                lines.sock.close()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def qmp(self, command, **arguments):
        self._qmp.send(json.dumps({"execute": command, "arguments": arguments}))
        while True:
            answer = json.loads(self._qmp.receive())
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def hmp(self, line):
        return self.qmp("human-monitor-command", **{"command-line": line})

    def qtest(self, line):
        self._qtest.send(line)
        while True:
            answer = self._qtest.receive().split()
            if answer[0] == "OK":
                return answer[1:]
            if answer[0] != "IRQ":
                raise RuntimeError(f"qtest '{line}': {' '.join(answer)}")

    def load(self, size, address):
        return int(self.qtest(f"read{size} {address:#x}")[0], 16)

    def store(self, size, address, value):
        self.qtest(f"write{size} {address:#x} {value:#x}")

    def read(self, address, length):
        return bytes.fromhex(self.qtest(f"read {address:#x} {length:#x}")[0][2:])

    def write(self, address, data):
        self.qtest(f"write {address:#x} {len(data):#x} 0x{data.hex()}")


class VirtioPci:
    """The virtio PCI device with id `device_id`. Sets up BARs, MSI-X and queues where the tests have room for them."""

    MSIX_BAR, WINDOW_BAR, MODERN_BAR = 0xfe000000, 0x1000000000, 0x800000000
    RINGS = 1 << 20  # in RAM: 4 KiB for each queue
    MESSAGES = 8 << 20  # in RAM: MSI-X messages go here, 4 bytes for each vector

    def __init__(self, qemu, device_id):
        self.qemu = qemu
        self.slot = next(slot for slot in range(32) if self._config_of(slot, 0) == device_id << 16 | 0x1af4)
        self.caps = {}
        self.shm = {}
        self.msix = 0
        self._scan()

    def _address(self, slot, offset):
        self.qemu.qtest(f"outl 0xcf8 {1 << 31 | slot << 11 | offset & 0xfc:#x}")

    def _config_of(self, slot, offset):
        self._address(slot, offset)
        return int(self.qemu.qtest("inl 0xcfc")[0], 16)

    def config(self, offset):
        return self._config_of(self.slot, offset)

    def set_config(self, offset, value):
        self._address(self.slot, offset)
        self.qemu.qtest(f"outl 0xcfc {value:#x}")

    def _scan(self):
        cap = self.config(0x34) & 0xff
        while cap:
            head = self.config(cap)
            if head & 0xff == 0x11:
                self.msix = cap
            elif head & 0xff == 9:
                bar, offset, length = self.config(cap + 4), self.config(cap + 8), self.config(cap + 12)
                kind = head >> 24
                if kind == 8:
                    offset |= self.config(cap + 16) << 32
                    length |= self.config(cap + 20) << 32
                    self.shm[bar >> 8 & 0xff] = (bar & 0xff, offset, length, head >> 16 & 0xff)
                else:
                    self.caps[kind] = (bar & 0xff, offset, length)
                    if kind == 2:
                        self.multiplier = self.config(cap + 16)
            cap = head >> 8 & 0xff

    def bar_size(self, bar):
        """Sizes a 64-bit BAR. Returns (size in bytes, its flag bits)."""
        at = 0x10 + 4 * bar
        flags = self.config(at) & 0xf
        self.set_config(at, 0xffffffff)
        self.set_config(at + 4, 0xffffffff)
        mask = self.config(at + 4) << 32 | self.config(at) & ~0xf
        return (~mask & (1 << 64) - 1) + 1, flags

    def enable(self):
        for bar, address in ((1, self.MSIX_BAR), (2, self.WINDOW_BAR), (4, self.MODERN_BAR)):
            self.set_config(0x10 + 4 * bar, address & 0xffffffff)
            if bar != 1:
                self.set_config(0x14 + 4 * bar, address >> 32)
        self.set_config(4, 6)  # memory, bus master

    def _at(self, kind):
        return self.MODERN_BAR + self.caps[kind][1]

    def status(self):
        return self.qemu.load("b", self._at(1) + 0x14)

    def set_status(self, value):
        self.qemu.store("b", self._at(1) + 0x14, value)

    def device_config(self, length):
        return self.qemu.read(self._at(4), length)

    def write_device_config(self, data):
        self.qemu.write(self._at(4), data)

    def features(self):
        words = []
        for word in (0, 1):
            self.qemu.store("l", self._at(1), word)
            words.append(self.qemu.load("l", self._at(1) + 4))
        return words[1] << 32 | words[0]

    def set_features(self, value):
        for word in (0, 1):
            self.qemu.store("l", self._at(1) + 8, word)
            self.qemu.store("l", self._at(1) + 12, value >> 32 * word & 0xffffffff)

    def num_queues(self):
        return self.qemu.load("w", self._at(1) + 0x12)

    def queue_size(self, queue):
        self.qemu.store("w", self._at(1) + 0x16, queue)
        return self.qemu.load("w", self._at(1) + 0x18)

    def vectors(self):
        return (self.config(self.msix) >> 16 & 0x7ff) + 1

    def mask_vector(self, vector, masked):
        self.qemu.store("l", self.MSIX_BAR + 16 * vector + 12, int(masked))

    def message(self, vector):
        """The MSI-X message that has arrived, 0 if none; forgets it."""
        at = self.MESSAGES + 4 * vector
        value = self.qemu.load("l", at)
        self.qemu.store("l", at, 0)
        return value

    def wait_message(self, vector, timeout=5):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            value = self.message(vector)
            if value:
                return value
            time.sleep(0.01)
        return 0

    def start(self, queues, features):
        """Does what a driver does from reset to DRIVER_OK. Queue q gets vector q + 1."""
        for status in (0, 1, 3):
            self.set_status(status)
        self.set_features(features)
        self.set_status(0xb)
        if not self.status() & 8:
            raise RuntimeError("features refused")
        table = b"".join(struct.pack("<QII", self.MESSAGES + 4 * v, 0x1000 + v, 0) for v in range(queues + 1))
        self.qemu.write(self.MSIX_BAR, table)
        self.set_config(self.msix, self.config(self.msix) & 0x3fffffff | 0x80000000)
        for queue in range(queues):
            self._set_up_queue(queue)
        self.set_status(0xf)

    def _set_up_queue(self, queue):
        common, rings = self._at(1), self.RINGS + 4096 * queue
        self.qemu.write(rings, bytes(4096))
        size = self.queue_size(queue)
        self.qemu.store("w", common + 0x1a, queue + 1)
        self.qemu.write(common + 0x20, struct.pack("<Q", rings))
        self.qemu.write(common + 0x28, struct.pack("<Q", rings + 16 * size))
        self.qemu.write(common + 0x30, struct.pack("<Q", rings + 2048))
        self.qemu.store("w", common + 0x1c, 1)

    def kick(self, queue):
        self.qemu.store("w", self._at(2) + queue * self.multiplier, queue)
