# SPDX-License-Identifier: BSD-3-Clause
"""scbench_cli.py - the command line."""

import argparse
import sys
import textwrap

import scbench_lines
import scbench_net
import scbench_report
import scbench_run
import scbench_workloads as wl
from scbench_common import Refusal, say

SETS = ('quick',) + wl.GROUPS + ('all',)


def _entry(mine):
    """The lines for a workload, or for all of a series."""
    w = mine[0]
    quick = [x.name for x in mine if x.quick]
    print('  ' + ', '.join(x.name for x in mine) + (' (quick)' if len(quick) == len(mine) else ''))
    if quick and len(quick) < len(mine):
        print('      in quick: ' + ', '.join(quick))
    for x in mine if len(mine) == 1 else (mine[0], mine[-1]):
        print(f'      {x.title}')
    print(textwrap.fill('why: ' + w.why, 118, initial_indent='      ', subsequent_indent='           '))
    bases = [side.title + ''.join(f' (bar: {scbench_report.bar_text(x.bars[name])}' + (f' for {x.name})' if len(mine) > 1 else ')')
                                  for x in mine if name in x.bars) for name, side in w.bases.items()]
    print(f'      base: {", ".join(bases) or "none"}' + (f' (bar: less than {w.cpu_bar:g} % of one core)' if w.cpu_bar else ''))


def _list(args):
    """`scbench list`: every workload, its reason and its base cases; those of a series together."""
    shown = set()
    for group in wl.GROUPS:
        print(group + (f' (left out: {scbench_net.why_not()})' if group == 'network' and scbench_net.why_not() else ''))
        for w in wl.select(group):
            if w.series and w.series in shown:
                continue
            shown.add(w.series)
            _entry([x for x in wl.select(group) if x.series == w.series] if w.series else [w])
    return 0


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text}: must be at least 1')
    return value


def parser():
    top = argparse.ArgumentParser(prog='scbench', description='Measures service domains against the native kernel.',
                                  epilog='Exit status: 0 done, 1 failed, 2 asked for wrongly, 130 interrupted. See scbench(1).')
    commands = top.add_subparsers(dest='command', metavar='COMMAND', required=True)

    cmd = commands.add_parser('list', help='what is measured, why, and against what')
    cmd.set_defaults(run=_list)

    cmd = commands.add_parser('run', help='measure; repeat the command to go on with a run that was stopped')
    cmd.add_argument('what', choices=SETS, help='which workloads')
    cmd.add_argument('--out', required=True, metavar='DIR', help='where samples are kept, and files for the work are made')
    cmd.add_argument('--repeat', type=_positive, default=10, metavar='N', help='samples of each side (default 10; the least '
                     'for a figure that is to be believed)')
    cmd.add_argument('--domain', default='loopback', metavar='loopback|vm|NAME', help='"loopback" (the default) or "vm": one is started '
                     'for the run; or the name of a domain that runs')
    cmd.add_argument('--accel', choices=('auto', 'kvm', 'tcg'), default='auto', help='with --domain vm: accelerator (default auto)')
    cmd.add_argument('--seed', type=int, default=1, metavar='N', help='of file contents and of orders (default 1)')
    cmd.add_argument('--sample-ms', type=_positive, default=40, metavar='MS', help='length of a sample (default 40)')
    cmd.add_argument('--minutes', type=_positive, default=0, metavar='N', help='begin no workload after so long; the same command goes on '
                     'with the rest')
    cmd.add_argument('--nice', type=int, default=0, choices=range(-20, 20), metavar='N',
                     help='nice value of both sides and of the domain; -20 on a machine that others use too (default 0)')
    cmd.set_defaults(run=scbench_run.run)

    cmd = commands.add_parser('report', help='tables, DIR/results.json, DIR/report.html and DIR/plots of a run')
    cmd.add_argument('dir', metavar='DIR')
    cmd.add_argument('--compare', metavar='DIR2', help='another run, shown beside it')
    cmd.add_argument('--markdown', metavar='FILE', help='put the tables into this document, between the marks of --section')
    cmd.add_argument('--section', metavar='NAME', help='which marks (default: loopback, or vm, as the run)')
    cmd.set_defaults(run=scbench_report.run)

    cmd = commands.add_parser('lines', help='lines of this project: new, modified and generated, by part')
    cmd.set_defaults(run=scbench_lines.run)
    return top


def main():
    args = parser().parse_args()
    try:
        return args.run(args)
    except Refusal as err:
        say(f'scbench: {err}')
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        say('scbench: interrupted; what was measured is kept, the same command goes on')
        return 130
