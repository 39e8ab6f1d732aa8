# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever fails, wherever: the process is as it was or as it was asked to be, never between; a next run succeeds."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from pathlib import Path
from typing import Callable

import pytest
from patching import Running, compile_program, make_patch, shared
from reports import only
from snapshots import Snapshot, snapshot, states, tracers

from module_utils._engine import map_region, operations
from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._errors import LivepatchError
from module_utils._patch.content import Patch
from module_utils._process.memory import Memory
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._ptrace import call_batch, stop_all_threads
from module_utils._ptrace.ptrace_requests import PTRACE_INTERRUPT
from module_utils._ptrace.tracer import as_tracer
from module_utils._ptrace.wait import child_signals_held

PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
static void *idle(void *nothing) { for (;;) pause(); }
int main(void) {
    char line[100];
    pthread_t thread;
    for (int index = 0; index < 3; index++) pthread_create(&thread, 0, idle, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", second(first(0)));
}
"""
FIXED = r"""
#include <unistd.h>
static int calls;
int first(int x) { calls++; return x + (int)getpid() * 0 + 100; }
int second(int x) { return x + (int)getpid() * 0 + 200; }
"""
LIMITS = Limits(max_stop=1.0, timeout=0.0)
WAYS = [
    pytest.param(("byte", "jump"), Limits(1.0, 0.0, "entry"), id="byte"),
    pytest.param(("jump",), Limits(1.0, 0.0, "atomic"), id="stop"),
]
Step = Callable[[], Report]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("failures")
    program = compile_program(folder, "program", PROGRAM)
    return program, make_patch(folder, program, FIXED, ["first", "second"])


def _steps(patch: Patch, pid: int, forms: tuple[str, ...], limits: Limits) -> list[tuple[str, str, Step]]:
    """Each operation in turn: its name, the answer of the program behind it, and how it is called."""
    chosen = Selection(pids=(pid,))
    return [
        ("load", "3", lambda: load_patch(patch, chosen, forms=forms)),
        ("activate", "300", lambda: activate_patch("fix", chosen, limits)),
        ("deactivate", "3", lambda: deactivate_patch("fix", chosen, limits)),
        ("unload", "3", lambda: unload_patch("fix", chosen, 0.1)),
    ]


def _same(one: Snapshot, two: Snapshot) -> bool:
    return (one.maps, one.code, one.descriptors) == (two.maps, two.code, two.descriptors)


@pytest.mark.parametrize(("forms", "limits"), WAYS)
@pytest.mark.parametrize("kind", ["refused", "broken", "half done"])
def test_each_write_fails_once(
    made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch, forms: tuple[str, ...], limits: Limits, kind: str
) -> None:
    """The n-th write to the program's memory fails, for every n of every operation, in three ways."""
    program, patch = made
    left = shared(3)  # writes to go, who made the one that failed, whether somebody else then did it all again
    write = Memory.write

    def failing(memory: Memory, address: int, data: bytes) -> None:
        left[0] -= 1
        if left[0]:
            left[2] = left[2] or (left[0] < 0 and left[1] != os.getpid())
            write(memory, address, data)
            return
        left[1] = os.getpid()
        if kind == "broken":
            raise OSError(12, "no memory")
        if kind == "half done":
            write(memory, address, data[: (len(data) + 1) // 2])
        raise LivepatchError("memory_mismatch", "not what was written")

    monkeypatch.setattr(Memory, "write", failing)
    with Running(program) as running:
        start = snapshot(running.pid)
        answer = "3"
        for name, after, step in _steps(patch, running.pid, forms, limits):
            before = snapshot(running.pid)
            failures = 0
            while True:
                left[0], left[2] = failures + 1, 0
                outcome = only(step())
                assert running.alive()
                if left[0] > 0:  # it made fewer writes: none has failed
                    break
                failures += 1
                if left[2] and outcome.error is None and name in ("load", "unload"):
                    break  # on a busy machine the child was late, was killed, and another has done it
                if outcome.error is None or outcome.state == {"activate": "active", "deactivate": "loaded"}.get(name):
                    # The last write only notes in the header what was done: all is as it was asked to be.
                    assert running.ask("?") == after, (name, failures)
                    left[0] = 0
                    undo = [step for other, _after, step in _steps(patch, running.pid, forms, limits)]
                    assert only(undo[{"activate": 2, "deactivate": 1}[name]]()).error is None
                    continue
                assert outcome.error["code"] in ("memory_mismatch", "internal"), (name, failures, outcome.error)
                assert running.ask("?") == answer, (name, failures)
                assert _same(snapshot(running.pid), before), (name, failures)
            assert outcome.error is None, (name, outcome.error)
            assert failures >= 1, name
            answer = after
            assert running.ask("?") == answer
        assert _same(snapshot(running.pid), start)


@pytest.mark.parametrize(
    ("limit", "value", "call"),
    [
        (resource.RLIMIT_AS, None, "mmap"),
        (resource.RLIMIT_DATA, 4096, "mmap"),
        (resource.RLIMIT_NOFILE, 0, "memfd_create"),
    ],
)
def test_the_program_is_at_its_limits(made: tuple[Path, Patch], limit: int, value: int | None, call: str) -> None:
    """No more memory, or no more files: the kernel's refusal is told, and nothing stays behind."""
    program, patch = made
    with Running(program) as running:
        before = snapshot(running.pid)
        if value is None:
            fields = Path("/proc/%d/statm" % running.pid).read_text().split()
            value = int(fields[0]) * 4096 + 4096
        old = resource.prlimit(running.pid, limit)
        resource.prlimit(running.pid, limit, (value, old[1]))
        outcome = only(load_patch(patch, Selection(pids=(running.pid,))))
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.state) == ("not_permitted", "absent")
        assert call in outcome.error["message"]
        resource.prlimit(running.pid, limit, old)
        assert _same(snapshot(running.pid), before)
        assert only(load_patch(patch, Selection(pids=(running.pid,)))).error is None


def test_a_thread_that_cannot_be_stopped(tmp_path: Path) -> None:
    """A parent in vfork does not stop: the budget holds, all others run, nobody is traced, a later run succeeds."""
    source = PROGRAM.replace(
        "static void *idle(void *nothing) { for (;;) pause(); }",
        "static void *idle(void *nothing) { if (!vfork()) { sleep(4); _exit(0); } for (;;) pause(); }",
    ).replace("index < 3", "index < 1")
    program = compile_program(tmp_path, "program", source, "-w")
    patch = make_patch(tmp_path, program, FIXED, ["first", "second"])
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        while states(running.pid) != {"S", "D"}:
            time.sleep(0.01)
        assert only(load_patch(patch, chosen, forms=("jump",))).error is None
        before = snapshot(running.pid)
        began = time.monotonic()
        outcome = only(activate_patch("fix", chosen, Limits(max_stop=0.05, timeout=0.2)))
        assert time.monotonic() - began < 2
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.state, outcome.verified) == ("stop_budget_exceeded", "loaded", True)
        # Stopped once, and told how long: after a stop in vain the process runs for ten times as long.
        assert outcome.attempts == 1
        assert outcome.stop_us >= 50_000
        assert _same(snapshot(running.pid), before)
        assert running.ask("?") == "3"
        time.sleep(0.02)  # the tracer's thread has ended
        assert tracers(running.pid) == {"0"}
        outcome = only(activate_patch("fix", chosen, Limits(max_stop=0.05, timeout=6.0)))
        assert (outcome.error, outcome.state) == (None, "active")
        assert outcome.attempts > 1
        assert running.ask("?") == "300"
        assert "t" not in states(running.pid)


def test_a_budget_nobody_can_keep(made: tuple[Path, Patch]) -> None:
    """A stop of no time at all is not to be had: told so, with the attempts, and nothing is changed."""
    program, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        load_patch(patch, chosen)
        before = snapshot(running.pid)
        outcome = only(activate_patch("fix", chosen, Limits(max_stop=1e-6, timeout=0.1, consistency="atomic")))
        assert outcome.error is not None
        assert outcome.error["code"] == "stop_budget_exceeded"
        assert " attempts" in outcome.error["message"]
        assert _same(snapshot(running.pid), before)
        assert running.ask("?") == "3"
        assert tracers(running.pid) == {"0"}


def test_interrupted_by_the_user(made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two writes of one switch: it is done or not done, never half; and the tool ends."""
    program, patch = made
    write = Memory.write
    count = shared(1)

    def interrupted(memory: Memory, address: int, data: bytes) -> None:
        write(memory, address, data)
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt

    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        load_patch(patch, chosen)
        before = snapshot(running.pid)
        monkeypatch.setattr(Memory, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            activate_patch("fix", chosen, Limits(max_stop=1.0, timeout=0.1, consistency="atomic"))
        monkeypatch.undo()
        assert _same(snapshot(running.pid), before)
        assert running.ask("?") == "3"


def test_what_cannot_be_put_back_is_said(made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second write of a switch fails, and so does taking back the first: the error says where; a next run mends."""
    program, patch = made
    write = Memory.write
    count = shared(1)

    def failing(memory: Memory, address: int, data: bytes) -> None:
        # 1 is the note in the header, 2 the first function, 3 the second; 4 takes back the first.
        count[0] += 1
        if count[0] in (3, 4):
            raise LivepatchError("not_permitted", "the kernel refuses to write")
        write(memory, address, data)

    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        load_patch(patch, chosen)
        before = snapshot(running.pid)
        monkeypatch.setattr(Memory, "write", failing)
        outcome = only(activate_patch("fix", chosen, Limits(max_stop=1.0, timeout=0.0)))
        monkeypatch.undo()
        assert outcome.error is not None
        assert outcome.error["code"] == "memory_mismatch"
        assert "could not be taken back" in outcome.error["message"]
        assert "again" in outcome.error["remedy"]
        assert running.ask("?") in ("102", "201")
        assert only(deactivate_patch("fix", chosen, Limits(max_stop=1.0, timeout=1.0))).error is None
        assert _same(snapshot(running.pid), before)
        assert running.ask("?") == "3"


def test_the_process_exits_midway(made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it is being loaded or switched, at each write: process_gone, and no harm to the tool."""
    program, patch = made
    write = Memory.write
    left, victim, codes = shared(1), shared(1), []

    def killing(memory: Memory, address: int, data: bytes) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(victim[0], signal.SIGKILL)
        write(memory, address, data)

    monkeypatch.setattr(Memory, "write", killing)
    for at in range(1, 4):
        for operation in (0, 1):
            with Running(program) as running:
                steps = _steps(patch, running.pid, ("jump",), LIMITS)
                if operation:
                    assert only(steps[0][2]()).error is None
                left[0] = at
                victim[0] = running.pid
                outcome = only(steps[operation][2]())
                codes.append(outcome.error["code"] if outcome.error else "")
    # A process may still take a write while it dies; then all was done before it was gone.
    assert set(codes) <= {"", "process_gone"}
    assert codes.count("process_gone") >= 3


@pytest.mark.parametrize("at", [1, 2, 4])
def test_the_process_is_killed_while_it_is_stopped(
    made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Killed between two threads' interrupts: the leader ends only when all others were seen to; process_gone soon."""
    program, patch = made
    make_call = call_batch.make_call
    asked: list[int] = []
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        assert only(load_patch(patch, chosen, forms=("jump",))).error is None

        def killing(number: int, *arguments: int) -> int:
            if arguments[0] == PTRACE_INTERRUPT and arguments[1] != stop_all_threads._NOBODY:
                asked.append(arguments[1])
                if len(asked) == at:
                    os.kill(running.pid, signal.SIGKILL)
            return make_call(number, *arguments)

        monkeypatch.setattr(call_batch, "make_call", killing)
        monkeypatch.setattr(call_batch, "_loop", lambda: None)
        began = time.monotonic()
        outcome = only(activate_patch("fix", chosen, Limits(max_stop=5.0, timeout=10.0)))
        assert outcome.error is not None
        assert outcome.error["code"] == "process_gone"
        assert time.monotonic() - began < 4


BREEDER = r"""
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *sleeps(void *nothing) { for (;;) pause(); }
int main(void) {
    char line[9];
    pthread_t one;
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) { pthread_create(&one, 0, sleeps, 0); puts("born"); }
}
"""


def test_the_process_is_killed_when_a_thread_was_born_before_the_stop(tmp_path: Path) -> None:
    """A thread that came after the others were listed is waited for with them: the leader ends when all were seen."""
    with Running(compile_program(tmp_path, "breeder", BREEDER)) as running, Process(running.pid) as process:
        assert running.ask("one") == "born"

        def stop() -> float:
            with child_signals_held():
                window = stop_all_threads.StopWindow(process, 5.0)
                assert running.ask("another") == "born"
                assert len(window.seize()) == 3
                os.kill(running.pid, signal.SIGKILL)
                began = time.monotonic()
                with contextlib.suppress(LivepatchError):
                    window.stop()
                window.release()
                assert window.registers == {}
                return time.monotonic() - began

        assert as_tracer(stop) < 2.5


def test_unloaded_when_the_child_that_did_it_dies(made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is there to be done again: the process is in the report all the same, with what was done."""
    program, patch = made
    clear, died = operations.clear_remains, shared(1)

    def die_once(process: Process, patch_id: str, pretend: bool = False) -> bool:
        died[0] += 1
        if died[0] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return clear(process, patch_id, pretend)

    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        only(load_patch(patch, chosen))
        monkeypatch.setattr(operations, "clear_remains", die_once)
        outcome = only(unload_patch("fix", chosen, 1.0))
        assert (outcome.state, outcome.changed, outcome.verified, outcome.error) == ("absent", True, True, None)
        assert outcome.attempts == 1
        assert died[0] == 1
        assert running.ask("?") == "3"


@pytest.mark.parametrize("most", [0, 1 << 16], ids=["while-it-runs", "while-held"])
@pytest.mark.parametrize("fails", [False, True], ids=["", "fails"])
def test_the_file_is_written(made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch, most: int, fails: bool) -> None:
    """A small patch within the hold, a large one between two; where that fails, no file and no mapping is left."""
    program, patch = made
    write = map_region._write_all

    def write_half(descriptor: int, contents: list[bytes]) -> None:
        write(descriptor, contents[:1])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(map_region, "_MOST_WHILE_HELD", most)
    if fails:
        monkeypatch.setattr(map_region, "_write_all", write_half)
    with Running(program) as running:
        before = snapshot(running.pid)
        outcome = only(load_patch(patch, Selection(pids=(running.pid,))))
        assert (outcome.error is not None, outcome.state) == (fails, "absent" if fails else "loaded")
        assert tracers(running.pid) == {"0"}
        assert running.ask("?") == "3"
        if not fails:
            assert only(unload_patch("fix", Selection(pids=(running.pid,)), 1.0)).error is None
        assert _same(before, snapshot(running.pid))


def test_maps_that_were_read_hold_until_they_are_changed(made: tuple[Path, Patch]) -> None:
    """The same list while nobody was made to change any; then as they are."""
    program, patch = made
    with Running(program) as running, Process(running.pid) as process:
        read = process.maps()
        well = only(load_patch(patch, Selection(pids=(running.pid,))))  # by a child: this object knows nothing of it
        assert well.error is None
        assert process.last_maps() is read
        process.changes_maps()
        assert len(process.last_maps()) > len(read)
