#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What else starts something isolated on this host, and how long does each take?

    bench-peers [--quick] [--count N] [--socket PATH --template NAME]

In each round every peer runs once, so that all meet the same machine: a bare process, `runc run` and `runsc run` of a busybox, QEMU's
microvm restored from a saved state, warmbox (a parked sandbox; a miss, with and without a shell), and the floors under it: the KVM calls
of a restore by hand (bench-floor) and a claim's message echoed (bench-echo). All clocks start in this program, before the peer is asked
or started, and stop at what this program sees; but the first vCPU entry is stamped by the VMM.

A peer that is not installed or does not work here is reported with the reason. Debian packages: runc, runsc, qemu-system-x86,
busybox-static. Containers need root, warmbox a running daemon. What was started or made is taken away again, also on a signal.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

COUNT, QUICK_COUNT = 25, 3
PATIENCE_S = 30  # for one run; longer is a failure
SHELL_START_S = 0.3  # a shell is counted from its start on; ready it is a little later
HERE = pathlib.Path(__file__).resolve().parent
AGENT_COMMAND = ["/bin/busybox", "echo", "ready"]

STOP_CLAIM, STOP_ENTRY, STOP_AGENT, STOP_EXEC = "claim returned", "first vCPU entry", "agent replied", "first exec finished"


class Unavailable(Exception):
    """This peer cannot be measured here; the text says why."""


class Failed(Exception):
    """One run went wrong."""


def need_program(name, package):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        raise Unavailable(f"{name} is not installed (Debian package {package})")
    return path


def need_root():
    if os.geteuid() != 0:
        raise Unavailable("needs root")


def neighbour(name):
    """A program that is installed, or was built, beside this one."""
    path = HERE / name
    if not path.exists():
        raise Unavailable(f"{path} is not there")
    return path


def first_byte(fd):
    """Waits for output and returns when it came."""
    if not select.select([fd], [], [], PATIENCE_S)[0]:
        raise Failed(f"no output within {PATIENCE_S} s")
    at = time.monotonic_ns()
    if not os.read(fd, 1):
        raise Failed("ended without output")
    return at


def end(process):
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()


def run_to_exit(command, **kwargs):
    """Runs a command that prints something: {"first output": ns, "exit": ns}."""
    # A file: what a command that has failed left running may hold a pipe open for ever.
    with tempfile.TemporaryFile() as errors:
        start = time.monotonic_ns()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, **kwargs)
        try:
            output = first_byte(process.stdout.fileno())
            process.wait(PATIENCE_S)
            over = time.monotonic_ns()
            if process.returncode != 0:
                raise Failed(f"status {process.returncode}")
            return {"first output": output - start, "exit": over - start}
        except (Failed, subprocess.TimeoutExpired) as failure:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise Failed(said[-1] if said else str(failure)) from None
        finally:
            end(process)


# --- peers ---------------------------------------------------------------------------------------------------------
#
# A peer has a name and lines {name: stop-line or None}; its constructor raises Unavailable, run() returns {line: ns}, and what
# it made is closed by the stack that it gets.


class BareProcess:
    name = "bare process"
    lines = {"first output": None, "exit": None}

    def __init__(self, stack, directory, options):
        self.command = [need_program("busybox", "busybox-static"), "echo", "ready"]

    def run(self):
        return run_to_exit(self.command)


