# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operation says of processes in which something is not as it must be."""

from __future__ import annotations

from pathlib import Path

from patching import Running, compile_program, make_patch

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.region import find_regions
from module_utils._process.process import Process
from module_utils._process.selection import Selection

PROGRAM = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static volatile int seen;
__attribute__((noinline)) int work(int x) { seen++; return x + 1; }
int main(void)
{
    char line[64];
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == 'v') {
            if (!vfork()) { /* the child shares its parent's memory, and says so */
                char said[32];
                write(1, said, snprintf(said, sizeof said, "%d\\n", getpid()));
                usleep(700000);
                _exit(0);
            }
        } else
            printf("%d\\n", work(1));
    }
    return 0;
}
"""
NEW_CODE = "int work(int x) { return x + 2; }"


def test_a_damaged_patch_is_a_failure_and_not_a_success_unverified(tmp_path: Path) -> None:
    program = compile_program(tmp_path, "program", PROGRAM)
    patch = make_patch(tmp_path, program, NEW_CODE, ["work"])
    with Running(program) as running, Process(running.pid) as process:
        meant = Selection(pids=(running.pid,))
        assert load_patch(patch, meant).summary()["failed"] == 0
        (region,) = find_regions(process.memory, process.maps())
        (start, size), *_rest = region.code_ranges()
        before = process.memory.read(start + 64, 1)
        process.memory.write(start + 64, bytes([before[0] ^ 1]))
        for report in (load_patch(patch, meant), activate_patch("fix", meant, Limits())):
            (outcome,) = report.outcomes
            assert not outcome.verified
            assert outcome.error is not None
            assert outcome.error["code"] == "memory_mismatch"
            assert "bytes at" in outcome.error["message"]
        assert size > start
        # the way out stays open
        assert deactivate_patch("fix", meant, Limits()).summary()["failed"] == 0
        assert unload_patch("fix", meant, 5).summary()["failed"] == 0
        assert running.ask("a") == "2"


def test_a_child_in_its_parents_memory_is_not_taken_for_a_process(tmp_path: Path) -> None:
    program = compile_program(tmp_path, "program", PROGRAM)
    patch = make_patch(tmp_path, program, NEW_CODE, ["work"])
    with Running(program) as running:
        child = int(running.ask("v"))
        (named,) = load_patch(patch, Selection(pids=(child,))).outcomes
        assert named.error is not None
        assert named.error["code"] == "function_busy"
        assert "its parent" in named.error["message"]
        assert [outcome.pid for outcome in load_patch(patch, Selection(exe=str(program))).outcomes] == [running.pid]
