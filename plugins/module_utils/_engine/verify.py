# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process says of the patches in it, checked against its own bytes. This, not a record, is what facts are
made of.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .._process.objects import MappedObject
from .._process.process import Process
from .activate import state_of
from .region import HALF, STATE_NAMES, Region
from .sites import NEW, site_states


@dataclass(frozen=True)
class Verified:
    """One patch in one process. `state` is loaded or active; `verified` means that every byte is there now.

    `reasons` says what is not as it should be when `verified` is false.
    """

    region: Region
    state: str
    verified: bool
    reasons: tuple[str, ...]


def verify(process: Process, region: Region, objects: list[MappedObject], regions: list[Region]) -> Verified:
    """Compare a region and the places it changes with what they must be; `regions`: all of the process.

    Raises LivepatchError process_gone.
    """
    reasons = []
    if not any(found.start == region.object_start and found.build_id == region.patch["build_id"] for found in objects):
        reasons.append("its object is not mapped at %#x any more" % region.object_start)
    if region.mutable.state in HALF:
        reasons.append("%s did not end" % STATE_NAMES[region.mutable.state])
    for start, size, digest in region.digests:
        if hashlib.sha256(process.memory.read_some(start, size)).hexdigest() != digest:
            reasons.append("its bytes at %#x have changed" % start)
    state = state_of(process, region, regions)
    if state == "mixed":
        wrong = [
            site.name for site, now in zip(region.sites, site_states(process.memory, region, regions)) if now != NEW
        ]
        reasons.append("not switched over: %s" % ", ".join(wrong))
        state = "loaded"
    return Verified(region, state, not reasons, tuple(reasons))
