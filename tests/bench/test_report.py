#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""test_report.py - `scbench report` from samples made up here: figures, marks, comparison, the page."""

import contextlib
import html.parser
import io
import json
import os
import re
import sys
import tempfile
import types
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench'))
import scbench_report as report  # noqa: E402
import scbench_workloads as wl  # noqa: E402
from scbench_common import Refusal  # noqa: E402

RECORD = {
    'identity': {'format': 1, 'domain': 'loopback', 'seed': 1, 'nice': 0, 'sample_ms': 40, 'programs': 'abc', 'kernel': '6.1'},
    'machine': {'cpu': 'Made <up> & small', 'cpus': 2, 'cpus_allowed': [0, 1], 'virtualised': True, 'memory_mib': 1024,
                'kernel': '6.1', 'system': 'Debian', 'python': '3.11', 'governor': 'performance', 'load_average': [0.1, 0.2, 0.3],
                'revision': 'abc', 'date': '2026-01-01'},
    'accelerator': 'none', 'versions': {'agent': '1', 'agent_kernel': '6.1', 'qemu': ''}, 'pinning': 'none',
    'file_systems': {'base': 'ext4', 'domain': 'ext4'}, 'sets': ['quick'], 'resumed': []}


def sample(ns, ops=10):
    return {'ns': ns * ops, 'ops': ops, 'app_ns': ns * ops // 2, 'agent_ns': ns * ops // 4, 'broker_ns': 0}


def make(directory, repeat=10, others=0.0, slower=1, tail=''):
    """A run's directory: every workload, ours 200 ns and each base case 100 ns."""
    with open(os.path.join(directory, 'run.json'), 'w', encoding='utf-8') as f:
        json.dump(RECORD, f)
    with open(os.path.join(directory, 'raw.jsonl'), 'w', encoding='utf-8') as f:
        for w in wl.workloads():
            for i in range(repeat):
                sides = {n: sample((200 * slower if n == 'ours' else 100) + i) for n in w.sides()}
                f.write(json.dumps({'w': w.name, 'round': i, 'sides': sides}) + '\n')
            f.write(json.dumps({'w': w.name, 'others': others, 'load_average': 1.0}) + '\n')
        f.write(tail)


class WellFormed(html.parser.HTMLParser):
    """Demands that what is opened is closed, in order."""

    VOID = {'meta', 'circle', 'line', 'polygon', 'polyline'}

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag, tag


class Report(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(tempfile.TemporaryDirectory())
        self.other = self.enterContext(tempfile.TemporaryDirectory())

    def run_report(self, compare=None):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(report.run(types.SimpleNamespace(dir=self.dir, compare=compare)), 0)
        return out.getvalue()

    def figure(self, name):
        return next(f for f in report.evaluate(self.dir)['figures'] if f['name'] == name)

    def test_median_interval_ratio(self):
        make(self.dir)
        f = self.figure('null')
        self.assertEqual((f['ours']['median'], f['ours']['low'], f['ours']['high'], f['n']), (204.5, 201, 208, 10))
        self.assertAlmostEqual(f['bases']['floor']['ratio']['median'], 1.957, 2)
        self.assertTrue(f['bases']['floor']['met'])
        self.assertFalse(f['bases']['getppid']['met'])

    def test_cpu_of_each_party(self):
        make(self.dir)
        self.assertEqual(self.figure('null')['cpu_ns'], {'app': 102.25, 'agent': 51.1, 'broker': 0.0})

    def test_additive_bar(self):
        make(self.dir)
        self.assertFalse(self.figure('getppid-local')['bases']['getppid']['met'])
        self.assertEqual(report.bar_text('+20'), 'native + 20 ns')

    def test_cpu_workload_is_a_share(self):
        make(self.dir)
        f = self.figure('idle')
        self.assertAlmostEqual(f['ours']['median'], 75, 0)
        self.assertFalse(f['met'])
        self.assertEqual(f['unit'], '% of one core')

    def test_busy_and_few_are_marked(self):
        make(self.dir, repeat=3, others=0.5)
        text = self.run_report()
        self.assertIn('BUSY MACHINE', text)
        self.assertRegex(text, r'null\*!')
        self.assertIn('[-]', text)
        make(self.dir)
        text = self.run_report()
        self.assertNotIn('BUSY', text)
        self.assertNotRegex(text, r'null[*!]')

    def test_compare(self):
        make(self.dir)
        make(self.other, slower=3)
        text = self.run_report(self.other)
        line = next(x for x in text.splitlines() if x.startswith('stat '))
        self.assertRegex(line, r' yes$')
        self.assertIn('compared with', text)

    def test_a_cut_last_line_is_ignored(self):
        make(self.dir, tail='{"w":"null","rou')
        self.run_report()

    def test_no_run(self):
        with self.assertRaisesRegex(Refusal, 'holds no run'):
            report.evaluate(self.dir)

    def test_results_have_the_samples(self):
        make(self.dir)
        self.run_report()
        with open(os.path.join(self.dir, 'results.json'), encoding='utf-8') as f:
            result = json.load(f)
        self.assertEqual({f['name'] for f in result['figures']}, {w.name for w in wl.workloads()})
        self.assertEqual(len(result['figures'][0]['samples']['ours']), 10)

    def test_page(self):
        make(self.dir)
        make(self.other, slower=3)
        self.run_report(self.other)
        with open(os.path.join(self.dir, 'report.html'), encoding='utf-8') as f:
            page = f.read()
        parser = WellFormed()
        parser.feed(page)
        self.assertEqual(parser.open, [])
        self.assertEqual(sum(tag == 'svg' for tag, _ in parser.seen), len(wl.GROUPS) + 3)
        self.assertFalse([a for _, attrs in parser.seen for a in attrs if a in ('src', 'href')], 'not self-contained')
        self.assertIn('Made &lt;up&gt; &amp; small', page)
        for unit in ('MiB/s', 'ns (logarithmic)', 'no unit'):
            self.assertIn(unit, page)
        self.assertFalse(re.search(r'\b(nan|inf)\b', page))


class Words(unittest.TestCase):
    def test_times(self):
        for ns, text in ((0, '0 ns'), (1.234, '1.23 ns'), (999, '999 ns'), (1000, '1 us'), (45678, '45.7 us'), (2.5e9, '2.5 s'),
                         (999600, '1000 us')):
            self.assertEqual(report.time_text(ns), text)


class Workloads(unittest.TestCase):
    def test_names_are_unique_and_sets_add_up(self):
        names = [w.name for w in wl.select('all')]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(names, [w.name for g in wl.GROUPS for w in wl.select(g)])
        self.assertTrue(set(w.name for w in wl.select('quick')) < set(names))

    def test_each_says_why_and_against_what(self):
        for w in wl.workloads():
            self.assertTrue(w.why and w.title, w.name)
            self.assertTrue(w.bases or w.what == 'cpu', w.name)
            self.assertLessEqual(set(w.bars), set(w.bases), w.name)
            for side in w.sides().values():
                self.assertIn(side.helper, wl.HELPERS, w.name)
            for side in w.bases.values():
                self.assertTrue(side.title, w.name)

    def test_throughput_covers_all_sizes(self):
        for series in ('read', 'write'):
            sizes = [w.size for w in wl.workloads() if w.series == series]
            self.assertEqual((min(sizes), max(sizes)), (64, 16 * wl.MIB))


if __name__ == '__main__':
    unittest.main()
