# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What --diff shows: the instructions of a function before and after, with what they refer to in words."""

from __future__ import annotations

from .atoms import Atom, Field, UnitCode
from .choose_contents import Included
from .disassembly import plain_instructions
from .request import Listing

_LONGEST_STRING = 60


def listing(one: Included) -> Listing:
    """The listing of a replaced function."""
    change = one.change
    old = change.original(one.atom)
    before = _text(change.before, old) if change.before is not None and old is not None else ""
    return Listing(one.atom.name, before, _text(change.after, one.atom))


def _text(code: UnitCode, atom: Atom) -> str:
    lines = []
    fields = list(atom.fields)
    for end, text in plain_instructions(code.path, atom.section):
        words = []
        while fields and fields[0].offset < end:
            words.append(_words(code, fields.pop(0)))
        lines.append("%s%s\n" % (text, "  # " + ", ".join(words) if words else ""))
    return "".join(lines)


def _words(code: UnitCode, reference: Field) -> str:
    """What a reference leads to, for people."""
    target = reference.atom
    if target is None:
        return reference.name
    if target.name:
        return code.canonical(target.name)
    if target.parent:
        return target.parent + ".cold"
    if target.content.endswith(b"\0") and not target.fields and target.content[:-1].isascii() and target.size > 1:
        text = target.content[:-1].decode("ascii")
        return repr(text if len(text) <= _LONGEST_STRING else text[:_LONGEST_STRING] + "...")
    return "a table" if target.fields else "a constant"
