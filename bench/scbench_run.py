# SPDX-License-Identifier: BSD-3-Clause
"""scbench_run.py - `scbench run`: carries out workloads and keeps every sample.

For each workload it finds how many operations fill a sample, then does rounds: each round asks every side (ours and the base
cases) for one sample, in an order that the seed shuffles. A finished round is one line of DIR/raw.jsonl, so that a run that
was stopped goes on where it was. DIR/run.json says on what it ran; a run on something else is not mixed with it.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
import time

import scbench_machine as machine
import scbench_workloads as wl
from scbench_common import Refusal, find, read_text, say, write_json
from scbench_domain import Domain, OwnLoopback

FORMAT = 1
FILES, FOLDERS = 400, 40
ANSWER_SECONDS = 300
CALIBRATE_MAX = 1 << 32


class Helper:
    """A measuring process: see bench/measure.h."""

    def __init__(self, argv, env):
        self.argv = argv
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.pid = self.process.pid

    def ask(self, command, count, args=()):
        """One request; returns the answer. Raises Refusal if it failed."""
        line = ' '.join([command, str(count), *args])
        signal.alarm(ANSWER_SECONDS)
        try:
            self.process.stdin.write(line + '\n')
            self.process.stdin.flush()
            text = self.process.stdout.readline()
        except BrokenPipeError:
            text = ''
        finally:
            signal.alarm(0)
        if not text:
            raise Refusal(f'helper {" ".join(self.argv)} ended at "{line}" (status {self.process.wait()})')
        answer = json.loads(text)
        if 'error' in answer:
            raise Refusal(f'"{line}" failed: {answer["error"]}')
        return answer

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def _write(path, text, mode=0o755):
    with open(path, 'w', encoding='utf-8') as f:
        f.write(text)
    os.chmod(path, mode)


def make_tree(path, seed):
    """A tar archive of FILES files in FOLDERS directories, the same for the same seed: a source tree's sizes, more or less."""
    rng = random.Random(seed)
    source = path + '.d'
    for i in range(FILES):
        folder = os.path.join(source, f'part{i % FOLDERS}')
        os.makedirs(folder, exist_ok=True)
        text = ''.join(rng.choice('abcdefgh  \n') for _ in range(int(min(20000, rng.lognormvariate(7.5, 1)))))
        _write(os.path.join(folder, f'file{i}.c'), text, 0o644)
    with tarfile.open(path, 'w') as tar:
        tar.add(source, arcname='tree', filter=lambda m: setattr(m, 'mtime', 1500000000) or m)
    shutil.rmtree(source)


def make_local(local, seed):
    """Scripts and archives that workloads read, on the host's file system for both sides."""
    os.makedirs(local)
    make_tree(os.path.join(local, 'tree.tar'), seed)
    _write(os.path.join(local, 'reset-db'), 'rm -f "$1"/app.db*\nsqlite3 "$1/app.db" "create table t(a integer, b text);"\n')
    _write(os.path.join(local, 'reset-untar'), 'rm -rf "$1/untar"\nmkdir "$1/untar"\n')
    _write(os.path.join(local, 'make-repo'),
           'set -e\nmkdir -p "$1/repo"\ntar -xf "$2" -C "$1/repo"\ncd "$1/repo"\ngit init -q .\ngit add .\n'
           'git -c user.name=b -c user.email=b@localhost commit -q -m tree\n')
    rng = random.Random(seed)
    row = lambda i: f"insert into t values({i}, '{rng.getrandbits(256):064x}');\n"
    _write(os.path.join(local, 'insert.sql'), 'begin;\n' + ''.join(row(i) for i in range(2000)) + 'commit;\n', 0o644)
    _write(os.path.join(local, 'commit.sql'), ''.join(row(i) for i in range(20)), 0o644)


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
        say(f'scbench: {name} done; about {each * self.left:.0f} s left')


