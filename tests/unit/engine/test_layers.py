# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Several patches on one place: the program answers, and the engine says, what a model of a few lines says.

The model's state is the tuple of active patches in order of activation. Every state that can be reached is visited, and
from each of them every activation and deactivation is tried.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest
from patching import Running, compile_program, make_patch, symbols
from snapshots import snapshot

from module_utils._engine.activate import Limits, activate, deactivate
from module_utils._engine.facts import gather
from module_utils._engine.layers import Layers, place_of
from module_utils._engine.load import load, prepare
from module_utils._engine.unload import unload
from module_utils._engine.verify import verify
from module_utils._errors import LivepatchError
from module_utils._patch.manifest import ChangedValue
from module_utils._process.memory import Memory
from module_utils._process.objects import mapped_objects
from module_utils._process.process import Process

PROGRAM = r"""
#include <stdio.h>
#include <unistd.h>
volatile int limit = 5;
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d %d %d\n", first(0), second(0), limit);
}
"""
OWN = {"first": 1, "second": 2, "limit": 5}
LIMITS = Limits(max_stop=2.0, timeout=1.0)


@dataclass(frozen=True)
class Kind:
    """One patch of the model: what it makes of functions and values, and what it says of others."""

    values: dict[str, int]
    requires: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """What should be: states are tuples of active patches, in order."""

    kinds: dict[str, Kind]

    def answer(self, state: tuple[str, ...]) -> str:
        seen = dict(OWN)
        for name in state:
            seen.update(self.kinds[name].values)
        return "%d %d %d" % (seen["first"], seen["second"], seen["limit"])

    def top(self, state: tuple[str, ...], symbol: str) -> str:
        return next((name for name in reversed(state) if symbol in self.kinds[name].values), "")

    def step(self, state: tuple[str, ...], act: str, name: str) -> tuple[str, tuple[str, ...]]:
        """The error's code, or nothing, and the state after it."""
        kind = self.kinds[name]
        if (name in state) == (act == "activate"):
            return "", state
        if act == "deactivate":
            left = tuple(other for other in state if other != name)
            return ("still_active", state) if self._needed(left, name) else ("", left)
        if not set(kind.requires) <= set(state):
            return "required_patch_missing", state
        if any(name in self.kinds[other].replaces for other in state):
            return "superseded", state
        left = tuple(other for other in state if other not in kind.replaces)
        if any(self._needed(left, other) for other in kind.replaces if other in state):
            return "still_active", state
        return "", (*left, name)

    def _needed(self, state: tuple[str, ...], name: str) -> bool:
        return any(name in self.kinds[other].requires for other in state)

    def acts(self) -> list[tuple[str, str]]:
        return [(act, name) for name in self.kinds for act in ("activate", "deactivate")]

    def ways(self) -> dict[tuple[str, ...], list[tuple[str, str]]]:
        """Every state that can be reached, with the shortest way to it from nothing active."""
        found: dict[tuple[str, ...], list[tuple[str, str]]] = {(): []}
        todo: list[tuple[str, ...]] = [()]
        while todo:
            state = todo.pop(0)
            for act in self.acts():
                _error, after = self.step(state, *act)
                if after not in found:
                    found[after] = [*found[state], act]
                    todo.append(after)
        return found


STACKED = Model(
    {
        "one": Kind({"first": 100}),
        "two": Kind({"first": 200, "second": 220}),
        "three": Kind({"first": 300}),
        "other": Kind({"second": 440}),
    }
)
BOUND = Model(
    {
        "one": Kind({"first": 100}),
        "two": Kind({"first": 200, "second": 220}, requires=("one",)),
        "all": Kind({"first": 300}, replaces=("one", "two")),
        "sum": Kind({"second": 440}, replaces=("one",)),
    }
)
TAKING_OVER = Model(
    {
        "one": Kind({"first": 100}),
        "other": Kind({"second": 440}),
        "both": Kind({"first": 300, "second": 330}, replaces=("one", "other")),
        "late": Kind({"second": 550}),
    }
)
VALUES = Model(
    {
        "one": Kind({"first": 100, "limit": 15}),
        "two": Kind({"limit": 25}),
        "three": Kind({"limit": 25, "second": 330}),
        "other": Kind({"second": 440}),
    }
)


