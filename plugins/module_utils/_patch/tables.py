# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a patch's ELF object, read strictly: what does not lie inside the file, or is more than a patch has, is
refused before it is read. Nothing is followed twice, so no table can make the reader loop. (System V gABI, chapter 4)
"""

from __future__ import annotations

import struct
from typing import Iterator, NamedTuple

from .._elf.object_file import SHT_NOBITS, SHT_RELA, SHT_SYMTAB
from .._errors import LivepatchError

# A patch of the builder has one section for each function and variable, and one of relocations for each of these, in at
# most 1 MiB of code; these bounds keep a file of 32 MiB from becoming a gigabyte of Python's objects.
_MOST_SECTIONS, _MOST_ROWS, _MOST_NAME = 16384, 1 << 18, 1 << 16
# All names of a file together: tables may share bytes, but not all of them over and over.
_MOST_NAMES = 32 << 20
_ET_REL = 1
_HEADER, _SECTION = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ")
_SYMBOL, _RELOCATION = struct.Struct("<IBBHQQ"), struct.Struct("<QQq")


class SectionRow(NamedTuple):
    """One section header; sizes are bytes. `content` lies in the file, but for sections without content there."""

    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


class SymbolRow(NamedTuple):
    """One symbol; `section` is a section's number, or one of the special ones from 0xff00 on."""

    name: str
    kind: int
    section: int
    value: int
    size: int


class Tables:
    """The section headers of a relocatable 64-bit little-endian object, and what they lead to."""

    def __init__(self, raw: bytes) -> None:
        """Raises LivepatchError patch_corrupt for anything else, or a section that is not inside the file."""
        self._raw = raw
        self._left = _MOST_NAMES
        self._rows_left = _MOST_ROWS
        if raw[:4] != b"\x7fELF" or len(raw) < _HEADER.size:
            raise corrupt("it is not an ELF file")
        ident, kind, self.machine, _version, _entry, _programs, at, *rest = _HEADER.unpack_from(raw)
        entry_size, count, names_at = rest[-3:]
        if ident[4:6] != b"\x02\x01" or kind != _ET_REL:
            raise corrupt("it is not a relocatable 64-bit little-endian object")
        if entry_size != _SECTION.size or not 0 < names_at < count <= _MOST_SECTIONS:
            raise corrupt("its section headers are %d of %d bytes" % (count, entry_size))
        if at + count * _SECTION.size > len(raw):
            raise corrupt("its section headers reach past the end of the file")
        plain = [_SECTION.unpack_from(raw, at + index * _SECTION.size) for index in range(count)]
        names = self._text_table(plain[names_at][4], plain[names_at][5], "names of the sections")
        self.sections: list[SectionRow] = []
        for name_at, kind, flags, _address, offset, size, link, info, align, _entry_size in plain:
            row = SectionRow(self._name(names, name_at), kind, flags, offset, size, link, info, align)
            if kind not in (0, SHT_NOBITS) and offset + size > len(raw):
                raise corrupt("section %s reaches past the end of the file" % row.name)
            self.sections.append(row)

    def content(self, section: SectionRow) -> bytes:
        """The bytes of a section that has some in the file."""
        return self._raw[section.offset : section.offset + section.size]

    def only(self, name: str) -> SectionRow | None:
        """The section of that name, None without one. Raises LivepatchError patch_corrupt where there are several."""
        found = [section for section in self.sections if section.name == name]
        if len(found) > 1:
            raise corrupt("it has %d sections %s" % (len(found), name))
        return found[0] if found else None

    def symbols(self) -> list[SymbolRow]:
        """All symbols by their number, none where there is no table of them. Raises LivepatchError patch_corrupt."""
        tables = [section for section in self.sections if section.kind == SHT_SYMTAB]
        if not tables:
            # The assembler writes none for a patch that only changes values.
            return []
        if len(tables) > 1:
            raise corrupt("it has %d tables of symbols" % len(tables))
        table = tables[0]
        if table.link >= len(self.sections):
            raise corrupt("the names of its symbols are in section %d" % table.link)
        strings = self.sections[table.link]
        names = self._text_table(strings.offset, strings.size, "names of the symbols")
        found = []
        for name, info, _other, section, value, size in self._rows(table, _SYMBOL):
            found.append(SymbolRow(self._name(names, name), info & 15, section, value, size))
        return found

    def relocations(self, section: SectionRow) -> Iterator[tuple[int, int, int, int]]:
        """(offset, type, number of a symbol, addend) of the fields in one SHT_RELA section. Raises LivepatchError."""
        if section.kind != SHT_RELA:
            raise corrupt("section %s holds no relocations with addends" % section.name)
        for offset, info, addend in self._rows(section, _RELOCATION):
            yield offset, info & 0xFFFFFFFF, info >> 32, addend

    def _rows(self, section: SectionRow, row: struct.Struct) -> Iterator[tuple[int, ...]]:
        count, rest = divmod(section.size, row.size)
        self._rows_left -= count
        if rest or self._rows_left < 0:
            raise corrupt("section %s has %d bytes of rows, which no patch has" % (section.name, section.size))
        return row.iter_unpack(self.content(section))

    def _text_table(self, offset: int, size: int, what: str) -> bytes:
        if offset + size > len(self._raw):
            raise corrupt("the %s reach past the end of the file" % what)
        return self._raw[offset : offset + size]

    def _name(self, table: bytes, at: int) -> str:
        """The text at a place of a table. Raises LivepatchError patch_corrupt for none, or more of them than may be."""
        end = table.find(b"\0", at, at + _MOST_NAME)
        if end < 0:
            raise corrupt("a name has no end")
        self._left -= end - at
        if self._left < 0:
            raise corrupt("its names are longer than the file")
        try:
            return table[at:end].decode("utf-8")
        except UnicodeDecodeError:
            raise corrupt("a name is no text") from None


def corrupt(why: str) -> LivepatchError:
    """The error for a file that is no patch."""
    return LivepatchError("patch_corrupt", "the patch file is damaged or no patch file: %s" % why)
