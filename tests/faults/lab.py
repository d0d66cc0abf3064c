# SPDX-License-Identifier: BSD-3-Clause
"""Domains that can be crashed on purpose.

A domain here has start(), crash(), restart() and stop(), whatever it is:

  Lab       a loopback domain whose export is a file system of its own, on a loop device over a file in memory, mounted in a mount
            namespace of its own. A crash is a real one for the file system, too: the agent is killed, then FS_IOC_SHUTDOWN
            without a log flush drops everything that the file system has not committed (btrfs, which has no such call on older
            kernels, has its device cut off instead), and it is unmounted. restart() mounts it again, which replays the journal,
            and starts a new agent. That takes a fraction of a second, so thousands of crashes can be made.
  Loopback  a loopback domain on a directory: only the agent dies. For machines without loop devices.
  NetLab    a network domain on a tap in a network namespace; only the agent dies.
  Vm        a domain that libvirt runs: `virsh destroy`, `virsh start`.

Nothing is left behind, however this program ends: the namespace lives as long as one process in it, which dies with its parent
(PR_SET_PDEATHSIG), and mounts and loop devices go with the namespace.
"""
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NOLOGFLUSH = 2
LOOP_GET_STATUS64, LOOP_SET_STATUS64 = 0x4C05, 0x4C04
LOOP_INFO64 = "<QQQQQIIII64s64s32s2Q"  # lo_device, inode, rdevice, offset, sizelimit, …
READY_SECONDS = 60
MKFS = {"ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"],
        "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
        "btrfs": ["mkfs.btrfs", "-q", "-f", "-K"]}


class CannotRun(Exception):
    """This machine lacks something; the text says what."""


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def build_dir():
    return os.environ.get("VHOST_SC_BUILD") or os.path.join(TOP, "build")


def program(*names):
    """A program that was built; of several names the first that exists."""
    for name in names:
        path = os.path.join(build_dir(), name)
        if os.path.exists(path):
            return path
    raise CannotRun("%s is not built: ninja -C build" % " or ".join(names))


def run(argv, **kw):
    kw.setdefault("timeout", 120)
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **kw)


def must(argv, **kw):
    r = run(argv, **kw)
    if r.returncode:
        raise CannotRun("%s: %s" % (" ".join(argv), r.stdout.strip() or "status %d" % r.returncode))
    return r.stdout


class Domain:
    """What all kinds have in common: a name, a directory, and how programs get at it."""
    kind = ""
    name = "lab"
    role = "storage"

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="scfault.")
        os.chmod(self.dir, 0o755)
        self.place = self.dir + "/sc"  # the export, to programs under scrun
        self.incarnations = 0
        self.fault = None  # crash point that the next agent is to die at
        self.env = dict(os.environ)

    def scrun(self, *argv, options=()):
        return [program("hostlib/scrun"), "--storage", "%s:%s" % (self.name, self.place), "--wait", "120", *options, "--", *argv]

    def alive(self):
        """False once the incarnation has ended by itself (at a crash point)."""
        return True

    def shadow_dir(self):
        """A directory outside of the domain, for a tree to compare with."""
        os.mkdir(self.dir + "/shadow")
        return self.dir + "/shadow"

    def root(self):
        """The export's directory as this process can see it, or None."""
        return None

    def log(self):
        return ""

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc):
        self.stop()


