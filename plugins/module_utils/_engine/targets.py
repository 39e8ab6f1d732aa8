# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is to be done to processes, and which of them are meant."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Callable, ContextManager

from .._errors import LivepatchError
from .._process.maps import Mapping
from .._process.objects import MappedObject
from .._process.process import Process
from .._process.selection import ObjectFinder, Selection
from .._process.shared_memory import shares_parents_memory
from .load import left_open
from .outcome import ABSENT, ACTIVE, LOADED, Outcome
from .region import file_name, missing_patch

Step = Callable[[Process, Outcome], None]


@dataclass(frozen=True)
class Operation:
    """One thing to be done to processes: those that `finder` finds (if any), and those that have the patch.

    `goal` is the state that `step` leads to; with `pretend` it only finds out whether it would. `undo`: what takes back
    a step that did not end. `timeout`: seconds to wait for another run at the same process, and to try again after a
    death. `at_once`: processes may be worked on at the same time; `turn` is then entered for each.
    """

    patch_id: str
    selection: Selection
    step: Step
    goal: str
    pretend: bool
    timeout: float
    finder: ObjectFinder | None = None
    undo: Step | None = None
    at_once: bool = False
    turn: Callable[[Process], ContextManager[None]] = lambda _process: contextlib.nullcontext()


def meant(operation: Operation, process: Process, outcome: Outcome) -> list[MappedObject] | None:
    """The objects in this process that are looked for, None where there is nothing to work on.

    Raises LivepatchError build_id_mismatch where it is named and lacks the object.
    """
    mappings = process.maps()
    if mappings and shares_parents_memory(process):
        if operation.selection.pids:
            raise LivepatchError(
                "function_busy", "%s shares its memory with its parent (vfork): only that can be patched" % process
            )
        return None
    found = operation.finder.find(process, mappings) if operation.finder else []
    if found:
        outcome.object, outcome.build_id = found[0].path, found[0].build_id
    # Another object's patch may have the same id: a process is loaded into for its object, not for the name.
    loading = operation.finder is not None and operation.goal == LOADED
    if found or (not loading and has_patch(mappings, operation.patch_id)):
        return found
    if operation.goal == ABSENT and mappings and left_open(process, operation.patch_id):
        return found
    if operation.selection.pids and mappings:
        if operation.goal == ACTIVE:
            raise missing_patch(operation.patch_id, str(process))
        if operation.finder:
            raise LivepatchError(
                "build_id_mismatch", "%s does not map the object of patch %s" % (process, operation.patch_id)
            )
    return None


def has_patch(mappings: list[Mapping], patch_id: str) -> bool:
    """True when something of a patch is mapped."""
    return any(mapping.path == file_name(patch_id) for mapping in mappings)
