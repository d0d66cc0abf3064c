# SPDX-License-Identifier: BSD-3-Clause
"""What the VM tests share: running scctl, virsh and scrun, and a storage domain of a test's own.

A domain is defined with a name of its own and a disk in a temporary directory, started with virsh, and always taken away
again, whatever happened. Nothing is measured here; times are limits only, generous because CI runs VMs under TCG.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("VHOST_SC_BUILD", os.path.join(TOP, "build"))
SCRUN = os.path.join(BUILD, "hostlib", "scrun")
SCCTL = os.path.join(TOP, "libvirt-xml", "scctl")
SLOW = int(os.environ.get("VHOST_SC_TEST_SLOW", "1"))  # all times are longer by this factor (in the KVM test bed)


def run(argv, timeout=180, check=True, **kw):
    """Runs a command; returns the finished process with its output as text. check: a failure is the test's."""
    p = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout * SLOW, check=False, **kw)
    if check and p.returncode != 0:
        raise AssertionError("%s: status %d\n%s" % (" ".join(str(a) for a in argv), p.returncode, p.stdout))
    return p


def scctl(*args, **kw):
    return run([sys.executable, SCCTL] + list(args), **kw)


def virsh(*args, **kw):
    return run(["virsh"] + list(args), **kw)


def scrun(routes, *argv, **kw):
    """Runs a program under scrun; routes: "NAME:PATH" or several."""
    routes = [routes] if isinstance(routes, str) else routes
    return run([SCRUN] + [a for r in routes for a in ("--storage", r)] + ["--"] + list(argv), **kw)


def spawn(routes, *argv, **kw):
    """The same in the background; the caller ends it."""
    routes = [routes] if isinstance(routes, str) else routes
    return subprocess.Popen([SCRUN] + [a for r in routes for a in ("--storage", r)] + ["--"] + list(argv), stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)


def status(name):
    return json.loads(scctl("status", "--json", name).stdout)


def until(what, f, seconds=60):
    """Waits until f() is true; an AssertionError that says what did not happen otherwise."""
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        if f():
            return
        time.sleep(0.2)
    raise AssertionError("not within %d s: %s" % (seconds, what))


class Domain:
    """A storage domain for a test class: with Domain("name", "--size", "1G") as d: …"""

    def __init__(self, name, *define):
        self.name = name
        self.dir = tempfile.mkdtemp(prefix="sc-vm.")
        os.chmod(self.dir, 0o755)
        self.disk = os.path.join(self.dir, "disk.img")
        self.mount = os.path.join(self.dir, "sc")  # never exists on the host
        self.route = "%s:%s" % (name, self.mount)
        self.remove()
        scctl("define", name, "--role", "storage", "--disk", self.disk, *define)

    def start(self):
        virsh("start", self.name)
        self.wait()

    def wait(self):
        scctl("wait", self.name, "--timeout", str(240 * SLOW), timeout=300)

    def shutdown(self):
        """An orderly shutdown by virsh; returns when the VM is off."""
        virsh("shutdown", self.name)
        until("virsh domstate: shut off", lambda: "shut off" in virsh("domstate", self.name).stdout, 120)

    def destroy(self):
        virsh("destroy", self.name)

    def remove(self):
        virsh("destroy", self.name, check=False)
        scctl("undefine", self.name, check=False)

    def path(self, *parts):
        return os.path.join(self.mount, *parts)

    def run(self, *argv, **kw):
        return scrun(self.route, *argv, **kw)

    def sh(self, script, **kw):
        return scrun(self.route, "sh", "-c", script, cwd="/", **kw)

    def close(self):
        self.remove()
        shutil.rmtree(self.dir, ignore_errors=True)
