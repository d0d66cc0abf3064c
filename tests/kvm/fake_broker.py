# SPDX-License-Identifier: BSD-3-Clause
"""fake_broker - the smallest vhost-user back end that a virtio-sc device works with; for tests of the guest driver.

It has no processes, sessions or policy: a test maps memory files into the window, sends and takes messages as bytes,
rings bells, and waits for them. A thread of its own answers QEMU's requests; all other methods are for the test's
thread.
"""

import array
import ctypes
import mmap
import os
import select
import socket
import struct
import threading
import time

GET_FEATURES, SET_FEATURES, SET_OWNER = 1, 2, 3
SET_MEM_TABLE = 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL = 12, 13
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM = 15, 16, 17
SET_BACKEND_REQ_FD = 21
GET_SHMEM_CONFIG = 44
BACKEND_SHMEM_MAP, BACKEND_SHMEM_UNMAP = 9, 10

VERSION, REPLY, NEED_REPLY = 1, 4, 8
FEATURES = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28  # VERSION_1, protocol features, EVENT_IDX, INDIRECT
PROTOCOL_FEATURES = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 10 | 1 << 22  # MQ, REPLY_ACK, BACKEND_REQ, SEND_FD, SHMEM
MAX_REGIONS = 256

CONTROLQ, EVENTQ, DOORBELL = 0, 1, 2


def replace(fd):
    """Closes what a new descriptor takes the place of."""
    if fd is not None:
        os.close(fd)


