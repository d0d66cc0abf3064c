#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The generated libvirt domain: parsed and looked at; and given to libvirt's own validator where that is installed."""

import os
import shutil
import subprocess
import unittest
import xml.etree.ElementTree as ET

import sctest
import scctl_config as config
import scctl_vm as vm
from scctl_host import Pinning
from scctl_xml import DEVICE_SLOT, QEMU_NS, SC_NS, Setting, generate


def domain(**changes):
    values = dict(name='storage', disk='/srv/d.img', uuid='6f1f8c7a-8a57-4f6d-9e6e-0d6b1f8f2a10', vcpus=2)
    values.update(changes)
    return config.Domain(**values)


def setting(**changes):
    values = dict(accel='tcg', emulator='/opt/qemu', kernel='/i/vmlinux', initrd='/i/initramfs.img', cmdline='a=b c')
    values.update(changes)
    return Setting(**values)


def network(**changes):
    values = dict(name='net0', role='network', tap='sc-net0', addr='10.77.0.2/24', gw='10.77.0.1',
                  uuid='6f1f8c7a-8a57-4f6d-9e6e-0d6b1f8f2a11', vcpus=2)
    values.update(changes)
    return config.Domain(**values)


PINNED = Pinning([2, 3], [0, 1], [0, 1], 0, '')


