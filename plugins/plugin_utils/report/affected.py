# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fleet knows of CVEs: which builds of which objects they are in, because a patch for them is bound to those."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .looks import Look


@dataclass
class Affected:
    """What is affected by a CVE, as far as any host of the fleet knows."""

    #: By build-id, the ids of the patches that fix it there.
    builds: dict[str, set[str]] = field(default_factory=dict)
    #: Where objects of these builds lie on any host.
    paths: set[str] = field(default_factory=set)


def affected(looks: Iterable[Look]) -> dict[str, Affected]:
    """By CVE, what is affected by it. A patch names its CVEs and the one build to which it is bound."""
    known: dict[str, Affected] = {}
    places: dict[str, set[str]] = {}
    told = [look.facts for look in looks if look.facts is not None]
    for facts in told:
        for name, cves, build_id, paths in _patches(facts):
            places.setdefault(build_id, set()).update(paths)
            for cve in cves:
                known.setdefault(cve.upper(), Affected()).builds.setdefault(build_id, set()).add(name)
    for facts in told:
        for process in facts["processes"]:
            for part in process["objects"]:
                if part["build_id"] in places:
                    places[part["build_id"]].add(part["path"])
    for one in known.values():
        one.paths.update(path for build_id in one.builds for path in places[build_id] if path)
    return known


def _patches(facts: Mapping[str, Any]) -> Iterator[tuple[str, list[str], str, list[str]]]:
    """The patches that are in processes, and those that the store has: id, CVEs, build-id and known places."""
    for name, patch in facts["patches"].items():
        yield name, patch["cves"], patch["build_id"], [patch.get("object", "")]
    for name, entry in facts.get("desired", {}).get("patches", {}).items():
        yield name, entry["cves"], entry["build_id"], [entry["processes"].get("exe", ""), *entry["paths"]]
