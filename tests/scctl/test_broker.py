#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The broker as scctl starts, asks and ends it; the libvirt hook; loopback domains. With a fake vhost-scd."""

import json
import os
import socket
import stat
import subprocess
import threading
import unittest
from unittest import mock

import sctest
import scctl_broker as broker
import scctl_common as common
import scctl_config as config
import scctl_libvirt as libvirt
import scctl_status as status
import scctl_vm as vm


class Base(sctest.Case):

    def setUp(self):
        super().setUp()
        self.domain = config.Domain(name='d1', disk=self.file('d.img'), libvirt=False)
        self.domain.save()
        self.addCleanup(broker.stop, 'd1')


class Broker(Base):

    def test_started_once(self):
        self.assertTrue(broker.start(self.domain))
        first = broker.pid('d1')
        self.assertTrue(first)
        self.assertFalse(broker.start(self.domain))
        self.assertEqual(broker.pid('d1'), first)
        self.assertTrue(broker.stop('d1'))
        self.assertFalse(broker.stop('d1'))
        self.assertEqual(broker.pid('d1'), 0)

    def test_options(self):
        self.domain.allow_users, self.domain.allow_groups = ['root', 'daemon'], ['adm']
        self.domain.max_per_user, self.domain.deadline_ms, self.domain.channels = 3, 1500, 15
        self.domain.hang_ms, self.domain.retain = 700, 1 << 25
        argv = ' '.join(broker.command(self.domain, False))
        for option in ('--hang-ms 700', '--retain 33554432', '--name d1', '--role storage', f'--rundir {self.path("rundir")}', '--channels 15',
                       '--window-size 2415919104', '--allow-user root', '--allow-user daemon', '--allow-group adm',
                       '--max-per-user 3', '--deadline-ms 1500', f'--log {self.path("logdir")}/d1.broker.log'):
            self.assertIn(option, argv)
        self.assertNotIn('--loopback', argv)
        self.assertNotIn('--huge', argv)
        self.assertIn('--huge 2M', ' '.join(broker.command(self.domain, False, '2M')))
        self.assertNotIn('--huge', broker.command(self.domain, True, '2M'))

    def test_failure_is_the_brokers_own_words(self):
        with mock.patch.dict(os.environ, FAKE_SCD='fail'), self.assertRefusal('no luck today: try tomorrow'):
            broker.start(self.domain)

    def test_sockets_that_never_come(self):
        with mock.patch.dict(os.environ, FAKE_SCD='mute'), mock.patch.object(broker, 'START_SECONDS', 0.5), \
                self.assertRefusal('did not make .*sock within 0.5 s: see .*d1.broker.log'):
            broker.start(self.domain)

    def test_socket_is_given_to_qemu_alone(self):
        if os.geteuid() != 0:
            self.skipTest('needs root')
        self.domain.qemu_uid, self.domain.qemu_gid = 64055, 64056
        broker.start(self.domain)
        about = os.stat(broker.socket_path('d1', 'vhost'))
        self.assertEqual((about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)), (64055, 64056, 0o600))

    def test_not_running(self):
        with self.assertRaisesRegex(broker.NotRunning, 'domain d1 is not running: scctl start d1'):
            broker.ask('d1', 'status')

    def test_refused_order(self):
        broker.start(self.domain)
        with self.assertRefusal('refuses "dance": no such command'):
            broker.ask('d1', 'dance')

    def _answering(self, answer):
        """A ctl.sock that gives one answer."""
        os.makedirs(common.domain_run_dir('d2'), exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(broker.socket_path('d2', 'ctl'))
        listener.listen(1)

        def serve():
            conn, _ = listener.accept()
            with conn:
                conn.recv(100)
                if answer is None:
                    conn.recv(100)
                else:
                    conn.sendall(answer)
        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)

    def test_answers_that_are_none(self):
        for at, (answer, pattern) in enumerate(((b'hello\n', 'not JSON'), (b'[]\n', 'not an object'),
                                                (b'', 'not JSON'))):
            with self.subTest(at):
                self._answering(answer)
                with self.assertRefusal(pattern):
                    broker.ask('d2', 'status')
                os.unlink(broker.socket_path('d2', 'ctl'))

    def test_no_answer(self):
        self._answering(None)
        with mock.patch.object(broker, 'ASK_SECONDS', 0.2), self.assertRefusal('does not answer within'):
            broker.ask('d2', 'status')

    def test_waiting(self):
        with mock.patch.dict(os.environ, FAKE_SCD='starting'):
            broker.start(self.domain)
        self.assertFalse(broker.wait_ready('d1', 0.2))
        with self.assertRefusal('it died'):
            broker.wait_ready('d1', 60, lambda: 'it died')
        broker.stop('d1')
        broker.start(self.domain)
        self.assertTrue(broker.wait_ready('d1', 5))


