# SPDX-License-Identifier: BSD-3-Clause
"""recovery_work.py - programs that use sockets while their domain's agent is killed again and again.

usage: recovery_work.py stream PEER PORT BLOCKS SEED    sends blocks and receives some, at once; prints both hashes
       recovery_work.py serve OWN PORT                  echoes, streams by epoll and datagrams, until it is told to end ("end")
       recovery_work.py lost OWN PEER PORT              three connections and a datagram socket wait until their domain is given up; then
                                                        one connection is served
       recovery_work.py spoilt OWN PEER PORT            a connection, a listener and a datagram socket wait until they are over; then one
                                                        connects once more
       recovery_work.py udp PEER PORT                   sends numbered datagrams and waits for each one's echo; until its input ends
"""
import errno
import hashlib
import select
import selectors
import socket
import sys
import threading
import time

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
    print("ready", flush=True)
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


def names(mask):
    return " ".join(n for n in ("IN", "ERR", "HUP") if mask & getattr(select, "POLL" + n))


def error(call, *args):
    try:
        return call(*args)
    except OSError as e:
        return errno.errorcode[e.errno]


def lost(own, peer, port):
    port = int(port)
    listener = socket.create_server((own, port))
    conns = [socket.create_connection((peer, port)) for _ in range(3)]
    dgram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dgram.bind((own, port))
    poll, epoll = select.poll(), select.epoll()
    poll.register(conns[1], select.POLLIN)
    epoll.register(conns[2], select.EPOLLIN)
    results = {}

    def note(name, call):
        results[name] = call()

    threads = [threading.Thread(target=note, args=a) for a in (
        ("recv", lambda: "%s, then %s, then send %s" % (error(conns[0].recv, 1), conns[0].recv(1), error(conns[0].send, b"x"))),
        ("poll", lambda: names(poll.poll()[0][1])), ("epoll", lambda: names(epoll.poll()[0][1])),
        ("dgram", lambda: error(dgram.recv, 1)))]
    for t in threads:
        t.start()
    time.sleep(0.5)  # they sleep by now; if not, no matter
    print("connected", flush=True)
    for t in threads:
        t.join()
    for name in ("recv", "poll", "epoll", "dgram"):
        print(name, results[name], flush=True)
    s, _ = listener.accept()
    s.sendall(b"served")
    s.close()
    sys.stdin.read()


def spoilt(own, peer, port):
    port = int(port)
    listener = socket.create_server((own, port))
    s = socket.create_connection((peer, port))
    dgram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dgram.bind((own, port))
    print("connected", flush=True)
    results = {}

    def note(name, call, *args):
        results[name] = error(call, *args)

    threads = [threading.Thread(target=note, args=a) for a in (("recv", s.recv, 1), ("accept", listener.accept), ("dgram", dgram.recv, 1))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print("recv", results["recv"])
    print("accept", "over" if isinstance(results["accept"], str) else results["accept"])
    print("dgram", results["dgram"], flush=True)
    for old in (listener, s, dgram):
        old.close()
    s = socket.create_connection((peer, port))
    s.sendall(b"anew")
    s.close()
    socket.create_server((own, port)).close()
    sys.stdin.read()


over = threading.Event()
if __name__ == "__main__":
    if sys.argv[1] == "stream":
        stream(*sys.argv[2:])
    elif sys.argv[1] == "serve":
        Echo(sys.argv[2], int(sys.argv[3])).run()
    elif sys.argv[1] == "lost":
        lost(*sys.argv[2:])
    elif sys.argv[1] == "spoilt":
        spoilt(*sys.argv[2:])
    else:
        udp(*sys.argv[2:])
