#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""test_report.py - `scbench report` from samples made up here: figures, marks, comparison, the page."""

import contextlib
import html.parser as html_parser
import io
import json
import os
import re
import sys
import tempfile
import types
import unittest
import xml.etree.ElementTree

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench'))
import scbench_html as html  # noqa: E402
import scbench_report as report  # noqa: E402
import scbench_workloads as wl  # noqa: E402
from scbench_common import Refusal  # noqa: E402

RECORD = {
    'identity': {'format': 2, 'accel': 'auto', 'domain': 'loopback', 'seed': 1, 'nice': 0, 'sample_ms': 40, 'programs': 'abc', 'kernel': '6.1'},
    'machine': {'cpu': 'Made <up> & small', 'cpus': 2, 'cpus_allowed': [0, 1], 'virtualised': True, 'memory_mib': 1024,
                'kernel': '6.1', 'system': 'Debian', 'python': '3.11', 'governor': 'performance', 'load_average': [0.1, 0.2, 0.3],
                'revision': 'abc', 'date': '2026-01-01'},
    'accelerator': 'none', 'versions': {'agent': '1', 'agent_kernel': '6.1', 'qemu': ''}, 'pinning': 'none',
    'command': 'scbench run all --out DIR', 'file_systems': {'base': 'ext4', 'domain': 'ext4'}, 'sets': ['quick'], 'resumed': []}


EXTRA = {'p50_ns': 100, 'p99_ns': 2000, 'p999_ns': 30000}
PHASES = {'detect_ms': 2, 'boot_ms': 300, 'call_ms': 5, 'failed_calls': 1, 'longest_call_ms': 305, 'old_descriptor_lost': 1}


