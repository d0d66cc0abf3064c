# SPDX-License-Identifier: BSD-3-Clause
"""scbench_peer.py - the driver domain: the same guest without us, for comparison.

A second VM with the same kernel, QEMU, accelerator, memory and kind of disk as the domain under test, but with a network card
instead of our device. Its disk is reached in two ways:

    sshfs   the guest exports it by the SFTP protocol, over TCP on a virtio network card, and the host mounts it in user space by
            FUSE: what isolated driver domains do that share files. No encryption (sshfs' "directport": it speaks to
            the server without ssh), so that what is measured is the way and not the cipher.
    guest   scbench-work runs in the guest itself, and is asked over TCP: what virtio-blk and the guest's kernel do without
            anything of the host in between. Its times are the guest's own; CPU time is that of the whole VM.

An NFS client in user space is not in Debian 12 (libnfs is, without its FUSE program), and the host's kernel need not have one: that
peer is left out.

Needs root (a tap device, /dev/fuse) and the packages sshfs, openssh-sftp-server, busybox-static.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

from scbench_common import HERE, TOP, Refusal, find, in_tree
from scbench_machine import process_clock

SFTP_SERVER = '/usr/lib/openssh/sftp-server'
SFTP_PORT, WORK_PORT = 2049, 2050
BOOT_SECONDS = 120


def why_not():
    """Why there can be no driver domain here; '' if there can."""
    if not in_tree():
        return 'it is built from a checkout only'
    if os.geteuid() != 0:
        return 'a tap device and a FUSE mount take root'
    for path in ('/dev/fuse', '/dev/net/tun', SFTP_SERVER):
        if not os.path.exists(path):
            return f'{path} is missing' + (' (package openssh-sftp-server)' if path == SFTP_SERVER else '')
    for program, package in (('sshfs', 'sshfs'), ('busybox', 'busybox-static'), ('ip', 'iproute2'), ('mke2fs', 'e2fsprogs')):
        if not shutil.which(program):
            return f'{program} is missing (package {package})'
    return ''


def _run(argv, what):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Refusal(f'{what}: {done.stdout.strip()[-300:] or argv[0] + " failed"}')


class PeerVm:
    """The VM, and the mount of its disk at `mount`. `like`: the domain that it is to be equal to."""

    def __init__(self, work, accelerator):
        why = why_not()
        if why:
            raise Refusal(f'no driver domain: {why}')
        sys.path.insert(0, os.path.join(TOP, 'kvm'))
        import start as kvm_start
        self.kvm = kvm_start
        self.work = os.path.join(work, 'peer')
        self.mount = os.path.join(self.work, 'mnt')
        self.vm, self.sshfs = None, None
        number = os.getpid() % 16384
        self.tap = f'scb{number}'
        net = f'198.18.{number >> 6}.{(number & 63) << 2}'.rsplit('.', 1)  # of the block that is set aside for benchmarks
        self.host, self.guest = (f'{net[0]}.{int(net[1]) + i}' for i in (1, 2))
        os.makedirs(self.mount)
        try:
            self._start(accelerator)
            self._mount()
        except BaseException:
            self.close()
            raise

    def _start(self, accelerator):
        image, disk = os.path.join(self.work, 'image'), os.path.join(self.work, 'disk.img')
        _run([os.path.join(TOP, 'kvm', 'build-image.sh'), '--role', 'peer', '--role-list', os.path.join(HERE, 'peer.modules'),
              '--debug-shell', '--agent', os.path.join(HERE, 'peer-agent.sh'), '--program', SFTP_SERVER, '--program',
              find('scbench-work', 'bench/scbench-work'), '--out', image], 'image of the driver domain')
        with open(disk, 'wb') as f:
            f.truncate(2 << 30)
        _run(['mke2fs', '-q', '-F', '-t', 'ext4', '-m', '0', disk], 'disk of the driver domain')
        vm = self.kvm.Vm(
            name='scbench-peer', qemu=_qemu(), image=image, role='peer', disk=disk, accel=accelerator, vcpus=1, on_agent_exit='poweroff',
            append=f'sc.agent.address={self.guest}', console_log=os.path.join(self.work, 'console.log'),
            qemu_log=os.path.join(self.work, 'qemu.log'), pid_file=os.path.join(self.work, 'qemu.pid'),
            qmp_socket=os.path.join('/tmp', f'{self.tap}.qmp'),
            extra_args=['-netdev', f'tap,id=n0,ifname={self.tap},script=no,downscript=no',
                        '-device', 'virtio-net-pci,netdev=n0,disable-legacy=on'])
        self.pid, choice = self.kvm.start(vm)
        self.vm, self.accelerator = vm, choice.accel
        _run(['ip', 'address', 'add', f'{self.host}/30', 'dev', self.tap], 'address of the tap device')
        _run(['ip', 'link', 'set', self.tap, 'up'], 'tap device')
        self._wait_for(WORK_PORT)

    def _wait_for(self, port):
        end = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                socket.create_connection((self.guest, port), 2).close()
                return
            except OSError:
                if time.monotonic() > end or not self.kvm.running_pid(self.vm):
                    raise Refusal(f'the driver domain does not answer at {self.guest}: {self._console()}') from None
                time.sleep(0.2)

    def _console(self):
        try:
            with open(os.path.join(self.work, 'console.log'), encoding='utf-8', errors='replace') as f:
                return ' / '.join(f.read().split('\n')[-4:])
        except OSError:
            return 'it wrote nothing'

    def _mount(self):
        argv = ['sshfs', '-f', '-o', f'directport={SFTP_PORT}', f'{self.guest}:/export', self.mount]
        self.sshfs = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 30
        while not os.path.ismount(self.mount):
            if self.sshfs.poll() is not None or time.monotonic() > end:
                self.sshfs.kill()
                raise Refusal(f'sshfs does not mount the driver domain: {self.sshfs.stderr.read().strip() or "no answer"}')
            time.sleep(0.05)

    def pin(self, cpus):
        """Moves all threads of the VM to these CPUs."""
        for tid in os.listdir(f'/proc/{self.pid}/task'):
            os.sched_setaffinity(int(tid), cpus)

    def nice(self, value):
        """Gives VM and sshfs this nice value."""
        for pid in (self.pid, self.sshfs.pid):
            for tid in os.listdir(f'/proc/{pid}/task'):
                os.setpriority(os.PRIO_PROCESS, int(tid), value)

    def close(self):
        if self.sshfs:
            subprocess.run(['umount', '-l', self.mount], check=False, stderr=subprocess.DEVNULL)
            try:
                self.sshfs.wait(5)
            except subprocess.TimeoutExpired:
                self.sshfs.kill()
                self.sshfs.wait()
            self.sshfs.stderr.close()
        if self.vm:
            self.kvm.stop(self.vm, 0)


def _qemu():
    sys.path.insert(0, os.path.join(TOP, 'libvirt-xml'))
    from scctl_common import Refusal as ScctlRefusal, find_qemu
    try:
        return os.path.realpath(find_qemu())
    except ScctlRefusal as err:
        raise Refusal(str(err)) from None


class GuestHelper:
    """scbench-work inside the guest: as scbench_run.Helper, over TCP."""

    def __init__(self, peer):
        self.peer = peer
        self.pid = 0
        self.sock = socket.create_connection((peer.guest, WORK_PORT), 10)
        self.sock.settimeout(None)
        self.stream = self.sock.makefile('r', encoding='utf-8')

    def send(self, command, count, args=()):
        """Sends a request; receive() has its answer."""
        self.line = ' '.join([command, str(count), *args])
        self.before = process_clock(self.peer.pid)
        self.sock.sendall((self.line + '\n').encode())

    def receive(self):
        """The answer; its CPU time is the whole VM's since the request was sent."""
        text = self.stream.readline()
        if not text:
            raise Refusal(f'scbench-work in the driver domain ended at "{self.line}"')
        answer = json.loads(text)
        if 'error' in answer:
            raise Refusal(f'"{self.line}" in the driver domain failed: {answer["error"]}')
        return dict(answer, app_ns=0, broker_ns=0, agent_ns=int((process_clock(self.peer.pid) - self.before) * 1e9))

    def ask(self, command, count, args=()):
        """One request; returns the answer."""
        self.send(command, count, args)
        return self.receive()

    def close(self):
        self.stream.close()
        self.sock.close()


class PingHelper:
    """A cache line that goes to and fro between this host and the guest: the floor under every call to a VM.

    scbench-work in the guest answers in a page of its memory, which the host maps: it is a file that QEMU holds. Nothing of ours is
    between them. `host`: a scbench-work on the application's CPU.
    """

    def __init__(self, peer, host):
        self.guest, self.host = GuestHelper(peer), host
        self.pid = host.pid
        self.memory = _memory_of(peer.pid)

    def ask(self, _command, count, _args=()):
        """COUNT round trips."""
        page = int(self.guest.ask('share', 1)['extra']['pfn'])
        self.guest.send('pong', count)
        answer = self.host.ask('ping', count, [self.memory, str(page)])
        return dict(answer, agent_ns=self.guest.receive()['agent_ns'], broker_ns=0)

    def close(self):
        self.guest.close()
        self.host.close()


def _memory_of(pid):
    """The file that is a guest's memory, as a path."""
    folder = f'/proc/{pid}/fd'
    for name in os.listdir(folder):
        try:
            if 'memory-backend-memfd' in os.readlink(os.path.join(folder, name)):
                return os.path.join(folder, name)
        except OSError:
            continue
    raise Refusal('the memory of the driver domain is no file that this host can map')
