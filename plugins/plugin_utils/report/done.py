# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who did what, and when, as far as it is known. This is the one place where sources of that are read.

There are three: the log of the host, which says who; the time of activation that a patch's region in a process has; and
the time at which the store took a patch in. The two latter do not know who did it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from .looks import Look


def done(looks: Mapping[str, Look]) -> list[dict[str, Any]]:
    """What was done, the latest first: {first, last, host, what, patch, version, processes, who, source}.

    Activations of one patch on one host, by what the processes say, are one entry, from the `first` to the `last` of
    them, as UTC; `who` is empty where it is not known. `source`: log, process or store.
    """
    found = [entry for host, look in looks.items() for entry in _of_host(host, look.facts or {})]
    return sorted(found, key=lambda entry: str(entry["last"]), reverse=True)


def _of_host(host: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    activations: dict[tuple[str, str], list[int]] = {}
    for process in facts.get("processes", []):
        for patch in process["patches"]:
            if patch["state"] == "active" and patch.get("activated_at"):
                activations.setdefault((patch["id"], patch["version"]), []).append(int(patch["activated_at"]))
    for (name, version), times in activations.items():
        yield _entry(host, "activated", name, version, times, len(times), "process")
    for name, entry in facts.get("desired", {}).get("patches", {}).items():
        if entry["stored_at"]:
            yield _entry(host, "stored", name, entry["version"], [int(entry["stored_at"])], 0, "store")
    for entry in (facts.get("audit") or {}).get("entries", []):
        yield _logged(host, entry)


def _logged(host: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the log; a line with "torn" has nothing but the time."""
    outcome = str(entry.get("outcome") or "")
    return {
        "first": str(entry["at"]),
        "last": str(entry["at"]),
        "host": host,
        "what": str(entry["action"]) + (": " + outcome if outcome else ""),
        "patch": str(entry.get("patch") or ""),
        "version": str(entry.get("version") or ""),
        "processes": int(entry.get("count") or 0),
        "who": _who(entry.get("who") or {}),
        "source": "log",
    }


def _who(who: Mapping[str, Any]) -> str:
    """Who it was: the user who logged in, by the kernel; the one of sudo(8), by its word; else the user of the task."""
    login, sudo = who.get("login_uid"), who.get("sudo_user")
    said = [
        "login user %s" % login if login is not None else "",
        "by sudo from %s" % sudo if sudo else "",
        "as user %s" % who["uid"] if who.get("uid") is not None else "",
    ]
    return ", ".join(one for one in said if one)


def _entry(
    host: str, what: str, name: str, version: str, times: list[int], processes: int, source: str
) -> dict[str, Any]:
    return {
        "first": _utc(min(times)),
        "last": _utc(max(times)),
        "host": host,
        "what": what,
        "patch": name,
        "version": version,
        "processes": processes,
        "who": "",
        "source": source,
    }


def _utc(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):  # a process may say anything
        return ""
