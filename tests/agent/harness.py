# SPDX-License-Identifier: BSD-3-Clause
"""harness.py - plays broker and process for one sc-agent, so that the agent can be tested alone.

The agent runs with --loopback on a socket that the harness listens on. The harness answers HELLO with START, attaches
channels (sealed memfds that it makes itself), and writes requests into their lanes as a process would. Everything that a
test sends or reads is laid out here by the headers in include/vhost-sc/; nothing of the agent's code is used.

    with Agent(root) as agent:
        ch = agent.attach()
        root = ch.root()
        h = ch.open(root, "file", os.O_RDWR | os.O_CREAT, 0o644)
        ch.write(h, b"text", off=0)
"""
import errno
import fcntl
import mmap
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

PAGE = 4096
LANE_BUF = 64 * 1024
PATH_BUF = 4096
MSG_MAX = 4096

HELLO, ATTACHED, DETACHED, LOG, QUIESCED, SYNC, BYE, SEGMENT_TAKEN, SEGMENT_ENDED, OBJECT = range(1, 11)
(START, REFUSE, ATTACH, DETACH, RELEASE, QUIESCE, SHUTDOWN, SYNCED, PROC_EXIT, SEGMENT,
 SEGMENT_END, OBJECT_DONE, OBJECT_IDLE, RESUMED) = range(33, 47)

OPS = """NOP ROOT OPEN CLOSE GRANT READ WRITE SEEK READDIR STAT ACCESS READLINK MKDIR MKNOD UNLINK SYMLINK RENAME LINK
TRUNCATE CHMOD CHOWN UTIMENS GETXATTR SETXATTR LISTXATTR REMOVEXATTR STATFS FALLOCATE SYNC FADVISE SETFL GETFL FLOCK
LOCK UNLOCK_ALL CANCEL COPY GETPATH IOCTL SYNCALL MAP MAP_WRITE MSYNC""".split()
OP = {name: i for i, name in enumerate(OPS)}
OP.update({name: 64 + i for i, name in enumerate(
    "NET_ATTACH NET_SEGMENT SOCKET BIND LISTEN CONNECT ADOPT SHUTDOWN SETSOCKOPT GETSOCKOPT NET_SOCKETS".split())})

F_CURPOS, F_CURPOS2 = 1, 2
TAKEN = 0xffff  # op of a slot whose completion came before its turn
CQE_CROSS, CQE_CROSS2 = 1, 2
CROSS_ABS, CROSS_UP = 1, 2
AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH, AT_EACCESS = 0x100, 0x200, 0x400, 0x1000, 0x200
LK_GET, LK_SET, LK_SETW, LK_OFD_GET, LK_OFD_SET, LK_OFD_SETW = range(1, 7)

STAT_FMT = "<IIQQQIIIIIIIIQQqqqqIIIIQII"
STAT_FIELDS = """mask mode ino size blocks nlink blksize uid gid dev_major dev_minor rdev_major rdev_minor attributes
attributes_mask atime_sec mtime_sec ctime_sec btime_sec atime_nsec mtime_nsec ctime_nsec btime_nsec mnt_id dio_mem
dio_off""".split()
assert struct.calcsize(STAT_FMT) == 144


class Stat:
    def __init__(self, data):
        self.__dict__.update(zip(STAT_FIELDS, struct.unpack(STAT_FMT, data)))


OBJ_NEW, OBJ_GET, OBJ_PUT, OBJ_RESIZE, OBJ_ZERO, OBJ_GRANT, OBJ_DROP, OBJ_ADOPT = range(1, 9)
OWN_SEGMENT = 1 << 20
OWN_IO, OWN_STATE = 0, 1


class Lost(Exception):
    """The agent did not answer in time, or is gone."""


def layout(size, nlanes, entries):
    """sc_layout_init()"""
    up = lambda x: (x + PAGE - 1) // PAGE * PAGE
    lanes = 2 * PAGE
    slots = up(lanes + nlanes * 256)
    cqes = slots + nlanes * entries * 64
    arena = up(cqes + nlanes * entries * 16)
    pool = arena + nlanes * LANE_BUF
    assert pool <= size
    return (size, nlanes, entries, lanes, slots, cqes, arena, pool)


