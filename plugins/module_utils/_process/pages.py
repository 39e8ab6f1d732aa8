# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages of a process hold something of its own, from /proc/PID/pagemap (the kernel's admin-guide, pagemap).

A page that was never touched is not read: reading it would give the process a page more.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Iterator

from .._errors import LivepatchError
from .process import Process

PAGE = 4096
_ENTRY = 8
# The highest byte of an entry: bit 63 (in memory) or bit 62 (swapped out).
_HELD = re.compile(b"[\x40-\xff]+")
# So many entries are read at once.
_AT_ONCE = 1 << 16


def held_pages(process: Process, areas: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts [start, end) of these address ranges, of whole pages, that are in memory or swapped out, in order.

    All of them where the kernel does not tell. Raises LivepatchError process_gone or not_permitted.
    """
    try:
        descriptor = process.open("pagemap")
    except LivepatchError as error:
        if error.code == "process_gone" and not process.has_exited():  # a kernel without it
            yield from areas
            return
        raise
    try:
        for start, end in areas:
            for at in range(start, end, _AT_ONCE * PAGE):
                yield from _held(descriptor, at, min(end, at + _AT_ONCE * PAGE))
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _held(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    wanted = (end - start) // PAGE * _ENTRY
    entries = os.pread(descriptor, wanted, start // PAGE * _ENTRY)
    if len(entries) < wanted:
        yield start, end
        return
    for run in _HELD.finditer(entries[_ENTRY - 1 :: _ENTRY]):
        yield start + run.start() * PAGE, start + run.end() * PAGE
