# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on a rollout: who failed and why, whether it goes on, out of which hosts the patch is taken."""

from __future__ import annotations

from typing import Any

import pytest
from host_facts import facts, patch_in_process, process

from ansible_collections.cgl.livepatch.plugins.plugin_utils.verdict import barred, end_states, judge

PLAN = {
    "turns": [
        {"wave": 1, "hosts": ["a"]},
        {"wave": 2, "hosts": ["b", "c"]},
        {"wave": 2, "hosts": ["d"]},
        {"wave": 3, "hosts": ["e"]},
    ]
}
NOTHING: dict[str, Any] = {"failed": {}, "stop": False, "hold": False, "patch": ""}
BOUND = {"fix": ("aa", ["CVE-2026-1"])}


def _loaded() -> dict[str, Any]:
    outcome = {"pid": 1, "start_time": 5, "exe": "/x", "state": "loaded", "verified": True, "stop_us": 0, "error": None}
    return {"patch": {"id": "fix", "build_id": "aa"}, "processes": [outcome]}


def _active(*patches: dict[str, Any]) -> dict[str, Any]:
    found = [dict(process(1, ["aa"], [dict(one, stop_us=1500) for one in patches]), start_time=5)]
    return {"processes": [{"pid": 1}], "ansible_facts": {"livepatch": facts(BOUND, found)}}


GOOD = {"rollout_load": _loaded(), "rollout_activation": _active(patch_in_process("fix"))}
BAD: dict[str, Any] = {"rollout_load": dict(_loaded(), failed=True, msg="no.")}


def _judge(turn: int, hosts: dict[str, Any], **options: Any) -> dict[str, Any]:
    everybody = {**{host: {} for host in "abcde"}, **hosts}
    return judge(NOTHING, PLAN, turn, everybody, options.pop("here", list("abcde")), **options)


def test_good_hosts_go_on_and_the_id_of_the_patch_is_known() -> None:
    assert _judge(0, {"a": GOOD}) == {"failed": {}, "stop": False, "hold": False, "back": [], "patch": "fix"}


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (BAD, "b failed to load it: no."),
        ({"rollout_take": {"unreachable": True, "msg": "gone"}}, "b failed to take its turn: gone."),
        ({"rollout_before": {"failed": True}}, "b failed to be healthy before it was worked on: it gave no reason."),
        ({**GOOD, "rollout_after": {"failed": True, "msg": "ill"}}, "b failed to be healthy after that: ill."),
        ({**GOOD, "rollout_verification": {"failed": True, "msg": "x"}}, "b failed to verify it: x."),
        ({"rollout_barred": "c is ill"}, "b was not worked on, for the sake of its redundancy group: c is ill."),
    ],
)
def test_each_way_to_fail_has_a_sentence(known: dict[str, Any], reason: str) -> None:
    assert _judge(1, {"b": known, "c": GOOD})["failed"] == {"b": reason}


@pytest.mark.parametrize("found", [[], [patch_in_process("fix", "loaded")], [patch_in_process("fix", verified=False)]])
def test_what_the_processes_say_decides(found: list[dict[str, Any]]) -> None:
    known = {"rollout_load": _loaded(), "rollout_activation": _active(*found)}
    assert "failed to verify it" in _judge(1, {"b": known, "c": GOOD})["failed"]["b"]
    known = {**GOOD, "rollout_verification": _active(*found)}
    assert "failed to verify it" in _judge(1, {"b": known, "c": GOOD})["failed"]["b"]
    assert _judge(1, {"b": {**known, "rollout_load": dict(_loaded(), changed=True)}}, predicted=True)["failed"] == {}


def test_a_host_that_left_the_play_has_failed() -> None:
    assert "lost on the way" in _judge(2, {"d": GOOD}, here=list("acde"))["failed"]["b"]
    assert _judge(0, {"a": GOOD}, here=list("acde"))["failed"] == {}  # its turn has not come


@pytest.mark.parametrize(("on_failure", "back"), [("all", [3, 2, 1, 0]), ("wave", [2, 1]), ("hold", [])])
def test_what_is_taken_out_and_in_which_order(on_failure: str, back: list[int]) -> None:
    verdict = _judge(1, {"b": BAD, "c": GOOD}, on_failure=on_failure)
    assert (verdict["stop"], verdict["back"]) == (True, back)


