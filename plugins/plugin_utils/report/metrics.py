# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The report for Prometheus, as a file that the textfile collector of node_exporter reads.

The text format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .standing import GOOD, STATES
from .words import DRIFT

_Sample = tuple[dict[str, str], float]


def metrics(report: Mapping[str, Any], made: float) -> str:
    """The file; `made`: when, in seconds since 1970. Hosts of which nothing is known have host_known 0."""
    hosts, cves = report["hosts"], report["cves"]
    told = [host for host, one in hosts.items() if one["known"]]
    compared = [host for host in told if hosts[host]["drift_known"]]
    families: list[tuple[str, str, Iterable[_Sample]]] = [
        ("report_timestamp_seconds", "When the hosts were looked at.", [({}, made)]),
        (
            "host_known",
            "Whether the host could be looked at (1 or 0). Where it is 0, no more is known of it than that.",
            [({"host": host}, int(one["known"])) for host, one in hosts.items()],
        ),
        (
            "cve_proven",
            "Whether no process of the host is vulnerable or unknown (1), or that is not proven (0).",
            [
                ({"host": host, "cve": cve}, int(state in GOOD))
                for cve, one in cves.items()
                for host, state in one["hosts"].items()
            ],
        ),
        ("cve_processes", "Processes by how they stand to a CVE.", _processes(cves, told)),
        ("drift", "Differences between memory, disk and what is desired.", _drift(report["drift"], compared)),
        (
            "processes_unreadable",
            "Processes that could not be looked at.",
            [({"host": host}, hosts[host]["unreadable"]) for host in told],
        ),
        ("stop_seconds_max", "The longest stop among the activations that hold now.", _longest(report, told)),
    ]
    return "".join(_family("cgl_livepatch_" + name, about, samples) for name, about, samples in families)


def _processes(cves: Mapping[str, Any], told: Iterable[str]) -> Iterable[_Sample]:
    for cve, one in cves.items():
        counts = Counter((row["host"], row["state"]) for row in one["rows"] if row["pid"])
        for host in told:
            for state in STATES[:4]:
                yield {"host": host, "cve": cve, "state": state}, counts[host, state]


def _drift(rows: Iterable[Mapping[str, Any]], told: Iterable[str]) -> Iterable[_Sample]:
    counts = Counter((row["host"], row["kind"]) for row in rows)
    for host in told:
        for kind in DRIFT:
            yield {"host": host, "kind": kind}, counts[host, kind]


def _longest(report: Mapping[str, Any], told: Iterable[str]) -> Iterable[_Sample]:
    by_host = report["stops"]["max_us_of_host"]
    for host in told:
        if host in by_host:
            yield {"host": host}, by_host[host] / 1e6


def _family(name: str, about: str, samples: Iterable[_Sample]) -> str:
    lines = ["# HELP %s %s" % (name, about), "# TYPE %s gauge" % name]
    lines += ["%s%s %s" % (name, _labels(labels), _number(value)) for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return "{%s}" % ",".join('%s="%s"' % (key, _escaped(value)) for key, value in labels.items()) if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(float(value)) if value != int(value) else str(int(value))
