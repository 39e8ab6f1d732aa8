# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What callers rely on: prototypes, and with GCC the registers that a callee is known to leave alone.

GCC's -fipa-ra (on from -O2) lets a caller keep values in registers that its callee in the same file does not use,
though the calling convention would let it. When the callee changes, GCC compiles such a caller anew with it; but a
thread that is still inside the old caller must not get into the new callee. Then nothing less than `quiescent` will
do. The same holds for a changed prototype whose callers are all in the patch. (GCC manual, "Optimize Options")
"""

from __future__ import annotations

import re

from .._elf.object_file import SHT_DYNSYM
from .._patch.content import TEXT
from .._patch.manifest import ALL_ARGUMENTS
from .atoms import ABOUT_CODE, Atom, Field
from .calls import calls, calls_directly
from .changed_functions import UnitChange
from .changed_units import ChangedUnits
from .choose_contents import Included, PatchContents
from .layout_of_types import changed_prototype, words
from .link_inputs import Unit
from .prove_source import DeployedObject
from .request import Refusal
from .run_compiler import is_clang

# What comes in one register, in the words of the debug information: a pointer, an enumeration, or a size up to 8.
_SCALAR = re.compile(r".* \*\Z|enum .*\Z|void\Z|(?!struct |union |class |typedef ).* [1248]\Z", re.DOTALL)
_WITHOUT_REGISTER_KNOWLEDGE = ("-fno-ipa-ra",)


def check_prototypes(
    units: ChangedUnits, contents: PatchContents, deployed: DeployedObject
) -> tuple[list[Refusal], list[str]]:
    """Refusals for changed prototypes with callers outside the patch, and functions whose callers are all inside."""
    refusals, inside = [], []
    chosen = {id(one.atom) for one in contents.included}
    exported = {s.name for s in deployed.file.symbols(SHT_DYNSYM) if s.is_defined()}
    for one in contents.replaced():
        before, after = units.debug_info_of(one.change)
        changed = changed_prototype(before, after, one.atom.name)
        if changed is None:
            continue
        outside = sorted(user.name for user in one.change.users(one.atom) if id(user) not in chosen)
        if not one.atom.local:
            if units.used_elsewhere(one.atom.name):
                outside.append("other files")
            outside += [
                other.unit.word
                for other in units.changes
                for user in other.after.atoms
                if other is not one.change
                and any(f.atom is None and f.name == one.atom.name for f in user.fields)
                and id(other.owner(user)) not in chosen
            ]
        outside += _address_takers(units, one)
        if one.atom.name in exported and outside == []:
            outside.append("whoever finds it by its name")
        if outside:
            refusals.append(
                Refusal(
                    "signature_changed",
                    one.atom.name,
                    one.change.unit.word,
                    "%s becomes %s, and it has callers outside the patch: %s"
                    % (words(one.atom.name, changed[0]), words(one.atom.name, changed[1]), ", ".join(outside[:5])),
                )
            )
        else:
            inside.append(one.atom.name)
    return refusals, inside


def _address_takers(units: ChangedUnits, one: Included) -> list[str]:
    """Who takes the address of a function, before or after: whoever got it from them calls it in the old way."""
    found = set()
    for change in units.changes:
        for code in (change.before, change.after):
            for user in code.atoms if code is not None else ():
                if user.section in ABOUT_CODE:
                    continue
                for reference in user.fields:
                    target = reference.atom
                    name = target.name if target is not None else reference.name
                    own = change is one.change or not one.atom.local
                    if name in one.atom.names and own and not calls(user, reference):
                        found.add("whoever gets its address from %s" % (user.name or user.parent or "a table"))
    return sorted(found)


def argument_registers(units: ChangedUnits, change: UnitChange, atom: Atom) -> int:
    """In how many integer registers arguments come to a replaced function or to its new code, at most.

    Each number, pointer or enumeration is counted as one, also those that come in vector registers. All of them where
    that is not known: structures, variadic functions, and copies with other parameters than the source says, which GCC
    names `NAME.isra` and the like; Clang gives no sign.
    """
    before, after = units.debug_info_of(change)
    prototypes = [info.prototypes.get(atom.name) for info in (before, after)]
    unit = change.unit
    if "." in atom.name or (atom.local and is_clang(unit.command.compiler)):
        return ALL_ARGUMENTS
    counts = [
        len(one.parameters)
        if one is not None and all(_SCALAR.match(word) for word in (*one.parameters, one.returns))
        else ALL_ARGUMENTS
        for one in prototypes
    ]
    return min(max(counts), ALL_ARGUMENTS)


def running_callers(units: ChangedUnits, contents: PatchContents) -> list[str]:
    """Replaced functions whose original was compiled knowing which registers another replaced function leaves alone."""
    replaced = {id(one.atom) for one in contents.replaced()}
    callers = [
        one
        for one in contents.replaced()
        if any(id(f.atom) in replaced and f.atom is not one.atom for f in _calls(one.atom))
    ]
    _compile_originals(units, [one.change for one in callers])
    return [one.atom.name for one in callers if relies_on_registers(units, one.change, one.atom)]


def bound_callers(units: ChangedUnits, contents: PatchContents) -> list[tuple[str, str]]:
    """(caller, replaced function) for callers that stay and know which registers the replaced function leaves alone."""
    replaced = {id(one.atom) for one in contents.replaced()}
    found = []
    for one in contents.replaced():
        for user in one.change.users(one.atom):
            calls = user.kind == TEXT and any(f.atom is one.atom for f in _calls(user))
            if calls and id(user) not in replaced and relies_on_registers(units, one.change, user):
                found.append((user.name, one.atom.name))
    return found


def relies_on_registers(units: ChangedUnits, change: UnitChange, atom: Atom) -> bool:
    """True when the original of this function was compiled with knowledge of what its callees do to registers."""
    old, unit = change.original(atom), _original_unit(units, change)
    if old is None or unit is None:
        return False
    digests = [
        code.digest(code.named[old.name]) if old.name in code.named else ""
        for options in ((), _WITHOUT_REGISTER_KNOWLEDGE)
        for code in units.originals([unit], options)
    ]
    return digests[0] != digests[1]


def _compile_originals(units: ChangedUnits, changes: list[UnitChange]) -> None:
    """What relies_on_registers will ask for, all at once."""
    wanted = [_original_unit(units, change) for change in changes]
    units.originals([unit for unit in wanted if unit is not None], _WITHOUT_REGISTER_KNOWLEDGE)


def _original_unit(units: ChangedUnits, change: UnitChange) -> Unit | None:
    """The unit in the original tree, None for a new one and for what Clang compiles, which has no such knowledge."""
    if is_clang(change.unit.command.compiler):
        return None
    source, word = change.unit.source, change.unit.word
    return next((unit for unit in units.tree.units if unit.source == source and unit.word == word), None)


def _calls(atom: Atom) -> list[Field]:
    """The references of a function, and of its cold part, by which it calls or jumps."""
    found = []
    for user in (atom, *[f.atom for f in atom.fields if f.atom is not None and f.atom.parent]):
        found += [f for f in user.fields if calls_directly(user, f)]
    return found
