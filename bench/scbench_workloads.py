# SPDX-License-Identifier: BSD-3-Clause
"""scbench_workloads.py - what a workload is, and the list of all. Data only: scbench_run.py carries it out.

The workloads themselves are in catalog_*.py, one file a group. A workload has sides: 'ours' and its base cases. A side says which
helper is asked (see HELPERS) and what. In arguments, {d} is the directory of that side (on the domain for those under scrun, on the
host otherwise), {api} the same directory as the C API names it, {scrun} the words that start a program under scrun, {local} a host
directory, {seed} the run's seed.
"""

from dataclasses import dataclass, field

KIB, MIB = 1024, 1024 * 1024

GROUPS = ('ring', 'storage', 'network', 'process', 'failover')

DATA_BYTES = 32 * MIB


@dataclass(frozen=True)
class Kind:
    """A helper process: a program, where it runs, and whether it is moved to the application's CPU.

    where: 'host'; 'scrun' (on the host, under scrun); 'sshfs' (on the host, on files of the driver domain); 'guest' (inside the
    driver domain's VM); 'ping' (on the host and inside that VM); 'net' (with sockets as scbench_net.py says); 'redis', 'nginx' (the same of such a server); 'fio' (no process of ours: the program is started for each sample and tells its own figures).
    """
    program: str
    where: str = 'host'
    pinned: bool = False
    options: tuple = ()


HELPERS = {
    'native': Kind('scbench-work'),
    'native-pinned': Kind('scbench-work', pinned=True),
    'scrun': Kind('scbench-work', 'scrun'),
    'scrun-pinned': Kind('scbench-work', 'scrun', pinned=True),
    'ring': Kind('scbench-ring', pinned=True),
    'ring-free': Kind('scbench-ring'),
    'ring-sleepy': Kind('scbench-ring', pinned=True, options=('--sleepy',)),
    'uring': Kind('scbench-uring', pinned=True),
    'uring-free': Kind('scbench-uring'),
    'sshfs': Kind('scbench-work', 'sshfs'),
    'guest': Kind('scbench-work', 'guest'),
    'ping': Kind('scbench-work', 'ping', pinned=True),
    'fio': Kind('fio', 'fio'),
    'net': Kind('scbench-work', 'net'),
    'netns': Kind('scbench-work', 'net'),
    'netlocal': Kind('scbench-work', 'net'),
    'redis-net': Kind('redis-server', 'redis'),
    'redis-netns': Kind('redis-server', 'redis'),
    'redis-netlocal': Kind('redis-server', 'redis'),
    'nginx-net': Kind('nginx', 'nginx'),
    'nginx-netns': Kind('nginx', 'nginx'),
    'nginx-netlocal': Kind('nginx', 'nginx'),
}
# Peers that are the same guest without us: a VM of its own, for runs on a VM.
PEER_VM = ('sshfs', 'guest')
# All that take that VM.
NEED_VM = PEER_VM + ('ping',)
# Base cases that a machine may be unable to run: left out with the reason.
PEERS = ('uring', 'uring-free', 'ping') + PEER_VM


@dataclass
class Side:
    """One of the things that are compared: `command COUNT args…` sent to `helper`."""
    helper: str
    command: str
    args: tuple = ()
    title: str = ''
    before: tuple = ()  # of (command, args…): sent with count 1 before each sample, not timed


@dataclass
class Workload:
    """One figure, and the base cases that it is compared with."""
    name: str
    group: str
    title: str
    why: str
    ours: Side
    bases: dict = field(default_factory=dict)  # name: Side
    bars: dict = field(default_factory=dict)   # base: largest time ratio that issue 5 allows, or '+20' for nanoseconds more
    quick: bool = False
    what: str = 'time'   # 'time': time of an operation; 'cpu': CPU time of all parties per second that passes; 'failover'
    size: int = 0        # bytes of an operation, if it moves data
    sample_ms: int = 0   # length of a sample; 0: the run's
    count: int = 0       # operations of a sample; 0: as many as fill sample_ms
    needs: str = ''      # a program without which it is left out
    cpu_bar: float = 0   # for 'cpu': the most, in % of one core
    series: str = ''     # workloads that make one curve: see SERIES
    x: int = 0           # where on the curve
    pinned: bool = False  # the domain's threads are moved to the CPU that is theirs
    bells: bool = False  # notifications are counted
    share: bool = False  # a program: which share of its calls is served remotely is counted

    def sides(self):
        """{'ours': Side, base: Side, …}"""
        return {'ours': self.ours, **self.bases}


@dataclass(frozen=True)
class Series:
    """A curve: what its axes are. y: 'time' (ns of an operation) or 'rate' (MiB/s of `size` bytes an operation)."""
    title: str
    x_title: str
    y: str = 'time'
    x_bytes: bool = False


SERIES = {
    'batch': Series('Null calls by depth of batch', 'calls submitted together'),
    'null-threads': Series('Null calls through hostsc.h by number of threads', 'threads that call at once'),
    'threads': Series('lseek on a remote file by number of threads', 'threads that call at once'),
    'procs': Series('lseek on a remote file by number of processes', 'processes that call at once'),
    'read': Series('Cached pread by size', 'size of a call', 'rate', True),
    'write': Series('Buffered pwrite by size', 'size of a call', 'rate', True),
    'dread': Series('pread with O_DIRECT by size', 'size of a call', 'rate', True),
    'dwrite': Series('pwrite with O_DIRECT by size', 'size of a call', 'rate', True),
    'depth': Series('Cached reads of 4 KiB by number under way', 'requests under way'),
    'ddepth': Series('Reads of 4 KiB with O_DIRECT by number under way', 'requests under way'),
    'fio': Series('fio: random reads of 4 KiB with O_DIRECT by number of jobs', 'jobs'),
    'netrr': Series('TCP request and answer by size', 'size of request and answer', x_bytes=True),
    'nettx': Series('TCP stream sent, by size of a call', 'size of a call', 'rate', True),
    'netrx': Series('TCP stream received, by size of a call', 'size of a call', 'rate', True),
    'netconns': Series('TCP request and answer by number of connections', 'connections'),
    'read-threads': Series('Cached pread of 4 KiB by number of threads', 'threads that call at once'),
    'read-procs': Series('Cached pread of 4 KiB by number of processes', 'processes that call at once'),
}


def size_text(n):
    """4096 -> '4 KiB'"""
    for unit, one in (('MiB', MIB), ('KiB', KIB)):
        if n >= one and n % one == 0:
            return f'{n // one} {unit}'
    return f'{n} B'


def same(command, args, title, peers=()):
    """The same request under scrun and natively, and by the peers named."""
    bases = {'native': Side('native', command, args, title)}
    titles = {'sshfs': 'driver domain (sshfs)', 'guest': 'inside the guest'}
    bases.update({p: Side(p, command, args, titles[p]) for p in peers})
    return Side('scrun', command, args), bases


def workloads():
    """All of them, in the order in which they are run."""
    import catalog_failover  # they need this module's names
    import catalog_network
    import catalog_process
    import catalog_ring
    import catalog_storage
    return [w for part in (catalog_ring, catalog_storage, catalog_network, catalog_process, catalog_failover) for w in part.workloads()]


def select(what):
    """Those of 'quick', 'all' or a group. Raises KeyError for any other word."""
    if what == 'all':
        return workloads()
    if what == 'quick':
        return [w for w in workloads() if w.quick]
    if what not in GROUPS:
        raise KeyError(what)
    return [w for w in workloads() if w.group == what]
