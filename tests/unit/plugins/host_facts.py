# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of a host as livepatch_facts returns them, written by hand for the tests of the plugins."""

from __future__ import annotations

from typing import Any


def patch_in_process(name: str, state: str = "active", verified: bool = True, proof: str = "store") -> dict[str, Any]:
    """A patch as it stands in a process."""
    return {"id": name, "version": "1", "state": state, "verified": verified, "proof": proof, "cves": []}


def process(pid: int, build_ids: list[str], patches: list[dict[str, Any]]) -> dict[str, Any]:
    """A process that maps objects with these build-ids and has these patches."""
    objects = [{"path": "/usr/bin/p", "build_id": build_id, "drift": "none"} for build_id in build_ids]
    return {"pid": pid, "exe": "/usr/bin/p", "objects": objects, "patches": patches}


def facts(
    patches: dict[str, tuple[str, list[str]]],
    processes: list[dict[str, Any]],
    unreadable: int = 0,
    scan: str = "affected",
) -> dict[str, Any]:
    """The facts. `patches`: for each id, the build-id that it is bound to, and its CVEs."""
    return {
        "schema": 1,
        "scan": scan,
        "patches": {name: {"build_id": bound, "cves": cves} for name, (bound, cves) in patches.items()},
        "processes": processes,
        "missing": [],
        "summary": {"unreadable": unreadable},
    }
