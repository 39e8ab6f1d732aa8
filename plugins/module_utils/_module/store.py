# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What livepatch_store does: one entry of the store as it is asked for, and what changed of it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from .._errors import LivepatchError
from .._patch.manifest import check_id
from .._process.selection import ObjectFinder, Selection, selected
from .._store import guard
from .._store.desired import Desired, desired_of
from .._store.status import about
from .._store.store import Store
from .patch_file import SentPatch


def keep(
    store: Store, sent: SentPatch, processes: dict[str, str], enabled: bool | None, pretend: bool
) -> dict[str, Any]:
    """Desire the patch in a file; the result of the task. Raises LivepatchError, OSError."""
    patch = sent.parsed()
    before = _whole_entry(store, patch.manifest.id)
    is_enabled = enabled if enabled is not None else before is None or before.enabled
    seen = _places_of(patch.manifest.object.build_id)
    wanted = desired_of(patch, processes, is_enabled, seen, int(time.time()), sent.verdict.signer)
    if before is not None and before.build_id == wanted.build_id:
        wanted = replace(wanted, paths=tuple(dict.fromkeys([*before.paths, *wanted.paths])))
    if before is not None and replace(wanted, stored_at=0, paths=()) == replace(before, stored_at=0, paths=()):
        wanted = before
    changed = wanted != before or not store.holds(wanted, sent.content, sent.signature)
    held = _held(store, wanted.id)
    lifts = bool(enabled and held)
    if not pretend:
        if changed:
            store.put(wanted, sent.content, sent.signature)
        if lifts:
            guard.lift(store, wanted.id)
    result = _result(wanted.id, changed or lifts, before, wanted, {} if lifts else held)
    return dict(result, signature=sent.verdict.as_dict())


def take_out(store: Store, patch_id: str, pretend: bool) -> dict[str, Any]:
    """Desire a patch no more; the result of the task. Raises LivepatchError, OSError."""
    before = _whole_entry(store, check_id(patch_id))
    changed = store.has(patch_id)
    if not pretend:
        store.remove(patch_id)
        guard.lift(store, patch_id)
    return dict(_result(patch_id, changed, before, None, {}), signature=None)


def _whole_entry(store: Store, patch_id: str) -> Desired | None:
    """The entry, None where there is none, or it is damaged: it is to be written anew, or taken away."""
    try:
        return store.entry(patch_id)
    except LivepatchError:
        return None


def _held(store: Store, patch_id: str) -> dict[str, Any]:
    try:
        return dict(guard.held_programs(store, patch_id))
    except LivepatchError:
        return {}


def _places_of(build_id: str) -> tuple[str, ...]:
    """Where processes of this host have the object of a patch from now."""
    finder = ObjectFinder(build_id)
    found: set[str] = set()
    for process in selected(Selection()):
        try:
            found.update(one.path for one in finder.find(process, process.maps()))
        except (LivepatchError, OSError):
            continue
    return tuple(sorted(path for path in found if path.isprintable()))


def _result(
    patch_id: str, changed: bool, before: Desired | None, after: Desired | None, held: dict[str, Any]
) -> dict[str, Any]:
    def text(entry: Desired | None) -> str:
        return entry.to_json().decode("ascii") if entry else ""

    return {
        "changed": changed,
        "patch": patch_id,
        "desired": about(after) if after else None,
        "held": held,
        "diff": {"before_header": patch_id, "after_header": patch_id, "before": text(before), "after": text(after)},
    }
