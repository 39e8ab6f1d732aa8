# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The order of things: what is asked twice, too early, or beside another patch has its answer and does no harm."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch, symbols
from reports import only
from snapshots import snapshot

from module_utils._engine.activate import Limits
from module_utils._engine.map_region import map_region
from module_utils._engine.operations import (
    Outcome,
    activate_patch,
    deactivate_patch,
    load_patch,
    unload_patch,
)
from module_utils._engine.region import find_regions
from module_utils._patch.content import Patch
from module_utils._patch.manifest import ChangedValue
from module_utils._process.process import Process
from module_utils._process.selection import Selection

PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
__attribute__((noinline, noipa)) int third(int x) { return x + (int)getpid() * 0 + 4; }
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", third(second(first(0))));
}
"""
FAST = Limits(max_stop=1.0, timeout=0.2)


def _code(**values: int) -> str:
    return "#include <unistd.h>\n" + "\n".join(
        "int %s(int x) { return x + (int)getpid() * 0 + %d; }" % item for item in values.items()
    )


class Fixture:
    """One running program, and patches for it."""

    def __init__(self, folder: Path, program: Path, running: Running) -> None:
        self._folder = folder
        self._program = program
        self.running = running
        self.chosen = Selection(pids=(running.pid,))

    def patch(self, patch_id: str, values: dict[str, int], **manifest: object) -> Patch:
        return make_patch(self._folder, self._program, _code(**values), list(values), patch_id, **manifest)

    def load(self, patch: Patch, *forms: str) -> Outcome:
        return only(load_patch(patch, self.chosen, forms=forms or ("byte", "jump")))

    def activate(self, patch_id: str, limits: Limits = FAST) -> Outcome:
        return only(activate_patch(patch_id, self.chosen, limits))

    def deactivate(self, patch_id: str) -> Outcome:
        return only(deactivate_patch(patch_id, self.chosen, FAST))

    def unload(self, patch_id: str, timeout: float = 0.2) -> Outcome:
        return only(unload_patch(patch_id, self.chosen, timeout))

    def answer(self) -> int:
        return int(self.running.ask("?"))


def _code_of(outcome: Outcome) -> str:
    return outcome.error["code"] if outcome.error else ""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(tmp_path_factory.mktemp("order"), "program", PROGRAM)


@pytest.fixture(scope="module", params=[["-fcf-protection=none"], ["-fcf-protection=full"]], ids=["plain", "endbr64"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(tmp_path_factory.mktemp("order"), "program", PROGRAM, *request.param)


def test_everything_twice(tmp_path: Path, program: Path) -> None:
    """Load, activate, deactivate and unload are idempotent; the second time nothing is changed and all is verified."""
    with Running(program) as running:
        given = Fixture(tmp_path, program, running)
        patch = given.patch("fix", {"first": 100})
        before = snapshot(running.pid)
        for state, act, answer in (
            ("loaded", lambda: given.load(patch), 7),
            ("active", lambda: given.activate("fix"), 106),
            ("loaded", lambda: given.deactivate("fix"), 7),
        ):
            for changed in (True, False):
                outcome = act()
                assert (_code_of(outcome), outcome.state, outcome.changed, outcome.verified) == (
                    "",
                    state,
                    changed,
                    True,
                )
                assert given.answer() == answer
        assert given.unload("fix").changed
        assert snapshot(running.pid) == before
        assert unload_patch("fix", given.chosen, 0.2).outcomes == []
        assert deactivate_patch("fix", given.chosen, FAST).outcomes == []


def test_pretending_changes_nothing(tmp_path: Path, program: Path) -> None:
    """Check mode says what would be, and the process is untouched to the byte."""
    with Running(program) as running:
        given = Fixture(tmp_path, program, running)
        patch = given.patch("fix", {"first": 100})
        for pretend, act in (
            (lambda: load_patch(patch, given.chosen, pretend=True), lambda: given.load(patch)),
            (lambda: activate_patch("fix", given.chosen, FAST, pretend=True), lambda: given.activate("fix")),
            (lambda: deactivate_patch("fix", given.chosen, FAST, pretend=True), lambda: given.deactivate("fix")),
            (lambda: unload_patch("fix", given.chosen, 1.0, pretend=True), lambda: given.unload("fix")),
        ):
            before = snapshot(running.pid)
            meant = only(pretend())
            assert snapshot(running.pid) == before
            done = act()
            assert (meant.changed, meant.before, meant.state, meant.switch) == (
                done.changed,
                done.before,
                done.state,
                done.switch,
            )


def test_pretending_to_clear_up(tmp_path: Path, program: Path) -> None:
    """What a tool that died while loading left behind is seen in check mode, too, and taken out without."""
    with Running(program) as running:
        given = Fixture(tmp_path, program, running)
        before = snapshot(running.pid)
        with Process(running.pid) as process:
            map_region(process, "fix", [((0x10000000, 4096, 1), b"half a header")])
        left = snapshot(running.pid)
        assert left != before
        assert only(unload_patch("fix", given.chosen, 1.0, pretend=True)).changed
        assert snapshot(running.pid) == left
        assert given.unload("fix").changed
        assert snapshot(running.pid) == before


def test_wrong_order(tmp_path: Path, program: Path) -> None:
    """Unload while active, activate without load, another patch of the same id: each is told, nothing is changed."""
    with Running(program) as running:
        given = Fixture(tmp_path, program, running)
        assert _code_of(given.activate("fix")) == "not_loaded"
        assert given.load(given.patch("fix", {"first": 100})).changed
        assert _code_of(given.load(given.patch("fix", {"first": 200}))) == "already_loaded"
        assert given.activate("fix").changed
        outcome = given.unload("fix")
        assert (_code_of(outcome), outcome.state, outcome.changed) == ("still_active", "active", False)
        assert _code_of(given.load(given.patch("fix", {"first": 200}))) == "already_loaded"
        assert given.answer() == 106


def test_requires(tmp_path: Path, program: Path) -> None:
    """A required patch must be active first, and stays active while it is needed."""
    with Running(program) as running:
        given = Fixture(tmp_path, program, running)
        given.load(given.patch("base", {"first": 100}))
        given.load(given.patch("more", {"second": 200}, requires=("base",)))
        assert _code_of(given.activate("more")) == "required_patch_missing"
        assert given.activate("base").changed
        assert given.activate("more").changed
        assert given.answer() == 304
        assert _code_of(given.deactivate("base")) == "still_active"
        assert given.answer() == 304
        assert given.deactivate("more").changed
        assert given.deactivate("base").changed
        assert given.answer() == 7


@pytest.mark.parametrize("forms", [("byte", "byte"), ("byte", "jump"), ("jump", "byte"), ("jump", "jump")])
def test_replaces(tmp_path: Path, either: Path, forms: tuple[str, str]) -> None:
    """A patch that replaces others takes them back in its own switch, and bars them; deactivated, it revives none."""
    with Running(either) as running:
        given = Fixture(tmp_path, either, running)
        before = snapshot(running.pid)
        given.load(given.patch("old", {"first": 100, "second": 200}), forms[0], "jump")
        newer = given.patch("new", {"first": 300, "third": 400}, replaces=("old",))
        assert given.activate("old").changed
        assert given.answer() == 304
        assert _code_of(given.load(newer, forms[1], "jump")) == ""
        assert given.activate("new").changed
        assert given.answer() == 702
        assert _states(running.pid) == {"old": "loaded", "new": "active"}
        assert _code_of(given.activate("old")) == "superseded"
        assert given.answer() == 702
        assert given.deactivate("new").changed
        assert given.answer() == 7
        assert _states(running.pid) == {"old": "loaded", "new": "loaded"}
        assert [_code_of(given.unload(name)) for name in ("new", "old")] == ["", ""]
        assert snapshot(running.pid) == before


def test_less_consistency_than_needed_is_refused(tmp_path: Path, program: Path) -> None:
    """What the patch needs is the least; with more it is a stop."""
    with Running(program) as running:
        given = Fixture(tmp_path, program, running)
        given.load(given.patch("fix", {"first": 100}, consistency="atomic"))
        outcome = given.activate("fix", Limits(consistency="entry"))
        assert (_code_of(outcome), outcome.state) == ("patch_unsupported", "loaded")
        outcome = given.activate("fix")
        assert (outcome.switch, outcome.attempts, outcome.stop_us > 0) == ("stop", 1, True)


def test_data_is_replaced_with_the_code(tmp_path: Path) -> None:
    """A changed value is written in the same switch and put back; a value the program changed itself is refused."""
    source = PROGRAM.replace("int main", "volatile int limit = 5;\nint main").replace(
        "third(second(first(0)))", "limit++"
    )
    target = compile_program(tmp_path, "program", source)
    with Running(target) as running:
        given = Fixture(tmp_path, target, running)
        value = ChangedValue("limit", symbols(target)["limit"][0], "05000000", "2a000000")
        assert _code_of(given.load(given.patch("fix", {"first": 100}, data=(value,)))) == ""
        assert given.activate("fix").switch == "stop"
        assert given.answer() == 42
        # The program has changed it meanwhile: it cannot be put back without losing that.
        outcome = given.deactivate("fix")
        assert (_code_of(outcome), given.answer()) == ("object_modified", 43)


def test_several_processes_each_with_its_own_outcome(tmp_path: Path, program: Path) -> None:
    """One process whose code was modified, one that is gone, one that lacks the object: the fourth is patched."""
    with Running(program) as modified, Running(program) as fine, subprocess.Popen(["sleep", "60"]) as foreign:
        gone = Running(program)
        gone.__exit__()
        given = Fixture(tmp_path, program, fine)
        patch = given.patch("fix", {"first": 100})
        offset = patch.manifest.functions[0].offset
        with Process(modified.pid) as process:
            base = min(m.start for m in process.maps() if m.path == str(program))
            byte = process.memory.read(base + offset + 1, 1)
            process.memory.write(base + offset + 1, bytes([byte[0] ^ 1]))
        before = snapshot(modified.pid)
        pids = (modified.pid, fine.pid, foreign.pid, gone.pid)
        outcomes = {one.pid: one for one in load_patch(patch, Selection(pids=pids)).outcomes}
        assert {pid: _code_of(one) for pid, one in outcomes.items()} == {
            modified.pid: "object_modified",
            fine.pid: "",
            foreign.pid: "build_id_mismatch",
            gone.pid: "process_gone",
        }
        assert snapshot(modified.pid) == before
        assert livepatch_mappings(fine.pid)
        foreign.kill()


def test_unload_waits_until_everyone_has_left(tmp_path: Path) -> None:
    """A thread that sleeps in the patch, below others, bars the unloading until it has left."""
    source = r"""
