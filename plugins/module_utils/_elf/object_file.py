# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole ELF file at once: sections, symbols and relocations of objects, executables and libraries.

pyelftools builds a Python object for every field: 100,000 symbols take it 4 to 5 s. Here they take a quarter of a
second, which is what lets the builder look at every symbol and relocation of a large program. (gABI, chapters 4 and 5)
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .header import NotElf

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOBITS, SHT_DYNSYM = 1, 2, 3, 4, 8, 11
SHT_SYMTAB_SHNDX = 18
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS, SHF_TLS = 1, 2, 4, 0x10, 0x20, 0x400
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFF00, 0xFFF1, 0xFFF2, 0xFFFF
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE, STT_TLS, STT_IFUNC = 0, 1, 2, 3, 4, 6, 10
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STV_DEFAULT, STV_PROTECTED = 0, 3


class Section(NamedTuple):
    """One section header; `address` is the link-time virtual address, sizes are bytes."""

    number: int
    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


class Symbol(NamedTuple):
    """One symbol. `section` is a section number, SHN_UNDEF for one that is not defined here."""

    name: str
    value: int
    size: int
    kind: int
    binding: int
    visibility: int
    section: int

    def is_defined(self) -> bool:
        """True when the symbol has a place in a section of this file."""
        return self.section != SHN_UNDEF and self.section < SHN_LORESERVE


class Relocation(NamedTuple):
    """One field to be filled: `offset` as the file has it, `symbol` is the number of a symbol."""

    offset: int
    kind: int
    symbol: int
    addend: int


class ObjectFile:
    """The sections, symbols and relocations of one 64-bit little-endian ELF file in memory."""

    def __init__(self, raw: bytes, name: str = "") -> None:
        """Raises NotElf for anything else, or for tables that reach past the end of the file."""
        self.raw = raw
        self.name = name
        try:
            self._read_header()
        except (struct.error, IndexError) as error:
            raise NotElf("%s: damaged ELF file: %s" % (name, error)) from None
        self._symbols: dict[int, list[Symbol]] = {}
        self._by_name: dict[str, list[Section]] = {}
        self._relocated_by: dict[int, list[Section]] = {}
        for section in self.sections:
            self._by_name.setdefault(section.name, []).append(section)
            if section.kind == SHT_RELA:
                self._relocated_by.setdefault(section.info, []).append(section)

    def _read_header(self) -> None:
        raw = self.raw
        if raw[:6] != b"\x7fELF\x02\x01":
            raise NotElf("%s: not a 64-bit little-endian ELF file" % self.name)
        self.kind, self.machine = struct.unpack_from("<HH", raw, 16)
        table = struct.unpack_from("<Q", raw, 40)[0]
        count, names_at = struct.unpack_from("<HH", raw, 60)
        rows = []
        if table:
            # More than 65,279 sections: the true numbers stand in section 0.
            first = struct.unpack_from("<IIQQQQIIQQ", raw, table)
            count = count or first[5]
            names_at = first[6] if names_at == SHN_XINDEX else names_at
            rows = list(struct.iter_unpack("<IIQQQQIIQQ", raw[table : table + 64 * count]))
        names = raw[rows[names_at][4] : rows[names_at][4] + rows[names_at][5]] if rows else b""
        self.sections = [
            Section(
                index,
                _text(names, row[0]),
                row[1],
                row[2],
                row[3],
                row[4],
                row[5],
                row[6],
                row[7],
                row[8],
                row[9],
            )
            for index, row in enumerate(rows)
        ]

    def section(self, name: str) -> Section | None:
        """The first section of that name, or None."""
        found = self._by_name.get(name)
        return found[0] if found else None

    def content(self, section: Section) -> bytes:
        """The bytes of a section; zeros for one that takes no space in the file."""
        if section.kind == SHT_NOBITS:
            return bytes(section.size)
        return self.raw[section.offset : section.offset + section.size]

    def symbols(self, kind: int = SHT_SYMTAB) -> list[Symbol]:
        """All symbols of the table of that kind (SHT_SYMTAB or SHT_DYNSYM), by number; empty without one."""
        if kind not in self._symbols:
            self._symbols[kind] = next((self._read_symbols(s) for s in self.sections if s.kind == kind), [])
        return self._symbols[kind]

    def _read_symbols(self, table: Section) -> list[Symbol]:
        names = self.content(self.sections[table.link])
        wide: tuple[int, ...] = ()
        for section in self.sections:
            if section.kind == SHT_SYMTAB_SHNDX and section.link == table.number:
                wide = struct.unpack("<%dI" % (section.size // 4), self.content(section))
        symbols = []
        rows = self.content(table)[: table.size // 24 * 24]
        for number, (name, info, other, place, value, size) in enumerate(struct.iter_unpack("<IBBHQQ", rows)):
            if place == SHN_XINDEX and wide:
                place = wide[number]
            symbols.append(Symbol(_text(names, name), value, size, info & 15, info >> 4, other & 3, place))
        return symbols

    def relocations(self, section: Section) -> list[Relocation]:
        """The relocations with addends that apply to a section of a relocatable object, in file order."""
        return [entry for table in self._relocated_by.get(section.number, ()) for entry in self.relocation_table(table)]

    def relocation_table(self, table: Section) -> list[Relocation]:
        """The entries of one SHT_RELA section."""
        rows = self.content(table)[: table.size // 24 * 24]
        return [
            Relocation(at, info & 0xFFFFFFFF, info >> 32, add) for at, info, add in struct.iter_unpack("<QQq", rows)
        ]

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes at a link-time virtual address, from the allocated section that holds them all, or None."""
        for section in self.sections:
            if (
                section.flags & SHF_ALLOC
                and section.address <= address
                and address + size <= section.address + section.size
            ):
                if section.kind == SHT_NOBITS:
                    if section.flags & SHF_TLS:
                        continue
                    return bytes(size)
                at = section.offset + address - section.address
                return self.raw[at : at + size]
        return None

    def section_at(self, address: int) -> Section | None:
        """The allocated section that holds this link-time virtual address, or None."""
        for section in self.sections:
            if section.flags & SHF_ALLOC and section.address <= address < section.address + section.size:
                if section.kind == SHT_NOBITS and section.flags & SHF_TLS:
                    continue
                return section
        return None


def read_object_file(path: str) -> ObjectFile:
    """The ELF file at `path`.

    Raises NotElf and OSError.
    """
    with open(path, "rb") as stream:
        return ObjectFile(stream.read(), path)


def _text(table: bytes, at: int) -> str:
    end = table.find(b"\0", at)
    return table[at : end if end >= 0 else len(table)].decode("utf-8", "surrogateescape")
