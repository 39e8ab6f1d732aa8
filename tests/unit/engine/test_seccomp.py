# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs under seccomp: our calls are made whatever their filters say, theirs are judged as ever, and we may die."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import struct
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest
from deaths import Tool
from patching import Running, compile_program, make_patch, shared
from reports import only
from snapshots import snapshot, tracers
from steps import NOBODY, WAYS, as_user, error_of, load_and_activate, open_folder, take_out

from module_utils._engine.operations import load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection
from module_utils._ptrace import injected_call

# The program and its filter: few calls are allowed, for all others the filter does what the first argument says. The
# second says whom it confines: all threads, only the first one, or only another one; "late": another thread does so to
# all, once it is told to. The third, where there is one, makes another thread try a call that is not allowed, all the
# time.
PROGRAM = r"""
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static volatile int zero;
static volatile long passed, tried;
static unsigned long action;
static int strict, trying;
__attribute__((noinline, noipa)) int first(int x) { return x + zero + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + zero + 2; }
#define ALLOWED(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
static void confine(int all) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOWED(SYS_read), ALLOWED(SYS_write), ALLOWED(SYS_futex), ALLOWED(SYS_pause), ALLOWED(SYS_rt_sigreturn),
        ALLOWED(SYS_restart_syscall), ALLOWED(SYS_exit_group), ALLOWED(SYS_exit),
        BPF_STMT(BPF_RET | BPF_K, action),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    unsigned flags = all ? SECCOMP_FILTER_FLAG_TSYNC : 0;
    if (action == SECCOMP_RET_USER_NOTIF) flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER | (all ? 1 << 4 : 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (strict) prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    else if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter) < 0) exit(9);
}
static pthread_barrier_t ready;
static void *other(void *confined) {
    if (confined) confine(0);
    pthread_barrier_wait(&ready);
    while (trying) { passed += syscall(SYS_getppid) >= 0; tried++; }
    for (;;) pause();
}
static void *converse(void *nothing) {
    char line[100];
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'm') {
            long at = syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            printf("%d\n", at == -1 ? errno : 0);
        } else if (*line == 't') {
            printf("%ld %ld\n", tried, passed);
        } else {
            if (*line == 'c') confine(1);
            printf("%d\n", second(first(0)));
        }
    }
    exit(0);
}
int main(int count, char **words) {
    pthread_t thread;
    static char out[4096], in[4096];
    strict = !strcmp(words[1], "strict");
    action = strtoul(words[1], 0, 16);
    trying = count > 3;
    setvbuf(stdout, out, _IOLBF, sizeof out);
    setvbuf(stdin, in, _IOFBF, sizeof in);
    pthread_barrier_init(&ready, 0, 2);
    if (!strcmp(words[2], "late")) {
        pthread_create(&thread, 0, converse, 0);
        for (;;) pause();
    }
    if (strcmp(words[2], "alone")) {
        pthread_create(&thread, 0, other, strcmp(words[2], "other") ? 0 : &thread);
        pthread_barrier_wait(&ready);
    }
    if (strcmp(words[2], "other")) confine(!strcmp(words[2], "all"));
    converse(0);
}
"""
FIXED = r"""
static volatile int zero;
int first(int x) { return x + zero + 100; }
int second(int x) { return x + zero + 200; }
"""
KILL_PROCESS, TRAP, ERRNO, NOTIFY, TRACE = "80000000", "30000", "50001", "7fc00000", "7ff00000"
# What becomes of the program when it makes such a call itself: a signal that ends it, an errno, or it waits for ever.
ENDS = {
    KILL_PROCESS: -signal.SIGSYS,
    TRAP: -signal.SIGSYS,
    ERRNO: 1,
    NOTIFY: None,
    TRACE: 38,
    "strict": -signal.SIGKILL,
}
NAMES = {KILL_PROCESS: "kill", TRAP: "trap", ERRNO: "errno", NOTIFY: "notify", TRACE: "trace", "strict": "strict"}
# Strict mode is for one thread only (seccomp(2)).
CASES = [(action, whom) for action in ENDS for whom in ("all", "alone", "first") if (action, whom) != ("strict", "all")]
ALL = os.environ.get("LIVEPATCH_DEATHS") == "all"
SEED = int(os.environ.get("LIVEPATCH_SEED", "0")) or random.randrange(1, 1 << 31)


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Path, Patch]]:
    with open_folder() as folder:
        program = compile_program(folder, "program", PROGRAM)
        yield program, make_patch(folder, program, FIXED, ["first", "second"])


