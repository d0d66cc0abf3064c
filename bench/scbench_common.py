# SPDX-License-Identifier: BSD-3-Clause
"""scbench_common.py - what the other modules share: errors, files, where things are."""

import json
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(HERE)


class Refusal(Exception):
    """Something cannot be done; the text names the thing and the remedy."""


def in_tree():
    """True in a checkout, false where scbench was installed."""
    return os.path.exists(os.path.join(TOP, 'meson.build'))


def build_dir():
    return os.environ.get('VHOST_SC_BUILD') or os.path.join(TOP, 'build')


def find(name, built):
    """Path of one of our programs: `built` below the build directory in a checkout, or beside us, or in bin."""
    if in_tree() or 'VHOST_SC_BUILD' in os.environ:
        tries = [os.path.join(build_dir(), built)]
    else:
        prefix = os.path.dirname(os.path.dirname(HERE))
        tries = [os.path.join(HERE, name), os.path.join(prefix, 'bin', name)]
    for path in tries:
        if os.access(path, os.X_OK):
            return path
    raise Refusal(f'{name} is missing ({tries[0]}): run `ninja -C {build_dir()}`, or set VHOST_SC_BUILD')


def find_scctl():
    return os.path.join(TOP, 'libvirt-xml', 'scctl') if in_tree() else os.path.join(HERE, 'scctl')


def read_text(path, default=''):
    try:
        with open(path, encoding='utf-8', errors='replace') as f:
            return f.read()
    except OSError:
        return default


def write_json(path, value):
    """Writes it whole or not at all."""
    with open(path + '.new', 'w', encoding='utf-8') as f:
        json.dump(value, f, indent=1, sort_keys=True)
        f.write('\n')
    os.replace(path + '.new', path)


def say(text):
    """For people: standard error, so that standard output stays data."""
    print(text, file=sys.stderr, flush=True)
