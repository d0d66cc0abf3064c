# SPDX-License-Identifier: BSD-3-Clause
"""Peers for the broker's tests: a program that attaches, a loopback agent, an operator.

Everything speaks the wire formats of include/vhost-sc/ (attach.h, control.h) through struct, message by
message, so that a test can also say things that no real peer would.
"""

import array
import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

BROKER = os.environ.get("VHOST_SCD", "vhost-scd")

# attach.h
MAGIC = 0x31415343
(REQ, REP, TICKETS, TICKETS_REP, CLAIM, CLAIM_REP, NAME, EVENT, SEGMENT_REQ, SEGMENT_REP, OBJECT_REQ,
 OBJECT_REP) = range(1, 13)
OK, DENIED, VERSION, DOWN, STARTING, FULL, LIMIT, ROLE, GROUPS, ERROR = range(10)
ATTACH_HDR = struct.Struct("<IHHII")
ATTACH_REQ = struct.Struct("<IIQIIII")
ATTACH_REP = struct.Struct("<IIQ8I6I32Q256s")
TICKETS_MSG = struct.Struct("<II32Q")
TICKET_NAME = struct.Struct("<QQQII")
EVENT_MSG = struct.Struct("<II")
SEGMENT_BODY = struct.Struct("<IIQQ")
OBJECT_BODY = struct.Struct("<IIQ")
F_SEGMENTS, F_OBJECTS, F_RECOVERY = 1, 2, 4

# control.h
HELLO, ATTACHED, DETACHED, LOG, QUIESCED, SYNC, BYE, SEGMENT_TAKEN, SEGMENT_ENDED, OBJECT = range(1, 11)
(START, REFUSE, ATTACH, DETACH, RELEASE, QUIESCE, SHUTDOWN, SYNCED, PROC_EXIT, SEGMENT,
 SEGMENT_END, OBJECT_DONE, OBJECT_IDLE, RESUMED) = range(33, 47)
MSG_HDR = struct.Struct("<HHIII")
MSG_HELLO = struct.Struct("<IIQIIQ64s64s1024s")
MSG_START = struct.Struct("<IIQQIIII")
MSG_ATTACH = struct.Struct("<8IIIIIIIQ256I")
MSG_RELEASE = struct.Struct("<II256Q")
MSG_SEGMENT = struct.Struct("<IIQQQ")
MSG_OBJECT = struct.Struct("<IIQQQQII")

CHANNELS = 8
SLOT_SIZE = 1 << 20
LANES = 4
ENTRIES = 16
TIMEOUT = 10.0


class Closed(Exception):
    """The other side has ended the connection."""


def recv(sock, timeout=TIMEOUT):
    """One packet and its descriptors. Raises Closed or TimeoutError."""
    sock.settimeout(timeout)
    try:
        data, fds, flags, _ = socket.recv_fds(sock, 8192, 64)
    except ConnectionResetError:
        raise Closed() from None
    assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
    if not data:
        raise Closed()
    return data, fds


def wait_for(what, timeout=TIMEOUT):
    """Polls until what() is true."""
    end = time.monotonic() + timeout
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("timed out waiting")
        time.sleep(0.01)


class Broker:
    """A running vhost-scd in a directory of its own."""

    def __init__(self, *extra, loopback=True, channels=CHANNELS, name="t"):
        self.tmp = tempfile.TemporaryDirectory(prefix="scd")
        os.chmod(self.tmp.name, 0o755)
        self.name = name
        self.dir = os.path.join(self.tmp.name, name)
        self.channels = channels
        self.args = [
            BROKER, "--name", name, "--role", "storage", "--rundir", self.tmp.name,
            "--channels", str(channels), "--window-size", str(16 << 20) if channels < 16 else "256M",
            "--lanes", str(LANES), "--entries", str(ENTRIES), "--log-level", "debug", "--detach-ms", "1500",
            "--state", "1M", "--retain", "1M",
        ] + (["--loopback"] if loopback else []) + list(extra)
        self.proc = None
        self.log = open(os.path.join(self.tmp.name, "log"), "w+b")
        self.start()

    def start(self):
        self.proc = subprocess.Popen(self.args, stderr=self.log, stdin=subprocess.DEVNULL)
        wait_for(lambda: self.answers() or self.proc.poll() is not None)
        if self.proc.poll() is not None:
            raise AssertionError("broker did not start: " + self.read_log())

    def answers(self):
        try:
            return self.ctl("status")["ok"]
        except (OSError, ValueError):
            return False

    def path(self, sock):
        return os.path.join(self.dir, sock)

    def ctl(self, cmd, **members):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(TIMEOUT)
            s.connect(self.path("ctl.sock"))
            s.sendall(json.dumps(dict(members, cmd=cmd)).encode() + b"\n")
            return json.loads(s.makefile().readline())

    def status(self):
        answer = self.ctl("status")
        assert answer["ok"], answer
        return answer

    def wait_status(self, **want):
        wait_for(lambda: all(self.status()[k] == v for k, v in want.items()))

    def read_log(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.proc.pid))

    def stop(self):
        """Ends it; it has to end well (a sanitizer's complaint is an exit status too)."""
        if self.log.closed:
            return
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
        try:
            rc = self.proc.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            rc = "hung"
        text = self.read_log()
        self.log.close()
        self.tmp.cleanup()
        if rc != 0 or "Sanitizer" in text or "runtime error" in text:
            sys.stderr.write(text)
            raise AssertionError("broker ended with %s" % rc)


