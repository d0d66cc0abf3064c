#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Programs whose domain's agent is killed all the time: they do not notice.

usage: recover.py VHOST-SCD SC-AGENT SCRUN [--seed N] [--turns N] [PART...]

Prints TAP. Each part of recover_work.py runs natively, then on a loopback domain whose agent is killed at random moments and started
again; both must say the same. The seed is printed. (What only the host's kernel can tell of a crash of a guest is tested elsewhere:
tests/faults.)
"""
import argparse
import difflib
import os
import random
import subprocess
import sys
import tempfile
import time

from domain import Domain

WORK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recover_work.py")
PARTS = {"counter": 800, "flocks": 800, "offsets": 150, "descriptors": 400, "processes": 60, "database": 150, "interrupted": 40, "mapped": 2000, "wal": 120, "names": 400}


def run(command, env=None):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def killed_meanwhile(domain, p, rng):
    """Kills and starts the agent until the process has ended. Returns its output, and how often."""
    kills, end = 0, time.monotonic() + 120
    while p.poll() is None and time.monotonic() < end:
        try:
            p.wait(rng.uniform(0.01, 0.25))
        except subprocess.TimeoutExpired:
            domain.kill_agent()
            time.sleep(rng.choice((0, 0, 0.05)))
            domain.start_agent()
            kills += 1
    if p.poll() is None:
        p.kill()
        return "did not end", kills
    return p.stdout.read(), kills


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    for name in ("scd", "agent", "scrun"):
        parser.add_argument(name)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1000000)
    parser.add_argument("--turns", type=int, help="of each part, instead of its own")
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    args = parser.parse_args()
    rng = random.Random(args.seed)
    print("# seed %d" % args.seed)
    print("1..%d" % len(args.parts), flush=True)
    domain, failed = Domain(args.scd, args.agent, ["--deadline-ms", "60000"]), 0
    try:
        domain.start_broker()
        domain.start_agent()
        place = domain.dir + "/mnt"
        for i, part in enumerate(args.parts, 1):
            turns = str(args.turns or PARTS[part])
            with tempfile.TemporaryDirectory() as native:
                want = run([sys.executable, WORK, native, part, turns]).communicate(timeout=120)[0]
            p = run([args.scrun, "--storage", "d:" + place, "--wait", "20", "--", sys.executable, WORK, place, part, turns])
            got, kills = killed_meanwhile(domain, p, rng)
            print(("ok %d" if got == want else "not ok %d") % i + " - %s, %d kills" % (part, kills), flush=True)
            if got != want:
                failed += 1
                for line in list(difflib.unified_diff(want.splitlines(), got.splitlines(), "native", "served", lineterm="", n=1))[:30]:
                    print("# " + line, flush=True)
    finally:
        domain.stop()
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
