# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans in which order the hosts of a play are worked on; runs on the controller and contacts no host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ..plugin_utils.run import this_run
from ..plugin_utils.turns import GROUP, Group, groups, turns

# In others, hosts do not wait for each other after each task, so that nothing could keep the members of a pair apart.
_LOCKSTEP = ("linear", "ansible.builtin.linear", "debug", "ansible.builtin.debug")


class ActionModule(ActionBase):
    """Action plugin of cgl.livepatch.livepatch_plan."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("waves", "take_over", "guarded", "looks"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See DOCUMENTATION of the module of the same name."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _spec, arguments = self.validate_argument_spec(
            {
                "waves": {"type": "list", "elements": "str", "default": ["1", "10%", "100%"]},
                "take_over": {"type": "bool", "default": False},
                "guarded": {"type": "bool", "default": False},
                "looks": {"type": "str", "default": "rollout_look"},
            }
        )
        strategy = str(self._task.get_play().strategy)
        if strategy not in _LOCKSTEP:
            raise AnsibleError(
                "A rollout needs the strategy linear, and this play has %s: hosts would not wait for each other, and"
                " two of a pair could be worked on at once. Set 'strategy: linear' in the play." % strategy
            )
        hostvars, here = variables["hostvars"], variables["inventory_hostname"]
        if (variables.get(GROUP) or "") != (hostvars[here].get(GROUP) or ""):
            raise AnsibleError(
                "%s is a variable of the play or a role, where it cannot be seen for other hosts; put it into the"
                " inventory" % GROUP
            )
        known = groups(hostvars)
        hosts = [str(host) for host in variables["ansible_play_batch"]]
        looks = {host: hostvars[host].get(arguments["looks"]) or {} for host in hosts}
        taken = {host: look for host, look in looks.items() if look.get("holder")}
        for host, look in taken.items():
            if look.get("alive") != "dead" and not arguments["take_over"]:
                owner = look["holder"]
                raise AnsibleError(
                    "Another run of cgl.livepatch works on %s (process %s on %s). Let it end, then run this again. If"
                    " you know that it is dead, run this again with livepatch_take_over=true."
                    % (host, owner.get("pid", "?"), owner.get("controller", "?"))
                )
        planned = turns(hosts, arguments["waves"], known, first=taken)
        turn_of = {host: number for number, turn in enumerate(planned) for host in turn.hosts}
        grouped = {host: group for group in known.values() for host in group.members if host in turn_of}
        result.update(
            changed=False,
            owner=this_run(),
            turns=[
                dict(
                    asdict(turn),
                    guarded=arguments["guarded"] or any(_gated(host, grouped, hostvars) for host in turn.hosts),
                )
                for turn in planned
            ],
            turn_of=turn_of,
            others={host: _others(host, group, turn_of) for host, group in grouped.items()},
            spare={host: _spare(host, group, turn_of) for host, group in grouped.items()},
        )
        return result


def _gated(host: str, grouped: Mapping[str, Group], hostvars: Mapping[str, Any]) -> bool:
    """Whether anything is to be asked before or after this host is worked on."""
    return host in grouped or any(hostvars[host].get(name) for name in ("livepatch_health", "livepatch_health_tasks"))


def _others(host: str, group: Group, turn_of: dict[str, int]) -> list[str]:
    """The members of a group that do not have their turn together with the host."""
    return [member for member in group.members if turn_of.get(member) != turn_of[host]]


def _spare(host: str, group: Group, turn_of: dict[str, int]) -> int:
    """How many of the others may be unwell while those of this turn are worked on."""
    return group.at_once - (len(group.members) - len(_others(host, group, turn_of)))
