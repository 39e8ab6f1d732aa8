# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tool dies, loses the child that does the work, or comes to a halt, at any point at which it touches a program.

Here at some of the points, each time others; `make deaths` goes through all of them.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Callable, Iterator

import pytest
from deaths import FIXED, HALT, Served, Tool, compile_server, served
from patching import livepatch_mappings, make_patch
from snapshots import Snapshot, snapshot, states, tracers

from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._engine.region import find_regions
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._ptrace.watchdog import MARGIN

ALL = os.environ.get("LIVEPATCH_DEATHS") == "all"
SEED = int(os.environ.get("LIVEPATCH_SEED", "0")) or random.randrange(1, 1 << 31)
# At how many points of each operation, where not at all of them.
SOME = {"die": 7, "lose": 3, "halt": 3}
BUDGET = 0.1
# What a machine that does other things may add to a pause, seconds (0.8 were seen at a load of 8 on two processors): it
# is told from a halt of the tool, which lasts twice as long.
NOISE = HALT / 2
WAYS = {
    "byte": (("byte", "jump"), Limits(BUDGET, 5.0, "entry")),
    "stop": (("jump",), Limits(BUDGET, 5.0, "atomic")),
}
CASES = [("load", "byte"), ("activate", "byte"), ("activate", "stop"), ("deactivate", "byte"), ("deactivate", "stop")]
CASES += [("unload", "byte")]
ORDER = ["load", "activate", "deactivate", "unload"]
OPPOSITE = {"load": "unload", "activate": "deactivate", "deactivate": "activate", "unload": "load"}
LEADS_TO = {"load": "loaded", "activate": "active", "deactivate": "loaded", "unload": "absent"}
OLD, NEW = [1, 2], [100, 200]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("deaths")
    program = compile_server(folder)
    return program, make_patch(folder, program, FIXED, ["first", "second"])


class Scene:
    """A server, a patch and a way to switch: what can be done, and what must hold after it."""

    def __init__(self, running: Served, patch: Patch, way: str) -> None:
        self.running = running
        self._start = snapshot(running.pid)
        forms, limits = WAYS[way]
        chosen = Selection(pids=(running.pid,))
        self.work: dict[str, Callable[[], Report]] = {
            "load": lambda: load_patch(patch, chosen, forms=forms),
            "activate": lambda: activate_patch("fix", chosen, limits),
            "deactivate": lambda: deactivate_patch("fix", chosen, limits),
            "unload": lambda: unload_patch("fix", chosen, 5.0),
        }

    def do(self, name: str, where: object) -> None:
        """An operation that must succeed, with what must hold after it."""
        report = self.work[name]()
        assert [outcome.error for outcome in report.outcomes] in ([], [None]), (where, report)
        self.check(where, LEADS_TO[name])

    def check(self, where: object, state: str = "") -> None:
        """The program is well, facts are true, and, where that is known, it is in this state."""
        pid = self.running.pid
        assert tracers(pid) == {"0"}, where
        assert not states(pid) & {"t", "T"}, where
        answers = self.running.answers()
        assert all(answer in pair for answer, pair in zip(answers, zip(OLD, NEW))), where
        assert self.running.is_serving(), where
        with Process(pid) as process:
            for region in find_regions(process.memory, process.maps()):
                for site in region.sites:
                    assert process.memory.read(site.address, len(site.old)) in (site.old, site.new), where
        told = self._facts()
        assert [bool(function) for function in told[1]] == [answer >= 100 for answer in answers] or (
            not told[1] and answers == OLD
        ), (where, told, answers)
        assert (told[0] == "active") == (answers == NEW), (where, told, answers)
        assert told[2] == (answers in (OLD, NEW)) or told[0] == "absent", (where, told, answers)
        if state:
            assert told[0] == state, (where, told)
            assert told[2], (where, told)
        if state == "absent":
            now = snapshot(pid)
            assert _parts(now) == _parts(self._start), where
            assert not livepatch_mappings(pid)

    def _facts(self) -> tuple[str, list[str], bool]:
        """The state of the patch, where its functions lead to, and whether that is verified, as facts have it."""
        for process in gather(["fix"], "patched")["processes"]:
            if process["pid"] == self.running.pid:
                # What a load or an unloading left half done is shown, but as not verified; it is not loaded.
                whole = [
                    patch for patch in process["patches"] if not any("did not end" in why for why in patch["reasons"])
                ]
                assert len(whole) <= 1
                for patch in whole:
                    return patch["state"], [one["redirected_to"] for one in patch["functions"]], patch["verified"]
        return "absent", [], True


def _parts(one: Snapshot) -> tuple[str, dict[str, str], dict[str, str]]:
    return one.maps, one.code, one.descriptors


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def scene(request: pytest.FixtureRequest, made: tuple[Path, Patch]) -> Iterator[tuple[Scene, str]]:
    """A server in the state in which an operation begins, and the operation."""
    name, way = request.param
    program, patch = made
    with served(program) as running:
        ready = Scene(running, patch, way)
        for before in ORDER[: ORDER.index(name)]:
            ready.do(before, "begin")
        yield ready, name
        for after in [OPPOSITE[name]] if name == "unload" else []:
            ready.do(after, "end")
        for after in ("deactivate", "unload"):
            ready.do(after, "end") if after == "unload" or name in ("activate", "deactivate") else None


def _points(scene: Scene, name: str, fate: str) -> list[int]:
    """At which points: all, or some that are chosen anew each time; and how many there are is said."""
    whole = Tool(scene.work[name], 0)
    assert whole.ended() == "done"
    scene.check((name, "whole"), LEADS_TO[name])
    scene.do(OPPOSITE[name], (name, "whole"))
    print("%s: %d points; seed %d" % (name, whole.points, SEED))
    every = list(range(1, whole.points + 1))
    assert whole.points >= 8
    return every if ALL else sorted(random.Random(SEED).sample(every, min(SOME[fate], len(every))))


def test_the_tool_is_killed(scene: tuple[Scene, str]) -> None:
    """The next run of the same operation succeeds, and so does that of its opposite."""
    ready, name = scene
    met = 0
    for index, point in enumerate(_points(ready, name, "die")):
        for same_first in (True, False) if ALL else (bool(index % 2),):
            tool = Tool(ready.work[name], point)
            where = (name, point, same_first, SEED, tool.ended())
            assert where[-1] == ("killed" if tool.was_met else "done"), where
            met += tool.was_met
            ready.check(where)
            if same_first:
                ready.do(name, where)
            ready.do(OPPOSITE[name], where)
    assert met


def test_the_child_that_does_the_work_is_killed(scene: tuple[Scene, str]) -> None:
    """The operation itself goes on with another child, and succeeds."""
    ready, name = scene
    for point in _points(ready, name, "lose"):
        tool = Tool(ready.work[name], point, "lose")
        where = (name, point, SEED, tool.ended())
        assert where[-1] == "done", where
        ready.check(where, LEADS_TO[name])
        ready.do(OPPOSITE[name], where)


def test_the_tool_comes_to_a_halt(scene: tuple[Scene, str]) -> None:
    """Stopped for seconds at a point: no thread of the program stands still past the budget and the margin."""
    ready, name = scene
    for point in _points(ready, name, "halt"):
        ready.running.longest_pause()
        tool = Tool(ready.work[name], point, "halt")
        where = (name, point, SEED, tool.ended())
        assert where[-1] == "done", where
        pause = ready.running.longest_pause()
        assert pause < BUDGET + MARGIN + NOISE, (where, pause)
        ready.check(where, LEADS_TO[name])
        ready.do(OPPOSITE[name], where)
