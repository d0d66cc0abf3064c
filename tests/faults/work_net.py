# SPDX-License-Identifier: BSD-3-Clause
"""Connections that live through the death of their network domain: a stream whose bytes are checked, redis, nginx.

Servers run under scrun, clients on the kernel's stack outside (in the lab's network namespace). A connection that is reset, a byte
that is lost, doubled or wrong, a request that is not answered: each is a failure.
"""
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

import lab
from workload import HANG_SECONDS, Failure, Lines, Workload, text

HERE = os.path.dirname(os.path.abspath(__file__))


class Served(Workload):
    """A server under scrun, and a client outside (netclient.py) that reports each answer by a line until its input ends."""
    role = "network"
    port = 0

    def server(self):
        raise NotImplementedError

    def prepare(self):
        self.tmp = tempfile.mkdtemp(prefix="scfault-net.")
        os.chmod(self.tmp, 0o755)
        self.log = open(self.tmp + "/log", "wb")
        self.proc = self.spawn(*self.server(), stdout=self.log, stderr=self.log)
        self.client = subprocess.Popen(
            self.domain.outside(sys.executable, os.path.join(HERE, "netclient.py"), self.name, self.domain.own, str(self.port)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lab.die_with_parent)
        self.lines = Lines(self.client.stdout.fileno())
        self.expect("connected")

    def expect(self, what=None):
        line = self.lines.get(HANG_SECONDS)
        if line is None:
            raise Failure("no answer for %d s" % HANG_SECONDS)
        if not line or (what and line != what):
            self.client.stdin.close()
            with open(self.tmp + "/log", encoding="utf-8", errors="replace") as f:
                raise Failure("the client ended: %s %s\nserver: %s" % (line, text(self.client.stderr.read())[-2000:], f.read()[-2000:]))
        return line

    def run(self):
        while not self.stop.is_set():
            self.expect()
            self.acknowledged += 1
        self.client.stdin.close()
        while self.lines.get(HANG_SECONDS):
            self.acknowledged += 1

    def verify(self):
        if self.client.wait(HANG_SECONDS):
            raise Failure("the client: status %d, %s" % (self.client.returncode, text(self.client.stderr.read())[-2000:]))
        if self.proc.poll() is not None:
            raise Failure("the server ended, status %s" % self.proc.returncode)

    def describe(self):
        return "%d answers on one connection" % self.acknowledged

    def end(self):
        for p in (self.client, self.proc):
            if p.poll() is None:
                p.terminate()
                try:
                    p.wait(20)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
        self.log.close()
        shutil.rmtree(self.tmp, ignore_errors=True)


class Stream(Served):
    name = "stream"
    about = "a TCP stream both ways, 64 KiB at a time, each byte checked"
    port = 7001

    def server(self):
        return [sys.executable, os.path.join(HERE, "netclient.py"), "echo", self.domain.own, str(self.port)]


class Redis(Served):
    name = "redis"
    about = "INCR on one connection to redis: each counted once"
    needs = ("redis-server",)
    port = 7002

    def server(self):
        return ["redis-server", "--bind", self.domain.own, "--port", str(self.port), "--save", "", "--dir", self.tmp, "--protected-mode", "no"]


class Nginx(Served):
    name = "nginx"
    about = "files of 300 kB from nginx, by one connection that is kept alive"
    needs = ("nginx",)
    port = 7003

    def server(self):
        os.mkdir(self.tmp + "/www")
        with open(self.tmp + "/www/file", "wb") as f:
            f.write(hashlib.shake_128(b"file").digest(300000))
        conf = ("daemon off; master_process off; user root; pid %(d)s/pid; error_log %(d)s/error.log; events { worker_connections 64; }\n"
                "http { access_log off; keepalive_requests 1000000; keepalive_timeout 600; client_body_temp_path %(d)s/b; proxy_temp_path %(d)s/p;"
                "fastcgi_temp_path %(d)s/f; uwsgi_temp_path %(d)s/u; scgi_temp_path %(d)s/s;"
                "server { listen %(own)s:%(port)d; root %(d)s/www; } }\n") % {"d": self.tmp, "own": self.domain.own, "port": self.port}
        with open(self.tmp + "/conf", "w", encoding="utf-8") as f:
            f.write(conf)
        return ["nginx", "-c", self.tmp + "/conf"]
