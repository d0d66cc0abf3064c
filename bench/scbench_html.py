# SPDX-License-Identifier: BSD-3-Clause
"""scbench_html.py - report.html: one file, plots as inline SVG.

Plots are told apart by the shape of their marks and by dashes first; the two colours that are used besides (a dark blue and a light
orange) differ in brightness, so that they remain different in grey and for colour-blind readers. Every axis has its unit.
"""

import html
import math

import scbench_workloads as wl

DARK, LIGHT, GREY = '#00447a', '#d98200', '#999999'
WIDTH = 900

STYLE = '''
body { font: 15px/1.45 sans-serif; max-width: 1300px; margin: 2em auto; padding: 0 1em; color: #111; background: #fff; }
table { border-collapse: collapse; font-size: 13px; }
td, th { padding: 2px 8px; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; white-space: nowrap; }
.facts td { white-space: normal; }
.wide { overflow-x: auto; }
svg { max-width: 100%; height: auto; }
svg text { font: 12px sans-serif; fill: #111; }
.note { color: #444; }
'''


def _esc(text):
    return html.escape(str(text))


def _text(x, y, text, anchor='start', more=''):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{_esc(text)}</text>'


def _line(x1, y1, x2, y2, colour='#000', width=1.0, dash=''):
    dash = f' stroke-dasharray="{dash}"' if dash else ''
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"{dash}/>'


def _mark(shape, x, y, colour, hint=''):
    """A mark with a tooltip: disc (full), square (hollow), diamond (hollow), triangle (hollow)."""
    points = {'square': [(-4, -4), (4, -4), (4, 4), (-4, 4)], 'diamond': [(0, -6), (6, 0), (0, 6), (-6, 0)],
              'triangle': [(0, -5), (5, 4), (-5, 4)]}
    title = f'<title>{_esc(hint)}</title>'
    if shape == 'disc':
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}">{title}</circle>'
    where = ' '.join(f'{x + a:.1f},{y + b:.1f}' for a, b in points[shape])
    return f'<polygon points="{where}" fill="#fff" stroke="{colour}" stroke-width="2">{title}</polygon>'


def _svg(height, parts, label):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img" '
            f'aria-label="{_esc(label)}">' + ''.join(parts) + '</svg>')


class LogAxis:
    """Maps values to positions, logarithmically; ticks at powers of `base` (and at 2 and 5 times those if there are few)."""

    def __init__(self, low, high, start, end, base=10):
        low, high = max(low, 1e-9), max(high, low * 1.01, 1e-9)
        self.base, self.start, self.end = base, start, end
        self.low, self.high = math.log(low / 1.15), math.log(high * 1.15)

    def at(self, value):
        share = (math.log(max(value, 1e-9)) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self):
        first = math.floor(self.low / math.log(self.base))
        last = math.ceil(self.high / math.log(self.base))
        factors = (1, 2, 5) if self.base == 10 and last - first < 5 else (1,)
        values = [f * float(self.base) ** e for e in range(first, last + 1) for f in factors]
        return [v for v in values if self.low <= math.log(v) <= self.high]


def _number(v):
    return f'{v:,.0f}' if v >= 10 else f'{v:.3g}'


# ---- ratios ----

def _ratio_rows(figures):
    return [(f, b) for f in figures for b in f['bases'].values()]


def _bar(b):
    """The bar as a ratio, or None if there is none or it is one in nanoseconds."""
    bar = b.get('bar', '')
    return float(bar[:-2]) if bar.endswith(' x') else None


