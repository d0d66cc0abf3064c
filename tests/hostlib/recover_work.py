# SPDX-License-Identifier: BSD-3-Clause
"""What recover.py runs natively and on a domain whose agent is killed all the time: the output must be the same.

usage: recover_work.py DIRECTORY PART TURNS

Nothing here depends on time or order: what processes do at once is made one after the other by the very locks, offsets and
descriptors that are tested.
"""
import fcntl
import mmap
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys


def say(*text):
    print(*text, flush=True)


def children(n, work):
    """Runs work(i) in n forked processes; their exit statuses."""
    pids = []
    for i in range(n):
        pid = os.fork()
        if not pid:
            try:
                work(i)
                os._exit(0)
            except BaseException as e:
                say("child", i, repr(e))
                os._exit(1)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def counter(turns):
    """A number in a file, incremented by several processes under record locks: none is lost, none counts twice."""
    with open("counter", "w", encoding="ascii") as f:
        f.write("%08d" % 0)

    def work(i):
        fd = os.open("counter", os.O_RDWR)
        for _ in range(turns):
            fcntl.lockf(fd, fcntl.LOCK_EX, 8, 0)
            n = int(os.pread(fd, 8, 0))
            os.pwrite(fd, b"%08d" % (n + 1), 0)
            fcntl.lockf(fd, fcntl.LOCK_UN, 8, 0)
    say(children(4, work), open("counter", encoding="ascii").read())


def flocks(turns):
    """The same with flock, whose owner is an open file that forked processes share."""
    fd = os.open("shared", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, b"%08d" % 0)

    def work(i):
        mine = os.open("shared", os.O_RDWR)
        for _ in range(turns):
            fcntl.flock(mine, fcntl.LOCK_EX)
            os.lseek(fd, 0, os.SEEK_SET)
            n = int(os.read(fd, 8))
            os.lseek(fd, -8, os.SEEK_CUR)
            os.write(fd, b"%08d" % (n + 1))
            fcntl.flock(mine, fcntl.LOCK_UN)
    say(children(3, work), os.pread(fd, 8, 0), os.lseek(fd, 0, os.SEEK_CUR))


def offsets(turns):
    """An offset that dup, fork and exec share: a pipe's token says whose turn it is."""
    fd = os.open("offsets", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    again = os.dup(fd)
    os.set_inheritable(again, True)
    r, w = os.pipe()
    for i in range(turns):
        os.write(fd, b"p%06d" % i)
        pid = os.fork()
        if not pid:
            os.write(again, b"c%06d" % i)
            os.write(w, b".")
            os._exit(0)
        os.read(r, 1)
        os.waitpid(pid, 0)
        if i % 5 == 0:
            subprocess.run(["sh", "-c", "printf x%06d $0 >&" + str(again), str(i)], pass_fds=[again], check=True)
    say(os.lseek(again, 0, os.SEEK_CUR), os.fstat(fd).st_size)
    os.lseek(fd, 0, os.SEEK_SET)
    text = b""
    while True:
        more = os.read(again, 100)
        if not more:
            break
        text += more
    want = b"".join(b"p%06d" % i + b"c%06d" % i + (b"x%06d" % i if i % 5 == 0 else b"") for i in range(turns))
    say(text == want, len(text))


def descriptors(turns):
    """Flags, directories that are read bit by bit, descriptors that travel, and the working directory."""
    os.makedirs("d/sub", exist_ok=True)
    for i in range(50):
        open("d/%02d" % i, "w", encoding="ascii").close()
    here = os.getcwd()
    ours, theirs = socket.socketpair()
    fd = os.open("d/00", os.O_RDWR | os.O_APPEND)
    for i in range(turns):
        os.chdir("d")
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags ^ os.O_NONBLOCK)
        socket.send_fds(ours, [b"x"], [fd])
        got = socket.recv_fds(theirs, 1, 1)[1][0]
        say(i, fcntl.fcntl(got, fcntl.F_GETFL) & (os.O_APPEND | os.O_NONBLOCK), os.getcwd() == here + "/d")
        os.close(got)
        names = []
        with os.scandir(".") as it:
            for e in it:
                names.append(e.name)
                if len(names) % 20 == 0:
                    os.stat(e.name)
        say(len(names), sorted(names)[:3], os.path.exists("sub/none"), os.access("00", os.R_OK))
        p = select.poll()
        p.register(fd, select.POLLIN)
        say(p.poll(0) == [(fd, select.POLLIN)], select.select([fd], [], [], 0)[0] == [fd])
        os.chdir("..")


def processes(turns):
    """Short processes, each of which attaches while the domain may be gone."""
    for i in range(turns):
        out = subprocess.run(["sh", "-c", "printf %s $0 > p && cat p && wc -c < p", str(i)], capture_output=True, check=False)
        say(out.returncode, out.stdout.split(), out.stderr)


