# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the modules ask of the engine: one operation over every process that is meant, each by itself, with its outcome.

One process that fails does not keep the others from being tried; its error stands in its outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

from .._errors import LivepatchError
from .._patch.content import Patch
from .._process.objects import object_at
from .._process.process import Process
from .._process.select import ObjectFinder, Selection, exe_of, selected
from .activate import Limits, Switched, activate, deactivate
from .choose_switch import BYTE, JUMP
from .inspect import inspect
from .load import clear_remains, load, loaded_before, prepare
from .region import NAME, find_region, find_regions
from .unload import unload

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


def load_patch(patch: Patch, selection: Selection, pretend: bool = False, forms: tuple[str, ...] = (BYTE, JUMP)) -> Report:
    """Load a patch into every selected process that maps its object. `forms`: see choose_switch (for tests)."""
    finder = ObjectFinder(patch.manifest.object.build_id)

    def step(process: Process, outcome: Outcome) -> None:
        if loaded_before(process, patch) is None:
            if not pretend:
                clear_remains(process, patch.manifest.id)
            prepared = prepare(process, patch, forms)
            outcome.changed = True
            if not pretend:
                _region, outcome.hold_us = load(process, prepared)

    return _over(selection, patch.manifest.id, finder, step, pretend and LOADED or "")


def unload_patch(patch_id: str, selection: Selection, timeout: float, pretend: bool = False) -> Report:
    """Take a patch out of every selected process that has it; `timeout` seconds for those inside it to leave."""

    def step(process: Process, outcome: Outcome) -> None:
        outcome.changed = unload(process, patch_id, timeout, pretend)
        if not pretend:
            outcome.changed = clear_remains(process, patch_id) or outcome.changed

    return _over(selection, patch_id, None, step, pretend and ABSENT or "")


def activate_patch(patch_id: str, selection: Selection, limits: Limits, pretend: bool = False) -> Report:
    """Activate a loaded patch in every selected process that maps its object, also those that lack it (an error)."""
    return _over(selection, patch_id, _finder_for(patch_id), _switching(activate, patch_id, limits, pretend), pretend and ACTIVE or "")


def deactivate_patch(patch_id: str, selection: Selection, limits: Limits, pretend: bool = False) -> Report:
    """Deactivate a patch in every selected process that has it."""
    return _over(selection, patch_id, None, _switching(deactivate, patch_id, limits, pretend), pretend and LOADED or "")


def _switching(change: Callable[..., Switched], patch_id: str, limits: Limits, pretend: bool) -> Step:
    def step(process: Process, outcome: Outcome) -> None:
        switched = change(process, patch_id, limits, pretend)
        outcome.changed, outcome.switch = switched.changed, switched.switch
        outcome.stop_us, outcome.attempts = switched.stop_us, switched.attempts

    return step


def _over(
    selection: Selection, patch_id: str, finder: ObjectFinder | None, step: Step, then: str
) -> Report:
    """Do `step` to every process that maps the object (by `finder`) or has the patch. `then`: the state a step only meant."""
    outcomes, unreadable = [], 0
    for process in selected(selection):
        outcome = Outcome(process.pid, process.start_time, "")
        try:
            mappings = process.maps()
            name = "/memfd:%s%s (" % (NAME, patch_id)
            meant = any(mapping.path.startswith(name) for mapping in mappings)
            first = finder.find(process, mappings) if finder else None
            if first and finder:
                outcome.object, outcome.build_id = first.path, finder.build_id
            if not meant and not first:
                if finder and selection.pids and mappings:
                    raise LivepatchError("build_id_mismatch", "%s does not map the object of patch %s" % (process, patch_id))
                continue
        except LivepatchError as error:
            if error.code == "process_gone" or not selection.pids:
                unreadable += error.code == "not_permitted"
                continue
            outcome.error = error.as_dict()
            outcomes.append(outcome)
            continue
        _one(process, patch_id, outcome, step, then)
        outcomes.append(outcome)
    return Report(outcomes, unreadable)


def _one(process: Process, patch_id: str, outcome: Outcome, step: Step, then: str) -> None:
    try:
        outcome.exe = exe_of(process)
        outcome.threads = len(process.threads())
        _look(process, patch_id, outcome)
        outcome.before = outcome.state
        step(process, outcome)
        _look(process, patch_id, outcome)
        if then and outcome.changed:
            outcome.state = then
    except LivepatchError as error:
        outcome.error = error.as_dict()
    except OSError as error:
        gone = process.has_exited()
        code = "process_gone" if gone else "internal"
        outcome.error = LivepatchError(code, "%s: %s" % ("process %d has exited" % process.pid if gone else process, error)).as_dict()
    if outcome.error:
        outcome.changed = False
        _look_again(process, patch_id, outcome)


def _look(process: Process, patch_id: str, outcome: Outcome) -> None:
    mappings = process.maps()
    region = find_region(find_regions(process.memory, mappings), patch_id)
    if region is None:
        outcome.state, outcome.verified = ABSENT, True
        return
    first = [mapping for mapping in mappings if mapping.start == region.object_start]
    inspected = inspect(process, region, [found for mapping in first for found in [object_at(process.memory, mapping)] if found])
    outcome.state, outcome.verified = inspected.state, inspected.verified
    outcome.object, outcome.build_id = region.object_path, str(region.patch["build_id"])


def _look_again(process: Process, patch_id: str, outcome: Outcome) -> None:
    """After a failure: what is there now, as far as it can still be seen."""
    try:
        _look(process, patch_id, outcome)
    except (LivepatchError, OSError):
        outcome.state, outcome.verified = ABSENT, False


def _finder_for(patch_id: str) -> ObjectFinder | None:
    """A finder of the object that a patch in some process here is bound to; None when no process has the patch."""
    name = "/memfd:%s%s (" % (NAME, patch_id)
    for process in selected(Selection()):
        try:
            mappings = process.maps()
            if any(mapping.path.startswith(name) for mapping in mappings):
                region = find_region(find_regions(process.memory, mappings), patch_id)
                if region:
                    return ObjectFinder(str(region.patch["build_id"]))
        except LivepatchError:
            continue
    return None