class Hook(Base):

    XML = ("<domain type='qemu'><metadata><sc:domain xmlns:sc='urn:vhost-sc:domain:1' role='storage'/></metadata>"
           "</domain>")
    OTHER = "<domain type='qemu'><metadata><x:y xmlns:x='urn:else'/></metadata></domain>"

    def setUp(self):
        super().setUp()
        self.domain.libvirt = True
        self.domain.save()
        with mock.patch.object(libvirt, 'daemon_pid', return_value=0):
            self.assertFalse(libvirt.install_hook())

    def hook(self, *argv, xml=XML, **env):
        """Runs the hook as libvirtd does, whose environment has none of our variables."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith('VHOST_SC_')}
        return subprocess.run([libvirt.hook_path(), *argv], input=xml, capture_output=True, text=True, timeout=60,
                              env=dict(clean, **env), check=False)

    def test_broker_is_started(self):
        done = self.hook('d1', 'prepare', 'begin', '-')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(broker.is_running('d1'))
        self.assertEqual(broker.ask('d1', 'status')['info'], {'how': 'libvirt', 'accelerator': ''})
        self.assertEqual(self.hook('d1', 'prepare', 'begin', '-').returncode, 0)

    def test_other_domains_and_moments(self):
        self.assertEqual(self.hook('d1', 'prepare', 'begin', '-', xml=self.OTHER).returncode, 0)
        for operation in (('start', 'begin'), ('started', 'begin'), ('stopped', 'end'), ('release', 'end'),
                          ('reconnect', 'begin'), ('migrate', 'begin')):
            self.assertEqual(self.hook('d1', *operation, '-').returncode, 0)
        self.assertFalse(broker.is_running('d1'))

    def test_failure_says_why(self):
        done = self.hook('d1', 'prepare', 'begin', '-', FAKE_SCD='fail')
        self.assertEqual(done.returncode, 1)
        self.assertIn('starting the broker of domain d1: vhost-scd: there is no luck today', done.stderr)

    def test_domain_that_is_not_defined(self):
        done = self.hook('d9', 'prepare', 'begin', '-')
        self.assertEqual(done.returncode, 1)
        self.assertIn('no domain "d9" is defined', done.stderr)

    def test_scctl_is_gone(self):
        text = libvirt.hook_text().replace(os.path.join(sctest.TOP, 'libvirt-xml', 'scctl'), '/gone/scctl')
        with open(libvirt.hook_path(), 'w', encoding='utf-8') as file:
            file.write(text)
        done = self.hook('d1', 'prepare', 'begin', '-')
        self.assertEqual(done.returncode, 1)
        self.assertIn('/gone/scctl, which defined domain d1, is gone', done.stderr)

    def test_does_not_ask_libvirt(self):
        self.file('bin/virsh', '#!/bin/sh\necho asked >&2; exit 1\n')
        os.chmod(self.path('bin/virsh'), 0o755)
        done = self.hook('d1', 'prepare', 'begin', '-', PATH=self.path('bin') + ':/usr/bin:/bin')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn('asked', done.stderr)

    def test_installed_again_keeps_its_date(self):
        os.utime(libvirt.hook_path(), (1000, 1000))
        with mock.patch.object(libvirt, 'daemon_pid', return_value=os.getpid()):
            self.assertFalse(libvirt.install_hook())
            with mock.patch.dict(os.environ, VHOST_SC_EXTRA='new'):
                self.assertFalse(libvirt.install_hook())
        self.assertEqual(os.stat(libvirt.hook_path()).st_mtime, 1000)

    def test_older_daemon_has_to_be_restarted(self):
        later = os.stat(libvirt.hook_path()).st_mtime + 3600
        os.utime(libvirt.hook_path(), (later, later))
        with mock.patch.object(libvirt, 'daemon_pid', return_value=os.getpid()):
            self.assertTrue(libvirt.install_hook())


class Loopback(sctest.Case):

    def setUp(self):
        super().setUp()
        del os.environ['VHOST_SC_LOGDIR']
        self.addCleanup(lambda: os.path.isdir(common.domain_run_dir('lo')) and self.scctl('stop', 'lo'))

    def test_story(self):
        _, err = self.scctl('start', 'lo', '--loopback', '--root', self.dir)
        self.assertIn('loopback: no isolation', err)
        out, _ = self.scctl('status', 'lo')
        self.assertIn('lo: storage domain, ready, loopback: no isolation', out)
        self.assertRegex(out, r'open +9  \(2 errors\)\n +pread +7\n')
        self.assertIn('dd (pid 42, uid 0)', out)
        out, _ = self.scctl('status', '--json')
        report = json.loads(out)[0]
        self.assertEqual((report['name'], report['loopback'], report['isolation']), ('lo', True, 'none'))
        out, _ = self.scctl('list')
        self.assertRegex(out, r'lo +ready +loopback: no isolation')
        out, _ = self.scctl('logs', 'lo')
        self.assertIn('vhost-scd: ready', out)
        self.refused(1, 'runs already|running already', 'start', 'lo', '--loopback', '--root', self.dir)
        self.refused(1, 'is a loopback domain and has no console', 'console', 'lo')
        _, err = self.scctl('broker', 'restart', 'lo')  # the order reaches it
        self.assertIn('replaces itself', err)
        self.scctl('wait', 'lo', '--timeout', '5')
        self.scctl('stop', 'lo')
        self.scctl('wait', 'lo', '--state', 'down', '--timeout', '5')
        _, err = self.scctl('stop', 'lo')
        self.assertIn('was not running', err)
        self.refused(1, 'no domain "lo" is defined or running', 'status', 'lo')
        for command in ('stop', 'wait', 'console', 'logs', 'start'):
            with self.subTest(command):
                self.refused(1, 'no domain "nosuch"|nosuch is not running|nosuch has no log', command, 'nosuch')

    def test_needs_no_place_but_the_run_directory(self):
        self.scctl('start', 'lo', '--loopback', '--root', self.dir)
        self.assertFalse(os.path.exists(self.path('statedir')) or os.path.exists(self.path('confdir')))

    def test_refusals(self):
        self.refused(2, '--loopback needs --root', 'start', 'lo', '--loopback')
        self.refused(1, 'no such directory', 'start', 'lo', '--loopback', '--root', self.path('x'))
        self.refused(2, 'exclude each other', 'start', 'lo', '--loopback', '--root', '/', '--direct')
        self.refused(2, '--root goes with --loopback', 'start', 'lo', '--root', '/')

    def test_agent_that_fails(self):
        with mock.patch.dict(os.environ, FAKE_AGENT='fail', FAKE_SCD='starting'):
            self.refused(1, 'the agent of loopback domain lo ended: sc-agent: cannot serve: no reason', 'start', 'lo',
                         '--loopback', '--root', self.dir)

    def test_agent_that_is_silent(self):
        with mock.patch.dict(os.environ, FAKE_SCD='starting'):
            self.refused(1, 'the agent did not report within 1 s', 'start', 'lo', '--loopback', '--root', self.dir,
                         '--wait', '1')

    def test_agent_that_is_refused(self):
        """An agent of another version: told at once, not after the time is over."""
        with mock.patch.dict(os.environ, FAKE_SCD='refused'):
            self.refused(1, 'domain lo: its agent was refused: it speaks version 9', 'start', 'lo', '--loopback', '--root', self.dir,
                         '--wait', '600')

    def test_kind_is_not_mixed_up(self):
        self.scctl('start', 'lo', '--loopback', '--root', self.dir)
        with self.assertRefusal('runs as a loopback domain: scctl stop lo first'):
            broker.start(config.Domain(name='lo', disk='/d'))


class FakeVm:
    """A VM whose agent reports under one accelerator only."""

    how = 'direct'

    def __init__(self, domain, broken=''):
        self.domain, self.accels, self.is_running, self.broken = domain, [], False, broken

    def start(self, choice):
        self.accels.append(choice.accel)
        if choice.accel == self.broken:
            raise common.Refusal('QEMU ended at once')
        self.is_running = True

    def kill(self):
        self.is_running = False

    def running(self):
        return self.is_running

    def gone(self):
        return ''


class Fallback(sctest.Case):

    def start(self, wish, served_by, broken=''):
        fake = FakeVm(config.Domain(name='d1', ready_seconds=1), broken)
        choice = vm.kvm_accel.Choice('kvm', wish, vm.kvm_accel.Kvm('works', '', ''), 'KVM', '', False)
        with mock.patch.object(broker, 'wait_ready', lambda *_: fake.accels[-1] == served_by), \
                mock.patch.object(vm, 'say') as said:
            try:
                vm.start_vm(fake, choice, None)
            finally:
                fake.said = ' '.join(call.args[0] for call in said.call_args_list)
        return fake

    def test_silent_under_kvm(self):
        fake = self.start('auto', 'tcg')
        self.assertEqual(fake.accels, ['kvm', 'tcg'])
        self.assertIn('did not report within 1 s under KVM', fake.said)
        self.assertIn('falling back to TCG', fake.said)

    def test_does_not_start_under_kvm(self):
        fake = self.start('auto', 'tcg', broken='kvm')
        self.assertEqual(fake.accels, ['kvm', 'tcg'])
        self.assertIn('does not start under KVM: QEMU ended at once', fake.said)
        with self.assertRefusal('QEMU ended at once'):
            self.start('kvm', 'tcg', broken='kvm')

    def test_agent_that_is_refused(self):
        """Another accelerator would not help."""
        fake = FakeVm(config.Domain(name='d1'))
        choice = vm.kvm_accel.Choice('kvm', 'auto', vm.kvm_accel.Kvm('works', '', ''), 'KVM', '', False)
        with mock.patch.object(broker, 'ask', return_value={'state': 'starting', 'refused': True, 'why': 'its agent was refused: version 9'}), \
                mock.patch.object(vm, 'say'), self.assertRefusal('refused: version 9; scctl define d1, once more, makes its guest image'):
            vm.start_vm(fake, choice, 600)
        self.assertEqual(fake.accels, ['kvm'])

    def test_works_under_kvm(self):
        self.assertEqual(self.start('auto', 'kvm').accels, ['kvm'])

    def test_explicit_wish_is_kept(self):
        with self.assertRefusal('did not report within 1 s under KVM'):
            self.start('kvm', 'tcg')

    def test_silent_under_both(self):
        with self.assertRefusal('did not report within 1 s under TCG'):
            self.start('auto', 'none')


class UnderLibvirt(sctest.Case):

    def test_failed_start_leaves_the_accelerator(self):
        """--accel kvm that does not start must not make the next virsh start fail, too."""
        self.file('statedir/d1/domain.xml', '<domain type="qemu"/>')
        kvm = vm.kvm_accel.Choice('kvm', 'kvm', vm.kvm_accel.Kvm('special', '', ''), 'KVM', '', True)
        for error, want in ((common.Refusal('QEMU ended'), ['kvm', 'tcg']), (None, ['kvm'])):
            with mock.patch.object(libvirt, 'state', return_value='shut off'), mock.patch.object(libvirt, 'start', side_effect=error), \
                    mock.patch.object(vm, 'define_in_libvirt') as defined:
                try:
                    vm.LibvirtVm(config.Domain(name='d1')).start(kvm)
                    self.assertIsNone(error)
                except common.Refusal as err:
                    self.assertIs(err, error)
                self.assertEqual([call.args[1] for call in defined.call_args_list], want)


class Text(unittest.TestCase):

    def test_a_broker_that_does_not_answer_us(self):
        """Its domain may well run: it is not called down."""
        with mock.patch.object(status, 'all_names', return_value=['x']), mock.patch.object(vm, 'runners', return_value=[]), \
                mock.patch.object(broker, 'ask', side_effect=common.Refusal('not for this user')):
            self.assertRegex(status.listing_text(status.listing()), r'x +unknown +- +not for this user')

    def test_another_brokers_status(self):
        self.assertEqual(status.text({'name': 'x', 'state': 'down'}), 'x:  domain, down\n')
        text = status.text({'name': 'x', 'state': 'starting', 'why': 'the VM is paused'})
        self.assertIn('why: the VM is paused', text)


if __name__ == '__main__':
    unittest.main()