class Container:
    lines = {"first output": None, "exit": None}

    def __init__(self, stack, directory, options):
        need_root()
        busybox = need_program("busybox", "busybox-static")
        self.program = need_program(self.name.split()[0], self.name.split()[0])
        self.state, self.bundle = directory / f"{self.name.split()[0]}-state", directory / f"{self.name.split()[0]}-bundle"
        self.flags = []
        self.ids = (f"warmbox-peers-{os.getpid()}-{n}" for n in itertools.count())
        self.make_bundle(busybox)
        stack.callback(self.sweep)
        self.probe()

    def make_bundle(self, busybox):
        root = self.bundle / "rootfs"
        for name in ("bin", "proc", "dev", "sys", "tmp"):
            (root / name).mkdir(parents=True)
        shutil.copy(busybox, root / "bin" / "busybox")
        subprocess.run([self.program, "spec"], cwd=self.bundle, check=True, capture_output=True)
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        config["process"].update(terminal=False, args=AGENT_COMMAND)
        config["root"].update(path="rootfs", readonly=True)
        path.write_text(json.dumps(config))

    def probe(self):
        try:
            self.run()
        except Failed as failure:
            raise Unavailable(f"{self.name} does not work here: {failure}") from None

    def run(self):
        name = next(self.ids)
        try:
            return run_to_exit([self.program, *self.flags, "--root", str(self.state), "run", "--bundle", str(self.bundle), name])
        except Failed:
            self.sweep()
            raise

    def sweep(self):
        """Ends what a failed or interrupted run has left: the state directory knows."""
        if not self.state.exists():
            return
        listed = subprocess.run(
            [self.program, "--root", str(self.state), "list", "--quiet"], capture_output=True, text=True, timeout=PATIENCE_S
        ).stdout.split()
        for name in listed:
            subprocess.run(
                [self.program, "--root", str(self.state), "delete", "--force", name], capture_output=True, timeout=PATIENCE_S
            )

    def version(self):
        return subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.splitlines()[0]


class Runc(Container):
    name = "runc run"


class Runsc(Container):
    name = "runsc run"

    def probe(self):
        """The first platform that works, in the order in which they are fast."""
        reasons = []
        for platform in ("systrap", "ptrace", "kvm"):
            self.flags = [f"--platform={platform}", "--network=none"]
            try:
                self.run()
                self.platform = platform
                return
            except Failed as failure:
                reasons.append(f"{platform}: {str(failure).splitlines()[-1]}")
        raise Unavailable("; ".join(reasons))

    def version(self):
        return super().version() + f", platform {self.platform}"


class Qemu:
    """The guest writes to its serial port without end: a byte after a restore says that it runs."""

    lines = {"guest runs": STOP_ENTRY}

    def __init__(self, stack, directory, options):
        self.program = need_program("qemu-system-x86_64", "qemu-system-x86")
        self.guest = neighbour("bench-peers-guest")
        self.state = directory / f"qemu-{self.accelerator}"
        reasons = []
        for cpu in self.cpus:
            try:
                self.cpu = cpu
                self.save()
                self.run()
                return
            except (Failed, OSError) as failure:
                reasons.append(f"-cpu {cpu}: {failure}")
        raise Unavailable("; ".join(reasons))

    def command(self, *more):
        return [
            self.program, "-M", "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on", "-accel", self.accelerator,
            "-cpu", self.cpu, "-m", "16", "-nodefaults", "-no-user-config", "-nographic", "-kernel", str(self.guest),
            "-serial", "stdio", *more,
        ]  # fmt: skip

    def save(self):
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            self.command("-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()],
        )  # fmt: skip
        theirs.close()
        ours.settimeout(PATIENCE_S)
        drain = threading.Thread(target=self.drain, args=[process.stdout.fileno()])
        try:
            first_byte(process.stdout.fileno())
            drain.start()
            with ours.makefile("rw") as qmp:
                qmp.readline()
                self.ask(qmp, "qmp_capabilities")
                self.ask(qmp, "migrate", uri=f"exec:cat > {self.state}")
                until = time.monotonic() + PATIENCE_S
                while (status := self.ask(qmp, "query-migrate").get("status")) != "completed":
                    if status == "failed" or time.monotonic() > until:
                        raise Failed(f"saving the state: {status}")
                    time.sleep(0.01)
        except Failed as failure:
            process.kill()  # QEMU alone holds the pipe
            said = process.stderr.read().decode(errors="replace").strip().splitlines()
            raise Failed(said[-1] if said else str(failure)) from None
        finally:
            ours.close()
            process.kill()
            if drain.ident:
                drain.join()
            end(process)

    @staticmethod
    def drain(fd):
        with contextlib.suppress(OSError):
            while os.read(fd, 65536):
                pass

    @staticmethod
    def ask(qmp, command, **arguments):
        try:
            qmp.write(json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}) + "\n")
            qmp.flush()
            while True:
                answer = json.loads(qmp.readline() or "null")
                if not answer or "error" in answer:
                    raise Failed(f"{command}: {answer}")
                if "return" in answer:
                    return answer["return"]
        except OSError as error:
            raise Failed(f"{command}: {error}") from None

    def run(self):
        with open(self.state, "rb") as state:
            start = time.monotonic_ns()
            process = subprocess.Popen(
                self.command("-incoming", f"fd:{state.fileno()}"),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[state.fileno()],
            )  # fmt: skip
        try:
            return {"guest runs": first_byte(process.stdout.fileno()) - start}
        finally:
            end(process)

    def version(self):
        line = subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
        return f"{line}, -accel {self.accelerator} -cpu {self.cpu}"


