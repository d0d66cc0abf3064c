# SPDX-License-Identifier: BSD-3-Clause
"""scbench_html.py - report.html (one file that needs nothing else) and the plots, as SVG.

Plots are told apart by the shape of their marks and by dashes first; the few colours that are used besides (of Okabe and Ito's set,
made for colour-blind readers) differ in brightness, so that they remain different in grey. Every axis has its unit.
"""

import html
import math

import scbench_workloads as wl

DARK, LIGHT, GREY, GREEN = '#00447a', '#d98200', '#999999', '#009e73'
WIDTH = 900

STYLE = '''
body { font: 15px/1.45 sans-serif; max-width: 1300px; margin: 2em auto; padding: 0 1em; color: #111; background: #fff; }
table { border-collapse: collapse; font-size: 13px; }
td, th { padding: 2px 8px; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; white-space: nowrap; }
.facts td { white-space: normal; }
.wide { overflow-x: auto; }
svg { max-width: 100%; height: auto; }
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
    """A mark with a tooltip: disc (full), square (hollow), diamond, triangle and down (a triangle on its tip), all hollow."""
    points = {'square': [(-4, -4), (4, -4), (4, 4), (-4, 4)], 'diamond': [(0, -6), (6, 0), (0, 6), (-6, 0)],
              'triangle': [(0, -5), (5, 4), (-5, 4)], 'down': [(0, 5), (5, -4), (-5, -4)]}
    title = f'<title>{_esc(hint)}</title>'
    if shape == 'disc':
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}">{title}</circle>'
    where = ' '.join(f'{x + a:.1f},{y + b:.1f}' for a, b in points[shape])
    return f'<polygon points="{where}" fill="#fff" stroke="{colour}" stroke-width="2">{title}</polygon>'


def _svg(height, parts, label):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img" '
            f'aria-label="{_esc(label)}"><style>text {{ font: 12px sans-serif; fill: #111; }}</style>'
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>' + ''.join(parts) + '</svg>')


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


def _cpu(entry):
    """CPU nanoseconds of an operation, of all parties."""
    return sum(entry['cpu_ns'][p] for p in ('app', 'agent', 'broker'))


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
    base_cpu = _cpu(b)
    if base_cpu:
        cpu = _cpu(f) / base_cpu
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
        if _cpu(b) and _cpu(f):
            values.append(_cpu(f) / _cpu(b))
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

STYLES = (('disc', DARK, ''), ('square', LIGHT, '6 4'), ('triangle', GREEN, '2 3'), ('down', GREY, '9 3 2 3'))


def _curve(points, convert, ax, ay, shape, colour, dash):
    """points: (x, summary in ns)."""
    places = [(ax.at(x), ay.at(convert(s['median']))) for x, s in points]
    path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"'
             + (f' stroke-dasharray="{dash}"' if dash else '') + '/>']
    for (x, y), (_, s) in zip(places, points):
        if s['low'] is not None:
            parts.append(_line(x, ay.at(convert(s['low'])), x, ay.at(convert(s['high'])), colour, 2))
        parts.append(_mark(shape, x, y, colour, f'{convert(s["median"]):.4g}'))
    return parts


def curve_plot(curves, convert, x_title, y_title, x_text):
    """Curves: (title, [(x, summary in ns)]). convert(ns): the value that is plotted."""
    values = [convert(v) for _, points in curves for _, s in points for v in (s['low'], s['median'], s['high']) if v]
    xs = sorted({x for _, points in curves for x, _ in points})
    ax, ay = LogAxis(min(xs), max(xs), 80, WIDTH - 30, 2), LogAxis(min(values), max(values), 350, 60)
    parts = [_line(80, 350, WIDTH - 30, 350), _line(80, 60, 80, 350)]
    for x in xs:
        parts += [_line(ax.at(x), 60, ax.at(x), 350, '#eee'), _text(ax.at(x), 368, x_text(x), 'middle')]
    for y in ay.ticks():
        parts += [_line(80, ay.at(y), WIDTH - 30, ay.at(y), '#ddd'), _text(74, ay.at(y) + 4, _number(y), 'end')]
    for (_, points), style in zip(curves, STYLES):
        parts += _curve(points, convert, ax, ay, *style)
    parts += _key(14, [(style[0], style[1], title) for (title, _), style in zip(curves, STYLES)])
    parts += [_text(WIDTH / 2, 390, x_title, 'middle'), _text(16, 44, y_title)]
    return _svg(400, parts, f'{y_title} over {x_title}')


def _curves(chosen, value, base_value):
    """Curves of a series: ours, and each base case at those points that it has."""
    curves = [('ours', [(f['x'], value(f)) for f in chosen])]
    for base in dict.fromkeys(b for f in chosen for b in f['bases']):
        there = [(f['x'], f['bases'][base]) for f in chosen if base in f['bases']]
        curves.append((there[0][1]['title'], [(x, base_value(b)) for x, b in there]))
    return curves


def _cpu_plot(chosen, series):
    """CPU time of a call, of all parties, over the series."""
    point = lambda entry: {'low': None, 'high': None, 'median': _cpu(entry)}
    return curve_plot(_curves(chosen, point, point), lambda ns: ns, series.x_title, 'CPU time of a call, all parties, ns (logarithmic)',
                      wl.size_text if series.x_bytes else str)


def _series_plot(chosen, series):
    """Time, or throughput, over the series."""
    curves = _curves(chosen, lambda f: f['ours'], lambda b: b['time_ns'])
    x_text = wl.size_text if series.x_bytes else str
    if series.y == 'time':
        return curve_plot(curves, lambda ns: ns, series.x_title, 'time of a call, ns (logarithmic)', x_text)
    # Throughput: the size of a call is its place on the axis.
    rates = [(title, [(x, {k: x / s[k] * 1e9 / wl.MIB if s[k] else None for k in ('low', 'median', 'high')}) for x, s in points])
             for title, points in curves]
    return curve_plot(rates, lambda v: v, series.x_title, 'throughput, MiB/s (logarithmic)', x_text)


def _series_plots(figures, name):
    """[(file name, title, SVG)] of one series; none if it has fewer than two points."""
    chosen, series = [f for f in figures if f['series'] == name], wl.SERIES[name]
    if len(chosen) < 2:
        return []
    found = [(name, series.title, _series_plot(chosen, series))]
    if series.y == 'time':
        found.append((name + '-cpu', series.title + ': CPU time', _cpu_plot(chosen, series)))
    return found


# ---- through a failure ----

def _merge(buckets):
    """Buckets of 10 ms put together so that at most 250 are left. (buckets, their width in ms)."""
    by = -(-len(buckets) // 250)
    groups = [buckets[i:i + by] for i in range(0, len(buckets), by)]
    return [[g[0][0], sum(b[1] for b in g), sum(b[2] for b in g)] for g in groups], 10 * by


def timeline_plot(f):
    """Calls by time through the kill, of the round nearest to the median."""
    outage = f['timeline']['ns'] / 1e6
    buckets, width = _merge(f['timeline']['buckets'])
    left, right, bottom, top = 70, WIDTH - 30, 300, 40
    first, last = buckets[0][0], buckets[-1][0] + width
    most = max(max(ok for _, ok, _ in buckets), 1)
    at_x = lambda ms: left + (ms - first) / (last - first) * (right - left)
    at_y = lambda n: bottom - n / most * (bottom - top)
    path = ' '.join(f'{at_x(ms):.1f},{at_y(ok):.1f}' for ms, ok, _ in buckets)
    parts = [_line(left, bottom, right, bottom), _line(left, top, left, bottom),
             f'<polyline points="{path}" fill="none" stroke="{DARK}" stroke-width="1.2"/>']
    parts += [_mark('square', at_x(ms + width / 2), bottom, LIGHT, f'{failed} failed') for ms, _, failed in buckets if failed]
    moments = ((0, 'kill'), (f['timeline']['extra']['detect_ms'] + f['timeline']['extra']['boot_ms'], 'the agent serves again'),
               (outage, 'first answer'))
    for i, (ms, text) in enumerate(moments):
        parts += [_line(at_x(ms), top + 14 * i - 4, at_x(ms), bottom, '#000', 1, '4 3'),
                  _text(at_x(ms) + 4, top + 14 * i, f'{text}, {ms:.0f} ms')]
    for n in (0, most // 2, most):
        parts.append(_text(left - 6, at_y(n) + 4, str(n), 'end'))
    step = next(s for s in (100, 200, 500, 1000, 2000, 5000, 10000, 50000) if (last - first) / s <= 12)
    for ms in range(math.ceil(first / step) * step, last, step):
        parts += [_line(at_x(ms), bottom, at_x(ms), bottom + 4), _text(at_x(ms), bottom + 18, str(ms), 'middle')]
    parts += [_text((left + right) / 2, bottom + 36, 'time since the kill, ms', 'middle'), _text(8, 16, f'calls answered in {width} ms'),
              _mark('square', 260, 12, LIGHT), _text(272, 16, f'{width} ms in which calls failed')]
    return _svg(bottom + 46, parts, 'calls answered over time through a kill')


# ---- the page ----

def plots(result, other):
    """[(file name, title, SVG)] of everything that can be plotted."""
    found = []
    for group in wl.GROUPS:
        mine = [f for f in result['figures'] if f['group'] == group]
        theirs = [f for f in other['figures'] if f['group'] == group] if other else []
        if _ratio_rows(mine):
            found.append((group, f'{group}: against base cases', ratio_plot(mine, theirs, group)))
        for name in dict.fromkeys(f['series'] for f in mine if f['series']):
            found += _series_plots(mine, name)
        found += [(f['name'], f'Calls through a failure ({f["name"]})', timeline_plot(f)) for f in mine if 'timeline' in f]
    return found


def _table(table):
    head, *rest = table
    body = ''.join('<tr>' + ''.join(f'<td>{_esc(c)}</td>' for c in row) + '</tr>' for row in rest)
    return '<div class="wide"><table><tr>' + ''.join(f'<th>{_esc(c)}</th>' for c in head) + f'</tr>{body}</table></div>'


def _reasons(figures):
    return '<dl>' + ''.join(f'<dt><b>{_esc(f["name"])}</b>: {_esc(f["title"])}</dt><dd class="note">{_esc(f["why"])}</dd>'
                            for f in figures) + '</dl>'


def page(result, table, more, drawn, facts, legend):
    """The whole report. result: see scbench_report.evaluate(); more: (title, rows); drawn: see plots()."""
    parts = ['<!doctype html><html lang="en"><head><meta charset="utf-8"><title>scbench report</title>',
             f'<style>{STYLE}</style></head><body><h1>scbench report</h1><table class="facts">']
    parts += [f'<tr><th>{_esc(n)}</th><td>{_esc(t)}</td></tr>' for n, t in facts]
    parts.append('</table>')
    parts += [f'<h2>{_esc(title)}</h2>{_table(rows)}' for title, rows in more]
    parts += [f'<h2>{_esc(title)}</h2>{svg}' for _, title, svg in drawn]
    parts += ['<h2>Figures</h2>', f'<p class="note">{_esc(legend)}</p>', _table(table), '<h2>What and why</h2>',
              _reasons(result['figures']), '</body></html>\n']
    return '\n'.join(parts)
