# SPDX-License-Identifier: BSD-3-Clause
"""AppArmor: libvirtd's profile lets it run emulators from the system's directories only; ours is elsewhere.

The rule goes into the file that Debian's profile includes for local additions. It lets libvirtd run this one QEMU;
what QEMU itself may do is the affair of the domain's seclabel (domain.xml.in).
"""

import os

from scctl_common import read_text, run, write_file
from scctl_disk import find_program

ENABLED = '/sys/module/apparmor/parameters/enabled'
PROFILE = '/etc/apparmor.d/usr.sbin.libvirtd'
LOCAL = '/etc/apparmor.d/local/usr.sbin.libvirtd'
_MARK = '# vhost-sc: the patched QEMU'

# Directories whose programs the profile allows already.
_ALLOWED = ('/bin/', '/sbin/', '/usr/bin/', '/usr/sbin/')


def local_text(old, emulator):
    """The local additions `old` with our rule for `emulator` in place of an earlier one."""
    lines = old.splitlines()
    kept = [line for at, line in enumerate(lines)
            if line.strip() != _MARK and not (at and lines[at - 1].strip() == _MARK)]
    return '\n'.join(kept + [_MARK, f'"{emulator}" PUx,']) + '\n'


def allow_emulator(emulator):
    """Adds the rule if this host needs it. Returns lines for people about what was done."""
    if read_text(ENABLED) != 'Y' or not os.path.exists(PROFILE):
        return []
    if os.path.dirname(emulator) + '/' in _ALLOWED:
        return []
    old = read_text(LOCAL, '')
    new = local_text(old, emulator)
    if new.strip() == old:
        return []
    write_file(LOCAL, new)
    parser = find_program('apparmor_parser')
    run([parser or 'apparmor_parser', '-r', PROFILE], 'loading libvirtd\'s AppArmor profile', timeout=60)
    return [f'AppArmor: libvirtd may run {emulator} ({LOCAL})']