def _modes(pid: int) -> dict[int, str]:
    """Of each thread whether it is confined: 0 not, 1 in strict mode, 2 by a filter."""
    found = {}
    for task in Path("/proc/%d/task" % pid).iterdir():
        lines = (task / "status").read_text().splitlines()
        found[int(task.name)] = next(line.split()[1] for line in lines if line.startswith("Seccomp:"))
    return found


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
@pytest.mark.parametrize(
    ("action", "whom"), [pytest.param(*case, id="%s-%s" % (NAMES[case[0]], case[1])) for case in CASES]
)
def test_every_kind_of_filter(
    made: tuple[Path, Patch],
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    whom: str,
    forms: tuple[str, ...],
    consistency: str,
) -> None:
    """It is patched, its filters stand as before, and still do the same for a call of its own."""
    program, patch = made
    with Running(program, action, whom) as running:
        modes = _modes(running.pid)
        assert modes[running.pid] == ("1" if action == "strict" else "2")
        assert len(set(modes.values())) == (2 if whom == "first" else 1)
        before = snapshot(running.pid)
        if whom == "first":  # the confined one is asked, although another one would be
            monkeypatch.setattr(injected_call, "_callers", lambda *_: [running.pid])
        load_and_activate(patch, running.pid, forms, consistency)
        assert running.ask("?") == "300"
        take_out(patch, running.pid)
        assert running.ask("?") == "3"
        assert snapshot(running.pid) == before
        assert _modes(running.pid) == modes
        running.send("map")
        _is_judged(running, action, whom)