class Agent:
    """A loopback agent that answers what it is told to."""

    def __init__(self, broker, hello=True, **fields):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(broker.path("agent.sock"))
        self.broker = broker
        self.incarnation = 0
        self.state_fd = -1
        self.channels = {}
        self.log = []
        self.seq = 100
        if hello:
            self.hello(**fields)
            self.expect_start()

    def send(self, mtype, body=b"", slot=0, seq=None, length=None):
        if seq is None:
            self.seq += 1
            seq = self.seq
        n = MSG_HDR.size + len(body) if length is None else length
        self.sock.sendall(MSG_HDR.pack(mtype, 0, n, seq, slot) + body)
        return seq

    def recv(self, timeout=TIMEOUT):
        """(type, seq, slot, body, fds)"""
        data, fds = recv(self.sock, timeout)
        mtype, _, length, seq, slot = MSG_HDR.unpack_from(data)
        assert length == len(data), (length, len(data))
        return mtype, seq, slot, data[MSG_HDR.size:], fds

    def expect(self, want, timeout=TIMEOUT):
        msg = self.recv(timeout)
        assert msg[0] == want, "expected message %d, got %d" % (want, msg[0])
        return msg

    def hello(self, abi=2, role=1, channels=None, slot_size=SLOT_SIZE, features=0):
        self.send(HELLO, MSG_HELLO.pack(abi, role, features, channels or self.broker.channels, 2, slot_size,
                                        b"test", b"6.1.0", b"virtio_sc"))

    def expect_start(self):
        _, _, _, body, fds = self.expect(START)
        f = MSG_START.unpack(body)
        self.incarnation, self.own = f[0], f[6]
        self.state_fd = fds[0]

    def expect_attach(self, status=0, answer=True):
        """Takes one ATTACH and answers it."""
        _, seq, slot, body, fds = self.expect(ATTACH)
        f = MSG_ATTACH.unpack(body)
        ch = dict(zip(("session", "process", "pid", "uid", "gid", "ngroups"), f[8:14]),
                  slot=slot, groups=f[15:15 + f[13]], layout=f[:8], fds=fds)
        self.channels[ch["session"]] = ch
        if answer:
            self.attached(ch, seq, status)
        return ch

    def attached(self, ch, seq=0, status=0):
        self.send(ATTACHED, struct.pack("<iI", status, ch["session"]), slot=ch["slot"], seq=seq)

    def expect_detach(self, answer=True):
        _, seq, slot, body, _ = self.expect(DETACH)
        session = struct.unpack("<II", body)[0]
        if answer:
            self.send(DETACHED, struct.pack("<iI", 0, session), slot=slot, seq=seq)
        for fd in self.channels.pop(session, {"fds": []})["fds"]:
            os.close(fd)
        return session

    def expect_segment(self, status=0, answer=True):
        """Takes one SEGMENT and answers it. (number, ticket, offset, size, fd)"""
        _, seq, _, body, fds = self.expect(SEGMENT)
        number, _, ticket, offset, size = MSG_SEGMENT.unpack(body)
        assert len(fds) == 1
        if answer:
            self.send(SEGMENT_TAKEN, struct.pack("<iI", status, number), seq=seq)
        return number, ticket, offset, size, fds[0]

    def taken(self, segment, status=0):
        """Answers a segment that expect_segment(answer=False) gave."""
        self.send(SEGMENT_TAKEN, struct.pack("<iI", status, segment[0]))

    def expect_segment_end(self, answer=True):
        _, seq, _, body, _ = self.expect(SEGMENT_END)
        number = struct.unpack("<iI", body)[1]
        if answer:
            self.send(SEGMENT_ENDED, struct.pack("<iI", 0, number), seq=seq)
        return number

    def expect_release(self):
        _, _, _, body, _ = self.expect(RELEASE)
        f = MSG_RELEASE.unpack(body)
        return list(f[2:2 + f[0]])

    def collect(self, *types):
        """Takes messages until each of these types has been seen; returns their types, and answers DETACH."""
        seen = set()
        while not seen.issuperset(types):
            m = self.recv()
            seen.add(m[0])
            if m[0] == DETACH:
                self.send(DETACHED, struct.pack("<i", 0) + m[3][:4], slot=m[2], seq=m[1])
        return seen

    def sync(self):
        """Asks SYNC; returns the messages before SYNCED."""
        seq = self.send(SYNC)
        before = []
        while True:
            msg = self.recv()
            if msg[0] == SYNCED:
                assert msg[1] == seq
                return before
            before.append(msg)

    def close(self):
        for ch in self.channels.values():
            for fd in ch["fds"]:
                os.close(fd)
        self.channels = {}
        if self.state_fd >= 0:
            os.close(self.state_fd)
        self.state_fd = -1
        self.sock.close()


