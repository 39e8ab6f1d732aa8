# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is inside a piece of code: whose program counter, registers or stack lead into it.

No unwind information is used. Every word of a stack from the stack pointer up that could be an address in the code
counts,
at any alignment: a return address, the saved program counter of a signal frame, a function pointer about to be called.
That can be wrong in one direction only: not knowing counts as inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from .._process.maps import Mapping, mapping_at
from .._process.process import Process
from .._ptrace import x86_64 as arch
from .._ptrace.attach import runs_no_code
from .._ptrace.hold_one_thread import held_thread

# A stack is read in pieces of this size, bytes, and no further than this.
_PIECE, _MOST = 1 << 16, 64 << 20
_OVERLAP = 64


@dataclass(frozen=True)
class Inside:
    """One thread that is, or may come back, inside: `where` is the address that was found, 0 where none could be."""

    tid: int
    where: int


def threads_inside(
    process: Process,
    mappings: list[Mapping],
    registers: dict[int, bytes],
    ranges: list[tuple[int, int]],
    check_budget: Callable[[], None],
) -> list[Inside]:
    """Which of these stopped threads are inside one of the ranges [start, end); `mappings` may be a little older.

    `check_budget` is called before each look: it may raise, where stacks are too deep for the time there is.
    """
    found, wanted = [], Ranges(ranges)
    for tid, held in registers.items():
        check_budget()
        where = _inside(process, mappings, held, wanted)
        if where:
            found.append(Inside(tid, where))
    return found


def anyone_inside(process: Process, ranges: list[tuple[int, int]], timeout: float) -> Inside | None:
    """The first thread that is inside one of the ranges, or None.

    Each thread is held by itself for a moment: nobody can enter any more, so one look at each is enough. A thread that
    does not come to a stop within `timeout` seconds counts as inside. Inside as_tracer(). Raises LivepatchError.
    """
    looked: set[int] = set()
    wanted = Ranges(ranges)
    while True:
        new = [tid for tid in process.threads() if tid not in looked]
        if not new:
            return None
        mappings = process.maps()
        for tid in new:
            looked.add(tid)
            with held_thread(process, tid, timeout) as thread:
                where = _inside(process, mappings, thread.registers, wanted) if thread else 0
            if where or (thread is None and not runs_no_code(process, tid)):
                return Inside(tid, where)


class Ranges:
    """Ranges [start, end) of addresses, made ready to be looked for: one search a 64 KiB that they touch.

    Searched range by range, 200 functions took 1.5 ms a thread.
    """

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self._by_upper: dict[bytes, list[tuple[int, int]]] = {}
        for start, end in ranges:
            for upper in range(start >> 16, (end - 1 >> 16) + 1):
                self._by_upper.setdefault(upper.to_bytes(6, "little"), []).append((start, end))

    def find(self, data: bytes, place: int = 0) -> int:
        """The first little-endian 8-byte word in `data`, which was read at `place`, that lies in a range; 0 for none.

        At any alignment, but an address below 4 GiB (a program without PIE) only where a call would have put it, at a
        multiple of 8 (System V ABI AMD64, 3.2.2): the end of a floating-point number before a zero was taken for one.

        Searched by the common upper bytes of the addresses, which bytes.find does at memory speed. Six of them: the
        upper five of a program without PIE are all zero, and stacks are full of zeros.
        """
        for upper, ranges in self._by_upper.items():
            at = data.find(upper, 2)
            while at >= 0:
                word = int.from_bytes(data[at - 2 : at + 6], "little")
                if (word >> 32 or (place + at - 2) % 8 == 0) and any(start <= word < end for start, end in ranges):
                    return word
                at = data.find(upper, at + 1)
        return 0


def _inside(process: Process, mappings: list[Mapping], registers: bytes, ranges: Ranges) -> int:
    """The address inside that a thread's registers or stack hold, 0 for none; its own where it has no known stack."""
    where = ranges.find(registers)
    if where:
        return where
    # Below the stack pointer a leaf function may keep data while it runs; what lies there during a system call is left
    # over from calls that have returned, and was seen to keep a patch from being unloaded while a thread slept.
    below = 0 if arch.in_system_call(registers) else arch.RED_ZONE
    stacks = [(arch.stack_pointer(registers), below)]
    if mapping_at(mappings, stacks[0][0]) is None:
        return arch.program_counter(registers)
    seen: dict[int, int] = {}  # start of a mapping -> from where on it was looked at
    while stacks:
        stack, below = stacks.pop()
        mapping = mapping_at(mappings, stack)
        if mapping is None or stack >= seen.get(mapping.start, stack + 1):
            continue
        seen[mapping.start] = stack
        where, interrupted = _on_stack(process, mapping, max(stack - below, mapping.start), ranges)
        if where:
            return where
        # A handler on a stack of its own: what it interrupted lies on another one.
        stacks += [(pointer, arch.RED_ZONE) for pointer in interrupted]
    return 0


def _on_stack(process: Process, mapping: Mapping, at: int, ranges: Ranges) -> tuple[int, list[int]]:
    """An address inside that one stack holds from `at` up, 0 for none; the pointers to the stacks it interrupted.

    A stack that cannot be read to its end counts as holding one.
    """
    end = min(mapping.end, at + _MOST)
    interrupted: list[int] = []
    while at < end:
        piece = process.memory.read_some(at, min(_PIECE, end - at))
        if not piece:
            return at, []
        where = ranges.find(piece, at)
        if where:
            return where, []
        interrupted += arch.interrupted_stacks(piece)
        # Pieces overlap, so that nothing looked for is cut in two.
        at += len(piece) - _OVERLAP if len(piece) == _PIECE else len(piece)
    return (0, interrupted) if end == mapping.end else (end, [])
