#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What does one tenant's flood cost another tenant's claims? And what does it cost to give a socket away?

Each build gets a daemon of its own with the tiny guest, and two clients of different users: one claims, one floods. Rounds
alternate between builds, quiet and flooded, so that all of them meet the same machine. A flood is many connections that
always have requests waiting: `list` and acquires that exceed a quota, as fast as they are answered.

Times are the claiming client's (call to reply); `inside` is the daemon's own share of a claim (timings.claim_ns), by the user
for whom nothing has to be given away (root) and by another. Needs root: only root can be several users.

    bench/flood.py build [older-build …] [--rounds N] [--connections N]
"""

import argparse
import os
import pathlib
import select
import signal
import socket
import statistics
import subprocess
import tempfile
import time

import msgpack

USER, FLOODER = 65533, 65534
BATCH = 16
REQUESTS = 32  # in a connection's socket


def connect(path, uid):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    os.setresuid(-1, uid, -1)
    try:
        sock.connect(path)
    finally:
        os.setresuid(-1, 0, -1)
    return sock


class Client:
    def __init__(self, path, uid):
        self.sock = connect(path, uid)
        self.unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
        self.id = 0

    def call(self, method, **params):
        self.id += 1
        self.sock.sendall(msgpack.packb([0, self.id, method, [params]]))
        while True:
            for _, _, error, result in self.unpacker:
                if error:
                    raise RuntimeError(f"{method}: {error}")
                return result
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionResetError(method)
            self.unpacker.feed(data)


def flood(path, connections):
    """In a process of its own, until it is killed."""
    requests = b"".join(
        msgpack.packb([0, i, method, [params]])
        for i in range(REQUESTS)
        for method, params in ((("list", {}),) if i % 2 else (("acquire", {"template": "none", "timeout_ms": 0}),))
    )
    answers = 0
    poll = select.poll()
    socks = {}
    for _ in range(connections):
        sock = connect(path, FLOODER)
        sock.setblocking(False)
        socks[sock.fileno()] = sock
        poll.register(sock, select.POLLIN | select.POLLOUT)
    while True:
        for fd, events in poll.poll():
            try:
                if events & select.POLLIN:
                    answers += len(socks[fd].recv(1 << 18))
                if events & select.POLLOUT:
                    socks[fd].send(requests)
            except BlockingIOError:
                pass


class Daemon:
    def __init__(self, build):
        self.build = build
        self.directory = tempfile.TemporaryDirectory(prefix="wb-flood-")
        root = pathlib.Path(self.directory.name)
        root.chmod(0o711)
        self.socket = str(root / "s")
        (root / "run").mkdir()
        subprocess.run([build / "bench" / "make-tiny", root / "store", "t"], check=True, stdout=subprocess.DEVNULL)
        config = f"[daemon]\nsocket = {self.socket}\nruntime_dir = {root}/run\nstore = {root}/store\n[pool]\ndefault_target = {BATCH}\n"
        sections = f"[tenant user]\nuid = {USER}\n[tenant flood]\nuid = {FLOODER}\nleases = 0\n"
        # An older build knows no tenants; its flooder's acquires find nothing of a template that does not exist.
        (root / "conf").write_text(config + sections)
        self.process = self.start(root)
        if self.process is None:
            (root / "conf").write_text(config)
            self.process = self.start(root)
        for path in (root / "run", root / "s"):
            path.chmod(0o777)
        self.admin = Client(self.socket, 0)
        self.user = Client(self.socket, USER)
        self.admin.call("pool.set", template="t", target=BATCH)

    def start(self, root):
        process = subprocess.Popen(
            [self.build / "daemon" / "warmboxd", "--config", root / "conf"], stdin=subprocess.DEVNULL, stderr=open(root / "log", "ab")
        )
        while process.poll() is None:
            try:
                Client(self.socket, 0).sock.close()
                return process
            except OSError:
                time.sleep(0.02)
        return None

    def wait_full(self):
        while self.admin.call("pool.get", template="t")["pools"][0]["parked"] < BATCH:
            time.sleep(0.01)

    def claims(self, client):
        """Claims a batch: (seconds each, the daemon's nanoseconds each)."""
        self.wait_full()
        leases, outside, inside = [], [], []
        for _ in range(BATCH):
            start = time.perf_counter()
            leases.append(client.call("acquire", template="t", timeout_ms=60000))
            outside.append(time.perf_counter() - start)
            inside.append(leases[-1]["timings"]["claim_ns"])
        for lease in leases:
            self.admin.call("release", lease=lease["lease"])
        return outside, inside

    def flooded(self, connections):
        child = os.fork()
        if child == 0:
            try:
                flood(self.socket, connections)
            finally:
                os._exit(1)
        time.sleep(0.3)
        try:
            return self.claims(self.user)[0]
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.directory.cleanup()


def line(name, values, unit):
    values = sorted(values)
    p50, p99 = statistics.median(values), values[int(len(values) * 0.99) - 1]
    print(f"  {name:<34} p50 {p50 * unit:9.1f} µs   p99 {p99 * unit:9.1f} µs   n {len(values)}")
    return p50, p99


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", nargs="+", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    daemons = [Daemon(build.resolve()) for build in options.build]
    figures = [{"quiet": [], "flooded": [], "root": [], "user": []} for _ in daemons]
    try:
        for _ in range(options.rounds):
            for daemon, figure in zip(daemons, figures):
                figure["root"] += daemon.claims(daemon.admin)[1]
                outside, inside = daemon.claims(daemon.user)
                figure["quiet"] += outside
                figure["user"] += inside
                figure["flooded"] += daemon.flooded(options.connections)
    finally:
        for daemon in daemons:
            daemon.stop()
    for daemon, figure in zip(daemons, figures):
        print(daemon.build)
        line("inside, root", figure["root"], 1e-3)
        line("inside, another user", figure["user"], 1e-3)
        quiet = line("claim, quiet", figure["quiet"], 1e6)
        flooded = line(f"claim, {options.connections} flooding connections", figure["flooded"], 1e6)
        print(f"  flooded / quiet: p50 {flooded[0] / quiet[0]:.1f}, p99 {flooded[1] / quiet[1]:.1f}")


if __name__ == "__main__":
    main()
