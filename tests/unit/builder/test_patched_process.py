# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A patched process answers exactly like a program built from the changed source.

The patches come from the builder and go through the engine into a running process, for many ways to compile: each case
in two of them, in turn, and in those in which it is refused; with LIVEPATCH_CASES=all (make cases) in each.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cases import CASES
from live import answers_like
from patching import Running
from projects import ASK, project

FLAGS = {
    "O2": "-O2 -g",
    "O0": "-O0",
    "O3, unwind tables, control-flow protection": "-O3 -g -fcf-protection=full -fstack-protector-strong",
    "not position independent": "-O2 -g -fno-pie -no-pie",
    "position independent code": "-O2 -fPIC",
}


TRIED = [
    (name, flags)
    for number, (name, case) in enumerate(CASES.items())
    for way, flags in enumerate(FLAGS)
    if (way - number) % len(FLAGS) < 2 or flags in case.refused_with or os.environ.get("LIVEPATCH_CASES") == "all"
]


@pytest.mark.parametrize(("name", "flags"), TRIED)
def test_answers_like_the_new_program(name: str, flags: str, tmp_path: Path) -> None:
    """While the patch is active, each answer is the new program's; taken out, the process goes on."""
    case = CASES[name]
    command = "make CFLAGS='%s'" % FLAGS[flags]
    one = project(tmp_path, {**case.before, "main.c": ASK}, case.after, build_command=command)
    if flags in case.refused_with:
        assert {code for code, _symbol in one.refusals()} == {case.refused_with[flags]}
        return
    patch = one.patch()
    with Running(one.deployed()) as process, Running(one.built(changed=True, command=command)) as new:
        answers_like(process, new, patch)
