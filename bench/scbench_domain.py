# SPDX-License-Identifier: BSD-3-Clause
"""scbench_domain.py - the domain under test: a loopback domain of our own, or one that runs already."""

import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

from scbench_common import Refusal, find, find_scctl, read_text


def _ask(env, *argv):
    done = subprocess.run([sys.executable, find_scctl(), *argv], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False)
    if done.returncode:
        raise Refusal(f'scctl {" ".join(argv)}: {done.stderr.strip() or "failed"}')
    return done.stdout


def _qemu_of(run_dir, name):
    """The process of the domain's VM: the QEMU that was told the broker's socket."""
    wanted = os.path.join(run_dir, name, 'vhost.sock')
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        text = read_text(path)
        if wanted in text and 'qemu' in text.split('\0', 1)[0]:
            return int(path.split('/')[2])
    raise Refusal(f'domain {name}: no QEMU process has {wanted} on its command line')


class Domain:
    """A running domain. Attributes: name, env (to reach it), agent_pid (QEMU's for a VM), broker_pid, accelerator, versions."""

    def __init__(self, name, env=None):
        self.name = name
        self.env = dict(os.environ, **(env or {}))
        self.scrun = find('scrun', 'hostlib/scrun')
        self.saved = {}
        report = json.loads(_ask(self.env, 'status', name, '--json'))
        if not report.get('incarnation'):
            raise Refusal(f'domain {name} does not serve: scctl start {name}, or leave out --domain')
        self.loopback = bool(report.get('loopback'))
        self.broker_pid = report['broker']['pid']
        run_dir = self.env.get('VHOST_SC_RUNDIR') or '/run/vhost-sc'
        self.agent_pid = (int(read_text(os.path.join(run_dir, name, 'agent.pid'), '0').split()[0]) if self.loopback
                          else _qemu_of(run_dir, name))
        info = report.get('info') or {}
        self.accelerator = 'none (loopback: the agent is a host process)' if self.loopback else str(
            info.get('accelerator', 'unknown'))
        self.versions = {'agent': (report.get('agent') or {}).get('version', ''),
                         'agent_kernel': (report.get('agent') or {}).get('kernel', ''),
                         'qemu': '' if self.loopback else self._qemu_version()}

    def _qemu_version(self):
        done = subprocess.run([f'/proc/{self.agent_pid}/exe', '--version'], stdout=subprocess.PIPE, text=True, check=False)
        return done.stdout.split('\n', 1)[0]

    def scrun_words(self, mount):
        """The words that start a program with the domain's root at `mount`."""
        return [self.scrun, '--storage', f'{self.name}:{mount}', '--']

    def _threads(self):
        return [int(t) for t in os.listdir(f'/proc/{self.agent_pid}/task')]

    def pin(self, cpu):
        """Moves all threads of agent or VM to one CPU, or (None) back to where they were."""
        for tid in self._threads():
            try:
                if cpu is None:
                    os.sched_setaffinity(tid, self.saved.get(tid) or os.sched_getaffinity(0))
                else:
                    self.saved.setdefault(tid, os.sched_getaffinity(tid))
                    os.sched_setaffinity(tid, {cpu})
            except ProcessLookupError:
                continue
            except PermissionError:
                raise Refusal(f'domain {self.name}: its threads cannot be moved to CPU {cpu}: run as its owner') from None

    def nice(self, value):
        """Gives all threads of agent or VM this nice value."""
        for tid in self._threads():
            try:
                os.setpriority(os.PRIO_PROCESS, tid, value)
            except ProcessLookupError:
                continue

    def close(self):
        """Nothing: it was running before us."""


class OwnLoopback(Domain):
    """A loopback domain that lives as long as the run, in a run directory of its own. It serves `root`."""

    def __init__(self, root):
        self.run_dir = tempfile.mkdtemp(prefix='scbench-')  # short: socket paths have a limit
        env = {'VHOST_SC_RUNDIR': self.run_dir}
        try:
            _ask(dict(os.environ, **env), 'start', 'scbench', '--loopback', '--root', root)
            super().__init__('scbench', env)
        except BaseException:
            self.close()
            raise

    def close(self):
        subprocess.run([sys.executable, find_scctl(), 'stop', 'scbench'], env=dict(os.environ, VHOST_SC_RUNDIR=self.run_dir),
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.run_dir, ignore_errors=True)
