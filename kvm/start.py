#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""start - runs a service VM without libvirt, and knows how a service VM is put together.

Three layers, each usable alone:

  Vm                 what a service VM is: a dataclass, or a JSON file of the same fields
  *_args, cmdline    QEMU arguments and kernel command line made from a Vm. Pure functions. libvirt-xml takes
                     device_args, cmdline, cpu_model and image_files from here, so that both ways of starting agree
  start, stop, status, pin
                     one QEMU process, found again by its pid file and QMP socket

As a program:

    start.py start   VM.json      runs the VM; returns when QEMU runs (not when the agent is ready: ask the broker)
    start.py stop    VM.json [--timeout SECONDS]
    start.py status  VM.json
    start.py command VM.json      prints the QEMU command line

How the VM is made, and why:

  q35                     PCIe, MSI-X. What it brings and nobody needs (SATA, SMBus, HPET, keyboard controller) is off:
                          each would cost the guest time to probe
  memory-backend-memfd    share=on: the broker reads the virtqueues in guest memory
  cpu                     KVM: host. TCG: max,-erms,-fsrm, for the kernel copies by "rep movsb" where it sees these, and
                          TCG emulates that byte by byte (eight times slower for 4 KiB)
  kernel                  KVM: vmlinuz. TCG: vmlinux, the same kernel already decompressed; saves three seconds
  disk                    virtio-blk with an I/O thread of its own. cache.direct where the file system of the image
                          takes O_DIRECT, so that data is not cached twice
  intel-iommu, NIC        network domains: DPDK drives the NIC from the agent through VFIO, which wants an IOMMU; the NIC
                          (virtio-net on a tap, or one of the host's by VFIO) is behind it. caching-mode lets QEMU see what the
                          guest maps; interrupts are remapped, since VFIO refuses others
  vhost-user-sc-pci       the device; its socket is the broker's. QEMU connects again when the broker restarts
  -sandbox on             QEMU's own seccomp filter
"""

import argparse
import ctypes
import dataclasses
import errno
import hashlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import accel  # noqa: E402

MIB = 1 << 20
START_SECONDS = 30  # QEMU must answer on QMP within
QMP_SECONDS = 10  # an answer on QMP must come within
SC_CHARDEV = "sc-broker"
SC_DEVICE = "sc0"


class Failure(Exception):
    """What went wrong, in one line for the user, remedy included."""


@dataclasses.dataclass
class Vm:
    """A service VM. Paths are absolute; '' stands for "not given"; sizes are in the unit of the name."""

    name: str
    qemu: str  # qemu-system-x86_64 with vhost-user-sc-pci
    image: str = ""  # directory made by build-image.sh; gives kernel and initrd
    kernel: str = ""  # overrides image's
    initrd: str = ""  # overrides image's
    role: str = "storage"
    disk: str = ""  # image file or block device; none: no disk
    disk_format: str = "raw"  # raw or qcow2
    disk_aio: str = ""  # io_uring, native or threads; '': io_uring where this host allows it
    fstype: str = "ext4"
    fsopts: str = ""  # mount options in the guest
    memory_mib: int = 512
    hugepages: str = ""  # "2M" or "1G": guest memory from huge pages of that size
    vcpus: int = 1
    cpus: list = dataclasses.field(default_factory=list)  # host CPU of vCPU 0, 1, ...; empty: not pinned
    io_cpus: list = dataclasses.field(default_factory=list)  # host CPUs of the disk's I/O thread; empty: any
    emulator_cpus: list = dataclasses.field(default_factory=list)  # host CPUs of QEMU's other threads; empty: any
    node: int = -1  # NUMA node that guest memory should come from; -1: any. Takes a QEMU with NUMA support
    accel: str = "auto"  # the wish, see accel.py
    broker_socket: str = ""  # vhost-user socket of the broker; none: no device (for tests)
    num_channels: int = 127
    window_bytes: int = 2304 << 20
    tap: str = ""  # network: tap device on which the guest's virtio-net is; QEMU makes it if it may and it is absent
    mac: str = ""  # of that NIC; '': made from the domain's name
    pci: str = ""  # network: the host's NIC to give to the guest, instead of a tap: 0000:3b:00.0
    agent_words: list = dataclasses.field(default_factory=list)  # more arguments of the agent: "addr=10.77.0.2/24"
    pollers: int = 0  # poller threads in the agent; 0: the agent decides
    on_agent_exit: str = "reboot"  # reboot, poweroff or halt
    append: str = ""  # more words for the kernel command line
    verbose: bool = False  # the kernel's own messages on the console
    console_log: str = ""  # file; what the guest writes to its serial console is appended
    console_socket: str = ""  # UNIX socket to talk to the console
    qemu_log: str = ""  # file; QEMU's messages
    pid_file: str = ""
    qmp_socket: str = ""
    sandbox: bool = True
    extra_args: list = dataclasses.field(default_factory=list)  # more QEMU arguments

    @staticmethod
    def from_dict(data):
        """A Vm from parsed JSON. Failure on an unknown or missing field."""
        known = {f.name for f in dataclasses.fields(Vm)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise Failure(f"VM configuration: unknown field {unknown[0]!r} (known: {', '.join(sorted(known))})")
        try:
            return Vm(**data)
        except TypeError as e:
            raise Failure(f"VM configuration: {e}") from e


# ---- what a service VM is made of ----


def cpu_model(accelerator):
    """QEMU's -cpu for an accelerator ("kvm" or "tcg")."""
    return "host" if accelerator == "kvm" else "max,-erms,-fsrm"


def image_files(image, accelerator):
    """(kernel, initrd) of an image directory that suit an accelerator."""
    kernel = os.path.join(image, "vmlinux")
    if accelerator == "kvm" or not os.path.exists(kernel):
        kernel = os.path.join(image, "vmlinuz")
    initrd = os.path.join(image, "initramfs.img")
    for path in (kernel, initrd):
        if not os.path.exists(path):
            raise Failure(f"{path}: no such file: make the guest image with kvm/build-image.sh")
    return kernel, initrd


def cmdline(vm, accelerator):
    """The guest's kernel command line."""
    words = [
        "console=ttyS0",
        "loglevel=7" if vm.verbose else "quiet loglevel=4",
        # A guest that cannot go on is started again at once; nothing is lost by it.
        "panic=1 oops=panic",
        # Time to boot: no self-tests of ciphers, no probing for what the VM has not.
        "cryptomgr.notests no_timer_check",
        # One trusted program runs in the guest; security modules would only be asked about it.
        "apparmor=0 audit=0",
    ]
    if accelerator == "tcg":
        # TCG does not speculate, and the detours that mitigate it are slow there.
        words.append("mitigations=off")
    words += [f"sc.name={vm.name}", f"sc.role={vm.role}", f"sc.on_agent_exit={vm.on_agent_exit}"]
    if vm.disk:
        words += ["sc.disk=/dev/vda", f"sc.fstype={vm.fstype}"]
        if vm.fsopts:
            words.append(f"sc.fsopts={vm.fsopts}")
    if vm.pollers:
        words.append(f"sc.pollers={vm.pollers}")
    if vm.role == "network":
        # iommu=pt: devices that the guest's kernel drives itself need no translation.
        words.append("intel_iommu=on iommu=pt")
    words += [f"sc.agent.{word}" for word in vm.agent_words]
    if not vm.broker_socket:
        words.append("sc.device=/dev/null")
    if vm.append:
        words.append(vm.append)
    return " ".join(words)


def _value(text):
    """A value within a comma-separated QEMU option."""
    return text.replace(",", ",,")


def device_args(vm):
    """The virtio-sc device and the socket to its broker."""
    return [
        "-chardev",
        f"socket,id={SC_CHARDEV},path={_value(vm.broker_socket)},reconnect=1",
        "-device",
        f"vhost-user-sc-pci,id={SC_DEVICE},chardev={SC_CHARDEV},num-channels={vm.num_channels},"
        f"window-size={vm.window_bytes}",
    ]


def memory_args(vm):
    """Guest memory that the broker can map."""
    # prealloc: a shortage of huge pages is an error of the start and not a SIGBUS later.
    huge = f",hugetlb=on,hugetlbsize={vm.hugepages},prealloc=on" if vm.hugepages else ""
    near = f",host-nodes={vm.node},policy=preferred" if vm.node >= 0 else ""
    return [
        "-m",
        f"{vm.memory_mib}M",
        "-object",
        f"memory-backend-memfd,id=mem,size={vm.memory_mib}M,share=on{huge}{near}",
    ]


def takes_direct_io(path):
    """True if a file can be opened with O_DIRECT (tmpfs, for one, does not allow it)."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as e:
        if e.errno == errno.EINVAL:
            return False
        raise Failure(f"disk {path}: {e.strerror}") from e
    return True


def host_has_io_uring():
    """True if this process may make an io_uring (the system may forbid it)."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(120)
    fd = libc.syscall(425, 1, params)  # io_uring_setup
    if fd < 0:
        return False
    os.close(fd)
    return True


def disk_args(vm):
    """The exported disk, with an I/O thread of its own."""
    direct = "on" if takes_direct_io(vm.disk) else "off"
    # "native" needs O_DIRECT; "threads" goes everywhere.
    aio = vm.disk_aio or ("io_uring" if host_has_io_uring() else "native" if direct == "on" else "threads")
    return [
        "-object",
        "iothread,id=disk-io",
        "-blockdev",
        f"driver=file,node-name=disk-file,filename={_value(vm.disk)},cache.direct={direct},aio={aio},discard=unmap",
        "-blockdev",
        f"driver={vm.disk_format},node-name=disk,file=disk-file,cache.direct={direct},discard=unmap",
        "-device",
        f"virtio-blk-pci,id=disk0,drive=disk,iothread=disk-io,disable-legacy=on,num-queues={vm.vcpus},"
        "serial=sc-disk",
    ]


def mac_of(name):
    """A MAC address of a domain's own: QEMU's prefix and a hash of the name."""
    digest = hashlib.sha256(name.encode()).digest()
    return f"52:54:00:{digest[0]:02x}:{digest[1]:02x}:{digest[2]:02x}"


def nic_args(vm):
    """The NIC of a network domain behind its IOMMU, which has to come first."""
    args = ["-device", "intel-iommu,intremap=on,caching-mode=on"]
    if vm.pci:
        return args + ["-device", f"vfio-pci,id=nic0,host={vm.pci}"]
    return args + [
        "-netdev",
        f"tap,id=nic0,ifname={_value(vm.tap)},script=no,downscript=no",
        "-device",
        f"virtio-net-pci,netdev=nic0,mac={vm.mac or mac_of(vm.name)},disable-legacy=on,iommu_platform=on,romfile=",
    ]


def console_args(vm):
    """The serial console: a log, and a socket if wished."""
    log = f",logfile={_value(vm.console_log)},logappend=on" if vm.console_log else ""
    if vm.console_socket:
        backend = f"socket,id=console,path={_value(vm.console_socket)},server=on,wait=off{log}"
    else:
        backend = f"null,id=console{log}"
    return ["-chardev", backend, "-serial", "chardev:console"]


def command(vm, accelerator):
    """The whole QEMU command line for an accelerator ("kvm" or "tcg")."""
    kernel, initrd = (vm.kernel, vm.initrd)
    if not kernel or not initrd:
        image_kernel, image_initrd = image_files(vm.image, accelerator)
        kernel, initrd = kernel or image_kernel, initrd or image_initrd
    args = [
        vm.qemu,
        "-name",
        f"guest={_value(vm.name)},debug-threads=on",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        "q35,memory-backend=mem,vmport=off,smbus=off,sata=off,hpet=off,i8042=off,usb=off,"
        "dump-guest-core=off" + (",kernel-irqchip=split" if vm.role == "network" and accelerator == "kvm" else ""),
        "-accel",
        "kvm" if accelerator == "kvm" else "tcg,thread=multi",
        "-cpu",
        cpu_model(accelerator),
        "-smp",
        str(vm.vcpus),
        *memory_args(vm),
        "-kernel",
        kernel,
        "-initrd",
        initrd,
        "-append",
        cmdline(vm, accelerator),
        *console_args(vm),
        "-msg",
        "timestamp=on",
    ]
    if vm.tap or vm.pci:
        args += nic_args(vm)
    if vm.disk:
        args += disk_args(vm)
    if vm.broker_socket:
        args += device_args(vm)
    if vm.qmp_socket:
        args += ["-qmp", f"unix:{_value(vm.qmp_socket)},server=on,wait=off"]
    if vm.pid_file:
        args += ["-pidfile", vm.pid_file]
    if vm.sandbox:
        args += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    return args + vm.extra_args


# ---- QMP ----


class Qmp:
    """A connection to a running QEMU. A context manager."""

    def __init__(self, path, timeout=QMP_SECONDS):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(path)
            self.stream = self.sock.makefile("r", encoding="utf-8")
            self._receive()
            self.execute("qmp_capabilities")
        except OSError:
            self.sock.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def _receive(self):
        line = self.stream.readline()
        if not line:
            raise ConnectionResetError(errno.ECONNRESET, "QEMU closed its QMP socket")
        return json.loads(line)

    def execute(self, name, **arguments):
        """Runs a QMP command and returns what it returns. Events in between are skipped."""
        self.sock.sendall((json.dumps({"execute": name, "arguments": arguments}) + "\n").encode())
        while True:
            answer = self._receive()
            if "error" in answer:
                raise Failure(f"QEMU: {name}: {answer['error'].get('desc', 'failed')}")
            if "return" in answer:
                return answer["return"]


# ---- the process ----


def running_pid(vm):
    """The pid of the VM's QEMU, or 0. A stale pid file is told from a live one by the process' command line."""
    try:
        with open(vm.pid_file, encoding="ascii") as f:
            pid = int(f.read().strip())
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            words = f.read().split(b"\0")
    except (OSError, ValueError):
        return 0
    return pid if vm.pid_file.encode() in words else 0


def _tail(path, lines=5):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return " / ".join(line.strip() for line in f.readlines()[-lines:] if line.strip())
    except OSError:
        return ""


def _check(vm):
    """Refuses what QEMU would refuse in worse words."""
    if not vm.pid_file or not vm.qmp_socket:
        raise Failure("VM configuration: pid_file and qmp_socket are needed to find the VM again")
    if not os.access(vm.qemu, os.X_OK):
        raise Failure(f"{vm.qemu}: no such program: build the patched QEMU (qemu-patches)")
    if vm.disk and not os.path.exists(vm.disk):
        raise Failure(f"disk {vm.disk}: no such file: make it with scctl define")
    if vm.broker_socket and not os.path.exists(vm.broker_socket):
        raise Failure(f"broker socket {vm.broker_socket} is missing: start vhost-scd for domain {vm.name} first")
    if vm.cpus and len(vm.cpus) != vm.vcpus:
        raise Failure(f"VM configuration: {vm.vcpus} vCPUs, but {len(vm.cpus)} CPUs to pin them to")
    if running_pid(vm):
        raise Failure(f"VM {vm.name} is running already (pid {running_pid(vm)})")


def _wait_qmp(vm, process, log):
    """Waits until QEMU answers. Failure with its last words if it ends instead."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        status = process.poll()
        if status is not None:
            raise Failure(f"QEMU for VM {vm.name} ended at once (status {status}): {_tail(log) or 'it said nothing'}")
        try:
            return Qmp(vm.qmp_socket)
        except OSError:
            time.sleep(0.02)
    process.kill()
    raise Failure(f"QEMU for VM {vm.name} did not answer on {vm.qmp_socket} within {START_SECONDS} s: {_tail(log)}")


def pin(vm, qmp, pid=0):
    """Puts vCPU threads, the disk's I/O thread, and QEMU's others on their CPUs. Returns [(thread id, CPUs)].

    From outside: QEMU's own sandbox forbids it such calls. The others first, for they are all that are not the rest.
    """
    wanted = []
    if vm.emulator_cpus and pid:
        wanted += [(int(thread), vm.emulator_cpus) for thread in os.listdir(f"/proc/{pid}/task")]
    if vm.cpus:
        threads = sorted(qmp.execute("query-cpus-fast"), key=lambda c: c["cpu-index"])
        wanted += [(t["thread-id"], [cpu]) for t, cpu in zip(threads, vm.cpus)]
    if vm.io_cpus:
        wanted += [(t["thread-id"], vm.io_cpus) for t in qmp.execute("query-iothreads")]
    for thread, cpus in wanted:
        try:
            os.sched_setaffinity(thread, cpus)
        except ProcessLookupError:
            continue  # a thread that was for a moment only
        except OSError as e:
            raise Failure(f"VM {vm.name}: cannot pin thread {thread} to CPUs {cpus}: {e.strerror}") from e
    return wanted


def start(vm):
    """Starts the VM. Returns (pid, accel.Choice). Failure or accel.Unavailable if it cannot."""
    _check(vm)
    choice = accel.choose(vm.accel)
    argv = command(vm, choice.accel)
    log = vm.qemu_log
    if not log:
        fd, log = tempfile.mkstemp(prefix="vhost-sc-qemu-")
        os.close(fd)
    try:
        with open(log, "ab") as out:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/"
            )
    except OSError as e:
        raise Failure(f"{vm.qemu}: {e.strerror}") from e
    try:
        with _wait_qmp(vm, process, log) as qmp:
            pin(vm, qmp, process.pid)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        if not vm.qemu_log:
            os.unlink(log)
    # QEMU lives on without this process; it is no business of Popen's destructor.
    process.returncode = 0
    return process.pid, choice


def _wait_gone(vm, pid, seconds):
    """Waits for the VM's process to end. True if it did."""
    end = time.monotonic() + seconds
    while running_pid(vm) == pid:
        if time.monotonic() >= end:
            return False
        try:
            os.waitpid(pid, os.WNOHANG)  # if it is a child of ours, it would stay as a zombie
        except ChildProcessError:
            pass
        time.sleep(0.05)
    return True


def stop(vm, timeout=30):
    """Stops the VM: power button, and after `timeout` seconds by force.

    Returns "not running", "stopped" or "killed".
    """
    pid = running_pid(vm)
    if not pid:
        return "not running"
    try:
        with Qmp(vm.qmp_socket) as qmp:
            qmp.execute("system_powerdown")
        if _wait_gone(vm, pid, timeout):
            return "stopped"
    except OSError:
        pass  # a QEMU that does not answer is for the next step
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            break
        if _wait_gone(vm, pid, 5):
            break
    return "killed"


def status(vm):
    """What is known of the VM: {"running", "pid", "state", "vcpus": [{"index", "thread", "cpus"}]}."""
    pid = running_pid(vm)
    if not pid:
        return {"running": False, "pid": 0, "state": "shut off", "vcpus": []}
    try:
        with Qmp(vm.qmp_socket) as qmp:
            state = qmp.execute("query-status")["status"]
            vcpus = [
                {
                    "index": c["cpu-index"],
                    "thread": c["thread-id"],
                    "cpus": sorted(os.sched_getaffinity(c["thread-id"])),
                }
                for c in qmp.execute("query-cpus-fast")
            ]
    except OSError as e:
        return {"running": True, "pid": pid, "state": f"does not answer ({e.strerror or e})", "vcpus": []}
    return {"running": True, "pid": pid, "state": state, "vcpus": vcpus}


# ---- program ----


def load(path):
    try:
        with open(path, encoding="utf-8") as f:
            return Vm.from_dict(json.load(f))
    except OSError as e:
        raise Failure(f"{path}: {e.strerror}") from e
    except ValueError as e:
        raise Failure(f"{path}: not JSON: {e}") from e


def _do(args):
    vm = load(args.config)
    if args.action == "start":
        pid, choice = start(vm)
        print(f"VM {vm.name} runs (pid {pid}); {choice.text}")
        if choice.remedy:
            print(f"remedy: {choice.remedy}")
    elif args.action == "stop":
        print(f"VM {vm.name}: {stop(vm, args.timeout)}")
    elif args.action == "status":
        print(json.dumps(status(vm)))
    else:
        print(shlex.join(command(vm, accel.choose(vm.accel).accel)))


def main(argv=None):
    ap = argparse.ArgumentParser(description="Runs a service VM without libvirt.")
    ap.add_argument("action", choices=("start", "stop", "status", "command"))
    ap.add_argument("config", help="JSON file with the fields of Vm (see the source)")
    ap.add_argument("--timeout", type=float, default=30, help="stop: seconds for an orderly end (default 30)")
    try:
        _do(ap.parse_args(argv))
    except (Failure, accel.Unavailable) as e:
        print(f"start: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
