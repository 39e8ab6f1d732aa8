# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What each host of a play said when it was looked at, and which objects some of them have not been asked about yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleError

from ..facts import checked
from ..plain import plain
from .affected import Affected, affected


@dataclass(frozen=True)
class Look:
    """The facts of a host, in Python's own types; or None, and why there are none."""

    facts: dict[str, Any] | None
    why: str = ""


def looks(
    hosts: Iterable[str], here: Iterable[str], hostvars: Mapping[str, Any], names: Iterable[str]
) -> dict[str, Look]:
    """A look for every host of a play.

    `here`: the hosts that are still in the play; one that left it was not asked, whatever is known from before.
    `names`: the variables in which each host has results of livepatch_facts, in the order in which it was asked: the
    last one counts.
    """
    present = set(here)
    names = list(names)
    return {
        host: _look(hostvars[host], names)
        if host in present
        else Look(None, "it left the play before it was looked at: a task failed, or it could not be reached")
        for host in hosts
    }


def gaps(hosts: Iterable[str], here: Iterable[str], hostvars: Mapping[str, Any], name: str) -> dict[str, list[str]]:
    """Which `objects` some hosts have patches for, and which `hosts` were not asked about all of them."""
    found = looks(hosts, here, hostvars, [name])
    wanted = objects_of(affected(found.values()))
    unasked = [host for host, look in found.items() if look.facts is not None and not told(look.facts, wanted)]
    return {"objects": sorted(wanted) if unasked else [], "hosts": unasked}


def objects_of(known: Mapping[str, Affected]) -> set[str]:
    """The build-ids and paths of all affected objects."""
    return {name for one in known.values() for name in (*one.builds, *one.paths)}


def told(facts: Mapping[str, Any], objects: Iterable[str]) -> bool:
    """Whether the facts tell of every process that maps one of these objects, or what lies in their place."""
    return facts.get("scan") == "all" and ("objects" not in facts or set(objects) <= set(facts["objects"]))


def _look(variables: Mapping[str, Any], names: Iterable[str]) -> Look:
    look = Look(None, "it was not looked at")
    for name in names:
        result = variables.get(name) or {}
        if result.get("skipped"):
            continue
        if result.get("unreachable"):
            look = Look(None, "it cannot be reached: %s" % _said(result))
        elif (result.get("ansible_facts") or {}).get("livepatch") is not None:
            look = _facts(result["ansible_facts"]["livepatch"])
        elif result:
            look = Look(None, "it cannot be looked at: %s" % _said(result))
    return look


def _facts(facts: Any) -> Look:
    try:
        return Look(plain(checked(facts, "The report")))
    except AnsibleError as error:
        return Look(None, str(error))


def _said(result: Mapping[str, Any]) -> str:
    """The first line of what a failed result says, of a length that can be read."""
    lines = str(result.get("msg") or "").strip().splitlines()
    return lines[0][:300] if lines else "it gave no reason"
