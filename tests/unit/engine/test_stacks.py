# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads that run on stacks which nobody but the program knows: coroutines, split stacks, no stack at all."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from patching import Running, compile_program, make_patch
from reports import only, well
from snapshots import snapshot, tracers

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection

# A thread, or with ALONE the first and only one, calls `work` all the time on a stack of its own. On the letter h it
# stays inside `work`, and on r it goes on. `back` is told how often it was, where it keeps numbers in registers.
MAIN = r"""
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
static volatile int hold, inside;
static volatile long count, answered;
__attribute__((noinline, noipa)) void meet(void) {
    while (hold) { inside = 1; WAIT; }
    inside = 0;
}
__attribute__((noinline, noipa)) int work(int x) { meet(); return x + 1; }
static char line[100];
static void answer(void) {
    if (!fgets(line, sizeof line, stdin)) _exit(0);
    if (*line == 'h') { hold = 1; while (!inside) usleep(100); puts("held"); }
    else if (*line == 'r') { hold = 0; while (inside) usleep(100); puts("released"); }
    else if (*line == 'c') printf("%ld\n", count);
    else {
        answered = 0;
        while (!answered) usleep(100);
        printf("%ld\n", answered);
    }
}
static void calls(void) {
    for (;;) { int found = work(0); if (!answered) answered = found; count++; }
}
SETUP
int main(void) {
    pthread_t thread;
    setvbuf(stdout, 0, _IOLBF, 0);
    pthread_create(&thread, 0, elsewhere, 0);
    puts("ready");
    for (;;) answer();
}
"""
FIXED = """
void meet(void);
int work(int x) { meet(); return x + 100; }
"""
COROUTINE = r"""
static ucontext_t before, other;
static char own[65536];
static void *elsewhere(void *nothing) {
    getcontext(&other);
    other.uc_stack.ss_sp = STACK;
    other.uc_stack.ss_size = 65536;
    makecontext(&other, calls, 0);
    swapcontext(&before, &other);
    return 0;
}
"""
SPLIT = r"""
/* A stack in pieces (gcc -fsplit-stack): deep calls, of which each may lie in another piece. */
static int deep(int depth) {
    volatile char room[20000];
    room[depth] = depth;
    if (depth < 5) return deep(depth + 1) + room[depth] * 0;
    calls();
    return 0;
}
void deep_wait(void) {
    volatile char room[200000];
    for (room[0] = 0; hold; room[1]++) usleep(100);
}
static void *elsewhere(void *nothing) { deep(0); return 0; }
"""
BYTE, STOP = (("byte", "jump"), "entry"), (("jump",), "atomic")
STACKS = [
    pytest.param("malloc(65536)", "usleep(100)", BYTE, id="heap-asleep"),
    pytest.param("malloc(65536)", "sched_yield()", STOP, id="heap-awake"),
    pytest.param("own", "usleep(100)", STOP, id="static"),
    pytest.param("(char *)mmap(0, 1 << 17, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)", "usleep(100)", BYTE, id="mapped"),
]


def _made(folder: Path, setup: str, wait: str, *flags: str) -> tuple[Path, Patch]:
    program = compile_program(folder, "program", MAIN.replace("SETUP", setup).replace("WAIT", wait), *flags)
    return program, make_patch(folder, program, FIXED, ["work"])


def _busy(report: Report, state: str) -> str:
    outcome = only(report)
    assert outcome.error is not None
    assert (outcome.error["code"], outcome.state) == ("function_busy", state)
    return outcome.error["message"]


def _inside_and_out(program: Path, patch: Patch, forms: tuple[str, ...], consistency: str) -> None:
    """Patched while it is inside the function, old or new; what needs it to be outside waits until it is."""
    with Running(program) as running:
        chosen, limits = Selection(pids=(running.pid,)), Limits(2.0, 10.0, consistency)
        short = Limits(2.0, 0.2, "quiescent")
        before = snapshot(running.pid).code
        assert well(load_patch(patch, chosen, forms=forms)).state == "loaded"

        assert running.ask("hold") == "held"
        _busy(activate_patch("fix", chosen, short), "loaded")
        assert well(activate_patch("fix", chosen, limits)).state == "active"
        assert running.ask("release") == "released"
        assert running.ask("?") == "100"

        assert running.ask("hold") == "held"
        _busy(deactivate_patch("fix", chosen, short), "active")
        assert well(deactivate_patch("fix", chosen, limits)).state == "loaded"
        message = _busy(unload_patch("fix", chosen, 0.2), "loaded")
        # on the stack that the thread is on, or, where that is in pieces, in memory that may be a stack
        assert "thread " in message or "leads into" in message
        assert running.ask("release") == "released"
        assert running.ask("?") == "1"
        assert well(unload_patch("fix", chosen, 10.0)).state == "absent"
        count = int(running.ask("count"))
        while int(running.ask("count")) < count + 10:
            time.sleep(0.002)
        assert snapshot(running.pid).code == before
        assert tracers(running.pid) == {"0"}


