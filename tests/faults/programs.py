#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""programs.py - what the workloads of work_programs.py run under scrun. An ordinary program: it knows nothing of domains.

usage: programs.py WHAT DIRECTORY NUMBER (negative: only makes what all need)

Until standard input ends: does something, and reports it by a line on standard output when the calls that did it have returned.
"""
import errno
import os
import select
import sqlite3
import sys


def more():
    return not select.select([sys.stdin], [], [], 0)[0]


def report(line):
    os.write(1, (line + "\n").encode())


def won(function, *args):
    """True if the call made it, False if another was first."""
    try:
        function(*args)
        return True
    except FileExistsError:
        return False


def race(place, number):
    log = os.open(place + "/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    mine = "%s/tmp%d" % (place, number)
    n = 0
    while more():
        record = "%d.%d" % (number, n) + "x" * (n % 50)
        if os.write(log, (record + "\n").encode()) != len(record) + 1:
            raise OSError(errno.EIO, "short append")
        report("a " + record)
        kind = n % 4
        name = "%s/%s%d" % (place, "elmr"[kind], n)
        if kind == 0:
            got = won(lambda: os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)))
        elif kind == 1:
            os.close(os.open(mine, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            got = won(os.link, mine, name)
            os.unlink(mine)  # fails if it was there no more
        elif kind == 2:
            got = won(os.mkdir, name)
        else:
            os.mkdir(mine)
            os.rename(mine, name + ".%d" % number)
            got, name = True, name + ".%d" % number
        if got:
            report("w " + os.path.basename(name))
        n += 1


def database(place, number, *pragmas):
    c = sqlite3.connect(place + "/db", timeout=120, isolation_level=None)
    for p in pragmas:
        c.execute("pragma " + p).fetchall()
    c.execute("create table if not exists t(who, n, data)")
    if number < 0:
        return
    n = 0
    while more():
        c.execute("begin immediate")
        c.execute("insert into t values(?, ?, zeroblob(?))", ("p%d" % number, n, n * 37 % 5000))
        c.execute("commit")
        report("p%d.%d" % (number, n))
        n += 1
    c.close()


def sqlite(place, number):
    database(place, number, "journal_mode=" + "delete truncate persist".split()[number % 3])


def sqlite_wal(place, number):
    database(place, number, "journal_mode=wal", "synchronous=normal", "wal_autocheckpoint=50")


def sqlite_wal_one(place, number):
    database(place, number, "locking_mode=exclusive", "journal_mode=wal", "synchronous=normal", "wal_autocheckpoint=50")


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
