# SPDX-License-Identifier: BSD-3-Clause
"""Random file operations by several processes, each result compared with a shadow tree.

The checker chooses an operation for a worker that is idle (fileops.py, under scrun), and notes which files and directories it
will touch; other workers get only what does not touch the same meanwhile, so that there is one right result for each. When the
worker reports its result, the checker executes the same operation natively on the shadow tree, and both results must be equal:
value or errno, data by its hash, attributes. An operation that a crash interrupts is simply one that takes longer; that it was
executed twice, or not at all, shows in its result (O_EXCL, rename, append, positions) or in the next comparison of the trees.

Left out is what docs/recovery.md names as missing: FALLOC_FL_COLLAPSE_RANGE and INSERT_RANGE, which may be executed twice, and directories that
are removed while they are open.

After each restart, and at the end, everything is compared: names, attributes, contents, extended attributes of the whole
tree, and position, flags and contents of every open descriptor, those of files without a name too. Inode numbers must be
those that were seen before.
"""
import errno
import fcntl
import json
import os
import re
import resource
import socket
import stat
import subprocess
import sys
import time

import fileops
import lab
from workload import HANG_SECONDS, Failure, Lines, Workload

WORKERS = 3
DIRS = ["a", "b", "a/c", "b/d", "a/c/e"]
NAMES = ["f%d" % i for i in range(7)]
MTIME_SLACK = 5 * 10**9  # ns: how far a time may move when a change is made again
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
# operation: weight
MIX = {"open": 14, "close": 8, "dup": 1, "read": 8, "write": 18, "lseek": 4, "ftruncate": 3, "truncate": 2, "fallocate": 3, "copy": 1,
       "fsync": 2, "setfl": 1, "flock": 2, "ofd": 2, "mkdir": 3, "rmdir": 4, "unlink": 8, "mknod": 2, "symlink": 2, "link": 4, "linkfd": 1,
       "rename": 8, "chmod": 2, "chown": 1, "utimens": 2, "setxattr": 3, "removexattr": 1, "stat": 4, "readlink": 1, "readdir": 2,
       "sync": 0.2, "sendfd": 1}


class Worker:
    def __init__(self, number, proc):
        self.number, self.proc = number, proc
        self.lines = Lines(proc.stdout.fileno())
        self.op = None  # under way
        self.since = 0
        self.slots = []


