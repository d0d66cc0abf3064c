# SPDX-License-Identifier: BSD-3-Clause
"""Work for loopback.py: run with a directory as argument, natively and under scrun; prints the same both times.

Processes, descriptors, threads, limits, working directories, credentials, locks.
"""
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time

D = sys.argv[1]
P = D + "/file"


def child(work):
    """Runs work in a forked child; its exit status (what work returns, 99 for an exception)."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work() or 0
        except BaseException as e:  # pylint: disable=broad-except
            print("child:", repr(e), file=sys.stderr)
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fresh(text="0123456789" * 10):
    with open(P, "w", encoding="ascii") as f:
        f.write(text)


def test_fork_shares_position():
    fd = os.open(P, os.O_RDWR)
    os.read(fd, 5)

    def work():
        assert os.read(fd, 5) == b"56789"
        os.close(fd)
        return 7
    print("fork", child(work), os.read(fd, 5))
    other = os.dup(fd)
    os.close(fd)
    print("dup", os.read(other, 5))
    os.close(other)


def test_exec_inherits():
    fd = os.open(P, os.O_RDWR)
    print("stdin", subprocess.run(["head", "-c", "5"], stdin=fd, capture_output=True, check=True).stdout)
    print("passed", subprocess.run(["sh", "-c", f"head -c 5 <&{fd}"], pass_fds=[fd], capture_output=True,
                                   check=True).stdout)
    print("not passed", subprocess.run(["sh", "-c", f"test -e /proc/self/fd/{fd}"], check=False).returncode)
    with open(D + "/out", "w", encoding="ascii") as f:
        subprocess.run(["echo", "hello"], stdout=f, check=True)
        subprocess.Popen(["sh", "-c", "echo again; echo more"], stdout=f).wait()
    print("stdout", open(D + "/out", encoding="ascii").read())
    os.unlink(D + "/out")
    os.close(fd)


def test_numbers():
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    other = os.open(P, os.O_RDONLY)
    print("lowest", other == fd)
    os.close(other)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    fds = []
    try:
        while True:
            fds.append(os.open(P, os.O_RDONLY))
    except OSError as e:
        print("full", e.errno, max(fds))
    try:
        os.open(P + ".new", os.O_WRONLY | os.O_CREAT)
    except OSError as e:
        print("full", e.errno, os.path.exists(P + ".new"))
    for f in fds:
        os.close(f)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print("limit", resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard))


def test_closing_all():
    def by_listing():
        for f in os.listdir("/proc/self/fd"):
            if int(f) > 2:
                try:
                    os.close(int(f))
                except OSError:
                    pass
        return open(P, encoding="ascii").read(3) != "012"

    def by_range():
        os.closerange(3, 1 << 20)
        return open(P, encoding="ascii").read(3) != "012"

    def over():
        fd = os.open(P, os.O_RDONLY)
        for i in range(1000, 1100):
            os.dup2(1, i)
        other = os.open(P, os.O_RDONLY)
        assert os.read(other, 3) == b"012"
        for i in range(1000, 1100):
            os.close(i)
        return os.read(fd, 3) != b"012"
    print("closing", child(by_listing), child(by_range), child(over))


def test_threads():
    errors = []

    def work(i):
        name = f"{D}/t{i}"
        data = bytes([i % 256]) * 5000
        try:
            for _ in range(10):
                with open(name, "wb") as f:
                    f.write(data)
                with open(name, "rb") as f:
                    assert f.read() == data
                assert os.stat(name).st_size == 5000
                os.unlink(name)
        except BaseException as e:  # pylint: disable=broad-except
            errors.append((i, e))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(300)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print("threads", errors)


def test_fork_in_threads():
    stop, errors = [], []

    def work(i):
        name = f"{D}/f{i}"
        try:
            while not stop:
                fd = os.open(name, os.O_RDWR | os.O_CREAT)
                os.write(fd, b"x" * 100)
                assert os.fstat(fd).st_size >= 100
                os.close(fd)
                os.unlink(name)
        except BaseException as e:  # pylint: disable=broad-except
            errors.append((i, e))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    results = {child(lambda: open(P, encoding="ascii").read(3) != "012") for _ in range(20)}
    results |= {subprocess.run(["cat", P], capture_output=True, check=False).returncode for _ in range(20)}
    stop.append(1)
    for t in threads:
        t.join()
    print("fork in threads", results, errors)


def test_cwd():
    os.mkdir(D + "/cd")
    os.chdir(D + "/cd")
    print("cwd", os.getcwd(), child(lambda: os.getcwd() != D + "/cd"))
    print(subprocess.run("pwd; /bin/pwd; echo a>f; cat f; cat ../cd/f; ls -a", shell=True, capture_output=True,
                         text=True, check=True).stdout.split())
    fd = os.open("..", os.O_RDONLY)
    os.chdir("/")
    print(os.getcwd(), os.path.exists("etc/passwd"), os.path.exists(D[1:] + "/cd/f"))
    os.fchdir(fd)
    os.close(fd)
    print(os.getcwd(), sorted(os.listdir("cd")))
    subprocess.run(["rm", "-r", "cd"], check=True, cwd=D)
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir(D + "/gone")
    try:
        os.getcwd()
    except OSError as e:
        print("gone", e.errno)
    os.chdir("/")


def test_ids():
    if os.geteuid():
        return

    def work():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            open(P, "w", encoding="ascii")
            return 1
        except PermissionError:
            pass
        with open(D + "/nobody", "w", encoding="ascii"):
            pass
        return os.stat(D + "/nobody").st_uid != 65534
    print("ids", child(work))
    os.unlink(D + "/nobody")


def test_locks():
    fd = os.open(P, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)

    def try_lock():
        try:
            fcntl.flock(os.open(P, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return 1
        except BlockingIOError:
            return 0

    def interrupted():
        def handler(*_):
            raise TimeoutError
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        begin = time.time()
        try:
            fcntl.flock(os.open(P, os.O_RDWR), fcntl.LOCK_EX)
            return 1
        except TimeoutError:
            return 0 if time.time() - begin < 5 else 2
    print("locks", child(try_lock), child(interrupted))
    os.close(fd)
    fd = os.open(P, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def waits():
        fcntl.flock(os.open(P, os.O_RDWR), fcntl.LOCK_EX)
        return 3
    pid = os.fork()
    if pid == 0:
        os.close(fd)
        os._exit(waits())
    time.sleep(0.1)
    os.close(fd)
    print("released", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def test_killed():
    """A killed process leaves neither lock nor open file behind."""
    pid = os.fork()
    if pid == 0:
        fcntl.flock(os.open(P, os.O_RDWR), fcntl.LOCK_EX)
        signal.pause()
    time.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    fd = os.open(P, os.O_RDWR)
    for _ in range(100):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            print("killed ok")
            break
        except BlockingIOError:
            time.sleep(0.02)
    os.close(fd)


def test_umask():
    old = os.umask(0o027)
    os.close(os.open(D + "/m", os.O_CREAT | os.O_WRONLY, 0o777))
    os.mkdir(D + "/md", 0o777)
    print("umask", oct(os.stat(D + "/m").st_mode), oct(os.stat(D + "/md").st_mode),
          subprocess.run("umask", shell=True, capture_output=True, check=True).stdout)
    os.umask(old)
    os.unlink(D + "/m")
    os.rmdir(D + "/md")


def test_environment():
    out = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    print("environment", [x for x in out.split("\n") if x.startswith(("VHOST_SC_L", "VHOST_SC_RO", "LD_"))])
    out = subprocess.run(["env", "-i", "/bin/cat", P], capture_output=True, text=True, check=True).stdout
    print("empty environment", out[:5])


def main():
    os.chdir("/")
    for name, work in sorted(globals().items()):
        if name.startswith("test_"):
            fresh()
            work()
            sys.stdout.flush()
    os.unlink(P)
    print("left", os.listdir(D))


main()
