# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A region is read from memory that its program may have written itself: what no patch leaves there is no region."""

from __future__ import annotations

import json

import pytest

from module_utils._engine.region import LOADED, Mutable, Region, Site, describe, header, read_region
from module_utils._process.memory import Memory

AT = 0x10000
WHOLE = Region(
    address=AT,
    mutable=Mutable(LOADED, "none", 1, 0, 0),
    id="fix",
    version="1",
    sha256="00",
    patch={
        "description": "",
        "cves": [],
        "requires": [],
        "replaces": [],
        "consistency": "entry",
        "build_id": "00",
    },
    object_path="/bin/true",
    object_start=0x400000,
    sites=(Site("one", "byte", 0x400100, b"\x55", b"\xe9", 0x400100, 0x10100),),
    parts=((AT, 4096, 1),),
    digests=((AT, 4096, "00"),),
    replaced=((0x400101, 0x400110),),
)


class _Text(Memory):
    """Memory that holds one text at AT."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(-1, "a test")
        self._raw = raw

    def read(self, address: int, size: int) -> bytes:
        data = self._raw[address - AT :][:size]
        if len(data) < size:
            raise OSError("nothing is mapped there")
        return data


def _read(description: bytes) -> Region | None:
    return read_region(_Text(header(AT, description, WHOLE.mutable) + description), AT)


def test_what_is_written_is_read() -> None:
    """A whole region comes back as it was described."""
    assert _read(describe(WHOLE)) == WHOLE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch", {}),
        ("patch", []),
        ("patch", {**WHOLE.patch, "consistency": "never"}),
        ("patch", {**WHOLE.patch, "cves": [1]}),
        ("patch", {**WHOLE.patch, "build_id": None}),
        ("digests", [[AT, 1 << 50, "00"]]),
        ("digests", [[AT, -1, "00"]]),
        ("parts", [[AT, 1 << 50, 5]]),
        ("replaced", [[0, 1 << 60]]),
        ("object_start", float("inf")),
        ("sites", [["one"]]),
        ("sites", None),
    ],
)
def test_what_no_patch_leaves(name: str, value: object) -> None:
    """One odd field, under a right digest: no region, no exception, and nothing huge is read."""
    plain = json.loads(describe(WHOLE))
    assert name in plain
    assert _read(json.dumps({**plain, name: value}).encode()) is None


def test_deeply_nested() -> None:
    """Brackets without end are no region either."""
    assert _read(b"[" * 200_000) is None
