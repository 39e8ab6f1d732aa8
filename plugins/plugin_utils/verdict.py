# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What came of a rollout so far, from the results that the role's tasks registered for each host."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..test.applied import applied

# What each registered result stands for, in the order of the tasks.
_STEPS = (
    ("rollout_take", "take its turn"),
    ("rollout_before", "be healthy before it was worked on"),
    ("rollout_load", "load it"),
    ("rollout_activation", "activate it"),
    ("rollout_verification", "verify it"),
    ("rollout_after", "be healthy after that"),
)


def failed(result: Mapping[str, Any] | None) -> bool:
    """Whether a task failed, or could not be carried out."""
    return bool(result) and bool(result.get("failed") or result.get("unreachable"))


def said(result: Mapping[str, Any]) -> str:
    """Why a task failed, as part of a sentence."""
    return str(result.get("msg") or "it gave no reason").strip().rstrip(".")


def barred(neighbours: Mapping[str, Any], spare: int) -> str:
    """Why a member of a redundancy group must not be worked on now; empty when it may be.

    `neighbours`: results of loops over the other members: `looks` (livepatch_turn), `facts`, `health`. `spare`: how
    many of them may be unwell.
    """
    reasons: dict[str, str] = {}
    for kind, wrong in (("looks", _taken), ("facts", _half_done), ("health", lambda _result: "")):
        for result in neighbours[kind].get("results") or []:
            host = str(result.get("item"))
            if failed(result):
                kind_of = (
                    "is not healthy" if kind == "health" and not result.get("unreachable") else "cannot be looked at"
                )
                reasons.setdefault(host, "%s %s (%s)" % (host, kind_of, said(result)))
            elif wrong(result):
                reasons.setdefault(host, "%s %s" % (host, wrong(result)))
    return "; ".join(reasons.values()) if len(reasons) > spare else ""


def _taken(result: Mapping[str, Any]) -> str:
    holder = result.get("holder")
    if not holder:
        return ""
    whom = "process %s on %s" % (holder.get("pid", "?"), holder.get("controller", "?"))
    if result.get("alive") == "dead":
        return (
            "was left half done by a run that died (%s); finish it first, with the same command and its name in --limit"
            % whom
        )
    return "is being worked on, or was left half done (%s)" % whom


def _half_done(result: Mapping[str, Any]) -> str:
    """In words: a patch is switched over in some processes of a host and only loaded in others, or is not whole."""
    states: dict[str, set[str]] = {}
    for process in (result.get("ansible_facts") or {}).get("livepatch", {}).get("processes", []):
        for patch in process["patches"]:
            states.setdefault(patch["id"], set()).add(patch["state"] if patch["verified"] else "not verified")
    for patch, found in sorted(states.items()):
        if len(found) > 1 or "not verified" in found:
            return "is between states: patch %s is %s there" % (patch, " and ".join(sorted(found)))
    return ""


def failure(host: str, known: Mapping[str, Any], patch: str, predicted: bool) -> str:
    """Why a host failed, as a sentence; empty when it has not failed so far. `predicted`: in check mode."""
    if known.get("rollout_barred"):
        return "%s was not worked on, for the sake of its redundancy group: %s." % (host, known["rollout_barred"])
    for name, purpose in _STEPS:
        result = known.get(name)
        if failed(result):
            return "%s failed to %s: %s." % (host, purpose, said(result))
        proof = (result or {}).get("ansible_facts", {}).get("livepatch")
        if proof and not predicted and not _applied(known, proof, patch):
            return (
                "%s failed to verify it: Patch %s is not active and verified in every process that should have it, for"
                " example because one was started or restarted meanwhile. What is missing: %s."
                % (host, patch, list(proof["missing"]))
            )
    return ""


def _applied(known: Mapping[str, Any], proof: Any, patch: str) -> bool:
    if not known["rollout_load"].get("processes"):
        return True
    narrowed = known.get("rollout_narrowed")
    pids = [process["pid"] for process in known["rollout_activation"]["processes"]] if narrowed else None
    return applied(proof, patch, pids)


def judge(
    before: Mapping[str, Any],
    plan: Mapping[str, Any],
    turn: int,
    hostvars: Mapping[str, Any],
    here: Collection[str],
    most: float = 0,
    on_failure: str = "all",
    predicted: bool = False,
) -> dict[str, Any]:
    """The verdict after a step of turn number `turn`: which hosts failed and why, and whether the rollout stops.

    `before`: the verdict so far. `here`: hosts that are still in the play. `most`: the percentage of a wave's hosts
    that may fail. `on_failure`: hold, wave or all, see the role; `back` of the result: the turns out of whose hosts the
    patch is to be taken, in that order.
    """
    reasons = dict(before["failed"])
    patch, hold = before["patch"], before["hold"]
    lost = [host for part in plan["turns"][: turn + 1] for host in part["hosts"] if host not in here]
    for host in lost:
        reasons.setdefault(host, "%s was lost on the way: it failed, or cannot be reached." % host)
    hosts = plan["turns"][turn]["hosts"] if turn < len(plan["turns"]) else []
    for host in hosts:
        known = hostvars[host]
        loaded = known.get("rollout_load") or {}
        if not patch and (loaded.get("patch") or {}).get("build_id"):
            patch = str(loaded["patch"]["id"])
    for host in hosts:
        if host not in reasons:
            known = hostvars[host]
            reason = failure(host, known, patch, predicted and _would_change(known))
            if reason:
                reasons[host] = reason
                error = (known.get("rollout_take") or {}).get("error") or {}
                hold = hold or error.get("code") == "turn_taken"
    stop = hold or _too_many(reasons, plan, most)
    back = _back(plan, turn, on_failure) if stop and not hold else []
    return {"failed": reasons, "stop": stop, "hold": hold, "back": back, "patch": patch}


