# SPDX-License-Identifier: BSD-3-Clause
"""Unmodified programs while their domain is killed: sqlite3, git, tar, fio, postgres; and processes that race for names and file ends.

Each knows what it was told is done, and looks for exactly that at the end: no more, no less.
"""
import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import lab
from workload import HANG_SECONDS, Failure, Lines, Workload, text

HERE = os.path.dirname(os.path.abspath(__file__))


class Reporters(Workload):
    """Processes that report each thing that was done by a line, until their standard input ends. What they report is kept."""
    count = 2

    def command(self, number):
        raise NotImplementedError

    def prepare(self):
        super().prepare()
        self.procs, self.reports = [], []

    def run(self):
        import select
        for i in range(self.count):
            self.procs.append(self.spawn(*self.command(i), stdin=subprocess.PIPE))
            self.reports.append([])
        lines = {p.stdout.fileno(): (Lines(p.stdout.fileno()), i) for i, p in enumerate(self.procs)}
        last = time.monotonic()
        closed = False
        while lines:
            if self.stop.is_set() and not closed:
                closed = True
                for p in self.procs:
                    p.stdin.close()
            for fd in select.select(list(lines), [], [], 0.2)[0]:
                source, i = lines[fd]
                if not source.fill():
                    del lines[fd]
                while (line := source.pop()) is not None:
                    self.reports[i].append(line)
                    self.acknowledged += 1
                last = time.monotonic()
            if time.monotonic() - last > HANG_SECONDS:
                raise Failure("nothing was reported for %d s" % HANG_SECONDS)
        for i, p in enumerate(self.procs):
            if p.wait(HANG_SECONDS):
                raise Failure("process %d: status %d\n%s" % (i, p.returncode, text(p.stderr.read())[-3000:]))
        if not self.stop.is_set():
            raise Failure("its processes ended too early")

    def end(self):
        for p in self.procs:
            if p.poll() is None:
                p.kill()
            p.wait()


class Python(Reporters):
    """A program of ours: programs.py NAME DIRECTORY NUMBER."""

    def command(self, number):
        return [sys.executable, os.path.join(HERE, "programs.py"), self.name.replace("-", "_"), self.dir, str(number)]


class Race(Python):
    name = "race"
    count = 3
    about = "3 processes append to one file, and race for names by O_EXCL, link, rename and mkdir: each effect exactly once"

    def verify(self):
        out = self.call("cat", self.dir + "/log")
        have = collections.Counter(out.splitlines())
        want = collections.Counter(line[2:] for r in self.reports for line in r if line[0] == "a")
        if have != want:
            raise Failure("appended records: missing %s, more than once or not acknowledged %s" %
                          (list((want - have).items())[:10], list((have - want).items())[:10]))
        won = collections.Counter(line[2:] for r in self.reports for line in r if line[0] == "w")
        twice = [k for k, n in won.items() if n > 1]
        if twice:
            raise Failure("won by more than one: %s" % twice[:10])
        there = set(self.call("ls", self.dir).split())
        missing = [k for k in won if k not in there]
        if missing:
            raise Failure("made and not there: %s" % missing[:10])
        if [n for n in there if n.startswith("tmp")]:
            raise Failure("there are names that were renamed or unlinked: %s" % sorted(there))


class Sqlite(Python):
    name = "sqlite"
    about = "2 processes commit transactions (rollback journal); integrity_check, and the rows are those that were acknowledged"

    def prepare(self):
        super().prepare()
        self.call(*self.command(-1))

    def verify(self):
        out = self.call(sys.executable, "-c", "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
                        "print(*[r[0] for r in c.execute('pragma integrity_check')]); "
                        "print(*['%s.%d' % r for r in c.execute('select who, n from t order by rowid')], sep='\\n')",
                        self.dir + "/db")
        check, *rows = out.splitlines()
        if check != "ok":
            raise Failure("integrity_check: " + out[:2000])
        have = collections.Counter(r for r in rows if r)
        want = collections.Counter(line for r in self.reports for line in r)
        if have != want:
            raise Failure("rows: missing %s, not acknowledged or twice %s" % (list((want - have).items())[:10], list((have - want).items())[:10]))


class SqliteWal(Sqlite):
    name = "sqlite-wal"
    about = "the same with a write-ahead log, whose index is a shared mapping"


class SqliteExclusive(Sqlite):
    name = "sqlite-wal-one"
    about = "one process with a write-ahead log and the index in its own memory"
    count = 1


class Git(Workload):
    name = "git"
    about = "commits, one process after the other; fsck, and as many commits as were acknowledged"
    needs = ("git",)
    identity = ["-c", "user.name=f", "-c", "user.email=f@localhost", "-c", "gc.auto=20"]

    def git(self, *argv):
        return self.call("git", "-C", self.dir, *self.identity, *argv)

    def prepare(self):
        super().prepare()
        self.git("init", "-q", ".")

    def run(self):
        while not self.stop.is_set():
            n = self.acknowledged
            self.call("sh", "-c", 'cd "$1" && mkdir -p d$(($2 % 7)) && echo "$2" > d$(($2 % 7))/f$2 && seq $2 > all', "sh", self.dir, str(n))
            self.git("add", "-A")
            self.git("commit", "-q", "-m", "commit %d" % n)
            self.acknowledged += 1

    def verify(self):
        self.git("fsck", "--full", "--strict")
        n = int(self.git("rev-list", "--count", "HEAD"))
        if n != self.acknowledged:
            raise Failure("%d commits, %d were acknowledged" % (n, self.acknowledged))
        dirty = self.git("status", "--porcelain")
        locks = self.call("find", self.dir, "-name", "*.lock")
        if dirty or locks:
            raise Failure("not clean:\n%s%s" % (dirty, locks))


