# SPDX-License-Identifier: BSD-3-Clause
"""The broker of a domain: starting vhost-scd, asking it, ending it.

The broker outlives the VM, for it owns the memory that applications wait on; `scctl start`, the libvirt hook and a
second `virsh start` all find it running and leave it alone.
"""

import json
import os
import signal
import socket
import time

from scctl_common import (Refusal, broker_log, domain_run_dir, find_program, log_dir, make_dirs, pid_alive,
                          read_text, run, run_dir)

ASK_SECONDS = 5     # an answer on ctl.sock must come within
START_SECONDS = 15  # the broker must have its sockets within
STOP_SECONDS = 15   # and be gone within, when told to stop
ANSWER_MAX = 4 << 20


class NotRunning(Refusal):
    """There is no broker to ask."""


def socket_path(name, which):
    """RUNDIR/NAME/WHICH.sock."""
    return os.path.join(domain_run_dir(name), which + '.sock')


def ask(name, command, **members):
    """Sends an order to the broker of `name` and returns its answer, a dict.

    NotRunning if nobody listens; Refusal if the answer is an error, or none comes.
    """
    path = socket_path(name, 'ctl')
    order = json.dumps(dict(members, cmd=command)).encode() + b'\n'
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(ASK_SECONDS)
            sock.connect(path)
            sock.sendall(order)
            answer = _read_line(sock)
    except (FileNotFoundError, ConnectionRefusedError) as err:
        raise NotRunning(f'domain {name} is not running: scctl start {name}, or virsh start {name}') from err
    except PermissionError as err:
        raise Refusal(f'{path} is not for this user: ask as root') from err
    except TimeoutError as err:
        raise Refusal(f'the broker of domain {name} does not answer within {ASK_SECONDS} s: see {broker_log(name)}') \
            from err
    except OSError as err:
        raise Refusal(f'{path}: {err.strerror}') from err
    try:
        data = json.loads(answer)
    except ValueError as err:
        raise Refusal(f'the broker of domain {name} answered what is not JSON: is it of another version?') from err
    if not isinstance(data, dict):
        raise Refusal(f'the broker of domain {name} answered what is not an object: is it of another version?')
    if data.get('error'):
        raise Refusal(f'the broker of domain {name} refuses "{command}": {data["error"]}')
    return data


def _read_line(sock):
    """One line, or what there is before the other side closes."""
    parts, size = [], 0
    while size < ANSWER_MAX:
        part = sock.recv(65536)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if part.endswith(b'\n'):
            break
    return b''.join(parts)


def pid(name):
    """The broker's process id; 0 if it does not run."""
    text = read_text(os.path.join(domain_run_dir(name), 'broker.pid'), '')
    if text.isdigit() and pid_alive(int(text)) and (read_text(f'/proc/{text}/comm') or '').startswith('vhost-scd'):
        return int(text)
    return 0


def died(name):
    """True if there was a broker that did not end in good order: it takes its file away then."""
    return bool(read_text(os.path.join(domain_run_dir(name), 'broker.pid'), '')) and not pid(name)


def is_running(name):
    """True if somebody answers on ctl.sock."""
    try:
        ask(name, 'status')
    except NotRunning:
        return False
    except Refusal:
        return True
    return True


def log_path(domain, loopback):
    """The broker's log: with the others; beside the sockets for a loopback domain, which needs no root."""
    if loopback and 'VHOST_SC_LOGDIR' not in os.environ:
        return os.path.join(domain_run_dir(domain.name), 'broker.log')
    return broker_log(domain.name)


def command(domain, loopback, huge='', node=-1):
    """The broker's command line. huge: size of the pages of channels, '' for ordinary ones; node: their NUMA node, or -1."""
    argv = [find_program('vhost-scd'), '--name', domain.name, '--role', domain.role, '--rundir', run_dir(),
            '--channels', str(domain.channels), '--window-size', str(domain.window_bytes),
            '--lanes', str(domain.lanes()),
            '--log', log_path(domain, loopback), '--pidfile', os.path.join(domain_run_dir(domain.name), 'broker.pid'),
            '--daemonize']
    for user in domain.allow_users:
        argv += ['--allow-user', user]
    for group in domain.allow_groups:
        argv += ['--allow-group', group]
    if domain.max_per_user:
        argv += ['--max-per-user', str(domain.max_per_user)]
    if domain.deadline_ms:
        argv += ['--deadline-ms', str(domain.deadline_ms)]
    if domain.hang_ms >= 0:
        argv += ['--hang-ms', str(domain.hang_ms)]
    if domain.retain >= 0:
        argv += ['--retain', str(domain.retain)]
    if loopback:
        argv.append('--loopback')
    elif huge:
        argv += ['--huge', huge]
    if node >= 0:
        argv += ['--numa-node', str(node)]
    return argv


