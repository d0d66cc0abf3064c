#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs real programs natively and intercepted, and compares output and exit status.

usage: programs.py TESTSERVE.so [-m MODE,...] [NAME ...]

Each command runs in an empty directory of its own. Programs that are not installed are skipped, by name.
Exit status 1 if anything differs.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

C_PROJECT = '''
for i in 1 2 3 4; do echo "int f$i(void){return $i;}" > a$i.c; done
echo 'int f1(void);int main(void){return f1()+40;}' > m.c
printf 'm: m.o a1.o a2.o a3.o a4.o\\n\\tgcc -o $@ $^\\n' > Makefile
make -j2 && ./m; echo $?
'''

PY_POOL = '''
import multiprocessing
def f(x):
    return x * x
if __name__ == '__main__':
    with multiprocessing.Pool(4) as p:
        print(p.map(f, range(100)))
'''

PY_SIGNALS = '''
import os, signal, time
n = []
signal.signal(signal.SIGALRM, lambda *a: n.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
end = time.time() + 0.3
while time.time() < end:
    time.sleep(0.05)
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(n) > 5)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
except KeyboardInterrupt:
    print('interrupted')
'''

PY_THREADS = '''
import threading
r = []
t = [threading.Thread(target=lambda i=i: r.append(i * i)) for i in range(80)]
[x.start() for x in t]
[x.join() for x in t]
print(sum(r))
'''

PY_ASYNC = '''
import asyncio
async def one(i):
    p = await asyncio.create_subprocess_exec('echo', str(i), stdout=asyncio.subprocess.PIPE)
    out, _ = await p.communicate()
    return int(out)
async def main():
    print(sum(await asyncio.gather(*[one(i) for i in range(20)])))
asyncio.run(main())
'''

NODE = '''
const fs = require("fs"), cp = require("child_process"), w = require("worker_threads");
if (w.isMainThread) {
  fs.writeFileSync("x", "hello");
  const t = new w.Worker(__filename);
  t.on("message", m => console.log("worker", m));
  t.on("exit", () => cp.exec("cat x", (e, out) => console.log(out)));
} else w.parentPort.postMessage(40 + 2);
'''

JAVA = '''
public class T {
  public static void main(String[] a) throws Exception {
    Thread[] t = new Thread[20];
    final long[] sum = new long[1];
    for (int i = 0; i < 20; i++) {
      final int n = i;
      t[i] = new Thread(() -> { byte[] b = new byte[1 << 20]; synchronized (sum) { sum[0] += n + b.length; } });
      t[i].start();
    }
    for (Thread x : t) x.join();
    try { Object o = null; o.hashCode(); } catch (NullPointerException e) { System.out.println("null"); }
    for (int i = 0; i < 5; i++) System.gc();
    System.out.println(sum[0]);
    Process p = new ProcessBuilder("echo", "child").start();
    System.out.println(new String(p.getInputStream().readAllBytes()));
    System.exit(p.waitFor());
  }
}
'''

PERL = r'''
my $p = fork; if (!$p) { exit 3 } waitpid($p, 0); print $? >> 8, "\n";
$SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; select(undef, undef, undef, 5) }; print $@;
print `echo x`; open(F, "|cat"); print F "y\n"; close F;
'''

BASH = '''
for i in 1 2 3; do echo $i | cat | tr 1-3 a-c; done
x=$(ls /usr | wc -l); echo $x; (exit 7); echo $?; sleep 0.1 & wait $!
trap "echo term" TERM; kill -TERM $$; echo end
'''

JOBS = '''
sleep 0.2 & sleep 0.3 & jobs | wc -l; wait; set -o pipefail; false | true; echo $?
sleep 5 & kill -STOP %1; sleep 0.1; jobs | cut -c1-12; kill -CONT %1; kill %1; wait; kill -INT $$; echo not reached
'''

GIT = '''
export HOME=$PWD GIT_AUTHOR_DATE=@0 GIT_COMMITTER_DATE=@0; git init -q r && cd r
for i in 1 2 3; do echo $i > f$i; git add .; git -c user.name=a -c user.email=a@b commit -q -m $i; done
git log --format='%H %s'; git gc -q; git fsck; git clone -q . ../s && git -C ../s status
'''