class Tar(Workload):
    name = "tar"
    about = "extracts an archive, compares all of it, removes it"
    needs = ("tar",)

    def prepare(self):
        super().prepare()
        self.tmp = tempfile.mkdtemp(prefix="scfault-tar.")
        self.archive = self.tmp + "/t.tar"
        lab.must(["tar", "-C", lab.TOP, "-cf", self.archive, "include", "hostlib", "docs", "vhost-sc", "guest-agent", "tests/e2e"])

    def run(self):
        while not self.stop.is_set():
            here = "%s/%d" % (self.dir, self.acknowledged)
            self.call("sh", "-c", 'mkdir "$1" && tar -C "$1" -xf "$2"', "sh", here, self.archive)
            self.call("tar", "-C", here, "-df", self.archive)
            self.call("rm", "-r", here)
            self.acknowledged += 1

    def verify(self):
        left = self.call("ls", "-A", self.dir)
        if left:
            raise Failure("was removed and is there: " + left)

    def end(self):
        shutil.rmtree(self.tmp, ignore_errors=True)


class Fio(Workload):
    name = "fio"
    about = "random writes of 1 to 64 KiB by two threads, each block verified"
    needs = ("fio",)

    def run(self):
        while not self.stop.is_set():
            self.call("fio", "--name=v", "--directory=" + self.dir, "--thread", "--numjobs=2", "--size=8m", "--rw=randwrite", "--bsrange=1k-64k",
                      "--ioengine=" + self.rng.choice(["psync", "sync", "pvsync"]), "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
                      "--direct=%d" % 0, "--randseed=%d" % self.rng.getrandbits(30), "--fallocate=none", "--output-format=terse", "--verify_state_save=0")
            self.acknowledged += 1


class Postgres(Workload):
    name = "postgres"
    about = "pgbench on a server whose files are the domain's; its history and its sums are right"
    needs = ("pgbench",)
    user = "nobody"

    def bin(self, name):
        found = sorted(p for p in (os.path.join("/usr/lib/postgresql", v, "bin", name) for v in os.listdir("/usr/lib/postgresql")) if os.path.exists(p))
        return found[-1] if found else name

    def as_user(self):
        import pwd
        u = pwd.getpwnam(self.user)

        def become():
            lab.die_with_parent()
            os.setgroups([])
            os.setgid(u.pw_gid)
            os.setuid(u.pw_uid)
            lab.die_with_parent()
        return become

    def prepare(self):
        super().prepare()
        self.call("chown", self.user, self.dir)
        self.local = tempfile.mkdtemp(prefix="scfault-pg.")
        os.chmod(self.local, 0o777)
        # Made natively, carried over: initdb is not what is tested here.
        lab.must([self.bin("initdb"), "-D", self.local + "/db", "-A", "trust", "-U", "f", "--no-sync"], preexec_fn=self.as_user())
        lab.must(["tar", "-C", self.local, "-cf", self.local + "/db.tar", "db"])
        self.call("tar", "-C", self.dir, "-xf", self.local + "/db.tar")
        self.server = self.spawn(self.bin("postgres"), "-D", self.dir + "/db", "-k", self.local, "-h", "", "-c", "max_wal_size=64MB",
                                 "-c", "checkpoint_timeout=30s", preexec_fn=self.as_user(), stdout=subprocess.DEVNULL,
                                 stderr=open(self.local + "/log", "wb"))
        lab.wait_until(lambda: not lab.run([self.bin("pg_isready"), "-h", self.local, "-U", "f"]).returncode or self.server.poll() is not None, 60,
                       "postgres")
        self.bench("-i", "-q", "-s", "1")

    def bench(self, *argv):
        r = lab.run(["pgbench", "-h", self.local, "-U", "f", *argv, "postgres"], timeout=HANG_SECONDS + 60, cwd=self.local)
        if r.returncode:
            with open(self.local + "/log", encoding="utf-8", errors="replace") as f:
                raise Failure("pgbench: %s\npostgres: %s" % (r.stdout[-2000:], f.read()[-2000:]))
        return r.stdout

    def run(self):
        while not self.stop.is_set():
            out = self.bench("-c", "3", "-T", "3", "-n")
            self.acknowledged += int(re.search(r"actually processed: (\d+)", out)[1])

    def verify(self):
        r = lab.must(["psql", "-h", self.local, "-U", "f", "-At", "-c", "select count(*), (select sum(abalance) from pgbench_accounts) = sum(delta), "
                      "(select sum(bbalance) from pgbench_branches) = sum(delta), (select sum(tbalance) from pgbench_tellers) = sum(delta) "
                      "from pgbench_history", "postgres"]).strip()
        if r not in ("%d|t|t|t" % self.acknowledged, "0|||"):
            raise Failure("%d transactions were acknowledged; history and sums: %s" % (self.acknowledged, r))

    def end(self):
        if self.server.poll() is None:
            self.server.send_signal(signal.SIGINT)
            try:
                self.server.wait(30)
            except subprocess.TimeoutExpired:
                self.server.send_signal(signal.SIGQUIT)
                self.server.wait(30)
        shutil.rmtree(self.local, ignore_errors=True)
