# SPDX-License-Identifier: BSD-3-Clause
"""sock_peer.py ADDRESS - the machine outside, for sock_work.py: small servers on the kernel's stack. Prints "ready"."""
import hashlib
import socket
import struct
import sys
import threading
import time

ADDR = sys.argv[1]
release = threading.Event()


def echo(s, _):
    while True:
        b = s.recv(65536)
        if not b:
            return
        s.sendall(b)


def sink(s, _):
    h = hashlib.sha1()
    while True:
        b = s.recv(65536)
        if not b:
            break
        h.update(b)
    s.sendall(h.hexdigest()[:12].encode())


def source(s, _):
    n, = struct.unpack("!I", s.recv(4, socket.MSG_WAITALL))
    s.sendall(hashlib.shake_128(b"1").digest(n))


def slow(s, _):
    """Reads nothing until it is told to."""
    release.wait(30)
    while s.recv(65536):
        pass


def silent(s, _):
    s.recv(1)


def reset(s, _):
    s.recv(1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def greet(s, who):
    """For each port that it is told: connects there, says hello, tells what it heard."""
    while True:
        b = s.recv(2, socket.MSG_WAITALL)
        if len(b) < 2:
            return
        port, = struct.unpack("!H", b)
        if port == 1:
            release.set()
            continue
        c = socket.create_connection((who[0], port), timeout=10)
        c.sendall(b"hello")
        s.sendall(c.recv(100) or b"nothing")
        c.close()


def udp():
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.bind((ADDR, 7008))
    while True:
        b, who = u.recvfrom(65536)
        u.sendto(b, who)


def serve(port, fn):
    srv = socket.create_server((ADDR, port), backlog=64)
    while True:
        s, who = srv.accept()

        def one(s=s, who=who):
            try:
                fn(s, who)
            except OSError:
                pass
            s.close()
        threading.Thread(target=one, daemon=True).start()


for p, f in ((7001, echo), (7002, sink), (7003, source), (7004, slow), (7005, silent), (7006, reset), (7007, greet)):
    threading.Thread(target=serve, args=(p, f), daemon=True).start()
threading.Thread(target=udp, daemon=True).start()
time.sleep(0.2)
print("ready", flush=True)
while True:
    time.sleep(1000)
