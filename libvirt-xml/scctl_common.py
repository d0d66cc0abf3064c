# SPDX-License-Identifier: BSD-3-Clause
"""What every part of scctl uses: its error type, where things lie, sizes, running programs, writing files.

Where things lie. scctl runs from a source tree (libvirt-xml/scctl beside kvm/, with a build directory) and from an
installation (PREFIX/libexec/vhost-sc holds scctl, its modules, kvm's scripts and the agent; PREFIX/bin the programs).
Both are told apart by where this file is. The environment overrides each directory, for tests and for people with a
tree of their own:

    VHOST_SC_BUILD     build directory (default: build beside libvirt-xml)
    VHOST_SC_QEMU      the patched qemu-system-x86_64
    VHOST_SC_CONFDIR   one JSON file per defined domain         /etc/vhost-sc
    VHOST_SC_STATEDIR  one directory per domain: its image      /var/lib/vhost-sc
    VHOST_SC_LOGDIR    logs                                     /var/log/vhost-sc
    VHOST_SC_RUNDIR    sockets, pid files                       /run/vhost-sc
    VHOST_SC_LIBVIRT_HOOKS  libvirt's hook directory            /etc/libvirt/hooks
"""

import contextlib
import fcntl
import json
import os
import re
import subprocess
import tempfile
import time


class Refusal(Exception):
    """An error that is the user's to see: one line, naming the thing and the remedy.

    code: the exit status, 1 (it failed) or 2 (it was asked for wrongly, nothing was touched).
    """

    def __init__(self, text, code=1):
        super().__init__(text)
        self.code = code


class Usage(Refusal):
    """A Refusal of what was asked for."""

    def __init__(self, text):
        super().__init__(text, 2)


HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(HERE)

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def in_tree():
    """True if this scctl belongs to a source tree and not to an installation."""
    return os.path.exists(os.path.join(TOP, 'meson.build')) and os.path.basename(HERE) == 'libvirt-xml'


def _dir(variable, default):
    return os.environ.get(variable) or default


def conf_dir():
    return _dir('VHOST_SC_CONFDIR', '/etc/vhost-sc')


def state_dir(name):
    return os.path.join(_dir('VHOST_SC_STATEDIR', '/var/lib/vhost-sc'), name)


def log_dir():
    return _dir('VHOST_SC_LOGDIR', '/var/log/vhost-sc')


def run_dir():
    return _dir('VHOST_SC_RUNDIR', '/run/vhost-sc')


def domain_run_dir(name):
    """RUNDIR/NAME: where the broker of domain `name` has its sockets."""
    return os.path.join(run_dir(), name)


def image_cache():
    """Where kvm/build-image.sh keeps what it downloaded and built."""
    return os.path.join(TOP, '.cache/kvm') if in_tree() else '/var/cache/vhost-sc'


def console_log(name):
    return os.path.join(log_dir(), name + '.console.log')


def broker_log(name):
    return os.path.join(log_dir(), name + '.broker.log')


def build_dir():
    """The build directory, whether or not it exists."""
    return os.environ.get('VHOST_SC_BUILD') or os.path.join(TOP, 'build')


# Where each of our programs is, relative to the build directory.
_PROGRAMS = {
    'vhost-scd': 'vhost-sc/vhost-scd',
    'sc-agent': 'guest-agent/sc-agent',
    'sc-agent-net': 'guest-agent/sc-agent-net',
    'sc-agent-net-static': 'guest-agent/sc-agent-net-static',
    'sc-agent-static': 'guest-agent/sc-agent-static',
    'scrun': 'hostlib/scrun',
}


def find_program(name):
    """The path of one of our programs. Raises Refusal, with the remedy, if it is not there."""
    built = os.path.join(build_dir(), _PROGRAMS[name])
    prefix = os.path.dirname(os.path.dirname(HERE))
    installed = [os.path.join(directory, name) for directory in (HERE, prefix + '/bin', prefix + '/sbin')]
    tries = [built] if in_tree() or 'VHOST_SC_BUILD' in os.environ else installed
    for path in tries:
        if os.access(path, os.X_OK):
            return os.path.realpath(path)
    if in_tree():
        raise Refusal(f'{name} is not built ({built} is missing): run `ninja -C {build_dir()}`, or set VHOST_SC_BUILD '
                      'to your build directory')
    raise Refusal(f'{name} is not installed ({tries[0]} is missing): install vhost-sc again')


def find_qemu():
    """The QEMU that has vhost-user-sc-pci. Raises Refusal if it is not built."""
    wish = os.environ.get('VHOST_SC_QEMU')
    if wish:
        if not os.access(wish, os.X_OK):
            raise Refusal(f'VHOST_SC_QEMU names {wish}, which is not a program: correct it or unset it')
        return os.path.realpath(wish)
    tries = [os.path.join(TOP, '.cache/qemu/current/bin/qemu-system-x86_64'),
             os.path.join(HERE, 'qemu/bin/qemu-system-x86_64')]
    for path in tries if in_tree() else reversed(tries):
        if os.access(path, os.X_OK):
            return path
    raise Refusal(f'the patched QEMU is not built ({tries[0] if in_tree() else tries[1]} is missing): run '
                  'qemu-patches/build-qemu.sh')