def _ratio_row(axis, y, f, b, there):
    """One line of the ratio plot: interval, time ratio, CPU ratio, bar, and the other run's ratio."""
    r = b['ratio']
    parts = [_text(8, y + 4, f"{f['name']}{'*' if f['busy'] else ''} / {b['title']}")]
    if r['low'] is not None:
        parts.append(_line(axis.at(r['low']), y, axis.at(r['high']), y, DARK, 2))
    base_cpu = sum(b['cpu_ns'].values())
    if base_cpu:
        cpu = sum(f['cpu_ns'].values()) / base_cpu
        parts.append(_mark('triangle', axis.at(cpu), y, GREY, f'CPU ratio {cpu:.2f}'))
    if there:
        parts.append(_mark('diamond', axis.at(there['median']), y, LIGHT, f'other run {there["median"]:.2f}'))
    parts.append(_mark('disc', axis.at(r['median']), y, DARK, f'time ratio {r["median"]:.2f}'))
    if _bar(b):
        x = axis.at(_bar(b))
        parts.append(_line(x, y - 8, x, y + 8, '#000', 2))
    return ''.join(parts)


def _bound(figures, other):
    values = [1.0]
    for f, b in _ratio_rows(figures) + _ratio_rows(other):
        values += [v for v in (b['ratio']['low'], b['ratio']['median'], b['ratio']['high'], _bar(b)) if v]
        if sum(b['cpu_ns'].values()) and sum(f['cpu_ns'].values()):
            values.append(sum(f['cpu_ns'].values()) / sum(b['cpu_ns'].values()))
    return min(values), max(values)


def _key(y, entries):
    parts, x = [], 300
    for shape, colour, text in entries:
        parts += [_mark(shape, x, y, colour), _text(x + 10, y + 4, text)]
        x += 30 + 7 * len(text)
    return parts


def ratio_plot(figures, other, group):
    """Time and CPU as multiples of the base case, a line for each figure and base."""
    rows = _ratio_rows(figures)
    theirs = {(f['name'], b['title']): b['ratio'] for f, b in _ratio_rows(other)}
    bottom = 40 + 22 * len(rows)
    axis = LogAxis(*_bound(figures, other), 350, WIDTH - 20)
    parts = []
    for v in axis.ticks():
        x = axis.at(v)
        parts += [_line(x, 30, x, bottom, '#ddd'), _text(x, bottom + 16, f'{v:g}', 'middle')]
    parts.append(_line(axis.at(1), 30, axis.at(1), bottom, '#000', 1, '5 3'))
    parts += [_ratio_row(axis, 45 + 22 * i, f, b, theirs.get((f['name'], b['title']))) for i, (f, b) in enumerate(rows)]
    parts.append(_text(610, bottom + 34, 'ours / base case (no unit; logarithmic; left of 1: ours takes less)', 'middle'))
    entries = [('disc', DARK, 'time, with 95 % interval'), ('triangle', GREY, 'CPU of all parties')]
    parts += _key(12, entries + ([('diamond', LIGHT, 'time, other run')] if other else []))
    parts.append(_text(8, 16, 'upright stroke: the bar to be met'))
    return _svg(bottom + 44, parts, f'{group}: ratios to base cases')


# ---- curves ----

def _curve(xs, summaries, convert, ax, ay, shape, colour, dash):
    points = [(ax.at(x), ay.at(convert(x, s['median']))) for x, s in zip(xs, summaries)]
    path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"'
             + (f' stroke-dasharray="{dash}"' if dash else '') + '/>']
    for (x, y), at, s in zip(points, xs, summaries):
        if s['low'] is not None:
            parts.append(_line(x, ay.at(convert(at, s['low'])), x, ay.at(convert(at, s['high'])), colour, 2))
        parts.append(_mark(shape, x, y, colour, f'{convert(at, s["median"]):.4g}'))
    return parts


