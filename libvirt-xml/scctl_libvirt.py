# SPDX-License-Identifier: BSD-3-Clause
"""libvirt: what it can tell, defining and starting domains, our hook in it, and its daemons on hosts without systemd.

All through virsh, so that what scctl does is what a person could have typed. Nothing here may be used by the hook
itself: libvirtd waits for the hook, and a hook that asks libvirtd waits for ever.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ET

from scctl_common import HERE, Refusal, log_dir, make_dirs, pid_alive, read_text, run, run_dir, to_json, write_file
from scctl_xml import SC_NS

URI = 'qemu:///system'
TIMEOUT = 60      # seconds that a virsh command may take; starting is another matter
START_TIMEOUT = 120
DAEMON_TIMEOUT = 20

DAEMONS = ('virtlogd', 'libvirtd')  # in the order in which they are started


def _virsh(args, what, timeout=TIMEOUT):
    env = dict(os.environ, LIBVIRT_DEFAULT_URI=URI, LC_ALL='C')
    return run(['virsh', '--quiet'] + args, what, timeout=timeout, env=env)


def why_unreachable():
    """Why libvirt's QEMU driver cannot be used, with the remedy; '' if it can."""
    if not shutil.which('virsh'):
        return 'virsh is not installed: apt-get install libvirt-clients libvirt-daemon-system'
    try:
        _virsh(['version'], 'asking libvirt', 20)
    except Refusal as err:
        if os.geteuid() != 0 and daemon_pid('libvirtd'):
            return 'libvirt does not answer this user: run as root, or join the group libvirt'
        if shutil.which('libvirtd', path=_sbin_path()) is None:
            return 'libvirt is not installed: apt-get install libvirt-daemon-system'
        if not daemon_pid('libvirtd') and not daemon_pid('virtqemud'):
            return 'libvirtd is not running: ' + ('systemctl start libvirtd' if has_systemd() else
                                                 'scctl libvirtd start (this host has no systemd)')
        return str(err)
    return ''


def need(way_out=''):
    """Refuses if libvirt cannot be used. way_out: what else the user can do."""
    why = why_unreachable()
    if why:
        raise Refusal(why + (f'; or {way_out}' if way_out else ''))


def security():
    """(uid, gid, apparmor): whom libvirt runs QEMU as, and whether it confines it by AppArmor."""
    root = ET.fromstring(_virsh(['capabilities'], 'asking libvirt for its capabilities'))
    uid, gid, apparmor = 0, 0, False
    for model in root.iterfind('host/secmodel'):
        name = model.findtext('model')
        apparmor |= name == 'apparmor'
        label = model.findtext("baselabel[@type='qemu']") or model.findtext('baselabel')
        if name == 'dac' and label:
            uid, gid = (int(part.lstrip('+')) for part in label.split(':'))
    return uid, gid, apparmor


def state(name):
    """libvirt's word for the domain's state ('running', 'shut off', …); '' if it knows no such domain."""
    try:
        return _virsh(['domstate', name], 'asking libvirt').strip()
    except Refusal as err:
        if 'failed to get domain' in str(err) or 'Domain not found' in str(err):
            return ''
        raise


def end_reason(name):
    """libvirt's word for why a domain that is not running is not ('destroyed', 'shutdown', 'crashed', ...); '' if it does not know."""
    try:
        text = _virsh(['domstate', '--reason', name], 'asking libvirt').strip()
    except Refusal:
        return ''
    return text.partition('(')[2].rstrip(')') if text.startswith('shut off') or text.startswith('crashed') else ''


def is_ours(name):
    """True if libvirt's domain `name` was made by scctl. The domain exists."""
    root = ET.fromstring(_virsh(['dumpxml', '--inactive', name], 'asking libvirt'))
    return root.find(f'metadata/{{{SC_NS}}}domain') is not None


def uuid_of(name):
    return _virsh(['domuuid', name], 'asking libvirt').strip()


def define(path):
    _virsh(['define', '--validate', path], 'virsh define')


def undefine(name):
    _virsh(['undefine', name], 'virsh undefine')


def start(name):
    """Starts a domain. What the hook complained of is said without libvirt's wrapping."""
    try:
        _virsh(['start', name], f'virsh start {name}', START_TIMEOUT)
    except Refusal as err:
        text = str(err).rpartition('unexpected exit status 1: scctl: ')[2]
        raise Refusal(text.replace(f"error: Failed to start domain '{name}' / error: ", '')) from err


def shutdown(name):
    """Presses the power button; a domain that is gone already is as good."""
    try:
        _virsh(['shutdown', name], f'virsh shutdown {name}')
    except Refusal as err:
        if 'domain is not running' not in str(err):
            raise


def destroy(name):
    _virsh(['destroy', name], f'virsh destroy {name}')


# ---- hook ----

def hook_path():
    return os.path.join(os.environ.get('VHOST_SC_LIBVIRT_HOOKS') or '/etc/libvirt/hooks', 'qemu.d/vhost-sc')


def hook_text():
    """The hook script for this scctl and its directories."""
    with open(os.path.join(HERE, 'qemu-hook.sh.in'), encoding='utf-8') as file:
        text = file.read()
    # libvirtd's environment is not ours: what we were told to use, the hook has to be told.
    settings = ''.join(f'export {key}={shlex.quote(value)}\n' for key, value in sorted(os.environ.items())
                       if key.startswith('VHOST_SC_'))
    return (text.replace('@SCCTL@', shlex.quote(os.path.join(HERE, 'scctl'))).replace('@NAMESPACE@', SC_NS)
            .replace('@SETTINGS@\n', settings))