class Xml(sctest.Case):

    def make(self, dom=None, **changes):
        return ET.fromstring(generate(dom or domain(), setting(**changes)))

    def test_what_was_defined(self):
        root = self.make(domain(memory_mib=768, channels=15, window_bytes=1 << 28))
        self.assertEqual(root.findtext('name'), 'storage')
        self.assertEqual(root.findtext('memory'), '768')
        self.assertEqual(root.find('memory').get('unit'), 'MiB')
        self.assertEqual(root.findtext('vcpu'), '2')
        self.assertEqual(root.findtext('os/kernel'), '/i/vmlinux')
        self.assertEqual(root.findtext('os/cmdline'), 'a=b c')
        self.assertEqual(root.findtext('devices/emulator'), '/opt/qemu')
        self.assertEqual(root.find('devices/disk/source').get('file'), '/srv/d.img')
        args = [arg.get('value') for arg in root.iter(f'{{{QEMU_NS}}}arg')]
        self.assertIn('num-channels=15,window-size=268435456', args[3])
        self.assertEqual(args[1], f'socket,id=sc,path={self.path("rundir")}/storage/vhost.sock,reconnect=1')

    def test_no_word_and_no_condition_is_left(self):
        for accel in ('kvm', 'tcg'):
            for dom in (domain(), network(), network(tap='', pci='0000:3b:00.1')):
                text = generate(dom, setting(accel=accel, pinning=PINNED, qemu_ids=(7, 8), apparmor=True, mac='52:54:00:1:2:3'))
                self.assertNotIn('@', text)
                self.assertNotIn('sc:if', text)

    def test_network(self):
        root = self.make(network(), mac='52:54:00:01:02:03', pinning=PINNED)
        self.assertEqual(root.find('devices/iommu/driver').attrib, {'intremap': 'on', 'caching_mode': 'on'})
        nic = root.find('devices/interface')
        self.assertEqual((nic.find('target').get('dev'), nic.find('driver').get('iommu'), nic.find('mac').get('address')),
                         ('sc-net0', 'on', '52:54:00:01:02:03'))
        self.assertEqual(nic.find('target').get('managed'), 'yes')
        self.assertEqual(self.make(network(), tap_exists=True).find('devices/interface/target').get('managed'), 'no')
        for absent in ('devices/disk', 'devices/hostdev', 'iothreads', 'cputune/iothreadpin'):
            self.assertIsNone(root.find(absent), absent)
        root = self.make(network(tap='', pci='0000:3b:00.1'))
        self.assertIsNone(root.find('devices/interface'))
        self.assertEqual(root.find('devices/hostdev/source/address').attrib,
                         {'domain': '0x0000', 'bus': '0x3b', 'slot': '0x00', 'function': '0x1'})
        root = self.make()
        for absent in ('devices/iommu', 'devices/interface', 'features/ioapic'):
            self.assertIsNone(root.find(absent), absent)

    def test_accelerators(self):
        kvm, tcg = self.make(accel='kvm'), self.make()
        self.assertEqual(kvm.get('type'), 'kvm')
        self.assertEqual([cpu.get('mode') for cpu in kvm.findall('cpu')], ['host-passthrough'])
        self.assertEqual(tcg.get('type'), 'qemu')
        self.assertEqual([cpu.get('mode') for cpu in tcg.findall('cpu')], ['maximum'])

    def test_tcg_cpu_agrees_with_direct_start(self):
        cpu = self.make().find('cpu')
        ours = 'max' + ''.join(',-' + f.get('name') for f in cpu if f.get('policy') == 'disable')
        self.assertEqual(ours, vm.kvm_start.cpu_model('tcg'))
        self.assertEqual(vm.kvm_start.cpu_model('kvm'), 'host')

    def test_guest_memory_is_shared(self):
        for pages in ('', '2M', '1G'):
            backing = self.make(hugepages=pages).findall('memoryBacking')
            self.assertEqual(len(backing), 1)
            self.assertEqual(backing[0].find('access').get('mode'), 'shared')
            self.assertEqual(backing[0].find('source').get('type'), 'memfd')
            self.assertEqual(backing[0].find('hugepages') is not None, bool(pages))

    def test_pinning(self):
        root = self.make(pinning=PINNED, memory_node=0)
        self.assertEqual([(p.get('vcpu'), p.get('cpuset')) for p in root.iter('vcpupin')], [('0', '2'), ('1', '3')])
        self.assertEqual(root.find('cputune/emulatorpin').get('cpuset'), '0-1')
        self.assertEqual(root.find('cputune/iothreadpin').get('cpuset'), '0-1')
        self.assertEqual(root.find('numatune/memory').get('nodeset'), '0')
        self.assertIsNone(self.make().find('cputune'))
        self.assertIsNone(self.make().find('numatune'))
        self.assertIsNone(self.make(pinning=PINNED).find('numatune'), 'QEMU cannot ask for a node')

    def test_dedicated_cpus_only_if_isolated(self):
        self.assertIsNone(self.make(accel='kvm', pinning=PINNED).find('features/kvm'))
        self.assertIsNotNone(self.make(accel='kvm', pinning=PINNED, isolated=True).find('features/kvm/hint-dedicated'))
        self.assertIsNone(self.make(accel='tcg', pinning=PINNED, isolated=True).find('features/kvm'))

    def test_disk_io(self):
        cases = {(True, True): ('none', 'io_uring'), (True, False): ('none', 'native'),
                 (False, True): ('writeback', 'io_uring'), (False, False): ('writeback', 'threads')}
        for (direct, uring), want in cases.items():
            driver = self.make(direct_io=direct, io_uring=uring).find('devices/disk/driver')
            self.assertEqual((driver.get('cache'), driver.get('io')), want)
            self.assertEqual(driver.get('iothread'), '1')

    def test_block_device(self):
        loop = '/dev/null' if not os.path.exists('/dev/vda') else '/dev/vda'
        if loop == '/dev/null':
            self.skipTest('no block device to look at')
        disk = self.make(domain(disk=loop)).findall('devices/disk')
        self.assertEqual([d.get('type') for d in disk], ['block'])
        self.assertEqual(disk[0].find('source').get('dev'), loop)

    def test_nothing_that_nobody_needs(self):
        devices = self.make().find('devices')
        for kind in ('graphics', 'video', 'interface', 'input', 'rng', 'watchdog', 'sound'):
            self.assertIsNone(devices.find(kind), kind)
        self.assertEqual(devices.find('memballoon').get('model'), 'none')
        self.assertEqual(devices.find('controller').get('model'), 'none')

    def test_hook_finds_its_element(self):
        self.assertIsNotNone(self.make().find(f'metadata/{{{SC_NS}}}domain'))
        self.assertIn(f'xmlns:sc="{SC_NS}"', generate(domain(), setting()))

    def test_values_cannot_become_markup(self):
        root = self.make(domain(disk='/srv/<&>,x.img', cmdline=''))
        self.assertEqual(root.find('devices/disk/source').get('file'), '/srv/<&>,x.img')

    def test_commas_of_qemu_options(self):
        os.environ['VHOST_SC_RUNDIR'] = '/run/a,b'
        root = self.make()
        self.assertIn('path=/run/a,,b/storage/', [arg.get('value') for arg in root.iter(f'{{{QEMU_NS}}}arg')][1])

    def test_slot_of_the_device_is_free_for_it(self):
        args = [arg.get('value') for arg in self.make().iter(f'{{{QEMU_NS}}}arg')]
        self.assertIn(f'bus=pcie.0,addr={DEVICE_SLOT:#x}', args[3])

    def test_security_labels(self):
        self.assertEqual(self.make().findall('seclabel'), [])
        label = self.make(qemu_ids=(12, 34)).find('seclabel')
        self.assertEqual((label.get('model'), label.findtext('label')), ('dac', '+12:+34'))
        self.assertEqual(self.make(apparmor=True).find('seclabel').get('model'), 'apparmor')

    def test_each_tuning_element_has_its_reason(self):
        root = ET.fromstring(generate(domain(), setting(accel='kvm', pinning=PINNED, memory_node=0, isolated=True,
                                                    hugepages='2M')),
                             ET.XMLParser(target=ET.TreeBuilder(insert_comments=True)))
        previous = None
        explained = set()
        for child in root:
            if child.tag is ET.Comment:
                previous = child
                continue
            if previous is not None:
                explained.add(child.tag)
            previous = None
        self.assertEqual([child.tag is ET.Comment for child in root.find('cputune')], [True, False] * 4)
        self.assertLessEqual({'memoryBacking', 'numatune', 'iothreads', 'cputune', 'cpu', 'on_poweroff'}, explained)

    @unittest.skipUnless(shutil.which('virt-xml-validate'), 'virt-xml-validate is not installed')
    def test_libvirts_schema(self):
        variants = [dict(), dict(accel='kvm', pinning=PINNED, memory_node=0, isolated=True), dict(hugepages='2M'),
                    dict(hugepages='1G'), dict(qemu_ids=(1, 2), apparmor=True), dict(direct_io=False, io_uring=False)]
        made = [generate(domain(), setting(**changes)) for changes in variants]
        made += [generate(network(**nic), setting(mac='52:54:00:01:02:03')) for nic in ({}, {'tap': '', 'pci': '0000:3b:00.1'})]
        for at, text in enumerate(made):
            path = self.file(f'{at}.xml', text)
            done = subprocess.run(['virt-xml-validate', path, 'domain'], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, f'{at}: {done.stdout}{done.stderr}')


if __name__ == '__main__':
    unittest.main()
