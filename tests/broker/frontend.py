# SPDX-License-Identifier: BSD-3-Clause
"""A VM for the broker's tests: QEMU's side of vhost-user, and a guest with a driver and an agent.

The front end follows QEMU's docs/interop/vhost-user.rst, the rings virtio 1.2. Requests of the broker to map memory
are answered by a thread, as QEMU's main loop would, under QEMU's rules: nothing is mapped twice, only what is
mapped can be unmapped, nothing while the rings are stopped.
"""

import mmap
import os
import select
import socket
import struct
import threading
import time

import peers

(GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE) = range(1, 6)
(SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR,
 GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE) = range(8, 19)
SET_BACKEND_REQ_FD = 21
GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 36, 37, 38
GET_SHMEM_CONFIG = 44
SHMEM_MAP, SHMEM_UNMAP = 9, 10

HDR = struct.Struct("<III")
MMAP = struct.Struct("<B7xQQQQ")
VERSION, REPLY, NEED_REPLY = 1, 4, 8
F_VERSION_1, F_PROTOCOL = 1 << 32, 1 << 30
P_MQ, P_REPLY_ACK, P_BACKEND_REQ, P_SEND_FD, P_MEM_SLOTS, P_SHMEM = 0, 3, 5, 10, 15, 22
PROTOCOL = sum(1 << b for b in (P_MQ, P_REPLY_ACK, P_BACKEND_REQ, P_SEND_FD, P_MEM_SLOTS, P_SHMEM))

DESC_NEXT, DESC_WRITE, DESC_INDIRECT = 1, 2, 4

UVA = 0x7f0000000000
GPA = 0x100000
MEMORY = 1 << 20
MESSAGE = 4096


