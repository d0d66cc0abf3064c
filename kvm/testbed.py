#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""testbed - runs a command on real KVM, on any machine.

QEMU's TCG emulates AMD's virtualization (SVM). So a first-level VM with a stock Debian kernel has a /dev/kvm that works,
whatever the machine: what runs in it uses KVM's own memory slots, irqfds and ioeventfds. It is slow, and proves that
things are right, not that they are fast.

    testbed.py [--memory MIB] [--cpus N] [--timeout SECONDS] -- COMMAND [ARGUMENT...]

The command runs as root, in the current directory, with this machine's files; what it writes stays in the VM's memory
and is lost. Its output goes to standard output (standard error too), and its exit status is testbed's. Environment
variables that begin with VHOST_SC_ are passed on. PATH is too.

How: build-image.sh makes an image of role testbed, in which testbed-agent.sh is what sc-init starts; the host's root
directory comes over 9p, read-only. Packages: qemu-system-x86 (the distribution's own QEMU, for 9p), busybox-static.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(HERE)
PREFIX = "sc-agent: "  # of sc-init, before the command's output
FAILED = 125  # exit status if the test bed itself fails, as with env(1)


def build_image(out):
    subprocess.run(
        [os.path.join(HERE, "build-image.sh"), "--role", "testbed", "--debug-shell", "--out", out,
         "--agent", os.path.join(HERE, "testbed-agent.sh")],
        check=True, stdout=subprocess.DEVNULL,
    )


def command_script(argv):
    """The shell script that the VM runs."""
    passed = {k: v for k, v in os.environ.items() if k.startswith("VHOST_SC_") or k in ("PATH", "HOME", "SC_CACHE")}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(passed.items())]
    lines += [f"cd {shlex.quote(os.getcwd())} || exit {FAILED}", f"exec {shlex.join(argv)}"]
    return "\n".join(lines) + "\n"


def qemu_command(qemu, image, script, memory_mib, cpus):
    kernel = os.path.join(image, "vmlinux")
    words = ["console=ttyS0 quiet loglevel=4 panic=1 cryptomgr.notests no_timer_check apparmor=0 audit=0 mitigations=off",
             "sc.name=testbed sc.role=testbed sc.device=/dev/null sc.on_agent_exit=poweroff", f"sc.agent.command={script}"]
    return [
        qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "q35,vmport=off,smbus=off,sata=off,hpet=off,i8042=off,usb=off",
        "-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm", "-smp", str(cpus), "-m", f"{memory_mib}M",
        "-kernel", kernel, "-initrd", os.path.join(image, "initramfs.img"), "-append", " ".join(words),
        "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
        "-serial", "stdio",
    ]


def relay(stream):
    """Copies the command's output; returns its exit status, or FAILED."""
    status = FAILED
    for line in stream:
        line = line.rstrip("\r\n")
        found = re.fullmatch(re.escape(PREFIX) + r"testbed: exit (\d+)", line)
        if found:
            status = int(found[1])
        elif line:
            print(line[len(PREFIX):] if line.startswith(PREFIX) else line, flush=True)
    return status


def run(argv, memory_mib, cpus, timeout):
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        print("testbed: qemu-system-x86_64 not found: install package qemu-system-x86", file=sys.stderr)
        return FAILED
    with tempfile.TemporaryDirectory(prefix="sc-testbed-") as work:
        image = os.path.join(work, "image")
        build_image(image)
        script = os.path.join(work, "command")
        with open(script, "w", encoding="utf-8") as f:
            f.write(command_script(argv))
        # The timeout is QEMU's parent's, so that a hung VM ends this program too.
        process = subprocess.Popen(
            ["timeout", "-k", "5", str(timeout), *qemu_command(qemu, image, script, memory_mib, cpus)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )
        try:
            status = relay(process.stdout)
        finally:
            process.terminate()
        if process.wait() == 124:
            print(f"testbed: the command did not end within {timeout} s", file=sys.stderr)
            return FAILED
        return status


def main():
    ap = argparse.ArgumentParser(description="Runs a command on real KVM, in a VM with emulated virtualization.")
    ap.add_argument("--memory", type=int, default=3072, metavar="MIB", help="memory of the VM (default 3072)")
    ap.add_argument("--cpus", type=int, default=2, help="CPUs of the VM (default 2)")
    ap.add_argument("--timeout", type=int, default=1200, metavar="SECONDS", help="default 1200")
    ap.add_argument("command", nargs="+")
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # the VM ends with this program
    return run(args.command, args.memory, args.cpus, args.timeout)


if __name__ == "__main__":
    sys.exit(main())