class QemuKvm(Qemu):
    name = "QEMU microvm restored, KVM"
    accelerator = "kvm"
    # Not every kind of host takes the first.
    cpus = ["host", "host,-arch-capabilities", "base"]


class QemuTcg(Qemu):
    name = "QEMU microvm restored, TCG (no KVM)"
    accelerator = "tcg"
    cpus = ["max"]


class Floor:
    """The KVM calls of a restore by hand, in a bare process: what a miss without a shell is compared with."""

    name = "bare KVM calls"
    lines = {"first vCPU entry": STOP_ENTRY}
    MEMORY_BYTES = 2 << 20
    STAMPS = struct.Struct("<6Q")  # struct floor_stamps of bench/floor.h

    def __init__(self, stack, directory, options):
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            raise Unavailable("/dev/kvm cannot be opened")
        self.program = str(neighbour("bench-floor"))
        self.memory = os.memfd_create("floor")
        stack.callback(os.close, self.memory)
        os.ftruncate(self.memory, self.MEMORY_BYTES)
        self.state = os.memfd_create("floor-state")
        stack.callback(os.close, self.state)
        try:
            self.spawn("capture")
        except Failed as failure:
            raise Unavailable(str(failure)) from None

    def spawn(self, *arguments):
        """The bytes of the stamps."""
        reader, writer = os.pipe()
        try:
            os.lseek(self.state, 0, os.SEEK_SET)
            # Above all targets, so that none of the three is overwritten before it is used.
            high = [os.dup(fd) for fd in (writer, self.memory, self.state)]
            assert min(high) > 5
            actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(high, 3)]
            pid = os.posix_spawn(self.program, [self.program, *arguments], {}, file_actions=actions)
            os.close(writer)
            for fd in high:
                os.close(fd)
            writer = -1
            stamps = os.read(reader, self.STAMPS.size)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status != 0:
                raise Failed(f"bench-floor ended with {status}")
            return stamps
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    def run(self):
        start = time.monotonic_ns()
        return {"first vCPU entry": self.STAMPS.unpack(self.spawn())[5] - start}


# --- warmbox -------------------------------------------------------------------------------------------------------


class Rpc:
    """The protocol of docs/protocol.md, one request at a time."""

    def __init__(self, sock):
        import msgpack

        self.msgpack = msgpack
        self.sock = sock
        self.unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
        self.numbers = itertools.count(1)
        self.fds = []

    def close(self):
        self.sock.close()

    def send(self, method, params):
        number = next(self.numbers)
        self.sock.sendall(self.msgpack.packb([0, number, method, [params]]))
        return number

    def receive(self):
        while True:
            for message in self.unpacker:
                return message
            data, fds, _, _ = socket.recv_fds(self.sock, 65536, 1)
            self.fds += fds
            if not data:
                raise Failed("the connection was closed")
            self.unpacker.feed(data)

    def call(self, method, **params):
        number = self.send(method, params)
        while (message := self.receive())[:2] != [1, number]:
            pass
        if message[2] is not None:
            raise Failed(f"{method}: {message[2]['message']}")
        return message[3]


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return Rpc(sock)


def need_daemon(stack, options):
    if not options.template:
        raise Unavailable("no --template was given")
    try:
        rpc = connect(options.socket)
    except (OSError, ImportError) as error:
        raise Unavailable(f"no daemon at {options.socket}: {error}") from None
    stack.callback(rpc.close)
    return rpc