SQLITE = '''
sqlite3 d 'create table t(x); insert into t values(1); pragma journal_mode=wal; insert into t select x+1 from t;'
for i in 1 2 3 4; do sqlite3 d '.timeout 9000' 'insert into t select x+9 from t limit 3;' & done; wait
sqlite3 d 'select count(*) from t; pragma integrity_check'
'''

# name: (program needed, command)
PROGRAMS = {
    'true': ('true', ['true']),
    'bash': ('bash', ['bash', '-c', BASH]),
    'jobs': ('bash', ['bash', '-mc', JOBS]),
    'ls': ('ls', ['ls', '-lR', '/usr/include/linux']),
    'find': ('find', ['find', '/usr/share/doc', '-name', 'c*']),
    'tar': ('tar', ['sh', '-c', 'tar cf - /usr/include 2>/dev/null | tar tf - | md5sum']),
    'git': ('git', ['sh', '-c', GIT]),
    'make': ('gcc', ['sh', '-c', C_PROJECT]),
    'perl': ('perl', ['perl', '-e', PERL]),
    'sqlite': ('sqlite3', ['sh', '-c', SQLITE]),
    'xz': ('xz', ['sh', '-c', 'head -c 3000000 /usr/bin/git | xz -T2 -1 | xz -d | md5sum']),
    'python-pool': ('python3', ['python3', '-c', PY_POOL]),
    'python-signals': ('python3', ['python3', '-c', PY_SIGNALS]),
    'python-threads': ('python3', ['python3', '-c', PY_THREADS]),
    'python-async': ('python3', ['python3', '-c', PY_ASYNC]),
    'node': ('node', ['sh', '-c', "cat > n.js <<'E'\n%s\nE\nnode n.js" % NODE]),
    'java': ('java', ['sh', '-c', "cat > T.java <<'E'\n%s\nE\njava -Xmx64m T.java" % JAVA]),
    'vim': ('vim', ['sh', '-c', 'seq 1000 > f; vim -u NONE -es f -c "%s/7/x/g" -c wq; md5sum f']),
    # A debugger is told of each SIGSYS; so will its user be, in the documentation.
    'gdb': ('gdb', ['sh', '-c', "gdb -batch -ex 'handle SIGSYS nostop noprint pass' -ex 'catch syscall write' -ex run "
                    "-ex 'p $rax' -ex delete -ex continue --args /bin/echo x 2>&1 | sed 's/process [0-9]*//; "
                    "s/ in .*//; /^Catchpoint/d; /^[0-9]*\t/d; /^$/d'"]),
    'rsync': ('rsync', ['sh', '-c', 'rsync -a /usr/include/linux/ d; find d | wc -l']),
    'timeout': ('timeout', ['timeout', '0.2', 'sleep', '5']),
    'nice-nohup': ('nohup', ['sh', '-c', 'nohup nice -n 3 nice']),
}


def run(command, env):
    """Returns (status, output) of a command in an empty directory."""
    with tempfile.TemporaryDirectory() as d:
        try:
            r = subprocess.run(command, env=env, cwd=d, timeout=120, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        except subprocess.TimeoutExpired as e:
            return None, 'no end; output so far: %r' % e.output
        return r.returncode, r.stdout.decode(errors='replace'), r.stderr.decode(errors='replace')


def main():
    p = argparse.ArgumentParser()
    p.add_argument('library')
    p.add_argument('-m', default='pass,changed')
    p.add_argument('names', nargs='*')
    args = p.parse_intermixed_args()
    failed = 0
    for name in args.names or PROGRAMS:
        needs, command = PROGRAMS[name]
        if not shutil.which(needs):
            print('skipped %s: no %s here' % (name, needs))
            continue
        native = run(command, None)
        for mode in args.m.split(','):
            env = dict(os.environ, LD_PRELOAD=os.path.abspath(args.library), SCI_MODE=mode)
            got = run(command, env)
            if got[:2] != native[:2]:
                failed += 1
                print('FAIL %s, mode %s\n  native: %.2000r\n  intercepted: %.2000r' % (name, mode, native, got))
        print('done', name, flush=True)
    print('%d differences' % failed)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
