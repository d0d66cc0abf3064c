#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""test_lines.py - what `scbench lines` takes for code, comment, blank, new and modified, against texts counted by hand."""

import os
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench'))
import scbench_lines as lines  # noqa: E402


class Kinds(unittest.TestCase):
    def check(self, counts, code, comment, blank):
        self.assertEqual((counts['code'], counts['comment'], counts['blank']), (code, comment, blank))

    def test_c(self):
        self.check(lines.count_c('/* one\n * two */\nint a; /* with code */\n\n// three\nchar *s = "/* not one */";\n'), 2, 3, 1)
        self.check(lines.count_c('int a; /* begins\nends */ int b;\n/* a */ /* b */\n'), 2, 1, 0)
        self.check(lines.count_c('char c = \'"\'; /* quote\nends */\n'), 1, 1, 0)

    def test_python(self):
        self.check(lines.count_python('#!/usr/bin/python3\n"""Two\nlines."""\n\nx = 1  # with code\ndef f():\n    """One."""\n    return """no\n'
                                      'comment"""\n'), 4, 4, 1)

    def test_shell(self):
        self.check(lines.count_hash('#!/bin/sh\n# comment\n\necho "#" # with code\n'), 2, 1, 1)

    def test_documents(self):
        self.assertEqual(lines.count('docs/man/x.1', 'a\nb\n'), {'document': 2})


class Patch(unittest.TestCase):
    def test_new_and_modified(self):
        text = ('Subject: x\n\n--- a line of the message\n+++ too\n---\n a.c | 2 +\n'
                'diff --git a/a.c b/a.c\nindex 1..2 100644\n--- a/a.c\n+++ b/a.c\n@@ -1,2 +1,3 @@\n one\n-two\n+TWO\n+three\n'
                'diff --git a/b.c b/b.c\nnew file mode 100644\n--- /dev/null\n+++ b/b.c\n@@ -0,0 +1,2 @@\n+int b;\n+\n-- \n2.39\n')
        self.assertEqual(lines.count_patch(text), (2, 2, 1))


if __name__ == '__main__':
    unittest.main()
