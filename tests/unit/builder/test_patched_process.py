# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A patched process answers exactly like a program built from the changed source.

The patches come from the builder and go through the engine into a running process, for many ways to compile.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import CASES
from patching import Running
from projects import ASK, project

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch
from module_utils._engine.outcome import Report
from module_utils._process.selection import Selection

QUESTIONS = [*range(-3, 12), 99, 100, 101, 4241, -70000, 1 << 33]
LIMITS = Limits(0.1, 10)
FLAGS = {
    "O2": "-O2 -g",
    "O0": "-O0",
    "O3, unwind tables, control-flow protection": "-O3 -g -fcf-protection=full -fstack-protector-strong",
    "not position independent": "-O2 -g -fno-pie -no-pie",
    "position independent code": "-O2 -fPIC",
}


def ask_all(running: Running) -> list[str]:
    """Its answers to all questions."""
    return [running.ask(str(question)) for question in QUESTIONS]


def succeed(report: Report) -> None:
    """One process was meant, and it went well."""
    assert [outcome.error for outcome in report.outcomes] == [None]


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("name", CASES)
def test_answers_like_the_new_program(name: str, flags: str, tmp_path: Path) -> None:
    """While the patch is active, each answer is the new program's; taken out, the process goes on."""
    case = CASES[name]
    command = "make CFLAGS='%s'" % FLAGS[flags]
    one = project(tmp_path, {**case.before, "main.c": ASK}, case.after, build_command=command)
    if flags in case.refused_with:
        assert {code for code, _symbol in one.refusals()} == {case.refused_with[flags]}
        return
    patch = one.patch()
    # The tree that was built for the patch is the deployed one: same build-id.
    (program,) = (tmp_path / "cache").glob("*/src/project/prog")
    with Running(program) as process, Running(one.built(changed=True, command=command)) as new:
        meant = Selection(pids=(process.pid,))
        succeed(load_patch(patch, meant))
        succeed(activate_patch("fix", meant, LIMITS))
        assert ask_all(process) == ask_all(new)
        succeed(deactivate_patch("fix", meant, LIMITS))
        assert len(ask_all(process)) == len(QUESTIONS)
        assert process.alive()
