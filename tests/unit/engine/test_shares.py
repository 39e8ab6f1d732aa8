# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Many processes in one task, worked on by several children at once: each by itself, whatever happens to a child."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest
from patching import compile_program, livepatch_mappings, make_patch, shared
from snapshots import states, tracers

from module_utils._engine import operations, run_operation
from module_utils._engine.operations import load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._engine.shares import Turns, shares_of
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._ptrace.watchdog import arm

COUNT, SHARES = 50, 3
PROGRAM = r"""
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
enum { SIZE = 1 << 17, PAGE = 4096 };
__attribute__((noinline, noipa)) int work(int x) { return x + (int)getpid() * 0 + 1; }
static int idle(void *nothing) { for (;;) { pause(); work(1); } }
int main(int count, char **words)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    if (count == 1) idle(0);
    /* several processes in one memory, none of them another one's parent, each on a stack as threads have them */
    for (int left = atoi(words[1]); left; left--) {
        char *at = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(at, PAGE, PROT_NONE);
        printf("%d\n", clone(idle, at + SIZE - 2 * PAGE, CLONE_VM | CLONE_SETTLS, 0, 0, at + SIZE - PAGE));
    }
    _exit(0);
}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("shares")
    program = compile_program(folder, "program", PROGRAM)
    return program, make_patch(folder, program, "int work(int x) { return x + 2; }", ["work"])


@pytest.fixture(autouse=True)
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with so many processors."""
    monkeypatch.setattr(run_operation, "shares_of", lambda _selection: SHARES)


@contextlib.contextmanager
def many(program: Path) -> Iterator[list[int]]:
    """The numbers of so many processes of one program, all ready."""
    started = [subprocess.Popen([str(program)], stdout=subprocess.PIPE) for _index in range(COUNT)]
    try:
        for one in started:
            assert one.stdout is not None
            assert one.stdout.readline() == b"ready\n"
        yield [one.pid for one in started]
    finally:
        for one in started:
            one.kill()
        for one in started:
            one.communicate()


def check_all(report: Report, pids: list[int], state: str) -> None:
    """Each process once, in order, changed and verified."""
    assert [outcome.pid for outcome in report.outcomes] == sorted(pids)
    assert {(one.state, one.changed, one.verified, str(one.error)) for one in report.outcomes} == {
        (state, True, True, "None")
    }
    assert {bool(livepatch_mappings(pid)) for pid in pids} == {state == "loaded"}


def check_untouched(pids: list[int]) -> None:
    """Nobody is traced or stopped any more."""
    assert set().union(*(tracers(pid) for pid in pids)) == {"0"}
    assert not set().union(*(states(pid) for pid in pids)) & {"t", "T"}


