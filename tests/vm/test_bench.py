#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""test_bench.py - what scbench does with VMs: one of its own is killed and comes back; the driver domain that it compares with.

Nothing is judged by its time.
"""

import argparse
import json
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))
import vmtest  # noqa: E402
import scbench_helpers  # noqa: E402
import scbench_peer  # noqa: E402

SCBENCH = os.path.join(vmtest.TOP, "bench", "scbench")


class Vm(unittest.TestCase):
    def test_a_vm_of_the_run_is_killed_and_serves_again(self):
        with tempfile.TemporaryDirectory(prefix="sc-bench.") as out:
            vmtest.run([sys.executable, SCBENCH, "run", "failover", "--domain", "vm", "--repeat", "1", "--out", out], timeout=600)
            with open(os.path.join(out, "raw.jsonl"), encoding="utf-8") as f:
                entry = next(e for e in map(json.loads, f) if "round" in e)
            extra = entry["sides"]["ours"]["extra"]
            self.assertGreater(extra["boot_ms"], 0)
            self.assertGreater(sum(ok for ms, ok, _ in entry["timeline"] if ms > entry["sides"]["ours"]["ns"] / 1e6), 0)
            self.assertEqual(sorted(os.listdir(out)), ["raw.jsonl", "run.json"])


class Peer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="sc-bench."))
        cls.peer = scbench_peer.PeerVm(cls.work, "auto")

    @classmethod
    def tearDownClass(cls):
        cls.peer.close()

    def test_the_host_reads_what_the_guest_wrote_and_the_reverse(self):
        guest = scbench_peer.GuestHelper(self.peer)
        self.addCleanup(guest.close)
        guest.ask("fill", 10000, ["7", "/export/from-guest"])
        self.assertEqual(os.path.getsize(os.path.join(self.peer.mount, "from-guest")), 10000)
        with open(os.path.join(self.peer.mount, "from-host"), "wb") as f:
            f.write(bytes(20000))
            f.flush()
            os.fsync(f.fileno())
        answer = guest.ask("read", 3, ["4096", "/export/from-host"])
        self.assertEqual((answer["ops"], answer["app_ns"]), (3, 0))
        self.assertGreater(answer["ns"], 0)

    def test_a_request_that_fails_says_so(self):
        guest = scbench_peer.GuestHelper(self.peer)
        self.addCleanup(guest.close)
        with self.assertRaisesRegex(scbench_peer.Refusal, "No such file"):
            guest.ask("read", 1, ["4096", "/export/nothing"])

    def test_a_cache_line_goes_to_the_guest_and_back(self):
        host = scbench_helpers.Helper([scbench_peer.find("scbench-work", "bench/scbench-work")], dict(os.environ))
        ping = scbench_peer.PingHelper(self.peer, host)
        self.addCleanup(ping.close)
        for _ in range(2):
            answer = ping.ask("ping", 1000)
            self.assertEqual(answer["ops"], 1000)
            self.assertGreater(answer["agent_ns"] + 1, 0)

    def test_it_is_the_guest_that_we_have(self):
        with open(os.path.join(self.work, "peer", "image", "manifest.json"), encoding="utf-8") as f:
            manifest = json.load(f)
        self.assertIn("virtio_net", [m["name"] for m in manifest["modules"]])
        self.assertIn("/bin/sftp-server", [p["path"] for p in manifest["programs"]])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed")  # all VM tests are given one
    _, rest = parser.parse_known_args()
    unittest.main(argv=sys.argv[:1] + rest)
