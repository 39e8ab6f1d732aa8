# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is inside a piece of code: whose program counter, registers or stack lead into it.

No unwind information is used. Every word of a stack from the stack pointer up that could be an address in the code
counts, at any alignment: a return address, the saved program counter of a signal frame, a function pointer about to be
called. That can be wrong in one direction only: not knowing counts as inside.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Callable

from .._process.maps import Mapping, mapping_at
from .._process.process import Process
from .._ptrace import x86_64 as arch
from .._ptrace.attach import runs_no_code
from .._ptrace.hold_one_thread import held_thread
from .._ptrace.stop_all_threads import BudgetExceeded, stopped
from .find_addresses import Addresses
from .stacks_at_once import not_sure

# A stack is read in pieces of this size, bytes, and no further than this.
_PIECE, _MOST = 1 << 16, 64 << 20
_OVERLAP = 64
# How long threads born meanwhile are looked at one by one, seconds.
_CHASE = 0.5


@dataclass(frozen=True)
class Inside:
    """Who is, or may come back, inside: a thread, or (`tid` 0) a word in memory that is on no thread's stack.

    `where` is the address inside that was found, 0 where none could be; `at` the place in memory that holds it, 0 for a
    register. `stack`: the pieces (address, bytes) of the thread's stacks that were read.
    """

    tid: int
    where: int
    at: int = 0
    stack: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True)
class StackTop:
    """Up to where a thread uses the stack it is on: nothing below `low` is of use. `thread_pointer`: its fs_base."""

    low: int
    thread_pointer: int


@dataclass
class Looks:
    """What looking at each thread found; `held_us` is how long each of them was held, microseconds."""

    inside: Inside | None = None
    tops: list[StackTop] = field(default_factory=list)
    held_us: list[int] = field(default_factory=list)


@dataclass
class _Copied:
    """What was read of one thread; `whole` is false where one of its stacks could not be read to its end."""

    registers: bytes
    stack: list[tuple[int, bytes]] = field(default_factory=list)
    whole: bool = True


def threads_inside(
    process: Process,
    mappings: list[Mapping],
    registers: dict[int, bytes],
    wanted: Addresses,
    check_budget: Callable[[], None],
) -> list[Inside]:
    """Which of these stopped threads are inside `wanted`; `mappings` may be a little older.

    `check_budget` is called before each look: it may raise, where stacks are too deep for the time there is.
    """
    found: list[Inside] = []
    for tid in not_sure(mappings, registers, wanted, check_budget):
        check_budget()
        inside = _inside(tid, _copy(process, mappings, registers[tid]), wanted)
        if inside:
            found.append(inside)
    return found


def anyone_inside(process: Process, ranges: list[tuple[int, int]], timeout: float, max_stop: float = 0.0) -> Looks:
    """Look at every thread; `inside` is the first one that is inside one of the ranges, or None.

    Each thread is held by itself, while its stack is copied: nobody can enter any more, so one look at each is enough.
    A thread that does not come to a stop within `timeout` seconds counts as inside. Inside as_tracer(). Raises
    LivepatchError.

    Where threads are born faster than they can be looked at, all are stopped at once, for at most `max_stop` seconds;
    with 0 those that were born last are left out, for who asks will stop all anyway.
    """
    looked: set[int] = set()
    chase_until = 0.0
    looks, wanted = Looks(), Addresses(tuple(ranges))
    while True:
        new = [tid for tid in process.threads() if tid not in looked]
        if not new:
            return looks
        if chase_until and time.monotonic() > chase_until:
            return _look_at_all(process, wanted, max_stop, looks) if max_stop else looks
        mappings = process.maps()
        for tid in new:
            looked.add(tid)
            with held_thread(process, tid, timeout) as thread:
                copied = _copy(process, mappings, thread.registers) if thread else None
            if thread is not None and copied is not None:
                looks.held_us.append(thread.held_us)
                looks.tops.append(stack_top(copied.registers))
                looks.inside = _inside(tid, copied, wanted)
            elif not runs_no_code(process, tid):
                looks.inside = Inside(tid, 0)
            if looks.inside:
                return looks
        chase_until = chase_until or time.monotonic() + _CHASE


def _look_at_all(process: Process, wanted: Addresses, max_stop: float, looks: Looks) -> Looks:
    """Look at all threads in one stop."""
    try:
        with stopped(process, max_stop) as window:
            looks.tops = [stack_top(registers) for registers in window.registers.values()]
            # Read in the stop: the stacks of those born last are among them.
            found = threads_inside(process, process.maps(), window.registers, wanted, window.check_budget)
        looks.inside = found[0] if found else None
        looks.held_us.append(window.stop_us)
    except BudgetExceeded as exceeded:
        looks.inside = Inside((exceeded.late or [process.pid])[0], 0)
        looks.held_us.append(exceeded.stop_us)
    return looks


def stack_top(registers: bytes) -> StackTop:
    """Where the stack of a stopped thread ends.

    Below the stack pointer a leaf function may keep data while it runs; what lies there during a system call is left
    over from calls that have returned, and was seen to keep a patch from being unloaded while a thread slept.
    """
    below = 0 if arch.in_system_call(registers) else arch.RED_ZONE
    return StackTop(arch.stack_pointer(registers) - below, arch.thread_pointer(registers))


def _copy(process: Process, mappings: list[Mapping], registers: bytes) -> _Copied:
    """Read all stacks of a thread: nothing more, for it is held meanwhile."""
    copied = _Copied(registers)
    low = stack_top(registers).low
    stacks = [(low, arch.stack_pointer(registers))]
    copied.whole = mapping_at(mappings, stacks[0][1]) is not None
    seen: dict[int, int] = {}  # start of a mapping -> from where on it was read
    while stacks:
        low, stack = stacks.pop()
        mapping = mapping_at(mappings, stack)
        if mapping is None or stack >= seen.get(mapping.start, stack + 1):
            continue
        seen[mapping.start] = stack
        # A handler on a stack of its own: what it interrupted lies on another one.
        stacks += [
            (pointer - arch.RED_ZONE, pointer)
            for pointer in _copy_one(process, mapping, max(low, mapping.start), copied)
        ]
    return copied


def _copy_one(process: Process, mapping: Mapping, at: int, copied: _Copied) -> list[int]:
    """Read one stack from `at` up; the pointers to the stacks that handlers on it interrupted."""
    end = min(mapping.end, at + _MOST)
    interrupted: list[int] = []
    copied.whole = copied.whole and end == mapping.end
    while at < end:
        piece = process.memory.read_some(at, min(_PIECE, end - at))
        if not piece:
            copied.whole = False
            break
        copied.stack.append((at, piece))
        interrupted += arch.interrupted_stacks(piece)
        # Pieces overlap, so that nothing looked for is cut in two.
        at += len(piece) - _OVERLAP if len(piece) == _PIECE else len(piece)
    return interrupted


def _inside(tid: int, copied: _Copied, wanted: Addresses) -> Inside | None:
    """Whether a thread is inside; it is where it has no known stack, or one that could not be read to its end."""
    stack = tuple(copied.stack)
    for _place, word in wanted.among(copied.registers):
        return Inside(tid, word, 0, stack)
    for start, piece in stack:
        for place, word in wanted.among(piece, start):
            return Inside(tid, word, place, stack)
    return None if copied.whole else Inside(tid, 0, 0, stack)
