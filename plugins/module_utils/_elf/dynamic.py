# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The dynamic table of a mapped object, and looking a name up in it the way the dynamic linker does.

Sources: gABI chapter 5 ("Dynamic Section"), the GNU hash table as in glibc's elf/dl-lookup.c, symbol versions as in the
Linux Standard Base ("Symbol Versioning"). A look-up reads some dozen words; pyelftools' symbol map of an object with
100,000 symbols takes 4 to 5 s.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Iterator

from .header import Read

DT_NEEDED, DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ = 1, 2, 5, 6, 7, 8
DT_SONAME, DT_DEBUG, DT_JMPREL, DT_GNU_HASH, DT_VERSYM, DT_VERDEF = 14, 21, 23, 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFC
_POINTERS = (DT_STRTAB, DT_SYMTAB, DT_RELA, DT_JMPREL, DT_GNU_HASH, DT_VERSYM, DT_VERDEF)
STT_TLS, STT_GNU_IFUNC = 6, 10
_HIDDEN = 0x8000
_ENTRY, _PAGE = 16, 4096  # bytes
_AT_ONCE = 24 << 12  # bytes of relocations
# Bounds on what a damaged table may make us read.
_MOST_ENTRIES, _MOST_CHAIN, _MOST_RELOCATIONS, _MOST_NAME = 512, 4096, 4_000_000, 4096


@dataclass(frozen=True)
class Definition:
    """A symbol an object defines: its run-time address and whether that is a resolver (IFUNC) or thread-local.

    `size` is in bytes.
    """

    address: int
    is_ifunc: bool
    is_tls: bool
    size: int = 0


@dataclass(frozen=True)
class Slot:
    """A dynamic relocation: the run-time address of the field, its type, the symbol's name ("" for none), the
    addend.
    """

    address: int
    kind: int
    name: str
    addend: int


def gnu_hash(name: bytes) -> int:
    """The hash of a name in .gnu.hash (dl_new_hash in glibc)."""
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


def text_at(read: Read, start: int) -> str:
    """The zero-terminated text at an address, empty when it has no end within 4 KiB. Raises what `read` raises."""
    size = 64
    while size <= _MOST_NAME:
        try:
            raw = read(start, size)
        except OSError:
            raw = read(start, 4096 - start % 4096)  # the text may end right before an unmapped page
        text, end, _rest = raw.partition(b"\0")
        if end or len(raw) < size:
            return text.decode("utf-8", "replace")
        size *= 4
    return ""


