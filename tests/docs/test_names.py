#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Names in the documents: functions, files and links that they speak of are there."""

import os
import re
import subprocess
import sys
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SUFFIXES = r"\.(?:c|h|S|py|sh|md|in|patch)"
OTHERS = {"qemu-patches/README.md"}  # speaks of QEMU's files
OURS = ("README.md", "docs/architecture.md", "docs/interception.md", "docs/kvm.md", "docs/virtio-sc.md")  # speak of our functions only


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def listed(*patterns):
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *patterns], cwd=TOP, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [f for f in out.splitlines() if os.path.exists(os.path.join(TOP, f))]


class Names(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.documents = {path: read(path) for path in listed("*.md")}
        cls.files = listed()
        cls.sources = "\n".join(read(path) for path in listed("*.c", "*.h", "*.S", "*.py", "*.sh", "*.patch"))

    def test_functions(self):
        """`name()` is in our code."""
        missing = [(path, name) for path in OURS for name in re.findall(r"`(\w+)\(\)`", self.documents[path])
                   if not re.search(r"\b%s\b" % name, self.sources)]
        self.assertEqual(missing, [])

    def test_files(self):
        """`path.c` is a file: by its path from the top or from the document, or by its name if that is the only one."""
        missing = []
        for path, text in self.documents.items():
            for name in re.findall(r"`([\w./-]+%s)`" % SUFFIXES, text) if path not in OTHERS else ():
                here = os.path.normpath(os.path.join(os.path.dirname(path), name))
                if not name.startswith(".cache/") and not any(f in (name, here) or f.endswith("/" + name) for f in self.files):
                    missing.append((path, name))
        self.assertEqual(missing, [])

    def test_links(self):
        """Links within the tree lead to a file and, after "#", to a heading."""
        missing = []
        for path, text in self.documents.items():
            for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
                name, _, heading = link.partition("#")
                target = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
                if not os.path.exists(os.path.join(TOP, target)):
                    missing.append((path, link))
                elif heading:
                    headings = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", read(target), re.M)}
                    if heading not in headings:
                        missing.append((path, link))
        self.assertEqual(missing, [])


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    unittest.main()
