# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The units that a change reaches, compiled from the original and from the changed source."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .._elf.object_file import SHN_UNDEF, ObjectFile, read_object_file
from .atoms import UnitCode
from .built_tree import BuiltTree
from .changed_functions import UnitChange
from .changed_tree import compile_after
from .compile_units import (
    AS_BUILT,
    IN_SECTIONS,
    Compilation,
    compile_all,
    linked_object,
    require_same_object,
    same_code,
)
from .debug_info import DebugInfo, read_debug_info
from .link_inputs import Unit
from .place_units import ArtifactSymbols, PlacedUnit
from .read_change import Change
from .request import refuse
from .watch_build import Progress

_NUMBERED = re.compile(r"\.\d+$")


@dataclass
class ChangedUnits:
    """The changed units of one artifact, and what the others refer to."""

    tree: BuiltTree
    changes: list[UnitChange]
    debug_info: dict[int, tuple[DebugInfo, DebugInfo]] = field(default_factory=dict)
    _used_elsewhere: set[str] | None = None
    _originals: dict[str, UnitCode] = field(default_factory=dict)

    def used_elsewhere(self, name: str) -> bool:
        """True when an unchanged unit of the artifact refers to a global name."""
        if self._used_elsewhere is None:
            # One source may be compiled several times, and only one of its objects be another one.
            changed = {(change.unit.source, change.unit.object_name) for change in self.changes}
            self._used_elsewhere = set()
            for unit in self.tree.units:
                if (unit.source, unit.object_name) not in changed:
                    linked = linked_object(unit, self.tree.before)
                    self._used_elsewhere |= {s.name for s in linked.symbols() if s.section == SHN_UNDEF}
        return name in self._used_elsewhere

    def originals(self, units: list[Unit], options: tuple[str, ...]) -> list[UnitCode]:
        """Original units compiled with these options more, each compiled and read once."""
        wanted = [Compilation(unit, self.tree.before, (*IN_SECTIONS, *options)) for unit in units]
        for path in compile_all(wanted):
            if path not in self._originals:
                self._originals[path] = UnitCode(read_object_file(path), path)
        return [self._originals[one.path()] for one in wanted]

    def debug_info_of(self, change: UnitChange) -> tuple[DebugInfo, DebugInfo]:
        """The debug information of a unit before and after the change, read once."""
        if id(change) not in self.debug_info:
            before = read_debug_info(change.before) if change.before is not None else DebugInfo()
            self.debug_info[id(change)] = (before, read_debug_info(change.after))
        return self.debug_info[id(change)]


def compile_changed_units(
    tree: BuiltTree,
    change: Change,
    symbols: ArtifactSymbols,
    progress: Progress,
    options: tuple[str, ...] = (),
    also: frozenset[tuple[str, str]] = frozenset(),
) -> ChangedUnits:
    """Compile what the change reaches, with these options more, and keep the units that became other code.

    `also`: (source, object name) of units that are kept in any case. Raises BuildRefused not_in_object,
    assembler_changed, lto_unsupported or source_mismatch, LivepatchError build_failed.
    """
    units = compile_after(tree, change, options, progress)
    olds = [old for _new, old, _path in units if old is not None]
    as_built = [Compilation(old, tree.before, AS_BUILT) for old in olds]
    in_sections = [Compilation(old, tree.before, (*IN_SECTIONS, *options)) for old in olds]
    paths = compile_all([*as_built, *in_sections], progress)
    linked = {}
    for original, path in zip(olds, paths):
        linked[id(original)] = linked_object(original, tree.before)
        _require_machine_code(linked[id(original)], original)
        require_same_object(original, linked[id(original)], path)
    before = dict(zip(map(id, olds), paths[len(olds) :]))
    progress("comparing %d units" % len(units))
    found = ChangedUnits(tree, [])
    equal: list[Unit] = []
    for new, old, path in units:
        if old is None:
            found.changes.append(UnitChange(new, None, UnitCode(read_object_file(path), path), None))
            continue
        one, two = read_object_file(before[id(old)]), read_object_file(path)
        if (new.source, new.object_name) not in also and same_code(one, two):
            equal.append(old)
            continue
        placed = _placed(tree, symbols, old, linked[id(old)])
        if placed is not None:
            code = UnitCode(one, before[id(old)])
            found.changes.append(UnitChange(new, code, UnitCode(two, path), placed))
    places = (_placed(tree, symbols, unit, linked[id(unit)]) for unit in equal)
    if not any(one.placed for one in found.changes) and not any(places):
        raise refuse("not_in_object", "the changed code is not linked into %s" % tree.request.artifact)
    for change_of_unit in found.changes:
        _match_static_locals(found, change_of_unit)
    return found


def _placed(tree: BuiltTree, symbols: ArtifactSymbols, unit: Unit, linked: ObjectFile) -> PlacedUnit | None:
    """Where the link put a unit, None when it left it out; `linked` is its object."""
    same = [other for other in tree.units if other.content is not None and other.content == unit.content]
    return symbols.place(linked, max(len(same), 1), same.index(unit) if unit in same else 0)


def _match_static_locals(units: ChangedUnits, change: UnitChange) -> None:
    """Static locals carry numbers (count.0, count.1) that move when one is added: match them by function and name."""
    if change.before is None or not any(change.differs(atom) for atom in change.after.atoms if atom.name):
        return
    names = [name for code in (change.before, change.after) for name in code.named if _NUMBERED.search(name)]
    if not names:
        return
    before, after = units.debug_info_of(change)
    original = {new: before.static_locals.get(key, "") for key, new in after.static_locals.items()}
    change.original_names = {new: old for new, old in original.items() if new != old}
    change.after.rename({new: old or "new " + new for new, old in change.original_names.items()})


def _require_machine_code(linked: ObjectFile, unit: Unit) -> None:
    if any(section.name.startswith(".gnu.lto_") for section in linked.sections):
        raise refuse("lto_unsupported", "%s is compiled with link-time optimisation" % unit.word, file=unit.word)
