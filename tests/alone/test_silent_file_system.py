# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program whose file lies in a file system that takes every request and answers none: who asks cannot even be killed.

Nothing in the kernel ends such a wait, but the end of the file system. So the tool leaves the child that asked behind.
All who look at processes meanwhile have to do so, too: these tests run by themselves.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest
import silent_file_system
from patching import Running, compile_program, make_patch, shared

from module_utils._engine import operations, run_operation
from module_utils._engine.operations import load_patch
from module_utils._engine.outcome import LOADED, Outcome
from module_utils._engine.targets import Operation
from module_utils._patch.content import Patch
from module_utils._process.patience import OUT_OF_PATIENCE, die_after
from module_utils._process.process import Process
from module_utils._process.selection import ObjectFinder, Selection
from module_utils._ptrace import watchdog
from module_utils._ptrace.watchdog import watched

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no file systems in user space"),
]

PROGRAM = """
#include <stdio.h>
__attribute__((noinline, noipa)) int answer(int x) { return x + 1; }
int main(void) {
    char line[64];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) { printf("%d\\n", answer(1)); fflush(stdout); }
    return 0;
}
"""
# As a task runs it: what it prints is read until nobody has that open any more. It prints whom it found, how many it
# could not look at, and which child it left behind.
TASK = """
import json
from module_utils._engine import facts
from module_utils._ptrace import watchdog
facts._PATIENCE, watchdog._DYING = %f, %f
found = facts.gather([], "all")
print(json.dumps(([fact["pid"] for fact in found["processes"]], found["summary"]["unreadable"], watchdog._stuck)))
"""
# How long a process may let us wait, and a child that was killed take to die, seconds.
PATIENCE, DYING = 1.0, 1.0
# For a busy machine.
MOST_TIME = 20


@pytest.fixture(name="served")
def fixture_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Running, Running, Patch]]:
    """A program that runs from such a file system, which still answers; and a patch that fits it."""
    monkeypatch.setattr(watchdog, "_DYING", DYING)
    program = compile_program(tmp_path, "program", PROGRAM)
    patch = make_patch(tmp_path, program, "int answer(int x) { return x + 299; }", ["answer"])
    folder = tmp_path / "served"
    folder.mkdir()
    server = [silent_file_system.__file__, str(folder), str(program)]
    try:
        with Running(Path(sys.executable), *server) as files, Running(folder / "program") as running:
            yield files, running, patch
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _task() -> tuple[list[int], int, list[int]]:
    done = subprocess.run(
        [sys.executable, "-c", TASK % (PATIENCE, DYING)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=MOST_TIME,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, unreadable, stuck = json.loads(done.stdout)
    return found, unreadable, stuck


def _fall_silent(files: Running) -> None:
    files.send("fall silent")
    assert files.line() == "silent"


def test_who_asks_for_the_file_is_left_behind(served: tuple[Running, Running, Patch]) -> None:
    """Facts come to their end, all the others in them; the child that waits for the file goes with the file system."""
    files, running, _patch = served
    found, before, stuck = _task()
    assert (running.pid in found, stuck) == (True, [])
    _fall_silent(files)
    found, unreadable, (left,) = _task()
    assert (running.pid in found, os.getpid() in found, unreadable) == (False, True, before + 1)
    with open("/proc/%d/wchan" % left, encoding="ascii") as stream:
        assert stream.read() == "request_wait_answer"
    files.ended()
    end = time.monotonic() + 10
    while os.path.exists("/proc/%d" % left) and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists("/proc/%d" % left)


def test_a_thread_of_a_child_that_waits_for_it(served: tuple[Running, Running, Patch]) -> None:
    """As the one that holds threads does: the child's first thread is dead then, and the child is still there."""
    files, running, _patch = served
    _fall_silent(files)

    def work(_tell: Callable[[object], None]) -> None:
        asks = threading.Thread(target=os.stat, args=("/proc/%d/exe" % running.pid,))
        with die_after(PATIENCE):
            asks.start()
            asks.join()

    begin = time.monotonic()
    result = watched(work)
    assert time.monotonic() - begin < MOST_TIME
    assert (result.died, result.signal, result.left in watchdog._stuck) == (True, OUT_OF_PATIENCE, True)
    files.kill()
    while result.left in watchdog._stuck:
        assert watched(lambda tell: tell(1)).told == [1]  # they are looked after whenever another one begins
        assert time.monotonic() - begin < 2 * MOST_TIME


def test_loading_comes_to_an_end(served: tuple[Running, Running, Patch], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reads of the process comes from that file, too."""
    files, running, patch = served
    _fall_silent(files)
    monkeypatch.setattr(run_operation, "_PATIENCE", PATIENCE)
    monkeypatch.setattr(operations, "_LOAD_TIMEOUT", 1.0)
    begin = time.monotonic()
    (outcome,) = load_patch(patch, Selection(pids=(running.pid,))).outcomes
    assert time.monotonic() - begin < MOST_TIME
    assert outcome.error is not None
    assert (outcome.error["code"], "does not answer" in outcome.error["message"]) == ("not_permitted", True)
    assert running.alive()


def test_a_child_dies_and_then_it_falls_silent(
    served: tuple[Running, Running, Patch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is tried again comes to an end, too, with what kept it as the reason, and not what its child died of."""
    files, running, patch = served
    monkeypatch.setattr(run_operation, "_PATIENCE", PATIENCE)
    tries = shared(1)

    def step(_process: Process, _outcome: Outcome) -> None:
        tries[0] += 1
        _fall_silent(files)
        os.kill(os.getpid(), signal.SIGKILL)

    finder = ObjectFinder(patch.manifest.object.build_id)
    begin = time.monotonic()
    operation = Operation("fix", Selection(pids=(running.pid,)), step, LOADED, False, 1.0, finder, undo=step)
    (outcome,) = run_operation.run(operation).outcomes
    assert time.monotonic() - begin < MOST_TIME
    assert (tries[0], outcome.attempts) == (1, 2)
    assert outcome.error is not None
    assert (outcome.error["code"], "does not answer" in outcome.error["message"]) == ("not_permitted", True)
    assert running.alive()