def sample(ns, ops=10, extra=None):
    made = {'ns': ns * ops, 'ops': ops, 'app_ns': ns * ops // 2, 'agent_ns': ns * ops // 4, 'broker_ns': 0, 'idle_ns': ns * ops // 5}
    return dict(made, extra=extra) if extra else made


def make(directory, repeat=10, others=0.0, slower=1, tail='', without=()):
    """A run's directory: every workload, ours 200 ns and each base case 100 ns. without: base cases that there are not."""
    with open(os.path.join(directory, 'run.json'), 'w', encoding='utf-8') as f:
        json.dump(RECORD, f)
    with open(os.path.join(directory, 'raw.jsonl'), 'w', encoding='utf-8') as f:
        for w in wl.workloads():
            extra = PHASES if w.what == 'failover' else EXTRA if w.series in ('threads', 'procs', 'netrr') else None
            for i in range(repeat):
                sides = {n: sample((200 * slower if n == 'ours' else 100) + i, extra=extra) for n in w.sides() if n not in without}
                more = {'timeline': [[-20, 5, 0], [-10, 7, 0], [0, 0, 0], [300, 0, 1], [310, 6, 0]]} if w.what == 'failover' else {}
                f.write(json.dumps({'w': w.name, 'round': i, 'sides': sides, **more}) + '\n')
            f.write(json.dumps({'w': w.name, 'others': others, 'load_average': 1.0}) + '\n')
        f.write(json.dumps({'w': 'null', 'bells': {'doorbells': 30, 'slept': 60, 'calls': 120}}) + '\n')
        f.write(json.dumps({'w': 'untar', 'share': {'remote': 75, 'calls': 100}}) + '\n')
        f.write(json.dumps({'skipped': 'group network', 'why': 'there is none'}) + '\n')
        f.write(tail)


class WellFormed(html_parser.HTMLParser):
    """Demands that what is opened is closed, in order."""

    VOID = {'meta', 'circle', 'line', 'polygon', 'polyline', 'rect'}

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

    def run_report(self, compare=None, markdown=None):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(report.run(types.SimpleNamespace(dir=self.dir, compare=compare, markdown=markdown, section=None)), 0)
        return out.getvalue()

    def figure(self, name):
        return next(f for f in report.evaluate(self.dir)['figures'] if f['name'] == name)

    def test_median_interval_ratio(self):
        make(self.dir)
        f = self.figure('null')
        self.assertEqual((f['ours']['median'], f['ours']['low'], f['ours']['high'], f['n']), (204.5, 201, 208, 10))
        self.assertAlmostEqual(f['bases']['floor']['ratio']['median'], 1.957, 2)
        self.assertEqual(f['bases']['floor']['verdict'], 'met')
        self.assertEqual(f['bases']['getppid']['verdict'], 'MISSED')

    def test_a_bar_within_the_interval_is_open(self):
        for low, high, verdict in ((1.5, 1.9, 'met'), (2.1, 3, 'MISSED'), (1.9, 2.1, 'open')):
            self.assertEqual(report._verdict(2, {'median': 1.95, 'low': low, 'high': high}), verdict)
        self.assertEqual(report._verdict(2, {'median': 1.95, 'low': None, 'high': None}), 'met')

    def test_best_is_of_the_shortest_samples(self):
        make(self.dir)
        self.assertEqual(self.figure('null')['bases']['floor']['best'], 2)

    def test_cpu_of_each_party(self):
        make(self.dir)
        self.assertEqual(self.figure('null')['cpu_ns'], {'app': 102.25, 'agent': 51.1, 'broker': 0.0, 'idle': 40.9})

    def test_additive_bar(self):
        make(self.dir)
        self.assertEqual(self.figure('getppid-local')['bases']['getppid']['verdict'], 'MISSED')
        self.assertEqual(report.bar_text('+20'), 'native + 20 ns')

    def test_cpu_workload_is_a_share(self):
        make(self.dir)
        f = self.figure('idle')
        self.assertAlmostEqual(f['ours']['median'], 75, 0)
        self.assertEqual(f['verdict'], 'MISSED')
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

    def test_idle_is_split_by_party(self):
        make(self.dir)
        self.assertRegex(next(x for x in self.run_report().splitlines() if x.startswith('idle ')), r'50 % \+ 25 % \+ 0 %')

    def test_a_missing_peer_is_left_out(self):
        make(self.dir, without=('uring', 'sshfs', 'guest', 'ping'))
        self.assertEqual(set(self.figure('null')['bases']), {'floor', 'getppid'})
        self.assertEqual(set(self.figure('read-4096')['bases']), {'native'})
        self.run_report()

    def test_a_base_case_of_no_time_is_left_out(self):
        make(self.dir)
        with open(os.path.join(self.dir, 'raw.jsonl'), 'w', encoding='utf-8') as f:
            f.write(json.dumps({'w': 'null', 'round': 0, 'sides': {'ours': sample(400), 'floor': sample(0), 'getppid': sample(100)}}) + '\n')
        self.assertEqual(set(self.figure('null')['bases']), {'getppid'})

    def test_a_peer_that_is_there_in_some_rounds_is_compared_with_those(self):
        make(self.dir, repeat=3, without=('uring',))
        with open(os.path.join(self.dir, 'raw.jsonl'), 'a', encoding='utf-8') as f:
            f.write(json.dumps({'w': 'null', 'round': 3, 'sides': {'ours': sample(400), 'uring': sample(100)}}) + '\n')
        ratio = self.figure('null')['bases']['uring']['ratio']
        self.assertEqual((ratio['n'], ratio['median']), (1, 4))

    def test_tables_beside_the_figures(self):
        make(self.dir)
        text = self.run_report()
        for pattern in (r'null +0\.25 +0\.5', r'untar +100 +75 +75%', r'group network +there is none', r'threads-4 +100 ns +2 us +30 us',
                        r'the agent serves again +300 ms', r'getppid-local +native getppid +native \+ 20 ns +native \+ 100 ns +MISSED'):
            self.assertRegex(text, pattern)

    def test_what_failed_and_was_made_good_is_not_left_out(self):
        make(self.dir)
        with open(os.path.join(self.dir, 'raw.jsonl'), 'a', encoding='utf-8') as f:
            f.write('{"skipped":"null","why":"it failed: x"}\n')
        self.assertIn('null', report.evaluate(self.dir)['skipped'])
        with open(os.path.join(self.dir, 'raw.jsonl'), 'a', encoding='utf-8') as f:
            f.write(json.dumps({'w': 'null', 'round': 10, 'sides': {'ours': sample(400), 'floor': sample(100)}}) + '\n')
        self.assertNotIn('null', report.evaluate(self.dir)['skipped'])

    def test_plots_are_files_too(self):
        make(self.dir)
        self.run_report()
        names = set(os.listdir(os.path.join(self.dir, 'plots')))
        self.assertLessEqual({f'{s}.svg' for s in wl.SERIES} | {'ring.svg', 'threads-cpu.svg', 'failover-kill.svg'}, names)
        for name in names:
            with open(os.path.join(self.dir, 'plots', name), encoding='utf-8') as f:
                self.assertEqual(xml.etree.ElementTree.fromstring(f.read()).tag, '{http://www.w3.org/2000/svg}svg')

    def test_markdown_replaces_its_section_and_nothing_else(self):
        make(self.dir)
        path = os.path.join(self.dir, 'page.md')
        marks = '<!-- scbench loopback: begin -->', '<!-- scbench loopback: end -->'
        with open(path, 'w', encoding='utf-8') as f:
            f.write(f'before\n{marks[0]}\nold\n{marks[1]}\nafter\n')
        self.run_report(markdown=path)
        self.run_report(markdown=path)
        with open(path, encoding='utf-8') as f:
            text = f.read()
        self.assertTrue(text.startswith('before\n' + marks[0]) and text.endswith(marks[1] + '\nafter\n'))
        self.assertNotIn('old\n', text)
        self.assertEqual(text.count('#### All figures'), 1)

    def test_markdown_without_marks_is_refused(self):
        make(self.dir)
        path = os.path.join(self.dir, 'page.md')
        with open(path, 'w', encoding='utf-8') as f:
            f.write('nothing\n')
        with self.assertRaisesRegex(Refusal, 'scbench loopback: begin'):
            self.run_report(markdown=path)

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
        self.assertEqual(sum(tag == 'svg' for tag, _ in parser.seen), len(os.listdir(os.path.join(self.dir, 'plots'))))
        self.assertFalse([a for _, attrs in parser.seen for a in attrs if a in ('src', 'href')], 'not self-contained')
        self.assertIn('Made &lt;up&gt; &amp; small', page)
        for unit in ('MiB/s', 'ns (logarithmic)', 'no unit'):
            self.assertIn(unit, page)
        self.assertFalse(re.search(r'\b(nan|inf)\b', page))


class Timeline(unittest.TestCase):
    def test_long_ones_are_put_together_and_lose_no_call(self):
        buckets, width = html._merge([[10 * i, 2, i % 2] for i in range(600)])
        self.assertEqual((len(buckets), width, buckets[1]), (200, 30, [30, 6, 2]))
        self.assertEqual((sum(b[1] for b in buckets), sum(b[2] for b in buckets)), (1200, 300))
        self.assertEqual(html._merge([[0, 1, 0], [10, 1, 0]]), ([[0, 1, 0], [10, 1, 0]], 10))


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
            self.assertTrue(w.bases or w.what in ('cpu', 'failover'), w.name)
            self.assertLessEqual(set(w.bars), set(w.bases), w.name)
            for side in w.sides().values():
                self.assertIn(side.helper, wl.HELPERS, w.name)
            for side in w.bases.values():
                self.assertTrue(side.title, w.name)

    def test_throughput_covers_all_sizes(self):
        for series, least in (('read', 64), ('write', 64), ('dread', 4096), ('dwrite', 4096), ('nettx', 64), ('netrx', 64)):
            sizes = [w.size for w in wl.workloads() if w.series == series]
            self.assertEqual((min(sizes), max(sizes)), (least, 16 * wl.MIB))

    def test_series_have_axes_and_places(self):
        for w in wl.workloads():
            if w.series:
                self.assertIn(w.series, wl.SERIES, w.name)
                self.assertGreater(w.x, 0, w.name)


if __name__ == '__main__':
    unittest.main()
