# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which references of a function are calls, by the bytes around them (Intel SDM, volume 2)."""

from __future__ import annotations

from .._patch.content import TEXT, is_branch_field
from .atoms import Atom, Field
from .relocated_fields import GOT_LOADS, R_PC32, R_PLT32


def calls_directly(user: Atom, reference: Field) -> bool:
    """True for a call or jump instruction whose displacement the reference is."""
    is_relative = user.kind == TEXT and reference.kind in (R_PC32, R_PLT32)
    return is_relative and is_branch_field(user.content, reference.offset)


def calls(user: Atom, reference: Field) -> bool:
    """True for a call or jump to what the reference names, directly or through its slot (FF /2, FF /4)."""
    at = reference.offset
    through_slot = reference.kind in GOT_LOADS and at >= 2 and user.content[at - 2 : at] in (b"\xff\x15", b"\xff\x25")
    return calls_directly(user, reference) or (user.kind == TEXT and through_slot)
