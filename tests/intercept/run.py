#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs cases of matrix natively and intercepted, and compares output and exit status.

usage: run.py MATRIX TESTSERVE.so [-m MODE,...] [-n ROUNDS] [CASE ...]

Exit status 1 if anything differs. Each difference is shown.
"""
import argparse
import os
import subprocess
import sys


def run(command, env, deadline):
    """Returns (status, output), with a note in place of the output if the deadline passed."""
    try:
        r = subprocess.run(command, env=env, timeout=deadline, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        return r.returncode, r.stdout.decode(errors='replace')
    except subprocess.TimeoutExpired as e:
        return None, 'no end within %d s; output so far: %r' % (deadline, e.output)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('matrix')
    p.add_argument('library')
    p.add_argument('-m', default='pass,all,changed')
    p.add_argument('-n', type=int, default=1)
    p.add_argument('-t', type=int, default=60)
    p.add_argument('cases', nargs='*')
    args = p.parse_intermixed_args()
    cases = args.cases or subprocess.check_output([args.matrix], text=True).split()
    failed = 0
    for case in cases:
        command = [os.path.abspath(args.matrix), case]
        native = run(command, None, args.t)
        if native[0] is None or native[0] < 0:
            failed += 1
            print('FAIL %s natively: %r' % (case, native))
        for mode in args.m.split(','):
            env = dict(os.environ, LD_PRELOAD=os.path.abspath(args.library), SCI_MODE=mode)
            for _ in range(args.n):
                got = run(command, env, args.t)
                if got != native:
                    failed += 1
                    print('FAIL %s, mode %s\n  native: %r\n  intercepted: %r' %
                          (case, mode, native, got))
        print('done', case, flush=True)
    print('%d cases, %d differences' % (len(cases), failed))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
