# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A written patch reads back as it was, and the same content gives the same bytes."""

from __future__ import annotations

import dataclasses

import pytest

from module_utils._errors import LivepatchError
from module_utils._patch.content import BSS, DATA, RODATA, TEXT, Patch, Relocation, Section, Symbol
from module_utils._patch.manifest import BoundObject, Manifest, Reference, ReplacedFunction
from module_utils._patch.reader import read_patch
from module_utils._patch.writer import assembler_text, patch_bytes

CODE = bytes(range(40))
PATCH = Patch(
    manifest=Manifest(
        id="fix",
        version="1",
        object=BoundObject("prog", "ab" * 20, "x86_64"),
        functions=(ReplacedFunction("f", 0x1000, 20, "00" * 32, "554889e5", 16, "f", 20),),
        references=(
            Reference("g$2", "object", "g", 0x2000),
            Reference("puts", "external", "puts", slot=0x4000, version="GLIBC_2.2.5"),
        ),
        description='with "quotes", a \\ backslash,\n a line, and ünïcode',
    ),
    sections=(
        Section(".text", TEXT, 16, 40, CODE),
        Section(".rodata", RODATA, 8, 9, b"constant\0"),
        Section(".data", DATA, 8, 8, bytes(8)),
        Section(".bss", BSS, 32, 100, b""),
    ),
    symbols=(
        Symbol("f", 0, 0, 20, True),
        Symbol("h.cold", 0, 32, 8, True),
        Symbol("f.const", 1, 0, 9, False),
        Symbol("table", 2, 0, 8, False),
        Symbol("zeros", 3, 64, 36, False),
    ),
    relocations=(
        Relocation(0, 4, 4, "g$2", -4),
        Relocation(0, 10, 42, "puts", -4),
        Relocation(0, 20, 2, "zeros", 12),
        Relocation(2, 0, 1, "f", 0),
    ),
)


def test_reads_back_as_it_was() -> None:
    """Manifest, sections, symbols and relocations; a reference to a defined symbol stays one to the symbol."""
    raw = patch_bytes(PATCH)
    read = read_patch(raw)
    assert read.manifest == PATCH.manifest
    assert {section.name: section for section in read.sections} == {s.name: s for s in PATCH.sections}
    assert {(r.offset, r.kind, r.symbol, r.addend) for r in read.relocations} == {
        (r.offset, r.kind, r.symbol, r.addend) for r in PATCH.relocations
    }
    assert {s.name for s in PATCH.symbols} <= {s.name for s in read.symbols}


def test_same_content_same_bytes() -> None:
    """Nothing of the place or the time finds its way into the file."""
    assert patch_bytes(PATCH) == patch_bytes(PATCH)


def test_nothing_at_all() -> None:
    """A patch that replaces nothing at all is not written."""
    manifest = dataclasses.replace(PATCH.manifest, functions=(), references=())
    with pytest.raises(LivepatchError) as caught:
        patch_bytes(Patch(manifest, (), (), ()))
    assert caught.value.code == "patch_corrupt"


def test_unknown_relocation() -> None:
    """A relocation type that the format does not know is refused by number and symbol."""
    odd = dataclasses.replace(PATCH, relocations=(Relocation(0, 4, 19, "g$2", -4),))
    with pytest.raises(LivepatchError) as caught:
        assembler_text(odd)
    assert caught.value.code == "construct_unsupported"
    assert "g$2" in caught.value.message