#include <stdio.h>
#include <unistd.h>
#include <pthread.h>
__attribute__((noinline, noipa)) int first(int x) { usleep(1000); return x + 1; }
static void *loop(void *nothing) { for (;;) first(1); }
int main(void) {
    char line[100];
    pthread_t thread;
    pthread_create(&thread, 0, loop, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) puts("?");
}
"""
    target = compile_program(tmp_path, "program", source)
    fixed = "#include <unistd.h>\nint first(int x) { usleep(700000); return x + 100; }"
    with Running(target) as running:
        given = Fixture(tmp_path, target, running)
        patch = make_patch(tmp_path, target, fixed, ["first"])
        before = snapshot(running.pid)
        given.load(patch)
        given.activate("fix")
        time.sleep(0.1)
        given.deactivate("fix")
        thread = next(int(name) for name in os.listdir("/proc/%d/task" % running.pid) if int(name) != running.pid)
        outcome = given.unload("fix", timeout=0.1)
        assert (_code_of(outcome), outcome.state, outcome.verified) == ("function_busy", "loaded", True)
        assert outcome.error is not None
        assert "thread %d " % thread in outcome.error["message"]
        assert _code_of(given.unload("fix", timeout=3.0)) == ""
        after = snapshot(running.pid)
        assert (after.code, after.descriptors) == (before.code, before.descriptors)
        assert not livepatch_mappings(running.pid)
        assert running.ask("?") == "?"


def _states(pid: int) -> dict[str, str]:
    with Process(pid) as process:
        ids = [region.id for region in find_regions(process.memory, process.maps())]
    chosen = Selection(pids=(pid,))
    return {name: only(unload_patch(name, chosen, 0.1, pretend=True)).before for name in ids}
