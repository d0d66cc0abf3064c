# SPDX-License-Identifier: BSD-3-Clause
"""catalog_ring.py - workloads of the group ring: what it costs to hand a call over, alone and many at once, awake and asleep."""

from scbench_workloads import Side, Workload, same

GETPPID = Side('native-pinned', 'getppid', title='native getppid')
FLOOR = Side('native-pinned', 'floor', title='cache-line floor')
MANY = (1, 2, 4, 8, 16, 32, 64)
DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def _one():
    yield Workload(
        'null', 'ring', 'null call, one at a time, both sides spinning, through hostsc.h',
        'the price of crossing to the domain and back, with no work at the other end: everything else is on top of it. The floor '
        'is what the two CPUs take to hand a cache line to and fro; getppid is what the kernel takes for a call; io_uring with a '
        'polling kernel thread on the domain\'s CPU is the kernel\'s own way to make a call without entering it; the ping-pong with the '
        'guest (on a VM) is a cache line that a program in the same guest hands back: the floor there.',
        Side('ring', 'null'), {'floor': FLOOR, 'getppid': GETPPID, 'uring': Side('uring', 'null', title='io_uring SQPOLL nop'),
                              'ping': Side('ping', 'ping', title='shared-memory ping-pong with the guest')},
        {'floor': 2.0, 'getppid': 0.8, 'ping': 4.0}, quick=True, bells=True)
    yield Workload(
        'lseek-remote', 'ring', 'lseek on a remote file by an unmodified program',
        'the null call with all that interception, descriptors and routing add: lseek asks the domain for a number and nothing else.',
        Side('scrun-pinned', 'lseek', ('{d}/data',)),
        {'floor': FLOOR, 'getppid': GETPPID, 'native': Side('native-pinned', 'lseek', ('{d}/data',), 'native lseek')},
        {'floor': 2.5, 'getppid': 1.0}, quick=True, bells=True)
    yield Workload(
        'getppid-local', 'ring', 'getppid under scrun: a call that stays local',
        'every call of the program passes our dispatcher, most have nothing to do with the domain; this is what they pay.',
        Side('scrun-pinned', 'getppid'), {'getppid': GETPPID}, {'getppid': '+20'}, quick=True)


def _batches():
    for depth in DEPTHS:
        yield Workload(
            f'batch-{depth}', 'ring', f'null calls, {depth} submitted together, through hostsc.h',
            'many calls share one crossing: what a program gains that can say ahead of time what it wants. io_uring with SQPOLL gets '
            'the same two CPUs, spins likewise, and is asked for as many nops together.',
            Side('ring', 'batch', (str(depth),)),
            {'getppid': GETPPID, 'uring': Side('uring', 'batch', (str(depth),), 'io_uring SQPOLL nop')},
            {'getppid': 0.1} if depth == 32 else {}, quick=depth in (1, 8, 32, 256), series='batch', x=depth, bells=depth == 32)


def _asleep():
    eventfd = Side('native-pinned', 'eventfd', ('1000',), 'eventfd ping-pong of two processes')
    yield Workload(
        'null-asleep', 'ring', 'null call when caller and agent both sleep',
        'a call after a pause in which the agent fell asleep, by a caller that never spins (it may run on one CPU only): two '
        'wake-ups. The base case is the least that two processes can do to wake each other twice.',
        Side('ring-sleepy', 'pause', ('1000',)), {'eventfd': eventfd}, {'eventfd': 2.0}, quick=True, count=40, bells=True)
    yield Workload(
        'null-paused', 'ring', 'null call after a pause, waiting as the library sees fit',
        'the same with the caller\'s usual waiting: it spins first, and sleeps if that lasts. The same policy as in all other '
        'figures: nothing is tuned for one of them.',
        Side('ring', 'pause', ('1000',)), {'eventfd': eventfd}, quick=True, count=40, bells=True)
    yield Workload(
        'read-4k-pinned', 'ring', 'pread of 4 KiB from the page cache, application and agent each on a CPU of its own',
        'the commonest call that moves data, on the same CPUs as the null call: what is above it is the copy and the lookup.',
        Side('scrun-pinned', 'read', ('4096', '{d}/data')),
        {'native': Side('native-pinned', 'read', ('4096', '{d}/data'), 'native pread')}, {'native': 1.11}, quick=True,
        size=4096)
    yield Workload(
        'idle', 'ring', 'CPU of agent, VM, broker and an attached process when nobody calls',
        'spinning is only honest if it ends: CPU time that passes in all of them while an attached process sleeps. No base case: '
        'without a domain it is nothing.',
        Side('ring', 'idle'), quick=True, what='cpu', count=1000, cpu_bar=1.0, bells=True)


def _many():
    for n in MANY[:-1]:  # a channel of the usual size has lanes for 55 rings
        yield Workload(
            f'null-threads-{n}', 'ring', f'null calls by {n} threads at once, each with a ring of its own, through hostsc.h',
            'the same without interception: what of the cost of many callers is the rings\' and the poller\'s.',
            Side('ring-free', 'threads', (str(n),)), {'native': Side('native', 'threads', (str(n), 'getppid'), 'native getppid')},
            series='null-threads', x=n, bells=True)
    for kind, word in (('threads', 'threads of one process'), ('procs', 'processes, each with a channel of its own')):
        for n in MANY:
            ours, bases = same(kind, (str(n), 'lseek', '{d}/data'), 'native lseek')
            yield Workload(
                f'{kind}-{n}', 'ring', f'lseek on a remote file by {n} {word}, all at once (unmodified program)',
                'whether one poller serves many callers, what a call costs then, and what becomes of spinning when callers outnumber '
                'CPUs. The time is the wall\'s divided by the calls of all together; percentiles of single calls are beside it.',
                ours, bases, quick=n == 8, series=kind, x=n, bells=True)


# (name, shape, nodes, what they fill)
_SETS = (('l1', 'lines', 512, '32 KiB: a first-level cache'), ('l2', 'lines', 16384, '1 MiB: a second-level cache'),
         ('tlb1', 'pages', 64, '64 pages: a first-level TLB'), ('tlb2', 'pages', 1024, '1024 pages: a second-level TLB'))


def _pollution():
    for call, text in (('lseek', 'a null call (lseek)'), ('read', 'a pread of 4 KiB')):
        for name, shape, nodes, fills in _SETS:
            args = (shape, str(nodes), call, '{d}/data')
            yield Workload(
                f'pollute-{name}-{call}', 'ring', f'walk over {fills}, {text} between walks; the walk\'s time only',
                'what a call pushes out of the caller\'s caches and TLB. "alone": no call between walks; "native": the host kernel '
                'carries it out on this CPU. A call that is carried out elsewhere should leave more behind; the library\'s own '
                'footprint and the data that cross count against it.',
                Side('scrun-pinned', 'pollute', args),
                {'alone': Side('native-pinned', 'pollute', (shape, str(nodes), 'none'), 'walk alone'),
                 'native': Side('native-pinned', 'pollute', args, f'native {call}')}, quick=name == 'l1')


def workloads():
    for part in (_one, _batches, _asleep, _pollution):
        for w in part():
            w.pinned = True
            yield w
    yield from _many()