class Stacked:
    """A running program with all patches of a model loaded."""

    def __init__(self, folder: Path, program: Path, running: Running, model: Model, forms: tuple[str, ...]) -> None:
        self.pid, self.model, self._running = running.pid, model, running
        for name, kind in model.kinds.items():
            functions = [symbol for symbol in kind.values if symbol != "limit"]
            code = "#include <unistd.h>\n" + "\n".join(
                "int %s(int x) { return x + (int)getpid() * 0 + %d; }" % (symbol, kind.values[symbol])
                for symbol in functions
            )
            data = ()
            if "limit" in kind.values:
                new = kind.values["limit"].to_bytes(4, "little").hex()
                data = (ChangedValue("limit", symbols(program)["limit"][0], "05000000", new),)
            patch = make_patch(
                folder,
                program,
                code,
                functions,
                name,
                requires=kind.requires,
                replaces=kind.replaces,
                data=data,
            )
            with Process(self.pid) as process:
                load(process, prepare(process, patch, forms))

    def do(self, act: str, name: str, limits: Limits = LIMITS) -> tuple[str, bool]:
        """The error's code, and whether anything changed."""
        with Process(self.pid) as process:
            try:
                return "", {"activate": activate, "deactivate": deactivate}[act](process, name, limits).changed
            except LivepatchError as error:
                return error.code, False

    def answer(self) -> str:
        return self._running.ask("?")

    def reach(self, way: list[tuple[str, str]]) -> None:
        """From any state to the one at the end of a way."""
        active = self.state()
        while active:
            for name in reversed(active):
                self.do("deactivate", name)
            active = self.state()
        for act in way:
            assert self.do(*act) == ("", True)

    def state(self) -> tuple[str, ...]:
        """The patches that are active, in order, as the process says."""
        with Process(self.pid) as process:
            layers = Layers.of(process)
            return tuple(region.id for region in layers.regions if layers.state(region) == "active")

    def check(self, state: tuple[str, ...], context: object) -> None:
        """The program answers, and each patch is told, as in this state of the model."""
        assert self.answer() == self.model.answer(state), context
        with Process(self.pid) as process:
            layers = Layers.of(process)
            objects = mapped_objects(process.memory, process.maps())
            for region in layers.regions:
                told = verify(process, region, layers, objects)
                expected = "active" if region.id in state else "loaded"
                assert (told.state, told.verified, told.reasons) == (expected, True, ()), (context, region.id)
                assert region.mutable.state == {"active": 4, "loaded": 2}[expected], (context, region.id)
                for site in region.sites:
                    if site.kind != "data":
                        assert layers.top(place_of(site)) == self.model.top(state, site.name), (context, region.id)
        assert self.state() == state, context


def _program(folder: Path, *flags: str) -> Path:
    return compile_program(folder, "program", PROGRAM, *flags)


CASES = [
    pytest.param(STACKED, ("byte", "jump"), "none", id="stacked-byte"),
    pytest.param(STACKED, ("jump",), "none", id="stacked-jump"),
    pytest.param(BOUND, ("byte", "jump"), "none", id="bound"),
    pytest.param(VALUES, ("byte", "jump"), "none", id="values"),
]
if os.environ.get("LIVEPATCH_DEATHS") == "all":  # make deaths
    CASES += [
        pytest.param(STACKED, ("byte", "jump"), "full", id="stacked-byte-endbr64"),
        pytest.param(STACKED, ("jump",), "full", id="stacked-jump-endbr64"),
    ]


