# SPDX-License-Identifier: BSD-3-Clause
"""A loopback domain for tests of the host library: a broker and an agent in a directory of their own."""
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

DEADLINE_MS = 1500


class Domain:
    """A loopback domain named "d"."""

    def __init__(self, scd, agent, options=()):
        """options: more of the broker's."""
        self.scd_path, self.agent_path, self.options = scd, agent, options
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
                                     str(DEADLINE_MS), *self.options], stderr=log, stdout=log)
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

    def status(self):
        """What the broker says of itself."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(self.dir + "/run/d/ctl.sock")
            s.sendall(b'{"cmd": "status"}\n')
            return json.loads(s.makefile().readline())
