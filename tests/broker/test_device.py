#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The broker as a vhost-user back end: a VM with a driver and an agent, well-behaved and otherwise."""

import errno
import os
import random
import socket
import struct
import sys
import threading
import time
import unittest

import frontend
import objects
import peers
import segments
from frontend import FrontEnd, GPA, Guest, MEMORY, UVA
from peers import Broker, Client, Closed, attach_pair, wait_for


class Case(unittest.TestCase):
    options = ()

    def setUp(self):
        self.broker = Broker(*self.options, loopback=False)
        self.addCleanup(self.broker.stop)

    def guest(self, **kw):
        g = Guest(self.broker, **kw)
        self.addCleanup(g.close)
        return g

    def front_end(self):
        fe = FrontEnd(self.broker)
        self.addCleanup(fe.close)
        return fe

    def client(self):
        c = Client(self.broker)
        self.addCleanup(c.close)
        return c

    def pair(self, guest, **kw):
        c, ch = attach_pair(self.broker, guest, **kw)
        self.addCleanup(c.close)
        return c, ch


class Objects(objects.ObjectTests, Case):
    agent = Case.guest

    def agent_anew(self, old):
        old.reset()
        old.start()


class Segments(segments.SegmentTests, Case):
    agent = Case.guest

    def agent_anew(self, old):
        old.reset()
        old.start()
        return old

    def test_in_the_window(self):
        """They lie beyond the slots, do not overlap, and what is free is used again."""
        g, c, _ = self.start()
        _, more = c.more_tickets(8)
        end = (peers.CHANNELS + 1) * peers.SLOT_SIZE
        held = []
        for fd in more.values():
            c.ask_segment(fd, 1 << 20)
            m = g.recv()
            self.assertEqual(m[0], peers.SEGMENT)
            number, _, ticket, offset, size = peers.MSG_SEGMENT.unpack(m[3])
            self.assertGreaterEqual(offset, end)
            self.assertLessEqual(offset + size, g.fe.window_size)
            g.send(peers.SEGMENT_TAKEN, struct.pack("<iI", 0, number), seq=m[1])
            for f in m[4]:
                os.close(f)
            status, _, _, mem = c.segment()
            self.assertEqual(status, 0)
            os.close(mem)
            held.append((ticket, offset, number))
            if len(held) == 3:
                break  # 7 MiB: 4 are the agent's own
        full = list(more.values())[3]
        self.assertEqual(self.ask(c, full, 1 << 20), errno.ENOBUFS)
        self.assertEqual(len({h[1] for h in held}), 3)
        os.close(c.tickets.pop(held[1][0]))
        g.expect_release()
        self.assertEqual(g.expect_segment_end(), held[1][2])
        wait_for(lambda: self.used() == 3)
        s, _ = self.make(g, c, full, 1 << 20)
        self.assertEqual(s[2], held[1][1])
        self.assertEqual(g.fe.errors, [])