class Run:
    """One `scbench run`."""

    def __init__(self, args):
        self.args = args
        self.out = os.path.abspath(args.out)
        self.workloads = wl.select(args.what)
        self.helpers = {}
        self.domain = None
        self.programs = machine.fingerprint()
        self.counts = {}
        self.app_seconds = 0.0
        self.cpus = sorted(os.sched_getaffinity(0))
        if len(self.cpus) < 2:
            raise Refusal('two CPUs are needed, one for the application and one for the domain')
        # The last two: interrupts and housekeeping tend to the first.
        self.cpu, self.peer = self.cpus[-2], self.cpus[-1]

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
        return {'format': FORMAT, 'domain': self.args.domain, 'seed': self.args.seed, 'nice': self.args.nice,
                'sample_ms': self.args.sample_ms, 'programs': self.programs,
                'kernel': os.uname().release}

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
            'pinning': f'ring: application on CPU {self.cpu}, agent or VM on CPU {self.peer}; the rest: none',
            'file_systems': {'base': machine.file_system(self.base), 'domain': self._remote_fs()},
            'resumed': old.get('resumed', []),
        }
        if old:
            now = record['machine']
            record['machine'] = old['machine']
            record['resumed'].append({'date': now['date'], 'load_average': now['load_average']})
        write_json(path, record)

    # ---- set-up ----

    def _places(self):
        """Directories: base case, domain as seen under scrun, domain as the C API names it."""
        work = os.path.join(self.out, 'work')
        shutil.rmtree(work, ignore_errors=True)
        self.base, self.mount, self.local = (os.path.join(work, n) for n in ('base', 'domain', 'local'))
        self.api = f'scbench-{os.getpid()}'
        self.remote = os.path.join(self.mount, self.api)
        for d in (self.base, os.path.join(work, 'root')):
            os.makedirs(d)
        if ' ' in work:
            raise Refusal(f'--out {self.args.out}: no blanks in the path, please')
        make_local(self.local, self.args.seed)
        return work

    def _remote_fs(self):
        done = subprocess.run(self.domain.scrun_words(self.mount) + ['stat', '-f', '-c', '%T', self.remote], env=self.domain.env,
                              stdout=subprocess.PIPE, text=True, check=False)
        return done.stdout.strip() or 'unknown'

    def _helper(self, kind):
        if kind in self.helpers:
            return self.helpers[kind]
        program, scrun, pinned = wl.HELPERS[kind]
        argv = [find(program, 'bench/' + program)]
        if kind == 'ring-sleepy':
            argv.append('--sleepy')
        argv += ['--agent-pid', str(self.domain.agent_pid), '--broker-pid', str(self.domain.broker_pid)]
        if pinned:
            argv += ['--peer-cpu', str(self.peer)]
        if pinned and not scrun:
            argv += ['--cpu', str(self.cpu)]
        if program == 'scbench-ring':
            argv.append(self.domain.name)
        helper = Helper((self.domain.scrun_words(self.mount) if scrun else []) + argv, self.domain.env)
        self.helpers[kind] = helper
        if scrun:
            # Attached before it is pinned: the library asks then how many CPUs there are, and spins only if two.
            helper.ask('stat', 1, [self.remote])
        if scrun and pinned:
            os.sched_setaffinity(helper.pid, {self.cpu})
        return helper

    def _close_helpers(self):
        while self.helpers:
            self.helpers.popitem()[1].close()

    def _scrun_sh(self, script, *args):
        subprocess.run(self.domain.scrun_words(self.mount) + ['sh', '-c', script, 'sh', *args], env=self.domain.env, check=True)

    def _prepare(self):
        """Files and directories that workloads work on, on both sides."""
        subprocess.run(['mkdir', os.path.join(self.base, 'names')], check=True)
        self._scrun_sh('mkdir "$1" && mkdir "$1/names"', self.remote)
        for kind, where in (('native', self.base), ('scrun', self.remote)):
            self._helper(kind).ask('fill', wl.DATA_BYTES, [str(self.args.seed), where + '/data'])
            if any(w.name == 'git-status' for w in self.workloads) and shutil.which('git'):
                words = self._words(wl.Side(kind, 'spawn', (
                    ('{scrun}',) if kind == 'scrun' else ()) + ('sh', '{local}/make-repo', where, '{local}/tree.tar')))
                self._helper('native').ask('spawn', 1, words)
        self._close_helpers()

    def _words(self, side):
        """A side's arguments with the places filled in."""
        return self._fill(side, side.args)

    def _fill(self, side, args):
        remote = wl.HELPERS[side.helper][1] or '{scrun}' in args
        places = {'d': self.remote if remote else self.base, 'api': self.api, 'local': self.local, 'seed': str(self.args.seed)}
        words = []
        for a in args:
            words += self.domain.scrun_words(self.mount) if a == '{scrun}' else [a.format(**places)]
        return words

    # ---- measuring ----

    def _ask(self, helper, command, count, words):
        """One request; adds what it cost the application to app_seconds, untimed parts included."""
        before = machine.process_clock(helper.pid)
        answer = helper.ask(command, count, words)
        self.app_seconds += max(answer['app_ns'] / 1e9, machine.process_clock(helper.pid) - before)
        return answer

    def _sample(self, side, count):
        helper = self._helper(side.helper)
        for command, *args in side.before:
            self._ask(helper, command, 1, self._fill(side, tuple(args)))
        return self._ask(helper, side.command, count, self._words(side))

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

    def _counts(self, w):
        if w.name in self.counts:
            return self.counts[w.name]
        counts = {name: self._calibrate(w, side) for name, side in w.sides().items()}
        # Sides that do the same work do the same amount of it.
        for name, side in w.sides().items():
            if side.command == w.ours.command:
                counts[name] = min(counts[name], counts['ours'])
                counts['ours'] = counts[name]
        self.counts[w.name] = counts
        return counts

    def _round(self, w, number, counts):
        rng = random.Random(f'{self.args.seed}/{w.name}/{number}')
        names = list(w.sides())
        rng.shuffle(names)
        sides = w.sides()
        return {'w': w.name, 'round': number, 'order': names, 'sides': {n: self._sample(sides[n], counts[n]) for n in names}}

    def _workload(self, w, first, raw, progress):
        counts = self._counts(w)
        others = machine.Others([self.domain.agent_pid, self.domain.broker_pid])
        self.app_seconds = 0.0
        for number in range(first, self.args.repeat):
            entry = self._round(w, number, counts)
            raw.write(json.dumps(entry, separators=(',', ':')) + '\n')
            raw.flush()
            progress.round()
        raw.write(json.dumps({'w': w.name, 'others': others.share(self.app_seconds), 'load_average': os.getloadavg()[0]},
                             separators=(',', ':')) + '\n')
        raw.flush()
        progress.show(w.name)

    def _missing(self, w):
        return w.needs and not shutil.which(w.needs)

    def _group(self, group, done, raw, progress):
        todo = [w for w in self.workloads if w.group == group and done.get(w.name, 0) < self.args.repeat]
        if not todo:
            return
        self.domain.pin(self.peer if group == 'ring' else None)
        for w in todo:
            if self._missing(w):
                say(f'scbench: {w.name} is left out: {w.needs} is not installed')
                continue
            self._workload(w, done.get(w.name, 0), raw, progress)
        self._close_helpers()

    def run(self):
        os.makedirs(self.out, exist_ok=True)
        self._check_same()
        done = self._load_done()
        work = self._places()
        rounds = sum(max(0, self.args.repeat - done.get(w.name, 0)) for w in self.workloads if not self._missing(w))
        try:
            self.domain = OwnLoopback(os.path.join(work, 'root')) if self.args.domain == 'loopback' else Domain(self.args.domain)
            if self.args.nice:
                self._renice()
            self._prepare()
            self._save_run()
            progress = Progress(rounds)
            with open(self._raw_path(), 'a', encoding='utf-8') as raw:
                for group in wl.GROUPS:
                    self._group(group, done, raw, progress)
        finally:
            self._finish(work)

    def _renice(self):
        try:
            os.setpriority(os.PRIO_PROCESS, 0, self.args.nice)
            self.domain.nice(self.args.nice)
        except PermissionError:
            raise Refusal(f'--nice {self.args.nice}: only root may raise priorities') from None

    def _finish(self, work):
        self._close_helpers()
        if self.domain:
            self.domain.pin(None)
            if self.args.nice:
                self.domain.nice(0)
            subprocess.run(self.domain.scrun_words(self.mount) + ['rm', '-rf', self.remote], env=self.domain.env, check=False)
            self.domain.close()
        shutil.rmtree(work, ignore_errors=True)


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
