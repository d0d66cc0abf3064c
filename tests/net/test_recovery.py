#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The agent of a network domain is killed (SIGKILL) at random moments and started again, while unmodified programs use its sockets
and programs outside, on the kernel's stack, are their peers: no connection is reset, no byte is lost or comes twice.

SC_TEST_SEED repeats the moments of a run; SC_TEST_KILLS (10): how often in each case.
"""
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netdomain import OWN, PEER, Domain, enter_namespaces  # noqa: E402
from recovery_work import recv_hash, send_blocks  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
WORK = os.path.join(HERE, "recovery_work.py")
SEED = int(os.environ.get("SC_TEST_SEED", time.time_ns() % 1000000))
KILLS = int(os.environ.get("SC_TEST_KILLS", 10))
PORT = 7001
WAIT_S = 120


class Client(threading.Thread):
    """A program outside: runs `function(self)`, counts what it did, and keeps what went wrong."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function, self.count, self.wrong, self.stop = function, 0, [], threading.Event()
        self.start()

    def run(self):
        try:
            self.function(self)
        except (OSError, AssertionError) as e:
            self.wrong.append("after %d: %r" % (self.count, e))


def connection():
    s = socket.create_connection((OWN, PORT), WAIT_S)
    s.settimeout(WAIT_S)
    return s


def echo(s, data):
    s.sendall(data)
    got = b""
    while len(got) < len(data):
        part = s.recv(1 << 16)
        if not part:
            break
        got += part
    assert got == data, "echo of %d bytes: %d" % (len(data), len(got))


def ask(client):
    """One connection, asked again and again; at the end, too."""
    rnd = random.Random(id(client))
    with connection() as s:
        while not client.stop.is_set():
            echo(s, rnd.randbytes(rnd.choice((1, 100, 5000, 60000))))
            client.count += 1
        echo(s, b"at the end")


def idle(client):
    with connection() as s:
        echo(s, b"hello")
        client.stop.wait()
        echo(s, b"still there")
        client.count += 1


def connect(client):
    """New connections, one after the other."""
    while not client.stop.is_set():
        with connection() as s:
            echo(s, b"hello")
            client.count += 1


def dgrams(client):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((OWN, PORT))
        s.settimeout(0.2)
        while not client.stop.is_set():
            try:
                s.send(b"%d" % client.count)
                while s.recv(100) != b"%d" % client.count:
                    pass
                client.count += 1
            except (socket.timeout, ConnectionRefusedError):
                continue


