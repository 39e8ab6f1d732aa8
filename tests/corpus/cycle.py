# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""One fix through its whole life in the running program, under load: what is asserted, and what is measured."""

from __future__ import annotations

import dataclasses
import os

import pytest

from debian import snapshot
from module_utils._build.build import build
from module_utils._build.request import BuildRefused
from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import ABSENT, ACTIVE, LOADED, Report
from module_utils._patch.reader import read_patch_file
from module_utils._process.selection import Selection

from .program import Fix
from .running import Load, Running
from .subject import Subject

# How many requests must be answered in each state.
REQUESTS = 20


@dataclasses.dataclass
class Row:
    """What came of one fix; a row of docs/corpus.md. Times are microseconds."""

    program: str
    version: str
    cves: str
    result: str
    functions: str = ""
    stands_on: str = ""
    refusal: str = ""
    why: str = ""
    stop_us: int = 0
    switch: str = ""
    done: int = 0
    lost: int = 0
    behaviour: str = ""


def refused(subject: Subject, fix: Fix, folder: str) -> Row:
    """The fix is refused, with the codes and for the reason that were examined."""
    diff, stands_on = subject.diffs(fix, folder)
    with pytest.raises(BuildRefused) as caught:
        build(subject.request(fix, diff), _silent)
    refusals = caught.value.refusals
    found = [f"{one.code} {one.symbol}: {one.reason}" for one in refusals]
    assert sorted({one.code for one in refusals}) == sorted(fix.refused.split()), found
    assert any(fix.refuses in line for line in found), found
    row = Row(subject.program.name, subject.version, fix.cves, "refused", stands_on=", ".join(stands_on))
    row.refusal, row.why = fix.refused, fix.why
    return row


def patched(subject: Subject, fix: Fix, folder: str) -> Row:
    """Build, load, activate, verify, show, deactivate, unload."""
    diff, stands_on = subject.diffs(fix, folder)
    try:
        built = build(subject.request(fix, diff), _silent)
    except BuildRefused as error:
        found = [f"{one.code} {one.symbol} {one.file}: {one.reason}" for one in error.refusals]
        raise AssertionError("\n".join([f"{fix.cves} is refused:", *found])) from None
    path = os.path.join(folder, fix.id + ".lpatch")
    with open(path, "wb") as stream:
        stream.write(built.content)
    patch = read_patch_file(path)
    row = Row(subject.program.name, subject.version, fix.cves, "patched", stands_on=", ".join(stands_on), why=fix.why)
    row.functions = ", ".join(function.name for function in patch.manifest.functions)
    with Running(subject, folder) as running, Load(subject.program, running.port) as load:
        load.wait_for(REQUESTS)
        pids = running.pids()
        meant = Selection(pids=pids)
        before = {pid: snapshot.take(pid) for pid in pids}

        def behaves(expected: str) -> None:
            load.wait_for(REQUESTS)
            if fix.probe and expected:
                answer = fix.probe.ask(running, subject.debian_patches(fix))
                assert answer == expected, (answer, expected, running.log()[-2000:])

        unfixed, fixed = (fix.probe.unfixed, fix.probe.fixed) if fix.probe else ("", "")
        behaves(unfixed)
        _check(load_patch(patch, meant), LOADED)
        behaves(unfixed)
        activation = activate_patch(fix.id, meant, Limits())
        _check(activation, ACTIVE)
        _check_facts(fix.id, pids, [function.name for function in patch.manifest.functions])
        behaves(fixed)
        row.stop_us = max(outcome.stop_us for outcome in activation.outcomes)
        row.switch = activation.outcomes[0].switch
        _check(deactivate_patch(fix.id, meant, Limits()), LOADED)
        behaves(unfixed)
        _check(unload_patch(fix.id, meant, 10.0), ABSENT)
        behaves(unfixed)
        assert running.pids() == pids, "a process ended, or a new one began"
        left = [line for pid in pids for line in snapshot.differences(before[pid], snapshot.take(pid))]
        assert left == [], left
        count = load.count()
    row.done, row.lost = count.done, count.lost
    row.behaviour = f"{unfixed or '(the process ends)'} → {fixed}" if fix.probe else ""
    assert count.lost == 0, count
    return row


def _check(report: Report, state: str) -> None:
    """Every process was changed, is in this state, and its bytes say so."""
    assert report.outcomes, "no process maps the object"
    for outcome in report.outcomes:
        assert outcome.error is None, outcome
        assert (outcome.state, outcome.verified, outcome.changed) == (state, True, True), outcome


def _check_facts(patch_id: str, pids: tuple[int, ...], functions: list[str]) -> None:
    """What the processes themselves say: this patch and no other is active in each, with all its functions."""
    facts = gather([patch_id], "affected")
    seen = {one["pid"]: one["patches"] for one in facts["processes"] if one["pid"] in pids}
    assert set(seen) == set(pids), (seen, pids)
    for patches in seen.values():
        (patch,) = patches
        assert (patch["state"], patch["verified"]) == (ACTIVE, True), patch
        assert sorted(function["name"] for function in patch["functions"]) == sorted(functions), patch


def _silent(_text: str) -> None:
    """Whoever waits for a build here sees the test's name."""
