# SPDX-License-Identifier: BSD-3-Clause
"""catalog_storage.py - workloads of the group storage: data, names, and programs that use both.

Where a driver domain or the guest itself can do the same, they are base cases as well (on a VM): the same guest, whose disk the host
reaches by a network file system, or which reaches it itself.
"""

from scbench_workloads import DATA_BYTES, KIB, MIB, PEER_VM, Side, Workload, same, size_text

SIZES = [64 << 2 * i for i in range(10)]         # 64 B to 16 MiB
DIRECT_SIZES = [4 * KIB << 2 * i for i in range(7)]  # 4 KiB (less is no whole block) to 16 MiB
DEPTHS = (1, 2, 4, 8, 16, 32, 64)


def _streams():
    quick = (64, 4 * KIB, 64 * KIB, MIB, 16 * MIB)
    for kind, call in (('read', 'pread'), ('write', 'pwrite')):
        for size in SIZES:
            bars = {4 * KIB: 1.11} if kind == 'read' else {}
            bars[MIB] = 1.43
            ours, bases = same(kind, (str(size), '{d}/data'), f'native {call}', PEER_VM)
            yield Workload(
                f'{kind}-{size}', 'storage', f'{call} of {size_text(size)}, in the page cache, in file order',
                'calls and copies without a disk: small sizes show the price of a call, large ones that of a copy. The whole '
                'range, because a curve that ends early hides where it falls off. (A driver domain\'s files are in the host\'s page cache, '
                'too: its cached reads are the host kernel\'s.)',
                ours, bases, {'native': bars[size]} if size in bars else {}, quick=size in quick, size=size, series=kind, x=size)


def _direct():
    for kind, call in (('read', 'pread'), ('write', 'pwrite')):
        for size in DIRECT_SIZES:
            ours, bases = same('io', (str(size), '{d}/data', kind, 'direct'), f'native {call}, O_DIRECT', PEER_VM)
            yield Workload(
                f'd{kind}-{size}', 'storage', f'{call} of {size_text(size)} with O_DIRECT, in file order',
                'the way to the disk and back, which no cache on either side shortens. From 4 KiB, since O_DIRECT takes whole blocks.',
                ours, bases, quick=size in (4 * KIB, MIB), size=size, series='d' + kind, x=size)
    for name, words, title in (('rread', ('read', 'random'), 'pread of 4 KiB at random places, in the page cache'),
                               ('rwrite', ('write', 'random'), 'pwrite of 4 KiB at random places, in the page cache'),
                               ('drread', ('read', 'random', 'direct'), 'pread of 4 KiB at random places with O_DIRECT'),
                               ('drwrite', ('write', 'random', 'direct'), 'pwrite of 4 KiB at random places with O_DIRECT')):
        ours, bases = same('io', ('4096', '{d}/data') + words, 'native', PEER_VM)
        yield Workload(name, 'storage', title, 'what databases do to their files; read-ahead and merging cannot help.', ours, bases,
                       quick=name == 'drread', size=4 * KIB)
    ours, bases = same('io', ('512', '{d}/log', 'write', 'append'), 'native', PEER_VM)
    yield Workload('append-512', 'storage', 'pwrite of 512 bytes at the end of a growing file', 'what logs do: each call changes the '
                   'file\'s size as well.', ours, bases, quick=True, size=512)


def _api():
    for kind, size, depth, bar in (('read', 4 * KIB, 32, 0.83), ('read', MIB, 4, 1.0), ('write', 4 * KIB, 32, 0), ('write', MIB, 4, 1.0)):
        bases = {'native': Side('native', kind, (str(size), '{d}/data'), f'native p{kind}')}
        if kind == 'read':
            bases['uring'] = Side('uring-free', 'read', (str(size), str(depth), str(DATA_BYTES), '{d}/data'), 'io_uring SQPOLL read')
        yield Workload(
            f'api-{kind}-{size}', 'storage', f'{kind}s of {size_text(size)} in the page cache by shared buffers, {depth} under way',
            'what the C API adds to plain calls: no copy on the host, and several requests at once.',
            Side('ring-free', kind, (str(size), str(depth), str(DATA_BYTES), '{api}/data')), bases, {'native': bar} if bar else {},
            quick=True, size=size)
    for series, words, text in (('depth', (), 'in the page cache'), ('ddepth', ('direct',), 'with O_DIRECT')):
        for depth in DEPTHS:
            native = ('4096', '{d}/data', 'read', *words)
            args = ('4096', str(depth), str(DATA_BYTES))
            yield Workload(
                f'{series}-{depth}', 'storage', f'reads of 4 KiB {text}, {depth} under way, through hostsc.h',
                'what having several requests under way brings. Natively pread has one; io_uring with SQPOLL has as many as we have.',
                Side('ring-free', 'read', (*args, '{api}/data', *words)),
                {'native': Side('native', 'io', native, 'native pread, one at a time'),
                 'uring': Side('uring-free', 'read', (*args, '{d}/data', *words), 'io_uring SQPOLL read')},
                series=series, x=depth, size=4 * KIB, quick=series == 'ddepth' and depth == 16)


