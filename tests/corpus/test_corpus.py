# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every fix of every description: patched live, or refused as was examined."""

from __future__ import annotations

import functools

import pytest

from corpus.cycle import Row, patched, refused
from corpus.program import Fix, Program
from corpus.programs import PROGRAMS
from corpus.subject import Subject, prepare
from debian.archive import ProofError
from debian.cache import default_cache

CASES = [
    pytest.param(program, fix, id=f"{program.name}-{fix.id}", marks=[pytest.mark.quick] if program.quick else [])
    for program in PROGRAMS.values()
    for fix in program.fixes
]


@functools.lru_cache(maxsize=None)
def subject_of(name: str, gone: frozenset[str]) -> Subject:
    """The program, prepared once; of a preparation that failed the reason is given for each of its fixes."""
    return prepare(PROGRAMS[name], default_cache(), gone)


@pytest.mark.parametrize(("program", "fix"), CASES)
def test_fix(program: Program, fix: Fix, request: pytest.FixtureRequest, tmp_path: object, rows: list[Row]) -> None:
    """The whole life of one fix; see cycle.py."""
    try:
        subject = subject_of(program.name, frozenset(request.config.getoption("--pretend-gone")))
    except ProofError as error:
        pytest.fail(str(error), pytrace=False)
    run = refused if fix.refused else patched
    row = run(subject, fix, str(tmp_path))
    print(row)
    rows.append(row)
