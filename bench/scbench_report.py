# SPDX-License-Identifier: BSD-3-Clause
"""scbench_report.py - `scbench report`: from raw samples to figures, tables, results.json, report.html, and plots as files."""

import json
import os

import scbench_html
import scbench_markdown
import scbench_stats as stats
import scbench_workloads as wl
from scbench_common import Refusal, read_text, write_json
from scbench_machine import BUSY_SHARE

PARTIES = ('app', 'agent', 'broker')


class Raw:
    """The lines of a run's raw.jsonl, sorted: rounds, others (busy share), bells, share by workload; skipped: (what, why)."""

    def __init__(self, directory):
        self.rounds, self.others, self.bells, self.share, self.skipped = {}, {}, {}, {}, {}
        for line in read_text(os.path.join(directory, 'raw.jsonl')).splitlines():
            try:
                self._take(json.loads(line))
            except ValueError:
                continue  # the last line of a run that was killed

    def _take(self, entry):
        if 'sides' in entry:
            self.rounds.setdefault(entry['w'], []).append(entry)
            self.skipped.pop(entry['w'], None)  # it failed, and was tried again
        elif 'others' in entry:
            self.others[entry['w']] = max(self.others.get(entry['w'], 0.0), entry['others'])
        elif 'bells' in entry:
            self.bells[entry['w']] = {k: v / max(entry['bells']['calls'], 1) for k, v in entry['bells'].items()}
        elif 'share' in entry:
            self.share[entry['w']] = entry['share']
        elif 'skipped' in entry:
            self.skipped[entry['skipped']] = entry['why']


def load(directory):
    """(run record, Raw) of a run's directory."""
    record = json.loads(read_text(os.path.join(directory, 'run.json'), 'null'))
    if not record:
        raise Refusal(f'{directory}: holds no run (run.json is missing): scbench run quick --out {directory}')
    return record, Raw(directory)


def _value(sample, what):
    """Nanoseconds of an operation, or % of one core."""
    if what == 'cpu':
        return 100 * sum(sample[p + '_ns'] for p in PARTIES) / sample['ns']
    return sample['ns'] / sample['ops']


def _samples(rounds, side):
    """Those of one side; a peer may be missing in some rounds."""
    return [r['sides'][side] for r in rounds if side in r['sides']]


def _values(rounds, side, what):
    """One value a round."""
    return [_value(s, what) for s in _samples(rounds, side)]


def _cpu(rounds, side):
    """CPU nanoseconds of an operation, by party: of all samples together, since the kernel's clocks of other processes move in ticks."""
    samples = _samples(rounds, side)
    ops = sum(s['ops'] for s in samples)
    return {p: sum(s.get(p + '_ns', 0) for s in samples) / ops for p in PARTIES + ('idle',)}


def parties(cpu):
    """What application, agent and broker used together."""
    return sum(cpu[p] for p in PARTIES)


def _extra(rounds, side):
    """Medians of what helpers said besides; counts of failures are totals of their own, so absent means none."""
    found = [s.get('extra', {}) for s in _samples(rounds, side)]
    return {k: stats.median([e.get(k, 0) for e in found]) for k in dict.fromkeys(k for e in found for k in e)}


def bar_text(bar):
    return f'native + {bar[1:]} ns' if isinstance(bar, str) else f'{bar:g} x'


def _verdict(limit, s):
    """'met' or 'MISSED' if all of the interval is on one side of the bar (without an interval: the median); else 'open'."""
    low, high = (s['median'], s['median']) if s['low'] is None else (s['low'], s['high'])
    return 'met' if high <= limit else 'MISSED' if low > limit else 'open'


def _bar_verdict(bar, rounds, name, what, ratio):
    """Of a bar against one base case: a ratio, or nanoseconds more than it, round by round."""
    if isinstance(bar, str):
        more = [a - b for a, b in zip(_values(rounds, 'ours', what), _values(rounds, name, what))]
        return _verdict(float(bar), stats.summary(more))
    return _verdict(bar, ratio)


def _base(w, rounds, name):
    """How a workload compares with one base case."""
    both = [r for r in rounds if name in r['sides']]
    values = _values(both, name, w.what)
    ratio = stats.summary(stats.ratios(_values(both, 'ours', w.what), values))
    result = {'title': w.bases[name].title, 'time_ns': stats.summary(values), 'ratio': ratio, 'cpu_ns': _cpu(both, name),
              'best': min(_values(both, 'ours', w.what)) / (min(values) or 1),
              'extra': _extra(both, name)}
    if name in w.bars:
        result['bar'] = bar_text(w.bars[name])
        result['verdict'] = _bar_verdict(w.bars[name], both, name, w.what, ratio)
    return result


