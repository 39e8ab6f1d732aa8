# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""From a request to a patch file, step by step."""

from __future__ import annotations

import getpass
import hashlib
import os
import subprocess

from .._elf.header import MACHINES
from .._elf.object_file import ObjectFile, read_object_file
from .._errors import LivepatchError
from .._patch.content import Patch
from .._patch.writer import patch_bytes
from .assemble_patch import PatchAssembly
from .atoms import UnitCode
from .built_tree import BuiltTree, built_tree
from .change import Change, read_change
from .changed_functions import UnitChange
from .compile_command import is_assembler
from .compile_units import compile_in_sections, linked_object
from .dependencies import files_read
from .line_numbers import keep_line_numbers
from .link_inputs import Unit, find_link, linked_units
from .patch_contents import Chooser, PatchContents
from .place_units import ArtifactSymbols
from .prove_source import DeployedObject, deployed_object, differing_sections, mismatch
from .record import Progress
from .request import BuildRefused, BuildRequest, BuildResult, Refusal, refuse

TOOL = "cgl.livepatch 0.1.0"


def build(request: BuildRequest, progress: Progress) -> BuildResult:
    """Build the patch that a request asks for; `progress` is told what is being done.

    Raises BuildRefused when the change cannot become a patch, LivepatchError for an ordinary failure.
    """
    change = read_change(request)
    with built_tree(request, progress) as tree:
        artifact = read_object_file(tree.artifact)
        deployed = deployed_object(request.target or tree.artifact)
        differing = differing_sections(artifact, deployed.file)
        if differing:
            raise BuildRefused([mismatch(artifact, deployed, differing)])
        symbols = ArtifactSymbols(artifact)
        changes = _compile_both(tree, change, symbols, progress)
        progress("comparing %d changed unit(s)" % len(changes))
        contents = Chooser(changes, request.data_changes).choose()
        return _finish(request, change, contents, symbols, deployed, tree)


def _compile_both(tree: BuiltTree, change: Change, symbols: ArtifactSymbols, progress: Progress) -> list[UnitChange]:
    """The units that the change reaches, compiled from the original and from the changed source."""
    lines = {}
    for name, new in change.files.items():
        if new is not None and name not in change.added:
            with open(os.path.join(tree.request.source, name), "rb") as stream:
                lines[name] = keep_line_numbers(name, stream.read(), new)
    rebuild = change.needs_build()
    reached = [unit for unit, reads in zip(tree.units, tree.reads) if set(reads) & set(change.files)]
    if not reached and not rebuild:
        raise refuse(
            "not_in_object",
            "no source of %s reads a file that the change touches (%s)"
            % (tree.request.artifact, ", ".join(sorted(change.files)[:5]) + (", ..." if len(change.files) > 5 else "")),
        )
    _require_plain_units(reached)
    progress("compiling %d of %d units of %s before and after" % (len(reached), len(tree.units), tree.request.artifact))
    before = compile_in_sections(reached, os.path.join(tree.folder, "before"))
    after_folder = os.path.join(tree.folder, "after")
    _empty(after_folder)
    with tree.changed(change, lines, bool(rebuild)) as calls:
        pairs: list[tuple[Unit, Unit | None]] = [(unit, unit) for unit in reached]
        if rebuild:
            progress("the project was built again because of %s" % ", ".join(rebuild[:3]))
            pairs = _changed_units(tree, calls, change)
            _require_plain_units([new for new, _old in pairs])
        after = compile_in_sections([new for new, _old in pairs], after_folder)
    if rebuild:
        old_units = [old for _new, old in pairs if old is not None]
        before = compile_in_sections(old_units, os.path.join(tree.folder, "before"))
    before_of = {id(old): path for old, path in zip([old for _new, old in pairs if old is not None], before)}
    changes = []
    for (new, old), path in zip(pairs, after):
        placed, original = None, None
        if old is not None:
            linked = linked_object(old, os.path.join(tree.folder, "before"))
            _require_machine_code(linked, old)
            same = [u for u in tree.units if u.content is not None and u.content == old.content]
            placed = symbols.place(linked, same.index(old) if old in same else 0)
            if placed is None:
                continue
            original = UnitCode(read_object_file(before_of[id(old)]), before_of[id(old)])
        changes.append(UnitChange(new, original, UnitCode(read_object_file(path), path), placed))
    if not any(one.placed for one in changes):
        raise refuse("not_in_object", "the changed code is not linked into %s" % tree.request.artifact)
    return changes


