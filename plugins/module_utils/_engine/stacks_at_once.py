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


def surely_nobody(
    mappings: list[Mapping], registers: dict[int, bytes], wanted: Addresses, check_budget: Callable[[], None]
) -> bool:
    """True when none of these stopped threads of one process has an address of `wanted` in a register or on its stack.

    False where one may have, or may be in a signal's handler, which may have another stack, or where its stack is deep
    or cannot be read. `check_budget` is called now and then, and may raise.
    """
    everything = b"".join(registers.values())
    if wanted.may_be_among(everything, len(everything)):
        return False
    room = bytearray(_ROOM)
    pieces: list[int] = []
    size = last = 0
    for tid, held in registers.items():
        pointer = arch.stack_pointer(held)
        mapping = mapping_at(mappings, pointer)
        if mapping is None:
            return False
        start = max(pointer if arch.in_system_call(held) else pointer - arch.RED_ZONE, mapping.start)
        more = mapping.end - start
        if size + more > _ROOM or len(pieces) == 2 * MOST_PIECES:
            check_budget()
            if not _nothing(last, pieces, size, room, wanted):
                return False
            pieces, size = [], 0
        if more > _ROOM:
            return False
        pieces += (start, more)
        size, last = size + more, tid
    return not pieces or _nothing(last, pieces, size, room, wanted)


def _nothing(tid: int, pieces: list[int], size: int, room: bytearray, wanted: Addresses) -> bool:
    return (
        read_pieces(tid, pieces, room) and not arch.has_signal_frame(room, size) and not wanted.may_be_among(room, size)
    )
