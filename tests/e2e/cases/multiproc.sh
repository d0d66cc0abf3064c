# SPDX-License-Identifier: BSD-3-Clause
# what: python3 multiprocessing with each start method: pools, queues, locks, managers, shared memory, files passed to workers
# needs: python3
# timeout: 120
set -u
cd "$D" || exit 1
cat > work.py <<'EOT'
import concurrent.futures, fcntl, mmap, multiprocessing as mp, os, sys, time
from multiprocessing import connection, reduction, shared_memory

def square(i):
    with open("sq%03d" % i, "w") as f:
        f.write(str(i * i))
    return os.path.getsize("sq%03d" % i), i * i

def count(lock, n):
    for _ in range(n):
        with lock:
            with open("counter", "r+") as f:
                v = int(f.read() or 0)
                f.seek(0)
                f.write(str(v + 1))

def flocked(n):
    for _ in range(n):
        with open("fcounter", "r+") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            v = int(f.read() or 0)
            f.seek(0)
            f.write(str(v + 1))
            f.flush()

def consumer(q, out):
    while (name := q.get()) is not None:
        with open(name) as f:
            out.put((name, len(f.read())))

def receiver(conn):
    fd = reduction.recv_handle(conn)
    conn.send((os.read(fd, 5), os.fstat(fd).st_size))
    os.close(fd)

def shm(name):
    m = shared_memory.SharedMemory(name=name)
    m.buf[0] = m.buf[0] + 1
    m.close()

def values(v, a):
    with v.get_lock():
        v.value += 1
    a[os.getpid() % 1] += 2

def die():
    open("dying", "w").close()
    os._exit(7)

def main(method):
    ctx = mp.get_context(method)
    with ctx.Pool(4) as p:
        print("pool", sum(s for s, _ in p.map(square, range(40))), sum(v for _, v in p.imap_unordered(square, range(40), 5)))
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=ctx) as e:
        print("executor", sorted(f.result() for f in [e.submit(os.path.getsize, "sq%03d" % i) for i in range(10)]))
    open("counter", "w").close()
    open("fcounter", "w").close()
    lock = ctx.Lock()
    ps = [ctx.Process(target=count, args=(lock, 10)) for _ in range(4)] + [ctx.Process(target=flocked, args=(10,)) for _ in range(3)]
    for p in ps: p.start()
    for p in ps: p.join()
    print("counters", open("counter").read(), open("fcounter").read(), {p.exitcode for p in ps})
    q, out = ctx.Queue(), ctx.Queue()
    ps = [ctx.Process(target=consumer, args=(q, out)) for _ in range(2)]
    for p in ps: p.start()
    for i in range(20): q.put("sq%03d" % i)
    for _ in ps: q.put(None)
    print("queue", sorted(out.get() for _ in range(20))[-1])
    for p in ps: p.join()
    with ctx.Manager() as m:
        d = m.dict()
        d["x"] = m.list([1, 2])
        d["x"].append(3)
        print("manager", list(d["x"]))
    a, b = ctx.Pipe()
    with open("passed", "w+") as f:
        f.write("0123456789")
        f.flush()
        f.seek(3)
        p = ctx.Process(target=receiver, args=(b,))
        p.start()
        reduction.send_handle(a, f.fileno(), p.pid)
        print("passed", a.recv(), os.lseek(f.fileno(), 0, 1))
        p.join()
    m = shared_memory.SharedMemory(create=True, size=100)
    p = ctx.Process(target=shm, args=(m.name,))
    p.start()
    p.join()
    print("shm", m.buf[0])
    m.close()
    m.unlink()
    v, arr = ctx.Value("i", 0), ctx.Array("d", [0.0])
    ps = [ctx.Process(target=values, args=(v, arr)) for _ in range(3)]
    for p in ps: p.start()
    for p in ps: p.join()
    print("value", v.value)
    p = ctx.Process(target=die)
    p.start()
    connection.wait([p.sentinel], 30)
    p.join()
    print("died", p.exitcode, os.path.exists("dying"))
    p = ctx.Process(target=time.sleep, args=(100,))
    p.start()
    p.terminate()
    p.join()
    print("terminated", p.exitcode)

if __name__ == "__main__":
    main(sys.argv[1])
EOT
for m in fork spawn forkserver; do echo "== $m"; python3 work.py $m; done; rm -rf __pycache__; ls | wc -l; find . -name 'sq*' -delete; cat passed