def test_another_run_at_work_holds_the_rollout_whatever_was_asked_for() -> None:
    taken = {"rollout_take": {"failed": True, "msg": "busy", "error": {"code": "turn_taken"}}}
    verdict = _judge(1, {"b": taken, "c": GOOD}, most=100)
    assert (verdict["stop"], verdict["hold"], verdict["back"]) == (True, True, [])


@pytest.mark.parametrize(("most", "stop"), [(0, True), (33, True), (34, False), (100, False)])
def test_the_percentage_is_of_the_wave(most: float, stop: bool) -> None:
    assert _judge(1, {"b": BAD, "c": GOOD}, most=most)["stop"] is stop  # one of three


def _looks(**about: Any) -> dict[str, Any]:
    results = {"looks": {"item": "n", "holder": {}}, "facts": {"item": "n"}, "health": {"item": "n"}}
    for kind, result in about.items():
        results[kind] = {"item": "n", **result}
    return {kind: {"results": [result]} for kind, result in results.items()}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (_looks(), ""),
        (_looks(looks={"holder": {"pid": 7, "controller": "k"}}), "is being worked on"),
        (_looks(looks={"holder": {"pid": 7, "controller": "k"}, "alive": "dead"}), "left half done by a run that died"),
        (_looks(looks={"unreachable": True, "msg": "no route"}), "cannot be looked at (no route)"),
        (_looks(health={"failed": True, "msg": "status 503"}), "is not healthy (status 503)"),
        (
            _looks(
                facts={
                    "ansible_facts": {
                        "livepatch": facts(
                            BOUND,
                            [
                                process(1, ["aa"], [patch_in_process("fix")]),
                                process(2, ["aa"], [patch_in_process("fix", "loaded")]),
                            ],
                        )
                    }
                }
            ),
            "is between states: patch fix is active and loaded there",
        ),
        (
            _looks(
                facts={
                    "ansible_facts": {
                        "livepatch": facts(
                            BOUND,
                            [
                                process(1, ["aa"], [patch_in_process("fix", verified=False)]),
                            ],
                        )
                    }
                }
            ),
            "is not verified there",
        ),
        (
            _looks(
                facts={
                    "ansible_facts": {
                        "livepatch": facts(
                            BOUND,
                            [
                                process(1, ["aa"], [patch_in_process("fix")]),
                                process(2, ["aa"], []),
                            ],
                        )
                    }
                }
            ),
            "",
        ),
    ],
)
def test_what_makes_a_neighbour_unwell(found: dict[str, Any], reason: str) -> None:
    assert reason in barred(found, 0)
    assert bool(barred(found, 0)) is bool(reason)
    assert barred(found, 1) == ""


def test_more_than_may_be_worked_on_are_not() -> None:
    assert "n is being worked on" in barred(_looks(looks={"holder": {"pid": 1}}), 0)
    assert barred({"looks": {}, "facts": {}, "health": {"skipped": True}}, 0) == ""


def test_the_end_state_is_what_the_processes_said_last() -> None:
    hostvars = {
        "a": GOOD,
        "b": {**GOOD, "rollout_end": {"ansible_facts": {"livepatch": facts({}, [])}}},
        "c": {**GOOD, "rollout_end": {"unreachable": True}},
        "d": {"rollout_load": _loaded()},
        "e": {},
    }
    states = end_states(PLAN, {"failed": {"b": "b failed."}, "patch": "fix"}, hostvars)
    assert {host: state["state"] for host, state in states.items()} == {
        "a": "active",
        "b": "absent",
        "c": "unknown",
        "d": "loaded",
        "e": "not reached",
    }
    assert states["a"]["processes"] == [
        {"pid": 1, "start_time": 5, "exe": "/usr/bin/p", "state": "active", "verified": True, "stop_us": 1500}
    ]
    assert states["a"]["line"] == "a: active in 1 process, stopped for 1.5 ms at most"
    assert states["b"]["line"] == "b: the patch is in no process. b failed."
