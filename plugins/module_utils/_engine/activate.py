# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Activating and deactivating: the bytes at the sites of a patch are switched over, and nothing else happens.

Both are one thing: the writes from the layers that are there to those that shall be. One-byte writes need no stop;
where one of them is longer, or all must change at one instant, every thread stops. The header of each region is the
journal: it says what was under way, and the bytes at the sites say how far it got, so that the next run can settle it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace

from .._errors import LivepatchError
from .._patch.manifest import CONSISTENCIES
from .._process.process import Process
from .._ptrace.attach import check_traceable
from .bindings import check_there
from .changes import Change, changes, code_left, modified
from .layers import GONE, MIXED, Layers, place_of
from .make_switch import switch_running, switch_stopped
from .region import ACTIVATING, ACTIVE, DEACTIVATING, LOADED, Region, missing_patch, write_mutable
from .unwinder import register_frames


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


@dataclass(frozen=True)
class _Step:
    """What the header of one region says while a switch is under way, and after it."""

    region: Region
    during: int
    after: int


def activate(process: Process, patch_id: str, limits: Limits, pretend: bool = False) -> Switched:
    """Switch the functions of a loaded patch over to it, on top of all others; `pretend`: only check.

    Raises LivepatchError not_loaded, required_patch_missing, superseded, still_active, object_modified, function_busy,
    stop_budget_exceeded, patch_unsupported, not_permitted, already_traced, process_gone, memory_mismatch; the process
    is then as it was.
    """
    layers, repaired = _settle(process, patch_id, limits, pretend)
    region = _region(layers, patch_id, process)
    active = layers.settled()
    if region in active:
        if layers.standing(region) != MIXED:
            return repaired
        active.remove(region)
    limits = _with_consistency(region, limits)
    replaced = _check_neighbours(process, active, region)
    _check_bound(process, layers, region)
    after = [other for other in active if other not in replaced] + [region]
    steps = [_Step(region, ACTIVATING, ACTIVE)] + [_Step(other, DEACTIVATING, LOADED) for other in replaced]
    switched = changes(layers, [region, *replaced], active, after)
    if region.frames and not pretend:
        register_frames(process, region)
    return _both(repaired, _run(process, layers, steps, switched, limits, pretend))


def deactivate(process: Process, patch_id: str, limits: Limits, pretend: bool = False) -> Switched:
    """Switch the functions of an active patch back to what lies below it, the program's own or another patch's.

    `pretend`: only check. Raises as `activate`.
    """
    layers, repaired = _settle(process, patch_id, limits, pretend)
    region = layers.region(patch_id)
    active = layers.settled()
    if region is None or region not in active:  # not there, or only a half of it, as a fork or a death may leave it
        return repaired
    after = [other for other in active if other is not region]
    _check_not_needed(process, after, region)
    limits = _with_consistency(region, limits)
    switched = changes(layers, [region], active, after)
    return _both(repaired, _run(process, layers, [_Step(region, DEACTIVATING, LOADED)], switched, limits, pretend))


def _settle(process: Process, patch_id: str, limits: Limits, pretend: bool) -> tuple[Layers, Switched]:
    """Bring what a tool left undone when it died to one end or the other; the layers then, and what was done.

    Raises as `activate` where the patch itself is concerned; what cannot be settled of others is left as it is.
    """
    layers = Layers.of(process)
    active = layers.settled()
    undone = [
        _Step(region, region.mutable.state, ACTIVE if region in active else LOADED)
        for region in layers.regions
        if region.mutable.state != (ACTIVE if region in active else LOADED)
    ]
    nothing = Switched(False, "none", 0, 0)
    if not undone:
        return layers, nothing
    # What rises notes its end last (see _run): until then the next run knows what all the others belong to.
    undone.sort(key=lambda step: step.during != ACTIVATING)
    try:
        switched = changes(layers, [step.region for step in undone], None, active)
    except LivepatchError:
        if any(step.region.id == patch_id for step in undone):
            raise
        return layers, nothing
    needed = max(CONSISTENCIES.index(step.region.patch["consistency"]) for step in undone)
    done = _run(process, layers, undone, switched, replace(limits, consistency=CONSISTENCIES[needed]), pretend)
    return (layers if pretend else Layers.of(process)), replace(done, changed=bool(switched))


