#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The whole system on real KVM, in the KVM test bed (kvm/testbed.py), on any machine; `./check --kvm` runs it.

Here only the preparations: the guest's image, a program, and the first-level VM, in which kvm_inside.py is run. Its tests
are counted as they come. Its measurements go to .cache/check/kvm-report.md, and with --report FILE into FILE, where they
replace what is between the lines "<!-- report -->" and "<!-- end of report -->".
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vmtest import BUILD, TOP, run  # noqa: E402

TIMEOUT = 1200  # of the first-level VM, seconds; a run takes a few minutes on two idle cores
SLOW = 4        # times as long as on this machine may things take in there
KERNEL = r"\[ *\d+\.\d+\] kvm "  # the first level's KVM: of registers that the guest's kernel tries, amid the tests' lines
BEGIN, END = "<!-- report -->\n", "<!-- end of report -->\n"


def prepare(work):
    """Makes image and program in `work`."""
    run([os.path.join(TOP, "kvm/build-image.sh"), "--role", "storage", "--agent", os.path.join(BUILD, "guest-agent/sc-agent-static"), "--out",
         os.path.join(work, "image")], timeout=900)
    lib = os.path.join(BUILD, "hostlib")
    run(["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-I" + os.path.join(TOP, "include"), "-o", os.path.join(work, "nullcalls"),
         os.path.join(TOP, "tests/kvm/nullcalls.c"), "-L" + lib, "-lhostsc", "-Wl,-rpath," + lib])


def table(title, facts):
    return "\n%s\n\n| what | value |\n| --- | --- |\n%s" % (
        title, "".join("| %s | %s |\n" % (k, v) for k, v in sorted(facts.items()) if not isinstance(v, dict)))


def comparison(title, facts):
    """A table of intervals with calls beside those without."""
    with_calls, without = facts["during calls"], facts["without calls"]
    rows = "".join("| %s | %d | %d |\n" % (k, with_calls.get(k, 0), without.get(k, 0)) for k in sorted(set(with_calls) | set(without)))
    return "\n%s: %s\n\n| what KVM did | during the %d calls | in as long a time without |\n| --- | --- | --- |\n%s" % (
        title, facts["said"], facts["calls"], rows or "| nothing | 0 | 0 |\n")


def text_of(found, seconds):
    """The measurements as Markdown."""
    parts = ["Run of %s, %d s in all.\n" % (time.strftime("%Y-%m-%d"), seconds)]
    for key, title in (("machine", "First level"), ("boot", "Second level: boot until the agent serves"),
                       ("memory slots", "Attach and detach while calls run"), ("huge pages", "Huge pages, pins"), ("restart", "`virsh destroy`, `virsh start` until it serves")):
        if key in found:
            parts.append(table(title, found[key]))
    for key, title in (("spinning", "Spinning calls (rounds in which nobody slept)"), ("sleeping", "Sleeping calls (in which both sides slept)")):
        if key in found:
            parts.append(comparison(title, found[key]))
    for key, why in (("spinning", "Rounds with a doorbell are left out above: a tick of the host, or the machine below, took a CPU away for longer "
                      "than the caller spins, so that a side slept."),
                     ("sleeping", "Left out above are calls during which a side was still awake, or the guest's disk rang as well.")):
        if key in found:
            parts.append("\n%s In all %d calls: %s.\n" % (why, found[key]["all calls"], ", ".join(
                "%s %d" % item for item in sorted(found[key]["during all rounds"].items())) or "nothing"))
    if "totals" in found:
        parts.append(table("KVM's totals (debugfs, not zero)", found["totals"]))
    return "".join(parts)


def put(path, text):
    """Replaces the report in a document."""
    with open(path, encoding="utf-8") as f:
        before, _, rest = f.read().partition(BEGIN)
    with open(path, "w", encoding="utf-8") as f:
        f.write(before + BEGIN + text + END + rest.partition(END)[2])


def main():
    ap = argparse.ArgumentParser(description="Runs the whole system on real KVM, in a VM.")
    ap.add_argument("--report", default="", metavar="FILE", help="put the measurements into this document as well")
    ap.add_argument("--timeout", type=int, default=TIMEOUT, help="of the VM, seconds (default %(default)s)")
    ap.add_argument("--seed", type=int, default=0, help="taken, as by all tests of this directory; of no use here")
    ap.add_argument("-v", action="store_true", help="likewise")
    args = ap.parse_args()
    cache = os.path.join(TOP, ".cache/check")
    os.makedirs(cache, exist_ok=True)
    found, began = {}, time.monotonic()
    # Below the source tree: the test bed has a /tmp of its own.
    with tempfile.TemporaryDirectory(prefix="kvm-", dir=cache) as work:
        os.chmod(work, 0o755)
        prepare(work)
        env = dict(os.environ, VHOST_SC_BUILD=BUILD, VHOST_SC_CONFDIR="/run/sc/conf", VHOST_SC_STATEDIR="/run/sc/state",
                   VHOST_SC_TEST_SLOW=str(SLOW))
        argv = [os.path.join(TOP, "kvm/testbed.py"), "--memory", "4096", "--cpus", "3", "--timeout", str(args.timeout), "--",
                sys.executable, os.path.join(TOP, "tests/vm/kvm_inside.py"), work, "-v"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TOP, env=env)
        for line in process.stdout:
            # unittest has begun a line when the test reports; what belongs to it follows.
            report = re.match(r"(.*)REPORT (.*?) (\{.*\})$", line)
            if report:
                found[report[2]] = json.loads(report[3])
                print(report[1], end="", flush=True)
            elif not re.match(KERNEL, line):
                print(line, end="", flush=True)
        status = process.wait()
    text = text_of(found, time.monotonic() - began)
    for path in [os.path.join(cache, "kvm-report.md")] + ([args.report] if args.report else []):
        if not os.path.exists(path):
            with open(path, "w", encoding="utf-8") as f:
                f.write(BEGIN + END)
        put(path, text)
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
