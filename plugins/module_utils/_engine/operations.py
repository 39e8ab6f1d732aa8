# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the modules ask of the engine: one operation over every process that is meant, each by itself, with its outcome.

One process that fails does not keep the others from being tried; its error stands in its outcome.
"""

from __future__ import annotations

import contextlib
from typing import Callable

from .._errors import LivepatchError
from .._patch.content import Patch
from .._process.link_map import wait_until_linked
from .._process.process import Process
from .._process.selection import ObjectFinder, Selection
from .._ptrace.attach import check_callable, check_traceable
from .activate import Limits, Switched, activate, deactivate
from .choose_switch import BYTE, JUMP
from .layers import Layers
from .load import clear_remains, load, loaded_before, prepare
from .look_at_each import look_at_each
from .outcome import ABSENT, ACTIVE, LOADED, Outcome, Report
from .proof import Known, check_claim, nothing_known
from .region import find_region, find_regions
from .run_operation import run
from .targets import Operation, Step, has_patch
from .unload import unload
from .verify import CLAIM, STORE

# How long loading waits for another run at the same process, and is tried again where it was killed, seconds.
_LOAD_TIMEOUT = 10.0
# How long loading waits for the dynamic linker of a program that just begins, or is at dlopen, seconds.
_LINK_TIMEOUT = 1.0
# How long it may take to see for which object a process has a patch, seconds.
_FIND_TIMEOUT = 10.0


def load_patch(
    patch: Patch, selection: Selection, pretend: bool = False, forms: tuple[str, ...] = (BYTE, JUMP)
) -> Report:
    """Load a patch into every selected process that maps its object. `forms`: see choose_switch (for tests)."""
    manifest = patch.manifest
    finder = ObjectFinder(manifest.object.build_id)
    step, undo = _loading(patch, pretend, forms), _clearing(manifest.id)
    return run(Operation(manifest.id, selection, step, LOADED, pretend, _LOAD_TIMEOUT, finder, undo, at_once=True))


def apply_patch(patch: Patch, selection: Selection, limits: Limits) -> Report:
    """Load a patch, and activate it at once, in every selected process that maps its object."""
    manifest = patch.manifest
    load_step, switch_step = _loading(patch, False, (BYTE, JUMP)), _switching(activate, manifest.id, limits, False)

    def step(process: Process, outcome: Outcome) -> None:
        load_step(process, outcome)
        loaded = outcome.changed
        switch_step(process, outcome)
        outcome.changed = outcome.changed or loaded

    finder = ObjectFinder(manifest.object.build_id)
    undo = _switching(deactivate, manifest.id, limits, False)
    return run(Operation(manifest.id, selection, step, ACTIVE, False, limits.timeout, finder, undo))


def _loading(patch: Patch, pretend: bool, forms: tuple[str, ...]) -> Step:
    manifest = patch.manifest

    def step(process: Process, outcome: Outcome) -> None:
        region = loaded_before(process, patch)
        if region is not None:
            check_claim(process, region, patch)
        outcome.proof = STORE
        # What is loaded for an object that was closed is of no use where that is open again.
        stray = region is not None and Layers.of(process).lacks(region)
        if region is None or stray:
            if stray:
                unload(process, manifest.id, _LOAD_TIMEOUT, pretend)
            clear_remains(process, manifest.id, pretend)
            wait_until_linked(process, _LINK_TIMEOUT)
            prepared = prepare(process, patch, forms)
            outcome.changed = True
            if pretend:
                check_callable(process)
            else:
                _region, outcome.hold_us = load(process, prepared)

    return step


def _clearing(patch_id: str) -> Step:
    def undo(process: Process, _outcome: Outcome) -> None:
        clear_remains(process, patch_id)

    return undo


def unload_patch(patch_id: str, selection: Selection, timeout: float, pretend: bool = False) -> Report:
    """Take a patch out of every selected process that has it; `timeout` seconds for those inside it to leave."""

    def step(process: Process, outcome: Outcome) -> None:
        held_us = unload(process, patch_id, timeout, pretend)
        remains = clear_remains(process, patch_id, pretend)
        outcome.changed = remains or held_us is not None
        if not pretend:
            outcome.hold_us = held_us or 0
        elif outcome.changed:
            check_callable(process)
            check_traceable(process)

    return run(Operation(patch_id, selection, step, ABSENT, pretend, timeout, at_once=True))


def activate_patch(
    patch_id: str, selection: Selection, limits: Limits, pretend: bool = False, known: Known = nothing_known
) -> Report:
    """Activate a loaded patch in every selected process that maps its object, also those that lack it (an error).

    What a process says it has loaded is compared with the patch before, where it is `known`.
    """
    switch, undo = (_switching(change, patch_id, limits, pretend) for change in (activate, deactivate))

    def step(process: Process, outcome: Outcome) -> None:
        region = find_region(find_regions(process.memory, process.last_maps()), patch_id)
        patch = known(region.sha256) if region else None
        if region and patch:
            wait_until_linked(process, _LINK_TIMEOUT)
            outcome.proof = STORE if check_claim(process, region, patch) else CLAIM
        switch(process, outcome)

    finder = _finder_for(patch_id, Selection(pids=selection.pids), known)
    return run(Operation(patch_id, selection, step, ACTIVE, pretend, limits.timeout, finder, undo))


def deactivate_patch(patch_id: str, selection: Selection, limits: Limits, pretend: bool = False) -> Report:
    """Deactivate a patch in every selected process that has it."""
    step, undo = (_switching(change, patch_id, limits, pretend) for change in (deactivate, activate))
    return run(Operation(patch_id, selection, step, LOADED, pretend, limits.timeout, undo=undo))


def _switching(change: Callable[..., Switched], patch_id: str, limits: Limits, pretend: bool) -> Step:
    def step(process: Process, outcome: Outcome) -> None:
        switched = change(process, patch_id, limits, pretend)
        outcome.changed, outcome.switch = switched.changed, switched.switch
        outcome.stop_us, outcome.attempts = switched.stop_us, switched.attempts

    return step


def _finder_for(patch_id: str, where: Selection, known: Known) -> ObjectFinder | None:
    """A finder of the objects that a patch of this id is bound to in processes `where`; None when none has it.

    The patch is looked up on the way: where `known` keeps what it has read, children that work for us have it then.
    """

    def look(process: Process) -> list[tuple[str, str]]:
        with contextlib.suppress(LivepatchError):
            mappings = process.maps()
            region = has_patch(mappings, patch_id) and find_region(find_regions(process.memory, mappings), patch_id)
            if region:
                return [(str(region.patch["build_id"]), region.sha256)]
        return []

    found, _endless = look_at_each(where, look, _FIND_TIMEOUT)
    for sha256 in {sha256 for _build_id, sha256 in found}:
        known(sha256)
    return ObjectFinder(*sorted({build_id for build_id, _sha256 in found})) if found else None