def readable(fd, timeout):
    """Waits at most `timeout` seconds for an eventfd to be rung."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


class Queue:
    """A virtqueue as QEMU describes it."""

    def __init__(self):
        self.num = 0
        self.addresses = None  # descriptors, used ring, available ring; addresses in QEMU
        self.next = 0  # next available entry to take
        self.kick = None
        self.call = None


class FakeBroker(threading.Thread):
    """Listens on `path`. window: bytes of the window; channels: number of channel slots."""

    def __init__(self, path, window, channels):
        super().__init__(daemon=True)
        self.window = window
        self.slot_size = 1 << (window // (channels + 1)).bit_length() - 1
        self.queues = [Queue() for _ in range(DOORBELL + channels)]
        self.regions = []  # (address in QEMU, size, mmap)
        self.backend = None
        self.error = None
        self.lock = threading.Lock()  # held while rings are used, or change: the guest frees them once they stop
        self.running = threading.Event()  # all queues are set up
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(4)
        self.start()

    # ---- QEMU's requests ----

    def run(self):
        try:
            while True:
                conn, _ = self.listener.accept()
                with conn:
                    self._serve(conn)
        except OSError as e:
            self.error = e

    def _serve(self, conn):
        while True:
            head, fds, _, _ = socket.recv_fds(conn, 12, 16)
            if len(head) < 12:
                return
            request, flags, size = struct.unpack("<III", head)
            body = b""
            while len(body) < size:
                more = conn.recv(size - len(body))
                if not more:
                    return
                body += more
            answer = self._handle(request, body, fds)
            if answer is None and flags & NEED_REPLY:
                answer = struct.pack("<Q", 0)
            if answer is not None:
                conn.sendall(struct.pack("<III", request, VERSION | REPLY, len(answer)) + answer)

    def _handle(self, request, body, fds):
        if request == GET_FEATURES:
            return struct.pack("<Q", FEATURES)
        if request == GET_PROTOCOL_FEATURES:
            return struct.pack("<Q", PROTOCOL_FEATURES)
        if request == GET_QUEUE_NUM:
            return struct.pack("<Q", len(self.queues))
        if request == GET_SHMEM_CONFIG:
            return struct.pack(f"<II{MAX_REGIONS}Q", 1, 0, self.window, *[0] * (MAX_REGIONS - 1))
        if request == SET_BACKEND_REQ_FD:
            if self.backend:
                self.backend.close()
            self.backend = socket.socket(fileno=fds[0])
        elif request == SET_MEM_TABLE:
            self._set_memory(body, fds)
        elif request in (SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ADDR, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL):
            with self.lock:
                return self._handle_vring(request, body, fds)
        return None

    def _set_memory(self, body, fds):
        count, = struct.unpack_from("<I", body)
        regions = []
        for i in range(count):
            _, size, address, offset = struct.unpack_from("<QQQQ", body, 8 + 32 * i)
            regions.append((address, size, mmap.mmap(fds[i], size + offset), offset))
            os.close(fds[i])
        self.regions = regions

    def _handle_vring(self, request, body, fds):
        index, value = struct.unpack_from("<II", body)
        if request in (SET_VRING_KICK, SET_VRING_CALL):
            index &= 0xFF
        queue = self.queues[index]
        if request == SET_VRING_NUM:
            queue.num = value
        elif request == SET_VRING_BASE:
            queue.next = value
        elif request == SET_VRING_ADDR:
            queue.addresses = struct.unpack_from("<QQQ", body, 8)
        elif request == GET_VRING_BASE:
            self.running.clear()
            queue.addresses = None
            return struct.pack("<II", index, queue.next)
        elif request == SET_VRING_KICK:
            replace(queue.kick)
            queue.kick = fds[0] if fds else None
        else:
            replace(queue.call)
            queue.call = fds[0] if fds else None
            # The last request of a start, of the last queue.
            if queue is self.queues[-1] and queue.kick is not None:
                self.running.set()
        return None

    # ---- guest memory and rings ----

    def _at(self, address, size):
        """(mmap, offset) of memory at an address in QEMU."""
        for base, length, memory, offset in self.regions:
            if base <= address and address + size <= base + length:
                return memory, address - base + offset
        raise ValueError(f"address {address:#x} is not in guest memory")

    def _guest(self, address, size):
        """(mmap, offset) of memory at a guest-physical address; guest memory starts at 0 in tests (under 2 GiB)."""
        _, length, memory, offset = self.regions[0]
        if address + size > length:
            raise ValueError(f"guest address {address:#x} outside of memory")
        return memory, address + offset

    def _take(self, queue):
        """The next available buffer as (head, address, length), or None."""
        if not queue.addresses:
            return None
        desc, _, avail = queue.addresses
        memory, offset = self._at(avail, 4 + 2 * queue.num)
        index, = struct.unpack_from("<H", memory, offset + 2)
        if index == queue.next & 0xFFFF:
            return None
        head, = struct.unpack_from("<H", memory, offset + 4 + 2 * (queue.next % queue.num))
        memory, offset = self._at(desc, 16 * queue.num)
        address, length, _, _ = struct.unpack_from("<QIHH", memory, offset + 16 * head)
        queue.next = queue.next + 1 & 0xFFFF
        return head, address, length

    def _put(self, queue, head, length):
        """Returns a buffer as used, and interrupts the guest."""
        memory, offset = self._at(queue.addresses[1], 4 + 8 * queue.num)
        index, = struct.unpack_from("<H", memory, offset + 2)
        struct.pack_into("<II", memory, offset + 4 + 8 * (index % queue.num), head, length)
        struct.pack_into("<H", memory, offset + 2, index + 1 & 0xFFFF)
        os.eventfd_write(queue.call, 1)

    # ---- for tests ----

    def _use(self, queue, use):
        """Takes a buffer if there is one, and returns use()'s result for it."""
        with self.lock:
            buffer = self._take(queue)
            if not buffer:
                return None
            head, address, length = buffer
            result, used = use(*self._guest(address, length), length)
            self._put(queue, head, used)
        return result

    def send(self, message, claimed=None, timeout=10):
        """Sends a message to the agent. claimed: length to be told instead of the true one."""

        def use(memory, offset, _):
            memory[offset : offset + len(message)] = message
            return True, len(message) if claimed is None else claimed

        end = time.monotonic() + timeout
        while not self._use(self.queues[EVENTQ], use):
            if time.monotonic() > end:
                raise TimeoutError("no buffer in eventq")
            time.sleep(0.01)

    def receive(self, timeout=10):
        """The agent's next message."""
        queue = self.queues[CONTROLQ]
        end = time.monotonic() + timeout
        while not (message := self._use(queue, lambda memory, offset, n: (bytes(memory[offset : offset + n]), 0))):
            if time.monotonic() > end:
                raise TimeoutError("no message in controlq")
            if queue.kick is not None and readable(queue.kick, 0.1):
                os.eventfd_read(queue.kick)
        return message

    def ring(self, slot):
        """Rings the host-to-guest bell of a channel slot."""
        os.eventfd_write(self.queues[DOORBELL + slot - 1].call, 1)

    def wait_kick(self, slot, timeout=10):
        """Waits for the guest-to-host bell of a slot. Returns how often it rang; 0: not at all."""
        kick = self.queues[DOORBELL + slot - 1].kick
        if not readable(kick, timeout):
            return 0
        return os.eventfd_read(kick)

    def map(self, slot, fd, size):
        """Maps a file to the beginning of a window slot."""
        self._request(BACKEND_SHMEM_MAP, slot, size, 1, fd)

    def unmap(self, slot, size):
        self._request(BACKEND_SHMEM_UNMAP, slot, size, 0, None)

    def _request(self, request, slot, size, flags, fd):
        body = struct.pack("<B7xQQQQ", 0, 0, slot * self.slot_size, size, flags)
        data = struct.pack("<III", request, VERSION | NEED_REPLY, len(body)) + body
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
        self.backend.settimeout(10)
        self.backend.sendmsg([data], ancillary)
        answer = self.backend.recv(20, socket.MSG_WAITALL)
        status = struct.unpack_from("<Q", answer, 12)[0] if len(answer) == 20 else -1
        if status:
            raise OSError(f"QEMU refused request {request}: {ctypes.c_int64(status).value}")
