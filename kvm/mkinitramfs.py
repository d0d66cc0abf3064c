#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""mkinitramfs - packs a service domain's guest image.

Makes, from a stock kernel and a handful of files, what a service VM boots:

    OUT/vmlinuz        the distribution's kernel image, byte for byte
    OUT/vmlinux        the ELF kernel that vmlinuz carries compressed, taken out of it unchanged. Under TCG the guest
                       would spend seconds on unpacking itself; QEMU starts this file directly (PVH)
    OUT/initramfs.img  sc-init, agent, modules; an uncompressed cpio archive, since copying is cheaper than
                       decompressing, above all under TCG
    OUT/manifest.json  where all of it came from, with SHA-256 of every part

The archive depends on its input files alone: entries are sorted, owned by root, dated 0, and numbered in order. So two
builds of the same input are the same bytes.

Modules come from a role's list (roles/*.modules). What a module depends on is read from its own .modinfo section, so
that neither depmod nor kmod is needed. A kernel of the user's own may have built in what others load; what is neither is
refused, with the reason, if every VM needs it, and left out if it is for hardware or file systems that a VM may not have.

Used by build-image.sh, which fetches and builds the input.
"""

import argparse
import hashlib
import json
import lzma
import os
import re
import struct
import subprocess
import sys
import zlib

OWN_MODULE = "virtio_sc"

# Kernel options of the modules in roles/*.modules, to see in a kernel's configuration what is built in.
OPTIONS = {
    "9p": "9P_FS", "9pnet_virtio": "NET_9P_VIRTIO", "ahci": "SATA_AHCI", "button": "ACPI_BUTTON",
    "crc32c_generic": "CRYPTO_CRC32C", "crc32c_intel": "CRYPTO_CRC32C_INTEL", "evdev": "INPUT_EVDEV", "ext4": "EXT4_FS",
    "kvm_amd": "KVM_AMD", "vfio_iommu_type1": "VFIO_IOMMU_TYPE1", "vfio_pci": "VFIO_PCI", "nvme": "BLK_DEV_NVME", "overlay": "OVERLAY_FS", "sd_mod": "BLK_DEV_SD", "virtio_blk": "VIRTIO_BLK",
    "virtio_net": "VIRTIO_NET", "virtio_pci": "VIRTIO_PCI", "virtio_scsi": "SCSI_VIRTIO", "xfs": "XFS_FS",
}
XEN_ELFNOTE_PHYS32_ENTRY = 18  # the entry point that QEMU uses for an ELF kernel (PVH)


class Failure(Exception):
    """What went wrong, in words for the user."""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as e:
        raise Failure(f"{path}: {e.strerror}") from e


def write(path, data):
    """Replaces a file as a whole, so that an interrupted build leaves no half."""
    tmp = f"{path}.tmp"
    with open(tmp, "wb") as f:
        f.write(data)
    os.replace(tmp, path)


# ---- cpio ----


class Archive:
    """A cpio archive in the "newc" format that the kernel unpacks."""

    def __init__(self):
        self.entries = {}  # path without leading slash -> (mode, data, (major, minor))

    def directory(self, path):
        while path:
            self.entries.setdefault(path, (0o040755, b"", (0, 0)))
            path = os.path.dirname(path)

    def file(self, path, data, mode=0o644):
        self.directory(os.path.dirname(path))
        self.entries[path] = (0o100000 | mode, data, (0, 0))

    def char_device(self, path, mode, major, minor):
        self.directory(os.path.dirname(path))
        self.entries[path] = (0o020000 | mode, b"", (major, minor))

    @staticmethod
    def _entry(name, ino, mode, data, rdev):
        nlink = 2 if mode & 0o040000 else 1
        fields = (ino, mode, 0, 0, nlink, 0, len(data), 0, 0, rdev[0], rdev[1], len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        pad = lambda b: b + b"\0" * (-len(b) % 4)
        return pad(head) + pad(data)

    def pack(self):
        """The archive as bytes. Parents sort before what is in them."""
        out = [
            self._entry(name, ino, *self.entries[name])
            for ino, name in enumerate(sorted(self.entries), 1)
        ]
        out.append(self._entry("TRAILER!!!", 0, 0, b"", (0, 0)))
        data = b"".join(out)
        return data + b"\0" * (-len(data) % 512)


# ---- modules ----


def elf_section(data, name):
    """The contents of a section of a 64-bit little-endian ELF file, or b""."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise Failure("not a 64-bit little-endian ELF file")
    shoff, = struct.unpack_from("<Q", data, 0x28)
    shentsize, shnum, shstrndx = struct.unpack_from("<HHH", data, 0x3A)

    def section(i):
        base = shoff + i * shentsize
        name_off, = struct.unpack_from("<I", data, base)
        offset, size = struct.unpack_from("<QQ", data, base + 0x18)
        return name_off, offset, size

    _, str_off, _ = section(shstrndx)
    for i in range(shnum):
        name_off, offset, size = section(i)
        end = data.index(b"\0", str_off + name_off)
        if data[str_off + name_off : end].decode() == name:
            return data[offset : offset + size]
    return b""


