# SPDX-License-Identifier: Apache-2.0
"""A manager that dies does not take what its clients use with it; its successor goes on with it."""

import os
import pathlib
import signal
import socket
import time
import unittest

from harness import Daemon, RpcError, connect_agent, program, store_with, tap_main, wait_for

LEASES = 20
AT_ONCE = 4  # guests that work: where guest kernels are interpreted each takes a processor


def drop_cache(store, template):
    for path in (store / "templates" / template).resolve().iterdir():
        with open(path, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def gone(pid):
    """The process has ended; one that nobody has reaped counts."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def alive(pid):
    return not gone(pid) and program(pid) == "warmbox-vmm"


class Case(unittest.TestCase):
    def crash(self, daemon):
        """Kills the manager. The pids of all that it had started, VMMs and helpers."""
        vmms = daemon.vmms()
        helpers = [daemon.helper("warmbox-pager"), daemon.helper("warmbox-spawner")]
        daemon.stop(signal.SIGKILL)
        return vmms, [pid for pid in helpers if pid]

    def restart(self, daemon):
        start = time.monotonic()
        daemon.start()
        return time.monotonic() - start

    def assert_nothing_left(self, daemon, pids):
        """After an orderly stop."""
        daemon.stop()
        wait_for(lambda: all(gone(pid) for pid in pids), 10, lambda: f"{[p for p in pids if not gone(p)]} are gone")
        self.assertEqual(list(daemon.runtime.rglob("*")) if daemon.runtime.exists() else [], [])

    def get(self, daemon, lease):
        return daemon.call("get", lease=lease["lease"])


class Successor(Case):
    def test_leases_go_on(self):
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            leases = [
                daemon.call("acquire", template="tiny", timeout_ms=60000, ttl_ms=600000, labels={"n": str(n)})
                for n in range(LEASES)
            ]
            agents, requests = [], []
            for n in range(0, LEASES, AT_ONCE):
                some = [connect_agent(lease["socket"], timeout=240) for lease in leases[n : n + AT_ONCE]]
                for i, agent in enumerate(some, n):
                    # A process that is there before the crash, and says what it was given after it.
                    requests.append(agent.send("exec", {"argv": ["/bin/sh", "-c", f"echo at; read x; echo $x {i}"], "stdin": True}))
                for agent, request in zip(some, requests[n:]):
                    while b"at" not in agent.output(request, "stdout"):
                        agent.notifications.append(agent.receive())
                agents += some
            before = [self.get(daemon, lease) for lease in leases]
            vmms, helpers = self.crash(daemon)
            self.assertEqual(len(vmms), LEASES)
            took = self.restart(daemon)
            self.assertTrue(all(alive(lease["pid"]) for lease in leases))
            for n in range(0, LEASES, AT_ONCE):
                for i in range(n, min(n + AT_ONCE, LEASES)):
                    agents[i].notify("stdin", {"id": requests[i], "data": f"value{i * 7919}\n".encode()})
                    agents[i].notify("stdin", {"id": requests[i], "data": b""})
                for i in range(n, min(n + AT_ONCE, LEASES)):
                    self.assertEqual(agents[i].wait(requests[i]), {"code": 0})
                    self.assertEqual(agents[i].output(requests[i], "stdout").decode(), f"at\nvalue{i * 7919} {i}\n")
            listed = {lease["lease"]: lease for lease in daemon.call("list")["leases"]}
            self.assertEqual(set(listed), {lease["lease"] for lease in leases})
            for old in before:
                new = listed[old["lease"]]
                for key in ("template", "snapshot", "socket", "pid", "acquired_ns", "ttl_ms", "labels", "state"):
                    self.assertEqual(new[key], old[key], key)
            # Handed out once: what is acquired now is something else.
            other = daemon.call("acquire", template="tiny", timeout_ms=60000)
            self.assertNotIn(other["lease"], listed)
            self.assertNotIn(other["pid"], [lease["pid"] for lease in leases])
            for lease in leases:
                daemon.call("release", lease=lease["lease"])
                self.assertEqual(self.get(daemon, lease)["cause"], "released")
            wait_for(lambda: not any(alive(pid) for pid in vmms), 10, "the released ones are gone")
            print(f"# {LEASES} leases: a new manager answers {took * 1000:.0f} ms after it is started", flush=True)
            for agent in agents:
                agent.close()
            self.assert_nothing_left(daemon, vmms + helpers)

    def test_a_successor_of_a_successor(self):
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            lease = daemon.call("acquire", template="tiny", timeout_ms=60000)
            pids = []
            for _ in range(3):
                vmms, helpers = self.crash(daemon)
                pids += vmms + helpers
                self.restart(daemon)
                self.assertEqual(self.get(daemon, lease)["state"], "active")
            with connect_agent(lease["socket"], timeout=120) as agent:
                self.assertEqual(agent.run("/bin/echo", "still")[1], b"still\n")
            self.assert_nothing_left(daemon, pids + [lease["pid"]])

    def test_ends_that_came_before(self):
        """What was released, has expired or was bound does not come back; a VM that died meanwhile is lost."""
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            released, short, dies, stays = (
                daemon.call("acquire", template="tiny", timeout_ms=60000, ttl_ms=ttl) for ttl in (0, 3000, 0, 0)
            )
            client = daemon.connect()
            bound = client.call("acquire", template="tiny", timeout_ms=60000, bind=True)
            daemon.call("release", lease=released["lease"])
            vmms, helpers = self.crash(daemon)
            os.kill(dies["pid"], signal.SIGKILL)
            wait_for(lambda: gone(dies["pid"]), 5, "it is dead")
            time.sleep(3)
            self.restart(daemon)
            client.close()
            self.assertEqual(self.get(daemon, bound)["cause"], "client_gone")
            self.assertEqual(self.get(daemon, dies)["cause"], "lost")
            wait_for(lambda: self.get(daemon, short)["state"] == "ended", 5, "its time is over")
            self.assertEqual(self.get(daemon, short)["cause"], "expired")
            with self.assertRaises(RpcError):
                self.get(daemon, released)
            self.assertEqual(self.get(daemon, stays)["state"], "active")
            wait_for(lambda: [pid for pid in vmms if alive(pid)] == [stays["pid"]], 5, "one is left")
            self.assert_nothing_left(daemon, vmms + helpers)

    def test_what_is_not_leased_ends(self):
        """Killed while VMs start, are restored and are parked; one of them is stuck."""
        with Daemon(store_with("tiny"), pool="default_target = 0\nrestore_concurrency = 2\ndefault_shells = 2\n") as daemon:
            daemon.fill("tiny", 2)
            parked = daemon.vmms()
            os.kill(parked[0], signal.SIGSTOP)
            daemon.call("pool.set", template="tiny", target=6)
            wait_for(lambda: len(daemon.vmms()) > len(parked), 5, "some start", interval=0.001)
            vmms, helpers = self.crash(daemon)
            self.restart(daemon)
            wait_for(lambda: all(gone(pid) for pid in vmms), 10, "all are gone")
            daemon.fill("tiny", 1)
            self.assert_nothing_left(daemon, vmms + helpers)

    def test_nobody_comes(self):
        with Daemon(store_with("tiny"), pool="default_target = 0\n", extra_config="[daemon]\norphan_timeout_s = 1\n") as daemon:
            lease = daemon.call("acquire", template="tiny", timeout_ms=60000)
            vmms, helpers = self.crash(daemon)
            wait_for(lambda: all(gone(pid) for pid in vmms + helpers), 10, "all have ended by themselves")
            self.restart(daemon)
            self.assertEqual(self.get(daemon, lease)["cause"], "lost")
            self.assert_nothing_left(daemon, vmms + helpers)


class Lazy(Case):
    """Leased before the image is there."""

    def lease_slowly(self, daemon):
        lease = daemon.call("acquire", template="tiny", timeout_ms=60000)
        self.assertFalse(daemon.pool("tiny")["image_complete"])
        return lease

    def test_the_pager_goes_on(self):
        store = store_with("tiny")
        drop_cache(store, "tiny")
        with Daemon(store, pool="default_target = 0\nfill_limit_mib = 1\n") as daemon:
            lease = self.lease_slowly(daemon)
            vmms, helpers = self.crash(daemon)
            self.restart(daemon)
            with connect_agent(lease["socket"], timeout=120) as agent:
                self.assertEqual(agent.run("/bin/echo", "whole")[1], b"whole\n")
            wait_for(lambda: all(gone(pid) for pid in helpers), 10, "the pager has ended")
            time.sleep(0.5)
            self.assertEqual(self.get(daemon, lease)["state"], "active")
            self.assert_nothing_left(daemon, vmms + helpers)

    def test_the_pager_is_dead_too(self):
        store = store_with("tiny")
        drop_cache(store, "tiny")
        with Daemon(store, pool="default_target = 0\nfill_limit_mib = 1\n") as daemon:
            lease = self.lease_slowly(daemon)
            pager = daemon.helper("warmbox-pager")
            daemon.process.send_signal(signal.SIGSTOP)
            os.kill(pager, signal.SIGKILL)
            vmms, helpers = self.crash(daemon)
            start = time.monotonic()
            self.restart(daemon)
            wait_for(lambda: self.get(daemon, lease)["state"] == "ended", 15, "the lease ends")
            self.assertEqual(self.get(daemon, lease)["cause"], "lost")
            print(f"# a lease whose memory cannot be completed is lost after {time.monotonic() - start:.2f} s", flush=True)
            self.assert_nothing_left(daemon, vmms + helpers)


class Journal(Case):
    def test_cut_and_damaged(self):
        """What can be read is used; the rest is said, and ends when nobody comes."""
        with Daemon(store_with("tiny"), pool="default_target = 0\n", extra_config="[daemon]\norphan_timeout_s = 2\n") as daemon:
            first, second, third = (daemon.call("acquire", template="tiny", timeout_ms=60000) for _ in range(3))
            vmms, helpers = self.crash(daemon)
            path = daemon.runtime / "journal"
            content = bytearray(path.read_bytes())
            records = []
            at = content.find(b"WBJR")
            while at >= 0:
                records.append((content[at + 4], at))
                at = content.find(b"WBJR", at + 1)
            leased = [at for kind, at in records if kind == 3]
            self.assertEqual(len(leased), 3)
            content[leased[1] + 40] ^= 1
            path.write_bytes(content[: leased[2] + 40])
            self.restart(daemon)
            self.assertEqual(self.get(daemon, first)["state"], "active")
            # It serves nobody before it has read the journal.
            self.assertIn("damaged", daemon.log_text())
            for lease in (second, third):
                with self.assertRaises(RpcError):
                    self.get(daemon, lease)
                wait_for(lambda: gone(lease["pid"]), 10, "it is killed: it was started, and not leased")
                self.assertFalse(os.path.exists(lease["socket"]))
            self.assert_nothing_left(daemon, vmms + helpers)

    def test_not_a_journal(self):
        with Daemon(store_with("tiny"), pool="default_target = 0\n", extra_config="[daemon]\norphan_timeout_s = 1\n") as daemon:
            daemon.call("acquire", template="tiny", timeout_ms=60000)
            vmms, helpers = self.crash(daemon)
            (daemon.runtime / "journal").write_bytes(os.urandom(5000))
            self.restart(daemon)
            self.assertIn("what was leased is lost", daemon.log_text())
            wait_for(lambda: all(gone(pid) for pid in vmms), 10, "its VM ends by itself")
            self.assert_nothing_left(daemon, vmms + helpers)

    def test_another_process_has_the_pid(self):
        """A pid of the journal that is another process now is left alone."""
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            lease = daemon.call("acquire", template="tiny", timeout_ms=60000)
            vmms, helpers = self.crash(daemon)
            os.kill(lease["pid"], signal.SIGKILL)
            wait_for(lambda: gone(lease["pid"]), 5, "it is dead")
            bystander = None
            try:
                bystander = self.take_pid(lease["pid"])
                if bystander is None:
                    self.skipTest("a process cannot be given a pid of choice here")
                self.restart(daemon)
                self.assertEqual(self.get(daemon, lease)["cause"], "lost")
                self.assertFalse(gone(bystander))
                self.assert_nothing_left(daemon, helpers)
                self.assertFalse(gone(bystander))
            finally:
                if bystander:
                    os.kill(bystander, signal.SIGKILL)
                    os.waitpid(bystander, 0)

    def take_pid(self, pid):
        """A child of this process with that pid, or None."""
        try:
            pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        except OSError:
            return None
        child = os.fork()
        if child == 0:
            while True:
                signal.pause()
        if child == pid:
            return child
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None

    def test_a_place_that_cannot_be_written(self):
        """Nothing is leased that a successor would not know; health says why."""
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            pass
        with Daemon(store_with("tiny"), pool="default_target = 0\n", extra_config="[daemon]\njournal = /proc/nowhere/journal\n") as daemon:
            with self.assertRaises(RpcError) as caught:
                daemon.call("acquire", template="tiny", timeout_ms=5000)
            self.assertEqual(caught.exception.code, "unavailable")
            self.assertIn("journal", caught.exception.message)
            self.assertEqual(daemon.call("health")["status"], "degraded")


tap_main()
