# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which files a unit reads: its own compile command, asked for a make rule (-M) in place of an object."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Iterable, TypeVar

from .link_inputs import Unit

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_WORD = re.compile(r"((?:\\[ #\\\n]|\$\$|[^\s\\]|\\(?=[^ #\\\n]))+)")


def in_parallel(function: Callable[[_In], _Out], rows: Iterable[_In]) -> list[_Out]:
    """function(row) for every row, as many at once as there are processors; results in order."""
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(function, rows))


def files_read(units: list[Unit], tree: str) -> list[list[str]]:
    """For each unit, the paths relative to `tree` of the files inside it that the unit reads, sorted.

    A unit whose command cannot be asked (an assembler file that needs no preprocessor) reads its source.
    """
    real = os.path.realpath(tree) + os.sep

    def ask(unit: Unit) -> list[str]:
        command = unit.command.for_source(unit.word, ["-M"])
        done = subprocess.run(
            command,
            cwd=unit.command.folder,
            env=unit.command.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        words = make_rule_words(done.stdout.decode("utf-8", "surrogateescape")) if done.returncode == 0 else []
        paths = {os.path.realpath(os.path.join(unit.command.folder, word)) for word in [*words, unit.source]}
        return sorted(path[len(real) :] for path in paths if path.startswith(real))

    return in_parallel(ask, units)


def make_rule_words(rule: str) -> list[str]:
    """The prerequisites of a make rule as -M writes it."""
    text = rule.split(":", 1)[1] if ":" in rule else ""
    words = _WORD.findall(text.replace("\\\n", " "))
    return [re.sub(r"\\([ #\\])", r"\1", word).replace("$$", "$") for word in words]
