# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A patch of a shared library: its processes have it before their own code, and a new library on disk is told apart."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from bed import FIX, NEW, OLD, PROGRAM, Bed, Started, until
from patching import compile_program, make_patch

from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import apply_patch
from module_utils._process.selection import Selection
from module_utils._store.drift import add_drift

ANSWER = "__attribute__((noinline, noipa)) int answer(int x) { return (x ^ 3) + (x << 5) - 32; }"
# A worker, as a server begins it: a child that becomes a program of its own.
STARTER = r"""
#include <sys/wait.h>
#include <unistd.h>
int answer(int x);
int main(int count, char **words)
{
    int child = fork();
    if (!child) { execv(words[1], words + 1); _exit(127); }
    waitpid(child, 0, 0);
    return answer(1) == 0;
}
"""


@pytest.fixture(name="bed")
def fixture_bed(tmp_path: Path) -> Bed:
    """A host whose program has what is patched in a library."""
    bed = Bed(tmp_path)
    library = compile_program(tmp_path, "libanswer.so", ANSWER, "-shared", "-fPIC")
    assert ANSWER in PROGRAM
    source = PROGRAM.replace(ANSWER, "int answer(int x);")
    bed.program = compile_program(tmp_path, "user", source, str(library), "-Wl,-rpath," + str(tmp_path))
    bed.patch = make_patch(tmp_path, library, FIX, ["answer"])
    bed.keep()
    return bed


def test_a_program_has_the_fix_of_its_library_before_its_own_code_runs(bed: Bed) -> None:
    with bed.service(), Started(bed.places.launcher, str(bed.program)) as program:
        assert program.begun() == (program.pid, NEW, NEW), bed.told()


def test_a_worker_that_a_patched_service_begins_has_it_soon(bed: Bed) -> None:
    """The worker calls exec: nothing of its parent's patch is left, and no launcher is in its way."""
    starter = compile_program(
        bed.folder, "starter", STARTER, str(bed.folder / "libanswer.so"), "-Wl,-rpath," + str(bed.folder)
    )
    with bed.service(), Started(bed.places.launcher, str(starter), str(bed.program)) as program:
        worker, first, _now = program.begun()
        assert (worker != program.pid, first) == (True, OLD)
        until(lambda: program.ask() == NEW)


def test_a_new_library_on_disk_leaves_the_old_process_its_patch_and_the_new_one_without(bed: Bed) -> None:
    with Started(str(bed.program)) as old:
        old.begun()
        apply_patch(bed.patch, Selection(pids=(old.pid,)), Limits())
        fixed = compile_program(bed.folder, "fixed.so", ANSWER.replace("x ^ 3", "x ^ 2"), "-shared", "-fPIC")
        os.replace(shutil.copy(fixed, bed.folder / "new"), bed.folder / "libanswer.so")
        with bed.service(), Started(bed.places.launcher, str(bed.program)) as new:
            assert new.begun()[1] == 3 + 32 - 32
            facts = gather(["fix"], "all")
            add_drift(facts, bed.store, ["fix"])
            rows = {
                row["pid"]: (row["kind"], row["detail"]) for row in facts["drift"] if row["pid"] in (old.pid, new.pid)
            }
            build = subprocess.run(["readelf", "-n", fixed], check=True, capture_output=True, text=True).stdout
            build_id = build.split("Build ID: ")[1].split()[0]
            assert rows == {old.pid: ("disk_newer", "%s is build %s" % (bed.folder / "libanswer.so", build_id))}
            entry = facts["desired"]["patches"]["fix"]
            assert (old.pid in entry["vulnerable_build"], new.pid in entry["vulnerable_build"]) == (True, False)
            assert (old.ask(), entry["obsolete"]) == (NEW, False)
