# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The unwind table of a patch, and the code that tells the process's unwinder of it.

Exceptions pass through patched functions, and are caught there, as in any other: libgcc's unwinder looks first at what
was registered with __register_frame_info (libgcc, unwind-dw2-fde.c). That is called once, by the program, when the
patch is first activated; the record that it wants of its caller comes with the patch.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .._patch.content import BSS, RODATA, TEXT, Relocation, Section, Symbol
from .._patch.unwinding import (
    DONE_AT,
    RECORD,
    RECORD_SECTION,
    RECORD_SIZE,
    REGISTER,
    REGISTER_FUNCTION,
    REGISTER_VERSION,
    TABLE,
    TABLE_SECTION,
)
from .atoms import Field, Frame
from .relocated_fields import R_PC32, R_PLT32
from .resolve_fields import FieldResolver, Placed

# sub $8,%rsp; lea TABLE(%rip),%rdi; lea RECORD(%rip),%rsi; call REGISTER_FUNCTION; movl $1,DONE(%rip); add $8,%rsp; ret
_CODE = bytes.fromhex("4883ec08 488d3d00000000 488d3500000000 e800000000 c7050000000001000000 4883c408 c3")
_TABLE_FIELD, _RECORD_FIELD, _CALL_FIELD, _DONE_FIELD = 7, 14, 19, 25


@dataclass
class _Table:
    content: bytearray = field(default_factory=bytearray)
    relocations: list[Relocation] = field(default_factory=list)
    common: dict[tuple[object, ...], int] = field(default_factory=dict)


def add_frames(
    resolver: FieldResolver,
    sections: list[Section],
    contents: list[bytearray],
    relocations: list[Relocation],
) -> tuple[Symbol, ...]:
    """Put an unwind table and what registers it behind these sections, if the patch needs one; their symbols.

    `contents` are the bytes of the sections; a function without a known record is refused.
    """
    placed = [place for place in resolver.placed.values() if place.one.atom.kind == TEXT and place.one.change.unwinds()]
    if not placed:
        return ()
    table, number = _Table(), len(sections)
    for place in placed:
        frame = place.one.change.after.frames.get(id(place.one.atom))
        if frame is None:
            resolver.refuse("construct_unsupported", place, "it has no unwind information of a known form")
        else:
            _add(table, resolver, place, frame, number)
    table.content += bytes(4)  # the end
    text = next(at for at, section in enumerate(sections) if section.kind == TEXT)
    code = contents[text]
    code += b"\xcc" * (-len(code) % 16)
    start = len(code)
    code += _CODE
    function = resolver.external(REGISTER_FUNCTION, REGISTER_VERSION)
    relocations += table.relocations
    relocations += [
        Relocation(text, start + _TABLE_FIELD, R_PC32, TABLE, -4),
        Relocation(text, start + _RECORD_FIELD, R_PC32, RECORD, -4),
        Relocation(text, start + _CALL_FIELD, R_PLT32, function, -4),
        Relocation(text, start + _DONE_FIELD, R_PC32, RECORD, DONE_AT - 8),
    ]
    sections.append(Section(TABLE_SECTION, RODATA, 8, len(table.content), b""))
    contents.append(table.content)
    sections.append(Section(RECORD_SECTION, BSS, 16, RECORD_SIZE, b""))
    contents.append(bytearray())
    return (
        Symbol(REGISTER, text, start, len(_CODE), True),
        Symbol(TABLE, number, 0, len(table.content), False),
        Symbol(RECORD, number + 1, 0, RECORD_SIZE, False),
    )


def _add(table: _Table, resolver: FieldResolver, place: Placed, frame: Frame, section: int) -> None:
    common = _resolved(resolver, place, frame.common_fields)
    key = (frame.common, *common)
    if key not in table.common:
        table.common[key] = len(table.content)
        _place(table, section, frame.common, common)
    at = len(table.content)
    content = bytearray(frame.content)
    struct.pack_into("<I", content, 4, at + 4 - table.common[key])
    _place(table, section, bytes(content), _resolved(resolver, place, frame.fields))


def _place(table: _Table, section: int, content: bytes, fields: list[tuple[int, int, str, int]]) -> None:
    at = len(table.content)
    table.relocations += [
        Relocation(section, at + offset, kind, symbol, addend) for offset, kind, symbol, addend in fields
    ]
    table.content += content


def _resolved(resolver: FieldResolver, place: Placed, fields: tuple[Field, ...]) -> list[tuple[int, int, str, int]]:
    found = []
    for one in fields:
        leads_to = resolver.frame_symbol(place, one)
        if leads_to is not None:
            found.append((one.offset, one.kind, *leads_to))
    return found
