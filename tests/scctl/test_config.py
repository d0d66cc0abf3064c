#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What define refuses, what a configuration file may hold, and what the host makes of a wish (pinning, huge pages)."""

import json
import os
import shutil
import unittest
from unittest import mock

import sctest
import scctl_broker as broker
import scctl_common as common
import scctl_config as config
import scctl_host as host
import scctl_net as net
import scctl_vm as vm


class FakeHost(host.Host):
    """A host below a directory of the test."""

    def __init__(self, case, cpus='0-7', isolated='', nodes=None):
        super().__init__(case.path('host'))
        case.file('host/sys/devices/system/cpu/online', cpus)
        case.file('host/sys/devices/system/cpu/isolated', isolated)
        if nodes:
            case.file('host/sys/devices/system/node/has_cpu', f'0-{len(nodes) - 1}')
            for node, listed in enumerate(nodes):
                case.file(f'host/sys/devices/system/node/node{node}/cpulist', listed)


class Options(sctest.Case):

    def define(self, pattern, *options, name='d1', code=2):
        """define refuses, and has touched nothing."""
        before = sorted(os.listdir(self.dir))
        self.refused(code, pattern, 'define', name, '--no-libvirt', *options)
        self.assertEqual(sorted(os.listdir(self.dir)), before)

    def test_names(self):
        for name in ('a b', '../x', 'x:y', '.x', 'x' * 32, 'ä', ''):
            self.define('no name for a domain', '--disk', self.path('d'), '--size', '1G', name=name)

    def test_name_too_long_for_a_socket(self):
        os.environ['VHOST_SC_RUNDIR'] = '/' + 'r' * 99
        self.define('too long for a socket', '--disk', self.path('d'), '--size', '1G')

    def test_disk_is_needed(self):
        self.define('--disk is missing')

    def test_network(self):
        net = ('--role', 'network')
        good = net + ('--tap', 'sc-net0', '--addr', '10.77.0.2/24')
        self.define('needs one NIC', *net, '--addr', '10.77.0.2/24')
        self.define('needs one NIC', *good, '--pci', '0000:3b:00.0')
        self.define('needs an address', *net, '--tap', 'sc-net0')
        self.define('--pci 3b:00.0: write a whole address', *net, '--pci', '3b:00.0', '--addr', '10.77.0.2/24')
        self.define('at most 15 letters', *net, '--tap', 'a-name-that-is-too-long', '--addr', '10.77.0.2/24')
        self.define('write an IPv4 address and its prefix', *net, '--tap', 't', '--addr', '10.77.0.2')
        self.define('write an IPv6 address and its prefix', *good, '--addr6', '10.77.0.2/24')
        self.define('is not in the network 10.77.0.0/24', *good, '--gw', '10.78.0.1')
        self.define('not an IPv4 address', *good, '--dns', 'name')
        self.define('exclude each other', *good, '--dhcp')
        self.define('--mtu 100: it must be', *good, '--mtu', '100')
        self.define('a network domain has none', *good, '--disk', self.path('d'))
        self.define('a network domain has no disk', *good, '--size', '1G')
        self.define('--tap is for network domains', '--disk', self.path('d'), '--size', '1G', '--tap', 'sc-net0')

    def test_what_the_agent_is_told(self):
        dom = config.Domain(name='n', role='network', tap='t0', addr='10.77.0.2/24', gw='10.77.0.1', addr6=['fd77::2/64'], slaac=True,
                            dns=['1.1.1.1', '9.9.9.9'], mtu=9000).check()
        self.assertEqual(net.agent_words(dom), ['pci=auto', 'addr=10.77.0.2/24', 'gw=10.77.0.1', 'addr6=fd77::2/64', 'dns=1.1.1.1',
                                                'dns=9.9.9.9', 'mtu=9000', 'slaac'])

    def test_sizes(self):
        disk = ('--disk', self.path('d'), '--size', '1G')
        self.define('--size: "lots" is not a size', '--disk', self.path('d'), '--size', 'lots')
        self.define('--memory: "x" is not a size', *disk, '--memory', 'x')
        self.define('--memory 64 MiB: it must be', *disk, '--memory', '64M')
        self.define('--window-size 3145729: it must be a multiple of 1M', *disk, '--window-size', '3145729')
        self.define('leaves 512K for each of 254 channels', *disk, '--channels', '254', '--window-size', '128M')
        self.define('more than 1G', *disk, '--channels', '1', '--window-size', '8G')

    def test_numbers(self):
        disk = ('--disk', self.path('d'), '--size', '1G')
        self.define('--channels 255: it must be 1 to 254', *disk, '--channels', '255')
        self.define('--channels 0: it must be 1 to 254', *disk, '--channels', '0')
        self.define('--vcpus 256: it must be', *disk, '--vcpus', '256')

    def test_people(self):
        disk = ('--disk', self.path('d'), '--size', '1G')
        self.define('--allow-user nobody-of-that-name: this host has no such user', *disk, '--allow-user',
                    'nobody-of-that-name')
        self.define('--allow-group nogroup-of-that-name: this host', *disk, '--allow-group', 'nogroup-of-that-name')

    def test_guest_kernel(self):
        disk = ('--disk', self.path('d'), '--size', '1G')
        self.define('name it with --kernel', *disk, '--modules', '/')
        self.define('name it with --kernel', *disk, '--headers', '/')
        self.define('--kernel /nowhere: no such file', *disk, '--kernel', '/nowhere')
        self.define('--modules /nowhere: no such directory', *disk, '--kernel', '/bin/true', '--modules', '/nowhere',
                    '--headers', '/')

    def test_other_options(self):
        disk = ('--disk', self.path('d'), '--size', '1G')
        self.define('--root-mode 99', *disk, '--root-mode', '99')
        self.define('--pin: "x" is not a list', *disk, '--pin', 'x')
        self.define('this host has no CPU 9999', *disk, '--pin', '9999')
        self.define('control characters', *disk, '--append', 'a\nb')

    def test_unbuilt_parts(self):
        disk = ('--disk', self.path('d'), '--size', '1G')
        os.unlink(self.path('build/vhost-sc/vhost-scd'))
        self.define('vhost-scd is not built .*ninja', *disk, code=1)

    def test_qemu_that_is_none(self):
        os.environ['VHOST_SC_QEMU'] = '/nowhere/qemu'
        self.define('VHOST_SC_QEMU names /nowhere/qemu', '--disk', self.path('d'), '--size', '1G', code=1)

    def test_unknown_domain(self):
        for command in ('start', 'undefine', 'console', 'xml'):
            self.refused(1, 'no domain "nix" is defined: `scctl define nix', command, 'nix')


