#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Run the tests of vhost-sc and count them.

    ./check                 everything but the kvm stage
    ./check --full          everything, the kvm stage too
    ./check --no-vm         what needs no virtual machine (minutes)
    ./check --kvm           only the kvm stage: the whole system on real KVM, in a VM whose processor's virtualization is
                            emulated (any machine; a few minutes, longer on a busy one)
    ./check STAGE …         only these stages: lint unit asan tsan tools loopback faults vm kvm

Stages, in order: lint (format, static analysis), unit (meson's tests: unit and loopback suites), asan and tsan (the same,
compiled with sanitizers), tools (tests of the Python tools, of the broker's protocol and of QEMU's device), loopback
(unmodified programs natively and under scrun on a loopback domain), faults (domains are killed under load and nobody may
notice: tests/faults), vm (what loopback does on a domain that libvirt runs, and what only a VM can show), kvm (see above; its measurements go to .cache/check/kvm-report.md). A stage's tests are counted one by one;
logs are kept in .cache/check/. Exit status 0 if nothing failed.
"""

import argparse
import contextlib
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, "build")
LOGS = os.path.join(TOP, ".cache", "check")
STAGES = ["lint", "unit", "asan", "tsan", "tools", "loopback", "faults", "vm", "kvm"]


# A report ends the process that earned it, so that the test that watches it fails.
SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=1:halt_on_error=1:abort_on_error=1",
              "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
              "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:report_signal_unsafe=0"}
# What is run against a broker and an agent with sanitizers: together these cases use every operation.
SANITIZED_CASES = ["coreutils", "dd", "errno", "fsx", "lmdb", "locks", "mmap_shared", "python", "shell", "sqlite", "sqlite_wal", "symlinks", "user", "xattr"]


class Count:
    """Passed and failed so far; prints each result as it comes."""

    def __init__(self):
        self.passed = 0
        self.failures = []
        self.start = time.monotonic()

    def add(self, stage, name, ok, note=""):
        self.passed += ok
        if not ok:
            self.failures.append("%s: %s %s" % (stage, name, note))
        print("[%4d s] %s %s: %s%s" % (time.monotonic() - self.start, "ok  " if ok else "FAIL", stage, name,
                                       " (%s)" % note if note else ""), flush=True)


def log_path(name):
    os.makedirs(LOGS, exist_ok=True)
    return os.path.join(LOGS, re.sub(r"[^A-Za-z0-9_.-]+", "_", name) + ".log")


def run(name, argv, timeout, env=None):
    """Run to the end with output in a log; returns (status, log text). None as status: out of time."""
    path = log_path(name)
    with open(path, "w", encoding="utf-8", errors="replace") as f:
        try:
            status = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT, cwd=TOP,
                                    timeout=timeout, check=False, env=dict(os.environ, **(env or {}))).returncode
        except subprocess.TimeoutExpired:
            status = None
    with open(path, encoding="utf-8", errors="replace") as f:
        return status, f.read()


def show_tail(text, lines=25):
    for line in text.splitlines()[-lines:]:
        print("         | " + line)


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--"] + list(patterns), cwd=TOP,
                         stdout=subprocess.PIPE, text=True, check=True).stdout
    return [f for f in out.splitlines() if os.path.exists(os.path.join(TOP, f))]


def shell_scripts():
    found = []
    for f in tracked():
        path = os.path.join(TOP, f)
        if os.path.islink(path) or f.startswith("tests/e2e/cases/"):
            continue
        with open(path, "rb") as h:
            first = h.readline(80)
        if re.match(rb"#!\s*/(usr/)?bin/(env )?(ba)?sh\b", first):
            found.append(f)
    return found


def stage_lint(count, args):
    sources = [f for f in tracked("*.c", "*.h") if not f.startswith("qemu-patches/")]
    ours = [f for f in sources if not f.startswith("guest-agent/driver/")]
    database = os.path.join(BUILD, "compile_commands.json")
    with open(database, encoding="utf-8") as f:
        built = {os.path.normpath(os.path.join(e["directory"], e["file"])) for e in json.load(f)}
    tidy = [f for f in ours if os.path.join(TOP, f) in built and f.endswith(".c")]
    checks = [
        ("clang-format", ["clang-format", "--dry-run", "-Werror"] + ours, 300),
        ("cppcheck", ["cppcheck", "-q", "-j2", "--error-exitcode=1", "--inline-suppr", "--std=c11", "--enable=warning,portability",
                      "--suppressions-list=tests/cppcheck.txt", "-Iinclude", "-D__x86_64__", "-D_GNU_SOURCE"]
         + [f for f in ours if f.endswith(".c")], 900),
        ("shellcheck", ["shellcheck"] + shell_scripts(), 300),
        ("clang-tidy", ["sh", "-c", 'printf "%s\\0" "$@" | xargs -0 -n 4 -P 2 clang-tidy -p build --quiet', "sh"] + tidy, 1200),
        ("python compiles", [sys.executable, "-m", "py_compile"] + tracked("*.py"), 60),
        ("no hosts, no paths", ["sh", "-c", "! git grep -nIE '/work/|https?://[^ ]*(debian|mirror|registry)' -- . ':!tests/check.py'"],
         60),
    ]
    for name, argv, timeout in checks:
        status, text = run("lint-" + name, argv, timeout)
        count.add("lint", name, status == 0)
        if status != 0:
            show_tail(text, 40)


def meson_tests(count, stage, build, options, timeout):
    if options is not None and not os.path.exists(os.path.join(build, "build.ninja")):
        status, text = run(stage + "-setup", ["meson", "setup", build] + options, 300)
        if status != 0:
            count.add(stage, "configure", False)
            show_tail(text)
            return
    status, text = run(stage + "-build", ["ninja", "-C", build], 1200)
    count.add(stage, "compiles", status == 0)
    if status != 0:
        show_tail(text, 40)
        return
    results = os.path.join(build, "meson-logs", "testlog.json")
    if os.path.exists(results):
        os.remove(results)
    env = SANITIZERS
    names = []
    # With sanitizers not: interception, which is compiled without (it has no libc), and long runs of other people's programs.
    if options is not None:
        listed = subprocess.run(["meson", "test", "-C", build, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout
        names = [n for n in (line.split(" / ")[-1].strip() for line in listed.splitlines() if line)
                 if not n.startswith(("intercept", "insn", "scfsx", "net-servers", "net-many", "net-wire"))
                 # an agent that starts so slowly is killed before it has recovered, too often in a row
                 and not (stage == "tsan" and n in ("hostlib-recover", "net-recovery", "net-programs"))]
    run(stage + "-meson-test", ["meson", "test", "-C", build, "--no-rebuild", "--print-errorlogs"] + names, timeout, env)
    if not os.path.exists(results):
        count.add(stage, "meson test", False, "left no results")
        return
    with open(results, encoding="utf-8") as f:
        for line in f:
            test = json.loads(line)
            name = test["name"].split(" / ")[-1]
            ok = test["result"] in ("OK", "EXPECTEDFAIL")
            if test["result"] == "SKIP":
                ok = False
                test["stdout"] = test.get("stdout", "") + "\nskipped: a test that cannot run here must be fixed or removed"
            count.add(stage, name, ok, "" if ok else test["result"])
            if not ok:
                show_tail(test.get("stdout", "") + test.get("stderr", ""))


def stage_unit(count, args):
    meson_tests(count, "unit", BUILD, None, 900)


def stage_asan(count, args):
    meson_tests(count, "asan", BUILD + "-asan", ["-Db_sanitize=address,undefined", "-Db_lundef=false"], 1200)
    loopback(count, args, "asan", BUILD + "-asan", 5, SANITIZED_CASES)


def stage_tsan(count, args):
    meson_tests(count, "tsan", BUILD + "-tsan", ["-Db_sanitize=thread", "-Db_lundef=false"], 1200)
    loopback(count, args, "tsan", BUILD + "-tsan", 5, SANITIZED_CASES)


def count_output(count, stage, prefix, text, status):
    """Count TAP lines or unittest -v lines; a program that shows neither counts as one test by its status."""
    tap = re.findall(r"^(not ok|ok) \d+ - ([^#\n]*)(#[^\n]*)?", text, re.M)
    unit = re.findall(r"^(test\w+) \(([\w.]+)\)[^\n]*?(?:\n[^\n]*?)?\.\.\. (?:[^\n]*\n)*?(ok|FAIL|ERROR|skipped[^\n]*)$", text, re.M)
    failed = False
    for verdict, name, note in tap:
        failed |= verdict != "ok"
        count.add(stage, "%s %s" % (prefix, name.strip()), verdict == "ok", note.lstrip("# "))
    for name, where, verdict in unit:
        failed |= verdict != "ok"
        count.add(stage, "%s %s" % (prefix, where.replace("__main__.", "")), verdict == "ok", "" if verdict == "ok" else verdict)
    if not tap and not unit:
        count.add(stage, prefix, status == 0, "" if status == 0 else "status %s" % status)
    elif status != 0 and not failed:
        count.add(stage, prefix + " ended well", False, "status %s" % status)
    if status != 0:
        show_tail(text, 60)


@contextlib.contextmanager
def libvirt_daemons(count, stage):
    """libvirt's daemons for as long as the block runs: started if they were not, stopped if they were started here."""
    status, text = run(stage + "-libvirtd", scctl("libvirtd", "start"), 120)
    count.add(stage, "scctl libvirtd start", status == 0)
    if status != 0:
        show_tail(text)
    try:
        yield status == 0
    finally:
        run(stage + "-libvirtd-stop", scctl("libvirtd", "stop"), 120)