def _is_judged(running: Running, action: str, whom: str) -> None:
    """A call of its own that is not allowed comes to the end that it must come to."""
    end = ENDS[action]
    if action == "strict" and whom == "first":  # it ends this thread only
        _until(lambda: Path("/proc/%d/stat" % running.pid).read_text().rpartition(")")[2].split()[0] == "Z")
    elif end is None:
        _until(lambda: Path("/proc/%d/syscall" % running.pid).read_text().split()[0] == "9")
    elif end > 0:
        assert running.line() == str(end)
    else:
        assert running.line() == ""
        assert running.ended() == end


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_thread_without_filters_is_asked_first(made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one, no filter matters: neither a privilege nor luck is needed."""
    program, patch = made
    asked = shared(2)
    place_text = injected_call.InjectedCalls.place_text

    def seen(calls: injected_call.InjectedCalls, text: str) -> int:
        asked[int(calls._confined)] += 1
        return place_text(calls, text)

    monkeypatch.setattr(injected_call.InjectedCalls, "place_text", seen)
    for whom in ("first", "other"):
        with Running(program, KILL_PROCESS, whom) as running:
            load_and_activate(patch, running.pid, ("byte", "jump"), "entry")
            assert running.ask("?") == "300"
    assert list(asked) == [2, 0]


def test_the_programs_own_calls_are_judged_all_the_time(
    made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that tries a forbidden call again and again, and is held for ours: it never gets past its filter."""
    program, patch = made
    with Running(program, ERRNO, "other", "tries") as running:
        confined = [tid for tid, mode in _modes(running.pid).items() if mode == "2"]
        assert len(confined) == 1
        monkeypatch.setattr(injected_call, "_callers", lambda *_: confined)
        chosen = Selection(pids=(running.pid,))
        for _turn in range(10):
            assert only(load_patch(patch, chosen)).error is None
            assert only(unload_patch("fix", chosen, 5.0)).error is None
        tried, passed = running.ask("tried").split()
        assert int(tried) > 1000
        assert int(passed) == 0


def test_a_filter_that_comes_while_the_thread_is_held(
    made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread gives it one that kills for our calls, just before they are made."""
    program, patch = made
    place_text = injected_call.InjectedCalls.place_text
    with Running(program, KILL_PROCESS, "late") as running:

        def confining(calls: injected_call.InjectedCalls, text: str) -> int:
            if not calls._confined:
                running.send("confine")
                _until(lambda: set(_modes(running.pid).values()) == {"2"})
            return place_text(calls, text)

        monkeypatch.setattr(injected_call, "_callers", lambda *_: [running.pid])
        monkeypatch.setattr(injected_call.InjectedCalls, "place_text", confining)
        assert set(_modes(running.pid).values()) == {"0"}
        load_and_activate(patch, running.pid, ("byte", "jump"), "entry")
        assert set(_modes(running.pid).values()) == {"2"}
        assert running.line() == "3"
        assert running.ask("?") == "300"


def test_filters_that_may_not_be_suspended(made: tuple[Path, Patch]) -> None:
    """Without CAP_SYS_ADMIN a program is refused that confines all its threads, and patched where it leaves one."""
    program, patch = made
    options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    with Running(program, KILL_PROCESS, "all", **options) as running:
        before = snapshot(running.pid)
        error = as_user(NOBODY, lambda: error_of(load_patch(patch, Selection(pids=(running.pid,)))))
        assert error["code"] == "not_permitted"
        assert "seccomp" in error["message"]
        assert "CAP_SYS_ADMIN" in error["remedy"]
        assert snapshot(running.pid) == before
        assert running.ask("?") == "3"
    with Running(program, KILL_PROCESS, "first", **options) as running:
        as_user(NOBODY, lambda: load_and_activate(patch, running.pid, ("byte", "jump"), "entry"))
        assert running.ask("?") == "300"


def _confine_ourselves() -> None:
    """A filter that allows everything: a tool that has any may not suspend those of others (ptrace(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000))  # return SECCOMP_RET_ALLOW
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 1, ctypes.addressof(code)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0  # PR_SET_SECCOMP


def test_a_tool_that_is_confined_itself(made: tuple[Path, Patch]) -> None:
    """As in a container with the usual filter, though root: a program without filters can be patched, others not."""
    program, patch = made

    def load(pid: int) -> dict[str, str] | None:
        _confine_ourselves()
        return only(load_patch(patch, Selection(pids=(pid,)))).error

    with Running(program, KILL_PROCESS, "all") as running:
        before = snapshot(running.pid)
        error = as_user(0, lambda: load(running.pid))
        assert error["code"] == "not_permitted"
        assert "under a filter of its own" in error["remedy"]
        assert snapshot(running.pid) == before
        assert running.ask("?") == "3"
    with Running(program, KILL_PROCESS, "first") as running:
        assert as_user(0, lambda: load(running.pid)) is None
        assert running.ask("?") == "3"


class _GapTool(Tool):
    """A tool that tells which of its points lie where its death may be that of a confined program."""

    def __init__(self, work: Callable[[], Report], point: int, fate: str = "die") -> None:
        self._marks = shared(1002)  # whether it is there now, how many points were, and which
        super().__init__(work, point, fate)

    @property
    def is_there(self) -> bool:
        """True when it is there, or died there."""
        return bool(self._marks[0])

    def gap(self) -> list[int]:
        """The points there."""
        return list(self._marks[2 : 2 + self._marks[1]])

    def _run(self, work: Callable[[], Report]) -> None:
        real = injected_call.InjectedCalls._nobody_may_die

        @contextlib.contextmanager
        def marked(calls: injected_call.InjectedCalls) -> Iterator[None]:
            first = self.points + 1
            self._marks[0] = 1
            with real(calls):
                yield
            self._marks[0] = 0
            for point in range(first, self.points + 1):
                self._marks[2 + self._marks[1]] = point
                self._marks[1] += 1

        injected_call.InjectedCalls._nobody_may_die = marked  # type: ignore[method-assign]
        super()._run(work)


def _work(patch: Patch, pid: int, operation: str) -> Callable[[], Report]:
    chosen = Selection(pids=(pid,))
    return (lambda: load_patch(patch, chosen)) if operation == "load" else lambda: unload_patch("fix", chosen, 5.0)


@contextlib.contextmanager
def _confined(program: Path, patch: Patch, operation: str) -> Iterator[Running]:
    """A program that is killed for nearly every call, ready for the operation."""
    with Running(program, KILL_PROCESS, "alone") as running:
        if operation == "unload":
            assert only(load_patch(patch, Selection(pids=(running.pid,)))).error is None
        yield running


def _points(program: Path, patch: Patch, operation: str) -> tuple[list[int], list[int]]:
    """All points of an operation outside the gap, and those in it."""
    with _confined(program, patch, operation) as running:
        tool = _GapTool(_work(patch, running.pid, operation), 0)
        assert tool.ended() == "done"
        gap = tool.gap()
        print("%s: %d points, %d of them in the gap; seed %d" % (operation, tool.points, len(gap), SEED))
        assert gap
        assert len(gap) < tool.points / 2
        return [point for point in range(1, tool.points + 1) if point not in gap], gap


def _some(points: list[int], count: int) -> list[int]:
    return points if ALL else sorted(random.Random(SEED).sample(points, min(count, len(points))))


@pytest.mark.parametrize("operation", ["load", "unload"])
def test_the_tool_is_killed(made: tuple[Path, Patch], operation: str) -> None:
    """At any point but those in the gap the program lives on, and the next run succeeds."""
    program, patch = made
    for point in _some(_points(program, patch, operation)[0], 8):
        with _confined(program, patch, operation) as running:
            tool = _GapTool(_work(patch, running.pid, operation), point)
            where = (operation, point, SEED, tool.ended())
            assert where[-1] == "killed", where
            assert not tool.is_there, where
            assert running.ask("?") == "3", where
            assert tracers(running.pid) == {"0"}, where
            for again in ("load", "unload"):
                assert only(_work(patch, running.pid, again)()).error is None, where
            assert running.ask("?") == "3", where


@pytest.mark.parametrize("operation", ["load", "unload"] if ALL else ["load"])
def test_the_tool_comes_to_a_halt(made: tuple[Path, Patch], operation: str) -> None:
    """In the gap the watchdog does not kill it: its thread waits, and the program lives on."""
    program, patch = made
    gap = _points(program, patch, operation)[1]
    # Of each call behind the setting of registers: its thread has not gone on yet.
    for point in _some([point for point in gap if point - 1 in gap and point - 2 not in gap], 1):
        with _confined(program, patch, operation) as running:
            tool = _GapTool(_work(patch, running.pid, operation), point, "halt")
            assert tool.ended() == "done", (operation, point, SEED)
            assert tool.was_met
            assert running.ask("?") == "3", (operation, point, SEED)