def _timeline(rounds, ours):
    """That of the round whose time is nearest to the median."""
    chosen = min(rounds, key=lambda r: abs(r['sides']['ours']['ns'] - ours['median']))
    return {'buckets': chosen['timeline'], 'ns': chosen['sides']['ours']['ns'], 'extra': chosen['sides']['ours']['extra']}


def figure(w, raw):
    """Everything that is to be said of one workload, as a dict for results.json."""
    rounds, others = raw.rounds[w.name], raw.others.get(w.name)
    ours = stats.summary(_values(rounds, 'ours', w.what))
    # A base case without any time cannot be compared with: a clock too coarse for it.
    there = [name for name in w.bases if any(_values(rounds, name, w.what))]
    result = {'name': w.name, 'group': w.group, 'title': w.title, 'why': w.why, 'n': len(rounds), 'size': w.size, 'series': w.series, 'x': w.x,
              'unit': '% of one core' if w.what == 'cpu' else 'ns', 'ours': ours, 'cpu_ns': _cpu(rounds, 'ours'),
              'others': others, 'busy': others is not None and others > BUSY_SHARE, 'few': len(rounds) < 10,
              'bases': {name: _base(w, rounds, name) for name in there}, 'extra': _extra(rounds, 'ours'),
              'bells': raw.bells.get(w.name), 'share': raw.share.get(w.name),
              'samples': {side: _values(rounds, side, w.what) for side in ['ours', *there]}}
    if w.cpu_bar:
        result['bar'], result['verdict'] = f'< {w.cpu_bar:g} %', _verdict(w.cpu_bar, ours)
    if 'timeline' in rounds[0]:
        result['timeline'] = _timeline(rounds, ours)
    return result


def evaluate(directory):
    """{'run': record, 'figures': [figure], 'skipped': {what: why}} of a run's directory."""
    record, raw = load(directory)
    figures = [figure(w, raw) for w in wl.workloads() if raw.rounds.get(w.name)]
    if not figures:
        raise Refusal(f'{directory}: no round was finished yet')
    record['busy'] = sum(f['busy'] for f in figures)
    return {'run': record, 'figures': figures, 'skipped': raw.skipped}


# ---- words ----

def time_text(ns):
    """123.4 -> '123 ns', 45678 -> '45.7 us'"""
    for unit, one in (('s', 1e9), ('ms', 1e6), ('us', 1e3)):
        if ns >= one:
            return f'{ns / one:.3g} {unit}' if ns / one < 999.5 else f'{ns / one:.0f} {unit}'
    return f'{ns:.3g} ns' if ns < 999.5 else f'{ns:.0f} ns'


def value_text(value, unit):
    return time_text(value) if unit == 'ns' else f'{value:.2g} %'


def summary_text(s, unit='ns'):
    """Median and interval."""
    between = f' [{value_text(s["low"], unit)}, {value_text(s["high"], unit)}]' if s['low'] is not None else ' [-]'
    return value_text(s['median'], unit) + between


def ratio_text(s):
    between = f' [{s["low"]:.2f}, {s["high"]:.2f}]' if s['low'] is not None else ' [-]'
    return f'{s["median"]:.2f}' + between


def verdict(entry):
    if 'bar' not in entry:
        return ''
    return f'{entry["bar"]}: {entry["verdict"]}'


def cpu_text(f):
    """CPU of an operation, by party; of a share of time: the share, by party."""
    if f['unit'] == 'ns':
        return ' + '.join(time_text(f['cpu_ns'][p]) for p in PARTIES)
    total = parties(f['cpu_ns']) or 1
    return ' + '.join(f'{f["ours"]["median"] * f["cpu_ns"][p] / total:.2g} %' for p in PARTIES)


def marks(f):
    return ('*' if f['busy'] else '') + ('!' if f['few'] else '')


