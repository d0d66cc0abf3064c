#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A network domain as users make one: scctl, the broker, the agent on a tap; what `scctl net` shows; addresses by DHCP."""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from netproc import DOMAIN, KERNEL, TAP, domain, own_namespace

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SCCTL = os.path.join(TOP, "libvirt-xml", "scctl")
UDHCPD = """start 10.77.0.50
end 10.77.0.50
interface %s
opt router 10.77.0.1
opt subnet 255.255.255.0
opt lease 600
lease_file %s
pidfile %s
"""


def scctl(*args, check=True):
    p = subprocess.run([sys.executable, SCCTL] + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       text=True, check=False, timeout=60)
    if check and p.returncode:
        raise AssertionError("scctl %s: %d\n%s" % (" ".join(args), p.returncode, p.stdout))
    return p


def answers(addr):
    """True if the domain refuses a connection: its stack is there."""
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((addr, 9)) == 111


def until(what, f, seconds=20):
    end = time.monotonic() + seconds
    while not f():
        if time.monotonic() > end:
            raise AssertionError("not within %d s: %s" % (seconds, what))
        time.sleep(0.1)


class Scctl(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sc-net.")
        self.addCleanup(shutil.rmtree, self.dir)
        os.environ.update(VHOST_SC_RUNDIR=os.path.join(self.dir, "run"), VHOST_SC_STATEDIR=os.path.join(self.dir, "state"))
        self.addCleanup(scctl, "stop", "net0", check=False)

    def test_life(self):
        scctl("start", "net0", "--loopback", "--role", "network", "--tap", TAP, "--addr", DOMAIN + "/24", "--gw", KERNEL, "--addr6",
              "fd77::2/64", "--dns", "192.0.2.53", "--mtu", "1400")
        subprocess.run(["ip", "addr", "add", KERNEL + "/24", "dev", TAP], check=True)
        subprocess.run(["ip", "link", "set", TAP, "up"], check=True)
        until("an answer", lambda: answers(DOMAIN))
        self.assertIn("network domain, ready, loopback: no isolation", scctl("status", "net0").stdout)

        def told():
            report = json.loads(scctl("net", "net0", "--json").stdout)
            return report["tcp"]["in"] and report
        until("counters", told)
        report = told()
        nic = report["interface"]
        self.assertEqual((nic["addr"], nic["prefix"], nic["gw"], nic["mtu"], nic["link"], nic["dns"]),
                         (DOMAIN, 24, KERNEL, 1400, True, ["192.0.2.53"]))
        self.assertGreater(report["frames"]["in"], 0)
        self.assertEqual(report["sockets"], [])
        self.assertRegex(scctl("net", "net0").stdout, r"net0: \S+, mtu 1400, link up, 10\.77\.0\.2/24 by 10\.77\.0\.1")
        p = scctl("start", "net1", "--loopback", "--role", "network", "--tap", TAP, "--addr", "10.78.0.2/24", check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn("another domain uses it", p.stdout)
        scctl("stop", "net0")
        self.assertEqual(scctl("net", "net0", check=False).returncode, 1)

    def test_refusals(self):
        for words, args in (("needs --tap|needs one NIC", ()), ("needs an address", ("--tap", TAP)),
                            ("is for storage domains", ("--tap", TAP, "--addr", DOMAIN + "/24", "--root", "/tmp"))):
            p = scctl("start", "net0", "--loopback", "--role", "network", *args, check=False)
            self.assertEqual(p.returncode, 2, p.stdout)
            self.assertRegex(p.stdout, words)
        p = scctl("start", "net0", "--loopback", "--root", "/tmp", "--tap", TAP, check=False)
        self.assertRegex(p.stdout, "--tap is for network domains")


@unittest.skipUnless(shutil.which("busybox"), "busybox has the DHCP server")
class Dhcp(unittest.TestCase):
    def test_address(self):
        with tempfile.TemporaryDirectory(prefix="sc-net.") as d, domain(addr=["--dhcp"]):
            conf = os.path.join(d, "udhcpd.conf")
            with open(conf, "w", encoding="ascii") as f:
                f.write(UDHCPD % (TAP, os.path.join(d, "leases"), os.path.join(d, "pid")))
            with open(os.path.join(d, "leases"), "w", encoding="ascii"):
                pass
            server = subprocess.Popen(["busybox", "udhcpd", "-f", conf], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
            try:
                until("the address that the server gives", lambda: answers("10.77.0.50"), 30)
            finally:
                server.terminate()
                server.wait()


if __name__ == "__main__":
    own_namespace()
    unittest.main()
