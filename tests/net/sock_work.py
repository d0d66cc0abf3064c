# SPDX-License-Identifier: BSD-3-Clause
"""sock_work.py - what a program can ask of sockets, and what it is told; the same lines natively and under scrun.

usage: sock_work.py PART OWN PEER

OWN: address that the program may bind; PEER: address of the machine outside, where sock_peer.py runs. Each part prints what it sees,
nothing that differs from run to run (ports of its own, times).
"""
import array
import errno
import fcntl
import hashlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

OWN, PEER = sys.argv[2], sys.argv[3]
ECHO, SINK, SOURCE, SLOW, SILENT, RESET, GREET, UDP = 7001, 7002, 7003, 7004, 7005, 7006, 7007, 7008
REFUSED = 7099


def say(*what):
    print(*what, flush=True)


def trial(what, fn, *args, **kw):
    """Result or errno's name."""
    try:
        say(what, "->", fn(*args, **kw))
    except OSError as e:
        say(what, "->", errno.errorcode.get(e.errno, e))


def data(n, seed=1):
    return hashlib.shake_128(b"%d" % seed).digest(n)


def sha(b):
    return hashlib.sha1(b).hexdigest()[:12]


def tcp(port=None):
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(20)
    if port:
        s.connect((PEER, port))
    return s


def recv_all(s):
    out = b""
    while True:
        b = s.recv(65536)
        if not b:
            return out
        out += b


