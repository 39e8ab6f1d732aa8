# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Drift: where memory, disk and what is desired are not the same, from the facts of the processes and the store."""

from __future__ import annotations

import os
from typing import Any, Iterator

from .._elf.build_id import file_build_id
from .._elf.header import NotElf
from .._errors import LivepatchError
from .._process.process import Process
from .desired import selection_of
from .status import status
from .store import Store

#: desired and not there; there and not desired; there and not active; bytes changed by something else; the program on
#: disk is another build than the one that runs; the program that runs is on no disk any more.
KINDS = ("missing", "not_desired", "not_active", "modified", "disk_newer", "deleted")


def add_drift(facts: dict[str, Any], store: Store, wanted: list[str]) -> None:
    """Add to the facts of all processes what is desired: `desired`, `drift`, and to `missing` and `summary`.

    `facts`: as gather(wanted, "all") returns them; `wanted`: ids of the patches to speak of, all when empty.
    """
    desired = status(store)
    if wanted:
        desired["patches"] = {name: entry for name, entry in desired["patches"].items() if name in wanted}
    for entry in desired["patches"].values():
        entry.update(_builds(facts["processes"], entry))
        entry["selected"] = [pid for pid in entry["vulnerable_build"] if _selects(entry["processes"], pid)]
    rows = list(_rows(facts["processes"], desired["patches"]))
    missing = [
        {"patch": row["patch"], "pid": row["pid"], "exe": row["exe"], "state": row["state"]}
        for row in rows
        if row["kind"] in ("missing", "not_active")
    ]
    there = {(row["patch"], row["pid"]) for row in facts["missing"]}
    facts["missing"] += [row for row in missing if (row["patch"], row["pid"]) not in there]
    facts["desired"] = desired
    facts["drift"] = rows
    facts["summary"].update(
        desired=len(desired["patches"]),
        drift=len(rows),
        missing=len(facts["missing"]),
        store_errors=len(desired["errors"]),
    )


def sentence_of(row: dict[str, Any]) -> str:
    """One row of drift as a person reads it."""
    what = "patch %s in " % row["patch"] if row["patch"] else ""
    detail = ": " + row["detail"] if row["detail"] else ""
    return "%s: %sprocess %d (%s)%s" % (row["kind"], what, row["pid"], row["exe"], detail)


def _rows(processes: list[dict[str, Any]], desired: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for fact in processes:
        there = {patch["id"]: patch for patch in fact["patches"]}
        replaced = {
            name
            for patch_id, entry in desired.items()
            if entry["enabled"] and fact["pid"] in entry["selected"]
            for name in entry["replaces"]
            if name != patch_id
        }
        for patch_id, entry in desired.items():
            if not entry["enabled"] or fact["pid"] not in entry["selected"] or patch_id in replaced:
                continue
            patch = there.get(patch_id)
            if patch is None or patch["sha256"] != entry["sha256"]:
                held = "held back by the crash-loop guard" if fact["exe"] in entry["held"] else ""
                yield _row("missing", fact, patch_id, held or ("another version is there" if patch else ""), "absent")
            elif patch["state"] != "active":
                yield _row("not_active", fact, patch_id, "", patch["state"])
        for patch_id, patch in there.items():
            entry = desired.get(patch_id)
            if entry is None or not entry["enabled"]:
                yield _row("not_desired", fact, patch_id, "", patch["state"])
            if not patch["verified"]:
                yield _row("modified", fact, patch_id, "; ".join(patch["reasons"]), patch["state"])
        for found in fact["objects"]:
            if found["drift"] == "replaced":
                yield _row("disk_newer", fact, "", "%s is build %s" % (found["path"], found["disk_build_id"]), "")
            elif found["drift"] == "deleted":
                yield _row("deleted", fact, "", "%s is not there any more" % found["path"], "")


def _row(kind: str, fact: dict[str, Any], patch_id: str, detail: str, state: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "pid": fact["pid"],
        "exe": fact["exe"],
        "patch": patch_id,
        "state": state,
        "detail": detail,
    }


def _builds(processes: list[dict[str, Any]], entry: dict[str, Any]) -> dict[str, Any]:
    """Which processes run the build that a patch is for, and which another one from the same place; is it obsolete?

    Obsolete: no process has that build, and where its object was seen on this host lies another one, or none. Never so
    while it is not known where its object lies.
    """
    vulnerable = [
        fact["pid"] for fact in processes if any(one["build_id"] == entry["build_id"] for one in fact["objects"])
    ]
    paths = set(entry["paths"]) | {entry["processes"].get("exe", "")} - {""}
    other = [
        fact["pid"]
        for fact in processes
        if fact["pid"] not in vulnerable and any(one["path"] in paths for one in fact["objects"])
    ]
    on_disk = {path: _on_disk(path) for path in sorted(paths)}
    gone = bool(paths) and not vulnerable and entry["build_id"] not in on_disk.values()
    return {"vulnerable_build": vulnerable, "other_build": other, "on_disk": on_disk, "obsolete": gone}


def _on_disk(path: str) -> str:
    try:
        return (file_build_id(path) or "") if os.path.isfile(path) else ""
    except (NotElf, OSError):
        return ""


def _selects(processes: dict[str, str], pid: int) -> bool:
    try:
        with Process(pid) as process:
            return selection_of(processes).matches(process)
    except LivepatchError:
        return False