def _run(
    process: Process, layers: Layers, steps: list[_Step], switched: list[Change], limits: Limits, pretend: bool
) -> Switched:
    """Note what is under way, switch, note the end; on failure note that nothing changed.

    With consistency quiescent nobody may be inside the code that the switch leads away from.
    """
    stopless = limits.consistency == "entry" and all(change.alone for change in switched)
    switch = "none" if not switched else "byte" if stopless else "stop"
    if pretend:
        if switch == "stop":
            check_traceable(process)
        return Switched(True, switch, 0, 0)
    writes = [change.write for change in switched]
    order = layers.next_order()
    noted: list[Region] = []
    stop_us, attempts = 0, int(bool(switched))
    try:
        for step in steps:
            noted.append(step.region)
            noted[-1] = _note(process, step.region, step.during, step.region.mutable.order or order)
        bound = [step.region for step in steps if step.region in layers.bound]
        if switch == "byte":
            check_there(process, bound)
            switch_running(process, writes)
        elif switch == "stop":
            forbidden = [part for change in switched for part in change.forbidden]
            quiet = code_left(layers, switched, steps[0].region) if limits.consistency == "quiescent" else None
            stop_us, attempts = switch_stopped(
                process, writes, forbidden, quiet, limits.max_stop, limits.timeout, lambda: check_there(process, bound)
            )
    except BaseException:
        # The bytes say the same without it: a failure to note the failure must not hide it.
        with contextlib.suppress(LivepatchError, OSError):
            if all(process.memory.read(write.address, len(write.old)) == write.old for write in writes):
                for now, step in reversed(list(zip(noted, steps))):
                    sequence = now.mutable.sequence + 1
                    write_mutable(process.memory, now, replace(step.region.mutable, sequence=sequence))
        raise
    # The patch that rises comes last: while it is noted as rising, a next run can tell what the others belong to.
    for now, step in reversed(list(zip(noted, steps))):
        mutable = replace(
            now.mutable,
            state=step.after,
            switch=switch,
            sequence=now.mutable.sequence + 1,
            activated_at=(now.mutable.activated_at or int(time.time())) if step.after == ACTIVE else 0,
            stop_us=stop_us,
            order=now.mutable.order if step.after == ACTIVE else 0,
        )
        write_mutable(process.memory, now, mutable)
    return Switched(True, switch, stop_us, attempts)


def _both(one: Switched, two: Switched) -> Switched:
    """What two switches were together."""
    stronger = max(one.switch, two.switch, key=("none", "byte", "stop").index)
    return Switched(
        one.changed or two.changed, stronger, max(one.stop_us, two.stop_us), max(one.attempts, two.attempts)
    )


def _note(process: Process, region: Region, state: int, order: int) -> Region:
    mutable = replace(region.mutable, state=state, sequence=region.mutable.sequence + 1, order=order)
    return write_mutable(process.memory, region, mutable)


def _region(layers: Layers, patch_id: str, process: Process) -> Region:
    region = layers.region(patch_id)
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


def _check_bound(process: Process, layers: Layers, region: Region) -> None:
    """Raises LivepatchError object_modified where the object of a region, or what its code uses, is not there."""
    lacking = layers.lacks(region)
    if lacking:
        raise LivepatchError(
            "object_modified",
            "patch %s in %s does not fit any more: %s (it was closed, and what lies there now is something else)"
            % (region.id, process, lacking),
            "Load the patch again: it is put where its object is now, if that is still mapped.",
        )
    for site in region.sites:
        if layers.top(place_of(site)) == GONE:
            raise modified(site, "of %s is not mapped any more" % process)


def _check_neighbours(process: Process, active: list[Region], region: Region) -> list[Region]:
    """What the other active patches say of this one; those that it replaces. Raises LivepatchError."""
    ids = [other.id for other in active]
    for name in region.patch["requires"]:
        if name not in ids:
            raise LivepatchError(
                "required_patch_missing", "patch %s requires %s, which is not active in %s" % (region.id, name, process)
            )
    for other in active:
        if region.id in other.patch["replaces"]:
            raise LivepatchError(
                "superseded", "patch %s is replaced by %s, which is active in %s" % (region.id, other.id, process)
            )
    replaced = [other for other in active if other.id in region.patch["replaces"]]
    for gone in replaced:
        _check_not_needed(process, [other for other in active if other not in replaced], gone)
    return replaced


def _check_not_needed(process: Process, active: list[Region], region: Region) -> None:
    """Raises LivepatchError still_active where a patch that stays active requires this one."""
    for other in active:
        if region.id in other.patch["requires"]:
            raise LivepatchError(
                "still_active",
                "patch %s, which requires %s, is active in %s" % (other.id, region.id, process),
                "Deactivate patch %s first." % other.id,
            )
