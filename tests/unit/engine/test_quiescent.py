# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Consistency quiescent: a switch waits until nobody is inside what it leaves, and keeps nobody else stopped for it."""

from __future__ import annotations

import time
from pathlib import Path

from patching import Running, compile_program, make_patch

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._process.selection import Selection

# One thread sleeps inside `work` for as long as it is asked to; the main thread answers.
PROGRAM = """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static volatile int inside;
__attribute__((noinline)) int work(int milliseconds) { inside = 1; usleep(milliseconds * 1000); inside = 0; return 1; }
static void *worker(void *argument) { work(*(int *)argument); return 0; }
int main(void)
{
    static int milliseconds;
    char line[64];
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == 's') {
            pthread_t thread;
            milliseconds = atoi(line + 1);
            pthread_create(&thread, 0, worker, &milliseconds);
            while (!inside)
                usleep(100);
            puts("inside");
        } else
            printf("%d\\n", work(0));
    }
    return 0;
}
"""
NEW_CODE = """
#include <unistd.h>
int work(int milliseconds) { if (milliseconds) usleep(milliseconds * 1000); return 2; }
"""


def test_waits_for_a_thread_inside_and_refuses_after_the_timeout(tmp_path: Path) -> None:
    program = compile_program(tmp_path, "program", PROGRAM)
    patch = make_patch(tmp_path, program, NEW_CODE, ["work"], consistency="quiescent")
    with Running(program) as running:
        meant = Selection(pids=(running.pid,))
        assert load_patch(patch, meant).summary()["failed"] == 0
        assert running.ask("s 1500") == "inside"

        (refused,) = activate_patch("fix", meant, Limits(timeout=0.3)).outcomes
        assert refused.error is not None
        assert refused.error["code"] == "function_busy"
        assert refused.state == "loaded"
        assert refused.stop_us == 0
        assert running.ask("a") == "1"

        began = time.monotonic()
        (done,) = activate_patch("fix", meant, Limits(timeout=10)).outcomes
        assert done.error is None
        assert 0.5 < time.monotonic() - began < 5
        assert (done.state, done.switch) == ("active", "stop")
        assert done.attempts > 5
        assert running.ask("a") == "2"
        # and the way back waits for who is inside the new code
        assert deactivate_patch("fix", meant, Limits()).outcomes[0].switch == "stop"
        assert running.ask("a") == "1"
        assert unload_patch("fix", meant, 5).summary()["failed"] == 0


def test_entry_does_not_wait(tmp_path: Path) -> None:
    """The counter-check: without it, the same switch goes through at once."""
    program = compile_program(tmp_path, "program", PROGRAM)
    patch = make_patch(tmp_path, program, NEW_CODE, ["work"])
    with Running(program) as running:
        meant = Selection(pids=(running.pid,))
        load_patch(patch, meant)
        assert running.ask("s 1500") == "inside"
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
