# SPDX-License-Identifier: BSD-3-Clause
"""Makes a libvirt domain out of a template (domain.xml.in, which says what it means) for one domain on one host.

The template is well-formed XML: it is parsed first and filled in afterwards, so that no value can become markup.
"""

import os
import re
import stat
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field

from scctl_common import HERE, Refusal, console_log, domain_run_dir, show_cpus
from scctl_host import Pinning

QEMU_NS = 'http://libvirt.org/schemas/domain/qemu/1.0'
SC_NS = 'urn:vhost-sc:domain:1'
_IF = f'{{{SC_NS}}}if'

# Slot of the PCI Express root complex where the device goes, as the template has it.
DEVICE_SLOT = 0x10


@dataclass
class Setting:
    """What the host adds to a domain's configuration. Paths are absolute."""

    accel: str = 'tcg'      # 'kvm' or 'tcg', decided
    emulator: str = ''
    kernel: str = ''
    initrd: str = ''
    cmdline: str = ''
    pinning: Pinning = field(default_factory=Pinning)
    memory_node: int = -1   # NUMA node for guest memory; -1: any
    isolated: bool = False  # the vCPUs' CPUs are isolated
    hugepages: str = ''     # '', '2M' or '1G', decided
    direct_io: bool = True  # the disk takes O_DIRECT
    io_uring: bool = True   # kernel and QEMU take io_uring
    apparmor: bool = False  # libvirt confines QEMU by AppArmor
    mac: str = ''           # of the NIC of a network domain on a tap
    tap_exists: bool = False  # the tap is the user's own: not libvirt's to make and take away
    qemu_ids: tuple = ()    # (uid, gid) of QEMU, if not libvirt's choice


def serial_of(name):
    """The disk's serial number, by which the guest finds it: virtio-blk has 20 bytes for it."""
    return ('sc-' + name)[:20]


def qemu_value(text):
    """A value for QEMU's option parser, which takes a comma for the next option unless it is doubled."""
    return text.replace(',', ',,')


def is_block(path):
    """True if the disk is a block device; a disk that is still to be made is a file."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def _facts(domain, setting):
    """The words of sc:if that hold."""
    facts = {
        setting.accel: True,
        'pinned': bool(setting.pinning.vcpus),
        'isolated': bool(setting.pinning.vcpus) and setting.isolated,
        'node': setting.memory_node >= 0,
        'huge2m': setting.hugepages == '2M',
        'huge1g': setting.hugepages == '1G',
        domain.role: True,
        'block': domain.role == 'storage' and is_block(domain.disk),
        'file': domain.role == 'storage' and not is_block(domain.disk),
        'tap': bool(domain.tap),
        'pci': bool(domain.pci),
        'qemuuser': bool(setting.qemu_ids),
        'apparmor': setting.apparmor,
    }
    return {word for word, holds in facts.items() if holds}


def _io(setting):
    """(cache, io) of the disk. Linux AIO needs O_DIRECT; without it threads remain."""
    cache = 'none' if setting.direct_io else 'writeback'
    if setting.io_uring:
        return cache, 'io_uring'
    return cache, 'native' if setting.direct_io else 'threads'


def _words(domain, setting):
    """What replaces the words between at-signs."""
    cache, io = _io(setting)
    uid, gid = setting.qemu_ids or (0, 0)
    return {
        'TYPE': 'kvm' if setting.accel == 'kvm' else 'qemu',
        'NAME': domain.name,
        'UUID': domain.uuid,
        'ROLE': domain.role,
        'MEMORY': domain.memory_mib,
        'NODE': setting.memory_node,
        'VCPUS': domain.vcpus,
        'KERNEL': setting.kernel,
        'INITRD': setting.initrd,
        'CMDLINE': setting.cmdline,
        'EMULATOR': setting.emulator,
        'CACHE': cache,
        'IO': io,
        'DISK': domain.disk,
        'SERIAL': serial_of(domain.name),
        'CONSOLELOG': console_log(domain.name),
        'QEMUUID': uid,
        'QEMUGID': gid,
        'SOCKET': qemu_value(os.path.join(domain_run_dir(domain.name), 'vhost.sock')),
        'TAP': domain.tap,
        'TAPMANAGED': 'no' if setting.tap_exists else 'yes',
        'MAC': setting.mac,
        'PCIDOMAIN': domain.pci[0:4],
        'PCIBUS': domain.pci[5:7],
        'PCISLOT': domain.pci[8:10],
        'PCIFUNCTION': domain.pci[11:12],
        'CHANNELS': domain.channels,
        'WINDOW': domain.window_bytes,
    }


def _holds(element, facts):
    """Whether the element's sc:if holds; takes the attribute away."""
    words = element.attrib.pop(_IF, '').split() if isinstance(element.tag, str) else []
    return all((word.lstrip('!') in facts) != word.startswith('!') for word in words)


def _drop(parent, facts):
    """Drops children whose condition does not hold, each with the comment before it, at every depth."""
    comment = None
    for child in list(parent):
        if child.tag is ET.Comment:
            comment = child
            continue
        if _holds(child, facts):
            _drop(child, facts)
        else:
            if comment is not None:
                parent.remove(comment)
            parent.remove(child)
        comment = None


def _fill(root, words):
    """Replaces @WORD@ in texts and attributes (comments stay as they are)."""
    def value(found):
        if found[1] not in words:
            raise Refusal(f'the domain template has an unknown word @{found[1]}@: correct it')
        return str(words[found[1]])

    for element in root.iter():
        if not isinstance(element.tag, str):
            continue
        if element.text and '@' in element.text:
            element.text = re.sub(r'@([A-Z]+)@', value, element.text)
        for key, text in element.attrib.items():
            element.set(key, re.sub(r'@([A-Z]+)@', value, text))


def _pin(root, pinning):
    """Fills <cputune>."""
    cputune = root.find('cputune')
    if cputune is None:
        return

    def add(why, tag, **attributes):
        cputune.append(ET.Comment(f' {why} '))
        ET.SubElement(cputune, tag, attributes)

    for vcpu, cpu in enumerate(pinning.vcpus):
        add('A poller may spin here: nobody else should.' if vcpu == 0 else 'The same for the next.', 'vcpupin', vcpu=str(vcpu),
            cpuset=str(cpu))
    add("QEMU's main loop: away from the vCPUs, and on their NUMA node.", 'emulatorpin', cpuset=show_cpus(pinning.emulator))
    if root.find('iothreads') is not None:
        add("The disk's thread: likewise.", 'iothreadpin', iothread='1', cpuset=show_cpus(pinning.iothread))


def generate(domain, setting, template=None):
    """The domain's XML as text. template: a path, default domain.xml.in beside this file."""
    template = template or os.path.join(HERE, 'domain.xml.in')
    ET.register_namespace('qemu', QEMU_NS)
    ET.register_namespace('sc', SC_NS)
    try:
        root = ET.parse(template, ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))).getroot()
    except OSError as err:
        raise Refusal(f'the domain template {template} cannot be read: {err.strerror}') from err
    except ET.ParseError as err:
        raise Refusal(f'the domain template {template} is not XML: {err}') from err
    _drop(root, _facts(domain, setting))
    _fill(root, _words(domain, setting))
    _pin(root, setting.pinning)
    ET.indent(root)
    head = "<?xml version='1.0' encoding='UTF-8'?>\n<!-- Made by `scctl define`, which makes it anew each time. -->\n"
    return head + ET.tostring(root, encoding='unicode') + '\n'
