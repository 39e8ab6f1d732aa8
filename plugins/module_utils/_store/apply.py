# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Giving processes what the store wants of them, with the engine and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._engine.activate import Limits
from .._engine.operations import apply_patch
from .._engine.outcome import Report
from .._errors import LivepatchError
from .._process.process import Process
from .._process.selection import Selection, selected
from .kill_switch import switched_off
from .store import Store
from .wanted import Wanted, Wishes, lacking

_LIMITS = Limits(max_stop=0.1, timeout=5.0)


@dataclass
class Applied:
    """What was done to one process: ids by what came of them, and an error for each patch that failed."""

    pid: int
    start_time: int
    exe: str
    applied: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    #: What the signatures of those that were tried are worth, see Verdict.as_dict.
    signatures: dict[str, dict[str, Any]] = field(default_factory=dict)
    stop_us: int = 0

    @property
    def empty(self) -> bool:
        """Whether there was nothing to be done or told."""
        return not (self.applied or self.held or self.failed)


def apply_to(store: Store, process: Process, wanted: Wanted) -> Applied:
    """Load and activate what one process lacks of `wanted`, if nothing is switched off; what fails is told."""
    done = Applied(process.pid, process.start_time, wanted.exe, held=[entry.id for entry in wanted.held])
    try:
        entries = lacking(process, wanted)
    except (LivepatchError, OSError) as error:
        if not process.has_exited():
            done.failed["*"] = _as_dict(error)
        return done
    meant = Selection(pids=(process.pid,))
    for entry in entries:
        if switched_off(store.places):  # since a pass over many processes began
            return done
        try:
            patch, verdict = store.patch(entry)
            done.signatures[entry.id] = verdict.as_dict()
            report = apply_patch(patch, meant, _LIMITS)
            problem = _error(report)
        except (LivepatchError, OSError) as error:
            problem, report = _as_dict(error), Report()
        if problem and problem["code"] == "process_gone" and process.has_exited():
            return done
        if not problem and not report.outcomes:  # it is ending, and has no memory any more
            return done
        if problem:
            done.failed[entry.id] = problem
        else:
            done.applied.append(entry.id)
            done.stop_us = max(done.stop_us, report.summary()["max_stop_us"])
            _note(store, entry.id, wanted.paths.get(entry.build_id, ""))
    return done


def apply_to_all(store: Store, wishes: Wishes, never: tuple[int, ...] = ()) -> list[Applied]:
    """The same for every process of the host that has an object of a desired patch, but for the processes `never`."""
    if not wishes:
        return []
    found = []
    for process in selected(Selection(never=never)):
        try:
            wanted = wishes.of(process)
        except (LivepatchError, OSError):
            continue
        if wanted.entries or wanted.held:
            found.append(apply_to(store, process, wanted))
    return [done for done in found if not done.empty]


def _note(store: Store, patch_id: str, path: str) -> None:
    try:
        if path:
            store.note_path(patch_id, path)
    except (LivepatchError, OSError):
        pass  # it is for people, and may fail: the disk may be full


def _error(report: Report) -> dict[str, str] | None:
    return next((outcome.error for outcome in report.outcomes if outcome.error), None)


def _as_dict(error: Exception) -> dict[str, Any]:
    if isinstance(error, LivepatchError):
        return error.as_dict()
    return LivepatchError("internal", str(error)).as_dict()
