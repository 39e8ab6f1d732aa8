# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The role report, and the callback progress, over real SSH: what is told is what the processes say. Needs root."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_rollout.greeters import OLD, Greeters

CVE = "CVE-2026-0001"


@pytest.fixture(autouse=True)
def _as_found(greeters: Greeters) -> Iterator[None]:
    """Each test begins and ends with hosts on which nothing is patched."""
    assert greeters.all_say() == [OLD] * len(greeters.names)
    yield
    greeters.play("rollback", 0, livepatch_patch="fix-greeting")


def _read(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
    return report


def test_the_report_tells_what_the_processes_say(greeters: Greeters, tmp_path: Path) -> None:
    folder, metrics = tmp_path / "report", tmp_path / "livepatch.prom"
    given = {"livepatch_report_dest": str(folder), "livepatch_report_metrics": str(metrics)}
    greeters.play("rollout", 0, "--limit", "node1,node2", livepatch_patch=str(greeters.patch))
    # On one host a second process came without the patch; on another, it is loaded only, by taking it back half way.
    second = greeters.second("node2")
    # One host has nothing of the patch. One that nobody can reach is in the inventory.
    (tmp_path / "gone.yml").write_text("fleet: {hosts: {gone: {ansible_host: 127.0.0.9, ansible_port: 9}}}\n")
    inventories = ["-i", str(greeters.fleet.place / "inventory.yml"), "-i", str(tmp_path / "gone.yml")]
    try:
        predicted = greeters.play("report", 0, *inventories, "--check", **given)
        assert "changed=1" in predicted
        assert not folder.exists()
        said = greeters.play("report", 0, *inventories, "--diff", **given)
        assert f"+node1: {CVE} fixed in memory" in said
        again = greeters.play("report", 0, *inventories, **given)
    finally:
        greeters.fleet.exec("node2", ["kill", "-9", str(second)])
    # The hosts without the patch were asked again, about what the others know is affected; no other was.
    asked = said.partition("Look whether they run that]")[2].partition("TASK")[0]
    assert sorted(re.findall(r"ok: \[(\w+)\]", asked)) == ["node3", "node4"]
    assert "changed=1" not in again
    report = _read(folder)
    assert report["cves"][CVE]["hosts"] == {
        "node1": "fixed_in_memory",
        "node2": "vulnerable",
        "node3": "vulnerable",
        "node4": "vulnerable",
        "gone": "unknown",
    }
    rows = {(row["host"], row["pid"]): row for row in report["cves"][CVE]["rows"]}
    assert rows["node1", greeters.pid("node1")]["state"] == "fixed_in_memory"
    assert rows["node2", greeters.pid("node2")]["state"] == "fixed_in_memory"
    assert rows["node2", second]["state"] == "vulnerable"
    assert rows["node3", greeters.pid("node3")]["reason"] == "no patch for it is in the process"
    assert "cannot be reached" in report["hosts"]["gone"]["why"]
    # Nobody stored the patch there, so that it is gone when the program starts again.
    assert {(row["host"], row["kind"]) for row in report["drift"]} == {
        ("node1", "not_desired"),
        ("node2", "not_desired"),
    }
    deeds = {(one["host"], one["what"], one["source"]) for one in report["done"]}
    assert deeds >= {
        (host, what, source)
        for host in ("node1", "node2")
        for what, source in (("activated", "process"), ("load: done", "log"), ("activate: done", "log"))
    }
    # The log says who it was; the processes do not know.
    assert all(("as user 0" in one["who"]) == (one["source"] == "log") for one in report["done"])
    assert [report["hosts"][host]["log"]["intact"] for host in ("node1", "node2", "gone")] == [True, True, False]
    html = (folder / "report.html").read_text("utf-8")
    assert html.count("/srv/greeter") >= 5
    assert f'cgl_livepatch_cve_processes{{host="node2",cve="{CVE}",state="vulnerable"}} 1\n' in metrics.read_text()
    assert 'cgl_livepatch_host_known{host="gone"} 0\n' in metrics.read_text()
    assert metrics.stat().st_mode & 0o777 == 0o644


@pytest.mark.long
def test_another_build_is_fixed_only_where_it_was_said_to_be(greeters: Greeters, tmp_path: Path) -> None:
    given: dict[str, Any] = {"livepatch_report_dest": str(tmp_path / "report")}
    greeters.play("rollout", 0, "--limit", "node1", livepatch_patch=str(greeters.patch))
    # What lies in the place of the greeter on node4, and runs from there, is another program: its build is not known.
    place = greeters.fleet.path("node4", "/srv/greeter")
    shutil.copy(place, tmp_path / "greeter")
    greeters.fleet.exec("node4", ["kill", "-9", str(greeters.pid("node4"))])
    place.unlink()
    shutil.copy("/usr/bin/sleep", place)
    script = "setsid /srv/greeter 1000 </dev/null >/dev/null 2>&1 & echo $!"
    other = greeters.fleet.exec("node4", ["sh", "-c", script], check=True).stdout.strip()
    try:
        greeters.play("report", 0, **given)
        report = _read(tmp_path / "report")
        assert report["cves"][CVE]["hosts"]["node4"] == "unknown"
        (row,) = (row for row in report["cves"][CVE]["rows"] if row["host"] == "node4")
        build = re.search(r"runs another build of /srv/greeter, ([0-9a-f]{40}):", row["reason"])
        assert build, row
        greeters.play("report", 0, livepatch_fixed_builds={CVE: [build.group(1)]}, **given)
        assert _read(tmp_path / "report")["cves"][CVE]["hosts"]["node4"] == "fixed_on_disk"
    finally:
        greeters.fleet.exec("node4", ["kill", "-9", other])
        shutil.copy(tmp_path / "greeter", place)
        greeters.start("node4")


def test_progress_is_a_line_for_each_host_as_it_comes(greeters: Greeters, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = greeters.environment()
    monkeypatch.setattr(
        greeters,
        "environment",
        lambda: {
            **environment,
            "ANSIBLE_CALLBACKS_ENABLED": "cgl.livepatch.progress",
            "ANSIBLE_DISPLAY_OK_HOSTS": "false",
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
        },
    )
    said = greeters.play("rollout", 0, livepatch_patch=str(greeters.patch), livepatch_waves=[1, "100%"])
    lines = [text for text in said.splitlines() if text.startswith(("==", "  ["))]
    assert lines[0] == "== Wave 1 of 2, turn 1 of 2: node1"
    assert re.fullmatch(r"  \[1/1\] node1: loaded in 1 process, one thread held for [0-9.]+ ms at most", lines[1])
    assert re.fullmatch(
        r"  \[1/1\] node1: active in 1 process, (nothing was stopped|stopped for [0-9.]+ ms at most)", lines[2]
    )
    assert lines[3] == "== Wave 2 of 2, turn 2 of 2: node2, node3, node4"
    assert [text[:7] for text in lines[4:7]] == ["  [1/3]", "  [2/3]", "  [3/3]"]
    assert sorted(text[8:13] for text in lines[4:7]) == ["node2", "node3", "node4"]
    assert all(": loaded in 1 process, " in text for text in lines[4:7])
    assert len(lines) == 10
    # A host that fails says why, and the turns in which the patch is taken out have headings, too.
    greeters.play("rollback", 0, livepatch_patch="fix-greeting")
    said = greeters.play(
        "rollout",
        2,
        livepatch_patch=str(greeters.patch),
        livepatch_waves=[1, "100%"],
        livepatch_consistency="atomic",
        livepatch_max_stop_ms=0.001,
        livepatch_timeout=1,
    )
    lines = [text for text in said.splitlines() if text.startswith(("==", "  ["))]
    assert lines[2].startswith("  [1/1] node1: FAILED: 1 of 1 processes failed. pid ")
    assert lines[2].endswith("(loaded in 1 process)")
    assert "== Wave 1 of 2, turn 1 of 2, taking the patch out: node1" in lines
    assert any(re.fullmatch(r"  \[1/1\] node1: absent in 1 process.*", text) for text in lines)
