#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""test_run.py - `scbench` end to end on a loopback domain: list, a tiny run, going on with it, the report. Asserts no times."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench'))
import scbench_cli  # noqa: E402
import scbench_net as net  # noqa: E402
import scbench_run  # noqa: E402
import scbench_workloads as wl  # noqa: E402

SCBENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench', 'scbench')


def scbench(*argv, status=0):
    done = subprocess.run([sys.executable, SCBENCH, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300,
                          check=False)
    assert status is None or done.returncode == status, f'status {done.returncode}: {done.stdout}\n{done.stderr}'
    return done


class List(unittest.TestCase):
    def test_every_workload_is_listed(self):
        text = scbench('list').stdout
        words = set(text.replace(',', ' ').split())
        self.assertLessEqual({w.name for w in wl.workloads()}, words)
        self.assertEqual(text.count('why: '), text.count('base: '))
        self.assertIn(f'left out: {net.why_not()}' if net.why_not() else 'netrr-64', text)


class Run(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.TemporaryDirectory()
        cls.out = os.path.join(cls.tmp.name, 'out')
        cls.argv = ('run', 'quick', '--out', cls.out, '--sample-ms', '1')
        cls.first = scbench(*cls.argv, '--repeat', '1')

    @classmethod
    def tearDownClass(cls):
        cls.tmp.cleanup()

    def rounds(self):
        with open(os.path.join(self.out, 'raw.jsonl'), encoding='utf-8') as f:
            return [e for e in map(json.loads, f) if 'round' in e]

    def test_1_all_of_quick_was_measured(self):
        quick = {w.name for w in wl.select('quick')}
        self.assertGreater(len(quick), 30)
        self.assertEqual({e['w'] for e in self.rounds()}, quick)
        self.assertIn('s left', self.first.stderr)

    def test_2_samples_are_whole(self):
        for entry in self.rounds():
            for side, s in entry['sides'].items():
                self.assertGreater(s['ns'], 0, (entry['w'], side))
                self.assertGreaterEqual(min(s['app_ns'], s['agent_ns'], s['broker_ns']), 0, (entry['w'], side))

    def test_2a_programs_reach_the_domain(self):
        with open(os.path.join(self.out, 'raw.jsonl'), encoding='utf-8') as f:
            shares = {e['w']: e['share'] for e in map(json.loads, f) if 'share' in e}
        for name in ('untar', 'sqlite-commit', 'git-status'):
            self.assertGreater(shares[name]['remote'], 0, name)
            self.assertGreater(shares[name]['calls'], shares[name]['remote'] / 2, name)

    def test_2b_notifications_are_counted(self):
        with open(os.path.join(self.out, 'raw.jsonl'), encoding='utf-8') as f:
            bells = {e['w']: e['bells'] for e in map(json.loads, f) if 'bells' in e}
        # A caller that sleeps has to be woken; an agent that sleeps, too.
        self.assertGreater(bells['null-asleep']['doorbells'], 0)
        self.assertGreater(bells['null-asleep']['slept'], 0)

    def test_2c_peers_of_a_vm_are_left_out_with_the_reason(self):
        self.assertRegex(self.first.stderr, 'sshfs, guest, ping is left out: .*--domain vm')

    def test_3_work_is_cleaned_up(self):
        self.assertEqual(sorted(os.listdir(self.out)), ['raw.jsonl', 'run.json'])

    def test_4_goes_on_after_a_crash(self):
        before = self.rounds()
        with open(os.path.join(self.out, 'raw.jsonl'), 'a', encoding='utf-8') as f:
            f.write('{"w":"null","round":1,"si')
        scbench('run', 'ring', *self.argv[2:], '--repeat', '2')
        after = self.rounds()
        self.assertEqual(after[:len(before)], before)
        self.assertEqual(sorted(e['round'] for e in after if e['w'] == 'null'), [0, 1])
        self.assertEqual(len({e['sides']['ours']['ops'] for e in after if e['w'] == 'null'}), 1)

    def test_5_another_run_is_not_mixed_in(self):
        done = scbench(*self.argv, '--seed', '7', status=1)
        self.assertIn('seed was 1', done.stderr)

    def test_6_report(self):
        text = scbench('report', self.out).stdout
        self.assertIn('native pread', text)
        for name in ('results.json', 'report.html'):
            self.assertTrue(os.path.getsize(os.path.join(self.out, name)))
            os.unlink(os.path.join(self.out, name))
        shutil.rmtree(os.path.join(self.out, 'plots'))


class Refusals(unittest.TestCase):
    def test_errors_name_the_remedy(self):
        with tempfile.TemporaryDirectory() as d:
            self.assertIn('scbench run quick', scbench('report', d, status=1).stderr)
            self.assertIn('no-such-domain', scbench('run', 'ring', '--out', d, '--domain', 'no-such-domain', status=1).stderr)
            scbench('run', 'everything', '--out', d, status=2)
            self.assertIn('--domain vm', scbench('run', 'ring', '--out', d, '--accel', 'tcg', status=1).stderr)


class Minutes(unittest.TestCase):
    def test_what_there_is_no_time_for_is_put_off(self):
        with tempfile.TemporaryDirectory() as d:
            argv = ('run', 'process', '--out', d, '--repeat', '1', '--sample-ms', '1')
            args = scbench_cli.parser().parse_args([*argv, '--minutes', '1'])
            run = scbench_run.Run(args)
            run.end = 0.001  # long ago
            with contextlib.redirect_stderr(io.StringIO()) as err:
                run.run()
            self.assertIn(f'{len(wl.select("process"))} workloads were not begun', err.getvalue())
            scbench(*argv)
            with open(os.path.join(d, 'raw.jsonl'), encoding='utf-8') as f:
                self.assertEqual({e['w'] for e in map(json.loads, f) if 'round' in e}, {w.name for w in wl.select('process')})


class Failover(unittest.TestCase):
    def test_a_killed_agent_is_replaced_and_calls_are_served_again(self):
        with tempfile.TemporaryDirectory() as d:
            scbench('run', 'failover', '--out', d, '--repeat', '1')
            with open(os.path.join(d, 'raw.jsonl'), encoding='utf-8') as f:
                round_ = next(e for e in map(json.loads, f) if 'round' in e)
            extra = round_['sides']['ours']['extra']
            self.assertAlmostEqual(round_['sides']['ours']['ns'] / 1e6, sum(extra[k + '_ms'] for k in ('detect', 'boot', 'call')), 3)
            before = sum(ok for ms, ok, _ in round_['timeline'] if ms < -10)
            after = sum(ok for ms, ok, _ in round_['timeline'] if ms > round_['sides']['ours']['ns'] / 1e6)
            self.assertGreater(min(before, after), 0)


class Network(unittest.TestCase):
    def test_it_is_measured_or_refused_with_the_reason(self):
        with tempfile.TemporaryDirectory() as d:
            if net.why_not():
                self.assertIn(net.why_not(), scbench('run', 'network', '--out', d, status=1).stderr)
                return
            # A workload may find a limit of the domain (connections): it is left out, the status says so, the others are there.
            scbench('run', 'network', '--out', d, '--repeat', '1', '--sample-ms', '1', status=None)
            with open(os.path.join(d, 'raw.jsonl'), encoding='utf-8') as f:
                entries = [json.loads(line) for line in f]
            measured = {e['w'] for e in entries if 'round' in e}
            left_out = {e['skipped'] for e in entries if 'skipped' in e}
            self.assertEqual(measured | left_out, {w.name for w in wl.select('network')})
            self.assertLessEqual({'netrr-64', 'nettx-65536', 'netrx-65536', 'netudp-64', 'netconn'}, measured)


class Lines(unittest.TestCase):
    def test_parts_and_the_sum(self):
        rows = {line.split('  ')[0]: line for line in scbench('lines').stdout.splitlines()}
        for part in ('hostlib', 'guest-agent', 'vhost-sc', 'QEMU (by patches)', 'all'):
            self.assertIn(part, rows)
        self.assertRegex(rows['QEMU (by patches)'], r'\+\d+ -\d+')


if __name__ == '__main__':
    unittest.main()
