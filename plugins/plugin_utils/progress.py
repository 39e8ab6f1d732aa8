# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a task of this collection says in one line, and a turn of a rollout in its heading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_MOST_HOSTS = 8


def heading(turns: Sequence[Mapping[str, Any]], number: int, back: bool) -> str:
    """The heading of a turn (counted from 0) of livepatch_plan; `back`: the patch is taken out in it."""
    turn = turns[number]
    hosts = ", ".join(turn["hosts"][:_MOST_HOSTS])
    more = len(turn["hosts"]) - _MOST_HOSTS
    return "== Wave %d of %d, turn %d of %d%s: %s%s" % (
        turn["wave"],
        turns[-1]["wave"],
        number + 1,
        len(turns),
        ", taking the patch out" if back else "",
        hosts,
        " and %d more" % more if more > 0 else "",
    )


def line(task: str, result: Mapping[str, Any], predicted: bool, bad: str = "") -> str:
    """What became of a host; `task`: load, activate, facts, health or another one; `bad`: a word for how it failed."""
    if bad:
        lines = str(result.get("msg") or "it gave no reason").strip().splitlines()
        states = _states(result.get("processes") or [])
        return "%s: %s%s" % (bad, lines[0], " (%s)" % states if states else "")
    if task == "health":
        latency = result.get("latency_ms")
        return "healthy" + (", the slowest answers took %.1f ms" % latency if latency else "")
    if task == "facts":
        return _facts((result.get("ansible_facts") or {}).get("livepatch") or {})
    processes = result.get("processes") or []
    said = _states(processes) or "no process is meant"
    if predicted and result.get("changed"):
        return "would be " + said
    if not processes:
        return said
    if task == "load":
        held = max(int(one.get("hold_us") or 0) for one in processes)
        told = ", one thread held for %.1f ms at most" % (held / 1000) if held else ""
    else:
        stop = max(int(one.get("stop_us") or 0) for one in processes)
        told = ", stopped for %.1f ms at most" % (stop / 1000) if stop else ", nothing was stopped"
    return said + (told if result.get("changed") else ", as before")


def _states(processes: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(str(one.get("state")) for one in processes)
    return ", ".join(
        "%s in %d process%s" % (state, count, "" if count == 1 else "es") for state, count in sorted(counts.items())
    )


def _facts(facts: Mapping[str, Any]) -> str:
    found = [patch for process in facts.get("processes", []) for patch in process["patches"]]
    if not found:
        return "looked at, no patch is in any process"
    good = sum(bool(patch["state"] == "active" and patch["verified"]) for patch in found)
    return "looked at, %d of %d patches in processes active and verified" % (good, len(found))
