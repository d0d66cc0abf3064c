# SPDX-License-Identifier: BSD-3-Clause
"""The VM of a domain: its image, what it looks like on this host, and running it with libvirt, without, or not at all.

kvm/start.py says what a service VM is; a VM under libvirt gets its kernel command line and its kernel from there too,
so that both ways of starting agree. The three ways are classes with the same methods (start, stop, running, gone):
LibvirtVm, DirectVm and Loopback.
"""

import json
import os
import pwd
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import scctl_broker as broker
import scctl_libvirt as libvirt
import scctl_net as net
from scctl_common import (GIB, MIB, Refusal, Usage, console_log, domain_run_dir, find_kvm_dir, find_program, find_qemu, image_cache,
                          log_dir, make_dirs, pid_alive, read_text, run, show_cpus, state_dir, to_json, write_file)
from scctl_config import Domain, check_name, config_path, load, names
from scctl_disk import find_program as find_system_program
from scctl_host import (Host, choose_pinning, halt_polling, hugepages_enough, io_uring_refusal, qemu_has_io_uring,
                        qemu_has_numa, takes_direct_io)
from scctl_xml import Setting, generate

sys.path.insert(0, find_kvm_dir())
import accel as kvm_accel  # noqa: E402
import start as kvm_start  # noqa: E402

READY_SECONDS = {'kvm': 45, 'tcg': 240, 'loopback': 15}
STOP_SECONDS = 90
IMAGE_SECONDS = 1800  # building the image the first time downloads a kernel

HUGE = {'2M': 2 * MIB, '1G': GIB}


def say(text):
    """A line about what is going on: not data, so not on standard output."""
    print(f'scctl: {text}', file=sys.stderr, flush=True)


def choose_accel(wish):
    """kvm's Choice for a wish, with its refusals as ours."""
    try:
        return kvm_accel.choose(wish)
    except kvm_accel.Unavailable as err:
        raise Refusal(str(err)) from err


def say_choice(choice):
    """Explains the accelerator: one line, remedy included."""
    say('accelerator ' + choice.text + (f' (remedy: {choice.remedy})' if choice.remedy else ''))


# ---- image ----

def image_dir(name):
    return os.path.join(state_dir(name), 'image')


def make_image(domain, ready_made='', out='', agent_file=''):
    """Makes the guest image of a domain, or takes one that kvm/build-image.sh made before. Returns its directory.

    out: the directory; the domain's own if it is not given. agent_file: an agent other than ours.
    """
    out = out or image_dir(domain.name)
    make_dirs(state_dir(domain.name))
    if ready_made:
        _copy_image(ready_made, out)
        return out
    script = os.path.join(find_kvm_dir(), 'build-image.sh')
    agent = 'sc-agent-static' if domain.role == 'storage' else 'sc-agent-net-static'
    argv = [script, '--role', domain.role, '--agent', agent_file or find_program(agent), '--out', out]
    for option in ('kernel', 'modules', 'headers'):
        if getattr(domain, option):
            argv += ['--' + option, getattr(domain, option)]
    if domain.debug_shell:
        argv.append('--debug-shell')
    env = dict(os.environ)
    env.setdefault('SC_CACHE', image_cache())
    run(argv, 'making the guest image', timeout=IMAGE_SECONDS, env=env)
    return out


def _copy_image(source, out):
    """Copies an image directory so that the copy is complete or absent."""
    for file in ('vmlinuz', 'initramfs.img', 'manifest.json'):
        if not os.path.isfile(os.path.join(source, file)):
            raise Refusal(f'--image {source}: {file} is missing there: make it with kvm/build-image.sh')
    temp = out + '.new'
    shutil.rmtree(temp, ignore_errors=True)
    shutil.copytree(source, temp)
    shutil.rmtree(out, ignore_errors=True)
    os.rename(temp, out)


# ---- what the VM looks like here ----

