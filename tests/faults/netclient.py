#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""netclient.py - the peers of work_net.py. Ordinary programs.

usage: netclient.py stream|redis|nginx|echo ADDRESS PORT

The clients use one connection until standard input ends, and report each right answer by a line; anything else ends them.
echo is the stream's server.
"""
import hashlib
import http.client
import os
import random
import select
import socket
import sys
import threading
import time


def more():
    return not select.select([sys.stdin], [], [], 0)[0]


def report(line="ok"):
    os.write(1, (line + "\n").encode())


def connect(address, port):
    """The server may still be starting."""
    end = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((address, port), timeout=120)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def exactly(s, n):
    b = b""
    while len(b) < n:
        part = s.recv(n - len(b))
        if not part:
            raise EOFError("the connection ended")
        b += part
    return b


def stream(address, port):
    s = connect(address, port)
    report("connected")
    n = 0
    while more():
        out = random.Random(n).randbytes(65536)
        sender = threading.Thread(target=s.sendall, args=(out,))
        sender.start()
        if exactly(s, len(out)) != out:
            raise ValueError("chunk %d came back wrong" % n)
        sender.join()
        report()
        n += 1


def redis(address, port):
    s = connect(address, port)
    report("connected")
    n = 0
    while more():
        s.sendall(b"INCR n\r\n")
        n += 1
        want = b":%d\r\n" % n
        got = exactly(s, len(want))
        if got != want:
            raise ValueError("%r, not %r" % (got, want))
        report()


def nginx(address, port):
    connect(address, port).close()
    c = http.client.HTTPConnection(address, port, timeout=120)
    c.connect()
    mine = c.sock.getsockname()
    report("connected")
    want = hashlib.shake_128(b"file").digest(300000)
    while more():
        c.request("GET", "/file")
        r = c.getresponse()
        if r.status != 200 or r.read() != want:
            raise ValueError("answer %d is wrong" % r.status)
        if c.sock is None or c.sock.getsockname() != mine:
            raise ValueError("the connection was not kept")
        report()


def echo(address, port):
    listener = socket.create_server((address, port))
    while True:
        s, _ = listener.accept()
        while b := s.recv(65536):
            s.sendall(b)
        s.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