def find_kvm_dir():
    """The directory with kvm's scripts (accel.py, start.py, build-image.sh)."""
    return os.path.join(TOP, 'kvm') if in_tree() else os.path.join(HERE, 'kvm')


_UNITS = {'': 1, 'K': KIB, 'M': MIB, 'G': GIB, 'T': 1 << 40}


def parse_size(text, what):
    """Bytes of '512M', '4G', '4GiB', '1048576'. `what` names the option in the error."""
    found = re.fullmatch(r'(\d{1,15})\s*([KMGT]?)(?:i?B)?', text.strip(), re.IGNORECASE)
    if not found:
        raise Usage(f'{what}: "{text}" is not a size: write for example 512M or 4G')
    return int(found[1]) * _UNITS[found[2].upper()]


def show_size(nbytes):
    """The reverse of parse_size, in the largest unit that divides evenly."""
    for unit in 'TGMK':
        if nbytes and nbytes % _UNITS[unit] == 0:
            return f'{nbytes // _UNITS[unit]}{unit}'
    return str(nbytes)


def parse_cpus(text, what):
    """The sorted CPU numbers of a list as the kernel writes it: '0,2-5'."""
    cpus = set()
    for part in text.strip().split(','):
        found = re.fullmatch(r'(\d{1,5})(?:-(\d{1,5}))?', part.strip())
        if not found or (found[2] and int(found[2]) < int(found[1])):
            raise Usage(f'{what}: "{text}" is not a list of CPUs: write for example 2,4-7')
        cpus.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return sorted(cpus)


def show_cpus(cpus):
    """A CPU list as the kernel writes it."""
    parts, run = [], []
    for cpu in sorted(cpus) + [None]:
        if run and cpu != run[-1] + 1 if cpu is not None else run:
            parts.append(f'{run[0]}-{run[-1]}' if len(run) > 1 else f'{run[0]}')
            run = []
        run.append(cpu)
    return ','.join(parts)


def read_text(path, default=None):
    """A small file's text without surrounding white space; `default` if it cannot be read."""
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read().strip()
    except OSError:
        return default


def run(argv, what, stdin=None, timeout=None, env=None):
    """Runs a program and returns its standard output. Refusal with its last line of complaint if it fails.

    what: what it was to do, for the message. timeout: seconds.
    """
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, errors='replace', timeout=timeout,
                              env=env, check=False)
    except FileNotFoundError as err:
        raise Refusal(f'{what}: {argv[0]} is not installed: `scctl doctor` tells the package') from err
    except PermissionError as err:
        raise Refusal(f'{what}: {argv[0]} may not be run: {err.strerror}') from err
    except subprocess.TimeoutExpired as err:
        raise Refusal(f'{what}: {os.path.basename(argv[0])} did not end within {timeout} s') from err
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Refusal(f'{what}: {" / ".join(said[-3:]) or f"{argv[0]} ended with status {done.returncode}"}')
    return done.stdout


def make_dirs(path, mode=0o755):
    """os.makedirs with the error in our words."""
    try:
        os.makedirs(path, mode, exist_ok=True)
    except PermissionError as err:
        raise Refusal(f'{path} cannot be made: {err.strerror}: run this as root') from err
    except OSError as err:
        raise Refusal(f'{path} cannot be made: {err.strerror}') from err


def write_file(path, text, mode=0o644):
    """Writes a file so that it is either the old one or the new one, whatever happens in between."""
    make_dirs(os.path.dirname(path))
    temp = None
    try:
        fd, temp = tempfile.mkstemp(prefix='.' + os.path.basename(path) + '.', dir=os.path.dirname(path))
        with os.fdopen(fd, 'w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.rename(temp, path)
        temp = None
    except OSError as err:
        raise Refusal(f'{path} cannot be written: {err.strerror}'
                      + (': run this as root' if isinstance(err, PermissionError) else '')) from err
    finally:
        if temp:
            os.unlink(temp)


LOCK_SECONDS = 5


@contextlib.contextmanager
def locked(name):
    """Holds the lock of domain `name` against other scctl commands that change it; refuses if one of them goes on.

    Not for the libvirt hook: the command that makes libvirt call it holds the lock.
    """
    make_dirs(run_dir())
    path = os.path.join(run_dir(), f'.{name}.lock')
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise Refusal(f'{path} cannot be opened: {err.strerror}: run this as root, or as who started the '
                      'domain') from err
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Refusal(f'another scctl is at work on domain {name}: wait until it is done') from None
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def to_json(data):
    """JSON for --json and for our files."""
    return json.dumps(data, indent=2, sort_keys=True) + '\n'


def pid_alive(pid):
    """True if process `pid` exists and is not a zombie."""
    stat = read_text(f'/proc/{pid}/stat')
    return bool(stat) and stat.rsplit(')', 1)[1].split()[0] not in 'ZX'
