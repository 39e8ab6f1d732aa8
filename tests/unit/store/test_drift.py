# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Drift between memory, disk and what is desired is told by its kind, and nothing is told where there is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from bed import NEW, PROGRAM, Bed, Started
from patching import compile_program

from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._store import guard
from module_utils._store.drift import add_drift
from module_utils._store.wanted import states


@pytest.fixture(name="bed")
def fixture_bed(tmp_path: Path) -> Bed:
    """A host that wants the patch."""
    bed = Bed(tmp_path)
    bed.keep(exe=str(bed.program))
    return bed


def _facts(bed: Bed) -> dict[str, Any]:
    facts = gather(["fix"], "all")
    add_drift(facts, bed.store, ["fix"])
    return facts


def _kinds(bed: Bed, pid: int) -> list[str]:
    return [row["kind"] for row in _facts(bed)["drift"] if row["pid"] == pid]


def _patch(bed: Bed, pid: int, active: bool = True) -> None:
    load_patch(bed.patch, Selection(pids=(pid,)))
    if active:
        activate_patch("fix", Selection(pids=(pid,)), Limits())


def test_each_kind_is_told_and_none_where_all_is_as_it_should_be(bed: Bed) -> None:
    with Started(str(bed.program)) as program:
        program.begun()
        assert _kinds(bed, program.pid) == ["missing"]
        assert {"patch": "fix", "pid": program.pid, "exe": str(bed.program), "state": "absent"} in _facts(bed)[
            "missing"
        ]
        _patch(bed, program.pid, active=False)
        assert _kinds(bed, program.pid) == ["not_active"]
        activate_patch("fix", Selection(pids=(program.pid,)), Limits())
        assert program.ask() == NEW
        assert _kinds(bed, program.pid) == []
        bed.store.remove("fix")
        assert _kinds(bed, program.pid) == ["not_desired"]
        bed.keep(enabled=False)
        assert _kinds(bed, program.pid) == ["not_desired"]
        deactivate_patch("fix", Selection(pids=(program.pid,)), Limits())


def test_bytes_that_something_else_changed(bed: Bed) -> None:
    with Started(str(bed.program)) as program:
        program.begun()
        _patch(bed, program.pid)
        with Process(program.pid) as process:
            code = states(process)["fix"].region.sites[0].code
            process.memory.write(code + 1, bytes([process.memory.read(code + 1, 1)[0] ^ 0xFF]))
        assert _kinds(bed, program.pid) == ["modified"]


def test_a_fixed_build_comes_with_a_package(bed: Bed) -> None:
    """The old process keeps its patch, the new one needs none; once the old one is gone the patch is obsolete."""
    with Started(str(bed.program)) as old:
        old.begun()
        _patch(bed, old.pid)
        fixed = compile_program(bed.folder, "fixed", PROGRAM.replace("(x ^ 3)", "(x ^ 2)"))
        os.replace(shutil.copy(fixed, bed.folder / "new"), bed.program)
        with Started(str(bed.program)) as new:
            new.begun()
            facts = _facts(bed)
            entry = facts["desired"]["patches"]["fix"]
            assert entry["vulnerable_build"] == [old.pid]
            assert entry["other_build"] == [new.pid]
            assert entry["obsolete"] is False
            assert _kinds(bed, old.pid) == ["disk_newer"]
            assert _kinds(bed, new.pid) == []
            assert old.ask() == NEW
    assert _facts(bed)["desired"]["patches"]["fix"]["obsolete"] is True


def test_code_that_is_on_no_disk_any_more(bed: Bed) -> None:
    with Started(str(bed.program)) as program:
        program.begun()
        _patch(bed, program.pid)
        bed.program.unlink()
        assert _kinds(bed, program.pid) == ["deleted"]


def test_what_the_guard_holds_back_is_missing_for_that_reason(bed: Bed) -> None:
    for _turn in range(2):
        guard.note_death(bed.store, "fix", str(bed.program), 1, 1, "signal 6 (SIGABRT)")
    with Started(str(bed.program)) as program:
        program.begun()
        rows = [row for row in _facts(bed)["drift"] if row["pid"] == program.pid]
        assert [(row["kind"], row["detail"]) for row in rows] == [("missing", "held back by the crash-loop guard")]
