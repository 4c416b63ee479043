# SPDX-License-Identifier: Apache-2.0
"""Sandboxes of a snapshot whose memory is not loaded yet; helper programs that are killed."""

import concurrent.futures
import os
import pathlib
import signal
import time
import unittest

from harness import Daemon, children, connect_agent, fds, store_with, tap_main, wait_for

# A MiB a second in the background: the image stays incomplete for as long as these tests run.
SLOWLY = "default_target = 0\nfill_limit_mib = 1\n"


def drop_cache(store, template):
    """Takes the snapshot's files out of the page cache."""
    for path in (store / "templates" / template).resolve().iterdir():
        with open(path, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def kill_helper(daemon, name):
    """Kills a helper and waits until there is another."""
    old = daemon.helper(name)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: daemon.helper(name) not in (old, None), 2, f"another {name}", interval=0.001)


def restore_many(daemon, count, disturb=lambda: None):
    """So many leases, asked for at once, and how long the last one took."""

    def acquire(_):
        return daemon.call("acquire", template="tiny", timeout_ms=60000)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        start = time.monotonic()
        futures = [pool.submit(acquire, i) for i in range(count)]
        disturb()
        leases = [f.result() for f in futures]
        return leases, time.monotonic() - start


class Lazy(unittest.TestCase):
    def assert_values(self, leases):
        """Each runs a command of its own."""
        agents = [connect_agent(lease["socket"], timeout=120) for lease in leases]
        requests = [a.send("exec", {"argv": ["/bin/echo", str(i * 7919)], "stdin": False}) for i, a in enumerate(agents)]
        for i, (agent, request) in enumerate(zip(agents, requests)):
            self.assertEqual(agent.wait(request), {"code": 0})
            self.assertEqual(agent.output(request, "stdout").decode().strip(), str(i * 7919))
            agent.close()

    def test_the_first_is_parked_before_the_image_is_there(self):
        store = store_with("tiny")
        drop_cache(store, "tiny")
        with Daemon(store, pool=SLOWLY) as daemon:
            daemon.fill("tiny", 1)
            pool = daemon.pool("tiny")
            self.assertFalse(pool["image_complete"], pool)
            self.assertEqual(pool["failed_total"], 0, pool["last_error"])
            lease = daemon.call("acquire", template="tiny")
            self.assert_values([lease])
            pool = daemon.pool("tiny")
            self.assertFalse(pool["image_complete"], pool)
            self.assertGreater(pool["faults_total"] + pool["image_filled_bytes"], 0)

    def test_a_complete_image_is_told(self):
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            daemon.fill("tiny", 1)
            wait_for(lambda: daemon.pool("tiny")["image_complete"], 30, "the image is complete")
            pool = daemon.pool("tiny")
            self.assertGreater(pool["image_filled_bytes"], 1 << 20)
            self.assertLess(pool["image_filled_bytes"], pool["image_bytes"])

    def test_a_killed_pager_is_not_noticed(self):
        store = store_with("tiny")
        count = 64

        def kills(daemon):
            for _ in range(3):
                wait_for(lambda: daemon.pool("tiny")["restoring"] > 0, 10, "restores are under way", interval=0.001)
                time.sleep(0.05)
                self.assertFalse(daemon.pool("tiny")["image_complete"])
                kill_helper(daemon, "warmbox-pager")

        elapsed = {}
        for disturbed in (False, True):
            drop_cache(store, "tiny")
            with Daemon(store, pool=SLOWLY + f"restore_concurrency = {count}\n") as daemon:
                leases, elapsed[disturbed] = restore_many(
                    daemon, count, (lambda: kills(daemon)) if disturbed else lambda: None
                )
                pool = daemon.pool("tiny")
                self.assertEqual(pool["failed_total"] + pool["died_total"], 0, pool["last_error"])
                self.assertEqual(daemon.call("health")["status"], "ok")
                # A few at a time: where guests' kernels are interpreted, the ticks of 64 that run take all there is.
                # Every fourth, to be done in half a minute.
                some = leases[::4] if disturbed else []
                for i in range(0, len(some), 4):
                    self.assert_values(some[i : i + 4])
        print(f"# {count} restored at once in {elapsed[False]:.2f} s, with three kills in {elapsed[True]:.2f} s")
        # Two seconds for the kills, a quarter for what two such runs differ by.
        self.assertLess(elapsed[True], elapsed[False] * 1.25 + 2)


class Spawner(unittest.TestCase):
    def test_a_killed_spawner_leaves_nothing_behind(self):
        with Daemon(store_with("tiny"), pool="default_target = 0\nrestore_concurrency = 4\n") as daemon:
            daemon.fill("tiny", 2)
            wait_for(lambda: daemon.pool("tiny")["image_complete"], 30, "the image is complete")
            pid = daemon.process.pid
            mounts = pathlib.Path("/proc/self/mountinfo").read_text()
            before = {"fds": fds(pid), "children": len(children(pid)), "runtime": len(list(daemon.runtime.iterdir()))}

            def kills():
                for _ in range(3):
                    kill_helper(daemon, "warmbox-spawner")
                    time.sleep(0.05)

            leases, _ = restore_many(daemon, 8, kills)
            self.assertEqual(len({lease["pid"] for lease in leases}), 8)
            for lease in leases:
                daemon.call("release", lease=lease["lease"])
            wait_for(lambda: daemon.pool("tiny")["parked"] == 2, 30, "refilled")
            wait_for(lambda: len(children(pid)) == before["children"], 10, "the released ones are gone")
            wait_for(
                lambda: all(n <= before["fds"].get(kind, 0) for kind, n in fds(pid).items()),
                5,
                lambda: f"no descriptor more than {before['fds']}, now {fds(pid)}",
            )
            self.assertEqual(len(list(daemon.runtime.iterdir())), before["runtime"])
            self.assertEqual(daemon.pool("tiny")["failed_total"], 0, daemon.pool("tiny")["last_error"])
            self.assertEqual(pathlib.Path("/proc/self/mountinfo").read_text(), mounts)

    def test_it_has_few_mounts(self):
        if os.geteuid() != 0:
            self.skipTest("only root has mount namespaces")
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            wait_for(lambda: daemon.helper("warmbox-spawner"), 5, "there is a spawner")
            spawner = daemon.helper("warmbox-spawner")
            if os.readlink(f"/proc/{spawner}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
                self.skipTest("it may not have a mount namespace of its own here")
            points = {
                line.split()[4] for line in pathlib.Path(f"/proc/{spawner}/mountinfo").read_text().splitlines()
            }
            for point in points:
                self.assertRegex(point, r"^(/|/dev(/kvm)?|/usr|/lib(64)?|/(proc|sys)(/.*)?)$")


tap_main()
