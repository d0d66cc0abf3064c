#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""scctl doctor on hosts that are not this one."""

import json
import resource
import unittest

import sctest
import scctl_apparmor as apparmor
import scctl_common as common
import scctl_doctor as doctor
import scctl_host as host
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
