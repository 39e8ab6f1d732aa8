# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process is made of, taken from /proc by other means than the engine's, to compare before and after."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Snapshot:
    """Mappings as /proc/PID/maps has them, a digest of all executable bytes, and the open descriptors."""

    maps: str
    code: dict[str, str]
    descriptors: dict[str, str]


def snapshot(pid: int) -> Snapshot:
    """What the process is made of now."""
    maps = Path("/proc/%d/maps" % pid).read_text()
    code = {}
    with open("/proc/%d/mem" % pid, "rb", 0) as memory:
        for line in maps.splitlines():
            fields = line.split()
            if "x" in fields[1] and not line.endswith("[vsyscall]"):
                start, end = (int(part, 16) for part in fields[0].split("-"))
                memory.seek(start)
                code[fields[0]] = hashlib.sha256(memory.read(end - start)).hexdigest()
    return Snapshot(maps, code, descriptors(pid))


def descriptors(pid: int) -> dict[str, str]:
    """The open descriptors of a process, with what they lead to."""
    folder = "/proc/%d/fd" % pid
    return {name: os.readlink(os.path.join(folder, name)) for name in os.listdir(folder)}


def tracers(pid: int) -> set[str]:
    """The TracerPid of every thread; {"0"} when nobody traces it."""
    found = set()
    for task in Path("/proc/%d/task" % pid).iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("TracerPid:"):
                found.add(line.split()[1])
    return found


def states(pid: int) -> set[str]:
    """The state letter of every thread."""
    return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path("/proc/%d/task" % pid).iterdir()}