def _changed_units(tree: BuiltTree, calls: list, change: Change) -> list[tuple[Unit, Unit | None]]:
    """Units of the changed tree's own build that are new, read a changed file or are compiled differently, with their old one."""
    old_by_source: dict[str, list[Unit]] = {}
    for unit in tree.units:
        old_by_source.setdefault(unit.source, []).append(unit)
    link = find_link(calls, tree.artifact)
    units = linked_units(calls, link)
    if not units:
        raise LivepatchError("build_failed", "the changed tree's build linked nothing that it compiled")
    found: list[tuple[Unit, Unit | None]] = []
    for unit, reads in zip(units, files_read(units, tree.tree)):
        olds = old_by_source.get(unit.source, [])
        old = olds[0] if olds else None
        if old is None or set(reads) & set(change.files) or unit.command.arguments != old.command.arguments:
            found.append((unit, old))
    return found


def _require_plain_units(units: list[Unit]) -> None:
    refusals = []
    for unit in units:
        if is_assembler(unit.source):
            refusals.append(Refusal("assembler_changed", "", unit.word, "%s is assembler, and the change reaches it" % unit.word))
        elif unit.command.uses_lto():
            refusals.append(Refusal("lto_unsupported", "", unit.word, "%s is compiled with link-time optimisation" % unit.word))
    if refusals:
        raise BuildRefused(refusals)


def _require_machine_code(linked: ObjectFile, unit: Unit) -> None:
    if any(section.name.startswith(".gnu.lto_") for section in linked.sections):
        raise refuse("lto_unsupported", "%s is compiled with link-time optimisation" % unit.word, file=unit.word)


def _finish(
    request: BuildRequest,
    change: Change,
    contents: PatchContents,
    symbols: ArtifactSymbols,
    deployed: DeployedObject,
    tree: BuiltTree,
) -> BuildResult:
    if contents.refusals:
        raise BuildRefused(contents.refusals)
    if not contents.replaced() and not contents.changed_data:
        raise refuse("nothing_changed", "the change compiles to the same code in %s" % request.artifact)
    assembly = PatchAssembly(request, contents, symbols, deployed)
    arch = MACHINES.get(deployed.file.machine, "machine %d" % deployed.file.machine)
    patch = assembly.assemble(_built_by(tree, change), arch)
    if assembly.refusals:
        raise BuildRefused(assembly.refusals)
    raw = patch_bytes(patch)
    return BuildResult(raw, summary(patch, raw))


def summary(patch: Patch, raw: bytes) -> dict[str, object]:
    """What the module returns of a patch."""
    manifest = patch.manifest
    return {
        "sha256": hashlib.sha256(raw).hexdigest(),
        "id": manifest.id,
        "version": manifest.version,
        "build_id": manifest.object.build_id,
        "arch": manifest.object.arch,
        "consistency": manifest.consistency,
        "functions": [{"name": f.name, "size_old": f.size, "size_new": f.new_size} for f in manifest.functions],
        "data": [{"name": v.name, "old": v.old, "new": v.new} for v in manifest.data],
        "new_symbols": list(manifest.new_symbols),
        "externals": sorted({r.name for r in manifest.references if r.kind == "external"}),
        "warnings": [],
    }


def _built_by(tree: BuiltTree, change: Change) -> dict[str, str]:
    """Who built it with what; the same for the same inputs."""
    digest = hashlib.sha256()
    for name in sorted(change.files):
        content = change.files[name]
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + (b"-" if content is None else b"+" + content) + b"\0")
    return {
        "tool": TOOL,
        "by": getpass.getuser(),
        "compiler": _first_line([tree.link.compiler, "--version"]),
        "assembler": _first_line(["as", "--version"]),
        "change": digest.hexdigest(),
    }


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, env={**os.environ, "LC_ALL": "C"})
    return done.stdout.decode("utf-8", "replace").split("\n", 1)[0]


def _empty(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
