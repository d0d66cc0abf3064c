# SPDX-License-Identifier: BSD-3-Clause
"""netdomain.py - a network domain for tests of unmodified programs: broker and agent of a loopback domain on a tap, and the kernel's
stack outside of it, all in network namespaces that the test has to itself.

    enter_namespaces()
    with Native() as where: ...     programs run with the kernel's stack, in a namespace of their own behind a veth pair
    with Domain() as where: ...     programs run under scrun --network net0
    where.argv(["curl", ...])       what to execute; where.OWN is the program's address, where.PEER the outside's
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("VHOST_SC_BUILD", os.path.join(TOP, "build"))
AGENT = os.environ.get("SC_AGENT_NET", os.path.join(BUILD, "guest-agent", "sc-agent-net"))
OWN, PEER = "10.77.0.2", "10.77.0.1"
OWN6, PEER6 = "fd77::2", "fd77::1"
START_S = 20


def enter_namespaces():
    """Starts the program again with network and mounts of its own, unless it has them; names resolve without a server."""
    if os.environ.get("SC_TEST_NETNS") != "1":
        os.environ["SC_TEST_NETNS"] = "1"
        how = ["unshare", "-nm"] if os.geteuid() == 0 else ["unshare", "-rnm"]
        os.execvp("unshare", how + [sys.executable] + sys.argv)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.NamedTemporaryFile("w", prefix="sc-hosts.") as f:
        f.write("127.0.0.1 localhost\n%s own\n%s peer\n" % (OWN, PEER))
        f.flush()
        os.chmod(f.name, 0o644)
        subprocess.run(["mount", "--bind", f.name, "/etc/hosts"], check=True)


def wait_for(what, ready):
    end = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError("no %s after %d s" % (what, START_S))
        time.sleep(0.02)


def ip(*args, pid=None):
    prefix = ["nsenter", "-t", str(pid), "-n"] if pid else []
    subprocess.run(prefix + ["ip"] + list(args), check=True)


class Native:
    """The kernel's stack at both ends of a veth pair."""

    name = "native"
    OWN, PEER, OWN6, PEER6 = OWN, PEER, OWN6, PEER6

    def __enter__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
        wait_for("namespace", lambda: os.readlink("/proc/self/ns/net") != os.readlink("/proc/%d/ns/net" % self.holder.pid))
        pid = self.holder.pid
        ip("link", "add", "sctest0", "type", "veth", "peer", "name", "sctest1", "netns", str(pid))
        ip("addr", "add", PEER + "/24", "dev", "sctest0")
        ip("-6", "addr", "add", PEER6 + "/64", "dev", "sctest0", "nodad")
        ip("link", "set", "sctest0", "up")
        ip("link", "set", "lo", "up", pid=pid)
        ip("addr", "add", OWN + "/24", "dev", "sctest1", pid=pid)
        ip("-6", "addr", "add", OWN6 + "/64", "dev", "sctest1", "nodad", pid=pid)
        ip("link", "set", "sctest1", "up", pid=pid)
        ip("route", "add", "default", "via", PEER, pid=pid)
        return self

    def __exit__(self, *_):
        ip("link", "del", "sctest0")
        self.holder.kill()
        self.holder.wait()

    def argv(self, argv):
        return ["nsenter", "-t", str(self.holder.pid), "-n"] + argv

    def env(self):
        return dict(os.environ)


