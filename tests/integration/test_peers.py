# SPDX-License-Identifier: Apache-2.0
"""bench-peers measures what is installed, says why the rest is missing, and leaves nothing behind."""

import json
import pathlib
import signal
import subprocess
import tempfile
import unittest

from harness import BUILD, Daemon, store_with, tap_main

PROGRAM = BUILD / "bench" / "bench-peers"


def left_behind():
    """Directories, and control groups and processes of containers."""
    found = {str(path) for path in pathlib.Path(tempfile.gettempdir()).glob("warmbox-peers-*")}
    found |= {str(path) for path in pathlib.Path("/sys/fs/cgroup").glob("*/warmbox-peers-*")}
    found |= {str(path) for path in pathlib.Path("/sys/fs/cgroup").glob("warmbox-peers-*")}
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"warmbox-peers-" in entry.read_bytes():
                found.add(str(entry.parent))
        except OSError:
            pass
    return found


class Peers(unittest.TestCase):
    def setUp(self):
        self.before = left_behind()

    def tearDown(self):
        self.assertEqual(left_behind() - self.before, set())

    def test_every_peer_is_measured_or_missing_with_a_reason(self):
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            daemon.fill("tiny", 2)
            ran = subprocess.run(
                [PROGRAM, "--count", "1", "--socket", daemon.socket, "--template", "tiny"], stdout=subprocess.PIPE, timeout=300, check=True
            )
            self.assertEqual(daemon.pool("tiny")["target"], 2, "as it was before")
        report = json.loads(ran.stdout)
        self.assertEqual((report["bench"], report["n"]), ("peers", 1))
        measured = {series["name"].split(":")[0] for series in report["series"] if series["n"] == 1 and series["p50"] > 0}
        missing = {value["name"] for value in report["values"] if value["value"].startswith("not measured: ")}
        self.assertEqual(len(measured), len({s["name"].split(":")[0] for s in report["series"]}), report["notes"])
        self.assertEqual(measured & missing, set())
        self.assertEqual(len(measured | missing), 10)
        self.assertLessEqual(
            {"bare process", "bare KVM calls", "bare msgpack echo", "warmbox, a miss without a shell", "warmbox, a parked sandbox"}, measured
        )

    def test_without_a_daemon_the_rest_is_measured(self):
        ran = subprocess.run(
            [PROGRAM, "--count", "1", "--socket", "/nonexistent", "--template", "t"], stdout=subprocess.PIPE, timeout=300, check=True
        )
        report = json.loads(ran.stdout)
        reasons = {value["name"]: value["value"] for value in report["values"]}
        self.assertIn("no daemon at /nonexistent", reasons["warmbox, a miss from a shell"])
        self.assertTrue(any(series["name"].startswith("bare process") and series["n"] == 1 for series in report["series"]))

    def test_an_interrupted_one_cleans_up(self):
        process = subprocess.Popen([PROGRAM, "--count", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        with process:
            for line in process.stderr:
                if line.startswith("round 2 "):
                    break
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            self.assertEqual(process.wait(60), 128 + signal.SIGTERM)


if __name__ == "__main__":
    tap_main()
