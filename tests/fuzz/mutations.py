# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutations that keep a patch file a patch file, so that what lies behind the first checks is reached, too."""

from __future__ import annotations

import json
import random
import struct
from typing import Any, Callable

Mutate = Callable[[bytes, int], bytes]
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 24, 63, 64, 255, 4095, 4096, 65535, 1 << 31, (1 << 32) - 1, 1 << 47, 1 << 63)
_TEXTS = ("", "00", "x86_64", "object", "external", "weak", "entry", "answer", "\0", "\ud800", "../x", "f" * 64, "é")
_HEADER = (16, 18, 40, 58, 60, 62)  # e_type, e_machine, e_shoff, e_shentsize, e_shnum, e_shstrndx
_FIELDS = ((0, "I"), (4, "I"), (8, "Q"), (24, "Q"), (32, "Q"), (40, "I"), (44, "I"), (48, "Q"), (56, "Q"))


def canonical(plain: Any) -> bytes:
    """JSON in the one form that a manifest may have."""
    return (json.dumps(plain, sort_keys=True, indent=2) + "\n").encode("ascii")


def mutated_json(raw: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    """A manifest with one value changed, or other bytes altogether."""
    try:
        plain = json.loads(raw)
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict) or not plain or not dice.randrange(8):
        return mutate(raw, 4096)
    for _turn in range(dice.randint(1, 3)):
        _change(plain, dice)
    try:
        return canonical(plain)
    except (ValueError, RecursionError):
        return raw


def _change(at: Any, dice: random.Random) -> None:
    while at:
        key: Any = dice.choice(list(at)) if isinstance(at, dict) else dice.randrange(len(at))
        if isinstance(at[key], (dict, list)) and at[key] and dice.randrange(6):
            at = at[key]
        else:
            break
    else:
        return
    value = at[key]
    what = dice.randrange(10)
    if what == 0 and isinstance(at, list):
        at.append(at[key])
    elif what == 1 and isinstance(at, dict) and not dice.randrange(4):
        del at[key]
    elif isinstance(value, bool) or what == 2:
        at[key] = dice.choice((None, True, 1.5, [], {}, [value], "x", 1))
    elif isinstance(value, int):
        at[key] = dice.choice((*_NUMBERS, value + 1, value - 1, -value, value * 2, dice.getrandbits(50)))
    elif isinstance(value, str):
        at[key] = dice.choice((*_TEXTS, value + "0", value[1:], value[:-1], value * 2, value.upper()))
    elif isinstance(value, list) and what < 5:
        at[key] = value * 2


def mutated_object(raw: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    """An ELF object with a field of a header, a row of a table, or its manifest changed, or other bytes altogether."""
    way = dice.randrange(5)
    body = bytearray(raw)
    rows = _rows(body)
    if not rows or way == 0:
        return mutate(raw, 4096)
    if way == 1 and not dice.randrange(3):
        _put(body, dice.choice(_HEADER), "H", dice)
    elif way == 2:
        at, kind = dice.choice(_FIELDS)
        _put(body, dice.choice(rows) + at, kind, dice)
    elif way == 3:
        _put_into_a_table(body, dice.choice(rows), dice)
    else:
        _put_manifest(body, rows, dice, mutate)
    return bytes(body)


def _rows(body: bytearray) -> list[int]:
    """Where the section headers lie."""
    if len(body) < 64:
        return []
    at, count = struct.unpack_from("<Q", body, 40)[0], struct.unpack_from("<H", body, 60)[0]
    return [at + 64 * index for index in range(min(count, 64)) if at + 64 * index + 64 <= len(body)]


def _put(body: bytearray, at: int, kind: str, dice: random.Random) -> None:
    size = struct.calcsize(kind)
    if at + size > len(body):
        return
    now = struct.unpack_from("<" + kind, body, at)[0]
    new = dice.choice((*_NUMBERS, now + 1, now - 1, now ^ 1 << dice.randrange(8 * size), len(body) - now, -now))
    struct.pack_into("<" + kind, body, at, new & (1 << 8 * size) - 1)


def _put_into_a_table(body: bytearray, row: int, dice: random.Random) -> None:
    offset, size = struct.unpack_from("<QQ", body, row + 24)
    if size >= 8 and offset + size <= len(body):
        _put(body, offset + dice.randrange(int(size) // 4) * 4, dice.choice("BHIQ"), dice)


def _put_manifest(body: bytearray, rows: list[int], dice: random.Random, mutate: Mutate) -> None:
    for row in rows:
        offset, size = struct.unpack_from("<QQ", body, row + 24)
        if body[offset : offset + 11] == b'{\n  "built"':
            new = mutated_json(bytes(body[offset : offset + size]), dice, mutate)
            if len(new) <= size:
                body[offset : offset + len(new)] = new
                struct.pack_into("<Q", body, row + 32, len(new))
            elif len(body) + len(new) <= 4096:
                struct.pack_into("<QQ", body, row + 24, len(body), len(new))
                body += new
            return


MUTATORS: dict[str, Callable[[bytes, random.Random, Mutate], bytes]] = {
    "patch": mutated_object,
    "manifest": mutated_json,
    "region": mutated_json,
}
