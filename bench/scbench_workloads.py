# SPDX-License-Identifier: BSD-3-Clause
"""scbench_workloads.py - what scbench measures, why, and against what. Data only: scbench_run.py carries it out.

A workload has sides: 'ours' and its base cases. A side says which helper is asked (see HELPERS) and what. In arguments, {d} is the
directory of that side (on the domain for those under scrun, on the host otherwise), {api} the same directory as the C API names
it, {scrun} the words that start a program under scrun, {local} a host directory, {seed} the run's seed.
"""

from dataclasses import dataclass, field

KIB, MIB = 1024, 1024 * 1024

GROUPS = ('ring', 'storage', 'process')

# Helper processes: program, under scrun, pinned to the application's CPU.
HELPERS = {
    'native': ('scbench-work', False, False),
    'native-pinned': ('scbench-work', False, True),
    'scrun': ('scbench-work', True, False),
    'scrun-pinned': ('scbench-work', True, True),
    'ring': ('scbench-ring', False, True),
    'ring-sleepy': ('scbench-ring', False, True),
}


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
    what: str = 'time'   # 'time': time of an operation; 'cpu': CPU time of all parties per second that passes
    size: int = 0        # bytes of an operation, if it moves data
    sample_ms: int = 0   # length of a sample; 0: the run's
    count: int = 0       # operations of a sample; 0: as many as fill sample_ms
    needs: str = ''      # a program without which it is left out
    cpu_bar: float = 0   # for 'cpu': the most, in % of one core
    series: str = ''     # workloads that make one curve

    def sides(self):
        """{'ours': Side, base: Side, …}"""
        return {'ours': self.ours, **self.bases}


def size_text(n):
    """4096 -> '4 KiB'"""
    for unit, one in (('MiB', MIB), ('KiB', KIB)):
        if n >= one and n % one == 0:
            return f'{n // one} {unit}'
    return f'{n} B'


DATA_BYTES = 32 * MIB
GETPPID = Side('native-pinned', 'getppid', title='native getppid')
FLOOR = Side('native-pinned', 'floor', title='cache-line floor')


def _ring():
    yield Workload(
        'null', 'ring', 'null call, one at a time, both sides spinning, through hostsc.h',
        'the price of crossing to the domain and back, with no work at the other end: everything else is on top of it. The floor '
        'is what the two CPUs take to hand a cache line to and fro; getppid is what the kernel takes for a call.',
        Side('ring', 'null'), {'floor': FLOOR, 'getppid': GETPPID}, {'floor': 2.0, 'getppid': 0.8}, quick=True)
    yield Workload(
        'lseek-remote', 'ring', 'lseek on a remote file by an unmodified program',
        'the null call with all that interception, descriptors and routing add: lseek asks the domain for a number and nothing else.',
        Side('scrun-pinned', 'lseek', ('{d}/data',)),
        {'floor': FLOOR, 'getppid': GETPPID, 'native': Side('native-pinned', 'lseek', ('{d}/data',), 'native lseek')},
        {'floor': 2.5, 'getppid': 1.0}, quick=True)
    yield Workload(
        'getppid-local', 'ring', 'getppid under scrun: a call that stays local',
        'every call of the program passes our dispatcher, most have nothing to do with the domain; this is what they pay.',
        Side('scrun-pinned', 'getppid'), {'getppid': GETPPID}, {'getppid': '+20'}, quick=True)
    for depth in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        yield Workload(
            f'batch-{depth}', 'ring', f'null calls, {depth} submitted together, through hostsc.h',
            'many calls share one crossing: what a program gains that can say ahead of time what it wants.',
            Side('ring', 'batch', (str(depth),)), {'getppid': GETPPID}, {'getppid': 0.1} if depth == 32 else {},
            quick=depth in (1, 8, 32, 256), series='batch')
    eventfd = Side('native-pinned', 'eventfd', ('1000',), 'eventfd ping-pong of two processes')
    yield Workload(
        'null-asleep', 'ring', 'null call when caller and agent both sleep',
        'a call after a pause in which the agent fell asleep, by a caller that never spins (it may run on one CPU only): two '
        'wake-ups. The base case is the least that two processes can do to wake each other twice.',
        Side('ring-sleepy', 'pause', ('1000',)), {'eventfd': eventfd}, {'eventfd': 2.0}, quick=True, count=40)
    yield Workload(
        'null-paused', 'ring', 'null call after a pause, waiting as the library sees fit',
        'the same with the caller\'s usual waiting: it spins first, and sleeps if that lasts.',
        Side('ring', 'pause', ('1000',)), {'eventfd': eventfd}, quick=True, count=40)
    yield Workload(
        'read-4k-pinned', 'ring', 'pread of 4 KiB from the page cache, application and agent each on a CPU of its own',
        'the commonest call that moves data, on the same CPUs as the null call: what is above it is the copy and the lookup.',
        Side('scrun-pinned', 'read', ('4096', '{d}/data')),
        {'native': Side('native-pinned', 'read', ('4096', '{d}/data'), 'native pread')}, {'native': 1.11}, quick=True,
        size=4 * KIB)
    yield Workload(
        'idle', 'ring', 'CPU of agent, VM, broker and an attached process when nobody calls',
        'spinning is only honest if it ends: CPU time that passes in all of them while an attached process sleeps. No base case: '
        'without a domain it is nothing.',
        Side('ring', 'idle'), quick=True, what='cpu', count=1000, cpu_bar=1.0)


