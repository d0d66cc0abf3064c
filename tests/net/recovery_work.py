# SPDX-License-Identifier: BSD-3-Clause
"""recovery_work.py - programs that use sockets while their domain's agent is killed again and again.

usage: recovery_work.py stream PEER PORT BLOCKS SEED    sends blocks and receives some, at once; prints both hashes
       recovery_work.py serve OWN PORT                  echoes, streams by epoll and datagrams, until it is told to end ("end")
       recovery_work.py udp PEER PORT                   sends numbered datagrams and waits for each one's echo; until its input ends
"""
import hashlib
import selectors
import socket
import sys
import threading

BLOCK = 40000


def block(seed, i):
    return hashlib.shake_128(b"%s %d" % (seed.encode(), i)).digest(BLOCK)


def send_blocks(s, seed, n):
    """Sends n blocks and FIN; the hash of all."""
    h = hashlib.sha256()
    for i in range(n):
        b = block(seed, i)
        h.update(b)
        s.sendall(b)
    s.shutdown(socket.SHUT_WR)
    return h.hexdigest()


def recv_hash(s):
    h = hashlib.sha256()
    for b in iter(lambda: s.recv(1 << 16), b""):
        h.update(b)
    return h.hexdigest()


def stream(peer, port, blocks, seed):
    s = socket.create_connection((peer, int(port)))
    sent = []
    t = threading.Thread(target=lambda: sent.append(send_blocks(s, seed, int(blocks))))
    t.start()
    got = recv_hash(s)
    t.join()
    print(sent[0], got, flush=True)


class Echo:
    def __init__(self, own, port):
        self.sel = selectors.DefaultSelector()
        self.listener = socket.create_server((own, port), backlog=200)
        self.listener.setblocking(False)
        self.dgram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.dgram.bind((own, port))
        self.sel.register(self.listener, selectors.EVENT_READ, self.accept)
        self.sel.register(self.dgram, selectors.EVENT_READ, self.datagram)
        self.running = True

    def accept(self, _):
        try:
            s, _ = self.listener.accept()
        except BlockingIOError:
            return
        s.setblocking(True)
        self.sel.register(s, selectors.EVENT_READ, self.echo)

    def datagram(self, _):
        data, addr = self.dgram.recvfrom(2000)
        self.dgram.sendto(data, addr)

    def echo(self, s):
        try:
            data = s.recv(1 << 16)
            s.sendall(data)
        except OSError as e:
            print("error", e, flush=True)
            data = b""
        if data == b"end":
            self.running = False
        if not data:
            self.sel.unregister(s)
            s.close()

    def run(self):
        print("ready", flush=True)
        while self.running:
            for key, _ in self.sel.select():
                key.data(key.fileobj)


def udp(peer, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((peer, int(port)))
    s.settimeout(0.2)
    name, n = None, 0
    threading.Thread(target=lambda: (sys.stdin.read(), over.set())).start()
    while not over.is_set():
        s.send(b"%d" % n)
        try:
            while s.recv(100) != b"%d" % n:
                pass
            n += 1
        except socket.timeout:  # one was lost: datagrams may be
            continue
        name = name or s.getsockname()
        assert s.getsockname() == name
    print(n, flush=True)


over = threading.Event()
if __name__ == "__main__":
    if sys.argv[1] == "stream":
        stream(*sys.argv[2:])
    elif sys.argv[1] == "serve":
        Echo(sys.argv[2], int(sys.argv[3])).run()
    else:
        udp(*sys.argv[2:])
