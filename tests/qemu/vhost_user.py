# SPDX-License-Identifier: BSD-3-Clause
"""vhost_user - a vhost-user back end for tests: what a broker is to QEMU, without any service behind it.

It listens on a socket, answers what has to be answered, and records what QEMU says. A thread serves the connection;
the tests look at the record under its lock, and send requests of their own on the back-end channel (`map`, `unmap`).
"""

import array
import mmap
import os
import socket
import struct
import threading

(GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE) = range(1, 6)
(SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR,
 GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE) = range(8, 19)
SET_BACKEND_REQ_FD = 21
SET_STATUS = 39
GET_STATUS = 40
GET_SHMEM_CONFIG = 44

SHMEM_MAP = 9
SHMEM_UNMAP = 10

VERSION = 1
REPLY = 1 << 2
NEED_REPLY = 1 << 3

F_PROTOCOL_FEATURES = 1 << 30
F_VERSION_1 = 1 << 32
F_INDIRECT_DESC = 1 << 28
F_RING_RESET = 1 << 40

PF_MQ = 1 << 0
PF_REPLY_ACK = 1 << 3
PF_BACKEND_REQ = 1 << 5
PF_BACKEND_SEND_FD = 1 << 10
PF_STATUS = 1 << 16
PF_DEVICE_STATE = 1 << 19
PF_SHMEM = 1 << 22

HEADER = struct.Struct("=IIi")
MMAP = struct.Struct("=B7xQQQQ")


class Vring:
    """What QEMU said about one virtqueue."""

    def __init__(self):
        self.num = self.base = self.desc = 0
        self.enabled = self.started = False
        self.kick = self.call = None
        self.calls_set = 0  # how often QEMU gave a call eventfd, ever

    def close(self):
        for fd in (self.kick, self.call):
            if fd is not None:
                os.close(fd)
        self.kick = self.call = None


