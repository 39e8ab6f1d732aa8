# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the modules ask of the engine: one operation over every process that is meant, each by itself, with its outcome.

One process that fails does not keep the others from being tried; its error stands in its outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable

from .._errors import LivepatchError
from .._patch.content import Patch
from .._process.maps import Mapping
from .._process.objects import object_at
from .._process.process import Process
from .._process.selection import ObjectFinder, Selection, exe_of, missing_pids, selected
from .._process.shared_memory import shares_parents_memory
from .activate import Limits, Switched, activate, deactivate
from .choose_switch import BYTE, JUMP
from .layers import Layers
from .load import clear_remains, left_open, load, loaded_before, prepare
from .make_switch import SwitchFailed
from .region import file_name, find_region, find_regions, missing_patch
from .unload import unload
from .verify import verify

ABSENT, LOADED, ACTIVE = "absent", "loaded", "active"


@dataclass
class Outcome:
    """What happened to one process. States are absent, loaded, active; times are microseconds.

    `start_time` is clock ticks since boot; `hold_us`: the longest that one thread was held for loading.
    """

    pid: int
    start_time: int
    exe: str
    object: str = ""
    build_id: str = ""
    threads: int = 0
    before: str = ABSENT
    state: str = ABSENT
    changed: bool = False
    verified: bool = False
    switch: str = "none"
    stop_us: int = 0
    hold_us: int = 0
    attempts: int = 0
    error: dict[str, str] | None = None


@dataclass(frozen=True)
class Report:
    """The outcomes of one operation, and what was found of the host on the way."""

    outcomes: list[Outcome] = field(default_factory=list)
    unreadable: int = 0

    def summary(self) -> dict[str, int]:
        """Counts over all outcomes, and the longest stop in microseconds."""
        return {
            "targets": len(self.outcomes),
            "changed": sum(outcome.changed for outcome in self.outcomes),
            "failed": sum(outcome.error is not None for outcome in self.outcomes),
            "max_stop_us": max([outcome.stop_us for outcome in self.outcomes], default=0),
        }


Step = Callable[[Process, Outcome], None]


@dataclass(frozen=True)
class _Operation:
    """One thing to be done to processes: those that `finder` finds (if any), and those that have the patch.

    `goal` is the state that `step` leads to; with `pretend` it only finds out whether it would.
    """

    patch_id: str
    selection: Selection
    step: Step
    goal: str
    pretend: bool
    finder: ObjectFinder | None = None


def load_patch(
    patch: Patch, selection: Selection, pretend: bool = False, forms: tuple[str, ...] = (BYTE, JUMP)
) -> Report:
    """Load a patch into every selected process that maps its object. `forms`: see choose_switch (for tests)."""
    manifest = patch.manifest

    def step(process: Process, outcome: Outcome) -> None:
        if loaded_before(process, patch) is None:
            if not pretend:
                clear_remains(process, manifest.id)
            prepared = prepare(process, patch, forms)
            outcome.changed = True
            if not pretend:
                _region, outcome.hold_us = load(process, prepared)

    finder = ObjectFinder(manifest.object.build_id)
    return _run(_Operation(manifest.id, selection, step, LOADED, pretend, finder))


def unload_patch(patch_id: str, selection: Selection, timeout: float, pretend: bool = False) -> Report:
    """Take a patch out of every selected process that has it; `timeout` seconds for those inside it to leave."""

    def step(process: Process, outcome: Outcome) -> None:
        outcome.changed = unload(process, patch_id, timeout, pretend)
        if not pretend:
            outcome.changed = clear_remains(process, patch_id) or outcome.changed

    return _run(_Operation(patch_id, selection, step, ABSENT, pretend))


def activate_patch(patch_id: str, selection: Selection, limits: Limits, pretend: bool = False) -> Report:
    """Activate a loaded patch in every selected process that maps its object, also those that lack it (an error)."""
    step = _switching(activate, patch_id, limits, pretend)
    return _run(_Operation(patch_id, selection, step, ACTIVE, pretend, _finder_for(patch_id)))


def deactivate_patch(patch_id: str, selection: Selection, limits: Limits, pretend: bool = False) -> Report:
    """Deactivate a patch in every selected process that has it."""
    step = _switching(deactivate, patch_id, limits, pretend)
    return _run(_Operation(patch_id, selection, step, LOADED, pretend))


def _switching(change: Callable[..., Switched], patch_id: str, limits: Limits, pretend: bool) -> Step:
    def step(process: Process, outcome: Outcome) -> None:
        try:
            switched = change(process, patch_id, limits, pretend)
        except SwitchFailed as failure:
            outcome.attempts, outcome.stop_us = failure.attempts, failure.stop_us
            raise
        outcome.changed, outcome.switch = switched.changed, switched.switch
        outcome.stop_us, outcome.attempts = switched.stop_us, switched.attempts

    return step


