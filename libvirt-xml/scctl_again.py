# SPDX-License-Identifier: BSD-3-Clause
"""Domains that are started again: planned (restart, upgrade), and because they crashed or hang (watch).

It is one path for all: the broker stays, with the channels of the programs and all that the domain keeps in the host's memory;
the VM goes; the next one takes over. Programs wait meanwhile, and no call of theirs fails (docs/recovery.md).

Fencing. Before a new VM starts, the old one's process is gone: it alone could write to the disk or use the NIC. QEMU holds a
lock on the disk image as long as it lives, and scctl looks at that, too.
"""

import collections
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time

import scctl_broker as broker
import scctl_config as config
import scctl_disk as disk
import scctl_vm as vm
from scctl_common import Refusal, locked
from scctl_vm import say

GONE_SECONDS = 30  # for a QEMU that was killed to let go of its disk
HOOK_SECONDS = 60


# ---- one domain, stopped and started ----

def find_runner(domain):
    """The runner of a domain that runs, or the one that would start it as it was started last."""
    running = vm.runners(domain)
    if running:
        return vm.Loopback.as_before(domain) if running[0].how == 'loopback' else running[0]
    how = {}
    try:
        how = broker.ask(domain.name, 'status').get('info') or {}
    except Refusal:
        pass
    if not config.exists(domain.name):
        return vm.Loopback.as_before(domain)
    return vm.DirectVm(domain) if how.get('how') == 'direct' or not domain.libvirt else vm.LibvirtVm(domain)


def _accelerator(runner):
    """What the VM ran with, so that the next one runs with the same; the domain's wish if nobody knows."""
    try:
        was = (broker.ask(runner.domain.name, 'status').get('info') or {}).get('accelerator')
    except Refusal:
        was = None
    choice = vm.choose_accel(runner.domain.accel)
    return choice._replace(accel='tcg', text='TCG, as before') if was == 'tcg' and choice.accel == 'kvm' else choice


def wait_gone(runner):
    """Returns when the VM is gone and its disk is free."""
    domain = runner.domain
    deadline = time.monotonic() + GONE_SECONDS
    while runner.running() or (runner.how != 'loopback' and domain.disk and disk.in_use(domain.disk)):
        if time.monotonic() > deadline:
            raise Refusal(f'domain {domain.name}: its VM, or its disk {domain.disk}, is not free after {GONE_SECONDS} s: not '
                          'started again, for two VMs would write to it')
        time.sleep(0.05)


def start_again(runner, choice, seconds=None):
    """Starts what was stopped, and waits until it serves."""
    if runner.how != 'loopback':
        vm.start_vm(runner, choice, seconds)
        return
    runner.start()
    limit = seconds or vm.READY_SECONDS['loopback']
    if not broker.wait_ready(runner.domain.name, limit, runner.gone):
        raise Refusal(f'domain {runner.domain.name}: the agent did not report within {limit} s: see {vm.agent_log(runner.domain.name)}')


class Phases:
    """What took how long, for people."""

    def __init__(self):
        self.began = self.last = time.monotonic()
        self.parts = []

    def end(self, what):
        now = time.monotonic()
        self.parts.append((what, now - self.last))
        self.last = now

    def __str__(self):
        return ', '.join(f'{what} {seconds:.1f} s' for what, seconds in self.parts) + f'; {self.last - self.began:.1f} s in all'


def hand_over(name, timeout, between=None, back=None):
    """Stops a domain in good order and starts it again. Calls wait; none fails. Returns the Phases.

    between: done when the VM is gone, before the next starts. back: undoes that if it does not serve, and the domain is
    started as it was.
    """
    domain = config.load(name) if config.exists(name) else vm.loopback_domain(name)
    runner = find_runner(domain)
    if not runner.running():
        raise Refusal(f'domain {name} is not running: scctl start {name}')
    choice = _accelerator(runner) if runner.how != 'loopback' else None
    phases = Phases()
    how = runner.stop(timeout)
    wait_gone(runner)
    phases.end('finishing calls, syncing, ending' if how == 'stopped' else f'ending by force after {timeout} s')
    if between:
        between()
        phases.end('exchanging')
    try:
        start_again(runner, choice)
    except Refusal as err:
        if not back:
            raise
        say(f'domain {name}: {err}')
        say(f'domain {name}: going back to what it was')
        if runner.running():
            runner.kill()
        wait_gone(runner)
        back()
        start_again(runner, choice)
        raise Refusal(f'domain {name} does not serve with what is new; it serves as before') from err
    phases.end('starting until it serves')
    return phases


