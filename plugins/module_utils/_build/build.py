# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""From a request to a patch file, step by step."""

from __future__ import annotations

import dataclasses
import getpass
import hashlib

from .._elf.header import MACHINES
from .._elf.object_file import read_object_file
from .._errors import LivepatchError
from .._patch.content import Patch
from .._patch.describe import describe
from .._patch.writer import patch_bytes
from .assemble_patch import PatchAssembly
from .built_tree import BuiltTree, built_tree
from .calling_contract import bound_callers, check_prototypes, relies_on_registers, running_callers
from .changed_functions import is_function
from .changed_units import ChangedUnits, compile_changed_units
from .choose_contents import Chooser, PatchContents
from .endless import endless_functions
from .layout_of_types import changed_layouts
from .listing import listings
from .place_units import ArtifactSymbols
from .private_copies import copies_with_other_callers, leave_private_copies
from .prove_source import DeployedObject, deployed_object, differing_sections, mismatch
from .read_change import Change, read_change
from .request import BuildRefused, BuildRequest, BuildResult, Refusal
from .review import review
from .run_compiler import is_clang, version_text
from .watch_build import Progress

TOOL = "cgl.livepatch 0.1.0"
_THROUGH_TABLE = ("-mno-direct-extern-access",)
_THROUGH_TABLE_CLANG = ("-fno-direct-access-external-data",)


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
        units = compile_changed_units(tree, change, symbols, progress)
        assembly = _choose(request, units, symbols, deployed)
        if assembly.resolver.far_data():
            assembly = _through_table(request, change, units, assembly, progress)
        return _finish(change, assembly)


def _choose(
    request: BuildRequest, units: ChangedUnits, symbols: ArtifactSymbols, deployed: DeployedObject
) -> PatchAssembly:
    contents = Chooser(units, symbols, request.data_changes).choose()
    leave_private_copies(contents)
    return PatchAssembly(request, units, contents, symbols, deployed)


def _through_table(
    request: BuildRequest, change: Change, units: ChangedUnits, near: PatchAssembly, progress: Progress
) -> PatchAssembly:
    """The same with other objects' variables reached through a table of addresses, as a library would.

    An executable reaches them directly, for the linker makes copies of them in it; for one that the change uses for the
    first time there is no copy. (GCC manual, -mno-direct-extern-access; GCC 12. Clang's manual,
    -fno-direct-access-external-data; clang 13)
    """
    clang = all(is_clang(one.unit.command.compiler) for one in units.changes)
    options = _THROUGH_TABLE_CLANG if clang else _THROUGH_TABLE
    changed = {(one.unit.source, one.unit.object_name): one for one in units.changes}
    try:
        again = compile_changed_units(units.tree, change, near.artifact, progress, options, frozenset(changed))
    except BuildRefused:
        raise
    except LivepatchError:
        # This compiler does not know the option: the refusal of what cannot be reached stands.
        return near
    for one in again.changes:
        first = changed.get((one.unit.source, one.unit.object_name))
        if first is not None:
            one.also_changed = frozenset(atom.name for atom in first.changed())
    far = _choose(request, again, near.artifact, near.deployed)
    for caller, callee in bound_callers(again, far.contents):
        far.refusals.append(
            Refusal(
                "construct_unsupported",
                callee,
                "",
                "%s would need other registers in the patch than its caller %s knows of (-fipa-ra)" % (callee, caller),
            )
        )
    return far


