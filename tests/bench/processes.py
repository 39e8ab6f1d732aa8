# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What one more process costs in one task, where many map the library that is patched; and what facts of them cost."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from pathlib import Path
from typing import Callable

from patching import compile_program, make_patch
from succeeded import succeeded

from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._process.selection import Selection

COUNTS = (1, 50, 200, 1000)
STEPS = ("load", "activate", "deactivate", "unload")
HEADINGS = ["processes", *("%s, ms" % step for step in STEPS), "all four, ms a process beyond the first"]
FACTS_HEADINGS = ["processes", "patched", "facts: own time, ms", "peak memory, MB"]
_LIBRARY = "__attribute__((noinline, noipa)) int answer(int x) { return x + 1; }\n"
_PROGRAM = (
    '#include <stdio.h>\n#include <unistd.h>\nint answer(int);\nint main(void) { puts("ready"); fflush(stdout);\n'
    "for (;;) { pause(); answer(1); } }\n"
)


class Many:
    """So many processes that map one library; all end with the block."""

    def __init__(self, folder: Path, count: int) -> None:
        self._started = []
        for _index in range(count):
            self._started.append(subprocess.Popen([str(folder / "user")], stdout=subprocess.PIPE))
        self.pids = [process.pid for process in self._started]

    def __enter__(self) -> Many:
        for process in self._started:
            assert process.stdout is not None
            process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.kill()
        for process in self._started:
            process.communicate()


def measure(folder: Path, rounds: int) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of both tables: medians over rounds."""
    library = compile_program(folder, "libanswer.so", _LIBRARY, "-shared", "-fPIC")
    compile_program(folder, "user", _PROGRAM, "-L%s" % folder, "-lanswer", "-Wl,-rpath,%s" % folder)
    patch = make_patch(folder, library, "int answer(int x) { return x + 2; }", ["answer"], "answer-fix")
    rows, first = [], 0.0
    for count in COUNTS:
        with Many(folder, count) as many:
            meant = Selection(pids=tuple(many.pids))
            spans: dict[str, list[float]] = {step: [] for step in STEPS}
            for _round in range(rounds):
                spans["load"].append(_took(load_patch, patch, meant))
                spans["activate"].append(_took(activate_patch, "answer-fix", meant, Limits()))
                spans["deactivate"].append(_took(deactivate_patch, "answer-fix", meant, Limits()))
                spans["unload"].append(_took(unload_patch, "answer-fix", meant, 10))
            medians = [statistics.median(spans[step]) for step in STEPS]
            first = first or sum(medians)
            more = "%.2f" % ((sum(medians) - first) / (count - 1)) if count > 1 else "-"
            rows.append([str(count), *("%.1f" % one for one in medians), more])
    with Many(folder, 1000) as many:
        load_patch(patch, Selection(pids=tuple(many.pids[:200])))
        activate_patch("answer-fix", Selection(pids=tuple(many.pids[:200])), Limits())
        spent = []
        for _round in range(rounds):
            began = _own_time()
            found = gather([], "patched")
            spent.append((_own_time() - began) * 1e3)
            assert sum(one["pid"] in many.pids for one in found["processes"]) == 200
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    return rows, [["1000", "200", "%.0f" % statistics.median(spent), "%.0f" % peak]]


def _own_time() -> float:
    """Processor time of this process and of the children that it has waited for, seconds."""
    return sum(os.times()[:4])


def _took(work: Callable[..., Report], *arguments: object) -> float:
    """Milliseconds of wall time; every process must have succeeded."""
    began = time.monotonic()
    report = work(*arguments)
    span = (time.monotonic() - began) * 1e3
    succeeded(report)
    return span
