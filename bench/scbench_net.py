# SPDX-License-Identifier: BSD-3-Clause
"""scbench_net.py - what the network workloads run on: a network domain, and the kernel's stack beside it.

    ours     client under `scrun --network` ── domain's stack ── tap device ──┐
    kernel   client in a network namespace ──── veth pair ────────────────────┼── host's stack ── server
    local    client on the host ── loopback interface ────────────────────────┘

The server (work_net.c) and its stack are the same for all; the client's calls and its stack are what differs. A veth pair
hands packets over within the kernel; a tap device hands each to a program and back, so that the kernel has the better wire.
Addresses are from 198.18.0.0/15, which is set aside for benchmarks. Needs root.
"""

import csv
import io
import os
import shutil
import socket
import subprocess
import sys
import time

from scbench_common import Refusal, find, find_scctl, read_text
from scbench_helpers import ANSWER_SECONDS, Helper
from scbench_machine import process_clock

NAME = 'scbench-net'


def why_not(loopback=True):
    """Why there can be no network domain here; '' if there can."""
    try:
        find('sc-agent-net', 'guest-agent/sc-agent-net')
    except Refusal:
        return 'this build has no network domain: no workload of it can be run, and no figure is shown'
    done = subprocess.run([find('scrun', 'hostlib/scrun'), '--help'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if '--network' not in done.stdout:
        return 'this build has no network domain for programs: scrun knows no --network'
    if not loopback:
        return 'network domains are loopback domains so far: --domain loopback'
    if os.geteuid() != 0 or not shutil.which('ip') or not os.path.exists('/dev/net/tun'):
        return 'tap devices and network namespaces take root, /dev/net/tun and the package iproute2'
    return ''


def _ip(*words):
    done = subprocess.run(['ip', *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Refusal(f'ip {" ".join(words)}: {done.stdout.strip()}')


class Net:
    """The domain, the namespace, the server. run_dir: where domains have their sockets; env: to reach it."""

    def __init__(self, run_dir, env):
        self.env, self.run_dir = env, run_dir
        number = os.getpid() % 16384
        third, fourth = number >> 6, (number & 63) << 2
        self.tap, self.veth, self.space = f'scn{number}', f'scv{number}', f'scbench{number}'
        self.host = {'net': f'198.18.{third}.{fourth + 1}', 'netns': f'198.19.{third}.{fourth + 1}', 'netlocal': '127.0.0.1'}
        self.far = {'net': f'198.18.{third}.{fourth + 2}', 'netns': f'198.19.{third}.{fourth + 2}', 'netlocal': '127.0.0.1'}
        self.server = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _scctl(self, *words):
        return subprocess.run([sys.executable, find_scctl(), *words], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)

    def _start(self):
        _ip('tuntap', 'add', self.tap, 'mode', 'tap')
        _ip('address', 'add', self.host['net'] + '/30', 'dev', self.tap)
        _ip('link', 'set', self.tap, 'up')
        done = self._scctl('start', NAME, '--loopback', '--role', 'network', '--tap', self.tap, '--addr', self.far['net'] + '/30',
                           '--gw', self.host['net'])
        if done.returncode:
            raise Refusal(f'network domain: {done.stdout.strip()}')
        self.agent_pid = int(read_text(os.path.join(self.run_dir, NAME, 'agent.pid'), '0').split()[0])
        self.broker_pid = int(read_text(os.path.join(self.run_dir, NAME, 'broker.pid'), '0'))
        _ip('netns', 'add', self.space)
        _ip('link', 'add', self.veth, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', self.space)
        _ip('address', 'add', self.host['netns'] + '/30', 'dev', self.veth)
        _ip('link', 'set', self.veth, 'up')
        _ip('-n', self.space, 'address', 'add', self.far['netns'] + '/30', 'dev', 'eth0')
        _ip('-n', self.space, 'link', 'set', 'eth0', 'up')
        self.server = Helper([find('scbench-work', 'bench/scbench-work')], dict(os.environ))
        self.port = int(self.server.ask('netserve', 1, ['0.0.0.0'])['extra']['port'])

    def words(self, kind):
        """What stands before a program whose sockets are to be of this kind."""
        if kind == 'net':
            return [find('scrun', 'hostlib/scrun'), '--network', NAME, '--']
        return ['ip', 'netns', 'exec', self.space] if kind == 'netns' else []

    def nice(self, value):
        """Gives the agent this nice value."""
        for tid in os.listdir(f'/proc/{self.agent_pid}/task'):
            os.setpriority(os.PRIO_PROCESS, int(tid), value)

    def close(self):
        if self.server:
            self.server.close()
        self._scctl('stop', NAME)
        for words in (('netns', 'delete', self.space), ('link', 'delete', self.veth), ('link', 'delete', self.tap)):
            subprocess.run(['ip', *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


class ServerHelper:
    """A server that others wrote, whose sockets are of some kind. Subclasses say which, and ask it."""

    PORT = 0

    def __init__(self, place, kind, argv):
        self.place, self.host = place, place.far[kind]
        self.process = subprocess.Popen(place.words(kind) + argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True, env=place.env)
        self.pid = self.process.pid
        try:
            self._wait(argv[0])
        except BaseException:
            self.close()
            raise

    def _wait(self, name):
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((self.host, self.PORT), 2).close()
                return
            except OSError as err:
                if self.process.poll() is not None:
                    raise Refusal(f'{name} ended: {self.process.stderr.read().strip()[-200:]}') from None
                if time.monotonic() > end:
                    raise Refusal(f'{name} does not answer at {self.host}: {err}') from None
                time.sleep(0.05)

    def _cpu(self):
        """CPU nanoseconds of server, agent, broker so far."""
        return [int(process_clock(pid) * 1e9) for pid in (self.pid, self.place.agent_pid, self.place.broker_pid)]

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()


class RedisHelper(ServerHelper):
    """A redis server, and redis-benchmark on the host's stack, started for each request.

    The figures are redis-benchmark's own. The application is the server; the client is in no CPU time, for all kinds alike.
    """

    PORT = 16379

    def __init__(self, place, kind):
        super().__init__(place, kind, ['redis-server', '--port', str(self.PORT), '--bind', '0.0.0.0', '--save', '', '--appendonly', 'no',
                                       '--protected-mode', 'no', '--dir', '/tmp', '--logfile', '/dev/null'])

    def ask(self, command, count, args=()):
        """COUNT requests of a kind ("get", "set"), by args[0] connections, args[1] requests sent together."""
        before = self._cpu()
        done = subprocess.run(['redis-benchmark', '-h', self.host, '-p', str(self.PORT), '-t', command, '-n', str(count), '-c', args[0],
                               '-P', args[1], '--csv'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=ANSWER_SECONDS,
                              check=False)
        app, agent, broker = (a - b for a, b in zip(self._cpu(), before))
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        if done.returncode or not rows or not float(rows[0]['rps']):
            raise Refusal(f'redis-benchmark: {done.stderr.strip()[-200:] or "no answer"}')
        extra = {f'p{n}_ns': float(rows[0][f'p{n}_latency_ms']) * 1e6 for n in (50, 99)}
        # It counts in milliseconds; so short a time that it counts none (a rate of "inf") was less than one.
        return {'ns': max(1000000, int(count / float(rows[0]['rps']) * 1e9)), 'ops': count, 'app_ns': app, 'agent_ns': agent,
                'broker_ns': broker, 'idle_ns': 0, 'extra': extra}


class NginxHelper(ServerHelper):
    """nginx with one worker in the same process, and a client of ours on the host's stack that keeps its connection."""

    PORT = 16380
    FILES = {'small': 1024, 'large': 1 << 20}

    def __init__(self, place, kind, work):
        self.folder = os.path.join(work, f'nginx-{kind}')
        os.makedirs(self.folder, exist_ok=True)
        for name, size in self.FILES.items():
            with open(os.path.join(self.folder, name), 'wb') as f:
                f.write(b'x' * size)
        conf = os.path.join(self.folder, 'nginx.conf')
        with open(conf, 'w', encoding='utf-8') as f:
            f.write(f'daemon off; master_process off; pid {self.folder}/pid; error_log stderr crit;\nevents {{ }}\n'
                    f'http {{ access_log off; keepalive_requests 100000000; sendfile on; client_body_temp_path {self.folder}/t1; '
                    f'proxy_temp_path {self.folder}/t2; fastcgi_temp_path {self.folder}/t3; uwsgi_temp_path {self.folder}/t4; '
                    f'scgi_temp_path {self.folder}/t5;\nserver {{ listen 0.0.0.0:{self.PORT}; root {self.folder}; }} }}\n')
        self.client = None
        super().__init__(place, kind, ['nginx', '-p', self.folder, '-c', conf])
        self.client = Helper([find('scbench-work', 'bench/scbench-work')], dict(os.environ))

    def ask(self, command, count, _args=()):
        """COUNT times the file `command`."""
        before = self._cpu()
        answer = self.client.ask('nethttp', count, [self.host, str(self.PORT), '/' + command, str(self.FILES[command])])
        app, agent, broker = (a - b for a, b in zip(self._cpu(), before))
        return dict(answer, app_ns=app, agent_ns=agent, broker_ns=broker)

    def close(self):
        if self.client:
            self.client.close()
        super().close()
