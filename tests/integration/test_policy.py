# SPDX-License-Identifier: Apache-2.0
"""Targets that follow demand, turns of tenants, and the floor under memory, in a running daemon.

The guest is the tiny one that only acknowledges an identity: what is tested is on the host.
"""

import os
import pathlib
import subprocess
import tempfile
import time
import unittest

from harness import BUILD, WARMBOX, Daemon, RpcError, as_user, tap_main, wait_for

OTHER_USER = 65534


def tiny_daemon(pool):
    directory = tempfile.TemporaryDirectory(prefix="wb-policy-")
    store = pathlib.Path(directory.name) / "store"
    subprocess.run([BUILD / "bench" / "make-tiny", store, "t"], check=True, stdout=subprocess.DEVNULL)
    daemon = Daemon(store, pool=pool)
    daemon.kept = directory  # as long as the daemon is
    return daemon


def warmbox(daemon, *arguments):
    return subprocess.run(
        [WARMBOX, "--socket", daemon.socket, *arguments], capture_output=True, text=True, check=False
    )


class Demand(unittest.TestCase):
    def test_misses_raise_the_target_between_the_limits(self):
        with tiny_daemon("default_min = 1\ndefault_max = 8\n") as daemon:
            daemon.call("pool.set", template="t", shells=0)
            wait_for(lambda: daemon.pool("t")["parked"] == 1, 30, "one is parked")
            pool = daemon.pool("t")
            self.assertEqual((pool["min"], pool["target"], pool["max"]), (1, 1, 8))
            self.assertEqual(pool["arrivals_per_hour"], 0)
            self.assertGreater(pool["restore_ns"], 0)
            with daemon.connect() as rpc:
                requests = [rpc.send("acquire", {"template": "t"}) for _ in range(5)]
                leases = [rpc.wait(request)["lease"] for request in requests]
            self.assertEqual(len(set(leases)), 5)
            pool = daemon.pool("t")
            self.assertGreater(pool["missed_total"], 0)
            self.assertGreater(pool["arrivals_per_hour"], 0)
            self.assertGreater(pool["target"], 1)
            self.assertLessEqual(pool["target"], 8)
            wait_for(lambda: daemon.pool("t")["parked"] == pool["target"], 30, "the target is reached")
            # And it is shown.
            lines = warmbox(daemon, "pool").stdout.splitlines()
            shown = dict(zip(lines[0].split(), lines[1].split()))
            self.assertEqual((shown["MIN"], shown["TARGET"], shown["MAX"]), ("1", str(pool["target"]), "8"))
            self.assertTrue(shown["RATE"].endswith(("/h", "/s")))

    def test_limits_can_be_set_and_are_checked(self):
        with tiny_daemon("default_target = 0\n") as daemon:
            for parameters, message in (
                ({"min": 3, "max": 2}, "min: more than max"),
                ({"min": 3}, "min: more than max is"),
                ({"target": 3, "max": 3}, "target: is both"),
                ({}, "none of target"),
            ):
                with self.assertRaises(RpcError) as caught:
                    daemon.call("pool.set", template="t", **parameters)
                self.assertEqual(caught.exception.code, "invalid_argument")
                self.assertIn(message, caught.exception.message)
            done = warmbox(daemon, "pool", "t", "--min", "2", "--max", "4", "--shells", "1")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            wait_for(lambda: (daemon.pool("t")["parked"], daemon.pool("t")["shells"]) == (2, 1), 30, "2 parked, 1 shell")
            done = warmbox(daemon, "pool", "t", "--min", "5")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("more than max", done.stderr)
            self.assertEqual(warmbox(daemon, "pool", "--set", "5").returncode, 2)


class Tenants(unittest.TestCase):
    def test_a_burst_of_one_user_does_not_delay_another(self):
        if os.getuid() != 0:
            self.skipTest("only root can connect as somebody else")
        with tiny_daemon("default_target = 0\nrestore_concurrency = 1\n") as daemon:
            for path in (daemon.directory, daemon.runtime):
                path.chmod(0o711)
            with as_user(OTHER_USER):
                other = daemon.connect()
            with daemon.connect() as burst, other:
                requests = [burst.send("acquire", {"template": "t"}) for _ in range(20)]
                wait_for(lambda: daemon.pool("t")["claimed_total"] > 0, 30, "the burst is being served")
                before = daemon.pool("t")["claimed_total"]
                other.wait(other.send("acquire", {"template": "t"}))
                between = daemon.pool("t")["claimed_total"] - before
                # Those that were restored while the request came and while it was looked; not all of the burst.
                self.assertLess(between, 12)
                self.assertGreater(daemon.pool("t")["waiting"], 0)
                for request in requests:
                    burst.wait(request)


class Memory(unittest.TestCase):
    def test_below_the_floor_only_what_is_waited_for_is_restored(self):
        # All of the host's memory is never available: the host has some.
        with tiny_daemon("default_target = 3\nmemory_floor_percent = 100\n") as daemon:
            daemon.call("pool.set", template="t", target=3)
            time.sleep(1)
            pool = daemon.pool("t")
            self.assertEqual((pool["parked"], pool["restoring"], pool["target"]), (0, 0, 0))
            self.assertEqual((pool["min"], pool["max"]), (3, 3))
            self.assertIn("the floor is", pool["pressure"])
            health = daemon.call("health")
            self.assertEqual(health["status"], "degraded")
            self.assertTrue(any(reason.startswith("memory is short: ") for reason in health["reasons"]))
            self.assertIn("Memory is short", warmbox(daemon, "pool").stdout)
            self.assertEqual(warmbox(daemon, "health").returncode, 1)
            lease = daemon.call("acquire", template="t", timeout_ms=30000)
            self.assertEqual(lease["state"], "active")
            self.assertEqual(daemon.pool("t")["parked"], 0)
            self.assertEqual(daemon.log_text().count("memory is short"), 1)

    def test_there_is_no_floor_when_there_is_none(self):
        with tiny_daemon("default_target = 2\nmemory_floor_percent = 0\n") as daemon:
            daemon.call("pool.set", template="t", target=2)
            wait_for(lambda: daemon.pool("t")["parked"] == 2, 30, "two are parked")
            self.assertIsNone(daemon.pool("t")["pressure"])
            self.assertEqual(daemon.call("health")["status"], "ok")


if __name__ == "__main__":
    tap_main()
