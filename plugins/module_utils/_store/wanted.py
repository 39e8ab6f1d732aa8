# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What one process should have, by the store, and what it has."""

from __future__ import annotations

from dataclasses import dataclass

from .._engine.layers import Layers
from .._engine.region import find_regions
from .._engine.verify import Verified, verify
from .._errors import LivepatchError
from .._process.process import Process
from .._process.selection import ObjectFinder, exe_of
from .desired import Desired
from .guard import is_held
from .store import Store


@dataclass(frozen=True)
class Wanted:
    """What one process should have: `entries` in the order in which they are to be applied.

    `held`: those kept back by the crash-loop guard; `replaced`: those that another one of `entries` replaces; `paths`:
    where the object of each entry is mapped from, by build-id.
    """

    exe: str
    entries: tuple[Desired, ...]
    held: tuple[Desired, ...]
    replaced: tuple[Desired, ...]
    paths: dict[str, str]


NOTHING = Wanted("", (), (), (), {})


class Wishes:
    """What is desired on a host, as it was when it was read, asked for process after process."""

    def __init__(self, store: Store, entries: list[Desired]) -> None:
        self._store = store
        self._entries = [entry for entry in entries if entry.enabled]
        self._finder = ObjectFinder(*sorted({entry.build_id for entry in self._entries}))

    def __bool__(self) -> bool:
        return bool(self._entries)

    def of(self, process: Process) -> Wanted:
        """What this process should have. Raises LivepatchError not_permitted, process_gone; OSError."""
        mappings = process.maps()
        paths = {found.build_id: found.path for found in self._finder.find(process, mappings)}
        if not paths:
            return NOTHING
        meant = [entry for entry in self._entries if entry.build_id in paths and _selects(entry, process)]
        exe = exe_of(process)
        held = [entry for entry in meant if _held(self._store, entry, exe)]
        there = [entry for entry in meant if entry not in held]
        gone = {name for entry in there for name in entry.replaces}
        entries = _in_order([entry for entry in there if entry.id not in gone])
        replaced = tuple(entry for entry in there if entry.id in gone)
        return Wanted(exe, tuple(entries), tuple(held), replaced, paths)


def states(process: Process) -> dict[str, Verified]:
    """What a process has, by patch id. Raises LivepatchError, OSError."""
    mappings = process.maps()
    regions = find_regions(process.memory, mappings)
    layers = Layers(process.memory, mappings, regions)
    return {region.id: verify(process, region, layers) for region in regions}


def lacking(process: Process, wanted: Wanted) -> list[Desired]:
    """The entries of `wanted` that are not active in the process. Raises LivepatchError, OSError."""
    if not wanted.entries:
        return []
    there = states(process)
    return [entry for entry in wanted.entries if not _is_active(there.get(entry.id), entry)]


def _is_active(found: Verified | None, entry: Desired) -> bool:
    return found is not None and found.state == "active" and found.region.sha256 == entry.sha256


def _selects(entry: Desired, process: Process) -> bool:
    try:
        return entry.selection().matches(process)
    except LivepatchError:  # there is no such user (any more)
        return False


def _held(store: Store, entry: Desired, exe: str) -> bool:
    try:
        return is_held(store, entry.id, exe)
    except LivepatchError:  # a damaged record is no reason to leave a hole open
        return False


def _in_order(entries: list[Desired]) -> list[Desired]:
    """What is required comes before what requires it; otherwise in the order in which they were stored."""
    left = sorted(entries, key=lambda entry: (entry.stored_at, entry.id))
    ordered: list[Desired] = []
    while left:
        ids = {entry.id for entry in left}
        ready = next((entry for entry in left if not ids.intersection(entry.requires) - {entry.id}), left[0])
        left.remove(ready)
        ordered.append(ready)
    return ordered