def modinfo(data):
    """A module's .modinfo as {key: [values]}."""
    info = {}
    for item in elf_section(data, ".modinfo").split(b"\0"):
        key, sep, value = item.decode("latin-1").partition("=")
        if sep:
            info.setdefault(key, []).append(value)
    return info


def unpack_module(path):
    """A module's bytes, decompressed if need be."""
    data = read(path)
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".gz"):
        return zlib.decompress(data, 31)
    if path.endswith(".zst"):
        return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout
    return data


def canonical(name):
    return name.replace("-", "_")


class Modules:
    """The modules of one kernel: a directory as in /lib/modules/VERSION."""

    def __init__(self, directory, own, config=""):
        """directory: '' if the kernel has no modules. own: path of virtio_sc.ko; '': the directory's, or it is built in.
        config: the kernel's configuration as text, '' if it is not known.
        """
        self.paths = {}
        self.cache = {}
        self.where = directory or "the kernel's configuration"
        self.builtin = {name for name, option in OPTIONS.items() if re.search(rf"^CONFIG_{option}=y$", config, re.M)}
        for root, _, files in os.walk(directory) if directory else ():
            for f in files:
                m = re.fullmatch(r"(.+)\.ko(\.xz|\.gz|\.zst)?", f)
                if m:
                    self.paths[canonical(m[1])] = os.path.join(root, f)
        builtin = os.path.join(directory, "modules.builtin")
        if directory and os.path.exists(builtin):
            for line in read(builtin).decode().split():
                self.builtin.add(canonical(os.path.basename(line)[: -len(".ko")]))
        if directory and not self.paths and not self.builtin:
            raise Failure(f"{directory}: no kernel modules there (expected lib/modules/VERSION)")
        self.own_origin = "vhost-sc" if own else "kernel"
        if own:
            self.paths[OWN_MODULE] = own

    def has(self, name):
        """Whether the kernel has it, as a module or built in."""
        return canonical(name) in self.paths or canonical(name) in self.builtin

    def load(self, name):
        """(bytes, modinfo) of a module."""
        if name not in self.cache:
            if name not in self.paths:
                raise Failure(f"module {name}: the kernel has none of this name, and nothing says that it is built in ({self.where}); "
                              "see roles/*.modules")
            data = unpack_module(self.paths[name])
            self.cache[name] = (data, modinfo(data))
        return self.cache[name]

    def with_dependencies(self, name, seen=()):
        """The names to be loaded for a module, in order, itself last."""
        name = canonical(name)
        if name in self.builtin and name not in self.paths:
            return []
        if name in seen:
            raise Failure(f"modules depend on each other: {' '.join(seen)} {name}")
        _, info = self.load(name)
        order = []
        for dep in info.get("depends", [""])[0].split(","):
            if dep:
                order += [d for d in self.with_dependencies(dep, (*seen, name)) if d not in order]
        return [*order, name]


