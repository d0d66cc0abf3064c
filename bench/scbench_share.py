# SPDX-License-Identifier: BSD-3-Clause
"""scbench_share.py - which share of a program's system calls a domain serves.

A benchmark of a storage domain says little if the program hardly calls it. So each program is run twice more, untimed: natively under
strace, which counts all its calls; and by `scrun --stats`, which counts those that were served remotely. (Calls of the library
itself are in neither number.)
"""

import os
import re
import shutil
import subprocess
import tempfile

SECONDS = 300


def count_native(argv, env):
    """All system calls of a program and its children; None if strace cannot tell."""
    if not shutil.which('strace'):
        return None
    with tempfile.NamedTemporaryFile('r', prefix='scbench-strace.') as out:
        done = subprocess.run(['strace', '-f', '-qq', '-c', '-o', out.name, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, env=env, timeout=SECONDS, check=False)
        found = re.search(r'^100\.00\s+\S+\s+\S*\s+(\d+)(?:\s+\d+)? total$', out.read(), re.M)
    return int(found.group(1)) if found and done.returncode == 0 else None


def count_remote(scrun, argv, env):
    """Calls of a program and its children that were served remotely; None if that failed. scrun: its words up to '--'."""
    words = [scrun[0], '--stats', *scrun[1:], *argv]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env,
                          timeout=SECONDS, check=False)
    counts = re.findall(r'^scrun: pid \d+: remote=(\d+)', done.stderr, re.M)
    return sum(map(int, counts)) if counts and done.returncode == 0 else None


def count(scrun, before, argv_remote, argv_native, env):
    """{'remote', 'calls'} of one run of a program; either may be None. before: called with True (natively) or False to prepare."""
    before(False)
    remote = count_remote(scrun, argv_remote, env)
    before(True)
    return {'remote': remote, 'calls': count_native(argv_native, dict(os.environ))}