class File(sctest.Case):

    def saved(self):
        config.Domain(name='d1', disk='/d.img').check().save()
        return config.config_path('d1')

    def test_round_trip(self):
        self.saved()
        self.assertEqual(config.load('d1'), config.Domain(name='d1', disk='/d.img'))
        self.assertEqual(config.names(), ['d1'])

    def test_damaged(self):
        path = self.saved()
        with open(path, encoding='utf-8') as file:
            good = json.load(file)
        for text, pattern in (('{', 'is damaged'), ('[]', 'was not written by this version'),
                              (json.dumps(dict(good, format=99)), 'was not written by this version'),
                              (json.dumps(dict(good, name='d2')), 'was not written by this version'),
                              (json.dumps(dict(good, vcpus='2')), '"vcpus" is not understood'),
                              (json.dumps(dict(good, surprise=1)), '"surprise" is not understood'),
                              (json.dumps(dict(good, channels=9999)), '--channels 9999')):
            self.file('confdir/d1.json', text)
            with self.assertRefusal(pattern):
                config.load('d1')

    def test_lanes_of_small_channels(self):
        self.assertEqual(config.Domain(name='d').lanes(), 128)
        self.assertEqual(config.Domain(name='d', channels=127, window_bytes=128 << 20).lanes(), 8)


