# SPDX-License-Identifier: BSD-3-Clause
# what: flock(1) and fcntl locks between processes: exclusion, waiting, release by close, exit and kill -9, deadlock
# needs: flock python3
set -u
cd "$D" || exit 1
touch l; (flock -x 9; echo first >> order; sleep 0.5; echo first-done >> order) 9>l & sleep 0.2
flock -n l true; echo "busy $?"; flock -w 5 l sh -c 'echo second >> order'; wait; cat order
flock -s l sh -c 'flock -n -s l echo shared; flock -n -x l echo exclusive; echo $?'
python3 - <<'EOT'
import fcntl, os, signal, struct, time
def lk(t, s, n): return struct.pack("hhqqi4x", t, 0, s, n, 0)
f = os.open("p", os.O_RDWR | os.O_CREAT)
fcntl.fcntl(f, fcntl.F_SETLK, lk(fcntl.F_WRLCK, 0, 100))
fcntl.fcntl(f, fcntl.F_SETLK, lk(fcntl.F_UNLCK, 40, 20))
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    for s, n in ((0, 10), (40, 20), (39, 1), (60, 1), (100, 5)):
        g = struct.unpack("hhqqi4x", fcntl.fcntl(f, fcntl.F_GETLK, lk(fcntl.F_WRLCK, s, n)))
        print(s, n, g[0], g[2:4] if g[0] != fcntl.F_UNLCK else "", g[4] == os.getppid(), flush=True)
    try:
        fcntl.fcntl(f, fcntl.F_SETLK, lk(fcntl.F_RDLCK, 0, 1))
    except OSError as e:
        print("child", e.errno in (11, 13), flush=True)
    fcntl.fcntl(f, fcntl.F_SETLK, lk(fcntl.F_WRLCK, 200, 1))
    os.write(w, b"x")
    fcntl.fcntl(f, fcntl.F_SETLKW, lk(fcntl.F_WRLCK, 0, 1))
    print("child got it", flush=True)
    os._exit(0)
os.read(r, 1)
try:
    time.sleep(0.3)
    fcntl.fcntl(f, fcntl.F_SETLKW, lk(fcntl.F_WRLCK, 200, 1))
except OSError as e:
    print("deadlock", e.errno, flush=True)
g = os.open("p", os.O_RDONLY)
os.close(g)  # POSIX: closing any descriptor of the file drops the process's locks
os.waitpid(pid, 0)
fcntl.fcntl(f, fcntl.F_SETLK, lk(fcntl.F_WRLCK, 200, 1))
print("dead child's lock is free")
pid = os.fork()
if pid == 0:
    fcntl.flock(os.open("k", os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
    os.write(w, b"y")
    time.sleep(30)
os.read(r, 1)
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
fcntl.flock(os.open("k", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
print("killed child's flock is free")
signal.signal(signal.SIGALRM, lambda *a: (_ for _ in ()).throw(TimeoutError))
pid = os.fork()
if pid == 0:
    signal.alarm(1)
    try:
        fcntl.flock(os.open("k", os.O_RDWR), fcntl.LOCK_EX)
    except TimeoutError:
        print("interrupted", flush=True)
    os._exit(0)
os.waitpid(pid, 0)
o1, o2 = os.open("ofd", os.O_RDWR | os.O_CREAT), os.open("ofd", os.O_RDWR)
fcntl.fcntl(o1, 37, lk(fcntl.F_WRLCK, 0, 10))
try:
    fcntl.fcntl(o2, 37, lk(fcntl.F_WRLCK, 5, 10))
except OSError as e:
    print("OFD conflict", e.errno)
os.close(o1)
fcntl.fcntl(o2, 37, lk(fcntl.F_WRLCK, 5, 10))
print("OFD free")
EOT
