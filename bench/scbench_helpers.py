# SPDX-License-Identifier: BSD-3-Clause
"""scbench_helpers.py - processes that measure: bench/measure.h's, and programs that tell their own figures."""

import json
import signal
import subprocess
import time

from scbench_common import Refusal
from scbench_machine import process_clock

ANSWER_SECONDS = 300


class Helper:
    """A measuring process: see bench/measure.h."""

    def __init__(self, argv, env):
        self.argv = argv
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.pid = self.process.pid

    def send(self, command, count, args=()):
        """Sends a request; receive() has its answer."""
        self.line = ' '.join([command, str(count), *args])
        try:
            self.process.stdin.write(self.line + '\n')
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # receive() tells

    def receive(self):
        """The answer of the last request. Raises Refusal if it failed, or if none comes."""
        signal.alarm(ANSWER_SECONDS)
        try:
            text = self.process.stdout.readline()
        finally:
            signal.alarm(0)
        if not text:
            raise Refusal(f'helper {" ".join(self.argv)} ended at "{self.line}" (status {self.process.wait()})')
        answer = json.loads(text)
        if 'error' in answer:
            raise Refusal(f'"{self.line}" failed: {answer["error"]}')
        return answer

    def ask(self, command, count, args=()):
        """One request; returns the answer."""
        self.send(command, count, args)
        return self.receive()

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class FioHelper:
    """fio, started anew for each request; the figures are its own (operations done, and how long its jobs ran)."""

    def __init__(self, agent_pid, broker_pid, env):
        self.pids = (agent_pid, broker_pid)
        self.env = env
        self.pid = 0

    def ask(self, _command, _count, args=()):
        """Runs `args` to the end and returns what helpers answer."""
        before = [process_clock(pid) for pid in self.pids]
        start = time.monotonic()
        done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env, timeout=ANSWER_SECONDS, check=False)
        wall = time.monotonic() - start
        cpu = [process_clock(pid) - b for pid, b in zip(self.pids, before)]
        if done.returncode:
            raise Refusal(f'{" ".join(args)}: status {done.returncode}: {done.stderr.strip()[-300:]}')
        return self._answer(done.stdout, cpu, wall)

    @staticmethod
    def _answer(text, cpu, wall):
        job = json.loads(text[text.index('{'):])['jobs'][0]
        ops = sum(job[way]['total_ios'] for way in ('read', 'write'))
        ns = max(job[way]['runtime'] for way in ('read', 'write')) * 1e6
        if not ops:
            raise Refusal('fio did nothing within its time')
        # fio's own CPU time is a share of the time of each of its jobs.
        app = (job['usr_cpu'] + job['sys_cpu']) / 100 * job['job_runtime'] * 1e6
        late = job['read' if job['read']['total_ios'] else 'write']['clat_ns']
        extra = {f'p{name}_ns': late['percentile'][key] for name, key in (('50', '50.000000'), ('99', '99.000000'), ('999', '99.900000'))
                 if key in late.get('percentile', {})}
        return {'ns': int(ns), 'ops': ops, 'app_ns': int(app), 'agent_ns': int(cpu[0] * 1e9), 'broker_ns': int(cpu[1] * 1e9), 'idle_ns': 0,
                'extra': extra, 'wall_ns': int(wall * 1e9)}

    def close(self):
        """Nothing stays."""
