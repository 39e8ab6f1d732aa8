# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may come back into a piece of code, or use data, and is no thread: words in memory that lead there.

A suspended coroutine is a stack that no thread is on; a callback is a pointer that the program keeps. Neither can be
told from other data, so every word counts that could be an address, wherever the program could have written it. The
program runs meanwhile: what only moves from a place not yet read to one already read is missed, so who must be certain
reads twice (a stack does not move, and its return addresses stay where they are until they are overwritten).
"""

from __future__ import annotations

from typing import Callable, Iterator

from .._process.maps import Mapping, mapping_at
from .._process.pages import PAGE, held_pages, is_devices
from .._process.process import Process
from .._ptrace import x86_64 as arch
from .find_addresses import Addresses
from .thread_stacks import ThreadStacks, ended_stack
from .threads_inside import Inside, StackTop

_PIECE, _OVERLAP = 1 << 18, 64


class MemoryScan:
    """The memory of one process, ready to be searched, more than once if need be.

    Looked for are words in `ranges`, and saved program counters in `saved`, both ranges [start, end). `saved` is for
    code that calls nothing, as the branches of a patch: it can only be come back to through the program counter that a
    signal saved. What lies in `own` is left out.
    """

    def __init__(
        self,
        process: Process,
        ranges: list[tuple[int, int]],
        saved: list[tuple[int, int]],
        own: list[tuple[int, int]],
    ) -> None:
        self._process = process
        self._memory = process.memory
        self._own = own
        self._wanted, self._interrupted = Addresses(tuple(ranges)), Addresses(tuple(saved))
        self._any_saved = bool(saved)
        self._stacks = ThreadStacks(process.memory)

    def find(self, tops: list[StackTop], check_budget: Callable[[], None] = lambda: None) -> Inside | None:
        """The first word that was looked for, on no stack of a thread that `tops` tells of, and not in `own`.

        `check_budget` is called now and then. Raises LivepatchError and what `check_budget` raises.
        """
        mappings = self._process.maps()
        spared = Addresses((*self._own, *self._stacks.looked_at(mappings, tops)))
        ended: list[tuple[int, int]] = []
        for start, end in held_pages(self._process, spared.outside(_areas(mappings))):
            at = start
            while at < end:
                check_budget()
                size = min(end - at, _PIECE)
                piece = self._memory.read_some(at, min(end - at, size + _OVERLAP))
                for place, word in self._hits(piece, at):
                    if any(low <= place < high for low, high in ended):
                        continue
                    stack = ended_stack(self._memory, mappings, place, tops)
                    if stack is None:
                        return Inside(0, word, place, ((at, piece),))
                    ended.append(stack)
                if len(piece) >= size:
                    at += size
                    continue
                gap = at + len(piece)
                at = self._behind(gap)
                if not at:
                    return Inside(0, 0, gap)
        return None

    def _behind(self, gap: int) -> int:
        """From where on there may be something to read, behind a page that cannot be read.

        0 where that page is memory of the program, as that of memfd_secret(2).
        """
        page = gap & -PAGE
        mappings = self._process.maps()
        mapping = mapping_at(mappings, page)
        if mapping is None:  # it was given back meanwhile
            return next((later.start for later in mappings if later.start > page), 1 << 64)
        if is_devices(self._process, mapping.start):
            return mapping.end
        if not list(held_pages(self._process, [(page, page + PAGE)])):
            return page + PAGE
        return page if self._memory.read_some(page, 1) else 0

    def _hits(self, piece: bytes, at: int) -> Iterator[tuple[int, int]]:
        """(place, word) of every word that counts in bytes that were read at `at`."""
        yield from self._wanted.among(piece, at)
        if self._any_saved:
            for offset, counter in arch.interrupted_counters(piece):
                if self._interrupted.hold(counter):
                    yield at + offset, counter


def _areas(mappings: list[Mapping]) -> list[tuple[int, int]]:
    """Where a program keeps what it has written: all that it may write to, and what is no file's; what adjoins is one.

    Memory of its own that it may not write to at the moment counts: a collector of garbage, or a guard, may have
    protected it.
    """
    areas: list[tuple[int, int]] = []
    for mapping in mappings:
        if not (mapping.is_writable() or not mapping.inode) or mapping.path.startswith(("[v", "[uprobes")):
            continue
        if areas and areas[-1][1] == mapping.start:
            areas[-1] = areas[-1][0], mapping.end
        else:
            areas.append((mapping.start, mapping.end))
    return areas