def install_hook():
    """Puts the hook in its place unless it is there. True if libvirtd must be restarted to see it.

    libvirtd looks for hooks once, when it starts; so the file's date is that of its first installation, and a daemon
    that is older has not seen it. A hook that was there already is read anew each time. It stays when the last domain
    is undefined, so that the next define need not restart libvirtd.
    """
    path = hook_path()
    text = hook_text()
    old = read_text(path)
    if old != text.strip():
        date = os.stat(path).st_mtime if old is not None else None
        write_file(path, text, 0o755)
        if date is not None:
            os.utime(path, (date, date))
    return hook_unseen()


def hook_unseen():
    """True if the libvirtd that runs was started before the hook was installed."""
    pid = daemon_pid('virtqemud') or daemon_pid('libvirtd')
    try:
        return bool(pid) and _started_at(pid) + 1 < os.stat(hook_path()).st_mtime
    except OSError:
        return False


# ---- daemons ----

def has_systemd():
    return os.path.isdir('/run/systemd/system')


def _sbin_path():
    return os.environ.get('PATH', '') + ':/usr/sbin:/sbin'


def daemon_pid(name):
    """The process id of a running daemon; 0 if it does not run."""
    pid = read_text(f'/run/{name}.pid', '')
    if pid.isdigit() and pid_alive(int(pid)) and read_text(f'/proc/{pid}/comm') == name:
        return int(pid)
    return 0


def _started_at(pid):
    """When a process was started, in seconds since the epoch, to about a second."""
    ticks = int(read_text(f'/proc/{pid}/stat').rsplit(')', 1)[1].split()[19])
    boot = next(int(line.split()[1]) for line in read_text('/proc/stat').splitlines() if line.startswith('btime'))
    return boot + ticks / os.sysconf('SC_CLK_TCK')


def _record_path():
    return os.path.join(run_dir(), '.libvirt-daemons.json')


def _record():
    """{daemon: [pid, start time]} of the daemons that scctl started and that still run."""
    try:
        known = json.loads(read_text(_record_path(), '{}'))
        return {name: entry for name, entry in known.items()
                if name in DAEMONS and daemon_pid(name) == entry[0] and abs(_started_at(entry[0]) - entry[1]) < 2}
    except (ValueError, LookupError, TypeError):
        return {}


def _launch(name):
    """Starts a daemon in the background and waits for its pid. Returns the pid."""
    program = shutil.which(name, path=_sbin_path())
    if not program:
        raise Refusal(f'{name} is not installed: apt-get install libvirt-daemon-system')
    make_dirs(log_dir())
    log = os.path.join(log_dir(), name + '.start.log')
    with open(log, 'w', encoding='utf-8') as out:
        # Not run(): the daemon keeps the pipe open, and its reader would wait for as long as it lives.
        done = subprocess.run([program, '-d'], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd='/', check=False,
                              timeout=DAEMON_TIMEOUT)
    deadline = time.monotonic() + DAEMON_TIMEOUT
    while done.returncode == 0 and time.monotonic() < deadline:
        pid = daemon_pid(name)
        if pid:
            return pid
        time.sleep(0.1)
    raise Refusal(f'{name} did not start: {(read_text(log) or "no reason given").splitlines()[-1]}')


def start_daemons():
    """Makes libvirt reachable. Returns one line about what was done."""
    why = why_unreachable()
    if not why:
        return 'libvirt is running already'
    if has_systemd():
        run(['systemctl', 'start', 'libvirtd'], 'starting libvirtd', timeout=TIMEOUT)
        return 'libvirtd was started by systemd'
    record, started = _record(), []
    for name in DAEMONS:
        if not daemon_pid(name):
            pid = _launch(name)
            record[name] = [pid, _started_at(pid)]
            started.append(f'{name} (pid {pid})')
            write_file(_record_path(), to_json(record))
    deadline = time.monotonic() + DAEMON_TIMEOUT
    while why and time.monotonic() < deadline:
        time.sleep(0.2)
        why = why_unreachable()
    if why:
        raise Refusal(f'libvirt was started but does not answer: {why}; see /var/log/libvirt/libvirtd.log')
    return 'started ' + ', '.join(started)


def _end(pid, name):
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DAEMON_TIMEOUT
    while pid_alive(pid):
        if time.monotonic() > deadline:
            raise Refusal(f'{name} (pid {pid}) did not end within {DAEMON_TIMEOUT} s: see its log')
        time.sleep(0.1)


def stop_daemons():
    """Ends the daemons that start_daemons() started, and no others. Returns one line about what was done."""
    record = _record()
    if not record:
        return 'nothing to stop: scctl started no libvirt daemon that still runs'
    if 'libvirtd' in record:
        running = _virsh(['list', '--name'], 'asking libvirt').split()
        if running:
            raise Refusal(f'domain {running[0]} is running: stop it first (virsh shutdown {running[0]})')
    for name in reversed(DAEMONS):
        if name in record:
            _end(record[name][0], name)
    os.unlink(_record_path())
    return 'stopped ' + ', '.join(name for name in reversed(DAEMONS) if name in record)


def restart_daemon():
    """Restarts libvirtd so that it sees the hook. Running guests are not touched: they are QEMU's, not its children."""
    if has_systemd():
        unit = 'virtqemud' if daemon_pid('virtqemud') else 'libvirtd'
        run(['systemctl', 'try-restart', unit], f'restarting {unit}', timeout=TIMEOUT)
        return f'{unit} was restarted'
    pid = daemon_pid('libvirtd')
    record = _record()
    ours = 'libvirtd' in record
    _end(pid, 'libvirtd')
    pid = _launch('libvirtd')
    if ours:
        record['libvirtd'] = [pid, _started_at(pid)]
        write_file(_record_path(), to_json(record))
    return 'libvirtd was restarted'
