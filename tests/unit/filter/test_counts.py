# SPDX-License-Identifier: Apache-2.0
"""The counts in docs/security.md are those of the tables, and a vCPU's are few. Prints TAP.

With --write as third argument the table in the page is made anew."""

import json
import pathlib
import subprocess
import sys

BEGIN = "<!-- filters: begin; tests/unit/filter/test_counts.py -->\n"
END = "<!-- filters: end -->\n"
WHEN = {
    "vmm setup": "main thread, set-up | its start",
    "vmm booted": "main thread, a template's VM | a kernel is booted",
    "vmm loaded": "main thread, a sandbox | a state is loaded",
    "vmm vcpu": "vCPU thread | its start",
    "vmm vcpu_pvm": "vCPU thread, kvm-pvm hosts | its start",
    "pager serve": "all threads | its set-up is done",
    "spawner serve": "the one thread, and VMMs until they set theirs | its set-up is done",
    "manager serve": "all threads | its set-up is done",
}
HEAD = """| program | thread and stage | from | system calls | of `ioctl`: requests |
|---|---|---|---|---|
"""
VCPU_MOST = 12


def rows(stages):
    for stage in stages:
        let = [rule for rule in stage["rules"] if not rule["answer"]]
        calls = {rule["call"] for rule in let}
        requests = {rule["conditions"][0]["text"] for rule in let if rule["call"] == "ioctl" and rule["conditions"]}
        name = f"{stage['program']} {stage['stage']}"
        yield name, len(calls), f"| {stage['program']} | `{stage['stage']}`: {WHEN[name]} | {len(calls)} | {len(requests)} |\n"


def main():
    stages = json.loads(subprocess.run([sys.argv[1], "json"], check=True, capture_output=True, text=True).stdout)
    page = pathlib.Path(sys.argv[2])
    text = page.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    table = list(rows(stages))
    wanted = before + BEGIN + HEAD + "".join(row for _, _, row in table) + END + after
    if len(sys.argv) > 3 and sys.argv[3] == "--write":
        page.write_text(wanted)
        return 0
    most = max(count for name, count, _ in table if name.startswith("vmm vcpu"))
    rare = [rule for stage in stages for rule in stage["rules"] if rule["rare"]]
    print("1..3")
    print(f"{'ok' if text == wanted else 'not ok'} 1 - the counts in {page.name} are those of the tables")
    print(f"{'ok' if 0 < most <= VCPU_MOST else 'not ok'} 2 - a vCPU thread has {most} system calls, at most {VCPU_MOST}")
    said = all(len(rule["rare"]) > 10 and len(rule["why"]) > 4 for rule in rare)
    print(f"{'ok' if said else 'not ok'} 3 - rules that no trace shows say why")
    return 0


sys.exit(main())
