# SPDX-License-Identifier: BSD-3-Clause
"""scbench_files.py - what workloads read: a source tree, scripts. The same for the same seed."""

import os
import random
import shutil
import tarfile

FILES, FOLDERS = 400, 40


def _write(path, text, mode=0o755):
    with open(path, 'w', encoding='utf-8') as f:
        f.write(text)
    os.chmod(path, mode)


def make_tree(path, seed):
    """A tar archive of FILES files in FOLDERS directories, the same for the same seed: a source tree's sizes, more or less."""
    rng = random.Random(seed)
    source = path + '.d'
    for i in range(FILES):
        folder = os.path.join(source, f'part{i % FOLDERS}')
        os.makedirs(folder, exist_ok=True)
        text = ''.join(rng.choice('abcdefgh  \n') for _ in range(int(min(20000, rng.lognormvariate(7.5, 1)))))
        _write(os.path.join(folder, f'file{i}.c'), text, 0o644)
    with tarfile.open(path, 'w') as tar:
        tar.add(source, arcname='tree', filter=lambda m: setattr(m, 'mtime', 1500000000) or m)
    shutil.rmtree(source)


def make_local(local, seed):
    """Scripts and archives that workloads read, on the host's file system for both sides."""
    os.makedirs(local)
    make_tree(os.path.join(local, 'tree.tar'), seed)
    _write(os.path.join(local, 'reset-db'), 'rm -f "$1"/app.db*\nsqlite3 "$1/app.db" "create table t(a integer, b text);"\n')
    _write(os.path.join(local, 'reset-untar'), 'rm -rf "$1/untar"\nmkdir "$1/untar"\n')
    _write(os.path.join(local, 'make-repo'),
           'set -e\nmkdir -p "$1/repo"\ntar -xf "$2" -C "$1/repo"\ncd "$1/repo"\ngit init -q .\ngit add .\n'
           'git -c user.name=b -c user.email=b@localhost commit -q -m tree\n')
    rng = random.Random(seed)
    row = lambda i: f"insert into t values({i}, '{rng.getrandbits(256):064x}');\n"
    _write(os.path.join(local, 'insert.sql'), 'begin;\n' + ''.join(row(i) for i in range(2000)) + 'commit;\n', 0o644)
    _write(os.path.join(local, 'commit.sql'), ''.join(row(i) for i in range(20)), 0o644)
