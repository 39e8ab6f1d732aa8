# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading the facts of livepatch_facts on the controller: which processes have an object, and which a good patch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleError

SCHEMA = 1


def checked(facts: Any, user: str) -> Mapping[str, Any]:
    """`facts` when they are facts that can be read here; `user` names the plugin. Raises AnsibleError otherwise."""
    if not isinstance(facts, Mapping) or not {"schema", "patches", "processes", "summary"} <= set(facts):
        raise AnsibleError(
            "%s needs the facts of a host, ansible_facts.livepatch; gather them with cgl.livepatch.livepatch_facts"
            % user
        )
    if facts["schema"] != SCHEMA:
        raise AnsibleError(
            "%s reads facts of schema %d, and these have schema %s: the host was looked at by another version of"
            " cgl.livepatch; gather its facts again" % (user, SCHEMA, facts["schema"])
        )
    return facts


def processes_with(facts: Mapping[str, Any], build_ids: Iterable[str]) -> list[Mapping[str, Any]]:
    """The processes of the facts that map an object with one of these build-ids."""
    wanted = set(build_ids)
    return [
        process for process in facts["processes"] if any(found["build_id"] in wanted for found in process["objects"])
    ]


def good_patches(process: Mapping[str, Any]) -> set[str]:
    """Ids of the patches that are active in a process, with every byte proven by the patch that the host knows."""
    return {
        patch["id"]
        for patch in process["patches"]
        if patch["state"] == "active" and patch["verified"] and patch.get("proof") == "store"
    }


def covered(patch: Mapping[str, Any], names: Collection[str]) -> list[tuple[str, str]]:
    """The functions of a patch whose calls go to another patch, and to which; patches among `names` do as well."""
    return [
        (function["name"], function["redirected_by"])
        for function in patch.get("functions", [])
        if function["redirected_by"] not in ("", patch["id"], *names)
    ]
