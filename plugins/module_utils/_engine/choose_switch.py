# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Deciding, for each function, between the two ways to switch it over.

byte: one byte makes a jump of what stands at its entry, or behind first instructions that can be undone; the bytes that
stay name the place of a small branch mapped beforehand (a one-byte store is never seen by halves, so nobody has to
stop). jump: a whole five-byte jump, for which every thread must stop. Byte wherever a place it needs is free, jump for
the rest.

The bytes of one site change in one page: a write that spans two is two for the kernel, and a tool that is killed may
die between them. A jump across two pages is made of the bytes in the first; those in the second stay, and name, as they
do for byte, roughly where the branch must lie that it leads to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

from .._errors import LivepatchError
from .._patch.manifest import ReplacedFunction
from .branch import x86_64 as branch
from .branch.first_instructions_x86_64 import branch_sites
from .free_space import FreeSpace
from .image import PAGE, aligned

BYTE, JUMP = "byte", "jump"


@dataclass(frozen=True)
class Switch:
    """How one function is switched: at `site`, from bytes `old` to `new`, which are a whole jump.

    `form` is BYTE or JUMP. For BYTE only one of these bytes differs, for JUMP across two pages only those in the first;
    the others are part of the jump all the same, and it leads to `branch`, instructions at `place` that lead on to the
    new code; else these are empty and 0. All addresses are run-time.
    """

    function: ReplacedFunction
    form: str
    site: int
    old: bytes
    new: bytes
    code: int
    place: int = 0
    branch: bytes = b""


def choose_switches(
    functions: tuple[ReplacedFunction, ...],
    codes: dict[str, int],
    bias: int,
    space: FreeSpace,
    forms: tuple[str, ...],
    holders: dict[int, str] | None = None,
) -> list[Switch]:
    """A switch for every function; `codes` holds the address of each one's new code, by name of its symbol.

    `forms`: the forms that may be used, preferred one first. `holders`: the patches that the process has for functions
    already, by run-time entry: one of them may hold the place that a function's bytes name. Raises LivepatchError
    function_too_short.
    """
    places = Places(space)
    found = []
    for function in functions:
        entry, code = bias + function.offset, codes[function.symbol]
        for switch in candidates(function, functions, entry, code, forms):
            if not switch.branch or places.take(switch.place, len(switch.branch)):
                found.append(switch)
                break
        else:
            raise _too_short(function, entry, (holders or {}).get(entry))
    return found


def candidates(
    function: ReplacedFunction, functions: tuple[ReplacedFunction, ...], entry: int, code: int, forms: tuple[str, ...]
) -> Iterator[Switch]:
    """Every way in which a function may be switched over, preferred ones first, whether the place it needs is free or
    not. `entry`, `code`: run-time addresses of the function and its new code.
    """
    for form in forms:
        yield from _byte(function, functions, entry, code) if form == BYTE else _jump(function, entry, code)


def _too_short(function: ReplacedFunction, entry: int, holder: str | None) -> LivepatchError:
    message = (
        "%s has %d bytes that may be overwritten%s, a jump takes %d, and the places that its own bytes name are taken"
        % (
            function.name,
            function.overwritable,
            " at %#x, across two pages" % entry if entry % PAGE + function.overwritable > PAGE else "",
            branch.JUMP_SIZE,
        )
    )
    if holder is None:
        return LivepatchError("function_too_short", message)
    return LivepatchError(
        "function_too_short",
        "%s: patch %s, which changes it too, is loaded" % (message, holder),
        "Unload patch %s first, and load a patch that replaces it." % holder,
    )


class Places:
    """The places that the bytes of functions name: pages are shared, bytes are not."""

    def __init__(self, space: FreeSpace) -> None:
        self._space = space
        self._bytes: list[tuple[int, int]] = []
        self._pages: set[int] = set()

    def take(self, place: int, size: int) -> bool:
        """Take `size` bytes at `place` if they are free, with the pages they lie on."""
        if any(place < end and start < place + size for start, end in self._bytes):
            return False
        new = [page for page in range(place & -PAGE, aligned(place + size, PAGE), PAGE) if page not in self._pages]
        if not all(self._space.is_free(page, page + PAGE) for page in new):
            return False
        self._pages.update(new)
        self._bytes.append((place, place + size))
        return True


def _is_crowded(function: ReplacedFunction, offset: int, functions: tuple[ReplacedFunction, ...]) -> bool:
    """True when another of the functions starts within a jump at `offset`, whose bytes must stay as they are."""
    start = function.offset + offset
    return any(start < other.offset < start + branch.LONGEST_JUMP for other in functions)


def _byte(
    function: ReplacedFunction, functions: tuple[ReplacedFunction, ...], entry: int, code: int
) -> Iterator[Switch]:
    first = bytes.fromhex(function.entry)
    for offset, undo in branch_sites(first, function.arguments):
        # Behind the entry, only where every way in comes from the entry: a loop back to the site is no call.
        behind = offset and offset >= min(function.overwritable, function.size)
        if behind or _is_crowded(function, offset, functions):
            continue
        site, rest = entry + offset, first[offset:]
        for new, displacement in branch.one_byte_jumps(rest):
            place = site + len(new) + displacement
            way = undo + branch.branch(place + len(undo), code)
            yield Switch(function, BYTE, site, rest[: len(new)], new, code, place, way)


def _jump(function: ReplacedFunction, entry: int, code: int) -> Iterator[Switch]:
    old = bytes.fromhex(function.entry)
    room = min(len(old), function.overwritable)
    skip = len(branch.ENDBR64) if old.startswith(branch.ENDBR64) and room >= 9 else 0
    site, rest = entry + skip, old[skip : skip + branch.JUMP_SIZE]
    if room < skip + branch.JUMP_SIZE:
        return
    on_first_page = PAGE - site % PAGE
    if on_first_page >= branch.JUMP_SIZE:
        if branch.reaches(site, code):
            yield Switch(function, JUMP, site, rest, branch.jump(site, code), code)
        return
    for new, displacement in branch.jumps_by_first_bytes(rest, on_first_page):
        place = site + branch.JUMP_SIZE + displacement
        yield Switch(function, JUMP, site, rest, new, code, place, branch.branch(place, code))


def place_runs(switches: list[Switch]) -> list[tuple[int, bytes]]:
    """The branches that switches lead to as page runs: (address, content), whole pages, in address order.

    What is not a branch is int3, so that a stray jump there is noticed.
    """
    content: dict[int, bytearray] = {}
    for switch in switches:
        for index, byte in enumerate(switch.branch):
            page = switch.place + index & -PAGE
            content.setdefault(page, bytearray(b"\xcc" * PAGE))[switch.place + index - page] = byte
    runs: list[tuple[int, bytearray]] = []
    for page in sorted(content):
        if runs and runs[-1][0] + len(runs[-1][1]) == page:
            runs[-1][1].extend(content[page])
        else:
            runs.append((page, content[page]))
    return [(page, bytes(run)) for page, run in runs]
