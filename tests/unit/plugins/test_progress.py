# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the callback cgl.livepatch.progress prints for a host, and for a turn."""

from __future__ import annotations

from typing import Any

import pytest
from host_facts import facts, patch_in_process, process

from ansible_collections.cgl.livepatch.plugins.plugin_utils.progress import heading, line

TURNS = [
    {"wave": 1, "hosts": ["a"]},
    {"wave": 2, "hosts": ["h%d" % number for number in range(10)]},
    {"wave": 3, "hosts": ["z"]},
]


def _result(state: str, changed: bool = True, **about: Any) -> dict[str, Any]:
    return {"changed": changed, "processes": [{"state": state, "hold_us": 0, "stop_us": 0, **about}]}


def test_a_turn_has_a_heading() -> None:
    assert heading(TURNS, 0, back=False) == "== Wave 1 of 3, turn 1 of 3: a"
    assert heading(TURNS, 1, back=True) == (
        "== Wave 2 of 3, turn 2 of 3, taking the patch out: h0, h1, h2, h3, h4, h5, h6, h7 and 2 more"
    )


@pytest.mark.parametrize(
    ("task", "result", "said"),
    [
        ("load", _result("loaded", hold_us=840), "loaded in 1 process, one thread held for 0.8 ms at most"),
        ("load", _result("loaded", changed=False), "loaded in 1 process, as before"),
        ("load", {"changed": False, "processes": []}, "no process is meant"),
        ("activate", _result("active", stop_us=1500), "active in 1 process, stopped for 1.5 ms at most"),
        ("activate", _result("active"), "active in 1 process, nothing was stopped"),
        (
            "activate",
            {"changed": True, "processes": [*_result("active")["processes"] * 2, *_result("loaded")["processes"]]},
            "active in 2 processes, loaded in 1 process, nothing was stopped",
        ),
        ("health", {"latency_ms": 2.5}, "healthy, the slowest answers took 2.5 ms"),
        ("health", {"latency_ms": None}, "healthy"),
        ("facts", {"ansible_facts": {"livepatch": facts({}, [])}}, "looked at, no patch is in any process"),
        (
            "facts",
            {
                "ansible_facts": {
                    "livepatch": facts(
                        {},
                        [
                            process(1, ["aa"], [patch_in_process("fix")]),
                            process(2, ["aa"], [patch_in_process("fix", verified=False)]),
                        ],
                    )
                }
            },
            "looked at, 1 of 2 patches in processes active and verified",
        ),
    ],
)
def test_a_host_has_a_line(task: str, result: dict[str, Any], said: str) -> None:
    assert line(task, result, False) == said


def test_a_prediction_is_told_as_one() -> None:
    assert line("load", _result("loaded"), True) == "would be loaded in 1 process"
    assert line("load", _result("loaded", changed=False), True) == "loaded in 1 process, as before"


def test_a_failure_has_its_first_line_and_how_processes_were_left() -> None:
    failed = dict(_result("loaded"), msg="1 of 1 processes failed. pid 7: busy\nmore")
    assert line("activate", failed, False, "FAILED") == (
        "FAILED: 1 of 1 processes failed. pid 7: busy (loaded in 1 process)"
    )
    assert line("plan", {}, False, "UNREACHABLE") == "UNREACHABLE: it gave no reason"
