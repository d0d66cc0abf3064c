# SPDX-License-Identifier: BSD-3-Clause
"""What runs, for people and for programs: `scctl status`, `scctl list`.

The broker's own status is passed on as it is (vhost-scd(8) lists its fields); what scctl knows beyond it is added. Text
for people is made from both, and leaves out what is not there: a broker of another version is no reason to say nothing.
"""

import os

import scctl_broker as broker
import scctl_config as config
import scctl_libvirt as libvirt
import scctl_vm as vm
from scctl_common import Refusal, broker_log, console_log, run_dir, show_size

LOGS = ('console', 'broker', 'agent', 'qemu')


def all_names():
    """Domains that are defined, and those that have a broker without being defined (loopback)."""
    found = set(config.names())
    try:
        found.update(name for name in os.listdir(run_dir()) if os.path.exists(broker.socket_path(name, 'ctl')))
    except OSError:
        pass
    return sorted(found)


def log_files(domain):
    """[(kind, path)] of a domain's logs, whether or not they exist."""
    name = domain.name
    loop = vm.agent_log(name)
    return [('console', console_log(name)), ('broker', broker.log_path(domain, True)), ('broker', broker_log(name)),
            ('agent', loop), ('qemu', f'/var/log/libvirt/qemu/{name}.log'), ('qemu', vm.qemu_log(name))]


def domain_facts(domain):
    """A domain's configuration, for --json."""
    return {key: value for key, value in vars(domain).items() if value not in ('', [])}


def of(name):
    """Everything known about a domain's present, as a dict with at least name and state."""
    report = {'name': name, 'state': 'down', 'defined': config.exists(name)}
    try:
        report.update(broker.ask(name, 'status'))
        del report['ok']
    except broker.NotRunning:
        if not report['defined']:
            raise Refusal(f'no domain "{name}" is defined or running: scctl list shows those that are') from None
    if report['defined']:
        domain = config.load(name)
        report.update(disk=domain.disk, memory_mib=domain.memory_mib, vcpus=domain.vcpus)
        report.setdefault('role', domain.role)
    if report.get('loopback'):
        report['isolation'] = 'none'
    return report


def _accelerator(report):
    info = report.get('info') or {}
    if report.get('loopback'):
        return 'loopback: no isolation'
    word = {'kvm': 'KVM', 'tcg': 'TCG'}.get(info.get('accelerator'), 'unknown accelerator')
    return f'{word}, {info["how"]}' if info.get('how') else word


def _count(number, word):
    return f'{number} {word}' + ('' if number == 1 else 's')


def text(report):
    """A domain's status as a few lines."""
    lines = [f'{report["name"]}: {report.get("role", "")} domain, {report["state"]}, {_accelerator(report)}'
             if report['state'] != 'down' or report.get('loopback') else
             f'{report["name"]}: {report.get("role", "")} domain, down']
    if report.get('why'):
        lines.append(f'  why: {report["why"]}')
    if report.get('disk'):
        lines.append(f'  disk: {report["disk"]}')
    lines += _serving(report)
    lines += _calls(report)
    return '\n'.join(lines) + '\n'


def _serving(report):
    """Lines about the agent that serves, or served last."""
    if not report.get('incarnations'):
        return []
    agent, pollers = report.get('agent') or {}, report.get('pollers') or {}
    lines = [f'  incarnation {report["incarnations"]}' + ('' if report.get('incarnation') else ' (ended)')
             + (f', agent {agent["version"]}, kernel {agent["kernel"]}' if agent.get('version') else '')
             + (f', ready {report["ready_ns"] / 1e9:.1f} s after its kernel started'
                if report.get('ready_ns') and not report.get('loopback') else '')]
    limits, channels = report.get('limits') or {}, report.get('channels') or []
    lines.append(f'  channels: {report.get("channels_used", 0)} of {limits.get("channels", "?")} in use, '
                 f'{show_size(limits.get("slot_size", 0))} each; {_count(report.get("open_files", 0), "open file")}')
    lines += [f'    {_printable(channel.get("comm", "(ending)"))} (pid {channel.get("pid", "-")}, uid {channel["uid"]})'
              for channel in channels]
    lines.append(f'  pollers: {pollers.get("count", 0)}, CPU {pollers.get("cpu_ns", 0) / 1e9:.2f} s; found work '
                 f'{pollers.get("spun", 0)} times, slept {pollers.get("slept", 0)}; workers\' CPU '
                 f'{pollers.get("worker_cpu_ns", 0) / 1e9:.2f} s')
    return lines


def _printable(word):
    return ''.join(c if c.isprintable() else '?' for c in word)


def _calls(report):
    """Lines about calls by type, the most frequent first."""
    calls, errors = report.get('calls') or {}, report.get('errors') or {}
    rows = sorted(((number, name) for name, number in calls.items() if number), reverse=True)
    if not rows:
        return []
    lines = [f'  calls: {sum(number for number, _ in rows)}, of which {sum(errors.values())} returned an error; '
             f'{report.get("bytes_read", 0)} bytes read, {report.get("bytes_written", 0)} written']
    lines += [f'    {name:<16} {number:>12}' + (f'  ({_count(errors[name], "error")})' if errors.get(name) else '')
              for number, name in rows]
    return lines


def listing():
    """One dict per domain."""
    rows = []
    for name in all_names():
        row = {'name': name, 'state': 'down', 'how': ''}
        try:
            domain = config.load(name) if config.exists(name) else vm.loopback_domain(name)
            row.update(role=domain.role, disk=domain.disk)
            running = vm.runners(domain)
            row['how'] = running[0].how if running else ''
            row['state'] = broker.ask(name, 'status').get('state', 'unknown')
        except broker.NotRunning:
            pass
        except Refusal as err:
            row.update(state='unknown', error=str(err))
        rows.append(row)
    return rows


def listing_text(rows):
    """The rows as a table."""
    lines = [f'{"NAME":<20} {"STATE":<10} {"HOW":<24} DISK']
    for row in rows:
        how = 'loopback: no isolation' if row['how'] == 'loopback' else row['how'] or '-'
        lines.append(f'{row["name"]:<20} {row["state"]:<10} {how:<24} {row.get("error") or row.get("disk") or "-"}')
    return '\n'.join(lines) + '\n'
