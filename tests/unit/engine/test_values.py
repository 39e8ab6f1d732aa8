# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Values: compared before, written together with the functions, put back after; what the program changed is its own.

(Values under and over each other, and deaths of the tool between them: test_layers.)
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable

import pytest
from patching import Running, compile_program, make_patch, symbols
from reports import only

from module_utils._engine import make_switch
from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Outcome, Report
from module_utils._errors import LivepatchError
from module_utils._patch.content import Patch
from module_utils._patch.manifest import ChangedValue
from module_utils._process.process import Process
from module_utils._process.selection import Selection

# Threads that compare: `limit`, what `level` answers, `limit` again. Where the two are the same, so is what is between.
# `table` lies on two pages.
PROGRAM = r"""
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
volatile int limit = 5;
__attribute__((aligned(8192))) char pages[8192] = "pages";
char *const table = pages + 4096 - 8;
static atomic_long looks, mixed;
__attribute__((noinline, noipa)) int level(void) { __asm__ volatile(""); return 5; }
static void *compare(void *nothing)
{
    for (;;) {
        int before = limit, between = level(), after = limit;
        __asm__ volatile("" ::: "memory");
        looks++;
        if (before == after && before != between)
            mixed++;
    }
    return 0;
}
int main(int count, char **words)
{
    char line[100];
    pthread_t thread;
    for (int index = 0; index < atoi(words[1]); index++)
        pthread_create(&thread, 0, compare, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'm')
            printf("%ld %d\n", (long)mixed, looks > 0);
        else if (*line == 's')
            printf("%d\n", limit = atoi(line + 1));
        else
            printf("%d %d %d %d\n", limit, level(), table[0], table[15]);
    }
    return 0;
}
"""
NEW_CODE = "int level(void) { return 9; }"
LIMITS = Limits(max_stop=2.0, timeout=5.0)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(tmp_path_factory.mktemp("program"), "program", PROGRAM)


def _patch(folder: Path, program: Path, functions: bool = True, wide: bool = False) -> Patch:
    """A patch that makes 9 of `limit` (and of `level`), or letters of what lies across two pages."""
    there = symbols(program)
    data = (ChangedValue("limit", there["limit"][0], "05000000", "09000000"),)
    if wide:
        data += (ChangedValue("table", there["pages"][0] + 4096 - 8, bytes(16).hex(), (b"x" * 16).hex()),)
    return make_patch(folder, program, NEW_CODE if functions else "", ["level"] if functions else [], data=data)


def _done(report: Report) -> Outcome:
    outcome = only(report)
    assert (outcome.error, outcome.changed, outcome.verified) == (None, True, True)
    return outcome


def _refused(outcome: Outcome, state: str) -> None:
    assert outcome.error is not None
    assert outcome.error["code"] == "object_modified"
    assert "limit" in outcome.error["message"]
    assert (outcome.state, outcome.changed) == (state, False)


@pytest.mark.parametrize("functions", [True, False], ids=["with a function", "alone"])
def test_written_in_a_stop_and_put_back(tmp_path: Path, program: Path, functions: bool) -> None:
    """Across two pages, too, and never by the way that stops nobody, even where it is one byte."""
    patch = _patch(tmp_path, program, functions, wide=True)
    with Running(program, "0") as running:
        meant = Selection(pids=(running.pid,))
        _done(load_patch(patch, meant))
        for _turn in range(3):
            assert running.ask("?") == "5 5 0 0"
            assert _done(activate_patch("fix", meant, LIMITS)).switch == "stop"
            assert running.ask("?") == ("9 9 120 120" if functions else "9 5 120 120")
            assert _done(deactivate_patch("fix", meant, LIMITS)).switch == "stop"
        assert running.ask("?") == "5 5 0 0"
        _done(unload_patch("fix", meant, 5))


def test_written_in_the_same_stop_as_functions(tmp_path: Path, program: Path) -> None:
    """No thread ever sees the new value with the old function, or the old one with the new."""
    patch = _patch(tmp_path, program)
    with Running(program, "2") as running:
        meant = Selection(pids=(running.pid,))
        _done(load_patch(patch, meant))
        _wait_for(running, lambda answer: answer == "0 1")
        for _turn in range(20):
            _done(activate_patch("fix", meant, LIMITS))
            _done(deactivate_patch("fix", meant, LIMITS))
        assert running.ask("m") == "0 1"


def test_apart_they_would_be_seen(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter-check: a value written while all run, before the function, is noticed by the same program."""
    patch = _patch(tmp_path, program)

    def apart(process: Process, writes: list[make_switch.Write], *_others: Any) -> tuple[int, int]:
        (write,) = [write for write in writes if write.site.kind == "data"]
        process.memory.write(write.address, write.new)
        _wait_for(running, lambda answer: answer != "0 1")
        process.memory.write(write.address, write.old)
        raise LivepatchError("internal", "enough seen")

    monkeypatch.setattr("module_utils._engine.activate.switch_stopped", apart)
    with Running(program, "2") as running:
        meant = Selection(pids=(running.pid,))
        _done(load_patch(patch, meant))
        _wait_for(running, lambda answer: answer == "0 1")
        error = only(activate_patch("fix", meant, LIMITS)).error
        assert error is not None
        assert error["message"] == "enough seen"
        assert running.ask("m") not in ("0 0", "0 1")


def _wait_for(running: Running, fits: Callable[[str], bool]) -> None:
    """Until the threads that compare have seen something."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not fits(running.ask("m")):
        time.sleep(0.001)


def test_one_that_the_program_changed_before(tmp_path: Path, program: Path) -> None:
    """It is compared before anything is written: neither value nor function is changed."""
    patch = _patch(tmp_path, program)
    with Running(program, "0") as running:
        meant = Selection(pids=(running.pid,))
        _done(load_patch(patch, meant))
        assert running.ask("s6") == "6"
        _refused(only(activate_patch("fix", meant, LIMITS)), "loaded")
        assert running.ask("?") == "6 5 0 0"
        assert running.ask("s5") == "5"
        _done(activate_patch("fix", meant, LIMITS))
        assert running.ask("?") == "9 9 0 0"
        # and on the way back
        assert running.ask("s7") == "7"
        _refused(only(deactivate_patch("fix", meant, LIMITS)), "active")
        assert running.ask("?") == "7 9 0 0"
        assert running.ask("s9") == "9"
        _done(deactivate_patch("fix", meant, LIMITS))
        assert running.ask("?") == "5 5 0 0"


@pytest.mark.parametrize("change", ["activate", "deactivate"])
def test_one_that_the_program_changes_at_the_last_moment(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Between the last look and the stop: it is compared again when nobody can change it any more."""
    patch = _patch(tmp_path, program)
    way = {"activate": activate_patch, "deactivate": deactivate_patch}[change]
    with Running(program, "0") as running:
        meant = Selection(pids=(running.pid,))
        _done(load_patch(patch, meant))
        if change == "deactivate":
            _done(activate_patch("fix", meant, LIMITS))
        before = running.ask("?")
        stop = make_switch.stopped

        def late(process: Process, budget: float) -> Any:
            running.ask("s8")
            return stop(process, budget)

        with monkeypatch.context() as meddling:
            meddling.setattr(make_switch, "stopped", late)
            _refused(only(way("fix", meant, LIMITS)), "loaded" if change == "activate" else "active")
        assert running.ask("?") == "8" + before[1:]
        running.ask("s" + before[0])
        _done(way("fix", meant, LIMITS))