class Loopback(Domain):
    """A broker that lives throughout, and one agent after the other."""
    kind = "loopback"

    def __init__(self, agent_args=(), broker_args=()):
        super().__init__()
        self.agent_args, self.broker_args = list(agent_args), list(broker_args)
        self.export = self.dir + "/export"
        os.mkdir(self.export)
        os.mkdir(self.dir + "/run", 0o755)
        self.env["VHOST_SC_RUNDIR"] = self.dir + "/run"
        self.broker = self.agent = self.holder = None
        self.agent_log = self.dir + "/agent.log"

    # what a Lab does more

    def enter(self):
        """The command that the agent's is appended to."""
        return []

    def mount(self):
        os.chmod(self.export, 0o1777)

    def unmount(self):
        pass

    def drop(self):
        pass

    def root(self):
        return self.export

    # life

    def start(self):
        self.mount()
        self.start_broker()
        self.start_agent()
        self.wait_ready()

    def start_broker(self):
        log = open(self.dir + "/broker.log", "ab")
        argv = [program("vhost-sc/vhost-scd"), "--name", self.name, "--role", self.role, "--loopback", *self.broker_args]
        self.broker = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, preexec_fn=die_with_parent)
        log.close()
        self.socket = self.dir + "/run/%s/agent.sock" % self.name
        control = os.path.dirname(self.socket) + "/ctl.sock"
        wait_until(lambda: os.path.exists(self.socket) and os.path.exists(control), 20, "the broker's sockets")

    def agent_command(self):
        name = "guest-agent/sc-agent-fault" if self.fault else "guest-agent/sc-agent"
        return self.enter() + [program(name), "--loopback", self.socket, "--root", self.export]

    def start_agent(self):
        env = dict(self.env)
        if self.fault:
            env["SC_FAULT"] = self.fault
        log = open(self.agent_log, "ab")
        self.agent = subprocess.Popen(self.agent_command() + self.agent_args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, preexec_fn=die_with_parent)
        log.close()
        self.incarnations += 1

    def status(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(self.dir + "/run/%s/ctl.sock" % self.name)
            s.sendall(b'{"cmd": "status"}\n')
            return json.loads(s.makefile().readline())

    def wait_ready(self):
        """Waits until the domain serves. False: the incarnation has ended meanwhile."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            if not self.alive():
                return False
            if self.status().get("state") == "ready":
                return True
            time.sleep(0.01)
        raise TimeoutError("the domain is not ready after %d s:\n%s" % (READY_SECONDS, self.log()))

    def alive(self):
        return self.agent is not None and self.agent.poll() is None

    def exit_status(self):
        return self.agent.poll()

    def kill_agent(self):
        if self.agent and self.agent.poll() is None:
            self.agent.kill()
        if self.agent:
            self.agent.wait()

    def crash(self):
        """The VM's end, at once."""
        self.kill_agent()
        self.drop()
        self.unmount()

    def restart(self):
        """A new incarnation is on its way when this returns."""
        self.mount()
        self.start_agent()

    def log(self):
        with contextlib.suppress(OSError):
            with open(self.agent_log, encoding="utf-8", errors="replace") as f:
                return "".join(f.readlines()[-30:])
        return ""

    def stop(self):
        for p in (self.agent, self.broker):
            if p and p.poll() is None:
                p.terminate()
                try:
                    p.wait(20)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
        with contextlib.suppress(Exception):
            self.unmount()
        shutil.rmtree(self.dir, ignore_errors=True)


class Lab(Loopback):
    """See above."""
    kind = "lab"

    def __init__(self, fs="ext4", size=768 << 20, mount_options="", **kw):
        super().__init__(**kw)
        self.fs, self.mount_options = fs, mount_options
        self.image_dir = tempfile.mkdtemp(prefix="scfault.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.image = self.image_dir + "/disk.img"
        self.mounted = False
        with open(self.image, "wb") as f:
            f.truncate(size)

    def start(self):
        if os.geteuid():
            raise CannotRun("the crash lab mounts file systems: run as root")
        if not shutil.which(MKFS[self.fs][0]):
            raise CannotRun("%s is missing: install it" % MKFS[self.fs][0])
        must(MKFS[self.fs] + [self.image])
        self.holder = hold_namespace("mnt")
        super().start()

    def enter(self):
        return ["nsenter", "--mount=/proc/%d/ns/mnt" % self.holder.pid, "--"]

    def root(self):
        return "/proc/%d/root%s" % (self.holder.pid, self.export)

    def mount(self):
        if not self.mounted:
            options = "loop" + ("," + self.mount_options if self.mount_options else "")
            must(self.enter() + ["mount", "-t", self.fs, "-o", options, self.image, self.export])
            self.mounted = True
            if not self.incarnations:
                os.chmod(self.root(), 0o1777)
                run(self.enter() + ["sync", "-f", self.export])

    def shadow_dir(self):
        """A directory on another file system of the same kind, which is not crashed: so that both sides give the same answers."""
        image, at = self.image_dir + "/shadow.img", self.dir + "/shadow"
        with open(image, "wb") as f:
            f.truncate(os.stat(self.image).st_size)
        os.mkdir(at)
        must(MKFS[self.fs] + [image])
        must(self.enter() + ["mount", "-t", self.fs, "-o", "loop", image, at])
        return "/proc/%d/root%s" % (self.holder.pid, at)

    def unmount(self):
        if not self.mounted:
            return
        end = time.monotonic() + 30
        while True:  # the dead agent's ring and mappings may take a moment
            r = run(self.enter() + ["umount", self.export])
            if not r.returncode:
                self.mounted = False
                return
            if time.monotonic() > end:
                raise RuntimeError("umount: " + r.stdout)
            time.sleep(0.02)

    def drop(self):
        """Loses what is not on the disk."""
        if not self.mounted:
            return
        fd = os.open(self.root(), os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("<I", NOLOGFLUSH))
        except OSError as e:
            if e.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self.cut_off()
        finally:
            os.close(fd)

    def cut_off(self):
        """Makes the loop device one sector long: all writes fail from now on."""
        dev = must(self.enter() + ["findmnt", "-n", "-o", "SOURCE", self.export]).strip()
        fd = os.open(dev, os.O_RDWR)
        try:
            info = list(struct.unpack(LOOP_INFO64, fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(struct.calcsize(LOOP_INFO64)))))
            info[4] = 512
            fcntl.ioctl(fd, LOOP_SET_STATUS64, struct.pack(LOOP_INFO64, *info))
        finally:
            os.close(fd)

    def stop(self):
        try:
            super().stop()
        finally:
            release(self.holder)
            shutil.rmtree(self.image_dir, ignore_errors=True)


class NetLab(Loopback):
    """A network domain on a tap in a network namespace of its own, which stays when the agent goes, as a VM's does."""
    kind = "net"
    role = "network"
    name = "net0"
    own, peer = "10.77.0.2", "10.77.0.1"

    def scrun(self, *argv, options=()):
        return [program("hostlib/scrun"), "--network", self.name, "--wait", "120", *options, "--", *argv]

    def start(self):
        if os.geteuid():
            raise CannotRun("the lab makes a network namespace: run as root")
        self.holder = hold_namespace("net")
        for argv in (["ip", "link", "set", "lo", "up"], ["ip", "tuntap", "add", "dev", "sctap0", "mode", "tap"],
                     ["ip", "addr", "add", self.peer + "/24", "dev", "sctap0"], ["ip", "link", "set", "sctap0", "up"]):
            must(self.outside(*argv))
        self.start_broker()
        self.start_agent()
        self.wait_ready()

    def outside(self, *argv):
        """The command for a program with the kernel's stack on the other side of the tap."""
        return ["nsenter", "--net=/proc/%d/ns/net" % self.holder.pid, "--", *argv]

    def agent_command(self):
        name = "guest-agent/sc-agent-net-fault" if self.fault else "guest-agent/sc-agent-net"
        return self.outside(program(name), "--loopback", self.socket, "--tap", "sctap0", "--addr", self.own + "/24", "--gw", self.peer)

    def restart(self):
        self.start_agent()

    def unmount(self):
        pass

    def root(self):
        return None

    def stop(self):
        try:
            super().stop()
        finally:
            release(self.holder)


class Vm(Domain):
    """A domain of libvirt's, made here on a disk of its own. Its export is not to be seen from the host."""
    kind = "vm"
    name = "scfault-vm"

    def __init__(self, size="4G"):
        super().__init__()
        self.size = size
        self.disk = self.dir + "/disk.img"

    @staticmethod
    def scctl(*argv, check=True):
        r = run([sys.executable, os.path.join(TOP, "libvirt-xml", "scctl"), *argv], timeout=600)
        if check and r.returncode:
            raise CannotRun("scctl %s: %s" % (" ".join(argv), r.stdout.strip()))
        return r

    def start(self):
        self.scctl("define", self.name, "--role", "storage", "--disk", self.disk, "--size", self.size)
        self.restart()
        self.wait_ready()
        # The export's root is root's; programs that are not may work below.
        must(self.scrun("chmod", "1777", self.place))

    def wait_ready(self):
        self.scctl("wait", self.name, "--timeout", "240")
        return True

    def crash(self):
        must(["virsh", "destroy", self.name])

    def restart(self):
        must(["virsh", "start", self.name])
        self.incarnations += 1

    def log(self):
        return run([sys.executable, os.path.join(TOP, "libvirt-xml", "scctl"), "logs", self.name]).stdout[-4000:]

    def stop(self):
        run(["virsh", "destroy", self.name])
        self.scctl("undefine", self.name, "--remove-disk", check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


def hold_namespace(kind):
    """A process that does nothing but to have a namespace of its own: mnt or net. release() ends both."""
    how = {"mnt": ["--mount", "--propagation", "private"], "net": ["--net"]}[kind]
    p = subprocess.Popen(["unshare", *how, "sleep", "infinity"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                         preexec_fn=die_with_parent)
    ours = os.stat("/proc/self/ns/" + kind).st_ino
    wait_until(lambda: p.poll() is not None or os.stat("/proc/%d/ns/%s" % (p.pid, kind)).st_ino != ours, 10, "a namespace")
    if p.poll() is not None:
        raise CannotRun("no namespace: " + p.stderr.read().decode(errors="replace").strip())
    return p


def release(holder):
    if holder:
        if holder.poll() is None:
            holder.kill()
        holder.wait()
        holder.stderr.close()


def wait_until(what, seconds, text):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError("%s: not within %d s" % (text, seconds))
        time.sleep(0.005)


def make(kind, role="storage", fs="ext4", **kw):
    """A domain of this kind; CannotRun says why not."""
    if role == "network":
        if kind == "vm":
            raise CannotRun("network workloads have a lab only")
        return NetLab(**kw)
    if kind == "lab":
        return Lab(fs=fs, **kw)
    if kind == "loopback":
        return Loopback(**kw)
    return Vm()
