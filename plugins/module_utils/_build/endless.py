# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions that never return: whoever is in such a loop never enters the new code, and never leaves the old.

A function is taken for one when its machine code in the object has no way out (no return, no jump to another function)
but a way back, or when it ends with a call of such a function. One that prints in a loop and then exits looks the same.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from .._elf.object_file import SHF_EXECINSTR, STT_FUNC
from .choose_contents import Included, PatchContents
from .disassembly import branch_target, instructions, is_padding
from .entry_room import branched_into
from .place_units import ArtifactSymbols
from .request import Refusal

_RETURN = re.compile(r"(?:repz? |bnd )*i?retq?\b")
_INDIRECT_JUMP = re.compile(r"(?:bnd |notrack )*jmpq?\s+\*")
_CALL = re.compile(r"(?:bnd |notrack |data16 |rex\S* )*call")

REASON = "%s never returns (it loops for ever), so threads that are in it stay in its old code"
REMEDY = "Write the fix in a function that it calls and that is not inlined into it, or restart into the new version."


def endless_functions(contents: PatchContents, symbols: ArtifactSymbols, path: str) -> list[Refusal]:
    """A refusal for each replaced function that never returns; `path`: the object with its symbols."""
    code = EndlessCode(symbols, path)
    found = []
    for one in contents.replaced():
        address = one.change.address(one.atom)
        if address is not None and code.is_endless(address, _has_table(one)):
            found.append(Refusal("entry_changed", one.atom.name, one.change.unit.word, REASON % one.atom.name, REMEDY))
    return found


def _has_table(one: Included) -> bool:
    """True when the original jumps by a table, so that its indirect jumps stay inside."""
    old = one.change.original(one.atom)
    return old is not None and one.change.before is not None and bool(branched_into(one.change.before, old.names))


class EndlessCode:
    """Answers for the functions of one linked object, by their addresses."""

    def __init__(self, symbols: ArtifactSymbols, path: str) -> None:
        """`path` is where the object lies, for the disassembler."""
        self.path = path
        linked = symbols.artifact
        self.functions = {
            symbol.value: symbol
            for symbol in linked.symbols()
            if symbol.kind == STT_FUNC
            and symbol.is_defined()
            and symbol.size
            and linked.sections[symbol.section].flags & SHF_EXECINSTR
        }
        self._starts = sorted(self.functions)
        self._known: dict[int, bool] = {}

    def is_endless(self, address: int, has_table: bool = False) -> bool:
        """True when the function at an address never returns and may run on for ever.

        `has_table`: its indirect jumps go by a table and stay inside.
        """
        if address not in self._known:
            # Functions that call each other in a circle: not by that alone.
            self._known[address] = False
            self._known[address] = self._ask(address, has_table)
        return self._known[address]

    def _ask(self, address: int, has_table: bool) -> bool:
        pieces, waiting, goes_back, last_call = [address], [address], False, None
        while waiting:
            piece = waiting.pop()
            if piece not in self.functions:
                return False
            end = piece + self.functions[piece].size
            for place, _length, text in instructions(self.path, piece, end):
                target = branch_target(text)
                if is_padding(text):
                    continue
                last_call = target if _CALL.match(text) and piece == address else None
                if _RETURN.match(text) or (_INDIRECT_JUMP.match(text) and not has_table):
                    return False
                if target is None or _CALL.match(text):
                    continue
                goes_back = goes_back or piece <= target <= place
                inside = [one for one in pieces if one <= target < one + self.functions[one].size]
                cold = self._cold_part(target)
                if not inside and cold is None:
                    return False
                if not inside and cold is not None:
                    pieces.append(cold)
                    waiting.append(cold)
        return goes_back or (last_call is not None and last_call in self.functions and self.is_endless(last_call))

    def _cold_part(self, target: int) -> int | None:
        """Where the cold part starts in which an address lies, None for an address elsewhere."""
        place = bisect_right(self._starts, target) - 1
        if place < 0:
            return None
        symbol = self.functions[self._starts[place]]
        return symbol.value if ".cold" in symbol.name and target < symbol.value + symbol.size else None
