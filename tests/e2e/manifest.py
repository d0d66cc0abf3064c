#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Print a directory tree so that two trees can be compared: manifest.py DIR [EXCLUDE-GLOB …].

One line an entry, sorted: path, type and mode, owner, link count, size, content hash or link text, extended attributes.
Times are left out (cases that preserve them print them themselves), as are directories' sizes.
"""

import fnmatch
import hashlib
import os
import stat
import sys


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            h.update(block)
    return h.hexdigest()[:32]


def describe(path, rel):
    st = os.lstat(path)
    fields = [repr(rel), stat.filemode(st.st_mode), "%d:%d" % (st.st_uid, st.st_gid)]
    if stat.S_ISLNK(st.st_mode):
        fields += ["->", repr(os.readlink(path))]
    elif stat.S_ISREG(st.st_mode):
        fields += ["links=%d" % st.st_nlink, str(st.st_size), digest(path)]
    elif stat.S_ISDIR(st.st_mode):
        fields.append("links=%d" % st.st_nlink)
    else:
        fields.append("rdev=%x" % st.st_rdev)
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        fields.append("%s=%r" % (name, os.getxattr(path, name, follow_symlinks=False)))
    return " ".join(fields)


def main():
    top, excludes = sys.argv[1], sys.argv[2:]
    lines = []
    for dirpath, dirs, files in os.walk(top):
        rel = os.path.relpath(dirpath, top)
        kept = [d for d in dirs if not any(fnmatch.fnmatch(os.path.normpath(os.path.join(rel, d)), g)
                                           for g in excludes)]
        dirs[:] = kept
        for name in kept + files:
            r = os.path.normpath(os.path.join(rel, name))
            if not any(fnmatch.fnmatch(r, g) for g in excludes):
                lines.append(describe(os.path.join(dirpath, name), r))
    print("\n".join(sorted(lines)))


main()