def stage_tools(count, args):
    with libvirt_daemons(count, "tools"):
        tools_tests(count)


def tools_tests(count):
    for d in sorted(glob.glob(os.path.join(TOP, "tests", "*"))):
        for path in sorted(glob.glob(os.path.join(d, "test_*.py"))):
            name = os.path.relpath(path, os.path.join(TOP, "tests"))
            if name.startswith("vm/") or os.path.exists(os.path.join(d, "meson.build")):
                continue  # the vm stage's, or run by meson
            status, text = run("tools-" + name, [sys.executable, path, "-v"], 900, {"VHOST_SC_BUILD": BUILD})
            count_output(count, "tools", name, text, status)


def scctl(*argv):
    return [sys.executable, os.path.join(TOP, "libvirt-xml", "scctl")] + list(argv)


def e2e(name, kind, domain, slow, env, seed, patterns=()):
    argv = [sys.executable, os.path.join(TOP, "tests", "e2e", "run.py"), "--kind", kind, "--domain", domain, "--slow", str(slow),
            "--scrun", os.path.join(BUILD, "hostlib", "scrun"), "--tools", os.path.join(BUILD, "tests", "fsx"), "--seed", str(seed)]
    return run("e2e-" + name, argv + list(patterns), 1200 * slow, env)


