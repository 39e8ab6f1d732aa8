# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What came of an operation in one process, and in all of them; the state is read from the process itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._errors import LivepatchError
from .._process.maps import Mapping
from .._process.process import Process
from .layers import Layers
from .region import find_region, find_regions
from .verify import CLAIM, verify

ABSENT, LOADED, ACTIVE = "absent", "loaded", "active"


@dataclass
class Outcome:
    """What happened to one process. States are absent, loaded, active; times are microseconds. `proof`: what `verified`
    rests on (see verify.py).

    `start_time` is clock ticks since boot; `hold_us`: the longest that one thread was held for loading.
    """

    pid: int
    start_time: int
    exe: str
    object: str = ""
    build_id: str = ""
    threads: int = 0
    before: str = ABSENT
    state: str = ABSENT
    changed: bool = False
    verified: bool = False
    proof: str = CLAIM
    switch: str = "none"
    stop_us: int = 0
    hold_us: int = 0
    attempts: int = 0
    error: dict[str, str] | None = None


@dataclass(frozen=True)
class Report:
    """The outcomes of one operation, and what was found of the host on the way."""

    outcomes: list[Outcome] = field(default_factory=list)
    unreadable: int = 0

    def summary(self) -> dict[str, int]:
        """Counts over all outcomes, and the longest stop in microseconds."""
        return {
            "targets": len(self.outcomes),
            "changed": sum(outcome.changed for outcome in self.outcomes),
            "failed": sum(outcome.error is not None for outcome in self.outcomes),
            "max_stop_us": max([outcome.stop_us for outcome in self.outcomes], default=0),
        }


def look(process: Process, patch_id: str, outcome: Outcome, mappings: list[Mapping]) -> tuple[str, ...]:
    """Note what the process, with these mappings, says of the patch; what is not as it must be, in words."""
    regions = find_regions(process.memory, mappings)
    region = find_region(regions, patch_id)
    if region is None:
        outcome.state, outcome.verified = ABSENT, True
        return ()
    verified = verify(process, region, Layers(process.memory, mappings, regions))
    outcome.state, outcome.verified = verified.state, verified.verified
    outcome.object, outcome.build_id = region.object_path, str(region.patch["build_id"])
    return verified.reasons


def look_again(process: Process, patch_id: str, outcome: Outcome) -> None:
    """After a failure: what is there now, as far as it can still be seen."""
    try:
        look(process, patch_id, outcome, process.maps())
    except (LivepatchError, OSError):
        outcome.state, outcome.verified = ABSENT, False
