# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Types and prototypes compared between the original and the changed compilation of a unit.

A running process holds data in the original layout; code that expects another one must not be let at it. The compiler
writes down only types that the unit uses, so a changed type of a unit with changed code is one too many.
"""

from __future__ import annotations

import re

from .._patch.content import TEXT
from .changed_functions import UnitChange
from .debug_info import DebugInfo, Layout, Prototype
from .request import Refusal

_CLONE = re.compile(r"\.(isra|constprop|part|cold|lto_priv)(\.\d+)*")


def changed_layouts(change: UnitChange, before: DebugInfo, after: DebugInfo, functions: list[str]) -> list[Refusal]:
    """A refusal for each type and variable of another layout; `functions`: those that change or are new."""
    where = "it is used in the file of %s" % ", ".join(functions[:5])
    refusals = []
    for name in sorted(set(before.types) & set(after.types)):
        old, new = before.types[name], after.types[name]
        if old & new and (old <= new or new <= old):
            continue
        one, two = min(old, key=repr), min(new, key=repr)
        if one.is_enumeration() and one.size == two.size and set(one.members) <= set(two.members):
            continue
        reason = "%s %s; %s" % (name, _difference(one, two), where)
        refusals.append(Refusal("layout_changed", name, change.unit.word, reason))
    for atom in change.after.atoms:
        original = change.original(atom)
        if atom.kind == TEXT or atom.constant or original is None or original.size != atom.size:
            continue
        types = [info.variables.get(one.name) for info, one in ((before, original), (after, atom))]
        if None not in types and types[0] != types[1]:
            reason = "the variable %s keeps its %d bytes but is of another type; %s" % (atom.name, atom.size, where)
            refusals.append(Refusal("layout_changed", atom.name, change.unit.word, reason))
    return refusals


def changed_prototype(before: DebugInfo, after: DebugInfo, function: str) -> tuple[Prototype, Prototype] | None:
    """The old and the new prototype of a function when callers of the old one could not call the new one."""
    name = _CLONE.sub("", function)
    old, new = before.prototypes.get(name), after.prototypes.get(name)
    if old is None or new is None or (old.parameters == new.parameters and old.returns in (new.returns, "void")):
        return None
    return old, new


def words(function: str, prototype: Prototype) -> str:
    """A prototype as a person writes it."""
    return "%s %s(%s)" % (prototype.returns, function, ", ".join(prototype.parameters) or "void")


def _difference(old: Layout, new: Layout) -> str:
    if old.size != new.size:
        text = "changes from %d to %d bytes" % (old.size, new.size)
    elif old.is_enumeration():
        text = "gives names to other values"
    else:
        text = "keeps its %d bytes but changes its members" % old.size
    names_old, names_new = [_word(m) for m in old.members], [_word(m) for m in new.members]
    added = [name for name in names_new if name not in names_old]
    removed = [name for name in names_old if name not in names_new]
    moved = [_word(m) for m in new.members if _word(m) in names_old and m not in old.members]
    for what, names in (("new", added), ("gone", removed), ("different", moved)):
        if names:
            text += ", %s: %s" % (what, ", ".join(names[:4]) + (", ..." if len(names) > 4 else ""))
    return text


def _word(member: tuple[str, str, str]) -> str:
    return member[0] or "an unnamed member"
