# SPDX-License-Identifier: Apache-2.0
"""Building a template: how long it takes, and that what was built can be listed, inspected, verified and removed."""

import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from harness import WARMBOX, Daemon, build_command, connect_agent, environment, store_with, tap_main, wait_for


class Build(unittest.TestCase):
    def test_build_list_inspect_verify_remove(self):
        directory = tempfile.mkdtemp(prefix="wb-build-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        store = pathlib.Path(directory) / "store"

        def warmbox(*args, check=True):
            return subprocess.run([str(WARMBOX), *args, "--store", str(store)], check=check, capture_output=True,
                                  env=environment(), text=True)

        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(build_command(store, "python"), check=True, env=environment(), stdout=sys.stderr)
        elapsed, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"# python template built in {elapsed:.1f} s, of which {used:.1f} s of a processor")
        # Its time depends on what else the machine does. The sanitizers' own cost is not the template's.
        if not os.environ.get("WARMBOX_SANITIZED"):
            self.assertLess(used, 60)

        listed = json.loads(warmbox("--json", "template", "list").stdout)
        self.assertEqual([t["name"] for t in listed["templates"]], ["python"])
        manifest = json.loads(warmbox("--json", "template", "inspect", "python").stdout)
        self.assertEqual(manifest["memory_bytes"], 128 << 20)
        self.assertTrue(manifest["resident"])
        # A working set, well under the half of the memory that it may have.
        pages = manifest["working_set_pages"]
        print(f"# its working set has {pages} pages")
        self.assertGreater(pages, 200)
        self.assertLess(pages, (128 << 20) // 4096 // 2)
        self.assertEqual(manifest["working_set_bytes"], pages * 4096)
        self.assertRegex(warmbox("template", "inspect", "python").stdout, rf"(?m)^working_set_pages +{pages}$")
        warmbox("template", "verify", "python")

        # A second build of the name replaces it; nothing of the first is left.
        built = subprocess.run(build_command(store, "tiny", record="0"), check=True, env=environment(), capture_output=True, text=True)
        self.assertIn("no working set", built.stdout)
        self.assertNotIn("record", built.stderr)
        unrecorded = json.loads(warmbox("--json", "template", "inspect", "tiny").stdout)
        self.assertEqual(unrecorded["working_set_pages"], 0)
        # A daemon that runs follows: leases keep what they have, new ones get the new snapshot.
        renamed = [c if c != "tiny" else "python" for c in build_command(store, "tiny", record="1")]
        with Daemon(store) as daemon:
            old = daemon.call("acquire", template="python", timeout_ms=60000)
            self.assertEqual(old["snapshot"], manifest["id"])
            subprocess.run(renamed, check=True, env=environment(), stdout=sys.stderr)
            wait_for(lambda: daemon.pool("python")["snapshot"] != manifest["id"], 30, "the daemon has the new snapshot")
            new = daemon.call("acquire", template="python", timeout_ms=60000)
            self.assertEqual(new["snapshot"], daemon.pool("python")["snapshot"])
            self.assertEqual(daemon.call("get", lease=old["lease"])["snapshot"], manifest["id"])
            recorded = daemon.call("template.inspect", name="python")["working_set_pages"]
            self.assertGreater(recorded, 200)
            with connect_agent(old["socket"]) as agent:
                self.assertEqual(agent.resident("print(2 + 3)")[:2], ({"code": 0}, b"5\n"))
        self.assertNotEqual(json.loads(warmbox("--json", "template", "inspect", "python").stdout)["id"], manifest["id"])
        self.assertEqual(len(list((store / "snapshots").iterdir())), 2)

        warmbox("template", "remove", "tiny")
        warmbox("template", "remove", "python")
        self.assertEqual([p for p in store.rglob("*") if p.is_file()], [])
        self.assertNotEqual(warmbox("template", "remove", "python", check=False).returncode, 0)

    def test_free_memory_is_not_stored(self):
        directory = tempfile.mkdtemp(prefix="wb-build-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)

        def stored_chunks(store):
            shown = subprocess.run([str(WARMBOX), "--json", "template", "inspect", "tiny", "--store", str(store)],
                                   check=True, capture_output=True)
            return json.loads(shown.stdout)["stored_chunks"]

        used_and_freed = 4 << 20
        warm = f"/bin/sh -c 'yes | head -c {used_and_freed} > /tmp/x; rm /tmp/x'"
        subprocess.run(build_command(directory, "tiny", record="0", warm=[warm]), check=True, env=environment(),
                       stdout=sys.stderr)
        without, after = stored_chunks(store_with("tiny")), stored_chunks(directory)
        print(f"# {without} chunks stored, {after} when {used_and_freed >> 16} more were used and freed")
        self.assertLess(after - without, (used_and_freed >> 16) // 2)

    def test_what_cannot_be_recorded_is_not_published(self):
        directory = tempfile.mkdtemp(prefix="wb-build-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        store = pathlib.Path(directory) / "store"
        command = build_command(store, "tiny", **{"record": "1", "record-exec": "/bin/sh -c 'echo was here; exit 7'"})
        built = subprocess.run(command, env=environment(), capture_output=True, text=True)
        self.assertEqual(built.returncode, 1)
        self.assertIn("the frozen guest, restored: command '/bin/sh' ended with exit status 7", built.stderr)
        self.assertIn("was here", built.stderr)
        self.assertEqual([p for p in store.rglob("*") if p.is_file()], [])


if __name__ == "__main__":
    tap_main()
