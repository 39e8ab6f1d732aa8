# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order hosts are worked on: waves as `serial` has them, cut so that no redundancy group is ever left bare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleError

GROUP, AT_ONCE = "livepatch_redundancy_group", "livepatch_at_once"


@dataclass(frozen=True)
class Group:
    """A redundancy group: all its members in the inventory, and how many of them may be worked on at once."""

    members: tuple[str, ...]
    at_once: int


@dataclass(frozen=True)
class Turn:
    """Hosts that are worked on together, as a part of a wave (counted from 1)."""

    wave: int
    hosts: tuple[str, ...]


def groups(hostvars: Mapping[str, Any]) -> dict[str, Group]:
    """The redundancy groups of the whole inventory, by name, whichever hosts a play is limited to.

    Raises AnsibleError for a group of one, and for values that make no sense, so that no pair passes for single hosts.
    """
    members: dict[str, list[str]] = {}
    at_once: dict[str, int] = {}
    for host in hostvars:
        name = hostvars[host].get(GROUP)
        if name is None or name == "":
            continue
        if not isinstance(name, str):
            raise AnsibleError("%s of %s must be the name of one group, not %r" % (GROUP, host, name))
        number = _at_once(host, hostvars[host].get(AT_ONCE, 1))
        members.setdefault(name, []).append(host)
        at_once[name] = min(number, at_once.get(name, number))
    for name, hosts in members.items():
        if len(hosts) == 1:
            raise AnsibleError(
                "%s is the only member of the redundancy group %s in the inventory. Add the other members to the"
                " inventory, as they must be looked at before this one is worked on, or correct %s."
                % (hosts[0], name, GROUP)
            )
    # One member at least is left alone, whatever number was given for larger groups.
    return {name: Group(tuple(hosts), min(at_once[name], len(hosts) - 1)) for name, hosts in members.items()}


def _at_once(host: str, value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise AnsibleError("%s of %s must be a number of hosts, at least 1, not %r" % (AT_ONCE, host, value))
    return int(text)


def waves(hosts: Sequence[str], sizes: Any) -> list[list[str]]:
    """Hosts cut into waves as `serial` does it: sizes are numbers or percentages, and the last one is used on and on.

    Raises AnsibleError for other sizes.
    """
    if isinstance(sizes, str):
        sizes = [size.strip() for size in sizes.split(",") if size.strip()]
    elif not isinstance(sizes, Sequence):
        sizes = [sizes]
    counts = [_size(size, len(hosts)) for size in sizes] or [len(hosts)]
    cut: list[list[str]] = []
    left = list(hosts)
    while left:
        count = counts[min(len(cut), len(counts) - 1)]
        cut.append(left[:count])
        left = left[count:]
    return cut


def _size(size: Any, count: int) -> int:
    text = str(size)
    number = text[:-1] if text.endswith("%") else text
    if isinstance(size, bool) or not number.isdecimal() or int(number) < 1:
        raise AnsibleError("livepatch_waves has sizes like 5 or '10%%', at least 1, and not %r" % (size,))
    if text.endswith("%"):
        return max(1, int(number) * count // 100)
    return int(number)


def turns(hosts: Sequence[str], sizes: Any, known: Mapping[str, Group], first: Iterable[str] = ()) -> list[Turn]:
    """The turns in which hosts are worked on; no turn has more members of a group in it than may be worked on at once.

    `first`: hosts on which a run that died was at work; they come before the others.
    """
    unfinished = set(first)
    ordered = [host for host in hosts if host in unfinished] + [host for host in hosts if host not in unfinished]
    group_of = {host: name for name, group in known.items() for host in group.members}
    planned: list[Turn] = []
    for number, wave in enumerate(waves(ordered, sizes), 1):
        parts: list[list[str]] = []
        busy: list[Counter[str]] = []
        for host in wave:
            name = group_of.get(host)
            part = 0
            if name is not None:
                while part < len(parts) and busy[part][name] >= known[name].at_once:
                    part += 1
            if part == len(parts):
                parts.append([])
                busy.append(Counter())
            parts[part].append(host)
            if name is not None:
                busy[part][name] += 1
        planned += [Turn(number, tuple(part)) for part in parts]
    return planned
