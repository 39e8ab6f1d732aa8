# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process looks like from outside, so that two moments can be compared: mappings, code, files.

The heap grows by itself and data is written all the time, so no writable bytes and no anonymous data mappings
are compared. Every mapping of a file, every executable mapping, and every byte that a file gives to run or to
read only must stay as it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re


@dataclasses.dataclass(frozen=True)
class Mapping:
    """One line of /proc/PID/maps (proc_pid_maps(5))."""

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    path: str

    @property
    def of_file(self) -> bool:
        return self.inode != 0

    def __str__(self) -> str:
        return f"{self.start:x}-{self.end:x} {self.permissions} {self.path or '(anonymous)'}"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One process at one moment."""

    mappings: tuple[Mapping, ...]  # all
    contents: frozenset[tuple[Mapping, str]]  # SHA-256 of what files give to read or run but not to write
    files: frozenset[tuple[int, str]]  # open descriptors and their names, sockets aside
    threads: frozenset[int]


def take(pid: int) -> Snapshot:
    """Read the process as it runs. Raises OSError when it is gone or may not be read."""
    mappings = _mappings(pid)
    contents = set()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for mapping in mappings:
            if mapping.of_file and mapping.permissions.startswith("r") and "w" not in mapping.permissions:
                contents.add((mapping, _digest(memory.fileno(), mapping)))
    return Snapshot(
        tuple(mappings),
        frozenset(contents),
        frozenset(_files(pid)),
        frozenset(map(int, os.listdir(f"/proc/{pid}/task"))),
    )


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What does not stand in `after` as it stood in `before`; an empty list when nothing was left behind."""
    found = []
    for what, belongs in (("of a file", _of_file), ("executable", _executable)):
        old, new = set(filter(belongs, before.mappings)), set(filter(belongs, after.mappings))
        found += [f"mapping {what} is gone: {mapping}" for mapping in sorted(old - new, key=str)]
        found += [f"new mapping {what}: {mapping}" for mapping in sorted(new - old, key=str)]
    found += [f"left behind: {mapping}" for mapping in after.mappings if "livepatch" in mapping.path]
    old_contents, new_contents = dict(before.contents), dict(after.contents)
    found += [
        f"other bytes in {mapping}"
        for mapping in sorted(old_contents.keys() & new_contents.keys(), key=str)
        if old_contents[mapping] != new_contents[mapping]
    ]
    found += [f"open file: {number} {name}" for number, name in sorted(after.files - before.files)]
    found += [f"closed file: {number} {name}" for number, name in sorted(before.files - after.files)]
    if before.threads != after.threads:
        found.append(f"threads: {sorted(before.threads)} became {sorted(after.threads)}")
    return found


def _of_file(mapping: Mapping) -> bool:
    return mapping.of_file


def _executable(mapping: Mapping) -> bool:
    return "x" in mapping.permissions


def _mappings(pid: int) -> list[Mapping]:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as stream:
        lines = stream.read().splitlines()
    found = []
    for line in lines:
        fields = re.fullmatch(r"(\S+)-(\S+) (\S+) (\S+) (\S+) (\d+) *(.*)", line)
        assert fields is not None, line
        start, end, permissions, offset, device, inode, path = fields.groups()
        found.append(Mapping(int(start, 16), int(end, 16), permissions, int(offset, 16), device, int(inode), path))
    return found


def _digest(memory: int, mapping: Mapping) -> str:
    digest = hashlib.sha256()
    position = mapping.start
    while position < mapping.end:
        part = os.pread(memory, min(1 << 20, mapping.end - position), position)
        assert part, f"{mapping} cannot be read at {position:x}"
        digest.update(part)
        position += len(part)
    return digest.hexdigest()


def _files(pid: int) -> set[tuple[int, str]]:
    directory = f"/proc/{pid}/fd"
    found = set()
    for number in os.listdir(directory):
        try:
            name = os.readlink(os.path.join(directory, number))
        except FileNotFoundError:
            continue  # closed meanwhile
        if not name.startswith("socket:"):
            found.add((int(number), name))
    return found