class Sizes(unittest.TestCase):

    def test_sizes(self):
        for text, want in (('512M', 512 << 20), ('4G', 4 << 30), ('4GiB', 4 << 30), ('7', 7), ('1k', 1024)):
            self.assertEqual(common.parse_size(text, '--x'), want)
        for text in ('', '-1', '1.5G', 'G', '1E'):
            with self.assertRaises(common.Usage):
                common.parse_size(text, '--x')
        self.assertEqual(common.show_size(3 << 29), '1536M')

    def test_cpu_lists(self):
        self.assertEqual(common.parse_cpus('0,2-4', 'x'), [0, 2, 3, 4])
        self.assertEqual(common.show_cpus([4, 0, 2, 3]), '0,2-4')
        self.assertEqual(common.show_cpus([]), '')
        for text in ('', 'a', '3-1', '1,,2'):
            with self.assertRaises(common.Usage):
                common.parse_cpus(text, 'x')


class Pins(sctest.Case):

    def test_from_the_highest_down(self):
        got = host.choose_pinning(FakeHost(self), 2, 'auto')
        self.assertEqual((got.vcpus, got.emulator), ([6, 7], [0, 1, 2, 3, 4, 5]))

    def test_isolated_first(self):
        got = host.choose_pinning(FakeHost(self, isolated='2-3'), 2, 'auto')
        self.assertEqual((got.vcpus, got.emulator), ([2, 3], [0, 1, 4, 5, 6, 7]))

    def test_one_node(self):
        got = host.choose_pinning(FakeHost(self, nodes=['0-3', '4-7']), 3, 'auto')
        self.assertEqual((got.vcpus, got.emulator, got.node), ([1, 2, 3], [0], 0))

    def test_too_many_vcpus(self):
        self.assertEqual(host.choose_pinning(FakeHost(self, cpus='0-1'), 2, 'auto').vcpus, [])

    def test_by_hand(self):
        got = host.choose_pinning(FakeHost(self), 2, '3,5')
        self.assertEqual((got.vcpus, got.emulator), ([3, 5], [0, 1, 2, 4, 6, 7]))
        with self.assertRaisesRegex(common.Usage, '1 CPUs for 2 vCPUs'):
            host.choose_pinning(FakeHost(self), 2, '3')
        self.assertEqual(host.choose_pinning(FakeHost(self), 2, 'none').vcpus, [])

    def test_default_vcpus(self):
        for cpus, want in (('0', 1), ('0-1', 1), ('0-3', 2), ('0-63', 4)):
            self.assertEqual(host.default_vcpus(FakeHost(self, cpus=cpus)), want)


class ChannelMemory(sctest.Case):

    def test_node_of_the_vcpus(self):
        """Channels are asked from the node where their pollers are pinned; from none if that is not one node."""
        domain = config.Domain(name='d', disk='/d', vcpus=2)
        for nodes, pin, want in ((['0-3', '4-7'], 'auto', 0), (['0-3', '4-7'], '5,6', 1), (['0-3', '4-7'], '3,4', -1),
                                 (['0-7'], 'auto', -1), (['0-3', '4-7'], 'none', -1)):
            domain.pin = pin
            got = vm.channel_memory(domain, FakeHost(self, nodes=nodes))
            self.assertEqual(got, {'huge': '', 'node': want}, (nodes, pin))
        self.assertIn('--numa-node 1', ' '.join(broker.command(domain, False, node=1)))
        self.assertNotIn('--numa-node', ' '.join(broker.command(domain, False)))


