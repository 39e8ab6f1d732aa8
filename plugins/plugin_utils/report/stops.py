# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long processes stood still when they were switched over: what their regions say, counted for a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .looks import Look

# Milliseconds up to which a bar counts; 100 is the longest stop by default.
_EDGES = (0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0)
_MOST_LONGEST = 10


def stops(looks: Mapping[str, Look]) -> dict[str, Any]:
    """The stop of each activation that holds now: `bars` ({label, count}), the `longest`, the longest of each host."""
    found = [
        {
            "host": host,
            "pid": process["pid"],
            "exe": process["exe"],
            "patch": patch["id"],
            "threads": process["threads"],
            "stop_us": patch["stop_us"],
        }
        for host, look in looks.items()
        for process in (look.facts or {}).get("processes", [])
        for patch in process["patches"]
        if patch["state"] == "active"
    ]
    counts = [0] * (len(_EDGES) + 2)
    for one in found:
        counts[_bar(one["stop_us"] / 1000)] += 1
    most: dict[str, int] = {}
    for one in found:
        most[one["host"]] = max(one["stop_us"], most.get(one["host"], 0))
    longest = sorted((one for one in found if one["stop_us"]), key=lambda one: -one["stop_us"])
    return {
        "activations": len(found),
        "max_us": max([one["stop_us"] for one in found], default=0),
        "max_us_of_host": most,
        "bars": [{"label": label, "count": count} for label, count in zip(_labels(), counts)],
        "longest": longest[:_MOST_LONGEST],
    }


def _bar(milliseconds: float) -> int:
    if milliseconds <= 0:
        return 0
    return 1 + sum(milliseconds > edge for edge in _EDGES)


def _labels() -> list[str]:
    first = ["no stop", "up to %g ms" % _EDGES[0]]
    between = ["%g to %g ms" % pair for pair in zip(_EDGES, _EDGES[1:])]
    return [*first, *between, "over %g ms" % _EDGES[-1]]
