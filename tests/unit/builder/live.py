# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A patch that was built goes into a running process, which is compared with the program of the new source."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

from patching import Running
from reports import only, well

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection

LIMITS = Limits(0.1, 10)
QUESTIONS = [str(number) for number in (*range(-3, 12), 99, 100, 101, 4241, -70000, 1 << 33)]


STARTS = 5


def running_with_room(program: Path, patch: Patch) -> Running:
    """A program, started again a few times where it has something at the only place that a tiny function's bytes name:
    what is mapped where is chance (address space randomization), and the refusal is right then.
    """
    for _start in range(1, STARTS):
        process = Running(program)
        error = only(load_patch(patch, Selection(pids=(process.pid,)), pretend=True)).error
        if error is None or error["code"] != "function_too_short":
            return process
        process.kill()
    return Running(program)


def put_in(process: Running, patch: Patch) -> Selection:
    """Load a patch and activate it; the process as it is selected."""
    meant = Selection(pids=(process.pid,))
    well(load_patch(patch, meant))
    well(activate_patch(patch.manifest.id, meant, LIMITS))
    return meant


def answers_like(process: Running, new: Running, patch: Patch, asked: Sequence[str] = QUESTIONS) -> Selection:
    """While the patch is active, each answer is the new program's; switched back, the process goes on answering."""
    meant = put_in(process, patch)
    for question in asked:
        assert (question, process.ask(question)) == (question, new.ask(question))
    well(deactivate_patch(patch.manifest.id, meant, LIMITS))
    assert all(process.ask(question) for question in asked)
    assert process.alive()
    return meant
