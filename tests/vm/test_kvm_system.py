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
    """Makes images and program in `work`."""
    for role, agent, image in (("storage", "sc-agent-static", "image"), ("network", "sc-agent-net-static", "image-net")):
        run([os.path.join(TOP, "kvm/build-image.sh"), "--role", role, "--agent", os.path.join(BUILD, "guest-agent", agent), "--out",
             os.path.join(work, image)], timeout=900)
    lib = os.path.join(BUILD, "hostlib")
    run(["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-I" + os.path.join(TOP, "include"), "-o", os.path.join(work, "nullcalls"),
         os.path.join(TOP, "tests/kvm/nullcalls.c"), "-L" + lib, "-lhostsc", "-Wl,-rpath," + lib])


def table(title, facts):
    return "\n%s\n\n| what | value |\n| --- | --- |\n%s" % (
        title, "".join("| %s | %s |\n" % (k, v) for k, v in sorted(facts.items()) if not isinstance(v, dict)))


def columns(heads, tallies):
    """A table of what KVM did in several kinds of intervals."""
    rows = "".join("| %s |%s\n" % (what, "".join(" %d |" % t.get(what, 0) for t in tallies)) for what in sorted(set().union(*tallies)))
    return "\n| what KVM did | %s |\n|%s\n%s" % (" | ".join(heads), " --- |" * (len(heads) + 1), rows or "| nothing |%s\n" % (" 0 |" * len(heads)))


def spinning(facts):
    """Calls one after the other."""
    others = facts["calls"] - facts["spun"]
    return ("\nNull calls one after the other: %d calls, %d ns each (median). For %d of them caller and poller spun; the other %d took longer than "
            "a caller spins, or followed one that did.\n" % (facts["calls"], facts["ns per call"], facts["spun"], others)
            + columns(["%d calls for which both spun (%d ms)" % (facts["spun"], facts["ms spun"]),
                       "the other %d (%d ms)" % (others, facts["ms other"]), "as long a time as all, without calls"],
                      [facts["during spun"], facts["during others"], facts["without"]]))


def sleeping(call, bell):
    """Calls with pauses, and bells without calls."""
    text = ("\nNull calls with pauses in which both sides fall asleep, and bells that bring no call (of %d each, those with exactly one bell each "
            "way, or one bell in):\n" % call["all calls"])
    text += columns(["%d calls" % call["calls"], "without calls", "%d bells" % bell["calls"], "without bells"],
                    [t[k] for t in (call, bell) for k in ("during calls", "without calls")])
    for what, t in (("calls", call), ("bells", bell)):
        text += "\nIn all %d %s: %s.\n" % (t["all calls"], what, ", ".join("%s %d" % item for item in sorted(t["during all rounds"].items())))
    return text


def text_of(found, seconds, loads):
    """The measurements as Markdown. loads: of the machine below, at the beginning and at the end."""
    parts = ["Run of %s, %d s in all, on a machine with %d processors (load %.0f at the beginning, %.0f at the end).\n" % (
        time.strftime("%Y-%m-%d"), seconds, os.cpu_count(), *loads)]
    for key, title in (("machine", "First level"), ("boot", "Second level: boot until the agent serves"),
                       ("memory slots", "Attach and detach while calls run"), ("network", "Network domain, DPDK in the guest"), ("huge pages", "Huge pages, pins"), ("restart", "`virsh destroy`, `virsh start` until it serves")):
        if key in found:
            parts.append(table(title, found[key]))
    if "spinning" in found:
        parts.append(spinning(found["spinning"]))
    if "sleep" in found and "bell" in found:
        parts.append(sleeping(found["sleep"], found["bell"]))
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
    found, began, load = {}, time.monotonic(), os.getloadavg()[0]
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
    text = text_of(found, time.monotonic() - began, (load, os.getloadavg()[0]))
    for path in [os.path.join(cache, "kvm-report.md")] + ([args.report] if args.report else []):
        if not os.path.exists(path):
            with open(path, "w", encoding="utf-8") as f:
                f.write(BEGIN + END)
        put(path, text)
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
