# SPDX-License-Identifier: Apache-2.0
"""Mistakes of a new user: a clear message, an exit status, nothing half-made left behind."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from harness import (
    INITRAMFS,
    VMM,
    WARMBOX,
    WARMBOXD,
    Daemon,
    RpcError,
    build_command,
    children,
    environment,
    store_with,
    tap_main,
    wait_for,
)


def run(*command, **kwargs):
    return subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=120, env=environment(), **kwargs
    )


def in_namespace(script):
    """Runs a shell script with a mount namespace of its own."""
    return run("unshare", "--mount", "--propagation", "private", "sh", "-ec", script)


class Errors(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="wb-err-"))
        os.chmod(self.directory, 0o755)
        self.store = self.directory / "store"
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def says(self, result, *words):
        self.assertNotEqual(result.returncode, 0)
        self.assertGreaterEqual(result.returncode, 0, f"ended by a signal: {result}")
        for word in words:
            self.assertIn(word, result.stderr)

    def nothing_left(self):
        left = [p for p in self.store.rglob("*") if p.is_file()] if self.store.exists() else []
        self.assertEqual(left, [])
        self.assertEqual([p for p in (self.store / "tmp").iterdir()] if (self.store / "tmp").exists() else [], [])

    def build(self, **override):
        return run(*build_command(self.store, "tiny", **override))

    def test_no_kvm(self):
        hidden = f"mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; "
        command = " ".join(f"'{c}'" for c in build_command(self.store, "tiny"))
        self.says(in_namespace(hidden + command), "/dev/kvm")
        self.says(
            in_namespace(hidden + f"{WARMBOXD} --socket {self.directory}/s --store {self.store} "
                         f"--runtime-dir {self.directory}/run"),
            "/dev/kvm",
        )
        doctor = in_namespace(hidden + f"{WARMBOX} doctor")
        self.assertNotEqual(doctor.returncode, 0)
        self.assertIn("/dev/kvm", doctor.stdout)

    def test_not_root(self):
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        programs = self.directory / "bin"
        programs.mkdir(mode=0o755)
        for program in (WARMBOX, WARMBOXD, VMM):
            shutil.copy(program, programs)
        result = run(*command, programs / "warmboxd", "--socket", self.directory / "s", "--store", self.directory,
                     "--runtime-dir", self.directory / "run")
        self.says(result, "/dev/kvm")
        build = build_command(self.store, "tiny")
        result = run(*command, programs / "warmbox", *build[1:])
        self.assertNotEqual(result.returncode, 0)
        self.assertRegex(result.stderr, "/dev/kvm|[Pp]ermission|root")

    def test_daemon_not_running(self):
        self.says(run(WARMBOX, "--socket", self.directory / "none.sock", "ps"), "none.sock", "warmboxd")

    def test_second_daemon(self):
        with Daemon(store_with("tiny")) as daemon:
            self.says(run(WARMBOXD, "--config", daemon.config), "another warmboxd", "--runtime-dir")
            elsewhere = self.directory / "run"
            second = run(WARMBOXD, "--config", daemon.config, "--runtime-dir", elsewhere)
            self.says(second, "another warmboxd", daemon.socket)
            self.assertEqual(daemon.call("health")["status"], "ok")

    def test_stale_socket(self):
        daemon = Daemon(store_with("tiny")).start()
        try:
            daemon.stop(signal.SIGKILL)
            self.assertTrue(os.path.exists(daemon.socket))
            daemon.start()
            self.assertEqual(daemon.call("health")["status"], "ok")
        finally:
            daemon.__exit__(None)

    def test_missing_template(self):
        with Daemon(store_with("tiny")) as daemon:
            result = daemon.cli("run", "pyhton", "--", "true", check=False)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(b"pyhton", result.stderr)
            self.assertIn(b"tiny", result.stderr)

    def test_wrong_kernel_file(self):
        for name, content in (
            ("text", b"this is not a kernel\n" * 100),
            ("empty", b""),
            ("elf", pathlib.Path("/bin/true").read_bytes()),
        ):
            kernel = self.directory / name
            kernel.write_bytes(content)
            with self.subTest(name):
                self.says(self.build(kernel=str(kernel)), "kernel")
                self.nothing_left()
        self.says(self.build(kernel=str(self.directory / "absent")), "absent")
        self.nothing_left()

    def test_full_disk(self):
        self.store.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(self.store)], check=True)
        try:
            self.says(self.build(), "space")
            self.nothing_left()
        finally:
            subprocess.run(["umount", str(self.store)], check=True)

    def test_interrupted_build(self):
        for delay in (0.3, 3):
            process = subprocess.Popen(
                build_command(self.store, "tiny"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            time.sleep(delay)
            started = children(process.pid)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
            self.assertEqual(process.returncode, 130, err)
            self.assertIn(b"nterrupted", err)
            for pid in started:
                self.assertFalse(os.path.exists(f"/proc/{pid}"))
            self.nothing_left()

    def test_damaged_template(self):
        """A flipped byte in each file: verify and the daemon name the file; nothing is handed out."""
        source = store_with("tiny")
        shutil.copytree(source, self.store, symlinks=True)
        snapshot = (self.store / "templates" / "tiny").resolve()
        for name in ("manifest", "state", "memory"):
            path = snapshot / name
            whole = path.read_bytes()
            damaged = bytearray(whole)
            damaged[len(damaged) // 2] ^= 1
            os.chmod(path, 0o644)
            path.write_bytes(damaged)
            with self.subTest(name):
                self.says(run(WARMBOX, "template", "verify", "tiny", "--store", self.store), name)
                with Daemon(self.store) as daemon:
                    with self.assertRaises(RpcError) as caught:
                        daemon.call("acquire", template="tiny", timeout_ms=20000)
                    self.assertEqual(caught.exception.code, "unavailable")
                    self.assertIn(name, caught.exception.message)
                    path.write_bytes(whole)
                    wait_for(lambda: self.acquires(daemon), 60, "a repaired template works again", interval=0.5)
        self.assertEqual(run(WARMBOX, "template", "verify", "tiny", "--store", self.store).returncode, 0)

    @staticmethod
    def acquires(daemon):
        try:
            daemon.call("release", lease=daemon.call("acquire", template="tiny", timeout_ms=30000)["lease"])
            return True
        except RpcError:
            return False

    def test_bad_usage(self):
        self.says(run(WARMBOX, "frobnicate"), "frobnicate")
        self.says(run(WARMBOX, "run"), "TEMPLATE")
        self.says(run(WARMBOXD, "--config", self.directory / "absent.conf"), "absent.conf")
        config = self.directory / "conf"
        config.write_text("[daemon]\nsokcet = /x\n")
        self.says(run(WARMBOXD, "--config", config), "conf:2", "sokcet")


if __name__ == "__main__":
    tap_main()