def memfd(name, size):
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


class Call:
    """A request under way."""

    def __init__(self, ch, lane, tag):
        self.ch, self.lane, self.tag = ch, lane, tag
        self.res = None
        self.flags = 0

    def done(self):
        self.ch.reap(self.lane)
        return self.res is not None

    def wait(self, timeout=10):
        """The result. Raises Lost if it does not come."""
        end = time.monotonic() + timeout
        spins = 0
        while not self.done():
            spins += 1
            if spins > 2000:
                time.sleep(0.0002)
            if self.ch.agent.own:
                self.ch.agent.pump(0)  # the agent may be waiting for us
            if time.monotonic() > end:
                raise Lost("no completion for tag %d of lane %d" % (self.tag, self.lane))
        return self.res


class Channel:
    """A channel, and the process that uses it."""

    def __init__(self, agent, slot, session, process, lay, mem, fds, pid):
        self.agent, self.slot, self.session, self.process, self.pid = agent, slot, session, process, pid
        self.size, self.nlanes, self.entries, self.lanes_off, self.slots_off, self.cqes_off, self.arena, self.pool = lay
        self.mem = mem
        # Indices that the agent watches are written and read as whole words: struct.pack_into() clears them first.
        self.view = memoryview(mem)
        self.words, self.quads = self.view.cast("I"), self.view.cast("Q")
        self.memfd, self.call_fd, self.kick_fd = fds
        self.depth = [0] * self.nlanes
        self.tails = [0] * self.nlanes
        self.seen = [0] * self.nlanes
        self.calls = {}
        self.ticket_n = 0

    # raw memory

    def u32(self, off):
        return self.words[off // 4]

    def set_u32(self, off, value):
        self.words[off // 4] = value & 0xffffffff

    def lane_off(self, lane):
        return self.lanes_off + lane * 256

    def buf(self, lane=0):
        """The lane's own buffer."""
        return self.arena + lane * LANE_BUF

    def put(self, off, data):
        self.mem[off:off + len(data)] = data

    def get(self, off, n):
        return bytes(self.mem[off:off + n])

    def ring(self):
        os.write(self.call_fd, struct.pack("<Q", 1))

    # lanes

    def use_lane(self, lane, log2=3):
        if self.depth[lane]:
            return
        self.depth[lane] = 1 << log2
        self.set_u32(self.lane_off(lane) + 68, log2)
        word = 192 + lane // 64 * 8
        self.quads[word // 8] |= 1 << lane % 64
        self.set_u32(128, self.u32(128) + 1)

    def drop_lane(self, lane):
        word = 192 + lane // 64 * 8
        self.quads[word // 8] &= ~(1 << lane % 64)
        self.set_u32(128, self.u32(128) + 1)
        self.depth[lane] = 0

    def submit(self, op, lane=0, flags=0, handle=0, off=0, buf=0, length=0, buf2=0, len2=0, arg0=0, arg1=0, arg2=0,
               publish=True):
        self.use_lane(lane)
        op = OP[op] if isinstance(op, str) else op
        tag = self.tails[lane] & 0xffffffff
        m = 0xffffffffffffffff
        slot = self.slots_off + (lane * self.entries + self.tails[lane] % self.depth[lane]) * 64
        struct.pack_into("<HHIQQIIIIQQQ", self.mem, slot, op, flags, tag, handle & m, off & m, buf, length, buf2, len2,
                         arg0 & m, arg1 & m, arg2 & m)
        self.tails[lane] += 1
        call = Call(self, lane, tag)
        self.calls[lane, tag] = call
        if publish:
            self.publish(lane)
        return call

    def publish(self, lane):
        self.set_u32(self.lane_off(lane), self.tails[lane])
        if self.u32(PAGE):  # asleep; Python is slow enough to do without a fence here, but ring twice as rarely missed
            self.ring()

    def reap(self, lane):
        done = self.u32(self.lane_off(lane) + 128)
        while self.seen[lane] != done:
            cqe = self.cqes_off + (lane * self.entries + self.seen[lane] % self.depth[lane]) * 16
            tag, flags, res = struct.unpack_from("<IIq", self.mem, cqe)
            call = self.calls.pop((lane, tag), None)
            if call and (tag - self.seen[lane]) & 0x80000000 == 0 and tag != self.seen[lane]:
                struct.pack_into("<H", self.mem, self.slots_off + (lane * self.entries + tag % self.depth[lane]) * 64, TAKEN)
            self.seen[lane] = (self.seen[lane] + 1) & 0xffffffff
            if call:
                call.res, call.flags = res, flags

    def call(self, op, **kw):
        timeout = kw.pop("timeout", 10)
        c = self.submit(op, **kw)
        c.wait(timeout)
        self.last = c
        return c.res

    # operations, as short as tests like them. Paths lie in the lane's buffer at 0, the second at 4096, data from 8192 on

    def path(self, text, lane=0, second=False):
        data = os.fsencode(text)
        off = self.buf(lane) + (PATH_BUF if second else 0)
        self.put(off, data[:PATH_BUF])
        return off, len(data)

    def data_off(self, lane=0):
        return self.buf(lane) + 2 * PATH_BUF

    def cross(self, lane=0, second=False):
        """What the completion says about a path that leaves the export: (kind, rest)."""
        off = self.buf(lane) + (PATH_BUF if second else 0)
        kind, n, _, _ = struct.unpack_from("<IIII", self.mem, off)
        return kind, os.fsdecode(self.get(off + 16, n))

    def ticket(self):
        self.ticket_n += 1
        return self.session << 32 | self.ticket_n

    def root(self, path="/", lane=0):
        b, n = self.path(path, lane)
        return self.call("ROOT", lane=lane, buf=b, length=n)

    def open(self, base, path, flags=os.O_RDONLY, mode=0, ticket=0, secret=1, lane=0):
        b, n = self.path(path, lane)
        return self.call("OPEN", lane=lane, handle=base, buf=b, length=n, arg0=flags | mode << 32, arg1=ticket,
                         arg2=secret)

    def close(self, h, lane=0):
        return self.call("CLOSE", handle=h, lane=lane)

    def read(self, h, n, off=None, lane=0, rwf=0):
        """Bytes, or -errno."""
        r = self.call("READ", lane=lane, handle=h, buf=self.data_off(lane), length=n, off=off or 0,
                      flags=F_CURPOS if off is None else 0, arg0=rwf)
        return r if r < 0 else self.get(self.data_off(lane), r)

    def write(self, h, data, off=None, lane=0, rwf=0):
        self.put(self.data_off(lane), data)
        return self.call("WRITE", lane=lane, handle=h, buf=self.data_off(lane), length=len(data), off=off or 0,
                         flags=F_CURPOS if off is None else 0, arg0=rwf)

    def stat(self, base, path="", flags=None, mask=0xfff, lane=0):
        """A Stat, or -errno."""
        b, n = self.path(path, lane)
        flags = (AT_EMPTY_PATH if not path else 0) if flags is None else flags
        r = self.call("STAT", lane=lane, handle=base, buf=b, length=n, arg0=flags, arg1=mask, buf2=self.data_off(lane),
                      len2=144)
        return r if r < 0 else Stat(self.get(self.data_off(lane), 144))

    def readdir(self, h, size=8192, lane=0):
        """A list of (name, type, ino, off); [] at the end; or -errno."""
        r = self.call("READDIR", lane=lane, handle=h, buf=self.data_off(lane), length=size)
        if r < 0:
            return r
        out, at, data = [], 0, self.get(self.data_off(lane), r)
        while at < r:
            ino, off, reclen, namelen, typ = struct.unpack_from("<QQHHB", data, at)
            out.append((os.fsdecode(data[at + 24:at + 24 + namelen]), typ, ino, off))
            at += reclen
        return out

    def path_op(self, op, base, path, lane=0, **kw):
        b, n = self.path(path, lane)
        return self.call(op, lane=lane, handle=base, buf=b, length=n, **kw)

    def path2_op(self, op, base, path, base2, path2, flags=0, lane=0):
        b, n = self.path(path, lane)
        b2, n2 = self.path(path2, lane, True)
        return self.call(op, lane=lane, handle=base, buf=b, length=n, arg1=base2, buf2=b2, len2=n2, arg0=flags)

    def readlink(self, base, path, lane=0):
        r = self.path_op("READLINK", base, path, lane, buf2=self.data_off(lane), len2=4096)
        return r if r < 0 else os.fsdecode(self.get(self.data_off(lane), r))

    def getpath(self, h, lane=0):
        r = self.call("GETPATH", lane=lane, handle=h, buf2=self.data_off(lane), len2=4096)
        return r if r < 0 else os.fsdecode(self.get(self.data_off(lane), r))

    def lock_call(self, h, cmd, typ, start=0, length=0, whence=0, lane=0):
        self.put(self.data_off(lane), struct.pack("<IIqqII", typ, whence, start, length, 0, 0))
        return self.submit("LOCK", lane=lane, handle=h, arg0=cmd, buf=self.data_off(lane), length=32)

    def lock(self, h, cmd, typ, start=0, length=0, whence=0, lane=0):
        return self.lock_call(h, cmd, typ, start, length, whence, lane).wait()

    def lock_result(self, lane=0):
        return struct.unpack("<IIqqII", self.get(self.data_off(lane), 32))

    def free(self):
        for view in (self.words, self.quads, self.view):
            view.release()
        self.mem.close()
        for fd in (self.memfd, self.call_fd, self.kick_fd):
            os.close(fd)


class Agent:
    """An agent process and the broker's side of its socket."""

    def __init__(self, root, program=None, args=(), pollers=1, spin=None, auto_sync=True, incarnation=1, keep=0, objects=False):
        """keep: bytes of SC_OWN_STATE, so that the agent can be killed and started again (crash(), restart()); objects: with
        file objects, too."""
        self.program = program or os.environ.get("SC_AGENT", "sc-agent")
        self.root, self.args, self.pollers, self.spin = root and str(root), list(args), pollers, spin
        self.auto_sync, self.incarnation = auto_sync, incarnation
        self.messages = []
        self.seq = 0
        self.slots = {}
        self.sessions = 0
        self.own = None  # the agent's own segment
        self.kept = {OWN_STATE: memfd("own", keep)} if keep else {}  # number: memfd
        if objects:
            self.kept[OWN_IO] = memfd("own", OWN_SEGMENT)
            self.own = mmap.mmap(self.kept[OWN_IO], OWN_SEGMENT)
        self.objects = {}  # number: [bytes, grants]
        self.object_requests = []
        self.object_faults = {}  # op: what to answer instead
        self.dir = tempfile.mkdtemp(prefix="sc-agent-test.")
        self.proc = None

    def __enter__(self):
        try:
            return self.enter()
        except BaseException:
            if self.proc and self.proc.poll() is None:
                self.proc.kill()
                self.proc.wait()
            shutil.rmtree(self.dir, ignore_errors=True)
            raise

    def enter(self):
        self.state_fd = memfd("sc-state", 1 << 20)
        self.state = mmap.mmap(self.state_fd, 1 << 20)
        self.launch()
        self.start()
        return self

    def launch(self):
        path = os.path.join(self.dir, "agent.sock")
        srv = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        srv.bind(path)
        srv.listen(1)
        srv.settimeout(20)
        cmd = [self.program, "--loopback", path, "--pollers", str(self.pollers)] + self.args
        if self.root:
            cmd += ["--root", self.root]
        if self.spin:
            cmd += ["--max-spin-us", str(self.spin)]
        self.proc = subprocess.Popen(cmd)
        self.sock, _ = srv.accept()
        srv.close()
        hello = self.expect(HELLO, 20)
        self.hello = hello
        os.unlink(path)

    def start(self):
        body = struct.pack("<IIQQIIII", self.incarnation, 2, 0, 0x1234, 1 << 20, 0,
                           sum(1 << kind for kind in self.kept), 0)
        self.send(START, body, fds=[self.state_fd])
        for kind, fd in self.kept.items():
            self.send(SEGMENT, struct.pack("<IIQQQ", 100 + kind, 0, kind, 0, os.fstat(fd).st_size), fds=[fd])
        end = time.monotonic() + 20
        while struct.unpack_from("<I", self.state, 16)[0] != self.incarnation:
            if time.monotonic() > end or self.proc.poll() is not None:
                raise Lost("the agent did not announce itself")
            self.pump(0.001)  # it may want objects
        for _ in self.kept:
            assert struct.unpack("<iI", self.expect(SEGMENT_TAKEN)[3])[0] == 0

    def crash(self):
        """kill -9."""
        self.proc.kill()
        self.proc.wait()
        self.sock.close()
        self.messages = []

    def restart(self, without=(), resumed=True):
        """The next incarnation, with all channels but those in `without`, whose processes are gone."""
        self.incarnation += 1
        self.launch()
        self.start()
        for ch in list(self.slots.values()):
            if ch in without:
                del self.slots[ch.slot]
                ch.free()
            else:
                self.reattach(ch)
        if resumed:
            self.send(RESUMED)

    def __exit__(self, *exc):
        try:
            if self.proc.poll() is None:
                self.proc.send_signal(signal.SIGTERM)
                self.wait_exit(30)
        finally:
            if self.proc.poll() is None:
                self.proc.kill()
                self.proc.wait()
            self.sock.close()
            for ch in list(self.slots.values()):
                ch.free()
            self.state.close()
            os.close(self.state_fd)
            for fd in self.kept.values():
                os.close(fd)
            os.rmdir(self.dir)
        if not exc[0] and self.proc.returncode:
            raise Lost("the agent ended with status %d" % self.proc.returncode)

    def wait_exit(self, timeout):
        end = time.monotonic() + timeout
        while self.proc.poll() is None:
            self.pump(0.05)
            if time.monotonic() > end:
                raise Lost("the agent does not end")
        return self.proc.returncode

    # messages

    def send(self, typ, body=b"", slot=0, seq=None, fds=()):
        self.seq += 1
        head = struct.pack("<HHIII", typ, 0, 16 + len(body), self.seq if seq is None else seq, slot)
        self.send_raw(head + body, fds)
        return self.seq

    def send_raw(self, data, fds=()):
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("%di" % len(fds), *fds))] if fds else []
        self.sock.sendmsg([data], anc)

    def pump(self, timeout):
        """Receives what there is, answering SYNC. Waits up to `timeout` for the first message."""
        while select.select([self.sock], [], [], timeout)[0]:
            data = self.sock.recv(MSG_MAX)
            if not data:
                time.sleep(0.01)
                return
            typ, _, _, seq, slot = struct.unpack_from("<HHIII", data)
            if typ == SYNC and self.auto_sync:
                self.send(SYNCED, seq=seq)
            if typ == OBJECT:
                self.on_object(seq, data[16:])
                timeout = 0
                continue
            self.messages.append((typ, seq, slot, data[16:]))
            timeout = 0

    def expect(self, typ, timeout=10, slot=None):
        """The next message of this type; others stay."""
        end = time.monotonic() + timeout
        while True:
            for i, m in enumerate(self.messages):
                if m[0] == typ and slot in (None, m[2]):
                    return self.messages.pop(i)
            if time.monotonic() > end:
                raise Lost("no message of type %d" % typ)
            if self.proc.poll() is not None and not select.select([self.sock], [], [], 0)[0]:
                raise Lost("the agent is gone, status %d" % self.proc.returncode)
            self.pump(0.05)

    # file objects, as a broker keeps them

    def serve_objects(self):
        """Gives the agent its own segment; from then on objects are served whenever messages are received."""
        fd = memfd("own", OWN_SEGMENT)
        self.own = mmap.mmap(fd, OWN_SEGMENT)
        self.send(SEGMENT, struct.pack("<IIQQQ", 1, 0, 0, 0, OWN_SEGMENT), fds=[fd])
        os.close(fd)
        assert struct.unpack("<iI", self.expect(SEGMENT_TAKEN)[3])[0] == 0

    def on_object(self, seq, body):
        op, session, number, off, length, arg, buf, _ = struct.unpack("<IIQQQQII", body)
        self.object_requests.append((op, session, number, off, length, arg))
        res, off = self.object_result(op, number, off, length, arg, buf)
        self.send(OBJECT_DONE, struct.pack("<qQ", res, off), seq=seq)

    def object_result(self, op, number, off, length, arg, buf):
        if op in self.object_faults:
            return self.object_faults[op], off
        if op == OBJ_NEW:
            self.objects[number] = [bytearray(length), 0]
            return 0, off
        o = self.objects.get(number)
        if o is None:
            return -errno.ENOENT, off
        mem = o[0]
        if op == OBJ_GET:
            data = bytes(mem[off:off + length])
            self.own[buf:buf + len(data)] = data
            return len(data), off
        if op == OBJ_PUT:
            assert off + length <= len(mem)
            mem[off:off + length] = self.own[buf:buf + length]
            return length, off
        if op == OBJ_RESIZE:
            mem[:] = mem[:length] + bytes(max(0, length - len(mem)))
            return 0, off
        if op == OBJ_ZERO:
            mem[off:off + length] = bytes(length)
            return 0, off
        if op == OBJ_ADOPT:
            return o[1], off
        if op == OBJ_GRANT:
            o[1] += 1
            return o[1], off
        del self.objects[number]
        return 0, off

    def idle(self, number):
        """Nobody maps the object any more; waits until the agent has dropped it."""
        self.send(OBJECT_IDLE, struct.pack("<QQ", number, self.objects[number][1]))
        end = time.monotonic() + 10
        while number in self.objects:
            self.pump(0.05)
            if time.monotonic() > end:
                raise Lost("the agent keeps the object")

    # sessions

    def attach(self, uid=None, gid=None, groups=(), size=16 << 20, nlanes=128, entries=256, process=None, pid=None):
        uid = os.geteuid() if uid is None else uid
        gid = os.getegid() if gid is None else gid
        slot = next(i for i in range(1, 1000) if i not in self.slots)
        self.sessions += 1
        session = self.sessions
        process = session if process is None else process
        pid = 1000 + session if pid is None else pid
        lay = layout(size, nlanes, entries)
        fd = memfd("sc-channel", size)
        mem = mmap.mmap(fd, size)
        call_fd, kick_fd = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)
        body = struct.pack("<8I", *lay) + struct.pack("<IIIIIIQ", session, process, pid, uid, gid, len(groups), 0)
        body += struct.pack("<256I", *(list(groups) + [0] * (256 - len(groups))))
        ch = Channel(self, slot, session, process, lay, mem, (fd, call_fd, kick_fd), pid)
        ch.attach_body = body
        self.slots[slot] = ch
        self.reattach(ch)
        return ch

    def reattach(self, ch):
        """Announces a channel, for the first time or (as to a new incarnation) again."""
        self.send(ATTACH, ch.attach_body, ch.slot, fds=[ch.memfd, ch.call_fd, ch.kick_fd])
        status, _ = struct.unpack_from("<iI", self.expect(ATTACHED, slot=ch.slot)[3])
        if status:
            del self.slots[ch.slot]
            ch.free()
            raise OSError(-status, "attach: " + os.strerror(-status))

    def detach_keeping(self, ch):
        """Ends the session at the agent, but keeps the channel."""
        self.send(DETACH, struct.pack("<II", ch.session, 0), ch.slot)
        self.expect(DETACHED, slot=ch.slot)

    def detach(self, ch, timeout=10):
        self.send(DETACH, struct.pack("<II", ch.session, 0), ch.slot)
        m = self.expect(DETACHED, timeout, ch.slot)
        del self.slots[ch.slot]
        ch.free()
        return struct.unpack_from("<iI", m[3])[0]

    def release(self, *tickets):
        self.send(RELEASE, struct.pack("<II", len(tickets), 0) + struct.pack("<%dQ" % len(tickets), *tickets))

    def proc_exit(self, process):
        self.send(PROC_EXIT, struct.pack("<II", process, 0))

    # state region

    def counter(self, name):
        """A counter of struct sc_state_header, as last written by the agent."""
        base = 64 + 2 * 128 * 8
        at = {"heartbeat": 24, "ready_ns": 32}
        for i, n in enumerate("bytes_read bytes_written spun slept doorbells poller_ns worker_ns open_files "
                              "sessions".split()):
            at[n] = base + 8 * i
        if name in OP:
            at[name] = 64 + OP[name] * 8
        return struct.unpack_from("<Q", self.state, at[name])[0]
