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
import socket
import struct
import subprocess
import sys
import tempfile
import time

from domain import DEADLINE_MS, Domain

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "broker"))
import peers  # noqa: E402


class Tests:
    """Each method test_* returns None or a text that says what is wrong."""

    def __init__(self, domain, scrun, hsc):
        self.d, self.scrun_path, self.hsc = domain, os.path.abspath(scrun), os.path.abspath(hsc)
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
        audited = dict(os.environ, LD_LIBRARY_PATH=self.place)  # then another copy of the library intercepts
        for r in (subprocess.run([self.hsc, "d"], capture_output=True, text=True, check=False, timeout=60),
                  self.scrun(self.hsc, "d"), self.scrun(self.hsc, "d", env=audited)):
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

    def test_c_remote_program(self):
        """scrun starts programs that lie in the domain: by path, by PATH, from a directory, scripts; and says what it cannot"""
        place = self.place
        r = self.scrun("sh", "-c", f"cp /bin/echo {place}/echo; printf '#!{place}/echo\\n' > {place}/script; chmod 755 {place}/script; "
                       f"echo > {place}/text")
        if r.returncode:
            return repr(r)
        path = {"PATH": f"/nonexistent:{place}:/usr/bin:/bin"}
        cases = [([place + "/echo", "a  b", "c"], None, 0, "a  b c\n"), (["echo", "x"], path, 0, "x\n"),
                 ([place + "/script", "y"], None, 0, place + "/script y\n"), ([place + "/none"], None, 127, ""),
                 ([place + "/text"], None, 126, ""), ([place], None, 126, "")]
        for args, env, status, out in cases:
            r = self.scrun(*args, env=dict(os.environ, **env) if env else None)
            if (r.returncode, r.stdout) != (status, out):
                return f"{args}: {r!r}"
        return None

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

    def refused_by(self, answer):
        """What scrun says of a domain "e" whose broker takes one connection and does answer(socket, request)."""
        os.makedirs(self.d.dir + "/run/e", exist_ok=True)
        path = self.d.dir + "/run/e/attach.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen(1)
            p = subprocess.Popen([self.scrun_path, "--storage", "e:/e", "true"], stderr=subprocess.PIPE, text=True)
            try:
                listener.settimeout(20)
                conn, _ = listener.accept()
                with conn:
                    answer(conn, conn.recv(4096))
                return p.communicate(timeout=30)[1], p.returncode
            finally:
                p.kill()
                p.wait()
                os.unlink(path)

    def test_d_versions(self):
        """a broker of another version, of another protocol, or that hangs up, is named in one line"""
        def reply(status, abi, text):
            body = peers.ATTACH_REP.pack(status, abi, 0, *[0] * 14, *[0] * 32, text)
            return peers.ATTACH_HDR.pack(peers.MAGIC, peers.REP, 0, 1, peers.ATTACH_HDR.size + len(body)) + body
        cases = [
            (lambda c, _: c.send(reply(peers.VERSION, 9, b"speaks 9: use parts of the same release")), "speaks 9: use parts of the same"),
            (lambda c, _: c.send(reply(peers.OK, 9, b"")), "channel version 9, this scrun 2"),
            (lambda c, _: c.send(b"hello"), "speaks another protocol"),
            (lambda c, _: None, "speaks another protocol"),
            (lambda c, _: c.send(reply(peers.STARTING, 1, b"domain e is not ready: booting")), "domain 'e' is not ready: booting\n"),
            (lambda c, _: c.send(reply(peers.DOWN, 1, b"domain e is not running: off")),
             "domain 'e' is not running: off; start it with 'virsh start e' or 'scctl start e'"),
            (lambda c, _: c.send(reply(peers.LIMIT, 1, b"user 1 has 2 channels")), "has 2 channels"),
        ]
        for answer, text in cases:
            err, status = self.refused_by(answer)
            if status != 125 or "'e'" not in err or text not in err or err.count("\n") != 1:
                return f"{text}: {status} {err}"
        os.makedirs(self.d.dir + "/run/f", exist_ok=True)  # a directory without a socket, and one with a dead socket
        for name in ("e", "f"):
            r = subprocess.run([self.scrun_path, "--storage", name + ":/x", "true"], capture_output=True, text=True, check=False, timeout=30)
            if r.returncode != 125 or "is not running; start it with" not in r.stderr:
                return repr(r)
        return None

    def test_d_users(self):
        """programs that gain privileges, and users who may not use a domain, are refused in one line"""
        if os.getuid() != 0:
            return None
        suid, sgid, hidden, caps = (self.d.dir + "/" + n for n in ("suid", "sgid", "hidden", "caps"))
        for path, mode in ((suid, 0o4755), (sgid, 0o2755), (hidden, 0o4711), (caps, 0o755)):
            shutil.copy("/bin/true", path)
            os.chmod(path, mode)
        os.setxattr(caps, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
        attach = self.d.dir + "/run/d/attach.sock"

        def nobody(*args):
            return subprocess.run([self.scrun_path, "--storage", "d:" + self.place, *args], capture_output=True, text=True, check=False,
                                  timeout=60, user=65534, group=65534, extra_groups=[])
        for path, text in ((suid, "set-uid"), (hidden, "set-uid"), (sgid, "set-gid"), (caps, "capabilities")):
            r = nobody(path)
            if r.returncode != 126 or text not in r.stderr or r.stderr.count("\n") != 1:
                return f"{path}: {r!r}"
        for path, mode in ((attach, 0o600), (self.d.dir + "/run/d", 0o700)):
            before = os.stat(path).st_mode & 0o777
            os.chmod(path, mode)
            r = nobody("true")
            os.chmod(path, before)
            if r.returncode != 125 or "you may not use it" not in r.stderr or r.stderr.count("\n") != 1:
                return f"{path}: {r!r}"
        r = nobody("true")
        return repr(r) if r.returncode else None

    def test_d_remote_program(self):
        """the program itself is on a domain: by path, by PATH, as a script, by a link, and what is wrong with it"""
        bin_dir, link = self.d.root + "/bin", self.d.dir + "/link"
        os.mkdir(bin_dir)
        shutil.copy("/bin/echo", bin_dir + "/prog")
        shutil.copy(shutil.which("ldconfig", path="/sbin:/usr/sbin"), bin_dir + "/static")
        for name, text, mode in (("script", '#!/bin/sh\necho "$0" "$1"\n', 0o755), ("plain", "", 0o644), ("interp", f"#!{self.place}/bin/prog\n", 0o755)):
            with open(f"{bin_dir}/{name}", "w", encoding="ascii") as f:
                f.write(text)
            os.chmod(f"{bin_dir}/{name}", mode)
        os.symlink(self.place + "/bin/prog", link)
        path = {"PATH": f"{self.place}/bin:{os.environ['PATH']}"}
        cases = [
            ([self.place + "/bin/prog", "a"], {}, 0, "a\n"),
            (["prog", "b"], path, 0, "b\n"),
            ([self.place + "/bin/script", "c"], {}, 0, f"{self.place}/bin/script c\n"),
            ([self.place + "/bin/interp"], {}, 0, f"{self.place}/bin/interp\n"),
            ([link, "d"], {}, 0, "d\n"),
            (["echo", "e"], path, 0, "e\n"),
            ([self.place + "/bin/static"], {}, 126, "static"),
            ([self.place + "/bin/plain"], {}, 126, "Permission denied"),
            ([self.place + "/bin"], {}, 126, "directory"),
            ([self.place + "/bin/none"], {}, 127, "No such file"),
            (["none"], path, 127, "cannot find"),
        ]
        for args, env, status, text in cases:
            r = self.scrun(*args, env={**os.environ, **env}, cwd="/")
            if r.returncode != status or (r.stdout != text if not status else text not in r.stderr or r.stderr.count("\n") != 1):
                return f"{args}: {r!r}"
        return None

    def test_e_stats(self):
        """--stats counts"""
        r = self.scrun("sh", "-c", f"echo x > {self.place}/s; cat {self.place}/s; rm {self.place}/s",
                       options=["--stats"])
        found = re.findall(r"^scrun: pid \d+: remote=(\d+) \(d:(\d+)\) spins=(\d+) sleeps=(\d+) traps=(\d+) "
                           r"rewritten=(\d+) left=\d+;((?: \w+=\d+)*)$", r.stderr, re.M)
        if r.stdout != "x\n" or len(found) < 3:
            return repr(r)
        for remote, here, spins, sleeps, traps, rewritten, kinds in found:
            counts = [int(n) for n in re.findall(r"=(\d+)", kinds)]
            if not int(remote) == int(here) == sum(counts) == int(spins) + int(sleeps) or int(traps) == 0:
                return repr(found)
        return None if any("unlink=1" in f[-1] for f in found) and any(int(f[5]) for f in found) else repr(found)

    def test_e_trace(self):
        """--trace prints the calls that the domain serves, of all processes, and only those"""
        log = self.d.dir + "/trace"
        script = ("import os, subprocess\nos.closerange(3, 5000)\nos.chdir(%r)\nfd = os.open('t', os.O_RDWR | os.O_CREAT, 0o640)\n"
                  "os.write(fd, b'a\\n\\0')\nos.pread(fd, 100, 0)\nos.stat('/etc')\nos.dup2(fd, 900)\n"
                  "try: os.mkdir('no/dir')\nexcept OSError: pass\n"
                  "if os.fork() == 0:\n    os.closerange(3, 5000)\n    os.unlink('t')\n    os._exit(0)\nos.wait()\n"
                  "subprocess.run(['ls', '-d', %r])\n" % (self.place, self.place))
        r = self.scrun(sys.executable, "-c", script, options=["--trace=" + log])
        with open(log, encoding="utf-8") as f:
            lines = f.read().splitlines()
        if r.returncode or r.stderr or r.stdout != self.place + "\n":
            return repr(r)
        shape = r"\d+ \d\d:\d\d:\d\d\.\d{6} (\w+\(.*\) = .*) <\d+\.\d{6}> (?:d lane \d+(?:, \d+ requests)?|library)"
        calls = [re.fullmatch(shape, line) for line in lines]
        if not all(calls):
            return "\n".join(lines)
        calls = [c[1] for c in calls]
        for want in ('openat(AT_FDCWD, "t", O_RDWR|O_CREAT|O_CLOEXEC, 0640) = 3', 'write(3, "a\\n\\x00", 3) = 3',
                     'pread64(3, "a\\n\\x00", 100, 0) = 3', 'mkdir("no/dir", 0777) = -1 ENOENT', 'unlink("t") = 0'):
            if want not in calls:
                return want + " is not in\n" + "\n".join(lines)
        if any("/etc" in c for c in calls) or len({line.split()[0] for line in lines}) != 3:
            return "\n".join(lines)
        r = self.scrun("cat", self.place + "/none", options=["--trace"])
        if not re.search(r' openat\(AT_FDCWD, ".*/none", O_RDONLY, 00\) = -1 ENOENT <', r.stderr):
            return repr(r)
        r = self.scrun("true", options=["--trace=/nonexistent/x"])
        return None if r.returncode == 125 and "trace" in r.stderr else repr(r)

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

    def test_f_no_recovery(self):
        """with --recovery-timeout 0 calls fail as soon as the agent is gone; without, they go on with the next one"""
        script = f"""
import os, sys
fd = os.open({self.place!r} + "/y", os.O_RDWR | os.O_CREAT | os.O_TRUNC); os.write(fd, b"0123456789")
os.lseek(fd, 2, 0)
print("ready", flush=True); sys.stdin.readline()
try: print(os.read(fd, 4))
except OSError as e: print(e.errno)
print("went", flush=True); sys.stdin.readline()
print(open({self.place!r} + "/y").read())
"""
        for options, want in ((["--recovery-timeout", "0"], "5\nwent\n0123456789\n"), (["--recovery-timeout", "60"], "b'2345'\nwent\n0123456789\n")):
            p = subprocess.Popen([self.scrun_path, "--storage", "d:" + self.place, *options, "--", sys.executable, "-c", script],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            try:
                p.stdout.readline()
                self.d.kill_agent()
                p.stdin.write("\n")
                p.stdin.flush()
                if options[1] != "0":
                    time.sleep(2 * DEADLINE_MS / 1000)  # the broker's deadline is another
                    self.d.start_agent()
                out = p.stdout.readline() + p.stdout.readline()  # before there is another agent
                if options[1] == "0":
                    self.d.start_agent()
                time.sleep(0.5)
                p.stdin.write("\n")
                p.stdin.flush()
                out += p.stdout.read()
            finally:
                p.kill()
                p.wait()
            if out != want:
                return f"{options}: {out!r}"
        r = self.scrun("true", options=["--recovery-timeout", "soon"])
        return None if r.returncode == 125 and "takes 0 to 86400 seconds" in r.stderr else repr(r)

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
            held = [h for h in held if h.startswith(self.d.root + "/") and not h.startswith(self.d.root + "/.vhost-sc/")]  # its own
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
