# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Each claim of the demonstration can be false, and is when it has to be."""

from __future__ import annotations

from typing import Any

import pytest

from demo import answers, claims
from demo.table import HostResult, aligned
from demo.traffic import Sum


def seen(**given: Any) -> Sum:
    """What the clients of a host saw; by default 4 connections and 10 old answers."""
    counts = {"open": 4, "old": 10, "new": 0, "wrong": 0, "lost": 0}
    return Sum(**{**counts, "times": (0.1, 0.2, 0.9), "silence": 3.0, "last": "", **given})


def facts(state: str = "active", verified: bool = True, missing: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Facts of a host with one process that has patch p."""
    process = {"patches": [{"id": "p", "state": state, "verified": verified}]}
    return {"processes": [process], "patches": {"p": {}}, "missing": list(missing)}


def result(stop_us: int = 500, pid: int = 7, end_pid: int = 7, **given: Any) -> HostResult:
    """What is known of a host after the rollback."""
    first = {"pid": pid, "start_time": 1, "stop_us": 0}
    last = {"pid": end_pid, "start_time": 1, "stop_us": stop_us}
    return HostResult(facts(**given), load=[first], activate=[first], deactivate=[last])


def reports(*rows: tuple[str, str]) -> list[dict[str, Any]]:
    """Reports of the clients of hosts a and b, with the kinds of answers each heard, by first letters."""
    return [
        {
            "at": 1.0 + number,
            "hosts": {host: {"old": "o" in kinds, "new": "n" in kinds} for host, kinds in zip(("a", "b"), row)},
        }
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("sums", "holds"),
    [
        ({"a": seen(), "b": seen()}, [True, True]),
        ({"a": seen(lost=1, open=3), "b": seen()}, [False, True]),
        ({"a": seen(open=3), "b": seen()}, [False, True]),
        ({"a": seen(wrong=1), "b": seen()}, [True, False]),
        ({"a": seen(old=0), "b": seen(old=0)}, [True, False]),
    ],
)
def test_clients(sums: dict[str, Sum], holds: list[bool]) -> None:
    assert [claim.holds for claim in claims.of_clients({"end": sums}, 4)] == holds


def test_settled() -> None:
    assert claims.of_settled("", "old", {"a": seen()}).holds
    assert not claims.of_settled("", "new", {"a": seen()}).holds
    assert not claims.of_settled("", "old", {"a": seen(), "b": seen(new=1)}).holds
    assert not claims.of_settled("", "old", {"a": seen(old=0)}).holds


@pytest.mark.parametrize(
    ("rows", "holds"),
    [
        ([("o", "o"), ("on", "o"), ("n", "o"), ("n", "n")], True),
        ([("o", "o"), ("o", "n"), ("n", "n")], False),
        ([("o", "o"), ("n", "n")], False),
        ([("o", "o"), ("n", "o"), ("o", "o"), ("n", "n")], False),
        ([("o", "o"), ("n", "o")], False),
    ],
    ids=["in order", "wrong order", "both at once", "back again", "never"],
)
def test_order(rows: list[tuple[str, str]], holds: bool) -> None:
    assert claims.of_order(reports(*rows), ["a", "b"]).holds is holds


def test_facts() -> None:
    assert claims.of_facts({"a": result()}, "p").holds
    assert not claims.of_facts({"a": result()}, "q").holds
    assert not claims.of_facts({"a": result(), "b": result(verified=False)}, "p").holds
    assert not claims.of_facts({"a": result(state="loaded")}, "p").holds
    assert not claims.of_facts({"a": result(missing=({"pid": 8},))}, "p").holds


def test_stops() -> None:
    assert claims.of_stops({"a": result()}).holds
    assert not claims.of_stops({"a": result(stop_us=100_001)}).holds
    assert not claims.of_stops({"a": result(end_pid=8)}).holds


def test_emptiness() -> None:
    empty: dict[str, Any] = {"processes": [{"patches": []}], "patches": {}}
    assert claims.of_emptiness({"a": empty}, ["a"]).holds
    assert not claims.of_emptiness({"a": facts()}, ["a"]).holds
    assert not claims.of_emptiness({"a": empty}, ["a", "b"]).holds


def test_an_answer_is_old_new_or_wrong() -> None:
    assert answers.kind("ada", answers.OLD["ada"]) == "old"
    assert answers.kind("ada", answers.NEW["ada"]) == "new"
    assert answers.kind("ada", answers.OLD["grace"]) == "wrong"


def test_percentiles() -> None:
    assert [seen().percentile(share) for share in (0.5, 0.99, 1.0)] == [0.2, 0.9, 0.9]


def test_a_table_is_aligned() -> None:
    rows = aligned(("host", "us"), [("a", "5"), ("node10", "1234")], left=1)
    assert rows == [["host  ", "  us"], ["------", "----"], ["a     ", "   5"], ["node10", "1234"]]
