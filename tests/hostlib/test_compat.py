#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""docs/compatibility.md must say what the code does."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compat_table  # pylint: disable=wrong-import-position


class Compatibility(unittest.TestCase):
    """The table of system calls against the dispatcher's list."""

    def test_table_agrees_with_the_code(self):
        self.assertEqual(compat_table.check(), [])

    def test_table_is_whole(self):
        self.assertGreater(len(compat_table.table()), 370)

    def test_a_difference_is_found(self):
        calls, code, own = compat_table.call_list(), compat_table.handlers(), compat_table.own_calls()
        self.assertEqual(compat_table.expected("getpid", calls, code, own), "local")
        self.assertEqual(compat_table.expected("mkdir", calls, code, own), "remote")
        self.assertEqual(compat_table.expected("io_setup", calls, code, own), "refused")
        self.assertEqual(compat_table.expected("clone", calls, code, own), "library")


if __name__ == "__main__":
    unittest.main()
