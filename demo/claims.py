# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demonstration claims, each checked against what the clients saw and what the processes say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .table import HostResult
from .traffic import Sum

BUDGET_US = 100_000  # the longest stop that livepatch_activate allows by default


@dataclass(frozen=True)
class Claim:
    """A sentence, and whether it is true."""

    text: str
    holds: bool


def of_clients(phases: dict[str, dict[str, Sum]], connections: int) -> list[Claim]:
    """No connection lost, no wrong answer, in any phase; `connections` to each host."""
    sums = [seen for phase in phases.values() for seen in phase.values()]
    last = list(phases.values())[-1]
    lost = sum(seen.lost for seen in sums)
    still = sum(seen.open for seen in last.values())
    wrong = sum(seen.wrong for seen in sums)
    answers = sum(seen.answers for seen in sums)
    return [
        Claim(
            f"{still} of {connections * len(last)} connections open from first to last, {lost} lost",
            still == connections * len(last) and not lost,
        ),
        Claim(f"{answers} answers, {wrong} wrong", answers > 0 and not wrong),
    ]


def of_settled(when: str, wanted: str, seen: dict[str, Sum]) -> Claim:
    """While nothing changes, every host gives answers of the WANTED kind ("old" or "new") only."""
    good = all(0 < getattr(one, wanted) == one.answers for one in seen.values())
    return Claim(f"{when}, every host gave {wanted} answers only", good)


def of_order(reports: list[dict[str, Any]], hosts: list[str]) -> Claim:
    """Over the REPORTS of a rollout: each host went from old to new once, and all of it after the host before."""
    good = True
    before = 0.0
    for host in hosts:
        old = [report["at"] for report in reports if report["hosts"][host]["old"]]
        new = [report["at"] for report in reports if report["hosts"][host]["new"]]
        # One report may hold both: answers on their way while the byte was written.
        if not old or not new or max(old) > min(new) or min(new) <= before:
            good = False
            break
        before = min(new)
    return Claim("one host after the other went from old answers to new ones, none went back", good)


def of_facts(results: dict[str, HostResult], patch: str) -> Claim:
    """On every host one process has the patch, active and verified, and nothing is missing."""
    good = True
    for result in results.values():
        facts = result.facts
        has = [one for process in facts["processes"] for one in process["patches"] if one["id"] == patch]
        good = good and len(has) == 1 and has[0]["state"] == "active" and has[0]["verified"] and not facts["missing"]
    return Claim(f"{patch} was active and verified in every server, read from its memory", good)


def of_stops(results: dict[str, HostResult]) -> Claim:
    """No stop went over the budget, switching on or off; the processes stayed the same ones."""
    worst = max(one["stop_us"] for result in results.values() for one in [*result.activate, *result.deactivate])
    same = all(
        {(one["pid"], one["start_time"]) for one in result.load}
        == {(one["pid"], one["start_time"]) for one in result.deactivate}
        for result in results.values()
    )
    return Claim(f"the same processes all the time, stopped for {worst} us at most", same and worst <= BUDGET_US)


def of_emptiness(facts: dict[str, dict[str, Any]], hosts: list[str]) -> Claim:
    """No process of any host has a patch."""
    good = set(facts) == set(hosts) and not any(
        process["patches"] for one in facts.values() for process in one["processes"]
    )
    return Claim("afterwards no process had a patch in it", good and not any(one["patches"] for one in facts.values()))
