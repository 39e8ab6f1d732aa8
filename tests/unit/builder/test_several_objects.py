# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""One change of a program and its library: a patch for each, from one build, in the order that they ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from live import LIMITS
from patching import Running
from projects import ASK, Project, functions, project
from reports import well

from module_utils._build.request import BuildRefused, BuildResult
from module_utils._build.several import build_several, patch_name
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch
from module_utils._errors import LivepatchError
from module_utils._process.selection import Selection

MAKEFILE = """
CFLAGS = -O2 -g -fPIC
all: prog tool
prog: main.o work.o libwork.so
\t$(CC) -rdynamic -o $@ main.o work.o -L. -lwork -Wl,-rpath,'$$ORIGIN'
tool: tool.o
\t$(CC) -o $@ $^
libwork.so: lib.o
\t$(CC) -shared -o $@ $^
\techo linked >> "$(LOG)"
"""
FILES = {
    "main.c": ASK,
    "work.c": "long weigh(long);\nlong answer(long x) { return weigh(x) * 2; }\nlong back(long x) { return x; }\n",
    "lib.c": "long count;\nlong weigh(long x) { return x + 1; }\nlong height(long x) { return x; }\n",
    "tool.c": "int main(void) { return 0; }\n",
    "Makefile": MAKEFILE,
}
# The factor moves from the library into the program: half of the change alone gives wrong answers.
BOTH = {
    "work.c": FILES["work.c"].replace("weigh(x) * 2", "weigh(x) * 6"),
    "lib.c": FILES["lib.c"].replace("return x + 1", "count++; return x + 3"),
}
ARTIFACTS = ["prog", "libwork.so", "tool"]


def build(one: Project, folder: Path, artifacts: list[str]) -> tuple[list[BuildResult], list[tuple[str, str]]]:
    """The patches for these artifacts, and (artifact, code) of those that the change does not reach."""
    log = {"LOG": str(folder / "log")}
    requests = [one.request(artifact=name, name=patch_name("fix", name), environment=log) for name in artifacts]
    results, unreached = build_several(requests, lambda text: None)
    return results, [(refusal.artifact, refusal.code) for refusal in unreached]


def test_a_program_and_its_library(tmp_path: Path) -> None:
    """Named, each for its own object, the tree built once; the program's requires the other."""
    one = project(tmp_path, FILES, BOTH)
    results, unreached = build(one, tmp_path, ARTIFACTS)
    assert unreached == [("tool", "not_in_object")]
    assert (tmp_path / "log").read_text().split() == ["linked"]
    program, library = (result.patch for result in results)
    assert [functions(patch) for patch in (program, library)] == [["answer"], ["weigh"]]
    assert [patch.manifest.id for patch in (program, library)] == ["fix-prog", "fix-libwork.so"]
    assert [patch.manifest.requires for patch in (program, library)] == [("fix-libwork.so",), ()]
    assert program.manifest.object.build_id != library.manifest.object.build_id
    with Running(one.deployed()) as process:
        meant = Selection(pids=(process.pid,))
        assert process.ask("10") == "22"
        for patch in (program, library):
            well(load_patch(patch, meant))
        (early,) = activate_patch("fix-prog", meant, LIMITS).outcomes
        assert early.error is not None
        assert early.error["code"] == "required_patch_missing"
        for name in ("fix-libwork.so", "fix-prog"):
            well(activate_patch(name, meant, LIMITS))
        assert process.ask("10") == "78"
        (needed,) = deactivate_patch("fix-libwork.so", meant, LIMITS).outcomes
        assert needed.error is not None
        for name in ("fix-prog", "fix-libwork.so"):
            well(deactivate_patch(name, meant, LIMITS))
        assert process.ask("10") == "22"


def test_what_is_new_in_the_other_object(tmp_path: Path) -> None:
    """The running library has no such name, whether or not anything else of it changes."""
    lib = FILES["lib.c"] + "long depth(long x) { return x * x; }\n"
    work = FILES["work.c"].replace("long weigh(long);", "long weigh(long), depth(long);").replace("* 2", "* depth(x)")
    for number, changed in enumerate((lib, lib.replace("return x + 1", "return x + 2"))):
        one = project(tmp_path / str(number), FILES, {"work.c": work, "lib.c": changed})
        with pytest.raises(BuildRefused) as caught:
            build(one, tmp_path, ARTIFACTS)
        (refusal,) = caught.value.refusals
        assert (refusal.code, refusal.symbol, refusal.artifact) == ("construct_unsupported", "depth", "prog")
        assert "libwork.so" in refusal.reason


def test_objects_that_call_each_other(tmp_path: Path) -> None:
    """Each calls what the other's patch changes: one requires the other, and the other says so."""
    files = {**FILES, "lib.c": FILES["lib.c"].replace("return x + 1", "return back(x) + 1")}
    files["lib.c"] = "long back(long);\n" + files["lib.c"]
    edits = {"work.c": BOTH["work.c"].replace("{ return x; }", "{ return x - 9; }")}
    edits["lib.c"] = files["lib.c"].replace("(x) + 1", "(x) + 4")
    results, _unreached = build(project(tmp_path, files, edits), tmp_path, ["libwork.so", "prog"])
    assert [result.patch.manifest.requires for result in results] == [("fix-prog",), ()]
    assert any("what fix-libwork.so changes, which requires this patch" in words for words in results[1].warnings)


def test_one_refused_all_refused(tmp_path: Path) -> None:
    """With the artifact that it is about; and a change that reaches nothing."""
    one = project(tmp_path, FILES, {**BOTH, "lib.c": BOTH["lib.c"].replace("long count;", "long count = 5;")})
    with pytest.raises(BuildRefused) as caught:
        build(one, tmp_path, ARTIFACTS)
    found = [(refusal.artifact, refusal.code, refusal.symbol) for refusal in caught.value.refusals]
    assert found == [("libwork.so", "data_changed", "count")]
    one = project(tmp_path / "none", FILES, {"lib.c": "/* said */\n" + FILES["lib.c"]})
    with pytest.raises(BuildRefused) as caught:
        build(one, tmp_path, ARTIFACTS)
    found = [(refusal.artifact, refusal.code, refusal.symbol) for refusal in caught.value.refusals]
    assert ("libwork.so", "nothing_changed", "") in found
    assert len(found) == 3
    with pytest.raises(LivepatchError, match="one name"):
        build(one, tmp_path, [os.path.join("a", "prog"), "prog"])