def part_connect():
    s = tcp(ECHO)
    say("names", s.getsockname()[0], s.getpeername())
    trial("again", s.connect, (PEER, ECHO))
    trial("listen when connected", s.listen, 1)
    s.close()
    s = tcp()
    trial("not connected: peer", s.getpeername)
    trial("not connected: recv", s.recv, 1)
    trial("not connected: send", s.send, b"x", socket.MSG_NOSIGNAL)
    trial("not connected: shutdown", s.shutdown, socket.SHUT_WR)
    trial("refused", s.connect, (PEER, REFUSED))
    trial("error is taken", s.getsockopt, socket.SOL_SOCKET, socket.SO_ERROR)
    trial("still at it", s.connect, (PEER, ECHO))
    s.settimeout(None)
    trial("once more", s.connect, (PEER, ECHO))
    s.sendall(b"hello")
    say(s.recv(5))
    s.close()
    s = tcp()
    s.setblocking(False)
    say("nonblocking", errno.errorcode[s.connect_ex((PEER, ECHO))])
    say("ready", select.select([], [s], [], 10)[1] == [s], s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    trial("connected", s.connect, (PEER, ECHO))
    trial("nothing there", s.recv, 1)
    s.close()
    s = tcp()
    s.setblocking(False)
    say("refused later", errno.errorcode[s.connect_ex((PEER, REFUSED))])
    p = select.poll()
    p.register(s, select.POLLIN | select.POLLOUT)
    say([e[1] for e in p.poll(10000)], errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
    s.close()
    s = tcp()
    trial("wrong family", s.connect, ("::1", 1)) if False else None
    say(s.fileno() >= 0, s.type == socket.SOCK_STREAM, s.family == socket.AF_INET, s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
        s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def part_stream():
    s = tcp(ECHO)
    sent = data(3000000)
    got = []

    def reader():
        n = 0
        while n < len(sent):
            b = s.recv(100000)
            if not b:
                break
            n += len(b)
            got.append(b)

    t = threading.Thread(target=reader)
    t.start()
    s.sendall(sent)
    t.join()
    say("echo", sha(b"".join(got)) == sha(sent))
    s.sendall(b"abcdef")
    say("peek", s.recv(3, socket.MSG_PEEK), s.recv(6, socket.MSG_WAITALL))
    s.sendall(b"0123456789")
    say("waitall", s.recv(10, socket.MSG_WAITALL))
    s.sendall(b"xy")
    time.sleep(0.3)
    n = array.array("i", [0])
    fcntl.ioctl(s, termios.FIONREAD, n)
    say("FIONREAD", n[0])
    say("recv_into", s.recv_into(bytearray(5), 1), s.recv(1))
    say("sendmsg", s.sendmsg([b"aa", b"", b"bbb"]), s.recv(5, socket.MSG_WAITALL))
    os.writev(s.fileno(), [b"12", b"345"])
    a, b = bytearray(2), bytearray(3)
    say("waited", s.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL) and os.readv(s.fileno(), [a, b]), bytes(a), bytes(b))
    os.write(s.fileno(), b"file")
    say(select.select([s], [], [], 10)[0] == [s])
    say("read", os.read(s.fileno(), 4))
    s.shutdown(socket.SHUT_WR)
    say("end", s.recv(10), s.recv(10))
    trial("send after shutdown", s.send, b"x", socket.MSG_NOSIGNAL)
    s.close()
    s = tcp(SOURCE)
    s.sendall(struct.pack("!I", 5000000))
    say("source", sha(recv_all(s)) == sha(data(5000000)))
    s.close()
    s = tcp(SINK)
    s.sendall(data(4000000, 2))
    s.shutdown(socket.SHUT_WR)
    say("sink", recv_all(s).decode() == sha(data(4000000, 2)))
    trial("urgent", lambda: 0)
    s.close()
    s = tcp(RESET)
    s.sendall(b"x")
    p = select.poll()
    p.register(s, select.POLLIN)
    p.poll(5000)
    trial("reset", s.recv, 10)
    trial("after reset", s.recv, 10)
    trial("send after reset", s.send, b"x", socket.MSG_NOSIGNAL)
    signal.signal(signal.SIGPIPE, lambda *a: say("SIGPIPE"))
    trial("with a signal", s.send, b"x")
    s.close()


def part_serve():
    l = tcp()
    l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    l.bind((OWN, 7100))
    say("bound", l.getsockname())
    l2 = tcp()
    trial("bound twice", l2.bind, (OWN, 7100))
    trial("no such address", l2.bind, ("192.0.2.55", 0))
    l.listen(5)
    say("accepting", l.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    l.setblocking(False)
    trial("nobody", l.accept)
    go = tcp(GREET)
    for i in range(3):
        go.sendall(struct.pack("!H", 7100))
        say("waits", select.select([l], [], [], 10)[0] == [l])
        s, who = l.accept()
        say("peer", who[0], s.getsockname(), s.getblocking())
        s.settimeout(10)
        say(s.recv(100))
        s.sendall(b"answer %d" % i)
        s.close()
        say("heard", go.recv(100))
    l.setblocking(True)
    threading.Timer(0.3, lambda: go.sendall(struct.pack("!H", 7100))).start()
    s, who = l.accept()
    say("blocking", who[0], s.recv(10))
    s.close()
    say("heard", go.recv(100))
    l.close()
    l = socket.create_server((OWN, 0))
    say("any port", l.getsockname()[1] > 1023)
    l.settimeout(0.2)
    try:
        l.accept()
    except TimeoutError:
        say("timeout")


def part_poll():
    s = tcp(ECHO)
    q, w = os.pipe()
    p = select.poll()
    p.register(s, select.POLLIN | select.POLLOUT)
    p.register(q, select.POLLIN)
    say(sorted(e[1] for e in p.poll(0)))
    p.modify(s, select.POLLIN)
    say(p.poll(0), p.poll(100))
    threading.Timer(0.2, os.write, (w, b"x")).start()
    say("pipe", [fd == q for fd, _ in p.poll(5000)])
    os.read(q, 1)
    threading.Timer(0.2, s.send, (b"y",)).start()
    say("socket", [(fd == s.fileno(), e) for fd, e in p.poll(5000)])
    os.write(w, b"x")
    say("both", len(p.poll(5000)))
    say("select", [len(x) for x in select.select([s, q], [s], [s], 5)])
    os.read(q, 1)
    s.recv(1)
    start = time.monotonic()
    say("select none", select.select([s, q], [], [], 0.2), 0.15 < time.monotonic() - start < 5)
    s.shutdown(socket.SHUT_WR)
    say("hangup", [e for _, e in p.poll(5000)])
    p.modify(s, select.POLLIN | select.POLLRDHUP | select.POLLOUT)
    say("rdhup", [e for _, e in p.poll(5000)])
    s.close()
    c = tcp()
    p = select.poll()
    p.register(c, select.POLLIN | select.POLLOUT)
    say("new", p.poll(0)[0][1])


def part_epoll():
    e = select.epoll()
    s = tcp(ECHO)
    q, w = os.pipe()
    r, d = select.EPOLLIN, {}
    e.register(s, r)
    e.register(q, r)
    d = {s.fileno(): "sock", q: "pipe"}

    def wait(t=5.0, n=10):
        return sorted((d[fd], ev) for fd, ev in e.poll(t, n))

    trial("twice", e.register, s, r)
    say("idle", wait(0), wait(0.1))
    s.sendall(b"abc")
    say("level", wait(), wait())
    os.write(w, b"x")
    say("mixed", wait(5, 10))
    say("one at a time", len(e.poll(5, 1)))
    say(s.recv(3), os.read(q, 1), wait(0.1))
    e.modify(s, r | select.EPOLLET)
    s.sendall(b"abc")
    say("edge", wait(), wait(0.2))
    f = tcp(ECHO)
    f.sendall(b"here first")
    time.sleep(0.3)  # (nobody is to have waited for it before)
    e2 = select.epoll()
    e2.register(f, r | select.EPOLLET)
    say("ready when added", len(e2.poll(5)), f.recv(10, socket.MSG_WAITALL), len(e2.poll(0.1)))
    f.sendall(b"then")
    say("later", len(e2.poll(5)))
    s.sendall(b"def")
    say("next edge", wait(), wait(0.2), s.recv(6, socket.MSG_WAITALL))
    e.modify(s, r | select.EPOLLOUT | select.EPOLLET)
    say("out edge", wait(0.5), wait(0.2))
    e.modify(s, r | select.EPOLLONESHOT)
    s.sendall(b"g")
    say("oneshot", wait(), wait(0.2))
    s.sendall(b"h")
    say("still off", wait(0.2))
    e.modify(s, r)
    say("on again", wait(), s.recv(2, socket.MSG_WAITALL))
    threading.Timer(0.2, s.sendall, (b"late",)).start()
    say("sleeps", wait())
    s.recv(4)
    threading.Timer(0.2, os.write, (w, b"x")).start()
    say("sleeps for the pipe", wait())
    os.read(q, 1)
    s2 = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s2.setblocking(False)
    e.register(s2, select.EPOLLOUT | select.EPOLLIN)
    d[s2.fileno()] = "second"
    s2.connect_ex((PEER, ECHO))
    say("registered before connect", wait())
    e.unregister(s2)
    say("unregistered", wait(0.1))
    trial("unregistered twice", e.unregister, s2)
    e.register(s2, select.EPOLLIN)
    s2.send(b"z")
    say(wait())
    s2.close()
    say("closed", wait(0.1))
    s.shutdown(socket.SHUT_WR)
    say("end", wait())
    e.modify(s, select.EPOLLRDHUP)
    say("rdhup", wait())
    s3 = tcp(SLOW)
    s3.setblocking(False)
    e.unregister(s)
    e.register(s3, select.EPOLLOUT)
    d[s3.fileno()] = "slow"
    n = 0
    try:
        while True:
            n += s3.send(bytes(65536))
    except BlockingIOError:
        say("full", n > 10000)
    s3b = tcp(GREET)
    s3b.sendall(struct.pack("!H", 1))
    say("room again", wait(20))


def part_threads():
    socks = [tcp(ECHO) for _ in range(8)]
    out = [None] * 8

    def work(i):
        h = hashlib.sha1()
        for k in range(50):
            b = data(1000 + 37 * k, i)
            socks[i].sendall(b)
            got = b""
            while len(got) < len(b):
                got += socks[i].recv(len(b) - len(got))
            h.update(got)
        out[i] = h.hexdigest()[:8]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    say(out)
    s = tcp(ECHO)
    n = [0]

    def half(k):
        for _ in range(100):
            n[0] += s.send(b"%d" % k * 100)

    threads = [threading.Thread(target=half, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    got = b""
    while len(got) < 40000:
        got += s.recv(65536)
    say("four senders", len(got), [got.count(b"%d" % k) for k in range(4)])


def part_signals():
    s = tcp(SILENT)
    s.settimeout(None)
    signal.signal(signal.SIGALRM, lambda *a: say("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    threading.Timer(0.6, s.shutdown, (socket.SHUT_RDWR,)).start()
    say("recv goes on", s.recv(1))

    class Out(Exception):
        pass

    def out(*_):
        raise Out

    s = tcp(SILENT)
    s.settimeout(None)
    signal.signal(signal.SIGALRM, out)
    for what, fn in (("recv", lambda: s.recv(1)), ("poll", lambda: select.select([s], [], [], 10)),
                     ("accept", lambda: socket.create_server((OWN, 0)).accept())):
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            fn()
        except Out:
            say("interrupted", what)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200000))
    start = time.monotonic()
    trial("timeout", s.recv, 1)
    say(0.15 < time.monotonic() - start < 5, struct.unpack("ll", s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)))
    trial("dontwait", s.recv, 1, socket.MSG_DONTWAIT)


def part_udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    trial("no destination", s.send, b"x")
    say(s.sendto(b"hello", (PEER, UDP)))
    b, who = s.recvfrom(100)
    say(b, who)
    s.sendto(data(9000), (PEER, UDP))
    b, who = s.recvfrom(10000)
    say("large", sha(b) == sha(data(9000)))
    trial("too large", s.sendto, bytes(70000), (PEER, UDP))
    s.sendto(b"0123456789", (PEER, UDP))
    b, _, flags, _ = s.recvmsg(4)
    say("truncated", b, flags == socket.MSG_TRUNC)
    s.sendto(b"", (PEER, UDP))
    say("empty", s.recvfrom(10))
    s.connect((PEER, UDP))
    s.send(b"connected")
    say(s.recv(100), s.getpeername())
    s.close()
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((OWN, 7200))
    say("bound", s.getsockname())
    s.settimeout(10)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO if hasattr(socket, "IP_PKTINFO") else 8, 1)
    s.sendto(b"info", (PEER, UDP))
    b, anc, flags, who = s.recvmsg(100, 200)
    say(b, who, [(lv, ty, socket.inet_ntoa(bytes(d[8:12]))) for lv, ty, d in anc])
    s.setblocking(False)
    trial("nothing", s.recv, 1)
    p = select.poll()
    p.register(s, select.POLLIN | select.POLLOUT)
    say("poll", p.poll(0)[0][1])


def part_options():
    s = tcp()
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.connect((PEER, ECHO))
    say("kept", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    say(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    for name, value in (("TCP_KEEPIDLE", 100), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        s.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        say(name, s.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    say("linger", struct.unpack("ii", s.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
    say("ttl", s.getsockopt(socket.IPPROTO_IP, socket.IP_TTL))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 16)
    say("tos", s.getsockopt(socket.IPPROTO_IP, socket.IP_TOS))
    trial("unknown option", s.setsockopt, socket.IPPROTO_TCP, 9999, 1)
    trial("unknown option", s.getsockopt, socket.IPPROTO_TCP, 9999)
    say("types", s.getsockopt(socket.SOL_SOCKET, 39), s.getsockopt(socket.SOL_SOCKET, 38))
    say("flags", fcntl.fcntl(s, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_NONBLOCK))
    s.setblocking(False)
    say("flags", fcntl.fcntl(s, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_NONBLOCK), fcntl.fcntl(s, fcntl.F_GETFD))
    d = s.dup()
    s.close()
    d.settimeout(10)
    d.sendall(b"dup")
    say(d.recv(3))
    trial("seek", os.lseek, d.fileno(), 0, 0)
    st = os.fstat(d.fileno())
    say("mode", oct(st.st_mode >> 12))


def part_local():
    l = socket.create_server(("127.0.0.1", 0))
    s = socket.create_connection(l.getsockname())
    c, _ = l.accept()
    s.sendall(b"local")
    say(c.recv(5), s.getpeername() == l.getsockname())
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.bind(("127.0.0.1", 0))
    v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    v.sendto(b"datagram", u.getsockname())
    say(u.recv(100))
    a, b = socket.socketpair()
    a.sendall(b"pair")
    say(b.recv(4))
    x = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    trial("::1", x.connect, ("::1", REFUSED))
    r = tcp(ECHO)
    r.sendall(b"far")
    e = select.epoll()
    for f in (c, b, r, u):
        e.register(f, select.EPOLLIN)
    s.sendall(b"1")
    a.sendall(b"2")
    v.sendto(b"3", u.getsockname())
    select.select([r], [], [], 10)
    say("all four", len(e.poll(5)))


def part_copy():
    import tempfile
    f = tempfile.TemporaryFile()
    f.write(data(1000000, 5))
    f.flush()
    s = tcp(SINK)
    s.settimeout(None)
    say("sendfile", os.sendfile(s.fileno(), f.fileno(), 0, 400000))
    f.seek(400000)
    n = 0
    while n < 600000:
        n += os.sendfile(s.fileno(), f.fileno(), None, 600000 - n)
    say("position", os.lseek(f.fileno(), 0, os.SEEK_CUR))
    trial("from a socket", os.sendfile, f.fileno(), s.fileno(), None, 10)
    q, w = os.pipe()
    os.write(w, b"through a pipe")
    say("splice out", os.splice(q, s.fileno(), 100))
    s.shutdown(socket.SHUT_WR)
    say(recv_all(s).decode() == sha(data(1000000, 5) + b"through a pipe"))
    s = tcp(SOURCE)
    s.settimeout(None)
    s.sendall(struct.pack("!I", 300000))
    got = b""
    while len(got) < 300000:
        k = os.splice(s.fileno(), w, 10000)
        if not k:
            break
        got += os.read(q, k)
    say("splice in", sha(got) == sha(data(300000)), os.splice(s.fileno(), w, 10))
    trial("with an offset", os.splice, s.fileno(), w, 10, 5)
    s = tcp(SLOW)
    s.setblocking(False)
    total = 0
    try:
        while True:
            total += os.sendfile(s.fileno(), f.fileno(), 0, 1000000)
    except BlockingIOError:
        say("sendfile is not to wait", total > 0)
    os.set_blocking(q, False)
    trial("splice is not to wait", os.splice, q, s.fileno(), 10)


def part_masks():
    """ppoll and epoll_pwait with a mask: by way of a C library call."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    s = tcp(SILENT)
    signal.signal(signal.SIGUSR1, lambda *a: say("USR1"))
    signal.signal(signal.SIGALRM, lambda *a: say("ALRM"))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGALRM})
    empty = (ctypes.c_ulong * 16)()

    class Pfd(ctypes.Structure):
        _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]

    p = Pfd(s.fileno(), select.POLLIN, 0)
    ts = (ctypes.c_long * 2)(5, 0)

    def ppoll():
        r = libc.ppoll(ctypes.byref(p), 1, ts, empty)
        return r, errno.errorcode.get(ctypes.get_errno()) if r < 0 else None

    signal.setitimer(signal.ITIMER_REAL, 0.2)
    say("ppoll", ppoll())
    say("blocked again", sorted(x.name for x in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    os.kill(os.getpid(), signal.SIGUSR1)
    say("pending")
    say("ppoll", ppoll())
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGALRM)
    say("both", ppoll())
    say("blocked again", sorted(x.name for x in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    e = libc.epoll_create1(0)

    class Ev(ctypes.Structure):
        _pack_ = 1
        _fields_ = [("events", ctypes.c_uint), ("data", ctypes.c_ulong)]

    ev = Ev(select.EPOLLIN, 77)
    libc.epoll_ctl(e, 1, s.fileno(), ctypes.byref(ev))
    os.kill(os.getpid(), signal.SIGUSR1)
    r = libc.epoll_pwait(e, ctypes.byref(ev), 1, 5000, empty)
    say("epoll_pwait", r, errno.errorcode.get(ctypes.get_errno()))
    say("blocked again", sorted(x.name for x in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    s.shutdown(socket.SHUT_WR)
    say("ends", libc.epoll_pwait(e, ctypes.byref(ev), 1, 5000, empty), ev.data, ppoll())


def part_fork():
    s = tcp(ECHO)
    s.sendall(b"parent")
    pid = os.fork()
    if not pid:
        say("child reads", s.recv(6, socket.MSG_WAITALL))
        s.sendall(b"child")
        os._exit(0)
    os.waitpid(pid, 0)
    say("parent reads", s.recv(5, socket.MSG_WAITALL))
    l = socket.create_server((OWN, 7300))
    go = tcp(GREET)
    for i in range(4):
        if os.fork() == 0:
            c, _ = l.accept()
            c.sendall(b"served")
            c.recv(10)
            os._exit(0)
    for i in range(4):
        go.sendall(struct.pack("!H", 7300))
        say(go.recv(100))
    for i in range(4):
        os.wait()
    s = tcp(SOURCE)
    s.settimeout(None)
    s.sendall(struct.pack("!I", 700000))
    say("as another program's input", subprocess.run(["sha1sum"], stdin=s, stdout=subprocess.PIPE, check=True).stdout[:12].decode()
        == sha(data(700000)))
    s = tcp(SINK)
    s.settimeout(None)
    subprocess.run(["sh", "-c", "echo one; echo two | cat; exec head -c 300000 /dev/zero"], stdout=s, check=True)
    s.shutdown(socket.SHUT_WR)
    say("as its output", recv_all(s).decode() == sha(b"one\ntwo\n" + bytes(300000)))
    l = socket.create_server((OWN, 7301))
    pid = os.fork()
    if not pid:
        os.dup2(l.fileno(), 9)
        os.execv(sys.executable, [sys.executable, "-c", "import socket; l = socket.socket(fileno=9); c, _ = l.accept(); "
                                  "c.sendall(b'by an heir'); c.recv(10)"])
    l.close()
    go = tcp(GREET)
    go.sendall(struct.pack("!H", 7301))
    say(go.recv(100))
    os.waitpid(pid, 0)
    s = tcp(ECHO)
    pid = os.fork()
    if not pid:
        s.sendall(b"and dies")
        time.sleep(100)
    say(s.recv(8, socket.MSG_WAITALL))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    s.sendall(b"goes on")
    say(s.recv(7, socket.MSG_WAITALL))


if __name__ == "__main__":
    globals()["part_" + sys.argv[1]]()
