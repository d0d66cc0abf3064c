# SPDX-License-Identifier: BSD-3-Clause
# what: 200 threads and 30 processes at once, fork while threads work, threads waiting for locks that others hold
# needs: python3
# timeout: 120
set -u
cd "$D" || exit 1
python3 - <<'EOT'
import fcntl, os, subprocess, sys, threading, time
threading.stack_size(256 * 1024)
N = 200
go = threading.Barrier(N)
bad = []

def work(k):
    go.wait()
    name = "t%03d" % k
    for i in range(5):
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        data = bytes([k % 256]) * (1 + (k * 7919 + i * 104729) % 90000)
        if os.write(fd, data) != len(data) or os.pread(fd, 1 << 20, 0) != data or os.fstat(fd).st_size != len(data):
            bad.append((k, i))
        os.close(fd)
        os.rename(name, name + "x")
        os.rename(name + "x", name)

threads = [threading.Thread(target=work, args=(k,)) for k in range(N)]
for t in threads: t.start()
for t in threads: t.join()
print(bad, len(os.listdir()))
lockfile = os.open("lock", os.O_RDWR | os.O_CREAT)
count = 0

def locked(k):
    global count
    fd = os.open("lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    v = count
    time.sleep(0.001)
    os.pwrite(fd, b"x" * 10, 0)
    count = v + 1
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)

threads = [threading.Thread(target=locked, args=(k,)) for k in range(N)]
for t in threads: t.start()
for t in threads: t.join()
print(count)
stop = threading.Event()
errors = []

def churn(k):
    while not stop.is_set():
        try:
            with open("c%d" % k, "w") as f:
                f.write("x" * 10000)
            if os.path.getsize("c%d" % k) != 10000:
                errors.append(k)
            os.unlink("c%d" % k)
        except Exception as e:
            errors.append(repr(e))

threads = [threading.Thread(target=churn, args=(k,)) for k in range(10)]
for t in threads: t.start()
results = []
for i in range(30):
    pid = os.fork()
    if pid == 0:
        try:
            with open("child%d" % i, "w") as f:
                f.write("c" * i)
            os._exit(0 if os.path.getsize("child%d" % i) == i else 1)
        except BaseException:
            os._exit(2)
    results.append(pid)
    subprocess.run(["sh", "-c", "echo %d > spawned%d" % (i, i)], check=True)
print([os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in results].count(0))
stop.set()
for t in threads: t.join()
print(errors, len([x for x in os.listdir() if x.startswith(("child", "spawned"))]))
EOT
rm -f t* c* s* lock; ls
