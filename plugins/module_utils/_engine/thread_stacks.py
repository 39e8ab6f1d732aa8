# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that belongs to the stack of a thread: of one that is looked at by itself, or of one that has ended.

Known are the stack that the kernel made, the stacks of glibc (nptl/descr.h: struct pthread lies at the upper end of the
stack it describes, begins with its own address, which comes again two words on, and holds the start and size of the
stack) and those of other C libraries that end in a guard. What is not known is in use.
"""

from __future__ import annotations

import struct

from .._process.maps import Mapping, mapping_at
from .._process.memory import Memory
from .threads_inside import StackTop

# struct pthread: no larger than this, and aligned so; looked for this far above what a thread that ended has left.
_DESCRIPTOR, _ALIGN, _REACH = 4096, 64, 1 << 20
# Where the id of the thread stands in it (behind the header, which has had 704 bytes since glibc 2.3, and a list).
_ID_AT = 720
_PAGE = 4096


class ThreadStacks:
    """The stacks that threads of one process were made with; what was found out once is not looked up again."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._blocks: dict[int, int] = {}  # thread pointer -> start of its stack, 0 where that is not known

    def looked_at(self, mappings: list[Mapping], tops: list[StackTop]) -> list[tuple[int, int]]:
        """The stacks [start, end) of threads that were on them when they were looked at.

        What lies above the stack pointer was read then, what lies below it is out of use.
        """
        found = []
        for top in tops:
            mapping = mapping_at(mappings, top.low)
            if mapping is None or mapping.is_file():
                continue
            start = mapping.start if mapping.path == "[stack]" else self._start(mappings, mapping, top)
            if start and start <= top.low:
                found.append((start, mapping.end))
        return found

    def _start(self, mappings: list[Mapping], mapping: Mapping, top: StackTop) -> int:
        if not top.low < top.thread_pointer < mapping.end:
            return 0
        if top.thread_pointer not in self._blocks:
            start = _block(self._memory, top.thread_pointer) or _guarded(mappings, mapping)
            self._blocks[top.thread_pointer] = start
        return self._blocks[top.thread_pointer]


def ended_stack(memory: Memory, mappings: list[Mapping], place: int, tops: list[StackTop]) -> tuple[int, int] | None:
    """The stack [start, end) around `place` that glibc keeps of a thread that has ended, or None."""
    mapping = mapping_at(mappings, place)
    if mapping is None or mapping.inode:
        return None
    start = place + _ALIGN & -_ALIGN
    data = memory.read_some(start, min(mapping.end - start, _REACH))
    for at in range(0, len(data) - 23, _ALIGN):
        descriptor = start + at
        itself = descriptor.to_bytes(8, "little")
        if data[at : at + 8] == itself and data[at + 16 : at + 24] == itself:
            block = _block(memory, descriptor)
            if not block or not block <= place:
                return None
            # The kernel clears the thread's id when it ends (CLONE_CHILD_CLEARTID), joining it makes -1 of it.
            ended = memory.read_some(descriptor + _ID_AT, 4) in (bytes(4), b"\xff" * 4)
            alive = any(top.thread_pointer == descriptor for top in tops)
            return (block, descriptor) if ended and not alive else None
    return None


def _block(memory: Memory, descriptor: int) -> int:
    """The start of the stack that a glibc thread descriptor describes, 0 when it is none."""
    held = memory.read_some(descriptor, _DESCRIPTOR)
    words: tuple[int, ...] = struct.unpack("<%dQ" % (len(held) // 8), held[: len(held) // 8 * 8])
    if len(words) < 3 or words[0] != descriptor or words[2] != descriptor:
        return 0
    for start, size in zip(words, words[1:]):
        ends_here = descriptor < start + size <= descriptor + 2 * _DESCRIPTOR
        if ends_here and 0 < start < descriptor and start % _PAGE == 0 == size % _PAGE:
            return start
    return 0


def _guarded(mappings: list[Mapping], mapping: Mapping) -> int:
    """The start of a mapping that ends in a guard, else 0."""
    below = mapping_at(mappings, mapping.start - 1)
    return mapping.start if below and below.permissions.startswith("---") else 0
