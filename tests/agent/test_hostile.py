#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A hostile process: random slots, indices, bitmaps and depths from a seed. The agent survives, nothing outside of the
export changes, and another channel on the same poller goes on working in time.

    test_hostile.py [--seed N] [--rounds N]
"""
import argparse
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import time

from harness import Agent, LANE_BUF, OP, PAGE


def interesting(rng, ch, handles):
    """A 64-bit number that may mean something."""
    return rng.choice([
        lambda: 0, lambda: 1, lambda: rng.randrange(64), lambda: rng.choice(handles), lambda: rng.getrandbits(32),
        lambda: rng.getrandbits(64), lambda: 2**63 - 1, lambda: 2**64 - 1, lambda: 2**63, lambda: 2**32 - 1,
        lambda: ch.arena + rng.randrange(4 * LANE_BUF), lambda: 1 << rng.randrange(64), lambda: ch.size - rng.randrange(64),
        lambda: rng.randrange(1 << 20), lambda: ch.session << 32 | rng.randrange(1, 50)])()


def random_slot(rng, ch, handles):
    n = lambda: interesting(rng, ch, handles)
    op = rng.choice(list(OP.values())) if rng.random() < 0.97 else rng.getrandbits(16)
    if op == OP["SYNCALL"] and rng.random() < 0.9:
        op = OP["READ"]  # writing back the whole file system takes its time
    if rng.random() < 0.7:  # plausible buffers, so that it gets further
        buf, length = ch.arena + rng.randrange(0, LANE_BUF, 8), rng.choice([0, 1, 3, 5, 32, 144, 255, 4095, 4096, 60000])
        buf2, len2 = ch.arena + rng.randrange(0, LANE_BUF, 8), rng.choice([0, 1, 3, 5, 24, 88, 144, 4096])
    else:
        buf, length, buf2, len2 = (n() & 0xffffffff for _ in range(4))
    handle = rng.choice(handles) if rng.random() < 0.8 else n()
    flags = rng.choice([0, 0, 0, 1, 2, 3, rng.getrandbits(16)])
    arg0 = n()
    if op == OP["OPEN"]:
        arg0 = rng.choice([0, 1, 2, 0o101, 0o102, 0o1102, 0o200000, 0o10000000]) | rng.choice([0o644, 0o777]) << 32
    return struct.pack("<HHIQQIIIIQQQ", op, flags, rng.getrandbits(32), handle, n(), buf, length, buf2, len2, arg0, n(), n())


def random_arena(rng, ch):
    """Fills the first buffers with paths and rubbish."""
    text = b""
    while len(text) < LANE_BUF:
        text += rng.choice([b"a", b"b", b"dir", b"..", b".", b"/", b"../../../etc/passwd", b"/etc", b"l", rng.randbytes(3),
                            b"dir/sub/x", b"/proc/self/mem", b"a/b/c"]).ljust(rng.choice([1, 3, 8]), b"/")
    ch.put(ch.arena, text[:LANE_BUF])


def rude_lane(rng, ch, lane):
    """Writes nonsense into a lane's own words."""
    off = ch.lane_off(lane)
    kind = rng.randrange(7)
    if kind == 0:
        ch.set_u32(off, rng.getrandbits(32))  # tail
    elif kind == 1:
        ch.set_u32(off + 68, rng.choice([0, 9, 31, 255, 2**32 - 1]))  # depth
    elif kind == 2:
        ch.set_u32(off + 128, rng.getrandbits(32))  # done is the agent's
    elif kind == 3:
        ch.set_u32(off + 192, rng.getrandbits(32))  # so is head
    elif kind == 4:
        ch.set_u32(off + 64, rng.getrandbits(1))  # asleep
    elif kind == 5:
        ch.put(PAGE, rng.randbytes(128))  # the guest's page
    else:
        ch.put(0, rng.randbytes(112))  # the copy of the layout
    ch.quads[24 + lane // 64] ^= 1 << lane % 64
    ch.set_u32(128, ch.u32(128) + 1)


def attack(rng, ch, handles):
    lane = rng.randrange(ch.nlanes)
    off = ch.lane_off(lane)
    if rng.random() < 0.1:
        rude_lane(rng, ch, lane)
        return
    log2 = rng.randrange(1, 9)
    ch.set_u32(off + 68, log2)
    ch.quads[24 + lane // 64] |= 1 << lane % 64
    ch.set_u32(128, ch.u32(128) + 1)
    n = rng.randrange(1, 1 + (1 << log2))
    tail = ch.u32(off)
    for i in range(1 << log2):
        ch.put(ch.slots_off + (lane * ch.entries + i) * 64, random_slot(rng, ch, handles))
    ch.set_u32(off, tail + n)
    ch.ring()
    for _ in range(rng.randrange(3)):  # changes under the agent's hands
        ch.put(ch.slots_off + (lane * ch.entries + rng.randrange(1 << log2)) * 64, random_slot(rng, ch, handles))
        random_arena(rng, ch)


def check_outside(outside):
    for name, data in (("secret", b"secret"), ("dir/x", b"x")):
        with open(os.path.join(outside, name), "rb") as f:
            assert f.read() == data, name + " outside of the export was changed"
    assert sorted(os.listdir(outside)) == ["dir", "export", "secret"], "files appeared outside of the export"


def rubbish_messages(rng, agent):
    """What the broker would not send. The agent ignores it."""
    for _ in range(50):
        body = rng.randbytes(rng.choice([0, 1, 8, 16, 100, 1128, 2000]))
        typ = rng.choice([0, 1, 7, 35, 36, 37, 40, 41, 42, 99, rng.getrandbits(16)])
        length = rng.choice([16 + len(body), rng.getrandbits(32), 0])
        agent.send_raw(struct.pack("<HHIII", typ, 0, length, rng.getrandbits(32), rng.choice([0, 1, 5, rng.getrandbits(32)])) + body)
        agent.pump(0)


def run(seed, rounds):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="sc-hostile.") as outside:
        os.chmod(outside, 0o777)
        os.makedirs(outside + "/export/dir/sub")
        os.mkdir(outside + "/dir")
        for name, data in (("secret", b"secret"), ("dir/x", b"x")):
            with open(os.path.join(outside, name), "wb") as f:
                f.write(data)
        os.symlink("../secret", outside + "/export/l")
        for d, _, _ in os.walk(outside + "/export"):
            os.chmod(d, 0o777)
        slowest = 0
        with Agent(outside + "/export", pollers=1, args=["--log-level", "error"]) as agent:
            good = agent.attach()
            root = good.root()
            h = good.open(root, "good", os.O_RDWR | os.O_CREAT, 0o600, secret=rng.getrandbits(64) | 1)
            user = (1001, 1001) if os.geteuid() == 0 else (None, None)
            bad = None
            for i in range(rounds):
                if not bad:
                    bad = agent.attach(*user)
                    handles = [x for x in (bad.root(), bad.open(bad.root(), "dir"), bad.root("dir"),
                                           bad.open(bad.root(), "mine", os.O_RDWR | os.O_CREAT, 0o600)) if x > 0] + [h, root]
                    random_arena(rng, bad)
                attack(rng, bad, handles)
                if i % 10 == 0:
                    t = time.monotonic()
                    assert good.call("NOP", arg0=i) == i
                    data = b"%d" % i
                    put, got = good.write(h, data, 0), good.read(h, len(data), 0)
                    assert (put, got) == (len(data), data), "round %d: wrote %r, read %r instead of %r" % (i, put, got, data)
                    slowest = max(slowest, time.monotonic() - t)
                    agent.pump(0)
                if i % 200 == 199:
                    assert agent.detach(bad, 60) == 0
                    bad = None
                if i % 500 == 0:
                    rubbish_messages(rng, agent)
                    check_outside(outside)
            assert agent.proc.poll() is None
            if bad:
                agent.detach(bad, 60)
        check_outside(outside)
        return slowest


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, default=int(os.environ.get("SC_SEED", random.randrange(1 << 30))))
    ap.add_argument("--rounds", type=int, default=1500)
    args = ap.parse_args()
    print("seed %d, %d rounds" % (args.seed, args.rounds), flush=True)
    print("the other channel's slowest three calls took %.1f ms" % (1000 * run(args.seed, args.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
