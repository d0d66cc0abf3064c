#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A guest kernel of the user's own: scctl define --kernel IMAGE [--modules DIR | --headers DIR].

The user's kernel is another stock kernel of the distribution, the one for clouds, downloaded and unpacked privately: ext4 and
NVMe are built in there, AHCI is missing. It serves by libvirt and without; what cannot work is refused with the reason.
"""

import glob
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vmtest import BUILD, SCRUN, SLOW, TOP, Domain, run, scctl, status, virsh  # noqa: E402

BUILD_IMAGE = os.path.join(TOP, "kvm/build-image.sh")


def contains(path, text):
    with open(path, "rb") as f:
        return text.encode() in f.read()


def cloud_kernel(work):
    """(kernel, modules, headers) of the kernel for clouds, unpacked below kvm's cache."""
    depends = run(["apt-cache", "depends", "linux-image-cloud-amd64"]).stdout
    package = re.search(r"Depends: (linux-image-\S+)", depends)[1]
    run([BUILD_IMAGE, "--package", package, "--agent", os.path.join(BUILD, "guest-agent/sc-agent-static"), "--out", os.path.join(work, "image")],
        timeout=600)
    release = package[len("linux-image-"):]
    cache = os.environ.get("SC_CACHE") or os.path.join(TOP, ".cache/kvm")
    kernel = sorted(glob.glob(os.path.join(cache, "trees/*/boot/vmlinuz-" + release)), key=os.path.getmtime)[-1]
    tree = os.path.dirname(os.path.dirname(kernel))
    return kernel, os.path.join(tree, "lib/modules", release), os.path.join(tree, "usr/src/linux-headers-" + release), release


class OwnKernel(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp(prefix="sc-kernel.")
        cls.addClassCleanup(shutil.rmtree, cls.work, ignore_errors=True)
        cls.kernel, cls.modules, cls.headers, cls.release = cloud_kernel(cls.work)

    def serves(self, d):
        """The domain runs this kernel and serves."""
        self.assertIn(self.release, str(status(d.name)))
        self.assertEqual(d.sh("echo own > %s; cat %s" % ((d.path("f"),) * 2)).stdout, "own\n")

    def test_it_serves(self):
        """Driver built for it; by libvirt, then without."""
        d = Domain("sckernel", "--size", "256M", "--kernel", self.kernel, "--modules", self.modules, "--headers", self.headers)
        self.addCleanup(d.close)
        d.start()
        self.serves(d)
        d.shutdown()
        scctl("stop", d.name)
        scctl("start", d.name, "--direct", timeout=300)
        self.addCleanup(scctl, "stop", d.name, check=False)
        self.serves(d)
        scctl("stop", d.name)

    def network(self, direct):
        """A network domain with this kernel: its NIC answers, and a program reads through it what the host's kernel sends."""
        name, tap, host, guest = "sckerneln", "sc-testk", "10.79.78.1", "10.79.78.2"
        scctl("define", name, "--role", "network", "--tap", tap, "--addr", guest + "/24", "--gw", host, "--vcpus", "1", "--channels", "7",
              "--window-size", "256M", "--kernel", self.kernel, "--modules", self.modules, "--headers", self.headers, timeout=400)
        try:
            scctl("start", name, *(["--direct"] if direct else []), timeout=300)
            scctl("wait", name, "--timeout", str(240 * SLOW), timeout=300)
            run(["ip", "addr", "add", host + "/24", "dev", tap])
            run(["ip", "link", "set", tap, "up"])
            self.assertIn(self.release, str(status(name)))
            with socket.create_server((host, 0)) as srv:
                def serve():
                    with srv.accept()[0] as c:
                        c.sendall(b"own kernel\n")
                threading.Thread(target=serve, daemon=True).start()
                program = ("import socket, sys, time\nfor i in range(60):\n    try: s = socket.create_connection(('%s', %d)); break\n"
                           "    except OSError: time.sleep(0.5)\nprint(s.recv(100).decode(), s.getsockname()[0])" % (host, srv.getsockname()[1]))
                got = run([SCRUN, "--network", name, "--", sys.executable, "-c", program], timeout=120).stdout
            self.assertEqual(got, "own kernel\n %s\n" % guest)
        finally:
            virsh("destroy", name, check=False)
            scctl("stop", name, check=False)
            scctl("undefine", name, check=False)

    def test_network_role(self):
        self.network(direct=False)
        self.network(direct=True)

    def test_ready_made_driver_is_taken(self):
        """A driver among the modules needs no headers."""
        modules = os.path.join(self.work, "modules")
        shutil.copytree(self.modules, modules, symlinks=True)
        drivers = glob.glob(os.path.join(os.environ.get("SC_CACHE") or os.path.join(TOP, ".cache/kvm"), "driver/*/virtio_sc.ko"))
        mine = [path for path in drivers if contains(path, "vermagic=%s " % self.release)]
        os.makedirs(os.path.join(modules, "updates"))
        shutil.copy(max(mine, key=os.path.getmtime), os.path.join(modules, "updates"))
        out = run([BUILD_IMAGE, "--kernel", self.kernel, "--modules", modules, "--out", os.path.join(self.work, "ready"),
                   "--agent", os.path.join(BUILD, "guest-agent/sc-agent-static")]).stdout
        self.assertIn("virtio_sc", re.search(r"modules .*", out)[0])

    def test_refusals(self):
        """One line with the reason, and nothing is defined."""
        stock = sorted(glob.glob(os.path.join(os.path.dirname(os.path.dirname(self.kernel)), "../*/usr/src/linux-headers-*-amd64")))
        other = next(path for path in stock if "cloud" not in path)
        for options, words in (
                (["--kernel", self.kernel], "neither built in nor among its modules: give --headers"),
                (["--kernel", self.kernel, "--modules", self.modules], "give --headers"),
                (["--kernel", self.kernel, "--headers", self.headers], "module virtio_pci: the kernel has none"),
                (["--kernel", self.kernel, "--modules", self.modules, "--headers", other], "is for kernel .*, not for " + self.release),
                (["--kernel", "/etc/passwd"], "neither an x86 bzImage nor an ELF file"),
        ):
            p = scctl("define", "sckernel2", "--no-libvirt", "--disk", os.path.join(self.work, "disk"), "--size", "64M", *options,
                      check=False, timeout=400)
            self.assertNotEqual(p.returncode, 0, options)
            self.assertRegex(p.stdout.splitlines()[-1], "making the guest image: .*" + words)
            self.assertFalse(os.path.exists("/etc/vhost-sc/sckernel2.json"))


if __name__ == "__main__":
    if "--seed" in sys.argv:
        # For all tests of this directory; this one has no use for it.
        at = sys.argv.index("--seed")
        del sys.argv[at : at + 2]
    unittest.main()
