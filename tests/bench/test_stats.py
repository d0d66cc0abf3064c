#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""test_stats.py - scbench's statistics, against values worked out by hand and against simulation."""

import os
import random
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench'))
import scbench_stats as stats  # noqa: E402


class Median(unittest.TestCase):
    def test_odd_and_even(self):
        self.assertEqual(stats.median([3, 1, 2]), 2)
        self.assertEqual(stats.median([4, 1, 3, 2]), 2.5)
        self.assertEqual(stats.median([7]), 7)

    def test_nothing_has_no_median(self):
        with self.assertRaises(ValueError):
            stats.median([])

    def test_samples_are_left_as_they_were(self):
        samples = [3, 1, 2]
        stats.median(samples)
        self.assertEqual(samples, [3, 1, 2])


class Interval(unittest.TestCase):
    def test_ranks_of_the_sign_test_tables(self):
        # n: ranks counted from 1, as tables of the sign test give them for 95 %.
        for n, low, high in ((6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (12, 3, 10), (15, 4, 12), (20, 6, 15), (25, 8, 18)):
            self.assertEqual(stats.interval_ranks(n), (low - 1, high - 1), n)

    def test_too_few(self):
        for n in range(6):
            self.assertIsNone(stats.interval_ranks(n), n)
        self.assertIsNone(stats.interval([1, 2, 3, 4, 5]))

    def test_one_outlier_does_not_move_it(self):
        self.assertEqual(stats.interval([1, 2, 3, 4, 5, 6, 7, 8, 9, 10 ** 9]), (2, 9))

    def test_covers_the_median_of_a_skewed_distribution(self):
        rng = random.Random(1)
        hits, rounds = 0, 2000
        for _ in range(rounds):
            low, high = stats.interval([rng.expovariate(1) for _ in range(10)])
            hits += low <= 0.6931 <= high
        self.assertGreater(hits / rounds, 0.95)


class Ratios(unittest.TestCase):
    def test_round_by_round(self):
        self.assertEqual(stats.ratios([2, 30, 4], [1, 10, 2]), [2, 3, 2])

    def test_a_base_of_nothing_is_left_out(self):
        self.assertEqual(stats.ratios([2, 3], [0, 1]), [3])

    def test_rounds_must_match(self):
        with self.assertRaises(ValueError):
            stats.ratios([1], [1, 2])

    def test_slow_rounds_cancel_out(self):
        base = [10, 10, 100, 10, 1000, 10, 10, 10, 10, 10]
        self.assertEqual(stats.summary(stats.ratios([3 * b for b in base], base)),
                         {'n': 10, 'median': 3, 'low': 3, 'high': 3, 'min': 3})

    def test_apart(self):
        a, b, c = ({'low': low, 'high': high} for low, high in ((1, 2), (3, 4), (2, 3)))
        self.assertTrue(stats.apart(a, b))
        self.assertTrue(stats.apart(b, a))
        self.assertFalse(stats.apart(a, c))
        self.assertFalse(stats.apart(a, {'low': None, 'high': None}))


if __name__ == '__main__':
    unittest.main()
