# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the linker put each section of a unit's object in the artifact.

A static name may stand in many files; with its section's place known, every symbol of the unit has one address. The
place comes from the symbols, and is believed only when the section's bytes are there too, relocated fields aside.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._elf.object_file import (
    SHF_ALLOC,
    SHF_MERGE,
    SHF_TLS,
    SHN_COMMON,
    SHT_NOBITS,
    STB_GLOBAL,
    STB_LOCAL,
    STB_WEAK,
    STT_FILE,
    STT_SECTION,
    STT_TLS,
    ObjectFile,
    Symbol,
)
from .references import DynamicNames
from .relocated_fields import R_32, R_32S, R_PC32, R_PLT32, masked
from .request import refuse


@dataclass(frozen=True)
class PlacedUnit:
    """Addresses (link-time, of the artifact) of a unit's sections and symbols.

    `overridden`: its weak names for which the artifact uses another unit's definition; `symbols` says where that is.
    Of thread-local variables: offsets in the artifact's block of these.
    """

    sections: dict[int, int]
    symbols: dict[str, int]
    sizes: dict[str, int]
    overridden: frozenset[str] = frozenset()


def plain_name(symbol: Symbol) -> str:
    """The name of a symbol without its version (stderr@GLIBC_2.2.5 in an executable's table)."""
    return symbol.name.split("@", 1)[0]


