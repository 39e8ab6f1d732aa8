# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The ELF header and program headers of an object, from a file or from memory (System V gABI, chapters 4 and 5)."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Callable

# read(address, size) -> exactly `size` bytes, or an OSError
Read = Callable[[int, int], bytes]

ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_TLS = 1, 2, 4, 7
PF_X, PF_W, PF_R = 1, 2, 4
MACHINES = {62: "x86_64", 183: "aarch64"}
# The kernel refuses programs with more than 64 KiB of program headers (fs/binfmt_elf.c): 1170 entries.
_MOST_PROGRAM_HEADERS = 1170


class NotElf(ValueError):
    """These bytes are no 64-bit little-endian ELF object."""


@dataclass(frozen=True)
class Segment:
    """One program header; `address` is the link-time virtual address, sizes are bytes."""

    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    size: int

    def holds(self, address: int, size: int) -> bool:
        """True when [address, address + size) lies inside the segment as it is in memory."""
        return self.address <= address and size >= 0 and address + size <= self.address + self.size


@dataclass(frozen=True)
class Header:
    """What the loader of an object needs to know of it."""

    kind: int
    machine: str
    segments: tuple[Segment, ...]

    def loads(self) -> tuple[Segment, ...]:
        """The segments that are mapped, in address order."""
        return self._loads

    @functools.cached_property
    def _loads(self) -> tuple[Segment, ...]:
        return tuple(segment for segment in self.segments if segment.kind == PT_LOAD)

    def first(self, kind: int) -> Segment | None:
        """The first segment of a kind, or None."""
        for segment in self.segments:
            if segment.kind == kind:
                return segment
        return None

    def lowest_page(self) -> int:
        """The link-time address at which the object's first page is mapped."""
        return min((segment.address for segment in self.loads()), default=0) & ~0xFFF


def parse_header(read: Read, start: int = 0) -> Header:
    """The header of the object whose first byte `read` has at `start`.

    Raises NotElf for anything but a 64-bit little-endian object, and what `read` raises.
    """
    raw = read(start, 64)
    if len(raw) < 64 or raw[:6] != b"\x7fELF\x02\x01":
        raise NotElf("not a 64-bit little-endian ELF object")
    table_offset = struct.unpack_from("<Q", raw, 32)[0]
    entry_size, count = struct.unpack_from("<HH", raw, 54)
    if (count and entry_size != 56) or count > _MOST_PROGRAM_HEADERS:
        raise NotElf("program header table of %d entries of %d bytes" % (count, entry_size))
    table = read(start + table_offset, count * 56) if count else b""
    if len(table) != count * 56:
        raise NotElf("program header table of %d entries past the end" % count)
    return _header(raw, table)


@functools.lru_cache(maxsize=64)
def _header(raw: bytes, table: bytes) -> Header:
    """The header of these bytes, kept: the same libraries come back in process after process."""
    kind, machine = struct.unpack_from("<HH", raw, 16)
    segments = tuple(
        Segment(
            kind=fields[0], flags=fields[1], offset=fields[2], address=fields[3], file_size=fields[5], size=fields[6]
        )
        for fields in struct.iter_unpack("<IIQQQQQQ", table)
    )
    return Header(kind=kind, machine=MACHINES.get(machine, "machine %d" % machine), segments=segments)
