# SPDX-License-Identifier: BSD-3-Clause
"""What a service domain is: its configuration, kept as CONFDIR/NAME.json, and the checks of every part of it.

`define` makes a Domain from its options, checks it, and only then touches the host. Everyone else (start, the libvirt
hook, status) loads it. A file that was edited by hand is checked again when it is loaded.
"""

import dataclasses
import grp
import json
import os
import pwd
import re
import uuid
from dataclasses import dataclass, field

import scctl_net as net
from scctl_common import (GIB, MIB, KIB, Refusal, Usage, conf_dir, domain_run_dir, run_dir, show_size, to_json,
                          write_file)

# As in include/vhost-sc/virtio_sc.h and channel.h; the first by the broker.
MAX_CHANNELS = 254  # vhost-user names a queue by eight bits; two are controlq and eventq
DEFAULT_CHANNELS = 127
DEFAULT_LANES = 128
DEFAULT_WINDOW = 2304 * MIB  # 128 slots of 16M, and 256M for segments
MIN_SLOT = 1 * MIB
MAX_SLOT = 1 * GIB

ROLES = ('storage', 'network')
ACCELERATORS = ('auto', 'kvm', 'tcg')
HUGEPAGES = ('none', 'auto', '2M', '1G')
CHANNEL_HUGEPAGES = ('none', 'auto', '2M')  # the broker's; with 1G each channel would take as much

FORMAT = 1  # of the file


