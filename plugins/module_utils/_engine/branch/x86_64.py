# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of branches on x86-64 (Intel SDM vol. 2, JMP; System V ABI AMD64 for endbr64)."""

from __future__ import annotations

import struct

JUMP_BYTE = b"\xe9"
JUMP_SIZE = 5
ENDBR64 = b"\xf3\x0f\x1e\xfa"
# The most bytes a branch to anywhere takes: jmp *(rip+0) and the address behind it.
LONGEST = 14


def reaches(at: int, to: int) -> bool:
    """True when a five-byte jump at `at` can lead to `to`."""
    return -(1 << 31) <= to - (at + JUMP_SIZE) < 1 << 31


def jump(at: int, to: int) -> bytes:
    """jmp rel32 from `at` to `to`: 5 bytes. Raises struct.error where `reaches` is false."""
    return JUMP_BYTE + struct.pack("<i", to - (at + JUMP_SIZE))


def branch(at: int, to: int) -> bytes:
    """A branch from `at` to anywhere: 5 bytes where that reaches, else 14; it changes no register and no flag."""
    if reaches(at, to):
        return jump(at, to)
    return b"\xff\x25\x00\x00\x00\x00" + struct.pack("<Q", to)


def slot_branch(at: int, slot: int) -> bytes:
    """jmp *slot(%rip), for an address kept in a slot: 6 bytes, padded to 8 with int3."""
    return b"\xff\x25" + struct.pack("<i", slot - (at + 6)) + b"\xcc\xcc"


def punned_place(entry: int, first_bytes: bytes) -> int | None:
    """Where a function leads once its first byte, and nothing else, has become a jump's.

    The four bytes behind it stay and are the displacement (instruction punning, Chamith et al., PLDI 2017). None when
    there are no four bytes known, or the first byte is a jump's already.
    """
    if len(first_bytes) < JUMP_SIZE or first_bytes[:1] == JUMP_BYTE:
        return None
    displacement: int = struct.unpack("<i", first_bytes[1:5])[0]
    return entry + JUMP_SIZE + displacement
