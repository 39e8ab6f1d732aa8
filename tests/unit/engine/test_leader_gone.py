# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program whose first thread has ended (pthread_exit in main) is a program like any other, by all its other threads.

The kernel then shows a zombie in /proc/PID, without memory, files or a path.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch, shared
from reports import well
from snapshots import snapshot, tracers

from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._errors import LivepatchError
from module_utils._patch.content import Patch
from module_utils._process.exclusive import exclusive
from module_utils._process.memory import Memory
from module_utils._process.process import Process
from module_utils._process.selection import Selection

# A thread of its own answers; the first one ends at SIGUSR1, which only it takes.
PROGRAM = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
static void *idle(void *nothing) { for (;;) pause(); }
static void *answers(void *nothing) {
    char line[100];
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", second(first(0)));
    _exit(0);
}
int main(void) {
    pthread_t thread;
    sigset_t set;
    int number;
    setvbuf(stdout, 0, _IOLBF, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, 0);
    pthread_create(&thread, 0, idle, 0);
    pthread_create(&thread, 0, answers, 0);
    sigwait(&set, &number);
    pthread_exit(0);
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("leader")
    program = compile_program(folder, "program", PROGRAM)
    return program, make_patch(folder, program, FIXED, ["first", "second"])


def _end_leader(pid: int, patience: float = 10.0) -> bool:
    """End the first thread; False when it has not ended within `patience` seconds (it may be held)."""
    os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + patience
    while Path("/proc/%d/task/%d/stat" % (pid, pid)).read_text().rpartition(")")[2].split()[0] != "Z":
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def _another(pid: int) -> int:
    """A thread that is not the first one. /proc/TID shows it, though no listing does."""
    return next(int(name) for name in os.listdir("/proc/%d/task" % pid) if name != str(pid))


def _fact(pid: int) -> dict[str, Any] | None:
    found = [fact for fact in gather(["fix"], "patched")["processes"] if fact["pid"] == pid]
    return found[0] if found else None


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_the_first_thread_has_ended(made: tuple[Path, Patch], forms: tuple[str, ...], consistency: str) -> None:
    """Found by its program's path, loaded, switched, unloaded; facts tell it; nothing stays behind."""
    program, patch = made
    chosen, limits = Selection(exe=str(program)), Limits(2.0, 5.0, consistency)
    with Running(program) as running:
        assert _end_leader(running.pid)
        assert Path("/proc/%d/maps" % running.pid).read_bytes() == b""
        other = _another(running.pid)
        start = snapshot(other)

        outcome = well(load_patch(patch, chosen, forms=forms))
        assert (outcome.pid, outcome.exe, outcome.state, outcome.changed) == (
            running.pid,
            str(program),
            "loaded",
            True,
        )
        loaded = snapshot(other)
        assert livepatch_mappings(other)
        for _turn in range(2):
            outcome = well(activate_patch("fix", chosen, limits))
            assert (outcome.state, outcome.switch) == ("active", "byte" if consistency == "entry" else "stop")
            assert running.ask("?") == "300"
            fact = _fact(running.pid)
            assert fact is not None
            assert (fact["exe"], fact["patchable"], fact["reasons"]) == (str(program), True, [])
            assert fact["objects"][0]["drift"] == "none"
            assert [(one["state"], one["verified"]) for one in fact["patches"]] == [("active", True)]
            assert not activate_patch("fix", chosen, limits).summary()["changed"]

            assert well(deactivate_patch("fix", chosen, limits)).state == "loaded"
            assert running.ask("?") == "3"
            assert snapshot(other).code == loaded.code
        assert well(unload_patch("fix", chosen, 5.0)).state == "absent"
        assert running.ask("?") == "3"
        assert _fact(running.pid) is None
        assert snapshot(other) == start
        assert tracers(running.pid) == {"0"}


@pytest.mark.parametrize("operation", ["load", "activate", "deactivate", "unload"])
@pytest.mark.parametrize("at", [1, 2])
def test_the_first_thread_ends_meanwhile(
    made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch, operation: str, at: int
) -> None:
    """It ends before the first write of an operation, or the second: the operation succeeds all the same."""
    program, patch = made
    write = Memory.write
    count = shared(1)
    with Running(program) as running:
        chosen, limits = Selection(pids=(running.pid,)), Limits(2.0, 5.0, "atomic")
        steps: dict[str, tuple[str, Callable[[], Report]]] = {
            "load": ("3", lambda: load_patch(patch, chosen)),
            "activate": ("300", lambda: activate_patch("fix", chosen, limits)),
            "deactivate": ("3", lambda: deactivate_patch("fix", chosen, limits)),
            "unload": ("3", lambda: unload_patch("fix", chosen, 5.0)),
        }

        def ending(memory: Memory, address: int, data: bytes) -> None:
            count[0] += 1
            if count[0] == at:
                _end_leader(running.pid, 0.05)
            write(memory, address, data)

        for name, (answer, step) in steps.items():
            if name == operation:
                monkeypatch.setattr(Memory, "write", ending)
            well(step())
            assert running.ask("?") == answer
            monkeypatch.undo()
            if name == operation:
                assert count[0] >= at
                assert _end_leader(running.pid)
        assert not livepatch_mappings(_another(running.pid))
        assert tracers(running.pid) == {"0"}


def test_one_run_at_a_time(made: tuple[Path, Patch]) -> None:
    """The lock on a process is the same before and after the end of its first thread."""
    program, patch = made
    with Running(program) as running, Process(running.pid) as process:
        with exclusive(process, 1.0):
            assert _end_leader(running.pid)
            with pytest.raises(LivepatchError) as told, Process(running.pid) as again, exclusive(again, 0.0):
                pass
            assert told.value.code == "already_traced"
            assert "(process %d)" % os.getpid() in told.value.message
        assert well(load_patch(patch, Selection(pids=(running.pid,)))).state == "loaded"


def test_when_all_threads_have_ended(made: tuple[Path, Patch]) -> None:
    """A process of which only the zombie is left has no memory, and has exited."""
    program, _patch = made
    with Running(program) as running, Process(running.pid) as process:
        assert _end_leader(running.pid)
        assert not process.has_exited()
        assert process.maps()
        os.kill(running.pid, signal.SIGKILL)
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        assert process.has_exited()
        assert process.maps() == []
        with pytest.raises(LivepatchError) as told:
            process.memory.read(4096, 1)
        assert told.value.code == "process_gone"
