# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the report on the live patches of a play's hosts; runs on the controller and contacts no host."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ..plugin_utils.plain import plain
from ..plugin_utils.report.files import Places, differs, earlier, lines, now, write
from ..plugin_utils.report.looks import looks
from ..plugin_utils.report.model import model


class ActionModule(ActionBase):
    """Action plugin of cgl.livepatch.livepatch_report."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("dest", "metrics", "looks", "fixed_builds"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See DOCUMENTATION of the module of the same name."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _spec, arguments = self.validate_argument_spec(
            {
                "dest": {"type": "path", "required": True},
                "metrics": {"type": "path"},
                "looks": {"type": "list", "elements": "str", "default": ["report_look", "report_again"]},
                "fixed_builds": {"type": "dict", "default": {}},
            }
        )
        folder = os.path.abspath(arguments["dest"])
        places = Places(
            os.path.join(folder, "report.html"),
            os.path.join(folder, "report.json"),
            os.path.abspath(arguments["metrics"] or os.path.join(folder, "report.prom")),
        )
        report = model(
            looks(
                [str(host) for host in variables["ansible_play_hosts_all"]],
                [str(host) for host in variables["ansible_play_hosts"]],
                variables["hostvars"],
                arguments["looks"],
            ),
            now(),
            _fixed(arguments["fixed_builds"]),
        )
        before = earlier(places)
        changed = differs(report, before, places)
        if not self._task.check_mode:
            try:
                write(report, places)
            except OSError as error:
                raise AnsibleError(
                    "The report cannot be written: %s. Give a folder on the controller to which the user who runs"
                    " Ansible may write, in 'dest' (and 'metrics')." % error
                ) from error
        result.update(
            changed=changed,
            page=places.page,
            json=places.json,
            metrics=places.metrics,
            summary=report["summary"],
        )
        if self._task.diff:
            result["diff"] = {
                "before_header": places.json,
                "after_header": places.json,
                "before": lines(before),
                "after": lines(report),
            }
        return result


def _fixed(given: dict[str, Any]) -> dict[str, list[str]]:
    """`fixed_builds` as it must be; raises AnsibleError for anything else, as it decides what is said to be fixed."""
    builds = plain(given)
    for cve, names in builds.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise AnsibleError("fixed_builds needs a list of build-ids for each CVE, and has %r for %s" % (names, cve))
    return {cve: [name.lower() for name in names] for cve, names in builds.items()}
