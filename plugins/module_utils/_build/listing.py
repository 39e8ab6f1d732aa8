# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What --diff shows: the instructions of a function before and after, with what they refer to in words."""

from __future__ import annotations

from .._patch.content import TEXT
from .._patch.manifest import ChangedValue
from .atoms import Atom, Field, UnitCode
from .choose_contents import PatchContents
from .disassembly import plain_instructions
from .relocated_fields import PC_RELATIVE
from .request import Listing

_LONGEST_STRING = 60
_NEAR = "0x0(%rip)"


def listings(contents: PatchContents, values: tuple[ChangedValue, ...]) -> list[Listing]:
    """Listings of the replaced and the new functions, and of the values that are written."""
    found = []
    for one in contents.included:
        if one.atom.kind == TEXT and one.atom.name:
            change = one.change
            old = change.original(one.atom) if one.replaces else None
            before = _text(change.before, old) if change.before is not None and old is not None else ""
            found.append(Listing(one.atom.name, change.unit.word, before, _text(change.after, one.atom)))
    for value in values:
        found.append(Listing(value.name, "", _bytes(value.old), _bytes(value.new)))
    return found


def _bytes(value: str) -> str:
    """Hexadecimal bytes, sixteen in a line."""
    return "".join(bytes.fromhex(value[at : at + 32]).hex(" ") + "\n" for at in range(0, len(value), 32))


def _text(code: UnitCode, atom: Atom) -> str:
    """A function's instructions, its cold part behind it; what they refer to stands in them by its name."""
    lines = []
    fields = list(atom.fields)
    for end, text in plain_instructions(code.path, atom.section):
        words = []
        while fields and fields[0].offset < end:
            words.append(_words(code, fields.pop(0), end))
        if len(words) == 1 and _NEAR in text:
            text = text.replace(_NEAR, words.pop() + "(%rip)")
        elif len(words) == 1 and " " not in text:
            text = "%s %s" % (text, words.pop())
        lines.append("%s%s\n" % (text, "  # " + ", ".join(words) if words else ""))
    for part in code.atoms:
        if part.kind == TEXT and part.parent and part.parent in atom.names:
            lines += ["%s.cold:\n" % atom.name, _text(code, part)]
    return "".join(lines)


def _words(code: UnitCode, reference: Field, end: int) -> str:
    """What a reference of the instruction that ends at `end` leads to, for people."""
    target = reference.atom
    distance = reference.addend + (end - reference.offset if reference.kind in PC_RELATIVE else 0)
    behind = "%+d" % distance if distance else ""
    if target is None:
        return reference.name + behind
    if target.name:
        return code.canonical(target.name) + behind
    if target.parent:
        return target.parent + ".cold"
    content = target.content
    if content.endswith(b"\0") and not target.fields and content[:-1].isascii() and target.size > 1:
        text = content[:-1].decode("ascii")
        return repr(text if len(text) <= _LONGEST_STRING else text[:_LONGEST_STRING] + "...")
    return ("a_table" if target.fields else "constant_%s" % content[:16].hex()) + behind
