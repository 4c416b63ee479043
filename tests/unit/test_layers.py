# SPDX-License-Identifier: Apache-2.0
"""Who may include whom (docs/architecture.md, "Layout"). Prints TAP."""

import pathlib
import re
import subprocess
import sys

SOURCE = pathlib.Path(sys.argv[1])

# folder: the folders it may include; of a foreign folder only the facades below.
MAY_INCLUDE = {
    "base": set(),
    # filter/vmm.c speaks of a descriptor of the control protocol by its name.
    "filter": {"base", "vmm"},
    "vmm": {"base", "filter"},
    "snapshot": {"base"},
    "uffd": {"base", "snapshot"},
    "pool": {"base", "vmm", "snapshot", "uffd", "guest"},
    "rpc": {"base", "pool", "snapshot", "guest"},
    "daemon": {"base", "vmm", "snapshot", "uffd", "pool", "rpc"},
    "cli": {"base", "vmm", "snapshot", "uffd", "rpc", "guest"},
    "guest": {"base"},
    "bench": {"base", "vmm", "snapshot", "uffd", "pool", "rpc", "guest", "tests"},
}
FACADES = {
    "filter": {"filter/filter.h"},
    "vmm": {"vmm/vmm.h", "vmm/control.h"},
    "snapshot": {"snapshot/snapshot.h"},
    "uffd": {"uffd/uffd.h", "uffd/control.h", "uffd/client.h"},
    "pool": {"pool/pool.h", "pool/account.h"},
    "rpc": {"rpc/rpc.h", "rpc/warmbox.h"},
    "guest": {"guest/agent.h", "guest/identity.h"},
    # Benchmarks start VMMs as the tests do, and talk to a tiny guest.
    "tests": {"tests/guest/harness.h", "tests/guest/tiny/touch.h"},
}
# Only these know the event loop.
UV_FOLDERS = {"pool", "rpc", "daemon"}
# The floor that a claim is compared with is a server on the same loop.
UV_FILES = {"bench/echo.c"}
# The client side of rpc/ is linked into programs that have neither a pool nor a loop.
CLIENT_FILES = {"rpc/client.c", "rpc/client.h", "rpc/warmbox.h", "rpc/codec.c", "rpc/codec.h"}


def faults(path, text):
    folder = path.split("/")[0]
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
        if not match:
            continue
        quoted, target = match.group(1) == '"', match.group(2)
        where = f"{path}:{number}: includes {target}"
        if target in ("uv.h",) and path not in UV_FILES and (folder not in UV_FOLDERS or path in CLIENT_FILES):
            yield f"{where}: only {', '.join(sorted(UV_FOLDERS))} know the event loop"
        if not quoted:
            continue
        if "/" not in target:
            yield f"{where}: includes are relative to the root"
            continue
        other = target.split("/")[0]
        if other == folder:
            continue
        if other not in MAY_INCLUDE[folder]:
            yield f"{where}: {folder} may include only {sorted(MAY_INCLUDE[folder])}"
        elif other in FACADES and target not in FACADES[other]:
            yield f"{where}: of {other} only {sorted(FACADES[other])} are for others"
        elif path in CLIENT_FILES and other == "pool":
            yield f"{where}: the client library knows no pool"


def main():
    files = subprocess.run(
        ["git", "-C", str(SOURCE), "ls-files", "*.c", "*.h"], capture_output=True, text=True
    ).stdout.split() or [str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.[ch]")]
    count = bad = 0
    for folder in MAY_INCLUDE:
        found = []
        mine = [f for f in files if f.split("/")[0] == folder]
        for path in mine:
            found += faults(path, (SOURCE / path).read_text())
        count += 1
        bad += bool(found)
        print(f"{'not ok' if found else 'ok'} {count} - includes of {folder}/ ({len(mine)} files)")
        for fault in found:
            print(f"# {fault}")
    # The check itself must be able to fail.
    samples = [
        ("base/x.c", '#include "vmm/vmm.h"'),
        ("vmm/x.c", '#include "snapshot/snapshot.h"'),
        ("pool/x.c", '#include "vmm/ioapic.h"'),
        ("vmm/x.c", "#include <uv.h>"),
        ("rpc/client.c", '#include "pool/pool.h"'),
    ]
    caught = all(list(faults(path, text)) for path, text in samples)
    count += 1
    bad += not caught
    print(f"{'ok' if caught else 'not ok'} {count} - wrong includes are noticed")
    print(f"1..{count}")
    sys.exit(bool(bad))


main()
