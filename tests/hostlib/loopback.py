#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The host library against a real broker and a real agent, as processes of this host.

usage: loopback.py VHOST-SCD SC-AGENT SCRUN HSC-TEST

Prints TAP. Starts a domain of its own in a temporary directory, with a short deadline, and takes it down again.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
DEADLINE_MS = 1500


class Domain:
    """A loopback domain named "d"."""

    def __init__(self, scd, agent):
        self.scd_path, self.agent_path = scd, agent
        self.dir = tempfile.mkdtemp(prefix="sc-loopback.")
        os.chmod(self.dir, 0o755)
        self.root = self.dir + "/root"
        os.mkdir(self.root)
        os.chmod(self.root, 0o1777)
        os.mkdir(self.dir + "/run", 0o755)
        os.environ["VHOST_SC_RUNDIR"] = self.dir + "/run"
        self.scd = self.agent = None

    def start_broker(self):
        log = open(self.dir + "/scd.log", "a", encoding="utf-8")
        self.scd = subprocess.Popen([self.scd_path, "--name", "d", "--role", "storage", "--loopback", "--deadline-ms",
                                     str(DEADLINE_MS)], stderr=log, stdout=log)
        self.wait_for(self.dir + "/run/d/agent.sock")

    def start_agent(self):
        log = open(self.dir + "/agent.log", "a", encoding="utf-8")
        self.agent = subprocess.Popen([self.agent_path, "--loopback", self.dir + "/run/d/agent.sock", "--root",
                                       self.root], stderr=log, stdout=log)

    @staticmethod
    def wait_for(path):
        for _ in range(200):
            if os.path.exists(path):
                return
            time.sleep(0.05)
        raise TimeoutError(path)

    def kill_agent(self):
        self.agent.kill()
        self.agent.wait()

    def stop(self):
        for p in (self.agent, self.scd):
            if p and p.poll() is None:
                p.terminate()
                try:
                    p.wait(10)
                except subprocess.TimeoutExpired:
                    p.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Tests:
    """Each method test_* returns None or a text that says what is wrong."""

    def __init__(self, domain, scrun, hsc):
        self.d, self.scrun_path, self.hsc = domain, scrun, hsc
        self.place = self.d.dir + "/mnt"  # stands for the export when under scrun

    def scrun(self, *args, options=(), **kw):
        kw.setdefault("timeout", 120)
        return subprocess.run([self.scrun_path, "--storage", "d:" + self.place, "--wait", "20", *options, "--", *args],
                              capture_output=True, text=True, check=False, **kw)

    def test_a_processes(self):
        """processes, descriptors, threads, limits, directories, ids, locks: as native"""
        os.mkdir(self.place)
        os.chmod(self.place, 0o1777)
        work = [sys.executable, HERE + "/process_work.py", self.place]
        native = subprocess.run(work, capture_output=True, text=True, check=False, timeout=120)
        shutil.rmtree(self.place)
        remote = self.scrun(*work)
        if native.stdout == remote.stdout and remote.returncode == native.returncode == 0:
            return None
        return f"native ({native.returncode}):\n{native.stdout}{native.stderr}\n" \
               f"scrun ({remote.returncode}):\n{remote.stdout}{remote.stderr}"

    def test_b_api(self):
        """the C API, without scrun and under it"""
        for r in (subprocess.run([self.hsc, "d"], capture_output=True, text=True, check=False, timeout=60),
                  self.scrun(self.hsc, "d")):
            if r.returncode:
                return r.stdout + r.stderr
        return None

    def test_c_status(self):
        """exit status, signals, standard streams pass through"""
        if self.scrun("sh", "-c", "exit 42").returncode != 42:
            return "exit status"
        if self.scrun("sh", "-c", "kill -TERM $$").returncode != -signal.SIGTERM:
            return "signal"
        r = self.scrun("sh", "-c", "cat; echo err >&2", input="through")
        return None if (r.stdout, r.stderr) == ("through", "err\n") else repr(r)

    def test_d_messages(self):
        """what is wrong is said in one line"""
        static = shutil.which("ldconfig", path="/sbin:/usr/sbin")
        cases = [
            (["--storage", "nosuch:/x", "true"], 125, "unknown"),
            (["--storage", "bad name:/x", "true"], 125, "no domain name"),
            (["--storage", "d", "true"], 125, "NAME:HOSTPATH"),
            (["--storage", "d:/", "true"], 125, "root itself"),
            (["--wait", "x", "true"], 125, "--wait"),
            (["no-such-program"], 127, "cannot find"),
            (["/no/such/program"], 127, "No such file"),
            (["/etc/passwd"], 126, "ermission denied"),
            (["/etc"], 126, "directory"),
            ([static], 126, "static"),
            ([], 125, "usage"),
        ]
        for args, status, text in cases:
            r = subprocess.run([self.scrun_path, *args], capture_output=True, text=True, check=False, timeout=30)
            if r.returncode != status or text not in r.stderr or (text != "usage" and r.stderr.count("\n") != 1):
                return f"{args}: {r.returncode} {r.stderr}"
        return None

    def test_e_stats(self):
        """--stats counts"""
        r = self.scrun("sh", "-c", f"echo x > {self.place}/s; cat {self.place}/s; rm {self.place}/s",
                       options=["--stats"])
        found = re.findall(r"^scrun: pid \d+: remote=(\d+)", r.stderr, re.M)
        return None if r.stdout == "x\n" and sum(map(int, found)) >= 4 else repr(r)

    def test_f_agent_dies(self):
        """calls end with EIO after the deadline, other domains' callers are not held up, and service resumes"""
        script = f"""
import os, signal, sys, time
fd = os.open({self.place!r} + "/x", os.O_RDWR | os.O_CREAT); os.write(fd, b"data")
print("ready", flush=True); sys.stdin.readline()
begin = time.time()
try: os.pread(fd, 4, 0); print("read")
except OSError as e: print(e.errno)
took = time.time() - begin
print({DEADLINE_MS} / 1000 * 0.8 <= took <= {DEADLINE_MS} / 1000 + 4, flush=True); sys.stdin.readline()
print(open({self.place!r} + "/x").read())
"""
        p = subprocess.Popen([self.scrun_path, "--storage", "d:" + self.place, "--", sys.executable, "-c", script],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            out = p.stdout.readline()
            self.d.kill_agent()
            p.stdin.write("\n")
            p.stdin.flush()
            out += p.stdout.readline() + p.stdout.readline()
            self.d.start_agent()
            time.sleep(0.5)
            p.stdin.write("\n")
            p.stdin.flush()
            out += p.stdout.read()
        finally:
            p.kill()
            p.wait()
        return None if out == "ready\n5\nTrue\ndata\n" else out

    def test_g_agent_hangs(self):
        """an agent that hangs is as one that is gone"""
        self.d.agent.send_signal(signal.SIGSTOP)
        try:
            begin = time.time()
            r = subprocess.run([self.scrun_path, "--storage", "d:" + self.place, "cat", self.place + "/x"],
                               capture_output=True, text=True, check=False, timeout=60)
            took = time.time() - begin
        finally:
            self.d.agent.send_signal(signal.SIGCONT)
        if r.returncode == 0 or took > 30 or "d" not in r.stderr:
            return f"{took} {r!r}"
        r = self.scrun("cat", self.place + "/x")
        return None if r.stdout == "data" else repr(r)

    def test_h_many_processes(self):
        """200 short processes, 10 at a time"""
        r = self.scrun("sh", "-c", f"cd {self.place} && seq 200 | xargs -P 10 -I N sh -c 'echo N > p; cat p > /dev/null' "
                       "&& echo done")
        return None if r.stdout == "done\n" else repr(r)

    def test_i_nothing_left(self):
        """when all processes are gone, the agent holds no file of theirs"""
        fds = f"/proc/{self.d.agent.pid}/fd"
        for _ in range(50):
            held = []
            for f in os.listdir(fds):
                try:
                    held.append(os.readlink(f"{fds}/{f}"))
                except FileNotFoundError:
                    pass
            held = [h for h in held if h.startswith(self.d.root + "/")]
            if not held:
                return None
            time.sleep(0.1)
        return str(held)


def main():
    domain = Domain(sys.argv[1], sys.argv[2])
    tests = Tests(domain, sys.argv[3], sys.argv[4])
    names = sorted(n for n in dir(tests) if n.startswith("test_"))
    failed = 0
    print(f"1..{len(names)}")
    try:
        domain.start_broker()
        domain.start_agent()
        for i, name in enumerate(names, 1):
            test = getattr(tests, name)
            try:
                wrong = test()
            except Exception as e:  # pylint: disable=broad-except
                wrong = repr(e)
            print(("not " if wrong else "") + f"ok {i} - {test.__doc__}", flush=True)
            if wrong:
                failed += 1
                print("".join(f"# {line}\n" for line in str(wrong).split("\n")), end="", flush=True)
    finally:
        domain.stop()
    sys.exit(failed != 0)


main()