def rows(result, other=None):
    """Rows of the table: a heading first. Each figure has a row for each base case."""
    head = ['workload', 'ours [95 %]', 'base case', 'base [95 %]', 'ratio [95 %]', 'best', 'CPU/op: app + agent + broker', 'CPU/op base', 'idle/op',
            'bar']
    theirs = {f['name']: f for f in other['figures']} if other else {}
    if other:
        head += ['ratio there', 'differs']
    table = [head]
    for f in result['figures']:
        first = [f['name'] + marks(f), summary_text(f['ours'], f['unit'])]
        cpu, idle = cpu_text(f), time_text(f['cpu_ns']['idle']) if f['unit'] == 'ns' else ''
        if not f['bases']:
            table.append(first + ['none', '', '', '', cpu, '', idle, verdict(f)] + ([_there(f, theirs), ''] if other else []))
        for name, b in f['bases'].items():
            row = first + [b['title'], summary_text(b['time_ns']), ratio_text(b['ratio']), f'{b["best"]:.2f}', cpu, time_text(parties(b['cpu_ns'])), idle,
                           verdict(b)]
            if other:
                there = theirs.get(f['name'], {'bases': {}})['bases'].get(name)
                row += [ratio_text(there['ratio']), 'yes' if stats.apart(b['ratio'], there['ratio']) else 'no'] if there else ['', '']
            table.append(row)
            first, cpu, idle = ['', ''], '', ''
    return table


def _percentiles(extra):
    return [time_text(extra[k]) if k in extra else '' for k in ('p50_ns', 'p99_ns', 'p999_ns')]


def _latency_rows(figures):
    table = [['workload', 'ours: p50', 'p99', 'p99.9', 'native: p50', 'p99', 'p99.9']]
    for f in figures:
        base = f['bases'].get('native', {}).get('extra', {})
        if 'p99_ns' in f['extra']:
            table.append([f['name'] + marks(f), *_percentiles(f['extra']), *_percentiles(base)])
    return table


def _bell_rows(figures):
    table = [['workload', 'bells rung by the agent, per call', 'times the agent went to sleep, per call']]
    return table + [[f['name'] + marks(f), f'{f["bells"]["doorbells"]:.3g}', f'{f["bells"]["slept"]:.3g}'] for f in figures
                    if f['bells'] and f['unit'] == 'ns']


def _share_rows(figures):
    table = [['program', 'system calls in all (native)', 'served remotely', 'share']]
    for f in figures:
        s = f['share']
        if s and s['remote'] is not None and s['calls']:
            table.append([f['name'], str(s['calls']), str(s['remote']), f'{min(1, s["remote"] / s["calls"]):.0%}'])
    return table


def _failover_rows(figures):
    phases = (('detect_ms', 'the broker knows'), ('boot_ms', 'the agent serves again'), ('call_ms', 'the first call is answered'),
              ('failed_calls', 'calls that failed'), ('longest_call_ms', 'longest wait of the client'),
              ('old_descriptor_lost', 'descriptors from before that were lost (of 1)'))
    table = [['workload', 'what', 'median']]
    for f in figures:
        if 'timeline' in f:
            text_of = lambda key: time_text(f['extra'].get(key, 0) * 1e6) if key.endswith('_ms') else f'{f["extra"].get(key, 0):.3g}'
            table += [[f['name'], text, text_of(key)] for key, text in phases]
    return table


def _counter_rows(figures):
    table = [['workload', 'misses of a walk', 'ours', 'native', 'alone']]
    for f in figures:
        for key, text in (('l1d_misses', 'L1 data cache'), ('dtlb_misses', 'data TLB')):
            if key in f['extra']:
                table.append([f['name'], text, f'{f["extra"][key]:.3g}'] + [f'{f["bases"][b]["extra"].get(key, 0):.3g}' for b in ('native', 'alone')])
    if len(table) == 1 and any('counters_errno' in f['extra'] for f in figures):
        table.append(['pollute-*', 'this machine shows no hardware counters (perf_event_open fails)', '', '', ''])
    return table


def _bar_rows(figures):
    """What was promised, and how far it is."""
    table = [['workload', 'against', 'bar', 'measured', '']]
    for f in figures:
        for entry, against, measured in [(b, b['title'], ratio_text(b['ratio'])) for b in f['bases'].values()] + [(f, '', summary_text(f['ours'], f['unit']))]:
            if 'bar' not in entry:
                continue
            if entry['bar'].endswith('ns'):
                measured = f'native + {f["ours"]["median"] - entry["time_ns"]["median"]:.0f} ns'
            table.append([f['name'] + marks(f), against, entry['bar'], measured, entry['verdict']])
    return table


