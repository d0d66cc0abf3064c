#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""scctl doctor on hosts that are not this one."""

import json
import os
import resource
import unittest
from unittest import mock

import sctest
import scctl_apparmor as apparmor
import scctl_common as common
import scctl_config as config
import scctl_doctor as doctor
import scctl_host as host
import scctl_vm as vm
from scctl_doctor import FAIL, OK, WARN
from scctl_vm import kvm_accel

KVM_WORKS = kvm_accel.Choice('kvm', 'auto', kvm_accel.Kvm('works', 'works', ''), 'KVM: /dev/kvm works', '', False)
TCG = kvm_accel.Choice('tcg', 'auto', kvm_accel.Kvm('absent', 'none', 'x'), 'TCG: there is no /dev/kvm',
                       'load it', False)


class Doctor(sctest.Case):

    def facts(self, **changes):
        """A host on which all is well, with changes."""
        self.file('host/sys/devices/system/cpu/online', '0-7')
        self.file('host/proc/sys/vm/unprivileged_userfaultfd', '0')
        values = dict(host=host.Host(self.path('host')), which=lambda name: '/bin/' + name,
                      ours=lambda name: '/b/' + name, qemu=lambda: '/q', device_help=lambda _: 'vhost-user-sc-pci',
                      libvirt_why=lambda: '', hook_unseen=lambda: False, limits=lambda _: (1 << 20, 1 << 40),
                      sud_refusal=lambda: '', uring_refusal=lambda: '', choose_accel=lambda _: KVM_WORKS)
        values.update(changes)
        return doctor.Facts(**values)

    def found(self, check, level, text, remedy='.*', **changes):
        """The doctor finds exactly this under `check`."""
        findings = doctor.examine(self.facts(**changes))
        about = [f for f in findings if f.check == check and f.level == level]
        self.assertTrue(about, [vars(f) for f in findings])
        self.assertRegex(about[0].text, text)
        self.assertRegex(about[0].remedy, remedy)
        return findings

    def test_all_well(self):
        findings = doctor.examine(self.facts())
        self.assertEqual([f for f in findings if f.level != OK], [])
        self.assertIn('this host can run service domains', doctor.report(findings))

    def test_accelerator(self):
        self.found('accelerator', WARN, 'TCG: there is no', 'load it', choose_accel=lambda _: TCG)
        self.file('host/sys/module/kvm/parameters/halt_poll_ns', '0')
        self.found('halt polling', WARN, 'does not poll', 'halt_poll_ns')

    # What /dev/kvm can be: name, /proc/cpuinfo, what happens on opening it, what doctor says, the remedy.
    KVMS = (
        ('absent', '', FileNotFoundError(2, ''), WARN, 'TCG: there is no .*neither vmx nor svm', 'firmware'),
        ('no module', 'flags : vmx', FileNotFoundError(2, ''), WARN, 'TCG: the processor can virtualize, but', 'modprobe kvm'),
        ('forbidden', 'flags : svm', PermissionError(13, ''), WARN, 'TCG: .*may not open', 'group kvm'),
        ('special', 'flags : fpu', None, WARN, 'TCG: .*specially built guests', 'nested'),
        ('broken', 'flags : svm', OSError(16, 'busy'), WARN, 'TCG: .*does not open: busy', 'dmesg'),
        ('works', 'flags : svm', None, OK, '^KVM: .*works$', '^$'),
    )

    def test_each_kind_of_kvm(self):
        """doctor explains each in one line; so does define when it starts; a wish for KVM is refused where there is none."""
        for name, cpuinfo, error, level, text, remedy in self.KVMS:
            device, info = self.file('kvm'), self.file('cpuinfo', cpuinfo + '\n')
            real = os.open

            def fake(path, *args, error=error, device=device, real=real, **kw):
                if path == device and error:
                    raise error
                return real(path, *args, **kw)

            def choose(wish, device=device, info=info):
                try:
                    return kvm_accel.choose(wish, device, info)
                except kvm_accel.Unavailable as err:
                    raise common.Refusal(str(err)) from err

            with self.subTest(name), mock.patch('os.open', fake):
                self.found('accelerator', level, text, remedy, choose_accel=choose)
                argv = ('--disk', self.path('d.img'), '--size', '64M', '--no-libvirt', '--image', '/nowhere')
                with mock.patch.object(vm, 'choose_accel', choose):
                    err = self.refused(1, '--image /nowhere', 'define', 'd1', *argv)
                    lines = [line for line in err.splitlines() if line.startswith('scctl: accelerator ')]
                    self.assertEqual(len(lines), 1)
                    self.assertRegex(lines[0].replace('scctl: accelerator ', ''), text)
                    if level != OK:
                        self.assertRegex(lines[0], 'remedy: .*' + remedy)  # in the same line
                    if name == 'special':  # granted with a warning: a user may have a kernel for it
                        err = self.refused(1, '--image /nowhere', 'define', 'd1', *argv, '--accel', 'kvm')
                        self.assertRegex(err, 'KVM, as asked for, but .*remedy: say auto')
                    elif level != OK:
                        self.refused(1, 'KVM was asked for, but .*say auto instead', 'define', 'd1', *argv, '--accel', 'kvm')
                        config.Domain(name='d2', disk=self.file('d2.img'), libvirt=False).save()
                        self.refused(1, 'KVM was asked for, but .*say auto instead', 'start', 'd2', '--accel', 'kvm')
                        config.Domain(name='d2', disk=self.file('d2.img'), libvirt=False, accel='kvm').save()
                        self.found('domain d2', FAIL, 'KVM was asked for, but', 'say auto instead', choose_accel=choose)
                        os.unlink(self.path('confdir/d2.json'))

    def defined(self, **changes):
        config.Domain(name='d1', disk=self.file('d.img'), libvirt=False, **changes).save()

    def test_agent_that_does_not_report(self):
        """A VM that runs under KVM, whose agent is silent."""
        self.defined(ready_seconds=1)
        fake = mock.Mock(how='direct')
        with mock.patch.object(vm, 'runners', return_value=[fake]), \
                mock.patch.object(doctor.broker, 'ask', return_value={'state': 'starting'}), \
                mock.patch.object(vm, 'choose_accel', return_value=KVM_WORKS):
            self.found('domain d1', WARN, 'the agent did not report yet under KVM.*console log; try accelerator tcg', 'scctl logs d1')
        with mock.patch.object(vm, 'runners', return_value=[fake]), \
                mock.patch.object(doctor.broker, 'ask', return_value={'state': 'ready'}):
            self.assertNotIn(WARN, [f.level for f in doctor.examine(self.facts())])
        with mock.patch.object(vm, 'runners', return_value=[fake]), \
                mock.patch.object(doctor.broker, 'ask', return_value={'state': 'starting', 'refused': True, 'why': 'its agent was refused: 9'}):
            self.found('domain d1', WARN, '^its agent was refused: 9$', 'scctl logs d1')

    def test_kvm_went_away(self):
        self.defined()
        self.file('statedir/d1/domain.xml', '<domain type="kvm"/>')
        self.found('domain d1', WARN, 'asks for KVM, which does not work here now', 'scctl start d1', choose_accel=lambda _: TCG)

    def test_tuning_of_a_domain(self):
        """What was done and what more could be."""
        self.file('host/sys/devices/system/cpu/isolated', '6-7')
        self.file('host/sys/module/kvm/parameters/halt_poll_ns', '200000')
        self.defined(vcpus=2)
        self.found('domain d1', OK, 'vCPUs on isolated CPUs: CPU 6-7; QEMU on 0-5; guest memory: ordinary pages .*; channels: ordinary '
                   'pages.*halt polling: the guest polls')
        self.defined(vcpus=4)
        self.found('domain d1', OK, 'CPU 4-7: not isolated, .*isolcpus=managed_irq,domain,4-7 .*the host polls for up to 200 us')
        self.defined(hugepages='2M')
        self.found('domain d1', WARN, 'does not fit this host any more.* 256 free pages are needed', 'echo 256 >')

    def test_numa(self):
        self.file('host/sys/devices/system/node/has_cpu', '0-1')
        for node, cpus in enumerate(('0-3', '4-7')):
            self.file(f'host/sys/devices/system/node/node{node}/cpulist', cpus)
        self.found('NUMA', OK, '2 nodes', qemu_numa=lambda _: True)
        self.found('NUMA', WARN, 'cannot ask for memory', 'with libnuma', qemu_numa=lambda _: False)

    def test_one_cpu(self):
        self.facts()
        facts = self.facts()
        self.file('host/sys/devices/system/cpu/online', '0')
        about = [f for f in doctor.examine(facts) if f.check == 'CPUs']
        self.assertEqual(about[0].level, WARN)

    def test_packages(self):
        which = {'virsh': None, 'debugfs': None}
        findings = self.found('packages', WARN, 'virsh is not installed', 'apt-get install libvirt-clients',
                              which=lambda name: which.get(name, '/bin/x'))
        self.assertTrue(any(f.level == FAIL and 'debugfs' in f.text for f in findings))

    def test_not_built(self):
        def missing(name):
            raise common.Refusal(f'{name} is not built (/x is missing): run ninja')
        self.found('vhost-scd', FAIL, 'is not built', 'run ninja', ours=missing)

    def test_qemu_without_the_device(self):
        self.found('QEMU', FAIL, 'does not have the device', 'build-qemu.sh', device_help=lambda _: 'virtio-blk')

    def test_libvirt(self):
        self.found('libvirt', WARN, 'libvirtd is not running', 'scctl libvirtd start; or use scctl start --direct',
                   libvirt_why=lambda: 'libvirtd is not running: scctl libvirtd start')
        self.found('libvirt hook', WARN, 'older than our hook', 'restart', hook_unseen=lambda: True)

    def test_limits(self):
        low = {resource.RLIMIT_NOFILE: (1024, 4096), resource.RLIMIT_MEMLOCK: (1 << 16, 1 << 16)}
        self.found('open files', WARN, 'at most 4096', '65536', limits=lambda which: low[which])
        self.found('locked memory', WARN, 'at most 64 KiB', 'memlock', limits=lambda which: low[which])

    def test_kernel(self):
        self.found('syscall dispatch', FAIL, 'no Syscall User Dispatch', '5.11', sud_refusal=lambda: 'Invalid argument')
        self.found('io_uring', WARN, 'uses Linux AIO', 'sysctl kernel.io_uring_disabled=0',
                   uring_refusal=lambda: 'kernel.io_uring_disabled is 2')

    def test_io_uring_switched_off(self):
        self.file('host/proc/sys/kernel/io_uring_disabled', '2')
        self.assertEqual(host.io_uring_refusal(host.Host(self.path('host'))), 'kernel.io_uring_disabled is 2')

    def test_huge_pages(self):
        self.file('host/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages', '64')
        self.file('host/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages', '60')
        self.found('huge pages', OK, '60 of 64 free of 2 MiB')

    def test_apparmor(self):
        self.file('host/sys/module/apparmor/parameters/enabled', 'Y')
        self.file('host/sys/kernel/security/apparmor/profiles', 'libvirtd (enforce)')
        self.found('AppArmor', WARN, 'does not let it run /q', 'scctl define')
        self.file('host/etc/apparmor.d/local/usr.sbin.libvirtd', apparmor.local_text('', '/q'))
        self.found('AppArmor', OK, 'may run')

    def test_apparmor_rule_replaces_the_former(self):
        first = apparmor.local_text('# mine\n/x r,\n', '/old/qemu')
        self.assertEqual(apparmor.local_text(first, '/new/qemu'),
                         '# mine\n/x r,\n# vhost-sc: the patched QEMU\n"/new/qemu" PUx,\n')

    def test_a_check_that_fails_is_a_finding(self):
        def broken(_):
            raise common.Refusal('boom')
        self.found('accelerator', WARN, 'could not be found out: boom', choose_accel=broken)

    def test_domain_without_its_disk(self):
        self.file('confdir/d1.json', json.dumps({'format': 1, 'name': 'd1', 'disk': '/nowhere/d.img'}))
        self.found('domain d1', FAIL, 'its disk /nowhere/d.img is missing')
        self.file('confdir/d1.json', '{')
        self.found('domain d1', FAIL, 'damaged|d1.json')

    def test_program(self):
        out, _ = self.scctl('doctor', '--json', expect=1)  # /bin/true is not our QEMU
        self.assertIn('QEMU', [f['check'] for f in json.loads(out) if f['level'] == FAIL])


if __name__ == '__main__':
    unittest.main()
