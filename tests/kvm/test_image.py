#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the guest image: it is the same bytes each time, holds what it should and nothing else, and boots.

Packages are downloaded if they are not in the cache yet (SC_CACHE, or .cache/kvm).
"""

import gzip
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "kvm"))
import mkinitramfs  # noqa: E402
import start  # noqa: E402

BUILD_IMAGE = os.path.join(TOP, "kvm/build-image.sh")
QEMU = os.environ.get("VHOST_SC_QEMU") or os.path.join(TOP, ".cache/qemu/current/bin/qemu-system-x86_64")

# An agent that does as it is told by sc.agent.* words: --die=N ends with status N, or by signal -N.
AGENT = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static volatile sig_atomic_t stop;
static void on_term(int sig) { (void)sig; stop = 1; }
int main(int argc, char **argv)
{
	signal(SIGTERM, on_term);
	printf("arguments:");
	for (int i = 1; i < argc; i++)
		printf(" %s", argv[i]);
	printf("\nsc-agent: ready\nno newline at the end");
	fflush(stdout);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--deaf"))
			signal(SIGTERM, SIG_IGN);
		if (strncmp(argv[i], "--die=", 6))
			continue;
		if (atoi(argv[i] + 6) < 0)
			kill(getpid(), -atoi(argv[i] + 6));
		return atoi(argv[i] + 6);
	}
	while (!stop)
		pause();
	printf("\ntold to stop\n");
	return 0;
}
"""


def cpio_names(data):
    """Names, modes and owners in a newc archive."""
    entries, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701", "cpio magic"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        if name == "TRAILER!!!":
            return entries
        entries.append((name, fields))
        at += (110 + fields[11] + 3) // 4 * 4 + (fields[6] + 3) // 4 * 4


class Parts(unittest.TestCase):
    """mkinitramfs' insides."""

    def test_archive(self):
        archive = mkinitramfs.Archive()
        archive.file("b/c/d", b"12345", 0o755)
        archive.file("a", b"")
        archive.char_device("dev/console", 0o600, 5, 1)
        data = archive.pack()
        names = [name for name, _ in cpio_names(data)]
        self.assertEqual(names, ["a", "b", "b/c", "b/c/d", "dev", "dev/console"])
        for _, fields in cpio_names(data):
            self.assertEqual((fields[2], fields[3], fields[5]), (0, 0, 0), "owner root, dated 0")
        if shutil.which("cpio"):
            listing = subprocess.run(["cpio", "-itv", "--quiet"], input=data, capture_output=True, check=True).stdout.decode()
            self.assertIn("-rwxr-xr-x", listing)
            self.assertIn("dev/console", listing)

    def test_role_list(self):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("# comment\nalways a\nfs=xfs b c=1 d=2\n")
            f.flush()
            self.assertEqual(mkinitramfs.parse_role(f.name), [("always", "a", ""), ("fs=xfs", "b", "c=1 d=2")])
            f.write("sometimes b\n")
            f.flush()
            with self.assertRaisesRegex(mkinitramfs.Failure, ":4: expected"):
                mkinitramfs.parse_role(f.name)

    def test_vmlinux(self):
        elf = b"\x7fELF" + os.urandom(5000)
        for packed in (lzma.compress(elf), gzip.compress(elf)):
            payload = packed + struct.pack("<I", len(elf))
            image = bytearray(1024 + 64) + payload
            image[0x1F1] = 1
            image[0x202:0x206] = b"HdrS"
            struct.pack_into("<H", image, 0x206, 0x20F)
            struct.pack_into("<II", image, 0x248, 64, len(payload))
            self.assertEqual(mkinitramfs.extract_vmlinux(bytes(image)), elf)
        with self.assertRaises(mkinitramfs.Failure):
            mkinitramfs.extract_vmlinux(bytes(4096))


