# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of a host, narrowed to the objects that matter: a host maps a thousand objects, and a fleet has many hosts."""

from __future__ import annotations

from typing import Any, Iterable


def narrow(facts: dict[str, Any], named: Iterable[str]) -> None:
    """Leave in the facts only the objects that matter, and the processes that map one of them or have a patch.

    Those objects are the ones in `named` (build-ids, or paths), those to which a patch that was found or is desired is
    bound, and whatever else lies where these lie. `objects` of the facts then says which they are: about what is not in
    it, the facts say nothing.
    """
    wanted = set(named)
    for entry in facts["patches"].values():
        wanted |= {entry["build_id"], entry["object"]}
    for entry in facts.get("desired", {}).get("patches", {}).values():
        wanted |= {entry["build_id"], entry["processes"].get("exe", ""), *entry["paths"]}
    found = [part for fact in facts["processes"] for part in fact["objects"]]
    wanted |= {part["path"] for part in found if part["build_id"] in wanted}
    wanted.discard("")
    for fact in facts["processes"]:
        fact["objects"] = [part for part in fact["objects"] if part["build_id"] in wanted or part["path"] in wanted]
    facts["processes"] = [fact for fact in facts["processes"] if fact["objects"] or fact["patches"]]
    facts["objects"] = sorted(wanted)
