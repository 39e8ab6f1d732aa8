# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""C++: member functions, templates, exceptions, virtual calls, guarded variables, lambdas; changed classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cplusplus_cases import (
    FILES,
    HEADER,
    HEADER_EDITS,
    OTHER,
    OTHER_EDITS,
    THROWING,
    THROWING_EDITS,
    THROWING_MAIN,
    WORK,
    WORK_EDITS,
)
from patching import Running, livepatch_mappings
from projects import MAKEFILE, functions, project
from test_data_cases import edited
from test_patched_process import LIMITS, QUESTIONS, ask_all, succeed

from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._process.selection import Selection

WAYS = {
    "g++": "CXXFLAGS='-O2 -g -fno-ipa-ra -DFULL'",
    "g++, not position independent, O0": "CXXFLAGS='-O0 -g -fno-pie -D_GLIBCXX_ASSERTIONS' LINK=-no-pie",
    "g++, library": "CXXFLAGS='-O2 -g -fno-ipa-ra -fPIC' WORK=libwork.so",
    "clang++": "CXX=clang++ CXXFLAGS='-O2 -g'",
    "clang++, library": "CXX=clang++ CXXFLAGS='-O1 -g -fPIC' WORK=libwork.so",
}


@pytest.mark.parametrize("way", WAYS)
def test_all_of_it(way: str, tmp_path: Path) -> None:
    """Exceptions pass through patched functions and are caught in them; objects of the old life are used on.

    The patch has new variables with destructors, which the program calls when it ends: it stays until then.
    """
    command = "make " + WAYS[way]
    after = {
        "shapes.h": edited(HEADER, *HEADER_EDITS),
        "work.cc": edited(WORK, *WORK_EDITS),
        "other.cc": edited(OTHER, *OTHER_EDITS),
    }
    one = project(tmp_path, FILES, after, build_command=command)
    patch = one.patch(artifact="libwork.so" if "libwork" in command else "prog")
    names = functions(patch)
    assert len(names) == len(set(names))
    assert {"_ZL7catchesl", "_ZNK6shapes5Round4areaEl", "_ZN6shapes5timesEl"} <= set(names)
    (program,) = (tmp_path / "cache").glob("*/src/project/prog")
    with Running(program) as process, Running(one.built(changed=True, command=command)) as new:
        meant = Selection(pids=(process.pid,))
        succeed(load_patch(patch, meant))
        succeed(activate_patch("fix", meant, LIMITS))
        assert ask_all(process) == ask_all(new)
        succeed(deactivate_patch("fix", meant, LIMITS))
        assert len(ask_all(process)) == len(QUESTIONS)
        (outcome,) = unload_patch("fix", meant, 0).outcomes
        assert outcome.error
        assert outcome.error["code"] == "function_busy"
        assert process.ended() == 0


def test_the_unwinder_forgets(tmp_path: Path) -> None:
    """In, on, off and out again while another thread throws without pause: nothing is left, nothing is lost."""
    files = {
        "main.cc": THROWING_MAIN,
        "work.cc": THROWING,
        "Makefile": MAKEFILE.replace("CC", "CXX").replace(".c", ".cc"),
    }
    files["Makefile"] = (
        files["Makefile"].replace("CFLAGS = -O2 -g", "CXXFLAGS = -O2 -g -fno-ipa-ra").replace("CFLAGS)", "CXXFLAGS)")
    )
    one = project(tmp_path, files, {"work.cc": edited(THROWING, *THROWING_EDITS)})
    patch = one.patch()
    (program,) = (tmp_path / "cache").glob("*/src/project/prog")
    with Running(program) as process:
        meant = Selection(pids=(process.pid,))
        for _round in range(4):
            assert [process.ask(question) for question in ("2", "3", "1000")] == ["2 0", "-3 0", "5 0"]
            succeed(load_patch(patch, meant))
            succeed(activate_patch("fix", meant, LIMITS))
            assert [process.ask(question) for question in ("2", "3", "1000")] == ["3 0", "-5 0", "5 0"]
            succeed(deactivate_patch("fix", meant, LIMITS))
            assert [process.ask(question) for question in ("2", "3", "1000")] == ["2 0", "-3 0", "5 0"]
            succeed(unload_patch("fix", meant, 10))
            assert not livepatch_mappings(process.pid)
        assert process.ended() == 0