def parse_role(path):
    """A role's list as [(condition, module, parameters)]."""
    entries = []
    for number, line in enumerate(read(path).decode().splitlines(), 1):
        words = line.split("#", 1)[0].split(None, 2)
        if not words:
            continue
        if len(words) < 2 or not re.match(r"always$|fs=|disk=|class=0x|pci=", words[0]):
            raise Failure(f"{path}:{number}: expected CONDITION MODULE [PARAMETERS]")
        entries.append((words[0], words[1], words[2].strip() if len(words) == 3 else ""))
    return entries


def needed(modules, entries):
    """The entries without those that a VM can do without and this kernel lacks, and without the "?" that says so."""
    kept = []
    for condition, name, params in entries:
        may_lack = name.endswith("?") or condition != "always"
        name = name.rstrip("?")
        if modules.has(name) or not may_lack:
            kept.append((condition, name, params))
    return kept


def add_modules(archive, modules, entries):
    """Adds the modules and the list for sc-init. Returns manifest entries."""
    lines, listed, manifest = [], set(), []
    for condition, wanted, params in needed(modules, entries):
        for name in modules.with_dependencies(wanted):
            if ("always", name) in listed or (condition, name) in listed:
                continue
            listed.add((condition, name))
            path = f"lib/modules/{name}.ko"
            lines.append(f"{condition} /{path} {params if name == canonical(wanted) else ''}".rstrip())
            if path in archive.entries:
                continue
            data, info = modules.load(name)
            archive.file(path, data)
            manifest.append(
                {
                    "name": name,
                    "when": condition,
                    "bytes": len(data),
                    "sha256": sha256(data),
                    "origin": modules.own_origin if name == OWN_MODULE else "kernel package",
                    "vermagic": info.get("vermagic", [""])[0].strip(),
                }
            )
    archive.file("lib/modules/list", ("\n".join(lines) + "\n").encode())
    return manifest


# ---- kernel ----


def extract_vmlinux(image):
    """The ELF kernel inside an x86 bzImage, or None if it is compressed in a way unknown here.

    The header's payload fields (boot protocol 2.08) say where it is; the last four bytes of it are the unpacked size.
    """
    if image[:4] == b"\x7fELF":
        return image
    if image[0x202:0x206] != b"HdrS":
        raise Failure("kernel: neither an x86 bzImage nor an ELF file")
    version, = struct.unpack_from("<H", image, 0x206)
    if version < 0x208:
        raise Failure(f"kernel: boot protocol {version:#x} is older than 2.08")
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload[:6] == b"\xfd7zXZ\0":
        elf = lzma.LZMADecompressor().decompress(payload)
    elif payload[:2] == b"\x1f\x8b":
        elf = zlib.decompressobj(31).decompress(payload)
    elif payload[:4] == b"\x28\xb5\x2f\xfd":
        try:
            # Not checked: zstd complains of the size field behind the frame, after having unpacked all.
            elf = subprocess.run(["zstd", "-dcq"], input=payload, capture_output=True, check=False).stdout
        except FileNotFoundError:
            return None
    else:
        return None
    return elf if elf[:4] == b"\x7fELF" else None


def cached_vmlinux(image, cache):
    """extract_vmlinux(), which takes seconds, or what it gave for this kernel before: the file `cache`."""
    if cache and os.path.exists(cache):
        return read(cache)
    vmlinux = extract_vmlinux(image)
    if cache and vmlinux:
        write(cache, vmlinux)
    return vmlinux


def has_pvh(elf):
    """Whether an ELF kernel has the entry point by which QEMU starts one (CONFIG_PVH)."""
    phoff, = struct.unpack_from("<Q", elf, 0x20)
    phentsize, phnum = struct.unpack_from("<HH", elf, 0x36)
    for i in range(phnum):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", elf, phoff + i * phentsize)
        at, end = offset, min(offset + size, len(elf))
        while kind == 4 and at + 12 <= end:  # PT_NOTE
            namesz, descsz, note = struct.unpack_from("<III", elf, at)
            if note == XEN_ELFNOTE_PHYS32_ENTRY and elf[at + 12 : at + 15] == b"Xen":
                return True
            at += 12 + (namesz + 3) // 4 * 4 + (descsz + 3) // 4 * 4
    return False