class Device(Case):
    def test_attach_and_end(self):
        g = self.guest()
        c, ch = self.pair(g, tickets=2)
        self.assertEqual(c.rep["loopback"], 0)
        # Process and guest see the same memory and the same doorbells.
        os.pwrite(c.fds[0], b"hello guest", 70000)
        self.assertEqual(os.pread(ch["fds"][0], 11, 70000), b"hello guest")
        os.eventfd_write(c.fds[1], 1)
        self.assertEqual(os.eventfd_read(ch["fds"][1]), 1)
        self.assertGreaterEqual(os.eventfd_read(c.fds[2]), 1)  # QEMU rings it at the start
        os.eventfd_write(ch["fds"][2], 1)
        self.assertEqual(os.eventfd_read(c.fds[2]), 1)
        st = self.broker.status()
        self.assertEqual((st["state"], st["device"]["rings"]), ("ready", peers.CHANNELS + 2))
        slot = ch["slot"]
        c.close()
        g.collect(peers.DETACH)
        wait_for(lambda: not self.broker.status()["channels"])
        with g.fe.lock:
            unmapped = [r for r in g.fe.requests if r[:2] == (frontend.SHMEM_UNMAP, slot * peers.SLOT_SIZE)]
        self.assertEqual(len(unmapped), 1)
        self.assertEqual(g.fe.errors, [])

    def test_memory_regions_one_by_one(self):
        g = self.guest(table=False)
        self.pair(g)
        self.assertEqual(self.broker.status()["device"]["regions"], 1)

    def test_pool_is_mapped_ahead(self):
        g = self.guest()
        wait_for(lambda: self.broker.status()["device"]["mapped"] >= 3)
        before = len(g.fe.requests)
        g.fe.hold.clear()
        c, _ = self.pair(g)
        self.assertEqual(len(g.fe.requests), before)
        g.fe.hold.set()
        wait_for(lambda: len(g.fe.requests) > before)

    def test_many_sessions(self):
        g = self.guest()
        for _ in range(5):
            pairs = [self.pair(g) for _ in range(peers.CHANNELS)]
            for c, _ in pairs:
                c.close()
                g.expect_detach()
            wait_for(lambda: not self.broker.status()["channels"])
        self.assertEqual(g.fe.errors, [])

    def test_wait_for_boot(self):
        c = self.client()
        self.assertEqual(c.attach()["status"], peers.DOWN)
        g = self.guest(hello=False, start=False)
        self.broker.wait_status(state="starting")
        c.request(wait_ms=20000)
        g.start()
        g.hello()
        g.expect_start()
        g.expect_attach()
        self.assertEqual(c.reply()["status"], peers.OK)

    def test_doorbell_awaited(self):
        g = self.guest(doorbells=False)
        c = self.client()
        c.request()
        with self.assertRaises(TimeoutError):
            c.reply(0.3)
        for ring in g.rings[2:]:
            ring.start()
        g.expect_attach()
        self.assertEqual(c.reply()["status"], peers.OK)

    def test_map_refused(self):
        g = self.guest(hello=False, start=False)
        g.fe.refuse = 1000
        g.start()
        g.hello()
        with self.assertRaises(TimeoutError):
            g.recv(0.3)
        self.assertIn("could not map", self.broker.status()["why"])
        # The next hello is another chance.
        g.fe.refuse = 0
        g.hello()
        g.expect_start()
        self.pair(g)

    def test_map_of_channel_refused(self):
        g = self.guest()
        held = [self.pair(g) for _ in range(3)]
        wait_for(lambda: self.broker.status()["device"]["mapped"] >= 8)
        g.fe.refuse = 1000
        results = []
        for _ in range(peers.CHANNELS - 3):
            c = self.client()
            c.request()
            try:
                g.expect_attach()
            except AssertionError:
                raise
            except TimeoutError:
                pass
            results.append(c.reply()["status"])
            if results[-1] != peers.OK:
                break
        g.fe.refuse = 0
        del held

    def test_vm_goes(self):
        g = self.guest()
        c, ch = self.pair(g, tickets=1)
        g.close()
        self.assertEqual(c.event(), (0, []))
        self.broker.wait_status(state="down")
        h = self.guest()
        self.assertEqual(h.incarnation, 2)
        ch2 = h.expect_attach()
        self.assertEqual(ch2["session"], ch["session"])
        incarnation, fds = c.event()
        self.assertEqual((incarnation, len(fds)), (2, 2))
        # The new doorbells connect.
        os.eventfd_write(fds[0], 1)
        self.assertEqual(os.eventfd_read(ch2["fds"][1]), 1)
        # The same memory.
        os.pwrite(c.fds[0], b"still here", 70000)
        self.assertEqual(os.pread(ch2["fds"][0], 10, 70000), b"still here")
        c.close_tickets()
        self.assertEqual(len(h.expect_release()), 1)

    def test_guest_reboots(self):
        """The connection stays; the device is reset and started again."""
        g = self.guest()
        c, ch = self.pair(g)
        g.reset()
        self.assertEqual(c.event(), (0, []))
        self.assertEqual(self.broker.status()["state"], "starting")
        g.fe.errors.clear()  # a channel for the pool may have been on its way when the rings stopped
        g.start()
        g.hello()
        g.expect_start()
        self.assertEqual(g.incarnation, 2)
        self.assertEqual(g.expect_attach()["session"], ch["session"])
        self.assertEqual(c.event()[0], 2)
        self.assertEqual(g.fe.errors, [])

    def test_session_ends_while_rebooting(self):
        g = self.guest()
        c, _ = self.pair(g)
        g.reset()
        c.close()
        self.broker.wait_status(channels=[])
        g.fe.errors.clear()  # a channel for the pool may have been on its way when the rings stopped
        g.start()
        g.hello()
        g.expect_start()
        self.assertEqual(g.sync(), [])
        self.assertEqual(g.fe.errors, [])

    def test_unanswered_map_and_reset(self):
        """An answer that belongs to the time before the reset is ignored."""
        g = self.guest(hello=False, start=False)
        g.fe.hold.clear()
        g.start()
        time.sleep(0.1)
        bases = [ring.stop() for ring in g.rings]
        self.assertEqual(bases[0], 0)
        g.fe.running = False
        g.fe.hold.set()
        time.sleep(0.1)
        g.fe.errors.clear()
        g.fe.reset_window()
        g.start()
        g.hello()
        g.expect_start()
        self.pair(g)

    def test_running_guest_reconnects(self):
        """A broker that was killed knows nothing of the agent in a guest that goes on: that is told to begin anew."""
        g = self.guest()
        self.pair(g)
        self.broker.proc.kill()
        self.broker.proc.wait()
        self.broker.start()
        old = g.fe
        g.fe = FrontEnd(self.broker)
        g.fe.mem[:] = old.mem[:]
        g.fe.handshake()
        g.fe.running = True
        old.close()
        g.fe.add_memory()
        for ring in g.rings:
            ring.fe = g.fe
            base = ring.used_idx
            ring.close()
            ring.start(base=base, enable=False)
        for ring in g.rings:
            ring.enable()
        self.assertIn(b"start anew", g.expect(peers.REFUSE)[3])
        g.hello()
        g.expect_start()
        g.channels = {}
        self.pair(g)

    def test_second_vm(self):
        g = self.guest()
        fe = self.front_end()
        with self.assertRaises((Closed, ConnectionError)):
            fe.ask_u64(frontend.GET_FEATURES)
        self.assertEqual(g.sync(), [])

    def test_old_qemu(self):
        """A front end without SHMEM: the link never comes up, and the log says why."""
        fe = self.front_end()
        fe.ask_u64(frontend.GET_FEATURES)
        fe.send(frontend.SET_PROTOCOL_FEATURES, struct.pack("<Q", 1 << frontend.P_MQ))
        wait_for(lambda: "qemu-patches" in self.broker.read_log())

    def test_new_call_fd(self):
        """Another interrupt eventfd for a doorbell: the process that has the slot is told."""
        g = self.guest()
        c, ch = self.pair(g)
        new = os.eventfd(0)
        g.fe.send(frontend.SET_VRING_CALL, struct.pack("<Q", 2 + ch["slot"] - 1), [new])
        incarnation, fds = c.event()
        self.assertEqual((incarnation, len(fds)), (1, 2))
        os.eventfd_write(fds[0], 1)
        self.assertEqual(os.eventfd_read(new), 1)
        # Thousands of them are not thousands of events for a process that does not look.
        for _ in range(3000):
            g.fe.send(frontend.SET_VRING_CALL, struct.pack("<Q", 2 + ch["slot"] - 1), [new])
        self.assertEqual(g.sync(), [])
        self.assertEqual(self.broker.status()["channels_used"], 1)
        while True:
            try:
                for fd in c.event(0.2)[1]:
                    os.close(fd)
            except TimeoutError:
                break
        self.assertEqual(c.more_tickets(1)[0], 0)
        os.close(new)


