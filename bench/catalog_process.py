# SPDX-License-Identifier: BSD-3-Clause
"""catalog_process.py - workloads of the group process: programs, processes and threads under the library."""

from scbench_workloads import Side, Workload, same


def workloads():
    yield Workload('start', 'process', 'scrun --storage … -- /bin/true, start to end', 'what putting scrun before a command costs.',
                   Side('native', 'spawn', ('{scrun}', '/bin/true')),
                   {'native': Side('native', 'spawn', ('/bin/true',), 'native /bin/true')}, quick=True)
    for name, title, why, bar in (
            ('fork', 'fork a child that ends at once', 'the child is a process of its own, with a channel of its own if it needs one', 1.5),
            ('exec', 'fork a child that executes /bin/true', 'the library starts anew in every executed program', 2.0),
            ('sh', 'fork a child that executes sh -c :', 'what scripts and make do all day', 2.0),
            ('pipe', 'a byte to another process and back, by pipes', 'blocking calls that stay local', 0),
            ('thread', 'start and join a thread', 'each thread has its own state in the library', 0)):
        ours, bases = same(name, (), f'native {name}')
        yield Workload(name, 'process', title, why + '.', ours, bases, {'native': bar} if bar else {}, quick=True)
