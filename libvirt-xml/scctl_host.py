# SPDX-License-Identifier: BSD-3-Clause
"""What this host is: CPUs, NUMA nodes, huge pages, io_uring, which CPUs a service domain should be pinned to.

Everything is read from below a root directory (default /), so that tests can show another host.
"""

import ctypes
import errno
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field

from scctl_common import MIB, Usage, parse_cpus, read_text, show_cpus


class Host:
    """Facts about the host, read when asked for.

    root: the directory that stands for "/" (tests).
    """

    def __init__(self, root='/'):
        self.root = root

    def text(self, path, default=None):
        """The text of an absolute path on this host, or `default`."""
        return read_text(os.path.join(self.root, path.lstrip('/')), default)

    def cpus(self):
        """CPUs that are online."""
        listed = self.text('/sys/devices/system/cpu/online')
        return parse_cpus(listed, 'online CPUs') if listed else list(range(os.cpu_count() or 1))

    def isolated(self):
        """CPUs that the scheduler leaves alone (isolcpus=)."""
        listed = self.text('/sys/devices/system/cpu/isolated')
        return [cpu for cpu in parse_cpus(listed, 'isolated CPUs') if cpu in self.cpus()] if listed else []

    def nodes(self):
        """NUMA nodes with CPUs: {node: [cpu, ...]}."""
        base = '/sys/devices/system/node'
        listed = self.text(base + '/has_cpu')
        result = {}
        for node in parse_cpus(listed, 'NUMA nodes') if listed else []:
            cpus = self.text(f'{base}/node{node}/cpulist')
            if cpus:
                result[node] = parse_cpus(cpus, 'node')
        return result

    def hugepages(self, size):
        """(all, free) huge pages of `size` bytes; (0, 0) if there are none of this size."""
        base = f'/sys/kernel/mm/hugepages/hugepages-{size // 1024}kB'
        return int(self.text(base + '/nr_hugepages', '0')), int(self.text(base + '/free_hugepages', '0'))

    def hugepage_sizes(self):
        """Sizes in bytes that the kernel knows, smallest first."""
        try:
            names = os.listdir(os.path.join(self.root, 'sys/kernel/mm/hugepages'))
        except OSError:
            return []
        return sorted(int(name[len('hugepages-'):-len('kB')]) * 1024 for name in names)

    def sysctl(self, name):
        """A sysctl's text, or None."""
        return self.text('/proc/sys/' + name.replace('.', '/'))

    def memory_mib(self):
        """Memory of the host in MiB."""
        for line in (self.text('/proc/meminfo') or '').splitlines():
            if line.startswith('MemTotal:'):
                return int(line.split()[1]) // 1024
        return 0


@dataclass
class Pinning:
    """Which host CPUs the threads of a domain run on. Empty lists: wherever the scheduler likes."""

    vcpus: list = field(default_factory=list)     # one CPU for each vCPU
    emulator: list = field(default_factory=list)  # QEMU's main loop
    iothread: list = field(default_factory=list)  # the disk's thread
    node: int = -1                                # NUMA node of all of them, -1: not one node
    why: str = ''                                 # one line for people


def choose_pinning(host, vcpus, wish):
    """Pinning for `vcpus` vCPUs. wish: 'auto', 'none' or a CPU list (one for each vCPU, in that order).

    A poller spins on its vCPU: two of them on one CPU, or one on the CPU of the application that waits for it, cost a
    scheduler's time slice per call. So each vCPU gets a CPU of its own; isolated CPUs first, else from the highest
    down, which leaves CPU 0, where interrupts go, to the host. QEMU's own threads get what is left.
    """
    if wish == 'none':
        return Pinning(why='not pinned, as asked for')
    online = host.cpus()
    if wish != 'auto':
        chosen = parse_cpus(wish, '--pin')
        missing = [cpu for cpu in chosen if cpu not in online]
        if missing:
            raise Usage(f'--pin {wish}: this host has no CPU {show_cpus(missing)}; it has {show_cpus(online)}')
        if len(chosen) < vcpus:
            raise Usage(f'--pin {wish}: {len(chosen)} CPUs for {vcpus} vCPUs: name one for each, or use --vcpus '
                        f'{len(chosen)}')
        return _around(host, online, chosen[:vcpus], 'as asked for')
    if len(online) <= vcpus:
        return Pinning(why=f'not pinned: {vcpus} vCPUs would take all {len(online)} CPUs of this host')
    isolated = host.isolated()
    if len(isolated) >= vcpus:
        return _around(host, online, isolated[-vcpus:], 'on isolated CPUs')
    for cpus in host.nodes().values():
        free = [cpu for cpu in cpus if cpu in online and cpu != online[0]]
        if len(free) >= vcpus:
            return _around(host, online, free[-vcpus:], 'from the highest CPU down')
    return _around(host, online, online[-vcpus:], 'from the highest CPU down')


