# SPDX-License-Identifier: Apache-2.0
"""Sandboxes are handed out once, isolated from each other, destroyed without a trace."""

import concurrent.futures
import hashlib
import os
import pathlib
import signal
import time
import unittest

from harness import Daemon, connect_agent, fds, mem_available_kib, store_with, tap_main, wait_for


def image_memfds(pid):
    """The image memfds that the process holds, by inode, as paths that can be read."""
    found = {}
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(entry).startswith("/memfd:warmbox-image"):
                found[os.stat(entry).st_ino] = entry
        except FileNotFoundError:
            pass
    return found


def content_digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class Isolation(unittest.TestCase):
    def test_fifty_at_once_write_the_same_place(self):
        with Daemon(store_with("python")) as daemon:
            daemon.fill("python", 1)
            images = image_memfds(daemon.process.pid)
            self.assertEqual(len(images), 1)
            path = next(iter(images.values()))
            before = content_digest(path)
            leases = [daemon.call("acquire", template="python", timeout_ms=60000) for _ in range(50)]
            daemon.call("pool.set", template="python", target=0)
            agents = [connect_agent(lease["socket"], timeout=240) for lease in leases]

            # The interpreter's objects of the snapshot lie at the same guest addresses in all of them.
            code = (
                "import random, time\n"
                "value = VALUE\n"
                "page = bytearray([value]) * 16384\n"
                "random.marker = value\n"
                "time.sleep(1)\n"
                "print(id(random.Random), random.marker, set(page))\n"
            )
            requests = []
            for number, agent in enumerate(agents):
                request = agent.send("resident")
                agent.notify("stdin", {"id": request, "data": code.replace("VALUE", str(number)).encode()})
                agent.notify("stdin", {"id": request, "data": b""})
                requests.append(request)
            addresses = set()
            for number, (agent, request) in enumerate(zip(agents, requests)):
                result = agent.wait(request)
                self.assertEqual(result, {"code": 0}, agent.output(request, "stderr"))
                address, marker, values = agent.output(request, "stdout").decode().strip().split(" ", 2)
                addresses.add(address)
                self.assertEqual(int(marker), number)
                self.assertEqual(values, f"{{{number}}}")
            self.assertEqual(len(addresses), 1, "the same guest pages")
            self.assertEqual(content_digest(path), before)
            self.assertEqual(daemon.pool("python")["failed_total"], 0, daemon.pool("python")["last_error"])
            for agent in agents:
                agent.close()


class Cycles(unittest.TestCase):
    def test_two_hundred_cycles_leave_nothing(self):
        with Daemon(store_with("tiny"), pool="default_target = 2\n") as daemon:
            daemon.fill("tiny", 2)
            # One cycle first: what is made once (buffers, remembered leases) is not a leak.
            daemon.call("release", lease=daemon.call("acquire", template="tiny")["lease"])
            wait_for(lambda: daemon.pool("tiny")["parked"] == 2, 60, "refilled")
            wait_for(lambda: len(daemon.vmms()) == 2, 10, "the released one is gone")

            pid = daemon.process.pid
            before = {
                "fds": fds(pid),
                "vmms": len(daemon.vmms()),
                "mounts": pathlib.Path(f"/proc/{pid}/mountinfo").read_text().count("\n"),
                "files": sorted(p.name for p in daemon.directory.iterdir()),
                "runtime": len(list(daemon.runtime.rglob("*"))),
            }
            memory_before = mem_available_kib()

            seen = set()
            for _ in range(200):
                lease = daemon.call("acquire", template="tiny", timeout_ms=60000)
                seen.add((lease["lease"], lease["pid"], lease["socket"]))
                daemon.call("release", lease=lease["lease"])
            self.assertEqual(len(seen), 200)
            self.assertEqual(len({s[0] for s in seen}), 200)
            self.assertEqual(len({s[2] for s in seen}), 200)

            wait_for(lambda: daemon.pool("tiny")["parked"] == 2, 60, "refilled")
            wait_for(lambda: len(daemon.vmms()) == 2, 10, "the released ones are gone")
            wait_for(lambda: fds(pid) == before["fds"], 5, lambda: f"the same descriptors: {before['fds']}, now {fds(pid)}")
            after = {
                "fds": fds(pid),
                "vmms": len(daemon.vmms()),
                "mounts": pathlib.Path(f"/proc/{pid}/mountinfo").read_text().count("\n"),
                "files": sorted(p.name for p in daemon.directory.iterdir()),
                "runtime": len(list(daemon.runtime.rglob("*"))),
            }
            self.assertEqual(after, before)
            # Not one of the restores behind them failed, not even to be tried again.
            pool = daemon.pool("tiny")
            self.assertEqual(pool["failed_total"], 0, pool["last_error"])
            self.assertGreaterEqual(pool["restored_total"], 203)
            # Noise here is a few MiB; 200 leaked sandboxes would be hundreds.
            wait_for(lambda: memory_before - mem_available_kib() < 32 * 1024, 20, "memory is back")