def curve_plot(xs, curves, convert, x_title, y_title, x_text):
    """Curves over xs. curves: (title, summaries in ns). convert(x, ns): the value that is plotted."""
    values = [convert(x, v) for _, ss in curves for x, s in zip(xs, ss) for v in (s['low'], s['median'], s['high']) if v]
    ax, ay = LogAxis(min(xs), max(xs), 80, WIDTH - 30, 2), LogAxis(min(values), max(values), 330, 40)
    parts = [_line(80, 330, WIDTH - 30, 330), _line(80, 40, 80, 330)]
    for x in xs:
        parts += [_line(ax.at(x), 40, ax.at(x), 330, '#eee'), _text(ax.at(x), 348, x_text(x), 'middle')]
    for y in ay.ticks():
        parts += [_line(80, ay.at(y), WIDTH - 30, ay.at(y), '#ddd'), _text(74, ay.at(y) + 4, _number(y), 'end')]
    styles = (('disc', DARK, ''), ('square', LIGHT, '6 4'))
    for (_, summaries), style in zip(curves, styles):
        parts += _curve(xs, summaries, convert, ax, ay, *style)
    parts += _key(18, [(style[0], style[1], title) for (title, _), style in zip(curves, styles)])
    parts += [_text(WIDTH / 2, 370, x_title, 'middle'), _text(16, 24, y_title)]
    return _svg(380, parts, f'{y_title} over {x_title}')


def _series(figures, name):
    return [f for f in figures if f['series'] == name]


def _series_plot(figures, name):
    """The plot of one series, or '' if it has fewer than two points."""
    chosen = _series(figures, name)
    if len(chosen) < 2:
        return ''
    base = next(iter(chosen[0]['bases']))
    curves = [('ours', [f['ours'] for f in chosen]),
              (chosen[0]['bases'][base]['title'], [f['bases'][base]['time_ns'] for f in chosen])]
    if name == 'batch':
        xs = [int(f['name'].split('-')[1]) for f in chosen]
        return '<h3>Null calls by depth of batch</h3>' + curve_plot(
            xs, curves, lambda x, ns: ns, 'calls submitted together', 'time of a call, ns (logarithmic)', str)
    return f'<h3>Cached p{name} by size</h3>' + curve_plot(
        [f['size'] for f in chosen], curves, lambda size, ns: size / ns * 1e9 / wl.MIB, 'size of a call',
        'throughput, MiB/s (logarithmic)', wl.size_text)


# ---- the page ----

def _table(table):
    head, *rest = table
    body = ''.join('<tr>' + ''.join(f'<td>{_esc(c)}</td>' for c in row) + '</tr>' for row in rest)
    return '<div class="wide"><table><tr>' + ''.join(f'<th>{_esc(c)}</th>' for c in head) + f'</tr>{body}</table></div>'


def _reasons(figures):
    return '<dl>' + ''.join(f'<dt><b>{_esc(f["name"])}</b>: {_esc(f["title"])}</dt><dd class="note">{_esc(f["why"])}</dd>'
                            for f in figures) + '</dl>'


def page(result, other, table, facts, legend):
    """The whole report. result, other: see scbench_report.evaluate(); other may be None."""
    figures = result['figures']
    parts = ['<!doctype html><html lang="en"><head><meta charset="utf-8"><title>scbench report</title>',
             f'<style>{STYLE}</style></head><body><h1>scbench report</h1><table class="facts">']
    parts += [f'<tr><th>{_esc(n)}</th><td>{_esc(t)}</td></tr>' for n, t in facts]
    parts.append('</table>')
    for group in wl.GROUPS:
        mine = [f for f in figures if f['group'] == group]
        theirs = [f for f in other['figures'] if f['group'] == group] if other else []
        if not mine:
            continue
        parts.append(f'<h2>{group}</h2>')
        if _ratio_rows(mine):
            parts.append(ratio_plot(mine, theirs, group))
        parts += [_series_plot(mine, name) for name in dict.fromkeys(f['series'] for f in mine if f['series'])]
    parts += ['<h2>Figures</h2>', f'<p class="note">{_esc(legend)}</p>', _table(table), '<h2>What and why</h2>', _reasons(figures),
              '</body></html>\n']
    return '\n'.join(parts)