@pytest.mark.parametrize(("model", "forms", "protection"), CASES)
def test_every_step_from_every_state(tmp_path: Path, model: Model, forms: tuple[str, ...], protection: str) -> None:
    """Whatever is active in whatever order: each activation and deactivation has the model's outcome."""
    program = _program(tmp_path, "-fcf-protection=" + protection)
    with Running(program) as running:
        before = snapshot(running.pid)
        given = Stacked(tmp_path, program, running, model, forms)
        ways = model.ways()
        assert len(ways) >= 7
        for state, way in ways.items():
            for act in model.acts():
                if given.state() != state:
                    given.reach(way)
                expected, after = model.step(state, *act)
                assert given.do(*act) == (expected, after != state), (state, act)
                given.check(after, (state, act))
        given.reach([])
        with Process(running.pid) as process:
            for name in model.kinds:
                assert unload(process, name, 1.0)
        assert snapshot(running.pid) == before


def test_one_that_is_covered(tmp_path: Path) -> None:
    """A covered patch is active and told so; out of use it can be unloaded, and what lies over and under it stays."""
    program = _program(tmp_path)
    with Running(program) as running:
        given = Stacked(tmp_path, program, running, STACKED, ("byte", "jump"))
        for name in ("one", "two", "three"):
            assert given.do("activate", name) == ("", True)
        facts = next(fact for fact in gather([], "patched")["processes"] if fact["pid"] == running.pid)
        told = {patch["id"]: patch for patch in facts["patches"]}
        assert {name: (patch["state"], patch["verified"]) for name, patch in told.items()} == {
            "one": ("active", True),
            "two": ("active", True),
            "three": ("active", True),
            "other": ("loaded", True),
        }
        tops = {
            (name, one["name"]): (one["redirected_by"], one["redirected_to"])
            for name, patch in told.items()
            for one in patch["functions"]
        }
        assert {key: by for key, (by, _to) in tops.items()} == {
            ("one", "first"): "three",
            ("two", "first"): "three",
            ("two", "second"): "two",
            ("three", "first"): "three",
            ("other", "second"): "two",
        }
        assert tops["one", "first"] == tops["three", "first"]
        with Process(running.pid) as process:
            with pytest.raises(LivepatchError, match="patch one is active"):
                unload(process, "one", 0.1)
            assert deactivate(process, "one", LIMITS).switch == "none"
            assert unload(process, "one", 1.0)
        assert given.answer() == "300 220 5"
        assert given.do("deactivate", "three") == ("", True)
        assert given.answer() == "200 220 5"
        assert given.do("deactivate", "two") == ("", True)
        assert given.answer() == "1 2 5"


def test_a_value_the_program_changed(tmp_path: Path) -> None:
    """It is not overwritten, from above or below; what is covered comes out all the same, and others still switch."""
    program = _program(tmp_path)
    with Running(program) as running:
        given = Stacked(tmp_path, program, running, VALUES, ("byte", "jump"))
        assert given.do("activate", "one") == ("", True)
        assert given.do("activate", "two") == ("", True)
        with Process(running.pid) as process:
            region = Layers.of(process).region("two")
            assert region is not None
            site = next(site for site in region.sites if site.kind == "data")
            process.memory.write(site.address, b"\x63\0\0\0")
        assert given.do("deactivate", "two") == ("object_modified", False)
        assert given.do("activate", "three") == ("object_modified", False)
        assert given.answer() == "100 2 99"
        assert given.do("activate", "other") == ("", True)
        assert given.do("deactivate", "one") == ("", True)
        assert given.answer() == "1 440 99"
        assert given.state() == ("two", "other")


