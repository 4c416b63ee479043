#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the recorded trace of the policy's simulation: when the jobs of a build began.

    meson setup BUILD && ninja -C BUILD && meson test -C BUILD --suite unit
    tests/unit/pool/record_trace.py BUILD > tests/unit/pool/trace_build.csv

A build and test run that gives each compiler, linker and test a sandbox of its own would have acquired
one at each of these times. Compilations and links are in .ninja_log, which has for each output how long
its command ran and when it ended; tests are in meson-logs/testlog.json. Times are milliseconds since the first
job; pauses between builds are cut to a minute, so that a log of several days does not become a trace of nothing.
"""

import json
import pathlib
import sys

PAUSE_MAX_MS = 60_000


def ninja_jobs(path):
    seen = set()
    for line in path.read_text().splitlines()[1:]:
        began, ended, written_ns, _, command = line.split("\t")
        # A command with several outputs is one job.
        if int(written_ns) > 0 and (began, ended, command) not in seen:
            seen.add((began, ended, command))
            yield int(written_ns) / 1e6 - (int(ended) - int(began))


def test_jobs(path):
    for line in path.read_text().splitlines() if path.exists() else []:
        yield json.loads(line)["starttime"] * 1e3


def main():
    build = pathlib.Path(sys.argv[1])
    jobs = sorted([*ninja_jobs(build / ".ninja_log"), *test_jobs(build / "meson-logs/testlog.json")])
    at = 0
    print("# When the jobs of one build and test run of this project began. Made by record_trace.py from the logs of Ninja and")
    print("# Meson, on two cores that had other work too.")
    print("milliseconds")
    for previous, job in zip([jobs[0], *jobs], jobs):
        at += min(job - previous, PAUSE_MAX_MS)
        print(round(at))


main()
