# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that somebody stopped (SIGSTOP) is patched and stays stopped, and its parent is told nothing of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch
from reports import well
from snapshots import snapshot, states, tracers

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._patch.content import Patch
from module_utils._process.memory import Memory
from module_utils._process.selection import Selection

# On the letter v a thread more, which is in vfork until its child is killed.
PROGRAM = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
static volatile long count;
static void *idle(void *nothing) { for (;;) pause(); }
static void *works(void *nothing) { for (;;) { if (first(1) + second(0) < 0) abort(); count++; usleep(100); } }
static void *forks(void *nothing) { if (!vfork()) { alarm(60); for (;;) pause(); } for (;;) pause(); }
int main(void) {
    char line[100];
    pthread_t thread;
    setvbuf(stdout, 0, _IOLBF, 0);
    for (int index = 0; index < 2; index++) {
        pthread_create(&thread, 0, idle, 0);
        pthread_create(&thread, 0, works, 0);
    }
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'c') printf("%ld\n", count);
        else if (*line == 'v') { pthread_create(&thread, 0, forks, 0); puts("forks"); }
        else printf("%d\n", second(first(0)));
    }
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
    pytest.param(("jump",), "quiescent", id="quiescent"),
]
NOTHING = os.WSTOPPED | os.WCONTINUED | os.WEXITED | os.WNOHANG


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("stopped")
    program = compile_program(folder, "program", PROGRAM, "-w")
    return program, make_patch(folder, program, FIXED, ["first", "second"])


def _stop(pid: int) -> None:
    """Stop it, and take what we are told of that."""
    os.kill(pid, signal.SIGSTOP)
    told = os.waitid(os.P_PID, pid, os.WSTOPPED)
    assert told is not None
    assert (told.si_code, told.si_status) == (os.CLD_STOPPED, signal.SIGSTOP)
    _until(pid, {"T"})


def _until(pid: int, wanted: set[str]) -> None:
    """Wait for the states of its threads: one that is let go passes through R on its way back to T, in the kernel."""
    end = time.monotonic() + 10
    while states(pid) != wanted:
        assert time.monotonic() < end, states(pid)
        time.sleep(0.002)


def _count(running: Running) -> int:
    return int(running.ask("count"))


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_all_of_it_while_stopped(made: tuple[Path, Patch], forms: tuple[str, ...], consistency: str) -> None:
    """Loaded, switched there and back, unloaded, and all again: stopped all the time, and then it goes on."""
    program, patch = made
    with Running(program) as running:
        chosen, limits = Selection(pids=(running.pid,)), Limits(2.0, 10.0, consistency)
        _stop(running.pid)
        before = snapshot(running.pid)
        for _turn in range(2):
            for step, state in (
                (lambda: load_patch(patch, chosen, forms=forms), "loaded"),
                (lambda: activate_patch("fix", chosen, limits), "active"),
                (lambda: deactivate_patch("fix", chosen, limits), "loaded"),
                (lambda: unload_patch("fix", chosen, 10.0), "absent"),
            ):
                outcome = well(step())
                assert (outcome.state, outcome.changed) == (state, True)
                assert outcome.stop_us < 2_000_000
                _until(running.pid, {"T"})
                assert os.waitid(os.P_PID, running.pid, NOTHING) is None
        assert snapshot(running.pid) == before
        assert tracers(running.pid) == {"0"}
        well(load_patch(patch, chosen, forms=forms))
        well(activate_patch("fix", chosen, limits))
        os.kill(running.pid, signal.SIGCONT)
        told = os.waitid(os.P_PID, running.pid, os.WCONTINUED)
        assert told is not None
        assert told.si_code == os.CLD_CONTINUED
        assert running.ask("?") == "300"
        well(deactivate_patch("fix", chosen, limits))
        well(unload_patch("fix", chosen, 10.0))
        count = _count(running)
        while _count(running) < count + 10:
            time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGCONT])
@pytest.mark.parametrize("operation", ["load", "activate", "deactivate", "unload"])
def test_stopped_or_continued_meanwhile(
    made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch, operation: str, number: int
) -> None:
    """The signal comes at the first write of an operation, in the middle of its stop where it has one: it works.

    The operation succeeds, and what was asked for by the signal is what is then.
    """
    program, patch = made
    write = Memory.write
    with Running(program) as running:
        chosen, limits = Selection(pids=(running.pid,)), Limits(2.0, 10.0, "atomic")
        steps = {
            "load": lambda: load_patch(patch, chosen, forms=("jump",)),
            "activate": lambda: activate_patch("fix", chosen, limits),
            "deactivate": lambda: deactivate_patch("fix", chosen, limits),
            "unload": lambda: unload_patch("fix", chosen, 10.0),
        }

        def signalling(memory: Memory, address: int, data: bytes) -> None:
            os.kill(running.pid, number)
            write(memory, address, data)

        answer = "3"
        for name, step in steps.items():
            if name == operation:
                if number == signal.SIGCONT:
                    _stop(running.pid)
                monkeypatch.setattr(Memory, "write", signalling)
            well(step())
            monkeypatch.undo()
            if name == operation and number == signal.SIGSTOP:
                _until(running.pid, {"T"})
                os.kill(running.pid, signal.SIGCONT)
            answer = {"activate": "300"}.get(name, "3")
            assert running.ask("?") == answer
        assert tracers(running.pid) == {"0"}
        assert not livepatch_mappings(running.pid)


def test_stopped_with_a_thread_in_uninterruptible_sleep(made: tuple[Path, Patch]) -> None:
    """Some threads are stopped, one cannot be yet (it is in vfork): by a byte all goes; a stop keeps to its budget."""
    program, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("v") == "forks"
        while "D" not in states(running.pid):
            time.sleep(0.002)
        os.kill(running.pid, signal.SIGSTOP)
        _until(running.pid, {"T", "D"})
        assert well(load_patch(patch, chosen, forms=("byte", "jump"))).state == "loaded"
        assert well(activate_patch("fix", chosen, Limits(0.1, 0.0))).switch == "byte"
        assert well(deactivate_patch("fix", chosen, Limits(0.1, 0.0))).state == "loaded"
        _until(running.pid, {"T", "D"})
        before = snapshot(running.pid)
        (outcome,) = activate_patch("fix", chosen, Limits(0.05, 0.2, "atomic")).outcomes
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.state) == ("stop_budget_exceeded", "loaded")
        assert 50_000 <= outcome.stop_us < 1_000_000
        _until(running.pid, {"T", "D"})
        assert snapshot(running.pid) == before
        assert tracers(running.pid) == {"0"}
        os.kill(running.pid, signal.SIGCONT)
        assert running.ask("?") == "3"
        (child,) = (
            int(pid)
            for task in Path("/proc/%d/task" % running.pid).iterdir()
            for pid in (task / "children").read_text().split()
        )
        os.kill(child, signal.SIGKILL)
        while "D" in states(running.pid):
            time.sleep(0.002)
        assert well(activate_patch("fix", chosen, Limits(1.0, 10.0, "atomic"))).state == "active"
        assert running.ask("?") == "300"
