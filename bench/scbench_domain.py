# SPDX-License-Identifier: BSD-3-Clause
"""scbench_domain.py - the domain under test: a loopback domain or a VM of our own, or one that runs already."""

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from scbench_common import Refusal, find, find_scctl, read_text

NAME = 'scbench'      # of domains that we start
STATS_SECONDS = 0.55  # the agent writes its counters every half second


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

    def status(self):
        """The broker's own account, by its control socket: a dict. Raises OSError if it is not there."""
        run_dir = self.env.get('VHOST_SC_RUNDIR') or '/run/vhost-sc'
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect(os.path.join(run_dir, self.name, 'ctl.sock'))
            sock.sendall(b'{"cmd":"status"}\n')
            with sock.makefile('r', encoding='utf-8') as stream:
                return json.loads(stream.readline())

    def counters(self):
        """Notifications so far: {'doorbells': bells that pollers rang, 'slept': times that pollers went to sleep, 'calls'}."""
        time.sleep(STATS_SECONDS)
        report = self.status()
        return {'doorbells': report['pollers']['doorbells'], 'slept': report['pollers']['slept'],
                'calls': sum(report['calls'].values())}

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

    def kill(self):
        """Not one that was running before us."""
        raise Refusal('the domain that is to be killed must be one that scbench started: --domain loopback or vm')

    def close(self):
        """Nothing: it was running before us."""


class Own(Domain):
    """A domain that lives as long as the run, with directories of its own. Subclasses say how it is started."""

    def __init__(self, env=None):
        self.run_dir = tempfile.mkdtemp(prefix='scbench-')  # short: socket paths have a limit
        self.own_env = {'VHOST_SC_RUNDIR': self.run_dir, **(env or {})}
        try:
            self.start_again()
            super().__init__(NAME, self.own_env)
        except BaseException:
            self.close()
            raise

    def start_words(self):
        """The words of `scctl start` after the name."""
        raise NotImplementedError

    def start_again(self):
        """Starts the domain, also after kill(). Returns when it serves."""
        _ask(dict(os.environ, **self.own_env), 'start', NAME, *self.start_words())

    def kill(self):
        """Ends the VM, or the agent, without warning. Returns when, by the monotonic clock in seconds."""
        os.kill(self.agent_pid, signal.SIGKILL)
        return time.monotonic()

    def find_again(self):
        """After start_again(): the new process."""
        self.saved = {}
        self.agent_pid = (int(read_text(os.path.join(self.run_dir, NAME, 'agent.pid')).split()[0]) if self.loopback
                          else _qemu_of(self.run_dir, NAME))

    def close(self):
        subprocess.run([sys.executable, find_scctl(), 'stop', NAME], env=dict(os.environ, **self.own_env),
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.run_dir, ignore_errors=True)


class OwnLoopback(Own):
    """A loopback domain. It serves `root`."""

    def __init__(self, root):
        self.root = root
        super().__init__()

    def start_words(self):
        return ['--loopback', '--root', self.root]


class OwnVm(Own):
    """A VM with one virtual CPU, whose disk is a new file below `work`. Without libvirt."""

    SIZE = '2G'

    def __init__(self, work, accel):
        self.accel = accel
        places = {name: os.path.join(work, 'vm', name) for name in ('conf', 'state', 'log')}
        for place in places.values():
            os.makedirs(place)
        env = {f'VHOST_SC_{name.upper()}DIR': place for name, place in places.items()}
        _ask(dict(os.environ, **env), 'define', NAME, '--role', 'storage', '--disk', os.path.join(work, 'vm', 'disk.img'), '--size',
             self.SIZE, '--vcpus', '1', '--accel', accel, '--no-libvirt')
        super().__init__(env)

    def start_words(self):
        return ['--direct']


def make(args, work):
    """The domain that the options ask for."""
    if args.domain == 'loopback':
        if args.accel != 'auto':
            raise Refusal(f'--accel {args.accel}: a loopback domain has no accelerator: --domain vm')
        return OwnLoopback(os.path.join(work, 'root'))
    if args.domain == 'vm':
        return OwnVm(work, args.accel)
    if args.accel != 'auto':
        raise Refusal(f'--accel {args.accel}: domain {args.domain} runs already: --domain vm starts one for the run')
    return Domain(args.domain)
