# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Activating and deactivating: the bytes at the sites of a patch are switched over, and nothing else happens.

Both are one thing: a list of writes from what must be there to what shall be there. One-byte writes need no stop; where
one of them is longer, or all must change at one instant, every thread stops. The header of each region is the journal:
it says what was under way, and the bytes at the sites say how far it got, so that the next run can finish either way.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace

from .._errors import LivepatchError
from .._patch.manifest import CONSISTENCIES
from .._process.process import Process
from .choose_switch import BYTE
from .make_switch import Write, switch_running, switch_stopped, write_of
from .region import (
    ACTIVATING,
    ACTIVE,
    DEACTIVATING,
    LOADED,
    Region,
    find_region,
    find_regions,
    missing_patch,
    write_mutable,
)
from .sites import GONE, NEW, OLD, program_bytes, rivals, site_states


@dataclass(frozen=True)
class Limits:
    """What a switch may cost: `max_stop` seconds of stop, `timeout` seconds of trying again.

    `consistency`: entry, atomic or quiescent; empty for the least that the patch needs.
    """

    max_stop: float = 0.1
    timeout: float = 10.0
    consistency: str = ""


@dataclass(frozen=True)
class Switched:
    """What was done: whether anything changed, how ("none", "byte", "stop"), stop time in microseconds, attempts."""

    changed: bool
    switch: str
    stop_us: int
    attempts: int


def state_of(process: Process, region: Region, regions: list[Region]) -> str:
    """One of "active" (every site is switched over), "loaded" (none is), and "mixed": in between, or bytes are foreign.

    `regions`: all of the process.
    """
    states = set(site_states(process.memory, region, regions))
    return "active" if states == {NEW} else "loaded" if states <= {OLD, GONE} else "mixed"


def activate(process: Process, patch_id: str, limits: Limits, pretend: bool = False) -> Switched:
    """Switch the functions of a loaded patch over to it; `pretend`: only check.

    Raises LivepatchError not_loaded, required_patch_missing, superseded, still_active, object_modified, function_busy,
    stop_budget_exceeded, patch_unsupported, not_permitted, already_traced, process_gone, memory_mismatch; the process
    is then as it was.
    """
    regions = find_regions(process.memory, process.maps())
    region = _region(regions, patch_id, process)
    states = site_states(process.memory, region)
    if set(states) == {NEW}:
        _settle(process, region, ACTIVE, pretend)
        return Switched(False, "none", 0, 0)
    limits = _with_consistency(region, limits)
    _check_neighbours(process, regions, region)
    replaced = [
        other
        for other in regions
        if other.id in region.patch["replaces"] and state_of(process, other, regions) != "loaded"
    ]
    _check_ours(process, region, replaced)
    steps = [(region, ACTIVATING, ACTIVE)] + [(other, DEACTIVATING, LOADED) for other in replaced]
    old_code = list(region.replaced) + [part for other in replaced for part in other.code_ranges()]
    return _run(process, steps, _writes(process, region, replaced), old_code, limits, pretend)


def deactivate(process: Process, patch_id: str, limits: Limits, pretend: bool = False) -> Switched:
    """Switch the functions of an active patch back to the program's own; `pretend`: only check. Raises as
    `activate`.
    """
    regions = find_regions(process.memory, process.maps())
    region = _region(regions, patch_id, process)
    states = site_states(process.memory, region, regions)
    if set(states) <= {OLD, GONE}:
        _settle(process, region, LOADED, pretend)
        return Switched(False, "none", 0, 0)
    for other in regions:
        if patch_id in other.patch["requires"] and state_of(process, other, regions) != "loaded":
            raise LivepatchError(
                "still_active",
                "patch %s, which requires %s, is active in %s" % (other.id, patch_id, process),
                "Deactivate patch %s first." % other.id,
            )
    limits = _with_consistency(region, limits)
    _check_ours(process, region, [])
    writes = [
        write_of(site, site.address, site.new, site.old) for site, state in zip(region.sites, states) if state == NEW
    ]
    return _run(process, [(region, DEACTIVATING, LOADED)], writes, region.code_ranges(), limits, pretend)


