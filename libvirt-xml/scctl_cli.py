# SPDX-License-Identifier: BSD-3-Clause
"""scctl's command line: what each command checks and does, in order.

Every command is a function that gets the parsed options. It prints data to standard output and what is going on to
standard error, and raises Refusal for what the user has to know. Exit status: 0 done, 1 failed, 2 asked for wrongly.
"""

import argparse
import os
import signal
import sys
import time

import scctl_again as again
import scctl_broker as broker
import scctl_config as config
import scctl_console as console
import scctl_disk as disk
import scctl_doctor as doctor
import scctl_host as host
import scctl_libvirt as libvirt
import scctl_net as net
import scctl_status as status
import scctl_vm as vm
from scctl_apparmor import allow_emulator
from scctl_common import (MIB, Refusal, Usage, domain_run_dir, find_program, find_qemu, locked, log_dir, make_dirs, parse_size,
                          read_text, show_size, to_json)
from scctl_vm import say


# ---- define ----

def _domain_from(args):
    """The Domain that the options describe; what they leave open comes from the host, the UUID from before."""
    domain = config.Domain(
        name=args.name, role=args.role, disk=os.path.abspath(args.disk) if args.disk else '', fs=args.fs,
        memory_mib=-(-parse_size(args.memory, '--memory') // MIB),
        vcpus=args.vcpus or host.default_vcpus(host.Host()), accel=args.accel, channels=args.channels,
        window_bytes=parse_size(args.window_size, '--window-size'), allow_users=args.allow_user,
        allow_groups=args.allow_group, max_per_user=args.max_per_user, deadline_ms=args.deadline_ms,
        hang_ms=args.hang_ms, retain=parse_size(args.retain, '--retain') if args.retain else -1,
        ready_seconds=args.ready, kernel=_absolute(args.kernel), modules=_absolute(args.modules),
        headers=_absolute(args.headers), debug_shell=args.debug_shell, cmdline=args.append, pin=args.pin,
        hugepages=args.hugepages, channel_hugepages=args.channel_hugepages, libvirt=not args.no_libvirt, qemu_user=args.qemu_user,
        tap=args.tap, pci=args.pci, addr=args.addr, gw=args.gw, addr6=args.addr6, slaac=args.slaac, dhcp=args.dhcp, dns=args.dns,
        mtu=args.mtu)
    domain.image_dir = vm.image_dir(domain.name)
    return domain.check()


def _absolute(path):
    return os.path.abspath(path) if path else ''


def _check_disk_owner(domain):
    """Refuses a disk that another domain has."""
    for other in config.names():
        if other == domain.name:
            continue
        try:
            theirs = config.load(other).disk
        except Refusal as err:
            say(f'domain {other} is left out of the check: {err}')
            continue
        if theirs and domain.disk and os.path.realpath(theirs) == os.path.realpath(domain.disk):
            raise Usage(f'disk {domain.disk} belongs to domain {other}: name another one')


def _check_libvirt(domain):
    """Looks at libvirt before anything is touched; fills in what the domain needs to know of it."""
    if not domain.libvirt:
        return
    libvirt.need('do without libvirt: --no-libvirt')
    if libvirt.state(domain.name):
        if not libvirt.is_ours(domain.name):
            raise Refusal(f'libvirt has a domain {domain.name} that scctl did not make: use another name, or virsh '
                          f'undefine {domain.name}')
        domain.uuid = libvirt.uuid_of(domain.name)
    domain.uuid = domain.uuid or config.new_uuid()
    if domain.qemu_user:
        user = config.find_user(domain.qemu_user, '--qemu-user')
        domain.qemu_uid, domain.qemu_gid = user.pw_uid, user.pw_gid
    else:
        domain.qemu_uid, domain.qemu_gid, _ = libvirt.security()
    vm.check_walls(domain, vm.user_name(domain.qemu_uid))
    domain.granted = _granted_before(domain.name)


def _granted_before(name):
    """What an earlier define of the domain granted, so that undefine can take it back."""
    try:
        return config.load(name).granted if config.exists(name) else []
    except Refusal:  # damaged: it is being replaced
        return []


def define(args):
    """Checks everything, then disk, image, configuration, libvirt; each step can be repeated."""
    domain = _domain_from(args)
    size = parse_size(args.size, '--size') if args.size else None
    root_mode = _mode(args.root_mode)
    disk.check_file_system(domain.fs)
    find_program('vhost-scd')
    find_qemu()
    choice = vm.choose_accel(domain.accel)
    pinning = host.choose_pinning(host.Host(), domain.vcpus, domain.pin)
    vm.decide_hugepages(domain, host.Host())
    vm.decide_channel_hugepages(domain, host.Host())
    _check_disk_owner(domain)
    if size is not None and domain.role != 'storage':
        raise Usage('--size is for storage domains: a network domain has no disk')
    there = domain.role != 'storage' or disk.check(domain.disk, size, domain.fs, bool(vm.runners(domain)))
    if os.geteuid() != 0 and domain.libvirt:
        raise Refusal('define needs root for the system\'s libvirt: use sudo, or --no-libvirt')
    _check_libvirt(domain)

    vm.say_choice(choice)
    for line in vm.tuning(domain, choice.accel, pinning, host.Host()):
        say(line)
    with locked(domain.name):
        there = there or os.path.exists(domain.disk)
        _make(domain, args, choice, None if there else size, root_mode)
    say(f'domain {domain.name} is defined: start it with '
        + (f'virsh start {domain.name}, or ' if domain.libvirt else '') + f'scctl start {domain.name}')
    if args.json:
        sys.stdout.write(to_json(status.domain_facts(domain)))


def _make(domain, args, choice, size, root_mode):
    """The part of define that changes things. size: of the disk to make; None: it is there."""
    make_dirs(log_dir())
    if size is not None:
        warning = disk.make(domain.disk, size, domain.fs, root_mode, 'sc-' + domain.name)
        say(f'disk {domain.disk}: made, {show_size(size)}, {domain.fs}')
        if warning:
            say(warning)
    say('guest image: making it (the first time downloads a kernel)')
    vm.make_image(domain, args.image)
    if domain.libvirt:
        vm.open_walls(domain, vm.user_name(domain.qemu_uid))
    domain.save()
    if domain.libvirt:
        _install_in_libvirt(domain, choice)


def _install_in_libvirt(domain, choice):
    """The hook, AppArmor's permission, the domain."""
    if libvirt.install_hook():
        say(libvirt.restart_daemon() + ' so that it sees the hook')
        libvirt.need()
    for line in allow_emulator(os.path.realpath(find_qemu())):
        say(line)
    vm.define_in_libvirt(domain, choice.accel)


def _mode(text):
    """Permission bits of an octal number."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise Usage(f'--root-mode {text}: not permissions in octal: write for example 1777 or 0755')
    return mode


def undefine(args):
    """Takes away what define made; the disk only if asked to."""
    config.check_name(args.name)
    with locked(args.name):
        _undefine(args)


def _undefine(args):
    domain = config.load(args.name)
    if vm.runners(domain):
        raise Refusal(f'domain {args.name} is running: scctl stop {args.name} first')
    if args.remove_disk and domain.disk and os.path.exists(domain.disk) and disk.in_use(domain.disk):
        raise Refusal(f'disk {domain.disk} is in use: {disk.in_use(domain.disk)}')
    if domain.libvirt:
        libvirt.need()
        if libvirt.state(args.name) and libvirt.is_ours(args.name):
            libvirt.undefine(args.name)
    broker.stop(args.name)
    vm.close_walls(domain)
    vm.forget(domain)
    if args.remove_disk and os.path.isfile(domain.disk):
        os.unlink(domain.disk)
        say(f'disk {domain.disk} is removed')
    say(f'domain {args.name} is undefined' + (f'; its disk {domain.disk} is kept' if domain.disk and not args.remove_disk else ''))


# ---- start, stop, wait ----

def start(args):
    """Starts a domain in one of three ways, and waits for its agent."""
    config.check_name(args.name)
    with locked(args.name):
        if args.loopback:
            _start_loopback(args)
        else:
            _start_vm(args)


def _start_vm(args):
    if args.root:
        raise Usage('--root goes with --loopback: a VM serves its disk')
    if net.given(args):
        raise Usage(f'{net.given(args)} goes with --loopback: a VM is what it was defined as')
    domain = config.load(args.name)
    others = vm.runners(domain)
    if others:
        raise Refusal(f'domain {args.name} is running already ({others[0].how})')
    if domain.role == 'storage':
        _check_disk(domain)
    direct = args.direct or not domain.libvirt
    if not direct:
        libvirt.need(f'do without libvirt: scctl start {args.name} --direct')
    runner = vm.DirectVm(domain) if direct else vm.LibvirtVm(domain)
    vm.start_vm(runner, vm.choose_accel(args.accel or domain.accel), args.wait)


def _check_disk(domain):
    if not os.path.exists(domain.disk):
        raise Refusal(f'disk {domain.disk} is missing: put it back, or define the domain again with --size')
    user = disk.in_use(domain.disk)
    if user:
        raise Refusal(f'disk {domain.disk} is in use: {user}')


def _start_loopback(args):
    if args.direct:
        raise Usage('--direct and --loopback exclude each other')
    network = []
    if args.role == 'network':
        if args.root:
            raise Usage('--root is for storage domains: a network domain serves no files')
        network = net.agent_arguments(args)
    elif net.given(args):
        raise Usage(f'{net.given(args)} is for network domains: say --role network')
    elif not args.root:
        raise Usage('--loopback needs --root DIR: the directory that it serves')
    domain = vm.loopback_domain(args.name, args.role)
    others = vm.runners(domain)
    if others:
        raise Refusal(f'domain {args.name} is running already ({others[0].how})')
    runner = vm.Loopback(domain, os.path.abspath(args.root), network)
    seconds = vm.READY_SECONDS['loopback'] if args.wait is None else args.wait
    try:
        runner.start()
        if seconds and not broker.wait_ready(args.name, seconds, runner.gone):
            raise Refusal(f'domain {args.name}: the agent did not report within {seconds} s: see '
                          f'{vm.agent_log(args.name)}')
    except Refusal:
        runner.stop()
        broker.stop(args.name)
        raise
    say(f'domain {args.name} serves {args.root or "sockets on " + args.tap}; loopback: no isolation')


def _any_domain(name):
    """A domain that is defined, or else the loopback domain of that name, which need not be."""
    return config.load(name) if config.exists(name) else vm.loopback_domain(name)


def show_net(args):
    """A network domain's interface, counters and sockets, as it told last (every second)."""
    config.check_name(args.name)
    report = broker.ask(args.name, 'net')
    if args.json:
        del report['ok']
        sys.stdout.write(to_json(report))
        return
    for line in net.lines(args.name, report):
        print(line)


def stop(args):
    """Ends VM or agent, orderly if it can be, then the broker. Also while another scctl waits for the agent."""
    domain = _any_domain(args.name)
    _known(args.name)
    running = vm.runners(domain)
    for runner in running:
        say(f'domain {args.name}: {runner.stop(args.timeout)}')
    had_broker = not args.keep_broker and broker.stop(args.name)
    if not running and not had_broker:
        say(f'domain {args.name} was not running')


def wait(args):
    """Waits for a domain's agent, or for its end."""
    domain = _any_domain(args.name)
    if args.state == 'down':
        deadline = time.monotonic() + args.timeout
        while vm.runners(domain):
            if time.monotonic() > deadline:
                raise Refusal(f'domain {args.name} is still running after {args.timeout} s')
            time.sleep(0.2)
        return
    running = vm.runners(domain)
    if not running:
        raise Refusal(f'domain {args.name} is not running: scctl start {args.name}, or virsh start {args.name}')
    began = time.monotonic()
    if not broker.wait_ready(args.name, args.timeout, running[0].gone):
        raise Refusal(f'domain {args.name}: {vm.silent(domain, args.timeout)}')
    say(f'domain {args.name}: the agent serves ({time.monotonic() - began:.1f} s)')


def restart(args):
    """A planned hand-over to the next incarnation."""
    config.check_name(args.name)
    again.restart(args.name, args.timeout)


def upgrade(args):
    """The same, to one with another kernel or agent."""
    config.check_name(args.name)
    if args.modules and not args.kernel or args.headers and not args.kernel:
        raise Usage('--modules and --headers go with --kernel: they belong to it')
    changes = {}
    if args.kernel:
        changes = {key: _absolute(getattr(args, key)) for key in ('kernel', 'modules', 'headers')}
    again.upgrade(args.name, args.timeout, changes, _absolute(args.agent))


def watch(args):
    """Supervises domains."""
    for name in args.names:
        config.check_name(name)
        _known(name)
    return again.Supervisor(args.names, args).run()


def _known(name):
    """Refuses a domain that is neither defined nor has run."""
    if not config.exists(name) and not os.path.isdir(domain_run_dir(name)):
        raise Refusal(f'no domain "{name}" is defined, nor ever ran: scctl list shows those that are')


# ---- looking ----

def list_domains(args):
    """All domains, defined or running."""
    rows = status.listing()
    sys.stdout.write(to_json(rows) if args.json else status.listing_text(rows))


def show_status(args):
    """What brokers say."""
    if args.name:
        config.check_name(args.name)
    reports = [status.of(name) for name in ([args.name] if args.name else status.all_names())]
    if args.json:
        sys.stdout.write(to_json(reports[0] if args.name else reports))
    elif not reports:
        say('no domain is defined or running: scctl define makes one')
    else:
        sys.stdout.write('\n'.join(status.text(report) for report in reports))


def run_doctor(args):
    """What the host has; fails if something that is needed is missing."""
    findings = doctor.examine()
    if args.json:
        sys.stdout.write(to_json([vars(finding) for finding in findings]))
    else:
        sys.stdout.write(doctor.report(findings))
    return 1 if any(finding.level == doctor.FAIL for finding in findings) else 0


def logs(args):
    """The last lines of a domain's logs."""
    domain = _any_domain(args.name)
    found = [(kind, path) for kind, path in status.log_files(domain)
             if args.only in ('', kind) and os.path.exists(path)]
    if not found:
        raise Refusal(f'domain {args.name} has no {args.only + " " if args.only else ""}log yet')
    for kind, path in found:
        lines = [line for line in (read_text(path) or '').split('\n') if line.strip()][-args.lines:]
        print(f'==> {kind}: {path}')
        print('\n'.join(console.printable(line) for line in lines))


def show_console(args):
    """The guest's console."""
    domain = _any_domain(args.name)
    running = vm.runners(domain)
    if not running:
        config.load(args.name)  # one that is not even defined is told so
        raise Refusal(f'domain {args.name} is not running: scctl start {args.name}')
    if running[0].how == 'libvirt':
        os.execvp('virsh', ['virsh', '-c', libvirt.URI, 'console', args.name])
    if running[0].how == 'loopback':
        raise Refusal(f'domain {args.name} is a loopback domain and has no console: scctl logs {args.name}')
    console.talk(vm.vm_of(domain, 'auto').console_socket)


def show_xml(args):
    """The domain's XML with its comments."""
    config.load(args.name)
    text = read_text(vm.xml_path(args.name))
    if text is None:
        raise Refusal(f'domain {args.name} has no XML: it was defined with --no-libvirt')
    print(text)


# ---- helpers of others ----

def broker_command(args):
    """Used by the libvirt hook: asks libvirt nothing."""
    if args.action == 'restart':
        broker.ask(_any_domain(args.name).name, 'restart')
        say(f'broker of {args.name}: replaces itself; applications keep their channels')
        return
    if args.action == 'stop':
        stopped = broker.stop(_any_domain(args.name).name)
        say(f'broker of {args.name}: ' + ('stopped' if stopped else 'was not running'))
        return
    domain = config.load(args.name)
    started = broker.start(domain, **vm.channel_memory(domain, host.Host()))
    say(f'broker of {args.name}: ' + ('started' if started else 'runs already'))
    broker.tell_info(args.name, {'how': 'libvirt', 'accelerator': vm.defined_accel(args.name)})


def libvirtd_command(args):
    """libvirt's daemons on a host without systemd."""
    do = {'start': libvirt.start_daemons, 'stop': libvirt.stop_daemons, 'restart': libvirt.restart_daemon}
    say(do[args.action]())


# ---- options ----

def _parser():
    top = argparse.ArgumentParser(prog='scctl', description='Defines, starts, stops and looks at service domains.',
                                  epilog='Exit status: 0 done, 1 failed, 2 asked for wrongly. See scctl(8).')
    sub = top.add_subparsers(dest='command', metavar='COMMAND', required=True)
    _add_define(sub)
    add = _adder(sub)

    cmd = add('undefine', undefine, 'take a domain away; its disk is kept')
    cmd.add_argument('--remove-disk', action='store_true', help='remove the disk image, with all that is on it')
    cmd = add('start', start, 'start a domain and wait until it serves')
    cmd.add_argument('--direct', action='store_true', help='run QEMU without libvirt')
    cmd.add_argument('--loopback', action='store_true', help='no VM: the agent runs on this host. No isolation')
    cmd.add_argument('--role', choices=config.ROLES, default='storage', help='with --loopback: what it serves (default storage)')
    cmd.add_argument('--root', default='', metavar='DIR', help='with --loopback: the directory to serve')
    net.add_options(cmd)
    cmd.add_argument('--accel', choices=config.ACCELERATORS, help='instead of what the domain was defined with')
    cmd.add_argument('--wait', type=_seconds, metavar='S', help='wait at most so long for the agent; 0: do not wait')
    cmd = add('stop', stop, 'stop a domain: calls finish, file system is unmounted')
    cmd.add_argument('--timeout', type=_seconds, default=vm.STOP_SECONDS, metavar='S',
                     help='then by force (default %(default)s)')
    cmd.add_argument('--keep-broker', action='store_true',
                     help='applications keep their channels and wait for the next start')
    cmd = add('restart', restart, 'stop a domain in good order and start it again; calls wait, none fails')
    _stop_timeout(cmd)
    cmd = add('upgrade', upgrade, 'the same with a new guest image: another kernel, another agent, or ours as it is now')
    cmd.add_argument('--kernel', default='', metavar='IMAGE', help='as for define; without, the kernel that it has')
    cmd.add_argument('--modules', default='', metavar='DIR', help='as for define')
    cmd.add_argument('--headers', default='', metavar='DIR', help='as for define')
    cmd.add_argument('--agent', default='', metavar='FILE', help='the agent, a static program; without, the one of this vhost-sc')
    _stop_timeout(cmd)
    cmd = add('watch', watch, 'start domains again that crash or hang, until SIGTERM', name='')
    cmd.add_argument('names', metavar='NAME', nargs='+', help='the domains')
    cmd.add_argument('--limit', type=int, default=5, metavar='N', help='give a domain up that was started N times (default %(default)s)')
    cmd.add_argument('--within', type=_seconds, default=300, metavar='S', help='within S seconds (default %(default)s)')
    cmd.add_argument('--always', action='store_true', help='start also what was shut down or destroyed')
    cmd.add_argument('--hook', default='', metavar='CMD', help='run CMD NAME EVENT REASON when something happens')
    cmd = add('wait', wait, 'wait until a domain serves, or is down')
    cmd.add_argument('--state', choices=('up', 'down'), default='up', help='which (default up)')
    cmd.add_argument('--timeout', type=_seconds, default=240, metavar='S', help='at most so long (default %(default)s)')
    cmd = add('status', show_status, 'domains, incarnations, pollers, channels, calls by type, errors', name='optional')
    _json(cmd)
    cmd = add('net', show_net, 'a network domain: interface, addresses, counters, sockets')
    _json(cmd)
    cmd = add('list', list_domains, 'all domains and their state', name='')
    _json(cmd)
    cmd = add('doctor', run_doctor, 'what this host has and lacks, with the remedies', name='')
    _json(cmd)
    cmd = add('logs', logs, 'last lines of console, broker, agent and QEMU')
    cmd.add_argument('-n', '--lines', type=int, default=40, metavar='N', help='lines of each (default %(default)s)')
    cmd.add_argument('--only', choices=status.LOGS, default='', help='one of them')
    add('console', show_console, 'the guest\'s console; leave it with Ctrl-]')
    add('xml', show_xml, 'the libvirt domain, with comments that say why each line is there')
    cmd = add('broker', broker_command, 'start, stop or replace the broker alone (the libvirt hook does)', name='')
    cmd.add_argument('action', choices=('start', 'stop', 'restart'))
    cmd.add_argument('name', metavar='NAME')
    cmd = add('libvirtd', libvirtd_command, 'libvirt\'s daemons, on hosts without systemd', name='')
    cmd.add_argument('action', choices=('start', 'stop', 'restart'),
                     help='start: unless they run; stop: those that scctl started')
    return top


def _adder(sub):
    def add(command, function, text, name='needed'):
        cmd = sub.add_parser(command, help=text, description=text[0].upper() + text[1:] + '.')
        cmd.set_defaults(function=function)
        if name:
            cmd.add_argument('name', metavar='NAME', nargs='?' if name == 'optional' else None, help='the domain')
        return cmd
    return add


def _stop_timeout(cmd):
    cmd.add_argument('--timeout', type=_seconds, default=vm.STOP_SECONDS, metavar='S',
                     help='for the end in good order; then by force (default %(default)s)')


def _json(cmd):
    cmd.add_argument('--json', action='store_true', help='for programs')


def _seconds(text):
    value = int(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError('0 to 86400 seconds')
    return value


def _add_define(sub):
    text = 'define a domain, or define it anew: disk, guest image, libvirt domain'
    cmd = sub.add_parser('define', help=text, description=text[0].upper() + text[1:] + '. The disk is made if it is '
                         'absent and never changed otherwise.')
    cmd.set_defaults(function=define)
    cmd.add_argument('name', metavar='NAME', help='letters, digits, - and _')
    cmd.add_argument('--role', choices=config.ROLES, default='storage', help='what it serves (default storage)')
    cmd.add_argument('--disk', default='', metavar='PATH', help='image file or block device')
    cmd.add_argument('--size', default='', help='of a disk that has to be made, e.g. 4G')
    cmd.add_argument('--fs', choices=sorted(disk.FILE_SYSTEMS), default='ext4', help='file system on it (default ext4)')
    cmd.add_argument('--root-mode', default='1777', metavar='OCTAL',
                     help='permissions of a new file system\'s root directory (default 1777, as /tmp)')
    cmd.add_argument('--pci', default='', metavar='ADDR', help='network: the NIC is this one of the host, by VFIO')
    net.add_options(cmd)
    cmd.add_argument('--memory', default='512M', metavar='SIZE', help='of the guest (default 512M)')
    cmd.add_argument('--vcpus', type=int, default=0, metavar='N', help='default: half of the CPUs, at most 4')
    cmd.add_argument('--accel', choices=config.ACCELERATORS, default='auto', help='default auto: KVM if it works here')
    cmd.add_argument('--channels', type=int, default=config.DEFAULT_CHANNELS, metavar='N',
                     help='processes that can be attached at a time (default %(default)s)')
    cmd.add_argument('--window-size', default='2304M', metavar='SIZE', help='shared memory of all channels and segments (default 2304M)')
    cmd.add_argument('--allow-user', action='append', default=[], metavar='USER',
                     help='who may attach; may be repeated')
    cmd.add_argument('--allow-group', action='append', default=[], metavar='GROUP',
                     help='the same for a group; without either everyone may')
    cmd.add_argument('--max-per-user', type=int, default=0, metavar='N', help='channels for each user')
    cmd.add_argument('--deadline-ms', type=int, default=0, metavar='MS',
                     help='calls wait so long for a domain that is gone')
    cmd.add_argument('--hang-ms', type=int, default=-1, metavar='MS',
                     help='the agent hangs that is silent so long with calls pending; 0: do not look (default 1000)')
    cmd.add_argument('--retain', default='', metavar='SIZE',
                     help='storage: most data that may wait for the guest\'s disk, kept on the host for a crash of the VM; 0: none is kept (default 64M)')
    cmd.add_argument('--ready', type=_seconds, default=0, metavar='S', help='the agent has to report within')
    cmd.add_argument('--kernel', default='', metavar='IMAGE', help='a guest kernel of your own, with what there is of')
    cmd.add_argument('--modules', default='', metavar='DIR',
                     help='its lib/modules/VERSION; without, what the guest needs has to be built in')
    cmd.add_argument('--headers', default='', metavar='DIR',
                     help='its build directory; without, the driver has to be built in, or among the modules')
    cmd.add_argument('--image', default='', metavar='DIR', help='a ready guest image (kvm/build-image.sh)')
    cmd.add_argument('--debug-shell', action='store_true',
                     help='an image with a shell on its console; not for production')
    cmd.add_argument('--append', default='', metavar='WORDS', help='added to the guest\'s kernel command line')
    cmd.add_argument('--pin', default='auto', metavar='auto|none|CPUS', help='host CPUs of the vCPUs (default auto)')
    cmd.add_argument('--hugepages', choices=config.HUGEPAGES, default='none', help='for guest memory (default none)')
    cmd.add_argument('--channel-hugepages', choices=config.CHANNEL_HUGEPAGES, default='none',
                     help='for the memory of channels (default none)')
    cmd.add_argument('--qemu-user', default='', metavar='USER', help='whom QEMU runs as (default: libvirt\'s choice)')
    cmd.add_argument('--no-libvirt', action='store_true', help='for scctl start alone: libvirt is left out')
    _json(cmd)


def main(argv=None):
    """Runs a command. Returns the exit status."""
    args = _parser().parse_args(argv)
    # As for an interrupt: what is half made is taken away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)  # what is made here is read by QEMU's user; files that are not for everyone say so themselves
    try:
        return args.function(args) or 0
    except Refusal as err:
        print(f'scctl: {err}', file=sys.stderr)
        return err.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print('scctl: interrupted; the command can be repeated', file=sys.stderr)
        return 130
    except OSError as err:
        print(f'scctl: {err.filename or args.command}: {err.strerror}'
              + (': run this as root' if isinstance(err, PermissionError) else ''), file=sys.stderr)
        return 1