class Deaths(unittest.TestCase):
    def test_kill_of_a_vmm_ends_its_lease_and_refills(self):
        with Daemon(store_with("tiny")) as daemon:
            daemon.fill("tiny", 1)
            lease = daemon.call("acquire", template="tiny")
            os.kill(lease["pid"], signal.SIGKILL)
            wait_for(lambda: daemon.call("get", lease=lease["lease"])["state"] == "ended", 5, "the lease ends")
            self.assertEqual(daemon.call("get", lease=lease["lease"])["cause"], "vmm_died")
            self.assertFalse(os.path.exists(lease["socket"]))
            wait_for(lambda: daemon.pool("tiny")["parked"] == 1, 60, "refilled")

            # The same for one that is parked.
            (parked,) = daemon.vmms()
            os.kill(parked, signal.SIGKILL)
            wait_for(lambda: daemon.vmms() not in ([parked], []), 30, "another takes its place")
            wait_for(lambda: daemon.pool("tiny")["parked"] == 1, 60, "refilled")

    def test_sigterm_ends_everything(self):
        with Daemon(store_with("tiny"), pool="default_target = 3\n") as daemon:
            daemon.fill("tiny", 3)
            lease = daemon.call("acquire", template="tiny")
            pids = daemon.vmms()
            agent = connect_agent(lease["socket"])
            self.assertLess(daemon.stop(), 5)
            self.assertEqual(daemon.process.returncode, 0)
            for pid in pids:
                self.assertFalse(os.path.exists(f"/proc/{pid}"), pid)
            self.assertFalse(os.path.exists(daemon.socket))
            self.assertEqual(list(daemon.runtime.rglob("*")) if daemon.runtime.exists() else [], [])
            agent.close()

    def test_ttl_ends_a_lease(self):
        with Daemon(store_with("tiny")) as daemon:
            daemon.fill("tiny", 1)
            lease = daemon.call("acquire", template="tiny", ttl_ms=300)
            wait_for(lambda: daemon.call("get", lease=lease["lease"])["state"] == "ended", 5, "the lease ends")
            self.assertEqual(daemon.call("get", lease=lease["lease"])["cause"], "expired")

    def test_guest_reset_ends_a_lease(self):
        with Daemon(store_with("tiny")) as daemon:
            daemon.fill("tiny", 1)
            lease = daemon.call("acquire", template="tiny")
            with connect_agent(lease["socket"]) as agent:
                agent.send("exec", {"argv": ["/bin/sh", "-c", "echo b > /proc/sysrq-trigger; reboot -f"]})
                wait_for(lambda: daemon.call("get", lease=lease["lease"])["state"] == "ended", 60, "the lease ends")
            self.assertEqual(daemon.call("get", lease=lease["lease"])["cause"], "guest_exited")


class Waiting(unittest.TestCase):
    def test_empty_pool_waits_until_the_deadline(self):
        with Daemon(store_with("never-reseeds"), pool="default_target = 1\nidentity_timeout_ms = 60000\n") as daemon:
            daemon.call("pool.set", template="never-reseeds", target=1)
            start = time.monotonic()
            with self.assertRaises(Exception) as caught:
                daemon.call("acquire", template="never-reseeds", timeout_ms=700)
            elapsed = time.monotonic() - start
            self.assertEqual(caught.exception.code, "deadline_exceeded")
            self.assertIn("never-reseeds", caught.exception.message)
            self.assertGreaterEqual(elapsed, 0.7)
            self.assertLess(elapsed, 1.5)

    def test_a_miss_is_served_when_a_sandbox_is_ready(self):
        with Daemon(store_with("tiny")) as daemon:
            with concurrent.futures.ThreadPoolExecutor(6) as threads:
                calls = [
                    threads.submit(daemon.call, "acquire", template="tiny", timeout_ms=60000) for _ in range(6)
                ]
                leases = {call.result()["lease"] for call in calls}
            self.assertEqual(len(leases), 6)


if __name__ == "__main__":
    tap_main()
