# SPDX-License-Identifier: BSD-3-Clause
"""scbench_report.py - `scbench report`: from raw samples to figures, a table, results.json and report.html."""

import json
import os

import scbench_html
import scbench_stats as stats
import scbench_workloads as wl
from scbench_common import Refusal, read_text, write_json
from scbench_machine import BUSY_SHARE

PARTIES = ('app', 'agent', 'broker')


def load(directory):
    """(run record, {workload: [rounds]}, {workload: share of others}) of a run's directory."""
    record = json.loads(read_text(os.path.join(directory, 'run.json'), 'null'))
    if not record:
        raise Refusal(f'{directory}: holds no run (run.json is missing): scbench run quick --out {directory}')
    rounds, others = {}, {}
    for line in read_text(os.path.join(directory, 'raw.jsonl')).splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed
        if 'sides' in entry:
            rounds.setdefault(entry['w'], []).append(entry)
        else:
            others[entry['w']] = max(others.get(entry['w'], 0.0), entry['others'])
    return record, rounds, others


def _values(rounds, side, what):
    """One value a round: nanoseconds of an operation, or % of one core."""
    samples = [r['sides'][side] for r in rounds]
    if what == 'cpu':
        return [100 * sum(s[p + '_ns'] for p in PARTIES) / s['ns'] for s in samples]
    return [s['ns'] / s['ops'] for s in samples]


def _cpu(rounds, side):
    """CPU nanoseconds of an operation, by party: of all samples together, since the kernel's clocks of other processes move in ticks."""
    samples = [r['sides'][side] for r in rounds]
    ops = sum(s['ops'] for s in samples)
    return {p: sum(s[p + '_ns'] for s in samples) / ops for p in PARTIES}


def bar_text(bar):
    return f'native + {bar[1:]} ns' if isinstance(bar, str) else f'{bar:g} x'


def _met(bar, ours, base, ratio):
    if isinstance(bar, str):
        return ours['median'] - base['median'] <= float(bar)
    return ratio['median'] <= bar


def _base(w, rounds, name, ours):
    """How a workload compares with one base case."""
    values = _values(rounds, name, w.what)
    ratio = stats.summary(stats.ratios(_values(rounds, 'ours', w.what), values))
    result = {'title': w.bases[name].title, 'time_ns': stats.summary(values), 'ratio': ratio, 'cpu_ns': _cpu(rounds, name)}
    if name in w.bars:
        result['bar'] = bar_text(w.bars[name])
        result['met'] = _met(w.bars[name], ours, result['time_ns'], ratio)
    return result


def figure(w, rounds, others):
    """Everything that is to be said of one workload, as a dict for results.json."""
    ours = stats.summary(_values(rounds, 'ours', w.what))
    result = {'name': w.name, 'group': w.group, 'title': w.title, 'why': w.why, 'n': len(rounds), 'size': w.size, 'series': w.series,
              'unit': '% of one core' if w.what == 'cpu' else 'ns', 'ours': ours, 'cpu_ns': _cpu(rounds, 'ours'),
              'others': others, 'busy': others is not None and others > BUSY_SHARE, 'few': len(rounds) < 10,
              'bases': {name: _base(w, rounds, name, ours) for name in w.bases},
              'samples': {side: _values(rounds, side, w.what) for side in w.sides()}}
    if w.cpu_bar:
        result['bar'], result['met'] = f'< {w.cpu_bar:g} %', ours['median'] < w.cpu_bar
    return result


def evaluate(directory):
    """{'run': record, 'figures': [figure]} of a run's directory."""
    record, rounds, others = load(directory)
    figures = [figure(w, rounds[w.name], others.get(w.name)) for w in wl.workloads() if rounds.get(w.name)]
    if not figures:
        raise Refusal(f'{directory}: no round was finished yet')
    record['busy'] = any(f['busy'] for f in figures)
    return {'run': record, 'figures': figures}


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
    return f'{entry["bar"]}: {"met" if entry["met"] else "MISSED"}'


def cpu_text(cpu):
    return ' + '.join(time_text(cpu[p]) for p in PARTIES)


def marks(f):
    return ('*' if f['busy'] else '') + ('!' if f['few'] else '')


def rows(result, other=None):
    """Rows of the table: a heading first. Each figure has a row for each base case."""
    head = ['workload', 'ours [95 %]', 'base case', 'base [95 %]', 'ratio [95 %]', 'CPU/op: app + agent + broker', 'CPU/op base',
            'bar']
    theirs = {f['name']: f for f in other['figures']} if other else {}
    if other:
        head += ['ratio there', 'differs']
    table = [head]
    for f in result['figures']:
        first = [f['name'] + marks(f), summary_text(f['ours'], f['unit'])]
        cpu = cpu_text(f['cpu_ns']) if f['unit'] == 'ns' else ''
        if not f['bases']:
            table.append(first + ['none', '', '', cpu, '', verdict(f)] + ([_there(f, theirs), ''] if other else []))
        for name, b in f['bases'].items():
            row = first + [b['title'], summary_text(b['time_ns']), ratio_text(b['ratio']), cpu, time_text(sum(b['cpu_ns'].values())),
                           verdict(b)]
            if other:
                there = theirs.get(f['name'], {'bases': {}})['bases'].get(name)
                row += [ratio_text(there['ratio']), 'yes' if stats.apart(b['ratio'], there['ratio']) else 'no'] if there else ['', '']
            table.append(row)
            first, cpu = ['', ''], ''
    return table


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
    ]
    if record.get('busy'):
        pairs.append(('BUSY MACHINE', f'others used more than {BUSY_SHARE:.0%} of it during figures marked *: believe ratios before '
                      'times, and neither much'))
    return pairs


LEGEND = ('Times are medians of one operation; ratio = ours / base of the same round (below 1: ours is faster). [95 %]: interval of the '
          'median by order statistics. * others kept the machine busy; ! fewer than 10 samples.')


def print_table(table):
    widths = [max(len(r[i]) for r in table) for i in range(len(table[0]))]
    for n, row in enumerate(table):
        print('  '.join(c.ljust(w) for c, w in zip(row, widths)).rstrip())
        if n == 0:
            print('  '.join('-' * w for w in widths))


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
    print_table(rows(result, other))
    print()
    print(LEGEND)
    write_json(os.path.join(args.dir, 'results.json'), result)
    page = scbench_html.page(result, other, rows(result, other), facts(result['run']), LEGEND)
    path = os.path.join(args.dir, 'report.html')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(page)
    print(f'\n{path}')
    return 0