def embedded_config(elf):
    """The configuration that a kernel with CONFIG_IKCONFIG carries, as text; '' if it does not."""
    start, end = elf.find(b"IKCFG_ST"), elf.find(b"IKCFG_ED")
    if start < 0 or end < start:
        return ""
    try:
        return zlib.decompressobj(31).decompress(elf[start + 8 : end]).decode("latin-1")
    except zlib.error:
        return ""


def kernel_release(image):
    """The release that a kernel names, as uname -r prints it."""
    if image[:4] == b"\x7fELF":
        found = re.search(rb"Linux version (\S+) \(", image)
        return found[1].decode("latin-1") if found else "unknown"
    offset, = struct.unpack_from("<H", image, 0x20E)
    text = image[offset + 0x200 : offset + 0x200 + 256].split(b"\0")[0].decode("latin-1")
    return text.split()[0] if text else "unknown"


# ---- programs ----


def elf_interpreter(data):
    """The program interpreter that an executable asks for, or None if it is static."""
    interp = elf_section(data, ".interp")
    return interp.rstrip(b"\0").decode() if interp else None


def add_program(archive, path, where):
    """Adds a program and, if it is dynamic, its interpreter and libraries. Returns manifest entries.

    A script is added as it is; what it needs is the image builder's business.
    """
    data = read(path)
    archive.file(where, data, 0o755)
    manifest = [{"path": f"/{where}", "bytes": len(data), "sha256": sha256(data)}]
    if data.startswith(b"#!") or not elf_interpreter(data):
        return manifest
    out = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
    if out.returncode:
        raise Failure(f"{path}: ldd: {out.stderr.strip()}")
    if "not found" in out.stdout:
        raise Failure(f"{path}: libraries missing:\n{out.stdout}")
    for lib in sorted(set(re.findall(r"(/\S+) \(0x", out.stdout))):
        lib_data = read(lib)
        archive.file(lib.lstrip("/"), lib_data, 0o755)
        manifest.append({"path": lib, "bytes": len(lib_data), "sha256": sha256(lib_data)})
    return manifest


# ---- all of it ----


def check_config(config, driver, release):
    """Refuses a kernel whose configuration (text, '' if not known) rules our driver out. driver: it is a module."""
    wants = {"ZONE_DEVICE": "the driver maps the window with it", "VIRTIO_PCI": "the device is a virtio PCI device"}
    if driver:
        wants["MODULES"] = "the driver is a module"
    for option, why in wants.items() if config else ():
        if not re.search(rf"^CONFIG_{option}=[ym]$", config, re.M):
            raise Failure(f"kernel {release}: it was configured without CONFIG_{option}, and {why}: give another kernel")
    if driver and re.search(r"^CONFIG_MODULE_SIG_FORCE=y$", config, re.M):
        raise Failure(f"kernel {release}: it loads signed modules only (CONFIG_MODULE_SIG_FORCE), and the driver built for it is not "
                      "signed: build virtio_sc into the kernel, or give --modules with a signed virtio_sc.ko and no --headers")


def find_driver(modules, vmlinux, release):
    """Refuses a kernel without our driver; notes one that is built in."""
    if modules.has(OWN_MODULE):
        return
    if vmlinux and b"\0virtio_sc\0" in vmlinux:
        modules.builtin.add(OWN_MODULE)
        return
    raise Failure(f"kernel {release}: the driver virtio_sc is neither built in nor among its modules: give --headers, the kernel's build "
                  "directory, and it is built")


