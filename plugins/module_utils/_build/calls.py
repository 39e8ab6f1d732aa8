# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which references of a function are calls, by the bytes around them (Intel SDM, volume 2)."""

from __future__ import annotations

from .._patch.content import TEXT
from .atoms import Atom, Field
from .relocated_fields import GOT_LOADS, R_PC32, R_PLT32


def calls_directly(user: Atom, reference: Field) -> bool:
    """True for a call or jump instruction whose displacement the reference is (opcodes E8, E9, 0F 80 to 0F 8F)."""
    at = reference.offset
    if user.kind != TEXT or reference.kind not in (R_PC32, R_PLT32) or at < 1:
        return False
    opcode = user.content[at - 1]
    return opcode in (0xE8, 0xE9) or (at >= 2 and user.content[at - 2] == 0x0F and opcode & 0xF0 == 0x80)


def calls(user: Atom, reference: Field) -> bool:
    """True for a call or jump to what the reference names, directly or through its slot (FF /2, FF /4)."""
    at = reference.offset
    through_slot = reference.kind in GOT_LOADS and at >= 2 and user.content[at - 2 : at] in (b"\xff\x15", b"\xff\x25")
    return calls_directly(user, reference) or (user.kind == TEXT and through_slot)
