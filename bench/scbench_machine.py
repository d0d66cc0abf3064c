# SPDX-License-Identifier: BSD-3-Clause
"""scbench_machine.py - the machine that a run ran on, and how busy others kept it meanwhile."""

import glob
import hashlib
import os
import platform
import re
import subprocess
import time

from scbench_common import TOP, Refusal, find, in_tree, read_text

# More than so much of the machine used by others, and a figure is marked.
BUSY_SHARE = 0.10


def _first(pattern, text, default='unknown'):
    found = re.search(pattern, text, re.M)
    return found.group(1).strip() if found else default


def _output(argv):
    try:
        return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=20,
                              check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ''


def revision():
    """The git revision, with '+' if tracked files of the product or the benchmark were changed; '' outside of a checkout."""
    if not in_tree():
        return ''
    base = ['git', '-c', 'safe.directory=*', '-C', TOP]
    name = _output(base + ['rev-parse', '--short=12', 'HEAD'])
    changed = _output(base + ['status', '--porcelain', '--untracked-files=no', '--', 'bench', 'include', 'hostlib', 'guest-agent',
                              'vhost-sc'])
    return name + ('+' if name and changed else '')


def fingerprint():
    """A short hash of the programs that are measured: what a run may be continued with."""
    parts = [find('scrun', 'hostlib/scrun')] + [find(n, 'bench/' + n) for n in ('scbench-work', 'scbench-ring', 'scbench-uring')]
    for name, built in (('sc-agent', 'guest-agent/sc-agent'), ('vhost-scd', 'vhost-sc/vhost-scd')):
        try:
            parts.append(find(name, built))
        except Refusal:
            continue
    parts += sorted(glob.glob(os.path.join(os.path.dirname(parts[0]), 'libhostsc.so.0')))
    total = hashlib.sha256()
    for path in parts:
        with open(path, 'rb') as f:
            total.update(hashlib.sha256(f.read()).digest())
    return total.hexdigest()[:12]


def governor():
    return read_text('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor').strip() or 'not visible (no cpufreq)'


def facts():
    """What a reader must know of the machine, as a dict of words."""
    cpu = read_text('/proc/cpuinfo')
    return {
        'cpu': _first(r'^model name\s*: (.*)$', cpu),
        'cpus': os.cpu_count(),
        'cpus_allowed': sorted(os.sched_getaffinity(0)),
        'virtualised': bool(re.search(r'^flags\s*:.*\bhypervisor\b', cpu, re.M)),
        'memory_mib': int(_first(r'^MemTotal:\s*(\d+) kB', read_text('/proc/meminfo'), '0')) // 1024,
        'kernel': platform.release(),
        'system': _first(r'^PRETTY_NAME="?([^"\n]*)', read_text('/etc/os-release')),
        'python': platform.python_version(),
        'governor': governor(),
        'load_average': list(os.getloadavg()),
        'revision': revision(),
        'date': time.strftime('%Y-%m-%d %H:%M:%S %Z'),
    }


def file_system(path):
    """Type of the file system that holds path."""
    return file_system_name(_output(['stat', '-f', '-c', '%T', path]))


def file_system_name(told):
    """What stat calls a file system, corrected: ext4 has the number of its forebears."""
    return {'ext2/ext3': 'ext4 (or ext2, ext3)', '': 'unknown'}.get(told, told)


def process_clock(pid):
    """CPU seconds of a process, 0 if it is gone. The clock is the kernel's CPUCLOCK_SCHED of that process."""
    try:
        return time.clock_gettime((~pid << 3) | 2) if pid else 0.0
    except OSError:
        return 0.0


def _busy_and_all():
    """CPU seconds of the machine: busy (time stolen by a hypervisor included), and all."""
    words = [int(w) for w in read_text('/proc/stat').split('\n', 1)[0].split()[1:9]]
    tick = os.sysconf('SC_CLK_TCK')
    idle = words[3] + words[4]
    return (sum(words) - idle) / tick, sum(words) / tick


class Others:
    """Watches what processes other than ours use of the machine. `pids`: ours, apart from this one and its children."""

    def __init__(self, pids):
        self.pids = pids
        self.ours = self._ours()
        self.busy, self.all = _busy_and_all()

    def _ours(self):
        return time.process_time() + sum(process_clock(pid) for pid in self.pids)

    def share(self, children):
        """The share of the machine that others used so far, 0 to 1. `children`: CPU seconds of our children meanwhile."""
        busy, total = _busy_and_all()
        others = busy - self.busy - (self._ours() - self.ours) - children
        return min(1.0, max(0.0, others / max(total - self.all, 0.01)))