def loopback(count, args, stage, build, slow, patterns):
    """Unmodified programs on a loopback domain whose broker and agent come from `build`."""
    rundir = tempfile.mkdtemp(prefix="sc-check-run.")
    root = tempfile.mkdtemp(prefix="sc-check-root.")
    os.chmod(rundir, 0o755)
    os.chmod(root, 0o755)
    env = dict(SANITIZERS, VHOST_SC_RUNDIR=rundir, VHOST_SC_STATEDIR=os.path.join(rundir, "state"), VHOST_SC_BUILD=build)
    try:
        status, text = run(stage + "-start", scctl("start", "check", "--loopback", "--root", root), 60, env)
        count.add(stage, "scctl start --loopback", status == 0)
        if status != 0:
            show_tail(text)
            return
        status, text = e2e(stage, "loopback", "check", slow, env, args.seed, patterns)
        count_output(count, stage, "e2e", text, status)
        status, text = run(stage + "-status", scctl("status", "check"), 30, env)
        count.add(stage, "scctl status says that loopback is not isolated", status == 0 and "no isolation" in text)
        status, text = run(stage + "-stop", scctl("stop", "check"), 60, env)
        count.add(stage, "scctl stop", status == 0)
        logs = "".join(open(f, encoding="utf-8", errors="replace").read()
                       for f in glob.glob(os.path.join(rundir, "check", "*.log")))
        bad = re.findall(r"^.*(?:Sanitizer|runtime error).*$", logs, re.M)
        count.add(stage, "broker and agent logged no sanitizer report", not bad)
        for line in bad[:20]:
            print("         | " + line)
    finally:
        run(stage + "-clean", scctl("stop", "check"), 60, env)
        shutil.rmtree(rundir, ignore_errors=True)
        shutil.rmtree(root, ignore_errors=True)


def stage_loopback(count, args):
    loopback(count, args, "loopback", BUILD, 2, ())


