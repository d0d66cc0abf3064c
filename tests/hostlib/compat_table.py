#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Compare docs/compatibility.md with the code: does the table tell the truth about every system call?

Sources of the truth: hostlib/call-list.h (which calls are dispatched, and to which handler), the calls_*.c file that has the
handler (calls_refuse.c: refused), own_calls[] in hostlib/intercept.c (library), and the kernel's headers together with
hostlib/syscall-nr.h (numbers). Prints what is wrong, one line each; exit status 1 if anything is.
"""

import glob
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HEADER = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
# Refused as a whole, though not in calls_refuse.c.
ALSO_REFUSED = {"call_chroot"}


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as f:
        return f.read()


def numbers():
    """Name -> number, from the headers that we compile with."""
    with open(HEADER, encoding="utf-8") as f:
        text = f.read() + read("hostlib", "syscall-nr.h")
    return {m[1]: int(m[2]) for m in re.finditer(r"#define\s+__NR_(\w+)\s+(\d+)", text)}


def call_list():
    """Name -> handler."""
    return {m[1]: m[2] for m in re.finditer(r"^SC_CALL(?:_NET)?\(__NR_(\w+), \w+, (\w+)\)", read("hostlib", "call-list.h"), re.M)}


def handlers():
    """Handler -> (file, text of its function and of what stands before it in the file)."""
    found = {}
    for path in glob.glob(os.path.join(TOP, "hostlib", "calls_*.c")):
        name = os.path.basename(path)
        text = read("hostlib", name)
        for m in re.finditer(r"^long (call_\w+)\(.*?^}", text, re.M | re.S):
            found[m[1]] = (name, m[0])
    return found


def own_calls():
    m = re.search(r"own_calls\[\] = \{(.*?)\};", read("hostlib", "intercept.c"), re.S)
    return set(re.findall(r"__NR_(\w+)", m[1]))


def table():
    """Name -> (number, where, notes), in the document's order."""
    rows = {}
    for m in re.finditer(r"^\| (\d+) \| `(\w+)` \| (\w+) \| (.*?) ?\|$", read("docs", "compatibility.md"), re.M):
        rows[m[2]] = (int(m[1]), m[3], m[4])
    return rows


def expected(name, calls, code, own):
    """What the code does with a call, in the document's words."""
    handler = calls.get(name)
    if handler is None:
        return "library" if name in own else "local"
    if handler in ALSO_REFUSED or code[handler][0] == "calls_refuse.c":
        return "refused"
    return "remote"


def check():
    """All differences, as lines."""
    problems = []
    calls, code, own, known, rows = call_list(), handlers(), own_calls(), numbers(), table()
    for name, handler in calls.items():
        if handler not in code:
            problems.append("%s: call-list.h names %s, which no calls_*.c has" % (name, handler))
        if name not in rows:
            problems.append("%s: in call-list.h, not in the document" % name)
    for name, number in known.items():
        if name not in rows:
            problems.append("%s (%d): a system call that the document leaves out" % (name, number))
        elif rows[name][0] != number:
            problems.append("%s: the document says number %d, the headers %d" % (name, rows[name][0], number))
    for name, (_, where, notes) in rows.items():
        if calls.get(name) is not None and calls[name] not in code:
            continue
        want = expected(name, calls, code, own)
        if where != want:
            problems.append("%s: the document says %s, the code %s" % (name, where, want))
        if want == "refused":
            problems += refusal(name, notes, code[calls[name]])
    if [r[0] for r in rows.values()] != sorted(r[0] for r in rows.values()):
        problems.append("rows are not in the order of numbers")
    return problems


def refusal(name, notes, handler):
    """A refusal must name its errno, and the code must have it."""
    named = re.findall(r"\bE[A-Z]{3,}\b", notes)
    body = handler[1]
    if "refuse_root" in body or "is_root" in body:
        body += "-EPERM"
    if "not_socket" in body:
        body += "-ENOTSOCK"
    return (["%s: refused, with no errno in the notes" % name] if not named else
            ["%s: the notes say %s, %s does not" % (name, e, handler[0]) for e in named if "-" + e not in body])


def main():
    problems = check()
    for line in problems:
        print(line)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
