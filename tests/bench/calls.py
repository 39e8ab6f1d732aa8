# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What one call costs: of a function as it was, of one that is patched, and of one that was patched once."""

from __future__ import annotations

import statistics
from pathlib import Path

from patching import Running, compile_program, make_patch
from succeeded import only

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._process.selection import Selection

HEADINGS = ["a call, ns", "as it was", "patched", "more", "taken out again"]
_PROGRAM = r"""
#include <stdio.h>
#include <time.h>
__attribute__((noinline, noipa)) int called(int x) { return x * 3 + 1; }
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        struct timespec began, ended;
        clock_gettime(CLOCK_MONOTONIC, &began);
        int x = 1;
        for (int turn = 0; turn < 20000000; turn++) x = called(x);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        double span = (ended.tv_sec - began.tv_sec) * 1e9 + (ended.tv_nsec - began.tv_nsec);
        printf("%.4f %d\n", span / 20000000, x);
    }
}
"""


def measure(folder: Path, rounds: int) -> list[list[str]]:
    """One row for each way to switch: medians over rounds; the new code is the old code."""
    program = compile_program(folder, "calls", _PROGRAM)
    patch = make_patch(folder, program, "int called(int x) { return x * 3 + 1; }", ["called"], "calls-fix")
    rows = []
    with Running(program) as running:
        meant = Selection(pids=(running.pid,))

        def span() -> float:
            return float(running.ask("?").split()[0])

        for way, forms in (("byte", ("byte", "jump")), ("jump", ("jump",))):
            before, during, after = [], [], []
            for _round in range(rounds):
                before.append(span())
                only(load_patch(patch, meant, forms=forms))
                only(activate_patch("calls-fix", meant, Limits()))
                during.append(span())
                only(deactivate_patch("calls-fix", meant, Limits()))
                only(unload_patch("calls-fix", meant, 10))
                after.append(span())
            more = statistics.median(two - one for one, two in zip(before, during))
            rows.append(
                [way, *("%.2f" % one for one in (statistics.median(before), statistics.median(during), more))]
                + ["%.2f" % statistics.median(after)]
            )
    return rows