def restart(name, timeout):
    """scctl restart."""
    with locked(name):
        say(f'domain {name} was restarted: {hand_over(name, timeout)}')


def upgrade(name, timeout, changes, agent_file):
    """scctl upgrade: a new guest image, made while the old one serves. changes: of kernel, modules, headers."""
    with locked(name):
        domain = config.load(name)
        if not vm.runners(domain):
            raise Refusal(f'domain {name} is not running: scctl define {name} makes its image anew')
        for key, value in changes.items():
            setattr(domain, key, value)
        new, old = vm.image_dir(name) + '.next', vm.image_dir(name) + '.before'
        for path in (new, old):
            shutil.rmtree(path, ignore_errors=True)
        say('guest image: making it, while the domain serves')
        vm.make_image(domain, out=new, agent_file=agent_file)

        def between():
            os.rename(vm.image_dir(name), old)
            os.rename(new, vm.image_dir(name))
            _redefine(domain)

        def back():
            os.rename(vm.image_dir(name), new)
            os.rename(old, vm.image_dir(name))
            _redefine(config.load(name))
        phases = hand_over(name, timeout, between, back)
        domain.save()
        shutil.rmtree(old, ignore_errors=True)
        say(f'domain {name} was upgraded: {phases}')


def _redefine(domain):
    """libvirt gets the kernel's command line anew: it depends on the image."""
    if domain.libvirt:
        vm.define_in_libvirt(domain, vm.defined_accel(domain.name) or vm.choose_accel(domain.accel).accel)


# ---- watch ----

