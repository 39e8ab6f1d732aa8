# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of hosts for the tests of the report, as livepatch_facts returns them with desired: true and objects: []."""

from __future__ import annotations

from typing import Any

from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.looks import Look

CVE = "CVE-2026-0001"
BROKEN, FIXED, OTHER = "aa" * 20, "bb" * 20, "cc" * 20
PATH = "/usr/sbin/greeter"
MADE_AT = "2026-01-02T03:04:05Z"


def patch(name: str = "fix", **about: Any) -> dict[str, Any]:
    """A patch in a process: active and verified, unless `about` says otherwise."""
    return {
        "id": name,
        "version": "1",
        "state": "active",
        "verified": True,
        "proof": "store",
        "reasons": [],
        "functions": [{"name": "greet", "address": "0x1", "redirected_to": "0x2", "redirected_by": name}],
        "switch": "byte",
        "stop_us": 0,
        "activated_at": 1767322000,
        "sha256": "9f",
        "cves": [CVE],
        **about,
    }


def process(pid: int, *patches: dict[str, Any], **about: Any) -> dict[str, Any]:
    """A process of the broken build, unless `about` says otherwise (`build`, `disk`, `path`)."""
    build = about.pop("build", BROKEN)
    disk = about.pop("disk", build)
    path = about.pop("path", PATH)
    drift = "none" if disk == build else "replaced" if disk else "deleted"
    return {
        "pid": pid,
        "start_time": 100 + pid,
        "exe": path,
        "threads": 2,
        "objects": [{"path": path, "build_id": build, "disk_build_id": disk, "drift": drift}],
        "patches": list(patches),
        "patchable": True,
        "reasons": [],
        **about,
    }


def facts(*processes: dict[str, Any], **about: Any) -> dict[str, Any]:
    """The facts of a host with these processes. All their patches are for the CVE and the broken build."""
    patches: dict[str, dict[str, Any]] = {}
    for one in processes:
        for there in one["patches"]:
            patches[there["id"]] = {
                "version": there["version"],
                "description": "Greet everybody",
                "cves": there["cves"],
                "object": one["exe"],
                "build_id": BROKEN,
                "processes": 1,
                "active": 1,
                "verified": True,
            }
    return {
        "schema": 1,
        "scan": "all",
        "patches": patches,
        "processes": list(processes),
        "missing": [],
        "objects": sorted({name for one in patches.values() for name in (one["build_id"], one["object"])}),
        "desired": {"switched_off": "", "patches": {}, "errors": []},
        "drift": [],
        "summary": {"unreadable": 0, "patched": sum(bool(one["patches"]) for one in processes)},
        **about,
    }


def asked(*processes: dict[str, Any], **about: Any) -> dict[str, Any]:
    """The facts of a host that was asked about everything that is affected."""
    return facts(*processes, **{"objects": [BROKEN, PATH], **about})


def fleet(hosts: int) -> dict[str, Look]:
    """A fleet of any size in which everything happens that a report tells of; a host alone is fixed."""
    looks = {}
    for number in range(hosts):
        name = "host%04d.example" % number
        stop = (0, 40, 300, 2500, 8000)[number % 5]
        good = process(1000 + number, patch(stop_us=stop, switch="stop" if stop else "byte"))
        if number % 50 == 7:
            looks[name] = Look(None, "it cannot be reached: Connection timed out")
        elif number % 50 == 11:
            looks[name] = Look(asked(good, process(7)))
        elif number % 50 == 13:
            looks[name] = Look(asked(process(8, patch(state="loaded", verified=False))))
        elif number % 50 == 17:
            looks[name] = Look(asked(process(9, build=OTHER)))
        elif number % 50 == 19:
            looks[name] = Look(asked())
        elif number % 10 == 3:
            row = {"kind": "not_desired", "pid": 1000 + number, "exe": PATH, "patch": "fix", "state": "active"}
            looks[name] = Look(asked(good, drift=[dict(row, detail="")]))
        elif number % 50 == 29:
            reasons = ["it is being traced by process 12"]
            looks[name] = Look(asked(process(10, patchable=False, reasons=reasons)))
        else:
            looks[name] = Look(asked(good))
    return looks