def stage_faults(count, args):
    """Domains that are killed under load. Failures are shown with the seed that repeats the choices."""
    scfault = os.path.join(TOP, "tests", "faults", "scfault")
    runs = [("network", ["--kills", "8", "--workload", "stream", "redis", "nginx"]),
            ("storage", ["--kills", "8", "--workload", "race", "sqlite", "sqlite-wal", "sqlite-wal-one", "git", "tar", "fio", "postgres"]),
            ("points", ["--workload", "git", "--seconds", "30", "--fault", "retain:intent", "retain:changed", "retain:done",
                        "poller:publish", "checkpoint:begun", "checkpoint:synced", "recovery:replayed", "recovery:committed"])]
    for name, options in runs:
        status, text = run("faults-" + name, [scfault, "run", "--seed", str(args.seed)] + options, 600, {"VHOST_SC_BUILD": BUILD})
        found = re.findall(r"^(ok  |FAIL|skip) (\S+)[^\n:]*: ([^\n]*)", text, re.M)
        for verdict, workload, note in found:
            count.add("faults", "%s %s" % (name, workload), verdict == "ok  " and "never reached" not in note, note)
        if not found or status != 0:
            count.add("faults", name + " ended well", status == 0, "status %s, seed %d" % (status, args.seed))
            show_tail(text, 60)


def vm_e2e(count, args):
    """The comparison with the native kernel, on a domain that libvirt runs."""
    disk = os.path.join(tempfile.mkdtemp(prefix="sc-check-vm."), "disk.img")
    os.chmod(os.path.dirname(disk), 0o755)
    scctl_run = lambda what, *argv: run("vm-" + what, scctl(*argv), 300)  # noqa: E731
    try:
        for what, argv in (("define", ["define", "check-vm", "--role", "storage", "--disk", disk, "--size", "4G"]),
                           ("start", None), ("wait", ["wait", "check-vm", "--timeout", "240"])):
            status, text = scctl_run(what, *argv) if argv else run("vm-start", ["virsh", "start", "check-vm"], 300)
            count.add("vm", what, status == 0)
            if status != 0:
                show_tail(text)
                return
        status, text = e2e("vm", "vm", "check-vm", 6, None, args.seed)
        count_output(count, "vm", "e2e", text, status)
        status, text = scctl_run("stop", "stop", "check-vm")
        count.add("vm", "stop", status == 0)
    finally:
        run("vm-destroy", ["virsh", "destroy", "check-vm"], 60)
        scctl_run("undefine", "undefine", "check-vm")
        shutil.rmtree(os.path.dirname(disk), ignore_errors=True)


def stage_vm(count, args):
    with libvirt_daemons(count, "vm") as running:
        if running:
            vm_tests(count, args)


def vm_tests(count, args):
    for path in sorted(glob.glob(os.path.join(TOP, "tests", "vm", "test_*.py"))):
        name = os.path.relpath(path, os.path.join(TOP, "tests"))
        if name.startswith("vm/test_kvm_"):
            continue  # the kvm stage's
        status, text = run("vm-" + name, [sys.executable, path, "-v", "--seed", str(args.seed)], 2400, {"VHOST_SC_BUILD": BUILD})
        count_output(count, "vm", name, text, status)
    vm_e2e(count, args)


def stage_kvm(count, args):
    for path in sorted(glob.glob(os.path.join(TOP, "tests", "vm", "test_kvm_*.py"))):
        name = os.path.relpath(path, os.path.join(TOP, "tests"))
        status, text = run("kvm-" + name, [sys.executable, path, "-v"], 1500, {"VHOST_SC_BUILD": BUILD})
        count_output(count, "kvm", name, text, status)


def main():
    p = argparse.ArgumentParser(prog="check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--no-vm", action="store_true", help="leave out the vm stage")
    p.add_argument("--kvm", action="store_true", help="only the kvm stage")
    p.add_argument("--full", action="store_true", help="all stages, the kvm stage too")
    p.add_argument("--seed", type=int, default=int(time.time()) % 1000000, help="seed of the random tests (default: the time)")
    p.add_argument("--list", action="store_true", help="list the stages")
    p.add_argument("stages", nargs="*", metavar="STAGE", help="stages to run (default: all but kvm)")
    args = p.parse_args()
    if args.list:
        print("\n".join(STAGES))
        return 0
    unknown = [s for s in args.stages if s not in STAGES]
    if unknown:
        p.error("no stage called %s; stages are %s" % (unknown[0], ", ".join(STAGES)))
    count = Count()
    print("check: seed %d, logs in %s" % (args.seed, os.path.relpath(LOGS, TOP)), flush=True)
    usual = [s for s in STAGES if (s != "kvm" or args.full) and (s != "vm" or not args.no_vm)]
    for stage in args.stages or (["kvm"] if args.kvm else usual):
        globals()["stage_" + stage](count, args)
    if count.failures:
        print("\nfailed:")
        for f in count.failures:
            print("  " + f)
    print("\n%d passed, %d failed" % (count.passed, len(count.failures)))
    return 1 if count.failures else 0


if __name__ == "__main__":
    sys.exit(main())