class Client:
    """A program that attaches."""

    def __init__(self, broker):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(broker.path("attach.sock"))
        self.seq = 0
        self.rep = None
        self.fds = []
        self.tickets = {}

    def send(self, mtype, body=b"", fds=(), magic=MAGIC, length=None):
        self.seq += 1
        n = ATTACH_HDR.size + len(body) if length is None else length
        msg = ATTACH_HDR.pack(magic, mtype, 0, self.seq, n) + body
        if fds:
            socket.send_fds(self.sock, [msg], list(fds))
        else:
            self.sock.sendall(msg)

    def recv(self, want, timeout=TIMEOUT):
        data, fds = recv(self.sock, timeout)
        magic, mtype, _, seq, length = ATTACH_HDR.unpack_from(data)
        assert magic == MAGIC and length == len(data)
        assert mtype == want, "expected message %d, got %d" % (want, mtype)
        if want != EVENT:
            assert seq == self.seq
        return data[ATTACH_HDR.size:], fds

    def request(self, abi_min=2, abi_max=2, role=0, wait_ms=0, tickets=0):
        self.send(REQ, ATTACH_REQ.pack(abi_min, abi_max, 0, role, wait_ms, tickets, 0))

    def reply(self, timeout=TIMEOUT):
        body, fds = self.recv(REP, timeout)
        f = ATTACH_REP.unpack(body)
        self.rep = {"status": f[0], "layout": f[3:11], "session": f[11], "slot": f[12],
                    "incarnation": f[13], "deadline_ms": f[14], "loopback": f[15],
                    "text": f[-1].split(b"\0")[0].decode()}
        n = f[16]
        if f[0] == OK:
            assert len(fds) == 3 + n
        self.fds = fds[:3]
        self.tickets.update(zip(f[17:17 + n], fds[3:]))
        return self.rep

    def attach(self, **kw):
        self.request(**kw)
        return self.reply()

    def more_tickets(self, count):
        self.send(TICKETS, TICKETS_MSG.pack(0, count, *([0] * 32)))
        body, fds = self.recv(TICKETS_REP)
        f = TICKETS_MSG.unpack(body)
        assert len(fds) == f[1]
        new = dict(zip(f[2:2 + f[1]], fds))
        self.tickets.update(new)
        return f[0], new

    def name(self, ticket, handle, secret, flags=0, mode=0, fd=None):
        self.send(NAME, TICKET_NAME.pack(ticket, handle, secret, flags, mode), [] if fd is None else [fd])

    def claim(self, fds):
        self.send(CLAIM, struct.pack("<II", 0, len(fds)) + bytes(32 * TICKET_NAME.size), fds)
        body, _ = self.recv(CLAIM_REP)
        status, count = struct.unpack_from("<II", body)
        assert status == 0
        return [TICKET_NAME.unpack_from(body, 8 + i * TICKET_NAME.size) for i in range(count)]

    def ask_segment(self, ticket_fd, size=0):
        self.send(SEGMENT_REQ, SEGMENT_BODY.pack(0, 0, size, 0), [ticket_fd])

    def segment(self, timeout=TIMEOUT):
        """The answer: (errno, size, ticket, fd or None)."""
        body, fds = self.recv(SEGMENT_REP, timeout)
        status, _, size, ticket = SEGMENT_BODY.unpack(body)
        assert len(fds) == (0 if status else 1)
        return status, size, ticket, fds[0] if fds else None

    def fetch_object(self, number, rights):
        """(errno, fd or None)"""
        self.send(OBJECT_REQ, OBJECT_BODY.pack(0, rights, number))
        body, fds = self.recv(OBJECT_REP)
        status = OBJECT_BODY.unpack(body)[0]
        assert len(fds) == (0 if status else 1)
        return status, fds[0] if fds else None

    def event(self, timeout=TIMEOUT):
        body, fds = self.recv(EVENT, timeout)
        incarnation, nfds = EVENT_MSG.unpack(body)
        assert nfds == len(fds)
        return incarnation, fds

    def host_page(self):
        """(magic, abi, session, slot, incarnation) as the memory says."""
        with mmap.mmap(self.fds[0], 4096, mmap.MAP_SHARED, mmap.PROT_READ) as m:
            magic, abi = struct.unpack_from("<II", m, 0)
            session, slot = struct.unpack_from("<II", m, 40)
            return magic, abi, session, slot, struct.unpack_from("<I", m, 64)[0]

    def close_tickets(self):
        for fd in self.tickets.values():
            os.close(fd)
        self.tickets = {}

    def close(self):
        self.close_tickets()
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.sock.close()


def attach_pair(broker, agent, **kw):
    """A client attached through an agent."""
    c = Client(broker)
    c.request(**kw)
    ch = agent.expect_attach()
    rep = c.reply()
    assert rep["status"] == OK, rep
    assert rep["session"] == ch["session"]
    return c, ch


def hung_up(fd, timeout=0.0):
    p = select.poll()
    p.register(fd, 0)
    return bool(p.poll(timeout * 1000))


def int_array(values):
    return array.array("i", values)
