# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process says of the patches in it, checked against its own bytes. This, not a record, is what facts are
made of.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from .._process.memory import Memory
from .._process.objects import MappedObject
from .._process.process import Process
from .layers import COVERED, MIXED, ON, UNKNOWN, Layers
from .region import HALF, STATE_NAMES, Region

STORE, CLAIM = "store", "claim"
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Verified:
    """One patch in one process. `state` is loaded or active; `verified` means that every byte is there now.

    `reasons` says what is not as it should be when `verified` is false. `proof`: what that rests on, STORE, the patch
    that this host knows, or CLAIM, what the process says of itself.
    """

    region: Region
    state: str
    verified: bool
    reasons: tuple[str, ...]
    proof: str = CLAIM

    def against(self, doubts: tuple[str, ...]) -> Verified:
        """The same, compared with the patch that this host knows; `doubts`: what came of that (see proof.py)."""
        return replace(self, verified=self.verified and not doubts, reasons=self.reasons + doubts, proof=STORE)


def verify(process: Process, region: Region, layers: Layers, objects: list[MappedObject] | None = None) -> Verified:
    """Compare a region and the places it changes with what they must be; `layers`: those of its process.

    `objects`: all that the process has, to see whether there is a copy of the region's that is not patched.

    A patch that is active and covered by one activated later is active: it is there as soon as that one is out.

    Raises LivepatchError process_gone.
    """
    reasons = [reason for reason in (layers.lacks(region),) if reason]
    for found in objects or []:
        if found.build_id == region.patch["build_id"] and found.start != region.object_start:
            reasons.append("there is another copy of its object, at %#x" % found.start)
            break
    if region.mutable.state in HALF:
        reasons.append("%s did not end" % STATE_NAMES[region.mutable.state])
    for start, size, digest in region.digests:
        if _digest(process.memory, start, size) != digest:
            reasons.append("its bytes at %#x have changed" % start)
    if region.mutable.state in HALF:
        return Verified(region, "loaded", False, tuple(reasons))
    state = layers.state(region)
    marks = [(site, layers.mark(region, site)) for site in region.sites]
    if state == MIXED:
        wrong = [site.name for site, mark in marks if mark not in (ON, COVERED)]
        reasons.append("not switched over: %s" % ", ".join(wrong))
        state = "loaded"
    elif state == "active":
        reasons += ["the value of %s has changed" % site.name for site, mark in marks if mark == UNKNOWN]
    return Verified(region, state, not reasons, tuple(reasons))


def _digest(memory: Memory, start: int, size: int) -> str:
    """SHA-256 of memory, as far as it can be read, a piece at a time: a process may claim to have much of it."""
    made = hashlib.sha256()
    for at in range(start, start + size, _AT_ONCE):
        piece = memory.read_some(at, min(_AT_ONCE, start + size - at))
        made.update(piece)
        if not piece:
            break
    return made.hexdigest()
