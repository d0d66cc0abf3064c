#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The whole system on real KVM: what test_kvm_system.py runs in the first level of the KVM test bed.

    kvm_inside.py WORK [-v]

WORK holds image/ (the storage guest's image) and nullcalls (tests/kvm/nullcalls.c). Not to be run elsewhere: it defines a
libvirt domain, mounts tracefs and debugfs, and leaves all that behind, since the test bed goes away.

KVM's own accounts are read in three ways. Tracepoints (kvm_exit, kvm_userspace_exit, kvm_msi_set_irq, kvm_mmio, ...)
say what happened in an interval that nullcalls marked in the same trace. Kprobes on KVM's functions count memory slots, irqfds
and ioeventfds that QEMU set. debugfs' kvm/ holds totals. Each line "REPORT KEY JSON" of the output is a measurement.
"""

import bisect
import json
import os
import re
import subprocess
import sys
import time
import unittest
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vmtest import SCRUN, TOP, Domain, run, scctl, spawn, status, until, virsh  # noqa: E402

sys.path.insert(0, os.path.join(TOP, "kvm"))
import accel  # noqa: E402

TRACING = "/sys/kernel/tracing"
DEBUGFS = "/sys/kernel/debug"
EVENTS = ("kvm_exit", "kvm_entry", "kvm_userspace_exit", "kvm_msi_set_irq", "kvm_mmio", "kvm_fast_mmio", "kvm_halt_poll_ns")
# Arguments in registers: struct kvm_userspace_memory_region, kvm_irqfd and kvm_ioeventfd of linux/kvm.h by pointer in rsi.
PROBES = {
    "sc_memslot": "__kvm_set_memory_region slot=+0(%si):u32 gpa=+8(%si):x64 size=+16(%si):u64",
    "sc_irqfd": "kvm_irqfd gsi=+4(%si):u32 flags=+8(%si):u32",
    "sc_ioeventfd": "kvm_ioeventfd addr=+8(%si):x64 len=+16(%si):u32 flags=+24(%si):u32",
}
SPIN_ROUNDS, SPIN_CALLS = 60, 200
SPIN_NS = 40000  # less than hostlib's api.c spins before it sleeps (SPIN_US)
SLEEP_CALLS, SLEEP_MS = 30, 150
# A program that writes and reads back until there is a file "stop"; it prints how many calls it made.
LOAD = """
import os, sys
os.chdir(sys.argv[1])
fd, n = os.open("load", os.O_RDWR | os.O_CREAT), 0
print("begun", flush=True)
while not os.path.exists("stop"):
    for i in range(50):
        data = b"%08d" % n * 64
        os.pwrite(fd, data, i * 512)
        assert os.pread(fd, 512, i * 512) == data
        n += 2
print(n)
"""
WORK = sys.argv[1] if len(sys.argv) > 1 else ""


def report(key, value):
    text = "REPORT %s %s" % (key, json.dumps(value, sort_keys=True))
    assert len(text) < 1000, "the guest's console breaks longer lines"
    print(text, flush=True)


def write(name, text, flag=os.O_TRUNC):
    """Writes to a file of tracefs; flag: O_TRUNC or O_APPEND. Not by open(): its seek to the end is refused there."""
    fd = os.open(os.path.join(TRACING, name), os.O_WRONLY | flag)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read().strip()


def huge_pages():
    """Free huge pages of 2 MiB."""
    return int(read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"))


class Event:
    """One line of the trace."""

    def __init__(self, task, time_us, name, text):
        self.task, self.time_us, self.name, self.text = task, time_us, name, text

    def value(self, key):
        """The number after "key=" (kprobes) or "key " (tracepoints); -1 without."""
        found = re.search(r"\b%s[= ](0x[0-9a-f]+|\d+)" % key, self.text)
        return int(found[1], 0) if found else -1


def trace_start():
    write("tracing_on", "0")
    write("trace", "")
    write("tracing_on", "1")


def trace_stop():
    """The events since trace_start(), oldest first."""
    write("tracing_on", "0")
    events = []
    with open(os.path.join(TRACING, "trace"), encoding="utf-8", errors="replace") as f:
        for line in f:
            found = re.match(r"\s*(.+)-\d+\s+\[\d+\]\s+\S+\s+(\d+)\.(\d{6}): (\w+): (.*)$", line)
            if found:
                events.append(Event(found[1].strip(), int(found[2]) * 1000000 + int(found[3]), found[4], found[5]))
    with open(os.path.join(TRACING, "per_cpu/cpu0/stats"), encoding="ascii") as f:
        lost = re.search(r"overrun: (\d+)", f.read())
    if lost and int(lost[1]):
        raise AssertionError("the trace buffer was too small")
    return events


def intervals(events):
    """[(kind, events)] of the marked intervals; kind is "calls" or "idle"."""
    result, kind, part = [], None, []
    for e in events:
        found = re.match(r"sc (\w+) \d+", e.text) if e.name == "tracing_mark_write" else None
        if not found:
            part.append(e)
            continue
        if kind:
            result.append((kind, part))
        kind, part = (found[1] if found[1] != "end" else None), []
    return result


class Tally(Counter):
    """What KVM did in some intervals, by kind."""

    def __init__(self, doorbells):
        super().__init__()
        self.doorbells = doorbells  # addresses of the device's notification area

    def take(self, events):
        for e in events:
            if e.name == "kvm_exit":
                self["exit " + re.search(r"reason (\S+)", e.text)[1]] += 1
            elif e.name == "kvm_userspace_exit":
                self["exit to QEMU, " + re.search(r"reason (\S+)", e.text)[1]] += 1
            elif e.name == "kvm_msi_set_irq":
                self["interrupt by irqfd"] += 1
            elif e.name in ("kvm_mmio", "kvm_fast_mmio"):
                at = int(re.search(r"gpa (0x[0-9a-f]+)", e.text)[1], 0)
                self["doorbell write" if at in self.doorbells else "other MMIO"] += 1

    def rings(self):
        return self["interrupt by irqfd"] + self["doorbell write"]


class System(unittest.TestCase):
    """In order of their names; the domain is one for all."""

    @classmethod
    def setUpClass(cls):
        for what, path in (("tracefs", TRACING), ("debugfs", DEBUGFS)):
            if not os.path.ismount(path):
                run(["mount", "-t", what, what, path])
        run(["/sbin/sysctl", "-q", "vm.nr_hugepages=200"])  # for the last test, while memory is in one piece
        # A kprobe that is optimized to a jump is text patched while all processors run, at which TCG has been seen to hang.
        run(["/sbin/sysctl", "-q", "debug.kprobes-optimization=0"])
        write("trace_clock", "mono")
        write("buffer_size_kb", "16384")
        for name, what in PROBES.items():
            write("kprobe_events", "p:sc/%s %s\n" % (name, what), os.O_APPEND)
            write("events/sc/%s/enable" % name, "1")
        for name in EVENTS:
            if os.path.exists(os.path.join(TRACING, "events/kvm", name)):
                write("events/kvm/%s/enable" % name, "1")
        # libvirt gives QEMU a /dev of its own, which does not come about below the test bed's chroot.
        with open("/etc/libvirt/qemu.conf", "a", encoding="utf-8") as f:
            f.write("\nnamespaces = []\n")
        # When first asked libvirt tries every QEMU, which takes minutes here; scctl does not wait so long.
        scctl("libvirtd", "start", check=False)
        virsh("capabilities", timeout=400)
        qemu = os.environ.get("VHOST_SC_QEMU") or os.path.join(TOP, ".cache/qemu/current/bin/qemu-system-x86_64")
        for accelerator in ("kvm", "qemu"):
            virsh("domcapabilities", "--virttype", accelerator, "--emulatorbin", qemu, timeout=400)
        scctl("libvirtd", "start")
        cls.d = Domain("sckvm", "--size", "256M", "--accel", "kvm", "--vcpus", "2", "--pin", "1,2", "--ready", "600", "--channels", "15",
                       "--image", os.path.join(WORK, "image"), "--append", "sc.agent.max-spin-us=10000")
        trace_start()
        began = time.monotonic()
        virsh("start", cls.d.name)
        cls.d.wait()
        cls.boot = trace_stop()
        cls.boot_seconds = time.monotonic() - began
        cls.doorbells = {e.value("addr") for e in cls.boot if e.name == "sc_ioeventfd"}

    @classmethod
    def tearDownClass(cls):
        cls.d.close()

    def test_1_doctor(self):
        """It sees KVM, and nothing that fails."""
        text = scctl("doctor").stdout
        self.assertRegex(text, r"OK +accelerator: KVM: /dev/kvm works")
        self.assertIn(" 0 FAIL", text)
        report("machine", {"kernel": os.uname().release, "cpu": accel.choose("auto").text, "cpus": os.cpu_count()})

    def test_2_kvm_serves(self):
        """The guest runs under KVM, and its devices' notifications are KVM's: irqfds and ioeventfds."""
        self.assertIn("<domain type='kvm'", virsh("dumpxml", self.d.name).stdout)
        s = status(self.d.name)
        self.assertEqual((s["state"], s["info"]["accelerator"]), ("ready", "kvm"))
        reply = json.loads(virsh("qemu-monitor-command", self.d.name, '{"execute":"query-kvm"}').stdout)
        self.assertEqual(reply["return"], {"enabled": True, "present": True})
        irqfds = sum(e.name == "sc_irqfd" and not e.value("flags") & 1 for e in self.boot)
        ioeventfds = sum(e.name == "sc_ioeventfd" and not e.value("flags") & 4 for e in self.boot)
        self.assertGreater(irqfds, 15)
        self.assertGreater(ioeventfds, 15)
        qemu = virsh("version").stdout
        report("boot", {"seconds": round(self.boot_seconds), "irqfds": irqfds, "ioeventfds": ioeventfds,
                        "memory slots set": sum(e.name == "sc_memslot" for e in self.boot),
                        "exits": sum(e.name == "kvm_exit" for e in self.boot),
                        "hypervisor": (re.search(r"Running hypervisor: (.*)", qemu) or [0, "?"])[1]})

    def test_3_sqlite_and_tar(self):
        """Unmodified programs."""
        db = self.d.path("app.db")
        self.assertEqual(self.d.run("sqlite3", db, "create table t(x); insert into t values(1); select * from t;").stdout, "1\n")
        self.d.sh("tar -C %s -cf - include vhost-sc | (mkdir %s; tar -C %s -xf -) && tar -C %s -df - </dev/null; tar -C %s -cf - include vhost-sc"
                  " | tar -C %s -df -" % (TOP, *[self.d.path("src")] * 3, TOP, self.d.path("src")))
        self.assertFalse(os.path.exists(self.d.mount))

    def test_4_attach_and_detach_under_load(self):
        """Channels come and go while calls run: each is one memory slot set and one taken away; no call fails."""
        p = spawn(self.d.route, "python3", "-c", LOAD, self.d.mount)
        self.assertEqual(p.stdout.readline(), "begun\n")
        trace_start()
        times = 6
        for i in range(times):
            self.assertEqual(self.d.run("sh", "-c", "echo %d > %s; read x < %s; echo $x" % (i, *[self.d.path("short")] * 2)).stdout,
                             "%d\n" % i)
        until("only the load is attached", lambda: len(status(self.d.name)["channels"]) <= 1)
        events = [e for e in trace_stop() if e.name == "sc_memslot"]
        self.d.run("touch", self.d.path("stop"))
        out, _ = p.communicate(timeout=300)
        self.assertEqual(p.returncode, 0, out)
        added = sum(e.value("size") > 0 for e in events)
        removed = sum(e.value("size") == 0 for e in events)
        report("memory slots", {"processes": times, "calls of another meanwhile": int(out), "slots set": added, "slots removed": removed})
        self.assertGreaterEqual(added, times)
        self.assertGreaterEqual(removed, times)

    def null_calls(self, *argv):
        """Runs nullcalls; returns the lines that it printed and the marked intervals."""
        trace_start()
        said = run(["taskset", "-c", "0", os.path.join(WORK, "nullcalls"), self.d.name, TRACING + "/trace_marker", *map(str, argv)]).stdout
        return said.splitlines(), intervals(trace_stop())

    def test_5_spinning_call_is_no_exit(self):
        """Of all calls, those for which caller and poller spun rang no doorbell; what exits there were are the clock ticks'."""
        said, parts = self.null_calls("spin", SPIN_ROUNDS, SPIN_CALLS)
        times = [tuple(map(int, line.split())) for line in said[1:]]
        self.assertEqual(len(times), SPIN_ROUNDS * SPIN_CALLS)
        # Who waits for less than the library spins at least did not sleep. A bell for a caller that was about to sleep when
        # the answer came may ring as late as in the next call, which therefore has to follow such a call.
        quick = [end - begin < SPIN_NS for begin, end in times]
        spun = [now and before for before, now in zip([True] + quick, quick)]
        begins = [begin for begin, _ in times]
        during = {True: Tally(self.doorbells), False: Tally(self.doorbells)}
        idle = Tally(self.doorbells)
        for kind, events in parts:
            if kind == "idle":
                idle.take(events)
            for e in events if kind == "calls" else ():
                at = bisect.bisect_right(begins, e.time_us * 1000 + 999) - 1
                during[at < 0 or spun[at]].take([e])
        calls, took = sum(spun), [end - begin for begin, end in times]
        report("spinning", {
            "calls": len(times), "spun": calls, "ns per call": sorted(took)[len(took) // 2],
            "ms spun": round(sum(t for t, s in zip(took, spun) if s) / 1e6), "ms other": round(sum(t for t, s in zip(took, spun) if not s) / 1e6),
            "during spun": during[True], "during others": during[False], "without": idle})
        self.assertGreater(calls, 500, "almost all calls took longer than their caller spins: is anything else running here?")
        self.assertEqual(during[True].rings(), 0, during)
        strange = {what: n for what, n in during[True].items() if not re.fullmatch("exit (interrupt|msr|vintr|hlt|npf)", what)}
        self.assertEqual(strange, {})
        self.assertLess(sum(during[True].values()), calls / 100)

    def test_6_sleeping_call_costs_its_doorbells(self):
        """Calls with pauses: one interrupt in, by irqfd; one doorbell out, by ioeventfd; QEMU has no part in it. The rest is what
        a bell costs that brings no call."""
        # The guest's disk rings too: first nothing is left to be written.
        self.d.run("sync")
        time.sleep(6)
        for mode, bells in (("sleep", (1, 1)), ("bell", (1, 0))):
            _, parts = self.null_calls(mode, SLEEP_CALLS, SLEEP_MS)
            calls, idle, every, both = Tally(self.doorbells), Tally(self.doorbells), Tally(self.doorbells), 0
            for (kind, events), (_, after) in zip(parts[::2], parts[1::2]):
                self.assertEqual(kind, "calls")
                one = Tally(self.doorbells)
                one.take(events)
                every.update(one)
                if (one["interrupt by irqfd"], one["doorbell write"]) == bells:  # else a side was awake, or the disk rang
                    both += 1
                    calls.update(one)
                    idle.take(after)
            report(mode, {"calls": both, "all calls": SLEEP_CALLS, "during calls": calls, "without calls": idle, "during all rounds": every})
            self.assertGreaterEqual(both, SLEEP_CALLS // 5, every)
            self.assertEqual(sum(n for what, n in calls.items() if "QEMU" in what), 0, calls)

    def test_7_destroy_and_start(self):
        """virsh destroy, virsh start, while a program writes and reads back: it goes on, and what was written, synced or not, is there."""
        self.d.run("rm", "-f", self.d.path("stop"))
        p = spawn(self.d.route, "python3", "-c", LOAD, self.d.mount)
        self.assertEqual(p.stdout.readline(), "begun\n")
        self.d.sh("echo kept > %s" % self.d.path("kept"))
        began = time.monotonic()
        self.d.destroy()
        self.d.start()
        self.assertEqual(self.d.run("cat", self.d.path("kept")).stdout, "kept\n")
        seconds = time.monotonic() - began
        self.assertEqual(self.d.run("sqlite3", self.d.path("app.db"), "select * from t;").stdout, "1\n")
        self.assertIsNone(p.poll())
        self.d.run("touch", self.d.path("stop"))
        out, _ = p.communicate(timeout=300)
        self.assertEqual(p.returncode, 0, out)
        report("restart", {"seconds": round(seconds), "calls of a program that went on": int(out)})

    def test_8_totals_and_shutdown(self):
        """KVM's totals, then an orderly end: the file system is clean."""
        totals = {}
        for entry in os.listdir(DEBUGFS + "/kvm"):
            path = os.path.join(DEBUGFS, "kvm", entry)
            if os.path.isfile(path):
                with open(path, encoding="ascii") as f:
                    totals[entry] = int(f.read().split()[0])
        report("totals", {k: v for k, v in totals.items() if v})
        self.d.shutdown()
        self.assertRegex(run(["dumpe2fs", "-h", self.d.disk]).stdout, r"Filesystem state:\s+clean")

    def test_9_agent_is_silent(self):
        """A guest that runs under KVM and whose agent has not reported in time (5 s are too few here): with the accelerator left to
        scctl it is ended and started under TCG; with KVM asked for, it is left alone. Both are told, with the remedy."""
        d = Domain("sckvm3", "--no-libvirt", "--size", "64M", "--channels", "7", "--window-size", "128M", "--image", os.path.join(WORK, "image"))
        self.addCleanup(d.close)
        self.addCleanup(scctl, "stop", d.name, "--timeout", "1", check=False)
        p = scctl("start", d.name, "--wait", "5", check=False)
        self.assertEqual(p.returncode, 1, p.stdout)
        self.assertRegex(p.stdout, "accelerator KVM: /dev/kvm works\n(.*\n)*.*did not report within 5 s under KVM: see .*; try accelerator tcg\n"
                         ".*falling back to TCG.*\n.*accelerator TCG, since KVM did not serve.*\n(.*\n)*.*did not report within 5 s under TCG: see ")
        scctl("stop", d.name, "--timeout", "1")
        p = scctl("start", d.name, "--wait", "5", "--accel", "kvm", check=False)
        self.assertEqual(p.returncode, 1, p.stdout)
        self.assertRegex(p.stdout, "did not report within 5 s under KVM: .* \\(the VM is left running: scctl console, scctl stop\\)")
        self.assertNotIn("TCG", p.stdout)
        self.assertRegex(scctl("doctor", check=False).stdout, "domain sckvm3: the agent did not report yet under KVM")

    def test_9_network_and_redis(self):
        """A network domain: DPDK drives its NIC behind the guest's virtual IOMMU; redis is served there to clients outside."""
        name, tap, host, guest = "sckvmn", "sc-kvmn", "10.79.79.1", "10.79.79.2"
        scctl("define", name, "--role", "network", "--no-libvirt", "--accel", "kvm", "--tap", tap, "--addr", guest + "/24", "--gw", host,
              "--vcpus", "1", "--channels", "7", "--window-size", "256M", "--ready", "600", "--image", os.path.join(WORK, "image-net"))
        self.addCleanup(scctl, "undefine", name, check=False)
        self.addCleanup(scctl, "stop", name, check=False)
        scctl("start", name, timeout=300)
        run(["ip", "addr", "add", host + "/24", "dev", tap])
        run(["ip", "link", "set", tap, "up"])
        server = subprocess.Popen([SCRUN, "--network", name, "--", "redis-server", "--bind", guest, "--save", "", "--protected-mode", "no"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        until("redis", lambda: "PONG" in run(["timeout", "20", "redis-cli", "-h", guest, "ping"], check=False).stdout, 120)
        trace_start()
        out = run(["redis-benchmark", "-h", guest, "-t", "set,get", "-n", "1000", "-c", "10", "-d", "64", "--csv"], timeout=300).stdout
        calls, tally = 2000, Tally(set())
        tally.take(trace_stop())
        self.assertRegex(out, r'"SET","[\d.]+"')
        self.assertEqual(run(["redis-cli", "-h", guest, "dbsize"]).stdout, "1\n")
        self.assertIn("tcp", scctl("net", name).stdout)
        report("network", {"redis requests": calls, "exits meanwhile": sum(n for what, n in tally.items() if what.startswith("exit ")),
                           "exits to QEMU meanwhile": sum(n for what, n in tally.items() if "QEMU" in what)})
        server.terminate()
        server.wait(60)

    def test_9_huge_pages_and_pins(self):
        """Without libvirt: guest memory and channels on huge pages, each thread of QEMU on its CPUs."""
        d = Domain("sckvm2", "--no-libvirt", "--size", "128M", "--accel", "kvm", "--vcpus", "2", "--pin", "1,2", "--ready", "600",
                   "--memory", "256M", "--hugepages", "2M", "--channels", "7", "--window-size", "128M", "--channel-hugepages", "2M",
                   "--image", os.path.join(WORK, "image"))
        self.addCleanup(d.close)
        before = huge_pages()
        scctl("start", d.name, timeout=300)
        self.addCleanup(scctl, "stop", d.name, check=False)
        guest = before - huge_pages()
        p = spawn(d.route, "python3", "-c", "import os,sys; os.listdir(sys.argv[1]); print('in', flush=True); sys.stdin.read()", d.mount)
        self.assertEqual(p.stdout.readline(), "in\n")
        pid = read("/run/vhost-sc/%s/qemu.pid" % d.name)
        affinity = {read("/proc/%s/task/%s/comm" % (pid, t)): sorted(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/%s/task" % pid)}
        p.communicate(timeout=120)
        self.assertEqual(p.returncode, 0)
        self.assertEqual([affinity["CPU 0/KVM"], affinity["CPU 1/KVM"]], [[1], [2]])
        # io_uring's workers ("iou-...") are the kernel's, which puts them where the ring was made.
        others = {name: cpus for name, cpus in affinity.items() if not name.startswith(("CPU ", "iou-"))}
        self.assertEqual({tuple(cpus) for cpus in others.values()}, {(0,)}, others)
        self.assertEqual(d.run("sqlite3", d.path("app.db"), "create table t(x); insert into t values(2); select * from t;").stdout, "2\n")
        report("huge pages", {"pages of guest memory (2 MiB)": guest, "threads on their CPUs": len(affinity)})
        self.assertEqual(guest, 128)
        self.assertIs(status(d.name).get("limits", {}).get("huge"), True)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:], failfast=False)
