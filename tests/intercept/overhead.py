#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What interception costs: local calls, fork, start of a program. Native and intercepted runs alternate.

usage: overhead.py OVERHEAD TESTSERVE.so [ROUNDS]

Calls are given as the best of all rounds (load only ever adds), start-up as medians with the best in brackets.
"""
import os
import statistics
import subprocess
import sys
import time


def start_time(env):
    """Seconds from before the spawn of /bin/true to after its end."""
    start = time.perf_counter()
    pid = os.posix_spawn('/bin/true', ['true'], env)
    os.waitpid(pid, 0)
    return time.perf_counter() - start


def main():
    overhead, library = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    plain = {'PATH': '/usr/bin:/bin'}
    kinds = {
        'native': (plain, []),
        'dispatch on, not intercepted': (plain, ['dispatch']),
        'preloaded, not intercepted': (dict(plain, LD_PRELOAD=library, SCI_MODE='none'), []),
        'intercepted, never dispatched': (dict(plain, LD_PRELOAD=library, SCI_MODE='pass'), []),
        'intercepted, dispatched, local': (dict(plain, LD_PRELOAD=library, SCI_MODE='all'), []),
    }
    calls = {k: [] for k in kinds}
    starts = {k: [] for k in kinds}
    for _ in range(rounds):
        for kind, (env, args) in kinds.items():
            out = subprocess.check_output([overhead] + args, env=env, text=True)
            calls[kind].append([float(x) for x in out.split()])
            starts[kind] += [start_time(env) for _ in range(20)]
    print('%-32s %8s %10s %8s   %s' % ('ns per call', 'getppid', 'syscall()', 'read', 'start of /bin/true, us'))
    for kind in kinds:
        best = [min(c[i] for c in calls[kind]) for i in range(3)]
        print('%-32s %8.1f %10.1f %8.1f   %.0f (%.0f)' % (kind, *best, statistics.median(starts[kind]) * 1e6,
                                                         min(starts[kind]) * 1e6))


if __name__ == '__main__':
    main()
