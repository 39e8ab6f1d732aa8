# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The mappings of a process, from /proc/PID/maps (proc_pid_maps(5))."""

from __future__ import annotations

import bisect
import re
from typing import Iterator, NamedTuple

_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) (\S+) (\d+) *(.*)$", re.MULTILINE)
DELETED = " (deleted)"
_TOP = 1 << 64


class Mapping(NamedTuple):
    """One mapping: addresses [start, end), permissions as in `r-xp`, file offset, `major:minor`, inode, path or
    name.
    """

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    path: str

    def is_file(self) -> bool:
        """True for a mapping of a file with a name, deleted or not."""
        return self.inode != 0 and self.path.startswith("/")

    def is_executable(self) -> bool:
        """True when code may run here."""
        return self.permissions[2] == "x"

    def is_shared(self) -> bool:
        """True when who writes here changes it for all who map it, and the file."""
        return self.permissions[3] == "s"

    def is_writable(self) -> bool:
        """True when the program may write here."""
        return self.permissions[1] == "w"


def parse_maps(text: str) -> list[Mapping]:
    """All mappings in the text of /proc/PID/maps, in address order."""
    return [
        Mapping(int(start, 16), int(end, 16), permissions, int(offset, 16), device, int(inode), path)
        for start, end, permissions, offset, device, inode, path in _LINE.findall(text)
    ]


def mapping_at(mappings: list[Mapping], address: int) -> Mapping | None:
    """The mapping, of a list in address order, that holds `address`, or None."""
    index = bisect.bisect_right(mappings, (address, _TOP)) - 1
    if index >= 0 and address < mappings[index].end:
        return mappings[index]
    return None


def gaps(mappings: list[Mapping], low: int, high: int) -> Iterator[tuple[int, int]]:
    """The free address ranges (start, end) inside [low, high), in address order."""
    at = low
    for mapping in mappings:
        if mapping.start > at:
            yield at, min(mapping.start, high)
        at = max(at, mapping.end)
        if at >= high:
            return
    yield at, high