def _would_change(known: Mapping[str, Any]) -> bool:
    return any((known.get(name) or {}).get("changed") for name in ("rollout_load", "rollout_activation"))


def _too_many(reasons: Collection[str], plan: Mapping[str, Any], most: float) -> bool:
    sizes: dict[int, list[int]] = {}
    for part in plan["turns"]:
        counts = sizes.setdefault(part["wave"], [0, 0])
        counts[0] += len(part["hosts"])
        counts[1] += sum(host in reasons for host in part["hosts"])
    return any(bad and bad * 100 > most * count for count, bad in sizes.values())


def _back(plan: Mapping[str, Any], turn: int, on_failure: str) -> list[int]:
    numbers = list(range(len(plan["turns"])))
    if on_failure == "wave":
        wave = plan["turns"][min(turn, numbers[-1])]["wave"]
        numbers = [number for number in numbers if plan["turns"][number]["wave"] == wave]
    return numbers[::-1] if on_failure != "hold" else []


def end_states(plan: Mapping[str, Any], verdict: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """How each host was left: its wave, why it failed, its state in a word, each of its processes, and a line on it."""
    states: dict[str, Any] = {}
    for part in plan["turns"]:
        for host in part["hosts"]:
            known = hostvars[host]
            state = {
                "wave": part["wave"],
                "failure": verdict["failed"].get(host, ""),
                **_state(known, str(verdict["patch"])),
            }
            states[host] = dict(state, line="%s: %s%s" % (host, _sentence(state), _blame(state)))
    return states


def _state(known: Mapping[str, Any], patch: str) -> dict[str, Any]:
    looked: Mapping[str, Any] = {}
    for name in ("rollout_activation", "rollout_verification", "rollout_end"):
        result = known.get(name) or {}
        if result.get("ansible_facts") or failed(result):
            looked = result
    if looked.get("unreachable"):
        return {"state": "unknown", "why": "the host cannot be reached", "processes": []}
    facts = (looked.get("ansible_facts") or {}).get("livepatch")
    if facts is None:
        loaded = known.get("rollout_load") or {}
        if failed(looked) or failed(loaded):
            why = said(looked or loaded)
            return {"state": "unknown", "why": why, "processes": _outcomes(looked or loaded)}
        if "processes" in loaded:
            return {
                "state": _word([str(one["state"]) for one in loaded["processes"]]),
                "why": "",
                "processes": _outcomes(loaded),
            }
        return {"state": "not reached", "why": "", "processes": []}
    processes = [_process(process, patch) for process in facts["processes"]]
    # Facts know what the patch is for from the processes that have it; where none has it, none is listed.
    there = (known.get("rollout_load") or {}).get("processes")
    states = [process["state"] for process in processes] or (["absent"] if there else [])
    return {"state": _word(states), "why": known.get("rollout_back_barred") or "", "processes": processes}


def _outcomes(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    kept = ("pid", "start_time", "exe", "state", "verified", "stop_us", "error")
    return [{key: process.get(key) for key in kept} for process in result.get("processes") or []]


def _process(process: Mapping[str, Any], patch: str) -> dict[str, Any]:
    found = next((one for one in process["patches"] if one["id"] == patch), None)
    return {
        "pid": process["pid"],
        "start_time": process["start_time"],
        "exe": process["exe"],
        "state": found["state"] if found else "absent",
        "verified": bool(found and found["verified"]),
        "stop_us": found["stop_us"] if found else 0,
    }


def _word(states: Sequence[str]) -> str:
    return " and ".join(sorted(set(states))) or "no process"


def _sentence(state: Mapping[str, Any]) -> str:
    word = str(state["state"])
    count = len(state["processes"])
    if word == "unknown":
        return "unknown, %s" % state["why"]
    if word == "not reached":
        return "not reached"
    if word in ("absent", "no process"):
        return "the patch is in no process"
    longest = max([process.get("stop_us") or 0 for process in state["processes"]], default=0)
    told = "%s in %d process%s, stopped for %.1f ms at most" % (word, count, "" if count == 1 else "es", longest / 1000)
    return told + (" (left so: %s)" % state["why"] if state["why"] else "")


def _blame(state: Mapping[str, Any]) -> str:
    return ". %s" % state["failure"] if state["failure"] else ""
