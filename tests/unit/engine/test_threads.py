# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads by the thousand: born and gone while the tool is at work, many at once, and those that no program made."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch
from snapshots import descriptors

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Outcome, Report
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection

MAIN = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
static volatile long count;
SETUP
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    prepare();
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'c') printf("%ld\n", count);
        else printf("%d\n", second(first(0)));
    }
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


def _made(folder: Path, setup: str, *flags: str) -> tuple[Path, Patch]:
    program = compile_program(folder, "program", MAIN.replace("SETUP", setup), *flags)
    return program, make_patch(folder, program, FIXED, ["first", "second"])


def _only(report: Report) -> Outcome:
    assert len(report.outcomes) == 1
    return report.outcomes[0]


def _well(report: Report) -> Outcome:
    outcome = _only(report)
    assert (outcome.error, outcome.verified) == (None, True)
    return outcome


# Makers that end, too: each makes the next of its line. Some threads are waited for, some are not.
CHURN = r"""
static void *short_lived(void *nothing) {
    if (first(1) + second(0) < 0) abort();
    __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
    return 0;
}
static void *line(void *nothing) {
    pthread_t some[4], next;
    for (int turn = 0; turn < 4; turn++) {
        for (int index = 0; index < 4; index++)
            if (pthread_create(&some[index], 0, short_lived, 0)) abort();
        for (int index = 0; index < 4; index++)
            if (index % 2) pthread_detach(some[index]);
            else pthread_join(some[index], 0);
    }
    while (pthread_create(&next, 0, line, 0)) usleep(100);
    pthread_detach(next);
    return 0;
}
static void prepare(void) {
    pthread_t thread;
    for (int index = 0; index < 3; index++) { pthread_create(&thread, 0, line, 0); pthread_detach(thread); }
}
"""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_threads_come_and_go(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Thousands of threads a second come and go during load, both switches and unload: no one is left stopped or lost.

    Only the first thread lives long. Each round makes the program's count go on: nobody waits for what never comes.
    """
    program, patch = _made(tmp_path, CHURN)
    with Running(program) as running:
        chosen, limits = Selection(pids=(running.pid,)), Limits(2.0, 10.0, consistency)
        files = descriptors(running.pid)
        began, born = time.monotonic(), int(running.ask("count"))
        for _turn in range(3):
            assert _well(load_patch(patch, chosen, forms=forms)).state == "loaded"
            for _switch in range(3):
                outcome = _well(activate_patch("fix", chosen, limits))
                assert (outcome.state, outcome.switch) == ("active", "byte" if consistency == "entry" else "stop")
                assert outcome.stop_us <= 2_000_000
                assert running.ask("?") == "300"
                assert _well(deactivate_patch("fix", chosen, limits)).state == "loaded"
                assert running.ask("?") == "3"
            assert _well(unload_patch("fix", chosen, 10.0)).state == "absent"
            before, born = born, int(running.ask("count"))
            assert born > before
        print(born / (time.monotonic() - began))
        assert running.alive()
        assert not livepatch_mappings(running.pid)
        assert descriptors(running.pid) == files
