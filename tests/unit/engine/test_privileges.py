# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may patch what: root, a user his own programs and no others; programs with privileges, or with a tracer.

As root, for it takes root to become another user.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch
from reports import only
from snapshots import snapshot, tracers
from steps import NOBODY, WAYS, as_user, error_of, load_and_activate, open_folder, take_out

from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._patch.content import Patch
from module_utils._process import denied
from module_utils._process.selection import Selection

# "hide": it makes itself unreadable to its own user. "lock": all memory it gets from now on is to be locked.
PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
static volatile int zero;
__attribute__((noinline, noipa)) int first(int x) { return x + zero + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + zero + 2; }
static void *idle(void *nothing) { for (;;) pause(); }
int main(int count, char **words) {
    char line[100];
    pthread_t thread;
    setvbuf(stdout, 0, _IOLBF, 0);
    pthread_create(&thread, 0, idle, 0);
    if (count > 1 && !strcmp(words[1], "hide") && prctl(PR_SET_DUMPABLE, 0)) exit(9);
    if (count > 1 && !strcmp(words[1], "lock")) {
        struct rlimit limit = {0, 0};
        if (mlockall(MCL_FUTURE) || setrlimit(RLIMIT_MEMLOCK, &limit)) exit(9);
    }
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", second(first(0)));
}
"""
FIXED = r"""
static volatile int zero;
int first(int x) { return x + zero + 100; }
int second(int x) { return x + zero + 200; }
"""
BYTE = ("byte", "jump")
OF_NOBODY = {"user": NOBODY, "group": NOBODY, "extra_groups": []}


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Path, Patch]]:
    with open_folder() as folder:
        program = compile_program(folder, "program", PROGRAM)
        yield program, make_patch(folder, program, FIXED, ["first", "second"])


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_a_user_and_his_own_program(made: tuple[Path, Patch], forms: tuple[str, ...], consistency: str) -> None:
    """No privilege is needed for it: neither real-time priority, nor locked memory, nor capabilities."""
    program, patch = made
    with Running(program, **OF_NOBODY) as running:
        before = snapshot(running.pid)
        as_user(NOBODY, lambda: load_and_activate(patch, running.pid, forms, consistency))
        assert running.ask("?") == "300"
        told = as_user(NOBODY, lambda: gather(["fix"], "patched"))
        assert running.pid in [process["pid"] for process in told["processes"] if process["patches"][0]["verified"]]
        assert told["summary"]["unreadable"] > 0
        as_user(NOBODY, lambda: take_out(patch, running.pid))
        assert running.ask("?") == "3"
        assert snapshot(running.pid) == before


def test_a_user_and_the_program_of_another(made: tuple[Path, Patch]) -> None:
    """Every operation on it is refused, with the reason and the remedy; nothing of it is changed."""
    program, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        load_and_activate(patch, running.pid, BYTE, "entry")
        before = snapshot(running.pid)
        for work in (
            lambda: load_patch(patch, chosen),
            lambda: activate_patch("fix", chosen, Limits()),
            lambda: deactivate_patch("fix", chosen, Limits()),
            lambda: unload_patch("fix", chosen, 1.0),
        ):
            error = as_user(NOBODY, lambda work=work: error_of(work()))
            assert error["code"] == "not_permitted"
            assert "it runs as user 0, the task as user %d" % NOBODY in error["message"]
            assert "become: true" in error["remedy"]
        assert snapshot(running.pid) == before
        assert running.ask("?") == "300"


def test_a_user_and_all_programs(made: tuple[Path, Patch]) -> None:
    """Where none is named his own is patched, and the report counts those that he may not look at."""
    program, patch = made
    with Running(program) as roots, Running(program, **OF_NOBODY) as own:
        report = as_user(NOBODY, lambda: load_patch(patch, Selection()))
        assert [(outcome.pid, outcome.error) for outcome in report.outcomes] == [(own.pid, None)]
        assert report.unreadable > 0
        assert not livepatch_mappings(roots.pid)


@pytest.mark.parametrize("kind", ["hidden", "set-user-ID"])
def test_a_program_that_its_own_user_may_not_look_at(made: tuple[Path, Patch], kind: str) -> None:
    """A program that is not dumpable, or runs with rights that its user lacks: refused to him, patched by root."""
    program, patch = made
    if kind == "set-user-ID":
        shutil.copy(program, program.with_name("privileged"))
        program = program.with_name("privileged")
        program.chmod(0o4755)
    with Running(program, "hide" if kind == "hidden" else "", **OF_NOBODY) as running:
        uids = "Uid:\t%d\t%d\t" % (NOBODY, NOBODY if kind == "hidden" else 0)
        assert uids in Path("/proc/%d/status" % running.pid).read_text()
        before = snapshot(running.pid)
        error = as_user(NOBODY, lambda: error_of(load_patch(patch, Selection(pids=(running.pid,)))))
        assert error["code"] == "not_permitted"
        assert ("PR_SET_DUMPABLE" if kind == "hidden" else "runs as user %d/0" % NOBODY) in error["message"]
        assert "become: true" in error["remedy"]
        assert snapshot(running.pid) == before
        load_and_activate(patch, running.pid, BYTE, "entry")
        assert running.ask("?") == "300"
        take_out(patch, running.pid)
        assert snapshot(running.pid) == before


@pytest.mark.parametrize("scope", ["1", "2", "3"])
def test_a_denial_under_yama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str) -> None:
    """What kernel.yama.ptrace_scope has to do with it is said. (By a stand-in: not every kernel has Yama.)"""
    setting = tmp_path / "ptrace_scope"
    setting.write_text(scope + "\n")
    monkeypatch.setattr(denied, "_YAMA", str(setting))
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    error = denied.denied("not allowed to trace", [str(NOBODY)] * 4)
    assert "kernel.yama.ptrace_scope is %s" % scope in error.message
    assert ("become: true" in error.remedy) == (scope != "3")
    assert ("yama" in denied.denied("not allowed to trace", ["0"] * 4).message) == (scope == "3")


def test_a_program_that_may_lock_no_more_memory(made: tuple[Path, Patch]) -> None:
    """All its new memory is to be locked, and it may lock no more: refused with the reason, nothing stays behind."""
    program, patch = made
    with Running(program, "lock", **OF_NOBODY) as running:
        before = snapshot(running.pid)
        error = error_of(load_patch(patch, Selection(pids=(running.pid,))))
        assert error["code"] == "not_permitted"
        assert "mmap" in error["message"]
        assert "locked memory" in error["remedy"]
        assert snapshot(running.pid) == before
        assert running.ask("?") == "3"


def _ptrace(request: int, tid: int, data: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(request, tid, None, ctypes.c_void_p(data)) < 0:
        raise OSError(ctypes.get_errno(), "ptrace %#x" % request)


def _trace(pid: int, how: str) -> None:
    """Trace as strace does, as gdb does that has stopped the program or lets it run, or one of its threads only."""
    threads = sorted(int(name) for name in os.listdir("/proc/%d/task" % pid))
    for tid in threads[-1:] if how == "one thread" else threads:
        if how == "strace":
            _ptrace(0x4206, tid, 1)  # PTRACE_SEIZE, PTRACE_O_TRACESYSGOOD
            _ptrace(0x4207, tid)  # PTRACE_INTERRUPT
        else:
            _ptrace(16, tid)  # PTRACE_ATTACH
        os.waitpid(tid, 0x40000000)
        if how == "strace":
            _ptrace(24, tid)  # PTRACE_SYSCALL
        elif how != "gdb, stopped":
            _ptrace(7, tid)  # PTRACE_CONT


@contextlib.contextmanager
def _traced(pid: int, how: str) -> Iterator[int]:
    """Another process, of the name "debugger", traces this one while the block runs; its pid."""
    reading, writing = os.pipe()
    tracer = os.fork()
    if not tracer:
        try:
            Path("/proc/self/comm").write_text("debugger")
            _trace(pid, how)
            os.write(writing, b"!")
            while True:
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 1) == b"!"
        yield tracer
    finally:
        os.kill(tracer, signal.SIGKILL)
        os.waitpid(tracer, 0)
        os.close(reading)


@pytest.mark.parametrize("how", ["strace", "gdb", "gdb, stopped", "one thread"])
def test_another_tracer(made: tuple[Path, Patch], how: str) -> None:
    """A program under another tracer, of whatever kind, is left to that, and it is named; then all goes on."""
    program, patch = made
    with Running(program) as running:
        start = snapshot(running.pid)
        chosen, limits = Selection(pids=(running.pid,)), Limits(timeout=0.1, consistency="atomic")
        with _traced(running.pid, how) as tracer:
            named = "process %d (debugger)" % tracer
            traced_by = tracers(running.pid)
            if how != "one thread":  # which leaves another one that can be asked, as is right
                for pretend in (True, False):
                    error = error_of(load_patch(patch, chosen, pretend=pretend))
                    assert (error["code"], named in error["message"]) == ("already_traced", True)
                assert snapshot(running.pid) == start
                assert tracers(running.pid) == traced_by
        assert only(load_patch(patch, chosen, forms=("jump",))).error is None
        before = snapshot(running.pid)
        with _traced(running.pid, how) as tracer:
            named = "process %d (debugger)" % tracer
            traced_by = tracers(running.pid)
            facts: dict[str, Any] = next(one for one in gather([], "all")["processes"] if one["pid"] == running.pid)
            assert facts["patchable"] == (how == "one thread")
            for outcome in (
                only(activate_patch("fix", chosen, limits, pretend=True)),
                only(unload_patch("fix", chosen, 0.1, pretend=True)),
                only(activate_patch("fix", chosen, limits)),
                only(unload_patch("fix", chosen, 0.1)),
            ):
                assert outcome.error is not None
                assert (outcome.error["code"], named in outcome.error["message"]) == ("already_traced", True)
                assert "debugger" in outcome.error["remedy"]
                assert outcome.state == "loaded"
            assert snapshot(running.pid) == before
            assert tracers(running.pid) == traced_by
        os.kill(running.pid, signal.SIGCONT)  # what a tracer that dies left stopped
        assert only(activate_patch("fix", chosen, Limits(max_stop=2.0, timeout=5.0))).error is None
        assert running.ask("?") == "300"
        take_out(patch, running.pid)
        assert snapshot(running.pid) == start
