#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""More unmodified servers and clients, as test_programs.py: ssh, rsync, memcached, socat, netcat, iperf3, dig, ping, ab and wrk, a
storage domain behind nginx, PostgreSQL."""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netdomain import Domain, Native, enter_namespaces  # noqa: E402
from progcase import RUN_S, ProgramCase  # noqa: E402

SSHD = """Port 2222
ListenAddress %(address)s
HostKey %(dir)s/hostkey
AuthorizedKeysFile %(dir)s/key.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
Subsystem sftp internal-sftp
"""
NGINX = """daemon off; master_process on; worker_processes 2; user root; pid %(dir)s/pid; error_log %(dir)s/error.log;
events { worker_connections 512; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_timeout 30; keepalive_requests 100000;
       client_body_temp_path %(dir)s/b; proxy_temp_path %(dir)s/p; fastcgi_temp_path %(dir)s/f; uwsgi_temp_path %(dir)s/u;
       scgi_temp_path %(dir)s/s; server { listen %(own)s:8080; root %(root)s; } }
"""


def sha1(data):
    return hashlib.sha1(data).hexdigest()


class Servers(ProgramCase):
    """Each case is run in both places, and in each with the server inside, then outside."""

    maxDiff = None

    def write(self, name, text):
        with open(os.path.join(self.dir, name), "w", encoding="utf-8") as f:
            f.write(text)

    def hash_of(self, name):
        path = os.path.join(self.dir, name)
        if not os.path.exists(path):
            return "none"
        with open(path, "rb") as f:
            return sha1(f.read())

    def sides(self, where):
        """(server's address, how the server is run, how the client is run), in the domain and out of it."""
        def inside(call, argv):
            return call(where.argv(argv), where.env())

        def outside(call, argv):
            return call(argv)

        return [(where.OWN, inside, outside), (where.PEER, outside, inside)]

    # ---- ssh ----

    def keys(self):
        for key in ("key", "hostkey"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "%s/%s" % (self.dir, key)], check=True)
        os.makedirs("/run/sshd", exist_ok=True)

    def test_ssh(self):
        """Commands, bytes both ways, scp, rsync over it."""
        self.keys()

        def case(where):
            out = []
            for address, server, client in self.sides(where)[1:]:
                self.write("sshd_config", SSHD % {"dir": self.dir, "address": address})
                server(self.start, [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", self.dir + "/sshd_config"])
                options = ["-F", "none", "-i", self.dir + "/key", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                           "-o", "LogLevel=ERROR"]
                ssh = ["ssh", "-p", "2222"] + options
                out.append(client(self.until, ssh + ["root@" + address, "echo", "there"]))
                out.append(client(self.run_it, ssh + ["root@" + address, "cat %s/www/large | tee /dev/stderr | sha1sum; exit 7" % self.dir])[0])
                code, got = client(self.run_it, ssh + ["root@" + address, "cat %s/www/large" % self.dir])
                out.append((code, sha1(got)))
                code, got = client(self.run_it, ["sh", "-c", " ".join(ssh) + " root@%s sha1sum <www/large" % address])
                out.append((code, got))
                for name in ("down", "up"):
                    os.makedirs(os.path.join(self.dir, name), exist_ok=True)
                code, got = client(self.run_it, ["scp", "-P", "2222"] + options + ["root@%s:%s/www/large" % (address, self.dir), "down/"])
                out.append((code, got, self.hash_of("down/large")))
                code, got = client(self.run_it, ["scp", "-O", "-P", "2222"] + options + ["www/large", "root@%s:%s/up/" % (address, self.dir)])
                out.append((code, got, self.hash_of("up/large")))
                code, got = client(self.run_it, ["rsync", "-a", "-e", " ".join(ssh), "root@%s:%s/www/" % (address, self.dir), "down/tree/"])
                out.append((code, got, self.hash_of("down/tree/large"), self.hash_of("down/tree/small")))
                code, got = client(self.run_it, ["rsync", "-a", "-z", "-e", " ".join(ssh), "www/", "root@%s:%s/up/tree/" % (address, self.dir)])
                out.append((code, got, self.hash_of("up/tree/large"), self.hash_of("up/tree/small")))
                for name in ("down", "up"):
                    shutil.rmtree(os.path.join(self.dir, name))
                out.append(self.stop())
            return out

        native = self.both(case)[0]
        self.assertEqual(native[0], (0, b"there\n"))
        self.assertEqual(native[4][2], self.hash_of("www/large"))

    # ---- memcached, socat, netcat ----

    def test_memcached(self):
        value = "v" * 50000

        def case(where):
            out = []
            for address, server, client in self.sides(where):
                server(self.start, ["memcached", "-u", "root", "-l", address, "-p", "11211", "-U", "11211", "-t", "2"])
                out.append(client(self.until, ["sh", "-c", "printf 'version\\r\\nquit\\r\\n' | nc %s 11211" % address]))
                self.write("set", "set k 0 0 %d\r\n%s\r\nget k\r\ndelete k\r\nget k\r\nincr n 1\r\nquit\r\n" % (len(value), value))
                out.append(client(self.run_it, ["sh", "-c", "nc %s 11211 <set | sha1sum" % address]))
                for i in range(20):
                    self.write("set%d" % i, "".join("set k%d-%d 0 0 5\r\n%05d\r\n" % (i, j, j) for j in range(500)) +
                               "".join("get k%d-%d\r\n" % (i, j) for j in range(500)) + "quit\r\n")
                out.append(client(self.run_it, ["sh", "-c", "for i in $(seq 0 19); do nc %s 11211 <set$i >got$i & done; wait; "
                                                "cat got? got?? | sha1sum" % address]))
                out.append(self.stop())
            return out

        native = self.both(case)[0]
        self.assertIn(b"VERSION", native[0][1])

    def test_socat_and_netcat(self):
        def case(where):
            out = []
            for address, server, client in self.sides(where):
                server(self.start, ["socat", "TCP-LISTEN:7000,fork,reuseaddr,bind=" + address, "EXEC:sha1sum"])
                client(self.until, ["nc", "-z", address, "7000"])
                for tool in ("socat -t 10 - TCP:%s:7000", "nc -N %s 7000"):
                    out.append(client(self.run_it, ["sh", "-c", "%s <www/large" % (tool % address)]))
                server(self.start, ["socat", "-u", "OPEN:www/large,rdonly", "TCP-LISTEN:7001,fork,reuseaddr,bind=" + address])
                code, got = client(self.until, ["nc", "-d", address, "7001"])
                out.append((code, sha1(got)))
                server(self.start, ["socat", "UDP-RECVFROM:7002,fork,bind=" + address, "EXEC:sha1sum"])
                out.append(client(self.until, ["sh", "-c", "socat -t 1 - UDP:%s:7002 <www/small | grep ." % address]))
                server(self.start, ["nc", "-l", "-N", address, "7003"])
                out.append(client(self.until, ["nc", "-w", "3", "-z", "-v", address, "7003"])[0])
                out.append(client(self.run_it, ["nc", "-z", address, "7999"])[0])  # refused
                self.stop()
            return out

        native = self.both(case)[0]
        self.assertIn(self.hash_of("www/large").encode(), native[0][1])
        self.assertEqual(native[2][1], self.hash_of("www/large"))

    # ---- iperf3 ----

    def iperf(self, client, argv):
        """(exit status, whether bytes arrived, whether a third of them or more was lost)"""
        for _ in range(100):
            code, text = client(self.run_it, argv)  # status 0 with --json, whatever happened; it listens anew after each test
            if not re.search(b"Connection re(fused|set)|server is busy", text):
                break
            time.sleep(0.1)
        try:
            end = json.loads(text)["end"]
        except (ValueError, KeyError):
            return code, text
        got = end.get("sum_received") or end.get("sum") or {}
        return code, got.get("bytes", 0) > 100000 or text.decode(), end.get("sum", {}).get("lost_percent", 0) < 33

    def test_iperf3(self):
        """Both roles, both ways, TCP and UDP, several streams."""
        def case(where):
            out = []
            for address, server, client in self.sides(where):
                server(self.start, ["iperf3", "-s", "-B", address])
                udp = ["-u", "-b", "20M", "-l", "1400", "-n", "1M"]
                for args in (["-n", "30M"], ["-R", "-n", "30M"], ["-P", "4", "-n", "30M"], ["--bidir", "-t", "1"], udp, udp + ["-R"]):
                    out.append((args, self.iperf(client, ["iperf3", "-J", "-c", address] + args)))
                self.stop()
            return out

        for args, result in self.both(case)[0]:
            self.assertEqual(result, (0, True, True), args)

    # ---- names, ping ----

    def test_dig(self):
        def case(where):
            self.start(["dnsmasq", "-d", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--listen-address=" + where.PEER,
                        "--bind-interfaces", "--address=/there.test/192.0.2.7", "--user=root", "--pid-file=",
                        "--txt-record=long.test," + ",".join('"%s"' % ("t%02d" % i * 60) for i in range(20))])
            dig = ["dig", "+short", "+tries=1", "+time=5", "@" + where.PEER]
            out = [self.until(where.argv(dig + more), where.env()) for more in
                   (["there.test"], ["+tcp", "there.test"], ["TXT", "long.test"], ["-x", "192.0.2.7"])]
            code, text = self.run_it(where.argv(["dig", "+tries=1", "+time=5", "@" + where.PEER, "none.invalid"]), where.env())
            return out + [code, re.findall(rb"status: (\w+)", text)]

        self.assertEqual(self.both(case)[0][0], (0, b"192.0.2.7\n"))

    def test_ping(self):
        """Echo requests, in fragments and all, are answered by the domain."""
        def case(where):
            out = []
            for size in ("0", "56", "1472", "1473", "8000"):
                code, text = self.until(["ping", "-c", "3", "-i", "0.05", "-W", "2", "-s", size, where.OWN])
                out.append((size, code, re.findall(rb"(\d+) received", text)))
            code, text = self.until(["ping", "-6", "-c", "3", "-i", "0.05", "-W", "2", where.OWN6])
            return out + [(code, re.findall(rb"(\d+) received", text))]

        self.assertEqual(self.both(case)[0][-1], (0, [b"3"]))

    # ---- web ----

    def load(self, url):
        """ab and wrk: requests without a failure."""
        code, text = self.until(["ab", "-q", "-k", "-n", "2000", "-c", "50", url + "small"])
        out = [(code, re.findall(rb"(?:Complete|Failed|Non-2xx) [a-z]*:\s*(\d+)", text))]
        code, text = self.run_it(["ab", "-q", "-n", "500", "-c", "50", url + "small"])
        out.append((code, re.findall(rb"(?:Complete|Failed|Non-2xx) [a-z]*:\s*(\d+)", text)))
        code, text = self.run_it(["wrk", "-t", "2", "-c", "100", "-d", "1s", url + "large"])
        out.append((code, re.findall(rb"Socket errors.*|Non-2xx.*", text)))
        return out

    def test_nginx_under_load(self):
        def case(where):
            self.write("nginx.conf", NGINX % {"dir": self.dir, "own": where.OWN, "root": self.dir + "/www"})
            self.start(where.argv(["nginx", "-c", self.dir + "/nginx.conf"]), where.env())
            return self.load("http://%s:8080/" % where.OWN)

        self.assertEqual(self.both(case)[0][0][1][:2], [b"2000", b"0"])

    def test_nginx_with_storage_domain(self):
        """sendfile from a file of a storage domain to a socket of a network domain."""
        root = self.dir + "/root"
        shutil.copytree(self.dir + "/www", root + "/www")
        url = "http://%s:8080/" % Domain.OWN
        config = {"dir": self.dir, "own": Domain.OWN}

        def case(where, www):
            self.write("nginx.conf", NGINX % dict(config, root=www))
            self.start(where.argv(["nginx", "-c", self.dir + "/nginx.conf"]), where.env())
            out = [self.fetch(url + name) for name in ("small", "large", "large")]
            code, text = self.until(["curl", "-sS", "-r", "1234567-2345678", url + "large"])
            return out + [code, sha1(text), self.load(url)], self.stop()

        with Native() as where:
            native = case(where, root + "/www")
        with Domain(["--storage", "disk:/sc"]) as where:
            where.storage("disk", root)
            remote = case(where, "/sc/www")
            self.assertTrue(where.alive())
        self.assertEqual(native, remote)
        self.assertEqual(native[0][1], (0, self.hash_of("www/large")))

    # ---- PostgreSQL ----

    def test_postgres(self):
        """A server with a process per connection; pgbench inside against a server outside, too."""
        where_pg = sorted(os.listdir("/usr/lib/postgresql"))[-1]
        pg = "/usr/lib/postgresql/%s/bin/" % where_pg
        as_postgres = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        fresh = self.dir + "/fresh"
        os.mkdir(fresh)
        shutil.chown(fresh, "postgres")
        self.run_it(as_postgres + [pg + "initdb", "-A", "trust", "-N", "-D", fresh])
        with open(fresh + "/pg_hba.conf", "a", encoding="utf-8") as f:
            f.write("host all all 10.77.0.0/24 trust\n")

        def case(where):
            out = []
            for address, server, client in self.sides(where):
                data = self.dir + "/data"
                self.run_it(["cp", "-a", fresh, data])
                server(self.start, as_postgres + [pg + "postgres", "-D", data, "-h", address, "-p", "5432", "-k", "", "-c", "fsync=off"])
                psql = ["psql", "-h", address, "-U", "postgres", "-At", "-c"]
                out.append(client(self.until, psql + ["select 1+1"]))
                out.append(client(self.run_it, psql + ["select md5(string_agg(i::text, ',')), repeat('x', 200000) from generate_series(1, 50000) i"]))
                out.append(client(self.run_it, ["pgbench", "-h", address, "-U", "postgres", "-i", "-q", "-s", "1", "postgres"])[0])
                code, text = client(self.run_it, ["pgbench", "-h", address, "-U", "postgres", "-c", "10", "-j", "2", "-t", "30", "postgres"])
                out.append((code, re.findall(rb"actually processed: (\S+)", text), re.findall(rb"failed transactions: (\d+)", text)))
                out.append(client(self.run_it, psql + ["select count(*) from pgbench_history"]))
                out.append(self.stop())
                shutil.rmtree(data)
            return out

        self.assertEqual(self.both(case)[0][0], (0, b"2\n"))


if __name__ == "__main__":
    enter_namespaces()
    unittest.main(verbosity=2)