class Restart(Case):
    def restarts(self):
        try:
            return self.broker.status()["broker"]["restarts"]
        except (ConnectionError, ValueError):
            return -1

    def restart(self, n):
        self.assertTrue(self.broker.ctl("restart")["ok"])
        wait_for(lambda: self.restarts() == n)

    def test_restart(self):
        g = self.guest()
        c, ch = self.pair(g, tickets=2)
        wait_for(lambda: self.broker.status()["device"]["mapped"] == 6)  # state region, session, pool
        requests = len(g.fe.requests)
        for n in range(1, 4):
            self.restart(n)
            # The connection to QEMU, the rings, the session are as they were.
            self.assertEqual(g.sync(), [])
            self.assertEqual(c.more_tickets(1)[0], 0)
            os.close(c.tickets.pop(list(c.tickets)[0]))
            self.assertEqual(len(g.expect_release()), 1)
        self.assertEqual(len(g.fe.requests), requests)
        d, ch2 = self.pair(g)
        self.assertNotEqual(ch2["session"], ch["session"])
        c.close()
        g.collect(peers.DETACH)
        wait_for(lambda: len(self.broker.status()["channels"]) == 1)
        self.assertEqual(g.fe.errors, [])

    def test_calls_go_on(self):
        """Restarts while a process and its agent exchange doorbells as fast as they can."""
        g = self.guest()
        c, ch = self.pair(g)
        stop = threading.Event()
        count = [0]

        def agent():
            while not stop.is_set():
                if frontend.select.select([ch["fds"][1]], [], [], 0.2)[0]:
                    os.eventfd_read(ch["fds"][1])
                    os.eventfd_write(ch["fds"][2], 1)

        def program():
            os.eventfd_read(c.fds[2])
            while not stop.is_set():
                os.eventfd_write(c.fds[1], 1)
                if not frontend.select.select([c.fds[2]], [], [], 5)[0]:
                    return
                os.eventfd_read(c.fds[2])
                count[0] += 1

        threads = [threading.Thread(target=f) for f in (agent, program)]
        for t in threads:
            t.start()
        for n in range(1, 6):
            before = count[0]
            self.restart(n)
            wait_for(lambda: count[0] > before)
        before = count[0]
        wait_for(lambda: count[0] > before)
        stop.set()
        for t in threads:
            t.join()

    def test_message_during_restart(self):
        g = self.guest()
        self.broker.ctl("restart")
        self.assertEqual(g.sync(), [])
        self.broker.ctl("restart")
        c = self.client()
        c.request()
        g.expect_attach()
        self.assertEqual(c.reply()["status"], peers.OK)

    def test_not_while_mapping(self):
        """A restart waits for the answer to a SHMEM_MAP."""
        g = self.guest()
        wait_for(lambda: self.broker.status()["device"]["mapped"] >= 5)
        g.fe.hold.clear()
        c, _ = self.pair(g)
        self.broker.ctl("restart")
        time.sleep(0.3)
        self.assertEqual(self.restarts(), 0)
        g.fe.hold.set()
        wait_for(lambda: self.restarts() == 1)
        self.assertEqual(c.more_tickets(1)[0], 0)


