#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""wire_work.py - a program for test_wire.py, natively or under scrun.

    wire_work.py stream ADDRESS PORT SIZE      a server of one connection: sends back the SHA-1 of SIZE bytes, then SIZE bytes of its own
    wire_work.py errors OWN PEER               what goes wrong, and the errno of each
    wire_work.py vanished PEER                 what is told of a peer that vanishes
"""
import errno
import hashlib
import socket
import sys
import time


def stream(address, port, size):
    listener = socket.create_server((address, port))
    print("listening", flush=True)
    s, _ = listener.accept()
    digest, left = hashlib.sha1(), size
    while left:
        data = s.recv(min(left, 65536))
        if not data:
            raise EOFError
        digest.update(data)
        left -= len(data)
    s.sendall(digest.digest())
    s.sendall(hashlib.shake_128(b"back").digest(size))
    s.shutdown(socket.SHUT_WR)
    s.recv(1)


def outcome(what, action):
    try:
        print(what, action())
    except OSError as e:
        print(what, errno.errorcode.get(e.errno, e.errno) if e.errno else type(e).__name__)


def connect(to, options=(), family=socket.AF_INET):
    with socket.socket(family) as s:
        for o in options:
            s.setsockopt(*o)
        s.connect(to)
        return "connected"


def in_use(own):
    with socket.create_server((own, 7100)), socket.socket() as second:
        second.bind((own, 7100))


def in_use_udp(own):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
        first.bind((own, 7100))
        second.bind((own, 7100))


def vanished(peer):
    with socket.create_connection((peer, 7300)) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000)
        s.sendall(b"x")
        time.sleep(1)  # the line is cut meanwhile
        s.sendall(b"y" * 1000)
        return s.recv(1)


def main():
    if sys.argv[1] == "stream":
        stream(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    if sys.argv[1] == "vanished":
        outcome("vanished", lambda: vanished(sys.argv[2]))
        return
    own, peer = sys.argv[2:4]
    outcome("in use", lambda: in_use(own))
    outcome("in use, UDP", lambda: in_use_udp(own))
    outcome("not ours", lambda: socket.create_server(("10.77.0.77", 0)))
    outcome("refused", lambda: connect((peer, 7999)))
    outcome("nobody there", lambda: connect(("10.77.0.99", 80)))


main()
