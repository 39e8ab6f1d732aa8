# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the stop grows with the patch: with its bytes, and with the number of functions that it replaces."""

from __future__ import annotations

import statistics
from pathlib import Path

from patching import Running, compile_program, make_patch
from succeeded import only

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._process.selection import Selection

MOST = 200
HEADINGS = ["functions", "data, KB", "stop, us", "load hold, us"]
CASES = ((1, 1), (1, 1024), (10, 1), (50, 1), (200, 1), (200, 1024))
_PROGRAM = (
    "#include <pthread.h>\n#include <stdio.h>\n#include <unistd.h>\n"
    + "".join(
        "__attribute__((noinline, noipa)) int f%d(int x) { return x * %d + (int)getpid() * 0; }\n" % (one, one + 3)
        for one in range(MOST)
    )
    + "static void *idle(void *nothing) { for (;;) pause(); }\n"
    "int main(void) { pthread_t thread; for (int n = 0; n < 16; n++) pthread_create(&thread, 0, idle, 0);\n"
    'setvbuf(stdout, 0, _IOLBF, 0); puts("ready"); getchar(); return f0(1); }\n'
)


def measure(folder: Path, rounds: int) -> list[list[str]]:
    """A row for each case: medians over rounds, the program with 16 threads, all functions in one stop."""
    program = compile_program(folder, "many", _PROGRAM)
    limits = Limits(max_stop=1.0, consistency="atomic")
    rows = []
    with Running(program) as running:
        meant = Selection(pids=(running.pid,))
        for functions, kilobytes in CASES:
            source = "static volatile const char bulk[%d] = {1};\n" % (kilobytes << 10) + "".join(
                "int f%d(int x) { return x + bulk[x & 1023]; }\n" % one for one in range(functions)
            )
            patch = make_patch(folder, program, source, ["f%d" % one for one in range(functions)], "many-fix")
            stops, holds = [], []
            for _round in range(rounds):
                holds.append(only(load_patch(patch, meant, forms=("jump",))).hold_us)
                stops.append(only(activate_patch("many-fix", meant, limits)).stop_us)
                stops.append(only(deactivate_patch("many-fix", meant, limits)).stop_us)
                only(unload_patch("many-fix", meant, 10))
            figures = (functions, kilobytes, statistics.median(stops), statistics.median(holds))
            rows.append(["%d" % figure for figure in figures])
    return rows