class Backend:
    """Listens on `path`. `window` is what it claims as the size of shared memory region 0, in bytes."""

    def __init__(self, path, window, queues=256):
        self.path = path
        self.window = window
        self.queues = queues
        self.features = F_VERSION_1 | F_INDIRECT_DESC | F_RING_RESET | F_PROTOCOL_FEATURES
        self.protocol = (PF_MQ | PF_REPLY_ACK | PF_BACKEND_REQ | PF_BACKEND_SEND_FD | PF_STATUS | PF_SHMEM
                         | PF_DEVICE_STATE)  # the last one QEMU does not know and must not accept
        self.cond = threading.Condition()
        self.connections = 0
        self._clear()
        self.conn = None
        self.listener = self._listen()
        self.closing = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _listen(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(1)
        return listener

    def _clear(self):
        self.acked = self.acked_protocol = None
        self.regions = []
        self.status = 0
        self.vrings = {}
        self.channel = None
        self.log = []

    def close(self):
        """Stops for good."""
        self.closing = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        self.thread.join(5)
        self.listener.close()

    def hang_up(self):
        """Dies as a process does: connection and channel close, eventfds too. The next connection is accepted."""
        with self.cond:
            if self.conn:
                self.conn.shutdown(socket.SHUT_RDWR)
            if self.channel:
                self.channel.shutdown(socket.SHUT_RDWR)

    def wait(self, what, timeout=10):
        """Waits until what(self) is true."""
        with self.cond:
            if not self.cond.wait_for(lambda: what(self), timeout):
                raise TimeoutError(f"back end: {what.__doc__ or 'condition'} not met; log {self.log[-10:]}")

    def wait_connected(self, n):
        self.wait(lambda b: b.connections >= n and b.channel is not None)

    def wait_started(self, queues):
        self.wait(lambda b: sum(v.enabled and v.kick is not None for v in b.vrings.values()) == queues)

    def wait_stopped(self):
        self.wait(lambda b: not any(v.started for v in b.vrings.values()))

    # Requests to QEMU

    def request(self, number, payload, fds=(), flags=NEED_REPLY):
        """Sends a request on the back-end channel. Returns the reply's value, or None if none was asked for."""
        message = HEADER.pack(number, VERSION | flags, len(payload)) + payload
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.channel.settimeout(5)
        self.channel.sendmsg([message], ancillary)
        if not flags & NEED_REPLY:
            return None
        reply = b""
        while len(reply) < HEADER.size + 8:
            part = self.channel.recv(HEADER.size + 8 - len(reply))
            if not part:
                raise ConnectionError("QEMU closed the back-end channel")
            reply += part
        got, got_flags, size = HEADER.unpack_from(reply)
        assert (got, got_flags, size) == (number, VERSION | REPLY, 8), (got, got_flags, size)
        return struct.unpack_from("=Q", reply, HEADER.size)[0]

    def map(self, fd, shm_offset, length, fd_offset=0, shmid=0, flags=1):
        """SHMEM_MAP; 0 means success. Without fd, none is sent."""
        payload = MMAP.pack(shmid, fd_offset, shm_offset, length, flags)
        return self.request(SHMEM_MAP, payload, () if fd is None else (fd,))

    def unmap(self, shm_offset, length, shmid=0):
        return self.request(SHMEM_UNMAP, MMAP.pack(shmid, 0, shm_offset, length, 0))

    # The connection

    def _serve(self):
        while not self.closing:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            with self.cond:
                self._clear()
                self.conn = conn
                self.connections += 1
            try:
                while self._serve_message(conn):
                    pass
            except (ConnectionError, OSError):
                pass
            with self.cond:
                conn.close()
                self.conn = None
                for vring in self.vrings.values():
                    vring.close()
                if self.channel:
                    self.channel.close()
                self.channel = None
                self.cond.notify_all()

    @staticmethod
    def _recv(conn, n, fds):
        data = b""
        while len(data) < n:
            part, ancillary, _, _ = conn.recvmsg(n - len(data), socket.CMSG_SPACE(8 * 4))
            if not part:
                raise ConnectionError
            for level, kind, value in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds += array.array("i", value[:len(value) - len(value) % 4])
            data += part
        return data

    def _serve_message(self, conn):
        fds = array.array("i")
        number, flags, size = HEADER.unpack(self._recv(conn, HEADER.size, fds))
        payload = self._recv(conn, size, fds)
        with self.cond:
            self.log.append(number)
            reply = self._handle(number, payload, fds)
            for fd in fds:
                os.close(fd)
            if reply is None and flags & NEED_REPLY:
                reply = struct.pack("=Q", 0)
            self.cond.notify_all()
        if reply is not None:
            conn.sendall(HEADER.pack(number, VERSION | REPLY, len(reply)) + reply)
        return True

    def _vring(self, index):
        return self.vrings.setdefault(index, Vring())

    def _handle(self, number, payload, fds):
        """Returns the reply's payload or None. Takes descriptors it keeps out of fds."""
        u64 = struct.unpack_from("=Q", payload)[0] if len(payload) >= 8 else 0
        if number == GET_FEATURES:
            return struct.pack("=Q", self.features)
        if number == SET_FEATURES:
            self.acked = u64
        elif number == GET_PROTOCOL_FEATURES:
            return struct.pack("=Q", self.protocol)
        elif number == SET_PROTOCOL_FEATURES:
            self.acked_protocol = u64
        elif number == GET_QUEUE_NUM:
            return struct.pack("=Q", self.queues)
        elif number == GET_SHMEM_CONFIG:
            return struct.pack("=II256Q", 1, 0, self.window, *([0] * 255))
        elif number == SET_STATUS:
            self.status = u64
        elif number == GET_STATUS:
            return struct.pack("=Q", self.status)
        elif number == SET_BACKEND_REQ_FD:
            self.channel = socket.socket(fileno=fds.pop())
        elif number == SET_MEM_TABLE:
            self._set_mem_table(payload, fds)
        elif number in (SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR):
            self._set_vring_fd(number, u64, fds)
        elif number in (SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ENABLE, GET_VRING_BASE):
            return self._vring_state(number, payload)
        elif number == SET_VRING_ADDR:
            index, _, self_desc = struct.unpack_from("=IIQ", payload)
            self._vring(index).desc = self_desc
        return None

    def _set_mem_table(self, payload, fds):
        n = struct.unpack_from("=I", payload)[0]
        assert n == len(fds), (n, fds)
        self.regions = [struct.unpack_from("=QQQQ", payload, 8 + 32 * i) for i in range(n)]

    def _set_vring_fd(self, number, u64, fds):
        vring = self._vring(u64 & 0xff)
        fd = None if u64 & 0x100 else fds.pop()
        if number == SET_VRING_KICK:
            if vring.kick is not None:
                os.close(vring.kick)
            vring.kick = fd
            vring.started = fd is not None
        elif number == SET_VRING_CALL:
            if vring.call is not None:
                os.close(vring.call)
            vring.call = fd
            vring.calls_set += 1
        elif fd is not None:
            os.close(fd)

    def _vring_state(self, number, payload):
        index, value = struct.unpack("=II", payload)
        vring = self._vring(index)
        if number == SET_VRING_NUM:
            vring.num = value
        elif number == SET_VRING_BASE:
            vring.base = value
        elif number == SET_VRING_ENABLE:
            vring.enabled = bool(value)
        else:
            vring.started = False
            return struct.pack("=II", index, vring.base)
        return None


class Channel:
    """A sealed memfd as the broker makes them, mapped."""

    def __init__(self, size, fill=0):
        import fcntl
        self.fd = os.memfd_create("channel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        fcntl.fcntl(self.fd, 1033, 1 | 2 | 4)  # F_ADD_SEALS: SEAL, SHRINK, GROW
        self.map = mmap.mmap(self.fd, size)
        if fill:
            self.map[:] = bytes([fill]) * size

    def close(self):
        self.map.close()
        os.close(self.fd)


def eventfd_identity(fd):
    """A number that is the same for descriptors of the same eventfd, or None if the kernel does not tell."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        for line in info:
            if line.startswith("eventfd-id:"):
                return int(line.split()[1])
    return None
