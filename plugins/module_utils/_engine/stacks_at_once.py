# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A first look at all stopped threads together: many stacks read by one call, and searched as one.

It sees less than a look at each thread by itself, which is needed wherever it finds anything; mostly it finds nothing.
"""

from __future__ import annotations

from typing import Callable

from .._process.maps import Mapping, mapping_at
from .._process.memory import MOST_PIECES, read_pieces
from .._ptrace import x86_64 as arch
from .find_addresses import Addresses

# What is read at once, bytes: it stays in the processor's cache. Deeper stacks are looked at by themselves.
_ROOM = 1 << 18


def not_sure(
    mappings: list[Mapping], registers: dict[int, bytes], wanted: Addresses, check_budget: Callable[[], None]
) -> list[int]:
    """Those of these stopped threads of one process that must be looked at by themselves.

    All others have no address of `wanted` in a register or on their stack. Not sure is who may have one, or may be in a
    signal's handler, which may have another stack, or whose stack is deep or cannot be read; and who was looked at
    together with one of these. `check_budget` is called before each look, and may raise.
    """
    room = bytearray(_ROOM)
    left: list[int] = []
    together: list[int] = []
    pieces: list[int] = []
    size = 0

    def look() -> None:
        check_budget()
        if together and not _nothing([registers[tid] for tid in together], together[0], pieces, size, room, wanted):
            left.extend(together)

    for tid, held in registers.items():
        pointer = arch.stack_pointer(held)
        mapping = mapping_at(mappings, pointer)
        start = pointer if arch.in_system_call(held) else pointer - arch.RED_ZONE
        start = max(start, mapping.start) if mapping else 0
        more = mapping.end - start if mapping else _ROOM + 1
        if more > _ROOM:
            left.append(tid)
            continue
        if size + more > _ROOM or len(together) == MOST_PIECES:
            look()
            together, pieces, size = [], [], 0
        together.append(tid)
        pieces += (start, more)
        size += more
    look()
    return left


def _nothing(
    registers: list[bytes], tid: int, pieces: list[int], size: int, room: bytearray, wanted: Addresses
) -> bool:
    everything = b"".join(registers)
    return (
        not wanted.may_be_among(everything, len(everything))
        and read_pieces(tid, pieces, room)
        and not arch.has_signal_frame(room, size)
        and not wanted.may_be_among(room, size)
    )