def _finish(change: Change, assembly: PatchAssembly) -> BuildResult:
    request, units, contents = assembly.request, assembly.units, assembly.contents
    refusals, inside = check_prototypes(units, contents, assembly.deployed)
    too_large = any(refusal.code == "patch_too_large" for refusal in contents.refusals)
    endless = [] if too_large else endless_functions(contents, assembly.artifact, units.tree.artifact)
    refusals = _explained(units, contents.refusals + endless) + _layout_refusals(units) + refusals
    if refusals:
        raise BuildRefused(refusals)
    if not contents.replaced() and not contents.changed_data:
        reason = "the change compiles to the same code in %s" % request.artifact
        raise BuildRefused([Refusal("nothing_changed", "", "", reason)], _new_names(units))
    warnings = []
    if inside:
        warnings.append("%s changed the way it is called; all its callers are in the patch" % ", ".join(inside))
    callers = running_callers(units, contents)
    if callers:
        warnings.append(
            "%s was compiled knowing which registers a replaced function leaves alone (-fipa-ra)" % ", ".join(callers)
        )
    copies = copies_with_other_callers(contents)
    if copies:
        warnings.append(
            "%s may be called in another way than before, and not all its callers change" % ", ".join(copies)
        )
    if warnings and request.consistency != "quiescent":
        warnings.append("the patch needs consistency quiescent: no thread may be inside an old function meanwhile")
    arch = MACHINES.get(assembly.deployed.file.machine, "machine %d" % assembly.deployed.file.machine)
    patch = assembly.assemble(_built_by(units.tree, change), arch, bool(warnings))
    warnings += review(units, contents, change, assembly.resolver.dynamic.is_library)
    if assembly.refusals:
        raise BuildRefused(assembly.refusals)
    content, told = packed(patch, warnings)
    return BuildResult(
        patch,
        content,
        told,
        tuple(warnings),
        tuple(listings(contents, patch.manifest.data)) if request.want_listings else (),
        request.artifact,
        _changed_names(contents),
        _new_names(units),
    )


def packed(patch: Patch, warnings: list[str]) -> tuple[bytes, dict[str, object]]:
    """A patch's file, and what the module returns of it."""
    raw = patch_bytes(patch)
    return raw, {**describe(patch), "sha256": hashlib.sha256(raw).hexdigest(), "warnings": list(warnings)}


def _changed_names(contents: PatchContents) -> frozenset[str]:
    """The names that others may use of what the patch replaces or writes."""
    atoms = [one.atom for one in contents.replaced()] + [atom for _change, atom in contents.changed_data]
    return frozenset(name for atom in atoms if not atom.local for name in atom.names)


def _new_names(units: ChangedUnits) -> frozenset[str]:
    """The names that others may use of what the changed source has and the original has not."""
    return frozenset(
        name
        for change in units.changes
        for atom in change.after.atoms
        if not atom.local and atom.name and change.original(atom) is None
        for name in atom.names
    )


def _layout_refusals(units: ChangedUnits) -> list[Refusal]:
    """One refusal a type, for the first file that shows it."""
    refusals: dict[str, Refusal] = {}
    for change in units.changes:
        functions = [atom.name for atom in change.after.atoms if is_function(atom) and change.differs(atom)]
        if functions and change.before is not None:
            before, after = units.debug_info_of(change)
            for refusal in changed_layouts(change, before, after, functions):
                refusals.setdefault(refusal.symbol, refusal)
    return list(refusals.values())


def _explained(units: ChangedUnits, found: list[Refusal]) -> list[Refusal]:
    """The same refusals; of what never returns it is said when it may have changed for its callees' registers only."""
    refusals = []
    for refusal in found:
        change = next((one for one in units.changes if one.unit.word == refusal.file), None)
        if refusal.code == "entry_changed" and change is not None:
            atom = change.after.named[refusal.symbol]
            if relies_on_registers(units, change, atom):
                refusal = dataclasses.replace(
                    refusal,
                    reason=refusal.reason + "; its code changes maybe only because GCC compiled it "
                    "knowing which registers the changed functions in its file leave alone",
                    remedy="Restart into the new version; compiled with -fno-ipa-ra, the program could be patched.",
                )
        refusals.append(refusal)
    return refusals


def _built_by(tree: BuiltTree, change: Change) -> dict[str, str]:
    """Who built it with what; the same for the same inputs."""
    digest = hashlib.sha256()
    for name in sorted(change.files):
        content = change.files[name]
        digest.update(
            name.encode("utf-8", "surrogateescape") + b"\0" + (b"-" if content is None else b"+" + content) + b"\0"
        )
    return {
        "tool": TOOL,
        "by": getpass.getuser(),
        "compiler": _first_line(tree.link.compiler),
        "assembler": _first_line("as"),
        "change": digest.hexdigest(),
    }


def _first_line(program: str) -> str:
    return version_text(program).split("\n", 1)[0]
