# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in a process there is room for a patch: for its image near the object, for a branch at the very place it
needs.
"""

from __future__ import annotations

from .._errors import LivepatchError
from .._process.maps import Mapping, gaps
from .._process.objects import MappedObject
from .image import PAGE

_LOWEST = 1 << 16  # vm.mmap_min_addr
_TOP = (1 << 47) - PAGE
_REACH = (1 << 31) - (1 << 20)
# What grows by itself must find its way free: the heap (brk) upward, the main thread's stack downward. Bytes.
HEAP_ROOM = 256 << 20
STACK_ROOM = 64 << 20


class FreeSpace:
    """The free addresses of a process, less what its heap and stack may grow into, less what was taken from here."""

    def __init__(self, mappings: list[Mapping], executable_end: int) -> None:
        """`executable_end`: the highest address of the executable, above which the heap starts."""
        self._blocked = [(mapping.start, mapping.end) for mapping in mappings]
        heap_end = max([executable_end] + [mapping.end for mapping in mappings if mapping.path == "[heap]"])
        self._blocked.append((heap_end, heap_end + HEAP_ROOM))
        for mapping in mappings:
            if mapping.path == "[stack]":
                self._blocked.append((max(mapping.start - STACK_ROOM, 0), mapping.start))

    def is_free(self, start: int, end: int) -> bool:
        """True when nothing lies, or may come to lie, in [start, end)."""
        return _LOWEST <= start < end <= _TOP and not any(start < taken and at < end for at, taken in self._blocked)

    def take(self, start: int, end: int) -> None:
        """Mark [start, end) as no longer free."""
        self._blocked.append((start, end))

    def near(self, target: MappedObject, size: int, absolute: bool) -> int:
        """A place for `size` bytes (whole pages) within reach of all of an object; `absolute`: in the lowest 2 GiB.

        With a free page on both sides, below the object if possible: above it the heap may grow. Raises LivepatchError
        no_room_near_object.
        """
        low = max(_LOWEST, target.end - _REACH)
        high = min(_TOP, target.start + _REACH, 1 << 31 if absolute else _TOP)
        best = 0
        blocked = sorted(self._blocked)
        taken = [Mapping(start, end, "", 0, "", 0, "") for start, end in blocked]
        for start, end in gaps(taken, low, high):
            if end - start < size + 2 * PAGE:
                continue
            if end <= target.start:
                best = end - size - PAGE
            else:
                best = best or start + PAGE
                break
        if not best:
            raise LivepatchError(
                "no_room_near_object",
                "no %d bytes are free within 2 GiB of %s at %#x" % (size, target.path, target.start),
            )
        return best & -PAGE
