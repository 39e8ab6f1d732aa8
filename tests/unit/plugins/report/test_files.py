# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The files on the controller: whole, with the right mode, and changed only when more than the time is another."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fleet_facts import CVE, MADE_AT, asked, patch, process

from ansible_collections.cgl.livepatch.plugins.plugin_utils.report import files
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.looks import Look
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.model import model


def _report(made_at: str = MADE_AT, **about: Any) -> dict[str, Any]:
    return model({"a": Look(asked(process(1, patch(**about))))}, made_at, {})


@pytest.fixture
def places(tmp_path: Path) -> files.Places:
    """Where a report is written in a test."""
    folder = str(tmp_path / "report")
    return files.Places(folder + "/report.html", folder + "/report.json", str(tmp_path / "metrics" / "x.prom"))


def test_they_are_written_whole(places: files.Places) -> None:
    files.write(_report(), places)
    assert files.earlier(places) == _report()
    assert sorted(os.listdir(os.path.dirname(places.page))) == ["report.html", "report.json"]
    assert os.listdir(os.path.dirname(places.metrics)) == ["x.prom"]
    assert [os.stat(path).st_mode & 0o777 for path in (places.page, places.json, places.metrics)] == [
        0o640,
        0o640,
        0o644,
    ]
    os.chmod(places.page, 0o600)
    files.write(_report(), places)
    assert os.stat(places.page).st_mode & 0o777 == 0o600


def test_the_time_alone_is_no_change(places: files.Places) -> None:
    assert files.differs(_report(), files.earlier(places), places)
    files.write(_report(), places)
    later = _report("2026-02-03T04:05:06Z")
    assert not files.differs(later, files.earlier(places), places)
    assert files.differs(_report(state="loaded"), files.earlier(places), places)
    files.write(later, places)
    assert json.loads(Path(places.json).read_text("utf-8"))["made_at"] == "2026-02-03T04:05:06Z"
    os.unlink(places.metrics)
    assert files.differs(later, files.earlier(places), places)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made_at": "yesterday"}', '{"made_at": 5}'])
def test_what_is_no_report_is_replaced(places: files.Places, text: str) -> None:
    files.write(_report(), places)
    Path(places.json).write_text(text, "utf-8")
    assert files.earlier(places) == {}
    assert files.differs(_report(), {}, places)


def test_nothing_is_left_of_a_file_that_cannot_be_written(
    places: files.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: str, target: str) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        files.write(_report(), places)
    assert os.listdir(os.path.dirname(places.page)) == []


def test_a_program_whose_name_is_no_text_does_not_hinder_it(places: files.Places) -> None:
    report = model({"a": Look(asked(process(1, patch(), path="/bin/\udcff")))}, MADE_AT, {})
    files.write(report, places)
    assert "/bin/\\udcff" in Path(places.page).read_text("utf-8")
    assert not files.differs(report, files.earlier(places), places)


def test_a_diff_tells_how_hosts_stand() -> None:
    assert files.lines(_report()) == "a: %s fixed in memory\n" % CVE
    assert files.lines(model({"a": Look(None, "x"), "b": Look(asked())}, MADE_AT, {})) == (
        "a: unknown\nb: no CVE is known\n"
    )
    assert files.lines({}) == ""
