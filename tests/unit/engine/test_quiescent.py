# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Consistency quiescent: a switch waits until nobody is inside what it leaves, and keeps nobody else stopped for it."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from patching import Running, compile_program, make_patch, run, symbols

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.region import ACTIVATING, find_region, find_regions
from module_utils._process.process import Process
from module_utils._process.selection import Selection

# One thread is inside `work` until it is told to leave; the main thread answers.
PROGRAM = """
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
volatile int inside, leave;
__attribute__((noinline)) int work(int stay)
{
    inside = stay;
    while (stay && !leave)
        usleep(100000);
    inside = 0;
    return 1;
}
static void *worker(void *nothing) { work(1); return 0; }
int main(void)
{
    char line[64];
    pthread_t thread;
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == 's') {
            leave = 0;
            pthread_create(&thread, 0, worker, 0);
            while (!inside)
                usleep(100);
            puts("inside");
        } else if (line[0] == 'l') {
            leave = 1;
            pthread_join(thread, 0);
            puts("left");
        } else
            printf("%d\\n", work(0));
    }
    return 0;
}
"""
NEW_CODE = """
#include <unistd.h>
extern volatile int inside, leave;
int work(int stay)
{
    inside = stay;
    while (stay && !leave)
        usleep(100000);
    inside = 0;
    return 2;
}
"""


def test_waits_for_a_thread_inside_and_refuses_after_the_timeout(tmp_path: Path) -> None:
    program = compile_program(tmp_path, "program", PROGRAM)
    patch = make_patch(tmp_path, program, NEW_CODE, ["work"], consistency="quiescent")
    with Running(program) as running:
        meant = Selection(pids=(running.pid,))
        assert load_patch(patch, meant).summary()["failed"] == 0
        assert running.ask("s") == "inside"

        (refused,) = activate_patch("fix", meant, Limits(timeout=0.3)).outcomes
        assert refused.error is not None
        assert refused.error["code"] == "function_busy"
        assert refused.state == "loaded"
        assert refused.attempts > 1
        # all were never stopped at once
        assert refused.stop_us == 0
        assert running.ask("a") == "1"

        with ThreadPoolExecutor() as pool:
            activation = pool.submit(activate_patch, "fix", meant, Limits(max_stop=2.0, timeout=60))
            _wait_for_state(running.pid, ACTIVATING)
            time.sleep(0.2)
            assert running.ask("a") == "1"
            assert not activation.done()
            assert running.ask("l") == "left"
            (done,) = activation.result().outcomes
        assert done.error is None
        assert (done.state, done.switch) == ("active", "stop")
        assert done.attempts > 1
        assert running.ask("a") == "2"
        # and the way back waits for who is inside the new code
        assert running.ask("s") == "inside"
        (refused,) = deactivate_patch("fix", meant, Limits(timeout=0.3)).outcomes
        assert refused.error is not None
        assert (refused.error["code"], refused.state, refused.stop_us) == ("function_busy", "active", 0)
        assert running.ask("l") == "left"
        assert deactivate_patch("fix", meant, Limits(max_stop=2.0)).outcomes[0].switch == "stop"
        assert running.ask("a") == "1"
        assert unload_patch("fix", meant, 5).summary()["failed"] == 0


def _wait_for_state(pid: int, state: int) -> None:
    """Until the header of the patch in a process has a state."""
    with Process(pid) as process:
        for _turn in range(6000):
            region = find_region(find_regions(process.memory, process.maps()), "fix")
            if region is not None and region.mutable.state == state:
                return
            time.sleep(0.01)
    raise AssertionError("the patch did not come to state %d" % state)


def test_entry_does_not_wait(tmp_path: Path) -> None:
    """The counter-check: without it, the same switch goes through at once."""
    program = compile_program(tmp_path, "program", PROGRAM)
    patch = make_patch(tmp_path, program, NEW_CODE, ["work"])
    with Running(program) as running:
        meant = Selection(pids=(running.pid,))
        load_patch(patch, meant)
        assert running.ask("s") == "inside"
        (done,) = activate_patch("fix", meant, Limits(timeout=0.3)).outcomes
        assert (done.error, done.state) == (None, "active")


def test_less_than_the_patch_needs_is_refused(tmp_path: Path) -> None:
    program = compile_program(tmp_path, "program", PROGRAM)
    patch = make_patch(tmp_path, program, NEW_CODE, ["work"], consistency="quiescent")
    with Running(program) as running:
        meant = Selection(pids=(running.pid,))
        load_patch(patch, meant)
        (refused,) = activate_patch("fix", meant, Limits(consistency="atomic")).outcomes
        assert refused.error is not None
        assert refused.error["code"] == "patch_unsupported"
        assert running.ask("a") == "1"


NO_UNWINDING = ("-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fomit-frame-pointer")


@pytest.mark.parametrize("stripped", [False, True])
def test_a_refusal_names_thread_function_and_stack(tmp_path: Path, stripped: bool) -> None:
    """By symbols where the object has them, else by offsets in it; without any unwind information, in both ways."""
    program = compile_program(tmp_path, "program", PROGRAM, *NO_UNWINDING)
    patch = make_patch(tmp_path, program, NEW_CODE, ["work"], consistency="quiescent")
    worker = symbols(program)["worker"]
    if stripped:
        run("strip", "--strip-all", str(program))
    with Running(program) as running:
        meant = Selection(pids=(running.pid,))
        load_patch(patch, meant)
        assert running.ask("s") == "inside"
        (thread,) = (
            task.name for task in Path("/proc/%d/task" % running.pid).iterdir() if task.name != str(running.pid)
        )
        (refused,) = activate_patch("fix", meant, Limits(timeout=0.2)).outcomes
        assert refused.error is not None
        message = refused.error["message"]
        assert message.startswith("thread %s (program) of process %d (program) is, or may" % (thread, running.pid))
        assert re.search(r"inside code that is left \(0x\w+, work\+0x\w+, on its stack at 0x\w+\)", message), message
        assert "scanned and not unwound" in message
        # usleep of the C library, called by what is replaced, called by a function that is not
        stack = message.partition("returned): ")[2]
        assert re.search(r"libc\.so\.6.* < work\+0x\w+ < ", stack), message
        caller = re.search(r" < work\+0x\w+ < (\S+)", stack)
        assert caller, message
        if stripped:
            name, _plus, offset = caller[1].partition("+")
            assert name == "program"
            assert worker[0] < int(offset, 16) < worker[0] + worker[1]
        else:
            assert re.match(r"worker\+0x", caller[1])


def test_unloading_names_thread_function_and_stack(tmp_path: Path) -> None:
    """Refused while a thread is inside the patch, which has no unwind information; it goes on there undisturbed."""
    program = compile_program(tmp_path, "program", PROGRAM)
    patch = make_patch(tmp_path, program, NEW_CODE, ["work"])
    with Running(program) as running:
        meant = Selection(pids=(running.pid,))
        load_patch(patch, meant)
        activate_patch("fix", meant, Limits())
        assert running.ask("s") == "inside"
        deactivate_patch("fix", meant, Limits())
        (refused,) = unload_patch("fix", meant, 0.2).outcomes
        assert refused.error is not None
        assert refused.error["code"] == "function_busy"
        assert refused.state == "loaded"
        message = refused.error["message"]
        assert re.search(r"inside patch fix \(0x\w+, work of patch fix\+0x", message), message
        assert re.search(r" < work of patch fix\+0x\w+ < worker\+0x", message), message
        assert running.ask("l") == "left"
        assert unload_patch("fix", meant, 5).summary()["failed"] == 0
        assert running.ask("a") == "1"
