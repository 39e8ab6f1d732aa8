# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Small projects for the tests of the builder: written, built and changed here; nothing but their sources is kept."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from module_utils._build.build import build
from module_utils._build.request import BuildRefused, BuildRequest, BuildResult
from module_utils._patch.content import Patch
from module_utils._patch.manifest import Reference, ReplacedFunction
from module_utils._patch.reader import read_patch

# A program that answers numbers with numbers; what is patched stands in other files.
ASK = """
#include <stdio.h>
long answer(long x);
int main(void)
{
    long x;
    puts("ready");
    fflush(stdout);
    while (scanf("%ld", &x) == 1) {
        printf("%ld\\n", answer(x));
        fflush(stdout);
    }
    return 0;
}
"""

MAKEFILE = """
CFLAGS = -O2 -g
OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))
prog: $(OBJECTS)
\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(OBJECTS) $(LDLIBS)
"""


@dataclasses.dataclass
class Project:
    """An original tree and the changed one beside it; `options` are further fields of the request."""

    source: Path
    changed: Path
    options: dict[str, object]

    def request(self, **options: object) -> BuildRequest:
        """The request for a patch from one tree to the other."""
        fields: dict[str, object] = {
            "name": "fix",
            "source": str(self.source),
            "new_source": str(self.changed),
            "build_command": "make",
            "artifact": "prog",
            "cache": str(self.source.parent.parent / "cache"),
            **self.options,
            **options,
        }
        return BuildRequest(**fields)  # type: ignore[arg-type]

    def build(self, **options: object) -> BuildResult:
        """Build the patch."""
        return build(self.request(**options), lambda text: None)

    def patch(self, **options: object) -> Patch:
        """The patch that is built."""
        return read_patch(self.build(**options).content)

    def refusals(self, **options: object) -> list[tuple[str, str]]:
        """(code, symbol) of each refusal; the build must be refused."""
        with pytest.raises(BuildRefused) as caught:
            self.build(**options)
        for refusal in caught.value.refusals:
            assert refusal.as_dict()["remedy"]
            assert refusal.reason
        return [(refusal.code, refusal.symbol) for refusal in caught.value.refusals]

    def deployed(self, name: str = "prog") -> Path:
        """The program, or another file of the build, of the tree that was built for the patch: it has its build-id."""
        (path,) = Path(self.request().cache).glob("*/src/%s/%s" % (self.source.name, name))
        return path

    def built(self, changed: bool = False, name: str = "prog", command: str = "make") -> Path:
        """The original (or the changed) program, built in a copy of its tree."""
        tree = self.changed if changed else self.source
        copy = tree.parent.parent / ("built-" + tree.parent.name)
        if not copy.exists():
            subprocess.run(["cp", "-a", str(tree), str(copy)], check=True)
            subprocess.run(["sh", "-c", command], cwd=copy, check=True, stdout=subprocess.PIPE)
        return copy / name


def project(folder: Path, before: dict[str, str], after: dict[str, str], **options: object) -> Project:
    """A project with these files, `after` saying what the change makes of some of them ("" takes a file away)."""
    files = {"Makefile": MAKEFILE, **before}
    trees = []
    for name, contents in (("original", files), ("changed", {**files, **after})):
        tree = folder / name / "project"
        for path, content in contents.items():
            if content:
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_text(content)
        trees.append(tree)
    return Project(trees[0], trees[1], options)


def edited(source: str, *edits: tuple[str, str]) -> str:
    """The source with each of these edits made, the old text of which must be there once."""
    for old, new in edits:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def functions(patch: Patch) -> list[str]:
    """The names of the functions that a patch replaces, sorted."""
    return sorted(function.name for function in patch.manifest.functions)


def replaced(patch: Patch, name: str) -> ReplacedFunction:
    """The replaced function of that name."""
    return next(function for function in patch.manifest.functions if function.name == name)


def reference(patch: Patch, name: str) -> Reference:
    """The one reference of that name."""
    (found,) = [one for one in patch.manifest.references if one.name == name]
    return found


def addresses(path: Path) -> dict[str, list[int]]:
    """The addresses that nm shows for each name."""
    found: dict[str, list[int]] = {}
    text = subprocess.run(["nm", str(path)], check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3:
            found.setdefault(fields[2], []).append(int(fields[0], 16))
    return found


def make_diff(one: Project, folder: Path) -> Path:
    """The change of a project as a diff, as `git diff` would write the paths."""
    done = subprocess.run(
        ["diff", "-ruN", "original/project", "changed/project"],
        cwd=one.source.parent.parent,
        stdout=subprocess.PIPE,
        check=False,
    )
    path = folder / "change.diff"
    path.write_bytes(done.stdout)
    return path


def as_json(value: object) -> str:
    """Canonical text of a plain value."""
    return json.dumps(value, sort_keys=True)