def _many():
    for kind, word in (('threads', 'threads'), ('procs', 'processes')):
        for n in (1, 4, 16, 64):
            ours, bases = same(kind, (str(n), 'read', '{d}/data'), 'native pread')
            yield Workload(
                f'read-{kind}-{n}', 'storage', f'pread of 4 KiB from the page cache by {n} {word} at once',
                'concurrency where each call moves data: overhead has to be shown to fall, not said to.', ours, bases,
                {'native': 0.83} if (kind, n) == ('threads', 4) else {}, series=f'read-{kind}', x=n, size=4 * KIB, bells=True)


def _names():
    for name, command, args, title, why, bar in (
            ('stat', 'stat', ('{d}/data',), 'stat of a hot path', 'the commonest call of build tools and version control', 1.5),
            ('open', 'open', ('{d}/data',), 'open and close of a hot path', 'a descriptor, a handle and a ticket each time', 0),
            ('create', 'create', ('{d}/names',), 'create and close a new file', 'changes a directory: journal work at the far end', 0),
            ('rename', 'rename', ('{d}/names',), 'rename a file within a directory', 'two paths in one call', 0),
            ('unlink', 'unlink', ('{d}/names',), 'remove a file', 'the third of the classic metadata operations', 0)):
        ours, bases = same(command, args, f'native {name}', PEER_VM)
        yield Workload(name, 'storage', title, why + '.', ours, bases, {'native': bar} if bar else {}, quick=True)
    for size in (4 * KIB, 64 * KIB):
        ours, bases = same('fsync', (str(size), '{d}/data'), 'native pwrite and fsync', PEER_VM)
        yield Workload('fsync' if size == 4 * KIB else f'fsync-{size}', 'storage', f'pwrite of {size_text(size)}, then fsync',
                       'bound by the disk below: here spinning cannot help, and the way to the disk shows.', ours, bases,
                       quick=size == 4 * KIB, sample_ms=100, size=size)


def _spawn(argv, before, title, peer=True):
    """A program run to its end, under scrun, natively, and on the driver domain's files. `before`: run first, not timed."""
    def side(helper, prefix, text):
        prepare = (('spawn',) + prefix + ('sh',) + tuple(before.split()),) if before else ()
        return Side(helper, 'spawn', prefix + argv, text, prepare)
    bases = {'native': side('native', (), title)}
    if peer:
        bases['sshfs'] = side('sshfs', (), 'driver domain (sshfs)')
    return side('native', ('{scrun}',), ''), bases


def _programs():
    for name, script, title, why in (
            ('sqlite-insert', 'insert.sql', 'sqlite3: 2000 inserts in one transaction',
             'a program that does much itself and calls little: what scrun costs where it should cost nothing'),
            ('sqlite-commit', 'commit.sql', 'sqlite3: 20 transactions of one insert, with a rollback journal',
             'create, write, fsync, unlink for every transaction: a database workload that does reach the domain')):
        ours, bases = _spawn(('sqlite3', '-bail', '-init', '{local}/' + script, '{d}/app.db', '.quit'), '{local}/reset-db {d}', 'native sqlite3')
        yield Workload(name, 'storage', title, why + '.', ours, bases, quick=name == 'sqlite-commit', count=1, needs='sqlite3', share=True)
    ours, bases = _spawn(('tar', '-xf', '{local}/tree.tar', '-C', '{d}/untar'), '{local}/reset-untar {d}', 'native tar')
    yield Workload('untar', 'storage', 'tar -x of a generated tree of 400 files in 40 directories',
                   'many small files made one after another: the metadata path of a real program.', ours, bases, quick=True, count=1,
                   needs='tar', share=True)
    ours, bases = _spawn(('git', '-C', '{d}/repo', 'status', '--porcelain'), '', 'native git', peer=False)
    yield Workload('git-status', 'storage', 'git status in a repository of 400 files',
                   'hundreds of stats by a program people wait for.', ours, bases, quick=True, count=1, needs='git', share=True)
    ours, bases = _spawn(('fio', '--name=r', '--filename={d}/data', '--ioengine=psync', '--rw=randread', '--bs=4k', '--size=32m',
                          '--io_size=64m', '--randseed={seed}', '--invalidate=0', '--fallocate=none'), '', 'native fio')
    yield Workload('fio-randread-4k', 'storage', 'fio (psync): 64 MiB of random 4 KiB reads of a cached file, start to end',
                   'a tool that others wrote and know; its start-up is in the time.', ours, bases, count=1, needs='fio', share=True)


def _fio():
    for rw, jobs in [('randread', n) for n in (1, 4, 16, 64)] + [('randwrite', 1)]:
        argv = ('fio', '--name=j', '--filename={d}/data', '--ioengine=psync', f'--rw={rw}', '--bs=4k', '--size=32m', '--direct=1',
                '--thread', f'--numjobs={jobs}', '--group_reporting', '--time_based', '--runtime=400ms', '--randseed={seed}', '--fallocate=none',
                '--output-format=json')
        yield Workload(
            f'fio-{rw}-{jobs}', 'storage', f'fio (psync): 4 KiB {rw} with O_DIRECT by {jobs} jobs (threads); fio\'s own figure',
            'a tool that others wrote, unmodified, at growing depth; without its start-up.',
            Side('fio', 'fio', ('{scrun}',) + argv), {'native': Side('fio', 'fio', argv, 'native fio')}, count=1, needs='fio', size=4 * KIB,
            series='fio' if rw == 'randread' else '', x=jobs)


def workloads():
    for part in (_streams, _direct, _api, _many, _names, _programs, _fio):
        yield from part()
