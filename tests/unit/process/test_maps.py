# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Mappings: every line is read, addresses are found in them, and the gaps between them are all that is free."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from module_utils._errors import LivepatchError
from module_utils._process.maps import Mapping, gaps, mapping_at, parse_maps
from module_utils._process.process import Process

TEXT = """\
55d0c0000000-55d0c0001000 r--p 00000000 fe:00 2187267                    /tmp/a b/program (deleted)
55d0c0001000-55d0c0002000 r-xp 00001000 fe:00 2187267                    /tmp/a b/program (deleted)
7f0000000000-7f0000021000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_parse() -> None:
    """Paths with spaces, deleted files, mappings without a name, and the highest address there is."""
    found = parse_maps(TEXT)
    assert [one.path for one in found] == ["/tmp/a b/program (deleted)"] * 2 + ["", "[stack]", "[vsyscall]"]
    assert found[1] == Mapping(0x55D0C0001000, 0x55D0C0002000, "r-xp", 4096, "fe:00", 2187267, found[0].path)
    assert [one.is_file() for one in found] == [True, True, False, False, False]
    own = Path("/proc/self/maps").read_text()  # read once: between two readings an allocation may map something
    assert len(parse_maps(own)) == own.count("\n")


_LISTS = st.lists(st.integers(0, 60), unique=True, max_size=20).map(
    lambda ends: [
        Mapping(start, end, "r--p", 0, "", 0, "") for start, end in zip(sorted(ends)[::2], sorted(ends)[1::2])
    ]
)


@given(_LISTS, st.integers(0, 61))
def test_mapping_at(mappings: list[Mapping], address: int) -> None:
    """The same as trying each."""
    wanted = [one for one in mappings if one.start <= address < one.end]
    assert mapping_at(mappings, address) == (wanted[0] if wanted else None)


@given(_LISTS, st.integers(0, 61), st.integers(0, 61))
def test_gaps(mappings: list[Mapping], low: int, high: int) -> None:
    """Exactly the addresses in [low, high) that nobody has."""
    free = {at for start, end in gaps(mappings, low, high) for at in range(start, end)}
    assert free == {at for at in range(low, high) if mapping_at(mappings, at) is None}


def test_a_process_that_has_gone() -> None:
    """Whoever has the number then: what was opened before says that its process has gone."""
    child = os.fork()
    if not child:
        os.read(os.pipe()[0], 1)
    with Process(child) as process:
        memory = process.memory
        start = process.maps()[0].start
        assert memory.read(start, 4) == b"\x7fELF"
        os.kill(child, 9)
        os.waitpid(child, 0)
        assert process.has_exited()
        for touch in (process.maps, process.threads, lambda: memory.read(start, 4), lambda: memory.write(start, b"x")):
            with pytest.raises(LivepatchError) as caught:
                touch()
            assert caught.value.code == "process_gone"
    with pytest.raises(LivepatchError) as caught:
        Process(child)
    assert caught.value.code == "process_gone"


def test_addresses_that_no_process_has() -> None:
    """Damaged tables name such addresses: an OSError like any other unmapped one."""
    with Process(os.getpid()) as process:
        for address in (8, 1 << 62, 1 << 63, (1 << 64) - 1, -5):
            with pytest.raises(OSError, match="Errno"):
                process.memory.read(address, 8)
            assert process.memory.read_some(address, 8) == b""
