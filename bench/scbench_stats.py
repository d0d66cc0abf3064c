# SPDX-License-Identifier: BSD-3-Clause
"""scbench_stats.py - medians, intervals and ratios of few samples, without assuming a distribution.

Times of system calls are not normal: they have a floor and a long tail. So each figure is a median, and its interval comes
from order statistics: the probability that the true median lies between the k-th smallest and the k-th largest of n
independent samples is a sum of binomial terms, whatever the distribution is. The interval given is the narrowest such with at least
95 %; n < 6 has none. A ratio is taken round by round (ours and the base case, measured next to each other), and its median
and interval are those of the ratios: what slows both for a while cancels out.
"""

import math

CONFIDENCE = 0.95


def median(samples):
    """The middle sample, or the mean of the two middle ones. Raises ValueError if there is none."""
    if not samples:
        raise ValueError('no samples')
    s = sorted(samples)
    half = len(s) // 2
    return s[half] if len(s) % 2 else (s[half - 1] + s[half]) / 2


def interval_ranks(n, confidence=CONFIDENCE):
    """(low, high), indices into n sorted samples that enclose the median with this confidence; None if n is too small."""
    tail, k = 0.0, -1
    while True:
        # Weight of exactly k + 1 samples below the median, for each of the two tails.
        more = math.comb(n, k + 1) * 0.5 ** n
        if k + 1 > n // 2 or 2 * (tail + more) > 1 - confidence:
            break
        tail += more
        k += 1
    return (k, n - 1 - k) if k >= 0 else None


def interval(samples, confidence=CONFIDENCE):
    """(low, high): the interval of the median, or None if there are too few samples."""
    ranks = interval_ranks(len(samples), confidence)
    if ranks is None:
        return None
    s = sorted(samples)
    return s[ranks[0]], s[ranks[1]]


def ratios(ours, base):
    """ours[i] / base[i] of the rounds in which base is not zero. Raises ValueError if the lists differ in length."""
    if len(ours) != len(base):
        raise ValueError('samples of different rounds')
    return [a / b for a, b in zip(ours, base) if b]


def summary(samples):
    """{'n', 'median', 'low', 'high', 'min'}; low and high are None if there are too few samples."""
    between = interval(samples) or (None, None)
    return {'n': len(samples), 'median': median(samples), 'low': between[0], 'high': between[1], 'min': min(samples)}


def apart(a, b):
    """True if two summaries' intervals do not touch: they differ by more than chance."""
    if a['low'] is None or b['low'] is None:
        return False
    return a['high'] < b['low'] or b['high'] < a['low']
