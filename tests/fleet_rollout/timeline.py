# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who worked on which host when, from what the callback plugin wrote down; over several runs at once, too."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

_WORK = (
    "Load the patch into the processes",
    "Switch the processes over to the patch, and look at them anew",
    "Switch the processes back",
    "Unload the patch",
    "Ask whether the service is healthy after",
)
_LEAVE = ("Leave the turn of this host", "Leave the turn")

Span = tuple[float, float]


def environment(file: Path) -> dict[str, str]:
    """The variables with which a run of Ansible writes into FILE."""
    return {
        "TIMELINE": str(file),
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).with_name("callback")),
        "ANSIBLE_CALLBACKS_ENABLED": "timeline",
    }


def spans(file: Path) -> dict[str, list[Span]]:
    """For each host, from when to when it was worked on: from the first task of work to the end of its turn."""
    found: dict[str, list[Span]] = {}
    tried: dict[str, float] = {}
    begun: dict[str, float] = {}
    last: dict[str, float] = {}
    for line in file.read_text().splitlines():
        event = json.loads(line)
        host, at, what = event["host"], event["at"], event["event"]
        last[host] = at
        if event["task"] in _WORK:
            if what == "begin":
                tried[host] = at
            elif what != "skipped":
                begun.setdefault(host, tried[host])
        elif event["task"] in _LEAVE and what in ("ok", "failed") and host in begun:
            found.setdefault(host, []).append((begun.pop(host), at))
    for host, begin in begun.items():  # never left
        found.setdefault(host, []).append((begin, last[host]))
    return found


def most_at_once(files: list[Path], hosts: list[str]) -> int:
    """How many of HOSTS were worked on at the same time at most, over all these runs together."""
    changes: list[tuple[float, int, str]] = []
    for file, host in itertools.product(files, hosts):
        for begin, end in spans(file).get(host, []) if file.exists() else []:
            changes += [(begin, 1, host), (end, -1, host)]
    now: dict[str, int] = {}
    most = 0
    for _at, step, host in sorted(changes):
        now[host] = now.get(host, 0) + step
        most = max(most, sum(count > 0 for count in now.values()))
    return most
