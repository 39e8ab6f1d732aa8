# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How many bytes at a function's entry may be overwritten as a whole: those that nothing branches into."""

from __future__ import annotations

from .atoms import UnitCode
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
    """Offsets into a function to which relocated references lead: entries of jump tables, jumps from the cold part.

    A table's entry also holds its own place in the table, so that an offset may come out larger than it is: of such a
    table the nearest label counts, which is found by taking that place away.
    """
    found = []
    for user in code.atoms:
        for reference in user.fields:
            target = reference.atom
            if target is None or not set(target.names) & set(names):
                continue
            offset = reference.addend
            if reference.kind in PC_RELATIVE:
                offset += 4 if user.kind == "text" else -reference.offset
            if offset > 0:
                found.append(offset)
    return found
