# SPDX-License-Identifier: BSD-3-Clause
"""netproc.py - a process that uses a network domain, for tests: include/vhost-sc/net.h in Python.

The agent is the real one, with a tap in a network namespace that the test has to itself (own_namespace()); the kernel's stack at
the tap's other end is the outside world.

    own_namespace()
    with domain() as agent:
        p = Process(agent)
        s = p.socket()
        s.connect(("10.77.0.1", 80))
"""
import errno
import mmap
import os
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "agent"))
from harness import SEGMENT, SEGMENT_END, SEGMENT_ENDED, SEGMENT_TAKEN, Agent, Lost, memfd  # noqa: E402

AREA = 2 * 128 + 2 * 8192 + 64
KICK_SUM, KICK, EVENT_SUM, EVENT, ARM = 0, 128, 128 + 8192, 256 + 8192, 256 + 2 * 8192
NEW, BOUND, LISTEN, CONNECTING, CONNECTED, CLOSED = range(6)
RX_EOF, TX_CLOSED, RESET, WANT_SEGMENT = 1, 2, 4, 8
SHARED = 1 << 32
TAP, KERNEL, DOMAIN = "sctap0", "10.77.0.1", "10.77.0.2"
KERNEL6, DOMAIN6 = "fd77::1", "fd77::2"
LOC = "<QIBBHHHI"


def own_namespace():
    """Starts the test again in a network namespace of its own, unless it is in one."""
    if os.environ.get("SC_TEST_NETNS") == "1":
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    os.environ["SC_TEST_NETNS"] = "1"
    how = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    os.execvp("unshare", how + [sys.executable] + sys.argv)


class domain(Agent):  # pylint: disable=invalid-name
    """The agent of a network domain; the kernel has KERNEL on the tap."""

    def __init__(self, args=(), kernel_addr=KERNEL + "/24", addr=("--addr", DOMAIN + "/24", "--gw", KERNEL, "--addr6", DOMAIN6 + "/64"),
                 **kw):
        super().__init__(None, program=os.environ.get("SC_AGENT_NET", "sc-agent-net"),
                         args=["--tap", TAP] + list(addr) + list(args), **kw)
        self.kernel_addr = kernel_addr

    def enter(self):
        super().enter()
        for cmd in (["addr", "add", self.kernel_addr, "dev", TAP], ["-6", "addr", "add", KERNEL6 + "/64", "dev", TAP, "nodad"],
                    ["link", "set", TAP, "up"]):
            subprocess.run(["ip"] + cmd, check=True)
        return self


def wait_for_ipv6(timeout=10):
    """Until both sides have made sure that nobody else has their IPv6 addresses: a lost datagram is nobody's fault before."""
    end = time.monotonic() + timeout
    with socket.create_server((KERNEL6, 0), family=socket.AF_INET6) as srv:
        while time.monotonic() < end:
            with socket.socket(socket.AF_INET6) as s:
                s.settimeout(0.5)
                try:
                    s.connect((DOMAIN6, srv.getsockname()[1]))
                except ConnectionRefusedError:
                    return
                except OSError:
                    time.sleep(0.05)
    raise Lost("no answer from " + DOMAIN6)


def sockaddr(addr, family=socket.AF_INET):
    if family == socket.AF_INET:
        return struct.pack("<HH4s8x12x", family, socket.htons(addr[1]), socket.inet_aton(addr[0]))
    return struct.pack("<HHI16sI", family, socket.htons(addr[1]), 0, socket.inet_pton(socket.AF_INET6, addr[0]), 0)


def address(data):
    family, port, flow, a6, _ = struct.unpack("<HH4s16sI", data)
    if family == socket.AF_INET:
        return socket.inet_ntoa(flow), socket.ntohs(port)
    return (socket.inet_ntop(socket.AF_INET6, a6), socket.ntohs(port)) if family else None


