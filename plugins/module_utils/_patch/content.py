# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a patch file holds, as plain values: the same whether it was just built or just read."""

from __future__ import annotations

from dataclasses import dataclass

from .manifest import Manifest

TEXT, RODATA, DATA, BSS = "text", "rodata", "data", "bss"


@dataclass(frozen=True)
class Section:
    """One allocated section. `kind` is TEXT, RODATA, DATA or BSS; `content` is empty for BSS; `size` and `align` are
    bytes.
    """

    name: str
    kind: str
    align: int
    size: int
    content: bytes


@dataclass(frozen=True)
class Symbol:
    """A symbol the patch defines: `offset` bytes into sections[`section`], `size` bytes long."""

    name: str
    section: int
    offset: int
    size: int
    is_function: bool


@dataclass(frozen=True)
class Relocation:
    """One field to be filled: `offset` bytes into sections[`section`]; `kind` is the ABI's number; `symbol` a name."""

    section: int
    offset: int
    kind: int
    symbol: str
    addend: int


def is_branch_field(code: bytes, at: int) -> bool:
    """True when the field at an offset of x86-64 code says where a call or jump goes (opcodes E8, E9, 0F 80 to 0F 8F).

    The byte before another field that counts from the program counter never has one of these values.
    """
    if at < 1:
        return False
    opcode = code[at - 1]
    return opcode in (0xE8, 0xE9) or (at >= 2 and code[at - 2] == 0x0F and opcode & 0xF0 == 0x80)


@dataclass(frozen=True)
class Patch:
    """A whole patch. Every relocation's symbol is either in `symbols` or in the manifest's references."""

    manifest: Manifest
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]
    sha256: str = ""
