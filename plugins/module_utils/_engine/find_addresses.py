# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding, among bytes of a program, the words that are addresses in some ranges: at memory speed.

Searched by the common upper bytes of the addresses: six of them, for the upper five of a program without PIE are all
zero, and memory is full of zeros. The regular expressions of Python look for a literal at 1 to 3 GB/s, also among
zeros or pointers, where bytes.find falls to a tenth of that.
"""

from __future__ import annotations

import bisect
import functools
import re
from typing import Iterable, Iterator

# Windows of 64 KiB with the same upper five bytes are searched for one by one up to this many, then all at once, which
# is slower than one and faster than ten.
_MOST_LITERALS = 12
# So many ranges in such a window are told apart by the expression, more only after it.
_MOST_PLACES = 16
# After so many words that have the upper six bytes only, the lower two are looked at by the expression, too: to compile
# it then takes six times as long, which a process with little memory is not worth.
_MOST_MISLED = 100


class Addresses:
    """Ranges [start, end) of addresses, ready to be looked for."""

    def __init__(self, ranges: tuple[tuple[int, int], ...]) -> None:
        merged: list[list[int]] = []
        for start, end in sorted(part for part in ranges if part[0] < part[1]):
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        self._starts = [start for start, _end in merged]
        self._ends = [end for _start, end in merged]
        self._patterns: list[re.Pattern[bytes]] = []
        self._misled = 0
        self._is_prepared = False

    def __bool__(self) -> bool:
        return bool(self._starts)

    def prepare(self) -> None:
        """Do what the first search would do before it begins, and what others may do later, for much memory: 60 us for
        each 64 KiB in which addresses lie.
        """
        self._patterns, self._is_prepared = _patterns(zip(self._starts, self._ends), True), True

    def hold(self, address: int) -> bool:
        """True when an address lies in one of the ranges."""
        index = bisect.bisect_right(self._starts, address) - 1
        return index >= 0 and address < self._ends[index]

    def outside(self, areas: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The parts of these areas [start, end) that lie in none of the ranges, in order."""
        left = []
        for start, end in areas:
            at = start
            index = bisect.bisect_right(self._ends, start)
            while index < len(self._starts) and self._starts[index] < end:
                if at < self._starts[index]:
                    left.append((at, self._starts[index]))
                at = self._ends[index]
                index += 1
            if at < end:
                left.append((at, end))
        return left

    def among(self, data: bytes, place: int = 0) -> Iterator[tuple[int, int]]:
        """(place, word) of the little-endian 8-byte words in `data`, which was read at `place`, that are addresses.

        At any alignment, but an address below 4 GiB (a program without PIE) only where a call would have put it, at a
        multiple of 8 (System V ABI AMD64, 3.2.2): the end of a floating-point number before a zero was taken for one.
        """
        for at, word in self._words(data, len(data)):
            if word >> 32 or (place + at) % 8 == 0:
                yield place + at, word

    def may_be_among(self, data: bytes | bytearray, end: int) -> bool:
        """True when any word among the first `end` of these bytes, at any alignment, is one of the addresses."""
        return any(True for _found in self._words(data, end))

    def _words(self, data: bytes | bytearray, end: int) -> Iterator[tuple[int, int]]:
        """(offset, word) of the words among the first `end` of these bytes, at any alignment, that are addresses."""
        if not self._patterns:
            self._patterns = _patterns(zip(self._starts, self._ends), False)
        for pattern in self._patterns:
            found = pattern.search(data, 2, end)
            while found:
                at = found.start() - 2
                word = int.from_bytes(data[at : at + 8], "little")
                if self.hold(word):
                    yield at, word
                else:
                    self._misled += 1
                found = pattern.search(data, at + 3, end)
        if self._misled > _MOST_MISLED and not self._is_prepared:
            self.prepare()


@functools.lru_cache(maxsize=16)
def addresses(ranges: tuple[tuple[int, int], ...]) -> Addresses:
    """The same Addresses for the same ranges, prepared: making them costs more than one search."""
    made = Addresses(ranges)
    made.prepare()
    return made


def _patterns(ranges: Iterable[tuple[int, int]], look_back: bool) -> list[re.Pattern[bytes]]:
    """What finds bytes 2 to 7 of the words in these ranges, and mostly may `look_back` at the two before, too."""
    windows: dict[int, dict[int, list[tuple[int, int]]]] = {}  # bytes 3 to 7 -> byte 2 -> first and last of the rest
    for start, end in ranges:
        for window in range(start >> 16, (end - 1 >> 16) + 1):
            first, last = max(start, window << 16), min(end - 1, window << 16 | 0xFFFF)
            windows.setdefault(window >> 8, {}).setdefault(window & 0xFF, []).append((first & 0xFFFF, last & 0xFFFF))
    found = []
    for upper, lowest in windows.items():
        tail = re.escape(upper.to_bytes(5, "little"))
        if len(lowest) > _MOST_LITERALS:
            found.append(b"[" + b"".join(re.escape(bytes([byte])) for byte in sorted(lowest)) + b"]" + tail)
        else:
            for byte, places in sorted(lowest.items()):
                found.append(re.escape(bytes([byte])) + tail + (_before(places) if look_back else b""))
    return [re.compile(source, re.DOTALL) for source in found]


def _before(places: list[tuple[int, int]]) -> bytes:
    """What looks back, from the end of a word, at its lowest two bytes: they lie in one of these places.

    The return addresses of a whole program may have the same six upper bytes: with 1000 stacks of 20 calls, what looked
    at each of them in Python took half of a stop.
    """
    if len(places) > _MOST_PLACES:
        places = [(places[0][0], places[-1][1])]
    ways = []
    for first, last in places:
        low, high = first >> 8, last >> 8
        if low == high:
            ways.append(_one_of(first & 0xFF, last & 0xFF) + _one_of(low, low))
        else:
            ways += [_one_of(first & 0xFF, 0xFF) + _one_of(low, low), _one_of(0, last & 0xFF) + _one_of(high, high)]
        if high - low > 1:
            ways.append(b"." + _one_of(low + 1, high - 1))
    return b"(?<=(?:" + b"|".join(ways) + b").{6})"


def _one_of(first: int, last: int) -> bytes:
    return b"[" + re.escape(bytes([first])) + b"-" + re.escape(bytes([last])) + b"]"