@pytest.mark.parametrize(("stack", "wait", "way"), STACKS)
def test_a_running_coroutine(tmp_path: Path, stack: str, wait: str, way: tuple[tuple[str, ...], str]) -> None:
    """A thread on a stack that the program made of any memory it had (makecontext)."""
    program, patch = _made(tmp_path, COROUTINE.replace("STACK", stack), wait)
    _inside_and_out(program, patch, *way)


def test_a_split_stack(tmp_path: Path) -> None:
    """A thread whose frames lie in several pieces, those inside the function not in the piece that it is in."""
    try:
        made = _made(tmp_path, SPLIT, "({ void deep_wait(void); deep_wait(); })", "-fsplit-stack")
    except subprocess.CalledProcessError:
        pytest.skip("this compiler makes no split stacks")
    _inside_and_out(*made, *STOP)


ALONE = r"""
static void *elsewhere(void *nothing) { return 0; }
static ucontext_t before, other;
static void on_coroutine(void) {
    for (;;) {
        answered = 0;
        fgets(line, sizeof line, stdin);
        if (*line == 'l') { puts("leaves"); swapcontext(&other, &before); }
        else printf("%d\n", work(0));
    }
}
static void begin(void) {
    getcontext(&other);
    other.uc_stack.ss_sp = malloc(65536);
    other.uc_stack.ss_size = 65536;
    makecontext(&other, on_coroutine, 0);
    swapcontext(&before, &other);
    while (fgets(line, sizeof line, stdin)) printf("%d\n", work(0));
    _exit(0);
}
"""


def test_nobody_stands_on_a_stack_of_known_bounds(tmp_path: Path) -> None:
    """The only thread is in a coroutine: it is not made to call, that is said, and all is as it was.

    Below such a stack may lie somebody's data. Back on its own stack the thread is asked, and the patch comes in; from
    then on it may be in a coroutine again to be switched.
    """
    source = MAIN.replace("SETUP", ALONE).replace("WAIT", "usleep(100)")
    source = source.replace("pthread_create(&thread, 0, elsewhere, 0);", "").replace("for (;;) answer();", "begin();")
    program = compile_program(tmp_path, "program", source, "-w")
    patch = make_patch(tmp_path, program, FIXED, ["work"])
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("?") == "1"
        before = snapshot(running.pid)
        assert "coroutine" in _busy(load_patch(patch, chosen), "absent")
        assert snapshot(running.pid) == before
        assert running.ask("leave") == "leaves"
        assert well(load_patch(patch, chosen)).state == "loaded"
        assert well(activate_patch("fix", chosen, Limits(1.0, 1.0))).state == "active"
        assert running.ask("?") == "100"


NO_STACK = r"""
static void *elsewhere(void *nothing) {
    for (;;) {
        int found = work(0);
        if (!answered) answered = found;
        count++;
        if (!hold) continue;
        /* The stack pointer leads nowhere, as in code that uses it as one more register. */
        asm volatile("mov %%rsp, %%rbx\n mov $16, %%esp\n movl $1, %0\n 1: pause\n cmpl $0, %1\n jne 1b\n"
                     "mov %%rbx, %%rsp\n movl $0, %0" : "=m"(inside) : "m"(hold) : "rbx", "memory", "cc");
    }
}
"""


def test_no_stack(tmp_path: Path) -> None:
    """A thread whose stack pointer leads nowhere counts as inside; to switch one byte nobody needs to know."""
    source = MAIN.replace("SETUP", NO_STACK).replace("while (hold) { inside = 1; WAIT; }\n    inside = 0;", "")
    assert "WAIT" not in source
    program = compile_program(tmp_path, "program", source)
    patch = make_patch(tmp_path, program, FIXED, ["work"])
    with Running(program) as running:
        chosen, limits = Selection(pids=(running.pid,)), Limits(1.0, 0.1)
        assert well(load_patch(patch, chosen)).state == "loaded"
        assert running.ask("hold") == "held"
        assert well(activate_patch("fix", chosen, limits)).switch == "byte"
        assert well(deactivate_patch("fix", chosen, limits)).state == "loaded"
        assert "thread " in _busy(unload_patch("fix", chosen, 0.1), "loaded")
        assert running.ask("release") == "released"
        assert running.ask("?") == "1"
        assert well(unload_patch("fix", chosen, 10.0)).state == "absent"
        assert running.ask("?") == "1"
        assert tracers(running.pid) == {"0"}
