#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A network domain that libvirt runs: its NIC, driven by DPDK in the guest, against the host's kernel at the tap's other end."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vmtest import SCRUN, SLOW, run, scctl, status, until, virsh  # noqa: E402

NAME, TAP, HOST, GUEST = "sctestn", "sc-testn", "10.79.77.1", "10.79.77.2"
DATA = os.urandom(1 << 20) * 2


class Network(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.remove()
        scctl("define", NAME, "--role", "network", "--tap", TAP, "--addr", GUEST + "/24", "--gw", HOST, "--vcpus", "1", "--channels",
              "7", "--window-size", "256M")
        cls.addClassCleanup(cls.remove)
        virsh("start", NAME)
        scctl("wait", NAME, "--timeout", str(240 * SLOW), timeout=300)
        run(["ip", "addr", "add", HOST + "/24", "dev", TAP])
        run(["ip", "link", "set", TAP, "up"])
        until("an answer from the domain", cls.answers, 30)

    @staticmethod
    def remove():
        virsh("destroy", NAME, check=False)
        scctl("undefine", NAME, check=False)

    @staticmethod
    def answers():
        with socket.socket() as s:
            s.settimeout(2)
            return s.connect_ex((GUEST, 9)) == 111  # ECONNREFUSED: a RST came

    def scrun(self, *argv, **kw):
        return run([SCRUN, "--network", NAME, "--"] + list(argv), timeout=120, **kw)

    def test_who_drives_the_nic(self):
        log = scctl("logs", NAME, "--only", "console", "-n", "200").stdout
        self.assertRegex(log, r"NIC 0000:\S+, 52:54:00:\S+, driven by DPDK")
        s = status(NAME)
        self.assertEqual((s["state"], s["role"], s["loopback"]), ("ready", "network", False))

    def test_ipv6_neighbours(self):
        """The domain has a link-local address, which is made of its MAC, and answers there."""
        with open("/sys/class/net/%s/ifindex" % TAP, encoding="ascii") as f:
            index = int(f.read())
        mac = scctl("logs", NAME, "--only", "console", "-n", "200").stdout.split(", 52:54:00:")[1].split(",")[0].split(":")
        addr = "fe80::5054:ff:fe%s:%s%s" % tuple(mac)

        def answers():
            with socket.socket(socket.AF_INET6) as s:
                s.settimeout(2)
                return s.connect_ex((addr, 9, 0, index)) == 111
        until("an answer from " + addr, answers, 30)

    def test_out(self):
        """A program of the host reads from the kernel through the domain."""
        got = []

        def serve(srv):
            c, peer = srv.accept()
            got.append(peer[0])
            c.sendall(DATA)
            c.close()
        with socket.create_server((HOST, 0)) as srv:
            t = threading.Thread(target=serve, args=(srv,), daemon=True)
            t.start()
            p = self.scrun(sys.executable, "-c", "import socket, hashlib\ns = socket.create_connection(('%s', %d))\nh = hashlib.sha256()\n"
                           "while True:\n    d = s.recv(65536)\n    if not d: break\n    h.update(d)\nprint(h.hexdigest())"
                           % (HOST, srv.getsockname()[1]))
            t.join(10)
        self.assertEqual(p.stdout.strip(), hashlib.sha256(DATA).hexdigest())
        self.assertEqual(got, [GUEST])

    def test_in(self):
        """The kernel connects to a server that runs on the host and listens in the domain."""
        p = subprocess.Popen([SCRUN, "--network", NAME, "--", sys.executable, "-c",
                              "import socket\ns = socket.create_server(('%s', 8081))\nprint('ready', flush=True)\nc, a = s.accept()\n"
                              "d = b''\nwhile len(d) < %d: d += c.recv(65536)\nc.sendall(d)\nc.close()\n" % (GUEST, len(DATA))],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            self.assertEqual(p.stdout.readline(), "ready\n")
            with socket.create_connection((GUEST, 8081), timeout=60) as c:
                c.sendall(DATA)
                back = b""
                while len(back) < len(DATA):
                    d = c.recv(1 << 16)
                    if not d:
                        break
                    back += d
            self.assertTrue(back == DATA)
            self.assertEqual(p.wait(60), 0)
        finally:
            p.kill()
            p.stdout.close()
            p.wait()

    def test_z_shutdown(self):
        virsh("shutdown", NAME)
        until("virsh domstate: shut off", lambda: "shut off" in virsh("domstate", NAME).stdout, 120)


if __name__ == "__main__":
    if "--seed" in sys.argv:
        at = sys.argv.index("--seed")
        del sys.argv[at:at + 2]
    unittest.main()