def build(args):
    archive = Archive()
    archive.char_device("dev/console", 0o600, 5, 1)
    for d in ("proc", "sys", "run", "export", "tmp"):
        archive.directory(d)
    programs = add_program(archive, args.init, "init")
    programs += add_program(archive, args.agent, "sbin/sc-agent")
    if args.shell:
        programs += add_program(archive, args.shell, "bin/busybox")
    for path in args.program:
        programs += add_program(archive, path, "bin/" + os.path.basename(path))
    image = read(args.kernel)
    release = kernel_release(image)
    vmlinux = cached_vmlinux(image, args.vmlinux)
    config = read(args.config).decode("latin-1") if args.config else embedded_config(vmlinux) if vmlinux else ""
    check_config(config, args.driver, release)
    modules = Modules(args.modules, args.driver, config)
    find_driver(modules, vmlinux, release)
    module_list = add_modules(archive, modules, parse_role(args.role_list))
    initramfs = archive.pack()
    for m in module_list:
        if m["vermagic"].split()[:1] != [release]:
            raise Failure(f"module {m['name']} is for kernel {m['vermagic']}, not for {release}")
    if vmlinux and not has_pvh(vmlinux):
        if image[:4] == b"\x7fELF":
            raise Failure(f"kernel {release}: an ELF kernel without a PVH entry (CONFIG_PVH): give its bzImage")
        vmlinux = None

    os.makedirs(args.out, exist_ok=True)
    write(f"{args.out}/vmlinuz", image)
    files = {"vmlinuz": image, "initramfs.img": initramfs}
    write(f"{args.out}/initramfs.img", initramfs)
    if vmlinux:
        write(f"{args.out}/vmlinux", vmlinux)
        files["vmlinux"] = vmlinux
    elif os.path.exists(f"{args.out}/vmlinux"):
        os.unlink(f"{args.out}/vmlinux")
    manifest = {
        "role": args.role,
        "debug_shell": bool(args.shell),
        "kernel": {
            "release": release,
            "package": args.package,
            "package_version": args.package_version,
            "package_sha256": args.package_sha256,
        },
        "files": {n: {"bytes": len(d), "sha256": sha256(d)} for n, d in sorted(files.items())},
        "programs": programs,
        "modules": module_list,
    }
    write(f"{args.out}/manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
    return manifest


def show(manifest, out):
    kernel, files = manifest["kernel"], manifest["files"]
    print(f"kernel     {kernel['release']}, stock" + (f" ({kernel['package']} {kernel['package_version']})"
                                                    if kernel["package"] else ""))
    print(f"           vmlinuz sha256 {files['vmlinuz']['sha256']}")
    mods = manifest["modules"]
    print(f"modules    {len(mods)}, {sum(m['bytes'] for m in mods) >> 10} KiB: {' '.join(m['name'] for m in mods)}")
    for p in manifest["programs"]:
        print(f"program    {p['path']}, {p['bytes'] >> 10} KiB")
    print(f"initramfs  {files['initramfs.img']['bytes'] >> 10} KiB, sha256 {files['initramfs.img']['sha256']}")
    if manifest["debug_shell"]:
        print("WARNING    this image has a debug shell")
    print(f"image      {out}")


def main(argv=None):
    ap = argparse.ArgumentParser(description="Packs a service domain's guest image (see build-image.sh).")
    ap.add_argument("--kernel", required=True, help="stock vmlinuz, or an ELF kernel")
    ap.add_argument("--vmlinux", help="file that keeps the unpacked kernel for the next time; one for each vmlinuz")
    ap.add_argument("--modules", default="", help="the kernel's lib/modules/VERSION; without: all is built in")
    ap.add_argument("--driver", default="", help="virtio_sc.ko as built for it; without: built in, or among the modules")
    ap.add_argument("--config", default="", help="the kernel's .config; without: what the kernel carries, if it does")
    ap.add_argument("--init", required=True, help="sc-init")
    ap.add_argument("--agent", required=True, help="sc-agent")
    ap.add_argument("--shell", help="static busybox, for a debug shell")
    ap.add_argument("--program", action="append", default=[], metavar="FILE", help="put this into /bin, too; may be repeated")
    ap.add_argument("--role", default="storage")
    ap.add_argument("--role-list", required=True, help="roles/ROLE.modules")
    ap.add_argument("--package", default="", help="kernel package, for the manifest")
    ap.add_argument("--package-version", default="")
    ap.add_argument("--package-sha256", default="")
    ap.add_argument("--out", required=True, help="directory of the image")
    args = ap.parse_args(argv)
    try:
        show(build(args), args.out)
    except Failure as e:
        print(f"mkinitramfs: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
