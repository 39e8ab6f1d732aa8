# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding addresses in stacks: the fast search finds what looking at every byte finds, and zeros do not slow it."""

from __future__ import annotations

import time
from typing import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from module_utils._engine.find_addresses import Addresses

PLACES = st.sampled_from([0x401136, 0x3FA000, 0x10000, 0x5648F6BD8000, 0x7FFFFFFFE000, 0x55500000FFF8])
SIZES = st.sampled_from([1, 4, 5, 4096, 65536, 1 << 20])


@given(
    PLACES, SIZES, st.integers(-9, 9), st.booleans(), st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 9)
)
@example(0x401136, 4, 0, True, b"\0" * 40, b"\0" * 40, 0)
def test_same_as_looking_at_every_byte(
    start: int, size: int, off: int, at_end: bool, before: bytes, behind: bytes, place: int
) -> None:
    """An address near a bound of the range, at any alignment, among other bytes; a low one at a multiple of 8."""
    ranges = [(start, start + size)]
    data = before + (start + off + (size if at_end else 0)).to_bytes(8, "little") + behind
    words = {at: int.from_bytes(data[at : at + 8], "little") for at in range(len(data) - 7)}
    inside = [
        word
        for at, word in words.items()
        if start <= word < start + size and (word >= 1 << 32 or (place + at) % 8 == 0)
    ]
    for found in _found(ranges, data, place):
        assert sorted(word for _place, word in found) == sorted(inside)


@given(
    PLACES,
    st.lists(st.tuples(st.integers(0, 0x2000), st.integers(1, 0x300)), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 39), st.integers(-9, 9), st.booleans(), st.binary(max_size=20)), min_size=1),
)
@example(0x5648F6BD8000, [(0x50, 0x20)] * 40, [(index, 0, False, b"") for index in range(40)])
def test_several_ranges_near_each_other(
    start: int, parts: list[tuple[int, int]], words: list[tuple[int, int, bool, bytes]]
) -> None:
    """As the functions of a patch lie: few of them in one window of 64 KiB, or many, each at its bounds."""
    ranges, at = [], start
    for gap, size in parts:
        ranges.append((at + gap, at + gap + size))
        at += gap + size
    data = b""
    for index, off, at_end, behind in words:
        first, last = ranges[index % len(ranges)]
        data += (first + off + (last - first if at_end else 0)).to_bytes(8, "little") + behind
    found = {place: int.from_bytes(data[place : place + 8], "little") for place in range(len(data) - 7)}
    inside = {
        place: word
        for place, word in found.items()
        if (word >= 1 << 32 or place % 8 == 0) and any(first <= word < last for first, last in ranges)
    }
    for words_found in _found(ranges, data, 0):
        assert dict(words_found) == inside


def _found(ranges: list[tuple[int, int]], data: bytes, place: int) -> Iterator[list[tuple[int, int]]]:
    """What is found by who was not prepared, by who was, and by who became so when much misled it."""
    simple, prepared, misled = (Addresses(tuple(ranges)) for _index in range(3))
    yield list(simple.among(data, place))
    prepared.prepare()
    yield list(prepared.among(data, place))
    other = next((word for word in range(ranges[0][0] & -65536, 1 << 64) if not misled.hold(word)), 0)
    list(misled.among((other.to_bytes(8, "little") + b"\xff") * 200))
    if other >> 16 == ranges[0][0] >> 16:
        assert misled._is_prepared
    yield list(misled.among(data, place))


@pytest.mark.parametrize("start", [0x401136, 0x55500000FFF8])
def test_a_stack_of_zeros_is_fast(start: int) -> None:
    """Zeros are no slower to search than other bytes, also for a program at low addresses (no PIE).

    Addresses there begin with five zero bytes: searched by these alone, each byte of a stack was looked at by itself,
    which took some 500 times as long.
    """

    def took(data: bytes) -> float:
        spans = []
        for _turn in range(5):
            began = time.perf_counter()
            assert not list(Addresses(((start, start + 4),)).among(data))
            spans.append(time.perf_counter() - began)
        return min(spans)

    assert took(bytes(2 << 20)) < 150 * took(b"\x01" * (2 << 20))
