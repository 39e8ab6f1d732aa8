# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a patch file, believing nothing in it: everything is checked before anyone acts on it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import Any

from .._errors import LivepatchError
from .content import BSS, DATA, RODATA, TEXT, Patch, Relocation, Section, Symbol
from .manifest import SECTION, Manifest, parse_manifest
from .seal import unsealed

# The largest fix seen (redis, three functions with strings) has 60 KB; the builder refuses long before this.
MOST_FILE_BYTES = 32 << 20
MOST_MEMORY_BYTES = 64 << 20
_MOST_ALIGN = 4096
_MACHINE = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4


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
        raise _corrupt("it is larger than %d MiB" % (MOST_FILE_BYTES >> 20))
    return replace(parse_patch(unsealed(raw)), sha256=hashlib.sha256(raw).hexdigest())


def parse_patch(body: bytes) -> Patch:
    """The patch in the bytes of an ELF object, as they stand before the seal. Raises as `read_patch`."""
    from elftools.elf.elffile import ELFFile

    try:
        return _parse(body, ELFFile)
    except LivepatchError:
        raise
    except Exception as error:
        # pyelftools has no closed set of exceptions for hostile input; each of them means the same here.
        raise _corrupt("%s: %s" % (type(error).__name__, error)) from None


def _parse(raw: bytes, elf_file: Any) -> Patch:
    if raw[:4] != b"\x7fELF":
        raise _corrupt("it is not an ELF file")
    elf = elf_file(io.BytesIO(raw))
    if elf.elfclass != 64 or not elf.little_endian or elf["e_type"] != "ET_REL":
        raise _corrupt("it is not a relocatable 64-bit little-endian object")
    stored = elf.get_section_by_name(SECTION)
    if stored is None or stored["sh_type"] != "SHT_PROGBITS":
        raise _corrupt("it has no section %s" % SECTION)
    manifest = parse_manifest(_content(raw, stored))
    if _MACHINE.get(manifest.object.arch) != elf["e_machine"]:
        raise _corrupt("its code is for %s, its manifest says %s" % (elf["e_machine"], manifest.object.arch))
    sections, numbers = _sections(raw, elf)
    symbols, names = _symbols(elf, sections, numbers)
    relocations = _relocations(elf, sections, numbers, names)
    _check(manifest, symbols, relocations)
    return Patch(manifest, tuple(sections), tuple(symbols), tuple(relocations))


def _content(raw: bytes, section: Any) -> bytes:
    start, size = section["sh_offset"], section["sh_size"]
    if start + size > len(raw):
        raise _corrupt("section %s reaches past the end of the file" % section.name)
    return raw[start : start + size]


def _sections(raw: bytes, elf: Any) -> tuple[list[Section], dict[int, int]]:
    """The allocated sections, and their place in that list by their ELF section number."""
    sections: list[Section] = []
    numbers: dict[int, int] = {}
    for number, section in enumerate(elf.iter_sections()):
        flags, size, align = section["sh_flags"], section["sh_size"], max(section["sh_addralign"], 1)
        if not flags & _SHF_ALLOC or not size:
            continue
        if align & align - 1 or align > _MOST_ALIGN:
            raise _corrupt("section %s has alignment %d" % (section.name, align))
        if flags & _SHF_EXECINSTR and flags & _SHF_WRITE:
            raise _corrupt("section %s is both writable and executable" % section.name)
        if section["sh_type"] == "SHT_NOBITS":
            kind, content = BSS, b""
        elif section["sh_type"] == "SHT_PROGBITS":
            kind = TEXT if flags & _SHF_EXECINSTR else DATA if flags & _SHF_WRITE else RODATA
            content = _content(raw, section)
        else:
            raise _corrupt("section %s has type %s" % (section.name, section["sh_type"]))
        numbers[number] = len(sections)
        sections.append(Section(section.name, kind, align, size, content))
    if sum(section.size for section in sections) > MOST_MEMORY_BYTES:
        raise _corrupt("it asks for more than %d MiB of memory" % (MOST_MEMORY_BYTES >> 20))
    return sections, numbers


def _symbols(elf: Any, sections: list[Section], numbers: dict[int, int]) -> tuple[list[Symbol], list[str]]:
    """The symbols defined in allocated sections, and the name of every symbol by its number."""
    table = elf.get_section_by_name(".symtab")
    if table is None:
        # The assembler writes none for a patch that only changes values.
        return [], []
    symbols: list[Symbol] = []
    names: list[str] = []
    for symbol in table.iter_symbols():
        place = numbers.get(symbol["st_shndx"]) if isinstance(symbol["st_shndx"], int) else None
        is_section = symbol["st_info"]["type"] == "STT_SECTION"
        names.append(sections[place].name if is_section and place is not None else symbol.name)
        if is_section and place is not None:
            symbols.append(Symbol(sections[place].name, place, 0, sections[place].size, False))
        if place is None or not symbol.name or is_section:
            continue
        if symbol["st_value"] + symbol["st_size"] > sections[place].size:
            raise _corrupt("symbol %s lies outside its section" % symbol.name)
        is_function = symbol["st_info"]["type"] == "STT_FUNC"
        symbols.append(Symbol(symbol.name, place, symbol["st_value"], symbol["st_size"], is_function))
    defined = [symbol.name for symbol in symbols]
    if len(set(defined)) != len(defined):
        raise _corrupt("two symbols have one name")
    return symbols, names


def _relocations(elf: Any, sections: list[Section], numbers: dict[int, int], names: list[str]) -> list[Relocation]:
    relocations: list[Relocation] = []
    for section in elf.iter_sections():
        if section["sh_type"] == "SHT_REL":
            raise _corrupt("section %s holds relocations without addends" % section.name)
        if section["sh_type"] != "SHT_RELA" or section["sh_info"] not in numbers:
            continue
        place = numbers[section["sh_info"]]
        for entry in section.iter_relocations():
            if not 0 <= entry["r_offset"] <= sections[place].size - 4 or sections[place].kind == BSS:
                raise _corrupt("a relocation lies outside section %s" % sections[place].name)
            name = names[entry["r_info_sym"]]
            relocations.append(Relocation(place, entry["r_offset"], entry["r_info_type"], name, entry["r_addend"]))
    return relocations


def _check(manifest: Manifest, symbols: list[Symbol], relocations: list[Relocation]) -> None:
    """What manifest and code say of each other must agree."""
    defined = {symbol.name: symbol for symbol in symbols}
    known = set(defined) | {reference.symbol for reference in manifest.references}
    for relocation in relocations:
        if relocation.symbol not in known:
            raise _corrupt("symbol %r is neither defined nor in the manifest's references" % relocation.symbol)
    for function in manifest.functions:
        symbol = defined.get(function.symbol)
        if symbol is None or not symbol.is_function or symbol.size != function.new_size:
            raise _corrupt("the new code of %s is not in it" % function.name)


def _corrupt(why: str) -> LivepatchError:
    return LivepatchError("patch_corrupt", "the patch file is damaged or no patch file: %s" % why)
