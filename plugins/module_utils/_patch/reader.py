# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a patch file, believing nothing in it: everything is checked before anyone acts on it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from .._elf.object_file import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHT_NOBITS,
    SHT_PROGBITS,
    SHT_RELA,
    STT_FUNC,
    STT_SECTION,
)
from .content import BSS, DATA, RODATA, TEXT, Patch, Relocation, Section, Symbol
from .manifest import SECTION, Manifest, parse_manifest
from .seal import unsealed
from .tables import SymbolRow, Tables, corrupt

# The largest fix seen (redis, three functions with strings) has 60 KB; the builder refuses long before this.
MOST_FILE_BYTES = 32 << 20
MOST_MEMORY_BYTES = 32 << 20
_MOST_ALIGN = 4096
_MACHINE = {"x86_64": 62, "aarch64": 183}
_SHT_REL = 9


def read_patch_file(path: str) -> Patch:
    """The patch in the file at `path`.

    Raises OSError, and LivepatchError patch_corrupt, patch_unsupported or arch_mismatch as `read_patch` does.
    """
    with open(path, "rb") as stream:
        raw = stream.read(MOST_FILE_BYTES + 1)
    return read_patch(raw)


def read_patch(raw: bytes) -> Patch:
    """The patch in these bytes (a whole .lpatch file).

    Raises LivepatchError patch_corrupt for anything malformed, patch_unsupported for another format.
    """
    if len(raw) > MOST_FILE_BYTES:
        raise corrupt("it is larger than %d MiB" % (MOST_FILE_BYTES >> 20))
    return replace(parse_patch(unsealed(raw)), sha256=hashlib.sha256(raw).hexdigest())


def parse_patch(body: bytes) -> Patch:
    """The patch in the bytes of an ELF object, as they stand before the seal. Raises as `read_patch`."""
    tables = Tables(body)
    stored = tables.only(SECTION)
    if stored is None or stored.kind != SHT_PROGBITS:
        raise corrupt("it has no section %s" % SECTION)
    manifest = parse_manifest(tables.content(stored))
    if _MACHINE.get(manifest.object.arch) != tables.machine:
        raise corrupt("its code is for machine %d, its manifest says %s" % (tables.machine, manifest.object.arch))
    sections, numbers = _sections(tables)
    rows = tables.symbols()
    symbols = _symbols(rows, sections, numbers)
    relocations = _relocations(tables, rows, sections, numbers)
    _check(manifest, sections, symbols, relocations)
    return Patch(manifest, tuple(sections), tuple(symbols), tuple(relocations))


def _sections(tables: Tables) -> tuple[list[Section], dict[int, int]]:
    """The allocated sections, and their place in that list by their ELF section number."""
    rows = [(number, row) for number, row in enumerate(tables.sections) if row.flags & SHF_ALLOC and row.size]
    # Before any of it is copied; sections may lie over each other in the file.
    if sum(row.size + row.align for _number, row in rows) > MOST_MEMORY_BYTES:
        raise corrupt("it asks for more than %d MiB of memory" % (MOST_MEMORY_BYTES >> 20))
    sections: list[Section] = []
    numbers: dict[int, int] = {}
    for number, row in rows:
        align = max(row.align, 1)
        if align & align - 1 or align > _MOST_ALIGN:
            raise corrupt("section %s has alignment %d" % (row.name, align))
        if row.flags & SHF_EXECINSTR and row.flags & SHF_WRITE:
            raise corrupt("section %s is both writable and executable" % row.name)
        if row.kind == SHT_NOBITS:
            if row.flags & SHF_EXECINSTR:
                raise corrupt("section %s is code without content" % row.name)
            kind, content = BSS, b""
        elif row.kind == SHT_PROGBITS:
            kind = TEXT if row.flags & SHF_EXECINSTR else DATA if row.flags & SHF_WRITE else RODATA
            content = tables.content(row)
        else:
            raise corrupt("section %s has type %d" % (row.name, row.kind))
        numbers[number] = len(sections)
        sections.append(Section(row.name, kind, align, row.size, content))
    return sections, numbers


def _symbols(rows: list[SymbolRow], sections: list[Section], numbers: dict[int, int]) -> list[Symbol]:
    """The symbols defined in allocated sections; a section's own symbol has the name of that."""
    symbols: list[Symbol] = []
    for row in rows:
        place = numbers.get(row.section)
        if place is None:
            continue
        section = sections[place]
        if row.kind == STT_SECTION:
            symbols.append(Symbol(section.name, place, 0, section.size, False))
        elif row.name:
            if row.value + row.size > section.size:
                raise corrupt("symbol %s lies outside its section" % row.name)
            symbols.append(Symbol(row.name, place, row.value, row.size, row.kind == STT_FUNC))
    if len({symbol.name for symbol in symbols}) != len(symbols):
        raise corrupt("two symbols have one name")
    return symbols


def _relocations(
    tables: Tables, rows: list[SymbolRow], sections: list[Section], numbers: dict[int, int]
) -> list[Relocation]:
    relocations: list[Relocation] = []
    for row in tables.sections:
        if row.kind == _SHT_REL:
            raise corrupt("section %s holds relocations without addends" % row.name)
        if row.kind != SHT_RELA or row.info not in numbers:
            continue
        place = numbers[row.info]
        section = sections[place]
        for offset, kind, number, addend in tables.relocations(row):
            if offset > section.size - 4 or section.kind == BSS:
                raise corrupt("a relocation lies outside section %s" % section.name)
            if number >= len(rows):
                raise corrupt("a relocation is for symbol %d, which there is none" % number)
            symbol = rows[number]
            own = numbers.get(symbol.section) if symbol.kind == STT_SECTION else None
            name = symbol.name if own is None else sections[own].name
            relocations.append(Relocation(place, offset, kind, name, addend))
    return relocations


def _check(manifest: Manifest, sections: list[Section], symbols: list[Symbol], relocations: list[Relocation]) -> None:
    """What manifest and code say of each other must agree."""
    defined = {symbol.name: symbol for symbol in symbols}
    outside = {reference.symbol for reference in manifest.references}
    both = sorted(outside & set(defined))
    if both:
        raise corrupt("symbol %r is both defined and in the manifest's references" % both[0])
    for relocation in relocations:
        if relocation.symbol not in defined and relocation.symbol not in outside:
            raise corrupt("symbol %r is neither defined nor in the manifest's references" % relocation.symbol)
    for function in manifest.functions:
        symbol = defined.get(function.symbol)
        if symbol is None or not symbol.is_function or symbol.size != function.new_size:
            raise corrupt("the new code of %s is not in it" % function.name)
        if sections[symbol.section].kind != TEXT:
            raise corrupt("the new code of %s is in section %s" % (function.name, sections[symbol.section].name))
