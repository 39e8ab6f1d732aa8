# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions that the compiler calls as it likes: copies of a function, which only the callers it made them for know.

GCC gives a copy other parameters than the source says (`NAME.isra.0`, `NAME.constprop.0`, `NAME.part.0`), Clang does it
to a static function and leaves its name. (GCC manual, -fipa-sra, -fipa-cp-clone, -fpartial-inlining; LLVM's passes,
"argpromotion" and "deadargelim") What the new code expects may not be what the old callers give, so where all of these
are replaced the old copy is left to whoever is still inside them, as if it were inlined there.
"""

from __future__ import annotations

import dataclasses
import re

from .._patch.content import TEXT
from .atoms import ABOUT_CODE, Atom
from .calls import calls_directly
from .changed_functions import UnitChange
from .choose_contents import Included, PatchContents
from .run_compiler import is_clang

_COPY = re.compile(r".+\.(isra|constprop|part)\.\d+")


def leave_private_copies(contents: PatchContents) -> None:
    """Take into the patch as new code, in place of replacing them, copies that only replaced functions called."""
    replaced = _originals(contents)
    contents.included[:] = [
        dataclasses.replace(one, replaces=False) if _is_left(one, replaced) else one for one in contents.included
    ]


def copies_with_other_callers(contents: PatchContents) -> list[str]:
    """Replaced copies with old callers of both kinds: threads inside a replaced one must not get into the new copy."""
    replaced = _originals(contents)
    found = []
    for one in contents.replaced():
        callers = _callers(one) if _is_private(one.change, one.atom) else None
        if callers and any(id(caller) in replaced for caller in callers):
            found.append(one.atom.name)
    return found


def _originals(contents: PatchContents) -> set[int]:
    return {id(one.change.original(one.atom)) for one in contents.replaced()}


def _is_left(one: Included, replaced: set[int]) -> bool:
    if not one.replaces or not _is_private(one.change, one.atom):
        return False
    callers = _callers(one)
    return bool(callers) and all(id(caller) in replaced for caller in callers or ())


def _is_private(change: UnitChange, atom: Atom) -> bool:
    return atom.local and bool(_COPY.match(atom.name) or is_clang(change.unit.command.compiler))


def _callers(one: Included) -> list[Atom] | None:
    """The other functions whose original calls the original of this one; None when its address is taken."""
    before, old = one.change.before, one.change.original(one.atom)
    if before is None or old is None:
        return None
    found: list[Atom] = []
    for user in before.atoms:
        for reference in user.fields:
            if reference.atom is not old or user.section in ABOUT_CODE:
                continue
            caller = before.named.get(user.parent) if user.parent else user
            if user.kind != TEXT or caller is None or not calls_directly(user, reference):
                return None
            if caller is not old and caller not in found:
                found.append(caller)
    return found
