#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What libvirt itself makes of a generated domain. Skipped where libvirt does not answer or this is not root."""

import os
import subprocess
import unittest
import xml.etree.ElementTree as ET
from unittest import mock

import sctest
import scctl_config as config
import scctl_libvirt as libvirt
from scctl_host import Pinning
from scctl_xml import DEVICE_SLOT, Setting, generate

NAME = f'sct-test-{os.getpid()}'
WHY_NOT = 'not root' if os.geteuid() else libvirt.why_unreachable()


@unittest.skipIf(WHY_NOT, WHY_NOT)
class Define(sctest.Case):

    def define(self, **changes):
        """Defines a domain in libvirt and returns libvirt's XML of it."""
        domain = config.Domain(name=NAME, disk=self.file('d.img'), uuid=config.new_uuid(), libvirt=True)
        values = dict(accel='tcg', emulator='/usr/bin/qemu-system-x86_64', kernel=self.file('vmlinux'),
                      initrd=self.file('initramfs.img'), cmdline='quiet', pinning=Pinning([1], [0], [0], -1, ''))
        values.update(changes)
        if not os.path.exists(values['emulator']):
            values['emulator'] = os.environ.get('SC_QEMU', sctest.scctl_common.TOP + '/.cache/qemu/current/bin/'
                                                'qemu-system-x86_64')
        if not os.path.exists(values['emulator']):
            self.skipTest('no QEMU')
        libvirt.define(self.file('domain.xml', generate(domain, Setting(**values))))
        self.addCleanup(self._undefine)
        return ET.fromstring(libvirt._virsh(['dumpxml', NAME], 'asking libvirt'))

    @staticmethod
    def _undefine():
        if libvirt.state(NAME):
            libvirt.undefine(NAME)

    def test_is_ours(self):
        self.assertEqual(libvirt.state(NAME), '')
        self.define()
        self.assertEqual(libvirt.state(NAME), 'shut off')
        self.assertTrue(libvirt.is_ours(NAME))

    def test_slot_of_our_device_stays_free(self):
        root = self.define()
        taken = {int(address.get('slot'), 16) for address in root.iter('address')
                 if address.get('type') == 'pci' and int(address.get('bus'), 16) == 0}
        self.assertTrue(taken)
        self.assertNotIn(DEVICE_SLOT, taken)

    def test_no_device_was_added(self):
        devices = self.define().find('devices')
        kinds = {device.tag for device in devices}
        self.assertLessEqual(kinds, {'emulator', 'disk', 'controller', 'serial', 'console', 'input', 'audio',
                                     'memballoon'})
        self.assertEqual(devices.find('memballoon').get('model'), 'none')
        self.assertEqual({i.get('bus') for i in devices.findall('input')}, {'ps2'})  # part of the machine
        self.assertEqual({c.get('type') for c in devices.findall('controller')}, {'usb', 'sata', 'pci'})

    def test_pinning_and_memory_survive(self):
        root = self.define()
        self.assertEqual(root.find('cputune/vcpupin').get('cpuset'), '1')
        self.assertEqual(root.find('memoryBacking/access').get('mode'), 'shared')

    def test_user_of_qemu(self):
        self.assertEqual(self.define(qemu_ids=(0, 0)).findtext('seclabel/label'), '+0:+0')

    def test_defined_again_under_the_same_uuid(self):
        first = self.define()
        self.assertEqual(libvirt.uuid_of(NAME), first.findtext('uuid'))

    def test_capabilities(self):
        uid, gid, apparmor = libvirt.security()
        self.assertGreaterEqual(min(uid, gid), 0)
        self.assertIn(apparmor, (True, False))

    def test_someone_elses_domain_is_left_alone(self):
        self.define()
        stranger = self.file('other.xml', libvirt._virsh(['dumpxml', '--inactive', NAME], 'x').replace(
            'urn:vhost-sc:domain:1', 'urn:someone:else'))
        libvirt.define(stranger)
        with mock.patch.dict(os.environ):
            self.refused(1, f'libvirt has a domain {NAME} that scctl did not make', 'define', NAME, '--disk',
                         self.path('new.img'), '--size', '1G')
        self.assertEqual(libvirt.state(NAME), 'shut off')
        self.assertFalse(os.path.exists(self.path('new.img')))


class Daemons(sctest.Case):

    def test_only_what_was_started_is_stopped(self):
        self.assertIn('nothing to stop', libvirt.stop_daemons())
        self.file('rundir/.libvirt-daemons.json', '{"libvirtd": [1, 0]}')
        self.assertIn('nothing to stop', libvirt.stop_daemons())
        self.file('rundir/.libvirt-daemons.json', 'garbage')
        self.assertIn('nothing to stop', libvirt.stop_daemons())

    def test_remedy_without_systemd(self):
        answers = {'which': mock.Mock(side_effect=lambda name, **_: '/bin/' + name),
                   'virsh': subprocess.CompletedProcess([], 1, '', 'error: failed to connect')}
        with mock.patch.object(libvirt.shutil, 'which', answers['which']), \
                mock.patch.object(libvirt, '_virsh', side_effect=libvirt.Refusal('no')), \
                mock.patch.object(libvirt, 'daemon_pid', return_value=0):
            with mock.patch.object(libvirt, 'has_systemd', return_value=False):
                self.assertIn('scctl libvirtd start', libvirt.why_unreachable())
            with mock.patch.object(libvirt, 'has_systemd', return_value=True):
                self.assertIn('systemctl start libvirtd', libvirt.why_unreachable())


if __name__ == '__main__':
    unittest.main()
