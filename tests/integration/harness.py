# SPDX-License-Identifier: Apache-2.0
"""What the integration tests share: a daemon of their own, an RPC client, an agent client, leak counts.

The tests speak the protocols of docs/protocol.md with an independent msgpack implementation, so that an error on one side
cannot hide the same error on the other. Environment, set by meson:

    WARMBOX_BUILD   build directory with the programs
    WARMBOX_SOURCE  source directory
    WARMBOX_CACHE   artefact cache (kernel, root images); default /var/cache/warmbox
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import msgpack

BUILD = pathlib.Path(os.environ["WARMBOX_BUILD"])
SOURCE = pathlib.Path(os.environ["WARMBOX_SOURCE"])
WARMBOX = BUILD / "cli" / "warmbox"
WARMBOXD = BUILD / "daemon" / "warmboxd"
VMM = BUILD / "vmm" / "warmbox-vmm"
INITRAMFS = BUILD / "guest" / "initramfs.cpio"
AGENT_PORT = 1024


def _artefact(*command):
    return subprocess.run(
        [str(SOURCE / command[0]), *command[1:]], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def kernel():
    return _artefact("guest/kernel/build")


def root_image(name):
    return _artefact("guest/image/build", name)


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


# --- templates -----------------------------------------------------------------------------------------------------

TEMPLATES = {
    # A small Linux with nothing warmed; the cheapest guest with an agent.
    "tiny": {"image": "tiny", "memory": "64"},
    # Python with a resident interpreter.
    "python": {
        "image": "python",
        "memory": "128",
        "resident": "/usr/bin/python3 /usr/lib/warmbox/resident.py",
    },
    # Never acknowledges its identity, so no build that restores it would publish it.
    "never-reseeds": {"image": "tiny", "memory": "64", "cmdline": "warmbox.fault=reseed", "record": "0"},
    # Frozen by a guest that believes it is an hour earlier.
    "hour-old": {
        "image": "python",
        "memory": "128",
        "warm": ["/usr/bin/python3 -c 'import time; time.clock_settime(0, time.time() - 3600)'"],
    },
}


def build_command(store, name, **override):
    spec = {**TEMPLATES[name], **override}
    command = [
        str(WARMBOX), "template", "build", name,
        "--store", str(store),
        "--kernel", spec.get("kernel") or kernel(),
        "--initramfs", str(INITRAMFS),
        "--root", spec.get("root") or root_image(spec["image"]),
        "--memory", spec["memory"],
    ]
    if "cmdline" in spec:
        command += ["--cmdline", spec["cmdline"]]
    for warm in spec.get("warm", []):
        command += ["--warm", warm]
    if "resident" in spec:
        command += ["--resident", spec["resident"]]
    if "record" in spec:
        command += ["--record", spec["record"]]
    if "record-exec" in spec:
        command += ["--record-exec", spec["record-exec"]]
    return command


def environment():
    return {**os.environ, "WARMBOX_VMM": str(VMM)}


def store_with(name):
    """A store that holds the template; built when its inputs changed. Copied by tests that damage it."""
    inputs = hashlib.sha256()
    for path in (VMM, INITRAMFS, kernel(), root_image(TEMPLATES[name]["image"])):
        inputs.update(digest(path).encode())
    inputs.update(repr(TEMPLATES[name]).encode())
    store = BUILD / "integration" / f"{name}-{inputs.hexdigest()[:16]}"
    if not (store / "templates" / name).exists():
        shutil.rmtree(store, ignore_errors=True)
        for old in (BUILD / "integration").glob(f"{name}-*"):
            shutil.rmtree(old)
        subprocess.run(build_command(store, name), check=True, env=environment(), stdout=sys.stderr)
    return store


# --- msgpack-RPC ---------------------------------------------------------------------------------------------------


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]
        self.message = error["message"]


class Rpc:
    """One msgpack-RPC connection. Notifications that arrive are kept in .notifications."""

    def __init__(self, sock):
        self.sock = sock
        self.unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=4 << 20)
        self.next_id = 1
        self.fds = []
        self.notifications = []
        self.responses = {}

    def close(self):
        self.sock.close()
        for fd in self.fds:
            os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, method, params=None):
        request_id = self.next_id
        self.next_id += 1
        self.sock.sendall(msgpack.packb([0, request_id, method, [params or {}]]))
        return request_id

    def notify(self, method, params):
        self.sock.sendall(msgpack.packb([2, method, [params]]))

    def receive(self):
        """The next message, of whatever type."""
        while True:
            for message in self.unpacker:
                return message
            data, fds, _, _ = socket.recv_fds(self.sock, 65536, 4)
            self.fds += fds
            if not data:
                raise ConnectionResetError("the peer closed the connection")
            self.unpacker.feed(data)

    def wait(self, request_id):
        while request_id not in self.responses:
            message = self.receive()
            if message[0] == 1:
                self.responses[message[1]] = message
            else:
                self.notifications.append(message)
        _, _, error, result = self.responses.pop(request_id)
        if error is not None:
            raise RpcError(error)
        return result

    def call(self, method, **params):
        return self.wait(self.send(method, params))


class Agent(Rpc):
    def output(self, request_id, stream):
        return b"".join(
            m[2][0]["data"] for m in self.notifications if m[1] == stream and m[2][0]["id"] == request_id
        )

    def run(self, *argv, stdin=None, **params):
        """exec: (result, stdout, stderr)."""
        request_id = self.send("exec", {"argv": list(argv), "stdin": stdin is not None, **params})
        return self._finish(request_id, stdin)

    def resident(self, code):
        return self._finish(self.send("resident"), code.encode())

    def _finish(self, request_id, stdin):
        if stdin is not None:
            if stdin:
                self.notify("stdin", {"id": request_id, "data": stdin})
            self.notify("stdin", {"id": request_id, "data": b""})
        result = self.wait(request_id)
        return result, self.output(request_id, "stdout"), self.output(request_id, "stderr")


def connect_agent(path, port=AGENT_PORT, timeout=60):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout)
    sock.connect(path)
    sock.sendall(f"CONNECT {port}\n".encode())
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionResetError(f"the guest refused port {port}")
        line += byte
    assert line.startswith(b"OK "), line
    return Agent(sock)


# --- the daemon ----------------------------------------------------------------------------------------------------


class Daemon:
    """A warmboxd of the test's own, with its own socket, runtime directory and store."""

    def __init__(self, store, extra_config="", pool="default_target = 1\n"):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="wb-test-"))
        if "default_shells" not in pool:
            pool += "default_shells = 0\n"  # so that what is counted is what was asked for
        self.socket = str(self.directory / "d.sock")
        self.runtime = self.directory / "run"
        self.store = store
        self.log = open(self.directory / "log", "w+b")
        config = self.directory / "conf"
        config.write_text(
            f"[daemon]\nsocket = {self.socket}\nruntime_dir = {self.runtime}\nstore = {store}\nvmm = {VMM}\n"
            f"[pool]\n{pool}{extra_config}"
        )
        self.config = config
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [str(WARMBOXD), "--log-level", "debug", "--config", str(self.config)], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL
        )
        wait_for(lambda: self._answers() or self.process.poll() is not None, 30, "the daemon answers")
        if self.process.poll() is not None:
            raise AssertionError(f"warmboxd ended with {self.process.returncode}:\n{self.log_text()}")
        return self

    def _answers(self):
        try:
            self.connect().close()
            return True
        except OSError:
            return False

    def log_text(self):
        return (self.directory / "log").read_text(errors="replace")

    def connect(self, timeout=120):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        try:
            sock.connect(self.socket)
        except OSError:
            sock.close()
            raise
        return Rpc(sock)

    def call(self, method, **params):
        with self.connect() as rpc:
            return rpc.call(method, **params)

    def pool(self, template):
        return self.call("pool.get", template=template)["pools"][0]

    def fill(self, template, target, timeout=120):
        self.call("pool.set", template=template, target=target)
        wait_for(lambda: self.pool(template)["parked"] == target, timeout, lambda: f"{target} parked: {self.pool(template)}")

    def vmms(self):
        """The children that are VMMs; the others are helper programs."""
        return [pid for pid in children(self.process.pid) if program(pid) == "warmbox-vmm"]

    def helper(self, name):
        """The pid of a helper program of the daemon, or None."""
        return next((pid for pid in children(self.process.pid) if program(pid).endswith(name)), None)

    def stop(self, sig=signal.SIGTERM):
        """Seconds until it was gone."""
        start = time.monotonic()
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        elapsed = time.monotonic() - start
        return elapsed

    def cli(self, *args, check=True, **kwargs):
        result = subprocess.run(
            [str(WARMBOX), "--socket", self.socket, *args], capture_output=True, env=environment(), timeout=300, **kwargs
        )
        if check and result.returncode != 0:
            raise AssertionError(f"warmbox {args}: {result.returncode}\n{result.stdout!r}\n{result.stderr!r}")
        return result

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        self.stop()
        if kind is not None:
            sys.stderr.write(self.log_text()[-4000:])
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def as_user(uid):
    """What is connected meanwhile is connected by that user; only root can."""
    os.setresuid(-1, uid, -1)
    try:
        yield
    finally:
        os.setresuid(-1, 0, -1)


