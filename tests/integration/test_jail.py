# SPDX-License-Identifier: Apache-2.0
"""The jail, as it is seen from outside: of parked and leased sandboxes of a real daemon."""

import os
import pathlib
import re
import shutil
import unittest

from harness import Daemon, connect_agent, store_with, tap_main, wait_for

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
UIDS = range(1700000000, 1700000004)
CONFIG = "[jail]\n{}\n"
SANITIZED = os.environ.get("WARMBOX_SANITIZED")


def status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


def namespaces(pid):
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}


def limits(pid):
    text = pathlib.Path(f"/proc/{pid}/limits").read_text()
    return {name: tuple(value.split()[:2]) for name, value in re.findall(r"^(Max [a-z ]+?)  +(.*)$", text, re.M)}


def descriptors(pid):
    """Their kinds: anon_inode names, devices, and what a link begins with."""
    found = {}
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        found[int(fd.name)] = re.sub(r"[\[:].*", "", os.readlink(fd).replace("anon_inode:", "").strip("[]"))
    return found


def exec_echo(lease):
    agent = connect_agent(lease["socket"], timeout=120)
    request = agent.send("exec", {"argv": ["/bin/echo", "jailed"], "stdin": False})
    result = agent.wait(request), agent.output(request, "stdout").decode().strip()
    agent.close()
    return result


@unittest.skipIf(os.geteuid() != 0, "only root has the full jail")
class Full(unittest.TestCase):
    def assert_jailed(self, pid, uids=UIDS):
        now = status(pid)
        uid = now["Uid"][0]
        self.assertIn(int(uid), uids)
        self.assertEqual(now["Uid"], [uid] * 4)
        self.assertEqual(now["Gid"], [uid] * 4)
        self.assertEqual(now["Groups"], [])
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(now[capabilities][0], 16), 0, capabilities)
        self.assertEqual(now["NoNewPrivs"], ["1"])
        self.assertEqual(now["NSpid"], [str(pid), "1"])
        for ids in ("uid_map", "gid_map"):
            self.assertEqual(pathlib.Path(f"/proc/{pid}/{ids}").read_text().split(), [uid, uid, "1"])
        self.assertEqual(pathlib.Path(f"/proc/{pid}/environ").read_bytes(), b"")
        allowed = limits(pid)
        self.assertEqual(allowed["Max core file size"], ("0", "0"))
        self.assertEqual(allowed["Max processes"], ("64", "64"))
        self.assertLessEqual(int(allowed["Max open files"][1]), 1024)
        # Undumpable: its files in /proc are root's.
        self.assertEqual(os.stat(f"/proc/{pid}/environ").st_uid, 0)
        if not SANITIZED:
            mounts = pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            self.assertEqual([line.split()[4] for line in mounts], ["/"])
            self.assertEqual(mounts[0].split()[5].split(",")[0], "ro")
            self.assertEqual(os.listdir(f"/proc/{pid}/root/"), [])
        network = pathlib.Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        self.assertEqual([line.split(":")[0].strip() for line in network], ["lo"])
        return int(uid)

    def assert_descriptors(self, pid):
        found = descriptors(pid)
        self.assertEqual([found[fd] for fd in range(5)], ["/dev/null"] * 3 + ["socket", "/dev/kvm"])
        allowed = {"/dev/null", "socket", "/dev/kvm", "eventpoll", "eventfd", "kvm-vm", "kvm-vcpu", "io_uring", "userfaultfd"}
        files = [name for name in found.values() if name not in allowed]
        # The memory of its image, and its disk: both read-only.
        for fd, name in found.items():
            if name in files:
                flags = int(re.search(r"flags:\s+(\d+)", pathlib.Path(f"/proc/{pid}/fdinfo/{fd}").read_text())[1], 8)
                self.assertEqual(flags & os.O_ACCMODE, os.O_RDONLY, name)
        self.assertLessEqual(len(files), 3, files)

    def test_parked_and_leased(self):
        config = CONFIG.format(f"level = full\nuids = {UIDS[0]}-{UIDS[-1]}")
        with Daemon(store_with("tiny"), extra_config=config) as daemon:
            daemon.fill("tiny", 2)
            lease = daemon.call("acquire", template="tiny", timeout_ms=60000)
            wait_for(lambda: daemon.pool("tiny")["parked"] == 2, 60, "refilled")
            vmms = daemon.vmms()
            self.assertEqual(len(vmms), 3)
            uids = [self.assert_jailed(pid) for pid in vmms]
            self.assertEqual(len(set(uids)), 3)
            for pid in vmms:
                self.assert_descriptors(pid)
            # None shares a namespace with another, the spawner or the host.
            spawner = daemon.helper("warmbox-spawner")
            for name in NAMESPACES:
                links = [namespaces(pid)[name] for pid in vmms] + [namespaces("self")[name]]
                if name in ("ipc", "mnt", "net", "uts"):
                    links.append(namespaces(spawner)[name])
                self.assertEqual(len(set(links)), len(links), (name, links))
            self.assertEqual(exec_echo(lease), ({"code": 0}, "jailed"))
            # Four ids for three sandboxes: each is used again, and never by two at once.
            for _ in range(3):
                daemon.call("release", lease=lease["lease"])
                lease = daemon.call("acquire", template="tiny", timeout_ms=60000)
                wait_for(lambda: daemon.pool("tiny")["parked"] == 2, 60, "refilled")
                wait_for(lambda: len(daemon.vmms()) == 3, 10, "the released one is gone")
                uids = [int(status(pid)["Uid"][0]) for pid in daemon.vmms()]
                self.assertEqual(len(set(uids)), 3)
        self.assertEqual([pid for pid in vmms if os.path.exists(f"/proc/{pid}")], [])

    def test_a_shared_network_is_as_empty(self):
        with Daemon(store_with("tiny"), extra_config=CONFIG.format(f"network = shared\nuids = {UIDS[0]}-{UIDS[-1]}")) as daemon:
            daemon.fill("tiny", 2)
            vmms = daemon.vmms()
            for pid in vmms:
                self.assert_jailed(pid)
            links = {os.readlink(f"/proc/{pid}/ns/net") for pid in (*vmms, daemon.helper("warmbox-spawner"))}
            self.assertEqual(len(links), 1)
            self.assertNotEqual(links, {os.readlink("/proc/self/ns/net")})

    def test_more_sandboxes_than_ids(self):
        with Daemon(store_with("tiny"), extra_config=CONFIG.format(f"uids = {UIDS[0]}-{UIDS[0]}")) as daemon:
            daemon.fill("tiny", 1)
            self.assertEqual(self.assert_jailed(daemon.vmms()[0]), UIDS[0])
            daemon.call("pool.set", template="tiny", target=2)
            wait_for(lambda: "user ids" in (daemon.pool("tiny")["last_error"] or ""), 20, "it says what is lacking")


