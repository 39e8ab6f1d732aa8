# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The report as data, from what the hosts of a fleet said. Pure: nothing is read, written or asked here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..facts import good_patches
from .affected import Affected, affected
from .done import done
from .looks import Look, objects_of, told
from .standing import GOOD, STATES, standing, worst
from .stops import stops

SCHEMA = 1


def model(looks: Mapping[str, Look], made_at: str, fixed_builds: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """The report; see RETURN of livepatch_report for what is in it.

    `made_at`: the time, as text. `fixed_builds`: by CVE, build-ids of which the user says that it is fixed in them.
    """
    known = affected(looks.values())
    fixed = {cve.upper(): set(builds) for cve, builds in fixed_builds.items()}
    cves = {cve: _cve(looks, known[cve], fixed.get(cve, set())) for cve in sorted(known)}
    hosts = {
        host: dict(_host(look), states={cve: one["hosts"][host] for cve, one in cves.items()})
        for host, look in looks.items()
    }
    drift = [dict(row, host=host) for host, look in looks.items() for row in (look.facts or {}).get("drift", [])]
    obstacles = [row for host, look in looks.items() for row in _obstacles(host, look, known)]
    unsure = sum(not one["known"] or one["unreadable"] > 0 for one in hosts.values())
    return {
        "schema": SCHEMA,
        "made_at": made_at,
        "summary": {
            "hosts": len(hosts),
            "unknown_hosts": sum(not one["known"] for one in hosts.values()),
            "unsure_hosts": unsure,
            "cves": len(cves),
            "proven_cves": sum(all(state in GOOD for state in one["hosts"].values()) for one in cves.values()),
            "drift": len(drift),
            "obstacles": len(obstacles),
        },
        "hosts": hosts,
        "cves": cves,
        "patches": _patches(looks),
        "stops": stops(looks),
        "drift": drift,
        "obstacles": obstacles,
        "done": done(looks),
    }


def _cve(looks: Mapping[str, Look], known: Affected, fixed: Collection[str]) -> dict[str, Any]:
    """How each host stands to a CVE (`hosts`), and each of its processes (`rows`); rows without a process tell why."""
    rows: list[dict[str, Any]] = []
    hosts: dict[str, str] = {}
    for host, look in looks.items():
        mine = list(_rows(look, known, fixed))
        hosts[host] = worst([row["state"] for row in mine])
        rows += [dict(row, host=host) for row in mine]
    rows.sort(key=lambda row: STATES.index(row["state"]))  # stable: hosts stay in their order
    return {
        "patches": sorted({name for names in known.builds.values() for name in names}),
        "builds": sorted(known.builds),
        "paths": sorted(known.paths),
        "hosts": hosts,
        "host_counts": _counted(hosts.values()),
        "process_counts": _counted(row["state"] for row in rows if row["pid"]),
        "rows": rows,
    }


def _rows(look: Look, known: Affected, fixed: Collection[str]) -> Iterator[dict[str, Any]]:
    if look.facts is None:
        yield _row("unknown", look.why)
        return
    for process in look.facts["processes"]:
        found = standing(process, known, fixed)
        if found:
            yield _row(*found, process)
    if look.facts["summary"]["unreadable"]:
        yield _row("unknown", "%d processes could not be looked at" % look.facts["summary"]["unreadable"])
    if not told(look.facts, objects_of({"": known})):
        yield _row("unknown", "it was not asked about all processes that run an affected object")


def _row(state: str, reason: str, process: Mapping[str, Any] | None = None) -> dict[str, Any]:
    about = process or {"pid": 0, "exe": "", "start_time": 0}
    return {
        "state": state,
        "reason": reason,
        "pid": about["pid"],
        "start_time": about.get("start_time", 0),
        "exe": about["exe"],
    }


def _counted(states: Any) -> dict[str, int]:
    counts = Counter(states)
    return {state: counts[state] for state in STATES}


def _host(look: Look) -> dict[str, Any]:
    facts = look.facts or {}
    desired = facts.get("desired", {})
    return {
        "known": look.facts is not None,
        "why": look.why,
        "unreadable": facts.get("summary", {}).get("unreadable", 0),
        "patched": facts.get("summary", {}).get("patched", 0),
        "drift_known": "drift" in facts,
        "log": _log(facts.get("audit")),
        "switched_off": desired.get("switched_off", ""),
        "store_errors": ["%s: %s" % (one["code"], one["message"]) for one in desired.get("errors", [])],
    }


def _log(audit: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the host's log of what was done is worth; `head` is the digest to ask for another time."""
    if audit is None:
        return {"read": False, "exists": False, "intact": False, "why": "", "head": ""}
    why = "; ".join("line %s: %s" % (one["line"], one["why"]) for one in audit["breaks"])
    return {
        "read": True,
        "exists": audit["exists"],
        "intact": audit["intact"],
        "why": why if audit["head_found"] else "; ".join([why, "the line that was asked for is missing"]).lstrip("; "),
        "head": audit["head"],
    }


def _obstacles(host: str, look: Look, known: Mapping[str, Affected]) -> Iterator[dict[str, Any]]:
    """What of a host's processes cannot be patched now, or is not patched by itself, and why."""
    if look.facts is None:
        return
    builds = {build_id for one in known.values() for build_id in one.builds}
    for process in look.facts["processes"]:
        matters = process["patches"] or any(part["build_id"] in builds for part in process["objects"])
        if matters and not process.get("patchable", True):
            for reason in process["reasons"]:
                yield {"host": host, "pid": process["pid"], "exe": process["exe"], "patch": "", "reason": reason}
    for name, entry in look.facts.get("desired", {}).get("patches", {}).items():
        for exe, deaths in entry["held"].items():
            how = ", ".join(str(one["how"]) for one in deaths)
            reason = "held back by the crash-loop guard" + (" (%s)" % how if how else "")
            yield {"host": host, "pid": 0, "exe": exe, "patch": name, "reason": reason}
    switched_off = look.facts.get("desired", {}).get("switched_off", "")
    if switched_off:
        yield {
            "host": host,
            "pid": 0,
            "exe": "",
            "patch": "",
            "reason": "nothing is applied by itself: %s" % switched_off,
        }


def _patches(looks: Mapping[str, Look]) -> list[dict[str, Any]]:
    """Each patch that is in some process, by id, version and build, and in how many it is active and proven."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for look in looks.values():
        for name, patch in (look.facts or {}).get("patches", {}).items():
            entry = found.setdefault(
                (name, patch["version"], patch["build_id"]),
                {
                    "id": name,
                    "version": patch["version"],
                    "description": patch["description"],
                    "cves": patch["cves"],
                    "object": patch["object"],
                    "build_id": patch["build_id"],
                    "hosts": 0,
                    "processes": 0,
                    "active": 0,
                    "proven": 0,
                },
            )
            there = [one for fact in look.facts["processes"] for one in fact["patches"] if one["id"] == name]  # type: ignore[index]
            entry["hosts"] += 1
            entry["processes"] += len(there)
            entry["active"] += sum(one["state"] == "active" for one in there)
            entry["proven"] += sum(name in good_patches(fact) for fact in look.facts["processes"])  # type: ignore[index]
    return [found[key] for key in sorted(found)]
