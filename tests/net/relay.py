#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""relay.py - a bad line between a network domain and the outside: a program that forwards frames between the domain's tap and a tap
of its own, and loses, repeats, delays and reorders some of them, as a seed says. What passes is written to a capture.

    with Relay(seed=1, loss=0.01, delay=0.05) as relay:     in the namespace that has "sctap0" (netdomain.py), which loses its addresses
        ...                                                 the outside's addresses are at the relay's tap now
        relay.inject(frame)                                 a frame of one's own to the domain
    relay.capture                                           a pcap file: what the domain sent, and what reached it

One thread does all of it. Frames of the domain are captured before anything happens to them.
"""
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time

from netdomain import OWN, PEER, PEER6

INSIDE, OUTSIDE = "sctap0", "scout0"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000
PACKET_OUTGOING = 4
MAX_FRAME = 2048


def ip(*args):
    subprocess.run(["ip"] + list(args), check=True)


class Relay:
    def __init__(self, capture, seed=1, loss=0.0, duplicate=0.0, reorder=0.0, delay=0.0):
        self.capture, self.random = capture, random.Random(seed)
        self.loss, self.duplicate, self.reorder, self.delay = loss, duplicate, reorder, delay
        self.counts = {"passed": 0, "lost": 0, "repeated": 0, "reordered": 0}
        self.waiting = []  # (when, number, write, frame)
        self.number = 0
        self.to_inject = []
        self.down = False

    def __enter__(self):
        ip("addr", "flush", "dev", INSIDE)
        with open("/proc/sys/net/ipv6/conf/%s/disable_ipv6" % INSIDE, "w", encoding="utf-8") as f:
            f.write("1")
        self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.tap, TUNSETIFF, struct.pack("16sH22x", OUTSIDE.encode(), IFF_TAP | IFF_NO_PI))
        ip("addr", "add", PEER + "/24", "dev", OUTSIDE)
        ip("-6", "addr", "add", PEER6 + "/64", "dev", OUTSIDE, "nodad")
        ip("link", "set", OUTSIDE, "up")
        self.packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.packet.bind((INSIDE, 3))
        self.packet.setblocking(False)
        self.file = open(self.capture, "wb")
        self.file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        self.wake_r, self.wake_w = os.pipe()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        os.write(self.wake_w, b"x")
        self.thread.join()
        self.file.close()
        self.packet.close()
        os.close(self.tap)
        os.close(self.wake_r)
        os.close(self.wake_w)

    def inject(self, frame):
        self.to_inject.append(frame)
        os.write(self.wake_w, b"i")

    def note(self, frame):
        now = time.time()
        self.file.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), len(frame), len(frame)) + frame)

    def hand_over(self, write, frame, after):
        self.number += 1
        heapq.heappush(self.waiting, (time.monotonic() + after, self.number, write, frame))

    def take(self, write, frame):
        if self.down or self.random.random() < self.loss:
            self.counts["lost"] += 1
            return
        after = self.delay
        if self.random.random() < self.reorder:  # others overtake it
            self.counts["reordered"] += 1
            after += max(self.delay / 5, 0.005)
        self.hand_over(write, frame, after)
        if self.random.random() < self.duplicate:
            self.counts["repeated"] += 1
            self.hand_over(write, frame, after + 0.001)

    def to_domain(self, frame):
        self.note(frame)
        try:
            self.packet.send(frame)
        except OSError:
            pass  # its queue is full: lost, as on any line

    def to_outside(self, frame):
        try:
            os.write(self.tap, frame)
        except OSError:
            pass

    def pass_on(self):
        """Frames whose time has come. Seconds until the next one, or None."""
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            _, _, write, frame = heapq.heappop(self.waiting)
            self.counts["passed"] += 1
            write(frame)
        return max(0.0, self.waiting[0][0] - time.monotonic()) if self.waiting else None

    def run(self):
        while True:
            ready = select.select([self.packet, self.tap, self.wake_r], [], [], self.pass_on())[0]
            if self.wake_r in ready and b"x" in os.read(self.wake_r, 4096):
                return
            while self.to_inject:
                self.to_domain(self.to_inject.pop(0))
            for fd, read in ((self.packet, self.from_domain), (self.tap, self.from_outside)):
                for _ in range(64 if fd in ready else 0):
                    if not read():
                        break

    def from_domain(self):
        try:
            frame, address = self.packet.recvfrom(MAX_FRAME)
        except BlockingIOError:
            return False
        if address[2] != PACKET_OUTGOING:
            self.note(frame)
            self.take(self.to_outside, frame)
        return True

    def from_outside(self):
        try:
            self.take(self.to_domain, os.read(self.tap, MAX_FRAME))
        except BlockingIOError:
            return False
        return True


# ---- frames of one's own ----

def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(ether, source, protocol, payload, ident=1, offset=0, more=False):
    """A frame to the domain; ether: its Ethernet header. offset: of a fragment, in bytes."""
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, offset // 8 | more << 13, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(OWN))
    return ether + head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def echo_request(data, ident=7):
    head = struct.pack(">BBHHH", 8, 0, 0, ident, 1)
    return head[:2] + struct.pack(">H", checksum(head + data)) + head[4:] + data


def syn(source, port_from, port_to, seq):
    head = struct.pack(">HHIIBBHHH", port_from, port_to, seq, 0, 0x50, 2, 65535, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(OWN) + struct.pack(">BBH", 0, 6, len(head))
    return head[:16] + struct.pack(">H", checksum(pseudo + head)) + head[18:]
