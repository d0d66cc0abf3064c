#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Run unmodified programs natively and under scrun, and demand the same outcome.

Each case is a shell script in cases/ that works in the directory $D. It is run twice with the same $D: first natively on a
local directory, which is then moved away; then under `scrun --storage DOMAIN:$D=/…`, so that every path, and thus every
line of output, is the same. Compared are exit status, standard output and error, and the resulting tree (manifest.py: types,
modes, owners, sizes, link counts, contents, extended attributes), read back through scrun by another process.

Header lines of a case (comments):
    # what: TEXT              one line, shown
    # needs: PROG …           programs without which the case fails (missing programs are an error, not a skip)
    # timeout: SECONDS        for one run on loopback (default 60); --slow multiplies it
    # user: NAME              run as this user, in a directory that he owns (default root)
    # exclude: GLOB …         parts of the tree that are different by nature (say why in the case)
    # filter: SED-SCRIPT      applied to both outputs
    # only: loopback|vm       where it makes sense

Output: TAP on standard output, for ./check; details of a failure as TAP comments, whole outputs kept in --workdir.
"""

import argparse
import difflib
import fnmatch
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MANIFEST = os.path.join(HERE, "manifest.py")


class Case:
    """One script and what its header says."""

    def __init__(self, path):
        self.path = path
        self.name = os.path.splitext(os.path.basename(path))[0]
        self.fields = {}
        with open(path, encoding="utf-8") as f:
            for line in f:
                m = re.match(r"#\s*(what|needs|timeout|user|exclude|filter|only):\s*(.*)", line)
                if m:
                    self.fields[m.group(1)] = m.group(2).strip()

    def get(self, key, default=""):
        return self.fields.get(key, default)


class Result:
    """What a run left: status, output, tree."""

    def __init__(self, status, output, tree, seconds):
        self.status, self.output, self.tree, self.seconds = status, output, tree, seconds


def run_group(argv, env, timeout, user):
    """Run argv in its own process group; returns (status, output). A run over its time is killed, and says so."""

    def demote():
        os.setsid()
        if user:
            pw = pwd.getpwnam(user)
            os.initgroups(user, pw.pw_gid)
            os.setgid(pw.pw_gid)
            os.setuid(pw.pw_uid)

    with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, preexec_fn=demote, cwd="/") as p:
        try:
            out, _ = p.communicate(timeout=timeout)
            return p.returncode, out
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            out, _ = p.communicate()
            return "timeout after %d s" % timeout, out


class Runner:
    """Runs cases against one domain."""

    def __init__(self, args):
        self.args = args
        self.work = args.workdir or tempfile.mkdtemp(prefix="sc-e2e.")
        os.makedirs(self.work, exist_ok=True)
        os.chmod(self.work, 0o755)
        self.env = dict(os.environ, LC_ALL="C", TZ="UTC", HOME="/nonexistent", CASES=os.path.join(HERE, "cases"),
                        TOOLS=args.tools, SEED=str(args.seed))

    def scrun(self, routes):
        argv = [self.args.scrun]
        for r in routes:
            argv += ["--storage", r]
        return argv + ["--"]

    def tree(self, prefix, d, case, user):
        argv = prefix + [sys.executable, MANIFEST, d] + case.get("exclude").split()
        status, out = run_group(argv, self.env, 120 * self.args.slow, None)
        if status != 0:
            return "manifest failed: %s\n%s" % (status, out.decode(errors="replace"))
        return out.decode(errors="replace")

    def one(self, case, d, prefix, timeout):
        env = dict(self.env, D=d)
        start = time.monotonic()
        status, out = run_group(prefix + ["bash", case.path], env, timeout, case.get("user") or None)
        seconds = time.monotonic() - start
        text = out.decode(errors="replace")
        if case.get("filter"):
            text = subprocess.run(["sed", "-E", case.get("filter")], input=text, text=True, check=True,
                                  stdout=subprocess.PIPE).stdout
        return Result(status, text, self.tree(prefix, d, case, case.get("user")), seconds)

    def native(self, case, d):
        os.mkdir(d)
        if case.get("user"):
            pw = pwd.getpwnam(case.get("user"))
            os.chown(d, pw.pw_uid, pw.pw_gid)
        try:
            return self.one(case, d, [], float(case.get("timeout", "60")) * self.args.slow)
        finally:
            os.rename(d, d + ".native")

    def remote(self, case, d):
        export = "e2e-%s-%d" % (case.name, os.getpid())
        top = os.path.join(self.work, "top")
        script = "set -e; mkdir '%s/%s'" % (top, export)
        if case.get("user"):
            script += "; chown '%s': '%s/%s'" % (case.get("user"), top, export)
        admin = self.scrun(["%s:%s" % (self.args.domain, top)])
        status, out = run_group(admin + ["sh", "-c", script], self.env, 60 * self.args.slow, None)
        if status != 0:
            return Result("set-up failed: %s" % status, out.decode(errors="replace"), "", 0)
        prefix = self.scrun(["%s:%s=/%s" % (self.args.domain, d, export)])
        result = self.one(case, d, prefix, float(case.get("timeout", "60")) * self.args.slow)
        if not self.args.keep:
            run_group(admin + ["rm", "-rf", "%s/%s" % (top, export)], self.env, 120 * self.args.slow, None)
        if os.path.lexists(d):
            result.output += "\nSOMETHING WAS WRITTEN TO THE LOCAL DIRECTORY\n"
            os.rename(d, d + ".leaked")
        return result

    def compare(self, case):
        missing = [p for p in case.get("needs").split() if not shutil.which(p)]
        if missing:
            return ["needs %s, which this machine lacks" % ", ".join(missing)], None, None
        d = os.path.join(self.work, case.name)
        native = self.native(case, d)
        remote = self.remote(case, d)
        problems = []
        if native.status != remote.status:
            problems.append("exit status: native %s, scrun %s" % (native.status, remote.status))
        for what, a, b in (("output", native.output, remote.output), ("tree", native.tree, remote.tree)):
            for side, text in (("native", a), ("scrun", b)):
                with open("%s.%s.%s" % (d, side, what), "w", encoding="utf-8") as f:
                    f.write(text)
            if a != b:
                diff = list(difflib.unified_diff(a.splitlines(), b.splitlines(), "native " + what, "scrun " + what,
                                                 lineterm="", n=2))
                problems += diff[:40] + (["… %d more lines" % (len(diff) - 40)] if len(diff) > 40 else [])
        if not native.tree.startswith("manifest failed") and not self.args.keep:
            shutil.rmtree(d + ".native", ignore_errors=True)
        return problems, native, remote


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--domain", default="storage", help="name of the running domain (default: storage)")
    p.add_argument("--kind", choices=["loopback", "vm"], default="loopback", help="what the domain is")
    p.add_argument("--scrun", default="scrun", help="the scrun to use")
    p.add_argument("--tools", default="", help="directory with our own test programs (scfsx)")
    p.add_argument("--slow", type=float, default=1.0, help="factor on all time limits")
    p.add_argument("--seed", type=int, default=int(time.time()), help="seed for random cases (printed)")
    p.add_argument("--workdir", help="where native trees and outputs go (default: a temporary directory)")
    p.add_argument("--keep", action="store_true", help="keep trees")
    p.add_argument("--list", action="store_true", help="list the cases")
    p.add_argument("patterns", nargs="*", default=["*"], help="names of cases (globs)")
    args = p.parse_args()
    cases = [Case(os.path.join(HERE, "cases", f)) for f in sorted(os.listdir(os.path.join(HERE, "cases")))
             if f.endswith(".sh")]
    cases = [c for c in cases if any(fnmatch.fnmatch(c.name, g) for g in args.patterns)
             and c.get("only", args.kind) == args.kind]
    if args.list:
        for c in cases:
            print("%-20s %s" % (c.name, c.get("what")))
        return 0
    if not cases:
        print("run.py: no case matches %s" % " ".join(args.patterns), file=sys.stderr)
        return 2
    runner = Runner(args)
    print("1..%d" % len(cases))
    print("# seed %d, outputs in %s" % (args.seed, runner.work), flush=True)
    failed = 0
    for i, case in enumerate(cases, 1):
        problems, native, remote = runner.compare(case)
        times = " # native %.1f s, scrun %.1f s" % (native.seconds, remote.seconds) if remote else ""
        print("%s %d - %s%s" % ("not ok" if problems else "ok", i, case.name, times), flush=True)
        for line in problems:
            print("# " + line, flush=True)
        failed += bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