def _both(command, args, title):
    """The same request under scrun and natively."""
    return Side('scrun', command, args), {'native': Side('native', command, args, title)}


def _streams():
    sizes = [64 << 2 * i for i in range(10)]  # 64 B to 16 MiB
    quick = (64, 4 * KIB, 64 * KIB, MIB, 16 * MIB)
    for kind, call in (('read', 'pread'), ('write', 'pwrite')):
        for size in sizes:
            bars = {4 * KIB: 1.11} if kind == 'read' else {}
            bars[MIB] = 1.43
            ours, bases = _both(kind, (str(size), '{d}/data'), f'native {call}')
            yield Workload(
                f'{kind}-{size}', 'storage', f'{call} of {size_text(size)}, in the page cache, in file order',
                'calls and copies without a disk: small sizes show the price of a call, large ones that of a copy. The whole '
                'range, because a curve that ends early hides where it falls off.',
                ours, bases, {'native': bars[size]} if size in bars else {}, quick=size in quick, size=size, series=kind)


def _api():
    for size, depth, bar in ((4 * KIB, 32, 0.83), (MIB, 4, 1.0)):
        yield Workload(
            f'api-read-{size}', 'storage', f'reads of {size_text(size)} from the page cache into shared buffers, {depth} under way',
            'what the C API adds to plain calls: no copy on the host, and several requests at once.',
            Side('ring', 'read', (str(size), str(depth), str(DATA_BYTES), '{api}/data')),
            {'native': Side('native', 'read', (str(size), '{d}/data'), 'native pread')}, {'native': bar}, quick=True, size=size)


def _names():
    for name, command, args, title, why, bar in (
            ('stat', 'stat', ('{d}/data',), 'stat of a hot path', 'the commonest call of build tools and version control', 1.5),
            ('open', 'open', ('{d}/data',), 'open and close of a hot path', 'a descriptor, a handle and a ticket each time', 0),
            ('create', 'create', ('{d}/names',), 'create and close a new file', 'changes a directory: journal work at the far end', 0),
            ('rename', 'rename', ('{d}/names',), 'rename a file within a directory', 'two paths in one call', 0),
            ('unlink', 'unlink', ('{d}/names',), 'remove a file', 'the third of the classic metadata operations', 0)):
        ours, bases = _both(command, args, f'native {name}')
        yield Workload(name, 'storage', title, why + '.', ours, bases, {'native': bar} if bar else {}, quick=True)
    ours, bases = _both('fsync', ('4096', '{d}/data'), 'native pwrite and fsync')
    yield Workload('fsync', 'storage', 'pwrite of 4 KiB, then fsync',
                   'bound by the disk below: here spinning cannot help, and the way to the disk shows.', ours, bases, quick=True,
                   sample_ms=100)


