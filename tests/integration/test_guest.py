# SPDX-License-Identifier: Apache-2.0
"""What a program in a sandbox can rely on: streams, exit statuses, the kernel's features, the file system."""

import hashlib
import os
import subprocess
import tempfile
import time
import unittest

from harness import (
    Daemon,
    RpcError,
    build_command,
    connect_agent,
    environment,
    store_with,
    tap_main,
    wait_for,
)


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(store_with("tiny")).start()
        cls.daemon.fill("tiny", 1)
        cls.lease = cls.daemon.call("acquire", template="tiny")
        cls.agent = connect_agent(cls.lease["socket"])

    @classmethod
    def tearDownClass(cls):
        cls.agent.close()
        cls.daemon.__exit__(None)

    def sh(self, script, **params):
        return self.agent.run("/bin/sh", "-c", script, **params)

    def test_streams_and_status(self):
        result, out, err = self.sh("cat; echo oops >&2; exit 7", stdin=b"hello\n")
        self.assertEqual((result, out, err), ({"code": 7}, b"hello\n", b"oops\n"))

    def test_signal(self):
        result, _, _ = self.sh("kill -TERM $$")
        self.assertEqual(result, {"signal": 15})

    def test_environment_and_directory(self):
        result, out, err = self.sh("echo $GREETING; pwd", env={"GREETING": "moin"}, cwd="/tmp")
        self.assertEqual((result, out), ({"code": 0}, b"moin\n/tmp\n"), err)

    def test_no_such_program(self):
        with self.assertRaises(RpcError) as caught:
            self.agent.run("/no/such/program")
        self.assertEqual(caught.exception.code, "not_found")
        self.assertIn("/no/such/program", caught.exception.message)

    def test_kill(self):
        request = self.agent.send("exec", {"argv": ["/bin/sleep", "1000"]})
        time.sleep(0.5)
        self.agent.call("kill", id=request, signal=9)
        self.assertEqual(self.agent.wait(request), {"signal": 9})

    def test_many_at_once(self):
        # A guest kernel that mixes up the vector registers of programs kills about half of them.
        for _ in range(2):
            requests = [self.agent.send("exec", {"argv": ["/bin/echo", str(n)]}) for n in range(12)]
            for n, request in enumerate(requests):
                self.assertEqual(self.agent.wait(request), {"code": 0})
                self.assertEqual(self.agent.output(request, "stdout"), b"%d\n" % n)

    def test_a_lot_of_output_arrives_whole(self):
        script = "dd if=/dev/zero bs=65536 count=64 2>/dev/null | tr '\\0' 'x'"
        result, out, err = self.sh(script)
        self.assertEqual((result, len(out)), ({"code": 0}, 4 << 20), err)
        self.assertEqual(hashlib.sha256(out).digest(), hashlib.sha256(b"x" * (4 << 20)).digest())

    def test_too_much_output_is_cut(self):
        with self.assertRaises(RpcError) as caught:
            self.sh("while :; do echo and on; done", max_output_bytes=100)
        self.assertEqual(caught.exception.code, "exhausted")
        self.assertIn("max_output_bytes", caught.exception.message)
        self.assertEqual(self.sh("echo fine", max_output_bytes=5)[:2], ({"code": 0}, b"fine\n"))

    def test_closing_the_connection_kills(self):
        with connect_agent(self.lease["socket"]) as other:
            other.send("exec", {"argv": ["/bin/sleep", "4242"]})
            wait_for(lambda: b"4242" in self.sh("ps")[1], 30, "it runs")
        wait_for(lambda: b"sleep 4242" not in self.sh("ps | grep -v grep")[1], 30, "it is gone")

    def test_file_system_is_writable_and_private(self):
        result, out, _ = self.sh("echo secret > /etc/mine && cat /etc/mine")
        self.assertEqual((result, out), ({"code": 0}, b"secret\n"))
        with self.daemon.connect() as rpc:
            other = rpc.call("acquire", template="tiny", timeout_ms=60000)
            with connect_agent(other["socket"]) as agent:
                result, _, _ = agent.run("/bin/cat", "/etc/mine")
                self.assertEqual(result, {"code": 1})
            rpc.call("release", lease=other["lease"])

    def test_a_small_guest_has_room(self):
        """A 64 MiB guest keeps at least 40 MiB."""
        _, out, _ = self.sh("cat /proc/meminfo")
        values = {line.split(b":")[0]: int(line.split()[1]) for line in out.splitlines()}
        print(f"# MemTotal {values[b'MemTotal']} kB, MemFree {values[b'MemFree']}, "
              f"MemAvailable {values[b'MemAvailable']} kB of 65536")
        self.assertGreaterEqual(values[b"MemAvailable"], 40 * 1024)

    def test_an_idle_kernel_gathers_no_statistics(self):
        # Every second, as by default, costs 1.8 % of a processor where the kernel is interpreted.
        self.assertEqual(self.sh("cat /proc/sys/vm/stat_interval")[1], b"60\n")

    def test_kernel_keeps_what_programs_need(self):
        _, out, _ = self.sh("cat /proc/filesystems; ls /proc/self/ns; cat /sys/fs/cgroup/cgroup.controllers; "
                            "ls /proc/sys/fs/inotify /proc/net/unix /proc/net/if_inet6 /proc/sys/kernel/seccomp")
        for word in (b"erofs", b"ext4", b"overlay", b"fuse", b"tmpfs", b"user", b"net", b"pid", b"memory", b"pids",
                     b"max_user_watches", b"/proc/net/unix", b"/proc/net/if_inet6", b"actions_avail"):
            self.assertIn(word, out)
        result, _, _ = self.sh("test -e /proc/modules")
        self.assertEqual(result, {"code": 1}, "modules are off")


class Overrides(unittest.TestCase):
    def test_cli_run_and_eval(self):
        with Daemon(store_with("python")) as daemon:
            run = daemon.cli("run", "python", "--", "/usr/bin/python3", "-c", "print(6*7); raise SystemExit(3)", check=False)
            self.assertEqual((run.returncode, run.stdout), (3, b"42\n"), run.stderr)
            evaluated = daemon.cli("eval", "python", "print(sum(range(10)))")
            self.assertEqual(evaluated.stdout, b"45\n")
            failing = daemon.cli("eval", "python", "1/0", check=False)
            self.assertEqual(failing.returncode, 1)
            self.assertIn(b"ZeroDivisionError", failing.stderr)
            self.assertEqual(daemon.call("list")["leases"], [])


if __name__ == "__main__":
    tap_main()
