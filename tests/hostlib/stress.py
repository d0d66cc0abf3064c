#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Much at once, and processes killed at any instant: everything is right, and nothing is left afterwards.

usage: stress.py VHOST-SCD SC-AGENT SCRUN STRESS [--seed N] [--full]

Prints TAP. The domain is a loopback one of its own. After each test the broker and the agent must hold what they held before:
descriptors, sessions, channels, tickets, open files, mappings of shared memory; and, over many execs, memory. --full: the
numbers that a release is judged by (10,000 execs, minutes of kills); without it less of the same. The seed of the kills is
printed.
"""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time

from domain import Domain

# Growth of a process that is no leak: caches, the allocator's rounding.
SLACK_KIB = 1536


def pids_of_groups(groups):
    """Processes of these process groups."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) in groups and fields[0] != "Z":
            found.append(int(name))
    return found


def kill(pid):
    """kill -9; False if it has gone by itself."""
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def shared_mappings(pid):
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as f:
        return sum("memfd:" in line for line in f)


class Stress:
    """Each method test_* returns None or a text that says what is wrong."""

    def __init__(self, domain, scrun, worker, args):
        self.d, self.scrun, self.worker, self.args = domain, scrun, worker, args
        self.place = domain.dir + "/mnt"
        self.before = None

    def command(self, *work):
        return [self.scrun, "--storage", "d:" + self.place, "--", *work]

    def run(self, mode, *args, timeout=900):
        r = subprocess.run(self.command(self.worker, mode, self.place, *map(str, args)), capture_output=True, text=True,
                           check=False, timeout=timeout)
        return None if (r.returncode, r.stdout) == (0, "ok\n") else f"{r.returncode}: {r.stdout[-1000:]}{r.stderr[-1000:]}"

    def held(self):
        """What broker and agent hold."""
        s = self.d.status()
        out = {k: s[k] for k in ("channels_used", "agent_sessions", "open_files", "tickets", "processes", "connections")}
        for name, p in (("broker", self.d.scd), ("agent", self.d.agent)):
            out[name + " descriptors"] = len(os.listdir(f"/proc/{p.pid}/fd"))
            out[name + " shared mappings"] = shared_mappings(p.pid)
        return out

    def settle(self):
        """Waits until nothing is held that was not held at first; what is wrong, if that does not come."""
        for _ in range(300):
            now = self.held()
            if now == self.before:
                return None
            time.sleep(0.1)
        return "held: " + ", ".join(f"{k} {now[k]} (before: {v})" for k, v in self.before.items() if now[k] != v)

    def memory(self):
        return {"broker": rss_kib(self.d.scd.pid), "agent": rss_kib(self.d.agent.pid)}

    def grown(self, first):
        return [f"{k}: {first[k]} KiB, then {v} KiB" for k, v in self.memory().items() if v > first[k] + SLACK_KIB]

    def test_1_threads(self):
        """256 threads, mixed calls, some cancelled in them"""
        return self.run("threads", 256, 200 if self.args.full else 10, self.args.seed)

    def test_2_forks(self):
        """200 processes at once with inherited descriptors"""
        return self.run("forks", 200)

    def test_3_execs(self):
        """executing again and again: no growth"""
        wrong = self.run("execs", 200) or self.settle()
        first = self.memory()
        wrong = wrong or self.run("execs", 10000 if self.args.full else 600, timeout=3000) or self.settle()
        return wrong or "; ".join(self.grown(first)) or None

    def some_work(self, rng):
        """One of several programs, in a process group of its own."""
        here = f"{self.place}/k{rng.randrange(8)}"
        work = rng.choice([
            [self.worker, "threads", here, "12", "200", "1"],
            [self.worker, "forks", here, "12"],
            [self.worker, "execs", here, "300"],
            ["sh", "-c", f"cd {here}; i=0; while [ $i -lt 200 ]; do flock lock sh -c 'cat f | wc -c; echo x >> f'; mv f g; cp g f; "
             "i=$((i + 1)); done"],
            ["tar", "-cf", here + "/t.tar", "-C", "/etc", "."],
        ])
        script = 'mkdir -p "$0"; exec "$@"'
        return subprocess.Popen(self.command("sh", "-c", script, here, *work), start_new_session=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def test_4_kills(self):
        """kill -9 of random processes under load leaves nothing"""
        rng = random.Random(self.args.seed)
        running = []
        end = time.monotonic() + (180 if self.args.full else 12)
        kills = 0
        try:
            while time.monotonic() < end:
                running = [p for p in running if p.poll() is None]
                while len(running) < 6:
                    running.append(self.some_work(rng))
                time.sleep(rng.random() ** 3 * 0.2)
                victims = pids_of_groups({p.pid for p in running})
                kills += bool(victims) and kill(rng.choice(victims))
        finally:
            for p in running:
                for victim in pids_of_groups({p.pid}):
                    kill(victim)
                p.wait()
        print(f"# {kills} kills", flush=True)
        wrong = self.settle()
        if wrong or kills < 5:
            return wrong or "hardly anything was killed"
        # no lock is left behind, and service goes on
        return self.run("threads", 8, 20, 1) or self.flocks() or self.settle()

    def flocks(self):
        for i in range(8):
            lock = f"{self.place}/k{i}/lock"
            r = subprocess.run(self.command("sh", "-c", f"mkdir -p {self.place}/k{i}; flock -n {lock} true"), check=False, timeout=60)
            if r.returncode:
                return f"{lock} is still held"
        return None

    def all(self):
        names = sorted(n for n in dir(self) if n.startswith("test_"))
        failed = 0
        print(f"1..{len(names)}\n# seed {self.args.seed}", flush=True)
        subprocess.run(self.command("true"), check=True, timeout=60)
        self.run("forks", 40)  # makes pools as large as they get
        time.sleep(1)
        self.before = self.held()
        for i, name in enumerate(names, 1):
            test = getattr(self, name)
            start = time.monotonic()
            wrong = test() or self.settle()
            print(("not " if wrong else "") + f"ok {i} - {test.__doc__} # {time.monotonic() - start:.1f} s", flush=True)
            failed += bool(wrong)
            if wrong:
                print("".join(f"# {line}\n" for line in wrong.splitlines()), end="", flush=True)
        return failed


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    for name in ("scd", "agent", "scrun", "worker"):
        p.add_argument(name)
    p.add_argument("--seed", type=int, default=int(time.time()) % 1000000)
    p.add_argument("--full", action="store_true")
    args = p.parse_args()
    domain = Domain(args.scd, args.agent, ["--channels", "254", "--window-size", "4G"])
    failed = 1
    try:
        domain.start_broker()
        domain.start_agent()
        subprocess.run([args.scrun, "--storage", "d:" + domain.dir + "/mnt", "--wait", "20", "--", "true"], check=True, timeout=60)
        failed = Stress(domain, args.scrun, args.worker, args).all()
    finally:
        if failed and os.environ.get("KEEP_LOGS"):
            shutil.copytree(domain.dir, os.environ["KEEP_LOGS"], dirs_exist_ok=True, ignore=shutil.ignore_patterns("run", "root"))
        domain.stop()
    sys.exit(failed != 0)


main()