class Segment:
    """A ticket's segment, as a process maps it."""

    numbers = 0

    def __init__(self, agent, ticket, size):
        Segment.numbers += 1
        self.agent, self.ticket, self.size, self.number = agent, ticket, size, Segment.numbers
        self.fd = memfd("sc-segment", size)
        self.mem = mmap.mmap(self.fd, size)
        self.words = memoryview(self.mem).cast("I")
        agent.send(SEGMENT, struct.pack("<IIQQQ", self.number, 0, ticket, 0, size), fds=[self.fd])
        status = struct.unpack_from("<i", agent.expect(SEGMENT_TAKEN)[3])[0]
        if status:
            raise OSError(-status, "segment")

    def u32(self, off):
        return self.words[off // 4]

    def set_u32(self, off, value):
        self.words[off // 4] = value & 0xffffffff

    def put(self, off, data):
        self.mem[off:off + len(data)] = data

    def get(self, off, n):
        return bytes(self.mem[off:off + n])

    def end(self, timeout=10):
        """What the broker does when the ticket has no holder left: returns when the agent has let go."""
        self.agent.release(self.ticket)
        self.agent.send(SEGMENT_END, struct.pack("<iI", 0, self.number))
        status, number = struct.unpack("<iI", self.agent.expect(SEGMENT_ENDED, timeout)[3])
        assert (status, number) == (0, self.number)
        self.words.release()
        self.mem.close()
        os.close(self.fd)


class Process:
    """A session with its net area and memory for sockets, in its channel."""

    def __init__(self, agent, memory=4 << 20, **kw):
        self.agent = agent
        self.ch = agent.attach(**kw)
        self.area = self.ch.pool
        self.ch.put(self.area, bytes(AREA))
        self.call("NET_ATTACH", buf=self.area, length=AREA)
        start = (self.area + AREA + 4095) // 4096 * 4096
        self.call("NET_SEGMENT", buf=start, length=memory)
        self.memory = start, start + memory
        self.segments = {0: (self.ch, self.memory)}

    def segment(self, segment, secret=99):
        """Gives a segment for sockets."""
        self.call("NET_SEGMENT", arg0=segment.ticket, arg1=secret)
        self.segments[segment.ticket] = segment, (4096, segment.size)

    def grant(self, sock, secret=1):
        """The socket of another session, which is in a segment that this one knows."""
        self.call("GRANT", handle=sock.handle, arg2=secret, buf2=self.ch.buf(), len2=24)
        return Sock(self, sock.handle, self.ch.get(self.ch.buf(), 24))

    def call(self, op, **kw):
        """The result; OSError if the operation fails."""
        res = self.ch.call(op, **kw)
        if res < 0:
            raise OSError(-res, op + ": " + os.strerror(-res))
        return res

    def data(self, data=b""):
        """Puts bytes into the lane's buffer; returns arguments for a call."""
        off = self.ch.data_off()
        self.ch.put(off, data)
        return {"buf": off, "length": len(data)}

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, ticket=0, secret=1, logs=(0, 0), proto=0, shared=False):
        h = self.call("SOCKET", arg0=family | kind << 16 | proto << 32, arg1=ticket, arg2=secret,
                      off=logs[0] | logs[1] << 8 | (SHARED if shared else 0), buf2=self.ch.buf(), len2=24)
        return Sock(self, h, self.ch.get(self.ch.buf(), 24))

    def kick(self, index):
        """What a process does after it has published something that the agent waits for."""
        ch, word = self.ch, self.area + KICK + index // 64 * 8
        ch.quads[word // 8] |= 1 << index % 64
        ch.quads[(self.area + KICK_SUM) // 8 + index // 4096] |= 1 << index // 64 % 64
        if ch.u32(4096):
            ch.ring()

    def event(self, index):
        """True if the socket's event bit is set."""
        return bool(self.ch.quads[(self.area + EVENT + index // 64 * 8) // 8] >> index % 64 & 1)

    def clear_event(self, index):
        self.ch.quads[(self.area + EVENT_SUM) // 8 + index // 4096] = 0
        self.ch.quads[(self.area + EVENT + index // 64 * 8) // 8] = 0

    def sockets(self):
        """All sockets of the domain, as dicts."""
        out, off = [], 0
        while True:
            n = self.call("NET_SOCKETS", off=off, buf=self.ch.buf(), length=64 * 88)
            if not n:
                return out
            for at in range(0, n, 88):
                data = self.ch.get(self.ch.buf() + at, 88)
                handle, uid, pid, family, kind, state = struct.unpack_from("<QIIHHI", data)
                recvq, sendq = struct.unpack_from("<II", data, 80)
                out.append({"handle": handle, "uid": uid, "pid": pid, "family": family, "type": kind, "state": state,
                            "local": address(data[24:52]), "peer": address(data[52:80]), "recvq": recvq, "sendq": sendq})
                off = (handle & 0xffffffff) + 1

    def end(self):
        self.agent.detach(self.ch)


class Sock:
    """A socket, and its object in shared memory."""

    def __init__(self, process, handle, loc):
        self.p, self.handle, self.index = process, handle, handle & 0xffffffff
        segment, self.off, tx, rx, self.family, self.type, _, _ = struct.unpack(LOC, loc)
        self.segment = segment
        self.mem, (start, end) = process.segments[segment]
        self.tx_size, self.rx_size = 1 << tx, 1 << rx
        assert start <= self.off and self.off + 512 + self.tx_size + self.rx_size <= end
        self.tx, self.rx = self.off + 512, self.off + 512 + self.tx_size

    def line(self, off):
        return self.mem.u32(self.off + off)

    def set_line(self, off, value):
        self.mem.set_u32(self.off + off, value)

    tx_tail = property(lambda s: s.line(0))
    rx_head = property(lambda s: s.line(64))
    rx_tail = property(lambda s: s.line(256))
    tx_head = property(lambda s: s.line(320))
    state = property(lambda s: s.line(384))
    flags = property(lambda s: s.line(388))
    local = property(lambda s: address(s.mem.get(s.off + 452, 28)))
    peer = property(lambda s: address(s.mem.get(s.off + 480, 28)))

    def error(self):
        """Takes the pending error; 0: none."""
        seq = self.line(396)
        if seq == self.line(136):
            return 0
        self.set_line(136, seq)
        return self.line(392)

    def wait(self, what, timeout=10):
        """Waits until what() is true."""
        end = time.monotonic() + timeout
        while not what():
            if time.monotonic() > end:
                raise Lost("socket %d: nothing happens: state %d flags %x" % (self.index, self.state, self.flags))
            time.sleep(0.0005)
        return True

    def op(self, op, **kw):
        return self.p.call(op, handle=self.handle, **kw)

    def bind(self, addr):
        self.op("BIND", **self.p.data(sockaddr(addr, self.family)))

    def listen(self, backlog=16, logs=(12, 12)):
        self.op("LISTEN", arg0=backlog, arg1=logs[0] | logs[1] << 8)

    def connect_start(self, addr):
        try:
            return self.op("CONNECT", **self.p.data(sockaddr(addr, self.family)))
        except OSError as e:
            if e.errno != errno.EINPROGRESS:
                raise
            return -errno.EINPROGRESS

    def connect(self, addr, timeout=10):
        if self.connect_start(addr):
            self.wait(lambda: self.state != CONNECTING, timeout)
        err = self.error()
        if err:
            raise OSError(err, os.strerror(err))

    def put(self, ring, size, at, data):
        at %= size
        first = data[:size - at]
        self.mem.put(ring + at, first)
        self.mem.put(ring, data[len(first):])

    def get(self, ring, size, at, n):
        at %= size
        first = min(n, size - at)
        return self.mem.get(ring + at, first) + self.mem.get(ring, n - first)

    def publish_tx(self, tail):
        self.set_line(0, tail)
        if self.line(324):
            self.p.kick(self.index)

    def publish_rx(self, head):
        self.set_line(64, head)
        if self.line(260):
            self.p.kick(self.index)

    def room(self):
        return self.tx_size - (self.tx_tail - self.tx_head & 0xffffffff)

    def send_some(self, data):
        n = min(len(data), self.room())
        if n:
            self.put(self.tx, self.tx_size, self.tx_tail, data[:n])
            self.publish_tx(self.tx_tail + n)
        return n

    def send(self, data, timeout=20):
        while data:
            if self.flags & TX_CLOSED:
                raise OSError(errno.EPIPE, "send")
            n = self.send_some(data)
            data = data[n:]
            if not n:
                self.wait(lambda: self.room() or self.flags & TX_CLOSED, timeout)

    def ready(self):
        return self.rx_tail - self.rx_head & 0xffffffff

    def recv(self, most=1 << 30, timeout=20):
        """Bytes; b"" at the end."""
        self.wait(lambda: self.ready() or self.flags & RX_EOF, timeout)
        n = min(self.ready(), most)
        data = self.get(self.rx, self.rx_size, self.rx_head, n)
        self.publish_rx(self.rx_head + n)
        return data

    def recv_all(self, n=None, timeout=20):
        out = b""
        while n is None or len(out) < n:
            data = self.recv(timeout=timeout)
            if not data:
                break
            out += data
        return out

    def accept_entry(self, timeout=10):
        """Takes a connection out of the ring: (handle, place, peer)."""
        self.wait(self.ready, timeout)
        entry = self.get(self.rx, self.rx_size, self.rx_head, 64)
        self.publish_rx(self.rx_head + 64)
        return struct.unpack_from("<Q", entry)[0], entry[8:32], address(entry[32:60])

    def accept(self, ticket=0, secret=1, timeout=10):
        handle, loc, peer = self.accept_entry(timeout)
        s = Sock(self.p, handle, loc)
        self.op("ADOPT", arg0=handle, arg1=ticket, arg2=secret)
        assert s.peer == peer, (s.peer, peer)
        return s

    def sendto(self, data, addr=None):
        head = struct.pack("<II", len(data), 0) + (sockaddr(addr, self.family) if addr else bytes(28))
        record = head.ljust(64, b"\0") + data
        record += bytes(-len(record) % 64)
        assert self.room() >= len(record)
        self.put(self.tx, self.tx_size, self.tx_tail, record)
        self.publish_tx(self.tx_tail + len(record))

    def recvfrom(self, timeout=10):
        self.wait(self.ready, timeout)
        head = self.get(self.rx, self.rx_size, self.rx_head, 64)
        n = struct.unpack_from("<I", head)[0]
        data = self.get(self.rx, self.rx_size, self.rx_head + 64, n)
        self.publish_rx(self.rx_head + 64 + (n + 63) // 64 * 64)
        return data, address(head[8:36]), head

    def setsockopt(self, level, name, value):
        value = struct.pack("<i", value) if isinstance(value, int) else value
        self.op("SETSOCKOPT", arg0=level, arg1=name, **self.p.data(value))

    def getsockopt(self, level, name, size=4):
        n = self.op("GETSOCKOPT", arg0=level, arg1=name, buf=self.p.ch.data_off(), length=size)
        data = self.p.ch.get(self.p.ch.data_off(), n)
        return struct.unpack("<i", data)[0] if n == 4 else data

    def shutdown(self, how):
        self.op("SHUTDOWN", arg0=how)

    def close(self):
        self.op("CLOSE")
