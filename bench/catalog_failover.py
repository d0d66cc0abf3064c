# SPDX-License-Identifier: BSD-3-Clause
"""catalog_failover.py - workloads of the group failover. scbench_failover.py carries them out."""

from scbench_workloads import Side, Workload


def workloads():
    yield Workload(
        'failover-kill', 'failover', 'the domain is killed while a program works; it is started again at once',
        'how long a program is without service, by phase, and what it sees meanwhile. Killed is the VM\'s process (a loopback domain\'s '
        'agent) by SIGKILL, at a time that it cannot foresee. No base case: when the host\'s own kernel dies, nothing is left to measure.',
        Side('scrun', 'probe', ('{d}/data',)), what='failover', quick=False, count=1)
