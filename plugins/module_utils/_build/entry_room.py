# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How many bytes at a function's entry may be overwritten as a whole: those that nothing branches into."""

from __future__ import annotations

from .._patch.content import TEXT
from .atoms import ABOUT_CODE, Atom, UnitCode
from .disassembly import branch_target, instructions, is_padding
from .relocated_fields import PC_RELATIVE

# A branch never needs more than these (14 bytes for an absolute jump); the padding behind a function is at most 15.
_LOOK_BEHIND = 32
ENTRY_BYTES = 16


def overwritable(path: str, start: int, size: int, next_symbol: int, inside: list[int]) -> int:
    """Bytes from the entry of the function at [start, start + size) of the object at `path`.

    `next_symbol`: where the next function starts; `inside`: offsets to which jump tables and the cold part branch.
    Padding behind the function counts.
    """
    end = min(next_symbol, start + size + _LOOK_BEHIND)
    rows = instructions(path, start, max(end, start + size))
    room = size
    for address, length, text in rows:
        if address >= start + size:
            if address != start + room or not is_padding(text) or address + length > end:
                break
            room += length
    targets = [branch_target(text) for address, _length, text in rows if address < start + size]
    offsets = [target - start for target in targets if target is not None] + inside
    return min([offset for offset in offsets if 0 < offset < room], default=room)


def branched_into(code: UnitCode, names: tuple[str, ...]) -> list[int]:
    """Offsets into a function to which relocated references lead: entries of jump tables, jumps from the cold part."""
    found = []
    for user in code.atoms:
        for reference in user.fields:
            if user.section in ABOUT_CODE or reference.atom is None or not set(reference.atom.names) & set(names):
                continue
            offset = reference.addend
            if reference.kind in PC_RELATIVE:
                # An entry of a relative table also holds its own distance from the start of the table.
                offset += 4 if user.kind == TEXT else _table_start(code, user, reference.offset) - reference.offset
            if offset > 0:
                found.append(offset)
    return found


def _table_start(code: UnitCode, table: Atom, at: int) -> int:
    """Where the table that has an entry at `at` starts: several may lie in one section, and code points to each."""
    starts = [
        reference.addend + 4
        for user in code.atoms
        if user.kind == TEXT
        for reference in user.fields
        if reference.atom is table
    ]
    return max([start for start in starts if start <= at], default=0)
