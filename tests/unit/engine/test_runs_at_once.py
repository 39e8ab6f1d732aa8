# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Several runs of the tool at once on one process: one waits, or is told so; neither harms."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from pathlib import Path
from typing import Callable

import pytest
from deaths import FIXED, compile_server, served
from patching import make_patch, shared
from snapshots import snapshot, states, tracers

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._patch.content import Patch
from module_utils._process.exclusive import exclusive
from module_utils._process.process import Process
from module_utils._process.selection import Selection

RUNS, SECONDS = 5, 4.0
# What a run may be told whose operation does not fit the state in which the others left the process.
ORDER_ERRORS = {"not_loaded", "still_active", "already_traced"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("runs")
    program = compile_server(folder)
    return program, make_patch(folder, program, FIXED, ["first", "second"])


def _child(work: Callable[[], None]) -> int:
    """A process that does `work` and exits with 0, or with 1 when that raised anything."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _operations(patch: Patch, pid: int, timeout: float) -> list[Callable[[], Report]]:
    chosen = Selection(pids=(pid,))
    switches = [Limits(0.5, timeout, consistency) for consistency in ("entry", "atomic")]
    return [
        lambda: load_patch(patch, chosen),
        lambda: load_patch(patch, chosen, forms=("jump",)),
        *[lambda limits=limits: activate_patch("fix", chosen, limits) for limits in switches],  # type: ignore[misc]
        *[lambda limits=limits: deactivate_patch("fix", chosen, limits) for limits in switches],  # type: ignore[misc]
        lambda: unload_patch("fix", chosen, timeout),
    ]


@pytest.mark.parametrize("timeout", [5.0, 0.0], ids=["waiting", "told"])
def test_many_runs_at_once(made: tuple[Path, Patch], timeout: float) -> None:
    """Operations in any order from several sides: each succeeds or says why not; requests are answered all the time."""
    program, patch = made
    seed = random.randrange(1 << 31)
    counts = shared(2)  # successes, refusals
    with served(program) as running:
        start = snapshot(running.pid)

        def work(number: int) -> None:
            choice = random.Random(seed + number)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                for outcome in choice.choice(_operations(patch, running.pid, timeout))().outcomes:
                    code = outcome.error["code"] if outcome.error else ""
                    assert code in {"", *ORDER_ERRORS}, outcome
                    assert code or outcome.verified, outcome
                    counts[bool(code)] += 1

        children = [_child(lambda number=number: work(number)) for number in range(RUNS)]  # type: ignore[misc]
        ends = [os.waitpid(child, 0)[1] for child in children]
        assert ends == [0] * RUNS, seed
        assert counts[0] > RUNS, seed
        assert counts[1] > RUNS, seed
        assert running.is_serving(), seed
        assert tracers(running.pid) == {"0"}, seed
        assert not states(running.pid) & {"t", "T"}, seed
        for operation in (_operations(patch, running.pid, 5.0)[at] for at in (4, 6)):
            assert [outcome.error for outcome in operation().outcomes] in ([], [None]), seed
        assert running.answers() == [1, 2]
        now = snapshot(running.pid)
        assert (now.maps, now.code, now.descriptors) == (start.maps, start.code, start.descriptors), seed


def test_the_second_is_told_who_is_first(made: tuple[Path, Patch]) -> None:
    program, patch = made
    with served(program) as running, Process(running.pid) as process:
        with exclusive(process, 0.0):
            began = time.monotonic()
            (outcome,) = unload_patch("fix", Selection(pids=(running.pid,)), 0.2).outcomes or [None]
            assert outcome is None  # nothing is there to unload: no reason to wait
            assert load_patch(patch, Selection(pids=(running.pid,)), pretend=True).outcomes[0].error is None
            for operation in _operations(patch, running.pid, 0.2)[2:4]:
                for outcome in operation().outcomes:
                    assert outcome.error
                    assert outcome.error["code"] in ("not_loaded", "already_traced")
            assert time.monotonic() - began < 3
        assert load_patch(patch, Selection(pids=(running.pid,))).outcomes[0].error is None
        with exclusive(process, 0.0):
            began = time.monotonic()
            outcome = activate_patch("fix", Selection(pids=(running.pid,)), Limits(0.1, 0.2)).outcomes[0]
            assert outcome.error
            assert outcome.error["code"] == "already_traced"
            assert "(process %d) is at work on process %d" % (os.getpid(), running.pid) in outcome.error["message"]
            assert 0.15 < time.monotonic() - began < 2
            assert (outcome.state, outcome.changed) == ("loaded", False)


def test_the_second_waits_and_death_lets_it_in(made: tuple[Path, Patch]) -> None:
    program, patch = made
    with served(program) as running, Process(running.pid) as process:
        ready = shared(1)

        def hold() -> None:
            with Process(running.pid) as other, exclusive(other, 0.0):
                ready[0] = 1
                signal.pause()

        holder = _child(hold)
        while not ready[0]:
            time.sleep(0.001)

        def kill() -> None:
            time.sleep(0.3)
            os.kill(holder, signal.SIGKILL)

        killer = _child(kill)
        began = time.monotonic()
        (outcome,) = load_patch(patch, Selection(pids=(process.pid,))).outcomes
        assert outcome.error is None
        assert 0.2 < time.monotonic() - began < 5
        assert os.waitpid(holder, 0)[1] == signal.SIGKILL
        assert os.waitpid(killer, 0)[1] == 0
