# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The records of .eh_frame: how to get from a frame of a function to its caller's, and who handles exceptions there.

Linux Standard Base Core, "Exception Frames"; DWARF 5, section 6.4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

# Addresses of code as 32-bit distances from the field (DW_EH_PE_pcrel | DW_EH_PE_sdata4): what GCC and Clang write for
# every code model but the large one.
_NEAR = 0x1B
_SIZES = {0x00: 8, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}
# Where the function's address stands in a record of a function.
BEGIN_AT = 8


@dataclass(frozen=True)
class FrameRecord:
    """The record of one function (FDE) and the one common to several that it needs (CIE): bytes, and their offsets.

    `handles`: whether the functions have something to do when an exception passes (a personality routine).
    """

    common_at: int
    common: bytes
    at: int
    content: bytes
    handles: bool


def frame_records(content: bytes) -> list[FrameRecord]:
    """The records of a unit's .eh_frame section, in order; none of a form that is not known.

    Raises struct.error or IndexError for a damaged one.
    """
    found: list[FrameRecord] = []
    at = 0
    while at + 8 <= len(content):
        length, pointer = struct.unpack_from("<II", content, at)
        if length in (0, 0xFFFFFFFF):
            return found
        if pointer:
            common_at = at + 4 - pointer
            common_length = struct.unpack_from("<I", content, common_at)[0]
            common = content[common_at : common_at + 4 + common_length]
            form = _form(common)
            if form is not None and length % 4 == 0 == common_length % 4:
                found.append(FrameRecord(common_at, common, at, content[at : at + 4 + length], form))
        at += 4 + length
    return found


def _form(common: bytes) -> bool | None:
    """Whether a common record names a personality routine; None for one of a form that is not known."""
    if common[8] != 1:
        return None
    end = common.index(b"\0", 9)
    letters = common[9:end].decode("ascii", "replace")
    if not letters.startswith("z") or set(letters) - set("zPLRS"):
        return None
    at = end + 1
    for _number in range(3):  # code alignment, data alignment, return register
        at = _behind_leb128(common, at)
    at = _behind_leb128(common, at)
    encoding = 0
    for letter in letters[1:]:
        if letter == "P":
            at += 1 + _SIZES[common[at] & 0x0F]
        elif letter == "L":
            at += 1
        elif letter == "R":
            encoding = common[at]
            at += 1
    return "P" in letters if encoding == _NEAR else None


def _behind_leb128(content: bytes, at: int) -> int:
    while content[at] & 0x80:
        at += 1
    return at + 1