class OwnKernel(unittest.TestCase):
    """What is said of a kernel of the user's own."""

    GOOD = "CONFIG_MODULES=y\nCONFIG_ZONE_DEVICE=y\nCONFIG_VIRTIO_PCI=m\nCONFIG_EXT4_FS=y\nCONFIG_VIRTIO_BLK=m\n"

    def test_configuration(self):
        mkinitramfs.check_config("", "d.ko", "1")
        mkinitramfs.check_config(self.GOOD, "d.ko", "1")
        mkinitramfs.check_config(self.GOOD.replace("CONFIG_MODULES=y", ""), "", "1")
        for config, words in ((self.GOOD.replace("CONFIG_MODULES=y", "# CONFIG_MODULES is not set"), "the driver is a module"),
                              (self.GOOD.replace("CONFIG_ZONE_DEVICE=y", ""), "without CONFIG_ZONE_DEVICE"),
                              (self.GOOD + "CONFIG_MODULE_SIG_FORCE=y\n", "signed modules only")):
            with self.assertRaisesRegex(mkinitramfs.Failure, words):
                mkinitramfs.check_config(config, "d.ko", "1")

    def test_built_in(self):
        modules = mkinitramfs.Modules("", "", self.GOOD)
        self.assertTrue(modules.has("ext4"))
        self.assertFalse(modules.has("virtio_blk"))
        with self.assertRaisesRegex(mkinitramfs.Failure, "neither built in nor among its modules: give --headers"):
            mkinitramfs.find_driver(modules, b"\0virtio_scsi\0", "1")
        mkinitramfs.find_driver(modules, b"x\0virtio_sc\0y", "1")
        self.assertEqual(modules.with_dependencies("virtio_sc"), [])
        entries = [("always", "ext4", ""), ("always", "virtio_sc", ""), ("always", "fast?", ""), ("class=0x01", "ahci", "")]
        self.assertEqual(mkinitramfs.needed(modules, entries), entries[:2])
        self.assertEqual(mkinitramfs.add_modules(mkinitramfs.Archive(), modules, entries), [])
        with self.assertRaisesRegex(mkinitramfs.Failure, "module virtio_blk: the kernel has none of this name"):
            mkinitramfs.add_modules(mkinitramfs.Archive(), modules, [("always", "virtio_blk", "")])

    def test_embedded_configuration(self):
        self.assertEqual(mkinitramfs.embedded_config(b"..IKCFG_ST" + gzip.compress(b"CONFIG_X=y\n") + b"IKCFG_ED.."), "CONFIG_X=y\n")
        self.assertEqual(mkinitramfs.embedded_config(b"nothing"), "")
        self.assertEqual(mkinitramfs.embedded_config(b"IKCFG_STnot gzipIKCFG_ED"), "")

    @staticmethod
    def elf(note):
        """An ELF file with one note segment."""
        data = struct.pack("<III", 4, 4, note) + b"Xen\0" + b"\0" * 4
        head = bytearray(64)
        head[:4] = b"\x7fELF"
        struct.pack_into("<Q", head, 0x20, 64)
        struct.pack_into("<HH", head, 0x36, 56, 1)
        return bytes(head) + struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(data), len(data), 4) + data

    def test_pvh(self):
        self.assertTrue(mkinitramfs.has_pvh(self.elf(18)))
        self.assertFalse(mkinitramfs.has_pvh(self.elf(17)))

    def test_elf_kernel(self):
        image = self.elf(18) + b"Linux version 9.8.7-own (someone@somewhere)"
        self.assertEqual(mkinitramfs.kernel_release(image), "9.8.7-own")
        self.assertEqual(mkinitramfs.extract_vmlinux(image), image)


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory(prefix="sc-image-")
        cls.agent = os.path.join(cls.dir.name, "agent")
        subprocess.run(["gcc", "-O2", "-static", "-xc", "-", "-o", cls.agent], input=AGENT.encode(), check=True)
        cls.one = cls.build("one")
        cls.disk = os.path.join(cls.dir.name, "disk")
        subprocess.run(["truncate", "-s", "64M", cls.disk], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", cls.disk], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.dir.cleanup()

    @classmethod
    def build(cls, name, *options, agent=None):
        out = os.path.join(cls.dir.name, name)
        subprocess.run([BUILD_IMAGE, "--agent", agent or cls.agent, "--out", out, *options], check=True, stdout=subprocess.DEVNULL)
        return out

    def manifest(self, image):
        with open(os.path.join(image, "manifest.json"), encoding="utf-8") as f:
            return json.load(f)

    def read(self, image, name):
        with open(os.path.join(image, name), "rb") as f:
            return f.read()

    def test_same_bytes_from_scratch(self):
        """With a cache that has the downloads only, so that driver and sc-init are compiled again, elsewhere."""
        cache = os.environ.get("SC_CACHE") or os.path.join(TOP, ".cache/kvm")
        fresh = os.path.join(self.dir.name, "some/other/cache")
        os.makedirs(fresh)
        os.symlink(os.path.join(cache, "debs"), os.path.join(fresh, "debs"))
        two = self.build("two", "--cache", fresh)
        for name in ("vmlinuz", "vmlinux", "initramfs.img", "manifest.json"):
            self.assertEqual(self.read(self.one, name), self.read(two, name), name)

    def test_manifest(self):
        manifest = self.manifest(self.one)
        for name, entry in manifest["files"].items():
            data = self.read(self.one, name)
            self.assertEqual((len(data), mkinitramfs.sha256(data)), (entry["bytes"], entry["sha256"]))
        self.assertRegex(manifest["kernel"]["package"], "^linux-image-")
        self.assertEqual(len(manifest["kernel"]["package_sha256"]), 64)
        modules = {m["name"]: m for m in manifest["modules"]}
        self.assertLessEqual({"virtio_sc", "virtio_blk", "ext4", "jbd2", "button", "evdev"}, set(modules))
        self.assertEqual(modules["virtio_sc"]["origin"], "vhost-sc")

    def test_content(self):
        names = [name for name, _ in cpio_names(self.read(self.one, "initramfs.img"))]
        self.assertEqual([n for n in names if n.startswith(("bin", "sbin")) or n == "init"], ["init", "sbin", "sbin/sc-agent"])

    def test_debug_shell(self):
        if not shutil.which("busybox"):
            self.fail("busybox-static is needed")
        image = self.build("shell", "--debug-shell")
        self.assertTrue(self.manifest(image)["debug_shell"])
        self.assertIn("bin/busybox", [name for name, _ in cpio_names(self.read(image, "initramfs.img"))])

    def test_dynamic_agent(self):
        agent = os.path.join(self.dir.name, "dynamic")
        subprocess.run(["gcc", "-xc", "-", "-o", agent], input=AGENT.encode(), check=True)
        image = self.build("dynamic-image", agent=agent)
        names = [name for name, _ in cpio_names(self.read(image, "initramfs.img"))]
        self.assertIn("lib64/ld-linux-x86-64.so.2", names)
        self.assertIn("sc-agent: ready", self.run_vm(image, "dynamic", "sc.agent.die=0"))

    def test_errors(self):
        for options, text in (
            ((), "--agent is missing"),
            (("--agent", "/none", "--out", "/tmp"), "/none: no such program"),
            (("--agent", self.agent, "--out", "/tmp", "--role", "cook"), "cook: no such role"),
            (("--agent", self.agent, "--out", "/tmp", "--modules", "/m"), "name it with --kernel"),
            (("--agent", self.agent, "--out", "/tmp", "--kernel", "/k"), "/k: no such kernel image"),
            (("--agent", self.agent, "--out", "/tmp", "--kernel", os.path.join(self.one, "vmlinuz")), "give --headers"),
            (("--agent", self.agent, "--out", "/tmp", "--package", "linux-image-none"), "apt-get update"),
            (("--what",), "--what: unknown option"),
        ):
            done = subprocess.run([BUILD_IMAGE, *options], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 1, options)
            self.assertIn(text, done.stderr)

    # ---- boot ----

    def run_vm(self, image, name, append="", do=None, seconds=60, **fields):
        """Boots without the virtio-sc device; returns the console's text once the VM is off, or do() is."""
        path = lambda suffix: os.path.join(self.dir.name, name + suffix)
        fields.setdefault("disk", self.disk)
        vm = start.Vm(name=name, qemu=QEMU, image=image, memory_mib=256, append=append, console_log=path(".log"),
                      qemu_log=path(".qemu"), pid_file=path(".pid"), qmp_socket=path(".qmp"), extra_args=["-no-reboot"],
                      **fields)
        pid, _ = start.start(vm)
        try:
            if do:
                do(vm, lambda text: self.wait_for(path(".log"), text))
            self.assertTrue(start._wait_gone(vm, pid, seconds), "the VM did not end: " + self.text(path(".log")))
        finally:
            start.stop(vm, 0)
        return self.text(path(".log"))

    def text(self, path):
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read().replace("\r", "")

    def wait_for(self, path, text):
        for _ in range(600):
            if os.path.exists(path) and text in self.text(path):
                return
            start.time.sleep(0.1)
        self.fail(f"no {text!r} on the console: {self.text(path)}")

    def test_power_button(self):
        def press(vm, wait):
            wait("sc-agent: ready")
            self.assertEqual(start.stop(vm, 30), "stopped")

        text = self.run_vm(self.one, "button", "sc.agent.colour=red", press, pollers=3, fsopts="noatime,data=ordered")
        self.assertIn("--colour=red", text)
        self.assertIn("--root /export", text)
        self.assertIn("--pollers=3", text)
        self.assertIn("power button", text)
        self.assertIn("sc-agent: told to stop", text)
        self.assertIn("/export unmounted", text)
        self.assertEqual(subprocess.run(["e2fsck", "-fn", self.disk], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        check=False).returncode, 0)

    def test_agent_that_does_not_stop(self):
        def press(vm, wait):
            wait("sc-agent: ready")
            self.assertEqual(start.stop(vm, 40), "stopped")

        text = self.run_vm(self.one, "deaf", "sc.agent.deaf", press)
        self.assertIn("did not stop within 20 s", text)
        self.assertIn("/export unmounted", text)

    def test_agent_ends(self):
        for die, on_exit, reason, end in ((0, "reboot", "status 0", "power off"), (3, "reboot", "status 3", "reboot"),
                                          (-11, "poweroff", "signal 11", "power off")):
            with self.subTest(die):
                text = self.run_vm(self.one, f"die{die}", f"sc.agent.die={die}", on_agent_exit=on_exit)
                self.assertIn("sc-agent: no newline at the end", text)
                self.assertRegex(text, reason)
                self.assertRegex(text, f"sc-init: {end}")

    def test_bad_disks(self):
        blank = os.path.join(self.dir.name, "blank")
        with open(blank, "wb") as f:
            f.truncate(1 << 20)
        for name, fields, append, line in (
            ("blank", {"disk": blank}, "", "no such file system on the disk"),
            ("none", {"disk": ""}, "", "role storage needs sc.disk"),
            ("absent", {}, "sc.disk=/dev/vdx sc.wait=1", "disk /dev/vdx did not appear within 1 s"),
            ("type", {"fstype": "btrfs"}, "", "no module for this file system"),
        ):
            with self.subTest(name):
                self.assertIn(line, self.run_vm(self.one, name, append, on_agent_exit="poweroff", **fields))

    def test_disk_by_serial_and_uuid(self):
        with open(self.disk, "rb") as f:
            f.seek(1024 + 0x68)
            u = f.read(16).hex()
        uuid = f"{u[:8]}-{u[8:12]}-{u[12:16]}-{u[16:20]}-{u[20:]}"
        for name, disk in (("serial", "serial:sc-disk"), ("uuid", "uuid:" + uuid)):
            with self.subTest(name):
                self.assertIn("/dev/vda (ext4) mounted", self.run_vm(self.one, name, f"sc.disk={disk} sc.agent.die=0"))

    def test_no_device(self):
        text = self.run_vm(self.one, "nodevice", "sc.device=/dev/sc sc.wait=1", on_agent_exit="poweroff")
        self.assertIn("/dev/sc did not appear within 1 s", text)
        self.assertIn("vhost-scd", text)


if __name__ == "__main__":
    unittest.main()
