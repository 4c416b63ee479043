#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the initramfs: the agent as /init, the nodes and directories it needs before it mounts anything.

usage: mkinitramfs.py AGENT OUTPUT

The format is cpio "newc" (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's source). It is not
compressed: the guest's kernel would have to undo that. Owners and times are fixed, so that equal agents give equal files.
"""

import sys

DIRECTORY = 0o040755
EXECUTABLE = 0o100755
CHARACTER_DEVICE = 0o020600


def entry(inode, name, mode, data=b"", device=(0, 0)):
    encoded = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return pad(header) + pad(data)


def pad(data, alignment=4):
    return data + b"\0" * (-len(data) % alignment)


def main(agent, output):
    with open(agent, "rb") as file:
        program = file.read()
    names = [
        ("dev", DIRECTORY, b"", (0, 0)),
        ("dev/console", CHARACTER_DEVICE, b"", (5, 1)),
        ("proc", DIRECTORY, b"", (0, 0)),
        ("init", EXECUTABLE, program, (0, 0)),
    ]
    archive = b"".join(entry(i, *rest) for i, rest in enumerate(names, start=1))
    archive += entry(0, "TRAILER!!!", 0)
    with open(output, "wb") as file:
        file.write(pad(archive, 512))


main(*sys.argv[1:])
