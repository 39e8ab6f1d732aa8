# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The units that a change reaches, compiled from the original and from the changed source."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import subprocess
from dataclasses import dataclass, field

from .._elf.object_file import SHN_UNDEF, ObjectFile, read_object_file
from .._errors import LivepatchError
from .atoms import UnitCode
from .built_tree import BuiltTree
from .changed_functions import UnitChange
from .compile_command import CompileCommand, is_assembler
from .compile_units import compile_in_sections, linked_object, require_same_object
from .debug_info import DebugInfo, read_debug_info
from .dependencies import files_read
from .line_numbers import keep_line_numbers
from .link_inputs import Unit, find_link, linked_units
from .place_units import ArtifactSymbols
from .read_change import Change
from .request import BuildRefused, Refusal, refuse
from .watch_build import Progress

_NUMBERED = re.compile(r"\.\d+$")


@dataclass
class ChangedUnits:
    """The changed units of one artifact, and what the others refer to."""

    tree: BuiltTree
    changes: list[UnitChange]
    debug_info: dict[int, tuple[DebugInfo, DebugInfo]] = field(default_factory=dict)
    _used_elsewhere: set[str] | None = None

    def used_elsewhere(self, name: str) -> bool:
        """True when an unchanged unit of the artifact refers to a global name."""
        if self._used_elsewhere is None:
            changed = {change.unit.source for change in self.changes}
            self._used_elsewhere = set()
            for unit in self.tree.units:
                if unit.source not in changed:
                    linked = linked_object(unit, os.path.join(self.tree.folder, "before"))
                    self._used_elsewhere |= {s.name for s in linked.symbols() if s.section == SHN_UNDEF}
        return name in self._used_elsewhere

    def debug_info_of(self, change: UnitChange) -> tuple[DebugInfo, DebugInfo]:
        """The debug information of a unit before and after the change, read once."""
        if id(change) not in self.debug_info:
            before = read_debug_info(change.before) if change.before is not None else DebugInfo()
            self.debug_info[id(change)] = (before, read_debug_info(change.after))
        return self.debug_info[id(change)]


def compile_changed_units(
    tree: BuiltTree, change: Change, symbols: ArtifactSymbols, options: tuple[str, ...], progress: Progress
) -> ChangedUnits:
    """Compile what the change reaches, with these options more.

    Raises BuildRefused not_in_object, assembler_changed or lto_unsupported, LivepatchError build_failed.
    """
    rebuild = change.needs_build()
    reached = [unit for unit, reads in zip(tree.units, tree.reads) if set(reads) & set(change.files)]
    if not reached and not rebuild:
        names = sorted(change.files)
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise refuse(
            "not_in_object",
            "no source of %s reads a file that the change touches (%s)" % (tree.request.artifact, listed),
        )
    _require_plain_units(reached)
    after_folder = os.path.join(tree.folder, "after")
    os.makedirs(after_folder, exist_ok=True)
    for name in os.listdir(after_folder):
        if not options:
            os.unlink(os.path.join(after_folder, name))
    with tree.changed(change, _numbered_lines(tree, change), bool(rebuild)) as calls:
        pairs: list[tuple[Unit, Unit | None]] = [(unit, unit) for unit in reached]
        if rebuild:
            progress("built the changed tree as well, because of %s" % ", ".join(rebuild[:3]))
            pairs = _units_of_new_build(tree, calls, change)
            _require_plain_units([new for new, _old in pairs])
        progress("compiling %d of %d units of %s" % (len(pairs), len(tree.units), tree.request.artifact))
        after = compile_in_sections([new for new, _old in pairs], after_folder, options)
    before_folder = os.path.join(tree.folder, "before")
    require_same_object([old for _new, old in pairs if old is not None], before_folder)
    olds = [old for _new, old in pairs if old is not None]
    before = dict(zip(map(id, olds), compile_in_sections(olds, before_folder, options)))
    found = ChangedUnits(tree, [])
    for (new, old), path in zip(pairs, after):
        placed, original = None, None
        if old is not None:
            linked = linked_object(old, before_folder)
            _require_machine_code(linked, old)
            same = [unit for unit in tree.units if unit.content is not None and unit.content == old.content]
            placed = symbols.place(linked, max(len(same), 1), same.index(old) if old in same else 0)
            if placed is None:
                continue
            original = UnitCode(read_object_file(before[id(old)]), before[id(old)])
        found.changes.append(UnitChange(new, original, UnitCode(read_object_file(path), path), placed))
    if not any(one.placed for one in found.changes):
        raise refuse("not_in_object", "the changed code is not linked into %s" % tree.request.artifact)
    for one in found.changes:
        _match_static_locals(found, one)
    return found


def _numbered_lines(tree: BuiltTree, change: Change) -> dict[str, bytes]:
    lines = {}
    for name, new in change.files.items():
        if new is not None and name not in change.added:
            with open(os.path.join(tree.request.source, name), "rb") as stream:
                lines[name] = keep_line_numbers(name, stream.read(), new)
    return lines


def _units_of_new_build(tree: BuiltTree, calls: list[CompileCommand], change: Change) -> list[tuple[Unit, Unit | None]]:
    """Units of the changed tree's build that are new, read a changed file or are compiled otherwise; and the old."""
    old_by_source: dict[str, list[Unit]] = {}
    for unit in tree.units:
        old_by_source.setdefault(unit.source, []).append(unit)
    known = {call.output(): call for unit in tree.units for call in [unit.command]}
    # What an incremental build did not compile again is as it was.
    old_calls = [call for output, call in known.items() if output not in {new.output() for new in calls}]
    merged = [dataclasses.replace(call, order=n) for n, call in enumerate([*old_calls, tree.link, *calls])]
    units = linked_units(merged, find_link(merged, tree.artifact))
    if not units:
        raise LivepatchError("build_failed", "the changed tree's build linked nothing that it compiled")
    found: list[tuple[Unit, Unit | None]] = []
    for unit, reads in zip(units, files_read(units, tree.tree)):
        olds = old_by_source.get(unit.source, [])
        old = next((o for o in olds if o.object_name == unit.object_name), olds[0] if olds else None)
        if old is None or set(reads) & set(change.files) or unit.command.arguments != old.command.arguments:
            found.append((unit, old))
    return found


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


def _require_plain_units(units: list[Unit]) -> None:
    refusals = []
    for unit in units:
        if is_assembler(unit.source):
            reason = "%s is assembler, and the change reaches it" % unit.word
            refusals.append(Refusal("assembler_changed", "", unit.word, reason))
        elif unit.command.uses_lto():
            reason = "%s is compiled with link-time optimisation" % unit.word
            refusals.append(Refusal("lto_unsupported", "", unit.word, reason))
    if refusals:
        raise BuildRefused(refusals)


def _require_machine_code(linked: ObjectFile, unit: Unit) -> None:
    if any(section.name.startswith(".gnu.lto_") for section in linked.sections):
        raise refuse("lto_unsupported", "%s is compiled with link-time optimisation" % unit.word, file=unit.word)


@functools.lru_cache(maxsize=None)
def is_clang(compiler: str) -> bool:
    """True when a compiler calls itself clang."""
    done = subprocess.run([compiler, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return b"clang" in done.stdout
