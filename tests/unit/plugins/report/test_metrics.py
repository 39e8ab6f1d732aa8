# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The file for Prometheus is what Prometheus' own library reads, and says no more than the report."""

from __future__ import annotations

import calendar
import time

from fleet_facts import CVE, MADE_AT, asked, fleet, patch, process
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.looks import Look
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.metrics import metrics
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.model import model

MADE = calendar.timegm(time.strptime(MADE_AT, "%Y-%m-%dT%H:%M:%SZ"))
Samples = dict[tuple[str, ...], float]


def _read(looks: dict[str, Look]) -> dict[str, Samples]:
    """By the name of a family, its samples, by the values of their labels."""
    families = list(text_string_to_metric_families(metrics(model(looks, MADE_AT, {}), MADE)))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(family.type == "gauge" and family.documentation for family in families)
    assert all(name.startswith("cgl_livepatch_") for name in names)
    found: dict[str, Samples] = {}
    for family in families:
        samples = {tuple(sample.labels.values()): sample.value for sample in family.samples}
        assert len(samples) == len(family.samples)
        found[family.name[len("cgl_livepatch_") :]] = samples
    return found


def test_it_says_what_the_report_says() -> None:
    row = {"kind": "modified", "pid": 1, "exe": "/x", "patch": "fix", "state": "active", "detail": ""}
    bad = asked(process(1, patch(stop_us=2500)), process(2), drift=[row], summary={"unreadable": 3, "patched": 1})
    found = _read({"bad": Look(bad), "good": Look(asked(process(5, patch()))), "gone": Look(None, "x")})
    assert found["report_timestamp_seconds"] == {(): MADE}
    assert found["host_known"] == {("bad",): 1, ("good",): 1, ("gone",): 0}
    assert found["cve_proven"] == {("bad", CVE): 0, ("good", CVE): 1, ("gone", CVE): 0}
    assert found["cve_processes"]["bad", CVE, "vulnerable"] == 1
    assert found["cve_processes"]["bad", CVE, "fixed_in_memory"] == 1
    assert found["cve_processes"]["good", CVE, "fixed_in_memory"] == 1
    assert found["drift"]["bad", "modified"] == 1
    assert found["drift"]["good", "missing"] == 0
    assert found["processes_unreadable"] == {("bad",): 3, ("good",): 0}
    assert found["stop_seconds_max"] == {("bad",): 0.0025, ("good",): 0}
    # Of a host that could not be looked at, no number is told.
    for name in ("cve_processes", "drift", "processes_unreadable", "stop_seconds_max"):
        assert not [labels for labels in found[name] if labels[0] == "gone"]


def test_what_was_not_compared_has_no_drift() -> None:
    known = asked(process(1, patch()))
    del known["drift"]
    assert _read({"a": Look(known)})["drift"] == {}


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1))
def test_any_name_of_a_host_or_a_cve_is_read_back(text: str) -> None:
    known = asked(process(1, patch(cves=[text])))
    assert _read({text: Look(known)})["cve_proven"] == {(text, text.upper()): 1}


def test_a_fleet() -> None:
    found = _read(fleet(200))
    assert len(found["host_known"]) == len(found["cve_proven"]) == 200
