# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that stand still, or never hold still; coroutines; libraries that come and go; several of a name."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch
from reports import only
from snapshots import descriptors, states

from module_utils._engine import map_region
from module_utils._engine.activate import Limits
from module_utils._engine.operations import (
    activate_patch,
    deactivate_patch,
    load_patch,
    unload_patch,
)
from module_utils._errors import LivepatchError
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._ptrace import injected_call

MAIN = r"""
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
SETUP
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    prepare();
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", second(first(0)));
}
"""
FIXED = """
#include <unistd.h>
int first(int x) { return x + (int)getpid() * 0 + 100; }
int second(int x) { return x + (int)getpid() * 0 + 200; }
"""
WAYS = [pytest.param(("byte", "jump"), "entry", id="byte"), pytest.param(("jump",), "atomic", id="stop")]


def _made(folder: Path, setup: str, *flags: str) -> tuple[Path, Patch]:
    program = compile_program(folder, "program", MAIN.replace("SETUP", setup), *flags)
    return program, make_patch(folder, program, FIXED, ["first", "second"])


def _there_and_back(patch: Patch, pid: int, forms: tuple[str, ...], consistency: str, times: int = 1) -> None:
    """Load, switch there and back some times, unload; each must succeed."""
    chosen, limits = Selection(pids=(pid,)), Limits(max_stop=2.0, timeout=5.0, consistency=consistency)
    assert only(load_patch(patch, chosen, forms=forms)).error is None
    for _turn in range(times):
        assert only(activate_patch("fix", chosen, limits)).error is None
        assert only(deactivate_patch("fix", chosen, limits)).error is None
    assert only(unload_patch("fix", chosen, 5.0)).error is None


COROUTINE = r"""
#include <sys/mman.h>
#include <ucontext.h>
static ucontext_t before, other;
static void idle(void) { for (;;) pause(); }
static void *thread(void *nothing) {
    /* As an allocator's arena: guard pages before it, other data in it, and a small stack cut out of the middle. */
    char *arena = mmap(0, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(arena + (1 << 18), 1 << 18, PROT_READ | PROT_WRITE);
    getcontext(&other);
    other.uc_stack.ss_sp = arena + (1 << 18) + (1 << 17);
    other.uc_stack.ss_size = 2048;
    makecontext(&other, idle, 0);
    swapcontext(&before, &other);
    return 0;
}
static void prepare(void) { pthread_t one; pthread_create(&one, 0, thread, 0); usleep(100000); }
"""


def test_a_coroutine_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread on a small stack of the program's own is not made to call: what lies below may be somebody's data."""
    program, patch = _made(tmp_path, COROUTINE)
    with Running(program) as running:
        threads = [int(name) for name in os.listdir("/proc/%d/task" % running.pid)]
        threads.remove(running.pid)
        assert len(threads) == 1
        monkeypatch.setattr(injected_call, "_callers", lambda *_: threads)
        outcome = only(load_patch(patch, Selection(pids=(running.pid,))))
        assert outcome.error is not None
        assert outcome.error["code"] == "function_busy"
        monkeypatch.undo()
        _there_and_back(patch, running.pid, ("byte", "jump"), "entry")


def test_a_descriptor_that_became_another_file(tmp_path: Path) -> None:
    """A program that closes our file and opens its own under the same number keeps its content."""
    path = tmp_path / "data"
    path.write_bytes(b"precious")
    with path.open("rb") as stream, subprocess.Popen(["sleep", "30"], pass_fds=[stream.fileno()]) as sleeper:
        try:
            with Process(sleeper.pid) as process, pytest.raises(LivepatchError) as error:
                map_region._fill_file(process, stream.fileno(), "fix", [b"patch"])
        finally:
            sleeper.kill()
    assert error.value.code == "no_room_near_object"
    assert path.read_bytes() == b"precious"


def _until_stopped(pid: int) -> None:
    """Wait for the state T: a thread that is let go passes through R on its way back to it, inside the kernel."""
    for _turn in range(200):
        if states(pid) == {"T"}:
            return
        time.sleep(0.005)
    raise AssertionError(states(pid))


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_a_stopped_program(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """A program in SIGSTOP is patched and stays stopped; when it goes on it runs the new code."""
    program, patch = _made(tmp_path, "static void prepare(void) {}")
    with Running(program) as running:
        os.kill(running.pid, signal.SIGSTOP)
        _until_stopped(running.pid)
        chosen = Selection(pids=(running.pid,))
        limits = Limits(max_stop=1.0, timeout=1.0, consistency=consistency)
        assert only(load_patch(patch, chosen, forms=forms)).error is None
        _until_stopped(running.pid)
        assert only(activate_patch("fix", chosen, limits)).error is None
        _until_stopped(running.pid)
        os.kill(running.pid, signal.SIGCONT)
        assert running.ask("?") == "300"


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_threads_come_and_go(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Threads are born and end all the time, thousands a second: 20 rounds, no thread is left stopped or lost."""
    setup = r"""
static volatile long born;
static void *short_lived(void *nothing) { born++; first(1); return 0; }
static void *breeds(void *nothing) {
    pthread_t threads[8];
    for (;;) {
        for (int index = 0; index < 8; index++) pthread_create(&threads[index], 0, short_lived, 0);
        for (int index = 0; index < 8; index++) pthread_join(threads[index], 0);
    }
}
static void prepare(void) {
    pthread_t thread;
    for (int index = 0; index < 2; index++) pthread_create(&thread, 0, breeds, 0);
}
"""
    program, patch = _made(tmp_path, setup)
    with Running(program) as running:
        for _turn in range(2):
            _there_and_back(patch, running.pid, forms, consistency, times=10)
        assert running.ask("?") == "3"
        assert not livepatch_mappings(running.pid)
        assert set(descriptors(running.pid)) == {"0", "1", "2"}


