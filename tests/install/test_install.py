#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What `meson install` puts where: a program is compiled with the installed pkg-config file and run, and every public command,
option and function of the API has a man page that says so and that renders without a complaint."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("VHOST_SC_BUILD", os.path.join(TOP, "build"))


def run(argv, check=True, **kw):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False, **kw)
    if check and done.returncode != 0:
        raise AssertionError("%s: status %d\n%s" % (" ".join(argv), done.returncode, done.stdout))
    return done


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


class Installed(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="sc-install.")
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        os.chmod(cls.dir, 0o755)
        run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.dir])
        cls.prefix = os.path.dirname(os.path.dirname(cls.find("scrun")))
        cls.man = os.path.join(cls.prefix, "share/man")
        cls.bin = os.path.join(cls.prefix, "bin")

    @classmethod
    def find(cls, name):
        for d, _, files in os.walk(cls.dir):
            if name in files:
                return os.path.join(d, name)
        raise AssertionError("%s was not installed" % name)

    def page(self, name):
        """The source of a man page, with what it refers to by .so read in."""
        for section in "1378":
            path = os.path.join(self.man, "man" + section, "%s.%s" % (name, section))
            if os.path.exists(path):
                text = read(path)
                so = re.match(r"\.so (\S+)", text)
                return read(os.path.join(self.man, so[1])) if so else text
        raise AssertionError("%s has no man page" % name)

    def functions(self):
        header = read(os.path.join(self.prefix, "include/hostsc.h"))
        header = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
        return sorted(set(re.findall(r"\b(hsc_\w+)\(", header)))

    def test_pages_of_functions(self):
        """Each function of hostsc.h is in the NAME and the SYNOPSIS of its page, and exported by the library."""
        exported = run(["nm", "-D", "--defined-only", self.find("libhostsc.so.0.1.0")]).stdout
        names = self.functions()
        api = set(re.findall(r"HSC_API [^;]*?\b(hsc_\w+)\(", read(os.path.join(self.prefix, "include/hostsc.h"))))
        self.assertGreater(len(api), 25)
        for name in names:
            text = self.page(name)
            self.assertIn(name, text.split(".SH NAME")[1].split(".SH")[0], name)
            self.assertRegex(text.split(".SH SYNOPSIS")[1].split(".SH")[0], r"\b%s\b" % name)
            if name in api:
                self.assertIn(" T %s\n" % name, exported)

    def test_pages_of_commands(self):
        """Each command has a page that knows all options that its --help knows."""
        commands = sorted(os.listdir(self.bin))
        self.assertEqual(commands, ["scbench", "scctl", "scrun", "vhost-scd"])
        for name in commands:
            here = {"scrun": ["hostlib/scrun"], "vhost-scd": ["vhost-sc/vhost-scd"]}.get(name)
            program = os.path.join(BUILD, *here) if here else os.path.join(TOP, {"scctl": "libvirt-xml"}.get(name, "bench"), name)
            text = run([program, "--help"]).stdout
            for sub in re.findall(r"^    ([a-z]+) ", text, re.M) if not here else ():
                text += run([program, sub, "--help"]).stdout
            page = self.page(name).replace("\\-", "-").replace("\\fB", "").replace("\\fP", "").replace("\\fR", "")
            for option in sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--help"}):
                self.assertTrue(re.search(re.escape(option) + r"(?![a-z-])", page), "man page of %s: %s is missing" % (name, option))

    def test_pages_render(self):
        for d, _, files in os.walk(self.man):
            for f in files:
                done = run(["groff", "-man", "-ww", "-z", "-Tutf8", "-s", os.path.join(d, f)], cwd=self.man)
                self.assertEqual(done.stdout, "", f)

    def test_program_with_pkg_config(self):
        """The example of the documents, compiled as its comment says, reads a file of a loopback domain."""
        library = os.path.dirname(self.find("libhostsc.so.0.1.0"))
        env = dict(os.environ, PKG_CONFIG_PATH=os.path.join(library, "pkgconfig"), PKG_CONFIG_SYSROOT_DIR=self.dir)
        flags = run(["pkg-config", "--cflags", "--libs", "hostsc"], env=env).stdout.split()
        program = os.path.join(self.dir, "hsc-sum")
        run(["cc", "-Wall", "-Wextra", "-Werror", os.path.join(TOP, "docs/examples/hsc-sum.c"), *flags, "-o", program])
        root = os.path.join(self.dir, "root")
        os.mkdir(root)
        with open(os.path.join(root, "file"), "wb") as f:
            f.write(bytes(range(256)) * 4096)
        env = dict(os.environ, LD_LIBRARY_PATH=library, VHOST_SC_RUNDIR=os.path.join(self.dir, "run"), VHOST_SC_BUILD=BUILD)
        os.mkdir(env["VHOST_SC_RUNDIR"])
        scctl = [sys.executable, os.path.join(TOP, "libvirt-xml/scctl")]
        run(scctl + ["start", "inst", "--loopback", "--root", root], env=env)
        try:
            self.assertEqual(run([program, "inst", "file"], env=env).stdout, "1048576 bytes, sum %d\n" % (sum(range(256)) * 4096))
            # scrun, too, as it is installed.
            self.assertEqual(run([self.find("scrun"), "--storage", "inst:/x", "--", "stat", "-c", "%s", "/x/file"],
                                 env=dict(env, VHOST_SC_LIB=self.find("libhostsc.so.0.1.0"))).stdout, "1048576\n")
        finally:
            run(scctl + ["stop", "inst"], env=env)

    def test_scctl_finds_its_parts(self):
        """scctl runs from where it is installed, with the scripts that make guest images beside it."""
        home = os.path.dirname(self.find("scctl_cli.py"))
        self.assertIn("define", run([sys.executable, os.path.join(home, "scctl"), "--help"]).stdout)
        self.assertIn("TCG" if "TCG" in run([os.path.join(home, "kvm/accel.py")]).stdout else "KVM", run([os.path.join(home, "kvm/accel.py")]).stdout)
        for path in ("domain.xml.in", "scctl_net.py", "qemu-hook.sh.in", "kvm/build-image.sh", "kvm/mkinitramfs.py", "kvm/roles/storage.modules", "kvm/roles/network.modules",
                     "guest-agent/driver/virtio_sc.c", "guest-agent/init/sc-init.c", "sc-agent", "sc-agent-static"):
            self.assertTrue(os.path.exists(os.path.join(home, path)), path)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    unittest.main()
