# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of change of code, compiled in many ways: the patched process answers like the program of the new source.

The questions are drawn from a seed that the case's name gives. Each case is tried in a few of the ways, chosen so that
each way comes round equally often; with LIVEPATCH_CASES=all (make cases), each case is tried in each way.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from cases import Case
from code_cases import CODE_CASES
from constant_cases import CONSTANT_CASES
from patching import Running
from projects import ASK, Project, functions, project
from reports import well
from ways import PLAIN, WAYS, Way

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch
from module_utils._process.selection import Selection

CASES = {**CODE_CASES, **CONSTANT_CASES}
LIMITS = Limits(0.1, 10)
_AT_A_TIME = 3


def questions(name: str, count: int = 150) -> list[str]:
    """Numbers of all sizes, the same for the same name."""
    draw = random.Random(name)
    few = [draw.randrange(-20, 40) for _number in range(count // 2)]
    many = [draw.randrange(-(1 << bits), 1 << bits) for bits in draw.choices(range(6, 63), k=count - len(few))]
    drawn = [*few, *many, 4242, -60000, 60000]
    draw.shuffle(drawn)
    return [str(number) for number in drawn]


def chosen_ways() -> list[tuple[str, str]]:
    """(case, way): a few ways for each case, or all."""
    if os.environ.get("LIVEPATCH_CASES") == "all":
        return [(case, way) for case in CASES for way in WAYS]
    # 4 is prime to the number of ways: neighbours get others, and all come round.
    names = list(WAYS)
    return [
        (case, names[(_AT_A_TIME * number + 4 * step) % len(names)])
        for number, case in enumerate(CASES)
        for step in range(_AT_A_TIME)
    ]


def made(folder: Path, case: Case, way: Way, **options: object) -> Project:
    """The project of a case, made in a way."""
    files = {**case.before, "main.c": ASK, "Makefile": way.makefile}
    return project(
        folder, files, case.after, build_command=way.command, artifact=way.artifact, **options
    )


def answers_like_the_new(one: Project, command: str, asked: list[str]) -> None:
    """Patch the original program while it runs, compare it with the new one, and take the patch out again."""
    patch = one.patch()
    # The tree that was built for the patch is the deployed one: same build-id.
    (program,) = (one.source.parent.parent / "cache").glob("*/src/project/prog")
    with Running(program) as process, Running(one.built(changed=True, command=command)) as new:
        meant = Selection(pids=(process.pid,))
        well(load_patch(patch, meant))
        well(activate_patch("fix", meant, LIMITS))
        for question in asked:
            assert (question, process.ask(question)) == (question, new.ask(question))
        well(deactivate_patch("fix", meant, LIMITS))
        assert all(process.ask(question) for question in asked[:20])
        assert process.alive()


@pytest.mark.parametrize(("name", "way"), chosen_ways())
def test_answers_like_the_new_program(name: str, way: str, tmp_path: Path) -> None:
    """While the patch is active, each answer is the new program's; taken out, the process goes on."""
    one = made(tmp_path, CASES[name], WAYS[way])
    answers_like_the_new(one, WAYS[way].command, questions(name))


@pytest.mark.parametrize("name", CASES)
def test_replaces_what_changed_and_no_more(name: str, tmp_path: Path) -> None:
    """Each case's functions, and its new names, exactly."""
    case = CASES[name]
    patch = made(tmp_path, case, WAYS[PLAIN]).patch()
    assert (functions(patch), sorted(set(case.new) - set(patch.manifest.new_symbols))) == (sorted(case.replaces), [])