class HugePages(sctest.Case):

    def decide(self, wish, free, memory=512):
        fake = FakeHost(self)
        for size, number in (('2048', free), ('1048576', 0)):
            self.file(f'host/sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages', str(number))
            self.file(f'host/sys/kernel/mm/hugepages/hugepages-{size}kB/free_hugepages', str(number))
        return vm.decide_hugepages(config.Domain(name='d', hugepages=wish, memory_mib=memory), fake)

    def test_wishes(self):
        self.assertEqual(self.decide('none', 999), '')
        self.assertEqual(self.decide('auto', 255), '')
        self.assertEqual(self.decide('auto', 256), '2M')
        self.assertEqual(self.decide('2M', 256), '2M')

    def test_none_there(self):
        with self.assertRefusal(r'256 free pages are needed, 3 are there: echo 256 > .*2048kB'):
            self.decide('2M', 3)
        with self.assertRefusal('not a multiple'):
            self.decide('1G', 3)


    def channels(self, wish, free, memory=512, pages='none'):
        fake = FakeHost(self)
        self.file('host/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages', str(free))
        self.file('host/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages', str(free))
        return vm.decide_channel_hugepages(config.Domain(name='d', channel_hugepages=wish, memory_mib=memory, hugepages=pages,
                                                         channels=15, window_bytes=256 << 20), fake)

    def test_channels(self):
        """A channel of 16 MiB takes 8 pages, beside those of guest memory; auto wants them for all 15."""
        self.assertEqual(self.channels('none', 999), '')
        self.assertEqual(self.channels('2M', 8), '2M')
        self.assertEqual(self.channels('auto', 119), '')
        self.assertEqual(self.channels('auto', 120), '2M')
        self.assertEqual(self.channels('2M', 264, pages='2M'), '2M')
        with self.assertRefusal('takes 8 free pages, 7 are there; for all 15 channels: echo 120 >'):
            self.channels('2M', 7)
        with self.assertRefusal('takes 8 free pages, 7 are there; for all 15 channels and guest memory: echo 376 >'):
            self.channels('2M', 263, pages='2M')
        with self.assertRaisesRegex(common.Usage, 'a channel has 1024K'):
            config.Domain(name='d', disk='/d', channel_hugepages='2M', channels=127, window_bytes=128 << 20).check()


class Reach(sctest.Case):

    def domain(self, disk):
        return config.Domain(name='d1', disk=disk, image_dir=self.dir, qemu_uid=64055, qemu_gid=64055)

    def test_walls(self):
        os.makedirs(self.path('private/inner'), 0o755)
        os.chmod(self.path('private'), 0o700)
        inside = self.path('private/inner/d.img')
        self.assertEqual(vm.may_reach(inside, 64055, 64055), self.path('private'))
        self.assertEqual(vm.may_reach(inside, 0, 0), '')
        os.chmod(self.path('private'), 0o711)
        self.assertEqual(vm.may_reach(inside, 64055, 64055), '')
        self.assertEqual(vm.may_reach(self.path('not/there/yet.img'), 64055, 64055), '')

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which('setfacl'), 'needs root and setfacl')
    def test_opened_and_closed_again(self):
        os.makedirs(self.path('a/b'), 0o700)
        domain = self.domain(self.path('a/b/d.img'))
        os.chmod(self.path('a'), 0o700)
        self.assertEqual(vm.walls(domain), [self.path('a/b'), self.path('a')])
        with mock.patch.object(vm, 'say') as said:
            vm.open_walls(domain, 'libvirt-qemu')
        self.assertEqual(said.call_count, 2)
        self.assertEqual(vm.walls(domain), [])
        self.assertEqual(domain.granted, [self.path('a/b'), self.path('a')])
        os.chmod(self.path('a'), 0o700)  # takes the ACL's mask away
        self.assertEqual(vm.walls(domain), [self.path('a')])
        vm.close_walls(domain)
        self.assertEqual(vm.walls(domain), [self.path('a/b'), self.path('a')])

    def test_without_setfacl(self):
        os.makedirs(self.path('a'), 0o700)
        domain = self.domain(self.path('a/d.img'))
        with mock.patch.object(vm, 'find_system_program', return_value=None), \
                self.assertRefusal('libvirt-qemu under libvirt, who may not enter .*: apt-get install acl'):
            vm.check_walls(domain, 'libvirt-qemu')


class Locks(sctest.Case):

    def test_one_at_a_time(self):
        with common.locked('d1'), mock.patch.object(common, 'LOCK_SECONDS', 0.1):
            with common.locked('d2'):
                pass
            self.refused(1, 'another scctl is at work on domain d1', 'start', 'd1')
        with common.locked('d1'):
            pass


if __name__ == '__main__':
    unittest.main()
