# SPDX-License-Identifier: BSD-3-Clause
"""Segments: memory that belongs to tickets. For a loopback agent and for a VM alike: the test class that uses this has
broker, agent(features=...) and client()."""

import array
import errno
import fcntl
import os
import socket

import peers
from peers import Client, F_RECOVERY, F_SEGMENTS, wait_for

KIB, MIB = 1 << 10, 1 << 20
OWN = 4 * MIB


class SegmentTests:
    def start(self):
        """An agent that has taken its own segment, and a client with two tickets."""
        a = self.agent(features=F_SEGMENTS)
        own = self.take(a)
        self.assertEqual((own[1], own[3]), (0, OWN))
        c, _ = self.pair(a, tickets=2)
        return a, c, list(c.tickets.items())

    def take(self, a, **kw):
        s = a.expect_segment(**kw)
        self.addCleanup(os.close, s[4])
        return s

    def make(self, a, c, ticket_fd, size):
        c.ask_segment(ticket_fd, size)
        s = self.take(a)
        status, got, ticket, fd = c.segment()
        self.addCleanup(os.close, fd)
        self.assertEqual((status, got, ticket), (0, size, s[1]))
        return s, fd

    def ask(self, c, ticket_fd, size=0):
        c.ask_segment(ticket_fd, size)
        status, _, _, fd = c.segment()
        if fd is not None:
            os.close(fd)
        return status

    def used(self):
        return self.broker.status()["segments"]

    def kept(self, a, last=True):
        """Takes the own segments; the last one only if `last`."""
        own = [self.take(a, answer=False) for _ in range(3)]
        for s in own[:3 if last else 2]:
            a.taken(s)
        return own

    def test_own_are_kept_and_come_first(self):
        """What an agent wrote into its own segments the next one finds; sessions come when it has taken them all."""
        a = self.agent(features=F_SEGMENTS | F_RECOVERY)
        self.assertEqual(a.own, 7)
        own = self.kept(a)
        self.assertEqual([s[1] for s in own], [0, 1, 2])
        self.assertEqual(a.expect(peers.RESUMED)[3], b"")
        c, ch = self.pair(a, tickets=2)
        (number, fd), (gone, gone_fd) = c.tickets.items()
        os.pwrite(own[1][4], b"state", 5000)
        os.pwrite(own[2][4], b"log", 5000)
        self.make(a, c, fd, 64 * KIB)
        b = self.agent_anew(a)
        self.assertEqual(c.event()[0], 0)
        os.close(gone_fd)
        c.tickets.pop(gone)
        b.hello(features=F_SEGMENTS | F_RECOVERY)
        b.expect_start()
        again = self.kept(b, last=False)
        self.assertEqual([s[:4] for s in again], [s[:4] for s in own])
        self.assertEqual(os.pread(again[1][4], 5, 5000), b"state")
        self.assertEqual(os.pread(again[2][4], 3, 5000), b"log")
        self.assertEqual(self.take(b)[1], number)  # the ticket's segment comes before any session
        # Nothing else, and nobody attaches, before the last of the own ones is taken.
        self.assertEqual(self.broker.status()["state"], "starting")
        other = self.client()
        other.request(wait_ms=30000)
        self.assertEqual(b.sync(), [])
        b.taken(again[2])
        attach = b.expect_attach(answer=False)
        self.assertEqual(attach["session"], ch["session"])
        self.assertEqual(b.expect_release(), [gone])
        new = b.expect_attach()
        self.assertEqual(other.reply()["session"], new["session"])
        self.assertEqual(b.sync(), [])  # RESUMED waits for the session that was
        b.attached(attach)
        b.expect(peers.RESUMED)

    def test_an_agent_that_cannot_keep(self):
        a = self.agent(features=F_SEGMENTS)
        self.assertEqual(a.own, 1)
        self.take(a)
        self.pair(a)
        self.assertEqual(a.sync(), [])

    def test_resumed_when_a_session_ends(self):
        """A session that dies instead of being attached does not hold RESUMED up."""
        a = self.agent(features=F_SEGMENTS | F_RECOVERY)
        self.kept(a)
        a.expect(peers.RESUMED)
        c, _ = self.pair(a)
        b = self.agent_anew(a)
        b.hello(features=F_SEGMENTS | F_RECOVERY)
        b.expect_start()
        self.kept(b)
        b.expect_attach(answer=False)
        c.close()
        self.assertLessEqual({peers.DETACH, peers.RESUMED}, b.collect(peers.DETACH, peers.RESUMED))

    def test_shared_by_all_holders(self):
        a, c, ((number, fd), _) = self.start()
        s, mine = self.make(a, c, fd, 64 * KIB)
        self.assertEqual((s[1], s[2] % s[3]), (number, 0))
        os.pwrite(mine, b"from the process", 100)
        self.assertEqual(os.pread(s[4], 16, 100), b"from the process")
        # Whoever holds the ticket has it, another process's session too.
        other = self.client()
        other.request()
        a.expect_attach()
        other.reply()
        other.ask_segment(fd)
        status, size, ticket, theirs = other.segment()
        self.addCleanup(os.close, theirs)
        self.assertEqual((status, size, ticket), (0, 64 * KIB, number))
        self.assertEqual(os.pread(theirs, 16, 100), b"from the process")

    def test_cannot_change_its_size(self):
        a, c, ((_, fd), _) = self.start()
        _, mine = self.make(a, c, fd, 64 * KIB)
        for size in (0, 4096, MIB):
            with self.assertRaises(PermissionError):
                os.ftruncate(mine, size)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
        self.assertEqual(fcntl.fcntl(mine, fcntl.F_GET_SEALS) & seals, seals)

    def test_ends_with_the_ticket(self):
        a, c, ((number, fd), _) = self.start()
        s, _ = self.make(a, c, fd, 128 * KIB)
        copy = os.dup(fd)
        os.close(fd)
        self.assertEqual(a.sync(), [])
        self.assertEqual(self.used(), 2)
        os.close(copy)
        c.tickets.pop(number)
        self.assertEqual(a.expect_release(), [number])
        self.assertEqual(a.expect_segment_end(), s[0])
        wait_for(lambda: self.used() == 1)

    def test_silent_agent_loses_it(self):
        a, c, ((number, fd), _) = self.start()
        self.make(a, c, fd, 128 * KIB)
        os.close(fd)
        c.tickets.pop(number)
        a.expect_release()
        a.expect_segment_end(answer=False)
        wait_for(lambda: self.used() == 1)

    def test_wrong_requests(self):
        a, c, ((_, fd), (_, fd2)) = self.start()
        self.assertEqual(self.ask(c, fd), errno.ENOENT)
        for size in (1, 4096, 96 * KIB, 32 * MIB, (1 << 64) - 1):
            self.assertEqual(self.ask(c, fd, size), errno.EINVAL)
        no_ticket, _peer = socket.socketpair()
        self.assertEqual(self.ask(c, no_ticket.fileno(), 64 * KIB), errno.EBADF)
        no_ticket.close()
        _peer.close()
        # What is there is answered with, whatever its size.
        self.make(a, c, fd2, 64 * KIB)
        self.assertEqual(self.ask(c, fd2, MIB), 0)
        # Not without a descriptor, nor before a session.
        stranger = self.client()
        stranger.ask_segment(fd2)
        with self.assertRaises(peers.Closed):
            stranger.segment()
        c.send(peers.SEGMENT_REQ, peers.SEGMENT_BODY.pack(0, 0, 0, 0))
        with self.assertRaises(peers.Closed):
            c.segment()

    def test_refused_by_the_agent(self):
        a, c, ((_, fd), _) = self.start()
        c.ask_segment(fd, 64 * KIB)
        self.take(a, status=-errno.ENOMEM)
        self.assertEqual(c.segment()[0], errno.EIO)
        a.expect_segment_end()
        wait_for(lambda: self.used() == 1)
        self.make(a, c, fd, 64 * KIB)

    def test_client_goes_while_it_is_made(self):
        a, c, ((_, fd), _) = self.start()
        c.ask_segment(fd, 64 * KIB)
        s = self.take(a, answer=False)
        # A second one cannot wait as well.
        other = Client(self.broker)
        other.request()
        a.expect_attach()
        other.reply()
        self.assertEqual(self.ask(other, fd, 64 * KIB), errno.EAGAIN)
        other.close()
        a.collect(peers.DETACH)
        c.close()
        seen = a.collect(peers.DETACH, peers.SEGMENT_END)
        self.assertIn(peers.RELEASE, seen)
        a.send(peers.SEGMENT_ENDED, array.array("i", [0, s[0]]).tobytes())
        wait_for(lambda: self.used() == 1)

    def test_next_incarnation(self):
        a, c, ((number, fd), (number2, fd2)) = self.start()
        _, mine = self.make(a, c, fd, 64 * KIB)
        self.make(a, c, fd2, 64 * KIB)
        os.pwrite(mine, b"kept", 0)
        b = self.agent_anew(a)
        # A ticket that went meanwhile takes its segment along.
        self.assertEqual(c.event()[0], 0)
        os.close(fd2)
        c.tickets.pop(number2)
        wait_for(lambda: self.used() == 2)
        b.hello(features=F_SEGMENTS)
        b.expect_start()
        got = [self.take(b) for _ in range(2)]
        self.assertEqual([s[1] for s in got], [0, number])
        self.assertEqual(os.pread(got[1][4], 4, 0), b"kept")
        self.assertEqual(self.ask(c, fd), 0)

    def test_restart_of_the_broker(self):
        a, c, ((number, fd), (_, fd2)) = self.start()
        s, mine = self.make(a, c, fd, 64 * KIB)
        os.pwrite(mine, b"kept", 0)
        self.assertTrue(self.broker.ctl("restart")["ok"])
        wait_for(lambda: self.broker.answers() and self.broker.status()["broker"]["restarts"] == 1)
        c.ask_segment(fd)
        status, size, _, again = c.segment()
        self.addCleanup(os.close, again)
        self.assertEqual((status, size, os.pread(again, 4, 0)), (0, 64 * KIB, b"kept"))
        s2, _ = self.make(a, c, fd2, 64 * KIB)
        self.assertNotEqual((s2[0], s2[2]), (s[0], s[2]))
        os.close(fd)
        c.tickets.pop(number)
        self.assertEqual(a.expect_release(), [number])
        self.assertEqual(a.expect_segment_end(), s[0])