def test_too_short_for_two(tmp_path: Path) -> None:
    """Where only the one-byte switch fits, the second patch of a function is refused, and told which one is there."""
    program = _program(tmp_path)
    fixed = "int first(int x) { return x + 100; }"
    patches = [make_patch(tmp_path, program, fixed, ["first"], "short%d" % turn, overwritable=3) for turn in range(6)]
    for _process in range(20):  # in one of them a place that the bytes name is free
        with Running(program) as running, Process(running.pid) as process:
            refused = None
            loaded = []
            for patch in patches:
                try:
                    load(process, prepare(process, patch))
                except LivepatchError as error:
                    refused = error
                    break
                loaded.append(patch.manifest.id)
        assert refused is not None
        assert refused.code == "function_too_short"
        if loaded:
            assert any("patch %s, which changes it too" % name in refused.message for name in loaded)
            assert any("Unload patch %s" % name in refused.remedy for name in loaded)
            return
    raise AssertionError("no process had room")


def _killed(work: Callable[[], object], touch: int) -> bool:
    """Do it in a child that is killed before or after a write, counted by twos; False when it made fewer."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), status
        return status != 0
    left, write = [touch], Memory.write

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(memory: Memory, address: int, data: bytes) -> None:
        count()
        write(memory, address, data)
        count()

    try:
        Memory.write = deadly  # type: ignore[method-assign]
        work()
        os._exit(0)
    except BaseException:
        os._exit(99)


DEATHS = [
    pytest.param(STACKED, ("one", "other"), ("activate", "two"), id="activate-over-two"),
    pytest.param(STACKED, ("one", "two", "other"), ("deactivate", "two"), id="deactivate-between"),
    pytest.param(STACKED, ("one", "other", "two"), ("deactivate", "two"), id="deactivate-top"),
    pytest.param(BOUND, ("one", "two"), ("activate", "all"), id="replace-two"),
    pytest.param(TAKING_OVER, ("one", "other"), ("activate", "both"), id="take-over-two"),
    pytest.param(VALUES, ("one", "other"), ("activate", "three"), id="activate-value"),
    pytest.param(VALUES, ("one", "three"), ("deactivate", "three"), id="deactivate-value"),
]


THENS = ("same", "opposite", "another", "same after more deaths")
FORMS = [pytest.param(("byte", "jump"), id="byte"), pytest.param(("jump",), id="jump")]
# What comes after each death in turn with the one way to switch and the other; with make deaths in both.
DYING = [
    pytest.param(*act.values, *form.values, then, id="%s-%s-%s" % (then, act.id, form.id))
    for at, act in enumerate(DEATHS)
    for number, then in enumerate(THENS)
    for way, form in enumerate(FORMS)
    if (at + number + way) % 2 == 0 or os.environ.get("LIVEPATCH_DEATHS") == "all"
]


@pytest.mark.parametrize(("model", "state", "act", "forms", "then"), DYING)
def test_the_tool_dies(
    tmp_path: Path, model: Model, state: tuple[str, ...], act: tuple[str, str], forms: tuple[str, ...], then: str
) -> None:
    """Killed before or after any write: each place is as before or as asked, and whatever comes next starts from one.

    That is from the state before, or from the one asked for, of all patches together.
    """
    program = _program(tmp_path)
    with Running(program) as running:
        given = Stacked(tmp_path, program, running, model, forms)
        _error, after = model.step(state, *act)
        opposite = ({"activate": "deactivate", "deactivate": "activate"}[act[0]], act[1])
        another = next(one for one in model.acts() if one[0] == "activate" and one[1] not in (*state, act[1]))
        following = {"same": act, "opposite": opposite, "another": another}.get(then, act)
        deaths = 0
        while True:
            given.reach(model.ways()[state])
            if not _killed(lambda: given.do(*act), deaths + 1):
                break
            deaths += 1
            between = [set(pair) for pair in zip(model.answer(state).split(), model.answer(after).split())]
            assert all(now in pair for now, pair in zip(given.answer().split(), between)), deaths
            if then == "same after more deaths":
                for again in range(1, 1 + deaths % 12):
                    _killed(lambda: given.do(*opposite), again)
            outcomes = [model.step(one, *following) for one in (state, after)]
            error, _changed = given.do(*following)
            now = given.state()
            assert (error, now) in outcomes, deaths
            given.check(now, deaths)
        assert deaths >= 4
        given.check(after, "undisturbed")
