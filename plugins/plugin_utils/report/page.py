# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The report as one HTML page that needs nothing else.

Everything that hosts said is escaped: Jinja2 does that by itself here, and the page forbids, by the digests of its own
style and script, any other one to take effect. The picture is made by the template, too: it is eight bars with their
labels. A library for charts would be one more thing to install on each controller and in each execution environment,
and those looked at (pygal, drawsvg) give pictures without the page's colours for light and dark.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .standing import GOOD
from .words import DRIFT, STATES

_HERE = os.path.dirname(os.path.abspath(__file__))
#: A table of up to so many rows is open when the page is opened.
_OPEN_ROWS = 50
#: How many of the things that were done are in the page; the JSON has all.
_MOST_DONE = 2000
#: How many process ids stand in one row; the JSON has all of them.
_MOST_PIDS = 12


def page(report: Mapping[str, Any]) -> str:
    """The report as HTML."""
    style, script = _read("page.css"), _read("page.js")
    template = _environment().get_template("page.html.j2")
    return template.render(
        report=report,
        states=STATES,
        kinds=DRIFT,
        cves=[_cve(name, one) for name, one in report["cves"].items()],
        unknown_hosts={host: one["why"] for host, one in report["hosts"].items() if not one["known"]},
        drift=_drift(report["drift"]),
        obstacles=grouped(report["obstacles"]),
        done=report["done"][:_MOST_DONE],
        logs={
            "exist": sum(one["log"]["exists"] for one in report["hosts"].values()),
            "broken": {
                host: one["log"]["why"]
                for host, one in report["hosts"].items()
                if one["log"]["exists"] and not one["log"]["intact"]
            },
        },
        compared=sum(one["drift_known"] for one in report["hosts"].values()),
        bars=_bars(report["stops"]["bars"]),
        open_rows=_OPEN_ROWS,
        style=style,
        script=script,
        digests={"style": _digest(style), "script": _digest(script)},
    )


@functools.lru_cache(maxsize=None)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = "{:,}".format
    environment.filters["ms"] = lambda microseconds: "%.3g ms" % (microseconds / 1000)
    return environment


def grouped(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows, those that differ in their process only as one, with `pids`, and how many `more` there are of them."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(sorted((name, value) for name, value in row.items() if name not in ("pid", "start_time")))
        group = groups.setdefault(key, dict(row, pids=[], count=0, more=0))
        if row["pid"]:
            group["count"] += 1
            if len(group["pids"]) < _MOST_PIDS:
                group["pids"].append(row["pid"])
            else:
                group["more"] += 1
    return list(groups.values())


def _cve(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    rows = grouped(one["rows"])
    for host, state in one["hosts"].items():
        if state == "not_running":
            rows.append({"host": host, "state": state, "exe": "", "pids": [], "count": 0, "more": 0, "reason": ""})
    return {
        "name": name,
        "patches": one["patches"],
        "host_counts": one["host_counts"],
        "process_counts": one["process_counts"],
        "proven": sum(count for state, count in one["host_counts"].items() if state in GOOD),
        "hosts": len(one["hosts"]),
        "bad": [row for row in rows if row["state"] not in GOOD],
        "good": [row for row in rows if row["state"] in GOOD],
    }


def _drift(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By kind: how many there are, on how many hosts, and the rows."""
    found = []
    for kind in DRIFT:
        mine = [row for row in rows if row["kind"] == kind]
        hosts = len({row["host"] for row in mine})
        found.append({"kind": kind, "count": len(mine), "hosts": hosts, "rows": grouped(mine)})
    return found


def _bars(bars: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bars with their lengths, from 0 to 1; what is there at all can be seen."""
    most = max([one["count"] for one in bars], default=0)
    return [dict(one, share=max(one["count"] / most, 0.01) if one["count"] else 0.0) for one in bars]


def _read(name: str) -> str:
    with open(os.path.join(_HERE, name), encoding="utf-8") as stream:
        return stream.read()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
