# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Relocations of x86-64 code (System V ABI AMD64, table 4.9): which need a slot, and what goes into the field."""

from __future__ import annotations

import struct

from ..._errors import LivepatchError

_64, _PC32, _PLT32, _GOTPCREL, _32, _32S, _PC64 = 1, 2, 4, 9, 10, 11, 24
_GOTPCRELX, _REX_GOTPCRELX = 41, 42
_THROUGH_SLOT = frozenset((_GOTPCREL, _GOTPCRELX, _REX_GOTPCRELX))
_THROUGH_STUB = frozenset((_PC32, _PLT32, _32, _32S))
SUPPORTED = frozenset((_64, _PC32, _PLT32, _GOTPCREL, _32, _32S, _PC64, _GOTPCRELX, _REX_GOTPCRELX))
# Fields that hold a whole address in 32 bits: the patch must lie in the lowest 2 GiB.
ABSOLUTE_32 = frozenset((_32, _32S))
FIELD_SIZE = {_64: 8, _PC64: 8}


def needs_slot(kind: int) -> bool:
    """True when the field refers to a slot that holds the symbol's address."""
    return kind in _THROUGH_SLOT


def may_use_stub(kind: int) -> bool:
    """True when a stub that branches to the symbol serves as well as the symbol, being out of reach."""
    return kind in _THROUGH_STUB


def field(kind: int, place: int, value: int, addend: int, symbol: str) -> bytes:
    """The content of the field at `place` for a symbol (or its slot) at `value`.

    Raises LivepatchError patch_unsupported for a type not in SUPPORTED, no_room_near_object where it does not fit.
    """
    try:
        if kind == _64:
            return struct.pack("<Q", value + addend & (1 << 64) - 1)
        if kind == _PC64:
            return struct.pack("<q", value + addend - place)
        if kind == _32:
            return struct.pack("<I", value + addend)
        if kind == _32S:
            return struct.pack("<i", value + addend)
        if kind in SUPPORTED:
            return struct.pack("<i", value + addend - place)
    except struct.error:
        raise LivepatchError(
            "no_room_near_object", "%s at %#x cannot be reached from %#x" % (symbol, value, place)
        ) from None
    raise LivepatchError("patch_unsupported", "relocation type %d for %s" % (kind, symbol))
