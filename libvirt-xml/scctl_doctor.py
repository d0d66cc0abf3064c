# SPDX-License-Identifier: BSD-3-Clause
"""scctl doctor: what this host has and lacks for service domains, each with its remedy.

A check is a function from Facts to findings. What cannot be found out is a finding as well. Facts holds everything that
a check looks at, so that tests can show it another host.
"""

import ctypes
import errno
import os
import resource
import subprocess
from dataclasses import dataclass, field
from typing import Callable

import scctl_broker as broker
import scctl_config as config
import scctl_disk as disk
import scctl_libvirt as libvirt
import scctl_vm as vm
from scctl_common import Refusal, Usage, domain_run_dir, find_program, find_qemu, run_dir, show_cpus
from scctl_host import (HALT_POLL, Host, choose_pinning, default_vcpus, halt_polling, io_uring_refusal, qemu_has_io_uring,
                        qemu_has_numa)

OK, WARN, FAIL = 'OK', 'WARN', 'FAIL'

NOFILE_WANTED = 65536

_PR_SET_SYSCALL_USER_DISPATCH = 59


def _sud_refusal():
    """Why Syscall User Dispatch is not there; '' if it is. Switching it off (it is off) tells."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0) == 0:
        return ''
    return os.strerror(ctypes.get_errno())


def _device_help(qemu):
    try:
        return subprocess.run([qemu, '-device', 'help'], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ''


@dataclass
class Facts:
    """What the checks look at."""

    host: Host = field(default_factory=Host)
    which: Callable = disk.find_program     # path of a system program, or None
    ours: Callable = find_program           # path of one of our programs; raises Refusal
    qemu: Callable = find_qemu              # path of the patched QEMU; raises Refusal
    device_help: Callable = _device_help    # what `QEMU -device help` prints
    libvirt_why: Callable = libvirt.why_unreachable
    hook_unseen: Callable = libvirt.hook_unseen
    limits: Callable = resource.getrlimit
    sud_refusal: Callable = _sud_refusal
    uring_refusal: Callable = None          # default: asks the kernel of this host
    choose_accel: Callable = vm.choose_accel
    qemu_numa: Callable = qemu_has_numa
    not_serving: Callable = lambda domain: _not_serving(domain)  # why a domain whose VM runs does not serve, or ''


@dataclass
class Finding:
    """One line of the report."""

    check: str
    level: str
    text: str
    remedy: str = ''


def _accelerator(facts):
    choice = facts.choose_accel('auto')
    yield Finding('accelerator', OK if choice.accel == 'kvm' else WARN, choice.text, choice.remedy)
    if choice.accel == 'kvm':
        if facts.host.text(HALT_POLL) == '0':
            yield Finding('halt polling', WARN, 'the host does not poll before it halts a vCPU: waking costs more',
                          f'echo 200000 > {HALT_POLL}')
        else:
            yield Finding('halt polling', OK, halt_polling(facts.host, False))


def _cpus(facts):
    cpus = facts.host.cpus()
    if len(cpus) < 2:
        yield Finding('CPUs', WARN, 'one CPU: a poller and the application that waits for it take turns',
                      'use a machine with two or more CPUs')
        return
    pinning = choose_pinning(facts.host, default_vcpus(facts.host), 'auto')
    isolated = facts.host.isolated()
    chosen = show_cpus(pinning.vcpus)
    yield Finding('CPUs', OK, f'{len(cpus)} online, '
                  + (f'{show_cpus(isolated)} isolated' if isolated else 'none isolated') + f'; {pinning.why}',
                  '' if isolated or not chosen else 'to keep other programs off these CPUs, boot with isolcpus=managed_irq,domain,'
                  f'{chosen} nohz_full={chosen}')


_PROGRAMS = (
    # program, package, level if it is missing, what for
    ('virsh', 'libvirt-clients', WARN, 'domains under libvirt'),
    ('libvirtd', 'libvirt-daemon-system', WARN, 'domains under libvirt'),
    ('virtlogd', 'libvirt-daemon', WARN, 'console logs under libvirt'),
    ('mkfs.ext4', 'e2fsprogs', FAIL, 'making disks'),
    ('debugfs', 'e2fsprogs', FAIL, 'making disks'),
    ('gcc', 'gcc', WARN, 'building the guest driver'),
    ('make', 'make', WARN, 'building the guest driver'),
)


def _packages(facts):
    missing = [(program, package, level, what) for program, package, level, what in _PROGRAMS
               if not facts.which(program)]
    if not missing:
        yield Finding('packages', OK, 'all programs that are needed are installed')
    for program, package, level, what in missing:
        yield Finding('packages', level, f'{program} is not installed (for {what})', f'apt-get install {package}')


def _programs(facts):
    for name in ('vhost-scd', 'sc-agent', 'sc-agent-static', 'scrun'):
        try:
            yield Finding(name, OK, facts.ours(name))
        except Refusal as err:
            text, _, remedy = str(err).rpartition(': ')
            yield Finding(name, FAIL, text, remedy)


def _qemu(facts):
    try:
        path = facts.qemu()
    except Refusal as err:
        text, _, remedy = str(err).rpartition(': ')
        yield Finding('QEMU', FAIL, text, remedy)
        return
    if 'vhost-user-sc-pci' in facts.device_help(path):
        yield Finding('QEMU', OK, f'{path} has the device vhost-user-sc-pci')
    else:
        yield Finding('QEMU', FAIL, f'{path} does not have the device vhost-user-sc-pci',
                      'build the patched QEMU: qemu-patches/build-qemu.sh')


def _libvirt(facts):
    why = facts.libvirt_why()
    if why:
        text, _, remedy = why.partition(': ')
        yield Finding('libvirt', WARN, text, (remedy + '; ' if remedy else '') + 'or use scctl start --direct')
        return
    yield Finding('libvirt', OK, 'libvirt\'s QEMU driver answers')
    if facts.hook_unseen():
        yield Finding('libvirt hook', WARN, 'libvirtd is older than our hook and does not call it',
                      'systemctl restart libvirtd, or scctl libvirtd restart (running guests are not touched)')


def _apparmor(facts):
    if facts.host.text('/sys/module/apparmor/parameters/enabled') != 'Y':
        return
    profiles = facts.host.text('/sys/kernel/security/apparmor/profiles', '')
    if 'libvirtd' not in profiles:
        yield Finding('AppArmor', OK, 'enabled, without a profile for libvirtd')
        return
    try:
        path = facts.qemu()
    except Refusal:
        return
    known = facts.host.text('/etc/apparmor.d/local/usr.sbin.libvirtd', '')
    if os.path.realpath(path) in known:
        yield Finding('AppArmor', OK, 'libvirtd may run the patched QEMU')
    else:
        yield Finding('AppArmor', WARN, f'libvirtd\'s profile does not let it run {path}', 'scctl define adds the rule')


def _limits(facts):
    hard = facts.limits(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < NOFILE_WANTED:
        yield Finding('open files', WARN, f'at most {hard} open files per process (ulimit -Hn): a broker holds one for '
                      'each file that its domain has open', f'raise it to {NOFILE_WANTED} (limits.conf, LimitNOFILE)')
    else:
        yield Finding('open files', OK, f'up to {"any number" if hard == resource.RLIM_INFINITY else hard} per process')
    hard = facts.limits(resource.RLIMIT_MEMLOCK)[1]
    if hard != resource.RLIM_INFINITY and hard < 64 << 20:
        yield Finding('locked memory', WARN, f'at most {hard >> 10} KiB may be locked (ulimit -Hl); registered '
                      'io_uring buffers and devices that are passed through need more', 'raise memlock (limits.conf)')
    else:
        yield Finding('locked memory', OK, 'enough may be locked')


def _hugepages(facts):
    there = [(size, *facts.host.hugepages(size)) for size in facts.host.hugepage_sizes()]
    reserved = [f'{free} of {every} free of {size >> 20} MiB' for size, every, free in there if every]
    yield Finding('huge pages', OK, '; '.join(reserved) if reserved else 'none reserved; not needed, but '
                  'scctl define --hugepages 2M makes guests faster under KVM',
                  '' if reserved else 'echo 256 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages')


def _kernel(facts):
    why = facts.sud_refusal()
    if why:
        yield Finding('syscall dispatch', FAIL, f'the kernel has no Syscall User Dispatch ({why}): scrun needs it',
                      'use a kernel 5.11 or later with CONFIG_GENERIC_ENTRY (x86-64)')
    else:
        yield Finding('syscall dispatch', OK, 'the kernel has Syscall User Dispatch')
    why = facts.uring_refusal() if facts.uring_refusal else io_uring_refusal(facts.host)
    if why:
        yield Finding('io_uring', WARN, f'not for QEMU\'s disk I/O on this host ({why}): it uses Linux AIO',
                      'sysctl kernel.io_uring_disabled=0' if 'io_uring_disabled' in why else 'allow io_uring')
    else:
        yield Finding('io_uring', OK, 'QEMU may use it for the disk' + _qemu_uring(facts))
    setting = facts.host.sysctl('vm.unprivileged_userfaultfd')
    yield Finding('userfaultfd', OK, 'not in this kernel; not needed' if setting is None else
                  'for everyone' if setting == '1' else 'for user-space faults only (vm.unprivileged_userfaultfd=0), '
                  'which is enough')


def _qemu_uring(facts):
    try:
        return '' if qemu_has_io_uring(facts.qemu()) else ', but the QEMU that was built cannot: it uses Linux AIO'
    except Refusal:
        return ''


def _numa(facts):
    nodes = facts.host.nodes()
    if len(nodes) < 2:
        return
    try:
        can = facts.qemu_numa(facts.qemu())
    except Refusal:
        return
    if can:
        yield Finding('NUMA', OK, f'{len(nodes)} nodes; scctl define puts a domain on one, with guest memory and channels')
    else:
        yield Finding('NUMA', WARN, f'{len(nodes)} nodes, and the patched QEMU cannot ask for memory of one: a domain\'s vCPUs and '
                      'channels are on one node, guest memory may be on another',
                      'build it anew with libnuma: qemu-patches/build-qemu.sh')


def _domain(facts, domain):
    """A domain that is defined: whether it still fits the host, and how it is tuned for it."""
    check = 'domain ' + domain.name
    try:
        choice = facts.choose_accel(domain.accel)
    except Refusal as err:
        text, _, remedy = str(err).partition('; ')
        yield Finding(check, FAIL, text, remedy)
        return
    if choice.warning:
        yield Finding(check, WARN, choice.text, choice.remedy)
    if vm.defined_accel(domain.name) == 'kvm' and choice.accel != 'kvm':
        yield Finding(check, WARN, 'its libvirt domain asks for KVM, which does not work here now: virsh start will fail',
                      f'scctl start {domain.name}, which takes TCG, or scctl define it again')
    why = facts.not_serving(domain)
    if why:
        yield Finding(check, WARN, why, f'scctl logs {domain.name}; scctl stop {domain.name}')
    try:
        pinning = choose_pinning(facts.host, domain.vcpus, domain.pin)
        yield Finding(check, OK, '; '.join(line.strip() for line in vm.tuning(domain, choice.accel, pinning, facts.host)))
    except Refusal as err:
        text, _, remedy = str(err).rpartition(': ')
        yield Finding(check, WARN, 'its tuning does not fit this host any more: ' + text, remedy)


def _not_serving(domain):
    """Why a domain whose VM runs does not serve; '' if it does, or is down."""
    if not vm.runners(domain):
        return ''
    try:
        report = broker.ask(domain.name, 'status')
        if report.get('refused'):
            return report.get('why', '')
        return '' if broker.ready(report) else vm.silent(domain, 0).replace(' within 0 s', ' yet')
    except Refusal as err:
        return str(err)


def _directories(facts):
    path = run_dir()
    probe = path if os.path.isdir(path) else os.path.dirname(path)
    if os.access(probe, os.W_OK):
        yield Finding('directories', OK, f'sockets go to {path}')
    else:
        yield Finding('directories', WARN, f'this user may not write to {path}: root defines and starts domains',
                      'run as root, or set VHOST_SC_RUNDIR for a loopback domain')
    for name in config.names():
        try:
            domain = config.load(name)
        except Refusal as err:
            yield Finding('domain ' + name, FAIL, str(err).partition(': ')[0], str(err).partition(': ')[2])
            continue
        if domain.disk and not os.path.exists(domain.disk):
            yield Finding('domain ' + name, FAIL, f'its disk {domain.disk} is missing',
                          f'put it back, or define the domain again with --size ({domain_run_dir(name)} is kept)')
        yield from _domain(facts, domain)


CHECKS = (_accelerator, _cpus, _packages, _programs, _qemu, _libvirt, _apparmor, _limits, _hugepages, _numa, _kernel,
          _directories)


def examine(facts=None):
    """All findings."""
    facts = facts or Facts()
    findings = []
    for check in CHECKS:
        try:
            findings += check(facts)
        except (Refusal, Usage, OSError, ValueError) as err:
            reason = err.strerror if isinstance(err, OSError) and err.errno != errno.EINVAL else str(err)
            findings.append(Finding(check.__name__.lstrip('_'), WARN, f'could not be found out: {reason}'))
    return findings


def report(findings):
    """The findings as text."""
    lines = []
    for found in findings:
        lines.append(f'{found.level:<5} {found.check}: {found.text}')
        if found.remedy:
            lines.append(f'      {"remedy" if found.level != OK else "hint"}: {found.remedy}')
    counts = [sum(f.level == level for f in findings) for level in (OK, WARN, FAIL)]
    lines.append(f'{counts[0]} OK, {counts[1]} WARN, {counts[2]} FAIL'
                 + ('' if counts[2] else ': this host can run service domains'))
    return '\n'.join(lines) + '\n'