# --- looking at processes ------------------------------------------------------------------------------------------


def wait_for(condition, seconds, what, interval=0.02):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(interval)


def children(pid):
    """The live children of all of the process's threads."""
    found = []
    for listing in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in listing.read_text().split()]
    return sorted(found)


def program(pid):
    """argv[0], or nothing when the process is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


def fds(pid):
    """What the process holds open, by kind: {"socket": 3, "/memfd:…": 1, …}."""
    held = {}
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(entry)
            kind = target.split(":")[0] if target.startswith(("socket", "pipe", "anon_inode")) else target
            held[kind] = held.get(kind, 0) + 1
    return held


def mem_available_kib():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    raise AssertionError("no MemAvailable in /proc/meminfo")


def tap_main():
    """Runs the unittest classes of the calling script and reports them as TAP."""

    class Result(unittest.TestResult):
        count = 0

        def _line(self, ok, test, comment=""):
            Result.count += 1
            name = test.id().split(".", 1)[-1]
            print(f"{'ok' if ok else 'not ok'} {Result.count} - {name}{comment}", flush=True)

        def addSuccess(self, test):
            self._line(True, test)

        def addSkip(self, test, reason):
            self._line(True, test, f" # SKIP {reason}")

        def _bad(self, test, err):
            text = self._exc_info_to_string(err, test)
            self._line(False, test)
            for line in text.splitlines():
                print(f"# {line}", flush=True)

        def addError(self, test, err):
            super().addError(test, err)
            self._bad(test, err)

        def addFailure(self, test, err):
            super().addFailure(test, err)
            self._bad(test, err)

    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = Result()
    suite.run(result)
    print(f"1..{Result.count}")
    sys.exit(0 if result.wasSuccessful() and Result.count else 1)