def database(turns):
    """sqlite with its rollback journal and its locks, used by two processes."""
    for name in ("db", "db-journal"):
        if os.path.exists(name):
            os.unlink(name)
    db = sqlite3.connect("db", timeout=300)
    db.execute("create table t (p integer, n integer)")
    db.commit()
    db.close()

    def work(i):
        mine = sqlite3.connect("db", timeout=300, isolation_level=None)
        mine.execute("pragma synchronous=off")
        for n in range(turns):
            mine.execute("begin immediate")
            mine.execute("insert into t values (?, ?)", (i, n))
            mine.execute("commit")
        mine.close()
    say(children(2, work))
    db = sqlite3.connect("db", timeout=300)
    say(db.execute("select p, count(*), sum(n) from t group by p order by p").fetchall(),
        db.execute("pragma integrity_check").fetchall())


def interrupted(turns):
    """A wait for a lock that a signal ends, and one that the lock's owner ends."""
    fd = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
    for i in range(turns):
        fcntl.flock(fd, fcntl.LOCK_EX)
        r, w = os.pipe()

        def wait(_, r=r, w=w):
            class Alarm(Exception):
                pass

            def on_alarm(*_):
                raise Alarm
            os.close(w)
            mine = os.open("lock", os.O_RDWR)
            signal.signal(signal.SIGALRM, on_alarm)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            try:
                fcntl.flock(mine, fcntl.LOCK_EX)
                os._exit(3)
            except Alarm:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.read(r, 1)
            fcntl.flock(mine, fcntl.LOCK_EX)
        pid = os.fork()
        if not pid:
            try:
                wait(0)
                os._exit(0)
            except BaseException as e:
                say(repr(e))
                os._exit(1)
        os.close(r)
        os.write(w, b"x")
        os.close(w)
        fcntl.flock(fd, fcntl.LOCK_UN)
        say(i, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 3))


def names(turns):
    """Operations that must not happen twice, each of which would fail or show if it did."""
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o600)

    def work(i):
        mine = "n%d" % i
        for n in range(turns):
            os.mkdir(mine)
            fd = os.open(mine + "/a", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, b"x" * 100)
            os.rename(mine + "/a", mine + "/b")
            os.link(mine + "/b", mine + "/c")
            os.symlink("c", mine + "/d")
            os.ftruncate(fd, 50)
            os.setxattr(fd, "user.n", b"%d" % n, os.XATTR_CREATE)
            os.unlink(mine + "/b")
            if os.fstat(fd).st_size != 50 or os.fstat(fd).st_nlink != 1 or os.getxattr(mine + "/d", "user.n") != b"%d" % n:
                raise ValueError("turn %d: %r" % (n, os.fstat(fd)))
            os.unlink(mine + "/c")
            os.unlink(mine + "/d")
            if os.pread(fd, 100, 0) != b"x" * 50:
                raise ValueError("unlinked, and not what was written")
            os.close(fd)
            os.rmdir(mine)
            os.write(log, b"%d" % i)
    say(children(2, work), os.path.exists("n0") or os.path.exists("n1"))
    text = open("log", "rb").read()
    say(text.count(b"0"), text.count(b"1"), len(text))


def mapped(turns):
    """Memory of a file that processes share, and the file itself, say the same."""
    with open("mapped", "wb") as f:
        f.truncate(3 * 4096)
    lock = os.open("mapped.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def work(i):
        fd = os.open("mapped", os.O_RDWR)
        m = mmap.mmap(fd, 3 * 4096)
        mine = os.open("mapped.lock", os.O_RDWR)
        for n in range(turns):
            fcntl.flock(mine, fcntl.LOCK_EX)
            m[4096:4104] = b"%08d" % (int(m[4096:4104].strip(b"\0") or b"0") + 1)
            fcntl.flock(mine, fcntl.LOCK_UN)
            m[100 * i:100 * i + 8] = b"%08d" % n
            if n % 50 == 0:
                m.flush()
                if os.pread(fd, 8, 100 * i) != b"%08d" % n:
                    raise ValueError("the file has not what was stored")
                os.pwrite(fd, b"%08d" % n, 8192 + 100 * i)
                if m[8192 + 100 * i:8200 + 100 * i] != b"%08d" % n:
                    raise ValueError("the mapping has not what was written")
    say(children(3, work))
    os.close(lock)
    say(open("mapped", "rb").read().replace(b"\0", b""))


def wal(turns):
    """sqlite with a write-ahead log, whose index is memory that its processes share."""
    db = sqlite3.connect("wal.db", timeout=300)
    db.execute("pragma journal_mode=wal").fetchall()
    db.execute("create table t (p integer, n integer)")
    db.commit()
    db.close()

    def work(i):
        mine = sqlite3.connect("wal.db", timeout=300, isolation_level=None)
        for n in range(turns):
            mine.execute("begin immediate")
            mine.execute("insert into t values (?, ?)", (i, n))
            mine.execute("commit")
            if n % 10 == 0:
                mine.execute("pragma wal_checkpoint").fetchall()
        mine.close()
    say(children(2, work))
    db = sqlite3.connect("wal.db", timeout=300)
    say(db.execute("select p, count(*), sum(n) from t group by p order by p").fetchall(),
        db.execute("pragma integrity_check").fetchall())


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    globals()[sys.argv[2]](int(sys.argv[3]))
