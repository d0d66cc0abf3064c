# SPDX-License-Identifier: BSD-3-Clause
# what: signals: interrupted and restarted lock waits, handlers that do file work, signals during a storm of calls, kill
# needs: python3 timeout
set -u
cd "$D" || exit 1
python3 - <<'EOT'
import ctypes, errno, fcntl, os, signal, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def attempt(what, f):
    try:
        print(what, f(), flush=True)
    except OSError as e:
        print(what, errno.errorcode[e.errno], flush=True)

def lk(t, s=0, n=0): return struct.pack("hhqqi4x", t, 0, s, n, 0)
r, w = os.pipe()
r2, w2 = os.pipe()
pid = os.fork()
if pid == 0:
    k = os.open("k", os.O_RDWR | os.O_CREAT)
    fcntl.flock(k, fcntl.LOCK_EX)
    fcntl.fcntl(k, fcntl.F_SETLK, lk(fcntl.F_WRLCK))
    os.write(w, b"x")
    os.read(r2, 1)
    os._exit(0)
os.read(r, 1)
k = os.open("k", os.O_RDWR)
count = 0
def handler(*a):
    global count
    count += 1
    with open("handler", "a") as f:
        f.write("%d\n" % count)
signal.signal(signal.SIGALRM, handler)
calls = (("flock", lambda: libc.flock(k, 2)), ("fcntl", lambda: libc.fcntl(k, 7, lk(fcntl.F_WRLCK))), ("ofd", lambda: libc.fcntl(k, 38, lk(fcntl.F_WRLCK))))
for restart in (False, True):
    signal.siginterrupt(signal.SIGALRM, not restart)
    for name, call in calls[:1] if restart else calls:
        count = 0
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        if restart:
            threading.Timer(0.5, lambda: os.write(w2, b"x")).start()
        ctypes.set_errno(0)
        got = call()
        print(restart, name, got, errno.errorcode.get(ctypes.get_errno()), count, flush=True)
        if not restart:
            assert got == -1
os.waitpid(pid, 0)
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(open("handler").read().split()))
os.unlink("handler")
ticks = 0
def tick(*a):
    global ticks
    ticks += 1
    os.stat("k")
    with open("tick", "w") as f:
        f.write(str(ticks))
    if storm:  # armed anew only now, so that a slow handler is not interrupted by itself without end
        signal.setitimer(signal.ITIMER_REAL, 0.003)
storm = True
signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.003)
end = time.monotonic() + 1.5
n = bad = 0
while time.monotonic() < end:
    name = "storm%d" % (n % 10)
    with open(name, "w") as f:
        f.write("x" * (n % 5000))
    with open(name) as f:
        bad += len(f.read()) != n % 5000
    os.rename(name, name + "r")
    bad += os.stat(name + "r").st_size != n % 5000
    os.unlink(name + "r")
    n += 1
storm = False
time.sleep(0.1)
print("bad", bad, n > 10, ticks > 10, open("tick").read() == str(ticks))
os.unlink("tick")
class Stop(Exception): pass
def stop(*a): raise Stop
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    while True:
        os.listdir(".")
except Stop:
    print("stopped", sorted(os.listdir(".")))
signal.signal(signal.SIGUSR1, lambda *a: None)
main = threading.main_thread().ident
done = threading.Event()
def pester():
    while not done.is_set():
        signal.pthread_kill(main, signal.SIGUSR1)
        time.sleep(0.001)
t = threading.Thread(target=pester)
t.start()
f = os.open("data", os.O_RDWR | os.O_CREAT)
for i in range(300):
    assert os.pwrite(f, bytes([i % 256]) * 100_000, 0) == 100_000
    assert os.pread(f, 100_000, 0) == bytes([i % 256]) * 100_000
done.set()
t.join()
print("whole")
EOT
timeout 1 sh -c 'while :; do echo x > spin; cat spin > /dev/null; done'; echo "status $?"
(trap 'echo term >> trapped; exit 3' TERM; echo $BASHPID > pid; while :; do echo y > spin2; done) & sleep 0.3; kill "$(cat pid)"; wait $!; echo "status $?"; cat trapped
sh -c 'echo $$ > pid2; exec sleep 20' & sleep 0.3; kill -9 "$(cat pid2)"; wait $! 2>/dev/null; echo "status $?"; rm -f pid pid2 spin spin2
sh -c 'kill -STOP $$; echo continued > cont' & sleep 0.3; kill -CONT $!; wait $!; cat cont
