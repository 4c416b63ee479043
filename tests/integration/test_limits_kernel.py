# SPDX-License-Identifier: Apache-2.0
"""The kernel's limits of a VMM, with Linux guests that go beyond them, and that neighbours go on and nothing is left."""

import contextlib
import os
import pathlib
import shutil
import signal
import tempfile
import time
import unittest

from harness import Daemon, connect_agent, store_with, tap_main, wait_for

MEMORY_MIB = 16
CPU_PERCENT = 10

LIMITS = f"""
[limits]
cgroups = auto
[template tiny]
target = 1
[template slow]
target = 1
cpu_percent = {CPU_PERCENT}
[template small]
target = 1
memory_mib = {MEMORY_MIB}
"""


def cgroups(daemon):
    """The pool's own directories, one for each hierarchy; empty where this host lets us make none."""
    with contextlib.suppress(FileNotFoundError):
        return [pathlib.Path(line.split(" ", 2)[2]) for line in (daemon.runtime / "cgroups").read_text().splitlines()]
    return []


def sandboxes(root):
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.exists() else []


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Limits(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="wb-limits-")
        store = pathlib.Path(cls.directory.name) / "store"
        shutil.copytree(store_with("tiny"), store, symlinks=True)
        for name in ("slow", "small"):
            os.symlink(os.readlink(store / "templates" / "tiny"), store / "templates" / name)
        cls.daemon = Daemon(store, pool="default_target = 0\n", extra_config=LIMITS).start()
        wait_for(lambda: all(cls.daemon.pool(t)["parked"] == 1 for t in ("tiny", "slow", "small")), 120, "all are parked")
        cls.roots = cgroups(cls.daemon)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.__exit__(None)
        cls.directory.cleanup()

    def setUp(self):
        if not self.roots:
            self.skipTest("this host lets us make no cgroups")
        self.agents = []

    def tearDown(self):
        for agent in self.agents:
            agent.close()

    def acquire(self, template):
        lease = self.daemon.call("acquire", template=template, timeout_ms=60000)
        agent = connect_agent(lease["socket"])
        self.agents.append(agent)
        return lease, agent

    def get(self, lease):
        return self.daemon.call("get", lease=lease["lease"])

    def throttled(self, lease):
        """How often the quota has stopped it."""
        for root in self.roots:
            with contextlib.suppress(FileNotFoundError):
                stat = (root / pathlib.Path(lease["socket"]).stem / "cpu.stat").read_text()
                return int(dict(line.split() for line in stat.splitlines())["nr_throttled"])
        raise AssertionError("no cpu.stat")

    def release(self, *leases):
        for lease in leases:
            self.daemon.call("release", lease=lease["lease"])

    def test_each_has_one_and_it_goes_with_it(self):
        lease, _ = self.acquire("tiny")
        name = pathlib.Path(lease["socket"]).stem
        for root in self.roots:
            self.assertIn(str(self.get(lease)["pid"]), (root / name / "cgroup.procs").read_text().split())
        self.release(lease)
        wait_for(lambda: not any((root / name).exists() for root in self.roots), 20, "the cgroup is removed")

    def test_a_guest_that_burns_is_held_to_its_quota(self):
        slow, burner = self.acquire("slow")
        free, other = self.acquire("tiny")
        pids = [self.get(lease)["pid"] for lease in (slow, free)]
        for agent in (burner, other):
            agent.send("exec", {"argv": ["/bin/sh", "-c", "while :; do :; done"], "stdin": False})
        # Side by side in the same time, whatever else the machine does.
        wait_for(lambda: cpu_seconds(pids[1]) > 1, 60, "the other burns")
        start, before = time.monotonic(), [cpu_seconds(pid) for pid in pids]
        time.sleep(4)
        elapsed, after = time.monotonic() - start, [cpu_seconds(pid) for pid in pids]
        used = [b - a for a, b in zip(before, after)]
        self.assertLess(used[0], 1.5 * elapsed * CPU_PERCENT / 100)
        self.assertGreater(self.throttled(slow), 0)
        self.assertEqual(self.throttled(free), 0)
        self.release(slow, free)

    def test_a_guest_beyond_its_memory_ends_alone(self):
        neighbour, calm = self.acquire("tiny")
        lease, agent = self.acquire("small")
        with self.assertRaises((ConnectionResetError, BrokenPipeError)):
            agent.run("/bin/dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", f"count={2 * MEMORY_MIB}")
        wait_for(lambda: self.get(lease)["state"] != "active", 30, "the lease has ended")
        self.assertEqual(self.get(lease)["cause"], "limit")
        self.assertIn(f"limit of {MEMORY_MIB} MiB", self.daemon.log_text())
        result, out, _ = calm.run("/bin/echo", "still here")
        self.assertEqual((result, out), ({"code": 0}, b"still here\n"))
        self.assertEqual(self.get(neighbour)["state"], "active")
        self.release(neighbour)
        wait_for(lambda: self.daemon.pool("small")["parked"] == 1, 120, "another one is parked")

    def test_nothing_is_left(self):
        """A daemon of its own, stopped, and one that is killed with its successor."""
        for sig in (signal.SIGTERM, signal.SIGKILL):
            daemon = Daemon(self.daemon.store, pool="default_target = 0\n", extra_config="[template tiny]\ntarget = 2\n").start()
            try:
                wait_for(lambda: daemon.pool("tiny")["parked"] == 2, 120, "two are parked")
                roots = cgroups(daemon)
                self.assertEqual(roots and len(sandboxes(roots[0])), 2)
                before = sandboxes(roots[0])
                daemon.stop(sig)
                if sig == signal.SIGTERM:
                    self.assertFalse(any(root.exists() for root in roots))
                    continue
                daemon.start()
                for root in roots:
                    self.assertFalse(set(sandboxes(root)) & set(before))
            finally:
                daemon.__exit__(None)
            self.assertFalse(any(root.exists() for root in roots))


if __name__ == "__main__":
    tap_main()