def _around(host, online, chosen, why):
    """Pinning with vCPUs on `chosen`: finds their node and places QEMU's threads beside them."""
    nodes = host.nodes()
    node = next((n for n, cpus in nodes.items() if set(chosen) <= set(cpus)), -1) if len(nodes) > 1 else -1
    near = nodes[node] if node >= 0 else online
    isolated = host.isolated()
    rest = ([cpu for cpu in near if cpu not in chosen and cpu not in isolated and cpu in online]
            or [cpu for cpu in online if cpu not in chosen] or online)
    return Pinning(chosen, rest, rest, node, f'vCPUs {why}: CPU {show_cpus(chosen)}; QEMU on {show_cpus(rest)}'
                   + (f'; NUMA node {node}' if node >= 0 else ''))


def default_vcpus(host):
    """vCPUs of a domain that does not say: half of the host's CPUs, 1 to 4."""
    return max(1, min(4, len(host.cpus()) // 2))


_SYS_IO_URING_SETUP = 425


def io_uring_refusal(host):
    """Why the host's kernel refuses io_uring to unprivileged programs such as QEMU; '' if it does not."""
    setting = host.sysctl('kernel.io_uring_disabled') or '0'
    if setting != '0':
        return f'kernel.io_uring_disabled is {setting}'
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(120)
    fd = libc.syscall(_SYS_IO_URING_SETUP, 1, params)
    if fd >= 0:
        os.close(fd)
        return ''
    return f'io_uring_setup: {os.strerror(ctypes.get_errno())}'


def _qemu_takes(qemu, arguments):
    """True if this QEMU starts with these arguments: tried, not guessed."""
    try:
        done = subprocess.run([qemu, '-machine', 'none', '-nodefaults', '-display', 'none', *arguments, '-monitor', 'stdio'],
                              input='quit\n', capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def qemu_has_io_uring(qemu):
    """True if this QEMU can open a file with io_uring here."""
    with tempfile.NamedTemporaryFile() as file:
        node = json.dumps({'driver': 'file', 'filename': file.name, 'aio': 'io_uring', 'node-name': 'probe'})
        return _qemu_takes(qemu, ['-blockdev', node])


def qemu_has_numa(qemu):
    """True if this QEMU can ask for memory of a NUMA node (it was built with libnuma)."""
    return _qemu_takes(qemu, ['-object', 'memory-backend-memfd,id=probe,size=2M,host-nodes=0,policy=preferred'])


HALT_POLL = '/sys/module/kvm/parameters/halt_poll_ns'


def halt_polling(host, dedicated):
    """How a vCPU without work waits, in one line. dedicated: the vCPUs have isolated CPUs to themselves."""
    if dedicated:
        return 'the guest polls before it halts (poll-control), for its CPUs are its own; the host need not'
    poll = host.text(HALT_POLL)
    if not poll:
        return f'not known ({HALT_POLL} cannot be read)'
    if poll == '0':
        return 'off: each wake-up of a vCPU costs more'
    return f'the host polls for up to {int(poll) // 1000} us before it halts a vCPU ({HALT_POLL})'


def takes_direct_io(path):
    """True if the file (or device) at `path` can be opened with O_DIRECT: some file systems refuse."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as err:
        if err.errno == errno.EINVAL:
            return False
        raise
    return True


def hugepages_enough(host, size, need_mib):
    """Whether `need_mib` MiB of free huge pages of `size` bytes are there."""
    return host.hugepages(size)[1] * size >= need_mib * MIB
