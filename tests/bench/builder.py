# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a patch takes to build: beside plain builds of the same tree, and the builder's own time in a large object.

Redis, with its Debian patches, is that of the redis proof, which fetches it where that was not done yet. The large
object is generated: SYMBOLS functions and variables in UNITS files.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import time
from pathlib import Path

from prepare import prepare

from debian.cache import default_cache
from module_utils._build.build import build
from module_utils._build.built_tree import built_tree
from module_utils._build.compile_units import AS_BUILT, Compilation, compile_all
from module_utils._build.request import BuildRefused, BuildRequest

UNITS, SYMBOLS = 40, 100_000
HEADINGS = ["what", "time, s", "beside", "its time, s", "ratio", "difference, s"]
OWN_HEADINGS = ["a change of", "symbols", "units compared", "own time, s"]
# A second fix on the same base: a check in a function of another file.
_SECOND_FILE = "src/t_list.c"
_SECOND = ("void lpushCommand(client *c) {\n", "void lpushCommand(client *c) {\n    if (c->argc > 1000000) return;\n")


def measure(folder: Path) -> list[list[str]]:
    """The rows for redis: a first build beside two plain ones, a second beside compiling its file before and after."""
    proof = prepare(default_cache())
    fields = ("source", "build_command", "artifact", "environment")
    request = BuildRequest(
        name="fix",
        target=proof.deployed,
        diff=(proof.fix,),
        cache=str(folder / "cache"),
        **{name: getattr(proof, name) for name in fields},
    )
    plain = sum(_plain_build(request, folder / ("plain-%d" % number)) for number in range(2))
    first = _time(request)
    second_tree = folder / "second" / os.path.basename(proof.source)
    shutil.copytree(proof.source, second_tree, symlinks=True)
    text = (second_tree / _SECOND_FILE).read_text()
    if text.count(_SECOND[0]) != 1:
        raise RuntimeError("%s is not as it was" % _SECOND_FILE)
    (second_tree / _SECOND_FILE).write_text(text.replace(*_SECOND))
    other = dataclasses.replace(request, diff=(), new_source=str(second_tree))
    own = _compile_time(other, _SECOND_FILE, folder)
    second = _time(other)
    again = _time(other)
    return [
        _row("first build", first, "two plain builds", plain),
        _row("second fix on the same base", second, "its file compiled twice", own),
        _row("the same fix again", again, "nothing compiled", 0.0),
    ]


def _row(what: str, seconds: float, beside: str, other: float) -> list[str]:
    ratio = "%.2f" % (seconds / other) if other else "-"
    return [what, "%.1f" % seconds, beside, "%.1f" % other, ratio, "%.1f" % (seconds - other)]


def _plain_build(request: BuildRequest, tree: Path) -> float:
    """How long the build command takes by itself in a fresh copy of the tree."""
    shutil.copytree(request.source, tree, symlinks=True)
    environment = {**os.environ, **request.environment}
    began = time.monotonic()
    subprocess.run(
        ["sh", "-c", request.build_command],
        cwd=tree,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return time.monotonic() - began


def _compile_time(request: BuildRequest, name: str, folder: Path) -> float:
    """How long a file takes to compile twice, one after the other, by the very command of the build."""
    with built_tree(request, lambda text: None) as tree:
        units = [unit for unit, reads in zip(tree.units, tree.reads) if name in reads]
        began = time.monotonic()
        for number in range(2):
            compile_all([Compilation(unit, str(folder / ("objects-%d" % number)), AS_BUILT) for unit in units])
        return time.monotonic() - began


def _time(request: BuildRequest) -> float:
    began = time.monotonic()
    build(request, lambda text: None)
    return time.monotonic() - began


def measure_own(folder: Path) -> list[list[str]]:
    """The rows for the large object: the builder's time when all that it would compile is there already."""
    rows = []
    for what in CHANGES:
        _write(folder / "original" / "project", "nothing")
        changed = folder / what.replace(" ", "-") / "project"
        _write(changed, what)
        request = BuildRequest(
            name="fix",
            source=str(folder / "original" / "project"),
            new_source=str(changed),
            build_command="make -j%d" % len(os.sched_getaffinity(0)),
            artifact="prog",
            cache=str(folder / "cache"),
        )
        times = []
        for _turn in range(2):
            began = time.monotonic()
            try:
                build(request, lambda text: None)
            except BuildRefused as refused:
                if refused.code != CHANGES[what]:
                    raise
            times.append(time.monotonic() - began)
        with built_tree(request, lambda text: None) as tree:
            symbols = len(subprocess.run(["nm", tree.artifact], check=True, stdout=subprocess.PIPE).stdout.splitlines())
        rows.append([what, "%d" % symbols, "1" if what == "one function" else "%d" % UNITS, "%.1f" % times[1]])
    return rows


# What is changed, and the refusal that it meets.
CHANGES = {"one function": "", "a header, and no code": "nothing_changed", "a function in each file": ""}


def _write(tree: Path, what: str) -> None:
    if tree.exists():
        return
    tree.mkdir(parents=True)
    (tree / "Makefile").write_text(
        "CFLAGS = -O1 -g\nOBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))\nprog: $(OBJECTS)\n\t$(CC) -o $@ $^\n"
    )
    (tree / "all.h").write_text("#define UNUSED\n" if what == "a header, and no code" else "")
    calls = "".join("int unit%d(int); x += unit%d(x); " % (unit, unit) for unit in range(UNITS))
    (tree / "main.c").write_text("int main(void) { int x = 0; %s return x; }\n" % calls)
    for unit in range(UNITS):
        changed = what == "a function in each file" or (what == "one function" and unit == 0)
        (tree / ("unit%d.c" % unit)).write_text(_unit(unit, changed))


def _unit(unit: int, changed: bool) -> str:
    """Functions that each use a variable, a string and the function before it."""
    count = SYMBOLS // UNITS // 2
    text = '#include "all.h"\n#include <stdio.h>\n'
    for n in range(count):
        last = "f%d_%d(x - 1)" % (unit, n - 1) if n else "0"
        storage = "static " if n % 2 else ""
        text += "static int v%d_%d = %d;\n__attribute__((noinline)) %sint f%d_%d(int x)\n{\n" % (
            (unit, n, n + 1, storage, unit, n)
        )
        text += '    v%d_%d += x;\n    if (x > %d)\n        printf("%d %%d\\n", x);\n' % (unit, n, 7 * n + 3, n)
        text += "    return v%d_%d + %s;\n}\n" % (unit, n, last)
    return text + "int unit%d(int x) { return f%d_%d(x)%s; }\n" % (unit, unit, count - 1, " + 1" if changed else "")