def test_timer_signals_through_many_switches(tmp_path: Path) -> None:
    """SIGALRM each millisecond through 80 switches by a stop: all succeed, and the program never sees a short read."""
    setup = r"""
#include <sys/time.h>
static volatile long alarms;
static void take(int number) { alarms++; }
static void prepare(void) {
    struct itimerval each = {{0, 1000}, {0, 1000}};
    struct sigaction action = {.sa_handler = take, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    setitimer(ITIMER_REAL, &each, 0);
}
"""
    program, patch = _made(tmp_path, setup)
    with Running(program) as running:
        _there_and_back(patch, running.pid, ("jump",), "atomic", times=40)
        assert running.ask("?") == "3"


def test_a_library_that_was_closed(tmp_path: Path) -> None:
    """dlclose takes the object away under a loaded patch: it cannot be activated, and can be taken out."""
    source = "#include <unistd.h>\nint first(int x) { return x + (int)getpid() * 0 + 1; }"
    library = compile_program(tmp_path, "libfirst.so", source, "-shared", "-fPIC")
    main = r"""
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **words) {
    char line[100];
    void *opened = dlopen(words[1], RTLD_NOW);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", dlclose(opened));
}
"""
    program = compile_program(tmp_path, "program", main)
    patch = make_patch(tmp_path, library, FIXED.replace("int second", "static int second"), ["first"])
    with Running(program, str(library)) as running:
        chosen = Selection(pids=(running.pid,))
        assert only(load_patch(patch, chosen)).error is None
        assert running.ask("?") == "0"
        outcome = only(activate_patch("fix", chosen, Limits(timeout=0.1)))
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.state, outcome.verified) == ("object_modified", "loaded", False)
        assert only(unload_patch("fix", chosen, 1.0)).error is None
        assert not livepatch_mappings(running.pid)


def test_a_handler_on_its_own_stack(tmp_path: Path) -> None:
    """A thread sleeps in the patch, and in a handler on its alternate stack above that: still it counts as inside."""
    setup = r"""
static char other[65536];
static volatile int inside;
static void handler(int number) { inside = 1; while (inside) usleep(1000); }
static void leave(int number) { inside = 0; }
static void *sleeps(void *nothing) { for (;;) pause(); }
static void prepare(void) {
    pthread_t thread; /* one that can be made to unmap the patch */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_create(&thread, 0, sleeps, 0);
    pthread_sigmask(SIG_SETMASK, &before, 0);
    stack_t mine = {.ss_sp = other, .ss_size = sizeof other};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK}, end = {.sa_handler = leave};
    sigaltstack(&mine, 0);
    sigaction(SIGUSR1, &action, 0);
    sigaction(SIGUSR2, &end, 0);
}
"""
    program = compile_program(tmp_path, "program", MAIN.replace("SETUP", setup))
    fixed = "#include <unistd.h>\nint first(int x) { return x + 100 + (pause() & 0); }"
    patch = make_patch(tmp_path, program, fixed, ["first"])
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        load_patch(patch, chosen)
        activate_patch("fix", chosen, Limits(max_stop=1.0))
        running.send("?")
        time.sleep(0.05)
        os.kill(running.pid, signal.SIGUSR1)
        time.sleep(0.05)
        deactivate_patch("fix", chosen, Limits(max_stop=1.0))
        outcome = only(unload_patch("fix", chosen, 0.1))
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.state) == ("function_busy", "loaded")
        os.kill(running.pid, signal.SIGUSR2)
        assert running.line() == "102"
        assert only(unload_patch("fix", chosen, 2.0)).error is None
        assert running.ask("?") == "3"


def test_two_objects_with_patches_of_one_name(tmp_path: Path) -> None:
    """Two builds of one program, each with its own patch of the same id: neither is taken for the other."""
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(_made(tmp_path / name, "static void prepare(void) { first(%d); }" % len(made)))
    with Running(made[0][0]) as one, Running(made[1][0]) as two:
        for (_program, patch), running in zip(made, (one, two)):
            outcomes = load_patch(patch, Selection(user="root")).outcomes
            assert [(outcome.pid, outcome.error) for outcome in outcomes] == [(running.pid, None)]
        activated = activate_patch("fix", Selection(pids=(one.pid, two.pid)), Limits(max_stop=1.0)).outcomes
        assert [outcome.error for outcome in activated] == [None, None]
        assert (one.ask("?"), two.ask("?")) == ("300", "300")
        with Running(made[0][0]) as third:
            outcome = only(activate_patch("fix", Selection(pids=(third.pid,)), Limits()))
            assert outcome.error is not None
            assert outcome.error["code"] == "not_loaded"


def test_all_processes_that_map_the_object(tmp_path: Path) -> None:
    """Without any narrowing, every process that maps the object is found, and no other."""
    program, patch = _made(tmp_path, "static void prepare(void) {}")
    with Running(program) as one, Running(program) as two:
        outcomes = load_patch(patch, Selection()).outcomes
        assert {outcome.pid for outcome in outcomes} == {one.pid, two.pid}
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert unload_patch("fix", Selection(exe=str(program)), 1.0).summary()["changed"] == 2
