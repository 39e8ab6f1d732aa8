# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Others want the processor: threads of real-time priority that never sleep, in the program and beside it, and hogs.

A processor with such a thread on it is left to all others for a twentieth of the time (sched(7)): all takes longer.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Iterator

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch
from reports import well
from snapshots import tracers

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection

# Sleeping threads, and one that never sleeps if a priority is given.
PROGRAM = r"""
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
static void *idle(void *nothing) { for (;;) pause(); }
static void *spin(void *priority) {
    struct sched_param rank = {(int)(long)priority};
    if (sched_setscheduler(0, SCHED_FIFO, &rank)) abort();
    for (;;) if (first(1) < 0) abort();
}
int main(int count, char **words) {
    char line[100];
    pthread_t thread;
    setvbuf(stdout, 0, _IOLBF, 0);
    for (int index = 0; index < atoi(words[1]); index++) pthread_create(&thread, 0, idle, 0);
    if (count > 2) pthread_create(&thread, 0, spin, (void *)(long)atoi(words[2]));
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", second(first(0)));
    _exit(0);
}
"""
FIXED = """
#include <unistd.h>
int first(int x) { return x + (int)getpid() * 0 + 100; }
int second(int x) { return x + (int)getpid() * 0 + 200; }
"""
WAYS = [
    pytest.param(("byte", "jump"), "entry", id="byte"),
    pytest.param(("jump",), "atomic", id="stop"),
]
BUDGET = 1.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("priorities")
    program = compile_program(folder, "program", PROGRAM)
    return program, make_patch(folder, program, FIXED, ["first", "second"])


@contextlib.contextmanager
def _one_processor() -> Iterator[int]:
    """We, and all that we start, run on the last processor alone."""
    before = os.sched_getaffinity(0)
    chosen = max(before)
    os.sched_setaffinity(0, {chosen})
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _spinning(count: int = 1, priority: int = 0) -> Iterator[None]:
    """Processes that never sleep, where we run, with real-time priority if one is given."""
    pids = []
    try:
        for _index in range(count):
            pid = os.fork()
            if not pid:
                signal.alarm(60)  # should we die
                if priority:
                    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
                while True:
                    pass
            pids.append(pid)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _there_and_back(patch: Patch, running: Running, forms: tuple[str, ...], consistency: str) -> None:
    chosen, limits = Selection(pids=(running.pid,)), Limits(BUDGET, 60.0, consistency)
    assert well(load_patch(patch, chosen, forms=forms)).state == "loaded"
    outcome = well(activate_patch("fix", chosen, limits))
    assert (outcome.state, outcome.switch) == ("active", "byte" if consistency == "entry" else "stop")
    assert outcome.stop_us < BUDGET * 1e6
    assert running.ask("?") == "300"
    outcome = well(deactivate_patch("fix", chosen, limits))
    assert outcome.state == "loaded"
    assert outcome.stop_us < BUDGET * 1e6
    assert running.ask("?") == "3"
    assert well(unload_patch("fix", chosen, 60.0)).state == "absent"
    assert not livepatch_mappings(running.pid)
    assert tracers(running.pid) == {"0"}


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_a_real_time_thread_of_the_program(made: tuple[Path, Patch], forms: tuple[str, ...], consistency: str) -> None:
    """One of its threads never gives up the only processor that the tool has: it is patched all the same."""
    program, patch = made
    with _one_processor(), Running(program, "3", "50") as running:
        _there_and_back(patch, running, forms, consistency)


def test_a_real_time_program_beside_the_tool(made: tuple[Path, Patch]) -> None:
    """It keeps the tool from running while that holds threads: they are let go in time, and then the tool insists."""
    program, patch = made
    with Running(program, "3") as running:
        chosen = Selection(pids=(running.pid,))
        with _one_processor(), _spinning(1, 50):
            assert well(load_patch(patch, chosen, forms=("jump",))).state == "loaded"
            outcome = well(activate_patch("fix", chosen, Limits(BUDGET, 60.0)))
            assert (outcome.state, outcome.switch) == ("active", "stop")
            assert outcome.stop_us < BUDGET * 1e6
        assert running.ask("?") == "300"
        assert tracers(running.pid) == {"0"}


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_two_hogs_a_core(made: tuple[Path, Patch], forms: tuple[str, ...], consistency: str) -> None:
    """100 threads, and two processes for each processor that never sleep."""
    program, patch = made
    with Running(program, "100") as running, _spinning(2 * len(os.sched_getaffinity(0))):
        _there_and_back(patch, running, forms, consistency)