def start(domain, loopback=False, huge='', node=-1):
    """Starts the broker unless it runs. True if it was started. huge, node: of channels, as for command().

    Returns when its sockets are there. A broker of the other kind (loopback or not) is refused.
    """
    name = domain.name
    if is_running(name):
        if bool(ask(name, 'status').get('loopback')) != loopback:
            raise Refusal(f'domain {name} runs as a {"VM" if loopback else "loopback domain"}: scctl stop {name} first')
        return False
    make_dirs(domain_run_dir(name))
    make_dirs(os.path.dirname(log_path(domain, loopback)) or log_dir())
    try:
        run(command(domain, loopback, huge, node), f'starting the broker of domain {name}', timeout=START_SECONDS)
    except Refusal as err:
        raise Refusal(f'{err}{_reason(log_path(domain, loopback))}') from err
    wanted = [socket_path(name, which) for which in ('ctl', 'attach', 'agent' if loopback else 'vhost')]
    deadline = time.monotonic() + START_SECONDS
    while not (all(os.path.exists(path) for path in wanted) and is_running(name)):
        if time.monotonic() > deadline:
            missing = next((path for path in wanted if not os.path.exists(path)), wanted[0])
            raise Refusal(f'the broker of domain {name} did not make {missing} within {START_SECONDS} s: see '
                          f'{log_path(domain, loopback)}')
        time.sleep(0.05)
    if not loopback:
        give_socket(domain)
    return True


def _reason(log):
    """The last error but "not started" in the broker's log, as " (reason)"; '' if it has none."""
    errors = [line.partition(' error: ')[2] for line in (read_text(log) or '').splitlines()[-3:]]
    reasons = [error for error in errors if error and error != 'not started']
    return f' ({reasons[-1]})' if reasons else ''


def give_socket(domain):
    """Gives vhost.sock to the user that QEMU runs as, and to nobody else: who connects there is the VM."""
    if domain.qemu_uid < 0:
        return
    path = socket_path(domain.name, 'vhost')
    try:
        os.chown(path, domain.qemu_uid, domain.qemu_gid)
        os.chmod(path, 0o600)
    except OSError as err:
        raise Refusal(f'{path} cannot be given to QEMU\'s user {domain.qemu_uid}: {err.strerror}') from err


def tell_info(name, info):
    """Tells the broker what it cannot know (who runs the VM, the accelerator), for its status."""
    ask(name, 'set-info', info=info)


def stop(name):
    """Ends the broker. True if there was one."""
    number = pid(name)
    if not number:
        return False
    os.kill(number, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while pid_alive(number):
        if time.monotonic() > deadline:
            raise Refusal(f'the broker of domain {name} (pid {number}) did not end within {STOP_SECONDS} s: see '
                          f'{broker_log(name)}')
        time.sleep(0.05)
    return True


class AgentRefused(Refusal):
    """The domain's agent does not go with its broker. The text says in what."""


def ready(status):
    """True if the broker's status says that the agent serves."""
    return status.get('state') == 'ready'


def wait_ready(name, seconds, gone=None):
    """Waits until the agent has reported. True if it did within `seconds`.

    gone: called now and then; what it returns, if not '', is why waiting is in vain (the VM ended), and is refused.
    AgentRefused if the broker refused the agent, as it will at the next boot.
    """
    deadline = time.monotonic() + seconds
    while True:
        report = ask(name, 'status')
        if ready(report):
            return True
        if report.get('refused'):
            raise AgentRefused(f'domain {name}: {report.get("why")}')
        why = gone() if gone else ''
        if why:
            raise Refusal(why)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