@dataclass
class Domain:
    """One service domain. Sizes in MiB or bytes as the name says; paths absolute; '' stands for "not given"."""

    name: str
    role: str = 'storage'
    disk: str = ''               # image file or block device
    fs: str = 'ext4'             # the file system on it
    memory_mib: int = 512        # of the guest, without the window
    vcpus: int = 1
    accel: str = 'auto'          # the wish
    channels: int = DEFAULT_CHANNELS
    window_bytes: int = DEFAULT_WINDOW
    allow_users: list = field(default_factory=list)   # who may attach; both lists empty: everyone
    allow_groups: list = field(default_factory=list)
    max_per_user: int = 0        # channels that one user may have; 0: the broker's default
    deadline_ms: int = 0         # calls wait so long for a domain that is gone; 0: the broker's default
    hang_ms: int = -1            # an agent that is silent so long with calls pending hangs; -1: the broker's default
    retain: int = -1             # storage: bytes of changes kept for a new incarnation; -1: the broker's default
    ready_seconds: int = 0       # the agent must report within; 0: chosen by accelerator
    kernel: str = ''             # a guest kernel of the user's own, with what there is of modules and headers
    modules: str = ''
    headers: str = ''
    debug_shell: bool = False    # an image with a shell on its console
    cmdline: str = ''            # words added to the guest's kernel command line
    pin: str = 'auto'            # 'auto', 'none' or a CPU list
    hugepages: str = 'none'      # of guest memory
    channel_hugepages: str = 'none'
    tap: str = ''                # network: the NIC is on this tap device
    pci: str = ''                # network: or it is this one of the host
    addr: str = ''               # network: as the options of these names
    gw: str = ''
    addr6: list = field(default_factory=list)
    slaac: bool = False
    dhcp: bool = False
    dns: list = field(default_factory=list)
    mtu: int = 0
    libvirt: bool = True         # False: defined with --no-libvirt
    qemu_user: str = ''          # whom QEMU is to run as; '': libvirt's choice
    qemu_uid: int = -1           # whom it does run as under libvirt, so that the hook need not ask; -1: not known
    qemu_gid: int = -1
    granted: list = field(default_factory=list)  # directories that define let QEMU's user pass through
    uuid: str = ''               # libvirt's; kept across redefinitions
    image_dir: str = ''          # the guest image: vmlinuz, initrd, manifest.json

    def check(self):
        """Refuses what cannot be right, whatever the host. Returns self."""
        check_name(self.name)
        if self.role not in ROLES:
            raise Usage(f'--role {self.role}: not one of {", ".join(ROLES)}')
        if self.role == 'network':
            self._check_network()
        elif net.given(self):
            raise Usage(f'{net.given(self)} is for network domains: say --role network')
        if self.accel not in ACCELERATORS:
            raise Usage(f'--accel {self.accel}: not one of {", ".join(ACCELERATORS)}')
        if self.hugepages not in HUGEPAGES:
            raise Usage(f'--hugepages {self.hugepages}: not one of {", ".join(HUGEPAGES)}')
        if self.channel_hugepages not in CHANNEL_HUGEPAGES:
            raise Usage(f'--channel-hugepages {self.channel_hugepages}: not one of {", ".join(CHANNEL_HUGEPAGES)}')
        if self.channel_hugepages == '2M' and self.slot_bytes() < 2 * MIB:
            raise Usage(f'--channel-hugepages 2M: a channel has {self.slot_bytes() // KIB}K: use a larger --window-size')
        _check_range(self.memory_mib, 128, 1 << 24, '--memory', 'MiB')
        _check_range(self.vcpus, 1, 255, '--vcpus', '')
        _check_range(self.channels, 1, MAX_CHANNELS, '--channels', '')
        _check_range(self.max_per_user, 0, MAX_CHANNELS, '--max-per-user', '')
        _check_range(self.deadline_ms, 0, 3600_000, '--deadline', 'ms')
        _check_range(self.hang_ms, -1, 3600_000, '--hang-ms', 'ms')
        self._check_retain()
        _check_range(self.ready_seconds, 0, 3600, '--ready', 's')
        self._check_window()
        self._check_people()
        self._check_kernel()
        if self.role == 'storage' and not os.path.isabs(self.disk):
            raise Usage('--disk is missing: a storage domain needs one')
        if re.search(r'[\x00-\x1f\x7f"\']', self.cmdline + self.disk):
            raise Usage('--append, --disk: no control characters or quotes, please')
        return self

    def _check_retain(self):
        if self.retain > 0 and (self.role != 'storage' or self.retain < MIB or self.retain & (self.retain - 1)):
            raise Usage(f'--retain {show_size(self.retain)}: a power of two of at least 1M, or 0, for storage domains')
        room = self.window_bytes - (self.channels + 1) * self.slot_bytes()
        if self.retain > room:
            raise Usage(f'--retain {show_size(self.retain)}: the window has {show_size(room)} beside its channels: use a larger --window-size')

    def slot_bytes(self):
        """Bytes of the window that each channel gets: window / (channels + 1), down to a power of two."""
        return 1 << ((self.window_bytes // (self.channels + 1)).bit_length() - 1)

    def lanes(self):
        """Lanes of each channel: the broker's default, or what a small channel holds (a lane takes about 86 KiB)."""
        return min(DEFAULT_LANES, self.slot_bytes() // (128 * KIB))

    def _check_window(self):
        size = self.window_bytes
        if size < 2 * MIN_SLOT or size % MIN_SLOT:
            wanted = show_size(_power_of_two((self.channels + 1) << 24))
            raise Usage(f'--window-size {show_size(size)}: it must be a multiple of 1M, at least '
                        f'{show_size(2 * MIN_SLOT)}; for {self.channels} channels of 16M: {wanted}')
        if self.slot_bytes() < MIN_SLOT:
            raise Usage(f'--window-size {show_size(size)} leaves {self.slot_bytes() // KIB}K for each of '
                        f'{self.channels} channels, which need 1M: use --window-size '
                        f'{show_size(_power_of_two((self.channels + 1) * MIN_SLOT))} or fewer --channels')
        if self.slot_bytes() > MAX_SLOT:
            raise Usage(f'--window-size {show_size(size)} gives each of {self.channels} channels more than 1G: use a '
                        'smaller one')

    def _check_network(self):
        net.agent_arguments(self)
        if self.disk:
            raise Usage('--disk is for storage domains: a network domain has none')

    def _check_people(self):
        for user in self.allow_users:
            find_user(user, '--allow-user')
        for group in self.allow_groups:
            find_group(group, '--allow-group')
        if self.qemu_user:
            find_user(self.qemu_user, '--qemu-user')

    def _check_kernel(self):
        if (self.modules or self.headers) and not self.kernel:
            raise Usage('--modules and --headers are those of a kernel of your own: name it with --kernel')
        for option, path, test, kind in (('--kernel', self.kernel, os.path.isfile, 'file'),
                                         ('--modules', self.modules, os.path.isdir, 'directory'),
                                         ('--headers', self.headers, os.path.isdir, 'directory')):
            if path and not test(path):
                raise Usage(f'{option} {path}: no such {kind}')

    def save(self):
        """Writes CONFDIR/NAME.json."""
        data = dataclasses.asdict(self)
        data['format'] = FORMAT
        write_file(config_path(self.name), to_json(data))


def _check_range(value, low, high, option, unit):
    if not low <= value <= high:
        raise Usage(f'{option} {value}{" " + unit if unit else ""}: it must be {low} to {high}')


def _power_of_two(at_least):
    return 1 << (at_least - 1).bit_length()


def check_name(name):
    """A name becomes a file name, a socket's directory, a host name, and is what scrun writes before a colon.

    Returns it.
    """
    if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_-]{0,30}', name):
        raise Usage(f'"{name}" is no name for a domain: letters, digits, "-" and "_", at most 31, and a letter or '
                    'digit first')
    path = os.path.join(domain_run_dir(name), 'attach.sock')
    if len(path) > 107:
        raise Usage(f'{path} is too long for a socket (107 bytes): use a shorter VHOST_SC_RUNDIR than {run_dir()}')
    return name


def find_user(user, option):
    """The password entry of a user name or number."""
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise Usage(f'{option} {user}: this host has no such user') from None


def find_group(group, option):
    """The group entry of a group name or number."""
    try:
        return grp.getgrgid(int(group)) if group.isdigit() else grp.getgrnam(group)
    except KeyError:
        raise Usage(f'{option} {group}: this host has no such group') from None


def config_path(name):
    return os.path.join(conf_dir(), name + '.json')


def names():
    """Names of all defined domains, sorted."""
    try:
        files = os.listdir(conf_dir())
    except FileNotFoundError:
        return []
    except OSError as err:
        raise Refusal(f'{conf_dir()} cannot be read: {err.strerror}') from err
    return sorted(file[:-5] for file in files if file.endswith('.json') and not file.startswith('.'))


def exists(name):
    return os.path.exists(config_path(name))


def load(name):
    """The domain `name`. Refuses one that is not defined, and a file that is damaged."""
    check_name(name)
    path = config_path(name)
    try:
        with open(path, encoding='utf-8') as file:
            data = json.load(file)
    except FileNotFoundError:
        known = ', '.join(names())
        raise Refusal(f'no domain "{name}" is defined: `scctl define {name} …` makes one'
                      + (f' (there is: {known})' if known else '')) from None
    except OSError as err:
        raise Refusal(f'{path} cannot be read: {err.strerror}') from err
    except ValueError as err:
        raise Refusal(f'{path} is damaged ({err}): correct it, or define the domain again') from err
    if not isinstance(data, dict) or data.pop('format', None) != FORMAT or data.get('name') != name:
        raise Refusal(f'{path} was not written by this version of scctl: define the domain again')
    known = {f.name: f.type for f in dataclasses.fields(Domain)}
    for key, value in data.items():
        if key not in known or type(value) is not known[key]:
            raise Refusal(f'{path}: "{key}" is not understood: correct it, or define the domain again')
    return Domain(**data).check()


def new_uuid():
    return str(uuid.uuid4())
