# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Unloading: once nobody can enter a patch any more and nobody is inside, its memory is given back."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

from .._errors import LivepatchError
from .._process.maps import mapping_at
from .._process.process import Process
from .._ptrace.tracer import as_tracer
from .explain_inside import busy
from .layers import ON, UNKNOWN, Layers
from .map_region import unmap
from .memory_inside import MemoryScan
from .region import LOADED, UNLOADING, Region, file_name, write_mutable
from .threads_inside import Inside, anyone_inside
from .unwinder import forget_frames, registered_places

# How long one thread may take to come to a stop before it counts as busy, and the pause between two looks, seconds.
_LOOK, _PAUSE = 0.1, 0.05
# How long all threads may be stopped where they are born faster than they can be looked at one by one, seconds.
_STOP = 0.1


def unload(process: Process, patch_id: str, timeout: float, pretend: bool = False) -> int | None:
    """Take an inactive patch out of the process; None when it was not there. `pretend`: only check.

    Returns how long one thread was held for it at most, whole microseconds rounded up. Raises LivepatchError
    still_active, function_busy (someone was inside, or the program kept an address in the patch, at every look until
    `timeout` seconds had passed), object_modified, not_permitted, already_traced, process_gone; the patch is then
    loaded as before.
    """
    layers = Layers.of(process)
    region = layers.region(patch_id)
    if region is None:
        return None
    marks = {layers.mark(region, site) for site in region.sites if site.kind != "data"}
    if layers.state(region) == "active" or ON in marks:
        raise LivepatchError("still_active", "patch %s is active in %s" % (patch_id, process))
    if UNKNOWN in marks:
        raise LivepatchError(
            "object_modified",
            "%s has code where patch %s was that is neither's, and may lead into it" % (process, patch_id),
        )
    if pretend:
        return 1
    return 1 + _once_left(process, region, timeout, registered_places(process, region))


def _take_out(process: Process, region: Region) -> int:
    """Unmap a patch inside which nobody is; the longest hold of a thread, microseconds. Raises LivepatchError."""
    _check_parts(process, region)
    region = write_mutable(
        process.memory, region, replace(region.mutable, state=UNLOADING, sequence=region.mutable.sequence + 1)
    )
    try:
        return unmap(process, [(start, size) for start, size, _protection in region.parts])
    except BaseException:
        _take_back(process, region)
        raise


def _check_parts(process: Process, region: Region) -> None:
    """Nothing but the patch may be where it is unmapped. Raises LivepatchError object_modified."""
    for mapping in process.maps():
        if mapping.path != file_name(region.id) and any(
            mapping.start < start + size and start < mapping.end for start, size, _protection in region.parts
        ):
            raise LivepatchError(
                "object_modified",
                "%s has put something else at %#x, where patch %s was" % (process, mapping.start, region.id),
            )


def _take_back(process: Process, region: Region) -> None:
    """Note that the patch is loaded after all, if no part of it is gone yet; else the next run takes out the rest."""
    with contextlib.suppress(LivepatchError, OSError):
        mappings = process.maps()
        if all(mapping_at(mappings, start) for start, _size, _protection in region.parts):
            state = replace(region.mutable, state=LOADED, sequence=region.mutable.sequence + 1)
            write_mutable(process.memory, region, state)


def _once_left(process: Process, region: Region, timeout: float, spared: list[tuple[int, int]]) -> int:
    """Take a patch out as soon as nobody is inside; the longest hold of a thread, microseconds.

    `spared`: words [start, end) that may lead into it. Raises LivepatchError function_busy, and as forget_frames() and
    `_take_out`.
    """
    end = time.monotonic() + timeout
    held_us = [0]
    branches = region.branches()
    # The first byte is the description's, which the program knows nothing of; but what lay right below the patch, as an
    # allocator's arena that was given back meanwhile, ends at its address, and ends are kept.
    image = [
        (start + 1 if start == region.address else start, end)
        for start, end in _everything(region)
        if (start, end) not in branches
    ]
    memory = MemoryScan(process, image, branches, [*_everything(region), *spared])
    program = process.program()

    def attempt() -> Inside | None:
        # Twice: what the program moved from a place not yet read to one already read, it did not move back.
        for _turn in range(2):
            looks = anyone_inside(process, _everything(region), _LOOK, _STOP)
            held_us.extend(looks.held_us)
            inside = looks.inside or memory.find(looks.tops)
            if inside:
                return inside
        if not region.frames:  # all in the thread of one tracer
            held_us.append(_take_out(process, region))
        return None

    while True:
        inside = as_tracer(attempt)
        if inside is None:
            if region.frames:
                _check_parts(process, region)
                held_us.append(forget_frames(process, region, end))
                held_us.append(_take_out(process, region))
            return max(held_us)
        if process.program() != program:
            raise LivepatchError("process_gone", "%s becomes another program" % process)
        if time.monotonic() + _PAUSE > end:
            raise busy(process, inside, "patch %s" % region.id)
        time.sleep(_PAUSE)


def _everything(region: Region) -> list[tuple[int, int]]:
    """All of a patch, code and data, as ranges [start, end)."""
    return [(start, start + size) for start, size, _protection in region.parts]
