# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How a process stands to a CVE, and a host: what the facts prove, and no more."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..facts import covered, good_patches
from .affected import Affected

#: From bad to good. not_running is said of hosts only: no process there maps an affected object.
STATES = ("vulnerable", "unknown", "fixed_in_memory", "fixed_on_disk", "not_running")
#: The states that leave nothing to be done.
GOOD = ("fixed_in_memory", "fixed_on_disk", "not_running")


def worst(states: Collection[str]) -> str:
    """The worst of some states; not_running when there are none."""
    return min(states, key=STATES.index, default="not_running")


def standing(process: Mapping[str, Any], known: Affected, fixed: Collection[str]) -> tuple[str, str] | None:
    """The state of a process and the reason, in words; None when it has nothing to do with the CVE.

    `fixed`: build-ids of which the user says that the CVE is fixed in them; facts cannot know that. A process that maps
    several affected objects is as bad as the worst of them.
    """
    found = list(_objects(process, known, fixed))
    if not found:
        return None
    state = worst([one for one, _reason in found])
    return state, "; ".join(sorted({reason for one, reason in found if one == state}))


def _objects(process: Mapping[str, Any], known: Affected, fixed: Collection[str]) -> Iterator[tuple[str, str]]:
    for part in process["objects"]:
        if part["build_id"] in known.builds:
            yield _affected(process, part, known.builds[part["build_id"]], fixed)
        elif part["path"] in known.paths:
            if part["build_id"] in fixed:
                yield "fixed_on_disk", "runs build %s, named as fixed" % part["build_id"]
            else:
                yield (
                    "unknown",
                    "runs another build of %s, %s: no patch is for it, and nobody named it as fixed"
                    % (part["path"], part["build_id"]),
                )


def _affected(
    process: Mapping[str, Any], part: Mapping[str, Any], names: Collection[str], fixed: Collection[str]
) -> tuple[str, str]:
    """The state of one affected object; `names`: the patches that fix it."""
    there = [patch for patch in process["patches"] if patch["id"] in names]
    active = [patch for patch in there if patch["state"] == "active"]
    good = good_patches(process)
    whole = [patch for patch in active if patch["id"] in good]
    seen = [patch["id"] for patch in whole if not covered(patch, names)]
    if seen:
        return "fixed_in_memory", "patch %s is active and proven" % ", ".join(sorted(seen))
    if whole:
        over = ", ".join("%s by %s" % pair for patch in whole for pair in covered(patch, names))
        return "unknown", "patch %s is active, and covered by one that does not name the CVE (%s)" % (
            whole[0]["id"],
            over,
        )
    claimed = [patch["id"] for patch in active if patch["verified"]]
    if claimed:
        return "unknown", "only the process says that it has patch %s: its host does not know that patch" % claimed[0]
    if active:
        why = "; ".join(active[0].get("reasons") or ["not every byte is as it must be"])
        return "unknown", "patch %s is active and not verified: %s" % (active[0]["id"], why)
    disk = ". A fixed build is on disk: restart it" if part.get("disk_build_id") in fixed else ""
    if there:
        return "vulnerable", "patch %s is loaded and not active%s" % (there[0]["id"], disk)
    return "vulnerable", "no patch for it is in the process%s" % disk