class Levels(unittest.TestCase):
    def test_rootless(self):
        with Daemon(store_with("tiny"), extra_config=CONFIG.format("level = rootless")) as daemon:
            daemon.fill("tiny", 1)
            [pid] = daemon.vmms()
            now = status(pid)
            self.assertEqual(int(now["Uid"][0]), os.geteuid())
            self.assertEqual([int(now[c][0], 16) for c in ("CapPrm", "CapEff", "CapBnd")], [0, 0, 0])
            mine, its = namespaces("self"), namespaces(pid)
            self.assertEqual([name for name in NAMESPACES if mine[name] == its[name]], [])

    def test_none_is_asked_for_by_name(self):
        with Daemon(store_with("tiny"), extra_config=CONFIG.format("level = none")) as daemon:
            daemon.fill("tiny", 1)
            [pid] = daemon.vmms()
            self.assertEqual(namespaces(pid), namespaces("self"))
            self.assertIn("not jailed", daemon.log_text())

    def test_a_level_that_cannot_be_had_is_refused(self):
        daemon = Daemon(store_with("tiny"), extra_config=CONFIG.format("level = full"))
        self.addCleanup(shutil.rmtree, daemon.directory)
        self.addCleanup(daemon.log.close)
        conf = daemon.config.read_text() + "\n[daemon]\nspawner = /bin/false\n"
        daemon.config.write_text(conf)
        with self.assertRaisesRegex(AssertionError, "no VMM can be started in a full jail"):
            with daemon:
                pass


tap_main()
