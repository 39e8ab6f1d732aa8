# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of branches on x86-64 (Intel SDM vol. 2, JMP; System V ABI AMD64 for endbr64)."""

from __future__ import annotations

import struct
from typing import Iterator

JUMP_BYTE = b"\xe9"
JUMP_SIZE = 5
# A jump may have a REX prefix, which means nothing to it (Intel SDM vol. 2, 2.2.1.7 and JMP: near, 64 bits by itself).
LONGEST_JUMP = 6
ENDBR64 = b"\xf3\x0f\x1e\xfa"


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


def one_byte_jumps(code: bytes) -> Iterator[tuple[bytes, int]]:
    """(the first five or six bytes of `code` as a jump, its displacement) for each jump one byte away from them.

    The first byte becomes a jump's and the four behind it stay (instruction punning, Chamith et al., PLDI 2017), or,
    where the first is a REX prefix, the second and the four behind that; where it is a jump's already, the highest byte
    of the displacement changes: 255 jumps, the shortest first.
    """
    old = code[:JUMP_SIZE]
    if len(old) < JUMP_SIZE:
        return
    jumps = [JUMP_BYTE + old[1:]]
    if old in jumps:
        jumps = [old[:-1] + bytes((top,)) for top in range(256) if top != old[-1]]
    elif old[0] & 0xF0 == 0x40 and old[1:2] != JUMP_BYTE and len(code) >= LONGEST_JUMP:
        jumps.append(old[:1] + JUMP_BYTE + code[2:LONGEST_JUMP])
    pairs: list[tuple[bytes, int]] = [(new, struct.unpack("<i", new[-4:])[0]) for new in jumps]
    yield from sorted(pairs, key=lambda pair: abs(pair[1]))


def jumps_by_first_bytes(code: bytes, count: int) -> Iterator[tuple[bytes, int]]:
    """As one_byte_jumps, for jumps of which the first `count` bytes, 1 to 4, are new: up to 256, evenly spread."""
    kept = code[count:JUMP_SIZE]
    for top in range(256 if count > 1 else 1):
        chosen = bytes(count - 2) + bytes((top,)) if count > 1 else b""
        new = JUMP_BYTE + chosen + kept
        yield new, struct.unpack("<i", new[1:])[0]
