# SPDX-License-Identifier: BSD-3-Clause
"""scbench_lines.py - `scbench lines`: how much was written, how much of others' was changed, how much is generated.

Counted is what git tracks, by part (the folder), in code, comment, and blank lines. A line with code and a comment is code. Python's
docstrings are comments. Documents (Markdown, man pages) have a column of their own.

    new         lines of files that are ours
    modified    what the patches add to and remove from files of QEMU that were there; files that a patch makes are new
    generated   files that the build writes from ours (templates with names filled in), if there is a build; nothing that is
                tracked is generated

Nothing of others is in the tree: programs and libraries come from the distribution, and QEMU's source from its source package.
"""

import io
import os
import re
import subprocess
import sys
import tokenize

from scbench_common import TOP, Refusal, build_dir, in_tree, read_text

CODE, COMMENT, BLANK = 'code', 'comment', 'blank'
DOCUMENTS = re.compile(r'\.(md|[1-9])$|^(LICENSE|docs/)')
OF_C = re.compile(r'\.([chS])$')
COLUMNS = (CODE, COMMENT, BLANK, 'document')


def _kinds(total, comments, lines):
    """Counts of lines. comments: numbers (from 1) of lines that hold nothing but comment."""
    blank = sum(not line.strip() for line in lines)
    return {CODE: total - blank - len(comments), COMMENT: len(comments), BLANK: blank}


def _strip_c(line, inside):
    """What of a line of C is not comment; whether a comment goes on after it."""
    kept = ''
    while line:
        if inside:
            _, end, line = line.partition('*/')
            inside = not end
            continue
        found = re.search(r'/\*|//|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])+\'', line)
        if not found:
            return kept + line, False
        kept += line[:found.start()]
        token, line = found.group(), line[found.end():]
        if token == '//':
            return kept, False
        if token == '/*':
            inside = True
        else:
            kept += token
    return kept, inside


def count_c(text):
    """{'code', 'comment', 'blank'} of C, or assembly with C's comments."""
    lines, comments, inside = text.splitlines(), set(), False
    for number, line in enumerate(lines, 1):
        kept, inside = _strip_c(line, inside)
        if line.strip() and not kept.strip():
            comments.add(number)
    return _kinds(len(lines), comments, lines)


def count_python(text):
    """The same of Python."""
    lines, comments, code = text.splitlines(), set(), set()
    start = True  # of a statement
    quiet = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        reach = range(token.start[0], token.end[0] + 1)
        if token.type == tokenize.COMMENT:
            comments.update(reach)
            continue
        if token.type == tokenize.STRING and start:
            comments.update(reach)
        elif token.type not in quiet:
            code.update(reach)
        if token.type != tokenize.NL:
            start = token.type in quiet
    return _kinds(len(lines), {n for n in comments - code if lines[n - 1].strip()}, lines)


def count_hash(text):
    """The same of files whose comments begin with a hash."""
    lines = text.splitlines()
    return _kinds(len(lines), {n for n, line in enumerate(lines, 1) if re.match(r'\s*#(?!!)', line)}, lines)


def count(path, text):
    """Counts of a file, by its name and first line."""
    if DOCUMENTS.search(path):
        return {'document': len(text.splitlines())}
    if OF_C.search(path):
        return count_c(text)
    if path.endswith('.py') or text.startswith(('#!/usr/bin/python3', '#!/usr/bin/env python3')):
        return count_python(text)
    return count_hash(text)


def part_of(path):
    """The part that a file belongs to: its folder, or (tests) what tests share."""
    return path.split('/', 1)[0] if '/' in path else '(top)'


def tracked():
    """Paths that git tracks, without patches."""
    done = subprocess.run(['git', '-c', 'safe.directory=*', '-C', TOP, 'ls-files'], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Refusal(f'{TOP}: not a git checkout: lines are counted of what git tracks')
    return [p for p in done.stdout.splitlines() if not p.endswith('.patch') and os.path.isfile(os.path.join(TOP, p))]


def count_patch(text):
    """(lines of new files, lines added to others, lines removed from others) of a patch."""
    made, added, removed, new, header = 0, 0, 0, False, True
    for line in text.splitlines():
        if line.startswith('diff --git'):
            new, header = False, True
        elif line.startswith('new file'):
            new = True
        elif line.startswith('@@'):
            header = False
        elif header or line == '-- ':
            header = True  # also the signature at the end
        elif line.startswith('+'):
            made, added = made + new, added + (not new)
        elif line.startswith('-'):
            removed += 1
    return made, added, removed


def patches():
    """The sum over the patch series."""
    folder = os.path.join(TOP, 'qemu-patches')
    texts = [read_text(os.path.join(folder, p)) for p in sorted(os.listdir(folder)) if p.endswith('.patch')]
    return [sum(column) for column in zip(*map(count_patch, texts))]


def generated():
    """{path: lines} of what the build wrote as text for others to read or run."""
    found = {}
    for folder, _, names in os.walk(build_dir()):
        if 'meson-' in folder or folder.endswith('.p'):
            continue
        for name in names:
            path = os.path.join(folder, name)
            if re.search(r'\.(c|h|sh|py|pc|in)$', name) and not os.path.islink(path):
                found[os.path.relpath(path, build_dir())] = len(read_text(path).splitlines())
    return found


def table():
    """Rows for people, a heading first."""
    parts = {}
    for path in tracked():
        into = parts.setdefault(part_of(path), dict.fromkeys(COLUMNS, 0))
        for kind, n in count(path, read_text(os.path.join(TOP, path))).items():
            into[kind] += n
    made, added, removed = patches()
    rows = [['part', 'new: code', 'comment', 'blank', 'document', 'modified', 'generated']]
    for part in sorted(parts):
        rows.append([part, *(str(parts[part][k]) for k in COLUMNS), '', ''])
    rows.append(['QEMU (by patches)', str(made), '', '', '', f'+{added} -{removed}', ''])
    rows += [[f'{path} (by the build)', '', '', '', '', '', str(n)] for path, n in sorted(generated().items())]
    sums = [sum(parts[p][k] for p in parts) + (made if k == CODE else 0) for k in COLUMNS]
    rows.append(['all', *map(str, sums), f'+{added} -{removed}', str(sum(generated().values()))])
    return rows


def run(_args):
    """`scbench lines`. Returns the exit status."""
    if not in_tree():
        raise Refusal('lines are counted in a checkout only')
    from scbench_report import print_table
    print_table(table())
    print('\nnew files of QEMU are counted whole (code, comment and blank); tests are new code, too', file=sys.stderr)
    return 0