class Recovery(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.rnd = random.Random(SEED)
        self.dir = tempfile.mkdtemp(prefix="sc-recovery.")
        os.chmod(self.dir, 0o755)
        self.addCleanup(shutil.rmtree, self.dir)
        self.domain = Domain()
        self.domain.__enter__()
        self.addCleanup(self.domain.__exit__)
        self.running = []
        self.addCleanup(self.end_all)

    def start(self, *argv, **kw):
        kw.setdefault("env", self.domain.env())
        p = subprocess.Popen(self.domain.argv(list(argv)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, cwd=self.dir, **kw)
        self.running.append(p)
        return p

    def end_all(self):
        for p in self.running:
            if p.poll() is None:
                p.kill()
            if not p.stdout.closed:
                p.communicate()

    def kill_often(self, least=0.05, most=0.5):
        for _ in range(KILLS):
            time.sleep(self.rnd.uniform(least, most))
            self.domain.kill_agent()

    def finish(self, clients):
        """All are told to end; what went wrong, and how much each did."""
        for c in clients:
            c.stop.set()
        for c in clients:
            c.join(WAIT_S)
        wrong = [w for c in clients for w in c.wrong] + ["hangs" for c in clients if c.is_alive()]
        for p in self.running:
            if wrong and p.poll() is not None:
                wrong.append(p.communicate()[0])
        self.assertEqual(wrong, [], "seed %d" % SEED)
        for c in clients:
            self.assertGreater(c.count, 0, c.function.__name__)

    def test_stream(self):
        """Bytes both ways, compared by hash."""
        blocks = 60 * KILLS
        with socket.create_server((PEER, PORT)) as srv:
            p = self.start(PYTHON, WORK, "stream", PEER, str(PORT), str(blocks), "own %d" % SEED)
            s, _ = srv.accept()
        s.settimeout(WAIT_S)
        results = []
        threads = [threading.Thread(target=lambda: results.append(("sent", send_blocks(s, "peer %d" % SEED, blocks)))),
                   threading.Thread(target=lambda: results.append(("got", recv_hash(s))))]
        for t in threads:
            t.start()
        self.kill_often(0.01, 0.3)
        for t in threads:
            t.join(WAIT_S)
        s.close()
        out, _ = p.communicate(timeout=WAIT_S)
        results = dict(results)
        self.assertEqual(out.split(), [results.get("got"), results.get("sent")], "seed %d" % SEED)

    def serve(self):
        p = self.start(PYTHON, WORK, "serve", OWN, str(PORT))
        self.assertEqual(p.stdout.readline(), "ready\n")
        return p

    def stop_server(self, p):
        with connection() as s:
            echo(s, b"end")
        out, _ = p.communicate(timeout=WAIT_S)
        self.assertEqual((out, p.returncode), ("", 0), "seed %d" % SEED)

    def test_server(self):
        """Long-lived connections that are used, or idle; new ones all the while; datagrams."""
        p = self.serve()
        clients = [Client(f) for f in (ask, ask, ask, idle, idle, connect, connect, dgrams)]
        self.kill_often(0.05, 0.6)
        self.finish(clients)
        self.stop_server(p)

    def test_datagrams_from_inside(self):
        """A socket that was bound by its first datagram keeps its port."""
        p = self.start(PYTHON, WORK, "udp", PEER, str(PORT), stdin=subprocess.PIPE)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((PEER, PORT))
            s.settimeout(0.1)
            self.assertEqual(p.stdout.readline(), "ready\n")
            over = threading.Event()

            def reply():
                while not over.is_set():
                    try:
                        data, addr = s.recvfrom(100)
                        s.sendto(data, addr)
                    except (socket.timeout, ConnectionRefusedError):
                        continue

            t = threading.Thread(target=reply)
            t.start()
            self.kill_often(0.05, 0.3)
            out, _ = p.communicate("", timeout=WAIT_S)
            over.set()
            t.join()
        self.assertEqual(p.returncode, 0, out)
        self.assertGreater(int(out), KILLS)

    def test_too_long(self):
        """The domain does not come back in time: connections end, in a call or in epoll; listeners and datagrams outlive it."""
        with socket.create_server((PEER, PORT)) as srv:
            p = self.start(PYTHON, WORK, "lost", OWN, PEER, str(PORT), env=dict(self.domain.env(), VHOST_SC_RECOVERY_TIMEOUT="1"),
                           stdin=subprocess.PIPE)
            outside = [srv.accept()[0] for _ in range(3)]
            for s in outside:
                s.settimeout(WAIT_S)
            self.assertEqual(p.stdout.readline(), "connected\n")
            self.domain.stop_agent()
            self.assertEqual([p.stdout.readline() for _ in range(4)],
                             ["recv ECONNRESET, then b'', then send EPIPE\n", "poll IN ERR HUP\n", "epoll IN ERR HUP\n", "dgram ENETDOWN\n"])
            self.domain.restart_agent()
            for s in outside:
                with self.assertRaises(ConnectionResetError):
                    s.recv(1)
                s.close()
            with connection() as s:
                self.assertEqual(s.recv(100), b"served")
            out, _ = p.communicate("", timeout=WAIT_S)
            self.assertEqual((out, p.returncode), ("", 0))

    def test_spoilt_state(self):
        """What is kept is damaged: sockets of before are over, for both sides, and new ones work, in the same process, too."""
        with socket.create_server((PEER, PORT)) as srv:
            p = self.start(PYTHON, WORK, "spoilt", OWN, PEER, str(PORT), stdin=subprocess.PIPE)
            s, _ = srv.accept()
            s.settimeout(WAIT_S)
            self.assertEqual(p.stdout.readline(), "connected\n")
            self.domain.stop_agent()
            self.domain.spoil_state()
            self.domain.restart_agent()
            self.assertEqual([p.stdout.readline() for _ in range(3)], ["recv ECONNRESET\n", "accept over\n", "dgram ECONNRESET\n"])
            with self.assertRaises(ConnectionResetError):
                while True:
                    s.sendall(b"hello?")
                    time.sleep(0.05)
            s, _ = srv.accept()
            s.settimeout(WAIT_S)
            self.assertEqual(s.recv(100), b"anew")
            s.close()
        out, _ = p.communicate("", timeout=WAIT_S)
        self.assertEqual((out, p.returncode), ("", 0))

    def test_hostile_process(self):
        """A process writes nonsense into its sockets while there is no agent: it loses them, and nobody else notices."""
        p = self.serve()
        with connection() as s, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as d:
            echo(s, b"hello")
            for _ in range(5):
                self.domain.stop_agent()
                self.domain.spoil_sockets(self.rnd)
                self.domain.restart_agent()
                for _ in range(20):
                    d.sendto(bytes(1400), (OWN, PORT))
                    time.sleep(0.01)
        p.kill()
        p.communicate()
        p = self.serve()
        with connection() as s:
            echo(s, b"hello")
        self.stop_server(p)

    def test_kills_in_a_row(self):
        """Before, while, and after the last one's sockets are made again."""
        p = self.serve()
        clients = [Client(f) for f in (ask, idle, dgrams)]
        for c in clients[:1]:
            while not c.count and not c.wrong:
                time.sleep(0.01)
        self.kill_often(0, 0.03)
        self.finish(clients)
        self.stop_server(p)

    def until(self, argv):
        end = time.monotonic() + WAIT_S
        while subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
            self.assertLess(time.monotonic(), end, argv)
            time.sleep(0.1)

    @unittest.skipUnless(shutil.which("redis-server"), "no redis-server")
    def test_redis(self):
        p = self.start("redis-server", "--bind", OWN, "--port", str(PORT), "--save", "", "--protected-mode", "no", "--loglevel", "warning")
        self.until(["redis-cli", "-h", OWN, "-p", str(PORT), "ping"])

        def increments(client):
            with connection() as s:
                while not client.stop.is_set():
                    s.sendall(b"INCR %d\r\n" % id(client))
                    reply = b""
                    while not reply.endswith(b"\r\n"):
                        part = s.recv(100)
                        assert part, "end of file"
                        reply += part
                    client.count += 1
                    assert reply == b":%d\r\n" % client.count, reply

        clients = [Client(increments) for _ in range(5)]
        self.kill_often()
        self.finish(clients)
        p.send_signal(signal.SIGTERM)
        p.wait(WAIT_S)

    @unittest.skipUnless(shutil.which("nginx"), "no nginx")
    def test_nginx(self):
        """Keep-alive connections that ask hundreds of times."""
        body = random.Random(SEED).randbytes(200000)
        os.mkdir(self.dir + "/www")
        with open(self.dir + "/www/file", "wb") as f:
            f.write(body)
        with open(self.dir + "/conf", "w", encoding="utf-8") as f:
            f.write("daemon off; master_process off; user root; pid %(d)s/pid; error_log %(d)s/error; events { }\n"
                    "http { access_log off; sendfile on; keepalive_requests 1000000; keepalive_timeout 300; client_body_temp_path %(d)s/b;"
                    " proxy_temp_path %(d)s/p; fastcgi_temp_path %(d)s/f; uwsgi_temp_path %(d)s/u; scgi_temp_path %(d)s/s;"
                    " server { listen %(own)s:%(port)d; root %(d)s/www; } }\n" % {"d": self.dir, "own": OWN, "port": PORT})
        p = self.start("nginx", "-c", self.dir + "/conf")
        self.until(["curl", "-sf", "http://%s:%d/file" % (OWN, PORT)])

        def fetch(client):
            with connection() as s, s.makefile("rb") as f:
                while not client.stop.is_set():
                    s.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
                    head = list(iter(lambda: f.readline().strip(), b""))
                    assert head and head[0] == b"HTTP/1.1 200 OK", head
                    assert f.read(len(body)) == body
                    client.count += 1

        clients = [Client(fetch) for _ in range(3)]
        self.kill_often()
        self.finish(clients)
        p.send_signal(signal.SIGTERM)
        p.wait(WAIT_S)


if __name__ == "__main__":
    enter_namespaces()
    print("seed %d" % SEED)
    unittest.main(verbosity=2)
