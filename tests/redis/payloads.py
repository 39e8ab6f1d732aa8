# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Serialised values for RESTORE that show whether the fix for CVE-2026-25243 is in force.

Those of upstream's own tests are read from the patch that brings them; none is kept here. A serialised value
ends in two bytes of format version and eight of checksum (both little-endian; redis' verifyDumpPayload).
"""

from __future__ import annotations

import re
import struct

# The newest format that redis 7.0 reads (RDB_VERSION in its rdb.h).
FORMAT = 10
ZIPMAP = 9  # RDB_TYPE_HASH_ZIPMAP
# How far one RESTORE of `duplicate_field` grows an unfixed server.
LEAK = 60_000

_SMALL = ("5 bytes length encoding for a small field", "5 bytes length encoding for a small value")
_OVERSIZE = "RESTORE fail with invalid payload size"


def holes(patch: str) -> dict[str, bytes]:
    """The payloads that an unfixed server restores and a fixed one refuses, by upstream's name for the test.

    Harmless afterwards: the value is turned into a listpack as it is restored, so the key can be deleted as
    any other.
    """
    tests = _upstream_tests(patch)
    return {name: payload for name, payload in tests.items() if name.endswith(_SMALL)}


def oversize(patch: str) -> bytes:
    """A string that claims 2^64 - 9 bytes: a fixed server refuses it, an unfixed one aborts (sds.c).

    Upstream's payload is of a newer format than redis 7.0 reads, and has no checksum; both are put right.
    """
    return sealed(_upstream_tests(patch)[_OVERSIZE][:-10])


def duplicate_field() -> bytes:
    """A hash with one field twice behind a field of LEAK bytes: refused by every server, but an unfixed one
    forgets to free what it had read by then (the lpFree that the fix adds to rdbLoadObject)."""
    pairs = [(b"large", b"v" * LEAK), (b"twice", b"1"), (b"twice", b"2")]
    entries = b"".join(_length(len(f)) + f + _length(len(v)) + b"\0" + v for f, v in pairs)
    zipmap = bytes([len(pairs)]) + entries + b"\xff"
    return sealed(bytes([ZIPMAP]) + b"\x80" + struct.pack(">I", len(zipmap)) + zipmap)


def sealed(body: bytes) -> bytes:
    """A payload's content with version and checksum behind it."""
    content = body + struct.pack("<H", FORMAT)
    return content + struct.pack("<Q", crc64(content))


def crc64(content: bytes) -> int:
    """CRC-64 with Jones' polynomial, as in redis' crc64.c (reflected, starts at 0)."""
    crc = 0
    for byte in content:
        crc ^= byte
        for _bit in range(8):
            crc = (crc >> 1) ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
    return crc


def _length(length: int) -> bytes:
    return bytes([length]) if length < 254 else b"\xfe" + struct.pack("<I", length)


def _upstream_tests(patch: str) -> dict[str, bytes]:
    """The payloads written out in the Tcl tests that `patch` adds, by the test's name."""
    with open(patch, encoding="utf-8") as stream:
        added = [line[1:] for line in stream if line.startswith("+")]
    found: dict[str, bytes] = {}
    name = ""
    for line in added:
        named = re.match(r"\s*test \{(.*?)\}", line)
        name = named[1] if named else name
        payload = re.search(r'(?:restore key 0|set encoded) "((?:\\x[0-9A-Fa-f]{2})+)"', line)
        if payload:
            found[name] = bytes.fromhex(payload[1].replace("\\x", ""))
    missing = [test for test in (*_SMALL, _OVERSIZE) if not any(name.endswith(test) for name in found)]
    if missing:
        raise ValueError(f"{patch} brings no payload for: {', '.join(missing)}")
    return found