class ArtifactSymbols:
    """The artifact's symbol table: its global names, and the local names of each linked file."""

    def __init__(self, artifact: ObjectFile) -> None:
        self.artifact = artifact
        self.is_library = DynamicNames(artifact).is_library
        self._thread_locals = min((s.address for s in artifact.sections if s.flags & SHF_TLS), default=0)
        self.globals: dict[str, Symbol] = {}
        self.groups: dict[str, list[dict[str, list[int]]]] = {}
        group: dict[str, list[int]] = {}
        nameless: dict[str, list[int]] = {}
        for symbol in artifact.symbols():
            if symbol.kind == STT_FILE:
                group = {} if symbol.name else nameless
                self.groups.setdefault(symbol.name, []).append(group)
            elif symbol.name and symbol.is_defined() and symbol.kind != STT_SECTION:
                if symbol.binding == STB_LOCAL:
                    group.setdefault(symbol.name, []).append(symbol.value)
                # The linker makes hidden symbols, and those that a version script keeps inside, local to a file without
                # a name behind all others: they are still known by name alone.
                if symbol.binding != STB_LOCAL or symbol.visibility or group is nameless:
                    self.globals[symbol.name] = symbol
                    # Of several versions of a name (NAME@V1, NAME@@V2), what asks for no version means the default.
                    if "@@" in symbol.name or plain_name(symbol) not in self.globals:
                        self.globals[plain_name(symbol)] = symbol

    def defines(self, name: str) -> bool:
        """True when the artifact has a symbol of that name that is not local to one file."""
        return name in self.globals

    def place(self, unit: ObjectFile, twins: int, occurrence: int) -> PlacedUnit | None:
        """Where the unit's object lies in the artifact; None when the link left it out (an archive member not needed).

        `twins`: how many units of the very same content were linked; `occurrence`: how many of them before this one.
        Raises BuildRefused symbol_ambiguous when several places fit and nothing tells them apart.
        """
        files = [symbol.name for symbol in unit.symbols() if symbol.kind == STT_FILE and symbol.name]
        groups = self.groups.get(files[0], []) if files else []
        fitting: list[dict[int, int]] = []
        for group in groups or [{}]:
            bases = self._bases(unit, group)
            if bases is not None and bases not in fitting:
                fitting.append(bases)
        if len(fitting) > 1:
            # The most sections whose bytes are there; among those, the fewest names that lead elsewhere.
            ranks = [(-len(bases), self._wrong_names(unit, bases)) for bases in fitting]
            fitting = [bases for bases, rank in zip(fitting, ranks) if rank == min(ranks)]
        if not fitting:
            return None
        if len(fitting) not in (1, twins):
            raise refuse(
                "symbol_ambiguous",
                "%d places in the object fit %s, and nothing tells them apart" % (len(fitting), unit.name),
                file=unit.name,
            )
        bases = fitting[occurrence] if len(fitting) > 1 else fitting[0]
        symbols, sizes = {}, {}
        for symbol in unit.symbols():
            if not symbol.name or symbol.kind in (STT_SECTION, STT_FILE):
                continue
            if symbol.section in bases:
                symbols[symbol.name] = bases[symbol.section] + symbol.value
                sizes[symbol.name] = symbol.size
            elif symbol.section == SHN_COMMON and symbol.name in self.globals:
                symbols[symbol.name] = self.globals[symbol.name].value
                sizes[symbol.name] = symbol.size
        overridden = self._overridden(unit, symbols)
        symbols.update({name: self.globals[name].value for name in overridden})
        return PlacedUnit(bases, symbols, sizes, overridden) if bases else None

    def _overridden(self, unit: ObjectFile, symbols: dict[str, int]) -> frozenset[str]:
        """The weak names of a unit that the linker found defined elsewhere. (gABI, chapter 4, "Symbol Binding")"""
        found = []
        for symbol in unit.symbols():
            used = self.globals.get(symbol.name)
            if used is None or symbol.binding != STB_WEAK or not symbol.is_defined() or symbol.kind == STT_TLS:
                continue
            if used.binding == STB_GLOBAL or used.value != symbols.get(symbol.name):
                found.append(symbol.name)
        return frozenset(found)

    def _wrong_names(self, unit: ObjectFile, bases: dict[int, int]) -> int:
        """How many globals of a unit placed so, and 32-bit references, are not where the symbol table has them."""
        table = unit.symbols()
        wrong = sum(
            symbol.section in bases
            and symbol.binding != STB_LOCAL
            and symbol.name in self.globals
            and self.globals[symbol.name].value != bases[symbol.section] + symbol.value
            for symbol in table
        )
        for number, base in bases.items():
            for entry in unit.relocations(unit.sections[number]):
                target = table[entry.symbol]
                if target.section in bases:
                    address = bases[target.section] + target.value
                elif not target.is_defined() and target.name in self.globals:
                    address = self.globals[target.name].value
                else:
                    continue
                if entry.kind not in (R_PC32, R_PLT32, R_32, R_32S):
                    continue
                origin = base + entry.offset if entry.kind in (R_PC32, R_PLT32) else 0
                there = self.artifact.read(base + entry.offset, 4)
                wrong += there != (address + entry.addend - origin & 0xFFFFFFFF).to_bytes(4, "little")
        return wrong

    def _bases(self, unit: ObjectFile, group: dict[str, list[int]]) -> dict[int, int] | None:
        """Section number -> address, of sections whose bytes are there; None when local names contradict that."""
        local: dict[int, set[int]] = {}
        named: dict[int, set[int]] = {}
        for symbol in unit.symbols():
            if not symbol.is_defined() or not symbol.name or symbol.kind in (STT_SECTION, STT_FILE):
                continue
            section = unit.sections[symbol.section]
            if not section.flags & SHF_ALLOC or section.flags & SHF_MERGE:
                continue
            if symbol.binding == STB_LOCAL:
                votes = {address - symbol.value for address in group.get(symbol.name, [])}
                if votes:
                    known = local.get(section.number)
                    local[section.number] = votes if known is None else known & votes
            elif symbol.name in self.globals:
                named.setdefault(section.number, set()).add(self.globals[symbol.name].value - symbol.value)
        if any(not votes for votes in local.values()):
            return None
        bases = {}
        for number in set(local) | set(named):
            section = unit.sections[number]
            fields = [(r.offset, r.kind) for r in unit.relocations(section)]
            wanted = masked(unit.content(section), fields)
            start = self._thread_locals if section.flags & SHF_TLS else 0
            for base in sorted(local.get(number) or named.get(number) or ()):
                there = self.artifact.read(start + base, section.size)
                # Zeroed variables may end up in a section with bytes, and the other way round only as zeros.
                if section.kind == SHT_NOBITS or (there is not None and masked(there, fields) == wanted):
                    bases[number] = base
                    break
        return bases