def more_tables(result):
    """[(title, rows)] of what the big table has no room for. Empty ones are left out."""
    figures = result['figures']
    tables = [('Bars', _bar_rows(figures)), ('Percentiles of single calls', _latency_rows(figures)),
              ('Notifications', _bell_rows(figures)), ('Share of calls served remotely', _share_rows(figures)),
              ('Hardware counters', _counter_rows(figures)), ('Failover, from the kill', _failover_rows(figures)),
              ('Left out', [['what', 'why'], *map(list, result['skipped'].items())])]
    return [(title, table) for title, table in tables if len(table) > 1]


def _there(f, theirs):
    return summary_text(theirs[f['name']]['ours'], f['unit']) if f['name'] in theirs else ''


def facts(record):
    """What a reader must know of a run, as (name, text) pairs."""
    m = record['machine']
    versions = record['versions']
    pairs = [
        ('domain', f'{record["identity"]["domain"]}; accelerator: {record["accelerator"]}'),
        ('machine', f'{m["cpu"]}, {m["cpus"]} CPUs, {m["memory_mib"]} MiB' + (', itself a virtual machine' if m['virtualised'] else '')),
        ('kernel', f'{m["kernel"]}; {m["system"]}; the agent runs on {versions.get("agent_kernel") or "unknown"}'),
        ('QEMU', versions.get('qemu') or 'none'),
        ('revision', f'{m["revision"] or "unknown"}; programs {record["identity"]["programs"]}'),
        ('frequency governor', m['governor']),
        ('pinning', record['pinning'] + f'; nice {record["identity"]["nice"]}'),
        ('file systems', f'base {record["file_systems"]["base"]}, domain {record["file_systems"]["domain"]}'),
        ('load average at start', ' '.join(f'{x:.2f}' for x in m['load_average'])),
        ('date', m['date'] + (f', resumed {len(record["resumed"])} times' if record['resumed'] else '')),
        ('seed', str(record['identity']['seed'])),
        ('made by', record['command']),
    ]
    if record.get('busy'):
        pairs.append(('BUSY MACHINE', f'others used more than {BUSY_SHARE:.0%} of it during the {record["busy"]} figures marked *: believe '
                      'ratios before times, and neither much'))
    return pairs


LEGEND = ('Times are medians of one operation; ratio = ours / base of the same round (below 1: ours is faster). [95 %]: interval of the '
          'median by order statistics. best: our shortest sample / the shortest of the base case, which on a busy machine says more. bar: met or MISSED if all of '
          'the interval is on one side of it, else open. CPU/op: CPU time of an operation, of the application, of the agent (a VM: all its threads), and of '
          'the broker; of a driver domain: its VM and the FUSE program. idle/op: what the machine\'s CPUs idled meanwhile. * others kept the '
          'machine busy; ! fewer than 10 samples.')


def print_table(table):
    widths = [max(len(r[i]) for r in table) for i in range(len(table[0]))]
    for n, row in enumerate(table):
        print('  '.join(c.ljust(w) for c, w in zip(row, widths)).rstrip())
        if n == 0:
            print('  '.join('-' * w for w in widths))


def _write_plots(directory, plots):
    """Each plot as a file of its own. Returns their names."""
    folder = os.path.join(directory, 'plots')
    os.makedirs(folder, exist_ok=True)
    for name, _, svg in plots:
        with open(os.path.join(folder, name + '.svg'), 'w', encoding='utf-8') as f:
            f.write(svg + '\n')


def run(args):
    """`scbench report`. Returns the exit status."""
    result = evaluate(args.dir)
    other = evaluate(args.compare) if args.compare else None
    for name, text in facts(result['run']):
        print(f'{name}: {text}')
    if other:
        print()
        for name, text in facts(other['run']):
            print(f'compared with: {name}: {text}')
    print()
    table, more, plots = rows(result, other), more_tables(result), scbench_html.plots(result, other)
    print_table(table)
    for title, extra in more:
        print(f'\n{title}\n')
        print_table(extra)
    print()
    print(LEGEND)
    write_json(os.path.join(args.dir, 'results.json'), result)
    _write_plots(args.dir, plots)
    page = scbench_html.page(result, table, more, plots, facts(result['run']), LEGEND)
    path = os.path.join(args.dir, 'report.html')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(page)
    print(f'\n{path}')
    if args.markdown:
        section = args.section or ('loopback' if result['run']['identity']['domain'] == 'loopback' else 'vm')
        scbench_markdown.update(args.markdown, section, scbench_markdown.text(table, more, facts(result['run'])))
        print(f'{args.markdown}: section {section} is replaced')
    return 0
