# SPDX-License-Identifier: BSD-3-Clause
"""scbench_failover.py - kills the domain under a working program, starts it again, and says what took how long.

One round: a client (work_probe.c) opens, reads and closes a file of the domain, over and over, and besides reads from a descriptor
that it opened before. After a while the VM (of a loopback domain: the agent) gets SIGKILL. The broker's status is asked every
millisecond; when it no longer says "ready", the domain is started again by `scctl start`, as a supervisor would. All times are of
the monotonic clock:

    detect   kill until the broker knows
    boot     until the agent has reported to the broker: `scctl start`, QEMU, guest kernel, agent
    call     until the client's first call that was answered after the kill

A round's time is that from the kill to that answer. Its extras are the phases, how many calls failed and with what, the longest
call, and what became of the descriptor from before. The calls by time (buckets of 10 ms) are kept for the plot.
"""

import errno
import os
import threading
import time

from scbench_common import Refusal, say

BEFORE_SECONDS = 0.5    # of undisturbed work
AFTER_SECONDS = 1.0     # and after the domain serves again
RESTART_SECONDS = 300


def _until(domain, state, seconds):
    """When the broker's status first said (state True) or no longer said (False) that the domain is ready; monotonic seconds."""
    end = time.monotonic() + seconds
    while True:
        ready = domain.status().get('state') == 'ready'
        now = time.monotonic()
        if ready == state:
            return now
        if now > end:
            raise Refusal(f'the broker did not say within {seconds} s that the domain is {"ready" if state else "gone"}')
        time.sleep(0.001)


class Log:
    """What the client wrote. Times in nanoseconds of the monotonic clock."""

    def __init__(self, path):
        self.buckets, self.failed, self.gaps, self.old = [], [], [], []
        with open(path, encoding='ascii') as f:
            for line in f:
                kind, *numbers = line.split()
                {'B': self.buckets, 'F': self.failed, 'G': self.gaps, 'O': self.old}[kind].append([int(n) for n in numbers])

    def first_answer(self, since_ns):
        """When the first good call ended that ended after a moment in the outage; None if there was none."""
        return min((end for _, end in self.gaps if end > since_ns), default=None)


def _restart_in_background(domain, errors):
    def start():
        try:
            domain.start_again()
        except Refusal as err:
            errors.append(err)
    thread = threading.Thread(target=start)
    thread.start()
    return thread


def _outage(domain):
    """Kills the domain, starts it again. (kill, detected, ready), monotonic seconds."""
    errors = []
    kill = domain.kill()
    detected = _until(domain, False, 60)
    thread = _restart_in_background(domain, errors)
    try:
        ready = _until(domain, True, RESTART_SECONDS)
    finally:
        thread.join()
    if errors:
        raise errors[0]
    domain.find_again()
    return kill, detected, ready


def _extras(log, kill, detected, ready, answer):
    """Phases and what the client saw, as numbers."""
    kill_ns = int(kill * 1e9)
    failures = [(start, end, number) for start, end, number in log.failed if end > kill_ns]
    extra = {'detect_ms': (detected - kill) * 1e3, 'boot_ms': (ready - detected) * 1e3, 'call_ms': (answer / 1e9 - ready) * 1e3,
             'failed_calls': len(failures),
             'longest_call_ms': max([(e - s) / 1e6 for s, e, *_ in log.gaps + log.old + failures], default=0)}
    for number in sorted({number for _, _, number in failures}):
        extra['failed_' + errno.errorcode.get(number, str(number))] = sum(n == number for _, _, n in failures)
    extra['old_descriptor_lost'] = int(bool(log.old) and log.old[-1][2] != 0)
    return extra


def one(domain, helper_of, words, path, budget_ms):
    """One round; returns (sample, timeline). helper_of(): a client of its own; path: of its log; budget_ms: how long it works."""
    helper = helper_of()
    helper.send('probe', budget_ms, [*words, path])
    time.sleep(BEFORE_SECONDS)
    try:
        kill, detected, ready = _outage(domain)
    finally:
        answer_of_client = helper.receive()
        helper.close()
    log = Log(path)
    os.unlink(path)
    answer = log.first_answer(int(detected * 1e9))
    if answer is None:
        raise Refusal(f'no call was served within {budget_ms} ms of work around the kill: a failed recovery, or too short a time')
    sample = {'ns': int(answer - kill * 1e9), 'ops': 1, 'app_ns': answer_of_client['app_ns'], 'agent_ns': 0,
              'broker_ns': answer_of_client['broker_ns'], 'idle_ns': answer_of_client['idle_ns'],
              'extra': _extras(log, kill, detected, ready, answer)}
    timeline = [[round((start - kill * 1e9) / 1e6), ok, failed] for start, ok, failed in log.buckets]
    return sample, timeline


def budget(domain):
    """How long the client has to work, ms: a trial says how long the domain takes to come back."""
    _, _, ready = times = _outage(domain)
    took = ready - times[0]
    say(f'scbench: the domain comes back in about {took:.2f} s')
    return int((BEFORE_SECONDS + took * 1.5 + AFTER_SECONDS) * 1000)
