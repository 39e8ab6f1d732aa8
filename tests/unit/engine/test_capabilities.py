# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Exactly the capabilities that are documented: with them everything works, without one of them its name is told.

As root, for it takes root to give some away (setpriv(1)). What a user may do with his own programs: test_privileges.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from patching import Running, compile_program, make_patch
from steps import NOBODY, open_folder

from module_utils._process.denied import NEEDED

PROGRAM = r"""
#include <stdio.h>
static volatile int zero;
__attribute__((noinline, noipa)) int answer(int x) { return x + zero + 1; }
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", answer(0));
}
"""
OTHER = 4321
ENGINE = Path(__file__).resolve().parents[3] / "plugins"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="giving capabilities away needs root, and setpriv(1)"
)


@pytest.fixture(scope="module", name="made")
def fixture_made() -> Iterator[tuple[Path, Path]]:
    """A program, and a patch that every user may read."""
    with open_folder() as folder:
        program = compile_program(folder, "program", PROGRAM)
        make_patch(folder, program, "int answer(int x) { return x + 300; }", ["answer"])
        yield program, folder / "fix.lpatch"


def _engine(names: list[str], user: int, *words: str) -> dict[str, Any]:
    """What the engine prints when a user runs it with these capabilities and no others."""
    plus = "".join(",+" + name[4:].lower() for name in names)
    command = ["setpriv", "--reuid=%d" % user, "--regid=%d" % user, "--clear-groups", "--bounding-set=-all" + plus]
    command += ["--inh-caps=-all" + plus]
    if names and user:
        command += ["--ambient-caps=-all" + plus]
    command += [sys.executable, "-m", "module_utils._engine.command_line", *words]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ENGINE)}, stdout=subprocess.PIPE, text=True, check=False
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("user", [NOBODY, 0])
@pytest.mark.parametrize("owner", [OTHER, 0])
def test_with_exactly_these(made: tuple[Path, Path], user: int, owner: int) -> None:
    """Load, activate, facts, deactivate, unload in a program of another user: nothing else is needed."""
    program, patch = made
    with Running(program, user=owner, group=owner, extra_groups=[]) as running:
        pid = ["--pid", str(running.pid)]
        for word, name, answer in (
            ("load", str(patch), "1"),
            ("activate", "fix", "300"),
            ("deactivate", "fix", "1"),
            ("unload", "fix", "1"),
        ):
            (outcome,) = _engine(list(NEEDED), user, word, name, *pid)["processes"]
            assert (outcome["error"], outcome["changed"], running.ask("?")) == (None, True, answer)
            if word == "activate":
                facts = _engine(list(NEEDED), user, "facts")
                (fact,) = [fact for fact in facts["processes"] if fact["pid"] == running.pid]
                assert [(one["id"], one["state"], one["verified"]) for one in fact["patches"]] == [
                    ("fix", "active", True)
                ]


@pytest.mark.parametrize("without", sorted(NEEDED))
def test_without_one_of_them(made: tuple[Path, Path], without: str) -> None:
    """The one that lacks is named, and nothing is changed."""
    program, patch = made
    with Running(program, user=OTHER, group=OTHER, extra_groups=[]) as running:
        for user in (NOBODY, 0):
            names = [name for name in NEEDED if name != without]
            (outcome,) = _engine(names, user, "load", str(patch), "--pid", str(running.pid))["processes"]
            assert outcome["error"]["code"] == "not_permitted"
            assert without in outcome["error"]["message"]
            assert not any(name in outcome["error"]["message"] for name in names)
            assert "livepatch:" not in Path("/proc/%d/maps" % running.pid).read_text()