class Warmbox:
    def __init__(self, stack, directory, options):
        self.rpc = need_daemon(stack, options)
        self.template = options.template
        try:
            pools = self.rpc.call("pool.get")["pools"]
            before = next((pool for pool in pools if pool["template"] == self.template), {"min": 0, "max": 0, "shells_wanted": 0})
            if not options.pool_before:
                options.pool_before = {"min": before["min"], "max": before["max"], "shells": before["shells_wanted"]}
            self.set_pool(0, 0)
        except Failed as failure:
            raise Unavailable(str(failure)) from None

    def set_pool(self, parked, shells):
        """Fills or empties the pool, and waits until it is quiet."""
        self.rpc.call("pool.set", template=self.template, target=parked, shells=shells)
        until = time.monotonic() + PATIENCE_S
        while True:
            (pool,) = self.rpc.call("pool.get", template=self.template)["pools"]
            if (pool["parked"], pool["restoring"], pool["leased"], pool["shells"]) == (parked, 0, 0, shells):
                return
            if time.monotonic() > until:
                raise Failed(f"the pool does not come to {parked} parked and {shells} shells: {pool}")
            time.sleep(0.005)

    def exec_in(self, agent):
        """Runs the command and returns (first output, finished)."""
        number = agent.send("exec", {"argv": AGENT_COMMAND})
        output = None
        while (message := agent.receive())[0] != 1 or message[1] != number:
            output = output or (time.monotonic_ns() if message[1] == "stdout" else None)
        if message[2] is not None or output is None:
            raise Failed(f"exec: {message[2] or 'no output'}")
        return output, time.monotonic_ns()


class WarmboxParked(Warmbox):
    name = "warmbox, a parked sandbox"

    def __init__(self, stack, directory, options):
        super().__init__(stack, directory, options)
        # A guest that is no Linux, but only says back what it is told, runs no programs.
        try:
            self.echoes = self.claim(lambda agent: (agent.send("ping", {}), agent.receive()))[1][1][0] == 0
        except Failed as failure:
            raise Unavailable(str(failure)) from None
        answer = {"agent replied": STOP_AGENT} if self.echoes else {"first output": None, "exec finished": STOP_EXEC}
        self.lines = {"claim returned": STOP_CLAIM, **answer}

    def claim(self, talk):
        """(when it was asked for, when it was there), and what talking to the agent gave."""
        self.set_pool(1, 0)
        start = time.monotonic_ns()
        lease = self.rpc.call("acquire", template=self.template, timeout_ms=0, pass_fd=True)
        claimed = time.monotonic_ns()
        try:
            with socket.socket(fileno=self.rpc.fds.pop()) as stream:
                stream.settimeout(PATIENCE_S)
                return (start, claimed), talk(Rpc(stream))
        finally:
            self.rpc.call("release", lease=lease["lease"])

    def talk(self, agent):
        if not self.echoes:
            output, finished = self.exec_in(agent)
            return {"first output": output, "exec finished": finished}
        agent.send("ping", {})
        agent.receive()
        return {"agent replied": time.monotonic_ns()}

    def run(self):
        (start, claimed), at = self.claim(self.talk)
        return {line: ns - start for line, ns in {"claim returned": claimed, **at}.items()}


class WarmboxMiss(Warmbox):
    """Nothing is parked. The restore includes the guest's part: it acknowledges its new identity before anybody gets it."""

    lines = {"first vCPU entry": STOP_ENTRY, "claim returned": STOP_CLAIM}

    def run(self):
        self.set_pool(0, self.shells)
        time.sleep(SHELL_START_S * self.shells)
        start = time.monotonic_ns()
        lease = self.rpc.call("acquire", template=self.template, timeout_ms=PATIENCE_S * 1000)
        claimed = time.monotonic_ns()
        self.rpc.call("release", lease=lease["lease"])
        restore = lease["timings"]["restore"]
        if restore["shell"] != (self.shells > 0):
            raise Failed("restored " + ("from" if restore["shell"] else "without") + " a shell")
        # The VMM's own stamps: where it is not from a shell, all from the start of the process.
        entry = restore["entry_ns"] if self.shells else restore["spawn_ns"] + restore["create_ns"] + restore["entry_ns"]
        return {"first vCPU entry": entry, "claim returned": claimed - start}


class WarmboxShell(WarmboxMiss):
    name = "warmbox, a miss from a shell"
    lines = {"state load to first vCPU entry": STOP_ENTRY, "claim returned": STOP_CLAIM}
    shells = 1

    def run(self):
        measured = super().run()
        measured["state load to first vCPU entry"] = measured.pop("first vCPU entry")
        return measured


class WarmboxNoShell(WarmboxMiss):
    name = "warmbox, a miss without a shell"
    shells = 0


