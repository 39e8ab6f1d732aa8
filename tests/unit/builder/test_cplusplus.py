# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""C++: member functions, templates, exceptions, virtual calls, guarded variables, lambdas; and changed classes refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from cplusplus_cases import FILES, HEADER, HEADER_EDITS, OTHER, OTHER_EDITS, WORK, WORK_EDITS
from projects import functions, project
from test_data_cases import edited, like_new

WAYS = {
    "g++": "CXXFLAGS='-O2 -g -fno-ipa-ra'",
    "g++, O0": "CXXFLAGS='-O0 -g -D_GLIBCXX_ASSERTIONS'",
    "g++, not position independent": "CXXFLAGS='-O2 -g -fno-ipa-ra -fno-pie' LINK=-no-pie",
    "g++, library": "CXXFLAGS='-O2 -g -fno-ipa-ra -fPIC' WORK=libwork.so",
    "clang++": "CXX=clang++ CXXFLAGS='-O2 -g'",
    "clang++, library": "CXX=clang++ CXXFLAGS='-O2 -g -fPIC' WORK=libwork.so",
}


@pytest.mark.parametrize("way", WAYS)
def test_all_of_it(way: str, tmp_path: Path) -> None:
    """Exceptions pass through patched functions and are caught in them; objects of the old life are used on."""
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
    like_new(one, patch, command, tmp_path)
