# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is fuzzed: all that reads bytes which somebody else may have made, each as a function of the bytes alone.

Each one ends quietly for what is good, and for what is refused as it must be; whatever else it raises is a finding.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import struct
from typing import Callable

from module_utils._elf.build_id import memory_build_id
from module_utils._elf.dynamic import DynamicTable
from module_utils._elf.header import PT_DYNAMIC, NotElf
from module_utils._engine.image import Image
from module_utils._engine.region import HEADER_SIZE, LOADED, Mutable, describe, header, read_region
from module_utils._errors import LivepatchError
from module_utils._patch.manifest import parse_manifest
from module_utils._patch.reader import MOST_MEMORY_BYTES, read_patch
from module_utils._patch.seal import sealed
from module_utils._process.maps import mapping_at, parse_maps
from module_utils._process.memory import Memory

PLACE = 0x400000
_REFUSED = ("patch_corrupt", "patch_unsupported")
# So many reads, and so many bytes, one look at an object in memory may take at most.
_MOST_READS, _MOST_BYTES = 30_000, 16 << 20


class Finding(Exception):
    """What must never be."""


def must(is_so: bool, what: str) -> None:
    if not is_so:
        raise Finding(what)


class Lying(Memory):
    """The memory of a process: these bytes at PLACE, and nothing else; it counts what is read."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(-1, "a process")
        self._raw = raw
        self._reads = self._bytes = 0

    def read(self, address: int, size: int) -> bytes:
        """As Memory.read."""
        data = self.read_some(address, size)
        if len(data) < size or size < 0:
            raise OSError("nothing is mapped there")
        return data

    def read_some(self, address: int, size: int) -> bytes:
        """As Memory.read_some."""
        self._reads, self._bytes = self._reads + 1, self._bytes + size
        must(self._reads <= _MOST_READS and self._bytes <= _MOST_BYTES, "it reads on and on")
        return self._raw[address - PLACE :][:size] if address >= PLACE else b""


def patch(data: bytes) -> None:
    """A whole patch file but for its seal, read and laid out for a process."""
    try:
        found = read_patch(sealed(data))
        must(sum(section.size for section in found.sections) <= MOST_MEMORY_BYTES, "its memory has no bound")
        for section in found.sections:
            must(section.kind == "bss" or len(section.content) == section.size, "a section is not whole")
        for symbol in found.symbols:
            must(symbol.offset + symbol.size <= found.sections[symbol.section].size, "a symbol lies outside")
        for entry in found.relocations:
            must(0 <= entry.offset <= found.sections[entry.section].size - 4, "a field lies outside")
        image = Image(found, 4096)
        addresses = {one.symbol: PLACE + one.offset for one in found.manifest.references}
        must(len(image.linked(PLACE << 1, addresses)) == image.size, "the image has another size")
    except LivepatchError as error:
        must(error.code in (*_REFUSED, "no_room_near_object"), "refused as %s" % error.code)


def manifest(data: bytes) -> None:
    """A manifest alone."""
    try:
        must(parse_manifest(data).to_json() == data, "it has another form")
    except LivepatchError as error:
        must(error.code in _REFUSED, "refused as %s" % error.code)


def objects(data: bytes) -> None:
    """An object as it lies in memory: headers, notes, dynamic table, symbols, hash table, versions, relocations."""
    memory = Lying(data.ljust(len(data) + 4095 & -4096, b"\0"))  # mapped by whole pages
    with contextlib.suppress(NotElf, OSError):
        found, bias, _build_id = memory_build_id(memory.read, PLACE)
        segment = found.first(PT_DYNAMIC)
        if segment is None:
            return
        table = DynamicTable(memory.read, bias, bias + segment.address)
        for look in (
            table.needed,
            table.soname,
            lambda: table.look_up("answer"),
            lambda: table.look_up("answer", "V_1"),
            lambda: list(table.versions()),
            lambda: list(itertools.islice(table.slots(), 1000)),
        ):
            with contextlib.suppress(OSError):
                look()


def region(data: bytes) -> None:
    """What a process says of a patch in it: its description under a right header, and a header of its own."""
    right = header(PLACE, data, Mutable(LOADED, "none", 1, 0, 0))
    found = read_region(Lying(right + data), PLACE)
    if found is not None:
        describe(found)
    fixed = bytearray(data[:HEADER_SIZE].ljust(HEADER_SIZE, b"\0") + data[HEADER_SIZE:])
    struct.pack_into("<32s", fixed, 24, hashlib.sha256(data[HEADER_SIZE:]).digest())
    read_region(Lying(bytes(fixed)), PLACE)


def maps(data: bytes) -> None:
    """/proc/PID/maps, in which file names are whatever somebody called them."""
    for found in parse_maps(data.decode("utf-8", "surrogateescape")):
        mapping_at([found], found.start)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "patch": patch,
    "manifest": manifest,
    "objects": objects,
    "region": region,
    "maps": maps,
}
