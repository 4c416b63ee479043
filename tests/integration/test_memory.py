# SPDX-License-Identifier: Apache-2.0
"""What `stats` says of memory is what the kernel says, and what the host loses."""

import json
import pathlib
import re
import unittest

from harness import Daemon, RpcError, mem_available_kib, store_with, tap_main, wait_for

MIB = 1 << 20


def read_smaps(pid):
    """Independent of the daemon's reader: {path: {figure: bytes}}."""
    mappings = {}
    current = None
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s*(.*)", line)
        if head:
            current = mappings.setdefault(head.group(1), {})
        elif line.endswith(" kB"):
            key, value = line[:-3].split(":")
            current[key] = current.get(key, 0) + int(value) * 1024
    return mappings


class Memory(unittest.TestCase):
    def test_figures_are_those_of_the_kernel(self):
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            daemon.fill("tiny", 4)
            lease = daemon.call("acquire", template="tiny")
            daemon.call("pool.set", template="tiny", target=3)
            daemon.fill("tiny", 3)
            memory = daemon.call("stats", memory=True, sandboxes=True)["memory"]
            (template,) = memory["templates"]
            self.assertEqual((template["parked"], template["leased"], template["measured"]), (3, 1, 4))
            self.assertEqual([s["lease"] for s in memory["sandboxes"]].count(lease["lease"]), 1)
            for sandbox in memory["sandboxes"]:
                if sandbox["lease"]:
                    continue  # it runs; what is parked does not change
                mappings = read_smaps(sandbox["pid"])
                image = next(m for path, m in mappings.items() if path.startswith("/memfd:warmbox-image"))
                figures = sandbox["memory"]
                self.assertEqual(figures["guest_private"], image["Anonymous"])
                self.assertEqual(figures["image_shared"], image["Rss"] - image["Anonymous"])
                self.assertEqual(
                    figures["vmm_heap"] + figures["vmm_data"] + figures["vmm_other"],
                    sum(m["Private_Dirty"] for m in mappings.values() if m is not image),
                )
                self.assertGreater(figures["guest_private"], 0)
                self.assertGreater(figures["page_tables"], 0)
                # Its share of the image is less than what it has mapped: others have it mapped, too.
                self.assertLess(image["Pss"] - image["Anonymous"], figures["image_shared"])
            self.assertLessEqual(template["image_resident"], template["image_bytes"])
            self.assertGreaterEqual(template["image_resident"], template["mean"]["image_shared"])

            alone = daemon.call("stats", memory=True, lease=lease["lease"], sandboxes=True)["memory"]
            self.assertEqual([s["pid"] for s in alone["sandboxes"]], [lease["pid"]])
            daemon.call("release", lease=lease["lease"])
            with self.assertRaises(RpcError) as refused:
                daemon.call("stats", memory=True, lease=lease["lease"])
            self.assertEqual(refused.exception.code, "not_found")

    def test_the_sum_is_what_the_host_loses(self):
        """Others use the host's memory, too: one of several looks has to agree."""
        looks = []
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            for _ in range(5):
                daemon.fill("tiny", 1)
                wait_for(lambda: len(daemon.vmms()) < 4, 30, "the others are gone")
                before = mem_available_kib() * 1024
                daemon.fill("tiny", 1 + 48)
                (template,) = daemon.call("stats", memory=True)["memory"]["templates"]
                lost = before - mem_available_kib() * 1024
                own = 48 * template["mean"]["own"]
                self.assertGreater(own, 48 * 64 * 1024)
                looks.append((own, lost))
                # Slab, KVM and noise come on top of what is known for single processes.
                if own < lost + 8 * MIB and lost < 5 * own + 8 * MIB:
                    return
        self.fail(f"(own, lost by the host): {looks}")


class CommandLine(unittest.TestCase):
    def test_prints_tables_and_json(self):
        with Daemon(store_with("tiny"), pool="default_target = 0\n") as daemon:
            daemon.fill("tiny", 2)
            lines = daemon.cli("stats", "tiny", "--sandboxes").stdout.decode().splitlines()
            self.assertEqual(lines[0].split()[:4], ["TEMPLATE", "READY", "LEASED", "MEASURED"])
            self.assertEqual(lines[1].split()[:4], ["tiny", "2", "0", "2"])
            self.assertEqual(sum("(parked)" in line for line in lines), 2)
            self.assertTrue(any("in no counter" in line for line in lines))
            whole = json.loads(daemon.cli("stats", "--memory", "--json").stdout)
            self.assertEqual(whole["memory"]["templates"][0]["measured"], 2)
            self.assertNotIn("memory", json.loads(daemon.cli("stats", "--json").stdout))
            refused = daemon.cli("stats", "no-such", check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(b"no pool of this template", refused.stderr)


if __name__ == "__main__":
    tap_main()
