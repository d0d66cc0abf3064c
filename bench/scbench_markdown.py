# SPDX-License-Identifier: BSD-3-Clause
"""scbench_markdown.py - results as Markdown, put into a document between two marks, so that one command refreshes them."""

import os

from scbench_common import Refusal, read_text


def _cell(text):
    return text.replace('|', '\\|').replace('*', '\\*')


def _table(rows):
    head, *rest = [[_cell(c) for c in row] for row in rows]
    lines = ['| ' + ' | '.join(head) + ' |', '|' + ' --- |' * len(head)]
    return '\n'.join(lines + ['| ' + ' | '.join(row) + ' |' for row in rest])


def text(table, more, facts):
    """All of it: the machine, then tables."""
    parts = ['\n'.join(f'* {name}: {value}' for name, value in facts)]
    parts += [f'#### {title}\n\n{_table(rows)}' for title, rows in more]
    parts.append(f'#### All figures\n\n{_table(table)}')
    return '\n\n'.join(parts)


def update(path, section, body):
    """Replaces what stands between the marks of `section` in a document. Refusal if the marks are not there."""
    begin, end = f'<!-- scbench {section}: begin -->', f'<!-- scbench {section}: end -->'
    document = read_text(path)
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise Refusal(f'{path}: no lines "{begin}" and "{end}": write them where the results belong')
    with open(path + '.new', 'w', encoding='utf-8') as f:
        f.write(f'{before}{begin}\n\n{body}\n\n{end}{after}')
    os.replace(path + '.new', path)