class Echo:
    """The message of a claim to a server that only decodes and echoes it: what a claim is compared with."""

    name = "bare msgpack echo"
    lines = {"reply": None}

    def __init__(self, stack, directory, options):
        path = directory / "echo"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            self.process = subprocess.Popen(
                [neighbour("bench-echo"), str(listener.fileno())], stdin=subprocess.PIPE, pass_fds=[listener.fileno()]
            )
        stack.callback(end, self.process)
        try:
            self.rpc = connect(str(path))
        except (OSError, ImportError) as error:
            raise Unavailable(str(error)) from None
        stack.callback(self.rpc.close)
        self.template = options.template or "template"

    def run(self):
        start = time.monotonic_ns()
        self.rpc.call("acquire", template=self.template, timeout_ms=0, pass_fd=True)
        return {"reply": time.monotonic_ns() - start}


PEERS = [BareProcess, Runc, Runsc, QemuKvm, QemuTcg, Floor, Echo, WarmboxShell, WarmboxNoShell, WarmboxParked]


# --- the report ----------------------------------------------------------------------------------------------------


def percentile(ordered, share):
    """Nearest rank."""
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)]


def series(name, stop_line, samples, failed):
    made = {"name": name, "unit": "ns", "n": len(samples), "failed": failed}
    if stop_line:
        made["stop_line"] = stop_line
    if samples:
        ordered = sorted(samples)
        made.update(
            min=ordered[0], mean=sum(ordered) // len(ordered), max=ordered[-1],
            **{key: percentile(ordered, share) for key, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999))},
            histogram=[[value, len(list(group))] for value, group in itertools.groupby(ordered)],
        )  # fmt: skip
    return made


def measure(peers, count):
    samples = {(peer, line): [] for peer in peers for line in peer.lines}
    failures = {peer: [] for peer in peers}
    for number in range(count):
        print(f"round {number + 1} of {count}", file=sys.stderr)
        for peer in random.sample(peers, len(peers)):
            try:
                for line, ns in peer.run().items():
                    samples[peer, line].append(ns)
            except (Failed, OSError) as failure:
                failures[peer].append(str(failure))
                print(f"{peer.name}: {failure}", file=sys.stderr)
    return samples, failures


def report(peers, missing, samples, failures, count):
    made = {
        "bench": "peers",
        "title": "What else starts something isolated on this host, and how long does each take?",
        "n": count,
        "series": [],
        "values": [],
        "notes": [
            "Rounds in which every peer runs once, in random order. Every peer's clock starts before it is asked or started.",
            "The client of warmbox and of the echo is this Python program: their difference is the claim's own cost.",
        ],
    }
    for (peer, line), ns in samples.items():
        made["series"].append(series(f"{peer.name}: {line}", peer.lines[line], ns, len(failures[peer])))
    for peer in peers:
        if hasattr(peer, "version"):
            made["values"].append({"name": peer.name, "unit": "text", "value": peer.version()})
        if failures[peer]:
            made["notes"].append(f"{peer.name}: {len(failures[peer])} of {count} failed; the last: {failures[peer][-1]}")
    for name, reason in missing:
        made["values"].append({"name": name, "unit": "text", "value": f"not measured: {reason}"})
    return made


def parse():
    parser = argparse.ArgumentParser(prog="bench-peers", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds only")
    parser.add_argument("--count", type=int, help=f"rounds ({COUNT})")
    parser.add_argument("--socket", default=os.environ.get("WARMBOX_SOCKET", "/run/warmbox/warmboxd.sock"))
    parser.add_argument("--template", help="of the daemon; it has a busybox")
    options = parser.parse_args()
    options.count = options.count or (QUICK_COUNT if options.quick else COUNT)
    options.pool_before = {}
    return options


def restore_pool(options):
    if options.pool_before:
        with contextlib.suppress(OSError, Failed), contextlib.closing(connect(options.socket)) as rpc:
            rpc.call("pool.set", template=options.template, **options.pool_before)


def interrupted(number, frame):
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def main():
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="warmbox-peers-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(restore_pool, options)
        peers, missing = [], []
        for kind in PEERS:
            try:
                peers.append(kind(stack, directory, options))
            except Unavailable as reason:
                missing.append((kind.name, str(reason)))
                print(f"{kind.name}: {reason}", file=sys.stderr)
        samples, failures = measure(peers, options.count)
        print(json.dumps(report(peers, missing, samples, failures, options.count)))


if __name__ == "__main__":
    main()