class Domain:
    """A loopback domain named net0."""

    name = "scrun"
    OWN, PEER, OWN6, PEER6 = OWN, PEER, OWN6, PEER6

    def __init__(self, scrun_args=()):
        self.scrun_args = list(scrun_args)
        self.children = []

    def __enter__(self):
        try:
            return self.enter()
        except BaseException:
            for c in self.children:
                c.kill()
                c.wait()
            raise

    def enter(self):
        self.dir = tempfile.mkdtemp(prefix="sc-net.")
        os.chmod(self.dir, 0o755)
        self.log = open(os.path.join(self.dir, "log"), "w", encoding="utf-8")
        self.broker = self.start([os.path.join(BUILD, "vhost-sc", "vhost-scd"), "--name", "net0", "--role", "network", "--loopback",
                    "--deadline-ms", "10000"])
        sock = os.path.join(self.dir, "run", "net0", "agent.sock")
        wait_for("broker", lambda: os.path.exists(sock))
        self.sock = sock
        self.agent = self.start_agent()
        wait_for("tap", lambda: os.path.exists("/sys/class/net/sctap0") or self.tap())
        ip("addr", "add", PEER + "/24", "dev", "sctap0")
        ip("-6", "addr", "add", PEER6 + "/64", "dev", "sctap0", "nodad")
        ip("link", "set", "sctap0", "up")
        return self

    def start_agent(self):
        return self.start([AGENT, "--loopback", self.sock, "--tap", "sctap0", "--addr", OWN + "/24", "--gw", PEER, "--addr6", OWN6 + "/64"])

    def kill_agent(self):
        """Kills it wherever it is, and starts another one."""
        self.stop_agent()
        self.restart_agent()

    def stop_agent(self):
        self.agent.kill()
        self.agent.wait()
        self.children.remove(self.agent)

    def spoil_sockets(self, rnd):
        """Writes nonsense over all sockets and their rings, as a process may to which they belong."""
        fds = "/proc/%d/fd/" % self.broker.pid
        for n in os.listdir(fds):
            size = os.stat(fds + n).st_size
            if "memfd:vhost-sc-segment" in os.readlink(fds + n) and size < 4 << 20:  # the agent's own are larger
                with open(fds + n, "r+b") as f:
                    f.write(rnd.randbytes(size))

    def spoil_state(self):
        """Writes nonsense over what is kept (in the broker's largest segment), as an agent might that has gone mad."""
        fds = "/proc/%d/fd/" % self.broker.pid
        largest = max((os.stat(fds + n).st_size, n) for n in os.listdir(fds) if "memfd:vhost-sc-segment" in os.readlink(fds + n))
        with open(fds + largest[1], "r+b") as f:
            f.seek(4096)
            while True:  # one byte in each page
                page = f.tell()
                if page >= largest[0]:
                    break
                f.write(b"\xa5")
                f.seek(page + 4096)

    def restart_agent(self):
        self.agent = self.start_agent()

    def storage(self, name, root):
        """A storage domain beside it, which serves `root`."""
        self.start([os.path.join(BUILD, "vhost-sc", "vhost-scd"), "--name", name, "--role", "storage", "--loopback", "--deadline-ms", "10000"])
        sock = os.path.join(self.dir, "run", name, "agent.sock")
        wait_for("broker", lambda: os.path.exists(sock))
        self.start([os.path.join(BUILD, "guest-agent", "sc-agent"), "--loopback", sock, "--root", root])

    @staticmethod
    def tap():
        """/sys is another namespace's perhaps: ask by netlink."""
        return subprocess.run(["ip", "link", "show", "sctap0"], check=False, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0

    def start(self, argv):
        os.makedirs(os.path.join(self.dir, "run"), exist_ok=True)
        self.children.append(subprocess.Popen(argv, env=self.env(), stdout=self.log, stderr=self.log))
        return self.children[-1]

    def alive(self):
        return all(c.poll() is None for c in self.children)

    def __exit__(self, *_):
        died = [c.args[0] for c in self.children if c.poll() is not None]
        for c in reversed(self.children):
            c.terminate()
            c.wait()
        if self.tap():  # an agent that was told to end when it had just begun does not know that it is its own
            ip("link", "del", "sctap0")
        self.log.close()
        with open(self.log.name, encoding="utf-8") as f:
            text = f.read()
        shutil.rmtree(self.dir)
        if died:
            raise AssertionError("%s died:\n%s" % (died, text))

    def argv(self, argv):
        return [os.path.join(BUILD, "hostlib", "scrun"), "--network", "net0"] + self.scrun_args + ["--"] + argv

    def env(self):
        return dict(os.environ, VHOST_SC_RUNDIR=os.path.join(self.dir, "run"), VHOST_SC_STATEDIR=os.path.join(self.dir, "state"))
