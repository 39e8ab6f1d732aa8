# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The units that a change reaches, compiled from the changed tree: once for each change and set of options, and kept.

after/CHANGE/record.json  which units, and the state of what they read outside of the tree
after/CHANGE/*.o          their objects
"""

from __future__ import annotations

import dataclasses
import filecmp
import hashlib
import os
import shutil
from typing import Any

from .._errors import LivepatchError
from .built_tree import BuiltTree, changed_file, read_json, write_json
from .compile_command import CompileCommand, is_assembler
from .compile_units import IN_SECTIONS, Compilation, compile_all
from .dependencies import files_read
from .line_numbers import keep_line_numbers
from .link_inputs import Unit, find_link, linked_units
from .read_change import Change
from .request import BuildRefused, Refusal, refuse
from .tree_key import file_state
from .watch_build import Progress


def compile_after(
    tree: BuiltTree, change: Change, options: tuple[str, ...], progress: Progress
) -> list[tuple[Unit, Unit | None, str]]:
    """The units that a change reaches: changed, original (None for a new one), and where the changed one's object is.

    Raises BuildRefused not_in_object, construct_unsupported, assembler_changed or lto_unsupported, LivepatchError
    build_failed.
    """
    rebuild = change.needs_build()
    _require_no_copies(tree, change)
    reached = [unit for unit, reads in zip(tree.units, tree.reads) if set(reads) & set(change.files)]
    if not reached and not rebuild:
        names = sorted(change.files)
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise refuse(
            "not_in_object",
            "no source of %s reads a file that the change touches (%s)" % (tree.request.artifact, listed),
        )
    _require_plain_units(tree, reached)
    lines = _numbered_lines(tree, change)
    folder = os.path.join(tree.after, _digest(tree, change, lines))
    record = os.path.join(folder, "record.json")
    pairs = _kept(tree, read_json(record))
    wanted = [Compilation(new, folder, (*IN_SECTIONS, *options)) for new, _old in pairs]
    if pairs and all(os.path.exists(one.path()) for one in wanted):
        os.utime(folder)
        progress("%d units of the changed tree are there already" % len(pairs))
        return [(new, old, one.path()) for (new, old), one in zip(pairs, wanted)]
    if not pairs:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
    if rebuild:
        progress("building the changed tree as well, because of %s" % ", ".join(rebuild[:3]))
    with tree.changed(change, lines, bool(rebuild), progress) as calls:
        pairs = [(unit, unit) for unit in reached]
        if rebuild:
            pairs = _units_of_new_build(tree, calls, change)
            _require_plain_units(tree, [new for new, _old in pairs])
        progress("compiling %d of %d units of %s" % (len(pairs), len(tree.units), tree.request.artifact))
        paths = compile_all([Compilation(new, folder, (*IN_SECTIONS, *options)) for new, _old in pairs], progress)
        states = {
            path: file_state(path)
            for reads in files_read([new for new, _old in pairs], tree.tree, progress)
            for path in reads.outside
        }
    write_json(record, {"pairs": [_row(tree, new, old) for new, old in pairs], "states": states})
    return [(new, old, path) for (new, old), path in zip(pairs, paths)]


def _require_no_copies(tree: BuiltTree, change: Change) -> None:
    """A build may compile copies that it makes of the sources: what nothing reads is in the object all the same."""
    read = {path for reads in tree.reads for path in reads}
    made: dict[str, list[str]] = {}
    for path in sorted(read):
        if not os.path.lexists(os.path.join(tree.request.source, path)):
            made.setdefault(os.path.basename(path), []).append(path)
    for name in sorted(set(change.files) - read - change.added):
        for path in made.get(os.path.basename(name), ()):
            if filecmp.cmp(os.path.join(tree.request.source, name), os.path.join(tree.tree, path), shallow=False):
                raise refuse(
                    "construct_unsupported",
                    "the build compiles %s, which it makes of %s, and not that itself" % (path, name),
                    file=name,
                    remedy="Build with a command that compiles the sources where they lie.",
                )


def _digest(tree: BuiltTree, change: Change, lines: dict[str, bytes]) -> str:
    """Of what the changed files hold when they are compiled, and for which artifact."""
    digest = hashlib.sha256(tree.request.artifact.encode("utf-8", "surrogateescape"))
    for name in sorted(change.files):
        content = lines.get(name, change.files[name])
        state = b"-" if content is None else b"+" + hashlib.sha256(content).digest()
        digest.update(b"\0" + name.encode("utf-8", "surrogateescape") + b"\0" + state)
    return digest.hexdigest()[:20]


def _row(tree: BuiltTree, new: Unit, old: Unit | None) -> list[Any]:
    place = next((number for number, unit in enumerate(tree.units) if unit is old), -1)
    return [new.source, new.word, new.command.as_row(), new.object_name, place]


def _kept(tree: BuiltTree, plain: Any) -> list[tuple[Unit, Unit | None]]:
    """The units of a kept record, none when something that they read has changed since."""
    if not plain or changed_file(plain["states"]):
        return []
    pairs: list[tuple[Unit, Unit | None]] = []
    for source, word, call, object_name, place in plain["pairs"]:
        new = Unit(source, word, CompileCommand.from_row(call), object_name, None)
        pairs.append((new, tree.units[place] if place >= 0 else None))
    return pairs


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
    known = {unit.command.output(): unit.command for unit in tree.units}
    made = {new.output() for new in calls}
    # What an incremental build did not compile again is as it was.
    old_calls = [call for output, call in known.items() if output not in made]
    merged = [dataclasses.replace(call, order=n) for n, call in enumerate([*old_calls, tree.link, *calls])]
    units = linked_units(merged, find_link(merged, tree.artifact))
    if not units:
        raise LivepatchError("build_failed", "the changed tree's build linked nothing that it compiled")
    found: list[tuple[Unit, Unit | None]] = []
    for unit, reads in zip(units, files_read(units, tree.tree)):
        olds = old_by_source.get(unit.source, [])
        old = next((o for o in olds if o.object_name == unit.object_name), olds[0] if olds else None)
        if old is None or set(reads.inside) & set(change.files) or unit.command.arguments != old.command.arguments:
            found.append((unit, old))
    return found


def _require_plain_units(tree: BuiltTree, units: list[Unit]) -> None:
    """With link-time optimisation anywhere in an object, the linker may have put any function into any other."""
    refusals = []
    for unit in units:
        if is_assembler(unit.source):
            reason = "%s is assembler, and the change reaches it" % unit.word
            refusals.append(Refusal("assembler_changed", "", unit.word, reason))
    optimised = [unit.word for unit in [*units, *tree.units] if unit.command.uses_lto()]
    if optimised:
        reason = "%s is compiled with link-time optimisation, and linked into %s" % (
            optimised[0],
            tree.request.artifact,
        )
        refusals.append(Refusal("lto_unsupported", "", optimised[0], reason))
    if refusals:
        raise BuildRefused(refusals)