class Watched:
    """One domain under supervision: the connection to its broker, and what was done lately."""

    def __init__(self, name):
        self.name = name
        self.sock = None
        self.rest = b''
        self.state = ''        # the broker's word
        self.orderly = False
        self.since = 0.0       # of that state
        self.served = False    # it has been ready since it was started last
        self.starts = collections.deque()
        self.next = 0.0        # do nothing before
        self.given_up = False
        self.hooks = []        # that run

    def connect(self):
        """Asks the broker to tell; there may be none."""
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self.sock.settimeout(broker.ASK_SECONDS)
            self.sock.connect(broker.socket_path(self.name, 'ctl'))
            self.sock.sendall(b'{"cmd": "watch"}\n')
            self.sock.setblocking(False)
        except OSError:
            self.lost()

    def lost(self):
        """The broker has gone."""
        if self.sock:
            self.sock.close()
        self.sock, self.rest, self.state = None, b'', ''

    def hear(self):
        """Takes what the broker tells. Returns the events, oldest first."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b''
        if not data:
            self.lost()
            return []
        lines = (self.rest + data).split(b'\n')
        self.rest = lines.pop()
        found = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and event.get('event') == 'state':
                found.append(event)
        return found


class Supervisor:
    """scctl watch: sees to it that domains serve. One thread for each, so that one that boots keeps no other waiting."""

    def __init__(self, names, options):
        self.domains = [Watched(name) for name in names]
        self.options = options
        self.ending = threading.Event()

    def run(self):
        """Until SIGTERM or SIGINT. Returns the exit status: 1 if a domain was given up."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ending.set())
        say('watching ' + ', '.join(d.name for d in self.domains))
        # Daemons: what one of them is about to start goes on by itself when we end.
        threads = [threading.Thread(target=self._follow, args=(d,), daemon=True) for d in self.domains]
        for thread in threads:
            thread.start()
        while not self.ending.is_set() and any(thread.is_alive() for thread in threads):
            self.ending.wait(1)
        return 1 if any(d.given_up for d in self.domains) else 0

    def _follow(self, d):
        """One domain, until we end or it is given up."""
        while not self.ending.is_set() and not d.given_up:
            try:
                self._look(d)
            except (Refusal, OSError) as err:
                self._tell(d, 'failed', str(err))
                d.next = time.monotonic() + self._pause(d)
            self._wait(d)

    def _wait(self, d):
        """Until the broker tells something, at most a second."""
        ready, _, _ = select.select([d.sock] if d.sock else [], [], [], 1)
        for event in d.hear() if ready else []:
            self._hear(d, event)
        d.hooks = [p for p in d.hooks if p.poll() is None]

    def _hear(self, d, event):
        state = str(event.get('state'))
        d.orderly = bool(event.get('orderly'))
        if state == d.state:
            return
        d.state, d.since = state, time.monotonic()
        if state == 'ready':
            d.served = True
        self._tell(d, state, str(event.get('why') or ''))

    def _look(self, d):
        """Decides whether the domain is to be started again."""
        now = time.monotonic()
        if now < d.next:
            return
        if not d.sock:
            d.connect()
        domain = config.load(d.name) if config.exists(d.name) else vm.loopback_domain(d.name)
        why = self._why(d, domain, now)
        if why:
            self._again(d, domain, why)

    def _why(self, d, domain, now):
        """Why the domain has to be started again; '' if it need not, or not yet."""
        if not d.sock and d.served and broker.died(d.name):
            return 'its broker is gone'  # and with it the channels: a VM that is left cannot serve
        if not d.sock:
            return 'it does not run' if (d.served or self.options.always) and not vm.runners(domain) else ''
        if d.state == 'hung':
            return '' if vm.is_paused(domain) else 'it hangs'
        if d.state == 'starting' and d.served and now - d.since > self._boot_seconds(domain):
            return '' if vm.is_paused(domain) else 'its agent did not report'
        if d.state == 'down' and not vm.runners(domain):
            if d.orderly and not self.options.always:
                return ''  # it was shut down
            reason = vm.end_reason(domain)
            if reason == 'destroyed' and not self.options.always:
                return ''  # virsh destroy: somebody wanted that
            what = 'VM' if config.exists(d.name) else 'agent'
            return f'its {what} is gone' + (f' ({reason})' if reason else '')
        return ''

    @staticmethod
    def _boot_seconds(domain):
        return domain.ready_seconds or max(vm.READY_SECONDS.values())

    def _pause(self, d):
        """Seconds to wait after so many starts: none after the first, then 1, 2, 4 .. 30."""
        return min(30, 2 ** (len(d.starts) - 2)) if len(d.starts) > 1 else 0

    def _again(self, d, domain, why):
        now = time.monotonic()
        while d.starts and now - d.starts[0] > self.options.within:
            d.starts.popleft()
        if len(d.starts) >= self.options.limit:
            d.given_up = True
            self._tell(d, 'gave-up', f'{why}; it was started {len(d.starts)} times within {self.options.within} s')
            return
        d.starts.append(now)
        self._tell(d, 'restart', why)
        runner = find_runner(domain)
        with locked(d.name):
            if runner.running():
                runner.kill()
            wait_gone(runner)
            start_again(runner, _accelerator(runner) if runner.how != 'loopback' else None)
        d.next = time.monotonic() + self._pause(d)

    def _tell(self, d, event, reason):
        say(f'domain {d.name}: {event}' + (f': {reason}' if reason else ''))
        if not self.options.hook:
            return
        try:
            # In a process group of its own, so that a hook may outlive us, but not for ever.
            d.hooks.append(subprocess.Popen(['timeout', str(HOOK_SECONDS), self.options.hook, d.name, event, reason],
                                               stdin=subprocess.DEVNULL, start_new_session=True))
        except OSError as err:
            say(f'hook {self.options.hook}: {err.strerror}')
