# SPDX-License-Identifier: Apache-2.0
"""Two sandboxes of one snapshot have nothing random in common, and each knows what time it is."""

import itertools
import json
import time
import unittest

from harness import Daemon, connect_agent, store_with, tap_main, wait_for

CLONES = 30

PROBE = r"""
import json, os, random, secrets, ssl, uuid
print(json.dumps({
    "getrandom": os.getrandom(32).hex(),
    "uuid": open("/proc/sys/kernel/random/uuid").read().strip(),
    "boot_id": open("/proc/sys/kernel/random/boot_id").read().strip(),
    "machine_id": open("/etc/machine-id").read().strip(),
    "hostname": os.uname().nodename,
    "random": random.getrandbits(256),
    "secrets": secrets.token_hex(32),
    "uuid4": str(uuid.uuid4()),
    "openssl": ssl.RAND_bytes(32).hex(),
    "tempname": __import__("tempfile").mktemp(),
}))
"""


class Unique(unittest.TestCase):
    def test_thirty_clones_share_no_randomness(self):
        with Daemon(store_with("python")) as daemon:
            probes = []
            for _ in range(CLONES):
                lease = daemon.call("acquire", template="python", timeout_ms=60000)
                with connect_agent(lease["socket"]) as agent:
                    result, out, err = agent.resident(PROBE)
                    self.assertEqual(result, {"code": 0}, err)
                    probes.append(json.loads(out))
                daemon.call("release", lease=lease["lease"])
            for key in probes[0]:
                values = [probe[key] for probe in probes]
                self.assertEqual(len(set(values)), CLONES, f"{key}: {values}")
            # No value of one kind shows up as another: a reseed that hands the same bytes to two generators.
            flat = list(itertools.chain.from_iterable(map(str, probe.values()) for probe in probes))
            self.assertEqual(len(set(flat)), len(flat))

    def test_without_reseed_it_is_never_parked(self):
        with Daemon(
            store_with("never-reseeds"), pool="default_target = 1\nidentity_timeout_ms = 1500\n"
        ) as daemon:
            daemon.call("pool.set", template="never-reseeds", target=1)
            ever_parked = []

            def failed_twice():
                pool = daemon.pool("never-reseeds")
                ever_parked.append(pool["parked"])
                return pool["failed_total"] >= 2

            wait_for(failed_twice, 60, "two restores fail")
            self.assertEqual(set(ever_parked), {0})
            self.assertIn("identity", daemon.pool("never-reseeds")["last_error"])
            wait_for(lambda: daemon.call("health")["status"] == "degraded", 60, "the daemon says that it is degraded")
            self.assertEqual(daemon.pool("never-reseeds")["parked"], 0)


class Clock(unittest.TestCase):
    def test_wall_clock_after_an_hour(self):
        with Daemon(store_with("hour-old")) as daemon:
            daemon.fill("hour-old", 1)
            lease = daemon.call("acquire", template="hour-old")
            with connect_agent(lease["socket"]) as agent:
                # The program prints its clock, then waits: what it printed is as old as the way to us takes.
                request = agent.send(
                    "exec",
                    {
                        "argv": [
                            "/usr/bin/python3",
                            "-c",
                            "import sys, time\n"
                            "for _ in range(5):\n"
                            "    sys.stdin.readline()\n"
                            "    print(time.time_ns(), time.monotonic_ns(), flush=True)\n",
                        ],
                        "stdin": True,
                    },
                )
                offsets, monotonic = [], []
                for turn in range(5):
                    before = time.time_ns()
                    agent.notify("stdin", {"id": request, "data": b"\n"})
                    have = len(agent.notifications)
                    while len(agent.notifications) == have:
                        message = agent.receive()
                        self.assertEqual(message[0], 2, message)
                        agent.notifications.append(message)
                    after = time.time_ns()
                    wall, mono = map(int, agent.notifications[-1][2][0]["data"].split())
                    # The guest read its clock between before and after.
                    offsets.append(max(before - wall, wall - after, 0))
                    monotonic.append(mono)
                self.assertEqual(agent.wait(request), {"code": 0})
            self.assertLess(max(offsets), 50_000_000, f"ns off: {offsets}")
            self.assertEqual(monotonic, sorted(monotonic))

    def test_monotonic_clock_never_goes_back(self):
        """The resident reads its clock before the snapshot (at import) and after it."""
        with Daemon(store_with("python")) as daemon:
            for _ in range(3):
                lease = daemon.call("acquire", template="python", timeout_ms=60000)
                with connect_agent(lease["socket"]) as agent:
                    result, out, err = agent.resident(
                        "import os, time\n"
                        "stat = open('/proc/self/stat').read().rsplit(')', 1)[1].split()\n"
                        "started = int(stat[19]) / os.sysconf('SC_CLK_TCK')\n"
                        "reads = [time.clock_gettime(time.CLOCK_BOOTTIME) for _ in range(200)]\n"
                        "reads2 = [time.monotonic() for _ in range(200)]\n"
                        "print(started <= reads[0], reads == sorted(reads), reads2 == sorted(reads2))\n"
                    )
                    self.assertEqual((result, out.split()), ({"code": 0}, [b"True"] * 3), err)
                daemon.call("release", lease=lease["lease"])

    def test_a_parked_sandbox_keeps_the_time(self):
        with Daemon(store_with("python")) as daemon:
            daemon.fill("python", 1)
            time.sleep(3)
            lease = daemon.call("acquire", template="python")
            with connect_agent(lease["socket"]) as agent:
                before = time.time()
                result, out, err = agent.resident("import time; print(time.time())")
                after = time.time()
                self.assertEqual(result, {"code": 0}, err)
                self.assertGreater(float(out), before - 0.05)
                self.assertLess(float(out), after + 0.05)


if __name__ == "__main__":
    tap_main()
