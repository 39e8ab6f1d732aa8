# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The proof that a source is the deployed object's: stripped or not, identical or refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cases import CASES
from projects import ASK, Project, functions, project

CASE = CASES["a changed function, the rest only moves"]


def deployed(one: Project, folder: Path, command: str, *strip: str) -> str:
    """The original program, built elsewhere and treated as a distribution does; its path."""
    path = one.built(command=command)
    subprocess.run(["strip", *strip, "-o", str(folder / "deployed"), str(path)], check=True)
    return str(folder / "deployed")


def test_stripped_object(tmp_path: Path) -> None:
    """Without symbols, debug information and .comment; its build-id differs, for it was built in another folder."""
    one = project(tmp_path, {**CASE.before, "main.c": ASK}, CASE.after)
    target = deployed(one, tmp_path, "make", "-s", "-R", ".comment")
    patch = one.patch(target=target)
    assert functions(patch) == ["answer"]
    assert (
        patch.manifest.object.build_id
        in subprocess.run(["readelf", "-n", target], check=True, stdout=subprocess.PIPE, text=True).stdout
    )


def test_other_source(tmp_path: Path) -> None:
    """A constant in another function is enough; the refusal names that function."""
    one = project(tmp_path, {**CASE.before, "main.c": ASK}, CASE.after)
    target = deployed(one, tmp_path, "sed -i 's/x != 12345/x != 12346/' work.c && make", "-s")
    assert one.refusals(target=target) == [("source_mismatch", "unrelated")]


def test_other_flags(tmp_path: Path) -> None:
    """Another optimisation level."""
    one = project(tmp_path, {**CASE.before, "main.c": ASK}, CASE.after)
    target = deployed(one, tmp_path, "make CFLAGS=-O1", "-s")
    assert [code for code, _symbol in one.refusals(target=target)] == ["source_mismatch"]


def test_other_data(tmp_path: Path) -> None:
    """The code is the same, an initial value is not."""
    before = {"work.c": CASE.before["work.c"].replace("static long calls;", "static long calls = 4;"), "main.c": ASK}
    one = project(tmp_path, before, {"work.c": before["work.c"].replace("x < 0", "x < -1")})
    target = deployed(one, tmp_path, "sed -i 's/calls = 4/calls = 5/' work.c && make", "-s")
    assert one.refusals(target=target) == [("source_mismatch", "")]


def test_other_compiler(tmp_path: Path) -> None:
    """What .comment says of the compiler is compared where it was left in."""
    one = project(tmp_path, {**CASE.before, "main.c": ASK}, CASE.after)
    target = deployed(one, tmp_path, "make CFLAGS=-O1")
    (tmp_path / "comment").write_bytes(b"GCC: (Other 99.1) 99.1\0")
    subprocess.run(["objcopy", "--update-section", ".comment=%s" % (tmp_path / "comment"), target], check=True)
    assert [code for code, _symbol in one.refusals(target=target)] == ["compiler_mismatch"]
