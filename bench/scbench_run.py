# SPDX-License-Identifier: BSD-3-Clause
"""scbench_run.py - `scbench run`: carries out workloads and keeps every sample.

For each workload it finds how many operations fill a sample, then does rounds: each round asks every side (ours and the base
cases) for one sample, in an order that the seed shuffles. A finished round is one line of DIR/raw.jsonl, so that a run that
was stopped goes on where it was. DIR/run.json says on what it ran; a run on something else is not mixed with it.

What cannot be measured here (a program that is not installed, a peer that does not start, a group that the build has nothing for)
is left out, and the reason is printed and kept: a line {"skipped": what, "why": reason} of raw.jsonl.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

import scbench_domain as domains
import scbench_failover as failover
import scbench_machine as machine
import scbench_net as net
import scbench_share as share
import scbench_workloads as wl
from scbench_common import Refusal, find, read_text, say, write_json
from scbench_files import make_local
from scbench_helpers import ANSWER_SECONDS, FioHelper, Helper
from scbench_peer import GuestHelper, PeerVm, PingHelper

FORMAT = 2
CALIBRATE_MAX = 1 << 32


class Progress:
    """Prints what is done and how long the rest will take, judging by what the rounds so far took."""

    def __init__(self, rounds):
        self.left = rounds
        self.done = 0
        self.start = time.monotonic()

    def round(self):
        self.done += 1
        self.left -= 1

    def show(self, name):
        each = (time.monotonic() - self.start) / max(self.done, 1)
        say(f'scbench: {name} done ({time.monotonic() - self.start:.0f} s); about {each * self.left:.0f} s left')


class Places:
    """Directories of a run. base: of the base case; mount, remote: of the domain under scrun; api: as the C API names remote;
    local: what all sides read; peer: of the driver domain, on the host."""

    def __init__(self, out, seed):
        self.work = os.path.join(out, 'work')
        if ' ' in self.work:
            raise Refusal(f'--out {out}: no blanks in the path, please')
        shutil.rmtree(self.work, ignore_errors=True)
        self.base, self.mount, self.local = (os.path.join(self.work, n) for n in ('base', 'domain', 'local'))
        self.api = f'scbench-{os.getpid()}'
        self.remote = os.path.join(self.mount, self.api)
        self.peer = os.path.join(self.work, 'peer', 'mnt', 'files')
        for d in (self.base, os.path.join(self.work, 'root')):
            os.makedirs(d)
        make_local(self.local, seed)

    def of(self, side):
        """The directory of a side."""
        where = wl.HELPERS[side.helper].where
        if where == 'sshfs':
            return self.peer
        if where == 'guest':
            return '/export/files'
        return self.remote if where == 'scrun' or '{scrun}' in side.args else self.base


class Run:
    """One `scbench run`."""

    def __init__(self, args):
        self.args = args
        self.out = os.path.abspath(args.out)
        self.workloads = wl.select(args.what)
        self.helpers = {}
        self.domain, self.peer, self.net = None, None, None
        self.missing = {}  # helper: why there is none
        self.programs = machine.fingerprint()
        self.counts = {}
        self.app_seconds = 0.0
        self.pinned = False
        self.failover_ms = 0
        self.failed, self.put_off = [], 0
        self.end = time.monotonic() + args.minutes * 60 if args.minutes else None
        self.cpus = sorted(os.sched_getaffinity(0))
        if len(self.cpus) < 2:
            raise Refusal('two CPUs are needed, one for the application and one for the domain')
        # The last two: interrupts and housekeeping tend to the first.
        self.cpu, self.peer_cpu = self.cpus[-2], self.cpus[-1]

    # ---- what was done before ----

    def _raw_path(self):
        return os.path.join(self.out, 'raw.jsonl')

    def _load_done(self):
        """Rounds that DIR holds already, by workload. Repairs a last line that a crash cut."""
        done, kept = {}, []
        for line in read_text(self._raw_path()).splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            kept.append(line)
            if 'round' in entry:
                done[entry['w']] = max(done.get(entry['w'], 0), entry['round'] + 1)
                self.counts[entry['w']] = {side: s['ops'] for side, s in entry['sides'].items()}
        if kept:
            with open(self._raw_path() + '.new', 'w', encoding='utf-8') as f:
                f.write('\n'.join(kept) + '\n')
            os.replace(self._raw_path() + '.new', self._raw_path())
        return done

    def _identity(self):
        return {'format': FORMAT, 'domain': self.args.domain, 'accel': self.args.accel, 'seed': self.args.seed, 'nice': self.args.nice,
                'sample_ms': self.args.sample_ms, 'programs': self.programs, 'kernel': os.uname().release}

    def _check_same(self):
        old = json.loads(read_text(os.path.join(self.out, 'run.json'), '{}')).get('identity')
        if old is None or old == self._identity():
            return
        changed = ', '.join(f'{k} was {old.get(k)!r}, is {v!r}' for k, v in self._identity().items() if old.get(k) != v)
        raise Refusal(f'{self.out} holds samples of another run ({changed}): give another --out, or remove it')

    def _save_run(self):
        path = os.path.join(self.out, 'run.json')
        old = json.loads(read_text(path, '{}'))
        record = {
            'identity': self._identity(), 'machine': machine.facts(), 'accelerator': self.domain.accelerator,
            'versions': self.domain.versions, 'sets': sorted(set(old.get('sets', [])) | {self.args.what}),
            'pinning': f'one-caller figures of ring: application on CPU {self.cpu}, agent or VM (io_uring\'s polling thread) on CPU '
                       f'{self.peer_cpu}; the rest: none',
            'file_systems': {'base': machine.file_system(self.places.base), 'domain': self._remote_fs()},
            'resumed': old.get('resumed', []),
        }
        record['command'] = self._command(record['sets'])
        if old:
            now = record['machine']
            record['machine'] = old['machine']
            record['resumed'].append({'date': now['date'], 'load_average': now['load_average']})
        write_json(path, record)

    def _command(self, sets):
        a = self.args
        options = [('--repeat', a.repeat, 10), ('--domain', a.domain, 'loopback'), ('--accel', a.accel, 'auto'), ('--seed', a.seed, 1),
                   ('--sample-ms', a.sample_ms, 40), ('--nice', a.nice, 0)]
        return ' '.join(['scbench run', ', '.join(sets), '--out DIR'] + [f'{name} {value}' for name, value, usual in options if value != usual])

    def _note(self, **entry):
        self.raw.write(json.dumps(entry, separators=(',', ':')) + '\n')
        self.raw.flush()

    def _skip(self, what, why):
        """Says that something is left out, and keeps it."""
        say(f'scbench: {what} is left out: {why}')
        self._note(skipped=what, why=str(why))

    # ---- set-up ----

    def _remote_fs(self):
        done = subprocess.run(self.domain.scrun_words(self.places.mount) + ['stat', '-f', '-c', '%T', self.places.remote],
                              env=self.domain.env, stdout=subprocess.PIPE, text=True, check=False)
        return machine.file_system_name(done.stdout.strip())

    def _pids_of(self, kind):
        """Whose CPU time is that of agent and broker: for the driver domain, its VM and the FUSE program."""
        if kind.where == 'net':
            return self.net.agent_pid, self.net.broker_pid
        if kind.where == 'sshfs':
            return self.peer.pid, self.peer.sshfs.pid
        return self.domain.agent_pid, self.domain.broker_pid

    def _make_helper(self, name):
        kind = wl.HELPERS[name]
        if kind.where == 'guest':
            return GuestHelper(self.peer)
        if kind.where == 'ping':
            return PingHelper(self.peer, Helper([find(kind.program, 'bench/' + kind.program), '--cpu', str(self.cpu)], self.domain.env))
        if kind.where == 'redis':
            return net.RedisHelper(self.net, name.partition('-')[2])
        if kind.where == 'nginx':
            return net.NginxHelper(self.net, name.partition('-')[2], self.places.work)
        agent, broker = self._pids_of(kind)
        if kind.where == 'fio':
            return FioHelper(agent, broker, self.domain.env)
        argv = [find(kind.program, 'bench/' + kind.program), *kind.options, '--agent-pid', str(agent), '--broker-pid', str(broker)]
        scrun = kind.where == 'scrun'
        if kind.pinned:
            argv += ['--peer-cpu', str(self.peer_cpu)]
            if not scrun:
                argv += ['--cpu', str(self.cpu)]
        if kind.program == 'scbench-ring':
            argv.append(self.domain.name)
        before = self.domain.scrun_words(self.places.mount) if scrun else self.net.words(name) if kind.where == 'net' else []
        helper = Helper(before + argv, self.domain.env)
        if scrun:
            # Attached before it is pinned: the library asks then how many CPUs there are, and spins only if two.
            helper.ask('stat', 1, [self.places.remote])
            if kind.pinned:
                os.sched_setaffinity(helper.pid, {self.cpu})
        return helper

    def _helper(self, name):
        if name not in self.helpers:
            self.helpers[name] = self._make_helper(name)
        return self.helpers[name]

    def _close_helpers(self):
        while self.helpers:
            self.helpers.popitem()[1].close()

    def _scrun_sh(self, script, *args):
        subprocess.run(self.domain.scrun_words(self.places.mount) + ['sh', '-c', script, 'sh', *args], env=self.domain.env, check=True)

    def _prepare(self):
        """Files and directories that workloads work on, on all sides."""
        p = self.places
        subprocess.run(['mkdir', os.path.join(p.base, 'names')], check=True)
        self._scrun_sh('mkdir "$1" && mkdir "$1/names"', p.remote)
        sides = [('native', p.base), ('scrun', p.remote)]
        if self.peer:
            subprocess.run(['mkdir', '-p', os.path.join(p.peer, 'names')], check=True)
            sides.append(('sshfs', p.peer))
        for kind, where in sides:
            helper = self._helper(kind)
            helper.ask('fill', wl.DATA_BYTES, [str(self.args.seed), where + '/data'])
            helper.ask('fill', 4096, [str(self.args.seed), where + '/log'])
            if kind != 'sshfs' and any(w.name == 'git-status' for w in self.workloads) and shutil.which('git'):
                words = self._words(wl.Side(kind, 'spawn', (
                    ('{scrun}',) if kind == 'scrun' else ()) + ('sh', '{local}/make-repo', where, '{local}/tree.tar')))
                self._helper('native').ask('spawn', 1, words)
        self._close_helpers()

    def _start_peer(self, todo):
        """The driver domain, if a workload that is still to be done compares with it and it can be had."""
        if not any(side.helper in wl.NEED_VM for w in todo for side in w.bases.values()):
            return
        why = 'they are compared with a VM: --domain vm' if self.domain.loopback else ''
        try:
            if not why:
                self.peer = PeerVm(self.places.work, 'kvm' if 'kvm' in self.domain.accelerator.lower() else 'tcg')
                if self.args.nice:
                    self.peer.nice(self.args.nice)
        except Refusal as err:
            why = str(err)
        if why:
            self._skip('base cases ' + ', '.join(wl.NEED_VM), why)
            self.missing.update({name: why for name in wl.NEED_VM})

    def _words(self, side):
        """A side's arguments with the places filled in."""
        return self._fill(side, side.args)

    def _fill(self, side, args):
        p = self.places
        values = {'d': p.of(side), 'api': p.api, 'local': p.local, 'seed': str(self.args.seed)}
        if self.net and side.helper in self.net.host:
            values.update(host=self.net.host[side.helper], port=str(self.net.port))
        words = []
        for a in args:
            words += self.domain.scrun_words(p.mount) if a == '{scrun}' else [a.format(**values)]
        return words

    # ---- measuring ----

    def _ask(self, helper, command, count, words):
        """One request; adds what it cost the application to app_seconds, untimed parts included."""
        before = machine.process_clock(helper.pid)
        answer = helper.ask(command, count, words)
        self.app_seconds += max(answer['app_ns'] / 1e9, machine.process_clock(helper.pid) - before)
        return answer

    def _before(self, side):
        for command, *args in side.before:
            self._ask(self._helper(side.helper), command, 1, self._fill(side, tuple(args)))

    def _sample(self, side, count):
        self._before(side)
        return self._ask(self._helper(side.helper), side.command, count, self._words(side))

    def _calibrate(self, w, side):
        """How many operations fill a sample of this side."""
        if w.count:
            return w.count
        target = (w.sample_ms or self.args.sample_ms) * 1e6
        count = 1
        while True:
            ns = max(1, self._sample(side, count)['ns'])
            if ns >= target / 3 or count >= CALIBRATE_MAX:
                return max(1, round(count * target / ns))
            count = max(count + 1, int(count * min(10, target / 2 / ns)))

    def _sides(self, w):
        """The sides that can be measured here. Peers that cannot are noted once."""
        sides = {}
        for name, side in w.sides().items():
            if side.helper in wl.PEERS and side.helper not in self.missing:
                try:
                    self._helper(side.helper)
                except (Refusal, OSError) as err:
                    self.missing[side.helper] = str(err)
            if side.helper not in self.missing:
                sides[name] = side
        return sides

    def _probe_peer(self, w, name, side):
        """Calibrates a side; a peer that fails is left out for this workload, with the reason."""
        try:
            return self._calibrate(w, side)
        except Refusal as err:
            if side.helper not in wl.PEERS:
                raise
            self._skip(f'base case {name} of {w.name}', err)
            self.helpers.pop(side.helper).close()
            return None

    def _counts(self, w, sides):
        known = self.counts.get(w.name, {})
        if set(sides) <= set(known):
            return {name: known[name] for name in sides}
        counts = {name: self._probe_peer(w, name, side) for name, side in sides.items()}
        for name in [name for name, count in counts.items() if count is None]:
            del counts[name], sides[name]
        # Sides that do the same work do the same amount of it, as much as the slowest of them; peers have theirs, since one that
        # is a hundred times slower would leave us next to nothing to measure.
        for name, side in sides.items():
            if side.command == w.ours.command and side.helper not in wl.PEERS and name != 'ours':
                counts[name] = counts['ours'] = min(counts[name], counts['ours'])
        self.counts[w.name] = counts
        return counts

    def _round(self, w, number, sides, counts):
        rng = random.Random(f'{self.args.seed}/{w.name}/{number}')
        names = list(sides)
        rng.shuffle(names)
        return {'w': w.name, 'round': number, 'order': names, 'sides': {n: self._sample(sides[n], counts[n]) for n in names}}

    def _failover_round(self, w, number):
        if not self.failover_ms:
            self.failover_ms = failover.budget(self.domain)
        sample, timeline = failover.one(self.domain, lambda: self._make_helper('scrun'), self._words(w.ours),
                                        os.path.join(self.places.work, 'probe.log'), self.failover_ms)
        if self.args.nice:
            self.domain.nice(self.args.nice)
        return {'w': w.name, 'round': number, 'sides': {'ours': sample}, 'timeline': timeline}

    def _rounds(self, w, first, progress):
        """Measures the rounds that are missing."""
        if w.what == 'failover':
            make_round = lambda number: self._failover_round(w, number)
        else:
            sides = self._sides(w)
            counts = self._counts(w, sides)
            make_round = lambda number: self._round(w, number, sides, counts)
        self.others = machine.Others([self.domain.agent_pid, self.domain.broker_pid] + self._peer_pids())
        self.app_seconds = 0.0
        bells = self.domain.counters() if w.bells else None
        for number in range(first, self.args.repeat):
            entry = make_round(number)
            self._note(**entry)
            progress.round()
        if bells:
            after = self.domain.counters()
            self._note(w=w.name, bells={k: after[k] - bells[k] for k in bells})

    def _peer_pids(self):
        """Other processes that work for this run."""
        pids = [self.peer.pid, self.peer.sshfs.pid] if self.peer else []
        return pids + ([self.net.agent_pid, self.net.broker_pid] if self.net else [])

    def _workload(self, w, first, progress):
        if w.pinned != self.pinned:
            self._close_helpers()
            self.domain.pin(self.peer_cpu if w.pinned else None)
            if self.peer:
                self.peer.pin({self.peer_cpu} if w.pinned else set(self.cpus))
            self.pinned = w.pinned
        self._rounds(w, first, progress)
        if w.what != 'failover':  # there, the process that is watched dies
            self._note(w=w.name, others=self.others.share(self.app_seconds), load_average=os.getloadavg()[0])
        if w.share:
            self._count_share(w)
        progress.show(w.name)

    def _count_share(self, w):
        """Which share of a program's calls the domain serves."""
        native = w.bases['native']
        counted = share.count(self.domain.scrun_words(self.places.mount), lambda natively: self._before(native if natively else w.ours),
                              self._fill(w.ours, w.ours.args[1:]), self._words(native), self.domain.env)
        self._note(w=w.name, share=counted)

    def _why_missing(self, w):
        """Why a workload cannot be measured here, '' if it can."""
        if w.needs and not shutil.which(w.needs):
            return f'{w.needs} is not installed'
        if w.what == 'failover' and not isinstance(self.domain, domains.Own):
            return 'the domain is killed in it, so it must be one that scbench starts: --domain loopback or vm'
        return ''

    def _start_net(self):
        """The network domain and the server; with the first workload that needs them."""
        run_dir = self.domain.env.get('VHOST_SC_RUNDIR') or '/run/vhost-sc'
        self.net = net.Net(run_dir, self.domain.env)
        if self.args.nice:
            self.net.nice(self.args.nice)

    def _end_net(self):
        if self.net:
            self._close_helpers()
            self.net.close()
            self.net = None

    def _group(self, group, todo, done, progress):
        for w in [w for w in todo if w.group == group]:
            if self.end and time.monotonic() > self.end:
                self.put_off += 1
            else:
                self._try(w, done.get(w.name, 0), progress)
        self._close_helpers()
        self._end_net()

    def _try(self, w, first, progress):
        """Measures a workload. One that fails is left out and makes the run fail, but only at its end: the others are not lost."""
        try:
            if w.group == 'network' and not self.net:
                self._start_net()
            self._workload(w, first, progress)
        except Refusal as err:
            self.failed.append(w.name)
            self._skip(w.name, f'it failed: {err}')
            self._close_helpers()

    def _todo(self, done):
        """What is left to measure; says what cannot be."""
        todo = []
        no_net = net.why_not(self.domain.loopback) if any(w.group == 'network' for w in self.workloads) else ''
        if no_net:
            self._skip('group network', no_net)
        for w in self.workloads:
            why = self._why_missing(w)
            if w.group == 'network' and no_net:
                continue
            if why:
                self._skip(w.name, why)
            elif done.get(w.name, 0) < self.args.repeat:
                todo.append(w)
        return todo

    def run(self):
        if self.args.what == 'network' and net.why_not():
            raise Refusal(f'nothing to measure: {net.why_not()}')
        os.makedirs(self.out, exist_ok=True)
        self._check_same()
        done = self._load_done()
        self.places = Places(self.out, self.args.seed)
        with open(self._raw_path(), 'a', encoding='utf-8') as self.raw, contextlib.ExitStack() as stack:
            stack.callback(self._finish)
            self.domain = domains.make(self.args, self.places.work)
            if self.args.nice:
                self._renice()
            todo = self._todo(done)
            self._start_peer(todo)
            self._prepare()
            self._save_run()
            progress = Progress(sum(self.args.repeat - done.get(w.name, 0) for w in todo))
            for group in wl.GROUPS:
                self._group(group, todo, done, progress)
        if self.put_off:
            self._say_put_off()
        if self.failed:
            raise Refusal(f'failed, and left out: {", ".join(self.failed)}; the same command tries them again')

    def _say_put_off(self):
        say(f'scbench: {self.put_off} workloads were not begun, for the {self.args.minutes} minutes were over: the same command goes on with them')

    def _renice(self):
        try:
            os.setpriority(os.PRIO_PROCESS, 0, self.args.nice)
            self.domain.nice(self.args.nice)
        except PermissionError:
            raise Refusal(f'--nice {self.args.nice}: only root may raise priorities') from None

    def _finish(self):
        self._close_helpers()
        self._end_net()
        if self.peer:
            self.peer.close()
        if self.domain:
            if not isinstance(self.domain, domains.Own):
                self.domain.pin(None)
                if self.args.nice:
                    self.domain.nice(0)
                subprocess.run(self.domain.scrun_words(self.places.mount) + ['rm', '-rf', self.places.remote], env=self.domain.env,
                               check=False)
            self.domain.close()
        shutil.rmtree(self.places.work, ignore_errors=True)


def _late(*_):
    raise Refusal(f'a helper did not answer within {ANSWER_SECONDS} s: is the domain alive? (scctl status)')


def _ended(*_):
    raise KeyboardInterrupt


def run(args):
    """`scbench run`. Returns the exit status."""
    signal.signal(signal.SIGALRM, _late)
    signal.signal(signal.SIGTERM, _ended)
    Run(args).run()
    return 0
