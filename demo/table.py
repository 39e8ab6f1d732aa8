# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables that the demonstration prints: what the processes have in them, and what the clients saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .traffic import Sum


@dataclass(frozen=True)
class HostResult:
    """What is known of one host: its facts, and what its tasks returned (`processes` of each)."""

    facts: dict[str, Any]
    load: list[dict[str, Any]]
    activate: list[dict[str, Any]]
    deactivate: list[dict[str, Any]]


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[list[str]]:
    """The rows under their header, in cells of equal width; text is to the left in the first LEFT columns."""
    widths = [max(len(row[number]) for row in [header, *rows]) for number in range(len(header))]

    def fill(row: Sequence[str]) -> list[str]:
        return [cell.ljust(widths[n]) if n < left else cell.rjust(widths[n]) for n, cell in enumerate(row)]

    return [fill(header), ["-" * width for width in widths], *(fill(row) for row in rows)]


def processes(results: dict[str, HostResult], patch: str) -> list[list[str]]:
    """One row for each process that has the patch, from the facts; `held` is from the task that loaded it."""
    header = ("host", "process", "patch", "state", "verified", "switch", "threads", "stop us", "held us")
    rows = []
    for host, result in results.items():
        held = {one["pid"]: one["hold_us"] for one in result.load}
        for process in result.facts["processes"]:
            for has in process["patches"]:
                if has["id"] == patch:
                    rows.append(
                        (
                            host,
                            f"{process['exe'].rpartition('/')[2]} ({process['pid']})",
                            f"{has['id']} {has['version']}",
                            has["state"],
                            "yes" if has["verified"] else "NO",
                            has["switch"],
                            str(process["threads"]),
                            str(has["stop_us"]),
                            str(held.get(process["pid"], "?")),
                        )
                    )
    return aligned(header, rows, left=6)


def clients(phases: dict[str, dict[str, Sum]]) -> list[list[str]]:
    """What the clients of each host saw in each phase; PHASES maps a phase's name to the hosts' sums."""
    header = ("host", "while", "open", "lost", "wrong", "answers", "p50 ms", "p99 ms", "worst ms", "silence ms")
    rows = []
    for host in next(iter(phases.values())):
        for number, (phase, sums) in enumerate(phases.items()):
            seen = sums[host]
            rows.append(
                (
                    "" if number else host,
                    phase,
                    str(seen.open),
                    str(seen.lost),
                    str(seen.wrong),
                    str(seen.answers),
                    f"{seen.percentile(0.5):.2f}",
                    f"{seen.percentile(0.99):.2f}",
                    f"{seen.percentile(1.0):.1f}",
                    f"{seen.silence:.1f}",
                )
            )
    return aligned(header, rows, left=2)
