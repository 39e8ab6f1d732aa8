# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running process has behind it, and what no function shows: a change there has no effect, or an unknown one.

Constructors of any priority, also in .preinit_array (gABI, chapter 5, "Initialization and Termination Functions"),
what only they call, and the functions that chose an implementation (IFUNC); assembler code outside of functions.
"""

from __future__ import annotations

from .atoms import Atom, UnitCode
from .calls import calls
from .changed_functions import UnitChange, is_function
from .request import Refusal


def code_that_ran(change: UnitChange) -> list[Refusal]:
    """A refusal for each changed or new constructor, and each changed function that only ran when the object came."""
    refusals = []
    before = _initialisers(change.before) if change.before is not None else set()
    for name in sorted(_initialisers(change.after)):
        atom = change.after.named.get(name)
        if name not in before or (atom is not None and change.differs(atom)):
            refusals.append(_refusal(change, name, "%s runs when the object is loaded, which has happened" % name))
    ran = [atom for atom in change.after.atoms if {*atom.names} & (before | change.indirect_functions())]
    for atom in ran:
        for reference in atom.fields:
            called = reference.atom
            if called is None or called in ran or not _only_called_by(change, called, ran):
                continue
            ran.append(called)
            if change.original(called) is not None and change.differs(called):
                why = "%s is called only when the object is loaded (by %s), which has happened"
                refusals.append(_refusal(change, called.name, why % (called.name, atom.name)))
    return refusals


def assembler_code(change: UnitChange) -> list[Refusal]:
    """A refusal when assembler code outside of functions differs: compiled with a section for each, it is in .text."""
    if change.before is None:
        return []
    before, after = (
        [(code, atom) for atom in code.atoms if atom.section == ".text"] for code in (change.before, change.after)
    )
    if [code.digest(atom) for code, atom in before] == [code.digest(atom) for code, atom in after]:
        return []
    name = next((atom.name for _code, atom in after if atom.name), "")
    why = "assembler code outside of functions changes in %s" % change.unit.word
    return [Refusal("assembler_changed", name, change.unit.word, why)]


def _initialisers(code: UnitCode) -> set[str]:
    at_end = (".fini_array", ".dtors")
    return {f.name for atom in code.initialisers if not atom.section.startswith(at_end) for f in atom.fields}


def _only_called_by(change: UnitChange, function: Atom, callers: list[Atom]) -> bool:
    """Not so where its address is taken: a function that chooses an implementation hands that out."""
    if not is_function(function) or not function.local:
        return False
    return all(
        user in callers and all(calls(user, f) for f in user.fields if f.atom is function)
        for user in change.users(function)
    )


def _refusal(change: UnitChange, name: str, why: str) -> Refusal:
    return Refusal("constructor_changed", name, change.unit.word, why)
