# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Names for run-time addresses of a process, for messages: a patch's function, a symbol, or an object and an offset.

Only for use when something was refused: files of objects are read whole.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import stat

from .._elf.header import NotElf, parse_header
from .._elf.object_file import SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, ObjectFile
from .._errors import LivepatchError
from .._process.maps import Mapping, mapping_at
from .._process.process import Process
from .region import Region

# A file larger than this is not read for names, bytes.
_MOST_FILE = 512 << 20
# Reaching further behind a symbol of no size, an address is not said to be in it, bytes.
_MOST_APART = 1 << 16


class AddressNames:
    """What addresses of a process are called; `regions` are the patches in it."""

    def __init__(self, process: Process, mappings: list[Mapping], regions: list[Region]) -> None:
        self._process = process
        self._mappings = mappings
        self._known = [part for region in regions for part in _of_region(region)]
        self._objects: dict[tuple[str, int], _Symbols] = {}

    def name(self, address: int) -> str:
        """`function+0x12 (object)`, `object+0x1234` where no symbol is known, else the address."""
        for start, end, name in self._known:
            if start <= address < end:
                return "%s+%#x" % (name, address - start)
        mapping = mapping_at(self._mappings, address)
        if mapping is None or not mapping.is_file():
            return "%#x" % address
        symbols = self._symbols(mapping)
        link_address = symbols.link_address(address - mapping.start + mapping.offset)
        title = mapping.path.rpartition("/")[2]
        name = symbols.name(link_address)
        return "%s (%s)" % (name, title) if name else "%s+%#x" % (title, link_address)

    def area(self, address: int) -> str:
        """What kind of memory an address lies in: `[heap]`, a file, or its bounds where it has no name."""
        mapping = mapping_at(self._mappings, address)
        if mapping is None:
            return "memory that has gone"
        return mapping.path or "anonymous memory %#x-%#x" % (mapping.start, mapping.end)

    def is_code(self, address: int) -> bool:
        """True where code may run that follows upon a call: what a return address leads to."""
        mapping = mapping_at(self._mappings, address)
        if mapping is None or not mapping.is_executable() or address - mapping.start < 7:
            return False
        before = self._process.memory.read_some(address - 7, 7)
        # call rel32, or call through a register or memory: ff /2 with its ModRM byte and what belongs to it
        return len(before) == 7 and (
            before[2] == 0xE8 or any(before[at] == 0xFF and before[at + 1] >> 3 & 7 == 2 for at in (0, 1, 3, 4, 5))
        )

    def _symbols(self, mapping: Mapping) -> _Symbols:
        key = (mapping.device, mapping.inode)
        if key not in self._objects:
            self._objects[key] = _Symbols(self._file(mapping))
        return self._objects[key]

    def _file(self, mapping: Mapping) -> bytes:
        """The file that is mapped, also where it was replaced or deleted on disk; empty where it cannot be had."""
        for name in ("map_files/%x-%x" % (mapping.start, mapping.end), "root" + mapping.path):
            with contextlib.suppress(OSError, LivepatchError):
                # What lies at the path now may be anything, and opening a device or a pipe is an act.
                place = self._process.open(name, os.O_PATH)
                try:
                    status = os.fstat(place)
                    if stat.S_ISREG(status.st_mode) and status.st_ino == mapping.inode and status.st_size <= _MOST_FILE:
                        with open("/proc/self/fd/%d" % place, "rb") as stream:
                            return stream.read()
                finally:
                    os.close(place)
        return b""


class _Symbols:
    """The functions of one object's file; none where it has no symbols, or is no object."""

    def __init__(self, raw: bytes) -> None:
        self._segments = []
        found: list[tuple[int, int, str]] = []
        with contextlib.suppress(NotElf, IndexError):
            self._segments = list(parse_header(lambda at, size: raw[at : at + size]).loads())
            file = ObjectFile(raw)
            symbols = file.symbols(SHT_SYMTAB) or file.symbols(SHT_DYNSYM)
            found = [(one.value, one.size, one.name) for one in symbols if one.kind == STT_FUNC and one.value]
        self._found = sorted(found)
        self._starts = [value for value, _size, _name in self._found]

    def link_address(self, offset: int) -> int:
        """The link-time address of an offset in the file; the offset itself where that is not known."""
        for segment in self._segments:
            if segment.offset <= offset < segment.offset + segment.file_size:
                return offset - segment.offset + segment.address
        return offset

    def name(self, address: int) -> str:
        """`function+0x12`, empty for an address that is in none."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0:
            return ""
        value, size, name = self._found[index]
        return "%s+%#x" % (name, address - value) if address - value < (size or _MOST_APART) else ""


def _of_region(region: Region) -> list[tuple[int, int, str]]:
    """The functions that a patch replaces and those it brings, as (start, end, name); then all the rest of it."""
    sites = [site for site in region.sites if site.kind != "data"]
    ends = dict(region.replaced)
    known = [(site.entry, ends[site.entry + 1], site.name) for site in sites if site.entry + 1 in ends]
    for start, size, _protection in region.parts:
        codes = sorted((site.code, site.name) for site in sites if start <= site.code < start + size)
        bounds = [code for code, _name in codes[1:]] + [start + size]
        known += [
            (code, end, "%s of patch %s" % (name, region.id)) for (code, name), end in zip(codes, bounds) if code < end
        ]
    known += [(start, start + size, "patch %s" % region.id) for start, size, _protection in region.parts]
    return known
