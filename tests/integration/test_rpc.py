# SPDX-License-Identifier: Apache-2.0
"""Hostile and careless clients: a typed error or a closed connection, never a leak, never a dead daemon."""

import os
import random
import socket
import time
import unittest

import msgpack

from harness import Agent, Daemon, RpcError, as_user, connect_agent, fds, store_with, tap_main, wait_for

USER, OTHER_USER = 65533, 65534


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(store_with("tiny")).start()
        cls.daemon.fill("tiny", 1)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.__exit__(None)

    def assertAlive(self):
        self.assertIsNone(self.daemon.process.poll())
        self.assertEqual(self.daemon.call("health")["status"], "ok")

    def refused(self, code, method, **params):
        with self.assertRaises(RpcError) as caught:
            self.daemon.call(method, **params)
        self.assertEqual(caught.exception.code, code, caught.exception)
        return caught.exception.message

    def raw(self, data, timeout=20):
        """Sends bytes, closes the sending side, returns all that comes back."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(self.daemon.socket)
        answer = b""
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while True:
                piece = sock.recv(65536)
                if not piece:
                    break
                answer += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
        sock.close()
        return answer

    def test_typed_errors(self):
        self.assertIn("no_such_method", self.refused("unknown_method", "no_such_method"))
        self.assertIn("template", self.refused("invalid_argument", "acquire"))
        self.assertIn("template", self.refused("invalid_argument", "acquire", template=7))
        self.assertIn("timeout_ms", self.refused("invalid_argument", "acquire", template="tiny", timeout_ms="soon"))
        self.assertIn("timeout_ms", self.refused("invalid_argument", "acquire", template="tiny", timeout_ms=-1))
        self.assertIn("memroy", self.refused("invalid_argument", "acquire", template="tiny", memroy=1))
        self.assertIn("labels", self.refused("invalid_argument", "acquire", template="tiny", labels={"a": 1}))
        self.assertIn("nothing-here", self.refused("not_found", "acquire", template="nothing-here"))
        self.refused("invalid_argument", "acquire", template="../../etc")
        self.refused("not_found", "release", lease="0" * 32)
        self.refused("not_found", "get", lease="x")
        self.refused("not_found", "template.inspect", name="nothing-here")
        self.refused("invalid_argument", "pool.set", template="tiny", target=10**9)
        self.refused("invalid_argument", "list", state="sleeping")
        self.assertAlive()

    def test_errors_keep_the_connection(self):
        with self.daemon.connect() as rpc:
            for _ in range(3):
                with self.assertRaises(RpcError):
                    rpc.call("nonsense")
            self.assertEqual(rpc.call("health")["status"], "ok")

    def test_oversized_truncated_nested(self):
        huge = msgpack.packb([0, 1, "acquire", [{"template": "x" * (1 << 20)}]])
        self.raw(huge)
        self.raw(b"\xdd\xff\xff\xff\xff")  # an array of four billion
        self.raw(b"\xc6\xff\xff\xff\xff")  # four gigabytes of bin
        self.raw(b"\x91" * 100000)  # nested a hundred thousand deep
        whole = msgpack.packb([0, 1, "health", [{}]])
        for cut in range(len(whole)):
            self.raw(whole[:cut])
        self.assertAlive()

    def test_a_thousand_random_streams(self):
        seed = int.from_bytes(os.urandom(4), "little")
        print(f"# seed {seed}")
        rng = random.Random(seed)
        wait_for(lambda: self.daemon.pool("tiny")["parked"] == 1, 60, "the pool is full")
        time.sleep(0.5)  # connections of the test before are closed
        before = fds(self.daemon.process.pid)
        good = msgpack.packb([0, 1, "health", [{}]])
        for turn in range(1000):
            data = rng.randbytes(rng.randrange(1, 2000))
            if turn % 3 == 1:  # a good message with a few bytes turned
                data = bytearray(good * 3)
                for _ in range(rng.randrange(1, 6)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            self.raw(bytes(data))
        self.assertAlive()
        wait_for(
            lambda: fds(self.daemon.process.pid) == before,
            10,
            lambda: f"the same descriptors: {before}, now {fds(self.daemon.process.pid)}",
        )

    def test_clients_that_vanish(self):
        """At each step of acquire: before the request is whole, before the answer, with the answer unread, half read."""
        request = msgpack.packb([0, 1, "acquire", [{"template": "tiny", "timeout_ms": 30000}]])

        def vanish(step):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.daemon.socket)
            sock.sendall(request[:-1] if step == "incomplete" else request)
            if step == "while waiting":
                time.sleep(0.02)
            if step == "answer unread":
                time.sleep(0.5)
            if step == "half read":
                sock.settimeout(60)
                sock.recv(1)
            sock.close()

        for step in ("incomplete", "at once", "while waiting", "answer unread", "half read") * 4:
            vanish(step)
        wait_for(
            lambda: self.daemon.call("list")["leases"] == [], 90, lambda: f"no lease is left: {self.daemon.call('list')}"
        )
        wait_for(lambda: self.daemon.pool("tiny")["parked"] == 1, 90, "the pool is full again")
        self.assertEqual(self.daemon.pool("tiny")["waiting"], 0)
        wait_for(lambda: len(self.daemon.vmms()) == 1, 10, "no sandbox is left")
        self.assertAlive()

    def test_bound_lease_ends_with_its_connection(self):
        with self.daemon.connect() as rpc:
            lease = rpc.call("acquire", template="tiny", bind=True, timeout_ms=60000)
            self.assertEqual(self.daemon.call("get", lease=lease["lease"])["state"], "active")
        wait_for(
            lambda: self.daemon.call("get", lease=lease["lease"])["cause"] == "client_gone", 5, "the lease ends"
        )

    def test_unbound_lease_outlives_its_connection(self):
        lease = self.daemon.call("acquire", template="tiny", timeout_ms=60000)
        time.sleep(0.5)
        self.assertEqual(self.daemon.call("get", lease=lease["lease"])["state"], "active")
        self.daemon.call("release", lease=lease["lease"])
        self.daemon.call("release", lease=lease["lease"])  # idempotent
        ended = self.daemon.call("get", lease=lease["lease"])
        self.assertEqual((ended["state"], ended["cause"]), ("ended", "released"))

    def test_stream_comes_along(self):
        with self.daemon.connect() as rpc:
            lease = rpc.call("acquire", template="tiny", pass_fd=True, timeout_ms=60000)
            self.assertEqual(len(rpc.fds), 1)
            sock = socket.socket(fileno=rpc.fds.pop())
            sock.settimeout(60)
            with Agent(sock) as agent:
                self.assertIn("version", agent.call("ping"))
            rpc.call("release", lease=lease["lease"])

    def test_a_reader_that_never_reads(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.daemon.socket)
        sock.settimeout(5)
        request = msgpack.packb([0, 1, "stats", [{}]])
        try:
            for _ in range(200000):
                sock.sendall(request)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
        # Whether it was cut off or held back, others are served and the daemon's memory is bounded.
        self.assertAlive()
        with open(f"/proc/{self.daemon.process.pid}/status") as f:
            rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
        # Sanitizers keep freed memory in quarantine.
        self.assertLess(rss, 600 * 1024)
        sock.close()


@unittest.skipIf(os.getuid() != 0, "only root can connect as somebody else")
class Tenants(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(store_with("tiny"), extra_config=f"[tenant user]\nuid = {USER}\nleases = 1\n").start()
        for path in (cls.daemon.directory, cls.daemon.runtime):
            path.chmod(0o711)
        cls.daemon.fill("tiny", 1)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.__exit__(None)

    def refused(self, code, rpc, method, **params):
        with self.assertRaises(RpcError) as caught:
            rpc.call(method, **params)
        self.assertEqual(caught.exception.code, code, caught.exception)

    def test_a_sandbox_is_its_tenants_alone(self):
        for path in self.daemon.runtime.glob("*.sock"):
            self.assertEqual((path.stat().st_uid, path.stat().st_mode & 0o777), (0, 0o600))
        with as_user(USER):
            user = self.daemon.connect()
        with as_user(OTHER_USER):
            other = self.daemon.connect()
        with user, other:
            lease = user.call("acquire", template="tiny", timeout_ms=60000)
            self.assertEqual(lease["tenant"], "user")
            mine = {"lease": lease["lease"], "token": lease["token"]}
            self.refused("quota_exceeded", user, "acquire", template="tiny")
            # The socket in front of the guest.
            with as_user(USER):
                agent = connect_agent(lease["socket"])
            with agent:
                self.assertIn("version", agent.call("ping"))
            with as_user(OTHER_USER), self.assertRaises(PermissionError):
                connect_agent(lease["socket"])
            # Another tenant has nothing of it, even with the token.
            self.assertEqual(other.call("list")["leases"], [])
            for method, params in (("get", {"lease": lease["lease"]}), ("release", mine), ("renew", {**mine, "ttl_ms": 1})):
                self.refused("not_found", other, method, **params)
            self.refused("permission_denied", user, "stats")
            self.refused("not_found", user, "release", lease=lease["lease"], token="0" * 32)
            renewed = user.call("renew", **mine, ttl_ms=600000)
            self.assertGreater(renewed["expires_ns"], time.time_ns() + 500 * 10**9)
            self.assertNotIn("token", user.call("get", lease=lease["lease"]))
            user.call("release", **mine)
            self.assertEqual(user.call("get", lease=lease["lease"])["cause"], "released")

    def test_the_command_line_passes_tokens(self):
        options = {"user": USER, "group": 0, "extra_groups": []}  # of the programs: who they run as
        lease = self.daemon.cli("acquire", "tiny", "--ttl", "10m", "--wait", "60s", **options).stdout.decode().strip()
        self.assertRegex(lease, "^[0-9a-f]{32}:[0-9a-f]{32}$")
        self.assertEqual(self.daemon.cli("exec", lease, "--", "/bin/echo", "hello", **options).stdout, b"hello\n")
        self.daemon.cli("renew", lease, "--ttl", "20m", **options)
        self.assertNotEqual(self.daemon.cli("release", lease.split(":")[0], check=False, **options).returncode, 0)
        self.daemon.cli("release", lease, **options)
        self.assertEqual(self.daemon.call("get", lease=lease.split(":")[0])["cause"], "released")


if __name__ == "__main__":
    tap_main()