class HostileFrontEnd(Case):
    """Malformed vhost-user messages end the connection and nothing else."""

    def expect_end(self, fe):
        fe.sock.settimeout(5)
        with self.assertRaises((Closed, ConnectionError)):
            while True:
                fe.read(fe.sock, 1)

    def test_messages(self):
        before = self.broker.fds()
        null = os.open("/dev/null", os.O_RDWR)
        f = frontend
        q = peers.CHANNELS + 2
        region = struct.pack("<QQQQ", GPA, MEMORY, UVA, 0)
        wrap = struct.pack("<QQQQ", 2**64 - 4096, MEMORY, UVA, 0)
        cases = [
            lambda fe: fe.send(f.GET_FEATURES, flags=0),
            lambda fe: fe.send(f.GET_FEATURES, flags=2),
            lambda fe: fe.send(f.GET_FEATURES, size=2**32 - 1),
            lambda fe: fe.send(f.GET_FEATURES, size=4097),
            lambda fe: fe.send(f.SET_FEATURES, b"x"),
            lambda fe: fe.send(f.SET_FEATURES, struct.pack("<Q", 1 << 28)),
            lambda fe: fe.send(f.SET_PROTOCOL_FEATURES, struct.pack("<Q", 1 << 12)),
            lambda fe: fe.send(f.SET_MEM_TABLE),
            lambda fe: fe.send(f.SET_MEM_TABLE, struct.pack("<II", 1, 0) + region),
            lambda fe: fe.send(f.SET_MEM_TABLE, struct.pack("<II", 9, 0) + region * 9, [null] * 8),
            lambda fe: fe.send(f.SET_MEM_TABLE, struct.pack("<II", 2, 0) + region * 2, [null] * 2),
            lambda fe: fe.send(f.SET_MEM_TABLE, struct.pack("<II", 1, 0) + wrap, [null]),
            lambda fe: fe.send(f.SET_MEM_TABLE, struct.pack("<II", 1, 0), [null]),
            lambda fe: fe.send(f.SET_MEM_TABLE, struct.pack("<II", 1, 0) + region, [null] * 9),
            lambda fe: fe.send(f.SET_MEM_TABLE, struct.pack("<II", 1, 0) + region, [null] * 100),
            lambda fe: fe.send(f.ADD_MEM_REG, region, [null]),
            lambda fe: fe.send(f.ADD_MEM_REG, bytes(8) + bytes(32), [null]),
            lambda fe: fe.send(f.REM_MEM_REG, bytes(8) + region),
            lambda fe: fe.send(f.SET_VRING_NUM, struct.pack("<II", q, 2)),
            lambda fe: fe.send(f.SET_VRING_NUM, struct.pack("<II", 0, 3)),
            lambda fe: fe.send(f.SET_VRING_NUM, struct.pack("<II", 0, 0)),
            lambda fe: fe.send(f.SET_VRING_NUM, struct.pack("<II", 0, 2048)),
            lambda fe: fe.send(f.SET_VRING_NUM, struct.pack("<II", 2**32 - 1, 2)),
            lambda fe: fe.send(f.SET_VRING_ADDR, struct.pack("<IIQQQQ", q, 0, 0, 0, 0, 0)),
            lambda fe: fe.send(f.SET_VRING_ADDR, bytes(39)),
            lambda fe: fe.send(f.SET_VRING_BASE, struct.pack("<II", 0, 65536)),
            lambda fe: fe.send(f.GET_VRING_BASE, struct.pack("<II", q, 0)),
            lambda fe: fe.send(f.SET_VRING_KICK, struct.pack("<Q", q), [null]),
            lambda fe: fe.send(f.SET_VRING_KICK, struct.pack("<Q", 0)),
            lambda fe: fe.send(f.SET_VRING_KICK, struct.pack("<Q", 0x100), [null]),
            lambda fe: fe.send(f.SET_VRING_CALL, struct.pack("<Q", 0), [null] * 2),
            lambda fe: fe.send(f.SET_VRING_ENABLE, struct.pack("<II", 0, 2)),
            lambda fe: fe.send(f.SET_BACKEND_REQ_FD),
            lambda fe: fe.send(f.SET_BACKEND_REQ_FD, fds=[os.open("/dev/null", os.O_RDONLY)]),
            lambda fe: fe.send(f.SET_OWNER, fds=[null] * 20),
        ]
        for n, case in enumerate(cases):
            with self.subTest(n):
                fe = FrontEnd(self.broker)
                case(fe)
                self.expect_end(fe)
                fe.close()
        os.close(null)
        self.broker.wait_status(state="down")
        wait_for(lambda: self.broker.fds() <= before)
        self.guest()

    def test_unknown_request(self):
        fe = self.front_end()
        fe.handshake()
        self.assertEqual(fe.tell(99, b"abc"), 1)
        self.assertEqual(fe.ask_u64(frontend.GET_QUEUE_NUM), peers.CHANNELS + 2)

    def test_slow_messages(self):
        """Byte by byte, and two in one packet."""
        fe = self.front_end()
        msg = frontend.HDR.pack(frontend.SET_FEATURES, 1, 8) + struct.pack("<Q", frontend.F_VERSION_1)
        for byte in msg:
            fe.sock.sendall(bytes([byte]))
            time.sleep(0.002)
        fe.sock.sendall(msg + frontend.HDR.pack(frontend.GET_QUEUE_NUM, 1, 0))
        self.assertEqual(struct.unpack("<Q", fe.reply(frontend.GET_QUEUE_NUM))[0], peers.CHANNELS + 2)

    def test_wrong_answers(self):
        """Garbage on the back-end channel."""
        for answer in (b"\0" * 20, frontend.HDR.pack(9, 1, 8) + bytes(8), frontend.HDR.pack(9, 5, 4) + bytes(8),
                       frontend.HDR.pack(10, 5, 8) + bytes(8)):
            with self.subTest(answer):
                g = Guest(self.broker, hello=False, start=False)
                g.fe.hold.clear()
                g.start()
                g.fe.backend.sendall(answer)
                self.expect_end(g.fe)
                g.close()
                self.broker.wait_status(state="down")

    def test_answer_without_request(self):
        g = self.guest()
        wait_for(lambda: self.broker.status()["device"]["mapped"] >= 5)
        g.fe.backend.sendall(frontend.HDR.pack(9, 5, 8) + bytes(8))
        self.expect_end(g.fe)

    def test_random_messages(self):
        seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
        rnd = random.Random(seed)
        null = os.open("/dev/null", os.O_RDWR)
        print("random vhost-user messages: SEED=%d" % seed)
        for _ in range(150):
            fe = FrontEnd(self.broker)
            try:
                for _ in range(20):
                    body = bytes(rnd.choice((0, 0, 0, 1, 2, 8, 0xff)) for _ in range(rnd.choice((0, 8, 8, 8, 16, 40, 72))))
                    fds = [rnd.choice((null, fe.memfd)) for _ in range(rnd.choice((0, 0, 1, 1, 2)))]
                    fe.send(rnd.randrange(48), body, fds, rnd.choice((1, 1, 1, 9)))
            except OSError:
                pass
            fe.close()
        os.close(null)
        self.broker.wait_status(state="down")
        self.guest()


