# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The image of a patch in a process: which of its sections lie where, and their bytes once every field is filled.

An image has four segments, each of whole pages, one behind the other: description (read), text (read, execute),
constants
(read; with the slots that hold addresses of other objects) and data (read, write).
"""

from __future__ import annotations

from dataclasses import dataclass

from .._errors import LivepatchError
from .._patch.content import BSS, DATA, RODATA, TEXT, Patch
from .branch import x86_64 as branch
from .relocation import x86_64 as relocation

PAGE = 4096
_STUB, _SLOT = 8, 8
READ, WRITE, EXECUTE = 1, 2, 4


@dataclass(frozen=True)
class Segment:
    """One segment: bytes from the start of the image, whole pages, PROT_ bits."""

    offset: int
    size: int
    protection: int


class Image:
    """The layout of one patch, the same in every process; `linked` gives its bytes for one of them."""

    def __init__(self, patch: Patch, description_size: int) -> None:
        """`description_size`: bytes kept free at the start. Raises LivepatchError patch_unsupported."""
        self._patch = patch
        for entry in patch.relocations:
            if entry.kind not in relocation.SUPPORTED:
                raise LivepatchError("patch_unsupported", "relocation type %d for %s" % (entry.kind, entry.symbol))
        external = sorted(ref.symbol for ref in patch.manifest.references if ref.kind == "external")
        slotted = {entry.symbol for entry in patch.relocations if relocation.needs_slot(entry.kind)}
        self._places: dict[int, int] = {}
        text_start = pages(description_size)
        end = self._lay_out((TEXT,), text_start)
        self._stubs = {symbol: aligned(end, _STUB) + _STUB * index for index, symbol in enumerate(external)}
        constants_start = pages(aligned(end, _STUB) + _STUB * len(external))
        end = self._lay_out((RODATA,), constants_start)
        slots = sorted(slotted | set(external))
        self._slots = {symbol: aligned(end, _SLOT) + _SLOT * index for index, symbol in enumerate(slots)}
        data_start = pages(aligned(end, _SLOT) + _SLOT * len(slots))
        self.size = pages(self._lay_out((DATA, BSS), data_start))
        self.text = Segment(text_start, constants_start - text_start, READ | EXECUTE)
        constants = Segment(constants_start, data_start - constants_start, READ)
        data = Segment(data_start, self.size - data_start, READ | WRITE)
        self.segments = tuple(part for part in (Segment(0, text_start, READ), self.text, constants, data) if part.size)
        self.unchanging = tuple(part for part in (self.text, constants) if part.size)
        self._symbols = {symbol.name: self._places[symbol.section] + symbol.offset for symbol in patch.symbols}

    def absolute(self) -> bool:
        """True when the code holds addresses in 32 bits, so that the image must lie in the lowest 2 GiB."""
        return any(entry.kind in relocation.ABSOLUTE_32 for entry in self._patch.relocations)

    def symbol(self, name: str) -> int:
        """Where a symbol of the patch lies, bytes from the start of the image."""
        return self._symbols[name]

    def linked(self, base: int, addresses: dict[str, int]) -> bytearray:
        """The image's bytes for an image at `base`, with the run-time `addresses` of everything outside it.

        Raises LivepatchError no_room_near_object when something cannot be reached from there.
        """
        content = bytearray(self.size)
        for index, section in enumerate(self._patch.sections):
            content[self._places[index] : self._places[index] + len(section.content)] = section.content
        known = {name: base + offset for name, offset in self._symbols.items()}
        known.update(addresses)
        for symbol, slot in self._slots.items():
            content[slot : slot + _SLOT] = known[symbol].to_bytes(_SLOT, "little")
        for symbol, stub in self._stubs.items():
            content[stub : stub + _STUB] = branch.slot_branch(stub, self._slots[symbol])
        for entry in self._patch.relocations:
            place = self._places[entry.section] + entry.offset
            value = base + self._slots[entry.symbol] if relocation.needs_slot(entry.kind) else known[entry.symbol]
            try:
                field = relocation.field(entry.kind, base + place, value, entry.addend, entry.symbol)
            except LivepatchError:
                if entry.symbol not in self._stubs or not relocation.may_use_stub(entry.kind):
                    raise
                value = base + self._stubs[entry.symbol]
                field = relocation.field(entry.kind, base + place, value, entry.addend, entry.symbol)
            content[place : place + len(field)] = field
        return content

    def _lay_out(self, kinds: tuple[str, ...], start: int) -> int:
        at = start
        for kind in kinds:
            for index, section in enumerate(self._patch.sections):
                if section.kind == kind:
                    at = aligned(at, section.align)
                    self._places[index] = at
                    at += section.size
        return at


def aligned(value: int, alignment: int) -> int:
    """`value` rounded up to a multiple of `alignment`, a power of two."""
    return value + alignment - 1 & -alignment


def pages(value: int) -> int:
    """`value` rounded up to whole pages."""
    return aligned(value, PAGE)