def decide_hugepages(domain, host):
    """'' or the size of the pages that guest memory gets. Refuses a wish that cannot be met, before QEMU does."""
    if domain.hugepages == 'none':
        return ''
    for size in (['1G', '2M'] if domain.hugepages == 'auto' else [domain.hugepages]):
        if domain.memory_mib * MIB % HUGE[size] == 0 and hugepages_enough(host, HUGE[size], domain.memory_mib):
            return size
    if domain.hugepages == 'auto':
        return ''
    size = domain.hugepages
    need = -(-domain.memory_mib * MIB // HUGE[size])
    if domain.memory_mib * MIB % HUGE[size]:
        raise Refusal(f'--hugepages {size}: --memory {domain.memory_mib}M is not a multiple of it')
    raise Refusal(f'--hugepages {size}: {need} free pages are needed, {host.hugepages(HUGE[size])[1]} are there: '
                  f'echo {need} > /sys/kernel/mm/hugepages/hugepages-{HUGE[size] // 1024}kB/nr_hugepages')


def decide_channel_hugepages(domain, host):
    """'' or '2M', the size of the pages of channels. Refuses a wish that cannot be met, before the broker does.

    At least one channel must find its pages beside guest memory; 'auto' wants them for all channels. A broker that runs has
    its own.
    """
    if domain.channel_hugepages == 'none' or domain.slot_bytes() < 2 * MIB or broker.pid(domain.name):
        return '' if domain.channel_hugepages == 'auto' else domain.channel_hugepages.replace('none', '')
    guest = domain.memory_mib if decide_hugepages(domain, host) == '2M' else 0
    free = host.hugepages(HUGE['2M'])[1] - guest // 2
    one = domain.slot_bytes() // HUGE['2M']
    if domain.channel_hugepages == 'auto':
        return '2M' if free >= one * domain.channels else ''
    if free < one:
        need = one * domain.channels + guest // 2
        raise Refusal(f'--channel-hugepages 2M: a channel takes {one} free pages, {max(free, 0)} are there; for all {domain.channels} '
                      f'channels{" and guest memory" if guest else ""}: echo {need} > '
                      '/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages')
    return '2M'


def channel_memory(domain, host):
    """What broker.start() needs to know of channels on this host: huge pages, NUMA node.

    The node is that of the vCPUs: pollers look at channels all the time, an application at its own now and then.
    """
    try:
        node = choose_pinning(host, domain.vcpus, domain.pin).node
    except Usage:
        node = -1  # the wish no longer fits this host; start says so
    return {'huge': decide_channel_hugepages(domain, host), 'node': node}


def tuning(domain, accelerator, pinning, host):
    """What was done to make the domain fast here, and why not more: lines for people."""
    yield f'pinning: {pinning.why}'
    if pinning.vcpus and not set(pinning.vcpus) <= set(host.isolated()):
        cpus = show_cpus(pinning.vcpus)
        yield (f'  CPU {cpus}: not isolated, so other programs may run there; to keep them off, boot the host with '
               f'isolcpus=managed_irq,domain,{cpus} nohz_full={cpus}')
    pages = decide_hugepages(domain, host)
    yield 'guest memory: ' + (f'huge pages of {pages}' if pages else 'ordinary pages (huge ones: --hugepages 2M)')
    pages = decide_channel_hugepages(domain, host)
    yield 'channels: ' + (f'huge pages of {pages}' if pages else 'ordinary pages (huge ones: --channel-hugepages 2M)')
    if pinning.node >= 0:
        near = qemu_has_numa(find_qemu())
        yield f'NUMA: node {pinning.node} for vCPUs' + (
            ', guest memory and channels' if near else ' and channels; guest memory is where the scheduler has it, since the patched QEMU '
            'was built without libnuma: qemu-patches/build-qemu.sh')
    if accelerator == 'kvm':
        yield 'halt polling: ' + halt_polling(host, bool(pinning.vcpus) and set(pinning.vcpus) <= set(host.isolated()))


def vm_of(domain, accelerator, host=None):
    """kvm's Vm for a domain, for a start without libvirt (and for what its XML takes from there)."""
    host = host or Host()
    pinning = choose_pinning(host, domain.vcpus, domain.pin)
    here = domain_run_dir(domain.name)
    return kvm_start.Vm(
        name=domain.name, qemu=find_qemu(), image=domain.image_dir, role=domain.role, disk=domain.disk,
        fstype=domain.fs, memory_mib=domain.memory_mib, hugepages=decide_hugepages(domain, host), vcpus=domain.vcpus,
        cpus=pinning.vcpus, io_cpus=pinning.iothread,
        emulator_cpus=pinning.emulator, node=_memory_node(pinning), accel=accelerator, broker_socket=os.path.join(here, 'vhost.sock'),
        num_channels=domain.channels, window_bytes=domain.window_bytes, append=domain.cmdline,
        console_log=console_log(domain.name), console_socket=os.path.join(here, 'console.sock'),
        qemu_log=qemu_log(domain.name), pid_file=os.path.join(here, 'qemu.pid'),
        qmp_socket=os.path.join(here, 'qmp.sock'), tap=domain.tap, pci=domain.pci,
        agent_words=net.agent_words(domain) if domain.role == 'network' else [])


def _memory_node(pinning):
    """The NUMA node that guest memory is asked from; -1 if none, or if QEMU cannot ask."""
    return pinning.node if pinning.node >= 0 and qemu_has_numa(find_qemu()) else -1


def qemu_log(name):
    return os.path.join(log_dir(), name + '.qemu.log')


def setting_of(domain, accelerator, apparmor=False, host=None):
    """What this host adds to a domain's XML. The disk exists, or its directory does."""
    host = host or Host()
    vm = vm_of(domain, accelerator, host)
    pinning = choose_pinning(host, domain.vcpus, domain.pin)
    try:
        kernel, initrd = kvm_start.image_files(vm.image, accelerator)
    except kvm_start.Failure as err:
        raise Refusal(str(err)) from err
    return Setting(
        accel=accelerator, emulator=vm.qemu, kernel=kernel, initrd=initrd, cmdline=kvm_start.cmdline(vm, accelerator),
        pinning=pinning, memory_node=vm.node, isolated=set(pinning.vcpus) <= set(host.isolated()), hugepages=vm.hugepages,
        direct_io=not domain.disk or takes_direct_io(domain.disk if os.path.exists(domain.disk) else os.path.dirname(domain.disk)),
        mac=kvm_start.mac_of(domain.name), tap_exists=net.tap_stays(domain.tap), apparmor=apparmor,
        io_uring=not io_uring_refusal(host) and qemu_has_io_uring(vm.qemu), qemu_ids=(domain.qemu_uid, domain.qemu_gid) if domain.qemu_user else ())


def xml_path(name):
    return os.path.join(state_dir(name), 'domain.xml')


def defined_accel(name):
    """The accelerator that the domain's XML asks for; '' if there is no XML."""
    try:
        kind = ET.parse(xml_path(name)).getroot().get('type')
    except (OSError, ET.ParseError):
        return ''
    return 'kvm' if kind == 'kvm' else 'tcg'


def define_in_libvirt(domain, accelerator):
    """Writes the domain's XML for this host and defines it."""
    apparmor = libvirt.security()[2]
    write_file(xml_path(domain.name), generate(domain, setting_of(domain, accelerator, apparmor)))
    libvirt.define(xml_path(domain.name))


# ---- who may read what ----

def may_reach(path, uid, gid, assume=()):
    """The first directory on the way to `path` that (uid, gid) may not enter; '' if there is none.

    assume: directories that are taken to be no obstacle. Groups other than gid are not asked: an answer that is too
    strict costs an ACL entry that was not needed.
    """
    if uid == 0:
        return ''
    directory = os.path.dirname(os.path.realpath(path))
    while not os.path.isdir(directory):  # what is still to be made will let everyone in
        directory = os.path.dirname(directory)
    while True:
        about = os.stat(directory)
        bit = stat.S_IXUSR if about.st_uid == uid else stat.S_IXGRP if about.st_gid == gid else stat.S_IXOTH
        if not about.st_mode & bit and directory not in assume and not _acl_grants(directory, uid):
            return directory
        if directory == '/':
            return ''
        directory = os.path.dirname(directory)


_ACL_USER, _ACL_MASK = 0x02, 0x10  # linux/posix_acl_xattr.h
_ACL_ENTRY = struct.Struct('<HHI')


def _acl_grants(directory, uid):
    """True if an access ACL names this user with search permission, and its mask lets it through."""
    try:
        acl = os.getxattr(directory, 'system.posix_acl_access')
    except OSError:
        return False
    granted, mask = 0, 7
    for tag, perm, who in _ACL_ENTRY.iter_unpack(acl[4:]):
        if tag == _ACL_USER and who == uid:
            granted = perm
        elif tag == _ACL_MASK:
            mask = perm
    return bool(granted & mask & 1)


def walls(domain):
    """Directories on the way to disk, QEMU and guest image that QEMU's user may not enter."""
    found = []
    for path in filter(None, (domain.disk, find_qemu(), os.path.join(domain.image_dir, 'vmlinuz'))):
        wall = may_reach(path, domain.qemu_uid, domain.qemu_gid, found)
        while wall:
            found.append(wall)
            wall = may_reach(path, domain.qemu_uid, domain.qemu_gid, found)
    return found


def check_walls(domain, user):
    """Refuses walls that define could not open."""
    found = walls(domain)
    if found and not find_system_program('setfacl'):
        raise Refusal(f'QEMU runs as {user} under libvirt, who may not enter {found[0]}: apt-get install acl, to have '
                      'that allowed; or put disk and build elsewhere; or use --qemu-user root')


def open_walls(domain, user):
    """Lets QEMU's user, and nobody else, pass through (not list) the directories in its way. Says so."""
    for wall in walls(domain):
        run([find_system_program('setfacl') or 'setfacl', '-m', f'u:{domain.qemu_uid}:--x', wall],
            f'letting {user} pass through {wall}', timeout=20)
        domain.granted.append(wall)
        say(f'{user}, whom QEMU runs as, may now pass through {wall} (an ACL; undefine takes it back)')


def close_walls(domain):
    """Takes back what open_walls() gave, unless another domain needs it."""
    needed = {wall for other in names() if other != domain.name for wall in load(other).granted}
    for wall in set(domain.granted) - needed:
        try:
            run([find_system_program('setfacl') or 'setfacl', '-x', f'u:{domain.qemu_uid}', wall], 'setfacl',
                timeout=20)
        except Refusal as err:
            say(f'{wall}: the ACL for user {domain.qemu_uid} stays: {err}')


# ---- running ----

PRESS_SECONDS = 3


def _press_until_gone(vm, press, seconds):
    """Presses the power button until the VM is gone, at most for `seconds`; then ends it by force.

    More than once, because a guest that is still booting does not hear it.
    """
    deadline = time.monotonic() + seconds
    again = 0
    while vm.running():
        now = time.monotonic()
        if now > deadline:
            vm.kill()
            return 'killed'
        if now >= again:
            press()
            again = now + PRESS_SECONDS
        time.sleep(0.1)
    return 'stopped'


class LibvirtVm:
    """The VM as libvirt's domain."""

    how = 'libvirt'

    def __init__(self, domain):
        self.domain = domain

    def start(self, choice):
        """Starts the VM with the accelerator chosen. The hook starts the broker. After a failure `virsh start` does what it did before."""
        name = self.domain.name
        if not libvirt.state(name):
            raise Refusal(f'libvirt knows no domain {name}: scctl define {name} again')
        before = defined_accel(name)
        if before != choice.accel:
            define_in_libvirt(self.domain, choice.accel)
        try:
            libvirt.start(name)
        except Refusal:
            if before and before != choice.accel:
                define_in_libvirt(self.domain, before)
            raise

    def stop(self, seconds=STOP_SECONDS):
        """Orderly, then by force. Returns 'stopped' or 'killed'."""
        return _press_until_gone(self, lambda: libvirt.shutdown(self.domain.name), seconds)

    def kill(self):
        libvirt.destroy(self.domain.name)

    def running(self):
        return libvirt.state(self.domain.name) not in ('', 'shut off', 'crashed')

    def paused(self):
        """True if somebody suspended it."""
        return libvirt.state(self.domain.name) == 'paused'

    def gone(self):
        """Why the VM is gone, '' if it runs."""
        return '' if self.running() else f'the VM of domain {self.domain.name} ended: see scctl logs {self.domain.name}'


class DirectVm:
    """The VM as a QEMU of our own."""

    how = 'direct'

    def __init__(self, domain):
        self.domain = domain

    def start(self, choice):
        """Starts broker and VM."""
        make_dirs(log_dir())
        started = broker.start(self.domain, **channel_memory(self.domain, Host()))
        try:
            kvm_start.start(vm_of(self.domain, choice.accel))
        except (kvm_start.Failure, kvm_accel.Unavailable) as err:
            if started:
                broker.stop(self.domain.name)
            raise Refusal(str(err)) from err
        broker.tell_info(self.domain.name, {'how': self.how, 'accelerator': choice.accel})

    def stop(self, seconds=STOP_SECONDS):
        """Orderly, then by force. Returns 'stopped' or 'killed'."""
        return _press_until_gone(self, self._press, seconds)

    def _press(self):
        try:
            with kvm_start.Qmp(self._found().qmp_socket) as qmp:
                qmp.execute('system_powerdown')
        except (OSError, kvm_start.Failure):
            pass  # it is ending, or it hangs: the deadline tells

    def kill(self):
        kvm_start.stop(self._found(), 0)

    def running(self):
        return bool(kvm_start.running_pid(self._found()))

    def paused(self):
        """True if somebody had QEMU stop its CPUs."""
        return kvm_start.status(self._found())['state'] == 'paused'

    def gone(self):
        """Why the VM is gone, '' if it runs."""
        return '' if self.running() else (f'the VM of domain {self.domain.name} ended: see '
                                          f'scctl logs {self.domain.name}')

    def _found(self):
        """A Vm with what finding a running one takes; the rest may have changed since."""
        here = domain_run_dir(self.domain.name)
        return kvm_start.Vm(name=self.domain.name, qemu='', pid_file=os.path.join(here, 'qemu.pid'),
                            qmp_socket=os.path.join(here, 'qmp.sock'))


class Loopback:
    """No VM: the agent is a process of this host."""

    how = 'loopback'

    def __init__(self, domain, root='', network=()):
        """root: what a storage domain serves. network: the agent's arguments for a network domain."""
        self.domain = domain
        self.root = root
        self.network = network

    def start(self):
        """Starts broker and agent."""
        name = self.domain.name
        if self.domain.role == 'storage' and not os.path.isdir(self.root):
            raise Refusal(f'--root {self.root}: no such directory')
        if self.running():
            raise Refusal(f'domain {name} runs already as a loopback domain: scctl stop {name}')
        if self.domain.role == 'storage':
            program, what = find_program('sc-agent'), ['--root', self.root]
        else:
            program, what = find_program('sc-agent-net'), list(self.network)
        broker.start(self.domain, loopback=True)
        write_file(self._arguments_file(), to_json({'root': self.root, 'network': list(self.network), 'role': self.domain.role}))
        with open(agent_log(name), 'ab') as out:
            process = subprocess.Popen([program, '--loopback', broker.socket_path(name, 'agent')] + what,
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                                       cwd='/')
        write_file(self._pid_file(), f'{process.pid} {_start_ticks(process.pid)}\n')
        process.returncode = 0  # it lives on without us, and is no business of Popen's destructor

    @classmethod
    def as_before(cls, domain):
        """The same loopback domain as last time: what it served is remembered beside its sockets."""
        try:
            before = json.loads(read_text(cls(domain)._arguments_file(), ''))
            return cls(loopback_domain(domain.name, before['role']), before['root'], before['network'])
        except (ValueError, LookupError, TypeError):
            raise Refusal(f'nothing is known of how loopback domain {domain.name} was started: scctl start {domain.name} --loopback '
                          '--root DIR') from None

    def kill(self):
        """By force."""
        number = self._pid()
        if number:
            os.kill(number, signal.SIGKILL)
            deadline = time.monotonic() + 5
            while pid_alive(number) and time.monotonic() < deadline:
                time.sleep(0.02)

    def stop(self, seconds=STOP_SECONDS):
        number = self._pid()
        if not number:
            return 'not running'
        os.kill(number, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        how = 'stopped'
        while pid_alive(number):
            if time.monotonic() > deadline:
                os.kill(number, signal.SIGKILL)
                how, deadline = 'killed', deadline + 5
            time.sleep(0.05)
        os.unlink(self._pid_file())
        return how

    def running(self):
        return bool(self._pid())

    def paused(self):
        """True if its process was stopped."""
        return (read_text(f'/proc/{self._pid()}/stat') or ') S').rsplit(')', 1)[1].split()[0] in 'Tt'

    def gone(self):
        """Why the agent is gone, '' if it runs."""
        if self.running():
            return ''
        last = (read_text(agent_log(self.domain.name)) or 'it said nothing').splitlines()[-1]
        return f'the agent of loopback domain {self.domain.name} ended: {last}'

    def _arguments_file(self):
        return os.path.join(domain_run_dir(self.domain.name), 'agent.json')

    def _pid_file(self):
        return os.path.join(domain_run_dir(self.domain.name), 'agent.pid')

    def _pid(self):
        """The agent's process id, 0 if it does not run. Its start time tells it from a later process of that number."""
        number, _, ticks = read_text(self._pid_file(), '').partition(' ')
        alive = number.isdigit() and pid_alive(int(number)) and _start_ticks(int(number)) == ticks
        return int(number) if alive else 0


def _start_ticks(number):
    """When a process was started, as the kernel counts."""
    return read_text(f'/proc/{number}/stat', ') ' + ' '.join('0' * 20)).rsplit(')', 1)[1].split()[19]


def agent_log(name):
    """Where the agent of a loopback domain writes; a VM's agent writes to its console."""
    return os.path.join(domain_run_dir(name), 'agent.log')


def runners(domain):
    """The ways in which the domain runs now: one or none, unless someone mixed them."""
    found = []
    if Loopback(domain).running():
        found.append(Loopback(domain))
    if DirectVm(domain).running():
        found.append(DirectVm(domain))
    if domain.libvirt and (domain.disk or domain.role == 'network') and not libvirt.why_unreachable() and LibvirtVm(domain).running():
        found.append(LibvirtVm(domain))
    return found


def end_reason(domain):
    """Why a VM that is gone is gone, in libvirt's words; '' if nobody knows."""
    return libvirt.end_reason(domain.name) if domain.libvirt and not libvirt.why_unreachable() else ''


def is_paused(domain):
    """True for a VM that somebody suspended."""
    return any(runner.paused() for runner in runners(domain))


def start_vm(vm, choice, seconds):
    """Starts a VM and waits until its agent serves. seconds: 0 = do not wait, None = the default.

    Under KVM, if the choice was ours, a VM that does not start, or whose agent is silent, gets a second chance under TCG.
    """
    domain = vm.domain
    if vm.running():
        raise Refusal(f'domain {domain.name} is running already')
    say_choice(choice)
    ours = choice.accel == 'kvm' and choice.wish == 'auto'
    try:
        vm.start(choice)
    except Refusal as err:
        if not ours:
            raise
        say(f'domain {domain.name} does not start under KVM: {err}')
        _fall_back(vm, choice, seconds)
        return
    if seconds == 0:
        return
    limit = seconds or domain.ready_seconds or READY_SECONDS[choice.accel]
    began = time.monotonic()
    try:
        served = broker.wait_ready(domain.name, limit, vm.gone)
    except broker.AgentRefused as err:
        raise Refusal(f'{err}; scctl define {domain.name}, once more, makes its guest image and device anew (the VM is left running: '
                      f'scctl stop {domain.name})') from err
    if served:
        say(f'domain {domain.name}: the agent serves after {time.monotonic() - began:.1f} s')
        return
    silent = kvm_accel.silent_guest(choice, limit)
    if not ours:
        raise Refusal(f'domain {domain.name}: {silent} (the VM is left running: scctl console, scctl stop)')
    say(f'domain {domain.name}: {silent}')
    vm.kill()
    _fall_back(vm, choice, seconds)


def _fall_back(vm, choice, seconds):
    """Starts the VM under TCG after KVM failed, which was our choice and not the user's."""
    say(f'domain {vm.domain.name}: falling back to TCG, since the accelerator was left to us (--accel auto)')
    start_vm(vm, choice._replace(accel='tcg', text=f'TCG, since KVM did not serve; {kvm_accel.SLOW}'), seconds)


def loopback_domain(name, role='storage'):
    """A domain that need not be defined: what a loopback domain has."""
    return Domain(name=check_name(name), role=role)


def user_name(uid):
    """A user's name, or the number of one who has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def silent(domain, seconds):
    """The line for a running domain whose agent has not reported."""
    try:
        return kvm_accel.silent_guest(choose_accel(defined_accel(domain.name) or domain.accel), seconds)
    except Refusal as err:
        return f'the agent did not report within {seconds} s ({err})'


def forget(domain):
    """Removes image, XML and configuration of a domain that is not running. Logs stay."""
    shutil.rmtree(state_dir(domain.name), ignore_errors=True)
    shutil.rmtree(domain_run_dir(domain.name), ignore_errors=True)
    try:
        os.unlink(config_path(domain.name))
    except FileNotFoundError:
        pass