def test_many_processes_in_one_task(made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own outcome, some of them an error; all children have worked; a second run changes nothing."""
    program, patch = made
    workers = shared(COUNT)
    load = operations.load

    with many(program) as pids:

        def noting(process: Process, prepared: object) -> object:
            workers[pids.index(process.pid)] = os.getpid()
            return load(process, prepared)  # type: ignore[arg-type]

        monkeypatch.setattr(operations, "load", noting)
        meant = Selection(pids=(*pids, 1 << 22))
        report = load_patch(patch, meant)
        gone = report.outcomes.pop(0)
        assert (gone.pid, gone.error and gone.error["code"]) == (1 << 22, "process_gone")
        check_all(report, pids, "loaded")
        assert len(set(workers)) == SHARES
        again = load_patch(patch, Selection(pids=tuple(pids)))
        assert [one.pid for one in again.outcomes] == sorted(pids)
        assert {(one.changed, str(one.error)) for one in again.outcomes} == {(False, "None")}
        check_all(unload_patch("fix", Selection(exe=str(program)), 5.0), pids, "absent")
        check_untouched(pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "halted"])
def test_a_child_that_dies_leaves_the_others_at_work(
    made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """One child is killed, or comes to a halt past its time: its process is tried again, and nobody else's is."""
    program, patch = made
    dead = shared(1)
    wait = operations.wait_until_linked
    with many(program) as pids:
        victim = pids[COUNT // 2]

        def dying(process: Process, timeout: float) -> None:
            if process.pid == victim and not dead[0]:
                dead[0] = os.getpid()
                arm(0.01)
                os.kill(os.getpid(), number)
            wait(process, timeout)

        monkeypatch.setattr(operations, "wait_until_linked", dying)
        report = load_patch(patch, Selection(pids=tuple(pids)))
        assert dead[0]
        assert {one.pid: one.attempts for one in report.outcomes if one.attempts} == {victim: 1}
        report.outcomes.sort(key=lambda outcome: outcome.pid)
        check_all(report, pids, "loaded")
        check_untouched(pids)


def test_an_interruption_ends_all_children(made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C: each ends once it holds nothing; what they did is whole, and the next run does the rest."""
    program, patch = made
    wait, begun = operations.wait_until_linked, shared(1)

    def slow(process: Process, timeout: float) -> None:
        begun[0] += 1
        time.sleep(0.05 if begun[0] <= 2 * SHARES else 0.2)  # however long it takes us to interrupt it
        wait(process, timeout)

    with many(program) as pids:
        monkeypatch.setattr(operations, "wait_until_linked", slow)
        tool = os.fork()
        if not tool:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
            try:
                load_patch(patch, Selection(pids=tuple(pids)))
            except KeyboardInterrupt:
                os._exit(42)
            os._exit(1)
        while begun[0] < 2 * SHARES:
            time.sleep(0.001)
        os.kill(tool, signal.SIGINT)
        assert os.waitstatus_to_exitcode(os.waitpid(tool, 0)[1]) == 42
        assert begun[0] < COUNT
        check_untouched(pids)
        monkeypatch.setattr(operations, "wait_until_linked", wait)
        report = load_patch(patch, Selection(pids=tuple(pids)))
        assert {(one.state, one.verified, str(one.error)) for one in report.outcomes} == {("loaded", True, "None")}
        assert {one.changed for one in report.outcomes} == {False, True}


@contextlib.contextmanager
def in_one_memory(program: Path, count: int) -> Iterator[list[int]]:
    """The numbers of processes that share one address space, and are not each other's children."""
    with subprocess.Popen([str(program), str(count)], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None  # read by lines: those made have it open, too
        assert maker.stdout.readline() == "ready\n"
        pids = [int(maker.stdout.readline()) for _index in range(count)]
    try:
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


def test_processes_in_one_memory_are_worked_on_one_after_the_other(
    made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them is loaded into, once; all the others are found to have it: never are two children at it together."""
    program, patch = made
    at_work, most = shared(1), shared(1)
    remains = operations.clear_remains

    def slow(process: Process, patch_id: str, pretend: bool = False) -> bool:
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        time.sleep(0.05)
        at_work[0] -= 1
        return remains(process, patch_id, pretend)

    monkeypatch.setattr(operations, "clear_remains", slow)
    with in_one_memory(program, 2 * SHARES) as pids:
        meant = Selection(pids=tuple(pids))
        loaded = load_patch(patch, meant)
        assert {(one.state, one.verified, str(one.error)) for one in loaded.outcomes} == {("loaded", True, "None")}
        assert [one.changed for one in loaded.outcomes].count(True) == 1
        check_untouched(pids)
        gone = unload_patch("fix", meant, 5.0)
        assert {(one.state, str(one.error)) for one in gone.outcomes} == {("absent", "None")}
        assert [one.changed for one in gone.outcomes].count(True) == 1
        assert most[0] == 1
        check_untouched(pids)


def test_who_dies_at_its_turn_keeps_nobody_waiting(made: tuple[Path, Patch]) -> None:
    """A child waits while another is at the same memory; not at another memory, nor for one that is over."""
    program, _patch = made
    turns, waited = Turns(2), shared(1)
    with in_one_memory(program, 2) as pids, many(program) as others, Process(pids[0]) as one, turns.taken(0, one):
        child = os.fork()
        if not child:
            with Process(others[0]) as other, turns.taken(1, other):
                waited[0] = 1
            with Process(pids[1]) as other, turns.taken(1, other):
                waited[0] = 2
            os._exit(0)
        time.sleep(0.3)
        assert waited[0] == 1
        turns.leave(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert waited[0] == 2
    turns.close()


def test_a_few_processes_are_not_shared_out() -> None:
    assert shares_of(Selection(pids=(1, 2, 3))) == 1
    assert 1 <= shares_of(Selection(pids=tuple(range(1, 1000)))) <= min(len(os.sched_getaffinity(0)) + 1, 5)
