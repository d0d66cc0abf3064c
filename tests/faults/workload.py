# SPDX-License-Identifier: BSD-3-Clause
"""What a workload is: something that runs on a domain while it is killed, and then knows whether all is as it was promised.

run() is called in a thread of its own and goes on until `stop` is set; then verify() is called, with nothing being killed any
more. Both raise Failure. What the programs under scrun acknowledge comes by pipes, which the host's kernel serves.
"""
import os
import select
import subprocess
import threading
import time

import lab

HANG_SECONDS = 90  # longer than any pause: a call that takes so long hangs


class Failure(Exception):
    """The guarantee was broken; the text says how."""


class Workload:
    name = ""
    about = ""
    needs = ()  # programs
    role = "storage"

    def __init__(self, domain, rng):
        self.domain, self.rng = domain, rng
        self.stop = threading.Event()
        self.restarted = threading.Event()  # set after each restart
        self.acknowledged = 0
        self.dir = domain.place + "/" + self.name

    @classmethod
    def missing(cls):
        return [p for p in cls.needs if lab.run(["sh", "-c", "command -v " + p]).returncode]

    def prepare(self):
        """Before anything is killed."""
        self.call("mkdir", "-p", self.dir)

    def run(self):
        raise NotImplementedError

    def verify(self):
        """At the end, served by the last incarnation."""

    def end(self):
        """Ends what may still run."""

    def describe(self):
        return "%d acknowledged" % self.acknowledged

    # help

    def spawn(self, *argv, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("stdout", subprocess.PIPE)
        kw.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen(self.domain.scrun(*argv), env=dict(self.domain.env, **kw.pop("env", {})), preexec_fn=kw.pop("preexec_fn",
                                lab.die_with_parent), **kw)

    def call(self, *argv, timeout=HANG_SECONDS, **kw):
        """Runs a program under scrun to its end; it has to succeed. Returns its output."""
        p = self.spawn(*argv, **kw)
        try:
            out, err = p.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            out, err = p.communicate()
            raise Failure("%s: hangs (%d s)\n%s%s" % (" ".join(argv)[:200], timeout, text(out), text(err))) from None
        if p.returncode:
            raise Failure("%s: status %d\n%s%s" % (" ".join(argv)[:200], p.returncode, text(out)[-2000:], text(err)[-2000:]))
        return text(out)


def text(b):
    return b.decode(errors="replace") if isinstance(b, bytes) else b or ""


class Lines:
    """Lines from a descriptor, with a deadline."""

    def __init__(self, fd):
        self.fd, self.buf = fd, b""

    def pop(self):
        """A line that is there already, or None."""
        line, sep, rest = self.buf.partition(b"\n")
        if not sep:
            return None
        self.buf = rest
        return line.decode()

    def fill(self):
        """False at the end of the file."""
        b = os.read(self.fd, 1 << 16)
        self.buf += b
        return bool(b)

    def get(self, seconds):
        """The next line; "" at the end of the file; None: out of time."""
        end = time.monotonic() + seconds
        while True:
            line = self.pop()
            if line is not None:
                return line
            if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                return None
            if not self.fill():
                return ""