class FrontEnd:
    """The connection, the guest's memory and the back-end channel."""

    def __init__(self, broker, path=None):
        self.broker = broker
        self.window_size = 16 << 20
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(peers.TIMEOUT)
        self.sock.connect(path or broker.path("vhost.sock"))
        self.memfd = os.memfd_create("guest")
        os.ftruncate(self.memfd, MEMORY)
        self.mem = mmap.mmap(self.memfd, MEMORY)
        self.backend = None
        self.thread = None
        self.lock = threading.Lock()
        self.running = False
        self.window = {}  # offset: (len, fd)
        self.refuse = 0  # so many requests are to fail
        self.hold = threading.Event()  # answers wait until it is set
        self.hold.set()
        self.requests = []
        self.errors = []

    def send(self, request, body=b"", fds=(), flags=VERSION, size=None):
        msg = HDR.pack(request, flags, len(body) if size is None else size) + body
        if fds:
            socket.send_fds(self.sock, [msg], list(fds))
        else:
            self.sock.sendall(msg)

    def read(self, sock, n):
        data = b""
        while len(data) < n:
            piece = sock.recv(n - len(data))
            if not piece:
                raise peers.Closed()
            data += piece
        return data

    def reply(self, request):
        got, flags, size = HDR.unpack(self.read(self.sock, HDR.size))
        assert (got, flags) == (request, VERSION | REPLY), (got, flags)
        return self.read(self.sock, size)

    def ask(self, request, body=b""):
        self.send(request, body)
        return self.reply(request)

    def ask_u64(self, request):
        return struct.unpack("<Q", self.ask(request))[0]

    def tell(self, request, body=b"", fds=()):
        """A request with acknowledgement; returns it (0: done)."""
        self.send(request, body, fds, VERSION | NEED_REPLY)
        return struct.unpack("<Q", self.reply(request))[0]

    def handshake(self, protocol=PROTOCOL):
        assert self.ask_u64(GET_FEATURES) & (F_PROTOCOL | F_VERSION_1) == F_PROTOCOL | F_VERSION_1
        assert self.ask_u64(GET_PROTOCOL_FEATURES) == PROTOCOL
        self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", protocol))
        assert self.ask_u64(GET_QUEUE_NUM) == self.broker.channels + 2
        self.send(SET_OWNER)
        config = self.ask(GET_SHMEM_CONFIG)
        assert len(config) == 2056
        regions, _, size0, size1 = struct.unpack_from("<IIQQ", config)
        assert (regions, size0, size1) == (1, self.window_size, 0), (regions, size0)
        self.open_backend()

    def open_backend(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        assert self.tell(SET_BACKEND_REQ_FD, fds=[theirs.fileno()]) == 0
        theirs.close()
        self.backend = ours
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        """The front end's answers on the back-end channel."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.backend, HDR.size, 8)
                if not data:
                    return
                data += self.read(self.backend, HDR.size - len(data)) if len(data) < HDR.size else b""
                request, flags, size = HDR.unpack(data)
                body = self.read(self.backend, size)
            except (OSError, peers.Closed):
                return
            self.hold.wait()
            with self.lock:
                status = self.serve_one(request, body, fds)
                self.requests.append((request, MMAP.unpack(body)[2], status))
            if flags & NEED_REPLY:
                try:
                    self.backend.sendall(HDR.pack(request, VERSION | REPLY, 8) + struct.pack("<Q", status))
                except OSError:
                    return

    def serve_one(self, request, body, fds):
        shmid, fd_offset, offset, length, flags = MMAP.unpack(body)
        if self.refuse:
            self.refuse -= 1
            for fd in fds:
                os.close(fd)
            return 1
        if not self.running or shmid or fd_offset or offset + length > self.window_size:
            self.errors.append((request, body))
            return 1
        if request == SHMEM_MAP:
            if len(fds) != 1 or flags != 1 or offset in self.window:
                self.errors.append((request, body))
                return 1
            self.window[offset] = (length, fds[0])
            return 0
        if request != SHMEM_UNMAP or fds or self.window.get(offset, (0,))[0] != length:
            self.errors.append((request, body))
            return 1
        os.close(self.window.pop(offset)[1])
        return 0

    def reset_window(self):
        with self.lock:
            for _, fd in self.window.values():
                os.close(fd)
            self.window = {}

    def add_memory(self, table=True):
        self.send(SET_FEATURES, struct.pack("<Q", F_PROTOCOL | F_VERSION_1))
        region = struct.pack("<QQQQ", GPA, MEMORY, UVA, 0)
        if table:
            assert self.tell(SET_MEM_TABLE, struct.pack("<II", 1, 0) + region, [self.memfd]) == 0
        else:
            assert self.ask_u64(GET_MAX_MEM_SLOTS) >= 8
            assert self.tell(ADD_MEM_REG, bytes(8) + region, [self.memfd]) == 0

    def close(self):
        if self.mem.closed:
            return
        self.running = False
        self.hold.set()
        self.sock.close()
        if self.backend:
            self.backend.shutdown(socket.SHUT_RDWR)
            self.thread.join()
            self.backend.close()
        self.reset_window()
        self.mem.close()
        os.close(self.memfd)


class Ring:
    """The driver's side of a split ring, with buffers of MESSAGE bytes."""

    def __init__(self, fe, index, num, at):
        self.fe = fe
        self.index = index
        self.num = num
        self.desc = at
        self.avail = at + 16 * num
        self.used = (self.avail + 6 + 2 * num + 3) & ~3
        self.buffers = (self.used + 6 + 8 * num + 4095) & ~4095
        self.end = self.buffers + num * MESSAGE
        self.avail_idx = 0
        self.used_idx = 0
        self.kick_fd = self.call_fd = -1

    def start(self, base=0, enable=True):
        fe, i = self.fe, self.index
        fe.send(SET_VRING_NUM, struct.pack("<II", i, self.num))
        fe.send(SET_VRING_BASE, struct.pack("<II", i, base))
        fe.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", i, 0, UVA + self.desc, UVA + self.used, UVA + self.avail, 0))
        self.kick_fd = os.eventfd(1, os.EFD_NONBLOCK)
        self.call_fd = os.eventfd(0, os.EFD_NONBLOCK)
        fe.send(SET_VRING_KICK, struct.pack("<Q", i), [self.kick_fd])
        fe.send(SET_VRING_CALL, struct.pack("<Q", i), [self.call_fd])
        if enable:
            self.enable()

    def enable(self):
        assert self.fe.tell(SET_VRING_ENABLE, struct.pack("<II", self.index, 1)) == 0

    def stop(self):
        index, base = struct.unpack("<II", self.fe.ask(GET_VRING_BASE, struct.pack("<II", self.index, 0)))
        assert index == self.index
        self.close()
        return base

    def close(self):
        for fd in (self.kick_fd, self.call_fd):
            if fd >= 0:
                os.close(fd)
        self.kick_fd = self.call_fd = -1

    def put_desc(self, i, addr, length, flags=0, nxt=0):
        struct.pack_into("<QIHH", self.fe.mem, self.desc + 16 * i, addr, length, flags, nxt)

    def offer(self, head):
        """Makes a chain available."""
        struct.pack_into("<H", self.fe.mem, self.avail + 4 + 2 * (self.avail_idx % self.num), head)
        self.avail_idx = (self.avail_idx + 1) & 0xffff
        struct.pack_into("<H", self.fe.mem, self.avail + 2, self.avail_idx)

    def kick(self):
        os.eventfd_write(self.kick_fd, 1)

    def buffer(self, i):
        return self.buffers + i * MESSAGE

    def offer_empty(self, i, length=MESSAGE):
        self.put_desc(i, GPA + self.buffer(i), length, DESC_WRITE)
        self.offer(i)

    def take(self):
        """The next used entry (id, len), or None."""
        used = struct.unpack_from("<H", self.fe.mem, self.used + 2)[0]
        if used == self.used_idx:
            return None
        entry = struct.unpack_from("<II", self.fe.mem, self.used + 4 + 8 * (self.used_idx % self.num))
        self.used_idx = (self.used_idx + 1) & 0xffff
        return entry

    def wait_used(self, timeout=peers.TIMEOUT):
        end = time.monotonic() + timeout
        while True:
            entry = self.take()
            if entry:
                return entry
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError()
            if select.select([self.call_fd], [], [], left)[0]:
                os.eventfd_read(self.call_fd)


class Guest(peers.Agent):
    """A VM whose driver has started the device, and the agent in it. Speaks like peers.Agent."""

    # pylint: disable=super-init-not-called
    def __init__(self, broker, hello=True, start=True, table=True, doorbells=True, **fields):
        self.broker = broker
        self.incarnation = 0
        self.state_fd = -1
        self.channels = {}
        self.seq = 100
        self.fe = FrontEnd(broker)
        self.fe.handshake()
        self.table = table
        self.doorbells = doorbells
        self.rings = []
        if start:
            self.start()
        if hello:
            self.hello(**fields)
            self.expect_start()

    def start(self, base=0):
        self.fe.add_memory(self.table)
        at = 0
        self.rings = []
        for i in range(self.broker.channels + 2):
            ring = Ring(self.fe, i, 64 if i < 2 else 2, at)
            if i >= 2:
                ring.end = ring.buffers  # doorbells have no buffers
            at = (ring.end + 4095) & ~4095
            self.rings.append(ring)
        self.fe.mem[0:at] = bytes(at)
        self.control, self.event = self.rings[:2]
        for i in range(64):
            self.event.offer_empty(i)
        self.fe.running = True
        for ring in self.rings:
            if ring.index < 2 or self.doorbells:
                ring.start(enable=False)
        for ring in self.rings:
            if ring.kick_fd >= 0:
                ring.enable()

    def reset(self):
        """What a reset of the device does."""
        bases = [ring.stop() for ring in self.rings]
        self.fe.running = False
        self.fe.reset_window()
        return bases

    def send(self, mtype, body=b"", slot=0, seq=None, length=None):
        if seq is None:
            self.seq += 1
            seq = self.seq
        n = peers.MSG_HDR.size + len(body) if length is None else length
        self.send_raw(peers.MSG_HDR.pack(mtype, 0, n, seq, slot) + body)
        return seq

    def send_raw(self, msg):
        ring = self.control
        i = ring.avail_idx % ring.num
        at = ring.buffer(i)
        self.fe.mem[at:at + len(msg)] = msg
        ring.put_desc(i, GPA + at, len(msg))
        ring.offer(i)
        ring.kick()
        head, _ = ring.wait_used()
        assert head == i

    def recv(self, timeout=peers.TIMEOUT):
        ring = self.event
        i, n = ring.wait_used(timeout)
        at = ring.buffer(i)
        data = bytes(self.fe.mem[at:at + n])
        ring.offer_empty(i)
        ring.kick()
        mtype, _, length, seq, slot = peers.MSG_HDR.unpack_from(data)
        assert length == n, (length, n)
        fds = []
        with self.fe.lock:
            if mtype == peers.START:
                fds = [os.dup(self.fe.window[0][1])]
            elif mtype == peers.ATTACH:
                door = self.rings[2 + slot - 1]
                fds = [os.dup(self.fe.window[slot * peers.SLOT_SIZE][1]), os.dup(door.call_fd), os.dup(door.kick_fd)]
            elif mtype == peers.SEGMENT:
                offset = peers.MSG_SEGMENT.unpack_from(data, peers.MSG_HDR.size)[3]
                fds = [os.dup(self.fe.window[offset][1])]
        return mtype, seq, slot, data[peers.MSG_HDR.size:], fds

    def close(self):
        for ch in self.channels.values():
            for fd in ch["fds"]:
                os.close(fd)
        self.channels = {}
        if self.state_fd >= 0:
            os.close(self.state_fd)
        self.state_fd = -1
        self.fe.close()
        for ring in self.rings:
            ring.close()
        self.rings = []
