#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Unmodified servers and clients, natively and under scrun --network, against programs on the kernel's stack outside: the same
outcome, payloads compared by hash."""
import hashlib
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netdomain import enter_namespaces  # noqa: E402
from progcase import PYTHON, RUN_S, ProgramCase  # noqa: E402

NGINX = """daemon off; master_process on; worker_processes 2; user root; pid %(dir)s/pid; error_log %(dir)s/error.log;
events { worker_connections 512; }
http { access_log off; sendfile on; keepalive_timeout 30; client_body_temp_path %(dir)s/b; proxy_temp_path %(dir)s/p;
       fastcgi_temp_path %(dir)s/f; uwsgi_temp_path %(dir)s/u; scgi_temp_path %(dir)s/s;
       server { listen %(own)s:8080; root %(dir)s/www; } }
"""


class Programs(ProgramCase):
    """Each case is run in both places."""

    def test_client(self):
        def case(where):
            self.start([PYTHON, "-m", "http.server", "-d", "www", "--bind", where.PEER, "8000"])
            return [self.fetch("http://%s:8000/%s" % (where.PEER, name), where) for name in ("small", "large", "none")]

        self.assertEqual(self.both(case)[0][1][0], 0)

    def test_python_server(self):
        def case(where):
            self.start(where.argv([PYTHON, "-m", "http.server", "-d", "www", "--bind", where.OWN, "8000"]), where.env())
            return [self.fetch("http://%s:8000/%s" % (where.OWN, name)) for name in ("small", "large", "large")]

        self.assertEqual(self.both(case)[0][1][0], 0)

    def test_nginx(self):
        """Prefork, sendfile, keepalive; many connections at once."""
        def case(where):
            with open(self.dir + "/nginx.conf", "w", encoding="utf-8") as f:
                f.write(NGINX % {"dir": self.dir, "own": where.OWN})
            self.start(where.argv(["nginx", "-c", self.dir + "/nginx.conf"]), where.env())
            url = "http://%s:8080/" % where.OWN
            out = [self.fetch(url + name) for name in ("small", "large")]
            for i in range(20):
                self.start(["curl", "-sS", "-o", "got%d" % i, url + "large", url + "small"])
            clients = self.running[1:]
            out.append([c.wait(RUN_S) for c in clients])
            self.running = self.running[:1]
            for i in range(20):
                with open("%s/got%d" % (self.dir, i), "rb") as f:
                    out.append(hashlib.sha1(f.read()).hexdigest())
            code, text = self.run_it(["curl", "-sS", "-w", "%{num_connects} ", "-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null"] +
                                     [url + "small"] * 3)
            return out + [code, text]

        self.assertEqual(self.both(case)[0][0][0], 0)

    def test_redis(self):
        def server(own):
            return ["redis-server", "--bind", own, "--port", "6379", "--save", "", "--protected-mode", "no"]

        def case(where):
            self.start(where.argv(server(where.OWN)), where.env())
            out = [self.until(["redis-cli", "-h", where.OWN, "ping"]),
                   self.run_it(["redis-cli", "-h", where.OWN, "set", "key", "x" * 100000]),
                   self.run_it(["redis-cli", "-h", where.OWN, "get", "key"]),
                   self.run_it(["redis-benchmark", "-h", where.OWN, "-n", "2000", "-c", "20", "-t", "set,get,lrange_100", "--csv"])[0]]
            self.stop()
            self.start(server(where.PEER))
            out.append(self.until(where.argv(["redis-cli", "-h", where.PEER, "ping"]), where.env()))
            out.append(self.run_it(where.argv(["redis-benchmark", "-h", where.PEER, "-n", "2000", "-c", "20", "-P", "8", "-t", "set,get",
                                               "--threads", "2", "--csv"]), where.env())[0])
            return out

        self.assertEqual(self.both(case)[0][0][1], b"PONG\n")


if __name__ == "__main__":
    enter_namespaces()
    unittest.main(verbosity=2)