class HostileGuest(Case):
    """Broken rings and messages: the agent is cut off, everybody else goes on."""

    def cut_off(self, g, why):
        wait_for(lambda: why in self.broker.status()["why"])
        self.assertEqual(self.broker.status()["state"], "starting")

    def test_bad_messages_then_hello(self):
        g = self.guest()
        c, ch = self.pair(g)
        incarnation = 1
        for raw in (b"x", bytes(16), peers.MSG_HDR.pack(1, 0, 16, 0, 0), peers.MSG_HDR.pack(2, 0, 24, 0, 0) + bytes(7),
                    peers.MSG_HDR.pack(99, 0, 16, 0, 0), bytes(4096)):
            with self.subTest(raw):
                g.send_raw(raw)
                self.assertEqual(c.event()[0], 0)
                self.cut_off(g, "malformed")
                # It is not heard until it begins anew.
                g.send(peers.SYNC)
                with self.assertRaises(TimeoutError):
                    g.recv(0.1)
                g.hello()
                g.expect_start()
                incarnation += 1
                self.assertEqual(g.incarnation, incarnation)
                self.assertEqual(g.expect_attach()["session"], ch["session"])
                self.assertEqual(c.event()[0], incarnation)

    def test_broken_rings(self):
        f = frontend

        def loop(r):
            r.put_desc(0, GPA, 1, f.DESC_NEXT, 1)
            r.put_desc(1, GPA, 1, f.DESC_NEXT, 0)
            r.offer(0)

        def far(r):
            r.put_desc(0, GPA, 1, f.DESC_NEXT, 64)
            r.offer(0)

        def jump(r):
            r.avail_idx += 1000
            r.offer(0)

        def indirect(r):
            r.put_desc(0, GPA, 16, f.DESC_INDIRECT)
            r.offer(0)

        def outside(r):
            r.put_desc(0, GPA + MEMORY - 8, 16)
            r.offer(0)

        def nowhere(r):
            r.put_desc(0, 2**64 - 8, 16)
            r.offer(0)

        def long(r):
            r.put_desc(0, GPA, 4097)
            r.offer(0)

        def huge(r):
            r.put_desc(0, GPA, 2**32 - 1, f.DESC_NEXT, 1)
            r.put_desc(1, GPA, 2**32 - 1)
            r.offer(0)

        def head(r):
            r.offer(64)

        def empty(r):
            r.put_desc(0, GPA, 0)
            r.offer(0)

        def unreadable(r):
            r.put_desc(0, GPA, 100, f.DESC_WRITE)
            r.offer(0)

        for case in (loop, far, jump, indirect, outside, nowhere, long, huge, head, empty, unreadable):
            with self.subTest(case.__name__):
                g = Guest(self.broker)
                c, _ = attach_pair(self.broker, g)
                case(g.control)
                g.control.kick()
                self.cut_off(g, "cut off")
                self.assertEqual(c.event()[0], 0)
                # A reset cures it.
                g.reset()
                g.start()
                g.hello()
                g.expect_start()
                g.expect_attach()
                c.event()
                g.close()
                c.close()
                self.broker.wait_status(channels=[])

    def test_eventq_buffers(self):
        f = frontend
        for length, flags, addr in ((8, f.DESC_WRITE, None), (4096, 0, None), (4096, f.DESC_WRITE, 2**63),
                                    (0, f.DESC_WRITE, None)):
            with self.subTest((length, flags)):
                g = Guest(self.broker, hello=False)
                for i in range(64):
                    g.event.put_desc(i, addr or GPA + g.event.buffer(i), length, flags)
                g.hello()
                self.cut_off(g, "cut off")
                g.close()
                self.broker.wait_status(state="down")

    def test_eventq_never_filled(self):
        """A guest that asks and never listens is cut off when 16,384 answers wait."""
        g = self.guest()
        msg = peers.MSG_HDR.pack(peers.SYNC, 0, 16, 1, 0)
        ring = g.control
        g.fe.mem[ring.buffer(0):ring.buffer(0) + 16] = msg
        for i in range(64):
            ring.put_desc(i, GPA + ring.buffer(0), 16)
        for _ in range(300):
            for i in range(64):
                ring.offer(i)
            ring.kick()
            for i in range(64):
                ring.wait_used()
        self.cut_off(g, "does not take its messages")

    def test_rings_outside_memory(self):
        g = self.guest(hello=False, start=False)
        g.fe.add_memory()
        for i in (0, 1):
            fe = g.fe
            fe.send(frontend.SET_VRING_NUM, struct.pack("<II", i, 64))
            fe.send(frontend.SET_VRING_ADDR, struct.pack("<IIQQQQ", i, 0, UVA + MEMORY - 16, UVA - 4, 2**64 - 2, 0))
            fe.send(frontend.SET_VRING_KICK, struct.pack("<Q", i), [os.eventfd(1)])
            fe.running = True
        for i in (0, 1):
            g.fe.tell(frontend.SET_VRING_ENABLE, struct.pack("<II", i, 1))
        self.assertEqual(self.broker.status()["state"], "starting")

    def test_memory_shrinks(self):
        """A front end that takes its memory away under the broker."""
        g = self.guest()
        os.ftruncate(g.fe.memfd, 0)
        os.eventfd_write(g.control.kick_fd, 1)
        self.cut_off(g, "cut off")
        os.ftruncate(g.fe.memfd, MEMORY)

    def test_random_rings(self):
        seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
        rnd = random.Random(seed)
        print("random rings: SEED=%d" % seed)
        for _ in range(100):
            g = Guest(self.broker, hello=rnd.random() < 0.7)
            for _ in range(10):
                ring = rnd.choice((g.control, g.event))
                size = ring.buffers - ring.desc
                for _ in range(rnd.randrange(1, 40)):
                    g.fe.mem[ring.desc + rnd.randrange(size)] = rnd.randrange(256)
                ring.kick()
            g.close()
        self.broker.wait_status(state="down")
        self.guest()


if __name__ == "__main__":
    unittest.main(verbosity=1)
