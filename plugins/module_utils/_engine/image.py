# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The image of a patch in a process: which of its sections lie where, and their bytes once every field is filled.

An image has three segments, each of whole pages, one behind the other: description and constants (read; among them the
slots that hold addresses of other objects), text (read, execute) and data (read, write).
"""

from __future__ import annotations

from dataclasses import dataclass

from .._errors import LivepatchError
from .._patch.content import BSS, DATA, RODATA, TEXT, Patch
from .branch import x86_64 as branch
from .relocation import x86_64 as relocation

PAGE = 4096
_STUB, _SLOT = 8, 8
_MOST_ALIGN = 64
READ, WRITE, EXECUTE = 1, 2, 4


@dataclass(frozen=True)
class Segment:
    """One piece of the image: `offset` bytes from its start, `size` bytes, PROT_ bits."""

    offset: int
    size: int
    protection: int


class Image:
    """The layout of one patch, the same in every process; `linked` gives its bytes for one of them.

    `segments` are to be mapped (whole pages, in address order), `unchanging` are the pieces nobody may ever write to,
    `room` is how many bytes the description may have.
    """

    def __init__(self, patch: Patch, description_size: int) -> None:
        """`description_size`: bytes kept free at the start.

        Raises LivepatchError patch_unsupported or patch_corrupt.
        """
        self._patch = patch
        for entry in patch.relocations:
            if entry.kind not in relocation.SUPPORTED:
                raise LivepatchError("patch_unsupported", "relocation type %d for %s" % (entry.kind, entry.symbol))
            if entry.offset + relocation.FIELD_SIZE.get(entry.kind, 4) > patch.sections[entry.section].size:
                raise LivepatchError("patch_corrupt", "the field for %s lies outside its section" % entry.symbol)
        external = sorted(ref.symbol for ref in patch.manifest.references if ref.is_outside)
        slotted = {entry.symbol for entry in patch.relocations if relocation.needs_slot(entry.kind)}
        slots = sorted(slotted | set(external))
        self._places: dict[int, int] = {}
        constants_start = aligned(description_size, _MOST_ALIGN)
        end = aligned(self._lay_out((RODATA,), constants_start), _SLOT)
        self._slots = {symbol: end + _SLOT * index for index, symbol in enumerate(slots)}
        constants = Segment(constants_start, end + _SLOT * len(slots) - constants_start, READ)
        text_start = pages(constants_start + constants.size)
        end = aligned(self._lay_out((TEXT,), text_start), _STUB)
        self._stubs = {symbol: end + _STUB * index for index, symbol in enumerate(external)}
        data_start = pages(end + _STUB * len(external))
        self.size = pages(self._lay_out((DATA, BSS), data_start))
        self.room = constants_start
        first = Segment(0, text_start, READ)
        text = Segment(text_start, data_start - text_start, READ | EXECUTE)
        data = Segment(data_start, self.size - data_start, READ | WRITE)
        self.segments = tuple(part for part in (first, text, data) if part.size)
        self.unchanging = tuple(part for part in (constants, text) if part.size)
        self._symbols = {symbol.name: self._places[symbol.section] + symbol.offset for symbol in patch.symbols}

    def absolute(self) -> bool:
        """True when the code holds addresses in 32 bits, so that the image must lie in the lowest 2 GiB."""
        return any(entry.kind in relocation.ABSOLUTE_32 for entry in self._patch.relocations)

    def symbol(self, name: str) -> int:
        """Where a symbol of the patch lies, bytes from the start of the image."""
        return self._symbols[name]

    def has_symbol(self, name: str) -> bool:
        """True when the patch defines a symbol of this name."""
        return name in self._symbols

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