class Ops(Workload):
    name = "ops"
    about = "random file operations of %d processes against a shadow tree" % WORKERS
    inode_numbers = True  # they are to stay what they were

    def __init__(self, domain, rng, mix=None):
        super().__init__(domain, rng)
        self.mix = mix or MIX
        self.workers = []
        self.shadow = None
        self.claims = {}  # inode of the shadow: [number of sharers, exclusive]
        self.owner = {}  # slot: worker
        self.next_id = 0
        self.transit = None  # (slot2, worker that is to receive it)
        self.kept = []  # descriptors that keep inodes of the shadow from being used again
        self.known = {}  # inode of the shadow: (inode of the domain's file, shadow mtime, mtime)
        self.history = []
        self.tree = None  # names of the shadow, made anew after each change of names
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        del soft

    # life

    def prepare(self):
        os.umask(0)
        self.shadow = fileops.Side(self.domain.shadow_dir() + "/w")
        os.makedirs(self.shadow.root)
        os.chmod(self.shadow.root, 0o755)
        self.call("mkdir", "-m", "755", self.dir)
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for i in range(WORKERS):
            argv = [sys.executable, os.path.abspath(fileops.__file__), self.dir, "%d,%d" % (a.fileno(), b.fileno())]
            proc = self.spawn(*argv, stdin=subprocess.PIPE, pass_fds=(a.fileno(), b.fileno()))
            os.set_blocking(proc.stderr.fileno(), False)
            self.workers.append(Worker(i, proc))
        a.close()
        b.close()

    def run(self):
        while not self.stop.is_set():
            if self.restarted.is_set():
                self.restarted.clear()
                self.compare()
            self.feed()
            self.reap(0.2)
        self.drain()

    def verify(self):
        self.compare()
        self.leftovers()

    def end(self):
        for w in self.workers:
            if w.proc.poll() is None:
                w.proc.kill()
            w.proc.wait()
            for f in (w.proc.stdin, w.proc.stdout, w.proc.stderr):
                f.close()
        for fd in self.kept + (list(self.shadow.fds.values()) if self.shadow else []):
            os.close(fd)
        self.kept, self.shadow = [], None

    def fail(self, what):
        slots = set(re.findall(r"slot2?=(s\d+)", what.splitlines()[0]))
        about = [h for h in self.history[:-25] if slots & set(re.findall(r"slot2?=(s\d+)", h))]
        last = "".join("\n    %s" % h for h in about + self.history[-25:])
        raise Failure("%s\n  the last operations (worker, operation, result):%s" % (what, last))

    # operations

    def feed(self):
        for w in self.workers:
            if w.op is None:
                for _ in range(20):
                    op, claims = self.choose(w)
                    if op and self.free(claims):
                        self.issue(w, op, claims)
                    if w.op:
                        break
                    if op and op["op"] == "sendfd":
                        self.transit = None

    def issue(self, w, op, claims=()):
        self.next_id += 1
        op["id"] = self.next_id
        w.op, w.claims, w.since = op, dict(claims), time.monotonic()
        for ino, exclusive in w.claims.items():
            c = self.claims.setdefault(ino, [0, False])
            c[0] += 1
            c[1] |= exclusive
        try:
            w.proc.stdin.write((json.dumps(op) + "\n").encode())
            w.proc.stdin.flush()
        except BrokenPipeError:
            self.fail("worker %d is gone: %s" % (w.number, self.last_words(w)))

    def free(self, claims):
        for ino, exclusive in claims.items():
            c = self.claims.get(ino)
            if c and (exclusive or c[1]):
                return False
        return True

    def reap(self, seconds):
        """Waits for results, at most so long for the first, and checks them."""
        import select
        busy = [w for w in self.workers if w.op]
        ready = select.select([w.lines.fd for w in busy], [], [], seconds)[0] if busy else []
        for w in busy:
            if w.lines.fd in ready and not w.lines.fill():
                self.fail("worker %d ended during %s: %s" % (w.number, brief(w.op), self.last_words(w)))
            line = w.lines.pop()
            if line is not None:
                self.done(w, *json.loads(line))
            elif time.monotonic() - w.since > HANG_SECONDS:
                self.fail("worker %d: no result after %d s of %s" % (w.number, HANG_SECONDS, brief(w.op)))

    @staticmethod
    def last_words(w):
        w.proc.wait(10)
        try:
            return "status %s, %s" % (w.proc.returncode, (w.proc.stderr.read() or b"").decode(errors="replace")[-1500:])
        except OSError:
            return "status %s" % w.proc.returncode

    def done(self, w, number, result):
        op = w.op
        if number != op["id"]:
            self.fail("worker %d answers to %d, not %d" % (w.number, number, op["id"]))
        before = set(self.shadow.fds)
        want = json.loads(json.dumps(fileops.perform(self.shadow, op)))
        self.acknowledged += 1
        if op["op"] in ("open", "mkdir", "rmdir", "unlink", "mknod", "symlink", "link", "linkfd", "rename"):
            self.tree = None
        took = time.monotonic() - w.since
        self.history.append("%d %s = %s%s" % (w.number, brief(op), shorten(result), " (%.1f s)" % took if took > 0.5 else ""))
        del self.history[:-3000]
        self.keep(op)
        w.op = None
        for ino in w.claims:
            c = self.claims[ino]
            c[0] -= 1
            c[1] = False
            if not c[0]:
                del self.claims[ino]
        if op["op"] == "stat" and want[0] == result[0] == "ok":
            (a, ino, when), (b, ino2, when2) = want[1], result[1]
            self.identical(brief(op), ino, when, ino2, when2)
            want, result = a, b
        if want != result:
            self.fail("worker %d: %s\n  gave    %s\n  must be %s" % (w.number, brief(op), result, want))
        for slot in set(self.shadow.fds) - before:
            self.owner[slot] = w
            w.slots.append(slot)
        for slot in before - set(self.shadow.fds):
            self.owner.pop(slot).slots.remove(slot)
        if op["op"] == "sendfd":  # it is the receiver's, who gets it as soon as he can
            self.owner[op["slot2"]].slots.remove(op["slot2"])
            self.owner[op["slot2"]] = self.transit[1]

    def keep(self, op):
        """What may be new in the shadow is kept open, so that its inode number is nobody else's later."""
        for path in ("path", "path2"):
            if op["op"] in ("open", "mkdir", "mknod", "symlink", "rename") and path in op:
                name, dirfd = self.shadow.where(op, path, "at" if path == "path" else "at2")
                self.keep_one(name, dirfd)
        if op["op"] == "open" and op["slot"] in self.shadow.fds:
            self.keep_one("/proc/self/fd/%d" % self.shadow.fds[op["slot"]], None, 0)

    def keep_one(self, name, dirfd, nofollow=os.O_NOFOLLOW):
        try:
            fd = os.open(name, os.O_PATH | os.O_CLOEXEC | nofollow, dir_fd=dirfd)
        except OSError:
            return
        ino = os.fstat(fd).st_ino
        if ino in self.known:
            os.close(fd)
        else:
            self.known[ino] = None
            self.kept.append(fd)

    def identical(self, what, ino, when, ino2, when2):
        """A file must stay itself: inode number, and its time if nothing changed it."""
        old = self.known.get(ino)
        self.known[ino] = (ino2, when, when2)
        if old is None:
            return
        if old[0] != ino2 and self.inode_numbers:
            self.fail("%s: inode number %d has become %d" % (what, old[0], ino2))
        if old[1] == when and abs(old[2] - when2) > MTIME_SLACK:
            self.fail("%s: its mtime was %d and is %d, without a change" % (what, old[2], when2))

    # comparison of everything

    def drain(self):
        while any(w.op for w in self.workers):
            self.reap(1)
        if self.transit:
            slot2, to = self.transit
            self.receive(to)
            while to.op:
                self.reap(1)
            del slot2

    def ask(self, w, op):
        """An operation whose result is not compared by itself."""
        self.next_id += 1
        op["id"] = self.next_id
        w.proc.stdin.write((json.dumps(op) + "\n").encode())
        w.proc.stdin.flush()
        line = w.lines.get(HANG_SECONDS)
        if not line:
            self.fail("worker %d: %s: %s" % (w.number, op["op"], "hangs" if line is None else self.last_words(w)))
        mine = json.loads(json.dumps(fileops.perform(self.shadow, op)))
        return json.loads(line)[1], mine

    def compare(self):
        self.drain()
        time.sleep(0.01)  # a tick of the clock that files get their times from
        theirs, ours = self.ask(self.workers[0], {"op": "walk"})
        self.same("the tree", theirs, ours)
        for w in self.workers:
            if w.slots:
                theirs, ours = self.ask(w, {"op": "fds", "slots": [s for s in w.slots if not self.removed(s)]})
                self.same("worker %d's descriptors" % w.number, theirs, ours)

    def same(self, what, theirs, ours):
        if theirs[0] != "ok" or ours[0] != "ok":
            self.fail("%s: %s, shadow %s" % (what, shorten(theirs), shorten(ours)))
        (theirs, meta), (ours, our_meta) = theirs[1], ours[1]
        if theirs != ours:
            a, b = {t[0]: t for t in theirs}, {o[0]: o for o in ours}
            wrong = ["  %s\n    is      %s\n    must be %s" % (k, a.get(k), b.get(k)) for k in sorted(set(a) | set(b)) if a.get(k) != b.get(k)]
            self.fail("%s: different from the shadow [name, [mode, nlink, uid, gid, size, mtime], ...]:\n%s" % (what, "\n".join(wrong[:12])))
        for t, (ino2, when2), (ino, when) in zip(theirs, meta, our_meta):
            self.identical("%s, %s" % (what, t[0] or "/"), ino, when, ino2, when2)

    def leftovers(self):
        """What the agent keeps for itself: nothing but open files without a name."""
        root = self.domain.root()
        own = root and os.path.join(root, ".vhost-sc")
        if not own or not os.path.isdir(own):
            return
        nameless = {os.fstat(fd).st_ino for fd in self.shadow.fds.values() if os.fstat(fd).st_nlink == 0}
        for _ in range(50):
            have = {d: os.listdir(os.path.join(own, d)) if os.path.isdir(os.path.join(own, d)) else [] for d in ("stage", "orphans")}
            if not have["stage"] and len(have["orphans"]) <= len(nameless):
                return
            time.sleep(0.1)
        self.fail("left over in .vhost-sc: %s; files that are open without a name: %d" % (have, len(nameless)))

    # choice

    def choose(self, w):
        """A random operation for this worker, and what it touches: {inode of the shadow: exclusively?}."""
        if self.transit and self.transit[1] is w and self.owner.get(self.transit[0]) is w:
            self.receive(w)
            return None, {}
        op = {"op": self.rng.choices(list(self.mix), list(self.mix.values()))[0]}
        claims = {}
        made = getattr(self, "make_" + op["op"])(w, op, claims)
        return (op if made else None), claims

    def receive(self, w):
        slot2, _ = self.transit
        self.transit = None
        self.owner.pop(slot2, None)
        w.slots.append(slot2)
        self.owner[slot2] = w
        self.issue(w, {"op": "recvfd", "slot2": slot2})

    def claim(self, claims, st, exclusive=True):
        claims[st.st_ino] = claims.get(st.st_ino, False) or exclusive

    def path(self, op, claims, changes=False, want=None, key="path", at="at", w=None):
        """A path for op: existing or not, sometimes relative to an open directory. changes: the name is made or taken away.
        want: a test of what is there (None: nothing is). Returns its lstat, None if nothing is there; False if it did not fit."""
        rng, rel = self.rng, None
        base = self.shadow.root
        dirs = [s for s in (w.slots if w else []) if stat.S_ISDIR(os.fstat(self.shadow.fds[s]).st_mode) and not self.removed(s)]
        if dirs and rng.random() < 0.2:
            op[at] = rng.choice(dirs)
            base = "/proc/self/fd/%d" % self.shadow.fds[op[at]]
            self.claim(claims, os.fstat(self.shadow.fds[op[at]]), changes)
            rel = rng.choice(NAMES + ["c", "d", "e"])
        else:
            rel = self.choose_path(want)
            at_dir = base
            try:
                self.claim(claims, os.lstat(base), changes and "/" not in rel)
                for part in rel.split("/")[:-1]:
                    at_dir = os.path.join(at_dir, part)
                    self.claim(claims, os.lstat(at_dir), changes)
            except OSError:
                pass
        op[key] = rel
        try:
            st = os.lstat(os.path.join(base, rel))
        except OSError:
            st = None
        if st:
            self.claim(claims, st)
        if want is not None and not want(st) and rng.random() < 0.85:
            return False  # mostly what works; errors are to be right, too
        return st

    def choose_path(self, want):
        """Mostly one that fits, from the tree as it is now."""
        dirs, fit = [], []
        if self.rng.random() < 0.15:
            return os.path.join(self.rng.choice(DIRS), self.rng.choice(NAMES))
        if self.tree is None:
            self.tree = []
            for at, below, files in os.walk(self.shadow.root):
                rel = os.path.relpath(at, self.shadow.root)
                self.tree.append(("" if rel == "." else rel, os.lstat(at), True))
                self.tree += [(os.path.normpath(os.path.join(rel, n)), os.lstat(os.path.join(at, n)), False) for n in files]
        for rel, st, is_dir in self.tree:
            if is_dir:
                dirs.append(rel)
            if rel and want and want(st):
                fit.append(rel)
        if fit and self.rng.random() < 0.95:
            return self.rng.choice(sorted(fit))
        return os.path.join(self.rng.choice(sorted(dirs)), self.rng.choice(NAMES + ["c", "d", "e"]))

    def removed(self, slot):
        """A directory that is open and was removed: it is not kept."""
        st = os.fstat(self.shadow.fds[slot])
        return stat.S_ISDIR(st.st_mode) and st.st_nlink == 0

    def a_slot(self, w, op, claims, key="slot", kind=None):
        slots = [s for s in w.slots if not self.removed(s) and (kind is None or kind(os.fstat(self.shadow.fds[s]).st_mode))]
        if not slots:
            return None
        op[key] = self.rng.choice(slots)
        st = os.fstat(self.shadow.fds[op[key]])
        self.claim(claims, st)
        return st

    def amount(self):
        r = self.rng.random()
        return self.rng.randrange(1, 300) if r < 0.5 else self.rng.randrange(1, 9000) if r < 0.9 else self.rng.randrange(1, 300000)

    def position(self, size):
        r = self.rng.random()
        return self.rng.randrange(size + 1) if r < 0.6 else size if r < 0.8 else self.rng.randrange(size + 20000)

    def new_slot(self):
        return "s%d" % (self.next_id + 1)

    def make_open(self, w, op, claims):
        if len(w.slots) > 12:
            return False
        rng = self.rng
        op["slot"] = self.new_slot()
        flags = rng.choice([os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY])
        if rng.random() < 0.08:
            op["flags"], op["mode"] = os.O_TMPFILE | os.O_RDWR, 0o640
            st = self.path(op, claims, True, lambda st: st and stat.S_ISDIR(st.st_mode), w=w)
            return st is not False
        if rng.random() < 0.15:
            op["flags"] = os.O_DIRECTORY
            st = self.path(op, claims, False, lambda st: st and stat.S_ISDIR(st.st_mode), w=w)
            return st is not False
        if rng.random() < 0.6:
            flags |= os.O_CREAT
            if rng.random() < 0.4:
                flags |= os.O_EXCL
        if rng.random() < 0.1:
            flags |= os.O_TRUNC
        if rng.random() < 0.25:
            flags |= os.O_APPEND
        op["flags"], op["mode"] = flags | os.O_NONBLOCK * (rng.random() < 0.1), rng.choice([0o644, 0o600, 0o777])
        st = self.path(op, claims, bool(flags & os.O_CREAT), lambda st: not st or stat.S_ISREG(st.st_mode), w=w)
        # Opening a pipe may wait; and fifos are there to have names only.
        return st is not False and not (st and stat.S_ISFIFO(st.st_mode))

    def make_close(self, w, op, claims):
        removed = [s for s in w.slots if self.removed(s)]
        if removed:
            op["slot"] = removed[0]
            self.claim(claims, os.fstat(self.shadow.fds[removed[0]]))
            return True
        return len(w.slots) > 3 and self.a_slot(w, op, claims)

    def make_dup(self, w, op, claims):
        op["slot2"] = self.new_slot()
        return len(w.slots) < 12 and self.a_slot(w, op, claims)

    def make_sendfd(self, w, op, claims):
        if self.transit or not self.a_slot(w, op, claims):
            return False
        op["slot2"] = self.new_slot()
        to = self.rng.choice([x for x in self.workers if x is not w])
        if len(to.slots) > 12 or not self.free(claims):
            return False
        self.transit = (op["slot2"], to)
        return True

    def make_read(self, w, op, claims):
        st = self.a_slot(w, op, claims, kind=stat.S_ISREG)
        op["n"], op["off"] = self.amount(), self.position(st.st_size) if st and self.rng.random() < 0.3 else None
        return st

    def make_write(self, w, op, claims):
        st = self.a_slot(w, op, claims, kind=stat.S_ISREG)
        if not st or st.st_size > 4 << 20:
            return False
        op["n"], op["seed"] = self.amount(), self.rng.getrandbits(32)
        op["off"] = self.position(st.st_size) if self.rng.random() < 0.4 else None
        return True

    def make_lseek(self, w, op, claims):
        st = self.a_slot(w, op, claims, kind=stat.S_ISREG)
        op["whence"] = self.rng.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
        op["off"] = self.position(st.st_size) if st and op["whence"] == os.SEEK_SET else self.rng.randrange(-100, 100)
        return st

    def make_ftruncate(self, w, op, claims):
        st = self.a_slot(w, op, claims, kind=stat.S_ISREG)
        op["size"] = self.position(st.st_size) if st else 0
        return st

    def make_truncate(self, w, op, claims):
        st = self.path(op, claims, False, lambda st: st and stat.S_ISREG(st.st_mode))
        op["size"] = self.position(st.st_size) if st else 0
        return st is not False and not (st and not stat.S_ISREG(st.st_mode))

    def make_fallocate(self, w, op, claims):
        st = self.a_slot(w, op, claims, kind=stat.S_ISREG)
        if not st or st.st_size > 4 << 20:
            return False
        op["mode"] = self.rng.choice([0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE])
        op["off"], op["n"] = self.position(st.st_size), self.amount()
        return True

    def make_copy(self, w, op, claims):
        a = self.a_slot(w, op, claims, kind=stat.S_ISREG)
        b = a and self.a_slot(w, op, claims, "slot2", kind=stat.S_ISREG)
        if not b or a.st_ino == b.st_ino or b.st_size > 4 << 20:
            return False
        op["n"], op["off"], op["off2"] = self.amount(), self.position(a.st_size), self.position(b.st_size)
        return True

    def make_fsync(self, w, op, claims):
        op["data"] = self.rng.random() < 0.5
        return self.a_slot(w, op, claims)

    def make_setfl(self, w, op, claims):
        op["flags"] = self.rng.choice([0, os.O_APPEND, os.O_NONBLOCK, os.O_APPEND | os.O_NONBLOCK])
        return self.a_slot(w, op, claims, kind=stat.S_ISREG)

    def make_flock(self, w, op, claims):
        op["how"] = self.rng.choice([fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN])
        return self.a_slot(w, op, claims, kind=stat.S_ISREG)

    def make_ofd(self, w, op, claims):
        op["type"] = self.rng.choice([fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK])
        op["off"], op["n"] = self.rng.randrange(0, 100), self.rng.randrange(0, 50)
        return self.a_slot(w, op, claims, kind=stat.S_ISREG)

    def make_mkdir(self, w, op, claims):
        op["mode"] = self.rng.choice([0o755, 0o700, 0o1777])
        st = self.path(op, claims, True, lambda st: not st, w=w)
        if self.rng.random() < 0.5 and "at" not in op:
            del op["path"]
            claims.clear()
            op["path"] = self.rng.choice(DIRS)
            return self.claim_path(op["path"], claims)
        return st is not False

    def claim_path(self, rel, claims):
        at = self.shadow.root
        self.claim(claims, os.lstat(at), True)
        for part in rel.split("/"):
            at = os.path.join(at, part)
            try:
                self.claim(claims, os.lstat(at), True)
            except OSError:
                break
        return True

    def make_rmdir(self, w, op, claims):
        return self.path(op, claims, True, lambda st: st and stat.S_ISDIR(st.st_mode), w=w) is not False

    def make_unlink(self, w, op, claims):
        return self.path(op, claims, True, lambda st: st and not stat.S_ISDIR(st.st_mode), w=w) is not False

    def make_mknod(self, w, op, claims):
        op["mode"] = stat.S_IFIFO | 0o640 if self.rng.random() < 0.6 else stat.S_IFREG | 0o600
        return self.path(op, claims, True, lambda st: not st, w=w) is not False

    def make_symlink(self, w, op, claims):
        op["text"] = "t" * self.rng.choice([1, 20, 59, 60, 200])
        return self.path(op, claims, True, lambda st: not st, w=w) is not False

    def make_link(self, w, op, claims):
        return self.path(op, claims, False, lambda st: st and not stat.S_ISDIR(st.st_mode), w=w) is not False and \
            self.path(op, claims, True, lambda st: not st, "path2", "at2", w=w) is not False

    def make_linkfd(self, w, op, claims):
        st = self.a_slot(w, op, claims, kind=stat.S_ISREG)
        return st and self.path(op, claims, True, lambda st: not st) is not False

    def make_rename(self, w, op, claims):
        op["flags"] = self.rng.choice([0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT])
        return self.path(op, claims, True, lambda st: st, w=w) is not False and \
            self.path(op, claims, True, lambda st: bool(st) == (op["flags"] == RENAME_EXCHANGE), "path2", "at2", w=w) is not False

    def make_chmod(self, w, op, claims):
        op["mode"] = self.rng.choice([0o644, 0o600, 0o755, 0o4755, 0o2711])
        if self.rng.random() < 0.5:
            return self.a_slot(w, op, claims)
        st = self.path(op, claims, False, lambda st: st and not stat.S_ISLNK(st.st_mode))
        return st is not False and not (st and stat.S_ISLNK(st.st_mode))

    def make_chown(self, w, op, claims):
        op["uid"], op["gid"] = self.rng.choice([-1, 0, 1000]), self.rng.choice([-1, 0, 1000])
        return self.path(op, claims, False, lambda st: st, w=w) is not False

    def make_utimens(self, w, op, claims):
        op["when"] = (10**9 + self.rng.randrange(10**7)) * 10**9
        return self.path(op, claims, False, lambda st: st, w=w) is not False

    def make_setxattr(self, w, op, claims):
        op["name"], op["seed"] = "user.%d" % self.rng.randrange(3), self.rng.getrandbits(32)
        op["n"], op["flags"] = self.rng.choice([0, 5, 60, 300]), self.rng.choice([0, os.XATTR_CREATE, os.XATTR_REPLACE])
        return self.path(op, claims, False, lambda st: st and not stat.S_ISLNK(st.st_mode)) is not False

    def make_removexattr(self, w, op, claims):
        op["name"] = "user.%d" % self.rng.randrange(3)
        return self.path(op, claims, False, lambda st: st) is not False

    def make_stat(self, w, op, claims):
        if self.rng.random() < 0.4:
            return self.a_slot(w, op, claims)
        return self.path(op, claims, False, lambda st: st, w=w) is not False

    def make_readlink(self, w, op, claims):
        return self.path(op, claims, False, lambda st: st and stat.S_ISLNK(st.st_mode), w=w) is not False

    def make_readdir(self, w, op, claims):
        if self.rng.random() < 0.4:
            return self.a_slot(w, op, claims, kind=stat.S_ISDIR)
        return self.path(op, claims, False, lambda st: st and stat.S_ISDIR(st.st_mode)) is not False

    def make_sync(self, w, op, claims):
        return True


def brief(op):
    return "%s(%s)" % (op["op"], ", ".join("%s=%s" % (k, oct(v) if k in ("mode", "flags") and isinstance(v, int) else v)
                                            for k, v in op.items() if k not in ("op", "id") and v is not None))


def shorten(result):
    s = json.dumps(result)
    return s if len(s) < 160 else s[:160] + "…"