def _spawn(argv, before, title):
    """A program run to its end, under scrun and natively. `before`: shell command run first, on the same side, not timed."""
    sides = []
    for prefix in (('{scrun}',), ()):
        prepare = (('spawn',) + prefix + ('sh',) + tuple(before.split()),) if before else ()
        sides.append(Side('native', 'spawn', prefix + argv, title, prepare))
    return sides[0], {'native': sides[1]}


def _programs():
    for name, script, title, why in (
            ('sqlite-insert', 'insert.sql', 'sqlite3: 2000 inserts in one transaction',
             'a program that does much itself and calls little: what scrun costs where it should cost nothing'),
            ('sqlite-commit', 'commit.sql', 'sqlite3: 20 transactions of one insert, with a rollback journal',
             'create, write, fsync, unlink for every transaction: a database workload that does reach the domain')):
        ours, bases = _spawn(('sqlite3', '-bail', '-init', '{local}/' + script, '{d}/app.db', '.quit'), '{local}/reset-db {d}', 'native sqlite3')
        yield Workload(name, 'storage', title, why + '.', ours, bases, quick=name == 'sqlite-commit', count=1, needs='sqlite3')
    ours, bases = _spawn(('tar', '-xf', '{local}/tree.tar', '-C', '{d}/untar'), '{local}/reset-untar {d}', 'native tar')
    yield Workload('untar', 'storage', 'tar -x of a generated tree of 400 files in 40 directories',
                   'many small files made one after another: the metadata path of a real program.', ours, bases, quick=True, count=1,
                   needs='tar')
    ours, bases = _spawn(('git', '-C', '{d}/repo', 'status', '--porcelain'), '', 'native git')
    yield Workload('git-status', 'storage', 'git status in a repository of 400 files',
                   'hundreds of stats by a program people wait for.', ours, bases, quick=True, count=1, needs='git')
    ours, bases = _spawn(('fio', '--name=r', '--filename={d}/data', '--ioengine=psync', '--rw=randread', '--bs=4k', '--size=32m',
                          '--io_size=64m', '--randseed={seed}', '--invalidate=0', '--fallocate=none'), '', 'native fio')
    yield Workload('fio-randread-4k', 'storage', 'fio (psync): 64 MiB of random 4 KiB reads of a cached file, start to end',
                   'a tool that others wrote and know; its start-up is in the time.', ours, bases, count=1, needs='fio')


def _process():
    yield Workload('start', 'process', 'scrun --storage … -- /bin/true, start to end', 'what putting scrun before a command costs.',
                   Side('native', 'spawn', ('{scrun}', '/bin/true')),
                   {'native': Side('native', 'spawn', ('/bin/true',), 'native /bin/true')}, quick=True)
    for name, title, why, bar in (
            ('fork', 'fork a child that ends at once', 'the child is a process of its own, with a channel of its own if it needs one', 1.5),
            ('exec', 'fork a child that executes /bin/true', 'the library starts anew in every executed program', 2.0),
            ('sh', 'fork a child that executes sh -c :', 'what scripts and make do all day', 2.0),
            ('pipe', 'a byte to another process and back, by pipes', 'blocking calls that stay local', 0),
            ('thread', 'start and join a thread', 'each thread has its own state in the library', 0)):
        ours, bases = _both(name, (), f'native {name}')
        yield Workload(name, 'process', title, why + '.', ours, bases, {'native': bar} if bar else {}, quick=True)


def workloads():
    """All of them, in the order in which they are run."""
    return [w for part in (_ring, _streams, _api, _names, _programs, _process) for w in part()]


def select(what):
    """Those of 'quick', 'all' or a group. Raises KeyError for any other word."""
    if what == 'all':
        return workloads()
    if what == 'quick':
        return [w for w in workloads() if w.quick]
    if what not in GROUPS:
        raise KeyError(what)
    return [w for w in workloads() if w.group == what]