class DynamicTable:
    """The dynamic table that lies at `address` of an object loaded with `bias`."""

    def __init__(self, read: Read, bias: int, address: int) -> None:
        """Raises what `read` raises."""
        self._read = read
        self.bias = bias
        self.values: dict[int, list[int]] = {}
        for tag, value in _entries(read, address):
            if tag == 0:
                break
            # glibc relocates pointers in the table in place, musl and the kernel's vDSO do not.
            if tag in _POINTERS and value < bias:
                value += bias
            self.values.setdefault(tag, []).append(value)

    def value(self, tag: int) -> int:
        """The first value with this tag, 0 when there is none."""
        return self.values.get(tag, [0])[0]

    def needed(self) -> list[str]:
        """The names of the libraries it asks for, in order."""
        return [self._string(offset) for offset in self.values.get(DT_NEEDED, [])]

    def soname(self) -> str:
        """Its DT_SONAME, or an empty text."""
        return self._string(self.value(DT_SONAME)) if DT_SONAME in self.values else ""

    def look_up(self, name: str, version: str = "") -> Definition | None:
        """The definition of `name`, in `version` when one is given and the object has versions, else the default
        one.
        """
        table = self.value(DT_GNU_HASH)
        if not table or not self.value(DT_SYMTAB):
            return None
        raw_name = name.encode()
        buckets, first, bloom_words, shift = struct.unpack("<IIII", self._read(table, 16))
        if not buckets or not bloom_words:
            return None
        wanted = gnu_hash(raw_name)
        word = struct.unpack("<Q", self._read(table + 16 + 8 * (wanted // 64 % bloom_words), 8))[0]
        if not (word >> wanted % 64) & (word >> (wanted >> shift) % 64) & 1:
            return None
        bucket_at = table + 16 + 8 * bloom_words
        index = struct.unpack("<I", self._read(bucket_at + 4 * (wanted % buckets), 4))[0]
        if index < first:
            return None
        start = index
        for index in range(start, start + _MOST_CHAIN):
            found = struct.unpack("<I", self._read(bucket_at + 4 * buckets + 4 * (index - first), 4))[0]
            if found | 1 == wanted | 1:
                definition = self._definition(index, raw_name, version)
                if definition:
                    return definition
            if found & 1:
                break
        return None

    def slots(self) -> Iterator[Slot]:
        """Every dynamic relocation that has a symbol or a resolver, those of the PLT among them."""
        for start, size in (
            (self.value(DT_RELA), self.value(DT_RELASZ)),
            (self.value(DT_JMPREL), self.value(DT_PLTRELSZ)),
        ):
            if not start or size > 24 * _MOST_RELOCATIONS:
                continue
            for at in range(start, start + size - size % 24, _AT_ONCE):
                for field, info, addend in struct.iter_unpack(
                    "<QQq", self._read(at, min(_AT_ONCE, start + size - size % 24 - at))
                ):
                    kind, symbol = info & 0xFFFFFFFF, info >> 32
                    if symbol or kind == 37:  # R_X86_64_IRELATIVE has no symbol, its addend is the resolver
                        yield Slot(self.bias + field, kind, self._symbol_name(symbol) if symbol else "", addend)

    def _definition(self, index: int, name: bytes, version: str) -> Definition | None:
        raw = self._read(self.value(DT_SYMTAB) + 24 * index, 24)
        name_at, info, _other, section, value, size = struct.unpack("<IBBHQQ", raw)
        if section == 0 or self._read(self.value(DT_STRTAB) + name_at, len(name) + 1) != name + b"\0":
            return None
        if not self._has_version(index, version):
            return None
        kind = info & 15
        address = value if section == 0xFFF1 else self.bias + value
        return Definition(address, kind == STT_GNU_IFUNC, kind == STT_TLS, size)

    def _has_version(self, index: int, version: str) -> bool:
        if not self.value(DT_VERSYM):
            return True
        number = struct.unpack("<H", self._read(self.value(DT_VERSYM) + 2 * index, 2))[0]
        if not version:
            return not number & _HIDDEN
        if number & ~_HIDDEN < 2:
            return not number & _HIDDEN
        return self._version_name(number & ~_HIDDEN) == version

    def versions(self) -> Iterator[tuple[int, str]]:
        """Number and name of each version that the object defines."""
        at = self.value(DT_VERDEF)
        for _index in range(_MOST_ENTRIES if at else 0):
            _revision, _flags, number, _count, _hash, names_at, step = struct.unpack("<HHHHIII", self._read(at, 20))
            yield number, self._string(struct.unpack("<I", self._read(at + names_at, 4))[0])
            if not step:
                break
            at += step

    def _version_name(self, number: int) -> str:
        return next((name for found, name in self.versions() if found == number), "")

    def _symbol_name(self, index: int) -> str:
        return self._string(struct.unpack("<I", self._read(self.value(DT_SYMTAB) + 24 * index, 4))[0])

    def _string(self, offset: int) -> str:
        return text_at(self._read, self.value(DT_STRTAB) + offset)


def _entries(read: Read, address: int) -> Iterator[tuple[int, int]]:
    """The (tag, value) pairs that lie at an address, one page of them after the other: the table ends in a mapped one.

    Raises what `read` raises.
    """
    left = _MOST_ENTRIES
    while left:
        count = max(min(left, (_PAGE - address % _PAGE) // _ENTRY), 1)
        yield from struct.iter_unpack("<QQ", read(address, count * _ENTRY))
        address, left = address + count * _ENTRY, left - count
