#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""accel - which accelerator a service VM gets, and why, in plain words.

QEMU runs a guest with KVM (the processor runs it) or with TCG (QEMU translates it: slower by a factor of ten or more,
but everywhere). The wish is one of

    auto   KVM if it can run a stock kernel here, otherwise TCG, and the explanation says so
    kvm    KVM, or an error
    tcg    TCG

What /dev/kvm can be:

    works      it opens, and the processor shows vmx or svm
    absent     there is none: no virtualization here, switched off in the firmware, or the module is not loaded
    forbidden  it is there, but not for this user
    special    it opens, but the processor shows neither vmx nor svm. Some clouds offer a /dev/kvm made for guests built
               for it. A stock kernel's own code is interpreted there; it seems to hang after decompression. `auto`
               takes TCG; `kvm` is granted with a warning, since a user may have a kernel made for it
    broken     it is there and does not work

Used as a module by start.py and scctl; as a program it prints the choice:

    accel.py [auto|kvm|tcg] [--json]
"""

import argparse
import errno
import fcntl
import json
import os
import stat
import sys
from typing import NamedTuple

KVM_PATH = "/dev/kvm"
CPUINFO_PATH = "/proc/cpuinfo"
KVM_GET_API_VERSION = 0xAE00
KVM_API_VERSION = 12
WISHES = ("auto", "kvm", "tcg")

SLOW = "service VMs run much slower without KVM; everything works"


class Unavailable(Exception):
    """A wish that cannot be met. Its text is one line for the user, remedy included."""


class Kvm(NamedTuple):
    """What /dev/kvm is here."""

    state: str  # works, absent, forbidden, special, broken
    text: str  # one line: what was found
    remedy: str  # one line: what would help; "" if nothing need be done


class Choice(NamedTuple):
    """The accelerator for a VM."""

    accel: str  # kvm or tcg
    wish: str  # auto, kvm or tcg
    kvm: Kvm  # what was found
    text: str  # one line for the user: what was chosen and why
    remedy: str  # one line: how to get something better; "" if there is nothing
    warning: bool  # True: chosen as wished, but it will probably not work


def cpu_has_virtualization(path=CPUINFO_PATH):
    """True if some processor shows vmx (Intel) or svm (AMD)."""
    try:
        with open(path, encoding="ascii", errors="replace") as f:
            for line in f:
                key, _, value = line.partition(":")
                if key.strip() == "flags":
                    return bool({"vmx", "svm"} & set(value.split()))
    except OSError:
        pass
    return False


def _absent(path, cpuinfo):
    if cpu_has_virtualization(cpuinfo):
        return Kvm(
            "absent",
            f"the processor can virtualize, but there is no {path}",
            "load the module: modprobe kvm_intel (or kvm_amd); if that fails, switch virtualization on in the firmware",
        )
    return Kvm(
        "absent",
        f"there is no {path}, and the processor shows neither vmx nor svm",
        "switch virtualization on in the firmware; in a VM, let its host allow nested virtualization",
    )


def _api_version(fd):
    """KVM's API version; KVM_API_VERSION for what is no device (files that tests put in its place)."""
    if not stat.S_ISCHR(os.fstat(fd).st_mode):
        return KVM_API_VERSION
    return fcntl.ioctl(fd, KVM_GET_API_VERSION, 0)


def probe(path=KVM_PATH, cpuinfo=CPUINFO_PATH):
    """Looks at /dev/kvm. The paths are for tests. Never raises."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return _absent(path, cpuinfo)
    except PermissionError:
        return Kvm(
            "forbidden",
            f"{path} is there, but this user may not open it",
            "join the group kvm (adduser USER kvm, then log in again), or run as root",
        )
    except OSError as e:
        if e.errno in (errno.ENODEV, errno.ENXIO):
            return _absent(path, cpuinfo)
        return Kvm("broken", f"{path} does not open: {e.strerror}", "see the kernel log (dmesg) for kvm")
    try:
        version = _api_version(fd)
    except OSError as e:
        return Kvm("broken", f"{path} is not KVM: {e.strerror}", "see the kernel log (dmesg) for kvm")
    finally:
        os.close(fd)
    if version != KVM_API_VERSION:
        return Kvm("broken", f"{path} speaks API {version}, not {KVM_API_VERSION}", "use a kernel with today's KVM")
    if not cpu_has_virtualization(cpuinfo):
        return Kvm(
            "special",
            f"{path} opens, but the processor shows neither vmx nor svm: it is made for specially built guests and "
            "cannot boot a stock kernel",
            "use a machine with (nested) virtualization",
        )
    return Kvm("works", f"{path} works", "")


def choose(wish="auto", path=KVM_PATH, cpuinfo=CPUINFO_PATH):
    """The Choice for a wish. Raises Unavailable if kvm is wished and cannot be had, ValueError for another word."""
    if wish not in WISHES:
        raise ValueError(f"accelerator {wish!r}: not one of {', '.join(WISHES)}")
    kvm = probe(path, cpuinfo)
    if wish == "tcg":
        better = " (KVM would work here)" if kvm.state == "works" else ""
        remedy = "say auto instead of tcg" if better else ""
        return Choice("tcg", wish, kvm, f"TCG, as asked for{better}: {SLOW}", remedy, False)
    if kvm.state == "works":
        return Choice("kvm", wish, kvm, f"KVM: {kvm.text}", "", False)
    if wish == "auto":
        return Choice("tcg", wish, kvm, f"TCG: {kvm.text}; {SLOW}", kvm.remedy, False)
    if kvm.state == "special":
        return Choice("kvm", wish, kvm, f"KVM, as asked for, but {kvm.text}", "say auto instead of kvm", True)
    raise Unavailable(f"KVM was asked for, but {kvm.text}; {kvm.remedy}, or say auto instead of kvm")


def silent_guest(choice, seconds):
    """The line for a guest whose agent did not report in time."""
    if choice.accel == "kvm" and choice.kvm.state != "works":
        return (
            f"the agent did not report within {seconds} s: {choice.kvm.text}; "
            "say auto instead of kvm, or name a kernel that is made for it"
        )
    if choice.accel == "kvm":
        return f"the agent did not report within {seconds} s under KVM: see the VM's console log; try accelerator tcg"
    return f"the agent did not report within {seconds} s under TCG: see the VM's console log; the host may be overloaded"


def main(argv=None):
    ap = argparse.ArgumentParser(description="Says which accelerator service VMs get on this host, and why.")
    ap.add_argument("wish", nargs="?", default="auto", choices=WISHES)
    ap.add_argument("--json", action="store_true", help="for programs")
    args = ap.parse_args(argv)
    try:
        choice = choose(args.wish)
    except Unavailable as e:
        print(f"accel: {e}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(dict(choice._asdict(), kvm=choice.kvm._asdict())))
        return 0
    print(choice.text)
    if choice.remedy:
        print(f"remedy: {choice.remedy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
