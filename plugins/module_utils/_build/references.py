# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the patch's references lead: into the object by address, or to what the process itself uses for a name.

A symbol that the dynamic linker may bind elsewhere (exported by a shared library, referred to through PLT or GOT) is
external, as it is for the object's own code. (gABI, chapter 5; symbol versions: LSB, "Symbol Versioning")
"""

from __future__ import annotations

import struct

from .._elf.object_file import (
    SHF_ALLOC,
    SHT_DYNSYM,
    SHT_RELA,
    STB_LOCAL,
    STV_DEFAULT,
    ObjectFile,
    Symbol,
)
from .relocated_fields import GOT_LOADS, R_64, R_GLOB_DAT, R_IRELATIVE, R_JUMP_SLOT, R_PLT32
from .thread_locals import ThreadLocalSlots

_SHT_DYNAMIC, _SHT_GNU_VERNEED, _SHT_GNU_VERSYM = 6, 0x6FFFFFFE, 0x6FFFFFFF
_DT_SYMBOLIC, _DT_FLAGS, _DT_FLAGS_1 = 16, 30, 0x6FFFFFFB
_DF_SYMBOLIC, _DF_1_PIE = 2, 0x08000000
_ET_DYN = 3


class DynamicNames:
    """What a linked object imports and exports, and where its slots for imported addresses are."""

    def __init__(self, linked: ObjectFile) -> None:
        self.linked = linked
        self.symbols: dict[str, Symbol] = {}
        self.versions: dict[str, str] = {}
        self.slots: dict[str, int] = {}
        self.thread_locals = ThreadLocalSlots(linked)
        self._chosen: dict[int, int] = {}
        table = linked.symbols(SHT_DYNSYM)
        versions = _versions(linked)
        for number, symbol in enumerate(table):
            if symbol.name and symbol.binding != STB_LOCAL and symbol.name not in self.symbols:
                self.symbols[symbol.name] = symbol
                if not symbol.is_defined():
                    self.versions[symbol.name] = versions.get(number, "")
        for section in linked.sections:
            if section.kind == SHT_RELA and section.flags & SHF_ALLOC:
                for entry in linked.relocation_table(section):
                    if entry.kind in (R_GLOB_DAT, R_JUMP_SLOT) and entry.symbol < len(table):
                        name = table[entry.symbol].name
                        # Where there are both, the one filled before the program starts.
                        if name not in self.slots or entry.kind == R_GLOB_DAT:
                            self.slots[name] = entry.offset
                    elif entry.kind == R_IRELATIVE:
                        self._chosen.setdefault(entry.addend, entry.offset)
        tags = _dynamic_tags(linked)
        is_library = linked.kind == _ET_DYN and not tags.get(_DT_FLAGS_1, 0) & _DF_1_PIE
        binds_itself = _DT_SYMBOLIC in tags or tags.get(_DT_FLAGS, 0) & _DF_SYMBOLIC
        self.is_library = is_library
        self.may_interpose = is_library and not binds_itself

    def imported(self, name: str) -> bool:
        """True when the object takes this symbol from elsewhere."""
        symbol = self.symbols.get(name)
        return symbol is not None and not symbol.is_defined()

    def canonical_plt(self, name: str) -> int:
        """The address that stands for an imported function in an executable that is not position independent, or 0."""
        symbol = self.symbols.get(name)
        return symbol.value if symbol is not None and not symbol.is_defined() else 0

    def interposable(self, name: str, kind: int) -> bool:
        """True when the object itself, with this relocation type, asks the dynamic linker for its symbol."""
        symbol = self.symbols.get(name)
        return (
            self.may_interpose
            and symbol is not None
            and symbol.is_defined()
            and symbol.visibility == STV_DEFAULT
            and (kind in (R_PLT32, R_64) or kind in GOT_LOADS)
        )

    def chosen(self, name: str, resolver: int) -> int:
        """The object's slot for an IFUNC of its own, in which is what was chosen (or will be, when called); 0 for none.

        `resolver`: the link-time address of the function that chooses.
        """
        return self.slots.get(name, 0) or self._chosen.get(resolver, 0)


def _dynamic_tags(linked: ObjectFile) -> dict[int, int]:
    for section in linked.sections:
        if section.kind == _SHT_DYNAMIC:
            return dict(struct.iter_unpack("<QQ", linked.content(section)[: section.size // 16 * 16]))
    return {}


def _versions(linked: ObjectFile) -> dict[int, str]:
    """The version that each imported dynamic symbol (by number) is bound to."""
    of_index: dict[int, str] = {}
    numbers: tuple[int, ...] = ()
    for section in linked.sections:
        raw = linked.content(section) if section.kind in (_SHT_GNU_VERNEED, _SHT_GNU_VERSYM) else b""
        if section.kind == _SHT_GNU_VERSYM:
            numbers = struct.unpack("<%dH" % (len(raw) // 2), raw)
        elif section.kind == _SHT_GNU_VERNEED:
            names = linked.content(linked.sections[section.link])
            at = 0
            while True:
                _version, count, _file, aux, following = struct.unpack_from("<HHIII", raw, at)
                place = at + aux
                for _entry in range(count):
                    _hash, _flags, other, name, step = struct.unpack_from("<IHHII", raw, place)
                    of_index[other & 0x7FFF] = names[name : names.index(b"\0", name)].decode()
                    place += step
                if not following:
                    break
                at += following
    return {number: of_index.get(index & 0x7FFF, "") for number, index in enumerate(numbers)}