def _run(operation: _Operation) -> Report:
    outcomes, unreadable = [], 0
    for pid in missing_pids(operation.selection):
        error = LivepatchError("process_gone", "there is no process %d" % pid)
        outcomes.append(Outcome(pid, 0, "", error=error.as_dict()))
    for process in selected(operation.selection):
        outcome = Outcome(process.pid, process.start_time, "")
        try:
            if not _is_meant(operation, process, outcome):
                continue
        except LivepatchError as error:
            if error.code == "process_gone" or not operation.selection.pids:
                unreadable += error.code == "not_permitted"
                continue
            outcome.error = error.as_dict()
        if not outcome.error:
            _one(operation, process, outcome)
        outcomes.append(outcome)
    return Report(outcomes, unreadable)


def _is_meant(operation: _Operation, process: Process, outcome: Outcome) -> bool:
    """Whether to work on this process.

    Raises LivepatchError build_id_mismatch where it is named and lacks the object.
    """
    mappings = process.maps()
    if mappings and shares_parents_memory(process):
        if operation.selection.pids:
            raise LivepatchError(
                "function_busy", "%s shares its memory with its parent (vfork): only that can be patched" % process
            )
        return False
    first = operation.finder.find(process, mappings) if operation.finder else None
    if first:
        outcome.object, outcome.build_id = first[0].path, first[1]
    # Another object's patch may have the same id: a process is loaded into for its object, not for the name.
    loading = operation.finder is not None and operation.goal == LOADED
    if first or (not loading and _has_patch(mappings, operation.patch_id)):
        return True
    if operation.goal == ABSENT and mappings and left_open(process, operation.patch_id):
        return True
    if operation.selection.pids and mappings:
        if operation.goal == ACTIVE:
            raise missing_patch(operation.patch_id, str(process))
        if operation.finder:
            raise LivepatchError(
                "build_id_mismatch", "%s does not map the object of patch %s" % (process, operation.patch_id)
            )
    return False


def _has_patch(mappings: list[Mapping], patch_id: str) -> bool:
    return any(mapping.path == file_name(patch_id) for mapping in mappings)


def _one(operation: _Operation, process: Process, outcome: Outcome) -> None:
    try:
        outcome.exe = exe_of(process)
        outcome.threads = len(process.threads())
        _look(process, operation.patch_id, outcome)
        outcome.before = outcome.state
        operation.step(process, outcome)
        reasons = _look(process, operation.patch_id, outcome)
        if operation.pretend:
            outcome.state = operation.goal if outcome.changed else outcome.state
        elif operation.finder and reasons:
            raise LivepatchError(
                "memory_mismatch",
                "patch %s in %s is not as it must be: %s" % (operation.patch_id, process, "; ".join(reasons)),
                "Deactivate and unload the patch there, and load it again; restart the process if that fails, too.",
            )
    except LivepatchError as error:
        outcome.error = error.as_dict()
    except OSError as error:
        code = "process_gone" if process.has_exited() else "internal"
        outcome.error = LivepatchError(code, "%s: %s" % (process, error)).as_dict()
    if outcome.error:
        outcome.changed = False
        _look_again(process, operation.patch_id, outcome)


def _look(process: Process, patch_id: str, outcome: Outcome) -> tuple[str, ...]:
    """Note what the process says of the patch; what is not as it must be, in words."""
    mappings = process.maps()
    regions = find_regions(process.memory, mappings)
    region = find_region(regions, patch_id)
    if region is None:
        outcome.state, outcome.verified = ABSENT, True
        return ()
    first = [mapping for mapping in mappings if mapping.start == region.object_start]
    objects = [found for mapping in first for found in [object_at(process.memory, mappings, mapping)] if found]
    verified = verify(process, region, objects, Layers(process.memory, regions))
    outcome.state, outcome.verified = verified.state, verified.verified
    outcome.object, outcome.build_id = region.object_path, str(region.patch["build_id"])
    return verified.reasons


def _look_again(process: Process, patch_id: str, outcome: Outcome) -> None:
    """After a failure: what is there now, as far as it can still be seen."""
    try:
        _look(process, patch_id, outcome)
    except (LivepatchError, OSError):
        outcome.state, outcome.verified = ABSENT, False


def _finder_for(patch_id: str) -> ObjectFinder | None:
    """A finder of the objects that a patch of this id is bound to in processes here; None when no process has it."""
    build_ids = set()
    for process in selected(Selection()):
        try:
            mappings = process.maps()
            if _has_patch(mappings, patch_id):
                region = find_region(find_regions(process.memory, mappings), patch_id)
                if region:
                    build_ids.add(str(region.patch["build_id"]))
        except LivepatchError:
            continue
    return ObjectFinder(*sorted(build_ids)) if build_ids else None