def _run(
    process: Process,
    steps: list[tuple[Region, int, int]],
    writes: list[Write],
    old_code: list[tuple[int, int]],
    limits: Limits,
    pretend: bool,
) -> Switched:
    """Note what is under way, switch, note the end; on failure note that nothing changed.

    `old_code`: the ranges that the switch leads away from; with consistency quiescent nobody may be inside them.
    """
    stopless = limits.consistency == "entry" and all(
        len(write.new) == 1 and write.site.kind == BYTE for write in writes
    )
    if pretend:
        return Switched(True, "byte" if stopless else "stop", 0, 0)
    quiet = old_code if limits.consistency == "quiescent" else []
    before = [region for region, _during, _after in steps]
    now = [_note(process, region, during) for region, during, _after in steps]
    try:
        if stopless:
            switch_running(process, writes)
            stop_us, attempts = 0, 1
        else:
            stop_us, attempts = switch_stopped(
                process, writes, _forbidden(writes), quiet, limits.max_stop, limits.timeout
            )
    except BaseException:
        # The bytes say the same without it: a failure to note the failure must not hide it.
        with contextlib.suppress(LivepatchError, OSError):
            for region, known in zip(now, before):
                write_mutable(process.memory, region, replace(known.mutable, sequence=region.mutable.sequence + 1))
        raise
    switch = "byte" if stopless else "stop"
    for region, (_known, _during, after) in zip(now, steps):
        mutable = replace(
            region.mutable,
            state=after,
            switch=switch,
            sequence=region.mutable.sequence + 1,
            activated_at=int(time.time()) if after == ACTIVE else 0,
            stop_us=stop_us,
        )
        write_mutable(process.memory, region, mutable)
    return Switched(True, switch, stop_us, attempts)


def _forbidden(writes: list[Write]) -> list[tuple[int, int]]:
    """Inside the bytes that become one branch nobody may stand: only before them, or behind."""
    return [
        (min(write.site.address, write.address) + 1, write.address + len(write.old))
        for write in writes
        if write.site.kind != "data" and len(write.old) > 1
    ]


def _writes(process: Process, region: Region, replaced: list[Region]) -> list[Write]:
    """From the bytes as they are to those with `region` active and `replaced` not.

    Where both change one place, or the bytes of their branches touch, all of it is one write.
    """
    changes: dict[int, int] = {}
    for other in replaced:
        for site, state in zip(other.sites, site_states(process.memory, other)):
            if state == NEW:
                changes.update({site.address + index: byte for index, byte in enumerate(site.old)})
    for site in region.sites:
        changes.update({site.address + index: byte for index, byte in enumerate(site.new)})
    writes = []
    for site in region.sites + tuple(site for other in replaced for site in other.sites):
        start = end = site.address
        while end in changes:
            end += 1
        while start - 1 in changes:
            start -= 1
        if start < end:
            old = process.memory.read(start, end - start)
            new = bytes(changes.pop(address) for address in range(start, end))
            if old != new:
                writes.append(write_of(site, start, old, new))
    return writes


def _note(process: Process, region: Region, state: int) -> Region:
    return write_mutable(
        process.memory, region, replace(region.mutable, state=state, sequence=region.mutable.sequence + 1)
    )


def _settle(process: Process, region: Region, state: int, pretend: bool) -> None:
    """Let the header say what the bytes say, where a tool died between the two."""
    if region.mutable.state != state and not pretend:
        mutable = region.mutable
        activated_at = (mutable.activated_at or int(time.time())) if state == ACTIVE else 0
        write_mutable(
            process.memory,
            region,
            replace(mutable, state=state, sequence=mutable.sequence + 1, activated_at=activated_at),
        )


def _region(regions: list[Region], patch_id: str, process: Process) -> Region:
    region = find_region(regions, patch_id)
    if region is None:
        raise missing_patch(patch_id, str(process))
    return region


def _with_consistency(region: Region, limits: Limits) -> Limits:
    needed = region.patch["consistency"]
    asked = limits.consistency or needed
    if CONSISTENCIES.index(asked) < CONSISTENCIES.index(needed):
        raise LivepatchError(
            "patch_unsupported",
            "patch %s needs consistency %s, less was asked for: %s" % (region.id, needed, asked),
            "Set 'consistency: %s', or leave it out." % needed,
        )
    return replace(limits, consistency=asked)


def _check_neighbours(process: Process, regions: list[Region], region: Region) -> None:
    """What other patches in the process say of this one."""
    for name in region.patch["requires"]:
        other = find_region(regions, name)
        if other is None or state_of(process, other, regions) != "active":
            raise LivepatchError(
                "required_patch_missing", "patch %s requires %s, which is not active in %s" % (region.id, name, process)
            )
    for other in regions:
        if region.id in other.patch["replaces"] and state_of(process, other, regions) == "active":
            raise LivepatchError(
                "superseded", "patch %s is replaced by %s, which is active in %s" % (region.id, other.id, process)
            )
    for other in rivals(regions, region):
        if state_of(process, other, regions) != "loaded" and other.id not in region.patch["replaces"]:
            raise LivepatchError(
                "still_active",
                "patch %s, which changes the same function, is active in %s" % (other.id, process),
                "Deactivate patch %s first, or build this one with 'replaces: [%s]'." % (other.id, other.id),
            )


def _check_ours(process: Process, region: Region, replaced: list[Region]) -> None:
    """Every site must have bytes we know. Raises LivepatchError object_modified."""
    for site in region.sites:
        now = process.memory.read_some(site.address, len(site.old))
        ours = bool(now) and site.old == program_bytes(process.memory, replaced, site.address, len(site.old))
        if now != site.new and not ours:
            raise LivepatchError(
                "object_modified",
                "%s at %#x of %s has neither its own bytes nor those of the patch" % (site.name, site.address, process),
            )
