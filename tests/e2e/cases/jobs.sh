# SPDX-License-Identifier: BSD-3-Clause
# what: bash job control: background, stop, continue, foreground, wait -n, kill by job, pipelines as jobs, a terminal of its own, traps, coprocesses
# needs: python3 ps
# filter: s/line [0-9]+: +[0-9]+ Killed/Killed/
set -u
cd "$D" || exit 1
set -m
sleep 100 & jobs; kill %1; wait %1; echo "status $?"
(echo in background; cat) < /dev/null > bg & wait; cat bg
seq 5000 | sort -r | tee pipe | tail -n 2 > last & fg %% > /dev/null; cat last; wc -l < pipe
sh -c 'kill -STOP $$; echo went on' > stopped & while [ "$(ps -o state= -p $!)" != T ]; do sleep 0.05; done; jobs; cat stopped; bg %1 > /dev/null; wait %1; cat stopped
(sleep 0.3; echo slow >> order; exit 3) & (echo quick >> order; exit 4) & wait -n; echo "first $?"; wait -n; echo "second $?"; cat order
yes | (head -n 1; exit 5); echo "${PIPESTATUS[@]}"; sh -c 'kill -9 $$' 2>/dev/null; echo "status $?"
coproc C { while read -r l; do echo "got $l"; done; }
echo one >&"${C[1]}"; read -r x <&"${C[0]}"; echo "$x"; exec {w}>&"${C[1]}"; eval "exec ${C[1]}>&-"; exec {w}>&-; wait "$C_PID" 2>/dev/null; echo "coproc $?"
trap 'echo chld >> chld' CHLD; (exit 0); (exit 1) & wait; trap - CHLD; test -s chld && echo "children told"
trap 'echo exit trap > atexit' EXIT; (trap - EXIT; exit 0); set +m
mkfifo /tmp/sc-e2e-fifo.$$; cat < /tmp/sc-e2e-fifo.$$ > through & echo via fifo > /tmp/sc-e2e-fifo.$$; wait; cat through; rm -f /tmp/sc-e2e-fifo.$$
python3 - <<'EOT'
# An interactive shell on a terminal: ^Z, fg, ^C.
import os, pty, re, select, time
pid, fd = pty.fork()
if pid == 0:
    os.environ["PS1"] = "READY "
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
seen = ""

def until(text):
    global seen
    end = time.monotonic() + 60
    while text not in seen:
        if not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
            raise SystemExit("no %r in %r" % (text, seen))
        seen += os.read(fd, 4096).decode()
    seen = seen.split(text, 1)[1]

def say(line):
    os.write(fd, line.encode())

def state():
    return open("/proc/%s/stat" % open("pid").read().strip()).read().rsplit(")", 1)[1].split()[0]

until("READY ")
say("stty -echo; echo $((40 + 2))\n")
until("42"); until("READY ")
say("sh -c 'echo $$ > pid; echo started > fromtty; exec sleep 100'\n")
while not os.path.exists("fromtty") or open("fromtty").read() != "started\n":
    time.sleep(0.05)
time.sleep(0.2)
say("\x1a"); until("Stopped"); until("READY "); print("stopped", state())
say("jobs | sed 's/^/J /' >> tty.out; bg\n"); until("READY "); time.sleep(0.1); print("running", state() in "SR")
say("fg\n"); time.sleep(0.3); say("\x03"); until("READY ")
say("echo $? >> tty.out; cat tty.out; exit 9\n"); until("130")
while True:
    try:
        if not os.read(fd, 4096):
            break
    except OSError:
        break
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
EOT
rm -f pid; grep -c J tty.out; ls
